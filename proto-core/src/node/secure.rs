//! TLS under the protocols: certificates and their files, and how bytes, TLS sessions and machines meet.

use super::conns::{Conn, Proto, Transport, Wire};
use super::links::Asked;
use super::{Alarm, Node};
use crate::buf::Outbox;
use crate::error::Reason;
use crate::guard::guard;
use crate::http::server::Server;
use crate::io::{AskId, ConnId, Level, Output, Service, Work};
use crate::rtc::frames::Frames;
use crate::time::Deadline;
use crate::tls::certificate::Certified;
use crate::tls::{self, Acceptor, Clock, First, Session};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// An operator is warned when a certificate is valid for less than this.
const EXPIRES_SOON: u64 = 14 * DAY;
const DAY: u64 = 24 * 60 * 60;

/// TLS of a node.
pub(super) struct Tls {
    identity: Option<tls::Identity>,
    clock: Arc<Clock>,
    /// What new connections are accepted with; `None` until the certificates were read.
    acceptor: Option<Acceptor>,
    /// The files that are being read, and what they held.
    reading: BTreeMap<AskId, String>,
    read: BTreeMap<String, Result<Bytes, String>>,
    /// What the files held when they were last looked at whole.
    seen: BTreeMap<String, Result<Bytes, String>>,
    /// When each certificate in use ends, and on which day that was last said.
    expiries: Vec<(String, u64)>,
    warned_on: Option<u64>,
    turn: tls::Turn,
    /// Connections that are over but for bytes that have not left.
    pub(super) leaving: BTreeMap<ConnId, Outbox>,
}

impl Tls {
    pub(super) fn new(identity: Option<tls::Identity>) -> Tls {
        Tls {
            identity,
            clock: Arc::default(),
            acceptor: None,
            reading: BTreeMap::new(),
            read: BTreeMap::new(),
            seen: BTreeMap::new(),
            expiries: Vec::new(),
            warned_on: None,
            turn: tls::Turn::default(),
            leaving: BTreeMap::new(),
        }
    }

    pub(super) fn set_clock(&self, wall: crate::time::WallTime) {
        self.clock.set(wall);
    }

    /// What sessions with other servers are made of, with the authorities that a file holds.
    pub(super) fn connector(&self, path: &str, pem: &[u8]) -> Result<tls::Connector, String> {
        let identity = self.identity.as_ref().ok_or("this node has no cryptography for TLS")?;
        tls::Connector::new(identity, path, pem, &self.clock)
    }
}

/// Bytes that are handed on in one go.
const PIECE: usize = 4 << 10;

impl Node {
    /// The node begins: with the certificate of its own, or the files that are configured.
    pub(super) fn start_tls(&mut self) {
        let Some(identity) = self.tls.identity.clone() else { return };
        if !self.config.tls.certificates.is_empty() {
            return self.look_at_certificates();
        }
        match identity.own().map(|own| vec![own]) {
            Ok(own) => self.use_certificates(own),
            Err(text) => self.log(Level::Error, "tls", "tls_certificate", text),
        }
    }

    /// Asks for the certificate files, and sets the time to do so again.
    pub(super) fn look_at_certificates(&mut self) {
        self.tls.reading.clear();
        self.tls.read.clear();
        let config = &self.config.tls;
        let paths: std::collections::BTreeSet<String> =
            config.certificates.iter().chain(&config.keys).cloned().collect();
        for path in paths {
            self.next_ask += 1;
            let ask = AskId(self.next_ask);
            self.asks.insert(ask, Asked::File);
            self.tls.reading.insert(ask, path.clone());
            self.out.push_back(Output::Ask { ask, work: Work::ReadFile { path } });
        }
        let next = self.now + Duration::from_millis(self.limits.tls_reload_ms);
        self.timers.set(Alarm::Certificates, Deadline::new(next, "certificate files are looked at"));
    }

