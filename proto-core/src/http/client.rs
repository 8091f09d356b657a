//! One HTTP/1.1 request to another node and its answer: what the manager's proxy carries for WHIP and WHEP.

use super::message::{Method, Response};
use crate::buf::{Inbox, Outbox};
use crate::error::Reason;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::time::{Deadline, Time};
use bytes::{BufMut, Bytes, BytesMut};
use std::time::Duration;

/// Headers of an answer that are carried on. Framing is each connection's own, and the rest concerns nobody else.
const CARRIED: [&str; 10] = [
    "content-type",
    "location",
    "etag",
    "link",
    "session-host",
    "retry-after",
    "headwater-notice",
    "www-authenticate",
    "allow",
    "cache-control",
];

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// The `Host` header: the node's address and port.
    pub host: String,
    /// Path and query, percent-encoded, beginning with `/`.
    pub path: String,
    /// Further headers; values with line breaks are left out.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

/// What the machine is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// Bytes arrived.
    Received(&'a [u8]),
    /// The driver would take this many bytes now (replaces what it said before).
    Writable(usize),
    /// The node sends no more.
    PeerFinished,
    /// Time passed.
    Tick,
}

/// What the machine says.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Bytes for the node, never more than the last `Writable` allowed.
    Send(Bytes),
    /// The whole answer. [`Output::Closed`] follows.
    Answer(Response),
    /// It is over. Without an answer before it: why there is none.
    Closed(Reason),
}

#[derive(Debug)]
enum Phase {
    Waiting,
    Body { response: Response, length: usize },
    Answered(Response),
    Failed(Reason),
    Closed,
}

/// One request on a connection of its own.
#[derive(Debug)]
pub struct Client {
    phase: Phase,
    inbox: Inbox,
    outbox: Outbox,
    headers: usize,
    head_bytes: usize,
    body_bytes: usize,
    until: Time,
    answer_ms: u64,
}

impl Client {
    /// Asks on a connection that stood at `now`.
    pub fn new(ask: &Ask, limits: &Limits, now: Time) -> Client {
        let mut head = BytesMut::new();
        head.put_slice(format!("{} {} HTTP/1.1\r\nHost: {}\r\n", ask.method, ask.path, ask.host).as_bytes());
        for (name, value) in &ask.headers {
            if value.chars().all(|c| matches!(c, ' '..='~')) {
                head.put_slice(format!("{name}: {value}\r\n").as_bytes());
            }
        }
        head.put_slice(format!("Content-Length: {}\r\nConnection: close\r\n\r\n", ask.body.len()).as_bytes());
        let mut outbox = Outbox::default();
        outbox.push(head.freeze());
        outbox.push(ask.body.clone());
        Client {
            phase: Phase::Waiting,
            inbox: Inbox::new(limits.http_head_bytes + limits.http_sdp_bytes),
            outbox,
            headers: limits.http_headers,
            head_bytes: limits.http_head_bytes,
            body_bytes: limits.http_sdp_bytes,
            until: now + Duration::from_millis(limits.proxy_answer_ms),
            answer_ms: limits.proxy_answer_ms,
        }
    }

    fn fail(&mut self, reason: Reason) {
        self.phase = Phase::Failed(reason);
    }

    fn received(&mut self, bytes: &[u8]) {
        if !matches!(self.phase, Phase::Waiting | Phase::Body { .. }) {
            return;
        }
        let taken = self.inbox.fill(bytes);
        if let Phase::Waiting = self.phase {
            match self.head() {
                Ok(Some((response, length))) => self.phase = Phase::Body { response, length },
                Ok(None) if taken < bytes.len() || self.inbox.len() > self.head_bytes => {
                    let text = format!("the head of the answer is larger than {} bytes", self.head_bytes);
                    return self.fail(Reason::limit("proxy_answer_too_large", text));
                }
                Ok(None) => return,
                Err(text) => return self.fail(Reason::peer("proxy_bad_answer", text)),
            }
        }
        if let Phase::Body { response, length } = &mut self.phase
            && self.inbox.len() >= *length
        {
            let mut response = std::mem::replace(response, Response::new(500));
            response.body = self.inbox.take(*length);
            self.phase = Phase::Answered(response);
        }
    }

    /// The head of the answer, once it is whole, and the length of its body.
    fn head(&mut self) -> Result<Option<(Response, usize)>, String> {
        let mut slots = vec![httparse::EMPTY_HEADER; self.headers];
        let mut head = httparse::Response::new(&mut slots);
        let len = match head.parse(self.inbox.peek()) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(format!("the answer is no HTTP: {error}")),
        };
        let status = head.code.unwrap_or_default();
        if !(200..=599).contains(&status) {
            return Err(format!("the answer has the status {status}, which answers nothing"));
        }
        let mut response = Response::new(status);
        let mut length = None;
        for header in head.headers.iter() {
            let name = header.name.to_ascii_lowercase();
            let value = String::from_utf8_lossy(header.value).trim().to_owned();
            if name == "transfer-encoding" || (name == "content-length" && length.is_some()) {
                return Err("the answer's length is not told by one Content-Length".to_owned());
            } else if name == "content-length" {
                length =
                    Some(value.parse::<usize>().map_err(|_| "the answer's length is no number".to_owned())?);
            } else if let Some(known) = CARRIED.iter().find(|c| **c == name) {
                response.set(*known, value);
            }
        }
        let length = length.filter(|_| response.may_have_body()).unwrap_or(0);
        if length > self.body_bytes {
            return Err(format!("the answer has {length} bytes, {} are taken", self.body_bytes));
        }
        self.inbox.consume(len);
        Ok(Some((response, length)))
    }
}

