//! TCP connections: credit, fair reading, vectored writes, dials, and ends that do not lose the last words.

use crate::control::Counters;
use crate::io::{Alarm, Kind, canonical};
use bytes::{Buf, Bytes};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry};
use proto_core::error::Reason;
use proto_core::io::{ConnId, Input};
use proto_core::time::{Deadline, Time, Timers};
use slab::Slab;
use socket2::{SockRef, TcpKeepalive};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice, Read as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Slices of one vectored write.
const SLICES: usize = 64;
/// How long a dial may take.
const DIAL: Duration = Duration::from_secs(10);
/// How long a closed connection may take none of its last bytes.
const FLUSH_STALL: Duration = Duration::from_secs(10);
/// How long a closed connection may take over its last bytes in all.
const FLUSH_WHOLE: Duration = Duration::from_secs(30);
/// How long the peer is listened to (and ignored) after our last byte: a socket that is closed with unread bytes
/// sends a reset, which may destroy the answer before the peer reads it (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that are ignored from a peer after the node closed the connection.
const LINGER_BYTES: usize = 8 << 20;
/// Connections that may linger at once; beyond, a closed connection is not listened to any more.
const LINGERING: usize = 1024;
/// Keep-alive probes find peers that vanished without a word: after 30 s of silence, three, 10 s apart.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// Bytes that the kernel may hold unsent. Small, so that a slow reader is seen by the core within a moment and not
/// after the kernel's buffer of megabytes; bytes in flight do not count.
const KERNEL_UNSENT: u32 = 128 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
    /// The node closed it; what it sent before is still leaving.
    Flushing {
        since: Time,
    },
    /// All has left; the peer's end is awaited.
    Lingering,
}

struct Conn {
    id: ConnId,
    io: TcpStream,
    phase: Phase,
    queue: VecDeque<Bytes>,
    /// Bytes in `queue`.
    held: usize,
    /// Bytes that `queue` may hold.
    cap: usize,
    /// What the node may still send, as far as it knows.
    granted: usize,
    readable: bool,
    writable: bool,
    /// The peer's end, or an error, is behind what is left to read.
    hung_up: bool,
    /// The peer's end has been read.
    finished: bool,
    /// The node does not want to read.
    paused: bool,
    /// Writing failed; the connection dies of this as soon as what the peer had sent has been read.
    write_failed: Option<Reason>,
    /// Bytes ignored since the node closed it.
    ignored: usize,
    in_ready: bool,
    in_dirty: bool,
}

impl Conn {
    fn closing(&self) -> bool {
        matches!(self.phase, Phase::Flushing { .. } | Phase::Lingering)
    }

    fn reading(&self) -> bool {
        !self.finished && !self.paused && self.phase != Phase::Connecting
    }
}

/// What reading a connection brought.
pub(crate) enum Read {
    Nothing,
    Bytes(ConnId, usize),
    Finished(ConnId),
    Failed(ConnId, Reason),
}

/// What became of a dial.
pub(crate) enum Dialled {
    NotYet,
    Stands { conn: ConnId, local: SocketAddr, remote: SocketAddr },
    Failed { conn: ConnId, reason: Reason },
}

/// All connections of a loop.
pub(crate) struct Tcp {
    conns: Slab<Conn>,
    /// The connections that the node knows and has not closed.
    /// Made with the runtime, not on the thread that runs it: there, a recorded node's maps take their keys from a seed.
    by_id: HashMap<ConnId, usize>,
    /// Where the connection is that bytes were staged for last: more for it mostly follow.
    last: Option<(ConnId, usize)>,
    /// Connections that are gone without the node having been told yet.
    dead: BTreeSet<ConnId>,
    ready: VecDeque<(usize, ConnId)>,
    dirty: Vec<(usize, ConnId)>,
    dialled: VecDeque<(usize, ConnId)>,
    accepted: u64,
    closing: usize,
    /// Bytes held for each connection at most.
    cap: usize,
    /// The same where the peer was not let in.
    stranger_cap: usize,
    counters: Arc<Counters>,
}

type Reports = VecDeque<Input<'static>>;

impl Tcp {
    pub(crate) fn new(cap: usize, stranger_cap: usize, counters: Arc<Counters>) -> Tcp {
        Tcp {
            conns: Slab::new(),
            by_id: HashMap::new(),
            last: None,
            dead: BTreeSet::new(),
            ready: VecDeque::new(),
            dirty: Vec::new(),
            dialled: VecDeque::new(),
            accepted: 0,
            closing: 0,
            cap,
            stranger_cap,
            counters,
        }
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.dirty.is_empty() || !self.dialled.is_empty()
    }

