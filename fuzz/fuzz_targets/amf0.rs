//! AMF0, and AMF3 within it: no panic, bounded work, and what was read is written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::limits::Limits;
use proto_core::wire::amf0::{Bounds, emit_all, parse};
use proto_core::wire::amf3;

fuzz_target!(|data: &[u8]| {
    let bounds = Bounds::of(&Limits::default(), true);
    let mut seen = 0;
    if amf3::parse_value(data, bounds, &mut seen).is_ok() {
        assert!(seen <= bounds.properties);
    }
    if let Ok(values) = parse(data, bounds) {
        let once = emit_all(&values);
        // Bytes, not values: NaN is not equal to itself. A spoilt string may grow past its bound when it is repaired.
        if let Ok(again) = parse(&once, Bounds { string_bytes: usize::MAX, ..bounds }) {
            assert_eq!(emit_all(&again), once);
        } else {
            panic!("what was written cannot be read");
        }
    }
});
