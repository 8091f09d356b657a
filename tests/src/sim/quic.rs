//! A QUIC link's endpoint against a peer whose every choice is a byte: what the fuzz target `quic_link` runs, and a test with its
//! seeds and with noise.
//!
//! The peer speaks real QUIC (quinn-proto alone), so that bytes get past the encryption to what reads streams; beside it a
//! stranger sends raw datagrams. The first byte: 1: the peer heeds no limit; 2: it makes no handshake; 4: its key is never
//! proved; 8: the way loses the answers. Then operations, each a byte, most with a byte of length and bytes behind it.

pub mod seeds;

use crate::world::actors::evil::quic::{ALPN, client_config, endpoint};
use bytes::BytesMut;
use determinism::{crypto, os};
use proto_core::cluster::quic::{Endpoint, EndpointConfig, Input, Output};
use proto_core::io::{ConnId, SocketId};
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::rand::Rng;
use proto_core::time::Time;
use proto_core::tls;
use proto_core::wire::link::Message;
use quinn_proto::{Connection, ConnectionHandle, DatagramEvent, Dir, Event, StreamEvent, StreamId, VarInt};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// What came of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes of the control stream that the endpoint handed on.
    pub control: u64,
    /// Messages of media streams that it handed on.
    pub messages: u64,
    /// Whether the handshake ended.
    pub stood: bool,
    /// Whether the endpoint closed the connection, or lost it.
    pub closed: bool,
    /// Bytes that strangers got back.
    pub answered: u64,
}

const VICTIM: ([u8; 4], u16) = ([10, 0, 0, 1], 5_090);
const PEER: ([u8; 4], u16) = ([10, 0, 0, 2], 40_000);
const STRANGER: ([u8; 4], u16) = ([10, 0, 0, 3], 40_000);
/// Ticks at one moment beyond which the endpoint runs in circles.
const CIRCLES: usize = 1_000;

/// Small enough to be reached.
fn limits() -> Limits {
    let mut limits = Limits::default();
    (limits.link_message_bytes, limits.link_quic_streams, limits.stream_tracks) = (8 << 10, 8, 4);
    (limits.link_queue_bytes, limits.link_quic_handshakes) = (64 << 10, 4);
    limits
}

struct Peer {
    endpoint: quinn_proto::Endpoint,
    inner: Connection,
    control: Option<StreamId>,
    streams: Vec<StreamId>,
}

struct Arena {
    base: Instant,
    now: Time,
    limits: Arc<Limits>,
    victim: Endpoint,
    peer: Option<Peer>,
    conn: Option<ConnId>,
    pulls: BTreeSet<u64>,
    proves: bool,
    loses: bool,
    /// The next datagram of the peer has this byte wrong.
    bent: Option<u8>,
    asked: u64,
    tally: Tally,
}

/// Runs the choices of `data`.
///
/// # Panics
/// If the endpoint does what it must not: hands on what nobody pulls, answers a stranger with more than he sent, holds more
/// than its limits, runs in circles, or keeps something of a peer that has gone.
pub fn run(data: &[u8]) -> Tally {
    os::run([3; 32], || {
        Arena::new(data.first().copied().unwrap_or(0)).play(data.get(1..).unwrap_or_default())
    })
    .expect("clocks and randomness are interposed")
}

fn identity() -> tls::Identity {
    static MADE: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    let (certificate, key) = MADE.get_or_init(|| {
        let made = crypto::certificate([9; 32]).expect("a certificate can be made");
        (made.certificate, made.private_key)
    });
    tls::Identity::new(Arc::new(crypto::tls_provider()), certificate.clone(), key.clone())
}

