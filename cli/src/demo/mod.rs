//! `headwater demo`: manager, origin and edge in one process, and a clip that is published through them by the front
//! door, as any publisher would.

mod clip;
mod cluster;
mod publisher;

use crate::args;
use crate::failure::Failure;
use crate::log::Log;
use crate::run;
use crate::say;
use crate::settings::{self, Loader};
use clip::Clip;
use proto_core::io::Level;
use proto_core::node::address::reachable;
use publisher::{Job, Publisher};
use runtime_mio::RemoteControl;
use std::fmt::Write as _;
use std::net::SocketAddr;

/// The stream that the clip is published as.
const STREAM: &str = "live/demo";

/// Runs the demo until it is ended.
///
/// # Errors
/// Wrong arguments, or why a node could not start or go on.
pub(crate) fn run(args: &args::Demo) -> Result<(), Failure> {
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
        let ready = run::start(&node.config, log.of_node(node.label))
            .map_err(|e| told_by_offset(e, args.port_offset))?;
        nodes.push((node.label.to_owned(), ready));
    }
    say(&cluster::welcome(&planned))?;
    let manager = &planned[0].config;
    let manager = SocketAddr::new(reachable(manager.bind), manager.http.port);
    let job = Job { manager, stream: STREAM, clip, limits: base.limits.clone() };
    let publisher = Publisher::start(job, log.of_node("publisher"))
        .map_err(|e| Failure::Running(format!("the publisher has no thread to run on: {e}")))?;
    let said = log.clone();
    run::until_all_end(nodes, &log, move |nodes| {
        said.say(Level::Info, "asked to end: the publisher takes leave, then the nodes do");
        publisher.leave();
        nodes.iter().for_each(RemoteControl::drain);
    })
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
    use std::net::TcpListener;

    fn demo(port_offset: u16, set: &[&str]) -> args::Demo {
        let set = set.iter().map(|&pair| pair.to_owned()).collect();
        args::Demo { bind: [127, 0, 0, 1].into(), port_offset, set }
    }

    #[test]
    fn keys_that_the_demo_owns_are_refused() {
        let Err(Failure::Wrong(texts)) = run(&demo(0, &["http.port=9"])) else { panic!("it ran") };
        assert!(texts[0].contains("--port-offset"), "{texts:?}");
    }

    #[test]
    fn a_node_that_cannot_start_ends_the_demo_with_its_words() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let offset = port - 5_080;
        let Err(Failure::Running(text)) = run(&demo(offset, &[])) else { panic!("it ran") };
        assert!(text.contains(&port.to_string()) && text.contains("address in use"), "{text}");
        assert!(text.contains(&format!("--port-offset {}", offset + 1_000)), "{text}");
    }
}
