//! Streams with several renditions: who is given which, and how subscribers change between them.

use super::*;
use proptest::prelude::*;

/// Tracks of pictures: a quarter, half and whole size, of about 40, 200 and 800 kbit/s at 25 pictures a second.
const LAYERS: [(TrackId, u32, usize); 3] =
    [(TrackId(0), 1, 200), (TrackId(3), 2, 1_000), (TrackId(5), 4, 4_000)];

fn sized(scale: u32) -> CodecParams {
    let sps = vec![Bytes::copy_from_slice(&[0x67, scale as u8])];
    CodecParams::H264 {
        sps,
        pps: vec![Bytes::from_static(&[0x68])],
        size: Some((320 * scale, 180 * scale)),
        reorders: false,
    }
}

fn picture(track: TrackId, kind: FrameKind, dts_ms: i64, bytes: usize) -> Ingest {
    let Ingest::Frame(media) = frame(kind, dts_ms, dts_ms, bytes) else { unreachable!() };
    Ingest::Frame(NewFrame { track, ..media })
}

fn simulcast() -> World {
    let mut w = World::new(&Limits::default());
    for (track, scale, _) in LAYERS {
        w.put(config(track, sized(scale)));
    }
    w.put(config(TrackId::AUDIO, CodecParams::Opus { channels: 2 }));
    w
}

/// What came to a subscriber: tracks of key frames, deltas and sound, and configurations as 100 more.
fn taken(w: &mut World, sub: SubscriberId) -> Vec<(u8, FrameKind)> {
    let one = w.hub.subscribers[sub.slot].choice.picks == Picks::One;
    let mut last = i64::MIN;
    let mut out = Vec::new();
    while let Some(d) = w.hub.next(sub, at(w.now)) {
        match d {
            Delivery::Config { track, .. } => out.push((100 + track.0, FrameKind::Data)),
            Delivery::Frame { frame, dts, .. } => {
                if frame.is_video() && one {
                    assert!(dts > last, "pictures go on in time");
                    last = dts;
                }
                out.push((frame.media.track.0, frame.media.kind));
            }
        }
    }
    out
}

impl World {
    /// Plays all layers that `on` names until `until`, each with a key frame where it is asked for one, or at first.
    fn layers(&mut self, until: u64, on: &[usize], taker: Option<SubscriberId>) -> Vec<(u8, FrameKind)> {
        let mut out = Vec::new();
        let mut wanted: Vec<Option<TrackId>> = Vec::new();
        while self.now < until {
            let ms = self.now as i64;
            for event in self.events() {
                if let HubEvent::KeyFrameWanted { track, .. } = event {
                    wanted.push(track);
                }
            }
            for (track, _, bytes) in on.iter().map(|n| LAYERS[*n]) {
                let asked = self.now == 0 || wanted.contains(&Some(track)) || wanted.contains(&None);
                let kind = if asked { FrameKind::Key } else { FrameKind::Delta };
                self.put(picture(track, kind, ms, bytes));
                wanted.retain(|w| *w != Some(track));
            }
            wanted.retain(Option::is_some);
            self.put(frame(FrameKind::Audio, ms, ms, 100));
            if let Some(sub) = taker {
                out.extend(taken(self, sub));
            }
            self.now += 40;
            self.hub.tick(at(self.now));
        }
        out
    }
}

fn deltas(all: &[(u8, FrameKind)], track: u8) -> usize {
    all.iter().filter(|i| **i == (track, FrameKind::Delta)).count()
}

