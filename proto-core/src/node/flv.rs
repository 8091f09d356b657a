//! Viewers by HTTP-FLV: a GET whose answer does not end. The connection is the session.

use super::Node;
use super::conns::{Conn, Proto};
use super::session::{Carrier, Protocol, SessionId};
use crate::error::Reason;
use crate::guard::guard;
use crate::http::message::{Method, Request, Response};
use crate::http::server::Input;
use crate::http::{cors, whip};
use crate::hub::delivery::Delivery;
use crate::hub::{CodecSet, Pace, StreamId};
use crate::io::ConnId;
use crate::media::key::StreamKey;
use crate::media::track::Codec;
use crate::rtmp::flv::FlvPlayer;
use std::collections::BTreeMap;

/// Players by the connection that their answer goes to.
pub(super) type Players = BTreeMap<ConnId, FlvPlayer>;

fn head() -> Response {
    let mut response =
        Response::new(200).header("Content-Type", "video/x-flv").header("Cache-Control", "no-store");
    cors::allow_any_origin(&mut response);
    response
}

impl Node {
    /// Somebody asks for a stream as FLV.
    pub(super) fn flv(&mut self, conn: ConnId, request: &Request, key: StreamKey) -> Option<Response> {
        if let Some(reason) = self.no_room() {
            return Some(whip::refusal(&reason));
        }
        if request.method == Method::Head {
            match self.hub.find(&key) {
                Some(_) => self.tell_http(conn, Input::Stream(head())),
                None => return Some(Response::text(404, format!("{key} is not on this node"))),
            }
            return None;
        }
        self.flv.insert(conn, FlvPlayer::new(request.query.as_deref().unwrap_or_default()));
        let asker = self.asker_of(conn, request);
        self.conn_play(Protocol::Flv, Carrier::Conn(conn), key, asker);
        None
    }

    /// A viewer's stream is here.
    pub(super) fn start_flv(&mut self, session: SessionId, stream: StreamId) -> Result<(), Reason> {
        let Some(Carrier::Conn(conn)) = self.sessions.get(session).map(|s| s.carrier) else {
            return Err(Reason::local("no_carrier", "the session has no connection"));
        };
        let opus = self.flv.get(&conn).is_none_or(|p| p.takes().has(Codec::Opus));
        // As with RTMP: in place of Opus there is AAC.
        let accepts = if opus { CodecSet::ALL } else { CodecSet::ALL.without(Codec::Opus) };
        let subscriber = self.hub.subscribe(stream, accepts, self.now)?;
        self.hub.set_pace(subscriber, Pace::Merged);
        self.conn_is_used(conn);
        self.tell_http(conn, Input::Stream(head()));
        self.viewer_joined(session, stream, subscriber);
        Ok(())
    }

    pub(super) fn is_flv(&self, conn: ConnId) -> bool {
        self.flv.contains_key(&conn)
    }

    /// Bytes that wait for a player.
    pub(super) fn flv_backlog(&self, conn: ConnId) -> Option<usize> {
        match self.conns.get(&conn) {
            Some(Conn { proto: Proto::Http(m), .. }) => m.stream_queued(),
            _ => None,
        }
    }

    /// Hands a player the next item.
    pub(super) fn deliver_flv(&mut self, conn: ConnId, delivery: &Delivery) {
        let Some(Conn { proto: Proto::Http(m), .. }) = self.conns.get_mut(&conn) else { return };
        let Some(player) = self.flv.get_mut(&conn) else { return };
        let now = self.now;
        match guard(|| player.deliver(delivery, |bytes| m.handle_body(bytes, now))) {
            Ok(()) => {
                self.dirty_conns.insert(conn);
            }
            Err(reason) => self.end_conn(conn, reason, Some(true)),
        }
    }

    /// A player may not play.
    pub(super) fn refuse_flv(&mut self, conn: ConnId, reason: &Reason) {
        self.flv.remove(&conn);
        self.conn_explained(conn);
        self.respond_crossing(conn, whip::refusal(reason));
    }

    /// A player's session is over.
    pub(super) fn end_flv(&mut self, conn: ConnId, reason: Reason) {
        self.flv.remove(&conn);
        self.conn_explained(conn);
        self.tell_http(conn, Input::EndBody(reason));
    }
}
