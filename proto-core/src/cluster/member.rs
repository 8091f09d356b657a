//! A node's own side of the cluster: keeps its place at the manager, claims names, finds streams.
//!
//! It speaks the same messages whether the manager is in this process or behind a link. Who owns what is remembered
//! here, so that a manager that was restarted (or lost us) is told again. With no manager in reach what runs runs on;
//! only new names must wait.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

use crate::cluster::{Epoch, LinkId, NodeId};
use crate::error::{Reason, quote};
use crate::io::Level;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::media::key::StreamKey;
use crate::rand::Rng;
use crate::simulation::Site;
use crate::time::{Deadline, Time};
use crate::wire::link::{Message, NodeInfo, Report};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Where a stream comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The highest epoch granted.
    pub epoch: Epoch,
    /// Its origin.
    pub node: NodeId,
    /// Where the origin takes links.
    pub link_addr: SocketAddr,
}

/// What a member can be told.
#[derive(Debug)]
pub enum Input {
    /// The manager can be reached over this link now.
    ManagerUp(LinkId),
    /// The manager was lost, or the dial that [`Output::DialManager`] asked for failed.
    ManagerDown(Reason),
    /// The manager said this.
    Message(Message),
    /// A publisher wants a name here.
    Claim {
        /// Number for the answer.
        req: u64,
        /// The name.
        key: StreamKey,
        /// Who publishes; empty: not known.
        identity: String,
    },
    /// Where is this stream?
    Locate {
        /// Number for the answer.
        req: u64,
        /// The name.
        key: StreamKey,
        /// Its origin is wanted, not a relay of it.
        direct: bool,
    },
    /// This node takes nothing new: where would somebody go on who publishes or plays a stream here?
    Relocate {
        /// Number for the answer.
        req: u64,
        /// The name.
        key: StreamKey,
        /// It is published, not played.
        publishes: bool,
    },
    /// The publisher that was accepted under this epoch is gone; the stream waits here for the next. The manager is told
    /// at once, so that the publisher may come back anywhere without waiting for the next report.
    Held {
        /// The name.
        key: StreamKey,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The stream that was published under this epoch is over.
    Released {
        /// The name.
        key: StreamKey,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A token or a name was revoked at this node: the others are to know.
    Revoke(String),
    /// The answer to [`Output::WantReport`].
    Report(Report),
    /// The streams that this node can pull from other servers on demand; see [`Message::Offers`].
    Offers(Vec<String>),
    /// The node's own data changed (an address was found, say).
    Info(Box<NodeInfo>),
    /// Time passed.
    Tick,
}

/// Where somebody goes on who is at a node that takes nothing new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The node.
    pub node: NodeId,
    /// Where it speaks RTMP, such as `rtmp://host:1935`.
    pub rtmp: String,
    /// Where it speaks RTMP over TLS, such as `rtmps://host:1936`; empty: it, or the manager, is too old to say.
    pub rtmps: String,
}

/// What a member says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to the manager, over the link that [`Input::ManagerUp`] named.
    ToManager(Message),
    /// The answer to [`Input::Claim`]. Codes: `name_busy`, `takeover_limited`, `no_manager`, …
    Claimed {
        /// The claim's number.
        req: u64,
        /// The right to publish, or why not.
        result: Result<Epoch, Reason>,
    },
    /// The answer to [`Input::Locate`]. Codes: `not_found`, `no_manager`.
    Located {
        /// The question's number.
        req: u64,
        /// The origin, or why there is none.
        result: Result<Source, Reason>,
        /// Its publisher sends: nobody else can have the name now. Managers that are too old to say never say so.
        live: bool,
    },
    /// The answer to [`Input::Relocate`].
    Relocated {
        /// The question's number.
        req: u64,
        /// `None`: nowhere, or nobody knows.
        to: Option<Elsewhere>,
    },
    /// The name was granted to somebody else: end its publisher here, and pull the stream if it has viewers. May come
    /// more than once for the same epoch.
    Fenced {
        /// The name.
        key: StreamKey,
        /// The other's epoch.
        epoch: Epoch,
    },
    /// A stream that was located before has a new origin or epoch.
    Moved {
        /// The name.
        key: StreamKey,
        /// The new origin.
        source: Source,
    },
    /// An operator wants this node to take nothing new, or to take it again; see [`Message::Drain`].
    Drain {
        /// Nothing new from now on.
        on: bool,
        /// What runs is ended after this, milliseconds; 0: never.
        within_ms: u64,
        /// The process ends when nothing is left.
        stop: bool,
    },
    /// An operator wants a stream to be here before its viewers come; see [`Message::Warm`].
    Warm {
        /// The name.
        key: StreamKey,
        /// For how long, milliseconds.
        for_ms: u64,
    },
    /// A token or a name was revoked somewhere in the cluster; see [`Message::Revoke`].
    Revoked(String),
    /// Somebody wants a stream that this node can pull from another server.
    Want {
        /// The name.
        key: StreamKey,
    },
    /// Dial the manager (an attempt that is still under way is to be forgotten), then say `ManagerUp` or
    /// `ManagerDown`.
    DialManager,
    /// Hand in [`Input::Report`] now.
    WantReport,
    /// A line for the operator.
    Log(Level, String),
}

