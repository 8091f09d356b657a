//! AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1): what an AAC decoder must know.

use super::bits::Bits;

/// What an AudioSpecificConfig says, as far as a server needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioSpecificConfig {
    /// Audio object type (table 1.17): 2 is AAC-LC, 5 is announced SBR (HE-AAC), 29 announced PS (HE-AAC v2).
    pub object_type: u8,
    /// Samples a second that a decoder puts out (with announced SBR: the extension's rate).
    pub rate: u32,
    /// Channels; 0 if a program config element inside the stream says them.
    pub channels: u8,
    /// Samples a second of the core coder: `rate`, or half of it where SBR is announced.
    pub core_rate: u32,
    /// Samples of one channel in an access unit, at the core's rate.
    pub frame_samples: u32,
    /// How many bits of the buffer the configuration takes up, where that could be told (it cannot where a program config
    /// element follows, or with object types of other families).
    pub bits: Option<usize>,
}

fn object_type(bits: &mut Bits<'_>) -> Option<u8> {
    let short = bits.take(5)?;
    let kind = if short == 31 { 32 + bits.take(6)? } else { short };
    u8::try_from(kind).ok()
}

fn rate(bits: &mut Bits<'_>) -> Option<u32> {
    const RATES: [u32; 13] = [
        96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
    ];
    match bits.take(4)? {
        15 => bits.take(24),
        i => RATES.get(i as usize).copied(),
    }
}

impl AudioSpecificConfig {
    /// Reads the head of a configuration. `None` if it is cut short or uses a reserved rate or channel layout.
    pub fn parse(buf: &[u8]) -> Option<AudioSpecificConfig> {
        AudioSpecificConfig::read(&mut Bits::new(buf))
    }

    /// Reads a configuration that begins at the next bit.
    pub fn read(bits: &mut Bits<'_>) -> Option<AudioSpecificConfig> {
        let start = bits.position();
        let object_type = object_type(bits)?;
        let core_rate = rate(bits)?;
        let layout = bits.take(4)?;
        let channels = match layout {
            n @ 0..=6 => n as u8,
            7 => 8,
            11 => 7,
            12 | 14 => 8,
            13 => 24,
            _ => return None,
        };
        let (mut rate_out, mut core_type) = (core_rate, object_type);
        if object_type == 5 || object_type == 29 {
            rate_out = rate(bits)?;
            core_type = self::object_type(bits).unwrap_or(2);
        }
        let mut config = AudioSpecificConfig {
            object_type,
            rate: rate_out,
            channels,
            core_rate,
            frame_samples: 1_024,
            bits: None,
        };
        // GASpecificConfig (4.4.1).
        if matches!(core_type, 1..=4 | 6 | 7)
            && let Some(short) = bits.flag()
        {
            if short {
                config.frame_samples = 960;
            }
            let depends = bits.flag();
            let rest = match depends {
                Some(true) => bits.skip(14).and_then(|()| bits.flag()),
                _ => bits.flag(),
            };
            if layout != 0 && core_type != 6 && rest == Some(false) {
                config.bits = Some(bits.position() - start);
            }
        }
        (object_type != 0 && rate_out != 0 && core_rate != 0).then_some(config)
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(bytes: &[u8]) -> Option<(u8, u32, u8)> {
        AudioSpecificConfig::parse(bytes).map(|a| (a.object_type, a.rate, a.channels))
    }

    #[test]
    fn common_configurations_are_read() {
        assert_eq!(parsed(&[0x12, 0x10]), Some((2, 44_100, 2)));
        assert_eq!(parsed(&[0x11, 0x90]), Some((2, 48_000, 2)));
        assert_eq!(parsed(&[0x14, 0x08]), Some((2, 16_000, 1)));
        // HE-AAC at 24 kHz with SBR announced at 48 kHz.
        assert_eq!(parsed(&[0x2b, 0x11, 0x88, 0x00]), Some((5, 48_000, 2)));
        // An explicit rate of 44,100 in 24 bits.
        assert_eq!(parsed(&[0x17, 0x80, 0x56, 0x22, 0x10]), Some((2, 44_100, 2)));
    }

    #[test]
    fn length_and_frame_length_are_told() {
        let lc = AudioSpecificConfig::parse(&[0x12, 0x10]).unwrap();
        assert_eq!((lc.bits, lc.frame_samples, lc.core_rate), (Some(16), 1_024, 44_100));
        assert_eq!(AudioSpecificConfig::parse(&[0x12, 0x14]).unwrap().frame_samples, 960);
        let he = AudioSpecificConfig::parse(&[0x2b, 0x11, 0x88, 0x00]).unwrap();
        assert_eq!((he.bits, he.core_rate), (Some(25), 24_000));
    }

    #[test]
    fn cut_or_reserved_ones_are_not() {
        assert_eq!(parsed(&[]), None);
        assert_eq!(parsed(&[0x12]), None);
        assert_eq!(parsed(&[0x17, 0x80]), None);
        assert_eq!(parsed(&[0x16, 0x90]), None);
        assert_eq!(parsed(&[0, 0]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let _ = AudioSpecificConfig::parse(&bytes);
        }
    }
}
