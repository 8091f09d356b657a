//! The one media model: every protocol turns what it receives into [`frame::NewFrame`]s and renders
//! [`frame::Frame`]s into what it sends. No protocol talks to another protocol.

pub mod av1;
pub mod decode_order;
pub mod frame;
pub mod h264;
pub mod h265;
pub mod key;
pub mod pattern;
pub mod payload;
pub mod picture_order;
pub mod reception;
pub mod reorder;
pub mod rtp_clock;
pub mod track;
