//! `cargo fuzzing`: fuzzing that adds up over many runs, and which part of the core its inputs reach (docs/fuzzing.md).
#![forbid(unsafe_code)]
// It starts processes and measures real time; the bans of clippy.toml are for the core.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use clap::{Parser, Subcommand};
use headwater_tests::fuzzing::{self, coverage};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Fuzzing that adds up over many runs, and which part of the core its inputs reach.
#[derive(Parser)]
#[command(name = "fuzzing")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds the targets, runs them one after another, and adds the executions to fuzz/executions.tsv. Needs cargo-fuzz.
    Run {
        /// Only these; none: all.
        targets: Vec<String>,
        /// Seconds for each.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Where the targets lie that were built before; none: they are built now.
        #[arg(long)]
        binaries: Option<PathBuf>,
    },
    /// Writes the seeds that are made, not found (of quic_link, node, cluster, world and http1_request), anew: after a change of the
    /// wire format between nodes, or of what the fuzzer's clients can say.
    Seeds,
    /// Prints how often each target was executed in all runs.
    Table,
    /// Prints which part of the core seeds and corpus reach. Needs `rustup component add llvm-tools`. Fails below 80 % of the
    /// regions.
    Coverage {
        /// Seconds for each target at most.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
}

fn act(command: Command) -> Result<bool, String> {
    let all = fuzzing::targets()?;
    match command {
        Command::Run { targets, seconds, binaries } => {
            if let Some(unknown) = targets.iter().find(|t| !all.contains(t)) {
                return Err(format!("there is no target {unknown}; there are {}", all.join(", ")));
            }
            let binaries = binaries.map_or_else(fuzzing::build, Ok)?;
            let found = fuzzing::run(&binaries, if targets.is_empty() { &all } else { &targets }, seconds)?;
            found.iter().for_each(|t| println!("{t} found something, see fuzz/artifacts/{t}"));
            Ok(found.is_empty())
        }
        Command::Seeds => {
            println!("{} seeds written", fuzzing::write_seeds()?);
            Ok(true)
        }
        Command::Table => {
            let path = fuzzing::record();
            let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            print!("{}", fuzzing::table(&all, &fuzzing::sums(&text)?));
            Ok(true)
        }
        Command::Coverage { seconds } => {
            let files = coverage::measure(Duration::from_secs(seconds))?;
            print!("{}", coverage::told(&files));
            Ok(coverage::total(&files).percent() >= coverage::BAR)
        }
    }
}

fn main() -> ExitCode {
    match act(Args::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}
