//! Links between nodes over QUIC: how they are dialled, with TCP where QUIC is not spoken, and what they say.
//!
//! A QUIC link is a connection like any other to the rest of the node, only that the driver does not know it: its bytes are
//! the control stream's, and frames take the way of [`quic::Endpoint`].

use super::conns::{Conn, Proto, Transport, Wire};
use super::fallback::Fallback;
use super::links::LinkUse;
use super::{Alarm, Node};
use crate::cluster::link::{self, Link};
use crate::cluster::quic::{self, Endpoint, EndpointConfig};
use crate::error::Reason;
use crate::io::{ConnId, Level, Output, Service, SocketId};
use crate::limits::Limits;
use crate::machine::Machine;
use crate::node::config::{Config, LinkTransport};
use crate::rand::Rng;
use crate::simulation::Speech;
use crate::time::Deadline;
use crate::tls;
use crate::wire::link::{Message, TrackConfig};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The socket of node links. WebRTC's is 0, RTSP's begin with 16.
pub(super) const LINK_SOCKET: SocketId = SocketId(1);
/// Datagrams from other hosts while there is no key.
const NO_KEY: &str = "quic_no_key";

/// QUIC as the node has it.
#[derive(Default)]
pub(super) struct Quic {
    endpoint: Option<Endpoint>,
    /// Nodes that did not answer by it.
    pub(super) fallback: Fallback,
}

impl Quic {
    /// QUIC if it is configured and there is cryptography for it.
    ///
    /// # Errors
    /// If the cryptographic library cannot do QUIC.
    pub(super) fn new(
        config: &Config,
        id: &str,
        limits: &Arc<Limits>,
        rng: &Rng,
        start: Instant,
        identity: Option<&tls::Identity>,
    ) -> Result<Quic, Reason> {
        let older = matches!(limits.simulation.speech(), Some(Speech::Older));
        let Some(identity) = identity.filter(|_| config.cluster.transport == LinkTransport::Quic && !older)
        else {
            return Ok(Quic::default());
        };
        let endpoint = Endpoint::new(EndpointConfig {
            limits: limits.clone(),
            rng: rng.fork("quic", 0),
            start,
            identity: identity.clone(),
            reset_key: reset_key(&config.cluster.key, id, rng),
            stock_control: false,
            socket: LINK_SOCKET,
        })?;
        Ok(Quic { endpoint: Some(endpoint), fallback: Fallback::default() })
    }

    pub(super) fn is_on(&self) -> bool {
        self.endpoint.is_some()
    }

    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.endpoint.as_ref().and_then(Machine::deadline)
    }
}

/// The secret with which this node tells its peers that it has forgotten them: the same after a restart, where there is a
/// secret that outlives one. Where there is none nobody may guess it, so it lives as long as the process.
fn reset_key(cluster_key: &str, id: &str, rng: &Rng) -> [u8; 32] {
    if cluster_key.is_empty() {
        return rng.fork("quic reset", 0).bytes();
    }
    let mut block = [0; 64];
    block[..32].copy_from_slice(&Sha256::digest(cluster_key.as_bytes()));
    let mut reset = <Hmac<Sha256> as KeyInit>::new(&block.into());
    reset.update(b"headwater link, stateless reset");
    reset.update(id.as_bytes());
    reset.finalize().into_bytes().into()
}

/// Whether a connection's bytes are those of a QUIC stream.
pub(super) fn is_quic(conn: &Conn) -> bool {
    matches!(conn.transport, Transport::Quic)
}

impl Node {
    /// Hands something to the QUIC endpoint.
    pub(super) fn tell_quic(&mut self, input: quic::Input<'_>) {
        let now = self.now;
        if let Some(endpoint) = &mut self.quic.endpoint {
            endpoint.handle(input, now);
        }
    }

    /// Datagrams came to the port of links. Without a key only this host's nodes are spoken to, so that a node that is no
    /// part of a cluster is silent to all others.
    pub(super) fn quic_datagrams(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        stride: usize,
        bytes: &[u8],
    ) {
        if self.keys.is_empty() && !remote.ip().to_canonical().is_loopback() {
            let n = bytes.len().div_ceil(stride.max(1)) as u64;
            return self.counters.drop("datagram", NO_KEY, n);
        }
        self.tell_quic(quic::Input::Datagram { local, remote, stride, bytes });
    }

