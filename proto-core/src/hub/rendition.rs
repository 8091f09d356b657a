//! Rendition groups: several tracks of one kind that show the same (simulcast, multitrack). A subscriber that plays one
//! picture is given the one that its link has room for, and goes over to another at a key frame of that one only.

use super::SubscriberId;
use super::clock::MIN_STEP;
use super::stream::{Stream, Track};
use crate::media::frame::FrameKind;
use crate::media::track::{CodecSet, TrackId};
use crate::time::Time;
use std::time::Duration;

/// Which of the tracks that it takes a subscriber is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Picks {
    /// Of pictures the rendition that its link has room for, of sound the first track.
    #[default]
    One,
    /// All of them: other nodes, and players that tell tracks apart.
    All,
    /// This one: what feeds a bridge.
    Track(TrackId),
}

/// What a subscriber is shown of a stream with several renditions, or of one that is too much for its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The track of its pictures.
    pub track: TrackId,
    /// Their size in pixels, where it is known.
    pub size: Option<(u32, u32)>,
    /// How many renditions it could be shown now.
    pub of: usize,
    /// Its link has no room for the least of them: it is shown key frames only.
    pub thin: bool,
}

/// A rendition counts as stopped if nothing came of it for so long while another went on: a publisher that has no room
/// for a layer stops it without a word.
const STOPPED: Duration = Duration::from_millis(700);
/// What is best for a subscriber is looked at so often, besides at each key frame.
const AIM: Duration = Duration::from_millis(100);
/// A key frame that does not come is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A rendition must leave this share of the room, percent, before a subscriber goes up to it.
const UP: u64 = 110;
/// For whom the least is too much by this share, percent, is shown key frames only …
const TOO_THIN: u64 = 110;
/// … until it fits again.
const THICK: u64 = 100;
/// Of what one rendition brought, the most counts, and is forgotten in so long, milliseconds: key frames are seconds apart.
const FORGOTTEN_MS: u64 = 10_000;
/// After a subscriber over TCP did not keep up, it stays below that rendition for so long, and for twice as long with
/// each time that it fails again.
const STAY_DOWN: Duration = Duration::from_secs(10);
/// At most for so long.
const STAY_DOWN_MOST: Duration = Duration::from_secs(160);

/// Pictures that would be shown before the last one stand so far apart instead, nanoseconds: some ticks of RTP's 90 kHz.
const SHOWN_STEP: i64 = 50_000;

impl Track {
    /// By what renditions are told apart: pixels, then bytes.
    fn rank(&self) -> (u64, u64, std::cmp::Reverse<TrackId>) {
        let size = self.used.as_ref().and_then(|c| c.params.size());
        let area = size.map_or(0, |(w, h)| u64::from(w) * u64::from(h));
        (area, self.usual(), std::cmp::Reverse(self.id))
    }

    fn goes_on(&self, newest: Time) -> bool {
        self.active && newest.since(self.heard) <= STOPPED
    }
}

impl Stream {
    /// The renditions that someone who takes `accepts` could be shown now.
    fn renditions(&self, accepts: CodecSet) -> impl Iterator<Item = (usize, &Track)> + Clone {
        let newest = self.tracks.iter().filter(|t| t.is_video()).map(|t| t.heard).max().unwrap_or_default();
        self.tracks.iter().enumerate().filter(move |(_, t)| {
            t.is_video()
                && t.goes_on(newest)
                && t.used.as_ref().is_some_and(|c| t.wanted(c.params.codec(), accepts))
        })
    }

    /// The one track of sound for someone who takes `accepts`: the first, or what is made of it.
    fn sound(&self, accepts: CodecSet) -> Option<(usize, &Track)> {
        let heard = self.tracks.iter().enumerate().filter(|(_, t)| {
            let config = t.used.as_ref().or(t.config.as_ref());
            t.active
                && config.is_some_and(|c| !c.params.codec().is_video() && t.wanted(c.params.codec(), accepts))
        });
        heard.min_by_key(|(_, t)| t.derived.map_or(t.id, |(from, _)| from))
    }
}

