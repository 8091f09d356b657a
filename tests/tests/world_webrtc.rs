//! WebRTC publishers and viewers in virtual time: real ICE, DTLS and SRTP on both ends.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::world::actors::webrtc::{Seen, WhepConfig, WhipConfig};
use headwater_tests::world::link::{Conditions, Direction, Loss};
use headwater_tests::world::nat::Behaviour;
use headwater_tests::world::scenario::*;
use headwater_tests::world::{ClientId, HostId, World};
use proto_core::node::config::Role;
use proto_core::time::Time;
use std::time::Duration;

fn strict() -> WhepConfig {
    WhepConfig { strict: true, ..WhepConfig::default() }
}

fn live(w: &mut World, at: HostId, config: WhipConfig) -> ClientId {
    let p = w.publish_webrtc(at, STREAM, config);
    ready(w, p, 5_000);
    p
}

fn viewer(w: &mut World, at: HostId, publisher: ClientId, config: WhepConfig) -> ClientId {
    let v = w.play_webrtc(at, STREAM, config);
    let s = session(w, publisher);
    until_sees(w, v, s, 4_000);
    v
}

/// What a viewer saw of a session and track from a second after its call on. (str0m drops what is overtaken by the first
/// packet of its stream.)
fn numbers(w: &World, viewer: ClientId, session: u64, picture: bool) -> Vec<u64> {
    let v = w.whep(viewer);
    let since = v.calls().last().unwrap().connected.expect("it is connected") + ms(1_000);
    let of = |s: &&Seen| s.session == session && s.picture == picture && s.at >= since;
    v.seen.iter().filter(of).map(|s| s.seq).collect()
}

/// A viewer has all frames of a session in both tracks, one after the other, and the last is recent.
fn saw_all(w: &World, viewer: ClientId, publisher: ClientId) {
    let sent = w.whip(publisher).sent.last().unwrap().clone();
    for (picture, count) in [(true, sent.pictures), (false, sent.sounds)] {
        let seen = numbers(w, viewer, sent.session, picture);
        let (first, last) = (*seen.first().expect("it saw frames"), *seen.last().unwrap());
        let gaps = &w.whep(viewer).gaps;
        assert_eq!(seen, (first..=last).collect::<Vec<_>>(), "{viewer:?} has gaps: {gaps:?}");
        assert!(last + 15 >= count, "{viewer:?} has {last} of {count}");
    }
}

/// The longest time from sampling to the viewer, over the frames that came from `since` on.
fn latency(w: &World, viewer: ClientId, publisher: ClientId, since: Time) -> Duration {
    let late = |s: &Seen| {
        let track = if s.picture { 'v' } else { 'a' };
        let sampled = w.whip(publisher).sampled(s.session, track, s.seq)?;
        Some(s.at.since(sampled))
    };
    let seen = w.whep(viewer).seen.iter().filter(|s| s.at >= since);
    seen.filter_map(late).max().expect("it saw frames")
}

fn lossy(share: f64) -> Conditions {
    Conditions { loss: Loss { mean: share, burst: 1.0 }, ..Conditions::default() }
}

#[test]
fn every_frame_of_a_whip_publisher_reaches_every_whep_viewer() {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        let p = live(w, c.o1, WhipConfig::default());
        w.run(ms(1_000));
        let viewers = [c.o1, c.e1].map(|at| viewer(w, at, p, strict()));
        let since = w.now() + ms(1_000);
        w.run(ms(8_000));
        for v in viewers {
            saw_all(w, v, p);
            let (late, skew) = (latency(w, v, p, since), w.whep(v).skew);
            assert!(late <= ms(60), "{late:?}");
            assert!(skew > Duration::ZERO, "it was measured");
            assert!(w.whep(v).calls()[0].sound);
            w.with_whep(v, |v, now| v.leave(now));
        }
        w.with_whip(p, |p, now| p.leave(now));
        w.run(ms(100));
        assert_eq!(w.whip(p).calls()[0].deleted, Some(200));
        drains_to_zero(w, &c.nodes());
    });
}

