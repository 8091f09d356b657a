//! Clips of x264 through a workshop. `pyramid.h264` has its defaults with three B-frames (others refer to some), `plain.h264`
//! has none that others refer to; 128x96, 25 a second, 50 pictures, a key frame each 25.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod h265;

use super::*;
use crate::order::{Order, Picture};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use proto_core::bridge::{BridgeId, BridgeJob, BridgeWork, Bridged, Packet};
use proto_core::media::h264::h264_params;
use proto_core::media::track::{Codec, CodecParams};
use proto_core::wire::h264::{NalType, annex_b, length_prefixed, put_nal};
use proto_core::wire::h264_slice::{OrderCount, ParameterSets};
use rusty_h264_common::YuvFrame;
use rusty_h264_decoder::Decoder;

const PYRAMID: &[u8] = include_bytes!("tests/pyramid.h264");
const PLAIN: &[u8] = include_bytes!("tests/plain.h264");
const INTERLACED: &[u8] = include_bytes!("tests/interlaced.h264");
const STEP: i64 = 40_000_000;
const ID: BridgeId = BridgeId(1);

/// Parameters and access units in coding order, with the times at which they are shown.
fn clip(stream: &[u8]) -> (CodecParams, Vec<Packet>) {
    let (mut sps, mut pps, mut units) = (Vec::new(), Vec::new(), Vec::<Packet>::new());
    let (mut order, mut base) = (OrderCount::default(), 0);
    for nal in annex_b(stream) {
        match NalType::of(nal) {
            NalType::SPS if sps.is_empty() => sps.push(Bytes::copy_from_slice(nal)),
            NalType::PPS if pps.is_empty() => pps.push(Bytes::copy_from_slice(nal)),
            NalType::SLICE | NalType::IDR => {
                let sets = ParameterSets::read(&sps, &pps);
                let (slice, info) = sets.slice(nal).unwrap();
                assert_eq!(slice.first_mb, 0, "one slice a picture");
                if slice.idr {
                    base = units.len() as i64;
                }
                let count = order.next(&slice, info).unwrap();
                let mut data = BytesMut::new();
                put_nal(&mut data, nal);
                units.push(Packet { pts: (base + count / 2) * STEP, data: data.freeze() });
            }
            _ => {}
        }
    }
    (h264_params(sps, pps), units)
}

fn shop(params: &CodecParams) -> Workshop {
    let mut shop = Workshop::default();
    let opened =
        shop.work(BridgeWork { bridge: ID, job: BridgeJob::Open { from: params.clone(), to: Codec::H264 } });
    assert_eq!(opened.failed, None);
    shop
}

fn convert(shop: &mut Workshop, units: Vec<Packet>) -> Bridged {
    let done = shop.work(BridgeWork { bridge: ID, job: BridgeJob::Convert(units) });
    assert_eq!(done.failed, None);
    done
}

fn is_key(unit: &Packet) -> bool {
    length_prefixed(&unit.data, 4).flatten().any(|n| NalType::of(n) == NalType::IDR)
}

/// Decodes units in coding order; the pictures by time.
fn decode(params: &CodecParams, units: &[Packet]) -> Vec<(i64, YuvFrame)> {
    let CodecParams::H264 { sps, pps, .. } = params else { panic!("H.264") };
    let mut decoder = Decoder::new();
    let mut shown: Vec<(i64, YuvFrame)> = units
        .iter()
        .map(|unit| {
            let sets = sps.iter().chain(pps).map(|s| &s[..]).filter(|_| is_key(unit));
            let nals = sets.chain(length_prefixed(&unit.data, 4).flatten());
            let bytes: Vec<u8> = nals.flat_map(|n| [&[0, 0, 0, 1], n].concat()).collect();
            (unit.pts, decoder.decode(&bytes).unwrap().unwrap())
        })
        .collect();
    shown.sort_by_key(|s| s.0);
    shown
}

