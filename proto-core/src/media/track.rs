//! Tracks: one encoding each, with a versioned codec configuration.

use bytes::Bytes;

/// A codec that a track can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// ITU-T H.264; frames are length-prefixed (4 bytes, big endian) NAL units without parameter sets and AUDs.
    H264,
    /// RFC 6716; a frame is one Opus packet.
    Opus,
    /// ISO 14496-3 AAC; a frame is one raw access unit (no ADTS).
    Aac,
}

impl Codec {
    /// Whether this is a codec of pictures.
    pub const fn is_video(self) -> bool {
        matches!(self, Codec::H264)
    }

    /// The name that people know it by.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::H264 => "H.264",
            Codec::Opus => "Opus",
            Codec::Aac => "AAC",
        }
    }
}

/// A track's number within its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackId(pub u8);

impl TrackId {
    /// The track that carries pictures, until streams have several.
    pub const VIDEO: TrackId = TrackId(0);
    /// The track that carries sound, until streams have several.
    pub const AUDIO: TrackId = TrackId(1);
    /// The track that carries data messages (kind `Data`); it has no codec configuration.
    pub const DATA: TrackId = TrackId(2);

    /// The track that a bridge makes out of this one. Ids from 128 on are this node's own; no publisher has them.
    pub const fn derived(self, to: Codec) -> TrackId {
        let kind = match to {
            Codec::Aac => 0x40,
            _ => 0,
        };
        TrackId(0x80 | kind | (self.0 & 0x3f))
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
}

impl CodecParams {
    /// The codec that these parameters are for.
    pub const fn codec(&self) -> Codec {
        match self {
            CodecParams::H264 { .. } => Codec::H264,
            CodecParams::Opus { .. } => Codec::Opus,
            CodecParams::Aac { .. } => Codec::Aac,
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