    /// Connections that the node has closed and that have not gone yet.
    pub(crate) fn closing(&self) -> usize {
        self.closing
    }

    /// Takes in an accepted connection. `None` if it is gone already.
    pub(crate) fn adopt(&mut self, io: TcpStream, registry: &Registry) -> Option<(ConnId, SocketAddr)> {
        let local = canonical(io.local_addr().ok()?);
        let id = ConnId::accepted(self.accepted);
        self.accepted += 1;
        self.insert(id, io, Phase::Open, registry).ok()?;
        Some((id, local))
    }

    /// Starts to open a connection.
    pub(crate) fn dial(
        &mut self,
        id: ConnId,
        to: SocketAddr,
        registry: &Registry,
        now: Time,
        alarms: &mut Timers<Alarm>,
        reports: &mut Reports,
    ) {
        self.counters.dialled.add(1);
        match TcpStream::connect(to).and_then(|io| self.insert(id, io, Phase::Connecting, registry)) {
            Ok(key) => alarms.set(Alarm::Conn(key, id), Deadline::new(now + DIAL, "a dial gets no answer")),
            Err(e) => {
                self.dead.insert(id);
                reports.push_back(Input::Closed { conn: id, reason: dial_failed(&e.to_string()) });
            }
        }
    }

    fn insert(
        &mut self,
        id: ConnId,
        mut io: TcpStream,
        phase: Phase,
        registry: &Registry,
    ) -> io::Result<usize> {
        // Each of these is an improvement only; a connection without them still works.
        let _ = io.set_nodelay(true);
        let socket = SockRef::from(&io);
        let probes = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        let _ = socket.set_tcp_keepalive(&probes);
        let _ = socket.set_tcp_notsent_lowat(KERNEL_UNSENT);
        let entry = self.conns.vacant_entry();
        let key = entry.key();
        registry.register(&mut io, Kind::Conn.token(key), Interest::READABLE | Interest::WRITABLE)?;
        entry.insert(Conn {
            id,
            io,
            phase,
            queue: VecDeque::new(),
            held: 0,
            cap: if id.is_dialled() { self.cap } else { self.cap.min(self.stranger_cap) },
            granted: 0,
            readable: false,
            writable: phase == Phase::Open,
            hung_up: false,
            finished: false,
            paused: false,
            write_failed: None,
            ignored: 0,
            in_ready: false,
            in_dirty: false,
        });
        self.by_id.insert(id, key);
        Ok(key)
    }

