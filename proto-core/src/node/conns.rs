//! TCP connections: what speaks on each, and how bytes and machines meet.

use super::links::LinkUse;
use super::remote::{self, RemoteId};
use super::session::{Carrier, Part, Protocol};
use super::{Alarm, Node};
use crate::cluster::link::{self, Link};
use crate::cluster::quic;
use crate::error::Reason;
use crate::guard::{guard, strike};
use crate::http;
use crate::http::websocket::{self, code};
use crate::hub::SubscriberId;
use crate::io::{ConnId, Level, Output, Service};
use crate::machine::Machine;
use crate::rtc;
use crate::rtc::frames::{self, Frames};
use crate::rtmp;
use crate::rtsp;
use crate::time::Deadline;
use crate::tls;
use std::net::SocketAddr;

/// How connections without a session end every day; not worth a line.
const ROUTINE: [&str; 8] = [
    "peer_closed",
    "reset",
    "http_done",
    "http_idle",
    "ws_closed",
    "ws_gone",
    "ice_tcp_idle",
    "session_over",
];

/// What carries a connection's bytes, under the protocol.
#[derive(Debug)]
pub(super) enum Transport {
    /// The TCP stream as it is.
    Plain,
    /// TLS.
    Tls(Box<tls::Session>),
    /// A stream of a QUIC connection, which the driver does not know.
    Quic,
}

/// What speaks on a connection.
pub(super) enum Proto {
    /// HTTP/1.1.
    Http(Box<http::server::Server>),
    /// RTMP.
    Rtmp(Box<rtmp::server::Server>),
    /// RTSP.
    Rtsp(Box<rtsp::Server>),
    /// Another node.
    Link {
        /// The machine; it is made when a dialled connection stands.
        machine: Option<Box<Link>>,
        /// What the link is for.
        used: LinkUse,
    },
    /// The proxy's websocket to another node.
    Socket {
        /// The machine; it is made when the connection stands.
        machine: Option<Box<websocket::client::Client>>,
        /// What is asked for there.
        target: websocket::client::Target,
    },
    /// The proxy's request to another node.
    Request {
        /// The machine; it is made when the connection stands.
        machine: Option<Box<http::client::Client>>,
        /// What is asked for there.
        ask: http::client::Ask,
    },
    /// WebRTC over TCP.
    Ice(Box<Frames>),
    /// A server that this node pulls a stream from or pushes one to.
    Remote {
        /// The source or destination.
        id: RemoteId,
        /// The client; it is made when the connection stands.
        machine: Option<remote::Session>,
    },
    /// A session with a defect, for the test of the session boundary.
    #[cfg(test)]
    Broken,
}

/// One TCP connection.
pub(super) struct Conn {
    pub(super) transport: Transport,
    pub(super) proto: Proto,
    pub(super) service: Service,
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: SocketAddr,
    /// What the driver said last that it would take, until something was sent.
    pub(super) free: Option<usize>,
    /// Its peer publishes, plays or is proxied: it may have the driver hold more, and send more at a time.
    pub(super) let_in: bool,
    /// Counts against its address as long as nothing is published or played on it.
    pub(super) idle: bool,
    /// It is a websocket that has not ended.
    pub(super) socket: bool,
    /// It came to the door of this loop and was introduced: whether only a part of an answer is wanted. `service`, `local` and
    /// `remote` are the client's since then.
    pub(super) door: Option<bool>,
    /// The log has said already why it ends.
    pub(super) explained: bool,
    /// How often its machine was told something by the driver.
    pub(super) told: u64,
    /// What its timer is set to, so that it is only touched where that changes.
    pub(super) alarm: Option<Deadline>,
    /// Whom its player follows, where it is in step with others.
    pub(super) in_step: Option<SubscriberId>,
}

impl Conn {
    /// A link that the node dials.
    pub(super) fn dialling(to: SocketAddr, used: LinkUse) -> Conn {
        Conn::outgoing(to, Proto::Link { machine: None, used }, Service::Link)
    }

    /// A websocket that the node dials.
    pub(super) fn dialling_socket(to: SocketAddr, target: websocket::client::Target) -> Conn {
        Conn::outgoing(to, Proto::Socket { machine: None, target }, Service::Http)
    }

