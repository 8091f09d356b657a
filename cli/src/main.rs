//! The `headwater` binary.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "files, clocks and sockets live out here"
)]

mod settings;

fn main() {}
