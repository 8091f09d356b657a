//! The event loop that drives a node: TCP with credit, UDP in batches, timers and asks, on one thread and one
//! [`mio::Poll`].
//!
//! Nothing that decides behaviour lives here (ARCHITECTURE.md, law 2): the loop carries inputs to the node and its
//! outputs to the kernel. A [`Runtime`] holds no global state, so several nodes may run in one process, each on a
//! thread of its own.
//!
//! A panic in the node is not caught here: the session boundary lives in the core.

// This crate is the one place that may touch clocks, threads, sockets and files (clippy.toml bans them elsewhere).
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod accept;
mod asks;
pub mod bare;
mod control;
mod driver;
mod fds;
mod holder;
pub mod host;
mod io;
#[cfg(target_os = "linux")]
mod many;
mod recorder;
mod tcp;
mod udp;

#[cfg(test)]
mod tests;

pub use accept::BindError;
use accept::Share;
pub use asks::read as read_file;
pub use control::{RemoteControl, Stats};
pub use fds::raise_file_limit;
pub use holder::{who_holds, who_holds_udp};
pub use recorder::{RecordError, Recorded, Recorder};

use mio::{Poll, Waker};
use proto_core::error::Reason;
use proto_core::io::{Input, LogLine, Output, Service};
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a runtime can drive: a machine with the inputs and outputs of a node. Implemented by itself for everything
/// that has that shape.
pub trait Drive: for<'a> Machine<Input<'a> = Input<'a>, Output = Output> {}

impl<M> Drive for M where M: for<'a> Machine<Input<'a> = Input<'a>, Output = Output> {}

/// How a runtime is set up.
pub struct Options {
    /// Bytes that one connection may bring in one turn of the loop (`limits.conn_read_per_turn`).
    pub read_per_turn: usize,
    /// Bytes held for the sending side of one connection (`limits.conn_write_buffer`).
    pub write_buffer: usize,
    /// The same for an accepted connection whose peer the node has not let in (`limits.conn_idle_write_bytes`).
    pub stranger_buffer: usize,
    /// How long nothing is accepted after the process ran out of descriptors (`limits.accept_pause_ms`).
    pub accept_pause: Duration,
    /// Whether the kernel is handed several datagrams as one message where it can take them (`webrtc.gso`).
    pub gso: bool,
    /// Where the node's log lines go. Called on the loop's thread, so it must not block for long.
    pub log: Box<dyn FnMut(&LogLine) + Send>,
}

impl Options {
    /// The buffers that `limits` allow, and `log` as the taker of log lines.
    pub fn new(limits: &Limits, log: impl FnMut(&LogLine) + Send + 'static) -> Options {
        Options {
            read_per_turn: limits.conn_read_per_turn,
            write_buffer: limits.conn_write_buffer,
            stranger_buffer: limits.conn_idle_write_bytes,
            accept_pause: Duration::from_millis(limits.accept_pause_ms),
            gso: true,
            log: Box::new(log),
        }
    }
}

/// Why [`Runtime::run`] came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// The node finished everything after a drain.
    Drained,
    /// The node, or the loop under it, cannot go on.
    Fatal(Reason),
    /// [`RemoteControl::stop`] was called.
    Stopped,
}

/// One event loop with its listeners. Made on any thread, moved to the one that runs it.
pub struct Runtime {
    poll: Poll,
    io: io::Io,
    control: RemoteControl,
}

/// Makes these loops of one process end together once their nodes have drained: until the last has, each answers who asks.
pub fn end_together<'a>(runtimes: impl Iterator<Item = &'a mut Runtime>) {
    let all: Vec<&mut Runtime> = runtimes.collect();
    let together = control::Together::new(all.iter().map(|r| r.handle()).collect());
    for runtime in all {
        runtime.io.together = Some(together.clone());
    }
}

impl Runtime {
    /// An event loop without listeners. The clock of its node starts here.
    ///
    /// # Errors
    /// The operating system's, when it has no poll instance or file descriptor to give.
    pub fn new(options: Options) -> std::io::Result<Runtime> {
        let start = Instant::now();
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), io::WAKER)?);
        let control = RemoteControl::new(waker);
        let io = io::Io::new(start, poll.registry().try_clone()?, control.clone(), options)?;
        Ok(Runtime { poll, io, control })
    }

    /// Listens on `addr` for `service` (SO_REUSEADDR, backlog 1024) and answers the address really bound, which
    /// differs from `addr` where that has port 0.
    ///
    /// # Errors
    /// [`BindError`], whose text names the address, the key that sets it and, where it can be known, who holds the
    /// port.
    pub fn bind(&mut self, service: Service, addr: SocketAddr) -> Result<SocketAddr, BindError> {
        self.io.listeners.bind(service, addr, Share::No, &self.io.registry)
    }

    /// As [`Runtime::bind`], at an address that several loops of this process listen on (SO_REUSEPORT): the kernel deals
    /// connections out to them. The `first` of them sees to it that nobody else has it: without that, two processes of one user
    /// could each get a part of the other's clients.
    ///
    /// # Errors
    /// As [`Runtime::bind`].
    pub fn bind_shared(
        &mut self,
        service: Service,
        addr: SocketAddr,
        first: bool,
    ) -> Result<SocketAddr, BindError> {
        let share = if first { Share::First } else { Share::Next };
        self.io.listeners.bind(service, addr, share, &self.io.registry)
    }

    /// The moment that is [`proto_core::time::Time::ZERO`] for the node of this loop; the std `Instant` that some
    /// sans-IO libraries ask for is built on it.
    pub fn start_instant(&self) -> Instant {
        self.io.start
    }

    /// A handle by which other threads (the signal handlers) drain or stop this loop and read its counters.
    pub fn handle(&self) -> RemoteControl {
        self.control.clone()
    }

    /// Drives `node` until it has drained, fails, or is stopped. Connections that are still open then are dropped.
    pub fn run<N: Drive>(&mut self, node: &mut N) -> ExitReason {
        driver::run(&mut self.poll, &mut self.io, node)
    }
}
