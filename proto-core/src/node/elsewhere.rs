//! RTSP clients that another node serves better: 302 and REDIRECT.
//!
//! A node serves whoever comes, by a pull or by claiming the name. It sends clients away where it cannot serve them (it
//! drains, or is full), and where it should not: players at a node without the role edge, most of all at a manager, whose
//! address may be the only one that they have. Of those only who is known to follow: what a player makes of a 302 is its
//! own affair (ffmpeg and what is made of it, and GStreamer, follow one that answers DESCRIBE; no publisher was found
//! that follows any).

use super::Node;
use super::authority::{Asker, Then};
use super::conns::{Conn, Proto};
use super::session::{Carrier, Protocol};
use crate::auth::{self, Decision};
use crate::cluster::manager::{Action, Input as Ask, Pairing, Placement};
use crate::cluster::placement::Refusal;
use crate::error::Broken;
use crate::http::event;
use crate::ids::Role;
use crate::io::{ConnId, Level};
use crate::machine::Machine;
use crate::media::key::StreamKey;
use crate::rtsp::server::Input;
use std::collections::{BTreeMap, BTreeSet};

/// What the names of clients that follow a 302 at DESCRIBE begin with, as they were seen to.
const FOLLOWS: [&str; 3] = ["Lavf", "GStreamer", "libmpv"];

/// Questions to the manager: who is to be sent where. A connection has one at most, since nothing more is read of it until
/// it is answered.
pub(super) type Asking = BTreeMap<u64, (ConnId, Wish)>;

/// What an RTSP client wants.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) key: StreamKey,
    /// The query behind the name. May hold secrets.
    pub(super) query: String,
    pub(super) action: Action,
    pub(super) asker: Asker,
}

impl Node {
    /// An RTSP client asked for a stream, or to publish one. Serves it, or sends it elsewhere.
    pub(super) fn rtsp_asked(&mut self, conn: ConnId, wish: Wish) {
        if !self.is_rtsp(conn) {
            return;
        }
        // What the client calls it may be a publish key; the manager knows the stream.
        let (key, action) = (self.authority.policy.likely(&wish.key), wish.action);
        let refuses = self.no_room().is_some();
        let misplaced = action == Action::Subscribe
            && !self.config.has_role(Role::Edge)
            && self.hub.find(&key).is_none()
            && self.rtsp_follows(conn);
        if !self.config.rtsp.redirect || !(refuses || misplaced) {
            return self.rtsp_here(conn, wish);
        }
        // Who may not play is told nothing of where the stream is. Publishers were asked before they announced.
        if action == Action::Subscribe {
            match self.decide(auth::Action::Play, Some(&key), &wish.asker) {
                Decision::Allow(_) => {}
                Decision::Refuse(refusal) => return self.refuse_rtsp(conn, "viewer", refusal),
                Decision::Pending(pending) => {
                    return self.verify_then(pending, Then::Elsewhere(conn, Box::new(wish)));
                }
            }
        }
        if let Some(manager) = &mut self.manager {
            self.next_req += 1;
            let req = self.next_req;
            let pairing = Pairing { action, key, regions: Vec::new(), strict: false, count: 1, leaves: None };
            self.elsewhere.insert(req, (conn, wish));
            return manager.handle(Ask::Pair { req, pairing }, self.now);
        }
        match self.rtsp_at_the_manager(conn) {
            Some(base) => self.rtsp_sent(conn, &base, &wish),
            None => self.rtsp_here(conn, wish),
        }
    }

    fn rtsp_here(&mut self, conn: ConnId, wish: Wish) {
        let Wish { key, action, asker, .. } = wish;
        match action {
            Action::Broadcast => {
                let via = self.conn_via(conn);
                self.conn_publish(Protocol::Rtsp, Carrier::Conn(conn), key, asker, via);
            }
            Action::Subscribe => self.conn_play(Protocol::Rtsp, Carrier::Conn(conn), key, asker),
        }
    }

