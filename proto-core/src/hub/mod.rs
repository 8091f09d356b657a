//! The hub: streams, their rings of frames, and the cursors of their subscribers.
//!
//! It knows no protocol. Publishers' sessions hand in [`Ingest`]; subscribers' sessions take [`Delivery`] items at
//! their own pace. A stream has one ring for all subscribers; a subscriber is a cursor into it, so a slow one costs
//! no memory and delays nobody (abuses A6, A31). A stream outlives its source for a hold time.
//!
//! The hub is a data structure with a queue of events: the node calls it, then takes events until there are none.
//! Work per frame is proportional to the subscribers that have taken everything before; idle and stuck ones cost
//! nothing.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod audit;
mod clock;
mod cohort;
pub mod delivery;
mod event;
mod pace;
mod race;
mod rendition;
mod ring;
mod stats;
mod stream;
mod subscriber;
#[cfg(test)]
mod tests;

pub use crate::media::track::CodecSet;
pub use event::{HubEvent, Notice};
pub use pace::{Pace, Pacing};
pub use rendition::{Picks, Shown};
pub use stats::{Count, Drops, StreamState, StreamStats, SubscriberStats, TrackStats};
pub use subscriber::SubscriberState;

use crate::error::Reason;
use crate::ids::Epoch;
use crate::limits::Limits;
use crate::media::frame::{Ingest, NewFrame};
use crate::media::key::StreamKey;
use crate::media::picture_order::Reordering;
use crate::media::track::{Codec, CodecConfig, CodecParams, TrackId};
use crate::simulation::Bug;
use crate::time::{Deadline, Time, Timers};
use bytes::Bytes;
use delivery::Delivery;
use slab::Slab;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use stream::Stream;
use subscriber::{Next, Subscriber};

/// The code of a stream's end when no source came back within the hold time.
pub const SOURCE_GONE: &str = "source_gone";

/// A stream of this hub. Never reused; a name that ended and came again is another stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// A source of a stream, numbered by the node, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u64);

/// Where a frame stands in its publisher's stream, as the node says that counted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Its number; it rises within an epoch.
    pub seq: u64,
    /// The number of its track's frame before it, where it is known to be the very next one. A source that takes over with it
    /// under the same epoch goes on from there: its pictures wait for no key frame, and its times are those of before.
    pub after: Option<u64>,
}

/// A subscriber of this hub. Never reused. Ordered by the time of joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId {
    serial: u64,
    slot: usize,
}

impl SubscriberId {
    /// Its place among those of now; somebody else's once it has left.
    pub(crate) const fn slot(self) -> usize {
        self.slot
    }
}

impl fmt::Display for SubscriberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.serial)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Hold(StreamId),
    KeyRequest(StreamId, Option<TrackId>),
    Viewer(SubscriberId),
    Sound(StreamId),
    Merge(StreamId),
}

/// All streams of a node. See the module's text.
#[derive(Debug)]
pub struct Hub {
    limits: Limits,
    pacing: Pacing,
    streams: BTreeMap<StreamId, Stream>,
    names: BTreeMap<StreamKey, StreamId>,
    subscribers: Slab<Subscriber>,
    events: VecDeque<HubEvent>,
    /// Who had taken everything, and can have more.
    ready: VecDeque<SubscriberId>,
    timers: Timers<Timer>,
    next_stream: u64,
    next_subscriber: u64,
    stray: u64,
    /// Bytes that all rings may hold.
    memory: u64,
}

impl Hub {
    /// An empty hub.
    pub fn new(limits: &Limits) -> Hub {
        Hub {
            limits: limits.clone(),
            pacing: Pacing::default(),
            streams: BTreeMap::new(),
            names: BTreeMap::new(),
            subscribers: Slab::new(),
            events: VecDeque::new(),
            ready: VecDeque::new(),
            timers: Timers::default(),
            next_stream: 0,
            next_subscriber: 0,
            stray: 0,
            memory: limits.memory_bytes,
        }
    }

    /// Says how long frames may wait so that fewer messages carry them; [`Pacing::default`] if this is not called.
    pub fn set_pacing(&mut self, pacing: Pacing) {
        self.pacing = pacing;
    }

