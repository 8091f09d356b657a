//! Puts RTP packets back into order, gives retransmissions their chance, and says what was lost.

use crate::time::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the first packets are held, so that a stream whose first two packets swapped places does not begin
/// with a loss.
const START_WAIT: Duration = Duration::from_millis(20);
/// So many packets in a row from before the current position, over at least [`RESTART_TIME`], mean that the sender began
/// anew.
const RESTART_AFTER: u32 = 64;
/// What a link held back and lets go late comes at once, and then the newest packets go on; a sender that began anew
/// sends nothing but what looks late.
const RESTART_TIME: Duration = Duration::from_secs(1);

/// What became of an inserted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// Held or ready.
    Kept,
    /// Held already.
    Duplicate,
    /// Its place was given up before it came.
    Late,
}

/// What comes out, in order of sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Popped<T> {
    /// The next packet.
    Packet(T),
    /// So many packets before the next one are given up.
    Lost(u64),
}

/// A bounded reorder buffer over sequence numbers that do not wrap.
#[derive(Debug)]
pub struct Reorder<T> {
    held: BTreeMap<u64, (Time, T)>,
    next: Option<u64>,
    opened: Time,
    wait: Duration,
    most: usize,
    late_run: u32,
    late_since: Time,
}

impl<T> Reorder<T> {
    /// A buffer that waits `wait` for a missing packet and holds at most `most` packets.
    pub fn new(wait: Duration, most: usize) -> Reorder<T> {
        Reorder {
            held: BTreeMap::new(),
            next: None,
            opened: Time::ZERO,
            wait,
            most,
            late_run: 0,
            late_since: Time::ZERO,
        }
    }

    /// Waits so long for a missing packet from now on.
    pub fn wait(&mut self, wait: Duration) {
        self.wait = wait;
    }

    /// The number that comes out next, once anything came.
    pub fn next(&self) -> Option<u64> {
        self.next
    }

    /// Takes a packet in.
    pub fn insert(&mut self, seq: u64, item: T, now: Time) -> Inserted {
        if self.next.is_some_and(|next| seq < next) {
            if self.late_run == 0 {
                self.late_since = now;
            }
            self.late_run = self.late_run.saturating_add(1);
            if self.late_run < RESTART_AFTER || now.since(self.late_since) < RESTART_TIME {
                return Inserted::Late;
            }
            self.reset();
        }
        self.late_run = 0;
        if self.held.contains_key(&seq) {
            return Inserted::Duplicate;
        }
        if self.next.is_none() && self.held.is_empty() {
            self.opened = now;
        }
        self.held.insert(seq, (now, item));
        Inserted::Kept
    }

    /// The next packet in order, or the loss that is given up on at `now`; `None` while one must wait.
    pub fn pop(&mut self, now: Time) -> Option<Popped<T>> {
        let (&head, (arrival, _)) = self.held.first_key_value()?;
        let full = self.held.len() > self.most;
        let next = match self.next {
            Some(next) => next,
            None if full || self.opened + START_WAIT <= now => head,
            None => return None,
        };
        if head > next {
            if full || *arrival + self.wait <= now {
                self.next = Some(head);
                return Some(Popped::Lost(head - next));
            }
            return None;
        }
        let (_, (_, item)) = self.held.pop_first()?;
        self.next = Some(head.saturating_add(1));
        Some(Popped::Packet(item))
    }

    /// When waiting ends for what is held.
    pub fn deadline(&self) -> Option<Time> {
        let (&head, (arrival, _)) = self.held.first_key_value()?;
        Some(match self.next {
            None => self.opened + START_WAIT,
            Some(next) if head > next => *arrival + self.wait,
            Some(_) => *arrival,
        })
    }

    /// Forgets everything; the next packet begins a new stream. Answers how many packets were held.
    pub fn reset(&mut self) -> usize {
        let held = self.held.len();
        self.held.clear();
        self.next = None;
        self.late_run = 0;
        held
    }

