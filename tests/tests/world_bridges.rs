//! Bridges whose codecs fail or hang: the stream goes on, the log says it once, and nobody is asked too often.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::world::actors::webrtc::WhepConfig;
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
