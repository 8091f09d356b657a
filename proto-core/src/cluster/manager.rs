//! The manager: pairs names with origins and viewers with edges, and grants the right to publish.
//!
//! Every grant carries an [`Epoch`]; the highest one wins everywhere. The state is soft ([`Registry`]): after a
//! restart the nodes announce what they serve, and until they had two report intervals to do so, questions about
//! names that are not known yet wait. Only where this process is the whole cluster is there nobody to wait for.

mod offers;
mod orders;
mod pairing;
mod placed;
mod relaying;
#[cfg(test)]
mod tests;

pub use orders::DrainOrder;
pub use placed::{Choice, Considered, Placed, Taken};

use crate::cluster::placement::{Refusal, Why};
use crate::cluster::registry::{Lapsed, Registry, Stream, StreamState};
use crate::cluster::{Epoch, LinkId, NodeId};
use crate::error::{Reason, quote};
use crate::guard::must;
use crate::io::Level;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::media::key::StreamKey;
use crate::simulation::Bug;
use crate::time::{Deadline, Time, WallTime};
use crate::wire::link::{Message, NodeInfo, Report, StreamReport};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The highest term that is believed: seconds since 1970 reach it in 34,000 years, and above it there is still room to
/// count.
const TERM_MAX: u64 = 1 << 40;

/// What a client wants with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Publish it.
    Broadcast,
    /// Play it.
    Subscribe,
}

/// Who is given out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The node to go to.
    pub node: NodeInfo,
    /// The stream's highest epoch; none for a name that was never granted.
    pub epoch: Option<Epoch>,
    /// Why this node.
    pub why: Why,
    /// Further nodes, the next best first, where more than one was asked for.
    pub others: Vec<NodeInfo>,
}

/// A client's question for nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairing {
    /// What it wants.
    pub action: Action,
    /// The stream.
    pub key: StreamKey,
    /// The regions that it prefers, the first most.
    pub regions: Vec<String>,
    /// Refuse rather than give a node of another region, or fewer nodes than `count`.
    pub strict: bool,
    /// How many nodes, at least 1.
    pub count: usize,
    /// The node that it is at now and that takes nothing new: it is to go on at another, whoever has the name.
    pub leaves: Option<NodeId>,
}

impl Pairing {
    fn regions(&self) -> Vec<&str> {
        self.regions.iter().map(String::as_str).collect()
    }
}

/// What a manager can be told.
#[derive(Debug)]
pub enum Input {
    /// A node said this over its link (or in memory).
    Link(LinkId, Message),
    /// A link broke.
    LinkDown(LinkId),
    /// A client asks for a node.
    Pair {
        /// Number for the answer.
        req: u64,
        /// What it asks.
        pairing: Pairing,
    },
    /// Time passed.
    Tick,
    /// What the wall clock reads. The first one starts the manager's term; nothing is granted before.
    WallClock(WallTime),
}

/// What a manager says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to a node.
    ToLink(LinkId, Message),
    /// The answer to [`Input::Pair`].
    Paired {
        /// The question's number.
        req: u64,
        /// The node, or why there is none.
        result: Result<Box<Placement>, Refusal>,
    },
    /// A line for the operator.
    Log(Level, String),
    /// An assertion does not hold: a claim was refused for that alone.
    Broken(Reason),
}

/// A question that waits until the nodes had time to come back.
#[derive(Debug)]
enum Question {
    Pair { req: u64, pairing: Pairing },
    Claim { link: LinkId, req: u64, key: StreamKey, identity: String },
    Locate { link: LinkId, req: u64, key: StreamKey, direct: bool },
    Relocate { link: LinkId, req: u64, key: StreamKey, publishes: bool },
}

impl Question {
    fn key(&self) -> &StreamKey {
        match self {
            Question::Pair { pairing, .. } => &pairing.key,
            Question::Claim { key, .. } | Question::Locate { key, .. } | Question::Relocate { key, .. } => {
                key
            }
        }
    }
}

