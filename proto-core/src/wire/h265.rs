//! H.265 NAL units and parameter sets (ITU-T H.265, clause 7), as far as a server asks, and the
//! `HEVCDecoderConfigurationRecord` (ISO 14496-15, 8.3.3.1).

use super::bits::{Bits, unescape};
use bytes::{BufMut, Bytes, BytesMut};

/// `nal_unit_type` (table 7-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NalType(pub u8);

impl NalType {
    /// Video parameter set.
    pub const VPS: NalType = NalType(32);
    /// Sequence parameter set.
    pub const SPS: NalType = NalType(33);
    /// Picture parameter set.
    pub const PPS: NalType = NalType(34);
    /// Access unit delimiter.
    pub const AUD: NalType = NalType(35);
    /// Filler data.
    pub const FILLER: NalType = NalType(38);

    /// The type of a NAL unit. One that is too short for its header has type 63 (unspecified).
    pub fn of(nal: &[u8]) -> NalType {
        match nal {
            [first, _, ..] => NalType(first >> 1 & 0x3f),
            _ => NalType(63),
        }
    }

    /// Whether it is a slice segment of a coded picture.
    pub const fn is_slice(self) -> bool {
        self.0 < 32
    }

    /// Whether it belongs to a picture that a decoder can start at: IDR, CRA or BLA (3.69, IRAP).
    pub const fn is_random_access(self) -> bool {
        self.0 >= 16 && self.0 <= 23
    }

    /// Whether no picture of the same temporal layer refers to it (a name that ends in `_N` in table 7-1).
    pub const fn is_sub_layer_non_reference(self) -> bool {
        self.0 < 16 && self.0 & 1 == 0
    }

    /// Whether it says where units or sequences end, or fills up: nothing that a decoder needs in our framing.
    pub const fn is_framing(self) -> bool {
        self.0 >= 35 && self.0 <= 38
    }
}

/// `TemporalId` (7.4.2.2): the temporal layer of a NAL unit.
pub fn temporal_layer(nal: &[u8]) -> u8 {
    nal.get(1).map_or(0, |b| (b & 7).saturating_sub(1))
}

/// `first_slice_segment_in_pic_flag` (7.3.6.1): whether a slice segment begins its picture.
pub fn begins_picture(nal: &[u8]) -> bool {
    NalType::of(nal).is_slice() && nal.get(2).is_some_and(|b| b & 0x80 != 0)
}

/// What a sequence parameter set says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpsInfo {
    /// Width in pixels after cropping.
    pub width: u32,
    /// Height in pixels after cropping.
    pub height: u32,
    /// The twelve bytes of `profile_tier_level` from profile space to level, as they stand in a configuration record.
    pub profile_tier_level: [u8; 12],
    /// Temporal layers, 1 to 7.
    pub temporal_layers: u8,
    /// `sps_temporal_id_nesting_flag`.
    pub nested: bool,
    /// `chroma_format_idc`, 0 to 3.
    pub chroma: u8,
    /// Bits of a luma sample minus 8.
    pub luma_depth: u8,
    /// Bits of a chroma sample minus 8.
    pub chroma_depth: u8,
    /// `sps_max_num_reorder_pics` of the highest layer: pictures that may be coded before another and shown after it.
    pub reorder: u32,
}

/// Longest piece of a parameter set that is looked at: the profiles of seven layers and all numbers before the last
/// one that matters are shorter.
const SPS_HEAD: usize = 512;

