//! All WebRTC sessions of one loop behind one UDP port: who a datagram is for, how much may be spent on strangers,
//! and what a session's end costs the others (nothing).
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod audit;
mod drops;
mod fan;
mod streams;

pub use drops::Drops;
pub use fan::SLICE_BYTES;

use super::codecs;
use super::dtls::Identity;
use super::offering;
use super::path::{self, Path};
use super::peer::{Peer, PeerEvent, Setup, Verdict};
use super::sdp::{self, Wish};
use super::stun_answers::StunAnswers;
use super::talk::Talk;
use super::viewer::Viewer;
use crate::error::Reason;
use crate::guard::{guard, strike};
use crate::hub::delivery::Delivery;
use crate::io::{Batch, ConnId, SocketId};
use crate::limits::Limits;
use crate::machine::Machine;
use crate::media::track::{CodecConfig, CodecSet, TrackId};
use crate::rand::Rng;
use crate::simulation::{Bug, Site};
use crate::table::Table;
use crate::time::{Deadline, Time, Timers};
use crate::wire::rtp::Multiplexed;
use crate::wire::stun::{self, BindingRequest};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m::{Candidate, IceCreds};

/// What one handshake datagram is taken to cost, microseconds (`rtc_handshake_us_per_turn` is counted in these).
const HANDSHAKE_US: u64 = 100;
/// Tells WebRTC sessions from connections where a simulation chooses one.
const STRUCK: u64 = 1 << 62;
/// Batches kept for reuse.
const POOL: usize = 8;
/// A path passes to another session only if its owner has been silent for so long.
const PATH_SILENCE: Duration = Duration::from_secs(2);

/// A WebRTC session of this node. Never reused. The top byte is the loop that serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rtc-{}.{}", self.0 >> 56, self.0 & 0x00ff_ffff_ffff_ffff)
    }
}

/// What an [`Endpoint`] is made of.
#[derive(Debug)]
pub struct EndpointConfig {
    /// The limits in force.
    pub limits: Limits,
    /// Where ICE credentials, first sequence numbers and session ids come from.
    pub rng: Rng,
    /// The moment that is [`Time::ZERO`], for libraries that know `Instant` only.
    pub start: Instant,
    /// Certificate and cryptography.
    pub identity: Identity,
    /// Whether anonymous STUN requests are answered (`webrtc.stun`).
    pub stun: bool,
    /// The loop that this endpoint belongs to; goes into session ids and ICE user names.
    pub loop_index: u8,
}

/// An offer as it came over HTTP.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// The SDP.
    pub sdp: &'a str,
    /// The address that sent it; unfinished handshakes are counted by it.
    pub from: IpAddr,
    /// The addresses to answer with, the most preferred first.
    pub candidates: &'a [SocketAddr],
}

/// A viewer's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Playing {
    /// The session.
    pub session: SessionId,
    /// The SDP answer.
    pub answer: String,
    /// Why the viewer will hear nothing although the stream has sound, in words for page and log.
    pub no_sound: Option<String>,
    /// The codecs that it was promised.
    pub takes: CodecSet,
}

