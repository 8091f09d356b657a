//! A stream's own clock. Publishers come, go and jump; the stream's time goes on.

use super::ring::nanos;
use crate::limits::Limits;
use crate::time::Time;

/// Pictures and sounds of one track stand at least this far apart: two at the same moment would be one to RTP and
/// to players, and RTMP counts in milliseconds.
pub(super) const MIN_STEP: i64 = 1_000_000;
/// A stream's clock starts here rather than at 0, so that a track whose first frame is a little older than the
/// other's does not come to stand before the beginning of time.
const START: i64 = 1_000_000_000;
/// dts never goes back within a track; muxers' rounding may bend that by a few milliseconds. More than this is a
/// clock that was set back, and holding time still until it has caught up would stop the picture.
const BACK: i64 = 500_000_000;

/// By how much later than it is decoded a picture may be shown, where another source must wait for that.
const SHOWN_LATER: i64 = 500_000_000;

/// By how much later than its time a frame may have come that another source hands on: what links vary by.
const LATE: i64 = 100_000_000;

/// Counted when the source's timestamps jumped and its clock was tied to the stream's anew.
pub(super) const JUMP: &str = "timestamp_jump";
/// Counted when a timestamp did not rise and was moved.
pub(super) const NOT_RISING: &str = "timestamp_not_rising";
/// Counted when pts and dts were farther apart than any reordering explains.
pub(super) const FAR_PTS: &str = "pts_far_from_dts";

/// One track's part of the clock.
#[derive(Clone, Debug, Default)]
pub(super) struct TrackClock {
    /// dts of the latest frame.
    pub(super) last: Option<i64>,
    /// When it came.
    pub(super) at: Time,
    offset: Option<i64>,
}

impl TrackClock {
    /// Another source follows: its clock is unrelated.
    pub(super) fn forget_source(&mut self) {
        self.offset = None;
    }
}

/// The stream's part of the clock.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamClock {
    edge: Option<i64>,
    /// When the picture is shown that is shown last of all that were given out.
    shown: i64,
    at: Time,
    /// When the first frame came.
    began: Time,
    /// What is added to the source's time. Tracks share it, so that sound and picture stay together.
    offset: Option<i64>,
}

/// Where a frame came to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) dts: i64,
    pub(super) pts: i64,
    pub(super) corrected: Option<&'static str>,
}

impl StreamClock {
    /// Another source follows: its clock is unrelated.
    pub(super) fn forget_source(&mut self) {
        self.offset = None;
    }

    /// Another source goes on with a track from where the one before was, `former`: if it tells the same times, the stream
    /// keeps them. Said before the frame at `raw_dts` is placed, and of no use once another track was placed otherwise.
    pub(super) fn goes_on(&mut self, track: &mut TrackClock, former: &TrackClock, raw_dts: i64, now: Time) {
        let (Some(offset), Some(last)) = (former.offset, former.last) else { return };
        let latest = last.saturating_add(gap(former.at, now)).saturating_add(LATE);
        let same = (last..=latest).contains(&raw_dts.wrapping_add(offset));
        if same && self.offset.is_none_or(|o| o == offset) {
            (self.offset, track.offset) = (Some(offset), Some(offset));
        }
    }

    /// The highest dts given out.
    pub(super) fn edge(&self) -> i64 {
        self.edge.unwrap_or(START)
    }

