//! One stream: its source, its tracks, its clock and its ring.

use super::clock::{MIN_STEP, StreamClock, TrackClock};
use super::event::Notice;
use super::pace::Drained;
use super::rendition::Choice;
use super::ring::Ring;
use super::stats::{Count, Drops, Rate, StreamState, StreamStats, Tally, TrackStats};
use super::{Relayed, SourceId, SubscriberId};
use crate::error::Reason;
use crate::guard::must;
use crate::ids::Epoch;
use crate::limits::Limits;
use crate::media::frame::{Frame, FrameKind, Ingest, NewFrame, Renderings, Rotation};
use crate::media::key::StreamKey;
use crate::media::picture_order::{OrderWatch, Reordering};
use crate::media::track::{Codec, CodecConfig, CodecParams, CodecSet, Origin, TrackId};
use crate::time::Time;
use crate::wire::h264::{NalType, length_prefixed};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Tracks are kept in bit sets.
const MOST_TRACKS: usize = 64;

/// One track of a stream. Tracks stay when the source changes.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) id: TrackId,
    /// The present source said what it is. Frames before that are dropped.
    pub(super) active: bool,
    /// The newest configuration.
    pub(super) config: Option<Arc<CodecConfig>>,
    /// The configuration of the newest frame.
    pub(super) used: Option<Arc<CodecConfig>>,
    /// The newest key frame's number, in the ring or gone from it.
    pub(super) last_key: Option<u64>,
    /// How many frames there were.
    pub(super) count: u64,
    pub(super) clock: TrackClock,
    pub(super) output: Count,
    input: Count,
    /// Deltas are dropped until a key frame comes: their references are not there.
    needs_key: bool,
    /// The newest frame of its source: epoch, and number.
    newest: Option<(Epoch, u64)>,
    /// What the source before had come to, while the present one may yet go on from there.
    former: Option<Box<Former>>,
    /// In which order its pictures are shown.
    order: OrderWatch,
    /// The track and the codec that a bridge of this node made it of.
    pub(super) derived: Option<(TrackId, Codec)>,
    /// When its latest frame came.
    pub(super) heard: Time,
    rate: Rate,
    /// When its first frame came.
    since: Time,
}

impl Track {
    fn codec(&self) -> Option<Codec> {
        self.config.as_ref().map(|c| c.params.codec())
    }

    /// Whether a subscriber can decode the track while it is coded so, and is not given a better one. What was derived is for
    /// those who cannot play what it was made of.
    pub(super) fn coded_for(&self, codec: Codec, accepts: CodecSet) -> bool {
        accepts.has(codec)
            && match self.derived {
                None => true,
                // Pictures that are made of the same codec are for those who show pictures as they come, while they are made.
                Some((_, of)) if of == codec => self.active && !accepts.has_reordered(),
                Some((_, of)) => !accepts.has(of),
            }
    }

    /// Whether a subscriber wants the track while it is coded so: it can decode it, and would see it undamaged.
    pub(super) fn wanted(&self, codec: Codec, accepts: CodecSet) -> bool {
        let damaged = self.derived.is_none() && self.reordering() == Reordering::Referenced;
        self.coded_for(codec, accepts) && (accepts.has_reordered() || !damaged)
    }

    pub(super) fn reordering(&self) -> Reordering {
        self.order.found()
    }

    /// A frame of so many bytes came.
    fn came(&mut self, bytes: usize, now: Time) {
        if self.count == 0 {
            self.since = now;
        }
        self.count += 1;
        self.heard = now;
        self.input.add(bytes);
        self.rate.add(bytes, now);
    }

    /// What it brings on average, bits a second.
    pub(super) fn usual(&self) -> u64 {
        let ms = (self.heard.since(self.since).as_millis() as u64).max(1_000);
        self.input.bytes.saturating_mul(8_000) / ms
    }

    /// What it brings now, bits a second.
    pub(super) fn bits_per_s(&self, now: Time) -> u64 {
        self.rate.bits_per_s(now)
    }

