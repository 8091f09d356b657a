//! Every row of the table of abuses, in virtual time, beside an innocent publisher and ten viewers.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use headwater_tests::world::World;
use headwater_tests::world::abuse::{ABUSES, Abuse, mount};
use headwater_tests::world::scenario::chosen;
use proto_core::limits::Limits;
use std::num::NonZero;
use std::sync::{Mutex, PoisonError};

/// What is wrong with one run, told in full if it is the only one.
fn held(seed: u64, abuse: &Abuse, told: bool) -> Option<String> {
    let mut w = World::new(seed);
    let found = mount(&mut w, abuse);
    if told {
        w.log().iter().filter(|l| !l.contains(" saw ")).for_each(|line| eprintln!("{line}"));
    }
    let wrong = found.wrong(abuse);
    (!wrong.is_empty())
        .then(|| format!("{} {:?}, seed {seed}:\n  {}", abuse.row, abuse.by, wrong.join("\n  ")))
}

/// `WORLD_ABUSE` chooses one row, such as `A12`.
#[test]
fn every_abuse_is_counted_and_told_and_costs_the_innocents_no_frame() {
    let only = std::env::var("WORLD_ABUSE").ok();
    for seed in chosen("0..1") {
        let todo = ABUSES.iter().filter(|a| only.as_deref().is_none_or(|o| o == a.row));
        let (todo, wrong) = (Mutex::new(todo), Mutex::new(Vec::new()));
        let next = || todo.lock().unwrap_or_else(PoisonError::into_inner).next();
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(2, NonZero::get) {
                scope.spawn(|| {
                    while let Some(abuse) = next() {
                        let found = held(seed, abuse, only.is_some());
                        wrong.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
                    }
                });
            }
        });
        let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
        assert!(wrong.is_empty(), "{} abuses were not held:\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[test]
fn every_row_has_an_abuse() {
    let rows: Vec<&str> =
        (1..=33).map(|n| ABUSES.iter().find(|a| a.row == format!("A{n}")).map_or("", |a| a.row)).collect();
    let wanted: Vec<String> = (1..=33).map(|n| format!("A{n}")).collect();
    assert_eq!(rows, wanted);
}

/// docs/abuse.md says of each row what the table here holds, and names keys that exist.
#[test]
fn the_page_says_what_is_tested() {
    let page = include_str!("../../docs/abuse.md");
    let row = |name: &str| page.lines().find(|l| l.starts_with(&format!("| {name} |"))).expect("a row");
    for abuse in ABUSES {
        for sign in abuse.signs {
            assert!(row(abuse.row).contains(sign.counter), "{}: {}", abuse.row, sign.counter);
        }
    }
    for n in 1..=33 {
        let cells: Vec<&str> = row(&format!("A{n}")).split('|').collect();
        for key in cells[3].split('`').skip(1).step_by(2).filter(|key| !key.contains('.')) {
            assert!(Limits::DOCS.iter().any(|(name, _)| *name == key), "A{n}: limits.{key} is no key");
        }
    }
}
