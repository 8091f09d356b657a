//! x265 with three B-frames that refer to each other (128x96, 25 a second, 50 pictures, a key frame each 25) through a workshop.

use super::*;
use crate::h265::H265;
use proto_core::media::h265::h265_params;
use proto_core::wire::h265::{NalType as Nal, begins_picture};

const PYRAMID: &[u8] = include_bytes!("pyramid.h265");
/// When the pictures are shown, in the order in which they are coded, as ffprobe tells.
const SHOWN: [i64; 50] = [
    0, 2, 1, 5, 4, 3, 9, 7, 6, 8, 11, 10, 15, 13, 12, 14, 19, 17, 16, 18, 21, 20, 24, 23, 22, 25, 26, 30, 28,
    27, 29, 31, 35, 33, 32, 34, 39, 37, 36, 38, 42, 41, 40, 45, 44, 43, 49, 47, 46, 48,
];

fn clip() -> (CodecParams, Vec<Packet>) {
    let mut sets = [const { Vec::new() }; 3];
    let mut units: Vec<BytesMut> = Vec::new();
    for nal in annex_b(PYRAMID) {
        let kind = Nal::of(nal);
        let place = [Nal::VPS, Nal::SPS, Nal::PPS].iter().position(|set| *set == kind);
        match place {
            Some(n) if sets[n].is_empty() => sets[n].push(Bytes::copy_from_slice(nal)),
            None if kind.is_slice() => {
                if begins_picture(nal) {
                    units.push(BytesMut::new());
                }
                put_nal(units.last_mut().unwrap(), nal);
            }
            _ => {}
        }
    }
    assert_eq!(units.len(), SHOWN.len());
    let packet = |(data, n): (BytesMut, i64)| Packet { pts: n * STEP, data: data.freeze() };
    let [vps, sps, pps] = sets;
    (h265_params(vps, sps, pps), units.into_iter().zip(SHOWN).map(packet).collect())
}

/// The source's pictures by time. The decoder's are the same to the bit as ffmpeg's.
fn source(params: &CodecParams, units: &[Packet]) -> Vec<(i64, YuvFrame)> {
    let CodecParams::H265 { vps, sps, pps, .. } = params else { panic!("H.265") };
    let mut decoder = H265::new([vps, sps, pps].into_iter().flatten().cloned().collect());
    let mut shown = Vec::new();
    for unit in units {
        decoder.decode(unit, (H265::is_key(unit), false), &mut shown).unwrap();
    }
    shown.into_iter().map(|p| (p.pts, p.frame)).collect()
}

#[test]
fn h265_comes_out_as_h264_without_b_frames_in_the_order_of_showing() {
    let (params, units) = clip();
    let source = source(&params, &units);
    let mut shop = shop(&params);
    let (mut made, mut out) = (None, Vec::new());
    for unit in &units {
        let done = convert(&mut shop, vec![unit.clone()]);
        assert_eq!(done.undecodable, 0);
        made = done.made.or(made);
        out.extend(done.packets);
    }
    let times: Vec<i64> = out.iter().map(|u| u.pts / STEP).collect();
    assert!(times.len() >= 43, "{} are held back", 50 - times.len());
    assert_eq!(times, (0..times.len() as i64).collect::<Vec<_>>(), "all, in order");
    let made = made.unwrap().params(Codec::H264).unwrap();
    let CodecParams::H264 { sps, pps, .. } = &made else { panic!("H.264") };
    assert_eq!(made.size(), Some((128, 96)));
    assert!(!ParameterSets::read(sps, pps).sequences()[0].announces_reordering());
    let keys: Vec<i64> = out.iter().filter(|u| is_key(u)).map(|u| u.pts / STEP).collect();
    assert_eq!(keys, [0, 25], "key frames where the source has them");
    for (pts, picture) in decode(&made, &out) {
        let (_, of) = source.iter().find(|s| s.0 == pts).expect("the time of a source's picture");
        let alike = psnr(of, &picture);
        assert!(alike > 26.0, "{alike:.1} dB at {}", pts / STEP);
    }
}

#[test]
fn after_damage_nothing_is_made_of_h265_until_its_next_key_frame() {
    let (params, mut units) = clip();
    // The beginning of a slice is no slice any more.
    let cut = units[4].data.len() / 8;
    units[4].data = units[4].data.slice(..cut);
    let mut shop = shop(&params);
    let done = convert(&mut shop, units);
    let times: Vec<i64> = done.packets.iter().map(|u| u.pts / STEP).collect();
    assert!(done.undecodable >= 20, "{}", done.undecodable);
    assert!(times.iter().all(|t| *t < 6 || *t >= 25), "{times:?}");
    assert!(times.iter().filter(|t| **t >= 25).count() >= 18, "{times:?}");
    assert!(times.windows(2).all(|w| w[0] < w[1]));
}

#[test]
fn what_is_no_picture_of_h265_ends_nothing() {
    let (params, units) = clip();
    let mut shop = shop(&params);
    for (n, unit) in units.iter().enumerate() {
        let mut data = unit.data.to_vec();
        for at in (5 + n..data.len()).step_by(41) {
            data[at] ^= 0x55;
        }
        let done = shop.work(BridgeWork {
            bridge: ID,
            job: BridgeJob::Convert(vec![Packet { pts: unit.pts, data: data.into() }]),
        });
        if done.failed.is_some() {
            return;
        }
    }
}
