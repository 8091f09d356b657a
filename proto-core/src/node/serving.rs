//! Streams that other nodes pull from this one.

use super::Node;
use super::remote;
use super::session::{Carrier, Part, Protocol, SessionId};
use crate::cluster::quic;
use crate::cluster::relay::PullServer;
use crate::cluster::{Epoch, NodeId};
use crate::error::Reason;
use crate::guard::guard;
use crate::hub::delivery::Delivery;
use crate::hub::{CodecSet, Pace, Picks, SourceId, StreamId};
use crate::io::{ConnId, Level};
use crate::machine::Machine;
use crate::media::key::StreamKey;
use crate::media::track::TrackId;
use crate::rtc;
use crate::rtmp;
use crate::rtsp;
use crate::wire::link::Message;
use std::collections::BTreeMap;

/// The pulls that other nodes make.
#[derive(Default)]
pub(super) struct Served {
    pub(super) by_pull: BTreeMap<(ConnId, u64), PullServer>,
}

impl Node {
    /// Another node asks for a stream; `after`: it had it before, up to there.
    pub(super) fn asked_to_serve(
        &mut self,
        conn: ConnId,
        pull: u64,
        key: StreamKey,
        hops: Vec<NodeId>,
        after: Option<(Epoch, u64)>,
    ) {
        let refuse = |node: &mut Node, code: &str, text: String| {
            node.send_link(conn, Message::End { pull, code: code.to_owned(), text });
        };
        if self.sessions.on(Carrier::Pull(conn, pull)).is_some() {
            // The first session would never be found again, and stay for ever.
            return refuse(self, "pull_number", format!("pull {pull} of this link is under way already"));
        }
        if let Err(reason) = self.room(0, 1) {
            return refuse(self, reason.code, reason.text.into_owned());
        }
        let Some(stream) = self.hub.find(&key) else {
            if !self.serve_later(conn, pull, &key, &hops) {
                refuse(self, "not_found", format!("{key} is not on this node"));
            }
            return;
        };
        let accepted = PullServer::accept(
            pull,
            key.clone(),
            &hops,
            &self.id,
            self.pulls.path(&key),
            self.limits.clone(),
        );
        let server = match accepted {
            Ok(server) => server,
            Err(answer) => return self.send_link(conn, answer),
        };
        let subscriber = match self.hub.subscribe_to(stream, CodecSet::ALL, Picks::All, self.now) {
            Ok(subscriber) => subscriber,
            Err(reason) => return refuse(self, reason.code, reason.text.into_owned()),
        };
        self.hub.set_pace(subscriber, Pace::Prompt);
        if let Some((epoch, seq)) = after {
            self.hub.resume(subscriber, epoch, seq);
        }
        let remote = self.conns.get(&conn).map(|c| c.remote);
        let carrier = Carrier::Pull(conn, pull);
        let session = self.sessions.add(Protocol::Relay, Part::AsksToPlay, key, remote, carrier, self.now);
        self.sessions.set_part(session, Part::Plays { stream, subscriber });
        let tracks = self.hub.tracks(stream);
        if tracks.len() > 2 {
            self.send_link(conn, server.announce(tracks));
        }
        self.serving.by_pull.insert((conn, pull), server);
        let puller = hops.first().map_or_else(|| "?".to_owned(), |n| n.to_string());
        self.log_session(Level::Info, session, "serves", format!("node {puller} pulls the stream"));
        self.pump(subscriber);
    }

    /// Sends one item of a pulled stream.
    pub(super) fn serve(&mut self, conn: ConnId, pull: u64, delivery: &Delivery) {
        let Some(backlog) = self.link_backlog(conn) else { return };
        let Some(server) = self.serving.by_pull.get_mut(&(conn, pull)) else { return };
        let made = guard(|| (server.deliver(delivery, backlog), server.wants_key(backlog)));
        let (message, wants_key) = match made {
            Ok(made) => made,
            Err(reason) => {
                if let Some(session) = self.sessions.on(Carrier::Pull(conn, pull)) {
                    self.end_session(session, &reason);
                }
                return;
            }
        };
        if let Some(session) = self.sessions.on(Carrier::Pull(conn, pull)) {
            if let Delivery::Frame { frame, .. } = delivery {
                let bytes = frame.len();
                if let Some(s) = self.sessions.get_mut(session)
                    && message.is_some()
                {
                    s.bytes_out += bytes as u64;
                }
                self.viewer_progress(session, bytes);
            }
            if wants_key && let Some(stream) = self.stream_of(session) {
                self.hub.request_key_frame(stream, None, self.now);
            }
        }
        if let Some(message) = message {
            self.send_link(conn, message);
        }
    }

