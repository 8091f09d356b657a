//! The server's side of one RTMP connection. Each of its message streams publishes or plays on its own; the connection
//! ends when the last of them does.

use super::command::{Command, Writer, status};
use super::handshake::ServerHandshake;
use super::negotiation::Said;
use super::{OUR_WINDOW, csid};
use crate::buf::Outbox;
use crate::error::{Reason, quote};
use crate::hub::delivery::Delivery;
use crate::io::Level;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::media::frame::Ingest;
use crate::media::key::StreamKey;
use crate::media::track::CodecSet;
use crate::rand::Rng;
use crate::simulation::Bug;
use crate::time::{Deadline, Time};
use crate::wire::amf0::Value;
use crate::wire::rtmp_chunk::ChunkReader;
use crate::wire::rtmp_message::{Message, event, kind, parse_user_control, split_aggregate};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

mod commands;
mod roles;

use roles::Roles;
use std::sync::Arc;

/// What a server session is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// Bytes from the peer.
    Received(&'a [u8]),
    /// The driver takes this many bytes now.
    Writable(usize),
    /// The peer will send no more.
    PeerFinished,
    /// Time passed.
    Tick,
    /// Answer to [`Output::PublishRequested`] on this message stream: media may come.
    PublishAccepted(u32),
    /// Answer to [`Output::PublishRequested`] on this message stream: no, and this is why. The peer is told.
    PublishRefused(u32, Reason),
    /// Answer to [`Output::PlayRequested`] on this message stream: deliveries will follow.
    PlayAccepted(u32),
    /// Answer to [`Output::PlayRequested`] on this message stream: no, and this is why. The peer is told.
    PlayRefused(u32, Reason),
    /// The next item of what this message stream plays. Ignored if it plays nothing.
    Deliver(u32, &'a Delivery),
    /// The publisher of what this message stream plays is gone; it may return.
    SourceAway(u32),
    /// The publisher of what this message stream plays is back.
    SourceBack(u32),
    /// What this message stream plays is over. The peer is told.
    StreamEnded(u32, Reason),
    /// What this message stream does is over, by the node's wish. The peer is told.
    End(u32, Reason),
    /// This node takes nothing new, or stops. A client that said that it obeys is asked to reconnect (Enhanced RTMP v2), at the
    /// server that is named, such as `rtmp://host:1935`, or with the URL that it has.
    Reconnect(Option<String>),
    /// End this connection. The session tells the peer and closes.
    Close(Reason),
}

/// What a server session says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Bytes for the peer, within the credit.
    Send(Bytes),
    /// Read no more (`false`) or go on reading (`true`): nothing of what a peer sends is looked at while the node
    /// thinks about its publish or play. A driver may ignore it; up to `limits.conn_early_bytes` bytes are held, and where
    /// something was accepted before, `limits.conn_read_per_turn`.
    Reading(bool),
    /// The peer wants to publish. Answered with `PublishAccepted` or `PublishRefused`.
    PublishRequested {
        /// The message stream.
        stream: u32,
        /// The stream's name.
        key: StreamKey,
        /// The queries of app and name, without question marks, joined by `&`. May hold secrets: not for logs.
        query: String,
    },
    /// The peer wants to play. Answered with `PlayAccepted` or `PlayRefused`.
    PlayRequested {
        /// The message stream.
        stream: u32,
        /// The stream's name.
        key: StreamKey,
        /// As in `PublishRequested`.
        query: String,
    },
    /// Media of the publisher on this message stream, for the hub.
    Media(u32, Ingest),
    /// The publisher on this message stream ended (or its wait for an answer did). Comes at most once for each
    /// `PublishRequested`, and also before [`Output::Closed`]; not where the node refused or ended it.
    Unpublished(u32),
    /// The player on this message stream wants no more (or no longer waits for an answer). As `Unpublished`.
    Stopped(u32),
    /// A line for the log.
    Log(Level, String),
    /// The session is over; nothing follows. The connection is to be closed after what was sent has left.
    Closed(Reason),
}

#[derive(Debug)]
enum Phase {
    Handshake(Box<ServerHandshake>),
    Open,
    /// Words to the peer are on their way out; then this is the end.
    Closing(Reason),
    Closed,
}

