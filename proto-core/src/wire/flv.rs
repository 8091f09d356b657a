//! FLV tag bodies (Adobe "Video File Format Specification 10", annex E) with the FourCC codecs of Enhanced RTMP v1
//! and v2 (Veovera): the payloads of RTMP audio and video messages.

use crate::media::track::Codec;
use bytes::{BufMut, Bytes, BytesMut};

/// What a video message carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VideoTag {
    /// A decoder's configuration: `AVCDecoderConfigurationRecord`, `HEVCDecoderConfigurationRecord`,
    /// `AV1CodecConfigurationRecord` or `VPCodecConfigurationRecord`.
    Config {
        /// The codec.
        codec: Codec,
        /// The record.
        record: Bytes,
    },
    /// A picture: NAL units with the length fields that the configuration says, OBUs, or a VP8 or VP9 frame.
    Frame {
        /// The codec.
        codec: Codec,
        /// The tag calls it a key frame.
        key: bool,
        /// Presentation time minus decoding time, milliseconds.
        composition: i32,
        /// The coded bytes.
        data: Bytes,
    },
    /// Several tracks in one message (multitrack), each with its number.
    Tracks(Vec<(u8, VideoTag)>),
    /// The tag's time counts from so many nanoseconds after the message's (ModEx TimestampOffsetNano).
    Offset {
        /// Nanoseconds, below 1,000,000.
        nanos: u32,
        /// The tag.
        tag: Box<VideoTag>,
    },
    /// Nothing to show: end of sequence, command frame, colour metadata.
    Nothing,
    /// A codec or packet form that we do not take, by name.
    Unsupported(String),
}

/// What an audio message carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AudioTag {
    /// A decoder's configuration: an AudioSpecificConfig, or an Opus identification header (RFC 7845, 5.1; may be empty).
    Config {
        /// The codec.
        codec: Codec,
        /// The configuration.
        record: Bytes,
    },
    /// One packet of sound.
    Frame {
        /// The codec.
        codec: Codec,
        /// Channels by the classic tag's flag; matters only for G.711, which says it nowhere else.
        channels: u8,
        /// The coded bytes.
        data: Bytes,
    },
    /// Several tracks in one message, as with pictures.
    Tracks(Vec<(u8, AudioTag)>),
    /// As with pictures.
    Offset {
        /// Nanoseconds, below 1,000,000.
        nanos: u32,
        /// The tag.
        tag: Box<AudioTag>,
    },
    /// Nothing to play: end of sequence, channel layout.
    Nothing,
    /// A codec or packet form that we do not take, by name.
    Unsupported(String),
}

/// What an FLV file with pictures and sound begins with (E.2), and the size of no tag before the first.
pub const FILE_HEADER: [u8; 13] = [b'F', b'L', b'V', 1, 5, 0, 0, 0, 9, 0, 0, 0, 0];

/// A message as a tag of an FLV file (E.3, E.4.1): its header, its body, and its size. `kind` is the message type of RTMP,
/// which is the tag type. Bodies of 16 MiB and more cannot be written and give nothing.
pub fn file_tag(kind: u8, timestamp: u32, body: &[u8]) -> Bytes {
    let Some([0, s0, s1, s2]) = u32::try_from(body.len()).ok().map(u32::to_be_bytes) else {
        return Bytes::new();
    };
    let [high, t0, t1, t2] = timestamp.to_be_bytes();
    let mut out = BytesMut::with_capacity(body.len() + 15);
    out.put_slice(&[kind, s0, s1, s2, t0, t1, t2, high, 0, 0, 0]);
    out.put_slice(body);
    out.put_u32(body.len() as u32 + 11);
    out.freeze()
}

const SEQUENCE_START: u8 = 0;
const CODED_FRAMES: u8 = 1;
const CODED_FRAMES_X: u8 = 3;
const METADATA: u8 = 4;
const AUDIO_MULTITRACK: u8 = 5;
const VIDEO_MULTITRACK: u8 = 6;
const MOD_EX: u8 = 7;
/// A frame type that carries a command for the player.
const COMMAND: u8 = 5;

