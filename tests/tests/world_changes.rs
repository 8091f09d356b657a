//! What changes while a stream runs: parameter sets and sizes, in their own messages or in the band, tracks that come late or
//! end. Players by every protocol check each picture against the parameter sets in force, and that none is missing.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::world::actors::player::PlayerConfig;
use headwater_tests::world::actors::publisher::PublisherConfig;
use headwater_tests::world::actors::webrtc::{WhepConfig, WhipConfig};
use headwater_tests::world::scenario::*;
use headwater_tests::world::{ClientId, World};

/// Another size, a set that differs in one bit, and back; once within a group of pictures.
const DRESSES: [(u64, u8); 4] = [(110, 1), (160, 2), (163, 1), (210, 0)];

/// Players by every protocol, at the origin and at an edge.
struct Audience {
    rtmp: Vec<ClientId>,
    rtsp: Vec<ClientId>,
    whep: Vec<ClientId>,
}

impl Audience {
    fn of(w: &mut World, c: &Cluster) -> Audience {
        let (mut rtmp, mut rtsp, mut whep) = (Vec::new(), Vec::new(), Vec::new());
        for at in [c.o1, c.e1] {
            rtmp.push(w.play(at, STREAM));
            for udp in [false, true] {
                rtsp.push(w.play_rtsp(at, STREAM, PlayerConfig { udp, ..PlayerConfig::default() }));
            }
            whep.push(w.play_webrtc(at, STREAM, WhepConfig { strict: true, ..WhepConfig::default() }));
        }
        Audience { rtmp, rtsp, whep }
    }

    /// Numbers of the frames that each got of a session: who, and what.
    fn frames(&self, w: &World, track: char, session: u64) -> Vec<(String, Vec<u64>)> {
        let of = |seen: &mut dyn Iterator<Item = u64>| seen.collect::<Vec<_>>();
        let rtmp = self.rtmp.iter().map(|v| {
            (format!("RTMP {v:?}"), of(&mut w.player(*v).frames(track, session).map(|s| s.label.seq)))
        });
        let rtsp = self.rtsp.iter().map(|v| {
            (format!("RTSP {v:?}"), of(&mut w.rtsp_player(*v).frames(track, session).map(|s| s.label.seq)))
        });
        let whep =
            self.whep.iter().map(|v| (format!("WHEP {v:?}"), w.whep(*v).frames(session, track == 'v')));
        rtmp.chain(rtsp).chain(whep).collect()
    }

    /// All have every frame from their first on, over these numbers and up to the newest.
    fn saw_all(&self, w: &World, track: char, session: u64, over: (u64, u64)) {
        for (who, seen) in self.frames(w, track, session) {
            let (first, last) = (seen.first().copied(), seen.last().copied());
            let (Some(first), Some(last)) = (first, last) else {
                panic!("{who} got no {track} of {session}")
            };
            assert_eq!(seen, (first..=last).collect::<Vec<_>>(), "{who} has gaps in {track}");
            assert!(first <= over.0 && last >= over.1, "{who} has {track} {first} to {last}, not {over:?}");
        }
    }

    fn leave(&self, w: &mut World) {
        self.rtmp.iter().for_each(|v| w.with_player(*v, |v| v.leave()));
        self.rtsp.iter().for_each(|v| w.with_rtsp_player(*v, |v| v.leave()));
        self.whep.iter().for_each(|v| w.with_whep(*v, |v, now| v.leave(now)));
    }
}

/// A publisher that changes its parameter sets, seen by all.
fn changes(publish: impl Fn(&mut World, &Cluster) -> ClientId + Sync) {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        let p = publish(w, &c);
        ready(w, p, 5_000);
        let s = session(w, p);
        w.run(ms(1_500));
        let all = Audience::of(w, &c);
        w.run(ms(10_000));
        all.saw_all(w, 'v', s, (100, 270));
        // A newcomer begins with what is in force now.
        let late = Audience::of(w, &c);
        w.run(ms(2_000));
        late.saw_all(w, 'v', s, (310, 320));
        all.leave(w);
        late.leave(w);
    });
}

