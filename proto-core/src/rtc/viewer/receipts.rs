//! What became of the packets of pictures that a viewer was sent, by its transport-wide feedback
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01). A request for a lost packet (NACK) that is lost itself costs a round
//! trip or more, and viewers send so little that one burst of losses takes several requests. Feedback comes regularly: it
//! names what did not come without being asked, and where it does not come itself, what it would have told of is sent again.
//!
//! A viewer tells of packets that have the extension and of no others. So that those who lose nothing, who are nearly all,
//! cost neither feedback nor memory, packets have it only for a while at first, and after something was lost.

use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// Packets whose fate is not known, at most.
const MOST: usize = 2_048;
/// A feedback that is later than usual by less is not late: it leaves when the viewer's timers run.
const LATE: Duration = Duration::from_millis(10);
/// How far the first feedback of all lets expect the next to vary: it may come at once, and the others at their intervals.
const SPREAD: Duration = Duration::from_millis(100);
/// So many of its usual intervals without feedback are silence.
const SILENCE: (u32, u32) = (3, 2);
/// Longer than this nobody waits for feedback: pictures that are so late are missed anyway.
const LATE_MOST: Duration = Duration::from_millis(500);

/// After a request for a lost packet, packets have the extension for so long.
pub(super) const AFTER_LOSS: Duration = Duration::from_secs(30);
/// At first, so long: what the request for the first loss would say is not known otherwise if that is lost, too.
pub(super) const AT_FIRST: Duration = Duration::from_secs(10);

/// What is overdue is looked for so often.
const AGAIN: Duration = Duration::from_millis(5);

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

/// What a packet is that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    /// The one with this sequence number, the first time.
    First(u64),
    /// A copy of it.
    Again(u64),
    /// Something that the viewer has, to fill the link: nothing is missed if it does not come.
    Filling,
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
    /// Which packet of the lane each of the last numbers was; `None`: one that nobody needs, whatever becomes of it.
    numbers: VecDeque<Option<u64>>,
    /// The sequence number of the first of `packets`.
    first: u64,
    packets: VecDeque<Packet>,
    /// How long after a packet left its arrival is told of, smoothed, and how far that varies.
    told: Option<(Duration, Duration)>,
    /// When feedback came last, and how long after the one before, smoothed.
    heard: Option<(Time, Duration)>,
    /// The first number that the first feedback told of: a viewer may know nothing of what came before.
    told_from: Option<u64>,
    /// The number behind the last that was told of.
    covered: u64,
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
            heard: None,
            told_from: None,
            covered: 0,
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

    /// A packet leaves. Answers its number.
    pub(super) fn leaves(&mut self, packet: Leaves, now: Time) -> u16 {
        let number = self.next;
        self.next += 1;
        let (seq, fresh) = match packet {
            Leaves::First(seq) => (Some(seq), true),
            Leaves::Again(seq) => (Some(seq), false),
            Leaves::Filling => (None, false),
        };
        self.numbers.push_back(seq);
        if let Some(seq) = seq {
            if self.packets.is_empty() && fresh {
                self.first = seq;
                self.begun = self.begun.min(seq);
            }
            if let Some(packet) = self.packet(seq) {
                (packet.last, packet.number) = (now, number);
            } else if fresh && seq == self.first + self.packets.len() as u64 {
                self.packets.push_back(Packet { last: now, number, came: false, unheard: false });
            }
        }
        self.forget(MOST);
        number as u16
    }

    /// The number that was given last.
    pub(super) fn newest(&self) -> u16 {
        self.next.wrapping_sub(1) as u16
    }

    /// How long after a packet leaves its arrival is told of, on average; `None`: nothing was told of yet.
    pub(super) fn told_after(&self) -> Option<Duration> {
        self.told.map(|(mean, _)| mean)
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
        while self.numbers.len() > most
            || self.numbers.front().is_some_and(|s| s.is_none_or(|s| s < self.first))
        {
            self.numbers.pop_front();
        }
    }

    /// Takes a feedback: numbers from `base` on, and whether each came. Answers the sequence numbers of packets whose last
    /// copy did not.
    pub(super) fn feedback(&mut self, base: u16, symbols: impl Iterator<Item = bool>, now: Time) -> Vec<u64> {
        let newest = self.next - 1;
        let oldest = self.next - self.numbers.len() as u64;
        let begin = newest - u64::from((newest as u16).wrapping_sub(base));
        self.told_from.get_or_insert(begin);
        let mut lost = Vec::new();
        let mut delay = None;
        for (number, came) in (begin..=newest).zip(symbols) {
            let place = number.checked_sub(oldest).and_then(|n| usize::try_from(n).ok());
            let Some(seq) = place.and_then(|n| self.numbers.get(n)).copied().flatten() else { continue };
            self.covered = self.covered.max(number + 1);
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
        let interval = self.heard.map(|(at, mean)| {
            let passed = now.since(at).min(LATE_MOST);
            if mean == Duration::ZERO { passed.max(LATE) } else { (mean * 7 + passed) / 8 }
        });
        self.heard = Some((now, interval.unwrap_or_default()));
        // What the feedback before told of may be lost with it.
        self.look = self.look.min(now);
        self.forget(MOST);
        lost
    }

    /// Packets of which nothing is heard although that is overdue, in order; they count as seen to. What is older than
    /// `age` is past help.
    pub(super) fn unheard(&mut self, age: Duration, now: Time) -> Vec<u64> {
        let Some((mean, spread)) = self.told else { return Vec::new() };
        if now < self.look {
            return Vec::new();
        }
        let late = (mean + spread * 2 + LATE).min(LATE_MOST);
        // A queue on the link makes all feedback late, and what is sent again would make it longer: then feedback still comes.
        let silent = self
            .heard
            .is_some_and(|(at, mean)| mean > Duration::ZERO && now.since(at) >= mean * SILENCE.0 / SILENCE.1);
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
            let passed_over =
                packet.number < self.covered && self.told_from.is_some_and(|n| n <= packet.number);
            if passed_over || silent && packet.last + late <= now {
                packet.unheard = true;
                due.push(seq);
            } else {
                self.look = self.look.min((packet.last + late).max(now + AGAIN));
            }
        }
        due
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used)]
mod tests {
    use super::Leaves::{Again, Filling, First};
    use super::*;
    use proptest::prelude::*;

