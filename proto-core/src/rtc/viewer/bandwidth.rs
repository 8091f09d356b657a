//! What a viewer's link carries, estimated from when its packets came (transport-wide feedback).
//!
//! As in GCC (draft-ietf-rmcat-gcc-02) a delay that grows means more than the link carries, and then what came is what it
//! carries; loss is the second sign (section 6). Unlike there pictures are not paced, so a single large one fills a queue for a
//! moment and the gradient of the delay says little: what counts is that the queue was not empty for a while (as in
//! RFC 8698, where delay is compared with the least that was seen). A rate above what is sent is tried out with packets that are sent again.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// Packets of which nothing was heard yet, and that are remembered, at most: three seconds of 10 Mbit/s.
const SENT_MAX: usize = 4_096;
/// What came is looked at over so long, nanoseconds on the viewer's clock.
const WINDOW: i64 = 500_000_000;
/// A queue that was never shorter than this within a window was never empty, nanoseconds.
const QUEUED: i64 = 35_000_000;
/// A window tells something if its packets cover so much of it, nanoseconds.
const COVERED: i64 = 300_000_000;
/// More than this share lost is too much, percent (GCC, section 6), of so many packets at least.
const LOSS: u64 = 10;
const LOSS_PACKETS: u64 = 20;
/// The least delay is that of the last so many seconds: ways change, and clocks drift.
const BASE: Duration = Duration::from_secs(20);
/// After the estimate fell, the queue has so long to drain before what it shows counts anew.
const DRAIN: Duration = Duration::from_millis(1_000);
/// A link that was full is taken for full for so long.
const FULL: Duration = Duration::from_secs(5);
/// Of what came while the queue was full, this much is used: else it would never drain, percent.
const USED: u64 = 90;
/// While all is well the estimate grows by so much a second, percent (GCC, section 5.5).
const GROWTH: u64 = 8;
/// A try lasts so long, and what it showed is known so long after.
const TRY: Duration = Duration::from_millis(700);
const TRY_ANSWER: Duration = Duration::from_millis(400);
/// Pause between tries at first, and at most after many that failed.
const PAUSE: Duration = Duration::from_secs(2);
const PAUSE_MOST: Duration = Duration::from_secs(16);
/// A try is given up at once if the queue becomes so long, nanoseconds: it is not worth a picture that comes late.
const TRY_QUEUED: i64 = 80_000_000;
/// No try is more than so many times the estimate.
const TRY_MOST: u64 = 3;
/// The least that is believed of a link, bits a second.
const LEAST: u64 = 20_000;

#[derive(Clone, Copy, Debug)]
struct Sent {
    number: u64,
    at: Time,
    bytes: u32,
    /// It was sent before.
    again: bool,
}

/// A packet of which feedback came.
#[derive(Clone, Copy, Debug)]
struct Came {
    /// When it came, nanoseconds on the viewer's clock; `None`: it did not.
    arrived: Option<i64>,
    sent: Time,
    bytes: u32,
    /// How long it was on its way, on clocks that differ.
    delay: i64,
    again: bool,
}

#[derive(Clone, Copy, Debug)]
struct Try {
    since: Time,
    target: u64,
    /// Bits that were added are counted from here.
    added: Time,
}

/// The estimate of one viewer's link.
#[derive(Debug)]
pub(super) struct Bandwidth {
    next: u64,
    sent: VecDeque<Sent>,
    came: VecDeque<Came>,
    /// The least delay of the present and of the former half of [`BASE`].
    base: [i64; 2],
    base_since: Time,
    /// Unwraps the viewer's clock: the latest moment that it told of.
    clock: Option<i64>,
    estimate: Option<u64>,
    grown: Time,
    fell: Option<(Time, i64, u64)>,
    /// What a viewer could be given beyond what it is.
    goal: Option<u64>,
    trying: Option<Try>,
    failures: u32,
    next_try: Time,
}