#[derive(Debug)]
enum Place {
    /// The manager is in this process or was not dialled yet; `Some`: dial then.
    Away { dial_at: Option<Time> },
    /// A dial is under way since then.
    Dialling { since: Time },
    /// The link stands.
    Up { link: LinkId, registered: bool, report_at: Time },
}

#[derive(Debug)]
enum Wish {
    Claim { identity: String },
    Locate { direct: bool },
    Relocate { publishes: bool },
}

impl Wish {
    fn is_claim(&self) -> bool {
        matches!(self, Wish::Claim { .. })
    }

    fn is_locate(&self) -> bool {
        matches!(self, Wish::Locate { .. })
    }
}

#[derive(Debug)]
struct Pending {
    key: StreamKey,
    wish: Wish,
    until: Time,
}

/// A node's own side of the cluster. See the module's text.
#[derive(Debug)]
pub struct Member {
    limits: Arc<Limits>,
    info: NodeInfo,
    /// What it can pull from other servers.
    offers: Vec<String>,
    /// How the operator wrote the manager's address; empty: the manager is in this process.
    manager: String,
    rng: Rng,
    place: Place,
    failures: u32,
    logged_at: Option<Time>,
    /// Since when the manager has refused this node without a break.
    refused_since: Option<Time>,
    owned: BTreeMap<StreamKey, (Epoch, String)>,
    /// The highest epoch that any manager spoke of.
    highest: Epoch,
    pending: BTreeMap<u64, Pending>,
    absent: BTreeMap<StreamKey, Time>,
    /// What was revoked while this node ran; a manager that was away, or is another run of itself, is told again.
    revoked: BTreeSet<String>,
    /// Where the manager speaks RTSP, and over TLS.
    manager_rtsp: [String; 2],
    out: VecDeque<Output>,
}

/// The codes of refusals that a manager gives, as fixed words.
const CODES: &[&str] = &[
    "cluster_nodes",
    "cluster_streams",
    "manager_starting",
    "name_busy",
    "node_name_taken",
    "not_registered",
    "takeover_limited",
];

/// The same complaint about an unreachable manager is not logged more often than this.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

impl Member {
    /// A member that has no manager yet. `manager` is its address as the operator wrote it; empty: it is in this
    /// process, the node says `ManagerUp(LinkId::Local)` and nothing is dialled.
    pub fn new(limits: Arc<Limits>, info: NodeInfo, manager: String, rng: Rng, now: Time) -> Member {
        let dial_at = (!manager.is_empty()).then_some(now);
        Member {
            limits,
            info,
            offers: Vec::new(),
            manager,
            rng,
            place: Place::Away { dial_at },
            failures: 0,
            logged_at: None,
            refused_since: None,
            owned: BTreeMap::new(),
            highest: Epoch::default(),
            pending: BTreeMap::new(),
            absent: BTreeMap::new(),
            revoked: BTreeSet::new(),
            manager_rtsp: Default::default(),
            out: VecDeque::new(),
        }
    }