/// Whatever overtakes whatever at the start of a call: the viewer has ended its handshake before its first burst comes.
#[test]
fn no_media_comes_before_its_viewer_can_read_it() {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        live(w, c.o1, WhipConfig::default());
        w.run(ms(1_000));
        let config = WhepConfig { apart: ms(150), ..WhepConfig::default() };
        let viewers: Vec<ClientId> = (0..20)
            .map(|_| {
                let v = w.play_webrtc(c.o1, STREAM, config.clone());
                let bad =
                    Conditions { jitter: ms(30), reorder: 0.3, duplicate: 0.05, ..Conditions::default() };
                w.degrade(v, bad);
                v
            })
            .collect();
        w.run(ms(4_000));
        for v in viewers {
            assert!(w.whep(v).is_connected() && w.whep(v).last_picture().is_some());
            assert_eq!(w.whep(v).early(), 0, "{v:?}");
        }
    });
}

/// AAC has no place in WebRTC: each node makes Opus of it, at the times of the pictures.
#[test]
fn a_whep_viewer_hears_an_rtmp_publisher() {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        let p = w.publish(c.o1, STREAM);
        w.until("the publisher is accepted", ms(3_000), |w| w.publisher(p).is_ready());
        w.run(ms(1_500));
        let s = w.publisher(p).sent[0].session;
        let viewers = [c.o1, c.e1].map(|at| w.play_webrtc(at, STREAM, strict()));
        for v in viewers {
            until_sees(w, v, s, 4_000);
        }
        w.run(ms(5_000));
        for v in viewers {
            let seen = numbers(w, v, s, true);
            let (first, last) = (seen[0], *seen.last().unwrap());
            assert_eq!(seen, (first..=last).collect::<Vec<_>>());
            assert!(last + 5 >= w.publisher(p).sent[0].pictures);
            let heard = numbers(w, v, s, false);
            let (first, last) = (heard[0], *heard.last().unwrap());
            assert_eq!(heard, (first..=last).collect::<Vec<_>>());
            let all = w.whep(v).frames(s, false).len() as u64;
            assert!(heard.len() > 200);
            assert_eq!(w.whep(v).made, all, "what it hears is made of AAC");
            let call = &w.whep(v).calls()[0];
            assert!(call.sound && call.told.is_empty(), "{call:?}");
            assert!(w.whep(v).skew < ms(10), "sound and picture are {:?} apart", w.whep(v).skew);
            w.with_whep(v, |v, now| v.leave(now));
        }
        w.with_publisher(p, |p, now| p.leave(now));
        drains_to_zero(w, &c.nodes());
    });
}

#[test]
fn an_rtmp_player_sees_a_whip_publisher() {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        let p = live(w, c.o1, WhipConfig::default());
        w.run(ms(1_500));
        let s = session(w, p);
        let viewers = [c.o1, c.e1].map(|at| w.play(at, STREAM));
        for v in viewers {
            w.until("it sees pictures", ms(4_000), |w| {
                w.player(v).last_picture().is_some_and(|x| x.label.session == s)
            });
        }
        w.run(ms(5_000));
        for v in viewers {
            let seen = w.player(v).pictures(s);
            assert_eq!(seen, (seen[0]..=*seen.last().unwrap()).collect::<Vec<_>>());
            assert!(seen.last().unwrap() + 5 >= w.whip(p).sent[0].pictures);
            // The publisher sends Opus, the player knows AAC only.
            let heard: Vec<u64> = w.player(v).frames('a', s).map(|f| f.label.seq).collect();
            assert!(heard.len() > 200 && heard.windows(2).all(|p| p[1] == p[0] + 1), "{heard:?}");
            w.with_player(v, |v| v.leave());
        }
        w.with_whip(p, |p, now| p.leave(now));
        drains_to_zero(w, &c.nodes());
    });
}

#[test]
fn losses_on_the_way_to_a_viewer_are_made_good() {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        let p = live(w, c.o1, WhipConfig::default());
        w.run(ms(1_000));
        let v = viewer(w, c.e1, p, WhepConfig::default());
        w.degrade_one_way(v, Direction::Down, lossy(0.02));
        w.run(ms(20_000));
        let s = session(w, p);
        let pictures = numbers(w, v, s, true);
        let whole = pictures.last().unwrap() - pictures[0] + 1;
        assert!(pictures.len() as u64 * 100 >= whole * 97, "{} of {whole}", pictures.len());
        let sounds = numbers(w, v, s, false);
        let all = sounds.last().unwrap() - sounds[0] + 1;
        assert!(sounds.len() as u64 * 100 >= all * 94, "{} of {all}", sounds.len());
        assert!(
            (sounds.len() as u64) < all,
            "2 % of a thousand packets were lost, and sound is not sent again"
        );
        assert!(w.whep(v).last_picture().unwrap().at + ms(700) >= w.now());
    });
}

