//! Interposition as a program sees it: constant and seeded inside, real outside.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use determinism::os;
use std::collections::HashSet;

/// What a run may read, without saying the time.
fn draws() -> (Vec<u32>, [u8; 32], Vec<u64>) {
    let order: Vec<u32> = (0..64).collect::<HashSet<u32>>().into_iter().collect();
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    (order, bytes, (0..8).map(|_| fastrand::u64(..)).collect())
}

#[test]
fn a_run_draws_from_its_seed_alone() {
    let first = os::run([1; 32], draws).unwrap();
    assert_eq!(first, os::run([1; 32], draws).unwrap());
    let other = os::run([2; 32], draws).unwrap();
    assert!(first.0 != other.0 && first.1 != other.1 && first.2 != other.2);
    let real = std::thread::scope(|s| s.spawn(draws).join().unwrap());
    assert!(first.0 != real.0 && first.1 != real.1 && first.2 != real.2);
}
