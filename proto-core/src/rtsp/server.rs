//! The server's side of one RTSP connection: a publisher or a player, its packets interleaved or as datagrams.

use super::egress::{Burst, Egress};
use super::formats::Offered;
use super::ingest::{Ingester, Stats};
use super::order::State;
use crate::buf::Outbox;
use crate::error::Reason;
use crate::hub::delivery::Delivery;
use crate::io::Level;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::media::frame::Ingest;
use crate::media::key::StreamKey;
use crate::media::track::{CodecConfig, TrackId};
use crate::rand::Rng;
use crate::time::{Deadline, Time, WallAnchor};
use crate::wire::rtsp::{Bad, Caps, Item, Reader, Request, Response};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

mod media;
mod refusal;
mod requests;
mod shown;
#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

use refusal::words;

pub use shown::Shown;

/// Reports go out so often (RFC 3550, 6.2: five seconds at least).
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// Packets that were on their way when a session ended or paused are no offence for so long.
const GRACE: Duration = Duration::from_secs(2);

/// A track of a stream with its configuration.
pub type Track = (TrackId, Arc<CodecConfig>);

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
    /// A datagram of the peer for one of its lanes.
    Datagram {
        /// The lane.
        lane: usize,
        /// It came to the port of RTCP.
        rtcp: bool,
        /// The datagram.
        bytes: &'a [u8],
    },
    /// Answer to [`Output::DescribeRequested`]: the tracks of the stream.
    Described(Vec<Track>),
    /// Answer to [`Output::PlayRequested`]: deliveries will follow.
    PlayAccepted,
    /// Answer to [`Output::AnnounceRequested`]: what is announced may be read.
    AnnounceAccepted,
    /// Answer to anything that shows who the client is: it has to show more. Each challenge is the value of a
    /// `WWW-Authenticate`.
    Unauthorized {
        /// The challenges; none: there is no way by which it could show that here.
        challenges: Vec<String>,
        /// Why.
        reason: Reason,
    },
    /// Answer to [`Output::DescribeRequested`] or [`Output::PlayRequested`]: no, and this is why.
    PlayRefused(Reason),
    /// Answer to [`Output::PublishRequested`]: media may come.
    PublishAccepted,
    /// Answer to [`Output::PublishRequested`]: no, and this is why.
    PublishRefused(Reason),
    /// Answer to [`Output::DescribeRequested`], [`Output::PlayRequested`] or [`Output::PublishRequested`]: the peer is to ask
    /// at this address.
    Elsewhere(String),
    /// The peer is better served by the server at this address (`rtsp://host:port`), where its stream has the name by which it
    /// asked for it here; it may go there, or stay. Ignored if nothing is published or played.
    Redirect(String),
    /// Answer to [`Output::UdpWanted`]: our ports of RTP and RTCP for the lane.
    UdpGranted((u16, u16)),
    /// Answer to [`Output::UdpWanted`]: there is none.
    UdpRefused,
    /// The next item of the stream that is played. Ignored if nothing is played.
    Deliver(&'a Delivery),
    /// A viewer of what is published needs a key frame.
    KeyFrameWanted,
    /// The played stream is over. The session tells the peer and closes.
    StreamEnded(Reason),
    /// End this connection, and have its peer told why with a status of 400.
    Refuse(Reason),
    /// End this connection.
    Close(Reason),
}

