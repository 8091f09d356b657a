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

/// Bytes of an RTP header without contributing sources and extensions.
pub const HEADER_BYTES: usize = 12;

/// An RTP packet (RFC 3550, 5.1), without what a server does not look at: contributing sources and extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The payload type, 0 to 127.
    pub payload_type: u8,
    /// The marker bit.
    pub marker: bool,
    /// The sequence number.
    pub seq: u16,
    /// The timestamp, in ticks of the payload's clock.
    pub timestamp: u32,
    /// The stream.
    pub ssrc: u32,
    /// The payload without padding.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a packet. `None` if it is of another version, or its parts pass its end.
    pub fn parse(packet: &'a [u8]) -> Option<Packet<'a>> {
        let (head, mut rest) = packet.split_first_chunk::<HEADER_BYTES>()?;
        let [first, second, s0, s1, t0, t1, t2, t3, r0, r1, r2, r3] = *head;
        if first >> 6 != 2 {
            return None;
        }
        rest = rest.get(usize::from(first & 0x0f) * 4..)?;
        if first & 0x10 != 0 {
            let [_, _, high, low] = *rest.first_chunk::<4>()?;
            rest = rest.get(4 + usize::from(u16::from_be_bytes([high, low])) * 4..)?;
        }
        if first & 0x20 != 0 {
            let padding = usize::from(*rest.last()?);
            rest = rest.get(..rest.len().checked_sub(padding).filter(|_| padding > 0)?)?;
        }
        Some(Packet {
            payload_type: second & 0x7f,
            marker: second & 0x80 != 0,
            seq: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([r0, r1, r2, r3]),
            payload: rest,
        })
    }

    /// The header in front of the payload.
    pub fn header(&self) -> [u8; HEADER_BYTES] {
        let [s0, s1] = self.seq.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [r0, r1, r2, r3] = self.ssrc.to_be_bytes();
        let second = self.payload_type & 0x7f | u8::from(self.marker) << 7;
        [0x80, second, s0, s1, t0, t1, t2, t3, r0, r1, r2, r3]
    }
}

/// What stands in the clear at the beginning of a packet under SRTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The payload type, 0 to 127.
    pub payload_type: u8,
    /// The marker bit.
    pub marker: bool,
    /// The timestamp, in ticks of the payload's clock.
    pub timestamp: u32,
    /// The payload ends with padding, whose length is its last byte.
    pub padded: bool,
}

/// Reads the first bytes of a packet.
pub fn head(packet: &[u8]) -> Option<Head> {
    let [first, second, _, _, t0, t1, t2, t3] = *packet.first_chunk()?;
    (first >> 6 == 2).then_some(Head {
        payload_type: second & 0x7f,
        marker: second & 0x80 != 0,
        timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
        padded: first & 0x20 != 0,
    })
}

/// Bytes of a packet's header, with contributing sources and extensions: what stays in the clear under SRTP. `None` if they
/// pass the packet's end, or it is of another version.
pub fn header_len(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    if first >> 6 != 2 {
        return None;
    }
    let mut len = HEADER_BYTES + usize::from(first & 0x0f) * 4;
    if first & 0x10 != 0 {
        let [_, _, high, low] = *packet.get(len..)?.first_chunk::<4>()?;
        len += 4 + usize::from(u16::from_be_bytes([high, low])) * 4;
    }
    (len <= packet.len()).then_some(len)
}

/// The header extension with this number (RFC 8285: elements with headers of one byte or two), if the packet has it.
pub fn extension(packet: &[u8], number: u8) -> Option<&[u8]> {
    let first = *packet.first()?;
    if first & 0x10 == 0 {
        return None;
    }
    let (head, rest) =
        packet.get(HEADER_BYTES + usize::from(first & 0x0f) * 4..)?.split_first_chunk::<4>()?;
    let [p0, p1, l0, l1] = *head;
    let mut rest = rest.get(..usize::from(u16::from_be_bytes([l0, l1])) * 4)?;
    let short = match u16::from_be_bytes([p0, p1]) {
        0xbede => true,
        profile if profile >> 4 == 0x100 => false,
        _ => return None,
    };
    while let Some((&head, after)) = rest.split_first() {
        let (id, len, body) = match (short, head) {
            (_, 0) => {
                rest = after;
                continue;
            }
            // The end (RFC 8285, 4.2).
            (true, 0xf0..) => return None,
            (true, _) => (head >> 4, usize::from(head & 15) + 1, after),
            (false, _) => {
                let (&len, body) = after.split_first()?;
                (head, usize::from(len), body)
            }
        };
        let (value, tail) = body.split_at_checked(len)?;
        if id == number {
            return Some(value);
        }
        rest = tail;
    }
    None
}

