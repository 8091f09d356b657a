//! Misbehaving peers of many kinds: what strangers, broken software and nodes that turned bad do to a cluster.
//!
//! Each is a small client that keeps at one abuse until it is told to stop. It speaks with hand-made bytes, shares no
//! code with the servers (a node that knows the cluster's key excepted, which needs the real handshake), and draws all
//! that is random from a generator that the world hands to it. Whatever it does, its victims are others only if the
//! node fails: see [`crate::world::interference`].

mod abuser;
mod http;
mod node;
pub mod quic;
mod rtmp;
mod rtsp;
mod secure;
mod udp;

pub use abuser::Abuser;

use crate::world::actors::Out;
use crate::world::event::Event;
use crate::world::{ClientId, HostId, Party, World};
use bytes::Bytes;
use proto_core::io::Service;
use proto_core::node::config::Config;
use proto_core::rand::Rng;
use proto_core::time::Time;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Declares the kinds: one line of meaning each, and the list of all.
macro_rules! evils {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A kind of misbehaviour. `A1` and the like are rows of the table of abuses.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Evil {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Evil {
            /// All of them.
            pub const ALL: &'static [Evil] = &[$(Evil::$name),+];
        }
    };
}

evils! {
    /// A1: the RTMP handshake comes a few bytes a second.
    HandshakeTrickle,
    /// Bytes on the RTMP port that are no RTMP.
    RtmpGarbage,
    /// An RTMP handshake, then chunks of random bytes.
    ChunkGarbage,
    /// A2: many chunk streams, each with a message that never ends.
    ChunkStreams,
    /// A3: `Set Chunk Size` 0.
    ChunkSizeZero,
    /// A3: `Set Chunk Size` with the top bit set, or the largest allowed with a message of 16 MiB announced.
    ChunkSizeHuge,
    /// A4: length and type of a message change in its middle.
    LengthChange,
    /// A5: AMF objects within objects, without end.
    DeepAmf,
    /// A5: AMF objects with thousands of properties and long strings.
    WideAmf,
    /// A7: commands, as fast as they go.
    CommandFlood,
    /// A publisher whose pictures and sound are garbage behind a valid tag.
    GarbageMedia,
    /// A publisher whose configurations change all the time and whose times jump.
    WildMedia,
    /// Pictures before anybody was allowed to publish.
    MediaBeforePublish,
    /// A24: publishes a name that another publishes, again and again.
    NameThief,
    /// A6: a viewer that never reads.
    NeverReads,
    /// A6: a viewer that wants an acknowledgement for every byte and gives none.
    NeverAcks,
    /// A viewer whose cable is pulled.
    HalfOpen,
    /// A21: more idle connections than an address may have.
    ConnectionFlood,
    /// Publishers of names of their own that reset their connection after a moment.
    ResetStorm,
    /// A29: viewers of names that nobody publishes.
    AbsentNames,
    /// A23, A25: names with escapes, line ends, dots and slashes.
    WickedNames,
    /// A21: an HTTP head that comes a byte a second.
    SlowHead,
    /// A8: heads with too many or too long lines, NUL, bare line feeds and folded lines.
    WickedHeads,
    /// A22: heads that two servers would read differently.
    SmugglingHeads,
    /// A9: bodies that are announced and never come, and bodies that are larger than allowed.
    HugeBodies,
    /// A22: hundreds of requests in one go, the answers unread.
    PipelinedFlood,
    /// A16: offers that are far too large in every direction.
    SdpBombs,
    /// A15: valid WHEP offers whose media path is never opened.
    UnconnectedWhep,
    /// A15: valid WHIP offers whose media path is never opened.
    UnconnectedWhip,
    /// WHIP offers for a name that another publishes.
    WhipThief,
    /// DELETE, PATCH and kicks of sessions that are others'.
    ResourceGuesser,
    /// A29: asks for places for names that nobody has.
    EventFlood,
    /// Bytes on the HTTPS port that are no TLS, or break it off.
    TlsGarbage,
    /// A21: TLS handshakes that do not go on.
    TlsStall,
    /// A18: websockets with frames that must not be, and floods of those that may.
    WickedSockets,
    /// A18: proxied websockets to whatever may not be reached, and to names of its own.
    ProxyAbuse,
    /// Bytes on the nodes' port that are no node protocol.
    LinkGarbage,
    /// A30: a stranger's node, with another key.
    LinkWrongKey,
    /// Says hello on the nodes' port, and nothing more.
    LinkSilence,
    /// A node protocol far older or newer than ours.
    LinkVersions,
    /// A30: knows the key, reports no load, far too often.
    FakeNode,
    /// A30: knows the key, registers under the name of a node that lives.
    Impostor,
    /// A30: knows the key, announces thousands of streams of its own.
    AnnounceFlood,
    /// A30: knows the key, sends frames of streams that nobody asked of it.
    UnaskedFrames,
    /// A30: knows the key, pulls one stream many times, also under one number, and asks for key frames all the time.
    GreedyPuller,
    /// A30: datagrams on the nodes' port that are no QUIC, or no packet of any connection.
    QuicGarbage,
    /// A30: first packets of QUIC with forged sources, so that answers would go to others.
    QuicForged,
    /// A30: QUIC handshakes that stop half-way, more of them than may be under way.
    QuicHalfway,
    /// A30: QUIC connections for another protocol.
    QuicWrongAlpn,
    /// A30: a stranger's node over QUIC, with another key.
    QuicWrongKey,
    /// A30: QUIC connections that heed no limit on streams and bytes.
    QuicBeyond,
    /// A30: messages over QUIC that are announced as larger than any may be; half of them come from who knows the key, as media.
    QuicGiant,
    /// Random datagrams.
    UdpGarbage,
    /// A13: STUN requests without a user, and STUN of other classes.
    StunAnonymous,
    /// A14: STUN requests with a user that does not exist, or with a wrong integrity.
    StunWrong,
    /// A13: STUN with forged sources, so that answers would go to others.
    StunForged,
    /// A15: DTLS records from an address that no session has.
    DtlsGarbage,
    /// A15: DTLS alerts and garbage that seem to come from another's address.
    DtlsForged,
    /// A27: RTP from an address that no session has.
    RtpFlood,
    /// A27: RTP and RTCP that seem to come from another's address.
    RtpForged,
    /// A27: datagrams of others, sent again from their own address.
    Replay,
    /// A15: checks and media of others, sent again from another address.
    ReplayElsewhere,
    /// A8: an RTSP head that comes a byte at a time.
    RtspSlowHead,
    /// A8: RTSP heads with too many or too long lines, NUL, and no sense.
    RtspWickedHeads,
    /// A9: bodies that are too long, announced twice, or no number of bytes.
    RtspHugeBodies,
    /// A10: interleaved packets before anything was set up, on channels of nobody, the largest and the emptiest.
    InterleavedFlood,
    /// A11: transports that would send media to others, to ports of services, or where nobody listens.
    RtspReflection,
    /// A12: requests for sessions of others, and tracks set up twice.
    SessionGuesser,
    /// A24: announces and records a name that another publishes, again and again.
    RtspThief,
    /// A27, A28: publishers of names of their own whose RTP and RTCP are garbage.
    RtspGarbageMedia,
    /// A7: thousands of requests in one go, the answers unread.
    RtspPipelinedFlood,
    /// A6: a viewer by RTSP that never reads.
    RtspNeverReads,
    /// A11: a viewer by datagrams whose cable is pulled.
    RtspHalfOpen,
    /// Datagrams of a stranger to the ports of RTSP media.
    RtspPortFlood,
    /// Websockets of the dialect that say what is no message, in a wrong order, or for another's name.
    SignalNonsense,
    /// Websockets of the dialect that say the same thing as fast as it goes.
    SignalFlood,
    /// Websockets of the dialect that ask for an offer, or make one, and go no further or away.
    SignalHalfway,
    /// A19: what a page of another origin has its visitor's browser ask for: websockets and the API.
    ForeignPages,
    /// A20: tokens that are made up, of another key, without a signature, or in the wrong place.
    TokenGuesser,
    /// A26: bodies and websocket messages that are compressed.
    Compressed,
    /// A28: publishers of names of their own with pictures that never end, and times that jump.
    FrameBombs,
}

