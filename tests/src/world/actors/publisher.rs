//! A publisher by RTMP: the project's own client, fed with frames that say what they are.

use super::{Client, In, Notes, Out, Standing};
use crate::world::media::{Label, PICTURE, configs, sound_at};
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::rand::Rng;
use proto_core::rtmp::client::{Client as Rtmp, Input, Output};
use proto_core::time::Time;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// How a publisher behaves.
#[derive(Clone, Debug)]
pub struct PublisherConfig {
    /// Pictures from one key frame to the next.
    pub gop: u64,
    /// Bytes of a key frame.
    pub key_bytes: usize,
    /// Bytes of another picture.
    pub delta_bytes: usize,
    /// It connects again so long after its connection ended, for whatever reason.
    pub again: Option<Duration>,
}

impl Default for PublisherConfig {
    fn default() -> Self {
        PublisherConfig { gop: 25, key_bytes: 6_000, delta_bytes: 700, again: None }
    }
}

/// What one connection of a publisher brought.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// The number in its labels.
    pub session: u64,
    /// Pictures sent.
    pub pictures: u64,
    /// Sound frames sent.
    pub sounds: u64,
    /// When the node accepted it.
    pub ready: Option<Time>,
    /// Why the connection ended.
    pub ended: Option<String>,
}

/// A publisher of one stream.
pub struct Publisher {
    to: SocketAddr,
    stream: String,
    config: PublisherConfig,
    number: u64,
    rng: Rng,
    rtmp: Option<Rtmp>,
    /// All its connections, the present one last.
    pub sent: Vec<Sent>,
    start: Time,
    redial: Option<Time>,
    silent: bool,
    /// The first picture after a silence is a key frame.
    key_due: bool,
    out: VecDeque<Out>,
    notes: Notes,
}

impl Publisher {
    /// The `number`-th client, which will publish `stream` (`app/name`) at `to`.
    pub fn new(
        number: u64,
        to: SocketAddr,
        stream: &str,
        config: PublisherConfig,
        rng: Rng,
        now: Time,
    ) -> Publisher {
        Publisher {
            to,
            stream: stream.to_owned(),
            config,
            number,
            rng,
            rtmp: None,
            sent: Vec::new(),
            start: now,
            redial: Some(now),
            silent: false,
            key_due: false,
            out: VecDeque::new(),
            notes: Notes::default(),
        }
    }

    /// Whether the node takes its stream now.
    pub fn is_ready(&self) -> bool {
        self.sent.last().is_some_and(|s| s.ready.is_some() && s.ended.is_none())
    }

    /// Why its last connection ended, if it ended.
    pub fn ended(&self) -> Option<&str> {
        self.sent.last()?.ended.as_deref()
    }

    /// Where it goes with its next connection.
    pub fn goes_to(&mut self, to: SocketAddr) {
        self.to = to;
    }

    /// Whether it sends no frames, though its connection stands.
    pub fn keep_silent(&mut self, silent: bool) {
        self.silent = silent;
    }

    /// Connects anew now.
    pub fn connect(&mut self, now: Time) {
        self.redial = Some(now);
    }

    /// Says that the stream is over, and does not come back by itself.
    pub fn leave(&mut self, now: Time) {
        self.config.again = None;
        self.redial = None;
        match &mut self.rtmp {
            Some(rtmp) => rtmp.handle(Input::Finish, now),
            // A dial may be under way.
            None => {
                self.out.push_back(Out::Close(0, true));
                self.end("left", now);
            }
        }
        self.drain(now);
    }

    fn dial(&mut self, now: Time) {
        self.redial = None;
        // Later connections of anybody carry higher numbers; players check by that.
        let session = now.as_millis() * 1_000 + self.number;
        self.sent.push(Sent { session, ..Sent::default() });
        self.out.push_back(Out::Dial(0, self.to));
    }

    fn end(&mut self, why: &str, now: Time) {
        self.rtmp = None;
        if let Some(sent) = self.sent.last_mut().filter(|s| s.ended.is_none()) {
            sent.ended = Some(why.to_owned());
            let (session, pictures) = (sent.session, sent.pictures);
            self.notes.add(|| format!("publisher {session} ended after {pictures} pictures: {why}"));
        }
        self.redial = self.config.again.map(|d| now + d);
    }

