//! What the node counts about itself: connections, bytes, drops by reason, and its load for the manager.

use super::exposition::Histogram;
use crate::error::{Fault, Reason};
use crate::io::Service;
use crate::time::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// Counters since start. Labels are fixed words, never what a peer sent.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Connections taken, per service.
    pub(super) accepted: BTreeMap<&'static str, u64>,
    /// Stream bytes received, per service.
    pub(super) bytes_in: BTreeMap<&'static str, u64>,
    /// Stream bytes sent, per service.
    pub(super) bytes_out: BTreeMap<&'static str, u64>,
    /// Connections and sessions ended, per (what, fault, code).
    pub(super) ended: BTreeMap<(&'static str, &'static str, &'static str), u64>,
    /// Things dropped, per (what, reason).
    pub(super) dropped: BTreeMap<(&'static str, &'static str), u64>,
    /// Sources and destinations: how often each came so far, per (kind, step).
    pub(super) remotes: BTreeMap<(&'static str, &'static str), u64>,
    /// Datagrams received.
    pub(super) datagrams_in: u64,
    /// Datagrams (segments) sent.
    pub(super) datagrams_out: u64,
    /// Datagram bytes received.
    pub(super) datagram_bytes_in: u64,
    /// Datagram bytes sent.
    pub(super) datagram_bytes_out: u64,
    /// Messages to the kernel that carried them.
    pub(super) messages_out: u64,
    /// Messages that the kernel refused.
    pub(super) messages_refused: u64,
    /// Seconds from a viewer's request to its first frame.
    pub(super) joins: Joins,
}

/// How long joins took.
#[derive(Debug)]
pub(super) struct Joins(pub(super) Histogram);

impl Default for Joins {
    fn default() -> Joins {
        // Around what viewers notice (a quarter of a second) and what they bear (some seconds).
        Joins(Histogram::new(&[0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0]))
    }
}

impl Counters {
    pub(super) fn accepted(&mut self, service: Service) {
        *self.accepted.entry(service.name()).or_default() += 1;
    }

    pub(super) fn received(&mut self, service: Service, bytes: usize) {
        *self.bytes_in.entry(service.name()).or_default() += bytes as u64;
    }

    pub(super) fn sent(&mut self, service: Service, bytes: usize) {
        *self.bytes_out.entry(service.name()).or_default() += bytes as u64;
    }

    pub(super) fn ended(&mut self, service: Service, reason: &Reason) {
        self.ended_as(service.name(), reason);
    }

    pub(super) fn ended_as(&mut self, what: &'static str, reason: &Reason) {
        let fault = match reason.fault {
            Fault::Peer => "peer",
            Fault::Local => "local",
            Fault::Limit => "limit",
        };
        *self.ended.entry((what, fault, reason.code)).or_default() += 1;
    }

    pub(super) fn remote(&mut self, what: &'static str, step: &'static str) {
        *self.remotes.entry((what, step)).or_default() += 1;
    }

    pub(super) fn drop(&mut self, what: &'static str, reason: &'static str, n: u64) {
        *self.dropped.entry((what, reason)).or_default() += n;
    }

    /// Bytes that left towards clients, over all services.
    pub(super) fn egress(&self) -> u64 {
        self.bytes_out.values().sum::<u64>() + self.datagram_bytes_out
    }
}

/// Load over the last report interval.
#[derive(Debug, Default)]
pub(super) struct Load {
    measured: Time,
    egress: u64,
    /// What left in the last interval, bits a second.
    pub(super) egress_bps: u64,
    /// The share of time in which the driver's loop was busy, thousandths.
    pub(super) busy_permille: u32,
    /// The same at the ends of the last intervals.
    busy: [u32; 3],
    /// What the streams of viewers that joined in this interval bring, bits a second: not yet seen in `egress_bps`.
    pub(super) joined_bps: u64,
}

impl Load {
    /// Closes an interval.
    pub(super) fn measure(&mut self, egress: u64, now: Time) {
        let dt = now.since(self.measured);
        if dt >= Duration::from_millis(1) {
            let bits = egress.saturating_sub(self.egress).saturating_mul(8);
            self.egress_bps = (u128::from(bits) * 1_000_000_000 / dt.as_nanos().max(1)) as u64;
        }
        self.measured = now;
        self.egress = egress;
        self.joined_bps = 0;
        self.busy.rotate_left(1);
        if let Some(last) = self.busy.last_mut() {
            *last = self.busy_permille;
        }
    }

    /// How busy the loop was in each of the last intervals at least, thousandths: one busy moment is no overload.
    pub(super) fn busy_lately(&self) -> u32 {
        self.busy.iter().copied().min().unwrap_or(0)
    }

    /// What is sent now and will be sent to those who have just joined, bits a second.
    pub(super) fn expected_bps(&self) -> u64 {
        self.egress_bps.saturating_add(self.joined_bps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_bits_over_the_interval() {
        let mut l = Load::default();
        l.measure(0, Time::from_millis(1000));
        l.measure(125_000, Time::from_millis(2000));
        assert_eq!(l.egress_bps, 1_000_000);
        l.joined_bps = 5;
        assert_eq!(l.expected_bps(), 1_000_005);
    }

    #[test]
    fn only_a_loop_that_stays_busy_is_busy() {
        let mut l = Load::default();
        for (at, permille, lately) in [(1, 990, 0), (2, 990, 0), (3, 980, 980), (4, 100, 100), (5, 990, 100)]
        {
            l.busy_permille = permille;
            l.measure(0, Time::from_millis(at * 1_000));
            assert_eq!(l.busy_lately(), lately, "second {at}");
        }
    }
}