/// What an endpoint is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// Time passed, or a turn of the loop ended. Handshakes that exceeded their share go on.
    Tick,
    /// The UDP socket stands.
    UdpOpened {
        /// The socket.
        socket: SocketId,
        /// The most segments of one GSO message.
        max_segments: usize,
    },
    /// Datagrams of equal size (the last may be shorter) from one peer.
    Datagram {
        /// The socket.
        socket: SocketId,
        /// The address that was asked.
        local: SocketAddr,
        /// Who asks.
        remote: SocketAddr,
        /// Bytes of each datagram.
        stride: usize,
        /// All bytes.
        bytes: &'a [u8],
    },
    /// A datagram that came in a frame on a TCP connection (RFC 6544).
    Framed {
        /// The connection.
        conn: ConnId,
        /// The address that was dialled.
        local: SocketAddr,
        /// Who sends.
        remote: SocketAddr,
        /// The datagram.
        bytes: &'a [u8],
    },
    /// A TCP connection takes so many bytes.
    Room {
        /// The connection.
        conn: ConnId,
        /// The bytes.
        free: usize,
    },
    /// A TCP connection is gone.
    Gone {
        /// The connection.
        conn: ConnId,
    },
    /// Something for a viewer.
    Deliver {
        /// The viewer.
        session: SessionId,
        /// What to send.
        delivery: Delivery,
    },
    /// Ask a publisher for a key frame.
    RequestKeyFrame {
        /// The publisher.
        session: SessionId,
        /// Of this track of pictures; `None`: of each.
        track: Option<TrackId>,
    },
    /// Tell a viewer's session what it could be given if its link carried so much.
    Goal {
        /// The viewer.
        session: SessionId,
        /// Bits a second; `None`: it has the best.
        goal: Option<u64>,
    },
    /// Say something on a session's data channel for signalling.
    Say {
        /// The session.
        session: SessionId,
        /// The message.
        text: &'a str,
    },
    /// End a session.
    Close {
        /// The session.
        session: SessionId,
        /// Why.
        reason: Reason,
    },
    /// A batch comes back.
    Recycle(Box<Batch>),
}

/// What an endpoint says.
#[derive(Debug)]
pub enum Output {
    /// Datagrams to send.
    Datagrams(Box<Batch>),
    /// A session's word.
    Event(SessionId, PeerEvent),
    /// Bytes for a TCP connection, as many as it takes.
    Stream {
        /// The connection.
        conn: ConnId,
        /// The bytes.
        bytes: Bytes,
    },
    /// A check with the password of a session came on a TCP connection.
    StreamProven {
        /// The connection.
        conn: ConnId,
    },
    /// The session that a TCP connection was for is over.
    CloseStream {
        /// The connection.
        conn: ConnId,
    },
}

struct Session {
    talk: Talk,
    /// It stands in the row of those who have something to send.
    ready: bool,
    from: IpAddr,
    ufrag: String,
    /// The peer's user name; empty as long as it has not answered our offer.
    theirs: String,
    /// How often ICE began anew.
    restarts: u64,
    /// The section that stands for all.
    mid: String,
    paths: Vec<Path>,
    handshaking: bool,
    /// Its TCP connection is behind: frames are left out up to a key frame (whole sessions; lean ones do it themselves).
    behind: bool,
    /// How often it was told something.
    told: u64,
}

fn gone() -> Reason {
    Reason::peer("no_session", "there is no such session (any more)")
}

/// Our ICE credentials: 14 characters of 5.95 bits make 83 bits, well above the 24 that RFC 8839 asks for; the password
/// has 190.
fn credentials(rng: &mut Rng, loop_index: u8) -> IceCreds {
    IceCreds { ufrag: format!("{loop_index:02x}{}", rng.token(14)), pass: rng.token(32) }
}

struct Waiting {
    path: Path,
    bytes: Vec<u8>,
}

/// All WebRTC sessions of one loop. A [`Machine`], plus two calls that answer at once: [`Endpoint::publish`] and
/// [`Endpoint::play`].
pub struct Endpoint {
    limits: Arc<Limits>,
    rng: Rng,
    start: Instant,
    identity: Identity,
    stun: Option<StunAnswers>,
    loop_index: u8,
    next_id: u64,
    sessions: Table<SessionId, Session>,
    by_ufrag: HashMap<String, SessionId>,
    by_path: HashMap<Path, SessionId>,
    streams: streams::Streams,
    /// The ports of our TCP candidates.
    tcp_ports: Vec<u16>,
    handshakes: BTreeMap<IpAddr, usize>,
    handshaking: usize,
    timers: Timers<SessionId>,
    outputs: VecDeque<Output>,
    socket: Option<(SocketId, usize)>,
    batch: Option<Box<Batch>>,
    // They came boxed and leave boxed.
    #[allow(clippy::vec_box)]
    pool: Vec<Box<Batch>>,
    waiting: VecDeque<Waiting>,
    budget: u64,
    drops: Drops,
    fan: fan::Fan,
    /// Viewers get lean sessions.
    lean: bool,
    now: Time,
}