    pub(super) fn is_video(&self) -> bool {
        self.config.as_ref().is_some_and(|c| c.params.codec().is_video())
    }
}

/// Where a track was when its source went. Another pull of the same publisher's stream may hand on the very next frame: then
/// all that was known still holds.
#[derive(Debug)]
struct Former {
    /// The last frame: epoch, and number.
    newest: (Epoch, u64),
    order: OrderWatch,
    clock: TrackClock,
}

/// What became of an item that a source handed in.
#[derive(Debug)]
pub(super) struct Taken {
    /// A frame went into the ring.
    pub(super) frame: bool,
    /// What it is.
    pub(super) kind: FrameKind,
    /// A key frame of this track went into the ring.
    pub(super) key: Option<TrackId>,
    /// Only a key frame helps this track on.
    pub(super) wants_key: Option<TrackId>,
    pub(super) notice: Option<Notice>,
    /// A track of pictures went over to this codec.
    pub(super) other_codec: Option<Codec>,
}

impl Default for Taken {
    fn default() -> Taken {
        Taken {
            frame: false,
            kind: FrameKind::Data,
            key: None,
            wants_key: None,
            notice: None,
            other_codec: None,
        }
    }
}

/// Paces the requests for key frames.
#[derive(Debug, Default)]
pub(super) struct KeyRequests {
    pub(super) last: Option<Time>,
    pub(super) pending: bool,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) key: StreamKey,
    pub(super) epoch: Epoch,
    pub(super) source: Option<SourceId>,
    /// When the source was last heard.
    pub(super) heard: Time,
    pub(super) tracks: Vec<Track>,
    pub(super) ring: Ring,
    pub(super) subscribers: BTreeSet<SubscriberId>,
    /// How many subscribers take which codecs, bridges left out.
    pub(super) audiences: BTreeMap<CodecSet, usize>,
    /// Subscribers that have taken everything and are to be told of the next frame.
    pub(super) drained: Drained,
    /// How many subscribers are in step behind others.
    pub(super) in_step: usize,
    /// By track where there are several of pictures.
    pub(super) key_requests: BTreeMap<Option<TrackId>, KeyRequests>,
    /// There are several tracks of pictures, or of sound.
    pub(super) grouped: bool,
    pub(super) notices: Vec<Notice>,
    pub(super) not_delivered: Tally,
    clock: StreamClock,
    offered: u64,
    dropped: Drops,
    corrected: Drops,
    rate: Rate,
}

impl Stream {
    pub(super) fn new(key: StreamKey, limits: &Limits) -> Stream {
        Stream {
            ring: Ring::new(&key, limits),
            key,
            epoch: Epoch::default(),
            source: None,
            heard: Time::ZERO,
            tracks: Vec::new(),
            subscribers: BTreeSet::new(),
            audiences: BTreeMap::new(),
            drained: Drained::default(),
            in_step: 0,
            key_requests: BTreeMap::new(),
            grouped: false,
            notices: Vec::new(),
            not_delivered: Tally::default(),
            clock: StreamClock::default(),
            offered: 0,
            dropped: Drops::new(),
            corrected: Drops::new(),
            rate: Rate::default(),
        }
    }

    /// What comes in now, bits a second; 0: not known.
    pub(super) fn bits_per_s(&self, now: Time) -> u64 {
        self.rate.bits_per_s(now)
    }

    /// Another source takes over: the clock goes on, tracks wait for their configuration, pictures for a key frame, or for
    /// the frame behind the last one (see [`Relayed::after`]).
    pub(super) fn take_over(&mut self, epoch: Epoch, source: SourceId, now: Time) {
        self.epoch = epoch;
        self.source = Some(source);
        self.heard = now;
        self.clock.forget_source();
        for t in &mut self.tracks {
            t.active = false;
            let order = std::mem::take(&mut t.order);
            // Of a source that brought nothing of the track the one before it still counts.
            let whole = t.config.is_some() && !(t.needs_key && t.is_video());
            if t.former.is_none()
                && let Some(newest) = t.newest.filter(|_| whole)
            {
                t.former = Some(Box::new(Former { newest, order, clock: t.clock.clone() }));
            }
            t.needs_key = true;
            t.clock.forget_source();
        }
        self.notices.clear();
        self.key_requests.values_mut().for_each(|k| k.pending = false);
    }

