//! From a source's or destination's host to a session on a connection: look the name up, refuse ourselves, dial.

use super::session::{Input, Session};
use super::{RemoteId, State, Via};
use crate::error::{Reason, quote};
use crate::guard::guard;
use crate::io::{AskId, ConnId, Output, Service, Work};
use crate::node::config::remotes::{Scheme, Target};
use crate::node::conns::{Conn, Proto, Transport};
use crate::node::links::Asked;
use crate::node::session::Part;
use crate::node::{Alarm, Node};
use crate::rtmp;
use crate::rtsp;
use crate::time::Deadline;
use crate::tls;
use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

impl Node {
    /// Looks the host's name up, if it is one.
    pub(super) fn resolve_remote(&mut self, id: &RemoteId) {
        let now = self.now;
        let Some(remote) = self.remotes.get(id) else { return };
        let (host, port) = (remote.target.host.clone(), remote.target.port);
        remote.tries += 1;
        self.counters.remote(id.what(), "tried");
        if let Ok(ip) = host.parse::<IpAddr>() {
            return self.dial_remote(id, &[SocketAddr::new(ip, port)]);
        }
        self.next_ask += 1;
        let ask = AskId(self.next_ask);
        if let Some(remote) = self.remotes.get(id) {
            (remote.state, remote.since) = (State::Resolves(ask), now);
        }
        self.asks.insert(ask, Asked::Remote);
        self.remotes.asks.insert(ask, id.clone());
        self.out.push_back(Output::Ask { ask, work: Work::Resolve { host, port } });
        let until = now + Duration::from_millis(self.limits.remote_setup_ms);
        self.timers.set(Alarm::Remote(id.clone()), Deadline::new(until, "a host's name is looked up"));
    }

    /// The name was looked up, or cannot be.
    pub(in crate::node) fn remote_resolved(&mut self, ask: AskId, found: Result<Vec<SocketAddr>, String>) {
        let Some(id) = self.remotes.asks.remove(&ask) else { return };
        if self.remotes.get(&id).is_none_or(|r| r.state != State::Resolves(ask)) {
            return;
        }
        self.timers.cancel(&Alarm::Remote(id.clone()));
        match found {
            Ok(list) if !list.is_empty() => self.dial_remote(&id, &list),
            Ok(_) => {
                self.remote_failed(&id, Reason::peer("resolve_failed", "the host's name has no address"))
            }
            Err(why) => {
                let text = format!("the host's name cannot be looked up: {}", quote(&why));
                self.remote_failed(&id, Reason::peer("resolve_failed", text));
            }
        }
    }

    /// Dials one of the addresses, another with each attempt.
    fn dial_remote(&mut self, id: &RemoteId, list: &[SocketAddr]) {
        let Some(remote) = self.remotes.get(id) else { return };
        let (turn, scheme) = (remote.tries, remote.target.scheme);
        let others: Vec<SocketAddr> =
            list.iter().copied().filter(|to| !self.is_own_address(*to, scheme)).collect();
        let at = usize::try_from(turn.saturating_sub(1)).unwrap_or(0) % others.len().max(1);
        let Some(to) = others.get(at).copied() else {
            let text = "the address is one of this cluster's own: the stream would go round in a circle; name another \
                        server";
            return self.remote_failed(id, Reason::local("remote_loop", text));
        };
        if scheme.is_secure() {
            return self.read_authorities(id, to);
        }
        self.connect_remote(id, to, scheme, Transport::Plain);
    }

    /// Who is trusted is read anew for each connection, so that a change needs no restart.
    fn read_authorities(&mut self, id: &RemoteId, to: SocketAddr) {
        let now = self.now;
        self.next_ask += 1;
        let ask = AskId(self.next_ask);
        let Some(remote) = self.remotes.get(id) else { return };
        remote.to = Some(to);
        (remote.state, remote.since) = (State::Resolves(ask), now);
        self.asks.insert(ask, Asked::Remote);
        self.remotes.asks.insert(ask, id.clone());
        let path = self.config.tls.authorities.clone();
        self.out.push_back(Output::Ask { ask, work: Work::ReadFile { path } });
        let until = now + Duration::from_millis(self.limits.remote_setup_ms);
        self.timers.set(Alarm::Remote(id.clone()), Deadline::new(until, "a file is read"));
    }

    /// The authorities were read, or cannot be.
    pub(in crate::node) fn remote_authorities(&mut self, ask: AskId, found: Result<Bytes, String>) {
        let Some(id) = self.remotes.asks.remove(&ask) else { return };
        let Some(remote) = self.remotes.get(&id).filter(|r| r.state == State::Resolves(ask)) else { return };
        let Some(to) = remote.to.take() else { return };
        let (scheme, host) = (remote.target.scheme, remote.target.host.clone());
        self.timers.cancel(&Alarm::Remote(id.clone()));
        let path = &self.config.tls.authorities;
        let failed = |text: String| Reason::local("tls_authorities", text);
        let session = found
            .and_then(|pem| self.tls.connector(path, &pem))
            .map_err(failed)
            .and_then(|c| tls::Session::client(c.config(), &host, &self.limits, self.now));
        match session {
            Ok(session) => self.connect_remote(&id, to, scheme, Transport::Tls(Box::new(session))),
            Err(reason) => self.remote_failed(&id, reason),
        }
    }

