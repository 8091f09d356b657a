//! Every node killed, paused and cut off at every step of publishing, relaying and joining: a step is an event of the world
//! (a segment or a datagram that arrives, a timer, an answer) between the first word of a client and its first picture. By
//! RTMP, RTSP, and WHIP and WHEP.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use determinism::os;
use headwater_tests::world::actors::player::PlayerConfig;
use headwater_tests::world::actors::publisher::PublisherConfig;
use headwater_tests::world::actors::webrtc::{WhepConfig, WhipConfig};
use headwater_tests::world::{ClientId, HostId, World};
use proto_core::node::config::Role;
use proto_core::time::Time;
use std::time::Duration;

const STREAM: &str = "live/one";
/// What a client takes for the end of a call by WebRTC, which has no connection that ends.
const SILENCE: Duration = ms(2_000);

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Killed, and started after a moment with empty memory.
    Restart,
    /// Its processor sleeps for a while, longer than a lease.
    Pause,
    /// It reaches nobody for a while, longer than a lease.
    Cut,
}

/// What the clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Rtmp,
    Rtsp,
    WebRtc,
}

impl By {
    /// Of so many steps one is tried, other ones of each node and fault. `STEPS=1` tries all.
    fn stride(self) -> usize {
        match self {
            By::Rtmp => 4,
            By::Rtsp => 8,
            By::WebRtc => 24,
        }
    }

    fn publish(self, w: &mut World, at: HostId) -> ClientId {
        let again = Some(ms(500));
        let config = PublisherConfig { again, ..PublisherConfig::default() };
        match self {
            By::Rtmp => w.publish_with(at, STREAM, config),
            By::Rtsp => w.publish_rtsp(at, STREAM, config),
            By::WebRtc => {
                w.publish_webrtc(at, STREAM, WhipConfig { again, silence: SILENCE, ..WhipConfig::default() })
            }
        }
    }

    fn is_ready(self, w: &World, id: ClientId) -> bool {
        match self {
            By::Rtmp => w.publisher(id).is_ready(),
            By::Rtsp => w.rtsp_publisher(id).is_ready(),
            By::WebRtc => w.whip(id).is_ready(),
        }
    }

    /// The newest session of a publisher.
    fn session(self, w: &World, id: ClientId) -> Option<u64> {
        match self {
            By::Rtmp => w.publisher(id).sent.last().map(|s| s.session),
            By::Rtsp => w.rtsp_publisher(id).sent.last().map(|s| s.session),
            By::WebRtc => w.whip(id).sent.last().map(|s| s.session),
        }
    }

    /// A player, that connects again or stays as it is.
    fn play(self, w: &mut World, at: HostId, again: Option<Duration>) -> ClientId {
        let config = PlayerConfig { again, ..PlayerConfig::default() };
        match self {
            By::Rtmp => w.play_with(at, STREAM, config),
            By::Rtsp => w.play_rtsp(at, STREAM, config),
            By::WebRtc => {
                let silence = if again.is_some() { SILENCE } else { WhepConfig::default().silence };
                w.play_webrtc(at, STREAM, WhepConfig { again, silence, ..WhepConfig::default() })
            }
        }
    }

    /// The publisher's session whose picture a player saw last, and when.
    fn last_picture(self, w: &World, id: ClientId) -> Option<(u64, Time)> {
        match self {
            By::Rtmp => w.player(id).last_picture().map(|s| (s.label.session, s.at)),
            By::Rtsp => w.rtsp_player(id).last_picture().map(|s| (s.label.session, s.at)),
            By::WebRtc => w.whep(id).last_picture().map(|s| (s.session, s.at)),
        }
    }

