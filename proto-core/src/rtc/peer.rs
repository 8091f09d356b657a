//! One WebRTC session on str0m: a publisher (WHIP) or a viewer (WHEP).
//!
//! What str0m still draws for itself, from a generator that is not cryptographic: SSRCs, `msid` and `cname` texts,
//! the first RTX sequence number, the ICE tie breaker. None of them is a secret. Key exchange and certificates draw
//! from the operating system.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::codecs;
use super::dtls::{Identity, Tap};
use super::egress::{Egress, Lane, Written};
use super::path::{self, Path};
use super::publisher::Publisher;
use super::sdp::{Accepted, Prepared, Wish};
use super::srtp;
use crate::error::Reason;
use crate::guard::must_here;
use crate::hub::delivery::Delivery;
use crate::io::{ConnId, Level, SocketId};
use crate::limits::Limits;
use crate::media::frame::Ingest;
use crate::media::track as media;
use crate::rand::Rng;
use crate::simulation::Bug;
use crate::time::{Deadline, Time};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m::change::SdpOffer;
use str0m::channel::{ChannelData, ChannelId};
use str0m::config::CryptoProvider;
use str0m::media::Mid;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc, RtcConfig};

/// How often a session's numbers are reported.
const STATS_INTERVAL: Duration = Duration::from_secs(5);
/// A peer that nominates another path, and was not heard on its present one for so long, has moved: its address
/// translator has forgotten it, or it has come to another network.
pub(super) const MOVED: Duration = Duration::from_secs(2);
/// Above all priorities that a peer can give its candidates (RFC 8445, 5.1.2.1).
const MOVED_PRIORITY: u32 = 1 << 31;

/// The label of the data channel on which clients of the stream-manager dialect go on signalling.
pub const SIGNAL_CHANNEL: &str = "red5pro";

/// A session's numbers since its start, where they are counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SessionStats {
    /// Bytes received, all datagrams.
    pub bytes_in: u64,
    /// Bytes sent, all datagrams.
    pub bytes_out: u64,
    /// Round-trip time, where the peer's reports tell it.
    pub rtt: Option<Duration>,
    /// Share of packets lost on the way to us since the last report, 0 to 1.
    pub loss_in: Option<f32>,
    /// Share of packets lost on the way to the peer since the last report, 0 to 1.
    pub loss_out: Option<f32>,
    /// RTP packets of a publisher given up as lost, after retransmission had its chance.
    pub packets_lost: u64,
    /// RTP packets of a publisher that came after they were given up.
    pub packets_late: u64,
    /// Packets of a publisher that had come before, or so long ago that nobody can say.
    pub packets_repeated: u64,
    /// Access units of a publisher left out because packets of theirs were lost or made no sense.
    pub frames_damaged: u64,
    /// Access units of a publisher left out because what they refer to is missing.
    pub frames_undecodable: u64,
    /// Access units of a publisher left out because they passed a limit.
    pub frames_too_large: u64,
    /// Frames not sent to a viewer: its session was not connected, does not carry the track, or waits for a key
    /// frame.
    pub frames_unsent: u64,
    /// Jumps of a publisher's timestamps.
    pub discontinuities: u64,
    /// Packets that were asked for again: by a viewer of us, by us of a publisher.
    pub nacks: u64,
    /// Key frames that were asked for, in the same ways.
    pub key_requests: u64,
    /// What a viewer's link is taken to carry, bits a second, where it was found less than what it was given.
    pub room: Option<u64>,
    /// Messages to and from data channels that were dropped: binary, too long, no room, or another channel's.
    pub messages_dropped: u64,
}