impl Endpoint {
    /// An endpoint without sessions.
    ///
    /// # Errors
    /// None today; the signature leaves room for what an identity may lack.
    pub fn new(config: EndpointConfig) -> Result<Endpoint, Reason> {
        let EndpointConfig { limits, rng, start, identity, stun, loop_index } = config;
        let budget = limits.rtc_handshake_us_per_turn / HANDSHAKE_US;
        let limits_stun = (limits.stun_per_net_per_s, limits.stun_per_s);
        Ok(Endpoint {
            limits: Arc::new(limits),
            rng,
            start,
            identity,
            stun: stun.then(|| StunAnswers::new(limits_stun)),
            loop_index,
            next_id: 0,
            sessions: Table::new(),
            by_ufrag: HashMap::new(),
            by_path: HashMap::new(),
            streams: streams::Streams::default(),
            tcp_ports: Vec::new(),
            handshakes: BTreeMap::new(),
            handshaking: 0,
            timers: Timers::default(),
            outputs: VecDeque::new(),
            socket: None,
            batch: None,
            pool: Vec::new(),
            waiting: VecDeque::new(),
            budget,
            drops: Drops::default(),
            fan: fan::Fan::default(),
            lean: true,
            now: Time::ZERO,
        })
    }

    /// Gives viewers whole str0m sessions from now on, as publishers have, instead of lean ones.
    pub fn use_whole_viewers(&mut self) {
        self.lean = false;
    }

    /// Our candidates for these addresses, each as `candidate:…` (RFC 8839, 5.1).
    pub fn candidate_lines(&self, addresses: &[SocketAddr]) -> Vec<String> {
        let candidates = path::candidates(addresses, &self.tcp_ports).unwrap_or_default();
        candidates.iter().map(Candidate::to_sdp_string).collect()
    }

    /// Opens a publisher's session (WHIP) and answers its offer.
    ///
    /// # Errors
    /// A limit was reached, or the offer cannot be answered; the reason says which.
    pub fn publish(&mut self, offer: Offer<'_>, now: Time) -> Result<(SessionId, String), Reason> {
        self.open(offer, Wish::Publish, &[], false, now)
    }

    /// Opens a viewer's session (WHEP) for a stream with these tracks (none: not known yet) and answers its offer.
    ///
    /// # Errors
    /// A limit was reached, or the offer cannot be answered; the reason says which.
    pub fn play(
        &mut self,
        offer: Offer<'_>,
        tracks: &[(TrackId, Arc<CodecConfig>)],
        now: Time,
    ) -> Result<Playing, Reason> {
        let plan = codecs::Plan::of(tracks.iter().map(|(_, c)| &c.params))?;
        let wish = Wish::Play { video: plan.video, audio: plan.audio };
        let (session, answer) = self.open(offer, wish, tracks, false, now)?;
        Ok(Playing { session, answer, no_sound: plan.no_sound, takes: plan.takes })
    }

    /// Opens a viewer's session for a stream with these tracks by an offer of ours, with a section for data channels if
    /// `channel`. `Playing::answer` is the offer; [`Endpoint::answer`] takes what the viewer answers. `from` and
    /// `candidates` as in [`Offer`].
    ///
    /// # Errors
    /// As [`Endpoint::play`].
    pub fn offer(
        &mut self,
        from: IpAddr,
        candidates: &[SocketAddr],
        tracks: &[(TrackId, Arc<CodecConfig>)],
        channel: bool,
        now: Time,
    ) -> Result<Playing, Reason> {
        let plan = codecs::Plan::of(tracks.iter().map(|(_, c)| &c.params))?;
        let wish = Wish::Play { video: plan.video, audio: plan.audio };
        let seed = offering::seed(&plan, channel);
        let offer = Offer { sdp: &seed, from, candidates };
        let (session, answer) = self.open(offer, wish, tracks, true, now)?;
        let answer = offering::offer(&answer);
        Ok(Playing { session, answer, no_sound: plan.no_sound, takes: plan.takes })
    }

