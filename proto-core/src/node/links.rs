//! The node in its cluster: the link to the manager, links to other nodes, reports, and what the manager role says.

use super::conns::Proto;
use super::session::{Part, Protocol};
use super::{Alarm, Node};
use crate::cluster::link::{self, Link};
use crate::cluster::quic;
use crate::cluster::{LinkId, manager, member};
use crate::error::Reason;
use crate::guard::guard;
use crate::hub::StreamId;
use crate::io::{Answer, AskId, ConnId, Level, Output, Work};
use crate::machine::Machine;
use crate::media::key::StreamKey;
use crate::node::config::Config;
use crate::simulation::Bug;
use crate::time::{Deadline, Time};
use crate::wire::link::{Advertised, FEATURE_QUIC, Message, NodeInfo, RelayedReport, Report, StreamReport};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What a link is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LinkUse {
    /// The other node dialled; it will say what it wants.
    Accepted,
    /// We dialled the manager.
    Manager,
    /// We dialled an origin to pull streams from it.
    Origin(SocketAddr),
}

/// What was asked of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The manager's address.
    Manager,
    /// What a certificate file holds.
    File,
    /// What the key set of tokens holds.
    KeySet,
    /// What the file of the cluster's keys holds.
    ClusterKeys,
    /// Something that a request to another server needs.
    Fetch,
    /// The address of a source or destination, or the authorities that its server is trusted by.
    Remote,
}

/// Where the manager is, as host and port, or `None` if it is in this process.
pub(super) fn manager_target(config: &Config) -> Result<Option<(String, u16)>, Reason> {
    let text = config.cluster.manager.as_str();
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || {
        Reason::local(
            "bad_manager",
            format!("cluster.manager = {} is not HOST or HOST:PORT", crate::error::quote(text)),
        )
    };
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(Some((addr.ip().to_string(), addr.port())));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Ok(Some((text.to_owned(), 5090)));
    }
    match text.split_once(':') {
        None => Ok(Some((text.to_owned(), 5090))),
        Some((host, port)) if !host.is_empty() => {
            Ok(Some((host.to_owned(), port.parse().map_err(|_| wrong())?)))
        }
        Some(_) => Err(wrong()),
    }
}

/// Who a node is, for its registration.
pub(super) fn node_info(
    config: &Config,
    id: &crate::cluster::NodeId,
    instance: u64,
    at: &super::address::Advertised,
) -> NodeInfo {
    NodeInfo {
        id: id.clone(),
        instance,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        roles: config.node.roles.clone(),
        region: config.node.region.clone(),
        advertised: Advertised {
            public: at.public,
            private: at.private,
            name: at.name.clone().unwrap_or_default(),
            http: config.http.port,
            rtmp: config.rtmp.port,
            rtmps: config.rtmps.port,
            rtsp: config.rtsp.port,
            rtsps: config.rtsps.port,
            webrtc: config.webrtc.port,
            link: config.cluster.port,
            https: if config.advertise.https { config.https.port } else { 0 },
        },
        capacity_mbps: config.node.capacity_mbps,
        highest: crate::cluster::Epoch::default(),
    }
}

/// Datagrams that were dropped are told so often at most.
const STRAYS_EVERY: Duration = Duration::from_secs(5);
/// Links that are dialled within a report's time begin with so many datagrams of unproven addresses, and nothing is said of it.
const UNPROVEN: u64 = 50;

/// Which dropped datagrams the operator knows of.
#[derive(Debug, Default)]
pub(super) struct Strays {
    told: BTreeMap<&'static str, u64>,
    next: Time,
}

impl Node {
    pub(super) fn new_link(&self, side: link::Side, conn: ConnId, remote: SocketAddr) -> Link {
        let mut config = link::Config::new(self.id.clone(), self.keys.clone(), self.limits.clone());
        config.features = if self.quic.is_on() { FEATURE_QUIC } else { 0 };
        Link::new(config, side, remote, self.rng.fork("link", conn.0), self.now)
    }

    pub(super) fn join_cluster(&mut self) {
        let info = node_info(&self.config, &self.id, self.instance, &self.advertised);
        self.member.handle(member::Input::Info(Box::new(info)), self.now);
        if self.manager.is_some() {
            self.member.handle(member::Input::ManagerUp(LinkId::Local), self.now);
        }
    }

