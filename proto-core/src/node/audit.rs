//! A node as a checker sees it: what it holds, and whether that agrees with itself.
//!
//! [`Node::shape`] costs nothing and changes when anything comes or goes; [`Node::audit`] and [`Node::verify`] cost time
//! in proportion to what the node holds. Between two inputs, when all outputs were taken, `verify` holds.

use super::conns::{Conn, Proto};
use super::links::LinkUse;
use super::pulling::Pull;
use super::quic::is_quic;
use super::session::{Carrier, Part, Protocol, Session, SessionId};
use super::{Alarm, Node};
use crate::cluster::registry::StreamState;
use crate::cluster::relay::{PullClient, PullServer, RelayCounters, Taken};
use crate::cluster::{Epoch, NodeId};
use crate::error::Broken;
use crate::hub::SourceId;
use crate::hub::audit::{StreamAudit, SubscriberAudit};
use crate::io::ConnId;
use crate::media::key::StreamKey;
use crate::rtc::endpoint::audit::EndpointAudit;
use crate::time::Time;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// One session as a checker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionAudit {
    /// Its number.
    pub id: SessionId,
    /// How it reaches the node.
    pub protocol: Protocol,
    /// What it does.
    pub part: Part,
    /// The stream's name.
    pub key: StreamKey,
    /// Where the peer is.
    pub remote: Option<SocketAddr>,
    /// What carries it.
    pub carrier: Carrier,
    /// When it began, on the node's clock.
    pub since: Time,
}

/// One pull as a checker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullAudit {
    /// The stream.
    pub key: StreamKey,
    /// The node that is asked or dialled now.
    pub source: Option<NodeId>,
    /// Whether frames are asked for now.
    pub pulling: bool,
    /// The nodes that the frames came through, the origin first.
    pub path: Vec<NodeId>,
    /// The highest epoch heard of.
    pub epoch: Epoch,
    /// Under which epoch it feeds the hub, while it does.
    pub feeds: Option<Epoch>,
    /// The number of the present attempt, and the connection that it has.
    pub over: (u64, Option<ConnId>),
    /// What became of the frames that came.
    pub taken: Taken,
    /// Bytes on that connection that are no whole message yet.
    pub partial: usize,
    /// The other end, where the link is QUIC's.
    pub by_quic: Option<SocketAddr>,
}

/// One pull that another node makes from this one, as a checker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeAudit {
    /// The stream.
    pub key: StreamKey,
    /// The connection, and the puller's number.
    pub over: (ConnId, u64),
    /// What was passed on and what was left out.
    pub counters: RelayCounters,
    /// Bytes that wait in the link for the driver.
    pub backlog: usize,
    /// The other end, where the link is QUIC's.
    pub by_quic: Option<SocketAddr>,
}

/// A node in the manager's books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookedNode {
    /// Its name.
    pub id: NodeId,
    /// Its link stands and its lease runs.
    pub alive: bool,
    /// When it was heard last, on the manager's clock.
    pub heard: Time,
    /// It takes nothing new.
    pub draining: bool,
    /// Sessions by its last report.
    pub sessions: u32,
}

/// A stream in the manager's books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookedStream {
    /// Its name.
    pub key: StreamKey,
    /// The highest epoch granted.
    pub epoch: Epoch,
    /// Its origin.
    pub owner: Option<NodeId>,
    /// What its publisher does.
    pub state: StreamState,
    /// When it last changed hands between live publishers.
    pub taken_over: Option<Time>,
}

/// The manager's books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Books {
    /// The last epoch granted.
    pub last: Epoch,
    /// The nodes, by name.
    pub nodes: Vec<BookedNode>,
    /// The streams, by name.
    pub streams: Vec<BookedStream>,
    /// Publishers that were sent somewhere and have not come.
    pub reservations: usize,
    /// Questions that wait.
    pub waiting: usize,
}

