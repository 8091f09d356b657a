use super::*;

fn vps() -> Vec<Bytes> {
    vec![Bytes::from_static(&[0x40, 1, 0x0c, 1])]
}

fn hevc() -> CodecParams {
    let set = |kind: u8| vec![Bytes::from(vec![kind << 1, 1, 0xc1, 9])];
    h265_params(vps(), set(33), set(34))
}

fn vp9() -> CodecParams {
    let format = Vp9Format { profile: 0, depth: 8, subsampling: 1, full_range: false };
    CodecParams::Vp9 { format, size: Some((640, 360)) }
}

/// libaom, 640x360: a whole OBU.
const SEQUENCE: &[u8] = &[0x0a, 0x0b, 0x00, 0x00, 0x00, 0x0c, 0xc4, 0xff, 0x67, 0x3e, 0xbe, 0x60, 0x10];

fn av1() -> CodecParams {
    CodecParams::Av1 { sequence_header: Bytes::from_static(SEQUENCE), size: Some((640, 360)) }
}

fn aac() -> CodecParams {
    CodecParams::Aac { asc: Bytes::from_static(&[0x11, 0x90]), rate: 48_000, channels: 2 }
}

fn mp3() -> CodecParams {
    CodecParams::Mp3 { rate: 44_100, channels: 2 }
}

/// Each codec's format, parameters, and one frame of about this size in valid wrapping.
fn made(which: usize, key: bool, len: usize, fill: u8) -> (Format, CodecParams, NewFrame) {
    let kind = if key { FrameKind::Key } else { FrameKind::Delta };
    let body = vec![fill; len];
    let with = |head: &[u8]| Bytes::from([head, &body].concat());
    match which {
        0 => {
            let slice = [&[if key { 19 << 1 } else { 1 << 1 }, 1, 0x80], &body[..]].concat();
            (Format::H265, hevc(), frame(kind, nals(&[slice])))
        }
        1 => {
            let head: &[u8] =
                if key { &[0x10, 2, 0, 0x9d, 1, 0x2a, 0x80, 2, 0x68, 1] } else { &[0x11, 2, 0] };
            (Format::Vp8, CodecParams::Vp8 { size: Some((640, 360)) }, frame(kind, with(head)))
        }
        2 => {
            let head: &[u8] =
                if key { &[0x82, 0x49, 0x83, 0x42, 0x00, 0x27, 0xf0, 0x16, 0x70] } else { &[0x86, 0] };
            (Format::Vp9, vp9(), frame(kind, with(head)))
        }
        3 => {
            let mut unit = BytesMut::new();
            if key {
                unit.extend_from_slice(SEQUENCE);
            }
            let metadata = Obu { kind: ObuType(5), header: &[5 << 3], payload: &[1, 2, 3] };
            metadata.put(&mut unit);
            let payload = with(&[if key { 0x10 } else { 0x30 }]);
            Obu { kind: ObuType::FRAME, header: &[6 << 3], payload: &payload }.put(&mut unit);
            (Format::Av1, av1(), frame(kind, unit.freeze()))
        }
        4 => (Format::Opus, CodecParams::Opus { channels: 2 }, frame(FrameKind::Audio, with(&[0xfc]))),
        5 => (
            Format::Pcma { channels: 1 },
            CodecParams::Pcma { channels: 1 },
            frame(FrameKind::Audio, body[..len.min(800)].to_vec()),
        ),
        6 => {
            let mut whole = vec![fill; 417];
            whole[..4].copy_from_slice(&[0xff, 0xfb, 0x90, 0x00]);
            (Format::Mp3, mp3(), frame(FrameKind::Audio, whole))
        }
        7 => (Format::of(&aac()), aac(), frame(FrameKind::Audio, with(&[1]))),
        _ => {
            let config = MuxConfig::emit(&[0x11, 0x90]);
            let format = Format::Latm { config, clock_rate: 48_000 };
            (format, aac(), frame(FrameKind::Audio, with(&[1])))
        }
    }
}

#[test]
fn a_lost_packet_costs_its_frame_and_all_until_the_next_key_frame() {
    for which in 0..4 {
        let (format, params, key) = made(which, true, 3_000, 7);
        let (.., delta) = made(which, false, 3_000, 7);
        let (key, delta) =
            (packetise(&format, &params, &key, 1_000), packetise(&format, &params, &delta, 1_000));
        for lost in 0..delta.len() {
            let mut d = depay(&format);
            assert_eq!(push_all(&mut d, &delta, 0), [], "{format:?} cannot begin so");
            assert_eq!(push_all(&mut d, &key, 1).len(), 1);
            assert_eq!(push_all(&mut d, &delta, 2).len(), 1);
            let mut out = Vec::new();
            for (i, p) in delta.iter().enumerate() {
                if i == lost {
                    d.lost();
                } else {
                    d.push(p, 3, i + 1 == delta.len(), |u| out.push(u));
                }
            }
            d.push(&delta[0], 4, false, |u| out.push(u));
            assert_eq!(out, [], "{format:?} without packet {lost}");
            assert!(d.needs_key());
            assert_eq!(push_all(&mut d, &key, 5).len(), 1);
            assert!(!d.needs_key());
        }
    }
}

