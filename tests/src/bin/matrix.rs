//! The matrix of docs/matrix.md: real publishers, real players, through a cluster of separate processes.
#![forbid(unsafe_code)]
// It starts processes and measures real time; the bans of clippy.toml are for the core.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use clap::Parser;
use headwater_tests::interop::browser::{Browser, Page};
use headwater_tests::interop::cluster::Cluster;
use headwater_tests::interop::firefox::{Detour, Firefox};
use headwater_tests::interop::matrix::judge::Cell;
use headwater_tests::interop::matrix::publish::{self, Pages, Publisher};
use headwater_tests::interop::matrix::watch::Player;
use headwater_tests::interop::matrix::{self, Plan, SCRIPT, table};
use std::path::PathBuf;
use std::process::ExitCode;

/// The port of WebRTC, unless configured.
const WEBRTC: u16 = 8189;

/// Every publisher with every player, through manager, origin and edge; what arrives is read back and measured.
#[derive(Parser)]
#[command(name = "matrix")]
struct Args {
    /// Only these publishers, by name and comma.
    #[arg(long, value_delimiter = ',', value_parser = publisher)]
    publishers: Vec<Publisher>,
    /// Only these players, by name and comma.
    #[arg(long, value_delimiter = ',', value_parser = player)]
    players: Vec<Player>,
    /// How long each player plays, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Players at the same time: more is faster, and measures the machine.
    #[arg(long, default_value_t = 2)]
    at_once: usize,
    /// Write each cell as a line of JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Print what publishers and players there are.
    #[arg(long)]
    list: bool,
}

fn publisher(name: &str) -> Result<Publisher, String> {
    Publisher::named(name)
        .ok_or_else(|| "there is no such publisher; --list tells which there are".to_owned())
}

fn player(name: &str) -> Result<Player, String> {
    let found = Player::ALL.into_iter().find(|p| p.name() == name);
    found.ok_or_else(|| "there is no such player; --list tells which there are".to_owned())
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        for publisher in publish::ALL {
            println!(
                "publisher {:16} {}, {} {}",
                publisher.name, publisher.title, publisher.video, publisher.audio
            );
        }
        for player in Player::ALL {
            println!("player    {:16} {}", player.name(), player.title());
        }
        return ExitCode::SUCCESS;
    }
    let publishers = if args.publishers.is_empty() { publish::ALL.to_vec() } else { args.publishers };
    let players = if args.players.is_empty() { Player::ALL.to_vec() } else { args.players };
    let cluster = Cluster::start();
    let wants = |sends: fn(&Publisher) -> bool, plays: fn(&Player) -> bool| {
        players.iter().any(plays) || publishers.iter().any(sends)
    };
    let chromium = wants(|p| p.needs().0, |p| p.is_chromium()).then(Browser::start);
    let firefox = wants(|p| p.needs().1, |&p| p == Player::Firefox).then(Firefox::start);
    let pages = Pages {
        chromium: chromium.as_ref().map(|b| b as &dyn Page),
        firefox: firefox.as_ref().map(|b| b as &dyn Page),
    };
    for page in [pages.chromium, pages.firefox].into_iter().flatten() {
        page.open(&cluster.manager.url("/healthz"));
        page.eval(&format!("{SCRIPT}; return true;"));
    }
    let mut detours = Vec::new();
    if let Some(firefox) = &firefox {
        for node in [&cluster.origin, &cluster.edge] {
            let Some(detour) = Detour::to((node.ip, WEBRTC).into()) else {
                eprintln!("this machine has no address but those of loopback: Firefox will not connect");
                break;
            };
            let (from, to) =
                (format!("{} {WEBRTC}", node.ip), format!("{} {}", detour.at.ip(), detour.at.port()));
            firefox.eval(&format!("hw.inside.detours.push(['{from}', '{to}'])"));
            detours.push(detour);
        }
    }
    let files = std::env::temp_dir().join(format!("headwater-matrix-{}", std::process::id()));
    std::fs::create_dir_all(&files).expect("a directory for temporary files");
    let plan = Plan { seconds: args.seconds, at_once: args.at_once };
    let mut cells: Vec<Cell> = Vec::new();
    for publisher in publishers {
        let got = matrix::run(&cluster, pages, publisher, &players, plan, &files);
        for cell in &got {
            eprintln!("{}", cell.json());
            if !cell.told.is_empty() {
                eprintln!("{}", cell.told);
            }
        }
        cells.extend(got);
    }
    drop(std::fs::remove_dir_all(&files));
    if let Some(path) = args.json {
        let lines: String = cells.iter().map(|c| format!("{}\n", c.json())).collect();
        std::fs::write(&path, lines).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    println!("{}\n{}", table::short(&cells), table::long(&cells));
    let failed = cells.iter().filter(|c| c.failed().is_some()).count();
    eprintln!("{} cells, {failed} failed", cells.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
