//! When packets came, by the numbers that a sender gives all that it sends, for its bandwidth estimation.

use crate::time::Time;
use crate::wire::twcc;
use std::collections::BTreeMap;
use std::time::Duration;

/// Feedback is sent so often while packets come, as the draft advises.
const INTERVAL: Duration = Duration::from_millis(50);
/// What came is remembered for so long, since what swapped places is told of once more.
const MEMORY: Duration = Duration::from_millis(500);
/// And so many at most.
const MOST: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Arrivals {
    newest: Option<u64>,
    came: BTreeMap<u64, Time>,
    /// What came from this number on is to be told.
    next: u64,
    due: Option<Time>,
    count: u8,
}

impl Arrivals {
    /// A packet with this number came.
    pub(super) fn came(&mut self, seq: u16, now: Time) {
        let number = match self.newest {
            None => 1 << 32 | u64::from(seq),
            Some(newest) => newest.wrapping_add_signed(i64::from(seq.wrapping_sub(newest as u16) as i16)),
        };
        if self.newest.is_none() {
            self.next = number;
        }
        self.newest = self.newest.max(Some(number));
        if self.came.contains_key(&number) {
            return;
        }
        self.came.insert(number, now);
        self.next = self.next.min(number);
        self.due.get_or_insert(now + INTERVAL);
        while self.came.len() > MOST {
            self.came.pop_first();
        }
    }

    /// Appends one feedback, if it is time and there is something to tell. Answers whether it did; then there may be more.
    pub(super) fn feedback(&mut self, own: u32, media: u32, now: Time, out: &mut Vec<u8>) -> bool {
        if self.due.is_none_or(|at| at > now) {
            return false;
        }
        let first = self.came.range(self.next..).next().map(|(n, _)| *n);
        let Some((first, newest)) = first.zip(self.newest) else {
            self.due = None;
            let old = |at: Time| now.since(at) > MEMORY;
            while self.came.first_key_value().is_some_and(|(_, at)| old(*at)) {
                self.came.pop_first();
            }
            return false;
        };
        let arrivals: Vec<Option<u64>> = (first..=newest)
            .take(twcc::PACKETS_MAX)
            .map(|n| self.came.get(&n).map(|at| at.as_nanos()))
            .collect();
        let told = twcc::put_feedback(out, (own, media), self.count, first as u16, &arrivals);
        self.count = self.count.wrapping_add(1);
        // At least the first was told of.
        self.next = first + told.max(1) as u64;
        true
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Time {
        Time::from_millis(n)
    }

    /// Number, count of packets and how many of them came, of each feedback that is due.
    fn told(a: &mut Arrivals, now: u64) -> Vec<(u16, u16)> {
        let mut all = Vec::new();
        loop {
            let mut out = Vec::new();
            if !a.feedback(1, 2, ms(now), &mut out) {
                return all;
            }
            let half = |at: usize| out.get(at..at + 2).map_or(0, |b| u16::from(b[0]) << 8 | u16::from(b[1]));
            all.push((half(12), half(14)));
        }
    }

    #[test]
    fn each_is_told_once_and_what_came_late_once_more() {
        let mut a = Arrivals::default();
        for (seq, at) in [(65_534, 0), (65_535, 1), (1, 2)] {
            a.came(seq, ms(at));
        }
        assert_eq!((told(&mut a, 49), a.deadline()), (vec![], Some(ms(50))));
        assert_eq!((told(&mut a, 50), a.deadline()), (vec![(65_534, 4)], None));
        a.came(0, ms(60));
        a.came(2, ms(61));
        assert_eq!(told(&mut a, 110), [(0, 3)]);
        a.came(2, ms(120));
        assert_eq!((told(&mut a, 900), a.deadline()), (vec![], None));
        a.came(3, ms(800));
        assert_eq!((told(&mut a, 900), a.came.len()), (vec![(3, 1)], 1));
    }

    #[test]
    fn many_are_told_in_several_and_a_jump_of_the_numbers_does_no_harm() {
        let mut a = Arrivals::default();
        for seq in 0..1_000 {
            a.came(seq, ms(0));
        }
        assert_eq!(told(&mut a, 50), [(0, 400), (400, 400), (800, 200)]);
        a.came(30_000, ms(60));
        assert_eq!(told(&mut a, 110), [(30_000, 1)]);
        for seq in 0..60_000 {
            a.came(seq, ms(200));
            assert!(a.came.len() <= MOST);
        }
        assert!(told(&mut a, 300).len() < 50);
    }
}
