//! Players by any protocol: they check what they get as it comes, and what they do when their connection ends. How they
//! get it is their [`Source`].

use super::publisher::{Attempt, PublisherBy, Wire};
use super::rml_player::RmlPlay;
use super::{Client, In, Notes, Out, Standing, name_of};
use crate::world::media::Label;
use proto_core::rand::Rng;
use proto_core::time::Time;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How a player behaves.
#[derive(Clone, Debug, Default)]
pub struct PlayerConfig {
    /// It connects again so long after its connection ended, for whatever reason.
    pub again: Option<Duration>,
    /// An RTMP player asks for Opus (`?audio=opus` behind the stream's name) and expects it in Enhanced RTMP's tags.
    pub opus: bool,
    /// By RTSP: packets come as datagrams, not over the connection.
    pub udp: bool,
    /// By RTSP: the publisher's clock of sound runs so many parts in a million too fast, which moves when its frames were
    /// sampled.
    pub sound_ppm: i32,
}

/// Which frame of a publisher's session it is. The stream, being that of the player, is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The publisher's session.
    pub session: u64,
    /// Counts from 0 in each track of a session.
    pub seq: u64,
    /// `v` or `a`.
    pub track: char,
    /// Whether it is a key frame (never for sound).
    pub key: bool,
}

/// A frame that a player got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it says about itself.
    pub label: Mark,
    /// Its timestamp: milliseconds by RTMP, the track's clock, without overflow, by RTP.
    pub stamp: u64,
    /// When it came.
    pub at: Time,
}

/// What a source says.
#[derive(Debug)]
pub enum Heard {
    /// The client does this.
    Do(Out),
    /// The node said that it plays.
    Playing,
    /// The node said something: a status code, an HTTP status.
    Status(String),
    /// The configuration of a track came, and which (see `media::sets`).
    Config(char, u8),
    /// A whole frame came that can be decoded: its track, its timestamp as in [`Seen::stamp`], its label.
    Frame(char, u64, Label),
    /// It was sent to another server, where times and tracks begin anew.
    Anew,
    /// What came must never come.
    Wrong(&'static str, String),
    /// The connection is over, and why.
    Ended(String),
}

/// How one connection of a player gets frames.
pub trait Source: Sized + 'static {
    /// Begins: it dials by itself.
    fn begin(attempt: Attempt, config: &PlayerConfig, now: Time) -> Self;
    /// Takes what the client was told.
    fn on(&mut self, input: &In<'_>, now: Time);
    /// Leaves. [`Heard::Ended`] follows, perhaps later.
    fn finish(&mut self, now: Time);
    /// Goes without a word: closes at once what is open.
    fn abort(&mut self);
    /// What it says next.
    fn poll(&mut self) -> Option<Heard>;
    /// When it wants to be woken.
    fn wake(&self) -> Option<Time>;
}

/// What a player knows of a track in its present connection.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    configured: Option<u8>,
    last: Option<(Mark, u64)>,
}

/// A player of one stream from a source. What is wrong with what it gets is a violation.
pub struct PlayerBy<S> {
    to: SocketAddr,
    ip: Option<IpAddr>,
    stream: String,
    config: PlayerConfig,
    rng: Rng,
    source: Option<S>,
    /// All frames of all its connections, in the order in which they came.
    pub seen: Vec<Seen>,
    /// Places where frames of one publisher's session are missing: (track, last before, first after).
    pub gaps: Vec<(char, u64, u64)>,
    /// Status codes that the server sent.
    pub statuses: Vec<String>,
    /// Whether the server said, on the present connection, that it plays.
    pub playing: bool,
    /// Why its connection ended; none while it has one.
    pub ended: Option<String>,
    /// How many connections it began.
    pub connections: u64,
    /// When it was last told something.
    now: Time,
    redial: Option<Time>,
    tracks: [Track; 2],
    picture: Option<Seen>,
    out: VecDeque<Out>,
    notes: Notes,
}

/// A player by RTMP through `rml_rtmp`.
pub type Player = PlayerBy<RmlPlay>;

