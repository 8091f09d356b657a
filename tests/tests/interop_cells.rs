//! Some cells of the table of faults (docs/faults.md); `cargo faults` has all of them.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::faults::{Fault, Victim, run};
use headwater_tests::interop::cluster::turn;

fn holds(fault: Fault, victim: Victim) {
    let _turn = turn();
    let rows =
        run(fault, victim, None).unwrap_or_else(|why| panic!("{fault} at the {}: {why}", victim.name()));
    assert!(rows.iter().any(|r| r.hit) && rows.iter().any(|r| !r.hit), "{rows:?}");
    assert!(rows.iter().all(|r| r.good), "{fault} at the {}: {rows:#?}", victim.name());
}

#[test]
fn an_origin_that_is_killed_and_started_again() {
    holds(Fault::Restart, Victim::Origin);
}

#[test]
fn an_edge_without_descriptors() {
    holds(Fault::Descriptors, Victim::Edge);
}
