//! Whole clusters: the bytes are the choices of the simulator's generator, which are carried out in a short run.
#![no_main]

use headwater_tests::sim::generate::{Bytes, Profile, generate};
use headwater_tests::sim::run::run;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (seed, choices) = data.split_at_checked(8).unwrap_or((&[], data));
    let seed = seed.iter().fold(0, |all, b| all << 8 | u64::from(*b));
    let plan = generate(seed, Profile::Short, &mut Bytes::new(choices));
    let outcome = run(&plan, false).expect("clocks and randomness are interposed");
    if let Some(v) = outcome.violation {
        panic!("{} is broken at {}: {}\n{plan}", v.invariant, v.at, v.text);
    }
});