/// A node as a checker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// All sessions, in the order in which they began.
    pub sessions: Vec<SessionAudit>,
    /// TCP connections: with clients, and links with other nodes.
    pub conns: (usize, usize),
    /// Connections that neither publish nor play, by the count that is kept for each address.
    pub idle_conns: usize,
    /// Links to other nodes over QUIC, of which the driver knows nothing.
    pub quic_links: usize,
    /// Timers of the node, without those of its machines.
    pub timers: usize,
    /// WebRTC.
    pub rtc: EndpointAudit,
    /// The hub's streams.
    pub streams: Vec<StreamAudit>,
    /// The hub's subscribers.
    pub subscribers: Vec<SubscriberAudit>,
    /// Timers of the hub.
    pub hub_timers: usize,
    /// Streams pulled from other nodes.
    pub pulls: Vec<PullAudit>,
    /// Links that were dialled for pulls.
    pub pull_links: usize,
    /// Pulls that other nodes make.
    pub serves: Vec<ServeAudit>,
    /// Names that were granted to this node.
    pub owned: usize,
    /// Claims and look-ups that the member keeps open.
    pub asked: usize,
    /// Who waits, by what for: claims, WHIP answers, WHEP answers, media paths, streams, pairings.
    pub waiting: [usize; 6],
    /// Clients of the websocket dialect, and their questions whether a name is taken.
    pub signals: usize,
    /// Websockets and requests that are carried to other nodes.
    pub proxied: usize,
    /// The manager's books, where this node is one.
    pub books: Option<Books>,
    /// Whether the manager has this node in its books.
    pub registered: bool,
    /// It takes nothing new.
    pub draining: bool,
}

impl Audit {
    /// Publishers and viewers, pulls of other nodes not counted.
    pub fn clients(&self) -> usize {
        self.sessions.iter().filter(|s| s.protocol != Protocol::Relay).count()
    }
}

fn session(s: &Session) -> SessionAudit {
    SessionAudit {
        id: s.id,
        protocol: s.protocol,
        part: s.part,
        key: s.key.clone(),
        remote: s.remote,
        carrier: s.carrier,
        since: s.since,
    }
}

fn is_link(conn: &Conn) -> bool {
    matches!(conn.proto, Proto::Link { .. })
}

impl Node {
    /// A number that changes when connections, sessions, streams, pulls or entries in the manager's books come or go.
    pub fn shape(&self) -> u64 {
        let n = |n: usize| n as u64;
        let books = self.manager.as_ref().map_or(0, |m| m.registry().shape() ^ m.last_epoch().count << 32);
        [
            n(self.conns.len()),
            self.sessions.given(),
            n(self.sessions.len()),
            n(self.pulls.by_key.len()),
            n(self.serving.by_pull.len()),
            n(self.claims.len()),
            n(self.play_waiting.len()),
            self.hub.shape(),
            books,
            u64::from(self.draining),
        ]
        .into_iter()
        .fold(0, |shape: u64, n| shape.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(n))
    }

    /// Publishers and viewers, as the next report will say.
    pub fn client_count(&self) -> usize {
        self.clients()
    }

    /// Connections, and WebRTC sessions.
    pub fn sizes(&self) -> (usize, usize) {
        (self.conns.len() + self.tls.leaving.len(), self.rtc.audit().sessions)
    }

    /// Timers that are set, of the node and of the hub, and questions to the manager that wait for an answer or their
    /// end. Each wakes the node at most once until it is set again.
    pub fn armed(&self) -> usize {
        self.timers.len() + self.hub.counts().1 + self.member.counts().1
    }

    /// What is published here: name, epoch, and when its session began.
    pub fn publishing(&self) -> impl Iterator<Item = (&StreamKey, Epoch, Time)> {
        self.sessions.iter().filter_map(|s| match s.part {
            Part::Publishes { epoch, .. } => Some((&s.key, epoch, s.since)),
            _ => None,
        })
    }

