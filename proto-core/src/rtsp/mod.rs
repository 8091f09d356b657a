//! RTSP 1.0 (RFC 2326): the server's side of a connection, and what it shares with clients.

pub mod client;
pub mod digest;
pub mod formats;
pub mod order;
pub mod server;

mod egress;
mod ingest;

pub use client::Client;
pub use egress::Burst;
pub use server::Server;

/// The code of a client's end when it had agreed on datagrams and none came.
pub const NO_DATAGRAMS: &str = "rtsp_no_datagrams";