    /// Gives a source the right to publish under a name: opens the stream, or takes it over. The stream's clock goes
    /// on over the pause, and its pictures from the new source's first key frame.
    ///
    /// # Errors
    /// `stale_epoch` if the stream has had a higher epoch; `name_busy` if a source that is not silent has the same
    /// epoch; `too_many_streams`; `no_memory`.
    pub fn publish(
        &mut self,
        key: &StreamKey,
        epoch: Epoch,
        source: SourceId,
        now: Time,
    ) -> Result<StreamId, Reason> {
        let id = match self.names.get(key) {
            Some(id) => *id,
            None => {
                if self.streams.len() >= self.limits.streams {
                    return Err(Reason::limit(
                        "too_many_streams",
                        format!(
                            "this node carries {} streams, its limit; raise limits.streams or add a node",
                            self.streams.len()
                        ),
                    ));
                }
                if !self.limits.simulation.planted(Bug::MemoryIgnored)
                    && self.limits.ring_bytes_least().saturating_mul(self.streams.len() as u64 + 1)
                        > self.memory
                {
                    return Err(Reason::limit(
                        "no_memory",
                        format!(
                            "the memory of this node is taken by {} streams and their viewers; try another node or \
                             later, or raise limits.memory_bytes",
                            self.streams.len()
                        ),
                    ));
                }
                let id = StreamId(self.next_stream);
                self.next_stream += 1;
                let mut stream = Stream::new(key.clone(), &self.limits);
                stream.take_over(epoch, source, now);
                self.streams.insert(id, stream);
                self.names.insert(key.clone(), id);
                self.share();
                return Ok(id);
            }
        };
        let Some(stream) = self.streams.get_mut(&id) else {
            return Err(Reason::local(
                "hub_inconsistent",
                "a name without a stream: a defect of this server",
            ));
        };
        if epoch < stream.epoch {
            return Err(Reason::local(
                "stale_epoch",
                format!(
                    "the right to publish {key} (epoch {epoch}) was overtaken by a later one ({}); ask the manager \
                     again",
                    stream.epoch
                ),
            ));
        }
        let silence = now.since(stream.heard);
        match stream.source {
            Some(old) if old == source => {
                stream.epoch = epoch;
                return Ok(id);
            }
            Some(_)
                if epoch == stream.epoch && silence < Duration::from_millis(self.limits.stream_silent_ms) =>
            {
                return Err(Reason::peer(
                    "name_busy",
                    format!(
                        "{key} is being published already; stop the other publisher, or wait until it has been \
                         silent for {} ms",
                        self.limits.stream_silent_ms
                    ),
                ));
            }
            Some(old) => {
                let why = if epoch > stream.epoch {
                    format!("the right to publish {key} passed to another publisher (epoch {epoch})")
                } else {
                    format!(
                        "another publisher took over {key} after this one had been silent for {} ms",
                        silence.as_millis()
                    )
                };
                let reason = Reason::local("displaced", why);
                self.events.push_back(HubEvent::SourceDisplaced { stream: id, source: old, reason });
            }
            None => self.events.push_back(HubEvent::SourceBack(id)),
        }
        stream.take_over(epoch, source, now);
        self.timers.cancel(&Timer::Hold(id));
        Ok(id)
    }

    /// All rings together may hold so many bytes from now on. What no longer fits is let go, oldest first.
    pub fn set_memory(&mut self, bytes: u64) {
        if self.memory != bytes {
            self.memory = bytes;
            self.share();
        }
    }

    /// The bytes that all rings hold.
    pub fn ring_bytes(&self) -> u64 {
        self.streams.values().map(|s| s.ring.bytes()).sum()
    }

    /// Each ring has the same share, and never more than its own limit.
    fn share(&mut self) {
        let each = self.memory / (self.streams.len() as u64).max(1);
        let each = match self.limits.simulation.planted(Bug::MemoryIgnored) {
            true => u64::MAX,
            false => each.max(self.limits.ring_bytes_least()),
        };
        for stream in self.streams.values_mut() {
            stream.ring.hold(each.min(self.limits.ring_bytes as u64));
        }
    }

    /// Takes what a source sends. Frames that cannot be used are dropped and counted; see [`StreamStats::dropped`].
    pub fn ingest(&mut self, stream: StreamId, source: SourceId, item: Ingest, now: Time) {
        self.take(stream, source, item, None, now);
    }

