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

/// The socket of WebRTC.
const MEDIA: SocketId = SocketId(0);
/// The socket of links between nodes; the others are RTSP's.
const LINKS: SocketId = SocketId(1);

/// What is known of the datagrams from one address to another.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flow {
    sent: u64,
    chain: Chain,
    /// When the last that nothing overtook arrives.
    last: Time,
    /// Messages that the sender's kernel took or refused.
    offered: u64,
}

/// What a datagram is, as far as it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// RTP.
    Media {
        /// Its source.
        ssrc: u32,
        /// Its number.
        seq: u16,
        /// The last of its picture.
        marked: bool,
    },
    /// RTCP.
    Report,
    /// ICE, DTLS, anything else.
    Other,
}

impl Content {
    fn of(bytes: &[u8]) -> Content {
        match *bytes {
            [128..=191, kind, ..] if (64..96).contains(&(kind & 0x7f)) => Content::Report,
            [128..=191, kind, q0, q1, _, _, _, _, s0, s1, s2, s3, ..] => Content::Media {
                ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
                seq: u16::from_be_bytes([q0, q1]),
                marked: kind & 0x80 != 0,
            },
            _ => Content::Other,
        }
    }
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// When it left.
    pub at: Time,
    /// Who sent it.
    pub from: Party,
    /// Whose address it is for.
    pub to: Party,
    /// What it is.
    pub content: Content,
    /// How many bytes.
    pub bytes: usize,
    /// It never arrives.
    pub lost: bool,
}

impl World {
    /// Notes from now on what becomes of each datagram on a link with conditions, for [`World::fates`].
    pub fn note_fates(&mut self) {
        self.net.fates.get_or_insert_default();
    }

    /// What became of the datagrams so far, in the order in which they left.
    pub fn fates(&self) -> &[Fate] {
        self.net.fates.as_deref().unwrap_or_default()
    }

    /// Puts a node's batch on its way, datagram by datagram. Answers how many transmits its kernel refused.
    pub(in crate::world) fn batch(&mut self, host: HostId, from: SocketAddr, batch: &Batch) -> usize {
        let whole = Bytes::copy_from_slice(&batch.buf);
        let mut refused = 0;
        for item in &batch.items {
            let from = SocketAddr::new(item.src.unwrap_or(from.ip()), from.port());
            let leaves = !self.refuses(host, from, item.dst);
            refused += usize::from(!leaves);
            let (mut at, end) = (item.start, item.start + item.len);
            while at < end {
                let next = (at + item.segment_size.max(1)).min(end);
                if batch.socket == LINKS {
                    // What strangers are sent is looked at in the endpoint's own tests.
                } else if batch.socket != MEDIA {
                    self.rtsp_datagram_out(host, item.dst.ip());
                } else if leaves {
                    self.datagram_out(host, item.dst, &whole[at..next]);
                } else {
                    self.datagram_refused(host, item.dst, &whole[at..next]);
                }
                if leaves {
                    self.datagram(Party::Host(host), from, item.dst, whole.slice(at..next));
                }
                at = next;
            }
        }
        refused
    }

