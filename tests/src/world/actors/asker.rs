//! A client that asks one thing by HTTP/1.1.

use super::{Client, In, Notes, Out};
use bytes::Bytes;
use proto_core::time::Time;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// One GET and its answer.
pub struct Asker {
    request: Bytes,
    answer: Vec<u8>,
    /// Status line and headers, once the answer has come.
    pub head: String,
    /// Status and body, or why there is none.
    pub result: Option<Result<(u16, String), String>>,
    out: VecDeque<Out>,
    notes: Notes,
}

impl Asker {
    /// Will ask `to` for `path`.
    pub fn new(to: SocketAddr, path: &str) -> Asker {
        Asker::with_method(to, "GET", path)
    }

    /// As [`Asker::new`], with another method than GET and no body.
    pub fn with_method(to: SocketAddr, method: &str, path: &str) -> Asker {
        Asker::with_headers(to, method, path, "")
    }

    /// As [`Asker::with_method`], with more headers, each with its line's end.
    pub fn with_headers(to: SocketAddr, method: &str, path: &str, headers: &str) -> Asker {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n{headers}\r\n");
        Asker {
            request: request.into(),
            answer: Vec::new(),
            head: String::new(),
            result: None,
            out: VecDeque::from([Out::Dial(0, to)]),
            notes: Notes::default(),
        }
    }

    fn end(&mut self) -> Result<(u16, String), String> {
        let text = String::from_utf8_lossy(&self.answer).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").ok_or(format!("no answer but {text:?}"))?;
        head.clone_into(&mut self.head);
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or("no status")?;
        let length = head.lines().find_map(|l| {
            let (name, value) = l.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        match length {
            Some(n) if n != body.len() => Err(format!("{} of {n} bytes came", body.len())),
            _ => Ok((status, body.to_owned())),
        }
    }
}

impl Client for Asker {
    fn on(&mut self, input: In<'_>, _now: Time) {
        match input {
            In::Connected(_) => self.out.push_back(Out::Send(0, self.request.clone())),
            In::Received(_, bytes) => self.answer.extend_from_slice(bytes),
            In::Finished(_) if self.result.is_none() => {
                self.result = Some(self.end());
                self.out.push_back(Out::Close(0, false));
            }
            In::Closed(_, why) if self.result.is_none() => self.result = Some(Err(why.to_owned())),
            _ => {}
        }
    }

    fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        None
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }
}
