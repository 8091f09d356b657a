//! The client's side of one RTSP connection: it plays what a server has, or sends a stream there.

use super::digest::Challenge;
use super::egress::{Burst, Egress};
use super::formats::Offered;
use super::ingest::{Ingester, Stats};
use super::server::Track;
use crate::buf::Outbox;
use crate::error::{Reason, quote};
use crate::hub::delivery::Delivery;
use crate::io::Level;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::media::frame::Ingest;
use crate::media::track::TrackId;
use crate::rand::Rng;
use crate::time::{Deadline, Time, WallAnchor};
use crate::wire::rtsp::transport::Lower;
use crate::wire::rtsp::url::Url;
use crate::wire::rtsp::{Bad, Caps, Item, Method, Reader, Request, Response};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

mod answers;
mod media;
mod requests;
#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

/// Reports go out so often (RFC 3550, 6.2: five seconds at least).
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// What a session without a timeout of its own lives for (RFC 2326, section 12.37).
const SESSION_TIMEOUT: Duration = Duration::from_secs(60);
/// No server is asked for a sign of life more often than this, whatever timeout it tells.
const ALIVE_LEAST: Duration = Duration::from_secs(2);
/// A sign of life that is not answered for so long never will be; some cameras do not answer while media goes.
const ALIVE_PATIENCE: Duration = Duration::from_secs(10);
/// How often in a session a server may call its own number too old before it is taken for one that refuses.
const STALES_MOST: u32 = 64;

/// What is to be done on a connection.
#[derive(Clone, Debug)]
pub enum Task {
    /// Receive the stream that the URL names.
    Play,
    /// Send a stream of these tracks under the URL.
    Record(Vec<Track>),
}

/// Which ways media may take, the better first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    /// Over the connection; where the server refuses that, as datagrams.
    TcpThenUdp,
    /// As datagrams; where the server refuses that, over the connection.
    UdpThenTcp,
    /// Over the connection only.
    Tcp,
}

/// What a client is for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to, with name and password.
    pub url: Url,
    /// What for.
    pub task: Task,
    /// Which ways media may take.
    pub ways: Ways,
    /// The marks of the nodes that the stream came through, for the header of that name; empty: none.
    pub via: String,
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
    /// A datagram of the server for one of the lanes.
    Datagram {
        /// The lane.
        lane: usize,
        /// It came to the port of RTCP.
        rtcp: bool,
        /// The datagram.
        bytes: &'a [u8],
    },
    /// Answer to [`Output::UdpWanted`]: our ports of RTP and RTCP for the lane.
    UdpGranted((u16, u16)),
    /// Answer to [`Output::UdpWanted`]: there is none.
    UdpRefused,
    /// The next item of the stream that is sent. Ignored before [`Output::Ready`].
    Deliver(&'a Delivery),
    /// A viewer of what is received needs a key frame.
    KeyFrameWanted,
    /// End the session: say so to the server and close.
    Close(Reason),
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Bytes for the server, within the credit.
    Send(Bytes),
    /// A datagram for the server's port of a lane.
    Datagram {
        /// The lane.
        lane: usize,
        /// To the port of RTCP.
        rtcp: bool,
        /// The datagram.
        bytes: Bytes,
    },
    /// The packets of a frame for the server's port of a lane.
    Burst {
        /// The lane.
        lane: usize,
        /// They.
        burst: Burst,
    },
    /// A lane wants to go over datagrams. Answered with `UdpGranted` or `UdpRefused`.
    UdpWanted {
        /// The lane.
        lane: usize,
    },
    /// The server's ports of a lane that was granted.
    UdpPeer {
        /// The lane.
        lane: usize,
        /// RTP and RTCP.
        ports: (u16, u16),
    },
    /// No lane goes over datagrams any more.
    UdpDone,
    /// The server plays, or takes what is sent. Once.
    Ready,
    /// Media of the server, for the hub.
    Media(Ingest),
    /// The server needs a key frame.
    KeyFrameWanted,
    /// The stream is somewhere else; `Closed` follows.
    Moved(Box<Url>),
    /// A line for the log.
    Log(Level, String),
    /// The session is over; nothing follows. The connection is to be closed after what was sent has left.
    Closed(Reason),
}

#[derive(Debug)]
enum Phase {
    Open,
    /// Words to the server are on their way out; then this is the end.
    Closing(Reason),
    Closed,
}

/// What a request that waits for its answer was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Options,
    Describe,
    Announce,
    /// Of this track.
    Setup(usize),
    Start,
    Alive,
}

#[derive(Debug)]
struct Pending {
    kind: Kind,
    cseq: u32,
    request: Request,
    sent: Time,
    /// It was sent with an answer to this challenge's nonce.
    proved: bool,
}

/// What carries a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Channels(u8, u8),
    Datagrams,
}

