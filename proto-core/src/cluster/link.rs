//! One link between two nodes over a byte stream: mutual proof of the shared key, agreement on a version, messages,
//! keep-alives.
//!
//! Dialler and listener each send a [`Hello`]; the dialler proves the key first, so a stranger who dials learns
//! nothing to guess the key from. A proof is HMAC-SHA256 (RFC 2104) over the prover's side and both hellos as they
//! stood on the wire: names and versions cannot be changed on the way, and a proof cannot be mirrored.
//! Over TCP the stream itself is neither encrypted nor authenticated: between sites it belongs into a tunnel. Over QUIC
//! ([`super::quic`]) it is both, and the proof also covers a value of the TLS connection that nobody in between has.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

mod accent;

use crate::buf::{Inbox, Outbox};
use crate::cluster::NodeId;
use crate::cluster::keys::{Key, Keys};
use crate::error::{Reason, quote};
use crate::io::Level;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::rand::Rng;
use crate::simulation::{Bug, Site, Speech};
use crate::time::{Deadline, Time};
use crate::wire::link::{Hello, MIN_VERSION, Message, VERSION, decode, encode, split};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It opened the connection.
    Dialler,
    /// It took the connection.
    Listener,
}

impl Side {
    const fn other(self) -> Side {
        match self {
            Side::Dialler => Side::Listener,
            Side::Listener => Side::Dialler,
        }
    }

    const fn label(self) -> &'static [u8] {
        match self {
            Side::Dialler => b"headwater link, dialler",
            Side::Listener => b"headwater link, listener",
        }
    }
}

/// What all links of a node have in common.
#[derive(Clone)]
pub struct Config {
    /// This node's name.
    pub node: NodeId,
    /// The keys that all nodes share (`cluster.key`); none: links to and from loopback addresses only.
    pub keys: Arc<Keys>,
    /// The newest version to speak.
    pub version: u32,
    /// The oldest version to accept.
    pub min_version: u32,
    /// Optional abilities to offer.
    pub features: u64,
    /// The limits in force.
    pub limits: Arc<Limits>,
}

impl Config {
    /// The configuration of this build.
    pub fn new(node: NodeId, keys: Arc<Keys>, limits: Arc<Limits>) -> Config {
        Config { node, keys, version: VERSION, min_version: MIN_VERSION, features: 0, limits }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Nothing of a key may reach a log.
        f.debug_struct("Config").field("node", &self.node).finish_non_exhaustive()
    }
}

/// The other end, as proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub node: NodeId,
    /// The version that both speak.
    pub version: u32,
    /// The abilities that both have.
    pub features: u64,
}

/// What a link can be told.
#[derive(Debug)]
pub enum Input<'a> {
    /// Bytes came.
    Received(&'a [u8]),
    /// The driver can take so many bytes.
    Writable(usize),
    /// The peer will send no more.
    PeerFinished,
    /// Time passed.
    Tick,
    /// Send this. Before the link is up or after it closed, the message is dropped.
    Send(Message),
}

/// What a link says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send bytes.
    Send(Bytes),
    /// The other end proved the key.
    Up(Peer),
    /// The other end said this. Never part of the handshake.
    Message(Message),
    /// The link is over: close the connection once what was sent has left. Nothing follows.
    Closed(Reason),
    /// A line for the operator.
    Log(Level, String),
}

#[derive(Debug)]
enum State {
    /// Our hello is out, theirs is awaited.
    Hello,
    /// Both hellos are known, the peer's proof is awaited.
    Proof(Peer),
    Up,
    Closed,
}

/// One link. See the module's text.
#[derive(Debug)]
pub struct Link {
    config: Config,
    side: Side,
    remote: SocketAddr,
    state: State,
    /// Both hellos as they stood on the wire, ours and theirs.
    hellos: (Bytes, Bytes),
    /// The key of this link: the one that the dialler proves, and the listener proves in turn.
    key: Option<Key>,
    /// What the connection underneath has that no other has.
    binding: Option<[u8; 32]>,
    inbox: Inbox,
    outbox: Outbox,
    events: VecDeque<Output>,
    started: Time,
    heard: Time,
    said: Time,
    skipped_logged: bool,
}

