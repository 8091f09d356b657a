//! TCP connections:  ordered bytes with latency, a window, re-chunking by the seed, half-close, reset,
//! failing dials and silent loss.

use crate::world::event::Event;
use crate::world::{Owner, Party, World};
use bytes::{Buf, Bytes};
use proto_core::io::{ConnId, Service};
use proto_core::time::Time;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Bytes that may be on their way or unread at the other end, in one direction.
const WINDOW: usize = 64 << 10;
/// Bytes that the sending driver holds (`limits.conn_write_buffer`'s default).
const HELD: usize = 256 << 10;
/// A dial over a link that loses everything fails after this.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a sender tries again over a link that loses everything.
const RETRANSMIT: Duration = Duration::from_millis(200);
/// A connection that one side closed is reset if the other does not close it within this after the last byte.
const LINGER: Duration = Duration::from_secs(2);
/// A closed connection that gets no byte through for this long is reset.
const FLUSH_STALL: Duration = Duration::from_secs(10);

/// One piece on its way.
#[derive(Debug)]
enum Piece {
    /// The dial succeeded.
    Connected,
    Bytes(Bytes),
    Fin,
    Reset,
}

/// One end of a connection.
#[derive(Debug)]
pub(in crate::world) struct End {
    /// Who is told; nobody once that side closed it or died.
    owner: Option<Owner>,
    party: Party,
    pub(in crate::world) addr: SocketAddr,
    /// What the owner sent and the window did not take yet.
    held: VecDeque<Bytes>,
    held_bytes: usize,
    /// The owner closed it; an end follows what is held.
    closing: bool,
    fin_sent: bool,
    room_due: bool,
    /// Unacknowledged bytes towards the other end.
    flying: usize,
    /// What comes towards this end, in order.
    inbound: VecDeque<(Time, Piece)>,
    reading: bool,
    /// Pieces that came towards this end, and that went from it. Counted apart, so that one direction does not
    /// change the draws of the other.
    pieces: u64,
    cuts: u64,
}

/// A TCP connection; side 0 dialled it.
#[derive(Debug)]
pub(in crate::world) struct Pipe {
    pub(in crate::world) ends: [End; 2],
    stands: bool,
    dialled: Time,
}

impl Pipe {
    /// Whether it is a dial of a party, not answered yet, that began before a time.
    pub(in crate::world) fn dials(&self, party: Party, before: Time) -> bool {
        !self.stands && self.ends[0].party == party && self.dialled < before
    }
}

impl World {
    fn end(&mut self, pipe: u64, side: usize) -> Option<&mut End> {
        self.pipes.get_mut(&pipe).map(|p| &mut p.ends[side])
    }

    fn pipe_is_cut(&self, pipe: u64) -> bool {
        self.pipes.get(&pipe).is_some_and(|p| self.is_cut(p.ends[0].party, p.ends[1].party))
    }

    /// The time that a piece takes over the link between two parties.
    fn latency(&self, pipe: u64, side: usize, nth: u64) -> Duration {
        let Some(p) = self.pipes.get(&pipe) else { return Duration::ZERO };
        let (a, b) = (p.ends[0].party, p.ends[1].party);
        let base = 200 + self.draw("base", a.number(), b.number()) % 9_800;
        // What the independent client sends differs by some bytes from run to run (its clock is the real one), so
        // its pieces take equal times: where they are cut does not matter then.
        let steady = [a, b].iter().any(|p| matches!(p, Party::Client(_)));
        let jitter = if steady { 0 } else { self.draw("jitter", pipe * 2 + side as u64, nth) % 1_000 };
        Duration::from_micros(base + jitter)
    }

    pub(in crate::world) fn dial(&mut self, owner: Owner, from: IpAddr, to: SocketAddr) -> u64 {
        self.next_pipe += 1;
        let pipe = self.next_pipe;
        let party = owner.party();
        let remote = self.party_at(to.ip());
        let end = |owner, party, addr| End {
            owner,
            party,
            addr,
            held: VecDeque::new(),
            held_bytes: 0,
            closing: false,
            fin_sent: false,
            room_due: false,
            flying: 0,
            inbound: VecDeque::new(),
            reading: true,
            pieces: 0,
            cuts: 0,
        };
        let port = 20_000 + (pipe % 40_000) as u16;
        let near = end(Some(owner), party, SocketAddr::new(from, port));
        let far = end(None, remote.unwrap_or(Party::Nowhere), to);
        self.pipes.insert(pipe, Pipe { ends: [near, far], stands: false, dialled: self.now });
        let latency = self.latency(pipe, 0, 0);
        if remote.is_none() || self.pipe_is_cut(pipe) {
            self.at(self.now + DIAL_TIMEOUT, Event::DialFailed(pipe, "timed out"));
        } else {
            self.at(self.now + latency, Event::Syn(pipe));
        }
        pipe
    }

