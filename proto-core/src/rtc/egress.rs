//! The one place where a viewer's RTP packets are made and sent.

use crate::media::frame::{Frame, FrameKind, RtpPayloads};
use crate::media::payload::h264::{PAYLOAD_BYTES, packetise};
use crate::media::track::{CodecConfig, CodecParams, TrackId};
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
}

/// Renders deliveries into one viewer's RTP. Payloads are cut once per frame and shared by all viewers; sequence
/// numbers are contiguous per viewer, whatever was skipped.
#[derive(Debug)]
pub struct Egress {
    video: Option<Sender>,
    audio: Option<Sender>,
    /// Ties the viewer's timeline to the clock of sender reports, the same for sound and picture.
    anchor: Option<(Instant, i64)>,
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
        };
        Egress { video: video.map(&mut sender), audio: audio.map(&mut sender), anchor: None }
    }

    /// Learns a track's configuration. Answers whether the session can carry the track.
    pub fn config(&mut self, track: TrackId, config: Arc<CodecConfig>) -> bool {
        let sender = match config.params {
            CodecParams::H264 { .. } => &mut self.video,
            CodecParams::Opus { .. } => &mut self.audio,
            CodecParams::Aac { .. } => &mut None,
        };
        let Some(sender) = sender else { return false };
        // The first track of a kind is the one that plays.
        if sender.track.get_or_insert(track) != &track {
            return false;
        }
        sender.config = Some(config);
        true
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
        let (start, first) = *self.anchor.get_or_insert((now, pts));
        let since = Duration::from_nanos(u64::try_from(pts.saturating_sub(first)).unwrap_or(0));
        // A sender report must not speak of the future.
        let wallclock = start.checked_add(since).unwrap_or(now).min(now);
        let ticks = i128::from(pts) * i128::from(sender.lane.rate) / 1_000_000_000;
        let timestamp = sender.timestamp_offset.wrapping_add(ticks as u32);
        let payloads = &frame.renderings.rtp.get_or_init(|| render(frame, config)).0;
        let mut api = rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(sender.lane.mid, None) else { return Written::NoTrack };
        for (i, payload) in payloads.iter().enumerate() {
            let last = i + 1 == payloads.len();
            let packet =
                RtpWrite::new(sender.lane.pt, sender.seq.into(), timestamp, wallclock, payload.as_ref())
                    .marker(last && frame.is_video())
                    .nackable(true);
            stream.write_rtp(packet);
            sender.seq += 1;
        }
        Written::Packets(payloads.len())
    }
}

fn render(frame: &Frame, config: &CodecConfig) -> RtpPayloads {
    RtpPayloads(match &config.params {
        CodecParams::H264 { sps, pps, .. } => {
            let sets: Vec<_> = match frame.media.kind {
                FrameKind::Key => sps.iter().chain(pps).cloned().collect(),
                _ => Vec::new(),
            };
            packetise(&frame.media.payload, &sets, PAYLOAD_BYTES)
        }
        // RFC 7587, 4.2: one Opus packet is one payload.
        CodecParams::Opus { .. } => vec![frame.media.payload.clone()],
        CodecParams::Aac { .. } => Vec::new(),
    })
}
