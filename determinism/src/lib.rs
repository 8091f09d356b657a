//! What makes a run of the core replay bit for bit: one small crate for the simulator and for `headwater serve
//! --record` and `headwater replay`.
//!
//! The core takes time and a seed as inputs, but the libraries under it do not all do so: they read clocks and
//! randomness of the operating system. [`os`] stands between them and it; [`crypto`] is cryptography whose every
//! byte follows from what [`os`] gives, in place of a library that keeps a generator of its own.
//!
//! Linking this crate changes nothing until a [`os::run`] or an [`os::Scope`] asks for it, and then only for the
//! thread that asked.
#![deny(unsafe_op_in_unsafe_fn)]
// This crate stands outside the core: it makes threads and compares clocks (clippy.toml bans them elsewhere).
#![allow(clippy::disallowed_methods)]

pub mod crypto;
pub mod os;
