//! One clock for a publisher's tracks: RTP timestamps to nanoseconds, put side by side by RTCP sender reports.

use crate::time::Time;
use crate::wire::rtp::TimestampUnwrapper;
use std::time::Duration;

/// A correction moves a track by at most this share of the media time that passes, so that it is not heard.
const SLEW: i64 = 10;
/// A correction beyond this is made at once: the picture is worse off out of step than with a jump.
const SLEW_MAX: i64 = 1_000_000_000;

/// Timestamps go back by less than this where pictures are shown in another order than they are sent in, or packets come late.
/// Beyond, the sender began to count anew (GStreamer's server does when a second client joins a shared source).
const BACK: i64 = 3_000_000_000;

/// Between two reports of a track its wall clock and its timestamps may differ by this, nanoseconds, and by a share of
/// the time. Beyond, the wall clock was set or does not run, and says nothing about how tracks lie.
const STEADY: i128 = 50_000_000;
/// That share: one in so many.
const STEADY_SHARE: i128 = 10;

/// What is common to the tracks of one publisher.
///
/// The track that reports first leads: it goes by its timestamps alone, and the other is put beside it. So a wall clock
/// that runs at another rate or is set moves no track; it serves only to compare them.
#[derive(Debug, Default)]
pub struct SharedClock {
    /// Whether there is a leader.
    led: bool,
    /// Media clock minus the publisher's NTP clock, nanoseconds, by the leader's newest report; none while the wall clock
    /// is not steady.
    from_ntp: Option<i128>,
}

/// The clock of one track.
#[derive(Debug)]
pub struct TrackClock {
    rate: i64,
    discontinuity: Duration,
    unwrapper: TimestampUnwrapper,
    anchor: Option<Anchor>,
    last: Option<i64>,
    leads: bool,
    /// Timestamp and wall clock of the newest report, nanoseconds.
    reported: Option<(i64, i128)>,
    /// Whether two reports have shown that the wall clock runs.
    proven: bool,
    discontinuities: u64,
}

#[derive(Clone, Copy, Debug)]
struct Anchor {
    /// Media time = ticks + `offset`, nanoseconds.
    offset: i64,
    /// Where the offset is heading.
    target: i64,
    /// The offset by which the first frame is where it arrived.
    arrival: i64,
    last_ticks_ns: i64,
}

impl TrackClock {
    /// A clock of `rate` ticks a second, which takes a step of more than `discontinuity` for a new start.
    pub fn new(rate: u32, discontinuity: Duration) -> TrackClock {
        TrackClock {
            rate: i64::from(rate.max(1)),
            discontinuity,
            unwrapper: TimestampUnwrapper::default(),
            anchor: None,
            last: None,
            leads: false,
            reported: None,
            proven: false,
            discontinuities: 0,
        }
    }

    /// Ticks a second.
    pub fn rate(&self) -> u32 {
        self.rate as u32
    }

    fn nanos(&self, ticks: i64) -> i64 {
        (i128::from(ticks) * 1_000_000_000 / i128::from(self.rate)) as i64
    }

    /// The media time of a frame that arrived at `now`, nanoseconds. Never goes back.
    pub fn time(&mut self, timestamp: u32, now: Time) -> i64 {
        let time = self.shown(timestamp, now).max(self.last.map_or(i64::MIN, |l| l + 1));
        self.last = Some(time);
        time
    }

    /// The media time at which a frame that arrived at `now` is shown, nanoseconds. Goes back where pictures come in
    /// another order than they are shown in.
    pub fn shown(&mut self, timestamp: u32, now: Time) -> i64 {
        let arrival = now.as_nanos() as i64;
        let ticks = self.unwrapper.unwrap(timestamp);
        let ticks_ns = self.nanos(ticks);
        let limit = self.discontinuity.as_nanos() as i64;
        let anchor = match &mut self.anchor {
            Some(anchor) if (-BACK.min(limit)..=limit).contains(&(ticks_ns - anchor.last_ticks_ns)) => anchor,
            anchor => {
                if anchor.is_some() {
                    self.discontinuities += 1;
                }
                let offset = arrival - ticks_ns;
                anchor.insert(Anchor { offset, target: offset, arrival: offset, last_ticks_ns: ticks_ns })
            }
        };
        let passed = (ticks_ns - anchor.last_ticks_ns).max(0);
        anchor.last_ticks_ns = ticks_ns;
        let wanted = anchor.target - anchor.offset;
        anchor.offset +=
            if wanted.abs() > SLEW_MAX { wanted } else { wanted.clamp(-passed / SLEW, passed / SLEW) };
        ticks_ns + anchor.offset
    }

    /// A sender report says that `timestamp` was sampled at `ntp` (nanoseconds on the publisher's wall clock).
    pub fn sender_report(&mut self, timestamp: u32, ntp: i128, shared: &mut SharedClock) {
        let ticks_ns = self.nanos(self.unwrapper.near(timestamp));
        let Some(anchor) = &mut self.anchor else { return };
        if (ticks_ns - anchor.last_ticks_ns).unsigned_abs() > self.discontinuity.as_nanos() as u64 {
            // About a stretch of time that this track no longer plays.
            return;
        }
        let before = self.reported.replace((ticks_ns, ntp));
        let steady = before.is_none_or(|(ticks_before, ntp_before)| {
            let media = i128::from(ticks_ns) - i128::from(ticks_before);
            (ntp - ntp_before - media).abs() <= STEADY + media.abs() / STEADY_SHARE
        });
        if !steady {
            shared.from_ntp = None;
            if !self.proven {
                // What the first report said was worth nothing.
                anchor.target = anchor.arrival;
            }
            return;
        }
        self.proven |= before.is_some();
        self.leads |= !std::mem::replace(&mut shared.led, true);
        if self.leads {
            shared.from_ntp = Some(i128::from(ticks_ns + anchor.offset) - ntp);
        } else if let Some(from_ntp) = shared.from_ntp
            && let Ok(target) = i64::try_from(ntp + from_ntp - i128::from(ticks_ns))
        {
            anchor.target = target;
        }
    }

