//! A publisher by RTMP that shares no code with the server: the protocol is `rml_rtmp`'s, the tags are written here.

use super::publisher::{Attempt, Due, PublisherBy, PublisherConfig, Said, Wire};
use super::{In, Out};
use crate::world::media::{ASC, PPS, SPS};
use bytes::{BufMut, Bytes, BytesMut};
use proto_core::time::Time;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{
    ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult, PublishRequestType,
};
use rml_rtmp::time::RtmpTimestamp;
use std::collections::VecDeque;

/// A publisher by `rml_rtmp`.
pub type RmlPublisher = PublisherBy<RmlRtmp>;

enum Step {
    Idle,
    Handshake(Box<Handshake>),
    Session(Box<ClientSession>),
}

/// A publisher's connection by `rml_rtmp`.
pub struct RmlRtmp {
    attempt: Attempt,
    step: Step,
    ready: bool,
    /// What the server said last that is no yes.
    status: Option<String>,
    said: VecDeque<Said>,
}

impl RmlRtmp {
    fn send(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.said.push_back(Said::Do(Out::Send(0, bytes.into())));
        }
    }

    fn fault(&mut self, text: &str) {
        let text = format!("rml_rtmp publishing {} at {}: {text}", self.attempt.stream, self.attempt.to);
        self.said.push_back(Said::Do(Out::Violation("S3", text)));
    }

    fn end(&mut self, why: &str) {
        self.step = Step::Idle;
        self.ready = false;
        let why = self.status.take().map_or(why.to_owned(), |status| format!("{why} ({status})"));
        self.said.push_back(Said::Ended(why));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        if let Step::Handshake(handshake) = &mut self.step {
            match handshake.process_bytes(&bytes) {
                Err(e) => return self.fault(&format!("handshake: {e}")),
                Ok(HandshakeProcessResult::InProgress { response_bytes }) => {
                    return self.send(response_bytes);
                }
                Ok(HandshakeProcessResult::Completed { response_bytes, remaining_bytes }) => {
                    self.send(response_bytes);
                    bytes = remaining_bytes;
                    let (mut session, first) =
                        ClientSession::new(ClientSessionConfig::new()).expect("a session begins");
                    let app = self.attempt.app_and_name().0.to_owned();
                    let connect = session.request_connection(app).expect("a session connects first");
                    self.step = Step::Session(Box::new(session));
                    self.results(first);
                    self.results(vec![connect]);
                }
            }
        }
        let Step::Session(session) = &mut self.step else { return };
        match session.handle_input(&bytes) {
            Ok(results) => self.results(results),
            Err(e) => self.fault(&format!("the independent client cannot read the server: {e}")),
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
        let Step::Session(session) = &mut self.step else { return };
        match event {
            ClientSessionEvent::ConnectionRequestAccepted => {
                let name = self.attempt.app_and_name().1.to_owned();
                match session.request_publishing(name, PublishRequestType::Live) {
                    Ok(publish) => self.results(vec![publish]),
                    Err(e) => self.fault(&format!("publish: {e}")),
                }
            }
            ClientSessionEvent::PublishRequestAccepted => {
                self.ready = true;
                self.tag('v', 0, video_config());
                self.tag('a', 0, Bytes::from([&[0xaf, 0][..], &ASC].concat()));
                self.said.push_back(Said::Ready);
            }
            ClientSessionEvent::ConnectionRequestRejected { description } => self.status = Some(description),
            ClientSessionEvent::UnhandleableOnStatusCode { code } => self.status = Some(code),
            _ => {}
        }
    }

    fn tag(&mut self, track: char, stamp: u32, data: Bytes) {
        let Step::Session(session) = &mut self.step else { return };
        let stamp = RtmpTimestamp::new(stamp);
        let result = if track == 'v' {
            session.publish_video_data(data, stamp, false)
        } else {
            session.publish_audio_data(data, stamp, false)
        };
        match result {
            Ok(result) => self.results(vec![result]),
            Err(e) => self.fault(&format!("media: {e}")),
        }
    }
}

/// The video tag with an AVCDecoderConfigurationRecord (ISO 14496-15, 5.3.3.1.2).
fn video_config() -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(&[0x17, 0, 0, 0, 0]);
    out.put_slice(&[1, SPS[1], SPS[2], SPS[3], 0xff, 0xe1]);
    out.put_u16(SPS.len() as u16);
    out.put_slice(&SPS);
    out.put_u8(1);
    out.put_u16(PPS.len() as u16);
    out.put_slice(&PPS);
    out.freeze()
}

/// The tag of a frame (FLV, E.4.2.1 and E.4.3.1).
fn tag_of(due: &Due) -> Bytes {
    let label = due.label.write(due.len);
    let mut out = BytesMut::with_capacity(label.len() + 16);
    if due.label.track != 'v' {
        out.put_slice(&[0xaf, 1]);
    } else {
        // A slice header: first macroblock 0, slice type 7 (I) or 5 (P), then bits without meaning.
        let (kind, head) =
            if due.label.key { (0x17, [0x65, 0x88, 0x84]) } else { (0x27, [0x41, 0x9a, 0x84]) };
        out.put_slice(&[kind, 1, 0, 0, 0]);
        out.put_u32((head.len() + label.len()) as u32);
        out.put_slice(&head);
    }
    out.put_slice(&label);
    out.freeze()
}

impl Wire for RmlRtmp {
    fn begin(attempt: Attempt, _: &PublisherConfig, _now: Time) -> RmlRtmp {
        let said = VecDeque::from([Said::Do(Out::Dial(0, attempt.to))]);
        RmlRtmp { attempt, step: Step::Idle, ready: false, status: None, said }
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
                self.said.push_back(Said::Do(Out::Close(0, false)));
                self.end("the server closed the connection");
            }
            In::Closed(_, why) => self.end(why),
            In::Address(_) | In::Writable(..) | In::Datagram { .. } | In::Tick => {}
        }
    }

    fn send(&mut self, due: &Due, _now: Time) {
        if self.ready {
            self.tag(due.label.track, (due.time / 1_000_000) as u32, tag_of(due));
        }
    }

    fn finish(&mut self, _now: Time) {
        if let Step::Session(session) = &mut self.step {
            let last = session.stop_publishing();
            self.results(last.unwrap_or_default());
        }
        self.said.push_back(Said::Do(Out::Close(0, false)));
        self.status = None;
        self.end("left");
    }

    fn abort(&mut self) {
        self.said.push_back(Said::Do(Out::Close(0, true)));
    }

    fn poll(&mut self) -> Option<Said> {
        self.said.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        None
    }
}
