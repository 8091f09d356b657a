//! Publishers by any protocol: what they send and when, and what they do when their connection ends. How it gets to the
//! node is their [`Wire`]; the one here is the project's own RTMP client.

use super::{Client, In, Notes, Out, Standing, name_of};
use crate::world::media::{Label, Order, PICTURE, Place, REORDERS, config, sound_at};
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::media::frame::{Ingest, NewFrame};
use proto_core::media::track::TrackId;
use proto_core::rand::Rng;
use proto_core::rtmp::client::{Client as Rtmp, Input, Output};
use proto_core::time::Time;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
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
    /// By RTSP: packets go as datagrams, not over the connection.
    pub udp: bool,
    /// It sends no key frame because a viewer wants one.
    pub stubborn: bool,
    /// Its clock of sound runs so many parts in a million too fast beside that of its pictures.
    pub sound_ppm: i32,
    /// By the project's own RTMP client: besides the picture as it is, in tracks of their own, the same picture so many times
    /// as large (multitrack of Enhanced RTMP v2). All have their key frames together.
    pub renditions: Vec<usize>,
    /// The first timestamp: by RTMP milliseconds, by RTSP of both tracks in place of a random one.
    pub stamp: Option<u32>,
    /// At which picture it goes over to which parameter sets (see `media::sets`), with a key frame.
    pub dresses: Vec<(u64, u8)>,
    /// By the project's own RTMP client: it goes where a node sends it (Reconnect Request of Enhanced RTMP v2).
    pub obeys: bool,
    /// By RTMP: other parameter sets come in front of their picture alone, not in a message of their own.
    pub in_band: bool,
    /// By RTMP: in which order its pictures are coded. If not as they are shown, it has one dress, and begins a group of
    /// pictures only where none of the one before is shown later.
    pub order: Order,
    /// When it sends pictures, milliseconds from its start.
    pub pictures: Range<u64>,
    /// When it sends sound, milliseconds from its start.
    pub sounds: Range<u64>,
}

impl PublisherConfig {
    /// The parameter sets of a picture, and whether they are others than before.
    fn dress(&self, seq: u64) -> (u8, bool) {
        if self.order != Order::Shown {
            return (REORDERS, false);
        }
        let last = self.dresses.iter().rev().find(|(at, _)| *at <= seq);
        last.map_or((0, false), |(at, dress)| (*dress, *at == seq))
    }
}

/// A publisher's whole life.
const ALWAYS: Range<u64> = 0..u64::MAX;

impl Default for PublisherConfig {
    fn default() -> Self {
        PublisherConfig {
            gop: 25,
            key_bytes: 6_000,
            delta_bytes: 700,
            again: None,
            udp: false,
            stubborn: false,
            sound_ppm: 0,
            renditions: Vec::new(),
            stamp: None,
            dresses: Vec::new(),
            obeys: false,
            in_band: false,
            order: Order::Shown,
            pictures: ALWAYS,
            sounds: ALWAYS,
        }
    }
}

/// What one connection of a publisher brought.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// The number in its labels. It is given anew when the node accepts it: of two that were accepted the later has the
    /// higher, whoever asked first (a node without its manager lets a publisher wait).
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

/// One connection that is to be made.
#[derive(Clone)]
pub struct Attempt {
    /// The node's port.
    pub to: SocketAddr,
    /// The client's own address.
    pub ip: Option<IpAddr>,
    /// The stream, `app/name`, with a query if the client shows one.
    pub stream: String,
    /// Counts the client's connections, from 1.
    pub number: u64,
    /// What is random in it.
    pub rng: Rng,
}

impl Attempt {
    /// The two parts of the stream's name.
    pub fn app_and_name(&self) -> (&str, &str) {
        self.stream.split_once('/').unwrap_or(("live", &self.stream))
    }
}

/// A frame that is due.
#[derive(Clone, Debug)]
pub struct Due {
    /// What it says about itself.
    pub label: Label,
    /// Bytes that its label fills.
    pub len: usize,
    /// Its time, nanoseconds from the publisher's start.
    pub time: i64,
}