/// The manager. See the module's text.
#[derive(Debug)]
pub struct Manager {
    limits: Arc<Limits>,
    registry: Registry,
    /// This process has every role: as long as no other node ever registered, it is the whole cluster.
    complete: bool,
    strangers: bool,
    settle_at: Time,
    settled: bool,
    /// When another process's node was last heard.
    heard_at: Option<Time>,
    /// The last epoch granted; its term is 0 until the wall clock was read.
    last: Epoch,
    /// Above every term heard.
    least_term: u64,
    waiting: VecDeque<Question>,
    /// What was revoked while it ran.
    revoked: BTreeSet<String>,
    /// Why the newest streams were placed where they were.
    choices: placed::Choices,
    /// What nodes can pull from other servers.
    offers: offers::Offers,
    /// What was refused to nodes, or left out of what they said, by reason.
    refused: BTreeMap<&'static str, u64>,
    out: VecDeque<Output>,
}

impl Manager {
    /// A manager that knows nothing yet. `complete`: this process is manager, origin and edge itself.
    pub fn new(limits: Arc<Limits>, complete: bool, now: Time) -> Manager {
        let settle = Self::settle_time(&limits);
        Manager {
            registry: Registry::new(Arc::clone(&limits)),
            limits,
            complete,
            strangers: false,
            settle_at: now + settle,
            settled: false,
            heard_at: None,
            last: Epoch::default(),
            least_term: 1,
            waiting: VecDeque::new(),
            revoked: BTreeSet::new(),
            choices: placed::Choices::default(),
            offers: offers::Offers::default(),
            refused: BTreeMap::new(),
            out: VecDeque::new(),
        }
    }

