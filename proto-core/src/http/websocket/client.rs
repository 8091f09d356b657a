//! The client's end of a websocket: the opening handshake (RFC 6455 section 4.1), then a [`Channel`].
//!
//! Nothing is given on before the server has answered with a correct 101, so that no other kind of answer can be taken
//! for messages (abuse A18).

use super::{Caps, Channel, Side};
use crate::buf::{Inbox, Outbox};
use crate::error::{Reason, quote};
use crate::limits::Limits;
use crate::machine::Machine;
use crate::rand::Rng;
use crate::time::{Deadline, Time};
use crate::wire::websocket::{accept_key, client_key};
use bytes::Bytes;
use std::time::Duration;

pub use super::Input;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The `Host` header: the server's address and port.
    pub host: String,
    /// Path and query, percent-encoded, beginning with `/`.
    pub path: String,
    /// Further headers. Their values must be free of line breaks; others are left out.
    pub headers: Vec<(&'static str, String)>,
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Bytes for the server, never more than the last `Writable` allowed.
    Send(Bytes),
    /// The server accepted.
    Opened,
    /// A message from the server.
    Text(String),
    /// The server closed it, or it had to be closed; see [`super::Output::Ended`].
    Ended {
        /// The code.
        code: u16,
        /// The words.
        text: String,
    },
    /// It is over; see [`super::Output::Closed`]. Without [`Output::Opened`] before it, the server did not accept.
    Closed(Reason),
}

#[derive(Debug)]
enum Phase {
    Handshake { accept: String, until: Time },
    Open(Box<Channel>),
    Failed(Reason),
    Closed,
}

/// A websocket that we dialled.
#[derive(Debug)]
pub struct Client {
    caps: Caps,
    head_ms: u64,
    head_bytes: usize,
    headers: usize,
    rng: Rng,
    phase: Phase,
    inbox: Inbox,
    outbox: Outbox,
    opened: bool,
    now: Time,
}

impl Client {
    /// A client on a connection that stood at `now`. It asks for `target` at once.
    pub fn new(target: &Target, limits: &Limits, mut rng: Rng, now: Time) -> Client {
        let key = client_key(rng.bytes());
        let mut head = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n",
            target.path, target.host
        );
        for (name, value) in &target.headers {
            if value.chars().all(|c| matches!(c, ' '..='~')) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        head.push_str("\r\n");
        let mut outbox = Outbox::default();
        outbox.push(head);
        let until = now + Duration::from_millis(limits.http_head_ms);
        Client {
            caps: Caps::new(limits),
            head_ms: limits.http_head_ms,
            head_bytes: limits.http_head_bytes,
            headers: limits.http_headers,
            rng,
            phase: Phase::Handshake { accept: accept_key(&key), until },
            inbox: Inbox::new(limits.http_head_bytes),
            outbox,
            opened: false,
            now,
        }
    }

    /// Bytes that wait for the server.
    pub fn queued(&self) -> usize {
        match &self.phase {
            Phase::Open(channel) => channel.queued(),
            _ => self.outbox.queued(),
        }
    }

    fn received(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Phase::Handshake { accept, .. } = &self.phase else { break };
            let taken = self.inbox.fill(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            match judge(self.inbox.peek(), accept, self.headers) {
                Ok(Some(len)) => {
                    self.inbox.consume(len);
                    let side = Side::Client(Box::new(self.rng.fork("masks", 0)));
                    let outbox = std::mem::take(&mut self.outbox);
                    let mut channel = Box::new(Channel::new(side, outbox, self.caps, self.now));
                    let early = self.inbox.take(usize::MAX);
                    channel.handle(Input::Received(&early), self.now);
                    self.phase = Phase::Open(channel);
                    self.opened = true;
                }
                Ok(None) if taken == 0 => {
                    let text = format!("the answer's head is larger than {} bytes", self.head_bytes);
                    self.phase = Phase::Failed(Reason::limit("ws_head_too_large", text));
                }
                Ok(None) => {}
                Err(reason) => self.phase = Phase::Failed(reason),
            }
        }
        if let Phase::Open(channel) = &mut self.phase {
            channel.handle(Input::Received(bytes), self.now);
        }
    }
}

