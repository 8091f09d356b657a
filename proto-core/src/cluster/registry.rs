//! What the manager knows: nodes with their leases and load, streams with their owners and epochs, reservations.
//!
//! The state is soft: all of it comes from the nodes' own messages and can be lost at any time. This type is the seam
//! behind which a shared store can stand later; it decides nothing about who may publish (that is
//! [`crate::cluster::manager`]) or who is given out ([`crate::cluster::placement`]).

mod audit;

use crate::cluster::placement::{Candidate, FULL_PPM};
use crate::cluster::{Epoch, LinkId, NodeId};
use crate::limits::Limits;
use crate::media::key::StreamKey;
use crate::simulation::Bug;
use crate::time::{Deadline, Time, Timers};
use crate::wire::link::{NodeInfo, Report, StreamFacts};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A node's last report, without its streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Load {
    /// What it sends, bits a second.
    pub egress_bps: u64,
    /// The share of time that its loop was busy, thousandths.
    pub loop_busy_permille: u32,
    /// Publishing and playing sessions.
    pub sessions: u32,
    /// The most sessions that it takes; 0: not known.
    pub session_limit: u32,
    /// It takes nothing new.
    pub draining: bool,
}

/// A node that has registered.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it said about itself.
    pub info: NodeInfo,
    /// Its link, while that stands.
    pub link: Option<LinkId>,
    /// When it last registered or reported.
    pub heard: Time,
    /// Its load.
    pub load: Load,
    /// When it last reported that it sends or has sessions.
    pub traffic: Option<Time>,
    /// An operator wants it to take nothing new, whatever it reports itself.
    pub ordered_drain: bool,
    /// The streams that it is the origin of.
    pub owns: BTreeSet<StreamKey>,
    /// The streams that it relays, and their viewers on it.
    pub relays: BTreeMap<StreamKey, u32>,
    /// Those of them whose frames come, and how many nodes they came through.
    pub hops: BTreeMap<StreamKey, u32>,
    /// Viewers that were sent to it and have not shown up yet: when each is forgotten, oldest first.
    viewers_due: VecDeque<Time>,
    /// Publishers that were sent to it and have not shown up in a report yet.
    publishers_due: usize,
    /// The second in which the reports of `reports` came.
    report_second: u64,
    reports: u32,
}

impl Node {
    /// Whether it takes nothing new.
    pub fn draining(&self) -> bool {
        self.load.draining || self.ordered_drain
    }

    /// What one more session adds to its use, parts per million.
    fn step_ppm(&self, limits: &Limits) -> u64 {
        let by_rate =
            limits.reservation_kbps.saturating_mul(1_000) / u64::from(self.info.capacity_mbps).max(1);
        let by_count = match self.load.session_limit {
            0 => 0,
            most => FULL_PPM.div_ceil(u64::from(most)),
        };
        by_rate.max(by_count).max(1)
    }

    /// How much of it is used, parts per million: the largest of sent rate, loop time and sessions, plus what was
    /// given out and has not arrived.
    pub fn used_ppm(&self, limits: &Limits) -> u64 {
        let load = &self.load;
        // Bits a second by megabits a second are parts per million.
        let rate = load.egress_bps.checked_div(u64::from(self.info.capacity_mbps)).unwrap_or(FULL_PPM);
        let busy = u64::from(load.loop_busy_permille) * 1_000;
        let sessions = match load.session_limit {
            0 => 0,
            most => u64::from(load.sessions) * FULL_PPM / u64::from(most),
        };
        let due = (self.viewers_due.len() + self.publishers_due) as u64;
        rate.max(busy).max(sessions).saturating_add(due.saturating_mul(self.step_ppm(limits)))
    }
}

/// What a stream's publisher is doing, as far as the manager knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamState {
    /// Media comes.
    Live,
    /// A publisher is connected but has said nothing for `stream_silent_ms`.
    Silent,
    /// The publisher (or its node) went; the stream waits for it.
    Held,
}

