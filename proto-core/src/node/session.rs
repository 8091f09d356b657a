//! Sessions: who publishes or plays what, over which protocol, since when. One table for all protocols, so that
//! `ctl sessions`, the metrics and the log tell the same story.

use super::story::{Ended, Story};
use crate::auth::Grant;
use crate::cluster::Epoch;
use crate::error::Broken;
use crate::hub::{StreamId, SubscriberId, SubscriberStats};
use crate::io::ConnId;
use crate::media::key::StreamKey;
use crate::node::remote::Via;
use crate::node::signals::SignalId;
use crate::table::Table;
use crate::time::Time;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// The number of a session on this node; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// How a session reaches us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// RTMP.
    Rtmp,
    /// RTSP.
    Rtsp,
    /// A publisher by WHIP.
    Whip,
    /// A viewer by WHEP.
    Whep,
    /// A publisher or viewer by the websocket dialect.
    Ws,
    /// A viewer by HTTP-FLV.
    Flv,
    /// Another node that pulls, or from which we pull.
    Relay,
}

impl Protocol {
    /// The word for session names, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Rtmp => "rtmp",
            Protocol::Rtsp => "rtsp",
            Protocol::Whip => "whip",
            Protocol::Whep => "whep",
            Protocol::Ws => "ws",
            Protocol::Flv => "flv",
            Protocol::Relay => "relay",
        }
    }
}

/// What a session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It waits for the cluster's or the hub's answer before it may publish.
    AsksToPublish,
    /// It publishes.
    Publishes {
        /// The stream.
        stream: StreamId,
        /// The epoch under which it was accepted.
        epoch: Epoch,
    },
    /// It waits for a stream to play.
    AsksToPlay,
    /// It plays.
    Plays {
        /// The stream.
        stream: StreamId,
        /// Its cursor.
        subscriber: SubscriberId,
    },
}

/// What carries a session's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// A TCP connection that is the session (RTSP, HTTP-FLV, whatever this node dialled).
    Conn(ConnId),
    /// A message stream of an RTMP connection, which may have several.
    Message(ConnId, u32),
    /// A WebRTC session of the endpoint.
    Rtc(crate::rtc::SessionId),
    /// A WHEP request that waits for its stream; an HTTP connection may have several.
    Request(ConnId),
    /// A client of the websocket dialect that waits for its stream.
    Signal(SignalId),
    /// One pull on a link from another node.
    Pull(ConnId, u64),
}

impl Carrier {
    /// The connection that media goes over, where it is one that the session has to itself or shares with its like.
    pub fn conn(&self) -> Option<ConnId> {
        match self {
            Carrier::Conn(conn) | Carrier::Message(conn, _) => Some(*conn),
            _ => None,
        }
    }
}

/// One session. Its fields stand in this order in memory: what each frame touches lies together.
#[repr(C)]
#[derive(Clone, Debug)]
pub struct Session {
    /// Its number.
    pub id: SessionId,
    /// Media bytes to the peer.
    pub bytes_out: u64,
    /// When the first picture or sound went to a viewer.
    pub first_frame: Option<Time>,
    /// When it began.
    pub since: Time,
    /// How it reaches us.
    pub protocol: Protocol,
    /// What it does.
    pub part: Part,
    /// What carries it.
    pub carrier: Carrier,
    /// Media bytes from the peer.
    pub bytes_in: u64,
    /// The stream's name.
    pub key: StreamKey,
    /// Where the peer is.
    pub remote: Option<SocketAddr>,
    /// Round trip, where the protocol measures it.
    pub rtt_ms: Option<f64>,
    /// Share of packets lost (0 to 1), where the protocol measures it.
    pub loss: Option<f64>,
    /// The profile of SRTP that it and we agreed on, where it is WebRTC's and its path stands.
    pub srtp: Option<&'static str>,
    /// Its last numbers of WebRTC.
    pub rtc: Option<crate::rtc::SessionStats>,
    /// What became of a viewer's frames, once it has ended.
    pub frames: Option<SubscriberStats>,
    /// By which right it is here.
    pub grant: Grant,
    /// What the log said of it.
    pub story: Story,
    /// When the media that came last from a publisher is decoded, nanoseconds on its clock.
    pub last_dts: Option<i64>,
    /// How often a publisher wants key frames in its stream, where it said so.
    pub key_frames: Option<Duration>,
    /// The unguessable name of its resource (WHIP, WHEP).
    pub resource: Option<String>,
    /// The nodes that a publisher's stream came through.
    pub(in crate::node) via: Via,
}

impl Session {
    /// The name that logs, `ctl` and the API use, such as `rtmp-12`.
    pub fn name(&self) -> String {
        format!("{}-{}", self.protocol.name(), self.id.0)
    }

    /// Whether it is on a connection that this node dialled: a source that is pulled, or a destination that is pushed to.
    pub fn is_remote(&self) -> bool {
        matches!(self.carrier, Carrier::Conn(conn) if conn.is_dialled())
    }

