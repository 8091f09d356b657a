//! How TCP connections end: by an orderly close and its lingering, by reset, by silence, by the death of a process,
//! and by the loss of an address.

use super::tcp::{Piece, Pipe};
use crate::world::event::Event;
use crate::world::{ClientId, Owner, Party, World};
use proto_core::time::Time;
use std::time::Duration;

/// How long a closed connection is listened to after its last byte.
const LINGER: Duration = Duration::from_secs(2);
/// A closed connection that gets no byte through for this long is reset.
const FLUSH_STALL: Duration = Duration::from_secs(10);
/// A closed connection that has not sent its last byte after this is reset.
const FLUSH_WHOLE: Duration = Duration::from_secs(30);
/// An idle connection asks after its peer when it has not heard of it for this long.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long each question waits for its answer, and how many are asked.
const PROBE: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;
/// A connection whose bytes nobody acknowledges dies after this (Linux, `tcp_retries2` = 15). While bytes wait, no
/// keep-alive questions are asked.
const UNACKNOWLEDGED: Duration = Duration::from_secs(924);
/// What its owner is told then.
const TIMED_OUT: &str = "the peer stopped answering (TCP gave up on it)";

impl World {
    /// The owner of an end closes it and hears nothing more of it.
    pub(in crate::world) fn close(&mut self, pipe: u64, side: usize, at_once: bool) {
        let now = self.now;
        let Some(p) = self.net.pipes.get_mut(pipe) else { return };
        p.ends[side].owner = None;
        if !p.stands {
            self.net.pipes.remove(pipe);
            return;
        }
        if at_once {
            return self.reset(pipe, side);
        }
        let end = &mut p.ends[side];
        end.closing = Some(now);
        end.progress = now;
        end.reading = true;
        self.at(now + FLUSH_STALL, Event::Stalled(pipe, side));
        self.at(now, Event::Arrive(pipe, side));
        self.flush(pipe, side);
    }

    /// The last byte of a closed end has left.
    pub(super) fn fin(&mut self, pipe: u64, side: usize) {
        let Some(end) = self.end(pipe, side) else { return };
        end.fin_sent = true;
        self.push(pipe, 1 - side, Piece::Fin);
        self.at(self.now + LINGER, Event::Lingered(pipe, side));
    }

    /// An end dies at once, and the other is told by a reset, if that gets there.
    pub(super) fn reset(&mut self, pipe: u64, side: usize) {
        let now = self.now;
        let Some(end) = self.end(pipe, side) else { return };
        end.owner = None;
        end.waiting = false;
        end.held.clear();
        end.held_bytes = 0;
        end.inbound.clear();
        end.closing = end.closing.or(Some(now));
        end.fin_sent = true;
        end.gone = true;
        if self.end(pipe, 1 - side).is_none_or(|e| e.gone) {
            self.net.pipes.remove(pipe);
        } else {
            self.push(pipe, 1 - side, Piece::Reset);
        }
    }

    /// Bytes came to an end that the kernel no longer knows.
    pub(super) fn answer_by_reset(&mut self, pipe: u64, side: usize) {
        if self.end(pipe, 1 - side).is_none_or(|e| e.gone) {
            self.net.pipes.remove(pipe);
        } else {
            self.push(pipe, 1 - side, Piece::Reset);
        }
    }

    /// An end came to a side that its owner had closed: if both have said all, nothing is left.
    pub(super) fn both_ended(&mut self, pipe: u64, side: usize) {
        let over = |p: &Pipe| p.ends.iter().all(|e| e.fin_sent && e.owner.is_none());
        if self.net.pipes.get(pipe).is_some_and(over) {
            self.net.pipes.remove(pipe);
        } else if let Some(end) = self.end(pipe, side) {
            // Whoever still holds the other end has ended its direction too; it can only close.
            end.reading = true;
        }
    }

    /// A closed end's last bytes have been gone for a while: the kernel forgets it.
    pub(in crate::world) fn lingered(&mut self, pipe: u64, side: usize) {
        let Some(p) = self.net.pipes.get_mut(pipe) else { return };
        if p.ends[1 - side].gone || (p.ends[1 - side].owner.is_none() && p.ends[1 - side].fin_sent) {
            self.net.pipes.remove(pipe);
        } else {
            p.ends[side].gone = true;
        }
    }

    /// A closed end that could not get rid of its last bytes is reset.
    pub(in crate::world) fn stalled(&mut self, pipe: u64, side: usize) {
        let now = self.now;
        let Some(end) = self.end(pipe, side) else { return };
        let Some(closed) = end.closing.filter(|_| !end.fin_sent) else { return };
        let over = (end.progress + FLUSH_STALL).min(closed + FLUSH_WHOLE);
        if over <= now {
            return self.reset(pipe, side);
        }
        self.at(over, Event::Stalled(pipe, side));
    }

    /// Both ends of a new connection begin to watch each other.
    pub(super) fn keep_alive(&mut self, pipe: u64) {
        for side in 0..2 {
            self.at(self.now + KEEPALIVE, Event::KeepAlive(pipe, side));
        }
    }

