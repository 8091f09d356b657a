//! The one place where a viewer's RTP packets are made and sent.

use crate::media::frame::{Frame, FrameKind, RtpPayloads};
use crate::media::payload::{Format, PAYLOAD_BYTES, marks, packetise};
use crate::media::track::{Codec, CodecConfig, TrackId};
use crate::rand::Rng;
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m::Rtc;
use str0m::media::{Mid, Pt};
use str0m::rtp::RtpWrite;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Handed to str0m as so many packets.
    Packets(usize),
    /// Its track is not in the viewer's session.
    NoTrack,
    /// A picture that refers to others, before the first key frame.
    BeforeKey,
}

/// How a viewer's session carries one kind of media.
#[derive(Clone, Copy, Debug)]
pub struct Lane {
    /// The media section.
    pub mid: Mid,
    /// The payload type.
    pub pt: Pt,
    /// What the payload type is for.
    pub codec: Codec,
    /// Ticks of the RTP timestamp a second.
    pub rate: u32,
}

#[derive(Debug)]
struct Sender {
    lane: Lane,
    track: Option<TrackId>,
    config: Option<Arc<CodecConfig>>,
    seq: u64,
    timestamp_offset: u32,
    started: bool,
    rising: Rising,
}

/// Sender reports take frames for sampled so much before they are sent. A report cannot speak of the future, and a stream
/// runs ahead of its first frame when a stall is made up for. Only what both tracks have in common may be moved: where one
/// is held back alone, reports pull sound and picture apart. Lip sync compares the tracks, so the amount does not matter to it.
const HEADROOM: Duration = Duration::from_secs(4);

/// Ties a viewer's timeline to the clock of sender reports, the same for sound and picture.
#[derive(Debug, Default)]
struct ReportClock {
    anchor: Option<(Instant, i64)>,
}

impl ReportClock {
    /// When a frame shown at `pts` counts as sampled. Not later than `now`.
    fn at(&mut self, pts: i64, now: Instant) -> Instant {
        let fresh = (now.checked_sub(HEADROOM).unwrap_or(now), pts);
        let (start, first) = *self.anchor.get_or_insert(fresh);
        let distance = Duration::from_nanos(pts.abs_diff(first));
        let sampled = if pts < first { start.checked_sub(distance) } else { start.checked_add(distance) };
        match sampled.filter(|s| *s <= now) {
            Some(sampled) => sampled,
            None => self.anchor.insert(fresh).0,
        }
    }
}

/// Another stream begins at least so long after the last frame of the one before, nanoseconds: its sound may be a little
/// older than its picture.
const SWITCH_STEP: i64 = 20_000_000;

/// Where streams that follow each other come to stand on one viewer's timeline: each has a clock of its own.
#[derive(Debug, Default)]
struct Following {
    shift: i64,
    last: Option<(i64, Instant)>,
    another: bool,
}

impl Following {
    /// When a frame is shown that is at `pts` on its stream's own timeline.
    fn place(&mut self, pts: i64, now: Instant) -> i64 {
        if std::mem::take(&mut self.another)
            && let Some((shown, at)) = self.last
        {
            let passed = i64::try_from(now.saturating_duration_since(at).as_nanos()).unwrap_or(i64::MAX);
            self.shift = shown.saturating_add(passed.max(SWITCH_STEP)).saturating_sub(pts);
        }
        let shown = pts.saturating_add(self.shift);
        if self.last.is_none_or(|(last, _)| last <= shown) {
            self.last = Some((shown, now));
        }
        shown
    }
}

/// Frames of a track that would stand before its last one of the stream before stand so far apart instead, nanoseconds: some
/// ticks of RTP's 90 kHz.
const LATE_STEP: i64 = 50_000;

/// Keeps a track's times rising from one stream to the next. Pictures that a bridge makes begin with the cached group, which is
/// older than the sound by which the stream found its place.
#[derive(Debug, Default)]
struct Rising {
    last: Option<i64>,
    /// Nothing may stand at this time or before it.
    floor: Option<i64>,
}

impl Rising {
    fn another(&mut self) {
        self.floor = self.last;
    }

