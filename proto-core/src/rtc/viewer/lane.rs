//! One kind of media on its way to one viewer: the numbers that RTP demands, and what may be asked for again.
//!
//! A lane is the only one that ever sends on its SSRCs, and its numbers never go back: under GCM that is what keeps the
//! key secret.

use super::receipts::{Leaves, Receipts};
use crate::media::frame::{Frame, FrameKind};
use crate::media::payload::marks;
use crate::media::track::{Codec, CodecConfig, TrackId};
use crate::rand::Rng;
use crate::rtc::srtp::{RTP_HEADER, Refused, Sealer};
use crate::time::Time;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How a section of the viewer's session carries its media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) mid: String,
    pub(super) codec: Codec,
    pub(super) pt: u8,
    /// The payload type of packets that are sent again (RFC 4588). Without one they come again as they were.
    pub(super) rtx: Option<u8>,
    /// Packets may be asked for again (`nack` in RFC 4585, 4.2). Browsers do not ask for sound.
    pub(super) nack: bool,
    /// Ticks of the RTP clock a second.
    pub(super) rate: u32,
    /// The extension with a number that the viewer's feedback of what came goes by. Only where there is `rtx`, since a packet
    /// that comes again as it was cannot have another number.
    pub(super) transport: Option<u8>,
}

/// A frame that was sent and may be asked for: its place in the lane, and the frame itself, which the stream's other
/// viewers share.
#[derive(Debug)]
struct Sent {
    first: u64,
    timestamp: u32,
    /// Bytes of padding of its last packet.
    pad: u8,
    at: Time,
    frame: Arc<Frame>,
}

/// Set in an RTP header whose packet ends with padding (RFC 3550, 5.1).
const PADDED: u8 = 0x20;
/// Set in an RTP header with an extension (RFC 3550, 5.1).
const EXTENDED: u8 = 0x10;
/// Bytes of an extension with one element of two bytes (RFC 8285, 4.2).
const EXTENSION: usize = 8;

/// An RTP header.
#[derive(Clone, Copy)]
struct Head {
    bytes: [u8; RTP_HEADER + EXTENSION],
    len: usize,
}

impl Head {
    fn plain(fixed: [u8; RTP_HEADER]) -> Head {
        let mut bytes = [0; RTP_HEADER + EXTENSION];
        for (to, from) in bytes.iter_mut().zip(fixed) {
            *to = from;
        }
        Head { bytes, len: RTP_HEADER }
    }

    fn set(&mut self, flag: u8) {
        let [first, ..] = &mut self.bytes;
        *first |= flag;
    }

    /// Adds the extension `id` with a number.
    fn extend(&mut self, id: u8, number: u16) {
        let [n0, n1] = number.to_be_bytes();
        let element = [0xbe, 0xde, 0, 1, id << 4 | 1, n0, n1, 0];
        for (to, from) in self.bytes.iter_mut().skip(RTP_HEADER).zip(element) {
            *to = from;
        }
        self.len = RTP_HEADER + EXTENSION;
        self.set(EXTENDED);
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) carried: Carried,
    pub(super) ssrc: u32,
    pub(super) rtx_ssrc: u32,
    /// The numbers of the next packets, with the wraps above.
    next: u64,
    next_rtx: u64,
    offset: u32,
    track: Option<TrackId>,
    config: Option<Arc<CodecConfig>>,
    pub(super) started: bool,
    pub(super) packets: u32,
    pub(super) octets: u32,
    sent: VecDeque<Sent>,
    pub(super) receipts: Option<Box<Receipts>>,
}

/// Why a frame is not for this lane, or the configuration that it needs.
pub(super) enum Fits<'a> {
    NoTrack,
    BeforeKey,
    Yes(&'a Arc<CodecConfig>),
}