    /// A connection that the node dials for a request.
    pub(super) fn dialling_request(to: SocketAddr, ask: http::client::Ask, transport: Transport) -> Conn {
        Conn { transport, ..Conn::outgoing(to, Proto::Request { machine: None, ask }, Service::Http) }
    }

    /// A connection that the node dials for a source or destination.
    pub(super) fn dialling_remote(
        to: SocketAddr,
        id: RemoteId,
        service: Service,
        transport: Transport,
    ) -> Conn {
        Conn { transport, ..Conn::outgoing(to, Proto::Remote { id, machine: None }, service) }
    }

    fn outgoing(to: SocketAddr, proto: Proto, service: Service) -> Conn {
        Conn {
            transport: Transport::Plain,
            proto,
            service,
            local: None,
            remote: to,
            free: None,
            let_in: true,
            idle: false,
            socket: false,
            door: None,
            explained: false,
            told: 0,
            alarm: None,
            in_step: None,
        }
    }
}

/// What a connection's machine can be told by the driver.
pub(super) enum Wire<'a> {
    Received(&'a [u8]),
    Writable(usize),
    PeerFinished,
    Tick,
}

/// What a connection's machine said.
enum Said {
    Http(http::server::Output),
    Rtmp(rtmp::server::Output),
    Rtsp(rtsp::server::Output),
    Link(link::Output),
    Socket(websocket::client::Output),
    Request(http::client::Output),
    Ice(frames::Output),
    Remote(remote::Output),
}

impl Node {
    /// Whether there is room for another connection of that address. If not, the log says so.
    pub(super) fn may_accept(&mut self, service: Service, remote: SocketAddr) -> bool {
        let ip = remote.ip();
        let of_ip = self.conns_per_ip.get(&ip).copied().unwrap_or(0);
        let refusal = if self.conns.len() + self.tls.leaving.len() >= self.limits.conns {
            Some(("conns", "limits.conns"))
        } else if of_ip >= self.limits.conns_per_ip && service != Service::Door {
            Some(("conns_per_ip", "limits.conns_per_ip"))
        } else {
            None
        };
        if let Some((code, key)) = refusal {
            self.counters.drop("conn", code, 1);
            self.log(
                Level::Warn,
                service.name(),
                code,
                format!("connection of {remote} refused: {key} is reached ({of_ip} idle connections of this address)"),
            );
            return false;
        }
        true
    }

    pub(super) fn accepted(&mut self, id: ConnId, service: Service, local: SocketAddr, remote: SocketAddr) {
        let (now, ip) = (self.now, remote.ip());
        if !self.may_accept(service, remote) {
            self.out.push_back(Output::Close { conn: id, now: true });
            return;
        }
        let transport = match self.transport(service) {
            Ok(transport) => transport,
            Err(reason) => {
                self.counters.drop("conn", reason.code, 1);
                let text = format!("connection of {remote} refused: {reason}");
                self.log(Level::Warn, service.name(), reason.code, text);
                self.out.push_back(Output::Close { conn: id, now: true });
                return;
            }
        };
        let proto = match service {
            Service::Http | Service::Https | Service::Door => {
                Proto::Http(Box::new(http::server::Server::new(&self.limits, now)))
            }
            Service::Rtmp | Service::Rtmps => Proto::Rtmp(Box::new(rtmp::server::Server::new(
                self.limits.clone(),
                self.rng.fork("rtmp", id.0),
                now,
            ))),
            Service::Rtsp | Service::Rtsps => {
                let mut machine = rtsp::Server::new(
                    self.limits.clone(),
                    self.rng.fork("rtsp", id.0),
                    self.wall,
                    // Over TLS nobody expects media in the clear beside it.
                    self.config.rtsp.udp_pairs > 0 && service == Service::Rtsp,
                    now,
                );
                machine.guard(self.authority.policy.is_on());
                Proto::Rtsp(Box::new(machine))
            }
            Service::IceTcp => Proto::Ice(Box::new(Frames::new(&self.limits, now))),
            Service::Link => Proto::Link {
                machine: Some(Box::new(self.new_link(link::Side::Listener, id, remote))),
                used: LinkUse::Accepted,
            },
        };
        // Who comes to the door is a client of another loop, which counts it.
        let idle = service != Service::Door;
        if idle {
            *self.conns_per_ip.entry(ip).or_default() += 1;
        }
        self.counters.accepted(service);
        let conn = Conn {
            transport,
            proto,
            service,
            local: Some(local),
            remote,
            free: None,
            let_in: false,
            idle,
            socket: false,
            door: None,
            explained: false,
            told: 0,
            alarm: None,
            in_step: None,
        };
        self.conns.insert(id, conn);
        self.dirty_conns.insert(id);
    }