    /// Takes a frame that another node has counted already: it keeps its number. Otherwise like
    /// [`Hub::ingest`].
    pub fn relay(
        &mut self,
        stream: StreamId,
        source: SourceId,
        relayed: Relayed,
        frame: NewFrame,
        now: Time,
    ) {
        self.take(stream, source, Ingest::Frame(frame), Some(relayed), now);
    }

    fn take(
        &mut self,
        stream: StreamId,
        source: SourceId,
        item: Ingest,
        relayed: Option<Relayed>,
        now: Time,
    ) {
        let Some(s) = self.streams.get_mut(&stream) else {
            self.stray += u64::from(matches!(item, Ingest::Frame(_)));
            return;
        };
        let taken = s.take(source, item, relayed, now, &self.limits);
        if let Some(track) = taken.key {
            let track = Some(track).filter(|_| s.grouped);
            if let Some(asked) = s.key_requests.get_mut(&track) {
                asked.pending = false;
            }
            self.timers.cancel(&Timer::KeyRequest(stream, track));
        }
        if let Some(notice) = taken.notice {
            self.events.push_back(HubEvent::Notice(stream, notice));
        }
        if taken.frame {
            if let Err(broken) = s.within_limits(&self.limits) {
                return self.end_broken(stream, broken, now);
            }
            self.came(stream, taken.kind, now);
        }
        if let Some(track) = taken.wants_key {
            self.request_key_frame(stream, Some(track), now);
        }
        if let Some(codec) = taken.other_codec {
            self.let_strangers_go(stream, codec);
        }
    }

    /// A stream is not as it must be: it is over, for its source and for its subscribers.
    fn end_broken(&mut self, stream: StreamId, reason: Reason, now: Time) {
        if let Some(source) = self.streams.get(&stream).and_then(|s| s.source) {
            self.events.push_back(HubEvent::SourceDisplaced { stream, source, reason: reason.clone() });
        }
        self.end(stream, reason, now);
    }

    /// The pictures are of another codec from here on. Who takes none of the stream's pictures any more would look at the
    /// last one for ever; whoever joins anew gets what there is, or hears why not.
    fn let_strangers_go(&mut self, stream: StreamId, codec: Codec) {
        let Some(s) = self.streams.get(&stream) else { return };
        let pictures: Vec<Codec> = s.pictures().collect();
        let strange = |id: &SubscriberId| {
            let v = self.subscribers.get(id.slot).filter(|v| v.id == *id);
            v.is_some_and(|v| !pictures.iter().any(|c| v.takes(*c)))
        };
        let all: Vec<SubscriberId> = s.subscribers.iter().copied().filter(strange).collect();
        for id in all {
            self.remove(id);
            let text = format!(
                "the publisher went on with {} pictures, which this session did not agree to: connect again",
                codec.name()
            );
            self.events.push_back(HubEvent::Evict(id, Reason::local("codec_changed", text)));
        }
    }

    /// A bridge says what it makes out of the track `from` of a stream. Subscribers that cannot play that track, but
    /// can play this, get it.
    pub fn derive(&mut self, stream: StreamId, from: TrackId, params: CodecParams) {
        if let Some(s) = self.streams.get_mut(&stream) {
            s.derive(from, params, &self.limits);
        }
    }

    /// A bridge ended: newcomers are not given the last of what it made.
    pub fn derived_is_over(&mut self, stream: StreamId, track: TrackId) {
        if let Some(s) = self.streams.get_mut(&stream) {
            s.derived_is_over(track);
        }
    }

    /// Takes a packet of sound or a picture that a bridge made for the track that it derived (see [`TrackId::derived`]). `pts` is on
    /// the stream's own clock. What is not later than the packet before, or was made of what is over, is dropped
    /// and counted.
    pub fn derived(&mut self, stream: StreamId, track: TrackId, pts: i64, payload: Bytes, now: Time) {
        let Some(s) = self.streams.get_mut(&stream) else {
            self.stray += 1;
            return;
        };
        let taken = s.derived(track, pts, payload, now, &self.limits);
        if taken.frame {
            if let Err(broken) = s.within_limits(&self.limits) {
                return self.end_broken(stream, broken, now);
            }
            self.came(stream, taken.kind, now);
        }
    }

