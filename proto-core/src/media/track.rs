//! Tracks: one encoding each, with a versioned codec configuration.

use crate::wire::vp9::Vp9Format;
use bytes::Bytes;

/// A codec that a track can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// ITU-T H.264; frames are length-prefixed (4 bytes, big endian) NAL units without parameter sets and AUDs.
    H264,
    /// ITU-T H.265; frames as with H.264. A key frame is any picture of random access (IDR, CRA, BLA).
    H265,
    /// RFC 6386; a frame is one VP8 frame.
    Vp8,
    /// VP9; a frame is one frame or superframe, or the frames of all spatial layers one after the other.
    Vp9,
    /// AV1; a frame is one temporal unit of OBUs with size fields, without temporal delimiters and padding. Each key frame
    /// begins with the sequence header in force.
    Av1,
    /// RFC 6716; a frame is one Opus packet.
    Opus,
    /// ISO 14496-3 AAC; a frame is one raw access unit (no ADTS).
    Aac,
    /// MPEG audio, layer 3 (ISO 11172-3, 13818-3); a frame is one whole frame with its header.
    Mp3,
    /// ITU-T G.711, A-law; a frame is at most 1,120 bytes.
    Pcma,
    /// ITU-T G.711, µ-law; a frame is at most 1,120 bytes.
    Pcmu,
}

impl Codec {
    /// All of them.
    pub const ALL: [Codec; 10] = [
        Codec::H264,
        Codec::H265,
        Codec::Vp8,
        Codec::Vp9,
        Codec::Av1,
        Codec::Opus,
        Codec::Aac,
        Codec::Mp3,
        Codec::Pcma,
        Codec::Pcmu,
    ];

    /// Whether this is a codec of pictures.
    pub const fn is_video(self) -> bool {
        matches!(self, Codec::H264 | Codec::H265 | Codec::Vp8 | Codec::Vp9 | Codec::Av1)
    }

    /// The name that people know it by.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::H264 => "H.264",
            Codec::H265 => "H.265",
            Codec::Vp8 => "VP8",
            Codec::Vp9 => "VP9",
            Codec::Av1 => "AV1",
            Codec::Opus => "Opus",
            Codec::Aac => "AAC",
            Codec::Mp3 => "MP3",
            Codec::Pcma => "G.711 A-law",
            Codec::Pcmu => "G.711 µ-law",
        }
    }

    /// How a publisher gets to a codec that more players take: words for the end of a refusal.
    pub const fn remedy(self) -> &'static str {
        if self.is_video() {
            "publish H.264 (in ffmpeg: -c:v libx264 -bf 0)"
        } else {
            "publish Opus for browsers (in ffmpeg: -c:a libopus) or AAC for RTMP players (-c:a aac)"
        }
    }
}

/// The kinds of track that someone takes. To a subscriber of the hub frames of others are not given, and counted as
/// `not_wanted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CodecSet(u16);

impl CodecSet {
    /// No codec. Of pictures of those that are added, any order is taken.
    pub const NONE: CodecSet = CodecSet(Self::REORDERED);
    /// Every codec, data, and pictures in any order.
    pub const ALL: CodecSet = CodecSet(u16::MAX);
    const DATA: u16 = 0x8000;
    const REORDERED: u16 = 0x4000;

    const fn bit(codec: Codec) -> u16 {
        1 << codec as u16
    }

    /// These, and a codec.
    #[must_use]
    pub const fn with(self, codec: Codec) -> CodecSet {
        CodecSet(self.0 | Self::bit(codec))
    }

    /// These, and data messages.
    #[must_use]
    pub const fn with_data(self) -> CodecSet {
        CodecSet(self.0 | Self::DATA)
    }

    /// These, without pictures that are shown in another order than they are coded in: none comes that is late (see
    /// [`super::picture_order`]). Only WebRTC is so; who says nothing of it gets all.
    #[must_use]
    pub const fn in_order(self) -> CodecSet {
        CodecSet(self.0 & !Self::REORDERED)
    }

    /// These, without a codec.
    #[must_use]
    pub const fn without(self, codec: Codec) -> CodecSet {
        CodecSet(self.0 & !Self::bit(codec))
    }

    /// Whether a codec is among them.
    pub const fn has(self, codec: Codec) -> bool {
        self.0 & Self::bit(codec) != 0
    }

    /// Whether pictures may come in another order than they are shown in.
    pub const fn has_reordered(self) -> bool {
        self.0 & Self::REORDERED != 0
    }

    /// Whether data messages are among them.
    pub const fn has_data(self) -> bool {
        self.0 & Self::DATA != 0
    }
}

/// A track's number within its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackId(pub u8);

impl TrackId {
    /// The track that carries pictures; of several, the first.
    pub const VIDEO: TrackId = TrackId(0);
    /// The track that carries sound; of several, the first, which players get that take one.
    pub const AUDIO: TrackId = TrackId(1);
    /// The track that carries data messages (kind `Data`); it has no codec configuration.
    pub const DATA: TrackId = TrackId(2);
    /// Tracks of pictures that a publisher can have, and of sound: their ids stay below 32, so that [`TrackId::derived`]
    /// tells them apart.
    pub const MOST: u8 = 15;

    /// The `nth` track of pictures of a publisher, from 0. `None` past [`TrackId::MOST`].
    pub const fn video(nth: u8) -> Option<TrackId> {
        match nth {
            0 => Some(TrackId::VIDEO),
            nth if nth < TrackId::MOST => Some(TrackId(1 + 2 * nth)),
            _ => None,
        }
    }