    /// Gives a frame its place. `min_step` is what dts must at least rise by within the track; 0: it is data, which follows the
    /// stream's clock and never leads it, for metadata has any time (ffmpeg's and ours has 0, whenever it comes).
    pub(super) fn place(
        &mut self,
        track: &mut TrackClock,
        (raw_dts, raw_pts): (i64, i64),
        min_step: i64,
        now: Time,
        limits: &Limits,
    ) -> Placed {
        let far = nanos(limits.discontinuity_ms);
        let mut corrected = None;
        // Wrapping: raw times have any start, and the sum is right however they wrap.
        let fits = |offset: i64| {
            let dts = raw_dts.wrapping_add(offset);
            let (low, high) = match (track.last, track.offset) {
                (Some(last), Some(_)) => {
                    (last.saturating_sub(BACK), last.saturating_add(gap(track.at, now)).saturating_add(far))
                }
                // The first frame of a track may be older than the other track's, but the track's own past and
                // the beginning of time stay behind it.
                (last, _) => (
                    self.edge().saturating_sub(far).max(last.map_or(0, |l| l.saturating_sub(BACK))),
                    self.edge().saturating_add(gap(self.at, now)).saturating_add(far),
                ),
            };
            (low..=high).contains(&dts)
        };
        // After a jump of one track the others jump alike: they find the stream's new offset and stay in step.
        let offset = track.offset.filter(|o| fits(*o)).or(self.offset.filter(|o| fits(*o)));
        let follows = min_step == 0 && self.offset.is_some();
        let now_for_data = || self.edge().wrapping_sub(raw_dts);
        let offset = offset.or_else(|| follows.then(now_for_data)).unwrap_or_else(|| {
            if self.offset.is_some() {
                corrected = Some(JUMP);
            }
            // What came in haste put the stream ahead of the time that passed. A new start takes that back as far as time
            // can go: otherwise each one would set the viewers further behind.
            let due = START.saturating_add(gap(self.began, now));
            let on = self.edge.map_or(START, |e| {
                // Pictures out of order are shown after they are decoded; what follows must not be shown before them.
                let last = self.shown.clamp(e, e.saturating_add(SHOWN_LATER));
                e.saturating_add(gap(self.at, now)).min(due).max(last.saturating_add(MIN_STEP))
            });
            if self.edge.is_none() {
                self.began = now;
            }
            let offset = on.wrapping_sub(raw_dts);
            self.offset = Some(offset);
            offset
        });
        let mut dts = raw_dts.wrapping_add(offset);
        let low = track.last.map_or(i64::MIN, |last| last.saturating_add(min_step));
        if dts < low {
            dts = low;
            corrected = corrected.or(Some(NOT_RISING));
        }
        let distance = raw_pts.saturating_sub(raw_dts);
        let kept = distance.clamp(-far, far);
        if kept != distance {
            corrected = corrected.or(Some(FAR_PTS));
        }
        track.last = Some(dts);
        track.at = now;
        track.offset = Some(offset);
        if self.edge.is_none_or(|e| dts > e) {
            self.edge = Some(dts);
            self.at = now;
        }
        let pts = dts.saturating_add(kept);
        self.shown = self.shown.max(pts);
        Placed { dts, pts, corrected }
    }
}

