//! More viewers than a node has room for, in virtual time: newcomers are told so, and those who are in notice nothing.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use determinism::os;
use headwater_tests::world::actors::player::PlayerConfig;
use headwater_tests::world::actors::webrtc::{WhepConfig, WhipConfig};
use headwater_tests::world::{ClientId, World};
use proto_core::node::config::Role;
use std::time::Duration;

const STREAM: &str = "live/one";

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn world<T: Send>(seed: u64, test: impl FnOnce(&mut World) -> T + Send) -> T {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    os::run(bytes, || test(&mut World::new(seed))).expect("a world replays here")
}

#[test]
fn past_its_capacity_an_edge_refuses_newcomers_and_those_who_are_in_notice_nothing() {
    for seed in 0..3 {
        world(seed, overload);
    }
}

fn overload(w: &mut World) {
    let m = w.host("m1", &[Role::Manager], None);
    let o = w.host("o1", &[Role::Origin], Some(m));
    let e = w.host_with("e1", &[Role::Edge], Some(m), |c| c.node.capacity_mbps = 4);
    w.run(ms(2_500));
    // About 0.9 Mbit/s.
    let config = WhipConfig { key_bytes: 20_000, delta_bytes: 4_000, ..WhipConfig::default() };
    let p = w.publish_webrtc(o, STREAM, config);
    w.until("it publishes", ms(5_000), |w| w.whip(p).is_ready());
    w.run(ms(1_000));
    // They come one after the other, until the edge is full.
    let mut inside: Vec<ClientId> = Vec::new();
    let full = (0..12).any(|_| {
        let v = w.play_webrtc(e, STREAM, WhepConfig { strict: true, ..WhepConfig::default() });
        w.run(ms(1_500));
        let refused = w.whep(v).ended().is_some();
        if !refused {
            inside.push(v);
        }
        refused
    });
    assert!(full && (3..=6).contains(&inside.len()), "{} viewers of 0.9 Mbit/s in 4", inside.len());
    // Thirty more, by both protocols, who do not give up.
    let since = w.now();
    let again = Some(ms(400));
    let callers: Vec<ClientId> =
        (0..20).map(|_| w.play_webrtc(e, STREAM, WhepConfig { again, ..WhepConfig::default() })).collect();
    let players: Vec<ClientId> =
        (0..10).map(|_| w.play_with(e, STREAM, PlayerConfig { again, ..PlayerConfig::default() })).collect();
    w.run(ms(10_000));
    for v in &callers {
        let calls = w.whep(*v).calls();
        assert!(calls.len() > 5 && calls.iter().rev().skip(1).all(|c| c.status == Some(503)), "{calls:?}");
    }
    for v in &players {
        let player = w.player(*v);
        assert!(player.seen.is_empty() && player.connections > 5, "{:?}", player.statuses);
        assert!(player.statuses.iter().any(|s| s.starts_with("NetStream.Play")), "{:?}", player.statuses);
    }
    let session = w.whip(p).sent[0].session;
    for v in &inside {
        let viewer = w.whep(*v);
        let seen: Vec<_> = viewer.seen.iter().filter(|s| s.picture && s.at > since).collect();
        assert_eq!(viewer.ended(), None);
        assert!(seen.len() >= 240, "{} of 250 pictures", seen.len());
        assert!(seen.windows(2).all(|p| p[1].seq == p[0].seq + 1 && p[0].session == session));
        let late = seen.iter().map(|s| {
            let sampled = w.whip(p).sampled(session, 'v', s.seq).expect("it was sampled");
            s.at.since(sampled)
        });
        assert!(late.max().is_some_and(|l| l <= ms(80)), "pictures are late");
    }
    // One leaves: there is room for one.
    w.with_whep(inside[0], |v, now| v.leave(now));
    w.until("one of those who waited gets in", ms(6_000), |w| {
        callers.iter().any(|v| w.whep(*v).last_picture().is_some())
            || players.iter().any(|v| w.player(*v).last_picture().is_some())
    });
}