/// What a wire says.
#[derive(Debug)]
pub enum Said {
    /// The client does this.
    Do(Out),
    /// The node takes the stream: frames may be sent from now on.
    Ready,
    /// The node wants it to go on there; the connection ends then.
    Moves(SocketAddr),
    /// The connection is over, and why.
    Ended(String),
}

/// How one connection of a publisher carries frames.
pub trait Wire: Sized + 'static {
    /// Begins: it dials by itself.
    fn begin(attempt: Attempt, config: &PublisherConfig, now: Time) -> Self;
    /// Takes what the client was told.
    fn on(&mut self, input: &In<'_>, now: Time);
    /// Sends a frame.
    fn send(&mut self, due: &Due, now: Time);
    /// Says that the stream is over. [`Said::Ended`] follows, perhaps later.
    fn finish(&mut self, now: Time);
    /// Goes without a word: closes at once what is open.
    fn abort(&mut self);
    /// What it says next.
    fn poll(&mut self) -> Option<Said>;
    /// When it wants to be woken.
    fn wake(&self) -> Option<Time>;
    /// Whether the node has asked for a key frame since it was last asked here.
    fn wants_key(&mut self) -> bool {
        false
    }
    /// When the `n`-th sound frame is due, nanoseconds from the start.
    fn sound_at(n: u64) -> i64 {
        sound_at(n)
    }
}

/// A publisher of one stream over a wire.
pub struct PublisherBy<W> {
    to: SocketAddr,
    ip: Option<IpAddr>,
    stream: String,
    config: PublisherConfig,
    number: u64,
    rng: Rng,
    wire: Option<W>,
    /// All its connections, the present one last.
    pub sent: Vec<Sent>,
    start: Time,
    redial: Option<Time>,
    silent: bool,
    leaving: bool,
    /// The first picture after a silence is a key frame.
    key_due: bool,
    reordered: Reordered,
    out: VecDeque<Out>,
    notes: Notes,
}

/// Where a publisher stands that does not code its pictures in the order in which they are shown.
#[derive(Debug, Default)]
struct Reordered {
    /// Pictures since the key frame, that included.
    since: u64,
    /// Pictures to which no other refers, right before the next.
    skips: u8,
    /// When the last of those that were sent is shown, in pictures.
    high: Option<u64>,
    /// Some of its group was not sent: it ends.
    broken: bool,
}

impl Reordered {
    /// The next picture: whether it is a key frame (if one is `due`), and its place; `None`: it is left out.
    fn next(&mut self, order: Order, seq: u64, due: bool) -> Option<(bool, Place)> {
        let first = order.place(0, 0);
        let free = self.high.is_none_or(|high| seq + u64::from(first.shown) > high);
        let key = (due || self.broken) && free;
        if self.broken && !key {
            return None;
        }
        if key {
            (self.since, self.broken) = (0, false);
        }
        let place = order.place(self.since, self.skips);
        self.since += 1;
        self.skips = if place.is_droppable(key) { self.skips + 1 } else { 0 };
        self.high = self.high.max(Some(seq + u64::from(place.shown)));
        Some((key, place))
    }
}

/// A publisher by the project's own RTMP client.
pub type Publisher = PublisherBy<OwnRtmp>;

impl<W: Wire> PublisherBy<W> {
    /// The `number`-th client, which will publish `stream` (`app/name`) at `to`.
    pub fn new(
        number: u64,
        to: SocketAddr,
        stream: &str,
        config: PublisherConfig,
        rng: Rng,
        now: Time,
    ) -> PublisherBy<W> {
        PublisherBy {
            to,
            ip: None,
            stream: stream.to_owned(),
            config,
            number,
            rng,
            wire: None,
            sent: Vec::new(),
            start: now,
            redial: Some(now),
            silent: false,
            leaving: false,
            key_due: false,
            reordered: Reordered::default(),
            out: VecDeque::new(),
            notes: Notes::default(),
        }
    }

