//! One QUIC connection between two nodes: the control stream, and the media on either way.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::incoming::{Came, Incoming};
use super::outgoing::Outgoing;
use crate::error::{Reason, quote};
use crate::io::ConnId;
use crate::limits::Limits;
use crate::time::{Deadline, Time};
use bytes::Bytes;
use quinn_proto::{
    Connection, ConnectionError, Dir, Event, ReadError, StreamEvent, StreamId, VarInt, WriteError,
};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Bytes of the control stream that may wait for the library.
const CONTROL: usize = 256 << 10;
/// A connection that is closed orderly waits this long for its last words to arrive.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What is handed to the library beyond what may be in flight.
const AHEAD: u64 = 64 << 10;
const FLOW_CONTROL_ERROR: u64 = 0x3;
const STREAM_LIMIT_ERROR: u64 = 0x4;

/// What a session says.
#[derive(Debug)]
pub(super) enum Said {
    /// The TLS handshake is done.
    Connected {
        binding: [u8; 32],
    },
    /// Bytes of the control stream.
    Control(Bytes),
    /// The control stream takes so much.
    Room(usize),
    /// The peer sends nothing more on the control stream.
    Finished,
    Came(Came),
    Closed(Reason),
}

pub(super) struct Session {
    pub(super) inner: Connection,
    /// Known from the start where it was dialled, else from the moment that it stands.
    pub(super) id: Option<ConnId>,
    pub(super) dialled: bool,
    /// The peer proved the shared key.
    pub(super) proven: bool,
    pub(super) local: Option<SocketAddr>,
    /// Since when there is a handshake.
    since: Time,
    pub(super) out: Outgoing,
    pub(super) incoming: Incoming,
    control: Option<StreamId>,
    waits: VecDeque<Bytes>,
    waiting: usize,
    told_room: usize,
    /// Nothing more will be sent: since when.
    leaving: Option<Time>,
    finished: bool,
    /// The node knows that it is over, or said so.
    over: bool,
    said: VecDeque<Said>,
}

