//! Abuses of the nodes' QUIC port by peers that speak QUIC: strangers, and a node that knows the cluster's key and turned bad.
//!
//! They are connections of quinn-proto without anything of ours on top, so that they can do what our own end would not: stop in
//! the middle of a handshake, name another protocol, or heed no limit that the other end sets.

use super::rtmp::noise;
use super::{Evil, Target};
use crate::world::actors::{In, Out};
use crate::world::tls::Trusting;
use bytes::{BufMut, Bytes, BytesMut};
use determinism::crypto;
use proto_core::cluster::NodeId;
use proto_core::cluster::keys::Keys;
use proto_core::cluster::link::{self, Link, Side};
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::rand::Rng;
use proto_core::time::Time;
use proto_core::wire::link::{Group, Message, encode};
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::crypto::{self as quic_crypto, CryptoError, ExportKeyingMaterialError, HmacKey};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{
    ClientConfig, ConnectError, Connection, ConnectionHandle, ConnectionId, ConnectionIdGenerator,
    DatagramEvent, Dir, Endpoint, EndpointConfig, Event, NoneTokenStore, Side as QuicSide, StreamEvent,
    StreamId, TransportConfig, TransportError,
};
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The port of all of its connections.
const PORT: u16 = 40_002;
/// How long a connection lasts at most.
const LASTS: Duration = Duration::from_secs(4);
/// The wait before the next one.
const AGAIN: Duration = Duration::from_millis(100);

/// Whether a kind speaks QUIC.
pub(super) fn is(kind: Evil) -> bool {
    use Evil as E;
    matches!(
        kind,
        E::QuicForged | E::QuicHalfway | E::QuicWrongAlpn | E::QuicWrongKey | E::QuicBeyond | E::QuicGiant
    )
}

/// Connections at once.
fn lanes(kind: Evil) -> usize {
    match kind {
        // More than an address may have under way.
        Evil::QuicHalfway => 24,
        _ => 2,
    }
}

struct Ids(Rng);

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.bytes::<8>())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The key of stateless resets, which nobody believes.
struct NoKey;

impl HmacKey for NoKey {
    fn sign(&self, _: &[u8], out: &mut [u8]) {
        out.fill(7);
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, _: &[u8], _: &[u8]) -> Result<(), CryptoError> {
        Err(CryptoError)
    }
}

/// TLS that tells QUIC of wider limits than the other end set.
struct Heedless(Arc<QuicClientConfig>);

impl quic_crypto::ClientConfig for Heedless {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn quic_crypto::Session>, ConnectError> {
        Ok(Box::new(Unbounded(quic_crypto::ClientConfig::start_session(
            self.0.clone(),
            version,
            name,
            params,
        )?)))
    }
}

struct Unbounded(Box<dyn quic_crypto::Session>);

/// Transport parameters of RFC 9000, section 18.2, that are limits: all data, data of a stream (three kinds), streams.
const LIMITS: [u8; 6] = [4, 5, 6, 7, 8, 9];

/// The same parameters with limits that are none.
fn without_limits(given: &TransportParameters) -> Option<TransportParameters> {
    let mut bytes = Vec::new();
    given.write(&mut bytes);
    let (mut rest, mut made) = (&bytes[..], BytesMut::new());
    while !rest.is_empty() {
        let (id, value) = (varint(&mut rest)?, varint(&mut rest)?);
        let (value, after) = rest.split_at_checked(usize::try_from(value).ok()?)?;
        rest = after;
        if !LIMITS.iter().any(|l| u64::from(*l) == id) {
            // A varint of eight bytes holds any number.
            made.put_u64(3 << 62 | id);
            made.put_u64(3 << 62 | value.len() as u64);
            made.put_slice(value);
        }
    }
    // 2^30 - 1 in four bytes.
    LIMITS.iter().for_each(|id| made.put_slice(&[*id, 4, 0xbf, 0xff, 0xff, 0xff]));
    TransportParameters::read(QuicSide::Client, &mut made.freeze()).ok()
}

/// A number of RFC 9000, section 16.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    let (head, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    *bytes = rest;
    Some(head.iter().skip(1).fold(u64::from(first & 0x3f), |n, b| n << 8 | u64::from(*b)))
}

