//! One HTTP/1.1 request on a connection of its own, and its answer: what the manager's proxy carries to nodes for WHIP and
//! WHEP, what one loop of a process asks of another, and what the node asks of servers that its operator named.

use super::message::{Method, Response};
use crate::buf::{Inbox, Outbox};
use crate::error::Reason;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::time::{Deadline, Time};
use bytes::{BufMut, Bytes, BytesMut};
use std::time::Duration;

/// Headers of an answer that are carried on. Framing is each connection's own, and the rest concerns nobody else.
const CARRIED: [&str; 17] = [
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
    "headwater-sound",
    "accept-patch",
    "accept-post",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-allow-credentials",
    "vary",
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
    Body { response: Response, body: Body },
    Answered(Response),
    Failed(Reason),
    Closed,
}

/// How the end of a body is told (RFC 9112, section 6.3).
#[derive(Debug)]
enum Body {
    /// By its length.
    Length(usize),
    /// It comes in chunks, the last of which is empty; what came of it.
    Chunks(BytesMut),
    /// By the end of the connection; what came of it.
    UntilClosed(BytesMut),
}

/// The most bytes of the line before a chunk, extensions included.
const CHUNK_LINE: usize = 1_024;

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

    /// The same, which takes an answer of so many bytes.
    #[must_use]
    pub fn taking(mut self, bytes: usize) -> Client {
        self.body_bytes = bytes;
        self.inbox.set_cap(self.head_bytes.saturating_add(bytes));
        self
    }

    /// The same, which waits for the answer no longer than this from `now` on, milliseconds.
    #[must_use]
    pub fn within(mut self, answer_ms: u64, now: Time) -> Client {
        self.until = now + Duration::from_millis(answer_ms);
        self.answer_ms = answer_ms;
        self
    }

    fn fail(&mut self, reason: Reason) {
        self.phase = Phase::Failed(reason);
    }

    fn received(&mut self, mut bytes: &[u8]) {
        while matches!(self.phase, Phase::Waiting | Phase::Body { .. }) {
            let taken = self.inbox.fill(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            if let Phase::Waiting = self.phase {
                match self.head() {
                    Ok(Some((response, body))) => self.phase = Phase::Body { response, body },
                    Ok(None) if !bytes.is_empty() || self.inbox.len() > self.head_bytes => {
                        let text = format!("the head of the answer is larger than {} bytes", self.head_bytes);
                        return self.fail(Reason::limit("proxy_answer_too_large", text));
                    }
                    Ok(None) => return,
                    Err(text) => return self.fail(Reason::peer("proxy_bad_answer", text)),
                }
            }
            match self.body() {
                Ok(Some(whole)) => self.answered(whole),
                Ok(None) if bytes.is_empty() => return,
                Ok(None) if taken > 0 => {}
                Ok(None) => {
                    let text =
                        format!("the answer has more than the {} bytes that are taken", self.body_bytes);
                    return self.fail(Reason::limit("proxy_answer_too_large", text));
                }
                Err(reason) => return self.fail(reason),
            }
        }
    }

    fn answered(&mut self, whole: Bytes) {
        if let Phase::Body { response, .. } = &mut self.phase {
            let mut response = std::mem::replace(response, Response::new(500));
            response.body = whole;
            self.phase = Phase::Answered(response);
        }
    }

    /// The body, once it is whole.
    fn body(&mut self) -> Result<Option<Bytes>, Reason> {
        let (inbox, most) = (&mut self.inbox, self.body_bytes);
        let large = || {
            let text = format!("the answer has more than the {most} bytes that are taken");
            Reason::limit("proxy_answer_too_large", text)
        };
        let Phase::Body { body, .. } = &mut self.phase else { return Ok(None) };
        match body {
            Body::Length(length) if inbox.len() >= *length => Ok(Some(inbox.take(*length))),
            Body::Length(_) => Ok(None),
            Body::UntilClosed(came) => {
                if came.len() + inbox.len() > most {
                    return Err(large());
                }
                came.put(inbox.take(inbox.len()));
                Ok(None)
            }
            Body::Chunks(came) => loop {
                let bad = |text: &'static str| Reason::peer("proxy_bad_answer", text);
                let (line, size) = match httparse::parse_chunk_size(inbox.peek()) {
                    Ok(httparse::Status::Complete((line, size))) => (line, size),
                    Ok(httparse::Status::Partial) if inbox.len() <= CHUNK_LINE => return Ok(None),
                    _ => return Err(bad("a chunk of the answer has no size that can be read")),
                };
                let size = usize::try_from(size).map_err(|_| large())?;
                if came.len().saturating_add(size) > most {
                    return Err(large());
                }
                // Nothing follows on this connection, so what may stand behind the last chunk is of no interest.
                if size == 0 {
                    return Ok(Some(std::mem::take(came).freeze()));
                }
                match inbox.peek().get(line + size..line + size + 2) {
                    None => return Ok(None),
                    Some(b"\r\n") => {}
                    Some(_) => return Err(bad("a chunk of the answer is longer than it says")),
                }
                inbox.consume(line);
                came.put(inbox.take(size));
                inbox.consume(2);
            },
        }
    }

    /// The head of the answer, once it is whole, and how its body ends.
    fn head(&mut self) -> Result<Option<(Response, Body)>, String> {
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
        let (mut length, mut chunked) = (None, false);
        for header in head.headers.iter() {
            let name = header.name.to_ascii_lowercase();
            let value = String::from_utf8_lossy(header.value).trim().to_owned();
            if name == "content-length" {
                let said =
                    value.parse::<usize>().map_err(|_| "the answer's length is no number".to_owned())?;
                if length.replace(said).is_some() {
                    return Err("the answer tells its length twice".to_owned());
                }
            } else if name == "transfer-encoding" {
                if chunked || !value.eq_ignore_ascii_case("chunked") {
                    return Err("the answer comes in another transfer encoding than chunks".to_owned());
                }
                chunked = true;
            } else if let Some(known) = CARRIED.iter().find(|c| **c == name) {
                response.set(*known, value);
            }
        }
        let body = match length {
            _ if !response.may_have_body() => Body::Length(0),
            Some(_) if chunked => return Err("the answer tells its length in two ways".to_owned()),
            Some(length) if length > self.body_bytes => {
                return Err(format!("the answer has {length} bytes, {} are taken", self.body_bytes));
            }
            Some(length) => Body::Length(length),
            None if chunked => Body::Chunks(BytesMut::new()),
            None => Body::UntilClosed(BytesMut::new()),
        };
        self.inbox.consume(len);
        Ok(Some((response, body)))
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
                if let Phase::Body { body: Body::UntilClosed(came), .. } = &mut self.phase {
                    let whole = std::mem::take(came).freeze();
                    self.answered(whole);
                }
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
            .then(|| Deadline::new(self.until, "the answer to a request"))
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
    fn servers_that_tell_no_length_are_understood_too() {
        let chunks =
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
            5;name=x\r\n{\"a\":\r\n2\r\n1}\r\n0\r\nTrailer: x\r\n\r\n";
        let closed = b"HTTP/1.0 200 OK\r\n\r\n{\"a\":1}";
        for (answer, ends) in [(&chunks[..], false), (closed, true)] {
            for cut in [1, 3, 1_000] {
                let mut client = client();
                for piece in answer.chunks(cut) {
                    client.handle(Input::Received(piece), Time::ZERO);
                }
                if ends {
                    assert_eq!(client.poll(), None, "its end is the connection's");
                    client.handle(Input::PeerFinished, Time::ZERO);
                }
                let Some(Output::Answer(response)) = client.poll() else { panic!("no answer") };
                assert_eq!(&response.body[..], b"{\"a\":1}");
            }
        }
        // However it is cut, no more is taken than there is room for.
        let most = Limits::default().http_sdp_bytes;
        for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"] {
            let mut client = client();
            client.handle(Input::Received(head.as_bytes()), Time::ZERO);
            let chunk = format!("1000\r\n{}\r\n", "x".repeat(4_096));
            for _ in 0..=most / 4_096 {
                client.handle(Input::Received(chunk.as_bytes()), Time::ZERO);
            }
            assert!(matches!(client.poll(), Some(Output::Closed(r)) if r.code == "proxy_answer_too_large"));
        }
    }

    #[test]
    fn what_is_no_answer_is_said() {
        let large = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(20_000));
        for (bytes, code) in [
            (&b"SSH-2.0-x\r\n\r\n"[..], "proxy_bad_answer"),
            (b"HTTP/1.1 101 x\r\n\r\n", "proxy_bad_answer"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "proxy_bad_answer"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "proxy_bad_answer"),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\nx",
                "proxy_bad_answer",
            ),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", "proxy_bad_answer"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "proxy_bad_answer"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", "proxy_answer_too_large"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", "proxy_bad_answer"),
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