/// What a session says.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerEvent {
    /// ICE and DTLS stand; a viewer may be sent frames from now on.
    Connected {
        /// Where the peer is.
        remote: SocketAddr,
        /// The SRTP profile that both agreed on, as IANA names it.
        srtp: &'static str,
    },
    /// The peer proved that this path is its own, for the first time, or chose it.
    Path {
        /// The path.
        path: Path,
        /// It chose it.
        nominated: bool,
    },
    /// A publisher's media.
    Media(Ingest),
    /// A viewer asks for a key frame.
    KeyFrameWanted,
    /// What a viewer's link carries, bits a second; `None`: more than was tried.
    Room(Option<u64>),
    /// The peer's channel for signalling ([`SIGNAL_CHANNEL`]) is open.
    ChannelOpened,
    /// A message on that channel.
    ChannelText(String),
    /// That channel was closed.
    ChannelClosed,
    /// Numbers, every few seconds.
    Stats(SessionStats),
    /// The session is over; nothing follows.
    Closed(Reason),
    /// A line for the operator.
    Log(Level, String),
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A check with our password: its path is the peer's.
    Authentic,
    /// Taken.
    Taken,
    /// Broken, or a check without our password.
    Unauthentic,
    /// Not STUN, and from an address without a check that succeeded.
    NoSuchPath,
    /// The session has as many addresses as it may.
    TooManyPaths,
    /// The peer has not answered our offer yet; it will ask again.
    TooEarly,
}

/// A datagram that leaves, and by which way.
pub(super) type Sent = (Path, Vec<u8>);

#[derive(Debug)]
enum Role {
    Publisher(Box<Publisher>),
    Viewer(Box<Egress>),
}

pub(super) struct Peer {
    rtc: Rtc,
    role: Role,
    base: Instant,
    limits: Arc<Limits>,
    crypto: Arc<CryptoProvider>,
    password: String,
    candidates: Vec<SocketAddr>,
    tcp_candidates: Vec<SocketAddr>,
    /// The socket of our UDP candidates, as soon as something came to it.
    socket: SocketId,
    /// The TCP connections on which its checks came.
    streams: Vec<Path>,
    /// (peer, our candidate, the address that was really asked), where the two differ: behind NAT, or advertised.
    aliases: Vec<(SocketAddr, SocketAddr, SocketAddr)>,
    rtc_deadline: Time,
    opened: Time,
    heard: Time,
    connected: bool,
    closing: Option<Reason>,
    closed: bool,
    remote: Option<SocketAddr>,
    /// The path that the peer nominated: its end of it, and when it was last heard there.
    nominated: Option<(Path, Time)>,
    /// How often the peer moved.
    moves: u16,
    /// The ends of paths that the peer has proven.
    proven: Vec<Path>,
    /// NACKs and key-frame requests so far, by media section.
    asked: Vec<(Mid, u64, u64)>,
    /// The peer began ICE anew: the next path that it nominates is taken at once.
    restarted: bool,
    /// The offer was ours, and the peer has not answered yet.
    unanswered: bool,
    /// The peer's data channel for signalling.
    channel: Option<ChannelId>,
    tap: Tap,
    /// The path on which the peer's media came last; what it is told of it goes there.
    media: Option<Path>,
    stats: SessionStats,
    pub(super) sent: VecDeque<Sent>,
    pub(super) events: VecDeque<PeerEvent>,
    #[cfg(test)]
    pub(super) explode: bool,
}

/// What a new session needs.
pub(super) struct Setup<'a> {
    pub(super) prepared: &'a Prepared,
    pub(super) wish: Wish,
    pub(super) identity: &'a Identity,
    pub(super) limits: Arc<Limits>,
    pub(super) candidates: &'a [SocketAddr],
    /// The ports on which we wait for TCP connections, at the hosts of the candidates.
    pub(super) tcp_ports: &'a [u16],
    pub(super) creds: IceCreds,
    pub(super) base: Instant,
    pub(super) now: Time,
    /// The offer is ours; the prepared one is that of an imagined peer.
    pub(super) offered: bool,
}

pub(super) fn instant(base: Instant, now: Time) -> Instant {
    base.checked_add(Duration::from_nanos(now.as_nanos())).unwrap_or(base)
}