    /// Adds a note for viewers and the publisher to a stream, and has it told if it is new.
    pub fn note(&mut self, stream: StreamId, notice: Notice) {
        if let Some(notice) = self.streams.get_mut(&stream).and_then(|s| s.note(notice)) {
            self.events.push_back(HubEvent::Notice(stream, notice));
        }
    }

    /// A source leaves. The stream is held for `stream_hold_ms`, then it ends. Without effect if the source is not
    /// the stream's present one.
    pub fn unpublish(&mut self, stream: StreamId, source: SourceId, now: Time) {
        let Some(s) = self.streams.get_mut(&stream).filter(|s| s.source == Some(source)) else { return };
        s.source = None;
        for (track, asked) in &mut s.key_requests {
            asked.pending = false;
            self.timers.cancel(&Timer::KeyRequest(stream, *track));
        }
        self.events.push_back(HubEvent::SourceAway(stream));
        let at = now + Duration::from_millis(self.limits.stream_hold_ms);
        self.timers.set(Timer::Hold(stream), Deadline::new(at, "hub: hold time of a stream without source"));
    }

    /// Ends a stream at once: its subscribers are evicted, then it is gone. Without effect on an unknown stream.
    pub fn end(&mut self, stream: StreamId, reason: Reason, now: Time) {
        let Some(s) = self.streams.get(&stream) else { return };
        let subscribers: Vec<SubscriberId> = s.subscribers.iter().copied().collect();
        for id in subscribers {
            self.remove(id);
            self.events.push_back(HubEvent::Evict(id, reason.clone()));
        }
        if let Some(s) = self.streams.remove(&stream) {
            self.names.remove(&s.key);
            self.timers.cancel(&Timer::Hold(stream));
            for track in s.key_requests.keys() {
                self.timers.cancel(&Timer::KeyRequest(stream, *track));
            }
            self.timers.cancel(&Timer::Sound(stream));
            self.timers.cancel(&Timer::Merge(stream));
            let stats = Box::new(s.stats(now));
            self.events.push_back(HubEvent::Ended { stream, key: s.key, reason, stats });
            self.share();
        }
    }

    /// Adds a subscriber. It gets the configuration of the tracks that it accepts (of several renditions of one), then the
    /// cached group of pictures, then what comes. The publisher is asked for a key frame.
    ///
    /// # Errors
    /// `not_found` if there is no such stream; `too_many_subscribers`.
    pub fn subscribe(
        &mut self,
        stream: StreamId,
        accepts: CodecSet,
        now: Time,
    ) -> Result<SubscriberId, Reason> {
        self.subscribe_to(stream, accepts, Picks::One, now)
    }

    /// As [`Hub::subscribe`], for someone who takes all tracks.
    ///
    /// # Errors
    /// As there.
    pub fn subscribe_to(
        &mut self,
        stream: StreamId,
        accepts: CodecSet,
        picks: Picks,
        now: Time,
    ) -> Result<SubscriberId, Reason> {
        let Some(s) = self.streams.get_mut(&stream) else {
            return Err(Reason::peer("not_found", "there is no such stream here"));
        };
        let viewers: usize = s.audiences.values().sum();
        if viewers >= self.limits.stream_subscribers {
            return Err(Reason::limit(
                "too_many_subscribers",
                format!(
                    "{} has {viewers} viewers on this node, the limit; raise limits.stream_subscribers or add an edge",
                    s.key,
                ),
            ));
        }
        *s.audiences.entry(accepts).or_default() += 1;
        let pictures = s.tracks.iter().any(stream::Track::is_video);
        let id = self.admit(stream, accepts, (picks, false), now)?;
        if pictures {
            self.subscriber_wants_key(id, now);
        }
        Ok(id)
    }

    /// Takes back a note that no longer holds.
    pub fn take_back(&mut self, stream: StreamId, notice: Notice) {
        if let Some(s) = self.streams.get_mut(&stream) {
            s.notices.retain(|n| *n != notice);
        }
    }

    /// Adds a subscriber that feeds a bridge: it gets this track while it is of this codec, and nothing that bridges
    /// made. It counts neither as a viewer nor for the limit.
    ///
    /// # Errors
    /// `not_found` if there is no such stream.
    pub fn subscribe_bridge(
        &mut self,
        stream: StreamId,
        track: TrackId,
        codec: Codec,
        now: Time,
    ) -> Result<SubscriberId, Reason> {
        self.admit(stream, CodecSet::NONE.with(codec), (Picks::Track(track), true), now)
    }