    /// Whether the node takes its stream now.
    pub fn is_ready(&self) -> bool {
        self.sent.last().is_some_and(|s| s.ready.is_some() && s.ended.is_none())
    }

    /// How many of its connections a node accepted.
    pub fn accepted(&self) -> usize {
        self.sent.iter().filter(|s| s.ready.is_some()).count()
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
        self.leaving = false;
        self.redial = Some(now);
    }

    /// Says that the stream is over, and does not come back by itself.
    pub fn leave(&mut self, now: Time) {
        self.config.again = None;
        self.redial = None;
        self.leaving = true;
        if let Some(wire) = &mut self.wire {
            wire.finish(now);
        }
        self.drain(now);
    }

    /// When a frame of one of its connections was due; none: that connection was never accepted.
    pub fn due(&self, session: u64, track: char, seq: u64) -> Option<Time> {
        let ready = self.sent.iter().find(|s| s.session == session)?.ready?;
        let after = if track == 'v' { seq as i64 * PICTURE } else { self.sound_at(seq) };
        Some(ready + Duration::from_nanos(after as u64))
    }

    /// When the `n`-th sound frame is due, by the clock that is right.
    fn sound_at(&self, n: u64) -> i64 {
        let million = 1_000_000;
        (i128::from(W::sound_at(n)) * million / (million + i128::from(self.config.sound_ppm))) as i64
    }

    /// Later connections of anybody carry higher numbers; players check by that.
    fn session_at(&self, now: Time) -> u64 {
        now.as_millis() * 1_000 + self.number
    }

    fn dial(&mut self, now: Time) {
        self.redial = None;
        if let Some(mut wire) = self.wire.take() {
            wire.abort();
            self.said(&mut wire, now);
            self.end("connects anew", now);
            self.redial = None;
        }
        let session = self.session_at(now);
        self.sent.push(Sent { session, ..Sent::default() });
        let number = self.sent.len() as u64;
        let (to, ip, stream) = (self.to, self.ip, self.stream.clone());
        let rng = self.rng.fork("publisher", number);
        self.wire = Some(W::begin(Attempt { to, ip, stream, number, rng }, &self.config, now));
    }

    fn end(&mut self, why: &str, now: Time) {
        if let Some(sent) = self.sent.last_mut().filter(|s| s.ended.is_none()) {
            sent.ended = Some(why.to_owned());
            let (session, pictures) = (sent.session, sent.pictures);
            self.notes.add(|| format!("publisher {session} ended after {pictures} pictures: {why}"));
        }
        self.redial = self.config.again.map(|d| now + d);
    }

    /// Passes on what a wire says. `false`: it said that it is over.
    fn said(&mut self, wire: &mut W, now: Time) -> bool {
        let (mut stands, mut moves) = (true, false);
        while let Some(said) = wire.poll() {
            match said {
                Said::Do(out) => self.out.push_back(out),
                Said::Ready => {
                    self.start = now;
                    let session = self.session_at(now);
                    if let Some(sent) = self.sent.last_mut() {
                        sent.ready = Some(now);
                        sent.session = session;
                        self.reordered = Reordered::default();
                        self.notes.add(|| format!("publisher {session} ready"));
                    }
                    self.feed(wire, now);
                }
                Said::Moves(to) => (self.to, moves) = (to, true),
                Said::Ended(why) => {
                    self.end(&why, now);
                    stands = false;
                }
            }
        }
        if moves {
            self.redial = Some(now);
        }
        stands
    }

    fn drain(&mut self, now: Time) {
        if let Some(mut wire) = self.wire.take()
            && self.said(&mut wire, now)
        {
            self.wire = Some(wire);
        }
    }

    fn next(&self) -> Option<(i64, bool)> {
        let sent = self.sent.last().filter(|s| s.ready.is_some() && s.ended.is_none() && !self.leaving)?;
        let (picture, sound) = (sent.pictures as i64 * PICTURE, self.sound_at(sent.sounds));
        Some((picture.min(sound), picture <= sound))
    }

