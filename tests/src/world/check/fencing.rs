//! Who publishes under which epoch (S1), and the ways that frames take and whom nodes dial (S11).

use super::{Found, broken};
use crate::world::{HostId, World};
use proto_core::ids::{Epoch, NodeId};
use proto_core::media::key::StreamKey;
use proto_core::node::audit::{Audit, Books};
use proto_core::node::session::{Part, SessionId};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What was seen of epochs so far.
#[derive(Debug, Default)]
pub(super) struct Fencing {
    /// Who was accepted under an epoch of a stream.
    accepted: BTreeMap<(StreamKey, Epoch), (HostId, u64, SessionId)>,
    /// The epoch of each stream of each run of a node.
    streams: BTreeMap<(HostId, u64, u64), Epoch>,
    /// What a manager granted last, and what it has in its books.
    last: BTreeMap<(HostId, u64), Epoch>,
    booked: BTreeMap<(HostId, u64, StreamKey), Epoch>,
    /// Pulls whose stream is behind what they heard of: (frames that came in, epoch of the hub).
    behind: BTreeMap<(HostId, u64, StreamKey), (u64, Epoch)>,
}

impl Fencing {
    pub(super) fn look(&mut self, host: HostId, run: u64, name: &NodeId, audit: &Audit) -> Found {
        for s in &audit.sessions {
            let Part::Publishes { epoch, .. } = s.part else { continue };
            let me = (host, run, s.id);
            let first = *self.accepted.entry((s.key.clone(), epoch)).or_insert(me);
            if first != me {
                return broken(
                    "S1",
                    format!(
                        "session {} publishes {} under epoch {epoch}, as session {} of host {} does or did",
                        s.id.0,
                        s.key,
                        first.2.0,
                        first.0.0 + 1
                    ),
                );
            }
        }
        for s in &audit.streams {
            let before = self.streams.insert((host, run, s.id.0), s.epoch);
            if before.is_some_and(|b| b > s.epoch) {
                let before = before.unwrap_or_default();
                return broken("S1", format!("{} went from epoch {before} back to {}", s.key, s.epoch));
            }
        }
        self.relays(host, run, audit)?;
        ways(name, audit)?;
        match &audit.books {
            Some(books) => self.books(host, run, books),
            None => Ok(()),
        }
    }

    /// An edge that heard of a higher epoch takes nothing of a lower one.
    fn relays(&mut self, host: HostId, run: u64, audit: &Audit) -> Found {
        for p in &audit.pulls {
            let Some(s) = audit.streams.iter().find(|s| s.key == p.key) else { continue };
            let me = (host, run, p.key.clone());
            if s.epoch >= p.epoch || p.feeds.is_none() {
                self.behind.remove(&me);
                continue;
            }
            let before = self.behind.insert(me, (s.offered, s.epoch));
            if let Some((offered, epoch)) = before
                && epoch == s.epoch
                && s.offered > offered
            {
                let n = s.offered - offered;
                let text = format!("{n} frames of {} under epoch {epoch} came in after {}", p.key, p.epoch);
                return broken("S1", text);
            }
        }
        Ok(())
    }

    fn books(&mut self, host: HostId, run: u64, books: &Books) -> Found {
        let before = self.last.insert((host, run), books.last).unwrap_or_default();
        if before > books.last {
            return broken("S1", format!("the manager's epoch went from {before} back to {}", books.last));
        }
        for s in &books.streams {
            let before = self.booked.insert((host, run, s.key.clone()), s.epoch);
            if before.is_some_and(|b| b > s.epoch) {
                let before = before.unwrap_or_default();
                let text = format!("in the books {} went from epoch {before} back to {}", s.key, s.epoch);
                return broken("S1", text);
            }
        }
        // What left the books may come back with what its node still has.
        let known = |key: &StreamKey| books.streams.binary_search_by(|s| s.key.cmp(key)).is_ok();
        self.booked.retain(|(h, r, key), _| (*h, *r) != (host, run) || known(key));
        Ok(())
    }
}

impl World {
    /// S11: a node dials links of others, and websockets of other nodes' HTTP ports, and doors of other loops of its process;
    /// never itself, and nobody else but the servers that it is told to pull from and push to.
    pub(in crate::world) fn dials(&mut self, from: HostId, to: SocketAddr) {
        let name = self.hosts[from.0].config.node.name.clone();
        // Where no host stands, something else went wrong: a name that resolves to nothing.
        let Some(i) = self.hosts.iter().position(|h| h.ip == to.ip()) else { return };
        let (own, other) = (&self.hosts[from.0].config, &self.hosts[i].config);
        let remote = !own.sources.is_empty() || !own.destinations.is_empty();
        let ports = (other.cluster.port, other.http.port);
        if remote && i != from.0 && [other.rtsp.port, other.rtmp.port].contains(&to.port()) {
            return;
        }
        let mine = own.loops.as_ref().is_some_and(|l| l.doors.contains(&to));
        if mine && i != from.0 {
            return;
        }
        if to.port() != ports.0 && to.port() != ports.1 {
            self.violate("S11", format!("{name} dials {to}, which is no port for nodes"));
        } else if to.port() == ports.1 && i == from.0 {
            self.violate("S11", format!("{name} dials its own HTTP port, {to}"));
        }
    }
}

/// S11: frames pass no node twice, and at most four.
fn ways(name: &NodeId, audit: &Audit) -> Found {
    const HOPS: usize = 4;
    for p in &audit.pulls {
        let twice = p.path.iter().enumerate().find(|(i, n)| p.path[..*i].contains(n));
        let round = p.path.contains(name) || twice.is_some();
        if round || p.path.len() > HOPS {
            let way: Vec<&str> = p.path.iter().map(|n| n.0.as_str()).collect();
            let text =
                format!("{} comes by way of {} ({} hops, most {HOPS})", p.key, way.join(", "), way.len());
            return broken("S11", text);
        }
    }
    Ok(())
}
