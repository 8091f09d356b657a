//! An RTMP client with several streams on one connection, of which it publishes some and plays the others. Messages and chunks
//! are read and written by the project's codecs, which others check (`rtmp_rml`, ffmpeg); the order of what is said is its own.

use super::publisher::Due;
use super::rml_publisher::{tag_of, video_config};
use super::{Client, Conn, In, Notes, Out};
use crate::world::media::{ASC, Label, PICTURE, Tag, read_audio, read_video, sound_at};
use bytes::{Bytes, BytesMut};
use proto_core::limits::Limits;
use proto_core::rand::Rng;
use proto_core::rtmp::handshake::ClientHandshake;
use proto_core::time::Time;
use proto_core::wire::amf0::{Bounds, Value, emit_all, parse};
use proto_core::wire::rtmp_chunk::{ChunkReader, write_message};
use proto_core::wire::rtmp_message::{Message, event, kind, parse_user_control, user_control};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// The largest payload of a chunk until somebody says another.
const CHUNK: u32 = 128;
/// Transactions of `createStream` are numbered from here.
const CREATE: usize = 10;
/// `capsEx`: it obeys a request to reconnect.
const RECONNECTS: f64 = 1.0;

/// A frame that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The publisher's session.
    pub session: u64,
    /// `v` or `a`.
    pub track: char,
    /// Counts from 0 in each track of a session.
    pub seq: u64,
}

/// One stream of it.
#[derive(Debug)]
pub struct Stream {
    /// Its name, without the app.
    pub name: String,
    /// It is published, else played.
    pub publishes: bool,
    /// Its number on the present connection.
    number: Option<u32>,
    /// Status codes that the server sent for it.
    pub statuses: Vec<String>,
    /// Since when it is published, and under which number in its labels.
    since: Option<(Time, u64)>,
    /// Pictures and sound frames that were sent on the present connection.
    pub sent: [u64; 2],
    /// What came, in the order in which it came.
    pub seen: Vec<Seen>,
    /// How much of that came on earlier connections.
    earlier: usize,
}

impl Stream {
    /// The numbers of the pictures that came of a publisher's session.
    pub fn pictures(&self, session: u64) -> Vec<u64> {
        let of = |s: &&Seen| s.session == session && s.track == 'v';
        self.seen.iter().filter(of).map(|s| s.seq).collect()
    }

    /// The session of what is published, while the server takes it.
    pub fn session(&self) -> Option<u64> {
        self.since.map(|(_, session)| session)
    }
}

/// The client. It connects once; where a server sends it (Reconnect Request), it goes with all its streams.
pub struct Several {
    to: SocketAddr,
    app: String,
    number: u64,
    rng: Rng,
    /// Its streams, in the order in which it asks for them.
    pub streams: Vec<Stream>,
    /// How many connections it has begun.
    pub connections: u64,
    /// Why its connection ended; none while it has one.
    pub ended: Option<String>,
    begins: bool,
    moves: bool,
    handshake: Option<ClientHandshake>,
    reader: ChunkReader,
    early: Vec<u8>,
    out: VecDeque<Out>,
    notes: Notes,
}

impl Several {
    /// The `number`-th client. It will publish and play streams of `app` at `to`.
    pub fn new(
        number: u64,
        to: SocketAddr,
        app: &str,
        publishes: &[&str],
        plays: &[&str],
        rng: Rng,
    ) -> Several {
        let stream = |publishes| {
            move |name: &&str| Stream {
                name: (*name).to_owned(),
                publishes,
                number: None,
                statuses: Vec::new(),
                since: None,
                sent: [0; 2],
                seen: Vec::new(),
                earlier: 0,
            }
        };
        let streams = publishes.iter().map(stream(true)).chain(plays.iter().map(stream(false)));
        Several {
            to,
            app: app.to_owned(),
            number,
            rng,
            streams: streams.collect(),
            connections: 0,
            ended: None,
            begins: true,
            moves: false,
            handshake: None,
            reader: ChunkReader::new(&Limits::default()),
            early: Vec::new(),
            out: VecDeque::new(),
            notes: Notes::default(),
        }
    }

    /// The stream of that name.
    ///
    /// # Panics
    /// If it has none.
    pub fn stream(&self, name: &str) -> &Stream {
        self.streams
            .iter()
            .find(|s| s.name == name)
            .unwrap_or_else(|| panic!("{name} is none of its streams"))
    }

    /// Where it is connected.
    pub fn at(&self) -> SocketAddr {
        self.to
    }

    /// Ends one stream; the others go on.
    pub fn stop(&mut self, name: &str) {
        let stream = self.streams.iter_mut().find(|s| s.name == name);
        if let Some((stream, number)) = stream.and_then(|s| s.number.take().map(|number| (s, number))) {
            stream.since = None;
            let number = Value::Number(number.into());
            self.command(0, "deleteStream", 0.0, Value::Null, &[number]);
        }
    }

