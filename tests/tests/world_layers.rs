//! Renditions in virtual time: viewers whose links become thin and thick again.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::world::actors::publisher::PublisherConfig;
use headwater_tests::world::actors::webrtc::{Seen, WhepConfig};
use headwater_tests::world::link::{Conditions, Direction};
use headwater_tests::world::scenario::*;
use headwater_tests::world::{ClientId, World};
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