impl<S: Source> PlayerBy<S> {
    /// A player that will play `stream` (`app/name`) from `to`, once.
    pub fn new(to: SocketAddr, stream: &str) -> PlayerBy<S> {
        PlayerBy::with(to, stream, PlayerConfig::default(), Rng::new([0; 32]))
    }

    /// As [`PlayerBy::new`], with a behaviour, and the seed of what its source draws.
    pub fn with(to: SocketAddr, stream: &str, config: PlayerConfig, rng: Rng) -> PlayerBy<S> {
        PlayerBy {
            to,
            ip: None,
            stream: stream.to_owned(),
            config,
            rng,
            source: None,
            seen: Vec::new(),
            gaps: Vec::new(),
            statuses: Vec::new(),
            playing: false,
            ended: None,
            connections: 0,
            now: Time::ZERO,
            redial: Some(Time::ZERO),
            tracks: Default::default(),
            picture: None,
            out: VecDeque::new(),
            notes: Notes::default(),
        }
    }

    /// Stops reading from its connection, or goes on.
    pub fn read(&mut self, on: bool) {
        self.out.push_back(Out::Reading(0, on));
    }

    /// Leaves: closes its connection and does not come back by itself.
    pub fn leave(&mut self) {
        let now = self.now;
        self.config.again = None;
        self.redial = None;
        match &mut self.source {
            Some(source) => source.finish(now),
            None => self.end("left", now),
        }
        self.drain(now);
    }

    /// Connects anew now.
    pub fn connect(&mut self, now: Time) {
        self.redial = Some(now);
    }

    /// Where it goes with its next connection.
    pub fn goes_to(&mut self, to: SocketAddr) {
        self.to = to;
    }

    /// What it plays.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Where it plays.
    pub fn at(&self) -> SocketAddr {
        self.to
    }

    /// Its present connection.
    pub fn source(&self) -> Option<&S> {
        self.source.as_ref()
    }

    /// The newest picture.
    pub fn last_picture(&self) -> Option<&Seen> {
        self.picture.as_ref()
    }

    /// Numbers of the pictures that it saw of a publisher's session.
    pub fn pictures(&self, session: u64) -> Vec<u64> {
        self.frames('v', session).map(|s| s.label.seq).collect()
    }

