//! Whole clusters in virtual time: what publishers and viewers live through when nodes and links fail.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::world::actors::publisher::PublisherConfig;
use headwater_tests::world::scenario::*;
use headwater_tests::world::{ClientId, HostId, Party, World};
use proto_core::node::config::Role;

fn live(w: &mut World, at: HostId, stream: &str) -> ClientId {
    let p = w.publish(at, stream);
    ready(w, p, 5_000);
    p
}

/// Between its first and its last picture of a session a viewer has all of them, and the last is recent.
fn saw_all(w: &World, player: ClientId, publisher: ClientId, session: u64) {
    saw_all_pictures(w, player, publisher, session);
    let p = w.player(player);
    let sent = w.publisher(publisher).sent.iter().find(|s| s.session == session).unwrap();
    assert!(p.gaps.is_empty(), "{:?}", p.gaps);
    let sound = p.seen.iter().rev().find(|s| s.label.track == 'a' && s.label.session == session);
    let last = sound.expect("it heard sound").label.seq;
    assert!(last + 30 >= sent.sounds, "{player:?} heard sound {last} of {}", sent.sounds);
}

fn leave_all(w: &mut World, publishers: &[ClientId], viewers: &[ClientId]) {
    for &v in viewers {
        w.with_player(v, |v| v.leave());
    }
    for &p in publishers {
        w.with_publisher(p, |p, now| p.leave(now));
    }
}

#[test]
fn every_frame_reaches_every_viewer() {
    seeds("0..3", |w| {
        let (c, p, viewers) = rtmp_watched(w);
        w.run(ms(10_000));
        let late = rtmp_viewer(w, c.e1, STREAM, p);
        w.run(ms(5_000));
        let s = session(w, p);
        for v in viewers.into_iter().chain([late]) {
            saw_all(w, v, p, s);
        }
        leave_all(w, &[p], &viewers);
        w.with_player(late, |v| v.leave());
        all_gone(w, &c.nodes());
    });
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let inside = |seed| {
        let mut w = World::new(seed);
        let (c, p, _) = rtmp_watched(&mut w);
        w.run(ms(2_000));
        w.crash(c.o1);
        w.run(ms(1_000));
        w.start(c.o1);
        w.with_publisher(p, |p, now| p.connect(now));
        w.run(ms(8_000));
        (w.hash(), w.log().to_vec())
    };
    let run = |seed| determinism::os::run([0; 32], || inside(seed)).unwrap();
    let (a, b) = (run(7), run(7));
    for (x, y) in a.1.iter().zip(&b.1) {
        assert_eq!(x, y);
    }
    assert_eq!(a.0, b.0);
    assert_ne!(a.0, run(8).0);
}

#[test]
fn an_edge_may_start_before_its_origin() {
    seeds("0..3", |w| {
        let m = w.host("m1", &[Role::Manager], None);
        let e = w.host("e1", &[Role::Edge], Some(m));
        w.run(ms(3_000));
        let early = w.play(e, STREAM);
        w.run(ms(6_000));
        assert!(
            !w.player(early).playing && !w.player(early).statuses.is_empty(),
            "it is told that nothing is live"
        );
        let o = w.host("o1", &[Role::Origin], Some(m));
        w.run(ms(1_000));
        let p = live(w, o, STREAM);
        let v = rtmp_viewer(w, e, STREAM, p);
        w.run(ms(3_000));
        saw_all(w, v, p, session(w, p));
    });
}

#[test]
fn a_second_publisher_of_a_live_name_is_refused_everywhere() {
    seeds("0..3", |w| {
        let (c, p, viewers) = rtmp_watched(w);
        for at in [c.o1, c.o2, c.e1] {
            let second = w.publish(at, STREAM);
            w.until("the second publisher is refused", ms(5_000), |w| w.publisher(second).ended().is_some());
            let said = w.publisher(second).ended().unwrap().to_owned();
            assert!(said.contains("NetStream.Publish.BadName"), "{said}");
            assert_eq!(w.publisher(second).sent.last().unwrap().ready, None);
        }
        w.run(ms(2_000));
        for v in viewers {
            saw_all(w, v, p, session(w, p));
        }
    });
}

