//! Subscribers in step: those who have taken everything of a stream and are to be given the same from here on have one
//! cursor, that of a *lead*, which is a subscriber of no session. What a frame costs the hub is then paid once for all of them.
//! Whoever falls out goes on by itself from where the lead stands, and its numbers are as if it had been alone all the time.

use super::stats::{Count, Tally};
use super::stream::Stream;
use super::subscriber::Subscriber;
use super::{Hub, Pace, SubscriberId};
use crate::time::Time;

/// Who is given what is given to a subscriber.
#[derive(Debug, Default)]
pub(super) enum Stands {
    /// Itself.
    #[default]
    Alone,
    /// It is a lead: so many others, and not itself.
    Before(u64),
    /// It is in step behind a lead.
    Behind(Box<Behind>),
}

/// Whom a subscriber follows, and the lead's numbers when it fell in.
#[derive(Debug)]
pub(super) struct Behind {
    lead: SubscriberId,
    delivered: Count,
    dropped: Tally,
}

/// A subscriber's place and numbers, wherever they are kept.
pub(super) struct Standing {
    pub(super) cursor: u64,
    pub(super) delivered: Count,
    pub(super) dropped: Tally,
}

impl Subscriber {
    /// For how many subscribers it is given what it is given.
    pub(super) fn weight(&self) -> u64 {
        match &self.stands {
            Stands::Before(members) => *members,
            Stands::Alone | Stands::Behind(_) => 1,
        }
    }

    pub(super) fn is_lead(&self) -> bool {
        matches!(self.stands, Stands::Before(_))
    }

    pub(super) fn is_behind(&self) -> bool {
        matches!(self.stands, Stands::Behind(_))
    }

    fn behind(&self) -> Option<SubscriberId> {
        match &self.stands {
            Stands::Behind(behind) => Some(behind.lead),
            _ => None,
        }
    }

    /// `lead`: the one whom it follows, if it does.
    pub(super) fn standing(&self, lead: Option<&Subscriber>) -> Standing {
        let (mut delivered, mut dropped) = (self.delivered, self.dropped);
        match (&self.stands, lead) {
            (Stands::Behind(behind), Some(lead)) => {
                delivered.add_since(lead.delivered, behind.delivered);
                dropped.add_since(&lead.dropped, &behind.dropped);
                Standing { cursor: lead.cursor, delivered, dropped }
            }
            _ => Standing { cursor: self.cursor, delivered, dropped },
        }
    }

    /// It has everything, nothing about it is special any more, and nothing is chosen for it alone.
    fn is_steady(&self, stream: &Stream) -> bool {
        matches!(self.stands, Stands::Alone)
            && self.drained
            && self.cursor == stream.ring.end()
            && !self.bridge
            && self.greeting.is_empty()
            && self.squeeze.is_none()
            && self.blocked.is_none()
            && self.busy.is_none()
            && !stream.grouped
            && self.choice.is_free()
    }

    fn stands_with(&self, lead: &Subscriber) -> bool {
        (self.stream, self.accepts, self.pace, self.cursor)
            == (lead.stream, lead.accepts, lead.pace, lead.cursor)
            && (self.needs_key, self.skips, self.epoch) == (lead.needs_key, lead.skips, lead.epoch)
            && self.sent == lead.sent
    }
}

impl Hub {
    /// Makes a lead where this subscriber stands; it leads nobody yet. `None`: the subscriber has not taken everything, or
    /// is not one of many.
    pub fn lead_like(&mut self, subscriber: SubscriberId) -> Option<SubscriberId> {
        let v = self.subscribers.get(subscriber.slot).filter(|v| v.id == subscriber)?;
        let s = self.streams.get_mut(&v.stream)?;
        if !v.is_steady(s) {
            return None;
        }
        let (id, pace) =
            (SubscriberId { serial: self.next_subscriber, slot: self.subscribers.vacant_key() }, v.pace);
        self.next_subscriber += 1;
        let lead = v.lead(id);
        self.subscribers.insert(lead);
        s.drained.push(id, Self::paced(pace, self.pacing));
        Some(id)
    }

    /// Has a subscriber be in step behind a lead from here on, if it stands just there. It is not to be asked for by
    /// [`Hub::next`] then, nor hears that there is more.
    pub fn fall_in(&mut self, subscriber: SubscriberId, lead: SubscriberId) -> bool {
        let Some((v, l)) = self.subscribers.get2_mut(subscriber.slot, lead.slot) else { return false };
        let Some(s) = self.streams.get_mut(&v.stream) else { return false };
        let fits = v.id == subscriber && l.id == lead && v.is_steady(s) && v.stands_with(l);
        let Stands::Before(members) = &mut l.stands else { return false };
        if !fits || !l.drained {
            return false;
        }
        *members += 1;
        s.in_step += 1;
        let (delivered, dropped) = (l.delivered, l.dropped);
        v.stands = Stands::Behind(Box::new(Behind { lead, delivered, dropped }));
        // Its name in the list of those who have everything is passed over.
        v.drained = false;
        true
    }

    /// Has a subscriber go on by itself, where it was in step.
    pub fn fall_out(&mut self, subscriber: SubscriberId, now: Time) {
        let Some(v) = self.subscribers.get(subscriber.slot).filter(|v| v.id == subscriber) else { return };
        let Some(lead) = v.behind() else { return };
        let Some((v, l)) = self.subscribers.get2_mut(subscriber.slot, lead.slot) else { return };
        let Some(s) = self.streams.get_mut(&v.stream) else { return };
        v.take_over(l, now);
        s.in_step -= 1;
        v.drained = l.drained;
        if v.drained {
            s.drained.push(subscriber, Self::paced(v.pace, self.pacing));
        } else {
            self.ready.push_back(subscriber);
        }
        if let Stands::Before(members) = &mut l.stands {
            *members -= 1;
            if *members == 0 {
                self.subscribers.remove(lead.slot);
            }
        }
    }

    /// Whether what a lead is given next suits all who follow it. If not, they are to fall out.
    pub fn may_lead(&self, lead: SubscriberId) -> bool {
        let l = self.subscribers.get(lead.slot).filter(|v| v.id == lead && v.is_lead());
        l.and_then(|l| self.streams.get(&l.stream)).is_some_and(|s| !s.grouped)
    }

    /// All who follow a lead fall out; with the last of them it is gone.
    pub(super) fn disband(&mut self, lead: SubscriberId, now: Time) {
        let follows = |v: &Subscriber| (v.behind() == Some(lead)).then_some(v.id);
        let all: Vec<SubscriberId> = self.subscribers.iter().filter_map(|(_, v)| follows(v)).collect();
        for id in all {
            self.fall_out(id, now);
        }
    }

    /// Forgets a lead that nobody followed.
    pub fn drop_lead(&mut self, lead: SubscriberId) {
        if self
            .subscribers
            .get(lead.slot)
            .is_some_and(|v| v.id == lead && matches!(v.stands, Stands::Before(0)))
        {
            self.subscribers.remove(lead.slot);
        }
    }

    /// Whom a subscriber follows.
    pub(super) fn lead_of(&self, v: &Subscriber) -> Option<&Subscriber> {
        let lead = v.behind()?;
        self.subscribers.get(lead.slot).filter(|l| l.id == lead)
    }

    /// The pace at which somebody is really told.
    pub(super) fn paced(pace: Pace, pacing: super::Pacing) -> Pace {
        match pace {
            Pace::Merged if pacing.tcp_merge_ms == 0 => Pace::Riding,
            pace => pace,
        }
    }
}
