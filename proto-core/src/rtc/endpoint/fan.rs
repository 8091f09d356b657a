//! The fan-out to lean viewers: who waits for a turn, and how much leaves in one. Viewers take turns of a few packets
//! each, so a key frame reaches all of them side by side, none gets hundreds of packets in one burst, and what is made in
//! one turn of the loop stays small enough for the processor's caches.

use super::{Endpoint, POOL, Session, SessionId, gone};
use crate::error::Reason;
use crate::guard::{guard, strike};
use crate::hub::delivery::{CatchesUp, Delivery};
use crate::io::{Batch, ConnId, SocketId};
use crate::rtc::peer::PeerEvent;
use crate::rtc::talk::Talk;
use crate::rtc::viewer::Turn;
use crate::simulation::Site;
use crate::time::{Deadline, Time};
use std::collections::VecDeque;

/// Packets that one viewer gets in its turn.
const SLICE: usize = 16;
/// Bytes of pictures that one viewer gets in its turn, about.
pub const SLICE_BYTES: usize = SLICE * 1_200;
/// The most bytes of one.
const PACKET: usize = 1_500;
/// A batch leaves once it has so many bytes.
const BATCH_BYTES: usize = 192 << 10;
/// More than one viewer's turn can add: its slice, sound and a report.
const TURN_MOST: usize = (SLICE + 8) * 1_200;
/// Cached bytes that a newcomer is handed at once who does not tell what comes: 12 Mbit/s, as the node looks every five
/// milliseconds.
const UNTOLD_BYTES: usize = 7_500;
/// Bytes that leave in one turn of the loop; then whoever else has work gets the loop. One batch, which the next turn fills
/// again: several in turn would not stay in the processor's caches, and the kernel copies from memory then.
const TURN_BYTES: usize = BATCH_BYTES;

/// Who waits to send, and how much may leave before the loop goes on.
#[derive(Debug)]
pub(super) struct Fan {
    ready: VecDeque<SessionId>,
    budget: usize,
    /// Where packets are put together that are no shared payload alone.
    scratch: Vec<u8>,
}

impl Default for Fan {
    fn default() -> Fan {
        Fan { ready: VecDeque::new(), budget: TURN_BYTES, scratch: Vec::new() }
    }
}

impl Fan {
    /// A turn of the loop begins.
    pub(super) fn renew(&mut self) {
        self.budget = TURN_BYTES;
    }

    /// Viewers that wait although this turn's bytes are used up go on at once, in the next turn.
    pub(super) fn deadline(&self, now: Time) -> Option<Deadline> {
        (!self.ready.is_empty()).then(|| Deadline::new(now, "fan-out"))
    }
}

