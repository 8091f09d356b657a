//! The manager's books against what the world knows: who may be given out, who owns what (S2), and load (S14).

use super::{Found, broken};
use crate::world::{HostId, Party, World};
use proto_core::ids::NodeId;
use proto_core::node::audit::Audit;
use proto_core::node::config::Role;
use proto_core::time::Time;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// A node that hears nothing for longer than this has a gap: its lease may run out.
const GAP: Duration = Duration::from_millis(2_000);
/// How long a node must have been heard without a gap before its entry must be right.
const STEADY: Duration = Duration::from_millis(4_000);
/// How old a report may be that stands in the books of a node that was heard just now.
const REPORT: Duration = Duration::from_millis(4_000);

/// Grants of the last so long cannot be out of the manager's count: it is told of what became of them once a second.
const INTERVAL: Duration = Duration::from_millis(900);

/// Whom a manager gave out lately, when, and for which stream.
#[derive(Debug, Default)]
pub(super) struct Grants(VecDeque<(HostId, HostId, Time, String)>);

impl Grants {
    /// A host starts anew: nothing is known there of what was granted, and nothing of it is expected there.
    fn started(&mut self, host: HostId) {
        self.0.retain(|(at, node, ..)| *at != host && *node != host);
    }

    /// How many sessions a manager sent to a node within the last interval. A publisher who asks again is the same one.
    fn lately(&mut self, at: HostId, node: HostId, now: Time, publishers: bool) -> usize {
        while self.0.front().is_some_and(|(_, _, when, _)| now.since(*when) > INTERVAL) {
            self.0.pop_front();
        }
        let mut streams: Vec<&str> =
            self.0.iter().filter(|g| (g.0, g.1) == (at, node)).map(|g| g.3.as_str()).collect();
        if publishers {
            streams.sort_unstable();
            streams.dedup();
        }
        streams.len()
    }
}

/// When a manager's host last got bytes from another over a link, and since when without a gap.
#[derive(Debug, Default)]
pub(super) struct Heard {
    last: BTreeMap<(HostId, HostId), (Time, Time)>,
    /// When it last got a datagram from another with which a link by QUIC stands. An acknowledgement is one too, so that this
    /// says no more than that nothing has come for so long.
    datagrams: BTreeMap<(HostId, HostId), Time>,
    started: BTreeMap<HostId, Time>,
    grants: Grants,
}

impl Heard {
    pub(super) fn started(&mut self, host: HostId, now: Time) {
        self.started.insert(host, now);
        self.grants.started(host);
        self.last.retain(|(at, from), _| *at != host && *from != host);
        self.datagrams.retain(|(at, from), _| *at != host && *from != host);
    }

    fn last(&self, at: HostId, from: HostId) -> Option<Time> {
        let (bytes, datagram) = (self.last.get(&(at, from)), self.datagrams.get(&(at, from)));
        bytes.map(|(last, _)| *last).max(datagram.copied())
    }

    fn bytes(&mut self, at: HostId, from: HostId, now: Time) {
        let (last, since) = self.last.entry((at, from)).or_insert((now, now));
        if now.since(*last) > GAP {
            *since = now;
        }
        *last = now;
    }
}

/// How many publishers and viewers a node had lately.
#[derive(Debug)]
pub(super) struct Clients(VecDeque<(Time, usize)>);

impl Clients {
    pub(super) fn new(now: Time) -> Clients {
        Clients(VecDeque::from([(now, 0)]))
    }

    pub(super) fn now(&mut self, now: Time, clients: usize) {
        if self.0.back().is_none_or(|(_, n)| *n != clients) {
            self.0.push_back((now, clients));
        }
        while self.0.get(1).is_some_and(|(at, _)| now.since(*at) > 2 * REPORT) {
            self.0.pop_front();
        }
    }

    /// The least that there were at any moment that is remembered.
    fn least(&self) -> usize {
        self.0.iter().map(|(_, n)| *n).min().unwrap_or(0)
    }

    /// Whether there were so many at some moment between two.
    fn were(&self, clients: usize, from: Time, to: Time) -> bool {
        let ends = self.0.iter().skip(1).map(|(at, _)| *at).chain([to + REPORT]);
        self.0.iter().zip(ends).any(|((begin, n), end)| *n == clients && *begin <= to && end >= from)
    }
}

