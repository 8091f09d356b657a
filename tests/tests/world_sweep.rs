//! Generated runs of whole clusters: a few seeds here (`cargo sweep` for many), the regressions, and what the sweep itself
//! must be able to do: repeat a run, write a plan down, make a failure small.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use headwater_tests::sim::generate::{Bytes, Profile, generate, of_seed};
use headwater_tests::sim::plan::{Op, Place, Plan};
use headwater_tests::sim::report::{columns, examine};
use headwater_tests::sim::run::{Outcome, run};
use headwater_tests::tidy::root;
use headwater_tests::world::Violation;
use proptest::prelude::*;
use std::process::Command;
use std::time::Duration;

/// How long a failure is made small.
const SHRINK: Duration = Duration::from_secs(120);

fn passes(plan: &Plan, replay: &str) -> Outcome {
    let outcome = run(plan, false).unwrap();
    if let Some(violation) = &outcome.violation {
        panic!("{}", examine(plan, violation, SHRINK).unwrap().text(replay));
    }
    outcome
}

#[test]
fn generated_runs_break_nothing() {
    for seed in 0..12 {
        passes(&of_seed(seed, Profile::Short), &format!("cargo sim run {seed} --profile short"));
    }
}

#[test]
fn regressions_stay_mended() {
    let dir = root().join("tests/regressions");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    files.retain(|f| f.extension().is_some_and(|e| e == "plan"));
    for file in files {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let plan: Plan =
            std::fs::read_to_string(&file).unwrap().parse().unwrap_or_else(|e| panic!("{name}: {e}"));
        passes(&plan, &format!("cargo sim run --plan {name}"));
    }
}

#[test]
fn plans_come_back_from_their_text() {
    for (seed, profile) in (0..300).flat_map(|s| [(s, Profile::Full), (s, Profile::Bar)]) {
        let plan = of_seed(seed, profile);
        assert_eq!(plan.to_string().parse::<Plan>().as_ref(), Ok(&plan), "{plan}");
    }
    for wrong in ["", "plan seed=x", "plan\n5", "plan\n5 crash x9", "plan\n5 crash o1 o2", "plan\n5 leave o1"]
    {
        assert!(wrong.parse::<Plan>().is_err(), "{wrong}");
    }
}

#[test]
fn the_bar_is_what_it_says() {
    for seed in 0..300 {
        let plan = of_seed(seed, Profile::Bar);
        assert_eq!((plan.origins, plan.edges), (3, 3));
        assert!(plan.span >= 36_000);
        assert!(plan.steps.iter().filter(|s| s.op.joins().is_some() && s.at < 1_000).count() >= 8);
        assert!(plan.steps.iter().any(|s| s.op.joins().is_none()), "no faults in {plan}");
    }
}

#[test]
fn a_failure_shrinks_to_the_operations_that_matter() {
    // Nothing answers for this: a publisher says that its stream is over while its node is stopped for good.
    let mut plan = of_seed(1, Profile::Short);
    plan.steps.retain(|s| s.at < 1_500);
    plan.span = 2_000;
    let fails = |p: &Plan| {
        let has = |wanted: fn(&Op) -> bool| p.steps.iter().any(|s| wanted(&s.op));
        has(|op| matches!(op, Op::Publish { .. })) && has(|op| matches!(op, Op::Play { .. }))
    };
    assert!(fails(&plan) && plan.steps.len() > 2, "{plan}");
    let small = headwater_tests::sim::shrink::shrink(&plan, |p| Some(fails(p)));
    assert_eq!(small.steps.len(), 2, "{small}");
    // What is told of it can be fed back.
    let violation =
        Violation { invariant: "L1", text: "made up".to_owned(), at: proto_core::time::Time::ZERO };
    let failure = examine(&small, &violation, Duration::ZERO).unwrap();
    assert_eq!(failure.regression().parse::<Plan>(), Ok(small));
    let text = failure.text("cargo sim run 1");
    assert!(
        text.contains("commit ") && text.contains("L1 is broken") && text.contains("cargo sim run 1"),
        "{text}"
    );
}

