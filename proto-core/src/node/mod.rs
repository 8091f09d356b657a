//! The node: every machine of the core behind one set of inputs and outputs.
//!
//! [`Node`] owns the connections, the WebRTC endpoint, the hub and the cluster machines, and carries what one of
//! them says to the others. It decides little itself: who may publish and play stands in `publishing` and `playing`,
//! what HTTP answers in `web`, what the cluster wants in `links`, `pulling` and `serving`.

pub mod address;
pub mod audit;
pub mod config;
mod elsewhere;
pub mod exposition;
pub mod identity;
mod in_step;
pub mod session;
pub mod story;
pub mod throttle;

mod api;
mod authority;
mod bridging;
mod conns;
mod dialect;
mod fallback;
mod fetch;
mod flv;
mod gate;
mod keys;
mod links;
mod log;
mod loops;
mod memory;
mod metrics;
mod operators;
mod orders;
mod pictures;
mod playing;
mod proxy;
mod publishing;
mod pulling;
mod quic;
mod relocating;
mod remote;
mod rtsp;
mod secure;
mod serving;
pub mod signals;
mod sockets;
mod stats;
#[cfg(test)]
mod tests;
mod tokens;
mod turn;
mod web;

use crate::bridge::BridgeId;
use crate::cluster::NodeId;
use crate::cluster::manager::Manager;
use crate::cluster::member::Member;
use crate::error::Reason;
use crate::hub::{CodecSet, Hub, StreamId, SubscriberId};
use crate::io::{AskId, ConnId, Output, SocketId};
use crate::limits::Limits;
use crate::media::key::StreamKey;
use crate::node::address::Advertised;
use crate::node::config::{Config, Role};
use crate::node::identity::Identity;
use crate::node::session::{SessionId, Sessions};
use crate::rand::Rng;
use crate::rtc::{Endpoint, EndpointConfig};
use crate::table::Table;
use crate::time::{Time, Timers, WallAnchor};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

/// The one UDP socket of a node.
const MEDIA_SOCKET: SocketId = SocketId(0);

/// What a timer of the node is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    /// A connection's machine wants a tick.
    Conn(ConnId),
    /// A pull's machine wants a tick.
    Pull(StreamKey),
    /// A viewer waited long enough for its stream.
    Waiting(SessionId),
    /// A stream's tracks had time to show up.
    Settle(StreamKey),
    /// A client of the websocket dialect waited long enough.
    Signal(signals::SignalId),
    /// A publisher wants a key frame in its stream.
    KeyFrames(SessionId),
    /// A viewer has more to take.
    Pump(SubscriberId),
    /// A prewarmed stream has been here for long enough.
    Warm(StreamKey),
    /// A bridge that nobody needs ends, or one that failed is tried again.
    Bridge(BridgeId),
    /// A bridge should have answered by now.
    Bridged(BridgeId),
    /// Load is measured and reported.
    Report,
    /// Certificate files are to be looked at.
    Certificates,
    /// The key set of tokens is to be looked at.
    KeySet,
    /// The file of the cluster's keys is looked at.
    ClusterKeys,
    /// The right of a session ends.
    Expires(SessionId),
    /// It is to be looked whether nodes that are proxied to live.
    Proxy,
    /// A node that is dialled by QUIC does not answer.
    QuicWait(ConnId),
    /// QUIC is tried again with a node that is reached by TCP.
    QuicAgain(SocketAddr),
    /// A source or destination is tried again, or is given up.
    Remote(remote::RemoteId),
    /// A request to another server took too long.
    Fetch(u64),
    /// The time to finish what runs is over.
    DrainEnds,
}

/// A whole node. Driven by its three [`Machine`] calls and nothing else.
pub struct Node {
    config: Config,
    limits: Arc<Limits>,
    rng: Rng,
    id: NodeId,
    instance: u64,
    wall: WallAnchor,
    advertised: Advertised,
    out: VecDeque<Output>,
    timers: Timers<Alarm>,
    pumps: VecDeque<SubscriberId>,
    /// Bytes that viewers were handed in this turn of the loop.
    pumped: usize,

