//! A whole cluster in virtual time, a client that says anything to its nodes, and clients of all protocols who come, go and fail
//! as the bytes say.
#![no_main]

use headwater_tests::sim::node::play_in_cluster;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Err(why) = play_in_cluster(data) {
        panic!("{why}");
    }
});
