//! What the hub hands to a subscriber's session, one item at a time.

use crate::media::frame::Frame;
use crate::media::track::{CodecConfig, TrackId};
use std::sync::Arc;

/// The next thing that a subscriber must send.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// A track's configuration; always before the first frame that needs it.
    Config {
        /// The track.
        track: TrackId,
        /// Its configuration.
        config: Arc<CodecConfig>,
    },
    /// A frame, with the times that this subscriber is to see (those of a newcomer's cached group are squeezed).
    Frame {
        /// The frame.
        frame: Arc<Frame>,
        /// Decoding time on this subscriber's timeline, nanoseconds; never goes back within a track.
        dts: i64,
        /// Presentation time on this subscriber's timeline, nanoseconds.
        pts: i64,
        /// The frame comes out of the cache of a group of pictures, sent to a newcomer in a burst.
        cached: bool,
    },
}

/// How a newcomer comes by what was before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatchesUp {
    /// The next frame is out of the cache of a stream that brings so much now.
    Cached {
        /// Bits a second; 0: not known.
        bits_per_s: u64,
    },
    /// It is new here, and may be given frames faster than they were made.
    New,
}
