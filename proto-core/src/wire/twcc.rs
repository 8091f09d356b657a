//! Feedback of when packets came, for senders that adapt to it (draft-holmer-rmcat-transport-wide-cc-extensions-01, 3.1).
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::rtcp::header;

const TRANSPORT_FEEDBACK: u8 = 205;
const FORMAT: u8 = 15;
/// Times are told in units of 250 µs, the first against one of 64 ms.
const TICK_NANOS: u64 = 250_000;
const TICKS_A_REFERENCE: i64 = 256;
/// Packets that one feedback tells of at most, so that it fits a datagram.
pub const PACKETS_MAX: usize = 400;

/// How a packet is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Symbol {
    Missing = 0,
    Small = 1,
    Large = 2,
}

/// Appends the `nth` feedback: when the packets from number `base` on came, nanoseconds on our clock; `None` for one that
/// did not come. The first came. Answers how many of them are told of: fewer than were given if there is no room for all,
/// or two of them are further apart than can be said (8 s).
pub fn put_feedback(
    out: &mut Vec<u8>,
    (own, media): (u32, u32),
    nth: u8,
    base: u16,
    arrivals: &[Option<u64>],
) -> usize {
    let Some(first) = arrivals.first().copied().flatten() else { return 0 };
    let reference = (first / TICK_NANOS) as i64 / TICKS_A_REFERENCE;
    let mut last = reference * TICKS_A_REFERENCE;
    let (mut symbols, mut deltas) = (Vec::new(), Vec::new());
    for arrival in arrivals.iter().take(PACKETS_MAX) {
        let Some(at) = arrival else {
            symbols.push(Symbol::Missing);
            continue;
        };
        let ticks = (at / TICK_NANOS) as i64;
        let Ok(delta) = i16::try_from(ticks - last) else { break };
        last = ticks;
        match u8::try_from(delta) {
            Ok(small) => {
                symbols.push(Symbol::Small);
                deltas.push(small);
            }
            Err(_) => {
                symbols.push(Symbol::Large);
                deltas.extend_from_slice(&delta.to_be_bytes());
            }
        }
    }
    // Those at the end of whom nothing is known yet are the next feedback's.
    while symbols.last() == Some(&Symbol::Missing) {
        symbols.pop();
    }
    let chunks = chunks(&symbols);
    let bytes = (8 + 2 * chunks.len() + deltas.len()).next_multiple_of(4);
    let start = out.len();
    header(out, FORMAT, TRANSPORT_FEEDBACK, (2 + bytes / 4) as u16);
    out.extend_from_slice(&own.to_be_bytes());
    out.extend_from_slice(&media.to_be_bytes());
    out.extend_from_slice(&base.to_be_bytes());
    out.extend_from_slice(&(symbols.len() as u16).to_be_bytes());
    out.extend_from_slice(&((reference as u32) << 8 | u32::from(nth)).to_be_bytes());
    for chunk in chunks {
        out.extend_from_slice(&chunk.to_be_bytes());
    }
    out.extend_from_slice(&deltas);
    out.resize(start + 12 + bytes, 0);
    symbols.len()
}

/// What a feedback says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feedback<'a> {
    /// The number of the first packet that it tells of.
    pub base: u16,
    count: u16,
    chunks: &'a [u8],
}

impl<'a> Feedback<'a> {
    /// Reads what follows the SSRCs of a packet.
    pub(super) fn read(body: &'a [u8]) -> Option<Feedback<'a>> {
        let (&[b0, b1, c0, c1, _, _, _, _], chunks) = body.split_first_chunk::<8>()?;
        Some(Feedback { base: u16::from_be_bytes([b0, b1]), count: u16::from_be_bytes([c0, c1]), chunks })
    }

    /// Whether each packet from the first on came. Ends where the bytes do.
    pub fn came(&self) -> impl Iterator<Item = bool> + use<'a> {
        let chunks =
            self.chunks.chunks_exact(2).filter_map(|c| c.first_chunk()).map(|c| u16::from_be_bytes(*c));
        let symbols = chunks.flat_map(|chunk| {
            let (count, width) = match chunk >> 14 {
                0 | 1 => (chunk & 0x1fff, 0),
                2 => (14, 1),
                _ => (7, 2),
            };
            (0..count).map(move |n| match width {
                0 => chunk >> 13 & 3 != 0,
                1 => chunk >> (13 - n) & 1 != 0,
                _ => chunk >> (12 - 2 * n) & 3 != 0,
            })
        });
        symbols.take(usize::from(self.count))
    }
}

