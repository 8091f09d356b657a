//! Address translators: several clients behind one public address, with the behaviours of RFC 4787.

use super::dice;
use crate::world::actors::{Client, In};
use crate::world::{ClientId, Party, World};
use proto_core::time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// A translator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NatId(pub(super) usize);

/// What of the far address a translator looks at (RFC 4787 sections 4.1 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// Nothing.
    Endpoint,
    /// Its IP address.
    Address,
    /// IP address and port.
    AddressAndPort,
}

/// How a translator behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// Of what a new public port depends, for one inner address and port.
    pub mapping: Dependence,
    /// From where datagrams are let in to a public port.
    pub filtering: Dependence,
    /// A UDP mapping that carried nothing outwards for this long is forgotten (RFC 4787 section 4.3: at least two
    /// minutes, but many take 30 s).
    pub expiry: Duration,
}

impl Behaviour {
    /// What most homes have: mappings that do not depend on the far end, and a filter on address and port.
    pub const HOME: Behaviour = Behaviour {
        mapping: Dependence::Endpoint,
        filtering: Dependence::AddressAndPort,
        expiry: Duration::from_secs(30),
    };
    /// What many companies and mobile carriers have: another port for every far end.
    pub const SYMMETRIC: Behaviour = Behaviour { mapping: Dependence::AddressAndPort, ..Behaviour::HOME };
}

/// The part of a far address that counts.
type Far = (Option<IpAddr>, Option<u16>);

impl Dependence {
    fn of(self, far: SocketAddr) -> Far {
        match self {
            Dependence::Endpoint => (None, None),
            Dependence::Address => (Some(far.ip()), None),
            Dependence::AddressAndPort => (Some(far.ip()), Some(far.port())),
        }
    }
}

#[derive(Debug)]
struct Mapping {
    client: ClientId,
    inner: SocketAddr,
    key: Far,
    /// Far ends, as far as the filter looks at them, to which something was sent.
    sent_to: BTreeSet<Far>,
    last_out: Time,
}

/// A translator and what it remembers.
#[derive(Debug)]
pub(super) struct Nat {
    behaviour: Behaviour,
    public: IpAddr,
    inside: usize,
    /// Public port of each inner address, port and far key.
    ports: BTreeMap<(SocketAddr, Far), u16>,
    mappings: BTreeMap<u16, Mapping>,
    /// How often a port was chosen: the number of the next choice.
    chosen: u64,
}

impl Nat {
    fn forget(&mut self, port: u16) {
        if let Some(m) = self.mappings.remove(&port) {
            self.ports.remove(&(m.inner, m.key));
        }
    }

    fn live(&self, port: u16, now: Time) -> Option<&Mapping> {
        self.mappings.get(&port).filter(|m| now.since(m.last_out) < self.behaviour.expiry)
    }

    /// A public port that is free.
    fn port(&mut self, seed: u64, nat: usize) -> u16 {
        loop {
            self.chosen += 1;
            let port = 1_024 + (dice(seed, NAT_PORT, nat as u64, self.chosen) % 64_000) as u16;
            if !self.mappings.contains_key(&port) {
                return port;
            }
        }
    }
}

/// The kind of draw that chooses a public port.
const NAT_PORT: u64 = 100;

impl World {
    /// A translator with nobody behind it.
    pub fn nat(&mut self, behaviour: Behaviour) -> NatId {
        let n = self.net.nats.len();
        let public = IpAddr::V4(Ipv4Addr::new(10, 2, 0, n as u8 + 1));
        self.net.nats.push(Nat {
            behaviour,
            public,
            inside: 0,
            ports: BTreeMap::new(),
            mappings: BTreeMap::new(),
            chosen: 0,
        });
        NatId(n)
    }

    /// Adds a client behind a translator; it begins at once.
    pub fn add_behind(&mut self, nat: NatId, actor: Box<dyn Client>) -> ClientId {
        let ip = self.inner_ip(nat);
        self.add_at(actor, ip, Some(nat))
    }

    fn inner_ip(&mut self, nat: NatId) -> IpAddr {
        let n = &mut self.net.nats[nat.0];
        n.inside += 1;
        IpAddr::V4(Ipv4Addr::new(192, 168, nat.0 as u8, n.inside as u8))
    }

    /// The public address of a translator.
    pub fn public_ip(&self, nat: NatId) -> IpAddr {
        self.net.nats[nat.0].public
    }

