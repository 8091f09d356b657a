//! Sound bridges: AAC, MP3 and G.711 into Opus for WebRTC, Opus into AAC for players that know nothing else, anything into
//! G.711 for phones.
//!
//! A [`Workshop`] does the work that a node asks for ([`proto_core::bridge`]): the runtime runs it on threads of its
//! own, the simulator within its one thread. It is a function of what it is given: no clock, no randomness.
//!
//! What a bridge promises (each is tested beside it): times come from the source's, with all codec delays taken back,
//! so that a click in comes out within a few milliseconds; gaps, jumps and drift of the source are followed; what
//! cannot be decoded is silence of the same length; a packet that makes a codec panic ends its bridge and no other.
#![forbid(unsafe_code)]

mod bridge;
mod decode;
mod encode;
mod line;
mod mix;
#[cfg(test)]
mod tests;

pub use bridge::Bridge;

/// Bridges of sound.
pub type Workshop = proto_core::bridge::Workshop<Bridge>;
