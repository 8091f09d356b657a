//! How fast a newcomer is given the cached group of pictures. It is to be at the live edge soon, but a group may have megabytes,
//! and what the narrowest queue on the way cannot hold is lost: pictures then stood for two seconds, as seen with Chromium on
//! 20 Mbit/s. The first packets leave at once, and how far apart they arrive says how fast that queue drains (RFC 9000's
//! congestion control would find out in as many round trips as the group has windows); the others leave a little slower.

use crate::media::payload::PAYLOAD_BYTES;
use crate::time::Time;
use std::time::Duration;

/// Packets that may be on their way before anything was told to have come: about a large key frame.
const FIRST: u64 = 128;
/// So many packets in a row say how fast they pass, …
const ROW: u64 = 12;
/// … and so much of that is used, percent: live pictures and sound want to pass as well.
const SHARE: u64 = 85;
/// Once some were lost, so much.
const SHARE_AFTER_LOSS: u64 = 60;
/// No more is on its way than passes in so long, whatever feedback says.
const ON_THEIR_WAY: Duration = Duration::from_millis(300);
/// What was not used of a pause is used afterwards, up to what passes in so long.
const SAVED: Duration = Duration::from_millis(10);
/// A queue that stood so long at least while a row passed: that came as fast as the link lets it. Without one the least noise of a
/// receiver that reads several packets at once makes the link look faster, and the queue grew by 80 ms in each second of the race.
const STANDS: Duration = Duration::from_millis(10);
/// Nothing is told any more, or never was.
const SILENT: Duration = Duration::from_millis(250);
/// What may leave for a newcomer.
#[derive(Debug)]
pub(super) struct Burst {
    /// Packets a second that arrive, at most.
    passes: Option<u64>,
    share: u64,
    heard: Time,
    /// How many had left when it was last looked, and when that was.
    left: u64,
    looked: Time,
    /// Packets that may leave beside, in parts of a billion.
    saved: u64,
    /// The shortest way of a packet, from leaving to coming, on two clocks, nanoseconds.
    shortest: Option<i64>,
}

/// Packets that were told to have come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row {
    /// How many.
    pub(super) came: u64,
    /// From the first to the last.
    pub(super) within: Duration,
    /// The shortest way of one among them, from leaving to coming, on two clocks, nanoseconds.
    pub(super) way: i64,
}

impl Burst {
    /// The first packet leaves at `now`, with this number.
    pub(super) fn new(number: u64, now: Time) -> Burst {
        Burst { passes: None, share: SHARE, heard: now, left: number, looked: now, saved: 0, shortest: None }
    }

    /// A row of packets came, or some were lost.
    pub(super) fn told(&mut self, row: Row, lost: bool, now: Time) {
        self.heard = now;
        if lost {
            self.share = SHARE_AFTER_LOSS;
        }
        let Row { came, within, way } = row;
        if came == 0 {
            return;
        }
        let shortest = self.shortest.map_or(way, |s| s.min(way));
        self.shortest = Some(shortest);
        if came >= ROW {
            let within = within.max(Duration::from_micros(250)).as_nanos() as u64;
            let rate = (came - 1).saturating_mul(1_000_000_000) / within;
            let stood = way.abs_diff(shortest) >= STANDS.as_nanos() as u64;
            self.passes = Some(match self.passes {
                Some(before) if !lost && stood => (before + rate) / 2,
                // A row that was thinner than the link would let it be says nothing of the link.
                Some(before) if !lost => rate.clamp(before, before + before / 4),
                _ => rate,
            });
        }
    }

    /// Bytes that may leave where the next packet has the number `next`, and so many are on their way. `None`: nothing is told.
    pub(super) fn room(&mut self, next: u64, on_their_way: u64, now: Time) -> Option<usize> {
        if now.since(self.heard) > SILENT {
            return None;
        }
        let packets = match self.passes {
            None => FIRST.saturating_sub(on_their_way),
            Some(passes) => {
                let rate = (passes * self.share / 100).max(1);
                let part = |of: Duration| rate.saturating_mul(of.as_nanos() as u64);
                let spent = next.saturating_sub(self.left).saturating_mul(1_000_000_000);
                self.saved = self.saved.saturating_add(part(now.since(self.looked).min(SAVED)));
                self.saved = self.saved.saturating_sub(spent).min(part(SAVED));
                let most = part(ON_THEIR_WAY) / 1_000_000_000;
                (self.saved / 1_000_000_000).min(most.saturating_sub(on_their_way))
            }
        };
        (self.left, self.looked) = (next, now);
        Some(usize::try_from(packets).unwrap_or(usize::MAX).saturating_mul(PAYLOAD_BYTES))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Time {
        Time::from_millis(n)
    }

    fn row(came: u64, within: u64, way: i64) -> Row {
        Row { came, within: Duration::from_millis(within), way: way * 1_000_000 }
    }

    /// Packets that leave in a second when it is looked every five milliseconds and all come at once.
    fn in_a_second(b: &mut Burst, mut next: u64, from: u64) -> u64 {
        let first = next;
        for t in (from..from + 1_000).step_by(5) {
            b.told(Row::default(), false, ms(t));
            next += (b.room(next, 0, ms(t)).unwrap() / PAYLOAD_BYTES) as u64;
        }
        next - first
    }

    #[test]
    fn the_first_packets_say_how_fast_the_others_leave() {
        let mut b = Burst::new(0, ms(0));
        assert_eq!(b.room(28, 28, ms(1)), Some(100 * PAYLOAD_BYTES));
        assert_eq!(b.room(128, 128, ms(6)), Some(0));
        // Ten thousand a second.
        b.told(row(101, 10, 0), false, ms(50));
        assert!((8_400..=8_600).contains(&in_a_second(&mut b, 128, 50)));
        b.told(row(101, 20, 0), false, ms(1_050));
        assert!((8_400..=8_600).contains(&in_a_second(&mut b, 9_000, 1_050)), "a thin row says nothing");
        b.told(row(101, 20, 0), true, ms(2_050));
        assert!((2_900..=3_100).contains(&in_a_second(&mut b, 18_000, 2_050)), "but with a loss it does");
        assert_eq!(b.room(30_000, 2_000, ms(3_060)), Some(0), "too many are on their way");
    }

    #[test]
    fn what_comes_through_a_queue_says_how_fast_the_link_is_even_if_it_was_thought_faster() {
        let mut b = Burst::new(0, ms(0));
        b.told(row(101, 10, 500), false, ms(50));
        // Read at once, they seem to come faster than they do; that is believed little by little, …
        b.told(row(101, 2, 500), false, ms(100));
        assert_eq!(b.passes, Some(12_500));
        // … and no longer once a queue stands.
        b.told(row(101, 10, 530), false, ms(150));
        b.told(row(101, 10, 530), false, ms(200));
        assert_eq!(b.passes, Some(10_625));
        b.told(row(101, 20, 509), false, ms(250));
        assert_eq!(b.passes, Some(10_625), "a queue that is gone says nothing");
    }

    #[test]
    fn of_somebody_who_tells_nothing_nothing_is_known() {
        let mut b = Burst::new(0, ms(0));
        assert_eq!((b.room(128, 128, ms(250)), b.room(128, 128, ms(251))), (Some(0), None));
        b.told(row(128, 10, 0), false, ms(300));
        assert!(b.room(128, 0, ms(301)) > Some(0));
    }
}
