//! The rate that a publisher is told it may send, for those who adapt to that alone (REMB): its loss says whether it is
//! too much. Who understands transport-wide feedback estimates better by itself.

/// Below this nobody is told to go, bits a second.
const LEAST: u64 = 100_000;
/// Above this nobody is told to go, bits a second: no limit of ours, but of what is believed.
const MOST: u64 = 50_000_000;
/// Where a sender begins that has not been measured yet, bits a second.
const FIRST: u64 = 2_000_000;
/// Losses up to this share leave room for more, 256ths (2 %), and above the other there was too much (10 %).
const LITTLE: u8 = 5;
const MUCH: u8 = 26;

#[derive(Debug)]
pub(super) struct Estimate {
    rate: u64,
}

impl Default for Estimate {
    fn default() -> Estimate {
        Estimate { rate: FIRST }
    }
}

impl Estimate {
    /// In the last second so many bits came, and this share was lost, 256ths. Answers the rate to tell.
    pub(super) fn report(&mut self, bits: u64, lost: u8) -> u64 {
        if lost > MUCH {
            // By half of the share that was lost, as senders that hear of loss alone do.
            self.rate = bits.saturating_mul(512 - u64::from(lost)) / 512;
        } else if lost <= LITTLE {
            // Twice of what comes is room enough for a sender that has less to send than it may.
            let room = (bits * 2).max(FIRST);
            self.rate = self.rate.max((self.rate + self.rate / 12).min(room));
        }
        self.rate = self.rate.clamp(LEAST, MOST);
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_while_little_is_lost_and_falls_where_much_is() {
        let mut e = Estimate::default();
        assert_eq!(e.report(1_000_000, 0), FIRST, "a sender of little is not told to send more and more");
        let mut rate = FIRST;
        for _ in 0..60 {
            let next = e.report(rate, 0);
            assert!(next >= rate && next <= rate + rate / 12);
            rate = next;
        }
        assert_eq!(rate, MOST);
        assert_eq!(e.report(4_000_000, 15), MOST, "between the two it stays");
        assert_eq!(e.report(4_000_000, 64), 3_500_000);
        for _ in 0..20 {
            e.report(50_000, 200);
        }
        assert_eq!(e.report(0, 255), LEAST);
    }
}
