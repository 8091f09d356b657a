//! The loop against real sockets on loopback. Nothing sleeps: tests wait in blocking reads and channel receives,
//! each with a time limit that only a failure reaches.

mod ends;
mod fds;
mod tcp;
mod udp;

use crate::{ExitReason, Options, RemoteControl, Runtime};
use bytes::Bytes;
use proto_core::buf::Outbox;
use proto_core::io::{ConnId, Input, Output, Service};
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::time::{Deadline, Time};
use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longer than anything here takes on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What a test machine saw, in words that tests compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Saw {
    Accepted(ConnId, SocketAddr, SocketAddr),
    Connected(ConnId, SocketAddr),
    Received(ConnId, usize),
    Finished(ConnId),
    Closed(ConnId, &'static str),
    Other(String),
}

/// How a test machine answers.
pub(super) type Behaviour = Box<dyn FnMut(&Input<'_>, &mut Says) + Send>;

/// What a test machine says, with an outbox for each connection as the core has it.
#[derive(Default)]
pub(super) struct Says {
    pub(super) outputs: VecDeque<Output>,
    outboxes: BTreeMap<ConnId, Outbox>,
    closing: Vec<ConnId>,
    pub(super) deadline: Option<Deadline>,
}

impl Says {
    pub(super) fn write(&mut self, conn: ConnId, bytes: impl Into<Bytes>) {
        self.outboxes.entry(conn).or_default().push(bytes);
    }

    /// Closes once the outbox is empty.
    pub(super) fn finish(&mut self, conn: ConnId) {
        self.closing.push(conn);
    }

    pub(super) fn waiting(&self, conn: ConnId) -> usize {
        self.outboxes.get(&conn).map_or(0, Outbox::queued)
    }
}

/// A machine that reports what it sees, keeps to its credit, and answers as its behaviour says.
pub(super) struct Probe {
    says: Says,
    behaviour: Behaviour,
    saw: Sender<Saw>,
}

impl Machine for Probe {
    type Input<'a> = Input<'a>;
    type Output = Output;

    fn handle(&mut self, input: Input<'_>, _: Time) {
        let saw = match &input {
            Input::Tick | Input::WallClock(_) | Input::HostAddresses(_) | Input::Sent { .. } => None,
            Input::Datagram { .. } => None,
            Input::Writable { conn, free } => {
                self.says.outboxes.entry(*conn).or_default().set_credit(*free);
                None
            }
            Input::Accepted { conn, local, remote, .. } => Some(Saw::Accepted(*conn, *local, *remote)),
            Input::Connected { conn, remote, .. } => Some(Saw::Connected(*conn, *remote)),
            Input::Received { conn, bytes } => Some(Saw::Received(*conn, bytes.len())),
            Input::PeerFinished { conn } => Some(Saw::Finished(*conn)),
            Input::Closed { conn, reason } => Some(Saw::Closed(*conn, reason.code)),
            other => Some(Saw::Other(format!("{other:?}"))),
        };
        (self.behaviour)(&input, &mut self.says);
        if let Some(saw) = saw {
            // The test may have seen enough and be gone.
            let _ = self.saw.send(saw);
        }
    }

    fn poll(&mut self) -> Option<Output> {
        if let Some(output) = self.says.outputs.pop_front() {
            return Some(output);
        }
        for (&conn, outbox) in &mut self.says.outboxes {
            if let Some(bytes) = outbox.pop() {
                return Some(Output::Send { conn, bytes });
            }
        }
        let done = self.says.closing.iter().position(|&c| self.says.waiting(c) == 0)?;
        let conn = self.says.closing.swap_remove(done);
        self.says.outboxes.remove(&conn);
        Some(Output::Close { conn, now: false })
    }

    fn deadline(&self) -> Option<Deadline> {
        self.says.deadline
    }
}

/// A loop with a probe on a thread of its own.
pub(super) struct Running {
    pub(super) addr: SocketAddr,
    pub(super) control: RemoteControl,
    saw: Receiver<Saw>,
    thread: Option<JoinHandle<ExitReason>>,
}

impl Running {
    pub(super) fn start(behaviour: impl FnMut(&Input<'_>, &mut Says) + Send + 'static) -> Running {
        Running::start_with(&Limits::default(), behaviour)
    }

    pub(super) fn start_with(
        limits: &Limits,
        behaviour: impl FnMut(&Input<'_>, &mut Says) + Send + 'static,
    ) -> Running {
        let (tell, saw) = channel();
        let mut runtime = Runtime::new(Options::new(limits, |line| eprintln!("{line:?}"))).unwrap();
        let addr = runtime.bind(Service::Rtmp, "127.0.0.1:0".parse().unwrap()).unwrap();
        let control = runtime.handle();
        let mut probe = Probe { says: Says::default(), behaviour: Box::new(behaviour), saw: tell };
        let thread = Some(std::thread::spawn(move || runtime.run(&mut probe)));
        Running { addr, control, saw, thread }
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(super) fn next(&self) -> Saw {
        self.saw.recv_timeout(PATIENCE).expect("the machine sees something in time")
    }

    /// Waits until the machine has seen something that `wanted` picks.
    pub(super) fn wait<T>(&self, mut wanted: impl FnMut(&Saw) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(&self.next()) {
                return found;
            }
        }
    }

    /// Everything seen up to the end of the loop, which must have been asked for.
    pub(super) fn end(mut self) -> (ExitReason, Vec<Saw>) {
        let reason = self.thread.take().unwrap().join().unwrap();
        (reason, self.saw.try_iter().collect())
    }

    /// Ends the loop and answers what was seen meanwhile.
    pub(super) fn stop(self) -> Vec<Saw> {
        self.control.stop();
        let (reason, saw) = self.end();
        assert_eq!(reason, ExitReason::Stopped);
        saw
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.control.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the loop panicked");
        }
    }
}

/// Gives every byte back, and ends when the peer has.
pub(super) fn echo(input: &Input<'_>, says: &mut Says) {
    match input {
        Input::Received { conn, bytes } => says.write(*conn, bytes.to_vec()),
        Input::PeerFinished { conn } => says.finish(*conn),
        Input::Drain => says.outputs.push_back(Output::Drained),
        _ => {}
    }
}

/// Bytes in which a missing or doubled piece shows.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}