impl Machine for Client {
    type Input<'a> = Input<'a>;
    type Output = Output;

    fn handle(&mut self, input: Input<'_>, now: Time) {
        if matches!(self.phase, Phase::Waiting | Phase::Body { .. }) && self.until <= now {
            let text = format!("no whole answer came within {} ms", self.answer_ms);
            self.fail(Reason::limit("proxy_answer_timeout", text));
        }
        match input {
            Input::Received(bytes) => self.received(bytes),
            Input::Writable(free) => self.outbox.set_credit(free),
            Input::PeerFinished => {
                if matches!(self.phase, Phase::Waiting | Phase::Body { .. }) {
                    let text = "the connection was closed before the answer was whole";
                    self.fail(Reason::peer("proxy_bad_answer", text));
                }
            }
            Input::Tick => {}
        }
    }

    fn poll(&mut self) -> Option<Output> {
        if let Some(bytes) = self.outbox.pop() {
            return Some(Output::Send(bytes));
        }
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Answered(response) => {
                self.phase = Phase::Failed(Reason::local("http_done", "the request was answered"));
                Some(Output::Answer(response))
            }
            Phase::Failed(reason) => Some(Output::Closed(reason)),
            other => {
                self.phase = other;
                None
            }
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        matches!(self.phase, Phase::Waiting | Phase::Body { .. })
            .then(|| Deadline::new(self.until, "the answer to a proxied request"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn client() -> Client {
        let ask = Ask {
            method: Method::Post,
            host: "10.0.0.1:5080".to_owned(),
            path: "/whip/live/a?x=1".to_owned(),
            headers: vec![("Content-Type", "application/sdp".to_owned()), ("Bad", "a\r\nb".to_owned())],
            body: Bytes::from_static(b"v=0\r\n"),
        };
        let mut client = Client::new(&ask, &Limits::default(), Time::ZERO);
        client.handle(Input::Writable(1 << 20), Time::ZERO);
        let mut sent = Vec::new();
        while let Some(Output::Send(bytes)) = client.poll() {
            sent.extend_from_slice(&bytes);
        }
        assert_eq!(
            String::from_utf8(sent).unwrap(),
            "POST /whip/live/a?x=1 HTTP/1.1\r\nHost: 10.0.0.1:5080\r\nContent-Type: application/sdp\r\n\
             Content-Length: 5\r\nConnection: close\r\n\r\nv=0\r\n"
        );
        client
    }

    #[test]
    fn an_answer_is_taken_whole_however_it_is_cut() {
        let answer =
            b"HTTP/1.1 201 Created\r\nContent-Type: application/sdp\r\nLocation: /whip-session/a\r\n\
            Set-Cookie: no\r\nContent-Length: 4\r\n\r\nv=0\n";
        for cut in [1, 7, 1_000] {
            let mut client = client();
            for piece in answer.chunks(cut) {
                client.handle(Input::Received(piece), Time::ZERO);
            }
            let Some(Output::Answer(response)) = client.poll() else { panic!("no answer") };
            assert_eq!((response.status, &response.body[..]), (201, &b"v=0\n"[..]));
            assert_eq!(response.get("location"), Some("/whip-session/a"));
            assert_eq!(response.get("set-cookie"), None);
            assert!(matches!(client.poll(), Some(Output::Closed(r)) if r.code == "http_done"));
            assert_eq!((client.poll(), client.deadline()), (None, None));
        }
        let mut client = client();
        client.handle(
            Input::Received(b"HTTP/1.1 204 No Content\r\nSession-Host: 10.0.0.1\r\n\r\n"),
            Time::ZERO,
        );
        assert!(
            matches!(client.poll(), Some(Output::Answer(r)) if r.status == 204 && r.get("session-host").is_some())
        );
    }

    #[test]
    fn what_is_no_answer_is_said() {
        let large = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(20_000));
        for (bytes, code) in [
            (&b"SSH-2.0-x\r\n\r\n"[..], "proxy_bad_answer"),
            (b"HTTP/1.1 101 x\r\n\r\n", "proxy_bad_answer"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "proxy_bad_answer"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "proxy_bad_answer"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", "proxy_bad_answer"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "proxy_bad_answer"),
            (large.as_bytes(), "proxy_answer_too_large"),
        ] {
            let mut client = client();
            client.handle(Input::Received(bytes), Time::ZERO);
            client.handle(Input::PeerFinished, Time::ZERO);
            assert!(matches!(client.poll(), Some(Output::Closed(r)) if r.code == code), "{code}");
        }
        let mut client = client();
        client.handle(Input::Tick, Time::from_millis(Limits::default().proxy_answer_ms));
        assert!(matches!(client.poll(), Some(Output::Closed(r)) if r.code == "proxy_answer_timeout"));
    }
}