#[test]
fn a_viewer_is_given_the_largest_and_others_as_its_link_allows_from_key_frames_on() {
    let mut w = simulcast();
    w.layers(2_000, &[0, 1, 2], None);
    let viewer = w.join(BROWSER);
    let all = w.layers(4_000, &[0, 1, 2], Some(viewer));
    let pictures: Vec<_> = all.iter().filter(|(_, k)| *k != FrameKind::Audio).collect();
    assert_eq!(pictures[..3], [&(105, FrameKind::Data), &(101, FrameKind::Data), &(5, FrameKind::Key)]);
    assert_eq!((deltas(&all, 0), deltas(&all, 3)), (0, 0));
    // What it costs is known once a second has been measured.
    w.hub.set_room(viewer, Some(500_000), at(w.now));
    let all = w.layers(8_000, &[0, 1, 2], Some(viewer));
    let change: Vec<_> =
        all.iter().filter(|(_, k)| *k != FrameKind::Audio && *k != FrameKind::Delta).collect();
    assert_eq!(
        change,
        [&(103, FrameKind::Data), &(3, FrameKind::Key)],
        "told what it is, at once with a key frame"
    );
    assert!(deltas(&all, 3) > 90 && deltas(&all, 5) < 5 && deltas(&all, 0) == 0);
    let shown = w.hub.subscriber_stats(viewer).unwrap().shown.unwrap();
    assert_eq!((shown.size, shown.of, shown.thin), (Some((640, 360)), 3, false));
    w.hub.set_room(viewer, Some(10_000_000), at(w.now));
    let all = w.layers(12_000, &[0, 1, 2], Some(viewer));
    assert!(deltas(&all, 5) > 90 && all.contains(&(105, FrameKind::Data)));
    let whys: Vec<_> = w.dropped(viewer).iter().map(|(why, _)| *why).collect();
    assert_eq!(whys, ["cached_sound", "other_rendition"]);
}

#[test]
fn a_link_too_thin_for_the_least_carries_key_frames_and_sound() {
    let mut w = simulcast();
    w.layers(2_000, &[0, 1, 2], None);
    let viewer = w.join(BROWSER);
    w.layers(4_000, &[0, 1, 2], Some(viewer));
    w.hub.set_room(viewer, Some(20_000), at(w.now));
    w.layers(6_000, &[0, 1, 2], Some(viewer));
    assert!(w.hub.subscriber_stats(viewer).unwrap().shown.unwrap().thin);
    w.put(picture(TrackId(0), FrameKind::Key, w.now as i64, 200));
    w.now += 40;
    let all = w.layers(8_000, &[0, 1, 2], Some(viewer));
    assert!(all.contains(&(0, FrameKind::Key)), "{all:?}");
    let sounds = all.iter().filter(|i| **i == (1, FrameKind::Audio)).count();
    assert_eq!((deltas(&all, 0) + deltas(&all, 3) + deltas(&all, 5), sounds > 45), (0, true));
    assert!(w.dropped(viewer).iter().any(|(why, n)| *why == "thin_link" && *n > 20));
    w.hub.set_room(viewer, Some(200_000), at(w.now));
    let all = w.layers(9_000, &[0, 1, 2], Some(viewer));
    let first = all.iter().find(|(_, k)| matches!(k, FrameKind::Key | FrameKind::Delta));
    assert_eq!(first, Some(&(0, FrameKind::Key)), "asked for, not waited for");
    assert!(deltas(&all, 0) > 20);
}

#[test]
fn who_was_given_a_layer_that_stops_goes_over_to_another_and_back() {
    let mut w = simulcast();
    w.layers(2_000, &[0, 1, 2], None);
    let viewer = w.join(BROWSER);
    w.layers(3_000, &[0, 1, 2], Some(viewer));
    let all = w.layers(6_000, &[0, 1], Some(viewer));
    assert!(deltas(&all, 3) > 45, "{}", deltas(&all, 3));
    let all = w.layers(9_000, &[0, 1, 2], Some(viewer));
    assert!(deltas(&all, 5) > 60, "{}", deltas(&all, 5));
}

#[test]
fn other_nodes_get_all_and_what_feeds_a_bridge_one() {
    let mut w = simulcast();
    let node = w.hub.subscribe_to(w.stream, ALL, Picks::All, at(0)).unwrap();
    let bridge = w.hub.subscribe_bridge(w.stream, TrackId(3), Codec::H264, at(0)).unwrap();
    let all = w.layers(1_000, &[0, 1, 2], Some(node));
    assert_eq!([0, 3, 5].map(|t| deltas(&all, t)), [24, 24, 24]);
    let all = taken(&mut w, bridge);
    assert_eq!((deltas(&all, 0), deltas(&all, 3), deltas(&all, 5)), (0, 24, 0));
}