    /// Takes a viewer's answer to our offer.
    ///
    /// # Errors
    /// There is no such session, or the answer cannot be taken; the session goes on until it is closed.
    pub fn answer(&mut self, session: SessionId, sdp: &str, now: Time) -> Result<(), Reason> {
        let limits = self.limits.clone();
        let answer = guard(|| sdp::accepted(sdp, &limits)).and_then(|answer| answer)?;
        self.now = now;
        self.with(session, now, |p| p.answered(answer)).unwrap_or_else(|| Err(gone()))
    }

    /// Our user name of a session's ICE: changes when ICE begins anew, and never comes back. What RFC 9725, 4.3.1, calls
    /// the ICE session.
    pub fn ice_session(&self, session: SessionId) -> Option<&str> {
        self.sessions.get(&session).map(|s| s.ufrag.as_str())
    }

    /// The peer's user name of a session's ICE, by which a fragment is told from a restart.
    pub fn peer_ufrag(&self, session: SessionId) -> Option<&str> {
        self.sessions.get(&session).map(|s| s.theirs.as_str())
    }

    /// Begins a session's ICE anew with the peer's new credentials (RFC 9725, 4.3.3). Answers our credentials and
    /// candidates as a fragment of SDP.
    ///
    /// # Errors
    /// There is no such session.
    pub fn restart(
        &mut self,
        session: SessionId,
        ufrag: &str,
        pwd: &str,
        candidates: &[SocketAddr],
        now: Time,
    ) -> Result<String, Reason> {
        self.now = now;
        let s = self.sessions.get_mut(&session).ok_or_else(gone)?;
        s.restarts += 1;
        let ours =
            credentials(&mut self.rng.fork("ice restart", session.0 ^ s.restarts << 40), self.loop_index);
        self.by_ufrag.remove(&s.ufrag);
        self.by_ufrag.insert(ours.ufrag.clone(), session);
        s.ufrag.clone_from(&ours.ufrag);
        ufrag.clone_into(&mut s.theirs);
        let theirs = IceCreds { ufrag: ufrag.to_owned(), pass: pwd.to_owned() };
        let mut fragment = format!(
            "a=ice-lite\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:{}\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\n",
            s.mid, ours.ufrag, ours.pass
        );
        for candidate in self.candidate_lines(candidates) {
            fragment.push_str(&format!("a={candidate}\r\n"));
        }
        fragment.push_str("a=end-of-candidates\r\n");
        self.with(session, now, |p| p.restart(ours, theirs)).map(|()| fragment).ok_or_else(gone)
    }