#[test]
fn a_panic_is_a_violation_with_its_place() {
    // A clock that runs backwards is refused by the world itself.
    let plan: Plan = "plan seed=1 origins=1 edges=0 span=1000\n10 skew o1 -1000000\n".parse().unwrap();
    let violation = run(&plan, false).unwrap().violation.unwrap();
    assert_eq!(violation.invariant, "PANIC");
    assert!(violation.text.contains("backwards") && violation.text.contains(".rs:"), "{}", violation.text);
}

/// The first line in which two logs differ.
fn difference(a: &Outcome, b: &Outcome) -> Option<String> {
    let n = (0..a.log.len().max(b.log.len())).find(|n| a.log.get(*n) != b.log.get(*n))?;
    let around =
        |o: &Outcome| columns(&o.log[n.saturating_sub(3).min(o.log.len())..(n + 1).min(o.log.len())], 4);
    Some(format!("line {n} of the log differs:\n{}\n{}", around(a), around(b)))
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..3 {
        let plan = of_seed(seed, Profile::Short);
        let (a, b) = (run(&plan, true).unwrap(), run(&plan, true).unwrap());
        assert_eq!(difference(&a, &b), None, "S15, seed {seed}");
        assert_eq!(a, b, "S15, seed {seed}: the logs are the same, what nodes were told or said is not");
        assert_eq!(run(&plan, false).unwrap().hash, a.hash, "S15, seed {seed}: the log changes the run");
    }
    let hash = |seed| run(&of_seed(seed, Profile::Short), false).unwrap().hash;
    assert_ne!(hash(0), hash(1));
}

#[test]
fn another_process_has_the_same_run() {
    let other = Command::new(env!("CARGO_BIN_EXE_sim")).args(["hash", "0..3"]).output().unwrap();
    assert!(other.status.success(), "{}", String::from_utf8_lossy(&other.stderr));
    let here: String = (0..3)
        .map(|seed| format!("{seed} {:016x}\n", run(&of_seed(seed, Profile::Short), false).unwrap().hash))
        .collect();
    assert_eq!(String::from_utf8_lossy(&other.stdout), here, "S15");
}

/// Data channels (whose SCTP draws from its library's own generator), TLS and the proxy replay like all else.
#[test]
fn every_way_to_come_replays_here_and_in_another_process() {
    let text = "plan seed=11 origins=1 edges=1 span=6000\n10 publish #0 ws o1 live/a\n20 publish #1 rtmps o1 live/b\n\
                1500 play #2 managed m1 live/a\n1600 play #3 wss e1 live/a\n1700 play #4 https e1 live/b\n\
                1800 play #5 rtmps e1 live/a\n4500 silent #0\n5000 loud #0\n";
    let plan: Plan = text.parse().unwrap();
    let (a, b) = (run(&plan, true).unwrap(), run(&plan, true).unwrap());
    assert_eq!(difference(&a, &b), None, "S15");
    assert_eq!((a.violation.as_ref(), a.hash), (None, b.hash), "S15");
    let heard = |l: &&String| l.contains("hears") && l.contains("over the data channel");
    assert!(a.log.iter().filter(heard).count() > 1, "nothing went over data channels");
    let file = std::env::temp_dir().join(format!("headwater-every-way-{}.plan", std::process::id()));
    std::fs::write(&file, text).unwrap();
    let other = Command::new(env!("CARGO_BIN_EXE_sim")).args(["run", "--plan"]).arg(&file).output().unwrap();
    std::fs::remove_file(&file).unwrap();
    let said = String::from_utf8_lossy(&other.stdout).into_owned();
    assert!(said.contains(&format!("hash {:016x}", a.hash)), "S15: {:016x}, but {said}", a.hash);
}

#[test]
fn nodes_that_are_not_there_and_clients_that_never_came_do_nothing() {
    let text = "plan seed=3 origins=1 edges=0 span=500\n1 crash e3\n2 leave #9\n3 part o1 #4\n4 start o1\n5 evil #0 nobody o1\n";
    let plan: Plan = text.parse().unwrap();
    assert!(plan.steps.iter().any(|s| s.op == Op::Crash(Place::Edge(3))));
    passes(&plan, text);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn runs_from_any_choices_break_nothing(seed in any::<u64>(), choices in prop::collection::vec(any::<u8>(), 0..120)) {
        let plan = generate(seed, Profile::Short, &mut Bytes::new(&choices));
        let violation = run(&plan, false).unwrap().violation;
        prop_assert!(violation.is_none(), "{violation:?}\n{plan}");
    }
}
