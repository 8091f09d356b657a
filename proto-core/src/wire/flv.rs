//! FLV tag bodies (Adobe "Video File Format Specification 10", annex E) with the FourCC codecs of Enhanced RTMP v1
//! and v2 (Veovera): the payloads of RTMP audio and video messages.

use bytes::{BufMut, Bytes, BytesMut};

/// What a video message carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VideoTag {
    /// An `AVCDecoderConfigurationRecord`.
    AvcConfig(Bytes),
    /// H.264 NAL units with the length fields that the configuration says.
    AvcFrame {
        /// The tag calls it a key frame.
        key: bool,
        /// Presentation time minus decoding time, milliseconds.
        composition: i32,
        /// The NAL units.
        data: Bytes,
    },
    /// Nothing to show: end of sequence, command frame, colour metadata.
    Nothing,
    /// A codec or packet form that we do not take, by name.
    Unsupported(String),
}

/// What an audio message carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AudioTag {
    /// An AudioSpecificConfig.
    AacConfig(Bytes),
    /// One raw AAC access unit.
    AacFrame(Bytes),
    /// An Opus identification header (RFC 7845, 5.1); may be empty.
    OpusConfig(Bytes),
    /// One Opus packet.
    OpusFrame(Bytes),
    /// Nothing to play: end of sequence, channel layout.
    Nothing,
    /// A codec or packet form that we do not take, by name.
    Unsupported(String),
}

const AVC1: &[u8; 4] = b"avc1";
const OPUS: &[u8; 4] = b"Opus";
const MP4A: &[u8; 4] = b"mp4a";

const SEQUENCE_START: u8 = 0;
const CODED_FRAMES: u8 = 1;
const SEQUENCE_END: u8 = 2;
const CODED_FRAMES_X: u8 = 3;

fn signed24(bytes: &[u8; 3]) -> i32 {
    let [a, b, c] = *bytes;
    i32::from_be_bytes([a, b, c, 0]) >> 8
}

fn fourcc_name(fourcc: &[u8; 4]) -> String {
    let known = match fourcc {
        b"hvc1" => "HEVC",
        b"av01" => "AV1",
        b"vp08" => "VP8",
        b"vp09" => "VP9",
        b"vvc1" => "VVC",
        b"ac-3" => "AC-3",
        b"ec-3" => "E-AC-3",
        b".mp3" => "MP3",
        b"fLaC" => "FLAC",
        _ => return format!("FourCC {}", crate::error::quote(&String::from_utf8_lossy(fourcc))),
    };
    known.to_owned()
}

impl VideoTag {
    /// Reads the payload of a video message. `None` if it is cut short.
    pub fn parse(payload: &Bytes) -> Option<VideoTag> {
        let (&first, rest) = payload.split_first()?;
        let frame_type = first >> 4 & 7;
        if first & 0x80 != 0 {
            return VideoTag::parse_enhanced(payload, first & 0xf, frame_type);
        }
        if frame_type == 5 {
            return Some(VideoTag::Nothing);
        }
        match first & 0xf {
            7 => {
                let (&[packet, c0, c1, c2], _) = rest.split_first_chunk::<4>()?;
                let data = payload.slice(5..);
                Some(match packet {
                    0 => VideoTag::AvcConfig(data),
                    1 => VideoTag::AvcFrame {
                        key: matches!(frame_type, 1 | 4),
                        composition: signed24(&[c0, c1, c2]),
                        data,
                    },
                    2 => VideoTag::Nothing,
                    n => VideoTag::Unsupported(format!("H.264 packet type {n}")),
                })
            }
            codec => Some(VideoTag::Unsupported(
                match codec {
                    1 => "JPEG",
                    2 => "Sorenson H.263",
                    3 | 6 => "Screen Video",
                    4 | 5 => "VP6",
                    8 => "H.263",
                    9 => "MPEG-4 Part 2",
                    12 => "HEVC in the unofficial form (codec id 12)",
                    13 => "AV1 in the unofficial form (codec id 13)",
                    n => return Some(VideoTag::Unsupported(format!("video codec id {n}"))),
                }
                .to_owned(),
            )),
        }
    }