    /// When a frame is shown that is at `shown` on the viewer's timeline.
    fn place(&mut self, shown: i64) -> i64 {
        self.floor = self.floor.filter(|floor| shown <= *floor).map(|floor| floor.saturating_add(LATE_STEP));
        let shown = self.floor.unwrap_or(shown);
        self.last = Some(shown);
        shown
    }
}

/// Renders deliveries into one viewer's RTP. Payloads are cut once per frame and shared by all viewers; sequence
/// numbers are contiguous per viewer, whatever was skipped.
#[derive(Debug)]
pub struct Egress {
    video: Option<Sender>,
    audio: Option<Sender>,
    clock: ReportClock,
    following: Following,
}

impl Egress {
    /// A sender for what the session carries. First sequence numbers and timestamps are drawn from `rng`
    /// (RFC 3550, 5.1).
    pub fn new(video: Option<Lane>, audio: Option<Lane>, rng: &mut Rng) -> Egress {
        let mut sender = |lane: Lane| Sender {
            lane,
            track: None,
            config: None,
            // In the lower half of the range, so that the first wrap is far away from what SRTP has to guess
            // (RFC 3711, 3.3.1).
            seq: u64::from(rng.below(0x8000)),
            timestamp_offset: rng.u32(),
            started: false,
            rising: Rising::default(),
        };
        Egress {
            video: video.map(&mut sender),
            audio: audio.map(&mut sender),
            clock: ReportClock::default(),
            following: Following::default(),
        }
    }

    /// Leaves out what the viewer's answer refused: sections that are not among these. Whether anything is left.
    pub fn keep(&mut self, mids: &[String]) -> bool {
        let takes = |s: &Sender| mids.iter().any(|m| **m == *s.lane.mid);
        self.video = self.video.take().filter(takes);
        self.audio = self.audio.take().filter(takes);
        self.video.is_some() || self.audio.is_some()
    }

    /// Learns a track's configuration. Answers whether the session can carry the track.
    pub fn config(&mut self, track: TrackId, config: Arc<CodecConfig>) -> bool {
        let codec = config.params.codec();
        let sender = if codec.is_video() { &mut self.video } else { &mut self.audio };
        let Some(sender) = sender.as_mut() else { return false };
        if sender.lane.codec != codec {
            // The publisher changed its codec; what was known of the track before must not speak for what comes.
            if sender.track == Some(track) {
                sender.config = None;
            }
            return false;
        }
        // The hub chooses one track of a kind and says what it is before its first frame: another rendition, or what a bridge
        // makes of what the publisher sends.
        (sender.track, sender.config) = (Some(track), Some(config));
        true
    }

    /// Learns about the tracks that are known when the session opens.
    pub fn tracks(&mut self, tracks: &[(TrackId, Arc<CodecConfig>)]) {
        for (track, config) in tracks {
            self.config(*track, config.clone());
        }
    }

    /// Another stream follows: what was known of the tracks is forgotten, pictures begin with a key frame, and time goes on.
    pub fn switch(&mut self) {
        for sender in [&mut self.video, &mut self.audio].into_iter().flatten() {
            (sender.track, sender.config, sender.started) = (None, None, false);
            sender.rising.another();
        }
        self.following.another = true;
    }

    /// Writes a frame, shown at `pts` on the viewer's timeline. The caller must then drive `rtc` with a timeout
    /// input, so that the packets get their sending time.
    pub fn write(&mut self, rtc: &mut Rtc, frame: &Frame, pts: i64, now: Instant) -> Written {
        let track = frame.media.track;
        let sender =
            [&mut self.video, &mut self.audio].into_iter().flatten().find(|s| s.track == Some(track));
        let Some(sender) = sender else { return Written::NoTrack };
        let Some(config) = &sender.config else { return Written::NoTrack };
        if frame.is_video() && !sender.started && frame.media.kind != FrameKind::Key {
            return Written::BeforeKey;
        }
        sender.started = true;
        let pts = sender.rising.place(self.following.place(pts, now));
        let wallclock = self.clock.at(pts, now);
        let ticks = i128::from(pts) * i128::from(sender.lane.rate) / 1_000_000_000;
        let timestamp = sender.timestamp_offset.wrapping_add(ticks as u32);
        let payloads = &frame.renderings.rtp.get_or_init(|| render(frame, config)).0;
        let mut api = rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(sender.lane.mid, None) else { return Written::NoTrack };
        for (i, payload) in payloads.iter().enumerate() {
            let last = i + 1 == payloads.len();
            let packet =
                RtpWrite::new(sender.lane.pt, sender.seq.into(), timestamp, wallclock, payload.as_ref())
                    .marker(last && marks(sender.lane.codec))
                    .nackable(true);
            stream.write_rtp(packet);
            sender.seq += 1;
        }
        Written::Packets(payloads.len())
    }
}