impl quic_crypto::Session for Unbounded {
    fn initial_keys(&self, id: &ConnectionId, side: QuicSide) -> quic_crypto::Keys {
        self.0.initial_keys(id, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.0.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.0.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn quic_crypto::HeaderKey>, Box<dyn quic_crypto::PacketKey>)> {
        self.0.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.0.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.0.read_handshake(buf)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let given = self.0.transport_parameters()?;
        Ok(given.map(|p| without_limits(&p).unwrap_or(p)))
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<quic_crypto::Keys> {
        self.0.write_handshake(buf)
    }

    fn next_1rtt_keys(&mut self) -> Option<quic_crypto::KeyPair<Box<dyn quic_crypto::PacketKey>>> {
        self.0.next_1rtt_keys()
    }

    fn is_valid_retry(&self, id: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.0.is_valid_retry(id, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.0.export_keying_material(output, label, context)
    }
}

/// A QUIC client of any protocol. `heedless`: it takes no limit of the other end for one.
pub fn client_config(alpn: &[u8], heedless: bool, rng: &Rng) -> ClientConfig {
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(crypto::tls_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    let tls = Arc::new(QuicClientConfig::try_from(tls).expect("the provider can do QUIC"));
    let mut config =
        if heedless { ClientConfig::new(Arc::new(Heedless(tls))) } else { ClientConfig::new(tls) };
    let mut transport = TransportConfig::default();
    transport.mtu_discovery_config(None).initial_rtt(Duration::from_millis(50));
    let (ids, drawn) = (rng.fork("first ids", 0), AtomicU64::new(0));
    config
        .transport_config(Arc::new(transport))
        .token_store(Arc::new(NoneTokenStore))
        .initial_dst_cid_provider(Arc::new(move || {
            let n = drawn.fetch_add(1, Ordering::Relaxed);
            ConnectionId::new(&ids.fork("id", n).bytes::<20>())
        }));
    config
}

/// An endpoint for such clients.
pub fn endpoint(rng: &Rng) -> Endpoint {
    let mut config = EndpointConfig::new(Arc::new(NoKey));
    let ids = rng.fork("ids", 0);
    config
        .supported_versions(vec![1])
        .cid_generator(move || Box::new(Ids(ids.clone())))
        .rng_seed(Some(rng.fork("library", 0).bytes()));
    Endpoint::new(Arc::new(config), None, false, None)
}

/// The protocol that nodes speak (RFC 7301).
pub const ALPN: &[u8] = b"headwater-link/1";

/// One connection.
struct Lane {
    inner: Connection,
    link: Option<Link>,
    control: Option<StreamId>,
    waits: VecDeque<Bytes>,
    until: Time,
    /// The library's next timer.
    timer: Option<Time>,
    /// Datagrams that came to it.
    heard: u64,
    nth: u64,
    did: bool,
}

/// A peer that speaks QUIC and does not behave.
pub(super) struct FalseQuic {
    kind: Evil,
    target: Target,
    rng: Rng,
    endpoint: Endpoint,
    config: ClientConfig,
    lanes: BTreeMap<usize, Lane>,
    dialled: u64,
    next: Time,
    out: VecDeque<Out>,
}

impl FalseQuic {
    pub(super) fn new(kind: Evil, target: Target, rng: Rng, now: Time) -> FalseQuic {
        let alpn: &[u8] = if kind == Evil::QuicWrongAlpn { b"h3" } else { ALPN };
        FalseQuic {
            kind,
            endpoint: endpoint(&rng),
            config: client_config(alpn, kind == Evil::QuicBeyond, &rng),
            target,
            rng,
            lanes: BTreeMap::new(),
            dialled: 0,
            next: now,
            out: VecDeque::new(),
        }
    }

    pub(super) fn said(&mut self) -> impl Iterator<Item = Out> + '_ {
        self.out.drain(..)
    }

    pub(super) fn wake(&self) -> Option<Time> {
        let timers = self.lanes.values().flat_map(|lane| {
            let link = lane.link.as_ref().and_then(Machine::deadline).map(|d| d.at);
            [lane.timer, link, Some(lane.until)].into_iter().flatten().min()
        });
        let next = (self.lanes.len() < lanes(self.kind)).then_some(self.next);
        timers.chain(next).min()
    }

    fn instant(&self, now: Time) -> Instant {
        self.target.base + now.since(Time::ZERO)
    }

    pub(super) fn on(&mut self, input: &In<'_>, now: Time) {
        let mut dirty = Vec::new();
        match input {
            In::Datagram { port: PORT, from, bytes } => dirty.extend(self.datagram(*from, bytes, now)),
            In::Tick => {
                if self.lanes.len() < lanes(self.kind) && self.next <= now {
                    dirty.extend(self.dial(now));
                }
                let instant = self.instant(now);
                for (at, lane) in &mut self.lanes {
                    if lane.inner.poll_timeout().is_some_and(|t| t <= instant) {
                        lane.inner.handle_timeout(instant);
                    }
                    if let Some(link) = &mut lane.link {
                        link.handle(link::Input::Tick, now);
                    }
                    dirty.push(*at);
                }
            }
            _ => {}
        }
        dirty.into_iter().for_each(|at| self.drive(at, now));
        let base = self.target.base;
        for lane in self.lanes.values_mut() {
            let timer = lane.inner.poll_timeout();
            lane.timer = timer.map(|at| Time::ZERO + at.saturating_duration_since(base));
        }
        let over: Vec<usize> = self
            .lanes
            .iter()
            .filter(|(_, l)| l.until <= now || l.inner.is_drained())
            .map(|(at, _)| *at)
            .collect();
        for at in over {
            self.lanes.remove(&at);
            if self.kind != Evil::QuicForged {
                self.next = self.next.max(now + AGAIN);
            }
            // The library is told that the connection is no more.
            let gone = quinn_proto::EndpointEvent::drained();
            let _ = self.endpoint.handle_event(ConnectionHandle(at), gone);
        }
    }

    fn dial(&mut self, now: Time) -> Option<usize> {
        self.next = now + Duration::from_millis(4);
        self.dialled += 1;
        let instant = self.instant(now);
        let made = self.endpoint.connect(instant, self.config.clone(), self.target.link, "evil.invalid");
        let (handle, inner) = made.ok()?;
        let forged = self.kind == Evil::QuicForged;
        let until = if forged { now } else { now + LASTS };
        self.lanes.insert(
            handle.0,
            Lane {
                inner,
                link: None,
                control: None,
                waits: VecDeque::new(),
                until,
                timer: None,
                heard: 0,
                nth: self.dialled,
                did: false,
            },
        );
        Some(handle.0)
    }

    fn datagram(&mut self, from: SocketAddr, bytes: &[u8], now: Time) -> Option<usize> {
        let instant = self.instant(now);
        let mut reply = Vec::new();
        let event = self.endpoint.handle(instant, from, None, None, BytesMut::from(bytes), &mut reply);
        let Some(DatagramEvent::ConnectionEvent(handle, event)) = event else { return None };
        let lane = self.lanes.get_mut(&handle.0)?;
        lane.heard += 1;
        // It hears the Retry, and nothing that follows.
        if self.kind == Evil::QuicHalfway && lane.heard > 1 {
            return None;
        }
        lane.inner.handle_event(event);
        Some(handle.0)
    }

    /// Carries what a connection and the library say, and does its worst.
    fn drive(&mut self, at: usize, now: Time) {
        let instant = self.instant(now);
        let to = self.target.link;
        loop {
            while let Some(event) = self.lanes.get_mut(&at).and_then(|l| l.inner.poll()) {
                self.event(at, event, now);
            }
            self.links(at, now);
            let Some(lane) = self.lanes.get_mut(&at) else { return };
            while let (Some(id), Some(bytes)) = (lane.control, lane.waits.front_mut()) {
                match lane.inner.send_stream(id).write(bytes) {
                    Ok(n) if n == bytes.len() => drop(lane.waits.pop_front()),
                    Ok(n) => drop(bytes.split_to(n)),
                    Err(_) => break,
                }
            }
            let mut again = false;
            while let Some(event) = lane.inner.poll_endpoint_events() {
                if let Some(event) = self.endpoint.handle_event(ConnectionHandle(at), event) {
                    lane.inner.handle_event(event);
                    again = true;
                }
            }
            let mut bytes = Vec::new();
            if let Some(transmit) = lane.inner.poll_transmit(instant, 1, &mut bytes) {
                bytes.truncate(transmit.size);
                let bytes = Bytes::from(bytes);
                self.out.push_back(if self.kind == Evil::QuicForged {
                    let n = self.rng.below(200) as u8 + 1;
                    Out::Forged { from: SocketAddr::from(([10, 1, 0, n], 5_000)), to, bytes }
                } else {
                    Out::Datagram { port: PORT, to, bytes }
                });
                again = true;
            }
            if !again {
                return;
            }
        }
    }

    fn event(&mut self, at: usize, event: Event, now: Time) {
        let (kind, target) = (self.kind, &self.target);
        let Some(lane) = self.lanes.get_mut(&at) else { return };
        match event {
            Event::Connected => {
                lane.control = lane.inner.streams().open(Dir::Bi);
                let knows = kind == Evil::QuicGiant && lane.nth.is_multiple_of(2);
                if knows || kind == Evil::QuicWrongKey {
                    let key = if knows { target.key.clone() } else { "another key".to_owned() };
                    let name = NodeId(format!("{}-{}", target.own, lane.nth));
                    let config =
                        link::Config::new(name, Arc::new(Keys::new(&key, [])), Arc::new(Limits::default()));
                    let rng = self.rng.fork("link", lane.nth);
                    let mut link = Link::new(config, Side::Dialler, target.link, rng, now);
                    let mut binding = [0; 32];
                    let session = lane.inner.crypto_session();
                    if session.export_keying_material(&mut binding, b"EXPORTER-Channel-Binding", b"").is_ok()
                    {
                        link.bind_to(binding);
                    }
                    link.handle(link::Input::Writable(1 << 20), now);
                    lane.link = Some(link);
                } else if kind == Evil::QuicGiant {
                    // A message that is announced as larger than any may be.
                    lane.waits.push_back(Bytes::from([&[0x7f, 0xff, 0xff, 0xff][..], &[7; 60_000]].concat()));
                } else if kind == Evil::QuicBeyond {
                    let dir = if lane.nth.is_multiple_of(2) { Dir::Bi } else { Dir::Uni };
                    for _ in 0..50 {
                        let Some(id) = lane.inner.streams().open(dir) else { break };
                        let _ = lane.inner.send_stream(id).write(&noise(&mut self.rng, 200));
                    }
                }
            }
            Event::Stream(StreamEvent::Readable { id }) if lane.control == Some(id) => {
                let mut heard = Vec::new();
                if let Ok(mut chunks) = lane.inner.recv_stream(id).read(true) {
                    while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                        heard.push(chunk.bytes);
                    }
                    let _ = chunks.finalize();
                }
                if let Some(link) = &mut lane.link {
                    heard.iter().for_each(|bytes| link.handle(link::Input::Received(bytes), now));
                }
            }
            Event::ConnectionLost { .. } => lane.until = now,
            _ => {}
        }
    }

    /// Carries what a connection's link says; once it stands, streams of media come that are none.
    fn links(&mut self, at: usize, now: Time) {
        let Some(lane) = self.lanes.get_mut(&at) else { return };
        let Some(link) = &mut lane.link else { return };
        while let Some(said) = link.poll() {
            match said {
                link::Output::Send(bytes) => {
                    lane.waits.push_back(bytes);
                    link.handle(link::Input::Writable(1 << 20), now);
                }
                link::Output::Closed(_) => lane.until = now,
                _ => {}
            }
        }
        if link.is_up() && !lane.did {
            // The other end lets streams in as soon as it has looked at the proof.
            let Some(id) = lane.inner.streams().open(Dir::Uni) else { return };
            lane.did = true;
            // Of pulls that nobody makes, each with a frame that is announced as larger than any may be.
            for number in 1..=100 {
                let Some(id) = lane.inner.streams().open(Dir::Uni) else { break };
                let head =
                    encode(&Message::Group(Group { pull: 1 << 16, track: 0, number, frames: 0, bytes: 0 }));
                let bytes = [&head.head[..], &head.tail, &[0x7f, 0xff, 0xff, 0xff], &[7; 300]].concat();
                let _ = lane.inner.send_stream(id).write(&bytes);
            }
            let bytes = match lane.nth % 4 {
                0 => noise(&mut self.rng, 300),
                _ => [0x7f, 0xff, 0xff, 0xff].repeat(40),
            };
            let _ = lane.inner.send_stream(id).write(&bytes);
        }
    }
}