    /// A file was read.
    pub(super) fn file_read(&mut self, ask: AskId, found: Result<Bytes, String>) {
        let Some(path) = self.tls.reading.remove(&ask) else { return };
        self.tls.read.insert(path, found);
        if !self.tls.reading.is_empty() {
            return;
        }
        let read = std::mem::take(&mut self.tls.read);
        if read == self.tls.seen {
            return self.warn_of_expiry();
        }
        match self.certified(&read) {
            Ok(all) => self.use_certificates(all),
            Err(text) if self.tls.acceptor.is_some() => {
                let text = format!("{text}; the certificates from before stay in use");
                self.log(Level::Error, "tls", "tls_certificate", text);
            }
            Err(text) => {
                self.log(Level::Error, "tls", "tls_certificate", format!("{text}; TLS is refused until then"))
            }
        }
        self.tls.seen = read;
    }

    fn certified(&self, files: &BTreeMap<String, Result<Bytes, String>>) -> Result<Vec<Certified>, String> {
        let Some(identity) = &self.tls.identity else { return Ok(Vec::new()) };
        let get = |path: &String| match files.get(path) {
            Some(Ok(bytes)) => Ok(bytes.clone()),
            Some(Err(why)) => Err(why.clone()),
            None => Err(format!("{path} was not read")),
        };
        self.config
            .tls
            .pairs()
            .map(|(certificate, key)| {
                let (chain, secret) = (get(certificate)?, get(key)?);
                Certified::from_pem((certificate, &chain), (key, &secret), identity.provider())
            })
            .collect()
    }

    fn use_certificates(&mut self, all: Vec<Certified>) {
        let Some(identity) = &self.tls.identity else { return };
        let names: Vec<String> = all.iter().flat_map(|c| c.names().iter().cloned()).collect();
        self.tls.expiries = all.iter().map(|c| (c.label().to_owned(), c.expires())).collect();
        self.tls.warned_on = None;
        let again = self.tls.acceptor.is_some();
        match Acceptor::new(identity, all, &self.tls.clock) {
            Ok(acceptor) => self.tls.acceptor = Some(acceptor),
            Err(text) => return self.log(Level::Error, "tls", "tls_certificate", text),
        }
        let source = if self.config.tls.certificates.is_empty() {
            "a certificate made at start, which no browser trusts by itself (tls.certificates names files to use in its \
             place)"
                .to_owned()
        } else {
            format!("certificates for {}", names.join(", "))
        };
        let what = if again { "new certificates are in use; sessions keep theirs" } else { "TLS is ready" };
        self.log(Level::Info, "tls", "tls_ready", format!("{what}: {source}"));
        self.warn_of_expiry();
    }

    /// Says once a day which certificates end soon or have ended.
    fn warn_of_expiry(&mut self) {
        let now = self.wall.wall(self.now).0 / 1_000_000_000;
        if now == 0 || self.tls.warned_on == Some(now / DAY) {
            return;
        }
        self.tls.warned_on = Some(now / DAY);
        for (label, expires) in self.tls.expiries.clone() {
            let what = if self.config.tls.certificates.is_empty() {
                "restart the node to have another made"
            } else {
                "renew it"
            };
            if expires <= now {
                let text = format!("the certificate {label} has expired, and clients refuse it: {what}");
                self.log(Level::Error, "tls", "tls_expired", text);
            } else if expires - now < EXPIRES_SOON {
                let days = (expires - now) / DAY;
                let text = format!("the certificate {label} expires in {days} days: {what}");
                self.log(Level::Warn, "tls", "tls_expires", text);
            }
        }
    }

    /// What carries a new connection of a service.
    ///
    /// # Errors
    /// If the service needs TLS and there is none.
    pub(super) fn transport(&self, service: Service) -> Result<Transport, Reason> {
        if !service.is_secure() {
            return Ok(Transport::Plain);
        }
        let not_yet = || Reason::local("tls_not_ready", "TLS is not ready: there is no certificate in use");
        let acceptor = self.tls.acceptor.as_ref().ok_or_else(not_yet)?;
        let config = if service == Service::Https { acceptor.http() } else { acceptor.plain() };
        Ok(Transport::Tls(Box::new(Session::new(config, &self.limits, self.now)?)))
    }

