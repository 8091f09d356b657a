//! What became of the packets of pictures that a viewer was sent, by its transport-wide feedback
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01). A request for a lost packet (NACK) that is lost itself costs a round
//! trip or more, and viewers send so little that one burst of losses takes several requests. Feedback comes regularly: it
//! names what did not come without being asked, and where it does not come itself, what it would have told of is sent again.
//! A packet that others overtake is named, too, and comes after all: once that was seen, one is lost when a packet came that
//! left so much later than it (the reordering window of RFC 8985, here as long as packets were seen to come too late).
//!
//! A viewer tells of packets that have the extension and of no others. So that those who lose nothing, who are nearly all,
//! cost neither feedback nor memory, packets have it only for a while at first, and after something was lost.

use super::burst::{Burst, Row};
use crate::time::Time;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

/// Packets whose fate is not known, at most.
const MOST: usize = 2_048;
/// As long as nothing was told of: many never tell.
const UNTOLD: usize = 512;
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
/// Who has told of nothing for so long, although packets had the extension, never does.
const MUTE: Duration = Duration::from_secs(2);

/// What is overdue is looked for so often.
const AGAIN: Duration = Duration::from_millis(5);
/// A way on which packets overtook one another is one on which they do for so long.
const OVERTAKING: Duration = Duration::from_secs(20);
/// A packet that comes later than those which left after it by more is as good as lost.
const WINDOW_MOST: Duration = Duration::from_millis(60);
/// A tick of feedback, nanoseconds.
const TICK: i64 = 250_000;

/// What is known of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing yet.
    Open,
    /// It did not come before others that left later.
    Missing,
    /// It is lost, and this was said.
    Lost,
    /// Nothing was heard of it when that was due, and this was said.
    Unheard,
    Came,
}

/// A packet of pictures, since the last of those before it of which it is not known that it came.
#[derive(Clone, Copy, Debug)]
struct Packet {
    /// When it left last.
    last: Time,
    /// Under which number, as all that have the extension are counted.
    number: u64,
    fate: Fate,
}

/// What left under a number.
#[derive(Clone, Copy, Debug)]
struct Number {
    /// Its sequence number; [`NOBODY`]: whatever becomes of it, nobody needs it.
    seq: u64,
    at: Time,
}

const NOBODY: u64 = u64::MAX;

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

/// What is to be done about a packet that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It is to leave.
    Leaves,
    /// It came, may yet come, or feedback will tell.
    Waits,
}

/// The packets of one lane in the order of their sequence numbers, as long as it is not known that they came.
#[derive(Debug)]
pub(super) struct Receipts {
    /// Packets have the extension until then.
    until: Time,
    /// When the first of these packets left.
    since: Option<Time>,
    /// The number of the next packet in the extension, with the wraps above.
    next: u64,
    /// The sequence number of the first packet that had it.
    begun: u64,
    /// What the last numbers were.
    numbers: VecDeque<Number>,
    /// The sequence number of the first of `packets`.
    first: u64,
    packets: VecDeque<Packet>,
    /// How long after a packet left its arrival is told of, smoothed, and how far that varies.
    told: Option<(Duration, Duration)>,
    /// When feedback came last, and how long after the one before, smoothed.
    heard: Option<(Time, Duration)>,
    /// The first number that the first feedback told of: a viewer may know nothing of what came before.
    told_from: Option<u64>,
    /// Which feedback came last.
    nth: u8,
    /// The number behind the last that was told of.
    covered: u64,
    /// When feedback passed last over numbers that none told of.
    passed: Time,
    /// Of all that came the one that left last: its number, and when it left.
    top: (u64, Time),
    /// How much later than packets behind it one came, and when that was seen last.
    overtaken: (Duration, Time),
    /// What may be on its way to a newcomer; `None`: nothing has left yet.
    burst: Option<Burst>,
    /// Something was lost, in either direction.
    loses: bool,
    /// Nothing is late before.
    look: Time,
}

impl Receipts {
    /// Numbers begin with `next`.
    pub(super) fn new(next: u16) -> Receipts {
        Receipts {
            until: Time::ZERO,
            since: None,
            next: 1 << 16 | u64::from(next),
            begun: u64::MAX,
            numbers: VecDeque::new(),
            first: 0,
            packets: VecDeque::new(),
            told: None,
            heard: None,
            told_from: None,
            nth: 0,
            covered: 0,
            passed: Time::ZERO,
            top: (0, Time::ZERO),
            overtaken: (Duration::ZERO, Time::ZERO),
            burst: None,
            loses: false,
            look: Time::ZERO,
        }
    }