    fn drain(&mut self, now: Time) {
        while let Some(said) = self.rtmp.as_mut().and_then(Machine::poll) {
            match said {
                Output::Send(bytes) => self.out.push_back(Out::Send(0, bytes)),
                Output::Ready => {
                    self.start = now;
                    if let Some(sent) = self.sent.last_mut() {
                        sent.ready = Some(now);
                        let session = sent.session;
                        self.notes.add(|| format!("publisher {session} ready"));
                    }
                    for config in configs() {
                        self.media(&config, now);
                    }
                    self.feed(now);
                }
                Output::Log(..) => {}
                Output::Closed(reason) => {
                    self.out.push_back(Out::Close(0, false));
                    self.end(&reason.to_string(), now);
                }
            }
        }
    }

    fn media(&mut self, item: &proto_core::media::frame::Ingest, now: Time) {
        if let Some(rtmp) = &mut self.rtmp {
            rtmp.handle(Input::Media(item), now);
        }
    }

    fn next(&self) -> Option<(i64, bool)> {
        let sent = self.sent.last().filter(|s| s.ready.is_some() && s.ended.is_none())?;
        let (picture, sound) = (sent.pictures as i64 * PICTURE, sound_at(sent.sounds));
        Some((picture.min(sound), picture <= sound))
    }

    /// Sends what is due.
    fn feed(&mut self, now: Time) {
        while let Some((due, picture)) = self.next()
            && self.start + Duration::from_nanos(due as u64) <= now
        {
            let Some(sent) = self.sent.last_mut() else { return };
            let count = if picture { &mut sent.pictures } else { &mut sent.sounds };
            let seq = *count;
            *count += 1;
            if self.silent {
                self.key_due = true;
                continue;
            }
            let key = picture && (seq % self.config.gop == 0 || std::mem::take(&mut self.key_due));
            let track = if picture { 'v' } else { 'a' };
            let label = Label { stream: self.stream.clone(), session: sent.session, track, seq, key };
            let len = match (picture, key) {
                (true, true) => self.config.key_bytes,
                (true, false) => self.config.delta_bytes,
                _ => 60,
            };
            self.media(&label.frame(len, due), now);
        }
    }
}

impl Client for Publisher {
    fn on(&mut self, input: In<'_>, now: Time) {
        match input {
            In::Connected(_) => {
                let (app, name) = self.stream.split_once('/').unwrap_or(("live", &self.stream));
                let rng = self.rng.fork("publisher", self.sent.len() as u64);
                let host = self.to.to_string();
                self.rtmp = Some(Rtmp::new(&host, app, name, Limits::default(), rng, now));
            }
            In::Closed(_, why) => self.end(why, now),
            In::Tick => {
                if self.redial.is_some_and(|at| at <= now) {
                    if self.rtmp.take().is_some() {
                        self.out.push_back(Out::Close(0, true));
                        self.end("connects anew", now);
                    }
                    self.dial(now);
                }
                if let Some(rtmp) = &mut self.rtmp {
                    rtmp.handle(Input::Tick, now);
                }
                self.feed(now);
            }
            In::Address(_) | In::Datagram { .. } => {}
            In::Writable(..) | In::Received(..) | In::Finished(_) => {
                if let Some(rtmp) = &mut self.rtmp {
                    match input {
                        In::Writable(_, free) => rtmp.handle(Input::Writable(free), now),
                        In::Received(_, bytes) => rtmp.handle(Input::Received(bytes), now),
                        _ => rtmp.handle(Input::PeerFinished, now),
                    }
                }
            }
        }
        self.drain(now);
    }

    fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        let frame = self.next().map(|(due, _)| self.start + Duration::from_nanos(due as u64));
        let rtmp = self.rtmp.as_ref().and_then(Machine::deadline).map(|d| d.at);
        [frame, rtmp, self.redial].into_iter().flatten().min()
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    fn leave(&mut self, now: Time) {
        Publisher::leave(self, now);
    }

    fn standing(&self) -> Standing {
        Standing {
            stream: Some(self.stream.clone()),
            publishes: true,
            ended: self.ended().is_some() && self.redial.is_none(),
            session: self.sent.last().filter(|_| self.is_ready()).map(|s| s.session),
            last_picture: None,
            frames: self.sent.iter().map(|s| s.pictures + s.sounds).sum(),
        }
    }
}
