//! The loop.

use crate::accept::Taken;
use crate::io::{Io, host_addresses};
use crate::tcp::{Dialled, Read};
use crate::udp::RecvBuffers;
use crate::{Drive, ExitReason};
use mio::{Events, Poll};
use proto_core::error::Reason;
use proto_core::io::{ConnId, Input, Level};
use std::io::ErrorKind;

/// Events taken from the kernel in one turn; more wait for the next.
const EVENTS: usize = 1024;
/// Connections read in one turn; more wait for the next, so that timers and datagrams are never late by much.
const CONNS: usize = 256;

/// Drives `node` until something ends it. In every turn: sleep until something is ready or due, tell the node about
/// it (staging its outputs after each input), let time pass, then hand the staged outputs to the kernel.
pub(crate) fn run<N: Drive>(poll: &mut Poll, io: &mut Io, node: &mut N) -> ExitReason {
    let mut events = Events::with_capacity(EVENTS);
    let mut stream_buffer = vec![0; io.read_per_turn];
    let mut datagram_buffers = RecvBuffers::new();
    let mut driver = Driver { io, node };
    driver.start();
    loop {
        if let Some(reason) = driver.io.ended() {
            // What was staged by the last reports, such as goodbyes over UDP.
            driver.io.flush();
            return reason;
        }
        match poll.poll(&mut events, driver.io.timeout(driver.node.deadline())) {
            Err(e) if e.kind() == ErrorKind::Interrupted => events.clear(),
            Err(e) => {
                return ExitReason::Fatal(Reason::local(
                    "poll_failed",
                    format!("cannot wait for events: {e}"),
                ));
            }
            Ok(()) => {}
        }
        let woken = driver.io.now();
        for event in &events {
            driver.io.note(event);
        }
        driver.obey();
        driver.connect();
        driver.accept();
        driver.read_streams(&mut stream_buffer);
        driver.read_datagrams(&mut datagram_buffers);
        driver.feed(Input::Tick);
        driver.io.flush();
        driver.report();
        if let Some(permille) = driver.io.count_turn(woken) {
            driver.feed(Input::Busy { permille });
        }
    }
}

struct Driver<'r, N> {
    io: &'r mut Io,
    node: &'r mut N,
}

impl<N: Drive> Driver<'_, N> {
    /// Hands one input to the node and stages what it says.
    fn feed(&mut self, input: Input<'_>) {
        self.node.handle(input, self.io.now());
        while let Some(output) = self.node.poll() {
            self.io.stage(output);
        }
    }

    fn start(&mut self) {
        let wall = self.io.wall_clock();
        self.feed(Input::WallClock(wall));
        self.feed(Input::HostAddresses(&host_addresses()));
        self.feed(Input::Tick);
        self.io.flush();
        self.report();
    }

    /// Does what other threads asked for and what the loop's own alarms are for.
    fn obey(&mut self) {
        let (drain, stop) = self.io.control.take();
        if drain {
            self.feed(Input::Drain);
        }
        if stop {
            self.io.stop();
        }
        self.io.look_at_others();
        if let Some(wall) = self.io.expire() {
            self.feed(Input::WallClock(wall));
        }
    }

    /// Tells the node which of its dials stand.
    fn connect(&mut self) {
        while let Some(done) = self.io.tcp.next_dialled(&mut self.io.alarms) {
            match done {
                Dialled::Stands { conn, local, remote } => {
                    self.feed(Input::Connected { conn, local, remote });
                    self.grant(conn);
                }
                Dialled::Failed { conn, reason } => {
                    if self.io.tcp.buried(conn) {
                        self.feed(Input::Closed { conn, reason });
                    }
                }
                Dialled::NotYet => {}
            }
        }
    }

    fn accept(&mut self) {
        self.io.listeners.begin_turn();
        let now = self.io.now();
        while let Some(taken) = self.io.listeners.next(now, &mut self.io.alarms, &self.io.control.counters) {
            match taken {
                Taken::Conn { service, stream, remote } => {
                    if let Some((conn, local)) = self.io.tcp.adopt(stream, &self.io.registry) {
                        self.feed(Input::Accepted { conn, service, local, remote });
                        self.grant(conn);
                    }
                }
                Taken::OutOfFds { refused } => {
                    let text = format!(
                        "no file descriptors are left (connections closed unheard: {refused}); \
                         raise the limit on open files (ulimit -n) or lower limits.conns"
                    );
                    self.io.say(Level::Error, text);
                }
            }
        }
    }

    /// Tells the node how much may be sent, if it has not closed the connection already.
    fn grant(&mut self, conn: ConnId) {
        if let Some(writable) = self.io.tcp.grant(conn) {
            self.feed(writable);
        }
    }

    /// Gives connections with something to read one turn each. What has more is queued again behind the others.
    fn read_streams(&mut self, buffer: &mut [u8]) {
        for _ in 0..self.io.tcp.ready_to_read().min(CONNS) {
            match self.io.tcp.read_next(buffer, &mut self.io.alarms) {
                Read::Nothing => {}
                Read::Bytes(conn, n) => {
                    let bytes = buffer.get(..n).unwrap_or_default();
                    self.feed(Input::Received { conn, bytes });
                }
                Read::Finished(conn) => self.feed(Input::PeerFinished { conn }),
                Read::Failed(conn, reason) => {
                    if self.io.tcp.buried(conn) {
                        self.feed(Input::Closed { conn, reason });
                    }
                }
            }
        }
    }

    /// Gives every socket with datagrams one turn of bounded length.
    fn read_datagrams(&mut self, buffers: &mut RecvBuffers) {
        for _ in 0..self.io.udp.ready_to_read() {
            let Some(mut turn) = self.io.udp.begin_turn() else { return };
            while self.io.udp.receive(&mut turn, buffers) {
                for datagram in buffers.received(&turn) {
                    self.feed(datagram);
                }
            }
        }
    }

    /// Tells the node what came of its outputs. What it answers is staged for the next turn, so that one connection
    /// whose peer reads fast cannot keep the loop to itself.
    fn report(&mut self) {
        for _ in 0..self.io.reports_waiting() {
            if let Some(input) = self.io.next_report() {
                self.feed(input);
            }
        }
    }
}