    /// Whether it pushes the stream to another server.
    pub fn is_push(&self) -> bool {
        self.is_remote() && !self.is_publisher()
    }

    /// Whether it publishes or asks to.
    pub fn is_publisher(&self) -> bool {
        matches!(self.part, Part::AsksToPublish | Part::Publishes { .. })
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// What every frame needs to know of a session that plays.
#[derive(Clone, Copy, Debug)]
pub struct AtCursor {
    cursor: SubscriberId,
    /// The session.
    pub session: SessionId,
    /// What carries it.
    pub carrier: Carrier,
    /// The stream that it plays.
    pub stream: StreamId,
}

/// The sessions that play, by the slots of their cursors: every frame looks there for every viewer, and finds all that it needs
/// without a look at the session.
#[derive(Debug, Default)]
struct Cursors {
    slots: Vec<Option<AtCursor>>,
    taken: usize,
}

impl Cursors {
    fn get(&self, cursor: SubscriberId) -> Option<AtCursor> {
        self.slots.get(cursor.slot()).copied().flatten().filter(|plays| plays.cursor == cursor)
    }

    /// Whoever had the slot before is gone from the hub.
    fn insert(&mut self, plays: AtCursor) {
        let at = plays.cursor.slot();
        if self.slots.len() <= at {
            self.slots.resize(at + 1, None);
        }
        if let Some(slot) = self.slots.get_mut(at) {
            self.taken += usize::from(slot.is_none());
            *slot = Some(plays);
        }
    }

    fn remove(&mut self, cursor: SubscriberId) {
        if let Some(slot) = self.slots.get_mut(cursor.slot())
            && slot.is_some_and(|plays| plays.cursor == cursor)
        {
            *slot = None;
            self.taken -= 1;
        }
    }

    fn len(&self) -> usize {
        self.taken
    }
}

/// All sessions of a node, found by number, carrier, subscriber or resource.
#[derive(Debug, Default)]
pub struct Sessions {
    next: u64,
    /// From one number to the next.
    step: u64,
    all: Table<SessionId, Session>,
    by_carrier: BTreeMap<Carrier, SessionId>,
    by_subscriber: Cursors,
    by_resource: BTreeMap<String, SessionId>,
    /// The sessions that ended last, the newest last.
    ended: VecDeque<Ended>,
    keep: usize,
}

impl Sessions {
    /// None yet; the stories of the last `keep` that end are kept.
    pub fn keeping(keep: usize) -> Sessions {
        Sessions { keep, step: 1, ..Sessions::default() }
    }

    /// The same, with numbers that leave this rest when they are divided by `of`: those of several loops of one process, of
    /// which none has a number of another's.
    pub fn numbered(self, rest: usize, of: usize) -> Sessions {
        Sessions { next: rest as u64, step: of.max(1) as u64, ..self }
    }

    /// A session of this name that ended lately.
    pub fn ended(&self, name: &str) -> Option<&Ended> {
        self.ended.iter().rev().find(|e| e.session.name() == name)
    }

    /// A number that no session has or will have, for a source that is none (a pull).
    pub fn fresh(&mut self) -> SessionId {
        self.next += self.step;
        SessionId(self.next)
    }

    /// Adds a session and gives it its number.
    pub fn add(
        &mut self,
        protocol: Protocol,
        part: Part,
        key: StreamKey,
        remote: Option<SocketAddr>,
        carrier: Carrier,
        now: Time,
    ) -> SessionId {
        let id = self.fresh();
        self.by_carrier.insert(carrier, id);
        self.all.insert(
            id,
            Session {
                id,
                protocol,
                part,
                key,
                remote,
                carrier,
                since: now,
                bytes_in: 0,
                bytes_out: 0,
                first_frame: None,
                rtt_ms: None,
                loss: None,
                srtp: None,
                rtc: None,
                frames: None,
                grant: Grant::default(),
                story: Story::default(),
                last_dts: None,
                key_frames: None,
                resource: None,
                via: Via::default(),
            },
        );
        id
    }

    /// Gives a session the name of its HTTP resource.
    pub fn name_resource(&mut self, id: SessionId, resource: String) {
        if let Some(s) = self.all.get_mut(&id) {
            s.resource = Some(resource.clone());
            self.by_resource.insert(resource, id);
        }
    }

    /// Says what carries a session from now on.
    pub fn set_carrier(&mut self, id: SessionId, carrier: Carrier) {
        let Some(s) = self.all.get_mut(&id) else { return };
        if self.by_carrier.get(&s.carrier) == Some(&id) {
            self.by_carrier.remove(&s.carrier);
        }
        s.carrier = carrier;
        self.by_carrier.insert(carrier, id);
        if let Part::Plays { stream, subscriber: cursor } = s.part {
            self.by_subscriber.insert(AtCursor { cursor, session: id, carrier, stream });
        }
    }

    /// Says what a session does now.
    pub fn set_part(&mut self, id: SessionId, part: Part) {
        let Some(s) = self.all.get_mut(&id) else { return };
        if let Part::Plays { subscriber, .. } = s.part {
            self.by_subscriber.remove(subscriber);
        }
        if let Part::Plays { stream, subscriber: cursor } = part {
            self.by_subscriber.insert(AtCursor { cursor, session: id, carrier: s.carrier, stream });
        }
        s.part = part;
    }

    /// Removes a session; its story is kept for a while.
    pub fn remove(&mut self, id: SessionId, now: Time) -> Option<Session> {
        let s = self.all.remove(&id)?;
        if self.by_carrier.get(&s.carrier) == Some(&id) {
            self.by_carrier.remove(&s.carrier);
        }
        if let Part::Plays { subscriber, .. } = s.part {
            self.by_subscriber.remove(subscriber);
        }
        if let Some(resource) = &s.resource {
            self.by_resource.remove(resource);
        }
        if self.keep > 0 {
            while self.ended.len() >= self.keep {
                self.ended.pop_front();
            }
            // Who knows a resource's name may end its session; a story is for everybody.
            self.ended.push_back(Ended { session: Session { resource: None, ..s.clone() }, at: now });
        }
        Some(s)
    }

    /// A session by number.
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.all.get(&id)
    }

    /// A session by number.
    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.all.get_mut(&id)
    }

