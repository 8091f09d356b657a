//! The clients of the simulated world on real sockets: the same machines, which see what is missing, repeated or another's,
//! against real processes. Single-threaded, and cheap: a crowd of them costs less than one browser.

mod ask;
mod line;

pub use ask::{Played, Published};

use crate::world::actors::player::Player;
use crate::world::actors::player::PlayerConfig;
use crate::world::actors::publisher::{Publisher, PublisherConfig};
use crate::world::actors::rtsp::{RtspPlayer, RtspPublisher};
use crate::world::actors::webrtc::{Outside, WhepConfig, Whip, WhipConfig};
use crate::world::actors::{Client, Conn, In, Out};
use line::{FREE, Line};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use proto_core::rand::Rng;
use proto_core::time::Time;
use std::any::Any;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(usize);

struct Slot {
    actor: Box<dyn Client>,
    ip: Ipv4Addr,
    lines: BTreeMap<Conn, (Token, Line)>,
    ports: BTreeMap<u16, (Token, UdpSocket)>,
    wake: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
enum Socket {
    Tcp(Id, Conn),
    Udp(Id, u16),
}

/// A protocol of publishers and players.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// RTMP.
    Rtmp,
    /// RTSP, media over the connection.
    Rtsp,
    /// WHIP and WHEP.
    WebRtc,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [Protocol::Rtmp, Protocol::Rtsp, Protocol::WebRtc];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Rtmp => "RTMP",
            Protocol::Rtsp => "RTSP",
            Protocol::WebRtc => "WHIP/WHEP",
        }
    }

    /// Its default port, of signalling.
    pub const fn port(self) -> u16 {
        match self {
            Protocol::Rtmp => 1935,
            Protocol::Rtsp => 8554,
            Protocol::WebRtc => 5080,
        }
    }
}

/// Clients on real sockets.
pub struct Live {
    poll: Poll,
    events: Events,
    start: Instant,
    rng: Rng,
    next: usize,
    number: u64,
    clients: BTreeMap<Id, Slot>,
    sockets: BTreeMap<Token, Socket>,
    tokens: usize,
    /// What clients saw that must never be: who, the invariant, and what.
    pub violations: Vec<(Id, &'static str, String)>,
    buffer: Vec<u8>,
}

impl Live {
    /// No clients yet.
    ///
    /// # Panics
    /// Without descriptors.
    pub fn new(seed: u64) -> Live {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Live {
            poll: Poll::new().expect("there is a descriptor"),
            events: Events::with_capacity(256),
            start: Instant::now(),
            rng: Rng::new(bytes),
            next: 0,
            number: 0,
            clients: BTreeMap::new(),
            sockets: BTreeMap::new(),
            tokens: 0,
            violations: Vec::new(),
            buffer: vec![0; 64 << 10],
        }
    }

    /// The time of the clients.
    pub fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    /// Adds a client at an address of this host, which begins at once.
    pub fn add(&mut self, actor: Box<dyn Client>, ip: Ipv4Addr) -> Id {
        self.next += 1;
        let id = Id(self.next);
        let slot = Slot { actor, ip, lines: BTreeMap::new(), ports: BTreeMap::new(), wake: None };
        self.clients.insert(id, slot);
        self.tell(id, In::Address(ip.into()));
        self.tell(id, In::Tick);
        id
    }

    /// A publisher of `stream` at a node, which comes again after `again`.
    pub fn publish(
        &mut self,
        by: Protocol,
        from: Ipv4Addr,
        to: Ipv4Addr,
        stream: &str,
        again: Option<Duration>,
    ) -> Id {
        let (number, now) = (self.number(), self.now());
        let to = SocketAddr::new(to.into(), by.port());
        let rng = self.rng.fork("client", number);
        let config = PublisherConfig { again, ..PublisherConfig::default() };
        let actor: Box<dyn Client> = match by {
            Protocol::Rtmp => Box::new(Publisher::new(number, to, stream, config, rng, now)),
            Protocol::Rtsp => Box::new(RtspPublisher::new(number, to, stream, config, rng, now)),
            Protocol::WebRtc => {
                let silence = Duration::from_secs(3);
                self.outside(number, to, stream).whip(WhipConfig { again, silence, ..WhipConfig::default() })
            }
        };
        self.add(actor, from)
    }

