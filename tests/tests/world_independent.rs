//! Clients that share no code with the server, in whole clusters in virtual time: `rml_rtmp` for RTMP, webrtc-rs's `rtc`
//! for WebRTC. Every frame that they get is checked.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::world::actors::Client;
use headwater_tests::world::actors::player::{PlayerBy, PlayerConfig, Seen, Source};
use headwater_tests::world::actors::publisher::{OwnRtmp, PublisherBy, PublisherConfig, Wire};
use headwater_tests::world::actors::rml_player::RmlPlay;
use headwater_tests::world::actors::rml_publisher::RmlRtmp;
use headwater_tests::world::actors::rtc_rs::{Whep, Whip};
use headwater_tests::world::scenario::{STREAM, ms, seeds};
use headwater_tests::world::{ClientId, HostId, World};
use proto_core::node::config::Role;
use proto_core::rand::Rng;
use proto_core::time::Time;

/// A manager, an origin and an edge.
#[derive(Clone, Copy)]
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

fn rng(w: &World) -> Rng {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&w.pick("independent", w.next_client(), u64::MAX).to_be_bytes());
    Rng::new(seed)
}

/// A publisher over a wire; `rtc`: at the node's HTTP port, else at its RTMP port.
fn publish<W: Wire>(w: &mut World, at: HostId, rtc: bool, config: PublisherConfig) -> ClientId {
    let to = if rtc { w.http_addr(at) } else { w.rtmp_addr(at) };
    let p = PublisherBy::<W>::new(w.next_client(), to, STREAM, config, rng(w), w.now());
    let id = w.add(Box::new(p));
    w.until("the publisher is accepted", ms(5_000), |w| by::<PublisherBy<W>>(w, id).is_ready());
    id
}

fn play<S: Source>(w: &mut World, at: HostId, rtc: bool, config: PlayerConfig) -> ClientId {
    let to = if rtc { w.http_addr(at) } else { w.rtmp_addr(at) };
    w.add(Box::new(PlayerBy::<S>::with(to, STREAM, config, rng(w))))
}

fn by<T: Client>(w: &World, id: ClientId) -> &T {
    w.actor(id).expect("a client of that kind")
}

fn session<W: Wire>(w: &World, publisher: ClientId) -> u64 {
    by::<PublisherBy<W>>(w, publisher).sent.last().unwrap().session
}

fn until_sees<S: Source>(w: &mut World, player: ClientId, session: u64) {
    w.until("the player sees pictures", ms(4_000), |w| {
        let p = by::<PlayerBy<S>>(w, player);
        assert_eq!(p.ended, None, "it shall play");
        p.last_picture().is_some_and(|s| s.label.session == session)
    });
}

/// When a player's start is through. The cached group of pictures has come by then. What came by UDP before the
/// first packet that the library took is lost to it; by then that is made good too, by a new key frame.
fn settled<S: Source>(w: &World, player: ClientId, rtc: bool) -> Time {
    let first = by::<PlayerBy<S>>(w, player).seen.first().expect("it got frames").at;
    first + if rtc { ms(1_500) } else { ms(300) }
}

/// Once it has settled, a player has all frames of these tracks, each within `late`, and the last is that recent too.
fn saw_all<W: Wire, S: Source>(w: &World, publisher: ClientId, player: ClientId, tracks: &[char], rtc: bool) {
    let late = ms(150);
    let (p, v) = (by::<PublisherBy<W>>(w, publisher), by::<PlayerBy<S>>(w, player));
    let sent = p.sent.last().unwrap();
    let settled = settled::<S>(w, player, rtc);
    assert_eq!(v.ended, None);
    assert!(rtc || v.gaps.is_empty(), "{:?}", v.gaps);
    for &track in tracks {
        let seen: Vec<&Seen> = v.frames(track, sent.session).filter(|s| s.at >= settled).collect();
        let due = |seq| p.due(sent.session, track, seq).unwrap();
        for pair in seen.windows(2) {
            assert_eq!(pair[1].label.seq, pair[0].label.seq + 1, "{player:?}: track {track} has gaps");
        }
        for s in &seen {
            let delay = s.at.since(due(s.label.seq));
            assert!(delay <= late, "{player:?}: {:?} took {delay:?}", s.label);
        }
        let last = due(seen.last().expect("it got frames").label.seq);
        assert!(w.now().since(last) <= late, "{player:?}: the last {track} is from {last}");
    }
}