impl SpsInfo {
    /// Reads a sequence parameter set with its NAL header. `None` if it is of another NAL type, cut short, or breaks a
    /// rule of the standard.
    pub fn parse(nal: &[u8]) -> Option<SpsInfo> {
        if NalType::of(nal) != NalType::SPS {
            return None;
        }
        let rbsp = unescape(nal.get(2..)?, SPS_HEAD);
        let mut b = Bits::new(&rbsp);
        b.skip(4)?;
        let most_sub_layers = b.take(3)?;
        let nested = b.flag()?;
        if most_sub_layers > 6 {
            return None;
        }
        let profile_tier_level = *rbsp.get(1..13)?.first_chunk::<12>()?;
        b.skip(12 * 8)?;
        // 7.3.3: for each lower layer, whether its profile and its level follow.
        let present: Vec<(bool, bool)> =
            (0..most_sub_layers).map(|_| Some((b.flag()?, b.flag()?))).collect::<Option<_>>()?;
        if most_sub_layers > 0 {
            b.skip(2 * (8 - most_sub_layers as usize))?;
        }
        for (profile, level) in present {
            b.skip(usize::from(profile) * 88 + usize::from(level) * 8)?;
        }
        b.ue()?;
        let chroma = b.ue().filter(|c| *c <= 3)?;
        if chroma == 3 {
            b.skip(1)?;
        }
        let (width, height) = (b.ue()?, b.ue()?);
        let crop = if b.flag()? { [b.ue()?, b.ue()?, b.ue()?, b.ue()?] } else { [0; 4] };
        let luma_depth = b.ue().filter(|d| *d <= 8)?;
        let chroma_depth = b.ue().filter(|d| *d <= 8)?;
        b.ue().filter(|n| *n <= 12)?;
        let all = b.flag()?;
        let mut reorder = 0;
        for _ in if all { 0 } else { most_sub_layers }..=most_sub_layers {
            b.ue()?;
            reorder = b.ue()?;
            b.ue()?;
        }
        // Table 6-1: how many pixels a chroma sample stands for.
        let (unit_x, unit_y) = match chroma {
            1 => (2u32, 2u32),
            2 => (2, 1),
            _ => (1, 1),
        };
        let [left, right, top, bottom] = crop;
        let less = |size: u32, unit: u32, a: u32, b: u32| {
            size.checked_sub(a.checked_add(b)?.checked_mul(unit)?).filter(|n| (1..=0x1_0000).contains(n))
        };
        Some(SpsInfo {
            width: less(width, unit_x, left, right)?,
            height: less(height, unit_y, top, bottom)?,
            profile_tier_level,
            temporal_layers: most_sub_layers as u8 + 1,
            nested,
            chroma: chroma as u8,
            luma_depth: luma_depth as u8,
            chroma_depth: chroma_depth as u8,
            reorder,
        })
    }
}

/// Parameter sets by kind, bare NAL units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HevcConfig {
    /// Bytes of a NAL unit's length field in the samples: 1, 2 or 4.
    pub length_size: usize,
    /// Video parameter sets.
    pub vps: Vec<Bytes>,
    /// Sequence parameter sets.
    pub sps: Vec<Bytes>,
    /// Picture parameter sets.
    pub pps: Vec<Bytes>,
}

/// The most parameter sets of one kind in a record.
const SETS_MAX: usize = 64;

