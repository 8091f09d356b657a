//! The head of an H.264 slice header (ITU-T H.264, 7.3.3), and what it needs of the parameter sets: enough to tell in
//! which order pictures are shown.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::bits::Bits;
use super::h264::{NalType, nal_ref_idc};
use super::h264_sps::{SpsInfo, inspect};
use bytes::Bytes;

/// Bytes of a slice that are looked at: five Exp-Golomb numbers of at most 63 bits and two of 16 end within them.
const HEAD: usize = 48;

/// What stands at the start of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceHead {
    /// `first_mb_in_slice`: 0 begins a picture, unless slices come in any order (Baseline).
    pub first_mb: u32,
    /// `slice_type` modulo 5: 0 P, 1 B, 2 I, 3 SP, 4 SI (table 7-6).
    pub kind: u8,
    /// It is of an IDR picture.
    pub idr: bool,
    /// `nal_ref_idc` is not 0: other pictures may refer to this one.
    pub referenced: bool,
    /// `frame_num`: counts the pictures that others may refer to.
    pub frame_num: u32,
    /// `field_pic_flag`: one field of a picture, not all of it.
    pub field: bool,
    /// `bottom_field_flag`.
    pub bottom: bool,
    /// `pic_order_cnt_lsb`, where the order is told so (`pic_order_cnt_type` 0).
    pub order_lsb: Option<u32>,
}

impl SliceHead {
    /// Whether it is a B slice.
    pub fn is_b(&self) -> bool {
        self.kind == 1
    }
}

/// The parameter sets of a track, as far as slice headers need them.
#[derive(Clone, Debug, Default)]
pub struct ParameterSets {
    sps: Vec<SpsInfo>,
    /// `pic_parameter_set_id` and `seq_parameter_set_id` of each picture parameter set.
    pps: Vec<(u32, u32)>,
}

impl ParameterSets {
    /// Reads sets (bare NAL units with header). Those that cannot be read are left out.
    pub fn read(sps: &[Bytes], pps: &[Bytes]) -> ParameterSets {
        ParameterSets {
            sps: sps.iter().filter_map(|nal| inspect(nal)).collect(),
            pps: pps.iter().filter_map(|nal| pps_ids(nal)).collect(),
        }
    }

    /// The sequence parameter sets that could be read.
    pub fn sequences(&self) -> &[SpsInfo] {
        &self.sps
    }

    /// Reads the head of a coded slice with its NAL header. `None` if it is no slice of type 1, 2 or 5, is cut short,
    /// breaks a rule of the standard, or names a set that is not there.
    pub fn slice(&self, nal: &[u8]) -> Option<(SliceHead, &SpsInfo)> {
        let kind = NalType::of(nal);
        if !matches!(kind, NalType::SLICE | NalType(2) | NalType::IDR) {
            return None;
        }
        let (head, len) = unescaped(nal.get(1..)?);
        let mut bits = Bits::new(head.get(..len)?);
        let first_mb = bits.ue()?;
        let slice_type = bits.ue().filter(|t| *t <= 9)?;
        let pps_id = bits.ue()?;
        let (_, sps_id) = self.pps.iter().rfind(|(id, _)| *id == pps_id)?;
        let sps = self.sps.iter().rfind(|s| u32::from(s.id) == *sps_id)?;
        if sps.separate_planes {
            bits.skip(2)?;
        }
        let frame_num = bits.take(usize::from(sps.frame_num_bits))?;
        let field = !sps.frames_only && bits.flag()?;
        let bottom = field && bits.flag()?;
        let idr = kind == NalType::IDR;
        if idr {
            bits.ue()?;
        }
        let order_lsb = match sps.order_bits {
            0 => None,
            n => Some(bits.take(usize::from(n))?),
        };
        let kind = (slice_type % 5) as u8;
        let referenced = nal_ref_idc(nal) != 0;
        Some((SliceHead { first_mb, kind, idr, referenced, frame_num, field, bottom, order_lsb }, sps))
    }
}

/// The first bytes of a NAL unit's payload without the emulation prevention bytes (7.4.1), as many as are looked at. This is
/// done for each picture, so nothing is allocated.
fn unescaped(payload: &[u8]) -> ([u8; HEAD], usize) {
    let (mut head, mut len, mut zeros) = ([0; HEAD], 0, 0);
    for byte in payload {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        let Some(place) = head.get_mut(len) else { break };
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        *place = *byte;
        len += 1;
    }
    (head, len)
}

/// `pic_parameter_set_id` and `seq_parameter_set_id` of a picture parameter set (7.3.2.2).
fn pps_ids(nal: &[u8]) -> Option<(u32, u32)> {
    if NalType::of(nal) != NalType::PPS {
        return None;
    }
    let (head, len) = unescaped(nal.get(1..)?);
    let mut bits = Bits::new(head.get(..len)?);
    Some((bits.ue().filter(|id| *id < 256)?, bits.ue().filter(|id| *id < 32)?))
}

/// `PicOrderCnt` of the pictures of a track (8.2.1.1), for `pic_order_cnt_type` 0. `memory_management_control_operation` 5,
/// which begins the count anew, is not looked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct OrderCount {
    msb: i64,
    lsb: i64,
}

