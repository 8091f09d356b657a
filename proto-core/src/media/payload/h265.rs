//! H.265 (RFC 7798), without decoding order numbers (`sprop-max-don-diff=0`, which is what everyone sends).

use super::assemble::{Format, Partial, Whole};
use super::nal::{FU_END, FU_START, Sets, aggregated, id, put_aggregated, put_fragments};
use crate::media::h265::h265_params;
use crate::wire::h264::{length_prefixed, put_nal};
use crate::wire::h265::{NalType, begins_picture, temporal_layer};
use bytes::{BufMut, Bytes, BytesMut};

/// Aggregation packet (4.4.2).
const AP: u8 = 48;
/// Fragmentation unit (4.4.3).
const FU: u8 = 49;

/// Cuts an access unit (NAL units with 4-byte lengths); `sets` as with H.264.
pub(super) fn packetise(frame: &[u8], sets: &[Bytes], most: usize) -> Vec<Bytes> {
    let mut out = Vec::with_capacity(frame.len() / most + 2);
    let size = 2 + sets.iter().map(|s| 2 + s.len()).sum::<usize>();
    if sets.len() > 1 && size <= most {
        let mut ap = BytesMut::with_capacity(size);
        // Layer 0, TID 1: the lowest of all (4.4.2).
        ap.put_slice(&[AP << 1, 1]);
        put_aggregated(&mut ap, sets);
        out.push(ap.freeze());
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
    let Some((&[first, second], body)) = nal.split_first_chunk::<2>() else { return };
    if nal.len() <= most {
        out.push(Bytes::copy_from_slice(nal));
    } else {
        let kind = NalType::of(nal).0;
        put_fragments(out, body, most, |bits| [first & 0x81 | FU << 1, second, kind | bits]);
    }
}

/// The parameter sets of a stream.
#[derive(Debug, Default)]
pub(super) struct H265 {
    vps: Sets,
    sps: Sets,
    pps: Sets,
    changed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Part {
    key: bool,
    slices: usize,
    temporal_layer: u8,
}

impl H265 {
    pub(super) fn preset(&mut self, vps: &[Bytes], sps: &[Bytes], pps: &[Bytes]) {
        for nal in vps.iter().chain(sps).chain(pps) {
            self.set(nal);
        }
    }

    fn set(&mut self, nal: &[u8]) {
        self.changed |= match NalType::of(nal) {
            // vps_video_parameter_set_id: 4 bits.
            NalType::VPS => self.vps.remember(nal.get(2).map(|b| u32::from(b >> 4)), nal),
            // The id stands behind profiles of unknown length; streams have one set, and a new one replaces it.
            NalType::SPS => self.sps.remember(Some(0), nal),
            NalType::PPS => self.pps.remember(id(nal, 2), nal),
            _ => false,
        };
    }

    fn take_nal(&mut self, frame: &mut Partial<Part>, nal: &[u8]) {
        let kind = NalType::of(nal);
        if nal.len() < 3 && !kind.is_framing() {
            frame.damaged = true;
            return;
        }
        match kind {
            NalType::VPS | NalType::SPS | NalType::PPS => self.set(nal),
            _ if kind.is_framing() => {}
            _ => {
                if kind.is_slice() {
                    if frame.part.slices == 0 && begins_picture(nal) {
                        frame.unsure = false;
                    }
                    frame.part.slices += 1;
                    frame.part.key |= kind.is_random_access();
                    frame.part.temporal_layer = temporal_layer(nal);
                }
                put_nal(&mut frame.out, nal);
                return;
            }
        }
        if frame.part.slices == 0 {
            frame.unsure = false;
        }
    }
}

impl Format for H265 {
    type Part = Part;

    fn take(&mut self, frame: &mut Partial<Part>, payload: &[u8]) {
        let Some((&[first, second], rest)) = payload.split_first_chunk::<2>() else {
            frame.damaged = true;
            return;
        };
        let kind = first >> 1 & 0x3f;
        if kind != FU && frame.fragment.take().is_some() {
            frame.damaged = true;
        }
        match kind {
            AP => {
                for nal in aggregated(rest) {
                    match nal {
                        Ok(nal) => self.take_nal(frame, nal),
                        Err(()) => frame.damaged = true,
                    }
                }
            }
            FU => {
                let Some((&fu, body)) = rest.split_first() else {
                    frame.damaged = true;
                    return;
                };
                if fu & FU_START != 0 {
                    frame.damaged |= frame.fragment.is_some();
                    frame.fragment = Some(BytesMut::from(&[first & 0x81 | (fu & 0x3f) << 1, second][..]));
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
            0..48 => self.take_nal(frame, payload),
            // PACI (4.4.4) is not negotiated; the others are unspecified.
            _ => frame.damaged = true,
        }
    }

    fn finish(&mut self, frame: Partial<Part>) -> Option<Whole> {
        if frame.part.slices == 0 {
            return None;
        }
        let known = !self.vps.is_empty() && !self.sps.is_empty() && !self.pps.is_empty();
        let changed = known && std::mem::take(&mut self.changed);
        Some(Whole {
            key: frame.part.key && known,
            // That no picture of the same layer refers to it does not say that none does.
            discardable: false,
            temporal_layer: frame.part.temporal_layer,
            payload: frame.out.freeze(),
            params: changed.then(|| h265_params(self.vps.all(), self.sps.all(), self.pps.all())),
        })
    }
}
