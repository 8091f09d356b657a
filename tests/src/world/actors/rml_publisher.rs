//! A publisher by RTMP that shares no code with the server: the protocol is `rml_rtmp`'s, the tags are written here.

use super::publisher::{Attempt, Due, PublisherBy, PublisherConfig, Said, Wire};
use super::rml::{Happened, Session};
use super::{In, Out};
use crate::world::media::{ASC, sets};
use bytes::{BufMut, Bytes, BytesMut};
use proto_core::time::Time;
use rml_rtmp::sessions::{ClientSessionEvent, PublishRequestType};
use rml_rtmp::time::RtmpTimestamp;
use std::collections::VecDeque;

/// A publisher by `rml_rtmp`.
pub type RmlPublisher = PublisherBy<RmlRtmp>;

/// A publisher's connection by `rml_rtmp`.
pub struct RmlRtmp {
    attempt: Attempt,
    /// The first timestamp, milliseconds.
    first: u32,
    session: Session,
    ready: bool,
    /// What the server said last that is no yes.
    status: Option<String>,
    said: VecDeque<Said>,
}

impl RmlRtmp {
    fn fault(&mut self, text: &str) {
        let text = format!("rml_rtmp publishing {} at {}: {text}", self.attempt.stream, self.attempt.to);
        self.said.push_back(Said::Do(Out::Violation("S3", text)));
    }

    fn end(&mut self, why: &str) {
        self.session.end();
        self.ready = false;
        let why = self.status.take().map_or(why.to_owned(), |status| format!("{why} ({status})"));
        self.said.push_back(Said::Ended(why));
    }

    /// Takes what happened in the session.
    fn run(&mut self) {
        while let Some(happened) = self.session.next() {
            match happened {
                Happened::Send(bytes) => self.said.push_back(Said::Do(Out::Send(0, bytes))),
                Happened::Event(event) => self.event(event),
                Happened::Wrong(text) => self.fault(&text),
            }
        }
    }

    fn event(&mut self, event: ClientSessionEvent) {
        match event {
            ClientSessionEvent::ConnectionRequestAccepted => {
                let name = self.attempt.app_and_name().1.to_owned();
                let live = PublishRequestType::Live;
                self.session
                    .ask("publish", |s| s.request_publishing(name, live).map(|publish| vec![publish]));
            }
            ClientSessionEvent::PublishRequestAccepted => {
                self.ready = true;
                self.tag('v', 0, video_config(0));
                self.tag('a', 0, Bytes::from([&[0xaf, 0][..], &ASC].concat()));
                self.said.push_back(Said::Ready);
            }
            ClientSessionEvent::ConnectionRequestRejected { description } => self.status = Some(description),
            ClientSessionEvent::UnhandleableOnStatusCode { code } => self.status = Some(code),
            _ => {}
        }
    }

    fn tag(&mut self, track: char, stamp: u32, data: Bytes) {
        let stamp = RtmpTimestamp::new(self.first.wrapping_add(stamp));
        self.session.ask("media", |s| {
            let sent = match track {
                'v' => s.publish_video_data(data, stamp, false),
                _ => s.publish_audio_data(data, stamp, false),
            };
            sent.map(|sent| vec![sent])
        });
        self.run();
    }
}

/// The video tag with an AVCDecoderConfigurationRecord (ISO 14496-15, 5.3.3.1.2).
pub(super) fn video_config(dress: u8) -> Bytes {
    let (sps, pps) = sets(dress);
    let mut out = BytesMut::new();
    out.put_slice(&[0x17, 0, 0, 0, 0]);
    out.put_slice(&[1, sps[1], sps[2], sps[3], 0xff, 0xe1]);
    out.put_u16(sps.len() as u16);
    out.put_slice(&sps);
    out.put_u8(1);
    out.put_u16(pps.len() as u16);
    out.put_slice(&pps);
    out.freeze()
}

/// The tag of a frame (FLV, E.4.2.1 and E.4.3.1).
pub(super) fn tag_of(due: &Due) -> Bytes {
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
    fn begin(attempt: Attempt, config: &PublisherConfig, _now: Time) -> RmlRtmp {
        let said = VecDeque::from([Said::Do(Out::Dial(0, attempt.to))]);
        let session = Session::new(attempt.app_and_name().0);
        RmlRtmp { attempt, first: config.stamp.unwrap_or(0), session, ready: false, status: None, said }
    }

    fn on(&mut self, input: &In<'_>, _now: Time) {
        match input {
            In::Connected(_) => self.session.begin(),
            In::Received(_, bytes) => self.session.bytes(bytes),
            In::Finished(_) => {
                self.said.push_back(Said::Do(Out::Close(0, false)));
                self.end("the server closed the connection");
            }
            In::Closed(_, why) => self.end(why),
            In::Address(_) | In::Accepted(_) | In::Writable(..) | In::Datagram { .. } | In::Tick => {}
        }
        self.run();
    }

    fn send(&mut self, due: &Due, _now: Time) {
        if self.ready {
            self.tag(due.label.track, (due.time / 1_000_000) as u32, tag_of(due));
        }
    }

    fn finish(&mut self, _now: Time) {
        self.session.ask("unpublish", |s| Ok::<_, String>(s.stop_publishing().unwrap_or_default()));
        self.run();
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
