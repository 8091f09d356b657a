//! Whether a viewer's link carries a stream that has no lesser rendition, told by the reports that every receiver sends anyway
//! (RFC 3550, 6.4): so it costs nothing where all is well.
//!
//! Loss alone says little of a link: wireless ones lose several percent, in bursts. A link is too thin where a queue stands on it
//! for seconds while less comes than is sent, or where a quarter is lost for seconds. What came is then what it carries. Its
//! viewer is given key frames and sound, and the pictures again once its link was seen to carry them; where that cannot be seen,
//! they are tried after a while, and each time that this fails the while is twice as long. A key frame is larger than the queues
//! of such links, so its packets leave at the rate that the link carries.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::Viewer;
use super::bandwidth::Bandwidth;
use super::receipts::AFTER_LOSS;
use crate::media::payload::PAYLOAD_BYTES;
use crate::time::Time;
use crate::wire::rtcp::Report;
use std::collections::VecDeque;
use std::time::Duration;

/// What is judged covers so much time …
const SPAN: Duration = Duration::from_secs(4);
/// … so many reports (what lies between the first two and so on) …
const REPORTS: usize = 4;
/// … and so many packets; where only loss says it, more, since bursts of it vary.
const PACKETS: u64 = 60;
const PACKETS_LOST: u64 = 200;
/// Some receivers report with all that they say, every few milliseconds (libwebrtc): these are looked at so far apart.
const BETWEEN: Duration = Duration::from_millis(800);
/// Reports that are remembered, at most.
const REPORTS_MOST: usize = 16;
/// Of what was sent, no more than so much came although a queue stood, percent.
const CAME: u64 = 85;
/// The round trip is longer by so much than the least that was seen: a queue stands.
const QUEUE: Duration = Duration::from_millis(80);
/// The least round trip is that of the present and of the former span: ways change.
const LEAST: Duration = Duration::from_secs(60);
/// So much was lost, percent: of all …
const LOST: u64 = 25;
/// … and between any two reports.
const LOST_EACH: u64 = 12;
/// Of what came, so much is believed, percent: a queue must drain.
const USED: u64 = 90;
/// Pictures are not tried before, however much the link seems to carry.
const HOLD: Duration = Duration::from_secs(5);
/// Where what it carries cannot be seen, so many times as long.
const BLIND: u32 = 2;
/// The longest such time.
const HOLD_MOST: Duration = Duration::from_secs(160);
/// A viewer that is too thin again sooner than this has to wait longer.
const SOON: Duration = Duration::from_secs(60);
/// Feedback of what came is missed after so long.
const UNFED: Duration = Duration::from_secs(15);

/// What was not sent in time is not made up for beyond this.
const CATCH_UP: Duration = Duration::from_millis(100);
/// Turns are so far apart at least, so that where much is carried several packets leave in one.
const TURNS: Duration = Duration::from_millis(5);
/// While it is tried out whether a link carries more, a packet leaves so often at least.
const TRIES: Duration = Duration::from_millis(20);

/// How the packets of a thin link are spread over time.
#[derive(Debug, Default)]
pub(super) struct Spread {
    /// Until when what the link carries is used up.
    until: Time,
    /// When it had its last turn.
    turned: Time,
    /// A packet may leave, and waits.
    pub(super) due: bool,
}

fn span_of(packets: usize, room: u64) -> Duration {
    let bits = (packets * PAYLOAD_BYTES) as u64 * 8;
    Duration::from_micros(bits.saturating_mul(1_000_000) / room.max(1))
}

impl Spread {
    /// It has a turn.
    pub(super) fn turn(&mut self, now: Time) {
        (self.turned, self.due) = (now, false);
    }

    /// How many packets may leave now where a link carries so many bits a second. They count as sent.
    pub(super) fn packets(&mut self, room: u64, now: Time) -> usize {
        if now.since(self.until) > CATCH_UP {
            self.until = now - CATCH_UP;
        }
        let one = span_of(1, room).max(Duration::from_micros(1));
        let count = (now.since(self.until).as_nanos() / one.as_nanos()) as usize;
        self.until += span_of(count, room);
        count
    }
}

/// What was known when a report came.
#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Time,
    /// The highest number that came, with wraps, and how many of them did not.
    highest: u32,
    lost: i32,
    queue: bool,
    /// Packets and bytes of pictures that had been sent, those that were sent again left out.
    sent: u64,
    octets: u32,
}

/// Between two reports: numbers that went on at the other end, how many of them did not come, packets that were sent. `None`: what a
/// peer says of itself can be anything.
fn share(a: &Heard, b: &Heard) -> Option<(u64, u64, u64)> {
    let passed = u64::from(b.highest.wrapping_sub(a.highest));
    let lost = u64::try_from(b.lost.saturating_sub(a.lost)).unwrap_or(0);
    let sent = b.sent.saturating_sub(a.sent);
    (lost <= passed && passed <= sent.saturating_add(PACKETS_LOST)).then_some((passed, lost, sent))
}

