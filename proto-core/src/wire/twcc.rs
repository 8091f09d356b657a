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

/// What a receiver says of when packets came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feedback<'a> {
    base: u16,
    count: u16,
    reference: u32,
    nth: u8,
    body: &'a [u8],
}

/// Packets of one feedback that are looked at: more fit no viewer's report of some moments.
const READ_MAX: usize = 4_096;

impl<'a> Feedback<'a> {
    /// Reads what follows the two sources of a feedback. `None` if it is cut short.
    pub fn parse(body: &'a [u8]) -> Option<Feedback<'a>> {
        let ([b0, b1, c0, c1, r0, r1, r2, nth], body) = body.split_first_chunk::<8>()?;
        Some(Feedback {
            base: u16::from_be_bytes([*b0, *b1]),
            count: u16::from_be_bytes([*c0, *c1]),
            reference: u32::from_be_bytes([0, *r0, *r1, *r2]),
            nth: *nth,
            body,
        })
    }

    /// Which feedback it is; the count wraps.
    pub fn nth(&self) -> u8 {
        self.nth
    }

    /// The number of the first packet that it tells of.
    pub fn base(&self) -> u16 {
        self.base
    }

    /// Each packet's number, and when it came: ticks of 250 µs on the receiver's clock, which wraps after 2²⁴ times 64 ms;
    /// `None`: it did not. Ends where the feedback does not say more.
    pub fn iter(&self) -> impl Iterator<Item = (u16, Option<i64>)> + use<'a> {
        let count = usize::from(self.count).min(READ_MAX);
        let mut symbols = Vec::with_capacity(count);
        let mut rest = self.body;
        while symbols.len() < count
            && let Some((chunk, after)) = rest.split_first_chunk::<2>()
        {
            let chunk = u16::from_be_bytes(*chunk);
            let left = count - symbols.len();
            match chunk >> 14 {
                0 | 1 => {
                    let run = usize::from(chunk & 0x1fff).min(left);
                    symbols.extend(std::iter::repeat_n(chunk >> 13 & 3, run));
                }
                2 => symbols.extend((0..14).map(|n| chunk >> (13 - n) & 1).take(left)),
                _ => symbols.extend((0..7).map(|n| chunk >> (12 - 2 * n) & 3).take(left)),
            }
            rest = after;
        }
        let mut time = i64::from(self.reference) * TICKS_A_REFERENCE;
        let base = self.base;
        symbols.into_iter().enumerate().map_while(move |(n, symbol)| {
            let number = base.wrapping_add(n as u16);
            let delta = match symbol {
                1 => {
                    let (delta, after) = rest.split_first()?;
                    rest = after;
                    i64::from(*delta)
                }
                2 => {
                    let (delta, after) = rest.split_first_chunk::<2>()?;
                    rest = after;
                    i64::from(i16::from_be_bytes(*delta))
                }
                _ => return Some((number, None)),
            };
            time += delta;
            Some((number, Some(time)))
        })
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

    /// The first number, the count of feedbacks, and for each packet its time in ticks.
    fn read(bytes: &[u8]) -> (u16, u8, Vec<Option<i64>>) {
        let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        assert_eq!((bytes[0], bytes[1]), (0x80 | 15, 205));
        assert_eq!(bytes.len(), 4 + 4 * usize::from(half(2)));
        let feedback = Feedback::parse(&bytes[12..]).unwrap();
        let all: Vec<_> = feedback.iter().collect();
        assert!(all.iter().enumerate().all(|(n, (number, _))| *number == half(12).wrapping_add(n as u16)));
        assert_eq!(all.len(), usize::from(half(14)));
        (half(12), bytes[19], all.into_iter().map(|(_, at)| at).collect())
    }

    proptest! {
        #[test]
        fn garbage_is_read_to_its_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(feedback) = Feedback::parse(&bytes) {
                prop_assert!(feedback.iter().count() <= READ_MAX);
            }
        }

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
            prop_assert_eq!((feedback.base(), feedback.nth()), (base, nth));
            prop_assert!(feedback.iter().map(|(_, at)| at).eq(read.iter().copied()));
            let ticks: Vec<Option<i64>> = arrivals.iter().map(|a| a.map(|a| (a / TICK_NANOS) as i64)).collect();
            prop_assert_eq!(&read[..], &ticks[..told]);
            let rest = &arrivals[told..arrivals.len().min(PACKETS_MAX)];
            prop_assert!(rest.iter().all(Option::is_none), "only what did not come may be left out");
        }
    }

    #[test]
    fn symbols_of_both_widths_and_runs_are_read_as_the_draft_draws_them() {
        // 3.1.3 and 3.1.4: a run of 3 that came close together, two in a vector of one bit, one of two bits far apart.
        let body = [0xff, 0xff, 0, 24, 0, 0, 2, 9, 0x20, 3, 0xa0, 0, 0xe0, 0, 4, 4, 4, 8, 0xff, 0xfe];
        let all: Vec<_> = Feedback::parse(&body).unwrap().iter().collect();
        let came: Vec<_> = all.iter().filter_map(|(n, at)| Some((*n, (*at)?))).collect();
        assert_eq!(came, [(0xffff, 516), (0, 520), (1, 524), (2, 532), (16, 530)]);
        assert_eq!(all.len(), 24);
        assert_eq!(Feedback::parse(&body[..19]).unwrap().iter().count(), 17, "cut within the last time");
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