    /// Whether a player's first connection, or call, still stands.
    fn stayed(self, w: &World, id: ClientId) -> bool {
        match self {
            By::Rtmp => w.player(id).ended.is_none() && w.player(id).connections == 1,
            By::Rtsp => w.rtsp_player(id).ended.is_none() && w.rtsp_player(id).connections == 1,
            By::WebRtc => w.whep(id).ended().is_none() && w.whep(id).calls().len() == 1,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A publisher comes: its name is claimed, the manager grants it, it is announced.
    Publishing,
    /// A viewer comes to an edge that does not have the stream: it is located, pulled, and the viewer joins.
    Joining,
}

struct Scene {
    by: By,
    nodes: [HostId; 3],
    publisher: ClientId,
    /// A viewer at the origin's other edge, since before the fault.
    settled: Option<ClientId>,
    viewer: Option<ClientId>,
}

fn scene(w: &mut World, by: By, phase: Phase) -> Scene {
    let m = w.host("m1", &[Role::Manager], None);
    let o = w.host("o1", &[Role::Origin], Some(m));
    let e = w.host("e1", &[Role::Edge], Some(m));
    let e2 = w.host("e2", &[Role::Edge], Some(m));
    w.run(ms(2_500));
    let p = by.publish(w, o);
    let mut scene = Scene { by, nodes: [m, o, e], publisher: p, settled: None, viewer: None };
    if phase == Phase::Joining {
        w.until("it publishes", ms(3_000), |w| by.is_ready(w, p));
        w.run(ms(1_200));
        let settled = by.play(w, e2, None);
        scene.settled = Some(settled);
        w.until("it sees", ms(3_000), |w| by.last_picture(w, settled).is_some());
        w.run(ms(700));
        scene.viewer = Some(by.play(w, e, Some(ms(500))));
    }
    scene
}

impl Scene {
    /// The step that is under way is done.
    fn done(&self, w: &World) -> bool {
        match self.viewer {
            Some(v) => self.by.last_picture(w, v).is_some(),
            None => self.by.is_ready(w, self.publisher),
        }
    }
}

/// Goes on to the next event.
fn event(w: &mut World) {
    let until = w.now() + ms(10_000);
    assert!(w.step(until), "something always happens: {:?}", w.violation());
}

fn world<T: Send>(seed: u64, test: impl FnOnce(&mut World) -> T + Send) -> T {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    os::run(bytes, || test(&mut World::new(seed))).expect("a world replays here")
}

/// How many steps a phase has.
fn steps(seed: u64, by: By, phase: Phase) -> usize {
    world(seed, |w| {
        let scene = scene(w, by, phase);
        let mut n = 0;
        while !scene.done(w) {
            event(w);
            n += 1;
            assert!(n < 100_000, "{phase:?} by {by:?} never ends");
        }
        n
    })
}

fn strike(seed: u64, by: By, phase: Phase, victim: usize, fault: Fault, at: usize) {
    world(seed, |w| {
        let scene = scene(w, by, phase);
        (0..at).for_each(|_| event(w));
        let what = format!("{fault:?} of node {victim} at step {at} of {phase:?} by {by:?}, seed {seed}");
        let node = scene.nodes[victim];
        match fault {
            Fault::Restart => {
                w.crash(node);
                w.run(ms(1_000));
                w.start(node);
            }
            Fault::Pause => {
                w.pause(node);
                w.run(ms(5_000));
                w.resume(node);
            }
            Fault::Cut => {
                w.cut(node.into());
                w.run(ms(5_000));
                w.heal(node.into());
            }
        }
        let p = scene.publisher;
        // The lease and 2 s; and the pause between two attempts of the publisher.
        w.until(&format!("{what}: the publisher is live"), ms(5_500), |w| by.is_ready(w, p));
        // Of the session that it has by then: what fell silent without an end is found out later.
        let sees = |w: &World, v: ClientId| {
            by.last_picture(w, v)
                .is_some_and(|(s, at)| Some(s) == by.session(w, p) && at + ms(1_000) > w.now())
        };
        for v in scene.settled.into_iter().chain(scene.viewer) {
            // Of an edge that died a viewer by WebRTC learns by silence, and then it asks again.
            let within = if matches!(by, By::WebRtc) { 20_000 } else { 8_000 };
            w.until(&format!("{what}: {v:?} sees"), ms(within), |w| sees(w, v));
        }
        if let Some(v) = scene.settled {
            assert!(by.stayed(w, v), "{what}: the edge of this viewer lives");
        }
    });
}

fn all(by: By, phase: Phase) {
    let stride = std::env::var("STEPS").map_or(by.stride(), |n| n.parse().expect("STEPS is a number"));
    let mut tried = 0;
    for victim in 0..3 {
        for fault in [Fault::Restart, Fault::Pause, Fault::Cut] {
            let seed = (victim * 3 + fault as usize) as u64;
            let last = steps(seed, by, phase);
            // Not the same steps of each node, and the last one always.
            let first = (victim * 3 + fault as usize) * stride / 9;
            for at in (first..last).step_by(stride).chain([last]) {
                strike(seed, by, phase, victim, fault, at);
                tried += 1;
            }
        }
    }
    println!("{phase:?} by {by:?}: {tried} runs");
    assert!(tried > 9, "{phase:?} by {by:?} has steps");
}

#[test]
fn any_node_may_fail_at_any_step_of_publishing() {
    all(By::Rtmp, Phase::Publishing);
}

#[test]
fn any_node_may_fail_at_any_step_of_joining_and_relaying() {
    all(By::Rtmp, Phase::Joining);
}

#[test]
fn any_node_may_fail_at_any_step_of_publishing_by_rtsp() {
    all(By::Rtsp, Phase::Publishing);
}

#[test]
fn any_node_may_fail_at_any_step_of_joining_by_rtsp() {
    all(By::Rtsp, Phase::Joining);
}

#[test]
fn any_node_may_fail_at_any_step_of_publishing_by_whip() {
    all(By::WebRtc, Phase::Publishing);
}

#[test]
fn any_node_may_fail_at_any_step_of_joining_by_whep() {
    all(By::WebRtc, Phase::Joining);
}
