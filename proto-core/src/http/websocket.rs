//! Websockets (RFC 6455) once the handshake is over: [`Channel`] is the machine of both ends. The server's handshake is
//! part of [`super::server`], the client's is [`client`].
//!
//! Messages are text only, because the dialects that are spoken here are JSON; extensions are never agreed on, so there
//! is no decompression (abuse A26). A channel keeps its peer awake with pings and gives it up when it stays silent.

pub mod client;
pub mod upgrade;

use crate::buf::{Inbox, Outbox, extend_up_to};
use crate::error::{Reason, quote};
use crate::limits::Limits;
use crate::machine::Machine;
use crate::rand::Rng;
use crate::time::{Deadline, Time};
use crate::wire::websocket::{
    Header, MOST_CONTROL, MOST_HEADER, Malformed, Opcode, close_payload, frame, is_close_code, mask,
};
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;

/// Codes of close frames (RFC 6455 section 7.4.1) that are used here.
pub mod code {
    /// Done.
    pub const NORMAL: u16 = 1000;
    /// The server stops, or the page is left.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// A message of a kind that is not taken (bytes).
    pub const UNSUPPORTED: u16 = 1003;
    /// Never on the wire: a close frame without a code came.
    pub const NONE: u16 = 1005;
    /// Never on the wire: the connection broke without a close frame.
    pub const ABNORMAL: u16 = 1006;
    /// Text that is not UTF-8.
    pub const NOT_UTF8: u16 = 1007;
    /// Something is not allowed.
    pub const POLICY: u16 = 1008;
    /// A message that is too large.
    pub const TOO_BIG: u16 = 1009;
    /// A defect of this server.
    pub const INTERNAL: u16 = 1011;
    /// Come again later.
    pub const TRY_AGAIN: u16 = 1013;
    /// What stands behind this server did not answer as it should.
    pub const BAD_GATEWAY: u16 = 1014;
}

/// What a channel is told.
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
    /// A message for the peer.
    Text(&'a str),
    /// End it: a close frame goes out, and the peer's answer is awaited for a little while.
    Close {
        /// The code; one that may not stand on the wire goes as a close frame without a code.
        code: u16,
        /// Words for whoever looks at the other end.
        text: &'a str,
    },
}

/// What a channel says.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Bytes for the peer, never more than the last `Writable` allowed.
    Send(Bytes),
    /// A message from the peer.
    Text(String),
    /// The peer closed it, or it had to be closed; nothing that is sent from now on arrives. Once at most, and not after
    /// [`Input::Close`].
    Ended {
        /// The code of the close frame, [`code::NONE`] where it had none, [`code::ABNORMAL`] where none came.
        code: u16,
        /// The words of the close frame, or what was wrong.
        text: String,
    },
    /// It is over: what had to leave has left. The last output; later inputs are ignored.
    Closed(Reason),
}

/// Bytes that are looked at in one go: enough for a whole control frame. What belongs to a message goes there at once.
const PIECE: usize = 4 << 10;
const _: () = assert!(PIECE >= MOST_CONTROL + MOST_HEADER);

/// The end that a channel is.
#[derive(Debug)]
pub enum Side {
    /// Frames come masked and leave plain.
    Server,
    /// Frames come plain and leave masked, with keys from this generator.
    Client(Box<Rng>),
}

/// The part of the limits that one channel needs.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    message: usize,
    queue: usize,
    /// What these are (and how many messages a second) once the peer has shown what it is here for.
    wide: (usize, usize, u32),
    ping_ms: u64,
    idle_ms: u64,
    close_ms: u64,
    grace_ms: u64,
    min_bytes_per_s: u64,
    controls_per_s: u32,
    messages_per_s: u32,
}

