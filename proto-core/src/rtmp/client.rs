//! The client's side of one RTMP connection: it sends a stream to a server, or plays one that a server has.

use super::OUR_WINDOW;
use super::command::{Command, Writer};
use super::egress::Player;
use super::handshake::ClientHandshake;
use super::ingest::Demuxer;
use super::negotiation::{Said, ours_as_player, ours_as_publisher};
use crate::buf::Outbox;
use crate::error::{Reason, quote};
use crate::hub::delivery::Delivery;
use crate::io::Level;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::media::frame::Ingest;
use crate::media::track::{CodecParams, CodecSet, TrackId};
use crate::rand::Rng;
use crate::time::{Deadline, Time};
use crate::wire::amf0::Value;
use crate::wire::rtmp_chunk::ChunkReader;
use crate::wire::rtmp_message::{Message, event, kind, parse_user_control};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

mod media;
#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

/// A stream of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The connection is in TLS.
    pub tls: bool,
    /// `host[:port]`, as the server is to see it.
    pub host: String,
    /// The application: all of the path before its last slash.
    pub app: String,
    /// The stream's name, with its query where it has one.
    pub stream: String,
}

/// What is to be done on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Send a stream.
    Publish,
    /// Receive one.
    Play,
}

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
    /// The next item of the stream that is sent. Times are nanoseconds, small and not negative. Dropped before
    /// [`Output::Ready`].
    Media(&'a Ingest),
    /// The same out of the hub.
    Deliver(&'a Delivery),
    /// The stream is over: say so and close.
    Finish,
    /// End the session for this reason: say so to the server and close.
    Close(Reason),
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Bytes for the server, within the credit.
    Send(Bytes),
    /// The server takes the stream, so that media may be handed in, or sends it.
    Ready,
    /// Media of the server, for the hub.
    Media(Ingest),
    /// The server wants its client to go on at this URL (up to the app), or at the one that it has. The session ends then.
    /// Comes only to clients that are [`Client::obeying`].
    Reconnect(Option<String>),
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
    Asking,
    Ready,
    Closing,
    Closed,
}

/// By these a server ends a stream that it plays or takes.
const ENDS: [&str; 5] = [
    "NetStream.Play.UnpublishNotify",
    "NetStream.Play.Stop",
    "NetStream.Play.Complete",
    "NetStream.Unpublish.Success",
    "NetConnection.Connect.Closed",
];

/// By this a server asks its clients to connect anew (Enhanced RTMP v2).
const RECONNECT_REQUEST: &str = "NetConnection.Connect.ReconnectRequest";
const CONNECT: f64 = 1.0;
const CREATE_STREAM: f64 = 4.0;
/// The buffer that a server is told of, milliseconds: it sends as fast as the stream goes all the same.
const BUFFER_MS: u32 = 500;

/// How long a client waits, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    /// As long as a publisher that a user looks after.
    Publisher,
    /// As long as a node that has to know when to try anew.
    Node,
}

/// The client's side of one RTMP connection.
#[derive(Debug)]
pub struct Client {
    limits: Arc<Limits>,
    target: Target,
    task: Task,
    patience: Patience,
    /// Who sent the stream on before.
    via: String,
    /// It goes where the server sends it.
    obeys: bool,
    /// What the server takes, by its own words.
    takes: CodecSet,
    player: Option<Box<Player>>,
    demuxer: Demuxer,
    drops: BTreeMap<&'static str, u64>,
    handshake: ClientHandshake,
    step: Step,
    reader: ChunkReader,
    writer: Writer,
    outbox: Outbox,
    events: VecDeque<Output>,
    stream: u32,
    tracks: BTreeMap<TrackId, CodecParams>,
    end: Option<Reason>,
    made: Time,
    since: Time,
    heard: Time,
    media_at: Time,
    progress: Time,
    received: u64,
    acked: u64,
    ack_window: u64,
}

impl Client {
    /// A client that will publish `stream` under `app` on a connection to `host` (`host[:port]`, as the server is to
    /// see it) that stands since `now`.
    pub fn new(
        host: &str,
        app: &str,
        stream: &str,
        limits: impl Into<Arc<Limits>>,
        rng: Rng,
        now: Time,
    ) -> Client {
        let target =
            Target { tls: false, host: host.to_owned(), app: app.to_owned(), stream: stream.to_owned() };
        Client::make(target, Task::Publish, Patience::Publisher, String::new(), limits.into(), rng, now)
    }

