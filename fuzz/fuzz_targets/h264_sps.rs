//! Parameter sets and slice headers of any content are read or refused, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::wire::h264_sps::{inspect, slice_type};

fuzz_target!(|data: &[u8]| {
    if let Some(info) = inspect(data) {
        assert!(info.pic_order_cnt_type <= 2);
    }
    assert!(slice_type(data).is_none_or(|k| k <= 9));
    // The same bytes as the body of an SPS, so that the fuzzer need not guess the header.
    let sps = [&[0x67], data].concat();
    inspect(&sps);
});
