//! AV1 open bitstream units ("AV1 Bitstream & Decoding Process Specification", sections 5.3 to 5.9), as far as a server
//! asks, and the `AV1CodecConfigurationRecord` ("AV1 Codec ISO Media File Format Binding", 2.3).

use super::bits::Bits;
use bytes::{BufMut, Bytes, BytesMut};

/// `obu_type` (6.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObuType(pub u8);

impl ObuType {
    /// Sequence header.
    pub const SEQUENCE_HEADER: ObuType = ObuType(1);
    /// Temporal delimiter.
    pub const TEMPORAL_DELIMITER: ObuType = ObuType(2);
    /// Frame header.
    pub const FRAME_HEADER: ObuType = ObuType(3);
    /// Tile group.
    pub const TILE_GROUP: ObuType = ObuType(4);
    /// Frame: header and tile group in one.
    pub const FRAME: ObuType = ObuType(6);
    /// A frame header that is sent again.
    pub const REDUNDANT_FRAME_HEADER: ObuType = ObuType(7);
    /// Tile list (not for streams).
    pub const TILE_LIST: ObuType = ObuType(8);
    /// Padding.
    pub const PADDING: ObuType = ObuType(15);

    /// Whether a stream of temporal units can do without it, and RTP must leave it out (AV1 RTP, section 5).
    pub fn is_framing(self) -> bool {
        matches!(self, ObuType::TEMPORAL_DELIMITER | ObuType::TILE_LIST | ObuType::PADDING)
    }
}

/// One unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obu<'a> {
    /// Its type.
    pub kind: ObuType,
    /// Its header, one or two bytes, as it stands there.
    pub header: &'a [u8],
    /// What follows header and size.
    pub payload: &'a [u8],
}

impl<'a> Obu<'a> {
    /// Reads one unit. Without a size field it fills the buffer. Answers with what follows it; `None` if it is cut
    /// short, empty, or has the forbidden bit.
    pub fn parse(buf: &'a [u8]) -> Option<(Obu<'a>, &'a [u8])> {
        let &first = buf.first()?;
        if first & 0x80 != 0 {
            return None;
        }
        let (header, rest) = buf.split_at_checked(1 + usize::from(first & 4 != 0))?;
        let (payload, rest) = if first & 2 != 0 {
            let (len, rest) = leb128(rest)?;
            rest.split_at_checked(len)?
        } else {
            (rest, &[][..])
        };
        Some((Obu { kind: ObuType(first >> 3 & 0xf), header, payload }, rest))
    }

    /// Appends the unit with its size field.
    pub fn put(&self, out: &mut BytesMut) {
        let mut header = self.header.iter();
        if let Some(first) = header.next() {
            out.put_u8(first | 2);
        }
        header.for_each(|b| out.put_u8(*b));
        put_leb128(out, self.payload.len());
        out.put_slice(self.payload);
    }
}

/// The units of a buffer. Yields `Err` once and ends where one is broken.
pub fn obus(buf: &[u8]) -> impl Iterator<Item = Result<Obu<'_>, BadObu>> {
    let mut rest = buf;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match Obu::parse(rest) {
            Some((obu, tail)) => {
                rest = tail;
                Some(Ok(obu))
            }
            None => {
                rest = &[];
                Some(Err(BadObu))
            }
        }
    })
}

/// A unit that is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadObu;

/// `leb128()` (4.10.5): the number and what follows it. `None` above 2^32 - 1 or past 8 bytes.
pub fn leb128(buf: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for (i, byte) in buf.iter().enumerate().take(8) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            let value = u32::try_from(value).ok()?;
            return Some((usize::try_from(value).ok()?, buf.get(i + 1..)?));
        }
    }
    None
}

/// Appends a number in as few bytes as it needs.
pub fn put_leb128(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// What a sequence header says (5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceHeader {
    /// `seq_profile`, 0 to 2.
    pub profile: u8,
    /// `seq_level_idx` of the first operating point.
    pub level: u8,
    /// `seq_tier` of the first operating point.
    pub tier: u8,
    /// The largest width in pixels.
    pub width: u32,
    /// The largest height in pixels.
    pub height: u32,
    /// Frame headers are of the short kind for single pictures.
    pub still: bool,
    /// `high_bitdepth`, `twelve_bit`, `monochrome`, `chroma_subsampling_x` and `_y`, two bits `chroma_sample_position`:
    /// seven bits as they stand in a configuration record.
    pub colour: u8,
}