#[test]
fn losses_on_the_way_from_a_publisher_are_made_good() {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        let p = live(w, c.o1, WhipConfig::default());
        w.run(ms(1_000));
        let v = viewer(w, c.e1, p, strict());
        w.run(ms(1_000));
        let before = w.whep(v).packets_lost;
        w.degrade_one_way(p, Direction::Up, lossy(0.02));
        w.run(ms(20_000));
        let pictures = numbers(w, v, session(w, p), true);
        let whole = pictures.last().unwrap() - pictures[0] + 1;
        assert!(pictures.len() as u64 * 100 >= whole * 97, "{} of {whole}", pictures.len());
        assert!(w.whep(v).last_picture().unwrap().at + ms(700) >= w.now());
        assert_eq!(w.whep(v).packets_lost, before, "its own link loses nothing");
    });
}

#[test]
fn a_viewer_at_an_edge_outlives_a_restart_of_the_origin() {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        let p = live(w, c.o1, WhipConfig { again: Some(ms(500)), ..WhipConfig::default() });
        w.run(ms(1_000));
        let v = viewer(w, c.e1, p, strict());
        for down in [200, 3_000] {
            w.run(ms(2_000));
            let before = session(w, p);
            w.crash(c.o1);
            w.run(ms(down));
            w.start(c.o1);
            w.until("the publisher comes again", ms(15_000), |w| {
                w.whip(p).is_ready() && session(w, p) > before
            });
            let s = session(w, p);
            until_sees(w, v, s, 5_000);
            w.run(ms(3_000));
            assert_eq!((w.whep(v).calls().len(), w.whep(v).ended()), (1, None));
            saw_all(w, v, p);
        }
    });
}

#[test]
fn a_second_publisher_is_refused_and_takes_over_once_the_first_is_silent() {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        let first = live(w, c.o1, WhipConfig::default());
        w.run(ms(1_000));
        let viewers = [c.o1, c.e1].map(|at| viewer(w, at, first, strict()));
        for at in [c.o1, c.o2] {
            let second = w.publish_webrtc(at, STREAM, WhipConfig::default());
            w.until("it is refused", ms(5_000), |w| w.whip(second).ended().is_some());
            assert_eq!(w.whip(second).calls()[0].status, Some(409), "{:?}", w.whip(second).calls());
        }
        w.with_whip(first, |p, now| p.keep_silent(true, now));
        // Nodes take a publisher for silent after 3 s, and tell the manager with their next report.
        w.run(ms(2_000));
        let second = live(w, c.o2, WhipConfig { again: Some(ms(500)), ..WhipConfig::default() });
        let s = session(w, second);
        for v in viewers {
            until_sees(w, v, s, 5_000);
        }
        w.until("the first is told", ms(10_000), |w| w.whip(first).ended().is_some());
        w.run(ms(2_000));
        for v in viewers {
            saw_all(w, v, second);
            assert_eq!(w.whep(v).calls().len(), 1);
            w.with_whep(v, |v, now| v.hang_up(now));
        }
        w.with_whip(second, |p, now| p.leave(now));
        drains_to_zero(w, &c.nodes());
    });
}

#[test]
fn a_viewer_that_vanished_is_gone_when_its_consent_ends() {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        let p = live(w, c.o1, WhipConfig::default());
        let [v, u] = [c.e1, c.e1].map(|at| viewer(w, at, p, strict()));
        w.run(ms(1_000));
        w.cut(v.into());
        w.run(ms(25_000));
        assert_eq!(sessions(w, c.e1), 2, "its consent lasts for 30 s");
        w.run(ms(5_500));
        assert_eq!(sessions(w, c.e1), 1);
        saw_all(w, u, p);
        assert!(w.whep(v).ended().is_some(), "it gave up itself");
    });
}

#[test]
fn a_viewer_before_the_stream_is_told_so_and_comes_again() {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        let v = w.play_webrtc(c.e1, STREAM, WhepConfig { again: Some(ms(1_000)), ..strict() });
        w.run(ms(5_000));
        let calls = w.whep(v).calls();
        assert!(calls.len() >= 2 && calls[0].status == Some(404), "{calls:?}");
        let p = live(w, c.o1, WhipConfig::default());
        let s = session(w, p);
        until_sees(w, v, s, 6_000);
        w.run(ms(3_000));
        saw_all(w, v, p);
    });
}

