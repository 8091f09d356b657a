//! Links between nodes over QUIC (RFC 9000): registration, control and relay on one connection.
//!
//! A [`Link`](super::link::Link) speaks on the first stream of the connection, as it does over TCP; it proves the shared
//! key over a value that only the two ends of this TLS connection have, so that nobody can stand between. Relayed media
//! goes on streams of its own, one for each group of pictures and track ([`outgoing`], [`incoming`]), so that a lost
//! packet holds up nothing else. Congestion control is [`rate`].
//!
//! quinn-proto keeps the protocol. Its randomness and connection ids come out of the node's generator, its time is the
//! node's. Nobody whose address is not validated makes it keep anything: a first packet without a token is answered
//! with a Retry, which is shorter than it (S10).
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod incoming;
mod keys;
mod outgoing;
pub mod rate;
mod session;
#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

use crate::error::Reason;
use crate::io::{Batch, ConnId, SocketId};
use crate::limits::Limits;
use crate::machine::Machine;
use crate::media::track::TrackId;
use crate::rand::Rng;
use crate::time::{Deadline, Time, Timers};
use crate::tls;
use crate::wire::link::{Message, RelayFrame};
use bytes::{Bytes, BytesMut};
use incoming::Came;
use keys::{Clock, Configs, SERVER_NAME};
use quinn_proto::{ConnectionHandle, DatagramEvent, Transmit};
use session::{Said, Session, plain, source, why};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Empty batches that are kept for reuse.
const SPARE: usize = 8;
/// A batch is handed out when it holds so much.
const BATCH_BYTES: usize = 64 << 10;

/// What an endpoint is made of.
pub struct EndpointConfig {
    /// The limits in force.
    pub limits: Arc<Limits>,
    /// The root of its randomness.
    pub rng: Rng,
    /// The moment that [`Time::ZERO`] stands for.
    pub start: Instant,
    /// Cryptography and a certificate.
    pub identity: tls::Identity,
    /// A secret of this node that stays the same when it starts anew: with it a node that lost its memory tells its peers
    /// so (RFC 9000 section 10.3).
    pub reset_key: [u8; 32],
    /// The library's loss-based congestion control in place of [`rate`], for comparison.
    pub stock_control: bool,
    /// The socket that it sends from.
    pub socket: SocketId,
}

/// What an endpoint can be told.
#[derive(Debug)]
pub enum Input<'a> {
    /// The socket stands.
    UdpOpened {
        /// The most segments that one transmit may hold.
        max_segments: usize,
    },
    /// Datagrams came, as in [`crate::io::Input::Datagram`].
    Datagram {
        /// Where they were sent to.
        local: SocketAddr,
        /// Where they came from.
        remote: SocketAddr,
        /// Bytes of each but the last.
        stride: usize,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// A batch that was sent, for reuse.
    Recycle(Box<Batch>),
    /// Open a connection.
    Connect {
        /// Its id.
        conn: ConnId,
        /// Where to.
        remote: SocketAddr,
    },
    /// Send this on the control stream; never more than the last [`Output::Room`] allowed.
    Send {
        /// The connection.
        conn: ConnId,
        /// The bytes.
        bytes: Bytes,
    },
    /// The peer proved the shared key.
    Proven {
        /// The connection.
        conn: ConnId,
    },
    /// Relay a frame.
    Frame {
        /// The connection.
        conn: ConnId,
        /// The frame.
        frame: Box<RelayFrame>,
    },
    /// Relay a track's configuration, a [`Message::Tracks`] with one entry.
    Tracks {
        /// The connection.
        conn: ConnId,
        /// The pull.
        pull: u64,
        /// The track.
        track: TrackId,
        /// The message.
        message: Message,
    },
    /// This end serves a pull no longer. `now`: what is on its way is not wanted.
    Served {
        /// The connection.
        conn: ConnId,
        /// The pull.
        pull: u64,
        /// Whether to give up what is on its way.
        now: bool,
    },
    /// This end pulls under that number from now on, or no longer.
    Pulls {
        /// The connection.
        conn: ConnId,
        /// The pull.
        pull: u64,
        /// Whether it does.
        on: bool,
    },
    /// The link's machine took this out of the control stream; it comes back in [`Output::Message`] in its place among the
    /// frames.
    Told {
        /// The connection.
        conn: ConnId,
        /// The pull.
        pull: u64,
        /// The message.
        message: Message,
    },
    /// Close a connection after what was sent has arrived (`now: false`) or at once. Nothing more is said of it.
    Close {
        /// The connection.
        conn: ConnId,
        /// Whether to drop what has not left yet.
        now: bool,
    },
    /// The node ends: what waits leaves as far as it may, then every connection is closed, and the peers know at once.
    Goodbye,
    /// Time passed.
    Tick,
}