/// It was found too thin.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// What it carried, bits a second.
    carried: u64,
    /// At what rate packets leave.
    pace: u64,
    until: Time,
    /// When feedback of what came was last heard.
    fed: Time,
}

/// What the reports of one viewer say of its link.
#[derive(Debug)]
pub(super) struct Thin {
    heard: VecDeque<Heard>,
    /// The least round trip of the present and of the former span.
    least: [Duration; 2],
    least_since: Time,
    found: Option<Found>,
    failures: u32,
    /// When it was last given all pictures again.
    whole: Option<Time>,
}

impl Default for Thin {
    fn default() -> Thin {
        Thin {
            heard: VecDeque::new(),
            least: [Duration::MAX; 2],
            least_since: Time::ZERO,
            found: None,
            failures: 0,
            whole: None,
        }
    }
}

impl Thin {
    /// Whether it was found too thin.
    pub(super) fn is_found(&self) -> bool {
        self.found.is_some()
    }

    /// At what rate packets leave for it, bits a second; `None`: as they come.
    pub(super) fn pace(&self) -> Option<u64> {
        self.found.map(|f| f.pace)
    }

    /// A report on the pictures came; `sent`: packets and bytes of them up to now. Answers what the link carries, bits a second,
    /// if that is news: less than it is sent.
    fn reported(
        &mut self,
        report: &Report,
        rtt: Option<Duration>,
        sent: (u64, u32),
        now: Time,
    ) -> Option<u64> {
        if now.since(self.least_since) > LEAST / 2 {
            let [present, _] = self.least;
            (self.least_since, self.least) = (now, [Duration::MAX, present]);
        }
        if let (Some(rtt), [present, _]) = (rtt, &mut self.least) {
            *present = rtt.min(*present);
        }
        let least = self.least.iter().copied().min().unwrap_or_default();
        let queue = rtt.is_some_and(|rtt| rtt > least.saturating_add(QUEUE));
        let (sent, octets) = sent;
        let (highest, lost) = (report.highest, report.total_lost);
        let heard = Heard { at: now, highest, lost, queue, sent, octets };
        let last = self.heard.back().copied();
        if last.is_some_and(|last| now.since(last.at) < BETWEEN) {
            return None;
        }
        let lossy = |last: Heard| {
            share(&last, &heard).is_some_and(|(passed, lost, _)| lost > 0 && lost * 100 >= passed * LOST_EACH)
        };
        if self.found.is_some() || !queue && !last.is_some_and(lossy) {
            // Nothing before this one speaks against the link.
            self.heard.clear();
        }
        if self.heard.len() >= REPORTS_MOST {
            self.heard.pop_front();
        }
        self.heard.push_back(heard);
        if self.found.is_some() {
            return None;
        }
        let carried = self.judge()?;
        let again = self.whole.is_some_and(|at| now.since(at) < SOON);
        self.failures = if again { self.failures.saturating_add(1) } else { 0 };
        self.found = Some(Found { carried, pace: carried, until: now + self.hold(), fed: now });
        Some(carried)
    }

    fn hold(&self) -> Duration {
        HOLD.saturating_mul(1 << self.failures.min(8)).min(HOLD_MOST)
    }

    /// What the link carries, if what was heard says that it is too thin.
    fn judge(&self) -> Option<u64> {
        let (first, last) = (self.heard.front()?, self.heard.back()?);
        let span = last.at.since(first.at);
        if span < SPAN || self.heard.len() <= REPORTS {
            return None;
        }
        let (passed, lost, sent) = share(first, last)?;
        let sent = sent.max(passed);
        let came = passed - lost;
        let queued =
            self.heard.iter().skip(1).all(|h| h.queue) && sent >= PACKETS && came * 100 <= sent * CAME;
        let each = || {
            self.heard
                .iter()
                .zip(self.heard.iter().skip(1))
                .all(|(a, b)| share(a, b).is_some_and(|(passed, lost, _)| lost * 100 >= passed * LOST_EACH))
        };
        let lossy = passed >= PACKETS_LOST && lost * 100 >= passed * LOST && each();
        if !queued && !lossy {
            return None;
        }
        let bits =
            u64::from(last.octets.wrapping_sub(first.octets)) * 8_000 / (span.as_millis() as u64).max(1);
        Some(bits * came / sent.max(1) * USED / 100)
    }