#[test]
fn of_publishers_that_race_for_a_name_one_wins() {
    seeds("0..3", |w| {
        let c = Cluster::new(w);
        let racers = [c.o1, c.o2, c.o1, c.e1].map(|at| w.publish(at, STREAM));
        w.run(ms(2_000));
        let won: Vec<ClientId> =
            racers.into_iter().filter(|p| w.publisher(*p).sent.last().unwrap().ready.is_some()).collect();
        assert_eq!(won.len(), 1, "{won:?}");
        let v = rtmp_viewer(w, c.e2, STREAM, won[0]);
        w.run(ms(2_000));
        saw_all(w, v, won[0], session(w, won[0]));
    });
}

/// The publisher's host vanishes; after `silence` it comes back at `again` from another address.
fn returns(w: &mut World, silence: u64, again: impl Fn(&Cluster) -> HostId) {
    let (c, p, viewers) = rtmp_watched(w);
    w.cut(p.into());
    w.run(ms(silence));
    let config = PublisherConfig { again: Some(ms(500)), ..PublisherConfig::default() };
    let back = w.publish_with(again(&c), STREAM, config);
    // lease + 2 s
    ready(w, back, 5_000);
    let s = session(w, back);
    for v in viewers {
        until_sees(w, v, s, 3_000);
    }
    w.run(ms(5_000));
    for v in viewers {
        assert_eq!(w.player(v).ended, None);
        saw_all(w, v, back, s);
    }
    leave_all(w, &[p, back], &viewers);
    w.heal(p.into());
    all_gone(w, &c.nodes());
}

#[test]
fn a_publisher_that_died_silently_takes_over_on_the_same_origin() {
    seeds("0..3", |w| returns(w, 3_200, |c| c.o1));
}

#[test]
fn a_publisher_that_died_silently_takes_over_on_another_origin() {
    seeds("0..3", |w| returns(w, 3_200, |c| c.o2));
}

#[test]
fn a_publisher_that_comes_back_too_early_gets_in_as_soon_as_it_may() {
    seeds("0..3", |w| returns(w, 300, |c| c.o2));
    seeds("0..3", |w| returns(w, 300, |c| c.o1));
}

#[test]
fn a_publisher_may_leave_and_return_within_the_hold_time() {
    seeds("0..3", |w| {
        let (c, p, viewers) = rtmp_watched(w);
        for (pause, at) in [(8_000, c.o1), (12_000, c.o2), (20, c.o1), (400, c.o2)] {
            w.with_publisher(p, |p, now| p.leave(now));
            w.run(ms(pause));
            let to = w.rtmp_addr(at);
            w.with_publisher(p, |p, now| {
                p.goes_to(to);
                p.connect(now);
            });
            ready(w, p, 3_000);
            let s = session(w, p);
            for v in viewers {
                until_sees(w, v, s, 3_000);
            }
            w.run(ms(3_000));
            for v in viewers {
                assert_eq!(w.player(v).ended, None);
                saw_all(w, v, p, s);
            }
        }
    });
}

#[test]
fn when_the_hold_time_is_over_players_are_told_the_end() {
    seeds("0..3", |w| {
        let (c, p, viewers) = rtmp_watched(w);
        w.with_publisher(p, |p, now| p.leave(now));
        w.run(ms(29_000));
        for v in viewers {
            assert_eq!(w.player(v).ended, None);
        }
        w.run(ms(9_000));
        for v in viewers {
            let v = w.player(v);
            assert!(v.ended.is_some(), "it still waits");
            assert!(v.statuses.iter().any(|s| s == "NetStream.Play.UnpublishNotify"), "{:?}", v.statuses);
        }
        all_gone(w, &c.nodes());
    });
}

#[test]
fn viewers_at_edges_outlive_a_restart_of_their_origin() {
    seeds("0..3", |w| {
        let c = Cluster::new(w);
        let config = PublisherConfig { again: Some(ms(500)), ..PublisherConfig::default() };
        let p = w.publish_with(c.o1, STREAM, config);
        ready(w, p, 3_000);
        let viewers = [c.e1, c.e2].map(|at| rtmp_viewer(w, at, STREAM, p));
        for down in [200, 1_500, 6_000] {
            w.run(ms(2_000));
            w.crash(c.o1);
            w.run(ms(down));
            w.start(c.o1);
            ready(w, p, 6_000);
            let s = session(w, p);
            for v in viewers {
                until_sees(w, v, s, 5_000);
            }
            w.run(ms(3_000));
            for v in viewers {
                assert_eq!(w.player(v).ended, None);
                saw_all(w, v, p, s);
            }
        }
    });
}