    fn open(
        &mut self,
        offer: Offer<'_>,
        wish: Wish,
        tracks: &[(TrackId, Arc<CodecConfig>)],
        offered: bool,
        now: Time,
    ) -> Result<(SessionId, String), Reason> {
        self.now = now;
        let limits = self.limits.clone();
        let full = |what: &str, most: usize, key: &str| {
            Reason::limit(
                "too_many_sessions",
                format!("this node has {most} {what} and takes no more (limits.{key}); try another or later"),
            )
        };
        if self.sessions.len() >= limits.rtc_sessions {
            return Err(full("WebRTC sessions", limits.rtc_sessions, "rtc_sessions"));
        }
        if self.handshaking >= limits.rtc_handshakes {
            return Err(full("unfinished WebRTC handshakes", limits.rtc_handshakes, "rtc_handshakes"));
        }
        let of_ip = self.handshakes.get(&offer.from).copied().unwrap_or(0);
        if of_ip >= limits.rtc_handshakes_per_ip {
            let most = limits.rtc_handshakes_per_ip;
            return Err(full(
                "unfinished WebRTC handshakes from this address",
                most,
                "rtc_handshakes_per_ip",
            ));
        }
        if offer.candidates.is_empty() {
            return Err(Reason::local(
                "no_candidates",
                "this node knows no address of its own that WebRTC peers could reach; set advertise.public",
            ));
        }
        let mut prepared = guard(|| sdp::prepare(offer.sdp, wish, &limits)).and_then(|prepared| prepared)?;
        codecs::has_use_for(&prepared, tracks.iter().map(|(_, c)| c.params.codec()))?;
        // A lean viewer has no data channel, and answers only.
        let plain = !offered && prepared.channel_mid.is_none();
        let lean = self.lean && plain && matches!(wish, Wish::Play { .. });
        if !lean {
            prepared.begin();
        }

        let id = SessionId(u64::from(self.loop_index) << 56 | self.next_id);
        self.next_id += 1;
        let mut rng = self.rng.fork("rtc session", id.0);
        let creds = credentials(&mut rng, self.loop_index);
        let ufrag = creds.ufrag.clone();
        let setup = Setup {
            prepared: &prepared,
            wish,
            identity: &self.identity,
            limits,
            candidates: offer.candidates,
            tcp_ports: &self.tcp_ports,
            creds,
            base: self.start,
            now,
            offered,
        };
        let opened = guard(|| {
            if lean {
                Viewer::open(setup, &mut rng).map(|(viewer, answer)| (Talk::Lean(Box::new(viewer)), answer))
            } else {
                Peer::open(setup, &mut rng).map(|(peer, answer)| (Talk::Whole(Box::new(peer)), answer))
            }
        });
        let (mut talk, answer) = match opened {
            Ok(result) => result?,
            Err(reason) => {
                self.drops.panics += 1;
                return Err(reason);
            }
        };
        talk.tracks(tracks);
        let answer = prepared.answer(&answer, rng.u64());
        self.by_ufrag.insert(ufrag.clone(), id);
        *self.handshakes.entry(offer.from).or_default() += 1;
        self.handshaking += 1;
        let session = Session {
            talk,
            ready: false,
            from: offer.from,
            ufrag,
            theirs: if offered { String::new() } else { prepared.ufrag.clone() },
            restarts: 0,
            mid: prepared.first_mid().to_owned(),
            paths: Vec::new(),
            handshaking: true,
            behind: false,
            told: 0,
        };
        self.sessions.insert(id, session);
        self.with(id, now, |_| ());
        Ok((id, answer))
    }

    /// The most datagrams of one message to the kernel; 0 before the socket stands.
    pub fn most_segments(&self) -> usize {
        self.socket.map_or(0, |(_, most)| most)
    }

    /// What was dropped so far.
    pub fn drops(&self) -> Drops {
        self.drops
    }

    /// How many sessions there are, and how many of them have not connected yet.
    pub fn sessions(&self) -> (usize, usize) {
        (self.sessions.len(), self.handshaking)
    }

    /// Runs `f` on one session and takes out what follows. A panic in there ends this session and no other.
    fn with<R>(&mut self, id: SessionId, now: Time, f: impl FnOnce(&mut Talk) -> R) -> Option<R> {
        let session = self.sessions.get_mut(&id)?;
        let peer = &mut session.talk;
        session.told += 1;
        let (switches, told) = (self.limits.simulation, session.told);
        let result = guard(|| {
            strike(switches, id.0 | STRUCK, told);
            let result = f(peer);
            peer.drain(now);
            result
        });
        let result = match result {
            Ok(result) => result,
            Err(reason) => {
                self.drops.panics += 1;
                self.remove(id);
                self.outputs.push_back(Output::Event(id, PeerEvent::Closed(reason)));
                return None;
            }
        };
        let (closed, connected, deadline) = (peer.closed(), peer.connected(), peer.deadline());
        for event in peer.events().drain(..) {
            self.outputs.push_back(Output::Event(id, event));
        }
        let sent = std::mem::take(peer.sent());
        if connected && std::mem::take(&mut session.handshaking) {
            let from = session.from;
            self.handshake_over(from);
        }
        self.stage(sent);
        if closed {
            self.remove(id);
        } else {
            self.timers.update(id, deadline);
        }
        Some(result)
    }