    /// What it is taken to carry while it is too thin, by an `estimate`; `None`: all pictures are to be tried.
    fn room(&mut self, estimate: Option<u64>, now: Time) -> Option<u64> {
        let wait = self.hold().saturating_mul(BLIND);
        let found = self.found.as_mut()?;
        if now < found.until {
            return Some(found.carried);
        }
        match estimate {
            Some(estimate) if now.since(found.fed) < UNFED => {
                found.pace = estimate.max(found.carried);
                Some(estimate)
            }
            _ if now < found.until + wait => Some(found.carried),
            _ => None,
        }
    }

    fn is_held(&self, now: Time) -> bool {
        self.found.is_some_and(|f| now < f.until)
    }

    fn fed(&mut self, now: Time) {
        if let Some(found) = &mut self.found {
            found.fed = now;
        }
    }

    fn over(&mut self, now: Time) {
        self.found = None;
        self.heard.clear();
        self.whole = Some(now);
    }
}

impl Viewer {
    /// A report on the pictures says how the link is, where there is nothing lesser to give. Over TCP the connection says it.
    pub(super) fn weigh(&mut self, report: &Report, rtt: Option<Duration>, now: Time) {
        if self.adapts {
            return;
        }
        if self.over().is_some() {
            if self.thin.is_found() {
                self.is_whole(now);
            }
            return;
        }
        let [Some(pictures), _] = &mut self.lanes else { return };
        if let Some(carried) = self.thin.reported(report, rtt, pictures.sent(), now)
            && pictures.carried.transport.is_some()
        {
            self.bandwidth = Some(Box::new(Bandwidth::presumed(carried, now)));
        }
        if self.thin.is_found() {
            pictures.want_arrivals(now, AFTER_LOSS);
            self.tell_thin(now);
        }
    }

    /// Whether its packets are spread over time: it has turns only when one is due.
    pub(in crate::rtc) fn is_spread(&self) -> bool {
        self.thin.is_found() && self.over().is_none()
    }

    /// When the next packet of those that are spread may leave.
    pub(super) fn next_packet(&self) -> Option<Time> {
        let room = self.thin.pace().filter(|_| self.is_spread())?;
        let [pictures, _] = &self.waiting;
        if !pictures.is_empty() || !self.again.is_empty() {
            return Some((self.spread.until + span_of(1, room)).max(self.spread.turned + TURNS));
        }
        self.bandwidth.as_ref().filter(|b| b.is_trying()).map(|_| self.spread.turned + TRIES)
    }

    /// Feedback of what came is there.
    pub(super) fn fed(&mut self, now: Time) {
        if self.thin.is_found() {
            self.thin.fed(now);
            self.tell_thin(now);
        }
    }

    fn tell_thin(&mut self, now: Time) {
        let estimate = self.bandwidth.as_ref().and_then(|b| b.estimate());
        match self.thin.room(estimate, now) {
            Some(room) => self.has_room(Some(room), now),
            None => self.is_whole(now),
        }
    }

    /// All pictures are given again.
    fn is_whole(&mut self, now: Time) {
        self.thin.over(now);
        self.bandwidth = None;
        self.next_room = now;
        self.has_room(None, now);
    }