impl Caps {
    /// What the table says, for a peer that is known.
    pub fn new(limits: &Limits) -> Caps {
        let wide = (limits.ws_message_bytes, limits.ws_queue_bytes, limits.ws_messages_per_s);
        Caps {
            message: wide.0,
            queue: wide.1,
            wide,
            ping_ms: limits.ws_ping_ms,
            idle_ms: limits.ws_idle_ms,
            close_ms: limits.ws_close_ms,
            grace_ms: limits.http_head_ms,
            min_bytes_per_s: limits.http_min_bytes_per_s.max(1),
            controls_per_s: limits.ws_controls_per_s,
            messages_per_s: wide.2,
        }
    }
}

impl Caps {
    /// What the table says, for a peer of which nothing is known yet ([`Channel::widen`]).
    pub fn narrow(limits: &Limits) -> Caps {
        let Caps { message, queue, messages_per_s, .. } = Caps::new(limits);
        Caps {
            messages_per_s: messages_per_s.min(limits.ws_messages_per_s_before),
            message: message.min(limits.ws_message_bytes_before),
            queue: queue.min(limits.ws_queue_bytes_before),
            ..Caps::new(limits)
        }
    }
}

/// The payload of a text frame that is partly here.
#[derive(Clone, Copy, Debug)]
struct Partial {
    fin: bool,
    key: Option<[u8; 4]>,
    left: usize,
}

#[derive(Debug)]
enum State {
    Open,
    /// We sent a close frame and wait for the peer's.
    Closing {
        until: Time,
        reason: Reason,
    },
    /// What waits leaves, then it is over.
    Flushing {
        until: Time,
        reason: Reason,
    },
    Closed,
}

/// One end of a websocket.
#[derive(Debug)]
pub struct Channel {
    side: Side,
    caps: Caps,
    state: State,
    inbox: Inbox,
    outbox: Outbox,
    events: VecDeque<Output>,
    /// The parts of a message so far; `None` between messages.
    message: Option<Vec<u8>>,
    /// The frame that goes on the message.
    partial: Option<Partial>,
    /// What answers the last ping, where answers to earlier ones have not left (RFC 6455 section 5.5.3).
    pong: Option<Vec<u8>>,
    /// When the present second began, and the control frames and messages that came in it.
    second: Time,
    counts: [u32; 2],
    /// Since when a frame or message is partly here.
    partial_since: Option<Time>,
    /// When the last frame came.
    heard: Time,
    /// When the next ping is due, if nothing is heard before.
    ping_at: Time,
    now: Time,
}

impl Channel {
    /// A channel whose handshake ended at `now`. `outbox` is what the connection wrote so far and still waits.
    pub fn new(side: Side, outbox: Outbox, caps: Caps, now: Time) -> Channel {
        Channel {
            side,
            caps,
            state: State::Open,
            inbox: Inbox::new(PIECE),
            outbox,
            events: VecDeque::new(),
            message: None,
            partial: None,
            pong: None,
            second: now,
            counts: [0; 2],
            partial_since: None,
            heard: now,
            ping_at: now + Duration::from_millis(caps.ping_ms),
            now,
        }
    }

    /// Bytes that wait for the peer. Whoever relays into a channel stops reading its source while this is high.
    pub fn queued(&self) -> usize {
        self.outbox.queued()
    }

    /// The peer has shown what it is here for: its messages may be larger, and more may wait for it.
    pub fn widen(&mut self) {
        (self.caps.message, self.caps.queue, self.caps.messages_per_s) = self.caps.wide;
    }