    /// Has it tell the server that it obeys a request to reconnect ([`Output::Reconnect`]; Enhanced RTMP v2). To be called before
    /// anything was received.
    #[must_use]
    pub fn obeying(mut self) -> Client {
        self.obeys = true;
        self
    }

    /// A node's client on a connection that stands since `now`. It gives up by the limits for sources and destinations.
    /// `via`: the marks of the nodes that the stream came through, told to the server in `connect`; empty: none.
    pub fn of_node(
        target: Target,
        task: Task,
        via: String,
        limits: impl Into<Arc<Limits>>,
        rng: Rng,
        now: Time,
    ) -> Client {
        Client::make(target, task, Patience::Node, via, limits.into(), rng, now)
    }

    fn make(
        target: Target,
        task: Task,
        patience: Patience,
        via: String,
        limits: Arc<Limits>,
        mut rng: Rng,
        now: Time,
    ) -> Client {
        let (handshake, c0c1) = ClientHandshake::new(&mut rng);
        let mut outbox = Outbox::default();
        outbox.push(c0c1);
        let mut reader = ChunkReader::new(&limits);
        reader.set_partial_cap(limits.rtmp_partial_bytes);
        Client {
            limits,
            target,
            task,
            patience,
            via,
            obeys: false,
            takes: Said::default().takes,
            player: None,
            demuxer: Demuxer::default(),
            drops: BTreeMap::new(),
            handshake,
            step: Step::Handshake,
            reader,
            writer: Writer::new(),
            outbox,
            events: VecDeque::new(),
            stream: 0,
            tracks: BTreeMap::new(),
            end: None,
            made: now,
            since: now,
            heard: now,
            media_at: now,
            progress: now,
            received: 0,
            acked: 0,
            ack_window: u64::from(OUR_WINDOW),
        }
    }

    /// Bytes that wait for the server to read (not counting what the driver holds).
    pub fn backlog(&self) -> usize {
        self.outbox.queued()
    }

    /// What the server said that it takes beside what every server takes.
    pub fn takes(&self) -> CodecSet {
        self.takes
    }

