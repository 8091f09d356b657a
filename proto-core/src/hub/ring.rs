//! The bounded ring of a stream's latest frames: what subscribers' cursors point into, and the cache of groups of
//! pictures.

use crate::ids::Epoch;
use crate::limits::Limits;
use crate::media::frame::{Frame, Renderings};
use crate::media::key::StreamKey;
use crate::media::picture_order::Reordering;
use crate::media::track::CodecConfig;
use crate::simulation::{Bug, Site};
use std::collections::VecDeque;
use std::sync::Arc;

/// A frame in the ring, with what is needed to judge a cursor that stands at it without walking.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) frame: Arc<Frame>,
    /// The configuration that the frame needs; `None` for data.
    pub(super) config: Option<Arc<CodecConfig>>,
    /// The track's place in the stream's table.
    pub(super) slot: usize,
    /// How many frames of the track came before.
    pub(super) nth: u64,
    /// Whether it is a picture that is shown before one that was coded earlier, and whether others refer to it.
    pub(super) late: Reordering,
    /// The stream's clock when the frame came: the highest dts so far.
    pub(super) edge: i64,
    /// Bytes of all frames that came before.
    before: u64,
    weight: u64,
}

/// The latest frames of one stream, bounded by count, bytes and time.
#[derive(Debug, Default)]
pub(super) struct Ring {
    entries: VecDeque<Entry>,
    /// The number of the oldest entry.
    first: u64,
    /// The number of the oldest entry that may have its forms for sending.
    hot: u64,
    held: u64,
    total: u64,
    edge: i64,
    frames_limit: usize,
    bytes_limit: u64,
    nanos_limit: i64,
}

/// How long after its frame a form for sending is kept in the ring, nanoseconds of the media clock: longer than what
/// viewers may be behind (`viewer_queue_ms`).
const HOT: i64 = 4_000_000_000;

/// How far back somebody may go on who had the stream before, nanoseconds of the media clock.
const RECENT: i64 = 4_000_000_000;

/// Milliseconds as the nanoseconds of the media clock.
pub(super) fn nanos(ms: u64) -> i64 {
    i64::try_from(ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
}

impl Ring {
    pub(super) fn new(key: &StreamKey, limits: &Limits) -> Ring {
        let number = key.as_str().bytes().fold(0, |n: u64, b| n.rotate_left(5) ^ u64::from(b));
        let small = limits.simulation.happens(Site::SmallRing, number);
        Ring {
            frames_limit: match limits.simulation.planted(Bug::QueueLimitIgnored) {
                true => usize::MAX,
                false => if small { limits.ring_frames.min(256) } else { limits.ring_frames }.max(1),
            },
            bytes_limit: limits.ring_bytes as u64,
            nanos_limit: nanos(limits.ring_ms),
            ..Ring::default()
        }
    }

    /// Appends a frame and lets go of the oldest ones beyond the limits. `extra` are bytes that came with it (a new
    /// configuration). `(slot, nth, late)` are as in [`Entry`]. A frame larger than the whole ring would be its only entry; the stream refuses such frames.
    pub(super) fn push(
        &mut self,
        frame: Frame,
        config: Option<Arc<CodecConfig>>,
        (slot, nth, late): (usize, u64, Reordering),
        edge: i64,
        extra: u64,
    ) {
        let weight = frame.len() as u64 + extra;
        let entry =
            Entry { frame: Arc::new(frame), config, slot, nth, late, edge, before: self.total, weight };
        self.held += weight;
        self.total += weight;
        self.edge = edge;
        self.entries.push_back(entry);
        self.trim();
        self.cool();
    }

    /// Lets go of the forms for sending of frames that nearly all viewers have had: they take as much as the frames
    /// themselves, and whoever comes late makes them again. Who still sends one keeps it.
    fn cool(&mut self) {
        self.hot = self.hot.max(self.first);
        let old = self.edge.saturating_sub(HOT);
        while let Some(entry) =
            usize::try_from(self.hot - self.first).ok().and_then(|at| self.entries.get_mut(at))
            && entry.edge < old
        {
            let Frame { seq, epoch, config_version, media, renderings } = &*entry.frame;
            if !renderings.are_none() {
                entry.frame = Arc::new(Frame {
                    seq: *seq,
                    epoch: *epoch,
                    config_version: *config_version,
                    media: media.clone(),
                    renderings: Renderings::default(),
                });
            }
            self.hot += 1;
        }
    }

    fn trim(&mut self) {
        while self.entries.len() > 1 && self.is_over() {
            if let Some(gone) = self.entries.pop_front() {
                self.first += 1;
                self.held -= gone.weight;
            }
        }
    }

    /// From now on the ring holds so many bytes.
    pub(super) fn hold(&mut self, bytes: u64) {
        if self.bytes_limit != bytes {
            self.bytes_limit = bytes;
            self.trim();
        }
    }

    fn is_over(&self) -> bool {
        self.entries.len() > self.frames_limit
            || self.held > self.bytes_limit
            || self.span() > self.nanos_limit
    }

    /// The entry with a number, if it is still (or already) there.
    pub(super) fn get(&self, seq: u64) -> Option<&Entry> {
        let at = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.entries.get(at)
    }

    /// The number of the frame with this position in its publisher's stream, if it is here and not long ago.
    pub(super) fn find(&self, epoch: Epoch, seq: u64) -> Option<u64> {
        let recent = self.edge.saturating_sub(RECENT);
        let back = self.entries.iter().rev().take_while(|e| e.edge >= recent && e.frame.epoch == epoch);
        // What was derived from it has its number too, and lies behind it.
        let (at, entry) = back.take_while(|e| e.frame.seq >= seq).enumerate().last()?;
        (entry.frame.seq == seq).then(|| self.end() - 1 - at as u64)
    }

    /// The number of the oldest entry; equals [`Ring::end`] while the ring is empty.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The number that the next entry gets.
    pub(super) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        self.held
    }

    /// Bytes of all frames that ever came.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The stream's clock at the newest entry.
    pub(super) fn edge(&self) -> i64 {
        self.edge
    }

    /// Nanoseconds of media held.
    pub(super) fn span(&self) -> i64 {
        self.entries.front().map_or(0, |e| self.edge.saturating_sub(e.edge))
    }

    /// How far behind the newest frame a cursor at `entry` is: bytes that it still has to take, and nanoseconds of
    /// media. What came before the mark (bytes, edge) is not counted.
    pub(super) fn lag(&self, entry: &Entry, mark: Option<(u64, i64)>) -> (u64, i64) {
        let (bytes, edge) = mark.unwrap_or((0, i64::MIN));
        (self.total.saturating_sub(entry.before.max(bytes)), self.edge.saturating_sub(entry.edge.max(edge)))
    }
}
