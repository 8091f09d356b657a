//! Congestion control by measured rate, behind quinn-proto's [`Controller`].
//!
//! Loss-based control takes each lost packet for a full queue. On a long way with a little random loss that leaves a
//! few Mbit/s of any link: the window of TCP's model is about `mtu / rtt * 1.22 / sqrt(loss)`. Here, as in BBR
//! (draft-ietf-ccwg-bbr), the window follows what the way was seen to carry:
//!
//! * **Rate**: the most that was delivered per time over the last [`ROUNDS`] round trips. A sample is the bytes
//!   acknowledged since a packet left, over the longer of the times in which they left and in which they were
//!   acknowledged. Where the sender had nothing more to send, a sample only counts if it is higher: media links rarely
//!   are full.
//! * **Round trip**: the least over the last one to two [`RTT_SPAN`]s. A flow that was never short of data in a whole
//!   span keeps a queue of its own, and cannot see the way without it: it then sends less for a moment.
//! * **Window**: twice rate times round trip while there is no queue, [`CAREFUL`] times where round trips show one.
//!   quinn-proto paces at 1.25 windows a round trip.
//! * **Loss** changes nothing up to [`LOSS_PERCENT`] of a round; beyond, the rate becomes what that round delivered, so
//!   that a bottleneck without a queue is not drowned.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory};
use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Packets in flight before anything was measured. More than RFC 9002 section 7.2 has (ten): nodes are few, and each
/// link begins with the cached groups of the streams that are pulled.
const INITIAL_PACKETS: u64 = 32;
/// Packets that may always be in flight.
const LEAST_PACKETS: u64 = 4;
/// Round trips for which a measured rate counts.
const ROUNDS: u64 = 10;
/// Half of the time for which the least round trip counts.
const RTT_SPAN: Duration = Duration::from_secs(5);
/// Windows in rates times round trips, in percent: while there is no queue, and while there is one.
const GAIN: u64 = 200;
const CAREFUL: u64 = 125;
/// While the round trip is looked for without a queue of one's own, in percent.
const DRAINED: u64 = 50;
/// The start is over once the rate grew by less than a quarter in so many rounds.
const PLATEAU_ROUNDS: u32 = 3;
/// Loss in one round that no longer counts as chance, percent.
const LOSS_PERCENT: u64 = 10;
/// Packets that a round needs for its loss to mean anything.
const LOSS_PACKETS: u64 = 40;
/// Packets sent but not acknowledged that are remembered, by moment of sending.
const MARKS: usize = 1 << 16;

/// Makes a [`Rate`] for each connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateFactory;

impl ControllerFactory for RateFactory {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Rate::new(now, mtu))
    }
}

/// What was known when packets left at a moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    sent: Instant,
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
}

/// The controller of one connection. See the module's text.
#[derive(Clone, Debug)]
pub struct Rate {
    mtu: u64,
    marks: VecDeque<Mark>,
    in_flight: u64,
    delivered: u64,
    delivered_at: Instant,
    /// When the packet left that was acknowledged last.
    first_sent: Instant,
    /// The newest packet of the acknowledgement that is being taken in.
    newest: Option<Instant>,

    round: u64,
    round_ends: u64,
    round_delivered: u64,
    round_lost: u64,
    /// The most bytes a second in each of the last rounds.
    rates: VecDeque<(u64, u64)>,

    least: Option<Duration>,
    least_before: Option<Duration>,
    span_began: Instant,
    span_was_full: bool,
    smoothed: Duration,
    drains_until: Option<Instant>,

    /// At the start: the window, the rate at the last quarter of growth, and the rounds since.
    starting: Option<(u64, u64, u32)>,
}

impl Rate {
    fn new(now: Instant, mtu: u16) -> Rate {
        let mtu = u64::from(mtu);
        Rate {
            mtu,
            marks: VecDeque::new(),
            in_flight: 0,
            delivered: 0,
            delivered_at: now,
            first_sent: now,
            newest: None,
            round: 0,
            round_ends: 0,
            round_delivered: 0,
            round_lost: 0,
            rates: VecDeque::new(),
            least: None,
            least_before: None,
            span_began: now,
            span_was_full: true,
            smoothed: Duration::ZERO,
            drains_until: None,
            starting: Some((INITIAL_PACKETS * mtu, 0, 0)),
        }
    }

    /// The measured rate, bytes a second; 0 before anything was measured.
    pub fn bytes_per_s(&self) -> u64 {
        self.rates.iter().map(|(_, rate)| *rate).max().unwrap_or(0)
    }

