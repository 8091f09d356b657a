//! What the fuzz targets `node` and `cluster` play, from bytes that are drawn: whatever is said to a node or to those of a cluster, in
//! whatever order, they stand, and nothing is left once everyone has gone. `WORLD_SEEDS=from..to` chooses others.
#![forbid(unsafe_code)]

use headwater_tests::sim::node::{play, play_in_cluster, seeds};
use headwater_tests::world::scenario::chosen;
use proto_core::rand::Rng;

/// Plays a script of each seed.
fn drawn(usual: &str, play: fn(&[u8]) -> Result<(), String>) {
    for seed in chosen(usual) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let mut script = vec![0; 160];
        Rng::new(bytes).fill(&mut script);
        if let Err(why) = play(&script) {
            panic!("seed {seed}: {why}");
        }
    }
}

#[test]
fn a_node_stands_whatever_is_said_to_it() {
    drawn("0..400", play);
}

#[test]
fn a_cluster_stands_whatever_is_said_and_done_to_it() {
    drawn("0..60", play_in_cluster);
}

/// Every fifth: the fuzzer plays all.
#[test]
fn conversations_of_every_kind_leave_nothing_behind() {
    let from = chosen("0..5").start as usize;
    for (name, script) in seeds::of_cluster().into_iter().skip(from).step_by(5) {
        if let Err(why) = play_in_cluster(&script) {
            panic!("{name}: {why}");
        }
    }
}