/// What only an answer has that sends a client somewhere.
const URLS: &[u8] = b"\"urls\":{";

/// The stream's name in an answer.
fn named_stream(bytes: &[u8]) -> String {
    const NAME: &[u8] = b"\"name\":\"";
    let from = bytes.windows(NAME.len()).position(|w| w == NAME).map_or(bytes.len(), |i| i + NAME.len());
    let rest = &bytes[from..];
    String::from_utf8_lossy(&rest[..rest.iter().position(|b| *b == b'"').unwrap_or(rest.len())]).into_owned()
}

impl World {
    /// A node got bytes over a link.
    pub(in crate::world) fn heard_bytes(&mut self, at: HostId, pipe: u64) {
        self.rtsp_bytes(at, pipe);
        if !self.hosts[at.0].config.has_role(Role::Manager) {
            return;
        }
        let Some(p) = self.net.pipes.get(pipe) else { return };
        if p.ends[1].addr.port() == self.hosts[at.0].config.cluster.port
            && let Some(Party::Host(from)) = self.party_at(p.ends[0].addr.ip())
            && from != at
        {
            self.checks.books.bytes(at, from, self.now);
        }
    }

    /// A node got a datagram of another with which a link by QUIC stands, or stands since. What comes while none does says
    /// nothing of who lives.
    pub(in crate::world) fn heard_datagram(&mut self, at: HostId, ip: IpAddr) {
        if self.hosts[at.0].config.has_role(Role::Manager)
            && let Some(Party::Host(from)) = self.party_at(ip)
            && from != at
        {
            self.checks.books.datagrams.insert((at, from), self.now);
        }
    }

    pub(in crate::world) fn is_linked_by_quic(&self, at: HostId, ip: IpAddr) -> bool {
        self.hosts[at.0].run.as_ref().is_some_and(|r| r.node.is_linked_by_quic(ip))
    }

    fn named(&self, id: &NodeId) -> Option<HostId> {
        self.hosts.iter().position(|h| h.config.node.name == id.0).map(HostId)
    }

    fn lease(&self, at: HostId) -> Duration {
        Duration::from_millis(self.hosts[at.0].config.limits.lease_ms)
    }

    /// A manager answers a client by HTTP. S2: whom it gives out was heard within its lease and takes new sessions.
    pub(in crate::world) fn gives_out(&mut self, at: HostId, bytes: &[u8]) {
        if self.checks.off || !self.hosts[at.0].config.has_role(Role::Manager) {
            return;
        }
        const KEY: &[u8] = b"\"serverAddress\":\"";
        let Some(start) = bytes.windows(KEY.len()).position(|w| w == KEY).map(|i| i + KEY.len()) else {
            return;
        };
        let rest = &bytes[start..];
        let end = rest.iter().position(|b| *b == b'"').unwrap_or(rest.len());
        let address = String::from_utf8_lossy(&rest[..end]).into_owned();
        // What lists streams names nodes too, and sends nobody there.
        let stream = bytes.windows(URLS.len()).any(|w| w == URLS).then(|| named_stream(bytes));
        let found = self.may_be_given_out(at, &address).and_then(|()| match stream {
            Some(stream) => self.has_room(at, &address, stream),
            None => Ok(()),
        });
        self.found(Some(at), found);
    }

    /// S14: a node that is given out has room for one more, whatever was given out since it last reported. Nodes are
    /// counted as they were at their emptiest while a report may have told of it.
    fn has_room(&mut self, at: HostId, address: &str, stream: String) -> Found {
        let party = address.parse::<IpAddr>().ok().and_then(|ip| self.party_at(ip));
        let Some(Party::Host(node)) = party else { return Ok(()) };
        let config = &self.hosts[node.0].config;
        let (most, publishers) = (config.limits.rtc_sessions, config.has_role(Role::Origin));
        let least = self.checks.watches.get(&node).map_or(0, |w| w.clients.least());
        let sent = self.checks.books.grants.lately(at, node, self.now, publishers);
        self.checks.books.grants.0.push_back((at, node, self.now, stream));
        if least + sent < most {
            return Ok(());
        }
        let name = &self.hosts[node.0].config.node.name;
        let text = format!(
            "gives out {name}, which takes {most} sessions, had at least {least} lately, and {sent} were sent there within \
             {} ms",
            INTERVAL.as_millis()
        );
        broken("S14", text)
    }

