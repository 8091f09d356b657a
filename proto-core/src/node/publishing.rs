//! From a publisher's wish to its frames in the hub: ask the cluster for the name, take it, feed the stream, let go.

use super::authority::Asker;
use super::remote::Via;
use super::session::{Carrier, Part, Protocol, Session, SessionId};
use super::{Alarm, Node};
use crate::cluster::Epoch;
use crate::cluster::member;
use crate::error::Reason;
use crate::guard::must;
use crate::hub::{self, SourceId, StreamId, StreamState};
use crate::io::Level;
use crate::machine::Machine;
use crate::media::frame::Ingest;
use crate::media::key::StreamKey;
use crate::rtc;
use crate::rtmp;
use crate::rtsp;
use std::net::SocketAddr;
use std::time::Duration;

/// Resources of sessions that ended lately.
const ENDED_RESOURCES: usize = 1_000;

impl Node {
    /// A client of a protocol whose connection is the session, or carries it, asked to publish.
    pub(super) fn conn_publish(
        &mut self,
        protocol: Protocol,
        carrier: Carrier,
        key: StreamKey,
        mut asker: Asker,
        via: Via,
    ) {
        let Some(conn) = carrier.conn() else { return };
        let Some(remote) = self.conns.get(&conn).map(|c| c.remote) else { return };
        let key = self.named_by(key, &mut asker);
        let announced = self.announced_grant(conn).filter(|(of, _)| *of == key);
        let part = Part::AsksToPublish;
        let session = self.sessions.add(protocol, part, key, Some(remote), carrier, self.now);
        let round = self.round_trip(&via);
        if let Some(s) = self.sessions.get_mut(session) {
            s.via = via;
        }
        match (round, announced) {
            (Some(reason), _) => self.refuse_publish(session, &reason),
            (None, Some((_, grant))) => self.permit_as_announced(session, grant),
            (None, None) => self.permit(session, asker),
        }
    }

    /// What this node alone can say against a new publisher of a name. One of the same identity as the present one
    /// replaces it at once (A24); without an identity nobody is the same.
    pub(super) fn may_publish(&self, key: &StreamKey, identity: &str) -> Result<(), Reason> {
        if let Some(reason) = self.no_room() {
            return Err(reason);
        }
        self.room(usize::from(self.hub.find(key).is_none()), 1)?;
        let Some(stream) = self.hub.find(key) else { return Ok(()) };
        let silent = Duration::from_millis(self.limits.stream_silent_ms);
        let ours = !self.pulls.has(key);
        let same = !identity.is_empty() && self.publisher_identity(stream).as_deref() == Some(identity);
        if ours
            && !same
            && self.is_live(stream)
            && self.hub.silent_for(stream, self.now).is_some_and(|s| s < silent)
        {
            return Err(name_busy(key));
        }
        Ok(())
    }

    /// Who publishes a stream here, if that is known.
    fn publisher_identity(&self, stream: StreamId) -> Option<String> {
        let publishes = |s: &&Session| matches!(s.part, Part::Publishes { stream: of, .. } if of == stream);
        self.sessions.iter().find(publishes).map(|s| s.grant.identity.name())
    }

    /// Whether a stream has a source now.
    pub(super) fn is_live(&self, stream: StreamId) -> bool {
        self.hub.state(stream) == Some(StreamState::Live)
    }

    /// Asks the cluster for the name of a session's stream.
    pub(super) fn claim(&mut self, session: SessionId) {
        let Some(s) = self.sessions.get(session) else { return };
        let (key, identity) = (s.key.clone(), s.grant.identity.name());
        let req = self.next_req();
        self.claims.insert(req, (session, key.clone()));
        self.member.handle(member::Input::Claim { req, key, identity }, self.now);
    }

    /// A session waits for its claim no longer.
    fn withdraw_claim(&mut self, session: SessionId) {
        let of = |(_, (s, _)): &(&u64, &(SessionId, StreamKey))| *s == session;
        let Some(req) = self.claims.iter().find(of).map(|(req, _)| *req) else { return };
        if self.member.withdraw(req) {
            self.claims.remove(&req);
        }
    }