/// A stream that somebody publishes or published a moment ago.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The highest epoch granted.
    pub epoch: Epoch,
    /// The origin; none after its node died.
    pub owner: Option<NodeId>,
    /// Who publishes; empty: not known.
    pub identity: String,
    /// What the publisher is doing.
    pub state: StreamState,
    /// Viewers on its origin.
    pub viewers: u32,
    /// What its origin last said about it.
    pub about: StreamFacts,
    /// When the epoch was granted or learnt.
    pub since: Time,
    /// When it last changed hands between live publishers.
    pub taken_over: Option<Time>,
    /// Nodes that asked where it is, to be told when that changes.
    pub askers: BTreeSet<NodeId>,
}

impl Stream {
    /// Whether its publisher is of this identity. Of nobody in particular nobody is the same.
    pub fn is_by(&self, identity: &str) -> bool {
        !identity.is_empty() && self.identity == identity
    }
}

/// An origin that was given out to a publisher who has not shown up yet.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// The origin.
    pub node: NodeId,
    /// Its publisher has claimed the name; the reservation only counts until the node's next report.
    pub landed: bool,
}

/// What came due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Lease(NodeId),
    Hold(StreamKey),
    Reservation(StreamKey),
}

/// What the passing of time did; see [`Registry::pop_due`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lapsed {
    /// A node's lease ran out; these streams of it are held without an owner now.
    Node(NodeId, Vec<StreamKey>),
    /// A held stream was forgotten.
    Stream(StreamKey),
}

/// Everything a manager knows. See the module's text.
#[derive(Debug)]
pub struct Registry {
    limits: Arc<Limits>,
    nodes: BTreeMap<NodeId, Node>,
    links: BTreeMap<LinkId, NodeId>,
    streams: BTreeMap<StreamKey, Stream>,
    reservations: BTreeMap<StreamKey, Reservation>,
    timers: Timers<Due>,
}

impl Registry {
    /// An empty one.
    pub fn new(limits: Arc<Limits>) -> Registry {
        Registry {
            limits,
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            streams: BTreeMap::new(),
            reservations: BTreeMap::new(),
            timers: Timers::default(),
        }
    }

