//! Puts RTP packets into order by their sequence numbers (RFC 3550, 5.1).

use proto_core::time::Time;
use rtc::rtp::Packet;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the first packet waits for such as were sent before it.
const START: Duration = Duration::from_millis(40);
/// How long a missing packet is waited for.
const PATIENCE: Duration = Duration::from_millis(400);

/// Packets of one stream.
#[derive(Default)]
pub(super) struct Reorder {
    /// The number of the next packet, counted on beyond 16 bits; none: nothing was given out yet.
    next: Option<u64>,
    newest: Option<u64>,
    /// What has come, and when.
    held: BTreeMap<u64, (Packet, Time)>,
    /// When the first of all came.
    begun: Option<Time>,
}

impl Reorder {
    /// Takes a packet. Late and double ones are forgotten.
    pub(super) fn push(&mut self, packet: Packet, now: Time) {
        let low = packet.header.sequence_number;
        let number = match self.newest {
            // The first is put far from 0, so that older ones have numbers too.
            None => (1 << 32) | u64::from(low),
            Some(newest) => newest.wrapping_add_signed(i64::from(low.wrapping_sub(newest as u16) as i16)),
        };
        self.newest = Some(self.newest.map_or(number, |n| n.max(number)));
        if self.next.is_none_or(|next| number >= next) {
            self.held.entry(number).or_insert((packet, now));
            self.begun.get_or_insert(now);
        }
    }

    /// The next packet, and whether some before it are lost.
    pub(super) fn pop(&mut self, now: Time) -> Option<(Packet, bool)> {
        let (&first, _) = self.held.first_key_value()?;
        let lost = match self.next {
            Some(next) if next == first => false,
            _ if self.deadline().is_some_and(|at| at <= now) => self.next.is_some(),
            _ => return None,
        };
        let (packet, _) = self.held.remove(&first)?;
        self.next = Some(first + 1);
        Some((packet, lost))
    }

    /// When waiting ends.
    pub(super) fn deadline(&self) -> Option<Time> {
        let (_, (_, came)) = self.held.first_key_value()?;
        if self.next.is_some() { Some(*came + PATIENCE) } else { self.begun.map(|at| at + START) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(n: u16) -> Packet {
        let mut packet = Packet::default();
        packet.header.sequence_number = n;
        packet
    }

    fn popped(r: &mut Reorder, at: Time) -> Vec<(u16, bool)> {
        std::iter::from_fn(|| r.pop(at)).map(|(p, lost)| (p.header.sequence_number, lost)).collect()
    }

    #[test]
    fn order_is_restored_across_the_overflow() {
        let (mut r, ms) = (Reorder::default(), |n| Time::ZERO + Duration::from_millis(n));
        for n in [65_535, 65_534, 1, 0, 65_535] {
            r.push(packet(n), ms(0));
        }
        assert_eq!(popped(&mut r, ms(39)), []);
        assert_eq!(popped(&mut r, ms(40)), [(65_534, false), (65_535, false), (0, false), (1, false)]);
        assert_eq!(r.deadline(), None);
        r.push(packet(65_534), ms(50));
        assert_eq!(popped(&mut r, ms(1_000)), [], "it came already");
    }

    #[test]
    fn what_is_lost_is_waited_for_and_then_said() {
        let (mut r, ms) = (Reorder::default(), |n| Time::ZERO + Duration::from_millis(n));
        r.push(packet(7), ms(0));
        assert_eq!(popped(&mut r, ms(40)), [(7, false)]);
        r.push(packet(9), ms(50));
        r.push(packet(10), ms(60));
        assert_eq!(popped(&mut r, ms(449)), []);
        assert_eq!(popped(&mut r, ms(450)), [(9, true), (10, false)]);
    }
}