    /// What the driver says of a connection that carries TLS.
    pub(super) fn wire_tls(&mut self, id: ConnId, input: Wire<'_>) {
        let now = self.now;
        let Some(session) = self.session(id) else { return };
        match input {
            Wire::Received(bytes) => {
                if session.is_new() && !session.is_holding() && !self.expected(id, bytes) {
                    return;
                }
                self.decrypt(id, bytes);
            }
            Wire::Writable(free) => {
                session.set_credit(free);
                self.flush(id);
                if let Some(credit) = self.session(id).map(|s| s.credit()) {
                    self.machine(id, Wire::Writable(credit));
                }
            }
            Wire::PeerFinished => self.machine(id, Wire::PeerFinished),
            Wire::Tick => {
                if let Err(reason) = session.expire(now) {
                    return self.end_conn(id, reason, Some(false));
                }
                if session.is_holding() {
                    self.decrypt(id, &[]);
                }
                self.machine(id, Wire::Tick);
            }
        }
    }

    fn session(&mut self, id: ConnId) -> Option<&mut Session> {
        match self.conns.get_mut(&id) {
            Some(Conn { transport: Transport::Tls(session), .. }) => Some(session),
            _ => None,
        }
    }

    /// Decrypts what arrived and hands it on.
    fn decrypt(&mut self, id: ConnId, bytes: &[u8]) {
        let (now, most, cap) = (self.now, self.limits.tls_handshake_us_per_turn, self.limits.tls_hello_bytes);
        let begins = self.session(id).is_some_and(|s| s.is_new());
        if begins && !self.tls.turn.may_begin(now, most) {
            let Some(session) = self.session(id) else { return };
            if session.hold(bytes, cap) {
                self.dirty_conns.insert(id);
            } else {
                let text = "more than a handshake came before the handshake";
                self.end_conn(id, Reason::peer("tls_failed", text), Some(true));
            }
            return;
        }
        let Some(session) = self.session(id) else { return };
        let held = session.take_held();
        self.dirty_conns.insert(id);
        let done = self.decrypt_part(id, &held).and_then(|()| self.decrypt_part(id, bytes));
        if let Some(session) = self.session(id) {
            session.seal();
        }
        if let Err(reason) = done {
            self.end_conn(id, reason, Some(false));
        }
    }

    /// Decrypts little at a time and hands it on, so that what is plain is not held beside what arrived.
    fn decrypt_part(&mut self, id: ConnId, mut bytes: &[u8]) -> Result<(), Reason> {
        let mut room = [0; PIECE];
        while !bytes.is_empty() {
            let Some(session) = self.session(id) else { break };
            let finished = guard(|| session.step(&mut bytes)).and_then(|finished| finished)?;
            loop {
                let n = self.session(id).map_or(0, |s| s.read(&mut room));
                let Some(plain) = room.get(..n).filter(|p| !p.is_empty()) else { break };
                self.machine(id, Wire::Received(plain));
            }
            if finished {
                self.machine(id, Wire::PeerFinished);
            }
        }
        Ok(())
    }

