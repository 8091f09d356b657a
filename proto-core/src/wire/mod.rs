//! Codecs without state: what stands on the wire, parsed and emitted. Nothing here panics on any input.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod h264;
pub mod opus;
pub mod rtp;
pub mod stun;
