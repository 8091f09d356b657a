//! Sources and destinations: streams that this node pulls from other servers, and servers that it pushes streams to.
//!
//! Each is a small state machine (`flow`): it claims the name (a source, as a publisher would: of several nodes with the same
//! source one pulls and the others stand by), resolves and dials (`dial`), works as a session like any other, and waits
//! longer after each failure (`backoff`).

mod backoff;
mod dial;
mod flow;
mod serve;
mod session;
mod trace;
mod view;

pub(super) use session::{Input, Output, Session};
pub(super) use trace::Via;

use super::config::Config;
use super::config::remotes::{Carries, Rule, Target, When};
use super::session::SessionId;
use crate::error::Reason;
use crate::ids::Epoch;
use crate::io::{AskId, ConnId};
use crate::limits::Limits;
use crate::media::key::StreamKey;
use crate::rand::Rng;
use crate::rtsp::client::Ways;
use crate::time::Time;
use crate::wire::link::{StreamFacts, StreamReport};
use backoff::Backoff;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Which source or destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RemoteId {
    /// The source of a stream.
    Source(StreamKey),
    /// A stream to the destination of this number.
    Destination(usize, StreamKey),
}

impl RemoteId {
    fn key(&self) -> &StreamKey {
        match self {
            RemoteId::Source(key) | RemoteId::Destination(_, key) => key,
        }
    }

    const fn what(&self) -> &'static str {
        match self {
            RemoteId::Source(_) => "source",
            RemoteId::Destination(..) => "destination",
        }
    }
}

/// Where one stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody wants it.
    Idle,
    /// The name is being claimed.
    Claims(u64),
    /// Its host's name is being looked up, or the authorities are being read.
    Resolves(AskId),
    /// The connection or the session on it is being set up.
    Connects(ConnId),
    /// Media goes.
    Works(ConnId, SessionId),
    /// It failed and is tried again at this time.
    Waits(Time),
    /// Another node or publisher has the name; whether it is free is looked at again at this time.
    StandsBy(Time),
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Claims(_) => "claiming",
            State::Resolves(_) => "resolving",
            State::Connects(_) => "connecting",
            State::Works(..) => "working",
            State::Waits(_) => "waiting",
            State::StandsBy(_) => "standby",
        }
    }
}

/// One source, or one stream on its way to a destination.
struct Remote {
    /// Where it is, as configured.
    home: Target,
    /// Where it is now, after redirects.
    target: Target,
    when: When,
    /// The ways that its media may take, as configured and as what was seen leaves them.
    all_ways: Ways,
    ways: Ways,
    state: State,
    since: Time,
    epoch: Option<Epoch>,
    backoff: Backoff,
    rng: Rng,
    /// Why it failed last.
    last: Option<Reason>,
    tries: u64,
    worked: u64,
    redirects: u32,
    /// Where to dial once the authorities are known.
    to: Option<SocketAddr>,
    /// Nobody watches; it ends at this time.
    linger: Option<Time>,
}

/// All of a node.
#[derive(Default)]
pub(super) struct Remotes {
    sources: Vec<Rule>,
    destinations: Vec<Rule>,
    all: BTreeMap<RemoteId, Remote>,
    claims: BTreeMap<u64, RemoteId>,
    asks: BTreeMap<AskId, RemoteId>,
    dirty: BTreeSet<StreamKey>,
    /// Pulls of other nodes that wait for a source.
    serves: Vec<serve::Waiting>,
    /// What other servers are told, so that a stream that comes back is known.
    mark: String,
    made: u64,
}

impl Remotes {
    /// Reads what is configured.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub(super) fn new(config: &Config, rng: &Rng) -> Result<Remotes, Reason> {
        let wrong = |what: &str, why: String| Reason::local("bad_remote", format!("{what}: {why}"));
        let sources: Result<Vec<Rule>, String> = config.sources.iter().map(|s| s.rule()).collect();
        let destinations: Result<Vec<Rule>, String> = config.destinations.iter().map(|d| d.rule()).collect();
        Ok(Remotes {
            sources: sources.map_err(|why| wrong("sources", why))?,
            destinations: destinations.map_err(|why| wrong("destinations", why))?,
            mark: trace::mark(rng),
            ..Remotes::default()
        })
    }

    /// Something about a stream's viewers changed.
    pub(super) fn touch(&mut self, key: &StreamKey) {
        if self.all.contains_key(&RemoteId::Source(key.clone())) {
            self.dirty.insert(key.clone());
        }
    }

    /// The source of a stream, if one is configured.
    fn rule_of(&self, key: &StreamKey) -> Option<&Rule> {
        let exact =
            self.sources.iter().find(|r| r.pattern == super::config::remotes::Pattern::One(key.clone()));
        exact.or_else(|| self.sources.iter().find(|r| r.pattern.fits(key)))
    }

    /// Whether a stream is, or is about to be, pulled from another server by this node.
    pub(super) fn has_source(&self, key: &StreamKey) -> bool {
        self.all.contains_key(&RemoteId::Source(key.clone()))
    }

    /// The epoch under which a name was granted to a source that does not publish yet.
    pub(super) fn claimed(&self, key: &StreamKey) -> Option<Epoch> {
        self.all.get(&RemoteId::Source(key.clone()))?.epoch
    }

    /// Names that were granted to sources which are being connected: they are not free.
    pub(super) fn reports(&self) -> impl Iterator<Item = StreamReport> {
        self.all.iter().filter_map(|(id, r)| match id {
            RemoteId::Source(key) => Some(StreamReport {
                key: key.clone(),
                epoch: r.epoch?,
                silent: false,
                live: true,
                viewers: 0,
                about: StreamFacts::default(),
            }),
            RemoteId::Destination(..) => None,
        })
    }

    /// Whether an alarm still has its reason.
    pub(super) fn has(&self, id: &RemoteId) -> bool {
        self.all.contains_key(id)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    fn get(&mut self, id: &RemoteId) -> Option<&mut Remote> {
        self.all.get_mut(id)
    }

    /// Connections that belong to sources and destinations, and to which.
    pub(super) fn conns(&self) -> impl Iterator<Item = (ConnId, &RemoteId)> {
        self.all.iter().filter_map(|(id, r)| match r.state {
            State::Connects(conn) | State::Works(conn, _) => Some((conn, id)),
            _ => None,
        })
    }

    /// Names that are claimed for sources that do not publish yet.
    pub(super) fn claims(&self) -> usize {
        self.claims.len()
    }

    fn add(&mut self, id: RemoteId, rule: &Rule, limits: &Limits, rng: &Rng, now: Time) {
        self.made += 1;
        let home = rule.target(id.key());
        let ways = match rule.carries {
            Carries::Auto => Ways::TcpThenUdp,
            Carries::Tcp => Ways::Tcp,
            Carries::Udp => Ways::UdpThenTcp,
        };
        let remote = Remote {
            target: home.clone(),
            home,
            when: rule.when,
            all_ways: ways,
            ways,
            state: State::Idle,
            since: now,
            epoch: None,
            backoff: Backoff::new(limits),
            rng: rng.fork("remote", self.made),
            last: None,
            tries: 0,
            worked: 0,
            redirects: 0,
            to: None,
            linger: None,
        };
        self.all.insert(id, remote);
    }
}