/// Which nodes a kind of evil can do anything to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// All.
    Any,
    /// The manager.
    Manager,
    /// The origin of a stream.
    Origin,
}

impl Evil {
    /// Which nodes it is for; at others it is turned away.
    pub fn goes_for(self) -> Victim {
        use Evil as E;
        match self {
            E::FakeNode | E::Impostor | E::AnnounceFlood | E::EventFlood | E::ProxyAbuse => Victim::Manager,
            E::GreedyPuller | E::NameThief | E::WhipThief | E::RtspThief => Victim::Origin,
            _ => Victim::Any,
        }
    }

    /// Whether it could touch WebRTC sessions more than any others.
    pub fn is_about_webrtc(self) -> bool {
        use Evil as E;
        let posts = matches!(self, E::SdpBombs | E::UnconnectedWhep | E::UnconnectedWhip | E::WhipThief);
        let media = udp::is(self) && !self.is_about_rtsp() && self != E::QuicGarbage;
        posts || self == E::SignalHalfway || media
    }

    /// Whether it could touch RTSP sessions more than any others.
    pub fn is_about_rtsp(self) -> bool {
        rtsp::is(self)
    }

    /// Whether it has victims only where there are WebRTC sessions.
    pub fn needs_webrtc(self) -> bool {
        use Evil as E;
        matches!(self, E::DtlsForged | E::RtpForged | E::Replay | E::ReplayElsewhere)
    }
}