impl Peer {
    /// Opens a session and answers the offer (in str0m's words; [`Prepared::answer`] makes it the peer's).
    pub(super) fn open(setup: Setup<'_>, rng: &mut Rng) -> Result<(Peer, String), Reason> {
        let Setup { prepared, wish, identity, limits, candidates, tcp_ports, creds, base, now, offered } =
            setup;
        let password = creds.pass.clone();
        let mut config = RtcConfig::new()
            .set_crypto_provider(identity.crypto().clone())
            .set_local_ice_credentials(creds)
            .set_ice_lite(true)
            .set_rtp_mode(true)
            .clear_codecs()
            .set_extension_map(codecs::extensions(wish, !prepared.layers.is_empty()))
            .set_sctp_max_buffered_amount(limits.rtc_channel_bytes)
            .set_stats_interval(Some(STATS_INTERVAL));
        codecs::configure(config.codec_config(), prepared);
        let begin = |certificate| config.set_dtls_cert(certificate).build(instant(base, now));
        let (mut rtc, tap) = identity.tapped(begin);
        for candidate in path::candidates(candidates, tcp_ports)? {
            rtc.add_local_candidate(candidate);
        }
        let refused = |e: String| Reason::peer("bad_sdp", format!("the SDP offer cannot be answered: {e}"));
        let offer = SdpOffer::from_sdp_string(&prepared.offer).map_err(|e| refused(e.to_string()))?;
        let answer = rtc.sdp_api().accept_offer(offer).map_err(|e| refused(e.to_string()))?;
        let lane = |mid: &Option<String>, codec: Option<media::Codec>| {
            let (mid, codec) = (Mid::from(mid.as_deref()?), codec?);
            let taken = rtc.media(mid)?.remote_pts();
            let (spoken, rate) = (codecs::of_str0m(codec), codecs::payload_format(codec)?.clock_rate());
            let params = rtc.codec_config().params();
            let pt = params.iter().find(|p| p.spec().codec == spoken && taken.contains(&p.pt()))?;
            Some(Lane { mid, pt: pt.pt(), codec, rate })
        };
        let video = lane(&prepared.video_mid, prepared.video.first().map(|f| f.codec));
        let audio = lane(&prepared.audio_mid, prepared.audio.map(|f| f.codec));
        if video.is_none() && (prepared.video_mid.is_some() || audio.is_none()) {
            return Err(Reason::peer(
                "no_common_codec",
                "none of the offered profiles of the codec is one that is known here (H.264: Baseline, Main, High)",
            ));
        }
        let role = match wish {
            Wish::Publish => Role::Publisher(Box::new(Publisher::new(prepared, &limits, rng))),
            Wish::Play { .. } => {
                if let Some(lane) = video {
                    let cap = limits.rtx_percent as f32 / 100.0;
                    if let Some(stream) = rtc.direct_api().stream_tx_by_mid(lane.mid, None) {
                        let age = Duration::from_millis(limits.rtc_rtx_ms);
                        stream.set_rtx_cache(limits.rtc_rtx_packets, age, Some(cap));
                    }
                }
                Role::Viewer(Box::new(Egress::new(video, audio, rng)))
            }
        };
        let peer = Peer {
            rtc,
            role,
            base,
            limits,
            crypto: identity.crypto().clone(),
            password,
            candidates: candidates.to_vec(),
            tcp_candidates: path::tcp_addresses(candidates, tcp_ports),
            socket: SocketId(0),
            streams: Vec::new(),
            aliases: Vec::new(),
            rtc_deadline: now,
            opened: now,
            heard: now,
            connected: false,
            closing: None,
            closed: false,
            remote: None,
            nominated: None,
            proven: Vec::new(),
            asked: Vec::new(),
            moves: 0,
            restarted: false,
            unanswered: offered,
            channel: None,
            tap,
            media: None,
            stats: SessionStats::default(),
            sent: VecDeque::new(),
            events: VecDeque::new(),
            #[cfg(test)]
            explode: false,
        };
        Ok((peer, answer.to_sdp_string()))
    }

