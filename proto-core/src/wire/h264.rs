//! H.264 NAL units (ITU-T H.264 clause 7) in the length-prefixed form that the media model keeps, and the
//! `AVCDecoderConfigurationRecord` (ISO 14496-15, 5.2.4.1).

use bytes::{BufMut, Bytes, BytesMut};

/// `nal_unit_type` (table 7-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NalType(pub u8);

impl NalType {
    /// Coded slice of a picture that is no IDR picture.
    pub const SLICE: NalType = NalType(1);
    /// Coded slice of an IDR picture.
    pub const IDR: NalType = NalType(5);
    /// Supplemental enhancement information.
    pub const SEI: NalType = NalType(6);
    /// Sequence parameter set.
    pub const SPS: NalType = NalType(7);
    /// Picture parameter set.
    pub const PPS: NalType = NalType(8);
    /// Access unit delimiter.
    pub const AUD: NalType = NalType(9);
    /// Filler data.
    pub const FILLER: NalType = NalType(12);

    /// The type of a NAL unit, from its first byte. An empty unit has type 0 (unspecified).
    pub fn of(nal: &[u8]) -> NalType {
        NalType(nal.first().map_or(0, |b| b & 0x1f))
    }
}

/// `nal_ref_idc` of a NAL unit: 0 says that no other picture refers to it.
pub fn nal_ref_idc(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |b| (b >> 5) & 3)
}

/// The NAL units of a buffer in which each is preceded by its length in `length_size` bytes (1, 2 or 4).
///
/// Yields `Err` once and ends if a length passes the end of the buffer.
pub fn length_prefixed(buf: &[u8], length_size: usize) -> impl Iterator<Item = Result<&[u8], BadNalLength>> {
    let mut rest = buf;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((head, tail)) = rest.split_at_checked(length_size) else {
            rest = &[];
            return Some(Err(BadNalLength));
        };
        let len = head.iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
        let Some((nal, tail)) = tail.split_at_checked(len) else {
            rest = &[];
            return Some(Err(BadNalLength));
        };
        rest = tail;
        Some(Ok(nal))
    })
}

/// A NAL unit's length passes the end of its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadNalLength;

/// The NAL units of an Annex B byte stream (3- or 4-byte start codes); empty units are left out.
pub fn annex_b(buf: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = match find_start_code(buf) {
        Some((_, after)) => buf.get(after..).unwrap_or_default(),
        None => &[],
    };
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (nal, next) = match find_start_code(rest) {
                Some((at, after)) => {
                    (rest.get(..at).unwrap_or_default(), rest.get(after..).unwrap_or_default())
                }
                None => (rest, &[][..]),
            };
            rest = next;
            // trailing_zero_8bits belong to no NAL unit (B.1.1).
            let end = nal.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
            if end > 0 {
                return nal.get(..end);
            }
        }
        None
    })
}

fn find_start_code(buf: &[u8]) -> Option<(usize, usize)> {
    let at = buf.windows(3).position(|w| w == [0, 0, 1])?;
    Some((at, at + 3))
}

/// Appends one NAL unit with its 4-byte length.
pub fn put_nal(out: &mut BytesMut, nal: &[u8]) {
    out.put_u32(nal.len() as u32);
    out.put_slice(nal);
}

fn take_sets(rest: &mut &[u8], count: u8) -> Option<Vec<Bytes>> {
    (0..count)
        .map(|_| {
            let (len, tail) = rest.split_first_chunk::<2>()?;
            let (nal, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
            *rest = tail;
            Some(Bytes::copy_from_slice(nal))
        })
        .collect()
}

/// What an `AVCDecoderConfigurationRecord` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvcConfig {
    /// Bytes of a NAL unit's length field in the samples: 1, 2 or 4.
    pub length_size: usize,
    /// Sequence parameter sets, bare.
    pub sps: Vec<Bytes>,
    /// Picture parameter sets, bare.
    pub pps: Vec<Bytes>,
}

impl AvcConfig {
    /// Parses the record. `None` if it is cut short, of another version, or has no parameter sets.
    pub fn parse(buf: &[u8]) -> Option<AvcConfig> {
        let (&[version, _profile, _compat, _level, length, count], mut rest) =
            buf.split_first_chunk::<6>()?;
        let length_size = usize::from(length & 3) + 1;
        if version != 1 || length_size == 3 {
            return None;
        }
        let sps = take_sets(&mut rest, count & 0x1f)?;
        let (&pps_count, tail) = rest.split_first()?;
        rest = tail;
        let pps = take_sets(&mut rest, pps_count)?;
        let whole = !sps.is_empty() && !pps.is_empty() && sps.iter().all(|s| s.len() >= 4);
        whole.then_some(AvcConfig { length_size, sps, pps })
    }

    /// Writes the record with 4-byte lengths. Profile and level are those of the first SPS.
    pub fn emit(sps: &[Bytes], pps: &[Bytes]) -> Bytes {
        let mut out = BytesMut::new();
        let profile = sps.first().and_then(|s| s.get(1..4)).unwrap_or(&[66, 0, 30]);
        out.put_u8(1);
        out.put_slice(profile);
        out.put_u8(0xfc | 3);
        out.put_u8(0xe0 | (sps.len() as u8 & 0x1f));
        for s in sps.iter().take(31) {
            out.put_u16(s.len() as u16);
            out.put_slice(s);
        }
        out.put_u8(pps.len().min(255) as u8);
        for p in pps.iter().take(255) {
            out.put_u16(p.len() as u16);
            out.put_slice(p);
        }
        out.freeze()
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn annex_b_splits_at_both_start_codes_and_drops_trailing_zeros() {
        let nals: Vec<&[u8]> =
            annex_b(&[0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 2, 0, 0, 0, 1, 0x65, 3]).collect();
        assert_eq!(nals, [&[0x67, 1][..], &[0x68, 2], &[0x65, 3]]);
    }

    #[test]
    fn a_length_past_the_end_is_an_error_once() {
        let units: Vec<_> = length_prefixed(&[0, 0, 0, 1, 9, 0, 0, 0, 9, 1], 4).collect();
        assert_eq!(units, [Ok(&[9][..]), Err(BadNalLength)]);
    }

    #[test]
    fn the_avc_record_round_trips_and_every_cut_is_refused() {
        let sps = vec![Bytes::from_static(&[0x67, 0x42, 0xc0, 0x1f, 9])];
        let pps = vec![Bytes::from_static(&[0x68, 0xce])];
        let record = AvcConfig::emit(&sps, &pps);
        assert_eq!(AvcConfig::parse(&record), Some(AvcConfig { length_size: 4, sps, pps }));
        assert!((0..record.len()).all(|n| AvcConfig::parse(&record[..n]).is_none()));
    }
}
