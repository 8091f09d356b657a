//! RTP payload formats: frames cut into payloads ([`packetise`]), and payloads put together into frames ([`Depay`]).
//!
//! Every codec goes through the same two doors. A [`Format`] says which payload format a payload type means, with what the
//! session description adds to it.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod aac;
mod assemble;
mod av1;
mod h264;
mod h265;
mod latm;
mod mp3;
mod nal;
#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
mod vp8;
mod vp9;

use super::frame::{FrameKind, NewFrame};
use super::track::{Codec, CodecParams};
use crate::wire::opus::OpusPacket;
use bytes::Bytes;

/// Bytes of one RTP payload at most. With the RTP header (12), the MID extension (at most 20), the original
/// sequence number of a retransmission (2, RFC 4588) and the SRTP tag (16) a datagram stays within 1,200 bytes,
/// which every path carries.
pub const PAYLOAD_BYTES: usize = 1_150;

/// Bytes of one frame of G.711 at most: 140 ms of one channel, so that each is one payload on every path.
const G711_FRAME_BYTES: usize = 1_120;

/// Cuts samples of G.711 into as few equal frames of at most [`G711_FRAME_BYTES`] as there must be, which keep the channels of a
/// sample together.
///
/// What a publisher sent in one piece leaves in one piece where that can be: pieces come together, and a receiver that goes by
/// arrival (GStreamer) takes the second, which is for later, for early, and plays all sound as much too soon.
pub fn g711_frames(samples: &[u8], channels: u8) -> impl Iterator<Item = &[u8]> {
    let channels = usize::from(channels.max(1));
    let most = (G711_FRAME_BYTES / channels).max(1);
    samples.chunks(equal(samples.len().div_ceil(channels), most) * channels)
}

/// A payload format, and what a session description must say of it beside its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// H.264, packetization modes 0 and 1 (RFC 6184).
    H264,
    /// H.265 without decoding order numbers (RFC 7798).
    H265,
    /// VP8 (RFC 7741).
    Vp8,
    /// VP9 (RFC 9628).
    Vp9,
    /// AV1 ("RTP Payload Format For AV1", AOM).
    Av1,
    /// Opus (RFC 7587).
    Opus,
    /// G.711 A-law (RFC 3551, 4.5.14).
    Pcma {
        /// Channels by `rtpmap`.
        channels: u8,
    },
    /// G.711 µ-law.
    Pcmu {
        /// Channels by `rtpmap`.
        channels: u8,
    },
    /// MPEG audio (RFC 2250): MP3 on a clock of 90 kHz.
    Mp3,
    /// AAC in `mpeg4-generic` (RFC 3640): high and low bit rate modes, without interleaving.
    Mpeg4Generic {
        /// `config`: the AudioSpecificConfig.
        asc: Bytes,
        /// Ticks of the RTP clock a second, by `rtpmap`.
        clock_rate: u32,
        /// `sizelength`: 13 for `AAC-hbr`, 6 for `AAC-lbr`.
        size_length: u8,
        /// `indexlength`: 3 or 2.
        index_length: u8,
        /// `indexdeltalength`: 3 or 2.
        index_delta_length: u8,
    },
    /// AAC in `MP4A-LATM` (RFC 6416).
    Latm {
        /// `config`: the StreamMuxConfig; `None` with `cpresent=1`, where it stands in the stream.
        config: Option<Bytes>,
        /// Ticks of the RTP clock a second, by `rtpmap`.
        clock_rate: u32,
    },
}

impl Format {
    /// The parameters of a track whose description says all of them; `None`: they come with its packets, or (pictures) apart.
    pub fn described(&self) -> Option<CodecParams> {
        match self {
            // As in [`Depay::new`].
            Format::Opus => Some(CodecParams::Opus { channels: 2 }),
            Format::Pcma { channels } => Some(CodecParams::Pcma { channels: *channels }),
            Format::Pcmu { channels } => Some(CodecParams::Pcmu { channels: *channels }),
            Format::Mpeg4Generic { asc, clock_rate, .. } => aac::params_of(asc, *clock_rate).map(|(p, _)| p),
            _ => None,
        }
    }

