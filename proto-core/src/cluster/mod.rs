//! The cluster: who is there, who owns which stream, who is given out, and how frames pass between nodes.

pub mod keys;
pub mod link;
pub mod manager;
pub mod member;
pub mod placement;
pub mod quic;
pub mod registry;
pub mod relay;
#[cfg(test)]
mod world;

pub use crate::ids::{Epoch, NodeId};

use crate::io::ConnId;

/// Where a message between nodes goes to or came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkId {
    /// This process: manager and member pass messages in memory.
    Local,
    /// Another process, over a connection.
    Conn(ConnId),
}