    fn rtsp_follows(&self, conn: ConnId) -> bool {
        let Some(Conn { proto: Proto::Rtsp(m), .. }) = self.conns.get(&conn) else { return false };
        FOLLOWS.iter().any(|name| m.agent().starts_with(name))
    }

    /// Where the manager speaks RTSP. It knows where to go on from there.
    fn rtsp_at_the_manager(&self, conn: ConnId) -> Option<String> {
        // Where the manager is another loop of this process, that is the address where the client is.
        if self.manager_loop().is_some() {
            return None;
        }
        let tls = self.conns.get(&conn)?.service.is_secure();
        self.member.manager_rtsp(tls).map(str::to_owned)
    }

    /// Sends a client on to a server, for what it asked for as it asked for it.
    fn rtsp_sent(&mut self, conn: ConnId, base: &str, wish: &Wish) {
        let Wish { key, query, .. } = wish;
        let (_, named) = self.authority.policy.public(key);
        let public = self.authority.policy.likely(key);
        let by = named.map(|name| format!(" (by the key {name:?})")).unwrap_or_default();
        self.log_conn(conn, Level::Info, format!("sent on to {base}/{public}{by}"));
        let mark = if query.is_empty() { "" } else { "?" };
        self.tell_rtsp(conn, Input::Elsewhere(format!("{base}/{key}{mark}{query}")));
    }

    /// The manager answered a pairing question. `false`: it was not about an RTSP client.
    pub(super) fn elsewhere_placed(&mut self, req: u64, result: &Result<Box<Placement>, Refusal>) -> bool {
        let Some((conn, wish)) = self.elsewhere.remove(&req) else { return false };
        let Some(tls) = self.conns.get(&conn).map(|c| c.service.is_secure()) else { return true };
        match result {
            Ok(p) if p.node.id != self.id && self.sibling(&p.node.id).is_none() => {
                match p.node.advertised.rtsp_base(tls) {
                    base if base.is_empty() => self.rtsp_here(conn, wish),
                    base => {
                        let asked = match wish.action {
                            Action::Broadcast => event::Action::Broadcast,
                            Action::Subscribe => event::Action::Subscribe,
                        };
                        let public = self.authority.policy.likely(&wish.key);
                        self.gave_out(asked, &public, p);
                        self.rtsp_sent(conn, &base, &wish);
                    }
                }
            }
            _ => self.rtsp_here(conn, wish),
        }
        true
    }

    /// A connection waits no longer for what the manager says.
    pub(super) fn elsewhere_gone(&mut self, conn: ConnId) {
        self.elsewhere.retain(|_, (of, _)| *of != conn);
    }

    /// Whether each question to the manager is that of one connection, which has no other.
    pub(super) fn verify_elsewhere(&self) -> Result<(), Broken> {
        let conns: BTreeSet<ConnId> = self.elsewhere.values().map(|(conn, _)| *conn).collect();
        let gone = conns.iter().find(|conn| !self.is_rtsp(**conn));
        Broken::unless(gone.is_none() && conns.len() == self.elsewhere.len(), "S7", || {
            format!(
                "{} questions where RTSP clients are to go, of {} connections; {gone:?} is none",
                self.elsewhere.len(),
                conns.len()
            )
        })
    }

    /// This node takes nothing new: its RTSP clients are told where they may go on. Those who do not know the request stay
    /// until they are ended.
    pub(super) fn rtsp_redirect_all(&mut self) {
        if !self.config.rtsp.redirect {
            return;
        }
        let all: Vec<ConnId> =
            self.conns.iter().filter(|(_, c)| matches!(c.proto, Proto::Rtsp(_))).map(|(id, _)| *id).collect();
        for conn in all {
            if self.sessions.on(Carrier::Conn(conn)).is_some()
                && let Some(base) = self.rtsp_at_the_manager(conn)
            {
                self.tell_rtsp(conn, Input::Redirect(base));
            }
        }
    }
}
