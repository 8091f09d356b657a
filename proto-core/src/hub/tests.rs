//! The hub's behaviour, by name. Random operations are in `tests/properties.rs`.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cohort;
mod pictures;
mod properties;
mod renditions;
mod resume;

use super::*;
use crate::media::frame::{FrameKind, NewFrame, Rotation};
use crate::media::track::{Codec, CodecParams};
use bytes::Bytes;

const MS: i64 = 1_000_000;
const ALL: CodecSet = CodecSet::ALL;
const BROWSER: CodecSet = CodecSet::NONE.with(Codec::H264).with(Codec::Opus).in_order();

fn at(ms: u64) -> Time {
    Time::from_millis(ms)
}

fn epoch(count: u64) -> Epoch {
    Epoch { term: 1, count }
}

fn h264(version: u8) -> CodecParams {
    CodecParams::H264 {
        sps: vec![Bytes::copy_from_slice(&[0x67, version])],
        pps: vec![Bytes::from_static(&[0x68])],
        size: Some((640, 360)),
        reorders: false,
    }
}

fn aac() -> CodecParams {
    CodecParams::Aac { asc: Bytes::from_static(&[0x12, 0x10]), rate: 44_100, channels: 2 }
}

fn config(track: TrackId, params: CodecParams) -> Ingest {
    Ingest::Config { track, params }
}

fn frame(kind: FrameKind, dts_ms: i64, pts_ms: i64, bytes: usize) -> Ingest {
    let track = match kind {
        FrameKind::Audio => TrackId::AUDIO,
        FrameKind::Data => TrackId::DATA,
        _ => TrackId::VIDEO,
    };
    Ingest::Frame(NewFrame {
        track,
        dts: dts_ms * MS,
        pts: pts_ms * MS,
        kind,
        discardable: false,
        temporal_layer: 0,
        rotation: Rotation::R0,
        capture: None,
        payload: Bytes::from(vec![7; bytes]),
    })
}

/// A hub with one stream, and a publisher whose clock is that of the test.
struct World {
    hub: Hub,
    stream: StreamId,
    source: SourceId,
    now: u64,
}

/// A delivered item in short: `C` with track and version, or kind with dts and pts in ms on the stream's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    C(u8, u32),
    K(i64, i64),
    D(i64, i64),
    A(i64),
}
use Item::{A, C, D, K};

impl World {
    fn new(limits: &Limits) -> World {
        let mut hub = Hub::new(limits);
        let stream = hub.publish(&key(), epoch(1), SourceId(1), at(0)).unwrap();
        World { hub, stream, source: SourceId(1), now: 0 }
    }

    fn video(limits: &Limits) -> World {
        let mut w = World::new(limits);
        w.put(config(TrackId::VIDEO, h264(1)));
        w
    }

    fn put(&mut self, item: Ingest) {
        self.hub.ingest(self.stream, self.source, item, at(self.now));
    }

    /// Plays until `until`, a picture each 40 ms (a key frame each `gop` of them) and a sound each 20 ms if wanted.
    fn play(&mut self, until: u64, gop: u64, bytes: usize, sound: bool) {
        while self.now < until {
            let ms = self.now as i64;
            if self.now.is_multiple_of(40) {
                let kind =
                    if (self.now / 40).is_multiple_of(gop) { FrameKind::Key } else { FrameKind::Delta };
                self.put(frame(kind, ms, ms, bytes));
            }
            if sound && self.now.is_multiple_of(20) {
                self.put(frame(FrameKind::Audio, ms, ms, 100));
            }
            self.now += 20;
            self.hub.tick(at(self.now));
        }
    }

    fn join(&mut self, accepts: CodecSet) -> SubscriberId {
        self.hub.subscribe(self.stream, accepts, at(self.now)).unwrap()
    }

    fn take(&mut self, sub: SubscriberId, most: usize) -> Vec<Item> {
        let mut out = Vec::new();
        while out.len() < most
            && let Some(d) = self.hub.next(sub, at(self.now))
        {
            out.push(match d {
                Delivery::Config { track, config } => C(track.0, config.version),
                // The stream's clock starts at one second.
                Delivery::Frame { frame, dts, pts, .. } => match frame.media.kind {
                    FrameKind::Key => K(dts / MS - 1000, pts / MS - 1000),
                    FrameKind::Delta => D(dts / MS - 1000, pts / MS - 1000),
                    _ => A(dts / MS - 1000),
                },
            });
        }
        out
    }

    fn events(&mut self) -> Vec<HubEvent> {
        std::iter::from_fn(|| self.hub.poll_event()).collect()
    }

    fn evicted(&mut self, sub: SubscriberId) -> Option<&'static str> {
        self.events().into_iter().find_map(|e| match e {
            HubEvent::Evict(id, reason) if id == sub => Some(reason.code),
            _ => None,
        })
    }

    fn dropped(&self, sub: SubscriberId) -> Vec<(&'static str, u64)> {
        self.hub.subscriber_stats(sub).unwrap().dropped.into_iter().collect()
    }
}

