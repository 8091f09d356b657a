//! Clients of the websocket dialect: what they ask for becomes sessions of this node, and what happens to those is told.

use super::authority::{Asker, Then};
use super::session::{Carrier, Part, Protocol, Session, SessionId};
use super::{Alarm, Node};
use crate::auth::credentials::Credentials;
use crate::auth::secret::Secret;
use crate::auth::{Action, Decision, From, Grant};
use crate::cluster::member::{self, Source};
use crate::error::{Reason, quote};
use crate::guard::guard;
use crate::http::message::{Request, Response};
use crate::http::websocket::code;
use crate::hub::{self, StreamId};
use crate::io::{ConnId, Level};
use crate::machine::Machine;
use crate::media::frame::{FrameKind, Ingest, NewFrame, Rotation};
use crate::media::key::StreamKey;
use crate::media::track::{Codec, CodecSet, TrackId};
use crate::rtc;
use crate::signalling::{About, Dialect, Input, Output, Way};
use crate::time::Deadline;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A client of the dialect, numbered by the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SignalId(pub u64);

/// One client.
struct Signal {
    dialect: Dialect,
    /// The scope in the path of its websocket.
    app: String,
    conn: Option<ConnId>,
    remote: SocketAddr,
    /// What it showed so far.
    asker: Asker,
    /// The address that it dialled.
    asked: IpAddr,
    session: Option<SessionId>,
    /// Finds the stream that a viewer wants to switch to.
    scout: Option<SessionId>,
    /// Our answer to a publisher, as long as its name is being claimed.
    answer: Option<String>,
    /// What a viewer's session waits for: an offer (with data channels), or only to know whether the stream is there.
    wants_offer: Option<bool>,
}

/// All clients of the dialect.
#[derive(Default)]
pub(super) struct Signals {
    next: u64,
    all: BTreeMap<SignalId, Signal>,
    by_conn: BTreeMap<ConnId, SignalId>,
    by_session: BTreeMap<SessionId, SignalId>,
    /// Questions to the cluster whether a publisher has a name, by number.
    by_req: BTreeMap<u64, SignalId>,
    dirty: BTreeSet<SignalId>,
}

impl Signals {
    fn add(&mut self, signal: Signal) -> SignalId {
        self.next += 1;
        let id = SignalId(self.next);
        if let Some(conn) = signal.conn {
            self.by_conn.insert(conn, id);
        }
        if let Some(session) = signal.session {
            self.by_session.insert(session, id);
        }
        self.all.insert(id, signal);
        id
    }

    /// How many there are, and whether their tables agree.
    pub(super) fn audit(&self) -> (usize, bool) {
        let conns = self.all.values().filter(|s| s.conn.is_some()).count();
        let of = |s: &Signal| usize::from(s.session.is_some()) + usize::from(s.scout.is_some());
        let sessions: usize = self.all.values().map(of).sum();
        let lost = self.all.values().any(|s| s.conn.is_none() && s.session.is_none());
        let agree = conns == self.by_conn.len() && sessions == self.by_session.len() && !lost;
        (self.all.len(), agree && self.dirty.is_empty())
    }

    /// Questions to the cluster that are not answered yet.
    pub(super) fn asked(&self) -> usize {
        self.by_req.len()
    }

    /// Whether such a client has this session.
    pub(super) fn has(&self, id: SignalId, session: SessionId) -> bool {
        self.all.get(&id).is_some_and(|s| [s.session, s.scout].contains(&Some(session)))
    }

    /// Whether there is such a client.
    pub(super) fn contains(&self, id: SignalId) -> bool {
        self.all.contains_key(&id)
    }
}