    pub(super) fn connected(&self) -> bool {
        self.connected
    }

    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    /// When anything authenticated came last.
    pub(super) fn heard(&self) -> Time {
        self.heard
    }

    /// The candidate under which str0m knows the address that a peer sends to.
    fn candidate_for(&mut self, path: &Path) -> Option<SocketAddr> {
        let (remote, local) = (path.remote(), path.local());
        let ours = match path {
            Path::Udp { .. } => &self.candidates,
            Path::Tcp { .. } => &self.tcp_candidates,
        };
        if ours.contains(&local) {
            return Some(local);
        }
        let candidate = *ours.iter().find(|c| c.is_ipv4() == local.is_ipv4())?;
        if path.conn().is_none() && !self.aliases.contains(&(remote, candidate, local)) {
            self.aliases.retain(|(r, c, _)| (*r, *c) != (remote, candidate));
            if self.aliases.len() >= self.limits.sdp_candidates {
                self.aliases.remove(0);
            }
            self.aliases.push((remote, candidate, local));
        }
        Some(candidate)
    }

    /// Remembers how the peer is reached where str0m's answers go.
    fn learn(&mut self, path: Path) {
        match path {
            Path::Udp { socket, .. } => self.socket = socket,
            Path::Tcp { .. } if self.streams.contains(&path) => {}
            Path::Tcp { .. } => {
                self.streams.retain(|p| p.remote() != path.remote());
                if self.streams.len() >= self.limits.sdp_candidates {
                    self.streams.remove(0);
                }
                self.streams.push(path);
            }
        }
    }

    /// The TCP connection that the peer chose as its path, if it is one.
    pub(super) fn over(&self) -> Option<ConnId> {
        self.nominated.and_then(|(path, _)| path.conn())
    }

    /// A TCP connection of the peer's is gone: the next path that it chooses is taken at once.
    pub(super) fn lost(&mut self, conn: ConnId) {
        self.streams.retain(|p| p.conn() != Some(conn));
        self.restarted |= self.over() == Some(conn);
    }

    /// A frame was left out, because the peer's connection is behind.
    pub(super) fn left_out(&mut self) {
        self.stats.frames_unsent += 1;
    }

    /// Takes a STUN message whose user name is ours.
    pub(super) fn check(&mut self, path: Path, room: bool, datagram: &[u8], now: Time) -> Verdict {
        let hmac = |key: &[u8], parts: &[&[u8]]| self.crypto.sha1_hmac_provider.sha1_hmac(key, parts);
        let check = is::stun::StunMessage::parse(datagram)
            .ok()
            .filter(|m| m.is_binding_request() && m.verify(self.password.as_bytes(), hmac));
        let Some(check) = check else { return Verdict::Unauthentic };
        if !room {
            return Verdict::TooManyPaths;
        }
        if self.unanswered {
            return Verdict::TooEarly;
        }
        self.heard = now;
        self.stats.bytes_in += datagram.len() as u64;
        let Some(candidate) = self.candidate_for(&path) else { return Verdict::NoSuchPath };
        match Receive::new(path.protocol(), path.remote(), candidate, datagram) {
            Ok(receive) => {
                let nominates = check.use_candidate();
                self.learn(path);
                self.input(Input::Receive(instant(self.base, now), receive));
                if !self.proven.iter().any(|p| p.same_end(&path))
                    && self.proven.len() < self.limits.sdp_candidates
                {
                    self.proven.push(path);
                    self.events.push_back(PeerEvent::Path { path, nominated: false });
                }
                let chosen = |p: &Peer| p.nominated.is_some_and(|(there, _)| there.same_end(&path));
                let before = chosen(self);
                self.heard_on(path, nominates, now);
                if nominates && !before && chosen(self) {
                    self.events.push_back(PeerEvent::Path { path, nominated: true });
                }
                Verdict::Authentic
            }
            Err(_) => Verdict::Unauthentic,
        }
    }

