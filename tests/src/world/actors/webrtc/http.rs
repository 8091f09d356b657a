//! A small HTTP/1.1 client (RFC 9112): one question at a time, over one connection that is kept as long as the server
//! keeps it.

use crate::world::actors::{Conn, In, Out};
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// The number of the client's only TCP connection.
const CONN: Conn = 0;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Response {
    /// The value of a header, by its name in lower case.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Dialling,
    Open,
}

/// The client's end of its connection.
#[derive(Debug)]
pub(super) struct Http {
    state: State,
    question: Option<Bytes>,
    /// The question went out on a connection that had served another: the server may have closed it meanwhile.
    reused: bool,
    answer: Vec<u8>,
}

impl Http {
    pub(super) fn new() -> Http {
        Http { state: State::Closed, question: None, reused: false, answer: Vec::new() }
    }

    /// Asks `to`; the answer comes out of [`Http::on`]. A question that waits is forgotten.
    pub(super) fn ask(
        &mut self,
        to: SocketAddr,
        method: &str,
        path: &str,
        sdp: Option<&str>,
        out: &mut VecDeque<Out>,
    ) {
        let body = sdp.unwrap_or_default();
        let kind = if sdp.is_some() { "Content-Type: application/sdp\r\n" } else { "" };
        let length = body.len();
        let text =
            format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\n{kind}Content-Length: {length}\r\n\r\n{body}");
        let unanswered = self.question.replace(text.into()).is_some();
        if self.state != State::Closed && unanswered {
            self.close(true, out);
        }
        self.answer.clear();
        self.reused = self.state == State::Open;
        match self.state {
            State::Open => self.send(out),
            State::Dialling | State::Closed => self.dial(to, out),
        }
    }

    /// Closes the connection and forgets its question.
    pub(super) fn close(&mut self, at_once: bool, out: &mut VecDeque<Out>) {
        if self.state != State::Closed {
            out.push_back(Out::Close(CONN, at_once));
        }
        self.state = State::Closed;
    }

    /// The client has come to another network: the connection is given up, and a question that waits is asked again.
    pub(super) fn moved(&mut self, to: SocketAddr, out: &mut VecDeque<Out>) {
        self.close(true, out);
        self.answer.clear();
        if self.question.is_some() {
            self.dial(to, out);
        }
    }

    /// Forgets the question, if one waits, and closes.
    pub(super) fn give_up(&mut self, out: &mut VecDeque<Out>) {
        self.question = None;
        self.close(true, out);
    }

    fn dial(&mut self, to: SocketAddr, out: &mut VecDeque<Out>) {
        self.state = State::Dialling;
        out.push_back(Out::Dial(CONN, to));
    }

    fn send(&mut self, out: &mut VecDeque<Out>) {
        if let Some(question) = &self.question {
            out.push_back(Out::Send(CONN, question.clone()));
        }
    }

    /// Takes what happened to the connection to `to`. Answers with the response, or with why there will be none.
    pub(super) fn on(
        &mut self,
        input: &In<'_>,
        to: SocketAddr,
        out: &mut VecDeque<Out>,
    ) -> Option<Result<Response, String>> {
        match input {
            In::Connected(_) => {
                self.state = State::Open;
                self.send(out);
                None
            }
            In::Received(_, bytes) => {
                self.answer.extend_from_slice(bytes);
                self.question.as_ref()?;
                let response = match read(&self.answer) {
                    Ok(response) => response?,
                    Err(e) => {
                        self.give_up(out);
                        return Some(Err(e));
                    }
                };
                self.question = None;
                self.answer.clear();
                if response.get("connection").is_some_and(|c| c.eq_ignore_ascii_case("close")) {
                    self.close(false, out);
                }
                Some(Ok(response))
            }
            In::Finished(_) => {
                self.close(false, out);
                self.lost("the server closed the connection", to, out)
            }
            In::Closed(_, why) => {
                self.state = State::Closed;
                self.lost(why, to, out)
            }
            _ => None,
        }
    }

    fn lost(
        &mut self,
        why: &str,
        to: SocketAddr,
        out: &mut VecDeque<Out>,
    ) -> Option<Result<Response, String>> {
        self.question.as_ref()?;
        if std::mem::take(&mut self.reused) && self.answer.is_empty() {
            self.dial(to, out);
            return None;
        }
        self.question = None;
        Some(Err(why.to_owned()))
    }
}

/// Reads an answer, `None` while it is not whole.
fn read(bytes: &[u8]) -> Result<Option<Response>, String> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|e| format!("the head is no text: {e}"))?;
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.1 ")
        .and_then(|l| l.get(..3)?.parse().ok())
        .ok_or_else(|| format!("no status line: {first:?}"))?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|l| l.split_once(':'))
        .map(|(n, v)| (n.trim().to_ascii_lowercase(), v.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(n, _)| n == "content-length").map(|(_, v)| v.parse::<usize>());
    let length = length.unwrap_or(Ok(0)).map_err(|e| format!("a bad Content-Length: {e}"))?;
    let Some(body) = bytes.get(end + 4..end + 4 + length) else { return Ok(None) };
    if bytes.len() > end + 4 + length {
        return Err("more bytes than the answer has".to_owned());
    }
    let body = String::from_utf8(body.to_vec()).map_err(|e| format!("the body is no text: {e}"))?;
    Ok(Some(Response { status, headers, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to() -> SocketAddr {
        "10.0.0.1:5080".parse().unwrap()
    }

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let bytes = b"HTTP/1.1 201 Created\r\nLocation: /x\r\nContent-Length: 3\r\n\r\nabc";
        for n in 0..bytes.len() {
            assert_eq!(read(&bytes[..n]), Ok(None));
        }
        let response = read(bytes).unwrap().unwrap();
        assert_eq!((response.status, response.get("location"), &*response.body), (201, Some("/x"), "abc"));
        assert!(read(b"HTTP/1.1 200 OK\r\n\r\nx").is_err());
        assert!(read(b"nonsense\r\n\r\n").is_err());
    }

    #[test]
    fn a_connection_that_died_between_two_questions_is_dialled_anew_once() {
        let (mut http, mut out) = (Http::new(), VecDeque::new());
        http.ask(to(), "POST", "/whip/live/a", Some("v=0\r\n"), &mut out);
        assert!(matches!(out.pop_front(), Some(Out::Dial(CONN, a)) if a == to()));
        assert_eq!(http.on(&In::Connected(CONN), to(), &mut out), None);
        let Some(Out::Send(CONN, sent)) = out.pop_front() else { panic!("it asks") };
        assert!(sent.ends_with(b"Content-Length: 5\r\n\r\nv=0\r\n"));
        let answer = http.on(&In::Received(CONN, b"HTTP/1.1 204 No Content\r\n\r\n"), to(), &mut out);
        assert_eq!(answer.unwrap().unwrap().status, 204);
        http.ask(to(), "DELETE", "/x", None, &mut out);
        assert!(matches!(out.pop_front(), Some(Out::Send(..))));
        assert_eq!(http.on(&In::Closed(CONN, "reset"), to(), &mut out), None);
        assert!(matches!(out.pop_front(), Some(Out::Dial(..))));
        assert_eq!(http.on(&In::Closed(CONN, "refused"), to(), &mut out), Some(Err("refused".into())));
    }
}
