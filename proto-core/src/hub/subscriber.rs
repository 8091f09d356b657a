//! One subscriber: a cursor into its stream's ring, and the rules by which it is served, skipped ahead or let go
//! (abuse A6).

use super::clock::MIN_STEP;
use super::cohort::{Standing, Stands};
use super::delivery::Delivery;
use super::pace::Pace;
use super::race::{Race, edge};
use super::rendition::{Choice, Picks, Shown};
use super::ring::{Entry, Ring, nanos};
use super::stats::{Count, LeftOut, SubscriberStats, Tally};
use super::stream::Stream;
use super::{StreamId, SubscriberId};
use crate::error::Reason;
use crate::guard::must;
use crate::ids::Epoch;
use crate::limits::Limits;
use crate::media::frame::FrameKind;
use crate::media::picture_order::Reordering;
use crate::media::track::{Codec, CodecConfig, CodecSet, TrackId};
use crate::simulation::{Bug, Switches};
use crate::time::Time;
use std::sync::Arc;
use std::time::Duration;

/// Where a subscriber stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriberState {
    /// It has seen no picture yet; sound passes.
    WaitingForKey,
    /// It is served.
    Live,
    /// It was too slow; pictures up to the next key frame are left out, sound passes.
    Lagging,
}

/// A newcomer that shows pictures as they come, and that a key frame overtakes while it races through the cached group, goes on with the
/// race for so long, …
const RACE: Duration = Duration::from_secs(2);
/// … where no more bytes than these wait for it: a little more of the race costs less than a jump in it.
const RACE_BYTES: u64 = 3_000_000;

/// How the pictures of a cached group are squeezed for a newcomer: per track, its newest cached frame keeps its time
/// and the ones before stand [`MIN_STEP`] apart, so that a player races through them to the live edge. For one who shows
/// pictures as they come they stand where they are handed over instead.
#[derive(Debug)]
pub(super) struct Squeeze {
    /// The ring's end at the time of joining: frames before it are cached ones.
    until: u64,
    /// Per track slot: number within the track and dts of its newest cached frame.
    tracks: Vec<Option<(u64, i64)>>,
    /// Where the squeezed pictures begin. Sound from before is left out: it cannot be squeezed (it would have to be
    /// resampled), and played at its own pace it would hold the newcomer back by its whole length.
    start: i64,
    race: Option<Race>,
}

impl Squeeze {
    fn new(stream: &Stream, from: u64, accepts: CodecSet, choice: &Choice) -> Option<Box<Squeeze>> {
        let until = stream.ring.end();
        let (mut start, mut tracks, mut race) = (i64::MAX, Vec::new(), None);
        for (slot, t) in stream.tracks.iter().enumerate() {
            let key = t.last_key.filter(|k| *k >= from);
            let entry = key.and_then(|k| stream.ring.get(k));
            let wanted = t.used.as_ref().is_some_and(|c| t.wanted(c.params.codec(), accepts))
                && choice.plays(stream, slot, accepts);
            let newest = match (entry, t.clock.last) {
                (Some(first), Some(last)) if wanted => {
                    let nth = t.count.saturating_sub(1);
                    start = start.min(squeezed(first.nth, (nth, last)));
                    if t.is_video() && !accepts.has_reordered() {
                        race.get_or_insert_with(Race::default);
                    }
                    Some((nth, last))
                }
                _ => None,
            };
            tracks.push(newest);
        }
        (start != i64::MAX).then(|| Box::new(Squeeze { until, tracks, start, race }))
    }

    fn newest(&self, slot: usize) -> Option<(u64, i64)> {
        self.tracks.get(slot).copied().flatten()
    }

    /// Times of the frame at the cursor, and whether all that come after it keep their own.
    fn times(&mut self, stream: &Stream, seq: u64, entry: &Entry, now: Time) -> ((i64, i64), bool) {
        let (media, cached) = (&entry.frame.media, seq < self.until);
        if let Some(race) = self.race.as_mut() {
            let track = stream.tracks.get(entry.slot).filter(|_| media.is_video());
            let Some((track, last)) = track.and_then(|t| Some((t, t.clock.last?))) else {
                return ((media.dts, media.pts), false);
            };
            let newest = entry.nth + 1 >= track.count;
            let edge = edge(last, track.clock.at, now);
            let ([dts, pts], over) = race.place([media.dts, media.pts], newest, edge);
            return ((dts, pts), over && !cached);
        }
        if cached && media.is_video() {
            return (self.squeezed(&stream.ring, seq, entry), false);
        }
        ((media.dts, media.pts), !cached)
    }