    /// Whether the peer of an end is still there.
    pub(in crate::world) fn ask_alive(&mut self, pipe: u64, side: usize) {
        let now = self.now;
        let Some(p) = self.net.pipes.get(pipe) else { return };
        let (end, other) = (&p.ends[side], &p.ends[1 - side]);
        if end.gone {
            return;
        }
        let (heard, probes, other_gone, strange) =
            (end.heard, end.probes, other.gone, p.strange && side == 0);
        let waits = end.flying > 0 || end.held_bytes > 0;
        let next = heard + KEEPALIVE;
        if next > now {
            return self.at(next, Event::KeepAlive(pipe, side));
        }
        if strange && self.strange_answers(pipe, 1) {
            return;
        }
        let passes = self.pipe_passes(pipe, 0) && self.pipe_passes(pipe, 1);
        if passes && other_gone {
            return self.push(pipe, side, Piece::Reset);
        }
        if passes {
            if let Some(end) = self.end(pipe, side) {
                end.heard = now;
                end.probes = 0;
            }
            return self.at(now + KEEPALIVE, Event::KeepAlive(pipe, side));
        }
        let over = if waits { now.since(heard) >= UNACKNOWLEDGED } else { probes >= PROBES };
        if over {
            return self.give_up(pipe, side);
        }
        if let Some(end) = self.end(pipe, side) {
            end.probes = if waits { 0 } else { probes + 1 };
        }
        self.at(now + PROBE, Event::KeepAlive(pipe, side));
    }

    /// An end dies of its peer's silence.
    fn give_up(&mut self, pipe: u64, side: usize) {
        if let Some(owner) = self.drop_end(pipe, side) {
            self.tell_closed(owner, pipe, "io_error", TIMED_OUT);
        }
    }

    /// The kernel forgets an end, and tells nobody on the network.
    pub(super) fn drop_end(&mut self, pipe: u64, side: usize) -> Option<Owner> {
        let p = self.net.pipes.get_mut(pipe)?;
        let end = &mut p.ends[side];
        let owner = end.owner.take();
        end.held.clear();
        end.held_bytes = 0;
        end.inbound.clear();
        end.closing = end.closing.or(Some(Time::ZERO));
        end.fin_sent = true;
        end.gone = true;
        if p.ends[1 - side].gone {
            self.net.pipes.remove(pipe);
        }
        owner
    }

    fn sides_of(&self, party: Party) -> Vec<(u64, usize)> {
        let of = |(id, p): (u64, &Pipe)| [0, 1].map(|s| (p.ends[s].party == party).then_some((id, s)));
        self.net.pipes.iter().flat_map(of).flatten().collect()
    }

    /// The kernel of a process that died closes its connections: in order, but by a reset where bytes are unread.
    /// What the process itself still held is lost.
    pub(in crate::world) fn orphan_all(&mut self, party: Party) {
        let now = self.now;
        for (pipe, side) in self.sides_of(party) {
            let Some(p) = self.net.pipes.get_mut(pipe) else { continue };
            if !p.stands {
                // A dial towards the host fails by itself.
                if side == 0 {
                    self.net.pipes.remove(pipe);
                }
                continue;
            }
            let end = &mut p.ends[side];
            if end.gone {
                continue;
            }
            let unread = end.inbound.iter().any(|c| c.at <= now && matches!(c.piece, Piece::Bytes(_)));
            if unread || end.waiting {
                self.reset(pipe, side);
                continue;
            }
            end.owner = None;
            end.held.clear();
            end.held_bytes = 0;
            end.closing = Some(now);
            if !end.fin_sent {
                self.fin(pipe, side);
            }
            if let Some(end) = self.end(pipe, side) {
                end.gone = true;
            }
        }
    }

    /// What waited because a host was paused goes on.
    pub(in crate::world) fn thaw(&mut self, party: Party) {
        for (pipe, side) in self.sides_of(party) {
            self.at(self.now, Event::Arrive(pipe, side));
            self.flush(pipe, side);
        }
    }

    /// The address of a party that dialled leads nowhere any more. `strange`: its packets still leave, from an address
    /// that the far ends do not know.
    pub(super) fn unroute(&mut self, party: Party, strange: bool) {
        for (pipe, side) in self.sides_of(party) {
            if let Some(p) = self.net.pipes.get_mut(pipe)
                && side == 0
            {
                if strange && !p.stands {
                    // The next attempt simply gets another mapping.
                    continue;
                }
                p.unrouted = true;
                p.strange |= strange;
            }
        }
    }

    /// A dialler whose address changed sent something: the far end's kernel does not know it. `true`: it is told.
    pub(super) fn strange_answers(&mut self, pipe: u64, side: usize) -> bool {
        let Some(p) = self.net.pipes.get(pipe) else { return false };
        let (near, far) = (p.ends[0].party, p.ends[1].party);
        if side != 1 || !p.strange || p.ends[0].gone || !self.passes(near, far) || !self.passes(far, near) {
            return false;
        }
        if let Some(owner) = self.drop_end(pipe, 0) {
            self.tell_closed(owner, pipe, "reset", "Connection reset by peer (os error 104)");
        }
        true
    }

    /// A client's kernel ends all its connections with an error, as some do when their network changes.
    pub(super) fn abandon(&mut self, client: ClientId) {
        for (pipe, side) in self.sides_of(Party::Client(client)) {
            if let Some(owner) = self.drop_end(pipe, side) {
                self.tell_closed(owner, pipe, "io_error", "Software caused connection abort (os error 103)");
            }
        }
    }

    /// How many descriptors the connections of a party take.
    pub(in crate::world) fn open_sockets(&self, party: Party) -> usize {
        let takes = |p: &Pipe| p.ends.iter().filter(|e| e.party == party && !e.gone && !e.waiting).count();
        self.net.pipes.iter().map(|(_, p)| takes(p)).sum()
    }

    /// The kernel closes a connection that waited and that nobody can accept.
    pub(in crate::world) fn turn_away(&mut self, pipe: u64) {
        let now = self.now;
        let Some(end) = self.end(pipe, 1).filter(|e| e.waiting) else { return };
        if end.inbound.iter().any(|c| c.at <= now) {
            return self.reset(pipe, 1);
        }
        end.waiting = false;
        end.closing = Some(now);
        self.fin(pipe, 1);
        if let Some(end) = self.end(pipe, 1) {
            end.gone = true;
        }
    }
}
