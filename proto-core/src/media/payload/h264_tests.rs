use super::super::h264::{PAYLOAD_BYTES, packetise};
use super::*;
use proptest::prelude::*;

const SPS: &[u8] = &[0x67, 0x42, 0xe0, 0x1f, 0x8d, 0x68];
const PPS: &[u8] = &[0x68, 0xce, 0x3c, 0x80];

fn sets() -> Vec<Bytes> {
    vec![Bytes::from_static(SPS), Bytes::from_static(PPS)]
}

fn frame(nals: &[Vec<u8>]) -> Bytes {
    let mut out = BytesMut::new();
    nals.iter().for_each(|n| put_nal(&mut out, n));
    out.freeze()
}

fn slice(kind: u8, len: usize, fill: u8) -> Vec<u8> {
    let mut nal = vec![fill; len.max(2)];
    nal[0] = kind;
    nal[1] |= 0x80;
    nal
}

fn depay() -> H264Depay {
    H264Depay::new(4 << 20, 4096)
}

fn push_all(d: &mut H264Depay, payloads: &[Bytes], timestamp: u32) -> Vec<AccessUnit> {
    let mut out = Vec::new();
    for (i, p) in payloads.iter().enumerate() {
        d.push(p, timestamp, i + 1 == payloads.len(), |u| out.push(u));
    }
    out
}

#[test]
fn parameter_sets_lead_a_key_frame_and_fragments_are_of_equal_size() {
    let payloads = packetise(&frame(&[slice(0x65, 5000, 7)]), &sets(), PAYLOAD_BYTES);
    assert_eq!(payloads[0][0], 0x60 | STAP_A);
    assert_eq!(payloads[0].len(), 1 + 2 + SPS.len() + 2 + PPS.len());
    let sizes: Vec<usize> = payloads[1..].iter().map(Bytes::len).collect();
    assert!(sizes[..sizes.len() - 1].iter().all(|s| *s == PAYLOAD_BYTES), "{sizes:?}");
    assert!(*sizes.last().unwrap() <= PAYLOAD_BYTES);
}

#[test]
fn a_lost_fragment_costs_its_frame_and_all_until_the_next_key_frame() {
    let mut d = depay();
    let key = packetise(&frame(&[slice(0x65, 3000, 1)]), &sets(), PAYLOAD_BYTES);
    let delta = packetise(&frame(&[slice(0x41, 3000, 2)]), &[], PAYLOAD_BYTES);
    assert_eq!(push_all(&mut d, &key, 0).len(), 1);
    d.push(&delta[0], 1, false, |_| panic!("incomplete"));
    d.lost();
    d.push(&delta[2], 1, true, |_| panic!("damaged"));
    assert!(d.needs_key());
    assert_eq!(push_all(&mut d, &delta, 2), []);
    assert_eq!(d.drops(), DepayDrops { damaged: 1, undecodable: 1, too_large: 0 });
    let units = push_all(&mut d, &key, 3);
    assert!(units[0].key && units[0].sets.is_none(), "the sets did not change");
    assert!(!d.needs_key());
}

#[test]
fn a_key_frame_whose_first_packet_was_lost_is_not_taken_for_whole() {
    let mut d = depay();
    let two_slices = {
        let mut second = slice(0x65, 20, 3);
        second[1] &= 0x7f;
        packetise(&frame(&[slice(0x65, 20, 3), second]), &[], PAYLOAD_BYTES)
    };
    let key = packetise(&frame(&[slice(0x65, 30, 1)]), &sets(), PAYLOAD_BYTES);
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
    let mut d = depay();
    let key = packetise(&frame(&[slice(0x65, 30, 1)]), &sets(), PAYLOAD_BYTES);
    let mut out = Vec::new();
    for p in &key {
        d.push(p, 10, false, |u| out.push(u));
    }
    assert!(out.is_empty());
    d.push(&slice(0x41, 9, 1), 20, true, |u| out.push(u));
    assert_eq!(out.iter().map(|u| (u.timestamp, u.key)).collect::<Vec<_>>(), [(10, true), (20, false)]);
}

