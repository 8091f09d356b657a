//! What can come due in a world. Events at the same moment happen in the order in which they were made.

use bytes::Bytes;
use proto_core::io::{Answer, AskId, Batch, ConnId, SocketId};
use proto_core::time::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;

/// Something that happens at its time.
#[derive(Debug)]
pub(super) enum Event {
    /// A dial reaches its host, at the first or a later attempt.
    Syn(u64, u32),
    /// A dial fails.
    DialFailed(u64, &'static str),
    /// Something may have reached this side of a connection.
    Arrive(u64, usize),
    /// The other side may have acknowledged what this side sent.
    Acked(u64, usize),
    /// Acknowledgements of this side that were lost are sent again.
    AckAgain(u64, usize),
    /// This side's owner is told how much it may send.
    Room(u64, usize),
    /// This closed side's last bytes have been gone for a while.
    Lingered(u64, usize),
    /// Whether this closed side still gets rid of its last bytes.
    Stalled(u64, usize),
    /// Whether this side's peer is still there.
    KeepAlive(u64, usize),
    /// A host takes connections again after it ran out of descriptors.
    Accept(usize),
    /// A node's dial failed before anything was sent.
    NoDial(usize, u64, ConnId, &'static str),
    /// A node is asked for an orderly end.
    Drain(usize, u64),
    /// A node wants a tick. The second number is its run.
    Wake(usize, u64),
    /// A client wants a tick.
    WakeClient(usize),
    /// A node's question is answered.
    Answer(usize, u64, AskId, Answer),
    /// A node's UDP socket stands.
    UdpOpened(usize, u64, SocketId, SocketAddr),
    /// A node gets a batch back, so many transmits of which its kernel refused.
    Sent(usize, u64, Box<Batch>, usize),
    /// A datagram comes to the receiver's access link.
    Queued { to: SocketAddr, from: SocketAddr, bytes: Bytes },
    /// A datagram reaches its address.
    Datagram { to: SocketAddr, from: SocketAddr, bytes: Bytes },
    /// The wall clock is told again.
    WallClock(usize, u64),
}

/// What is to come, ordered by time and then by number.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: BinaryHeap<Reverse<(Time, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    seq: u64,
}

impl Queue {
    /// Adds an event.
    pub(super) fn push(&mut self, at: Time, event: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[slot] = Some(event);
        self.seq += 1;
        self.order.push(Reverse((at, self.seq, slot)));
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Time> {
        self.order.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes out the next one.
    pub(super) fn pop(&mut self) -> Option<(Time, Event)> {
        let Reverse((at, _, slot)) = self.order.pop()?;
        self.free.push(slot);
        self.events[slot].take().map(|event| (at, event))
    }
}