#[test]
fn another_origin_takes_the_publisher_of_one_that_vanished() {
    seeds("0..3", |w| {
        let (c, p, [at_origin, v1, v2]) = rtmp_watched(w);
        w.cut(c.o1.into());
        w.run(ms(1_000));
        let config = PublisherConfig { again: Some(ms(500)), ..PublisherConfig::default() };
        let back = w.publish_with(c.o2, STREAM, config);
        ready(w, back, 5_000);
        let s = session(w, back);
        for v in [v1, v2] {
            until_sees(w, v, s, 3_000);
        }
        // The old origin comes back, its publisher still connected: it is fenced.
        w.run(ms(4_000));
        w.heal(c.o1.into());
        w.until("the old publisher is told", ms(10_000), |w| w.publisher(p).ended().is_some());
        until_sees(w, at_origin, s, 5_000);
        w.run(ms(3_000));
        for v in [v1, v2, at_origin] {
            assert_eq!(w.player(v).ended, None);
            saw_all(w, v, back, s);
        }
        leave_all(w, &[p, back], &[v1, v2, at_origin]);
        all_gone(w, &c.nodes());
    });
}

/// The manager takes an origin for dead that is alive for everybody else. Once it has granted the name to another, the
/// former is fenced off: edges follow the higher epoch and never go back.
#[test]
fn an_origin_that_only_the_manager_lost_is_fenced_off() {
    seeds("0..3", |w| {
        let (c, p, [at_origin, v1, v2]) = rtmp_watched(w);
        w.part(c.m.into(), c.o1.into());
        w.run(ms(6_000));
        for v in [at_origin, v1, v2] {
            saw_all(w, v, p, session(w, p));
        }
        let back = live(w, c.o2, STREAM);
        let s = session(w, back);
        for v in [v1, v2] {
            until_sees(w, v, s, 2_000);
        }
        assert!(w.publisher(p).is_ready(), "nobody can tell it");
        w.run(ms(5_000));
        w.join(c.m.into(), c.o1.into());
        w.until("the old publisher is told", ms(8_000), |w| w.publisher(p).ended().is_some());
        until_sees(w, at_origin, s, 3_000);
        w.run(ms(2_000));
        for v in [at_origin, v1, v2] {
            saw_all(w, v, back, s);
        }
        leave_all(w, &[back], &[at_origin, v1, v2]);
        all_gone(w, &c.nodes());
    });
}

/// An edge cannot reach the origin, everybody else can.
#[test]
fn an_edge_that_only_its_origin_lost_comes_back() {
    seeds("0..3", |w| {
        let (c, p, [_, v1, v2]) = rtmp_watched(w);
        let s = session(w, p);
        w.part(c.e1.into(), c.o1.into());
        w.run(ms(12_000));
        saw_all(w, v2, p, s);
        w.join(c.e1.into(), c.o1.into());
        let before = w.player(v1).seen.len();
        w.until("pictures come again", ms(8_000), |w| w.player(v1).seen.len() > before + 50);
        assert_eq!(w.player(v1).ended, None);
    });
}

fn epoch(w: &mut World, at: HostId) -> Vec<u64> {
    let streams = json(w, at, "/api/v1/streams");
    let text = streams["streams"][0]["epoch"].as_str().unwrap_or_default().to_owned();
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
}

#[test]
fn a_manager_may_restart_with_empty_memory() {
    seeds("0..3", |w| {
        let (c, p, viewers) = rtmp_watched(w);
        let before = epoch(w, c.o1);
        assert!(!before.is_empty());
        w.crash(c.m);
        w.run(ms(2_000));
        w.start(c.m);
        // Two report intervals, and a moment for the nodes to dial.
        w.run(ms(4_000));
        assert_eq!(epoch(w, c.m), before, "it has learnt what runs");
        let second = w.publish(c.o2, STREAM);
        w.until("a second publisher is refused", ms(5_000), |w| w.publisher(second).ended().is_some());
        assert_eq!(w.publisher(second).sent.last().unwrap().ready, None);
        let e3 = w.host("e3", &[Role::Edge], Some(c.m));
        w.run(ms(1_000));
        let late = rtmp_viewer(w, e3, STREAM, p);
        w.run(ms(2_000));
        for v in viewers.into_iter().chain([late]) {
            saw_all(w, v, p, session(w, p));
        }
        w.with_publisher(p, |p, now| p.leave(now));
        w.run(ms(1_000));
        let to = w.rtmp_addr(c.o2);
        w.with_publisher(p, |p, now| {
            p.goes_to(to);
            p.connect(now);
        });
        ready(w, p, 3_000);
        assert!(epoch(w, c.o2) > before, "epochs only rise");
        for v in viewers {
            let s = session(w, p);
            until_sees(w, v, s, 3_000);
        }
    });
}