impl Arena {
    fn new(how: u8) -> Arena {
        let (base, limits) = (Instant::now(), Arc::new(limits()));
        let mut victim = Endpoint::new(EndpointConfig {
            limits: limits.clone(),
            rng: Rng::new([1; 32]),
            start: base,
            identity: identity(),
            reset_key: [2; 32],
            stock_control: false,
            socket: SocketId(1),
        })
        .expect("the cryptography can do QUIC");
        victim.handle(Input::UdpOpened { max_segments: 10 }, Time::ZERO);
        let rng = Rng::new([4; 32]);
        let peer = (how & 2 == 0).then(|| {
            let mut endpoint = endpoint(&rng);
            let config = client_config(ALPN, how & 1 != 0, &rng);
            let (_, inner) =
                endpoint.connect(base, config, VICTIM.into(), "x.invalid").expect("it can be dialled");
            Peer { endpoint, inner, control: None, streams: Vec::new() }
        });
        let mut arena = Arena {
            base,
            now: Time::ZERO,
            limits,
            victim,
            peer,
            conn: None,
            pulls: BTreeSet::new(),
            proves: how & 4 == 0,
            loses: false,
            bent: None,
            asked: 0,
            tally: Tally::default(),
        };
        (0..10).for_each(|_| arena.pass(20));
        arena.loses = how & 8 != 0;
        arena
    }

    fn instant(&self) -> Instant {
        self.base + self.now.since(Time::ZERO)
    }

    fn tell(&mut self, input: Input<'_>) {
        self.victim.handle(input, self.now);
        while let Some(said) = self.victim.poll() {
            match said {
                Output::Datagrams(batch) => {
                    for item in &batch.items {
                        let whole = &batch.buf[item.start..item.start + item.len];
                        for bytes in whole.chunks(item.segment_size) {
                            self.arrives(item.dst, bytes);
                        }
                    }
                    self.victim.handle(Input::Recycle(batch), self.now);
                }
                Output::Connected { conn, .. } => {
                    (self.conn, self.tally.stood) = (Some(conn), true);
                    if self.proves {
                        self.victim.handle(Input::Proven { conn }, self.now);
                    }
                }
                Output::Received { bytes, .. } => self.tally.control += bytes.len() as u64,
                Output::Message { message, .. } => {
                    let pull = match &message {
                        Message::Frame(frame) => frame.pull,
                        Message::Tracks { pull, .. } => *pull,
                        other => panic!("{other:?} came on a media stream"),
                    };
                    assert!(self.pulls.contains(&pull), "a message of pull {pull}, which nobody makes");
                    self.tally.messages += 1;
                }
                Output::Lost { pull, .. } => {
                    assert!(self.pulls.contains(&pull), "frames of pull {pull} were lost")
                }
                Output::Closed { conn, .. } => {
                    assert_eq!(self.conn.take(), Some(conn), "a connection that stood");
                    self.tally.closed = true;
                }
                Output::Stranger { .. } => self.tally.closed = true,
                Output::Dropped(_) | Output::Room { .. } | Output::PeerFinished { .. } => {}
            }
        }
    }

