//! RTCP of WebRTC sessions (RFC 3550, section 6; RFC 3611; RFC 4585; RFC 5104): what peers report and ask for is read,
//! sender reports and goodbyes are written (what a receiver writes is in `rtcp_feedback.rs`). What is of no use here is told
//! apart and left alone.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::twcc;
use std::time::Duration;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const EXTENDED_REPORT: u8 = 207;
/// The block of an extended report with a receiver's clock (RFC 3611, 4.4).
const REFERENCE_TIME: u8 = 4;
/// The block of an extended report with what became of receivers' clocks (RFC 3611, 4.5).
const DELAYS: u8 = 5;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;
/// The format of a generic NACK (RFC 4585, 6.2.1).
const NACK: u8 = 1;
/// The format of a picture loss indication (RFC 4585, 6.3.1).
const PLI: u8 = 1;
/// The format of a full intra request (RFC 5104, 4.3.1).
const FIR: u8 = 4;
/// The format of feedback of when packets came.
const ARRIVALS: u8 = 15;
/// The format of application layer feedback (RFC 4585, 6.4), and what tells an estimated rate from others
/// (draft-alvestrand-rmcat-remb-03, 2.2).
const APPLICATION: u8 = 15;
const RATE: &[u8; 4] = b"REMB";
/// `SDES` item CNAME (RFC 3550, 6.5.1).
const CNAME: u8 = 1;
/// The longest name of an item, bytes.
const NAME_MAX: usize = 255;

/// One packet of a compound one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// What a receiver says of what it gets.
    Reports(Reports<'a>),
    /// What a sender says of what it sends, and of what it gets.
    Sender(SenderInfo, Reports<'a>),
    /// What an extended report says of clocks.
    Extended {
        /// Who says it.
        ssrc: u32,
        /// Its blocks.
        blocks: Blocks<'a>,
    },
    /// Packets of a source are missing.
    Nack {
        /// The source.
        ssrc: u32,
        /// Which.
        missing: Missing<'a>,
    },
    /// A key frame of a source is wanted (PLI).
    PictureLoss {
        /// The source.
        ssrc: u32,
    },
    /// Key frames are wanted (FIR), of sources that are named in entries.
    FullIntra(Sources<'a>),
    /// When packets came, by the numbers that a whole session shares.
    Arrivals(twcc::Feedback<'a>),
    /// What a receiver takes its link to carry (REMB).
    Rate {
        /// Bits a second.
        bits: u64,
    },
    /// Sources have gone.
    Goodbye,
    /// Anything else.
    Other,
}

/// The bytes are no RTCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_be_bytes)
}

/// One report block (RFC 3550, 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The source that it is about.
    pub ssrc: u32,
    /// Share of its packets lost since the report before, in 1/256.
    pub lost: u8,
    /// Packets of it lost in all; where some came twice, this may be less than none.
    pub total_lost: i32,
    /// The highest sequence number that came, and above it how often they wrapped.
    pub highest: u32,
    /// The middle 32 bits of the last sender report's time; 0: none came.
    pub last_sr: u32,
    /// Time since then, 1/65536 s.
    pub since_last_sr: u32,
}

/// Report blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reports<'a>(&'a [u8]);

impl Reports<'_> {
    /// Each block.
    pub fn iter(&self) -> impl Iterator<Item = Report> {
        self.0.chunks_exact(24).filter_map(|b| {
            Some(Report {
                ssrc: word(b, 0)?,
                lost: *b.get(4)?,
                // 24 bits, with a sign.
                total_lost: (word(b, 4)? << 8) as i32 >> 8,
                highest: word(b, 8)?,
                last_sr: word(b, 16)?,
                since_last_sr: word(b, 20)?,
            })
        })
    }
}

/// One block of an extended report that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// A receiver that sends nothing tells its time, as NTP counts, and wants to hear of it again.
    ReferenceTime(u64),
    /// The other's answer to that.
    Delay {
        /// The receiver that is answered.
        ssrc: u32,
        /// The middle 32 bits of the time that it told.
        last: u32,
        /// How long ago that came, 1/65536 s.
        since: u32,
    },
}

/// Blocks of an extended report (RFC 3611, 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks<'a>(&'a [u8]);

impl<'a> Blocks<'a> {
    /// Each block that is understood. Ends where one passes the end.
    pub fn iter(&self) -> impl Iterator<Item = Block> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (&[kind, _, l0, l1], after) = rest.split_first_chunk::<4>()?;
            let (body, tail) = after.split_at_checked(4 * usize::from(u16::from_be_bytes([l0, l1])))?;
            rest = tail;
            Some((kind, body))
        })
        .flat_map(|(kind, body)| {
            let reference = (kind == REFERENCE_TIME).then(|| {
                let (high, low) = (word(body, 0)?, word(body, 4)?);
                Some(Block::ReferenceTime(u64::from(high) << 32 | u64::from(low)))
            });
            let delays = if kind == DELAYS { body } else { &[] };
            let delays = delays.chunks_exact(12).filter_map(|b| {
                Some(Block::Delay { ssrc: word(b, 0)?, last: word(b, 4)?, since: word(b, 8)? })
            });
            reference.flatten().into_iter().chain(delays)
        })
    }
}

