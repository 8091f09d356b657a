//! RTSP: what its connections say, and their datagrams.
//!
//! A few pairs of UDP ports serve all sessions. A packet is known by the pair that it comes to and its source. Tracks of
//! one client address get different pairs as long as there are any, so that an address translator, which gives packets
//! other ports than the client announced, can be followed: the first packet of an unknown port from that address can only
//! be the one track that waits on this pair.

use super::Node;
use super::authority::Asker;
use super::conns::{Conn, Proto};
use super::elsewhere::Wish;
use super::remote;
use super::session::{Carrier, Part, SessionId};
use crate::auth::secret::Secret;
use crate::cluster::manager::Action;
use crate::error::Reason;
use crate::guard::guard;
use crate::hub::delivery::Delivery;
use crate::hub::{CodecSet, Pace, StreamId};
use crate::io::{Batch, ConnId, Level, Output, SocketId};
use crate::machine::Machine;
use crate::media::track::{CodecConfig, Origin};
use crate::rtsp;
use crate::rtsp::Burst;
use crate::rtsp::digest::{self, Authorization, DigestAnswer};
use crate::rtsp::server::{Input, Output as Said, Shown};
use crate::time::Time;
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The first socket of RTSP; RTP and RTCP of a pair follow each other.
const FIRST_SOCKET: u32 = 16;
/// A track is followed to another port of its client's address once it was silent for so long: two RTCP intervals.
const MOVES_AFTER: Duration = Duration::from_secs(10);
/// Empty batches that are kept for reuse.
const SPARE: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Socket {
    port: u16,
    max_segments: usize,
    open: bool,
}

/// Where one half of a lane, RTP or RTCP, is.
#[derive(Clone, Copy, Debug)]
struct Half {
    socket: SocketId,
    peer: SocketAddr,
    heard: Option<Time>,
}

/// The UDP ports of RTSP, and whose packets come and go there.
#[derive(Debug, Default)]
pub(super) struct Udp {
    sockets: BTreeMap<SocketId, Socket>,
    /// By connection and lane: RTP, RTCP, and the address of ours that the client dialled.
    lanes: BTreeMap<(ConnId, usize), ([Half; 2], Option<IpAddr>)>,
    by_source: BTreeMap<(SocketId, SocketAddr), (ConnId, usize)>,
    batches: BTreeMap<SocketId, Box<Batch>>,
    // They travel boxed, and boxing anew is the cost that this saves.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Batch>>,
}

impl Udp {
    pub(super) fn opened(&mut self, socket: SocketId, max_segments: usize) {
        if let Some(s) = self.sockets.get_mut(&socket) {
            s.open = true;
            s.max_segments = max_segments.max(1);
        }
    }

    pub(super) fn recycle(&mut self, mut batch: Box<Batch>) {
        if self.spare.len() < SPARE {
            batch.clear();
            self.spare.push(batch);
        }
    }

    /// Takes a pair for a lane whose packets come from these ports. Answers our ports.
    fn take(
        &mut self,
        conn: ConnId,
        lane: usize,
        peer: IpAddr,
        ports: (u16, u16),
        local: Option<IpAddr>,
    ) -> Option<(u16, u16)> {
        let peers = [SocketAddr::new(peer, ports.0), SocketAddr::new(peer, ports.1)];
        let mut best = None;
        for (&rtp, socket) in self.sockets.iter().filter(|(id, _)| id.0 % 2 == FIRST_SOCKET % 2) {
            let rtcp = SocketId(rtp.0 + 1);
            let Some(second) = self.sockets.get(&rtcp).filter(|s| s.open && socket.open) else { continue };
            let [a, b] = peers;
            if self.by_source.contains_key(&(rtp, a)) || self.by_source.contains_key(&(rtcp, b)) {
                continue;
            }
            let used = self.lanes.values().filter(|([h, _], _)| h.socket == rtp);
            let (same, all) = used.fold((0u32, 0u32), |(same, all), ([h, _], _)| {
                (same + u32::from(h.peer.ip() == peer), all + 1)
            });
            let rank = (same, all, rtp);
            if best.is_none_or(|(r, _)| rank < r) {
                best = Some((rank, (socket.port, second.port)));
            }
        }
        let ((.., rtp), ours) = best?;
        let [a, b] = peers;
        let half = |socket, peer| Half { socket, peer, heard: None };
        let rtcp = SocketId(rtp.0 + 1);
        self.lanes.insert((conn, lane), ([half(rtp, a), half(rtcp, b)], local));
        self.by_source.insert((rtp, a), (conn, lane));
        self.by_source.insert((rtcp, b), (conn, lane));
        Some(ours)
    }