    /// The cluster answered a claim.
    pub(super) fn claimed(&mut self, req: u64, result: Result<Epoch, Reason>) {
        if self.source_claimed(req, &result) {
            return;
        }
        let Some((session, key)) = self.claims.remove(&req) else { return };
        let key = &key;
        if !self.is_part(session, Part::AsksToPublish) {
            // The publisher left meanwhile: the name must not stay busy on its behalf.
            if let Ok(epoch) = result {
                self.give_back(key, epoch);
            }
            return;
        }
        let accepted = result.and_then(|epoch| {
            if let Err(broken) = self.is_new_here(key, epoch) {
                self.release(key, epoch);
                return Err(broken);
            }
            self.drop_pull(key);
            self.share_memory();
            match self.hub.publish(key, epoch, SourceId(session.0), self.now) {
                Ok(stream) => Ok((stream, epoch)),
                Err(reason) => {
                    self.give_back(key, epoch);
                    Err(reason)
                }
            }
        });
        match accepted {
            Err(reason) => self.refuse_publish(session, &reason),
            Ok((stream, epoch)) => {
                self.source_yields(key);
                self.forget_first_track(stream, key);
                self.sessions.set_part(session, Part::Publishes { stream, epoch });
                let Some(s) = self.sessions.get(session) else { return };
                let (carrier, remote) = (s.carrier, s.remote);
                let from = remote.map(|r| format!(" from {r}")).unwrap_or_default();
                self.log_session(
                    Level::Info,
                    session,
                    "published",
                    format!("publisher accepted{from}, epoch {epoch}"),
                );
                match carrier {
                    Carrier::Conn(conn) => {
                        self.conn_is_used(conn);
                        self.tell_rtsp(conn, rtsp::server::Input::PublishAccepted);
                    }
                    Carrier::Message(conn, stream) => {
                        self.conn_is_used(conn);
                        self.tell_rtmp(conn, rtmp::server::Input::PublishAccepted(stream));
                    }
                    _ => self.answer_whip(session, Ok(())),
                }
            }
        }
    }

    /// S1, asserted when a publisher is accepted: nobody has published here under its epoch.
    fn is_new_here(&self, key: &StreamKey, epoch: Epoch) -> Result<(), Reason> {
        let before = self.hub.find(key).filter(|_| self.is_ours(key)).and_then(|s| self.hub.epoch(s));
        must(self.limits.simulation, before != Some(epoch), "S1", || {
            format!("{key} was granted under epoch {epoch}, under which it was published here before")
        })
    }

    pub(super) fn refuse_publish(&mut self, session: SessionId, reason: &Reason) {
        let Some(s) = self.sessions.get(session) else { return };
        let (carrier, remote) = (s.carrier, s.remote);
        self.timers.cancel(&Alarm::Expires(session));
        self.withdraw_claim(session);
        let from = remote.map(|r| format!(" {r}")).unwrap_or_default();
        let level = if reason.is_defect() { Level::Error } else { Level::Warn };
        self.log_session(level, session, reason.code, format!("publisher{from} refused: {reason}"));
        if let Some(s) = self.sessions.remove(session, self.now) {
            self.counters.ended_as(s.protocol.name(), reason);
        }
        match carrier {
            Carrier::Conn(conn) => {
                self.tell_rtsp(conn, rtsp::server::Input::PublishRefused(reason.clone()));
            }
            Carrier::Message(conn, stream) => {
                self.tell_rtmp(conn, rtmp::server::Input::PublishRefused(stream, reason.clone()));
            }
            Carrier::Rtc(rtc) => {
                self.answer_refused_whip(session, reason);
                self.rtc
                    .handle(rtc::endpoint::Input::Close { session: rtc, reason: reason.clone() }, self.now);
            }
            Carrier::Request(_) | Carrier::Signal(_) | Carrier::Pull(..) => {}
        }
    }

    fn answer_refused_whip(&mut self, session: SessionId, reason: &Reason) {
        self.answer_whip(session, Err(reason));
    }

    /// A publisher's session made a configuration or a frame.
    pub(super) fn ingest(&mut self, session: SessionId, ingest: Ingest) {
        let now = self.now;
        let Some(s) = self.sessions.get_mut(session) else { return };
        let Part::Publishes { stream, .. } = s.part else {
            self.counters.drop("frame", "not_accepted", 1);
            return;
        };
        let is_config = matches!(ingest, Ingest::Config { .. });
        if let Ingest::Frame(f) = &ingest {
            s.bytes_in += f.payload.len() as u64;
            s.last_dts = Some(f.dts);
        }
        let key = is_config.then(|| s.key.clone());
        self.hub.ingest(stream, SourceId(session.0), ingest, now);
        if let Some(key) = key {
            self.stream_has_tracks(&key);
        }
    }

    /// Makes the WebRTC session of a WHIP offer.
    pub(super) fn rtc_publish(
        &mut self,
        offer: &str,
        candidates: &[SocketAddr],
        remote: Option<SocketAddr>,
    ) -> Result<(rtc::SessionId, String), Reason> {
        let from = remote.map_or(self.advertised.public, |r| r.ip());
        self.rtc.publish(rtc::Offer { sdp: offer, from, candidates }, self.now)
    }

