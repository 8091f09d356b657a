//! Viewers whose links become thin and thick again, in virtual time: of streams with several renditions, and with one.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::world::actors::publisher::PublisherConfig;
use headwater_tests::world::actors::webrtc::{Seen, WhepConfig};
use headwater_tests::world::link::{Conditions, Direction, Loss};
use headwater_tests::world::scenario::*;
use headwater_tests::world::{ClientId, HostId, World};
use proto_core::time::Time;
use std::time::Duration;

/// About 80, 320 and 1,280 kbit/s; a key frame each second.
fn renditions() -> PublisherConfig {
    PublisherConfig {
        renditions: vec![4, 16],
        key_bytes: 1_500,
        delta_bytes: 350,
        ..PublisherConfig::default()
    }
}

fn rate(w: &mut World, viewer: ClientId, rate: Option<u64>) {
    // A quarter of a second waits before the link.
    let queue = rate.map_or(256 << 10, |r| (r / 32) as usize);
    let conditions = Conditions { latency: Duration::from_millis(20), rate, queue, ..Conditions::default() };
    w.degrade_one_way(viewer, Direction::Down, conditions);
}

/// Which rendition a picture is of, by its size: 0, 1 or 2.
fn layer(s: &Seen) -> usize {
    let unit = if s.key { 1_500 } else { 350 };
    match s.bytes / unit {
        0..=2 => 0,
        3..=8 => 1,
        _ => 2,
    }
}

/// The pictures since a moment, each with its rendition.
fn pictures(w: &World, viewer: ClientId, since: Time) -> Vec<(Seen, usize)> {
    let new = w.whep(viewer).seen.iter().filter(|s| s.picture && s.at >= since);
    new.map(|s| (*s, layer(s))).collect()
}

fn count(all: &[(Seen, usize)], of: usize, key: bool) -> usize {
    all.iter().filter(|(s, l)| *l == of && s.key == key).count()
}

#[test]
fn a_viewer_is_given_what_its_link_carries_and_more_when_it_carries_more() {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        let p = w.publish_with(c.o1, STREAM, renditions());
        ready(w, p, 5_000);
        w.run(ms(3_000));
        let v = w.play_webrtc(c.e1, STREAM, WhepConfig { renditions: true, ..WhepConfig::default() });
        rate(w, v, Some(5_000_000));
        let s = session(w, p);
        until_sees(w, v, s, 4_000);
        let since = w.now();
        w.run(ms(4_000));
        let all = pictures(w, v, since);
        assert!(count(&all, 2, false) > 85 && count(&all, 0, false) + count(&all, 1, false) == 0);
        // It falls to what the middle one needs: within two seconds that is what comes.
        rate(w, v, Some(550_000));
        w.run(ms(2_500));
        let since = w.now();
        w.run(ms(4_000));
        let all = pictures(w, v, since);
        assert!(count(&all, 1, false) + count(&all, 0, false) > 80 && count(&all, 2, false) == 0, "{all:?}");
        // And rises again.
        rate(w, v, Some(5_000_000));
        w.run(ms(20_000));
        let since = w.now();
        w.run(ms(4_000));
        let all = pictures(w, v, since);
        assert!(count(&all, 2, false) > 85, "{all:?}");
    });
}

#[test]
fn a_link_too_thin_for_any_carries_key_frames_and_sound_and_the_story_says_so() {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        let p = w.publish_with(c.o1, STREAM, PublisherConfig { delta_bytes: 1_000, ..renditions() });
        ready(w, p, 5_000);
        w.run(ms(3_000));
        let v = w.play_webrtc(c.o1, STREAM, WhepConfig { renditions: true, ..WhepConfig::default() });
        let s = session(w, p);
        until_sees(w, v, s, 4_000);
        w.run(ms(2_000));
        rate(w, v, Some(120_000));
        w.run(ms(8_000));
        let since = w.now();
        w.run(ms(6_000));
        let all: Vec<Seen> = w.whep(v).seen.iter().filter(|s| s.at >= since).copied().collect();
        let of =
            |picture: bool, key: bool| all.iter().filter(|s| s.picture == picture && s.key == key).count();
        assert!(
            of(true, true) >= 3 && of(true, false) <= 5 && of(false, false) > 200,
            "{} {} {}",
            of(true, true),
            of(true, false),
            of(false, false)
        );
        let sessions = json(w, c.o1, "/api/v1/sessions");
        let viewer = sessions["sessions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|s| s["protocol"] == "whep")
            .unwrap()
            .clone();
        assert_eq!(viewer["thin"], true, "{viewer}");
        let why = json(w, c.o1, &format!("/api/v1/why/{}", viewer["id"].as_str().unwrap()));
        assert!(why["words"].to_string().contains("too thin for the least"), "{why}");
        rate(w, v, None);
        w.run(ms(25_000));
        let since = w.now();
        w.run(ms(2_000));
        let all = pictures(w, v, since);
        assert!(count(&all, 0, false) + count(&all, 1, false) + count(&all, 2, false) > 40, "{all:?}");
    });
}

/// What came since a moment: key frames, other pictures, sound.
fn came(w: &World, viewer: ClientId, since: Time) -> [usize; 3] {
    let all = || w.whep(viewer).seen.iter().filter(|s| s.at >= since);
    let pictures = |key: bool| all().filter(|s| s.picture && s.key == key).count();
    [pictures(true), pictures(false), all().filter(|s| !s.picture).count()]
}

/// One rendition of about 930 kbit/s, with its sound; a key frame each second.
fn one() -> PublisherConfig {
    PublisherConfig { key_bytes: 16_000, delta_bytes: 4_000, ..PublisherConfig::default() }
}