    fn parse_enhanced(payload: &Bytes, packet: u8, frame_type: u8) -> Option<VideoTag> {
        let fourcc = payload.get(1..5)?.first_chunk::<4>()?;
        if packet > 5 {
            return Some(VideoTag::Unsupported("Enhanced RTMP multitrack or ModEx video".to_owned()));
        }
        if fourcc != AVC1 {
            return Some(VideoTag::Unsupported(fourcc_name(fourcc)));
        }
        if frame_type == 5 {
            return Some(VideoTag::Nothing);
        }
        let key = matches!(frame_type, 1 | 4);
        Some(match packet {
            SEQUENCE_START => VideoTag::AvcConfig(payload.slice(5..)),
            CODED_FRAMES => {
                let composition = signed24(payload.get(5..8)?.first_chunk::<3>()?);
                VideoTag::AvcFrame { key, composition, data: payload.slice(8..) }
            }
            CODED_FRAMES_X => VideoTag::AvcFrame { key, composition: 0, data: payload.slice(5..) },
            _ => VideoTag::Nothing,
        })
    }

    /// Writes the payload in the classic form, which every player knows. `None` for what has no such form.
    pub fn emit(&self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        match self {
            VideoTag::AvcConfig(record) => {
                out.reserve(record.len() + 5);
                out.put_slice(&[0x17, 0, 0, 0, 0]);
                out.put_slice(record);
            }
            VideoTag::AvcFrame { key, composition, data } => {
                out.reserve(data.len() + 5);
                out.put_slice(&[if *key { 0x17 } else { 0x27 }, 1]);
                let composition = (*composition).clamp(-0x80_0000, 0x7f_ffff);
                out.put_uint(u64::from(composition as u32 & 0xff_ffff), 3);
                out.put_slice(data);
            }
            VideoTag::Nothing | VideoTag::Unsupported(_) => return None,
        }
        Some(out.freeze())
    }
}

impl AudioTag {
    /// Reads the payload of an audio message. `None` if it is cut short.
    pub fn parse(payload: &Bytes) -> Option<AudioTag> {
        let (&first, rest) = payload.split_first()?;
        match first >> 4 {
            9 => AudioTag::parse_enhanced(payload, first & 0xf),
            10 => {
                let packet = *rest.first()?;
                let data = payload.slice(2..);
                Some(match packet {
                    0 => AudioTag::AacConfig(data),
                    1 => AudioTag::AacFrame(data),
                    n => AudioTag::Unsupported(format!("AAC packet type {n}")),
                })
            }
            format => Some(AudioTag::Unsupported(
                match format {
                    0 | 3 => "PCM",
                    1 => "ADPCM",
                    2 | 14 => "MP3",
                    4..=6 => "Nellymoser",
                    7 => "G.711 A-law",
                    8 => "G.711 µ-law",
                    11 => "Speex",
                    13 => "Opus in the unofficial form (sound format 13)",
                    n => return Some(AudioTag::Unsupported(format!("sound format {n}"))),
                }
                .to_owned(),
            )),
        }
    }

    fn parse_enhanced(payload: &Bytes, packet: u8) -> Option<AudioTag> {
        let fourcc = payload.get(1..5)?.first_chunk::<4>()?;
        let data = payload.slice(5..);
        if packet == 5 || packet == 7 {
            return Some(AudioTag::Unsupported("Enhanced RTMP multitrack or ModEx audio".to_owned()));
        }
        Some(match (fourcc, packet) {
            (OPUS, SEQUENCE_START) => AudioTag::OpusConfig(data),
            (OPUS, CODED_FRAMES) => AudioTag::OpusFrame(data),
            (MP4A, SEQUENCE_START) => AudioTag::AacConfig(data),
            (MP4A, CODED_FRAMES) => AudioTag::AacFrame(data),
            (OPUS | MP4A, _) => AudioTag::Nothing,
            (other, _) => AudioTag::Unsupported(fourcc_name(other)),
        })
    }