impl SequenceHeader {
    /// Reads the payload of a sequence header. `None` if it is cut short or breaks a rule.
    pub fn parse(payload: &[u8]) -> Option<SequenceHeader> {
        let mut b = Bits::new(payload);
        let profile = b.take(3).filter(|p| *p <= 2)?;
        b.skip(1)?;
        let still = b.flag()?;
        let (mut level, mut tier) = (0, 0);
        if still {
            level = b.take(5)?;
        } else {
            let (mut decoder_model, mut delay_bits) = (false, 0);
            if b.flag()? {
                // timing_info()
                b.skip(64)?;
                if b.flag()? {
                    uvlc(&mut b)?;
                }
                decoder_model = b.flag()?;
                if decoder_model {
                    delay_bits = b.take(5)? as usize + 1;
                    b.skip(32 + 5 + 5)?;
                }
            }
            let initial_display_delay = b.flag()?;
            for i in 0..=b.take(5)? {
                b.skip(12)?;
                let this_level = b.take(5)?;
                let this_tier = if this_level > 7 { b.take(1)? } else { 0 };
                if i == 0 {
                    (level, tier) = (this_level, this_tier);
                }
                if decoder_model && b.flag()? {
                    b.skip(2 * delay_bits + 1)?;
                }
                if initial_display_delay && b.flag()? {
                    b.skip(4)?;
                }
            }
        }
        let (width_bits, height_bits) = (b.take(4)? as usize + 1, b.take(4)? as usize + 1);
        let (width, height) = (b.take(width_bits)? + 1, b.take(height_bits)? + 1);
        if !still && b.flag()? {
            // delta_frame_id_length_minus_2, additional_frame_id_length_minus_1
            b.skip(7)?;
        }
        b.skip(3)?;
        if !still {
            b.skip(4)?;
            let order_hint = b.flag()?;
            if order_hint {
                b.skip(2)?;
            }
            let choose_screen = b.flag()?;
            let force_screen = if choose_screen { 2 } else { b.take(1)? };
            if force_screen > 0 && !b.flag()? {
                b.skip(1)?;
            }
            if order_hint {
                b.skip(3)?;
            }
        }
        b.skip(3)?;
        let colour = colour(&mut b, profile)?;
        Some(SequenceHeader {
            profile: profile as u8,
            level: level as u8,
            tier: tier as u8,
            width,
            height,
            still,
            colour,
        })
    }
}

/// `uvlc()` (4.10.3).
fn uvlc(b: &mut Bits<'_>) -> Option<()> {
    let mut zeros = 0usize;
    while !b.flag()? {
        zeros += 1;
    }
    if zeros < 32 { b.skip(zeros) } else { Some(()) }
}

/// `color_config()` (5.5.2) in the bits of a configuration record.
fn colour(b: &mut Bits<'_>, profile: u32) -> Option<u8> {
    let high = b.flag()?;
    let twelve = profile == 2 && high && b.flag()?;
    let mono = profile != 1 && b.flag()?;
    let described = if b.flag()? { (b.take(8)?, b.take(8)?, b.take(8)?) } else { (2, 2, 2) };
    let (mut x, mut y, mut position) = (true, true, 0);
    if mono {
        b.skip(1)?;
    } else if described == (1, 13, 0) {
        // sRGB: 4:4:4.
        (x, y) = (false, false);
    } else {
        b.skip(1)?;
        match profile {
            0 => {}
            1 => (x, y) = (false, false),
            _ if twelve => {
                x = b.flag()?;
                y = x && b.flag()?;
            }
            _ => y = false,
        }
        if x && y {
            position = b.take(2)? as u8;
        }
    }
    let bit = |on: bool, n: u8| u8::from(on) << n;
    Some(bit(high, 6) | bit(twelve, 5) | bit(mono, 4) | bit(x, 3) | bit(y, 2) | position)
}

/// What a temporal unit holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnitInfo<'a> {
    /// The payload of its sequence header, if it has one.
    pub sequence_header: Option<&'a [u8]>,
    /// It has a frame.
    pub frame: bool,
    /// Its first frame is a key frame that is shown: a decoder that knows the sequence header can start here.
    pub key: bool,
}

impl UnitInfo<'_> {
    /// Looks through a temporal unit. `None` if a unit in it is broken. `still` is what the sequence header in force says,
    /// for units that carry none.
    pub fn parse(unit: &[u8], still: bool) -> Option<UnitInfo<'_>> {
        let (mut info, mut still) = (UnitInfo::default(), still);
        for obu in obus(unit) {
            let obu = obu.ok()?;
            match obu.kind {
                ObuType::SEQUENCE_HEADER => {
                    info.sequence_header = Some(obu.payload);
                    still = SequenceHeader::parse(obu.payload).is_some_and(|h| h.still);
                }
                ObuType::FRAME | ObuType::FRAME_HEADER if !info.frame => {
                    info.frame = true;
                    // 5.9.2: show_existing_frame, frame_type (KEY_FRAME is 0), show_frame.
                    let mut b = Bits::new(obu.payload);
                    info.key = still || (!b.flag()? && b.take(2)? == 0 && b.flag()?);
                }
                _ => {}
            }
        }
        Some(info)
    }
}

/// The sequence header (whole unit, with size field) of a record's units. `None` if the record is cut short or of
/// another version, or has none.
pub fn parse_config(record: &[u8]) -> Option<Bytes> {
    let (&[marker, ..], units) = record.split_first_chunk::<4>()?;
    if marker != 0x81 {
        return None;
    }
    let header = obus(units).map_while(Result::ok).find(|o| o.kind == ObuType::SEQUENCE_HEADER)?;
    let mut out = BytesMut::new();
    header.put(&mut out);
    Some(out.freeze())
}

/// Writes a record around a sequence header (whole unit, with size field).
pub fn emit_config(sequence_header: &[u8]) -> Bytes {
    let info = Obu::parse(sequence_header).and_then(|(obu, _)| SequenceHeader::parse(obu.payload));
    let mut out = BytesMut::with_capacity(4 + sequence_header.len());
    out.put_u8(0x81);
    out.put_u8(info.map_or(0, |i| i.profile << 5 | i.level));
    out.put_u8(info.map_or(0x0c, |i| i.tier << 7 | i.colour));
    out.put_u8(0);
    out.put_slice(sequence_header);
    out.freeze()
}

#[cfg(test)]
#[path = "av1_tests.rs"]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
