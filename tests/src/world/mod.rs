//! Whole clusters in one thread: real [`Node`]s and clients on a virtual network, in virtual time, from one seed.
//!
//! A [`World`] is a queue of events ordered by time and number. Whatever is random in it is drawn from the seed, by
//! keyed hashes of what it is for and not in sequence, so that a change in one place does not shuffle the rest. The
//! same seed gives the same [`World::hash`] of all that the nodes said and the players saw.
//!
//! It has: any number of nodes that are started, crashed, restarted, drained, cut off or parted (nothing passes, nobody is
//! told); TCP with latency, windows, credit, re-chunking, half-close, reset, refused and unanswered dials, and
//! keep-alive; UDP between hosts with latency; name look-ups of IP addresses; publishers by RTMP (the project's own
//! client), players by RTMP (the independent `rml_rtmp`) that check order, integrity, key frames and times of all
//! they get, and clients that ask by HTTP. A line of level error in a node's log ends the run.
//!
//! It does not have yet: WebRTC clients, lossy and duplicating UDP, bandwidth, links that lose in one direction only,
//! paused nodes, skewed clocks, evil clients, and generated sequences of operations. The bytes of the independent
//! client (its random numbers and its clock are the system's) and of WebRTC's cryptography are not in the hash.

pub mod actor;
pub mod asker;
mod event;
mod host;
pub mod media;
mod net;
pub mod player;
pub mod publisher;

use actor::{Actor, In, Out};
use asker::Asker;
use event::Event;
use host::Host;
use net::Pipe;
use player::Player;
use proto_core::io::{ConnId, Level};
use proto_core::node::Node;
use proto_core::rand::Rng;
use proto_core::time::Time;
use publisher::{Publisher, PublisherConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Someone on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// A host with a node.
    Host(HostId),
    /// A client.
    Client(ClientId),
    /// An address that nobody has.
    Nowhere,
}

impl Party {
    fn number(self) -> u64 {
        match self {
            Party::Host(h) => h.0 as u64,
            Party::Client(c) => 1_000 + c.0 as u64,
            Party::Nowhere => u64::MAX,
        }
    }
}

/// A host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(usize);

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(usize);

impl From<HostId> for Party {
    fn from(id: HostId) -> Party {
        Party::Host(id)
    }
}

impl From<ClientId> for Party {
    fn from(id: ClientId) -> Party {
        Party::Client(id)
    }
}

/// Who owns one end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Node { host: HostId, run: u64, conn: ConnId },
    Client(ClientId),
}

impl Owner {
    fn party(self) -> Party {
        match self {
            Owner::Node { host, .. } => Party::Host(host),
            Owner::Client(id) => Party::Client(id),
        }
    }
}

struct Slot {
    actor: Actor,
    ip: IpAddr,
    pipe: Option<(u64, usize)>,
    wake: Option<Time>,
}

/// A world. See the module's text.
pub struct World {
    seed: u64,
    rng: Rng,
    base: Instant,
    now: Time,
    seq: u64,
    same: u64,
    queue: BTreeMap<(Time, u64), Event>,
    hosts: Vec<Host>,
    clients: Vec<Slot>,
    pipes: BTreeMap<u64, Pipe>,
    next_pipe: u64,
    cut: BTreeSet<Party>,
    parted: BTreeSet<(Party, Party)>,
    cut_since: BTreeMap<Party, Time>,
    hash: DefaultHasher,
    log: Vec<String>,
}

/// Events at one moment beyond which something runs in circles.
const SAME: u64 = 200_000;

impl World {
    /// An empty world.
    pub fn new(seed: u64) -> World {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        World {
            seed,
            rng: Rng::new(bytes),
            base: Instant::now(),
            now: Time::ZERO,
            seq: 0,
            same: 0,
            queue: BTreeMap::new(),
            hosts: Vec::new(),
            clients: Vec::new(),
            pipes: BTreeMap::new(),
            next_pipe: 0,
            cut: BTreeSet::new(),
            parted: BTreeSet::new(),
            cut_since: BTreeMap::new(),
            hash: DefaultHasher::new(),
            log: Vec::new(),
        }
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// A hash of all that the nodes said, sent and logged and the players saw, so far.
    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }

    /// Everything that was logged: time, node or client, text.
    pub fn log(&self) -> &[String] {
        &self.log
    }

    fn draw(&self, what: &str, a: u64, b: u64) -> u64 {
        let mut h = DefaultHasher::new();
        (self.seed, what, a, b).hash(&mut h);
        h.finish()
    }

    /// A number below `n` for the `nth` choice of a kind, from the seed alone.
    pub fn pick(&self, what: &str, nth: u64, n: u64) -> u64 {
        self.draw(what, nth, u64::MAX) % n.max(1)
    }

    fn at(&mut self, at: Time, event: Event) {
        self.seq += 1;
        self.queue.insert((at.max(self.now), self.seq), event);
    }

    fn trace(&mut self, text: String) {
        let line = format!("{} {text}", self.now);
        line.hash(&mut self.hash);
        self.log.push(line);
    }