    /// Ends a session of any kind, says so once, and tells its carrier. An HTTP connection is not a carrier and stays.
    pub(super) fn end_session(&mut self, session: SessionId, reason: &Reason) {
        let Some(s) = self.forget_session(session, reason) else { return };
        match s.carrier {
            Carrier::Conn(conn) => self.tell_ended(conn, reason.clone(), reason.code == hub::SOURCE_GONE),
            Carrier::Message(conn, stream) => {
                use rtmp::server::Input as I;
                let gone = reason.code == hub::SOURCE_GONE;
                let word = if gone { I::StreamEnded } else { I::End };
                self.tell_rtmp(conn, word(stream, reason.clone()));
            }
            Carrier::Rtc(session) => {
                self.rtc.handle(rtc::Input::Close { session, reason: reason.clone() }, self.now);
            }
            Carrier::Pull(conn, pull) => self.end_serving(conn, pull, reason),
            Carrier::Request(_) | Carrier::Signal(_) => {}
        }
    }

    /// Ends a session whose carrier knows already, or goes on without it (an RTMP connection that stopped publishing
    /// may publish again).
    pub(super) fn forget_session(&mut self, session: SessionId, reason: &Reason) -> Option<Session> {
        if let Some(conn) = self.sessions.get(session)?.carrier.conn() {
            self.fall_out(conn);
        }
        let s = self.sessions.get(session)?;
        let what = match s.protocol {
            Protocol::Relay => "pull",
            _ if s.is_push() => "push",
            _ if s.is_remote() => "source",
            _ if s.is_publisher() => "publisher",
            _ => "viewer",
        };
        let age = self.now.since(s.since).as_secs_f64();
        let (bytes, way) = if s.is_publisher() { (s.bytes_in, "in") } else { (s.bytes_out, "out") };
        let mb = bytes as f64 / 1e6;
        let level = if reason.is_defect() { Level::Error } else { Level::Info };
        let frames = match s.part {
            Part::Plays { subscriber, .. } => self.hub.subscriber_stats(subscriber),
            _ => None,
        };
        let text = format!("{what} ended after {age:.1} s ({mb:.1} MB {way}): {reason}");
        // A flood of one reason hides no other (A25).
        self.log_session(level, session, reason.code, text);
        self.signal_session_over(session, reason);
        self.timers.cancel(&Alarm::Expires(session));
        if let Some(s) = self.sessions.get_mut(session) {
            s.frames = frames;
        }
        let s = self.sessions.remove(session, self.now)?;
        if let Some(conn) = s.carrier.conn() {
            self.conn_explained(conn);
        }
        self.counters.ended_as(s.protocol.name(), reason);
        if let Some(resource) = s.resource.clone() {
            self.ended_resources.truncate(ENDED_RESOURCES - 1);
            self.ended_resources.push_front(resource);
        }
        match s.part {
            Part::Publishes { stream, .. } => self.hub.unpublish(stream, SourceId(session.0), self.now),
            Part::Plays { subscriber, stream } => {
                self.hub.unsubscribe(subscriber);
                self.bridges.touch(stream);
            }
            Part::AsksToPublish => {
                self.withdraw_claim(session);
                self.answer_whip(session, Err(reason));
            }
            Part::AsksToPlay => self.forget_waiting(session, &s.key, reason),
        }
        self.touch_viewers(&s.key);
        Some(s)
    }

    /// A stream lost its source. The cluster is told if it was published here and nobody has followed meanwhile.
    pub(super) fn held(&mut self, stream: StreamId) {
        let Some(key) = self.hub.key(stream).cloned() else { return };
        if !self.is_live(stream)
            && let Some(epoch) = self.member.owned(&key)
        {
            self.member.handle(member::Input::Held { key, epoch }, self.now);
        }
    }

    /// A name that was granted is of no use: it is free, or the stream is held for whoever comes next. Whoever publishes it
    /// here under an older epoch has been superseded by the grant: no other node takes its frames any more, so it must come
    /// again.
    pub(super) fn give_back(&mut self, key: &StreamKey, epoch: Epoch) {
        match self.hub.find(key) {
            Some(stream) if self.hub.epoch(stream) == Some(epoch) => self.held(stream),
            here => {
                self.release(key, epoch);
                if here.is_some_and(|stream| self.is_live(stream)) && !self.pulls.has(key) {
                    self.fenced(key, epoch);
                }
            }
        }
    }

    /// The stream is over on this node: nobody publishes it here any more.
    pub(super) fn release(&mut self, key: &StreamKey, epoch: Epoch) {
        self.member.handle(member::Input::Released { key: key.clone(), epoch }, self.now);
    }
}

/// The refusal of a second publisher.
pub(super) fn name_busy(key: &StreamKey) -> Reason {
    Reason::peer(
        "name_busy",
        format!("{key} is being published by someone else; choose another name, or wait until it is free"),
    )
}
