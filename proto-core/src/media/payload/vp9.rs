//! VP9 (RFC 9628).
//!
//! Out, as with VP8, without picture ids: non-flexible mode of one layer. Key frames bring a scalability structure with
//! the picture's size.

use super::assemble::{Format, Partial, Whole};
use super::equal;
use crate::media::track::CodecParams;
use crate::wire::bits::Bits;
use crate::wire::vp9::{Vp9Format, Vp9Frame};
use bytes::{BufMut, Bytes, BytesMut};

/// Inter-picture predicted.
const P: u8 = 0x40;
/// Start of a frame.
const B: u8 = 0x08;
/// End of a frame.
const E: u8 = 0x04;
/// A scalability structure follows.
const V: u8 = 0x02;
/// Bytes of the scalability structure that we write.
const STRUCTURE: usize = 5;

pub(super) fn packetise(frame: &[u8], key: bool, size: Option<(u32, u32)>, most: usize) -> Vec<Bytes> {
    let size = size.filter(|(w, h)| *w <= 0xffff && *h <= 0xffff);
    // What the first payload has in front of its piece counts as a part of it.
    let extra = if size.is_some() { STRUCTURE } else { 0 };
    let room = equal(frame.len() + extra, most - 1);
    let count = (frame.len() + extra).div_ceil(room);
    let mut all = BytesMut::with_capacity(frame.len() + extra + count);
    let mut out = Vec::with_capacity(count);
    let mut rest = frame;
    while !rest.is_empty() {
        let first = out.is_empty();
        let size = size.filter(|_| first);
        let piece = if size.is_some() { room.saturating_sub(STRUCTURE).max(1) } else { room };
        let (piece, tail) = rest.split_at_checked(piece).unwrap_or((rest, &[]));
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        all.put_u8(flag(!key, P) | flag(first, B) | flag(tail.is_empty(), E) | flag(size.is_some(), V));
        if let Some((width, height)) = size {
            // One spatial layer, its size, no picture group (4.2.1).
            all.put_u8(0x10);
            all.put_u16(width as u16);
            all.put_u16(height as u16);
        }
        all.put_slice(piece);
        out.push(all.split().freeze());
        rest = tail;
    }
    out
}

#[derive(Debug, Default)]
pub(super) struct Vp9 {
    known: Option<(Vp9Format, (u32, u32))>,
}

#[derive(Debug, Default)]
pub(super) struct Part {
    /// A layer's frame has begun and not ended.
    open: bool,
    temporal_layer: u8,
}

/// What a payload descriptor (4.2) says, and what follows it.
struct Descriptor<'a> {
    begins: bool,
    ends: bool,
    temporal_layer: u8,
    spatial_layer: u8,
    data: &'a [u8],
}

impl Descriptor<'_> {
    fn parse(payload: &[u8]) -> Option<Descriptor<'_>> {
        let mut b = Bits::new(payload);
        let [id, predicted, layers, flexible, begins, ends, structure, _] =
            [b.flag()?, b.flag()?, b.flag()?, b.flag()?, b.flag()?, b.flag()?, b.flag()?, b.flag()?];
        if id {
            let long = b.flag()?;
            b.skip(if long { 15 } else { 7 })?;
        }
        let (mut temporal_layer, mut spatial_layer) = (0, 0);
        if layers {
            temporal_layer = b.take(3)? as u8;
            b.skip(1)?;
            spatial_layer = b.take(3)? as u8;
            b.skip(1)?;
            if !flexible {
                b.skip(8)?;
            }
        }
        if flexible && predicted {
            let mut references = 0;
            loop {
                b.skip(7)?;
                references += 1;
                if !b.flag()? {
                    break;
                }
                if references == 3 {
                    return None;
                }
            }
        }
        if structure {
            let spatial = b.take(3)? as usize + 1;
            let (sizes, group) = (b.flag()?, b.flag()?);
            b.skip(3)?;
            b.skip(if sizes { spatial * 32 } else { 0 })?;
            for _ in 0..if group { b.take(8)? } else { 0 } {
                b.skip(4)?;
                let references = b.take(2)? as usize;
                b.skip(2 + references * 8)?;
            }
        }
        let data = payload.get(b.position() / 8..).filter(|d| !d.is_empty())?;
        Some(Descriptor { begins, ends, temporal_layer, spatial_layer, data })
    }
}

impl Format for Vp9 {
    type Part = Part;

    fn take(&mut self, frame: &mut Partial<Part>, payload: &[u8]) {
        let Some(d) = Descriptor::parse(payload) else {
            frame.damaged = true;
            return;
        };
        if frame.out.is_empty() {
            // A picture begins with its lowest layer.
            frame.damaged |= !d.begins || d.spatial_layer != 0;
            frame.unsure = false;
            frame.part.temporal_layer = d.temporal_layer;
        } else {
            frame.damaged |= d.begins == frame.part.open;
        }
        frame.part.open = !d.ends;
        frame.out.extend_from_slice(d.data);
    }

    fn finish(&mut self, frame: Partial<Part>) -> Option<Whole> {
        let header = Vp9Frame::parse(&frame.out).filter(|_| !frame.part.open)?;
        let mut params = None;
        let key = match header {
            Vp9Frame::Key { format, size } => {
                if self.known.replace((format, size)) != Some((format, size)) {
                    params = Some(CodecParams::Vp9 { format, size: Some(size) });
                }
                true
            }
            Vp9Frame::Inter => false,
        };
        Some(Whole {
            key,
            discardable: false,
            temporal_layer: frame.part.temporal_layer,
            payload: frame.out.freeze(),
            params,
        })
    }
}
