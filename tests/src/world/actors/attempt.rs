//! A client that says what it is told to, and remembers what comes back: one attempt at something.

use super::{Client, In, Notes, Out, Standing};
use bytes::Bytes;
use proto_core::time::Time;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// The port that its datagrams come from.
const PORT: u16 = 41_000;

/// One thing that an attempt does.
#[derive(Clone, Debug)]
pub enum Say {
    /// Sends bytes on its connection.
    Bytes(Bytes),
    /// Sends a datagram.
    Datagram(SocketAddr, Bytes),
    /// Waits until so many bytes came in all.
    Heard(usize),
    /// Waits.
    Wait(Duration),
}

impl From<Vec<u8>> for Say {
    fn from(bytes: Vec<u8>) -> Say {
        Say::Bytes(bytes.into())
    }
}

impl From<String> for Say {
    fn from(text: String) -> Say {
        Say::Bytes(text.into())
    }
}

/// One connection, or some datagrams, and what came of them.
pub struct Attempt {
    steps: VecDeque<Say>,
    /// What came on the connection.
    pub heard: Vec<u8>,
    /// The datagrams that came.
    pub datagrams: Vec<Vec<u8>>,
    /// Why the connection is over, if it is.
    pub closed: Option<String>,
    open: bool,
    until: Option<Time>,
    credit: usize,
    out: VecDeque<Out>,
    notes: Notes,
}

impl Attempt {
    /// Will dial `to` (none: it only sends datagrams) and do all of `steps`.
    pub fn new(to: Option<SocketAddr>, steps: impl IntoIterator<Item = Say>) -> Attempt {
        Attempt {
            steps: steps.into_iter().collect(),
            heard: Vec::new(),
            datagrams: Vec::new(),
            closed: None,
            open: to.is_none(),
            until: None,
            credit: 0,
            out: to.map(|to| Out::Dial(0, to)).into_iter().collect(),
            notes: Notes::default(),
        }
    }

    /// Whether it has done all, or cannot.
    pub fn is_done(&self) -> bool {
        self.steps.is_empty() && self.until.is_none() || self.closed.is_some()
    }

    /// Closes its connection.
    pub fn hang_up(&mut self) {
        if self.closed.is_none() {
            self.out.push_back(Out::Close(0, true));
            self.closed = Some("it hung up".to_owned());
        }
    }

    fn go(&mut self, now: Time) {
        while self.open && self.until.is_none_or(|at| at <= now) {
            self.until = None;
            match self.steps.pop_front() {
                None => return,
                Some(Say::Bytes(mut bytes)) => {
                    let part = bytes.split_to(bytes.len().min(self.credit));
                    self.credit -= part.len();
                    if !part.is_empty() {
                        self.out.push_back(Out::Send(0, part));
                    }
                    if !bytes.is_empty() {
                        self.steps.push_front(Say::Bytes(bytes));
                        return;
                    }
                }
                Some(Say::Datagram(to, bytes)) => self.out.push_back(Out::Datagram { port: PORT, to, bytes }),
                Some(Say::Heard(n)) if self.heard.len() < n => {
                    self.steps.push_front(Say::Heard(n));
                    return;
                }
                Some(Say::Heard(_)) => {}
                Some(Say::Wait(time)) => self.until = Some(now + time),
            }
        }
    }
}

impl Client for Attempt {
    fn on(&mut self, input: In<'_>, now: Time) {
        match input {
            In::Connected(_) => self.open = true,
            In::Writable(_, free) => self.credit = free,
            In::Received(_, bytes) => self.heard.extend_from_slice(bytes),
            In::Finished(_) => self.hang_up(),
            In::Closed(_, why) => {
                self.closed.get_or_insert_with(|| why.to_owned());
            }
            In::Datagram { bytes, .. } => self.datagrams.push(bytes.to_vec()),
            In::Accepted(_) | In::Address(_) | In::Tick => {}
        }
        self.go(now);
    }

    fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        self.until
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    fn standing(&self) -> Standing {
        Standing { ended: self.closed.is_some(), ..Standing::default() }
    }
}