/// The FourCC of a codec in Enhanced RTMP. `None` for G.711, which only has its classic form.
pub const fn fourcc(codec: Codec) -> Option<&'static [u8; 4]> {
    Some(match codec {
        Codec::H264 => b"avc1",
        Codec::H265 => b"hvc1",
        Codec::Vp8 => b"vp08",
        Codec::Vp9 => b"vp09",
        Codec::Av1 => b"av01",
        Codec::Opus => b"Opus",
        Codec::Aac => b"mp4a",
        Codec::Mp3 => b".mp3",
        Codec::Pcma | Codec::Pcmu => return None,
    })
}

/// The codec of a FourCC that we take.
pub fn codec_of(fourcc_text: &[u8]) -> Option<Codec> {
    Codec::ALL.into_iter().find(|c| fourcc(*c).is_some_and(|f| f == fourcc_text))
}

fn signed24(bytes: &[u8; 3]) -> i32 {
    let [a, b, c] = *bytes;
    i32::from_be_bytes([a, b, c, 0]) >> 8
}

fn fourcc_name(fourcc: &[u8; 4]) -> String {
    let known = match fourcc {
        b"vvc1" => "VVC",
        b"ac-3" => "AC-3",
        b"ec-3" => "E-AC-3",
        b"fLaC" => "FLAC",
        _ => return format!("FourCC {}", crate::error::quote(&String::from_utf8_lossy(fourcc))),
    };
    known.to_owned()
}

/// Takes the modifiers in front of a packet (ModEx): the offset in nanoseconds, and the packet type that they end with.
fn modifiers(packet: &mut u8, rest: &mut Bytes) -> Option<u32> {
    let mut nanos = 0;
    while *packet == MOD_EX {
        let mut size = usize::from(*rest.first()?) + 1;
        let mut head = 1;
        if size == 256 {
            size = usize::from(u16::from_be_bytes(*rest.get(1..3)?.first_chunk()?)) + 1;
            head = 3;
        }
        let data = rest.get(head..head + size)?;
        let kinds = *rest.get(head + size)?;
        if kinds >> 4 == 0 && data.len() >= 3 {
            nanos = data.first_chunk::<3>().map_or(0, |[a, b, c]| u32::from_be_bytes([0, *a, *b, *c]));
        }
        *packet = kinds & 0xf;
        *rest = rest.slice(head + size + 1..);
    }
    Some(nanos.min(999_999))
}

/// Takes apart a multitrack message: for each track its number, its FourCC and its body. The packet type that all have in
/// common is put into `packet`.
fn tracks(packet: &mut u8, mut rest: Bytes) -> Option<Vec<(u8, [u8; 4], Bytes)>> {
    let &head = rest.first()?;
    *packet = head & 0xf;
    rest = rest.slice(1..);
    let (one, each_codec) = match head >> 4 {
        0 => (true, false),
        1 => (false, false),
        2 => (false, true),
        _ => return None,
    };
    let take_fourcc = |rest: &mut Bytes| {
        let fourcc = *rest.get(..4)?.first_chunk::<4>()?;
        *rest = rest.slice(4..);
        Some(fourcc)
    };
    let common = if each_codec { None } else { Some(take_fourcc(&mut rest)?) };
    let mut out = Vec::new();
    while !rest.is_empty() {
        let fourcc = match common {
            Some(fourcc) => fourcc,
            None => take_fourcc(&mut rest)?,
        };
        let &id = rest.first()?;
        rest = rest.slice(1..);
        let body = if one {
            std::mem::take(&mut rest)
        } else {
            let [a, b, c] = *rest.get(..3)?.first_chunk::<3>()?;
            let size = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
            let end = size.checked_add(3).filter(|end| *end <= rest.len())?;
            let body = rest.slice(3..end);
            rest = rest.slice(end..);
            body
        };
        out.push((id, fourcc, body));
    }
    Some(out)
}

