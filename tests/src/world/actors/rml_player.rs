//! Playing by RTMP without any code of the server's: the protocol is `rml_rtmp`'s, the tags are read here and by
//! [`media`](crate::world::media).

use super::player::{Heard, PlayerConfig, Source};
use super::publisher::Attempt;
use super::{In, Out};
use crate::world::media::{Label, Tag, read_audio, read_video};
use proto_core::time::Time;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult};
use std::collections::VecDeque;

enum Step {
    Idle,
    Handshake(Box<Handshake>),
    Session(Box<ClientSession>),
}

/// A player's connection by `rml_rtmp`.
pub struct RmlPlay {
    attempt: Attempt,
    opus: bool,
    step: Step,
    heard: VecDeque<Heard>,
}

impl RmlPlay {
    fn send(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.heard.push_back(Heard::Do(Out::Send(0, bytes.into())));
        }
    }

    fn wrong(&mut self, text: String) {
        self.heard.push_back(Heard::Wrong("S3", text));
    }

    fn end(&mut self, why: &str) {
        self.step = Step::Idle;
        self.heard.push_back(Heard::Ended(why.to_owned()));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        if let Step::Handshake(handshake) = &mut self.step {
            match handshake.process_bytes(bytes) {
                Err(e) => self.wrong(format!("handshake: {e}")),
                Ok(HandshakeProcessResult::InProgress { response_bytes }) => self.send(response_bytes),
                Ok(HandshakeProcessResult::Completed { response_bytes, remaining_bytes }) => {
                    self.send(response_bytes);
                    let (mut session, first) =
                        ClientSession::new(ClientSessionConfig::new()).expect("a session begins");
                    let app = self.attempt.app_and_name().0.to_owned();
                    let connect = session.request_connection(app).expect("a session connects first");
                    self.step = Step::Session(Box::new(session));
                    self.results(first);
                    self.results(vec![connect]);
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

    fn results(&mut self, results: Vec<ClientSessionResult>) {
        for result in results {
            match result {
                ClientSessionResult::OutboundResponse(p) => self.send(p.bytes),
                ClientSessionResult::RaisedEvent(event) => self.event(event),
                ClientSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
    }

    fn event(&mut self, event: ClientSessionEvent) {
        match event {
            ClientSessionEvent::ConnectionRequestAccepted => {
                let mut name = self.attempt.app_and_name().1.to_owned();
                if self.opus {
                    name.push_str("?audio=opus");
                }
                if let Step::Session(session) = &mut self.step {
                    match session.request_playback(name) {
                        Ok(play) => self.results(vec![play]),
                        Err(e) => self.wrong(format!("play: {e}")),
                    }
                }
            }
            ClientSessionEvent::PlaybackRequestAccepted => self.heard.push_back(Heard::Playing),
            ClientSessionEvent::VideoDataReceived { timestamp, data } => {
                self.media('v', timestamp.value, read_video(&data));
            }
            ClientSessionEvent::AudioDataReceived { timestamp, data } => {
                let tag = if self.opus { read_opus(&data) } else { read_audio(&data) };
                self.media('a', timestamp.value, tag);
            }
            ClientSessionEvent::UnhandleableOnStatusCode { code } => {
                self.heard.push_back(Heard::Status(code));
            }
            ClientSessionEvent::ConnectionRequestRejected { description } => {
                self.heard.push_back(Heard::Status(format!("rejected: {description}")));
            }
            _ => {}
        }
    }

    fn media(&mut self, track: char, stamp: u32, tag: Result<Tag, String>) {
        match tag {
            Err(e) => self.wrong(format!("{track} at {stamp}: {e}")),
            Ok(Tag::Config) => self.heard.push_back(Heard::Config(track)),
            Ok(Tag::Frame(label)) => self.heard.push_back(Heard::Frame(track, stamp.into(), label)),
        }
    }
}

/// Reads the payload of an RTMP audio message with Opus (Enhanced RTMP v2, extended audio tags), without the code under
/// test. AAC is read too: a stream may have either.
fn read_opus(tag: &[u8]) -> Result<Tag, String> {
    match tag {
        [0x90, b'O', b'p', b'u', b's', head @ ..] => {
            // RFC 7845, 5.1: version 1, one or two channels, mapping family 0.
            match head {
                [b'O', b'p', b'u', b's', b'H', b'e', b'a', b'd', 1, 1 | 2, rest @ ..]
                    if rest.len() == 9 && rest.last() == Some(&0) =>
                {
                    Ok(Tag::Config)
                }
                other => Err(format!("an Opus head of {} bytes: {other:?}", other.len())),
            }
        }
        [0x91, b'O', b'p', b'u', b's', raw @ ..] => Ok(Tag::Frame(Label::read(raw)?)),
        other => read_audio(other),
    }
}

impl Source for RmlPlay {
    fn begin(attempt: Attempt, config: &PlayerConfig, _now: Time) -> RmlPlay {
        let heard = VecDeque::from([Heard::Do(Out::Dial(0, attempt.to))]);
        RmlPlay { attempt, opus: config.opus, step: Step::Idle, heard }
    }

    fn on(&mut self, input: &In<'_>, _now: Time) {
        match input {
            In::Connected(_) => {
                let mut handshake = Handshake::new(PeerType::Client);
                let first = handshake.generate_outbound_p0_and_p1().expect("a handshake begins");
                self.step = Step::Handshake(Box::new(handshake));
                self.send(first);
            }
            In::Received(_, bytes) => self.bytes(bytes),
            In::Finished(_) => {
                self.heard.push_back(Heard::Do(Out::Close(0, false)));
                self.end("the server closed the connection");
            }
            In::Closed(_, why) => self.end(why),
            In::Address(_) | In::Writable(..) | In::Datagram { .. } | In::Tick => {}
        }
    }

    fn finish(&mut self, _now: Time) {
        self.heard.push_back(Heard::Do(Out::Close(0, false)));
        self.end("left");
    }

    fn abort(&mut self) {
        self.heard.push_back(Heard::Do(Out::Close(0, true)));
    }

    fn poll(&mut self) -> Option<Heard> {
        self.heard.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        None
    }
}
