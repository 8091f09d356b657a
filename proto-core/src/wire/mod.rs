//! Codecs without state: what stands on the wire, parsed and emitted. Nothing here panics on any input.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod aac;
pub mod amf0;
pub mod amf3;
pub mod av1;
pub mod bits;
pub mod flv;
pub mod h264;
pub mod h264_slice;
pub mod h264_sps;
pub mod h265;
pub mod latm;
pub mod link;
pub mod mp3;
pub mod opus;
pub mod rtcp;
pub mod rtcp_feedback;
pub mod rtcp_reports;
pub mod rtmp_chunk;
pub mod rtmp_message;
pub mod rtp;
pub mod rtsp;
pub mod sdp;
pub mod stun;
pub mod twcc;
pub mod vp8;
pub mod vp9;
pub mod websocket;
