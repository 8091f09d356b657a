//! Clusters whose hosts are paused, have wrong clocks or too few descriptors, cannot look up names, or whose links fail
//! in one direction only.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::world::actors::publisher::PublisherConfig;
use headwater_tests::world::link::{Conditions, Loss};
use headwater_tests::world::scenario::*;
use headwater_tests::world::{ClientId, Resolver, World};
use proto_core::node::config::Role;

fn again() -> PublisherConfig {
    PublisherConfig { again: Some(ms(500)), ..PublisherConfig::default() }
}

/// An origin sleeps through the loss of its lease, and through the rise of its successor. When it wakes, its clock says
/// that nothing has happened; yet none of its frames reaches anybody (its viewers would call that a violation).
#[test]
fn a_paused_origin_is_fenced_off_when_it_wakes() {
    seeds("0..2", |w| {
        let (c, p, [at_origin, v1, v2]) = rtmp_watched(w);
        let old = session(w, p);
        w.pause(c.o1);
        w.run(ms(1_000));
        let back = w.publish_with(c.o2, STREAM, again());
        ready(w, back, 6_000);
        let s = session(w, back);
        for v in [v1, v2] {
            until_sees(w, v, s, 3_000);
        }
        w.run(ms(3_000));
        assert!(sees(w, at_origin, old) && w.publisher(p).is_ready(), "nobody can tell these");
        w.resume(c.o1);
        w.until("the old publisher is told", ms(5_000), |w| w.publisher(p).ended().is_some());
        until_sees(w, at_origin, s, 5_000);
        w.run(ms(3_000));
        for v in [at_origin, v1, v2] {
            assert_eq!(w.player(v).ended, None);
            saw_all_pictures(w, v, back, s);
        }
    });
}

#[test]
fn a_pause_shorter_than_the_lease_costs_nobody_a_frame() {
    seeds("0..2", |w| {
        let (c, p, viewers) = rtmp_watched(w);
        let s = session(w, p);
        for node in c.nodes() {
            w.pause(node);
            w.run(ms(1_200));
            w.resume(node);
            w.run(ms(3_000));
            for v in viewers {
                assert_eq!(w.player(v).ended, None, "after a pause of {node:?}");
                saw_all_pictures(w, v, p, s);
            }
        }
    });
}

#[test]
fn a_long_pause_of_any_node_heals() {
    seeds("0..2", |w| {
        let c = Cluster::new(w);
        let p = w.publish_with(c.o1, STREAM, again());
        ready(w, p, 5_000);
        for node in c.nodes() {
            w.pause(node);
            w.run(ms(20_000));
            w.resume(node);
            w.run(ms(10_000));
            ready(w, p, 5_000);
            for at in [c.o1, c.o2, c.e1, c.e2] {
                let v = rtmp_viewer(w, at, STREAM, p);
                w.run(ms(1_000));
                w.with_player(v, |v| v.leave());
            }
        }
    });
}

/// A process that sleeps still has a kernel: it completes dials, and keeps of what comes as much as it has room for.
#[test]
fn the_kernel_of_a_paused_host_goes_on() {
    seeds("0..2", |w| {
        let (c, p, viewers) = rtmp_watched(w);
        w.pause(c.e1);
        let late = w.play(c.e1, STREAM);
        let before = w.player(viewers[1]).seen.len();
        w.run(ms(1_000));
        assert!(w.player(viewers[1]).seen.len() <= before + 15, "what had left comes, no more");
        assert!(w.player(late).ended.is_none() && !w.player(late).playing);
        w.resume(c.e1);
        let s = session(w, p);
        until_sees(w, late, s, 3_000);
        w.run(ms(2_000));
        saw_all_pictures(w, viewers[1], p, s);
        // A process that is killed while it sleeps never wakes.
        w.pause(c.e1);
        w.run(ms(500));
        w.crash(c.e1);
        w.run(ms(500));
        assert!(w.player(viewers[1]).ended.is_some());
        w.start(c.e1);
        w.run(ms(3_000));
        rtmp_viewer(w, c.e1, STREAM, p);
    });
}

#[test]
fn clocks_that_run_fast_or_slow_harm_nobody() {
    seeds("0..2", |w| {
        let (c, p, viewers) = rtmp_watched(w);
        for (n, node) in c.nodes().into_iter().enumerate() {
            w.skew(node, [-500, 500, -20_000, 20_000, 0][(n + w.pick("skew", 0, 5) as usize) % 5]);
        }
        w.run(ms(45_000));
        let s = session(w, p);
        for v in viewers {
            assert_eq!(w.player(v).ended, None);
            saw_all_pictures(w, v, p, s);
        }
        rtmp_viewer(w, c.e2, STREAM, p);
    });
}