    /// Does the next thing that is due by `until`; `false` if there is none.
    fn step(&mut self, until: Time) -> bool {
        let Some((&(at, _), _)) = self.queue.first_key_value() else { return false };
        if at > until {
            return false;
        }
        let Some((_, event)) = self.queue.pop_first() else { return false };
        self.same = if at == self.now { self.same + 1 } else { 0 };
        assert!(self.same < SAME, "something runs in circles: {event:?}");
        self.now = at;
        match event {
            Event::Syn(pipe) => self.syn(pipe),
            Event::DialFailed(pipe, why) => self.dial_failed(pipe, why),
            Event::Arrive(pipe, side) => self.arrive(pipe, side),
            Event::Acked(pipe, side, n) => self.acked(pipe, side, n),
            Event::Room(pipe, side) => self.tell_room(pipe, side),
            Event::Lingered(pipe, side) => self.lingered(pipe, side),
            Event::Stalled(pipe, side, before) => self.stalled(pipe, side, before),
            Event::Unreachable(party, since) => self.unreachable(party, since),
            Event::WakeClient(client) => {
                self.clients[client].wake = None;
                self.client(ClientId(client), In::Tick);
            }
            other => self.host_event(other),
        }
        true
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
        self.check();
    }

    /// Lets time pass until something holds; panics if it does not within `within`.
    pub fn until(&mut self, what: &str, within: Duration, mut holds: impl FnMut(&mut World) -> bool) {
        let until = self.now + within;
        while !holds(self) {
            assert!(self.step(until), "not within {within:?}: {what}");
        }
        self.check();
    }

    /// No player saw anything that it should not have seen.
    fn check(&self) {
        for slot in &self.clients {
            if let Actor::Player(p) = &slot.actor {
                assert!(p.faults.is_empty(), "a player at {} saw: {:#?}", p.at(), p.faults);
            }
        }
    }