    pub(super) fn connected(&mut self, id: ConnId, local: SocketAddr, remote: SocketAddr) {
        let made = self.new_link(link::Side::Dialler, id, remote);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.local = Some(local);
        conn.remote = remote;
        if let Proto::Link { machine, .. } = &mut conn.proto {
            *machine = Some(Box::new(made));
            self.dirty_conns.insert(id);
        }
        self.proxy_connected(id);
        self.carry_connected(id);
        self.remote_connected(id);
    }

    /// Hands on what the driver says of a connection: bytes, room, an end or a tick.
    pub(super) fn wire(&mut self, id: ConnId, input: Wire<'_>) {
        let Some(mut conn) = self.conns.get_mut(&id) else { return self.wire_leaving(id, &input) };
        if conn.in_step.is_some() {
            if let Wire::Writable(free) = input
                && self.room_in_step(id, free)
            {
                return;
            }
            self.fall_out(id);
            let Some(again) = self.conns.get_mut(&id) else { return };
            conn = again;
        }
        match &input {
            Wire::Received(bytes) => self.counters.received(conn.service, bytes.len()),
            Wire::Writable(free) => conn.free = Some(*free),
            _ => {}
        }
        match conn.transport {
            Transport::Plain | Transport::Quic => self.machine(id, input),
            Transport::Tls(_) => self.wire_tls(id, input),
        }
    }

    /// Hands bytes, room, an end or a tick to the machine of a connection.
    pub(super) fn machine(&mut self, id: ConnId, input: Wire<'_>) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.told += 1;
        let (switches, told) = (self.limits.simulation, conn.told);
        let mut work = || match &mut conn.proto {
            Proto::Http(m) => m.handle(
                match input {
                    Wire::Received(b) => http::server::Input::Received(b),
                    Wire::Writable(n) => http::server::Input::Writable(n),
                    Wire::PeerFinished => http::server::Input::PeerFinished,
                    Wire::Tick => http::server::Input::Tick,
                },
                now,
            ),
            Proto::Rtmp(m) => m.handle(
                match input {
                    Wire::Received(b) => rtmp::server::Input::Received(b),
                    Wire::Writable(n) => rtmp::server::Input::Writable(n),
                    Wire::PeerFinished => rtmp::server::Input::PeerFinished,
                    Wire::Tick => rtmp::server::Input::Tick,
                },
                now,
            ),
            Proto::Rtsp(m) => m.handle(
                match input {
                    Wire::Received(b) => rtsp::server::Input::Received(b),
                    Wire::Writable(n) => rtsp::server::Input::Writable(n),
                    Wire::PeerFinished => rtsp::server::Input::PeerFinished,
                    Wire::Tick => rtsp::server::Input::Tick,
                },
                now,
            ),
            Proto::Link { machine: Some(m), .. } => m.handle(
                match input {
                    Wire::Received(b) => link::Input::Received(b),
                    Wire::Writable(n) => link::Input::Writable(n),
                    Wire::PeerFinished => link::Input::PeerFinished,
                    Wire::Tick => link::Input::Tick,
                },
                now,
            ),
            Proto::Socket { machine: Some(m), .. } => m.handle(
                match input {
                    Wire::Received(b) => websocket::Input::Received(b),
                    Wire::Writable(n) => websocket::Input::Writable(n),
                    Wire::PeerFinished => websocket::Input::PeerFinished,
                    Wire::Tick => websocket::Input::Tick,
                },
                now,
            ),
            Proto::Request { machine: Some(m), .. } => m.handle(
                match input {
                    Wire::Received(b) => http::client::Input::Received(b),
                    Wire::Writable(n) => http::client::Input::Writable(n),
                    Wire::PeerFinished => http::client::Input::PeerFinished,
                    Wire::Tick => http::client::Input::Tick,
                },
                now,
            ),
            Proto::Ice(m) => m.handle(
                match input {
                    Wire::Received(b) => frames::Input::Received(b),
                    Wire::Writable(n) => frames::Input::Writable(n),
                    Wire::PeerFinished => frames::Input::PeerFinished,
                    Wire::Tick => frames::Input::Tick,
                },
                now,
            ),
            Proto::Remote { machine: Some(m), .. } => m.handle(
                match input {
                    Wire::Received(b) => remote::Input::Received(b),
                    Wire::Writable(n) => remote::Input::Writable(n),
                    Wire::PeerFinished => remote::Input::PeerFinished,
                    Wire::Tick => remote::Input::Tick,
                },
                now,
            ),
            Proto::Link { machine: None, .. }
            | Proto::Socket { machine: None, .. }
            | Proto::Request { machine: None, .. }
            | Proto::Remote { machine: None, .. } => {}
            #[cfg(test)]
            Proto::Broken => panic!("planted"),
        };
        let done = guard(|| {
            strike(switches, id.0, told);
            work();
        });
        match done {
            Ok(()) => {
                self.dirty_conns.insert(id);
            }
            Err(reason) => self.end_conn(id, reason, Some(true)),
        }
    }

