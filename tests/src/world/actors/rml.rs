//! A connection by `rml_rtmp`: its handshake, its session, and the bytes of both. What is published or played over it is
//! the client's own business.

use bytes::Bytes;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult};
use std::collections::VecDeque;
use std::fmt::Display;

/// What came of an input, in order.
pub(super) enum Happened {
    /// Send this.
    Send(Bytes),
    /// The session says this.
    Event(ClientSessionEvent),
    /// What the server sent cannot be, or the library refuses what it is asked for.
    Wrong(String),
}

enum Step {
    Idle,
    Handshake(Box<Handshake>),
    Session(Box<ClientSession>),
}

/// The protocol of one connection.
pub(super) struct Session {
    app: String,
    step: Step,
    happened: VecDeque<Happened>,
}

impl Session {
    /// One that will connect to an app.
    pub(super) fn new(app: &str) -> Session {
        Session { app: app.to_owned(), step: Step::Idle, happened: VecDeque::new() }
    }

    /// The connection stands: it begins with its handshake.
    pub(super) fn begin(&mut self) {
        let mut handshake = Handshake::new(PeerType::Client);
        let first = handshake.generate_outbound_p0_and_p1().expect("a handshake begins");
        self.step = Step::Handshake(Box::new(handshake));
        self.send(first);
    }

    /// It is over; nothing is said any more.
    pub(super) fn end(&mut self) {
        self.step = Step::Idle;
    }

    /// What happened next.
    pub(super) fn next(&mut self) -> Option<Happened> {
        self.happened.pop_front()
    }

    fn send(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.happened.push_back(Happened::Send(bytes.into()));
        }
    }

    fn wrong(&mut self, text: String) {
        self.happened.push_back(Happened::Wrong(text));
    }

    /// Takes bytes of the server.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        if let Step::Handshake(handshake) = &mut self.step {
            match handshake.process_bytes(bytes) {
                Err(e) => self.wrong(format!("handshake: {e}")),
                Ok(HandshakeProcessResult::InProgress { response_bytes }) => self.send(response_bytes),
                Ok(HandshakeProcessResult::Completed { response_bytes, remaining_bytes }) => {
                    self.send(response_bytes);
                    let (mut session, first) =
                        ClientSession::new(ClientSessionConfig::new()).expect("a session begins");
                    let connect = session.request_connection(self.app.clone());
                    self.step = Step::Session(Box::new(session));
                    self.results(first);
                    self.results(vec![connect.expect("a session connects first")]);
                    if !remaining_bytes.is_empty() {
                        self.bytes(&remaining_bytes);
                    }
                }
            }
            return;
        }
        let Step::Session(session) = &mut self.step else { return };
        match session.handle_input(bytes) {
            Ok(results) => self.results(results),
            Err(e) => self.wrong(format!("the independent client cannot read the server: {e}")),
        }
    }

    /// Has the session do something, if it stands; `what` names it where the library refuses.
    pub(super) fn ask<E: Display>(
        &mut self,
        what: &str,
        act: impl FnOnce(&mut ClientSession) -> Result<Vec<ClientSessionResult>, E>,
    ) {
        let Step::Session(session) = &mut self.step else { return };
        match act(session) {
            Ok(results) => self.results(results),
            Err(e) => self.wrong(format!("{what}: {e}")),
        }
    }

    fn results(&mut self, results: Vec<ClientSessionResult>) {
        for result in results {
            match result {
                ClientSessionResult::OutboundResponse(p) => self.send(p.bytes),
                ClientSessionResult::RaisedEvent(event) => self.happened.push_back(Happened::Event(event)),
                ClientSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
    }
}