    /// `relayed` is the frame's place in the stream where another node has given it one.
    pub(super) fn take(
        &mut self,
        source: SourceId,
        item: Ingest,
        relayed: Option<Relayed>,
        now: Time,
        limits: &Limits,
    ) -> Taken {
        let current = self.source == Some(source);
        match item {
            Ingest::Config { track, params } => {
                if !current {
                    return Taken::default();
                }
                self.heard = now;
                let codec = params.codec();
                let before = self.tracks.iter().find(|t| t.id == track).and_then(Track::codec);
                self.configure(track, params, limits);
                let other_codec =
                    before.filter(|b| b.is_video() && *b != codec && codec.is_video()).map(|_| codec);
                Taken { other_codec, ..Taken::default() }
            }
            Ingest::Frame(frame) => {
                self.offered += 1;
                if !current {
                    return self.refuse("displaced_source", None);
                }
                self.heard = now;
                self.frame(frame, relayed, now, limits)
            }
        }
    }

    fn refuse(&mut self, reason: &'static str, wants_key: Option<TrackId>) -> Taken {
        *self.dropped.entry(reason).or_default() += 1;
        Taken { wants_key, ..Taken::default() }
    }

    fn slot(&mut self, id: TrackId, limits: &Limits) -> Option<usize> {
        if let Some(slot) = self.tracks.iter().position(|t| t.id == id) {
            return Some(slot);
        }
        if self.tracks.len() >= limits.stream_tracks.min(MOST_TRACKS) {
            return None;
        }
        self.tracks.push(Track {
            id,
            active: false,
            config: None,
            used: None,
            last_key: None,
            count: 0,
            clock: TrackClock::default(),
            output: Count::default(),
            input: Count::default(),
            needs_key: true,
            newest: None,
            former: None,
            order: OrderWatch::default(),
            derived: None,
            heard: Time::ZERO,
            rate: Rate::default(),
            since: Time::ZERO,
        });
        Some(self.tracks.len() - 1)
    }

    fn configure(&mut self, id: TrackId, params: CodecParams, limits: &Limits) {
        let Some(track) = self.slot(id, limits).and_then(|s| self.tracks.get_mut(s)) else {
            *self.corrected.entry("config_of_too_many_tracks").or_default() += 1;
            return;
        };
        if params_bytes(&params) > limits.frame_bytes as u64 {
            // What follows cannot be decoded with what was known before.
            track.active = false;
            (track.needs_key, track.former) = (true, None);
            *self.corrected.entry("config_too_large").or_default() += 1;
            return;
        }
        let changed = track.config.as_ref().is_none_or(|c| c.params != params);
        // Another source may announce what the one before did.
        if changed || !track.active {
            track.order.configure(&params);
        }
        track.active = true;
        if changed {
            let version = track.config.as_ref().map_or(0, |c| c.version).saturating_add(1);
            track.config = Some(Arc::new(CodecConfig { version, params, origin: Origin::Ingest }));
            (track.needs_key, track.former) = (true, None);
        }
        let published = |video: bool| {
            let all = self.tracks.iter().filter(|t| t.derived.is_none() && t.config.is_some());
            all.filter(|t| t.is_video() == video).count()
        };
        self.grouped = published(true) > 1 || published(false) > 1;
    }