/// Entries of a NACK: a number and a mask of the 16 after it each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing<'a>(&'a [u8]);

impl Missing<'_> {
    /// Each sequence number that is asked for.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.chunks_exact(4).filter_map(|e| word(e, 0)).flat_map(|entry| {
            let (first, mask) = ((entry >> 16) as u16, entry as u16);
            let after =
                (0..16).filter(move |bit| mask >> bit & 1 == 1).map(move |bit| first.wrapping_add(bit + 1));
            std::iter::once(first).chain(after)
        })
    }
}

/// Entries of a FIR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources<'a>(&'a [u8]);

impl Sources<'_> {
    /// Each source.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.chunks_exact(8).filter_map(|e| word(e, 0))
    }
}

/// The packets of a compound one. Ends after the first that is malformed.
pub fn packets(compound: &[u8]) -> impl Iterator<Item = Result<Packet<'_>, Malformed>> {
    let mut rest = compound;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let read = packet(rest);
        rest = read.map_or(&[], |(_, tail)| tail);
        Some(read.map(|(packet, _)| packet).ok_or(Malformed))
    })
}

/// The round trip out of what a peer says of our clock: `now` as NTP counts, the middle 32 bits of the time that we told it
/// (0: none came), and how long it kept that, 1/65536 s. `None` if its clock and ours disagree about a moment.
pub fn round_trip(now: u64, last: u32, since: u32) -> Option<Duration> {
    let units = ((now >> 16) as u32).wrapping_sub(last).wrapping_sub(since);
    (last != 0 && units < 1 << 31).then(|| Duration::from_nanos((u64::from(units) * 1_000_000_000) >> 16))
}

fn packet(bytes: &[u8]) -> Option<(Packet<'_>, &[u8])> {
    let [first, kind, l0, l1] = *bytes.first_chunk()?;
    if first >> 6 != 2 {
        return None;
    }
    let len = 4 + 4 * usize::from(u16::from_be_bytes([l0, l1]));
    let (packet, tail) = bytes.split_at_checked(len)?;
    let body = packet.get(4..)?;
    let count = first & 0x1f;
    let blocks = |at: usize| body.get(at..at + 24 * usize::from(count)).map(Reports);
    let packet = match (kind, count) {
        (SENDER_REPORT, _) => {
            let info = SenderInfo {
                ssrc: word(body, 0)?,
                ntp: u64::from(word(body, 4)?) << 32 | u64::from(word(body, 8)?),
                timestamp: word(body, 12)?,
                packets: word(body, 16)?,
                octets: word(body, 20)?,
            };
            Packet::Sender(info, blocks(24)?)
        }
        (RECEIVER_REPORT, _) => Packet::Reports(blocks(4)?),
        (GOODBYE, _) => Packet::Goodbye,
        (EXTENDED_REPORT, _) => Packet::Extended { ssrc: word(body, 0)?, blocks: Blocks(body.get(4..)?) },
        (TRANSPORT_FEEDBACK, NACK) => Packet::Nack { ssrc: word(body, 4)?, missing: Missing(body.get(8..)?) },
        (TRANSPORT_FEEDBACK, ARRIVALS) => Packet::Arrivals(twcc::Feedback::parse(body.get(8..)?)?),
        (PAYLOAD_FEEDBACK, APPLICATION) if body.get(8..12) == Some(RATE) => {
            let packed = word(body, 12)? & 0xff_ffff;
            Packet::Rate { bits: u64::from(packed & 0x3_ffff) << (packed >> 18).min(45) }
        }
        (PAYLOAD_FEEDBACK, PLI) => Packet::PictureLoss { ssrc: word(body, 4)? },
        (PAYLOAD_FEEDBACK, FIR) => Packet::FullIntra(Sources(body.get(8..)?)),
        _ => Packet::Other,
    };
    Some((packet, tail))
}

pub(super) fn header(out: &mut Vec<u8>, count: u8, kind: u8, words: u16) {
    out.extend_from_slice(&[2 << 6 | count & 0x1f, kind]);
    out.extend_from_slice(&words.to_be_bytes());
}

/// What a sender says of one source (RFC 3550, 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    /// The source.
    pub ssrc: u32,
    /// When, as NTP counts: seconds in the upper half, their parts in the lower.
    pub ntp: u64,
    /// The RTP timestamp of that moment.
    pub timestamp: u32,
    /// Packets sent so far.
    pub packets: u32,
    /// Bytes of payload sent so far.
    pub octets: u32,
}