    /// How often the timestamps jumped.
    pub fn discontinuities(&self) -> u64 {
        self.discontinuities
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn clock(rate: u32) -> TrackClock {
        TrackClock::new(rate, Duration::from_secs(10))
    }

    #[test]
    fn time_follows_the_timestamps_over_the_wrap_and_never_goes_back() {
        let mut c = clock(90_000);
        assert_eq!(c.time(u32::MAX - 89_999, Time::from_millis(500)), 500 * MS);
        assert_eq!(c.time(0, Time::from_millis(9_999)), 1_500 * MS);
        let third = c.time(u32::MAX - 44_999, Time::from_millis(9_999));
        assert_eq!(third, 1_500 * MS + 1, "an earlier timestamp");
    }

    #[test]
    fn a_jump_of_the_timestamps_starts_anew_at_the_arrival() {
        let mut c = clock(48_000);
        c.time(0, Time::from_millis(0));
        assert_eq!(c.time(48_000 * 60, Time::from_millis(20)), 20 * MS);
        assert_eq!(c.discontinuities(), 1);
    }

    #[test]
    fn a_sender_that_counts_anew_goes_on_at_the_arrival() {
        let mut c = clock(90_000);
        let at = |s: u64| Time::from_millis(s * 1_000);
        assert_eq!(c.shown(90_000 * 9, at(9)), 9_000 * MS);
        assert_eq!(c.shown(90_000 * 8, at(9)), 8_000 * MS, "a picture that is shown before the last one");
        assert_eq!(c.shown(90_000, at(10)), 10_000 * MS, "8 s back are a new beginning");
        assert_eq!(c.shown(90_000 * 2, at(11)), 11_000 * MS);
        assert_eq!(c.discontinuities(), 1);
    }

    #[test]
    fn sender_reports_bring_sound_and_picture_together_without_a_jump() {
        let (mut video, mut audio, mut shared) = (clock(90_000), clock(48_000), SharedClock::default());
        // Both sampled at the same moment, but the sound arrived 80 ms later.
        video.time(1_000, Time::from_millis(100));
        audio.time(5_000, Time::from_millis(180));
        video.sender_report(1_000, 7_000_000_000, &mut shared);
        audio.sender_report(5_000, 7_000_000_000, &mut shared);
        let mut last = 0;
        for n in 1..=100u32 {
            let a = audio.time(5_000 + n * 960, Time::from_millis(180 + u64::from(n) * 20));
            assert!(last == 0 || (17 * MS..=20 * MS).contains(&(a - last)), "step of {}", a - last);
            last = a;
        }
        let v = video.time(1_000 + 180_000, Time::from_millis(2_100));
        assert_eq!(v, last, "2 s after the common sample");
    }

    /// Video at 25 a second and sound at 50, each with a report a second, half a second apart. `ntp` says what the
    /// publisher's wall clock reads at a time (both nanoseconds). Answers how far the worst frame and the last are from
    /// their arrival.
    fn worst_with(ntp: impl Fn(i64) -> i128) -> (i64, i64) {
        let (mut video, mut audio, mut shared) = (clock(90_000), clock(48_000), SharedClock::default());
        let (mut worst, mut last) = (0, 0);
        for ms in (0..60_000).step_by(20) {
            let (at, now) = (ms * MS, Time::from_millis(ms as u64));
            let (v, a) = (7_000 + ms as u32 * 90, 9_000 + ms as u32 * 48);
            last = (audio.time(a, now) - at).abs();
            if ms % 40 == 0 {
                last = last.max((video.time(v, now) - at).abs());
            }
            worst = worst.max(last);
            if ms % 1_000 == 0 {
                video.sender_report(v, ntp(at), &mut shared);
            } else if ms % 1_000 == 500 {
                audio.sender_report(a, ntp(at), &mut shared);
            }
        }
        (worst, last)
    }

    #[test]
    fn a_publisher_with_a_bad_wall_clock_keeps_its_times() {
        const WALL: i128 = 1_700_000_000_000_000_000;
        let right = |at: i64| WALL + i128::from(at);
        assert_eq!(worst_with(right), (0, 0));
        // By one report alone nobody can tell; that is worth a tenth of a second of slow correction.
        let (worst, last) = worst_with(|_| WALL);
        assert!(worst <= 100 * MS && last == 0, "it stands still: {worst}, {last}");
        for step in [-3_600_000, -3_000, -600, 600, 3_000, 3_600_000] {
            for when in [10_200, 10_700] {
                let stepped = |at| right(at) + if at > when * MS { i128::from(step * MS) } else { 0 };
                assert_eq!(worst_with(stepped), (0, 0), "it is set by {step} ms after {when} ms");
            }
        }
        // It may only pull sound and picture apart by what it drifts between two reports.
        assert!(worst_with(|at| WALL + i128::from(at) * 98 / 100).0 <= 20 * MS, "it is slow");
    }
}