/// A track of the server that is received, or one of ours that is sent.
#[derive(Debug)]
enum What {
    Received(TrackId, Box<Offered>),
    Sent(Track, u8),
}

#[derive(Debug)]
struct Planned {
    what: What,
    /// The URL by which it is set up.
    control: String,
}

/// The client's side of one RTSP connection.
#[derive(Debug)]
pub struct Client {
    limits: Arc<Limits>,
    rng: Rng,
    wall: WallAnchor,
    url: Url,
    task: Task,
    /// What may be tried, the current one first.
    ways: VecDeque<Lower>,
    /// Who sent the stream on before, for servers that know that header.
    via: String,
    phase: Phase,
    active: bool,
    reader: Reader,
    outbox: Outbox,
    events: VecDeque<Output>,
    media: VecDeque<Ingest>,
    /// Bytes that came while the node was thinking.
    held: Vec<u8>,

    cseq: u32,
    pending: Option<Pending>,
    challenge: Option<(Challenge, u32)>,
    stales: u32,
    has_get_parameter: bool,
    base: String,
    aggregate: String,
    session: Option<String>,
    timeout: Duration,
    planned: Vec<Planned>,
    /// The next planned track to be set up.
    next: usize,
    /// The track whose ports were asked for.
    asking: Option<usize>,
    lanes: Vec<Way>,
    channels: BTreeMap<u8, (usize, bool)>,
    ingest: Option<Ingester>,
    egress: Egress,

    since: Time,
    heard: Time,
    media_at: Option<Time>,
    progress: Time,
    report_at: Option<Time>,
    alive_at: Option<Time>,
    key_asked: Option<Time>,
    drops: BTreeMap<&'static str, u64>,
}

impl Client {
    /// A client on a connection that stands since `now`. `wall` ties its reports to the wall clock.
    pub fn new(plan: Plan, limits: Arc<Limits>, rng: Rng, wall: WallAnchor, now: Time) -> Client {
        let Plan { url, task, ways, via } = plan;
        let caps = Caps {
            line: limits.rtsp_line_bytes,
            headers: limits.rtsp_headers,
            head: limits.rtsp_head_bytes,
            message: limits.remote_message_bytes,
        };
        let ways = match ways {
            Ways::TcpThenUdp => VecDeque::from([Lower::Tcp, Lower::Udp]),
            Ways::UdpThenTcp => VecDeque::from([Lower::Udp, Lower::Tcp]),
            Ways::Tcp => VecDeque::from([Lower::Tcp]),
        };
        let at = url.to_string();
        let mut client = Client {
            reader: Reader::new(caps),
            limits,
            rng,
            wall,
            url,
            task,
            ways,
            via,
            phase: Phase::Open,
            active: false,
            outbox: Outbox::default(),
            events: VecDeque::new(),
            media: VecDeque::new(),
            held: Vec::new(),
            cseq: 0,
            pending: None,
            challenge: None,
            stales: 0,
            has_get_parameter: false,
            base: at.clone(),
            aggregate: at,
            session: None,
            timeout: SESSION_TIMEOUT,
            planned: Vec::new(),
            next: 0,
            asking: None,
            lanes: Vec::new(),
            channels: BTreeMap::new(),
            ingest: None,
            egress: Egress::default(),
            since: now,
            heard: now,
            media_at: None,
            progress: now,
            report_at: None,
            alive_at: None,
            key_asked: None,
            drops: BTreeMap::new(),
        };
        client.begin(now);
        client
    }

    /// Bytes that wait for the server to read (not counting what the driver holds).
    pub fn backlog(&self) -> usize {
        self.outbox.queued()
    }

    /// Whether media goes over datagrams.
    pub fn is_udp(&self) -> bool {
        self.lanes.contains(&Way::Datagrams)
    }

