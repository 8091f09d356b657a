//! The server's side of one RTMP connection: a publisher or a player.

use super::command::{Command, Writer, status};
use super::egress::Player;
use super::handshake::ServerHandshake;
use super::ingest::{Demuxer, Taken};
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
use crate::media::track::{Codec, CodecSet};
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
    /// Answer to [`Output::PublishRequested`]: media may come.
    PublishAccepted,
    /// Answer to [`Output::PublishRequested`]: no, and this is why. The session tells the peer and closes.
    PublishRefused(Reason),
    /// Answer to [`Output::PlayRequested`]: deliveries will follow.
    PlayAccepted,
    /// Answer to [`Output::PlayRequested`]: no, and this is why. The session tells the peer and closes.
    PlayRefused(Reason),
    /// The next item of the stream that is played. Ignored if nothing is played.
    Deliver(&'a Delivery),
    /// The publisher of the played stream is gone; it may return.
    SourceAway,
    /// The publisher of the played stream is back.
    SourceBack,
    /// The played stream is over. The session tells the peer and closes.
    StreamEnded(Reason),
    /// This node will stop. A client that said that it obeys is asked to reconnect (Enhanced RTMP v2).
    Drain,
    /// End this connection. The session tells the peer and closes.
    Close(Reason),
}

/// What a server session says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Bytes for the peer, within the credit.
    Send(Bytes),
    /// Read no more (`false`) or go on reading (`true`): nothing of what a peer sends is looked at while the node
    /// thinks about its publish or play. A driver may ignore it; up to `limits.conn_read_per_turn` bytes are held.
    Reading(bool),
    /// The peer wants to publish. Answered with `PublishAccepted` or `PublishRefused`.
    PublishRequested {
        /// The stream's name.
        key: StreamKey,
        /// The queries of app and name, without question marks, joined by `&`. May hold secrets: not for logs.
        query: String,
    },
    /// The peer wants to play. Answered with `PlayAccepted` or `PlayRefused`.
    PlayRequested {
        /// The stream's name.
        key: StreamKey,
        /// As in `PublishRequested`.
        query: String,
    },
    /// Media of the publisher, for the hub.
    Media(Ingest),
    /// The publisher ended its stream (or its wait for an answer). Comes at most once for each `PublishRequested`,
    /// and also before [`Output::Closed`].
    Unpublished,
    /// The player wants no more (or no longer waits for an answer). As `Unpublished`.
    Stopped,
    /// A line for the log.
    Log(Level, String),
    /// The session is over; nothing follows. The connection is to be closed after what was sent has left.
    Closed(Reason),
}

/// What the connection is used for.
#[derive(Debug)]
enum Role {
    Idle,
    /// The node has been asked.
    Asked {
        stream: u32,
        key: StreamKey,
        publish: bool,
    },
    Publisher {
        stream: u32,
        demuxer: Box<Demuxer>,
    },
    Player {
        player: Box<Player>,
        stream: u32,
    },
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
    query: String,
    flash_ver: String,
    via: String,
}

/// What the log says of a player that will miss a track.
fn not_taken(codec: Codec) -> String {
    let (what, key) = if codec.is_video() { ("pictures", "video") } else { ("sound", "audio") };
    let name = codec.name();
    let word = name.replace('.', "").to_lowercase();
    format!(
        "the player gets no {what}: it is {name}, and the player did not say that it takes {name} over RTMP (Enhanced \
         RTMP, in ffmpeg -rtmp_enhanced_codecs); if it does, add ?{key}={word} to the stream's name, or {}",
        codec.remedy()
    )
}

/// The server's side of one RTMP connection.
#[derive(Debug)]
pub struct Server {
    limits: Limits,
    rng: Rng,
    /// What the peer said of itself.
    said: Said,
    phase: Phase,
    reader: ChunkReader,
    writer: Writer,
    outbox: Outbox,
    events: VecDeque<Output>,
    peer: Option<Peer>,
    streams: BTreeSet<u32>,