    pub(super) fn served_key_request(&mut self, conn: ConnId, pull: u64, track: Option<TrackId>) {
        let now = self.now;
        let due = self.serving.by_pull.get_mut(&(conn, pull)).is_some_and(|s| s.key_request(track, now));
        let session = self.sessions.on(Carrier::Pull(conn, pull));
        if due && let Some(stream) = session.and_then(|s| self.stream_of(s)) {
            self.hub.request_key_frame(stream, track, now);
        }
    }

    pub(super) fn served_cancel(&mut self, conn: ConnId, pull: u64) {
        self.waiting_gone(conn, Some(pull));
        if let Some(session) = self.sessions.on(Carrier::Pull(conn, pull)) {
            self.end_session(session, &Reason::peer("cancelled", "the other node has no viewers left"));
        }
    }

    /// A link went: all pulls on it end.
    pub(super) fn serving_gone(&mut self, conn: ConnId) {
        self.waiting_gone(conn, None);
        let gone: Vec<u64> =
            self.serving.by_pull.range((conn, 0)..=(conn, u64::MAX)).map(|((_, p), _)| *p).collect();
        for pull in gone {
            if let Some(session) = self.sessions.on(Carrier::Pull(conn, pull)) {
                self.end_session(session, &Reason::peer("link_down", "the link to the other node broke"));
            }
        }
    }

    /// A session that was a pull ended: the other node is told why.
    pub(super) fn end_serving(&mut self, conn: ConnId, pull: u64, reason: &Reason) {
        let Some(server) = self.serving.by_pull.remove(&(conn, pull)) else { return };
        if reason.code == "cancelled" {
            self.tell_quic(quic::Input::Served { conn, pull, now: true });
        } else {
            self.send_link(conn, server.end(reason));
        }
    }

    /// Tells a stream's viewers that its source went or came back.
    pub(super) fn tell_viewers(&mut self, stream: StreamId, away: bool) {
        let viewers: Vec<Carrier> = self
            .sessions
            .iter()
            .filter(|s| matches!(s.part, Part::Plays { stream: st, .. } if st == stream))
            .map(|s| s.carrier)
            .collect();
        for viewer in viewers {
            match viewer {
                Carrier::Message(conn, stream) => {
                    use rtmp::server::Input as I;
                    self.tell_rtmp(conn, if away { I::SourceAway(stream) } else { I::SourceBack(stream) });
                }
                Carrier::Pull(conn, pull) => {
                    if let Some(server) = self.serving.by_pull.get(&(conn, pull)) {
                        let message = if away { server.away() } else { server.back() };
                        self.send_link(conn, message);
                    }
                }
                Carrier::Conn(_) | Carrier::Rtc(_) | Carrier::Request(_) | Carrier::Signal(_) => {}
            }
        }
    }

    /// The hub wants a key frame from a source, of one of its tracks or of each.
    pub(super) fn key_frame_wanted(&mut self, source: SourceId, track: Option<TrackId>) {
        if self.pull_key_wanted(source, track) {
            return;
        }
        match self.sessions.get(SessionId(source.0)).map(|s| s.carrier) {
            Some(Carrier::Rtc(session)) => {
                self.rtc.handle(rtc::endpoint::Input::RequestKeyFrame { session, track }, self.now);
            }
            Some(Carrier::Conn(conn)) if conn.is_dialled() => {
                self.tell_remote(conn, remote::Input::KeyFrameWanted);
            }
            Some(Carrier::Conn(conn)) => self.tell_rtsp(conn, rtsp::server::Input::KeyFrameWanted),
            // RTMP has no way to ask; its publishers send key frames in their own rhythm.
            _ => {}
        }
    }

    /// Another source took a stream over.
    pub(super) fn source_displaced(&mut self, source: SourceId, reason: &Reason) {
        if !self.pull_displaced(source) {
            self.end_session(SessionId(source.0), reason);
        }
    }

    /// A stream is over on this node.
    pub(super) fn stream_ended(&mut self, key: &StreamKey, epoch: crate::cluster::Epoch) {
        if self.pulls.has(key) {
            self.touch_viewers(key);
        } else {
            self.release(key, epoch);
        }
    }

    /// The stream that a session publishes or plays.
    pub(super) fn stream_of(&self, session: SessionId) -> Option<StreamId> {
        match self.sessions.get(session)?.part {
            Part::Publishes { stream, .. } | Part::Plays { stream, .. } => Some(stream),
            Part::AsksToPublish | Part::AsksToPlay => None,
        }
    }
}
