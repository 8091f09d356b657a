//! A client that says anything to a node, and remembers what it was answered.

use super::CONNS;
use crate::world::actors::{Client, Conn, In, Notes, Out};
use bytes::Bytes;
use proto_core::io::Service;
use proto_core::time::Time;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// What a client remembers of an answer at the most, bytes.
const WORD: usize = 400;

/// Who says anything.
pub(super) struct Anyone {
    ip: IpAddr,
    /// What waits for a connection to stand; nothing waits where it does.
    conns: BTreeMap<Conn, (Service, Option<Vec<Bytes>>)>,
    /// What the node said last, by the letter that requests name it by.
    words: BTreeMap<u8, Vec<u8>>,
    out: VecDeque<Out>,
    notes: Notes,
}

/// What is remembered: its letter, and what stands before it in an answer.
const REMEMBERED: &[(u8, &[u8])] = &[
    (b'L', b"Location: "),
    (b'E', b"ETag: "),
    (b'S', b"Session: "),
    (b'N', b"nonce=\""),
    (b'T', b"\"token\":\""),
    (b'I', b"\"id\":\""),
    (b'J', b"\"subscriberId\":\""),
];

/// What no node ever says: a cookie, and what it is configured with as a secret.
const UNSAID: &[&[u8]] = &[
    b"set-cookie:",
    b"a secret of thirty-two characters",
    b"a key that all nodes share",
    b"log me in",
    b"known-to-the-process-only",
    b"5b264d7ea843ea78a580faa38c1bba08",
    b"u:p@",
];

fn keeps_its_secrets(said: &[u8]) {
    for words in UNSAID {
        let there = said.windows(words.len()).any(|w| w.eq_ignore_ascii_case(words));
        assert!(!there, "a node said {}: {}", String::from_utf8_lossy(words), String::from_utf8_lossy(said));
    }
}

impl Anyone {
    pub(super) fn new(ip: IpAddr) -> Anyone {
        Anyone {
            ip,
            conns: BTreeMap::new(),
            words: BTreeMap::new(),
            out: VecDeque::new(),
            notes: Notes::default(),
        }
    }

    /// From now on it dials another node.
    pub(super) fn turns_to(&mut self, ip: IpAddr) {
        self.ip = ip;
    }

    /// Says something on a connection, which is made if there is none to that service.
    pub(super) fn say(&mut self, conn: Conn, service: Service, bytes: &[u8]) {
        let bytes = self.filled(bytes);
        if self.conns.get(&conn).is_some_and(|(to, _)| *to != service) {
            self.close(conn, false);
        }
        let ip = self.ip;
        let out = &mut self.out;
        let (_, waiting) = self.conns.entry(conn).or_insert_with(|| {
            let port = match service {
                Service::Rtmp => 1935,
                Service::Rtsp => 8554,
                Service::Link => 5090,
                _ => 5080,
            };
            out.push_back(Out::Dial(conn, SocketAddr::new(ip, port)));
            (service, Some(Vec::new()))
        });
        match waiting {
            Some(waiting) => waiting.push(bytes),
            None => out.push_back(Out::Send(conn, bytes)),
        }
    }

    pub(super) fn close(&mut self, conn: Conn, at_once: bool) {
        if self.conns.remove(&conn).is_some() {
            self.out.push_back(Out::Close(conn, at_once));
        }
    }

    pub(super) fn datagram(&mut self, to: SocketAddr, bytes: &[u8]) {
        self.out.push_back(Out::Datagram { port: 40_000, to, bytes: Bytes::copy_from_slice(bytes) });
    }

    /// `{L}` and its like become what the node said.
    fn filled(&self, bytes: &[u8]) -> Bytes {
        let mut filled = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let [first, after @ ..] = rest {
            let word = match rest {
                [b'{', letter, b'}', ..] => self.words.get(letter),
                _ => None,
            };
            match word {
                Some(word) => {
                    filled.extend_from_slice(word);
                    rest = &rest[3..];
                }
                None => {
                    filled.push(*first);
                    rest = after;
                }
            }
        }
        filled.into()
    }

    fn remember(&mut self, bytes: &[u8]) {
        for (letter, before) in REMEMBERED {
            let Some(at) = bytes.windows(before.len()).position(|w| w.eq_ignore_ascii_case(before)) else {
                continue;
            };
            let word = bytes[at + before.len()..].iter().take(WORD);
            let word: Vec<u8> = word.copied().take_while(|b| !b"\r\n\";".contains(b)).collect();
            self.words.insert(*letter, word);
        }
    }
}

impl Client for Anyone {
    fn on(&mut self, input: In<'_>, _now: Time) {
        match input {
            In::Connected(conn) => {
                let waiting = self.conns.get_mut(&conn).and_then(|(_, waiting)| waiting.take());
                self.out.extend(waiting.into_iter().flatten().map(|bytes| Out::Send(conn, bytes)));
            }
            In::Received(_, bytes) => {
                keeps_its_secrets(bytes);
                self.remember(bytes);
            }
            In::Finished(conn) => self.close(conn, false),
            In::Closed(conn, _) => _ = self.conns.remove(&conn),
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

    fn leave(&mut self, _now: Time) {
        for conn in 0..Conn::from(CONNS) {
            self.close(conn, false);
        }
    }
}