/// What an endpoint says.
#[derive(Debug)]
pub enum Output {
    /// Send datagrams.
    Datagrams(Box<Batch>),
    /// A connection stands: one that was asked for, or one that came.
    Connected {
        /// The connection.
        conn: ConnId,
        /// Our address.
        local: SocketAddr,
        /// The peer's address.
        remote: SocketAddr,
        /// The value that a proof of the shared key is bound to (RFC 9266).
        binding: [u8; 32],
    },
    /// Bytes of the control stream.
    Received {
        /// The connection.
        conn: ConnId,
        /// The bytes.
        bytes: Bytes,
    },
    /// The control stream takes so many bytes.
    Room {
        /// The connection.
        conn: ConnId,
        /// Bytes.
        free: usize,
    },
    /// The peer sends nothing more on the control stream.
    PeerFinished {
        /// The connection.
        conn: ConnId,
    },
    /// A message about a pull that this end makes.
    Message {
        /// The connection.
        conn: ConnId,
        /// The message.
        message: Message,
    },
    /// Frames of a pull that this end makes were left out: they came too late.
    Lost {
        /// The connection.
        conn: ConnId,
        /// The pull.
        pull: u64,
        /// The track.
        track: TrackId,
        /// Frames.
        frames: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The connection is gone, or could not be had.
    Closed {
        /// The connection.
        conn: ConnId,
        /// Why.
        reason: Reason,
    },
    /// A connection that came never stood: its handshake failed, or did not end in time.
    Stranger {
        /// The peer's address.
        remote: SocketAddr,
        /// Why.
        reason: Reason,
    },
    /// A datagram led to nothing.
    Dropped(Dropped),
}

/// Why a datagram led to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It is damaged, no QUIC, or of no connection that there is.
    Unknown,
    /// It asks for a connection, and its address is not proven yet: it was answered with a Retry. Each link that is dialled
    /// begins so.
    Unproven,
    /// It asks for a connection, while as many handshakes as may be are under way: it was refused.
    NoRoom,
}

impl Dropped {
    /// All of them.
    pub const ALL: [Dropped; 3] = [Dropped::Unknown, Dropped::Unproven, Dropped::NoRoom];

    /// A word for counters and logs.
    pub const fn code(self) -> &'static str {
        match self {
            Dropped::Unknown => "quic_unknown",
            Dropped::Unproven => "quic_unproven",
            Dropped::NoRoom => "quic_no_room",
        }
    }
}

/// How a connection stands, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The round trip, smoothed.
    pub rtt: Duration,
    /// Bytes that may be in flight.
    pub window: u64,
    /// Packets that were lost.
    pub lost: u64,
    /// Groups that were given up because they were late.
    pub resets: u64,
}

/// All QUIC links of a node. See the module's text.
pub struct Endpoint {
    limits: Arc<Limits>,
    start: Instant,
    clock: Arc<Clock>,
    client: quinn_proto::ClientConfig,
    inner: quinn_proto::Endpoint,
    socket: SocketId,
    max_segments: usize,
    sessions: BTreeMap<usize, Session>,
    by_id: BTreeMap<ConnId, usize>,
    accepted: u64,
    /// Who asked for a connection from an address that is validated, and waits for a turn with time for its handshake.
    waiting: VecDeque<(quinn_proto::Incoming, SocketAddr)>,
    turn: tls::Turn,
    dirty: BTreeSet<usize>,
    timers: Timers<usize>,
    scratch: Vec<u8>,
    batch: Option<Box<Batch>>,
    // They travel boxed, and boxing anew is the cost that this saves.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Batch>>,
    out: VecDeque<Output>,
    now: Time,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("sessions", &self.sessions.len()).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// An endpoint without connections.
    ///
    /// # Errors
    /// `quic_tls`: the cryptographic library cannot do QUIC.
    pub fn new(config: EndpointConfig) -> Result<Endpoint, Reason> {
        let clock = Arc::new(Clock::default());
        let EndpointConfig { limits, rng, start, identity, reset_key, stock_control, socket } = config;
        let most = limits.link_quic_handshakes;
        let made = Configs::new(&identity, &rng, reset_key, &clock, most, stock_control)?;
        Ok(Endpoint {
            limits,
            start,
            clock,
            client: made.client,
            inner: quinn_proto::Endpoint::new(made.endpoint, Some(made.server), false, None),
            socket,
            max_segments: 1,
            sessions: BTreeMap::new(),
            by_id: BTreeMap::new(),
            accepted: 0,
            waiting: VecDeque::new(),
            turn: tls::Turn::default(),
            dirty: BTreeSet::new(),
            timers: Timers::default(),
            scratch: Vec::new(),
            batch: None,
            spare: Vec::new(),
            out: VecDeque::new(),
            now: Time::ZERO,
        })
    }

