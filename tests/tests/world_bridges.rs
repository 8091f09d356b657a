//! Bridges whose codecs fail or hang: the stream goes on, the log says it once, and nobody is asked too often. And pictures that
//! are not coded in the order in which they are shown, which need a bridge, or need none.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::world::actors::player::PlayerConfig;
use headwater_tests::world::actors::publisher::PublisherConfig;
use headwater_tests::world::actors::webrtc::WhepConfig;
use headwater_tests::world::media::Order;
use headwater_tests::world::scenario::*;
use headwater_tests::world::{ClientId, Codecs, World};

/// A publisher of AAC by RTMP at an origin, and a viewer by WHEP there, who needs Opus.
fn watched(w: &mut World, codecs: Codecs) -> (Cluster, ClientId, ClientId) {
    let c = Cluster::new(w);
    let p = w.publish(c.o1, STREAM);
    ready(w, p, 3_000);
    w.run(ms(1_500));
    w.codecs(c.o1, codecs);
    let v = w.play_webrtc(c.o1, STREAM, WhepConfig::default());
    let s = session(w, p);
    until_sees(w, v, s, 4_000);
    w.run(ms(2_000));
    (c, p, v)
}

/// How many packets of sound, and pictures, a viewer had so far.
fn had(w: &World, viewer: ClientId) -> (usize, usize) {
    let pictures = w.whep(viewer).seen.iter().filter(|s| s.picture).count();
    (w.whep(viewer).seen.len() - pictures, pictures)
}

fn logged(w: &World, words: &str) -> usize {
    w.log().iter().filter(|l| l.contains(words)).count()
}

#[test]
fn a_codec_that_hangs_is_given_up_said_counted_and_tried_again() {
    replayed_seeds("0..2", |w| {
        let (c, p, v) = watched(w, Codecs::Work);
        let before = had(w, v);
        assert!(before.0 > 50, "it hears the stream: {before:?}");
        w.codecs(c.o1, Codecs::Hang);
        w.run(ms(9_000));
        assert_eq!(logged(w, "has not answered for 10 s"), 0, "it has its time");
        w.run(ms(2_000));
        assert_eq!(logged(w, "has not answered for 10 s"), 1);
        assert_eq!(logged(w, "the sound is not converted here"), 1);
        let silent = had(w, v);
        assert!(silent.1 > before.1 + 250, "pictures go on: {before:?} {silent:?}");
        let (_, metrics) = w.get(c.o1, "/metrics").expect("an answer");
        let counted = |l: &&str| l.starts_with("headwater_dropped") && l.contains("bridge_hung");
        let line = metrics.lines().find(counted).unwrap_or_default().to_owned();
        assert!(line.ends_with(" 1"), "{line}");
        w.codecs(c.o1, Codecs::Work);
        w.run(ms(6_000));
        let again = had(w, v);
        assert!(again.0 > silent.0 + 50, "sound is back: {silent:?} {again:?}");
        w.with_whep(v, |v, now| v.leave(now));
        w.with_publisher(p, |p, now| p.leave(now));
        drains_to_zero(w, &c.nodes());
    });
}

/// A node that slept could not hear an answer.
#[test]
fn a_node_that_slept_gives_no_codec_up_for_it() {
    replayed_seeds("0..2", |w| {
        let (c, _, _) = watched(w, Codecs::Work);
        w.pause(c.o1);
        w.run(ms(15_000));
        w.resume(c.o1);
        w.run(ms(2_000));
        assert_eq!(logged(w, "has not answered for"), 0);
    });
}

#[test]
fn a_codec_that_fails_is_tried_ever_more_seldom_and_said_once() {
    replayed_seeds("0..2", |w| {
        let (c, p, v) = watched(w, Codecs::Fail);
        // After 5, 10, 20 and 40 s.
        w.run(ms(90_000));
        let begun = w.bridges_begun(c.o1);
        assert_eq!(begun, 5, "tries");
        assert_eq!(logged(w, "Warn hub"), 2, "that it failed, and what that means for viewers");
        assert_eq!(had(w, v).0, 0, "no sound");
        w.codecs(c.o1, Codecs::Work);
        w.run(ms(75_000));
        let heard = had(w, v);
        assert!(heard.0 > 50, "it works again and is tried in the end: {heard:?}");
        // It worked, so the next failure counts as the first.
        w.codecs(c.o1, Codecs::Fail);
        w.run(ms(1_000));
        w.codecs(c.o1, Codecs::Work);
        w.run(ms(6_000));
        let again = had(w, v);
        assert!(again.0 > heard.0 + 50, "after 5 s again: {heard:?} {again:?}");
        w.with_whep(v, |v, now| v.leave(now));
        w.with_publisher(p, |p, now| p.leave(now));
        drains_to_zero(w, &c.nodes());
    });
}