/// How far the timestamps of sound and picture are apart at most, once the start is through, against what the publisher
/// meant: each frame's timestamp less its place in the publisher's time.
fn worst_skew<W: Wire, S: Source>(
    w: &World,
    publisher: ClientId,
    player: ClientId,
    rates: (i64, i64),
) -> i64 {
    let (p, v) = (by::<PublisherBy<W>>(w, publisher), by::<PlayerBy<S>>(w, player));
    let start = settled::<S>(w, player, rates.0 != rates.1);
    let offset = |s: &Seen| {
        let due = p.due(s.label.session, s.label.track, s.label.seq).unwrap().as_nanos() as i64;
        let rate = if s.label.track == 'v' { rates.0 } else { rates.1 };
        (i128::from(s.stamp) * 1_000_000_000 / i128::from(rate)) as i64 - due
    };
    let spread = |track: char| {
        let all = v.seen.iter().filter(|s| s.label.track == track && s.at >= start).map(offset);
        all.fold((i64::MAX, i64::MIN), |(low, high), o| (low.min(o), high.max(o)))
    };
    let ((vl, vh), (al, ah)) = (spread('v'), spread('a'));
    // Over RTP each track has an origin of its own, so only what changes can be seen from here.
    let drift = (vh - vl).max(ah - al);
    let apart = if rates.0 == rates.1 { (vh - al).abs().max((ah - vl).abs()) } else { 0 };
    drift.max(apart)
}

/// Everyone has left: nothing is kept anywhere.
fn drains_to_zero(w: &mut World, c: Cluster) {
    w.run(ms(45_000));
    for node in [c.m, c.o, c.e] {
        for what in ["sessions", "streams"] {
            let (status, body) = w.get(node, &format!("/api/v1/{what}")).unwrap();
            assert_eq!(status, 200);
            let json: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(json[what].as_array().map(Vec::len), Some(0), "{node:?}: {body}");
        }
        let (_, metrics) = w.get(node, "/metrics").unwrap();
        for line in metrics.lines().filter(|l| l.starts_with("headwater_sessions{")) {
            assert!(line.ends_with(" 0"), "{node:?}: {line}");
        }
    }
    for (id, standing) in w.standings() {
        assert!(standing.ended || standing.stream.is_none(), "{id:?} has not ended: {standing:?}");
    }
}

fn leave<W: Wire, S: Source>(w: &mut World, publisher: ClientId, players: &[ClientId]) {
    for &v in players {
        w.with(v, |v: &mut PlayerBy<S>, _| v.leave());
    }
    w.with(publisher, |p: &mut PublisherBy<W>, now| p.leave(now));
}

/// One publisher, one player at the origin and two at the edge, one of which comes late: all see all; then all leave.
fn all_see_all<W: Wire, S: Source>(w: &mut World, rtc: (bool, bool), config: &PlayerConfig) {
    let c = cluster(w);
    let p = publish::<W>(w, c.o, rtc.0, PublisherConfig::default());
    w.run(ms(1_500));
    let s = session::<W>(w, p);
    let mut players = Vec::new();
    for at in [c.o, c.e, c.e] {
        let v = play::<S>(w, at, rtc.1, config.clone());
        until_sees::<S>(w, v, s);
        players.push(v);
        w.run(ms(3_300));
    }
    for &v in &players {
        saw_all::<W, S>(w, p, v, &['v', 'a'], rtc.1);
        let rates = if rtc.1 { (90_000, 48_000) } else { (1_000, 1_000) };
        let skew = worst_skew::<W, S>(w, p, v, rates);
        assert!(skew <= 40_000_000, "{v:?}: sound and picture are {skew} ns apart");
    }
    leave::<W, S>(w, p, &players);
    drains_to_zero(w, c);
}