    /// Sends a message over a link.
    pub(super) fn send_link(&mut self, conn: ConnId, message: Message) {
        if !self.link_is_quic(conn) {
            self.say_on_link(conn, message);
        } else if self.link_up(conn).is_some() {
            for message in self.relay_by_quic(conn, message) {
                self.say_on_link(conn, message);
            }
        }
    }

    /// Hands a message to a link's machine.
    fn say_on_link(&mut self, conn: ConnId, message: Message) {
        let now = self.now;
        let Some(super::conns::Conn { proto: Proto::Link { machine: Some(m), .. }, .. }) =
            self.conns.get_mut(&conn)
        else {
            return;
        };
        match guard(|| m.handle(link::Input::Send(message), now)) {
            Ok(()) => {
                self.dirty_conns.insert(conn);
            }
            Err(reason) => self.end_conn(conn, reason, Some(true)),
        }
    }

    pub(super) fn link_backlog(&self, conn: ConnId) -> Option<usize> {
        match self.conns.get(&conn).map(|c| &c.proto) {
            Some(Proto::Link { machine: Some(m), .. }) => {
                Some(m.backlog() + self.quic.endpoint().map_or(0, |e| e.backlog(conn)))
            }
            _ => None,
        }
    }

    pub(super) fn link_said(&mut self, conn: ConnId, said: link::Output) {
        let used = match self.conns.get(&conn).map(|c| &c.proto) {
            Some(Proto::Link { used, .. }) => used.clone(),
            _ => return,
        };
        match said {
            link::Output::Send(bytes) => self.send(conn, bytes),
            link::Output::Up(peer) => {
                self.conn_is_used(conn);
                // Who dialled says so; the other side says what the link is used for.
                let by_quic = self.link_is_quic(conn);
                if by_quic {
                    self.tell_quic(quic::Input::Proven { conn });
                    if !self.stands_by_quic(conn, &peer.node, &used) {
                        return;
                    }
                }
                let speaks = !by_quic && peer.features & FEATURE_QUIC != 0;
                let asked = speaks && self.ask_again_by_quic(conn, &used);
                let fell_back = !by_quic && !asked && self.quic.is_on() && used != LinkUse::Accepted;
                let (level, over) = match (fell_back, used == LinkUse::Accepted) {
                    (true, _) => (Level::Warn, "TCP"),
                    (false, true) => (Level::Debug, if by_quic { "QUIC" } else { "TCP" }),
                    (false, false) => (Level::Info, if by_quic { "QUIC" } else { "TCP" }),
                };
                let mut text = format!("link {conn} to node {} stands, over {over}", peer.node);
                if fell_back {
                    text += ", which does not encrypt what is relayed: it did not answer by QUIC. Is udp on the number of its \
                             cluster.port open between the nodes? (older nodes know TCP only)";
                }
                self.log(level, "link", "link_up", text);
                match used {
                    LinkUse::Manager => {
                        self.member.handle(member::Input::ManagerUp(LinkId::Conn(conn)), self.now)
                    }
                    LinkUse::Origin(addr) => self.origin_up(addr, conn),
                    LinkUse::Accepted => {}
                }
            }
            link::Output::Message(message) => self.heard(conn, &used, message),
            link::Output::Log(level, text) => {
                self.log(level, "link", "machine", format!("link {conn}: {text}"))
            }
            link::Output::Closed(reason) => self.end_conn(conn, reason, Some(false)),
        }
    }

    fn heard(&mut self, conn: ConnId, used: &LinkUse, message: Message) {
        match used {
            LinkUse::Manager => self.member.handle(member::Input::Message(message), self.now),
            LinkUse::Origin(_) if self.link_is_quic(conn) => self.pulled_by_quic(conn, message),
            LinkUse::Origin(_) => self.pulled(conn, message),
            LinkUse::Accepted => match message {
                Message::Pull { pull, key, hops, after } => {
                    self.asked_to_serve(conn, pull, key, hops, after);
                }
                Message::KeyRequest { pull, track } => self.served_key_request(conn, pull, track),
                Message::CancelPull { pull } => self.served_cancel(conn, pull),
                other => match &mut self.manager {
                    Some(manager) => {
                        manager.handle(manager::Input::Link(LinkId::Conn(conn), other), self.now)
                    }
                    None => {
                        let reason = Reason::peer(
                            "no_manager_here",
                            "the other node took this node for the manager, but it has no manager role; \
                             check --manager there",
                        );
                        self.log(Level::Warn, "link", reason.code, format!("link {conn}: {reason}"));
                        self.end_conn(conn, reason, Some(false));
                    }
                },
            },
        }
    }