    /// Hands a node's word to the RTMP machine of a connection.
    pub(super) fn tell_rtmp(&mut self, id: ConnId, input: rtmp::server::Input<'_>) {
        let now = self.now;
        self.fall_out(id);
        let Some(Conn { proto: Proto::Rtmp(m), explained, .. }) = self.conns.get_mut(&id) else { return };
        use rtmp::server::Input as I;
        *explained |= matches!(
            input,
            I::PublishRefused(..) | I::PlayRefused(..) | I::StreamEnded(..) | I::End(..) | I::Close(_)
        );
        match guard(|| m.handle(input, now)) {
            Ok(()) => {
                self.dirty_conns.insert(id);
            }
            Err(reason) => self.end_conn(id, reason, Some(true)),
        }
    }

    /// Takes out what a connection's machine says until it has nothing more to say.
    pub(super) fn drain_conn(&mut self, id: ConnId) {
        let plain = loop {
            let Some(conn) = self.conns.get_mut(&id) else { return };
            let (out, mut sent) = (&mut self.out, 0);
            let plain = matches!(conn.transport, Transport::Plain);
            let mut media = |bytes: bytes::Bytes| {
                sent += bytes.len();
                out.push_back(Output::Send { conn: id, bytes });
            };
            let said = guard(|| {
                loop {
                    return match &mut conn.proto {
                        Proto::Http(m) => m.poll().map(Said::Http),
                        // The way of most of what players get: handed on at once, and accounted for together.
                        Proto::Rtmp(m) => match m.poll() {
                            Some(rtmp::server::Output::Send(bytes)) if plain => {
                                media(bytes);
                                continue;
                            }
                            said => said.map(Said::Rtmp),
                        },
                        Proto::Rtsp(m) => match m.poll() {
                            Some(rtsp::server::Output::Send(bytes)) if plain => {
                                media(bytes);
                                continue;
                            }
                            said => said.map(Said::Rtsp),
                        },
                        Proto::Link { machine: Some(m), .. } => m.poll().map(Said::Link),
                        Proto::Socket { machine: Some(m), .. } => m.poll().map(Said::Socket),
                        Proto::Request { machine: Some(m), .. } => m.poll().map(Said::Request),
                        Proto::Ice(m) => m.poll().map(Said::Ice),
                        Proto::Remote { machine: Some(m), .. } => m.poll().map(Said::Remote),
                        Proto::Link { machine: None, .. }
                        | Proto::Socket { machine: None, .. }
                        | Proto::Request { machine: None, .. }
                        | Proto::Remote { machine: None, .. } => None,
                        #[cfg(test)]
                        Proto::Broken => None,
                    };
                }
            });
            if sent > 0 {
                conn.free = conn.free.map(|free| free.saturating_sub(sent));
                self.counters.sent(conn.service, sent);
                self.took(id, sent);
            }
            match said {
                Ok(Some(Said::Http(o))) => self.http_said(id, o),
                Ok(Some(Said::Rtmp(o))) => self.rtmp_said(id, o),
                Ok(Some(Said::Rtsp(o))) => self.rtsp_said(id, o),
                Ok(Some(Said::Link(o))) => self.link_said(id, o),
                Ok(Some(Said::Socket(o))) => self.proxy_said(id, o),
                Ok(Some(Said::Request(o))) => self.carry_said(id, o),
                Ok(Some(Said::Ice(o))) => self.ice_said(id, o),
                Ok(Some(Said::Remote(o))) => self.remote_said(id, o),
                Ok(None) => break plain,
                Err(reason) => self.end_conn(id, reason, Some(true)),
            }
        };
        let tls = match (!plain).then(|| self.conns.get(&id)).flatten().map(|c| &c.transport) {
            Some(Transport::Tls(_)) => {
                self.flush(id);
                self.tls_deadline(id)
            }
            _ => None,
        };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let deadline = match &conn.proto {
            Proto::Http(m) => m.deadline(),
            Proto::Rtmp(m) => m.deadline(),
            Proto::Rtsp(m) => m.deadline(),
            Proto::Link { machine, .. } => machine.as_ref().and_then(|m| m.deadline()),
            Proto::Socket { machine, .. } => machine.as_ref().and_then(|m| m.deadline()),
            Proto::Request { machine, .. } => machine.as_ref().and_then(|m| m.deadline()),
            Proto::Ice(m) => m.deadline(),
            Proto::Remote { machine, .. } => machine.as_ref().and_then(remote::Session::deadline),
            #[cfg(test)]
            Proto::Broken => None,
        };
        let next = Deadline::earliest(deadline, tls);
        if conn.alarm != next {
            conn.alarm = next;
            self.timers.update(Alarm::Conn(id), next);
        }
    }