impl Bandwidth {
    pub(super) fn new(now: Time) -> Bandwidth {
        Bandwidth {
            next: 0,
            sent: VecDeque::new(),
            came: VecDeque::new(),
            base: [i64::MAX; 2],
            base_since: now,
            clock: None,
            estimate: None,
            grown: now,
            fell: None,
            goal: None,
            trying: None,
            failures: 0,
            next_try: now + PAUSE,
        }
    }

    /// As [`Bandwidth::new`], where it is known how little the link carries.
    pub(super) fn presumed(estimate: u64, now: Time) -> Bandwidth {
        Bandwidth { estimate: Some(estimate.max(LEAST)), ..Bandwidth::new(now) }
    }

    /// What the link carries, bits a second; `None`: more than it was ever given.
    pub(super) fn estimate(&self) -> Option<u64> {
        self.estimate
    }

    /// Whether more is tried out.
    pub(super) fn is_trying(&self) -> bool {
        self.trying.is_some()
    }

    /// Whether more was sent lately than the link carries.
    pub(super) fn is_full(&self, now: Time) -> bool {
        self.fell.is_some_and(|(at, ..)| now < at + FULL)
    }

    /// The next packet leaves under this number, perhaps not for the first time. Numbers rise.
    pub(super) fn sends(&mut self, number: u16, (bytes, again): (usize, bool), now: Time) {
        let number = self.next + u64::from(number.wrapping_sub(self.next as u16));
        self.next = number + 1;
        if self.sent.len() >= SENT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent { number, at: now, bytes: bytes as u32, again });
    }

    /// What it could be given if its link carried so much, bits a second; `None`: it has the best.
    pub(super) fn set_goal(&mut self, goal: Option<u64>) {
        self.goal = goal;
        if goal.is_none() {
            self.trying = None;
        }
    }

    /// Bytes to be sent beyond media now, to try out whether the link carries more. `rate` is what is sent, bits a second.
    pub(super) fn extra(&mut self, now: Time) -> usize {
        let Some(estimate) = self.estimate else { return 0 };
        if self.trying.is_none()
            && now >= self.next_try
            && let Some(goal) = self.goal.filter(|g| *g > estimate)
        {
            let target = goal.min(estimate.saturating_mul(TRY_MOST));
            self.trying = Some(Try { since: now, target, added: now });
        }
        if self.trying.is_some_and(|t| now >= t.since + TRY + TRY_ANSWER) {
            // Where hardly anything is sent, no feedback may come that ends it.
            self.judge(now);
        }
        let rate = self.sending(now);
        let Some(run) = self.trying.as_mut().filter(|t| now < t.since + TRY) else { return 0 };
        let passed = now.since(run.added).min(Duration::from_millis(100));
        run.added = now;
        let missing = run.target.saturating_sub(rate);
        usize::try_from(u128::from(missing) * passed.as_nanos() / 8_000_000_000).unwrap_or(0)
    }

    /// What was sent in the last half second, tries left out, bits a second.
    fn sending(&self, now: Time) -> u64 {
        let until = self.trying.map_or(now, |t| t.since);
        let since = |s: &&Sent| now.since(s.at) < Duration::from_millis(1_500);
        let media = self.sent.iter().rev().take_while(since).filter(|s| s.at <= until);
        let (mut bytes, mut first) = (0u64, until);
        for s in media {
            bytes += u64::from(s.bytes);
            first = s.at;
        }
        let span = until.since(first).max(Duration::from_millis(300));
        bytes * 8_000 / span.as_millis().max(1) as u64
    }

    /// Feedback: the number of its first packet, and for each when it came, ticks of 250 µs on a clock of 2³² of them.
    pub(super) fn feedback(&mut self, packets: impl Iterator<Item = (u16, Option<i64>)>, now: Time) {
        for (number, ticks) in packets {
            let newest = self.next.wrapping_sub(1);
            let back = (newest as u16).wrapping_sub(number);
            let Some(number) = newest.checked_sub(u64::from(back)) else { continue };
            let Ok(at) = self.sent.binary_search_by_key(&number, |s| s.number) else { continue };
            let Some(sent) = self.sent.remove(at) else { continue };
            let arrived = ticks.map(|t| self.unwrap(t));
            let delay = arrived.map_or(0, |a| a.saturating_sub(sent.at.as_nanos() as i64));
            if arrived.is_some() {
                self.lowest(delay, now);
            }
            self.came.push_back(Came { arrived, sent: sent.at, bytes: sent.bytes, delay, again: sent.again });
        }
        let old = |c: &Came| now.since(c.sent) > Duration::from_secs(3);
        while self.came.front().is_some_and(old) || self.came.len() > SENT_MAX {
            self.came.pop_front();
        }
        let base = self.base.iter().copied().min().unwrap_or(0);
        let late = |c: &Came| c.arrived.is_some() && c.delay.saturating_sub(base) > TRY_QUEUED;
        let of_try = |c: &&Came| self.trying.is_some_and(|t| c.sent > t.since);
        if self.came.iter().rev().take_while(of_try).take(8).filter(|c| late(c)).count() == 8 {
            self.tried(now, false);
        }
        self.judge(now);
    }

    /// The viewer's clock wraps after 2²⁴ times 64 ms.
    fn unwrap(&mut self, ticks: i64) -> i64 {
        const WRAP: i64 = (1 << 24) * 256;
        let near = match self.clock {
            None => ticks,
            Some(last) => {
                let step = (ticks - last).rem_euclid(WRAP);
                last + if step >= WRAP / 2 { step - WRAP } else { step }
            }
        };
        self.clock = self.clock.max(Some(near));
        near.saturating_mul(250_000)
    }

    fn lowest(&mut self, delay: i64, now: Time) {
        if now.since(self.base_since) > BASE / 2 {
            self.base_since = now;
            let [present, _] = self.base;
            self.base = [i64::MAX, present];
        }
        let [present, _] = &mut self.base;
        *present = delay.min(*present);
    }

    /// What came in a span before the newest arrival.
    fn window(&self, span: i64) -> Option<Seen> {
        let newest = self.came.iter().filter_map(|c| c.arrived).max()?;
        let base = self.base.iter().copied().min().unwrap_or(0);
        let mut seen = Seen { least: i64::MAX, ..Seen::default() };
        let (mut first, mut last_bytes) = (newest, 0);
        for c in &self.came {
            let Some(arrived) = c.arrived.filter(|a| *a > newest - span) else { continue };
            first = first.min(arrived);
            seen.bytes += u64::from(c.bytes);
            seen.packets += 1;
            seen.least = seen.least.min(c.delay.saturating_sub(base));
            last_bytes = c.bytes;
        }
        seen.span = newest - first;
        let bytes = seen.bytes.saturating_sub(u64::from(last_bytes));
        seen.rate = bytes * 8_000 / (seen.span / 1_000_000).max(1).unsigned_abs();
        // Loss is seen by order of sending, over twice the span. Copies say nothing of it: there are the more of them, the more
        // is lost.
        let span = Duration::from_nanos(2 * span.unsigned_abs());
        let until = self.came.iter().map(|c| c.sent).max()?;
        for c in self.came.iter().filter(|c| !c.again && until.since(c.sent) <= span) {
            seen.told += 1;
            seen.lost += u64::from(c.arrived.is_none());
        }
        Some(seen)
    }

    fn judge(&mut self, now: Time) {
        let Some(seen) = self.window(WINDOW) else { return };
        let lossy = seen.told >= LOSS_PACKETS && seen.lost * 100 > seen.told * LOSS;
        let full = seen.least > QUEUED && seen.span > COVERED;
        let draining = self.fell.is_some_and(|(at, ..)| now < at + DRAIN);
        if (full || lossy) && !draining {
            if full && !lossy && self.is_no_queue(&seen, now) {
                self.base = [self.base.iter().copied().min().unwrap_or(0).saturating_add(seen.least); 2];
                return;
            }
            let carried = if full {
                seen.rate * USED / 100
            } else {
                seen.rate * (200 - seen.lost * 100 / seen.told.max(1)) / 200
            };
            self.fell = Some((now, seen.least, self.sending(now)));
            self.estimate = Some(self.estimate.map_or(carried, |e| e.min(carried)).max(LEAST));
            self.tried(now, false);
            return;
        }
        if full || lossy {
            // What still drains out of the queue says what the link carries, too.
            return;
        }
        let Some(estimate) = self.estimate else { return };
        let passed = now.since(self.grown).min(Duration::from_millis(500)).as_millis() as u64;
        self.grown = now;
        // A sender of little learns nothing by it (GCC, section 5.5).
        let most = estimate.max(seen.rate * 3 / 2);
        self.estimate = Some((estimate + estimate * GROWTH * passed / 100_000).min(most));
        if let Some(run) = self.trying.filter(|t| now >= t.since + TRY + TRY_ANSWER) {
            let (mut bytes, mut first, mut last) = (0u64, i64::MAX, i64::MIN);
            for c in self.came.iter().filter(|c| c.sent >= run.since && c.sent <= run.since + TRY) {
                if let Some(arrived) = c.arrived {
                    bytes += u64::from(c.bytes);
                    (first, last) = (first.min(arrived), last.max(arrived));
                }
            }
            let span = last.saturating_sub(first).max(TRY.as_nanos() as i64 / 2);
            let rate = bytes * 8_000 / (span / 1_000_000).max(1).unsigned_abs();
            // The try may end a little early, by the rhythm of pictures.
            let shown = if rate * 10 >= run.target * 9 { run.target } else { rate };
            self.estimate = Some(estimate.max(shown));
            self.tried(now, shown > estimate);
        }
    }

    /// A try is over, or had to be given up.
    fn tried(&mut self, now: Time, well: bool) {
        if well && now.since(self.fell.map_or(Time::ZERO, |(at, ..)| at)) > Duration::from_secs(20) {
            self.failures = 0;
        } else if !well && self.trying.is_some() {
            self.failures = self.failures.saturating_add(1);
        }
        let pause = PAUSE.saturating_mul(1 << self.failures.min(6)).min(PAUSE_MOST);
        self.next_try = now + if well { PAUSE / 2 } else { pause };
        self.trying = None;
    }

    /// Less is sent than when the estimate fell, nothing is lost, and the delay is what it was: the way became longer, and
    /// no queue is in it.
    fn is_no_queue(&self, seen: &Seen, now: Time) -> bool {
        self.fell.is_some_and(|(at, delay, rate)| {
            now.since(at) < BASE
                && seen.lost == 0
                && self.sending(now) * 10 < rate * 8
                && seen.least * 10 > delay * 8
                && seen.least * 10 < delay * 12
        })
    }
}