/// What a subscriber is given of groups of renditions.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) picks: Picks,
    /// The slot of the pictures that it is given now, and of those that it goes over to at their next key frame.
    at: Option<usize>,
    to: Option<usize>,
    aimed: Time,
    asked: Option<Time>,
    /// What its link carries, bits a second.
    room: Option<u64>,
    thin: bool,
    /// What the one rendition of a stream brings, bits a second: the most of the last seconds.
    cost: u64,
    /// The rendition of this slot and better ones were too much, until when, and how often that was so.
    cap: Option<(usize, Time)>,
    failures: u32,
    /// The highest dts of a picture that it was given.
    last: i64,
    /// The pts of the last picture that it was given, if it shows them as they come.
    shown: i64,
    told: Option<Shown>,
}

impl Choice {
    pub(super) fn new(picks: Picks, stream: &Stream, accepts: CodecSet) -> Choice {
        let best = stream.renditions(accepts).max_by_key(|(_, t)| t.rank());
        Choice {
            picks,
            at: best.map(|(slot, _)| slot),
            to: None,
            aimed: Time::ZERO,
            asked: None,
            room: None,
            thin: false,
            cost: 0,
            cap: None,
            failures: 0,
            last: i64::MIN,
            shown: i64::MIN,
            told: None,
        }
    }

    /// Whether it matters for a stream at all.
    fn matters(&self, stream: &Stream) -> bool {
        stream.grouped && self.picks == Picks::One
    }

    /// Nothing is known of its link that could make a difference to others of the same stream.
    pub(super) fn is_free(&self) -> bool {
        !self.thin && self.room.is_none() && self.picks == Picks::One
    }

    /// Its link carries so many bits a second.
    pub(super) fn set_room(&mut self, room: Option<u64>) {
        self.room = room;
        self.aimed = Time::ZERO;
    }

    /// Whether a track is played now, as far as groups go: what a newcomer is greeted with.
    pub(super) fn plays(&self, stream: &Stream, slot: usize, accepts: CodecSet) -> bool {
        let Some(track) = stream.tracks.get(slot) else { return false };
        match self.picks {
            Picks::All => true,
            Picks::Track(only) => track.id == only,
            Picks::One if !stream.grouped => true,
            Picks::One if track.is_video() => self.at == Some(slot),
            Picks::One => stream.sound(accepts).is_none_or(|(best, _)| best == slot),
        }
    }

    /// Whether a frame of a track may be given: it is played, or played from this key frame on.
    pub(super) fn lets(&self, stream: &Stream, slot: usize, kind: FrameKind, accepts: CodecSet) -> bool {
        let key = kind == FrameKind::Key;
        if kind == FrameKind::Data {
            return !matches!(self.picks, Picks::Track(_));
        }
        self.plays(stream, slot, accepts)
            || (key && self.matters(stream) && (self.to == Some(slot) || self.at.is_none()))
    }

    /// Whether a picture is left out because the link carries key frames only.
    pub(super) fn is_thin(&self) -> bool {
        self.thin
    }

    /// A picture of a track is given. Answers the slot that it takes the place of, if it takes one's.
    pub(super) fn given(&mut self, stream: &Stream, slot: usize) -> Option<Option<usize>> {
        if !self.matters(stream) || self.at == Some(slot) {
            return None;
        }
        (self.to, self.asked) = (None, None);
        Some(self.at.replace(slot))
    }

    /// Times of a picture, so that they rise over a change of renditions as well: those of two layers may be the same. For
    /// who shows pictures as they come they also rise from those of the publisher to what a bridge makes of the same.
    pub(super) fn rising(&mut self, stream: &Stream, accepts: CodecSet, times: (i64, i64)) -> (i64, i64) {
        let (mut dts, mut pts) = times;
        if self.matters(stream) {
            let shift = self.last.saturating_add(MIN_STEP).saturating_sub(dts).max(0);
            (dts, pts) = (dts.saturating_add(shift), pts.saturating_add(shift));
            self.last = dts;
        }
        if !accepts.has_reordered() {
            if pts <= self.shown {
                pts = self.shown.saturating_add(SHOWN_STEP);
            }
            self.shown = pts;
        }
        (dts, pts)
    }

