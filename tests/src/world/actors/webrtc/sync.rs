//! Whether sound and picture stay together: RTP timestamps, put on one clock by sender reports (RFC 3550, 6.4.1), against
//! the times at which the frames were sampled, which follow from their numbers.

use std::time::Duration;

/// A frame's step may differ so much from the sampled one; beyond, it belongs to a cached group that is shown in haste.
const STEP: i64 = 5_000_000;
/// So many regular steps in a row make a track's time trustworthy.
const REGULAR: u32 = 3;

/// How long something takes by a clock that is right, which takes `long` by one that runs so many parts in a million too fast.
pub(in crate::world::actors) fn by_clock(long: Duration, ppm: i32) -> Duration {
    let nanos = long.as_nanos() as i128 * 1_000_000 / (1_000_000 + i128::from(ppm));
    Duration::from_nanos(nanos as u64)
}

/// The times of one track.
#[derive(Debug)]
pub(in crate::world::actors) struct Timeline {
    rate: i64,
    each: i64,
    /// The last timestamp: as it came, and unwrapped from the first one on.
    last: Option<(u32, i64)>,
    /// Session, time in it by number, time shown.
    frame: Option<(u64, i64, i64)>,
    regular: u32,
    /// The newest frame did not follow the one before: it begins another stretch of the stream.
    spliced: bool,
    /// Sender's clock minus the time shown, nanoseconds.
    report: Option<i128>,
    /// The newest report drew the sender's line from its clock to its timestamps anew.
    redrawn: bool,
}

/// Reports that differ by more are not about one line, nanoseconds.
const REDRAWN: u128 = 20_000_000;

impl Timeline {
    /// Of a track with `rate` ticks a second, whose frames were sampled `each` apart.
    pub(in crate::world::actors) fn new(rate: u32, each: Duration) -> Timeline {
        let each = each.as_nanos() as i64;
        Timeline {
            rate: i64::from(rate),
            each,
            last: None,
            frame: None,
            regular: 0,
            spliced: false,
            report: None,
            redrawn: false,
        }
    }

    /// Frames are sampled so far apart from now on.
    pub(in crate::world::actors) fn sampled_each(&mut self, each: Duration) {
        self.each = each.as_nanos() as i64;
    }

    fn nanos(&self, ticks: i64) -> i64 {
        (i128::from(ticks) * 1_000_000_000 / i128::from(self.rate)) as i64
    }

    /// Ticks from the first timestamp on.
    fn unwrap(&self, stamp: u32) -> i64 {
        self.last.map_or(0, |(last, ticks)| ticks + i64::from(stamp.wrapping_sub(last) as i32))
    }

    /// Takes a frame's timestamp. Answers the time shown, and whether it is not later than the one before.
    pub(in crate::world::actors) fn frame(&mut self, stamp: u32, session: u64, seq: u64) -> (i64, bool) {
        let ticks = self.unwrap(stamp);
        let back = self.last.is_some_and(|(_, last)| ticks <= last);
        self.last = Some((stamp, ticks));
        let (sampled, shown) = (seq as i64 * self.each, self.nanos(ticks));
        let regular = self
            .frame
            .is_some_and(|(s, then, at)| s == session && ((shown - at) - (sampled - then)).abs() <= STEP);
        self.regular = if regular { self.regular + 1 } else { 0 };
        self.spliced = !regular;
        if !regular {
            // The stream was spliced: what was reported before is about another stretch of time.
            self.report = None;
        }
        self.frame = Some((session, sampled, shown));
        (shown, back)
    }

    /// The other track was spliced: until frames come again, it is not known where this one lies beside it.
    fn doubt(&mut self) {
        self.regular = 0;
    }

    /// A sender report says that `stamp` was `ntp` on the sender's clock (nanoseconds).
    pub(in crate::world::actors) fn report(&mut self, stamp: u32, ntp: i128) {
        if self.last.is_some() {
            let report = ntp - i128::from(self.nanos(self.unwrap(stamp)));
            self.redrawn = self.report.is_some_and(|before| before.abs_diff(report) > REDRAWN);
            self.report = Some(report);
        }
    }

    /// The session, and how much later than sampled its frames are shown, by the time shown and by the sender's clock.
    fn delay(&self) -> Option<(u64, i64, Option<i128>)> {
        let (session, sampled, shown) = self.frame.filter(|_| self.regular >= REGULAR)?;
        let delay = shown - sampled;
        Some((session, delay, self.report.map(|r| r + i128::from(delay))))
    }
}

/// The distance between two tracks.
#[derive(Debug, Default)]
pub(in crate::world::actors) struct Sync {
    /// Session, and the distance by the times shown when it was first measured.
    first: Option<(u64, i64)>,
}

