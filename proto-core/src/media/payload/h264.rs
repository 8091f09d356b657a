//! H.264 (RFC 6184): packetization mode 1 out, modes 0 and 1 in.

use super::assemble::{Format, Partial, Whole};
use super::nal::{FU_END, FU_START, Sets, aggregated, id, put_aggregated, put_fragments};
use crate::media::h264::h264_params;
use crate::wire::h264::{NalType, length_prefixed, nal_ref_idc, put_nal};
use bytes::{BufMut, Bytes, BytesMut};

/// `nal_unit_type` of an aggregation packet without decoding order numbers (RFC 6184, 5.7.1).
pub(super) const STAP_A: u8 = 24;
/// `nal_unit_type` of a fragment without decoding order number (RFC 6184, 5.8).
pub(super) const FU_A: u8 = 28;
const END_OF_SEQUENCE: NalType = NalType(10);
const END_OF_STREAM: NalType = NalType(11);

/// Cuts an access unit (NAL units with 4-byte lengths). `sets` are sent before it as one aggregation packet (or one by
/// one, where they do not fit into one): the parameter sets of a key frame.
///
/// A NAL unit whose length passes the end of the frame ends the frame.
pub(super) fn packetise(frame: &[u8], sets: &[Bytes], most: usize) -> Vec<Bytes> {
    let mut out = Vec::with_capacity(frame.len() / most + 2);
    let size = 1 + sets.iter().map(|s| 2 + s.len()).sum::<usize>();
    if sets.len() > 1 && size <= most {
        let mut stap = BytesMut::with_capacity(size);
        // F is the OR of all F bits, NRI the highest of all (5.7.1); parameter sets have the highest there is.
        let nri = sets.iter().filter_map(|s| s.first()).map(|b| b & 0x60).max().unwrap_or(0x60);
        stap.put_u8(nri | STAP_A);
        put_aggregated(&mut stap, sets);
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
    } else {
        put_fragments(out, body, most, |bits| [header & 0xe0 | FU_A, header & 0x1f | bits]);
    }
}

/// The parameter sets of a stream.
#[derive(Debug, Default)]
pub(super) struct H264 {
    sps: Sets,
    pps: Sets,
    changed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Part {
    key: bool,
    slices: usize,
    referred_to: bool,
}

impl H264 {
    pub(super) fn preset(&mut self, sps: &[Bytes], pps: &[Bytes]) {
        for nal in sps.iter().chain(pps) {
            self.set(nal);
        }
    }

    fn set(&mut self, nal: &[u8]) {
        self.changed |= match NalType::of(nal) {
            // profile_idc, constraint flags and level_idc come before seq_parameter_set_id (7.3.2.1.1).
            NalType::SPS => self.sps.remember(id(nal, 4), nal),
            NalType::PPS => self.pps.remember(id(nal, 1), nal),
            _ => false,
        };
    }

    fn take_nal(&mut self, frame: &mut Partial<Part>, nal: &[u8]) {
        let kind = NalType::of(nal);
        match kind {
            NalType::SPS | NalType::PPS => self.set(nal),
            NalType::AUD | NalType::FILLER | END_OF_SEQUENCE | END_OF_STREAM => {}
            _ => {
                if (1..=5).contains(&kind.0) {
                    // first_mb_in_slice = 0 is coded as a single 1 bit: this slice begins a picture.
                    if frame.part.slices == 0 && nal.get(1).is_some_and(|b| b & 0x80 != 0) {
                        frame.unsure = false;
                    }
                    frame.part.slices += 1;
                    frame.part.key |= kind == NalType::IDR;
                    frame.part.referred_to |= nal_ref_idc(nal) != 0;
                }
                put_nal(&mut frame.out, nal);
                return;
            }
        }
        // These stand before the first slice of a picture (7.4.1.2.3).
        if frame.part.slices == 0 {
            frame.unsure = false;
        }
    }
}

impl Format for H264 {
    type Part = Part;

    fn take(&mut self, frame: &mut Partial<Part>, payload: &[u8]) {
        let Some((&first, rest)) = payload.split_first() else { return };
        let kind = first & 0x1f;
        if kind != FU_A && frame.fragment.take().is_some() {
            frame.damaged = true;
        }
        match kind {
            1..=23 => self.take_nal(frame, payload),
            STAP_A => {
                for nal in aggregated(rest) {
                    match nal {
                        Ok(nal) => self.take_nal(frame, nal),
                        Err(()) => frame.damaged = true,
                    }
                }
            }
            FU_A => {
                let Some((&fu, body)) = rest.split_first() else {
                    frame.damaged = true;
                    return;
                };
                if fu & FU_START != 0 {
                    // A fragment that was never ended is a loss that the numbers did not show.
                    frame.damaged |= frame.fragment.is_some();
                    frame.fragment = Some(BytesMut::from(&[first & 0xe0 | fu & 0x1f][..]));
                }
                let Some(nal) = &mut frame.fragment else {
                    frame.damaged = true;
                    return;
                };
                nal.extend_from_slice(body);
                if fu & FU_END != 0
                    && let Some(nal) = frame.fragment.take()
                {
                    self.take_nal(frame, &nal);
                }
            }
            // STAP-B, MTAP and FU-B need the interleaved mode, which is never negotiated; 0, 30 and 31 are unused.
            _ => frame.damaged = true,
        }
    }

    fn finish(&mut self, frame: Partial<Part>) -> Option<Whole> {
        if frame.part.slices == 0 {
            // Parameter sets alone.
            return None;
        }
        let known = !self.sps.is_empty() && !self.pps.is_empty();
        let changed = known && std::mem::take(&mut self.changed);
        Some(Whole {
            key: frame.part.key && known,
            discardable: !frame.part.referred_to,
            temporal_layer: 0,
            payload: frame.out.freeze(),
            params: changed.then(|| h264_params(self.sps.all(), self.pps.all())),
        })
    }
}