    /// What was left out, by reason.
    pub fn drops(&self) -> &BTreeMap<&'static str, u64> {
        &self.drops
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
        let Target { tls, host, app, .. } = &self.target;
        let url = format!("{}://{host}/{app}", if *tls { "rtmps" } else { "rtmp" });
        let mut pairs = vec![
            ("app", Value::string(app.as_str())),
            ("type", Value::string("nonprivate")),
            ("flashVer", Value::string("FMLE/3.0 (compatible; Headwater)")),
            ("tcUrl", Value::string(url)),
        ];
        match self.task {
            Task::Publish => pairs.extend(ours_as_publisher(self.obeys)),
            Task::Play => pairs.extend(ours_as_player()),
        }
        if !self.via.is_empty() {
            pairs.push(("via", Value::string(self.via.as_str())));
        }
        let object = Value::object(pairs);
        self.writer.command(0, &[Value::string("connect"), Value::Number(CONNECT), object]);
    }

    fn message(&mut self, message: &Message, now: Time) -> Result<(), Reason> {
        match message.kind {
            kind::WINDOW_ACK_SIZE => {
                let window = message.payload.first_chunk::<4>().map_or(0, |b| u32::from_be_bytes(*b));
                self.ack_window = u64::from(window.max(self.limits.rtmp_ack_bytes));
            }
            kind::USER_CONTROL => match parse_user_control(&message.payload) {
                Some((event::PING_REQUEST, stamp)) => {
                    self.writer.user_control(event::PING_RESPONSE, stamp);
                }
                Some((event::STREAM_EOF, stream)) if self.task == Task::Play && stream == self.stream => {
                    self.close(Reason::peer("remote_ended", "the server says that the stream is over"), now);
                }
                _ => {}
            },
            kind::COMMAND | kind::COMMAND_AMF3 => {
                let command = Command::parse(message, &self.limits, true)?;
                self.command(&command, now);
            }
            _ if self.task == Task::Play => self.played(message, now)?,
            _ => {}
        }
        Ok(())
    }

    fn command(&mut self, command: &Command, now: Time) {
        let name = Value::string(self.target.stream.as_str());
        let info = command.arg(0);
        let said = |what: &str| info.and_then(|i| i.get(what)).and_then(Value::as_str).unwrap_or_default();
        match (command.name.as_str(), self.step) {
            ("_result", Step::Connecting) if command.transaction == CONNECT => {
                self.step = Step::Creating;
                for object in [Some(&command.object), info].into_iter().flatten() {
                    let said = Said::read(object);
                    if said.enhanced {
                        self.takes = said.takes;
                    }
                }
                let publishes = self.task == Task::Publish;
                for (verb, id) in
                    [("releaseStream", 2.0), ("FCPublish", 3.0)].into_iter().filter(|_| publishes)
                {
                    let id = Value::Number(id);
                    self.writer.command(0, &[Value::string(verb), id, Value::Null, name.clone()]);
                }
                let id = Value::Number(CREATE_STREAM);
                self.writer.command(0, &[Value::string("createStream"), id, Value::Null]);
            }
            ("_result", Step::Creating) if command.transaction == CREATE_STREAM => {
                self.stream = info.and_then(Value::as_number).unwrap_or(1.0) as u32;
                self.step = Step::Asking;
                if self.task == Task::Play {
                    let begin = Value::Number(-2000.0);
                    let play = Value::string("play");
                    self.writer.command(self.stream, &[play, Value::Number(5.0), Value::Null, name, begin]);
                    self.writer.buffer_length(self.stream, BUFFER_MS);
                    return;
                }
                let publish = Value::string("publish");
                let live = Value::string("live");
                self.writer.command(self.stream, &[publish, Value::Number(5.0), Value::Null, name, live]);
            }
            // releaseStream and FCPublish are courtesies; servers that do not know them answer with an error.
            ("_error", _) if ![CONNECT, CREATE_STREAM].contains(&command.transaction) => {}
            ("_error", _) | ("onStatus", _) if command.name == "_error" || said("level") == "error" => {
                let text =
                    format!("the server refused: {} {}", quote(said("code")), quote(said("description")));
                self.close(Reason::peer("rtmp_refused", text), now);
            }
            ("onStatus", Step::Asking) if said("code") == self.begins() => self.ready(now),
            ("onStatus", Step::Ready) if said("code") == RECONNECT_REQUEST && self.obeys => {
                let url = Some(said("tcUrl").to_owned()).filter(|url| !url.is_empty());
                self.events.push_back(Output::Reconnect(url));
                self.finish(
                    Reason::peer("reconnect", "the server asks its clients to connect elsewhere"),
                    now,
                );
            }
            ("onStatus", _) if ENDS.contains(&said("code")) => {
                let text =
                    format!("the server ended the stream: {} {}", said("code"), quote(said("description")));
                self.close(Reason::peer("remote_ended", text), now);
            }
            ("close", _) => self.close(Reason::peer("remote_ended", "the server closes the connection"), now),
            (other, _) => {
                let text = format!("the server sent {} {}", quote(other), quote(said("code")));
                self.events.push_back(Output::Log(Level::Debug, text));
            }
        }
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
                    let reason = self.late(deadline.why);
                    self.close(reason, now);
                }
                self.outbox.clear();
                return;
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
            Input::Deliver(delivery) => {
                if self.step == Step::Ready {
                    self.deliver(delivery);
                }
            }
            Input::Finish => self.finish(Reason::local("finished", "the stream is over"), now),
            Input::Close(reason) => self.finish(reason, now),
        }
        if self.outbox.is_empty() || self.outbox.credit() > 0 {
            self.progress = now;
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
        let after =
            |from: Time, millis: u64, why| Some(Deadline::new(from + Duration::from_millis(millis), why));
        let limits = &self.limits;
        match (self.step, self.patience, self.task) {
            (Step::Closed, ..) => None,
            (Step::Closing, ..) if self.outbox.is_empty() => None,
            (Step::Closing, ..) => after(self.since, limits.viewer_stuck_ms, LAST_WORDS),
            (Step::Ready, Patience::Node, Task::Play) => {
                after(self.media_at, limits.remote_silent_ms, SILENT)
            }
            (Step::Ready, Patience::Node, Task::Publish)
                if !self.outbox.is_empty() && self.outbox.credit() == 0 =>
            {
                after(self.progress, limits.viewer_stuck_ms, STUCK)
            }
            // A server owes a publisher nothing but acknowledgements.
            (Step::Ready, ..) => None,
            (_, Patience::Node, _) => after(self.made, limits.remote_setup_ms, SET_UP),
            (Step::Handshake, ..) => after(self.since, limits.rtmp_handshake_ms, "RTMP handshake"),
            _ => after(self.heard, limits.rtmp_idle_ms, "RTMP publish"),
        }
    }
}

const SET_UP: &str = "RTMP session is set up";
const SILENT: &str = "RTMP server sends nothing";
const STUCK: &str = "RTMP server does not read";
const LAST_WORDS: &str = "RTMP last words";
