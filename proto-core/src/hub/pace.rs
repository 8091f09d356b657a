//! When subscribers that have taken everything are told that there is more.
//!
//! What a viewer costs is above all what is done per message to the kernel, so sound waits a moment for the next picture
//! where many watch: both then leave in one message. Viewers over TCP may be made to wait for more (`tcp_merge_ms`).

use super::delivery::CatchesUp;
use super::event::HubEvent;
use super::{Hub, StreamId, SubscriberId, Timer};
use crate::media::frame::FrameKind;
use crate::simulation::Site;
use crate::time::{Deadline, Time};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long frames may wait so that fewer messages carry them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pacing {
    /// Sound waits at most this long for the next picture, milliseconds; 0: never.
    pub sound_wait_ms: u64,
    /// Viewers of a stream on this node from which on sound waits; below, it leaves at once.
    pub sound_wait_viewers: usize,
    /// Frames for viewers over TCP are collected for this long, milliseconds; 0: each leaves at once.
    pub tcp_merge_ms: u64,
}

impl Default for Pacing {
    fn default() -> Pacing {
        // One picture at 30 a second.
        Pacing { sound_wait_ms: 34, sound_wait_viewers: 100, tcp_merge_ms: 0 }
    }
}

/// How soon a subscriber is told of a new frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// At once: other nodes and bridges, whose delay would add to that of their viewers.
    Prompt,
    /// Of pictures at once, of sound with the next picture where that is near ([`Pacing::sound_wait_ms`]).
    #[default]
    Riding,
    /// Every [`Pacing::tcp_merge_ms`], of all that came meanwhile; [`Pace::Riding`] where that is 0.
    Merged,
}

/// The subscribers of a stream that have taken everything, by their pace. May name some that left.
#[derive(Debug, Default)]
pub(super) struct Drained {
    prompt: Vec<SubscriberId>,
    riding: Vec<SubscriberId>,
    merged: Vec<SubscriberId>,
    /// When a picture came last, and how long after the one before.
    picture: Option<(Time, Duration)>,
}

impl Drained {
    fn list(&mut self, pace: Pace) -> &mut Vec<SubscriberId> {
        match pace {
            Pace::Prompt => &mut self.prompt,
            Pace::Riding => &mut self.riding,
            Pace::Merged => &mut self.merged,
        }
    }

    pub(super) fn push(&mut self, id: SubscriberId, pace: Pace) {
        self.list(pace).push(id);
    }

    pub(super) fn len(&self) -> usize {
        self.prompt.len() + self.riding.len() + self.merged.len()
    }

    /// Forgets those of whom `keep` says so.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&SubscriberId) -> bool) {
        [&mut self.prompt, &mut self.riding, &mut self.merged].into_iter().for_each(|l| l.retain(&mut keep));
    }

    /// A picture came.
    pub(super) fn picture(&mut self, now: Time) {
        let gap = self.picture.map_or(Duration::MAX, |(last, _)| now.since(last));
        self.picture = Some((now, gap));
    }

    /// Whether sound should wait for the next picture: many watch, and it is near, going by the last two. `chosen`: few do.
    /// `in_step`: so many beside those in the list.
    pub(super) fn sound_rides(&self, now: Time, pacing: Pacing, in_step: usize, chosen: bool) -> bool {
        let most = Duration::from_millis(pacing.sound_wait_ms);
        let many = self.riding.len() + in_step >= pacing.sound_wait_viewers || chosen;
        let near = self.picture.is_some_and(|(last, gap)| {
            let since = now.since(last);
            gap <= 2 * most && since < gap + most && gap.saturating_sub(since) <= most
        });
        many && near
    }

    /// Takes out those of one pace; to be given back by [`Drained::restore`], so that the memory stays.
    pub(super) fn take(&mut self, pace: Pace) -> Vec<SubscriberId> {
        std::mem::take(self.list(pace))
    }

    /// Gives back the list of a pace, emptied.
    pub(super) fn restore(&mut self, pace: Pace, list: Vec<SubscriberId>) {
        let now = self.list(pace);
        if now.is_empty() && list.is_empty() {
            *now = list;
        }
    }
}

impl Hub {
    /// A frame came: those who had taken everything are told, each at its pace.
    pub(super) fn came(&mut self, stream: StreamId, kind: FrameKind, now: Time) {
        let Some(s) = self.streams.get_mut(&stream) else { return };
        let Pacing { sound_wait_ms: ride, tcp_merge_ms: merge, .. } = self.pacing;
        let switches = self.limits.simulation;
        let rides = kind == FrameKind::Audio
            && s.drained.sound_rides(
                now,
                self.pacing,
                s.in_step,
                switches.happens(Site::SoundWaits, now.as_nanos()),
            );
        if matches!(kind, FrameKind::Key | FrameKind::Delta) {
            s.drained.picture(now);
        }
        self.wake(stream, Pace::Prompt);
        if !rides {
            self.timers.cancel(&Timer::Sound(stream));
            self.wake(stream, Pace::Riding);
        } else if !self.timers.has(&Timer::Sound(stream)) {
            let at = now + Duration::from_millis(ride);
            self.timers.set(Timer::Sound(stream), Deadline::new(at, "hub: sound waits for a picture"));
        }
        if !self.timers.has(&Timer::Merge(stream)) && merge > 0 {
            let at = now + Duration::from_millis(merge);
            self.timers.set(Timer::Merge(stream), Deadline::new(at, "hub: frames are merged"));
        }
    }

    /// Tells those of one pace who had taken everything that there is more.
    pub(super) fn wake(&mut self, stream: StreamId, pace: Pace) {
        let Some(s) = self.streams.get_mut(&stream) else { return };
        let mut list = s.drained.take(pace);
        for id in list.drain(..) {
            // Who fell in behind somebody meanwhile is passed over.
            if let Some(v) = self.subscribers.get_mut(id.slot).filter(|v| v.id == id && v.drained) {
                v.drained = false;
                self.ready.push_back(id);
            }
        }
        s.drained.restore(pace, list);
    }

    /// Whether a subscriber is a newcomer who is given what was before it came: out of the cache of a group of pictures, or, as
    /// the first on a node that pulls the stream, as it comes from there.
    pub fn catches_up(&self, subscriber: SubscriberId, now: Time) -> Option<CatchesUp> {
        let v = self.subscribers.get(subscriber.slot).filter(|v| v.id == subscriber)?;
        if v.is_cached() {
            return Some(CatchesUp::Cached { bits_per_s: self.streams.get(&v.stream)?.bits_per_s(now) });
        }
        v.is_new(now, &self.limits).then_some(CatchesUp::New)
    }

    /// Takes out the next event. Those who can have more come last: they may be left to wait for a turn
    /// ([`Hub::poll_news`]), and hear nothing that is older than what the others heard.
    pub fn poll_event(&mut self) -> Option<HubEvent> {
        if let Some(event) = self.poll_news() {
            return Some(event);
        }
        loop {
            let id = self.ready.pop_front()?;
            if self.subscribers.get(id.slot).is_some_and(|v| v.id == id) {
                return Some(HubEvent::Ready(id));
            }
        }
    }

    /// As [`Hub::poll_event`], without those who can have more.
    pub fn poll_news(&mut self) -> Option<HubEvent> {
        self.events.pop_front()
    }

    /// Whether somebody can have more.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}