    fn ms(&self, ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Node> {
        &self.nodes
    }

    /// All streams, by name.
    pub fn streams(&self) -> &BTreeMap<StreamKey, Stream> {
        &self.streams
    }

    /// A node.
    pub fn node(&self, id: &NodeId) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// The node behind a link, once it registered.
    pub fn node_at(&self, link: LinkId) -> Option<&NodeId> {
        self.links.get(&link)
    }

    /// A stream.
    pub fn stream(&self, key: &StreamKey) -> Option<&Stream> {
        self.streams.get(key)
    }

    /// A stream, to change what does not concern ownership.
    pub fn stream_mut(&mut self, key: &StreamKey) -> Option<&mut Stream> {
        self.streams.get_mut(key)
    }

    /// Viewers of each stream on all nodes but `except`, whose own numbers are fresher than its report.
    pub fn viewers(&self, except: &NodeId) -> BTreeMap<&StreamKey, u64> {
        let mut viewers = BTreeMap::new();
        let on_origins = self
            .streams
            .iter()
            .filter(|(_, s)| s.owner.as_ref() != Some(except))
            .map(|(key, s)| (key, s.viewers));
        let on_others = self
            .nodes
            .iter()
            .filter(|(id, _)| *id != except)
            .flat_map(|(_, n)| &n.relays)
            .map(|(k, n)| (k, *n));
        for (key, n) in on_origins.chain(on_others) {
            *viewers.entry(key).or_default() += u64::from(n);
        }
        viewers
    }

    /// An operator wants a node to take nothing new, or to take it again.
    pub fn order_drain(&mut self, id: &NodeId, on: bool) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.ordered_drain = on;
            // Until it says so itself.
            node.load.draining &= on;
        }
    }

    /// Whether a node's link stands and its lease runs.
    pub fn alive(&self, id: &NodeId, now: Time) -> bool {
        let stale = self.limits.simulation.planted(Bug::StaleEntry);
        self.nodes.get(id).is_some_and(|n| stale || (n.link.is_some() && now < self.lease_end(n)))
    }

    fn lease_end(&self, node: &Node) -> Time {
        node.heard + self.ms(self.limits.lease_ms)
    }

    /// Puts a node into the books, or renews its entry. Answers the streams of an earlier run of that node, which
    /// are held without an owner now.
    ///
    /// # Errors
    /// A code and a sentence: the name is in use by another living node, or there are too many nodes.
    pub fn register(
        &mut self,
        link: LinkId,
        info: NodeInfo,
        now: Time,
    ) -> Result<Vec<StreamKey>, (&'static str, String)> {
        let id = info.id.clone();
        let mut orphans = Vec::new();
        if let Some(old) = self.nodes.get(&id) {
            if old.info.instance != info.instance {
                if old.link != Some(link) && self.alive(&id, now) {
                    return Err((
                        "node_name_taken",
                        format!(
                            "another node called {} is registered; give every node a node.name of its own",
                            crate::error::quote(&id.0)
                        ),
                    ));
                }
                orphans = self.orphan(&id, now);
                if let Some(old) = self.nodes.get_mut(&id) {
                    old.ordered_drain = false;
                }
            }
        } else if self.nodes.len() >= self.limits.cluster_nodes {
            return Err((
                "cluster_nodes",
                format!("the manager knows {} nodes already (limits.cluster_nodes)", self.nodes.len()),
            ));
        }
        // A link speaks for one node: a registration under a new name ends the old one.
        if self.links.get(&link).is_some_and(|old| *old != id) {
            self.link_down(link);
        }
        let node = self.nodes.entry(id.clone()).or_insert_with(|| Node {
            info: info.clone(),
            link: None,
            heard: now,
            load: Load::default(),
            traffic: None,
            ordered_drain: false,
            owns: BTreeSet::new(),
            relays: BTreeMap::new(),
            hops: BTreeMap::new(),
            viewers_due: VecDeque::new(),
            publishers_due: 0,
            report_second: 0,
            reports: 0,
        });
        node.info = info;
        node.heard = now;
        if let Some(old) = node.link.replace(link).filter(|old| *old != link) {
            self.links.remove(&old);
        }
        self.links.insert(link, id.clone());
        self.renew(&id);
        Ok(orphans)
    }

    fn renew(&mut self, id: &NodeId) {
        if let Some(node) = self.nodes.get(id) {
            self.timers.set(Due::Lease(id.clone()), Deadline::new(self.lease_end(node), "node lease"));
        }
    }

    /// A link broke. The node keeps its streams until its lease runs out, but is not given out any more.
    pub fn link_down(&mut self, link: LinkId) -> Option<NodeId> {
        let id = self.links.remove(&link)?;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.link = None;
        }
        self.renew(&id);
        Some(id)
    }

    /// Reports of a node in this second, those that were left out among them.
    pub fn reports_now(&self, id: &NodeId) -> u32 {
        self.nodes.get(id).map_or(0, |n| n.reports)
    }

    /// Takes the load out of a report and renews the lease. `false`: too many reports, or an unknown node; the report
    /// is to be left alone.
    pub fn report(&mut self, id: &NodeId, report: &Report, now: Time) -> bool {
        let Some(node) = self.nodes.get_mut(id) else { return false };
        let second = now.as_millis() / 1_000;
        if node.report_second != second {
            (node.report_second, node.reports) = (second, 0);
        }
        node.reports = node.reports.saturating_add(1);
        if node.reports > self.limits.cluster_reports_per_s {
            return false;
        }
        // Sessions that are new in this report are taken for those that were sent there.
        let arrived = report.sessions.saturating_sub(node.load.sessions) as usize;
        let landed: Vec<StreamKey> = node
            .owns
            .iter()
            .filter(|k| self.reservations.get(*k).is_some_and(|r| r.landed))
            .cloned()
            .collect();
        let viewers = arrived.saturating_sub(landed.len()).min(node.viewers_due.len());
        node.viewers_due.drain(..viewers);
        while node.viewers_due.front().is_some_and(|until| *until <= now) {
            node.viewers_due.pop_front();
        }
        node.heard = now;
        if report.egress_bps > 0 || report.sessions > 0 {
            node.traffic = Some(now);
        }
        node.load = Load {
            egress_bps: report.egress_bps,
            loop_busy_permille: report.loop_busy_permille,
            sessions: report.sessions,
            session_limit: report.session_limit,
            draining: report.draining,
        };
        let most = self.limits.cluster_streams;
        node.relays = report.relayed.iter().take(most).map(|s| (s.key.clone(), s.viewers)).collect();
        let feeding = report.relayed.iter().take(most).filter(|s| s.hops > 0);
        node.hops = feeding.map(|s| (s.key.clone(), s.hops)).collect();
        for key in landed {
            self.drop_reservation(&key);
        }
        self.renew(id);
        true
    }

    /// Whether one more name would be too many.
    pub fn streams_full(&self) -> bool {
        self.streams.len() >= self.limits.cluster_streams
    }

    /// Gives a stream to a node under an epoch, from now on live. Answers the owner before.
    pub fn grant(
        &mut self,
        key: &StreamKey,
        node: &NodeId,
        epoch: Epoch,
        identity: &str,
        now: Time,
    ) -> Option<NodeId> {
        let stream = self.streams.entry(key.clone()).or_insert_with(|| Stream {
            epoch,
            owner: None,
            identity: String::new(),
            state: StreamState::Live,
            viewers: 0,
            about: StreamFacts::default(),
            since: now,
            taken_over: None,
            askers: BTreeSet::new(),
        });
        let before = stream.owner.replace(node.clone());
        stream.epoch = epoch;
        identity.clone_into(&mut stream.identity);
        stream.state = StreamState::Live;
        stream.since = now;
        if let Some(old) = before.as_ref().filter(|old| *old != node).and_then(|old| self.nodes.get_mut(old))
        {
            old.owns.remove(key);
        }
        if let Some(new) = self.nodes.get_mut(node) {
            new.owns.insert(key.clone());
        }
        self.timers.cancel(&Due::Hold(key.clone()));
        match self.reservations.get_mut(key) {
            Some(r) if r.node == *node => r.landed = true,
            Some(_) => self.drop_reservation(key),
            None => {}
        }
        before
    }

    /// The publisher went: the stream is held from now on, if it is not already.
    pub fn hold(&mut self, key: &StreamKey, now: Time) {
        let until = now + self.ms(self.limits.stream_hold_ms);
        if let Some(stream) = self.streams.get_mut(key)
            && stream.state != StreamState::Held
        {
            stream.state = StreamState::Held;
            self.timers.set(Due::Hold(key.clone()), Deadline::new(until, "stream hold"));
        }
    }

    /// A node is gone: its streams are held and belong to nobody.
    fn orphan(&mut self, id: &NodeId, now: Time) -> Vec<StreamKey> {
        let owned = match self.nodes.get_mut(id) {
            Some(node) => {
                node.relays.clear();
                node.hops.clear();
                std::mem::take(&mut node.owns)
            }
            None => BTreeSet::new(),
        };
        for key in &owned {
            if let Some(stream) = self.streams.get_mut(key) {
                stream.owner = None;
                stream.viewers = 0;
            }
            self.hold(key, now);
        }
        owned.into_iter().collect()
    }

    /// Remembers that a publisher of `key` was sent to `node`.
    pub fn reserve(&mut self, key: &StreamKey, node: &NodeId, now: Time) {
        if self.limits.simulation.planted(Bug::GrantsNotCounted) {
            return;
        }
        if self.reservations.get(key).is_none_or(|r| r.node != *node) {
            self.drop_reservation(key);
            if self.reservations.len() >= self.limits.cluster_streams {
                return;
            }
            self.reservations.insert(key.clone(), Reservation { node: node.clone(), landed: false });
            if let Some(node) = self.nodes.get_mut(node) {
                node.publishers_due += 1;
            }
        }
        let until = now + self.ms(self.limits.reservation_ms);
        self.timers.set(Due::Reservation(key.clone()), Deadline::new(until, "reservation"));
    }

    fn drop_reservation(&mut self, key: &StreamKey) {
        self.timers.cancel(&Due::Reservation(key.clone()));
        if let Some(r) = self.reservations.remove(key)
            && let Some(node) = self.nodes.get_mut(&r.node)
        {
            node.publishers_due = node.publishers_due.saturating_sub(1);
        }
    }

    /// The origin that is reserved for a publisher of `key` who has not shown up yet.
    pub fn reserved(&self, key: &StreamKey) -> Option<&NodeId> {
        self.reservations.get(key).filter(|r| !r.landed).map(|r| &r.node)
    }

    /// Remembers that a viewer was sent to `node`.
    pub fn expect_viewer(&mut self, node: &NodeId, now: Time) {
        if self.limits.simulation.planted(Bug::GrantsNotCounted) {
            return;
        }
        let until = now + self.ms(self.limits.reservation_ms);
        let most = self.limits.rtc_sessions;
        if let Some(node) = self.nodes.get_mut(node) {
            while node.viewers_due.len() >= most || node.viewers_due.front().is_some_and(|due| *due <= now) {
                node.viewers_due.pop_front();
            }
            node.viewers_due.push_back(until);
        }
    }

    /// All nodes as placement sees them, by name.
    pub fn candidates(&self, now: Time) -> Vec<Candidate<'_>> {
        let candidate = |(id, node)| {
            let node: &Node = node;
            Candidate {
                node: id,
                region: &node.info.region,
                roles: &node.info.roles,
                alive: self.alive(id, now),
                draining: node.draining(),
                used_ppm: node.used_ppm(&self.limits),
                step_ppm: node.step_ppm(&self.limits),
            }
        };
        self.nodes.iter().map(candidate).collect()
    }

    /// Does one thing that time has made due, if there is one.
    pub fn pop_due(&mut self, now: Time) -> Option<Lapsed> {
        loop {
            match self.timers.pop_due(now)? {
                Due::Lease(_) if self.limits.simulation.planted(Bug::StaleEntry) => {}
                Due::Lease(id) => {
                    if self.limits.simulation.planted(Bug::TimeoutTakesOthers) {
                        let others: Vec<NodeId> = self.nodes.keys().cloned().collect();
                        others.iter().for_each(|other| drop(self.orphan(other, now)));
                    }
                    let orphans = self.orphan(&id, now);
                    // While the link stands the node may come back to life (a paused process) and report again.
                    if self.nodes.get(&id).is_some_and(|n| n.link.is_none()) {
                        self.nodes.remove(&id);
                    }
                    return Some(Lapsed::Node(id, orphans));
                }
                Due::Hold(key) => {
                    if let Some(owner) = self.streams.remove(&key).and_then(|s| s.owner)
                        && let Some(node) = self.nodes.get_mut(&owner)
                    {
                        node.owns.remove(&key);
                    }
                    return Some(Lapsed::Stream(key));
                }
                Due::Reservation(key) => self.drop_reservation(&key),
            }
        }
    }

    /// When time alone changes something next.
    pub fn deadline(&self) -> Option<Deadline> {
        self.timers.next()
    }
}
