//! Who had the stream before goes on where it was, and a source that does is taken as the one before it.
use super::*;

/// The numbers of the frames that come, and of the last one.
fn numbers(w: &mut World, sub: SubscriberId) -> Vec<u64> {
    let mut all = Vec::new();
    while let Some(item) = w.hub.next(sub, at(w.now)) {
        if let Delivery::Frame { frame, dts, .. } = item {
            assert_eq!(dts, frame.media.dts, "at its own time");
            all.push(frame.seq);
        }
    }
    all
}

#[test]
fn it_begins_with_the_last_frame_that_it_had_though_a_key_frame_came_since() {
    let mut w = World::video(&Limits::default());
    w.put(config(TrackId::AUDIO, aac()));
    // The last key frame comes at 2,000 ms; what was had ends before it.
    w.play(1_900, 25, 1_000, true);
    let first = w.join(ALL);
    let had = *numbers_only(&mut w, first).last().unwrap();
    w.play(2_200, 25, 1_000, true);
    let again = w.join(ALL);
    w.hub.resume(again, epoch(1), had);
    let end = *numbers_only(&mut w, first).last().unwrap();
    assert_eq!(numbers(&mut w, again), (had..=end).collect::<Vec<_>>());
    w.hub.verify().unwrap();
}

#[test]
fn who_cannot_go_on_is_a_newcomer() {
    let mut w = World::video(&Limits::default());
    w.play(10_020, 25, 1_000, false);
    let newcomer = w.join(ALL);
    let plain = numbers_only(&mut w, newcomer);
    let last = *plain.last().unwrap();
    // Of another publisher, of none that was here, of one that is to come, and one from long ago.
    for (of, seq) in [(epoch(2), last), (epoch(1), last + 1), (epoch(1), u64::MAX), (epoch(1), last - 200)] {
        let again = w.join(ALL);
        w.hub.resume(again, of, seq);
        assert_eq!(numbers_only(&mut w, again), plain, "{of:?} {seq}");
    }
    w.hub.verify().unwrap();
}

/// As [`numbers`], of a newcomer, whose cached frames are squeezed.
fn numbers_only(w: &mut World, sub: SubscriberId) -> Vec<u64> {
    let items = std::iter::from_fn(|| w.hub.next(sub, at(w.now)));
    items.filter_map(|i| if let Delivery::Frame { frame, .. } = i { Some(frame.seq) } else { None }).collect()
}

/// A stream whose frames another node has counted, from 1 on: pictures of 25 a second, a key frame each second.
struct Pulled {
    w: World,
    source: u64,
    seq: u64,
}

impl Pulled {
    fn new() -> Pulled {
        Pulled { w: World::video(&Limits::default()), source: 1, seq: 0 }
    }

    /// The next frame, behind the one before it, or behind another.
    fn frame(&mut self, kind: FrameKind, after: Option<u64>) {
        self.seq += 1;
        let ms = 40 * self.seq as i64;
        let Ingest::Frame(f) = frame(kind, ms, ms, 100) else { unreachable!() };
        let relayed = Relayed { seq: self.seq, after };
        self.w.hub.relay(self.w.stream, SourceId(self.source), relayed, f, at(self.w.now));
    }

    fn plays(&mut self, n: u64) {
        for _ in 0..n {
            let (key, before) = (self.seq.is_multiple_of(25), self.seq);
            self.w.now += 40;
            let kind = if key { FrameKind::Key } else { FrameKind::Delta };
            self.frame(kind, (before > 0).then_some(before));
        }
    }

    /// The pull broke for so long, and the next one begins.
    fn again(&mut self, ms: u64, version: u8) {
        let Pulled { w, source, .. } = self;
        w.hub.unpublish(w.stream, SourceId(*source), at(w.now));
        w.now += ms;
        *source += 1;
        w.hub.publish(&key(), epoch(1), SourceId(*source), at(w.now)).unwrap();
        w.hub.ingest(w.stream, SourceId(*source), config(TrackId::VIDEO, h264(version)), at(w.now));
    }

    fn waited(&self) -> u64 {
        let stats = self.w.hub.stats(self.w.stream, at(self.w.now)).unwrap();
        stats.dropped.get("waiting_for_key").copied().unwrap_or(0)
    }
}

#[test]
fn the_frame_behind_the_last_one_waits_for_no_key_frame_and_keeps_its_time() {
    let mut p = Pulled::new();
    let viewer = p.w.join(ALL);
    p.plays(20);
    p.again(600, 1);
    // A pull that broke at once, in between.
    p.again(200, 1);
    // What came meanwhile, at once: among it a key frame.
    for _ in 0..20 {
        let before = p.seq;
        p.frame(if before == 25 { FrameKind::Key } else { FrameKind::Delta }, Some(before));
    }
    let mut seen = Vec::new();
    while let Some(item) = p.w.hub.next(viewer, at(p.w.now)) {
        if let Delivery::Frame { frame, dts, .. } = item {
            seen.push((frame.seq, (dts - 1_000 * MS) / MS));
        }
    }
    let all: Vec<_> = (1..=40).map(|n| (n, 40 * (n as i64 - 1))).collect();
    assert_eq!(seen, all);
    assert_eq!(p.waited(), 0);
    p.w.hub.verify().unwrap();
}

#[test]
fn any_other_frame_waits_for_a_key_frame() {
    // Nothing is said; another frame is; the parameters are others; what came before waited itself.
    let cases: [(Option<u64>, u8, bool); 4] =
        [(None, 1, false), (Some(19), 1, false), (Some(20), 2, false), (Some(21), 1, true)];
    for (after, version, waits) in cases {
        let mut p = Pulled::new();
        p.plays(20);
        if waits {
            p.again(100, 1);
            p.frame(FrameKind::Delta, None);
        }
        p.again(500, version);
        p.frame(FrameKind::Delta, after);
        // One more, right behind that one.
        let before = p.seq;
        p.frame(FrameKind::Delta, Some(before));
        assert_eq!(p.waited(), 2 + u64::from(waits), "{after:?} {version}");
        p.frame(FrameKind::Key, None);
        assert_eq!(p.waited(), 2 + u64::from(waits));
    }
}