    /// Follows a peer that has moved. str0m alone would send to its old address until that path has had no check for
    /// 15 s, because a nomination counts for it only if its priority is higher than that of the one before.
    fn heard_on(&mut self, path: Path, nominates: bool, now: Time) {
        let remote = path.remote();
        match &mut self.nominated {
            Some((there, heard)) if there.same_end(&path) => *heard = now,
            Some((there, heard))
                if nominates
                    && (self.restarted || now.since(*heard) >= MOVED)
                    && usize::from(self.moves) < self.limits.sdp_candidates =>
            {
                (*there, *heard) = (path, now);
                self.restarted = false;
                self.moves += 1;
                let (n, ip, port) = (self.moves, remote.ip(), remote.port());
                let priority = MOVED_PRIORITY + u32::from(n);
                // The related port is never looked at; it makes a candidate that comes again another one.
                let how = if path.conn().is_some() { "tcp" } else { "udp" };
                let text = format!(
                    "candidate:moved{n} 1 {how} {priority} {ip} {port} typ srflx raddr {ip} rport {n}"
                );
                if let Ok(candidate) = Candidate::from_sdp_string(&text) {
                    self.rtc.add_remote_candidate(candidate);
                    self.input(Input::Timeout(instant(self.base, now)));
                }
            }
            None if nominates => self.nominated = Some((path, now)),
            _ => {}
        }
    }

    /// Takes DTLS, RTP or RTCP from a path that the peer has proven to be its own.
    pub(super) fn datagram(&mut self, path: Path, datagram: &[u8], now: Time) -> Verdict {
        #[cfg(test)]
        assert!(!self.explode, "told to");
        let Some(candidate) = self.candidate_for(&path) else { return Verdict::NoSuchPath };
        let Ok(receive) = Receive::new(path.protocol(), path.remote(), candidate, datagram) else {
            return Verdict::Unauthentic;
        };
        let input = Input::Receive(instant(self.base, now), receive);
        if !self.rtc.accepts(&input) {
            return Verdict::NoSuchPath;
        }
        self.remote = Some(path.remote());
        self.heard_on(path, false, now);
        self.stats.bytes_in += datagram.len() as u64;
        // Media of a publisher is ours; what comes of it before there are keys is nobody's.
        if let Role::Publisher(publisher) = &mut self.role
            && datagram.first().is_some_and(|first| first >> 6 == 2)
        {
            if !self.connected || !publisher.datagram(datagram, now, &mut self.stats) {
                return Verdict::Unauthentic;
            }
            self.heard = now;
            self.media = Some(path);
            return Verdict::Taken;
        }
        self.input(input);
        Verdict::Taken
    }

    /// Takes the peer's answer to our offer.
    pub(super) fn answered(&mut self, answer: Accepted) -> Result<(), Reason> {
        if !std::mem::replace(&mut self.unanswered, false) {
            return Err(Reason::peer("answered_already", "this session has its answer already"));
        }
        if let Role::Viewer(egress) = &mut self.role
            && !egress.keep(&answer.mids)
        {
            return Err(Reason::peer(
                "bad_sdp",
                "the SDP answer takes neither the sound nor the pictures of the offer",
            ));
        }
        let Ok(print) = answer.fingerprint.parse() else {
            return Err(Reason::peer("bad_sdp", "the fingerprint of the SDP answer cannot be read"));
        };
        let mut api = self.rtc.direct_api();
        api.set_remote_fingerprint(print);
        api.set_remote_ice_credentials(IceCreds { ufrag: answer.ufrag, pass: answer.pwd });
        Ok(())
    }

