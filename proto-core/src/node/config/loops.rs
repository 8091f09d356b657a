//! Several loops in one process (`node.loops`): each is a node of the cluster, and what it is configured with follows from
//! the configuration of all.

use super::{Config, Role};
use crate::node::address::reachable;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

/// The most loops that a process may have.
pub const LOOPS_MAX: usize = 64;

/// A node's place among the loops of its process.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loops {
    /// Which of them it is, from 0.
    pub index: usize,
    /// Where each takes requests that came to another, in the order of their numbers: HTTP on loopback.
    pub doors: Vec<SocketAddr>,
    /// By which they know each other. Made at start, and known to nobody else.
    pub secret: String,
    /// Loop 0 is the cluster's manager.
    pub manager: bool,
    /// The cluster's key was made at start, because none is configured: no other node has it.
    pub made_key: bool,
}

impl fmt::Debug for Loops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loop {} of {}", self.index, self.doors.len())
    }
}

impl Config {
    /// The configuration of one loop, made of that of the process. `node.name` must not be empty, and without a key that nodes
    /// share, those of the process cannot join each other at an address that is not loopback.
    ///
    /// Ports of their own: `webrtc.port`, `cluster.port` and the pairs from `rtsp.udp_port`, each loop's above those of the one
    /// before. The other ports are shared. Loop 0 alone keeps the manager role, sources are dealt out in turn, and each has its
    /// part of `node.capacity_mbps`.
    ///
    /// # Errors
    /// The end of a sentence about `node.loops`, if a port is beyond 65535.
    pub fn of_loop(&self, loops: Loops) -> Result<Config, String> {
        let (index, of) = (loops.index, loops.doors.len().max(1));
        let port = |first: u16, each: usize, key: &str| {
            let port = usize::from(first).saturating_add(each.saturating_mul(index));
            let beyond = || format!("is {of}, and {key} of loop {index} would be {port}; ports end at 65535");
            u16::try_from(port).map_err(|_| beyond())
        };
        let mut config = self.clone();
        config.node.name = format!("{}/{index}", self.node.name);
        config.webrtc.port = port(self.webrtc.port, 1, "webrtc.port")?;
        config.cluster.port = port(self.cluster.port, 1, "cluster.port")?;
        config.rtsp.udp_port =
            port(self.rtsp.udp_port, 2 * usize::from(self.rtsp.udp_pairs), "rtsp.udp_port")?;
        let part = self.node.capacity_mbps / u32::try_from(of).unwrap_or(u32::MAX);
        config.node.capacity_mbps = part.max(1);
        let sources = self.sources.iter().enumerate().filter(|(n, _)| n % of == index);
        config.sources = sources.map(|(_, source)| source.clone()).collect();
        if index > 0 && self.has_role(Role::Manager) {
            config.node.roles.retain(|role| *role != Role::Manager);
            config.cluster.manager = SocketAddr::new(reachable(self.bind), self.cluster.port).to_string();
        }
        config.loops = Some(loops);
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn loops(index: usize, of: usize) -> Loops {
        let doors = (0..of).map(|n| ([127, 0, 0, 1], 40_000 + n as u16).into()).collect();
        Loops { index, doors, secret: "s".to_owned(), manager: true, made_key: true }
    }

    fn of_loop(config: &Config, index: usize, of: usize) -> Config {
        config.of_loop(loops(index, of)).unwrap()
    }

    fn named() -> Config {
        let mut config = Config::default();
        config.node.name = "n".to_owned();
        config
    }

    #[test]
    fn each_loop_has_ports_of_its_own_and_shares_the_others() {
        let (zero, two) = (of_loop(&named(), 0, 3), of_loop(&named(), 2, 3));
        let own = |c: &Config| (c.webrtc.port, c.cluster.port, c.rtsp.udp_port);
        assert_eq!((own(&zero), own(&two)), ((8189, 5090, 8000), (8191, 5092, 8016)));
        assert_eq!((two.http, two.rtmp, two.rtsps), (zero.http, zero.rtmp, zero.rtsps));
        assert_eq!((zero.node.name.as_str(), two.node.name.as_str()), ("n/0", "n/2"));
        assert_eq!(two.node.capacity_mbps, 333);
        let mut high = named();
        high.webrtc.port = 65_535;
        let why = high.of_loop(loops(1, 2)).unwrap_err();
        assert!(why.contains("webrtc.port of loop 1 would be 65536"), "{why}");
    }

    #[test]
    fn loop_0_alone_is_the_manager_and_the_others_dial_it() {
        let (zero, one) = (of_loop(&named(), 0, 2), of_loop(&named(), 1, 2));
        assert!(zero.has_role(Role::Manager) && zero.cluster.manager.is_empty());
        assert_eq!(one.node.roles, [Role::Origin, Role::Edge]);
        assert_eq!(one.cluster.manager, "127.0.0.1:5090");
        let mut elsewhere = named();
        elsewhere.node.roles = vec![Role::Edge];
        elsewhere.cluster.manager = "10.0.0.5".to_owned();
        assert_eq!(of_loop(&elsewhere, 1, 2).cluster.manager, "10.0.0.5");
    }

    #[test]
    fn each_source_is_one_loops() {
        let mut config = named();
        let source = |name| format!(r#"{{"stream": "live/{name}", "url": "rtsp://10.0.0.7/{name}"}}"#);
        config.sources = ["a", "b", "c"].map(|name| serde_json::from_str(&source(name)).unwrap()).into();
        let of = |index| of_loop(&config, index, 2).sources.into_iter().map(|s| s.stream).collect::<Vec<_>>();
        assert_eq!((of(0), of(1)), (vec!["live/a".into(), "live/c".into()], vec!["live/b".to_owned()]));
    }

    #[test]
    fn a_recording_knows_it_and_a_file_does_not() {
        let one = of_loop(&named(), 1, 2);
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), one);
        assert!(!serde_json::to_string(&named()).unwrap().contains("doors"));
        assert_eq!(format!("{:?}", one.loops), "Some(loop 1 of 2)", "the secret is not shown");
    }
}