    /// The format in which a track is sent, unless a peer wants another. AAC goes as `mpeg4-generic` in mode `AAC-hbr`.
    pub fn of(params: &CodecParams) -> Format {
        match params {
            CodecParams::H264 { .. } => Format::H264,
            CodecParams::H265 { .. } => Format::H265,
            CodecParams::Vp8 { .. } => Format::Vp8,
            CodecParams::Vp9 { .. } => Format::Vp9,
            CodecParams::Av1 { .. } => Format::Av1,
            CodecParams::Opus { .. } => Format::Opus,
            CodecParams::Pcma { channels } => Format::Pcma { channels: *channels },
            CodecParams::Pcmu { channels } => Format::Pcmu { channels: *channels },
            CodecParams::Mp3 { .. } => Format::Mp3,
            CodecParams::Aac { asc, rate, .. } => Format::Mpeg4Generic {
                asc: asc.clone(),
                clock_rate: *rate,
                size_length: 13,
                index_length: 3,
                index_delta_length: 3,
            },
        }
    }

    /// The codec that it carries.
    pub const fn codec(&self) -> Codec {
        match self {
            Format::H264 => Codec::H264,
            Format::H265 => Codec::H265,
            Format::Vp8 => Codec::Vp8,
            Format::Vp9 => Codec::Vp9,
            Format::Av1 => Codec::Av1,
            Format::Opus => Codec::Opus,
            Format::Pcma { .. } => Codec::Pcma,
            Format::Pcmu { .. } => Codec::Pcmu,
            Format::Mp3 => Codec::Mp3,
            Format::Mpeg4Generic { .. } | Format::Latm { .. } => Codec::Aac,
        }
    }

    /// The encoding name of `a=rtpmap`.
    pub const fn encoding(&self) -> &'static str {
        match self {
            Format::H264 => "H264",
            Format::H265 => "H265",
            Format::Vp8 => "VP8",
            Format::Vp9 => "VP9",
            Format::Av1 => "AV1",
            Format::Opus => "opus",
            Format::Pcma { .. } => "PCMA",
            Format::Pcmu { .. } => "PCMU",
            Format::Mp3 => "MPA",
            Format::Mpeg4Generic { .. } => "mpeg4-generic",
            Format::Latm { .. } => "MP4A-LATM",
        }
    }

    /// Ticks of the RTP clock a second.
    pub const fn clock_rate(&self) -> u32 {
        match self {
            Format::H264 | Format::H265 | Format::Vp8 | Format::Vp9 | Format::Av1 | Format::Mp3 => 90_000,
            Format::Opus => 48_000,
            Format::Pcma { .. } | Format::Pcmu { .. } => 8_000,
            Format::Mpeg4Generic { clock_rate, .. } | Format::Latm { clock_rate, .. } => *clock_rate,
        }
    }
}

/// A whole frame out of payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its RTP timestamp.
    pub timestamp: u32,
    /// What it is.
    pub kind: FrameKind,
    /// No other frame refers to it.
    pub discardable: bool,
    /// Temporal layer, 0 where there are none.
    pub temporal_layer: u8,
    /// The coded bytes in the form of [`Codec`].
    pub payload: Bytes,
    /// The track's parameters, if they are not what the unit before them said (always with the first unit).
    pub params: Option<CodecParams>,
}

/// Why frames were left out, and how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DepayDrops {
    /// Packets of theirs were lost, or made no sense.
    pub damaged: u64,
    /// Whole, but the pictures that they refer to are missing.
    pub undecodable: u64,
    /// They passed the limit of bytes or packets.
    pub too_large: u64,
}

/// Puts frames together out of the payloads of one RTP stream, which come in order. What comes out can be decoded: after a
/// loss nothing does until a whole key frame has arrived.
#[derive(Debug)]
pub struct Depay(Kind);

#[derive(Debug)]
enum Kind {
    H264(Box<assemble::Assembler<h264::H264>>),
    H265(Box<assemble::Assembler<h265::H265>>),
    Vp8(Box<assemble::Assembler<vp8::Vp8>>),
    Vp9(Box<assemble::Assembler<vp9::Vp9>>),
    Av1(Box<assemble::Assembler<av1::Av1>>),
    /// A payload is a frame.
    Plain(Plain),
    Aac(Box<aac::AacDepay>),
    Latm(Box<latm::LatmDepay>),
    Mp3(Box<mp3::Mp3Depay>),
}