    /// Learns the ports of a peer that was granted its lane before they were known.
    fn set_peer(&mut self, key: (ConnId, usize), ports: (u16, u16)) {
        let Some((halves, _)) = self.lanes.get_mut(&key) else { return };
        for (h, port) in halves.iter_mut().zip([ports.0, ports.1]) {
            let peer = SocketAddr::new(h.peer.ip(), port);
            if h.heard.is_none() && port != 0 && !self.by_source.contains_key(&(h.socket, peer)) {
                self.by_source.remove(&(h.socket, h.peer));
                h.peer = peer;
                self.by_source.insert((h.socket, peer), key);
            }
        }
    }

    fn release(&mut self, conn: ConnId) {
        let lanes: Vec<_> = self.lanes.range((conn, 0)..=(conn, usize::MAX)).map(|(k, _)| *k).collect();
        for key in lanes {
            if let Some((halves, _)) = self.lanes.remove(&key) {
                for h in halves {
                    self.by_source.remove(&(h.socket, h.peer));
                }
            }
        }
    }

    /// Whose packet this is. Follows a client to the port that its address translator gave it.
    fn owner(&mut self, socket: SocketId, remote: SocketAddr, now: Time) -> Option<(ConnId, usize, bool)> {
        let half = usize::try_from((socket.0 - FIRST_SOCKET) % 2).ok()?;
        let key = match self.by_source.get(&(socket, remote)) {
            Some(key) => *key,
            None => {
                let key = self.waiting(socket, half, remote.ip(), now)?;
                let h = self.lanes.get_mut(&key)?.0.get_mut(half)?;
                let before = std::mem::replace(&mut h.peer, remote);
                self.by_source.remove(&(socket, before));
                self.by_source.insert((socket, remote), key);
                key
            }
        };
        if let Some(h) = self.lanes.get_mut(&key).and_then(|(halves, _)| halves.get_mut(half)) {
            h.heard = Some(now);
        }
        Some((key.0, key.1, half == 1))
    }

    /// The one lane that a packet of an unknown port of this address can be of: one that was never heard, else one that
    /// has been silent (a client that comes again has its old lanes beside the new ones for a while).
    fn waiting(&self, socket: SocketId, half: usize, ip: IpAddr, now: Time) -> Option<(ConnId, usize)> {
        let of = |silent: bool| {
            let fits = move |h: &&Half| {
                let waits = match h.heard {
                    None => !silent,
                    Some(at) => silent && now.since(at) >= MOVES_AFTER,
                };
                waits && h.socket == socket && h.peer.ip() == ip
            };
            let mut all =
                self.lanes.iter().filter(move |(_, (halves, _))| halves.get(half).filter(fits).is_some());
            let first = all.next();
            first.map(|(key, _)| (*key, all.next().is_none()))
        };
        let (key, alone) = of(false).or_else(|| of(true))?;
        alone.then_some(key)
    }

