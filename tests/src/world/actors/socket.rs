//! A client that opens a websocket. It uses the project's own client machine; browsers check the server's end elsewhere.

use super::{Client, In, Notes, Out};
use proto_core::http::websocket::client::{self, Input, Output, Target};
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::rand::Rng;
use proto_core::time::Time;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// A websocket and what was heard on it.
pub struct Socket {
    to: SocketAddr,
    path: String,
    machine: Option<client::Client>,
    /// Whether it stands or stood.
    pub opened: bool,
    /// Messages that came, with when.
    pub texts: Vec<(Time, String)>,
    /// The code with which it ended.
    pub ended: Option<u16>,
    /// When and why it was over.
    pub closed: Option<(Time, String)>,
    out: VecDeque<Out>,
    notes: Notes,
}

impl Socket {
    /// Will open `path`, query included, at `to`.
    pub fn new(to: SocketAddr, path: &str) -> Socket {
        Socket {
            to,
            path: path.to_owned(),
            machine: None,
            opened: false,
            texts: Vec::new(),
            ended: None,
            closed: None,
            out: VecDeque::from([Out::Dial(0, to)]),
            notes: Notes::default(),
        }
    }

    /// Sends a message.
    pub fn send(&mut self, text: &str, now: Time) {
        self.tell(Input::Text(text), now);
    }

    /// Closes it.
    pub fn close(&mut self, now: Time) {
        self.tell(Input::Close { code: 1000, text: "" }, now);
    }

    fn tell(&mut self, input: Input<'_>, now: Time) {
        let Some(machine) = &mut self.machine else { return };
        machine.handle(input, now);
        while let Some(output) = machine.poll() {
            match output {
                Output::Send(bytes) => self.out.push_back(Out::Send(0, bytes)),
                Output::Opened => self.opened = true,
                Output::Text(text) => {
                    self.notes.add(|| format!("hears {text}"));
                    self.texts.push((now, text));
                }
                Output::Ended { code, .. } => self.ended = Some(code),
                Output::Closed(reason) => {
                    self.notes.add(|| format!("is over: {reason}"));
                    self.closed = Some((now, reason.to_string()));
                    self.out.push_back(Out::Close(0, false));
                    self.machine = None;
                    return;
                }
            }
        }
    }
}

impl Client for Socket {
    fn on(&mut self, input: In<'_>, now: Time) {
        match input {
            In::Connected(_) => {
                let target = Target { host: self.to.to_string(), path: self.path.clone(), headers: vec![] };
                let rng = Rng::new([9; 32]).fork(&self.path, now.as_nanos());
                self.machine = Some(client::Client::new(&target, &Limits::default(), rng, now));
                self.tell(Input::Tick, now);
            }
            In::Writable(_, free) => self.tell(Input::Writable(free), now),
            In::Received(_, bytes) => self.tell(Input::Received(bytes), now),
            In::Finished(_) => self.tell(Input::PeerFinished, now),
            In::Closed(_, why) if self.closed.is_none() => {
                self.machine = None;
                self.closed = Some((now, why.to_owned()));
            }
            In::Tick => self.tell(Input::Tick, now),
            _ => {}
        }
    }

    fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        self.machine.as_ref().and_then(Machine::deadline).map(|d| d.at)
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    fn leave(&mut self, now: Time) {
        self.close(now);
    }
}
