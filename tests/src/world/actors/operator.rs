//! An operator: somebody who looks at pages and metrics all day, and now and then ends a session.
//!
//! What it asks over the network only reads: a node ends a session only for somebody on its own host.

use super::{Client, In, Notes, Out, Standing};
use crate::world::{ClientId, HostId, World};
use proto_core::error::Reason;
use proto_core::io::{Input, Service};
use proto_core::rand::Rng;
use proto_core::time::Time;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// What an operator looks at.
const PATHS: [&str; 9] = [
    "/",
    "/metrics",
    "/healthz",
    "/readyz",
    "/api/v1/nodes",
    "/api/v1/streams",
    "/api/v1/sessions",
    "/streammanager/api/4.0/event/live/one?action=subscribe",
    "/watch/live/one",
];

/// An operator of one node.
pub struct Operator {
    to: SocketAddr,
    every: Duration,
    rng: Rng,
    next: Option<Time>,
    asked: Option<&'static str>,
    answer: Vec<u8>,
    /// Questions asked.
    pub questions: u64,
    /// Answers that came whole.
    pub answers: u64,
    /// Questions that were cut off, for instance because the node went.
    pub unanswered: u64,
    left: bool,
    out: VecDeque<Out>,
    notes: Notes,
}

impl Operator {
    /// Will ask `to` something every so often.
    pub fn new(to: SocketAddr, every: Duration, rng: Rng, now: Time) -> Operator {
        Operator {
            to,
            every,
            rng,
            next: Some(now),
            asked: None,
            answer: Vec::new(),
            questions: 0,
            answers: 0,
            unanswered: 0,
            left: false,
            out: VecDeque::new(),
            notes: Notes::default(),
        }
    }

    /// Asks no more.
    pub fn leave(&mut self) {
        self.left = true;
        self.next = None;
        if self.asked.take().is_some() {
            self.out.push_back(Out::Close(0, true));
        }
    }

    fn ask(&mut self) {
        self.questions += 1;
        self.answer.clear();
        self.asked = Some(PATHS[self.rng.below(PATHS.len() as u32) as usize]);
        self.out.push_back(Out::Dial(0, self.to));
    }

    fn over(&mut self, now: Time) {
        if self.asked.take().is_some() {
            self.unanswered += 1;
        }
        self.next = (!self.left).then_some(now + self.every);
    }

    /// Checks an answer: a node that is asked something it knows answers, and its numbers are numbers.
    fn read(&mut self, path: &str) {
        let text = String::from_utf8_lossy(&self.answer).into_owned();
        let wrong = match text.split_once("\r\n\r\n") {
            None => Some("no whole head"),
            Some((head, body)) => {
                let status = head.split(' ').nth(1).and_then(|s| s.parse::<u16>().ok());
                let gauge = |l: &str| {
                    l.starts_with('#') || l.rsplit(' ').next().is_some_and(|v| v.parse::<f64>().is_ok())
                };
                match (path, status) {
                    // No manager, or no stream: that is an answer too.
                    (_, Some(404 | 503)) if path.starts_with("/streammanager") || path == "/readyz" => None,
                    (_, s) if s != Some(200) => Some("no 200"),
                    ("/metrics", _) if !body.trim_end().ends_with("# EOF") => Some("metrics without an end"),
                    ("/metrics", _) if !body.lines().all(gauge) => Some("a metric that is no number"),
                    (p, _)
                        if p.starts_with("/api/")
                            && serde_json::from_str::<serde_json::Value>(body).is_err() =>
                    {
                        Some("no JSON")
                    }
                    _ => None,
                }
            }
        };
        match wrong {
            None => self.answers += 1,
            Some(what) => self.out.push_back(Out::Violation("API", format!("{path}: {what}: {text:?}"))),
        }
    }
}

impl Client for Operator {
    fn on(&mut self, input: In<'_>, now: Time) {
        match input {
            In::Tick if self.next.is_some_and(|at| at <= now) => {
                self.next = None;
                self.ask();
            }
            In::Connected(_) => {
                if let Some(path) = self.asked {
                    let head =
                        format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.to);
                    self.out.push_back(Out::Send(0, head.into()));
                }
            }
            In::Received(_, bytes) => self.answer.extend_from_slice(bytes),
            In::Finished(_) => {
                self.out.push_back(Out::Close(0, false));
                if let Some(path) = self.asked.take() {
                    self.read(path);
                }
                self.over(now);
            }
            In::Closed(..) => self.over(now),
            _ => {}
        }
    }

    fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        self.next
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    fn standing(&self) -> Standing {
        Standing { ended: self.left, ..Standing::default() }
    }
}

impl World {
    /// An operator, the `nth`, who asks a node something every so often until it leaves ([`Operator::leave`]).
    pub fn operator(&mut self, at: HostId, every: Duration, nth: u64) -> ClientId {
        let (to, rng) = (self.http_addr(at), self.rng.fork("operator", nth));
        self.add(Box::new(Operator::new(to, every, rng, self.now)))
    }

    /// An operator on a node's own host ends a session by its name (`rtmp-12`). What comes of it is seen at the session.
    pub fn kick(&mut self, at: HostId, session: &str) {
        self.order(at, "DELETE", &format!("/api/v1/sessions/{session}"));
    }

    /// An operator on a node's own host has it do something. What comes of it is seen there.
    pub fn order(&mut self, at: HostId, method: &str, path: &str) {
        let Some((run, conn)) = self.next_accepted(at) else { return };
        let home = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let local = home(self.http_addr(at).port());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.node(at, run, Input::Accepted { conn, service: Service::Http, local, remote: home(50_000) });
        self.node(at, run, Input::Writable { conn, free: 64 << 10 });
        self.node(at, run, Input::Received { conn, bytes: head.as_bytes() });
        self.node(
            at,
            run,
            Input::Closed { conn, reason: Reason::peer("peer_closed", "the operator has gone") },
        );
    }
}