/// What an evil client knows of the node that it goes for.
#[derive(Clone, Debug)]
struct Target {
    rtmp: SocketAddr,
    rtsp: SocketAddr,
    /// The first port of RTSP media.
    rtsp_udp: SocketAddr,
    http: SocketAddr,
    https: SocketAddr,
    link: SocketAddr,
    udp: SocketAddr,
    /// The moment that [`Time::ZERO`] stands for.
    base: Instant,
    /// The cluster's key; strangers do not use it.
    key: String,
    /// Names of the cluster's nodes.
    nodes: Vec<String>,
    /// Streams that others publish, `app/name`.
    streams: Vec<String>,
    /// A word that makes its own names unlike those of other evil clients.
    own: String,
}

impl Target {
    fn of(
        c: &Config,
        (ip, base): (IpAddr, Instant),
        nodes: Vec<String>,
        streams: Vec<String>,
        own: String,
    ) -> Target {
        let on = |port| SocketAddr::new(ip, port);
        Target {
            rtmp: on(c.rtmp.port),
            rtsp: on(c.rtsp.port),
            rtsp_udp: on(c.rtsp.udp_port),
            http: on(c.http.port),
            https: on(c.https.port),
            link: on(c.cluster.port),
            udp: on(c.webrtc.port),
            base,
            key: c.cluster.key.clone(),
            nodes,
            streams,
            own,
        }
    }

    fn stream(&self, rng: &mut Rng) -> String {
        let n = u32::try_from(self.streams.len()).unwrap_or(0);
        match n {
            0 => "live/nobody".to_owned(),
            n => self.streams[rng.below(n) as usize].clone(),
        }
    }
}

/// What is said by hand, for tests that attempt one thing.
pub mod said {
    pub use super::http::{offer, upgrade};
    pub use super::rtmp::wishes as rtmp;
    pub use super::rtsp::{ask as rtsp, play as rtsp_play, record as rtsp_record};
    pub use super::secure::text as ws_text;
}

/// What an evil client does to one port, without the waiting.
#[derive(Clone, Debug)]
pub enum Transcript {
    /// The pieces that one connection sends.
    Stream(Service, Vec<Bytes>),
    /// A datagram to the media port.
    Datagram(Bytes),
}