    /// Writes the payload: AAC in the classic form, Opus with its FourCC. `None` for what has no form.
    pub fn emit(&self) -> Option<Bytes> {
        let (head, data): (&[u8], &Bytes) = match self {
            AudioTag::AacConfig(d) => (&[0xaf, 0], d),
            AudioTag::AacFrame(d) => (&[0xaf, 1], d),
            AudioTag::OpusConfig(d) => (&[0x90 | SEQUENCE_START, b'O', b'p', b'u', b's'], d),
            AudioTag::OpusFrame(d) => (&[0x90 | CODED_FRAMES, b'O', b'p', b'u', b's'], d),
            AudioTag::Nothing | AudioTag::Unsupported(_) => return None,
        };
        let mut out = BytesMut::with_capacity(head.len() + data.len());
        out.put_slice(head);
        out.put_slice(data);
        Some(out.freeze())
    }

    /// The message that ends a sequence, in the classic form there is none; with a FourCC it is this.
    pub fn opus_end() -> Bytes {
        Bytes::from_static(&[0x90 | SEQUENCE_END, b'O', b'p', b'u', b's'])
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
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn video_round_trips(key: bool, composition in -0x80_0000i32..0x80_0000, data: Vec<u8>) {
            let tag = VideoTag::AvcFrame { key, composition, data: data.clone().into() };
            prop_assert_eq!(VideoTag::parse(&tag.emit().unwrap()), Some(tag));
            let tag = VideoTag::AvcConfig(data.into());
            prop_assert_eq!(VideoTag::parse(&tag.emit().unwrap()), Some(tag));
        }

        #[test]
        fn audio_round_trips(data: Vec<u8>, which in 0..4) {
            let data = Bytes::from(data);
            let tag = match which {
                0 => AudioTag::AacConfig(data),
                1 => AudioTag::AacFrame(data),
                2 => AudioTag::OpusConfig(data),
                _ => AudioTag::OpusFrame(data),
            };
            prop_assert_eq!(AudioTag::parse(&tag.emit().unwrap()), Some(tag));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..16)) {
            let bytes = Bytes::from(bytes);
            let _ = (VideoTag::parse(&bytes), AudioTag::parse(&bytes), opus_head_channels(&bytes));
        }
    }

    #[test]
    fn enhanced_avc_is_read_in_all_its_forms() {
        let parse = |b: &'static [u8]| VideoTag::parse(&Bytes::from_static(b));
        assert_eq!(parse(b"\x90avc1rec"), Some(VideoTag::AvcConfig(Bytes::from_static(b"rec"))));
        let frame = |key, composition| {
            Some(VideoTag::AvcFrame { key, composition, data: Bytes::from_static(b"nal") })
        };
        assert_eq!(parse(b"\xa1avc1\xff\xff\xffnal"), frame(false, -1));
        assert_eq!(parse(b"\x93avc1nal"), frame(true, 0));
        assert_eq!(parse(b"\x92avc1"), Some(VideoTag::Nothing));
        assert_eq!(parse(b"\x91avc1\0\0"), None);
    }

    #[test]
    fn other_codecs_are_named() {
        let video = |b: &'static [u8]| VideoTag::parse(&Bytes::from_static(b));
        let audio = |b: &'static [u8]| AudioTag::parse(&Bytes::from_static(b));
        assert_eq!(video(&[0x22, 0]), Some(VideoTag::Unsupported("Sorenson H.263".into())));
        assert_eq!(video(b"\x90hvc1"), Some(VideoTag::Unsupported("HEVC".into())));
        assert_eq!(audio(&[0x2f, 0]), Some(AudioTag::Unsupported("MP3".into())));
        assert_eq!(audio(b"\x90fLaC"), Some(AudioTag::Unsupported("FLAC".into())));
        assert_eq!(audio(b"\x90Opus"), Some(AudioTag::OpusConfig(Bytes::new())));
        assert_eq!(video(&[0x57, 0]), Some(VideoTag::Nothing));
    }

    #[test]
    fn opus_heads_say_their_channels() {
        assert_eq!(opus_head_channels(&opus_head(2)), Some(2));
        assert_eq!(opus_head(1).len(), 19);
        assert_eq!(opus_head_channels(b"OpusHead\x01"), None);
    }
}
