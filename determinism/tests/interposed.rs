//! Interposition as a program sees it: constant and seeded inside, real outside.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use determinism::os::{self, Scope, WALL};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Instant, SystemTime};

/// What code may draw without having been given a generator.
#[derive(Debug, PartialEq, Eq)]
struct Draws {
    order: Vec<u32>,
    bytes: [u8; 32],
    fast: Vec<u64>,
}

impl Draws {
    fn now() -> Draws {
        let order = (0..64).collect::<HashSet<u32>>().into_iter().collect();
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).unwrap();
        Draws { order, bytes, fast: (0..8).map(|_| fastrand::u64(..)).collect() }
    }

    fn have_nothing_in_common(&self, other: &Draws) -> bool {
        self.order != other.order && self.bytes != other.bytes && self.fast != other.fast
    }
}

fn on_a_thread<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|s| s.spawn(f).join().unwrap())
}

/// The next moment of the real clock.
fn tick(since: Instant) -> Instant {
    std::iter::repeat_with(Instant::now).find(|&now| now > since).unwrap()
}

#[test]
fn a_run_draws_from_its_seed_alone() {
    let first = os::run([1; 32], Draws::now).unwrap();
    assert_eq!(os::run([1; 32], Draws::now).unwrap(), first);
    assert!(first.have_nothing_in_common(&os::run([2; 32], Draws::now).unwrap()));
    let real = on_a_thread(Draws::now);
    assert!(first.have_nothing_in_common(&real) && real.have_nothing_in_common(&on_a_thread(Draws::now)));
}

#[test]
fn clocks_stand_still_inside_and_go_on_outside() {
    let before = Instant::now();
    let inside = || (Instant::now(), SystemTime::now());
    let first = os::run([1; 32], inside).unwrap();
    assert_eq!(first, os::run([2; 32], inside).unwrap(), "of every seed");
    assert_eq!(first.1, SystemTime::UNIX_EPOCH + WALL);
    assert_ne!(first.0, before);
    tick(before);
}

#[test]
fn a_run_inside_a_run_takes_nothing_from_it() {
    let alone = os::run([1; 32], Draws::now).unwrap();
    let (inner, outer) = os::run([1; 32], || (os::run([2; 32], Draws::now).unwrap(), Draws::now())).unwrap();
    assert_eq!(outer, alone);
    assert_eq!(inner, os::run([2; 32], Draws::now).unwrap());
}

#[test]
fn a_panic_in_a_run_reaches_the_caller() {
    let panic =
        catch_unwind(|| os::run([1; 32], || std::panic::resume_unwind(Box::new("of f")))).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"of f"));
}

#[test]
fn a_scope_is_on_only_within_and_outside_leaves_no_trace() {
    let draws = |disturbed: bool| {
        on_a_thread(move || {
            let scope = Scope::new([7; 32]).unwrap();
            let mut all = Vec::new();
            for _ in 0..3 {
                if disturbed {
                    let (real, stopped) = (Instant::now(), scope.within(Instant::now));
                    assert_ne!(real, stopped);
                    assert_eq!(stopped, scope.within(Instant::now));
                    tick(real);
                    fastrand::u64(..);
                    getrandom::fill(&mut [0; 5]).unwrap();
                }
                all.push(scope.within(|| (Instant::now(), scope.within(Draws::now), Draws::now())));
            }
            all
        })
    };
    let quiet = draws(false);
    assert_eq!(draws(true), quiet);
    assert!(quiet[0].1.have_nothing_in_common(&quiet[0].2) && quiet[0].1.have_nothing_in_common(&quiet[1].1));
}

#[test]
fn a_scope_ends_with_a_panic() {
    on_a_thread(|| {
        let scope = Scope::new([7; 32]).unwrap();
        let stopped = scope.within(Instant::now);
        let panic = || scope.within(|| std::panic::resume_unwind(Box::new(())));
        catch_unwind(AssertUnwindSafe(panic)).unwrap_err();
        let now = Instant::now();
        assert_ne!(now, stopped);
        tick(now);
        assert_eq!(scope.within(Instant::now), stopped);
    });
}

#[test]
fn a_scope_refuses_a_thread_whose_hash_maps_have_other_keys() {
    on_a_thread(|| {
        assert!(HashSet::from([1]).contains(&1));
        let refused = Scope::new([7; 32]).unwrap_err();
        assert_eq!(refused.what().len(), 1);
        assert!(refused.to_string().contains("a scope needs a fresh thread"), "{refused}");
    });
}

#[test]
fn other_threads_stay_in_the_real_world() {
    os::run([1; 32], || {
        let (stopped, before) = (Instant::now(), on_a_thread(Instant::now));
        assert_ne!(stopped, before);
        assert!(on_a_thread(Instant::now) > before);
    })
    .unwrap();
}
