//! Links between nodes: many streams over a long way that loses packets, and nodes that do not all speak QUIC.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::sim::links::{Way, measure};
use headwater_tests::world::World;
use headwater_tests::world::scenario::*;
use proto_core::node::config::{LinkTransport, Role};
use proto_core::simulation::Speech;
use std::time::Duration;

const WAY: Way =
    Way { streams: 50, round_trip: Duration::from_millis(100), loss: 0.005, mbps: 1_000, stock: false };

/// The bar of node links: 50 streams of 2 Mbit/s, a round trip of 100 ms, every 200th packet lost.
#[test]
fn fifty_streams_cross_a_long_way_that_loses_and_none_holds_up_another() {
    let crossing = measure(1, WAY, Duration::from_secs(6));
    assert!(crossing.p99 <= Duration::from_millis(300), "{crossing:?}");
    assert!(crossing.worst_p99 <= Duration::from_millis(300), "{crossing:?}");
    assert!(crossing.came > 0.999, "{crossing:?}");
    assert!(crossing.together <= 5, "{crossing:?}");
}

/// What the library's control does there: why there is one of our own.
#[test]
fn loss_based_control_does_not_carry_them() {
    let crossing = measure(1, Way { stock: true, ..WAY }, Duration::from_secs(6));
    assert!(crossing.median > Duration::from_secs(1), "{crossing:?}");
}

/// How many links a node has: by QUIC, by TCP.
fn links(w: &World, of: headwater_tests::world::HostId) -> (usize, usize) {
    let (_, audit) = w.audits().into_iter().find(|(h, _)| *h == of).expect("it runs");
    (audit.quic_links, audit.conns.1)
}

/// A cluster where some nodes speak QUIC and some do not: who can, does, and everybody is reached.
#[test]
fn nodes_that_do_not_speak_quic_are_reached_by_tcp() {
    seeds("0..2", |w| {
        w.quic(true);
        let tcp = |c: &mut proto_core::node::config::Config| c.cluster.transport = LinkTransport::Tcp;
        let manager = w.host("m1", &[Role::Manager], None);
        let old = w.host_with("o1", &[Role::Origin], Some(manager), tcp);
        let new = w.host("o2", &[Role::Origin], Some(manager));
        let edge = w.host("e1", &[Role::Edge], Some(manager));
        w.run(ms(2_500));
        assert_eq!((links(w, old), links(w, new), links(w, edge)), ((0, 1), (1, 0), (1, 0)));
        for (origin, stream) in [(old, "live/a"), (new, "live/b")] {
            let p = w.publish(origin, stream);
            ready(w, p, 5_000);
            let v = w.play(edge, stream);
            w.until("it sees", ms(5_000), |w| !w.player(v).seen.is_empty());
        }
        assert_eq!(links(w, edge), (2, 1));
        assert!(w.expect_drained());
    });
}

/// A manager of the version before: every node comes by TCP.
#[test]
fn a_manager_of_an_older_version_is_reached_by_tcp() {
    seeds("0..2", |w| {
        w.quic(true);
        let manager = w.host_off("m1", &[Role::Manager], None, |_| {});
        w.speech(manager, Some(Speech::Older));
        w.start(manager);
        let origin = w.host("o1", &[Role::Origin], Some(manager));
        let edge = w.host("e1", &[Role::Edge], Some(manager));
        w.run(ms(4_000));
        assert_eq!((links(w, origin), links(w, edge)), ((0, 1), (0, 1)));
        let p = w.publish(origin, "live/a");
        ready(w, p, 5_000);
        let v = w.play(edge, "live/a");
        w.until("it sees", ms(5_000), |w| !w.player(v).seen.is_empty());
        assert_eq!(links(w, edge), (1, 1), "between the two it is QUIC");
        assert!(w.expect_drained());
    });
}

/// A manager that was away long enough for nodes to try TCP is linked by QUIC again.
#[test]
fn a_manager_that_comes_back_is_linked_by_quic() {
    seeds("0..4", |w| {
        w.quic(true);
        let manager = w.host("m1", &[Role::Manager], None);
        let origin = w.host("o1", &[Role::Origin], Some(manager));
        w.run(ms(2_500));
        assert_eq!(links(w, origin), (1, 0));
        w.crash(manager);
        w.run(ms(5_000));
        w.start(manager);
        w.run(ms(8_000));
        assert_eq!(links(w, origin), (1, 0));
        assert!(w.expect_drained());
    });
}