    /// Notes what an event says. It may be meant for a connection that had this slot before; then it costs one
    /// attempt that finds nothing.
    pub(crate) fn note(&mut self, key: usize, event: &Event) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let error = event.is_error();
        let writable = event.is_writable() || event.is_write_closed() || error;
        if conn.phase == Phase::Connecting {
            if writable {
                self.dialled.push_back((key, conn.id));
            }
            return;
        }
        conn.hung_up |= event.is_read_closed() || error;
        conn.readable |= event.is_readable() || conn.hung_up;
        conn.writable |= writable;
        if error || (conn.readable && conn.reading()) {
            self.queue_read(key);
        }
        if writable {
            self.queue_write(key);
        }
    }

    fn queue_read(&mut self, key: usize) {
        if let Some(conn) = self.conns.get_mut(key)
            && !conn.in_ready
        {
            conn.in_ready = true;
            self.ready.push_back((key, conn.id));
        }
    }

    fn queue_write(&mut self, key: usize) {
        if let Some(conn) = self.conns.get_mut(key)
            && !conn.in_dirty
            && conn.writable
            && conn.held > 0
            && conn.phase != Phase::Connecting
        {
            conn.in_dirty = true;
            self.dirty.push((key, conn.id));
        }
    }

    /// The next dial that something is known about.
    pub(crate) fn next_dialled(&mut self, alarms: &mut Timers<Alarm>) -> Option<Dialled> {
        let (key, id) = self.dialled.pop_front()?;
        let Some(conn) = self.conns.get_mut(key).filter(|c| c.id == id && c.phase == Phase::Connecting)
        else {
            return Some(Dialled::NotYet);
        };
        let error = match conn.io.take_error() {
            Ok(None) => match (conn.io.peer_addr(), conn.io.local_addr()) {
                (Ok(remote), Ok(local)) => {
                    conn.phase = Phase::Open;
                    conn.writable = true;
                    // What came with the connection has no event of its own.
                    conn.readable = true;
                    alarms.cancel(&Alarm::Conn(key, id));
                    self.queue_read(key);
                    let (local, remote) = (canonical(local), canonical(remote));
                    return Some(Dialled::Stands { conn: id, local, remote });
                }
                (Err(e), _) if e.kind() == ErrorKind::NotConnected => return Some(Dialled::NotYet),
                (Err(e), _) | (_, Err(e)) => e,
            },
            Ok(Some(e)) | Err(e) => e,
        };
        let reason = dial_failed(&error.to_string());
        self.bury(key, alarms);
        Some(Dialled::Failed { conn: id, reason })
    }

    /// What the node may send now, as an input; `None` if the connection is not open any more.
    pub(crate) fn grant(&mut self, id: ConnId) -> Option<Input<'static>> {
        let conn = self.conns.get_mut(*self.by_id.get(&id)?)?;
        if conn.phase != Phase::Open || conn.write_failed.is_some() {
            return None;
        }
        conn.granted = conn.cap.saturating_sub(conn.held);
        Some(Input::Writable { conn: id, free: conn.granted })
    }

    /// Whether the node has yet to be told that this connection is gone. Answers yes once.
    pub(crate) fn buried(&mut self, id: ConnId) -> bool {
        self.dead.remove(&id)
    }

    /// Takes bytes to send.
    pub(crate) fn send(&mut self, id: ConnId, bytes: Bytes) {
        let last = self.last.filter(|(of, _)| *of == id).map(|(_, key)| key);
        let Some(key) = last.or_else(|| self.by_id.get(&id).copied()) else { return };
        self.last = Some((id, key));
        let Some(conn) = self.conns.get_mut(key) else { return };
        if bytes.is_empty() || conn.write_failed.is_some() {
            return;
        }
        self.counters.tcp_over_credit.add(bytes.len().saturating_sub(conn.granted) as u64);
        conn.granted = conn.granted.saturating_sub(bytes.len());
        conn.held += bytes.len();
        self.counters.tcp_held_most.raise_to(conn.held as u64);
        conn.queue.push_back(bytes);
        self.queue_write(key);
    }

    /// Stops or goes on reading.
    pub(crate) fn reading(&mut self, id: ConnId, on: bool) {
        let Some(&key) = self.by_id.get(&id) else { return };
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.paused = !on;
        if conn.readable && conn.reading() {
            self.queue_read(key);
        }
    }

    /// The node has let the peer of a connection in.
    pub(crate) fn let_in(&mut self, id: ConnId, reports: &mut Reports) {
        let Some(conn) = self.by_id.get(&id).and_then(|key| self.conns.get_mut(*key)) else { return };
        if conn.cap < self.cap {
            conn.cap = self.cap;
            reports.push_back(Input::Writable { conn: id, free: 0 });
        }
    }

    /// Closes a connection for the node: at once by a reset, or after what it sent has left.
    pub(crate) fn close(&mut self, id: ConnId, at_once: bool, now: Time, alarms: &mut Timers<Alarm>) {
        self.dead.remove(&id);
        self.last = None;
        let Some(key) = self.by_id.remove(&id) else { return };
        let Some(conn) = self.conns.get_mut(key) else { return };
        if at_once {
            let _ = SockRef::from(&conn.io).set_linger(Some(Duration::ZERO));
        }
        if at_once || conn.phase != Phase::Open || conn.write_failed.is_some() {
            self.remove(key, alarms);
            return;
        }
        conn.phase = Phase::Flushing { since: now };
        self.closing += 1;
        // A peer that is still sending may not read before it has sent all, so it must get rid of it.
        conn.paused = false;
        let read = conn.readable && conn.reading();
        if !conn.in_dirty {
            conn.in_dirty = true;
            self.dirty.push((key, id));
        }
        alarms.set(Alarm::Conn(key, id), Deadline::new(now + FLUSH_STALL, "a closed connection stalls"));
        if read {
            self.queue_read(key);
        }
    }

    pub(crate) fn ready_to_read(&self) -> usize {
        self.ready.len()
    }

    /// Reads once from the connection that has waited longest.
    pub(crate) fn read_next(&mut self, buffer: &mut [u8], alarms: &mut Timers<Alarm>) -> Read {
        let Some((key, id)) = self.ready.pop_front() else { return Read::Nothing };
        let Some(conn) = self.conns.get_mut(key).filter(|c| c.id == id) else { return Read::Nothing };
        conn.in_ready = false;
        if !conn.reading() {
            // Queued because of an error that no read will come across.
            let failed = conn.write_failed.take();
            let failed = failed.or_else(|| conn.io.take_error().unwrap_or_else(Some).map(|e| broken(&e)));
            return match failed {
                Some(reason) => self.fail(key, reason, alarms),
                None => Read::Nothing,
            };
        }
        match conn.io.read(buffer) {
            Ok(0) => {
                conn.finished = true;
                conn.readable = false;
                match conn.phase {
                    Phase::Lingering => {
                        self.remove(key, alarms);
                        Read::Nothing
                    }
                    Phase::Flushing { .. } => Read::Nothing,
                    _ => match conn.write_failed.take() {
                        Some(reason) => self.fail(key, reason, alarms),
                        None => Read::Finished(id),
                    },
                }
            }
            Ok(n) => {
                self.counters.tcp_bytes_in.add(n as u64);
                // Less than asked for means that nothing is left (epoll(7), question 9), but the end may be behind.
                conn.readable = n == buffer.len() || conn.hung_up;
                let (readable, closing) = (conn.readable, conn.closing());
                if closing {
                    conn.ignored += n;
                    if conn.ignored > LINGER_BYTES {
                        self.remove(key, alarms);
                        return Read::Nothing;
                    }
                }
                if readable {
                    self.queue_read(key);
                }
                if closing { Read::Nothing } else { Read::Bytes(id, n) }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                conn.readable = false;
                match conn.write_failed.take() {
                    Some(reason) => self.fail(key, reason, alarms),
                    None => Read::Nothing,
                }
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {
                self.queue_read(key);
                Read::Nothing
            }
            Err(e) => {
                let reason = conn.write_failed.take().unwrap_or_else(|| broken(&e));
                self.fail(key, reason, alarms)
            }
        }
    }

    /// Writes what waits, as far as the kernel takes it.
    pub(crate) fn flush(&mut self, now: Time, alarms: &mut Timers<Alarm>, reports: &mut Reports) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for (key, id) in dirty.drain(..) {
            if self.conns.get(key).is_some_and(|c| c.id == id) {
                self.flush_one(key, now, alarms, reports);
            }
        }
        // Keeps the memory: writing does not make connections dirty.
        self.dirty = dirty;
    }

    fn flush_one(&mut self, key: usize, now: Time, alarms: &mut Timers<Alarm>, reports: &mut Reports) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.in_dirty = false;
        let id = conn.id;
        match write(conn) {
            Ok(0) => {}
            Ok(n) => {
                self.counters.tcp_bytes_out.add(n as u64);
                if let Phase::Flushing { since } = conn.phase {
                    let at = (now + FLUSH_STALL).min(since + FLUSH_WHOLE);
                    alarms.set(Alarm::Conn(key, id), Deadline::new(at, "a closed connection stalls"));
                }
                let grown = conn.cap.saturating_sub(conn.held).saturating_sub(conn.granted);
                // A node that is out of credit hears of every byte; else a quarter at a time is soon enough.
                if conn.phase == Phase::Open && grown > 0 && (conn.granted == 0 || grown >= conn.cap / 4) {
                    reports.push_back(Input::Writable { conn: id, free: 0 });
                }
            }
            Err(_) if conn.closing() => {
                self.remove(key, alarms);
                return;
            }
            Err(e) => {
                // What the peer sent before it went is still to be read.
                conn.write_failed = Some(broken(&e));
                conn.queue.clear();
                conn.held = 0;
                conn.hung_up = true;
                conn.readable = true;
                if conn.reading() {
                    self.queue_read(key);
                } else if let Read::Failed(conn, reason) = self.fail(key, broken(&e), alarms) {
                    reports.push_back(Input::Closed { conn, reason });
                }
                return;
            }
        }
        if conn.held == 0 && matches!(conn.phase, Phase::Flushing { .. }) {
            let shut = conn.io.shutdown(Shutdown::Write).is_ok();
            if conn.finished || !shut || self.closing > LINGERING {
                self.remove(key, alarms);
            } else {
                conn.phase = Phase::Lingering;
                alarms.set(Alarm::Conn(key, id), Deadline::new(now + LINGER, "a closed connection lingers"));
            }
        }
    }

    /// Ends a connection whose alarm went off.
    pub(crate) fn expire(
        &mut self,
        key: usize,
        id: ConnId,
        now: Time,
        alarms: &mut Timers<Alarm>,
        reports: &mut Reports,
    ) {
        let Some(conn) = self.conns.get(key).filter(|c| c.id == id) else { return };
        match conn.phase {
            Phase::Connecting => {
                self.bury(key, alarms);
                let why = format!("no answer within {} s", DIAL.as_secs());
                reports.push_back(Input::Closed { conn: id, reason: dial_failed(&why) });
            }
            Phase::Open => {}
            Phase::Flushing { since } => {
                debug_assert!(now >= since);
                let _ = SockRef::from(&conn.io).set_linger(Some(Duration::ZERO));
                self.remove(key, alarms);
            }
            Phase::Lingering => self.remove(key, alarms),
        }
    }

    /// Drops what the node has closed, whether or not it has said its last words.
    pub(crate) fn drop_closing(&mut self) {
        self.conns.retain(|_, c| !c.closing());
        self.closing = 0;
    }

    /// Ends a connection by an error.
    fn fail(&mut self, key: usize, reason: Reason, alarms: &mut Timers<Alarm>) -> Read {
        let Some(conn) = self.conns.get(key) else { return Read::Nothing };
        let (id, closing) = (conn.id, conn.closing());
        if closing {
            self.remove(key, alarms);
            return Read::Nothing;
        }
        self.counters.tcp_failed.add(1);
        self.bury(key, alarms);
        Read::Failed(id, reason)
    }

    /// Removes a connection about whose end the node is to be told.
    fn bury(&mut self, key: usize, alarms: &mut Timers<Alarm>) {
        if let Some(conn) = self.conns.get(key) {
            self.last = None;
            self.by_id.remove(&conn.id);
            self.dead.insert(conn.id);
            self.remove(key, alarms);
        }
    }

    fn remove(&mut self, key: usize, alarms: &mut Timers<Alarm>) {
        if let Some(conn) = self.conns.try_remove(key) {
            self.closing -= usize::from(conn.closing());
            alarms.cancel(&Alarm::Conn(key, conn.id));
        }
    }
}