    /// What was refused to nodes so far, or left out of what they said, by reason.
    pub fn refused(&self) -> &BTreeMap<&'static str, u64> {
        &self.refused
    }

    fn settle_time(limits: &Limits) -> Duration {
        Duration::from_millis(limits.report_ms.saturating_mul(2))
    }

    /// A node speaks. If none did for a whole lease, this process slept or was cut off: that leases ran out says
    /// nothing about the nodes then, so all may say again what they publish before a name is given to another.
    fn notice_silence(&mut self, now: Time) {
        let before = self.heard_at.replace(now);
        let lease = Duration::from_millis(self.limits.lease_ms);
        let Some(silent) = before.map(|at| now.since(at)).filter(|s| *s >= lease && self.settled) else {
            return;
        };
        self.settled = false;
        self.settle_at = now + Self::settle_time(&self.limits);
        let text = format!(
            "no node was heard for {} ms: this manager slept or was cut off; it waits {} ms for what they publish",
            silent.as_millis(),
            Self::settle_time(&self.limits).as_millis()
        );
        self.log(Level::Warn, text);
    }

    /// What it knows, for the API and metrics.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The last epoch that it granted.
    pub fn last_epoch(&self) -> Epoch {
        self.last
    }

    /// Questions that wait until it has relearnt the cluster.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Its term; 0 until the wall clock was read.
    pub fn term(&self) -> u64 {
        self.last.term
    }

    /// Whether a name that is not in the books may be called free.
    fn knows_all(&self) -> bool {
        self.last.term > 0 && (self.settled || (self.complete && !self.strangers))
    }

    fn log(&mut self, level: Level, text: String) {
        self.out.push_back(Output::Log(level, text));
    }

    fn tell(&mut self, node: &NodeId, message: Message) {
        if let Some(link) = self.registry.node(node).and_then(|n| n.link) {
            self.out.push_back(Output::ToLink(link, message));
        }
    }

    fn next_epoch(&mut self) -> Epoch {
        self.last.count += 1;
        self.last
    }

    /// An epoch that an earlier manager granted must never be granted again.
    fn heard(&mut self, epoch: Epoch) {
        self.least_term = self.least_term.max(epoch.term.saturating_add(1));
        if self.last.term > 0 && epoch > self.last {
            let term = self.least_term;
            self.last = Epoch { term, count: 0 };
            self.log(
                Level::Info,
                format!("a node holds epoch {epoch}; the manager's term is {term} from now on"),
            );
        }
    }

    /// A node that registers knows this epoch of an earlier manager, whose streams it may still hold.
    fn heard_of(&mut self, link: LinkId, epoch: Epoch) {
        if epoch.term <= TERM_MAX {
            self.heard(epoch);
        } else {
            let text = format!("link {link:?} speaks of epoch {epoch}, which no manager can have granted");
            self.log(Level::Warn, text);
        }
    }

    fn wall_clock(&mut self, wall: WallTime, now: Time) {
        if self.last.term == 0 {
            let seconds = wall.0 / 1_000_000_000;
            self.last = Epoch { term: seconds.max(self.least_term), count: 0 };
            self.answer_waiting(now);
        }
    }

    fn message(&mut self, link: LinkId, message: Message, now: Time) {
        if link != LinkId::Local {
            self.notice_silence(now);
        }
        if let Message::Register(info) = message {
            return self.register(link, *info, now);
        }
        let Some(node) = self.registry.node_at(link).cloned() else {
            match message {
                Message::Claim { req, .. } => self.refuse(link, req, "not_registered", not_registered()),
                Message::Locate { req, key, .. } => {
                    self.out.push_back(Output::ToLink(link, Message::NotFound { req, key }))
                }
                _ => {}
            }
            return;
        };
        match message {
            Message::Report(report) => self.report(&node, &report, now),
            Message::Claim { req, key, identity } => {
                self.ask(Question::Claim { link, req, key, identity }, now);
            }
            Message::Announce { key, epoch, identity } => {
                self.announced(&node, &key, epoch, &identity, now);
                self.answer_waiting_for(&key, now);
            }
            Message::Release { key, epoch } => {
                let ours = self
                    .registry
                    .stream(&key)
                    .is_some_and(|s| s.epoch == epoch && s.owner.as_ref() == Some(&node));
                if ours {
                    self.registry.hold(&key, now);
                }
            }
            Message::Locate { req, key, direct } => {
                self.ask(Question::Locate { link, req, key, direct }, now);
            }
            Message::Relocate { req, key, publishes } => {
                self.ask(Question::Relocate { link, req, key, publishes }, now);
            }
            Message::Revoke { name } => self.revoked_at(&node, name),
            Message::Offers { streams } => self.offers.set(node, &streams, self.limits.remotes),
            // The rest is between nodes, or of a newer version.
            _ => {}
        }
    }

    fn register(&mut self, link: LinkId, info: NodeInfo, now: Time) {
        let known = self.registry.node_at(link) == Some(&info.id);
        let line = format!(
            "node {} registered: version {}, region {}, {} Mbit/s, links at {}",
            quote(&info.id.0),
            quote(&info.version),
            quote(&info.region),
            info.capacity_mbps,
            info.advertised.link_addr()
        );
        let (id, highest) = (info.id.clone(), info.highest);
        match self.registry.register(link, info, now) {
            Ok(orphans) => {
                self.strangers |= link != LinkId::Local;
                self.heard_of(link, highest);
                if !known {
                    self.log(Level::Info, line);
                }
                if !orphans.is_empty() {
                    let n = orphans.len();
                    self.log(
                        Level::Warn,
                        format!("that node was restarted; {n} streams wait for their publishers"),
                    );
                }
                let term = self.last.term;
                let [rtsp, rtsps] = [false, true].map(|tls| self.rtsp_base(tls));
                self.out.push_back(Output::ToLink(link, Message::Registered { term, rtsp, rtsps }));
                self.repeat_orders(&id);
            }
            Err((code, text)) => {
                self.log(Level::Warn, format!("a node was refused: {text}"));
                self.refuse(link, 0, code, text);
            }
        }
    }

    /// Where the node in this process speaks RTSP.
    fn rtsp_base(&self, tls: bool) -> String {
        let here = self.registry.nodes().values().find(|n| n.link == Some(LinkId::Local));
        here.map(|n| n.info.advertised.rtsp_base(tls)).unwrap_or_default()
    }

    fn refuse(&mut self, link: LinkId, req: u64, code: &'static str, text: String) {
        self.count(code);
        self.out.push_back(Output::ToLink(link, Message::Refused { req, code: code.to_owned(), text }));
    }

    fn count(&mut self, what: &'static str) {
        let n = self.refused.entry(what).or_default();
        *n = n.saturating_add(1);
    }

    fn report(&mut self, node: &NodeId, report: &Report, now: Time) {
        if !self.registry.report(node, report, now) {
            self.count("too_many_reports");
            // Once a second, at the first.
            let most = self.limits.cluster_reports_per_s;
            if self.registry.reports_now(node) == most.saturating_add(1) {
                let text = format!(
                    "node {} reports more than {most} times a second (limits.cluster_reports_per_s); the rest is left out \
                     (too_many_reports)",
                    quote(&node.0)
                );
                self.log(Level::Warn, text);
            }
            return;
        }
        for stream in &report.streams {
            self.reported(node, stream, now);
        }
        // What it was granted a while ago and does not report, it does not have.
        let lease = Duration::from_millis(self.limits.lease_ms);
        let Some(entry) = self.registry.node(node) else { return };
        if !entry.owns.is_empty() {
            let reported: std::collections::BTreeSet<&StreamKey> =
                report.streams.iter().map(|s| &s.key).collect();
            let old = |key: &&StreamKey| self.registry.stream(key).is_some_and(|s| s.since + lease <= now);
            let missing: Vec<StreamKey> =
                entry.owns.iter().filter(|k| !reported.contains(k)).filter(old).cloned().collect();
            for key in missing {
                self.registry.hold(&key, now);
            }
        }
    }

    fn reported(&mut self, node: &NodeId, report: &StreamReport, now: Time) {
        let key = &report.key;
        let lease = Duration::from_millis(self.limits.lease_ms);
        if let Some(stream) = self.registry.stream_mut(key)
            && stream.owner.as_ref() == Some(node)
        {
            if report.epoch == stream.epoch {
                stream.viewers = report.viewers;
                stream.about.clone_from(&report.about);
                let state = stream.state;
                match (report.live, report.silent) {
                    (false, _) => self.registry.hold(key, now),
                    (true, _) if state == StreamState::Held => self.adopt(node, key, report.epoch, "", now),
                    (true, true) => stream.state = StreamState::Silent,
                    (true, false) => stream.state = StreamState::Live,
                }
                return;
            }
            // A grant may be on its way to the node while the report is on its way here.
            if report.epoch < stream.epoch && now < stream.since + lease {
                return;
            }
        }
        self.announced(node, key, report.epoch, "", now);
        let ours = |s: &Stream| s.epoch == report.epoch && s.owner.as_ref() == Some(node);
        if !report.live && self.registry.stream(key).is_some_and(ours) {
            self.registry.hold(key, now);
        }
    }

    /// A node says that it serves a stream under an epoch that it was granted before.
    fn announced(&mut self, node: &NodeId, key: &StreamKey, epoch: Epoch, identity: &str, now: Time) {
        if epoch.term > TERM_MAX {
            let text = format!(
                "node {} announces {key} under epoch {epoch}, which no manager can have granted",
                quote(&node.0)
            );
            self.count("epoch_never_granted");
            return self.log(Level::Warn, text);
        }
        let Some(stream) = self.registry.stream(key) else {
            if self.limits.simulation.planted(Bug::ManagerNeverRelearns) {
                return;
            }
            if self.registry.streams_full() {
                let text = format!(
                    "{key} is not tracked: the manager knows too many streams (limits.cluster_streams)"
                );
                self.count("cluster_streams");
                return self.log(Level::Warn, text);
            }
            self.heard(epoch);
            return self.adopt(node, key, epoch, identity, now);
        };
        let highest = stream.epoch;
        let same = stream.owner.as_ref().is_none_or(|owner| owner == node);
        if epoch > highest || (epoch == highest && same) {
            self.heard(epoch);
            self.adopt(node, key, epoch, identity, now);
        } else {
            self.log(
                Level::Warn,
                format!(
                    "node {} serves {key} under epoch {epoch}, but {highest} was granted; fenced",
                    quote(&node.0)
                ),
            );
            self.tell(node, Message::Fence { key: key.clone(), epoch: highest });
        }
    }

    /// Writes an owner into the books and tells those whom it concerns. An empty identity keeps the known one.
    fn adopt(&mut self, node: &NodeId, key: &StreamKey, epoch: Epoch, identity: &str, now: Time) {
        let before = self.registry.stream(key).map(|s| (s.epoch, s.owner.clone(), s.identity.clone()));
        let kept = before.as_ref().filter(|_| identity.is_empty()).map(|(_, _, known)| known.clone());
        self.registry.grant(key, node, epoch, kept.as_deref().unwrap_or(identity), now);
        let Some((old_epoch, old_owner, _)) = before else { return };
        if let Some(old) = old_owner.as_ref().filter(|old| *old != node) {
            self.tell(old, Message::Fence { key: key.clone(), epoch });
        }
        if old_epoch == epoch && old_owner.as_ref() == Some(node) {
            return;
        }
        let Some(link_addr) = self.registry.node(node).map(|n| n.info.advertised.link_addr()) else { return };
        let gone: Vec<NodeId> = match self.registry.stream(key) {
            Some(s) => s.askers.iter().filter(|a| self.registry.node(a).is_none()).cloned().collect(),
            None => Vec::new(),
        };
        let askers = match self.registry.stream_mut(key) {
            Some(s) => {
                s.askers.retain(|a| !gone.contains(a));
                s.askers.clone()
            }
            None => return,
        };
        for asker in askers.iter().filter(|a| *a != node) {
            let moved = Message::Moved { key: key.clone(), epoch, node: node.clone(), link_addr };
            self.tell(asker, moved);
        }
    }

    /// Answers at once, or later if too little is known yet.
    fn ask(&mut self, question: Question, now: Time) {
        let owned = self.registry.stream(question.key()).is_some_and(|s| s.owner.is_some());
        let known = self.last.term > 0 && owned;
        if known || self.knows_all() {
            return self.answer(question, now);
        }
        if self.waiting.len() >= self.limits.cluster_waiting {
            let text =
                "the manager has just started and has too many questions waiting; try again in two seconds";
            return match question {
                Question::Pair { req, .. } => {
                    let result = Err(Refusal::new("manager_starting", 503, text));
                    self.out.push_back(Output::Paired { req, result });
                }
                Question::Claim { link, req, .. } => {
                    self.refuse(link, req, "manager_starting", text.to_owned())
                }
                Question::Locate { link, req, key, .. } => {
                    self.out.push_back(Output::ToLink(link, Message::NotFound { req, key }));
                }
                Question::Relocate { link, req, .. } => self.relocated(link, req, None),
            };
        }
        self.waiting.push_back(question);
    }

    fn answer_waiting(&mut self, now: Time) {
        for question in std::mem::take(&mut self.waiting) {
            self.ask(question, now);
        }
    }

    fn answer_waiting_for(&mut self, key: &StreamKey, now: Time) {
        if self.waiting.iter().any(|q| q.key() == key) {
            self.answer_waiting(now);
        }
    }

    fn answer(&mut self, question: Question, now: Time) {
        match question {
            Question::Pair { req, pairing } => {
                let result = self.pair(&pairing, now);
                if !self.knows_all()
                    && self.waiting.len() < self.limits.cluster_waiting
                    && result.as_ref().is_err_and(|r| r.status == 503)
                {
                    // The nodes that could take it may not be back yet.
                    return self.waiting.push_back(Question::Pair { req, pairing });
                }
                let Pairing { key, action, .. } = &pairing;
                match &result {
                    Ok(p) => {
                        let line = format!("{key}: {action:?} goes to {}: {}", quote(&p.node.id.0), p.why);
                        self.log(Level::Debug, line);
                    }
                    Err(r) => {
                        self.log(Level::Debug, format!("{key}: {action:?} refused: {} ({})", r.text, r.code))
                    }
                }
                self.out.push_back(Output::Paired { req, result });
            }
            Question::Claim { link, req, key, identity } => self.claim(link, req, &key, &identity, now),
            Question::Locate { link, req, key, direct } => self.locate_or_want((link, req), key, direct, now),
            Question::Relocate { link, req, key, publishes } => {
                self.relocate((link, req), key, publishes, now);
            }
        }
    }

    fn claim(&mut self, link: LinkId, req: u64, key: &StreamKey, identity: &str, now: Time) {
        let Some(node) = self.registry.node_at(link).cloned() else {
            return self.refuse(link, req, "not_registered", not_registered());
        };
        let mut taken_over = None;
        match self.registry.stream(key) {
            None if self.registry.streams_full() => {
                let text = "the cluster has as many streams as the manager may know (limits.cluster_streams)";
                return self.refuse(link, req, "cluster_streams", text.to_owned());
            }
            // Of its own publishers a node knows better who is silent; but two of one identity may fight there as well.
            Some(stream)
                if stream.state != StreamState::Held
                    && stream.owner.as_ref().is_some_and(|o| *o != node || stream.is_by(identity)) =>
            {
                let same = stream.is_by(identity);
                if !same && stream.state != StreamState::Silent {
                    return self.refuse(link, req, "name_busy", busy(key));
                }
                let again = Duration::from_millis(self.limits.takeover_ms);
                let limited = !self.limits.simulation.planted(Bug::TakeoverUnlimited);
                if limited && stream.taken_over.is_some_and(|at| now < at + again) {
                    let text = format!(
                        "{key} has just changed hands; wait {} seconds, and make sure that only one encoder publishes it",
                        again.as_secs()
                    );
                    return self.refuse(link, req, "takeover_limited", text);
                }
                taken_over = Some(if same {
                    "the same publisher connected there"
                } else {
                    "its publisher was silent"
                });
            }
            _ => {}
        }
        let old = self.registry.stream(key).map(|s| s.epoch);
        let old = old.filter(|_| self.limits.simulation.planted(Bug::EpochNotRaised));
        let epoch = old.unwrap_or_else(|| self.next_epoch());
        // S1, asserted with each grant.
        let highest = self.registry.stream(key).map(|s| s.epoch);
        let rises = must(self.limits.simulation, highest.is_none_or(|h| h < epoch), "S1", || {
            format!("{key} was to be granted under epoch {epoch}, and has had {highest:?}")
        });
        if let Err(broken) = rises {
            self.refuse(link, req, broken.code, broken.text.to_string());
            return self.out.push_back(Output::Broken(broken));
        }
        let how = match (self.registry.reserved(key), taken_over) {
            (_, Some(why)) => why,
            (Some(sent), _) if *sent == node => "its publisher came as the manager had said",
            (Some(_), _) => "its publisher came to this node although the manager had named another",
            (None, _) => "its publisher came to this node without asking the manager",
        };
        let taken = Taken { at: now, node: node.clone(), epoch, how };
        self.choices.take(key, taken, self.limits.placements_kept);
        // An empty identity is a new publisher's, not "as before".
        self.registry.stream_mut(key).into_iter().for_each(|s| s.identity.clear());
        self.adopt(&node, key, epoch, identity, now);
        if let Some(why) = taken_over {
            if let Some(stream) = self.registry.stream_mut(key) {
                stream.taken_over = Some(now);
            }
            self.log(
                Level::Info,
                format!("{key} moves to node {} under epoch {epoch}: {why}", quote(&node.0)),
            );
        }
        self.out.push_back(Output::ToLink(link, Message::Claimed { req, key: key.clone(), epoch }));
        self.answer_wanting(key, now);
    }

    fn link_down(&mut self, link: LinkId) {
        if let Some(node) = self.registry.link_down(link) {
            let text = format!("lost the link to node {}; its lease runs on", quote(&node.0));
            self.log(Level::Warn, text);
        }
    }

    fn tick(&mut self, now: Time) {
        self.give_up_wanting(now);
        while let Some(lapsed) = self.registry.pop_due(now) {
            match lapsed {
                Lapsed::Node(node, orphans) => {
                    let (name, n) = (quote(&node.0), orphans.len());
                    let text =
                        format!("node {name} is gone (its lease ran out); {n} streams wait for a new origin");
                    self.log(Level::Warn, text);
                    self.offers.forget(&node);
                }
                Lapsed::Stream(key) => {
                    self.log(Level::Debug, format!("{key} was not published again; forgotten"))
                }
            }
        }
        if !self.settled && now >= self.settle_at {
            self.settled = true;
            self.answer_waiting(now);
        }
    }
}

fn busy(key: &StreamKey) -> String {
    format!("{key} is being published already; stop that publisher or use another name")
}

fn not_registered() -> String {
    "this node is not registered with the manager yet; try again".to_owned()
}

impl Machine for Manager {
    type Input<'a> = Input;
    type Output = Output;

    fn handle(&mut self, input: Input, now: Time) {
        match input {
            Input::Link(link, message) => self.message(link, message, now),
            Input::LinkDown(link) => self.link_down(link),
            Input::Pair { req, pairing } => self.ask(Question::Pair { req, pairing }, now),
            Input::Tick => self.tick(now),
            Input::WallClock(wall) => self.wall_clock(wall, now),
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn deadline(&self) -> Option<Deadline> {
        let settle = (!self.settled).then(|| Deadline::new(self.settle_at, "manager relearns"));
        Deadline::earliest(Deadline::earliest(settle, self.registry.deadline()), self.offers.deadline())
    }
}
