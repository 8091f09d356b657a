//! What became of the packets of pictures that a viewer was sent, by its transport-wide feedback
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01). A request for a lost packet (NACK) that is lost itself costs a round
//! trip or more, and viewers send so little that one burst of losses takes several requests. Feedback comes regularly: it
//! names what did not come without being asked, and where it does not come itself, what it would have told of is sent again.
//!
//! A viewer tells of packets that have the extension and of no others. So that those who lose nothing, who are nearly all,
//! cost neither feedback nor memory, packets have it only for a while after something was lost.

use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// Packets whose fate is not known, at most.
const MOST: usize = 2_048;
/// A feedback that is later than usual by less is not late: it leaves when the viewer's timers run.
const LATE: Duration = Duration::from_millis(10);
/// How far the first feedback of all lets expect the next to vary: it may come at once, and the others at their intervals.
const SPREAD: Duration = Duration::from_millis(100);
/// Longer than this nobody waits for feedback: pictures that are so late are missed anyway.
const LATE_MOST: Duration = Duration::from_millis(500);

/// After a request for a lost packet, packets have the extension for so long.
pub(super) const AFTER_LOSS: Duration = Duration::from_secs(30);

/// A packet of pictures whose arrival was not told of.
#[derive(Clone, Copy, Debug)]
struct Packet {
    /// When it left last.
    last: Time,
    /// Under which number, as all that have the extension are counted.
    number: u64,
    came: bool,
    /// Nothing was heard of it when that was due.
    unheard: bool,
}

/// The packets of one lane in the order of their sequence numbers, as long as it is not known that they came.
#[derive(Debug)]
pub(super) struct Receipts {
    /// Packets have the extension until then.
    until: Time,
    /// The number of the next packet in the extension, with the wraps above.
    next: u64,
    /// The sequence number of the first packet that had it.
    begun: u64,
    /// Which packet of the lane each of the last numbers was.
    numbers: VecDeque<u64>,
    /// The sequence number of the first of `packets`.
    first: u64,
    packets: VecDeque<Packet>,
    /// How long after a packet left its arrival is told of, smoothed, and how far that varies.
    told: Option<(Duration, Duration)>,
    /// Nothing is late before.
    look: Time,
}

impl Receipts {
    /// Numbers begin with `next`.
    pub(super) fn new(next: u16) -> Receipts {
        Receipts {
            until: Time::ZERO,
            next: 1 << 16 | u64::from(next),
            begun: u64::MAX,
            numbers: VecDeque::new(),
            first: 0,
            packets: VecDeque::new(),
            told: None,
            look: Time::ZERO,
        }
    }

    /// Arrivals are wanted for so long from now on.
    pub(super) fn want(&mut self, now: Time, span: Duration) {
        self.until = self.until.max(now + span);
    }

    /// Whether packets that leave now have the extension. Forgets all once they have it no more.
    pub(super) fn are_wanted(&mut self, now: Time) -> bool {
        let wanted = now < self.until;
        if !wanted && self.begun != u64::MAX {
            let next = self.next;
            *self = Receipts { next, ..Receipts::new(0) };
        }
        wanted
    }

    /// The packet with this sequence number leaves, the first time (`fresh`) or again. Answers its number.
    pub(super) fn leaves(&mut self, seq: u64, fresh: bool, now: Time) -> u16 {
        let number = self.next;
        self.next += 1;
        self.numbers.push_back(seq);
        if self.packets.is_empty() && fresh {
            self.first = seq;
            self.begun = self.begun.min(seq);
        }
        if let Some(packet) = self.packet(seq) {
            (packet.last, packet.number) = (now, number);
        } else if fresh && seq == self.first + self.packets.len() as u64 {
            self.packets.push_back(Packet { last: now, number, came: false, unheard: false });
        }
        self.forget(MOST);
        number as u16
    }

    /// The number that was given last.
    pub(super) fn newest(&self) -> u16 {
        self.next.wrapping_sub(1) as u16
    }