/// What `connect` said.
#[derive(Debug, Default)]
struct Peer {
    app: String,
    /// The app with its query, as the peer wrote it. May hold secrets.
    path: String,
    query: String,
    flash_ver: String,
    via: String,
}

/// The server's side of one RTMP connection.
#[derive(Debug)]
pub struct Server {
    phase: Phase,
    outbox: Outbox,
    roles: Roles,
    events: VecDeque<Output>,
    limits: Arc<Limits>,
    /// When the present phase began: the start, the end of the handshake, the end of a publish or play.
    since: Time,
    heard: Time,
    progress: Time,
    pinged: bool,
    /// A publish or play was accepted once.
    ever_accepted: bool,
    /// The message stream about which the node thinks, where nothing else is done on this connection; then nothing is read.
    thinks: Option<u32>,
    received: u64,
    acked: u64,
    ack_window: u64,
    /// The window that the peer was last told.
    told_window: u32,
    commands: u32,
    commands_since: Time,
    /// Bytes that came while the node was thinking.
    held: Vec<u8>,
    streams: BTreeSet<u32>,
    drops: BTreeMap<&'static str, u64>,
    peer: Option<Peer>,
    /// What the peer said of itself.
    said: Said,
    reader: ChunkReader,
    writer: Writer,
    rng: Rng,
}

impl Server {
    /// A session for a connection that was accepted at `now`.
    pub fn new(limits: impl Into<Arc<Limits>>, rng: Rng, now: Time) -> Server {
        let limits = limits.into();
        Server {
            reader: ChunkReader::new(&limits),
            limits,
            rng,
            said: Said::default(),
            phase: Phase::Handshake(Box::default()),
            writer: Writer::new(),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            peer: None,
            streams: BTreeSet::new(),
            roles: Roles::default(),
            thinks: None,
            held: Vec::new(),
            ever_accepted: false,
            commands: 0,
            commands_since: now,
            since: now,
            heard: now,
            pinged: false,
            progress: now,
            received: 0,
            acked: 0,
            ack_window: u64::from(OUR_WINDOW),
            told_window: OUR_WINDOW,
            drops: BTreeMap::new(),
        }
    }

    /// Bytes that wait for the peer to read (not counting what the driver holds).
    pub fn backlog(&self) -> usize {
        self.outbox.queued()
    }

    /// The last time at which nothing waited or the driver took bytes.
    pub fn last_progress(&self) -> Time {
        self.progress
    }

    /// What the peer calls itself and the app that it dialled, quoted for a log line. Empty before `connect`.
    pub fn peer_description(&self) -> String {
        self.peer.as_ref().map_or(String::new(), |p| format!("{} app {}", quote(&p.flash_ver), quote(&p.app)))
    }