impl Node {
    /// A websocket is asked for: `/{scope…}/?id=…` is one of the dialect. Whether it was.
    pub(super) fn signal_asked(&mut self, conn: ConnId, request: &Request) -> bool {
        let Some(id) = request.query("id").filter(|id| !id.is_empty()) else { return false };
        let app = request.path.trim_matches('/').to_owned();
        let Some((remote, asked)) = self.conns.get(&conn).map(|c| (c.remote, c.local.map(|l| l.ip()))) else {
            return true;
        };
        if let Err(text) = StreamKey::join(&app, "name") {
            self.respond(conn, Response::text(404, text));
            return true;
        }
        let mut asker = self.asker_of(conn, request);
        let subprotocol = subprotocol(request, &mut asker);
        if !self.may_connect(conn, request, &app, &id, &asker) {
            return true;
        }
        self.socket_accept(conn, subprotocol);
        let dialect = Dialect::new(self.limits.clone(), &id, self.now);
        let asked = asked.unwrap_or(self.advertised.public);
        let signal = Signal {
            dialect,
            app,
            conn: Some(conn),
            remote,
            asker,
            asked,
            session: None,
            scout: None,
            answer: None,
            wants_offer: None,
        };
        let id = self.signals.add(signal);
        self.tell_signal(id, Input::Opened);
        true
    }

    /// A message came on a websocket. Whether the websocket is one of the dialect.
    pub(super) fn signal_text(&mut self, conn: ConnId, text: &str) -> bool {
        let Some(id) = self.signals.by_conn.get(&conn).copied() else { return false };
        self.tell_signal(id, Input::Text { way: Way::Socket, text });
        true
    }

    /// A websocket ended. Whether it was one of the dialect.
    pub(super) fn signal_socket_ended(&mut self, conn: ConnId) -> bool {
        let Some(id) = self.signals.by_conn.remove(&conn) else { return false };
        if let Some(signal) = self.signals.all.get_mut(&id) {
            signal.conn = None;
        }
        self.tell_signal(id, Input::SocketClosed);
        true
    }

    /// A session's data channel opened, said something, or closed.
    pub(super) fn signal_channel(&mut self, session: SessionId, event: &rtc::PeerEvent) {
        use rtc::PeerEvent as E;
        if !self.signals.by_session.contains_key(&session) && matches!(event, E::ChannelOpened) {
            return self.borrow_session(session);
        }
        let Some(id) = self.signals.by_session.get(&session).copied() else { return };
        match event {
            E::ChannelOpened => self.tell_signal(id, Input::ChannelOpened),
            E::ChannelText(text) => self.tell_signal(id, Input::Text { way: Way::Channel, text }),
            E::ChannelClosed => self.tell_signal(id, Input::ChannelClosed),
            _ => {}
        }
    }

    /// A client of WHIP or WHEP opened the data channel of the dialect.
    fn borrow_session(&mut self, session: SessionId) {
        let Some(s) = self.sessions.get(session) else { return };
        let (publishes, key) = (s.is_publisher(), &s.key);
        let dialect = Dialect::over_channel(self.limits.clone(), publishes, key.name(), self.now);
        let remote = s.remote.unwrap_or(SocketAddr::new(self.advertised.public, 0));
        let signal = Signal {
            dialect,
            app: key.app().to_owned(),
            conn: None,
            remote,
            asker: Asker {
                credentials: Credentials::default(),
                key: None,
                from: From { ip: remote.ip(), local: false, secure: true },
                protocol: "ws",
                query: Secret::default(),
            },
            asked: remote.ip(),
            session: Some(session),
            scout: None,
            answer: None,
            wants_offer: None,
        };
        self.signals.add(signal);
    }

    /// Tells a client's machine something, and does what it says when the turn settles.
    fn tell_signal(&mut self, id: SignalId, input: Input<'_>) {
        let now = self.now;
        let Some(signal) = self.signals.all.get_mut(&id) else { return };
        let told = guard(|| signal.dialect.handle(input, now));
        self.signals.dirty.insert(id);
        if let Err(reason) = told {
            self.drop_signal(id, &reason);
        }
    }