    pub(super) fn link_gone(&mut self, conn: ConnId, remote: SocketAddr, used: LinkUse, reason: Reason) {
        self.quic.fallback.no_try(conn);
        match used {
            LinkUse::Manager => {
                // A later dial may be under way already; only the link in use counts.
                if self.manager_conn == Some(conn) {
                    self.manager_conn = None;
                    self.member.handle(member::Input::ManagerDown(reason), self.now);
                }
            }
            LinkUse::Origin(addr) => self.origin_gone(addr, conn, &reason),
            LinkUse::Accepted => {
                self.log(
                    self.unless_draining(Level::Warn),
                    "link",
                    "link_down",
                    format!("link {conn} of {remote} ended: {reason}"),
                );
                self.serving_gone(conn);
                if let Some(manager) = &mut self.manager {
                    manager.handle(manager::Input::LinkDown(LinkId::Conn(conn)), self.now);
                }
            }
        }
    }

    pub(super) fn member_said(&mut self, said: member::Output) {
        use member::Output as O;
        match said {
            O::ToManager(message) => match self.member.manager_link() {
                Some(LinkId::Local) => {
                    if let Some(manager) = &mut self.manager {
                        manager.handle(manager::Input::Link(LinkId::Local, message), self.now);
                    }
                }
                Some(LinkId::Conn(conn)) => self.send_link(conn, message),
                None => self.counters.drop("message", "no_manager", 1),
            },
            O::Claimed { req, result } => self.claimed(req, result),
            O::Located { req, result, live } => self.located(req, result, live),
            O::Relocated { req, to } => self.rtmp_relocated(req, to),
            O::Fenced { key, epoch } => self.fenced(&key, epoch),
            O::Moved { key, source } => self.moved(&key, source),
            O::Drain { on, within_ms, stop } => self.ordered_drain(on, within_ms, stop),
            O::Warm { key, for_ms } => self.ordered_warm(&key, for_ms),
            O::Revoked(name) => self.revoked_elsewhere(&name),
            O::Want { key } => _ = self.want_source(&key),
            O::DialManager => self.dial_manager(),
            O::WantReport => {
                let report = self.make_report();
                self.member.handle(member::Input::Report(report), self.now);
            }
            O::Log(level, text) => self.log(self.unless_draining(level), "cluster", "member", text),
        }
    }

    /// The level of a line about the cluster. A node that ends does not need it any more, and often the rest of the
    /// cluster ends with it.
    fn unless_draining(&self, level: Level) -> Level {
        if self.stopping { Level::Debug } else { level }
    }

    pub(super) fn manager_said(&mut self, said: manager::Output) {
        match said {
            manager::Output::ToLink(LinkId::Local, message) => {
                self.member.handle(member::Input::Message(message), self.now);
            }
            manager::Output::ToLink(LinkId::Conn(conn), message) => self.send_link(conn, message),
            manager::Output::Paired { req, result } => self.paired(req, result),
            manager::Output::Log(level, text) => self.log(level, "cluster", "manager", text),
            manager::Output::Broken(reason) => {
                self.counters.ended_as("claim", &reason);
                self.log(Level::Error, "cluster", reason.code, format!("a claim was refused: {reason}"));
            }
        }
    }

    fn dial_manager(&mut self) {
        // An attempt that still runs is forgotten.
        if let Some(old) = self.manager_conn.take() {
            self.end_conn(old, Reason::local("redial", "the manager is dialled anew"), Some(true));
        }
        let Ok(Some((host, port))) = manager_target(&self.config) else { return };
        self.next_ask += 1;
        let ask = AskId(self.next_ask);
        self.asks.retain(|_, asked| *asked != Asked::Manager);
        self.asks.insert(ask, Asked::Manager);
        self.out.push_back(Output::Ask { ask, work: Work::Resolve { host, port } });
    }

