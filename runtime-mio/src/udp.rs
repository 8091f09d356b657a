//! UDP sockets: datagrams come in several at a time (recvmmsg, GRO) and leave in batches of GSO messages.

use crate::control::Counters;
use crate::holder::who_holds_udp;
use crate::io::{Kind, canonical};
#[cfg(target_os = "linux")]
use crate::many::Many;
use mio::event::Event;
use mio::net::UdpSocket;
use mio::{Interest, Registry};
use proto_core::error::Reason;
use proto_core::io::{Batch, Input, SocketId, Transmit};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use slab::Slab;
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The kernel's buffers for each socket, each way; it may give less.
pub const KERNEL_BUFFER: usize = 4 << 20;
/// Batches that may wait for a socket whose kernel buffer is full.
const QUEUED_BATCHES: usize = 64;
/// Bytes that may wait for a socket whose kernel buffer is full.
const QUEUED_BYTES: usize = 4 << 20;
/// Messages taken with one call.
const MESSAGES: usize = 16;
/// Bytes that one message can hold: with GRO the kernel joins datagrams up to this.
const MESSAGE_BYTES: usize = 64 << 10;
/// Messages that one socket may bring in one turn.
const MESSAGES_PER_TURN: usize = 128;
/// Bytes that one socket may bring in one turn.
const BYTES_PER_TURN: usize = 512 << 10;

/// The buffers that all sockets of a loop receive into.
pub(crate) struct RecvBuffers {
    bytes: Vec<u8>,
    meta: [RecvMeta; MESSAGES],
    count: usize,
}

/// One socket's turn to be read.
pub(crate) struct Turn {
    key: usize,
    socket: SocketId,
    bound: SocketAddr,
    messages: usize,
    bytes: usize,
    /// Nothing is left in the kernel.
    drained: bool,
}

impl RecvBuffers {
    pub(crate) fn new() -> RecvBuffers {
        RecvBuffers {
            bytes: vec![0; MESSAGES * MESSAGE_BYTES],
            meta: [RecvMeta::default(); MESSAGES],
            count: 0,
        }
    }

    /// What the last [`Udp::receive`] brought, as inputs.
    pub(crate) fn received(&self, turn: &Turn) -> impl Iterator<Item = Input<'_>> {
        let (socket, bound) = (turn.socket, turn.bound);
        let messages = self.bytes.chunks(MESSAGE_BYTES).zip(&self.meta).take(self.count);
        messages.filter(|(_, meta)| meta.len > 0).map(move |(bytes, meta)| Input::Datagram {
            socket,
            local: canonical(SocketAddr::new(meta.dst_ip.unwrap_or(bound.ip()), bound.port())),
            remote: canonical(meta.addr),
            stride: meta.stride.clamp(1, meta.len),
            bytes: bytes.get(..meta.len).unwrap_or_default(),
        })
    }
}

/// A batch on its way out.
struct Queued {
    batch: Box<Batch>,
    /// The transmit to go on with, and how many of its bytes have left.
    next: usize,
    offset: usize,
    refused: usize,
}

struct Socket {
    id: SocketId,
    io: UdpSocket,
    state: UdpSocketState,
    bound: SocketAddr,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    /// The kernel's send buffer is full; an event says when it is not.
    blocked: bool,
    /// Such an event has been asked for.
    watched: bool,
    key: usize,
    in_ready: bool,
    #[cfg(target_os = "linux")]
    many: Many,
}

/// All UDP sockets of a loop.
pub(crate) struct Udp {
    sockets: Slab<Socket>,
    by_id: BTreeMap<SocketId, usize>,
    ready: VecDeque<usize>,
    /// Something was staged for a socket that is not blocked.
    dirty: bool,
    /// Nodes may make messages of several datagrams.
    gso: bool,
    counters: Arc<Counters>,
}

type Reports = VecDeque<Input<'static>>;

impl Udp {
    pub(crate) fn new(counters: Arc<Counters>, gso: bool) -> Udp {
        Udp {
            sockets: Slab::new(),
            by_id: BTreeMap::new(),
            ready: VecDeque::new(),
            dirty: false,
            gso,
            counters,
        }
    }

