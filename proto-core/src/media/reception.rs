//! What of a sender's packets came, for the reports that it gets.

use crate::time::Time;
use crate::wire::rtcp_reports::Block;

/// What a receiver's report tells (RFC 3550, A.3 and A.8).
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    first: Option<u64>,
    highest: u64,
    received: u64,
    expected_before: u64,
    received_before: u64,
    jitter: i64,
    transit: Option<i64>,
    /// The middle of the last sender report's NTP time, and when it came.
    report: Option<(u32, Time)>,
}

impl Counts {
    /// Notes a sender's report by the NTP time that it tells.
    pub fn sender_report(&mut self, ntp: u64, now: Time) {
        self.report = Some(((ntp >> 16) as u32, now));
    }

    /// Counts a packet by its number that does not wrap; `rate`: ticks of its clock a second. Answers how many before it have not come, if it is the newest.
    pub fn packet(&mut self, seq: u64, timestamp: u32, rate: u32, now: Time) -> u64 {
        let ticks = (u128::from(now.as_nanos()) * u128::from(rate) / 1_000_000_000) as i64;
        let transit = i64::from((ticks as u32).wrapping_sub(timestamp));
        if let Some(before) = self.transit.replace(transit) {
            let step = i64::from((transit as u32).wrapping_sub(before as u32) as i32).abs();
            self.jitter += (step - self.jitter) / 16;
        }
        self.received += 1;
        let Some(_) = self.first else {
            self.first = Some(seq);
            self.highest = seq;
            return 0;
        };
        let missed = seq.saturating_sub(self.highest).saturating_sub(1);
        self.highest = self.highest.max(seq);
        missed
    }

    /// The report of what came since the report before.
    pub fn block(&mut self, ssrc: u32, now: Time) -> Block {
        let expected = self.first.map_or(0, |first| self.highest.saturating_sub(first) + 1);
        let lost = expected.saturating_sub(self.received);
        let expected_now = expected.saturating_sub(self.expected_before);
        let received_now = self.received - self.received_before;
        (self.expected_before, self.received_before) = (expected, self.received);
        let lost_now = expected_now.saturating_sub(received_now);
        let fraction = (lost_now * 256).checked_div(expected_now).unwrap_or(0);
        Block {
            ssrc,
            fraction: fraction.min(255) as u8,
            lost: lost.min(0x7f_ffff) as u32,
            highest: self.highest as u32,
            jitter: self.jitter as u32,
            last_report: self.report.map_or(0, |(ntp, _)| ntp),
            since_report: self.report.map_or(0, |(_, at)| {
                (now.since(at).as_nanos() * 65_536 / 1_000_000_000).min(u128::from(u32::MAX)) as u32
            }),
        }
    }
}