    /// Messages and frames that were left out, by reason.
    pub fn drops(&self) -> &BTreeMap<&'static str, u64> {
        &self.drops
    }

    /// What the peer says of the nodes that the stream came through, or goes to.
    pub fn via(&self) -> &str {
        self.peer.as_ref().map_or("", |p| &p.via)
    }

    /// Whether the peer publishes or plays, and said that it obeys a request to reconnect.
    pub fn reconnects(&self) -> bool {
        self.roles.accepted() > 0 && self.said.reconnects
    }

    /// Asks a peer that obeys to reconnect. What it showed in the app's query it shows again.
    fn ask_to_reconnect(&mut self, to: Option<String>) {
        if !self.reconnects() {
            return;
        }
        let path = self.peer.as_ref().map_or("", |p| p.path.as_str());
        let url = to.map(|base| ("tcUrl", Value::string(format!("{base}/{path}"))));
        let text = "This node takes nothing new; connect again.";
        let info = status("status", "NetConnection.Connect.ReconnectRequest", text, url.as_slice());
        self.writer.command(0, &[Value::string("onStatus"), Value::Number(0.0), Value::Null, info]);
        self.flush();
    }

    /// Why the session is about to end, once that is settled. While it is, [`Output::Unpublished`] and
    /// [`Output::Stopped`] are not the peer's wish but a part of that end.
    pub fn closing(&self) -> Option<&Reason> {
        match &self.phase {
            Phase::Closing(reason) => Some(reason),
            _ => None,
        }
    }

    fn log(&mut self, level: Level, text: impl Into<String>) {
        self.events.push_back(Output::Log(level, text.into()));
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Handshake(_))
    }

    /// Hands what was written to the outbox.
    fn flush(&mut self) {
        let bytes = self.writer.take();
        self.outbox.push(bytes);
    }

    /// Ends the session once what was written has left.
    fn close(&mut self, reason: Reason, now: Time) {
        if self.is_open() {
            self.end_roles(now);
            self.flush();
            self.held = Vec::new();
            self.since = now;
            self.phase = Phase::Closing(reason);
        }
    }

    /// Ends the session without waiting for anything.
    fn abort(&mut self, reason: Reason, now: Time) {
        self.close(reason, now);
        self.outbox.clear();
    }

    /// Bytes that may be held while the node thinks.
    fn may_hold(&self) -> usize {
        if self.ever_accepted {
            return self.limits.conn_read_per_turn;
        }
        // Beside what is partly received already.
        let rest = self.limits.rtmp_partial_bytes_before.saturating_sub(self.reader.partial_bytes());
        self.limits.conn_early_bytes.min(rest)
    }

    fn received(&mut self, mut input: &[u8], now: Time) {
        self.heard = now;
        self.pinged = false;
        while !input.is_empty() && self.is_open() && self.thinks.is_none() {
            // Acknowledgements stand at exact places in the stream, whatever pieces it comes in.
            let to_ack = self.ack_window.saturating_sub(self.received.saturating_sub(self.acked)).max(1);
            let n = usize::try_from(to_ack).unwrap_or(usize::MAX).min(input.len());
            let (mut piece, after) = input.split_at_checked(n).unwrap_or((input, &[]));
            let before = piece.len();
            let result = self.step(&mut piece, now);
            let used = before.saturating_sub(piece.len());
            self.received = self.received.saturating_add(used as u64);
            if matches!(self.phase, Phase::Open)
                && self.received.saturating_sub(self.acked) >= self.ack_window
            {
                self.acked = self.received;
                self.writer.number(kind::ACKNOWLEDGEMENT, self.received as u32);
            }
            self.flush();
            if let Err(reason) = result {
                self.close(reason, now);
            }
            input = if piece.is_empty() { after } else { input.get(used..).unwrap_or_default() };
        }
        if !input.is_empty() && self.thinks.is_some() {
            if self.held.len().saturating_add(input.len()) > self.may_hold() {
                let text = "the peer sent media before its publish was answered, more than may be held";
                self.close(Reason::limit("rtmp_early_media", text), now);
                return;
            }
            self.held.extend_from_slice(input);
        }
    }

    /// Takes one message (or handshake step) from the front of `input`.
    fn step(&mut self, input: &mut &[u8], now: Time) -> Result<(), Reason> {
        if let Phase::Handshake(handshake) = &mut self.phase {
            let answer = handshake.receive(input, &mut self.rng)?;
            if handshake.is_done() {
                self.phase = Phase::Open;
                self.since = now;
            }
            if let Some(answer) = answer {
                self.outbox.push(answer);
            }
            return Ok(());
        }
        match self.reader.read(input)? {
            Some(message) => self.message(message, now),
            None => Ok(()),
        }
    }

    fn message(&mut self, message: Message, now: Time) -> Result<(), Reason> {
        match message.kind {
            kind::WINDOW_ACK_SIZE => {
                let window = message.payload.first_chunk::<4>().map_or(0, |b| u32::from_be_bytes(*b));
                // A peer that asks for an acknowledgement of every byte gets fewer.
                self.ack_window = u64::from(window.max(self.limits.rtmp_ack_bytes));
                Ok(())
            }
            kind::SET_PEER_BANDWIDTH => {
                // 5.4.5: the peer limits what we send unacknowledged, and wants to be told if that is news. What waits
                // is bounded by the credit, so a small window costs nothing and a large one gains nothing.
                let window = message.payload.first_chunk::<4>().map_or(0, |b| u32::from_be_bytes(*b));
                if window > 0 && window != self.told_window {
                    self.room_for_answer()?;
                    self.told_window = window;
                    self.writer.number(kind::WINDOW_ACK_SIZE, window);
                }
                Ok(())
            }
            kind::USER_CONTROL => {
                if let Some((event::PING_REQUEST, stamp)) = parse_user_control(&message.payload) {
                    self.room_for_answer()?;
                    self.writer.user_control(event::PING_RESPONSE, stamp);
                }
                Ok(())
            }
            kind::COMMAND | kind::COMMAND_AMF3 => {
                self.count_command(now)?;
                let accepted = self.roles.accepted() > 0;
                let command = Command::parse(&message, &self.limits, accepted)?;
                self.room_for_answer()?;
                self.command(&command, message.stream, now)
            }
            kind::AUDIO | kind::VIDEO | kind::DATA | kind::DATA_AMF3 => self.media(message, now),
            kind::AGGREGATE => {
                for inner in split_aggregate(&message) {
                    if matches!(inner.kind, kind::AUDIO | kind::VIDEO | kind::DATA) && self.is_open() {
                        self.media(inner, now)?;
                    }
                }
                Ok(())
            }
            kind::SHARED_OBJECT | kind::SHARED_OBJECT_AMF3 => {
                self.drop_one("shared_object", "shared objects are not supported");
                Ok(())
            }
            // Acknowledgements of the peer: what waits is bounded by the credit, not by its window.
            _ => Ok(()),
        }
    }

    /// A7: commands are counted in all before anything is accepted, and by the second after that.
    fn count_command(&mut self, now: Time) -> Result<(), Reason> {
        let most = if self.ever_accepted {
            if now.since(self.commands_since) >= Duration::from_secs(1) {
                self.commands_since = now;
                self.commands = 0;
            }
            self.limits.rtmp_commands_per_s
        } else {
            self.limits.rtmp_commands_before
        };
        self.commands = self.commands.saturating_add(1);
        if self.commands > most {
            return Err(Reason::limit("rtmp_commands", format!("more than {most} commands")));
        }
        Ok(())
    }

    /// A peer that asks and never reads the answers would have us keep them for ever. What there is credit for leaves
    /// with the next poll and does not count: how much waits before that depends on how the requests were cut.
    fn room_for_answer(&mut self) -> Result<(), Reason> {
        self.flush();
        let most =
            if self.roles.plays() { self.limits.ring_bytes } else { self.limits.rtmp_partial_bytes_before };
        if self.outbox.queued().saturating_sub(self.outbox.credit()) > most {
            let text = "the peer keeps asking and does not read the answers";
            return Err(Reason::limit("rtmp_unread_answers", text));
        }
        Ok(())
    }

    fn drop_one(&mut self, code: &'static str, text: &str) {
        let count = self.drops.entry(code).or_default();
        *count = count.saturating_add(1);
        if *count == 1 {
            self.log(Level::Warn, format!("left out: {text} (further ones are only counted)"));
        }
    }

    /// What the peer takes as a player.
    pub fn takes(&self) -> CodecSet {
        self.said.takes
    }

    /// Whether the peer understands messages of several tracks (Enhanced RTMP v2).
    pub fn takes_tracks(&self) -> bool {
        self.said.multitrack
    }

    fn after(&self, from: Time, millis: u64) -> Time {
        from + Duration::from_millis(millis)
    }

    fn tick(&mut self, now: Time) {
        let Some(deadline) = self.deadline() else { return };
        if now < deadline.at {
            return;
        }
        match deadline.why {
            HANDSHAKE => {
                let text = format!(
                    "the RTMP handshake did not end within {} ms (limits.rtmp_handshake_ms)",
                    self.limits.rtmp_handshake_ms
                );
                self.abort(Reason::limit("handshake_timeout", text), now);
            }
            UNUSED => {
                let text = format!(
                    "the connection neither published nor played for {} ms (limits.rtmp_idle_ms)",
                    self.limits.rtmp_idle_ms
                );
                self.close(Reason::limit("rtmp_unused", text), now);
            }
            PING => {
                self.pinged = true;
                self.writer.user_control(event::PING_REQUEST, now.as_millis() as u32);
                self.flush();
            }
            IDLE => {
                let text = format!(
                    "nothing was heard from the peer for {} ms, not even the answer to a ping \
                     (limits.rtmp_idle_ms)",
                    self.limits.rtmp_idle_ms
                );
                self.abort(Reason::peer("rtmp_idle", text), now);
            }
            STUCK => {
                let text = format!(
                    "the peer took no byte for {} ms while {} waited (limits.viewer_stuck_ms)",
                    self.limits.viewer_stuck_ms,
                    self.outbox.queued()
                );
                self.abort(Reason::limit("viewer_stuck", text), now);
            }
            // The last words could not be said in time.
            _ => {
                self.outbox.clear();
            }
        }
    }
}