    /// Packets and frames that were left out, by reason.
    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        let mut drops = self.drops.clone();
        let Stats { lost, late, strange, damaged, .. } = self.stats();
        let counts = [("lost", lost), ("late", late), ("strange", strange), ("damaged", damaged)];
        drops.extend(counts.into_iter().filter(|(_, n)| *n > 0));
        drops
    }

    /// Share of the server's packets that never came, where any did.
    pub fn loss(&self) -> Option<f64> {
        let s = self.ingest.as_ref()?.stats();
        let all = s.packets + s.lost;
        (all > 0).then(|| s.lost as f64 / all as f64)
    }

    fn stats(&self) -> Stats {
        self.ingest.as_ref().map(Ingester::stats).unwrap_or_default()
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    fn plays(&self) -> bool {
        matches!(self.task, Task::Play)
    }

    fn log(&mut self, level: Level, text: impl Into<String>) {
        self.events.push_back(Output::Log(level, text.into()));
    }

    fn drop_some(&mut self, code: &'static str, n: u64) {
        let count = self.drops.entry(code).or_default();
        *count = count.saturating_add(n);
    }

    /// Ends the session once what was written has left.
    fn close(&mut self, reason: Reason, now: Time) {
        if !self.is_open() {
            return;
        }
        if self.active && !self.plays() {
            for (lane, bytes) in self.egress.reports(now, &self.wall, true) {
                self.put_packet(lane, true, &bytes);
            }
        }
        if self.session.is_some() {
            self.send(Method::Teardown, self.aggregate.clone());
        }
        if self.is_udp() {
            self.events.push_back(Output::UdpDone);
        }
        self.pending = None;
        self.asking = None;
        self.held = Vec::new();
        self.active = false;
        self.report_at = None;
        self.alive_at = None;
        self.since = now;
        self.phase = Phase::Closing(reason);
    }

    /// Ends the session without waiting for anything.
    fn abort(&mut self, reason: Reason, now: Time) {
        self.close(reason, now);
        self.outbox.clear();
    }

    fn received(&mut self, mut input: &[u8], now: Time) {
        self.heard = now;
        while self.is_open() && self.asking.is_none() {
            match self.reader.read(&mut input) {
                Ok(Some(item)) => self.item(item, now),
                Ok(None) => return,
                Err(Bad { limit, code, text, .. }) => {
                    let text = format!("what the server sends makes no sense: {text}");
                    let reason = if limit { Reason::limit(code, text) } else { Reason::peer(code, text) };
                    self.abort(reason, now);
                }
            }
        }
        // Nothing is looked at while the node thinks about ports.
        if self.asking.is_some() && !input.is_empty() {
            if self.held.len().saturating_add(input.len()) > self.limits.conn_read_per_turn {
                let text = "the server sent more than may be held before it was asked for anything";
                return self.abort(Reason::limit("rtsp_early_bytes", text), now);
            }
            self.held.extend_from_slice(input);
        }
    }

    fn item(&mut self, item: Item, now: Time) {
        match item {
            Item::Response(response) => self.response(response, now),
            Item::Request(request) => self.asked(&request, now),
            Item::Frame { channel, payload } => match self.channels.get(&channel) {
                Some(&(lane, rtcp)) => self.packet(lane, rtcp, &payload, now),
                None => self.drop_some("stray", 1),
            },
            Item::Stray { .. } => self.drop_some("stray", 1),
        }
    }

    /// The server asks something.
    fn asked(&mut self, request: &Request, now: Time) {
        // A server that asks and never reads the answers would have us keep them for ever.
        if self.outbox.queued().saturating_sub(self.outbox.credit()) > self.limits.remote_message_bytes {
            let text = "the server keeps asking and does not read the answers";
            return self.abort(Reason::limit("rtsp_unread_answers", text), now);
        }
        let method = Method::parse(&request.method);
        let known = matches!(
            method,
            Some(
                Method::Options
                    | Method::GetParameter
                    | Method::SetParameter
                    | Method::Announce
                    | Method::Redirect
                    | Method::Teardown
            )
        );
        let mut answer = Response::new(if known { 200 } else { 501 });
        if let Some(cseq) = request.headers.get("CSeq") {
            answer = answer.with("CSeq", cseq);
        }
        self.outbox.push(answer.to_bytes());
        match method {
            Some(Method::Redirect) => {
                let location = request.headers.get("Location").unwrap_or_default().to_owned();
                self.moved(&location, now);
            }
            Some(Method::Teardown) => {
                let reason = Reason::peer("rtsp_teardown", "the server ended the session");
                self.session = None;
                self.close(reason, now);
            }
            _ => {}
        }
    }

    /// The server says that the stream is somewhere else.
    fn moved(&mut self, location: &str, now: Time) {
        match Url::parse(location) {
            Ok(url) if self.url.tls && !url.tls => {
                let text =
                    format!("the server sends us from rtsps to {url}, which is not encrypted; not followed");
                self.close(Reason::peer("rtsp_redirect", text), now);
            }
            Ok(mut url) => {
                // A password is for the host that it was given for.
                if url.host == self.url.host && url.user.is_none() {
                    url.user = self.url.user.clone();
                }
                let text = format!("the server sends us to {url}");
                self.events.push_back(Output::Moved(Box::new(url)));
                self.close(Reason::peer("rtsp_moved", text), now);
            }
            Err(why) => {
                let text = format!("the server sends us elsewhere, but {why}");
                self.close(Reason::peer("rtsp_redirect", text), now);
            }
        }
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
            ALIVE => self.say_alive(now),
            REPORT => self.report(now),
            UNANSWERED => self.pending = None,
            SETUP => {
                let text = match &self.pending {
                    Some(p) => format!(
                        "the server did not answer {} within {} ms (limits.remote_setup_ms counts all requests)",
                        p.request.method, self.limits.remote_setup_ms
                    ),
                    None => "the session was not set up in time (limits.remote_setup_ms)".to_owned(),
                };
                self.abort(Reason::peer("remote_setup_timeout", text), now);
            }
            NO_DATAGRAMS => {
                let text = format!(
                    "no datagram came within {} ms (limits.remote_udp_wait_ms); a firewall or an address translator \
                     may hold them back",
                    self.limits.remote_udp_wait_ms
                );
                self.close(Reason::peer(super::NO_DATAGRAMS, text), now);
            }
            SILENT => {
                let text = format!(
                    "the server sent no picture or sound for {} ms (limits.remote_silent_ms)",
                    self.limits.remote_silent_ms
                );
                self.close(Reason::peer("remote_silent", text), now);
            }
            IDLE => {
                let text = format!("nothing was heard from the server for {} ms", self.limits.rtsp_idle_ms);
                self.abort(Reason::peer("rtsp_idle", text), now);
            }
            STUCK => {
                let text = format!(
                    "the server took no byte for {} ms while {} waited (limits.viewer_stuck_ms)",
                    self.limits.viewer_stuck_ms,
                    self.outbox.queued()
                );
                self.abort(Reason::limit("viewer_stuck", text), now);
            }
            // The last words could not be said in time.
            _ => _ = self.outbox.clear(),
        }
    }

    fn own_deadline(&self) -> Option<Deadline> {
        let after = |from: Time, millis: u64| from + Duration::from_millis(millis);
        match &self.phase {
            Phase::Closed => return None,
            Phase::Closing(_) => {
                let at = after(self.since, self.limits.viewer_stuck_ms);
                return (!self.outbox.is_empty()).then(|| Deadline::new(at, LAST_WORDS));
            }
            Phase::Open => {}
        }
        if !self.active {
            return Some(Deadline::new(after(self.since, self.limits.remote_setup_ms), SETUP));
        }
        let stuck = !self.outbox.is_empty() && self.outbox.credit() == 0;
        let plays = self.plays();
        let first = plays && self.is_udp() && self.media_at.is_none();
        let last = self.media_at.unwrap_or(self.since);
        let all = [
            stuck.then(|| Deadline::new(after(self.progress, self.limits.viewer_stuck_ms), STUCK)),
            self.pending.as_ref().map(|p| Deadline::new(p.sent + ALIVE_PATIENCE, UNANSWERED)),
            first.then(|| Deadline::new(after(self.since, self.limits.remote_udp_wait_ms), NO_DATAGRAMS)),
            plays.then(|| Deadline::new(after(last, self.limits.remote_silent_ms), SILENT)),
            (!plays).then(|| Deadline::new(after(self.heard, self.limits.rtsp_idle_ms), IDLE)),
            self.report_at.map(|at| Deadline::new(at, REPORT)),
            self.alive_at.map(|at| Deadline::new(at, ALIVE)),
        ];
        all.into_iter().fold(None, Deadline::earliest)
    }
}