/// What came in a window.
#[derive(Debug, Default)]
struct Seen {
    bytes: u64,
    packets: u64,
    /// Nanoseconds between the first and the last of them.
    span: i64,
    /// The shortest queue, nanoseconds.
    least: i64,
    /// Bits a second.
    rate: u64,
    told: u64,
    lost: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    /// A link of so many bits a second with a queue, that drops what waits longer than `most` ms.
    struct Link {
        rate: u64,
        most: i64,
        busy: i64,
        latency: i64,
    }

    impl Link {
        fn pass(&mut self, bytes: usize, now: Time) -> Option<i64> {
            let now = now.as_nanos() as i64;
            let start = self.busy.max(now);
            if start - now > self.most * MS {
                return None;
            }
            self.busy = start + (bytes as i64 * 8 * 1_000_000_000) / self.rate as i64;
            Some(self.busy + self.latency * MS)
        }
    }

    /// Sends pictures of `rate` for `ms`, with feedback each 50 ms; answers what was estimated in the end.
    fn run(b: &mut Bandwidth, link: &mut Link, now: &mut Time, rate: u64, ms: u64) -> Option<u64> {
        let end = *now + Duration::from_millis(ms);
        let mut told: VecDeque<(u16, Option<i64>)> = VecDeque::new();
        let mut step = 0u64;
        while *now < end {
            let frame = rate / 8 / 30;
            let mut left = (frame as usize).max(100) + b.extra(*now);
            while left > 0 {
                let bytes = left.min(1_200);
                left -= bytes;
                let number = b.next as u16;
                b.sends(number, (bytes, false), *now);
                told.push_back((number, link.pass(bytes, *now)));
            }
            *now += Duration::from_micros(33_333);
            step += 1;
            if step.is_multiple_of(2) {
                let known =
                    |at: &Option<i64>| at.is_none_or(|a| a + link.latency * MS <= now.as_nanos() as i64);
                let mut part = Vec::new();
                while told.front().is_some_and(|(_, at)| known(at)) {
                    part.extend(told.pop_front().map(|(n, at)| (n, at.map(|a| a / 250_000))));
                }
                b.feedback(part.into_iter(), *now);
            }
        }
        b.estimate()
    }

