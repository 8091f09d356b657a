//! Misbehaving peers beside innocent ones: what the innocents live through stays as it would have been (S12).
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::world::actors::evil::Evil;
use headwater_tests::world::actors::operator::Operator;
use headwater_tests::world::actors::publisher::PublisherConfig;
use headwater_tests::world::interference::{Guest, Innocents, compare, run, run_in, run_with_panic};
use headwater_tests::world::scenario::chosen;
use headwater_tests::world::{HostId, World};
use proto_core::guard::INJECTED;
use proto_core::node::config::{Config, Role};
use proto_core::simulation::Speech;
use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What was noticed of one kind of evil, told in full if it is the only one.
fn noticed(seed: u64, kind: Evil, without: &Innocents, told: bool) -> Option<String> {
    let mut w = if told { World::new(seed) } else { World::quiet(seed) };
    let with = run_in(&mut w, kind.is_about_webrtc(), Some(kind));
    for line in w.log().iter().filter(|l| told && !l.contains(" saw ")) {
        eprintln!("{line}");
    }
    let v = compare(without, &with, &format!("{kind:?}")).err()?;
    Some(format!("seed {seed}, {kind:?}: {} at {}: {}", v.invariant, v.at, v.text))
}

/// `WORLD_EVIL` chooses one kind.
#[test]
fn innocents_notice_nothing_of_any_evil_client() {
    let only = std::env::var("WORLD_EVIL").ok();
    let is_chosen = |k: &&Evil| only.as_deref().is_none_or(|o| o == format!("{k:?}"));
    for seed in chosen("0..1") {
        let without = [false, true].map(|webrtc| run(seed, webrtc, None));
        assert!(
            without.iter().all(|w| w.violation.is_none()),
            "seed {seed} without anybody evil: {without:?}"
        );
        let todo = Mutex::new(Evil::ALL.iter().copied().filter(|k| is_chosen(&k)));
        let wrong = Mutex::new(Vec::new());
        let next = || todo.lock().unwrap_or_else(PoisonError::into_inner).next();
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(2, NonZero::get) {
                scope.spawn(|| {
                    while let Some(kind) = next() {
                        let without = &without[usize::from(kind.is_about_webrtc())];
                        let found = noticed(seed, kind, without, only.is_some());
                        wrong.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
                    }
                });
            }
        });
        let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
        assert!(wrong.is_empty(), "{} kinds of evil were noticed:\n{}", wrong.len(), wrong.join("\n"));
    }
}

/// Keeps panics that a simulation causes out of the output.
fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let said = info.payload_as_str().unwrap_or_default();
            if !said.contains(INJECTED) {
                loud(info);
            }
        }));
    });
}

#[test]
fn a_panic_in_one_session_leaves_all_others_as_they_were() {
    quiet_panics();
    for seed in chosen("0..1") {
        for guest in Guest::ALL {
            let without = run_with_panic(seed, guest, None);
            assert_eq!(without.innocents.violation, None, "seed {seed}, {guest:?}");
            assert_eq!(without.panicked, None, "nothing panics by itself");
            for nth in [1, 6] {
                let with = run_with_panic(seed, guest, Some((without.session, nth)));
                let said = with.panicked.as_deref().unwrap_or_default();
                // Whoever asks by HTTP says little.
                let short = guest == Guest::Asker && nth > 2;
                assert!(
                    short || said.contains("a defect in this server ended the session"),
                    "{guest:?} {nth}: {said}"
                );
                if let Err(v) = compare(&without.innocents, &with.innocents, "panic") {
                    panic!(
                        "seed {seed}, {guest:?} panics at input {nth}: {} at {}: {}",
                        v.invariant, v.at, v.text
                    );
                }
            }
        }
    }
}

/// A manager and an edge beside an origin that speaks to them in another way.
fn cluster_with(w: &mut World, speech: Speech) -> [HostId; 3] {
    let m = w.host("m1", &[Role::Manager], None);
    let speak = |c: &mut Config| c.limits.simulation = c.limits.simulation.speak(speech);
    let o = w.host_with("o1", &[Role::Origin], Some(m), speak);
    let e = w.host("e1", &[Role::Edge], Some(m));
    w.run(Duration::from_millis(3_000));
    [m, o, e]
}