/// A link to a viewer of so many bits a second, before which so many milliseconds wait.
fn thin(w: &mut World, viewer: ClientId, (rate, wait): (u64, u64)) {
    let queue = (rate * wait / 8_000) as usize;
    let conditions =
        Conditions { latency: Duration::from_millis(20), rate: Some(rate), queue, ..Conditions::default() };
    w.degrade_one_way(viewer, Direction::Down, conditions);
}

fn viewer_of(w: &mut World, at: HostId) -> serde_json::Value {
    let sessions = json(w, at, "/api/v1/sessions");
    sessions["sessions"].as_array().unwrap().iter().find(|s| s["protocol"] == "whep").unwrap().clone()
}

/// A viewer of a stream with one rendition, on a link that becomes too thin and then well again.
fn thinned(w: &mut World, publisher: PublisherConfig, config: WhepConfig, link: (u64, u64)) {
    let sounds = publisher.sounds.end > 0;
    let c = Cluster::new(w);
    let p = w.publish_with(c.o1, STREAM, publisher);
    ready(w, p, 5_000);
    w.run(ms(3_000));
    let v = w.play_webrtc(c.e1, STREAM, WhepConfig { apart: Duration::from_secs(1), ..config });
    let s = session(w, p);
    until_sees(w, v, s, 4_000);
    w.run(ms(4_000));
    thin(w, v, link);
    // It is found within six seconds; what stands in the longest queue by then has to come first.
    w.run(ms(14_000));
    let since = w.now();
    w.run(ms(4_000));
    let [keys, others, sound] = came(w, v, since);
    assert!(keys >= 3 && others <= 5 && (sound > 180 || !sounds), "{keys} {others} {sound}");
    let viewer = viewer_of(w, c.e1);
    assert_eq!(viewer["thin"], true, "{viewer}");
    assert!(viewer["room_kbps"].as_u64().is_some_and(|k| (200..700).contains(&k)), "{viewer}");
    let path = format!("/api/v1/why/{}", viewer["id"].as_str().unwrap());
    let why = json(w, c.e1, &path);
    assert!(why.to_string().contains("too thin for the stream's pictures"), "{why}");
    thin(w, v, (20_000_000, 250));
    w.run(ms(30_000));
    let since = w.now();
    w.run(ms(4_000));
    let [keys, others, _] = came(w, v, since);
    assert!(keys >= 3 && others > 90, "{keys} {others}");
    let viewer = viewer_of(w, c.e1);
    assert_eq!((viewer.get("thin"), viewer.get("room_kbps")), (None, None), "{viewer}");
    let why = json(w, c.e1, &path);
    assert!(why.to_string().contains("carries all of the stream's pictures again"), "{why}");
}

#[test]
fn a_link_of_half_the_one_rendition_carries_key_frames_and_sound_until_it_is_well() {
    replayed_seeds("0..2", |w| thinned(w, one(), WhepConfig::default(), (460_000, 250)));
    // A queue in which hardly anything waits, and one in which nothing is ever lost.
    replayed_seeds("2..3", |w| thinned(w, one(), WhepConfig::default(), (460_000, 30)));
    replayed_seeds("3..4", |w| thinned(w, one(), WhepConfig::default(), (460_000, 20_000)));
}

#[test]
fn a_viewer_that_does_not_say_what_came_and_one_without_sound_are_tried_again() {
    let mute = WhepConfig { mute: true, ..WhepConfig::default() };
    replayed_seeds("0..1", |w| thinned(w, one(), mute.clone(), (460_000, 250)));
    let silent = PublisherConfig { sounds: 0..0, ..one() };
    replayed_seeds("0..1", |w| thinned(w, silent.clone(), WhepConfig::default(), (460_000, 250)));
}

#[test]
fn a_link_that_stays_thin_is_tried_without_harm() {
    replayed_seeds("0..1", |w| {
        let c = Cluster::new(w);
        let p = w.publish_with(c.o1, STREAM, one());
        ready(w, p, 5_000);
        let v = w.play_webrtc(
            c.o1,
            STREAM,
            WhepConfig { apart: Duration::from_secs(1), ..WhepConfig::default() },
        );
        let s = session(w, p);
        until_sees(w, v, s, 4_000);
        thin(w, v, (460_000, 250));
        w.run(ms(12_000));
        let since = w.now();
        w.run(ms(60_000));
        let [keys, others, sound] = came(w, v, since);
        assert!(keys >= 55 && others <= 30 && sound >= 2_800, "{keys} {others} {sound}");
    });
}

#[test]
fn a_lossy_link_and_one_that_just_suffices_are_not_taken_for_thin() {
    let conditions = [
        Conditions { loss: Loss { mean: 0.05, burst: 4.0 }, ..Conditions::default() },
        Conditions { loss: Loss { mean: 0.05, burst: 1.0 }, ..Conditions::default() },
        Conditions { rate: Some(1_300_000), queue: 60_000, ..Conditions::default() },
    ];
    for conditions in conditions {
        replayed_seeds("0..2", |w| {
            let c = Cluster::new(w);
            let p = w.publish_with(c.o1, STREAM, one());
            ready(w, p, 5_000);
            let config = WhepConfig { apart: Duration::from_secs(1), ..WhepConfig::default() };
            let v = w.play_webrtc(c.o1, STREAM, config);
            let s = session(w, p);
            until_sees(w, v, s, 4_000);
            let latency = Duration::from_millis(40);
            w.degrade_one_way(v, Direction::Down, Conditions { latency, ..conditions });
            for _ in 0..30 {
                w.run(ms(2_000));
                let viewer = viewer_of(w, c.o1);
                assert_eq!(viewer.get("thin"), None, "{viewer}");
            }
        });
    }
}
