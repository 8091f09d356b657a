//! Every node killed, paused and cut off at every step of publishing, relaying and joining: a step is an event of the world
//! (a segment or a datagram that arrives, a timer, an answer) between the first word of a client and its first picture.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use determinism::os;
use headwater_tests::world::actors::player::PlayerConfig;
use headwater_tests::world::actors::publisher::PublisherConfig;
use headwater_tests::world::{ClientId, HostId, World};
use proto_core::node::config::Role;
use std::time::Duration;

const STREAM: &str = "live/one";
/// Of so many steps one is tried; other seeds try others. `STEPS=1` tries all.
const STRIDE: usize = 24;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A publisher comes: its name is claimed, the manager grants it, it is announced.
    Publishing,
    /// A viewer comes to an edge that does not have the stream: it is located, pulled, and the viewer joins.
    Joining,
}

struct Scene {
    nodes: [HostId; 3],
    publisher: Option<ClientId>,
    /// A viewer at the origin's other edge, since before the fault.
    settled: Option<ClientId>,
    viewer: Option<ClientId>,
}

fn scene(w: &mut World, phase: Phase) -> Scene {
    let m = w.host("m1", &[Role::Manager], None);
    let o = w.host("o1", &[Role::Origin], Some(m));
    let e = w.host("e1", &[Role::Edge], Some(m));
    let e2 = w.host("e2", &[Role::Edge], Some(m));
    w.run(ms(2_500));
    let mut scene = Scene { nodes: [m, o, e], publisher: None, settled: None, viewer: None };
    let again = || PublisherConfig { again: Some(ms(500)), ..PublisherConfig::default() };
    let p = w.publish_with(o, STREAM, again());
    scene.publisher = Some(p);
    if phase == Phase::Joining {
        w.until("it publishes", ms(3_000), |w| w.publisher(p).is_ready());
        w.run(ms(1_200));
        let settled = w.play(e2, STREAM);
        scene.settled = Some(settled);
        w.until("it sees", ms(3_000), |w| w.player(settled).last_picture().is_some());
        w.run(ms(700));
        let config = PlayerConfig { again: Some(ms(500)), ..PlayerConfig::default() };
        scene.viewer = Some(w.play_with(e, STREAM, config));
    }
    scene
}

impl Scene {
    /// The step that is under way is done.
    fn done(&self, w: &World) -> bool {
        match self.viewer {
            Some(v) => w.player(v).last_picture().is_some(),
            None => self.publisher.is_some_and(|p| w.publisher(p).is_ready()),
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
fn steps(seed: u64, phase: Phase) -> usize {
    world(seed, |w| {
        let scene = scene(w, phase);
        let mut n = 0;
        while !scene.done(w) {
            event(w);
            n += 1;
            assert!(n < 100_000, "{phase:?} never ends");
        }
        n
    })
}

fn strike(seed: u64, phase: Phase, victim: usize, fault: Fault, at: usize) {
    world(seed, |w| {
        let scene = scene(w, phase);
        (0..at).for_each(|_| event(w));
        let what = format!("{fault:?} of node {victim} at step {at} of {phase:?}, seed {seed}");
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
        let p = scene.publisher.expect("there is one");
        // The lease and 2 s; and the pause between two attempts of the publisher.
        w.until(&format!("{what}: the publisher is live"), ms(5_500), |w| w.publisher(p).is_ready());
        let session = w.publisher(p).sent.last().expect("it publishes").session;
        let sees = |w: &World, v: ClientId| {
            w.player(v)
                .last_picture()
                .is_some_and(|s| s.label.session == session && s.at + ms(1_000) > w.now())
        };
        for v in scene.settled.into_iter().chain(scene.viewer) {
            w.until(&format!("{what}: {v:?} sees"), ms(8_000), |w| sees(w, v));
        }
        if let Some(v) = scene.settled {
            let player = w.player(v);
            assert_eq!(
                (&player.ended, player.connections),
                (&None, 1),
                "{what}: the edge of this viewer lives"
            );
        }
    });
}

fn all(phase: Phase) {
    let stride = std::env::var("STEPS").map_or(STRIDE, |n| n.parse().expect("STEPS is a number"));
    let mut tried = 0;
    for victim in 0..3 {
        for fault in [Fault::Restart, Fault::Pause, Fault::Cut] {
            let seed = (victim * 3 + fault as usize) as u64;
            let last = steps(seed, phase);
            // Not the same steps of each node, and the last one always.
            let first = (victim * 3 + fault as usize) * stride / 9;
            for at in (first..last).step_by(stride).chain([last]) {
                strike(seed, phase, victim, fault, at);
                tried += 1;
            }
        }
    }
    println!("{phase:?}: {tried} runs");
    assert!(tried >= 18, "{tried}");
}

#[test]
fn any_node_may_fail_at_any_step_of_publishing() {
    all(Phase::Publishing);
}

#[test]
fn any_node_may_fail_at_any_step_of_joining_and_relaying() {
    all(Phase::Joining);
}
