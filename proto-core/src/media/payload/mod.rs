//! RTP payload formats: frames cut into payloads, and payloads put together into frames.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod h264;
pub mod h264_depay;