    /// It did not keep up. Where there is less to give, it is given less for a while.
    pub(super) fn fell_behind(&mut self, stream: &Stream, now: Time) {
        let at = self.at.filter(|_| self.matters(stream));
        let Some(at) = at.filter(|_| self.cap.is_none_or(|(_, until)| until <= now + STAY_DOWN / 2)) else {
            return;
        };
        let stay = STAY_DOWN.saturating_mul(1 << self.failures.min(8)).min(STAY_DOWN_MOST);
        self.cap = Some((at, now + stay));
        self.failures = self.failures.saturating_add(1);
        self.aimed = Time::ZERO;
    }

    /// Looks at what is best now. Answers a track of which a key frame is to be asked for.
    pub(super) fn aim(&mut self, stream: &Stream, accepts: CodecSet, key: bool, now: Time) -> Option<usize> {
        if !self.matters(stream) {
            return self.weigh(stream, accepts, now);
        }
        if !key && now < self.aimed + AIM {
            return None;
        }
        self.aimed = now;
        self.cap = self.cap.filter(|(_, until)| now < *until);
        let cap = self.cap.and_then(|(slot, _)| stream.tracks.get(slot)).map(Track::rank);
        let all = stream.renditions(accepts);
        let sound = stream.sound(accepts).map_or(0, |(_, t)| t.bits_per_s(now));
        let cost = |t: &Track| t.bits_per_s(now).saturating_add(sound);
        let at = self.at.and_then(|slot| stream.tracks.get(slot)).map(Track::rank);
        let fits = |t: &Track| {
            let rank = t.rank();
            let share = if at.is_some_and(|at| rank > at) { UP } else { 100 };
            cap.is_none_or(|cap| rank < cap)
                && self.room.is_none_or(|room| cost(t).saturating_mul(share) / 100 <= room)
        };
        let least = all.clone().min_by_key(|(_, t)| t.rank());
        let best = all.clone().filter(|(_, t)| fits(t)).max_by_key(|(_, t)| t.rank()).or(least);
        let was = self.thin;
        if let (Some(room), Some((_, t))) = (self.room, least) {
            let share = if was { THICK } else { TOO_THIN };
            self.thin = cost(t).saturating_mul(100) > room.saturating_mul(share);
        } else {
            self.thin = false;
        }
        let best = best.map(|(slot, _)| slot);
        let goal = best.filter(|slot| Some(*slot) != self.at);
        if goal != self.to {
            (self.to, self.asked) = (goal, None);
        }
        let waits = match (goal, was && !self.thin) {
            (Some(slot), _) => slot,
            // Pictures go on, and the next key frame may be far.
            (None, true) => return self.at,
            (None, false) => return None,
        };
        if self.asked.is_some_and(|at| now < at + ASK_AGAIN) {
            return None;
        }
        self.asked = Some(now);
        Some(waits)
    }

    /// As [`Choice::aim`], of a stream with one rendition: all of it, or its key frames.
    fn weigh(&mut self, stream: &Stream, accepts: CodecSet, now: Time) -> Option<usize> {
        if (self.room.is_none() && !self.thin) || now < self.aimed + AIM || self.picks != Picks::One {
            return None;
        }
        let passed = now.since(self.aimed).min(STOPPED).as_millis() as u64;
        self.aimed = now;
        let was = self.thin;
        let (slot, cost) = self.alone(stream, accepts, now)?;
        self.cost = cost.max(self.cost - self.cost * passed / FORGOTTEN_MS);
        self.thin = self.room.is_some_and(|room| {
            let share = if was { THICK } else { TOO_THIN };
            self.cost.saturating_mul(100) > room.saturating_mul(share)
        });
        // Pictures go on, and the next key frame may be far.
        (was && !self.thin).then_some(slot)
    }

    /// The one rendition, and what it brings now together with the sound, bits a second.
    fn alone(&self, stream: &Stream, accepts: CodecSet, now: Time) -> Option<(usize, u64)> {
        let (slot, t) = stream.renditions(accepts).max_by_key(|(_, t)| t.rank())?;
        let sound = stream.sound(accepts).map_or(0, |(_, t)| t.bits_per_s(now));
        Some((slot, t.bits_per_s(now).saturating_add(sound)))
    }