    /// Times of a cached picture. Both pass through one rising map of the native timeline onto the squeezed one
    /// (coding times are its knots, straight between them, identity from the live edge on), so the order in which
    /// pictures are shown stays as it was, also across the live edge.
    fn squeezed(&self, ring: &Ring, seq: u64, entry: &Entry) -> (i64, i64) {
        /// More pictures than H.264 can reorder (A.3.1: 16) are not looked at.
        const REORDER: usize = 32;
        let media = &entry.frame.media;
        let Some(newest) = self.newest(entry.slot) else { return (media.dts, media.pts) };
        let dts = squeezed(entry.nth, newest);
        if media.pts <= media.dts {
            return (dts, dts);
        }
        let mut knot = (media.dts, dts);
        let later = (seq + 1..self.until).filter_map(|n| ring.get(n)).filter(|e| e.slot == entry.slot);
        for e in later.take(REORDER) {
            let next = (e.frame.media.dts, squeezed(e.nth, newest));
            if next.0 > media.pts {
                let (run, rise) = (i128::from(next.0 - knot.0).max(1), i128::from(next.1 - knot.1));
                let step = i128::from(media.pts - knot.0) * rise / run;
                return (dts, knot.1.saturating_add(i64::try_from(step).unwrap_or(0)));
            }
            knot = next;
        }
        // From the newest cached picture on the map is the identity.
        (dts, knot.1.saturating_add(media.pts.saturating_sub(knot.0)))
    }
}

fn squeezed(nth: u64, (newest, dts): (u64, i64)) -> i64 {
    let back = i64::try_from(newest.saturating_sub(nth)).unwrap_or(i64::MAX);
    dts.saturating_sub(back.saturating_mul(MIN_STEP))
}

/// The configurations of all tracks that a newcomer wants: those that the frames it gets first need.
fn greeting(
    stream: &Stream,
    accepts: CodecSet,
    choice: &Choice,
    bridge: bool,
) -> Vec<(usize, TrackId, Arc<CodecConfig>)> {
    let active =
        stream.tracks.iter().enumerate().filter(|(_, t)| t.active && !(bridge && t.derived.is_some()));
    let config = active.filter_map(|(slot, t)| {
        let config = t.used.clone().or(t.config.clone())?;
        let wanted = t.wanted(config.params.codec(), accepts) && choice.plays(stream, slot, accepts);
        wanted.then_some((slot, t.id, config))
    });
    config.rev().collect()
}

/// What `next` found.
pub(super) enum Next {
    /// Something to send.
    Item(Delivery),
    /// The subscriber has everything.
    Drained,
}

/// Configuration versions that were given, per track slot. Those of the first slots stand with the rest of the subscriber: they
/// are looked at with every frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    few: [u32; 4],
    more: Vec<u32>,
}

impl Sent {
    /// Notes which version is given now. Answers whether it is another than before.
    fn is_news(&mut self, slot: usize, version: u32) -> bool {
        let more = slot.saturating_sub(self.few.len());
        if slot >= self.few.len() && self.more.len() <= more {
            self.more.resize(more + 1, 0);
        }
        let sent = self.few.get_mut(slot).or_else(|| self.more.get_mut(more));
        sent.is_some_and(|sent| std::mem::replace(sent, version) != version)
    }
}