    pub(super) fn answered(&mut self, ask: AskId, answer: Answer) {
        let result = match (self.asks.remove(&ask), answer) {
            (Some(Asked::Manager), Answer::Resolved(result)) => result,
            (Some(Asked::File), Answer::File(found)) => return self.file_read(ask, found),
            (Some(Asked::KeySet), Answer::File(found)) => return self.key_set_read(found),
            (Some(Asked::ClusterKeys), Answer::File(found)) => return self.cluster_keys_read(&found),
            (Some(Asked::Fetch), answer) => return self.fetch_told(ask, answer),
            (Some(Asked::Remote), Answer::Resolved(found)) => return self.remote_resolved(ask, found),
            (Some(Asked::Remote), Answer::File(found)) => return self.remote_authorities(ask, found),
            _ => return,
        };
        let failed = |text: String| Reason::peer("resolve_failed", text);
        match result.map_err(failed).and_then(|list| {
            list.first().copied().ok_or_else(|| failed("the manager's name has no address".to_owned()))
        }) {
            Ok(addr) => self.manager_conn = Some(self.dial_link(addr, LinkUse::Manager)),
            Err(reason) => self.member.handle(member::Input::ManagerDown(reason), self.now),
        }
    }

    pub(super) fn make_report(&self) -> Report {
        let silent = Duration::from_millis(self.limits.stream_silent_ms);
        let viewers = self.viewers();
        let tells = !self.limits.simulation.planted(Bug::ZombiePublisher);
        let clients = if self.limits.simulation.planted(Bug::LoadNotReported) { 0 } else { self.clients() };
        let streams = self
            .hub
            .streams()
            .filter_map(|(id, key)| {
                // A name that was granted for a source is reported as such below.
                if self.remotes.claimed(key).is_some() {
                    return None;
                }
                // What was pulled belongs to another node, also while it is held here after its pull ended.
                if !self.is_ours(key) {
                    return None;
                }
                let live = self.is_live(id) && !self.relocating.leaves(key, self.now);
                Some(StreamReport {
                    key: key.clone(),
                    epoch: self.hub.epoch(id)?,
                    live,
                    silent: live && tells && self.hub.silent_for(id, self.now).is_some_and(|s| s >= silent),
                    viewers: viewers.get(&id).copied().unwrap_or(0),
                    about: self.stream_facts(id),
                })
            })
            .chain(self.remotes.reports())
            .collect();
        let relayed = self
            .hub
            .streams()
            .filter(|(_, key)| !self.is_ours(key))
            .map(|(id, key)| RelayedReport {
                key: key.clone(),
                viewers: viewers.get(&id).copied().unwrap_or(0),
                hops: self.pulls.hops(key),
            })
            .collect();
        Report {
            egress_bps: self.load.egress_bps,
            loop_busy_permille: self.load.busy_permille,
            sessions: u32::try_from(clients).unwrap_or(u32::MAX),
            session_limit: u32::try_from(self.limits.rtc_sessions).unwrap_or(0),
            draining: self.draining,
            streams,
            relayed,
        }
    }

    /// Whether this node was granted a name. What it only relays may stay in the hub for a while after its pull, and
    /// must not be told to the manager as its own then: that would be answered by a fence.
    pub(super) fn is_ours(&self, key: &StreamKey) -> bool {
        self.member.owned(key).is_some()
    }

    /// Publishers and viewers, pulls of other nodes not counted.
    pub(super) fn clients(&self) -> usize {
        self.sessions.iter().filter(|s| s.protocol != Protocol::Relay).count()
    }

    /// Viewers per stream on this node, pulls of other nodes and pushes to other servers not counted.
    pub(super) fn viewers(&self) -> BTreeMap<StreamId, u32> {
        let mut viewers = BTreeMap::new();
        for session in self.sessions.iter().filter(|s| s.protocol != Protocol::Relay && !s.is_push()) {
            if let Part::Plays { stream, .. } = session.part {
                *viewers.entry(stream).or_default() += 1;
            }
        }
        viewers
    }