    /// A client's machine is done for.
    fn drop_signal(&mut self, id: SignalId, reason: &Reason) {
        self.timers.cancel(&Alarm::Signal(id));
        let Some(signal) = self.signals.all.remove(&id) else { return };
        self.signals.dirty.remove(&id);
        if let Some(conn) = signal.conn {
            self.signals.by_conn.remove(&conn);
            self.socket_close(conn, code::INTERNAL, &reason.text);
        }
        for session in [signal.session, signal.scout].into_iter().flatten() {
            self.signals.by_session.remove(&session);
            self.end_session(session, reason);
        }
    }

    /// Does what the clients' machines said. Whether there was anything.
    pub(super) fn settle_signals(&mut self) -> bool {
        let mut any = false;
        while let Some(id) = self.signals.dirty.pop_first() {
            any = true;
            while let Some(said) = self.signals.all.get_mut(&id).and_then(|s| s.dialect.poll()) {
                self.signal_said(id, said);
            }
            let Some(signal) = self.signals.all.get(&id) else { continue };
            if signal.conn.is_none() && signal.session.is_none() {
                self.signals.all.remove(&id);
                self.timers.cancel(&Alarm::Signal(id));
            } else {
                self.timers.update(Alarm::Signal(id), signal.dialect.deadline());
            }
        }
        any
    }

    /// A client's machine has something due.
    pub(super) fn tick_signal(&mut self, id: SignalId) {
        self.tell_signal(id, Input::Tick);
    }

    fn signal_said(&mut self, id: SignalId, said: Output) {
        match said {
            Output::Say { way, text } => self.say(id, way, &text),
            Output::CloseSocket(reason) => {
                let conn = self.signals.all.get_mut(&id).and_then(|s| s.conn.take());
                if let Some(conn) = conn {
                    self.signals.by_conn.remove(&conn);
                    self.socket_close(conn, code::NORMAL, &reason.text);
                }
            }
            Output::Shown(credentials) => {
                if let Some(signal) = self.signals.all.get_mut(&id) {
                    signal.asker.credentials = credentials;
                }
            }
            Output::AskName(_)
            | Output::Publish { .. }
            | Output::Find(_)
            | Output::Offer { .. }
            | Output::Switch(_) => self.signal_wants(id, said),
            Output::Answer(sdp) => self.signal_answers(id, &sdp),
            Output::Start => {
                let session = self.signals.all.get(&id).and_then(|s| s.session);
                let key = session.and_then(|s| self.sessions.get(s)).map(|s| s.key.clone());
                let about = key.and_then(|k| self.hub.find(&k)).map(|s| self.about(s));
                self.tell_signal(id, Input::Started(about.unwrap_or_default()));
            }
            Output::KeyFrames(every) => {
                if let Some(session) = self.signals.all.get(&id).and_then(|s| s.session) {
                    self.key_frames_every(session, every);
                }
            }
            Output::Data(payload) => {
                if let Some(session) = self.signals.all.get(&id).and_then(|s| s.session) {
                    self.publisher_data(session, payload);
                }
            }
            Output::End(reason) => {
                if let Some(session) = self.signals.all.get(&id).and_then(|s| s.session) {
                    self.end_session(session, &reason);
                }
            }
            Output::Log(level, text) => {
                let Some(signal) = self.signals.all.get(&id) else { return };
                match signal.session {
                    Some(session) => self.log_session(level, session, "signalling", text),
                    None => {
                        let text = format!("{}: {text}", signal.remote);
                        self.log(level, "ws", "signalling", text);
                    }
                }
            }
        }
    }

    /// The cluster answered whether a publisher has a name. Whether it was asked for a client of the dialect.
    pub(super) fn signal_located(&mut self, req: u64, result: &Result<Source, Reason>, live: bool) -> bool {
        let Some(id) = self.signals.by_req.remove(&req) else { return false };
        // What is here was looked at here.
        let taken = live && result.as_ref().is_ok_and(|source| source.node != self.id);
        self.tell_signal(id, Input::Available(taken));
        true
    }