    /// How it stands.
    pub fn audit(&self) -> Audit {
        let quic_links = self.conns.values().filter(|c| is_quic(c)).count();
        let links = self.conns.values().filter(|c| is_link(c)).count();
        let (_, hub_timers) = self.hub.counts();
        let (owned, asked) = self.member.counts();
        Audit {
            sessions: self.sessions.iter().map(session).collect(),
            conns: (self.conns.len() - links + self.tls.leaving.len(), links - quic_links),
            quic_links,
            idle_conns: self.conns_per_ip.values().sum(),
            timers: self.timers.len(),
            rtc: self.rtc.audit(),
            streams: self.hub.audit_streams().collect(),
            subscribers: self.hub.audit_subscribers().collect(),
            hub_timers,
            pulls: self.pulls.by_key.iter().map(|(key, p)| self.audit_pull(key, p)).collect(),
            pull_links: self.pulls.links.len(),
            serves: self.audit_serves(),
            owned,
            asked,
            waiting: [
                self.claims.len() + self.remotes.claims(),
                self.whip_waiting.len(),
                self.whep_waiting.len(),
                self.joining.len(),
                self.play_waiting.values().map(Vec::len).sum(),
                self.pair_waiting.len() + self.elsewhere.len(),
            ],
            signals: self.signals.audit().0 + self.signals.asked(),
            proxied: self.proxy.len() + self.proxy.carried.len(),
            books: self.manager.as_ref().map(|m| self.books(m)),
            registered: self.member.is_registered(),
            draining: self.draining,
        }
    }

    /// Whether a link over QUIC stands with a node at this address.
    pub fn is_linked_by_quic(&self, ip: std::net::IpAddr) -> bool {
        let linked =
            |(id, c): (&ConnId, &Conn)| c.remote.ip() == ip && is_quic(c) && self.link_up(*id).is_some();
        self.conns.iter().any(linked)
    }

    /// The pull of a stream, if there is one.
    pub fn audit_pull_of(&self, key: &StreamKey) -> Option<PullAudit> {
        self.pulls.by_key.get(key).map(|p| self.audit_pull(key, p))
    }

    fn audit_pull(&self, key: &StreamKey, p: &Pull) -> PullAudit {
        let conn = p.addr.and_then(|a| self.pulls.links.get(&a)).copied();
        let partial = match conn.and_then(|c| self.conns.get(&c)).map(|c| &c.proto) {
            Some(Proto::Link { machine: Some(m), .. }) => {
                m.partial() + conn.zip(self.quic.endpoint()).map_or(0, |(c, e)| e.partial(c))
            }
            _ => 0,
        };
        PullAudit {
            key: key.clone(),
            source: p.client.source().cloned(),
            pulling: p.client.is_pulling(),
            path: p.client.path().to_vec(),
            epoch: p.client.epoch(),
            feeds: p.feeds.map(|(_, _, epoch)| epoch),
            over: (p.client.pull(), conn),
            taken: p.client.taken(),
            partial,
            by_quic: conn.and_then(|c| self.quic_peer(c)),
        }
    }

    fn quic_peer(&self, conn: ConnId) -> Option<SocketAddr> {
        self.conns.get(&conn).filter(|c| is_quic(c)).map(|c| c.remote)
    }

    fn audit_serves(&self) -> Vec<ServeAudit> {
        let serve = |(over, s): (&(ConnId, u64), &PullServer)| ServeAudit {
            key: s.key().clone(),
            over: *over,
            counters: s.counters(),
            backlog: self.link_backlog(over.0).unwrap_or(0),
            by_quic: self.quic_peer(over.0),
        };
        self.serving.by_pull.iter().map(serve).collect()
    }

    fn books(&self, manager: &crate::cluster::manager::Manager) -> Books {
        let registry = manager.registry();
        let node = |(id, n): (&NodeId, &crate::cluster::registry::Node)| BookedNode {
            id: id.clone(),
            alive: registry.alive(id, self.now),
            heard: n.heard,
            draining: n.draining(),
            sessions: n.load.sessions,
        };
        let stream = |(key, s): (&StreamKey, &crate::cluster::registry::Stream)| BookedStream {
            key: key.clone(),
            epoch: s.epoch,
            owner: s.owner.clone(),
            state: s.state,
            taken_over: s.taken_over,
        };
        Books {
            last: manager.last_epoch(),
            nodes: registry.nodes().iter().map(node).collect(),
            streams: registry.streams().iter().map(stream).collect(),
            reservations: registry.counts().0,
            waiting: manager.waiting(),
        }
    }