    /// What its link would have to carry for the next better rendition, or for more than key frames, bits a second.
    fn goal(&self, stream: &Stream, accepts: CodecSet, now: Time) -> Option<u64> {
        if !self.matters(stream) {
            let room = self.room.filter(|_| self.picks == Picks::One)?;
            let (_, cost) = self.alone(stream, accepts, now)?;
            let cost = cost.max(self.cost);
            return (cost > room).then_some(cost.saturating_mul(UP + 5) / 100);
        }
        let at =
            self.to.or(self.at).and_then(|slot| stream.tracks.get(slot)).filter(|_| self.matters(stream))?;
        let better = |t: &Track| if self.thin { t.rank() >= at.rank() } else { t.rank() > at.rank() };
        let next = stream.renditions(accepts).filter(|(_, t)| better(t)).min_by_key(|(_, t)| t.rank());
        let sound = stream.sound(accepts).map_or(0, |(_, t)| t.bits_per_s(now));
        let (_, next) = next?;
        Some(next.bits_per_s(now).saturating_add(sound).saturating_mul(UP + 5) / 100)
    }

    /// The slot of which only a key frame helps: what it goes over to, or what it is given.
    pub(super) fn waits_for(&self) -> Option<usize> {
        self.to.or(self.at)
    }

    /// What it is shown, where there is a choice.
    pub(super) fn shown(&self, stream: &Stream, accepts: CodecSet) -> Option<Shown> {
        let track = if self.matters(stream) {
            self.at.and_then(|slot| stream.tracks.get(slot))?
        } else {
            // Where there is no choice, that it is shown less, or again all.
            Some(()).filter(|_| self.thin || self.told.is_some_and(|t| t.thin))?;
            stream.renditions(accepts).max_by_key(|(_, t)| t.rank())?.1
        };
        let size = track.used.as_ref().and_then(|c| c.params.size());
        let of = stream.renditions(accepts).count();
        Some(Shown { track: track.id, size, of, thin: self.thin })
    }

    /// What it is shown, if that is other than what was told before.
    pub(super) fn news(&mut self, stream: &Stream, accepts: CodecSet) -> Option<Shown> {
        let same = |a: Shown, b: Shown| (a.track, a.size, a.thin) == (b.track, b.size, b.thin);
        // On its way to the least there is nothing to say yet.
        let shown = self.shown(stream, accepts).filter(|s| !s.thin || self.to.is_none())?;
        if self.told.is_some_and(|told| same(told, shown)) {
            return None;
        }
        self.told = Some(shown);
        Some(shown)
    }
}

impl super::Hub {
    /// Says what a subscriber's link carries, bits a second, all tracks together; `None`: not known. Of a stream with
    /// several renditions it is then given what fits. Answers what it would have to carry for something better, if there
    /// is anything.
    pub fn set_room(&mut self, subscriber: SubscriberId, room: Option<u64>, now: Time) -> Option<u64> {
        let v = self.subscribers.get_mut(subscriber.slot).filter(|v| v.id == subscriber)?;
        v.choice.set_room(room);
        v.choice.goal(self.streams.get(&v.stream)?, v.accepts, now)
    }

    /// A subscriber cannot go on without a key frame of what it is shown.
    pub fn subscriber_wants_key(&mut self, subscriber: SubscriberId, now: Time) {
        let Some(v) = self.subscribers.get(subscriber.slot).filter(|v| v.id == subscriber) else { return };
        let stream = v.stream;
        let track = match v.choice.picks {
            Picks::One => v.choice.waits_for(),
            Picks::All | Picks::Track(_) => None,
        };
        let track = track.and_then(|slot| Some(self.streams.get(&stream)?.tracks.get(slot)?.id));
        self.request_key_frame(stream, track, now);
    }

    /// The renditions of its pictures that a stream has for someone who takes `accepts`.
    pub fn renditions(&self, stream: super::StreamId, accepts: CodecSet) -> usize {
        self.streams.get(&stream).map_or(0, |s| s.renditions(accepts).count())
    }
}