    /// A client wants to publish or play, or to know whether it could: once it is sure that it may.
    fn signal_wants(&mut self, id: SignalId, said: Output) {
        let (action, name) = match &said {
            Output::AskName(name) | Output::Publish { name, .. } => (Action::Publish, name),
            Output::Find(name) | Output::Offer { name, .. } | Output::Switch(name) => (Action::Play, name),
            _ => return,
        };
        let Some(mut asker) = self.signals.all.get(&id).map(|s| s.asker.clone()) else { return };
        let key = match &said {
            Output::Switch(path) => StreamKey::parse(path.trim_start_matches('/'))
                .map_err(|text| Reason::peer("bad_stream_name", text)),
            _ => self.signal_key(id, name),
        };
        let key = match (key, action) {
            (Ok(key), Action::Publish) => Ok(self.named_by(key, &mut asker)),
            (found, _) => found,
        };
        let grant = match &key {
            Ok(given) => match self.decide(action, Some(given), &asker) {
                Decision::Allow(grant) => grant,
                Decision::Refuse(refusal) => return self.signal_not_permitted(id, &refusal.reason),
                Decision::Pending(pending) => return self.verify_then(pending, Then::Signal(id, said)),
            },
            Err(_) => Grant::default(),
        };
        let key = key.map(|given| grant.stream.clone().unwrap_or(given));
        match said {
            Output::AskName(_) => {
                let identity = grant.identity.name();
                match key {
                    Ok(key) if self.may_publish(&key, &identity).is_ok() => {
                        // Here it is free; the manager knows of the other nodes.
                        let req = self.next_req();
                        self.signals.by_req.insert(req, id);
                        self.member.handle(member::Input::Locate { req, key, direct: true }, self.now);
                    }
                    result => self.tell_signal(id, Input::Available(result.is_ok())),
                }
            }
            Output::Publish { sdp, .. } => {
                if let Err(reason) = key.and_then(|key| self.signal_publishes(id, key, &sdp, grant)) {
                    self.counters.ended_as("ws", &reason);
                    self.tell_signal(id, Input::Failed(&reason));
                }
            }
            Output::Offer { channel, .. } => self.signal_plays(id, key, Some(channel), grant),
            Output::Switch(_) => self.signal_switches(id, key, grant),
            _ => self.signal_plays(id, key, None, grant),
        }
    }

    /// What a client wanted is done, now that its password was verified.
    pub(super) fn signal_again(&mut self, id: SignalId, said: Output) {
        if self.signals.contains(id) {
            self.signal_wants(id, said);
        }
    }

    /// A client may not have what it wanted.
    pub(super) fn signal_not_permitted(&mut self, id: SignalId, reason: &Reason) {
        let Some(signal) = self.signals.all.get(&id) else { return };
        let text = format!("client {} of {} refused: {reason}", signal.remote, quote(&signal.app));
        let switching = signal.dialect.is_switching();
        self.log(Level::Warn, "ws", reason.code, text);
        if switching {
            return self.tell_signal(id, Input::Switched(Err(reason)));
        }
        self.counters.ended_as("ws", reason);
        self.tell_signal(id, Input::Rejected(reason));
    }

