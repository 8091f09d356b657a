//! Any sequence of operations on the hub: every frame is accounted for, and no delta comes without its reference.
//! Three bytes are one operation.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use proto_core::cluster::Epoch;
use proto_core::hub::delivery::Delivery;
use proto_core::hub::{CodecSet, Hub, HubEvent, SourceId, StreamId, SubscriberId};
use proto_core::limits::Limits;
use proto_core::media::frame::{FrameKind, Ingest, NewFrame, Rotation};
use proto_core::media::key::StreamKey;
use proto_core::media::track::{Codec, CodecParams, TrackId};
use proto_core::time::Time;

struct World {
    hub: Hub,
    now: Time,
    key: StreamKey,
    stream: Option<StreamId>,
    source: u64,
    clock: i64,
    pictures: u64,
    viewers: Vec<(SubscriberId, Option<(u64, u64)>)>,
}

impl World {
    fn publish(&mut self, count: u64) {
        self.source += 1;
        let epoch = Epoch { term: 0, count };
        if let Ok(stream) = self.hub.publish(&self.key, epoch, SourceId(self.source), self.now) {
            self.stream = Some(stream);
            self.config(TrackId::VIDEO, 1);
            self.config(TrackId::AUDIO, 1);
        } else {
            self.source -= 1;
        }
    }

    fn config(&mut self, track: TrackId, version: u8) {
        let params = if track == TrackId::AUDIO {
            CodecParams::Opus { channels: version }
        } else {
            let sps = vec![Bytes::copy_from_slice(&[0x67, version])];
            CodecParams::H264 { sps, pps: Vec::new(), size: None, reorders: false }
        };
        self.ingest(Ingest::Config { track, params });
    }

    fn ingest(&mut self, item: Ingest) {
        if let Some(s) = self.stream {
            self.hub.ingest(s, SourceId(self.source), item, self.now);
        }
    }

    fn frame(&mut self, kind: FrameKind, step: i64, extra: usize) {
        self.clock = self.clock.wrapping_add(step);
        let track = match kind {
            FrameKind::Audio => TrackId::AUDIO,
            FrameKind::Data => TrackId::DATA,
            FrameKind::Key | FrameKind::Delta => TrackId::VIDEO,
        };
        self.pictures += u64::from(track == TrackId::VIDEO);
        let mut payload = [self.source.to_be_bytes(), self.pictures.to_be_bytes()].concat();
        payload.resize(16 + extra, 0);
        self.ingest(Ingest::Frame(NewFrame {
            track,
            dts: self.clock,
            pts: self.clock,
            kind,
            discardable: false,
            temporal_layer: 0,
            rotation: Rotation::R0,
            capture: None,
            payload: payload.into(),
        }));
    }

    fn pull(&mut self, index: usize, most: u8) {
        let Some((id, picture)) = self.viewers.get_mut(index) else { return };
        for _ in 0..most {
            let Some(item) = self.hub.next(*id, self.now) else { break };
            if let Delivery::Frame { frame, .. } = item
                && frame.is_video()
            {
                let word =
                    |at: usize| u64::from_be_bytes(frame.media.payload[at..at + 8].try_into().unwrap());
                let me = (word(0), word(8));
                assert!(frame.media.kind == FrameKind::Key || *picture == Some((me.0, me.1 - 1)));
                *picture = Some(me);
            }
        }
    }

    fn check(&mut self) {
        while let Some(event) = self.hub.poll_event() {
            match event {
                HubEvent::Evict(id, _) => self.viewers.retain(|v| v.0 != id),
                HubEvent::Ended { .. } => self.stream = None,
                _ => {}
            }
        }
        if let Some(s) = self.stream.and_then(|s| self.hub.stats(s, self.now)) {
            let input: u64 = s.tracks.iter().map(|t| t.input.frames).sum();
            assert_eq!(s.offered, input + s.dropped.values().sum::<u64>());
            assert_eq!(input, s.ring_evicted + s.ring_frames);
        }
        for (id, _) in &self.viewers {
            let v = self.hub.subscriber_stats(*id).expect("a viewer that was not evicted is there");
            assert_eq!(v.offered, v.delivered.frames + v.dropped.values().sum::<u64>() + v.pending);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let limits = Limits { ring_frames: 20, ring_bytes: 2_000, frame_bytes: 300, ..Limits::default() };
    let mut w = World {
        hub: Hub::new(&limits),
        now: Time::ZERO,
        key: StreamKey::parse("live/fuzz").expect("a valid name"),
        stream: None,
        source: 0,
        clock: 0,
        pictures: 0,
        viewers: Vec::new(),
    };
    w.publish(0);
    for op in data.as_chunks::<3>().0.iter().take(2_000) {
        let [what, a, b] = *op;
        let viewer = usize::from(a) % w.viewers.len().max(1);
        match what % 12 {
            0 => w.frame(FrameKind::Key, i64::from(a) << (b % 48), usize::from(b)),
            1 | 2 => w.frame(FrameKind::Delta, i64::from(a) * 1_000_000, usize::from(b) * 2),
            3 => w.frame(FrameKind::Audio, -(i64::from(a) << (b % 48)), usize::from(b)),
            4 => w.config(TrackId(a % 9), b),
            5 => w.publish(u64::from(a % 4)),
            6 => {
                if let Some(s) = w.stream {
                    w.hub.unpublish(s, SourceId(w.source), w.now);
                }
            }
            7 if w.viewers.len() < 4 => {
                let set =
                    if a % 2 == 0 { CodecSet::ALL } else { CodecSet::NONE.with(Codec::H264).in_order() };
                if let Some(Ok(id)) = w.stream.map(|s| w.hub.subscribe(s, set, w.now)) {
                    w.viewers.push((id, None));
                }
            }
            7 => {
                let (id, _) = w.viewers.remove(viewer);
                w.hub.unsubscribe(id);
            }
            8 | 9 => w.pull(viewer, b),
            10 => {
                if let Some((id, _)) = w.viewers.get(viewer) {
                    w.hub.blocked(*id, w.now);
                    w.hub.progress(*id, usize::from(b), w.now);
                }
            }
            _ => {
                w.now += std::time::Duration::from_millis(u64::from(a) * u64::from(b));
                w.hub.tick(w.now);
            }
        }
        w.check();
    }
});
