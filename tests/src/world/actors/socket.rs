//! A client that opens a websocket. It uses the project's own client machine; browsers check the server's end elsewhere.

use super::{Client, Conn, In, Notes, Out};
use proto_core::http::websocket::client::{self, Input, Output, Target};
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::rand::Rng;
use proto_core::time::Time;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// What is heard on a websocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It stands.
    Opened,
    /// A message.
    Text(String),
    /// The other end closed it, with this code.
    Ended(u16),
    /// It is over.
    Closed(String),
}

/// A websocket on one of a client's connections.
pub(super) struct Line {
    conn: Conn,
    to: SocketAddr,
    path: String,
    machine: Option<client::Client>,
    over: bool,
    pub(super) heard: VecDeque<Heard>,
    pub(super) out: VecDeque<Out>,
}

impl Line {
    /// Will open `path`, query included, at `to`.
    pub(super) fn new(conn: Conn, to: SocketAddr, path: String) -> Line {
        let (heard, out) = (VecDeque::new(), VecDeque::from([Out::Dial(conn, to)]));
        Line { conn, to, path, machine: None, over: false, heard, out }
    }

    /// Sends a message.
    pub(super) fn send(&mut self, text: &str, now: Time) {
        self.tell(Input::Text(text), now);
    }

    /// Closes it in good order; before it stands, without a word.
    pub(super) fn close(&mut self, now: Time) {
        match self.machine {
            Some(_) => self.tell(Input::Close { code: 1000, text: "" }, now),
            None => self.drop(),
        }
    }

    /// Closes its connection without a word.
    pub(super) fn drop(&mut self) {
        self.machine = None;
        if !std::mem::replace(&mut self.over, true) {
            self.out.push_back(Out::Close(self.conn, true));
        }
    }

    fn over(&mut self, why: String) {
        self.machine = None;
        if !std::mem::replace(&mut self.over, true) {
            self.heard.push_back(Heard::Closed(why));
        }
    }

    fn tell(&mut self, input: Input<'_>, now: Time) {
        let Some(machine) = &mut self.machine else { return };
        machine.handle(input, now);
        while let Some(output) = machine.poll() {
            match output {
                Output::Send(bytes) => self.out.push_back(Out::Send(self.conn, bytes)),
                Output::Opened => self.heard.push_back(Heard::Opened),
                Output::Text(text) => self.heard.push_back(Heard::Text(text)),
                Output::Ended { code, .. } => self.heard.push_back(Heard::Ended(code)),
                Output::Closed(reason) => {
                    self.out.push_back(Out::Close(self.conn, false));
                    return self.over(reason.to_string());
                }
            }
        }
    }

    /// Takes what the client was told.
    pub(super) fn on(&mut self, input: &In<'_>, now: Time) {
        if self.over {
            return;
        }
        match input {
            In::Connected(conn) if *conn == self.conn => {
                let target = Target { host: self.to.to_string(), path: self.path.clone(), headers: vec![] };
                let rng = Rng::new([9; 32]).fork(&self.path, now.as_nanos());
                self.machine = Some(client::Client::new(&target, &Limits::default(), rng, now));
                self.tell(Input::Tick, now);
            }
            In::Writable(conn, free) if *conn == self.conn => self.tell(Input::Writable(*free), now),
            In::Received(conn, bytes) if *conn == self.conn => self.tell(Input::Received(bytes), now),
            In::Finished(conn) if *conn == self.conn => self.tell(Input::PeerFinished, now),
            In::Closed(conn, why) if *conn == self.conn => self.over((*why).to_owned()),
            In::Tick => self.tell(Input::Tick, now),
            _ => {}
        }
    }

    pub(super) fn wake(&self) -> Option<Time> {
        self.machine.as_ref().and_then(Machine::deadline).map(|d| d.at)
    }
}

/// A websocket and what was heard on it.
pub struct Socket {
    line: Line,
    /// Whether it stands or stood.
    pub opened: bool,
    /// Messages that came, with when.
    pub texts: Vec<(Time, String)>,
    /// The code with which it ended.
    pub ended: Option<u16>,
    /// When and why it was over.
    pub closed: Option<(Time, String)>,
    notes: Notes,
}

impl Socket {
    /// Will open `path`, query included, at `to`.
    pub fn new(to: SocketAddr, path: &str) -> Socket {
        Socket {
            line: Line::new(0, to, path.to_owned()),
            opened: false,
            texts: Vec::new(),
            ended: None,
            closed: None,
            notes: Notes::default(),
        }
    }

    /// Sends a message.
    pub fn send(&mut self, text: &str, now: Time) {
        self.line.send(text, now);
        self.hear(now);
    }

    /// Closes it.
    pub fn close(&mut self, now: Time) {
        self.line.close(now);
        self.hear(now);
    }

    fn hear(&mut self, now: Time) {
        while let Some(heard) = self.line.heard.pop_front() {
            match heard {
                Heard::Opened => self.opened = true,
                Heard::Text(text) => {
                    self.notes.add(|| format!("hears {text}"));
                    self.texts.push((now, text));
                }
                Heard::Ended(code) => self.ended = Some(code),
                Heard::Closed(why) => {
                    self.notes.add(|| format!("is over: {why}"));
                    self.closed = Some((now, why));
                }
            }
        }
    }
}

impl Client for Socket {
    fn on(&mut self, input: In<'_>, now: Time) {
        self.line.on(&input, now);
        self.hear(now);
    }

    fn poll(&mut self) -> Option<Out> {
        self.line.out.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        self.line.wake()
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    fn leave(&mut self, now: Time) {
        self.close(now);
    }
}
