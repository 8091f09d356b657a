//! MPEG audio frame headers (ISO 11172-3, 2.4.1.3; ISO 13818-3), layers I to III of MPEG-1, MPEG-2 and MPEG-2.5.

/// What a frame's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mp3Header {
    /// 1, 2 or 3. MP3 is layer 3.
    pub layer: u8,
    /// Samples a second.
    pub rate: u32,
    /// 1 or 2.
    pub channels: u8,
    /// Bytes of the whole frame, header included.
    pub bytes: usize,
    /// Samples of one channel.
    pub samples: u32,
}

impl Mp3Header {
    /// Reads the four bytes of a header. `None` if they are none, or of a free or reserved kind.
    pub fn parse(frame: &[u8]) -> Option<Mp3Header> {
        const RATES: [u32; 3] = [44_100, 48_000, 32_000];
        const V1L1: [u32; 15] = [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448];
        const V1L2: [u32; 15] = [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384];
        const V1L3: [u32; 15] = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
        const V2L1: [u32; 15] = [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256];
        const V2L23: [u32; 15] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
        let &[0xff, b1, b2, b3] = frame.first_chunk::<4>()? else { return None };
        // Version: 0 is MPEG-2.5, 2 is MPEG-2, 3 is MPEG-1.
        let (version, layer) = (b1 >> 3 & 3, 4 - (b1 >> 1 & 3));
        if b1 & 0xe0 != 0xe0 || version == 1 || layer == 4 {
            return None;
        }
        let first = version == 3;
        let table = match (first, layer) {
            (true, 1) => &V1L1,
            (true, 2) => &V1L2,
            (true, _) => &V1L3,
            (false, 1) => &V2L1,
            (false, _) => &V2L23,
        };
        let bits = table.get(usize::from(b2 >> 4)).copied().filter(|b| *b > 0)? * 1_000;
        let rate =
            RATES.get(usize::from(b2 >> 2 & 3))? >> (if first { 0 } else { 1 + u32::from(version == 0) });
        let padding = u32::from(b2 >> 1 & 1);
        let (samples, bytes) = match (layer, first) {
            (1, _) => (384, (12 * bits / rate + padding) * 4),
            (3, false) => (576, 72 * bits / rate + padding),
            _ => (1_152, 144 * bits / rate + padding),
        };
        let channels = if b3 >> 6 == 3 { 1 } else { 2 };
        Some(Mp3Header { layer, rate, channels, bytes: bytes as usize, samples })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn common_headers_are_read() {
        let of = |b: [u8; 4]| Mp3Header::parse(&b);
        let usual = Mp3Header { layer: 3, rate: 44_100, channels: 2, bytes: 417, samples: 1_152 };
        assert_eq!(of([0xff, 0xfb, 0x90, 0x00]), Some(usual));
        assert_eq!(of([0xff, 0xfb, 0x92, 0xc0]), Some(Mp3Header { bytes: 418, channels: 1, ..usual }));
        let low = Mp3Header { layer: 3, rate: 22_050, channels: 2, bytes: 208, samples: 576 };
        assert_eq!(of([0xff, 0xf3, 0x80, 0x00]), Some(low));
        assert_eq!(of([0xff, 0xe3, 0x80, 0x00]).unwrap().rate, 11_025);
        for bad in
            [[0xff, 0xfb, 0xf0, 0], [0xff, 0xfb, 0x00, 0], [0xff, 0xfb, 0x9c, 0], [0xff, 0xf9, 0x90, 0]]
        {
            assert!(of(bad).is_none_or(|h| h.layer == 3), "{bad:?}");
        }
        assert_eq!(Mp3Header::parse(&[0xff, 0xfb, 0x90]), None);
    }

    proptest! {
        #[test]
        fn a_frame_is_longer_than_its_header(bytes: [u8; 4]) {
            if let Some(h) = Mp3Header::parse(&[0xff, bytes[1] | 0xe0, bytes[2], bytes[3]]) {
                prop_assert!(h.bytes > 4 && h.rate >= 8_000);
            }
        }
    }
}
