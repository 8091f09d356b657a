//! What a link does to what passes: every party has an access link in each direction, and a path is the sender's way
//! up and the receiver's way down.
//!
//! Every decision is a keyed hash of the seed, the flow (both addresses), the direction and the packet's number in its
//! flow, so that one flow's fate does not depend on what else is on the network. Rate and stall are shared by all
//! that uses the link, as they are in the world.

use super::dice;
use crate::world::{Party, World};
use proto_core::time::Time;
use std::time::Duration;

/// Losses that come in bursts: the model of Gilbert (1960), in which a link is good or bad and loses all while bad.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// The share of packets that are lost in the long run, 0 to below 1.
    pub mean: f64,
    /// Packets in a row that a burst loses on average, at least 1. Below `1 / (1 - mean)` no chain of two states has
    /// that mean; then losses are as short as they can be.
    pub burst: f64,
}

/// What an access link does in one direction. The default is a clean link: no delay of its own, no loss, any rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// Added to the way that the path takes anyway.
    pub latency: Duration,
    /// Up to so much more for each packet. Packets of a flow keep their order.
    pub jitter: Duration,
    /// UDP: lost. TCP: late by a round trip or a retransmission time-out.
    pub loss: Loss,
    /// The share of datagrams that come twice.
    pub duplicate: f64,
    /// The share of datagrams that others overtake.
    pub reorder: f64,
    /// How much later those come.
    pub reorder_by: Duration,
    /// The share of datagrams in which a bit or more is wrong although the checksum is right.
    pub corrupt: f64,
    /// Bits a second; none: no limit.
    pub rate: Option<u64>,
    /// Bytes that wait before the link when it is busy or stalled; a datagram that finds no room is lost.
    pub queue: usize,
    /// Bytes of the largest IP packet. Larger datagrams vanish; TCP keeps within it by itself.
    pub mtu: usize,
}

impl Default for Conditions {
    fn default() -> Conditions {
        Conditions {
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: Loss::default(),
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::from_millis(20),
            corrupt: 0.0,
            rate: None,
            queue: 256 << 10,
            mtu: 1_500,
        }
    }
}

/// A direction of an access link, seen from its party.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// What the party sends.
    Up,
    /// What the party receives.
    Down,
}

/// An access link: the conditions of each direction, and until when each is busy.
#[derive(Debug, Default)]
pub(super) struct Access {
    ways: [Way; 2],
}

#[derive(Debug, Default)]
struct Way {
    conditions: Conditions,
    /// The last bit of all that waits has left by then.
    busy: Time,
    /// Nothing passes before.
    stalled: Time,
    /// Bytes that wait behind a stall.
    behind: usize,
}

/// How a packet's numbers are found: the kinds of decisions.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Loss = 1,
    Duplicate,
    Reorder,
    Corrupt,
    CorruptWhere,
    Jitter,
    Late,
    Retransmit,
    Delay,
}

/// Whether something with this chance happens.
pub(in crate::world) fn chance(share: f64, dice: u64) -> bool {
    share > 0.0 && ((dice >> 11) as f64) < share * (1_u64 << 53) as f64
}

/// One flow's place in the chain of good and bad of each of its two links; none: not begun.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chain([Option<bool>; 2]);

impl Loss {
    /// Takes a flow one packet further on a link. Answers whether that one is lost.
    fn step(self, state: &mut Option<bool>, dice: u64) -> bool {
        if self.mean <= 0.0 {
            *state = None;
            return false;
        }
        let leave = 1.0 / self.burst.max(1.0);
        let enter = (leave * self.mean / (1.0 - self.mean).max(f64::EPSILON)).min(1.0);
        let bad = match *state {
            None => chance(self.mean, dice),
            Some(true) => !chance(leave, dice),
            Some(false) => chance(enter, dice),
        };
        *state = Some(bad);
        bad
    }
}

/// What becomes of a datagram on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fate {
    pub(super) delay: Duration,
    pub(super) overtaken: bool,
    pub(super) twice: bool,
    pub(super) corrupt: bool,
}

/// The bytes of IPv4 and UDP headers.
const UDP_HEAD: usize = 28;

impl Way {
    fn fate(
        &self,
        dice: impl Fn(Kind) -> u64,
        state: &mut Option<bool>,
        size: usize,
        fate: &mut Fate,
    ) -> bool {
        let c = &self.conditions;
        if size + UDP_HEAD > c.mtu || c.loss.step(state, dice(Kind::Loss)) {
            return false;
        }
        fate.delay += c.latency + jitter(c.jitter, || dice(Kind::Jitter));
        fate.twice |= chance(c.duplicate, dice(Kind::Duplicate));
        fate.corrupt |= chance(c.corrupt, dice(Kind::Corrupt));
        if chance(c.reorder, dice(Kind::Reorder)) {
            fate.overtaken = true;
            fate.delay += c.reorder_by;
        }
        true
    }

    /// When the last of so many bytes that come now has passed; none if there is no room for them.
    fn pass(&mut self, now: Time, size: usize, drops: bool) -> Option<Time> {
        let open = self.stalled > now;
        let Some(rate) = self.conditions.rate else {
            if !open {
                self.behind = 0;
                return Some(now);
            }
            if drops && self.behind + size > self.conditions.queue {
                return None;
            }
            self.behind += size;
            return Some(self.stalled);
        };
        let from = self.busy.max(now).max(self.stalled);
        let idle_until = if open { self.stalled } else { now };
        let nanos = |bytes: usize| (bytes as u64 * 8).saturating_mul(1_000_000_000) / rate.max(1);
        // What waits, in time: the link's own work, without the stall before it.
        let waits = from.since(idle_until).as_nanos() as u64;
        if drops && waits + nanos(size) > nanos(self.conditions.queue) {
            return None;
        }
        self.busy = from + Duration::from_nanos(nanos(size));
        Some(self.busy)
    }