/// Appends a sender report without report blocks.
pub fn put_sender_report(out: &mut Vec<u8>, info: &SenderInfo) {
    header(out, 0, SENDER_REPORT, 6);
    out.extend_from_slice(&info.ssrc.to_be_bytes());
    out.extend_from_slice(&info.ntp.to_be_bytes());
    for field in [info.timestamp, info.packets, info.octets] {
        out.extend_from_slice(&field.to_be_bytes());
    }
}

/// Appends a source description that gives sources (31 at most) one name (255 bytes at most).
pub fn put_description(out: &mut Vec<u8>, sources: &[u32], name: &[u8]) {
    let name = name.get(..name.len().min(NAME_MAX)).unwrap_or_default();
    let sources = sources.get(..sources.len().min(31)).unwrap_or_default();
    // Each chunk: source, item, at least one zero byte, to a whole number of words.
    let chunk = (4 + 2 + name.len() + 1).next_multiple_of(4);
    header(out, sources.len() as u8, SOURCE_DESCRIPTION, (chunk / 4 * sources.len()) as u16);
    for source in sources {
        let start = out.len();
        out.extend_from_slice(&source.to_be_bytes());
        out.extend_from_slice(&[CNAME, name.len() as u8]);
        out.extend_from_slice(name);
        out.resize(start + chunk, 0);
    }
}

/// Appends a goodbye of sources (31 at most).
pub fn put_goodbye(out: &mut Vec<u8>, sources: &[u32]) {
    let sources = sources.get(..sources.len().min(31)).unwrap_or_default();
    header(out, sources.len() as u8, GOODBYE, sources.len() as u16);
    for source in sources {
        out.extend_from_slice(&source.to_be_bytes());
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn feedback_of_receivers_is_read() {
        let mut bytes =
            vec![0x81, 201, 0, 7, 0, 0, 0, 1, 0, 0, 0, 9, 64, 0xff, 0xff, 0xfd, 0, 1, 0, 7, 0, 0, 0, 5];
        bytes.extend_from_slice(&[0x11, 0x22, 0x33, 0x44, 0, 1, 0, 0]);
        bytes.extend_from_slice(&[0x81, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 9, 0xff, 0xff, 0x80, 1, 0, 5, 0, 0]);
        bytes.extend_from_slice(&[0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9]);
        bytes.extend_from_slice(&[0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 3, 0, 0, 0]);
        bytes.extend_from_slice(&[0x8f, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9]);
        bytes.extend_from_slice(&[0x81, 203, 0, 1, 0, 0, 0, 1]);
        let all: Vec<Packet<'_>> = packets(&bytes).map(Result::unwrap).collect();
        let [
            Packet::Reports(reports),
            Packet::Nack { ssrc: 9, missing },
            pli,
            Packet::FullIntra(fir),
            other,
            bye,
        ] = all[..]
        else {
            panic!("{all:?}")
        };
        let (last_sr, since_last_sr) = (0x1122_3344, 0x1_0000);
        let block = Report { ssrc: 9, lost: 64, total_lost: -3, highest: 0x1_0007, last_sr, since_last_sr };
        assert_eq!(reports.iter().collect::<Vec<_>>(), [block]);
        assert_eq!(missing.iter().collect::<Vec<_>>(), [0xffff, 0, 15, 5]);
        assert_eq!(pli, Packet::PictureLoss { ssrc: 9 });
        assert_eq!(fir.iter().collect::<Vec<_>>(), [8]);
        assert_eq!((other, bye), (Packet::Other, Packet::Goodbye));
    }

    #[test]
    fn what_is_written_is_read_and_cuts_are_malformed() {
        let mut out = Vec::new();
        put_sender_report(&mut out, &SenderInfo { ssrc: 1, ntp: 2, timestamp: 3, packets: 4, octets: 5 });
        put_description(&mut out, &[1, 2], b"name");
        put_goodbye(&mut out, &[1, 2]);
        let read: Vec<_> = packets(&out).map(Result::unwrap).collect();
        assert!(matches!(read[..], [Packet::Sender(i, r), Packet::Other, Packet::Goodbye]
                if r.iter().count() == 0 && (i.ntp, i.timestamp, i.octets) == (2, 3, 5)));
        let ends = [28, 28 + 4 + 24, out.len()];
        for n in 1..out.len() {
            let whole = ends.contains(&n);
            assert_eq!(packets(&out[..n]).all(|p| p.is_ok()), whole, "cut at {n}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), first: bool) {
            let mut bytes = bytes;
            if first && bytes.len() > 3 {
                (bytes[0], bytes[1], bytes[2]) = (0x80 | bytes[0] & 0x1f, 200 + bytes[1] % 8, 0);
            }
            for packet in packets(&bytes).flatten() {
                match packet {
                    Packet::Reports(r) => drop(r.iter().count()),
                    Packet::Nack { missing, .. } => drop(missing.iter().count()),
                    Packet::FullIntra(s) => drop(s.iter().count()),
                    Packet::Extended { blocks, .. } => drop(blocks.iter().count()),
                    _ => {}
                }
            }
        }
    }
}
