//! H.264 payloads in any order of sense: what comes out is within the limits, and a key frame comes first after
//! every loss.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::media::payload::h264_depay::H264Depay;
use proto_core::wire::h264::length_prefixed;

const MOST: usize = 2_000;

// Each packet: flags (bit 0 marker, bit 1 new timestamp, bit 2 loss before), length, payload.
fuzz_target!(|data: &[u8]| {
    let mut depay = H264Depay::new(MOST, 32);
    let (mut rest, mut timestamp, mut lost) = (data, 0u32, true);
    while let Some((&[flags, len], tail)) = rest.split_first_chunk::<2>() {
        let (payload, tail) = tail.split_at(usize::from(len).min(tail.len()));
        rest = tail;
        if flags & 2 != 0 {
            timestamp = timestamp.wrapping_add(3_000);
        }
        if flags & 4 != 0 {
            depay.lost();
            lost = true;
        }
        depay.push(payload, timestamp, flags & 1 != 0, |unit| {
            assert!(unit.key || !lost, "a picture that cannot be decoded");
            lost = false;
            // An aggregation packet may carry many small units, each with its length.
            assert!(unit.payload.len() <= MOST);
            assert!(length_prefixed(&unit.payload, 4).all(|nal| nal.is_ok_and(|n| !n.is_empty())));
        });
        lost |= depay.needs_key();
    }
});
