//! LATM (ISO/IEC 14496-3, 1.7.3), as RTP carries it (RFC 6416): `StreamMuxConfig` with one program of one layer.

use super::aac::AudioSpecificConfig;
use super::bits::{BitWriter, Bits};
use bytes::Bytes;

/// What a `StreamMuxConfig` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MuxConfig {
    /// The AudioSpecificConfig, from its own first bit on.
    pub asc: Bytes,
    /// Access units of one AudioMuxElement.
    pub sub_frames: usize,
    /// Bits of other data at the end of each element.
    pub other_data_bits: usize,
}

impl MuxConfig {
    /// Reads a configuration of `audioMuxVersion` 0. `None` if its AudioSpecificConfig is cut short, if it is of the other
    /// version, has several programs or layers, or frames of another kind than with a length each. What is missing after
    /// the AudioSpecificConfig counts as zero: GStreamer ends there.
    pub fn parse(config: &[u8]) -> Option<MuxConfig> {
        MuxConfig::read(&mut Bits::new(config))
    }

    /// Reads a configuration that begins at the next bit.
    pub fn read(bits: &mut Bits<'_>) -> Option<MuxConfig> {
        // audioMuxVersion, allStreamsSameTimeFraming
        if bits.flag()? || !bits.flag()? {
            return None;
        }
        let sub_frames = bits.take(6)? as usize + 1;
        // numProgram, numLayer
        if bits.take(4)? != 0 || bits.take(3)? != 0 {
            return None;
        }
        let length = AudioSpecificConfig::read(&mut bits.clone())?.bits?;
        let length = length + extension(bits.clone(), length);
        let mut asc = BitWriter::default();
        for _ in 0..length {
            asc.put(1, bits.take(1)?);
        }
        // frameLengthType, latmBufferFullness
        if bits.take(3).unwrap_or(0) != 0 {
            return None;
        }
        let _ = bits.skip(8.min(bits.left()));
        let mut other_data_bits = 0usize;
        if bits.flag().unwrap_or(false) {
            loop {
                let more = bits.flag()?;
                other_data_bits = other_data_bits << 8 | bits.take(8)? as usize;
                if other_data_bits > 1 << 20 {
                    return None;
                }
                if !more {
                    break;
                }
            }
        }
        if bits.flag().unwrap_or(false) {
            bits.skip(8)?;
        }
        Some(MuxConfig { asc: asc.finish().into(), sub_frames, other_data_bits })
    }

    /// Writes a configuration for one access unit an element. `None` if the AudioSpecificConfig cannot be read to its end.
    pub fn emit(asc: &[u8]) -> Option<Bytes> {
        let length = AudioSpecificConfig::parse(asc)?.bits?;
        let mut out = BitWriter::default();
        // Version 0, same framing, one sub-frame, one program, one layer.
        out.put(15, 0b01 << 13);
        let mut from = Bits::new(asc);
        for _ in 0..length {
            out.put(1, from.take(1)?);
        }
        out.put(3, 0);
        // Buffer fullness "variable rate"; neither other data nor a check.
        out.put(8, 0xff);
        out.put(2, 0);
        Some(out.finish().into())
    }
}

/// Bits of the extension behind an AudioSpecificConfig of so many bits, which tells old decoders nothing and new ones of
/// spectral band replication (1.6.5.3, table 1.15). 0: there is none. Its sync word is no beginning of anything else here.
fn extension(mut bits: Bits<'_>, length: usize) -> usize {
    let mut read = || {
        bits.skip(length)?;
        let start = bits.position();
        if bits.take(11)? != 0x2b7 || bits.take(5)? != 5 {
            return None;
        }
        if bits.flag()? && bits.take(4)? == 15 {
            bits.skip(24)?;
        }
        let end = bits.position();
        let parametric = bits.take(11) == Some(0x548);
        Some(end - start + if parametric { 12 } else { 0 })
    };
    read().unwrap_or(0)
}

/// `PayloadLengthInfo` (table 1.44): bytes of 255 and one below. `None` past the end.
pub fn payload_length(bits: &mut Bits<'_>) -> Option<usize> {
    let mut length = 0usize;
    loop {
        let byte = bits.take(8)? as usize;
        length = length.checked_add(byte)?;
        if byte < 255 {
            return Some(length);
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_configuration_round_trips() {
        for asc in [&[0x12, 0x10][..], &[0x11, 0x90], &[0x2b, 0x11, 0x88, 0x00]] {
            let config = MuxConfig::emit(asc).unwrap();
            let read = MuxConfig::parse(&config).unwrap();
            assert_eq!((&read.asc[..], read.sub_frames, read.other_data_bits), (asc, 1, 0));
        }
        // As ffmpeg and GStreamer write it for AAC-LC of 44.1 kHz in stereo.
        assert_eq!(MuxConfig::parse(&[0x40, 0x00, 0x24, 0x20, 0x3f, 0xc0]).unwrap().asc[..], [0x12, 0x10]);
        // As GStreamer 1.22 writes it for a stream of ffmpeg's encoder: it has an extension, and no end.
        let cut = MuxConfig::parse(&[0x40, 0x00, 0x23, 0x20, 0xad, 0xca, 0x00]).unwrap();
        assert_eq!(
            (&cut.asc[..], cut.sub_frames, cut.other_data_bits),
            (&[0x11, 0x90, 0x56, 0xe5, 0][..], 1, 0)
        );
        assert_eq!(MuxConfig::emit(&[0x12, 0x10]).unwrap()[..], [0x40, 0x00, 0x24, 0x20, 0x3f, 0xc0]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            let _ = MuxConfig::parse(&bytes);
            let _ = MuxConfig::emit(&bytes);
            let _ = payload_length(&mut Bits::new(&bytes));
        }
    }
}
