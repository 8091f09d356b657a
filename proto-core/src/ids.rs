//! Plain names that every floor uses: who a node is, what it does, and under which epoch a stream is published.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What a node does for the cluster. Every node speaks every protocol; roles decide what the manager gives out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Pairs streams with origins and viewers with edges.
    Manager,
    /// Takes publishers.
    Origin,
    /// Takes viewers.
    Edge,
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