fn key() -> StreamKey {
    StreamKey::parse("live/demo").unwrap()
}

#[test]
fn a_newcomer_in_the_middle_of_a_group_races_through_it_to_the_live_edge() {
    let mut w = World::video(&Limits::default());
    w.put(config(TrackId::AUDIO, CodecParams::Opus { channels: 2 }));
    w.play(2_120, 50, 500, true);
    let sub = w.join(ALL);
    let got = w.take(sub, 100);
    // Key at 2000, deltas at 2040 and 2080: squeezed to end at the last one's own time; sound only from there on.
    assert_eq!(got, [C(0, 1), C(1, 1), K(2078, 2078), D(2079, 2079), D(2080, 2080), A(2080), A(2100)]);
    assert_eq!(w.dropped(sub), [("cached_sound", 4)]);
    w.play(2_160, 50, 500, true);
    assert_eq!(w.take(sub, 100), [D(2120, 2120), A(2120), A(2140)]);
}

#[test]
fn a_newcomer_who_shows_pictures_as_they_come_has_them_stand_where_they_are_handed_over() {
    let mut w = World::video(&Limits::default());
    w.put(config(TrackId::AUDIO, CodecParams::Opus { channels: 2 }));
    w.play(2_120, 50, 500, true);
    let sub = w.join(BROWSER);
    // A little before the live edge; those that it can take at once stand some ticks apart.
    assert_eq!(w.take(sub, 4), [C(0, 1), C(1, 1), K(2100, 2100), D(2100, 2100)]);
    w.play(2_320, 50, 500, true);
    // What came while it raced as well, and of that no sound that would be heard late.
    let got = w.take(sub, 100);
    let (pictures, sounds): (Vec<_>, Vec<_>) = got.into_iter().partition(|i| matches!(i, D(..)));
    let handed = [D(2300, 2300), D(2300, 2300), D(2300, 2300), D(2300, 2300), D(2300, 2300), D(2300, 2300)];
    assert_eq!(pictures, handed);
    assert_eq!(sounds, [A(2220), A(2240), A(2260), A(2280), A(2300)]);
    assert_eq!(w.dropped(sub), [("cached_sound", 11)]);
    // The live edge is reached: from now on all stand where they were made.
    w.play(2_400, 50, 500, true);
    assert_eq!(w.take(sub, 100), [D(2320, 2320), A(2320), A(2340), D(2360, 2360), A(2360), A(2380)]);
    w.hub.verify().unwrap();
}

