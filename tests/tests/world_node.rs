//! What the fuzz target `node` plays, from bytes that are drawn: whatever is said to a node, in whatever order, it stands,
//! and nothing is left once everyone has gone. `WORLD_SEEDS=from..to` chooses others.
#![forbid(unsafe_code)]

use headwater_tests::sim::node::play;
use headwater_tests::world::scenario::chosen;
use proto_core::rand::Rng;

#[test]
fn a_node_stands_whatever_is_said_to_it() {
    for seed in chosen("0..400") {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let mut script = vec![0; 160];
        Rng::new(bytes).fill(&mut script);
        if let Err(why) = play(&script) {
            panic!("seed {seed}: {why}");
        }
    }
}