    /// A bridge says what it makes out of the track `from`.
    pub(super) fn derive(&mut self, from: TrackId, params: CodecParams, limits: &Limits) {
        let of = self.tracks.iter().find(|t| t.id == from && t.active);
        let Some(of) = of.and_then(|t| Some(t.config.as_ref()?.params.codec())) else { return };
        let id = from.derived(params.codec());
        let Some(track) = self.slot(id, limits).and_then(|s| self.tracks.get_mut(s)) else {
            *self.corrected.entry("config_of_too_many_tracks").or_default() += 1;
            return;
        };
        track.active = true;
        track.derived = Some((from, of));
        if track.config.as_ref().is_none_or(|c| c.params != params) {
            let version = track.config.as_ref().map_or(0, |c| c.version).saturating_add(1);
            track.config = Some(Arc::new(CodecConfig { version, params, origin: Origin::Derived { from } }));
        }
    }

    /// What a bridge made goes on no more.
    pub(super) fn derived_is_over(&mut self, id: TrackId) {
        if let Some(track) = self.tracks.iter_mut().find(|t| t.id == id && t.derived.is_some()) {
            track.active = false;
            track.needs_key = true;
        }
    }

    /// Takes a packet or picture that a bridge made; its time is on the stream's clock already.
    pub(super) fn derived(
        &mut self,
        id: TrackId,
        pts: i64,
        payload: Bytes,
        now: Time,
        limits: &Limits,
    ) -> Taken {
        self.offered += 1;
        let Some(slot) = self.tracks.iter().position(|t| t.id == id) else {
            return self.refuse("no_config", None);
        };
        let source = self.tracks.get(slot).and_then(|t| t.derived);
        // What it was made of may have ended, or become something else, while the bridge worked.
        let goes_on = source.is_some_and(|(from, of)| {
            let is = |t: &&Track| t.id == from && t.active;
            let source = self.tracks.iter().find(is).and_then(|t| t.config.as_ref());
            let same = source.is_some_and(|c| c.params.codec() == of);
            let made = self.tracks.get(slot).and_then(Track::codec);
            same && (made != Some(of) || self.reordering_of(from) == Reordering::Referenced)
        });
        let Some(track) = self.tracks.get_mut(slot) else { return self.refuse("no_config", None) };
        let config = track.config.clone().filter(|_| goes_on);
        if config.is_none() {
            return self.refuse("derived_too_late", None);
        }
        if track.clock.last.is_some_and(|last| pts <= last) {
            return self.refuse("derived_not_rising", None);
        }
        let video = config.as_ref().is_some_and(|c| c.params.codec().is_video());
        let idr = |nal| NalType::of(nal) == NalType::IDR;
        let kind = match video {
            false => FrameKind::Audio,
            true if length_prefixed(&payload, 4).map_while(Result::ok).any(idr) => FrameKind::Key,
            true => FrameKind::Delta,
        };
        if payload.is_empty() || payload.len() > limits.frame_bytes {
            track.needs_key |= video;
            return self.refuse("frame_too_large", video.then_some(id));
        }
        match kind {
            FrameKind::Delta if track.needs_key => return self.refuse("waiting_for_key", Some(id)),
            FrameKind::Key => {
                track.needs_key = false;
                track.last_key = Some(self.ring.end());
            }
            _ => {}
        }
        track.active = true;
        track.clock.last = Some(pts);
        let nth = track.count;
        track.came(payload.len(), now);
        track.used.clone_from(&config);
        let place = self.ring.end();
        let media = NewFrame {
            track: id,
            dts: pts,
            pts,
            kind,
            discardable: false,
            temporal_layer: 0,
            rotation: Rotation::default(),
            capture: None,
            payload,
        };
        let frame = Frame {
            seq: place.checked_sub(1).and_then(|p| self.ring.get(p)).map_or(0, |e| e.frame.seq),
            epoch: self.epoch,
            config_version: config.as_ref().map_or(0, |c| c.version),
            media,
            renderings: Renderings::default(),
        };
        self.ring.push(frame, config, (slot, nth, Reordering::None), self.clock.edge(), 0);
        Taken { frame: true, kind, ..Taken::default() }
    }

    /// The track that the source sends, of which this one may be made.
    pub(super) fn source_of(&self, id: TrackId) -> TrackId {
        let derived = self.tracks.iter().find(|t| t.id == id).and_then(|t| t.derived);
        derived.map_or(id, |(from, _)| from)
    }