impl Lane {
    /// First numbers and the timestamps' offset are drawn from `rng` (RFC 3550, 5.1). `ssrcs` are nobody else's in the
    /// session: one for the media, one for packets that are sent again.
    pub(super) fn new(carried: Carried, ssrcs: [u32; 2], rng: &mut Rng) -> Lane {
        let [ssrc, rtx_ssrc] = ssrcs;
        Lane {
            carried,
            ssrc,
            rtx_ssrc,
            // In the lower half of the range, so that the first wrap is far from what SRTP has to guess
            // (RFC 3711, 3.3.1).
            next: u64::from(rng.below(0x8000)),
            next_rtx: u64::from(rng.below(0x8000)),
            offset: rng.u32(),
            track: None,
            config: None,
            started: false,
            packets: 0,
            octets: 0,
            sent: VecDeque::new(),
            receipts: None,
        }
    }

    /// Learns a track's configuration, if the track is of this lane.
    pub(super) fn config(&mut self, track: TrackId, config: &Arc<CodecConfig>) {
        let codec = config.params.codec();
        if self.carried.codec != codec {
            // The publisher changed its codec; what was known of the track before must not speak for what comes.
            if self.track == Some(track) {
                self.config = None;
            }
            return;
        }
        // The hub chooses one track of a kind and says what it is before its first frame: another rendition, or what a bridge
        // makes of what the publisher sends.
        (self.track, self.config) = (Some(track), Some(config.clone()));
    }