    fn handshake_over(&mut self, from: IpAddr) {
        self.handshaking = self.handshaking.saturating_sub(1);
        if let Some(count) = self.handshakes.get_mut(&from) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.handshakes.remove(&from);
            }
        }
    }

    fn remove(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.by_ufrag.remove(&session.ufrag);
        for path in &session.paths {
            if self.by_path.get(path) == Some(&id) {
                self.by_path.remove(path);
            }
        }
        self.end_streams(id, &session.paths);
        if session.handshaking {
            self.handshake_over(session.from);
        }
        self.timers.cancel(&id);
    }

    fn datagram(&mut self, path: Path, bytes: &[u8], now: Time) {
        match Multiplexed::of(bytes) {
            None => self.drops.unknown_protocol += 1,
            Some(Multiplexed::Stun) => self.check(path, bytes, now),
            Some(_) => {
                let Some(id) = self.by_path.get(&path).copied() else {
                    self.drops.unknown_path += 1;
                    return;
                };
                if self.sessions.get(&id).is_some_and(|s| s.handshaking) {
                    let late = self.limits.simulation.happens(Site::LateHandshake, now.as_nanos());
                    if late || self.budget == 0 || !self.waiting.is_empty() {
                        if self.waiting.len() < self.limits.rtc_handshake_queue {
                            self.waiting.push_back(Waiting { path, bytes: bytes.to_vec() });
                        } else {
                            self.drops.handshake_queue += 1;
                        }
                        return;
                    }
                    self.budget -= 1;
                }
                self.give(id, path, bytes, now);
            }
        }
    }

    fn give(&mut self, id: SessionId, path: Path, bytes: &[u8], now: Time) {
        let verdict = self.with(id, now, |p| p.datagram(path, bytes, now));
        self.line_up(id);
        match verdict {
            Some(Verdict::NoSuchPath) => self.drops.unknown_path += 1,
            Some(Verdict::Unauthentic) => self.drops.unauthentic_media += 1,
            _ => {}
        }
    }

    /// An ICE check goes to the session whose user name it carries, wherever it comes from; only the right
    /// password makes its path that session's.
    fn check(&mut self, path: Path, bytes: &[u8], now: Time) {
        let Ok(request) = BindingRequest::parse(bytes) else {
            return self.anonymous(path, bytes, now);
        };
        let Some(id) = self.by_ufrag.get(request.local_ufrag).copied() else {
            self.drops.unknown_user += 1;
            if self.limits.simulation.planted(Bug::AmplifiedAnswer) {
                let answer = bytes.repeat(3);
                self.stage(VecDeque::from([(path, answer)]));
            }
            return;
        };
        let known = self.by_path.get(&path).copied() == Some(id);
        let room =
            known || self.sessions.get(&id).is_some_and(|s| s.paths.len() < self.limits.sdp_candidates);
        match self.with(id, now, |p| p.check(path, room, bytes, now)) {
            Some(Verdict::Authentic) if !known => self.claim(id, path, now),
            Some(Verdict::Unauthentic) => self.drops.unauthentic += 1,
            Some(Verdict::TooManyPaths) => self.drops.too_many_paths += 1,
            Some(Verdict::TooEarly) => self.drops.too_early += 1,
            Some(Verdict::NoSuchPath) => self.drops.unknown_path += 1,
            _ => {}
        }
    }

    /// A13: whoever asks anonymously where it is gets told, within limits.
    fn anonymous(&mut self, path: Path, bytes: &[u8], now: Time) {
        let asked = stun::anonymous(bytes);
        match (asked, &mut self.stun) {
            (Some(transaction), Some(answers)) => {
                if answers.may(path.remote().ip(), now) {
                    let answer = stun::mapped(transaction, path.remote());
                    self.stage(VecDeque::from([(path, answer)]));
                } else {
                    self.drops.stun_limit += 1;
                }
            }
            _ => self.drops.not_a_check += 1,
        }
    }

    fn claim(&mut self, id: SessionId, path: Path, now: Time) {
        let owner = self.by_path.get(&path).and_then(|owner| self.sessions.get(owner));
        if owner.is_some_and(|o| now.since(o.talk.heard()) < PATH_SILENCE) {
            return;
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.paths.push(path);
            self.by_path.insert(path, id);
            if let Some(conn) = path.conn() {
                self.stream_proven(conn, id);
            }
        }
    }

    fn turn(&mut self, now: Time) {
        self.fan.renew();
        self.budget = self.limits.rtc_handshake_us_per_turn / HANDSHAKE_US;
        if self.limits.simulation.happens(Site::SmallHandshakeTurn, now.as_nanos()) {
            self.budget = 1;
        }
        while self.budget > 0
            && let Some(Waiting { path, bytes }) = self.waiting.pop_front()
        {
            self.budget -= 1;
            match self.by_path.get(&path).copied() {
                Some(id) => self.give(id, path, &bytes, now),
                None => self.drops.unknown_path += 1,
            }
        }
        // Each at most once a turn, whatever its next deadline.
        let due: Vec<SessionId> = std::iter::from_fn(|| self.timers.pop_due(now)).collect();
        for id in due {
            self.with(id, now, |p| p.tick(now));
            self.line_up(id);
        }
    }
}