    /// The session that something carries.
    pub fn on(&self, carrier: Carrier) -> Option<SessionId> {
        self.by_carrier.get(&carrier).copied()
    }

    /// The sessions that a connection is or carries (not those of HTTP requests and of pulls).
    pub fn of_conn(&self, conn: ConnId) -> Vec<SessionId> {
        let messages = self.by_carrier.range(Carrier::Message(conn, 0)..=Carrier::Message(conn, u32::MAX));
        self.on(Carrier::Conn(conn)).into_iter().chain(messages.map(|(_, id)| *id)).collect()
    }

    /// Does something with each of [`Sessions::of_conn`].
    pub fn each_of_conn(&mut self, conn: ConnId, mut f: impl FnMut(&mut Session)) {
        let messages = self.by_carrier.range(Carrier::Message(conn, 0)..=Carrier::Message(conn, u32::MAX));
        let own = self.by_carrier.get(&Carrier::Conn(conn));
        for id in own.into_iter().chain(messages.map(|(_, id)| id)) {
            if let Some(s) = self.all.get_mut(id) {
                f(s);
            }
        }
    }

    /// The session behind a cursor.
    pub fn of_subscriber(&self, subscriber: SubscriberId) -> Option<SessionId> {
        self.at_cursor(subscriber).map(|plays| plays.session)
    }

    /// As [`Sessions::of_subscriber`], with what carries the session and what it plays.
    pub fn at_cursor(&self, subscriber: SubscriberId) -> Option<AtCursor> {
        self.by_subscriber.get(subscriber)
    }

    /// The session behind an HTTP resource.
    pub fn of_resource(&self, resource: &str) -> Option<SessionId> {
        self.by_resource.get(resource).copied()
    }

    /// The session with a name such as `rtmp-12`.
    pub fn named(&self, name: &str) -> Option<&Session> {
        let (_, number) = name.rsplit_once('-')?;
        self.all.get(&SessionId(number.parse().ok()?)).filter(|s| s.name() == name)
    }

    /// All sessions in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.all.values()
    }

    /// Whether the tables by carrier, cursor and resource name exactly the sessions that there are.
    ///
    /// # Errors
    /// S7, with what does not fit.
    pub fn verify(&self) -> Result<(), Broken> {
        let (mut cursors, mut resources) = (0, 0);
        for s in self.all.values() {
            // Requests on one connection may follow each other; the latest counts.
            let carried = matches!(s.carrier, Carrier::Request(_)) || self.on(s.carrier) == Some(s.id);
            Broken::unless(carried, "S7", || {
                format!("session {s}: its carrier is {:?}'s", self.on(s.carrier))
            })?;
            if let Part::Plays { stream, subscriber } = s.part {
                cursors += 1;
                let of = self.at_cursor(subscriber);
                let own =
                    of.is_some_and(|of| of.session == s.id && of.carrier == s.carrier && of.stream == stream);
                Broken::unless(own, "S7", || format!("session {s}: at its cursor is {of:?}"))?;
            }
            if let Some(resource) = &s.resource {
                resources += 1;
                let of = self.of_resource(resource);
                Broken::unless(of == Some(s.id), "S7", || format!("session {s}: its resource is {of:?}'s"))?;
            }
        }
        let n = self.all.len();
        let gone = self.by_carrier.values().find(|id| !self.all.contains_key(id));
        Broken::unless(gone.is_none(), "S7", || {
            format!("a carrier of session {gone:?}, which is gone; {n} are left")
        })?;
        let got = (self.by_subscriber.len(), self.by_resource.len());
        Broken::unless(got == (cursors, resources), "S7", || {
            format!("cursors and resources in the tables: {got:?}, of sessions: {:?}", (cursors, resources))
        })
    }

    /// How many numbers were given so far.
    pub fn given(&self) -> u64 {
        self.next
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
