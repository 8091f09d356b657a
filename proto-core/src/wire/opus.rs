//! Opus packets, as far as a server looks into them: the TOC byte (RFC 6716, section 3.1).

use std::time::Duration;

/// What an Opus packet says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpusPacket {
    /// How much sound it holds.
    pub duration: Duration,
    /// Coded in two channels. A decoder set to two channels plays both kinds.
    pub stereo: bool,
}

impl OpusPacket {
    /// Reads the TOC byte and the frame count. `None` if the packet is empty, lacks its frame count, or claims
    /// more than 120 ms (RFC 6716, 3.2.5).
    pub fn parse(packet: &[u8]) -> Option<OpusPacket> {
        let (&toc, rest) = packet.split_first()?;
        let config = toc >> 3;
        // Table 2: SILK 10/20/40/60 ms, hybrid 10/20 ms, CELT 2.5/5/10/20 ms.
        let micros: u64 = match (config, config & 3) {
            (0..=11, 0) => 10_000,
            (0..=11, 1) => 20_000,
            (0..=11, 2) => 40_000,
            (0..=11, _) => 60_000,
            (12..=15, n) => 10_000 << (n & 1),
            (_, n) => 2_500 << n,
        };
        let frames = match toc & 3 {
            0 => 1,
            1 | 2 => 2,
            _ => u64::from(rest.first()? & 0x3f),
        };
        let duration = Duration::from_micros(micros * frames);
        let legal = frames > 0 && duration <= Duration::from_millis(120);
        legal.then_some(OpusPacket { duration, stereo: toc & 4 != 0 })
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// RFC 6716, 3.1 and 3.4: sound in steps of 2.5 ms, at most 120 ms; what follows the count does not matter.
        #[test]
        fn any_bytes_are_a_packet_of_legal_length_or_none(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
            more in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let packet = OpusPacket::parse(&bytes);
            if let Some(OpusPacket { duration, stereo }) = packet {
                let micros = duration.as_micros();
                prop_assert!((2_500..=120_000).contains(&micros) && micros % 2_500 == 0);
                prop_assert_eq!(stereo, bytes[0] & 4 != 0);
            }
            if bytes.len() > 1 {
                prop_assert_eq!(OpusPacket::parse(&[bytes, more].concat()), packet);
            }
        }
    }

    #[test]
    fn durations_follow_the_table() {
        let ms = |packet: &[u8]| OpusPacket::parse(packet).map(|p| p.duration.as_secs_f64() * 1000.0);
        assert_eq!(ms(&[0]), Some(10.0));
        assert_eq!(ms(&[3 << 3]), Some(60.0));
        assert_eq!(ms(&[13 << 3]), Some(20.0));
        assert_eq!(ms(&[16 << 3]), Some(2.5));
        assert_eq!(ms(&[31 << 3 | 1]), Some(40.0));
        assert_eq!(ms(&[31 << 3 | 3, 6]), Some(120.0));
        assert_eq!(ms(&[31 << 3 | 3, 7]), None);
        assert_eq!(ms(&[31 << 3 | 3, 0]), None);
        assert_eq!(ms(&[31 << 3 | 3]), None);
        assert_eq!(ms(&[]), None);
        assert_eq!(OpusPacket::parse(&[4]).map(|p| p.stereo), Some(true));
    }
}