    fn admit(
        &mut self,
        stream: StreamId,
        accepts: CodecSet,
        (picks, bridge): (Picks, bool),
        now: Time,
    ) -> Result<SubscriberId, Reason> {
        let Some(s) = self.streams.get_mut(&stream) else {
            return Err(Reason::peer("not_found", "there is no such stream here"));
        };
        let entry = self.subscribers.vacant_entry();
        let id = SubscriberId { serial: self.next_subscriber, slot: entry.key() };
        self.next_subscriber += 1;
        entry.insert(Subscriber::new(id, stream, s, accepts, (picks, bridge), now));
        s.subscribers.insert(id);
        self.ready.push_back(id);
        Ok(id)
    }

    /// Says how soon a subscriber is to be told of new frames; [`Pace::Riding`] if this was not called.
    pub fn set_pace(&mut self, subscriber: SubscriberId, pace: Pace) {
        if let Some(v) = self.subscribers.get_mut(subscriber.slot).filter(|v| v.id == subscriber) {
            v.pace = pace;
        }
    }

    /// Has a subscriber go on where it was before it came, after a frame that it had: it begins with that one in place of what a
    /// newcomer gets. Where that frame is no longer there, or lies far back, it stays a newcomer. Said before the first
    /// [`Hub::next`].
    pub fn resume(&mut self, subscriber: SubscriberId, epoch: Epoch, seq: u64) {
        if let Some(v) = self.subscribers.get_mut(subscriber.slot).filter(|v| v.id == subscriber)
            && let Some(at) = self.streams.get(&v.stream).and_then(|s| s.ring.find(epoch, seq))
        {
            v.resume(at);
        }
    }

    /// Removes a subscriber and answers with its numbers, or `None` if it is gone already.
    pub fn unsubscribe(&mut self, subscriber: SubscriberId) -> Option<SubscriberStats> {
        self.remove(subscriber)
    }

    fn remove(&mut self, id: SubscriberId) -> Option<SubscriberStats> {
        let v = self.subscribers.get(id.slot).filter(|v| v.id == id)?;
        let heard = v.progress;
        if v.is_lead() {
            self.disband(id, heard);
            return None;
        }
        self.fall_out(id, heard);
        let v = self.subscribers.remove(id.slot);
        self.timers.cancel(&Timer::Viewer(id));
        let s = self.streams.get_mut(&v.stream)?;
        s.subscribers.remove(&id);
        if !v.bridge
            && let Some(n) = s.audiences.get_mut(&v.accepts)
        {
            *n -= 1;
            if *n == 0 {
                s.audiences.remove(&v.accepts);
            }
        }
        // Names of those who left would pile up while no frame comes.
        if s.drained.len() > 2 * s.subscribers.len() + 16 {
            let all = &self.subscribers;
            s.drained.retain(|d| all.get(d.slot).is_some_and(|v| v.id == *d && v.drained));
        }
        Some(v.stats(s, None))
    }

    /// Takes the next item for a subscriber; `None` when it has everything (a `Ready` follows with the next frame)
    /// or is unknown. To be called only while the session has room for the item.
    pub fn next(&mut self, subscriber: SubscriberId, now: Time) -> Option<Delivery> {
        if self.subscribers.get(subscriber.slot)?.is_behind() {
            self.fall_out(subscriber, now);
        }
        let v = self.subscribers.get_mut(subscriber.slot).filter(|v| v.id == subscriber)?;
        let id = v.stream;
        let s = self.streams.get_mut(&id)?;
        let mut wants_key = None;
        let item = match v.next(s, now, &self.limits, &mut wants_key) {
            Next::Item(item) => match v.rightly(&item, self.limits.simulation) {
                Ok(()) => Some(item),
                Err(reason) => {
                    self.remove(subscriber);
                    self.events.push_back(HubEvent::Evict(subscriber, reason));
                    return None;
                }
            },
            Next::Drained => {
                if !std::mem::replace(&mut v.drained, true) {
                    s.drained.push(subscriber, Self::paced(v.pace, self.pacing));
                }
                self.timers.cancel(&Timer::Viewer(subscriber));
                None
            }
        };
        if let Some(shown) = v.shown(s) {
            self.events.push_back(HubEvent::Shown(subscriber, shown));
        }
        let wants_key = wants_key.and_then(|slot| Some(s.tracks.get(slot)?.id));
        if let Some(reason) = v.tell() {
            self.events.push_back(HubEvent::Slow(subscriber, reason));
        }
        if let Some(track) = wants_key {
            self.request_key_frame(id, Some(track), now);
        }
        item
    }

