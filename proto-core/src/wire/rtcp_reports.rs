//! RTCP (RFC 3550, section 6; RFC 4585, section 6.3.1): the reports that tie clocks together and tell of loss.

use bytes::{BufMut, Bytes, BytesMut};

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
const PAYLOAD_FEEDBACK: u8 = 206;
/// Seconds from 1900, where NTP counts from, to 1970.
const NTP_OFFSET: u64 = 2_208_988_800;

/// What a receiver says of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The stream.
    pub ssrc: u32,
    /// Packets lost since the report before, 256ths.
    pub fraction: u8,
    /// Packets lost in all.
    pub lost: u32,
    /// The highest sequence number, with its count of wraps above.
    pub highest: u32,
    /// Interarrival jitter in ticks.
    pub jitter: u32,
    /// The middle 32 bits of the NTP time of the last sender report, or 0.
    pub last_report: u32,
    /// How long ago that came, 65,536ths of a second.
    pub since_report: u32,
}

/// One packet of a compound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// What a sender says of its clock.
    Sender {
        /// The stream.
        ssrc: u32,
        /// NTP time: seconds since 1900 above, fraction below.
        ntp: u64,
        /// The timestamp at that moment.
        timestamp: u32,
    },
    /// What a receiver says of a stream.
    Block(Block),
    /// A stream is over.
    Bye {
        /// The stream.
        ssrc: u32,
    },
    /// Pictures cannot be decoded until a key frame comes.
    KeyFrameWanted {
        /// The stream.
        ssrc: u32,
    },
}

/// What a compound packet says, as far as it is understood. At most 32 reports; what is broken ends it.
pub fn parse(mut compound: &[u8]) -> Vec<Report> {
    const MOST: usize = 32;
    let mut out = Vec::new();
    while let Some((head, rest)) = compound.split_first_chunk::<4>() {
        let [first, kind, high, low] = *head;
        let len = usize::from(u16::from_be_bytes([high, low])) * 4;
        let Some((body, after)) = rest.split_at_checked(len) else { break };
        if first >> 6 != 2 {
            break;
        }
        compound = after;
        let count = usize::from(first & 0x1f);
        let ssrc = number(body, 0);
        match (kind, ssrc) {
            (SENDER_REPORT, Some(ssrc)) => {
                let (Some(high), Some(low), Some(timestamp)) =
                    (number(body, 4), number(body, 8), number(body, 12))
                else {
                    break;
                };
                out.push(Report::Sender { ssrc, ntp: u64::from(high) << 32 | u64::from(low), timestamp });
                blocks(body.get(24..).unwrap_or_default(), count, &mut out);
            }
            (RECEIVER_REPORT, Some(_)) => blocks(body.get(4..).unwrap_or_default(), count, &mut out),
            (BYE, _) => {
                out.extend((0..count).map_while(|i| number(body, i * 4)).map(|ssrc| Report::Bye { ssrc }));
            }
            (PAYLOAD_FEEDBACK, _) if count == 1 => {
                out.extend(number(body, 4).map(|ssrc| Report::KeyFrameWanted { ssrc }));
            }
            _ => {}
        }
        out.truncate(MOST);
        if out.len() == MOST {
            break;
        }
    }
    out
}

fn number(body: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*body.get(at..)?.first_chunk::<4>()?))
}

fn blocks(body: &[u8], count: usize, out: &mut Vec<Report>) {
    for block in body.chunks_exact(24).take(count) {
        let n = |at| number(block, at).unwrap_or(0);
        out.push(Report::Block(Block {
            ssrc: n(0),
            fraction: (n(4) >> 24) as u8,
            lost: n(4) & 0xff_ffff,
            highest: n(8),
            jitter: n(12),
            last_report: n(16),
            since_report: n(20),
        }));
    }
}

