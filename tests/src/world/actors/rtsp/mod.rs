//! Clients by RTSP: publishers and players over the connection or by datagrams, behind address translators where the world
//! says so. Messages, packets and checks are their own and share no code with the servers.

mod packets;
mod play;
mod publish;
mod talk;

pub use play::RtspPlay;
pub use publish::RtspRecord;

use super::player::{PlayerBy, PlayerConfig};
use super::publisher::{PublisherBy, PublisherConfig};
use crate::world::{ClientId, HostId, World};
use proto_core::time::Time;
use std::net::SocketAddr;

/// A publisher by RTSP.
pub type RtspPublisher = PublisherBy<RtspRecord>;
/// A player by RTSP.
pub type RtspPlayer = PlayerBy<RtspPlay>;

impl World {
    /// The address of a node's RTSP port.
    pub fn rtsp_addr(&self, at: HostId) -> SocketAddr {
        let h = &self.hosts[at.0];
        SocketAddr::new(h.ip, h.config.rtsp.port)
    }

    /// A publisher of `stream` (`app/name`) by RTSP at a node.
    pub fn publish_rtsp(&mut self, at: HostId, stream: &str, config: PublisherConfig) -> ClientId {
        let n = self.next_client();
        let (to, rng) = (self.rtsp_addr(at), self.rng.fork("client", n));
        self.add(Box::new(RtspPublisher::new(n, to, stream, config, rng, self.now)))
    }

    /// A player of `stream` (`app/name`) by RTSP at a node.
    pub fn play_rtsp(&mut self, at: HostId, stream: &str, config: PlayerConfig) -> ClientId {
        let n = self.next_client();
        let (to, rng) = (self.rtsp_addr(at), self.rng.fork("client", n));
        self.add(Box::new(RtspPlayer::with(to, stream, config, rng)))
    }

    /// A publisher by RTSP.
    pub fn rtsp_publisher(&self, id: ClientId) -> &RtspPublisher {
        self.actor(id).unwrap_or_else(|| panic!("{id:?} is no publisher by RTSP"))
    }

    /// A player by RTSP.
    pub fn rtsp_player(&self, id: ClientId) -> &RtspPlayer {
        self.actor(id).unwrap_or_else(|| panic!("{id:?} is no player by RTSP"))
    }

    /// Has a publisher by RTSP do something.
    pub fn with_rtsp_publisher(&mut self, id: ClientId, act: impl FnOnce(&mut RtspPublisher, Time)) {
        self.with(id, act);
    }

    /// Has a player by RTSP do something.
    pub fn with_rtsp_player(&mut self, id: ClientId, act: impl FnOnce(&mut RtspPlayer)) {
        self.with(id, |p, _| act(p));
    }
}
