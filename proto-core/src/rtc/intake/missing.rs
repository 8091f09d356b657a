//! Which packets of a publisher are missing, and when to ask for them again (RFC 4585, 6.2.1).

use crate::time::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// A gap is asked about once it is so old: packets that only swapped places close it before.
const PATIENCE: Duration = Duration::from_millis(5);
/// How often one packet is asked for. With one loss in two each way that still fails for one packet in 18 only.
const TRIES: u8 = 10;
/// The round trip as long as nothing is known of it.
const RTT_UNKNOWN: Duration = Duration::from_millis(100);
/// Nobody is asked again sooner, however near.
const AGAIN_LEAST: Duration = Duration::from_millis(20);
/// Spared between the time that an answer takes and the next request: the sender takes turns, the link has jitter.
const MARGIN: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug)]
struct Gap {
    since: Time,
    asked: u8,
    last: Time,
}

/// The gaps of one source.
#[derive(Debug)]
pub(super) struct Missing {
    highest: Option<u64>,
    gaps: BTreeMap<u64, Gap>,
    most: usize,
    rtt: Option<Duration>,
    overflowed: bool,
}

impl Missing {
    /// Remembers so many gaps at most.
    pub(super) fn new(most: usize) -> Missing {
        Missing { highest: None, gaps: BTreeMap::new(), most, rtt: None, overflowed: false }
    }

    /// Another source: only the way to it is the same.
    pub(super) fn afresh(&mut self) {
        self.highest = None;
        self.gaps.clear();
        self.overflowed = false;
    }

    /// A packet came; `again`: it was sent again.
    pub(super) fn came(&mut self, index: u64, again: bool, now: Time) {
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
                self.gaps.extend(gap.map(|n| (n, Gap { since: now, asked: 0, last: now })));
                while self.gaps.len() > self.most {
                    self.gaps.pop_first();
                    self.overflowed = true;
                }
            }
            self.highest = Some(index);
        } else if let Some(gap) = self.gaps.remove(&index)
            && again
            && gap.asked == 1
        {
            // What was asked for twice does not say which request it answers (Karn).
            self.measured(now.since(gap.last));
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
        match gap.asked {
            0 => Some(gap.since + PATIENCE),
            TRIES.. => None,
            _ => Some(gap.last + self.again()),
        }
    }

    /// Numbers to ask for at `now`, in order; they count as asked for.
    pub(super) fn ask(&mut self, now: Time) -> Vec<u64> {
        let due: Vec<u64> = self
            .gaps
            .iter()
            .filter(|(_, g)| self.due(g).is_some_and(|at| at <= now))
            .map(|(n, _)| *n)
            .collect();
        for n in &due {
            if let Some(gap) = self.gaps.get_mut(n) {
                gap.asked += 1;
                gap.last = now;
            }
        }
        due
    }

    /// When there is something to ask for.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.gaps.values().filter_map(|g| self.due(g)).min()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(n: u64) -> Time {
        Time::from_millis(n)
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
    fn it_gives_up_in_the_end_and_when_told() {
        let mut m = Missing::new(100);
        m.came(1, false, ms(0));
        m.came(4, false, ms(0));
        m.given_up(3);
        let mut asked = Vec::new();
        while let Some(at) = m.deadline() {
            asked.extend(m.ask(at));
        }
        assert_eq!(asked, [3; TRIES as usize]);
        assert!(!m.overflowed());
        m.came(200, false, ms(9));
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