const HANDSHAKE: &str = "RTMP handshake";
const UNUSED: &str = "RTMP publish or play";
const PING: &str = "RTMP ping";
const IDLE: &str = "RTMP peer is silent";
const STUCK: &str = "RTMP peer does not read";
const LAST_WORDS: &str = "RTMP last words";

impl Machine for Server {
    type Input<'a> = Input<'a>;
    type Output = Output;

    fn handle(&mut self, input: Input<'_>, now: Time) {
        match input {
            Input::Writable(free) => {
                self.outbox.set_credit(free);
            }
            Input::Tick => {
                self.tick(now);
                return;
            }
            _ if !self.is_open() => return,
            Input::Received(bytes) => self.received(bytes, now),
            Input::PeerFinished => {
                let text = match &self.phase {
                    Phase::Handshake(_) => "the peer left during the handshake",
                    _ => "the peer closed the connection",
                };
                self.abort(Reason::peer("peer_closed", text), now);
            }
            Input::PublishAccepted(stream) => self.answered(stream, Ok(()), true, now),
            Input::PublishRefused(stream, reason) => self.answered(stream, Err(reason), true, now),
            Input::PlayAccepted(stream) => self.answered(stream, Ok(()), false, now),
            Input::PlayRefused(stream, reason) => self.answered(stream, Err(reason), false, now),
            Input::Deliver(stream, delivery) => self.deliver(stream, delivery),
            Input::SourceAway(stream) => self.stream_event(stream, event::STREAM_DRY),
            Input::SourceBack(stream) => self.stream_event(stream, event::STREAM_BEGIN),
            Input::StreamEnded(stream, reason) => self.ended(stream, reason, now),
            Input::End(stream, reason) => self.ended_by_us(stream, reason, now),
            Input::Reconnect(to) => self.ask_to_reconnect(to),
            Input::Close(reason) => self.say_goodbye(reason, now),
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
        if self.outbox.is_empty()
            && let Phase::Closing(reason) = &self.phase
        {
            let reason = reason.clone();
            self.phase = Phase::Closed;
            return Some(Output::Closed(reason));
        }
        None
    }

    fn deadline(&self) -> Option<Deadline> {
        let planted = |bug| self.limits.simulation.planted(bug);
        let stuck = (!self.outbox.is_empty() && self.outbox.credit() == 0 && !planted(Bug::SlowViewerKept))
            .then(|| Deadline::new(self.after(self.progress, self.limits.viewer_stuck_ms), STUCK));
        let own = match &self.phase {
            Phase::Closed => return None,
            Phase::Closing(_) => {
                let at = self.after(self.since, self.limits.viewer_stuck_ms);
                return (!self.outbox.is_empty()).then(|| Deadline::new(at, LAST_WORDS));
            }
            Phase::Handshake(_) => {
                Deadline::new(self.after(self.since, self.limits.rtmp_handshake_ms), HANDSHAKE)
            }
            Phase::Open => match () {
                () if self.roles.is_empty() => {
                    Deadline::new(self.after(self.since, self.limits.rtmp_idle_ms), UNUSED)
                }
                // The node owes an answer; its own deadlines end that.
                () if self.roles.accepted() == 0 => return stuck,
                _ if self.pinged && planted(Bug::HalfOpenKept) => return stuck,
                _ if self.pinged => Deadline::new(self.after(self.heard, self.limits.rtmp_idle_ms), IDLE),
                _ => Deadline::new(self.after(self.heard, self.limits.rtmp_idle_ms / 2), PING),
            },
        };
        Deadline::earliest(Some(own), stuck)
    }
}

/// Sends the answers to `connect` that set up the connection.
fn greet(writer: &mut Writer) {
    writer.number(kind::WINDOW_ACK_SIZE, OUR_WINDOW);
    let mut bandwidth = OUR_WINDOW.to_be_bytes().to_vec();
    // Limit type 2, dynamic.
    bandwidth.push(2);
    writer.message(csid::CONTROL, 0, kind::SET_PEER_BANDWIDTH, 0, &bandwidth);
    writer.set_chunk_size();
}