#[test]
fn rml_rtmp_publishes_and_plays_through_an_edge() {
    seeds("0..3", |w| {
        all_see_all::<RmlRtmp, RmlPlay>(w, (false, false), &PlayerConfig::default());
    });
}

#[test]
fn webrtc_rs_publishes_and_rtmp_plays_with_opus() {
    let config = PlayerConfig { opus: true, ..PlayerConfig::default() };
    seeds("0..3", |w| all_see_all::<Whip, RmlPlay>(w, (true, false), &config));
}

#[test]
fn webrtc_rs_publishes_and_plays_through_an_edge() {
    seeds("0..3", |w| all_see_all::<Whip, Whep>(w, (true, true), &PlayerConfig::default()));
}

#[test]
fn rtmp_publishes_and_webrtc_rs_plays_through_an_edge() {
    // It sends AAC; each node makes Opus of it for its own viewers.
    seeds("0..3", |w| {
        let c = cluster(w);
        let p = publish::<OwnRtmp>(w, c.o, false, PublisherConfig::default());
        w.run(ms(1_500));
        let s = session::<OwnRtmp>(w, p);
        let mut players = Vec::new();
        for at in [c.o, c.e, c.e] {
            let v = play::<Whep>(w, at, true, PlayerConfig::default());
            until_sees::<Whep>(w, v, s);
            players.push(v);
            w.run(ms(3_300));
        }
        for &v in &players {
            saw_all::<OwnRtmp, Whep>(w, p, v, &['v', 'a'], true);
            assert!(by::<PlayerBy<Whep>>(w, v).frames('a', s).count() > 100);
        }
        leave::<OwnRtmp, Whep>(w, p, &players);
        drains_to_zero(w, c);
    });
}

/// Clients that come again by themselves, while first the edge and then the origin is killed and started anew.
fn comes_again<W: Wire, S: Source>(w: &mut World, rtc: (bool, bool)) {
    let c = cluster(w);
    let again = Some(ms(500));
    let config = PublisherConfig { again, ..PublisherConfig::default() };
    let p = publish::<W>(w, c.o, rtc.0, config);
    let s = session::<W>(w, p);
    let v = play::<S>(w, c.e, rtc.1, PlayerConfig { again, ..PlayerConfig::default() });
    until_sees::<S>(w, v, s);
    w.run(ms(2_000));
    w.crash(c.e);
    w.run(ms(300));
    w.start(c.e);
    let before = by::<PlayerBy<S>>(w, v).connections;
    w.until("pictures come again", ms(15_000), |w| {
        let v = by::<PlayerBy<S>>(w, v);
        v.connections > before && v.last_picture().is_some_and(|s| s.at + ms(300) > w.now())
    });
    w.crash(c.o);
    w.run(ms(300));
    w.start(c.o);
    let another = |w: &mut World| session::<W>(w, p) > s && by::<PublisherBy<W>>(w, p).is_ready();
    w.until("the publisher is accepted again", ms(15_000), another);
    let s = session::<W>(w, p);
    w.until("the player sees its new session", ms(5_000), |w| {
        by::<PlayerBy<S>>(w, v).last_picture().is_some_and(|seen| seen.label.session == s)
    });
    let standings: Vec<_> = w.standings().map(|(_, s)| s).filter(|s| s.stream.is_some()).collect();
    assert_eq!(standings.iter().map(|s| (s.ended, s.session)).collect::<Vec<_>>(), [(false, Some(s)); 2]);
    leave::<W, S>(w, p, &[v]);
    drains_to_zero(w, c);
}

#[test]
fn rml_rtmp_clients_come_again() {
    seeds("0..3", |w| comes_again::<RmlRtmp, RmlPlay>(w, (false, false)));
}

#[test]
fn webrtc_rs_clients_come_again() {
    seeds("0..3", |w| comes_again::<Whip, Whep>(w, (true, true)));
}
