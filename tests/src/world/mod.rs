//! Whole clusters in one thread: real [`Node`]s and clients on a virtual network, in virtual time, from one seed.
//!
//! A [`World`] is a queue of events ordered by time and number. Whatever is random in it is drawn from the seed, by
//! keyed hashes of what it is for and not in sequence, so that a change in one place does not shuffle the rest. The
//! same seed gives the same [`World::hash`] of all that the nodes said and the players saw.
//!
//! It has: any number of nodes that are started, crashed, restarted, drained, paused, cut off or parted, in both
//! directions or in one (nothing passes, nobody is told), with clocks that run fast or jump, without descriptors or
//! names; TCP with latency, windows, credit, re-chunking, half-close, reset, refused and unanswered dials, and
//! keep-alive; UDP; access links with [conditions](link::Conditions); [translators](nat::Behaviour); publishers by RTMP (the project's own
//! client), players by RTMP (the independent `rml_rtmp`) that check order, integrity, key frames and times of all
//! they get, and clients that ask by HTTP. A line of level error in a node's log ends the run.
//!
//! Publishers and players by WebRTC are str0m's, with [checks of their own](actors::webrtc). Every byte of every datagram
//! that a node sends is in the hash, so a world with WebRTC replays only inside `determinism::os::run`.
//!
//! It does not have yet: evil clients, and generated sequences of operations. The bytes of the independent RTMP client
//! (its random numbers and its clock are the system's) are not in the hash.

pub mod actors;
pub mod check;
mod client;
mod event;
mod host;
pub mod interference;
pub mod media;
pub mod net;

use actors::{Conn, In};
use client::Slot;
use event::{Event, Queue};
use host::Host;
pub use host::Resolver;
use net::Net;
pub use net::link;
pub use net::nat;
use net::nat::NatId;
use proto_core::guard::INJECTED;
use proto_core::io::{ConnId, Level};
use proto_core::node::Node;
use proto_core::rand::Rng;
use proto_core::simulation::Switches;
use proto_core::time::Time;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};
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
    Client { id: ClientId, conn: Conn },
}

impl Owner {
    fn party(self) -> Party {
        match self {
            Owner::Node { host, .. } => Party::Host(host),
            Owner::Client { id, .. } => Party::Client(id),
        }
    }
}

/// Something that must never be, and was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's name: `S1` to `S16`, `L1` to `L9`, or `LOG`, `PANIC` and the like.
    pub invariant: &'static str,
    /// What was seen.
    pub text: String,
    /// When.
    pub at: Time,
}