    /// Whether messages still go both ways.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    fn put(&mut self, opcode: Opcode, payload: &[u8]) {
        let key = match &mut self.side {
            Side::Server => None,
            Side::Client(rng) => Some(rng.bytes()),
        };
        self.outbox.push(frame(opcode, payload, key));
        if self.outbox.queued() > self.caps.queue {
            let text =
                format!("more than {} bytes wait for a websocket that reads too slowly", self.caps.queue);
            self.outbox.clear();
            self.over(code::POLICY, Reason::limit("ws_slow_reader", text));
        }
    }

    /// The channel is over without a further frame.
    fn over(&mut self, code: u16, reason: Reason) {
        if self.is_open() {
            self.events.push_back(Output::Ended { code, text: reason.text.to_string() });
        }
        self.inbox.consume(usize::MAX);
        (self.message, self.partial, self.pong) = (None, None, None);
        if !matches!(self.state, State::Flushing { .. } | State::Closed) {
            let until = self.now + Duration::from_millis(self.caps.close_ms);
            self.state = State::Flushing { until, reason };
        }
    }

    /// The peer did what must not be: a close frame says so, and it is over.
    fn fail(&mut self, code: u16, reason: Reason) {
        if self.is_open() {
            let payload = close_payload(code, &reason.text);
            self.put(Opcode::Close, &payload);
        }
        self.over(code, reason);
    }

    fn received(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && matches!(self.state, State::Open | State::Closing { .. }) {
            let taken = self.inbox.fill(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            while self.step() {}
            if taken == 0 {
                break;
            }
        }
        let partial = self.message.is_some() || !self.inbox.is_empty();
        self.partial_since = partial.then(|| self.partial_since.unwrap_or(self.now));
    }

    /// Adds what is here of a frame's payload to the message. Whether the frame is whole.
    fn go_on(&mut self, partial: Partial) -> bool {
        let here = partial.left.min(self.inbox.len());
        let message = self.message.get_or_insert_default();
        let from = message.len();
        let bytes = self.inbox.peek().get(..here).unwrap_or_default();
        extend_up_to(self.caps.message, message, bytes);
        self.inbox.consume(here);
        let mut key = partial.key;
        if let (Some(key), Some(part)) = (&mut key, message.get_mut(from..)) {
            mask(part, *key);
            key.rotate_left(here % 4);
        }
        let left = partial.left - here;
        if left > 0 {
            self.partial = Some(Partial { key, left, ..partial });
            return false;
        }
        self.partial = None;
        self.hears();
        if partial.fin {
            self.whole();
        }
        true
    }

    /// A frame came.
    fn hears(&mut self) {
        self.heard = self.now;
        self.ping_at = self.now + Duration::from_millis(self.caps.ping_ms);
    }

    /// The message is whole.
    fn whole(&mut self) {
        let message = self.message.take().unwrap_or_default();
        self.partial_since = None;
        if self.is_open() && self.too_many(1) {
            let text = format!("more than {} messages in a second", self.caps.messages_per_s);
            return self.fail(code::POLICY, Reason::limit("ws_message_flood", text));
        }
        match String::from_utf8(message) {
            Ok(text) if self.is_open() => self.events.push_back(Output::Text(text)),
            Ok(_) => {}
            Err(_) => {
                let reason = Reason::peer("ws_not_utf8", "a websocket message is not UTF-8");
                self.fail(code::NOT_UTF8, reason);
            }
        }
    }

    /// Takes one frame, if a whole one is here, or what is here of a text frame.
    fn step(&mut self) -> bool {
        if !matches!(self.state, State::Open | State::Closing { .. }) {
            return false;
        }
        if let Some(partial) = self.partial {
            return !self.inbox.is_empty() && self.go_on(partial);
        }
        let (header, at) = match Header::parse(self.inbox.peek()) {
            Ok(Some(found)) => found,
            Ok(None) => return false,
            Err(why) => {
                let what = match why {
                    Malformed::Reserved => "a reserved bit, though no extension was agreed on".to_owned(),
                    Malformed::Opcode(n) => format!("the opcode {n}, which has no meaning"),
                    Malformed::Length => "a length that is not written in the fewest bytes".to_owned(),
                    Malformed::Control => "a control frame that is in parts or too large".to_owned(),
                };
                let text = format!("a websocket frame has {what}");
                self.fail(code::PROTOCOL, Reason::peer("ws_bad_frame", text));
                return false;
            }
        };
        if header.mask.is_some() != matches!(self.side, Side::Server) {
            let text = "a websocket frame is masked where it must not be, or not masked where it must";
            self.fail(code::PROTOCOL, Reason::peer("ws_mask", text));
            return false;
        }
        if header.opcode == Opcode::Binary {
            let text = "only text is spoken on this websocket; a message of bytes came";
            self.fail(code::UNSUPPORTED, Reason::peer("ws_binary", text));
            return false;
        }
        let so_far = self.message.as_ref().map_or(0, Vec::len);
        let fits = usize::try_from(header.len).ok().and_then(|len| len.checked_add(so_far));
        if fits.is_none_or(|len| len > self.caps.message) && !header.opcode.is_control() {
            let text = format!("a websocket message is larger than {} bytes", self.caps.message);
            self.fail(code::TOO_BIG, Reason::limit("ws_message_too_big", text));
            return false;
        }
        let begins = header.opcode == Opcode::Text;
        if !header.opcode.is_control() && begins == self.message.is_some() {
            let text = "a websocket message begins inside another, or goes on where none began";
            self.fail(code::PROTOCOL, Reason::peer("ws_bad_fragment", text));
            return false;
        }
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        if !header.opcode.is_control() {
            self.inbox.consume(at);
            return self.go_on(Partial { fin: header.fin, key: header.mask, left: len });
        }
        if self.inbox.len() - at < len {
            return false;
        }
        self.inbox.consume(at);
        let mut payload = self.inbox.take(len).to_vec();
        if let Some(key) = header.mask {
            mask(&mut payload, key);
        }
        self.hears();
        if self.is_open() && self.too_many(0) {
            let text = format!("more than {} control frames in a second", self.caps.controls_per_s);
            self.fail(code::POLICY, Reason::limit("ws_control_flood", text));
            return false;
        }
        match header.opcode {
            Opcode::Ping if self.is_open() => self.answer_ping(payload),
            Opcode::Close => self.peer_closes(&payload),
            _ => {}
        }
        true
    }

    /// Counts a control frame (0) or a message (1); whether that is one too many in this second.
    fn too_many(&mut self, what: usize) -> bool {
        if self.now.since(self.second) >= Duration::from_secs(1) {
            (self.counts, self.second) = ([0; 2], self.now);
        }
        let most = [self.caps.controls_per_s, self.caps.messages_per_s];
        let (Some(n), Some(most)) = (self.counts.get_mut(what), most.get(what)) else { return false };
        *n = n.saturating_add(1);
        *n > *most
    }

    /// Of pings that come faster than their answers leave, the last is answered.
    fn answer_ping(&mut self, payload: Vec<u8>) {
        if self.outbox.queued() > self.outbox.credit() {
            self.pong = Some(payload);
        } else {
            self.put(Opcode::Pong, &payload);
        }
    }

    fn peer_closes(&mut self, payload: &[u8]) {
        let (code, words) = match payload {
            [] => (code::NONE, ""),
            [high, low, words @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                match std::str::from_utf8(words) {
                    Ok(words) if is_close_code(code) => (code, words),
                    Ok(_) => {
                        let text = format!("a close frame has the code {code}, which may not be in one");
                        return self.fail(code::PROTOCOL, Reason::peer("ws_close_code", text));
                    }
                    Err(_) => {
                        let text = "the words of a close frame are not UTF-8";
                        return self.fail(code::NOT_UTF8, Reason::peer("ws_not_utf8", text));
                    }
                }
            }
            [_] => {
                let text = "a close frame has one byte, half a code";
                return self.fail(code::PROTOCOL, Reason::peer("ws_close_code", text));
            }
        };
        if self.is_open() {
            // The answer repeats the code (RFC 6455 section 5.5.1).
            let answer = payload.get(..2).unwrap_or_default().to_vec();
            self.put(Opcode::Close, &answer);
            if self.is_open() {
                self.events.push_back(Output::Ended { code, text: words.to_owned() });
            }
        }
        let text = if words.is_empty() {
            format!("the peer closed the websocket with code {code}")
        } else {
            format!("the peer closed the websocket with code {code}: {}", quote(words))
        };
        let reason = match std::mem::replace(&mut self.state, State::Closed) {
            State::Closing { reason, .. } | State::Flushing { reason, .. } => reason,
            _ => Reason::peer("ws_closed", text),
        };
        self.inbox.consume(usize::MAX);
        (self.message, self.partial, self.pong) = (None, None, None);
        let until = self.now + Duration::from_millis(self.caps.close_ms);
        self.state = State::Flushing { until, reason };
    }

    fn close(&mut self, code: u16, text: &str) {
        if !self.is_open() {
            return;
        }
        let payload = if is_close_code(code) { close_payload(code, text) } else { Vec::new() };
        self.put(Opcode::Close, &payload);
        let reason = Reason::local("ws_closed", format!("the websocket was closed with code {code}: {text}"));
        let until = self.now + Duration::from_millis(self.caps.close_ms);
        self.events.retain(|e| !matches!(e, Output::Ended { .. }));
        self.state = State::Closing { until, reason };
    }

    fn partial_deadline(&self) -> Option<Deadline> {
        let since = self.partial_since.filter(|_| self.is_open())?;
        let got = self.inbox.len() + self.message.as_ref().map_or(0, Vec::len);
        let earned = (got as u64).saturating_mul(1000) / self.caps.min_bytes_per_s;
        let at = since + Duration::from_millis(self.caps.grace_ms.saturating_add(earned));
        Some(Deadline::new(at, "websocket message"))
    }

    fn expire(&mut self) {
        match &mut self.state {
            State::Open => {
                if self.heard + Duration::from_millis(self.caps.idle_ms) <= self.now {
                    let text = format!("no websocket frame came for {} ms", self.caps.idle_ms);
                    self.outbox.clear();
                    self.over(code::ABNORMAL, Reason::limit("ws_idle", text));
                } else if self.partial_deadline().is_some_and(|d| d.at <= self.now) {
                    let text = "a websocket message comes too slowly";
                    self.fail(code::POLICY, Reason::limit("ws_slow_message", text));
                } else if self.ping_at <= self.now {
                    self.ping_at = self.now + Duration::from_millis(self.caps.ping_ms);
                    self.put(Opcode::Ping, b"");
                }
            }
            State::Closing { until, reason } | State::Flushing { until, reason } => {
                if *until <= self.now {
                    let reason = reason.clone();
                    self.outbox.clear();
                    self.state = State::Flushing { until: self.now, reason };
                }
            }
            State::Closed => {}
        }
    }
}