    /// Bytes of a connection that the library has not taken yet. A sender of frames skips to the next key frame when they
    /// are too many.
    pub fn backlog(&self, conn: ConnId) -> usize {
        self.session(conn).map_or(0, Session::backlog)
    }

    /// Bytes of media that wait for the rest of their message.
    pub fn partial(&self, conn: ConnId) -> usize {
        self.session(conn).map_or(0, |s| s.incoming.partial())
    }

    /// What the link says next about a pull comes after all frames of it so far: it must say [`Message::Sent`] first, with
    /// this number, if there is one.
    pub fn mark(&mut self, conn: ConnId, pull: u64) -> Option<u64> {
        let mut frames = None;
        self.with(conn, |s| frames = s.out.mark(pull));
        frames
    }

    /// How a connection stands.
    pub fn standing(&self, conn: ConnId) -> Option<Standing> {
        let s = self.session(conn)?;
        let stats = s.inner.stats();
        Some(Standing {
            rtt: s.inner.rtt(),
            window: s.inner.congestion_state().window(),
            lost: stats.path.lost_packets,
            resets: s.out.resets(),
        })
    }

    /// Connections that the node knows, and those that are only still closing.
    pub fn counts(&self) -> (usize, usize) {
        (self.by_id.len(), self.sessions.len() - self.by_id.len())
    }

    fn session(&self, conn: ConnId) -> Option<&Session> {
        self.by_id.get(&conn).and_then(|at| self.sessions.get(at))
    }

    fn with(&mut self, conn: ConnId, work: impl FnOnce(&mut Session)) {
        if let Some(at) = self.by_id.get(&conn)
            && let Some(session) = self.sessions.get_mut(at)
        {
            work(session);
            self.dirty.insert(*at);
        }
    }

    fn instant(&self, now: Time) -> Instant {
        self.start + now.since(Time::ZERO)
    }

    fn connect(&mut self, conn: ConnId, remote: SocketAddr, now: Time) {
        let instant = self.instant(now);
        match self.inner.connect(instant, self.client.clone(), remote, SERVER_NAME) {
            Ok((handle, inner)) => {
                self.sessions.insert(handle.0, Session::new(inner, Some(conn), None, now));
                self.by_id.insert(conn, handle.0);
                self.dirty.insert(handle.0);
            }
            Err(e) => {
                let reason = Reason::local("quic_dial", format!("{remote} cannot be dialled by QUIC: {e}"));
                self.out.push_back(Output::Closed { conn, reason });
            }
        }
    }

