//! Random operations against the hub, with checks from outside: what a publisher put into a payload tells what a
//! picture refers to, so the checks do not trust the hub's own bookkeeping.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Op {
    Frame {
        kind: FrameKind,
        step_ms: i64,
        ahead_ms: i64,
        bytes: usize,
        free: bool,
    },
    Config {
        audio: bool,
        version: u8,
    },
    Publish {
        source: u64,
        epoch: u64,
    },
    /// Another pull goes on with the same publisher's stream, behind so many frames that were lost.
    GoOn {
        lost: u8,
    },
    Unpublish,
    Join {
        accepts: u8,
    },
    Leave(usize),
    Pull(usize, usize),
    Block(usize),
    Progress(usize),
    Ask,
    Wait(u64),
}

fn kinds() -> impl Strategy<Value = FrameKind> {
    prop_oneof![
        2 => Just(FrameKind::Key),
        10 => Just(FrameKind::Delta),
        8 => Just(FrameKind::Audio),
        1 => Just(FrameKind::Data),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let step = prop_oneof![8 => Just(40i64), 1 => Just(0), 1 => -30..30i64, 1 => -20_000..20_000i64, 1 => any::<i64>()];
    let bytes = prop_oneof![9 => 16..200usize, 1 => 900..1_200usize];
    let op = prop_oneof![
        30 => (kinds(), step, 0..90i64, bytes, prop::bool::weighted(0.8))
            .prop_map(|(kind, step_ms, ahead_ms, bytes, free)| Op::Frame { kind, step_ms, ahead_ms, bytes, free }),
        1 => (any::<bool>(), 0..3u8).prop_map(|(audio, version)| Op::Config { audio, version }),
        1 => (1..4u64, 0..3u64).prop_map(|(source, epoch)| Op::Publish { source, epoch }),
        2 => prop_oneof![2 => Just(0u8), 1 => 1..3u8].prop_map(|lost| Op::GoOn { lost }),
        1 => Just(Op::Unpublish),
        2 => (0..5u8).prop_map(|accepts| Op::Join { accepts }),
        1 => (0..8usize).prop_map(Op::Leave),
        10 => (0..8usize, 1..30usize).prop_map(|(v, n)| Op::Pull(v, n)),
        2 => (0..8usize).prop_map(Op::Block),
        2 => (0..8usize).prop_map(Op::Progress),
        1 => Just(Op::Ask),
        6 => prop_oneof![Just(40), 1..400u64, Just(2_000u64)].prop_map(Op::Wait),
    ];
    prop::collection::vec(op, 1..400)
}

fn limits() -> Limits {
    Limits {
        ring_frames: 40,
        ring_bytes: 4_000,
        ring_ms: 2_000,
        frame_bytes: 1_000,
        viewer_queue_bytes: 1_500,
        viewer_queue_ms: 600,
        viewer_newcomer_ms: 500,
        viewer_stuck_ms: 1_500,
        viewer_starved_ms: 3_000,
        stream_hold_ms: 3_000,
        stream_silent_ms: 1_000,
        stream_subscribers: 6,
        ..Limits::default()
    }
}

/// What one viewer saw.
#[derive(Default)]
struct Seen {
    frames: u64,
    last_seq: Option<u64>,
    dts: BTreeMap<TrackId, i64>,
    versions: BTreeMap<TrackId, u32>,
    /// (source, number) of the last picture that others may refer to.
    picture: Option<(u64, u64)>,
    /// When the last picture was shown.
    shown: Option<i64>,
    /// Whether it takes pictures in any order.
    any_order: bool,
    /// Frames offered when it joined, and frames that the stream had accepted by then.
    at_join: (u64, u64),
}

struct Model {
    hub: Hub,
    now: u64,
    stream: Option<StreamId>,
    source: u64,
    /// Who publishes, by whatever source, and under which epoch.
    publisher: u64,
    epoch: u64,
    /// The number of the next frame, and of each track's last one while nothing was lost behind it.
    seq: u64,
    after: BTreeMap<TrackId, u64>,
    clocks: BTreeMap<TrackId, i64>,
    /// Pictures that the present source made, whether the hub took them or not.
    pictures: u64,
    made: u64,
    viewers: Vec<(SubscriberId, Seen)>,
    delivered: u64,
    generations: u64,
    asked: Vec<u64>,
}

impl Model {
    fn publish(&mut self, source: u64, count: u64) {
        let key = key();
        // A session never returns: each source has a number of its own.
        self.generations += 1;
        let id = source + 10 * self.generations;
        if let Ok(stream) = self.hub.publish(&key, epoch(count), SourceId(id), at(self.now)) {
            if self.stream != Some(stream) {
                self.delivered = 0;
                self.made = 0;
            }
            self.stream = Some(stream);
            self.source = id;
            self.publisher = id;
            self.epoch = count;
            self.pictures = 0;
            self.after.clear();
            for (audio, version) in [(false, 1), (true, 1)] {
                self.config(audio, version);
            }
        }
    }

    fn go_on(&mut self, lost: u8) {
        self.generations += 1;
        let id = 10 * self.generations;
        let key = key();
        let Some(stream) = self.stream else { return };
        self.hub.unpublish(stream, SourceId(self.source), at(self.now));
        let known = self.hub.tracks(stream);
        if self.hub.publish(&key, epoch(self.epoch), SourceId(id), at(self.now)).is_err() {
            return;
        }
        self.source = id;
        for (track, known) in known {
            let item = config(track, known.params.clone());
            self.hub.ingest(stream, SourceId(id), item, at(self.now));
        }
        if lost > 0 {
            self.pictures += u64::from(lost);
            self.after.clear();
        }
    }

    fn config(&mut self, audio: bool, version: u8) {
        let Some(stream) = self.stream else { return };
        let item = if audio {
            let params = if version == 0 { aac() } else { CodecParams::Opus { channels: version } };
            config(TrackId::AUDIO, params)
        } else {
            config(TrackId::VIDEO, h264(version))
        };
        self.hub.ingest(stream, SourceId(self.source), item, at(self.now));
    }

    /// `free`: no picture refers to it, if it is one that others need not refer to.
    fn frame(&mut self, kind: FrameKind, (step_ms, ahead_ms): (i64, i64), bytes: usize, free: bool) {
        let Some(stream) = self.stream else { return };
        let Ingest::Frame(mut f) = frame(kind, 0, 0, 0) else { unreachable!() };
        let clock = self.clocks.entry(f.track).or_default();
        *clock = clock.wrapping_add(step_ms.wrapping_mul(MS));
        f.dts = *clock;
        f.pts = clock.wrapping_add(ahead_ms * MS);
        f.discardable = free && kind == FrameKind::Delta;
        if f.is_video() && !f.discardable {
            self.pictures += 1;
        }
        let mut payload = vec![0u8; bytes.max(16)];
        payload[..8].copy_from_slice(&self.publisher.to_be_bytes());
        payload[8..16].copy_from_slice(&self.pictures.to_be_bytes());
        f.payload = payload.into();
        self.made += 1;
        self.seq += 1;
        let relayed = Relayed { seq: self.seq, after: self.after.insert(f.track, self.seq) };
        self.hub.relay(stream, SourceId(self.source), relayed, f, at(self.now));
    }

    fn pull(&mut self, index: usize, most: usize) {
        let count = self.viewers.len();
        let Some((id, seen)) = self.viewers.get_mut(index % count.max(1)) else { return };
        for _ in 0..most {
            let Some(item) = self.hub.next(*id, at(self.now)) else { break };
            match item {
                Delivery::Config { track, config } => {
                    let old = seen.versions.insert(track, config.version);
                    assert_ne!(old, Some(config.version), "a configuration was repeated");
                }
                Delivery::Frame { frame, dts, pts, .. } => {
                    let m = &frame.media;
                    seen.frames += 1;
                    self.delivered += 1;
                    assert!(seen.last_seq.is_none_or(|s| s < frame.seq), "order");
                    seen.last_seq = Some(frame.seq);
                    let last = seen.dts.insert(m.track, dts);
                    // Who shows pictures as they come may be handed many in the same moment of its race: ticks of RTP apart.
                    let step = match m.kind {
                        FrameKind::Data => 0,
                        FrameKind::Key | FrameKind::Delta if !seen.any_order => MS / 20,
                        _ => MS,
                    };
                    assert!(last.is_none_or(|l| l + step <= dts), "dts {last:?} then {dts}");
                    assert!(pts >= dts, "pts {pts} before dts {dts}");
                    if m.kind != FrameKind::Data {
                        assert_eq!(seen.versions.get(&m.track), Some(&frame.config_version));
                    }
                    let word = |at: usize| u64::from_be_bytes(m.payload[at..at + 8].try_into().unwrap());
                    let me = (word(0), word(8));
                    match m.kind {
                        FrameKind::Key => seen.picture = Some(me),
                        FrameKind::Delta if m.discardable => {
                            assert_eq!(seen.picture, Some(me), "a picture without its reference");
                        }
                        FrameKind::Delta => {
                            assert_eq!(seen.picture, Some((me.0, me.1 - 1)), "a delta without its reference");
                            seen.picture = Some(me);
                        }
                        _ => {}
                    }
                    if frame.is_video() {
                        let back = m.kind == FrameKind::Delta && seen.shown.is_some_and(|shown| pts < shown);
                        assert!(seen.any_order || !back, "a picture of before");
                        seen.shown = Some(pts);
                    }
                }
            }
        }
    }

    fn viewer(&self, index: usize) -> Option<SubscriberId> {
        self.viewers.get(index % self.viewers.len().max(1)).map(|v| v.0)
    }

    fn accepted(&self) -> u64 {
        let stats = self.stream.and_then(|s| self.hub.stats(s, at(self.now)));
        stats.map_or(0, |s| s.tracks.iter().map(|t| t.input.frames).sum())
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Frame { kind, step_ms, ahead_ms, bytes, free } => {
                self.frame(kind, (step_ms, ahead_ms), bytes, free)
            }
            Op::Config { audio, version } => self.config(audio, version),
            Op::Publish { source, epoch } => self.publish(source, epoch),
            Op::GoOn { lost } => self.go_on(lost),
            Op::Unpublish => {
                if let Some(s) = self.stream {
                    self.hub.unpublish(s, SourceId(self.source), at(self.now));
                }
            }
            Op::Join { accepts } => {
                let h264 = CodecSet::NONE.with(Codec::H264).in_order();
                let set =
                    [ALL, BROWSER, CodecSet::NONE.with(Codec::Opus), h264, CodecSet::NONE.with(Codec::H264)];
                if let Some(s) = self.stream
                    && let Ok(id) = self.hub.subscribe(s, set[usize::from(accepts)], at(self.now))
                {
                    let any_order = set[usize::from(accepts)].has_reordered();
                    let offered = self.hub.subscriber_stats(id).unwrap().offered;
                    let seen = Seen { at_join: (offered, self.accepted()), any_order, ..Seen::default() };
                    self.viewers.push((id, seen));
                }
            }
            Op::Leave(v) => {
                if let Some(id) = self.viewer(v) {
                    self.hub.unsubscribe(id).unwrap();
                    self.viewers.retain(|(other, _)| *other != id);
                }
            }
            Op::Pull(v, n) => self.pull(v, n),
            Op::Block(v) => {
                if let Some(id) = self.viewer(v) {
                    self.hub.blocked(id, at(self.now));
                }
            }
            Op::Progress(v) => {
                if let Some(id) = self.viewer(v) {
                    self.hub.progress(id, 1, at(self.now));
                }
            }
            Op::Ask => {
                if let Some(s) = self.stream {
                    self.hub.request_key_frame(s, None, at(self.now));
                }
            }
            Op::Wait(ms) => {
                self.now += ms;
                // A tick that comes twice changes nothing.
                self.hub.tick(at(self.now));
                self.hub.tick(at(self.now));
            }
        }
        while let Some(event) = self.hub.poll_event() {
            match event {
                HubEvent::Evict(id, _) => self.viewers.retain(|(other, _)| *other != id),
                HubEvent::Ended { .. } => self.stream = None,
                HubEvent::KeyFrameWanted { .. } => self.asked.push(self.now),
                HubEvent::Ready(id) => assert!(self.viewers.iter().any(|(v, _)| *v == id)),
                _ => {}
            }
        }
        self.check();
    }

    fn check(&self) {
        let limits = limits();
        let Some(stream) = self.stream else {
            assert!(self.viewers.is_empty());
            return;
        };
        let s = self.hub.stats(stream, at(self.now)).unwrap();
        let input: u64 = s.tracks.iter().map(|t| t.input.frames).sum();
        let output: u64 = s.tracks.iter().map(|t| t.output.frames).sum();
        assert_eq!(s.offered, self.made);
        assert_eq!(s.offered, input + s.dropped.values().sum::<u64>());
        assert_eq!(input, s.ring_evicted + s.ring_frames);
        assert_eq!(output, self.delivered);
        assert!(s.ring_frames <= limits.ring_frames as u64 && s.ring_bytes <= limits.ring_bytes as u64);
        assert!(s.ring_ms <= limits.ring_ms || s.ring_frames == 1);
        assert_eq!(s.waiting + s.live + s.lagging, self.viewers.len());
        for (id, seen) in &self.viewers {
            let v = self.hub.subscriber_stats(*id).unwrap();
            assert_eq!(v.delivered.frames, seen.frames);
            assert_eq!(v.offered, v.delivered.frames + v.dropped.values().sum::<u64>() + v.pending);
            assert_eq!(v.offered - seen.at_join.0, input - seen.at_join.1);
        }
        assert!(self.asked.windows(3).all(|w| w[2] - w[0] >= 500 || w[0] == 0), "{:?}", self.asked);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_lost_uncounted_and_no_delta_comes_without_its_reference(ops in ops()) {
        let mut m = Model {
            hub: Hub::new(&limits()),
            now: 0,
            stream: None,
            source: 0,
            publisher: 0,
            epoch: 0,
            seq: 0,
            after: BTreeMap::new(),
            clocks: BTreeMap::new(),
            pictures: 0,
            made: 0,
            viewers: Vec::new(),
            delivered: 0,
            generations: 0,
            asked: Vec::new(),
        };
        m.publish(1, 0);
        for op in ops {
            m.step(op);
        }
        // Whoever leaves leaves nothing behind.
        for (id, _) in std::mem::take(&mut m.viewers) {
            m.hub.unsubscribe(id).unwrap();
        }
        if let Some(s) = m.stream {
            m.hub.end(s, Reason::local("test", "the test is over"), at(m.now));
        }
        prop_assert_eq!(m.hub.deadline(), None);
        prop_assert_eq!(m.hub.subscribers.len() + m.hub.streams.len() + m.hub.names.len(), 0);
    }
}
