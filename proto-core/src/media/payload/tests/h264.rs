use super::*;
use crate::media::payload::nal;

const SPS: &[u8] = &[0x67, 0x42, 0xe0, 0x1f, 0x8d, 0x68];
const PPS: &[u8] = &[0x68, 0xce, 0x3c, 0x80];
const STAP_A: u8 = 24;

fn sets() -> (Vec<Bytes>, Vec<Bytes>) {
    (vec![Bytes::from_static(SPS)], vec![Bytes::from_static(PPS)])
}

fn avc() -> CodecParams {
    let (sps, pps) = sets();
    h264_params(sps, pps)
}

/// Payloads of a picture with its parameter sets in front.
fn with_sets(picture: &Bytes, most: usize) -> Vec<Bytes> {
    packetise(&Format::H264, &avc(), &frame(FrameKind::Key, picture.clone()), most)
}

fn bare(picture: &Bytes, most: usize) -> Vec<Bytes> {
    packetise(&Format::H264, &avc(), &frame(FrameKind::Delta, picture.clone()), most)
}

fn slice(kind: u8, len: usize, fill: u8) -> Vec<u8> {
    let mut nal = vec![fill; len.max(2)];
    nal[0] = kind;
    nal[1] |= 0x80;
    nal
}

fn new() -> Depay {
    depay(&Format::H264)
}

fn is_key(u: &Unit) -> bool {
    u.kind == FrameKind::Key
}

#[test]
fn parameter_sets_lead_a_key_frame_and_fragments_are_of_equal_size() {
    let payloads = with_sets(&nals(&[slice(0x65, 5000, 7)]), PAYLOAD_BYTES);
    assert_eq!(payloads[0][0], 0x60 | STAP_A);
    assert_eq!(payloads[0].len(), 1 + 2 + SPS.len() + 2 + PPS.len());
    let sizes: Vec<usize> = payloads[1..].iter().map(Bytes::len).collect();
    assert!(sizes[..sizes.len() - 1].iter().all(|s| *s == sizes[0] && *s <= PAYLOAD_BYTES), "{sizes:?}");
    let last = *sizes.last().unwrap();
    assert!(last <= sizes[0] && sizes[0] - last < sizes.len(), "{sizes:?}");
    assert_eq!(sizes.len(), 4999usize.div_ceil(PAYLOAD_BYTES - 2), "as few as can be");
}

#[test]
fn a_lost_fragment_costs_its_frame_and_all_until_the_next_key_frame() {
    let mut d = new();
    let key = with_sets(&nals(&[slice(0x65, 3000, 1)]), PAYLOAD_BYTES);
    let delta = bare(&nals(&[slice(0x41, 3000, 2)]), PAYLOAD_BYTES);
    assert_eq!(push_all(&mut d, &key, 0).len(), 1);
    d.push(&delta[0], 1, false, |_| panic!("incomplete"));
    d.lost();
    d.push(&delta[2], 1, true, |_| panic!("damaged"));
    assert!(d.needs_key());
    assert_eq!(push_all(&mut d, &delta, 2), []);
    assert_eq!(d.drops(), DepayDrops { damaged: 1, undecodable: 1, too_large: 0 });
    let units = push_all(&mut d, &key, 3);
    assert!(is_key(&units[0]) && units[0].params.is_none(), "the sets did not change");
    assert!(!d.needs_key());
}

#[test]
fn a_key_frame_whose_first_packet_was_lost_is_not_taken_for_whole() {
    let mut d = new();
    let two_slices = {
        let mut second = slice(0x65, 20, 3);
        second[1] &= 0x7f;
        bare(&nals(&[slice(0x65, 20, 3), second]), PAYLOAD_BYTES)
    };
    let key = with_sets(&nals(&[slice(0x65, 30, 1)]), PAYLOAD_BYTES);
    push_all(&mut d, &key, 0);
    d.lost();
    assert_eq!(push_all(&mut d, &two_slices[1..], 1), []);
    assert_eq!(push_all(&mut d, &two_slices, 2).len(), 1);
    // Lost before the key frame, which itself begins with its parameter sets: whole.
    d.lost();
    assert_eq!(push_all(&mut d, &key, 3).len(), 1);
}

#[test]
fn without_a_marker_the_next_timestamp_ends_a_frame() {
    let mut d = new();
    let key = with_sets(&nals(&[slice(0x65, 30, 1)]), PAYLOAD_BYTES);
    let mut out = Vec::new();
    for p in &key {
        d.push(p, 10, false, |u| out.push(u));
    }
    assert!(out.is_empty());
    d.push(&slice(0x41, 9, 1), 20, true, |u| out.push(u));
    assert_eq!(out.iter().map(|u| (u.timestamp, is_key(u))).collect::<Vec<_>>(), [(10, true), (20, false)]);
}

