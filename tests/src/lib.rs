//! Test support: the generic machine harness, the tidy rules, and tools that drive a real cluster with real clients.
//!
//! Nothing here waits for time: every wait is for a condition, with an overall deadline that names what was awaited.
#![forbid(unsafe_code)]
// A test drives real processes, sockets and clocks; the bans of clippy.toml are for the core.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub mod fanout;
pub mod faults;
pub mod fuzzing;
pub mod harness;
pub mod interop;
pub mod live;
pub mod sbom;
pub mod sim;
pub mod soak;
pub mod tidy;
pub mod world;

/// The scenario in the documentation is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/simulation.md")]
struct Documentation;
