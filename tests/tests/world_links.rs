//! Links between nodes: many streams over a long way that loses packets, and nodes that do not all speak QUIC.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::fuzzing;
use headwater_tests::sim::links::{Way, measure};
use headwater_tests::sim::quic;
use headwater_tests::world::World;
use headwater_tests::world::abuse::counts_in;
use headwater_tests::world::actors::evil::Evil;
use headwater_tests::world::link::Conditions;
use headwater_tests::world::scenario::*;
use proto_core::node::config::{LinkTransport, Role};
use proto_core::rand::Rng;
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

/// A link falls silent for longer than it may, and is made anew: several key frames came meanwhile. The viewer gets every
/// picture, and the stream's time goes on as if nothing had happened.
#[test]
fn a_link_that_was_cut_for_seconds_costs_no_picture_and_no_time() {
    seeds("0..8", |w| {
        w.quic(true);
        let manager = w.host("m1", &[Role::Manager], None);
        let origin = w.host("o1", &[Role::Origin], Some(manager));
        let edge = w.host("e1", &[Role::Edge], Some(manager));
        w.run(ms(2_500));
        let p = w.publish(origin, "live/a");
        ready(w, p, 5_000);
        let v = w.play(edge, "live/a");
        let s = session(w, p);
        until_sees(w, v, s, 5_000);
        // At any place of the group of pictures.
        let at = w.pick("the break", 0, 1_000);
        w.run(ms(2_000 + at));
        let broke = w.now();
        w.part(origin.into(), edge.into());
        w.run(ms(2_200));
        w.heal_all();
        w.run(ms(3_000));
        let said = |words: &str| w.log().iter().filter(|l| l.contains(" e1 ") && l.contains(words)).count();
        assert_eq!(said("pull of live/a broke"), 1, "the link was over");
        saw_all_pictures(w, v, p, s);
        let after: Vec<u64> = w.player(v).frames('v', s).filter(|f| f.at >= broke).map(|f| f.stamp).collect();
        assert!(after.len() > 100 && after.windows(2).all(|t| t[1] - t[0] == 40), "{after:?}");
        assert!(w.expect_drained());
    });
}

/// Nodes of the version before, which know TCP only, and nodes that link by QUIC are one cluster, whichever of them is manager or
/// origin: a stream is watched at an edge of either sort.
/// A tunnel between the nodes takes no packet as large as QUIC begins with, and TCP fits itself to it. Once it is mended, the links
/// that fell back go over to QUIC, whatever runs over them then; the viewer gets every picture and the publisher stays.
#[test]
fn links_that_fell_back_to_tcp_go_over_to_quic_once_it_gets_through() {
    seeds("0..2", |w| {
        w.quic(true);
        let manager = w.host("m1", &[Role::Manager], None);
        let origin = w.host("o1", &[Role::Origin], Some(manager));
        let edge = w.host_off("e1", &[Role::Edge], Some(manager), |_| {});
        w.degrade(edge, Conditions { mtu: 900, ..Conditions::default() });
        w.start(edge);
        w.run(ms(6_000));
        let p = w.publish(origin, "live/a");
        ready(w, p, 5_000);
        let v = w.play(edge, "live/a");
        let s = session(w, p);
        until_sees(w, v, s, 8_000);
        w.run(ms(2_000));
        assert_eq!(links(w, edge), (0, 2));
        let said = |w: &World, words: &str| {
            w.log().iter().filter(|l| l.contains(" e1 ") && l.contains(words)).count()
        };
        // Tried in vain at once, and after one minute.
        w.run(ms(65_000));
        assert_eq!(links(w, edge), (0, 2));
        assert_eq!(said(w, " Warn link "), 2, "once for each node, however often it was tried");
        w.restore(edge);
        w.run(ms(120_000));
        assert_eq!(links(w, edge), (2, 0));
        assert_eq!(said(w, "it answers by QUIC now"), 2);
        assert_eq!(said(w, "pull of live/a broke"), 0);
        saw_all_pictures(w, v, p, s);
        let stamps: Vec<u64> = w.player(v).frames('v', s).map(|f| f.stamp).collect();
        assert!(stamps.windows(2).skip(60).all(|t| t[1] - t[0] == 40), "the stream's time goes on");
        w.play(edge, "live/b");
        w.run(ms(1_000));
        assert_eq!(links(w, edge), (2, 0));
        assert!(w.expect_drained());
    });
}

/// What was to be replaced may go while QUIC is tried: nothing is left of the try, and the next link is dialled as usual.
#[test]
fn a_node_that_leaves_while_quic_is_tried_leaves_nothing() {
    seeds("0..8", |w| {
        w.quic(true);
        let manager = w.host("m1", &[Role::Manager], None);
        let origin = w.host_off("o1", &[Role::Origin], Some(manager), |_| {});
        w.degrade(origin, Conditions { mtu: 900, ..Conditions::default() });
        w.start(origin);
        w.run(ms(6_000));
        assert_eq!(links(w, origin), (0, 1));
        w.restore(origin);
        // Shortly before the try, a minute after the link stood, or while it is made.
        let at = w.pick("the crash", 0, 60);
        w.run(ms(54_990 + at));
        w.crash(manager);
        w.run(ms(4_000));
        w.start(manager);
        w.run(ms(20_000));
        assert_eq!(links(w, origin), (1, 0));
        let p = w.publish(origin, "live/a");
        ready(w, p, 5_000);
        assert!(w.expect_drained());
    });
}