/// Judges the head of the answer: its length where it is whole and a correct 101.
fn judge(bytes: &[u8], accept: &str, headers: usize) -> Result<Option<usize>, Reason> {
    let refuse = |text: String| Reason::peer("ws_refused", text);
    let mut slots = vec![httparse::EMPTY_HEADER; headers];
    let mut head = httparse::Response::new(&mut slots);
    let len = match head.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => {
            return Err(refuse(format!("the answer to the websocket's request is no HTTP: {error}")));
        }
    };
    let status = head.code.unwrap_or_default();
    if status != 101 {
        let words = quote(head.reason.unwrap_or_default());
        return Err(refuse(format!("the websocket was answered with {status} {words} in place of 101")));
    }
    let values = |name: &str| {
        let of = head.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
        of.map(|h| String::from_utf8_lossy(h.value).trim().to_owned()).collect::<Vec<_>>()
    };
    let token = |name: &str, token: &str| {
        values(name).iter().flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token))
    };
    if !token("upgrade", "websocket") || !token("connection", "upgrade") {
        return Err(refuse("the answer is a 101, but to something else than a websocket".to_owned()));
    }
    if values("sec-websocket-accept") != [accept] {
        return Err(refuse("the answer's Sec-WebSocket-Accept does not fit our key".to_owned()));
    }
    if !values("sec-websocket-extensions").is_empty() || !values("sec-websocket-protocol").is_empty() {
        let text = "the answer has an extension or a subprotocol that was not asked for";
        return Err(refuse(text.to_owned()));
    }
    Ok(Some(len))
}

impl Machine for Client {
    type Input<'a> = Input<'a>;
    type Output = Output;

    fn handle(&mut self, input: Input<'_>, now: Time) {
        self.now = now;
        if let Phase::Handshake { until, .. } = &self.phase
            && *until <= now
        {
            let text = format!("no answer to the websocket's request within {} ms", self.head_ms);
            self.phase = Phase::Failed(Reason::limit("ws_timeout", text));
        }
        match (&mut self.phase, input) {
            (_, Input::Received(bytes)) => self.received(bytes),
            (Phase::Open(channel), input) => channel.handle(input, now),
            (Phase::Handshake { .. }, Input::Writable(free)) => self.outbox.set_credit(free),
            (Phase::Handshake { .. }, Input::PeerFinished) => {
                let text = "the server closed the connection before it answered the websocket's request";
                self.phase = Phase::Failed(Reason::peer("ws_refused", text));
            }
            (Phase::Handshake { .. }, Input::Close { .. }) => {
                let text = "the websocket was given up before it stood";
                self.phase = Phase::Failed(Reason::local("ws_closed", text));
            }
            _ => {}
        }
    }

    fn poll(&mut self) -> Option<Output> {
        if std::mem::take(&mut self.opened) {
            return Some(Output::Opened);
        }
        match &mut self.phase {
            Phase::Handshake { .. } => self.outbox.pop().map(Output::Send),
            Phase::Open(channel) => channel.poll().map(|said| match said {
                super::Output::Send(bytes) => Output::Send(bytes),
                super::Output::Text(text) => Output::Text(text),
                super::Output::Ended { code, text } => Output::Ended { code, text },
                super::Output::Closed(reason) => Output::Closed(reason),
            }),
            Phase::Failed(_) => match std::mem::replace(&mut self.phase, Phase::Closed) {
                Phase::Failed(reason) => Some(Output::Closed(reason)),
                _ => None,
            },
            Phase::Closed => None,
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        match &self.phase {
            Phase::Handshake { until, .. } => Some(Deadline::new(*until, "websocket handshake")),
            Phase::Open(channel) => channel.deadline(),
            Phase::Failed(_) | Phase::Closed => None,
        }
    }
}