    fn connect_remote(&mut self, id: &RemoteId, to: SocketAddr, scheme: Scheme, transport: Transport) {
        let now = self.now;
        let conn = self.dials(Conn::dialling_remote(to, id.clone(), service_of(scheme), transport));
        if let Some(remote) = self.remotes.get(id) {
            (remote.state, remote.since) = (State::Connects(conn), now);
        }
        let until = now + Duration::from_millis(self.limits.remote_setup_ms);
        self.timers.set(Alarm::Remote(id.clone()), Deadline::new(until, "a server is dialled"));
    }

    /// Whether an address leads back to this node, or to one that the manager here knows.
    fn is_own_address(&self, to: SocketAddr, scheme: Scheme) -> bool {
        let config = &self.config;
        let own_port = match scheme {
            Scheme::Rtsp => config.rtsp.port,
            // It is not served.
            Scheme::Rtsps => return false,
            Scheme::Rtmp => config.rtmp.port,
            Scheme::Rtmps => config.rtmps.port,
        };
        let ip = to.ip().to_canonical();
        let a = &self.advertised;
        let everywhere = config.bind.is_unspecified()
            && (ip.is_loopback() || ip.is_unspecified() || a.others.contains(&ip));
        let ours = everywhere || ip == config.bind || ip == a.public || ip == a.private;
        let nodes = self.manager.iter().flat_map(|m| m.registry().nodes().values());
        let of_node = nodes.map(|n| &n.info).any(|info| {
            let port = match scheme {
                Scheme::Rtsp => info.advertised.rtsp,
                Scheme::Rtmp => info.advertised.rtmp,
                Scheme::Rtsps | Scheme::Rtmps => 0,
            };
            port == to.port() && (ip == info.advertised.public || ip == info.advertised.private)
        });
        (ours && to.port() == own_port) || of_node
    }

    /// A connection to a server stands: the session begins.
    pub(in crate::node) fn remote_connected(&mut self, conn: ConnId) {
        let Some(Conn { proto: Proto::Remote { id, .. }, .. }) = self.conns.get(&conn) else { return };
        let id = id.clone();
        self.timers.cancel(&Alarm::Remote(id.clone()));
        let session = match self.remote_session(&id, conn) {
            Ok(session) => session,
            Err(reason) => return self.end_conn(conn, reason, Some(true)),
        };
        if let Some(Conn { proto: Proto::Remote { machine, .. }, .. }) = self.conns.get_mut(&conn) {
            *machine = Some(session);
            self.dirty_conns.insert(conn);
        }
    }

    fn remote_session(&self, id: &RemoteId, conn: ConnId) -> Result<Session, Reason> {
        let gone = || Reason::local("remote_gone", "it is no longer wanted");
        let remote = self.remotes.all.get(id).ok_or_else(gone)?;
        let rng = self.rng.fork("remote_conn", conn.0);
        let via = self.remote_via(id);
        let via = via.with(&self.remotes.mark);
        let target = &remote.target;
        if target.scheme.is_rtmp() {
            let task = match id {
                RemoteId::Source(_) => rtmp::client::Task::Play,
                RemoteId::Destination(..) => rtmp::client::Task::Publish,
            };
            let (limits, of) = (self.limits.clone(), rtmp_target(target));
            let client = rtmp::client::Client::of_node(of, task, via, limits, rng, self.now);
            return Ok(Session::Rtmp(Box::new(client)));
        }
        let task = match id {
            RemoteId::Source(_) => rtsp::client::Task::Play,
            RemoteId::Destination(_, key) => {
                let stream = self.hub.find(key).ok_or_else(gone)?;
                let tracks = self.hub.tracks(stream).into_iter();
                let own = tracks.filter(|(_, c)| c.origin == crate::media::track::Origin::Ingest);
                rtsp::client::Task::Record(own.collect())
            }
        };
        let plan = rtsp::client::Plan { url: target.rtsp(), task, ways: remote.ways, via };
        let client = rtsp::Client::new(plan, self.limits.clone(), rng, self.wall, self.now);
        Ok(Session::Rtsp(Box::new(client)))
    }

    /// Which nodes a stream that is pushed came through.
    pub(super) fn remote_via(&self, id: &RemoteId) -> Via {
        let RemoteId::Destination(_, key) = id else { return Via::default() };
        let publisher =
            self.sessions.iter().find(|s| s.key == *key && matches!(s.part, Part::Publishes { .. }));
        publisher.map(|s| s.via.clone()).unwrap_or_default()
    }

    /// Hands a word to the client on a connection.
    pub(in crate::node) fn tell_remote(&mut self, conn: ConnId, input: Input<'_>) {
        let now = self.now;
        let Some(Conn { proto: Proto::Remote { machine: Some(m), .. }, .. }) = self.conns.get_mut(&conn)
        else {
            return;
        };
        match guard(|| m.handle(input, now)) {
            Ok(()) => {
                self.dirty_conns.insert(conn);
            }
            Err(reason) => self.end_conn(conn, reason, Some(true)),
        }
    }
}

fn rtmp_target(target: &Target) -> rtmp::client::Target {
    let (app, name) = target.app_and_name();
    rtmp::client::Target {
        tls: target.scheme.is_secure(),
        host: target.authority(),
        app: app.to_owned(),
        stream: name.to_owned(),
    }
}

const fn service_of(scheme: Scheme) -> Service {
    match scheme {
        Scheme::Rtsp | Scheme::Rtsps => Service::Rtsp,
        Scheme::Rtmp => Service::Rtmp,
        Scheme::Rtmps => Service::Rtmps,
    }
}