#[test]
fn changed_sets_are_told_once_and_delimiters_and_filler_are_left_out() {
    let mut d = depay();
    let key = slice(0x65, 30, 1);
    let units = push_all(
        &mut d,
        &packetise(
            &frame(&[vec![9, 0x10], SPS.to_vec(), PPS.to_vec(), key.clone(), vec![12, 0xff]]),
            &[],
            PAYLOAD_BYTES,
        ),
        0,
    );
    assert_eq!(units[0].payload, frame(std::slice::from_ref(&key)));
    assert_eq!(units[0].sets, Some((vec![Bytes::from_static(SPS)], vec![Bytes::from_static(PPS)])));
    let other = Bytes::from_static(&[0x67, 0x42, 0xe0, 0x20, 0x8d, 0x68]);
    let units = push_all(&mut d, &packetise(&frame(&[key]), std::slice::from_ref(&other), PAYLOAD_BYTES), 1);
    assert_eq!(units[0].sets.as_ref().map(|(sps, _)| sps.clone()), Some(vec![other]));
}

#[test]
fn a_frame_past_the_limits_is_dropped_and_counted() {
    let big = packetise(&frame(&[slice(0x65, 5000, 1)]), &sets(), PAYLOAD_BYTES);
    for (bytes, packets) in [(4000, 100), (100_000, 3)] {
        let mut d = H264Depay::new(bytes, packets);
        assert_eq!(push_all(&mut d, &big, 0), []);
        assert_eq!(d.drops().too_large, 1);
        assert!(d.needs_key());
    }
}

#[test]
fn ids_of_parameter_sets_are_read() {
    assert_eq!(ue(&[0x80]), Some(0));
    assert_eq!(ue(&[0b0101_1111]), Some(1));
    assert_eq!(ue(&[0b0001_0000]), Some(7));
    assert_eq!(ue(&[0]), None);
    assert_eq!(ue(&[]), None);
}

fn nals() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let nal = (prop_oneof![Just(0x65u8), Just(0x41), Just(0x01), Just(0x06)], 2usize..6000, any::<u8>())
        .prop_map(|(kind, len, fill)| slice(kind, len, fill));
    proptest::collection::vec(nal, 1..6)
}

proptest! {
    #[test]
    fn what_is_packetised_comes_back_bit_exactly(nals in nals(), most in 16usize..1500) {
        let mut with_key = nals;
        with_key.push(slice(0x65, 40, 9));
        let frame = frame(&with_key);
        let payloads = packetise(&frame, &sets(), most);
        prop_assert!(payloads.iter().all(|p| p.len() <= most));
        let units = push_all(&mut depay(), &payloads, 77);
        prop_assert_eq!(units.len(), 1);
        prop_assert_eq!(&units[0].payload, &frame);
        prop_assert_eq!(&units[0].sets, &Some((vec![Bytes::from_static(SPS)], vec![Bytes::from_static(PPS)])));
    }

    /// Any loss, announced as the reorder buffer announces it: what comes out is whole, and after a loss the
    /// first unit out is a key frame.
    #[test]
    fn no_loss_ever_lets_a_damaged_frame_through(
        frames in proptest::collection::vec((any::<bool>(), nals()), 1..12),
        lost in proptest::collection::btree_set(0usize..60, 0..12),
    ) {
        let mut d = depay();
        let mut sent = Vec::new();
        let mut out: Vec<(AccessUnit, bool)> = Vec::new();
        let (mut n, mut dropped, mut broken) = (0, false, true);
        for (t, (key, nals)) in frames.into_iter().enumerate() {
            // A lost SEI alone cannot be told from one that was never sent, so there are none here; and only the
            // first slice of a picture has first_mb_in_slice = 0.
            let fixed: Vec<Vec<u8>> = nals
                .into_iter()
                .enumerate()
                .map(|(i, mut nal)| {
                    nal[0] = if key { 0x65 } else { 0x41 };
                    nal[1] = if i == 0 { nal[1] | 0x80 } else { nal[1] & 0x7f };
                    nal
                })
                .collect();
            let f = frame(&fixed);
            let payloads = packetise(&f, &[], 1000);
            let mut all = if key { packetise(&[], &sets(), 1000) } else { Vec::new() };
            all.extend(payloads);
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
            prop_assert!(unit.key || !after_loss);
        }
    }

    #[test]
    fn garbage_never_panics_and_stays_within_the_limits(
        packets in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..80), 0u32..3, any::<bool>(), any::<bool>()), 0..80),
    ) {
        let mut d = H264Depay::new(300, 10);
        for (payload, timestamp, marker, lost) in packets {
            if lost {
                d.lost();
            }
            d.push(&payload, timestamp, marker, |u| assert!(u.payload.len() <= 300 + 84));
        }
    }
}