    /// Whether a client whose websocket is asked for may come in as far as that can be known: whoever shows something that is
    /// good for neither publishing nor playing under this id is told at once. A viewer's id is not its stream's name, so
    /// that it is seen only when it asks for one.
    pub(super) fn may_connect(
        &mut self,
        conn: ConnId,
        request: &Request,
        app: &str,
        id: &str,
        asker: &Asker,
    ) -> bool {
        let Ok(key) = StreamKey::join(app, id) else { return true };
        // The callback is asked for what is done, not for what might be.
        if self.authority.policy.asks_outside(Action::Publish)
            || self.authority.policy.asks_outside(Action::Play)
        {
            return true;
        }
        if !self.authority.policy.is_on() || asker.credentials.is_empty() || id.starts_with("subscriber-") {
            return true;
        }
        let mut asker = asker.clone();
        let public = self.named_by(key.clone(), &mut asker);
        let mut refused = None;
        for (action, key) in [(Action::Publish, &public), (Action::Play, &key)] {
            match self.decide(action, Some(key), &asker) {
                Decision::Allow(_) => return true,
                Decision::Refuse(refusal) => _ = refused.get_or_insert(refusal),
                Decision::Pending(pending) => {
                    self.verify_then(pending, Then::Socket(conn, request.clone()));
                    return false;
                }
            }
        }
        let Some(refusal) = refused else { return true };
        let remote = self.conns.get(&conn).map(|c| c.remote.to_string()).unwrap_or_default();
        let text = format!("client {remote} of {} refused: {}", quote(app), refusal.reason);
        self.log(Level::Warn, "ws", refusal.reason.code, text);
        self.counters.ended_as("ws", &refusal.reason);
        self.socket_accept(conn, None);
        self.socket_send(conn, &crate::signalling::rejected());
        self.socket_close(conn, code::POLICY, &refusal.reason.text);
        false
    }

    fn say(&mut self, id: SignalId, way: Way, text: &str) {
        let Some(signal) = self.signals.all.get(&id) else { return };
        match way {
            Way::Socket => {
                if let Some(conn) = signal.conn {
                    self.socket_send(conn, text);
                }
            }
            Way::Channel => {
                let carrier = signal.session.and_then(|s| self.sessions.get(s)).map(|s| s.carrier);
                if let Some(Carrier::Rtc(session)) = carrier {
                    self.rtc.handle(rtc::Input::Say { session, text }, self.now);
                }
            }
        }
    }

    fn signal_key(&self, id: SignalId, name: &str) -> Result<StreamKey, Reason> {
        let app = self.signals.all.get(&id).map_or("", |s| s.app.as_str());
        StreamKey::join(app, name).map_err(|text| Reason::peer("bad_stream_name", text))
    }

    /// A client's session begins.
    fn signal_session(&mut self, id: SignalId, part: Part, key: StreamKey, carrier: Carrier) -> SessionId {
        let remote = self.signals.all.get(&id).map(|s| s.remote);
        let session = self.sessions.add(Protocol::Ws, part, key, remote, carrier, self.now);
        if let Some(signal) = self.signals.all.get_mut(&id) {
            signal.session = Some(session);
            self.signals.by_session.insert(session, id);
        }
        session
    }

    /// A client got more than words: its websocket no longer counts as idle.
    fn signal_is_used(&mut self, id: SignalId) {
        if let Some(conn) = self.signals.all.get(&id).and_then(|s| s.conn) {
            self.conn_is_used(conn);
        }
    }

    fn signal_publishes(
        &mut self,
        id: SignalId,
        key: StreamKey,
        sdp: &str,
        grant: Grant,
    ) -> Result<(), Reason> {
        self.may_publish(&key, &grant.identity.name())?;
        let Some(signal) = self.signals.all.get(&id) else { return Ok(()) };
        let candidates = self.advertised.candidates(signal.asked, self.config.webrtc.port);
        let remote = signal.remote;
        let (rtc, answer) = self.rtc_publish(sdp, &candidates, Some(remote))?;
        let session = self.signal_session(id, Part::AsksToPublish, key, Carrier::Rtc(rtc));
        self.grant(session, grant);
        self.signal_is_used(id);
        if let Some(signal) = self.signals.all.get_mut(&id) {
            signal.answer = Some(answer);
        }
        self.claim(session);
        Ok(())
    }