    /// The `nth` track of sound of a publisher, from 0. `None` past [`TrackId::MOST`].
    pub const fn audio(nth: u8) -> Option<TrackId> {
        match nth {
            0 => Some(TrackId::AUDIO),
            nth if nth < TrackId::MOST => Some(TrackId(2 + 2 * nth)),
            _ => None,
        }
    }

    /// Which of its kind a publisher's track is: the inverse of [`TrackId::video`] and [`TrackId::audio`]. Data and what
    /// bridges make count as the first.
    pub const fn nth(self) -> u8 {
        if self.0 < 3 || self.0 >= 0x80 { 0 } else { (self.0 - 1) / 2 }
    }

    /// The track that a bridge makes out of this one. Ids from 128 on are this node's own; no publisher has them.
    pub const fn derived(self, to: Codec) -> TrackId {
        let kind = match to {
            Codec::Aac => 0x20,
            Codec::Pcmu => 0x40,
            Codec::Pcma => 0x60,
            _ => 0,
        };
        TrackId(0x80 | kind | (self.0 & 0x1f))
    }
}

/// Where a track came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The publisher sent it.
    Ingest,
    /// This node made it out of another track (an audio bridge).
    Derived {
        /// The track that it was made from.
        from: TrackId,
    },
}

/// What a decoder must know before the first frame. Track state, not a ring entry; a new version replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodecParams {
    /// Sequence and picture parameter sets as bare NAL units (no length, no start code).
    H264 {
        /// Sequence parameter sets, each with its NAL header.
        sps: Vec<Bytes>,
        /// Picture parameter sets, each with its NAL header.
        pps: Vec<Bytes>,
        /// Width and height in pixels after cropping, where the SPS could be read.
        size: Option<(u32, u32)>,
        /// The stream has (or announces) pictures that are shown out of coding order.
        reorders: bool,
    },
    /// H.265.
    H265 {
        /// Video parameter sets, each with its NAL header.
        vps: Vec<Bytes>,
        /// Sequence parameter sets.
        sps: Vec<Bytes>,
        /// Picture parameter sets.
        pps: Vec<Bytes>,
        /// Width and height in pixels after cropping, where the SPS could be read.
        size: Option<(u32, u32)>,
        /// The stream announces pictures that are shown out of coding order.
        reorders: bool,
    },
    /// VP8.
    Vp8 {
        /// Width and height in pixels.
        size: Option<(u32, u32)>,
    },
    /// VP9.
    Vp9 {
        /// Profile, depth and colour.
        format: Vp9Format,
        /// Width and height in pixels.
        size: Option<(u32, u32)>,
    },
    /// AV1.
    Av1 {
        /// The sequence header: a whole OBU with its size field.
        sequence_header: Bytes,
        /// The largest width and height in pixels.
        size: Option<(u32, u32)>,
    },
    /// Opus: always 48 kHz on the clock.
    Opus {
        /// 1 or 2.
        channels: u8,
    },
    /// AAC.
    Aac {
        /// The AudioSpecificConfig (ISO 14496-3, 1.6.2.1).
        asc: Bytes,
        /// Samples a second.
        rate: u32,
        /// Channel count; 0 if the configuration does not say.
        channels: u8,
    },
    /// MP3.
    Mp3 {
        /// Samples a second.
        rate: u32,
        /// 1 or 2.
        channels: u8,
    },
    /// G.711, always 8,000 samples a second.
    Pcma {
        /// Samples of all channels in turn.
        channels: u8,
    },
    /// G.711, always 8,000 samples a second.
    Pcmu {
        /// Samples of all channels in turn.
        channels: u8,
    },
}

impl CodecParams {
    /// The codec that these parameters are for.
    pub const fn codec(&self) -> Codec {
        match self {
            CodecParams::H264 { .. } => Codec::H264,
            CodecParams::H265 { .. } => Codec::H265,
            CodecParams::Vp8 { .. } => Codec::Vp8,
            CodecParams::Vp9 { .. } => Codec::Vp9,
            CodecParams::Av1 { .. } => Codec::Av1,
            CodecParams::Opus { .. } => Codec::Opus,
            CodecParams::Aac { .. } => Codec::Aac,
            CodecParams::Mp3 { .. } => Codec::Mp3,
            CodecParams::Pcma { .. } => Codec::Pcma,
            CodecParams::Pcmu { .. } => Codec::Pcmu,
        }
    }

    /// Width and height of pictures, where they are known.
    pub const fn size(&self) -> Option<(u32, u32)> {
        match self {
            CodecParams::H264 { size, .. }
            | CodecParams::H265 { size, .. }
            | CodecParams::Vp8 { size }
            | CodecParams::Vp9 { size, .. }
            | CodecParams::Av1 { size, .. } => *size,
            _ => None,
        }
    }

    /// Samples a second and channels of sound; channels are 0 if nothing says them.
    pub const fn sound(&self) -> Option<(u32, u8)> {
        match self {
            CodecParams::Opus { channels } => Some((48_000, *channels)),
            CodecParams::Aac { rate, channels, .. } | CodecParams::Mp3 { rate, channels } => {
                Some((*rate, *channels))
            }
            CodecParams::Pcma { channels } | CodecParams::Pcmu { channels } => Some((8_000, *channels)),
            _ => None,
        }
    }
}

/// A track's codec configuration in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecConfig {
    /// Counts up with each change within one track and epoch, starting at 1.
    pub version: u32,
    /// The parameters.
    pub params: CodecParams,
    /// Where the track came from.
    pub origin: Origin,
}