/// Whether an address is this host's own, also when written as IPv4 within IPv6.
fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// Codes that a peer may give when it ends a link, so that both ends count the same word.
const BYE_CODES: &[&str] = &[
    "link_backlog",
    "link_handshake_timeout",
    "link_key",
    "link_malformed",
    "link_name",
    "link_order",
    "link_silent",
    "link_version",
];

impl Link {
    /// A link over a fresh connection to or from `remote`. `rng` makes the nonce. Outputs wait already.
    pub fn new(mut config: Config, side: Side, remote: SocketAddr, mut rng: Rng, now: Time) -> Link {
        match config.limits.simulation.speech() {
            Some(Speech::Newer) => config.version += 1,
            Some(Speech::Foreign(newest, oldest)) => (config.version, config.min_version) = (newest, oldest),
            Some(Speech::Older) | None => {}
        }
        let cap = config.limits.link_message_bytes_before.saturating_add(4);
        let hello = encode(&Message::Hello(Hello {
            version: config.version,
            min_version: config.min_version,
            features: config.features,
            node: config.node.clone(),
            nonce: rng.bytes(),
        }));
        let mut link = Link {
            side,
            remote,
            state: State::Hello,
            hellos: (hello.head.slice(4..), Bytes::new()),
            key: None,
            binding: None,
            inbox: Inbox::new(cap),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            started: now,
            heard: now,
            said: now,
            skipped_logged: false,
            config,
        };
        if link.config.keys.is_empty() && !is_loopback(remote.ip()) {
            link.close(
                Reason::local(
                    "link_no_key",
                    format!(
                        "refused a link with {remote}: without cluster.key nodes link on loopback addresses only; \
                         set the same cluster.key on every node"
                    ),
                ),
                false,
            );
        } else {
            link.outbox.push(hello.head);
        }
        link
    }

    /// Ties the proof of the key to a connection underneath that is secret: `binding` is a value that only its two ends
    /// know (RFC 9266), so that a proof cannot be passed on through somebody between them. Said before anything came.
    pub fn bind_to(&mut self, binding: [u8; 32]) {
        self.binding = Some(binding);
    }

    /// Bytes that wait for the other end. A sender of frames skips to the next key frame when they are too many.
    pub fn backlog(&self) -> usize {
        self.outbox.queued()
    }

    /// Bytes that came and do not make a whole message yet.
    pub fn partial(&self) -> usize {
        self.inbox.len()
    }

