//! A cluster in memory for tests: one manager, members, pulls, and links with delay and cuts, in virtual time.
//! Every message passes through the wire's codec. Invariants are checked at every step.

use crate::cluster::manager::{self, Action, Manager, Placement};
use crate::cluster::member::{self, Member};
use crate::cluster::placement::Refusal;
use crate::cluster::relay::{PullClient, PullServer, client};
use crate::cluster::{Epoch, LinkId, NodeId};
use crate::error::Reason;
use crate::hub::delivery::Delivery;
use crate::ids::Role;
use crate::io::ConnId;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::media::frame::{Frame, FrameKind, Ingest, NewFrame, Renderings, Rotation};
use crate::media::key::StreamKey;
use crate::media::track::{CodecConfig, CodecParams, Origin, TrackId};
use crate::rand::Rng;
use crate::time::{Time, WallTime};
use crate::wire::link::{Advertised, Message, NodeInfo, Report, StreamReport, decode, encode};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn key(name: &str) -> StreamKey {
    StreamKey::join("live", name).unwrap()
}

pub(crate) struct Published {
    pub(crate) epoch: Epoch,
    pub(crate) live: bool,
    pub(crate) silent: bool,
    pub(crate) seq: u64,
}

pub(crate) struct Node {
    pub(crate) info: NodeInfo,
    pub(crate) member: Member,
    conn: Option<u64>,
    pub(crate) up: bool,
    /// Cut off from the manager (not from other nodes).
    pub(crate) cut: bool,
    pub(crate) publishing: BTreeMap<StreamKey, Published>,
    pub(crate) claimed: BTreeMap<u64, Result<Epoch, Reason>>,
    pub(crate) fenced: Vec<(StreamKey, Epoch)>,
    pub(crate) pulls: BTreeMap<StreamKey, PullClient>,
    pub(crate) ended: Vec<Reason>,
    servers: Vec<(usize, PullServer)>,
    pub(crate) received: BTreeMap<StreamKey, Vec<(Epoch, i64)>>,
    pub(crate) away: BTreeMap<StreamKey, bool>,
    pub(crate) dials: usize,
    pub(crate) logs: Vec<String>,
    pub(crate) draining: bool,
    pub(crate) warmed: Vec<StreamKey>,
    pub(crate) relocated: BTreeMap<u64, Option<member::Elsewhere>>,
}

enum Event {
    ToManager(u64, Message),
    ToMember(usize, u64, Message),
    Dialled(usize, u64),
    MemberDown(usize, u64),
    ManagerDown(u64),
    Linked { from: usize, to: NodeId },
    Relay { from: usize, to: usize, message: Message },
}

pub(crate) struct World {
    pub(crate) now: Time,
    limits: Arc<Limits>,
    pub(crate) manager: Option<Manager>,
    pub(crate) nodes: Vec<Node>,
    events: BTreeMap<(Time, u64), Event>,
    count: u64,
    pub(crate) delay: Duration,
    pub(crate) paired: BTreeMap<u64, Result<Box<Placement>, Refusal>>,
    granted: BTreeMap<StreamKey, Epoch>,
    boots: u64,
}

impl World {
    pub(crate) fn new() -> World {
        let mut w = World {
            now: Time::ZERO,
            limits: Arc::default(),
            manager: None,
            nodes: Vec::new(),
            events: BTreeMap::new(),
            count: 0,
            delay: Duration::from_millis(10),
            paired: BTreeMap::new(),
            granted: BTreeMap::new(),
            boots: 0,
        };
        w.start_manager(0);
        w
    }

    /// Starts a manager whose wall clock is `skew` seconds behind.
    pub(crate) fn start_manager(&mut self, skew: u64) {
        let mut m = Manager::new(Arc::clone(&self.limits), false, self.now);
        let wall = 1_700_000_000 - skew + self.now.as_millis() / 1_000;
        m.handle(manager::Input::WallClock(WallTime(wall * 1_000_000_000)), self.now);
        self.manager = Some(m);
    }

    pub(crate) fn kill_manager(&mut self) {
        self.manager = None;
        self.events.retain(|_, e| !matches!(e, Event::ToManager(..)));
        for i in 0..self.nodes.len() {
            if let Some(conn) = self.nodes[i].conn {
                self.later(Event::MemberDown(i, conn));
            }
        }
    }

    pub(crate) fn add(&mut self, name: &str, roles: &[Role]) -> usize {
        self.add_in(name, roles, "eu")
    }

