//! The `headwater` binary: arguments, configuration, log and signals around nodes that `proto-core` and
//! `runtime-mio` make.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "files, clocks and threads live out here"
)]

mod args;
mod bench;
mod ctl;
mod demo;
mod doctor;
mod failure;
mod identity;
mod listen;
mod log;
mod loops;
mod passwd;
mod replay;
mod run;
mod seeded;
mod settings;
mod signals;

use args::{Cli, Command, ConfigCommand, CtlCommand};
use clap::Parser as _;
use ctl::List;
use failure::Failure;
use log::Log;
use proto_core::io::Level;
use proto_core::node::config::Config;
use runtime_mio::RemoteControl;
use settings::{Loaded, Loader};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// The version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve(&args),
        Command::Doctor(args) => doctor(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Config(args) => match args.command {
            None => settings::print(&Config::default()).map_err(Failure::Running).and_then(|text| say(&text)),
            Some(ConfigCommand::Check { file }) => check(&file),
        },
        Command::Ctl(args) => control(&args),
        Command::Bench(args) => bench::run(&args).and_then(|text| say(&text)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to be told that standard error is gone.
            let _ = std::io::stderr().write_all(failure.words().as_bytes());
            ExitCode::from(failure.code())
        }
    }
}

/// The configuration that files, environment and arguments make together.
fn load(args: &args::Given) -> Result<Loaded, Failure> {
    let mut loader = Loader::new()?;
    if let Some(path) = &args.config {
        loader.file(path);
    }
    loader.environment(std::env::vars_os());
    args.set.iter().for_each(|pair| loader.set(pair));
    let flags = [
        ("--roles", "node.roles", &args.roles),
        ("--loops", "node.loops", &args.loops),
        ("--manager", "cluster.manager", &args.manager),
        ("--bind", "bind", &args.bind),
    ];
    for (flag, key, value) in flags {
        if let Some(value) = value {
            loader.flag(flag, key, value);
        }
    }
    loader.offset_ports(args.port_offset);
    Ok(loader.finish()?)
}

fn doctor(args: &args::Doctor) -> Result<(), Failure> {
    let loaded = load(&args.given)?;
    let report = match &args.reach {
        Some(host) => doctor::reach(&loaded.config, host),
        None => doctor::examine(&loaded),
    };
    say(&report.text())?;
    match report.bad() {
        0 => Ok(()),
        n => Err(Failure::Running(format!("{n} of {} checks say bad; see above", report.len()))),
    }
}

fn serve(args: &args::Serve) -> Result<(), Failure> {
    let loaded = load(&args.given)?;
    let log = Log::new(&loaded.config.log);
    for warning in &loaded.warnings {
        log.say(Level::Warn, warning.to_string());
    }
    // The node reads the file again by itself.
    let config = settings::cluster_keys(&loaded.config).map_err(Failure::Running)?;
    let record = args.record.clone().map(|path| run::Record { path, limit: args.record_limit });
    let nodes = match (&record, loops::count(&config)) {
        (record, 2..) => loops::start(&config, &log, record.as_ref())?,
        (None, _) => vec![("node".to_owned(), run::start(&config, log.clone())?)],
        (Some(record), _) => {
            vec![("node".to_owned(), run::start_recording(&config, log.clone(), record)?)]
        }
    };
    let said = log.clone();
    run::until_all_end(nodes, &log, move |nodes| {
        said.say(
            Level::Info,
            "asked to end: sessions may finish, nothing new is taken; once more ends at once",
        );
        nodes.iter().for_each(RemoteControl::drain);
    })
}

fn check(file: &Path) -> Result<(), Failure> {
    let mut loader = Loader::new()?;
    loader.file(file);
    let loaded = loader.finish()?;
    let mut text: String = loaded.warnings.iter().map(|w| format!("doubtful: {w}\n")).collect();
    text.push_str(&format!("{}: good\n", file.display()));
    say(&text)
}

fn control(args: &args::Ctl) -> Result<(), Failure> {
    let url = &args.url;
    let text = match &args.command {
        CtlCommand::Nodes => ctl::list(url, List::Nodes, args.json),
        CtlCommand::Streams => ctl::list(url, List::Streams, args.json),
        CtlCommand::Sessions => ctl::list(url, List::Sessions, args.json),
        CtlCommand::Proxies => ctl::list(url, List::Proxies, args.json),
        CtlCommand::Sources => ctl::list(url, List::Sources, args.json),
        CtlCommand::Destinations => ctl::list(url, List::Destinations, args.json),
        CtlCommand::Kick { session } => ctl::kick(url, session),
        CtlCommand::WhyPlaced { stream } => ctl::words(url, "placed", stream, args.json),
        CtlCommand::Why { session } => ctl::words(url, "why", session, args.json),
        CtlCommand::Token { action, stream, ttl, name, ip } => {
            let ip = ip.map(|ip| ip.to_string());
            let wish = ctl::TokenWish {
                action,
                stream: stream.as_deref(),
                name: name.as_deref(),
                ip: ip.as_deref(),
                ttl: *ttl,
            };
            ctl::token(url, &wish, args.json)
        }
        CtlCommand::Revoke { name } => ctl::revoke(url, name),
        CtlCommand::Passwd { name, rtsp, realm } => passwd::make(name, *rtsp, realm),
        CtlCommand::Drain { node, within, stop, undo } => ctl::drain(url, node, *within, *stop, *undo),
        CtlCommand::Warm { stream, edges, seconds } => ctl::warm(url, stream, *edges, *seconds),
    };
    say(&text.map_err(Failure::Running)?)
}

/// Prints to standard output. A reader that has seen enough (`headwater config | head`) is no failure.
fn say(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Running(format!("cannot write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}
