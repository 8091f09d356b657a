//! Clients by WebRTC: publishers by WHIP, players by WHEP. Their ICE, DTLS and SRTP are str0m's, in the role that a
//! browser has; HTTP, RTP payloads, reordering and all checks are their own and share no code with the servers.

mod caller;
mod dialect;
mod http;
mod peer;
pub(super) mod reorder;
pub(super) mod rtp;
pub(super) mod sync;
mod tcp;
mod whep;
mod whip;

pub use caller::{Call, Signalling};
pub use whep::{Seen, Whep, WhepConfig};
pub use whip::{Whip, WhipConfig};

use crate::world::{ClientId, HostId, World};
use caller::Seat;
use determinism::crypto;
use peer::Identity;
use proto_core::rand::Rng;
use proto_core::time::Time;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use str0m::config::CryptoProvider;

fn identity(seed: [u8; 32]) -> Identity {
    static CRYPTO: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        let dtls = crypto::dtls_provider().expect("DTLS passes its self-test");
        Arc::new(crypto::str0m_provider(dtls))
    };
    let certificate = crypto::certificate(seed).expect("a certificate can be made");
    Identity { crypto: CRYPTO.get_or_init(make).clone(), certificate }
}

/// Where and when a client that is made outside a world is.
#[derive(Debug)]
pub struct Outside<'a> {
    /// The node's HTTP port.
    pub to: SocketAddr,
    /// Its stream, `app/name`.
    pub stream: &'a str,
    /// Its number, which no other client has.
    pub number: u64,
    /// All that is drawn forks from here.
    pub rng: &'a Rng,
    /// The moment that [`Time::ZERO`] stands for.
    pub base: Instant,
    /// Now.
    pub now: Time,
}

impl Outside<'_> {
    fn seat(&self, (by, tcp, mute): (Signalling, bool, bool)) -> Seat {
        Seat {
            to: self.to,
            stream: self.stream.to_owned(),
            number: self.number,
            rng: self.rng.fork("client", self.number),
            base: self.base,
            identity: identity(self.rng.fork("certificate of a client", self.number).bytes()),
            by,
            tcp,
            mute,
        }
    }

    /// A publisher by WHIP.
    pub fn whip(&self, config: WhipConfig) -> Box<Whip> {
        Box::new(Whip::new(self.seat((config.by, config.tcp, false)), config, self.now))
    }

    /// A player by WHEP.
    pub fn whep(&self, config: WhepConfig) -> Box<Whep> {
        Box::new(Whep::new(self.seat((config.by, config.tcp, config.mute)), config, self.now))
    }
}

impl World {
    fn outside<'a>(&'a self, at: HostId, stream: &'a str) -> Outside<'a> {
        let (to, number) = (self.http_addr(at), self.next_client());
        Outside { to, stream, number, rng: &self.rng, base: self.base, now: self.now }
    }

    /// The next client as a publisher of `stream` (`app/name`) by WHIP at a node, to be added.
    pub fn new_whip(&self, at: HostId, stream: &str, config: WhipConfig) -> Box<Whip> {
        self.outside(at, stream).whip(config)
    }

    /// The next client as a player of `stream` (`app/name`) by WHEP at a node, to be added.
    pub fn new_whep(&self, at: HostId, stream: &str, config: WhepConfig) -> Box<Whep> {
        self.outside(at, stream).whep(config)
    }

    /// A publisher of `stream` (`app/name`) by WHIP, or as `config` says, at a node.
    pub fn publish_webrtc(&mut self, at: HostId, stream: &str, config: WhipConfig) -> ClientId {
        self.add(self.new_whip(at, stream, config))
    }

    /// A player of `stream` (`app/name`) by WHEP, or as `config` says, at a node.
    pub fn play_webrtc(&mut self, at: HostId, stream: &str, config: WhepConfig) -> ClientId {
        self.add(self.new_whep(at, stream, config))
    }

    /// A publisher by WHIP.
    pub fn whip(&self, id: ClientId) -> &Whip {
        self.actor(id).unwrap_or_else(|| panic!("{id:?} is no publisher by WHIP"))
    }

    /// A player by WHEP.
    pub fn whep(&self, id: ClientId) -> &Whep {
        self.actor(id).unwrap_or_else(|| panic!("{id:?} is no player by WHEP"))
    }

    /// Has a publisher by WHIP do something.
    pub fn with_whip(&mut self, id: ClientId, act: impl FnOnce(&mut Whip, Time)) {
        self.with(id, act);
    }

    /// Has a player by WHEP do something.
    pub fn with_whep(&mut self, id: ClientId, act: impl FnOnce(&mut Whep, Time)) {
        self.with(id, act);
    }
}