    pub(super) fn send(&mut self, conn: ConnId, bytes: bytes::Bytes) {
        match self.conns.get_mut(&conn).map(|c| &mut c.transport) {
            Some(Transport::Tls(session)) => session.send(bytes),
            Some(Transport::Plain) => self.send_raw(conn, bytes),
            Some(Transport::Quic) => self.tell_quic(quic::Input::Send { conn, bytes }),
            None => {}
        }
    }

    /// Sends bytes as they are.
    pub(super) fn send_raw(&mut self, conn: ConnId, bytes: bytes::Bytes) {
        if self.conns.contains_key(&conn) {
            self.sent(conn, bytes.len());
            self.out.push_back(Output::Send { conn, bytes });
        }
    }

    /// Accounts for bytes that were handed to the driver.
    fn sent(&mut self, conn: ConnId, bytes: usize) {
        if let Some(c) = self.conns.get_mut(&conn) {
            c.free = c.free.map(|free| free.saturating_sub(bytes));
            self.counters.sent(c.service, bytes);
        }
    }

    /// What an RTMP or RTSP connection takes is progress of all that is played on it.
    pub(super) fn took(&mut self, conn: ConnId, bytes: usize) {
        let (hub, now) = (&mut self.hub, self.now);
        self.sessions.each_of_conn(conn, |s| {
            if s.carrier == Carrier::Conn(conn) {
                s.bytes_out += bytes as u64;
            }
            if let Part::Plays { subscriber, .. } = s.part {
                hub.progress(subscriber, bytes, now);
            }
        });
    }

