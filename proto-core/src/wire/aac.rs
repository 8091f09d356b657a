//! AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1): what an AAC decoder must know.

/// What an AudioSpecificConfig says, as far as a server needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioSpecificConfig {
    /// Audio object type (table 1.17): 2 is AAC-LC, 5 is announced SBR (HE-AAC), 29 announced PS (HE-AAC v2).
    pub object_type: u8,
    /// Samples a second that a decoder puts out (with announced SBR: the extension's rate).
    pub rate: u32,
    /// Channels; 0 if a program config element inside the stream says them.
    pub channels: u8,
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, n: usize) -> Option<u32> {
        let mut value = 0;
        for _ in 0..n {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    fn object_type(&mut self) -> Option<u8> {
        let short = self.take(5)?;
        let kind = if short == 31 { 32 + self.take(6)? } else { short };
        u8::try_from(kind).ok()
    }

    fn rate(&mut self) -> Option<u32> {
        const RATES: [u32; 13] = [
            96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
            7_350,
        ];
        match self.take(4)? {
            15 => self.take(24),
            i => RATES.get(i as usize).copied(),
        }
    }
}

impl AudioSpecificConfig {
    /// Reads the head of a configuration. `None` if it is cut short or uses a reserved rate or channel layout.
    pub fn parse(buf: &[u8]) -> Option<AudioSpecificConfig> {
        let mut bits = Bits { bytes: buf, at: 0 };
        let object_type = bits.object_type()?;
        let mut rate = bits.rate()?;
        let channels = match bits.take(4)? {
            n @ 0..=6 => n as u8,
            7 => 8,
            11 => 7,
            12 | 14 => 8,
            13 => 24,
            _ => return None,
        };
        if object_type == 5 || object_type == 29 {
            rate = bits.rate()?;
        }
        (object_type != 0 && rate != 0).then_some(AudioSpecificConfig { object_type, rate, channels })
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