/// A publisher by RTMP whose pictures are coded in this order, and players of it at an edge: by RTMP, by RTSP over the connection
/// and as datagrams, by WHEP.
fn out_of_order(w: &mut World, order: Order) -> (Cluster, ClientId, [ClientId; 4]) {
    let c = Cluster::new(w);
    let p = w.publish_with(c.o1, STREAM, PublisherConfig { order, ..PublisherConfig::default() });
    ready(w, p, 3_000);
    w.run(ms(1_500));
    let rtmp = w.play(c.e1, STREAM);
    let [tcp, udp] =
        [false, true].map(|udp| w.play_rtsp(c.e1, STREAM, PlayerConfig { udp, ..PlayerConfig::default() }));
    let whep = w.play_webrtc(c.e1, STREAM, WhepConfig::default());
    let s = session(w, p);
    for viewer in [rtmp, tcp, udp, whep] {
        until_sees(w, viewer, s, 5_000);
    }
    w.run(ms(1_000));
    (c, p, [rtmp, tcp, udp, whep])
}

/// How many pictures players by RTMP and RTSP had of a publisher; none is missing between the first and the last.
fn whole(w: &World, session: u64, [rtmp, tcp, udp, _]: [ClientId; 4]) -> [usize; 3] {
    [
        w.player(rtmp).pictures(session),
        w.rtsp_player(tcp).pictures(session),
        w.rtsp_player(udp).pictures(session),
    ]
    .map(|seen| {
        assert!(seen.windows(2).all(|w| w[0] + 1 == w[1]), "{seen:?}");
        seen.len()
    })
}

/// Ten seconds in which players by RTMP and RTSP get all pictures, and nothing that the viewer by WHEP is shown is damaged. What
/// it had before, and after: sound and pictures.
fn ten_seconds(w: &mut World, session: u64, all: [ClientId; 4]) -> [(usize, usize); 2] {
    let (before, had_before, undecodable) =
        (whole(w, session, all), had(w, all[3]), w.whep(all[3]).undecodable);
    w.run(ms(10_000));
    let after = whole(w, session, all);
    for (n, m) in before.iter().zip(after) {
        assert!((245..=255).contains(&(m - n)), "{before:?} {after:?}");
    }
    assert_eq!(w.whep(all[3]).undecodable, undecodable);
    [had_before, had(w, all[3])]
}

/// What a viewer by WHEP is shown is checked as it comes: whole pictures, each after those that it refers to, times that rise.
#[test]
fn b_pictures_that_no_other_needs_are_left_out_for_webrtc_and_for_nobody_else() {
    replayed_seeds("0..2", |w| {
        let (c, p, all) = out_of_order(w, Order::Plain);
        let [had, now] = ten_seconds(w, session(w, p), all);
        // Of 25 pictures a key frame and eight others.
        assert!((88..=92).contains(&(now.1 - had.1)), "{had:?} {now:?}");
        assert_eq!(w.bridges_begun(c.e1), 1, "that of sound");
        assert_eq!(
            logged(w, "o1 Warn hub [live/one] the stream has B-frames, which"),
            1,
            "the publisher is told"
        );
    });
}

#[test]
fn where_others_need_them_and_no_bridge_works_webrtc_gets_sound_and_the_reason() {
    replayed_seeds("0..2", |w| {
        let (c, p, all) = out_of_order(w, Order::Pyramid);
        let [had, now] = ten_seconds(w, session(w, p), all);
        assert_eq!(now.1, had.1, "no picture is shown damaged");
        assert!(now.0 - had.0 > 450, "it hears the stream: {had:?} {now:?}");
        let told = logged(w, "o1 Warn hub [live/one] the stream has B-frames that other pictures refer to");
        assert_eq!(told, 1, "the publisher is told");
        assert!(logged(w, "e1 Warn hub [live/one] no H.264 can be made") >= 1, "the operator is told");
        for viewer in all {
            w.leave(viewer);
        }
        w.with_publisher(p, |p, now| p.leave(now));
        drains_to_zero(w, &c.nodes());
    });
}