    /// Has `write` append datagrams for one half of a lane: each in parts, to be handed to the function that it is given.
    /// Answers the bytes appended; `None`: there is no such lane.
    fn put(
        &mut self,
        (conn, lane, rtcp): (ConnId, usize, bool),
        write: impl FnOnce(&mut dyn FnMut(&[&[u8]])),
    ) -> Option<usize> {
        let (halves, local) = self.lanes.get(&(conn, lane))?;
        let half = halves.get(usize::from(rtcp))?;
        if half.peer.port() == 0 {
            // A server has not said yet where it takes them.
            return Some(0);
        }
        let max_segments = self.sockets.get(&half.socket).map_or(1, |s| s.max_segments);
        let spare = &mut self.spare;
        let batch = self.batches.entry(half.socket).or_insert_with(|| match spare.pop() {
            Some(mut batch) => {
                batch.socket = half.socket;
                batch
            }
            None => Box::new(Batch::new(half.socket)),
        });
        let before = batch.buf.len();
        write(&mut |parts| {
            let start = batch.buf.len();
            parts.iter().for_each(|part| batch.buf.extend_from_slice(part));
            batch.commit(*local, half.peer, start, max_segments);
        });
        Some(batch.buf.len() - before)
    }
}

impl Node {
    pub(super) fn open_rtsp_udp(&mut self) {
        let pairs: Vec<_> = self.config.rtsp_udp_pairs().collect();
        let ids = (0..).map(|n| SocketId(FIRST_SOCKET + n));
        for (socket, port) in ids.zip(pairs.into_iter().flat_map(|(a, b)| [a, b])) {
            self.rtsp_udp.sockets.insert(socket, Socket { port, ..Socket::default() });
            let bind = SocketAddr::new(self.config.bind, port);
            self.out.push_back(Output::OpenUdp { socket, bind });
        }
    }

    pub(super) fn rtsp_udp_failed(&mut self, socket: SocketId, reason: &Reason) {
        let Some(s) = self.rtsp_udp.sockets.remove(&socket) else { return };
        let text = format!(
            "cannot open udp {} for RTSP media (rtsp.udp_port): {}; clients that ask for it are told to use TCP",
            s.port, reason.text
        );
        self.log(Level::Warn, "rtsp", "udp_bind", text);
    }

    pub(super) fn rtsp_datagrams(
        &mut self,
        socket: SocketId,
        remote: SocketAddr,
        stride: usize,
        bytes: &[u8],
    ) {
        let Some((conn, lane, rtcp)) = self.rtsp_udp.owner(socket, remote, self.now) else {
            let n = bytes.len().div_ceil(stride.max(1)) as u64;
            return self.counters.drop("datagram", "rtsp_unknown_source", n);
        };
        for datagram in bytes.chunks(stride.max(1)) {
            if conn.is_dialled() {
                self.tell_remote(conn, remote::Input::Datagram { lane, rtcp, bytes: datagram });
            } else {
                self.tell_rtsp(conn, Input::Datagram { lane, rtcp, bytes: datagram });
            }
        }
    }

    pub(super) fn send_rtsp_batches(&mut self) {
        while let Some((_, batch)) = self.rtsp_udp.batches.pop_first() {
            self.send_batch(batch);
        }
    }

    /// Hands a node's word to the RTSP machine of a connection, if one speaks there.
    pub(super) fn tell_rtsp(&mut self, id: ConnId, input: Input<'_>) {
        let now = self.now;
        let Some(Conn { proto: Proto::Rtsp(m), explained, .. }) = self.conns.get_mut(&id) else { return };
        *explained |= matches!(
            input,
            Input::PublishRefused(_)
                | Input::PlayRefused(_)
                | Input::Elsewhere(_)
                | Input::StreamEnded(_)
                | Input::Close(_)
        );
        match guard(|| m.handle(input, now)) {
            Ok(()) => {
                self.dirty_conns.insert(id);
            }
            Err(reason) => self.end_conn(id, reason, Some(true)),
        }
    }

    /// Sends a datagram of a lane.
    pub(super) fn put_rtsp_datagram(&mut self, id: ConnId, lane: usize, rtcp: bool, bytes: &Bytes) {
        let put = self.rtsp_udp.put((id, lane, rtcp), |put| put(&[bytes]));
        self.put_rtsp(id, put, 1);
    }

    /// Sends the packets of a frame.
    pub(super) fn put_rtsp_burst(&mut self, id: ConnId, lane: usize, burst: &Burst) {
        let put = self.rtsp_udp.put((id, lane, false), |put| {
            burst.packets().for_each(|(head, payload)| put(&[&head, payload]));
        });
        self.put_rtsp(id, put, burst.count() as u64);
    }