    fn min_rtt(&self) -> Option<Duration> {
        match (self.least, self.least_before) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Bytes that fill the way without a queue.
    fn bdp(&self) -> Option<u64> {
        let rtt = self.min_rtt()?;
        let rate = self.bytes_per_s();
        (rate > 0).then(|| (u128::from(rate) * rtt.as_micros() / 1_000_000) as u64)
    }

    fn saw_round_trip(&mut self, now: Instant, rtt: Duration, app_limited: bool) {
        self.least = Some(self.least.map_or(rtt, |least| least.min(rtt)));
        self.span_was_full &= !app_limited;
        if now.saturating_duration_since(self.span_began) >= RTT_SPAN {
            if self.span_was_full && self.starting.is_none() {
                self.drains_until = Some(now + Duration::from_millis(200).max(rtt));
            }
            (self.least_before, self.least) = (self.least.take(), None);
            (self.span_began, self.span_was_full) = (now, true);
        }
    }

    fn saw_rate(&mut self, rate: u64, app_limited: bool) {
        if app_limited && rate <= self.bytes_per_s() {
            return;
        }
        let round = self.round;
        match self.rates.back_mut().filter(|(of, _)| *of == round) {
            Some((_, most)) => *most = rate.max(*most),
            None => self.rates.push_back((round, rate)),
        }
        while self.rates.front().is_some_and(|(of, _)| of + ROUNDS < round) {
            self.rates.pop_front();
        }
    }

    fn round_over(&mut self, app_limited: bool, rate: u64) {
        self.round += 1;
        self.round_ends = self.delivered;
        let all = self.round_delivered + self.round_lost;
        let too_many = all >= LOSS_PACKETS * self.mtu && self.round_lost * 100 > all * LOSS_PERCENT;
        (self.round_delivered, self.round_lost) = (0, 0);
        if too_many {
            self.rates.clear();
            self.rates.push_back((self.round, rate));
            self.starting = None;
        }
        let most = self.bytes_per_s();
        if let Some((_, base, rounds)) = &mut self.starting
            && !app_limited
        {
            if most * 4 >= *base * 5 {
                (*base, *rounds) = (most, 0);
            } else {
                *rounds += 1;
                if *rounds >= PLATEAU_ROUNDS {
                    self.starting = None;
                }
            }
        }
    }
}

impl Controller for Rate {
    fn on_sent(&mut self, now: Instant, bytes: u64, _last_packet_number: u64) {
        if self.in_flight == 0 {
            // After a pause nothing is measured across it.
            (self.first_sent, self.delivered_at) = (now, now);
        }
        self.in_flight += bytes;
        if self.marks.back().is_none_or(|m| m.sent < now) && self.marks.len() < MARKS {
            self.marks.push_back(Mark {
                sent: now,
                delivered: self.delivered,
                delivered_at: self.delivered_at,
                first_sent: self.first_sent,
            });
        }
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.delivered += bytes;
        self.delivered_at = now;
        self.round_delivered += bytes;
        self.newest = self.newest.max(Some(sent));
        self.smoothed = rtt.get();
        if let Some((window, ..)) = &mut self.starting
            && !app_limited
        {
            *window += bytes;
        }
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _largest: Option<u64>) {
        self.in_flight = in_flight;
        let Some(newest) = self.newest.take() else { return };
        self.saw_round_trip(now, now.saturating_duration_since(newest), app_limited);
        let mut mark = None;
        while self.marks.front().is_some_and(|m| m.sent <= newest) {
            mark = self.marks.pop_front();
        }
        let Some(mark) = mark else { return };
        self.first_sent = mark.sent;
        let acked = self.delivered - mark.delivered;
        let sending = mark.sent.saturating_duration_since(mark.first_sent);
        let arriving = now.saturating_duration_since(mark.delivered_at);
        let interval = sending.max(arriving);
        // A shorter interval than a round trip is an acknowledgement that came in haste.
        let fits = self.min_rtt().is_none_or(|rtt| interval >= rtt) && !interval.is_zero();
        let rate = (u128::from(acked) * 1_000_000 / interval.as_micros().max(1)) as u64;
        if fits {
            self.saw_rate(rate, app_limited);
        }
        if mark.delivered >= self.round_ends {
            self.round_over(app_limited, rate);
        }
        if self.drains_until.is_some_and(|until| until <= now) {
            self.drains_until = None;
        }
    }

    fn on_congestion_event(&mut self, now: Instant, _sent: Instant, persistent: bool, lost: u64) {
        self.in_flight = self.in_flight.saturating_sub(lost);
        self.round_lost += lost;
        if persistent {
            // Nothing at all got through for a while: what was known is of another way.
            let mtu = u16::try_from(self.mtu).unwrap_or(u16::MAX);
            let marks = std::mem::take(&mut self.marks);
            let (delivered, in_flight) = (self.delivered, self.in_flight);
            *self = Rate { marks, delivered, in_flight, round_ends: delivered, ..Rate::new(now, mtu) };
        }
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.mtu = u64::from(mtu);
    }

    fn window(&self) -> u64 {
        let least = LEAST_PACKETS * self.mtu;
        let Some(bdp) = self.bdp() else {
            return self.starting.map_or(INITIAL_PACKETS * self.mtu, |(window, ..)| window).max(least);
        };
        let queue = self.min_rtt().is_some_and(|rtt| self.smoothed > rtt + rtt / 4);
        let gain = match (self.drains_until, queue) {
            (Some(_), _) => DRAINED,
            (None, true) => CAREFUL,
            (None, false) => GAIN,
        };
        // A key frame leaves at once even where the link was nearly idle before.
        let floor = if self.drains_until.is_some() { least } else { INITIAL_PACKETS * self.mtu };
        let steady = (bdp.saturating_mul(gain) / 100).max(floor);
        self.starting.map_or(steady, |(window, ..)| window.max(steady))
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.mtu
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