    /// Says that a subscriber's session has no room for another item. Ends with the next call of `next`.
    pub fn blocked(&mut self, subscriber: SubscriberId, now: Time) {
        let Some(v) = self.subscribers.get_mut(subscriber.slot).filter(|v| v.id == subscriber) else {
            return;
        };
        if let Some(at) = v.block(now, &self.limits) {
            self.timers.set(Timer::Viewer(subscriber), Deadline::new(at, "hub: a viewer takes nothing"));
        }
    }

    /// Says that a subscriber's peer accepted bytes.
    pub fn progress(&mut self, subscriber: SubscriberId, bytes: usize, now: Time) {
        if bytes > 0
            && let Some(v) = self.subscribers.get_mut(subscriber.slot).filter(|v| v.id == subscriber)
        {
            v.progress(now);
        }
    }

    /// Asks the stream's source for a key frame of this track (`None`: of each), at most `key_requests_per_s` times a
    /// second; a request that comes too early is kept and forgotten when a key frame comes by itself.
    pub fn request_key_frame(&mut self, stream: StreamId, track: Option<TrackId>, now: Time) {
        let Some(s) = self.streams.get_mut(&stream) else { return };
        let Some(source) = s.source else { return };
        // Where there is one track, that is meant.
        let track = track.filter(|_| s.grouped).map(|id| s.source_of(id));
        let Some(pause) = 1_000_000_000u64.checked_div(u64::from(self.limits.key_requests_per_s)) else {
            return;
        };
        let asked = s.key_requests.entry(track).or_default();
        let next = asked.last.map_or(now, |last| last + Duration::from_nanos(pause));
        let timer = Timer::KeyRequest(stream, track);
        if next <= now {
            (asked.last, asked.pending) = (Some(now), false);
            self.timers.cancel(&timer);
            self.events.push_back(HubEvent::KeyFrameWanted { stream, source, track });
        } else if !std::mem::replace(&mut asked.pending, true) {
            self.timers.set(timer, Deadline::new(next, "hub: next key frame request"));
        }
    }

