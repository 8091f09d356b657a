//! Picture bridges: H.264 with B-frames that others refer to, and H.265, into H.264 without B-frames, for viewers who cannot be
//! shown those.
//!
//! A [`Workshop`] does the work that a node asks for ([`proto_core::bridge`]): the runtime runs each bridge on a thread of
//! its own, the simulator within its one thread. It is a function of what it is given: no clock, no randomness.
//!
//! What a bridge promises (each is tested): pictures come out in the order in which they are shown, at the times of the
//! source, none of them made of a picture that was damaged or missing; a key frame at each of the source's and when asked
//! for; the bit rate follows the source's; what cannot be converted is refused in words; a stream that makes a codec panic
//! ends its bridge and no other.
#![forbid(unsafe_code)]

mod bridge;
mod encode;
mod h265;
mod order;
#[cfg(test)]
mod tests;

pub use bridge::Bridge;

/// Bridges of pictures.
pub type Workshop = proto_core::bridge::Workshop<Bridge>;
