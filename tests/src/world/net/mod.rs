//! The network: who reaches whom, and what becomes of what is sent.

mod tcp;
mod udp;

pub(super) use tcp::Pipe;

use super::event::Event;
use super::{Party, World};
use proto_core::time::Time;
use std::time::Duration;

/// A connection whose peer cannot be reached dies after this (keep-alive: 30 s and three probes, 10 s apart).
const UNREACHABLE: Duration = Duration::from_secs(60);

impl World {
    /// Whether nothing passes between two parties at present.
    fn is_cut(&self, a: Party, b: Party) -> bool {
        self.cut.contains(&a) || self.cut.contains(&b) || self.parted.contains(&(a.min(b), a.max(b)))
    }

    /// From now on nothing passes between a party and any other, and nobody is told.
    pub fn cut(&mut self, party: Party) {
        self.cut.insert(party);
        self.cut_since.insert(party, self.now);
        self.trace(|| format!("{party:?} is cut off"));
        self.at(self.now + UNREACHABLE, Event::Unreachable(party, self.now));
    }

    /// The party can be reached again.
    pub fn heal(&mut self, party: Party) {
        self.cut.remove(&party);
        self.cut_since.remove(&party);
        self.trace(|| format!("{party:?} is reachable again"));
    }

    /// From now on nothing passes between these two; others reach both.
    pub fn part(&mut self, a: Party, b: Party) {
        self.parted.insert((a.min(b), a.max(b)));
        self.trace(|| format!("{a:?} and {b:?} are parted"));
    }

    /// These two reach each other again.
    pub fn join(&mut self, a: Party, b: Party) {
        self.parted.remove(&(a.min(b), a.max(b)));
        self.trace(|| format!("{a:?} and {b:?} are joined again"));
    }

    /// All that were parted reach each other again.
    pub fn join_all(&mut self) {
        for (a, b) in self.parted.clone() {
            self.join(a, b);
        }
    }

    /// Connections over a link that has lost everything for long die at both ends, each by itself.
    pub(super) fn unreachable(&mut self, party: Party, since: Time) {
        if self.cut_since.get(&party) == Some(&since) {
            self.time_out_all(party);
        }
    }
}