    /// Sends what is due.
    fn feed(&mut self, wire: &mut W, now: Time) {
        while let Some((time, picture)) = self.next()
            && self.start + Duration::from_nanos(time as u64) <= now
        {
            let Some(sent) = self.sent.last_mut() else { return };
            let count = if picture { &mut sent.pictures } else { &mut sent.sounds };
            let seq = *count;
            *count += 1;
            let sends = if picture { &self.config.pictures } else { &self.config.sounds };
            let away = !sends.contains(&(time as u64 / 1_000_000));
            if self.silent || away {
                self.key_due |= self.silent || picture;
                self.reordered.broken |= picture;
                continue;
            }
            let (dress, changes) = if picture { self.config.dress(seq) } else { (0, false) };
            let regular = seq % self.config.gop == 0 || changes;
            let mut key = picture && (regular | wire.wants_key() | std::mem::take(&mut self.key_due));
            let mut place = Place { order: self.config.order, ..Place::default() };
            if picture && self.config.order != Order::Shown {
                match self.reordered.next(self.config.order, seq, key) {
                    Some((now, at)) => {
                        self.key_due = key && !now;
                        (key, place) = (now, at);
                    }
                    None => {
                        self.key_due = true;
                        continue;
                    }
                }
            }
            let track = if picture { 'v' } else { 'a' };
            let label = Label {
                stream: name_of(&self.stream).to_owned(),
                session: sent.session,
                track,
                seq,
                key,
                dress,
                place,
            };
            let len = match (picture, key) {
                (true, true) => self.config.key_bytes,
                (true, false) => self.config.delta_bytes,
                _ => 60,
            };
            wire.send(&Due { label, len, time }, now);
        }
    }
}

impl<W: Wire> Client for PublisherBy<W> {
    fn on(&mut self, input: In<'_>, now: Time) {
        if let In::Address(ip) = input {
            // It is in another network: what it sends on the old connection leads nowhere, and its system says so.
            let moved = self.ip.replace(ip).is_some_and(|before| before != ip);
            if moved && self.wire.is_some() && self.config.again.is_some() {
                self.redial = self.config.again.map(|d| now + d);
            }
        }
        if self.redial.is_some_and(|at| at <= now) && matches!(input, In::Tick) {
            self.dial(now);
        }
        if let Some(mut wire) = self.wire.take() {
            wire.on(&input, now);
            let mut stands = self.said(&mut wire, now);
            if stands {
                self.feed(&mut wire, now);
                stands = self.said(&mut wire, now);
            }
            if stands {
                self.wire = Some(wire);
            }
        }
    }

    fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        let frame = self.next().map(|(due, _)| self.start + Duration::from_nanos(due as u64));
        let wire = self.wire.as_ref().and_then(Wire::wake);
        [frame, wire, self.redial].into_iter().flatten().min()
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    fn leave(&mut self, now: Time) {
        Self::leave(self, now);
    }

    fn standing(&self) -> Standing {
        Standing {
            stream: Some(name_of(&self.stream).to_owned()),
            publishes: true,
            ended: self.wire.is_none() && self.redial.is_none(),
            session: self.sent.last().filter(|_| self.is_ready()).map(|s| s.session),
            last_picture: None,
            frames: self.sent.iter().map(|s| s.pictures + s.sounds).sum(),
            calls: None,
            talks: None,
        }
    }
}

/// The same in the track of the `n`th further rendition.
fn rendition(n: usize, of: &Ingest) -> Ingest {
    let mut item = of.clone();
    let (Ingest::Config { track, .. } | Ingest::Frame(NewFrame { track, .. })) = &mut item;
    *track = u8::try_from(n + 1).ok().and_then(TrackId::video).expect("few renditions");
    item
}

/// A connection of the project's own RTMP client.
pub struct OwnRtmp {
    attempt: Attempt,
    renditions: Vec<usize>,
    in_band: bool,
    obeys: bool,
    /// What it said of its tracks: sound, pictures.
    told: [Option<u8>; 2],
    rtmp: Option<Rtmp>,
    said: VecDeque<Said>,
}