    /// Each connection has a number of its own.
    fn conn(&self) -> Conn {
        self.connections as Conn
    }

    fn send(&mut self, stream: u32, kind: u8, stamp: u32, payload: &[u8]) {
        let mut out = BytesMut::new();
        // A chunk stream for each kind and message stream.
        let csid = if stream == 0 { 3 } else { 4 + 2 * stream + u32::from(kind == kind::AUDIO) };
        write_message(&mut out, csid, stamp, kind, stream, payload, CHUNK);
        let conn = self.conn();
        self.out.push_back(Out::Send(conn, out.freeze()));
    }

    fn command(&mut self, stream: u32, name: &str, transaction: f64, object: Value, more: &[Value]) {
        let values = [&[Value::string(name), Value::Number(transaction), object][..], more].concat();
        self.send(stream, kind::COMMAND, 0, &emit_all(&values));
    }

    fn dial(&mut self) {
        self.connections += 1;
        self.begins = false;
        self.ended = None;
        self.handshake = None;
        self.early.clear();
        self.reader = ChunkReader::new(&Limits::default());
        for stream in &mut self.streams {
            (stream.number, stream.since, stream.sent) = (None, None, [0; 2]);
            stream.earlier = stream.seen.len();
        }
        let conn = self.conn();
        self.out.push_back(Out::Dial(conn, self.to));
    }

    fn end(&mut self, why: &str) {
        self.notes.add(|| format!("the client of several streams: {why}"));
        self.ended = Some(why.to_owned());
        self.streams.iter_mut().for_each(|s| s.since = None);
        self.begins = std::mem::take(&mut self.moves);
    }

    fn wrong(&mut self, text: String) {
        self.out.push_back(Out::Violation("S3", text));
    }

