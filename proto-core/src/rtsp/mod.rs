//! RTSP 1.0 (RFC 2326): the server's side of a connection, and what it shares with clients.

pub mod digest;
pub mod formats;
pub mod order;
pub mod server;

mod egress;
mod ingest;

pub use server::Server;
