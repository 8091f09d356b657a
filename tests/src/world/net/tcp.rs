//! TCP connections: ordered bytes with latency, a window, re-chunking by the seed, dials that are refused or not
//! answered. How they end is in `close`.
//!
//! What is lost is sent again, so that loss, partitions and stalls are delays here. Acknowledgements are no events of
//! their own unless somebody waits for them.

use super::dice;
use super::link::{Chain, Direction, RTO_MIN};
use crate::world::event::Event;
use crate::world::{Owner, Party, World};
use bytes::{Buf, Bytes};
use proto_core::io::Service;
use proto_core::time::Time;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Bytes that may be on their way or unread at the other end, in one direction.
const WINDOW: usize = 64 << 10;
/// Bytes that the sending driver holds (`limits.conn_write_buffer`'s default).
const HELD: usize = 256 << 10;
/// A dial that nobody answered fails after this.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// When the first packet of a dial is sent again, seconds after the first (Linux: the wait doubles from one second).
const SYN_AGAIN: [u64; 3] = [1, 3, 7];
/// The longest wait before lost bytes are sent again. A real kernel's doubles up to two minutes; here a link that is
/// well again is felt soon, so that bounds on liveness can count from the moment of healing.
const RTO_MAX: Duration = Duration::from_millis(1_600);

/// One piece on its way.
#[derive(Debug)]
pub(super) enum Piece {
    /// The dial succeeded.
    Connected,
    Bytes(Bytes),
    Fin,
    Reset,
}

impl Piece {
    fn len(&self) -> usize {
        if let Piece::Bytes(b) = self { b.len() } else { 0 }
    }
}

/// A piece and when it comes.
#[derive(Debug)]
pub(super) struct Coming {
    pub(super) at: Time,
    pub(super) piece: Piece,
    /// It has passed the receiver's access link.
    through: bool,
}

/// One end of a connection.
#[derive(Debug)]
pub(in crate::world) struct End {
    /// Who is told; nobody once that side closed it or died, and while it waits to be accepted.
    pub(in crate::world) owner: Option<Owner>,
    pub(super) party: Party,
    /// As the other end sees it.
    pub(in crate::world) addr: SocketAddr,
    /// What the owner sent and the window did not take yet.
    pub(super) held: VecDeque<Bytes>,
    pub(super) held_bytes: usize,
    /// What the owner knows that it may send.
    granted: usize,
    /// It waits to be accepted.
    pub(super) waiting: bool,
    /// The owner closed it, when; an end follows what is held.
    pub(super) closing: Option<Time>,
    /// When the window last took something.
    pub(super) progress: Time,
    pub(super) fin_sent: bool,
    /// The kernel knows it no more: what comes is answered by a reset.
    pub(super) gone: bool,
    room_due: bool,
    /// Unacknowledged bytes towards the other end, and when which of them will be acknowledged.
    pub(super) flying: usize,
    acks: VecDeque<(Time, usize)>,
    /// Bytes whose acknowledgement by this end was lost.
    owed: usize,
    /// What comes towards this end, in order.
    pub(super) inbound: VecDeque<Coming>,
    /// When what was lost on the way here is sent again, and how often it was.
    again: Option<Time>,
    tries: u32,
    pub(super) reading: bool,
    /// Pieces that came towards this end, and that went from it. Counted apart, so that one direction does not
    /// change the draws of the other.
    pieces: u64,
    cuts: u64,
    chain: Chain,
    /// When this end last heard of the other, and how many questions since were not answered.
    pub(super) heard: Time,
    pub(super) probes: u32,
}

/// A TCP connection; side 0 dialled it.
#[derive(Debug)]
pub(in crate::world) struct Pipe {
    /// What its draws are about: who dialled, and the how-manieth dial of theirs it was.
    key: u64,
    pub(in crate::world) ends: [End; 2],
    pub(super) stands: bool,
    /// The dialler has heard that it stands.
    connected: bool,
    /// The dialler's address leads nowhere any more.
    pub(super) unrouted: bool,
    /// A reset answers what the dialler sends: its address is another's now.
    pub(super) strange: bool,
    distance: [Duration; 2],
    dialled: Time,
}