#[derive(Debug)]
struct Plain {
    params: CodecParams,
    told: bool,
    drops: DepayDrops,
}

macro_rules! each {
    ($on:expr, $d:ident => $do:expr) => {
        match $on {
            Kind::H264($d) => $do,
            Kind::H265($d) => $do,
            Kind::Vp8($d) => $do,
            Kind::Vp9($d) => $do,
            Kind::Av1($d) => $do,
            Kind::Plain($d) => $do,
            Kind::Aac($d) => $do,
            Kind::Latm($d) => $do,
            Kind::Mp3($d) => $do,
        }
    };
}

impl Depay {
    /// For frames of at most `most_bytes` bytes and `most_packets` packets.
    pub fn new(format: &Format, most_bytes: usize, most_packets: usize) -> Depay {
        let plain = |params| Kind::Plain(Plain { params, told: false, drops: DepayDrops::default() });
        Depay(match format {
            Format::H264 => Kind::H264(Box::new(assemble::Assembler::new(most_bytes, most_packets))),
            Format::H265 => Kind::H265(Box::new(assemble::Assembler::new(most_bytes, most_packets))),
            Format::Vp8 => Kind::Vp8(Box::new(assemble::Assembler::new(most_bytes, most_packets))),
            Format::Vp9 => Kind::Vp9(Box::new(assemble::Assembler::new(most_bytes, most_packets))),
            Format::Av1 => Kind::Av1(Box::new(assemble::Assembler::new(most_bytes, most_packets))),
            // RFC 7587, 7: always two channels on the wire; a decoder of two plays mono as well.
            Format::Opus => plain(CodecParams::Opus { channels: 2 }),
            Format::Pcma { channels } => plain(CodecParams::Pcma { channels: *channels }),
            Format::Pcmu { channels } => plain(CodecParams::Pcmu { channels: *channels }),
            Format::Mp3 => Kind::Mp3(Box::new(mp3::Mp3Depay::new(most_bytes))),
            Format::Mpeg4Generic { asc, clock_rate, size_length, index_length, index_delta_length } => {
                let lengths = [*size_length, *index_length, *index_delta_length];
                Kind::Aac(Box::new(aac::AacDepay::new(asc, *clock_rate, lengths, most_bytes)))
            }
            Format::Latm { config, clock_rate } => {
                Kind::Latm(Box::new(latm::LatmDepay::new(config.as_deref(), *clock_rate, most_bytes)))
            }
        })
    }

    /// Makes parameter sets known that the session description told (`sprop-parameter-sets`, `sprop-vps` and so on).
    /// Without effect for other codecs.
    pub fn preset(&mut self, params: &CodecParams) {
        match (&mut self.0, params) {
            (Kind::H264(d), CodecParams::H264 { sps, pps, .. }) => d.format_mut().preset(sps, pps),
            (Kind::H265(d), CodecParams::H265 { vps, sps, pps, .. }) => d.format_mut().preset(vps, sps, pps),
            _ => {}
        }
    }

    /// Packets before the next one are lost.
    pub fn lost(&mut self) {
        each!(&mut self.0, d => d.lost());
    }

    /// Nothing can be decoded until the publisher sends a key frame. Never with sound.
    pub fn needs_key(&self) -> bool {
        match &self.0 {
            Kind::H264(d) => d.needs_key(),
            Kind::H265(d) => d.needs_key(),
            Kind::Vp8(d) => d.needs_key(),
            Kind::Vp9(d) => d.needs_key(),
            Kind::Av1(d) => d.needs_key(),
            _ => false,
        }
    }

    /// What was left out so far.
    pub fn drops(&self) -> DepayDrops {
        each!(&self.0, d => d.drops())
    }

    /// Takes the next payload and gives each frame that it ends to `emit`: the one before it, where the timestamp changes
    /// without a marker, and its own.
    pub fn push(&mut self, payload: &[u8], timestamp: u32, marker: bool, mut emit: impl FnMut(Unit)) {
        each!(&mut self.0, d => d.push(payload, timestamp, marker, &mut emit));
    }
}

impl Plain {
    fn lost(&mut self) {}

