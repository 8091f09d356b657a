//! Real processes and real clients: nodes of a cluster, ffmpeg, browsers.

pub mod aiortc;
pub mod browser;
pub mod camera;
pub mod certificate;
pub mod cluster;
pub mod doorman;
pub mod ffmpeg;
pub mod firefox;
pub mod gstreamer;
pub mod http;
pub mod log;
pub mod matrix;
pub mod wait;
