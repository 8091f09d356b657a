//! What WebRTC's one port carries (RFC 7983), and RTP's wrapping numbers (RFC 3550, section 5.1).

/// The protocol of a datagram on a WebRTC port, from its first bytes (RFC 7983 section 7, RFC 5761 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Multiplexed {
    /// STUN.
    Stun,
    /// DTLS.
    Dtls,
    /// RTP (encrypted).
    Rtp,
    /// RTCP (encrypted).
    Rtcp,
}

impl Multiplexed {
    /// Classifies a datagram. `None` for what belongs to no protocol spoken here, and for anything too short to
    /// be what its first byte claims.
    pub fn of(datagram: &[u8]) -> Option<Multiplexed> {
        let first = *datagram.first()?;
        match first {
            0..=3 if datagram.len() >= super::stun::HEADER_BYTES => Some(Multiplexed::Stun),
            // A DTLS record header has 13 bytes (RFC 6347, 4.1).
            20..=63 if datagram.len() >= 13 => Some(Multiplexed::Dtls),
            // An RTP header has 12 bytes, an RTCP header 8.
            128..=191 => match datagram.get(1)? & 0x7f {
                64..=95 if datagram.len() >= 8 => Some(Multiplexed::Rtcp),
                64..=95 => None,
                _ if datagram.len() >= 12 => Some(Multiplexed::Rtp),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Turns 32-bit RTP timestamps into a count that does not wrap. Each value is taken as the nearest to the one
/// before it, forwards or backwards.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimestampUnwrapper {
    last: Option<i64>,
}

impl TimestampUnwrapper {
    /// The unwrapped value of `timestamp`. The first one is itself.
    pub fn unwrap(&mut self, timestamp: u32) -> i64 {
        let value = self.near(timestamp);
        self.last = Some(value);
        value
    }

    /// What [`TimestampUnwrapper::unwrap`] would answer, without remembering it.
    pub fn near(&self, timestamp: u32) -> i64 {
        match self.last {
            None => i64::from(timestamp),
            Some(last) => {
                let step = timestamp.wrapping_sub(last as u32) as i32;
                last.saturating_add(i64::from(step))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn datagrams_are_told_apart_by_their_first_bytes() {
        let of = |first: u8, second: u8, len: usize| {
            let mut d = vec![0; len];
            for (slot, byte) in d.iter_mut().zip([first, second]) {
                *slot = byte;
            }
            Multiplexed::of(&d)
        };
        assert_eq!(of(0, 1, 20), Some(Multiplexed::Stun));
        assert_eq!(of(0, 1, 19), None);
        assert_eq!(of(22, 254, 13), Some(Multiplexed::Dtls));
        assert_eq!(of(128, 96 | 0x80, 12), Some(Multiplexed::Rtp));
        assert_eq!(of(128, 200, 8), Some(Multiplexed::Rtcp));
        assert_eq!(of(128, 200, 2), None);
        assert_eq!(of(64, 0, 100), None);
        assert_eq!(of(200, 0, 100), None);
        assert_eq!(Multiplexed::of(&[]), None);
        assert_eq!(Multiplexed::of(&[128]), None);
    }

    proptest! {
        /// rtp-rs writes the packets. Payload types 64 to 95 are RTCP's on a shared port (RFC 5761, section 4).
        #[test]
        fn packets_of_another_implementation_are_rtp(
            payload_type in (0u8..128).prop_filter("RTCP's", |t| !(64..96).contains(t)),
            marked: bool,
            ssrc: u32,
            payload in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let packet = rtp_rs::RtpPacketBuilder::new()
                .payload_type(payload_type)
                .marked(marked)
                .ssrc(ssrc)
                .payload(&payload)
                .build();
            prop_assert_eq!(packet.ok().and_then(|p| Multiplexed::of(&p)), Some(Multiplexed::Rtp));
        }

        #[test]
        fn unwrapping_follows_any_walk_of_less_than_half_the_range(
            start: u32,
            steps in proptest::collection::vec(-1_000_000_000i64..1_000_000_000, 1..50),
        ) {
            let mut u = TimestampUnwrapper::default();
            let mut truth = i64::from(start);
            prop_assert_eq!(u.unwrap(start), truth);
            for step in steps {
                truth += step;
                prop_assert_eq!(u.unwrap(truth as u32), truth);
            }
        }
    }
}