    fn client_ip(n: usize) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 1, (n / 250) as u8, (n % 250 + 1) as u8))
    }

    fn add(&mut self, actor: Actor) -> ClientId {
        let n = self.clients.len();
        self.clients.push(Slot { actor, ip: Self::client_ip(n), pipe: None, wake: None });
        self.client(ClientId(n), In::Tick);
        ClientId(n)
    }

    /// A publisher of `stream` at a node's RTMP port.
    pub fn publish(&mut self, at: HostId, stream: &str) -> ClientId {
        self.publish_with(at, stream, PublisherConfig::default())
    }

    /// As [`World::publish`], with a behaviour.
    pub fn publish_with(&mut self, at: HostId, stream: &str, config: PublisherConfig) -> ClientId {
        let n = self.clients.len() as u64;
        let to = self.rtmp_addr(at);
        let rng = self.rng.fork("client", n);
        self.add(Actor::Publisher(Box::new(Publisher::new(n, to, stream, config, rng, self.now))))
    }

    /// A player of `stream` at a node's RTMP port.
    pub fn play(&mut self, at: HostId, stream: &str) -> ClientId {
        let to = self.rtmp_addr(at);
        self.add(Actor::Player(Box::new(Player::new(to, stream))))
    }

    /// A publisher.
    pub fn publisher(&self, id: ClientId) -> &Publisher {
        match &self.clients[id.0].actor {
            Actor::Publisher(p) => p,
            _ => panic!("{id:?} is no publisher"),
        }
    }

    /// A player.
    pub fn player(&self, id: ClientId) -> &Player {
        match &self.clients[id.0].actor {
            Actor::Player(p) => p,
            _ => panic!("{id:?} is no player"),
        }
    }

    /// Has a publisher do something.
    pub fn with_publisher(&mut self, id: ClientId, act: impl FnOnce(&mut Publisher, Time)) {
        let now = self.now;
        match &mut self.clients[id.0].actor {
            Actor::Publisher(p) => act(p, now),
            _ => panic!("{id:?} is no publisher"),
        }
        self.after_client(id);
    }

    /// Has a player do something.
    pub fn with_player(&mut self, id: ClientId, act: impl FnOnce(&mut Player)) {
        match &mut self.clients[id.0].actor {
            Actor::Player(p) => act(p),
            _ => panic!("{id:?} is no player"),
        }
        self.after_client(id);
    }

    /// Asks a node by HTTP and lets time pass until the answer is there (10 s at most).
    ///
    /// # Errors
    /// If there is no whole answer: why not.
    pub fn get(&mut self, at: HostId, path: &str) -> Result<(u16, String), String> {
        let to = self.http_addr(at);
        let id = self.add(Actor::Asker(Asker::new(to, path)));
        self.until(
            &format!("an answer about {path}"),
            Duration::from_secs(12),
            |w| matches!(&w.clients[id.0].actor, Actor::Asker(a) if a.result.is_some()),
        );
        match &mut self.clients[id.0].actor {
            Actor::Asker(a) => a.result.take().unwrap_or(Err("no answer".to_owned())),
            _ => Err("no asker".to_owned()),
        }
    }

    /// Hands a client an input and does what it says.
    fn client(&mut self, id: ClientId, input: In<'_>) {
        let now = self.now;
        self.clients[id.0].actor.client().on(input, now);
        self.after_client(id);
    }

    fn after_client(&mut self, id: ClientId) {
        while let Some(out) = self.clients[id.0].actor.client().poll() {
            let pipe = self.clients[id.0].pipe;
            match (out, pipe) {
                (Out::Dial(to), _) => {
                    let ip = self.clients[id.0].ip;
                    let pipe = self.dial(Owner::Client(id), ip, to);
                    self.clients[id.0].pipe = Some((pipe, 0));
                }
                (Out::Send(bytes), Some((pipe, side))) => self.send(pipe, side, bytes),
                (Out::Close(at_once), Some((pipe, side))) => {
                    self.clients[id.0].pipe = None;
                    self.close(pipe, side, at_once);
                }
                (Out::Reading(on), Some((pipe, side))) => self.reading(pipe, side, on),
                (_, None) => {}
            }
        }
        while let Some(note) = self.clients[id.0].actor.client().note() {
            self.trace(format!("client{} {note}", id.0));
        }
        let slot = &mut self.clients[id.0];
        if let Some(at) = slot.actor.client().wake()
            && slot.wake.is_none_or(|w| at < w)
        {
            let at = at.max(self.now);
            slot.wake = Some(at);
            self.at(at, Event::WakeClient(id.0));
        }
    }

    fn is_of(&self, id: ClientId, pipe: u64) -> bool {
        self.clients[id.0].pipe.is_some_and(|(p, _)| p == pipe)
    }

    fn tell_connected(&mut self, owner: Owner, pipe: u64) {
        match owner {
            Owner::Node { host, run, conn } => self.node_connected(host, run, conn, pipe),
            Owner::Client(id) if self.is_of(id, pipe) => self.client(id, In::Connected),
            Owner::Client(_) => {}
        }
    }

    fn tell_writable(&mut self, owner: Owner, pipe: u64, free: usize) {
        use proto_core::io::Input;
        match owner {
            Owner::Node { host, run, conn } => self.node(host, run, Input::Writable { conn, free }),
            Owner::Client(id) if self.is_of(id, pipe) => self.client(id, In::Writable(free)),
            Owner::Client(_) => {}
        }
    }

    fn tell_received(&mut self, owner: Owner, pipe: u64, bytes: &[u8]) {
        use proto_core::io::Input;
        match owner {
            Owner::Node { host, run, conn } => self.node(host, run, Input::Received { conn, bytes }),
            Owner::Client(id) if self.is_of(id, pipe) => self.client(id, In::Received(bytes)),
            Owner::Client(_) => {}
        }
    }

    fn tell_finished(&mut self, owner: Owner, pipe: u64) {
        use proto_core::io::Input;
        match owner {
            Owner::Node { host, run, conn } => self.node(host, run, Input::PeerFinished { conn }),
            Owner::Client(id) if self.is_of(id, pipe) => self.client(id, In::Finished),
            Owner::Client(_) => {}
        }
    }

    fn tell_closed(&mut self, owner: Owner, pipe: u64, code: &'static str, why: &str) {
        match owner {
            Owner::Node { host, run, conn } => self.node_closed(host, run, conn, code, why),
            Owner::Client(id) if self.is_of(id, pipe) => {
                self.clients[id.0].pipe = None;
                self.client(id, In::Closed(why));
            }
            Owner::Client(_) => {}
        }
    }

    /// Where a party is reached.
    fn party_at(&self, ip: IpAddr) -> Option<Party> {
        self.hosts.iter().position(|h| h.ip == ip).map(|h| Party::Host(HostId(h)))
    }

    /// The address of a node's RTMP port.
    pub fn rtmp_addr(&self, at: HostId) -> SocketAddr {
        let h = &self.hosts[at.0];
        SocketAddr::new(h.ip, h.config.rtmp.port)
    }

    /// The address of a node's HTTP port.
    pub fn http_addr(&self, at: HostId) -> SocketAddr {
        let h = &self.hosts[at.0];
        SocketAddr::new(h.ip, h.config.http.port)
    }

    /// The node that runs on a host.
    pub fn node_of(&self, at: HostId) -> Option<&Node> {
        self.hosts[at.0].run.as_ref().map(|r| &r.node)
    }

    /// How often timers have woken the node that runs on a host.
    pub fn wakes(&self, at: HostId) -> u64 {
        self.hosts[at.0].run.as_ref().map_or(0, |r| r.wakes)
    }

    fn logged(&mut self, host: HostId, level: Level, text: String) {
        let name = self.hosts[host.0].config.node.name.clone();
        self.trace(format!("{name} {level:?} {text}"));
        assert!(level != Level::Error, "{name} logged an error: {text}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let noise = |l: &&String| !l.contains(" saw ");
            let mut lines: Vec<&String> = self
                .log
                .iter()
                .rev()
                .filter(noise)
                .take(std::env::var("WORLD_LOG").ok().and_then(|n| n.parse().ok()).unwrap_or(60))
                .collect();
            lines.reverse();
            eprintln!("--- seed {}, at {}; the end of the log:", self.seed, self.now);
            for line in lines {
                eprintln!("{line}");
            }
        }
    }
}