    /// Arrivals are wanted for so long from now on.
    pub(super) fn want(&mut self, now: Time, span: Duration) {
        self.until = self.until.max(now + span);
    }

    /// Whether packets that leave now have the extension. Forgets all once they have it no more.
    pub(super) fn are_wanted(&mut self, now: Time) -> bool {
        // Of one whose rate depends on what it tells, arrivals are wanted for good.
        let mute = self.told_from.is_none()
            && self.since.is_some_and(|since| now.since(since) >= MUTE)
            && self.until.since(now) <= AFTER_LOSS;
        let wanted = now < self.until && !mute;
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
        self.since.get_or_insert(now);
        if self.burst.is_none() {
            (self.burst, self.covered) = (Some(Burst::new(number, now)), number);
        }
        let (seq, fresh) = match packet {
            Leaves::First(seq) => (Some(seq), true),
            Leaves::Again(seq) => (Some(seq), false),
            Leaves::Filling => (None, false),
        };
        self.numbers.push_back(Number { seq: seq.unwrap_or(NOBODY), at: now });
        if let Some(seq) = seq {
            if self.packets.is_empty() && fresh {
                self.first = seq;
                self.begun = self.begun.min(seq);
            }
            if let Some(packet) = self.packet(seq) {
                (packet.last, packet.number) = (now, number);
                if matches!(packet.fate, Fate::Missing | Fate::Lost) {
                    packet.fate = Fate::Open;
                }
            } else if fresh && seq == self.first + self.packets.len() as u64 {
                self.packets.push_back(Packet { last: now, number, fate: Fate::Open });
            }
        }
        self.forget();
        number as u16
    }

    /// The number that was given last.
    pub(super) fn newest(&self) -> u16 {
        self.next.wrapping_sub(1) as u16
    }

    /// Bytes that may leave for a newcomer beside `waiting` packets that are about to; `None`: there is no telling.
    pub(super) fn burst(&mut self, waiting: u64, now: Time) -> Option<usize> {
        let next = self.next + waiting;
        self.burst.as_mut()?.room(next, next - self.covered, now)
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
        seq >= self.begun && n.is_none_or(|n| self.packets.get(n).is_some_and(|p| p.fate == Fate::Came))
    }

    /// The viewer asks for a packet. `rtt`: what could have come of it meanwhile is waited for.
    pub(super) fn asked(&mut self, seq: u64, rtt: Duration, now: Time) -> Asked {
        if self.came(seq) {
            return Asked::Waits;
        }
        self.loses = true;
        // Viewers ask as soon as a packet is overtaken; where that happens, feedback knows better, as long as it comes.
        let told = self.window(now) > Duration::ZERO && !self.is_silent(now);
        let Some(packet) = self.packet(seq) else { return Asked::Leaves };
        if now.since(packet.last) < rtt || told && matches!(packet.fate, Fate::Open | Fate::Missing) {
            return Asked::Waits;
        }
        packet.fate = Fate::Lost;
        Asked::Leaves
    }

    /// What came at the front needs no memory, and there are no more than may be.
    fn forget(&mut self) {
        let most = if self.told.is_some() { MOST } else { UNTOLD };
        while self.packets.front().is_some_and(|p| p.fate == Fate::Came) || self.packets.len() > most {
            self.packets.pop_front();
            self.first += 1;
        }
        while self.numbers.len() > most
            || self.numbers.front().is_some_and(|n| n.seq == NOBODY || n.seq < self.first)
        {
            self.numbers.pop_front();
        }
    }

    /// How much later than packets behind it one may come on this way.
    fn window(&self, now: Time) -> Duration {
        let (by, seen) = self.overtaken;
        if now.since(seen) < OVERTAKING { by } else { Duration::ZERO }
    }