/// NTP time of a wall time, nanoseconds since the Unix epoch.
pub fn ntp_of(unix_nanos: u64) -> u64 {
    let seconds = unix_nanos / 1_000_000_000 + NTP_OFFSET;
    let fraction = ((unix_nanos % 1_000_000_000) << 32) / 1_000_000_000;
    seconds << 32 | fraction
}

/// Nanoseconds since 1900 of an NTP time, for differences.
pub fn nanos_of(ntp: u64) -> i128 {
    i128::from(ntp >> 32) * 1_000_000_000 + ((i128::from(ntp & 0xffff_ffff) * 1_000_000_000) >> 32)
}

fn head(out: &mut BytesMut, count: u8, kind: u8, words: u16) {
    out.put_u8(0x80 | count);
    out.put_u8(kind);
    out.put_u16(words);
}

/// The canonical name that every compound must carry (6.5.1). It says nothing about anyone.
fn describe(out: &mut BytesMut, ssrc: u32) {
    const NAME: &[u8; 9] = b"headwater";
    head(out, 1, DESCRIPTION, 4);
    out.put_u32(ssrc);
    out.put_u8(1);
    out.put_u8(NAME.len() as u8);
    out.put_slice(NAME);
    out.put_u8(0);
}

/// A sender's report with its name; `bye`: the stream is over.
pub fn sender_report(ssrc: u32, ntp: u64, timestamp: u32, packets: u32, octets: u32, bye: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(60);
    head(&mut out, 0, SENDER_REPORT, 6);
    out.put_u32(ssrc);
    out.put_u64(ntp);
    out.put_u32(timestamp);
    out.put_u32(packets);
    out.put_u32(octets);
    describe(&mut out, ssrc);
    if bye {
        head(&mut out, 1, BYE, 1);
        out.put_u32(ssrc);
    }
    out.freeze()
}

/// A receiver's report of one stream with its name; `key`: and a wish for a key frame.
pub fn receiver_report(own: u32, block: Option<&Block>, key: Option<u32>) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    head(&mut out, u8::from(block.is_some()), RECEIVER_REPORT, if block.is_some() { 7 } else { 1 });
    out.put_u32(own);
    if let Some(b) = block {
        out.put_u32(b.ssrc);
        out.put_u32(u32::from(b.fraction) << 24 | b.lost.min(0x7f_ffff));
        out.put_u32(b.highest);
        out.put_u32(b.jitter);
        out.put_u32(b.last_report);
        out.put_u32(b.since_report);
    }
    describe(&mut out, own);
    if let Some(ssrc) = key {
        head(&mut out, 1, PAYLOAD_FEEDBACK, 2);
        out.put_u32(own);
        out.put_u32(ssrc);
    }
    out.freeze()
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ntp_time_goes_there_and_back() {
        assert_eq!(ntp_of(0) >> 32, NTP_OFFSET);
        let a = nanos_of(ntp_of(1_700_000_000_123_456_789));
        assert!((a - nanos_of(ntp_of(0)) - 1_700_000_000_123_456_789).abs() <= 1);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            ssrc: u32, ntp: u64, timestamp: u32, bye: bool, lost in 0u32..0x7f_ffff, fraction: u8, key: Option<u32>,
        ) {
            let mut wanted = vec![Report::Sender { ssrc, ntp, timestamp }];
            if bye {
                wanted.push(Report::Bye { ssrc });
            }
            let bytes = sender_report(ssrc, ntp, timestamp, 1, 2, bye);
            prop_assert_eq!(bytes.len() % 4, 0);
            prop_assert_eq!(parse(&bytes), wanted);
            let block = Block { ssrc, fraction, lost, highest: 3, jitter: 4, last_report: 5, since_report: 6 };
            let mut wanted = vec![Report::Block(block)];
            wanted.extend(key.map(|ssrc| Report::KeyFrameWanted { ssrc }));
            prop_assert_eq!(parse(&receiver_report(9, Some(&block), key)), wanted);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(parse(&bytes).len() <= 32);
        }
    }
}