fn psnr(a: &YuvFrame, b: &YuvFrame) -> f64 {
    assert_eq!((a.width, a.height), (b.width, b.height));
    let sum: u64 = a.y.iter().zip(&b.y).map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum();
    10.0 * (255.0 * 255.0 * a.y.len() as f64 / (sum as f64).max(1e-9)).log10()
}

#[test]
fn what_comes_out_is_the_same_picture_in_the_order_of_showing_without_b_frames() {
    for (name, stream) in [("pyramid", PYRAMID), ("plain", PLAIN)] {
        let (params, units) = clip(stream);
        let source = decode(&params, &units);
        let mut shop = shop(&params);
        let (mut made, mut out, mut held) = (None, Vec::new(), 0);
        for (n, unit) in units.iter().enumerate() {
            let done = convert(&mut shop, vec![unit.clone()]);
            assert_eq!(done.undecodable, 0);
            made = done.made.or(made);
            out.extend(done.packets);
            held = held.max(n + 1 - out.len().min(n + 1));
        }
        assert!(held <= 4, "{name}: {held} pictures are held back");
        assert!(out.len() + 4 >= units.len(), "{name}: {} of {} came out", out.len(), units.len());
        assert!(out.windows(2).all(|w| w[0].pts < w[1].pts), "{name}");
        let made = made.unwrap().params(Codec::H264).unwrap();
        let CodecParams::H264 { sps, pps, size, .. } = &made else { panic!("H.264") };
        assert_eq!(*size, Some((128, 96)));
        let sets = ParameterSets::read(sps, pps);
        let kinds = |u: &Packet| {
            length_prefixed(&u.data, 4)
                .flatten()
                .filter_map(|n| Some(sets.slice(n)?.0.kind))
                .collect::<Vec<_>>()
        };
        assert!(out.iter().all(|u| !kinds(u).is_empty() && !kinds(u).contains(&1)), "{name}: a B slice");
        assert!(!sets.sequences()[0].announces_reordering());
        let keys: Vec<i64> = out.iter().filter(|u| is_key(u)).map(|u| u.pts / STEP).collect();
        assert_eq!(keys, [0, 25], "{name}: key frames where the source has them");
        for (pts, picture) in decode(&made, &out) {
            let (_, of) = source.iter().find(|s| s.0 == pts).expect("the time of a source's picture");
            let alike = psnr(of, &picture);
            assert!(alike > 27.0, "{name}: {alike:.1} dB at {}", pts / STEP);
        }
    }
}

#[test]
fn a_key_frame_comes_when_one_is_asked_for_and_the_bytes_depend_on_nothing_else() {
    let (params, units) = clip(PYRAMID);
    let run = |ask: bool| {
        let mut shop = shop(&params);
        let mut out = convert(&mut shop, units[..12].to_vec()).packets;
        if ask {
            assert_eq!(shop.work(BridgeWork { bridge: ID, job: BridgeJob::KeyFrame }).failed, None);
        }
        let first = out.len();
        out.extend(convert(&mut shop, units[12..20].to_vec()).packets);
        (is_key(&out[first]), out)
    };
    assert!(run(true).0 && !run(false).0);
    assert_eq!(run(true), run(true));
}

#[test]
fn nothing_is_made_of_damaged_pictures_and_it_goes_on_with_the_next_key_frame() {
    let (params, mut units) = clip(PYRAMID);
    let mut shop = shop(&params);
    // It begins in the middle of a group.
    let done = convert(&mut shop, units[5..8].to_vec());
    assert_eq!((done.packets.len(), done.undecodable), (0, 3));
    units[6].data = Bytes::from_static(&[0, 0, 0, 4, 0x41, 0xff, 0xff, 0xff]);
    let before: Vec<i64> = units[..6].iter().map(|u| u.pts / STEP).collect();
    let done = convert(&mut shop, units);
    let times: Vec<i64> = done.packets.iter().map(|u| u.pts / STEP).collect();
    assert!(done.undecodable >= 19 && times.iter().all(|t| *t >= 25 || before.contains(t)), "{times:?}");
    assert!(done.packets.iter().any(|u| is_key(u) && u.pts == 25 * STEP), "{times:?}");
}

