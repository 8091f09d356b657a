//! A node run again from a recording, and where it parts from what was recorded.

use super::{BATCHES_OUT, Recorded, Trace};
use crate::io::{Batch, Input, Output, SocketId};
use crate::machine::Machine;
use crate::time::Time;
use std::collections::BTreeMap;

/// The first place at which a replay is not what was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What the node said to this input differs; the first input has number 1. Told apart by 16 bits, so in one case
    /// of 65,536 it is an earlier one.
    pub input: u64,
    /// When the node got that input.
    pub at: Time,
    /// Inputs before the last checkpoint at which both were the same.
    pub same_until: u64,
    /// Inputs before the checkpoint at which they were seen to differ; `None` if none followed.
    pub seen_by: Option<u64>,
}

/// What a replay looks at.
#[derive(Debug)]
pub enum Seen<'a> {
    /// The node is told this now.
    Input(&'a Input<'a>),
    /// The node says this.
    Output(&'a Output),
}

/// Hands a recording to a node and compares.
#[derive(Debug)]
pub struct Replay<N> {
    node: N,
    trace: Trace,
    same_until: u64,
    difference: Option<Difference>,
    batches: u64,
    batches_out: BTreeMap<u64, Box<Batch>>,
}

impl<N> Replay<N>
where
    N: for<'a> Machine<Input<'a> = Input<'a>, Output = Output>,
{
    /// A replay for a node that has been told nothing yet, made of what the recording's header says.
    pub const fn new(node: N) -> Replay<N> {
        Replay {
            node,
            trace: Trace { inputs: 0, at: Time::ZERO, digest: crate::trace::Digest::new() },
            same_until: 0,
            difference: None,
            batches: 0,
            batches_out: BTreeMap::new(),
        }
    }

    /// Hands the node an input; `see` is shown it and every output.
    pub fn input(&mut self, at: Time, mark: u16, input: Recorded, see: &mut dyn FnMut(Time, Seen<'_>)) {
        if self.trace.mark() != mark {
            self.differs();
        }
        match input {
            Recorded::HostAddresses(addresses) => self.feed(Input::HostAddresses(&addresses), at, see),
            Recorded::Received { conn, bytes } => self.feed(Input::Received { conn, bytes: &bytes }, at, see),
            Recorded::Datagram { socket, local, remote, stride, bytes } => {
                self.feed(Input::Datagram { socket, local, remote, stride, bytes: &bytes }, at, see);
            }
            Recorded::Returned { batch, refused } => {
                // A node that sent none parted from the recording already; what it gets back is empty then.
                let batch = self.batches_out.remove(&batch).unwrap_or_else(|| {
                    self.differs();
                    Box::new(Batch::new(SocketId(0)))
                });
                self.feed(Input::Sent { batch, refused }, at, see);
            }
            Recorded::Other(input) => self.feed(input, at, see),
        }
    }

    /// Compares with a checkpoint.
    pub fn checkpoint(&mut self, digest: u64) {
        let inputs = self.trace.inputs;
        if self.trace.digest.value() != digest {
            self.differs();
        }
        match &mut self.difference {
            None => self.same_until = inputs,
            Some(difference) => _ = difference.seen_by.get_or_insert(inputs),
        }
    }

    /// The first difference so far.
    pub const fn difference(&self) -> Option<Difference> {
        self.difference
    }

    /// Inputs so far.
    pub const fn inputs(&self) -> u64 {
        self.trace.inputs
    }

    /// Inputs before the last checkpoint that was as recorded. Those after it are compared by 16 bits each.
    pub const fn same_until(&self) -> u64 {
        self.same_until
    }

    /// The time of the last input.
    pub const fn at(&self) -> Time {
        self.trace.at
    }

    /// The digest of all inputs and outputs so far.
    pub const fn digest(&self) -> u64 {
        self.trace.digest.value()
    }

    fn feed(&mut self, input: Input<'_>, at: Time, see: &mut dyn FnMut(Time, Seen<'_>)) {
        self.trace.input(&input, at);
        see(at, Seen::Input(&input));
        self.node.handle(input, at);
        while let Some(output) = self.node.poll() {
            self.trace.output(&output);
            see(at, Seen::Output(&output));
            if let Output::Datagrams(batch) = output {
                if self.batches_out.len() >= BATCHES_OUT {
                    self.batches_out.pop_first();
                }
                self.batches_out.insert(self.batches, batch);
                self.batches += 1;
            }
        }
    }

    fn differs(&mut self) {
        let Trace { inputs, at, .. } = self.trace;
        let new = Difference { input: inputs, at, same_until: self.same_until, seen_by: None };
        self.difference.get_or_insert(new);
    }
}
