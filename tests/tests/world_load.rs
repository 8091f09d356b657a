//! More viewers than a node has room for, in virtual time: newcomers are told so, and those who are in notice nothing.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use determinism::os;
use headwater_tests::world::actors::asker::Asker;
use headwater_tests::world::actors::player::PlayerConfig;
use headwater_tests::world::actors::webrtc::{WhepConfig, WhipConfig};
use headwater_tests::world::{ClientId, HostId, World};
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
    // About 1.4 Mbit/s: three are more than the edge has, and two leave room for those who ask and are refused.
    let config = WhipConfig { key_bytes: 20_000, delta_bytes: 6_200, ..WhipConfig::default() };
    let p = w.publish_webrtc(o, STREAM, config);
    w.until("it publishes", ms(5_000), |w| w.whip(p).is_ready());
    w.run(ms(1_000));
    // They come one after the other, each when the burst for the one before is over, until the edge is full.
    let mut inside: Vec<ClientId> = Vec::new();
    let full = (0..12).any(|_| {
        let v = w.play_webrtc(e, STREAM, WhepConfig { strict: true, ..WhepConfig::default() });
        w.run(ms(3_000));
        let refused = w.whep(v).ended().is_some();
        if !refused {
            inside.push(v);
        }
        refused
    });
    assert!(full && (3..=6).contains(&inside.len()), "{} viewers of 1.4 Mbit/s in 4", inside.len());
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

/// Asks as a page of another origin does. Answers status, headers in lower case, and body.
fn asked(w: &mut World, at: HostId, method: &str, path: &str, more: &str) -> (u16, String, String) {
    let headers = format!("Origin: https://page.example\r\n{more}");
    let asker = Asker::with_headers(w.http_addr(at), method, path, &headers);
    let id = w.add(Box::new(asker));
    w.until(path, ms(3_000), |w| w.actor::<Asker>(id).is_some_and(|a| a.result.is_some()));
    let asker = w.actor::<Asker>(id).expect("it was added");
    let (status, body) = asker.result.clone().expect("it has an answer").expect("a whole one");
    (status, asker.head.to_ascii_lowercase(), body)
}

/// A cluster that has no place left says so in the shape of each generation of the manager's API, and pages may read it.
#[test]
fn a_full_cluster_refuses_in_the_words_of_both_generations() {
    for seed in 0..2 {
        world(seed, full);
    }
}

fn full(w: &mut World) {
    let m = w.host("m1", &[Role::Manager], None);
    // Room for a few of those who were sent and have not come.
    let o = w.host_with("o1", &[Role::Origin], Some(m), |c| c.node.capacity_mbps = 6);
    w.host_with("e1", &[Role::Edge], Some(m), |c| c.node.capacity_mbps = 6);
    w.run(ms(2_500));
    let p = w.publish_webrtc(o, STREAM, WhipConfig::default());
    w.until("it publishes", ms(5_000), |w| w.whip(p).is_ready());
    w.run(ms(1_500));
    for (first, second) in [("broadcast", "publish"), ("subscribe", "subscribe")] {
        let name = |n: usize| if second == "publish" { format!("live/n{n}") } else { STREAM.to_owned() };
        let one = |n| format!("/streammanager/api/4.0/event/{}?action={first}", name(n));
        let two = |n| format!("/as/v1/streams/stream/default/{second}/{}", name(n));
        let given =
            (0..20).find(|n| asked(w, m, "GET", &one(*n), "").0 != 200).expect("it is full at some time");
        assert!(given > 0, "there was room at first");
        for (path, error) in [(one(20), "errorMessage"), (two(20), "error")] {
            let (status, head, body) = asked(w, m, "GET", &path, "");
            let told: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!(status, 503, "{path}: {body}");
            assert!(told[error].as_str().is_some_and(|t| t.contains("at its capacity")), "{path}: {body}");
            let members = told.as_object().map_or(0, |o| o.len());
            let stamped = told["timestamp"].is_u64();
            assert_eq!((members, stamped), if error == "error" { (1, false) } else { (2, true) }, "{body}");
            assert!(
                head.contains("access-control-allow-origin: *") && head.contains("retry-after: 1"),
                "{head}"
            );
            let preflight = "Access-Control-Request-Method: GET\r\n";
            let (status, head, _) = asked(w, m, "OPTIONS", &path, preflight);
            assert!(status == 204 && head.contains("access-control-allow-methods: get,"), "{head}");
        }
    }
    // What was given out and not used is free again.
    w.run(ms(30_000));
    let (status, _, body) = asked(w, m, "GET", "/as/v1/streams/stream/default/publish/live/later", "");
    assert_eq!(status, 200, "{body}");
}