impl Session {
    pub(super) fn new(
        inner: Connection,
        id: Option<ConnId>,
        local: Option<SocketAddr>,
        now: Time,
    ) -> Session {
        Session {
            inner,
            dialled: id.is_some(),
            id,
            proven: false,
            local,
            since: now,
            out: Outgoing::default(),
            incoming: Incoming::default(),
            control: None,
            waits: VecDeque::new(),
            waiting: 0,
            told_room: 0,
            leaving: None,
            finished: false,
            over: false,
            said: VecDeque::new(),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Said> {
        self.said.pop_front().or_else(|| self.incoming.pop().map(Said::Came))
    }

    /// Bytes that the library has not taken.
    pub(super) fn backlog(&self) -> usize {
        self.waiting + self.out.queued()
    }

    /// Takes bytes for the control stream.
    pub(super) fn send(&mut self, bytes: Bytes) {
        self.waiting += bytes.len();
        self.told_room = self.told_room.saturating_sub(bytes.len());
        self.waits.push_back(bytes);
    }

    /// The peer proved the shared key: it may open streams and send as much as a link may hold.
    pub(super) fn proved(&mut self, limits: &Limits) {
        self.proven = true;
        self.inner.set_max_concurrent_streams(Dir::Uni, VarInt::from_u32(limits.link_quic_streams));
        let window = u32::try_from(limits.link_queue_bytes.saturating_mul(2)).unwrap_or(u32::MAX);
        self.inner.set_receive_window(VarInt::from_u32(window));
    }

    /// The node is done with it. `at_once`: without last words.
    pub(super) fn close(&mut self, at_once: bool, now: Time, instant: Instant) {
        self.over = true;
        if at_once || self.control.is_none() {
            self.inner.close(instant, VarInt::from_u32(0), Bytes::new());
        } else if self.leaving.is_none() {
            self.leaving = Some(now);
        }
    }

    /// The node ends, and the peer is to know at once.
    pub(super) fn goodbye(&mut self, instant: Instant) {
        self.inner.close(instant, VarInt::from_u32(0), Bytes::new());
        self.lost(Reason::local("node_ends", "this node ends"));
    }

    /// Takes what the library says, and gives it what there is.
    pub(super) fn drive(&mut self, limits: &Limits, now: Time, instant: Instant) {
        while let Some(event) = self.inner.poll() {
            self.event(event, limits, now, instant);
        }
        if let Some(until) = self.handshake_ends(limits)
            && now >= until
        {
            let remote = plain(self.inner.remote_address());
            let text = format!("{remote} did not end its QUIC handshake (limits.link_handshake_ms)");
            self.inner.close(instant, VarInt::from_u32(0), Bytes::new());
            self.lost(Reason::peer("quic_handshake_timeout", text));
        }
        if let Err(what) = self.incoming.tick(&mut self.inner, limits, now) {
            self.malformed(what, instant);
        }
        self.pump_control();
        let window = self.inner.congestion_state().window();
        self.inner.set_send_window(window + window / 4 + AHEAD);
        self.out.pump(&mut self.inner);
        if self.leaving.is_some_and(|since| now >= since + LAST_WORDS) {
            self.leaving = None;
            self.inner.close(instant, VarInt::from_u32(0), Bytes::new());
        }
    }

    pub(super) fn deadline(&self, limits: &Limits) -> Option<Deadline> {
        let leaving = self.leaving.map(|since| Deadline::new(since + LAST_WORDS, "a link's last words"));
        let handshake = self.handshake_ends(limits).map(|at| Deadline::new(at, "a QUIC handshake"));
        Deadline::earliest(Deadline::earliest(self.incoming.deadline(limits), leaving), handshake)
    }

    /// Until when a connection that came must stand: whoever keeps sending something keeps it from falling silent. Those
    /// that were dialled have the node's own deadline, and so has the proof of the key.
    fn handshake_ends(&self, limits: &Limits) -> Option<Time> {
        let waits = self.id.is_none() && !self.over;
        waits.then(|| self.since + Duration::from_millis(limits.link_handshake_ms))
    }

    fn event(&mut self, event: Event, limits: &Limits, now: Time, instant: Instant) {
        match event {
            Event::Connected => {
                let mut binding = [0; 32];
                let session = self.inner.crypto_session();
                // RFC 9266 section 2.
                if session.export_keying_material(&mut binding, b"EXPORTER-Channel-Binding", b"").is_err() {
                    return self.lost(Reason::local("quic_tls", "TLS gave no channel binding"));
                }
                self.said.push_back(Said::Connected { binding });
                if self.dialled {
                    self.control = self.inner.streams().open(Dir::Bi);
                    self.take_control();
                }
            }
            Event::ConnectionLost { reason } => self.lost(why(self.inner.remote_address(), &reason)),
            Event::Stream(event) => self.stream(event, limits, now, instant),
            Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
        }
    }

    fn lost(&mut self, reason: Reason) {
        if !std::mem::replace(&mut self.over, true) {
            self.said.push_back(Said::Closed(reason));
        }
    }

    fn malformed(&mut self, what: &str, instant: Instant) {
        let text = format!("{} sent {what}", self.inner.remote_address());
        self.inner.close(instant, VarInt::from_u32(2), Bytes::new());
        self.lost(Reason::peer("link_malformed", text));
    }

    fn take_control(&mut self) {
        if let Some(id) = self.control {
            let _ = self.inner.send_stream(id).set_priority(2);
        }
    }

    fn stream(&mut self, event: StreamEvent, limits: &Limits, now: Time, instant: Instant) {
        match event {
            StreamEvent::Opened { dir: Dir::Bi } => {
                if let Some(id) = self.inner.streams().accept(Dir::Bi) {
                    self.control = Some(id);
                    self.take_control();
                    self.read_control(instant);
                }
            }
            StreamEvent::Opened { dir: Dir::Uni } => {
                while let Some(id) = self.inner.streams().accept(Dir::Uni) {
                    self.incoming.opened(id, limits);
                    self.media(id, limits, now, instant);
                }
            }
            StreamEvent::Readable { id } if self.control == Some(id) => self.read_control(instant),
            StreamEvent::Readable { id } => self.media(id, limits, now, instant),
            StreamEvent::Writable { id } => self.out.writable(id),
            StreamEvent::Finished { id } if self.control == Some(id) => {
                if self.leaving.take().is_some() {
                    self.inner.close(instant, VarInt::from_u32(0), Bytes::new());
                }
            }
            StreamEvent::Finished { id } => self.out.finished(id, now),
            StreamEvent::Stopped { id, .. } => self.out.stopped(id),
            StreamEvent::Available { dir: Dir::Uni } => self.out.available(),
            StreamEvent::Available { dir: Dir::Bi } => {}
        }
    }

    fn media(&mut self, id: StreamId, limits: &Limits, now: Time, instant: Instant) {
        if let Err(what) = self.incoming.readable(id, &mut self.inner, limits, now) {
            self.malformed(what, instant);
        }
    }

    fn read_control(&mut self, instant: Instant) {
        let Some(id) = self.control else { return };
        let mut recv = self.inner.recv_stream(id);
        let Ok(mut chunks) = recv.read(true) else { return };
        let end = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => self.said.push_back(Said::Control(chunk.bytes)),
                Ok(None) => break Some(true),
                Err(ReadError::Blocked) => break None,
                Err(ReadError::Reset(_)) => break Some(false),
            }
        };
        let _ = chunks.finalize();
        match end {
            Some(true) => self.said.push_back(Said::Finished),
            Some(false) => self.malformed("the end of its control stream", instant),
            None => {}
        }
    }

