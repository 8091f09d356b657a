//! The cluster: who is there, who owns which stream, who is given out, and how frames pass between nodes.

pub mod link;
pub mod manager;
pub mod member;
pub mod placement;
pub mod registry;
pub mod relay;
#[cfg(test)]
mod world;

use crate::node::io::ConnId;
use std::fmt;

/// Where a message between nodes goes to or came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkId {
    /// This process: manager and member pass messages in memory.
    Local,
    /// Another process, over a connection.
    Conn(ConnId),
}

/// A fencing number for the right to publish a stream: the manager's term first, then a count within it.
///
/// A higher epoch always wins; frames of a lower one are never relayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Epoch {
    /// The manager's start time in seconds since the Unix epoch, raised above any term heard.
    pub term: u64,
    /// Counts up with every grant within the term.
    pub count: u64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.count)
    }
}

/// A node's name in the cluster, as configured (`node.name`) or made at start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct NodeId(pub String);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