    /// How many packets are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(n: u64) -> Time {
        Time::from_millis(n)
    }

    fn drain(r: &mut Reorder<u64>, now: Time) -> Vec<Popped<u64>> {
        std::iter::from_fn(|| r.pop(now)).collect()
    }

    #[test]
    fn swapped_first_packets_are_no_loss() {
        let mut r = Reorder::new(Duration::from_millis(100), 10);
        r.insert(6, 6, ms(0));
        assert_eq!(r.pop(ms(0)), None);
        r.insert(5, 5, ms(3));
        assert_eq!(r.deadline(), Some(ms(20)));
        assert_eq!(drain(&mut r, ms(20)), [Popped::Packet(5), Popped::Packet(6)]);
    }

    #[test]
    fn a_gap_waits_and_is_then_given_up_and_a_late_packet_stays_out() {
        let mut r = Reorder::new(Duration::from_millis(100), 10);
        r.insert(1, 1, ms(0));
        assert_eq!(drain(&mut r, ms(20)), [Popped::Packet(1)]);
        r.insert(4, 4, ms(30));
        assert_eq!(r.deadline(), Some(ms(130)));
        assert_eq!(r.pop(ms(129)), None);
        assert_eq!(drain(&mut r, ms(130)), [Popped::Lost(2), Popped::Packet(4)]);
        assert_eq!(r.insert(2, 2, ms(131)), Inserted::Late);
        assert_eq!(r.deadline(), None);
    }

    #[test]
    fn a_full_buffer_gives_up_at_once_and_a_restarted_sender_is_followed() {
        let mut r = Reorder::new(Duration::from_secs(1), 3);
        r.insert(1000, 1000, ms(0));
        drain(&mut r, ms(20));
        for seq in 1002..=1005 {
            r.insert(seq, seq, ms(21));
        }
        assert_eq!(r.pop(ms(21)), Some(Popped::Lost(1)));
        drain(&mut r, ms(21));
        let results: Vec<Inserted> = (1..=64).map(|seq| r.insert(seq, seq, ms(30 + seq * 20))).collect();
        assert!(results[..63].iter().all(|i| *i == Inserted::Late));
        assert_eq!(results[63], Inserted::Kept);
        assert_eq!(drain(&mut r, ms(1_350)), [Popped::Packet(64)]);
    }

    #[test]
    fn what_a_link_let_go_late_is_no_new_beginning() {
        let mut r = Reorder::new(Duration::from_millis(100), 10);
        r.insert(1, 1, ms(0));
        drain(&mut r, ms(20));
        r.insert(200, 200, ms(30));
        assert_eq!(drain(&mut r, ms(130)), [Popped::Lost(198), Popped::Packet(200)]);
        assert!((2..=199).all(|seq| r.insert(seq, seq, ms(140)) == Inserted::Late));
        r.insert(201, 201, ms(150));
        assert_eq!(drain(&mut r, ms(150)), [Popped::Packet(201)]);
    }

    proptest! {
        /// Whatever the order of arrival: out in order, and packets plus losses cover the range exactly.
        #[test]
        fn every_number_comes_out_once_or_is_counted_lost(
            order in Just((100u64..160).collect::<Vec<_>>()).prop_shuffle(),
            dropped in proptest::collection::btree_set(100u64..160, 0..20),
        ) {
            let mut r = Reorder::new(Duration::from_millis(50), 1000);
            let (mut out, mut lost) = (Vec::new(), 0);
            let mut now = ms(0);
            let kept: Vec<u64> = order.into_iter().filter(|s| !dropped.contains(s)).collect();
            for seq in &kept {
                r.insert(*seq, *seq, now);
            }
            while !r.is_empty() {
                now = r.deadline().unwrap_or(now).max(now);
                match r.pop(now) {
                    Some(Popped::Packet(s)) => out.push(s),
                    Some(Popped::Lost(n)) => lost += n,
                    None => prop_assert!(r.deadline() > Some(now), "a deadline in the past that does nothing"),
                }
            }
            let mut sorted = kept;
            sorted.sort_unstable();
            let span = sorted.last().map_or(0, |l| l - sorted[0] + 1);
            prop_assert_eq!(span, sorted.len() as u64 + lost);
            prop_assert_eq!(out, sorted);
        }
    }
}
