//! AV1 ("RTP Payload Format For AV1", AOM, 1.0).

use super::assemble::{Format, Partial, Whole};
use crate::media::av1::{SequenceState, TemporalUnit};
use crate::wire::av1::{Obu, ObuType, leb128, obus, put_leb128};
use bytes::{BufMut, Bytes, BytesMut};

/// The first element goes on with the packet before.
const Z: u8 = 0x80;
/// The last element goes on in the next packet.
const Y: u8 = 0x40;
/// The packet begins a coded video sequence.
const N: u8 = 0x08;

/// Cuts a temporal unit: elements with a length each (W = 0), packets filled up.
pub(super) fn packetise(unit: &[u8], key: bool, most: usize) -> Vec<Bytes> {
    let mut out: Vec<Bytes> = Vec::with_capacity(unit.len() / most + 1);
    let mut packet = BytesMut::with_capacity(most);
    packet.put_u8(if key { N } else { 0 });
    for obu in obus(unit).map_while(Result::ok).filter(|o| !o.kind.is_framing()) {
        // RTP tells the length, so that the OBU's own size field is left out (section 5).
        let mut element = BytesMut::with_capacity(2 + obu.payload.len());
        for (i, byte) in obu.header.iter().enumerate() {
            element.put_u8(if i == 0 { byte & !2 } else { *byte });
        }
        element.put_slice(obu.payload);
        let mut rest = &element[..];
        loop {
            let room = most.saturating_sub(packet.len());
            if room >= length_bytes(rest.len()) + rest.len() {
                put_leb128(&mut packet, rest.len());
                packet.put_slice(rest);
                break;
            }
            // Two bytes for a length and some of the element, or it begins in the next packet.
            if room > 2 {
                let (piece, tail) = rest.split_at_checked(room - 2).unwrap_or((rest, &[]));
                packet.put_u8((piece.len() & 0x7f) as u8 | 0x80);
                packet.put_u8((piece.len() >> 7) as u8);
                packet.put_slice(piece);
                rest = tail;
                if let Some(first) = packet.first_mut() {
                    *first |= Y;
                }
                out.push(packet.split().freeze());
                packet.put_u8(Z);
            } else {
                out.push(packet.split().freeze());
                packet.put_u8(0);
            }
        }
    }
    if packet.len() > 1 {
        out.push(packet.freeze());
    }
    out
}

fn length_bytes(len: usize) -> usize {
    if len < 0x80 { 1 } else { 2 + usize::from(len >= 0x4000) + usize::from(len >= 0x20_0000) }
}

/// The sequence header of a stream.
#[derive(Debug, Default)]
pub(super) struct Av1 {
    state: SequenceState,
}

#[derive(Debug, Default)]
pub(super) struct Part {
    begun: bool,
}

/// One element of a packet as an OBU of the temporal unit.
fn put_element(frame: &mut Partial<Part>, element: &[u8]) {
    match Obu::parse(element) {
        Some((obu, [])) if !obu.kind.is_framing() => {
            // What begins a coded video sequence is the first of its temporal unit.
            frame.unsure &= obu.kind != ObuType::SEQUENCE_HEADER;
            obu.put(&mut frame.out);
        }
        Some((_, [])) => {}
        _ => frame.damaged = true,
    }
}

impl Format for Av1 {
    type Part = Part;

    fn take(&mut self, frame: &mut Partial<Part>, payload: &[u8]) {
        let Some((&head, mut rest)) = payload.split_first() else { return };
        let first = !std::mem::replace(&mut frame.part.begun, true);
        if first {
            frame.unsure &= head & N == 0;
        }
        let continues = head & Z != 0;
        if continues != frame.fragment.is_some() {
            frame.damaged = true;
            frame.fragment = None;
        }
        let count = usize::from(head >> 4 & 3);
        let mut n = 0;
        while !rest.is_empty() {
            n += 1;
            let element = if n == count {
                std::mem::take(&mut rest)
            } else {
                let Some((element, tail)) = leb128(rest).and_then(|(len, r)| r.split_at_checked(len)) else {
                    frame.damaged = true;
                    return;
                };
                rest = tail;
                element
            };
            let goes_on = rest.is_empty() && head & Y != 0;
            if n == 1 && continues || goes_on {
                let mut whole = frame.fragment.take().unwrap_or_default();
                whole.extend_from_slice(element);
                if goes_on {
                    frame.fragment = Some(whole);
                } else {
                    put_element(frame, &whole);
                }
            } else if !element.is_empty() {
                put_element(frame, element);
            }
        }
        frame.damaged |= n < count;
    }

    fn finish(&mut self, frame: Partial<Part>) -> Option<Whole> {
        let TemporalUnit { key, payload, params } = self.state.unit(frame.out.freeze())?;
        Some(Whole { key, discardable: false, temporal_layer: 0, payload, params })
    }
}