/// A world. See the module's text.
pub struct World {
    seed: u64,
    rng: Rng,
    base: Instant,
    now: Time,
    same: u64,
    events: u64,
    queue: Queue,
    hosts: Vec<Host>,
    clients: Vec<Slot>,
    addresses: BTreeMap<IpAddr, Party>,
    names: BTreeMap<String, Vec<IpAddr>>,
    net: Net,
    hash: DefaultHasher,
    verbose: bool,
    sites: bool,
    log: Vec<String>,
    violation: Option<Violation>,
    switches: Switches,
    checks: check::Checkers,
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
            same: 0,
            events: 0,
            queue: Queue::default(),
            hosts: Vec::new(),
            clients: Vec::new(),
            addresses: BTreeMap::new(),
            names: BTreeMap::new(),
            net: Net::default(),
            hash: DefaultHasher::new(),
            verbose: true,
            sites: false,
            log: Vec::new(),
            violation: None,
            switches: Switches::default(),
            checks: check::Checkers::default(),
        }
    }

    /// What the simulation switches on in nodes that are added from now on.
    pub fn switch(&mut self, switches: Switches) {
        self.switches = switches;
    }

    /// An empty world that keeps no log: for long sweeps. What it does, and its hash, are the same.
    pub fn quiet(seed: u64) -> World {
        let mut world = World::new(seed);
        world.verbose = false;
        world
    }

    /// Whether unlikely but legal things happen in the nodes of hosts that are added from now on. Which, and when, follows
    /// from the seed. Panics of sessions are among them.
    pub fn sites(&mut self, on: bool) {
        self.sites = on;
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
        self.queue.push(at.max(self.now), event);
    }

    /// Writes a line into the log, for whoever reads it later. Changes nothing else.
    pub fn note(&mut self, text: impl FnOnce() -> String) {
        self.trace(text);
    }

    /// Everything that was logged, for whoever outlives the world.
    pub fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    /// How many things have happened.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// How many RTP packets have reached a node or a client (RFC 5761 section 4 tells them from RTCP).
    pub fn media_packets(&self) -> u64 {
        self.net.media
    }

    /// From now on clients that join sit behind this translator; none: their addresses are public.
    pub fn behind(&mut self, nat: Option<NatId>) {
        self.net.behind = nat;
    }

    /// Writes a line into the log, if anybody wants one.
    fn trace(&mut self, text: impl FnOnce() -> String) {
        if self.verbose {
            self.log.push(format!("{} {}", self.now, text()));
        }
    }

    /// Remembers that an invariant is broken. The run ends: in a scenario by a panic, else for its caller to see.
    pub fn violate(&mut self, invariant: &'static str, text: String) {
        self.trace(|| format!("VIOLATION {invariant}: {text}"));
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant, text, at: self.now });
        }
    }

    /// The first broken invariant.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Does the next thing that is due by `until`; `false` if there is none, or if an invariant is broken.
    pub fn step(&mut self, until: Time) -> bool {
        if self.queue.next().is_none_or(|at| at > until) || self.violation.is_some() {
            return false;
        }
        let Some((at, event)) = self.queue.pop() else { return false };
        self.events += 1;
        self.same = if at == self.now { self.same + 1 } else { 0 };
        if self.same >= SAME {
            self.violate("S16", format!("something runs in circles: {event:?}"));
        }
        self.look_if_due(at);
        self.now = at;
        match event {
            Event::Syn(pipe, attempt) => self.syn(pipe, attempt),
            Event::DialFailed(pipe, why) => self.dial_failed(pipe, why),
            Event::Arrive(pipe, side) => self.arrive(pipe, side),
            Event::Acked(pipe, side) => self.flush(pipe, side),
            Event::AckAgain(pipe, side) => self.ack_again(pipe, side),
            Event::Room(pipe, side) => self.tell_room(pipe, side),
            Event::Lingered(pipe, side) => self.lingered(pipe, side),
            Event::Stalled(pipe, side) => self.stalled(pipe, side),
            Event::KeepAlive(pipe, side) => self.ask_alive(pipe, side),
            Event::WakeClient(client) => self.wake_client(client),
            Event::Queued { to, from, bytes } => self.datagram_queued(to, from, bytes),
            Event::Datagram { to, from, bytes } => self.datagram_arrives(to, from, bytes),
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
            let more = self.step(until);
            self.check();
            assert!(more, "not within {within:?}: {what}");
        }
        self.check();
    }

    fn check(&self) {
        if let Some(v) = &self.violation {
            panic!("{} is broken at {}: {}", v.invariant, v.at, v.text);
        }
    }

    fn tell_connected(&mut self, owner: Owner, pipe: u64) {
        match owner {
            Owner::Node { host, run, conn } => self.node_connected(host, run, conn, pipe),
            Owner::Client { id, conn } if self.is_of(id, conn, pipe) => self.client(id, In::Connected(conn)),
            Owner::Client { .. } => {}
        }
    }

    fn tell_writable(&mut self, owner: Owner, pipe: u64, free: usize) {
        use proto_core::io::Input;
        match owner {
            Owner::Node { host, run, conn } => self.node(host, run, Input::Writable { conn, free }),
            Owner::Client { id, conn } if self.is_of(id, conn, pipe) => {
                self.client(id, In::Writable(conn, free))
            }
            Owner::Client { .. } => {}
        }
    }

    fn tell_received(&mut self, owner: Owner, pipe: u64, bytes: &[u8]) {
        use proto_core::io::Input;
        match owner {
            Owner::Node { host, run, conn } => {
                self.heard_bytes(host, pipe);
                self.node(host, run, Input::Received { conn, bytes });
            }
            Owner::Client { id, conn } if self.is_of(id, conn, pipe) => {
                self.client(id, In::Received(conn, bytes))
            }
            Owner::Client { .. } => {}
        }
    }

    fn tell_finished(&mut self, owner: Owner, pipe: u64) {
        use proto_core::io::Input;
        match owner {
            Owner::Node { host, run, conn } => self.node(host, run, Input::PeerFinished { conn }),
            Owner::Client { id, conn } if self.is_of(id, conn, pipe) => self.client(id, In::Finished(conn)),
            Owner::Client { .. } => {}
        }
    }

    fn tell_closed(&mut self, owner: Owner, pipe: u64, code: &'static str, why: &str) {
        match owner {
            Owner::Node { host, run, conn } => self.node_closed(host, run, conn, code, why),
            Owner::Client { id, conn } if self.is_of(id, conn, pipe) => self.client_closed(id, conn, why),
            Owner::Client { .. } => {}
        }
    }

    /// Where a party is reached.
    fn party_at(&self, ip: IpAddr) -> Option<Party> {
        self.addresses.get(&ip).copied()
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
        self.trace(|| format!("{name} {level:?} {text}"));
        // A panic that the simulation itself caused is no news.
        if level == Level::Error && !text.contains(INJECTED) {
            self.violate("LOG", format!("{name} logged an error: {text}"));
        }
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