impl OrderCount {
    /// The order count of the next picture in coding order, by the head of its first slice. Counts are compared between
    /// one IDR picture and the next only. `None` if the order is told in another way.
    pub fn next(&mut self, slice: &SliceHead, sps: &SpsInfo) -> Option<i64> {
        let lsb = i64::from(slice.order_lsb?);
        if slice.idr {
            *self = OrderCount::default();
        }
        let most = 1i64 << sps.order_bits;
        let msb = if lsb < self.lsb && self.lsb - lsb >= most / 2 {
            self.msb.saturating_add(most)
        } else if lsb > self.lsb && lsb - self.lsb > most / 2 {
            self.msb.saturating_sub(most)
        } else {
            self.msb
        };
        if slice.referenced {
            *self = OrderCount { msb, lsb };
        }
        Some(msb.saturating_add(lsb))
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::wire::bits::BitWriter;
    use proptest::prelude::*;

    /// x264, High, 640x360; frame_num has 4 bits, order counts have 6.
    const SPS: &[u8] = &[
        0x67, 0x64, 0x00, 0x1e, 0xac, 0xd9, 0x40, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01,
        0x00, 0x00, 0x03, 0x00, 0x32, 0x0f, 0x16, 0x2d, 0x96,
    ];
    const PPS: &[u8] = &[0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0];

    fn sets() -> ParameterSets {
        ParameterSets::read(&[Bytes::from_static(SPS)], &[Bytes::from_static(PPS)])
    }

    fn ue(bits: &mut BitWriter, value: u32) {
        let digits = (value + 1).ilog2() as usize;
        bits.put(digits, 0);
        bits.put(digits + 1, value + 1);
    }

    fn slice(nal: u8, kind: u32, frame_num: u32, lsb: u32) -> Vec<u8> {
        let mut bits = BitWriter::default();
        for value in [0, kind, 0] {
            ue(&mut bits, value);
        }
        bits.put(usize::from(sets().sps[0].frame_num_bits), frame_num);
        if nal & 0x1f == 5 {
            ue(&mut bits, 0);
        }
        bits.put(usize::from(sets().sps[0].order_bits), lsb);
        bits.put(8, 0xff);
        [vec![nal], bits.finish()].concat()
    }

    #[test]
    fn a_slice_is_read_by_its_parameter_sets() {
        let sets = sets();
        let (head, sps) = sets.slice(&slice(0x01, 6, 3, 9)).unwrap();
        assert_eq!((head.frame_num, head.order_lsb, head.is_b(), head.referenced), (3, Some(9), true, false));
        assert!(!head.idr && !head.field && sps.frames_only);
        let (head, _) = sets.slice(&slice(0x65, 7, 0, 0)).unwrap();
        assert!(head.idr && head.referenced && head.kind == 2);
        assert_eq!(ParameterSets::default().slice(&slice(0x01, 6, 3, 9)), None, "no such set");
        assert_eq!(sets.slice(&slice(0x06, 6, 3, 9)), None, "no slice");
    }

    #[test]
    fn order_counts_wrap_and_begin_anew_with_an_idr_picture() {
        let sets = sets();
        let mut order = OrderCount::default();
        let mut count = |nal, kind, lsb| {
            let nal = slice(nal, kind, 0, lsb);
            let (head, sps) = sets.slice(&nal).unwrap();
            order.next(&head, sps).unwrap()
        };
        let most = 1 << sets.sps[0].order_bits;
        assert_eq!(count(0x65, 7, 0), 0);
        assert_eq!(count(0x41, 5, most / 2 - 2), i64::from(most) / 2 - 2);
        assert_eq!(count(0x41, 5, most - 4), i64::from(most) - 4);
        assert_eq!(count(0x41, 5, 2), i64::from(most) + 2, "past the wrap");
        assert_eq!(
            count(0x01, 6, most - 2),
            i64::from(most) - 2,
            "a B picture before the wrap, coded after it"
        );
        assert_eq!(count(0x41, 5, 8), i64::from(most) + 8);
        assert_eq!(count(0x65, 7, 0), 0);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(
            nals in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..6), flip in any::<(u8, u8)>(),
        ) {
            let mut sps = SPS.to_vec();
            let at = usize::from(flip.0) % sps.len();
            sps[at] ^= flip.1;
            let all: Vec<Bytes> = nals.iter().cloned().map(Bytes::from).collect();
            for sets in [sets(), ParameterSets::read(&[sps.into()], &[Bytes::from_static(PPS)]), ParameterSets::read(&all, &all)] {
                let mut order = OrderCount::default();
                for mut nal in nals.clone() {
                    for header in [0x65, 0x41, 0x01] {
                        if let Some(first) = nal.first_mut() { *first = header; }
                        if let Some((head, sps)) = sets.slice(&nal) { order.next(&head, sps); }
                    }
                }
            }
        }

        #[test]
        fn heads_are_unescaped_as_whole_units_are(nal in prop::collection::vec(0u8..5, 0..90)) {
            let (head, len) = unescaped(&nal);
            prop_assert_eq!(&head[..len], &crate::wire::bits::unescape(&nal, HEAD)[..]);
        }

        /// What is written comes back, and each cut of it is refused or read to the same.
        #[test]
        fn slices_round_trip(kind in 0u32..10, idr in any::<bool>(), nums in any::<(u32, u32)>()) {
            let sets = sets();
            let (fb, ob) = (sets.sps[0].frame_num_bits, sets.sps[0].order_bits);
            let (num, lsb) = (nums.0 % (1 << fb), nums.1 % (1 << ob));
            let nal = slice(if idr { 0x65 } else { 0x41 }, kind, num, lsb);
            let (head, _) = sets.slice(&nal).unwrap();
            prop_assert_eq!((head.frame_num, head.order_lsb, u32::from(head.kind), head.idr), (num, Some(lsb), kind % 5, idr));
            for n in 0..nal.len() {
                prop_assert!(sets.slice(&nal[..n]).is_none_or(|(h, _)| h == head));
            }
        }
    }
}