#[test]
fn of_several_sounds_a_player_of_one_hears_the_first() {
    let mut w = simulcast();
    w.put(config(TrackId(4), CodecParams::Opus { channels: 1 }));
    let viewer = w.join(BROWSER);
    for ms in 0..10 {
        for track in [TrackId(4), TrackId::AUDIO] {
            w.put(picture(track, FrameKind::Audio, ms * 20, 9));
        }
    }
    let all = taken(&mut w, viewer);
    assert_eq!(all.iter().filter(|(t, _)| *t == 1).count(), 10);
    assert!(all.iter().all(|(t, _)| *t != 4 && *t != 104), "{all:?}");
}

#[test]
fn a_player_over_tcp_that_does_not_keep_up_is_given_less() {
    let limits = Limits { viewer_queue_ms: 500, viewer_newcomer_ms: 0, ..Limits::default() };
    let mut w = World::new(&limits);
    for (track, scale, _) in LAYERS {
        w.put(config(track, sized(scale)));
    }
    w.layers(2_000, &[0, 1, 2], None);
    let player = w.join(ALL);
    w.layers(3_000, &[0, 1, 2], Some(player));
    w.layers(5_000, &[0, 1, 2], None);
    let all = w.layers(8_000, &[0, 1, 2], Some(player));
    assert!(deltas(&all, 3) > 60 && deltas(&all, 5) < 20, "{:?} {all:?}", w.dropped(player));
    let all = w.layers(20_000, &[0, 1, 2], Some(player));
    assert!(deltas(&all, 5) > 100, "after a while it is tried again");
}

#[derive(Clone, Debug)]
enum Op {
    Picture(usize, bool),
    Room(Option<u64>),
    Take(usize),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..3usize, prop::bool::weighted(0.1)).prop_map(|(l, k)| Op::Picture(l, k)),
        1 => prop::option::of(0u64..1_200_000).prop_map(Op::Room),
        3 => (1..30usize).prop_map(Op::Take),
        2 => (1u64..120).prop_map(Op::Wait),
    ]
}

proptest! {
    /// Never a delta whose reference was left out; a layer's configuration before its first key frame; times rise; all is
    /// accounted for.
    #[test]
    fn changes_between_renditions_never_damage_a_picture(ops in prop::collection::vec(op(), 1..400)) {
        let mut w = simulcast();
        let viewer = w.join(BROWSER);
        let mut put = [0u32; 3];
        let (mut playing, mut last, mut told) = (None, i64::MIN, None);
        for op in ops {
            match op {
                Op::Picture(layer, key) => {
                    let kind = if key || put[layer] == 0 { FrameKind::Key } else { FrameKind::Delta };
                    put[layer] += 1;
                    let Ingest::Frame(mut media) = picture(LAYERS[layer].0, kind, w.now as i64, LAYERS[layer].2) else { unreachable!() };
                    media.payload = Bytes::from([put[layer].to_be_bytes().to_vec(), vec![0; LAYERS[layer].2]].concat());
                    w.put(Ingest::Frame(media));
                }
                Op::Room(room) => {
                    w.hub.set_room(viewer, room, at(w.now));
                }
                Op::Wait(ms) => {
                    w.now += ms;
                    w.hub.tick(at(w.now));
                }
                Op::Take(n) => {
                    for _ in 0..n {
                        match w.hub.next(viewer, at(w.now)) {
                            Some(Delivery::Config { track, .. }) => told = Some(track).filter(|t| *t != TrackId::AUDIO).or(told),
                            Some(Delivery::Frame { frame, dts, .. }) => {
                                let n = u32::from_be_bytes(*frame.media.payload.first_chunk().unwrap());
                                let track = frame.media.track;
                                prop_assert_eq!(told, Some(track));
                                prop_assert!(dts > last);
                                last = dts;
                                if frame.media.kind == FrameKind::Delta {
                                    prop_assert_eq!(playing, Some((track, n - 1)), "a delta after what it refers to");
                                }
                                playing = Some((track, n));
                            }
                            None => break,
                        }
                    }
                }
            }
            let s = w.hub.subscriber_stats(viewer).unwrap();
            prop_assert_eq!(s.offered, s.delivered.frames + s.dropped.values().sum::<u64>() + s.pending);
        }
    }
}