impl VideoTag {
    /// Reads the payload of a video message. `None` if it is cut short.
    pub fn parse(payload: &Bytes) -> Option<VideoTag> {
        let (&first, rest) = payload.split_first()?;
        let frame_type = first >> 4 & 7;
        if first & 0x80 != 0 {
            return VideoTag::parse_enhanced(payload.slice(1..), first & 0xf, frame_type);
        }
        if frame_type == COMMAND {
            return Some(VideoTag::Nothing);
        }
        let codec = match first & 0xf {
            7 => Codec::H264,
            // Never in a standard, but what many encoders sent before there was one; laid out like H.264.
            12 => Codec::H265,
            other => {
                let name = match other {
                    1 => "JPEG",
                    2 => "Sorenson H.263",
                    3 | 6 => "Screen Video",
                    4 | 5 => "VP6",
                    8 => "H.263",
                    9 => "MPEG-4 Part 2",
                    13 => "AV1 in the unofficial form (codec id 13)",
                    n => return Some(VideoTag::Unsupported(format!("video codec id {n}"))),
                };
                return Some(VideoTag::Unsupported(name.to_owned()));
            }
        };
        let (&[packet, c0, c1, c2], _) = rest.split_first_chunk::<4>()?;
        let data = payload.slice(5..);
        Some(match packet {
            0 => VideoTag::Config { codec, record: data },
            1 => {
                let composition = signed24(&[c0, c1, c2]);
                VideoTag::Frame { codec, key: matches!(frame_type, 1 | 4), composition, data }
            }
            2 => VideoTag::Nothing,
            n => VideoTag::Unsupported(format!("{} packet type {n}", codec.name())),
        })
    }

    fn parse_enhanced(mut rest: Bytes, mut packet: u8, frame_type: u8) -> Option<VideoTag> {
        let nanos = modifiers(&mut packet, &mut rest)?;
        if frame_type == COMMAND && packet != METADATA {
            return Some(VideoTag::Nothing);
        }
        let tag = if packet == VIDEO_MULTITRACK {
            let mut inner = 0;
            let all = tracks(&mut inner, rest)?;
            if inner == VIDEO_MULTITRACK || inner == MOD_EX {
                return None;
            }
            let each = all
                .into_iter()
                .map(|(id, fourcc, body)| Some((id, VideoTag::body(&fourcc, inner, frame_type, body)?)));
            VideoTag::Tracks(each.collect::<Option<_>>()?)
        } else {
            let fourcc = *rest.get(..4)?.first_chunk::<4>()?;
            VideoTag::body(&fourcc, packet, frame_type, rest.slice(4..))?
        };
        Some(if nanos > 0 { VideoTag::Offset { nanos, tag: Box::new(tag) } } else { tag })
    }

    fn body(fourcc: &[u8; 4], packet: u8, frame_type: u8, body: Bytes) -> Option<VideoTag> {
        let Some(codec) = codec_of(fourcc).filter(|c| c.is_video()) else {
            return Some(VideoTag::Unsupported(fourcc_name(fourcc)));
        };
        let key = matches!(frame_type, 1 | 4);
        Some(match packet {
            SEQUENCE_START => VideoTag::Config { codec, record: body },
            CODED_FRAMES if matches!(codec, Codec::H264 | Codec::H265) => {
                let composition = signed24(body.get(..3)?.first_chunk::<3>()?);
                VideoTag::Frame { codec, key, composition, data: body.slice(3..) }
            }
            CODED_FRAMES | CODED_FRAMES_X => VideoTag::Frame { codec, key, composition: 0, data: body },
            // End of sequence, metadata, an AV1 header for MPEG-2 TS (which says nothing that the frames do not).
            2 | METADATA | 5 => VideoTag::Nothing,
            n => VideoTag::Unsupported(format!("{} packet type {n}", codec.name())),
        })
    }

