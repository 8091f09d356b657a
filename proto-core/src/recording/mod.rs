//! Recordings: every input of a node with its time, so that the same node can be run again from a file.
//!
//! Pure, like all of the core: [`Writer`] turns inputs into bytes, [`Reader`] turns bytes into inputs, [`Replay`]
//! hands them to a node and compares. Who writes files and how the node's cryptography is seeded is the driver's
//! business. A recording holds secrets: the configuration with its keys, the seeds of every other secret, and all
//! that peers sent.
//!
//! # The format
//! Numbers are big-endian; a *varint* has seven bits a byte, the lowest first.
//!
//! ```text
//! file    = "headwater recording\n" format:u16 length:u32 check:u64 header block*
//! header  = version config node_seed:32 crypto_seed:32        version, config = varint length, UTF-8
//! block   = length:u32 check:u64 inputs:varint end:u8 input* digest:u64
//! input   = nanoseconds since the last:varint  mark:u16  kind:u8  fields
//! ```
//!
//! `length` counts the bytes after `check`; `check` is XXH64 over them, with the check before it as the seed (for the
//! header 0), so that no block can be changed, left out or moved unseen. `mark` is the low end of the digest of all
//! inputs and outputs *before* this input; `digest` is the whole of it after the block's last input and its outputs.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod read;
mod replay;
mod write;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used)]
mod tests;

pub use read::{Damage, Item, Reader, Recorded};
pub use replay::{Difference, Replay, Seen};
pub use write::Writer;

use crate::io::{Input, Output};
use crate::node::config::Config;
use crate::time::Time;
use crate::trace::Digest;

/// What every recording begins with.
pub const MAGIC: &[u8; 20] = b"headwater recording\n";
/// The version of the format. A reader reads its own only.
pub const FORMAT: u16 = 1;
/// Inputs from one checkpoint to the next, at most.
pub const CHECKPOINT_INPUTS: u64 = 256;

/// Bytes of inputs after which a block ends early.
const BLOCK_BYTES: usize = 64 << 10;
/// The most bytes of a block that a reader takes. One input can be far larger than [`BLOCK_BYTES`].
const BLOCK_MAX: usize = 64 << 20;
/// The most bytes of a header.
const HEADER_MAX: usize = 1 << 20;
/// Batches that a node may have out at a time and still get back by number. More are written out in full.
const BATCHES_OUT: usize = 1 << 16;

/// The codes of [`crate::error::Reason`] that inputs may carry: a fixed list, since a code is a fixed word.
pub const CODES: [&str; 5] = ["dial_failed", "io_error", "peer_closed", "reset", "udp_bind_failed"];

/// What a node is made of.
#[derive(Clone, PartialEq)]
pub struct Header {
    /// The version of headwater that recorded.
    pub version: String,
    /// The node's configuration.
    pub config: Config,
    /// The seed of the node ([`crate::node::Node::new`]).
    pub node_seed: [u8; 32],
    /// The seed of everything that the libraries under the node draw: certificate, handshakes, map orders.
    pub crypto_seed: [u8; 32],
}

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The rest is secret, or holds secrets.
        f.debug_struct("Header").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Why a recording ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The node ended.
    Ended,
    /// The recording reached its limit or could not be written; the node went on.
    Cut,
}

/// The trace so far: counts and fingerprint of all that went in and came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Trace {
    inputs: u64,
    at: Time,
    digest: Digest,
}

impl Trace {
    fn input(&mut self, input: &Input<'_>, now: Time) {
        self.inputs += 1;
        self.at = self.at.max(now);
        self.digest.u64(self.at.as_nanos());
        input.digest(&mut self.digest);
    }

    fn output(&mut self, output: &Output) {
        output.digest(&mut self.digest);
    }

    const fn mark(&self) -> u16 {
        self.digest.value() as u16
    }
}
