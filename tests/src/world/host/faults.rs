//! What can befall a host: it is paused, its clocks go wrong, its descriptors run out, its kernel takes no datagrams,
//! and nobody answers its questions for names.

use super::super::net::link::chance;
use super::super::net::{dice, flow_key};
use crate::world::event::Event;
use crate::world::{HostId, Owner, Party, World};
use bytes::Bytes;
use proto_core::io::{Answer, ConnId, Input};
use proto_core::limits::Limits;
use proto_core::time::Time;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Bytes of datagrams that wait for a process that does not read them. Linux gives a socket 208 KiB by default; a node
/// asks for 4 MiB and gets that only where the administrator allowed it.
const UDP_BUFFER: usize = 208 << 10;
/// What the kernel counts for a datagram besides its bytes.
const UDP_OVERHEAD: usize = 256;
/// Connections that wait to be accepted, at most.
const BACKLOG: usize = 1_024;
/// How long a node that ran out of descriptors accepts nothing.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Descriptors that a node has open besides its connections: three standard streams, the poller and its waker, three
/// listeners, a UDP socket, signals, and one in reserve.
const OWN_DESCRIPTORS: usize = 12;
/// The kind of draw for refused datagrams.
const REFUSED: u64 = 120;
/// The kind of draw for the order of what a resumed node sees.
const ORDER: u64 = 121;

/// How a host's questions for names are answered. Addresses in text form need no answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolver {
    /// At once.
    #[default]
    Works,
    /// After so long.
    Slow(Duration),
    /// With an error, after the five seconds that the system's resolver waits.
    Fails,
}

/// A host's monotonic clock: since when it has run at its present speed, and what it read then.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::world) struct Clock {
    since: Time,
    read: Time,
    ppm: i64,
}

impl Clock {
    /// What the clock reads.
    pub(in crate::world) fn read(&self, now: Time) -> Time {
        let passed = i128::from(now.as_nanos() - self.since.as_nanos());
        let passed = passed * i128::from(1_000_000 + self.ppm) / 1_000_000;
        Time::from_nanos(self.read.as_nanos() + passed as u64)
    }

    /// The first moment at which the clock reads at least so much.
    pub(in crate::world) fn when(&self, reads: Time) -> Time {
        let wanted = i128::from(reads.as_nanos().saturating_sub(self.read.as_nanos()));
        let speed = i128::from(1_000_000 + self.ppm);
        let passed = (wanted * 1_000_000 + speed - 1) / speed;
        Time::from_nanos(self.since.as_nanos() + passed as u64)
    }
}

/// What is wrong with a host.
#[derive(Debug, Default)]
pub(in crate::world) struct Faults {
    pub(in crate::world) paused: bool,
    /// What happened to a paused host.
    frozen: Vec<Event>,
    /// Datagrams that wait for a paused node, and their bytes.
    datagrams: VecDeque<(SocketAddr, SocketAddr, Bytes)>,
    waiting: usize,
    /// Datagrams lost because the socket's buffer was full.
    pub(in crate::world) overflowed: u64,
    backlog: VecDeque<u64>,
    /// Nothing is accepted before.
    accepts_from: Time,
    descriptors: Option<usize>,
    /// Connections that were closed unheard for want of descriptors.
    turned_away: u64,
    refuse: f64,
    pub(in crate::world) wall: i64,
    resolver: Resolver,
}

impl World {
    /// A host's node stops where it is, as by SIGSTOP: it handles nothing and its timers do not fire. Its kernel goes
    /// on: it completes dials, takes bytes within the window and datagrams within the socket's buffer.
    pub fn pause(&mut self, id: HostId) {
        self.say(id, "is paused");
        self.hosts[id.0].faults.paused = true;
    }

    /// A paused node goes on: all that waited comes at once, and to the node its clock jumps.
    pub fn resume(&mut self, id: HostId) {
        let faults = &mut self.hosts[id.0].faults;
        if !std::mem::replace(&mut faults.paused, false) {
            return;
        }
        let frozen = std::mem::take(&mut faults.frozen);
        let datagrams = std::mem::take(&mut faults.datagrams);
        faults.waiting = 0;
        self.say(id, "goes on");
        let now = self.now;
        // What a loop looks at first after such a wait is not to be relied on.
        let timers_first = dice(self.seed, ORDER, id.0 as u64, now.as_nanos()).is_multiple_of(2);
        let (first, last): (Vec<Event>, Vec<Event>) =
            frozen.into_iter().partition(|e| timers_first == matches!(e, Event::Wake(..)));
        first.into_iter().for_each(|e| self.at(now, e));
        self.at(now, Event::Accept(id.0));
        self.thaw(Party::Host(id));
        for (to, from, bytes) in datagrams {
            self.at(now, Event::Datagram { to, from, bytes });
        }
        last.into_iter().for_each(|e| self.at(now, e));
    }

