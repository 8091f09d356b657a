//! The numbers of streams and subscribers. Nothing is dropped without a count (law 5).

use super::event::Notice;
use super::rendition::Shown;
use super::{SourceId, SubscriberState};
use crate::ids::Epoch;
use crate::media::track::{Codec, TrackId};
use std::collections::BTreeMap;

/// Frames and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Count {
    /// Frames.
    pub frames: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

impl Count {
    pub(super) fn add(&mut self, bytes: usize) {
        self.add_times(bytes, 1);
    }

    /// A frame for so many.
    pub(super) fn add_times(&mut self, bytes: usize, times: u64) {
        self.frames += times;
        self.bytes += bytes as u64 * times;
    }

    /// What came between two looks at a count.
    pub(super) fn add_since(&mut self, now: Count, then: Count) {
        self.frames += now.frames - then.frames;
        self.bytes += now.bytes - then.bytes;
    }
}

/// Frames by the reason why they were dropped.
pub type Drops = BTreeMap<&'static str, u64>;

/// Why a subscriber is not given a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum LeftOut {
    /// No picture of the track is decodable until a key frame comes.
    Waiting,
    /// The subscriber was too slow.
    Lagging,
    /// The ring went on before the subscriber came for the frame.
    Overrun,
    /// The subscriber cannot play it.
    NotWanted,
    /// The subscriber shows pictures as they come, and this one is shown before one that it has. No other refers to it.
    BFrame,
    /// As before, but others refer to such pictures: without them there is nothing to show.
    Referenced,
    /// Another rendition of what the subscriber is shown, or further sound.
    Other,
    /// The subscriber's link carries key frames and sound only.
    Thin,
    /// Sound or data of a newcomer's cached group, older than the squeezed pictures; by WebRTC also sound that comes late in its race.
    Cached,
    /// A picture of a newcomer's cached group that a newer key frame made useless.
    Superseded,
}

impl LeftOut {
    const ALL: [LeftOut; 10] = [
        LeftOut::Waiting,
        LeftOut::Lagging,
        LeftOut::Overrun,
        LeftOut::NotWanted,
        LeftOut::BFrame,
        LeftOut::Referenced,
        LeftOut::Other,
        LeftOut::Thin,
        LeftOut::Cached,
        LeftOut::Superseded,
    ];

    /// As statistics call it.
    const fn name(self) -> &'static str {
        match self {
            LeftOut::Waiting => "waiting_for_key",
            LeftOut::Lagging => "lagging",
            LeftOut::Overrun => "ring_overrun",
            LeftOut::NotWanted => "not_wanted",
            LeftOut::BFrame => "b_frame",
            LeftOut::Referenced => "b_frame_referenced",
            LeftOut::Other => "other_rendition",
            LeftOut::Thin => "thin_link",
            LeftOut::Cached => "cached_sound",
            LeftOut::Superseded => "superseded",
        }
    }
}

/// Frames that were left out, by reason. Sound that a viewer cannot play is counted for each viewer fifty times a second, so
/// no reason is looked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally([u64; LeftOut::ALL.len()]);

impl Tally {
    pub(super) fn add(&mut self, reason: LeftOut, frames: u64) {
        if let Some(n) = self.0.get_mut(reason as usize) {
            *n += frames;
        }
    }

    pub(super) fn of(&self, reason: LeftOut) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or(0)
    }

    pub(super) fn all(&self) -> u64 {
        self.0.iter().sum()
    }

    /// What came between two looks at a tally.
    pub(super) fn add_since(&mut self, now: &Tally, then: &Tally) {
        for ((sum, now), then) in self.0.iter_mut().zip(now.0).zip(then.0) {
            *sum += now - then;
        }
    }

    /// Those that happened.
    pub(super) fn by_name(&self) -> Drops {
        let happened = LeftOut::ALL.into_iter().map(|r| (r.name(), self.of(r)));
        happened.filter(|(_, n)| *n > 0).collect()
    }
}