    /// A dial reaches the other host.
    pub(in crate::world) fn syn(&mut self, pipe: u64) {
        if self.pipe_is_cut(pipe) {
            return self.at(self.now + DIAL_TIMEOUT, Event::DialFailed(pipe, "timed out"));
        }
        let Some(p) = self.pipes.get(&pipe) else { return };
        let (to, remote, from) = (p.ends[1].addr, p.ends[1].party, p.ends[0].addr);
        let back = self.latency(pipe, 1, 0);
        match self.accept(remote, pipe, to, from) {
            Some(owner) => {
                if let Some(p) = self.pipes.get_mut(&pipe) {
                    p.ends[1].owner = Some(owner);
                    p.stands = true;
                }
                self.push(pipe, 0, Piece::Connected);
                self.room(pipe, 1);
            }
            None => self.at(self.now + back, Event::DialFailed(pipe, "connection refused")),
        }
    }

    pub(in crate::world) fn dial_failed(&mut self, pipe: u64, why: &'static str) {
        if let Some(owner) = self.pipes.remove(&pipe).and_then(|p| p.ends.into_iter().next()?.owner) {
            self.tell_closed(owner, pipe, "dial_failed", why);
        }
    }

    /// The owner of an end sends.
    pub(in crate::world) fn send(&mut self, pipe: u64, side: usize, bytes: Bytes) {
        let Some(end) = self.end(pipe, side) else { return };
        if bytes.is_empty() || end.closing {
            return;
        }
        end.held_bytes += bytes.len();
        end.held.push_back(bytes);
        assert!(end.held_bytes <= HELD || matches!(end.party, Party::Client(_)), "sent beyond its credit");
        self.flush(pipe, side);
    }

    /// The owner of an end closes it and hears nothing more of it.
    pub(in crate::world) fn close(&mut self, pipe: u64, side: usize, at_once: bool) {
        let Some(p) = self.pipes.get_mut(&pipe) else { return };
        p.ends[side].owner = None;
        if !p.stands {
            self.pipes.remove(&pipe);
            return;
        }
        if at_once {
            return self.reset(pipe, side);
        }
        let end = &mut p.ends[side];
        end.closing = true;
        end.reading = true;
        self.at(self.now + FLUSH_STALL, Event::Stalled(pipe, side, 0));
        self.at(self.now, Event::Arrive(pipe, side));
        self.flush(pipe, side);
    }

    /// An end dies at once, and the other is told by a reset.
    fn reset(&mut self, pipe: u64, side: usize) {
        let Some(end) = self.end(pipe, side) else { return };
        end.owner = None;
        end.held.clear();
        end.inbound.clear();
        if !end.fin_sent {
            end.fin_sent = true;
            end.closing = true;
        }
        self.push(pipe, 1 - side, Piece::Reset);
    }

    pub(in crate::world) fn reading(&mut self, pipe: u64, side: usize, on: bool) {
        if let Some(end) = self.end(pipe, side) {
            end.reading = on;
            self.at(self.now, Event::Arrive(pipe, side));
        }
    }

    /// Puts a piece on its way to a side.
    fn push(&mut self, pipe: u64, to: usize, piece: Piece) {
        let Some(end) = self.end(pipe, to) else { return };
        end.pieces += 1;
        let nth = end.pieces;
        let after = end.inbound.back().map(|(at, _)| *at);
        let at = (self.now + self.latency(pipe, to, nth)).max(after.unwrap_or_default());
        if let Some(end) = self.end(pipe, to) {
            end.inbound.push_back((at, piece));
        }
        self.at(at, Event::Arrive(pipe, to));
    }

