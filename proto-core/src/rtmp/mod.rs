//! RTMP: the server and client machines (Adobe RTMP 1.0 with what encoders and players really send).
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod client;
mod command;
pub(crate) mod egress;
pub mod flv;
pub mod handshake;
mod ingest;
mod negotiation;
pub mod server;

/// The chunk size that we send with. One for all connections, so that a rendered message fits every player; large,
/// so that fan-out costs few headers (every peer takes any size up to 65,536).
pub const OUR_CHUNK_SIZE: u32 = 60_000;

/// The window that we announce: a peer acknowledges at least this often.
pub const OUR_WINDOW: u32 = 2_500_000;

/// Chunk streams that we send on. Two are protocol (2 for control) or custom (3 for commands).
pub(crate) mod csid {
    /// Protocol control and user control (5.3.1.1 reserves it).
    pub(crate) const CONTROL: u32 = 2;
    /// Commands of the connection.
    pub(crate) const COMMAND: u32 = 3;
    /// Sound.
    pub(crate) const AUDIO: u32 = 4;
    /// Commands and data of a stream.
    pub(crate) const STREAM: u32 = 5;
    /// Pictures.
    pub(crate) const VIDEO: u32 = 6;
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