    pub(super) fn reordering_of(&self, id: TrackId) -> Reordering {
        self.tracks.iter().find(|t| t.id == id).map_or(Reordering::None, Track::reordering)
    }

    pub(super) fn note(&mut self, notice: Notice) -> Option<Notice> {
        if self.notices.contains(&notice) {
            return None;
        }
        self.notices.push(notice);
        Some(notice)
    }

    fn frame(&mut self, mut media: NewFrame, relayed: Option<Relayed>, now: Time, limits: &Limits) -> Taken {
        let is_data = media.kind == FrameKind::Data;
        let is_video = media.is_video();
        let id = media.track;
        let Some(slot) = self.slot(media.track, limits) else { return self.refuse("too_many_tracks", None) };
        let Some(track) = self.tracks.get_mut(slot) else { return self.refuse("too_many_tracks", None) };
        let config = if is_data { None } else { track.config.clone().filter(|_| track.active) };
        match &config {
            None if !is_data => return self.refuse("no_config", None),
            Some(c) if c.params.codec().is_video() != is_video => return self.refuse("wrong_kind", None),
            _ => {}
        }
        if media.payload.is_empty() {
            return self.refuse("empty_frame", None);
        }
        let extra = match &config {
            Some(c) if track.used.as_ref().is_none_or(|u| u.version != c.version) => params_bytes(&c.params),
            _ => 0,
        };
        if media.payload.len() > limits.frame_bytes
            || media.payload.len() as u64 + extra > limits.ring_bytes_least()
        {
            // What refers to this picture cannot be decoded.
            let breaks = is_video && !media.discardable;
            if breaks {
                (track.needs_key, track.former) = (true, None);
            }
            return self.refuse("frame_too_large", breaks.then_some(id));
        }
        let former = track.former.take();
        let after = relayed.and_then(|r| r.after).map(|after| (self.epoch, after));
        match former.filter(|f| after == Some(f.newest)) {
            Some(former) => {
                track.needs_key = false;
                track.order = former.order;
                self.clock.goes_on(&mut track.clock, &former.clock, media.dts, now);
            }
            None if media.kind == FrameKind::Delta && track.needs_key => {
                return self.refuse("waiting_for_key", Some(id));
            }
            None if media.kind == FrameKind::Key => track.needs_key = false,
            None => {}
        }
        let min_step = if is_data { 0 } else { MIN_STEP };
        let placed = self.clock.place(&mut track.clock, (media.dts, media.pts), min_step, now, limits);
        if let Some(why) = placed.corrected {
            *self.corrected.entry(why).or_default() += 1;
        }
        (media.dts, media.pts) = (placed.dts, placed.pts);
        let place = self.ring.end();
        let nth = track.count;
        track.came(media.payload.len(), now);
        let kind = media.kind;
        let key = kind == FrameKind::Key;
        if key {
            track.last_key = Some(place);
        }
        if config.is_some() {
            track.used.clone_from(&config);
        }
        let seq = relayed.map_or(place, |r| r.seq);
        track.newest = Some((self.epoch, seq));
        self.rate.add(media.payload.len(), now);
        let seen = track.order.observe(&media);
        let frame = Frame {
            seq,
            epoch: self.epoch,
            config_version: config.as_ref().map_or(0, |c| c.version),
            media,
            renderings: Renderings::default(),
        };
        self.ring.push(frame, config, (slot, nth, seen.late), self.clock.edge(), extra);
        let notice = match seen.news {
            Some(Reordering::Unreferenced) => self.note(Notice::BFrames),
            Some(Reordering::Referenced) => {
                self.notices.retain(|n| *n != Notice::BFrames);
                self.note(Notice::ReferencedBFrames)
            }
            Some(Reordering::None) | None => None,
        };
        Taken { frame: true, kind, key: key.then_some(id), notice, ..Taken::default() }
    }