    /// Whether all that this node holds agrees with itself: its limits (S6), its tables (S7), its hub's counts (S5).
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(&self) -> Result<(), Broken> {
        self.hub.verify()?;
        self.rtc.verify()?;
        self.sessions.verify()?;
        if let Some(manager) = &self.manager {
            manager.registry().verify()?;
        }
        self.bridges.verify()?;
        self.verify_sessions()?;
        self.verify_sources()?;
        self.verify_waiting()?;
        let (signals, agree) = self.signals.audit();
        Broken::unless(agree, "S7", || format!("{signals} signalling clients, whose tables do not agree"))?;
        self.verify_in_step()?;
        self.verify_pulls()?;
        self.verify_hops()?;
        self.verify_conns()?;
        self.verify_rtsp_udp()?;
        self.verify_elsewhere()?;
        self.verify_timers()?;
        self.verify_authority()?;
        self.verify_fetches()?;
        self.verify_limits()?;
        self.verify_memory()
    }

    fn verify_sessions(&self) -> Result<(), Broken> {
        let (mut rtc, mut pulls, mut playing) = (0, 0, 0);
        for s in self.sessions.iter() {
            let carried = match s.carrier {
                Carrier::Conn(conn) | Carrier::Message(conn, _) => self.conns.contains_key(&conn),
                Carrier::Rtc(session) => {
                    rtc += 1;
                    self.rtc.has(session)
                }
                Carrier::Request(conn) => {
                    self.conns.contains_key(&conn) && self.whep_waiting.contains_key(&s.id)
                }
                Carrier::Signal(id) => self.signals.has(id, s.id),
                Carrier::Pull(conn, pull) => {
                    pulls += 1;
                    self.conns.contains_key(&conn) && self.serving.by_pull.contains_key(&(conn, pull))
                }
            };
            Broken::unless(carried, "S7", || {
                format!("session {s} goes on, but {:?}, which carries it, is gone", s.carrier)
            })?;
            let (stream, held) = match s.part {
                Part::Publishes { stream, epoch } => {
                    let (source, granted) = (self.hub.source(stream), self.hub.epoch(stream));
                    Broken::unless(granted == Some(epoch), "S1", || {
                        format!("session {s} publishes under epoch {epoch}, its stream is at {granted:?}")
                    })?;
                    (stream, source == Some(SourceId(s.id.0)))
                }
                Part::Plays { stream, subscriber } => {
                    playing += 1;
                    (stream, self.hub.stream_of(subscriber) == Some(stream))
                }
                Part::AsksToPublish | Part::AsksToPlay if self.authority.waits_for(s.id) => continue,
                Part::AsksToPublish => {
                    let asked = self.claims.values().any(|(id, key)| *id == s.id && *key == s.key);
                    Broken::unless(asked, "S7", || {
                        format!("session {s} waits for a claim that nobody made")
                    })?;
                    continue;
                }
                Part::AsksToPlay => {
                    let waits = self.play_waiting.get(&s.key).is_some_and(|w| w.contains(&s.id));
                    let joins = self.joining.get(&s.id).is_some_and(|(key, _)| *key == s.key);
                    Broken::unless(waits || joins, "S7", || {
                        format!("session {s} waits for {}, but stands in no list", s.key)
                    })?;
                    continue;
                }
            };
            let key = self.hub.key(stream);
            Broken::unless(held && key == Some(&s.key), "S7", || {
                format!("session {s} of {} is {:?}, but the hub knows {stream:?} as {key:?}", s.key, s.part)
            })?;
        }
        let (in_rtc, in_serving) = (self.rtc.audit().sessions, self.serving.by_pull.len());
        let subscribers = self.hub.counts().0 - self.bridges.cursors();
        Broken::unless((rtc, pulls, playing) == (in_rtc, in_serving, subscribers), "S7", || {
            format!(
                "sessions by WebRTC, by pulls, playing: {:?}; WebRTC sessions, pulls served, subscribers: {:?}",
                (rtc, pulls, playing),
                (in_rtc, in_serving, subscribers)
            )
        })
    }

