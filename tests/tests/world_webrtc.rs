//! WebRTC publishers and viewers in virtual time: real ICE, DTLS and SRTP on both ends.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::world::actors::webrtc::{Seen, WhepConfig, WhipConfig};
use headwater_tests::world::{ClientId, HostId, World};
use proto_core::node::config::Role;
use std::time::Duration;

const STREAM: &str = "live/one";

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A manager, an origin and an edge.
struct Cluster {
    m: HostId,
    o: HostId,
    e: HostId,
}

fn cluster(w: &mut World) -> Cluster {
    let m = w.host("m1", &[Role::Manager], None);
    let o = w.host("o1", &[Role::Origin], Some(m));
    let e = w.host("e1", &[Role::Edge], Some(m));
    // A manager that knows nothing yet waits for two report intervals.
    w.run(ms(2_500));
    Cluster { m, o, e }
}

fn seeds(test: impl Fn(&mut World)) {
    let chosen = std::env::var("WORLD_SEEDS").unwrap_or_else(|_| "0..3".to_owned());
    let (from, to) = chosen.split_once("..").expect("WORLD_SEEDS is from..to");
    let number = |s: &str| s.parse::<u64>().expect("a seed is a number");
    for seed in number(from)..number(to) {
        test(&mut World::new(seed));
    }
}

fn strict() -> WhepConfig {
    WhepConfig { strict: true, ..WhepConfig::default() }
}

fn live(w: &mut World, at: HostId, config: WhipConfig) -> ClientId {
    let p = w.publish_webrtc(at, STREAM, config);
    w.until("the publisher is connected", ms(5_000), |w| w.whip(p).is_ready());
    p
}

fn session(w: &World, publisher: ClientId) -> u64 {
    w.whip(publisher).sent.last().unwrap().session
}

fn until_sees(w: &mut World, viewer: ClientId, session: u64, within: u64) {
    w.until(&format!("{viewer:?} sees session {session}"), ms(within), |w| {
        w.whep(viewer).last_picture().is_some_and(|s| s.session == session)
    });
}

fn viewer(w: &mut World, at: HostId, publisher: ClientId, config: WhepConfig) -> ClientId {
    let v = w.play_webrtc(at, STREAM, config);
    let s = session(w, publisher);
    until_sees(w, v, s, 4_000);
    v
}

/// From a second after its call on, a viewer has all frames of the publisher's session in both tracks, and the last is
/// recent. (Datagrams of the first burst may overtake the end of the handshake; nobody can read those.)
fn saw_all(w: &World, viewer: ClientId, publisher: ClientId) {
    let sent = w.whip(publisher).sent.last().unwrap().clone();
    let v = w.whep(viewer);
    let since = v.calls().last().unwrap().connected.expect("it is connected") + ms(1_000);
    for (picture, count) in [(true, sent.pictures), (false, sent.sounds)] {
        let of = |s: &&Seen| s.session == sent.session && s.picture == picture && s.at >= since;
        let seen: Vec<u64> = v.seen.iter().filter(of).map(|s| s.seq).collect();
        let (first, last) = (*seen.first().expect("it saw frames"), *seen.last().unwrap());
        let gaps = &v.gaps;
        assert_eq!(seen, (first..=last).collect::<Vec<_>>(), "{viewer:?} has gaps: {gaps:?}");
        assert!(last + 15 >= count, "{viewer:?} has {last} of {count}");
    }
}

/// The longest time from sampling to the viewer, over the frames that came `from` milliseconds after its call stood.
fn latency(w: &World, viewer: ClientId, publisher: ClientId, from: u64) -> Duration {
    let v = w.whep(viewer);
    let since = v.calls().last().unwrap().connected.unwrap() + ms(from);
    let late = |s: &Seen| {
        let track = if s.picture { 'v' } else { 'a' };
        let sampled = w.whip(publisher).sampled(s.session, track, s.seq)?;
        Some(s.at.since(sampled))
    };
    v.seen.iter().filter(|s| s.at >= since).filter_map(late).max().expect("it saw frames")
}

#[test]
fn every_frame_of_a_whip_publisher_reaches_every_whep_viewer() {
    seeds(|w| {
        let c = cluster(w);
        let p = live(w, c.o, WhipConfig::default());
        w.run(ms(1_000));
        let viewers = [c.o, c.e].map(|at| viewer(w, at, p, strict()));
        w.run(ms(8_000));
        for v in viewers {
            saw_all(w, v, p);
            let (late, skew) = (latency(w, v, p, 1_000), w.whep(v).skew);
            assert!(late <= ms(60), "{late:?}");
            assert!(skew > Duration::ZERO, "it was measured");
        }
        let _ = c.m;
    });
}