pub(super) fn render(frame: &Frame, config: &CodecConfig) -> RtpPayloads {
    RtpPayloads(packetise(&Format::of(&config.params), &config.params, &frame.media, PAYLOAD_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    /// Where the reports of frames (time shown, time sent; ms) put the beginning of the timeline, relative to the first.
    fn origins(frames: &[(i64, u64)]) -> Vec<i64> {
        #[allow(
            clippy::disallowed_methods,
            reason = "str0m wants some Instant to count from; which one is all the same"
        )]
        let begin = Instant::now() + Duration::from_secs(100);
        let mut clock = ReportClock::default();
        let mut all = Vec::new();
        for (shown, sent) in frames {
            let now = begin + Duration::from_millis(*sent);
            let at = clock.at(shown * MS, now);
            assert!(at <= now, "a report would speak of the future");
            all.push((now - at).as_millis() as i64 + shown - *sent as i64);
        }
        all.iter().map(|o| o - all[0]).collect()
    }

    #[test]
    fn a_stream_that_follows_another_goes_on_where_that_one_was() {
        #[allow(
            clippy::disallowed_methods,
            reason = "str0m wants some Instant to count from; which one is all the same"
        )]
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut time = Following::default();
        assert_eq!(time.place(90_000 * MS, at(0)), 90_000 * MS);
        assert_eq!(time.place(89_990 * MS, at(5)), 89_990 * MS, "sound a little behind");
        time.another = true;
        // Its clock began late; 100 ms passed since the newest frame of the other.
        assert_eq!(time.place(1_000 * MS, at(100)), 90_100 * MS);
        assert_eq!(
            time.place(990 * MS, at(100)),
            90_090 * MS,
            "its sound, still behind nothing of the other"
        );
        assert_eq!(time.place(1_040 * MS, at(140)), 90_140 * MS);
        time.another = true;
        assert_eq!(time.place(50 * MS, at(141)), 90_160 * MS, "never at the same time");
    }

    #[test]
    fn what_is_older_than_the_last_of_the_stream_before_stands_after_it() {
        let mut time = Rising::default();
        assert_eq!(
            [90_000 * MS, 89_990 * MS].map(|at| time.place(at)),
            [90_000 * MS, 89_990 * MS],
            "as it is"
        );
        time.another();
        let late = [88_000 * MS, 88_040 * MS, 89_980 * MS].map(|at| time.place(at));
        assert_eq!(late, [1, 2, 3].map(|n| 89_990 * MS + n * LATE_STEP));
        let caught_up = [90_020 * MS, 90_010 * MS].map(|at| time.place(at));
        assert_eq!(caught_up, [90_020 * MS, 90_010 * MS]);
    }

    #[test]
    fn tracks_stay_comparable_when_the_stream_runs_ahead_or_sound_is_older() {
        assert_eq!(origins(&[(1_000, 0), (1_040, 40), (1_860, 60), (1_840, 60), (1_880, 80)]), [0; 5]);
        assert_eq!(
            origins(&[(1_000, 0), (960, 5), (980, 20), (1_040, 40)]),
            [0; 4],
            "sound older than the picture"
        );
        assert_eq!(origins(&[(1_000, 0), (1_020, 9_000), (1_040, 9_000)]), [0; 3], "after a pause");
    }

    #[test]
    fn where_that_is_not_enough_both_tracks_move() {
        let moved = origins(&[(1_000, 0), (9_000, 40), (9_020, 60), (8_980, 60), (9_040, 80)]);
        assert_eq!(moved[1..], [moved[1]; 4]);
    }
}
