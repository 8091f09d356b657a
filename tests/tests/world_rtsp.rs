//! Publishers and players by RTSP, over the connection and by datagrams, on good links and bad ones, behind address
//! translators, and in step with the other protocols.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::world::actors::player::PlayerConfig;
use headwater_tests::world::actors::publisher::PublisherConfig;
use headwater_tests::world::actors::webrtc::{WhepConfig, WhipConfig};
use headwater_tests::world::link::{Conditions, Loss};
use headwater_tests::world::nat::Behaviour;
use headwater_tests::world::{ClientId, HostId, World};
use proto_core::node::config::Role;
use std::time::Duration;

/// The seeds to run. `WORLD_SEEDS=from..to` chooses others.
fn seeds() -> std::ops::Range<u64> {
    let chosen = std::env::var("WORLD_SEEDS").unwrap_or_else(|_| "0..2".to_owned());
    let (from, to) = chosen.split_once("..").expect("WORLD_SEEDS is from..to");
    let number = |s: &str| s.parse::<u64>().expect("a seed is a number");
    number(from)..number(to)
}

/// Runs a scenario with each seed, with its own clocks and randomness.
fn each(scenario: impl Fn(&mut World, [HostId; 3]) + Sync) {
    for seed in seeds() {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let ran = determinism::os::run(bytes, || {
            let mut w = World::new(seed);
            let m = w.host("m1", &[Role::Manager], None);
            let o = w.host("o1", &[Role::Origin], Some(m));
            let e = w.host("e1", &[Role::Edge], Some(m));
            w.run(ms(2_500));
            scenario(&mut w, [m, o, e]);
        });
        ran.expect("clocks and randomness are the seed's");
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn publishing(udp: bool) -> PublisherConfig {
    PublisherConfig { udp, again: Some(ms(500)), ..PublisherConfig::default() }
}

fn playing(udp: bool) -> PlayerConfig {
    PlayerConfig { udp, again: Some(ms(700)), ..PlayerConfig::default() }
}

/// Which pictures of a publisher's newest session a player saw, and how many were sent.
fn seen(w: &World, publisher: ClientId, player: ClientId) -> (Vec<u64>, u64) {
    let sent = w.rtsp_publisher(publisher).sent.last().expect("it connected");
    (w.rtsp_player(player).pictures(sent.session), sent.pictures)
}

/// A player saw every picture from its first on, up to those that are under way.
fn saw_all(w: &World, publisher: ClientId, player: ClientId, least: usize) {
    let (seen, sent) = seen(w, publisher, player);
    let first = seen.first().copied().unwrap_or(0);
    let all: Vec<u64> = (first..sent.saturating_sub(12)).collect();
    assert!(
        all.len() >= least && seen.starts_with(&all),
        "{player:?} saw {} of {sent} from {first}: {:?}, {:?}",
        seen.len(),
        w.rtsp_player(player).gaps,
        w.rtsp_player(player).statuses
    );
}

#[test]
fn every_way_of_publishing_is_seen_by_every_way_of_playing() {
    each(|w, [_, o, e]| {
        for udp in [false, true] {
            let stream = if udp { "live/udp" } else { "live/tcp" };
            let p = w.publish_rtsp(o, stream, publishing(udp));
            w.run(ms(1_500));
            let near = [false, true].map(|udp| w.play_rtsp(o, stream, playing(udp)));
            let far = [false, true].map(|udp| w.play_rtsp(e, stream, playing(udp)));
            let whep = w.play_webrtc(e, stream, WhepConfig::default());
            let rtmp = w.play(e, stream);
            w.run(ms(8_000));
            for player in near.into_iter().chain(far) {
                saw_all(w, p, player, 150);
                let source = w.rtsp_player(player).source().expect("it plays");
                assert!(source.apart < ms(40), "apart by {:?}", source.apart);
            }
            assert_eq!(near.map(|v| w.rtsp_player(v).source().is_some_and(|s| s.is_udp())), [false, true]);
            let session = w.rtsp_publisher(p).sent.last().expect("it connected").session;
            assert!(
                w.whep(whep).seen.iter().filter(|s| s.picture && s.session == session).count() > 150
                    && w.player(rtmp).pictures(session).len() > 150
            );
        }
        assert!(w.expect_recovery() && w.expect_drained());
    });
}

#[test]
fn over_tls_the_same_is_seen_and_who_is_sent_on_stays_on_tls() {
    each(|w, [m, o, e]| {
        w.over_tls(true);
        // Whoever asks for datagrams is told to use the connection.
        let p = w.publish_rtsp(o, "live/secure", publishing(false));
        w.run(ms(1_500));
        let near = w.play_rtsp(o, "live/secure", playing(true));
        let far = w.play_rtsp(e, "live/secure", playing(false));
        let sent_on = w.play_rtsp(m, "live/secure", playing(false));
        w.over_tls(false);
        let plain = w.play_rtsp(e, "live/secure", playing(false));
        w.run(ms(8_000));
        for player in [near, far, sent_on, plain] {
            saw_all(w, p, player, 150);
            assert!(w.rtsp_player(player).source().is_some_and(|s| !s.is_udp()));
        }
        let at = w.rtsp_player(sent_on).source().expect("it plays").at();
        assert_eq!((at.ip(), at.port()), (w.rtsp_addr(e).ip(), 8555), "the manager names the port of TLS");
        assert!(w.expect_recovery() && w.expect_drained());
    });
}

#[test]
fn every_other_publisher_is_played_by_rtsp() {
    each(|w, [_, o, e]| {
        let rtmp = w.publish(o, "live/rtmp");
        let whip = w.publish_webrtc(o, "live/whip", WhipConfig::default());
        w.run(ms(2_500));
        let players: Vec<ClientId> = ["live/rtmp", "live/whip"]
            .into_iter()
            .flat_map(|s| [(s, false), (s, true)])
            .map(|(s, udp)| w.play_rtsp(e, s, playing(udp)))
            .collect();
        w.run(ms(8_000));
        let sessions = [w.publisher(rtmp).sent.last(), w.whip(whip).sent.last()]
            .map(|s| s.expect("it connected").session);
        for (n, player) in players.into_iter().enumerate() {
            let p = w.rtsp_player(player);
            let session = sessions[n / 2];
            assert!(p.gaps.is_empty(), "{:?}", p.gaps);
            let (pictures, sounds) = (p.frames('v', session).count(), p.frames('a', session).count());
            assert!(
                pictures > 150 && sounds > 250,
                "{n}: {pictures} pictures, {sounds} sounds, {:?}",
                p.statuses
            );
        }
        assert!(w.expect_recovery() && w.expect_drained());
    });
}

#[test]
fn datagrams_through_translators_reach_publisher_and_player() {
    each(|w, [_, o, e]| {
        for (n, behaviour) in [Behaviour::HOME, Behaviour::SYMMETRIC].into_iter().enumerate() {
            let stream = format!("live/nat{n}");
            let nat = w.nat(behaviour);
            w.behind(Some(nat));
            let p = w.publish_rtsp(o, &stream, publishing(true));
            w.run(ms(1_500));
            // Neighbours with the same private ports behind one address.
            let players = [(); 2].map(|()| {
                let v = w.play_rtsp(e, &stream, playing(true));
                w.run(ms(500));
                v
            });
            w.behind(None);
            w.run(ms(40_000));
            for v in players {
                let source = w.rtsp_player(v).source().expect("it plays");
                assert!(
                    source.is_udp() && w.rtsp_player(v).connections == 1,
                    "{:?}",
                    w.rtsp_player(v).statuses
                );
                let (seen, sent) = seen(w, p, v);
                assert!(seen.len() as u64 > sent - 80, "saw {} of {sent}", seen.len());
            }
            // The translator forgets: everybody comes back by other ports.
            w.rebind(p);
            w.rebind(players[0]);
            w.run(ms(12_000));
            assert!(w.rtsp_publisher(p).is_ready());
        }
        assert!(w.expect_recovery() && w.expect_drained());
    });
}

#[test]
fn lost_swapped_and_doubled_datagrams_cost_pictures_and_nothing_else() {
    each(|w, [_, o, e]| {
        let bad = Conditions {
            latency: ms(20),
            jitter: ms(15),
            loss: Loss { mean: 0.02, burst: 2.0 },
            duplicate: 0.02,
            reorder: 0.03,
            ..Conditions::default()
        };
        let p = w.publish_rtsp(o, "live/bad", publishing(true));
        w.run(ms(1_500));
        w.degrade(p, bad);
        let players = [true, false].map(|udp| w.play_rtsp(e, "live/bad", playing(udp)));
        w.run(ms(300));
        w.degrade(players[0], bad);
        w.run(ms(20_000));
        for v in players {
            let player = w.rtsp_player(v);
            let (seen, sent) = seen(w, p, v);
            let newest = player.last_picture().map(|s| w.now().since(s.at));
            assert!(seen.len() as u64 > sent / 3, "{v:?} saw {} of {sent}", seen.len());
            assert!(newest.is_some_and(|age| age < ms(2_000)), "{v:?}: its newest picture is {newest:?} old");
        }
        let lost = w.get(o, "/api/v1/sessions").expect("an answer").1;
        assert!(lost.contains("\"loss\""), "{lost}");
        assert!(w.expect_recovery() && w.expect_drained());
    });
}

#[test]
fn clients_that_come_to_another_network_go_on() {
    each(|w, [_, o, e]| {
        for udp in [false, true] {
            let stream = if udp { "live/udp" } else { "live/tcp" };
            let p = w.publish_rtsp(o, stream, publishing(udp));
            w.run(ms(1_500));
            let v = w.play_rtsp(e, stream, playing(udp));
            w.run(ms(3_000));
            w.readdress(v);
            w.run(ms(4_000));
            w.readdress(p);
            w.run(ms(9_000));
            let (seen, sent) = seen(w, p, v);
            assert!(!seen.is_empty() && sent > 0, "the player follows the publisher to its new connection");
            assert!(w.expect_recovery());
        }
        assert!(w.expect_drained());
    });
}

#[test]
fn a_player_that_knows_only_the_manager_is_sent_to_an_edge_and_on_to_the_next_when_that_drains() {
    each(|w, [m, o, e]| {
        let p = w.publish_rtsp(o, "live/one", publishing(false));
        w.run(ms(2_500));
        let first = [false, true].map(|udp| w.play_rtsp(m, "live/one", playing(udp)));
        w.run(ms(3_000));
        let at = |w: &World, v| w.rtsp_player(v).source().expect("it plays").at();
        assert_eq!(first.map(|v| at(w, v)), [w.rtsp_addr(e); 2], "the manager names the edge");
        let next = w.host("e2", &[Role::Edge], Some(m));
        w.run(ms(2_500));
        w.drain(e);
        w.run(ms(6_000));
        assert_eq!(
            first.map(|v| at(w, v)),
            [w.rtsp_addr(next); 2],
            "both heeded REDIRECT, by way of the manager"
        );
        for v in first {
            let newest = w.rtsp_player(v).last_picture().expect("it sees").at;
            assert!(w.now().since(newest) < ms(500) && w.rtsp_player(v).connections == 1);
        }
        // Who comes to the edge that drains is sent on, and so is a publisher that follows.
        let late = w.play_rtsp(e, "live/one", playing(false));
        let other = w.publish_rtsp(e, "live/two", publishing(true));
        w.run(ms(3_000));
        assert_eq!(at(w, late), w.rtsp_addr(next));
        assert!(w.rtsp_publisher(other).is_ready() && w.rtsp_publisher(p).is_ready());
        w.crash(e);
        w.start(e);
        assert!(w.expect_recovery() && w.expect_drained());
    });
}

/// The publisher's clock of sound runs 100 ppm too fast: after ten minutes that are 60 ms, unless its reports are heeded.
#[test]
fn ten_minutes_with_clocks_that_differ_leave_sound_and_picture_together() {
    for seed in seeds().take(1) {
        for ppm in [100, -100] {
            let ran = determinism::os::run([9; 32], || {
                let mut w = World::quiet(seed);
                let m = w.host("m1", &[Role::Manager], None);
                let o = w.host("o1", &[Role::Origin], Some(m));
                let e = w.host("e1", &[Role::Edge], Some(m));
                w.run(ms(2_500));
                let config = PublisherConfig {
                    sound_ppm: ppm,
                    key_bytes: 1_500,
                    delta_bytes: 300,
                    ..publishing(true)
                };
                let p = w.publish_rtsp(o, "live/long", config);
                w.run(ms(1_500));
                let players = [false, true].map(|udp| {
                    let config = PlayerConfig { sound_ppm: ppm, ..playing(udp) };
                    w.play_rtsp(e, "live/long", config)
                });
                let rtmp = w.play(e, "live/long");
                w.run(Duration::from_secs(600));
                for v in players {
                    let source = w.rtsp_player(v).source().expect("it plays");
                    assert!(source.apart < ms(40), "apart by {:?}", source.apart);
                    saw_all(&w, p, v, 14_900);
                }
                // By RTMP both tracks stand on one clock: the newest sound beside the newest picture.
                let session = w.rtsp_publisher(p).sent.last().expect("it connected").session;
                let player = w.player(rtmp);
                let late = |track: char, each: f64| {
                    let last = player.frames(track, session).last().expect("it saw frames");
                    last.stamp as f64 - last.label.seq as f64 * each
                };
                let sound = 1_024.0 / 48.0 / (1.0 + f64::from(ppm) / 1e6);
                let first = |track: char, each: f64| {
                    let first = player.frames(track, session).nth(200).expect("it saw frames");
                    first.stamp as f64 - first.label.seq as f64 * each
                };
                let drift = (late('v', 40.0) - first('v', 40.0)) - (late('a', sound) - first('a', sound));
                assert!(drift.abs() < 15.0, "sound drifted by {drift} ms in ten minutes");
                assert!(player.gaps.is_empty() && w.expect_drained());
            });
            ran.expect("clocks and randomness are the seed's");
        }
    }
}