    /// Bytes of RTP that a party has sent so far, whether or not they arrived.
    pub fn media_sent(&self, by: impl Into<Party>) -> u64 {
        self.net.said.get(&by.into()).copied().unwrap_or(0)
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
        if is_rtp(&bytes) {
            *self.net.said.entry(by).or_default() += bytes.len() as u64;
        }
        let receiver = self
            .party_at(to.ip())
            .or_else(|| self.nat_client(to).map(Party::Client))
            .unwrap_or(Party::Nowhere);
        let key = flow_key(from, to);
        let (seed, now) = (self.seed, self.now);
        let flow = self.net.flows.entry(key).or_default();
        flow.sent += 1;
        let mut flow = *flow;
        let nth = flow.sent;
        if !self.passes(by, receiver) {
            return;
        }
        if !self.has_conditions(by, receiver) {
            let micros = 500 + dice(seed, Kind::Delay as u64, key, nth) % 5_000;
            return self.at(now + Duration::from_micros(micros), Event::Datagram { to, from, bytes });
        }
        let fate = self.fate((by, receiver), (key, nth), &mut flow.chain, bytes.len());
        let left = fate.and_then(|_| self.transit(by, Direction::Up, bytes.len(), true));
        if let Some(fates) = &mut self.net.fates {
            let content = Content::of(&bytes);
            let (bytes, lost) = (bytes.len(), left.is_none());
            fates.push(Fate { at: now, from: by, to: receiver, content, bytes, lost });
        }
        let mut at = now;
        if let (Some(fate), Some(left)) = (fate, left) {
            at = left + self.distance(by, receiver) + fate.delay;
            if !fate.overtaken {
                at = at.max(flow.last);
                flow.last = at;
            }
        }
        self.net.flows.insert(key, flow);
        let (Some(fate), Some(_)) = (fate, left) else { return };
        if fate.corrupt && (self.is_plain(by, from.port()) || self.is_plain(receiver, to.port())) {
            // Only UDP's checksum protects these (RFC 768), and the receiving kernel drops what it does not fit.
            return;
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

    /// Whether a port is a node's for RTP that nobody seals.
    fn is_plain(&self, party: Party, port: u16) -> bool {
        let Party::Host(host) = party else { return false };
        let rtsp = &self.hosts[host.0].config.rtsp;
        port.checked_sub(rtsp.udp_port).is_some_and(|n| u64::from(n) < 2 * rtsp.udp_pairs as u64)
    }

    /// A datagram comes to the last link.
    pub(in crate::world) fn datagram_queued(&mut self, to: SocketAddr, from: SocketAddr, bytes: Bytes) {
        let receiver = self.party_at(to.ip()).or_else(|| self.nat_client(to).map(Party::Client));
        match receiver {
            Some(party) if self.queues_down(party) => {
                if let Some(at) = self.transit(party, Direction::Down, bytes.len(), true) {
                    self.at(at, Event::Datagram { to, from, bytes });
                }
            }
            _ => self.datagram_arrives(to, from, bytes),
        }
    }

    /// A datagram reaches its address.
    pub(in crate::world) fn datagram_arrives(&mut self, to: SocketAddr, from: SocketAddr, bytes: Bytes) {
        self.net.media += u64::from(is_rtp(&bytes));
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
        let run = self.hosts[host.0].run.as_ref();
        let on = |(_, at): &(&SocketId, &SocketAddr)| at.port() == to.port();
        let open = run.and_then(|r| Some((r.number, *r.udp.iter().find(on)?.0)));
        if let Some((run, socket)) = open {
            if socket == MEDIA {
                self.datagram_in(host, from, bytes);
            } else if socket != LINKS {
                self.rtsp_heard(host, from.ip());
            }
            let (stride, bytes) = (bytes.len(), &bytes[..]);
            let linked = socket == LINKS && self.is_linked_by_quic(host, from.ip());
            self.node(host, run, Input::Datagram { socket, local: to, remote: from, stride, bytes });
            if linked || socket == LINKS && self.is_linked_by_quic(host, from.ip()) {
                self.heard_datagram(host, from.ip());
            }
        }
    }
}

/// RFC 5761 section 4: payload types 64 to 95 are RTCP.
fn is_rtp(bytes: &[u8]) -> bool {
    matches!(bytes, [128..=191, kind, ..] if !(64..96).contains(&(kind & 0x7f)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proto_core::node::config::Role;

    /// Sends so many messages of three datagrams each from a host to itself. Answers how many were refused, and how
    /// many datagrams came.
    fn send(w: &mut World, host: HostId, messages: usize) -> (usize, usize) {
        let from = SocketAddr::new(w.hosts[host.0].ip, 8_189);
        let mut refused = 0;
        for _ in 0..messages {
            let mut batch = Batch::new(SocketId(0));
            (0..3).for_each(|_| batch.push(None, SocketAddr::new(from.ip(), 9), &[7; 100], 10));
            assert_eq!(batch.items.len(), 1);
            refused += w.batch(host, from, &batch);
        }
        let mut came = 0;
        while let Some((at, event)) = w.queue.pop() {
            came += usize::from(matches!(event, Event::Datagram { ref bytes, .. } if bytes.len() == 100));
            w.now = at;
        }
        (refused, came)
    }

    #[test]
    fn a_kernel_refuses_the_share_that_it_is_told() {
        let mut w = World::quiet(1);
        let host = w.host_off("one", &[Role::Manager], None, |_| {});
        assert_eq!(send(&mut w, host, 100), (0, 300));
        w.refuse_datagrams(host, 0.25);
        let (refused, came) = send(&mut w, host, 4_000);
        assert!((920..=1_080).contains(&refused), "{refused}");
        assert_eq!(came, (4_000 - refused) * 3);
        w.heal_all();
        while w.queue.pop().is_some() {}
        assert_eq!(send(&mut w, host, 100), (0, 300));
    }

    #[test]
    fn damage_is_always_visible() {
        let whole = Bytes::from_static(&[1, 2, 3]);
        assert!((0..1_000).all(|n| damaged(whole.clone(), super::super::mix(n)) != whole));
        assert_eq!(damaged(Bytes::new(), 1), Bytes::new());
    }
}