impl Machine for Endpoint {
    type Input<'a> = Input<'a>;
    type Output = Output;

    fn handle(&mut self, input: Input<'_>, now: Time) {
        self.now = now;
        match input {
            Input::Tick => self.turn(now),
            Input::UdpOpened { socket, max_segments } => self.socket = Some((socket, max_segments.max(1))),
            Input::Datagram { socket, local, remote, stride, bytes } => {
                let path = Path::Udp { socket, local, remote };
                for datagram in bytes.chunks(stride.max(1)) {
                    self.datagram(path, datagram, now);
                }
            }
            Input::Framed { conn, local, remote, bytes } => {
                self.framed(Path::Tcp { conn, local, remote }, bytes, now);
            }
            Input::Room { conn, free } => self.stream_room(conn, free),
            Input::Gone { conn } => self.stream_gone(conn),
            Input::Deliver { session, delivery } => self.deliver(session, delivery, now),
            Input::RequestKeyFrame { session, track } => {
                self.with(session, now, |t| t.request_key_frame(track));
            }
            Input::Goal { session, goal } => {
                self.with(session, now, |t| t.set_goal(goal, now));
            }
            Input::Say { session, text } => {
                self.with(session, now, |p| p.say(text, now));
            }
            Input::Close { session, reason } => {
                self.with(session, now, |p| p.close(reason, now));
            }
            Input::Recycle(mut batch) => {
                batch.clear();
                if self.pool.len() < POOL {
                    self.pool.push(batch);
                }
            }
        }
    }

    fn poll(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        self.fan_out();
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let batch = self.batch.take()?;
        Some(Output::Datagrams(batch))
    }

    fn deadline(&self) -> Option<Deadline> {
        let waiting = (!self.waiting.is_empty()).then(|| Deadline::new(self.now, "handshakes"));
        Deadline::earliest(Deadline::earliest(waiting, self.fan.deadline(self.now)), self.timers.next())
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