    /// A publisher's name was claimed, or not. Whether it is a client of the dialect.
    pub(super) fn answer_signal(&mut self, session: SessionId, result: Result<(), &Reason>) -> bool {
        let Some(id) = self.signals.by_session.get(&session).copied() else { return false };
        let Some(signal) = self.signals.all.get_mut(&id) else { return false };
        let answer = signal.answer.take();
        match result {
            Ok(()) => {
                let candidates = self.advertised.candidates(signal.asked, self.config.webrtc.port);
                let sdp = answer.unwrap_or_default();
                let candidates = self.rtc.candidate_lines(&candidates);
                self.tell_signal(id, Input::Described { sdp: &sdp, candidates: &candidates });
            }
            Err(reason) => {
                signal.session = None;
                self.signals.by_session.remove(&session);
                self.tell_signal(id, Input::Failed(reason));
            }
        }
        true
    }

    fn signal_plays(
        &mut self,
        id: SignalId,
        key: Result<StreamKey, Reason>,
        wants_offer: Option<bool>,
        grant: Grant,
    ) {
        match self.no_room().map_or(key, Err) {
            Ok(key) => {
                if let Some(signal) = self.signals.all.get_mut(&id) {
                    signal.wants_offer = wants_offer;
                }
                let session = self.signal_session(id, Part::AsksToPlay, key, Carrier::Signal(id));
                self.grant(session, grant);
                self.find_stream(session);
            }
            Err(reason) if wants_offer.is_some() => self.tell_signal(id, Input::Failed(&reason)),
            Err(_) => self.tell_signal(id, Input::Available(false)),
        }
    }

    /// A viewer's stream cannot be had: it is told so, and may ask for another.
    pub(super) fn signal_refused(&mut self, id: SignalId, session: SessionId, reason: &Reason) {
        self.signals.by_session.remove(&session);
        let Some(signal) = self.signals.all.get_mut(&id) else { return };
        if signal.scout.take_if(|scout| *scout == session).is_some() {
            return self.tell_signal(id, Input::Switched(Err(reason)));
        }
        signal.session = None;
        match signal.wants_offer {
            Some(_) => self.tell_signal(id, Input::Failed(reason)),
            None => self.tell_signal(id, Input::Available(false)),
        }
    }

    /// A viewer's stream is here: it is told so, or gets its offer.
    pub(super) fn start_signal(
        &mut self,
        id: SignalId,
        session: SessionId,
        stream: StreamId,
    ) -> Result<(), Reason> {
        let Some(signal) = self.signals.all.get_mut(&id) else {
            return Err(Reason::local("no_carrier", "the viewer is gone"));
        };
        if signal.scout.take_if(|scout| *scout == session).is_some() {
            self.signals.by_session.remove(&session);
            self.timers.cancel(&Alarm::Expires(session));
            let found = self.sessions.remove(session, self.now);
            let switched = found.map(|s| self.switch_viewer(id, stream, s)).unwrap_or(Ok(()));
            if let Err(reason) = switched {
                self.tell_signal(id, Input::Switched(Err(&reason)));
            }
            return Ok(());
        }
        let Some(channel) = signal.wants_offer else {
            // It only wanted to know.
            signal.session = None;
            self.signals.by_session.remove(&session);
            self.timers.cancel(&Alarm::Expires(session));
            if let Some(s) = self.sessions.remove(session, self.now) {
                self.pulls.touch(&s.key);
            }
            self.tell_signal(id, Input::Available(true));
            return Ok(());
        };
        let (from, asked) = (signal.remote.ip(), signal.asked);
        let candidates = self.advertised.candidates(asked, self.config.webrtc.port);
        self.playable(stream, rtc::codecs::CARRIED)?;
        let tracks = self.tracks_for(stream, rtc::codecs::CARRIED);
        let playing = self.rtc.offer(from, &candidates, &tracks, channel, self.now)?;
        self.expect_viewer(stream, playing.takes);
        self.sessions.set_carrier(session, Carrier::Rtc(playing.session));
        self.signal_is_used(id);
        if let Some(key) = self.hub.key(stream).cloned() {
            self.joining.insert(session, (key, playing.takes.with_data()));
        }
        let candidates = self.rtc.candidate_lines(&candidates);
        self.tell_signal(id, Input::Described { sdp: &playing.answer, candidates: &candidates });
        Ok(())
    }

