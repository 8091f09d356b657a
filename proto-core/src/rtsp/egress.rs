//! Frames into RTP packets for one peer, and the reports that tie them to the wall clock.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::hub::delivery::Delivery;
use crate::media::frame::{Frame, FrameKind, RtpPayloads};
use crate::media::payload::{Format, PAYLOAD_BYTES, marks, packetise};
use crate::media::track::{Codec, CodecConfig, CodecParams, TrackId};
use crate::rand::Rng;
use crate::time::{Time, WallAnchor};
use crate::wire::rtcp_reports as rtcp;
use crate::wire::rtp::{HEADER_BYTES, Packet};
use crate::wire::rtsp::{FRAME_HEAD_BYTES, put_frame_head};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;

/// A stream may run so far away from the line that its reports follow before that is drawn anew, nanoseconds.
/// GStreamer takes no report that is a second ahead of the packets.
const LINE_OFF: i64 = 500_000_000;

/// The RTP packets of one frame for one peer. The numbers are the peer's own, the payloads are the stream's, shared by all.
#[derive(Clone, Debug)]
pub struct Burst {
    frame: Arc<Frame>,
    payload_type: u8,
    first: u16,
    timestamp: u32,
    ssrc: u32,
    /// The last packet is marked.
    marks: bool,
}

impl Burst {
    fn payloads(&self) -> &[Bytes] {
        self.frame.renderings.rtp.get().map_or(&[], |made| &made.0)
    }

    /// How many packets.
    pub fn count(&self) -> usize {
        self.payloads().len()
    }

    /// The packets: header and payload, in the order of their numbers.
    pub fn packets(&self) -> impl Iterator<Item = ([u8; HEADER_BYTES], &Bytes)> {
        let payloads = self.payloads();
        payloads.iter().zip(0u16..).map(move |(payload, nth)| {
            let header = Packet {
                payload_type: self.payload_type,
                marker: self.marks && usize::from(nth) + 1 == payloads.len(),
                seq: self.first.wrapping_add(nth),
                timestamp: self.timestamp,
                ssrc: self.ssrc,
                payload,
            };
            (header.header(), payload)
        })
    }

    /// The packets as frames of an interleaved channel (RFC 2326, 10.12).
    pub(super) fn interleaved(&self, channel: u8) -> BytesMut {
        let each = FRAME_HEAD_BYTES + HEADER_BYTES;
        let mut out = BytesMut::with_capacity(self.payloads().iter().map(|p| each + p.len()).sum());
        for (head, payload) in self.packets() {
            put_frame_head(&mut out, channel, head.len() + payload.len());
            out.extend_from_slice(&head);
            out.extend_from_slice(payload);
        }
        out
    }
}

impl PartialEq for Burst {
    fn eq(&self, other: &Burst) -> bool {
        self.packets().eq(other.packets())
    }
}

impl Eq for Burst {}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Packets of a lane.
    Packets {
        /// The lane.
        lane: usize,
        /// They.
        burst: Burst,
        /// They are the lane's first since the start or a pause.
        first: bool,
    },
    /// A configuration was learnt.
    Config,
    /// Left out: its track is not set up.
    NotSetUp,
    /// Left out: a picture that cannot be decoded without a key frame.
    BeforeKey,
    /// The publisher changed what the description said of this codec, and RTSP has no way to say so.
    Changed(Codec),
}

#[derive(Debug)]
struct Sender {
    track: TrackId,
    payload_type: u8,
    described: CodecParams,
    config: Arc<CodecConfig>,
    /// The configuration is not what was described.
    changed: bool,
    seq: u16,
    ssrc: u32,
    offset: u32,
    started: bool,
    packets: u32,
    octets: u32,
}

/// All lanes to one peer. Lanes are numbered as they are added.
#[derive(Debug, Default)]
pub(super) struct Egress {
    lanes: Vec<Sender>,
    /// When the first frame went out, and at which time it is shown.
    line: Option<(Time, i64)>,
    base: Option<i64>,
    /// When the newest frame went out, and at which time it is shown.
    newest: (Time, i64),
}

impl Egress {
    /// Adds a lane. First sequence numbers and timestamps are drawn from `rng` (RFC 3550, 5.1).
    pub(super) fn add(&mut self, track: TrackId, config: &Arc<CodecConfig>, payload_type: u8, rng: &mut Rng) {
        self.lanes.push(Sender {
            track,
            payload_type,
            described: config.params.clone(),
            config: config.clone(),
            changed: false,
            // Far away from the first wrap, which not all receivers take well.
            seq: rng.below(0x8000) as u16,
            ssrc: rng.u32(),
            offset: rng.u32(),
            started: false,
            packets: 0,
            octets: 0,
        });
    }

    /// The SSRC of a lane.
    pub(super) fn ssrc(&self, lane: usize) -> Option<u32> {
        self.lanes.get(lane).map(|l| l.ssrc)
    }

    /// What `RTP-Info` says of a lane: the next sequence number and the timestamp of the moment at which sending begins.
    /// `None` once it has begun.
    pub(super) fn start(&self, lane: usize) -> Option<(u16, u32)> {
        self.lanes.get(lane).filter(|_| self.base.is_none()).map(|l| (l.seq, l.offset))
    }