/// Turns 16-bit sequence numbers into a count that does not wrap, near the value before. Counts from the middle of the
/// range, so that packets from before the first one have a number too.
#[derive(Clone, Copy, Debug, Default)]
pub struct SequenceUnwrapper {
    last: Option<u64>,
}

impl SequenceUnwrapper {
    /// The unwrapped value of `seq`.
    pub fn unwrap(&mut self, seq: u16) -> u64 {
        let value = match self.last {
            None => (1 << 32) | u64::from(seq),
            Some(last) => last.wrapping_add_signed(i64::from(seq.wrapping_sub(last as u16) as i16)),
        };
        self.last = Some(value);
        value
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

    #[test]
    fn header_extensions_are_found_in_both_forms() {
        let mut short = vec![0x91, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 9, 0xbe, 0xde, 0, 2];
        short.extend_from_slice(&[0x51, 0xab, 0xcd, 0, 0x30, 7, 0xf0, 1, 42]);
        assert_eq!(header_len(&short), Some(28));
        assert_eq!((extension(&short, 5), extension(&short, 3)), (Some(&[0xab, 0xcd][..]), Some(&[7][..])));
        assert_eq!((extension(&short, 15), extension(&short, 0)), (None, None));
        let mut long = vec![0x90, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0x10, 0, 0, 2];
        long.extend_from_slice(&[0, 20, 2, 0xab, 0xcd, 7, 0, 0, 42]);
        assert_eq!(header_len(&long), Some(24));
        assert_eq!((extension(&long, 20), extension(&long, 7)), (Some(&[0xab, 0xcd][..]), Some(&[][..])));
        for cut in 0..24 {
            assert_eq!(header_len(&long[..cut]), None);
        }
        long[15] = 3;
        assert_eq!(extension(&long, 20), None);
    }

    proptest! {
        #[test]
        fn extensions_of_garbage_are_none_or_inside(bytes in proptest::collection::vec(any::<u8>(), 0..60), form in 0..3, id in 0u8..16) {
            let mut bytes = bytes;
            if let (Some(profile), 1..) = (bytes.get_mut(12..14), form) {
                profile.copy_from_slice(if form == 1 { &[0xbe, 0xde] } else { &[0x10, 0] });
                bytes[0] = 0x90;
            }
            prop_assert!(extension(&bytes, id).is_none_or(|e| e.len() < bytes.len()));
            prop_assert!(header_len(&bytes).is_none_or(|n| n <= bytes.len()));
        }

        /// rtp-rs writes the packets and reads ours.
        #[test]
        fn packets_are_read_and_written_as_another_implementation_does(
            payload_type in 0u8..128, marked: bool, seq: u16, timestamp: u32, ssrc: u32, padded in 0u8..6,
            payload in proptest::collection::vec(any::<u8>(), 0..40), csrcs in 0u32..4,
        ) {
            let padding = if padded == 0 { rtp_rs::Pad::none() } else { rtp_rs::Pad::round_to(padded * 4) };
            let mut builder = rtp_rs::RtpPacketBuilder::new();
            builder = builder
                .payload_type(payload_type).marked(marked).ssrc(ssrc).timestamp(timestamp)
                .sequence(seq.into()).payload(&payload).padded(padding);
            for csrc in 0..csrcs {
                builder = builder.add_csrc(csrc);
            }
            let bytes = builder.build().unwrap();
            let p = Packet::parse(&bytes).unwrap();
            let wanted =
                Packet { payload_type, marker: marked, seq, timestamp, ssrc, payload: &payload };
            prop_assert_eq!(p, wanted);
            let ours = [&wanted.header()[..], &payload].concat();
            let theirs = rtp_rs::RtpReader::new(&ours).unwrap();
            prop_assert_eq!(
                (theirs.payload_type(), theirs.mark(), theirs.ssrc(), theirs.timestamp(), theirs.payload()),
                (payload_type, marked, ssrc, timestamp, &payload[..])
            );
            prop_assert_eq!(u16::from(theirs.sequence_number()), seq);
        }

        #[test]
        fn no_packet_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(p) = Packet::parse(&bytes) {
                prop_assert!(p.payload.len() + HEADER_BYTES <= bytes.len());
            }
        }

        #[test]
        fn sequence_numbers_are_followed(start: u16, steps in proptest::collection::vec(-3000i64..3000, 1..50)) {
            let mut u = SequenceUnwrapper::default();
            let mut truth = u.unwrap(start);
            for step in steps {
                truth = truth.wrapping_add_signed(step);
                prop_assert_eq!(u.unwrap(truth as u16), truth);
            }
        }

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