fn gap(from: Time, now: Time) -> i64 {
    i64::try_from(now.since(from).as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    struct World {
        stream: StreamClock,
        video: TrackClock,
        audio: TrackClock,
        limits: Limits,
    }

    impl World {
        fn new() -> World {
            World {
                stream: StreamClock::default(),
                video: TrackClock::default(),
                audio: TrackClock::default(),
                limits: Limits::default(),
            }
        }
        fn video(&mut self, raw_ms: i64, now_ms: u64) -> Placed {
            let raw = raw_ms.wrapping_mul(MS);
            let now = Time::from_millis(now_ms);
            self.stream.place(&mut self.video, (raw, raw), MIN_STEP, now, &self.limits)
        }
        fn audio(&mut self, raw_ms: i64, now_ms: u64) -> Placed {
            let raw = raw_ms.wrapping_mul(MS);
            let now = Time::from_millis(now_ms);
            self.stream.place(&mut self.audio, (raw, raw), MIN_STEP, now, &self.limits)
        }
    }

    #[test]
    fn distances_are_kept_whatever_the_start() {
        for start in [0, -5_000_000_000, i64::MAX / MS, 77] {
            let mut w = World::new();
            let a = w.video(start, 0);
            let b = w.video(start.wrapping_add(40), 40);
            let s = w.audio(start.wrapping_add(20), 41);
            assert_eq!((a.corrected, b.dts - a.dts, s.dts - a.dts), (None, 40 * MS, 20 * MS), "{start}");
        }
    }

    #[test]
    fn metadata_of_any_time_moves_no_track() {
        let mut w = World::new();
        let first = w.audio(100_000, 0);
        w.audio(105_000, 5_000);
        let mut data = TrackClock::default();
        let (raw, now) = (0, Time::from_millis(5_001));
        let placed = w.stream.place(&mut data, (raw, raw), 0, now, &w.limits);
        assert_eq!(placed.dts - first.dts, 5_000 * MS, "it is of now");
        let late = w.video(105_010, 5_010);
        assert_eq!((late.corrected, late.dts - first.dts), (None, 5_010 * MS));
    }

    #[test]
    fn after_a_jump_both_tracks_are_in_step_again() {
        let mut w = World::new();
        w.video(0, 0);
        w.audio(0, 0);
        w.video(40, 40);
        let v = w.video(500_000, 80);
        let a = w.audio(500_005, 80);
        assert_eq!(v.corrected, Some(JUMP));
        assert_eq!(v.dts, START + 80 * MS);
        assert_eq!((a.corrected, a.dts - v.dts), (None, 5 * MS));
    }

    #[test]
    fn a_jump_of_one_track_alone_leaves_the_other_where_it_was() {
        let mut w = World::new();
        w.video(5_000, 0);
        w.audio(5_000, 0);
        assert_eq!(w.audio(3_020, 20).corrected, Some(JUMP));
        let v = w.video(5_040, 40);
        assert_eq!((v.corrected, v.dts), (None, START + 40 * MS));
        assert_eq!(w.audio(3_040, 40).corrected, None);
    }

    #[test]
    fn a_small_step_back_is_moved_and_a_large_one_is_a_new_start() {
        let mut w = World::new();
        let first = w.video(1_000, 0);
        let moved = w.video(998, 33);
        assert_eq!((moved.corrected, moved.dts), (Some(NOT_RISING), first.dts + MIN_STEP));
        let back = w.video(0, 66);
        assert_eq!((back.corrected, back.dts), (Some(JUMP), moved.dts + 33 * MS));
    }

    #[test]
    fn another_source_goes_on_after_the_pause() {
        let mut w = World::new();
        let before = w.video(100, 0);
        w.stream.forget_source();
        w.video.forget_source();
        let after = w.video(9_999_999, 4_000);
        assert_eq!((after.corrected, after.dts - before.dts), (None, 4_000 * MS));
    }

    #[test]
    fn a_source_that_goes_on_keeps_the_times_if_they_are_the_same() {
        // The link was broken for 700 ms; what came meanwhile is handed on at once.
        let cut = |shift: i64| {
            let mut w = World::new();
            let first = w.video(100, 0).dts - 100 * MS;
            let mut came = w.audio(110, 10).dts - 110 * MS;
            assert_eq!(came, first);
            let former = w.video.clone();
            w.stream.forget_source();
            w.video.forget_source();
            w.audio.forget_source();
            for n in 0..18 {
                let raw = (140 + 40 * n + shift) * MS;
                if n == 0 {
                    w.stream.goes_on(&mut w.video, &former, raw, Time::from_millis(740));
                }
                let placed = w.video(raw / MS, 740);
                assert_eq!(placed.corrected, None);
                came = placed.dts - (140 + 40 * n) * MS;
            }
            let sound = w.audio(150 + shift, 745);
            assert_eq!(sound.dts - 150 * MS, came, "sound and pictures stay together");
            (came - first) / MS
        };
        assert_eq!(cut(0), 0);
        // Of another node's clock nothing is known: the first frame is of now.
        assert_eq!((cut(50_000), cut(-50_000)), (700, 700));
    }

    #[test]
    fn what_another_source_shows_comes_after_all_that_was_shown() {
        let mut w = World::new();
        w.video(0, 0);
        let limits = Limits::default();
        let at = Time::from_millis(40);
        let ahead = w.stream.place(&mut w.video, (40 * MS, 120 * MS), MIN_STEP, at, &limits);
        w.stream.forget_source();
        w.video.forget_source();
        let next =
            w.stream.place(&mut w.video, (7_000 * MS, 7_000 * MS), MIN_STEP, Time::from_millis(50), &limits);
        assert!(next.pts > ahead.pts, "{next:?} after {ahead:?}");
        // A source that is far ahead of itself pushes the next one away a little only.
        let ahead =
            w.stream.place(&mut w.video, (7_040 * MS, 9_000 * MS), MIN_STEP, Time::from_millis(90), &limits);
        w.stream.forget_source();
        w.video.forget_source();
        let next = w.stream.place(&mut w.video, (0, 0), MIN_STEP, Time::from_millis(91), &limits);
        assert!((1..=501 * MS).contains(&(next.dts - ahead.dts)), "{next:?} after {ahead:?}");
    }

    #[test]
    fn cached_groups_of_sources_that_come_again_do_not_add_up() {
        let mut w = World::new();
        let mut last = w.video(0, 0).dts;
        for source in 1..20 {
            w.stream.forget_source();
            w.video.forget_source();
            let now = source * 1_000;
            // A squeezed group of 60 pictures comes at once.
            for n in 0..60 {
                last = w.video(77_000 * source as i64 + n, now).dts;
            }
            let ahead = last - START - now as i64 * MS;
            assert!((0..60 * MS).contains(&ahead), "{source}: the stream is {} ms ahead", ahead / MS);
        }
    }

    #[test]
    fn a_long_silence_that_the_source_counted_too_is_no_jump() {
        let mut w = World::new();
        let a = w.video(0, 0);
        let b = w.video(60_000, 60_000);
        assert_eq!((b.corrected, b.dts - a.dts), (None, 60_000 * MS));
    }
}