#[test]
fn nodes_of_the_next_and_of_an_older_version_work_together() {
    for seed in chosen("0..1") {
        for speech in [Speech::Newer, Speech::Older] {
            let mut w = World::new(seed);
            let [_, o, e] = cluster_with(&mut w, speech);
            let p = w.publish(o, "live/one");
            w.run(Duration::from_millis(1_500));
            let v = w.play(e, "live/one");
            w.run(Duration::from_millis(5_000));
            let sent = w.publisher(p).sent.last().expect("it connected");
            let seen = w.player(v).pictures(sent.session);
            let all: Vec<u64> =
                (seen.first().copied().unwrap_or(0)..sent.pictures.saturating_sub(15)).collect();
            assert!(
                all.len() > 100 && seen.starts_with(&all),
                "{speech:?}: saw {seen:?} of {}",
                sent.pictures
            );
        }
    }
}

#[test]
fn a_node_with_which_no_version_is_shared_is_refused_in_words_that_name_both() {
    for (newest, oldest) in [(9, 7), (0, 0)] {
        let mut w = World::new(1);
        let [m, o, _] = cluster_with(&mut w, Speech::Foreign(newest, oldest));
        let said = format!("versions {oldest} to {newest} of the node protocol");
        let found =
            w.log().iter().any(|l| l.contains("m1") && l.contains(&said) && l.contains("this node 1 to 1"));
        assert!(found, "the manager says who speaks what: {:?}", w.log());
        let nodes = w.get(m, "/api/v1/nodes").expect("an answer").1;
        assert!(!nodes.contains("\"o1\"") && nodes.contains("\"e1\""), "{nodes}");
        assert_eq!(w.get(o, "/readyz").expect("an answer").0, 503, "it says that it has no manager");
    }
}

#[test]
fn unlikely_but_legal_things_break_nothing() {
    quiet_panics();
    let seeds = chosen("0..1");
    for seed in seeds.start..seeds.end + 5 {
        let mut w = World::new(seed);
        w.sites(true);
        let m = w.host("m1", &[Role::Manager], None);
        let o = w.host("o1", &[Role::Origin], Some(m));
        let e = w.host("e1", &[Role::Edge], Some(m));
        w.run(Duration::from_millis(4_000));
        let again = PublisherConfig { again: Some(Duration::from_millis(500)), ..PublisherConfig::default() };
        let p = w.publish_with(o, "live/one", again);
        w.run(Duration::from_millis(2_000));
        let players = [o, e, e].map(|at| w.play(at, "live/one"));
        w.run(Duration::from_millis(15_000));
        for v in players {
            let p = w.player(v);
            // A session may have been chosen to panic; one that stands is served.
            let fresh = p.last_picture().is_some_and(|s| w.now().since(s.at) < Duration::from_secs(2));
            assert!(fresh || p.ended.is_some(), "seed {seed}: {v:?} sees nothing, {:?}", p.statuses);
        }
        w.with_publisher(p, |p, now| p.leave(now));
    }
}

#[test]
fn operators_see_everything_and_a_kick_ends_one_session() {
    for seed in chosen("0..1") {
        let mut w = World::new(seed);
        let m = w.host("m1", &[Role::Manager], None);
        let o = w.host("o1", &[Role::Origin], Some(m));
        let e = w.host("e1", &[Role::Edge], Some(m));
        w.run(Duration::from_millis(3_000));
        let operators = [(m, 0), (o, 1), (e, 2)].map(|(at, n)| w.operator(at, Duration::from_millis(100), n));
        let p = w.publish(o, "live/one");
        w.run(Duration::from_millis(2_000));
        let [kicked, other] = [w.play(o, "live/one"), w.play(o, "live/one")];
        w.run(Duration::from_millis(3_000));
        let sessions: serde_json::Value =
            serde_json::from_str(&w.get(o, "/api/v1/sessions").expect("an answer").1).expect("JSON");
        let players = sessions["sessions"].as_array().expect("sessions").iter();
        let names: Vec<&str> =
            players.filter(|s| s["role"] == "play").filter_map(|s| s["id"].as_str()).collect();
        assert_eq!(names.len(), 2, "{sessions}");
        let before = w.now();
        w.kick(o, names[0]);
        w.run(Duration::from_millis(2_000));
        assert!(w.player(kicked).ended.is_some(), "the session ends");
        let newest = w.player(other).last_picture().expect("it sees");
        assert!(newest.at > before + Duration::from_millis(1_500) && w.publisher(p).is_ready());
        for id in operators {
            w.with(id, |op: &mut Operator, _| op.leave());
            let op = w.actor::<Operator>(id).expect("an operator");
            assert!(op.answers > 40 && op.unanswered == 0, "{} answers, {} not", op.answers, op.unanswered);
        }
    }
}