    fn packet(&mut self, seq: u64) -> Option<&mut Packet> {
        self.packets.get_mut(usize::try_from(seq.checked_sub(self.first)?).ok()?)
    }

    /// Whether it is known that this packet came.
    pub(super) fn came(&self, seq: u64) -> bool {
        let n = seq.checked_sub(self.first).and_then(|n| usize::try_from(n).ok());
        seq >= self.begun && n.is_none_or(|n| self.packets.get(n).is_some_and(|p| p.came))
    }

    /// When this packet left last, unless it is known that it came.
    pub(super) fn left(&self, seq: u64) -> Option<Time> {
        let n = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.packets.get(n).filter(|p| !p.came).map(|p| p.last)
    }

    /// What came at the front needs no memory, and there are no more than `most`.
    fn forget(&mut self, most: usize) {
        while self.packets.front().is_some_and(|p| p.came) || self.packets.len() > most {
            self.packets.pop_front();
            self.first += 1;
        }
        while self.numbers.len() > most || self.numbers.front().is_some_and(|seq| *seq < self.first) {
            self.numbers.pop_front();
        }
    }

    /// Takes a feedback: numbers from `base` on, and whether each came. Answers the sequence numbers of packets whose last
    /// copy did not.
    pub(super) fn feedback(&mut self, base: u16, symbols: impl Iterator<Item = bool>, now: Time) -> Vec<u64> {
        let newest = self.next - 1;
        let oldest = self.next - self.numbers.len() as u64;
        let begin = newest - u64::from((newest as u16).wrapping_sub(base));
        let mut lost = Vec::new();
        let mut delay = None;
        for (number, came) in (begin..=newest).zip(symbols) {
            let place = number.checked_sub(oldest).and_then(|n| usize::try_from(n).ok());
            let Some(seq) = place.and_then(|n| self.numbers.get(n)).copied() else { continue };
            let Some(packet) = self.packet(seq).filter(|p| !p.came) else { continue };
            if came {
                packet.came = true;
                if packet.number == number {
                    delay.get_or_insert(now.since(packet.last));
                }
            } else if packet.number == number {
                lost.push(seq);
            }
        }
        if let Some(delay) = delay {
            // As RFC 6298, 2 does for TCP.
            self.told = Some(match self.told {
                None => (delay, SPREAD),
                Some((mean, spread)) => ((mean * 7 + delay) / 8, (spread * 3 + mean.abs_diff(delay)) / 4),
            });
        }
        self.forget(MOST);
        lost
    }

