//! TCP connections that carry WebRTC for peers whose network lets no UDP through (RFC 6544). What waits on one is bounded:
//! a viewer whose connection is behind gets no turns until there is room, so its frames run over in its own row, where
//! they are left out up to the next key frame; what else does not fit is lost as on any network.

use super::{Endpoint, Output, SessionId};
use crate::buf::Outbox;
use crate::hub::delivery::Delivery;
use crate::io::{Batch, ConnId};
use crate::media::frame::FrameKind;
use crate::rtc::frames;
use crate::rtc::path::Path;
use crate::time::Time;
use bytes::BytesMut;
use std::collections::BTreeMap;

/// A connection.
#[derive(Debug, Default)]
pub(super) struct Stream {
    out: Outbox,
    /// What it is to sessions, once something came.
    path: Option<Path>,
    /// Whose checks came this way.
    pub(super) session: Option<SessionId>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Streams {
    pub(super) all: BTreeMap<ConnId, Stream>,
    /// Those that belong to sessions.
    pub(super) proven: usize,
}

impl Endpoint {
    /// Offers peers to connect by TCP on these ports too, at the hosts of each session's candidates.
    pub fn offer_tcp(&mut self, ports: Vec<u16>) {
        self.tcp_ports = ports;
    }

    /// A datagram came on a connection.
    pub(super) fn framed(&mut self, path: Path, bytes: &[u8], now: Time) {
        if let Some(conn) = path.conn() {
            self.streams.all.entry(conn).or_default().path = Some(path);
            self.datagram(path, bytes, now);
        }
    }

    /// A connection takes so many bytes.
    pub(super) fn stream_room(&mut self, conn: ConnId, free: usize) {
        let stream = self.streams.all.entry(conn).or_default();
        stream.out.set_credit(free);
        let session = stream.session;
        self.flush(conn);
        if let Some(session) = session {
            self.line_up(session);
        }
    }

    /// A connection is gone: its peer may come back on another.
    pub(super) fn stream_gone(&mut self, conn: ConnId) {
        let Some(path) = self.remove_stream(conn).and_then(|s| s.path) else { return };
        let Some(id) = self.by_path.remove(&path) else { return };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.paths.retain(|p| *p != path);
            session.talk.lost(conn);
        }
    }

    fn remove_stream(&mut self, conn: ConnId) -> Option<Stream> {
        let stream = self.streams.all.remove(&conn)?;
        self.streams.proven -= usize::from(stream.session.is_some());
        Some(stream)
    }

    /// A check with the password of a session came on a connection.
    pub(super) fn stream_proven(&mut self, conn: ConnId, id: SessionId) {
        if let Some(stream) = self.streams.all.get_mut(&conn)
            && stream.session.replace(id).is_none()
        {
            self.streams.proven += 1;
            self.outputs.push_back(Output::StreamProven { conn });
        }
    }

    /// Connections that belong to sessions: for each, `ice_tcp_queue_bytes` may wait.
    pub fn rows(&self) -> usize {
        self.streams.proven
    }

    /// Bytes that may be put into a connection's row.
    pub(super) fn stream_left(&self, conn: ConnId) -> usize {
        let queued = self.streams.all.get(&conn).map(|s| s.out.queued());
        queued.map_or(0, |queued| self.limits.ice_tcp_queue_bytes.saturating_sub(queued))
    }

    /// Sends a datagram on a connection, if there is room.
    pub(super) fn stage_framed(&mut self, conn: ConnId, datagram: &[u8]) {
        if self.stream_left(conn) < datagram.len() {
            self.drops.stream_full += 1;
            return;
        }
        let mut framed = BytesMut::with_capacity(datagram.len() + 2);
        frames::put(&mut framed, datagram);
        if let Some(stream) = self.streams.all.get_mut(&conn) {
            stream.out.push(framed.freeze());
        }
        self.flush(conn);
    }

    /// Sends all datagrams of a batch on a connection.
    pub(super) fn stage_batch(&mut self, conn: ConnId, batch: &Batch) {
        let mut framed = BytesMut::with_capacity(batch.buf.len() + 2 * batch.items.len());
        for t in &batch.items {
            let bytes = batch.buf.get(t.start..t.start + t.len).unwrap_or_default();
            bytes.chunks(t.segment_size.max(1)).for_each(|datagram| frames::put(&mut framed, datagram));
        }
        if let Some(stream) = self.streams.all.get_mut(&conn) {
            stream.out.push(framed.freeze());
        }
        self.flush(conn);
    }

    fn flush(&mut self, conn: ConnId) {
        let Some(stream) = self.streams.all.get_mut(&conn) else { return };
        while let Some(bytes) = stream.out.pop() {
            self.outputs.push_back(Output::Stream { conn, bytes });
        }
    }

    /// Whether something for a whole session is left out, because its connection is behind. Pictures go on with a key
    /// frame once half of the row is free.
    pub(super) fn behind(&mut self, id: SessionId, delivery: &Delivery) -> bool {
        let Delivery::Frame { frame, .. } = delivery else { return false };
        let Some(conn) = self.sessions.get(&id).and_then(|s| s.talk.over()) else { return false };
        let (left, half) = (self.stream_left(conn), self.limits.ice_tcp_queue_bytes / 2);
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let goes_on = left >= half && (!frame.is_video() || frame.media.kind == FrameKind::Key);
        session.behind = if session.behind { !goes_on } else { left < half };
        if session.behind {
            session.talk.left_out();
        }
        session.behind
    }

    /// A session is over, and what its connections were for with it.
    pub(super) fn end_streams(&mut self, id: SessionId, paths: &[Path]) {
        for conn in paths.iter().filter_map(Path::conn) {
            if self.streams.all.get(&conn).is_some_and(|s| s.session == Some(id)) {
                self.remove_stream(conn);
                self.outputs.push_back(Output::CloseStream { conn });
            }
        }
    }
}
