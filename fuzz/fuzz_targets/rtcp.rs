//! RTCP of receivers: whatever comes, reading it ends, and what is read is bounded by what came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::wire::rtcp::{Packet, packets};

fuzz_target!(|data: &[u8]| {
    let mut items = 0;
    for packet in packets(data) {
        items += match packet {
            Ok(Packet::Reports(reports)) => reports.iter().count(),
            Ok(Packet::Nack { missing, .. }) => missing.iter().count(),
            Ok(Packet::FullIntra(sources)) => sources.iter().count(),
            _ => 1,
        };
    }
    // An entry of a NACK names 17 packets at most, in four bytes.
    assert!(items <= data.len() / 4 * 17 + 1);
});
