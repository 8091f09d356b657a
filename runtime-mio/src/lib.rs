//! The event loop that drives a node.