    /// A player of `stream` at a node, which comes again after `again`.
    pub fn play(
        &mut self,
        by: Protocol,
        from: Ipv4Addr,
        to: Ipv4Addr,
        stream: &str,
        again: Option<Duration>,
    ) -> Id {
        let number = self.number();
        let to = SocketAddr::new(to.into(), by.port());
        let rng = self.rng.fork("client", number);
        let config = PlayerConfig { again, ..PlayerConfig::default() };
        let actor: Box<dyn Client> = match by {
            Protocol::Rtmp => Box::new(Player::with(to, stream, config, rng)),
            Protocol::Rtsp => Box::new(RtspPlayer::with(to, stream, config, rng)),
            Protocol::WebRtc => {
                let silence = Duration::from_secs(3);
                self.outside(number, to, stream).whep(WhepConfig { again, silence, ..WhepConfig::default() })
            }
        };
        self.add(actor, from)
    }

    fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn outside<'a>(&'a self, number: u64, to: SocketAddr, stream: &'a str) -> Outside<'a> {
        Outside { to, stream, number, rng: &self.rng, base: self.start, now: self.now() }
    }

    /// A client, if it is one of that kind.
    pub fn actor<T: Client>(&self, id: Id) -> Option<&T> {
        let actor: &dyn Any = self.clients.get(&id)?.actor.as_ref();
        actor.downcast_ref()
    }

    /// Has a client do something, if it is one of that kind.
    pub fn with<T: Client, R>(&mut self, id: Id, act: impl FnOnce(&mut T, Time) -> R) -> Option<R> {
        let now = self.now();
        let actor: &mut dyn Any = self.clients.get_mut(&id)?.actor.as_mut();
        let result = act(actor.downcast_mut()?, now);
        self.after(id);
        Some(result)
    }

    /// Sends a client to another node the next time that it connects.
    pub fn send_to(&mut self, id: Id, ip: Ipv4Addr) {
        let at = |by: Protocol| SocketAddr::new(ip.into(), by.port());
        self.with(id, |p: &mut Publisher, _| p.goes_to(at(Protocol::Rtmp)));
        self.with(id, |p: &mut RtspPublisher, _| p.goes_to(at(Protocol::Rtsp)));
        self.with(id, |p: &mut Whip, _| p.goes_to(at(Protocol::WebRtc)));
        self.with(id, |p: &mut Player, _| p.goes_to(at(Protocol::Rtmp)));
        self.with(id, |p: &mut RtspPlayer, _| p.goes_to(at(Protocol::Rtsp)));
        self.with(id, |p: &mut crate::world::actors::webrtc::Whep, _| p.goes_to(at(Protocol::WebRtc)));
    }

    /// Has a client leave in an orderly way.
    pub fn leave(&mut self, id: Id) {
        let now = self.now();
        if let Some(slot) = self.clients.get_mut(&id) {
            slot.actor.leave(now);
            self.after(id);
        }
    }

    /// Forgets a client; what it has open is closed without a word.
    pub fn remove(&mut self, id: Id) {
        let Some(mut slot) = self.clients.remove(&id) else { return };
        for (token, mut line) in std::mem::take(&mut slot.lines).into_values() {
            self.sockets.remove(&token);
            line.deregister(self.poll.registry());
        }
        for (token, mut socket) in std::mem::take(&mut slot.ports).into_values() {
            self.sockets.remove(&token);
            drop(self.poll.registry().deregister(&mut socket));
        }
    }

