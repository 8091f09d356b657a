//! Nodes that are reached by TCP although this one would rather use QUIC, and when QUIC is tried again.
//!
//! A node that does not answer by QUIC may be an older one, or its network lets no UDP through. One that says over TCP that it
//! speaks QUIC is asked once more at once, since it may have started just now, and if it is silent again every now and then:
//! its network may be mended, and what is relayed is not encrypted until then. The link by TCP goes on meanwhile.

use super::links::LinkUse;
use super::quic::is_quic;
use super::{Alarm, Node};
use crate::cluster::NodeId;
use crate::error::Reason;
use crate::io::{ConnId, Level};
use crate::time::{Deadline, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// A node that did not answer by QUIC is dialled by TCP for so long. If it says that it speaks QUIC, that is tried beside the link
/// by TCP after the same time, and again after twice that.
const TCP_ONLY: Duration = Duration::from_secs(60);
/// The longest such time is 2⁴ times the first: 16 minutes.
const DOUBLINGS: u32 = 4;
/// Addresses that are remembered for that.
const TCP_ONLY_MOST: usize = 1_024;

/// A node that did not answer by QUIC.
#[derive(Clone, Copy, Debug)]
struct TcpOnly {
    /// How long that is believed, while no try is due.
    until: Time,
    /// How often QUIC was tried beside a link by TCP, because the node says that it speaks it.
    tries: u32,
}

/// The nodes that did not answer by QUIC.
#[derive(Debug, Default)]
pub(super) struct Fallback {
    nodes: BTreeMap<SocketAddr, TcpOnly>,
    /// Links that are tried by QUIC beside one by TCP.
    beside: BTreeSet<ConnId>,
}

impl Fallback {
    /// Whether a node is to be dialled by TCP.
    pub(super) fn is_tcp_only(&mut self, addr: SocketAddr, now: Time) -> bool {
        self.nodes.retain(|_, only| now < only.until || only.tries > 0);
        self.nodes.contains_key(&addr)
    }

    /// Whether QUIC is tried every now and then with a node that is reached by TCP.
    pub(super) fn is_tried(&self, addr: &SocketAddr) -> bool {
        self.nodes.get(addr).is_some_and(|only| only.tries > 0)
    }

    /// Links that are tried by QUIC beside one by TCP.
    pub(super) fn beside(&self) -> &BTreeSet<ConnId> {
        &self.beside
    }

    /// A link is over, or stands.
    pub(super) fn no_try(&mut self, conn: ConnId) -> bool {
        self.beside.remove(&conn)
    }

    /// A node did not answer by QUIC.
    fn silent(&mut self, addr: SocketAddr, now: Time) {
        if self.nodes.len() < TCP_ONLY_MOST {
            self.nodes.entry(addr).or_insert(TcpOnly { until: now + TCP_ONLY, tries: 0 });
        }
    }

    /// QUIC is tried now: when it is tried again if that fails too. `None` if nothing is known of the node.
    fn next_try(&mut self, addr: SocketAddr, now: Time) -> Option<Time> {
        let only = self.nodes.get_mut(&addr)?;
        let wait = TCP_ONLY * (1 << only.tries.min(DOUBLINGS));
        only.tries = only.tries.saturating_add(1);
        Some(now + wait)
    }

    fn forget(&mut self, addr: &SocketAddr) {
        self.nodes.remove(addr);
    }
}

impl Node {
    /// The link that is in use for something, or is being dialled for it.
    fn link_for(&self, used: &LinkUse) -> Option<ConnId> {
        match used {
            LinkUse::Manager => self.manager_conn,
            LinkUse::Origin(addr) => self.pulls.links.get(addr).copied(),
            LinkUse::Accepted => None,
        }
    }

    fn put_link_for(&mut self, used: &LinkUse, conn: ConnId) {
        match used {
            LinkUse::Manager => self.manager_conn = Some(conn),
            LinkUse::Origin(addr) => _ = self.pulls.links.insert(*addr, conn),
            LinkUse::Accepted => {}
        }
    }

    /// A node that was dialled by QUIC did not answer: it is dialled by TCP, unless it was a try beside a link by TCP.
    pub(super) fn fall_back(&mut self, conn: ConnId, to: SocketAddr, used: &LinkUse) {
        let tried = self.quic.fallback.no_try(conn);
        if !tried && self.link_for(used) == Some(conn) {
            self.quic.fallback.silent(to, self.now);
            let new = self.next_dialled(to, used.clone());
            self.put_link_for(used, new);
        } else if self.quic.fallback.nodes.get(&to).is_some_and(|only| only.tries == 1) {
            let text = format!(
                "node at {to} says that it speaks QUIC and does not answer by it: what is relayed is not encrypted. Is udp {} open \
                 between the nodes, each way? QUIC is tried again in a minute, then ever more rarely; nothing is said if it fails",
                to.port()
            );
            self.log(Level::Warn, "link", "no_quic", text);
        }
    }

    /// A node was reached by TCP and says that it speaks QUIC: it is asked by QUIC once more, since it may have started just
    /// now, and then every now and then. Answers whether it is asked now.
    pub(super) fn ask_again_by_quic(&mut self, conn: ConnId, used: &LinkUse) -> bool {
        let Some(to) = self.conns.get(&conn).map(|c| c.remote) else { return false };
        let fresh = self.link_for(used) == Some(conn) && !self.quic.fallback.is_tried(&to);
        fresh && self.try_quic(to, std::slice::from_ref(used))
    }

    /// Tries QUIC beside links to a node by TCP. Those go on until the new ones stand. Answers whether it is tried.
    fn try_quic(&mut self, addr: SocketAddr, uses: &[LinkUse]) -> bool {
        if !self.quic.is_on() || uses.is_empty() {
            return false;
        }
        let Some(at) = self.quic.fallback.next_try(addr, self.now) else { return false };
        self.timers.set(Alarm::QuicAgain(addr), Deadline::new(at, "QUIC is tried again"));
        for used in uses {
            let conn = self.dial_by_quic(addr, used.clone());
            self.quic.fallback.beside.insert(conn);
        }
        true
    }

    /// It is time to try QUIC again.
    pub(super) fn try_quic_again(&mut self, addr: SocketAddr) {
        let by_tcp = |used: &LinkUse| {
            let link = self.link_for(used).filter(|c| self.link_up(*c).is_some());
            link.and_then(|c| self.conns.get(&c)).is_some_and(|c| c.remote == addr && !is_quic(c))
        };
        let uses = [LinkUse::Manager, LinkUse::Origin(addr)];
        let uses: Vec<LinkUse> = uses.into_iter().filter(by_tcp).collect();
        if !self.try_quic(addr, &uses) {
            // Whoever dials it the next time asks by QUIC first, as if for the first time.
            self.quic.fallback.forget(&addr);
        }
    }

    /// A link by QUIC stands. Where it was tried beside one by TCP it takes its place; answers whether the link is for use.
    pub(super) fn stands_by_quic(&mut self, conn: ConnId, peer: &NodeId, used: &LinkUse) -> bool {
        if *used == LinkUse::Accepted {
            return true;
        }
        if let Some(remote) = self.conns.get(&conn).map(|c| c.remote) {
            self.quic_forgets(remote);
        }
        if !self.quic.fallback.no_try(conn) {
            return true;
        }
        let Some(old) = self.link_for(used) else {
            let reason = Reason::local("by_quic", "the link that it was to replace has gone");
            self.end_conn(conn, reason, Some(false));
            return false;
        };
        let text = format!("link {conn} to node {peer} takes the place of {old}: it answers by QUIC now");
        self.log(Level::Info, "link", "by_quic", text);
        self.put_link_for(used, conn);
        self.end_conn(old, Reason::local("by_quic", "the other node answers by QUIC now"), Some(false));
        true
    }

    /// Nothing is to be remembered of a node: it answers by QUIC, or is not there by TCP either, which says nothing about
    /// what it speaks.
    pub(super) fn quic_forgets(&mut self, addr: SocketAddr) {
        self.quic.fallback.forget(&addr);
        self.timers.cancel(&Alarm::QuicAgain(addr));
    }
}