#[test]
fn parameter_sets_change_by_rtmp_in_their_own_message() {
    let config = PublisherConfig { dresses: DRESSES.to_vec(), ..PublisherConfig::default() };
    changes(|w, c| w.publish_with(c.o1, STREAM, config.clone()));
}

#[test]
fn parameter_sets_change_by_rtmp_in_the_band() {
    let config = PublisherConfig { dresses: DRESSES.to_vec(), in_band: true, ..PublisherConfig::default() };
    changes(|w, c| w.publish_with(c.o1, STREAM, config.clone()));
}

#[test]
fn parameter_sets_change_by_rtsp() {
    for udp in [false, true] {
        let config = PublisherConfig { dresses: DRESSES.to_vec(), udp, ..PublisherConfig::default() };
        changes(|w, c| w.publish_rtsp(c.o1, STREAM, config.clone()));
    }
}

#[test]
fn parameter_sets_change_by_whip() {
    let config = WhipConfig { dresses: DRESSES.to_vec(), ..WhipConfig::default() };
    changes(|w, c| w.publish_webrtc(c.o1, STREAM, config.clone()));
}

/// RTMP: a track may come at any time. RTSP says at the beginning what there is, so a player hears only what was there then.
#[test]
fn sound_that_comes_late_is_heard_and_pictures_go_on_when_it_ends() {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        let config = PublisherConfig { sounds: 5_000..10_000, ..PublisherConfig::default() };
        let p = w.publish_with(c.o1, STREAM, config);
        ready(w, p, 5_000);
        let s = session(w, p);
        w.run(ms(1_500));
        let mut early = Audience::of(w, &c);
        w.run(ms(5_500));
        let late = Audience::of(w, &c);
        w.run(ms(7_000));
        for all in [&early, &late] {
            all.saw_all(w, 'v', s, (200, 320));
        }
        // From 5 to 10 s, 1,024 samples each.
        late.saw_all(w, 'a', s, (370, 460));
        for v in &early.rtsp {
            assert_eq!(w.rtsp_player(*v).frames('a', s).count(), 0, "it was described without sound");
        }
        late.leave(w);
        early.leave(w);
        early.rtsp.clear();
        early.saw_all(w, 'a', s, (240, 460));
    });
}

#[test]
fn pictures_that_come_late_are_seen_and_sound_goes_on_when_they_end() {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        let config = PublisherConfig { pictures: 5_000..10_000, ..PublisherConfig::default() };
        let p = w.publish_with(c.o1, STREAM, config);
        ready(w, p, 5_000);
        let s = session(w, p);
        w.run(ms(1_500));
        let mut all = Audience::of(w, &c);
        w.run(ms(12_000));
        all.saw_all(w, 'a', s, (150, 580));
        all.leave(w);
        all.rtsp.clear();
        // (str0m drops what is overtaken by the first packet of its stream, and that may be of the first key frame.)
        all.saw_all(w, 'v', s, (150, 248));
        for v in &all.rtmp {
            assert_eq!(w.player(*v).pictures(s).first(), Some(&125), "from the first on");
        }
    });
}

#[test]
fn a_stream_of_sound_alone_and_one_of_pictures_alone_play_everywhere() {
    for track in ['a', 'v'] {
        replayed_seeds("0..2", |w| {
            let c = Cluster::new(w);
            let mut config = PublisherConfig::default();
            match track {
                'a' => config.pictures = 0..0,
                _ => config.sounds = 0..0,
            }
            let p = w.publish_with(c.o1, STREAM, config);
            ready(w, p, 5_000);
            let s = session(w, p);
            w.run(ms(1_500));
            let all = Audience::of(w, &c);
            w.run(ms(5_000));
            all.saw_all(w, track, s, if track == 'a' { (150, 280) } else { (75, 150) });
            all.leave(w);
        });
    }
}
