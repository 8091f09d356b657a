//! The HTTP/1.1 server machine (RFC 9112): bytes in, whole requests out; responses in, bytes out.
//!
//! It is stricter than the RFC asks where leniency lets two readers of the same bytes see different messages
//! (abuses A8, A9, A22): a bare LF or CR, NUL, folded lines, a blank before the colon, any transfer coding, a second
//! `Content-Length` or `Host` are refused, and a refusal always ends the connection. What it does is a function of the
//! bytes, never of how they were cut into reads.

mod head;

use super::message::{Request, Response};
use super::websocket::{self, Channel, Side, upgrade};
use super::{cors, router};
use crate::buf::{Inbox, Outbox, extend_up_to};
use crate::error::{Fault, Reason};
use crate::io::Level;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::time::{Deadline, Time};
use bytes::Bytes;
use head::{Head, Scan, Scanner};
use std::collections::VecDeque;
use std::time::Duration;

/// What the server machine is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// Bytes arrived.
    Received(&'a [u8]),
    /// The driver would take this many bytes now (replaces what it said before).
    Writable(usize),
    /// The peer sends no more, but may still read.
    PeerFinished,
    /// Time passed.
    Tick,
    /// The answer to the last [`Output::Request`], or the refusal of an [`Output::Upgrade`].
    Respond(Response),
    /// The answer to [`Output::Upgrade`]: the connection becomes a websocket.
    Accept {
        /// The subprotocol that was chosen of those that the client offered ([`upgrade::subprotocols`]).
        subprotocol: Option<&'a str>,
    },
    /// The answer to the last [`Output::Request`] has a body without an end: this is its head; what follows is
    /// [`Input::Body`], until the connection ends.
    Stream(Response),
    /// More of that body.
    Body(Bytes),
    /// That body ends after all, for this reason.
    EndBody(Reason),
    /// A message for the peer of a websocket.
    Text(&'a str),
    /// End a websocket; see [`websocket::Input::Close`].
    CloseSocket {
        /// The code.
        code: u16,
        /// Words for the peer.
        text: &'a str,
    },
}

/// What the server machine says.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Bytes for the peer, never more than the last `Writable` allowed.
    Send(Bytes),
    /// A whole request. Exactly one [`Input::Respond`] is owed; no further request comes before it.
    Request(Request),
    /// A request to become a websocket, its handshake found good. One [`Input::Accept`] or [`Input::Respond`] is owed;
    /// after the latter the connection ends.
    Upgrade(Request),
    /// A message from the peer of a websocket.
    Text(String),
    /// A websocket ended; see [`websocket::Output::Ended`].
    SocketEnded {
        /// The code.
        code: u16,
        /// The words.
        text: String,
    },
    /// It is over: everything that had to leave has left. The last output; later inputs are ignored. Codes that begin
    /// with `http_` and a fault of the peer or a limit deserve a log line, `http_done` and `peer_closed` do not.
    Closed(Reason),
    /// A line for the operator.
    Log(Level, String),
}

/// The part of the limits that one connection needs.
#[derive(Clone, Debug)]
struct Caps {
    head_ms: u64,
    idle_ms: u64,
    linger_ms: u64,
    stuck_ms: u64,
    min_bytes_per_s: u64,
    pipelined: usize,
    unread: usize,
    head: head::HeadCaps,
    socket: websocket::Caps,
}

/// Bytes that are looked at in one go.
const PIECE: usize = 4 << 10;

/// A refusal: what the peer is answered and why the connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    status: u16,
    fault: Fault,
    code: &'static str,
    text: String,
    /// The answer is JSON because the path belongs to an API.
    json: bool,
    /// A HEAD asked: the answer has no body.
    head_only: bool,
}

impl Refusal {
    fn peer(status: u16, code: &'static str, text: impl Into<String>) -> Refusal {
        Refusal { status, fault: Fault::Peer, code, text: text.into(), json: false, head_only: false }
    }

    fn limit(status: u16, code: &'static str, text: impl Into<String>) -> Refusal {
        Refusal { fault: Fault::Limit, ..Refusal::peer(status, code, text) }
    }
}

