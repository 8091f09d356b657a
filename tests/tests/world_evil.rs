//! Misbehaving peers beside innocent ones: what the innocents live through stays as it would have been (S12).
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::world::World;
use headwater_tests::world::actors::evil::Evil;
use headwater_tests::world::interference::{compare, run, run_in};

/// The seeds to run. `WORLD_SEEDS=from..to` chooses others.
fn seeds() -> std::ops::Range<u64> {
    let chosen = std::env::var("WORLD_SEEDS").unwrap_or_else(|_| "0..1".to_owned());
    let (from, to) = chosen.split_once("..").expect("WORLD_SEEDS is from..to");
    let number = |s: &str| s.parse::<u64>().expect("a seed is a number");
    number(from)..number(to)
}

#[test]
fn innocents_notice_nothing_of_any_evil_client() {
    let only = std::env::var("WORLD_EVIL").ok();
    let mut wrong = Vec::new();
    for seed in seeds() {
        let without = run(seed, None);
        assert_eq!(without.violation, None, "seed {seed} without anybody evil");
        for kind in Evil::ALL.iter().copied() {
            if only.as_deref().is_some_and(|o| o != format!("{kind:?}")) {
                continue;
            }
            let start = std::time::Instant::now();
            let with = if only.is_some() {
                let mut w = World::new(seed);
                let with = run_in(&mut w, Some(kind));
                eprintln!(
                    "{}",
                    w.log().iter().filter(|l| !l.contains(" saw ")).cloned().collect::<Vec<_>>().join("\n")
                );
                with
            } else {
                run(seed, Some(kind))
            };
            if let Err(v) = compare(&without, &with, kind) {
                wrong.push(format!("seed {seed}, {kind:?}: {} at {}: {}", v.invariant, v.at, v.text));
            }
            if std::env::var_os("WORLD_TIMES").is_some() {
                eprintln!("{seed} {kind:?} {:?}", start.elapsed());
            }
        }
    }
    assert!(wrong.is_empty(), "{} kinds of evil were noticed:\n{}", wrong.len(), wrong.join("\n"));
}
