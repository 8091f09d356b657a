//! H.264 frames into RTP payloads (RFC 6184, packetization mode 1).

use crate::wire::h264::length_prefixed;
use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of one RTP payload at most. With the RTP header (12), the MID extension (at most 20), the original
/// sequence number of a retransmission (2, RFC 4588) and the SRTP tag (16) a datagram stays within 1,200 bytes,
/// which every path carries.
pub const PAYLOAD_BYTES: usize = 1_150;

/// `nal_unit_type` of an aggregation packet without decoding order numbers (RFC 6184, 5.7.1).
pub const STAP_A: u8 = 24;
/// `nal_unit_type` of a fragment without decoding order number (RFC 6184, 5.8).
pub const FU_A: u8 = 28;
/// The start bit of an FU header.
pub const FU_START: u8 = 0x80;
/// The end bit of an FU header.
pub const FU_END: u8 = 0x40;

/// Cuts an access unit (NAL units with 4-byte lengths) into payloads of at most `most` bytes. `sets` are sent
/// before it as one aggregation packet (or one by one, where they do not fit into one): the parameter sets of a
/// key frame. All fragments of a NAL unit but the last have exactly `most` bytes, so that the kernel can be handed
/// them as one message. The caller sets the marker bit on the last payload.
///
/// A NAL unit whose length passes the end of the frame ends the frame. `most` is taken as 16 at least.
pub fn packetise(frame: &[u8], sets: &[Bytes], most: usize) -> Vec<Bytes> {
    let most = most.max(16);
    let mut out = Vec::with_capacity(frame.len() / most + 2);
    let aggregated = 1 + sets.iter().map(|s| 2 + s.len()).sum::<usize>();
    if sets.len() > 1 && aggregated <= most {
        let mut stap = BytesMut::with_capacity(aggregated);
        // F is the OR of all F bits, NRI the highest of all (5.7.1); parameter sets have the highest there is.
        let nri = sets.iter().filter_map(|s| s.first()).map(|b| b & 0x60).max().unwrap_or(0x60);
        stap.put_u8(nri | STAP_A);
        for set in sets {
            stap.put_u16(set.len() as u16);
            stap.put_slice(set);
        }
        out.push(stap.freeze());
    } else {
        for set in sets {
            put_unit(&mut out, set, most);
        }
    }
    for nal in length_prefixed(frame, 4).map_while(Result::ok) {
        put_unit(&mut out, nal, most);
    }
    out
}

fn put_unit(out: &mut Vec<Bytes>, nal: &[u8], most: usize) {
    let Some((&header, body)) = nal.split_first() else { return };
    if nal.len() <= most {
        out.push(Bytes::copy_from_slice(nal));
        return;
    }
    let room = most - 2;
    let count = body.len().div_ceil(room);
    for (i, piece) in body.chunks(room).enumerate() {
        let mut bits = header & 0x1f;
        if i == 0 {
            bits |= FU_START;
        }
        if i + 1 == count {
            bits |= FU_END;
        }
        let mut fu = BytesMut::with_capacity(2 + piece.len());
        fu.put_u8(header & 0xe0 | FU_A);
        fu.put_u8(bits);
        fu.put_slice(piece);
        out.push(fu.freeze());
    }
}