    fn ms(n: u64) -> Time {
        Time::from_millis(n)
    }

    const AGE: Duration = Duration::from_secs(1);

    #[test]
    fn what_did_not_come_is_known_unless_a_later_copy_may_still() {
        let mut r = Receipts::new(65_534);
        let numbers: Vec<u16> = (10..14).map(|seq| r.leaves(First(seq), ms(seq))).collect();
        assert_eq!(numbers, [65_534, 65_535, 0, 1]);
        assert_eq!(r.feedback(65_534, [true, false, false].into_iter(), ms(100)), [11, 12]);
        assert!(r.came(10) && !r.came(11) && r.left(13) == Some(ms(13)));
        assert_eq!(r.leaves(Again(11), ms(101)), 2);
        assert_eq!(r.feedback(65_535, [false, false, true].into_iter(), ms(150)), [12], "11 is on its way");
        assert_eq!(r.feedback(2, [true].into_iter(), ms(200)), [0u64; 0]);
        assert!(r.came(11) && !r.came(12) && r.came(13));
        assert_eq!((r.leaves(Again(12), ms(201)), r.packets.len()), (3, 2));
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
        assert_eq!((r.leaves(Again(99), ms(100)), r.leaves(First(130), ms(101))), (7, 8));
        assert_eq!(r.feedback(7, [true, true].into_iter(), ms(150)), [0u64; 0]);
        assert!(!r.came(99) && !r.came(129) && r.came(130) && !r.came(131));
        assert!(!r.are_wanted(ms(1_100)) && !r.came(130) && r.numbers.is_empty());
        assert_eq!(r.newest(), 8, "numbers go on");
    }

    #[test]
    fn what_nothing_is_heard_of_leaves_again_once_and_not_before_feedback_is_late() {
        let mut r = Receipts::new(0);
        r.leaves(First(5), ms(0));
        assert_eq!(r.unheard(AGE, ms(900)), [0u64; 0], "this viewer may never tell");
        assert_eq!(r.told_after(), None);
        r.feedback(0, [true].into_iter(), ms(100));
        assert_eq!(r.told_after(), Some(Duration::from_millis(100)));
        for seq in 6..9 {
            r.leaves(First(seq), ms(100 + seq));
        }
        // The second says how far apart they are.
        r.feedback(0, [true].into_iter(), ms(150));
        // Late is 100 + 2 × 100 + 10 ms.
        assert_eq!(r.unheard(AGE, ms(415)), [0u64; 0]);
        assert_eq!(r.unheard(AGE, ms(420)), [6, 7, 8]);
        assert_eq!(r.unheard(AGE, ms(900)), [0u64; 0]);
        assert_eq!(r.unheard(AGE, ms(1_600)), [0u64; 0]);
        assert_eq!((r.packets.len(), r.numbers.len()), (0, 0), "too old");
    }

    #[test]
    fn feedback_that_comes_late_through_a_queue_is_waited_for_and_what_it_passes_over_is_not() {
        let mut r = Receipts::new(0);
        for n in 0..40 {
            r.leaves(First(n), ms(n * 50));
            // Each is told of 100 ms after it left; from the twentieth on a queue grows.
            let told = if n < 20 { n.checked_sub(2) } else { Some(17 + (n - 20) * 2 / 5) };
            if let Some(number) = told {
                r.feedback(number as u16, [true].into_iter(), ms(n * 50));
            }
            assert_eq!(r.unheard(Duration::from_secs(9), ms(n * 50)), [0u64; 0], "{n}");
        }
        // Then one is lost: the next goes on behind what that one told of.
        let next = (r.covered - 0x1_0000) as u16;
        r.feedback(next + 2, [true].into_iter(), ms(2_000));
        let due = r.unheard(Duration::from_secs(9), ms(2_000));
        assert_eq!(due, [u64::from(next), u64::from(next) + 1]);
        // And at last nothing comes.
        assert!(r.unheard(Duration::from_secs(9), ms(3_000)).len() > 10);
    }

    #[test]
    fn what_fills_the_link_is_not_missed() {
        let mut r = Receipts::new(0);
        r.leaves(First(5), ms(0));
        assert_eq!((r.leaves(Filling, ms(1)), r.leaves(First(6), ms(2))), (1, 2));
        assert_eq!(r.feedback(0, [true, false, true].into_iter(), ms(100)), [0u64; 0]);
        assert!(r.came(5) && r.came(6) && r.numbers.is_empty());
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
                            r.leaves(First(seq + n), ms(now));
                        }
                        seq += count as u64;
                        Vec::new()
                    }
                    1 => r.feedback(base, (0..count).map(|n| n % 3 > 0), ms(now)),
                    _ => r.unheard(AGE, ms(now)),
                };
                prop_assert!(named.iter().all(|n| (100..seq).contains(n)));
                for n in named {
                    r.leaves(Again(n), ms(now));
                }
                prop_assert!(r.packets.len() <= MOST && r.numbers.len() <= MOST);
            }
        }
    }
}