    pub(super) fn fits(&self, frame: &Frame) -> Fits<'_> {
        let Some(config) = self.config.as_ref().filter(|_| self.track == Some(frame.media.track)) else {
            return Fits::NoTrack;
        };
        if frame.is_video() && !self.started && frame.media.kind != FrameKind::Key {
            return Fits::BeforeKey;
        }
        Fits::Yes(config)
    }

    /// The RTP timestamp of a moment on the viewer's timeline, nanoseconds.
    pub(super) fn timestamp(&self, pts: i64) -> u32 {
        let ticks = i128::from(pts) * i128::from(self.carried.rate) / 1_000_000_000;
        self.offset.wrapping_add(ticks as u32)
    }

    fn header(&self, pt: u8, seq: u64, timestamp: u32, ssrc: u32, marked: bool) -> Head {
        let [q0, q1] = (seq as u16).to_be_bytes();
        let [t0, t1, t2, t3] = timestamp.to_be_bytes();
        let [s0, s1, s2, s3] = ssrc.to_be_bytes();
        Head::plain([2 << 6, pt & 0x7f | u8::from(marked) << 7, q0, q1, t0, t1, t2, t3, s0, s1, s2, s3])
    }

    /// Packets that were sent for the first time, and bytes of their payloads (these wrap).
    pub(super) fn sent(&self) -> (u64, u32) {
        (self.next, self.octets)
    }

    /// The number of the `back`th last packet that may be sent again: something to send where a link is tried out.
    pub(super) fn recent(&self, back: u64) -> Option<u16> {
        let first = self.sent.front()?.first;
        let known = (self.next - first).clamp(1, 64);
        self.carried.rtx?;
        Some((self.next.checked_sub(1 + back % known)?) as u16)
    }

    /// Adds the number by which the viewer tells whether the packet `seq` of this lane came, where that is wanted.
    fn number(&mut self, header: &mut Head, packet: Leaves, now: Time) {
        if let (Some(id), Some(receipts)) = (self.carried.transport, &mut self.receipts)
            && receipts.are_wanted(now)
        {
            header.extend(id, receipts.leaves(packet, now));
        }
    }

    /// The viewer is to tell what comes, for so long from now on, if it said that it would.
    pub(super) fn want_arrivals(&mut self, now: Time, span: Duration) {
        if self.carried.transport.is_some() {
            self.receipts.get_or_insert_with(|| Box::new(Receipts::new(0))).want(now, span);
        }
    }

    /// The number, as all packets with the extension are counted, of the packet that has just left; `None`: it had none.
    pub(super) fn numbered(&mut self, now: Time) -> Option<u16> {
        let receipts = self.receipts.as_mut()?;
        receipts.are_wanted(now).then(|| receipts.newest())
    }

    /// Whether it is known that the viewer has the packet with these lower bits of its number.
    pub(super) fn came(&self, seq: u16) -> bool {
        let seq = self.newest(seq);
        self.receipts.as_ref().zip(seq).is_some_and(|(receipts, seq)| receipts.came(seq))
    }

    /// The number, with its wraps, of the newest packet that has left under these lower bits.
    pub(super) fn newest(&self, seq: u16) -> Option<u64> {
        let back = (self.next.wrapping_sub(1) as u16).wrapping_sub(seq);
        self.next.checked_sub(1 + u64::from(back))
    }

    /// Appends the `n`th packet of a frame. Packets of a frame must come one after the other, beginning with 0. `pad` bytes
    /// of padding make it longer (RFC 3550, 5.1).
    pub(super) fn put(
        &mut self,
        frame: &Frame,
        (n, pad): (usize, u8),
        (timestamp, now): (u32, Time),
        sealer: &mut Sealer,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        let Some(payloads) = frame.renderings.rtp.get().map(|r| &r.0) else { return Ok(()) };
        let Some(payload) = payloads.get(n) else { return Ok(()) };
        let marked = n + 1 == payloads.len() && marks(self.carried.codec);
        let seq = self.next;
        // Used up whatever comes of it.
        self.next += 1;
        let mut header = self.header(self.carried.pt, seq, timestamp, self.ssrc, marked);
        self.number(&mut header, Leaves::First(seq), now);
        seal(header, seq, payload, pad, sealer, scratch, out)?;
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload.len() as u32);
        Ok(())
    }

    /// Remembers a frame of which all packets have just been put, the last one with so much padding, and forgets those that
    /// are too old or too many. Nothing, where nothing can be asked for again.
    pub(super) fn note(
        &mut self,
        (frame, timestamp, pad): (Arc<Frame>, u32, u8),
        now: Time,
        most: usize,
        age_ms: u64,
    ) {
        if !self.carried.nack && self.carried.transport.is_none() {
            return;
        }
        let count = frame.renderings.rtp.get().map_or(0, |r| r.0.len()) as u64;
        self.sent.push_back(Sent { first: self.next - count, timestamp, pad, at: now, frame });
        let stale =
            |s: &Sent| now.since(s.at).as_millis() as u64 > age_ms || self.next - s.first > most as u64;
        while self.sent.len() > 1 && self.sent.front().is_some_and(stale) {
            self.sent.pop_front();
        }
    }

    /// Appends a packet that was lost on its way: on the SSRC for that (RFC 4588), or just as it was. Answers its bytes
    /// of payload; 0 if it is not known any more, or older than `age_ms`; `None`: it is only there to fill the link.
    pub(super) fn again(
        &mut self,
        seq: u16,
        now: Time,
        age_ms: Option<u64>,
        sealer: &mut Sealer,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<usize, Refused> {
        let Some(number) = self.newest(seq) else { return Ok(0) };
        let at = self.sent.partition_point(|s| s.first <= number);
        let Some(sent) = at.checked_sub(1).and_then(|at| self.sent.get(at)) else { return Ok(0) };
        let payloads = sent.frame.renderings.rtp.get().map(|r| r.0.as_slice()).unwrap_or_default();
        let n = (number - sent.first) as usize;
        let Some(payload) = payloads.get(n) else { return Ok(0) };
        if age_ms.is_some_and(|most| now.since(sent.at).as_millis() as u64 > most) {
            return Ok(0);
        }
        let (timestamp, marked) = (sent.timestamp, n + 1 == payloads.len() && marks(self.carried.codec));
        let Some(pt) = self.carried.rtx else {
            // The same number again must be the same packet again in every byte.
            let pad = if n + 1 == payloads.len() { sent.pad } else { 0 };
            let header = self.header(self.carried.pt, number, timestamp, self.ssrc, marked);
            seal(header, number, payload, pad, sealer, scratch, out)?;
            return Ok(payload.len());
        };
        scratch.clear();
        scratch.extend_from_slice(&seq.to_be_bytes());
        scratch.extend_from_slice(payload);
        let own = self.next_rtx;
        self.next_rtx += 1;
        let mut header = self.header(pt, own, timestamp, self.rtx_ssrc, marked);
        let leaves = if age_ms.is_some() { Leaves::Again(number) } else { Leaves::Filling };
        self.number(&mut header, leaves, now);
        sealer.rtp(header.as_slice(), (own >> 16) as u32, scratch, out)?;
        Ok(scratch.len())
    }
}