#[test]
fn who_does_not_take_the_new_codec_is_let_go_with_a_reason_and_the_others_go_on() {
    let mut w = World::video(&Limits::default());
    w.play(200, 50, 500, true);
    let (all, browser) = (w.join(CodecSet::ALL), w.join(BROWSER));
    w.put(config(TrackId::VIDEO, h264(2)));
    assert_eq!(w.evicted(browser), None, "the codec is the same");
    w.put(config(TrackId::VIDEO, CodecParams::Vp8 { size: Some((640, 360)) }));
    let events = w.events();
    let [HubEvent::Evict(id, reason)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((*id, reason.code), (browser, "codec_changed"));
    assert!(reason.text.contains("VP8") && reason.text.contains("connect again"), "{reason}");
    assert!(w.hub.subscriber_stats(all).is_some());
    w.hub.verify().unwrap();
}

#[test]
fn squeezing_keeps_the_order_of_pictures_with_b_frames_across_the_live_edge() {
    let mut w = World::video(&Limits::default());
    // Coding order I P b b P b b ..., shown one frame later than coded.
    let pts = [40, 160, 80, 120, 280, 200, 240, 400, 320, 360];
    let mut w2 = |i: usize, kind| {
        w.now = i as u64 * 40;
        w.put(frame(kind, i as i64 * 40, pts[i], 10));
    };
    w2(0, FrameKind::Key);
    (1..5).for_each(|i| w2(i, FrameKind::Delta));
    let sub = w.join(ALL);
    let mut got = w.take(sub, 100);
    for (i, shown) in pts.iter().enumerate().skip(5) {
        w.now = i as u64 * 40;
        w.put(frame(FrameKind::Delta, i as i64 * 40, *shown, 10));
    }
    got.extend(w.take(sub, 100));
    let shown: Vec<(i64, i64)> = got
        .iter()
        .filter_map(|i| match i {
            K(d, p) | D(d, p) => Some((*d, *p)),
            _ => None,
        })
        .collect();
    assert_eq!(shown.len(), pts.len());
    assert!(shown.iter().all(|(d, p)| p >= d), "{shown:?}");
    let order = |v: &[i64]| {
        let mut by: Vec<usize> = (0..v.len()).collect();
        by.sort_by_key(|i| v[*i]);
        by
    };
    assert_eq!(order(&shown.iter().map(|s| s.1).collect::<Vec<_>>()), order(&pts));
    assert_eq!(shown[..5].iter().map(|s| s.0).collect::<Vec<_>>(), [156, 157, 158, 159, 160]);
    assert_eq!(shown[5..].iter().map(|s| s.1).collect::<Vec<_>>(), &pts[5..]);
}

#[test]
fn a_newcomer_before_the_first_key_frame_hears_sound_and_waits_for_the_picture() {
    let mut w = World::video(&Limits::default());
    w.put(config(TrackId::AUDIO, CodecParams::Opus { channels: 2 }));
    let sub = w.join(ALL);
    assert_eq!(w.take(sub, 9), [C(0, 1), C(1, 1)]);
    assert_eq!(w.hub.subscriber_stats(sub).unwrap().state, SubscriberState::WaitingForKey);
    w.put(frame(FrameKind::Audio, 0, 0, 9));
    w.put(frame(FrameKind::Delta, 0, 0, 9));
    assert_eq!(w.take(sub, 9), [A(0)]);
    w.put(frame(FrameKind::Key, 40, 40, 9));
    assert_eq!(w.take(sub, 9), [K(40, 40)]);
    assert_eq!(w.hub.subscriber_stats(sub).unwrap().state, SubscriberState::Live);
    assert_eq!(w.hub.stats(w.stream, at(0)).unwrap().dropped["waiting_for_key"], 1);
}

#[test]
fn sound_alone_needs_no_key_frame_and_a_newcomer_starts_at_the_live_edge() {
    let mut w = World::new(&Limits::default());
    w.put(config(TrackId::AUDIO, aac()));
    w.put(frame(FrameKind::Audio, 0, 0, 9));
    let sub = w.join(ALL);
    assert_eq!(w.take(sub, 9), [C(1, 1)]);
    w.put(frame(FrameKind::Audio, 20, 20, 9));
    assert_eq!(w.take(sub, 9), [A(20)]);
    assert_eq!(w.hub.subscriber_stats(sub).unwrap().state, SubscriberState::Live);
}

#[test]
fn a_slow_viewer_skips_to_the_next_key_frame_and_keeps_the_sound() {
    let limits = Limits { viewer_newcomer_ms: 0, ..Limits::default() };
    let mut w = World::video(&limits);
    w.put(config(TrackId::AUDIO, CodecParams::Opus { channels: 2 }));
    w.play(80, 25, 500, true);
    let sub = w.join(ALL);
    w.take(sub, 100);
    // 3.6 s pass. The key frame at 1000 is too old by now, the one at 2000 is not.
    w.play(3_680, 25, 500, true);
    let got = w.take(sub, 1000);
    let first_picture = got.iter().find(|i| matches!(i, K(..) | D(..)));
    assert_eq!(first_picture, Some(&K(2000, 2000)));
    assert_eq!(got.iter().filter(|i| matches!(i, A(_))).count(), 180);
    assert_eq!(w.dropped(sub), [("cached_sound", 2), ("lagging", 48)]);
    assert_eq!(w.hub.subscriber_stats(sub).unwrap().state, SubscriberState::Live);
    assert_eq!(w.hub.stats(w.stream, at(w.now)).unwrap().not_delivered["lagging"], 48);
}

#[test]
fn with_no_newer_key_frame_a_slow_viewer_waits_for_one_without_asking_for_it() {
    let limits = Limits { viewer_newcomer_ms: 0, ..Limits::default() };
    let mut w = World::video(&limits);
    w.play(80, 1_000, 500, false);
    let sub = w.join(ALL);
    w.take(sub, 100);
    w.play(2_680, 1_000, 500, false);
    w.events();
    assert_eq!(w.take(sub, 1000), []);
    assert_eq!(w.hub.subscriber_stats(sub).unwrap().state, SubscriberState::Lagging);
    // A slow viewer must not make the publisher's stream dearer for all (A31).
    assert!(!w.events().iter().any(|e| matches!(e, HubEvent::KeyFrameWanted { .. })));
    w.put(frame(FrameKind::Key, 2_680, 2_680, 9));
    assert_eq!(w.take(sub, 9), [K(2680, 2680)]);
}

#[test]
fn a_thin_viewer_gets_each_newest_key_frame_however_late() {
    let limits = Limits { viewer_newcomer_ms: 0, viewer_queue_bytes: 2_000, ..Limits::default() };
    let mut w = World::video(&limits);
    w.play(40, 25, 1_500, false);
    let sub = w.join(ALL);
    w.play(960, 25, 1_500, false);
    // Far beyond its queue, and yet the newest key frame is handed over; what follows is not.
    assert_eq!(w.take(sub, 9), [C(0, 1), K(0, 0)]);
    w.play(1_960, 25, 1_500, false);
    assert_eq!(w.take(sub, 9), [K(1000, 1000)]);
    // It is told so, once.
    w.play(2_960, 25, 1_500, false);
    assert_eq!(w.take(sub, 9), [K(2000, 2000)]);
    let slow = w.events().into_iter().filter(|e| matches!(e, HubEvent::Slow(id, _) if *id == sub)).count();
    assert_eq!(slow, 1);
}

#[test]
fn a_newcomers_cached_group_does_not_count_against_it() {
    let mut w = World::video(&Limits::default());
    w.play(4_000, 1_000, 500, false);
    let sub = w.join(ALL);
    assert_eq!(w.take(sub, 1000).len(), 101);
    let slow = w.join(ALL);
    w.take(slow, 10);
    w.now += 5_001;
    // After its first five seconds it does.
    assert_eq!(w.take(slow, 1000), []);
    assert_eq!(w.hub.subscriber_stats(slow).unwrap().state, SubscriberState::Lagging);
}

#[test]
fn a_newer_key_frame_makes_the_rest_of_the_cached_group_useless() {
    let mut w = World::video(&Limits::default());
    w.play(1_000, 1_000, 500, false);
    let sub = w.join(ALL);
    let quick = w.join(BROWSER);
    assert_eq!((w.take(sub, 3).len(), w.take(quick, 3).len()), (3, 3));
    w.put(frame(FrameKind::Key, 1_000, 1_000, 9));
    assert_eq!(w.take(sub, 9), [K(1000, 1000)]);
    assert_eq!(w.dropped(sub), [("superseded", 23)]);
    // Whoever shows them as they come would be set back by the jump, as long as it is not far behind.
    assert_eq!(w.take(quick, 9).len(), 9);
    assert_eq!(w.dropped(quick), []);
    w.now += 2_001;
    // It stands where it is handed over, as far as the stream's time went on.
    assert_eq!(w.take(quick, 9), [K(1080, 1080)]);
    assert_eq!(w.dropped(quick), [("superseded", 14)]);
}

#[test]
fn a_viewer_that_takes_no_byte_is_evicted() {
    let mut w = World::video(&Limits::default());
    let sub = w.join(ALL);
    w.play(1_000, 25, 500, false);
    w.take(sub, 5);
    w.hub.blocked(sub, at(w.now));
    w.hub.progress(sub, 1, at(2_000));
    w.play(6_980, 25, 500, false);
    assert_eq!(w.evicted(sub), None);
    w.play(7_000, 25, 500, false);
    assert_eq!(w.evicted(sub), Some("viewer_stuck"));
    assert!(w.hub.next(sub, at(w.now)).is_none());
    assert_eq!(w.hub.unsubscribe(sub), None);
}

#[test]
fn a_viewer_that_trickles_is_evicted_when_nothing_whole_got_through() {
    let mut w = World::video(&Limits::default());
    let sub = w.join(ALL);
    w.play(1_000, 25, 500, false);
    assert_eq!(w.take(sub, 2), [C(0, 1), K(0, 0)]);
    w.hub.blocked(sub, at(1_000));
    for s in 1..10 {
        w.hub.progress(sub, 1, at(s * 1_000));
        w.play(s * 1_000 + 980, 25, 500, false);
        assert_eq!(w.evicted(sub), None, "{s}");
    }
    w.hub.progress(sub, 1, at(10_000));
    w.play(11_000, 25, 500, false);
    assert_eq!(w.evicted(sub), Some("viewer_starved"));
}

#[test]
fn a_viewer_that_keeps_up_is_never_evicted_though_nothing_comes() {
    let mut w = World::video(&Limits::default());
    let sub = w.join(ALL);
    w.play(1_000, 25, 500, false);
    w.take(sub, 3);
    w.hub.blocked(sub, at(w.now));
    w.take(sub, 1000);
    w.hub.tick(at(3_600_000));
    assert_eq!(w.evicted(sub), None);
    assert_eq!(w.hub.deadline(), None);
}

#[test]
fn a_second_publisher_is_refused_until_the_first_is_silent_or_fenced() {
    let mut w = World::video(&Limits::default());
    w.now = 1_000;
    w.put(frame(FrameKind::Key, 0, 0, 9));
    let publish =
        |w: &mut World, e, s, t| w.hub.publish(&key(), epoch(e), SourceId(s), at(t)).map_err(|r| r.code);
    assert_eq!(publish(&mut w, 1, 2, 2_000), Err("name_busy"));
    assert_eq!(publish(&mut w, 0, 2, 60_000), Err("stale_epoch"));
    assert_eq!(publish(&mut w, 1, 2, 3_999), Err("name_busy"));
    assert_eq!(publish(&mut w, 1, 2, 4_000), Ok(w.stream));
    assert_eq!(publish(&mut w, 2, 3, 4_001), Ok(w.stream));
    let displaced: Vec<u64> = w
        .events()
        .into_iter()
        .filter_map(|e| match e {
            HubEvent::SourceDisplaced { source, .. } => Some(source.0),
            _ => None,
        })
        .collect();
    assert_eq!(displaced, [1, 2]);
    w.put(frame(FrameKind::Key, 40, 40, 9));
    assert_eq!(w.hub.stats(w.stream, at(4_001)).unwrap().dropped["displaced_source"], 1);
    // The loser's late goodbye changes nothing.
    w.hub.unpublish(w.stream, SourceId(1), at(4_002));
    assert_eq!(w.hub.state(w.stream), Some(StreamState::Live));
}

#[test]
fn viewers_stay_through_a_hold_and_go_on_from_a_key_frame_on_the_same_timeline() {
    let mut w = World::video(&Limits::default());
    let sub = w.join(ALL);
    w.play(1_000, 25, 500, false);
    assert_eq!(w.take(sub, 1000).len(), 26);
    w.hub.unpublish(w.stream, w.source, at(1_000));
    w.events();
    w.now = 11_000;
    w.source = SourceId(2);
    assert_eq!(w.hub.publish(&key(), epoch(1), w.source, at(w.now)), Ok(w.stream));
    assert_eq!(w.events(), [HubEvent::SourceBack(w.stream)]);
    assert_eq!(w.hub.deadline(), None);
    w.put(frame(FrameKind::Delta, 0, 0, 9));
    w.put(config(TrackId::VIDEO, h264(1)));
    w.put(frame(FrameKind::Delta, 0, 0, 9));
    assert_eq!(w.take(sub, 9), []);
    w.put(frame(FrameKind::Key, 500_000, 500_000, 9));
    w.put(frame(FrameKind::Delta, 500_040, 500_040, 9));
    // The last frame was at 960; its source was last heard then, 10,040 ms ago. The same parameters are no news.
    assert_eq!(w.take(sub, 9), [K(11_000, 11_000), D(11_040, 11_040)]);
    let stats = w.hub.stats(w.stream, at(w.now)).unwrap();
    assert_eq!((stats.dropped["no_config"], stats.dropped["waiting_for_key"]), (1, 1));
}

#[test]
fn a_stream_without_source_ends_after_the_hold_time_and_lets_its_viewers_go() {
    let mut w = World::video(&Limits::default());
    let sub = w.join(ALL);
    w.events();
    w.hub.unpublish(w.stream, w.source, at(1_000));
    w.hub.tick(at(30_999));
    assert_eq!(w.events(), [HubEvent::SourceAway(w.stream)]);
    assert_eq!(w.hub.deadline().map(|d| d.at), Some(at(31_000)));
    w.hub.tick(at(31_000));
    let events = w.events();
    assert!(matches!(&events[0], HubEvent::Evict(id, r) if *id == sub && r.code == "source_gone"));
    assert!(matches!(&events[1], HubEvent::Ended { key: k, .. } if *k == key()));
    assert_eq!(events.len(), 2);
    assert_eq!(w.hub.find(&key()), None);
    assert_eq!(w.hub.deadline(), None);
    w.put(frame(FrameKind::Key, 0, 0, 9));
    assert_eq!(w.hub.stray_frames(), 1);
}

#[test]
fn key_frame_requests_are_coalesced_and_forgotten_when_one_comes() {
    let mut w = World::video(&Limits::default());
    let wanted =
        |w: &mut World| w.events().iter().filter(|e| matches!(e, HubEvent::KeyFrameWanted { .. })).count();
    for _ in 0..100 {
        w.hub.request_key_frame(w.stream, None, at(0));
        w.put(frame(FrameKind::Delta, 0, 0, 9));
    }
    assert_eq!(wanted(&mut w), 1);
    w.hub.tick(at(499));
    assert_eq!(wanted(&mut w), 0);
    w.hub.tick(at(500));
    assert_eq!(wanted(&mut w), 1);
    w.now = 600;
    w.join(ALL);
    assert_eq!(wanted(&mut w), 0);
    w.put(frame(FrameKind::Key, 0, 0, 9));
    assert_eq!(w.hub.deadline(), None);
    w.hub.tick(at(5_000));
    assert_eq!(wanted(&mut w), 0);
}

#[test]
fn a_new_configuration_comes_before_the_first_frame_that_needs_it() {
    let mut w = World::video(&Limits::default());
    let sub = w.join(ALL);
    w.put(frame(FrameKind::Key, 0, 0, 9));
    w.put(config(TrackId::VIDEO, h264(1)));
    w.put(frame(FrameKind::Delta, 40, 40, 9));
    w.put(config(TrackId::VIDEO, h264(2)));
    w.put(frame(FrameKind::Delta, 80, 80, 9));
    w.put(frame(FrameKind::Key, 120, 120, 9));
    assert_eq!(w.take(sub, 9), [C(0, 1), K(0, 0), D(40, 40), C(0, 2), K(120, 120)]);
}

#[test]
fn a_browser_gets_no_aac_but_what_a_bridge_makes_of_it_and_others_get_aac_alone() {
    let mut w = World::video(&Limits::default());
    w.put(config(TrackId::AUDIO, aac()));
    let (browser, player) = (w.join(BROWSER), w.join(ALL));
    let bridge = w.hub.subscribe_bridge(w.stream, TrackId::AUDIO, Codec::Aac, at(w.now)).unwrap();
    w.play(80, 25, 9, true);
    assert_eq!(w.take(browser, 9), [C(0, 1), K(0, 0), D(40, 40)]);
    assert_eq!(w.dropped(browser), [("not_wanted", 4)]);
    assert_eq!(w.take(bridge, 9), [C(1, 1), A(0), A(20), A(40), A(60)]);

    let made = TrackId::AUDIO.derived(Codec::Opus);
    w.hub.derive(w.stream, TrackId::AUDIO, CodecParams::Opus { channels: 2 });
    for (pts, kept) in [(1_010, true), (1_030, true), (1_030, false), (1_050, true)] {
        w.hub.derived(w.stream, made, pts * MS, Bytes::from_static(b"opus"), at(w.now));
        let ready = w.events().contains(&HubEvent::Ready(browser));
        assert_eq!(ready, kept && pts == 1_010, "told once, and not of what does not rise: {pts}");
    }
    assert_eq!(w.take(browser, 9), [C(made.0, 1), A(10), A(30), A(50)]);
    assert_eq!(w.take(bridge, 9), [], "it is not fed with what it made");
    let heard: Vec<Item> = w.take(player, 99).into_iter().filter(|i| matches!(i, A(_))).collect();
    assert_eq!(heard, [A(0), A(20), A(40), A(60)]);
    assert_eq!(w.hub.tracks(w.stream).len(), 2, "what was derived is not told as the publisher's");
    assert_eq!(w.hub.verify(), Ok(()));

    // Another publisher brings Opus: it goes to the browser as it is, and what the bridge still makes to nobody.
    w.hub.publish(&key(), epoch(2), SourceId(2), at(w.now)).unwrap();
    w.hub.ingest(w.stream, SourceId(2), config(TrackId::AUDIO, CodecParams::Opus { channels: 2 }), at(w.now));
    w.hub.derived(w.stream, made, 1_070 * MS, Bytes::from_static(b"late"), at(w.now));
    w.hub.ingest(w.stream, SourceId(2), frame(FrameKind::Audio, 0, 0, 50), at(w.now));
    assert!(matches!(w.take(browser, 9)[..], [C(1, 2), A(_)]));
    let stats = w.hub.stats(w.stream, at(w.now)).unwrap();
    assert_eq!(stats.dropped.get("derived_too_late"), Some(&1));
    assert_eq!(w.hub.verify(), Ok(()));
}

#[test]
fn a_picture_that_is_too_large_takes_its_followers_with_it() {
    let limits = Limits { frame_bytes: 100, ..Limits::default() };
    let mut w = World::video(&limits);
    let sub = w.join(ALL);
    for (i, (kind, bytes)) in
        [(FrameKind::Key, 9), (FrameKind::Delta, 101), (FrameKind::Delta, 9), (FrameKind::Key, 9)]
            .into_iter()
            .enumerate()
    {
        w.put(frame(kind, i as i64 * 40, i as i64 * 40, bytes));
    }
    assert_eq!(w.take(sub, 9), [C(0, 1), K(0, 0), K(120, 120)]);
    let stats = w.hub.stats(w.stream, at(0)).unwrap();
    assert_eq!((stats.dropped["frame_too_large"], stats.dropped["waiting_for_key"]), (1, 1));
}

#[test]
fn stuck_and_idle_viewers_cost_nothing_per_frame() {
    let mut w = World::video(&Limits::default());
    w.play(40, 25, 9, false);
    let subs: Vec<SubscriberId> = (0..10_000).map(|_| w.join(ALL)).collect();
    assert_eq!(w.hub.subscribe(w.stream, ALL, at(0)).map_err(|r| r.code), Err("too_many_subscribers"));
    w.events();
    // Nobody took anything: they have been told already.
    w.put(frame(FrameKind::Delta, 40, 40, 9));
    assert_eq!(w.events(), []);
    w.take(subs[5], 99);
    w.take(subs[3], 99);
    w.put(frame(FrameKind::Delta, 80, 80, 9));
    assert_eq!(w.events(), [HubEvent::Ready(subs[5]), HubEvent::Ready(subs[3])]);
    w.put(frame(FrameKind::Delta, 120, 120, 9));
    assert_eq!(w.events(), []);
}

#[test]
fn viewers_may_be_left_to_wait_while_news_is_heard() {
    let mut w = World::video(&Limits::default());
    w.play(40, 25, 9, false);
    let subs: Vec<SubscriberId> = (0..3).map(|_| w.join(ALL)).collect();
    subs.iter().for_each(|s| drop(w.take(*s, 99)));
    w.events();
    w.put(frame(FrameKind::Delta, 40, 40, 9));
    assert!(w.hub.has_ready());
    assert_eq!(w.hub.poll_news(), None);
    assert_eq!(w.hub.poll_event(), Some(HubEvent::Ready(subs[0])));
    // One leaves while it waits; the stream's end is heard before the last one's turn, who has nothing left to take.
    w.hub.unsubscribe(subs[1]);
    w.hub.end(w.stream, Reason::local("over", "test"), at(41));
    assert!(matches!(w.hub.poll_event(), Some(HubEvent::Evict(id, _)) if id == subs[0]));
    assert!(matches!(w.hub.poll_news(), Some(HubEvent::Evict(id, _)) if id == subs[2]));
    assert!(matches!(w.hub.poll_event(), Some(HubEvent::Ended { .. })));
    assert_eq!(w.hub.poll_event(), None);
    assert!(!w.hub.has_ready());
}

/// Viewers that have seen some pictures, each 40 ms.
fn crowd(viewers: usize, pacing: Pacing) -> (World, Vec<SubscriberId>) {
    let mut w = World::video(&Limits::default());
    w.hub.set_pacing(pacing);
    w.put(config(TrackId::AUDIO, aac()));
    let all: Vec<SubscriberId> = (0..viewers).map(|_| w.join(ALL)).collect();
    w.play(120, 25, 9, false);
    for v in &all {
        w.take(*v, 99);
    }
    w.events();
    (w, all)
}

#[test]
fn sound_waits_for_the_next_picture_where_many_watch() {
    let sound = |w: &mut World| {
        let ms = w.now as i64;
        w.put(frame(FrameKind::Audio, ms, ms, 9));
        w.events().len()
    };
    for (viewers, told) in [(99, 99), (100, 0)] {
        let (mut w, all) = crowd(viewers, Pacing::default());
        assert_eq!(sound(&mut w), told, "{viewers} viewers");
        w.now += 20;
        w.hub.tick(at(w.now));
        w.put(frame(FrameKind::Delta, w.now as i64, w.now as i64, 9));
        assert_eq!(w.events().len(), viewers - told);
        let got = w.take(all[0], 9);
        assert!(matches!(got[..], [A(_), D(..)]), "{got:?}");
        assert_eq!(w.hub.verify(), Ok(()));
    }
    // No picture comes: it waits for so long and no longer.
    let (mut w, _) = crowd(100, Pacing::default());
    assert_eq!(sound(&mut w), 0);
    w.hub.tick(at(w.now + 33));
    assert_eq!(w.events().len(), 0);
    w.hub.tick(at(w.now + 34));
    assert_eq!(w.events().len(), 100);
    // Other nodes and bridges are told at once, and so is everybody where pictures are rare.
    let (mut w, all) = crowd(101, Pacing::default());
    w.hub.set_pace(all[7], Pace::Prompt);
    w.put(frame(FrameKind::Delta, w.now as i64, w.now as i64, 9));
    all.iter().for_each(|v| drop(w.take(*v, 9)));
    w.events();
    w.now += 20;
    assert_eq!(sound(&mut w), 1);
    w.now += 100;
    w.put(frame(FrameKind::Delta, w.now as i64, w.now as i64, 9));
    all.iter().for_each(|v| drop(w.take(*v, 9)));
    w.events();
    assert_eq!(sound(&mut w), 101);
    let (mut w, _) = crowd(100, Pacing { sound_wait_ms: 0, ..Pacing::default() });
    assert_eq!(sound(&mut w), 100, "switched off");
}

#[test]
fn frames_for_viewers_over_tcp_are_merged_where_that_is_wanted() {
    let (mut w, all) = crowd(3, Pacing { tcp_merge_ms: 300, ..Pacing::default() });
    w.hub.set_pace(all[1], Pace::Merged);
    w.play(160, 25, 9, false);
    w.take(all[1], 99);
    w.events();
    // It was told once in its old pace. From here on it is told with the others of its kind only.
    let mut told = Vec::new();
    while w.now < 1_200 {
        w.play(w.now + 20, 25, 9, true);
        for event in w.events() {
            if event == HubEvent::Ready(all[1]) {
                told.push(w.now);
                w.take(all[1], 99);
            }
        }
    }
    assert!(told.len() >= 3 && told.windows(2).all(|p| (300..=340).contains(&(p[1] - p[0]))), "{told:?}");
    assert_eq!(w.hub.verify(), Ok(()));
}

#[test]
fn forms_for_sending_are_let_go_after_a_while_but_not_from_who_holds_the_frame() {
    let mut w = World::video(&Limits::default());
    let sub = w.join(ALL);
    let mut held = None;
    while w.now < 10_000 {
        w.play(w.now + 40, 25, 9, false);
        while let Some(delivery) = w.hub.next(sub, at(w.now)) {
            if let Delivery::Frame { frame, .. } = delivery {
                frame.renderings.rtmp.get_or_init(|| Bytes::from_static(b"made"));
                held.get_or_insert(frame);
            }
        }
    }
    let ring = &w.hub.streams[&w.stream].ring;
    let made: Vec<i64> = (ring.first()..ring.end())
        .filter_map(|n| ring.get(n))
        .filter(|e| !e.frame.renderings.are_none())
        .map(|e| ring.edge() - e.edge)
        .collect();
    assert!(
        made.len() > 95 && made.iter().all(|age| *age <= 4_000 * MS),
        "{} {:?}",
        made.len(),
        made.first()
    );
    assert_eq!(ring.end() - ring.first(), 250, "the frames themselves stay");
    assert!(!held.unwrap().renderings.are_none());
    assert_eq!(w.hub.verify(), Ok(()));
}

#[test]
fn viewers_who_come_and_go_leave_nothing_behind() {
    let mut w = World::video(&Limits::default());
    for _ in 0..1_000 {
        let sub = w.join(ALL);
        w.take(sub, 9);
        w.hub.blocked(sub, at(0));
        w.hub.unsubscribe(sub);
    }
    let s = &w.hub.streams[&w.stream];
    assert!(s.drained.len() <= 16 && s.subscribers.is_empty() && w.hub.subscribers.is_empty());
    assert_eq!(w.hub.timers.len(), w.hub.streams[&w.stream].key_requests[&None].pending as usize);
}

#[test]
fn the_rate_is_that_of_the_last_second() {
    let mut w = World::video(&Limits::default());
    w.play(3_000, 25, 1_000, false);
    let rate = w.hub.stats(w.stream, at(3_000)).unwrap().bits_per_s;
    assert!((190_000..=210_000).contains(&rate), "{rate}");
    assert!(w.hub.stats(w.stream, at(60_000)).unwrap().bits_per_s < 10_000);
}

#[test]
fn what_a_stuck_viewer_does_changes_nothing_for_the_others() {
    let trace = |evil: bool| {
        let mut w = World::video(&Limits::default());
        w.put(config(TrackId::AUDIO, aac()));
        let innocent = w.join(ALL);
        let stuck = evil.then(|| w.join(ALL));
        let mut seen = Vec::new();
        for s in 1..40 {
            w.play(s * 500, 25, 20_000, true);
            if let Some(v) = stuck.filter(|_| s < 4) {
                w.take(v, 1);
                w.hub.blocked(v, at(w.now));
            }
            seen.extend(w.take(innocent, 1_000));
        }
        let evicted = stuck.map(|v| w.evicted(v));
        let stats = w.hub.stats(w.stream, at(w.now)).unwrap();
        (seen, stats.ring_bytes, stats.dropped, evicted)
    };
    let (alone, with) = (trace(false), trace(true));
    assert_eq!((alone.0, alone.1, alone.2), (with.0, with.1, with.2));
    assert_eq!(with.3, Some(Some("viewer_stuck")));
}

#[test]
fn rings_share_what_memory_there_is() {
    let limits =
        Limits { ring_bytes: 8_000, ring_bytes_min: 1_000, memory_bytes: 10_000, ..Limits::default() };
    let mut w = World::new(&limits);
    for ms in 0..30 {
        w.put(frame(FrameKind::Data, ms, ms, 500));
    }
    assert_eq!(w.hub.ring_bytes(), 8_000, "its own limit");
    let open = |w: &mut World, n: u64| {
        w.hub.publish(&StreamKey::parse(&format!("live/n{n}")).unwrap(), epoch(1), SourceId(n), at(0))
    };
    open(&mut w, 2).unwrap();
    assert_eq!(w.hub.ring_bytes(), 5_000, "half of all");
    w.hub.set_memory(3_000);
    assert_eq!(w.hub.ring_bytes(), 1_500);
    open(&mut w, 3).unwrap();
    assert_eq!(open(&mut w, 4).unwrap_err().code, "no_memory");
    assert_eq!(w.hub.ring_bytes(), 1_000, "who is in keeps what each is sure of");
    w.put(frame(FrameKind::Data, 40, 40, 1_001));
    assert_eq!(w.hub.stats(w.stream, at(0)).unwrap().dropped["frame_too_large"], 1);
    w.hub.verify().unwrap();
}