impl Sync {
    /// How far the tracks are apart now: by the sender's clock, or, before it is known, how far they have drifted since
    /// the first time. To be asked after each frame. A stream that goes on at another time goes on so in both tracks, but
    /// one of them comes first; until the other has come as well they are not compared.
    pub(in crate::world::actors) fn measure(
        &mut self,
        picture: &mut Timeline,
        sound: &mut Timeline,
    ) -> Option<Duration> {
        if std::mem::take(&mut picture.spliced) {
            sound.doubt();
        }
        if std::mem::take(&mut sound.spliced) {
            picture.doubt();
        }
        // A line is drawn anew for both tracks, and one of the reports comes first.
        match (std::mem::take(&mut picture.redrawn), std::mem::take(&mut sound.redrawn)) {
            (true, false) => sound.report = None,
            (false, true) => picture.report = None,
            _ => {}
        }
        let ((session, p, p_clock), (other, s, s_clock)) = (picture.delay()?, sound.delay()?);
        if session != other {
            return None;
        }
        let apart = p - s;
        let first = match self.first.filter(|(of, _)| *of == session) {
            Some((_, first)) => first,
            None => self.first.insert((session, apart)).1,
        };
        let drift = (apart - first).unsigned_abs();
        let clock = p_clock.zip(s_clock).map(|(p, s)| u64::try_from((p - s).abs()).unwrap_or(u64::MAX));
        Some(Duration::from_nanos(clock.unwrap_or(drift)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn pair() -> (Timeline, Timeline, Sync) {
        let ms = Duration::from_millis;
        (Timeline::new(90_000, ms(40)), Timeline::new(48_000, ms(20)), Sync::default())
    }

    #[test]
    fn timestamps_wrap_and_must_rise() {
        let (mut t, ..) = pair();
        assert_eq!(t.frame(u32::MAX - 3_599, 1, 0), (0, false));
        assert_eq!(t.frame(0, 1, 1), (40 * MS, false));
        assert_eq!(t.frame(0, 1, 2), (40 * MS, true));
        assert!(t.frame(u32::MAX, 1, 3).1);
    }

    #[test]
    fn tracks_that_drift_apart_are_seen_and_a_hasty_start_is_not() {
        let (mut p, mut s, mut sync) = pair();
        // A cached group of ten, 1 ms apart, then live.
        for n in 0..10 {
            p.frame(1_000 + n * 90, 7, u64::from(n));
        }
        assert_eq!(sync.measure(&mut p, &mut s), None);
        let mut apart = None;
        for n in 0..100u32 {
            p.frame(1_000 + 810 + 3_600 * (n + 1), 7, u64::from(10 + n));
            for half in 0..2 {
                // The sound is sampled at 19 ms in place of 20.
                s.frame((2 * n + half) * 912, 7, u64::from(18 + 2 * n + half));
            }
            apart = sync.measure(&mut p, &mut s).or(apart);
            let expected = f64::from(n.saturating_sub(2)) * 2.0;
            let is = apart.map_or(0.0, |a| a.as_secs_f64() * 1e3);
            assert!((is - expected).abs() < 3.0, "{n}: {is} for {expected}");
        }
        assert!(apart.is_some_and(|a| a > Duration::from_millis(40)));
    }

    #[test]
    fn a_stream_that_goes_on_elsewhere_is_judged_when_both_tracks_are_there() {
        let (mut p, mut s, mut sync) = pair();
        let (video, sound) = (|ms: u32| ms * 90, |ms: u32| ms * 48);
        for n in 0..5 {
            p.frame(video(40 * n), 7, u64::from(n));
            s.frame(sound(20 * n), 7, u64::from(n));
            sync.measure(&mut p, &mut s);
        }
        // Both go on 300 ms later than they would have; the sound is there first.
        for n in 5..10 {
            s.frame(sound(300 + 20 * n), 7, u64::from(n));
            assert_eq!(sync.measure(&mut p, &mut s), None);
        }
        for n in 5..10 {
            p.frame(video(300 + 40 * n), 7, u64::from(n));
            assert!(sync.measure(&mut p, &mut s).is_none_or(|apart| apart == Duration::ZERO));
            s.frame(sound(500 + 20 * (n - 5)), 7, u64::from(n + 5));
            assert!(sync.measure(&mut p, &mut s).is_none_or(|apart| apart == Duration::ZERO));
        }
        assert_eq!(sync.measure(&mut p, &mut s), Some(Duration::ZERO));
        // Only one goes on later: it is seen once the other has come too.
        for n in 10..15 {
            s.frame(sound(500 + 20 * n), 7, u64::from(n + 5));
            p.frame(video(300 + 40 * n), 7, u64::from(n));
            sync.measure(&mut p, &mut s);
        }
        assert!(sync.measure(&mut p, &mut s).is_some_and(|apart| apart > Duration::from_millis(40)));
    }

    #[test]
    fn reports_tell_a_distance_that_was_there_from_the_start() {
        let (mut p, mut s, mut sync) = pair();
        for n in 0..5u32 {
            p.frame(n * 3_600, 7, u64::from(n));
            s.frame(n * 960, 7, u64::from(n));
        }
        assert_eq!(sync.measure(&mut p, &mut s), Some(Duration::ZERO));
        p.report(0, 5_000 * i128::from(MS));
        s.report(0, 5_100 * i128::from(MS));
        assert_eq!(sync.measure(&mut p, &mut s), Some(Duration::from_millis(100)));
    }
}