impl HevcConfig {
    /// Parses a record. `None` if it is cut short, has too many sets, or lacks a kind of set.
    pub fn parse(buf: &[u8]) -> Option<HevcConfig> {
        let (head, mut rest) = buf.split_first_chunk::<23>()?;
        let (length, arrays) = (head.get(21)? & 3, *head.get(22)?);
        // Some encoders write version 0.
        let mut config = HevcConfig { length_size: usize::from(length) + 1, ..HevcConfig::default() };
        if *head.first()? > 1 || config.length_size == 3 {
            return None;
        }
        for _ in 0..arrays {
            let (&[kind, c0, c1], tail) = rest.split_first_chunk::<3>()?;
            rest = tail;
            for _ in 0..u16::from_be_bytes([c0, c1]) {
                let (len, tail) = rest.split_first_chunk::<2>()?;
                let (nal, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
                rest = tail;
                let sets = match NalType(kind & 0x3f) {
                    NalType::VPS => &mut config.vps,
                    NalType::SPS => &mut config.sps,
                    NalType::PPS => &mut config.pps,
                    _ => continue,
                };
                if sets.len() >= SETS_MAX {
                    return None;
                }
                sets.push(Bytes::copy_from_slice(nal));
            }
        }
        (!config.sps.is_empty() && !config.pps.is_empty()).then_some(config)
    }

    /// Writes a record with 4-byte lengths. What it says of the stream is taken from the first sequence parameter set
    /// that can be read; zeros where there is none.
    pub fn emit(vps: &[Bytes], sps: &[Bytes], pps: &[Bytes]) -> Bytes {
        let info = sps.iter().find_map(|s| SpsInfo::parse(s));
        let mut out = BytesMut::new();
        out.put_u8(1);
        out.put_slice(&info.map_or([0; 12], |i| i.profile_tier_level));
        out.put_u16(0xf000);
        out.put_u8(0xfc);
        out.put_u8(0xfc | info.map_or(1, |i| i.chroma));
        out.put_u8(0xf8 | info.map_or(0, |i| i.luma_depth & 7));
        out.put_u8(0xf8 | info.map_or(0, |i| i.chroma_depth & 7));
        out.put_u16(0);
        let layers = info.map_or(1, |i| i.temporal_layers);
        out.put_u8(layers << 3 | u8::from(info.is_some_and(|i| i.nested)) << 2 | 3);
        let arrays = [(NalType::VPS, vps), (NalType::SPS, sps), (NalType::PPS, pps)];
        out.put_u8(arrays.iter().filter(|(_, sets)| !sets.is_empty()).count() as u8);
        for (kind, sets) in arrays.into_iter().filter(|(_, sets)| !sets.is_empty()) {
            out.put_u8(0x80 | kind.0);
            out.put_u16(sets.len().min(SETS_MAX) as u16);
            for set in sets.iter().take(SETS_MAX) {
                out.put_u16(set.len() as u16);
                out.put_slice(set);
            }
        }
        out.freeze()
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::wire::bits::BitWriter;
    use proptest::prelude::*;

    /// x265, Main, level 2.1, 640x360, 4:2:0, two reordered pictures.
    const SPS: &[u8] = &[
        0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00,
        0x3f, 0xa0, 0x05, 0x02, 0x01, 0x69, 0x65, 0x95, 0x9a, 0x49, 0x32, 0xbc, 0x05, 0xa0, 0x20, 0x00, 0x00,
        0x03, 0x00, 0x20, 0x00, 0x00, 0x03, 0x03, 0x21,
    ];

    #[test]
    fn the_set_of_an_encoder_is_read() {
        let info = SpsInfo::parse(SPS).unwrap();
        assert_eq!((info.width, info.height), (640, 360));
        assert_eq!((info.temporal_layers, info.chroma, info.luma_depth), (1, 1, 0));
        assert_eq!(info.profile_tier_level[11], 63);
        assert_eq!(SpsInfo::parse(&SPS[..12]), None);
        assert_eq!(SpsInfo::parse(&[]), None);
    }

    #[test]
    fn a_record_round_trips_and_says_what_the_set_says() {
        let set = |kind: u8| vec![Bytes::from(vec![kind << 1, 1, 7])];
        let sps = vec![Bytes::from_static(SPS)];
        let record = HevcConfig::emit(&set(32), &sps, &set(34));
        let read = HevcConfig::parse(&record).unwrap();
        assert_eq!(read, HevcConfig { length_size: 4, vps: set(32), sps, pps: set(34) });
        assert_eq!((record[12], record[16] & 3, record[21] & 7), (63, 1, 7));
        assert!((0..record.len()).all(|n| HevcConfig::parse(&record[..n]).is_none()));
    }

    #[test]
    fn kinds_are_told_apart() {
        assert!(
            NalType::of(&[19 << 1, 1]).is_random_access() && NalType::of(&[21 << 1, 1]).is_random_access()
        );
        assert!(!NalType::of(&[1 << 1, 1]).is_random_access());
        assert!(NalType(0).is_sub_layer_non_reference() && !NalType(1).is_sub_layer_non_reference());
        assert_eq!(NalType::of(&[0x26]), NalType(63));
        assert_eq!((temporal_layer(&[2, 3]), temporal_layer(&[2])), (2, 0));
        assert!(
            begins_picture(&[2, 1, 0x80])
                && !begins_picture(&[2, 1, 0x7f])
                && !begins_picture(&[64, 1, 0xff])
        );
    }

    fn ue(w: &mut BitWriter, value: u32) {
        let bits = 32 - (value + 1).leading_zeros() as usize;
        w.put(bits - 1, 0);
        w.put(bits, value + 1);
    }

    proptest! {
        #[test]
        fn written_sizes_are_read(
            layers in 0u32..=6, w in 1u32..8192, h in 1u32..8192, crop in 0u32..3, chroma in 0u32..=3, all: bool,
        ) {
            let mut b = BitWriter::default();
            b.put(4, 0);
            b.put(3, layers);
            b.put(1, 1);
            for n in 0..12 { b.put(8, 0x40 + n); }
            for _ in 0..layers { b.put(2, 3); }
            if layers > 0 { b.put(2 * (8 - layers as usize), 0); }
            for _ in 0..layers * 12 { b.put(8, 0xaa); }
            ue(&mut b, 0);
            ue(&mut b, chroma);
            if chroma == 3 { b.put(1, 0); }
            ue(&mut b, w + 16);
            ue(&mut b, h + 16);
            b.put(1, 1);
            for n in [0, crop, 0, crop] { ue(&mut b, n); }
            for n in [2, 2, 4] { ue(&mut b, n); }
            b.put(1, u32::from(all));
            for _ in 0..if all { layers + 1 } else { 1 } { for n in [3, 2, 0] { ue(&mut b, n); } }
            let mut nal = vec![0x42, 1];
            let mut zeros = 0;
            for byte in b.finish() {
                if zeros >= 2 && byte <= 3 { nal.push(3); zeros = 0; }
                zeros = if byte == 0 { zeros + 1 } else { 0 };
                nal.push(byte);
            }
            nal.push(0x80);
            let info = SpsInfo::parse(&nal).unwrap();
            let (x, y) = [(1, 1), (2, 2), (2, 1), (1, 1)][chroma as usize];
            prop_assert_eq!((info.width, info.height), (w + 16 - crop * x, h + 16 - crop * y));
            prop_assert_eq!((info.luma_depth, info.reorder), (2, 2));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = (SpsInfo::parse(&bytes), HevcConfig::parse(&bytes));
            let _ = SpsInfo::parse(&[&[0x42, 1], &bytes[..]].concat());
        }
    }
}
