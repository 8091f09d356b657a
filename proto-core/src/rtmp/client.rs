//! A small publishing client: what the demo and the tests send their streams with.

use super::OUR_WINDOW;
use super::command::{Command, Writer};
use super::egress::{frame_message, metadata, sequence_header};
use super::handshake::ClientHandshake;
use super::negotiation::ours_as_publisher;
use crate::buf::Outbox;
use crate::error::{Reason, quote};
use crate::io::Level;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::media::frame::Ingest;
use crate::media::track::{CodecParams, TrackId};
use crate::rand::Rng;
use crate::time::{Deadline, Time};
use crate::wire::amf0::Value;
use crate::wire::rtmp_chunk::ChunkReader;
use crate::wire::rtmp_message::{Message, event, kind, parse_user_control};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What a client is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// Bytes from the server.
    Received(&'a [u8]),
    /// The driver takes this many bytes now.
    Writable(usize),
    /// The server will send no more.
    PeerFinished,
    /// Time passed.
    Tick,
    /// The next item of the stream. Times are nanoseconds, small and not negative. Dropped before [`Output::Ready`].
    Media(&'a Ingest),
    /// The stream is over: say so and close.
    Finish,
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Bytes for the server, within the credit.
    Send(Bytes),
    /// The server takes the stream; media may be handed in.
    Ready,
    /// A line for the log.
    Log(Level, String),
    /// The session is over; nothing follows.
    Closed(Reason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Handshake,
    Connecting,
    Creating,
    Publishing,
    Ready,
    Closing,
    Closed,
}

const CONNECT: f64 = 1.0;
const CREATE_STREAM: f64 = 4.0;

/// The publishing side of one RTMP connection.
#[derive(Debug)]
pub struct Client {
    limits: Limits,
    url: String,
    app: String,
    stream_name: String,
    handshake: ClientHandshake,
    step: Step,
    reader: ChunkReader,
    writer: Writer,
    outbox: Outbox,
    events: VecDeque<Output>,
    stream: u32,
    tracks: BTreeMap<TrackId, CodecParams>,
    end: Option<Reason>,
    since: Time,
    heard: Time,
    received: u64,
    acked: u64,
    ack_window: u64,
}

impl Client {
    /// A client that will publish `stream` under `app` on a connection to `host` (`host[:port]`, as the server is to
    /// see it) that stands since `now`.
    pub fn new(host: &str, app: &str, stream: &str, limits: Limits, mut rng: Rng, now: Time) -> Client {
        let (handshake, c0c1) = ClientHandshake::new(&mut rng);
        let mut outbox = Outbox::default();
        outbox.push(c0c1);
        let mut reader = ChunkReader::new(&limits);
        reader.set_partial_cap(limits.rtmp_partial_bytes);
        Client {
            limits,
            url: format!("rtmp://{host}/{app}"),
            app: app.to_owned(),
            stream_name: stream.to_owned(),
            handshake,
            step: Step::Handshake,
            reader,
            writer: Writer::new(),
            outbox,
            events: VecDeque::new(),
            stream: 0,
            tracks: BTreeMap::new(),
            end: None,
            since: now,
            heard: now,
            received: 0,
            acked: 0,
            ack_window: u64::from(OUR_WINDOW),
        }
    }

    /// Bytes that wait for the server to read (not counting what the driver holds).
    pub fn backlog(&self) -> usize {
        self.outbox.queued()
    }

    fn flush(&mut self) {
        let bytes = self.writer.take();
        self.outbox.push(bytes);
    }

    fn close(&mut self, reason: Reason, now: Time) {
        if self.end.is_none() {
            self.flush();
            self.end = Some(reason);
            self.since = now;
            self.step = Step::Closing;
        }
    }

    fn received(&mut self, mut input: &[u8], now: Time) -> Result<(), Reason> {
        self.heard = now;
        while !input.is_empty() && self.end.is_none() {
            // Acknowledgements stand at exact places in the stream, whatever pieces it comes in.
            let to_ack = self.ack_window.saturating_sub(self.received.saturating_sub(self.acked)).max(1);
            let n = usize::try_from(to_ack).unwrap_or(usize::MAX).min(input.len());
            let mut piece = input.get(..n).unwrap_or_default();
            let result = self.take(&mut piece, now);
            let used = n.saturating_sub(piece.len());
            input = input.get(used..).unwrap_or_default();
            self.received = self.received.saturating_add(used as u64);
            if self.step != Step::Handshake && self.received.saturating_sub(self.acked) >= self.ack_window {
                self.acked = self.received;
                self.writer.number(kind::ACKNOWLEDGEMENT, self.received as u32);
            }
            self.flush();
            result?;
        }
        Ok(())
    }

    /// Takes one message (or handshake step) from the front of `input`.
    fn take(&mut self, input: &mut &[u8], now: Time) -> Result<(), Reason> {
        if self.step == Step::Handshake {
            if let Some(c2) = self.handshake.receive(input)? {
                self.outbox.push(c2);
                self.connect();
                self.since = now;
            }
        } else if let Some(message) = self.reader.read(input)? {
            self.message(&message, now)?;
        }
        Ok(())
    }

    fn connect(&mut self) {
        self.step = Step::Connecting;
        self.writer.set_chunk_size();
        let object = Value::object([
            ("app", Value::string(self.app.as_str())),
            ("type", Value::string("nonprivate")),
            ("flashVer", Value::string("FMLE/3.0 (compatible; Headwater)")),
            ("tcUrl", Value::string(self.url.as_str())),
            ours_as_publisher(),
        ]);
        self.writer.command(0, &[Value::string("connect"), Value::Number(CONNECT), object]);
    }

    fn message(&mut self, message: &Message, now: Time) -> Result<(), Reason> {
        match message.kind {
            kind::WINDOW_ACK_SIZE => {
                let window = message.payload.first_chunk::<4>().map_or(0, |b| u32::from_be_bytes(*b));
                self.ack_window = u64::from(window.max(self.limits.rtmp_ack_bytes));
            }
            kind::USER_CONTROL => {
                if let Some((event::PING_REQUEST, stamp)) = parse_user_control(&message.payload) {
                    self.writer.user_control(event::PING_RESPONSE, stamp);
                }
            }
            kind::COMMAND | kind::COMMAND_AMF3 => {
                let command = Command::parse(message, &self.limits, true)?;
                self.command(&command, now);
            }
            _ => {}
        }
        Ok(())
    }

    fn command(&mut self, command: &Command, now: Time) {
        let name = Value::string(self.stream_name.as_str());
        let info = command.arg(0);
        let said = |what: &str| info.and_then(|i| i.get(what)).and_then(Value::as_str).unwrap_or_default();
        match (command.name.as_str(), self.step) {
            ("_result", Step::Connecting) if command.transaction == CONNECT => {
                self.step = Step::Creating;
                for (verb, id) in [("releaseStream", 2.0), ("FCPublish", 3.0)] {
                    let id = Value::Number(id);
                    self.writer.command(0, &[Value::string(verb), id, Value::Null, name.clone()]);
                }
                let id = Value::Number(CREATE_STREAM);
                self.writer.command(0, &[Value::string("createStream"), id, Value::Null]);
            }
            ("_result", Step::Creating) if command.transaction == CREATE_STREAM => {
                self.stream = info.and_then(Value::as_number).unwrap_or(1.0) as u32;
                self.step = Step::Publishing;
                let publish = Value::string("publish");
                let live = Value::string("live");
                self.writer.command(self.stream, &[publish, Value::Number(5.0), Value::Null, name, live]);
            }
            // releaseStream and FCPublish are courtesies; servers that do not know them answer with an error.
            ("_error", _) if ![CONNECT, CREATE_STREAM].contains(&command.transaction) => {}
            ("_error", _) | ("onStatus", _) if command.name == "_error" || said("level") == "error" => {
                let text = format!("the server refused: {} {}", said("code"), quote(said("description")));
                self.close(Reason::peer("rtmp_refused", text), now);
            }
            ("onStatus", Step::Publishing) if said("code") == "NetStream.Publish.Start" => {
                self.step = Step::Ready;
                self.events.push_back(Output::Ready);
            }
            (other, _) => {
                let text = format!("the server sent {} {}", quote(other), quote(said("code")));
                self.events.push_back(Output::Log(Level::Debug, text));
            }
        }
    }

    fn media(&mut self, item: &Ingest) {
        let message = match item {
            Ingest::Config { track, params } => {
                self.tracks.insert(*track, params.clone());
                let about = metadata(self.tracks.values());
                let mut values = vec![Value::string("@setDataFrame")];
                values.extend(about);
                self.writer.data(self.stream, &values);
                sequence_header(params, 0, self.stream)
            }
            Ingest::Frame(f) => {
                let params = self.tracks.get(&f.track);
                frame_message(params, f.kind, &f.payload, f.dts, f.pts, self.stream)
            }
        };
        if let Some(m) = message {
            self.writer.message(m.csid, m.timestamp, m.kind, m.stream, &m.payload);
        }
        self.flush();
    }
}

impl Machine for Client {
    type Input<'a> = Input<'a>;
    type Output = Output;

    fn handle(&mut self, input: Input<'_>, now: Time) {
        match input {
            Input::Writable(free) => self.outbox.set_credit(free),
            Input::Tick => {
                let Some(deadline) = self.deadline().filter(|d| d.at <= now) else { return };
                if self.end.is_none() {
                    let text = format!("the server is silent ({})", deadline.why);
                    self.close(Reason::peer("rtmp_idle", text), now);
                }
                self.outbox.clear();
            }
            _ if self.end.is_some() => {}
            Input::Received(bytes) => {
                if let Err(reason) = self.received(bytes, now) {
                    self.close(reason, now);
                }
            }
            Input::PeerFinished => {
                self.close(Reason::peer("peer_closed", "the server closed the connection"), now);
                self.outbox.clear();
            }
            Input::Media(item) => {
                if self.step == Step::Ready {
                    self.media(item);
                }
            }
            Input::Finish => {
                if self.step == Step::Ready {
                    let name = Value::string(self.stream_name.as_str());
                    let id = Value::Number(6.0);
                    self.writer.command(0, &[Value::string("FCUnpublish"), id, Value::Null, name]);
                    let stream = Value::Number(f64::from(self.stream));
                    let id = Value::Number(7.0);
                    self.writer.command(0, &[Value::string("deleteStream"), id, Value::Null, stream]);
                }
                self.close(Reason::local("finished", "the stream is over"), now);
            }
        }
    }

    fn poll(&mut self) -> Option<Output> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if let Some(bytes) = self.outbox.pop() {
            return Some(Output::Send(bytes));
        }
        if self.step == Step::Closing && self.outbox.is_empty() {
            self.step = Step::Closed;
            return self.end.clone().map(Output::Closed);
        }
        None
    }

    fn deadline(&self) -> Option<Deadline> {
        let (from, millis, why) = match self.step {
            Step::Closed => return None,
            Step::Closing if self.outbox.is_empty() => return None,
            Step::Closing => (self.since, self.limits.viewer_stuck_ms, "RTMP last words"),
            // A server owes a publisher nothing but acknowledgements.
            Step::Ready => return None,
            Step::Handshake => (self.since, self.limits.rtmp_handshake_ms, "RTMP handshake"),
            _ => (self.heard, self.limits.rtmp_idle_ms, "RTMP publish"),
        };
        Some(Deadline::new(from + Duration::from_millis(millis), why))
    }
}