    pub(in crate::world) fn is_paused(&self, party: Party) -> bool {
        matches!(party, Party::Host(id) if self.hosts[id.0].faults.paused)
    }

    /// Keeps an event for when the host goes on.
    pub(in crate::world) fn freeze(&mut self, party: Party, event: Event) {
        if let Party::Host(id) = party {
            self.hosts[id.0].faults.frozen.push(event);
        }
    }

    /// From now on a host's monotonic clock runs so many parts in a million too fast (or, negative, too slow).
    pub fn skew(&mut self, id: HostId, ppm: i64) {
        assert!(ppm > -1_000_000, "a clock does not run backwards");
        self.say(id, "has another clock");
        let now = self.now;
        let host = &mut self.hosts[id.0];
        host.clock = Clock { since: now, read: host.clock.read(now), ppm };
        self.rewake(id);
    }

    /// A host's wall clock jumps. The node learns it with the next look, at most a minute later.
    pub fn jump_wall(&mut self, id: HostId, by_ms: i64) {
        self.say(id, "has another wall clock");
        self.hosts[id.0].faults.wall += by_ms * 1_000_000;
    }

    /// From now on a host's node has at most so many descriptors (none: enough). Beyond, connections that come are
    /// closed unheard after a moment in the backlog, and dials fail.
    pub fn descriptors(&mut self, id: HostId, limit: Option<usize>) {
        self.say(id, "has other descriptors");
        self.hosts[id.0].faults.descriptors = limit;
    }

    /// Has a host's node start anew with so many bytes to hold (`limits.memory_bytes`); none: the default.
    pub fn memory(&mut self, id: HostId, bytes: Option<u64>) {
        if self.node_of(id).is_some() {
            self.crash(id);
        }
        self.say(id, "has other memory");
        self.hosts[id.0].config.limits.memory_bytes = bytes.unwrap_or_else(|| Limits::default().memory_bytes);
        self.start(id);
    }

    /// Whether a host's node has less memory than it would by default.
    pub fn is_short_of_memory(&self, id: HostId) -> bool {
        self.hosts[id.0].config.limits.memory_bytes < Limits::default().memory_bytes
    }

    /// How many connections a host closed unheard for want of descriptors.
    pub fn turned_away(&self, id: HostId) -> u64 {
        self.hosts[id.0].faults.turned_away
    }

    /// The descriptors that a host's node has open.
    pub fn open_descriptors(&self, id: HostId) -> usize {
        OWN_DESCRIPTORS + self.open_sockets(Party::Host(id))
    }

    /// From now on a host's kernel refuses this share of the messages that its node sends.
    pub fn refuse_datagrams(&mut self, id: HostId, share: f64) {
        self.say(id, "refuses datagrams");
        self.hosts[id.0].faults.refuse = share;
    }

    /// How many datagrams a paused host lost because its socket's buffer was full.
    pub fn overflowed(&self, id: HostId) -> u64 {
        self.hosts[id.0].faults.overflowed
    }

    /// From now on a host's questions for names are answered so.
    pub fn resolver(&mut self, id: HostId, resolver: Resolver) {
        self.say(id, "has another resolver");
        self.hosts[id.0].faults.resolver = resolver;
    }

    /// Gives a host a name, which all hosts can look up. The newest host of a name is the first that is found.
    pub fn name(&mut self, name: &str, id: HostId) {
        let ip = self.hosts[id.0].ip;
        self.names.entry(name.to_owned()).or_default().insert(0, ip);
    }

    pub(super) fn say(&mut self, id: HostId, what: &str) {
        let name = self.hosts[id.0].config.node.name.clone();
        self.trace(|| format!("{name} {what}"));
    }

    /// Ends every fault of every host.
    pub(in crate::world) fn heal_hosts(&mut self) {
        for n in 0..self.hosts.len() {
            let id = HostId(n);
            self.resume(id);
            if self.hosts[n].clock.ppm != 0 {
                self.skew(id, 0);
            }
            let faults = &mut self.hosts[n].faults;
            faults.descriptors = None;
            faults.refuse = 0.0;
            faults.wall = 0;
            faults.resolver = Resolver::Works;
        }
    }

