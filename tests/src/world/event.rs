//! What can come due in a world. Events at the same moment happen in the order in which they were made.

use super::Party;
use bytes::Bytes;
use proto_core::io::{Answer, AskId, Batch, SocketId};
use proto_core::time::Time;
use std::net::SocketAddr;

/// Something that happens at its time.
#[derive(Debug)]
pub(super) enum Event {
    /// A dial reaches its host.
    Syn(u64),
    /// A dial fails.
    DialFailed(u64, &'static str),
    /// Something may have reached this side of a connection.
    Arrive(u64, usize),
    /// Bytes that this side sent were read.
    Acked(u64, usize, usize),
    /// This side's owner is told how much it may send.
    Room(u64, usize),
    /// This closed side's last bytes have been gone for a while.
    Lingered(u64, usize),
    /// Whether this closed side still gets rid of its last bytes; there were so many at the last look.
    Stalled(u64, usize, usize),
    /// Connections of a party that has been cut off since then die.
    Unreachable(Party, Time),
    /// A node wants a tick. The second number is its run.
    Wake(usize, u64),
    /// A client wants a tick.
    WakeClient(usize),
    /// A node's question is answered.
    Answer(usize, u64, AskId, Answer),
    /// A node's UDP socket stands.
    UdpOpened(usize, u64, SocketId, SocketAddr),
    /// A node gets a batch back.
    Sent(usize, u64, Box<Batch>),
    /// A datagram reaches its address.
    Datagram { to: SocketAddr, from: SocketAddr, bytes: Bytes },
    /// The wall clock is told again.
    WallClock(usize, u64),
}
