//! VP8 (RFC 7741).
//!
//! Out, the descriptor is the one mandatory byte: payloads are shared by viewers that are skipped ahead differently, so
//! there are no picture ids; receivers then go by sequence numbers.

use super::assemble::{Format, Partial, Whole};
use super::equal;
use crate::media::track::CodecParams;
use crate::wire::bits::Bits;
use crate::wire::vp8::Vp8Frame;
use bytes::{BufMut, Bytes, BytesMut};

/// Start of a partition.
const S: u8 = 0x10;
/// Non-reference frame.
const N: u8 = 0x20;

pub(super) fn packetise(frame: &[u8], discardable: bool, most: usize) -> Vec<Bytes> {
    let size = equal(frame.len(), most - 1);
    let mut all = BytesMut::with_capacity(frame.len() + frame.len().div_ceil(size));
    let payload = |(i, piece): (usize, &[u8])| {
        all.put_u8(if i == 0 { S } else { 0 } | if discardable { N } else { 0 });
        all.put_slice(piece);
        all.split().freeze()
    };
    frame.chunks(size).enumerate().map(payload).collect()
}

#[derive(Debug, Default)]
pub(super) struct Vp8 {
    size: Option<(u32, u32)>,
}

#[derive(Debug, Default)]
pub(super) struct Part {
    discardable: bool,
    temporal_layer: u8,
}

/// What a payload descriptor (4.2) says, and what follows it.
struct Descriptor<'a> {
    start: bool,
    non_reference: bool,
    temporal_layer: u8,
    data: &'a [u8],
}

impl Descriptor<'_> {
    fn parse(payload: &[u8]) -> Option<Descriptor<'_>> {
        let mut b = Bits::new(payload);
        let extended = b.flag()?;
        b.skip(1)?;
        let non_reference = b.flag()?;
        let start = b.flag()?;
        b.skip(1)?;
        let partition = b.take(3)?;
        let mut temporal_layer = 0;
        if extended {
            let [id, tl0, tid, key_index] = [b.flag()?, b.flag()?, b.flag()?, b.flag()?];
            b.skip(4)?;
            if id {
                let long = b.flag()?;
                b.skip(if long { 15 } else { 7 })?;
            }
            b.skip(if tl0 { 8 } else { 0 })?;
            if tid || key_index {
                let layer = b.take(2)? as u8;
                temporal_layer = if tid { layer } else { 0 };
                b.skip(6)?;
            }
        }
        let data = payload.get(b.position() / 8..).filter(|d| !d.is_empty())?;
        Some(Descriptor { start: start && partition == 0, non_reference, temporal_layer, data })
    }
}

impl Format for Vp8 {
    type Part = Part;

    fn take(&mut self, frame: &mut Partial<Part>, payload: &[u8]) {
        let Some(d) = Descriptor::parse(payload) else {
            frame.damaged = true;
            return;
        };
        // The first payload of a frame begins its first partition, and no other does.
        if d.start != frame.out.is_empty() {
            frame.damaged = true;
        }
        if frame.out.is_empty() {
            frame.unsure = false;
            frame.part = Part { discardable: d.non_reference, temporal_layer: d.temporal_layer };
        }
        frame.out.extend_from_slice(d.data);
    }

    fn finish(&mut self, frame: Partial<Part>) -> Option<Whole> {
        let header = Vp8Frame::parse(&frame.out)?;
        let changed = header.key.is_some() && self.size != header.key;
        if changed {
            self.size = header.key;
        }
        Some(Whole {
            key: header.key.is_some(),
            discardable: frame.part.discardable && header.key.is_none(),
            temporal_layer: frame.part.temporal_layer,
            payload: frame.out.freeze(),
            params: changed.then_some(CodecParams::Vp8 { size: self.size }),
        })
    }
}