    fn put_rtsp(&mut self, id: ConnId, put: Option<usize>, datagrams: u64) {
        let Some(bytes) = put else { return self.counters.drop("datagram", "rtsp_no_lane", datagrams) };
        if let Some(s) = self.sessions.on(Carrier::Conn(id)).and_then(|s| self.sessions.get_mut(s)) {
            s.bytes_out += bytes as u64;
        }
    }

    /// Takes a pair of ports for a lane of a server, whose own ports are not known yet.
    pub(super) fn take_rtsp_ports(&mut self, id: ConnId, lane: usize) -> Option<(u16, u16)> {
        let (remote, local) = self.conns.get(&id).map(|c| (c.remote.ip(), c.local))?;
        self.rtsp_udp.take(id, lane, remote, (0, 0), local.map(|l| l.ip()))
    }

    /// A server said from which ports a lane's packets come.
    pub(super) fn rtsp_peer_ports(&mut self, id: ConnId, lane: usize, ports: (u16, u16)) {
        self.rtsp_udp.set_peer((id, lane), ports);
    }

    /// No lane of a connection goes over datagrams any more.
    pub(super) fn release_rtsp_ports(&mut self, id: ConnId) {
        self.rtsp_udp.release(id);
    }

    /// The nodes that a publisher's stream came through, as it says.
    pub(super) fn conn_via(&self, id: ConnId) -> remote::Via {
        match self.conns.get(&id).map(|c| &c.proto) {
            Some(Proto::Rtsp(m)) => remote::Via::parse(m.via()),
            Some(Proto::Rtmp(m)) => remote::Via::parse(m.via()),
            _ => remote::Via::default(),
        }
    }

    /// What the client of a connection shows with a request.
    fn rtsp_asker(&mut self, id: ConnId, query: &str, shown: &Shown) -> Asker {
        let header = shown.authorization.as_ref().map(Secret::reveal);
        let mut asker = self.asker(id, query, header);
        if let Some(Authorization::Digest(answer)) = header.and_then(Authorization::parse) {
            asker.credentials.proven = self.proven(id, &answer, &shown.method);
        }
        asker
    }

    /// The user whom a digest proves (RFC 7616). Its nonce is the connection's, so that nobody else can use it again; that
    /// its URI is the request's is not asked, since clients write one and the same URL in several ways.
    fn proven(&mut self, id: ConnId, answer: &DigestAnswer, method: &str) -> Option<String> {
        let ip = self.conn_from(id).ip;
        let fits = answer.realm == self.config.auth.realm
            && digest::same(answer.nonce.as_bytes(), self.authority.nonce(id).as_bytes());
        if !fits || self.authority.policy.must_wait(ip, self.now).is_some() {
            return None;
        }
        let proves = |ha1: &str| answer.proves(ha1, method);
        if self.authority.policy.ha1(&answer.user, answer.algorithm.name()).is_some_and(proves) {
            return Some(answer.user.clone());
        }
        self.authority.policy.failed(ip, self.now);
        self.counters.drop("auth", "wrong_digest", 1);
        None
    }

    pub(super) fn is_rtsp(&self, id: ConnId) -> bool {
        matches!(self.conns.get(&id), Some(Conn { proto: Proto::Rtsp(_), .. }))
    }

    /// Tells a connection that it may not play.
    pub(super) fn tell_play_refused(&mut self, id: ConnId, reason: Reason) {
        if self.is_rtsp(id) {
            self.tell_rtsp(id, Input::PlayRefused(reason));
        } else if self.is_flv(id) {
            self.refuse_flv(id, &reason);
        }
    }

    /// Hands a connection that plays the next item.
    pub(super) fn tell_delivery(&mut self, id: ConnId, delivery: &Delivery) {
        if id.is_dialled() {
            self.tell_remote(id, remote::Input::Deliver(delivery));
        } else if self.is_rtsp(id) {
            self.tell_rtsp(id, Input::Deliver(delivery));
        } else if self.is_flv(id) {
            self.deliver_flv(id, delivery);
        }
    }