    /// Whether the manager has this node in its books now.
    pub fn is_registered(&self) -> bool {
        matches!(self.place, Place::Up { registered: true, .. })
    }

    /// The link to the manager, while it stands.
    pub fn manager_link(&self) -> Option<LinkId> {
        match self.place {
            Place::Up { link, .. } => Some(link),
            _ => None,
        }
    }

    /// Where the manager speaks RTSP, such as `rtsp://host:8554`, or over TLS, as it said when it was last heard.
    pub fn manager_rtsp(&self, tls: bool) -> Option<&str> {
        let [plain, secure] = &self.manager_rtsp;
        Some(if tls { secure.as_str() } else { plain.as_str() }).filter(|base| !base.is_empty())
    }

    /// The epoch under which this node publishes a stream.
    pub fn owned(&self, key: &StreamKey) -> Option<Epoch> {
        self.owned.get(key).map(|(epoch, _)| *epoch)
    }

    /// Nobody waits for the answer to a question any more. Answers whether it was open; else its answer was said already.
    /// A question that the manager was never told is not put to it any more, so that whoever left takes no name from
    /// whoever stayed.
    pub fn withdraw(&mut self, req: u64) -> bool {
        self.pending.remove(&req).is_some()
    }

    /// How many names it owns, and how many questions to the manager are open.
    pub fn counts(&self) -> (usize, usize) {
        (self.owned.len(), self.pending.len())
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn send(&mut self, message: Message) {
        if self.is_registered() {
            self.out.push_back(Output::ToManager(message));
        }
    }

    fn registration(&self) -> Message {
        Message::Register(Box::new(NodeInfo { highest: self.highest, ..self.info.clone() }))
    }

    fn up(&mut self, link: LinkId, now: Time) {
        let report_at = now + Self::ms(self.limits.report_ms);
        self.place = Place::Up { link, registered: false, report_at };
        self.failures = 0;
        self.out.push_back(Output::ToManager(self.registration()));
        if !self.offers.is_empty() {
            self.out.push_back(Output::ToManager(Message::Offers { streams: self.offers.clone() }));
        }
    }

    fn remember_revoked(&mut self, name: &str) {
        if self.revoked.len() < self.limits.auth_revoked {
            self.revoked.insert(name.to_owned());
        }
    }

    fn down(&mut self, reason: &Reason, now: Time) {
        if self.manager.is_empty() {
            self.place = Place::Away { dial_at: None };
            return;
        }
        if matches!(self.place, Place::Away { .. }) {
            return;
        }
        let least = self.limits.link_dial_min_ms;
        let most = self.limits.link_dial_max_ms.max(least);
        let wait = least.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures = self.failures.saturating_add(1);
        // Nodes that lost the manager together must not come back all at once.
        let spread = u32::try_from(wait / 2).unwrap_or(u32::MAX);
        let wait = wait - u64::from(self.rng.below(spread));
        self.place = Place::Away { dial_at: Some(now + Self::ms(wait)) };
        if self.logged_at.is_none_or(|at| now.since(at) >= COMPLAIN_EVERY) {
            self.logged_at = Some(now);
            let text = format!("no manager reachable at {}: {reason}; trying again", self.manager);
            self.out.push_back(Output::Log(Level::Warn, text));
        }
    }

    fn registered(&mut self) {
        let Place::Up { registered, .. } = &mut self.place else { return };
        self.refused_since = None;
        if std::mem::replace(registered, true) {
            return;
        }
        if self.logged_at.take().is_some() {
            let text = format!("registered with the manager at {}", self.manager);
            self.out.push_back(Output::Log(Level::Info, text));
        }
        for name in self.revoked.clone() {
            self.out.push_back(Output::ToManager(Message::Revoke { name }));
        }
        // What runs first, so that the manager's books are right before anything new is asked.
        for (key, (epoch, identity)) in &self.owned {
            let announce = Message::Announce { key: key.clone(), epoch: *epoch, identity: identity.clone() };
            self.out.push_back(Output::ToManager(announce));
        }
        for (req, pending) in &self.pending {
            self.out.push_back(Output::ToManager(pending.message(*req)));
        }
        self.out.push_back(Output::WantReport);
    }

    fn ask(&mut self, req: u64, key: StreamKey, wish: Wish, now: Time) {
        let until = now + Self::ms(self.limits.cluster_answer_ms);
        let pending = Pending { key, wish, until };
        if self.pending.len() >= self.limits.cluster_waiting {
            let reason = Reason::limit(
                "cluster_waiting",
                "too many questions to the manager are open (limits.cluster_waiting); try again",
            );
            return self.fail(req, &pending, reason);
        }
        self.send(pending.message(req));
        self.pending.insert(req, pending);
    }

    fn fail(&mut self, req: u64, pending: &Pending, reason: Reason) {
        self.out.push_back(match pending.wish {
            Wish::Claim { .. } => Output::Claimed { req, result: Err(reason) },
            Wish::Locate { .. } => Output::Located { req, result: Err(reason), live: false },
            Wish::Relocate { .. } => Output::Relocated { req, to: None },
        });
    }

    fn locate(&mut self, req: u64, key: StreamKey, direct: bool, now: Time) {
        if self.absent.get(&key).is_some_and(|until| now < *until) {
            self.out.push_back(Output::Located { req, result: Err(not_found(&key)), live: false });
        } else {
            self.ask(req, key, Wish::Locate { direct }, now);
        }
    }

    fn take(&mut self, req: u64, fits: impl Fn(&Wish) -> bool) -> Option<Pending> {
        if self.pending.get(&req).is_some_and(|p| fits(&p.wish)) { self.pending.remove(&req) } else { None }
    }

    fn message(&mut self, message: Message, now: Time) {
        if let Message::Claimed { epoch, .. }
        | Message::Located { epoch, .. }
        | Message::Moved { epoch, .. }
        | Message::Fence { epoch, .. } = &message
        {
            self.highest = self.highest.max(*epoch);
        }
        match message {
            Message::Registered { rtsp, rtsps, .. } => {
                self.manager_rtsp = [rtsp, rtsps];
                self.registered();
            }
            Message::Claimed { req, key, epoch } => match self.take(req, Wish::is_claim) {
                Some(Pending { wish: Wish::Claim { identity }, .. }) => {
                    if self.owned.get(&key).is_none_or(|(old, _)| *old < epoch) {
                        self.owned.insert(key, (epoch, identity));
                    }
                    self.out.push_back(Output::Claimed { req, result: Ok(epoch) });
                }
                // The publisher left or gave up waiting; the name must not stay taken. Whoever publishes it here under an
                // older epoch is not relayed any more and must know it.
                _ => {
                    if self.owned.get(&key).is_none_or(|(old, _)| *old < epoch) {
                        if self.owned.remove(&key).is_some() {
                            self.out.push_back(Output::Fenced { key: key.clone(), epoch });
                        }
                        self.send(Message::Release { key, epoch });
                    }
                }
            },
            Message::Refused { req: 0, code, text } => {
                let text = format!("the manager refused this node: {} ({})", quote(&text), quote(&code));
                let first = self.refused_since.is_none();
                let since = *self.refused_since.get_or_insert(now);
                // An earlier run of this node may still have the name, until its lease ends.
                if code == "node_name_taken" && now.since(since) <= Self::ms(self.limits.lease_ms) {
                    if first {
                        self.out.push_back(Output::Log(Level::Info, format!("{text}; trying again")));
                    }
                    return;
                }
                if self.logged_at.is_none_or(|at| now.since(at) >= COMPLAIN_EVERY) {
                    self.logged_at = Some(now);
                    self.out.push_back(Output::Log(Level::Error, text));
                }
            }
            Message::Refused { req, code, text } => {
                if let Some(pending) = self.take(req, Wish::is_claim) {
                    let code = CODES.iter().find(|c| **c == code).copied().unwrap_or("refused");
                    let reason = match code {
                        "name_busy" | "takeover_limited" => Reason::peer(code, text),
                        "cluster_streams" | "manager_starting" => Reason::limit(code, text),
                        _ => Reason::local(code, text),
                    };
                    self.fail(req, &pending, reason);
                }
            }
            Message::Located { req, key, epoch, node, link_addr, live } => {
                let Some(_) = self.take(req, Wish::is_locate) else { return };
                self.absent.remove(&key);
                let result = Ok(Source { epoch, node, link_addr });
                self.out.push_back(Output::Located { req, result, live });
            }
            Message::NotFound { req, key } => {
                if let Some(pending) = self.take(req, Wish::is_locate) {
                    self.remember_absent(key.clone(), now);
                    self.fail(req, &pending, not_found(&key));
                }
            }
            Message::Relocated { req, node, rtmp, rtmps } => {
                let Some(_) = self.take(req, |wish| matches!(wish, Wish::Relocate { .. })) else { return };
                let there = !node.is_empty() && !rtmp.is_empty();
                let to = there.then_some(Elsewhere { node: NodeId(node), rtmp, rtmps });
                self.out.push_back(Output::Relocated { req, to });
            }
            Message::Moved { key, epoch, node, link_addr } => {
                self.absent.remove(&key);
                self.out.push_back(Output::Moved { key, source: Source { epoch, node, link_addr } });
            }
            Message::Fence { key, epoch } => self.fenced(key, epoch),
            Message::Drain { on, within_ms, stop } => {
                self.out.push_back(Output::Drain { on, within_ms, stop });
            }
            Message::Warm { key, for_ms } => self.out.push_back(Output::Warm { key, for_ms }),
            Message::Revoke { name } => {
                self.remember_revoked(&name);
                self.out.push_back(Output::Revoked(name));
            }
            Message::Want { key } => self.out.push_back(Output::Want { key }),
            // The rest goes the other way, is between nodes, or of a newer version.
            _ => {}
        }
    }

    fn fenced(&mut self, key: StreamKey, epoch: Epoch) {
        if self.owned.get(&key).is_none_or(|(ours, _)| *ours < epoch) {
            self.owned.remove(&key);
            self.out.push_back(Output::Fenced { key, epoch });
        }
    }

    fn remember_absent(&mut self, key: StreamKey, now: Time) {
        if self.absent.len() >= self.limits.negative_cache_names {
            self.absent.retain(|_, until| now < *until);
        }
        let forgets = self.limits.simulation.happens(Site::ForgetfulCache, now.as_nanos());
        if !forgets && self.absent.len() < self.limits.negative_cache_names {
            self.absent.insert(key, now + Self::ms(self.limits.negative_cache_ms));
        }
    }

    fn held(&mut self, key: StreamKey, epoch: Epoch) {
        if self.owned(&key) == Some(epoch) {
            self.send(Message::Release { key, epoch });
        }
    }

    fn released(&mut self, key: StreamKey, epoch: Epoch) {
        if self.owned(&key) == Some(epoch) {
            self.owned.remove(&key);
            self.send(Message::Release { key, epoch });
        }
    }

    fn report(&mut self, report: Report) {
        self.send(Message::Report(report));
    }

    fn tick(&mut self, now: Time) {
        match &mut self.place {
            Place::Away { dial_at: Some(at) } if *at <= now => {
                self.place = Place::Dialling { since: now };
                self.out.push_back(Output::DialManager);
            }
            Place::Dialling { since } if *since + Self::ms(self.limits.link_dial_timeout_ms) <= now => {
                let ms = self.limits.link_dial_timeout_ms;
                self.down(&Reason::peer("dial_timeout", format!("no answer within {ms} ms")), now);
            }
            Place::Up { registered, report_at, .. } if *report_at <= now => {
                let early = self.limits.simulation.happens(Site::EarlyReport, now.as_nanos());
                *report_at = now + Self::ms(self.limits.report_ms) / if early { 2 } else { 1 };
                if *registered {
                    self.out.push_back(Output::WantReport);
                } else {
                    // Refused, or the answer is still on its way: the books take the same entry twice.
                    self.out.push_back(Output::ToManager(self.registration()));
                }
            }
            _ => {}
        }
        let late: Vec<u64> =
            self.pending.iter().filter(|(_, p)| p.until <= now).map(|(req, _)| *req).collect();
        for req in late {
            if let Some(pending) = self.pending.remove(&req) {
                let place = if self.manager.is_empty() { "in this process" } else { &self.manager };
                let text = match self.is_registered() {
                    true => format!(
                        "the manager ({place}) did not answer within {} ms",
                        self.limits.cluster_answer_ms
                    ),
                    false => format!("no manager reachable ({place}); the node keeps trying"),
                };
                self.fail(req, &pending, Reason::local("no_manager", text));
            }
        }
    }
}

impl Pending {
    fn message(&self, req: u64) -> Message {
        let key = self.key.clone();
        match &self.wish {
            Wish::Claim { identity } => Message::Claim { req, key, identity: identity.clone() },
            Wish::Locate { direct } => Message::Locate { req, key, direct: *direct },
            Wish::Relocate { publishes } => Message::Relocate { req, key, publishes: *publishes },
        }
    }
}

fn not_found(key: &StreamKey) -> Reason {
    Reason::peer("not_found", format!("nobody publishes {key}"))
}

impl Machine for Member {
    type Input<'a> = Input;
    type Output = Output;