    role: Role,
    /// Bytes that came while the node was thinking.
    held: Vec<u8>,
    /// A publish or play was accepted once.
    ever_accepted: bool,
    commands: u32,
    commands_since: Time,
    /// When the present phase began: the start, the end of the handshake, the end of a publish or play.
    since: Time,
    heard: Time,
    pinged: bool,
    progress: Time,
    received: u64,
    acked: u64,
    ack_window: u64,
    /// The window that the peer was last told.
    told_window: u32,
    drops: BTreeMap<&'static str, u64>,
}

impl Server {
    /// A session for a connection that was accepted at `now`.
    pub fn new(limits: Limits, rng: Rng, now: Time) -> Server {
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

            role: Role::Idle,
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

    fn is_asked(&self) -> bool {
        matches!(self.role, Role::Asked { .. })
    }

    /// Hands what was written to the outbox.
    fn flush(&mut self) {
        let bytes = self.writer.take();
        self.outbox.push(bytes);
    }

    /// Ends the role and tells the node, once.
    fn end_role(&mut self, now: Time) {
        match std::mem::replace(&mut self.role, Role::Idle) {
            Role::Idle => return,
            Role::Asked { publish: true, .. } | Role::Publisher { .. } => {
                self.events.push_back(Output::Unpublished);
            }
            Role::Asked { publish: false, .. } | Role::Player { .. } => {
                self.events.push_back(Output::Stopped);
            }
        }
        self.since = now;
        self.reader.set_partial_cap(self.limits.rtmp_partial_bytes_before);
    }

    /// Ends the session once what was written has left.
    fn close(&mut self, reason: Reason, now: Time) {
        if self.is_open() {
            self.end_role(now);
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

    fn received(&mut self, mut input: &[u8], now: Time) {
        self.heard = now;
        self.pinged = false;
        while !input.is_empty() && self.is_open() && !self.is_asked() {
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
        if !input.is_empty() && self.is_asked() {
            if self.held.len().saturating_add(input.len()) > self.limits.conn_read_per_turn {
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
                let accepted = matches!(self.role, Role::Publisher { .. } | Role::Player { .. });
                let command = Command::parse(&message, &self.limits, accepted)?;
                self.room_for_answer()?;
                self.command(&command, message.stream, now)
            }
            kind::AUDIO | kind::VIDEO | kind::DATA | kind::DATA_AMF3 => self.media(&message, now),
            kind::AGGREGATE => {
                for inner in split_aggregate(&message) {
                    if matches!(inner.kind, kind::AUDIO | kind::VIDEO | kind::DATA) && self.is_open() {
                        self.media(&inner, now)?;
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
        let most = match self.role {
            Role::Player { .. } => self.limits.ring_bytes,
            _ => self.limits.rtmp_partial_bytes_before,
        };
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

    fn media(&mut self, message: &Message, now: Time) -> Result<(), Reason> {
        let (stream, taken) = match &mut self.role {
            Role::Publisher { stream, demuxer } if *stream == message.stream => {
                (*stream, demuxer.take(message, &self.limits))
            }
            _ => {
                self.drop_one("not_publishing", "media on a message stream that does not publish");
                return Ok(());
            }
        };
        match taken {
            Ok(Taken::Media(items)) => self.events.extend(items.into_iter().map(Output::Media)),
            Ok(Taken::Dropped(why)) => self.drop_one(why, why),
            Err(reason) => {
                self.writer.on_status(stream, "error", "NetStream.Publish.Rejected", &reason.text);
                self.close(reason, now);
            }
        }
        Ok(())
    }

    /// What the peer takes as a player.
    pub fn takes(&self) -> CodecSet {
        self.said.takes
    }

    /// What the node answered; then what was held meanwhile.
    fn answered(&mut self, accepted: Result<(), Reason>, publish: bool, now: Time) {
        let (stream, key) = match &self.role {
            Role::Asked { stream, key, publish: p } if *p == publish => (*stream, key.clone()),
            // The peer has left this publish or play already.
            _ => return,
        };
        match (accepted, publish) {
            (Ok(()), true) => {
                self.role = Role::Publisher { stream, demuxer: Box::default() };
                self.reader.set_partial_cap(self.limits.rtmp_partial_bytes);
                self.writer.user_control(event::STREAM_BEGIN, stream);
                let text = format!("{key} is now published.");
                self.writer.on_status(stream, "status", "NetStream.Publish.Start", &text);
            }
            (Ok(()), false) => {
                self.role = Role::Player { stream, player: Box::new(Player::new(stream, self.said.takes)) };
                self.writer.user_control(event::STREAM_BEGIN, stream);
                let text = format!("Playing and resetting {key}.");
                self.writer.on_status(stream, "status", "NetStream.Play.Reset", &text);
                let text = format!("Started playing {key}.");
                self.writer.on_status(stream, "status", "NetStream.Play.Start", &text);
                let yes = Value::Boolean(true);
                self.writer.data(stream, &[Value::string("|RtmpSampleAccess"), yes.clone(), yes]);
            }
            (Err(reason), _) => {
                let code = match (publish, reason.code) {
                    // Encoders read it as "the name is taken".
                    (true, "name_busy" | "takeover_limited") => "NetStream.Publish.BadName",
                    (true, _) => "NetStream.Publish.Denied",
                    (false, "unauthorized" | "forbidden" | "auth_wait") => "NetStream.Play.Failed",
                    (false, _) => "NetStream.Play.StreamNotFound",
                };
                self.writer.on_status(stream, "error", code, &reason.text);
                // The node knows that it refused; it need not be told that the request is over.
                self.role = Role::Idle;
                self.close(reason, now);
                return;
            }
        }
        self.ever_accepted = true;
        self.commands = 0;
        self.flush();
        self.events.push_back(Output::Reading(true));
        let held = std::mem::take(&mut self.held);
        self.received(&held, now);
    }

    fn deliver(&mut self, delivery: &Delivery) {
        let Role::Player { player, stream } = &mut self.role else { return };
        let stream = *stream;
        let rendered = player.deliver(delivery);
        if let Some(values) = rendered.metadata {
            self.writer.data(stream, &values);
            self.flush();
        }
        for bytes in rendered.bytes {
            self.outbox.push(bytes);
        }
        if let Some(codec) = rendered.refused {
            self.log(Level::Info, not_taken(codec));
        }
        if rendered.left_out {
            let count = self.drops.entry("player_asked").or_default();
            *count = count.saturating_add(1);
        }
    }

    fn stream_event(&mut self, event: u16) {
        if let Role::Player { stream, .. } = self.role {
            self.writer.user_control(event, stream);
            self.flush();
        }
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
            Input::PublishAccepted => self.answered(Ok(()), true, now),
            Input::PublishRefused(reason) => self.answered(Err(reason), true, now),
            Input::PlayAccepted => self.answered(Ok(()), false, now),
            Input::PlayRefused(reason) => self.answered(Err(reason), false, now),
            Input::Deliver(delivery) => self.deliver(delivery),
            Input::SourceAway => self.stream_event(event::STREAM_DRY),
            Input::SourceBack => self.stream_event(event::STREAM_BEGIN),
            Input::StreamEnded(reason) => {
                if let Role::Player { stream, .. } = self.role {
                    self.writer.on_status(stream, "status", "NetStream.Play.UnpublishNotify", &reason.text);
                    self.writer.user_control(event::STREAM_EOF, stream);
                }
                self.close(reason, now);
            }
            Input::Drain => {
                let used = matches!(self.role, Role::Publisher { .. } | Role::Player { .. });
                if used && self.said.reconnects {
                    let text = "This node will stop; connect again.";
                    let info = status("status", "NetConnection.Connect.ReconnectRequest", text, &[]);
                    let name = Value::string("onStatus");
                    self.writer.command(0, &[name, Value::Number(0.0), Value::Null, info]);
                    self.flush();
                }
            }
            Input::Close(reason) => {
                if matches!(self.phase, Phase::Open) && self.peer.is_some() {
                    let info = status("error", "NetConnection.Connect.Closed", &reason.text, &[]);
                    let name = Value::string("onStatus");
                    self.writer.command(0, &[name, Value::Number(0.0), Value::Null, info]);
                }
                self.close(reason, now);
            }
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
            Phase::Open => match self.role {
                Role::Idle => Deadline::new(self.after(self.since, self.limits.rtmp_idle_ms), UNUSED),
                // The node owes an answer; its own deadlines end that.
                Role::Asked { .. } => return stuck,
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