impl Machine for Channel {
    type Input<'a> = Input<'a>;
    type Output = Output;

    fn handle(&mut self, input: Input<'_>, now: Time) {
        self.now = now;
        self.expire();
        match input {
            Input::Received(bytes) => self.received(bytes),
            Input::Writable(free) => {
                self.outbox.set_credit(free);
                if self.outbox.queued() <= free
                    && let Some(payload) = self.pong.take()
                {
                    self.put(Opcode::Pong, &payload);
                }
            }
            Input::PeerFinished => {
                let text = "the peer closed the connection without a close frame";
                self.over(code::ABNORMAL, Reason::peer("ws_gone", text));
            }
            Input::Tick => {}
            Input::Text(text) => {
                if self.is_open() {
                    self.put(Opcode::Text, text.as_bytes());
                }
            }
            Input::Close { code, text } => self.close(code, text),
        }
    }

    fn poll(&mut self) -> Option<Output> {
        if let Some(bytes) = self.outbox.pop() {
            return Some(Output::Send(bytes));
        }
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if !self.outbox.is_empty() {
            return None;
        }
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Flushing { reason, .. } => Some(Output::Closed(reason)),
            other => {
                self.state = other;
                None
            }
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        match &self.state {
            State::Open => {
                let idle = self.heard + Duration::from_millis(self.caps.idle_ms);
                let soon = Deadline::earliest(
                    Some(Deadline::new(self.ping_at, "websocket ping")),
                    Some(Deadline::new(idle, "websocket idle")),
                );
                Deadline::earliest(soon, self.partial_deadline())
            }
            State::Closing { until, .. } | State::Flushing { until, .. } => {
                Some(Deadline::new(*until, "websocket close"))
            }
            State::Closed => None,
        }
    }
}

#[cfg(test)]
mod tests;