    fn pump_control(&mut self) {
        let Some(id) = self.control else { return };
        while !self.waits.is_empty() {
            match self.inner.send_stream(id).write_chunks(self.waits.make_contiguous()) {
                Ok(written) => {
                    self.waits.drain(..written.chunks);
                    self.waiting -= written.bytes;
                }
                Err(WriteError::Blocked | WriteError::Stopped(_) | WriteError::ClosedStream) => break,
            }
        }
        if self.leaving.is_some() {
            if self.waits.is_empty() && !std::mem::replace(&mut self.finished, true) {
                let _ = self.inner.send_stream(id).finish();
            }
            return;
        }
        let room = CONTROL.saturating_sub(self.waiting);
        if room > self.told_room && !self.over {
            self.told_room = room;
            self.said.push_back(Said::Room(room));
        }
    }
}

/// Of IPv4 in IPv6 the plain IPv4, as everywhere in the node.
pub(super) fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// The address to send from.
pub(super) fn source(local: Option<SocketAddr>) -> Option<IpAddr> {
    local.map(|l| l.ip())
}

/// Why a connection was lost, in an operator's words.
pub(super) fn why(remote: SocketAddr, error: &ConnectionError) -> Reason {
    let remote = plain(remote);
    match error {
        ConnectionError::Reset => Reason::peer(
            "reset",
            format!("{remote} does not know this connection any more; it was started anew"),
        ),
        ConnectionError::TimedOut => {
            Reason::peer("link_silent", format!("{remote} does not answer any more"))
        }
        ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_) => Reason::peer(
            "peer_closed",
            format!("{remote} closed the connection: {}", quote(&error.to_string())),
        ),
        ConnectionError::LocallyClosed => Reason::local("closed", "this node closed the connection"),
        ConnectionError::TransportError(e) => {
            let code = match u64::from(e.code) {
                // RFC 9001 section 4.8: an alert of TLS.
                0x100..=0x1ff => "quic_handshake",
                // RFC 9000 section 20.1.
                FLOW_CONTROL_ERROR | STREAM_LIMIT_ERROR => "quic_limits",
                _ => "quic",
            };
            Reason::peer(code, format!("QUIC with {remote}: {}", quote(&e.to_string())))
        }
        other => Reason::peer("quic", format!("QUIC with {remote}: {}", quote(&other.to_string()))),
    }
}
