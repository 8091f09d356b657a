//! What scenarios have in common: a small cluster, its publishers and viewers by any protocol, and what must be true of
//! them. A scenario's own point stays in its test.
//!
//! Everything here panics where a scenario does not get what it needs, as assertions of a test do.

use super::actors::player::Player;
use super::{ClientId, HostId, World};
use proto_core::node::config::Role;
use std::ops::Range;
use std::time::Duration;

/// The stream of scenarios with one.
pub const STREAM: &str = "live/one";

/// Milliseconds.
pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The seeds to run: these (`from..to`), or those that `WORLD_SEEDS` chooses.
///
/// # Panics
/// If they are no range of numbers.
pub fn chosen(usual: &str) -> Range<u64> {
    let chosen = std::env::var("WORLD_SEEDS").unwrap_or_else(|_| usual.to_owned());
    let (from, to) = chosen.split_once("..").expect("WORLD_SEEDS is from..to");
    let number = |s: &str| s.parse::<u64>().expect("a seed is a number");
    number(from)..number(to)
}

/// Runs a test with several seeds (see [`chosen`]). A failure names its seed.
pub fn seeds(usual: &str, test: impl Fn(&mut World)) {
    chosen(usual).for_each(|seed| test(&mut World::new(seed)));
}

/// Runs `test` in a world where everything comes from the seed.
///
/// # Panics
/// Where clocks and randomness cannot be the seed's.
pub fn replayed<T: Send>(seed: u64, test: impl FnOnce(&mut World) -> T + Send) -> T {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    determinism::os::run(bytes, || test(&mut World::new(seed))).expect("a world replays here")
}

/// As [`seeds`], each as [`replayed`].
pub fn replayed_seeds(usual: &str, test: impl Fn(&mut World) + Sync) {
    chosen(usual).for_each(|seed| replayed(seed, &test));
}

/// A manager, two origins and two edges.
#[derive(Clone, Copy, Debug)]
pub struct Cluster {
    /// The manager.
    pub m: HostId,
    /// An origin.
    pub o1: HostId,
    /// Another.
    pub o2: HostId,
    /// An edge.
    pub e1: HostId,
    /// Another.
    pub e2: HostId,
}

impl Cluster {
    /// One that stands.
    pub fn new(w: &mut World) -> Cluster {
        let m = w.host("m1", &[Role::Manager], None);
        let [o1, o2] = ["o1", "o2"].map(|name| w.host(name, &[Role::Origin], Some(m)));
        let [e1, e2] = ["e1", "e2"].map(|name| w.host(name, &[Role::Edge], Some(m)));
        // A manager that knows nothing yet waits for two report intervals.
        w.run(ms(2_500));
        Cluster { m, o1, o2, e1, e2 }
    }

    /// All of them.
    pub fn nodes(&self) -> [HostId; 5] {
        [self.m, self.o1, self.o2, self.e1, self.e2]
    }
}

/// Waits until a publisher publishes, `within` so many milliseconds.
pub fn ready(w: &mut World, publisher: ClientId, within: u64) {
    w.until("the publisher is accepted", ms(within), |w| w.standing(publisher).session.is_some());
}

/// The number of a publisher's present connection, by which its frames are told from those of others.
pub fn session(w: &World, publisher: ClientId) -> u64 {
    w.standing(publisher).session.expect("it publishes")
}

/// Whether the newest picture of a viewer is of this connection of a publisher.
pub fn sees(w: &World, viewer: ClientId, session: u64) -> bool {
    w.standing(viewer).session == Some(session)
}

/// Waits until a viewer sees pictures of this connection of a publisher, `within` so many milliseconds.
pub fn until_sees(w: &mut World, viewer: ClientId, session: u64, within: u64) {
    w.until(&format!("{viewer:?} sees session {session}"), ms(within), |w| sees(w, viewer, session));
}

/// A player by RTMP that has its first picture.
pub fn rtmp_viewer(w: &mut World, at: HostId, stream: &str, publisher: ClientId) -> ClientId {
    let v = w.play(at, stream);
    let s = session(w, publisher);
    until_sees(w, v, s, 4_000);
    v
}

/// A publisher by RTMP at an origin, a player there, and players at two edges.
pub fn rtmp_watched(w: &mut World) -> (Cluster, ClientId, [ClientId; 3]) {
    let c = Cluster::new(w);
    let p = w.publish(c.o1, STREAM);
    ready(w, p, 5_000);
    w.run(ms(1_500));
    let viewers = [c.o1, c.e1, c.e2].map(|at| rtmp_viewer(w, at, STREAM, p));
    (c, p, viewers)
}

/// Between its first and its last picture of a publisher's connection a player by RTMP has all of them, and the last is
/// recent.
pub fn saw_all_pictures(w: &World, player: ClientId, publisher: ClientId, session: u64) {
    let p: &Player = w.player(player);
    let seen = p.pictures(session);
    let (first, last) = (*seen.first().expect("it saw pictures"), *seen.last().expect("it saw pictures"));
    assert_eq!(seen, (first..=last).collect::<Vec<_>>(), "{player:?} has gaps");
    let sent = w.publisher(publisher).sent.iter().find(|s| s.session == session).expect("it is its own");
    assert!(last + 15 >= sent.pictures, "{player:?} has {last} of {}", sent.pictures);
}

/// What a node answers by HTTP, as JSON.
pub fn json(w: &mut World, at: HostId, path: &str) -> serde_json::Value {
    let (status, body) = w.get(at, path).expect("an answer");
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

/// How many sessions a node says that it has.
pub fn sessions(w: &mut World, at: HostId) -> usize {
    json(w, at, "/api/v1/sessions")["sessions"].as_array().map_or(0, Vec::len)
}

/// Everyone has left: nothing is kept anywhere, by the nodes' own account.
pub fn drains_to_zero(w: &mut World, nodes: &[HostId]) {
    // The hold time, the linger time of pulls, and a moment.
    w.run(ms(45_000));
    for &node in nodes {
        assert_eq!(sessions(w, node), 0, "{node:?} has sessions left");
        let streams = json(w, node, "/api/v1/streams");
        assert_eq!(streams["streams"].as_array().map(Vec::len), Some(0), "{node:?}: {streams}");
    }
    w.run(ms(5_000));
    for &node in nodes {
        let (_, metrics) = w.get(node, "/metrics").expect("an answer");
        for line in metrics.lines().filter(|l| l.starts_with("headwater_sessions{")) {
            assert_eq!(value(line), Some(0.0), "{node:?}: {line}");
        }
    }
}

/// As [`drains_to_zero`], and nodes have no connections left that the network has not.
pub fn all_gone(w: &mut World, nodes: &[HostId]) {
    drains_to_zero(w, nodes);
    for &node in nodes {
        let (_, metrics) = w.get(node, "/metrics").expect("an answer");
        let open = metrics.lines().find(|l| l.starts_with("headwater_connections "));
        let open = open.and_then(value).expect("there is a gauge of connections") as usize;
        w.run(ms(3_000));
        // The question was one of them; links between nodes stay.
        assert_eq!(open - 1, w.connections(node.into()), "{node:?} counts other connections than there are");
        assert!(open <= 2 * nodes.len(), "{node:?} has {open} connections left");
    }
}

/// The value in a line of metrics.
fn value(line: &str) -> Option<f64> {
    line.rsplit(' ').next().and_then(|v| v.parse().ok())
}