    fn http_said(&mut self, id: ConnId, said: http::server::Output) {
        match said {
            http::server::Output::Send(bytes) => {
                if self.is_flv(id)
                    && let Some(session) = self.sessions.on(Carrier::Conn(id))
                {
                    if let Some(s) = self.sessions.get_mut(session) {
                        s.bytes_out += bytes.len() as u64;
                    }
                    self.viewer_progress(session, bytes.len());
                }
                self.send(id, bytes);
            }
            http::server::Output::Request(request) => self.request(id, request),
            http::server::Output::Upgrade(request) => self.socket_asked(id, request),
            http::server::Output::Text(text) => self.socket_text(id, text),
            http::server::Output::SocketEnded { code, text } => {
                if self.conns.get_mut(&id).is_some_and(|c| std::mem::take(&mut c.socket)) {
                    self.socket_ended(id, code, &text);
                }
            }
            http::server::Output::Log(level, text) => self.log_conn(id, level, text),
            http::server::Output::Closed(reason) => self.end_conn(id, reason, Some(false)),
        }
    }

    fn ice_said(&mut self, id: ConnId, said: frames::Output) {
        let Some((local, remote)) = self.conns.get(&id).map(|c| (c.local.unwrap_or(c.remote), c.remote))
        else {
            return;
        };
        match said {
            frames::Output::Datagram(bytes) => {
                self.rtc.handle(rtc::Input::Framed { conn: id, local, remote, bytes: &bytes }, self.now);
            }
            frames::Output::Room(free) => self.rtc.handle(rtc::Input::Room { conn: id, free }, self.now),
            frames::Output::Closed(reason) => self.end_conn(id, reason, Some(false)),
        }
    }

    /// A connection of ICE over TCP belongs to a session from now on, which says when it ends.
    pub(super) fn ice_proven(&mut self, id: ConnId) {
        let now = self.now;
        // What may wait on it counts from now on.
        if let Err(reason) = self.room(0, 0) {
            return self.end_conn(id, reason, Some(true));
        }
        if let Some(Conn { proto: Proto::Ice(m), .. }) = self.conns.get_mut(&id) {
            m.handle(frames::Input::Proven, now);
            self.dirty_conns.insert(id);
            self.conn_is_used(id);
        }
    }

    fn rtmp_said(&mut self, id: ConnId, said: rtmp::server::Output) {
        use rtmp::server::Output as O;
        match said {
            O::Send(bytes) => {
                self.took(id, bytes.len());
                self.send(id, bytes);
            }
            O::PublishRequested { stream, key, query } => {
                let asker = self.asker(id, &query, None);
                let via = self.conn_via(id);
                self.conn_publish(Protocol::Rtmp, Carrier::Message(id, stream), key, asker, via);
            }
            O::PlayRequested { stream, key, query } => {
                let asker = self.asker(id, &query, None);
                self.conn_play(Protocol::Rtmp, Carrier::Message(id, stream), key, asker);
            }
            O::Media(stream, ingest) => {
                if let Some(session) = self.sessions.on(Carrier::Message(id, stream)) {
                    self.ingest(session, ingest);
                }
            }
            O::Unpublished(stream) | O::Stopped(stream) => {
                if let Some(session) = self.sessions.on(Carrier::Message(id, stream)) {
                    let wish = if matches!(said, O::Unpublished(_)) {
                        Reason::peer("unpublished", "the publisher stopped publishing")
                    } else {
                        Reason::peer("stopped", "the viewer stopped playing")
                    };
                    let reason = self.conn_closing(id).unwrap_or(wish);
                    self.forget_session(session, &reason);
                }
            }
            O::Reading(on) => self.out.push_back(Output::Reading { conn: id, on }),
            O::Log(level, text) => self.log_conn(id, level, text),
            O::Closed(reason) => self.end_conn(id, reason, Some(false)),
        }
    }

    /// Why a connection is about to end, if its machine is saying its last words.
    pub(super) fn conn_closing(&self, id: ConnId) -> Option<Reason> {
        match &self.conns.get(&id)?.proto {
            Proto::Http(m) => m.closing(),
            Proto::Rtmp(m) => m.closing(),
            Proto::Rtsp(m) => m.closing(),
            _ => None,
        }
        .cloned()
    }

