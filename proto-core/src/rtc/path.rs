//! Where a WebRTC peer is: never a bare socket address, because the same peer may come over TCP.

use crate::error::Reason;
use crate::io::{ConnId, SocketId};
use std::net::SocketAddr;
use str0m::Candidate;
use str0m::net::{Protocol, TcpType};

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
    /// Over a TCP connection that the peer has opened (RFC 6544).
    Tcp {
        /// The connection.
        conn: ConnId,
        /// The address that the peer dialled.
        local: SocketAddr,
        /// The peer's address as we see it.
        remote: SocketAddr,
    },
}

impl Path {
    /// The address that the peer sends to.
    pub const fn local(&self) -> SocketAddr {
        match self {
            Path::Udp { local, .. } | Path::Tcp { local, .. } => *local,
        }
    }

    /// The peer's address.
    pub const fn remote(&self) -> SocketAddr {
        match self {
            Path::Udp { remote, .. } | Path::Tcp { remote, .. } => *remote,
        }
    }

    /// The connection of a path over TCP.
    pub const fn conn(&self) -> Option<ConnId> {
        match self {
            Path::Udp { .. } => None,
            Path::Tcp { conn, .. } => Some(*conn),
        }
    }

    /// Whether both lead to the same end of the peer's.
    pub fn same_end(&self, other: &Path) -> bool {
        (self.remote(), self.conn()) == (other.remote(), other.conn())
    }

    pub(super) const fn protocol(&self) -> Protocol {
        match self {
            Path::Udp { .. } => Protocol::Udp,
            Path::Tcp { .. } => Protocol::Tcp,
        }
    }
}

/// The addresses of our passive TCP candidates: those ports at the same hosts.
pub(super) fn tcp_addresses(addresses: &[SocketAddr], ports: &[u16]) -> Vec<SocketAddr> {
    let at = |port: &u16| addresses.iter().map(|a| SocketAddr::new(a.ip(), *port)).collect::<Vec<_>>();
    ports.iter().flat_map(at).collect()
}

/// Our candidates: UDP at these addresses, then TCP (RFC 6544, 4.5: we wait to be connected) on these ports.
///
/// # Errors
/// An address that no candidate can have.
pub(super) fn candidates(addresses: &[SocketAddr], tcp_ports: &[u16]) -> Result<Vec<Candidate>, Reason> {
    let bad = |address: SocketAddr, e: &dyn std::fmt::Display| {
        let text = format!("{address} cannot be offered to WebRTC peers ({e}); set advertise.public");
        Reason::local("bad_candidate", text)
    };
    let udp = addresses.iter().map(|a| Candidate::host(*a, "udp").map_err(|e| bad(*a, &e)));
    let tcp = tcp_addresses(addresses, tcp_ports).into_iter().map(|a| {
        Candidate::builder().tcp().host(a).tcptype(TcpType::Passive).build().map_err(|e| bad(a, &e))
    });
    udp.chain(tcp).collect()
}
