//! A player by RTMP that shares no code with the server: the protocol is `rml_rtmp`'s, the checks are its own.

use super::{Client, In, Notes, Out, Standing};
use crate::world::media::{Label, Tag, read_audio, read_video};
use bytes::Bytes;
use proto_core::time::Time;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// A frame that a player got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it says about itself.
    pub label: Label,
    /// Its RTMP timestamp, milliseconds.
    pub stamp: u32,
    /// When it came.
    pub at: Time,
}

enum Step {
    Idle,
    Handshake(Box<Handshake>),
    Session(Box<ClientSession>),
}

/// A player of one stream. It checks what it gets as it comes; what is wrong is a violation.
pub struct Player {
    to: SocketAddr,
    stream: String,
    step: Step,
    /// All frames in the order in which they came.
    pub seen: Vec<Seen>,
    /// Places where frames of one publisher's session are missing: (track, last before, first after).
    pub gaps: Vec<(char, u64, u64)>,
    /// Status codes that the server sent.
    pub statuses: Vec<String>,
    /// User control events, metadata and the like are not kept; whether `play` was accepted is.
    pub playing: bool,
    /// Why its connection ended.
    pub ended: Option<String>,
    configured: BTreeMap<char, bool>,
    last: BTreeMap<char, (Label, u32)>,
    out: VecDeque<Out>,
    notes: Notes,
}

impl Player {
    /// A player that will play `stream` (`app/name`) from `to`.
    pub fn new(to: SocketAddr, stream: &str) -> Player {
        Player {
            to,
            stream: stream.to_owned(),
            step: Step::Idle,
            seen: Vec::new(),
            gaps: Vec::new(),
            statuses: Vec::new(),
            playing: false,
            ended: None,
            configured: BTreeMap::new(),
            last: BTreeMap::new(),
            out: VecDeque::from([Out::Dial(0, to)]),
            notes: Notes::default(),
        }
    }

    /// Stops reading, or goes on.
    pub fn read(&mut self, on: bool) {
        self.out.push_back(Out::Reading(0, on));
    }

    /// Leaves: closes its connection.
    pub fn leave(&mut self) {
        if self.ended.is_none() {
            self.out.push_back(Out::Close(0, false));
            self.end("left");
        }
    }

    /// What it plays.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Where it plays.
    pub fn at(&self) -> SocketAddr {
        self.to
    }

    /// The newest picture.
    pub fn last_picture(&self) -> Option<&Seen> {
        self.seen.iter().rev().find(|s| s.label.track == 'v')
    }

    /// Numbers of the pictures that it saw of a publisher's session.
    pub fn pictures(&self, session: u64) -> Vec<u64> {
        let of = |s: &&Seen| s.label.session == session && s.label.track == 'v';
        self.seen.iter().filter(of).map(|s| s.label.seq).collect()
    }

    fn end(&mut self, why: &str) {
        self.step = Step::Idle;
        if self.ended.is_none() {
            self.ended = Some(why.to_owned());
            let stream = &self.stream;
            self.notes.add(|| format!("player of {stream} ended: {why}"));
        }
    }

    fn fault(&mut self, invariant: &'static str, text: String) {
        let text = format!("a player of {} at {}: {text}", self.stream, self.to);
        self.out.push_back(Out::Violation(invariant, text));
    }

    fn bytes(&mut self, bytes: &[u8], now: Time) {
        let mut bytes = bytes.to_vec();
        if let Step::Handshake(handshake) = &mut self.step {
            match handshake.process_bytes(&bytes) {
                Err(e) => return self.fault("S3", format!("handshake: {e}")),
                Ok(HandshakeProcessResult::InProgress { response_bytes }) => {
                    if !response_bytes.is_empty() {
                        self.out.push_back(Out::Send(0, response_bytes.into()));
                    }
                    return;
                }
                Ok(HandshakeProcessResult::Completed { response_bytes, remaining_bytes }) => {
                    self.out.push_back(Out::Send(0, response_bytes.into()));
                    bytes = remaining_bytes;
                    let (mut session, first) =
                        ClientSession::new(ClientSessionConfig::new()).expect("a session begins");
                    let app = self.stream.split_once('/').map_or("live", |(app, _)| app).to_owned();
                    let connect = session.request_connection(app).expect("a session connects first");
                    self.step = Step::Session(Box::new(session));
                    self.results(first, now);
                    self.results(vec![connect], now);
                }
            }
        }
        if bytes.is_empty() {
            return;
        }
        let Step::Session(session) = &mut self.step else { return };
        match session.handle_input(&bytes) {
            Ok(results) => self.results(results, now),
            Err(e) => self.fault("S3", format!("the independent client cannot read the server: {e}")),
        }
    }

