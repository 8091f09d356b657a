//! Which packets of a publisher are missing, and when to ask for them again (RFC 4585, 6.2.1).

use crate::time::Time;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A gap is asked about once it is so old: packets that only swapped places close it before.
const PATIENCE: Duration = Duration::from_millis(5);
/// For so many round trips one packet is asked for.
const ROUNDS: u8 = 10;
/// In each of them a request leaves so often, for it may be lost, and so may its answer …
const COPIES: u8 = 2;
/// … and so much later, so that no burst of losses takes two answers.
const BETWEEN: Duration = Duration::from_millis(33);
/// Senders answer each request, and stop to send again what is asked for too much (str0m at 15 % of the bytes of the last
/// second). So copies leave only while all requests of the last second are for no more than this share of its packets.
const REQUESTED_SHARE: usize = 8;
const SECOND: Duration = Duration::from_secs(1);
/// The round trip as long as nothing is known of it.
const RTT_UNKNOWN: Duration = Duration::from_millis(100);
/// Nobody is asked again sooner, however near.
const AGAIN_LEAST: Duration = Duration::from_millis(20);
/// Spared between the time that an answer takes and the next request: the sender takes turns, the link has jitter.
const MARGIN: Duration = Duration::from_millis(10);
/// A burst of losses is so many packets long, whatever time that takes, and a receiver sends few. So while an answer is waited
/// for, something leaves so often that the burst is over before the next request …
const PRESS: Duration = Duration::from_millis(8);
/// … for so long at most: a sender that has not answered by then does not, or cannot.
const PRESSED: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug)]
struct Gap {
    since: Time,
    /// Round trips begun, and when the last of them was.
    rounds: u8,
    round: Time,
    /// Requests in this one, and when the last of them left.
    copies: u8,
    last: Time,
}

/// What was asked for in the last second, and how much that may be.
#[derive(Debug, Default)]
struct Requested {
    /// When, and for how many packets.
    requests: VecDeque<(Time, usize)>,
    sum: usize,
    second: Time,
    packets: usize,
    /// Packets of the second before.
    before: usize,
}

impl Requested {
    fn go_on(&mut self, now: Time) {
        while let Some((_, n)) = self.requests.pop_front_if(|(at, _)| now.since(*at) >= SECOND) {
            self.sum -= n;
        }
        let past = now.since(self.second);
        if past >= SECOND {
            (self.before, self.packets) = (if past < SECOND * 2 { self.packets } else { 0 }, 0);
            self.second = now;
        }
    }

    fn packet(&mut self, now: Time) {
        self.go_on(now);
        self.packets += 1;
    }

    /// Whether a copy may leave beside so many new requests.
    fn spare(&self, new: usize) -> bool {
        (self.sum + new) * REQUESTED_SHARE < self.before
    }

    fn asked(&mut self, new: usize, now: Time) {
        if new > 0 {
            self.requests.push_back((now, new));
            self.sum += new;
        }
    }
}

/// The gaps of one source.
#[derive(Debug)]
pub(super) struct Missing {
    highest: Option<u64>,
    gaps: BTreeMap<u64, Gap>,
    most: usize,
    rtt: Option<Duration>,
    requested: Requested,
    overflowed: bool,
}

impl Missing {
    /// Remembers so many gaps at most.
    pub(super) fn new(most: usize) -> Missing {
        Missing {
            highest: None,
            gaps: BTreeMap::new(),
            most,
            rtt: None,
            requested: Requested::default(),
            overflowed: false,
        }
    }

    /// Another source: only the way to it is the same.
    pub(super) fn afresh(&mut self) {
        self.highest = None;
        self.gaps.clear();
        self.overflowed = false;
    }

    /// A packet came; `again`: it was sent again.
    pub(super) fn came(&mut self, index: u64, again: bool, now: Time) {
        self.requested.packet(now);
        let Some(highest) = self.highest else {
            self.highest = Some(index);
            return;
        };
        if index > highest {
            let gap = highest + 1..index;
            if index - highest > self.most as u64 {
                // Nothing that could be mended: a sender that jumped, or a link that was away.
                self.gaps.clear();
                self.overflowed = true;
            } else {
                let new = Gap { since: now, rounds: 0, round: now, copies: 0, last: now };
                self.gaps.extend(gap.map(|n| (n, new)));
                while self.gaps.len() > self.most {
                    self.gaps.pop_first();
                    self.overflowed = true;
                }
            }
            self.highest = Some(index);
        } else if let Some(gap) = self.gaps.remove(&index)
            && again
            && gap.rounds == 1
        {
            // What was asked for in two rounds does not say which it answers (Karn). In one it is most likely the first
            // request, and else not much is wrong.
            self.measured(now.since(gap.round));
        }
    }

    /// The round trip as it was measured, smoothed.
    pub(super) fn measured(&mut self, rtt: Duration) {
        self.rtt = Some(self.rtt.map_or(rtt, |old| (old * 7 + rtt) / 8));
    }

    /// The round trip to the sender, if anything is known of it.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Nobody waits for packets before this one any more.
    pub(super) fn given_up(&mut self, before: u64) {
        self.gaps = self.gaps.split_off(&before);
    }

    /// More is missing than can be asked for. Says so once.
    pub(super) fn overflowed(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }

    fn again(&self) -> Duration {
        (self.rtt.unwrap_or(RTT_UNKNOWN) + MARGIN).max(AGAIN_LEAST)
    }