/// Nodes of the version before, which know TCP only, are replaced one by one by ones that link by QUIC, and the other way round,
/// while a stream is watched at an edge of either sort.
#[test]
fn a_mixed_cluster_relays_between_old_and_new_nodes() {
    for (manager_is_old, origin_is_old) in [(true, true), (true, false), (false, true)] {
        seeds("0..2", |w| {
            w.quic(true);
            let node = |w: &mut World, name: &str, role, manager, old: bool| {
                let id = w.host_off(name, &[role], manager, |_| {});
                w.speech(id, old.then_some(Speech::Older));
                w.start(id);
                id
            };
            let m = node(w, "m1", Role::Manager, None, manager_is_old);
            let o = node(w, "o1", Role::Origin, Some(m), origin_is_old);
            let edges =
                [("e1", true), ("e2", false)].map(|(name, old)| node(w, name, Role::Edge, Some(m), old));
            w.run(ms(4_000));
            let p = w.publish(o, "live/a");
            ready(w, p, 5_000);
            w.run(ms(1_000));
            let s = session(w, p);
            let viewers = edges.map(|e| w.play(e, "live/a"));
            viewers.into_iter().for_each(|v| until_sees(w, v, s, 5_000));
            w.run(ms(3_000));
            viewers.into_iter().for_each(|v| saw_all_pictures(w, v, p, s));
            let by_quic = [!manager_is_old, !origin_is_old].into_iter().filter(|q| *q).count();
            assert_eq!(links(w, edges[0]), (0, 2), "the old edge knows TCP only");
            assert_eq!(links(w, edges[1]), (by_quic, 2 - by_quic));
            let told = w.log().iter().any(|l| l.contains(" e2 Warn ") && l.contains("by QUIC"));
            assert!(told, "what is not encrypted is told as a warning");
            assert!(w.expect_drained());
        });
    }
}

/// A crowd of strangers whose addresses are their own fills all handshakes that a manager takes, and tries on. Nodes that come
/// meanwhile are reached all the same, and who is linked already notices nothing.
#[test]
fn a_crowd_of_half_handshakes_keeps_no_node_out() {
    seeds("0..3", |w| {
        w.quic(true);
        let manager = w.host("m1", &[Role::Manager], None);
        let origin = w.host("o1", &[Role::Origin], Some(manager));
        w.run(ms(2_500));
        let p = w.publish(origin, "live/a");
        ready(w, p, 5_000);
        let crowd: Vec<_> = (0..6).map(|nth| w.evil(Evil::QuicHalfway, manager, nth)).collect();
        w.run(ms(2_000));
        let edge = w.host("e1", &[Role::Edge], Some(manager));
        w.run(ms(2_500));
        let v = w.play(edge, "live/a");
        let s = session(w, p);
        until_sees(w, v, s, 5_000);
        let (_, metrics) = w.get(manager, "/metrics").expect("it says what it counts");
        let refused = counts_in(&metrics).get("datagram/quic_no_room").copied().unwrap_or(0);
        assert!(refused > 100, "the crowd was larger than what is taken: {refused}");
        let (_, audit) = w.audits().into_iter().find(|(h, _)| *h == manager).expect("it runs");
        assert!(audit.quic_links <= 2, "no stranger has a link");
        w.run(ms(3_000));
        saw_all_pictures(w, v, p, s);
        crowd.into_iter().for_each(|c| w.relent(c));
        assert_eq!(links(w, origin), (2, 0), "its own, and the edge's");
        assert!(w.expect_drained());
    });
}

/// What the fuzz target of QUIC links runs, with its seeds and with noise: the endpoint keeps its limits whatever its peer does.
#[test]
fn a_peer_whose_every_choice_is_a_byte_gets_nothing_that_it_should_not() {
    let seeds = fuzzing::root().join("fuzz/seeds/quic_link");
    let seed = |name: &str| quic::run(&std::fs::read(seeds.join(name)).expect("there is this seed"));
    for (name, made) in quic::seeds::all() {
        let there = std::fs::read(seeds.join(name)).expect("`cargo fuzzing seeds` has written it");
        assert!(there == made, "{name} is another now: run `cargo fuzzing seeds`");
    }
    let group = seed("a_group_and_the_next");
    assert!(group.stood && !group.closed && group.messages == 3, "{group:?}");
    let late = seed("a_group_that_is_given_up");
    assert!(late.stood && late.messages == 2, "{late:?}");
    let hello = seed("hello_and_proof");
    assert!(hello.stood && hello.control > 80, "{hello:?}");
    let heedless = seed("heeds_no_limit");
    assert!(heedless.stood && heedless.closed && heedless.messages == 0, "{heedless:?}");
    assert!(seed("loses_answers_and_bends").stood);
    let stranger = seed("a_strangers_datagrams");
    assert!(!stranger.stood && stranger.answered > 0, "{stranger:?}");

    let rng = Rng::new([21; 32]);
    let (mut stood, mut came, mut closed) = (0, 0, 0);
    for n in 0..120 {
        let mut rng = rng.fork("noise", n);
        let mut data = vec![0; 40 + rng.below(400) as usize];
        rng.fill(&mut data);
        data[0] &= 13;
        let tally = quic::run(&data);
        (stood, came, closed) =
            (stood + u32::from(tally.stood), came + tally.control, closed + u32::from(tally.closed));
    }
    assert!(stood > 100 && came > 1_000 && closed > 10, "{stood} stood, {came} bytes came, {closed} closed");
}