    fn results(&mut self, results: Vec<ClientSessionResult>, now: Time) {
        for result in results {
            match result {
                ClientSessionResult::OutboundResponse(p) => self.out.push_back(Out::Send(0, p.bytes.into())),
                ClientSessionResult::RaisedEvent(event) => self.event(event, now),
                ClientSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
    }

    fn event(&mut self, event: ClientSessionEvent, now: Time) {
        match event {
            ClientSessionEvent::ConnectionRequestAccepted => {
                let name = self.stream.split_once('/').map_or(&*self.stream, |(_, name)| name).to_owned();
                if let Step::Session(session) = &mut self.step {
                    match session.request_playback(name) {
                        Ok(play) => self.results(vec![play], now),
                        Err(e) => self.fault("S3", format!("play: {e}")),
                    }
                }
            }
            ClientSessionEvent::PlaybackRequestAccepted => self.playing = true,
            ClientSessionEvent::VideoDataReceived { timestamp, data } => {
                self.media('v', timestamp.value, &data, now)
            }
            ClientSessionEvent::AudioDataReceived { timestamp, data } => {
                self.media('a', timestamp.value, &data, now)
            }
            ClientSessionEvent::UnhandleableOnStatusCode { code } => {
                let stream = &self.stream;
                self.notes.add(|| format!("player of {stream} is told {code}"));
                self.statuses.push(code);
            }
            ClientSessionEvent::ConnectionRequestRejected { description } => {
                self.statuses.push(format!("rejected: {description}"));
            }
            _ => {}
        }
    }

    fn media(&mut self, track: char, stamp: u32, data: &Bytes, now: Time) {
        let tag = if track == 'v' { read_video(data) } else { read_audio(data) };
        let label = match tag {
            Err(e) => return self.fault("S3", format!("{track} at {stamp}: {e}")),
            Ok(Tag::Config) => {
                self.configured.insert(track, true);
                return;
            }
            Ok(Tag::Frame(label)) => label,
        };
        let mut wrong = Vec::new();
        if label.stream != self.stream {
            wrong.push(("S3", "a frame of another stream"));
        }
        if label.track != track {
            wrong.push(("S3", "a frame of another track"));
        }
        if !self.configured.contains_key(&track) {
            wrong.push(("S4", "a frame before its configuration"));
        }
        let video = track == 'v';
        let starts = !video || label.key;
        match self.last.get(&track) {
            None if starts => {}
            None => wrong.push(("S4", "the first picture is no key frame")),
            Some((last, _)) if label.session < last.session => {
                wrong.push(("S1", "a frame of a superseded publisher"))
            }
            Some((last, _)) if label.session > last.session && starts => {}
            Some((last, _)) if label.session > last.session => {
                wrong.push(("S4", "the first picture of a new publisher is no key frame"));
            }
            Some((last, _)) if label.seq <= last.seq => wrong.push(("S4", "a frame again, or out of order")),
            Some((last, _)) if label.seq == last.seq + 1 => {}
            Some((last, _)) => {
                if !starts {
                    wrong.push(("S4", "a gap that does not end at a key frame"));
                }
                self.gaps.push((track, last.seq, label.seq));
            }
        }
        if let Some((last, at)) = self.last.get(&track)
            && stamp < *at
        {
            let text = format!("time goes back from {at} to {stamp}: {last:?}, {label:?}");
            self.fault("S4", text);
        }
        for (invariant, what) in wrong {
            self.fault(invariant, format!("{what}: {label:?} at {stamp}"));
        }
        self.notes.add(|| format!("saw {}{} of {} at {stamp}", track, label.seq, label.session));
        self.last.insert(track, (label.clone(), stamp));
        self.seen.push(Seen { label, stamp, at: now });
    }
}

impl Client for Player {
    fn on(&mut self, input: In<'_>, now: Time) {
        match input {
            In::Connected(_) => {
                let mut handshake = Handshake::new(PeerType::Client);
                let first = handshake.generate_outbound_p0_and_p1().expect("a handshake begins");
                self.step = Step::Handshake(Box::new(handshake));
                self.out.push_back(Out::Send(0, first.into()));
            }
            In::Received(_, bytes) => self.bytes(bytes, now),
            In::Finished(_) => {
                self.out.push_back(Out::Close(0, false));
                self.end("the server closed the connection");
            }
            In::Closed(_, why) => self.end(why),
            In::Address(_) | In::Writable(..) | In::Datagram { .. } | In::Tick => {}
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
        Player::leave(self);
    }

    fn standing(&self) -> Standing {
        let last = self.last_picture();
        Standing {
            stream: Some(self.stream.clone()),
            publishes: false,
            ended: self.ended.is_some(),
            session: last.map(|s| s.label.session),
            last_picture: last.map(|s| s.at),
            frames: self.seen.len() as u64,
        }
    }
}