    /// A node looks up a name. Answers what it will hear, and when.
    pub(super) fn look_up(&self, id: HostId, name: &str, port: u16) -> (Duration, Answer) {
        if let Ok(ip) = name.parse::<IpAddr>() {
            return (Duration::from_millis(1), Answer::Resolved(Ok(vec![SocketAddr::new(ip, port)])));
        }
        let wait = match self.hosts[id.0].faults.resolver {
            Resolver::Works => Duration::from_millis(5),
            Resolver::Slow(wait) => wait,
            Resolver::Fails => {
                let why = "failed to lookup address information: Temporary failure in name resolution";
                let text = format!("{name} could not be looked up: {why}");
                return (Duration::from_secs(5), Answer::Resolved(Err(text)));
            }
        };
        let found = match self.names.get(name) {
            Some(ips) => Ok(ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect()),
            None => {
                let why = "failed to lookup address information: Name or service not known";
                Err(format!("{name} could not be looked up: {why}"))
            }
        };
        (wait, Answer::Resolved(found))
    }

    /// Whether a host's kernel refuses the next message of a flow.
    pub(in crate::world) fn refuses(&mut self, id: HostId, from: SocketAddr, to: SocketAddr) -> bool {
        let share = self.hosts[id.0].faults.refuse;
        if share <= 0.0 {
            return false;
        }
        let nth = self.count_refusals(flow_key(from, to));
        chance(share, dice(self.seed, REFUSED, flow_key(from, to), nth))
    }

    /// A datagram reaches a host.
    pub(in crate::world) fn host_datagram(
        &mut self,
        id: HostId,
        to: SocketAddr,
        from: SocketAddr,
        bytes: Bytes,
    ) {
        let faults = &mut self.hosts[id.0].faults;
        if !faults.paused {
            return self.node_datagram(id, to, from, &bytes);
        }
        let size = bytes.len() + UDP_OVERHEAD;
        if faults.waiting + size > UDP_BUFFER {
            faults.overflowed += 1;
            return;
        }
        faults.waiting += size;
        faults.datagrams.push_back((to, from, bytes));
    }

    /// A dial reaches a party. `false`: nothing listens there.
    pub(in crate::world) fn accept(&mut self, party: Party, pipe: u64, to: SocketAddr) -> bool {
        let id = match party {
            Party::Host(id) => id,
            Party::Client(id) => return self.client_accepts(id, pipe, to.port()),
            Party::Nowhere => return false,
        };
        let host = &mut self.hosts[id.0];
        if host.run.is_none() || Self::service(&host.config, to.port()).is_none() {
            return false;
        }
        if host.faults.backlog.len() < BACKLOG {
            host.faults.backlog.push_back(pipe);
            self.stand(pipe);
            self.accept_all(id);
        }
        true
    }

    /// A host takes the connections that wait, as far as it has descriptors.
    pub(in crate::world) fn accept_all(&mut self, id: HostId) {
        let now = self.now;
        let mut refused = false;
        loop {
            let faults = &mut self.hosts[id.0].faults;
            if faults.paused || faults.accepts_from > now {
                return;
            }
            let Some(pipe) = faults.backlog.pop_front() else { break };
            let limit = faults.descriptors;
            if limit.is_some_and(|most| self.open_descriptors(id) >= most) {
                self.hosts[id.0].faults.turned_away += 1;
                self.turn_away(pipe);
                refused = true;
            } else {
                self.hand_over(id, pipe);
            }
        }
        if refused {
            self.hosts[id.0].faults.accepts_from = now + ACCEPT_PAUSE;
            self.say(id, "has no descriptors left");
            self.at(now + ACCEPT_PAUSE, Event::Accept(id.0));
        }
    }

    fn hand_over(&mut self, id: HostId, pipe: u64) {
        let Some((local, remote)) = self.net.pipes.get(pipe).map(|p| (p.ends[1].addr, p.ends[0].addr)) else {
            return;
        };
        let host = &mut self.hosts[id.0];
        let (Some(service), Some(r)) = (Self::service(&host.config, local.port()), host.run.as_mut()) else {
            return;
        };
        r.accepted += 1;
        let (conn, run) = (ConnId::accepted(r.accepted), r.number);
        r.conns.insert(conn, (pipe, 1));
        self.accepted(pipe, Owner::Node { host: id, run, conn });
        self.node(id, run, Input::Accepted { conn, service, local, remote });
    }

    /// Whether a dial of a host finds no descriptor.
    pub(super) fn lacks_descriptor(&self, id: HostId) -> bool {
        self.hosts[id.0].faults.descriptors.is_some_and(|most| self.open_descriptors(id) >= most)
    }

    /// What waited for a node that died waits no more.
    pub(super) fn forget_waiting(&mut self, id: HostId) {
        let faults = &mut self.hosts[id.0].faults;
        faults.paused = false;
        faults.frozen.clear();
        faults.datagrams.clear();
        faults.waiting = 0;
        faults.backlog.clear();
    }
}