    pub(crate) fn add_in(&mut self, name: &str, roles: &[Role], region: &str) -> usize {
        let i = self.nodes.len();
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, i as u8));
        let info = NodeInfo {
            id: NodeId(name.to_owned()),
            instance: 0,
            version: "test".to_owned(),
            roles: roles.to_vec(),
            region: region.to_owned(),
            advertised: Advertised {
                public: ip,
                private: ip,
                name: String::new(),
                http: 1,
                rtmp: 2,
                rtmps: 7,
                rtsp: 5,
                rtsps: 6,
                webrtc: 3,
                link: 4,
                https: 0,
            },
            capacity_mbps: 1_000,
            highest: Epoch::default(),
        };
        let member = self.member(&info);
        self.nodes.push(Node {
            info,
            member,
            conn: None,
            up: true,
            cut: false,
            publishing: BTreeMap::new(),
            claimed: BTreeMap::new(),
            fenced: Vec::new(),
            pulls: BTreeMap::new(),
            ended: Vec::new(),
            servers: Vec::new(),
            received: BTreeMap::new(),
            away: BTreeMap::new(),
            dials: 0,
            logs: Vec::new(),
            draining: false,
            warmed: Vec::new(),
            relocated: BTreeMap::new(),
        });
        i
    }

    fn member(&mut self, info: &NodeInfo) -> Member {
        self.boots += 1;
        let info = NodeInfo { instance: self.boots, ..info.clone() };
        let rng = Rng::new([self.boots as u8; 32]);
        Member::new(Arc::clone(&self.limits), info, "manager:5090".to_owned(), rng, self.now)
    }

    fn later(&mut self, event: Event) {
        self.count += 1;
        self.events.insert((self.now + self.delay, self.count), event);
    }

    /// The process dies: links break, nothing is said any more.
    pub(crate) fn kill(&mut self, i: usize) {
        self.nodes[i].up = false;
        if let Some(conn) = self.nodes[i].conn.take() {
            self.later(Event::ManagerDown(conn));
        }
        self.nodes[i].servers.clear();
        for j in 0..self.nodes.len() {
            let id = self.nodes[i].info.id.clone();
            let now = self.now;
            for pull in self.nodes[j].pulls.values_mut().filter(|p| p.source() == Some(&id)) {
                pull.handle(client::Input::LinkDown(Reason::peer("reset", "reset")), now);
            }
        }
    }

    pub(crate) fn restart(&mut self, i: usize) {
        let info = self.nodes[i].info.clone();
        let member = self.member(&info);
        let node = &mut self.nodes[i];
        (node.member, node.up) = (member, true);
        node.publishing.clear();
        node.pulls.clear();
    }

    /// The manager's link of a node breaks (and stays cut until `cut` is false again).
    pub(crate) fn cut(&mut self, i: usize) {
        self.nodes[i].cut = true;
        if let Some(conn) = self.nodes[i].conn.take() {
            self.later(Event::ManagerDown(conn));
            let now = self.now;
            let reason = Reason::peer("reset", "reset");
            self.nodes[i].member.handle(member::Input::ManagerDown(reason), now);
        }
    }

    pub(crate) fn claim(&mut self, i: usize, req: u64, name: &str, identity: &str) {
        let claim = member::Input::Claim { req, key: key(name), identity: identity.to_owned() };
        self.nodes[i].member.handle(claim, self.now);
    }

    pub(crate) fn relocate(&mut self, i: usize, req: u64, name: &str, publishes: bool) {
        let question = member::Input::Relocate { req, key: key(name), publishes };
        self.nodes[i].member.handle(question, self.now);
    }

    pub(crate) fn release(&mut self, i: usize, name: &str) {
        let p = self.nodes[i].publishing.get_mut(&key(name)).unwrap();
        p.live = false;
        let released = member::Input::Released { key: key(name), epoch: p.epoch };
        self.nodes[i].member.handle(released, self.now);
    }

    pub(crate) fn pair(&mut self, req: u64, action: Action, name: &str) {
        let pair = manager::Input::Pair {
            req,
            pairing: manager::Pairing {
                action,
                key: key(name),
                regions: Vec::new(),
                strict: false,
                count: 1,
                leaves: None,
            },
        };
        self.manager.as_mut().unwrap().handle(pair, self.now);
    }

    pub(crate) fn watch(&mut self, i: usize, name: &str) {
        self.count += 1;
        let rng = Rng::new([9; 32]);
        let own = self.nodes[i].info.id.clone();
        let pull = PullClient::new(self.count, key(name), own, Arc::clone(&self.limits), rng, self.now);
        self.nodes[i].pulls.insert(key(name), pull);
    }

    fn config() -> Delivery {
        let params = CodecParams::Opus { channels: 2 };
        let config = Arc::new(CodecConfig { version: 1, params, origin: Origin::Ingest });
        Delivery::Config { track: TrackId::AUDIO, config }
    }

    /// The publisher of a name at a node sends one packet, whose time is its number.
    pub(crate) fn packet(&mut self, i: usize, name: &str) {
        let Some(p) = self.nodes[i].publishing.get_mut(&key(name)) else { return };
        p.seq += 1;
        let (seq, epoch) = (p.seq, p.epoch);
        let media = NewFrame {
            track: TrackId::AUDIO,
            dts: seq as i64,
            pts: seq as i64,
            kind: FrameKind::Audio,
            discardable: false,
            temporal_layer: 0,
            rotation: Rotation::R0,
            capture: None,
            payload: Bytes::from_static(b"sound"),
        };
        let (dts, pts) = (media.dts, media.pts);
        let frame =
            Arc::new(Frame { seq, epoch, config_version: 1, media, renderings: Renderings::default() });
        let delivery = Delivery::Frame { frame, dts, pts, cached: false };
        let mut out = Vec::new();
        for (to, server) in self.nodes[i].servers.iter_mut().filter(|(_, s)| *s.key() == key(name)) {
            out.extend(server.deliver(&delivery, 0).map(|message| (*to, message)));
        }
        for (to, message) in out {
            self.later(Event::Relay { from: i, to, message });
        }
    }

    fn over_the_wire(message: Message) -> Message {
        let e = encode(&message);
        let raw = [&e.head[4..], &e.tail[..]].concat();
        let back = decode(raw.into()).unwrap().unwrap();
        assert_eq!(back, message);
        back
    }

    fn event(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::ToManager(conn, message) => {
                if let Some(m) = &mut self.manager {
                    m.handle(manager::Input::Link(LinkId::Conn(ConnId::accepted(conn)), message), now);
                }
            }
            Event::ToMember(i, conn, message) => {
                let node = &mut self.nodes[i];
                if node.up && node.conn == Some(conn) {
                    node.member.handle(member::Input::Message(message), now);
                }
            }
            Event::Dialled(i, conn) => {
                let node = &mut self.nodes[i];
                if !node.up {
                } else if self.manager.is_some() && !node.cut {
                    node.conn = Some(conn);
                    node.member.handle(member::Input::ManagerUp(LinkId::Conn(ConnId::dialled(conn))), now);
                } else {
                    let reason = Reason::peer("dial_failed", "connection refused");
                    node.member.handle(member::Input::ManagerDown(reason), now);
                }
            }
            Event::MemberDown(i, conn) => {
                let node = &mut self.nodes[i];
                if node.up && node.conn == Some(conn) {
                    node.conn = None;
                    node.member.handle(member::Input::ManagerDown(Reason::peer("reset", "reset")), now);
                }
            }
            Event::ManagerDown(conn) => {
                if let Some(m) = &mut self.manager {
                    m.handle(manager::Input::LinkDown(LinkId::Conn(ConnId::accepted(conn))), now);
                }
            }
            Event::Linked { from, to } => {
                let reachable = self.nodes.iter().any(|n| n.up && n.info.id == to);
                for pull in self.nodes[from].pulls.values_mut().filter(|p| p.source() == Some(&to)) {
                    pull.handle(
                        match reachable {
                            true => client::Input::LinkUp,
                            false => {
                                client::Input::LinkDown(Reason::peer("dial_failed", "connection refused"))
                            }
                        },
                        now,
                    );
                }
            }
            Event::Relay { from, to, message } => self.relay(from, to, message),
        }
    }

    fn relay(&mut self, from: usize, to: usize, message: Message) {
        if !self.nodes[to].up || !self.nodes[from].up {
            return;
        }
        match message {
            Message::Pull { pull, key, hops, .. } => {
                let own = self.nodes[to].info.id.clone();
                let live = self.nodes[to].publishing.contains_key(&key);
                let answer = match PullServer::accept(pull, key, &hops, &own, &[], Arc::clone(&self.limits)) {
                    Ok(server) if !live => server.end(&Reason::peer("not_found", "not here")),
                    Ok(mut server) => {
                        let config = server.deliver(&Self::config(), 0).unwrap();
                        self.nodes[to].servers.push((from, server));
                        config
                    }
                    Err(end) => end,
                };
                self.later(Event::Relay { from: to, to: from, message: answer });
            }
            Message::CancelPull { pull } => self.nodes[to].servers.retain(|(_, s)| s.pull() != pull),
            message => {
                let now = self.now;
                let id = self.nodes[from].info.id.clone();
                for pull in self.nodes[to].pulls.values_mut().filter(|p| p.source() == Some(&id)) {
                    pull.handle(client::Input::Message(message.clone()), now);
                }
            }
        }
    }

    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(o) = self.manager.as_mut().and_then(Machine::poll) {
                quiet = false;
                self.manager_said(o);
            }
            for i in 0..self.nodes.len() {
                while let Some(o) = self.nodes[i].member.poll() {
                    quiet = false;
                    if self.nodes[i].up {
                        self.member_said(i, o);
                    }
                }
                let keys: Vec<StreamKey> = self.nodes[i].pulls.keys().cloned().collect();
                for key in keys {
                    while let Some(o) = self.nodes[i].pulls.get_mut(&key).and_then(Machine::poll) {
                        quiet = false;
                        self.pull_said(i, &key, o);
                    }
                }
            }
            if quiet {
                return self.check();
            }
        }
    }

    /// At every step: no two nodes hold one (stream, epoch), and every node's epoch was granted.
    fn check(&self) {
        let mut seen = BTreeSet::new();
        for node in self.nodes.iter().filter(|n| n.up) {
            for (key, p) in node.publishing.iter().filter(|(_, p)| p.live) {
                assert!(seen.insert((key, p.epoch)), "two publishers of {key} under {}", p.epoch);
                assert!(p.epoch <= self.granted[key]);
            }
        }
    }

    fn manager_said(&mut self, o: manager::Output) {
        match o {
            manager::Output::ToLink(LinkId::Conn(conn), message) => {
                if let Message::Claimed { key, epoch, .. } = &message {
                    let before = self.granted.insert(key.clone(), *epoch);
                    assert!(before.is_none_or(|b| b < *epoch), "{key}: {epoch} granted after {before:?}");
                }
                let conn = conn.0;
                if let Some(i) = self.nodes.iter().position(|n| n.conn == Some(conn)) {
                    self.later(Event::ToMember(i, conn, Self::over_the_wire(message)));
                }
            }
            manager::Output::Paired { req, result } => {
                if let Ok(p) = &result {
                    let m = self.manager.as_ref().unwrap();
                    assert!(m.registry().alive(&p.node.id, self.now), "gave out a dead node");
                }
                assert!(self.paired.insert(req, result).is_none());
            }
            manager::Output::ToLink(LinkId::Local, _) | manager::Output::Log(..) => {}
            manager::Output::Broken(reason) => panic!("{reason}"),
        }
    }

    fn member_said(&mut self, i: usize, o: member::Output) {
        let now = self.now;
        match o {
            member::Output::ToManager(message) => {
                if let Some(conn) = self.nodes[i].conn {
                    self.later(Event::ToManager(conn, Self::over_the_wire(message)));
                }
            }
            member::Output::Claimed { req, result } => {
                assert!(!self.nodes[i].claimed.contains_key(&req), "answered twice");
                if let (Ok(epoch), Some(key)) = (&result, self.claim_key(i, req)) {
                    let published = Published { epoch: *epoch, live: true, silent: false, seq: 0 };
                    self.nodes[i].publishing.insert(key, published);
                }
                self.nodes[i].claimed.insert(req, result);
            }
            member::Output::Located { req, result, .. } => {
                if let Some(pull) = self.nodes[i].pulls.values_mut().find(|p| p.pull() == req) {
                    pull.handle(client::Input::Located(result), now);
                }
            }
            member::Output::Fenced { key, epoch } => {
                self.nodes[i].publishing.remove(&key);
                self.nodes[i].fenced.push((key, epoch));
            }
            member::Output::Moved { key, source } => {
                if let Some(pull) = self.nodes[i].pulls.get_mut(&key) {
                    pull.handle(client::Input::Moved(source), now);
                }
            }
            member::Output::DialManager => {
                self.nodes[i].dials += 1;
                self.count += 1;
                let conn = self.count;
                self.later(Event::Dialled(i, conn));
            }
            member::Output::WantReport => {
                let stream = |(key, p): (&StreamKey, &Published)| StreamReport {
                    about: Default::default(),
                    key: key.clone(),
                    epoch: p.epoch,
                    silent: p.silent,
                    live: p.live,
                    viewers: 0,
                };
                let node = &mut self.nodes[i];
                let streams: Vec<_> = node.publishing.iter().map(stream).collect();
                let sessions = streams.len() as u32;
                let draining = node.draining;
                let report = Report { sessions, session_limit: 100, draining, streams, ..Report::default() };
                node.member.handle(member::Input::Report(report), now);
            }
            member::Output::Drain { on, .. } => self.nodes[i].draining = on,
            member::Output::Warm { key, .. } => self.nodes[i].warmed.push(key),
            member::Output::Relocated { req, to } => {
                assert!(self.nodes[i].relocated.insert(req, to).is_none(), "answered twice");
            }
            member::Output::Want { .. } | member::Output::Revoked(_) => {}
            member::Output::Log(_, text) => self.nodes[i].logs.push(text),
        }
    }

    /// Claims in this world are numbered so that the name can be found again.
    fn claim_key(&self, i: usize, _req: u64) -> Option<StreamKey> {
        let owned = |k: &&StreamKey| {
            let new = self.nodes[i].member.owned(k);
            new.is_some() && self.nodes[i].publishing.get(*k).map(|p| p.epoch) != new
        };
        self.granted.keys().find(owned).cloned()
    }

    fn pull_said(&mut self, i: usize, key: &StreamKey, o: client::Output) {
        match o {
            client::Output::Locate => {
                let req = self.nodes[i].pulls[key].pull();
                let now = self.now;
                self.nodes[i]
                    .member
                    .handle(member::Input::Locate { req, key: key.clone(), direct: false }, now);
            }
            client::Output::Connect { node, addr } => {
                let there = self.nodes.iter().find(|n| n.info.id == node).unwrap();
                assert_eq!(addr, SocketAddr::new(there.info.advertised.private, 4));
                self.later(Event::Linked { from: i, to: node });
            }
            client::Output::Send(message) => {
                let source = self.nodes[i].pulls[key].source().cloned();
                if let Some(to) = self.nodes.iter().position(|n| Some(&n.info.id) == source.as_ref()) {
                    self.later(Event::Relay { from: i, to, message: Self::over_the_wire(message) });
                }
            }
            client::Output::Ingest { epoch, ingest: Ingest::Frame(f), .. } => {
                let got = self.nodes[i].received.entry(key.clone()).or_default();
                assert!(got.last().is_none_or(|last| *last < (epoch, f.pts)), "stale or repeated frame");
                got.push((epoch, f.pts));
            }
            client::Output::Away => drop(self.nodes[i].away.insert(key.clone(), true)),
            client::Output::Back => drop(self.nodes[i].away.insert(key.clone(), false)),
            client::Output::Ended(reason) => {
                self.nodes[i].pulls.remove(key);
                self.nodes[i].ended.push(reason);
            }
            client::Output::Ingest { .. } | client::Output::Unavailable(_) | client::Output::Log(..) => {}
        }
    }

    /// Lets `ms` milliseconds pass.
    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        self.settle();
        for _ in 0..100_000 {
            let mut next = self.events.keys().next().map_or(end, |(at, _)| *at).min(end);
            next = self.manager.as_ref().and_then(Machine::deadline).map_or(next, |d| d.at.min(next));
            for node in self.nodes.iter().filter(|n| n.up) {
                let pulls = node.pulls.values().filter_map(Machine::deadline);
                next = pulls.chain(node.member.deadline()).fold(next, |n, d| n.min(d.at));
            }
            self.now = self.now.max(next);
            let now = self.now;
            if let Some((&id, _)) = self.events.first_key_value().filter(|((at, _), _)| *at <= now) {
                let event = self.events.remove(&id).unwrap();
                self.event(event);
            }
            if let Some(m) = &mut self.manager {
                m.handle(manager::Input::Tick, now);
            }
            for node in self.nodes.iter_mut().filter(|n| n.up) {
                node.member.handle(member::Input::Tick, now);
                node.pulls.values_mut().for_each(|p| p.handle(client::Input::Tick, now));
            }
            self.settle();
            let waits = self.events.first_key_value().is_some_and(|((at, _), _)| *at <= now);
            if now >= end && !waits {
                return;
            }
        }
        panic!("the world is never quiet: a deadline lies in the past for ever");
    }
}