    /// The translator of a client forgets it: what it sends next comes from new public ports. Its TCP connections are
    /// lost without a word at the far end; the client gets a reset once it sends. Nothing happens without translator.
    pub fn rebind(&mut self, client: ClientId) {
        let Some(nat) = self.clients[client.0].nat else { return };
        self.trace(|| format!("client{} is rebound", client.0));
        let n = &mut self.net.nats[nat.0];
        let ports: Vec<u16> =
            n.mappings.iter().filter(|(_, m)| m.client == client).map(|(p, _)| *p).collect();
        ports.into_iter().for_each(|p| n.forget(p));
        self.unroute(Party::Client(client), true);
    }

    /// A client comes to another network: it has a new address (behind a translator: a new inner one). Its TCP
    /// connections die without a word at the far end; at the client as the seed says, by an error or silently too.
    pub fn readdress(&mut self, client: ClientId) {
        let old = self.clients[client.0].ip;
        self.clients[client.0].moves += 1;
        let moves = self.clients[client.0].moves;
        let ip = match self.clients[client.0].nat {
            Some(nat) => self.inner_ip(nat),
            None => {
                self.addresses.remove(&old);
                let ip = IpAddr::V4(Ipv4Addr::new(
                    10,
                    16 + (moves % 200) as u8,
                    (client.0 / 250) as u8,
                    (client.0 % 250 + 1) as u8,
                ));
                self.addresses.insert(ip, Party::Client(client));
                ip
            }
        };
        self.trace(|| format!("client{} moves from {old} to {ip}", client.0));
        self.clients[client.0].ip = ip;
        self.unroute(Party::Client(client), false);
        if self.draw("readdress", client.0 as u64, moves).is_multiple_of(2) {
            self.abandon(client);
        }
        self.client(client, In::Address(ip));
    }

    /// The public address from which a client's datagram leaves.
    pub(super) fn nat_out(
        &mut self,
        nat: NatId,
        client: ClientId,
        inner: SocketAddr,
        far: SocketAddr,
    ) -> SocketAddr {
        let (seed, now) = (self.seed, self.now);
        let n = &mut self.net.nats[nat.0];
        let key = n.behaviour.mapping.of(far);
        let known = n.ports.get(&(inner, key)).copied();
        let port = match known {
            Some(port) if n.live(port, now).is_some() => port,
            _ => {
                if let Some(port) = known {
                    n.forget(port);
                }
                let port = n.port(seed, nat.0);
                n.ports.insert((inner, key), port);
                n.mappings
                    .insert(port, Mapping { client, inner, key, sent_to: BTreeSet::new(), last_out: now });
                port
            }
        };
        let filter = n.behaviour.filtering.of(far);
        if let Some(m) = n.mappings.get_mut(&port) {
            m.last_out = now;
            m.sent_to.insert(filter);
        }
        SocketAddr::new(n.public, port)
    }

    /// Who is behind a public address and port, and whether the far end may reach it: the client and its inner
    /// address.
    pub(super) fn nat_in(&self, to: SocketAddr, far: SocketAddr) -> Option<(ClientId, SocketAddr)> {
        let n = self.nat_at(to.ip())?;
        let m = n.live(to.port(), self.now)?;
        m.sent_to.contains(&n.behaviour.filtering.of(far)).then_some((m.client, m.inner))
    }

    /// Who is behind a public address and port, whatever the filter says.
    pub(super) fn nat_client(&self, to: SocketAddr) -> Option<ClientId> {
        self.nat_at(to.ip())?.live(to.port(), self.now).map(|m| m.client)
    }

    fn nat_at(&self, ip: IpAddr) -> Option<&Nat> {
        let IpAddr::V4(v4) = ip else { return None };
        match v4.octets() {
            [10, 2, 0, n] => self.net.nats.get(usize::from(n).checked_sub(1)?),
            _ => None,
        }
    }

    /// The address that the far end of a client's new connection sees.
    pub(super) fn nat_tcp(&mut self, owner: Party, inner: SocketAddr) -> SocketAddr {
        let Party::Client(client) = owner else { return inner };
        let Some(nat) = self.clients[client.0].nat else { return inner };
        let seed = self.seed;
        let n = &mut self.net.nats[nat.0];
        SocketAddr::new(n.public, n.port(seed, nat.0))
    }
}