    pub(crate) fn has_work(&self) -> bool {
        self.dirty || !self.ready.is_empty()
    }

    pub(crate) fn is_open(&self, id: SocketId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Opens a socket and reports how that went.
    pub(crate) fn open(
        &mut self,
        id: SocketId,
        bind: SocketAddr,
        registry: &Registry,
        reports: &mut Reports,
    ) {
        let entry = self.sockets.vacant_entry();
        let key = entry.key();
        match Socket::open(id, bind, key, registry) {
            Ok(socket) => {
                let max_segments = if self.gso { socket.state.max_gso_segments() } else { 1 };
                let local = socket.bound;
                entry.insert(socket);
                self.by_id.insert(id, key);
                reports.push_back(Input::UdpOpened { socket: id, local, max_segments });
            }
            Err(e) => reports.push_back(Input::UdpFailed { socket: id, reason: bind_failed(bind, &e) }),
        }
    }

    /// Closes a socket; what waits for it is given back as refused.
    pub(crate) fn close(&mut self, id: SocketId, registry: &Registry, reports: &mut Reports) {
        let Some(key) = self.by_id.remove(&id) else { return };
        let Some(mut socket) = self.sockets.try_remove(key) else { return };
        let _ = registry.deregister(&mut socket.io);
        for queued in socket.queue {
            let refused = queued.refused + queued.batch.items.len().saturating_sub(queued.next);
            reports.push_back(Input::Sent { batch: queued.batch, refused });
        }
    }

    pub(crate) fn note(&mut self, key: usize, event: &Event) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if event.is_writable() && socket.blocked {
            socket.blocked = false;
            self.dirty = true;
        }
        if (event.is_readable() || event.is_error()) && !socket.in_ready {
            socket.in_ready = true;
            self.ready.push_back(key);
        }
    }

    pub(crate) fn ready_to_read(&self) -> usize {
        self.ready.len()
    }

    /// Begins the turn of the socket that has waited longest.
    pub(crate) fn begin_turn(&mut self) -> Option<Turn> {
        let key = self.ready.pop_front()?;
        let Some(socket) = self.sockets.get_mut(key) else {
            // Closed meanwhile: a turn in which nothing is received.
            return Some(Turn {
                key,
                socket: SocketId(0),
                bound: ([0; 4], 0).into(),
                messages: 0,
                bytes: 0,
                drained: false,
            });
        };
        socket.in_ready = false;
        Some(Turn { key, socket: socket.id, bound: socket.bound, messages: 0, bytes: 0, drained: false })
    }