fn seal(
    mut header: Head,
    number: u64,
    payload: &[u8],
    pad: u8,
    sealer: &mut Sealer,
    scratch: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<(), Refused> {
    let roc = (number >> 16) as u32;
    if pad == 0 {
        return sealer.rtp(header.as_slice(), roc, payload, out);
    }
    header.set(PADDED);
    scratch.clear();
    scratch.extend_from_slice(payload);
    scratch.resize(payload.len() + usize::from(pad) - 1, 0);
    scratch.push(pad);
    sealer.rtp(header.as_slice(), roc, scratch, out)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::cluster::Epoch;
    use crate::media::frame::{NewFrame, Renderings, Rotation, RtpPayloads};
    use crate::rtc::Identity;
    use crate::rtc::srtp;
    use bytes::Bytes;
    use str0m::crypto::dtls::SrtpProfile;

    fn frame(payloads: &[usize]) -> Arc<Frame> {
        let media = NewFrame {
            track: TrackId::VIDEO,
            dts: 0,
            pts: 0,
            kind: FrameKind::Key,
            discardable: false,
            temporal_layer: 0,
            rotation: Rotation::R0,
            capture: None,
            payload: Bytes::new(),
        };
        let renderings = Renderings::default();
        let payloads = payloads.iter().map(|n| Bytes::from(vec![7; *n])).collect();
        renderings.rtp.set(RtpPayloads(payloads)).unwrap();
        Arc::new(Frame { seq: 0, epoch: Epoch::default(), config_version: 1, media, renderings })
    }

    #[test]
    fn a_number_that_is_used_again_has_the_same_bytes_again() {
        // Under GCM other bytes under the same number would give the key away; padding counts.
        let identity = Identity::generate().unwrap();
        for profile in
            [SrtpProfile::AEAD_AES_128_GCM, SrtpProfile::AEAD_AES_256_GCM, SrtpProfile::AES128_CM_SHA1_80]
        {
            let (mut sealer, _) = srtp::keys(&[9; 88], profile, false, identity.crypto()).unwrap();
            let carried = Carried {
                mid: "0".to_owned(),
                codec: Codec::H264,
                pt: 96,
                rtx: None,
                nack: true,
                rate: 90_000,
                transport: None,
            };
            let mut lane = Lane::new(carried, [5, 6], &mut Rng::new([3; 32]));
            let (f, mut scratch, now) = (frame(&[900, 900, 890]), Vec::new(), Time::from_millis(1));
            let first = lane.next;
            let mut sent = Vec::new();
            for n in 0..3 {
                let mut out = Vec::new();
                let pad = if n == 2 { 10 } else { 0 };
                lane.put(&f, (n, pad), (1, now), &mut sealer, &mut scratch, &mut out).unwrap();
                sent.push(out);
            }
            assert!(sent.iter().all(|p| p.len() == sent[0].len()), "padded to one size");
            lane.note((f, 1, 10), now, 100, 1_000);
            for (n, before) in sent.iter().enumerate() {
                let mut out = Vec::new();
                let seq = (first + n as u64) as u16;
                assert!(lane.again(seq, now, Some(1_000), &mut sealer, &mut scratch, &mut out).unwrap() > 0);
                assert_eq!(out, *before, "packet {n} with {profile:?}");
            }
        }
    }
}
