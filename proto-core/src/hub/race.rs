//! Where the pictures of a newcomer who shows them as they come stand in time, while it races from the cached key frame to the
//! live edge: at the moment at which they are handed over, on the stream's own timeline.
//!
//! A receiver by WebRTC learns how fast the publisher's clock goes from the times of pictures and from when they come (the
//! extrapolator of libwebrtc, which never forgets). Pictures that stand a millisecond apart and come some four apart made it believe in
//! a clock that nearly stands still, and wait for half a second to two seconds and a half with what came after them.

use crate::time::Time;
use std::time::Duration;

/// The race stays so far behind the live edge, nanoseconds, so that its end is a small step forward and none back: pictures do
/// not come to the hub as evenly as they were made.
const SLACK: i64 = 20_000_000;
/// Pictures that are handed over together stand so far apart, nanoseconds: a few ticks of RTP's 90 kHz, so that even a thousand of
/// them pass the live edge by no more than a picture.
const STEP: i64 = 50_000;
/// A publisher that is silent for longer may have a clock that stands.
const SILENT: Duration = Duration::from_millis(100);
/// Sound that comes so late in the race, nanoseconds, is left out: it could only be heard late.
const LATE: i64 = 100_000_000;

/// How far a track is at `now` whose newest frame stands at `last` and came at `at`: its live edge.
pub(super) fn edge(last: i64, at: Time, now: Time) -> i64 {
    let since = now.since(at).min(SILENT);
    last.saturating_add(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// The times of one newcomer's pictures.
#[derive(Debug, Default)]
pub(super) struct Race {
    /// Coding time of the last picture on the stream's timeline, and the times it was given.
    last: Option<(i64, [i64; 2])>,
    /// Where the first picture stands.
    start: Option<i64>,
    /// The live edge was reached.
    over: bool,
}

impl Race {
    /// Whether sound of this time would be heard before the first picture, or too late where the live edge is at `edge`.
    pub(super) fn is_late(&self, dts: i64, edge: i64) -> bool {
        self.start.is_none_or(|start| dts < start) || !self.over && dts < edge.saturating_sub(LATE)
    }

    /// When a picture is decoded and shown that is handed over while the live edge is at `edge`, and whether all that come after it
    /// keep their own times (`dts`, `pts`). `newest`: the stream has none after it yet.
    pub(super) fn place(&mut self, [dts, pts]: [i64; 2], newest: bool, edge: i64) -> ([i64; 2], bool) {
        let line = if self.over { dts } else { edge.saturating_sub(SLACK).max(dts) };
        let low = self.last.map(|(own, last)| {
            // Where the stream is behind what was given, because its clock stood, time goes on at half its pace.
            let step = if self.over { (dts.saturating_sub(own) / 2).max(STEP) } else { STEP };
            last.map(|last| last.saturating_add(step))
        });
        let [low_dts, low_pts] = low.unwrap_or([i64::MIN; 2]);
        let decoded = line.max(low_dts);
        let shown = decoded.saturating_add(pts.saturating_sub(dts)).max(low_pts);
        self.last = Some((dts, [decoded, shown]));
        self.start.get_or_insert(decoded);
        self.over |= newest;
        ([decoded, shown], self.over && (decoded, shown) == (dts, pts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    const fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    #[test]
    fn pictures_of_a_race_stand_where_they_are_handed_over_and_live_ones_where_they_were_made() {
        // A hundred cached pictures, 40 ms apart; the newest stands at 10 s and came ten milliseconds ago.
        let mut race = Race::default();
        let own = |n: i64| [(6_040 + n * 40) * MS; 2];
        let mut before = 0;
        for n in 0..104 {
            // Those that come while it races wait behind the cached ones.
            let now = (10_010 + n * 2) * MS;
            let ([dts, pts], ends) = race.place(own(n), false, now);
            assert!(dts > before && dts == pts && !ends, "{n}");
            assert_eq!(now - dts, SLACK);
            before = dts;
        }
        // The live edge: at most a picture ahead of where the race was.
        let (times, ends) = race.place(own(104), true, 10_218 * MS);
        assert_eq!((times, ends), ([10_200 * MS; 2], true));
        assert!(times[0] - before <= 40 * MS);
    }

    #[test]
    fn a_thousand_pictures_at_once_pass_the_live_edge_by_no_more_than_a_picture() {
        let mut race = Race::default();
        let all: Vec<i64> =
            (0..1_000).map(|n| race.place([n * 40 * MS; 2], n == 999, 39_960 * MS).0[0]).collect();
        assert!(all.is_sorted_by(|a, b| a < b));
        assert!(all.last().is_some_and(|last| *last < 40_000 * MS), "{:?}", all.last());
    }

    #[test]
    fn order_of_showing_stays_and_times_rise() {
        let mut race = Race::default();
        let mut before = [0; 2];
        for (n, ahead) in [80, 80, 0, 120, 40].into_iter().enumerate() {
            let dts = (800 + n as i64 * 40) * MS;
            let (times, _) = race.place([dts, dts + ahead * MS], n == 4, 1_000 * MS);
            assert!(times[0] > before[0] && times[1] > before[1] && times[1] >= times[0], "{n}: {times:?}");
            before = times;
        }
    }

    #[test]
    fn a_stream_whose_clock_stood_is_waited_for_at_half_its_pace() {
        let mut race = Race::default();
        let (times, ends) = race.place([1_000 * MS; 2], true, edge(1_000 * MS, at(0), at(60_000)));
        assert_eq!(
            (times, ends),
            ([1_080 * MS; 2], false),
            "a minute of silence is none of the stream's time"
        );
        let (mut shown, mut ended) = (times[0], None);
        for n in 1..20 {
            let own = (1_000 + n * 40) * MS;
            let ([dts, _], ends) = race.place([own; 2], true, own);
            assert!(dts - shown >= 20 * MS && dts - shown <= 40 * MS, "{n}");
            shown = dts;
            if ends {
                ended.get_or_insert(n);
            }
        }
        assert_eq!(ended, Some(4));
    }

    #[test]
    fn sound_is_late_before_the_first_picture_and_in_the_race() {
        let mut race = Race::default();
        assert!(race.is_late(1_000 * MS, 1_000 * MS));
        race.place([900 * MS; 2], false, 1_000 * MS);
        assert!(race.is_late(979 * MS, 1_000 * MS) && !race.is_late(980 * MS, 1_080 * MS));
        assert!(race.is_late(980 * MS, 1_081 * MS));
        race.place([1_080 * MS; 2], true, 1_090 * MS);
        assert!(!race.is_late(980 * MS, 1_090 * MS));
    }
}
