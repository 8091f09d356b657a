//! Each planted bug is seen by the invariant that it breaks, and by no other first; without it all is well.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use headwater_tests::world::World;
use headwater_tests::world::actors::webrtc::{WhepConfig, WhipConfig};
use headwater_tests::world::check::planted::{Planted, storm, table, waiting};
use headwater_tests::world::scenario::chosen;
use proto_core::node::config::Role;
use proto_core::simulation::{Bug, Switches};
use proto_core::time::Time;
use std::collections::BTreeSet;
use std::time::Duration;

/// A bug must be found within this time of the world's. How long that takes here says something of the machine and of what else it does.
const MOST: Duration = Duration::from_secs(60);

fn shows(name: &str) {
    let planted: &Planted = table().iter().find(|p| p.name == name).expect("the table has it");
    for seed in chosen("0..2") {
        if let Err(v) = planted.run(seed, false) {
            panic!("seed {seed}: without the bug {} is broken at {}: {}", v.invariant, v.at, v.text);
        }
        let Err(v) = planted.run(seed, true) else { panic!("seed {seed}: {name} is not found") };
        assert_eq!(v.invariant, planted.invariant, "seed {seed}: found at {}: {}", v.at, v.text);
        assert!(v.at.since(Time::ZERO) < MOST, "seed {seed}: found at {}: {}", v.at, v.text);
        println!("{name}, seed {seed}: {} at {}: {}", v.invariant, v.at, v.text);
    }
}

macro_rules! planted {
    ($($test:ident $name:literal;)+) => {
        const TESTED: &[&str] = &[$($name),+];
        $(#[test]
        fn $test() {
            shows($name);
        })+
    };
}

planted! {
    an_epoch_that_is_not_raised "epoch-not-raised";
    a_stale_entry "stale-entry";
    a_timeout_that_takes_others "timeout-takes-others";
    a_frame_of_another_stream "cross-stream";
    the_tail_of_a_group_of_pictures "gop-tail-kept";
    a_drop_that_is_not_counted "drop-not-counted";
    a_frame_lost_between_two_nodes "relay-drop-not-counted";
    a_frame_lost_between_two_nodes_by_quic "relay-drop-not-counted-by-quic";
    a_queue_without_limit "queue-limit-ignored";
    memory_without_end "memory-ignored";
    a_session_left_in_a_map "session-left-in-map";
    media_without_consent "consent-ignored";
    an_answer_larger_than_its_request "amplified-answer";
    a_relay_loop "relay-loop";
    a_proxy_that_dials_anybody "proxy-unchecked";
    load_that_is_not_reported "load-not-reported";
    grants_that_are_not_counted "grants-not-counted";
    a_timer_in_the_past "timer-in-the-past";
    a_timer_that_never_rests "restless-timer";
    a_zombie_publisher "zombie-publisher";
    a_publish_that_races_a_read "publish-races-read";
    an_edge_that_never_recovers "edge-never-recovers";
    a_retry_that_asks_the_first_origin "retry-asks-first-origin";
    a_manager_that_never_relearns "manager-never-relearns";
    a_slow_viewer_that_is_kept "slow-viewer-kept";
    a_drain_that_never_ends "drain-never-ends";
    a_half_open_peer_that_is_kept "half-open-kept";
    a_fence_that_is_ignored "fence-ignored";
    takeovers_without_limit "takeover-unlimited";
}

#[test]
fn every_bug_and_every_invariant_is_accounted_for() {
    let tested: BTreeSet<&str> = TESTED.iter().copied().collect();
    assert_eq!(tested, table().iter().map(|p| p.name).collect(), "each bug of the table has its test");
    let bugs: BTreeSet<Bug> = table().iter().map(|p| p.bug).collect();
    assert_eq!(bugs, Bug::ALL.iter().copied().collect(), "each bug stands in the table");
    let seen: BTreeSet<&str> =
        table().iter().map(|p| p.invariant).chain(waiting().iter().map(|(name, _)| *name)).collect();
    let all = (1..=16).map(|n| format!("S{n}")).chain((1..=9).map(|n| format!("L{n}")));
    let missing: Vec<String> = all.filter(|name| !seen.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "neither planted nor waiting: {missing:?}");
}

#[test]
fn without_bugs_a_storm_passes_and_all_drains() {
    for seed in chosen("0..6") {
        if let Err(v) = storm(seed, true) {
            panic!("seed {seed}: {} is broken at {}: {}", v.invariant, v.at, v.text);
        }
    }
}

/// S1, S3, S6 and S9 are asserted in service too: the node itself sees the bug, and says so under a code of its own.
#[test]
fn nodes_see_by_themselves_what_is_asserted_in_service() {
    let all = [
        ("epoch-not-raised", "broken_s1"),
        ("cross-stream", "broken_s3"),
        ("queue-limit-ignored", "broken_s6"),
        ("consent-ignored", "broken_s9"),
    ];
    for (name, code) in all {
        let planted = table().iter().find(|p| p.name == name).expect("the table has it");
        let Err(v) = planted.run_asserted(0) else { panic!("{name} is not seen") };
        assert_eq!(v.invariant, planted.invariant, "{name}: {}", v.text);
        assert!(v.text.contains(code) && v.text.contains("logged an error"), "{name}: {}", v.text);
        println!("{name}: {} at {}: {}", v.invariant, v.at, v.text);
    }
}

/// An assertion that fails ends the one session that it was found in: other viewers of the same stream at the same node see
/// nothing of it, and the session is counted.
#[test]
fn a_broken_assertion_ends_one_session_and_the_node_goes_on() {
    let mut w = World::quiet(5);
    w.switch(Switches::default().plant(Bug::ConsentIgnored));
    w.forgive_assertions();
    let one = w.host("one", &[Role::Manager, Role::Origin, Role::Edge], None);
    w.run(Duration::from_millis(100));
    let p = w.publish_webrtc(one, "live/one", WhipConfig::default());
    w.until("the publisher is connected", Duration::from_secs(5), |w| w.whip(p).is_ready());
    let [gone, stays] = [(); 2].map(|()| w.play_webrtc(one, "live/one", WhepConfig::default()));
    w.run(Duration::from_secs(3));
    w.cut(gone.into());
    w.run(Duration::from_secs(40));
    assert_eq!(w.forgiven().len(), 1, "{:?}", w.forgiven());
    assert!(w.forgiven()[0].contains("broken_s9") && w.forgiven()[0].contains("please report"));
    let last = w.whep(stays).last_picture().expect("it sees pictures").at;
    assert!(w.now().since(last) < Duration::from_millis(500) && w.whep(stays).ended().is_none());
    assert_eq!(w.node_of(one).map(|n| n.client_count()), Some(2), "the publisher and the viewer that stayed");
    let (_, metrics) = w.get(one, "/metrics").unwrap();
    let counted = r#"headwater_ended_total{what="whep",fault="local",reason="broken_s9"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
}
