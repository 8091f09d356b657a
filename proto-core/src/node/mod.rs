//! The node: every machine of the core behind one set of inputs and outputs.

pub mod address;
pub mod config;
pub mod exposition;
pub mod guard;
pub mod io;
pub mod throttle;