    /// Each source in the hub is a session that publishes, or a pull.
    fn verify_sources(&self) -> Result<(), Broken> {
        for (id, key) in self.hub.streams() {
            let Some(source) = self.hub.source(id) else { continue };
            let session = self.sessions.get(SessionId(source.0));
            let publishes =
                session.is_some_and(|s| matches!(s.part, Part::Publishes { stream, .. } if stream == id));
            let pulled = self.pulls.by_source.get(&source) == Some(key);
            Broken::unless(publishes != pulled, "S7", || {
                format!("the source {} of {key}: publishes {publishes}, pulled {pulled}", source.0)
            })?;
        }
        let gone = self.first_track.keys().find(|id| self.hub.key(**id).is_none());
        Broken::unless(gone.is_none(), "S7", || format!("a first track of {gone:?}, which is gone"))
    }

    fn verify_waiting(&self) -> Result<(), Broken> {
        let asks = |id: &SessionId, part: Part| self.is_part(*id, part);
        for (key, waiting) in &self.play_waiting {
            let wrong = waiting.iter().find(|id| {
                !asks(id, Part::AsksToPlay) || self.sessions.get(**id).is_none_or(|s| s.key != *key)
            });
            Broken::unless(wrong.is_none() && !waiting.is_empty(), "S7", || {
                format!("{} wait for {key}, among them {wrong:?}, which does not", waiting.len())
            })?;
        }
        let wrong = self.joining.keys().find(|id| !asks(id, Part::AsksToPlay));
        Broken::unless(wrong.is_none(), "S7", || {
            format!("the media path of {wrong:?}, which does not wait")
        })?;
        let wrong = self.whep_waiting.keys().find(|id| !asks(id, Part::AsksToPlay));
        Broken::unless(wrong.is_none(), "S7", || format!("the offer of {wrong:?}, which does not wait"))?;
        let wrong = self.whip_waiting.keys().find(|id| !asks(id, Part::AsksToPublish));
        Broken::unless(wrong.is_none(), "S7", || format!("the answer for {wrong:?}, which does not wait"))?;
        let wrong = self.pair_waiting.values().find(|w| !self.conns.contains_key(&w.conn)).map(|w| w.conn);
        Broken::unless(wrong.is_none(), "S7", || format!("a pairing for connection {wrong:?}, which is gone"))
    }

    fn verify_pulls(&self) -> Result<(), Broken> {
        let p = &self.pulls;
        let feeding = p.by_key.values().filter(|p| p.feeds.is_some()).count();
        Broken::unless(p.by_id.len() == p.by_key.len() && p.by_source.len() == feeding, "S7", || {
            format!(
                "{} pulls, {} numbers of pulls; {feeding} feed the hub, {} sources are pulls",
                p.by_key.len(),
                p.by_id.len(),
                p.by_source.len()
            )
        })?;
        for (key, pull) in &p.by_key {
            let id = PullClient::id_of(pull.client.pull());
            Broken::unless(p.by_id.get(&id) == Some(key), "S7", || {
                format!("pull {id} of {key} leads to {:?}", p.by_id.get(&id))
            })?;
            let Some((stream, source, epoch)) = pull.feeds else { continue };
            let fits = p.by_source.get(&source) == Some(key) && self.hub.source(stream) == Some(source);
            Broken::unless(fits, "S7", || {
                format!(
                    "the pull of {key} feeds {stream:?} as {}, the hub takes {:?}",
                    source.0,
                    self.hub.source(stream)
                )
            })?;
            let hub = self.hub.epoch(stream);
            Broken::unless(hub == Some(epoch), "S1", || {
                format!("the pull of {key} feeds epoch {epoch}, the hub is at {hub:?}")
            })?;
        }
        let gone = p.locates.values().find(|k| !p.by_key.contains_key(k));
        Broken::unless(gone.is_none(), "S7", || format!("a look-up of {gone:?}, which is not pulled"))?;
        for (addr, conn) in &p.links {
            let used = self.conns.get(conn).map(|c| &c.proto);
            let fits = matches!(used, Some(Proto::Link { used: LinkUse::Origin(a), .. }) if a == addr);
            Broken::unless(fits, "S7", || {
                format!("the link {conn} to origin {addr} is gone or is another's")
            })?;
        }
        let beside = self.quic.fallback.beside();
        let gone = beside.iter().find(|c| !self.link_is_quic(**c));
        Broken::unless(gone.is_none(), "S7", || format!("a link {gone:?} that is tried by QUIC is gone"))?;
        let dialled = |(id, c): &(&ConnId, &Conn)| {
            matches!(c.proto, Proto::Link { used: LinkUse::Origin(_), .. }) && !beside.contains(id)
        };
        let dialled = self.conns.iter().filter(dialled).count();
        Broken::unless(dialled == p.links.len(), "S7", || {
            format!("{dialled} links were dialled for pulls, {} are known", p.links.len())
        })
    }

