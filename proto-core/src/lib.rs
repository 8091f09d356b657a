//! The pure core of Headwater: protocols, media model, hub and cluster as state machines.
//!
//! No sockets, files, threads, clocks, ambient randomness or async live here. Bytes, datagrams and time come in;
//! bytes, datagrams, events and one deadline come out. `ARCHITECTURE.md` at the root of the repository has the map.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used))]

pub mod auth;
pub mod bridge;
pub mod buf;
pub mod cluster;
pub mod error;
pub mod few;
pub mod guard;
pub mod http;
pub mod hub;
pub mod ids;
pub mod io;
pub mod limits;
pub mod machine;
pub mod media;
pub mod node;
pub mod rand;
pub mod recording;
pub mod rtc;
pub mod rtmp;
pub mod rtsp;
pub mod signalling;
pub mod simulation;
pub mod table;
pub mod time;
pub mod tls;
pub mod trace;
pub mod wire;