impl OwnRtmp {
    fn handle(&mut self, input: Input<'_>, now: Time) {
        let Some(rtmp) = &mut self.rtmp else { return };
        rtmp.handle(input, now);
        while let Some(said) = self.rtmp.as_mut().and_then(Machine::poll) {
            match said {
                Output::Send(bytes) => self.said.push_back(Said::Do(Out::Send(0, bytes))),
                Output::Ready => {
                    self.said.push_back(Said::Ready);
                }
                Output::Reconnect(url) => {
                    let rest = url.as_deref().and_then(|url| url.split_once("://")).map(|(_, rest)| rest);
                    let host = rest.and_then(|rest| rest.split('/').next());
                    let to = host.and_then(|host| host.parse().ok()).unwrap_or(self.attempt.to);
                    self.said.push_back(Said::Moves(to));
                }
                Output::Log(..) | Output::Media(_) => {}
                Output::Closed(reason) => {
                    self.rtmp = None;
                    self.said.push_back(Said::Do(Out::Close(0, false)));
                    self.said.push_back(Said::Ended(reason.to_string()));
                }
            }
        }
    }
}

impl Wire for OwnRtmp {
    fn begin(attempt: Attempt, config: &PublisherConfig, _now: Time) -> OwnRtmp {
        let said = VecDeque::from([Said::Do(Out::Dial(0, attempt.to))]);
        let renditions = config.renditions.clone();
        let PublisherConfig { in_band, obeys, .. } = *config;
        OwnRtmp { attempt, renditions, in_band, obeys, told: [None; 2], rtmp: None, said }
    }

    fn on(&mut self, input: &In<'_>, now: Time) {
        match input {
            In::Connected(_) => {
                let (app, name) = self.attempt.app_and_name();
                let host = self.attempt.to.to_string();
                let rng = self.attempt.rng.clone();
                let client = Rtmp::new(&host, app, name, Limits::default(), rng, now);
                self.rtmp = Some(if self.obeys { client.obeying() } else { client });
                self.handle(Input::Tick, now);
            }
            In::Closed(_, why) => self.said.push_back(Said::Ended((*why).to_owned())),
            In::Tick => self.handle(Input::Tick, now),
            In::Writable(_, free) => self.handle(Input::Writable(*free), now),
            In::Received(_, bytes) => self.handle(Input::Received(bytes), now),
            In::Finished(_) => self.handle(Input::PeerFinished, now),
            In::Address(_) | In::Accepted(_) | In::Datagram { .. } => {}
        }
    }

    fn send(&mut self, due: &Due, now: Time) {
        let Label { track, dress, .. } = due.label;
        let told = &mut self.told[usize::from(track == 'v')];
        let news = told.replace(dress) != Some(dress);
        let first = news && self.in_band && dress == 0;
        let told = news && (!self.in_band || first);
        if told {
            self.handle(Input::Media(&config(track, dress)), now);
        }
        self.handle(Input::Media(&due.label.frame(due.len, due.time, news && self.in_band)), now);
        for (n, times) in self.renditions.clone().into_iter().enumerate().filter(|_| track == 'v') {
            if told {
                self.handle(Input::Media(&rendition(n, &config(track, dress))), now);
            }
            let frame = due.label.frame(due.len * times, due.time, news && self.in_band);
            self.handle(Input::Media(&rendition(n, &frame)), now);
        }
    }

    fn finish(&mut self, now: Time) {
        if self.rtmp.is_some() {
            return self.handle(Input::Finish, now);
        }
        self.abort();
        self.said.push_back(Said::Ended("left".to_owned()));
    }

    fn abort(&mut self) {
        self.said.push_back(Said::Do(Out::Close(0, true)));
    }

    fn poll(&mut self) -> Option<Said> {
        self.said.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        self.rtmp.as_ref().and_then(Machine::deadline).map(|d| d.at)
    }
}