    fn due(&self, gap: &Gap) -> Option<Time> {
        let round = gap.round + self.again();
        match gap.rounds {
            0 => Some(gap.since + PATIENCE),
            _ if gap.copies < COPIES && self.requested.spare(0) && gap.last + BETWEEN < round => {
                Some(gap.last + BETWEEN)
            }
            ROUNDS.. => None,
            _ => Some(round),
        }
    }

    /// Numbers to ask for at `now`, in order; they count as asked for.
    pub(super) fn ask(&mut self, now: Time) -> Vec<u64> {
        self.requested.go_on(now);
        let again = self.again();
        let due: Vec<u64> = self
            .gaps
            .iter()
            .filter(|(_, g)| self.due(g).is_some_and(|at| at <= now))
            .map(|(n, _)| *n)
            .collect();
        let mut asked = Vec::with_capacity(due.len());
        for n in due {
            let Some(gap) = self.gaps.get_mut(&n) else { continue };
            if gap.rounds == 0 || gap.rounds < ROUNDS && now >= gap.round + again {
                (gap.rounds, gap.round, gap.copies) = (gap.rounds + 1, now, 0);
            } else if !self.requested.spare(asked.len()) {
                continue;
            }
            gap.copies += 1;
            gap.last = now;
            asked.push(n);
        }
        self.requested.asked(asked.len(), now);
        asked
    }

    /// When something is to leave after what left at `said`, so that bursts of losses end; none while no answer is waited
    /// for.
    pub(super) fn press(&self, said: Time) -> Option<Time> {
        let at = said + PRESS;
        let waits = |g: &Gap| g.rounds > 0 && at < g.since + PRESSED;
        self.gaps.values().any(waits).then_some(at)
    }

    /// When there is something to ask for.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.gaps.values().filter_map(|g| self.due(g)).min()
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

    /// When each request leaves until `end`, and for what.
    fn requests(m: &mut Missing, end: u64) -> Vec<(u64, Vec<u64>)> {
        std::iter::from_fn(|| {
            let at = m.deadline().filter(|at| *at <= ms(end))?;
            Some((at.as_millis(), m.ask(at)))
        })
        .collect()
    }

    #[test]
    fn a_gap_is_asked_about_after_a_moment_and_again_after_a_round_trip() {
        let mut m = Missing::new(100);
        m.came(10, false, ms(0));
        m.came(13, false, ms(1));
        assert_eq!((m.ask(ms(1)), m.deadline()), (vec![], Some(ms(6))));
        m.came(11, false, ms(3));
        assert_eq!((m.ask(ms(6)), m.deadline()), (vec![12], Some(ms(116))));
        m.came(15, false, ms(50));
        assert_eq!(m.ask(ms(55)), [14]);
        m.came(14, true, ms(95));
        assert_eq!(m.rtt(), Some(Duration::from_millis(40)));
        assert_eq!((m.deadline(), m.ask(ms(56))), (Some(ms(56)), vec![12]));
        m.came(12, true, ms(98));
        assert_eq!((m.rtt(), m.deadline()), (Some(Duration::from_millis(40)), None));
    }

    #[test]
    fn copies_of_requests_leave_in_each_round_trip_as_long_as_there_are_few() {
        let mut m = Missing::new(100);
        m.measured(Duration::from_millis(80));
        // 40 packets a second allow for five requests.
        (0..80).for_each(|n| m.came(n, false, ms(n * 25)));
        m.came(81, false, ms(2_000));
        let times: Vec<u64> = requests(&mut m, 3_100).iter().map(|(at, _)| at - 2_000).collect();
        assert_eq!(times, [5, 38, 95, 128, 185, 275, 365, 455, 545, 635, 725, 815]);
    }

    #[test]
    fn something_leaves_all_the_while_an_answer_is_waited_for() {
        let mut m = Missing::new(100);
        m.came(1, false, ms(0));
        m.came(3, false, ms(0));
        assert_eq!(m.press(ms(0)), None, "nothing was asked for yet");
        m.ask(ms(5));
        assert_eq!((m.press(ms(5)), m.press(ms(290))), (Some(ms(13)), Some(ms(298))));
        assert_eq!(m.press(ms(292)), None, "not for ever");
        m.came(2, true, ms(90));
        assert_eq!(m.press(ms(90)), None);
    }

    #[test]
    fn it_gives_up_in_the_end_and_when_told() {
        let mut m = Missing::new(100);
        m.came(1, false, ms(0));
        m.came(4, false, ms(0));
        m.given_up(3);
        let asked = requests(&mut m, 10_000);
        assert_eq!(asked.len(), usize::from(ROUNDS));
        assert!(asked.iter().all(|(_, n)| n == &[3]));
        assert!(!m.overflowed());
        m.came(200, false, ms(9_000));
        assert_eq!((m.overflowed(), m.overflowed(), m.deadline()), (true, false, None));
    }

    proptest! {
        /// Whatever comes in whatever order: what is asked for has not come, is within bounds and in order.
        #[test]
        fn only_what_is_missing_is_asked_for(steps in proptest::collection::vec((0u64..400, 0u64..30), 1..300)) {
            let (mut m, mut seen, mut now) = (Missing::new(64), std::collections::BTreeSet::new(), 0);
            for (index, wait) in steps {
                now += wait;
                m.came(index, false, ms(now));
                seen.insert(index);
                let asked = m.ask(ms(now));
                prop_assert!(asked.len() <= 64 && asked.windows(2).all(|p| p[0] < p[1]));
                prop_assert!(asked.iter().all(|n| !seen.contains(n) && n < seen.last().unwrap()));
                prop_assert!(m.deadline().is_none_or(|at| at > ms(now)));
            }
        }
    }
}
