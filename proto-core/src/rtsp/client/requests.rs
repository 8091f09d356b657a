//! What a client asks of a server, in which order, and how it proves who it is.

use super::{ALIVE_LEAST, Client, Kind, Pending, Planned, Task, What};
use crate::rtsp::digest::{Count, authorization};
use crate::rtsp::formats::describe;
use crate::time::Time;
use crate::wire::rtsp::transport::{Lower, Mode, Transport};
use crate::wire::rtsp::{Headers, Method, Request};
use crate::wire::sdp::Writer;
use bytes::Bytes;

/// What we call ourselves.
const AGENT: &str = concat!("Headwater/", env!("CARGO_PKG_VERSION"));
/// The payload type of the first track that is sent; the others follow.
const FIRST_PAYLOAD_TYPE: u8 = 96;

impl Client {
    /// The first request.
    pub(super) fn begin(&mut self, now: Time) {
        self.ask(Kind::Options, Method::Options, self.base.clone(), Headers::default(), Bytes::new(), now);
    }

    /// Sends a request and waits for its answer.
    pub(super) fn ask(
        &mut self,
        kind: Kind,
        method: Method,
        url: String,
        headers: Headers,
        body: Bytes,
        now: Time,
    ) {
        self.ask_again(kind, Request { method: method.name().to_owned(), url, headers, body }, now);
    }

    /// Sends a request, perhaps once more with another proof.
    pub(super) fn ask_again(&mut self, kind: Kind, request: Request, now: Time) {
        let proved = self.write(&request);
        self.pending = Some(Pending { kind, cseq: self.cseq, request, sent: now, proved });
    }

    /// Sends a request whose answer is of no interest.
    pub(super) fn send(&mut self, method: Method, url: String) {
        let (headers, body) = (Headers::default(), Bytes::new());
        self.write(&Request { method: method.name().to_owned(), url, headers, body });
    }

    /// Writes a request with what all have in common. Answers whether it carries a proof.
    fn write(&mut self, request: &Request) -> bool {
        self.cseq = self.cseq.wrapping_add(1);
        let mut headers = Headers::default();
        headers.add("CSeq", self.cseq.to_string());
        headers.add("User-Agent", AGENT);
        if !self.via.is_empty() {
            headers.add("Via", self.via.as_str());
        }
        if let Some(session) = &self.session {
            headers.add("Session", session.as_str());
        }
        let proof = match (&mut self.challenge, &self.url.user) {
            (Some((challenge, count)), Some((user, password))) => {
                *count = count.wrapping_add(1);
                let cnonce = self.rng.token(16);
                let count = Count { nc: *count, cnonce: &cnonce };
                Some(authorization(challenge, user, password, &request.method, &request.url, count))
            }
            _ => None,
        };
        let proved = proof.is_some();
        if let Some(proof) = proof {
            headers.add("Authorization", proof);
        }
        headers.0.extend(request.headers.0.iter().cloned());
        let whole = Request { headers, ..request.clone() };
        self.outbox.push(whole.to_bytes());
        proved
    }

    /// What follows OPTIONS: to learn what the stream consists of, or to tell it.
    pub(super) fn introduce(&mut self, now: Time) {
        let mut headers = Headers::default();
        let Task::Record(tracks) = &self.task else {
            headers.add("Accept", "application/sdp");
            return self.ask(Kind::Describe, Method::Describe, self.base.clone(), headers, Bytes::new(), now);
        };
        let mut w = Writer::new(self.rng.u32().into(), "Headwater");
        w.attribute("control", "*");
        let base = self.base.trim_end_matches('/').to_owned();
        let mut planned = Vec::new();
        for ((n, track), pt) in tracks.iter().enumerate().zip(FIRST_PAYLOAD_TYPE..) {
            // The names that ffmpeg gives to tracks; every server knows them.
            let control = format!("streamid={n}");
            describe(&mut w, &track.1.params, pt, &control);
            planned
                .push(Planned { what: What::Sent(track.clone(), pt), control: format!("{base}/{control}") });
        }
        self.planned = planned;
        headers.add("Content-Type", "application/sdp");
        let body = w.finish().into();
        self.ask(Kind::Announce, Method::Announce, self.base.clone(), headers, body, now);
    }

    /// Sets up the next track, or begins once all are.
    pub(super) fn set_up_next(&mut self, now: Time) {
        if self.next >= self.planned.len() {
            return self.start(now);
        }
        match self.ways.front() {
            Some(Lower::Tcp) => {
                let n = u8::try_from(2 * self.lanes.len()).unwrap_or(0);
                let channels = Some((n, n.wrapping_add(1)));
                self.set_up(Transport { interleaved: channels, ..Transport::over(Lower::Tcp) }, now);
            }
            _ => {
                self.asking = Some(self.next);
                self.events.push_back(super::Output::UdpWanted { lane: self.lanes.len() });
            }
        }
    }

    pub(super) fn set_up(&mut self, mut transport: Transport, now: Time) {
        let Some(planned) = self.planned.get(self.next) else { return };
        let url = planned.control.clone();
        transport.mode = (!self.plays()).then_some(Mode::Record);
        let mut headers = Headers::default();
        headers.add("Transport", transport.to_string());
        self.ask(Kind::Setup(self.next), Method::Setup, url, headers, Bytes::new(), now);
    }

    fn start(&mut self, now: Time) {
        let method = if self.plays() { Method::Play } else { Method::Record };
        let mut headers = Headers::default();
        // What players send; cameras know no other.
        headers.add("Range", "npt=0.000-");
        self.ask(Kind::Start, method, self.aggregate.clone(), headers, Bytes::new(), now);
    }

    /// Keeps the session alive.
    pub(super) fn say_alive(&mut self, now: Time) {
        self.alive_at = Some(now + (self.timeout / 2).max(ALIVE_LEAST));
        if self.pending.is_none() {
            let method = if self.has_get_parameter { Method::GetParameter } else { Method::Options };
            let url = self.aggregate.clone();
            self.ask(Kind::Alive, method, url, Headers::default(), Bytes::new(), now);
        }
    }
}
