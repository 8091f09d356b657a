//! The one shape that every protocol machine in this crate has.
//!
//! A machine is driven by three calls and nothing else: [`Machine::handle`] takes one input, [`Machine::poll`]
//! is called until it answers `None`, and [`Machine::deadline`] says when the next tick is due. The runtime and
//! the tests drive the same machines by the same three calls.

use crate::time::{Deadline, Time};

/// A pure state machine: inputs and time come in, outputs and one deadline come out.
///
/// Two laws hold for every implementation, and the generic harness in the `tests` crate checks both:
/// a tick that comes too early (or twice) changes nothing, and for machines fed with stream bytes, any
/// re-chunking of the same bytes gives the same outputs.
///
/// A peer's fault is an output (`Closed { reason }`), never an `Err`.
pub trait Machine {
    /// What the machine can be told. Borrows receive buffers.
    type Input<'a>;
    /// What the machine says. Owns its data; never borrows the machine.
    type Output;

    /// Takes one input. `now` never goes backwards between calls.
    fn handle(&mut self, input: Self::Input<'_>, now: Time);

    /// Takes out one output; called until `None` after every [`Machine::handle`].
    fn poll(&mut self) -> Option<Self::Output>;

    /// When the machine wants its next tick, if time alone can change it.
    fn deadline(&self) -> Option<Deadline>;
}
