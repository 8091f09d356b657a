//! Payloads of each codec in any order of sense: what comes out is within the limits, and a key frame comes first after
//! every loss.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use proto_core::media::frame::FrameKind;
use proto_core::media::payload::{Depay, Format};
use proto_core::media::track::Codec;
use proto_core::wire::av1::obus;
use proto_core::wire::h264::length_prefixed;

const MOST: usize = 2_000;

fn format(choice: u8) -> Format {
    let asc = Bytes::from_static(&[0x11, 0x90]);
    match choice % 10 {
        0 => Format::H264,
        1 => Format::H265,
        2 => Format::Vp8,
        3 => Format::Vp9,
        4 => Format::Av1,
        5 => Format::Mp3,
        6 => Format::Mpeg4Generic {
            asc,
            clock_rate: 48_000,
            size_length: 13,
            index_length: 3,
            index_delta_length: 3,
        },
        7 => Format::Latm { config: None, clock_rate: 48_000 },
        8 => Format::Latm {
            config: Some(Bytes::from_static(&[0x40, 0, 0x23, 0x20, 0x3f, 0xc0])),
            clock_rate: 48_000,
        },
        _ => Format::Pcma { channels: choice >> 4 },
    }
}

// The format; then each packet: flags (bit 0 marker, bit 1 new timestamp, bit 2 loss before), length, payload.
fuzz_target!(|data: &[u8]| {
    let Some((&choice, mut rest)) = data.split_first() else { return };
    let format = format(choice);
    let codec = format.codec();
    let mut depay = Depay::new(&format, MOST, 32);
    let (mut timestamp, mut lost) = (0u32, true);
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
            assert!(!codec.is_video() || unit.kind == FrameKind::Key || !lost, "it cannot be decoded");
            lost = false;
            // A key frame of AV1 may be given its sequence header.
            assert!(!unit.payload.is_empty() && unit.payload.len() <= 2 * MOST);
            assert!(unit.params.is_none_or(|p| p.codec() == codec));
            match codec {
                Codec::H264 | Codec::H265 => {
                    assert!(length_prefixed(&unit.payload, 4).all(|nal| nal.is_ok_and(|n| !n.is_empty())));
                }
                Codec::Av1 => assert!(obus(&unit.payload).all(|o| o.is_ok_and(|o| !o.kind.is_framing()))),
                _ => {}
            }
        });
        lost |= depay.needs_key();
    }
});