    fn may_be_given_out(&self, at: HostId, address: &str) -> Found {
        let party = address.parse::<IpAddr>().ok().and_then(|ip| self.party_at(ip));
        let Some(Party::Host(node)) = party else {
            return broken("S2", format!("gives out {address}, which is no node"));
        };
        let name = &self.hosts[node.0].config.node.name;
        let serves = [Role::Origin, Role::Edge].iter().any(|r| self.hosts[node.0].config.has_role(*r));
        if !serves {
            return broken("S2", format!("gives out {name}, which is neither origin nor edge"));
        }
        if let Some(since) = self.draining_since(node) {
            let age = self.now.since(since);
            if age > self.lease(at) + Duration::from_secs(1) {
                return broken("S2", format!("gives out {name}, which drains since {} ms", age.as_millis()));
            }
        }
        if node == at {
            return Ok(());
        }
        match self.checks.books.last(at, node) {
            Some(last) if self.now.since(last) <= self.lease(at) => Ok(()),
            Some(last) => {
                let (age, lease) = (self.now.since(last).as_millis(), self.lease(at).as_millis());
                broken("S2", format!("gives out {name}, not heard for {age} ms; its lease is {lease} ms"))
            }
            None => broken("S2", format!("gives out {name}, which this run of it never heard")),
        }
    }

    /// The books of a manager against the nodes.
    pub(super) fn books(&self, at: HostId, audit: &Audit) -> Found {
        let Some(books) = &audit.books else { return Ok(()) };
        for booked in books.nodes.iter().filter(|n| n.alive) {
            let Some(host) = self.named(&booked.id) else { continue };
            let (Some(watch), Some(_)) = (self.checks.watches.get(&host), &self.hosts[host.0].run) else {
                continue;
            };
            let Some(heard) = self.hosts[at.0].when(booked.heard) else { continue };
            let settled = self.checks.books.started.get(&host).is_some_and(|s| self.now.since(*s) > STEADY);
            if !settled || !(self.is_steady(at, host)) {
                continue;
            }
            let from = Time::ZERO + heard.since(Time::ZERO).saturating_sub(REPORT);
            let told = booked.sessions as usize;
            if !watch.clients.were(told, from, heard) {
                let text = format!(
                    "{} has {told} sessions in the books, heard at {heard}; it had {:?} lately",
                    booked.id, watch.clients.0
                );
                return broken("S14", text);
            }
        }
        self.owners(at, audit)
    }

    /// Whether a manager has heard a node without a gap for long.
    fn is_steady(&self, at: HostId, from: HostId) -> bool {
        if at == from {
            return true;
        }
        let heard = self.checks.books.last.get(&(at, from));
        heard.is_some_and(|(last, since)| self.now.since(*last) < GAP && last.since(*since) > STEADY)
    }

    /// S2: a stream stays with its origin while that publishes it and its lease runs. L4: and the manager knows it.
    fn owners(&self, at: HostId, audit: &Audit) -> Found {
        let Some(books) = &audit.books else { return Ok(()) };
        for (n, h) in self.hosts.iter().enumerate() {
            let host = HostId(n);
            let Some(run) = &h.run else { continue };
            if !self.is_steady(at, host) {
                continue;
            }
            for (key, epoch, since) in run.node.publishing() {
                let begun = h.when(since).unwrap_or(self.now);
                // A grant may be on its way.
                if self.now.since(begun) < STEADY {
                    continue;
                }
                let booked = books.streams.iter().find(|s| s.key == *key);
                if booked.is_some_and(|s| s.epoch != epoch) {
                    continue;
                }
                let id = run.node.id();
                if booked.is_none() {
                    let text =
                        format!("{id} publishes {key} under epoch {epoch}, and the manager does not know it");
                    return broken("L4", text);
                }
                let owner = booked.and_then(|s| s.owner.as_ref());
                if owner != Some(id) {
                    let text = format!(
                        "{id} publishes {key} under epoch {epoch} and its lease runs; its owner in the books is {owner:?}"
                    );
                    return broken("S2", text);
                }
            }
        }
        Ok(())
    }
}
