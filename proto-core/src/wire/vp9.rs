//! VP9 uncompressed headers ("VP9 Bitstream & Decoding Process Specification" 0.6, section 6.2), as far as a server
//! asks, and the `VPCodecConfigurationRecord` ("VP Codec ISO Media File Format Binding" 1.0).

use super::bits::Bits;
use bytes::{BufMut, Bytes, BytesMut};

/// The coding of a track's samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Vp9Format {
    /// 0 to 3.
    pub profile: u8,
    /// Bits of a sample: 8, 10 or 12.
    pub depth: u8,
    /// As the record counts it: 1 is 4:2:0, 2 is 4:2:2, 3 is 4:4:4.
    pub subsampling: u8,
    /// Samples use the full range.
    pub full_range: bool,
}

/// What the first bytes of a frame say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vp9Frame {
    /// A key frame.
    Key {
        /// Its coding.
        format: Vp9Format,
        /// Width and height in pixels.
        size: (u32, u32),
    },
    /// A frame that refers to others, or that shows one of them again.
    Inter,
}

impl Vp9Frame {
    /// Reads a frame (of a superframe: its first). `None` if it is cut short or breaks a rule.
    pub fn parse(frame: &[u8]) -> Option<Vp9Frame> {
        let mut b = Bits::new(frame);
        if b.take(2)? != 2 {
            return None;
        }
        let (low, high) = (b.take(1)?, b.take(1)?);
        let profile = high << 1 | low;
        if profile == 3 && b.flag()? {
            return None;
        }
        // show_existing_frame, frame_type
        if b.flag()? || b.flag()? {
            return Some(Vp9Frame::Inter);
        }
        b.skip(2)?;
        if b.take(24)? != 0x49_83_42 {
            return None;
        }
        let depth = match profile {
            0 | 1 => 8,
            _ if b.flag()? => 12,
            _ => 10,
        };
        // CS_RGB is 7.
        let (full_range, subsampling) = if b.take(3)? != 7 {
            let full = b.flag()?;
            let kind = if profile & 1 == 1 {
                let (x, y) = (b.flag()?, b.flag()?);
                b.skip(1)?;
                if x && y {
                    return None;
                }
                if x { 2 } else { 3 }
            } else {
                1
            };
            (full, kind)
        } else {
            if profile & 1 == 0 {
                return None;
            }
            b.skip(1)?;
            (true, 3)
        };
        let size = (b.take(16)? + 1, b.take(16)? + 1);
        let format = Vp9Format { profile: profile as u8, depth, subsampling, full_range };
        Some(Vp9Frame::Key { format, size })
    }
}

/// Reads a record (the box's content after its version and flags, or with them). `None` if it is cut short.
pub fn parse_config(buf: &[u8]) -> Option<Vp9Format> {
    // A full box: version 1, flags 0. A record of profile 1 would have a level there, never 0.
    let rest = buf.strip_prefix(&[1, 0, 0, 0]).unwrap_or(buf);
    let (&[profile, _level, packed], _) = rest.split_first_chunk::<3>()?;
    let subsampling = match packed >> 1 & 7 {
        0 | 1 => 1,
        n => n,
    };
    (profile <= 3 && subsampling <= 3).then_some(Vp9Format {
        profile,
        depth: packed >> 4,
        subsampling,
        full_range: packed & 1 == 1,
    })
}

/// Writes a record with version and flags. The level is the lowest that has room for the picture's size (annex A), and
/// colours are "unspecified" (2).
pub fn emit_config(format: Vp9Format, size: Option<(u32, u32)>) -> Bytes {
    const LEVELS: [(u64, u8); 9] = [
        (36_864, 10),
        (73_728, 11),
        (122_880, 20),
        (245_760, 21),
        (552_960, 30),
        (983_040, 31),
        (2_228_224, 40),
        (8_912_896, 50),
        (35_651_584, 60),
    ];
    let pixels = size.map_or(0, |(w, h)| u64::from(w) * u64::from(h));
    let level = LEVELS.iter().find(|(most, _)| pixels <= *most).map_or(62, |(_, level)| *level);
    let mut out = BytesMut::with_capacity(12);
    out.put_slice(&[1, 0, 0, 0, format.profile, level]);
    out.put_u8(format.depth << 4 | format.subsampling << 1 | u8::from(format.full_range));
    out.put_slice(&[2, 2, 2, 0, 0]);
    out.freeze()
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::wire::bits::BitWriter;
    use proptest::prelude::*;

    #[test]
    fn frames_are_told_apart() {
        // libvpx, profile 0, 640x360.
        let key = [0x82, 0x49, 0x83, 0x42, 0x00, 0x27, 0xf0, 0x16, 0x70, 0x00];
        let Some(Vp9Frame::Key { format, size }) = Vp9Frame::parse(&key) else { panic!() };
        assert_eq!(size, (640, 360));
        assert_eq!(format, Vp9Format { profile: 0, depth: 8, subsampling: 1, full_range: false });
        assert_eq!(Vp9Frame::parse(&[0x86, 0]), Some(Vp9Frame::Inter));
        assert_eq!(Vp9Frame::parse(&[0x88, 0]), Some(Vp9Frame::Inter), "shows one again");
        assert_eq!(Vp9Frame::parse(&[0x42, 0]), None);
        assert!((0..8).all(|n| Vp9Frame::parse(&key[..n]).is_none()));
    }

    proptest! {
        #[test]
        fn written_headers_are_read(profile in 0u8..4, deep: bool, rgb: bool, full: bool, w in 1u32..=65_536, h in 1u32..=65_536) {
            let rgb = rgb && profile & 1 == 1;
            let mut b = BitWriter::default();
            b.put(2, 2);
            b.put(1, u32::from(profile) & 1);
            b.put(1, u32::from(profile) >> 1);
            if profile == 3 { b.put(1, 0); }
            b.put(4, 2);
            b.put(24, 0x49_83_42);
            if profile >= 2 { b.put(1, u32::from(deep)); }
            b.put(3, if rgb { 7 } else { 1 });
            if rgb { b.put(1, 0); } else {
                b.put(1, u32::from(full));
                if profile & 1 == 1 { b.put(3, 0); }
            }
            b.put(16, w - 1);
            b.put(16, h - 1);
            let Some(Vp9Frame::Key { format, size }) = Vp9Frame::parse(&b.finish()) else { panic!() };
            prop_assert_eq!(size, (w, h));
            prop_assert_eq!(format.full_range, full || rgb);
            prop_assert_eq!(format.depth, if profile < 2 { 8 } else if deep { 12 } else { 10 });
            prop_assert_eq!(parse_config(&emit_config(format, Some(size))), Some(format));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            let _ = (Vp9Frame::parse(&bytes), parse_config(&bytes));
        }
    }
}