/// Parameters that came with a picture that was lost are told with the next one that can be used; else nobody would ever
/// see a publisher whose first picture lost a packet.
#[test]
fn parameters_of_a_picture_that_was_lost_are_told_with_the_next() {
    for which in 0..5 {
        let (format, params, key, delta) = match which {
            4 => {
                let (sps, pps) =
                    (Bytes::from_static(&[0x67, 0x42, 0xe0, 0x1f, 0x8d]), Bytes::from_static(&[0x68, 0xce]));
                let slice = |head: u8| nals(&[[&[head, 0x80], &[7; 3_000][..]].concat()]);
                let (key, delta) = (frame(FrameKind::Key, slice(0x65)), frame(FrameKind::Delta, slice(0x41)));
                (Format::H264, h264_params(vec![sps], vec![pps]), key, delta)
            }
            _ => {
                let (format, params, key) = made(which, true, 3_000, 7);
                (format, params, key, made(which, false, 3_000, 7).2)
            }
        };
        let cut = |frame| packetise(&format, &params, frame, 1_000);
        let (key, delta) = (cut(&key), cut(&delta));
        for lost in 1..key.len() {
            let mut d = depay(&format);
            for (i, p) in key.iter().enumerate() {
                if i == lost {
                    d.lost();
                } else {
                    d.push(p, 0, i + 1 == key.len(), |_| panic!("{format:?} without packet {lost}"));
                }
            }
            for stamp in 1..3 {
                assert_eq!(push_all(&mut d, &delta, stamp), [], "{format:?} without packet {lost}");
            }
            let units = push_all(&mut d, &key, 3);
            assert_eq!(units[0].kind, FrameKind::Key);
            assert_eq!(units[0].params.as_ref(), Some(&params), "{format:?} without packet {lost}");
        }
    }
}

#[test]
fn several_units_in_one_packet_have_their_own_times() {
    let mut d = depay(&Format::of(&aac()));
    let mut out = Vec::new();
    // Two units of three and two bytes: lengths in 13 bits, indices in 3.
    d.push(&[0, 32, 0, 3 << 3, 0, 2 << 3, 1, 2, 3, 4, 5], 100, true, |u| out.push((u.timestamp, u.payload)));
    assert_eq!(out, [(100, Bytes::from_static(&[1, 2, 3])), (1_124, Bytes::from_static(&[4, 5]))]);
    let mut d = depay(&Format::Mp3);
    let (.., one) = made(6, true, 0, 3);
    let mut out = Vec::new();
    let two = [&[0; 4], &one.payload[..], &one.payload[..]].concat();
    d.push(&two, 0, false, |u| out.push((u.timestamp, u.payload.len(), u.params.is_some())));
    assert_eq!(out, [(0, 417, true), (2_351, 417, false)]);
    let mut d = depay(&Format::Pcmu { channels: 1 });
    let mut out = Vec::new();
    d.push(&[7; 1_024], 50, false, |u| out.push((u.timestamp, u.payload.len())));
    d.push(&[7; 1_448], 1_074, false, |u| out.push((u.timestamp, u.payload.len())));
    assert_eq!(out, [(50, 1_024), (1_074, 724), (1_798, 724)], "as few as there must be, and equal");
    let mut d = depay(&Format::Pcmu { channels: 2 });
    let mut out = Vec::new();
    d.push(&[7; 1_442], 0, false, |u| out.push((u.timestamp, u.payload.len())));
    assert_eq!(out, [(0, 722), (361, 720)], "a sample stays whole");
}

#[test]
fn latm_brings_its_configuration_along_where_it_was_not_told() {
    let config = MuxConfig::emit(&[0x11, 0x90]).unwrap();
    let mut w = crate::wire::bits::BitWriter::default();
    w.put(1, 0);
    let mut bits = crate::wire::bits::Bits::new(&config);
    // 15 bits of head, 16 of AudioSpecificConfig, 3 + 8 + 1 + 1.
    for _ in 0..44 {
        w.put(1, bits.take(1).unwrap());
    }
    for byte in [3, 7, 8, 9] {
        w.put(8, byte);
    }
    let mut d = depay(&Format::Latm { config: None, clock_rate: 48_000 });
    let mut out = Vec::new();
    d.push(&w.finish(), 5, true, |u| out.push(u));
    assert_eq!((out[0].params.clone(), &out[0].payload[..]), (Some(aac()), &[7, 8, 9][..]));
}