    /// What was dropped of datagrams to the port of links, by reason, as far as an operator is told: that an address is
    /// asked to prove itself is part of every link, and worth a line when it is more than nodes that start would cause.
    pub(super) fn quic_drops(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        use quic::Dropped as D;
        let codes = D::ALL.map(D::code).into_iter().chain([NO_KEY]);
        codes.map(|code| (code, self.counters.dropped.get(&("datagram", code)).copied().unwrap_or(0)))
    }

    pub(super) fn start_quic(&mut self) {
        if self.quic.is_on() {
            let bind = self.config.cluster_addr();
            self.out.push_back(Output::OpenUdp { socket: LINK_SOCKET, bind });
        }
    }

    pub(super) fn quic_opened(&mut self, local: SocketAddr, max_segments: usize) {
        self.tell_quic(quic::Input::UdpOpened { max_segments });
        let text =
            format!("other nodes are reached by QUIC on udp {local} ({max_segments} segments a message)");
        self.log(Level::Info, "node", "udp_open", text);
    }

    /// Without the port there are still links over TCP.
    pub(super) fn quic_failed(&mut self, reason: &Reason) {
        let at = self.config.cluster_addr();
        let text = format!(
            "cannot open udp {at} for QUIC between nodes (cluster.port): {}; links use TCP, whose content is not \
             encrypted",
            reason.text
        );
        self.log(Level::Warn, "node", reason.code, text);
        let dialling: Vec<ConnId> =
            self.conns.iter().filter(|(_, c)| is_quic(c)).map(|(id, _)| *id).collect();
        self.quic.endpoint = None;
        dialling.into_iter().for_each(|conn| self.dial_by_tcp(conn));
    }

    /// Dials another node, by QUIC where that is spoken. Another loop of this process is dialled by TCP: on the way there is nobody who
    /// could read along and nothing is lost, and QUIC takes more of the processor.
    pub(super) fn dial_link(&mut self, to: SocketAddr, used: LinkUse) -> ConnId {
        if !self.quic.is_on() || self.is_loop_at(to) || self.quic.fallback.is_tcp_only(to, self.now) {
            return self.next_dialled(to, used);
        }
        self.dial_by_quic(to, used)
    }

    pub(super) fn dial_by_quic(&mut self, to: SocketAddr, used: LinkUse) -> ConnId {
        self.next_dial += 1;
        let conn = ConnId::dialled(self.next_dial);
        self.conns.insert(conn, Conn { transport: Transport::Quic, ..Conn::dialling(to, used) });
        let until = self.now + Duration::from_millis(self.limits.link_quic_wait_ms);
        self.timers.set(Alarm::QuicWait(conn), Deadline::new(until, "a node does not answer by QUIC"));
        self.tell_quic(quic::Input::Connect { conn, remote: to });
        conn
    }

    /// A node does not answer by QUIC: it may be an older one, or its network lets no UDP through.
    pub(super) fn dial_by_tcp(&mut self, conn: ConnId) {
        self.timers.cancel(&Alarm::QuicWait(conn));
        let Some(Conn {
            proto: Proto::Link { machine: None, used }, remote, transport: Transport::Quic, ..
        }) = self.conns.get(&conn)
        else {
            return;
        };
        let (used, to) = (used.clone(), *remote);
        self.tell_quic(quic::Input::Close { conn, now: true });
        self.conns.remove(&conn);
        self.dirty_conns.remove(&conn);
        self.fall_back(conn, to, &used);
    }

    /// Carries what the QUIC endpoint says. Answers whether there was anything.
    pub(super) fn settle_quic(&mut self) -> bool {
        let now = self.now;
        let Some(endpoint) = &mut self.quic.endpoint else { return false };
        if endpoint.deadline().is_some_and(|d| d.at <= now) {
            endpoint.handle(quic::Input::Tick, now);
        }
        let mut any = false;
        while let Some(said) = self.quic.endpoint.as_mut().and_then(Machine::poll) {
            any = true;
            self.quic_said(said);
        }
        any
    }

