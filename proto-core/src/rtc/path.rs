//! Where a WebRTC peer is: never a bare socket address, because the same peer may come over TCP one day.

use crate::io::SocketId;
use std::net::SocketAddr;

/// A way between this node and a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// Over UDP.
    Udp {
        /// The socket.
        socket: SocketId,
        /// The address that the peer sends to; answers leave from it.
        local: SocketAddr,
        /// The peer's address as we see it.
        remote: SocketAddr,
    },
}

impl Path {
    /// The address that the peer sends to.
    pub const fn local(&self) -> SocketAddr {
        let Path::Udp { local, .. } = self;
        *local
    }

    /// The peer's address.
    pub const fn remote(&self) -> SocketAddr {
        let Path::Udp { remote, .. } = self;
        *remote
    }
}