/// Writes until nothing is left or the kernel takes no more. Answers how many bytes went.
fn write(conn: &mut Conn) -> io::Result<usize> {
    let mut written = 0;
    while conn.writable && conn.held > 0 {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut offered = 0;
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(&conn.queue) {
            *slice = IoSlice::new(bytes);
            offered += bytes.len();
            count += 1;
        }
        // sendmsg(2), because writev(2) goes by way of the kernel's file layer, which is 6 % of what RTMP players cost.
        match SockRef::from(&conn.io).send_vectored(&slices[..count]) {
            Ok(n) => {
                written += n;
                conn.held -= n;
                advance(&mut conn.queue, n);
                // Less than offered means that the kernel is full; an event says when it is not (epoll(7)).
                conn.writable = n == offered;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => conn.writable = false,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    if conn.queue.is_empty() && conn.queue.capacity() > SLICES {
        // A burst's memory is not kept for the life of the connection.
        conn.queue.shrink_to(SLICES);
    }
    Ok(written)
}

fn advance(queue: &mut VecDeque<Bytes>, mut n: usize) {
    while let Some(front) = queue.front_mut() {
        if front.len() > n {
            front.advance(n);
            return;
        }
        n -= front.len();
        queue.pop_front();
    }
}

fn dial_failed(why: &str) -> Reason {
    Reason::peer("dial_failed", format!("the connection could not be made: {why}"))
}

/// What an error of an open connection means.
fn broken(error: &io::Error) -> Reason {
    match error.kind() {
        ErrorKind::ConnectionReset => Reason::peer("reset", "the peer reset the connection"),
        ErrorKind::BrokenPipe => Reason::peer("peer_closed", "the peer closed the connection"),
        ErrorKind::TimedOut => Reason::peer("io_error", "the peer stopped answering (TCP gave up on it)"),
        _ => Reason::local("io_error", format!("the connection failed: {error}")),
    }
}