    /// S5 at both ends of a relay: what the hub handed out was passed on or left out, and what came was handed on or left
    /// out. Between them is the network.
    fn verify_hops(&self) -> Result<(), Broken> {
        for ((conn, pull), server) in &self.serving.by_pull {
            let Some(session) = self.sessions.on(Carrier::Pull(*conn, *pull)) else { continue };
            let Some(Part::Plays { subscriber, .. }) = self.sessions.get(session).map(|s| s.part) else {
                continue;
            };
            let handed = self.hub.subscriber_stats(subscriber).map_or(0, |s| s.delivered.frames);
            let c = server.counters();
            Broken::unless(handed == c.frames + c.skipped_frames, "S5", || {
                format!(
                    "{}: {handed} frames were handed to pull {pull}, {} passed on and {} left out",
                    server.key(),
                    c.frames,
                    c.skipped_frames
                )
            })?;
        }
        for (key, pull) in &self.pulls.by_key {
            let taken = pull.client.taken();
            Broken::unless(taken.adds_up() && taken.passed == pull.fed, "S5", || {
                format!("the pull of {key}: {taken:?}, {} handed to the hub or refused", pull.fed)
            })?;
        }
        Ok(())
    }

    fn verify_conns(&self) -> Result<(), Broken> {
        let mut idle: BTreeMap<_, usize> = BTreeMap::new();
        for conn in self.conns.values().filter(|c| c.idle) {
            *idle.entry(conn.remote.ip()).or_default() += 1;
        }
        Broken::unless(idle == self.conns_per_ip, "S7", || {
            format!("idle connections by address: {idle:?}, counted {:?}", self.conns_per_ip)
        })?;
        let wrong = self.remotes.conns().find(|(conn, id)| {
            !matches!(self.conns.get(conn).map(|c| &c.proto), Some(Proto::Remote { id: of, .. }) if of == *id)
        });
        Broken::unless(wrong.is_none(), "S7", || {
            format!("the connection of {wrong:?} is gone or is another's")
        })?;
        let gone = self.doors.dialled().find(|c| !self.conns.contains_key(c));
        Broken::unless(gone.is_none() && self.doors.agrees(), "S7", || {
            format!("the tables of what other loops are asked do not agree; the connection {gone:?} is gone")
        })?;
        let gone = self.proxy.dialled().find(|c| !self.conns.contains_key(c));
        Broken::unless(gone.is_none() && self.proxy.agrees(), "S7", || {
            format!("the proxy's tables do not agree; the connection {gone:?} is gone")
        })?;
        let manager = self.manager_conn.filter(|c| !self.conns.contains_key(c));
        Broken::unless(manager.is_none(), "S7", || {
            format!("the link {manager:?} to the manager is gone, and is kept")
        })
    }

