//! Streams on their way between nodes: the source's side of one pull ([`server::PullServer`]) and the puller's side
//! of one stream ([`client::PullClient`]).
//!
//! A node pulls a stream once however many viewers it has. Frames pass as they are, with the stream's own times; what
//! a slow link cannot take is left out in whole groups of pictures.

pub mod client;
pub mod server;
#[cfg(test)]
mod tests;

pub use client::{PullClient, Taken};
pub use server::{PullServer, RelayCounters};