/// A clock that is twice as fast: timers of that node come in half the time.
#[test]
fn a_skewed_clock_is_seen_by_the_node() {
    let mut w = World::new(1);
    let one = w.host("one", &[Role::Manager, Role::Origin, Role::Edge], None);
    w.run(ms(10_000));
    let before = w.wakes(one);
    w.run(ms(30_000));
    let usual = w.wakes(one) - before;
    w.skew(one, 1_000_000);
    let before = w.wakes(one);
    w.run(ms(30_000));
    let fast = w.wakes(one) - before;
    assert!(usual > 10 && fast >= 2 * usual - 3 && fast <= 2 * usual + 3, "{usual}, then {fast}");
    w.heal_all();
    let before = w.wakes(one);
    w.run(ms(30_000));
    assert!((w.wakes(one) - before).abs_diff(usual) <= 3);
}

#[test]
fn a_wall_clock_that_jumps_moves_no_timer() {
    seeds("0..2", |w| {
        let (c, p, viewers) = rtmp_watched(w);
        for (node, jump) in c.nodes().into_iter().zip([3_600_000, -3_600_000, 90_000, -86_400_000, 500]) {
            w.jump_wall(node, jump);
        }
        // The nodes look at it once a minute.
        w.run(ms(62_000));
        w.heal_all();
        w.run(ms(61_000));
        let s = session(w, p);
        for v in viewers {
            saw_all_pictures(w, v, p, s);
        }
    });
}

/// A manager that slept longer than a lease finds all leases run out, though every node is well. It must not give a live
/// publisher's name to another who asked meanwhile.
#[test]
fn a_paused_manager_gives_no_live_name_away_when_it_wakes() {
    seeds("0..2", |w| {
        let (c, p, viewers) = rtmp_watched(w);
        let rival = w.publish_with(c.o2, STREAM, again());
        w.run(ms(500));
        for pause in [3_500, 9_000, 1_000] {
            w.pause(c.m);
            w.run(ms(pause));
            w.resume(c.m);
            w.run(ms(6_000));
            assert_eq!(w.publisher(p).ended(), None, "after {pause} ms");
            assert!(!w.publisher(rival).is_ready());
        }
        for v in viewers {
            saw_all_pictures(w, v, p, session(w, p));
        }
    });
}

/// The manager restarts with empty memory and a clock that was set back, while the only origin that knew the stream's
/// epoch dies. Edges that hold the stream still know it: epochs rise all the same.
#[test]
fn epochs_rise_although_the_managers_clock_was_set_back() {
    seeds("0..2", |w| {
        let (c, p, [_, v1, v2]) = rtmp_watched(w);
        w.crash(c.m);
        w.crash(c.o1);
        w.jump_wall(c.m, -3_600_000);
        w.start(c.m);
        w.run(ms(4_000));
        let back = w.publish_with(c.o2, STREAM, again());
        ready(w, back, 6_000);
        let s = session(w, back);
        for v in [v1, v2] {
            until_sees(w, v, s, 5_000);
        }
        assert!(w.publisher(p).ended().is_some());
        w.run(ms(3_000));
        for v in [v1, v2] {
            saw_all_pictures(w, v, back, s);
        }
    });
}

/// The same, with a clock that was set far ahead and then right again.
#[test]
fn epochs_rise_although_the_managers_clock_was_ahead() {
    seeds("0..2", |w| {
        let m = w.host_off("m1", &[Role::Manager], None, |_| {});
        w.jump_wall(m, 10_000_000_000);
        w.start(m);
        let o = w.host("o1", &[Role::Origin], Some(m));
        let e = w.host("e1", &[Role::Edge], Some(m));
        w.run(ms(2_500));
        let p = w.publish_with(o, STREAM, again());
        ready(w, p, 5_000);
        let v = rtmp_viewer(w, e, STREAM, p);
        w.heal_all();
        for _ in 0..2 {
            w.crash(m);
            w.crash(o);
            w.start(m);
            w.start(o);
            w.run(ms(3_000));
            ready(w, p, 6_000);
            let s = session(w, p);
            until_sees(w, v, s, 5_000);
        }
    });
}

