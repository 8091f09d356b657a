//! `headwater bench`: load on a running node, and what came of it.

mod host;
mod joins;
mod line;
mod pairings;
mod play;

use crate::args::{Bench, BenchCommand};
use crate::failure::Failure;

/// Runs one and answers what to print.
///
/// # Errors
/// What went wrong, or that the load was not carried.
pub(crate) fn run(args: &Bench) -> Result<String, Failure> {
    match &args.command {
        BenchCommand::Play(args) => play::run(args),
        BenchCommand::Pairings(args) => pairings::run(args),
        BenchCommand::Joins(args) => joins::run(args),
    }
}