    fn datagram(&mut self, local: SocketAddr, remote: SocketAddr, bytes: &[u8], now: Time) {
        let instant = self.instant(now);
        let mut reply = std::mem::take(&mut self.scratch);
        reply.clear();
        let event =
            self.inner.handle(instant, remote, Some(local.ip()), None, BytesMut::from(bytes), &mut reply);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(session) = self.sessions.get_mut(&handle.0) {
                    session.local.get_or_insert(local);
                    session.inner.handle_event(event);
                    self.dirty.insert(handle.0);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.incoming(incoming, local, &mut reply);
            }
            Some(DatagramEvent::Response(transmit)) => {
                self.transmit(&transmit, Some(local.ip()), &reply);
                self.out.push_back(Output::Dropped(Dropped::Unknown));
            }
            // What follows on a first packet that waits is kept with it.
            None if self.waiting.iter().any(|(i, _)| i.remote_address() == remote) => {}
            None => self.out.push_back(Output::Dropped(Dropped::Unknown)),
        }
        self.scratch = reply;
    }

    fn incoming(&mut self, incoming: quinn_proto::Incoming, local: SocketAddr, reply: &mut Vec<u8>) {
        if !incoming.remote_address_validated() {
            // S10: nothing is kept for an address that may be forged, and the answer is shorter than the question.
            if let Ok(transmit) = self.inner.retry(incoming, reply) {
                self.transmit(&transmit, Some(local.ip()), reply);
            }
            return self.out.push_back(Output::Dropped(Dropped::Unproven));
        }
        let ip = incoming.remote_address().ip();
        let strangers = self.sessions.values().filter(|s| !s.dialled && !s.proven);
        let addresses = strangers.map(|s| s.inner.remote_address());
        let addresses = addresses.chain(self.waiting.iter().map(|(i, _)| i.remote_address()));
        let (all, own) = addresses.fold((0, 0), |(all, own), a| (all + 1, own + usize::from(a.ip() == ip)));
        if all >= self.limits.link_quic_handshakes || own >= self.limits.link_quic_handshakes_per_ip {
            let transmit = self.inner.refuse(incoming, reply);
            self.transmit(&transmit, Some(local.ip()), reply);
            return self.out.push_back(Output::Dropped(Dropped::NoRoom));
        }
        self.waiting.push_back((incoming, local));
    }

    /// Begins the handshakes for which there is time in this turn.
    fn begin_handshakes(&mut self, now: Time) {
        let instant = self.instant(now);
        let mut reply = std::mem::take(&mut self.scratch);
        while !self.waiting.is_empty() && self.turn.may_begin(now, self.limits.tls_handshake_us_per_turn) {
            let Some((incoming, local)) = self.waiting.pop_front() else { break };
            let remote = incoming.remote_address();
            reply.clear();
            match self.inner.accept(incoming, instant, &mut reply, None) {
                Ok((handle, inner)) => {
                    self.sessions.insert(handle.0, Session::new(inner, None, Some(local), now));
                    self.dirty.insert(handle.0);
                }
                Err(e) => {
                    if let Some(transmit) = e.response {
                        self.transmit(&transmit, Some(local.ip()), &reply);
                    }
                    let reason = why(remote, &e.cause);
                    self.out.push_back(Output::Stranger { remote: plain(remote), reason });
                }
            }
        }
        self.scratch = reply;
    }

    /// Sends what waits as far as it may be sent now, then closes every connection.
    fn goodbye(&mut self, now: Time) {
        let instant = self.instant(now);
        let all: Vec<usize> = self.sessions.keys().copied().collect();
        for at in all {
            self.drive(at, now);
            if let Some(session) = self.sessions.get_mut(&at) {
                session.goodbye(instant);
                self.drive(at, now);
            }
        }
        self.dirty.clear();
    }

    fn transmit(&mut self, transmit: &Transmit, src: Option<IpAddr>, bytes: &[u8]) {
        let (socket, spare) = (self.socket, &mut self.spare);
        let batch =
            self.batch.get_or_insert_with(|| spare.pop().unwrap_or_else(|| Box::new(Batch::new(socket))));
        let bytes = bytes.get(..transmit.size).unwrap_or_default();
        let dst = plain(transmit.destination);
        for segment in bytes.chunks(transmit.segment_size.unwrap_or(transmit.size).max(1)) {
            batch.push(src, dst, segment, self.max_segments);
        }
        if batch.buf.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.out.push_back(Output::Datagrams(batch));
        }
    }

    /// Carries what a session and the library say to each other, and what leaves.
    fn drive(&mut self, at: usize, now: Time) {
        let instant = self.instant(now);
        let limits = self.limits.clone();
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(session) = self.sessions.get_mut(&at) {
            session.drive(&limits, now, instant);
            let mut again = false;
            while let Some(event) = session.inner.poll_endpoint_events() {
                if let Some(event) = self.inner.handle_event(ConnectionHandle(at), event) {
                    session.inner.handle_event(event);
                    again = true;
                }
            }
            scratch.clear();
            let transmit = session.inner.poll_transmit(instant, self.max_segments, &mut scratch);
            let src = source(session.local);
            if let Some(transmit) = transmit {
                self.transmit(&transmit, src, &scratch);
                again = true;
            }
            if !again {
                break;
            }
        }
        self.scratch = scratch;
        self.hear(at);
        let Some(session) = self.sessions.get_mut(&at) else { return };
        if session.inner.is_drained() {
            self.sessions.remove(&at);
            self.timers.cancel(&at);
            return;
        }
        let library = session.inner.poll_timeout().map(|instant| {
            Deadline::new(Time::ZERO + instant.saturating_duration_since(self.start), "a QUIC timer")
        });
        let deadline = Deadline::earliest(library, session.deadline(&limits));
        self.timers.update(at, deadline);
    }

    /// Passes on what a session says.
    fn hear(&mut self, at: usize) {
        let Some(session) = self.sessions.get_mut(&at) else { return };
        while let Some(said) = session.pop() {
            let conn = match session.id {
                Some(conn) => conn,
                None => {
                    // Nobody knows a stranger who never finished his handshake.
                    if let Said::Closed(reason) = said {
                        let remote = plain(session.inner.remote_address());
                        self.out.push_back(Output::Stranger { remote, reason });
                        continue;
                    }
                    if !matches!(said, Said::Connected { .. }) {
                        continue;
                    }
                    self.accepted += 1;
                    let conn = ConnId::quic(self.accepted);
                    session.id = Some(conn);
                    self.by_id.insert(conn, at);
                    conn
                }
            };
            if self.by_id.get(&conn) != Some(&at) {
                continue;
            }
            let remote = plain(session.inner.remote_address());
            self.out.push_back(match said {
                Said::Connected { binding } => {
                    let local = session.local.unwrap_or(remote);
                    Output::Connected { conn, local, remote, binding }
                }
                Said::Control(bytes) => Output::Received { conn, bytes },
                Said::Room(free) => Output::Room { conn, free },
                Said::Finished => Output::PeerFinished { conn },
                Said::Came(Came::Message(message)) => Output::Message { conn, message },
                Said::Came(Came::Lost { pull, track, frames, bytes }) => {
                    Output::Lost { conn, pull, track, frames, bytes }
                }
                Said::Closed(reason) => {
                    self.by_id.remove(&conn);
                    Output::Closed { conn, reason }
                }
            });
        }
    }
}