#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) id: SubscriberId,
    pub(super) stream: StreamId,
    pub(super) accepts: CodecSet,
    /// It feeds a bridge, and must not get what bridges make.
    pub(super) bridge: bool,
    pub(super) pace: Pace,
    pub(super) choice: Choice,
    /// The ring number where it began.
    from: u64,
    pub(super) cursor: u64,
    /// Bit per track slot: no picture until a key frame. All set at first, so that tracks to come count too.
    pub(super) needs_key: u64,
    /// Why pictures are left out while [`Subscriber::needs_key`] says so.
    pub(super) skips: LeftOut,
    /// Configurations to give before anything else, last one first.
    pub(super) greeting: Vec<(usize, TrackId, Arc<CodecConfig>)>,
    /// Configuration versions given, per track slot.
    pub(super) sent: Sent,
    pub(super) squeeze: Option<Box<Squeeze>>,
    /// Bytes and clock of the stream at joining: what a newcomer's lag is counted from.
    mark: (u64, i64),
    joined: Time,
    /// It waits in the stream's list for the next frame.
    pub(super) drained: bool,
    /// When the session stopped taking items; `None` while it takes them.
    pub(super) blocked: Option<Time>,
    /// When it was first blocked since it last had everything.
    pub(super) busy: Option<Time>,
    /// When its peer last accepted bytes.
    pub(super) progress: Time,
    /// When a key frame or sound was last handed over.
    served: Time,
    pub(super) delivered: Count,
    pub(super) dropped: Tally,
    told: bool,
    /// The highest epoch of which it was handed a frame.
    pub(super) epoch: Epoch,
    /// Whether others are in step with it, or it with others.
    pub(super) stands: Stands,
}

impl Subscriber {
    pub(super) fn new(
        id: SubscriberId,
        stream_id: StreamId,
        stream: &Stream,
        accepts: CodecSet,
        (picks, bridge): (Picks, bool),
        now: Time,
    ) -> Subscriber {
        let choice = Choice::new(picks, stream, accepts);
        let from = stream.start_for(accepts, &choice);
        Subscriber {
            id,
            stream: stream_id,
            accepts,
            bridge,
            pace: if bridge { Pace::Prompt } else { Pace::Riding },
            from,
            cursor: from,
            needs_key: u64::MAX,
            skips: LeftOut::Waiting,
            greeting: greeting(stream, accepts, &choice, bridge),
            sent: Sent::default(),
            squeeze: Squeeze::new(stream, from, accepts, &choice),
            choice,
            mark: (stream.ring.total(), stream.ring.edge()),
            joined: now,
            drained: false,
            blocked: None,
            busy: None,
            progress: now,
            served: now,
            delivered: Count::default(),
            dropped: Tally::default(),
            told: false,
            epoch: Epoch::default(),
            stands: Stands::Alone,
        }
    }

    /// Somebody who stands where this one does, for others.
    pub(super) fn lead(&self, id: SubscriberId) -> Subscriber {
        Subscriber {
            id,
            stream: self.stream,
            accepts: self.accepts,
            bridge: false,
            pace: self.pace,
            choice: self.choice.clone(),
            from: self.cursor,
            cursor: self.cursor,
            needs_key: self.needs_key,
            skips: self.skips,
            greeting: Vec::new(),
            sent: self.sent.clone(),
            squeeze: None,
            mark: self.mark,
            joined: self.joined,
            drained: true,
            blocked: None,
            busy: None,
            progress: self.progress,
            served: self.served,
            delivered: Count::default(),
            dropped: Tally::default(),
            // Of each who follows it will be told when it goes on by itself.
            told: true,
            epoch: self.epoch,
            stands: Stands::Before(0),
        }
    }

    /// Goes on by itself where the one stands whom it followed.
    pub(super) fn take_over(&mut self, lead: &Subscriber, now: Time) {
        let Standing { cursor, delivered, dropped } = self.standing(Some(lead));
        (self.cursor, self.delivered, self.dropped) = (cursor, delivered, dropped);
        (self.needs_key, self.skips, self.epoch) = (lead.needs_key, lead.skips, lead.epoch);
        (self.sent, self.served, self.progress) = (lead.sent.clone(), lead.served, now);
        (self.blocked, self.busy, self.stands) = (None, None, Stands::Alone);
    }

    /// Whether the frame at its cursor is a newcomer's cached one.
    pub(super) fn is_cached(&self) -> bool {
        self.squeeze.as_deref().is_some_and(|s| self.cursor < s.until)
    }

    /// Whether it came lately.
    pub(super) fn is_new(&self, now: Time, limits: &Limits) -> bool {
        now < self.joined + Duration::from_millis(limits.viewer_newcomer_ms)
    }

    /// It had the frames before this number of the ring, and goes on from there.
    pub(super) fn resume(&mut self, at: u64) {
        (self.from, self.cursor) = (at, at);
        (self.needs_key, self.squeeze) = (0, None);
    }

    /// Whether it takes a codec.
    pub(super) fn takes(&self, codec: Codec) -> bool {
        self.accepts.has(codec)
    }