    fn received(&mut self, bytes: &[u8], now: Time) {
        self.early.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.early);
        let mut input = &all[..];
        if let Some(handshake) = &mut self.handshake {
            match handshake.receive(&mut input) {
                Ok(None) => {}
                Ok(Some(c2)) => {
                    self.handshake = None;
                    let conn = self.conn();
                    self.out.push_back(Out::Send(conn, c2.into()));
                    let object = Value::object([
                        ("app", Value::string(self.app.as_str())),
                        ("tcUrl", Value::string(format!("rtmp://{}/{}", self.to, self.app))),
                        ("capsEx", Value::Number(RECONNECTS)),
                    ]);
                    self.command(0, "connect", 1.0, object, &[]);
                }
                Err(e) => return self.wrong(format!("the handshake: {e}")),
            }
        }
        while self.handshake.is_none() {
            match self.reader.read(&mut input) {
                Ok(Some(message)) => self.message(&message, now),
                Ok(None) => break,
                Err(e) => return self.wrong(format!("chunks: {e}")),
            }
        }
        self.early = input.to_vec();
    }

    fn message(&mut self, message: &Message, now: Time) {
        match message.kind {
            kind::USER_CONTROL => {
                if let Some((event::PING_REQUEST, stamp)) = parse_user_control(&message.payload) {
                    self.send(0, kind::USER_CONTROL, 0, &user_control(event::PING_RESPONSE, stamp));
                }
            }
            kind::COMMAND => match parse(&message.payload, Bounds::of(&Limits::default(), true)) {
                Ok(values) => self.told(message.stream, &values, now),
                Err(e) => self.wrong(format!("a command: {e:?}")),
            },
            kind::VIDEO | kind::AUDIO => self.media(message),
            _ => {}
        }
    }

    fn told(&mut self, stream: u32, values: &[Value], now: Time) {
        let name = values.first().and_then(Value::as_str).unwrap_or_default();
        let transaction = values.get(1).and_then(Value::as_number).unwrap_or_default() as usize;
        match name {
            "_result" if transaction == 1 => {
                for n in 0..self.streams.len() {
                    self.command(0, "createStream", (CREATE + n) as f64, Value::Null, &[]);
                }
            }
            "_result" if transaction >= CREATE => {
                let number = values.get(3).and_then(Value::as_number).unwrap_or_default() as u32;
                let Some(of) = self.streams.get_mut(transaction - CREATE) else { return };
                of.number = Some(number);
                let (name, publishes) = (Value::string(of.name.as_str()), of.publishes);
                match publishes {
                    true => self.command(number, "publish", 0.0, Value::Null, &[name, Value::string("live")]),
                    false => self.command(number, "play", 0.0, Value::Null, &[name, Value::Number(-2_000.0)]),
                }
            }
            "onStatus" => {
                let info = values.get(3);
                let said =
                    |what: &str| info.and_then(|i| i.get(what)).and_then(Value::as_str).unwrap_or_default();
                self.status(stream, said("code").to_owned(), said("tcUrl"), now);
            }
            _ => {}
        }
    }

    fn status(&mut self, stream: u32, code: String, url: &str, now: Time) {
        if code == "NetConnection.Connect.ReconnectRequest" {
            self.notes.add(|| format!("the client of several streams is asked to go on at {url:?}"));
            let host =
                url.strip_prefix("rtmp://").and_then(|rest| rest.strip_suffix(&format!("/{}", self.app)));
            match host.map(str::parse) {
                Some(Ok(to)) => (self.to, self.moves) = (to, true),
                _ => return self.wrong(format!("it is sent to {url:?}")),
            }
            let conn = self.conn();
            self.out.push_back(Out::Close(conn, false));
            return self.end("goes where it was sent");
        }
        let session = now.as_millis() * 1_000 + self.number;
        let Some(of) = self.streams.iter_mut().find(|s| s.number == Some(stream)) else { return };
        let starts = code == "NetStream.Publish.Start";
        of.statuses.push(code);
        if starts {
            of.since = Some((now, session));
            self.send(stream, kind::VIDEO, 0, &video_config(0));
            self.send(stream, kind::AUDIO, 0, &[&[0xaf, 0][..], &ASC].concat());
        }
    }

    fn media(&mut self, message: &Message) {
        let Some(n) = self.streams.iter().position(|s| s.number == Some(message.stream)) else { return };
        let track = if message.kind == kind::VIDEO { 'v' } else { 'a' };
        let read = if track == 'v' { read_video } else { read_audio };
        let label = match read(&message.payload) {
            Ok(Tag::Frame(label)) => label,
            Ok(Tag::Config(_)) => return,
            Err(e) => return self.wrong(format!("{track} of {}: {e}", self.streams[n].name)),
        };
        let (name, of) = (format!("{}/{}", self.app, self.streams[n].name), &mut self.streams[n]);
        let now = of.seen.get(of.earlier..).unwrap_or_default();
        let before = now.iter().rfind(|s| s.track == track && s.session == label.session).map(|s| s.seq);
        of.seen.push(Seen { session: label.session, track, seq: label.seq });
        if of.publishes || label.stream != name || label.track != track {
            self.wrong(format!("{name} brings {label:?}"));
        } else if before.is_some_and(|before| before >= label.seq) {
            self.out.push_back(Out::Violation("S4", format!("{name} brings {label:?} behind {before:?}")));
        }
    }

    /// When a published stream sends next, and whether that is a picture.
    fn next(stream: &Stream) -> Option<(Time, bool)> {
        let (since, _) = stream.since?;
        let [pictures, sounds] = stream.sent;
        let (picture, sound) = (pictures as i64 * PICTURE, sound_at(sounds));
        Some((since + Duration::from_nanos(picture.min(sound) as u64), picture <= sound))
    }

    fn feed(&mut self, now: Time) {
        for n in 0..self.streams.len() {
            while let Some((_, picture)) = Self::next(&self.streams[n]).filter(|(at, _)| *at <= now) {
                let of = &mut self.streams[n];
                let (Some((_, session)), Some(number)) = (of.since, of.number) else { break };
                let seq = of.sent[usize::from(!picture)];
                of.sent[usize::from(!picture)] += 1;
                let time = if picture { seq as i64 * PICTURE } else { sound_at(seq) };
                let key = picture && seq.is_multiple_of(25);
                let label = Label {
                    stream: format!("{}/{}", self.app, of.name),
                    session,
                    track: if picture { 'v' } else { 'a' },
                    seq,
                    key,
                    dress: 0,
                    place: Default::default(),
                };
                let len = if key { 4_000 } else { 400 };
                let tag: Bytes = tag_of(&Due { label, len, time });
                let kind = if picture { kind::VIDEO } else { kind::AUDIO };
                self.send(number, kind, (time / 1_000_000) as u32, &tag);
            }
        }
    }
}

impl Client for Several {
    fn on(&mut self, input: In<'_>, now: Time) {
        match input {
            In::Connected(conn) if conn == self.conn() => {
                let mut rng = self.rng.fork("handshake", self.connections);
                let (handshake, first) = ClientHandshake::new(&mut rng);
                self.handshake = Some(handshake);
                let conn = self.conn();
                self.out.push_back(Out::Send(conn, first.into()));
            }
            In::Received(conn, bytes) if conn == self.conn() && self.ended.is_none() => {
                self.received(bytes, now)
            }
            In::Finished(conn) if conn == self.conn() && self.ended.is_none() => {
                let conn = self.conn();
                self.out.push_back(Out::Close(conn, false));
                self.end("the server closed the connection");
            }
            In::Closed(conn, why) if conn == self.conn() && self.ended.is_none() => self.end(why),
            In::Tick if self.begins => self.dial(),
            _ => {}
        }
        self.feed(now);
    }

    fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        let frames = self.streams.iter().filter_map(|s| Self::next(s).map(|(at, _)| at)).min();
        if self.begins { Some(Time::ZERO) } else { frames }
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    fn leave(&mut self, _now: Time) {
        if self.ended.is_none() {
            let conn = self.conn();
            self.out.push_back(Out::Close(conn, false));
            self.end("left");
        }
    }
}