    /// A session on this connection publishes or plays: the connection no longer counts as idle.
    pub(super) fn conn_is_used(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id)
            && std::mem::take(&mut conn.idle)
        {
            let ip = conn.remote.ip();
            self.forget_idle(ip);
            self.conn_is_let_in(id);
        }
    }

    /// What the peer of this connection came for is granted: it is no stranger any more.
    pub(super) fn conn_is_let_in(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id).filter(|c| !c.let_in) else { return };
        conn.let_in = true;
        if let Proto::Http(machine) = &mut conn.proto {
            machine.widen();
        }
        self.out.push_back(Output::LetIn { conn: id });
    }

    /// The log has said why what happened on this connection ended.
    pub(super) fn conn_explained(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.explained = true;
        }
    }

    fn forget_idle(&mut self, ip: std::net::IpAddr) {
        if let Some(n) = self.conns_per_ip.get_mut(&ip) {
            *n -= 1;
            if *n == 0 {
                self.conns_per_ip.remove(&ip);
            }
        }
    }

    /// Ends a connection and everything on it. `close`: tell the driver to close it, and whether at once; `None`
    /// if the driver said that it is gone.
    pub(super) fn end_conn(&mut self, id: ConnId, reason: Reason, close: Option<bool>) {
        if self.conns.get_mut(&id).is_some_and(|c| std::mem::take(&mut c.socket)) {
            self.socket_ended(id, code::ABNORMAL, &reason.text);
        }
        self.fall_out(id);
        let Some(mut conn) = self.conns.remove(&id) else { return };
        self.timers.cancel(&Alarm::Conn(id));
        self.dirty_conns.remove(&id);
        if conn.idle {
            self.forget_idle(conn.remote.ip());
        }
        let by_quic = super::quic::is_quic(&conn);
        let transport = std::mem::replace(&mut conn.transport, Transport::Plain);
        let close = match close {
            Some(false) => self.leave(id, transport).then_some(false),
            other => other,
        };
        match close {
            Some(now) if by_quic => {
                self.timers.cancel(&Alarm::QuicWait(id));
                self.tell_quic(quic::Input::Close { conn: id, now });
            }
            Some(now) => self.out.push_back(Output::Close { conn: id, now }),
            None => {}
        }
        self.counters.ended(conn.service, &reason);
        self.authority_conn_gone(id);
        let sessions = self.sessions.of_conn(id);
        if !sessions.is_empty() {
            for session in sessions {
                self.end_session(session, &reason);
            }
        } else if reason.is_defect() {
            self.log(
                Level::Error,
                conn.service.name(),
                reason.code,
                format!("connection {id} of {}: {reason}", conn.remote),
            );
        } else if conn.service != Service::Link
            && !id.is_dialled()
            && !ROUTINE.contains(&reason.code)
            && !conn.explained
        {
            let text = format!("connection of {} ended: {reason}", conn.remote);
            self.log(Level::Warn, conn.service.name(), reason.code, text);
        }
        match conn.proto {
            Proto::Http(_) => {
                self.flv.remove(&id);
                self.proxy_client_gone(id);
                self.carry_client_gone(id);
                self.door_client_gone(id);
                self.http_gone(id);
            }
            Proto::Socket { .. } => self.proxy_back_gone(id, &reason),
            Proto::Request { .. } => self.carry_back_gone(id, &reason),
            Proto::Remote { id: of, machine } => self.remote_gone(&of, id, machine.as_ref(), &reason),
            Proto::Rtmp(_) => {}
            Proto::Ice(_) => self.rtc.handle(rtc::Input::Gone { conn: id }, self.now),
            Proto::Rtsp(m) => self.rtsp_gone(id, &m),
            #[cfg(test)]
            Proto::Broken => {}
            Proto::Link { used, machine } => {
                if machine.is_none() && !by_quic {
                    self.quic_forgets(conn.remote);
                }
                self.link_gone(id, conn.remote, used, reason);
            }
        }
    }

    pub(super) fn log_conn(&mut self, id: ConnId, level: Level, text: String) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (target, remote) = (conn.service.name(), conn.remote);
        match self.sessions.of_conn(id).as_slice() {
            [session] => self.log_session(level, *session, "machine", text),
            _ => self.log(level, target, "machine", format!("{remote}: {text}")),
        }
    }

    /// Whether a session's connection is alive and its session still in the given part.
    pub(super) fn is_part(&self, session: super::session::SessionId, part: Part) -> bool {
        self.sessions.get(session).is_some_and(|s| s.part == part)
    }
}
