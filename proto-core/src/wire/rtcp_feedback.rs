//! RTCP as a receiver writes it: reports (RFC 3550, 6.4.2; RFC 3611), requests for lost packets and key frames (RFC 4585,
//! RFC 5104), and the rate that it can take (draft-alvestrand-rmcat-remb). Each call appends one packet of a compound one.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::rtcp::header;
use super::rtcp_reports::Block;

const RECEIVER_REPORT: u8 = 201;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;
const EXTENDED_REPORT: u8 = 207;
/// Blocks that the count of a report has room for.
const BLOCKS_MAX: usize = 31;

fn words(out: &mut Vec<u8>, words: impl IntoIterator<Item = u32>) {
    for word in words {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

/// Appends a receiver report with these blocks (31 at most).
pub fn put_receiver_report(out: &mut Vec<u8>, own: u32, blocks: &[Block]) {
    let blocks = blocks.get(..blocks.len().min(BLOCKS_MAX)).unwrap_or_default();
    header(out, blocks.len() as u8, RECEIVER_REPORT, (1 + 6 * blocks.len()) as u16);
    words(out, [own]);
    for b in blocks {
        let lost = u32::from(b.fraction) << 24 | b.lost.min(0x7f_ffff);
        words(out, [b.ssrc, lost, b.highest, b.jitter, b.last_report, b.since_report]);
    }
}

/// Appends a receiver's clock, which the sender answers, so that a receiver knows the round trip (RFC 3611, 4.4). `ntp` is
/// the time as NTP counts.
pub fn put_reference_time(out: &mut Vec<u8>, own: u32, ntp: u64) {
    header(out, 0, EXTENDED_REPORT, 4);
    words(out, [own, 4 << 24 | 2, (ntp >> 32) as u32, ntp as u32]);
}

/// Appends the answer to a receiver's clock (RFC 3611, 4.5): whose, the middle 32 bits of what it told, and how long ago
/// that came in 1/65536 s.
pub fn put_delay(out: &mut Vec<u8>, own: u32, (receiver, last, since): (u32, u32, u32)) {
    header(out, 0, EXTENDED_REPORT, 5);
    words(out, [own, 5 << 24 | 3, receiver, last, since]);
}

/// Appends requests for lost packets of a source (RFC 4585, 6.2.1): as many as there is room for in so many entries of 17
/// numbers at most. The numbers come in order. Answers how many were asked for.
pub fn put_nack(out: &mut Vec<u8>, own: u32, media: u32, lost: &[u16], entries: usize) -> usize {
    let (mut packed, mut asked): (Vec<(u16, u16)>, usize) = (Vec::new(), 0);
    for seq in lost {
        let full = packed.len() == entries;
        match packed.last_mut() {
            Some((first, mask)) if (1..=16).contains(&seq.wrapping_sub(*first)) => {
                *mask |= 1 << (seq.wrapping_sub(*first) - 1);
            }
            _ if full => break,
            _ => packed.push((*seq, 0)),
        }
        asked += 1;
    }
    if asked > 0 {
        header(out, 1, TRANSPORT_FEEDBACK, (2 + packed.len()) as u16);
        words(out, [own, media]);
        words(out, packed.into_iter().map(|(first, mask)| u32::from(first) << 16 | u32::from(mask)));
    }
    asked
}

/// Appends a picture loss indication (RFC 4585, 6.3.1): a key frame of the source is wanted.
pub fn put_picture_loss(out: &mut Vec<u8>, own: u32, media: u32) {
    header(out, 1, PAYLOAD_FEEDBACK, 2);
    words(out, [own, media]);
}

/// Appends a full intra request (RFC 5104, 4.3.1), the `nth` to this source.
pub fn put_full_intra(out: &mut Vec<u8>, own: u32, media: u32, nth: u8) {
    header(out, 4, PAYLOAD_FEEDBACK, 4);
    words(out, [own, 0, media, u32::from(nth) << 24]);
}

/// Appends the rate in bits a second that can be taken of these sources together (REMB; 255 sources at most).
pub fn put_rate(out: &mut Vec<u8>, own: u32, rate: u64, sources: &[u32]) {
    let sources = sources.get(..sources.len().min(255)).unwrap_or_default();
    // 18 bits of mantissa; what is cut off is less than a rate that is too high would be.
    let exponent = (64 - rate.leading_zeros()).saturating_sub(18);
    let mantissa = (rate >> exponent) as u32;
    header(out, 15, PAYLOAD_FEEDBACK, (4 + sources.len()) as u16);
    words(out, [own, 0, u32::from_be_bytes(*b"REMB")]);
    words(out, [(sources.len() as u32) << 24 | exponent << 18 | mantissa]);
    words(out, sources.iter().copied());
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::wire::rtcp::{self, Packet, Report, packets};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// All of it in one compound packet, read by the reader for senders.
        #[test]
        fn what_is_written_is_read(
            own: u32, ssrc: u32, fraction: u8, ntp: u64, nth: u8, last: u32, since: u32,
            lost in proptest::collection::btree_set(0u16..2_000, 1..200), entries in 1usize..40,
        ) {
            let mut out = Vec::new();
            let block = Block { ssrc, fraction, lost: 7, highest: 3, jitter: 4, last_report: 5, since_report: 6 };
            put_receiver_report(&mut out, own, &[block]);
            put_reference_time(&mut out, own, ntp);
            put_delay(&mut out, own, (ssrc, last, since));
            let lost: Vec<u16> = lost.into_iter().collect();
            let asked = put_nack(&mut out, own, ssrc, &lost, entries);
            put_picture_loss(&mut out, own, ssrc);
            put_full_intra(&mut out, own, ssrc, nth);
            put_rate(&mut out, own, 1_000_000, &[ssrc]);
            let read: Vec<_> = packets(&out).map(Result::unwrap).collect();
            let [
                Packet::Reports(r), Packet::Extended { ssrc: said, blocks: time },
                Packet::Extended { blocks: delay, .. }, Packet::Nack { ssrc: of, missing },
                Packet::PictureLoss { ssrc: pli }, Packet::FullIntra(fir), Packet::Rate { bits },
            ] = read[..] else { panic!("{read:?}") };
            let report =
                Report { ssrc, lost: fraction, total_lost: 7, highest: 3, last_sr: 5, since_last_sr: 6 };
            prop_assert_eq!(r.iter().collect::<Vec<_>>(), [report]);
            prop_assert_eq!((said, time.iter().collect::<Vec<_>>()), (own, vec![rtcp::Block::ReferenceTime(ntp)]));
            prop_assert_eq!(delay.iter().collect::<Vec<_>>(), [rtcp::Block::Delay { ssrc, last, since }]);
            prop_assert_eq!((of, missing.iter().collect::<Vec<_>>()), (ssrc, lost[..asked].to_vec()));
            let groups: BTreeSet<u16> = lost.iter().map(|s| s / 17).collect();
            prop_assert!(asked == lost.len() || asked >= entries.min(groups.len()));
            prop_assert_eq!((pli, fir.iter().collect::<Vec<_>>()), (ssrc, vec![ssrc]));
            prop_assert!(bits <= 1_000_000 && bits > 999_000, "{}", bits);
        }

        #[test]
        fn a_rate_is_never_told_higher_than_it_is(rate in 0u64..1 << 40) {
            let mut out = Vec::new();
            put_rate(&mut out, 1, rate, &[9]);
            prop_assert_eq!(&out[12..16], b"REMB");
            let word = u32::from_be_bytes(out[16..20].try_into().unwrap());
            let told = u64::from(word & 0x3_ffff) << (word >> 18 & 0x3f);
            prop_assert!(told <= rate && rate - told <= rate >> 16, "{} of {}", told, rate);
        }
    }
}