    conns: Table<ConnId, conns::Conn>,
    dirty_conns: BTreeSet<ConnId>,
    conns_per_ip: BTreeMap<IpAddr, usize>,
    next_dial: u64,
    next_ask: u64,
    asks: BTreeMap<AskId, links::Asked>,
    tls: secure::Tls,
    authority: authority::Authority,
    fetches: fetch::Fetches,

    rtc: Endpoint,
    rtsp_udp: rtsp::Udp,
    /// Dropped datagrams that the operator was told of.
    strays: links::Strays,
    /// RTSP clients about whom the manager was asked.
    elsewhere: elsewhere::Asking,
    /// RTMP clients about whom it was asked.
    relocating: relocating::Relocating,
    udp_open: bool,
    hub: Hub,
    sessions: Sessions,
    claims: BTreeMap<u64, (SessionId, StreamKey)>,
    next_req: u64,
    /// WHIP requests whose name is being claimed.
    whip_waiting: BTreeMap<SessionId, web::WaitingAnswer>,
    /// WHEP requests whose stream is being found.
    whep_waiting: BTreeMap<SessionId, web::WaitingOffer>,
    /// When a stream's first track was seen.
    first_track: BTreeMap<StreamId, Time>,
    /// WHIP and WHEP resources that ended lately, so that a DELETE that comes after the media path was closed is no
    /// error.
    ended_resources: VecDeque<String>,
    /// WHEP viewers whose media path does not stand yet.
    joining: BTreeMap<SessionId, (StreamKey, CodecSet)>,
    /// Viewers by HTTP-FLV.
    flv: flv::Players,
    /// Clients of the websocket dialect.
    signals: signals::Signals,
    /// Viewers of any protocol whose stream is not here yet.
    play_waiting: BTreeMap<StreamKey, Vec<SessionId>>,

    member: Member,
    manager: Option<Manager>,
    /// The connection that was dialled to the manager last.
    manager_conn: Option<ConnId>,
    quic: quic::Quic,
    logins: operators::Logins,
    pair_waiting: BTreeMap<u64, web::WaitingPair>,
    proxy: proxy::Proxy,
    /// Requests that other loops of this process answer.
    doors: loops::Doors,
    /// RTMP players that are given the same.
    in_step: in_step::InStep,
    pulls: pulling::Pulls,
    remotes: remote::Remotes,
    serving: serving::Served,
    bridges: bridging::Bridges,
    load: stats::Load,
    counters: stats::Counters,
    throttle: throttle::Throttle,

    /// Streams that stay here whether or not somebody watches them.
    warm: BTreeSet<StreamKey>,
    /// Takes nothing new.
    draining: bool,
    /// And ends when nothing is left.
    stopping: bool,
    drain_over: bool,
    said_drained: bool,
    /// What links prove and accept, and what was wrong with the file of it when it was last read.
    keys: Arc<crate::cluster::keys::Keys>,
    keys_wrong: Option<String>,
    started: bool,
    now: Time,
}

