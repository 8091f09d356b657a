//! Frames: one coded picture, audio packet or data message each.

use super::track::{CodecParams, TrackId};
use bytes::Bytes;
use std::sync::OnceLock;

/// What a frame is, as far as decoding order matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKind {
    /// A picture that a decoder can start at (H.264: an IDR access unit).
    Key,
    /// A picture that refers to others.
    Delta,
    /// An audio packet.
    Audio,
    /// A data message (AMF data, `send`, timed metadata).
    Data,
}

/// How the camera was held: clockwise degrees that a player must turn the picture by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rotation {
    /// Upright.
    #[default]
    R0,
    /// 90 degrees.
    R90,
    /// 180 degrees.
    R180,
    /// 270 degrees.
    R270,
}

/// A frame as a publisher's session hands it to the hub, before it has a place in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFrame {
    /// The track it belongs to.
    pub track: TrackId,
    /// Decoding time, nanoseconds on the publisher's clock (any start).
    pub dts: i64,
    /// Presentation time, nanoseconds on the same clock.
    pub pts: i64,
    /// What it is.
    pub kind: FrameKind,
    /// No other frame refers to it (H.264: `nal_ref_idc` 0), so that it can be left out without damage.
    pub discardable: bool,
    /// Temporal layer, 0 where there are none.
    pub temporal_layer: u8,
    /// How the picture must be turned.
    pub rotation: Rotation,
    /// Wall time of capture, nanoseconds since the Unix epoch, where the publisher told it.
    pub capture: Option<u64>,
    /// The coded bytes, in the form that [`super::track::Codec`] says.
    pub payload: Bytes,
}

impl NewFrame {
    /// Whether it is a picture.
    pub fn is_video(&self) -> bool {
        matches!(self.kind, FrameKind::Key | FrameKind::Delta)
    }
}

/// What a publisher's session hands to the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ingest {
    /// A track begins, or its codec configuration changed.
    Config {
        /// The track.
        track: TrackId,
        /// Its parameters.
        params: CodecParams,
    },
    /// A frame. A frame of a track without configuration is dropped by the hub and counted.
    Frame(NewFrame),
}

/// RTP payloads of one frame, cut to equal size at our MTU (the last may be shorter), marker on the last.
#[derive(Debug, Default)]
pub struct RtpPayloads(pub Vec<Bytes>);

/// Forms of a frame that protocols send, made lazily, at most once per stream, shared by all subscribers.
#[derive(Debug, Default)]
pub struct Renderings {
    /// RTP payloads.
    pub rtp: OnceLock<RtpPayloads>,
    /// The RTMP message in chunks with the stream's own timestamp, as every player gets it.
    pub rtmp: OnceLock<Bytes>,
    /// The tag of an FLV file with the stream's own timestamp.
    pub flv: OnceLock<Bytes>,
}

impl Renderings {
    /// Whether none has been made.
    pub fn are_none(&self) -> bool {
        self.rtp.get().is_none() && self.rtmp.get().is_none() && self.flv.get().is_none()
    }
}

/// One coded picture, audio packet or data message in its place in a stream. Shared behind `Arc`.
#[derive(Debug)]
pub struct Frame {
    /// Position in the stream and epoch, as the node counts where the publisher is; the same on every node that the
    /// frame comes to. Over all tracks, rising, never reused; where a relay left frames out there are gaps. A frame
    /// that this node derived is never relayed, and carries the number of the frame that it came behind.
    pub seq: u64,
    /// The epoch under which its publisher was accepted.
    pub epoch: crate::ids::Epoch,
    /// The version of the codec configuration that it needs (0 for data).
    pub config_version: u32,
    /// Times, kind and bytes. Times are on the stream's own clock, which goes on when a publisher returns.
    pub media: NewFrame,
    /// Forms for sending.
    pub renderings: Renderings,
}

impl Frame {
    /// Size of the coded bytes.
    pub fn len(&self) -> usize {
        self.media.payload.len()
    }

    /// Whether it carries no bytes.
    pub fn is_empty(&self) -> bool {
        self.media.payload.is_empty()
    }

    /// Whether it is a picture.
    pub fn is_video(&self) -> bool {
        matches!(self.media.kind, FrameKind::Key | FrameKind::Delta)
    }
}
