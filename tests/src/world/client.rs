//! What drives a client: the world's side of [`Client`](super::actors::Client).

use super::actors::asker::Asker;
use super::actors::player::{Player, PlayerConfig};
use super::actors::publisher::{Publisher, PublisherConfig};
use super::actors::{Client, Conn, In, Out, Standing};
use super::event::Event;
use super::nat::NatId;
use super::tls::Layer;
use super::{ClientId, HostId, Owner, Party, World};
use proto_core::node::config::Config;
use proto_core::rand::Rng;
use proto_core::time::Time;
use std::any::Any;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Connections that a client accepts are numbered from here.
const ACCEPTED: Conn = 1 << 31;

/// A client and where it stands.
pub(super) struct Slot {
    pub(super) actor: Box<dyn Client>,
    pub(super) ip: IpAddr,
    pub(super) nat: Option<NatId>,
    /// How often it came to another network.
    pub(super) moves: u64,
    pub(super) pipes: BTreeMap<Conn, (u64, usize)>,
    /// How many connections it accepted.
    accepted: Conn,
    /// What its TCP connections are wrapped in.
    tls: Option<Layer>,
    wake: Option<Time>,
}

impl World {
    fn client_ip(n: usize) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 1, (n / 250) as u8, (n % 250 + 1) as u8))
    }

    /// Adds a client, which begins at once; behind a translator if [`World::behind`] said so.
    pub fn add(&mut self, actor: Box<dyn Client>) -> ClientId {
        if let Some(nat) = self.net.behind {
            return self.add_behind(nat, actor);
        }
        let n = self.clients.len();
        let ip = Self::client_ip(n);
        self.addresses.insert(ip, Party::Client(ClientId(n)));
        self.add_at(actor, ip, None)
    }

    /// Adds a client at an address of its own or (then nobody else can see it) behind a translator.
    pub(super) fn add_at(&mut self, mut actor: Box<dyn Client>, ip: IpAddr, nat: Option<NatId>) -> ClientId {
        let n = self.clients.len();
        actor.notes().want(self.verbose);
        let tls = self.net.secure.then(|| {
            let c = Config::default();
            Layer::new([
                (c.http.port, c.https.port),
                (c.rtmp.port, c.rtmps.port),
                (c.rtsp.port, c.rtsps.port),
            ])
        });
        self.clients.push(Slot {
            actor,
            ip,
            nat,
            moves: 0,
            pipes: BTreeMap::new(),
            accepted: 0,
            tls,
            wake: None,
        });
        self.client(ClientId(n), In::Address(ip));
        self.client(ClientId(n), In::Tick);
        ClientId(n)
    }

    /// Whether the TCP connections of the clients that are added from now on are TLS, to the ports for that.
    pub fn over_tls(&mut self, on: bool) {
        self.net.secure = on;
    }

    /// The address of a client.
    pub fn client_addr(&self, id: ClientId) -> IpAddr {
        self.clients[id.0].ip
    }

    /// The number that the next client will have.
    pub fn next_client(&self) -> u64 {
        self.clients.len() as u64
    }

    /// How every client stands.
    pub fn standings(&self) -> impl Iterator<Item = (ClientId, Standing)> + '_ {
        self.clients.iter().enumerate().map(|(n, c)| (ClientId(n), c.actor.standing()))
    }

    /// How a client stands.
    pub fn standing(&self, id: ClientId) -> Standing {
        self.clients[id.0].actor.standing()
    }

    /// A client, if it is one of that kind.
    pub fn actor<T: Client>(&self, id: ClientId) -> Option<&T> {
        let actor: &dyn Any = self.clients[id.0].actor.as_ref();
        actor.downcast_ref()
    }

    /// Has a client do something.
    ///
    /// # Panics
    /// If it is of another kind.
    pub fn with<T: Client, R>(&mut self, id: ClientId, act: impl FnOnce(&mut T, Time) -> R) -> R {
        let now = self.now;
        let actor: &mut dyn Any = self.clients[id.0].actor.as_mut();
        let result = act(actor.downcast_mut().expect("a client of that kind"), now);
        self.after_client(id);
        result
    }

    /// A publisher of `stream` at a node's RTMP port.
    pub fn publish(&mut self, at: HostId, stream: &str) -> ClientId {
        self.publish_with(at, stream, PublisherConfig::default())
    }

    /// As [`World::publish`], with a behaviour.
    pub fn publish_with(&mut self, at: HostId, stream: &str, config: PublisherConfig) -> ClientId {
        let n = self.next_client();
        let to = self.rtmp_addr(at);
        let rng = self.rng.fork("client", n);
        self.add(Box::new(Publisher::new(n, to, stream, config, rng, self.now)))
    }

    /// A player of `stream` at a node's RTMP port.
    pub fn play(&mut self, at: HostId, stream: &str) -> ClientId {
        self.play_with(at, stream, PlayerConfig::default())
    }

    /// As [`World::play`], with a behaviour.
    pub fn play_with(&mut self, at: HostId, stream: &str, config: PlayerConfig) -> ClientId {
        let to = self.rtmp_addr(at);
        self.add(Box::new(Player::with(to, stream, config, Rng::new([0; 32]))))
    }

    /// A publisher by RTMP.
    pub fn publisher(&self, id: ClientId) -> &Publisher {
        self.actor(id).unwrap_or_else(|| panic!("{id:?} is no publisher"))
    }

    /// A player by RTMP.
    pub fn player(&self, id: ClientId) -> &Player {
        self.actor(id).unwrap_or_else(|| panic!("{id:?} is no player"))
    }

    /// Has a publisher do something.
    pub fn with_publisher(&mut self, id: ClientId, act: impl FnOnce(&mut Publisher, Time)) {
        self.with(id, act);
    }

    /// Has a player do something.
    pub fn with_player(&mut self, id: ClientId, act: impl FnOnce(&mut Player)) {
        self.with(id, |p, _| act(p));
    }

    /// Has a client leave in an orderly way; it does not come back.
    pub fn leave(&mut self, id: ClientId) {
        let now = self.now;
        self.clients[id.0].actor.leave(now);
        self.after_client(id);
    }

    /// Asks a node by HTTP and lets time pass until the answer is there (10 s at most).
    ///
    /// # Errors
    /// If there is no whole answer: why not.
    pub fn get(&mut self, at: HostId, path: &str) -> Result<(u16, String), String> {
        let to = self.http_addr(at);
        let id = self.add(Box::new(Asker::new(to, path)));
        self.until(&format!("an answer about {path}"), Duration::from_secs(12), |w| {
            w.actor::<Asker>(id).is_some_and(|a| a.result.is_some())
        });
        self.with(id, |a: &mut Asker, _| a.result.take()).unwrap_or(Err("no answer".to_owned()))
    }

    /// As [`World::get`], for a world whose violations its caller looks at: the body of a 200, or nothing.
    pub fn get_quietly(&mut self, at: HostId, path: &str) -> Option<String> {
        let to = self.http_addr(at);
        let id = self.add(Box::new(Asker::new(to, path)));
        let until = self.now + Duration::from_secs(12);
        while self.actor::<Asker>(id).is_some_and(|a| a.result.is_none()) && self.step(until) {}
        match self.with(id, |a: &mut Asker, _| a.result.take()) {
            Some(Ok((200, body))) => Some(body),
            _ => None,
        }
    }

    /// Hands a client an input and does what it says.
    pub(super) fn client(&mut self, id: ClientId, input: In<'_>) {
        let now = self.now;
        let Slot { actor, tls, .. } = &mut self.clients[id.0];
        match tls {
            None => actor.on(input, now),
            Some(layer) => {
                for out in layer.pass(actor.as_mut(), input, now) {
                    self.client_does(id, out);
                }
            }
        }
        self.after_client(id);
    }

    pub(super) fn after_client(&mut self, id: ClientId) {
        while let Some(out) = self.clients[id.0].actor.poll() {
            self.client_said(id, out);
        }
        while let Some(note) = self.clients[id.0].actor.notes().take() {
            self.trace(|| format!("client{} {note}", id.0));
        }
        let slot = &mut self.clients[id.0];
        if let Some(at) = slot.actor.wake()
            && slot.wake.is_none_or(|w| at < w)
        {
            let at = at.max(self.now);
            slot.wake = Some(at);
            self.at(at, Event::WakeClient(id.0));
        }
    }

    fn client_said(&mut self, id: ClientId, out: Out) {
        match &mut self.clients[id.0].tls {
            None => self.client_does(id, out),
            Some(layer) => {
                for out in layer.said(out) {
                    self.client_does(id, out);
                }
            }
        }
    }

    fn client_does(&mut self, id: ClientId, out: Out) {
        let pipe = |w: &World, conn: Conn| w.clients[id.0].pipes.get(&conn).copied();
        match out {
            Out::Dial(conn, to) => {
                let ip = self.clients[id.0].ip;
                let pipe = self.dial(Owner::Client { id, conn }, ip, to);
                self.clients[id.0].pipes.insert(conn, (pipe, 0));
            }
            Out::Send(conn, bytes) => {
                if let Some((pipe, side)) = pipe(self, conn) {
                    self.send(pipe, side, bytes);
                }
            }
            Out::Close(conn, at_once) => {
                if let Some((pipe, side)) = self.clients[id.0].pipes.remove(&conn) {
                    self.close(pipe, side, at_once);
                }
            }
            Out::Reading(conn, on) => {
                if let Some((pipe, side)) = pipe(self, conn) {
                    self.reading(pipe, side, on);
                }
            }
            Out::Datagram { port, to, bytes } => {
                let from = SocketAddr::new(self.clients[id.0].ip, port);
                self.datagram(Party::Client(id), from, to, bytes);
            }
            Out::Forged { from, to, bytes } => self.forge(id, from, to, bytes),
            Out::Tap(to) => self.net.taps.entry(to).or_default().push(id),
            Out::Vanish => self.cut(Party::Client(id)),
            Out::Violation(invariant, text) => self.violate(invariant, format!("client{}: {text}", id.0)),
        }
    }

    /// A dial reaches a client. `false`: it does not listen there.
    pub(super) fn client_accepts(&mut self, id: ClientId, pipe: u64, port: u16) -> bool {
        let slot = &mut self.clients[id.0];
        if !slot.actor.listens(port) {
            return false;
        }
        slot.accepted += 1;
        let conn = ACCEPTED + slot.accepted;
        slot.pipes.insert(conn, (pipe, 1));
        self.stand(pipe);
        self.accepted(pipe, Owner::Client { id, conn });
        self.client(id, In::Accepted(conn));
        true
    }

    /// Whether this is still the connection that the client knows by that number.
    pub(super) fn is_of(&self, id: ClientId, conn: Conn, pipe: u64) -> bool {
        self.clients[id.0].pipes.get(&conn).is_some_and(|(p, _)| *p == pipe)
    }

    pub(super) fn client_closed(&mut self, id: ClientId, conn: Conn, why: &str) {
        self.clients[id.0].pipes.remove(&conn);
        self.client(id, In::Closed(conn, why));
    }

    pub(super) fn wake_client(&mut self, n: usize) {
        // Only the earliest wish is valid; those that it replaced find nothing to do.
        if self.clients[n].wake.is_some_and(|at| at <= self.now) {
            self.clients[n].wake = None;
            self.client(ClientId(n), In::Tick);
        }
    }
}
