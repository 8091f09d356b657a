//! What H.264 and H.265 have in common: parameter sets by id, aggregation and fragments.

use super::equal;
use crate::wire::bits::{Bits, unescape};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

/// The most parameter sets of each kind that are remembered (ids of sequence parameter sets go to 31 or 15; more picture
/// parameter sets in use at once are not seen).
const SETS_MAX: usize = 32;

/// The start bit of an FU header.
pub(super) const FU_START: u8 = 0x80;
/// The end bit of an FU header.
pub(super) const FU_END: u8 = 0x40;

/// Parameter sets of one kind by their id.
#[derive(Debug, Default)]
pub(super) struct Sets(BTreeMap<u32, Bytes>);

impl Sets {
    /// Remembers a set. `true` if it says something new.
    pub(super) fn remember(&mut self, id: Option<u32>, nal: &[u8]) -> bool {
        let Some(id) = id else { return false };
        let known = self.0.get(&id);
        if known.is_some_and(|s| s == nal) || (known.is_none() && self.0.len() >= SETS_MAX) {
            return false;
        }
        self.0.insert(id, Bytes::copy_from_slice(nal));
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn all(&self) -> Vec<Bytes> {
        self.0.values().cloned().collect()
    }
}

/// The first ue(v) of a parameter set, `skip` bytes after its beginning. Ids that matter are small.
pub(super) fn id(nal: &[u8], skip: usize) -> Option<u32> {
    Bits::new(&unescape(nal.get(skip..)?, 8)).ue().filter(|id| *id < 1 << 15)
}

/// The units of an aggregation packet: each with its length in two bytes. Ends with `Err` where one is cut short or empty.
pub(super) fn aggregated(mut rest: &[u8]) -> impl Iterator<Item = Result<&[u8], ()>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let nal = rest
            .split_first_chunk::<2>()
            .and_then(|(len, tail)| tail.split_at_checked(usize::from(u16::from_be_bytes(*len))))
            .filter(|(nal, _)| !nal.is_empty());
        rest = nal.map_or(&[], |(_, tail)| tail);
        Some(nal.map(|(nal, _)| nal).ok_or(()))
    })
}

/// Appends units to an aggregation packet that has its header.
pub(super) fn put_aggregated(out: &mut BytesMut, units: &[Bytes]) {
    for unit in units {
        out.put_u16(unit.len() as u16);
        out.put_slice(unit);
    }
}

/// Cuts a NAL unit's body into fragments of equal size but the last, which may be a little shorter: none has more than
/// `most` bytes. `head` makes what stands before a piece out of the start and end bits. All share one allocation.
pub(super) fn put_fragments<const N: usize>(
    out: &mut Vec<Bytes>,
    body: &[u8],
    most: usize,
    head: impl Fn(u8) -> [u8; N],
) {
    let size = equal(body.len(), most.saturating_sub(N));
    let count = body.len().div_ceil(size);
    let mut all = BytesMut::with_capacity(body.len() + N * count);
    for (i, piece) in body.chunks(size).enumerate() {
        let start = if i == 0 { FU_START } else { 0 };
        let end = if i + 1 == count { FU_END } else { 0 };
        all.put_slice(&head(start | end));
        all.put_slice(piece);
        out.push(all.split().freeze());
    }
}