#[test]
fn with_the_manager_away_what_runs_runs_on() {
    seeds("0..3", |w| {
        let (c, p, viewers) = rtmp_watched(w);
        w.cut(c.m.into());
        w.run(ms(20_000));
        let late = rtmp_viewer(w, c.e1, STREAM, p);
        w.run(ms(2_000));
        w.heal(c.m.into());
        w.run(ms(10_000));
        for v in viewers.into_iter().chain([late]) {
            saw_all(w, v, p, session(w, p));
        }
    });
}

#[test]
fn a_node_registers_when_its_manager_comes() {
    seeds("0..3", |w| {
        let m = w.host_off("m1", &[Role::Manager], None, |_| {});
        let o = w.host("o1", &[Role::Origin], Some(m));
        let e = w.host("e1", &[Role::Edge], Some(m));
        w.run(ms(15_000));
        let log = w.log().iter().filter(|l| l.contains("no manager reachable")).count();
        assert!(log >= 2, "each node says that it has no manager");
        w.start(m);
        w.run(ms(4_000));
        let nodes = json(w, m, "/api/v1/nodes");
        assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(3), "{nodes}");
        let p = live(w, o, STREAM);
        rtmp_viewer(w, e, STREAM, p);
    });
}

#[test]
fn a_viewer_that_stops_reading_is_let_go_and_harms_no_one() {
    seeds("0..3", |w| {
        let c = Cluster::new(w);
        let config = PublisherConfig { key_bytes: 60_000, delta_bytes: 8_000, ..PublisherConfig::default() };
        let p = w.publish_with(c.o1, STREAM, config);
        ready(w, p, 3_000);
        let (good, bad) = (rtmp_viewer(w, c.e1, STREAM, p), rtmp_viewer(w, c.e1, STREAM, p));
        w.with_player(bad, |v| v.read(false));
        w.run(ms(15_000));
        let evicted = w
            .log()
            .iter()
            .any(|l| l.contains(" e1 ") && l.contains("viewer ended") && l.contains("(viewer_stuck)"));
        assert!(evicted, "the log says why it was let go");
        saw_all(w, good, p, session(w, p));
        let worst = w.player(good).seen.windows(2).map(|s| s[1].at.since(s[0].at)).max().unwrap();
        assert!(worst < ms(150), "the other waited for {worst:?}");
        w.run(ms(20_000));
        assert!(w.player(bad).ended.is_some(), "its connection is closed");
        let sessions = json(w, c.e1, "/api/v1/sessions");
        assert_eq!(sessions["sessions"].as_array().map(Vec::len), Some(1), "{sessions}");
    });
}

#[test]
fn a_viewer_whose_host_vanished_is_let_go() {
    seeds("0..3", |w| {
        let (c, p, viewers) = rtmp_watched(w);
        w.cut(Party::Client(viewers[1]));
        w.run(ms(65_000));
        let sessions = json(w, c.e1, "/api/v1/sessions");
        assert_eq!(sessions["sessions"].as_array().map(Vec::len), Some(0), "{sessions}");
        saw_all(w, viewers[2], p, session(w, p));
    });
}

/// While a stream's last viewers are gone and its pull has ended, a newcomer must not be left with what remains.
#[test]
fn an_edge_that_everybody_left_pulls_again_for_the_next() {
    seeds("0..3", |w| {
        let (c, p, viewers) = rtmp_watched(w);
        let s = session(w, p);
        for pause in [1_000, 4_900, 5_100, 7_000, 20_000] {
            w.with_player(viewers[1], |v| v.leave());
            let v = rtmp_viewer(w, c.e1, STREAM, p);
            w.with_player(v, |v| v.leave());
            w.run(ms(pause));
            let v = rtmp_viewer(w, c.e1, STREAM, p);
            w.run(ms(4_000));
            saw_all(w, v, p, s);
            w.with_player(v, |v| v.leave());
        }
    });
}