    /// Tells a connection that its session is over; `stream`: because the stream is.
    pub(super) fn tell_ended(&mut self, id: ConnId, reason: Reason, stream: bool) {
        if id.is_dialled() {
            return self.tell_remote(id, remote::Input::Close(reason));
        }
        if self.is_flv(id) {
            return self.end_flv(id, reason);
        }
        let word = if stream { Input::StreamEnded } else { Input::Close };
        self.tell_rtsp(id, word(reason));
    }

    pub(super) fn rtsp_said(&mut self, id: ConnId, said: Said) {
        let session = self.sessions.on(Carrier::Conn(id));
        match said {
            Said::Send(bytes) => {
                self.took(id, bytes.len());
                self.send(id, bytes);
            }
            Said::Datagram { lane, rtcp, bytes } => self.put_rtsp_datagram(id, lane, rtcp, &bytes),
            Said::Burst { lane, burst } => self.put_rtsp_burst(id, lane, &burst),
            Said::Reading(on) => self.out.push_back(Output::Reading { conn: id, on }),
            Said::PublishRequested { key, query, shown } => {
                let asker = self.rtsp_asker(id, &query, &shown);
                self.rtsp_asked(id, Wish { key, query, action: Action::Broadcast, asker });
            }
            Said::DescribeRequested { key, query, shown } => {
                let asker = self.rtsp_asker(id, &query, &shown);
                self.rtsp_asked(id, Wish { key, query, action: Action::Subscribe, asker });
            }
            Said::AnnounceRequested { key, query, shown } => {
                let asker = self.rtsp_asker(id, &query, &shown);
                self.rtsp_announced(id, key, asker);
            }
            Said::PlayRequested => self.play_rtsp(id),
            Said::UdpWanted { lane, ports } => {
                let Some((remote, local)) = self.conns.get(&id).map(|c| (c.remote.ip(), c.local)) else {
                    return;
                };
                let granted = self.rtsp_udp.take(id, lane, remote, ports, local.map(|l| l.ip()));
                self.tell_rtsp(id, granted.map_or(Input::UdpRefused, Input::UdpGranted));
            }
            Said::UdpDone => self.rtsp_udp.release(id),
            Said::Media(ingest) => {
                if let Some(session) = session {
                    self.ingest(session, ingest);
                }
            }
            Said::KeyFrameWanted => {
                if let Some(stream) = session.and_then(|s| self.stream_of(s)) {
                    self.hub.request_key_frame(stream, None, self.now);
                }
            }
            Said::Unpublished | Said::Stopped => {
                if let Some(session) = session {
                    let wish = if said == Said::Unpublished {
                        Reason::peer("unpublished", "the publisher stopped publishing")
                    } else {
                        Reason::peer("stopped", "the viewer stopped playing")
                    };
                    let reason = self.conn_closing(id).unwrap_or(wish);
                    self.forget_session(session, &reason);
                } else {
                    // It waited for the manager.
                    self.elsewhere_gone(id);
                }
            }
            Said::Log(level, text) => self.log_conn(id, level, text),
            Said::Closed(reason) => self.end_conn(id, reason, Some(false)),
        }
    }

    /// A viewer's stream is here: it is told what the stream consists of, and joins with PLAY.
    pub(super) fn describe_rtsp(&mut self, session: SessionId, stream: StreamId) -> Result<(), Reason> {
        let Some(s) = self.sessions.get(session) else { return Ok(()) };
        let (carrier, key) = (s.carrier, s.key.clone());
        let Carrier::Conn(conn) = carrier else {
            return Err(Reason::local("no_carrier", "the session has no connection"));
        };
        // What was made for players that lack a codec is of no use beside what it was made from.
        let all = self.hub.tracks(stream).into_iter();
        let published = all.filter(|(_, c)| c.origin == Origin::Ingest);
        // There is one description, and one picture and one sound in it: of renditions the largest.
        let (pictures, sounds): (Vec<_>, Vec<_>) = published.partition(|(_, c)| c.params.codec().is_video());
        let area = |c: &CodecConfig| c.params.size().map_or(0, |(w, h)| u64::from(w) * u64::from(h));
        let picture = pictures.into_iter().max_by_key(|(id, c)| (area(c), Reverse(*id)));
        let tracks: Vec<_> =
            picture.into_iter().chain(sounds.into_iter().min_by_key(|(id, _)| *id)).collect();
        let takes = tracks.iter().fold(CodecSet::NONE, |set, (_, c)| set.with(c.params.codec()));
        self.joining.insert(session, (key, takes));
        self.tell_rtsp(conn, Input::Described(tracks));
        Ok(())
    }

