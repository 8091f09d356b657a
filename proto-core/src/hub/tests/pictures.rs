//! Pictures that are shown in another order than they are coded in, and who gets them.

use super::*;

/// A picture in coding order: when it is decoded and shown (ms), and whether others refer to it.
fn coded(w: &mut World, dts: i64, pts: i64, referenced: bool) {
    w.now = dts as u64;
    let Ingest::Frame(mut picture) =
        frame(if dts == 0 { FrameKind::Key } else { FrameKind::Delta }, dts, pts, 9)
    else {
        unreachable!()
    };
    picture.discardable = !referenced;
    w.put(Ingest::Frame(picture));
}

/// I P b b P b b, as x264 codes it without a pyramid.
const PLAIN: [(i64, i64, bool); 7] = [
    (0, 40, true),
    (40, 160, true),
    (80, 80, false),
    (120, 120, false),
    (160, 280, true),
    (200, 200, false),
    (240, 240, false),
];

#[test]
fn b_frames_are_told_once_and_forgotten_with_their_source() {
    let mut w = World::video(&Limits::default());
    let told = |w: &mut World| w.events().into_iter().filter(|e| matches!(e, HubEvent::Notice(..))).count();
    for (dts, pts, referenced) in PLAIN {
        coded(&mut w, dts, pts, referenced);
    }
    assert_eq!((told(&mut w), w.hub.notices(w.stream)), (1, &[Notice::BFrames][..]));
    // I P B b: the B picture is referred to, which is another matter.
    for (dts, pts, referenced) in [(280, 440, true), (320, 360, true), (360, 320, false), (400, 400, true)] {
        coded(&mut w, dts, pts, referenced);
    }
    assert_eq!((told(&mut w), w.hub.notices(w.stream)), (1, &[Notice::ReferencedBFrames][..]));
    assert_eq!(w.hub.reordering(w.stream, TrackId::VIDEO), Reordering::Referenced);
    w.hub.publish(&key(), epoch(2), SourceId(2), at(0)).unwrap();
    assert_eq!(w.hub.notices(w.stream), []);
    assert_eq!(w.hub.reordering(w.stream, TrackId::VIDEO), Reordering::None);
}

#[test]
fn who_shows_pictures_as_they_come_gets_them_without_b_frames_and_in_order() {
    let mut w = World::video(&Limits::default());
    let (player, browser) = (w.join(ALL), w.join(BROWSER));
    for (dts, pts, referenced) in PLAIN {
        coded(&mut w, dts, pts, referenced);
    }
    assert_eq!(w.take(player, 99).len(), 1 + PLAIN.len());
    assert_eq!(w.take(browser, 99), [C(0, 1), K(0, 40), D(40, 160), D(160, 280)]);
    let stats = w.hub.subscriber_stats(browser).unwrap();
    assert_eq!((stats.dropped["b_frame"], stats.state), (4, SubscriberState::Live));
    assert_eq!(w.hub.stats(w.stream, at(w.now)).unwrap().not_delivered["b_frame"], 4);
    // A newcomer's cached group has the same pictures in the same order, where they are handed over: before what comes next.
    let late = w.join(BROWSER);
    let shown: Vec<i64> = w
        .take(late, 99)
        .iter()
        .filter_map(|i| match i {
            K(_, p) | D(_, p) => Some(*p),
            _ => None,
        })
        .collect();
    assert!(shown.len() == 3 && shown.is_sorted() && (280..400).contains(&shown[2]), "{shown:?}");
    w.hub.verify().unwrap();
}

#[test]
fn who_shows_pictures_as_they_come_gets_none_once_others_refer_to_b_frames() {
    let mut w = World::video(&Limits::default());
    let (player, browser) = (w.join(ALL), w.join(BROWSER));
    let pyramid = [
        (0, 80, true),
        (40, 240, true),
        (80, 160, true),
        (120, 120, false),
        (160, 200, false),
        (200, 280, true),
    ];
    for (dts, pts, referenced) in pyramid {
        coded(&mut w, dts, pts, referenced);
        w.take(browser, 99);
    }
    assert_eq!(w.take(player, 99).len(), 1 + pyramid.len());
    let stats = w.hub.subscriber_stats(browser).unwrap();
    assert_eq!(
        (stats.delivered.frames, stats.dropped["b_frame_referenced"]),
        (2, 4),
        "those before the first proof"
    );
    let late = w.join(BROWSER);
    assert_eq!(w.take(late, 99), []);
    // The publisher comes back without B-frames: the picture is there again, from its key frame on.
    w.hub.publish(&key(), epoch(2), SourceId(2), at(w.now)).unwrap();
    w.hub.ingest(w.stream, SourceId(2), config(TrackId::VIDEO, h264(2)), at(w.now));
    w.hub.ingest(w.stream, SourceId(2), frame(FrameKind::Key, 0, 0, 9), at(w.now));
    for viewer in [browser, late] {
        assert!(matches!(w.take(viewer, 99)[..], [C(0, 2), K(..)]));
    }
    w.hub.verify().unwrap();
}