    /// Whether what passes may have to wait.
    fn queues(&self, now: Time) -> bool {
        self.conditions.rate.is_some() || self.stalled > now
    }
}

fn jitter(most: Duration, dice: impl FnOnce() -> u64) -> Duration {
    match most.as_micros() as u64 {
        0 => Duration::ZERO,
        most => Duration::from_micros(dice() % (most + 1)),
    }
}

impl World {
    /// Gives a party's access link these conditions, in both directions.
    pub fn degrade(&mut self, party: impl Into<Party>, conditions: Conditions) {
        let party = party.into();
        for direction in [Direction::Up, Direction::Down] {
            self.degrade_one_way(party, direction, conditions);
        }
    }

    /// Gives one direction of a party's access link these conditions. The other, if it had none, is clean.
    pub fn degrade_one_way(&mut self, party: impl Into<Party>, direction: Direction, conditions: Conditions) {
        let party = party.into();
        self.trace(|| format!("{party:?} {direction:?}: {conditions:?}"));
        self.net.links.entry(party).or_default().ways[direction as usize].conditions = conditions;
    }

    /// A party's access link is as at the beginning; what waits before it still takes its time.
    pub fn restore(&mut self, party: impl Into<Party>) {
        let party = party.into();
        self.trace(|| format!("{party:?}: as at the beginning"));
        self.net.links.remove(&party);
    }

    /// For so long a party's access link passes nothing, in neither direction; then all that waits passes.
    pub fn stall(&mut self, party: impl Into<Party>, time: Duration) {
        let party = party.into();
        self.trace(|| format!("{party:?} stalls for {time:?}"));
        let until = self.now + time;
        for way in &mut self.net.links.entry(party).or_default().ways {
            way.stalled = way.stalled.max(until);
        }
    }

    pub(super) fn has_conditions(&self, from: Party, to: Party) -> bool {
        let links = &self.net.links;
        !links.is_empty() && (links.contains_key(&from) || links.contains_key(&to))
    }

    /// What becomes of a flow's `nth` datagram between two parties; none: it is lost.
    pub(super) fn fate(
        &self,
        (from, to): (Party, Party),
        (flow, nth): (u64, u64),
        chain: &mut Chain,
        size: usize,
    ) -> Option<Fate> {
        let mut fate = Fate::default();
        for (direction, party) in [(Direction::Up, from), (Direction::Down, to)] {
            let Some(access) = self.net.links.get(&party) else { continue };
            let d = direction as usize;
            let dice = |kind: Kind| dice(self.seed, kind as u64 * 2 + d as u64, flow, nth);
            if !access.ways[d].fate(dice, &mut chain.0[d], size, &mut fate) {
                return None;
            }
        }
        Some(fate)
    }

    /// When so many bytes have passed a party's link in a direction, rate and stall considered; none: no room.
    pub(super) fn transit(
        &mut self,
        party: Party,
        direction: Direction,
        size: usize,
        drops: bool,
    ) -> Option<Time> {
        let now = self.now;
        match self.net.links.get_mut(&party) {
            Some(access) => access.ways[direction as usize].pass(now, size, drops),
            None => Some(now),
        }
    }

    /// Whether what comes down to a party may have to wait before its link.
    pub(super) fn queues_down(&self, party: Party) -> bool {
        let links = &self.net.links;
        !links.is_empty() && links.get(&party).is_some_and(|a| a.ways[1].queues(self.now))
    }

    /// How much later than over a clean path a flow's `nth` piece of so many bytes comes over TCP. `rtt`: what a clean
    /// round trip takes.
    pub(super) fn tcp_delay(
        &self,
        (from, to): (Party, Party),
        (flow, nth): (u64, u64),
        chain: &mut Chain,
        size: usize,
        rtt: Duration,
    ) -> Duration {
        let mut delay = Duration::ZERO;
        let mut lost = 0_u32;
        let mut around = rtt;
        for (direction, party) in [(Direction::Up, from), (Direction::Down, to)] {
            let Some(access) = self.net.links.get(&party) else { continue };
            let d = direction as usize;
            let c = &access.ways[d].conditions;
            let dice =
                |kind: Kind, more: u64| dice(self.seed, kind as u64 * 2 + d as u64, flow ^ more << 48, nth);
            delay += c.latency + jitter(c.jitter, || dice(Kind::Jitter, 0));
            around += c.latency * 2;
            // What of one flight is lost is repeated together (RFC 6675); a repetition may be lost as well.
            let mut again = false;
            for segment in 0..size.div_ceil(SEGMENT).max(1) as u64 {
                again |= c.loss.step(&mut chain.0[d], dice(Kind::Loss, segment + 1));
            }
            while again && lost < 8 {
                lost += 1;
                again = chance(c.loss.mean, dice(Kind::Retransmit, u64::from(lost)));
            }
        }
        if lost == 0 {
            return delay;
        }
        // Three acknowledgements of what came after make a sender repeat after one round trip (RFC 5681 section 3.2);
        // if nothing came after, or the repetition is lost as well, it waits for its timer, which doubles (RFC 6298).
        let tail = dice(self.seed, Kind::Late as u64, flow, nth).is_multiple_of(4);
        if lost == 1 && !tail {
            return delay + around;
        }
        delay + (around * 2).max(RTO_MIN) * (1 << (lost - 1).min(5))
    }
}

/// Payload of a TCP segment at an MTU of 1,500.
const SEGMENT: usize = 1_448;
/// The least retransmission time-out (Linux).
pub(super) const RTO_MIN: Duration = Duration::from_millis(200);