    fn quic_said(&mut self, said: quic::Output) {
        use quic::Output as O;
        match said {
            O::Datagrams(batch) => self.send_batch(batch),
            O::Connected { conn, local, remote, binding } => {
                self.quic_connected(conn, local, remote, binding)
            }
            O::Received { conn, bytes } => self.wire(conn, Wire::Received(&bytes)),
            O::Room { conn, free } => self.wire(conn, Wire::Writable(free)),
            O::PeerFinished { conn } => self.wire(conn, Wire::PeerFinished),
            O::Message { conn, message } => {
                if let Message::End { pull, .. } = &message {
                    self.tell_quic(quic::Input::Pulls { conn, pull: *pull, on: false });
                }
                self.pulled(conn, message);
            }
            O::Lost { conn, pull, track, frames, bytes } => {
                self.counters.drop("frame", "link_late", frames);
                self.pull_lost(conn, pull, track, frames, bytes);
            }
            O::Stranger { remote, reason } => {
                self.counters.ended_as("link", &reason);
                let text = format!("a QUIC connection of {remote} never stood: {reason}");
                self.log(Level::Info, "link", reason.code, text);
            }
            O::Dropped(why) => self.counters.drop("datagram", why.code(), 1),
            O::Closed { conn, reason } => {
                self.timers.cancel(&Alarm::QuicWait(conn));
                match self.conns.get(&conn).map(|c| &c.proto) {
                    Some(Proto::Link { machine: None, .. }) => self.dial_by_tcp(conn),
                    _ => self.end_conn(conn, reason, None),
                }
            }
        }
    }

    fn quic_connected(&mut self, conn: ConnId, local: SocketAddr, remote: SocketAddr, binding: [u8; 32]) {
        self.timers.cancel(&Alarm::QuicWait(conn));
        let side = if conn.is_dialled() { link::Side::Dialler } else { link::Side::Listener };
        if side == link::Side::Listener {
            if !self.may_accept(Service::Link, remote) {
                return self.tell_quic(quic::Input::Close { conn, now: true });
            }
            *self.conns_per_ip.entry(remote.ip()).or_default() += 1;
            self.counters.accepted(Service::Link);
            let made =
                Conn { transport: Transport::Quic, idle: true, ..Conn::dialling(remote, LinkUse::Accepted) };
            self.conns.insert(conn, made);
        }
        let mut made = self.new_link(side, conn, remote);
        made.bind_to(binding);
        let Some(Conn { proto: Proto::Link { machine, .. }, local: ours, .. }) = self.conns.get_mut(&conn)
        else {
            return self.tell_quic(quic::Input::Close { conn, now: true });
        };
        *ours = Some(local);
        *machine = Some(Box::new(made));
        self.dirty_conns.insert(conn);
    }

    pub(super) fn link_is_quic(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(is_quic)
    }

    /// Sends a message about relays over a QUIC link. Answers those that the link's machine must carry, in order.
    pub(super) fn relay_by_quic(&mut self, conn: ConnId, message: Message) -> Vec<Message> {
        match message {
            Message::Frame(frame) => {
                self.tell_quic(quic::Input::Frame { conn, frame });
                Vec::new()
            }
            Message::Tracks { pull, path, configs } => {
                for config in configs {
                    let (track, path) = (config.track, path.clone());
                    let configs: Vec<TrackConfig> = vec![config];
                    let message = Message::Tracks { pull, path, configs };
                    self.tell_quic(quic::Input::Tracks { conn, pull, track, message });
                }
                Vec::new()
            }
            Message::SourceAway { pull } | Message::SourceBack { pull } | Message::End { pull, .. } => {
                let frames = self.quic.endpoint.as_mut().and_then(|e| e.mark(conn, pull));
                if matches!(message, Message::End { .. }) {
                    self.tell_quic(quic::Input::Served { conn, pull, now: false });
                }
                frames.map(|frames| Message::Sent { pull, frames }).into_iter().chain([message]).collect()
            }
            Message::Pull { pull, .. } => {
                self.tell_quic(quic::Input::Pulls { conn, pull, on: true });
                vec![message]
            }
            Message::CancelPull { pull } => {
                self.tell_quic(quic::Input::Pulls { conn, pull, on: false });
                vec![message]
            }
            other => vec![other],
        }
    }

    /// What came on the control stream of a link for pulling: messages about a pull wait for the frames before them.
    pub(super) fn pulled_by_quic(&mut self, conn: ConnId, message: Message) {
        let pull = match &message {
            Message::SourceAway { pull }
            | Message::SourceBack { pull }
            | Message::End { pull, .. }
            | Message::Sent { pull, .. } => *pull,
            _ => return self.pulled(conn, message),
        };
        self.tell_quic(quic::Input::Told { conn, pull, message });
    }

    /// A link's machine, if the other end proved the shared key.
    pub(super) fn link_up(&self, conn: ConnId) -> Option<&Link> {
        match self.conns.get(&conn) {
            Some(Conn { proto: Proto::Link { machine: Some(m), .. }, .. }) if m.is_up() => Some(m),
            _ => None,
        }
    }
}