/// What a server session says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Bytes for the peer, within the credit.
    Send(Bytes),
    /// A datagram for the peer's port of a lane.
    Datagram {
        /// The lane.
        lane: usize,
        /// To the port of RTCP.
        rtcp: bool,
        /// The datagram.
        bytes: Bytes,
    },
    /// The packets of a frame for the peer's port of a lane.
    Burst {
        /// The lane.
        lane: usize,
        /// They.
        burst: Burst,
    },
    /// Read no more (`false`) or go on reading (`true`): nothing is looked at while the node thinks about a request. A
    /// driver may ignore it; up to `limits.conn_early_bytes` bytes are held.
    Reading(bool),
    /// The peer wants to know what a stream consists of, most likely to play it. Answered with `Described` or
    /// `PlayRefused`.
    DescribeRequested {
        /// The stream's name.
        key: StreamKey,
        /// The query without question mark. May hold secrets: not for logs.
        query: String,
        /// What it shows.
        shown: Shown,
    },
    /// The peer wants to announce what it will publish, to a server that asks who comes ([`Server::guard`]). Answered with
    /// `AnnounceAccepted`, `Unauthorized` or `PublishRefused`.
    AnnounceRequested {
        /// The stream's name.
        key: StreamKey,
        /// As in `DescribeRequested`.
        query: String,
        /// What it shows.
        shown: Shown,
    },
    /// The peer wants to play what was described. Answered with `PlayAccepted` or `PlayRefused`.
    PlayRequested,
    /// The peer wants to publish. Answered with `PublishAccepted` or `PublishRefused`.
    PublishRequested {
        /// The stream's name.
        key: StreamKey,
        /// As in `DescribeRequested`.
        query: String,
        /// What it shows.
        shown: Shown,
    },
    /// A lane wants to go over datagrams to these ports of the peer (RTP, RTCP). Answered with `UdpGranted` or
    /// `UdpRefused`.
    UdpWanted {
        /// The lane.
        lane: usize,
        /// The peer's ports.
        ports: (u16, u16),
    },
    /// No lane goes over datagrams any more.
    UdpDone,
    /// Media of the publisher, for the hub.
    Media(Ingest),
    /// The player cannot go on without a key frame.
    KeyFrameWanted,
    /// The publisher ended its stream (or its wait for an answer). At most once for each `PublishRequested`.
    Unpublished,
    /// The player wants no more (or no longer waits). At most once for each `DescribeRequested`.
    Stopped,
    /// A line for the log.
    Log(Level, String),
    /// The session is over; nothing follows. The connection is to be closed after what was sent has left.
    Closed(Reason),
}

#[derive(Debug)]
enum Phase {
    Open,
    /// Words to the peer are on their way out; then this is the end.
    Closing(Reason),
    Closed,
}

/// What the node is asked, and the request that its answer is for.
#[derive(Debug)]
enum Wait {
    Describe {
        request: Request,
    },
    Announce {
        request: Request,
    },
    /// A SETUP of a stream that was not described.
    Setup {
        request: Request,
    },
    Udp {
        cseq: String,
        lane: NewLane,
        ports: (u16, u16),
    },
    Play {
        cseq: String,
        url: String,
    },
    Record {
        cseq: String,
    },
}

/// What the node has been told of this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Plays,
    Publishes,
}

/// What carries a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Channels(u8, u8),
    Datagrams,
}

/// A lane that a SETUP asks for.
#[derive(Clone, Debug)]
struct NewLane {
    /// The described track or announced section.
    of: usize,
}

#[derive(Debug)]
struct Lane {
    of: usize,
    way: Way,
}

/// A section that was announced.
#[derive(Debug)]
struct Announced {
    media: String,
    control: String,
    /// What is taken of it; `None`: it is counted and dropped.
    taken: Option<(TrackId, Offered)>,
}

/// A described track, and the name that it is set up by.
#[derive(Debug)]
struct Described {
    id: TrackId,
    config: Arc<CodecConfig>,
    control: String,
}

/// The server's side of one RTSP connection.
#[derive(Debug)]
pub struct Server {
    limits: Arc<Limits>,
    rng: Rng,
    wall: WallAnchor,
    /// Datagrams may be used.
    udp: bool,
    /// The node is asked before an announcement is read.
    guarded: bool,
    phase: Phase,
    state: State,
    wait: Option<Wait>,
    told: Told,
    reader: Reader,
    outbox: Outbox,
    events: VecDeque<Output>,
    media: VecDeque<Ingest>,
    /// Bytes that came while the node was thinking.
    held: Vec<u8>,