#[test]
fn a_node_that_drains_takes_nothing_new_and_ends() {
    seeds("0..3", |w| {
        let (c, p, viewers) = rtmp_watched(w);
        w.drain(c.e1);
        w.run(ms(500));
        assert!(!w.is_drained(c.e1));
        let late = w.play(c.e1, STREAM);
        w.run(ms(2_000));
        assert!(!w.player(late).playing, "a draining edge takes no viewer");
        let path = format!("/streammanager/api/4.0/event/{STREAM}?action=subscribe");
        for _ in 0..4 {
            let place = json(w, c.m, &path);
            assert_eq!(place["serverAddress"], w.http_addr(c.e2).ip().to_string(), "{place}");
        }
        saw_all(w, viewers[1], p, session(w, p));
        w.with_player(viewers[1], |v| v.leave());
        w.until("the edge is drained", ms(3_000), |w| w.is_drained(c.e1));
        // One with a viewer that stays ends too.
        w.drain(c.e2);
        w.run(ms(29_000));
        assert!(!w.is_drained(c.e2));
        assert_eq!(w.player(viewers[2]).ended, None);
        w.run(ms(2_000));
        assert!(w.is_drained(c.e2) && w.player(viewers[2]).ended.is_some());
    });
}

#[test]
fn one_process_is_a_whole_cluster() {
    seeds("0..3", |w| {
        let one = w.host("one", &[Role::Manager, Role::Origin, Role::Edge], None);
        w.run(ms(100));
        let p = live(w, one, STREAM);
        let other = live(w, one, "live/two");
        let (v, u) = (rtmp_viewer(w, one, STREAM, p), rtmp_viewer(w, one, "live/two", other));
        w.run(ms(5_000));
        saw_all(w, v, p, session(w, p));
        saw_all(w, u, other, session(w, other));
        leave_all(w, &[p, other], &[v, u]);
        all_gone(w, &[one]);
    });
}

#[test]
fn idle_nodes_hardly_wake() {
    seeds("0..3", |w| {
        let c = Cluster::new(w);
        let before = c.nodes().map(|n| w.wakes(n));
        w.run(ms(60_000));
        for (node, before) in c.nodes().into_iter().zip(before) {
            let a_second = (w.wakes(node) - before) / 60;
            // Reports and signs of life: one each for every link and second.
            assert!(a_second <= 10, "{node:?} wakes {a_second} times a second");
        }
    });
}

#[test]
fn the_manager_sends_publishers_and_viewers_where_they_belong() {
    seeds("0..3", |w| {
        let c = Cluster::new(w);
        let ask = |w: &mut World, action: &str| {
            w.get(c.m, &format!("/streammanager/api/4.0/event/{STREAM}?action={action}")).unwrap()
        };
        assert_eq!(ask(w, "subscribe").0, 404);
        let (status, body) = ask(w, "broadcast");
        assert_eq!(status, 200, "{body}");
        let to = [c.o1, c.o2].into_iter().find(|o| body.contains(&w.http_addr(*o).ip().to_string()));
        let p = live(w, to.expect("an origin was given out"), STREAM);
        w.run(ms(200));
        assert_eq!(ask(w, "broadcast").0, 409, "the name is taken");
        let (status, body) = ask(w, "subscribe");
        assert_eq!(status, 200, "{body}");
        let to = [c.e1, c.e2].into_iter().find(|e| body.contains(&w.http_addr(*e).ip().to_string()));
        rtmp_viewer(w, to.expect("an edge was given out"), STREAM, p);
    });
}

