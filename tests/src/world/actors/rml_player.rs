//! Playing by RTMP without any code of the server's: the protocol is `rml_rtmp`'s, the tags are read here and by
//! [`media`](crate::world::media).

use super::player::{Heard, PlayerConfig, Source};
use super::publisher::Attempt;
use super::rml::{Happened, Session};
use super::{In, Out};
use crate::world::media::{Label, Tag, read_audio, read_video};
use proto_core::time::Time;
use rml_rtmp::sessions::ClientSessionEvent;
use std::collections::VecDeque;

/// A player's connection by `rml_rtmp`.
pub struct RmlPlay {
    attempt: Attempt,
    opus: bool,
    session: Session,
    heard: VecDeque<Heard>,
}

impl RmlPlay {
    fn wrong(&mut self, text: String) {
        self.heard.push_back(Heard::Wrong("S3", text));
    }

    fn end(&mut self, why: &str) {
        self.session.end();
        self.heard.push_back(Heard::Ended(why.to_owned()));
    }

    /// Takes what happened in the session.
    fn run(&mut self) {
        while let Some(happened) = self.session.next() {
            match happened {
                Happened::Send(bytes) => self.heard.push_back(Heard::Do(Out::Send(0, bytes))),
                Happened::Event(event) => self.event(event),
                Happened::Wrong(text) => self.wrong(text),
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
                self.session.ask("play", |s| s.request_playback(name).map(|play| vec![play]));
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
            Ok(Tag::Config(dress)) => self.heard.push_back(Heard::Config(track, dress)),
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
                    Ok(Tag::Config(0))
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
        let session = Session::new(attempt.app_and_name().0);
        RmlPlay { attempt, opus: config.opus, session, heard }
    }

    fn on(&mut self, input: &In<'_>, _now: Time) {
        match input {
            In::Connected(_) => self.session.begin(),
            In::Received(_, bytes) => self.session.bytes(bytes),
            In::Finished(_) => {
                self.heard.push_back(Heard::Do(Out::Close(0, false)));
                self.end("the server closed the connection");
            }
            In::Closed(_, why) => self.end(why),
            In::Address(_) | In::Accepted(_) | In::Writable(..) | In::Datagram { .. } | In::Tick => {}
        }
        self.run();
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