    /// Whether the other end has proved the key and the link has not closed.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up)
    }

    /// The address of the other end.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    fn push(&mut self, message: &Message, now: Time) {
        let encoded = match self.config.limits.simulation.speech() {
            Some(speech) => accent::encode_as(message, speech),
            None => encode(message),
        };
        self.outbox.push(encoded.head);
        self.outbox.push(encoded.tail);
        self.said = now;
    }

    fn close(&mut self, reason: Reason, tell: bool) {
        if matches!(self.state, State::Closed) {
            return;
        }
        if tell {
            let bye = Message::Bye { code: reason.code.to_owned(), text: reason.text.to_string() };
            self.outbox.push(encode(&bye).head);
        } else {
            self.outbox.clear();
        }
        self.end(reason);
    }

    fn end(&mut self, reason: Reason) {
        if !matches!(self.state, State::Closed) {
            self.inbox.consume(usize::MAX);
            self.state = State::Closed;
            self.events.push_back(Output::Closed(reason));
        }
    }

    fn refuse(&mut self, code: &'static str, text: String) {
        self.close(Reason::peer(code, text), true);
    }

    /// Takes the keys that the node has now. Answers whether the link may stay: its key is still accepted, or none was proved
    /// yet.
    pub fn set_keys(&mut self, keys: Arc<Keys>) -> bool {
        self.config.keys = keys;
        !self.is_up() || self.key.is_some_and(|key| self.config.keys.accepts(&key))
    }

    fn proof(&self, by: Side, key: &Key) -> Hmac<Sha256> {
        // The key was hashed to 32 bytes; it is padded to one block (RFC 2104, section 2).
        let mut block = [0; 64];
        for (slot, byte) in block.iter_mut().zip(key) {
            *slot = *byte;
        }
        let (ours, theirs) = (&self.hellos.0, &self.hellos.1);
        let (dialler, listener) = match self.side {
            Side::Dialler => (ours, theirs),
            Side::Listener => (theirs, ours),
        };
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
        let binding = self.binding.as_ref().map(<[u8; 32]>::as_slice);
        for part in [by.label(), dialler, listener].into_iter().chain(binding) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }

    fn send_proof(&mut self, key: Key, now: Time) {
        self.key = Some(key);
        let hmac = self.proof(self.side, &key).finalize().into_bytes().into();
        self.push(&Message::Proof { hmac }, now);
    }

    fn received(&mut self, mut bytes: &[u8], now: Time) {
        while !matches!(self.state, State::Closed) {
            let taken = self.inbox.fill(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            let limits = &self.config.limits;
            let limit = match self.state {
                State::Up => limits.link_message_bytes,
                _ => limits.link_message_bytes_before,
            };
            match split(&mut self.inbox, limit) {
                Ok(Some(raw)) => self.message(raw, now),
                // A whole message always fits, so a full inbox cannot end here with bytes left over.
                Ok(None) => break,
                Err(e) => self.malformed(e.0),
            }
        }
    }

    fn malformed(&mut self, what: &str) {
        let remote = self.remote;
        self.refuse(
            "link_malformed",
            format!("{remote} does not speak the node protocol (or a broken version of it): it sent {what}"),
        );
    }

    fn message(&mut self, raw: Bytes, now: Time) {
        let message = match decode(raw.clone()) {
            Ok(Some(message)) => message,
            Ok(None) => {
                if !std::mem::replace(&mut self.skipped_logged, true) {
                    let text =
                        format!("{} sends messages that this version does not know; skipped", self.remote);
                    self.events.push_back(Output::Log(Level::Debug, text));
                }
                return;
            }
            Err(e) => return self.malformed(e.0),
        };
        match (&self.state, message) {
            (_, Message::Bye { code, text }) => self.bye(&code, &text),
            (State::Hello, Message::Hello(hello)) => self.hello(hello, raw, now),
            (State::Proof(_), Message::Proof { hmac }) => self.proved(&hmac, now),
            (State::Up, Message::Ping) => {}
            (State::Up, Message::Hello(_) | Message::Proof { .. }) | (State::Hello | State::Proof(_), _) => {
                let text = format!("{} sent handshake messages out of order", self.remote);
                self.refuse("link_order", text);
            }
            (State::Up, message) => self.events.push_back(Output::Message(message)),
            (State::Closed, _) => {}
        }
    }

    fn bye(&mut self, code: &str, text: &str) {
        let known = BYE_CODES.iter().find(|c| **c == code);
        let text = format!("{} ended the link: {}", self.remote, quote(text));
        // What was said before still leaves, as it would have if the Bye had come a moment later.
        self.end(Reason::peer(known.copied().unwrap_or("link_bye"), text));
    }

    fn hello(&mut self, hello: Hello, raw: Bytes, now: Time) {
        let remote = self.remote;
        let (ours, theirs) = (&self.config, &hello);
        let version = ours.version.min(theirs.version);
        if version < ours.min_version.max(theirs.min_version) {
            let text = format!(
                "{remote} speaks versions {} to {} of the node protocol, this node {} to {}; upgrade the older of the two",
                theirs.min_version, theirs.version, ours.min_version, ours.version
            );
            return self.refuse("link_version", text);
        }
        if ours.node == theirs.node {
            let name = quote(&ours.node.0);
            let text = format!("{remote} is called {name} too; give every node a node.name of its own");
            return self.refuse("link_name", text);
        }
        let features = ours.features & theirs.features;
        self.state = State::Proof(Peer { node: hello.node, version, features });
        self.hellos.1 = raw;
        if self.side == Side::Dialler {
            self.send_proof(self.config.keys.shown(), now);
        }
    }

    fn proved(&mut self, hmac: &[u8; 32], now: Time) {
        // The listener answers with the key that the dialler showed.
        let may = match self.key {
            Some(key) => vec![key],
            None => self.config.keys.accepted(),
        };
        let right = |key: &&Key| {
            self.config.keys.accepts(key) && self.proof(self.side.other(), key).verify_slice(hmac).is_ok()
        };
        let Some(key) = may.iter().find(right).copied() else {
            let text = format!(
                "{} does not have this cluster's key; set the same cluster.key on every node",
                self.remote
            );
            return self.refuse("link_key", text);
        };
        if self.side == Side::Listener {
            self.send_proof(key, now);
        }
        if let State::Proof(peer) = std::mem::replace(&mut self.state, State::Up) {
            self.inbox.set_cap(self.config.limits.link_message_bytes.saturating_add(4));
            self.events.push_back(Output::Up(peer));
        }
    }

    fn send(&mut self, message: Message, now: Time) {
        if !self.is_up() {
            return;
        }
        self.push(&message, now);
        let limits = &self.config.limits;
        // Frames are held back long before this; what fills a link so far is a peer that takes nothing at all.
        let most = limits.link_queue_bytes.saturating_add(limits.link_message_bytes.saturating_mul(2));
        if self.outbox.queued() > most {
            let queued = self.outbox.queued();
            let text = format!("{} takes too little: {queued} bytes wait for it", self.remote);
            self.close(Reason::limit("link_backlog", text), false);
        }
    }

    /// How long the peer may be silent. A TCP connection of a process that ended breaks at once; a QUIC connection only falls
    /// silent, so it is looked at more closely, that the cluster finds out before the lease is over.
    fn patience(&self) -> Duration {
        let lease = Duration::from_millis(self.config.limits.lease_ms);
        if self.binding.is_some() { lease / 3 * 2 } else { lease }
    }

    fn silence(&self) -> Deadline {
        let limits = &self.config.limits;
        match self.state {
            State::Up => Deadline::new(self.heard + self.patience(), "link silent"),
            _ => Deadline::new(
                self.started + Duration::from_millis(limits.link_handshake_ms),
                "link handshake",
            ),
        }
    }

    fn keepalive(&self) -> Deadline {
        let early = self.config.limits.simulation.happens(Site::EarlyKeepAlive, self.said.as_nanos());
        let often = if self.binding.is_some() { 2 } else { 1 };
        let every = Duration::from_millis(self.config.limits.report_ms) / if early { 10 } else { often };
        Deadline::new(self.said + every, "link keep-alive")
    }

    fn tick(&mut self, now: Time) {
        let (remote, limits) = (self.remote, &self.config.limits);
        if now >= self.silence().at {
            match self.state {
                State::Closed => {}
                State::Up => {
                    let text = format!("nothing heard from {remote} for {} ms", self.patience().as_millis());
                    self.close(Reason::peer("link_silent", text), true);
                }
                State::Hello | State::Proof(_) => {
                    let text = format!(
                        "{remote} did not finish the handshake within {} ms",
                        limits.link_handshake_ms
                    );
                    self.close(Reason::peer("link_handshake_timeout", text), true);
                }
            }
        }
        let stays = self.config.limits.simulation.planted(Bug::TimerInThePast);
        if self.is_up() && now >= self.keepalive().at && !stays {
            self.push(&Message::Ping, now);
        }
    }
}

impl Machine for Link {
    type Input<'a> = Input<'a>;
    type Output = Output;

    fn handle(&mut self, input: Input<'_>, now: Time) {
        match input {
            Input::Received(bytes) => {
                if !bytes.is_empty() {
                    self.heard = now;
                }
                self.received(bytes, now);
            }
            Input::Writable(free) => self.outbox.set_credit(free),
            Input::PeerFinished => {
                let text = format!("{} closed the connection", self.remote);
                self.close(Reason::peer("link_finished", text), false);
            }
            Input::Tick => self.tick(now),
            Input::Send(message) => self.send(message, now),
        }
    }

    fn poll(&mut self) -> Option<Output> {
        match self.outbox.pop() {
            Some(bytes) => Some(Output::Send(bytes)),
            None => self.events.pop_front(),
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        match self.state {
            State::Closed => None,
            State::Up => Deadline::earliest(Some(self.silence()), Some(self.keepalive())),
            State::Hello | State::Proof(_) => Some(self.silence()),
        }
    }
}