impl Pipe {
    /// Whether it is a dial of a party that began before a time and has heard no answer yet.
    pub(in crate::world) fn dials(&self, party: Party, before: Time) -> bool {
        let waits = !self.connected && self.ends[0].owner.is_some();
        waits && self.ends[0].party == party && self.dialled < before
    }

    /// Whether a party dialled it and holds it, though it leads nowhere any more.
    pub(in crate::world) fn strands(&self, party: Party) -> bool {
        self.unrouted && self.connected && self.ends[0].party == party && self.ends[0].owner.is_some()
    }

    /// The address that was dialled.
    pub(in crate::world) fn dialled(&self) -> SocketAddr {
        self.ends[1].addr
    }
}

/// All connections, by their numbers.
#[derive(Debug, Default)]
pub(in crate::world) struct Pipes(Vec<Option<Box<Pipe>>>);

impl Pipes {
    fn add(&mut self, pipe: Pipe) -> u64 {
        self.0.push(Some(Box::new(pipe)));
        self.0.len() as u64 - 1
    }

    pub(in crate::world) fn get(&self, id: u64) -> Option<&Pipe> {
        self.0.get(id as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Pipe> {
        self.0.get_mut(id as usize)?.as_deref_mut()
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Box<Pipe>> {
        self.0.get_mut(id as usize)?.take()
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Pipe)> {
        self.0.iter_mut().enumerate().filter_map(|(n, p)| Some((n as u64, p.as_deref_mut()?)))
    }

    pub(in crate::world) fn iter(&self) -> impl Iterator<Item = (u64, &Pipe)> {
        self.0.iter().enumerate().filter_map(|(n, p)| Some((n as u64, p.as_deref()?)))
    }
}

impl World {
    /// Bytes that a side sent and the owner of the other has not been given.
    pub(in crate::world) fn on_the_way(&self, pipe: u64, side: usize) -> usize {
        let Some(p) = self.net.pipes.get(pipe) else { return 0 };
        p.ends[side].held_bytes + p.ends[1 - side].inbound.iter().map(|c| c.piece.len()).sum::<usize>()
    }

    pub(super) fn end(&mut self, pipe: u64, side: usize) -> Option<&mut End> {
        self.net.pipes.get_mut(pipe).map(|p| &mut p.ends[side])
    }

    /// Whether what comes towards a side of a connection gets there at present.
    pub(super) fn pipe_passes(&self, pipe: u64, to: usize) -> bool {
        let Some(p) = self.net.pipes.get(pipe) else { return false };
        !p.unrouted && self.passes(p.ends[1 - to].party, p.ends[to].party)
    }

    /// The time that a piece takes to a side.
    fn latency(&self, pipe: u64, to: usize, nth: u64) -> Duration {
        let Some(p) = self.net.pipes.get(pipe) else { return Duration::ZERO };
        // What the independent client sends differs by some bytes from run to run (its clock is the real one), so
        // its pieces take equal times: where they are cut does not matter then.
        let steady = p.ends.iter().any(|e| matches!(e.party, Party::Client(_)));
        let jitter = if steady { 0 } else { dice(self.seed, JITTER, p.key ^ to as u64, nth) % 1_000 };
        p.distance[to] + Duration::from_micros(jitter)
    }

    /// The time that an acknowledgement takes to a side.
    fn ack_latency(&mut self, pipe: u64, to: usize) -> Duration {
        let Some(p) = self.net.pipes.get(pipe) else { return Duration::ZERO };
        let (from, party, clean) = (p.ends[1 - to].party, p.ends[to].party, p.distance[to]);
        if !self.has_conditions(from, party) {
            return clean;
        }
        let waits =
            self.transit(from, Direction::Up, 0, false).map_or(Duration::ZERO, |at| at.since(self.now));
        let chain = &mut Chain::default();
        clean + waits + self.tcp_delay((from, party), (0, 0), chain, 0, Duration::ZERO)
    }

    pub(in crate::world) fn dial(&mut self, owner: Owner, from: IpAddr, to: SocketAddr) -> u64 {
        let party = owner.party();
        let remote = self.party_at(to.ip()).unwrap_or(Party::Nowhere);
        // Counted by who dials: nobody's dials may change the draws for another's connections.
        let dials = self.net.dials.entry(party).or_default();
        *dials += 1;
        let number = *dials;
        let inner = SocketAddr::new(from, 20_000 + (number % 40_000) as u16);
        let seen = self.nat_tcp(party, inner);
        let end = |owner, party, addr| End {
            owner,
            party,
            addr,
            held: VecDeque::new(),
            held_bytes: 0,
            granted: 0,
            waiting: false,
            closing: None,
            progress: Time::ZERO,
            fin_sent: false,
            gone: false,
            room_due: false,
            flying: 0,
            acks: VecDeque::new(),
            owed: 0,
            inbound: VecDeque::new(),
            again: None,
            tries: 0,
            reading: true,
            pieces: 0,
            cuts: 0,
            chain: Chain::default(),
            heard: Time::ZERO,
            probes: 0,
        };
        let ends = [end(Some(owner), party, seen), end(None, remote, to)];
        let key = dice(self.seed, CONNECTION, party.number(), number);
        let distance = [self.distance(remote, party), self.distance(party, remote)];
        let dialled = self.now;
        let (stands, connected, unrouted, strange) = (false, false, false, false);
        let pipe =
            self.net.pipes.add(Pipe { ends, stands, connected, unrouted, strange, distance, key, dialled });
        let way = self.way(pipe, 1, 0, 0);
        self.at(self.now + way, Event::Syn(pipe, 0));
        self.at(self.now + DIAL_TIMEOUT, Event::DialFailed(pipe, "no answer within 10 s"));
        pipe
    }

    /// A dial reaches the other host, if it gets there and back.
    pub(in crate::world) fn syn(&mut self, pipe: u64, attempt: u32) {
        let Some(p) = self.net.pipes.get(pipe).filter(|p| !p.stands) else { return };
        let (to, remote) = (p.ends[1].addr, p.ends[1].party);
        if remote == Party::Nowhere || !self.pipe_passes(pipe, 1) || !self.pipe_passes(pipe, 0) {
            let wait =
                |n: u32| n.checked_sub(1).and_then(|n| SYN_AGAIN.get(n as usize)).copied().unwrap_or(0);
            if let Some(next) = SYN_AGAIN.get(attempt as usize) {
                let wait = Duration::from_secs(next - wait(attempt));
                self.at(self.now + wait, Event::Syn(pipe, attempt + 1));
            }
            return;
        }
        if !self.accept(remote, pipe, to) {
            let back = self.ack_latency(pipe, 0);
            self.at(self.now + back, Event::DialFailed(pipe, "Connection refused (os error 111)"));
        }
    }

    /// The kernel of the dialled host answers: the connection stands and waits to be accepted.
    pub(in crate::world) fn stand(&mut self, pipe: u64) {
        let now = self.now;
        let Some(p) = self.net.pipes.get_mut(pipe) else { return };
        p.stands = true;
        p.ends[1].waiting = true;
        p.ends.iter_mut().for_each(|e| e.heard = now);
        self.push(pipe, 0, Piece::Connected);
        self.keep_alive(pipe);
    }

    /// A connection that waited is accepted.
    pub(in crate::world) fn accepted(&mut self, pipe: u64, owner: Owner) {
        let Some(end) = self.end(pipe, 1) else { return };
        end.owner = Some(owner);
        end.waiting = false;
        self.room(pipe, 1);
        self.at(self.now, Event::Arrive(pipe, 1));
    }

    pub(in crate::world) fn dial_failed(&mut self, pipe: u64, why: &'static str) {
        let Some(p) = self.net.pipes.get(pipe).filter(|p| !p.connected) else { return };
        let (party, stands) = (p.ends[0].party, p.stands);
        if self.is_paused(party) {
            return self.freeze(party, Event::DialFailed(pipe, why));
        }
        // Where only the answer was lost, the other end learns of it when it sends something.
        let owner = if stands {
            self.drop_end(pipe, 0)
        } else {
            self.net.pipes.remove(pipe).and_then(|p| p.ends.into_iter().next()?.owner)
        };
        if let Some(owner) = owner {
            self.tell_closed(owner, pipe, "dial_failed", why);
        }
    }

    /// The owner of an end sends.
    pub(in crate::world) fn send(&mut self, pipe: u64, side: usize, bytes: Bytes) {
        let Some(end) = self.end(pipe, side) else { return };
        if bytes.is_empty() || end.closing.is_some() {
            return;
        }
        end.held_bytes += bytes.len();
        end.granted = end.granted.saturating_sub(bytes.len());
        end.held.push_back(bytes);
        assert!(end.held_bytes <= HELD || matches!(end.party, Party::Client(_)), "sent beyond its credit");
        self.flush(pipe, side);
    }

    pub(in crate::world) fn reading(&mut self, pipe: u64, side: usize, on: bool) {
        if let Some(end) = self.end(pipe, side) {
            end.reading = on;
            self.at(self.now, Event::Arrive(pipe, side));
        }
    }

    /// How long so many bytes take to a side, if they leave now.
    fn way(&mut self, pipe: u64, to: usize, nth: u64, size: usize) -> Duration {
        let clean = self.latency(pipe, to, nth);
        let Some(p) = self.net.pipes.get(pipe) else { return clean };
        let (key, from, party, mut chain) = (p.key, p.ends[1 - to].party, p.ends[to].party, p.ends[to].chain);
        if !self.has_conditions(from, party) {
            return clean;
        }
        let left = self.transit(from, Direction::Up, size, false).unwrap_or(self.now);
        let rtt = p_round(self.net.pipes.get(pipe));
        let flow = dice(self.seed, FLOW, key, to as u64);
        let delay = self.tcp_delay((from, party), (flow, nth), &mut chain, size, rtt);
        if let Some(end) = self.end(pipe, to) {
            end.chain = chain;
        }
        left.since(self.now) + clean + delay
    }

    /// Puts a piece on its way to a side.
    pub(super) fn push(&mut self, pipe: u64, to: usize, piece: Piece) {
        let Some(end) = self.end(pipe, to) else { return };
        end.pieces += 1;
        let nth = end.pieces;
        let after = end.inbound.back().map(|c| c.at).unwrap_or_default();
        let at = (self.now + self.way(pipe, to, nth, piece.len())).max(after);
        if let Some(end) = self.end(pipe, to) {
            end.inbound.push_back(Coming { at, piece, through: false });
        }
        self.at(at, Event::Arrive(pipe, to));
    }

    /// Puts what an end holds on its way, as far as the window goes.
    pub(in crate::world) fn flush(&mut self, pipe: u64, side: usize) {
        let now = self.now;
        let Some(party) = self.end(pipe, side).map(|e| e.party) else { return };
        if self.is_paused(party) {
            return;
        }
        loop {
            let Some(end) = self.end(pipe, side) else { return };
            while let Some((_, n)) = end.acks.pop_front_if(|(at, _)| *at <= now) {
                end.flying = end.flying.saturating_sub(n);
            }
            let Some(front) = end.held.front().map(Bytes::len) else { break };
            let free = WINDOW.saturating_sub(end.flying);
            if free == 0 {
                if let Some((at, _)) = end.acks.front().copied() {
                    self.at(at, Event::Acked(pipe, side));
                }
                break;
            }
            let nth = end.cuts;
            end.cuts += 1;
            let Some(key) = self.net.pipes.get(pipe).map(|p| p.key) else { return };
            let dice = dice(self.seed, CUT, key ^ side as u64, nth);
            let most = match dice % 10 {
                0 => 1 + dice / 16 % 7,
                1..=5 => 1 + dice / 16 % 1_460,
                _ => 1_460 + dice / 16 % 14_000,
            } as usize;
            let size = front.min(most).min(free);
            let Some(end) = self.end(pipe, side) else { return };
            let Some(front) = end.held.front_mut() else { break };
            let bytes = front.split_to(size);
            if !front.has_remaining() {
                end.held.pop_front();
            }
            end.held_bytes -= size;
            end.flying += size;
            end.progress = now;
            self.push(pipe, 1 - side, Piece::Bytes(bytes));
        }
        let Some(end) = self.end(pipe, side) else { return };
        if end.closing.is_some() && end.held.is_empty() && !end.fin_sent {
            self.fin(pipe, side);
        } else if end.closing.is_none() {
            // A node that is out of credit hears of every byte; else a quarter at a time is soon enough.
            let grown = HELD.saturating_sub(end.held_bytes).saturating_sub(end.granted);
            if grown > 0 && (end.granted == 0 || grown >= HELD / 4) {
                self.room(pipe, side);
            }
        }
    }

    /// Has the owner told how much it may send, once this turn is over.
    fn room(&mut self, pipe: u64, side: usize) {
        if let Some(end) = self.end(pipe, side)
            && !std::mem::replace(&mut end.room_due, true)
        {
            self.at(self.now, Event::Room(pipe, side));
        }
    }

    pub(in crate::world) fn tell_room(&mut self, pipe: u64, side: usize) {
        let Some(party) = self.end(pipe, side).map(|e| e.party) else { return };
        if self.is_paused(party) {
            return self.freeze(party, Event::Room(pipe, side));
        }
        let Some(end) = self.end(pipe, side) else { return };
        end.room_due = false;
        let free = HELD.saturating_sub(end.held_bytes);
        if let Some(owner) = end.owner.filter(|_| end.closing.is_none()) {
            end.granted = free;
            self.tell_writable(owner, pipe, free);
        }
    }

    /// Acknowledges bytes that were read at a side.
    fn ack(&mut self, pipe: u64, side: usize, bytes: usize) {
        if !self.pipe_passes(pipe, 1 - side) {
            if let Some(end) = self.end(pipe, side) {
                let first = end.owed == 0;
                end.owed += bytes;
                if first {
                    self.at(self.now + RTO_MIN, Event::AckAgain(pipe, side));
                }
            }
            return;
        }
        let at = self.now + self.ack_latency(pipe, 1 - side);
        let Some(end) = self.end(pipe, 1 - side) else { return };
        // An acknowledgement is of all that came before.
        let at = end.acks.back().map_or(at, |(last, _)| at.max(*last));
        end.acks.push_back((at, bytes));
        if !end.held.is_empty() && end.acks.len() == 1 {
            self.at(at, Event::Acked(pipe, 1 - side));
        }
    }

    pub(in crate::world) fn ack_again(&mut self, pipe: u64, side: usize) {
        let Some(end) = self.end(pipe, side) else { return };
        let owed = std::mem::take(&mut end.owed);
        self.ack(pipe, side, owed);
    }

    /// What has reached an end by now is handed to its owner.
    pub(in crate::world) fn arrive(&mut self, pipe: u64, side: usize) {
        loop {
            let now = self.now;
            let Some(p) = self.net.pipes.get(pipe) else { return };
            let end = &p.ends[side];
            let (party, size, through) = match end.inbound.front() {
                Some(c) if c.at <= now => (end.party, c.piece.len(), c.through),
                _ => return,
            };
            if end.again.is_some_and(|at| at > now) || end.waiting || self.is_paused(party) {
                return;
            }
            if !through && !self.comes_through(pipe, side, size) {
                return;
            }
            let Some(end) = self.end(pipe, side) else { return };
            // An end behind unread bytes is not seen; a reset is.
            let reset = end.inbound.iter().any(|c| c.at <= now && matches!(c.piece, Piece::Reset));
            if !end.reading && !reset {
                return;
            }
            end.heard = now;
            end.probes = 0;
            let (owner, gone) = (end.owner, end.gone);
            let Some(Coming { piece, .. }) = end.inbound.pop_front() else { return };
            match piece {
                Piece::Connected => {
                    if let Some(p) = self.net.pipes.get_mut(pipe) {
                        p.connected = true;
                    }
                    if let Some(owner) = owner {
                        self.tell_connected(owner, pipe);
                        self.room(pipe, side);
                    }
                }
                Piece::Bytes(_) if gone => self.answer_by_reset(pipe, side),
                Piece::Bytes(bytes) => {
                    self.ack(pipe, side, bytes.len());
                    if let Some(owner) = owner {
                        self.tell_received(owner, pipe, &bytes);
                    }
                }
                Piece::Fin => match owner {
                    Some(owner) => self.tell_finished(owner, pipe),
                    None => self.both_ended(pipe, side),
                },
                Piece::Reset => {
                    self.net.pipes.remove(pipe);
                    if let Some(owner) = owner {
                        self.tell_closed(owner, pipe, "reset", "Connection reset by peer (os error 104)");
                    }
                }
            }
        }
    }

    /// Takes the first piece through the last link. `false`: it comes later.
    fn comes_through(&mut self, pipe: u64, side: usize, size: usize) -> bool {
        let now = self.now;
        if !self.pipe_passes(pipe, side) {
            if self.strange_answers(pipe, side) {
                return false;
            }
            let Some(end) = self.end(pipe, side) else { return false };
            let acked: usize = end.acks.iter().map(|(_, n)| n).sum();
            let repeats = end.flying > acked || end.held_bytes > 0;
            if !repeats && matches!(end.inbound.front(), Some(Coming { piece: Piece::Reset, .. })) {
                // Nobody repeats a reset; but bytes that nobody acknowledges are, and draw another.
                end.inbound.pop_front();
                self.at(now, Event::Arrive(pipe, side));
                return false;
            }
            let at = now + (RTO_MIN * (1 << end.tries.min(5))).min(RTO_MAX);
            end.tries += 1;
            end.again = Some(at);
            self.at(at, Event::Arrive(pipe, side));
            return false;
        }
        let Some(end) = self.end(pipe, side) else { return false };
        end.again = None;
        end.tries = 0;
        let party = end.party;
        let at =
            if self.queues_down(party) { self.transit(party, Direction::Down, size, false) } else { None };
        let Some(front) = self.end(pipe, side).and_then(|e| e.inbound.front_mut()) else { return false };
        front.through = true;
        match at.filter(|at| *at > now) {
            None => true,
            Some(at) => {
                front.at = at;
                self.at(at, Event::Arrive(pipe, side));
                false
            }
        }
    }

    /// All links are clean from now on: what waited before a slow or stalled one comes as over a clean one.
    pub(super) fn hasten(&mut self) {
        let now = self.now;
        let mut due = Vec::new();
        for (id, p) in self.net.pipes.iter_mut() {
            for (side, end) in p.ends.iter_mut().enumerate() {
                let soonest = now + p.distance[side];
                for coming in end.inbound.iter_mut().filter(|c| c.at > soonest) {
                    coming.at = soonest;
                    due.push((soonest, Event::Arrive(id, side)));
                }
                for ack in end.acks.iter_mut().filter(|a| a.0 > soonest) {
                    ack.0 = soonest;
                    due.push((soonest, Event::Acked(id, side)));
                }
            }
        }
        for (at, event) in due {
            self.at(at, event);
        }
    }

    /// How many connections have an end at a party that still has an owner there.
    pub fn connections(&self, party: Party) -> usize {
        let of = |e: &&End| e.party == party && e.owner.is_some();
        self.net.pipes.iter().flat_map(|(_, p)| p.ends.iter()).filter(of).count()
    }

    /// The service behind a port of a host.
    pub(in crate::world) fn service(config: &proto_core::node::config::Config, port: u16) -> Option<Service> {
        let services = [
            (config.http.port, Service::Http),
            (config.rtmp.port, Service::Rtmp),
            (config.rtsp.port, Service::Rtsp),
            (config.cluster.port, Service::Link),
            (config.https.port, Service::Https),
            (config.rtmps.port, Service::Rtmps),
            (config.rtsps.port, Service::Rtsps),
            (config.webrtc.port, Service::IceTcp),
        ];
        let door = config.loops.iter().filter_map(|l| Some((l.doors.get(l.index)?.port(), Service::Door)));
        services.into_iter().chain(door).find(|(p, _)| *p == port).map(|(_, s)| s)
    }
}

fn p_round(pipe: Option<&Pipe>) -> Duration {
    pipe.map_or(Duration::ZERO, |p| p.distance[0] + p.distance[1])
}

/// The kinds of draws of TCP.
const JITTER: u64 = 110;
const CUT: u64 = 111;
const FLOW: u64 = 112;
const CONNECTION: u64 = 113;