    /// Measures load; the member asks for the report itself when it is due.
    pub(super) fn report(&mut self) {
        let (datagrams, messages) = (self.counters.datagrams_out, self.counters.messages_out);
        self.load.measure_datagrams(datagrams, messages, self.now);
        self.load.measure(self.counters.egress(), self.now);
        self.report_strays();
        for (session, loss) in self.rtsp_loss() {
            if let Some(s) = self.sessions.get_mut(session) {
                s.loss = Some(loss);
            }
        }
        let next = self.now + Duration::from_millis(self.limits.report_ms);
        self.timers.set(Alarm::Report, Deadline::new(next, "load is measured"));
    }

    /// Says which datagrams were dropped lately, and why: one line for each reason at a time, as a flood has thousands.
    fn report_strays(&mut self) {
        if self.now < self.strays.next {
            return;
        }
        let rtsp = ["rtsp_unknown_source", "rtsp_no_lane"];
        let rtsp = rtsp.map(|r| (r, self.counters.dropped.get(&("datagram", r)).copied().unwrap_or(0)));
        let quic: Vec<_> = self.quic_drops().collect();
        for (reason, n) in self.rtc.drops().by_reason().into_iter().chain(rtsp).chain(quic) {
            let told = self.strays.told.insert(reason, n).unwrap_or(0);
            let usual = if reason == quic::Dropped::Unproven.code() { UNPROVEN } else { 0 };
            if n > told + usual {
                let every = STRAYS_EVERY.as_secs();
                let text = format!("{} datagrams dropped within {every} s ({reason})", n - told);
                self.log(Level::Info, "udp", reason, text);
                self.strays.next = self.now + STRAYS_EVERY;
            }
        }
    }

    /// Somebody else was granted a name that was published here.
    pub(super) fn fenced(&mut self, key: &StreamKey, epoch: crate::cluster::Epoch) {
        let Some(stream) = self.hub.find(key) else { return };
        if self.limits.simulation.planted(Bug::FenceIgnored) {
            return;
        }
        let publisher = self
            .sessions
            .iter()
            .find(|s| matches!(s.part, Part::Publishes { stream: st, .. } if st == stream));
        if let Some(session) = publisher.map(|s| s.id) {
            let reason = Reason::peer(
                "displaced",
                format!(
                    "another publisher took {key} over (epoch {epoch}); this one was silent or superseded"
                ),
            );
            self.end_session(session, &reason);
        }
        self.stop_pushing(key);
        // Viewers here stay and get the stream from its new origin.
        self.pull(key);
    }

    /// Operators and tests: takes nothing new, finishes what runs.
    pub(super) fn drain(&mut self) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        self.draining = true;
        self.said_drained = false;
        self.stop_remotes();
        let most = Duration::from_millis(self.limits.drain_ms);
        let n = self.clients();
        self.log(
            Level::Info,
            "node",
            "drain",
            format!("draining: nothing new is taken, {n} sessions may finish within {most:?}"),
        );
        self.rtsp_redirect_all();
        self.report_now();
        self.rtmp_relocate_all();
        let until = self.now + most;
        self.timers.set(Alarm::DrainEnds, Deadline::new(until, "the time to finish what runs is over"));
    }

    pub(super) fn drain_ends(&mut self) {
        if self.limits.simulation.planted(Bug::DrainNeverEnds) {
            return;
        }
        if self.stopping {
            self.end_all("the node stops; reconnect through the manager");
            self.drain_over = true;
        } else {
            self.end_all("this node is taken out of service; reconnect through the manager");
        }
        self.end_proxies();
    }

    /// Says once that nothing is left. Answers whether the node ends with that: what its links still say leaves before.
    pub(super) fn drained(&mut self) -> bool {
        if (self.sessions.is_empty() || self.drain_over) && !std::mem::replace(&mut self.said_drained, true) {
            self.timers.cancel(&Alarm::DrainEnds);
            if self.stopping {
                self.tell_quic(quic::Input::Goodbye);
                return true;
            }
            let text = "drained: no session is left; end the process, or take it back into service";
            self.log(Level::Info, "node", "drained", text.to_owned());
        }
        false
    }
}