    /// Puts what an end holds on its way, as far as the window goes.
    fn flush(&mut self, pipe: u64, side: usize) {
        loop {
            let Some(end) = self.end(pipe, side) else { return };
            let free = WINDOW.saturating_sub(end.flying);
            let Some(front) = end.held.front().map(Bytes::len).filter(|_| free > 0) else { break };
            let nth = end.cuts;
            end.cuts += 1;
            let dice = self.draw("cut", pipe * 2 + side as u64, nth);
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
            self.push(pipe, 1 - side, Piece::Bytes(bytes));
            self.room(pipe, side);
        }
        let Some(end) = self.end(pipe, side) else { return };
        if end.closing && end.held.is_empty() && !end.fin_sent {
            end.fin_sent = true;
            self.push(pipe, 1 - side, Piece::Fin);
            self.at(self.now + LINGER, Event::Lingered(pipe, side));
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
        let Some(end) = self.end(pipe, side) else { return };
        end.room_due = false;
        let free = HELD.saturating_sub(end.held_bytes);
        if let Some(owner) = end.owner.filter(|_| !end.closing) {
            self.tell_writable(owner, pipe, free);
        }
    }

    pub(in crate::world) fn acked(&mut self, pipe: u64, side: usize, bytes: usize) {
        if let Some(end) = self.end(pipe, side) {
            end.flying = end.flying.saturating_sub(bytes);
            self.flush(pipe, side);
        }
    }

    /// What has reached an end by now is handed to its owner.
    pub(in crate::world) fn arrive(&mut self, pipe: u64, side: usize) {
        loop {
            let cut = self.pipe_is_cut(pipe);
            let now = self.now;
            let Some(end) = self.end(pipe, side) else { return };
            match end.inbound.front() {
                Some((at, _)) if *at <= now => {}
                _ => return,
            }
            if cut {
                return self.at(now + RETRANSMIT, Event::Arrive(pipe, side));
            }
            // An end behind unread bytes is not seen; a reset is.
            let reset = end.inbound.iter().any(|(at, p)| *at <= now && matches!(p, Piece::Reset));
            if !end.reading && !reset {
                return;
            }
            let owner = end.owner;
            let Some((_, piece)) = end.inbound.pop_front() else { return };
            match piece {
                Piece::Connected => {
                    if let Some(owner) = owner {
                        self.tell_connected(owner, pipe);
                        self.room(pipe, side);
                    }
                }
                Piece::Bytes(bytes) => {
                    let back = self.latency(pipe, side, 0);
                    self.at(now + back, Event::Acked(pipe, 1 - side, bytes.len()));
                    if let Some(owner) = owner {
                        self.tell_received(owner, pipe, &bytes);
                    }
                }
                Piece::Fin => {
                    if let Some(owner) = owner {
                        self.tell_finished(owner, pipe);
                    } else {
                        let both = self.pipes.get(&pipe).is_some_and(|p| p.ends.iter().all(|e| e.fin_sent));
                        if both && self.pipes.get(&pipe).is_some_and(|p| p.ends[1 - side].owner.is_none()) {
                            self.pipes.remove(&pipe);
                        }
                    }
                }
                Piece::Reset => {
                    self.pipes.remove(&pipe);
                    if let Some(owner) = owner {
                        self.tell_closed(owner, pipe, "reset", "connection reset by peer");
                    }
                }
            }
        }
    }

    /// A closed end's last bytes have been gone for a while: whoever still holds the other end is reset.
    pub(in crate::world) fn lingered(&mut self, pipe: u64, side: usize) {
        let Some(p) = self.pipes.get(&pipe) else { return };
        if p.ends[side].owner.is_none() {
            if p.ends[1 - side].owner.is_some() {
                self.push(pipe, 1 - side, Piece::Reset);
            } else {
                self.pipes.remove(&pipe);
            }
        }
    }

    /// A closed end that could not get rid of its last bytes is reset.
    pub(in crate::world) fn stalled(&mut self, pipe: u64, side: usize, before: usize) {
        let Some(end) = self.end(pipe, side) else { return };
        let left = end.held_bytes;
        if !end.fin_sent && left > 0 && (before == 0 || left == before) {
            return self.reset(pipe, side);
        }
        if !end.fin_sent {
            self.at(self.now + FLUSH_STALL, Event::Stalled(pipe, side, left));
        }
    }

    /// The connections of a party that nobody reaches any more die at both ends, each by itself.
    pub(super) fn time_out_all(&mut self, party: Party) {
        let over: Vec<u64> = self
            .pipes
            .iter()
            .filter(|(_, p)| p.stands && p.ends.iter().any(|e| e.party == party))
            .map(|(id, _)| *id)
            .collect();
        for pipe in over {
            if let Some(p) = self.pipes.remove(&pipe) {
                for owner in p.ends.into_iter().filter_map(|e| e.owner) {
                    self.tell_closed(owner, pipe, "io_error", "connection timed out");
                }
            }
        }
    }

    /// The kernel of a host that died resets its connections.
    pub(in crate::world) fn reset_all(&mut self, party: Party) {
        let ids: Vec<(u64, usize)> = self
            .pipes
            .iter()
            .flat_map(|(id, p)| (0..2).map(move |s| (*id, s, &p.ends[s])))
            .filter(|(_, _, e)| e.party == party)
            .map(|(id, s, _)| (id, s))
            .collect();
        for (pipe, side) in ids {
            if self.pipes.get(&pipe).is_some_and(|p| p.stands) {
                self.reset(pipe, side);
            } else if side == 0 {
                // A dial towards the host fails by itself.
                self.pipes.remove(&pipe);
            }
        }
    }

    /// How many connections have an end at a party that still has an owner there.
    pub fn connections(&self, party: Party) -> usize {
        let of = |e: &&End| e.party == party && e.owner.is_some();
        self.pipes.values().flat_map(|p| p.ends.iter()).filter(of).count()
    }

    /// The service behind a port of a host.
    pub(in crate::world) fn service(config: &proto_core::node::config::Config, port: u16) -> Option<Service> {
        let services = [
            (config.http.port, Service::Http),
            (config.rtmp.port, Service::Rtmp),
            (config.cluster.port, Service::Link),
        ];
        services.into_iter().find(|(p, _)| *p == port).map(|(_, s)| s)
    }

    /// The number of a node's connection: the one that the node chose, or the next accepted.
    pub(in crate::world) fn accepted_id(n: u64) -> ConnId {
        ConnId::accepted(n)
    }
}
