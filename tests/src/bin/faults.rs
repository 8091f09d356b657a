//! `cargo faults`: what each fault at each node costs whom, as a table (docs/faults.md).
#![forbid(unsafe_code)]
// It starts processes and measures real time; the bans of clippy.toml are for the core.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use clap::Parser;
use headwater_tests::faults::report::{self, Cell};
use headwater_tests::faults::{Fault, Network, Victim, run};
use headwater_tests::interop::cluster;
use std::process::{Command, ExitCode, Stdio};

/// A fault at the manager, at an origin, at an edge; publishers and viewers by RTMP, RTSP, WHIP and WHEP at that node and at
/// others. What is not hit must lose nothing; what is hit must be back within 3 s of the fault's end (5 s where the node stays
/// dead). Faults of the network and the full disk need root, for namespaces.
#[derive(Parser)]
#[command(name = "faults")]
struct Args {
    /// Only these faults, by name and comma.
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    faults: Vec<Fault>,
    /// Only these nodes: manager, origin, edge.
    #[arg(long, value_delimiter = ',', value_parser = victim)]
    nodes: Vec<Victim>,
    /// Print which faults there are.
    #[arg(long)]
    list: bool,
    /// One cell, in the namespaces of another process: their names.
    #[arg(long, hide = true, value_delimiter = ',')]
    inside: Vec<String>,
    /// One cell, as a line of JSON.
    #[arg(long, hide = true)]
    cell: bool,
}

fn fault(name: &str) -> Result<Fault, String> {
    let found = Fault::ALL.into_iter().find(|f| f.name() == name);
    found.ok_or_else(|| "there is no such fault; --list tells which there are".to_owned())
}

fn victim(name: &str) -> Result<Victim, String> {
    let found = Victim::ALL.into_iter().find(|v| v.name() == name);
    found.ok_or_else(|| "nodes are manager, origin and edge".to_owned())
}

/// A cell in a process of its own, which nothing of another cell reaches.
fn apart(fault: Fault, victim: Victim) -> Result<Vec<headwater_tests::faults::Row>, String> {
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let network = if fault.is_network() { Some(Network::make()?) } else { None };
    let mut command = match &network {
        Some(network) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &network.left]).arg(me);
            command.args(["--inside", &format!("{},{}", network.left, network.right)]);
            command
        }
        None => Command::new(me),
    };
    command.args(["--cell", "--faults", fault.name(), "--nodes", victim.name()]);
    command.env("HEADWATER_BIN", cluster::binary()).stderr(Stdio::piped());
    let ran = command.output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&ran.stdout);
    let errors = String::from_utf8_lossy(&ran.stderr);
    match said.lines().find_map(|l| l.strip_prefix("rows ")) {
        Some(line) => {
            eprint!("{errors}");
            report::rows(line)
        }
        None => {
            let mut last: Vec<&str> = errors.lines().rev().take(12).collect();
            last.reverse();
            Err(last.join("; "))
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        Fault::ALL.iter().for_each(|f| println!("{f}{}", if f.needs_root() { " (needs root)" } else { "" }));
        return ExitCode::SUCCESS;
    }
    let faults = if args.faults.is_empty() { Fault::ALL.to_vec() } else { args.faults };
    let nodes = if args.nodes.is_empty() { Victim::ALL.to_vec() } else { args.nodes };
    if args.cell {
        let network = match args.inside.as_slice() {
            [left, right] => Some(Network::named(left, right)),
            _ => None,
        };
        return match run(faults[0], nodes[0], network.as_ref()) {
            Ok(rows) => {
                println!("rows {}", report::line(&rows));
                ExitCode::SUCCESS
            }
            Err(why) => {
                eprintln!("{why}");
                ExitCode::FAILURE
            }
        };
    }
    let mut cells = Vec::new();
    for fault in faults {
        for victim in &nodes {
            let result = apart(fault, *victim);
            let cell = Cell { fault, victim: *victim, result };
            eprint!("{}", report::row(&cell));
            cells.push(cell);
        }
    }
    print!("{}", report::table(&cells));
    if cells.iter().all(Cell::is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