    /// Packets of which nothing is heard although that is overdue, in order; they count as seen to. What is older than
    /// `age` is past help.
    pub(super) fn unheard(&mut self, age: Duration, now: Time) -> Vec<u64> {
        let Some((mean, spread)) = self.told else { return Vec::new() };
        let late = (mean + spread * 2 + LATE).min(LATE_MOST);
        if now < self.look {
            return Vec::new();
        }
        while self.packets.front().is_some_and(|p| now.since(p.last) > age) {
            self.packets.pop_front();
            self.first += 1;
        }
        self.forget(MOST);
        self.look = now + late;
        let mut due = Vec::new();
        for (seq, packet) in (self.first..).zip(&mut self.packets) {
            if packet.came || packet.unheard {
                continue;
            }
            if packet.last + late <= now {
                packet.unheard = true;
                due.push(seq);
            } else {
                self.look = self.look.min(packet.last + late);
            }
        }
        due
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(n: u64) -> Time {
        Time::from_millis(n)
    }

    const AGE: Duration = Duration::from_secs(1);

    #[test]
    fn what_did_not_come_is_known_unless_a_later_copy_may_still() {
        let mut r = Receipts::new(65_534);
        let numbers: Vec<u16> = (10..14).map(|seq| r.leaves(seq, true, ms(seq))).collect();
        assert_eq!(numbers, [65_534, 65_535, 0, 1]);
        assert_eq!(r.feedback(65_534, [true, false, false].into_iter(), ms(100)), [11, 12]);
        assert!(r.came(10) && !r.came(11) && r.left(13) == Some(ms(13)));
        assert_eq!(r.leaves(11, false, ms(101)), 2);
        assert_eq!(r.feedback(65_535, [false, false, true].into_iter(), ms(150)), [12], "11 is on its way");
        assert_eq!(r.feedback(2, [true].into_iter(), ms(200)), [0u64; 0]);
        assert!(r.came(11) && !r.came(12) && r.came(13));
        assert_eq!((r.leaves(12, false, ms(201)), r.packets.len()), (3, 2));
        assert_eq!(r.feedback(3, [true, true, true].into_iter(), ms(300)), [0u64; 0]);
        assert_eq!((r.packets.len(), r.numbers.len()), (0, 0), "nothing is to be remembered");
    }

    #[test]
    fn packets_are_counted_while_arrivals_are_wanted_and_what_left_before_is_not_known() {
        let mut r = Receipts::new(7);
        assert!(!r.are_wanted(ms(0)) && !r.came(99));
        r.want(ms(100), AGE);
        assert!(r.are_wanted(ms(100)));
        // What was lost leaves first, and was never counted.
        assert_eq!((r.leaves(99, false, ms(100)), r.leaves(130, true, ms(101))), (7, 8));
        assert_eq!(r.feedback(7, [true, true].into_iter(), ms(150)), [0u64; 0]);
        assert!(!r.came(99) && !r.came(129) && r.came(130) && !r.came(131));
        assert!(!r.are_wanted(ms(1_100)) && !r.came(130) && r.numbers.is_empty());
        assert_eq!(r.newest(), 8, "numbers go on");
    }

    #[test]
    fn what_nothing_is_heard_of_leaves_again_once_and_not_before_feedback_is_late() {
        let mut r = Receipts::new(0);
        r.leaves(5, true, ms(0));
        assert_eq!(r.unheard(AGE, ms(900)), [0u64; 0], "this viewer may never tell");
        r.feedback(0, [true].into_iter(), ms(100));
        for seq in 6..9 {
            r.leaves(seq, true, ms(100 + seq));
        }
        // Late is 100 + 2 × 100 + 10 ms.
        assert_eq!((r.unheard(AGE, ms(415)), r.look), (vec![], ms(416)));
        assert_eq!(r.unheard(AGE, ms(417)), [6, 7]);
        for seq in 6..8 {
            r.leaves(seq, false, ms(417));
        }
        assert_eq!(r.unheard(AGE, ms(418)), [8]);
        r.leaves(8, false, ms(418));
        assert_eq!(r.unheard(AGE, ms(900)), [0u64; 0]);
        assert_eq!(r.unheard(AGE, ms(1_600)), [0u64; 0]);
        assert_eq!((r.packets.len(), r.numbers.len()), (0, 0), "too old");
    }

    proptest! {
        /// Whatever a viewer says: only packets that left are named, and memory is bounded.
        #[test]
        fn nonsense_does_no_harm(steps in proptest::collection::vec((0u8..3, any::<u16>(), 0usize..3_000), 1..60)) {
            let (mut r, mut seq, mut now) = (Receipts::new(9), 100u64, 0);
            for (what, base, count) in steps {
                now += 20;
                let named = match what {
                    0 => {
                        for n in 0..count as u64 {
                            r.leaves(seq + n, true, ms(now));
                        }
                        seq += count as u64;
                        Vec::new()
                    }
                    1 => r.feedback(base, (0..count).map(|n| n % 3 > 0), ms(now)),
                    _ => r.unheard(AGE, ms(now)),
                };
                prop_assert!(named.iter().all(|n| (100..seq).contains(n)));
                for n in named {
                    r.leaves(n, false, ms(now));
                }
                prop_assert!(r.packets.len() <= MOST && r.numbers.len() <= MOST);
            }
        }
    }
}
