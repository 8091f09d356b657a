//! A TCP connection of a client on a real socket.

use bytes::{Buf, Bytes};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, SockAddr, Type};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Bytes that a client may hand over at once.
pub(super) const FREE: usize = 1 << 20;

/// For so long a client waits for the other host.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// See the module's text.
pub(super) struct Line {
    stream: TcpStream,
    stands: bool,
    pub(super) queue: VecDeque<Bytes>,
    pub(super) closing: bool,
    pub(super) reading: bool,
}

impl Line {
    /// Dials from an address of this host.
    pub(super) fn dial(
        registry: &Registry,
        token: Token,
        from: Ipv4Addr,
        to: SocketAddr,
    ) -> io::Result<Line> {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // What is not acknowledged for so long is a dead connection, as encoders and players take it.
        socket.set_tcp_user_timeout(Some(PATIENCE))?;
        socket.bind(&SockAddr::from(SocketAddr::new(from.into(), 0)))?;
        match socket.connect(&SockAddr::from(to)) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock || e.raw_os_error() == Some(EINPROGRESS) => {}
            Err(e) => return Err(e),
        }
        let mut stream = TcpStream::from_std(socket.into());
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Line { stream, stands: false, queue: VecDeque::new(), closing: false, reading: true })
    }

    /// Whether it stands since this call.
    pub(super) fn stand(&mut self) -> io::Result<bool> {
        if self.stands {
            return Ok(false);
        }
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                self.stands = true;
                Ok(true)
            }
            Err(e) if e.kind() == ErrorKind::NotConnected => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Writes what waits. Answers whether something was written and nothing is left.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        let mut wrote = false;
        while self.stands
            && let Some(front) = self.queue.front_mut()
        {
            match self.stream.write(front) {
                Ok(n) => {
                    wrote = true;
                    front.advance(n);
                    if front.is_empty() {
                        self.queue.pop_front();
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(wrote)
    }

    /// Reads once. Nothing: there is nothing now, or it does not read.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        if !self.reading || !self.stands {
            return None;
        }
        match self.stream.read(buffer) {
            Err(e) if e.kind() == ErrorKind::WouldBlock || e.kind() == ErrorKind::Interrupted => None,
            other => Some(other),
        }
    }

    /// It is watched no longer.
    pub(super) fn deregister(&mut self, registry: &Registry) {
        // What is closed next need not be known to it.
        drop(registry.deregister(&mut self.stream));
    }
}

/// Linux: the connection is being made.
const EINPROGRESS: i32 = 115;