    fn drops(&self) -> DepayDrops {
        self.drops
    }

    fn push(&mut self, payload: &[u8], timestamp: u32, _marker: bool, emit: &mut dyn FnMut(Unit)) {
        if payload.is_empty() {
            return;
        }
        if self.params.codec() == Codec::Opus && OpusPacket::parse(payload).is_none() {
            self.drops.damaged += 1;
            return;
        }
        let mut params = (!std::mem::replace(&mut self.told, true)).then(|| self.params.clone());
        let channels = match self.params {
            CodecParams::Pcma { channels } | CodecParams::Pcmu { channels } => channels.max(1),
            _ => return emit(sound(timestamp, Bytes::copy_from_slice(payload), params)),
        };
        let mut at = timestamp;
        for piece in g711_frames(payload, channels) {
            emit(sound(at, Bytes::copy_from_slice(piece), params.take()));
            at = at.wrapping_add(piece.len() as u32 / u32::from(channels));
        }
    }
}

fn sound(timestamp: u32, payload: Bytes, params: Option<CodecParams>) -> Unit {
    Unit { timestamp, kind: FrameKind::Audio, discardable: false, temporal_layer: 0, payload, params }
}

/// The size of pieces of at most `most` bytes into which `len` bytes are cut so that as few as possible come out, all
/// equal but the last, which is shorter by less than their number. At least 1.
fn equal(len: usize, most: usize) -> usize {
    let count = len.div_ceil(most.max(1)).max(1);
    len.div_ceil(count).max(1)
}

/// Cuts a frame into payloads of at most `most` bytes (taken as 16 at least). All payloads of one piece of a frame have the
/// same size but its last, which is shorter by less than their number (with AV1: by anything), so that the kernel can be
/// handed them as one message, and sound as its end. Key frames bring their parameter
/// sets along. All payloads have the frame's timestamp; [`marks`] says which of them has the marker.
///
/// Empty if the frame is not of the codec that the format is for, or is none.
pub fn packetise(format: &Format, params: &CodecParams, frame: &NewFrame, most: usize) -> Vec<Bytes> {
    let most = most.max(16);
    let key = frame.kind == FrameKind::Key;
    let payload = &frame.payload;
    match (format, params) {
        (Format::H264, CodecParams::H264 { sps, pps, .. }) => {
            let sets: Vec<Bytes> = if key { sps.iter().chain(pps).cloned().collect() } else { Vec::new() };
            h264::packetise(payload, &sets, most)
        }
        (Format::H265, CodecParams::H265 { vps, sps, pps, .. }) => {
            let sets: Vec<Bytes> =
                if key { vps.iter().chain(sps).chain(pps).cloned().collect() } else { Vec::new() };
            h265::packetise(payload, &sets, most)
        }
        (Format::Vp8, CodecParams::Vp8 { .. }) => vp8::packetise(payload, frame.discardable, most),
        (Format::Vp9, CodecParams::Vp9 { size, .. }) => {
            vp9::packetise(payload, key, size.filter(|_| key), most)
        }
        (Format::Av1, CodecParams::Av1 { .. }) => av1::packetise(payload, key, most),
        // RFC 7587, 4.2: one Opus packet is one payload. So is a frame of G.711, for each payload has its own time.
        (Format::Opus, CodecParams::Opus { .. })
        | (Format::Pcma { .. }, CodecParams::Pcma { .. })
        | (Format::Pcmu { .. }, CodecParams::Pcmu { .. }) => vec![payload.clone()],
        (Format::Mp3, CodecParams::Mp3 { .. }) => mp3::packetise(payload, most),
        (Format::Mpeg4Generic { size_length, index_length, .. }, CodecParams::Aac { .. }) => {
            aac::packetise(payload, usize::from(*size_length), usize::from(*index_length), most)
        }
        (Format::Latm { config: Some(_), .. }, CodecParams::Aac { .. }) => latm::packetise(payload, most),
        _ => Vec::new(),
    }
}

/// Whether the last payload of a frame has the marker bit: with pictures and AAC it says that the frame is whole, with
/// other sound it would say that a talkspurt begins (RFC 3551, 4.1).
pub const fn marks(codec: Codec) -> bool {
    codec.is_video() || matches!(codec, Codec::Aac)
}