    /// How many clients there are.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Lets clients do what they do until `done` says so, at most for a while. Answers whether it did.
    pub fn until(&mut self, within: Duration, mut done: impl FnMut(&mut Live) -> bool) -> bool {
        let end = Instant::now() + within;
        loop {
            if done(self) {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            self.turn(end);
        }
    }

    /// Lets clients do what they do for a while.
    pub fn run(&mut self, time: Duration) {
        self.until(time, |_| false);
    }

    /// One turn: what came, and what is due. Waits 10 ms at most.
    fn turn(&mut self, end: Instant) {
        let now = self.now();
        let wake = self.clients.values().filter_map(|s| s.wake).min().map(|at| at.since(now));
        let most = end.saturating_duration_since(Instant::now()).min(Duration::from_millis(10));
        let wait = wake.map_or(most, |w| w.min(most));
        // Its only failure is that a signal came.
        drop(self.poll.poll(&mut self.events, Some(wait)));
        let ready: Vec<(Token, bool, bool)> = self
            .events
            .iter()
            .map(|e| (e.token(), e.is_readable() || e.is_read_closed() || e.is_error(), e.is_writable()))
            .collect();
        for (token, readable, writable) in ready {
            match self.sockets.get(&token).copied() {
                Some(Socket::Tcp(id, conn)) => self.tcp(id, conn, readable, writable),
                Some(Socket::Udp(id, port)) => self.udp(id, port),
                None => {}
            }
        }
        let now = self.now();
        let due: Vec<Id> = self
            .clients
            .iter()
            .filter(|(_, s)| s.wake.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            if let Some(slot) = self.clients.get_mut(&id) {
                slot.wake = None;
            }
            self.tell(id, In::Tick);
        }
    }

    fn tell(&mut self, id: Id, input: In<'_>) {
        let now = self.now();
        if let Some(slot) = self.clients.get_mut(&id) {
            slot.actor.on(input, now);
            self.after(id);
        }
    }

    fn after(&mut self, id: Id) {
        while let Some(out) = self.clients.get_mut(&id).and_then(|s| s.actor.poll()) {
            self.does(id, out);
        }
        if let Some(slot) = self.clients.get_mut(&id) {
            while slot.actor.notes().take().is_some() {}
            slot.wake = slot.actor.wake();
        }
    }

    fn token(&mut self, of: Socket) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.sockets.insert(token, of);
        token
    }

    fn does(&mut self, id: Id, out: Out) {
        match out {
            Out::Dial(conn, to) => {
                let Some(ip) = self.clients.get(&id).map(|s| s.ip) else { return };
                let token = self.token(Socket::Tcp(id, conn));
                match Line::dial(self.poll.registry(), token, ip, to) {
                    Ok(line) => {
                        if let Some(slot) = self.clients.get_mut(&id) {
                            slot.lines.insert(conn, (token, line));
                        }
                    }
                    Err(why) => {
                        self.sockets.remove(&token);
                        self.tell(id, In::Closed(conn, &why.to_string()));
                    }
                }
            }
            Out::Send(conn, bytes) => {
                if let Some((_, line)) = self.clients.get_mut(&id).and_then(|s| s.lines.get_mut(&conn)) {
                    line.queue.push_back(bytes);
                    self.tcp(id, conn, false, true);
                }
            }
            Out::Close(conn, at_once) => {
                let Some((_, line)) = self.clients.get_mut(&id).and_then(|s| s.lines.get_mut(&conn)) else {
                    return;
                };
                line.closing = true;
                if at_once {
                    line.queue.clear();
                }
                self.tcp(id, conn, false, true);
            }
            Out::Reading(conn, on) => {
                if let Some((_, line)) = self.clients.get_mut(&id).and_then(|s| s.lines.get_mut(&conn)) {
                    line.reading = on;
                    self.tcp(id, conn, on, false);
                }
            }
            Out::Datagram { port, to, bytes } => self.datagram(id, port, to, &bytes),
            Out::Violation(invariant, text) => self.violations.push((id, invariant, text)),
            // Abuses of the simulated network.
            Out::Forged { .. } | Out::Tap(_) | Out::Vanish => {}
        }
    }