    /// A datagram of the endpoint arrives.
    fn arrives(&mut self, to: SocketAddr, bytes: &[u8]) {
        if to != SocketAddr::from(PEER) {
            assert_eq!(to, SocketAddr::from(STRANGER), "nobody else asked");
            self.tally.answered += bytes.len() as u64;
            assert!(
                self.tally.answered <= self.asked,
                "a stranger gets {} for {}",
                self.tally.answered,
                self.asked
            );
            return;
        }
        let instant = self.instant();
        let Some(peer) = self.peer.as_mut().filter(|_| !self.loses) else { return };
        let mut reply = Vec::new();
        let event =
            peer.endpoint.handle(instant, VICTIM.into(), None, None, BytesMut::from(bytes), &mut reply);
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
            peer.inner.handle_event(event);
        }
    }

    /// Lets the peer say what it has to say. Answers whether it said anything.
    fn peer_speaks(&mut self) -> bool {
        let instant = self.instant();
        let Some(peer) = &mut self.peer else { return false };
        if peer.inner.poll_timeout().is_some_and(|at| at <= instant) {
            peer.inner.handle_timeout(instant);
        }
        while let Some(event) = peer.inner.poll() {
            match event {
                Event::Connected => peer.control = peer.inner.streams().open(Dir::Bi),
                Event::Stream(StreamEvent::Readable { id }) => {
                    if let Ok(mut chunks) = peer.inner.recv_stream(id).read(true) {
                        while let Ok(Some(_)) = chunks.next(usize::MAX) {}
                        let _ = chunks.finalize();
                    }
                }
                _ => {}
            }
        }
        while let Some(event) = peer.inner.poll_endpoint_events() {
            if let Some(event) = peer.endpoint.handle_event(ConnectionHandle(0), event) {
                peer.inner.handle_event(event);
            }
        }
        let mut bytes = Vec::new();
        let Some(transmit) = peer.inner.poll_transmit(instant, 1, &mut bytes) else { return false };
        bytes.truncate(transmit.size);
        if let Some(at) = self.bent.take() {
            let len = bytes.len();
            bytes[usize::from(at) % len] ^= 0x11;
        }
        self.comes(PEER.into(), &bytes);
        true
    }

    fn comes(&mut self, remote: SocketAddr, bytes: &[u8]) {
        let stride = bytes.len().max(1);
        self.tell(Input::Datagram { local: VICTIM.into(), remote, stride, bytes });
    }

    /// Lets so many milliseconds pass.
    fn pass(&mut self, ms: u64) {
        let mut ticks = 0;
        loop {
            while self.peer_speaks() {}
            if self.victim.deadline().is_none_or(|d| d.at > self.now) {
                break;
            }
            ticks += 1;
            assert!(ticks < CIRCLES, "{:?} stays due", self.victim.deadline());
            self.tell(Input::Tick);
        }
        let handshakes = self.limits.link_quic_handshakes;
        let (known, closing) = self.victim.counts();
        assert!(known <= 1 && closing <= handshakes + 1, "{known} connections, {closing} closing");
        if let Some(conn) = self.conn {
            let most = self.limits.link_message_bytes + (64 << 10) + 4;
            let streams = self.limits.link_quic_streams as usize;
            assert!(self.victim.partial(conn) <= most * streams, "{} bytes wait", self.victim.partial(conn));
        }
        self.now += Duration::from_millis(ms);
    }

    fn play(mut self, mut data: &[u8]) -> Tally {
        while let Some((op, rest)) = data.split_first() {
            data = rest;
            // The low three bits say what; the others are a small number.
            let small = op >> 3;
            let mut piece = || {
                let Some((len, rest)) = data.split_first() else { return &[][..] };
                let (piece, rest) = rest.split_at(usize::from(*len).min(rest.len()));
                data = rest;
                piece
            };
            match op & 7 {
                0 => {
                    let bytes = piece();
                    // A first packet is as large as it must be.
                    let mut whole = bytes.to_vec();
                    whole.resize(if small & 1 == 1 { 1_200 } else { bytes.len() }, 0);
                    self.asked += whole.len() as u64;
                    self.comes(STRANGER.into(), &whole);
                }
                1 => {
                    if let Some(peer) = &mut self.peer
                        && let Some(id) = peer.inner.streams().open(Dir::Uni)
                    {
                        peer.streams.push(id);
                    }
                }
                2 | 3 => {
                    let bytes = piece().repeat(if small > 15 { 40 } else { 1 });
                    let Some(peer) = &mut self.peer else { continue };
                    let media = peer.streams.iter().rev().nth(usize::from(small % 8));
                    let stream = if op & 7 == 2 { peer.control } else { media.copied() };
                    if let Some(id) = stream {
                        let _ = peer.inner.send_stream(id).write(&bytes);
                    }
                }
                4 => {
                    let Some(peer) = &mut self.peer else { continue };
                    let stream = peer.streams.iter().rev().nth(usize::from(small % 8)).copied();
                    if let Some(id) = stream.or(peer.control) {
                        let mut stream = peer.inner.send_stream(id);
                        if small > 15 {
                            let _ = stream.reset(VarInt::from_u32(1));
                        } else {
                            let _ = stream.finish();
                        }
                    }
                }
                5 => self.pass(1 + u64::from(small) * u64::from(small)),
                6 => {
                    let (pull, on) = (u64::from(small & 3), small < 16);
                    let Some(conn) = self.conn else { continue };
                    self.tell(Input::Pulls { conn, pull, on });
                    // What was handed on before stays said.
                    if on {
                        self.pulls.insert(pull);
                    }
                }
                _ => self.bent = Some(small),
            }
        }
        (0..4).for_each(|_| self.pass(50));
        // The peer goes without a word, and is forgotten.
        self.loses = true;
        self.peer = None;
        if let Some(conn) = self.conn.take() {
            self.tell(Input::Close { conn, now: true });
        }
        (0..120).for_each(|_| self.pass(500));
        assert_eq!(self.victim.counts(), (0, 0), "of who has gone nothing is left");
        assert_eq!(self.victim.deadline(), None, "nothing is waited for");
        self.tally
    }
}