    /// Writes the payload: H.264 in the classic form, which every player knows, others with their FourCC. `None` for what
    /// has no such form.
    pub fn emit(&self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        match self {
            VideoTag::Config { codec: Codec::H264, record } => {
                out.reserve(record.len() + 5);
                out.put_slice(&[0x17, 0, 0, 0, 0]);
                out.put_slice(record);
            }
            VideoTag::Frame { codec: Codec::H264, key, composition, data } => {
                out.reserve(data.len() + 5);
                out.put_slice(&[if *key { 0x17 } else { 0x27 }, 1]);
                put_composition(&mut out, *composition);
                out.put_slice(data);
            }
            VideoTag::Config { codec, record } => {
                out.reserve(record.len() + 5);
                out.put_u8(0x90 | SEQUENCE_START);
                out.put_slice(fourcc(*codec).filter(|_| codec.is_video())?);
                out.put_slice(record);
            }
            VideoTag::Frame { codec, key, composition, data } => {
                out.reserve(data.len() + 8);
                let timed = *codec == Codec::H265 && *composition != 0;
                let packet = match codec {
                    Codec::H265 if !timed => CODED_FRAMES_X,
                    _ => CODED_FRAMES,
                };
                out.put_u8(if *key { 0x90 } else { 0xa0 } | packet);
                out.put_slice(fourcc(*codec).filter(|_| codec.is_video())?);
                if timed {
                    put_composition(&mut out, *composition);
                }
                out.put_slice(data);
            }
            VideoTag::Tracks(_) | VideoTag::Offset { .. } | VideoTag::Nothing | VideoTag::Unsupported(_) => {
                return None;
            }
        }
        Some(out.freeze())
    }
}

/// The head of a message with one track (Enhanced RTMP v2, `AvMultitrackType.OneTrack`).
fn one_track(first: u8, packet: u8, fourcc: &[u8; 4], number: u8, len: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(len + 10);
    out.put_slice(&[first, packet]);
    out.put_slice(fourcc);
    out.put_u8(number);
    out
}

impl VideoTag {
    /// Writes the payload as the one track of a multitrack message. `None` for what has no such form.
    pub fn emit_track(&self, number: u8) -> Option<Bytes> {
        let (codec, frame_type, packet, composition, data) = match self {
            VideoTag::Config { codec, record } => (codec, 1, SEQUENCE_START, None, record),
            VideoTag::Frame { codec, key, composition, data } => {
                let timed = matches!(codec, Codec::H264 | Codec::H265);
                (codec, if *key { 1 } else { 2 }, CODED_FRAMES, timed.then_some(*composition), data)
            }
            _ => return None,
        };
        let fourcc = fourcc(*codec).filter(|_| codec.is_video())?;
        let mut out =
            one_track(0x80 | frame_type << 4 | VIDEO_MULTITRACK, packet, fourcc, number, data.len());
        if let Some(composition) = composition {
            put_composition(&mut out, composition);
        }
        out.put_slice(data);
        Some(out.freeze())
    }
}

impl AudioTag {
    /// As [`VideoTag::emit_track`]. G.711 has no form with a FourCC.
    pub fn emit_track(&self, number: u8) -> Option<Bytes> {
        let (codec, packet, data) = match self {
            AudioTag::Config { codec, record } => (codec, SEQUENCE_START, record),
            AudioTag::Frame { codec, data, .. } => (codec, CODED_FRAMES, data),
            _ => return None,
        };
        let fourcc = fourcc(*codec).filter(|_| !codec.is_video())?;
        let mut out = one_track(0x90 | AUDIO_MULTITRACK, packet, fourcc, number, data.len());
        out.put_slice(data);
        Some(out.freeze())
    }
}

fn put_composition(out: &mut BytesMut, composition: i32) {
    let composition = composition.clamp(-0x80_0000, 0x7f_ffff);
    out.put_uint(u64::from(composition as u32 & 0xff_ffff), 3);
}

impl AudioTag {
    /// Reads the payload of an audio message. `None` if it is cut short.
    pub fn parse(payload: &Bytes) -> Option<AudioTag> {
        let (&first, rest) = payload.split_first()?;
        let channels = 1 + (first & 1);
        let classic = |codec| Some(AudioTag::Frame { codec, channels, data: payload.slice(1..) });
        match first >> 4 {
            9 => AudioTag::parse_enhanced(payload.slice(1..), first & 0xf),
            10 => {
                let packet = *rest.first()?;
                let (codec, data) = (Codec::Aac, payload.slice(2..));
                Some(match packet {
                    0 => AudioTag::Config { codec, record: data },
                    1 => AudioTag::Frame { codec, channels: 2, data },
                    n => AudioTag::Unsupported(format!("AAC packet type {n}")),
                })
            }
            2 | 14 => classic(Codec::Mp3),
            7 => classic(Codec::Pcma),
            8 => classic(Codec::Pcmu),
            format => Some(AudioTag::Unsupported(
                match format {
                    0 | 3 => "PCM",
                    1 => "ADPCM",
                    4..=6 => "Nellymoser",
                    11 => "Speex",
                    13 => "Opus in the unofficial form (sound format 13)",
                    n => return Some(AudioTag::Unsupported(format!("sound format {n}"))),
                }
                .to_owned(),
            )),
        }
    }

