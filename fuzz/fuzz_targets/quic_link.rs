//! A QUIC link between nodes: a peer with a real connection does what the bytes say on its streams, beside a stranger's datagrams.
#![no_main]

use headwater_tests::sim::quic::run;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    run(data);
});