    /// S6, asserted after each frame: the ring kept its limits.
    pub(super) fn within_limits(&self, limits: &Limits) -> Result<(), Reason> {
        let (frames, bytes) = (self.ring.len(), self.ring.bytes());
        let fits = frames <= limits.ring_frames.max(1) && (bytes <= limits.ring_bytes as u64 || frames == 1);
        must(limits.simulation, fits, "S6", || {
            format!(
                "{}: {frames} frames of {bytes} bytes in the ring, which holds {} and {} at most",
                self.key, limits.ring_frames, limits.ring_bytes
            )
        })
    }

    /// The codecs of the present source's pictures.
    pub(super) fn pictures(&self) -> impl Iterator<Item = Codec> {
        self.tracks.iter().filter(|t| t.active).filter_map(Track::codec).filter(|c| c.is_video())
    }

    /// The number at which a newcomer starts: the latest key frame of the picture tracks that it is given (the oldest
    /// of them where there are several), or the live edge where there is none.
    pub(super) fn start_for(&self, accepts: CodecSet, choice: &Choice) -> u64 {
        let given = self.tracks.iter().enumerate().filter(|(slot, t)| {
            t.used.as_ref().is_some_and(|c| t.wanted(c.params.codec(), accepts))
                && choice.plays(self, *slot, accepts)
        });
        given
            .filter_map(|(_, t)| t.last_key)
            .filter(|k| *k >= self.ring.first())
            .min()
            .unwrap_or(self.ring.end())
    }

    /// Frames that sources handed in, that were dropped, and that were kept.
    pub(super) fn balance(&self) -> (u64, u64, u64) {
        let kept = self.tracks.iter().map(|t| t.input.frames).sum();
        (self.offered, self.dropped.values().sum(), kept)
    }

    pub(super) fn stats(&self, now: Time) -> StreamStats {
        StreamStats {
            state: if self.source.is_some() { StreamState::Live } else { StreamState::Held },
            source: self.source,
            epoch: self.epoch,
            tracks: self.tracks.iter().map(|t| track_stats(t, now)).collect(),
            offered: self.offered,
            dropped: self.dropped.clone(),
            corrected: self.corrected.clone(),
            not_delivered: self.not_delivered.by_name(),
            ring_frames: self.ring.len() as u64,
            ring_bytes: self.ring.bytes(),
            ring_ms: u64::try_from(self.ring.span() / 1_000_000).unwrap_or(0),
            ring_evicted: self.ring.first(),
            waiting: 0,
            live: 0,
            lagging: 0,
            bits_per_s: self.rate.bits_per_s(now),
            notices: self.notices.clone(),
        }
    }
}

fn track_stats(t: &Track, now: Time) -> TrackStats {
    TrackStats {
        track: t.id,
        derived: t.derived.map(|(from, _)| from),
        codec: t.config.as_ref().map(|c| c.params.codec()),
        size: t.config.as_ref().and_then(|c| c.params.size()),
        input: t.input,
        output: t.output,
        bits_per_s: if t.active { t.bits_per_s(now) } else { 0 },
    }
}

/// What parameters take up, roughly: a peer chooses both the number of sets and their sizes.
fn params_bytes(params: &CodecParams) -> u64 {
    const HANDLE: u64 = std::mem::size_of::<Bytes>() as u64;
    let sum =
        |sets: &[&Vec<Bytes>]| sets.iter().flat_map(|s| s.iter()).map(|b| b.len() as u64 + HANDLE).sum();
    match params {
        CodecParams::H264 { sps, pps, .. } => sum(&[sps, pps]),
        CodecParams::H265 { vps, sps, pps, .. } => sum(&[vps, sps, pps]),
        CodecParams::Aac { asc: bytes, .. } | CodecParams::Av1 { sequence_header: bytes, .. } => {
            bytes.len() as u64
        }
        CodecParams::Vp8 { .. }
        | CodecParams::Vp9 { .. }
        | CodecParams::Opus { .. }
        | CodecParams::Mp3 { .. }
        | CodecParams::Pcma { .. }
        | CodecParams::Pcmu { .. } => 0,
    }
}