#[test]
fn a_layered_vp9_picture_is_one_frame() {
    let (.., key) = made(2, true, 10, 1);
    let mut d = depay(&Format::Vp9);
    let mut out = Vec::new();
    // Layer indices, begin and end of a frame; spatial layers 0 and 1 with the same timestamp.
    d.push(&[&[0x2c, 0, 0], &key.payload[..]].concat(), 9, false, |u| out.push(u));
    d.push(&[0x6c, 0x02, 0, 0x86, 0], 9, true, |u| out.push(u));
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].payload, [&key.payload[..], &[0x86, 0]].concat());
    // The lower one lost.
    d.push(&[0x6c, 0x02, 0, 0x86, 0], 10, true, |u| out.push(u));
    assert_eq!((out.len(), d.drops().damaged), (1, 1));
}

#[test]
fn an_av1_key_frame_gets_the_sequence_header_that_was_sent_before() {
    let (_, params, key) = made(3, true, 10, 1);
    let without = key.payload.slice(SEQUENCE.len()..);
    let mut d = depay(&Format::Av1);
    let all = packetise(&Format::Av1, &params, &key, 1_000);
    let units = push_all(&mut d, &all, 0);
    assert_eq!((units[0].kind, units[0].params.clone()), (FrameKind::Key, Some(av1())));
    let bare = packetise(&Format::Av1, &params, &frame(FrameKind::Key, without), 1_000);
    let again = push_all(&mut d, &bare, 1);
    assert_eq!((&again[0].payload, again[0].params.clone()), (&key.payload, None));
}

/// Found by the fuzz target `depay`: a unit of no bytes behind a fragment came out as a whole one.
#[test]
fn a_unit_of_no_bytes_is_no_end_of_a_fragment_of_aac() {
    let format = Format::Mpeg4Generic {
        asc: Bytes::from_static(&[0x11, 0x90]),
        clock_rate: 48_000,
        size_length: 13,
        index_length: 3,
        index_delta_length: 3,
    };
    let mut d = Depay::new(&format, 300, 10);
    let units = |d: &mut Depay, payload: &[u8], timestamp| {
        let mut all = Vec::new();
        d.push(payload, timestamp, true, |unit| all.push(unit));
        all
    };
    // Four of nine bytes, then a size of 0 at the next time.
    assert!(units(&mut d, &[0, 16, 0, 9 << 3, 1, 2, 3, 4], 0).is_empty());
    assert!(units(&mut d, &[0, 16, 0, 0], 1_024).is_empty());
    assert_eq!(d.drops().damaged, 1);
    let next = units(&mut d, &[0, 16, 0, 2 << 3, 1, 2], 2_048);
    assert_eq!(next.iter().map(|u| &u.payload[..]).collect::<Vec<_>>(), [[1, 2]]);
}

proptest! {
    #[test]
    fn what_is_packetised_comes_back_bit_exactly(
        which in 0usize..9, len in 1usize..5_000, most in 32usize..1_500, fill: u8,
    ) {
        let (format, params, key) = made(which, true, len, fill);
        let payloads = packetise(&format, &params, &key, most);
        let video = format.codec().is_video();
        if video || matches!(format, Format::Mpeg4Generic { .. } | Format::Latm { .. } | Format::Mp3) {
            prop_assert!(payloads.iter().all(|p| p.len() <= most));
        }
        // Parameter sets and what is left of them have their own size; then all are alike but the last.
        let size = payloads.iter().rev().nth(1).map_or(most, Bytes::len);
        let run = payloads.iter().rev().skip(1).take_while(|p| p.len() == size).count();
        prop_assert!(payloads.len() <= run + 5, "{:?}", payloads.iter().map(Bytes::len).collect::<Vec<_>>());
        let units = push_all(&mut depay(&format), &payloads, 77);
        prop_assert_eq!(units.len(), 1);
        prop_assert_eq!(&units[0].payload, &key.payload);
        prop_assert_eq!((units[0].timestamp, units[0].kind), (77, key.kind));
        prop_assert_eq!(&units[0].params, &Some(params));
    }

    #[test]
    fn garbage_never_panics_and_stays_within_the_limits(
        which in 0usize..9,
        packets in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..80), 0u32..3, any::<bool>(), any::<bool>()), 0..80),
    ) {
        let (format, ..) = made(which, true, 10, 0);
        let mut d = Depay::new(&format, 300, 10);
        let mut lossy = true;
        for (payload, timestamp, marker, lost) in packets {
            if lost {
                d.lost();
                lossy = true;
            }
            d.push(&payload, timestamp, marker, |u| {
                assert!(u.payload.len() <= 300 + 84 + 13 + 420);
                assert!(!format.codec().is_video() || !lossy || u.kind == FrameKind::Key);
                lossy = false;
            });
            lossy |= d.needs_key();
        }
    }
}