/// Who comes before the order of the pictures is known is given some of them, and then what is made of the same ones.
#[test]
fn what_a_bridge_makes_of_a_picture_is_shown_after_all_that_was_given_before() {
    let mut w = World::video(&Limits::default());
    let browser = w.join(BROWSER);
    let shown = |w: &mut World| {
        let items = std::iter::from_fn(|| w.hub.next(browser, at(w.now)));
        let pictures = items.filter_map(|item| match item {
            Delivery::Frame { pts, .. } => Some(pts),
            Delivery::Config { .. } => None,
        });
        pictures.collect::<Vec<i64>>()
    };
    coded(&mut w, 0, 80, true);
    coded(&mut w, 40, 240, true);
    let mut all = shown(&mut w);
    assert_eq!(all.len(), 2, "{all:?}");
    coded(&mut w, 80, 160, true);
    coded(&mut w, 120, 120, false);
    let made = TrackId::VIDEO.derived(Codec::H264);
    w.hub.derive(w.stream, TrackId::VIDEO, h264(9));
    for (ms, header) in [(80, 0x65), (120, 0x41), (160, 0x41), (240, 0x41), (280, 0x41)] {
        let picture = Bytes::copy_from_slice(&[0, 0, 0, 2, header, 0x88]);
        w.hub.derived(w.stream, made, (ms + 1_000) * MS, picture, at(w.now));
    }
    all.extend(shown(&mut w));
    assert!(all.len() == 7 && all.is_sorted_by(|a, b| a < b), "{all:?}");
    assert_eq!(all[6], 1_280 * MS, "its own time again");
}

#[test]
fn what_a_bridge_makes_of_referenced_b_frames_goes_to_who_shows_pictures_as_they_come() {
    let mut w = World::video(&Limits::default());
    let (player, browser) = (w.join(ALL), w.join(BROWSER));
    for (dts, pts, referenced) in [(0, 80, true), (40, 240, true), (80, 160, true), (120, 120, false)] {
        coded(&mut w, dts, pts, referenced);
    }
    let made = TrackId::VIDEO.derived(Codec::H264);
    let bridge = w.hub.subscribe_bridge(w.stream, TrackId::VIDEO, Codec::H264, at(w.now)).unwrap();
    assert_eq!(w.take(bridge, 99).len(), 5, "it gets all of them");
    w.hub.derive(w.stream, TrackId::VIDEO, h264(9));
    let picture = |header: u8| Bytes::copy_from_slice(&[0, 0, 0, 2, header, 0x88]);
    // The stream's clock begins at a second.
    let give = |w: &mut World, ms: i64, header| {
        w.hub.derived(w.stream, made, (ms + 1_000) * MS, picture(header), at(w.now))
    };
    give(&mut w, 40, 0x41);
    give(&mut w, 80, 0x65);
    give(&mut w, 120, 0x41);
    let dropped = w.hub.stats(w.stream, at(w.now)).unwrap().dropped;
    assert_eq!(dropped.get("waiting_for_key"), Some(&1), "it begins with a key frame");
    assert_eq!(w.take(browser, 99), [C(0, 1), C(made.0, 1), K(80, 80), D(120, 120)]);
    assert_eq!(w.take(bridge, 99), [], "it is not fed with what it made");
    assert!(w.take(player, 99).iter().all(|i| !matches!(i, C(id, _) if *id == made.0)));
    let late = w.join(BROWSER);
    assert!(matches!(w.take(late, 99)[..], [C(id, 1), K(..), D(..)] if id == made.0));
    // It ends: what it made last is not given to newcomers.
    w.hub.derived_is_over(w.stream, made);
    let later = w.join(BROWSER);
    assert_eq!(w.take(later, 99), []);
    // Another publisher has no B-frames: its pictures go to all, and what the bridge still makes to nobody.
    w.hub.publish(&key(), epoch(2), SourceId(2), at(w.now)).unwrap();
    w.hub.ingest(w.stream, SourceId(2), config(TrackId::VIDEO, h264(2)), at(w.now));
    w.hub.ingest(w.stream, SourceId(2), frame(FrameKind::Key, 0, 0, 9), at(w.now));
    give(&mut w, 9_000, 0x65);
    assert!(matches!(w.take(later, 99)[..], [C(0, 2), K(..)]));
    assert_eq!(w.hub.stats(w.stream, at(w.now)).unwrap().dropped.get("derived_too_late"), Some(&1));
    w.hub.verify().unwrap();
}
