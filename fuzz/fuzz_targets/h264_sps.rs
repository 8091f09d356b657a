//! Parameter sets and slice headers of any content are read or refused, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::wire::h264_slice::{OrderCount, ParameterSets};
use proto_core::wire::h264_sps::inspect;

fuzz_target!(|data: &[u8]| {
    if let Some(info) = inspect(data) {
        assert!(info.pic_order_cnt_type <= 2);
    }
    // The same bytes as the body of an SPS, so that the fuzzer need not guess the header.
    let sps = [&[0x67], data].concat();
    inspect(&sps);
    // A set, and slices that name it: cut by the first byte.
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    let (sps, slices) = rest.split_at(usize::from(*first).min(rest.len()));
    let with = |header: u8, body: &[u8]| [&[header], body].concat();
    // pic_parameter_set_id and seq_parameter_set_id 0.
    let sets = ParameterSets::read(&[with(0x67, sps).into()], &[with(0x68, &[0xc0]).into()]);
    let mut count = OrderCount::default();
    for slice in slices.chunks(24) {
        for header in [0x65, 0x41, 0x01] {
            if let Some((head, sps)) = sets.slice(&with(header, slice)) {
                assert!(head.kind < 5 && head.order_lsb.is_none_or(|lsb| lsb >> sps.order_bits == 0));
                count.next(&head, sps);
            }
        }
    }
});