const SETUP: &str = "RTSP session is set up";
const ALIVE: &str = "RTSP sign of life";
const UNANSWERED: &str = "RTSP sign of life is not answered";
const SILENT: &str = "RTSP server sends nothing";
const NO_DATAGRAMS: &str = "RTSP datagrams do not come";
const IDLE: &str = "RTSP server is silent";
const STUCK: &str = "RTSP server does not read";
const REPORT: &str = "RTCP report";
const LAST_WORDS: &str = "RTSP last words";

/// What a server said in a status line, for people.
fn status_words(response: &Response) -> String {
    format!("{} {}", response.status, quote(&response.phrase))
}

impl Machine for Client {
    type Input<'a> = Input<'a>;
    type Output = Output;

    fn handle(&mut self, input: Input<'_>, now: Time) {
        match input {
            Input::Writable(free) => self.outbox.set_credit(free),
            Input::Tick => {
                self.tick(now);
                return;
            }
            _ if !self.is_open() => return,
            Input::Received(bytes) => self.received(bytes, now),
            Input::PeerFinished => {
                self.abort(Reason::peer("peer_closed", "the server closed the connection"), now);
            }
            Input::Datagram { lane, rtcp, bytes } => {
                self.heard = now;
                self.packet(lane, rtcp, bytes, now);
            }
            Input::UdpGranted(ports) => self.udp_answered(Some(ports), now),
            Input::UdpRefused => self.udp_answered(None, now),
            Input::Deliver(delivery) => self.deliver(delivery, now),
            Input::KeyFrameWanted => {
                if let Some(ingest) = &mut self.ingest {
                    ingest.want_key();
                    self.take_media(now);
                }
            }
            Input::Close(reason) => self.close(reason, now),
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