/// Runs of one symbol, and vectors of 14 symbols of one bit or 7 of two, whichever tells more.
fn chunks(mut symbols: &[Symbol]) -> Vec<u16> {
    let mut out = Vec::new();
    while let Some(first) = symbols.first() {
        let run = symbols.iter().take(0x1fff).take_while(|s| *s == first).count();
        let narrow = !symbols.iter().take(14).any(|s| *s == Symbol::Large);
        let vector = if narrow { 14 } else { 7 };
        let taken = if run >= vector.min(symbols.len()) {
            out.push((*first as u16) << 13 | run as u16);
            run
        } else {
            let bits = 14 / vector;
            let mut chunk = if narrow { 0b10 << 14 } else { 0b11 << 14 };
            for (n, symbol) in symbols.iter().take(vector).enumerate() {
                chunk |= (*symbol as u16) << (14 - bits * (n + 1));
            }
            out.push(chunk);
            vector.min(symbols.len())
        };
        symbols = symbols.get(taken..).unwrap_or_default();
    }
    out
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::wire::rtcp::{Packet, packets};
    use proptest::prelude::*;

    /// Reads a feedback as the draft describes it: the first number, and for each packet its time in ticks.
    fn read(bytes: &[u8]) -> (u16, u8, Vec<Option<i64>>) {
        let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        assert_eq!((bytes[0], bytes[1]), (0x80 | 15, 205));
        assert_eq!(bytes.len(), 4 + 4 * usize::from(half(2)));
        let (base, count) = (half(12), usize::from(half(14)));
        let reference = i64::from(u32::from_be_bytes([0, bytes[16], bytes[17], bytes[18]]));
        let (mut at, mut symbols) = (20, Vec::new());
        while symbols.len() < count {
            let chunk = half(at);
            at += 2;
            match chunk >> 14 {
                0 | 1 => symbols.extend(std::iter::repeat_n(chunk >> 13 & 3, usize::from(chunk & 0x1fff))),
                2 => symbols.extend((0..14).map(|n| chunk >> (13 - n) & 1)),
                _ => symbols.extend((0..7).map(|n| chunk >> (12 - 2 * n) & 3)),
            }
        }
        symbols.truncate(count);
        let mut time = reference * TICKS_A_REFERENCE;
        let mut out = Vec::new();
        for symbol in symbols {
            match symbol {
                0 => out.push(None),
                1 => {
                    time += i64::from(bytes[at]);
                    at += 1;
                    out.push(Some(time));
                }
                _ => {
                    time += i64::from(half(at) as i16);
                    at += 2;
                    out.push(Some(time));
                }
            }
        }
        assert!(bytes.len() - at < 4);
        (base, bytes[19], out)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            start in 0u64..1 << 40, base: u16, nth: u8,
            steps in proptest::collection::vec((any::<bool>(), prop_oneof![0i64..400_000, -90_000_000i64..90_000_000]), 1..500),
        ) {
            let mut at = start as i64 + 1_000_000_000;
            let arrivals: Vec<Option<u64>> = steps
                .iter()
                .enumerate()
                .map(|(n, (came, step))| {
                    at = (at + step).max(0);
                    (*came || n == 0).then_some(at as u64)
                })
                .collect();
            let mut out = Vec::new();
            let told = put_feedback(&mut out, (1, 2), nth, base, &arrivals);
            let (b, n, read) = read(&out);
            prop_assert!(out.len() <= 1_200);
            prop_assert_eq!((b, n, read.len()), (base, nth, told));
            let Some(Ok(Packet::Arrivals(feedback))) = packets(&out).next() else { panic!("no feedback") };
            prop_assert_eq!(feedback.base, base);
            prop_assert!(feedback.came().eq(read.iter().map(Option::is_some)));
            let ticks: Vec<Option<i64>> = arrivals.iter().map(|a| a.map(|a| (a / TICK_NANOS) as i64)).collect();
            prop_assert_eq!(&read[..], &ticks[..told]);
            let rest = &arrivals[told..arrivals.len().min(PACKETS_MAX)];
            prop_assert!(rest.iter().all(Option::is_none), "only what did not come may be left out");
        }
    }

    #[test]
    fn what_cannot_be_said_is_left_to_the_next_feedback() {
        let mut out = Vec::new();
        let told = put_feedback(&mut out, (1, 2), 0, 5, &[Some(0), None, Some(9_000_000_000)]);
        assert_eq!((told, read(&out)), (1, (5, 0, vec![Some(0)])));
        assert_eq!(put_feedback(&mut out, (1, 2), 0, 5, &[None, Some(1)]), 0);
        out.clear();
        put_feedback(&mut out, (1, 2), 0, 5, &[Some(64_000_000); 100]);
        assert_eq!(
            out.len(),
            20 + 4 + 100,
            "one chunk for a run, a byte for each packet, no padding but to the word"
        );
    }
}
