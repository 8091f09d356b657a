//! The websocket dialect of the stream manager: JSON messages by which a browser and a node agree on a WebRTC session,
//! over a websocket and, later, over a data channel. Pure; it knows neither sockets nor sessions.
//!
//! [`Dialect`] holds the order of things, [`data`] translates what publishers send to their viewers.

pub mod data;
mod dialect;
mod says;
#[cfg(test)]
mod tests;

pub use dialect::{About, Dialect, Input, Output, Way};
pub(crate) use says::error;
pub use says::rejected;

/// The label of the data channel on which clients go on signalling.
pub const CHANNEL: &str = "red5pro";