    /// The frames of a track that it got of a publisher's session.
    pub fn frames(&self, track: char, session: u64) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(move |s| s.label.session == session && s.label.track == track)
    }

    /// How long each frame of that publisher took from when it was due to when it was seen here. Frames of the cached
    /// group of pictures, which a newcomer gets, are among them.
    pub fn delays<W: Wire>(&self, of: &PublisherBy<W>) -> Vec<(Mark, Duration)> {
        let delay = |s: &Seen| {
            let due = of.due(s.label.session, s.label.track, s.label.seq)?;
            Some((s.label, s.at.since(due)))
        };
        self.seen.iter().filter_map(delay).collect()
    }

    fn dial(&mut self, now: Time) {
        self.redial = None;
        if let Some(mut source) = self.source.take() {
            source.abort();
            self.heard(&mut source, now);
        }
        self.connections += 1;
        self.ended = None;
        self.playing = false;
        self.tracks = Default::default();
        let (to, ip, stream, number) = (self.to, self.ip, self.stream.clone(), self.connections);
        let rng = self.rng.fork("player", number);
        let attempt = Attempt { to, ip, stream, number, rng };
        self.source = Some(S::begin(attempt, &self.config, now));
    }

    fn end(&mut self, why: &str, now: Time) {
        if self.ended.is_none() {
            self.ended = Some(why.to_owned());
            let stream = &self.stream;
            self.notes.add(|| format!("player of {stream} ended: {why}"));
        }
        self.redial = self.config.again.map(|d| now + d);
    }

    fn fault(&mut self, invariant: &'static str, text: String) {
        let text = format!("a player of {} at {}: {text}", self.stream, self.to);
        self.out.push_back(Out::Violation(invariant, text));
    }

    /// Takes what a source says. `false`: it said that it is over.
    fn heard(&mut self, source: &mut S, now: Time) -> bool {
        let mut stands = true;
        while let Some(heard) = source.poll() {
            match heard {
                Heard::Do(out) => self.out.push_back(out),
                Heard::Playing => self.playing = true,
                Heard::Status(code) => {
                    let stream = &self.stream;
                    self.notes.add(|| format!("player of {stream} is told {code}"));
                    self.statuses.push(code);
                }
                Heard::Config(track, dress) => self.track(track).configured = Some(dress),
                Heard::Frame(track, stamp, label) => self.frame(track, stamp, &label, now),
                Heard::Anew => self.tracks = Default::default(),
                Heard::Wrong(invariant, text) => self.fault(invariant, text),
                Heard::Ended(why) => {
                    self.end(&why, now);
                    stands = false;
                }
            }
        }
        stands
    }

    fn drain(&mut self, now: Time) {
        if let Some(mut source) = self.source.take()
            && self.heard(&mut source, now)
        {
            self.source = Some(source);
        }
    }

    fn track(&mut self, track: char) -> &mut Track {
        &mut self.tracks[usize::from(track == 'v')]
    }

    fn frame(&mut self, track: char, stamp: u64, label: &Label, now: Time) {
        let mark = Mark { session: label.session, seq: label.seq, track: label.track, key: label.key };
        let Track { configured, last } = *self.track(track);
        let starts = track != 'v' || label.key;
        let mut wrong = None;
        let mut is = |invariant, what| wrong = wrong.or(Some((invariant, what)));
        if label.stream != name_of(&self.stream) {
            is("S3", "a frame of another stream");
        }
        if label.track != track {
            is("S3", "a frame of another track");
        }
        match configured {
            None => is("S4", "a frame before its configuration"),
            Some(dress) if dress != label.dress => is("S4", "a frame under another configuration"),
            Some(_) => {}
        }
        if last.is_some_and(|(_, at)| stamp < at) {
            is("S4", "time goes back");
        }
        match last.map(|(last, _)| last) {
            None if starts => {}
            None => is("S4", "the first picture is no key frame"),
            Some(last) if mark.session < last.session => is("S1", "a frame of a superseded publisher"),
            Some(last) if mark.session > last.session => {
                if !starts {
                    is("S4", "the first picture of a new publisher is no key frame");
                }
            }
            Some(last) if mark.seq <= last.seq => is("S4", "a frame again, or out of order"),
            Some(last) if mark.seq == last.seq + 1 => {}
            Some(last) => {
                if !starts {
                    is("S4", "a gap that does not end at a key frame");
                }
                self.gaps.push((track, last.seq, mark.seq));
            }
        }
        if let Some((invariant, what)) = wrong {
            self.fault(invariant, format!("{what}: {label:?} at {stamp}, after {last:?}"));
        }
        self.notes.add(|| format!("saw {}{} of {} at {stamp}", track, mark.seq, mark.session));
        self.track(track).last = Some((mark, stamp));
        let seen = Seen { label: mark, stamp, at: now };
        self.seen.push(seen);
        if track == 'v' {
            self.picture = Some(seen);
        }
    }
}

impl<S: Source> Client for PlayerBy<S> {
    fn on(&mut self, input: In<'_>, now: Time) {
        self.now = now;
        if let In::Address(ip) = input {
            // As a publisher in another network.
            let moved = self.ip.replace(ip).is_some_and(|before| before != ip);
            if moved && self.source.is_some() && self.config.again.is_some() {
                self.redial = self.config.again.map(|d| now + d);
            }
        }
        if self.redial.is_some_and(|at| at <= now) && matches!(input, In::Tick) {
            self.dial(now);
        }
        if let Some(source) = &mut self.source {
            source.on(&input, now);
        }
        self.drain(now);
    }

    fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        let source = self.source.as_ref().and_then(Source::wake);
        [source, self.redial].into_iter().flatten().min()
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    fn leave(&mut self, _now: Time) {
        Self::leave(self);
    }

    fn standing(&self) -> Standing {
        Standing {
            stream: Some(name_of(&self.stream).to_owned()),
            publishes: false,
            ended: self.source.is_none() && self.redial.is_none(),
            session: self.picture.map(|s| s.label.session),
            last_picture: self.picture.map(|s| s.at),
            frames: self.seen.len() as u64,
            calls: None,
            talks: None,
        }
    }
}