    /// Receives some messages into `buffers`. Answers whether there may be something to look at; a socket that has
    /// used up its turn is queued again behind the others.
    pub(crate) fn receive(&mut self, turn: &mut Turn, buffers: &mut RecvBuffers) -> bool {
        buffers.count = 0;
        let Some(socket) = self.sockets.get_mut(turn.key).filter(|s| s.id == turn.socket) else {
            return false;
        };
        if turn.drained {
            return false;
        }
        if turn.messages >= MESSAGES_PER_TURN || turn.bytes >= BYTES_PER_TURN {
            if !socket.in_ready {
                socket.in_ready = true;
                self.ready.push_back(turn.key);
            }
            return false;
        }
        let mut chunks = buffers.bytes.chunks_mut(MESSAGE_BYTES);
        let mut slices: [IoSliceMut<'_>; MESSAGES] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        match socket.state.recv(UdpSockRef::from(&socket.io), &mut slices, &mut buffers.meta) {
            Ok(count) => {
                let bytes: usize = buffers.meta.iter().take(count).map(|m| m.len).sum();
                buffers.count = count;
                turn.messages += count.max(1);
                turn.bytes += bytes;
                // Less than asked for means that nothing is left; what comes later has an event of its own.
                turn.drained = count < MESSAGES;
                self.counters.udp_messages_in.add(count as u64);
                self.counters.udp_bytes_in.add(bytes as u64);
                true
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => false,
            Err(_) => {
                // An ICMP error of an earlier send (ip(7)), or a message that could not be taken apart.
                self.counters.udp_receive_errors.add(1);
                turn.messages += 1;
                true
            }
        }
    }

    /// Takes a batch to send. Beyond what may wait it comes back at once, refused.
    pub(crate) fn stage(&mut self, batch: Box<Batch>, registry: &Registry, reports: &mut Reports) {
        let counters = Arc::clone(&self.counters);
        let key = self.by_id.get(&batch.socket).copied();
        let Some(socket) = key.and_then(|key| self.sockets.get_mut(key)) else {
            let refused = batch.items.len();
            reports.push_back(Input::Sent { batch, refused });
            return;
        };
        let full = |s: &Socket| s.queue.len() >= QUEUED_BATCHES || s.queued_bytes >= QUEUED_BYTES;
        if full(socket) {
            socket.flush(registry, reports, &counters);
        }
        if full(socket) {
            let refused = batch.items.len();
            counters.udp_overflow.add(refused as u64);
            reports.push_back(Input::Sent { batch, refused });
            return;
        }
        self.dirty |= !socket.blocked;
        socket.queued_bytes += batch.buf.len();
        socket.queue.push_back(Queued { batch, next: 0, offset: 0, refused: 0 });
    }

    /// Sends what waits, as far as the kernel takes it.
    pub(crate) fn flush(&mut self, registry: &Registry, reports: &mut Reports) {
        if !self.dirty {
            return;
        }
        self.dirty = false;
        for (_, socket) in &mut self.sockets {
            socket.flush(registry, reports, &self.counters);
        }
    }
}

impl Socket {
    fn open(id: SocketId, bind: SocketAddr, key: usize, registry: &Registry) -> io::Result<Socket> {
        let raw = RawSocket::new(Domain::for_address(bind), Type::DGRAM, Some(Protocol::UDP))?;
        raw.set_nonblocking(true)?;
        raw.bind(&bind.into())?;
        // The kernel cuts these down to its own limits.
        let _ = raw.set_recv_buffer_size(KERNEL_BUFFER);
        let _ = raw.set_send_buffer_size(KERNEL_BUFFER);
        let mut io = UdpSocket::from_std(raw.into());
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        let bound = io.local_addr()?;
        // Not WRITABLE: the kernel would wake the loop for every message that leaves.
        registry.register(&mut io, Kind::Udp.token(key), Interest::READABLE)?;
        Ok(Socket {
            id,
            io,
            state,
            bound,
            queue: VecDeque::new(),
            queued_bytes: 0,
            blocked: false,
            watched: false,
            key,
            in_ready: false,
            #[cfg(target_os = "linux")]
            many: Many::new(),
        })
    }

    fn flush(&mut self, registry: &Registry, reports: &mut Reports, counters: &Counters) {
        while !self.blocked {
            let Some(mut queued) = self.queue.pop_front() else { break };
            if self.send_batch(&mut queued, counters) || !self.watch(registry, true) {
                self.queued_bytes -= queued.batch.buf.len();
                let refused = queued.refused + queued.batch.items.len().saturating_sub(queued.next);
                reports.push_back(Input::Sent { batch: queued.batch, refused });
            } else {
                self.queue.push_front(queued);
                self.blocked = true;
            }
        }
        if self.queue.is_empty() && self.watched {
            self.watch(registry, false);
        }
    }

