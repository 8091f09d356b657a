//! Several loops in one process (`node.loops`): each is a node of the cluster on a thread of its own, and the kernel deals
//! clients out to them.

use crate::failure::Failure;
use crate::identity;
use crate::log::Log;
use crate::run::{Prepared, Ready, Record, seed};
use proto_core::io::{Level, Service};
use proto_core::node::config::loops::{LOOPS_MAX, Loops};
use proto_core::node::config::{Config, Role};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::thread;

/// How many loops a process with this configuration has.
pub(crate) fn count(config: &Config) -> usize {
    match config.node.loops {
        0 => thread::available_parallelism().map_or(1, NonZero::get).min(LOOPS_MAX),
        n => n,
    }
}

/// The configuration of each loop, in the order of their numbers; one whole one where there are no several. What is only known
/// when they start is left open.
///
/// # Errors
/// The end of a sentence about `node.loops`.
pub(crate) fn plan(config: &Config) -> Result<Vec<Config>, String> {
    let doors = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); count(config)];
    match doors.len() {
        1 => Ok(vec![config.clone()]),
        _ => with_doors(config, &doors, String::new(), false),
    }
}

fn with_doors(
    config: &Config,
    doors: &[SocketAddr],
    secret: String,
    made_key: bool,
) -> Result<Vec<Config>, String> {
    let manager = config.has_role(Role::Manager);
    let loops = |index| Loops { index, doors: doors.to_vec(), secret: secret.clone(), manager, made_key };
    (0..doors.len()).map(|index| config.of_loop(loops(index))).collect()
}

/// Whether all loops listen at one address for this.
pub(crate) const fn is_shared(service: Service) -> bool {
    !matches!(service, Service::Link | Service::IceTcp | Service::Door)
}

/// Starts all loops of a process. Each with its name in the cluster.
///
/// # Errors
/// What keeps one of them from starting, with the remedy.
pub(crate) fn start(
    config: &Config,
    log: &Log,
    record: Option<&Record>,
) -> Result<Vec<(String, Ready)>, Failure> {
    let mut config = config.clone();
    if config.node.name.is_empty() {
        config.node.name = format!("node-{}", token(3)?);
    }
    // They reach each other at an address that may not be loopback, where nobody joins without a key.
    let made_key = config.cluster.key.is_empty();
    if made_key {
        config.cluster.key = token(32)?;
    }
    let of = count(&config);
    let mut runtimes = Vec::new();
    for index in 0..of {
        let log = log.of_node(&format!("{}/{index}", config.node.name));
        let mut runtime = Prepared::runtime(&config, &log)?;
        let door = runtime.bind(Service::Door, (Ipv4Addr::LOCALHOST, 0).into());
        let door = door.map_err(|e| Failure::Running(format!("the loops cannot reach each other: {e}")))?;
        runtimes.push((runtime, log, door));
    }
    // Whoever asks about a session of another loop, or whether all is well, is answered until the end.
    runtime_mio::end_together(runtimes.iter_mut().map(|(runtime, ..)| runtime));
    let doors: Vec<SocketAddr> = runtimes.iter().map(|(.., door)| *door).collect();
    let configs = with_doors(&config, &doors, token(32)?, made_key);
    let configs = configs.map_err(|why| Failure::Running(format!("node.loops {why}")))?;
    // Clients meet any of them at one port, and take a certificate that they accepted once.
    let identity = identity::make(&config)?;
    let mut ready = Vec::new();
    for (config, (runtime, log, _)) in configs.into_iter().zip(runtimes) {
        let name = config.node.name.clone();
        let mut prepared = Prepared { runtime, config, log };
        prepared.listen()?;
        let node = match record {
            None => prepared.node(identity.clone()),
            Some(record) => prepared.recorded(&record.of_loop(ready.len())),
        };
        ready.push((name, node?));
    }
    log.say(
        Level::Info,
        format!(
            "{of} loops, {0}/0 to {0}/{1}: the kernel deals connections out to them; limits are each loop's own{2}",
            config.node.name,
            of - 1,
            if made_key { "; without a cluster.key no other node can join them" } else { "" }
        ),
    );
    Ok(ready)
}

/// So many random bytes as text.
fn token(bytes: usize) -> Result<String, Failure> {
    let seed = seed()?;
    Ok(seed.iter().take(bytes).map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_loop_is_the_node_itself_and_none_means_one_for_each_core() {
        let mut config = Config::default();
        assert_eq!(plan(&config), Ok(vec![config.clone()]));
        config.node.loops = 0;
        assert!((1..=LOOPS_MAX).contains(&count(&config)));
        config.node.loops = 3;
        let names: Vec<String> = plan(&config).unwrap().into_iter().map(|c| c.node.name).collect();
        assert_eq!(names, ["/0", "/1", "/2"]);
    }

    #[test]
    fn ports_that_tell_the_loop_are_not_shared() {
        assert!([Service::Http, Service::Https, Service::Rtmp, Service::Rtsps].into_iter().all(is_shared));
        assert!(![Service::Link, Service::IceTcp, Service::Door].into_iter().any(is_shared));
    }
}