    fn datagram(&mut self, id: Id, port: u16, to: SocketAddr, bytes: &[u8]) {
        let Some(slot) = self.clients.get(&id) else { return };
        if !slot.ports.contains_key(&port) {
            let ip = slot.ip;
            let token = self.token(Socket::Udp(id, port));
            let Ok(mut socket) = UdpSocket::bind(SocketAddr::new(ip.into(), port)) else { return };
            let kept = self.poll.registry().register(&mut socket, token, Interest::READABLE);
            if let (Ok(()), Some(slot)) = (kept, self.clients.get_mut(&id)) {
                slot.ports.insert(port, (token, socket));
            }
        }
        if let Some((_, socket)) = self.clients.get(&id).and_then(|s| s.ports.get(&port)) {
            // What the kernel does not take is lost, as on any network.
            drop(socket.send_to(bytes, to));
        }
    }

    fn udp(&mut self, id: Id, port: u16) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some((_, socket)) = self.clients.get(&id).and_then(|s| s.ports.get(&port)) {
            let Ok((len, from)) = socket.recv_from(&mut buffer) else { break };
            let bytes = buffer.get(..len).unwrap_or_default().to_vec();
            self.tell(id, In::Datagram { port, from, bytes: &bytes });
        }
        self.buffer = buffer;
    }

    fn tcp(&mut self, id: Id, conn: Conn, readable: bool, writable: bool) {
        let stands = |live: &mut Live| {
            live.clients.get_mut(&id).and_then(|s| s.lines.get_mut(&conn)).map(|(_, line)| line.stand())
        };
        match stands(self) {
            Some(Ok(true)) => {
                self.tell(id, In::Connected(conn));
                self.tell(id, In::Writable(conn, FREE));
            }
            Some(Ok(false)) => {}
            Some(Err(why)) => return self.gone(id, conn, &why.to_string()),
            None => return,
        }
        if writable {
            let flushed =
                self.clients.get_mut(&id).and_then(|s| s.lines.get_mut(&conn)).map(|(_, l)| l.flush());
            match flushed {
                Some(Ok(true)) => self.tell(id, In::Writable(conn, FREE)),
                Some(Ok(false)) | None => {}
                Some(Err(why)) => return self.gone(id, conn, &why.to_string()),
            }
            let over = self.clients.get(&id).and_then(|s| s.lines.get(&conn));
            if over.is_some_and(|(_, l)| l.closing && l.queue.is_empty()) {
                // Who closes is not told so.
                if let Some((token, mut line)) = self.clients.get_mut(&id).and_then(|s| s.lines.remove(&conn))
                {
                    self.sockets.remove(&token);
                    line.deregister(self.poll.registry());
                }
                return;
            }
        }
        if readable {
            let mut buffer = std::mem::take(&mut self.buffer);
            loop {
                let line = self.clients.get_mut(&id).and_then(|s| s.lines.get_mut(&conn));
                let Some(read) = line.and_then(|(_, l)| l.read(&mut buffer)) else { break };
                match read {
                    Ok(0) => {
                        self.tell(id, In::Finished(conn));
                        self.gone(id, conn, "the node closed the connection");
                        break;
                    }
                    Ok(n) => {
                        let bytes = buffer.get(..n).unwrap_or_default().to_vec();
                        self.tell(id, In::Received(conn, &bytes));
                    }
                    Err(why) => {
                        self.gone(id, conn, &why.to_string());
                        break;
                    }
                }
            }
            self.buffer = buffer;
        }
    }

    fn gone(&mut self, id: Id, conn: Conn, why: &str) {
        if let Some((token, mut line)) = self.clients.get_mut(&id).and_then(|s| s.lines.remove(&conn)) {
            self.sockets.remove(&token);
            line.deregister(self.poll.registry());
            self.tell(id, In::Closed(conn, why));
        }
    }
}