    fn parse_enhanced(mut rest: Bytes, mut packet: u8) -> Option<AudioTag> {
        let nanos = modifiers(&mut packet, &mut rest)?;
        let tag = if packet == AUDIO_MULTITRACK {
            let mut inner = 0;
            let all = tracks(&mut inner, rest)?;
            if inner == AUDIO_MULTITRACK || inner == MOD_EX {
                return None;
            }
            let each = all.into_iter().map(|(id, fourcc, body)| (id, AudioTag::body(&fourcc, inner, body)));
            AudioTag::Tracks(each.collect())
        } else {
            let fourcc = *rest.get(..4)?.first_chunk::<4>()?;
            AudioTag::body(&fourcc, packet, rest.slice(4..))
        };
        Some(if nanos > 0 { AudioTag::Offset { nanos, tag: Box::new(tag) } } else { tag })
    }

    fn body(fourcc: &[u8; 4], packet: u8, data: Bytes) -> AudioTag {
        let Some(codec) = codec_of(fourcc).filter(|c| !c.is_video()) else {
            return AudioTag::Unsupported(fourcc_name(fourcc));
        };
        match packet {
            SEQUENCE_START => AudioTag::Config { codec, record: data },
            CODED_FRAMES => AudioTag::Frame { codec, channels: 2, data },
            // End of sequence, channel layout.
            _ => AudioTag::Nothing,
        }
    }

    /// Writes the payload: AAC, MP3 and G.711 in the classic form, Opus with its FourCC. `None` for what has no form.
    pub fn emit(&self) -> Option<Bytes> {
        let opus = |packet: u8| [0x90 | packet, b'O', b'p', b'u', b's'];
        let stereo = |channels: u8| u8::from(channels > 1);
        let (head, data): (&[u8], &Bytes) = match self {
            AudioTag::Config { codec: Codec::Aac, record } => (&[0xaf, 0], record),
            AudioTag::Config { codec: Codec::Opus, record } => (&opus(SEQUENCE_START), record),
            AudioTag::Frame { codec, channels, data } => match codec {
                Codec::Aac => (&[0xaf, 1], data),
                Codec::Opus => (&opus(CODED_FRAMES), data),
                // The rate that the tag names (44.1 kHz) is not looked at: an MP3 frame says its own.
                Codec::Mp3 => (&[0x2e | stereo(*channels)], data),
                Codec::Pcma => (&[0x72 | stereo(*channels)], data),
                Codec::Pcmu => (&[0x82 | stereo(*channels)], data),
                _ => return None,
            },
            _ => return None,
        };
        let mut out = BytesMut::with_capacity(head.len() + data.len());
        out.put_slice(head);
        out.put_slice(data);
        Some(out.freeze())
    }
}

/// An Opus identification header for mono or stereo (RFC 7845, 5.1).
pub fn opus_head(channels: u8) -> Bytes {
    let mut out = BytesMut::with_capacity(19);
    out.put_slice(b"OpusHead");
    out.put_slice(&[1, channels]);
    // 80 ms of pre-skip is what the RFC recommends for a stream that is joined somewhere; players of live streams
    // ignore it, and libopus itself needs 312 samples.
    out.put_u16_le(312);
    out.put_u32_le(48_000);
    out.put_u16_le(0);
    out.put_u8(0);
    out.freeze()
}

/// The channel count of an Opus identification header. `None` if it is none.
pub fn opus_head_channels(head: &[u8]) -> Option<u8> {
    let rest = head.strip_prefix(b"OpusHead")?;
    rest.get(1).copied().filter(|n| *n > 0)
}

#[cfg(test)]
#[path = "flv_tests.rs"]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