    /// When the hub wants its next tick.
    pub fn deadline(&self) -> Option<Deadline> {
        self.timers.next()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Time) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Hold(id) => {
                    let text = format!("no source came back within {} ms", self.limits.stream_hold_ms);
                    self.end(id, Reason::peer(SOURCE_GONE, text), now);
                }
                Timer::KeyRequest(id, track) => {
                    let asked = self.streams.get(&id).and_then(|s| s.key_requests.get(&track));
                    if asked.is_some_and(|k| k.pending) {
                        self.request_key_frame(id, track, now);
                    }
                }
                Timer::Viewer(id) => self.look_at(id, now),
                Timer::Sound(id) => self.wake(id, Pace::Riding),
                Timer::Merge(id) => self.wake(id, Pace::Merged),
            }
        }
    }

    fn look_at(&mut self, id: SubscriberId, now: Time) {
        let Some(v) = self.subscribers.get(id.slot).filter(|v| v.id == id) else { return };
        if let Some(reason) = v.verdict(now, &self.limits) {
            self.remove(id);
            self.events.push_back(HubEvent::Evict(id, reason));
        } else if let Some(at) = v.look_again(&self.limits) {
            self.timers.set(Timer::Viewer(id), Deadline::new(at, "hub: a viewer takes nothing"));
        }
    }

    /// The stream of a name.
    pub fn find(&self, key: &StreamKey) -> Option<StreamId> {
        self.names.get(key).copied()
    }

    /// The name of a stream.
    pub fn key(&self, stream: StreamId) -> Option<&StreamKey> {
        self.streams.get(&stream).map(|s| &s.key)
    }

    /// All streams, in the order in which they began.
    pub fn streams(&self) -> impl Iterator<Item = (StreamId, &StreamKey)> {
        self.streams.iter().map(|(id, s)| (*id, &s.key))
    }

    /// Whether a stream has a source, or `None` if it is unknown.
    pub fn state(&self, stream: StreamId) -> Option<StreamState> {
        self.streams.get(&stream).map(|s| match s.source {
            Some(_) => StreamState::Live,
            None => StreamState::Held,
        })
    }

    /// The present source of a stream.
    pub fn source(&self, stream: StreamId) -> Option<SourceId> {
        self.streams.get(&stream)?.source
    }

    /// The latest epoch of a stream.
    pub fn epoch(&self, stream: StreamId) -> Option<Epoch> {
        self.streams.get(&stream).map(|s| s.epoch)
    }

    /// How long nothing was heard from a stream's source (since it left, where it has none).
    pub fn silent_for(&self, stream: StreamId, now: Time) -> Option<Duration> {
        self.streams.get(&stream).map(|s| now.since(s.heard))
    }

    /// The tracks that a stream's present (or last) source announced, with their newest configuration.
    pub fn tracks(&self, stream: StreamId) -> Vec<(TrackId, Arc<CodecConfig>)> {
        let Some(s) = self.streams.get(&stream) else { return Vec::new() };
        let announced = s.tracks.iter().filter(|t| t.active && t.derived.is_none());
        announced.filter_map(|t| Some((t.id, t.config.clone()?))).collect()
    }

    /// In which order the pictures of a stream's track are shown, as far as was seen.
    pub fn reordering(&self, stream: StreamId, track: TrackId) -> Reordering {
        self.streams.get(&stream).map_or(Reordering::None, |s| s.reordering_of(track))
    }

    /// The sets of codecs that the subscribers of a stream take.
    pub fn audiences(&self, stream: StreamId) -> impl Iterator<Item = CodecSet> {
        self.streams.get(&stream).into_iter().flat_map(|s| s.audiences.keys().copied())
    }

    /// What viewers and the publisher of a stream should know at present.
    pub fn notices(&self, stream: StreamId) -> &[Notice] {
        self.streams.get(&stream).map_or(&[], |s| &s.notices)
    }

    /// Who subscribes to a stream, in the order of joining; what feeds bridges is left out.
    pub fn subscribers(&self, stream: StreamId) -> impl Iterator<Item = SubscriberId> {
        let all = self.streams.get(&stream).into_iter().flat_map(|s| s.subscribers.iter().copied());
        all.filter(|id| self.subscribers.get(id.slot).is_some_and(|v| !v.bridge))
    }

    /// What a subscriber takes.
    pub fn accepts(&self, subscriber: SubscriberId) -> Option<CodecSet> {
        self.subscribers.get(subscriber.slot).filter(|v| v.id == subscriber).map(|v| v.accepts)
    }

    /// The stream of a subscriber.
    pub fn stream_of(&self, subscriber: SubscriberId) -> Option<StreamId> {
        self.subscribers.get(subscriber.slot).filter(|v| v.id == subscriber).map(|v| v.stream)
    }

    /// A stream's numbers. Costs time in proportion to its subscribers.
    pub fn stats(&self, stream: StreamId, now: Time) -> Option<StreamStats> {
        let s = self.streams.get(&stream)?;
        let mut stats = s.stats(now);
        for id in &s.subscribers {
            let v = self.subscribers.get(id.slot).filter(|v| !v.bridge);
            match v.map(|v| self.lead_of(v).unwrap_or(v).state(s)) {
                Some(SubscriberState::WaitingForKey) => stats.waiting += 1,
                Some(SubscriberState::Live) => stats.live += 1,
                Some(SubscriberState::Lagging) => stats.lagging += 1,
                None => {}
            }
        }
        Some(stats)
    }

    /// What a stream brings now, bits a second; 0: not known.
    pub fn bits_per_s(&self, stream: StreamId, now: Time) -> u64 {
        self.streams.get(&stream).map_or(0, |s| s.stats(now).bits_per_s)
    }

    /// A subscriber's numbers.
    pub fn subscriber_stats(&self, subscriber: SubscriberId) -> Option<SubscriberStats> {
        let v = self.subscribers.get(subscriber.slot).filter(|v| v.id == subscriber)?;
        Some(v.stats(self.streams.get(&v.stream)?, self.lead_of(v)))
    }

    /// Frames handed in for streams that were gone.
    pub fn stray_frames(&self) -> u64 {
        self.stray
    }
}