/// Two encoders of one stream that never give up, one of another, viewers that come and go, and whatever can happen to
/// nodes and links. Once all is well again, everyone who wants to publish or play does, and nothing is left behind.
#[test]
fn after_any_faults_all_is_well_again() {
    seeds("0..3", |w| {
        let c = Cluster::new(w);
        let nodes = c.nodes();
        let config = PublisherConfig { again: Some(ms(500)), ..PublisherConfig::default() };
        let mut viewers = Vec::new();
        let publishers = [(c.o1, STREAM), (c.o2, STREAM), (c.o2, "live/two")]
            .map(|(at, stream)| w.publish_with(at, stream, config.clone()));
        w.run(ms(1_000));
        for step in 0..16 {
            let which = nodes[w.pick("node", step, 5) as usize];
            match w.pick("what", step, 10) {
                0 if w.node_of(which).is_some() => w.crash(which),
                0 | 1 if w.node_of(which).is_none() => w.start(which),
                2 => w.cut(which.into()),
                3 => w.heal(which.into()),
                4 => w.cut(publishers[w.pick("publisher", step, 3) as usize].into()),
                5 => publishers.iter().for_each(|p| w.heal((*p).into())),
                8 => w.part(which.into(), nodes[w.pick("other", step, 5) as usize].into()),
                9 => w.join_all(),
                6 => {
                    let p = publishers[w.pick("publisher", step, 3) as usize];
                    let to = w.rtmp_addr([c.o1, c.o2][w.pick("origin", step, 2) as usize]);
                    w.with_publisher(p, |p, now| {
                        p.goes_to(to);
                        p.connect(now);
                    });
                }
                _ => {
                    let stream = [STREAM, "live/two"][w.pick("stream", step, 2) as usize];
                    viewers.push(w.play(nodes[1 + w.pick("at", step, 4) as usize], stream));
                }
            }
            w.run(ms(50 + w.pick("time", step, 4_000)));
        }
        w.join_all();
        for node in nodes {
            w.heal(node.into());
            if w.node_of(node).is_none() {
                w.start(node);
            }
        }
        publishers.iter().for_each(|p| w.heal((*p).into()));
        w.run(ms(15_000));
        let one: Vec<ClientId> =
            publishers[..2].iter().copied().filter(|p| w.publisher(*p).is_ready()).collect();
        assert_eq!(one.len(), 1, "one of two encoders publishes");
        assert!(w.publisher(publishers[2]).is_ready());
        for (stream, p) in [(STREAM, one[0]), ("live/two", publishers[2])] {
            let s = session(w, p);
            for at in [c.o1, c.o2, c.e1, c.e2] {
                viewers.push(rtmp_viewer(w, at, stream, p));
            }
            let left = |v: &&ClientId| w.player(**v).stream() == stream && w.player(**v).ended.is_none();
            for v in viewers.iter().filter(left) {
                assert!(sees(w, *v, s), "{v:?} of {stream} does not see session {s}");
            }
        }
        leave_all(w, &publishers, &viewers);
        all_gone(w, &nodes);
    });
}

/// To another region a stream goes once: the second edge there pulls from the first. When that one goes, the second finds the
/// origin, and its viewer stays.
#[test]
fn edges_of_another_region_chain_and_survive_the_first_of_them() {
    seeds(|w| {
        let m = w.host("m1", &[Role::Manager], None);
        let o = w.host_with("o1", &[Role::Origin], Some(m), |c| c.node.region = "eu".to_owned());
        let far = |w: &mut World, name: &str| {
            w.host_with(name, &[Role::Edge], Some(m), |c| c.node.region = "us".to_owned())
        };
        let [e1, e2] = ["e1", "e2"].map(|name| far(w, name));
        w.run(ms(2_500));
        let p = live(w, o, STREAM);
        let s = session(w, p);
        let first = viewer(w, e1, STREAM, p);
        w.run(ms(1_500));
        let second = viewer(w, e2, STREAM, p);
        w.run(ms(4_000));
        let pulls = |w: &mut World, at: HostId| {
            let sessions = json(w, at, "/api/v1/sessions");
            sessions["sessions"].as_array().unwrap().iter().filter(|s| s["protocol"] == "relay").count()
        };
        assert_eq!((pulls(w, o), pulls(w, e1)), (1, 1));
        for v in [first, second] {
            saw_all(w, v, p, s);
        }
        w.crash(e1);
        let before = w.now();
        w.run(ms(6_000));
        assert_eq!((pulls(w, o), &w.player(second).ended), (1, &None));
        let late = w.now().since(w.player(second).last_picture().unwrap().at);
        assert!(late < ms(500), "it sees pictures {late:?} ago, {:?} after the crash", w.now().since(before));
    });
}