    /// Once, when the first frame was left out because the viewer is too slow: the words for it.
    pub(super) fn tell(&mut self) -> Option<Reason> {
        let slow = !self.told && self.dropped.of(LeftOut::Lagging) > 0;
        self.told |= slow;
        slow.then(|| {
            Reason::limit(
                "viewer_slow",
                "the viewer's connection is slower than the stream: it is skipped ahead to key frames and keeps the \
                 sound; publish with a lower bit rate",
            )
        })
    }

    fn leave_out(&mut self, stream: &mut Stream, reason: LeftOut, frames: u64) {
        self.dropped.add(reason, frames);
        stream.not_delivered.add(reason, frames * self.weight());
        self.cursor += frames;
    }

    /// What it is shown of several renditions, if that is news.
    pub(super) fn shown(&mut self, stream: &Stream) -> Option<Shown> {
        self.choice.news(stream, self.accepts)
    }

    /// Takes the next item. `wants_key` becomes the slot of a track of which only a key frame helps the subscriber on.
    pub(super) fn next(
        &mut self,
        stream: &mut Stream,
        now: Time,
        limits: &Limits,
        wants_key: &mut Option<usize>,
    ) -> Next {
        self.blocked = None;
        if let Some((slot, track, config)) = self.greeting.pop() {
            self.is_news(slot, &config);
            return Next::Item(Delivery::Config { track, config });
        }
        loop {
            if self.cursor < stream.ring.first() {
                let lost = stream.ring.first() - self.cursor;
                self.leave_out(stream, LeftOut::Overrun, lost);
                self.needs_key = u64::MAX;
                self.skips = LeftOut::Lagging;
            }
            let Some(entry) = stream.ring.get(self.cursor) else {
                self.busy = None;
                return Next::Drained;
            };
            let media = &entry.frame.media;
            if media.is_video() && self.squeeze.as_deref().is_none_or(|s| s.until <= self.cursor) {
                let key = media.kind == FrameKind::Key;
                *wants_key = self.choice.aim(stream, self.accepts, key, now).or(*wants_key);
            }
            if let Err(reason) = self.judge(stream, entry, now, limits) {
                if reason == LeftOut::Lagging && self.skips != LeftOut::Lagging {
                    self.choice.fell_behind(stream, now);
                }
                let kind = entry.frame.media.kind;
                let bit = 1u64.checked_shl(entry.slot as u32).unwrap_or(0);
                let missed = reason != LeftOut::NotWanted && reason != LeftOut::BFrame;
                if matches!(kind, FrameKind::Key | FrameKind::Delta) && missed {
                    // What follows up to the next key frame refers to this one.
                    self.needs_key |= bit;
                    if reason != LeftOut::Other {
                        self.skips = reason;
                    }
                    if reason == LeftOut::Waiting {
                        wants_key.get_or_insert(entry.slot);
                    }
                }
                if limits.simulation.planted(Bug::DropNotCounted) {
                    self.cursor += 1;
                    continue;
                }
                self.leave_out(stream, reason, 1);
                continue;
            }
            let slot = entry.slot;
            if media.is_video()
                && let Some(before) = self.choice.given(stream, slot)
            {
                // Whoever renders it is told anew what it is, and of the one before nothing fits any more.
                let of = |slot: usize| 1u64.checked_shl(slot as u32).unwrap_or(0);
                self.needs_key |= before.map_or(0, of);
                self.sent.is_news(slot, 0);
            }
            if let Some(config) = &entry.config
                && self.is_news(slot, config)
            {
                let track = entry.frame.media.track;
                return Next::Item(Delivery::Config { track, config: Arc::clone(config) });
            }
            let media = &entry.frame.media;
            let (mut cached, mut ends) = (false, true);
            let (dts, pts) = match self.squeeze.as_deref_mut() {
                Some(s) => {
                    cached = self.cursor < s.until;
                    let (times, over) = s.times(stream, self.cursor, entry, now);
                    ends = over;
                    times
                }
                None => (media.dts, media.pts),
            };
            let (dts, pts) = if media.is_video() {
                self.choice.rising(stream, self.accepts, (dts, pts))
            } else {
                (dts, pts)
            };
            let item = Delivery::Frame { frame: Arc::clone(&entry.frame), dts, pts, cached };
            if ends {
                self.squeeze = None;
            }
            if media.kind == FrameKind::Key {
                self.needs_key &= !1u64.checked_shl(slot as u32).unwrap_or(0);
                self.skips = LeftOut::Waiting;
            }
            if matches!(media.kind, FrameKind::Key | FrameKind::Audio) {
                self.served = now;
            }
            let bytes = media.payload.len();
            self.delivered.add(bytes);
            self.cursor += 1;
            if let Some(t) = stream.tracks.get_mut(slot) {
                t.output.add_times(bytes, self.weight());
            }
            return Next::Item(item);
        }
    }