    /// Begins ICE anew (RFC 8445, 2.4): `ours` and `theirs` are the credentials from now on. What flows goes on until the
    /// peer nominates a path.
    pub(super) fn restart(&mut self, ours: IceCreds, theirs: IceCreds) {
        self.password.clone_from(&ours.pass);
        self.restarted = true;
        let mut api = self.rtc.direct_api();
        api.set_local_ice_credentials(ours);
        api.set_remote_ice_credentials(theirs);
    }

    /// Sends a message on the data channel for signalling. Whether it was taken.
    pub(super) fn say(&mut self, text: &str, now: Time) -> bool {
        let channel = self.channel.and_then(|id| self.rtc.channel(id));
        let taken = channel.is_some_and(|mut c| c.write(false, text.as_bytes()).unwrap_or(false));
        if taken {
            self.input(Input::Timeout(instant(self.base, now)));
        } else {
            self.stats.messages_dropped += 1;
        }
        taken
    }

    fn message(&mut self, data: ChannelData) {
        let fits = !data.binary && data.data.len() <= self.limits.ws_message_bytes;
        match String::from_utf8(data.data) {
            Ok(text) if fits && Some(data.id) == self.channel => {
                self.events.push_back(PeerEvent::ChannelText(text));
            }
            _ => self.stats.messages_dropped += 1,
        }
    }

    fn input(&mut self, input: Input<'_>) {
        if let Err(e) = self.rtc.handle_input(input) {
            self.fail(&e);
        }
    }

    fn fail(&mut self, error: &str0m::RtcError) {
        self.closing.get_or_insert_with(|| {
            Reason::peer("webrtc_error", format!("the WebRTC session broke: {error}"))
        });
        self.closed = true;
    }

    /// Sends what the hub delivers.
    pub(super) fn deliver(&mut self, delivery: &Delivery, now: Time) {
        let Role::Viewer(egress) = &mut self.role else { return };
        match delivery {
            Delivery::Config { track, config } => {
                egress.config(*track, config.clone());
            }
            Delivery::Frame { frame, pts, .. } => {
                if !self.connected || self.closing.is_some() {
                    self.stats.frames_unsent += 1;
                    return;
                }
                let at = instant(self.base, now);
                match egress.write(&mut self.rtc, frame, *pts, at) {
                    Written::Packets(_) => self.input(Input::Timeout(at)),
                    Written::NoTrack | Written::BeforeKey => self.stats.frames_unsent += 1,
                }
            }
        }
    }

    /// Asks a publisher for a key frame of this track or of all, as soon as the limit on such requests allows.
    pub(super) fn request_key_frame(&mut self, track: Option<media::TrackId>) {
        if let Role::Publisher(publisher) = &mut self.role {
            publisher.want_key(track);
        }
    }

    /// Ends the session: says goodbye, then `Closed`.
    pub(super) fn close(&mut self, reason: Reason) {
        self.closing.get_or_insert(reason);
        if self.rtc.close().is_err() {
            self.closed = true;
        }
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Time) {
        let limits = &self.limits;
        if !self.connected && now.since(self.opened).as_millis() as u64 >= limits.rtc_handshake_ms {
            self.closing.get_or_insert(handshake_timeout(limits, self.heard > self.opened));
            self.closed = true;
        } else if !self.consent(now) && self.rtc_deadline <= now {
            self.input(Input::Timeout(instant(self.base, now)));
        }
    }

    /// RFC 7675: whom nothing was heard of for so long is sent nothing more. Answers whether the session is over by that.
    fn consent(&mut self, now: Time) -> bool {
        let limits = &self.limits;
        let over = now.since(self.heard).as_millis() as u64 >= limits.rtc_consent_ms
            && !limits.simulation.planted(Bug::ConsentIgnored);
        if over && !self.closed {
            self.closing.get_or_insert(silent(limits));
            self.closed = true;
        }
        over
    }