impl Node {
    /// Makes a node.
    ///
    /// `seed` is the root of all its randomness; `start` is the moment that [`Time::ZERO`] stands for, needed by the
    /// sans-IO libraries that insist on `Instant`. `identity` is its certificates and cryptography for WebRTC and TLS.
    ///
    /// # Errors
    /// If the configuration contradicts itself; the text names the key.
    pub fn new(
        config: Config,
        seed: [u8; 32],
        start: Instant,
        identity: impl Into<Identity>,
    ) -> Result<Node, Reason> {
        let identity = identity.into();
        let limits = Arc::new(config.limits.clone());
        let rng = Rng::new(seed);
        let mut names = rng.fork("node", 0);
        let id = if config.node.name.is_empty() {
            let kind = match config.node.roles.as_slice() {
                [] => "node",
                [Role::Manager] => "manager",
                [Role::Origin] => "origin",
                [Role::Edge] => "edge",
                _ => "node",
            };
            NodeId(format!("{kind}-{}", names.token(6).to_lowercase()))
        } else {
            NodeId(config.node.name.clone())
        };
        let instance = names.u64();
        let place = config.loops.as_ref();
        let (index, of) = place.map_or((0, 1), |l| (l.index, l.doors.len()));
        let mut rtc = Endpoint::new(EndpointConfig {
            limits: config.limits.clone(),
            rng: rng.fork("rtc", 0),
            start,
            identity: identity.rtc,
            stun: config.webrtc.stun,
            // A process has no more than fit (`config::loops::LOOPS_MAX`).
            loop_index: place.and_then(|l| u8::try_from(l.index).ok()).unwrap_or(0),
        })?;
        if !config.webrtc.lean {
            rtc.use_whole_viewers();
        }
        rtc.offer_tcp(config.ice_tcp_ports());
        let remotes = remote::Remotes::new(&config, &rng)?;
        let dials = links::manager_target(&config)?;
        let is_manager = config.has_role(Role::Manager) && dials.is_none();
        if !is_manager && dials.is_none() {
            return Err(Reason::local(
                "no_manager",
                "this node has no manager role and cluster.manager is empty; set cluster.manager (--manager HOST[:PORT]) \
                 or add the manager role (--roles manager,origin,edge)",
            ));
        }
        let mut hub = Hub::new(&limits);
        hub.set_pacing(config.pacing);
        let complete = config.has_role(Role::Origin) && config.has_role(Role::Edge);
        let manager = is_manager.then(|| Manager::new(limits.clone(), complete, Time::ZERO));
        let advertised = Advertised::find(&config, &[]);
        let info = links::node_info(&config, &id, instance, &advertised);
        let target = config.cluster.manager.clone();
        let member = Member::new(limits.clone(), info, target, rng.fork("member", 0), Time::ZERO);
        let quic = quic::Quic::new(&config, &id.0, &limits, &rng, start, identity.tls.as_ref())?;
        let authority = authority::Authority::new(&config, &limits, &rng);
        Ok(Node {
            hub,
            throttle: throttle::Throttle::new(limits.log_lines_per_s),
            limits,
            rng,
            id,
            instance,
            wall: WallAnchor::default(),
            advertised,
            out: VecDeque::new(),
            timers: Timers::default(),
            pumps: VecDeque::new(),
            pumped: 0,
            conns: Table::new(),
            dirty_conns: BTreeSet::new(),
            conns_per_ip: BTreeMap::new(),
            next_dial: 0,
            next_ask: 0,
            asks: BTreeMap::new(),
            tls: secure::Tls::new(identity.tls),
            authority,
            fetches: fetch::Fetches::default(),
            rtc,
            rtsp_udp: rtsp::Udp::default(),
            strays: links::Strays::default(),
            elsewhere: elsewhere::Asking::default(),
            relocating: relocating::Relocating::default(),
            udp_open: false,
            sessions: Sessions::keeping(config.limits.sessions_kept).numbered(index, of),
            claims: BTreeMap::new(),
            next_req: 0,
            whip_waiting: BTreeMap::new(),
            whep_waiting: BTreeMap::new(),
            first_track: BTreeMap::new(),
            ended_resources: VecDeque::new(),
            joining: BTreeMap::new(),
            flv: flv::Players::new(),
            signals: signals::Signals::default(),
            play_waiting: BTreeMap::new(),
            member,
            manager,
            manager_conn: None,
            quic,
            logins: operators::Logins::default(),
            pair_waiting: BTreeMap::new(),
            proxy: proxy::Proxy::numbered(index, of),
            doors: loops::Doors::default(),
            in_step: in_step::InStep::default(),
            pulls: pulling::Pulls::default(),
            remotes,
            serving: serving::Served::default(),
            bridges: bridging::Bridges::default(),
            load: stats::Load::default(),
            counters: stats::Counters::default(),
            warm: BTreeSet::new(),
            draining: false,
            stopping: false,
            drain_over: false,
            said_drained: false,
            keys: Arc::new(config.cluster.keys()),
            keys_wrong: None,
            started: false,
            now: Time::ZERO,
            config,
        })
    }

    /// The node's name in the cluster.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    fn next_req(&mut self) -> u64 {
        self.next_req += 1;
        self.next_req
    }
}