    /// A viewer wants to go on with another stream: a session of its own finds that, while the first plays on.
    fn signal_switches(&mut self, id: SignalId, key: Result<StreamKey, Reason>, grant: Grant) {
        let Some(remote) = self.signals.all.get(&id).map(|s| s.remote) else { return };
        let key = match key {
            Ok(key) => key,
            Err(reason) => return self.tell_signal(id, Input::Switched(Err(&reason))),
        };
        let carrier = Carrier::Signal(id);
        let scout = self.sessions.add(Protocol::Ws, Part::AsksToPlay, key, Some(remote), carrier, self.now);
        if let Some(signal) = self.signals.all.get_mut(&id) {
            signal.scout = Some(scout);
            self.signals.by_session.insert(scout, id);
        }
        self.grant(scout, grant);
        self.find_stream(scout);
    }

    /// The stream that a viewer wants to switch to was found.
    fn switch_viewer(&mut self, id: SignalId, stream: StreamId, found: Session) -> Result<(), Reason> {
        let session = self.signals.all.get(&id).and_then(|s| s.session);
        let plays = session.and_then(|s| self.sessions.get(s)).map(|s| (s.id, s.part, s.carrier));
        let Some((session, Part::Plays { stream: before, subscriber }, Carrier::Rtc(rtc))) = plays else {
            return Err(Reason::peer("not_playing", "nothing plays yet; switch once it does"));
        };
        let about = self.about(stream);
        if before == stream {
            self.tell_signal(id, Input::Switched(Ok((found.key.name(), about))));
            return Ok(());
        }
        let accepts = self.hub.accepts(subscriber).unwrap_or(CodecSet::NONE);
        let tracks = self.hub.tracks(stream);
        let strange = |c: &Codec| c.is_video() && !accepts.has(*c);
        if let Some(codec) = tracks.iter().map(|(_, c)| c.params.codec()).find(strange) {
            let text = format!(
                "the pictures of {} are {}, which this session was not set up for; open another session",
                found.key,
                codec.name()
            );
            return Err(Reason::peer("codec_not_negotiated", text));
        }
        self.rtc.switch(rtc, self.now)?;
        let next = self.hub.subscribe(stream, accepts, self.now)?;
        self.hub.unsubscribe(subscriber);
        self.timers.cancel(&Alarm::Pump(subscriber));
        self.timers.cancel(&Alarm::Expires(session));
        self.bridges.touch(before);
        let text = format!("goes over to {}", found.key);
        self.log_session(Level::Info, session, "switched", text);
        if let Some(s) = self.sessions.get_mut(session) {
            let key = std::mem::replace(&mut s.key, found.key.clone());
            self.touch_viewers(&key);
        }
        if let Some(signal) = self.signals.all.get_mut(&id) {
            found.key.app().clone_into(&mut signal.app);
        }
        self.grant(session, found.grant);
        self.expect_viewer(stream, accepts);
        self.tell_signal(id, Input::Switched(Ok((found.key.name(), about))));
        self.viewer_joined(session, stream, next);
        Ok(())
    }

    fn signal_answers(&mut self, id: SignalId, sdp: &str) {
        let Some(session) = self.signals.all.get(&id).and_then(|s| s.session) else { return };
        let Some(Carrier::Rtc(rtc)) = self.sessions.get(session).map(|s| s.carrier) else { return };
        match self.rtc.answer(rtc, sdp, self.now) {
            Ok(()) => self.tell_signal(id, Input::AnswerTaken),
            Err(reason) => {
                self.tell_signal(id, Input::Failed(&reason));
                self.end_session(session, &reason);
            }
        }
    }