/// What a kind of evil sends to a node that it knows nothing of: its first `n` connections or datagrams. False nodes, whose
/// words follow from what they hear, have none.
pub fn transcripts(kind: Evil, rng: &mut Rng, n: u64) -> Vec<Transcript> {
    let on = |port| SocketAddr::new([10, 0, 0, 1].into(), port);
    let ports = [Service::Rtmp, Service::Rtsp, Service::Http, Service::Https, Service::Link];
    let target = Target {
        rtmp: on(1),
        rtsp: on(2),
        http: on(3),
        https: on(4),
        link: on(5),
        udp: on(6),
        rtsp_udp: on(7),
        base: Instant::now(),
        key: String::new(),
        nodes: Vec::new(),
        streams: vec!["live/one".to_owned()],
        own: format!("evil{}", kind as usize),
    };
    if udp::is(kind) {
        let heard = VecDeque::new();
        let sent = (0..n).filter_map(|nth| udp::datagram(kind, &target, rng, nth, &heard));
        return sent
            .filter_map(|out| match out {
                Out::Datagram { bytes, .. } | Out::Forged { bytes, .. } => Some(Transcript::Datagram(bytes)),
                _ => None,
            })
            .collect();
    }
    let Some(pace) = abuser::pace(kind) else { return Vec::new() };
    let connection = |nth| {
        let script = (pace.script)(kind, &target, rng, nth);
        let service = ports[usize::from(script.to.port()) - 1];
        let pieces = script.steps.into_iter().filter_map(|step| match step {
            abuser::Step::Send(bytes) => Some(bytes),
            _ => None,
        });
        Transcript::Stream(service, pieces.collect())
    };
    (0..n).map(connection).collect()
}

/// A misbehaving client that goes for a real node at `ip`, configured as `c`, where others publish `streams`; for [`Live`].
///
/// [`Live`]: crate::live::Live
pub fn on_sockets(kind: Evil, c: &Config, ip: IpAddr, streams: &[&str], rng: Rng, now: Time) -> Box<Abuser> {
    let owned = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect();
    let own = format!("evil{}", kind as usize);
    let base = Instant::now().checked_sub(now.since(Time::ZERO)).expect("the client began after this host");
    let target = Target::of(c, (ip, base), vec![c.node.name.clone()], owned(streams), own);
    Box::new(Abuser::new(kind, target, rng, now))
}

impl World {
    /// Adds a misbehaving client, the `nth` of its kind, that goes for a host. It goes on until [`World::relent`].
    pub fn evil(&mut self, kind: Evil, at: HostId, nth: u64) -> ClientId {
        let host = &self.hosts[at.0];
        let mut streams: Vec<String> =
            self.standings().filter(|(_, s)| s.publishes).filter_map(|(_, s)| s.stream).collect();
        streams.dedup();
        let nodes = self.hosts.iter().map(|h| h.config.node.name.clone()).collect();
        let own = format!("evil{}x{nth}", kind as usize);
        let target = Target::of(&host.config, (host.ip, self.base), nodes, streams, own);
        let rng = self.rng.fork("evil", nth << 8 | kind as u64);
        let now = self.now;
        self.trace(|| format!("{kind:?} {nth} goes for {}", target.http.ip()));
        self.add(Box::new(Abuser::new(kind, target, rng, now)))
    }

    /// Passes on to those who tap the wire what somebody else sends to a node.
    pub(in crate::world) fn overheard(&mut self, by: Party, from: SocketAddr, to: SocketAddr, bytes: &Bytes) {
        let Some(taps) = self.net.taps.get(&to) else { return };
        for tap in taps.clone().into_iter().filter(|tap| by != Party::Client(*tap)) {
            let to = SocketAddr::new(self.clients[tap.0].ip, 0);
            self.at(self.now, Event::Datagram { to, from, bytes: bytes.clone() });
        }
    }

    /// Puts a datagram with a false source on its way.
    pub(in crate::world) fn forge(&mut self, by: ClientId, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        self.net.forged += 1;
        let micros = 500 + self.draw("forged", self.net.forged, by.0 as u64) % 5_000;
        self.at(self.now + Duration::from_micros(micros), Event::Datagram { to, from, bytes });
    }

    /// An evil client stops and closes what it holds.
    pub fn relent(&mut self, id: ClientId) {
        self.with(id, |e: &mut Abuser, now: Time| e.relent(now));
    }
}