impl Machine for Endpoint {
    type Input<'a> = Input<'a>;
    type Output = Output;

    fn handle(&mut self, input: Input<'_>, now: Time) {
        self.clock.0.store(now.as_nanos(), Ordering::Relaxed);
        let instant = self.instant(now);
        let limits = self.limits.clone();
        let goes_on = matches!(input, Input::Tick | Input::Datagram { .. });
        match input {
            Input::UdpOpened { max_segments } => self.max_segments = max_segments.max(1),
            Input::Datagram { local, remote, stride, bytes } => {
                bytes.chunks(stride.max(1)).for_each(|b| self.datagram(local, remote, b, now));
            }
            Input::Recycle(mut batch) => {
                if self.spare.len() < SPARE {
                    batch.clear();
                    self.spare.push(batch);
                }
            }
            Input::Connect { conn, remote } => self.connect(conn, remote, now),
            Input::Send { conn, bytes } => self.with(conn, |s| s.send(bytes)),
            Input::Proven { conn } => self.with(conn, |s| s.proved(&limits)),
            Input::Frame { conn, frame } => self.with(conn, |s| s.out.frame(*frame, now)),
            Input::Tracks { conn, pull, track, message } => {
                self.with(conn, |s| s.out.config(pull, track, message, now));
            }
            Input::Served { conn, pull, now } => self.with(conn, |s| s.out.end(pull, now)),
            Input::Pulls { conn, pull, on: true } => self.with(conn, |s| s.incoming.expect(pull)),
            Input::Pulls { conn, pull, on: false } => {
                self.with(conn, |s| s.incoming.forget(pull, &mut s.inner));
            }
            Input::Told { conn, pull, message } => {
                self.with(conn, |s| s.incoming.told(pull, message, &limits, now));
            }
            Input::Close { conn, now: at_once } => {
                self.with(conn, |s| s.close(at_once, now, instant));
                self.by_id.remove(&conn);
            }
            Input::Goodbye => self.goodbye(now),
            Input::Tick => {}
        }
        while let Some(at) = self.timers.pop_due(now) {
            if let Some(session) = self.sessions.get_mut(&at) {
                session.inner.handle_timeout(instant);
                self.dirty.insert(at);
            }
        }
        self.now = now;
        if goes_on {
            self.begin_handshakes(now);
            while let Some(at) = self.dirty.pop_first() {
                self.drive(at, now);
            }
        }
        self.flush();
    }

    fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// At once as long as something waits that was handed in: what the node says in one turn leaves together.
    fn deadline(&self) -> Option<Deadline> {
        if !self.dirty.is_empty() {
            return Some(Deadline::new(self.now, "QUIC has something to send"));
        }
        let turn = (!self.waiting.is_empty())
            .then(|| Deadline::new(self.now + Duration::from_millis(1), "a QUIC handshake waits its turn"));
        Deadline::earliest(turn, self.timers.next())
    }
}