    fn about(&self, stream: StreamId) -> About {
        let tracks = self.hub.tracks(stream);
        let video = tracks.iter().find(|(_, c)| c.params.codec().is_video());
        About {
            video: video.is_some(),
            audio: tracks.iter().any(|(_, c)| !c.params.codec().is_video()),
            size: video.and_then(|(_, c)| c.params.size()),
        }
    }

    /// Data of a publisher takes its place behind the frame that came last.
    fn publisher_data(&mut self, session: SessionId, payload: Bytes) {
        let Some(at) = self.sessions.get(session).and_then(|s| s.last_dts) else {
            self.counters.drop("frame", "data_before_media", 1);
            return;
        };
        let frame = NewFrame {
            track: TrackId::DATA,
            dts: at,
            pts: at,
            kind: FrameKind::Data,
            discardable: false,
            temporal_layer: 0,
            rotation: Rotation::R0,
            capture: None,
            payload,
        };
        self.ingest(session, Ingest::Frame(frame));
    }

    /// Data of its stream reaches a viewer. Whether it is a client of the dialect.
    pub(super) fn signal_data(&mut self, session: SessionId, payload: &[u8]) {
        match self.signals.by_session.get(&session).copied() {
            Some(id) => self.tell_signal(id, Input::Data(payload)),
            None => self.counters.drop("frame", "no_data_channel", 1),
        }
    }

    /// A session is about to end: its client is told why.
    pub(super) fn signal_session_over(&mut self, session: SessionId, reason: &Reason) {
        self.timers.cancel(&Alarm::KeyFrames(session));
        let Some(id) = self.signals.by_session.get(&session).copied() else { return };
        let scout = self.signals.all.get_mut(&id).and_then(|s| s.scout.take());
        if let Some(scout) = scout {
            self.signals.by_session.remove(&scout);
            if scout == session {
                return self.tell_signal(id, Input::Switched(Err(reason)));
            }
            self.end_session(scout, reason);
        }
        if reason.code == hub::SOURCE_GONE {
            self.tell_signal(id, Input::Unpublished);
        }
        self.tell_signal(id, Input::Ended(reason));
        // While its channel is still there.
        while let Some(said) = self.signals.all.get_mut(&id).and_then(|s| s.dialect.poll()) {
            if let Output::Say { .. } | Output::CloseSocket(_) | Output::Log(..) = said {
                self.signal_said(id, said);
            }
        }
        self.signals.by_session.remove(&session);
        if let Some(signal) = self.signals.all.get_mut(&id) {
            signal.session = None;
        }
    }

    fn key_frames_every(&mut self, session: SessionId, every: Duration) {
        let Some(s) = self.sessions.get_mut(session) else { return };
        s.key_frames = Some(every);
        self.timers
            .set(Alarm::KeyFrames(session), Deadline::new(self.now + every, "a key frame, as asked for"));
    }

    /// The next of the key frames that a publisher wants in its stream.
    pub(super) fn key_frame_due(&mut self, session: SessionId) {
        let Some(s) = self.sessions.get(session) else { return };
        let (Carrier::Rtc(rtc), Some(every)) = (s.carrier, s.key_frames) else { return };
        self.rtc.handle(rtc::Input::RequestKeyFrame { session: rtc, track: None }, self.now);
        self.key_frames_every(session, every);
    }
}

/// The subprotocol of pages that show a token with the handshake, which no page may give a header of its own: they offer
/// [`SUBPROTOCOL`] and `token.` with the token after it.
const SUBPROTOCOL: &str = "headwater";

fn subprotocol(request: &Request, asker: &mut Asker) -> Option<&'static str> {
    let offered: Vec<&str> = request.header("sec-websocket-protocol")?.split(',').map(str::trim).collect();
    let token = offered.iter().find_map(|o| o.strip_prefix("token."));
    if let Some(token) = token.filter(|t| !t.is_empty()) {
        asker.credentials.token = Some(Secret::new(token));
    }
    offered.contains(&SUBPROTOCOL).then_some(SUBPROTOCOL)
}