#[test]
fn a_publisher_makes_a_key_frame_when_a_viewer_asks() {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        let p = live(w, c.o1, WhipConfig { gop: 100_000, ..WhipConfig::default() });
        w.run(ms(500));
        let v = viewer(w, c.e1, p, WhepConfig::default());
        w.run(ms(2_000));
        let before = (w.whip(p).key_requests, w.whep(v).seen.len());
        w.with_whep(v, |v, now| v.want_key(now));
        w.run(ms(1_000));
        assert!(w.whip(p).key_requests > before.0);
        assert!(w.whep(v).seen[before.1..].iter().any(|s| s.key));
        saw_all(w, v, p);
    });
}

#[test]
fn clients_behind_translators_publish_and_watch_and_stay_when_they_are_mapped_anew() {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        let nats = [Behaviour::HOME, Behaviour::SYMMETRIC].map(|b| w.nat(b));
        let whip = w.new_whip(c.o1, STREAM, WhipConfig::default());
        let p = w.add_behind(nats[0], whip);
        ready(w, p, 5_000);
        w.run(ms(1_000));
        let viewers = nats.map(|n| {
            let whep = w.new_whep(c.e1, STREAM, WhepConfig::default());
            w.add_behind(n, whep)
        });
        let s = session(w, p);
        for v in viewers {
            until_sees(w, v, s, 4_000);
        }
        w.run(ms(3_000));
        for v in viewers {
            saw_all(w, v, p);
        }
        for id in [p, viewers[1]] {
            w.rebind(id);
            // A check comes every 3 s and the old path must have been silent for 2 s; then a key frame.
            w.run(ms(7_500));
            assert!(w.whip(p).is_ready());
            for v in viewers {
                assert_eq!((w.whep(v).calls().len(), w.whep(v).ended()), (1, None));
                assert!(w.whep(v).last_picture().unwrap().at + ms(500) > w.now(), "{v:?} sees pictures");
            }
        }
    });
}

/// Two publishers that never give up, viewers that come again, and whatever can happen to nodes, links and addresses.
/// Once all is well again, everyone sees the stream that lives.
#[test]
fn after_any_faults_all_is_well_again() {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        let again = WhipConfig { again: Some(ms(500)), ..WhipConfig::default() };
        let publishers = [c.o1, c.o2].map(|at| w.publish_webrtc(at, STREAM, again.clone()));
        // How far sound and picture are apart follows the jitter until reports come.
        let config = WhepConfig { again: Some(ms(1_000)), apart: ms(150), ..WhepConfig::default() };
        let nat = w.nat(Behaviour::HOME);
        let mut viewers = [c.o1, c.e1, c.o2].map(|at| w.play_webrtc(at, STREAM, config.clone())).to_vec();
        let inner = w.new_whep(c.e1, STREAM, config);
        viewers.push(w.add_behind(nat, inner));
        let clients: Vec<ClientId> = publishers.iter().chain(&viewers).copied().collect();
        w.run(ms(2_000));
        for step in 0..14 {
            let node = c.nodes()[w.pick("node", step, 4) as usize];
            let client = clients[w.pick("client", step, 6) as usize];
            match w.pick("what", step, 9) {
                0 if w.node_of(node).is_some() => w.crash(node),
                0 | 1 if w.node_of(node).is_none() => w.start(node),
                2 => w.cut(node.into()),
                3 => w.heal(node.into()),
                4 => w.cut(client.into()),
                5 => w.heal(client.into()),
                6 => w.rebind(client),
                7 => w.readdress(client),
                _ => w.degrade(
                    client,
                    Conditions {
                        jitter: ms(w.pick("jitter", step, 60)),
                        loss: Loss { mean: w.pick("loss", step, 8) as f64 / 100.0, burst: 3.0 },
                        duplicate: 0.02,
                        reorder: 0.05,
                        corrupt: 0.01,
                        ..Conditions::default()
                    },
                ),
            }
            w.run(ms(50 + w.pick("time", step, 4_000)));
        }
        w.heal_all();
        for node in c.nodes() {
            if w.node_of(node).is_none() {
                w.start(node);
            }
        }
        w.run(ms(35_000));
        let live: Vec<ClientId> = publishers.into_iter().filter(|p| w.whip(*p).is_ready()).collect();
        assert_eq!(live.len(), 1, "one of two publishers publishes");
        let s = session(w, live[0]);
        for v in &viewers {
            let last = w.whep(*v).last_picture();
            assert!(last.is_some_and(|l| l.session == s && l.at + ms(1_500) > w.now()), "{v:?}: {last:?}");
        }
        viewers.iter().for_each(|v| w.with_whep(*v, |v, now| v.leave(now)));
        publishers.iter().for_each(|p| w.with_whip(*p, |p, now| p.leave(now)));
        drains_to_zero(w, &c.nodes());
    });
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let run = |seed| {
        replayed(seed, |w| {
            let c = Cluster::new(w);
            let p = live(w, c.o1, WhipConfig { again: Some(ms(500)), ..WhipConfig::default() });
            let v = viewer(w, c.e1, p, WhepConfig::default());
            w.degrade_one_way(v, Direction::Down, lossy(0.03));
            w.run(ms(2_000));
            w.crash(c.o1);
            w.run(ms(500));
            w.start(c.o1);
            w.run(ms(8_000));
            (w.hash(), w.log().to_vec(), w.whep(v).seen.len())
        })
    };
    let (a, b) = (run(7), run(7));
    for (x, y) in a.1.iter().zip(&b.1) {
        assert_eq!(x, y);
    }
    assert_eq!((a.0, a.2), (b.0, b.2));
    assert!(a.2 > 300);
    assert_ne!(a.0, run(8).0);
}