    /// Takes the `nth` feedback: numbers from `base` on, and when each came, in ticks on the viewer's clock. Answers the
    /// sequence numbers of packets whose last copy is lost.
    pub(super) fn feedback(
        &mut self,
        (nth, base): (u8, u16),
        arrivals: impl Iterator<Item = Option<i64>>,
        now: Time,
    ) -> Vec<u64> {
        let newest = self.next - 1;
        let oldest = self.next - self.numbers.len() as u64;
        let begin = newest - u64::from((newest as u16).wrapping_sub(base));
        // Some viewers begin with what came first, not with what is missing before it (str0m). Unless a feedback was lost in
        // between, that did not come.
        let first = self.told_from.is_none();
        let follows = !first && nth == self.nth.wrapping_add(1);
        let from = if follows { begin.min(self.covered) } else { begin };
        if !first && !follows && begin > self.covered {
            (self.passed, self.loses) = (now, true);
        }
        // One that was overtaken on its way tells of what it tells.
        if first || nth.wrapping_sub(self.nth) < u8::MAX / 2 {
            self.nth = nth;
        }
        self.told_from.get_or_insert(begin);
        let mut until = begin;
        let mut delay = None;
        let mut came: Option<(u64, i64, i64)> = None;
        let mut way = i64::MAX;
        let mut before: Option<(i64, Time)> = None;
        for (number, arrived) in (begin..=newest).zip(arrivals) {
            until = number + 1;
            let place = number.checked_sub(oldest).and_then(|n| usize::try_from(n).ok());
            let Some(&Number { seq, at }) = place.and_then(|n| self.numbers.get(n)) else { continue };
            let Some(arrived) = arrived else { continue };
            if let Some((came, left)) = before
                && came > arrived
            {
                let by = (came - arrived).saturating_mul(TICK).unsigned_abs();
                let by = Duration::from_nanos(by) + at.since(left);
                // The next may be a little later.
                let by = (by + by / 4).min(WINDOW_MOST);
                self.overtaken = (by.max(self.window(now)), now);
            }
            before = Some((arrived, at));
            came = came.map_or(Some((1, arrived, arrived)), |(n, a, z)| {
                Some((n + 1, a.min(arrived), z.max(arrived)))
            });
            let left = i64::try_from(at.as_nanos()).unwrap_or(i64::MAX);
            way = way.min(arrived.saturating_mul(TICK).saturating_sub(left));
            self.top = self.top.max((number, at));
            let Some(packet) = self.packet(seq).filter(|p| p.fate != Fate::Came) else { continue };
            packet.fate = Fate::Came;
            if packet.number == number {
                delay.get_or_insert(now.since(packet.last));
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
        self.covered = self.covered.max(until);
        // What the feedback before told of may be lost with it.
        self.look = self.look.min(now);
        self.forget();
        let lost = self.lost(from..until, now);
        let (came, from, to) = came.unwrap_or_default();
        if let Some(burst) = &mut self.burst {
            let within = Duration::from_nanos(to.saturating_sub(from).saturating_mul(TICK).unsigned_abs());
            burst.told(Row { came, within, way }, !lost.is_empty(), now);
        }
        lost
    }

    /// What is lost: it was told of what left under these numbers, and of one that left later by the window.
    fn lost(&mut self, numbers: Range<u64>, now: Time) -> Vec<u64> {
        let (window, (top, left)) = (self.window(now), self.top);
        let mut lost = Vec::new();
        for (seq, packet) in (self.first..).zip(&mut self.packets) {
            if numbers.contains(&packet.number) && matches!(packet.fate, Fate::Open | Fate::Unheard) {
                packet.fate = Fate::Missing;
            }
            if packet.fate == Fate::Missing && packet.number < top && packet.last + window <= left {
                packet.fate = Fate::Lost;
                lost.push(seq);
            }
        }
        self.loses |= !lost.is_empty();
        lost
    }

    /// Feedback did not come when it was due.
    fn is_silent(&self, now: Time) -> bool {
        let due = |(at, mean): (Time, Duration)| {
            mean > Duration::ZERO && now.since(at) >= mean * SILENCE.0 / SILENCE.1
        };
        self.heard.is_some_and(due)
    }

    /// Packets of which nothing is heard although that is overdue, in order; they count as seen to. What is older than
    /// `age` is past help.
    pub(super) fn unheard(&mut self, age: Duration, now: Time) -> Vec<u64> {
        let Some((mean, spread)) = self.told else { return Vec::new() };
        if now < self.look {
            return Vec::new();
        }
        let late = (mean + spread * 2 + LATE).min(LATE_MOST);
        // A queue on the link makes all feedback late, and what is sent again would make it longer: then feedback still
        // comes. And where nothing was ever lost, the viewer is busy.
        let silent = self.loses && self.is_silent(now);
        while self.packets.front().is_some_and(|p| now.since(p.last) > age) {
            self.packets.pop_front();
            self.first += 1;
        }
        self.forget();
        self.look = now + late;
        // Feedback may have been overtaken as well.
        let passed = self.passed + self.window(now);
        if passed > now {
            self.look = passed;
        }
        let mut due = Vec::new();
        for (seq, packet) in (self.first..).zip(&mut self.packets) {
            if packet.fate != Fate::Open {
                continue;
            }
            let passed_over = passed <= now
                && packet.number < self.covered
                && self.told_from.is_some_and(|n| n <= packet.number);
            if passed_over || silent && packet.last + late <= now {
                packet.fate = Fate::Unheard;
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
    const RTT: Duration = Duration::from_millis(80);

    /// Feedback of packets that came (or did not) one after the other.
    fn told(r: &mut Receipts, which: (u8, u16), came: &[bool], now: Time) -> Vec<u64> {
        r.feedback(which, came.iter().map(|came| came.then_some(0)), now)
    }

    #[test]
    fn what_did_not_come_is_known_unless_a_later_copy_may_still() {
        let mut r = Receipts::new(65_534);
        let numbers: Vec<u16> = (10..14).map(|seq| r.leaves(First(seq), ms(seq))).collect();
        assert_eq!(numbers, [65_534, 65_535, 0, 1]);
        assert_eq!(told(&mut r, (0, 65_534), &[true, false, false, true], ms(100)), [11, 12]);
        assert!(r.came(10) && !r.came(11) && r.came(13));
        assert_eq!(r.leaves(Again(11), ms(101)), 2);
        assert_eq!(r.leaves(First(14), ms(102)), 3);
        assert_eq!(
            told(&mut r, (1, 65_535), &[false, false, true, false, true], ms(250)),
            [11],
            "12 was told of"
        );
        assert_eq!(r.leaves(Again(11), ms(251)), 4);
        assert_eq!(told(&mut r, (2, 4), &[true], ms(300)), [0u64; 0]);
        assert!(r.came(11) && !r.came(12) && r.came(13));
        assert_eq!((r.leaves(Again(12), ms(301)), r.packets.len()), (5, 3));
        assert_eq!(told(&mut r, (3, 5), &[true], ms(400)), [0u64; 0]);
        assert_eq!((r.packets.len(), r.numbers.len()), (0, 0), "nothing is to be remembered");
    }

    #[test]
    fn what_lies_between_two_feedbacks_is_lost_and_may_have_come_where_one_of_them_was() {
        let mut r = Receipts::new(0);
        (0..12).for_each(|n| _ = r.leaves(First(n), ms(n)));
        assert_eq!(told(&mut r, (255, 0), &[true, true], ms(100)), [0u64; 0]);
        assert_eq!(told(&mut r, (0, 4), &[true, true], ms(150)), [2, 3], "it begins with what came first");
        assert_eq!(told(&mut r, (2, 8), &[true, true], ms(250)), [0u64; 0]);
        assert_eq!(r.unheard(AGE, ms(250)), [6, 7], "what the lost one would have told of");
        assert_eq!(r.unheard(AGE, ms(250)), [0u64; 0]);
    }

    #[test]
    fn packets_are_counted_while_arrivals_are_wanted_and_what_left_before_is_not_known() {
        let mut r = Receipts::new(7);
        assert!(!r.are_wanted(ms(0)) && !r.came(99));
        r.want(ms(100), AGE);
        assert!(r.are_wanted(ms(100)));
        // What was lost leaves first, and was never counted.
        assert_eq!((r.leaves(Again(99), ms(100)), r.leaves(First(130), ms(101))), (7, 8));
        assert_eq!(told(&mut r, (0, 7), &[true, true], ms(150)), [0u64; 0]);
        assert!(!r.came(99) && !r.came(129) && r.came(130) && !r.came(131));
        assert!(!r.are_wanted(ms(1_100)) && !r.came(130) && r.numbers.is_empty());
        assert_eq!(r.newest(), 8, "numbers go on");
    }

    #[test]
    fn what_nothing_is_heard_of_leaves_again_once_and_not_before_feedback_is_late() {
        let mut r = Receipts::new(0);
        r.leaves(First(4), ms(0));
        r.leaves(First(5), ms(0));
        assert_eq!(r.unheard(AGE, ms(900)), [0u64; 0], "this viewer may never tell");
        assert_eq!(r.told_after(), None);
        assert_eq!(told(&mut r, (0, 0), &[false, true], ms(100)), [4]);
        r.leaves(Again(4), ms(100));
        assert_eq!(r.told_after(), Some(Duration::from_millis(100)));
        for seq in 6..9 {
            r.leaves(First(seq), ms(100 + seq));
        }
        // The second says how far apart they are.
        told(&mut r, (1, 1), &[true, true], ms(150));
        // Late is 94 + 2 × 87.5 + 10 ms.
        assert_eq!(r.unheard(AGE, ms(380)), [0u64; 0]);
        assert_eq!(r.unheard(AGE, ms(390)), [6, 7, 8]);
        assert_eq!(r.unheard(AGE, ms(900)), [0u64; 0]);
        assert_eq!(r.unheard(AGE, ms(1_600)), [0u64; 0]);
        assert_eq!((r.packets.len(), r.numbers.len()), (0, 0), "too old");
    }

    #[test]
    fn a_viewer_that_lost_nothing_may_be_silent() {
        let mut r = Receipts::new(0);
        (0..20).for_each(|n| _ = r.leaves(First(n), ms(n * 20)));
        told(&mut r, (0, 0), &[true], ms(100));
        told(&mut r, (1, 1), &[true], ms(150));
        assert_eq!(r.unheard(AGE, ms(800)), [0u64; 0]);
        assert_eq!(r.asked(2, RTT, ms(810)), Asked::Leaves);
        assert!(!r.unheard(AGE, ms(810)).is_empty());
    }

    #[test]
    fn feedback_that_comes_late_through_a_queue_is_waited_for_and_what_it_passes_over_is_not() {
        let mut r = Receipts::new(0);
        let mut nth = 0;
        for n in 0..40 {
            r.leaves(First(n), ms(n * 50));
            // Each is told of 100 ms after it left; from the twentieth on a queue grows.
            let of = if n < 20 { n.checked_sub(2) } else { Some(17 + (n - 20) * 2 / 5) };
            if let Some(number) = of {
                told(&mut r, (nth, number as u16), &[true], ms(n * 50));
                nth += 1;
            }
            r.loses = true;
            assert_eq!(r.unheard(Duration::from_secs(9), ms(n * 50)), [0u64; 0], "{n}");
        }
        // Then one is lost: the next goes on behind what that one told of.
        let next = (r.covered - 0x1_0000) as u16;
        told(&mut r, (nth + 1, next + 2), &[true], ms(2_000));
        let due = r.unheard(Duration::from_secs(9), ms(2_000));
        assert_eq!(due, [u64::from(next), u64::from(next) + 1]);
        // And at last nothing comes.
        assert!(r.unheard(Duration::from_secs(9), ms(3_000)).len() > 10);
    }

    #[test]
    fn where_packets_overtake_one_another_one_is_lost_when_it_is_later_than_they_were() {
        let mut r = Receipts::new(0);
        // Ticks of 250 µs; all take 40 ms, and the second comes 20 ms later than it would.
        let at = |ms: i64| Some(ms * 4);
        (0..3).for_each(|n| _ = r.leaves(First(n), ms(n * 10)));
        assert_eq!(
            r.feedback((0, 0), [at(40), None, at(60)].into_iter(), ms(100)),
            [1],
            "nobody knows better"
        );
        r.leaves(Again(1), ms(100));
        assert_eq!(r.feedback((1, 1), [at(70), at(60)].into_iter(), ms(150)), [0u64; 0]);
        assert_eq!(r.window(ms(150)), Duration::from_millis(25), "20 ms, and a quarter");
        // From now on.
        for n in 3..8 {
            r.leaves(First(n), ms(200 + n * 13));
        }
        let none = [0u64; 0];
        assert_eq!(r.feedback((2, 4), [at(280), None, at(300)].into_iter(), ms(320)), none);
        assert_eq!(r.asked(4, RTT, ms(340)), Asked::Waits, "feedback will tell");
        assert_eq!(
            r.feedback((3, 7), [at(310)].into_iter(), ms(370)),
            [4],
            "26 ms after it one left that came"
        );
        assert_eq!(r.asked(4, RTT, ms(375)), Asked::Leaves, "it was lost, and has not left again");
        assert_eq!(r.window(ms(20_151)), Duration::ZERO);
    }

    #[test]
    fn feedback_that_was_overtaken_is_waited_for_where_that_happens() {
        for window in [0, 20] {
            let mut r = Receipts::new(0);
            (0..8).for_each(|n| _ = r.leaves(First(n), ms(n * 20)));
            r.overtaken = (Duration::from_millis(window), ms(0));
            assert_eq!(told(&mut r, (0, 0), &[true, true], ms(200)), [0u64; 0]);
            assert_eq!(told(&mut r, (2, 5), &[true], ms(300)), [0u64; 0]);
            let expected = if window == 0 { vec![2, 3, 4] } else { Vec::new() };
            assert_eq!(r.unheard(AGE, ms(300)), expected);
            assert_eq!(r.unheard(AGE, ms(319)), [0u64; 0]);
            assert_eq!(told(&mut r, (1, 2), &[true], ms(319)), [0u64; 0]);
            assert_eq!(r.unheard(AGE, ms(319)), [0u64; 0]);
            let expected = if window == 0 { Vec::new() } else { vec![3, 4] };
            assert_eq!(r.unheard(AGE, ms(320)), expected, "it told of one alone");
            assert_eq!(told(&mut r, (3, 7), &[true], ms(350)), [6], "the third was the last");
        }
    }

    #[test]
    fn what_fills_the_link_is_not_missed() {
        let mut r = Receipts::new(0);
        r.leaves(First(5), ms(0));
        assert_eq!((r.leaves(Filling, ms(1)), r.leaves(First(6), ms(2))), (1, 2));
        assert_eq!(told(&mut r, (0, 0), &[true, false, true], ms(100)), [0u64; 0]);
        assert!(r.came(5) && r.came(6) && r.numbers.is_empty());
    }

    #[test]
    fn who_never_tells_costs_memory_for_two_seconds_only() {
        let mut r = Receipts::new(0);
        r.want(ms(0), AT_FIRST);
        for n in 0..200u64 {
            assert!(r.are_wanted(ms(n * 10)));
            r.leaves(First(n), ms(n * 10));
        }
        assert!(!r.are_wanted(ms(2_000)));
        assert_eq!((r.numbers.capacity(), r.packets.capacity()), (0, 0));
        assert_eq!(r.asked(7, RTT, ms(2_001)), Asked::Leaves, "it may ask for packets all the same");

        let mut tells = Receipts::new(0);
        tells.want(ms(0), AT_FIRST);
        tells.leaves(First(0), ms(0));
        assert_eq!(told(&mut tells, (0, 0), &[true], ms(1_900)), [0u64; 0]);
        assert!(tells.are_wanted(ms(9_999)));

        let mut depends = Receipts::new(0);
        depends.want(ms(0), Duration::MAX);
        depends.leaves(First(0), ms(0));
        assert!(depends.are_wanted(ms(60_000)));
    }

    proptest! {
        /// Whatever a viewer says: only packets that left are named, and memory is bounded.
        #[test]
        fn nonsense_does_no_harm(
            steps in proptest::collection::vec((0u8..4, any::<u8>(), any::<u16>(), 0usize..3_000), 1..60)
        ) {
            let (mut r, mut seq, mut now) = (Receipts::new(9), 100u64, 0);
            for (what, nth, base, count) in steps {
                now += 20;
                let named = match what {
                    0 => {
                        for n in 0..count as u64 {
                            r.leaves(First(seq + n), ms(now));
                        }
                        seq += count as u64;
                        Vec::new()
                    }
                    1 => {
                        let at = |n: usize| (!n.is_multiple_of(3)).then_some(((n * 7_919 % 1_000) as i64) << (n % 40));
                        r.feedback((nth, base), (0..count).map(at), ms(now))
                    }
                    2 => {
                        r.asked(u64::from(base) * count as u64, RTT, ms(now));
                        Vec::new()
                    }
                    _ => r.unheard(AGE, ms(now)),
                };
                prop_assert!(named.iter().all(|n| (100..seq).contains(n)));
                for n in named {
                    r.leaves(Again(n), ms(now));
                }
                prop_assert!(r.packets.len() <= MOST && r.numbers.len() <= MOST);
                prop_assert!(r.window(ms(now)) <= WINDOW_MOST);
            }
        }
    }
}
