//! One whole node in virtual time and a client that says anything to it: one byte or a few are one operation.
#![no_main]

use headwater_tests::sim::node::play;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Err(why) = play(data) {
        panic!("{why}");
    }
});