impl Endpoint {
    /// Something for a viewer.
    pub(super) fn deliver(&mut self, id: SessionId, delivery: Delivery, now: Time) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Talk::Lean(viewer) = &mut session.talk else {
            if !self.behind(id, &delivery) {
                self.with(id, now, |p| p.deliver(delivery, now));
            }
            return;
        };
        session.told += 1;
        let (switches, told) = (self.limits.simulation, session.told);
        let queued = guard(|| {
            strike(switches, id.0 | super::STRUCK, told);
            viewer.deliver(delivery, now)
        });
        match queued {
            Ok(true) => {
                if !std::mem::replace(&mut session.ready, true) {
                    self.fan.ready.push_back(id);
                }
                if !viewer.events.is_empty() {
                    self.with(id, now, |_| ());
                }
            }
            Ok(false) => {}
            Err(reason) => self.broke(id, reason),
        }
    }

    /// Bytes that a newcomer may be handed now, so that they are not lost for want of room on their way.
    pub fn burst(&mut self, session: SessionId, catches_up: CatchesUp, now: Time) -> usize {
        let told = self.sessions.get_mut(&session).and_then(|s| s.talk.burst(now));
        // Of somebody who tells nothing that is a guess: four times what the stream brings, or what most links carry.
        told.unwrap_or(match catches_up {
            CatchesUp::Cached { bits_per_s } => {
                UNTOLD_BYTES.max(usize::try_from(bits_per_s / 400).unwrap_or(usize::MAX))
            }
            CatchesUp::New => usize::MAX,
        })
    }

    /// Has a viewer's session go on with another stream: what is delivered from now on is of that.
    ///
    /// # Errors
    /// It is gone, or was opened by the viewer's own offer (those are lean and play one stream).
    pub fn switch(&mut self, session: SessionId, now: Time) -> Result<(), Reason> {
        if self.with(session, now, Talk::switch).ok_or_else(gone)? {
            return Ok(());
        }
        Err(Reason::peer("one_stream", "this session plays one stream; open another session for another"))
    }

    /// Gives a viewer that has something to send a place in the row.
    pub(super) fn line_up(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id)
            && session.talk.wants_turn()
            && !std::mem::replace(&mut session.ready, true)
        {
            self.fan.ready.push_back(id);
        }
    }

    fn broke(&mut self, id: SessionId, reason: Reason) {
        self.drops.panics += 1;
        self.remove(id);
        self.outputs.push_back(super::Output::Event(id, PeerEvent::Closed(reason)));
    }

    /// Fills a batch with what viewers wait to send, each in its turn.
    pub(super) fn fan_out(&mut self) {
        let (socket, most) = self.socket.unwrap_or((SocketId(0), 1));
        let most = self.segments(most);
        let now = self.now;
        while self.fan.budget > 0
            && let Some(id) = self.fan.ready.pop_front()
        {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            let Talk::Lean(viewer) = &mut session.talk else { continue };
            if let Some(conn) = viewer.over() {
                self.fan_out_framed(id, conn);
                continue;
            }
            let pool = &mut self.pool;
            let batch =
                self.batch.get_or_insert_with(|| pool.pop().unwrap_or_else(|| Box::new(Batch::new(socket))));
            batch.socket = socket;
            if batch.buf.is_empty() {
                // At once, for growing by doubling would leave up to as much again unused.
                batch.buf.reserve_exact(BATCH_BYTES + TURN_MOST);
            }
            let (bytes, items) = (batch.buf.len(), batch.items.len());
            let scratch = &mut self.fan.scratch;
            let turn = guard(|| viewer.send(batch, scratch, (SLICE, most), now));
            match turn {
                Ok(turn) => {
                    self.fan.budget = self.fan.budget.saturating_sub(batch.buf.len() - bytes);
                    session.ready = turn == Turn::More;
                    if session.ready {
                        self.fan.ready.push_back(id);
                    } else if viewer.closed() || viewer.is_spread() {
                        self.with(id, now, |_| ());
                    }
                }
                Err(reason) => {
                    // What it left half made must not leave.
                    batch.buf.truncate(bytes);
                    batch.items.truncate(items);
                    self.broke(id, reason);
                }
            }
            if self.batch.as_ref().is_some_and(|b| b.buf.len() >= BATCH_BYTES) {
                return;
            }
        }
    }

    /// As [`Endpoint::fan_out`], for one viewer over TCP. Without room on its connection it waits until there is some.
    fn fan_out_framed(&mut self, id: SessionId, conn: ConnId) {
        let (room, now) = (self.stream_left(conn) >= SLICE * PACKET, self.now);
        let mut batch = self.pool.pop().unwrap_or_else(|| Box::new(Batch::new(SocketId(0))));
        let Some(Session { talk: Talk::Lean(viewer), ready, .. }) = self.sessions.get_mut(&id) else {
            return;
        };
        let scratch = &mut self.fan.scratch;
        let turn =
            if room { guard(|| viewer.send(&mut batch, scratch, (SLICE, 1), now)) } else { Ok(Turn::Idle) };
        *ready = turn == Ok(Turn::More);
        let (again, closed) = (*ready, viewer.closed());
        match turn {
            Ok(_) => {
                self.fan.budget = self.fan.budget.saturating_sub(batch.buf.len());
                self.stage_batch(conn, &batch);
                if again {
                    self.fan.ready.push_back(id);
                } else if closed {
                    self.with(id, now, |_| ());
                }
            }
            Err(reason) => self.broke(id, reason),
        }
        batch.clear();
        if self.pool.len() < POOL {
            self.pool.push(batch);
        }
    }

    /// How many segments one message may have.
    pub(super) fn segments(&self, most: usize) -> usize {
        if self.limits.simulation.happens(Site::OneSegment, self.now.as_nanos()) { 1 } else { most }
    }

    /// Puts what sessions say into batches.
    pub(super) fn stage(&mut self, sent: VecDeque<crate::rtc::peer::Sent>) {
        for (path, bytes) in sent {
            if let Some(conn) = path.conn() {
                self.stage_framed(conn, &bytes);
                continue;
            }
            let Some((socket, max_segments)) = self.socket else {
                self.drops.no_socket += 1;
                continue;
            };
            let max_segments = self.segments(max_segments);
            let batch = self
                .batch
                .get_or_insert_with(|| self.pool.pop().unwrap_or_else(|| Box::new(Batch::new(socket))));
            batch.socket = socket;
            batch.push(Some(path.local().ip()), path.remote(), &bytes, max_segments);
        }
    }
}
