//! Any frame of any codec, cut into payloads: none is larger than it may be, and what comes out again at the other end is what
//! went in, if the frame is well formed, or nothing that goes beyond the limits.
#![no_main]

use arbitrary::Arbitrary;
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use proto_core::media::frame::{FrameKind, NewFrame, Rotation};
use proto_core::media::h264::h264_params;
use proto_core::media::h265::h265_params;
use proto_core::media::payload::{Depay, DepayDrops, Format, packetise};
use proto_core::media::track::{CodecParams, TrackId};
use proto_core::wire::h264::put_nal;
use proto_core::wire::latm::MuxConfig;
use proto_core::wire::vp9::Vp9Format;

const ASC: &[u8] = &[0x11, 0x90];
/// What the other end takes.
const MOST: usize = 1 << 20;

#[derive(Arbitrary, Debug)]
struct Case {
    codec: u8,
    most: u8,
    key: bool,
    discardable: bool,
    layer: u8,
    /// NAL units of H.264 and H.265, which have lengths before them; with other codecs one after the other.
    units: Vec<Vec<u8>>,
    /// How often a unit stands there again, so that small inputs make frames of many packets.
    times: u8,
}

fn params(codec: u8) -> (CodecParams, Format) {
    let set = |bytes: &[u8]| vec![Bytes::copy_from_slice(bytes)];
    let aac = CodecParams::Aac { asc: Bytes::from_static(ASC), rate: 48_000, channels: 2 };
    let params = match codec % 11 {
        0 => h264_params(set(&[0x67, 66, 0xc0, 12]), set(&[0x68, 1])),
        1 => h265_params(set(&[0x40, 1, 12]), set(&[0x42, 1, 1]), set(&[0x44, 1, 2])),
        2 => CodecParams::Vp8 { size: Some((640, 360)) },
        3 => CodecParams::Vp9 { format: Vp9Format::default(), size: Some((640, 360)) },
        4 => CodecParams::Av1 { sequence_header: Bytes::new(), size: None },
        5 => CodecParams::Opus { channels: 2 },
        6 => CodecParams::Pcma { channels: 1 + (codec >> 4) % 2 },
        7 => CodecParams::Mp3 { rate: 44_100, channels: 2 },
        _ => aac,
    };
    let format = match codec % 11 {
        // AAC-lbr.
        9 => Format::Mpeg4Generic {
            asc: Bytes::from_static(ASC),
            clock_rate: 48_000,
            size_length: 6,
            index_length: 2,
            index_delta_length: 2,
        },
        10 => Format::Latm { config: MuxConfig::emit(ASC).map(Bytes::from), clock_rate: 48_000 },
        _ => Format::of(&params),
    };
    (params, format)
}

fuzz_target!(|case: Case| {
    let (params, format) = params(case.codec);
    let nals = matches!(format, Format::H264 | Format::H265);
    let mut payload = BytesMut::new();
    for unit in case.units.iter().take(64) {
        for _ in 0..=case.times {
            if nals {
                put_nal(&mut payload, unit);
            } else {
                payload.extend_from_slice(unit);
            }
        }
    }
    let video = format.codec().is_video();
    let kind = match (video, case.key) {
        (false, _) => FrameKind::Audio,
        (true, true) => FrameKind::Key,
        (true, false) => FrameKind::Delta,
    };
    let frame = NewFrame {
        track: if video { TrackId::VIDEO } else { TrackId::AUDIO },
        dts: 0,
        pts: 0,
        kind,
        discardable: case.discardable,
        temporal_layer: case.layer,
        rotation: Rotation::R0,
        capture: None,
        payload: payload.freeze(),
    };
    let most = 16 + usize::from(case.most) * 5;
    let payloads = packetise(&format, &params, &frame, most);
    let whole = matches!(format, Format::Opus | Format::Pcma { .. } | Format::Pcmu { .. });
    assert!(whole || payloads.iter().all(|p| !p.is_empty() && p.len() <= most), "{case:?}");
    let mut depay = Depay::new(&format, MOST, 8_192);
    depay.preset(&params);
    let mut units = Vec::new();
    for (n, payload) in payloads.iter().enumerate() {
        depay.push(payload, 3_000, n + 1 == payloads.len(), |unit| units.push(unit));
    }
    // Parameter sets and delimiters come and go with those that have units of their own.
    let same = !nals && format != Format::Av1;
    if let [unit] = &units[..]
        && same
        && depay.drops() == DepayDrops::default()
    {
        assert_eq!(unit.payload, frame.payload, "{case:?}");
    }
});