    fn handle(&mut self, input: Input, now: Time) {
        match input {
            Input::ManagerUp(link) => self.up(link, now),
            Input::ManagerDown(reason) => self.down(&reason, now),
            Input::Message(message) => self.message(message, now),
            Input::Claim { req, key, identity } => self.ask(req, key, Wish::Claim { identity }, now),
            Input::Locate { req, key, direct } => self.locate(req, key, direct, now),
            Input::Relocate { req, key, publishes } => self.ask(req, key, Wish::Relocate { publishes }, now),
            Input::Held { key, epoch } => self.held(key, epoch),
            Input::Released { key, epoch } => self.released(key, epoch),
            Input::Revoke(name) => {
                self.remember_revoked(&name);
                if self.is_registered() {
                    self.out.push_back(Output::ToManager(Message::Revoke { name }));
                }
            }
            Input::Report(report) => self.report(report),
            Input::Offers(streams) => {
                self.offers = streams;
                if !matches!(self.place, Place::Away { .. } | Place::Dialling { .. }) {
                    self.out.push_back(Output::ToManager(Message::Offers { streams: self.offers.clone() }));
                }
            }
            Input::Info(info) => {
                self.info = *info;
                if self.is_registered() {
                    self.out.push_back(Output::ToManager(self.registration()));
                }
            }
            Input::Tick => self.tick(now),
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn deadline(&self) -> Option<Deadline> {
        let place = match &self.place {
            Place::Away { dial_at } => dial_at.map(|at| Deadline::new(at, "dial the manager")),
            Place::Dialling { since } => {
                let at = *since + Self::ms(self.limits.link_dial_timeout_ms);
                Some(Deadline::new(at, "dialling the manager"))
            }
            Place::Up { report_at, .. } => Some(Deadline::new(*report_at, "report")),
        };
        let pending = self.pending.values().map(|p| p.until).min();
        Deadline::earliest(place, pending.map(|at| Deadline::new(at, "manager's answer")))
    }
}
