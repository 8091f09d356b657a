//! TCP listeners: bind with an error that helps, accept in bounded batches, and survive without descriptors.

use crate::control::Counters;
use crate::fds::{SpareFd, out_of_fds};
use crate::holder::who_holds;
use crate::io::{Alarm, Kind, canonical};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};
use proto_core::io::Service;
use proto_core::time::{Deadline, Time, Timers};
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

/// Connections that may wait in the kernel to be accepted.
const BACKLOG: i32 = 1024;
/// Connections that one listener takes in one turn.
const PER_TURN: usize = 64;
/// How often the operator is told that descriptors are short.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// An address that cannot be listened on. Its text names the address, the configuration key that sets it, the
/// remedy and, where it can be known, who holds the port.
#[derive(Debug)]
pub struct BindError {
    /// What the listener was for.
    pub service: Service,
    /// The address that was asked for.
    pub addr: SocketAddr,
    /// Who holds the port, where it is in use and that can be known.
    pub holder: Option<String>,
    /// What the operating system said.
    pub error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, port) = (self.service.key(), self.addr.port());
        write!(f, "{key} = \"{}\": cannot listen: ", self.addr)?;
        match (self.error.kind(), &self.holder) {
            (ErrorKind::AddrInUse, Some(who)) => {
                write!(f, "tcp port {port} is in use by {who}; stop it, or set {key} to another port")
            }
            (ErrorKind::AddrInUse, None) => {
                write!(f, "tcp port {port} is in use; stop what holds it, or set {key} to another port")
            }
            (ErrorKind::PermissionDenied, _) => {
                write!(f, "this user may not take tcp port {port}; set {key} to a port above 1023")
            }
            (ErrorKind::AddrNotAvailable, _) => {
                write!(f, "this host has no address {}; set {key} to one that it has", self.addr.ip())
            }
            _ => write!(f, "{}; set {key} to another address", self.error),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Whether other listeners of this process have the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// None.
    No,
    /// Others will.
    First,
    /// Others have.
    Next,
}

/// What a listener brought.
pub(crate) enum Taken {
    Conn { service: Service, stream: TcpStream, remote: SocketAddr },
    OutOfFds { refused: usize },
}

struct Listener {
    service: Service,
    io: TcpListener,
    ready: bool,
    left_this_turn: usize,
}

/// All listeners of a loop.
pub(crate) struct Listeners {
    list: Vec<Listener>,
    spare: SpareFd,
    paused: bool,
    /// How long nothing is accepted after the process ran out of something.
    pause: Duration,
    /// Connections refused since the operator was told, and when that was.
    refused: usize,
    told: Option<Time>,
}

impl Listeners {
    pub(crate) fn new(spare: SpareFd, pause: Duration) -> Listeners {
        Listeners { list: Vec::new(), spare, paused: false, pause, refused: 0, told: None }
    }

    pub(crate) fn bind(
        &mut self,
        service: Service,
        addr: SocketAddr,
        share: Share,
        registry: &Registry,
    ) -> Result<SocketAddr, BindError> {
        self.try_bind(service, addr, share, registry).map_err(|error| {
            let holder = (error.kind() == ErrorKind::AddrInUse).then(|| who_holds(addr)).flatten();
            BindError { service, addr, holder, error }
        })
    }

    fn try_bind(
        &mut self,
        service: Service,
        addr: SocketAddr,
        share: Share,
        registry: &Registry,
    ) -> io::Result<SocketAddr> {
        let unbound = || {
            let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            Ok::<_, io::Error>(socket)
        };
        if share == Share::First {
            // Who does not share cannot bind where somebody listens, whether or not that one would.
            unbound()?.bind(&addr.into())?;
        }
        let socket = unbound()?;
        if share != Share::No {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        let mut io = TcpListener::from_std(socket.into());
        let bound = io.local_addr()?;
        registry.register(&mut io, Kind::Listener.token(self.list.len()), Interest::READABLE)?;
        self.list.push(Listener { service, io, ready: false, left_this_turn: 0 });
        Ok(bound)
    }

    pub(crate) fn note(&mut self, index: usize) {
        if let Some(listener) = self.list.get_mut(index) {
            listener.ready = true;
        }
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.paused && self.list.iter().any(|l| l.ready)
    }

    /// Goes on after a pause.
    pub(crate) fn resume(&mut self) {
        self.paused = false;
    }

    pub(crate) fn begin_turn(&mut self) {
        for listener in &mut self.list {
            listener.left_this_turn = PER_TURN;
        }
    }

    /// The next connection of this turn.
    pub(crate) fn next(
        &mut self,
        now: Time,
        alarms: &mut Timers<Alarm>,
        counters: &Counters,
    ) -> Option<Taken> {
        while !self.paused {
            let listener = self.list.iter_mut().find(|l| l.ready && l.left_this_turn > 0)?;
            listener.left_this_turn -= 1;
            match listener.io.accept() {
                Ok((stream, remote)) => {
                    counters.accepted.add(1);
                    return Some(Taken::Conn {
                        service: listener.service,
                        stream,
                        remote: canonical(remote),
                    });
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => listener.ready = false,
                Err(e) if out_of_fds(&e) => {
                    let refused = refuse(listener, &mut self.spare);
                    if refused == 0 && !listener.ready {
                        // Linux looks for a descriptor before it looks for a connection, and there was none.
                        continue;
                    }
                    counters.accept_refused.add(refused as u64);
                    self.refused += refused;
                    self.pause(now, alarms);
                    if self.told.is_none_or(|told| now.since(told) >= TELL_AGAIN) {
                        self.told = Some(now);
                        return Some(Taken::OutOfFds { refused: std::mem::take(&mut self.refused) });
                    }
                }
                Err(e) => {
                    counters.accept_errors.add(1);
                    // What is left of these concerns one connection that is gone already (accept(2), Error handling).
                    if matches!(e.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM)) {
                        self.pause(now, alarms);
                    }
                }
            }
        }
        None
    }

    fn pause(&mut self, now: Time, alarms: &mut Timers<Alarm>) {
        self.paused = true;
        alarms.set(
            Alarm::AcceptAgain,
            Deadline::new(now + self.pause, "accepting pauses for want of descriptors"),
        );
    }
}

/// Closes what waits at `listener`, with the one descriptor in reserve. Answers how many that were.
fn refuse(listener: &mut Listener, spare: &mut SpareFd) -> usize {
    for refused in 0..PER_TURN {
        match spare.lend(|| listener.io.accept().map(drop)) {
            Some(Ok(())) => {}
            Some(Err(e)) if e.kind() == ErrorKind::WouldBlock => {
                listener.ready = false;
                return refused;
            }
            _ => return refused,
        }
    }
    PER_TURN
}