/// Whether a stream has a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// A source publishes it.
    Live,
    /// The source went; the stream waits for the next one.
    Held,
}

/// One track's numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackStats {
    /// The track.
    pub track: TrackId,
    /// The track that a bridge of this node made it of.
    pub derived: Option<TrackId>,
    /// Its codec; `None` for data.
    pub codec: Option<Codec>,
    /// Width and height in pixels of a picture track whose parameter sets could be read.
    pub size: Option<(u32, u32)>,
    /// What came in and was kept.
    pub input: Count,
    /// What was handed to subscribers, all together.
    pub output: Count,
    /// What comes in now, bits a second.
    pub bits_per_s: u64,
}

/// A stream's numbers. `offered == sum of dropped + sum of the tracks' input`, and the latter
/// `== ring_evicted + ring_frames`.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamStats {
    /// Whether it has a source.
    pub state: StreamState,
    /// The source, where there is one.
    pub source: Option<SourceId>,
    /// The epoch of the latest source.
    pub epoch: Epoch,
    /// Each track's numbers.
    pub tracks: Vec<TrackStats>,
    /// Frames that sources handed in, dropped ones included.
    pub offered: u64,
    /// Frames dropped on the way in, by reason.
    pub dropped: Drops,
    /// Frames whose timestamps were corrected, by reason (they were kept).
    pub corrected: Drops,
    /// Frames that were not handed to a subscriber, by reason, over all subscribers that there ever were.
    pub not_delivered: Drops,
    /// Frames in the ring.
    pub ring_frames: u64,
    /// Bytes in the ring.
    pub ring_bytes: u64,
    /// Media in the ring, milliseconds.
    pub ring_ms: u64,
    /// Frames that left the ring because newer ones came.
    pub ring_evicted: u64,
    /// Subscribers that wait for their first key frame.
    pub waiting: usize,
    /// Subscribers that are served.
    pub live: usize,
    /// Subscribers that were too slow and wait for the next key frame.
    pub lagging: usize,
    /// What came in over the last second or so, bits a second.
    pub bits_per_s: u64,
    /// What viewers and the publisher should know.
    pub notices: Vec<Notice>,
}

/// A subscriber's numbers. `offered == delivered + sum of dropped + pending`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriberStats {
    /// Where it stands.
    pub state: SubscriberState,
    /// Frames that the stream had for it: the cached group when it joined and all that came since.
    pub offered: u64,
    /// What it was handed.
    pub delivered: Count,
    /// Frames that it was not handed, by reason.
    pub dropped: Drops,
    /// Frames that wait for it in the ring (or left the ring before it came for them, and are not counted as
    /// dropped yet).
    pub pending: u64,
    /// What it is shown of a stream with several renditions.
    pub shown: Option<Shown>,
}

/// How fast bytes come, measured over whole seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Rate {
    since: crate::time::Time,
    bytes: u64,
    last: u64,
}

impl Rate {
    const WINDOW: u128 = 1_000_000_000;

    pub(super) fn add(&mut self, bytes: usize, now: crate::time::Time) {
        let age = now.since(self.since).as_nanos();
        if age >= Self::WINDOW {
            // After a silence the old window says nothing.
            self.last = if age < 2 * Self::WINDOW { Self::per_second(self.bytes, age) } else { 0 };
            self.since = now;
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    pub(super) fn bits_per_s(&self, now: crate::time::Time) -> u64 {
        match now.since(self.since).as_nanos() {
            age if age < Self::WINDOW && self.last > 0 => self.last,
            age => Self::per_second(self.bytes, age.max(Self::WINDOW)),
        }
    }

    fn per_second(bytes: u64, nanos: u128) -> u64 {
        u64::try_from(u128::from(bytes) * 8 * Self::WINDOW / nanos.max(1)).unwrap_or(u64::MAX)
    }
}