    /// S1, asserted with each frame: of no publisher that was superseded for this subscriber.
    pub(super) fn rightly(&mut self, item: &Delivery, switches: Switches) -> Result<(), Reason> {
        let Delivery::Frame { frame, .. } = item else { return Ok(()) };
        let epoch = self.epoch;
        must(switches, frame.epoch >= epoch, "S1", || {
            format!("a frame under epoch {} for a viewer that had some under epoch {epoch}", frame.epoch)
        })?;
        self.epoch = frame.epoch;
        Ok(())
    }

    fn is_news(&mut self, slot: usize, config: &CodecConfig) -> bool {
        self.sent.is_news(slot, config.version)
    }

    /// Whether the frame at the cursor is to be handed over; else the reason to leave it out.
    fn judge(&self, stream: &Stream, entry: &Entry, now: Time, limits: &Limits) -> Result<(), LeftOut> {
        let track = stream.tracks.get(entry.slot);
        let damaged = track.is_some_and(|t| t.derived.is_none() && t.reordering() == Reordering::Referenced);
        let wanted = match &entry.config {
            Some(c) => track.is_some_and(|t| {
                t.coded_for(c.params.codec(), self.accepts) && !(self.bridge && t.derived.is_some())
            }),
            None => self.accepts.has_data(),
        };
        if !wanted {
            return Err(LeftOut::NotWanted);
        }
        if !self.choice.lets(stream, entry.slot, entry.frame.media.kind, self.accepts) {
            return Err(LeftOut::Other);
        }
        let cached = self.squeeze.as_deref().filter(|s| self.cursor < s.until);
        let newcomer = now < self.joined + Duration::from_millis(limits.viewer_newcomer_ms);
        let (bytes, behind) = stream.ring.lag(entry, newcomer.then_some(self.mark));
        let over = bytes > limits.viewer_queue_bytes as u64 || behind > nanos(limits.viewer_queue_ms);
        let media = &entry.frame.media;
        match media.kind {
            FrameKind::Audio | FrameKind::Data => {
                let race = self.squeeze.as_deref().and_then(|s| s.race.as_ref());
                let races = race.filter(|_| media.kind == FrameKind::Audio && now < self.joined + RACE);
                let at = || track.and_then(|t| Some(edge(t.clock.last?, t.clock.at, now)));
                let late = races.zip(at()).is_some_and(|(race, edge)| race.is_late(media.dts, edge));
                if late || cached.is_some_and(|s| media.dts < s.start) {
                    return Err(LeftOut::Cached);
                }
                // Sound is kept while pictures are skipped, for it is small. Where there are no pictures to skip, or
                // it is so old that the viewer would be evicted had it heard nothing since, it is skipped as well.
                let alone = !self.wants_pictures(stream);
                if over && (alone || behind > nanos(limits.viewer_starved_ms)) {
                    return Err(LeftOut::Lagging);
                }
                Ok(())
            }
            FrameKind::Key | FrameKind::Delta => {
                match entry.late {
                    _ if self.accepts.has_reordered() => {}
                    _ if damaged => return Err(LeftOut::Referenced),
                    Reordering::Referenced => return Err(LeftOut::Referenced),
                    Reordering::Unreferenced => return Err(LeftOut::BFrame),
                    Reordering::None => {}
                }
                let newer = stream.tracks.get(entry.slot).and_then(|t| t.last_key) > Some(self.cursor);
                let missing = self.needs_key & 1u64.checked_shl(entry.slot as u32).unwrap_or(0) != 0;
                let key = media.kind == FrameKind::Key;
                if missing && !key && !limits.simulation.planted(Bug::GopTailKept) {
                    return Err(self.skips);
                }
                if self.choice.is_thin() && !key && cached.is_none() {
                    return Err(LeftOut::Thin);
                }
                // See `RACE`.
                let races = || {
                    let left = stream.ring.lag(entry, None).0;
                    !self.accepts.has_reordered() && now < self.joined + RACE && left <= RACE_BYTES
                };
                if cached.is_some() && newer && !races() {
                    return Err(LeftOut::Superseded);
                }
                // The newest key frame is handed over however late it is: a viewer that gets each next one is
                // thin, not lost.
                if over && (newer || !key) {
                    return Err(LeftOut::Lagging);
                }
                Ok(())
            }
        }
    }