/// Where no UDP passes: clients come over TCP, over links that lose and delay, and nothing is left of them.
#[test]
fn clients_without_udp_publish_and_watch_over_tcp() {
    replayed_seeds("0..3", |w| {
        let (c, tcp) = (Cluster::new(w), true);
        let p = live(w, c.o1, WhipConfig { tcp, ..WhipConfig::default() });
        w.run(ms(1_000));
        let viewers = [c.o1, c.e1].map(|at| viewer(w, at, p, WhepConfig { tcp, ..strict() }));
        let by_udp = viewer(w, c.e2, p, strict());
        w.run(ms(5_000));
        for v in viewers.into_iter().chain([by_udp]) {
            saw_all(w, v, p);
        }
        // What a link loses makes a connection late, and costs no frame.
        w.degrade(viewers[1], lossy(0.03));
        w.degrade(p, lossy(0.02));
        w.run(ms(6_000));
        w.heal_all();
        w.run(ms(3_000));
        for v in viewers {
            assert_eq!((&w.whep(v).gaps, w.whep(v).ended()), (&Vec::new(), None), "{v:?}");
            saw_all(w, v, p);
        }
        // One goes without a word, one says goodbye over DTLS.
        w.remove(viewers[0]);
        w.with_whep(viewers[1], |v, now| v.hang_up(now));
        w.run(ms(1_000));
        assert!(w.whip(p).is_ready());
        assert!(w.expect_drained());
    });
}

/// What may wait on a TCP connection of a viewer counts, and whoever is in keeps what it has.
#[test]
fn who_comes_over_tcp_takes_its_row_of_the_memory() {
    replayed_seeds("0..2", |w| {
        let m = w.host("m1", &[Role::Manager], None);
        let o = w.host_with("o1", &[Role::Origin], Some(m), |c| {
            let l = &mut c.limits;
            l.ice_tcp_queue_bytes = 32 << 20;
            // A stream, five sessions, and one row.
            l.memory_bytes = l.ring_bytes_min + 5 * l.session_bytes + (l.ice_tcp_queue_bytes as u64);
        });
        w.run(ms(2_500));
        let p = live(w, o, WhipConfig::default());
        let tcp = || WhepConfig { tcp: true, ..WhepConfig::default() };
        let first = viewer(w, o, p, tcp());
        let second = w.play_webrtc(o, STREAM, tcp());
        w.run(ms(2_000));
        assert!(!w.whep(second).is_connected(), "there is room for one row");
        viewer(w, o, p, strict());
        let fresh = |w: &World, v| w.whep(v).last_picture().is_some_and(|s| w.now().since(s.at) < ms(500));
        assert!(fresh(w, first), "the first keeps its own");
        w.with_whep(first, |v, now| v.leave(now));
        w.run(ms(1_000));
        w.with_whep(second, |v, now| v.connect(now));
        w.until("the row that is free again is given", ms(4_000), |w| fresh(w, second));
        assert!(w.expect_drained());
    });
}
