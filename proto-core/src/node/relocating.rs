//! RTMP clients that are asked to reconnect where this node takes nothing new (Enhanced RTMP v2, Reconnect Request).
//!
//! The manager is asked for each where it would go on, for it alone knows who has room. Publishers come back with the name that
//! they have here, so it does not matter that this name is taken; and since they come there before this node notices that they
//! have left, the manager hears first that their names are free. Nobody is sent from TLS to plain TCP: where it is not known where the
//! other node speaks RTMPS, a client by RTMPS is asked to reconnect without being told where.

use super::Node;
use super::conns::{Conn, Proto};
use super::session::{Part, SessionId};
use crate::cluster::Epoch;
use crate::cluster::member::{self, Elsewhere};
use crate::io::{ConnId, Level};
use crate::machine::Machine;
use crate::media::key::StreamKey;
use crate::rtmp::server::Input;
use crate::time::Time;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// So many questions to the manager are open at a time; the rest wait for their answers.
const AT_ONCE: usize = 64;
/// Whoever has not left by then stays: its names are its own again.
const LEAVES_WITHIN: Duration = Duration::from_secs(10);

/// Who is asked for, and who is next.
#[derive(Debug, Default)]
pub(super) struct Relocating {
    asked: BTreeMap<u64, ConnId>,
    next: VecDeque<ConnId>,
    /// Names whose publishers leave, and until when that is believed.
    leaving: BTreeMap<StreamKey, Time>,
}

impl Relocating {
    /// Whether the publisher of this name was asked to go on elsewhere a short while ago.
    pub(super) fn leaves(&self, key: &StreamKey, now: Time) -> bool {
        self.leaving.get(key).is_some_and(|until| now < *until)
    }
}

impl Node {
    /// This node takes nothing new: its RTMP clients that obey are told where they may go on, one after the other.
    pub(super) fn rtmp_relocate_all(&mut self) {
        let obeys = |c: &Conn| matches!(&c.proto, Proto::Rtmp(m) if m.reconnects());
        self.relocating.next = self.conns.iter().filter(|(_, c)| obeys(c)).map(|(id, _)| *id).collect();
        self.rtmp_relocate_more();
    }

    fn rtmp_relocate_more(&mut self) {
        while self.draining
            && self.relocating.asked.len() < AT_ONCE
            && let Some(conn) = self.relocating.next.pop_front()
        {
            match self.what_it_does(conn) {
                Some((key, publishes)) => {
                    // In this order, so that the answer comes when the manager knows.
                    self.free_names_of(conn);
                    let req = self.next_req();
                    self.relocating.asked.insert(req, conn);
                    self.member.handle(member::Input::Relocate { req, key, publishes }, self.now);
                }
                None => self.tell_rtmp(conn, Input::Reconnect(None)),
            }
        }
    }

    /// Whoever publishes what this connection does now may do so elsewhere.
    fn free_names_of(&mut self, conn: ConnId) {
        for (key, epoch) in self.published_by(conn) {
            self.relocating.leaving.insert(key.clone(), self.now + LEAVES_WITHIN);
            self.member.handle(member::Input::Held { key, epoch }, self.now);
        }
    }

    fn published_by(&self, conn: ConnId) -> Vec<(StreamKey, Epoch)> {
        let published = |id: SessionId| {
            let session = self.sessions.get(id)?;
            let Part::Publishes { epoch, .. } = session.part else { return None };
            Some((session.key.clone(), epoch))
        };
        self.sessions.of_conn(conn).into_iter().filter_map(published).collect()
    }

    /// What a connection publishes, else what it plays: of several the first.
    fn what_it_does(&self, conn: ConnId) -> Option<(StreamKey, bool)> {
        let does = |id: SessionId| {
            let session = self.sessions.get(id)?;
            Some((session.key.clone(), matches!(session.part, Part::Publishes { .. })))
        };
        let all = self.sessions.of_conn(conn).into_iter().filter_map(does);
        all.reduce(|first, other| if first.1 || !other.1 { first } else { other })
    }

    /// The manager answered where a client would go on.
    pub(super) fn rtmp_relocated(&mut self, req: u64, to: Option<Elsewhere>) {
        let Some(conn) = self.relocating.asked.remove(&req) else { return };
        if self.draining {
            let secure = self.conns.get(&conn).is_some_and(|c| c.service.is_secure());
            // Other loops of this process end with this one.
            let to = to.filter(|to| self.sibling(&to.node).is_none());
            let to = to.map(|to| (to.node, if secure { to.rtmps } else { to.rtmp }));
            let to = to.filter(|(_, base)| !base.is_empty());
            let place = match &to {
                Some((node, base)) => format!("at {base} (node {node})"),
                None => "with its URL: nobody knows another place".to_owned(),
            };
            if to.is_none() {
                for (key, _) in self.published_by(conn) {
                    self.relocating.leaving.remove(&key);
                }
            }
            self.log_conn(conn, Level::Info, format!("asked to reconnect {place}"));
            self.tell_rtmp(conn, Input::Reconnect(to.map(|(_, base)| base)));
        }
        self.rtmp_relocate_more();
    }
}
