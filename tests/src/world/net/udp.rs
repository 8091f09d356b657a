//! Datagrams between parties.

use super::link::{Chain, Direction, Kind};
use super::{dice, flow_key};
use crate::world::actors::In;
use crate::world::event::Event;
use crate::world::{ClientId, HostId, Party, World};
use bytes::Bytes;
use proto_core::io::{Batch, Input, SocketId};
use proto_core::time::Time;
use std::net::SocketAddr;
use std::time::Duration;

/// What is known of the datagrams from one address to another.
#[derive(Debug, Default)]
pub(super) struct Flow {
    sent: u64,
    chain: Chain,
    /// When the last that nothing overtook arrives.
    last: Time,
    /// Messages that the sender's kernel took or refused.
    offered: u64,
}

impl World {
    /// Puts a node's batch on its way, datagram by datagram. Answers how many transmits its kernel refused.
    pub(in crate::world) fn batch(&mut self, host: HostId, from: SocketAddr, batch: &Batch) -> usize {
        let whole = Bytes::copy_from_slice(&batch.buf);
        let mut refused = 0;
        for item in &batch.items {
            let from = SocketAddr::new(item.src.unwrap_or(from.ip()), from.port());
            if self.refuses(host, from, item.dst) {
                refused += 1;
                continue;
            }
            let (mut at, end) = (item.start, item.start + item.len);
            while at < end {
                let next = (at + item.segment_size.max(1)).min(end);
                self.datagram(Party::Host(host), from, item.dst, whole.slice(at..next));
                at = next;
            }
        }
        refused
    }

    /// The number of the next message of a flow that a kernel may refuse.
    pub(in crate::world) fn count_refusals(&mut self, flow: u64) -> u64 {
        let flow = self.net.flows.entry(flow).or_default();
        flow.offered += 1;
        flow.offered
    }

    /// Puts one datagram on its way.
    pub(in crate::world) fn datagram(&mut self, by: Party, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        let from = match by {
            Party::Client(c) => match self.clients[c.0].nat {
                Some(nat) => self.nat_out(nat, c, from, to),
                None => from,
            },
            _ => from,
        };
        self.overheard(by, from, to, &bytes);
        let receiver = self
            .party_at(to.ip())
            .or_else(|| self.nat_client(to).map(Party::Client))
            .unwrap_or(Party::Nowhere);
        let key = flow_key(from, to);
        let (seed, now) = (self.seed, self.now);
        let flow = self.net.flows.entry(key).or_default();
        flow.sent += 1;
        let nth = flow.sent;
        if !self.passes(by, receiver) {
            return;
        }
        if !self.has_conditions(by, receiver) {
            let micros = 500 + dice(seed, Kind::Delay as u64, key, nth) % 5_000;
            return self.at(now + Duration::from_micros(micros), Event::Datagram { to, from, bytes });
        }
        let Some(flow) = self.net.flows.get(&key) else { return };
        let (mut chain, last) = (flow.chain, flow.last);
        let fate = self.fate((by, receiver), (key, nth), &mut chain, bytes.len());
        if let Some(flow) = self.net.flows.get_mut(&key) {
            flow.chain = chain;
        }
        let Some(fate) = fate else { return };
        let Some(left) = self.pass(by, Direction::Up, bytes.len(), true) else { return };
        let mut at = left + self.distance(by, receiver) + fate.delay;
        if !fate.overtaken {
            at = at.max(last);
            if let Some(flow) = self.net.flows.get_mut(&key) {
                flow.last = at;
            }
        }
        let bytes = if fate.corrupt {
            damaged(bytes, dice(seed, Kind::CorruptWhere as u64, key, nth))
        } else {
            bytes
        };
        if fate.twice {
            let later = Duration::from_micros(1 + dice(seed, Kind::Late as u64, key, nth) % 5_000);
            self.at(at + later, Event::Queued { to, from, bytes: bytes.clone() });
        }
        self.at(at, Event::Queued { to, from, bytes });
    }

    /// A datagram comes to the last link.
    pub(in crate::world) fn datagram_queued(&mut self, to: SocketAddr, from: SocketAddr, bytes: Bytes) {
        let receiver = self.party_at(to.ip()).or_else(|| self.nat_client(to).map(Party::Client));
        match receiver {
            Some(party) if self.queues_down(party) => {
                if let Some(at) = self.pass(party, Direction::Down, bytes.len(), true) {
                    self.at(at, Event::Datagram { to, from, bytes });
                }
            }
            _ => self.datagram_arrives(to, from, bytes),
        }
    }

    /// A datagram reaches its address.
    pub(in crate::world) fn datagram_arrives(&mut self, to: SocketAddr, from: SocketAddr, bytes: Bytes) {
        match self.party_at(to.ip()) {
            Some(party) if self.is_cut_off(party) => {}
            Some(Party::Host(host)) => self.host_datagram(host, to, from, bytes),
            Some(Party::Client(ClientId(n))) => {
                self.client(ClientId(n), In::Datagram { port: to.port(), from, bytes: &bytes });
            }
            Some(Party::Nowhere) => {}
            None => {
                if let Some((client, inner)) = self.nat_in(to, from)
                    && !self.is_cut_off(Party::Client(client))
                {
                    self.client(client, In::Datagram { port: inner.port(), from, bytes: &bytes });
                }
            }
        }
    }

    /// Hands a datagram to the node of a host, if its socket is open.
    pub(in crate::world) fn node_datagram(
        &mut self,
        host: HostId,
        to: SocketAddr,
        from: SocketAddr,
        bytes: &Bytes,
    ) {
        let open = self.hosts[host.0].run.as_ref().filter(|r| r.udp.is_some_and(|u| u.port() == to.port()));
        if let Some(run) = open.map(|r| r.number) {
            let (socket, stride, bytes) = (SocketId(0), bytes.len(), &bytes[..]);
            self.node(host, run, Input::Datagram { socket, local: to, remote: from, stride, bytes });
        }
    }
}

/// The same bytes with one to three bits wrong.
fn damaged(bytes: Bytes, dice: u64) -> Bytes {
    let mut wrong = bytes.to_vec();
    for n in 0..=dice % 3 {
        let bit = (dice >> (2 + n * 20)) % (wrong.len().max(1) as u64 * 8);
        if let Some(byte) = wrong.get_mut((bit / 8) as usize) {
            *byte ^= 1 << (bit % 8);
        }
    }
    // Two of them may have hit the same bit.
    if wrong[..] == bytes[..]
        && let Some(first) = wrong.first_mut()
    {
        *first ^= 1;
    }
    wrong.into()
}