    fn wants_pictures(&self, stream: &Stream) -> bool {
        stream.tracks.iter().any(|t| {
            t.is_video() && t.config.as_ref().is_some_and(|c| t.wanted(c.params.codec(), self.accepts))
        })
    }

    pub(super) fn state(&self, stream: &Stream) -> SubscriberState {
        let waits = stream.tracks.iter().enumerate().any(|(slot, t)| {
            let wanted = t.config.as_ref().is_some_and(|c| t.wanted(c.params.codec(), self.accepts))
                && self.choice.plays(stream, slot, self.accepts);
            t.is_video() && wanted && self.needs_key & 1u64.checked_shl(slot as u32).unwrap_or(0) != 0
        });
        match (waits, self.skips == LeftOut::Lagging) {
            (false, _) => SubscriberState::Live,
            (true, false) => SubscriberState::WaitingForKey,
            (true, true) => SubscriberState::Lagging,
        }
    }

    /// The session takes no more. Answers when to look again.
    pub(super) fn block(&mut self, now: Time, limits: &Limits) -> Option<Time> {
        self.blocked.get_or_insert(now);
        self.busy.get_or_insert(now);
        self.look_again(limits)
    }

    pub(super) fn progress(&mut self, now: Time) {
        self.progress = now;
    }

    fn stuck_at(&self, limits: &Limits) -> Option<Time> {
        Some(self.blocked?.max(self.progress) + Duration::from_millis(limits.viewer_stuck_ms))
    }

    fn starved_at(&self, limits: &Limits) -> Option<Time> {
        Some(self.busy?.max(self.served) + Duration::from_millis(limits.viewer_starved_ms))
    }

    /// When it is to be let go if nothing changes until then.
    pub(super) fn look_again(&self, limits: &Limits) -> Option<Time> {
        // Whoever feeds a bridge sees to it that it answers.
        if self.bridge || limits.simulation.planted(Bug::SlowViewerKept) {
            return None;
        }
        match (self.stuck_at(limits), self.starved_at(limits)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Why it is to be let go now, if it is.
    pub(super) fn verdict(&self, now: Time, limits: &Limits) -> Option<Reason> {
        if self.bridge || limits.simulation.planted(Bug::SlowViewerKept) {
            return None;
        }
        if self.stuck_at(limits).is_some_and(|at| at <= now) {
            return Some(Reason::limit(
                "viewer_stuck",
                format!(
                    "the viewer accepted no byte for {} ms: its connection hangs, or it stopped reading",
                    limits.viewer_stuck_ms
                ),
            ));
        }
        if self.starved_at(limits).is_some_and(|at| at <= now) {
            return Some(Reason::limit(
                "viewer_starved",
                format!(
                    "neither a whole key frame nor sound got through to the viewer for {} ms: its connection is \
                     too slow for this stream; publish with a lower bit rate",
                    limits.viewer_starved_ms
                ),
            ));
        }
        None
    }

    /// Frames that were offered, delivered, dropped, and that wait. `lead`: the one whom it follows, if it does.
    pub(super) fn balance(&self, stream: &Stream, lead: Option<&Subscriber>) -> (u64, u64, u64, u64) {
        let (end, at) = (stream.ring.end(), self.standing(lead));
        (end - self.from, at.delivered.frames, at.dropped.all(), end - at.cursor)
    }

    /// As with [`Subscriber::balance`].
    pub(super) fn stats(&self, stream: &Stream, lead: Option<&Subscriber>) -> SubscriberStats {
        let (end, at) = (stream.ring.end(), self.standing(lead));
        SubscriberStats {
            state: lead.unwrap_or(self).state(stream),
            offered: end - self.from,
            delivered: at.delivered,
            dropped: at.dropped.by_name(),
            pending: end - at.cursor,
            shown: self.choice.shown(stream, self.accepts),
        }
    }
}
