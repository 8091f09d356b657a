//! The node: every machine of the core behind one set of inputs and outputs.

pub mod config;
pub mod io;