    fn play_rtsp(&mut self, conn: ConnId) {
        let Some(session) = self.sessions.on(Carrier::Conn(conn)) else {
            let gone = Reason::peer("not_live", "the stream ended before it was played");
            return self.tell_rtsp(conn, Input::PlayRefused(gone));
        };
        let Some((key, takes)) = self.joining.remove(&session) else { return };
        let gone = || Reason::peer("not_live", format!("{key} ended before it was played"));
        let stream = self.hub.find(&key).ok_or_else(gone);
        match stream.and_then(|s| Ok((s, self.hub.subscribe(s, takes, self.now)?))) {
            Ok((stream, subscriber)) => {
                let udp =
                    matches!(self.conns.get(&conn), Some(Conn { proto: Proto::Rtsp(m), .. }) if m.is_udp());
                self.hub.set_pace(subscriber, if udp { Pace::Riding } else { Pace::Merged });
                self.conn_is_used(conn);
                self.tell_rtsp(conn, Input::PlayAccepted);
                self.viewer_joined(session, stream, subscriber);
            }
            Err(reason) => self.refuse_play(session, &reason),
        }
    }

    /// An RTSP connection is gone.
    pub(super) fn rtsp_gone(&mut self, id: ConnId, machine: &rtsp::Server) {
        self.rtsp_udp.release(id);
        self.elsewhere_gone(id);
        let drops = machine.drops();
        if !drops.is_empty() {
            let list: Vec<String> = drops.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
            let text = format!("connection {id} is gone; left out on it: {}", list.join(", "));
            self.log(Level::Info, "rtsp", "rtsp_left_out", text);
        }
        for (reason, n) in drops {
            self.counters.drop("rtsp", reason, n);
        }
    }

    /// The loss that a publisher's machine counted, for the API.
    pub(super) fn rtsp_loss(&self) -> Vec<(SessionId, f64)> {
        let conns = self.conns.iter().filter_map(|(id, conn)| match &conn.proto {
            Proto::Rtsp(m) => Some((*id, m.loss()?)),
            Proto::Remote { machine: Some(m), .. } => Some((*id, m.loss()?)),
            _ => None,
        });
        conns
            .filter_map(|(id, loss)| Some((self.sessions.on(Carrier::Conn(id))?, loss)))
            .filter(|(id, _)| {
                self.sessions.get(*id).is_some_and(|s| matches!(s.part, Part::Publishes { .. }))
            })
            .collect()
    }

    /// Whether the tables of datagrams agree with each other and with the connections.
    pub(super) fn verify_rtsp_udp(&self) -> Result<(), crate::error::Broken> {
        let u = &self.rtsp_udp;
        crate::error::Broken::unless(u.by_source.len() == 2 * u.lanes.len(), "S7", || {
            format!("{} lanes of RTSP over datagrams, {} sources", u.lanes.len(), u.by_source.len())
        })?;
        let has = |conn: &ConnId| match self.conns.get(conn).map(|c| &c.proto) {
            Some(Proto::Rtsp(_)) => true,
            Some(Proto::Remote { machine, .. }) => machine.is_some(),
            _ => false,
        };
        let gone = u.lanes.keys().find(|(conn, _)| !has(conn));
        crate::error::Broken::unless(gone.is_none(), "S7", || format!("ports of {gone:?}, which is gone"))
    }
}