#[derive(Debug)]
enum Phase {
    /// Between requests, or in the middle of a head since `started`.
    Head { started: Option<Time> },
    /// The head stands; its body is arriving since `started`.
    Body { head: Box<Head>, body: Vec<u8>, started: Time },
    /// A request was given out; its answer is owed.
    Waiting { head_only: bool, close: bool },
    /// A body without an end is on its way; the peer has nothing more to say.
    Streaming,
    /// A request for a websocket was given out; it is to be accepted, with this key, or refused.
    Upgrading { accept: String },
    /// It is a websocket.
    Socket(Box<Channel>),
    /// Nothing more is read; what waits leaves, then it ends.
    Flushing { reason: Reason, linger: bool },
    /// The refusal has left; input is dropped until the peer has finished, so that no reset overtakes the words.
    Lingering { reason: Reason, until: Time },
    /// Over.
    Closed,
}

/// One connection, server side.
#[derive(Debug)]
pub struct Server {
    caps: Caps,
    phase: Phase,
    scanner: Scanner,
    inbox: Inbox,
    outbox: Outbox,
    events: VecDeque<Output>,
    /// The peer sends no more.
    finished: bool,
    /// What every request is refused with, where nothing is served.
    refusing: Option<String>,
    /// At least one request was answered.
    served: bool,
    /// Since when nothing of a next request has come.
    idle_since: Time,
    /// When bytes last left, or the first of what waits was queued.
    progress_at: Time,
    now: Time,
}

impl Server {
    /// A server for a connection that was accepted at `now`.
    pub fn new(limits: &Limits, now: Time) -> Server {
        let head = head::HeadCaps::new(limits);
        let largest = limits.http_head_bytes + limits.http_sdp_bytes.max(limits.http_json_bytes);
        Server {
            caps: Caps {
                head_ms: limits.http_head_ms,
                idle_ms: limits.http_idle_ms,
                linger_ms: limits.http_linger_ms,
                stuck_ms: limits.viewer_stuck_ms,
                min_bytes_per_s: limits.http_min_bytes_per_s.max(1),
                pipelined: limits.http_pipelined_bytes,
                unread: limits.http_unread_bytes,
                head,
                socket: websocket::Caps::narrow(limits),
            },
            phase: Phase::Head { started: None },
            scanner: Scanner::default(),
            inbox: Inbox::new(largest.max(limits.http_pipelined_bytes)),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            finished: false,
            refusing: None,
            served: false,
            idle_since: now,
            progress_at: now,
            now,
        }
    }

    /// A server on a port that does not serve plain HTTP: it answers the first request with 400 and these words.
    pub fn refusing(text: String, limits: &Limits, now: Time) -> Server {
        Server { refusing: Some(text), ..Server::new(limits, now) }
    }

