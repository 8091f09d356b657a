//! `headwater demo`: manager, origin and edge in one process, and a clip that is published through them by the front
//! door, as any publisher would.

mod clip;
mod cluster;
pub(crate) mod publisher;

use crate::args;
use crate::failure::Failure;
use crate::log::Log;
use crate::run::{self, Start};
use crate::say;
use crate::settings::{self, Loader};
use clip::Clip;
use proto_core::node::io::Level;
use publisher::MakeClient;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::mpsc;

/// The stream that the clip is published as.
const STREAM: &str = "live/demo";

/// Runs the demo until it is ended.
///
/// # Errors
/// Wrong arguments, or why a node could not start or go on.
pub(crate) fn run(args: &args::Demo, start: Start, client: MakeClient) -> Result<(), Failure> {
    let mut loader = Loader::new()?;
    for pair in &args.set {
        let key = pair.split('=').next().unwrap_or_default().trim();
        if cluster::OWN_KEYS.contains(&key) {
            let text = format!(
                "--set {pair}: the demo sets {key} for each node itself; use --bind and --port-offset"
            );
            return Err(Failure::Wrong(vec![text]));
        }
        loader.set(pair);
    }
    let base = loader.finish()?.config;
    let seed = run::seed()?;
    let key = seed.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let planned =
        cluster::plan(&base, args.bind, args.port_offset, &key).map_err(|e| Failure::Wrong(vec![e]))?;
    let faults: Vec<String> = planned.iter().flat_map(|node| settings::faults(&node.config)).collect();
    if !faults.is_empty() {
        return Err(Failure::Wrong(faults));
    }
    let clip = Clip::built_in().map_err(Failure::Running)?;
    let log = Log::new(&base.log);
    let mut nodes = Vec::new();
    for node in &planned {
        let ready =
            start(&node.config, log.of_node(node.label)).map_err(|e| told_by_offset(e, args.port_offset))?;
        nodes.push((node.label, ready));
    }
    say(&cluster::welcome(&planned))?;
    let manager = &planned[0].config;
    let manager = SocketAddr::new(cluster::reachable(manager.bind), manager.http.port);
    // The publisher ends when this sender goes, at the latest with this function.
    let (_go_on, ended) = mpsc::channel();
    publisher::spawn(
        publisher::Job { manager, stream: STREAM, clip, limits: base.limits.clone(), client },
        ended,
        log.of_node("publisher"),
    )
    .map_err(|e| Failure::Running(format!("the publisher has no thread to run on: {e}")))?;
    log.say(Level::Info, "the demo runs");
    run::until_all_end(nodes, &log)
}

/// In the demo, ports are moved together.
fn told_by_offset(failure: Failure, offset: u16) -> Failure {
    match failure {
        Failure::Running(text) if text.contains("address in use") => {
            Failure::Running(format!("{text} (in the demo: --port-offset {})", offset.saturating_add(1_000)))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_core::limits::Limits;
    use publisher::{Client, Target};

    fn no_client(_: &Target, _: &Limits, _: [u8; 32]) -> Result<Box<dyn Client>, String> {
        panic!("nothing is published before the nodes stand")
    }

    #[test]
    fn keys_that_the_demo_owns_are_refused() {
        let args =
            args::Demo { bind: [127, 0, 0, 1].into(), port_offset: 0, set: vec!["http.port=9".to_owned()] };
        let Err(Failure::Wrong(texts)) = run(&args, |_, _| panic!("must not start"), no_client) else {
            panic!("it ran")
        };
        assert!(texts[0].contains("--port-offset"), "{texts:?}");
    }

    #[test]
    fn a_node_that_cannot_start_ends_the_demo_with_its_words() {
        let args = args::Demo { bind: [127, 0, 0, 1].into(), port_offset: 1_000, set: vec![] };
        let failed = run(
            &args,
            |config, _| Err(Failure::Running(format!("{}: address in use", config.http.port))),
            no_client,
        );
        assert_eq!(
            failed,
            Err(Failure::Running("6080: address in use (in the demo: --port-offset 2000)".to_owned()))
        );
    }
}