    /// Judges by the first byte whether TLS is what comes. If not, the peer is told where that is possible.
    fn expected(&mut self, id: ConnId, bytes: &[u8]) -> bool {
        let Some(conn) = self.conns.get_mut(&id) else { return false };
        let text = match (bytes.first().map(|b| tls::first(*b)), conn.service) {
            (Some(First::Tls) | None, _) => return true,
            (Some(First::Http), Service::Https) => {
                // It can be told in its own language.
                let port = self.config.http.port;
                let text = format!(
                    "plain HTTP arrived, but this port speaks TLS: use https:// in the address, or port {port} without"
                );
                conn.transport = Transport::Plain;
                conn.proto = Proto::Http(Box::new(Server::refusing(text, &self.limits, self.now)));
                if let Some(free) = conn.free {
                    self.machine(id, Wire::Writable(free));
                }
                self.machine(id, Wire::Received(bytes));
                return false;
            }
            (Some(First::Http), Service::Rtsps) => {
                // Its requests begin as those of HTTP do, and it can be told in its own language.
                let port = self.config.rtsp.port;
                let text = format!(
                    "plain RTSP arrived, but this port speaks TLS: use rtsps:// in the address, or port {port} without"
                );
                conn.transport = Transport::Plain;
                if let Some(free) = conn.free {
                    self.machine(id, Wire::Writable(free));
                }
                self.tell_rtsp(id, crate::rtsp::server::Input::Refuse(Reason::peer("tls_not", text)));
                return false;
            }
            (Some(First::Rtmp), Service::Rtmps) => {
                let port = self.config.rtmp.port;
                format!(
                    "plain RTMP arrived, but this port speaks TLS: use rtmps:// in the address, or port {port}"
                )
            }
            (Some(First::Stun), Service::Https) if self.config.webrtc.tcp => {
                conn.transport = Transport::Plain;
                conn.proto = Proto::Ice(Box::new(Frames::new(&self.limits, self.now)));
                if let Some(free) = conn.free {
                    self.machine(id, Wire::Writable(free));
                }
                self.machine(id, Wire::Received(bytes));
                return false;
            }
            (Some(First::Stun), _) => "ICE over TCP, which webrtc.tcp does not allow here".to_owned(),
            _ => "what arrived is no TLS".to_owned(),
        };
        self.end_conn(id, Reason::peer("tls_not", text), Some(true));
        false
    }

    /// Encrypts what the machine of a connection said, and sends what the credit covers.
    pub(super) fn flush(&mut self, id: ConnId) {
        let Some(session) = self.session(id) else { return };
        session.seal();
        while let Some(bytes) = self.session(id).and_then(|s| s.pop()) {
            self.send_raw(id, bytes);
        }
    }

    /// When a connection's TLS wants a tick.
    pub(super) fn tls_deadline(&mut self, id: ConnId) -> Option<Deadline> {
        let now = self.now;
        let session = self.session(id)?;
        if session.is_holding() {
            return Some(Deadline::new(now + Duration::from_millis(1), "a tls handshake waits its turn"));
        }
        session.deadline()
    }

    /// A connection is over: what TLS still has to say leaves before it is closed. Answers whether the driver is to close
    /// it now.
    pub(super) fn leave(&mut self, id: ConnId, transport: Transport) -> bool {
        let Transport::Tls(mut session) = transport else { return true };
        if guard(|| session.close()).is_err() {
            return true;
        }
        while let Some(bytes) = session.pop() {
            self.out.push_back(Output::Send { conn: id, bytes });
        }
        let rest = session.into_outbox();
        if rest.is_empty() {
            return true;
        }
        self.tls.leaving.insert(id, rest);
        let until = self.now + Duration::from_millis(self.limits.viewer_stuck_ms);
        self.timers.set(Alarm::Conn(id), Deadline::new(until, "tls end of a connection"));
        false
    }

    /// What the driver says of a connection that is over but for its last bytes.
    pub(super) fn wire_leaving(&mut self, id: ConnId, input: &Wire<'_>) {
        let Some(rest) = self.tls.leaving.get_mut(&id) else { return };
        let now = match input {
            Wire::Writable(free) => {
                rest.set_credit(*free);
                while let Some(bytes) = rest.pop() {
                    self.out.push_back(Output::Send { conn: id, bytes });
                }
                if !rest.is_empty() {
                    return;
                }
                false
            }
            Wire::Tick => true,
            Wire::Received(_) | Wire::PeerFinished => return,
        };
        self.gone(id);
        self.out.push_back(Output::Close { conn: id, now });
    }

    /// A connection that was leaving is gone.
    pub(super) fn gone(&mut self, id: ConnId) {
        if self.tls.leaving.remove(&id).is_some() {
            self.timers.cancel(&Alarm::Conn(id));
        }
    }
}