#[test]
fn an_edge_without_descriptors_turns_newcomers_away_and_plays_on() {
    seeds("0..2", |w| {
        let (c, p, viewers) = rtmp_watched(w);
        let most = w.open_descriptors(c.e1);
        w.descriptors(c.e1, Some(most));
        let late: Vec<ClientId> = (0..5).map(|_| w.play(c.e1, STREAM)).collect();
        w.run(ms(5_000));
        assert!(late.iter().all(|v| w.player(*v).ended.is_some()), "they are told, and soon");
        assert_eq!(w.turned_away(c.e1), 5);
        let s = session(w, p);
        saw_all_pictures(w, viewers[1], p, s);
        // A stream that the edge does not have needs a connection to its origin, which cannot be had.
        let other = w.publish(c.o2, "live/two");
        ready(w, other, 5_000);
        w.descriptors(c.e1, Some(most + 1));
        let v = w.play(c.e1, "live/two");
        w.run(ms(8_000));
        saw_all_pictures(w, viewers[1], p, s);
        w.descriptors(c.e1, None);
        let last = rtmp_viewer(w, c.e1, "live/two", other);
        w.run(ms(2_000));
        saw_all_pictures(w, last, other, session(w, other));
        assert!(w.player(v).ended.is_some() || sees(w, v, session(w, other)));
    });
}

#[test]
fn a_node_whose_manager_cannot_be_looked_up_joins_when_it_can() {
    seeds("0..2", |w| {
        let m = w.host("m1", &[Role::Manager], None);
        w.name("manager.example", m);
        let by_name = |c: &mut proto_core::node::config::Config| c.cluster.manager = "manager.example".into();
        let o = w.host_off("o1", &[Role::Origin], Some(m), by_name);
        let e = w.host_off("e1", &[Role::Edge], Some(m), by_name);
        w.resolver(o, Resolver::Fails);
        w.resolver(e, Resolver::Slow(ms(3_000)));
        w.start(o);
        w.start(e);
        w.run(ms(14_000));
        let nodes = |w: &mut World| json(w, m, "/api/v1/nodes")["nodes"].as_array().map_or(0, Vec::len);
        assert_eq!(nodes(w), 2, "the slow one is there");
        assert!(w.log().iter().any(|l| l.contains("o1") && l.contains("could not be looked up")));
        w.resolver(o, Resolver::Works);
        w.run(ms(8_000));
        assert_eq!(nodes(w), 3);
        let p = w.publish(o, STREAM);
        ready(w, p, 3_000);
        rtmp_viewer(w, e, STREAM, p);
    });
}

/// A publisher comes to another network. Whether or not its system tells it, it publishes again within the time that a
/// name of a silent publisher is kept, and a while to notice.
#[test]
fn a_publisher_that_moves_publishes_again() {
    seeds("0..2", |w| {
        let c = Cluster::new(w);
        let p = w.publish_with(c.o1, STREAM, again());
        ready(w, p, 5_000);
        let viewers = [c.o1, c.e1].map(|at| rtmp_viewer(w, at, STREAM, p));
        let first = session(w, p);
        w.readdress(p);
        w.run(ms(2_000));
        if w.publisher(p).is_ready() {
            // It has not noticed; a person does.
            w.with_publisher(p, |p, now| p.connect(now));
        }
        w.until("it publishes again", ms(6_000), |w| w.publisher(p).is_ready() && session(w, p) != first);
        w.run(ms(2_000));
        for v in viewers {
            saw_all_pictures(w, v, p, session(w, p));
        }
    });
}

#[test]
fn the_session_of_a_viewer_that_moved_ends() {
    seeds("0..2", |w| {
        let (c, _, viewers) = rtmp_watched(w);
        assert_eq!(sessions(w, c.e1), 1);
        w.readdress(viewers[1]);
        w.run(ms(35_000));
        assert_eq!(sessions(w, c.e1), 0);
        assert_eq!(w.player(viewers[2]).ended, None);
    });
}

/// Everything between the nodes passes in one direction only, for each pair of them.
#[test]
fn one_way_losses_between_nodes_heal() {
    seeds("0..2", |w| {
        let c = Cluster::new(w);
        let p = w.publish_with(c.o1, STREAM, again());
        ready(w, p, 5_000);
        let pairs = [(c.m, c.o1), (c.o1, c.m), (c.o1, c.e1), (c.e1, c.o1), (c.m, c.e1), (c.e1, c.m)];
        for (from, to) in pairs {
            w.part_one_way(from, to);
            w.run(ms(12_000));
            // Of a stream whose origin it lost the manager tells nobody where it is.
            let between = [c.m, c.o1].contains(&from) && [c.m, c.o1].contains(&to);
            let others = (!between).then(|| rtmp_viewer(w, c.e2, STREAM, p));
            w.heal_all();
            w.run(ms(6_000));
            ready(w, p, 5_000);
            let v = rtmp_viewer(w, c.e1, STREAM, p);
            w.run(ms(2_000));
            saw_all_pictures(w, v, p, session(w, p));
            w.with_player(v, |v| v.leave());
            if let Some(others) = others {
                saw_all_pictures(w, others, p, session(w, p));
                w.with_player(others, |v| v.leave());
            }
        }
    });
}