    session: Option<String>,
    key: Option<(StreamKey, String)>,
    described: Vec<Described>,
    announced: Vec<Announced>,
    lanes: Vec<Lane>,
    channels: BTreeMap<u8, (usize, bool)>,
    ingest: Option<Ingester>,
    egress: Egress,
    paused: bool,

    /// Requests that were made of the peer.
    asked: u32,
    agent: String,
    via: String,
    strikes: u32,
    forgiven_until: Time,
    requests: u32,
    requests_since: Time,
    partial_since: Option<Time>,
    since: Time,
    heard: Time,
    progress: Time,
    report_at: Option<Time>,
    key_asked: Option<Time>,
    drops: BTreeMap<&'static str, u64>,
}

impl Server {
    /// A session for a connection that was accepted at `now`. `wall` ties its reports to the wall clock; `udp`: tracks may
    /// go over datagrams.
    pub fn new(limits: impl Into<Arc<Limits>>, rng: Rng, wall: WallAnchor, udp: bool, now: Time) -> Server {
        let limits = limits.into();
        let caps = Caps {
            line: limits.rtsp_line_bytes,
            headers: limits.rtsp_headers,
            head: limits.rtsp_head_bytes,
            message: limits.rtsp_message_bytes,
        };
        Server {
            reader: Reader::new(caps),
            limits,
            rng,
            wall,
            udp,
            guarded: false,
            phase: Phase::Open,
            state: State::Init,
            wait: None,
            told: Told::Nothing,
            outbox: Outbox::default(),
            events: VecDeque::new(),
            media: VecDeque::new(),
            held: Vec::new(),
            session: None,
            key: None,
            described: Vec::new(),
            announced: Vec::new(),
            lanes: Vec::new(),
            channels: BTreeMap::new(),
            ingest: None,
            egress: Egress::default(),
            paused: false,
            asked: 0,
            agent: String::new(),
            via: String::new(),
            strikes: 0,
            forgiven_until: now,
            requests: 0,
            requests_since: now,
            partial_since: None,
            since: now,
            heard: now,
            progress: now,
            report_at: None,
            key_asked: None,
            drops: BTreeMap::new(),
        }
    }

    /// Says whether the node wants to be asked before an announcement is read.
    pub fn guard(&mut self, on: bool) {
        self.guarded = on;
    }

    /// Bytes that wait for the peer to read (not counting what the driver holds).
    pub fn backlog(&self) -> usize {
        self.outbox.queued()
    }

    /// The last time at which nothing waited or the driver took bytes.
    pub fn last_progress(&self) -> Time {
        self.progress
    }

    /// What the peer calls itself, as it was sent. Empty before its first request.
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// The header `Via` of the peer's last request that had one, cut short: who sends the stream on, or took it on.
    pub fn via(&self) -> &str {
        &self.via
    }

