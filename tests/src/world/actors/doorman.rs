//! The operator's own program that nodes ask who may (`auth.callback`): an HTTP server that answers by a small table, or
//! badly in one of the ways in which such programs are.

use super::{Client, Conn, In, Notes, Out};
use bytes::Bytes;
use proto_core::time::Time;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// The port on which it listens.
pub const PORT: u16 = 9000;

/// How it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mood {
    /// By its table.
    Well,
    /// By its table, this much later.
    Slow(Duration),
    /// Never.
    Hangs,
    /// It takes no connection.
    Down,
    /// It closes each connection unanswered.
    Drops,
    /// With this status to everything.
    Status(u16),
    /// With this as a whole answer.
    Says(&'static str),
    /// With bytes without end.
    Floods,
    /// With a byte of its answer each second.
    Drips,
}

/// The program.
pub struct Doorman {
    mood: Mood,
    /// What it answers to a publisher's or viewer's name of a stream, 200 and JSON; 403 to all others.
    table: BTreeMap<String, String>,
    /// What it was asked, in order.
    pub asked: Vec<Value>,
    coming: BTreeMap<Conn, Vec<u8>>,
    due: VecDeque<(Time, Conn, Bytes)>,
    out: VecDeque<Out>,
    notes: Notes,
}

impl Doorman {
    /// A program that lets in whoever names one of these, with the JSON that it says then.
    pub fn new(table: &[(&str, &str)]) -> Doorman {
        Doorman {
            mood: Mood::Well,
            table: table.iter().map(|(name, says)| ((*name).to_owned(), (*says).to_owned())).collect(),
            asked: Vec::new(),
            coming: BTreeMap::new(),
            due: VecDeque::new(),
            out: VecDeque::new(),
            notes: Notes::default(),
        }
    }

    /// Changes how it answers from now on.
    pub fn is(&mut self, mood: Mood) {
        self.mood = mood;
    }

    /// Says something else of a name; nothing: it may not any more.
    pub fn says(&mut self, name: &str, says: Option<&str>) {
        match says {
            Some(says) => _ = self.table.insert(name.to_owned(), says.to_owned()),
            None => _ = self.table.remove(name),
        }
    }

    fn received(&mut self, conn: Conn, bytes: &[u8], now: Time) {
        let Some(all) = self.coming.get_mut(&conn) else { return };
        all.extend_from_slice(bytes);
        let text = String::from_utf8_lossy(all).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return };
        let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
        if length.is_none_or(|n| body.len() < n) {
            return;
        }
        self.coming.remove(&conn);
        let asked: Value = serde_json::from_str(body).unwrap_or_default();
        let (status, says) = match self.table.get(asked["stream"].as_str().unwrap_or_default()) {
            Some(says) => (200, says.clone()),
            None => (403, r#"{"reason":"not in the table"}"#.to_owned()),
        };
        self.asked.push(asked);
        let answer = |status: u16, body: &str| {
            format!(
                "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            )
        };
        let (after, text) = match &self.mood {
            Mood::Well | Mood::Down => (Duration::ZERO, answer(status, &says)),
            Mood::Slow(by) => (*by, answer(status, &says)),
            Mood::Hangs => return,
            Mood::Drops => return self.out.push_back(Out::Close(conn, true)),
            Mood::Status(other) => (Duration::ZERO, answer(*other, "")),
            Mood::Says(text) => (Duration::ZERO, (*text).to_owned()),
            Mood::Floods => (Duration::ZERO, format!("HTTP/1.1 200 x\r\n\r\n{}", "x".repeat(1 << 20))),
            Mood::Drips => {
                for (n, byte) in answer(status, &says).into_bytes().into_iter().enumerate() {
                    let at = now + Duration::from_secs(n as u64);
                    self.due.push_back((at, conn, Bytes::copy_from_slice(&[byte])));
                }
                return;
            }
        };
        self.due.push_back((now + after, conn, text.into()));
    }
}

impl Client for Doorman {
    fn on(&mut self, input: In<'_>, now: Time) {
        match input {
            In::Accepted(conn) => _ = self.coming.insert(conn, Vec::new()),
            In::Received(conn, bytes) => self.received(conn, bytes, now),
            In::Finished(conn) => self.out.push_back(Out::Close(conn, false)),
            In::Closed(conn, _) => {
                self.coming.remove(&conn);
                self.due.retain(|(_, of, _)| *of != conn);
            }
            _ => {}
        }
        let (due, later): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.due).into_iter().partition(|(at, ..)| *at <= now);
        self.due = later;
        self.out.extend(due.into_iter().map(|(_, conn, bytes)| Out::Send(conn, bytes)));
    }

    fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        self.due.iter().map(|(at, ..)| *at).min()
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    fn listens(&self, port: u16) -> bool {
        port == PORT && self.mood != Mood::Down
    }
}