    /// Takes everything out of str0m. Called after every input.
    pub(super) fn drain(&mut self, now: Time) {
        // Whatever woke it: after a long sleep a frame may come before the timer does.
        self.consent(now);
        self.drain_rtc(now);
        if let Role::Publisher(publisher) = &mut self.role {
            publisher.run(now, &mut self.stats, &mut self.events);
            if self.closing.is_none() {
                publisher.tell(now);
            }
            for packet in publisher.intake.out.drain(..) {
                if let Some(path) = self.media {
                    self.stats.bytes_out += packet.len() as u64;
                    self.sent.push_back((path, packet));
                }
            }
        }
        if self.closed
            && let Some(reason) = &self.closing
        {
            if self.stats != SessionStats::default() {
                self.events.push_back(PeerEvent::Stats(self.stats));
            }
            self.events.push_back(PeerEvent::Closed(reason.clone()));
        }
    }

    fn drain_rtc(&mut self, now: Time) {
        while !self.closed {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.rtc_deadline =
                        Time::from_nanos(at.saturating_duration_since(self.base).as_nanos() as u64);
                    // By now the goodbyes have left, whether or not the peer answers them.
                    self.closed = self.closing.is_some() || !self.rtc.is_alive();
                    if self.closed {
                        self.closing.get_or_insert_with(peer_closed);
                    }
                    return;
                }
                Ok(Output::Transmit(t)) => {
                    let path = if t.proto == Protocol::Tcp {
                        self.streams.iter().find(|p| p.remote() == t.destination).copied()
                    } else {
                        let alias =
                            self.aliases.iter().find(|(r, c, _)| (*r, *c) == (t.destination, t.source));
                        let local = alias.map_or(t.source, |(_, _, local)| *local);
                        Some(Path::Udp { socket: self.socket, local, remote: t.destination })
                    };
                    // Without its connection it is lost, as on any network.
                    if let Some(path) = path {
                        self.stats.bytes_out += t.contents.len() as u64;
                        // RTP and RTCP (RFC 7983, 7).
                        if matches!(t.contents.first(), Some(128..=191)) {
                            self.may_send_media(t.destination, now);
                        }
                        self.sent.push_back((path, t.contents.into()));
                    }
                }
                Ok(Output::Event(event)) => self.event(event, now),
                Err(e) => self.fail(&e),
            }
        }
    }

    /// S9, asserted before media leaves: ICE and DTLS have come to their end, and consent was renewed.
    fn may_send_media(&self, to: SocketAddr, now: Time) {
        let silent = now.since(self.heard);
        let fresh = silent < Duration::from_millis(self.limits.rtc_consent_ms);
        must_here(self.limits.simulation, self.connected && fresh, "S9", || {
            let ms = silent.as_millis();
            format!("media for {to}, whose path stands: {}, and which was heard {ms} ms ago", self.connected)
        });
    }

    fn event(&mut self, event: Event, now: Time) {
        match event {
            Event::Connected => {
                self.connected = true;
                self.heard = now;
                let srtp = self.take_keys();
                if let Some(remote) = self.remote {
                    self.events.push_back(PeerEvent::Connected { remote, srtp });
                }
            }
            Event::KeyframeRequest(_) => {
                self.heard = now;
                self.events.push_back(PeerEvent::KeyFrameWanted);
            }
            Event::MediaEgressStats(s) => {
                // Not a sign of life: it may tell of reports that came long ago.
                self.stats.loss_out = s.loss.or(self.stats.loss_out);
                self.stats.rtt = s.rtt.or(self.stats.rtt);
                self.asked_for(s.mid, s.nacks, s.plis + s.firs);
            }
            Event::PeerStats(s) => {
                self.stats.rtt = s.rtt.or(self.stats.rtt);
                if let Role::Publisher(publisher) = &self.role {
                    let intake = &publisher.intake;
                    self.stats.loss_in = intake.loss;
                    self.stats.rtt = intake.rtt().or(self.stats.rtt);
                    (self.stats.nacks, self.stats.key_requests) = (intake.nacks, intake.key_requests);
                }
                self.events.push_back(PeerEvent::Stats(self.stats));
            }
            Event::ChannelOpen(id, label) if label == SIGNAL_CHANNEL && self.channel.is_none() => {
                self.channel = Some(id);
                self.events.push_back(PeerEvent::ChannelOpened);
            }
            Event::ChannelData(data) => {
                self.heard = now;
                self.message(data);
            }
            Event::ChannelClose(id) if self.channel == Some(id) => {
                self.channel = None;
                self.events.push_back(PeerEvent::ChannelClosed);
            }
            Event::Closed => {
                self.closing.get_or_insert_with(peer_closed);
            }
            _ => {}
        }
    }

    /// DTLS stands, and the peer has shown the certificate of its offer: str0m says that it is connected after it has looked.
    fn take_keys(&mut self) -> &'static str {
        let taken = match (self.tap.take(), &mut self.role) {
            (Some(e), Role::Publisher(publisher)) => {
                let taken = publisher.intake.keys(&e.material, e.profile, e.client, &self.crypto);
                taken.map(|()| srtp::profile_name(e.profile))
            }
            // Of a viewer's media str0m sees to itself.
            (Some(e), _) => Ok(srtp::profile_name(e.profile)),
            (None, Role::Publisher(_)) => Err(Reason::local("srtp_keys", "the DTLS handshake left no keys")),
            (None, _) => Ok("none"),
        };
        taken.unwrap_or_else(|reason| {
            self.closing.get_or_insert(reason);
            self.closed = true;
            "none"
        })
    }

    /// What str0m counted for a media section so far.
    fn asked_for(&mut self, mid: Mid, nacks: u64, keys: u64) {
        let room = self.asked.len() < self.limits.sdp_sections;
        match self.asked.iter_mut().find(|(known, ..)| *known == mid) {
            Some(entry) => *entry = (mid, nacks, keys),
            None if room => self.asked.push((mid, nacks, keys)),
            None => {}
        }
        self.stats.nacks = self.asked.iter().map(|(_, n, _)| n).sum();
        self.stats.key_requests = self.asked.iter().map(|(.., n)| n).sum();
    }

    /// When time alone changes something, and why.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        let consent = self.heard + Duration::from_millis(self.limits.rtc_consent_ms);
        let mut next = Some(Deadline::new(self.rtc_deadline, "webrtc"));
        if !self.limits.simulation.planted(Bug::ConsentIgnored) {
            next = Deadline::earliest(next, Some(Deadline::new(consent, "consent")));
        }
        if !self.connected {
            let end = self.opened + Duration::from_millis(self.limits.rtc_handshake_ms);
            next = Deadline::earliest(next, Some(Deadline::new(end, "handshake")));
        }
        if let Role::Publisher(publisher) = &self.role {
            next = Deadline::earliest(next, publisher.deadline());
        }
        next
    }

    /// What sends to a viewer.
    pub(super) fn egress(&mut self) -> Option<&mut Egress> {
        match &mut self.role {
            Role::Viewer(egress) => Some(egress),
            Role::Publisher(_) => None,
        }
    }
}

pub(super) fn handshake_timeout(limits: &Limits, heard: bool) -> Reason {
    let heard = if heard {
        "ICE reached this node, but DTLS did not finish; a firewall may let small datagrams through only"
    } else {
        "no ICE check arrived; is the UDP port open, and are the advertised addresses right?"
    };
    let text = format!("the peer did not connect within {} s: {heard}", limits.rtc_handshake_ms / 1000);
    Reason::limit("handshake_timeout", text)
}

pub(super) fn silent(limits: &Limits) -> Reason {
    let text = format!(
        "nothing authenticated came from the peer for {} s: it is gone, or its network is",
        limits.rtc_consent_ms / 1000
    );
    Reason::peer("silent", text)
}

pub(super) fn peer_closed() -> Reason {
    Reason::peer("peer_closed", "the peer ended the WebRTC session")
}