    /// What it could be given if its link carried so much, bits a second; `None`: it has all.
    pub(in crate::rtc) fn set_goal(&mut self, goal: Option<u64>, now: Time) {
        if let Some(bandwidth) = &mut self.bandwidth {
            bandwidth.set_goal(goal);
        }
        if goal.is_none() && self.thin.is_found() && !self.thin.is_held(now) {
            self.is_whole(now);
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A link under a stream of so many packets of 1,000 bytes a second, reported each second.
    struct Link {
        thin: Thin,
        now: u64,
        sent: u64,
        highest: u64,
        lost: u64,
    }

    impl Link {
        fn new() -> Link {
            Link { thin: Thin::default(), now: 1_000, sent: 0, highest: 0, lost: 0 }
        }

        /// A second passes: so many packets leave, numbers go on by so many at the other end, so many of which are missing.
        fn second(&mut self, (sent, passed, lost): (u64, u64, u64), rtt_ms: u64) -> Option<u64> {
            self.now += 1_000;
            self.sent += sent;
            self.highest += passed;
            self.lost += lost;
            let report = Report {
                ssrc: 1,
                lost: (lost * 256 / passed.max(1)).min(255) as u8,
                total_lost: self.lost as i32,
                highest: self.highest as u32,
                last_sr: 0,
                since_last_sr: 0,
            };
            let sent = (self.sent, (self.sent * 1_000) as u32);
            let rtt = Some(Duration::from_millis(rtt_ms));
            self.thin.reported(&report, rtt, sent, Time::from_millis(self.now))
        }

        fn seconds(&mut self, n: usize, which: (u64, u64, u64), rtt_ms: u64) -> Vec<(u64, u64)> {
            (0..n).filter_map(|_| self.second(which, rtt_ms).map(|bits| (self.now / 1_000, bits))).collect()
        }
    }

    #[test]
    fn a_link_of_half_the_rate_is_found_in_some_seconds() {
        for rtt in [40, 290] {
            // A queue that drops, short or long.
            let mut l = Link::new();
            assert_eq!(l.seconds(10, (100, 100, 0), 40), []);
            let found = l.seconds(10, (100, 100, 50), rtt);
            assert_eq!(found.len(), 1, "{found:?}");
            let (at, bits) = found[0];
            assert!(at <= 15 && (300_000..=420_000).contains(&bits), "{found:?}");
        }
        // A queue without end: nothing is lost, and the delay grows.
        let mut l = Link::new();
        assert_eq!(l.seconds(10, (100, 100, 0), 40), []);
        let found: Vec<u64> = (1..10).filter_map(|n| l.second((100, 50, 0), 40 + 500 * n)).collect();
        assert!(found.len() == 1 && (340_000..=380_000).contains(&found[0]), "{found:?}");
    }

    #[test]
    fn loss_in_bursts_a_longer_way_and_a_pause_are_no_thin_link() {
        let mut l = Link::new();
        let mut rng = crate::rand::Rng::new([5; 32]);
        // One in twenty, in bursts of four, of a stream of few packets; half an hour.
        let mut burst = false;
        for _ in 0..1_800 {
            let mut lost = 0;
            for _ in 0..40 {
                burst = if burst { rng.below(4) > 0 } else { rng.below(76) == 0 };
                lost += u64::from(burst);
            }
            assert_eq!(l.second((40, 40, lost), 80 + u64::from(rng.below(60))), None);
        }
        assert_eq!(l.seconds(100, (40, 40, 2), 500), [], "a longer way");
        // A viewer that slept: much is missing, and then all is well.
        assert_eq!(l.seconds(20, (100, 100, 0), 40), []);
        assert_eq!(l.seconds(1, (800, 800, 700), 3_000), []);
        assert_eq!(l.seconds(20, (100, 100, 0), 40), []);
    }

    #[test]
    fn who_cannot_say_what_came_is_tried_ever_less_often() {
        let mut l = Link::new();
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert_eq!(l.seconds(10, (100, 100, 50), 40).len(), 1);
            let since = l.now;
            while l.thin.room(None, Time::from_millis(l.now)).is_some() {
                assert_eq!(l.second((5, 5, 0), 40), None);
            }
            l.thin.over(Time::from_millis(l.now));
            waits.push((l.now - since) / 1_000);
        }
        assert!(waits[0] <= 15 && waits.is_sorted() && waits[7] >= 400, "{waits:?}");
    }

    #[test]
    fn an_estimate_counts_after_a_while_and_only_as_long_as_feedback_comes() {
        let mut l = Link::new();
        let carried = l.seconds(10, (100, 100, 50), 40)[0].1;
        let (found, at) = (l.thin.found.unwrap(), Time::from_millis);
        let until = found.until.as_millis();
        assert_eq!(l.thin.room(Some(9_000_000), at(until - 1)), Some(carried));
        l.thin.fed(at(until));
        assert_eq!(l.thin.room(Some(9_000_000), at(until)), Some(9_000_000));
        assert_eq!(l.thin.room(Some(9_000_000), at(until + 60_000)), None);
    }

    #[test]
    fn reports_that_come_every_few_milliseconds_say_the_same() {
        let mut l = Link::new();
        let mut found = Vec::new();
        // Of 4 packets in 40 ms none is lost, and then four are.
        for n in 0..300u64 {
            l.now -= 960;
            let lost = if n % 2 == 0 { 0 } else { 4 };
            found.extend(l.second((4, 4, lost), 230).map(|bits| (l.now, bits)));
        }
        assert!(
            matches!(found[..], [(at, bits)] if at < 6_000 && (330_000..380_000).contains(&bits)),
            "{found:?}"
        );
    }

    #[test]
    fn reports_that_make_no_sense_change_nothing() {
        let mut thin = Thin::default();
        let mut rng = crate::rand::Rng::new([6; 32]);
        for n in 0..5_000u64 {
            let report = Report {
                ssrc: 1,
                lost: rng.u32() as u8,
                total_lost: rng.u32() as i32,
                highest: rng.u32(),
                last_sr: 0,
                since_last_sr: 0,
            };
            let rtt = Some(Duration::from_millis(u64::from(rng.below(5_000))));
            let found =
                thin.reported(&report, rtt, (n * 100, (n * 100_000) as u32), Time::from_millis(n * 1_000));
            assert!(thin.heard.len() <= REPORTS_MOST);
            assert!(found.is_none_or(|bits| bits < 1_000_000));
            thin.found = None;
        }
    }
}