    /// Asks the kernel to say when there is room again, or not to.
    fn watch(&mut self, registry: &Registry, room: bool) -> bool {
        let interest = if room { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        let done = registry.reregister(&mut self.io, Kind::Udp.token(self.key), interest).is_ok();
        if done {
            self.watched = room;
        }
        done
    }

    /// Sends what is left of a batch. Answers whether it is done with, as opposed to waiting for room.
    fn send_batch(&mut self, queued: &mut Queued, counters: &Counters) -> bool {
        while let Some(transmit) = queued.batch.items.get(queued.next) {
            #[cfg(target_os = "linux")]
            if queued.offset == 0 {
                match self.send_many(&queued.batch, queued.next, counters) {
                    Ok(0) => {}
                    Ok(sent) => {
                        queued.next += sent;
                        continue;
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
                    // The first of them has trouble; alone it will say what.
                    Err(_) => {}
                }
            }
            match self.send_transmit(&queued.batch.buf, transmit, &mut queued.offset, counters) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => {
                    queued.refused += 1;
                    counters.udp_refused.add(1);
                }
            }
            queued.next += 1;
            queued.offset = 0;
        }
        true
    }

    /// Sends transmits from the `next`th on with one call, as far as each is one message. Answers how many left: 0 where
    /// there is nothing to gain.
    #[cfg(target_os = "linux")]
    fn send_many(&mut self, batch: &Batch, next: usize, counters: &Counters) -> io::Result<usize> {
        use std::os::fd::AsRawFd;
        let most = self.state.max_gso_segments().max(1);
        let whole = |t: &Transmit| t.len.div_ceil(t.segment_size.max(1)) <= most;
        let items = batch.items.get(next..).unwrap_or_default();
        let items = items.get(..crate::many::MESSAGES).unwrap_or(items);
        let count = items.iter().take_while(|t| whole(t)).count();
        let Some(items) = items.get(..count).filter(|i| i.len() > 1) else { return Ok(0) };
        let bound = self.bound;
        let sent = self.many.send(self.io.as_raw_fd(), &batch.buf, items, |dst| address_for(bound, dst))?;
        let bytes: usize = items.iter().take(sent).map(|t| t.len).sum();
        counters.udp_messages_out.add(sent as u64);
        counters.udp_bytes_out.add(bytes as u64);
        Ok(sent)
    }

    /// Sends what is left of a transmit, in as few messages as the kernel takes: one, or where it has no GSO (or not
    /// for that many segments) several.
    fn send_transmit(
        &mut self,
        buf: &[u8],
        transmit: &Transmit,
        offset: &mut usize,
        counters: &Counters,
    ) -> io::Result<()> {
        let Transmit { src, dst, start, len, segment_size } = *transmit;
        let bytes = start.checked_add(len).and_then(|end| buf.get(start..end));
        let bytes = bytes.ok_or(ErrorKind::InvalidInput)?;
        let segment = segment_size.clamp(1, len.max(1));
        let gso = self.state.max_gso_segments();
        let mut together = segment.saturating_mul(gso.max(1));
        while let Some(rest) = bytes.get(*offset..).filter(|rest| !rest.is_empty()) {
            let contents = rest.get(..together).unwrap_or(rest);
            let message = quinn_udp::Transmit {
                destination: address_for(self.bound, dst),
                ecn: None,
                contents,
                segment_size: (contents.len() > segment).then_some(segment),
                src_ip: src,
            };
            match self.state.try_send(UdpSockRef::from(&self.io), &message) {
                Ok(()) => {
                    *offset += contents.len();
                    counters.udp_messages_out.add(1);
                    counters.udp_bytes_out.add(contents.len() as u64);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(e),
                // Perhaps the device has no GSO. Segment by segment will show.
                Err(_) if contents.len() > segment => together = segment,
                Err(e) => {
                    self.clear_gso(gso);
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// A message without GSO failed too, so GSO was not to blame: quinn-udp has turned it off all the same (it takes
    /// every EINVAL for that, also that of a source address which this host no longer has), and one bad address
    /// must not make all others dear.
    fn clear_gso(&mut self, had: usize) {
        if self.state.max_gso_segments() < had
            && let Ok(fresh) = UdpSocketState::new(UdpSockRef::from(&self.io))
        {
            self.state = fresh;
        }
    }
}

/// The address in the family of a bound socket: an IPv6 socket reaches IPv4 by mapped addresses (RFC 4291 section
/// 2.5.5.2).
fn address_for(bound: SocketAddr, dst: SocketAddr) -> SocketAddr {
    match (bound, dst.ip()) {
        (SocketAddr::V6(_), IpAddr::V4(v4)) => SocketAddr::new(v4.to_ipv6_mapped().into(), dst.port()),
        _ => dst,
    }
}

fn bind_failed(bind: SocketAddr, error: &io::Error) -> Reason {
    let port = bind.port();
    let why = match error.kind() {
        ErrorKind::AddrInUse => match who_holds_udp(bind) {
            Some(who) => format!("udp port {port} is in use by {who}; stop it or choose another port"),
            None => format!("udp port {port} is in use; stop what holds it or choose another port"),
        },
        ErrorKind::AddrNotAvailable => format!("this host has no address {}", bind.ip()),
        ErrorKind::PermissionDenied => format!("this user may not take udp port {port}"),
        _ => error.to_string(),
    };
    Reason::local("udp_bind_failed", format!("cannot open a UDP socket on {bind}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::time::Duration;

    #[test]
    fn a_socket_without_room_keeps_a_bounded_queue_and_goes_on_when_there_is_room() {
        // Loopback never runs out of room, so the state is set by hand and the kernel undoes it.
        let mut poll = Poll::new().unwrap();
        let registry = poll.registry().try_clone().unwrap();
        let to = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        to.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let (mut udp, mut reports) = (Udp::new(Arc::default(), true), Reports::new());
        let id = SocketId(9);
        udp.open(id, "127.0.0.1:0".parse().unwrap(), &registry, &mut reports);
        assert!(matches!(reports.pop_front(), Some(Input::UdpOpened { max_segments: 1.., .. })));
        let key = udp.by_id[&id];
        udp.sockets[key].blocked = true;
        assert!(udp.sockets[key].watch(&registry, true));
        for i in 0..QUEUED_BATCHES + 6 {
            let mut batch = Box::new(Batch::new(id));
            batch.push(None, to.local_addr().unwrap(), &[i as u8], 1);
            udp.stage(batch, &registry, &mut reports);
        }
        udp.flush(&registry, &mut reports);
        assert_eq!(reports.len(), 6);
        assert!(reports.drain(..).all(|r| matches!(r, Input::Sent { refused: 1, .. })));
        assert!(!udp.has_work(), "a loop with a blocked socket sleeps");

        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(30))).unwrap();
        events.iter().for_each(|event| udp.note(key, event));
        assert!(udp.has_work());
        udp.flush(&registry, &mut reports);
        assert_eq!(reports.len(), QUEUED_BATCHES);
        assert!(reports.drain(..).all(|r| matches!(r, Input::Sent { refused: 0, .. })));
        for i in 0..QUEUED_BATCHES {
            let mut buf = [0; 10];
            assert_eq!((to.recv(&mut buf).unwrap(), buf[0]), (1, i as u8));
        }
        let socket = &udp.sockets[key];
        assert_eq!((socket.queued_bytes, socket.watched, socket.blocked), (0, false, false));
    }

    #[test]
    fn without_gso_a_node_is_told_so_and_its_batches_leave_all_the_same() {
        let poll = Poll::new().unwrap();
        let (mut udp, mut reports) = (Udp::new(Arc::default(), false), Reports::new());
        let to = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        to.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let id = SocketId(2);
        udp.open(id, "127.0.0.1:0".parse().unwrap(), poll.registry(), &mut reports);
        let Some(Input::UdpOpened { max_segments, .. }) = reports.pop_front() else { panic!("not opened") };
        assert_eq!(max_segments, 1);
        let mut batch = Box::new(Batch::new(id));
        // More than one call takes.
        for n in 0..100 {
            batch.push(None, to.local_addr().unwrap(), &[n; 20], max_segments);
        }
        assert_eq!(batch.items.len(), 100);
        udp.stage(batch, poll.registry(), &mut reports);
        udp.flush(poll.registry(), &mut reports);
        assert!(matches!(reports.pop_front(), Some(Input::Sent { refused: 0, .. })));
        for n in 0..100 {
            let mut buf = [0; 64];
            assert_eq!((to.recv(&mut buf).unwrap(), buf[0]), (20, n));
        }
    }

    #[test]
    fn closing_a_socket_gives_back_what_waits() {
        let poll = Poll::new().unwrap();
        let (mut udp, mut reports) = (Udp::new(Arc::default(), true), Reports::new());
        let id = SocketId(1);
        udp.open(id, "127.0.0.1:0".parse().unwrap(), poll.registry(), &mut reports);
        let mut batch = Box::new(Batch::new(id));
        batch.push(None, "127.0.0.1:9".parse().unwrap(), b"never sent", 1);
        udp.stage(batch, poll.registry(), &mut reports);
        reports.clear();
        udp.close(id, poll.registry(), &mut reports);
        assert!(matches!(reports.pop_front(), Some(Input::Sent { refused: 1, .. })));
        assert!(!udp.is_open(id));
    }
}