/// Bad links everywhere: those who wait for repetitions get all, only later.
#[test]
fn lossy_links_between_nodes_cost_no_frame() {
    seeds("0..2", |w| {
        let (c, p, viewers) = rtmp_watched(w);
        let conditions = Conditions {
            latency: ms(20),
            jitter: ms(20),
            loss: Loss { mean: 0.02, burst: 2.0 },
            ..Conditions::default()
        };
        c.nodes().into_iter().for_each(|n| w.degrade(n, conditions));
        w.run(ms(20_000));
        for v in viewers {
            assert_eq!(w.player(v).ended, None);
        }
        w.heal_all();
        w.run(ms(3_000));
        for v in viewers {
            saw_all_pictures(w, v, p, session(w, p));
        }
    });
}

/// Whatever can befall hosts and links, drawn from the seed. Once all is well again, everyone who wants to publish or
/// play does, and nothing is left behind.
#[test]
fn after_any_faults_of_hosts_and_links_all_is_well_again() {
    seeds("0..2", |w| {
        let c = Cluster::new(w);
        let nodes = c.nodes();
        let publishers = [(c.o1, STREAM), (c.o2, STREAM), (c.o2, "live/two")]
            .map(|(at, stream)| w.publish_with(at, stream, again()));
        let mut viewers = Vec::new();
        w.run(ms(1_000));
        for step in 0..24 {
            let which = nodes[w.pick("node", step, 5) as usize];
            let other = nodes[w.pick("other", step, 5) as usize];
            match w.pick("what", step, 16) {
                0 | 1 => w.pause(which),
                2 | 3 => w.resume(which),
                4 if which != other => w.part_one_way(which, other),
                5 => w.stall(which, ms(w.pick("stall", step, 6_000))),
                6 => w.degrade(
                    which,
                    Conditions {
                        latency: ms(w.pick("latency", step, 200)),
                        jitter: ms(w.pick("jitter", step, 50)),
                        loss: Loss { mean: w.pick("loss", step, 20) as f64 / 100.0, burst: 3.0 },
                        rate: Some(300_000 + w.pick("rate", step, 5_000_000)),
                        ..Conditions::default()
                    },
                ),
                7 => w.heal_all(),
                8 => w.skew(which, w.pick("skew", step, 2_001) as i64 - 1_000),
                9 => w.jump_wall(which, w.pick("jump", step, 200_000) as i64 - 100_000),
                10 => w.descriptors(which, Some(12 + w.pick("fds", step, 8) as usize)),
                11 if w.node_of(which).is_some() => w.crash(which),
                11 | 12 if w.node_of(which).is_none() => w.start(which),
                13 => w.readdress(publishers[w.pick("publisher", step, 3) as usize]),
                _ => {
                    let stream = [STREAM, "live/two"][w.pick("stream", step, 2) as usize];
                    viewers.push(w.play(nodes[1 + w.pick("at", step, 4) as usize], stream));
                }
            }
            w.run(ms(50 + w.pick("time", step, 4_000)));
        }
        w.heal_all();
        for node in nodes {
            if w.node_of(node).is_none() {
                w.start(node);
            }
        }
        w.run(ms(5_000));
        // Those whose address changed may not have noticed; a person does.
        for p in publishers {
            w.with_publisher(p, |p, now| p.connect(now));
        }
        w.run(ms(15_000));
        for (stream, of) in [(STREAM, &publishers[..2]), ("live/two", &publishers[2..])] {
            // The one whose frames come: another may believe in a connection that leads nowhere.
            let v = w.play(c.o1, stream);
            w.until("pictures come", ms(4_000), |w| w.player(v).last_picture().is_some());
            let s = w.player(v).last_picture().unwrap().label.session;
            let newest = of.iter().any(|p| w.standing(*p).session == Some(s));
            assert!(newest, "an old session of {stream} is played");
            for at in [c.o1, c.o2, c.e1, c.e2] {
                let v = w.play(at, stream);
                until_sees(w, v, s, 4_000);
                viewers.push(v);
            }
            viewers.push(v);
        }
        viewers.iter().for_each(|v| w.with_player(*v, |v| v.leave()));
        publishers.iter().for_each(|p| w.with_publisher(*p, |p, now| p.leave(now)));
        w.run(ms(120_000));
        for node in nodes {
            assert_eq!(sessions(w, node), 0, "{node:?}");
            let streams = json(w, node, "/api/v1/streams");
            assert_eq!(streams["streams"].as_array().map(Vec::len), Some(0), "{node:?}: {streams}");
        }
    });
}