#[test]
fn a_squeezed_group_is_decoded_whole_and_coded_at_its_end() {
    let (params, units) = clip(PLAIN);
    let mut shop = shop(&params);
    let squeezed: Vec<Packet> = units[..25]
        .iter()
        .map(|u| Packet { pts: u.pts / STEP * 1_000_000 + 960_000_000, ..u.clone() })
        .collect();
    let early = convert(&mut shop, squeezed).packets;
    assert!((1..=4).contains(&early.len()) && is_key(&early[0]), "{} pictures", early.len());
    let live = convert(&mut shop, units[25..].to_vec()).packets;
    assert!(live.len() >= 20 && live.iter().filter(|u| u.pts < 1_000_000_000).count() <= 1);
}

#[test]
fn what_cannot_be_converted_is_refused_in_words() {
    let refused = |from, to| {
        let mut shop = Workshop::default();
        let failed = shop.work(BridgeWork { bridge: ID, job: BridgeJob::Open { from, to } }).failed.unwrap();
        assert!(shop.is_empty());
        failed
    };
    assert!(refused(CodecParams::Vp8 { size: None }, Codec::H264).contains("VP8"));
    assert!(refused(clip(PLAIN).0, Codec::Aac).contains("AAC"));
    assert!(refused(h264_params(vec![], vec![]), Codec::H264).contains("parameter sets"));
    let sets =
        |kind| annex_b(INTERLACED).filter(|n| NalType::of(n) == kind).map(Bytes::copy_from_slice).collect();
    let interlaced = h264_params(sets(NalType::SPS), sets(NalType::PPS));
    assert!(refused(interlaced, Codec::H264).contains("interlaced"));
    let done = Workshop::default().work(BridgeWork { bridge: ID, job: BridgeJob::Convert(vec![]) });
    assert!(done.failed.is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Bytes turned over, units lost, swapped and timed anyhow: no panic gets out, and times rise.
    #[test]
    fn damage_never_panics(hits in prop::collection::vec((0usize..50, any::<prop::sample::Index>(), any::<u8>(), -3i64..3), 1..20)) {
        let (params, mut units) = clip(PYRAMID);
        for (unit, at, value, shift) in hits {
            let mut data = units[unit].data.to_vec();
            let at = 4 + at.index(data.len() - 4);
            data[at] ^= value;
            units[unit].data = data.into();
            units[unit].pts += shift * STEP;
        }
        let mut shop = shop(&params);
        let mut last = i64::MIN;
        for unit in units {
            let done = shop.work(BridgeWork { bridge: ID, job: BridgeJob::Convert(vec![unit]) });
            for picture in done.packets {
                prop_assert!(picture.pts > last);
                last = picture.pts;
            }
            if done.failed.is_some() { break; }
        }
    }

    /// Pictures in any order within the depth come out by time, and all of them.
    #[test]
    fn order_is_restored(depth in 0u32..4, picks in prop::collection::vec(0usize..4, 1..60)) {
        let picture = |pts| Picture { pts, key: false, frame: YuvFrame { width: 0, height: 0, y: vec![], u: vec![], v: vec![] } };
        let mut order = Order::new(depth, None);
        let (mut waiting, mut out) = ((0..=i64::from(depth)).map(|n| (n, 0)).collect::<Vec<(i64, u32)>>(), Vec::new());
        for (n, pick) in picks.iter().enumerate() {
            let late = waiting[0].1 >= depth;
            let at = if late { 0 } else { pick % waiting.len() };
            let (pts, _) = waiting.remove(at);
            waiting[..at].iter_mut().for_each(|(_, passed)| *passed += 1);
            waiting.push((n as i64 + i64::from(depth) + 1, 0));
            prop_assert!(order.push(picture(pts), &mut out));
        }
        order.flush(&mut out);
        prop_assert_eq!(out.len(), picks.len());
        prop_assert!(out.windows(2).all(|w| w[0].pts < w[1].pts));
    }
}
