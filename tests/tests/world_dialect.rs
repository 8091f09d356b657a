//! Clients of the stream-manager dialect in whole clusters in virtual time: by websocket at a node and through the manager,
//! plain and over TLS, then over the data channel.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use headwater_tests::world::actors::webrtc::{Signalling, WhepConfig, WhipConfig};
use headwater_tests::world::scenario::{STREAM, ms};
use headwater_tests::world::{ClientId, HostId, World};
use proto_core::node::config::Role;

/// Runs a scenario with a seed and answers the digest of all that nodes were told and said.
fn run(seed: u64, scenario: impl FnOnce(&mut World) + Send) -> u64 {
    determinism::os::run([7; 32], || {
        let mut w = World::new(seed);
        scenario(&mut w);
        w.hash()
    })
    .expect("clocks and randomness are the seed's")
}

/// A manager, an origin and an edge.
fn cluster(w: &mut World) -> [HostId; 3] {
    let m = w.host("m1", &[Role::Manager], None);
    let o = w.host("o1", &[Role::Origin], Some(m));
    let e = w.host("e1", &[Role::Edge], Some(m));
    w.run(ms(2_500));
    [m, o, e]
}

fn live(w: &mut World, at: HostId, by: Signalling) -> ClientId {
    let p = w.publish_webrtc(at, STREAM, WhipConfig { by, ..WhipConfig::default() });
    w.until("the publisher is connected", ms(6_000), |w| w.whip(p).is_ready());
    p
}

fn viewer(w: &mut World, at: HostId, by: Signalling) -> ClientId {
    let v = w.play_webrtc(at, STREAM, WhepConfig { by, strict: true, ..WhepConfig::default() });
    w.until("the viewer sees pictures", ms(6_000), |w| w.whep(v).last_picture().is_some());
    v
}

/// Publishes and plays by one way, goes over to the data channel, is silent for a while, and leaves.
fn whole_life(w: &mut World, by: Signalling, secure: bool) {
    let [m, o, e] = cluster(w);
    let (publishes, plays) = if by == Signalling::Managed { (m, m) } else { (o, e) };
    w.over_tls(secure);
    let p = live(w, publishes, by);
    w.run(ms(1_500));
    let v = viewer(w, plays, by);
    w.over_tls(false);
    w.until("both go over to the data channel", ms(4_000), |w| {
        w.whip(p).has_switched() && w.whep(v).has_switched()
    });
    w.run(ms(2_000));
    let before = w.whep(v).over_channel();
    w.with_whip(p, |p, now| p.keep_silent(true, now));
    w.until("the viewer hears of the silence", ms(2_000), |w| w.whep(v).over_channel() > before);
    w.run(ms(1_000));
    w.with_whip(p, |p, now| p.keep_silent(false, now));
    w.run(ms(2_000));
    let fresh = w.whep(v).last_picture().is_some_and(|s| w.now().since(s.at) < ms(500));
    assert!(fresh && w.whep(v).ended().is_none() && w.whip(p).ended().is_none());
    w.with_whep(v, |v, now| v.leave(now));
    w.with_whip(p, |p, now| p.leave(now));
    w.run(ms(1_000));
    for at in [o, e] {
        assert_eq!(w.node_of(at).unwrap().client_count(), 0, "{at:?}");
    }
    assert!(w.expect_drained());
}

#[test]
fn whoever_comes_by_a_websocket_goes_on_over_the_data_channel() {
    for seed in 0..2 {
        for by in [Signalling::Socket, Signalling::Managed] {
            for secure in [false, true] {
                run(seed, |w| whole_life(w, by, secure));
            }
        }
    }
}

/// SCTP draws from a generator of its library; that is the seed's too.
#[test]
fn data_channels_replay() {
    for seed in 0..2 {
        let hash = || run(seed, |w| whole_life(w, Signalling::Socket, false));
        assert_eq!(hash(), hash(), "seed {seed}");
    }
}

/// At whatever word they leave, nothing is left of them.
#[test]
fn who_leaves_in_the_middle_of_signalling_leaves_nothing_behind() {
    for seed in 0..2 {
        run(seed, |w| {
            let [m, o, e] = cluster(w);
            live(w, o, Signalling::Socket);
            w.run(ms(1_500));
            for n in 0..40 {
                let by = if n % 3 == 0 { Signalling::Managed } else { Signalling::Socket };
                let at = if n % 3 == 0 { m } else { [o, e][n % 2] };
                let again = None;
                let stay = ms(n as u64 * 7);
                if n % 2 == 0 {
                    let config = WhipConfig { by, again, ..WhipConfig::default() };
                    let p = w.publish_webrtc(at, &format!("live/n{n}"), config);
                    w.run(stay);
                    w.with_whip(p, |p, now| p.leave(now));
                } else {
                    let v = w.play_webrtc(at, STREAM, WhepConfig { by, again, ..WhepConfig::default() });
                    w.run(stay);
                    // Some say nothing when they go.
                    if n % 5 == 0 {
                        w.remove(v);
                    } else {
                        w.with_whep(v, |v, now| v.leave(now));
                    }
                }
            }
            w.run(ms(35_000));
            let clients: usize = [m, o, e].iter().map(|at| w.node_of(*at).unwrap().client_count()).sum();
            assert_eq!(clients, 1, "only the publisher that stayed");
            assert!(w.expect_drained());
        });
    }
}