    fn verify_timers(&self) -> Result<(), Broken> {
        for alarm in self.timers.keys() {
            let fits = match alarm {
                Alarm::Conn(conn) => self.conns.contains_key(conn) || self.tls.leaving.contains_key(conn),
                Alarm::Pull(key) => self.pulls.has(key),
                Alarm::Waiting(session) => self.is_part(*session, Part::AsksToPlay),
                Alarm::Settle(key) => self.hub.find(key).is_some(),
                Alarm::Expires(session) => self.sessions.get(*session).is_some(),
                Alarm::Warm(key) => self.warm.contains(key),
                Alarm::Bridge(id) | Alarm::Bridged(id) => self.bridges.has(*id),
                Alarm::Remote(id) => self.remotes.has(id),
                Alarm::QuicWait(conn) => self.link_is_quic(*conn),
                Alarm::QuicAgain(addr) => self.quic.fallback.is_tried(addr),
                Alarm::Fetch(id) => self.fetches.has(*id),
                Alarm::DrainEnds => self.draining,
                Alarm::Signal(id) => self.signals.contains(*id),
                Alarm::KeyFrames(session) => {
                    self.sessions.get(*session).is_some_and(|s| s.key_frames.is_some())
                }
                // It finds nothing to do where its viewer left.
                Alarm::Pump(_)
                | Alarm::Report
                | Alarm::Certificates
                | Alarm::KeySet
                | Alarm::ClusterKeys
                | Alarm::Proxy => true,
            };
            Broken::unless(fits, "S7", || format!("a timer of {alarm:?}, which is gone"))?;
        }
        Ok(())
    }

    fn verify_limits(&self) -> Result<(), Broken> {
        let limits = &self.limits;
        let most = |n: usize, most: usize, what: &str, key: &str| {
            Broken::unless(n <= most, "S6", || format!("{n} {what}, limits.{key} is {most}"))
        };
        let accepted = self.conns.keys().filter(|c| !c.is_dialled()).count();
        most(accepted, limits.conns, "accepted connections", "conns")?;
        for (ip, n) in &self.conns_per_ip {
            most(*n, limits.conns_per_ip, &format!("idle connections of {ip}"), "conns_per_ip")?;
        }
        most(self.pulls.len(), limits.streams, "pulls", "streams")?;
        most(self.remotes.len(), limits.remotes, "sources and destinations", "remotes")?;
        most(self.proxy.len(), limits.proxy_sessions, "proxied websockets", "proxy_sessions")?;
        most(self.bridges.working(false), limits.bridges, "sound bridges", "bridges")?;
        most(self.bridges.working(true), limits.video_bridges, "picture bridges", "video_bridges")?;
        most(self.member.counts().1, limits.cluster_waiting, "open questions", "cluster_waiting")?;
        if let Some(manager) = &self.manager {
            most(manager.waiting(), limits.cluster_waiting, "waiting questions", "cluster_waiting")?;
        }
        for (id, conn) in &self.conns {
            let (queued, bound, key) = match &conn.proto {
                Proto::Link { machine: Some(m), .. } => {
                    let bound = limits.link_queue_bytes + 3 * limits.link_message_bytes;
                    (m.backlog(), bound, "link_queue_bytes and three messages")
                }
                // What a frame becomes when it is chunked, on top of what waits before the viewer counts as slow.
                Proto::Http(m) => (m.socket_queued().unwrap_or(0), limits.ws_queue_bytes, "ws_queue_bytes"),
                Proto::Socket { machine: Some(m), .. } => {
                    (m.queued(), limits.ws_queue_bytes, "ws_queue_bytes")
                }
                Proto::Rtmp(m) => (m.backlog(), limits.ring_bytes + 2 * limits.frame_bytes, "ring_bytes"),
                Proto::Rtsp(m) => (m.backlog(), limits.ring_bytes + 2 * limits.frame_bytes, "ring_bytes"),
                Proto::Remote { machine: Some(m), .. } => {
                    (m.backlog(), limits.ring_bytes + 2 * limits.frame_bytes, "ring_bytes")
                }
                _ => continue,
            };
            most(queued, bound, &format!("bytes wait on {} {id}", conn.service.name()), key)?;
        }
        Ok(())
    }
}
