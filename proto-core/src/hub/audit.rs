//! The hub's numbers for checkers: cheap to take, and whether they add up (S5) and stay within the limits (S6).

use super::{Hub, SourceId, StreamId, SubscriberId};
use crate::error::Broken;
use crate::ids::Epoch;
use crate::media::key::StreamKey;

/// One stream as a checker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamAudit {
    /// Its number.
    pub id: StreamId,
    /// Its name.
    pub key: StreamKey,
    /// The epoch of its latest source.
    pub epoch: Epoch,
    /// Its source, where it has one.
    pub source: Option<SourceId>,
    /// Frames that sources handed in.
    pub offered: u64,
    /// Frames dropped on the way in.
    pub dropped: u64,
    /// Frames kept: those that left the ring since, and those in it.
    pub kept: u64,
    /// Frames in the ring.
    pub ring_frames: u64,
    /// Bytes in the ring.
    pub ring_bytes: u64,
    /// Subscribers.
    pub subscribers: usize,
}

/// One subscriber as a checker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriberAudit {
    /// Its number.
    pub id: SubscriberId,
    /// Its stream.
    pub stream: StreamId,
    /// Frames that the stream had for it.
    pub offered: u64,
    /// Frames that it was handed.
    pub delivered: u64,
    /// Frames that it was not handed, and why was counted.
    pub dropped: u64,
    /// Frames that wait for it.
    pub pending: u64,
}

impl Hub {
    /// A number that changes whenever a stream or a subscriber comes or goes.
    pub fn shape(&self) -> u64 {
        let n = |n: usize| n as u64;
        self.next_stream
            .wrapping_mul(31)
            .wrapping_add(n(self.streams.len()))
            .wrapping_mul(31)
            .wrapping_add(self.next_subscriber)
            .wrapping_mul(31)
            .wrapping_add(n(self.subscribers.len()))
    }

    /// All streams, in the order in which they began.
    pub fn audit_streams(&self) -> impl Iterator<Item = StreamAudit> {
        self.streams.iter().map(|(id, s)| {
            let (offered, dropped, kept) = s.balance();
            StreamAudit {
                id: *id,
                key: s.key.clone(),
                epoch: s.epoch,
                source: s.source,
                offered,
                dropped,
                kept,
                ring_frames: s.ring.len() as u64,
                ring_bytes: s.ring.bytes(),
                subscribers: s.subscribers.len(),
            }
        })
    }

    /// All subscribers.
    pub fn audit_subscribers(&self) -> impl Iterator<Item = SubscriberAudit> {
        self.subscribers.iter().filter_map(|(_, v)| {
            let stream = self.streams.get(&v.stream).filter(|_| !v.is_lead())?;
            let (offered, delivered, dropped, pending) = v.balance(stream, self.lead_of(v));
            Some(SubscriberAudit { id: v.id, stream: v.stream, offered, delivered, dropped, pending })
        })
    }

    /// How many subscribers and timers there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.subscribers.len() - self.leads(), self.timers.len())
    }

    /// How many lead others, and are no subscribers themselves.
    pub fn leads(&self) -> usize {
        self.subscribers.iter().filter(|(_, v)| v.is_lead()).count()
    }

    /// Whether its tables agree (S7), its counts add up (S5) and its limits hold (S6).
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(&self) -> Result<(), Broken> {
        let limits = &self.limits;
        let n = self.streams.len();
        Broken::unless(n <= limits.streams, "S6", || {
            format!("{n} streams, limits.streams is {}", limits.streams)
        })?;
        Broken::unless(self.names.len() == n, "S7", || format!("{} names of {n} streams", self.names.len()))?;
        let mut members = 0;
        for (id, s) in &self.streams {
            let key = &s.key;
            Broken::unless(self.names.get(key) == Some(id), "S7", || {
                format!("the name {key} leads to {:?}, not to {id:?}", self.names.get(key))
            })?;
            let (offered, dropped, kept) = s.balance();
            Broken::unless(offered == dropped + kept, "S5", || {
                format!("{key}: {offered} frames came in, {dropped} were dropped and {kept} kept")
            })?;
            let held = s.ring.len() as u64;
            let gone = s.ring.first();
            Broken::unless(kept == gone + held, "S5", || {
                format!("{key}: {kept} frames kept, {gone} left the ring and {held} are in it")
            })?;
            let (frames, bytes) = (limits.ring_frames as u64, limits.ring_bytes as u64);
            Broken::unless(held <= frames.max(1), "S6", || {
                format!("{key}: {held} frames in the ring, limits.ring_frames is {frames}")
            })?;
            Broken::unless(s.ring.bytes() <= bytes || held == 1, "S6", || {
                format!("{key}: {} bytes in the ring, limits.ring_bytes is {bytes}", s.ring.bytes())
            })?;
            let bridges =
                s.subscribers.iter().filter(|id| self.subscribers.get(id.slot).is_some_and(|v| v.bridge));
            let subscribers = s.subscribers.len() - bridges.count();
            let counted: usize = s.audiences.values().sum();
            Broken::unless(counted == subscribers, "S7", || {
                format!("{key}: {subscribers} subscribers, {counted} counted by what they take")
            })?;
            Broken::unless(subscribers <= limits.stream_subscribers, "S6", || {
                format!("{key}: {subscribers} subscribers, the limit is {}", limits.stream_subscribers)
            })?;
            Broken::unless(s.tracks.len() <= limits.stream_tracks, "S6", || {
                format!("{key}: {} tracks, the limit is {}", s.tracks.len(), limits.stream_tracks)
            })?;
            members += s.subscribers.len();
        }
        let all = self.subscribers.len() - self.leads();
        Broken::unless(members == all, "S7", || {
            format!("streams name {members} subscribers, there are {all}")
        })?;
        self.verify_subscribers()
    }

    fn verify_subscribers(&self) -> Result<(), Broken> {
        let led: u64 = self.subscribers.iter().filter(|(_, v)| v.is_lead()).map(|(_, v)| v.weight()).sum();
        let mut follow = 0;
        for (_, v) in self.subscribers.iter().filter(|(_, v)| !v.is_lead()) {
            let Some(s) = self.streams.get(&v.stream).filter(|s| s.subscribers.contains(&v.id)) else {
                let text = format!("subscriber {} belongs to {:?}, which does not know it", v.id, v.stream);
                return Err(Broken { invariant: "S7", text });
            };
            let lead = self.lead_of(v);
            follow += u64::from(lead.is_some());
            let (offered, delivered, dropped, pending) = v.balance(s, lead);
            Broken::unless(offered == delivered + dropped + pending, "S5", || {
                format!(
                    "subscriber {} of {}: {offered} frames were there for it, {delivered} delivered, {dropped} dropped, {pending} wait",
                    v.id, s.key
                )
            })?;
        }
        let in_step: u64 = self.streams.values().map(|s| s.in_step as u64).sum();
        Broken::unless(led == follow && in_step == follow, "S7", || {
            format!("{follow} subscribers follow somebody, {led} are led, {in_step} of streams are in step")
        })
    }
}