    /// Whether a request was given out and its answer is owed.
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. } | Phase::Upgrading { .. })
    }

    /// What is asked for on this connection is let in: a websocket's peer may send and be sent more.
    pub fn widen(&mut self) {
        if let Phase::Socket(channel) = &mut self.phase {
            channel.widen();
        }
    }

    /// Whether so much of the answers is unread that no further request is looked at.
    fn is_backlogged(&self) -> bool {
        matches!(self.phase, Phase::Head { .. })
            && self.outbox.queued().saturating_sub(self.outbox.credit()) > self.caps.unread
    }

    /// Why the connection is about to end, if it is.
    pub fn closing(&self) -> Option<&Reason> {
        match &self.phase {
            Phase::Flushing { reason, .. } | Phase::Lingering { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// Bytes that wait for the peer, if this is a websocket.
    pub fn socket_queued(&self) -> Option<usize> {
        match &self.phase {
            Phase::Socket(channel) => Some(channel.queued()),
            _ => None,
        }
    }

    /// Bytes that wait for the peer, if its answer is a body without an end.
    pub fn stream_queued(&self) -> Option<usize> {
        matches!(self.phase, Phase::Streaming).then(|| self.outbox.queued())
    }

    /// As [`Input::Body`].
    pub fn handle_body(&mut self, bytes: Bytes, now: Time) {
        self.handle(Input::Body(bytes), now);
    }

    fn stream(&mut self, response: &Response) {
        let Phase::Waiting { head_only, .. } = self.phase else { return };
        self.push(response.head_of_stream());
        self.served = true;
        if head_only || self.finished {
            self.end(Reason::peer("http_done", "the answer to HEAD has no body"), false);
        } else {
            self.inbox.consume(usize::MAX);
            self.phase = Phase::Streaming;
        }
    }

    fn received(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if let Phase::Socket(channel) = &mut self.phase {
                channel.handle(websocket::Input::Received(bytes), self.now);
                return;
            }
            if self.is_waiting() || self.is_backlogged() {
                if self.inbox.len() + bytes.len() > self.caps.pipelined {
                    self.too_much_waits();
                    return;
                }
            } else if !matches!(self.phase, Phase::Head { .. } | Phase::Body { .. }) {
                return;
            }
            // Little at a time: what is of use does not stay in the inbox.
            let taken = self.inbox.fill(bytes.get(..PIECE).unwrap_or(bytes));
            bytes = bytes.get(taken..).unwrap_or_default();
            self.advance();
            if taken == 0 && !self.is_waiting() && !self.is_backlogged() {
                return;
            }
        }
    }

    /// Makes what it can of the bytes at hand.
    fn advance(&mut self) {
        loop {
            if self.is_backlogged() {
                return;
            }
            match &mut self.phase {
                Phase::Head { started } => {
                    if self.inbox.is_empty() {
                        break;
                    }
                    started.get_or_insert(self.now);
                    match self.scanner.scan(self.inbox.peek(), &self.caps.head) {
                        Ok(Scan::More) => break,
                        Ok(Scan::Head(len)) => {
                            let head = self.inbox.peek().get(..len).unwrap_or_default();
                            match Head::parse(head, &self.caps.head) {
                                Ok(head) => match self.refusing.take() {
                                    Some(text) => {
                                        let refusal = Refusal::peer(400, "http_not_tls", text);
                                        self.refuse(head.shape(refusal), true);
                                    }
                                    None => self.begin_body(head, len),
                                },
                                Err(refusal) => self.refuse(refusal, true),
                            }
                        }
                        Err(refusal) => self.refuse(refusal, true),
                    }
                }
                Phase::Body { head, body, .. } => {
                    let here = self.inbox.len().min(head.length.saturating_sub(body.len()));
                    extend_up_to(head.length, body, self.inbox.peek().get(..here).unwrap_or_default());
                    self.inbox.consume(here);
                    if body.len() < head.length {
                        break;
                    }
                    let body = Bytes::from(std::mem::take(body));
                    let (head_only, close) = (head.head_only(), head.close);
                    let request = std::mem::replace(&mut head.request, Request::empty());
                    let request = Request { body, ..request };
                    if let Some(accept) = head.upgrade.take() {
                        self.phase = Phase::Upgrading { accept };
                        self.events.push_back(Output::Upgrade(request));
                    } else {
                        self.phase = Phase::Waiting { head_only, close };
                        self.events.push_back(Output::Request(request));
                    }
                    if self.inbox.len() > self.caps.pipelined {
                        self.too_much_waits();
                    }
                }
                _ => return,
            }
        }
        if self.finished {
            self.end_of_input();
        }
    }

    /// The answer to the request before still leaves; what came after it is not acted on.
    fn too_much_waits(&mut self) {
        self.inbox.consume(usize::MAX);
        match &mut self.phase {
            Phase::Waiting { close, .. } => *close = true,
            Phase::Head { .. } => {
                let text = format!(
                    "more than {} bytes of requests came while {} bytes of answers were unread",
                    self.caps.pipelined,
                    self.outbox.queued()
                );
                self.outbox.clear();
                self.end(Reason::limit("http_unread_answers", text), false);
            }
            Phase::Upgrading { .. } => {
                let text =
                    format!("more than {} bytes came before the websocket was accepted", self.caps.pipelined);
                self.refuse(Refusal::limit(400, "http_early_frames", text), true);
            }
            _ => {}
        }
    }

    fn accept(&mut self, subprotocol: Option<&str>) {
        let Phase::Upgrading { accept } = &self.phase else { return };
        let head = upgrade::switching(accept, subprotocol);
        self.push(head);
        let outbox = std::mem::take(&mut self.outbox);
        let mut channel = Box::new(Channel::new(Side::Server, outbox, self.caps.socket, self.now));
        let early = self.inbox.take(usize::MAX);
        channel.handle(websocket::Input::Received(&early), self.now);
        if self.finished {
            channel.handle(websocket::Input::PeerFinished, self.now);
        }
        self.phase = Phase::Socket(channel);
    }

    fn begin_body(&mut self, head: Head, len: usize) {
        self.inbox.consume(len);
        self.scanner = Scanner::default();
        if head.expects_continue && head.length > 0 {
            self.push(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"));
        }
        self.phase = Phase::Body { head: Box::new(head), body: Vec::new(), started: self.now };
    }

    /// The peer finished and nothing that it sent makes a further request.
    fn end_of_input(&mut self) {
        match self.phase {
            Phase::Head { .. } if self.inbox.is_empty() => {
                self.end(Reason::peer("peer_closed", "the peer closed the connection"), false);
            }
            Phase::Head { .. } | Phase::Body { .. } => {
                self.end(Reason::peer("http_truncated", "the peer closed in the middle of a request"), false);
            }
            Phase::Streaming => {
                self.end(Reason::peer("peer_closed", "the viewer closed the connection"), false)
            }
            _ => {}
        }
    }

    fn respond(&mut self, response: Response) {
        let (head_only, close) = match self.phase {
            Phase::Waiting { head_only, close } => (head_only, close),
            // Frames may be on their way already: what follows is no request.
            Phase::Upgrading { .. } => (false, true),
            _ => {
                if !matches!(self.phase, Phase::Head { .. } | Phase::Body { .. }) {
                    // It ended while the answer was being made.
                    return;
                }
                let line = format!(
                    "an answer with status {} came without a request; it is dropped",
                    response.status
                );
                self.events.push_back(Output::Log(Level::Error, line));
                return;
            }
        };
        self.push(response.head(close));
        if !head_only && response.may_have_body() {
            self.push(response.body);
        }
        self.served = true;
        self.idle_since = self.now;
        if close {
            self.end(Reason::peer("http_done", "the connection was for one request"), false);
        } else {
            self.phase = Phase::Head { started: None };
            self.advance();
        }
    }

    /// Answers a refusal and ends the connection after it.
    fn refuse(&mut self, refusal: Refusal, linger: bool) {
        let mut response = if refusal.json {
            // Both names, so that clients of either API find the words.
            let words = serde_json::json!({ "error": refusal.text, "errorMessage": refusal.text });
            Response::json(refusal.status, &words)
        } else {
            Response::text(refusal.status, &refusal.text)
        };
        cors::allow_any_origin(&mut response);
        if refusal.status == 426 {
            response.set("Sec-WebSocket-Version", "13");
        }
        self.push(response.head(true));
        if !refusal.head_only {
            self.push(response.body);
        }
        self.end(Reason { fault: refusal.fault, code: refusal.code, text: refusal.text.into() }, linger);
    }

    fn end(&mut self, reason: Reason, linger: bool) {
        self.inbox.consume(usize::MAX);
        self.phase = Phase::Flushing { reason, linger };
    }

    fn push(&mut self, bytes: Bytes) {
        if self.outbox.is_empty() {
            self.progress_at = self.now;
        }
        self.outbox.push(bytes);
    }

    fn phase_deadline(&self) -> Option<Deadline> {
        let after = |t: Time, ms: u64, why| Some(Deadline::new(t + Duration::from_millis(ms), why));
        match &self.phase {
            Phase::Head { started: Some(t) } => after(*t, self.caps.head_ms, "http head"),
            Phase::Head { started: None } if self.served => {
                after(self.idle_since, self.caps.idle_ms, "http idle")
            }
            Phase::Head { started: None } => after(self.idle_since, self.caps.head_ms, "http first byte"),
            Phase::Body { body, started, .. } => {
                let earned = (body.len() as u64).saturating_mul(1000) / self.caps.min_bytes_per_s;
                after(*started, self.caps.head_ms.saturating_add(earned), "http body")
            }
            Phase::Lingering { until, .. } => Some(Deadline::new(*until, "http linger")),
            Phase::Socket(channel) => channel.deadline(),
            Phase::Waiting { .. }
            | Phase::Streaming
            | Phase::Upgrading { .. }
            | Phase::Flushing { .. }
            | Phase::Closed => None,
        }
    }

    fn stuck_deadline(&self) -> Option<Deadline> {
        let at = self.progress_at + Duration::from_millis(self.caps.stuck_ms);
        (!self.outbox.is_empty() && !matches!(self.phase, Phase::Closed))
            .then(|| Deadline::new(at, "http slow reader"))
    }

    /// Does what time alone calls for.
    fn expire(&mut self) {
        if self.stuck_deadline().is_some_and(|d| d.at <= self.now) {
            self.outbox.clear();
            let text = format!("the peer took no byte of its answer for {} ms", self.caps.stuck_ms);
            self.end(Reason::limit("http_slow_reader", text), false);
            return;
        }
        if self.phase_deadline().is_none_or(|d| d.at > self.now) {
            return;
        }
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Head { started: Some(_) } => {
                let text = format!("the head of the request was not complete after {} ms", self.caps.head_ms);
                self.refuse(Refusal::limit(408, "http_head_timeout", text), false);
            }
            Phase::Head { started: None } => {
                let reason = Reason::limit("http_idle", "no request came for too long");
                self.end(reason, false);
            }
            Phase::Body { head, body, .. } => {
                let text = format!(
                    "the body came too slowly: {} of {} bytes, less than {} bytes a second",
                    body.len(),
                    head.length,
                    self.caps.min_bytes_per_s
                );
                self.refuse(head.shape(Refusal::limit(408, "http_body_timeout", text)), false);
            }
            Phase::Lingering { reason, .. } => self.end(reason, false),
            other => self.phase = other,
        }
    }
}

impl Machine for Server {
    type Input<'a> = Input<'a>;
    type Output = Output;

    fn handle(&mut self, input: Input<'_>, now: Time) {
        self.now = now;
        if let Phase::Socket(channel) = &mut self.phase {
            let input = match input {
                Input::Received(bytes) => websocket::Input::Received(bytes),
                Input::Writable(free) => websocket::Input::Writable(free),
                Input::PeerFinished => websocket::Input::PeerFinished,
                Input::Tick
                | Input::Respond(_)
                | Input::Accept { .. }
                | Input::Stream(_)
                | Input::Body(_)
                | Input::EndBody(_) => websocket::Input::Tick,
                Input::Text(text) => websocket::Input::Text(text),
                Input::CloseSocket { code, text } => websocket::Input::Close { code, text },
            };
            return channel.handle(input, now);
        }
        self.expire();
        match input {
            Input::Received(bytes) => self.received(bytes),
            Input::Writable(free) => {
                if free > 0 {
                    self.progress_at = now;
                }
                let backlogged = self.is_backlogged();
                self.outbox.set_credit(free);
                if backlogged {
                    self.advance();
                }
            }
            Input::PeerFinished => {
                self.finished = true;
                self.advance();
                if matches!(self.phase, Phase::Streaming) {
                    self.end_of_input();
                }
            }
            Input::Stream(response) => self.stream(&response),
            Input::Body(bytes) => {
                if matches!(self.phase, Phase::Streaming) {
                    self.push(bytes);
                }
            }
            Input::EndBody(reason) => {
                if matches!(self.phase, Phase::Streaming) {
                    self.end(reason, false);
                }
            }
            Input::Tick => {}
            Input::Respond(response) => self.respond(response),
            Input::Accept { subprotocol } => self.accept(subprotocol),
            // It ended while the message was made.
            Input::Text(_) | Input::CloseSocket { .. } => {}
        }
    }

    fn poll(&mut self) -> Option<Output> {
        if let Some(bytes) = self.outbox.pop() {
            return Some(Output::Send(bytes));
        }
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if let Phase::Socket(channel) = &mut self.phase {
            let said = channel.poll()?;
            return Some(match said {
                websocket::Output::Send(bytes) => Output::Send(bytes),
                websocket::Output::Text(text) => Output::Text(text),
                websocket::Output::Ended { code, text } => Output::SocketEnded { code, text },
                websocket::Output::Closed(reason) => Output::Closed(reason),
            });
        }
        if !self.outbox.is_empty() {
            return None;
        }
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Flushing { reason, linger: true } if !self.finished => {
                let until = self.now + Duration::from_millis(self.caps.linger_ms);
                self.phase = Phase::Lingering { reason, until };
                None
            }
            Phase::Flushing { reason, .. } => Some(Output::Closed(reason)),
            Phase::Lingering { reason, .. } if self.finished => Some(Output::Closed(reason)),
            other => {
                self.phase = other;
                None
            }
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        Deadline::earliest(self.stuck_deadline(), self.phase_deadline())
    }
}

/// The most bytes of a body that a request may bring.
fn body_cap(request: &Request, caps: &head::HeadCaps) -> usize {
    let most =
        if router::takes_sdp(request.method, &request.path) { caps.sdp_bytes } else { caps.json_bytes };
    // What is kept of a large head is held beside the body.
    let head: usize = request.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    most.min(caps.message_bytes.saturating_sub(head))
}

#[cfg(test)]
mod tests;