    /// Nothing more is sent until the next key frame.
    pub(super) fn pause(&mut self) {
        self.lanes.iter_mut().for_each(|l| l.started = false);
    }

    /// What is to be sent of a delivery, or why nothing is.
    pub(super) fn write(&mut self, delivery: &Delivery, now: Time) -> Written {
        let (frame, pts) = match delivery {
            Delivery::Config { track, config } => {
                // Of several renditions the hub chooses one, and says so before its first picture; what a bridge makes of a
                // track stands in for it the same way.
                let video = config.params.codec().is_video();
                for lane in self.lanes.iter_mut().filter(|l| l.described.codec().is_video() == video) {
                    lane.track = *track;
                    lane.changed = !compatible(&lane.described, &config.params);
                    lane.config = config.clone();
                }
                return Written::Config;
            }
            Delivery::Frame { frame, pts, .. } => (frame, *pts),
        };
        let track = frame.media.track;
        let Some((n, lane)) = self.lanes.iter_mut().enumerate().find(|(_, l)| l.track == track) else {
            return Written::NotSetUp;
        };
        if lane.changed {
            return Written::Changed(lane.described.codec());
        }
        if frame.is_video() && !lane.started && frame.media.kind != FrameKind::Key {
            return Written::BeforeKey;
        }
        let first = !std::mem::replace(&mut lane.started, true);
        let base = *self.base.get_or_insert(pts);
        self.line.get_or_insert((now, pts));
        self.newest = (now, pts);
        let params = &lane.config.params;
        let format = Format::of(params);
        let payloads = &frame
            .renderings
            .rtp
            .get_or_init(|| RtpPayloads(packetise(&format, params, &frame.media, PAYLOAD_BYTES)))
            .0;
        let burst = Burst {
            frame: frame.clone(),
            payload_type: lane.payload_type,
            first: lane.seq,
            timestamp: lane.offset.wrapping_add(ticks(pts - base, format.clock_rate())),
            ssrc: lane.ssrc,
            marks: marks(params.codec()),
        };
        lane.seq = lane.seq.wrapping_add(payloads.len() as u16);
        lane.packets = lane.packets.wrapping_add(payloads.len() as u32);
        lane.octets = lane.octets.wrapping_add(payloads.iter().map(Bytes::len).sum::<usize>() as u32);
        Written::Packets { lane: n, burst, first }
    }

    /// The reports of all lanes that have begun; `bye`: and their end. While nothing is sent they say only that we are there
    /// (RFC 3550, 6.4): how a stream goes on after a silence is not known.
    ///
    /// All follow one line from the wall clock to the time at which frames are shown, so that a receiver can put its
    /// tracks side by side.
    pub(super) fn reports(&mut self, now: Time, wall: &WallAnchor, bye: bool) -> Vec<(usize, Bytes)> {
        let (Some((since, shown)), Some(base)) = (self.line, self.base) else { return Vec::new() };
        let (left, newest) = self.newest;
        let nanos = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        if nanos(now.since(left)) > LINE_OFF && !bye {
            let begun = self.lanes.iter().enumerate().filter(|(_, l)| l.packets > 0);
            return begun.map(|(n, l)| (n, rtcp::receiver_report(l.ssrc, None, None))).collect();
        }
        let (mut since, mut shown) = (since, shown);
        if shown.saturating_add(nanos(left.since(since))).abs_diff(newest) > LINE_OFF as u64 {
            (since, shown) = (left, newest);
            self.line = Some((since, shown));
        }
        let at = shown.saturating_add(nanos(now.since(since)));
        let ntp = rtcp::ntp_of(wall.wall(now).0);
        let begun = self.lanes.iter().enumerate().filter(|(_, l)| l.packets > 0);
        begun
            .map(|(n, l)| {
                let rate = Format::of(&l.described).clock_rate();
                let timestamp = l.offset.wrapping_add(ticks(at - base, rate));
                (n, rtcp::sender_report(l.ssrc, ntp, timestamp, l.packets, l.octets, bye))
            })
            .collect()
    }
}

/// The nearest tick: nanoseconds were rounded when they were made of ticks, and packets of one length must stand that far apart.
fn ticks(nanos: i64, rate: u32) -> u32 {
    (i128::from(nanos) * i128::from(rate) + 500_000_000).div_euclid(1_000_000_000) as u32
}

/// Whether a receiver that was told `described` can decode `now`: parameter sets of pictures come in the stream.
fn compatible(described: &CodecParams, now: &CodecParams) -> bool {
    match described.codec() {
        codec if codec != now.codec() => false,
        Codec::Aac | Codec::Pcma | Codec::Pcmu => described == now,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_one_length_stand_that_far_apart() {
        for (length, rate) in [(1_024i64, 48_000u32), (1_024, 44_100), (3_003, 90_000), (160, 8_000)] {
            let at = |n: i64| ticks(n * length * 1_000_000_000 / i64::from(rate), rate);
            assert!(
                (-100..100).all(|n| at(n + 1).wrapping_sub(at(n)) == length as u32),
                "{length} at {rate}"
            );
        }
    }
}