    fn fresh(rate: u64) -> (Bandwidth, Link, Time) {
        let now = Time::from_millis(5_000);
        // Numbers wrap while it runs.
        let mut b = Bandwidth::new(now);
        b.next = 0xfff0;
        (b, Link { rate, most: 200, busy: 0, latency: 20 }, now)
    }

    #[test]
    fn a_link_with_room_is_not_estimated() {
        let (mut b, mut link, mut now) = fresh(10_000_000);
        assert_eq!(run(&mut b, &mut link, &mut now, 2_500_000, 20_000), None);
    }

    #[test]
    fn a_rate_that_falls_is_noticed_within_a_second_and_a_half() {
        for rate in [200_000, 600_000, 1_500_000] {
            let (mut b, mut link, mut now) = fresh(10_000_000);
            run(&mut b, &mut link, &mut now, 2_500_000, 3_000);
            link.rate = rate;
            let seen = run(&mut b, &mut link, &mut now, 2_500_000, 1_500).unwrap_or(0);
            assert!(seen > rate * 6 / 10 && seen < rate * 105 / 100, "{seen} of {rate}");
        }
    }

    #[test]
    fn what_the_link_carries_beyond_what_is_sent_is_found_out_by_tries() {
        let (mut b, mut link, mut now) = fresh(600_000);
        run(&mut b, &mut link, &mut now, 2_500_000, 2_000);
        let low = run(&mut b, &mut link, &mut now, 300_000, 3_000).unwrap_or(0);
        b.set_goal(Some(1_000_000));
        let held = run(&mut b, &mut link, &mut now, 300_000, 20_000).unwrap_or(0);
        assert!(low < 650_000 && held < 700_000, "{low}, then {held}");
        link.rate = 5_000_000;
        let high = run(&mut b, &mut link, &mut now, 300_000, 66_000).unwrap_or(0);
        assert!(high >= 1_000_000, "{high}");
    }