#[test]
fn changed_sets_are_told_once_and_delimiters_and_filler_are_left_out() {
    let mut d = new();
    let key = slice(0x65, 30, 1);
    let units = push_all(
        &mut d,
        &bare(
            &nals(&[vec![9, 0x10], SPS.to_vec(), PPS.to_vec(), key.clone(), vec![12, 0xff]]),
            PAYLOAD_BYTES,
        ),
        0,
    );
    assert_eq!(units[0].payload, nals(std::slice::from_ref(&key)));
    assert_eq!(units[0].params, Some(avc()));
    let other = Bytes::from_static(&[0x67, 0x42, 0xe0, 0x20, 0x8d, 0x68]);
    let units = push_all(&mut d, &bare(&nals(&[other.to_vec(), key]), PAYLOAD_BYTES), 1);
    assert_eq!(units[0].params, Some(h264_params(vec![other], sets().1)));
}

#[test]
fn a_frame_past_the_limits_is_dropped_and_counted() {
    let big = with_sets(&nals(&[slice(0x65, 5000, 1)]), PAYLOAD_BYTES);
    for (bytes, packets) in [(4000, 100), (100_000, 3)] {
        let mut d = Depay::new(&Format::H264, bytes, packets);
        assert_eq!(push_all(&mut d, &big, 0), []);
        assert_eq!(d.drops().too_large, 1);
        assert!(d.needs_key());
    }
}

#[test]
fn sets_of_the_session_description_are_known_beforehand() {
    let mut d = new();
    let picture = nals(&[slice(0x65, 30, 1)]);
    assert_eq!(push_all(&mut d, &bare(&picture, PAYLOAD_BYTES), 0), [], "nothing can decode it");
    d.preset(&avc());
    let units = push_all(&mut d, &bare(&picture, PAYLOAD_BYTES), 1);
    assert_eq!((is_key(&units[0]), units[0].params.clone()), (true, Some(avc())));
}

#[test]
fn ids_of_parameter_sets_are_read() {
    assert_eq!(nal::id(&[0x80], 0), Some(0));
    assert_eq!(nal::id(&[9, 0b0101_1111], 1), Some(1));
    assert_eq!(nal::id(&[0, 0, 3, 0], 0), None);
    assert_eq!(nal::id(&[], 0), None);
}

fn any_nals() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let nal = (prop_oneof![Just(0x65u8), Just(0x41), Just(0x01), Just(0x06)], 2usize..6000, any::<u8>())
        .prop_map(|(kind, len, fill)| slice(kind, len, fill));
    proptest::collection::vec(nal, 1..6)
}

proptest! {
    #[test]
    fn what_is_packetised_comes_back_bit_exactly(list in any_nals(), most in 16usize..1500) {
        let mut with_key = list;
        with_key.push(slice(0x65, 40, 9));
        let frame = nals(&with_key);
        let payloads = with_sets(&frame, most);
        prop_assert!(payloads.iter().all(|p| p.len() <= most));
        let units = push_all(&mut new(), &payloads, 77);
        prop_assert_eq!(units.len(), 1);
        prop_assert_eq!(&units[0].payload, &frame);
        prop_assert_eq!(&units[0].params, &Some(avc()));
    }

    /// Any loss, announced as the reorder buffer announces it: what comes out is whole, and after a loss the
    /// first unit out is a key frame.
    #[test]
    fn no_loss_ever_lets_a_damaged_frame_through(
        frames in proptest::collection::vec((any::<bool>(), any_nals()), 1..12),
        lost in proptest::collection::btree_set(0usize..60, 0..12),
    ) {
        let mut d = new();
        let mut sent = Vec::new();
        let mut out: Vec<(Unit, bool)> = Vec::new();
        let (mut n, mut dropped, mut broken) = (0, false, true);
        for (t, (key, list)) in frames.into_iter().enumerate() {
            // A lost SEI alone cannot be told from one that was never sent, so there are none here; and only the
            // first slice of a picture has first_mb_in_slice = 0.
            let fixed: Vec<Vec<u8>> = list
                .into_iter()
                .enumerate()
                .map(|(i, mut nal)| {
                    nal[0] = if key { 0x65 } else { 0x41 };
                    nal[1] = if i == 0 { nal[1] | 0x80 } else { nal[1] & 0x7f };
                    nal
                })
                .collect();
            let f = nals(&fixed);
            let all = if key { with_sets(&f, 1000) } else { bare(&f, 1000) };
            sent.push(f);
            let len = all.len();
            for (i, p) in all.iter().enumerate() {
                n += 1;
                if lost.contains(&n) {
                    dropped = true;
                    broken = true;
                    continue;
                }
                if std::mem::take(&mut dropped) {
                    d.lost();
                }
                d.push(p, t as u32, i + 1 == len, |u| { out.push((u, broken)); broken = false; });
            }
        }
        for (unit, after_loss) in out {
            prop_assert_eq!(&unit.payload, &sent[unit.timestamp as usize]);
            prop_assert!(unit.kind == FrameKind::Key || !after_loss);
        }
    }

    #[test]
    fn garbage_never_panics_and_stays_within_the_limits(
        packets in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..80), 0u32..3, any::<bool>(), any::<bool>()), 0..80),
    ) {
        let mut d = Depay::new(&Format::H264, 300, 10);
        for (payload, timestamp, marker, lost) in packets {
            if lost {
                d.lost();
            }
            d.push(&payload, timestamp, marker, |u| assert!(u.payload.len() <= 300 + 84));
        }
    }
}