    /// Packets and frames that were left out, by reason.
    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        let mut drops = self.drops.clone();
        let Stats { lost, late, strange, damaged, .. } = self.stats();
        let counts = [("lost", lost), ("late", late), ("strange", strange), ("damaged", damaged)];
        drops.extend(counts.into_iter().filter(|(_, n)| *n > 0));
        drops
    }

    fn stats(&self) -> Stats {
        self.ingest.as_ref().map(Ingester::stats).unwrap_or_default()
    }

    /// Share of the publisher's packets that never came, where there is one.
    pub fn loss(&self) -> Option<f64> {
        let s = self.ingest.as_ref()?.stats();
        let all = s.packets + s.lost;
        (all > 0).then(|| s.lost as f64 / all as f64)
    }

    /// Whether media goes over datagrams.
    pub fn is_udp(&self) -> bool {
        self.lanes.iter().any(|l| l.way == Way::Datagrams)
    }

    /// Why the session is about to end, once that is settled.
    pub fn closing(&self) -> Option<&Reason> {
        match &self.phase {
            Phase::Closing(reason) => Some(reason),
            _ => None,
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    fn log(&mut self, level: Level, text: impl Into<String>) {
        self.events.push_back(Output::Log(level, text.into()));
    }

    fn drop_some(&mut self, code: &'static str, n: u64) {
        let count = self.drops.entry(code).or_default();
        *count = count.saturating_add(n);
    }

    /// Asks the node: nothing more is looked at until it answers.
    fn ask(&mut self, wait: Wait, output: Output) {
        self.wait = Some(wait);
        self.events.push_back(output);
        self.events.push_back(Output::Reading(false));
    }

    /// Ends what the node knows of this connection, and says so once.
    fn end_role(&mut self) {
        match std::mem::replace(&mut self.told, Told::Nothing) {
            Told::Nothing => {}
            Told::Plays => self.events.push_back(Output::Stopped),
            Told::Publishes => self.events.push_back(Output::Unpublished),
        }
        self.report_at = None;
    }

    /// Forgets the session and all that belongs to it.
    fn reset(&mut self, now: Time) {
        self.say_bye(now);
        self.end_role();
        self.drop_lanes(now);
        self.state = State::Init;
        self.session = None;
        self.key = None;
        self.described.clear();
        self.announced.clear();
        self.since = now;
    }

    fn drop_lanes(&mut self, now: Time) {
        if self.is_udp() {
            self.events.push_back(Output::UdpDone);
        }
        let Stats { lost, late, strange, damaged, .. } = self.stats();
        for (code, n) in [("lost", lost), ("late", late), ("strange", strange), ("damaged", damaged)] {
            if n > 0 {
                self.drop_some(code, n);
            }
        }
        self.lanes.clear();
        self.channels.clear();
        self.reader.close_channels();
        self.ingest = None;
        self.egress = Egress::default();
        self.paused = false;
        self.forgiven_until = now + GRACE;
    }

    fn say_bye(&mut self, now: Time) {
        if self.state == State::Playing {
            for (lane, bytes) in self.egress.reports(now, &self.wall, true) {
                self.put_packet(lane, true, &[], &bytes);
            }
        }
    }

    /// Ends the session once what was written has left.
    fn close(&mut self, reason: Reason, now: Time) {
        if self.is_open() {
            self.wait = None;
            self.reset(now);
            self.held = Vec::new();
            self.phase = Phase::Closing(reason);
        }
    }

    /// Ends the session without waiting for anything.
    fn abort(&mut self, reason: Reason, now: Time) {
        self.close(reason, now);
        self.outbox.clear();
    }

    fn respond(&mut self, cseq: &str, response: Response) {
        self.note_refusal(&response);
        let mut with = Response { headers: Default::default(), ..response.clone() };
        if !cseq.is_empty() {
            with.headers.add("CSeq", cseq);
        }
        with.headers.0.extend(response.headers.0);
        with.headers.add("Server", "Headwater");
        self.outbox.push(with.to_bytes());
    }

    fn received(&mut self, mut input: &[u8], now: Time) {
        self.heard = now;
        while self.is_open() && self.wait.is_none() {
            match self.reader.read(&mut input) {
                Ok(Some(item)) => {
                    self.partial_since = None;
                    if let Err(reason) = self.item(item, now) {
                        self.close(reason, now);
                    }
                }
                Ok(None) => {
                    self.partial_since =
                        if self.reader.in_message() { Some(self.partial_since.unwrap_or(now)) } else { None };
                    return;
                }
                Err(bad) => {
                    let Bad { status, limit, code, text } = bad;
                    self.respond("", words(status, &text).with("Connection", "close"));
                    let reason = if limit { Reason::limit(code, text) } else { Reason::peer(code, text) };
                    self.close(reason, now);
                }
            }
        }
        if !input.is_empty() && self.wait.is_some() {
            if self.held.len().saturating_add(input.len()) > self.limits.conn_early_bytes {
                let text = "the peer sent more than may be held before its request was answered";
                self.close(Reason::limit("rtsp_early_bytes", text), now);
                return;
            }
            self.held.extend_from_slice(input);
        }
    }

    /// The node's answer is in: what was held meanwhile is looked at.
    fn go_on(&mut self, now: Time) {
        if self.is_open() && self.wait.is_none() {
            self.events.push_back(Output::Reading(true));
            let held = std::mem::take(&mut self.held);
            let heard = self.heard;
            self.received(&held, now);
            self.heard = heard;
        }
    }

    fn item(&mut self, item: Item, now: Time) -> Result<(), Reason> {
        match item {
            Item::Request(request) => {
                self.count_request(now)?;
                self.room_for_answer()?;
                self.request(request, now);
                Ok(())
            }
            // Answers to what was never asked.
            Item::Response(_) => Ok(()),
            Item::Frame { channel, payload } => {
                let Some(&(lane, rtcp)) = self.channels.get(&channel) else {
                    return self.strike(channel, now);
                };
                match self.state {
                    State::Recording | State::Playing | State::PlayReady => {
                        self.packet(lane, rtcp, &payload, now);
                        Ok(())
                    }
                    _ => self.strike(channel, now),
                }
            }
            Item::Stray { channel } => self.strike(channel, now),
        }
    }

    /// A10: packets where none may be.
    fn strike(&mut self, channel: u8, now: Time) -> Result<(), Reason> {
        self.drop_some("stray", 1);
        if now < self.forgiven_until {
            return Ok(());
        }
        self.strikes += 1;
        if self.strikes < self.limits.rtsp_stray_packets {
            return Ok(());
        }
        let text = format!(
            "{} packets came on channels that were not set up or before RECORD or PLAY, the last on channel {channel}",
            self.strikes
        );
        Err(Reason::limit("rtsp_stray_packets", text))
    }

    fn count_request(&mut self, now: Time) -> Result<(), Reason> {
        if now.since(self.requests_since) >= Duration::from_secs(1) {
            self.requests_since = now;
            self.requests = 0;
        }
        self.requests = self.requests.saturating_add(1);
        let most = self.limits.rtsp_requests_per_s;
        if self.requests > most {
            return Err(Reason::limit("rtsp_requests", format!("more than {most} requests in a second")));
        }
        Ok(())
    }

    /// A peer that asks and never reads the answers would have us keep them for ever.
    fn room_for_answer(&self) -> Result<(), Reason> {
        let most = match self.state {
            State::Playing => self.limits.ring_bytes,
            _ => self.limits.rtsp_message_bytes,
        };
        if self.outbox.queued().saturating_sub(self.outbox.credit()) > most {
            let text = "the peer keeps asking and does not read the answers";
            return Err(Reason::limit("rtsp_unread_answers", text));
        }
        Ok(())
    }

    fn tick(&mut self, now: Time) {
        if let Some(ingest) = &mut self.ingest
            && ingest.deadline().is_some_and(|d| d.at <= now)
        {
            ingest.run(now, &mut self.media);
            self.take_media(now);
        }
        let Some(deadline) = self.own_deadline().filter(|d| d.at <= now) else { return };
        match deadline.why {
            HEAD => {
                let text = format!(
                    "a message did not arrive whole within {} ms (limits.rtsp_head_ms)",
                    self.limits.rtsp_head_ms
                );
                self.respond("", words(408, &text).with("Connection", "close"));
                self.close(Reason::limit("rtsp_head_timeout", text), now);
            }
            REPORT => self.report(now),
            UNUSED => {
                let text = format!(
                    "the connection neither published nor played for {} ms (limits.rtsp_idle_ms)",
                    self.limits.rtsp_idle_ms
                );
                self.close(Reason::limit("rtsp_unused", text), now);
            }
            IDLE => {
                let text = format!(
                    "nothing was heard from the peer for {} ms: no packet, no report, no request to keep the session \
                     alive (limits.rtsp_idle_ms)",
                    self.limits.rtsp_idle_ms
                );
                self.abort(Reason::peer("rtsp_idle", text), now);
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

    fn after(&self, from: Time, millis: u64) -> Time {
        from + Duration::from_millis(millis)
    }

    fn own_deadline(&self) -> Option<Deadline> {
        let stuck = (!self.outbox.is_empty() && self.outbox.credit() == 0)
            .then(|| Deadline::new(self.after(self.progress, self.limits.viewer_stuck_ms), STUCK));
        match &self.phase {
            Phase::Closed => return None,
            Phase::Closing(_) => {
                let at = self.after(self.since, self.limits.viewer_stuck_ms);
                return (!self.outbox.is_empty()).then(|| Deadline::new(at, LAST_WORDS));
            }
            Phase::Open => {}
        }
        if self.wait.is_some() {
            // The node owes an answer; its own deadlines end that.
            return stuck;
        }
        let used = matches!(self.state, State::Playing | State::Recording) || self.paused;
        let all = [
            stuck,
            self.partial_since.map(|t| Deadline::new(self.after(t, self.limits.rtsp_head_ms), HEAD)),
            Some(Deadline::new(self.after(self.heard, self.limits.rtsp_idle_ms), IDLE)),
            (!used).then(|| Deadline::new(self.after(self.since, self.limits.rtsp_idle_ms), UNUSED)),
            self.report_at.map(|at| Deadline::new(at, REPORT)),
        ];
        all.into_iter().fold(None, Deadline::earliest)
    }
}

const HEAD: &str = "RTSP message";
const UNUSED: &str = "RTSP publish or play";
const IDLE: &str = "RTSP peer is silent";
const STUCK: &str = "RTSP peer does not read";
const REPORT: &str = "RTCP report";
const LAST_WORDS: &str = "RTSP last words";

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
                self.abort(Reason::peer("peer_closed", "the peer closed the connection"), now);
            }
            Input::Datagram { lane, rtcp, bytes } => {
                self.heard = now;
                self.packet(lane, rtcp, bytes, now);
            }
            Input::Described(tracks) => self.tracks_known(tracks, now),
            Input::AnnounceAccepted => self.announce_accepted(now),
            Input::Unauthorized { challenges, reason } => self.unauthorized(&challenges, &reason, now),
            Input::PlayAccepted => self.play_accepted(now),
            Input::PlayRefused(reason) => self.refused(&reason, now),
            Input::PublishAccepted => self.publish_accepted(now),
            Input::PublishRefused(reason) => self.refused(&reason, now),
            Input::Elsewhere(url) => self.elsewhere(&url, now),
            Input::Redirect(url) => self.redirect(&url),
            Input::UdpGranted(ports) => self.udp_answered(Some(ports), now),
            Input::UdpRefused => self.udp_answered(None, now),
            Input::Deliver(delivery) => self.deliver(delivery, now),
            Input::KeyFrameWanted => {
                if let Some(ingest) = &mut self.ingest {
                    ingest.want_key();
                    self.take_media(now);
                }
            }
            Input::Refuse(reason) => {
                self.respond("", words(400, &reason.text).with("Connection", "close"));
                self.close(reason, now);
            }
            Input::StreamEnded(reason) | Input::Close(reason) => {
                // The node knows.
                self.say_bye(now);
                self.state = State::Init;
                self.told = Told::Nothing;
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
        let packets = self.ingest.as_ref().filter(|_| self.is_open()).and_then(Ingester::deadline);
        Deadline::earliest(self.own_deadline(), packets)
    }
}