    #[test]
    fn a_way_that_became_longer_is_no_full_queue_for_long() {
        let (mut b, mut link, mut now) = fresh(20_000_000);
        run(&mut b, &mut link, &mut now, 2_500_000, 5_000);
        link.latency = 120;
        run(&mut b, &mut link, &mut now, 2_500_000, 1_000);
        b.set_goal(Some(3_000_000));
        let low = run(&mut b, &mut link, &mut now, 800_000, 3_000).unwrap_or(u64::MAX);
        let high = run(&mut b, &mut link, &mut now, 800_000, 20_000).unwrap_or(0);
        assert!(low > 600_000 && high >= 3_000_000, "{low}, then {high}");
    }

    #[test]
    fn much_loss_is_too_much_and_little_is_none() {
        for (each, falls) in [(50, false), (6, true)] {
            let (mut b, _, mut now) = fresh(1);
            for n in 0..600u64 {
                let sent = now;
                let number = b.next as u16;
                b.sends(number, (1_000, false), sent);
                now += Duration::from_millis(10);
                let at = (n % each != 0).then_some(sent.as_nanos() as i64 / 250_000);
                b.feedback([(number, at)].into_iter(), now);
            }
            assert_eq!(b.estimate().is_some(), falls, "one of {each}");
        }
    }
}
