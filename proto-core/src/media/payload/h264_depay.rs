//! RTP payloads into H.264 access units (RFC 6184, packetization modes 0 and 1).
//!
//! What comes out can be decoded: after any loss nothing does until a whole IDR access unit has arrived.

use super::h264::{FU_A, FU_END, FU_START, STAP_A};
use crate::wire::h264::{NalType, nal_ref_idc, put_nal};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;

/// The most parameter sets of each kind that are remembered (ITU-T H.264, 7.4.2: SPS ids go to 31; more than 32
/// PPS in use at once are not seen).
const SETS_MAX: usize = 32;
const END_OF_SEQUENCE: NalType = NalType(10);
const END_OF_STREAM: NalType = NalType(11);

/// A whole access unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessUnit {
    /// The RTP timestamp of all its packets, 90 kHz.
    pub timestamp: u32,
    /// It is an IDR picture.
    pub key: bool,
    /// No slice of it is referred to.
    pub discardable: bool,
    /// NAL units with 4-byte lengths, without parameter sets, delimiters and filler.
    pub payload: Bytes,
    /// All parameter sets in force (SPS, PPS), if they changed since the last unit that carried them here.
    pub sets: Option<(Vec<Bytes>, Vec<Bytes>)>,
}

/// Why access units were left out, and how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DepayDrops {
    /// Packets of theirs were lost, or made no sense.
    pub damaged: u64,
    /// Whole, but the pictures that they refer to are missing.
    pub undecodable: u64,
    /// They passed the limit of bytes or packets.
    pub too_large: u64,
}

/// Assembles access units out of payloads that come in order.
#[derive(Debug)]
pub struct H264Depay {
    most_bytes: usize,
    most_packets: usize,
    unit: Option<Unit>,
    /// The packet before this one was lost: whatever begins now may lack its beginning.
    gap: bool,
    /// Nothing but an IDR picture can be decoded.
    need_key: bool,
    sps: BTreeMap<u32, Bytes>,
    pps: BTreeMap<u32, Bytes>,
    sets_changed: bool,
    drops: DepayDrops,
}

#[derive(Debug)]
struct Unit {
    timestamp: u32,
    out: BytesMut,
    fragment: Option<BytesMut>,
    packets: usize,
    key: bool,
    slices: usize,
    referred_to: bool,
    damaged: bool,
    too_large: bool,
    /// It began after a gap, and nothing has shown yet that its first packets are here.
    unsure: bool,
}

impl H264Depay {
    /// An assembler for access units of at most `most_bytes` bytes and `most_packets` packets.
    pub fn new(most_bytes: usize, most_packets: usize) -> H264Depay {
        H264Depay {
            most_bytes,
            most_packets,
            unit: None,
            gap: false,
            need_key: true,
            sps: BTreeMap::new(),
            pps: BTreeMap::new(),
            sets_changed: false,
            drops: DepayDrops::default(),
        }
    }

    /// Packets before the next one are lost.
    pub fn lost(&mut self) {
        self.gap = true;
        self.need_key = true;
        if let Some(unit) = &mut self.unit {
            unit.damaged = true;
        }
    }

    /// Nothing can be decoded until the publisher sends a key frame.
    pub fn needs_key(&self) -> bool {
        self.need_key
    }

    /// What was left out so far.
    pub fn drops(&self) -> DepayDrops {
        self.drops
    }

    /// Takes the next payload and gives each access unit that it ends to `emit`: the one before it, where the
    /// timestamp changes without a marker, and its own, where it has the marker.
    pub fn push(&mut self, payload: &[u8], timestamp: u32, marker: bool, mut emit: impl FnMut(AccessUnit)) {
        if self.unit.as_ref().is_some_and(|u| u.timestamp != timestamp)
            && let Some(unit) = self.finish()
        {
            emit(unit);
        }
        if payload.is_empty() {
            // Padding (bandwidth probes) belongs to no picture.
            return;
        }
        let mut unit = match self.unit.take() {
            Some(unit) => unit,
            None => Unit::new(timestamp, std::mem::take(&mut self.gap)),
        };
        unit.packets += 1;
        self.take_payload(&mut unit, payload);
        let held = unit.out.len() + unit.fragment.as_ref().map_or(0, BytesMut::len);
        if unit.packets > self.most_packets || held > self.most_bytes {
            unit.too_large = true;
            unit.out.clear();
            unit.fragment = None;
        }
        self.unit = Some(unit);
        if marker && let Some(unit) = self.finish() {
            emit(unit);
        }
    }

    fn take_payload(&mut self, unit: &mut Unit, payload: &[u8]) {
        let Some((&first, rest)) = payload.split_first() else { return };
        let kind = first & 0x1f;
        if kind != FU_A && unit.fragment.take().is_some() {
            unit.damaged = true;
        }
        match kind {
            1..=23 => self.take_nal(unit, payload),
            STAP_A => {
                let mut rest = rest;
                while !rest.is_empty() {
                    let nal = rest
                        .split_first_chunk::<2>()
                        .and_then(|(len, tail)| tail.split_at_checked(usize::from(u16::from_be_bytes(*len))));
                    let Some((nal, tail)) = nal.filter(|(nal, _)| !nal.is_empty()) else {
                        unit.damaged = true;
                        return;
                    };
                    self.take_nal(unit, nal);
                    rest = tail;
                }
            }
            FU_A => {
                let Some((&fu, body)) = rest.split_first() else {
                    unit.damaged = true;
                    return;
                };
                if fu & FU_START != 0 {
                    // A fragment that was never ended is a loss that the numbers did not show.
                    unit.damaged |= unit.fragment.is_some();
                    let mut nal = BytesMut::with_capacity(body.len() + 1);
                    nal.extend_from_slice(&[first & 0xe0 | fu & 0x1f]);
                    unit.fragment = Some(nal);
                }
                let Some(nal) = &mut unit.fragment else {
                    unit.damaged = true;
                    return;
                };
                if !unit.too_large {
                    nal.extend_from_slice(body);
                }
                if fu & FU_END != 0
                    && let Some(nal) = unit.fragment.take()
                {
                    self.take_nal(unit, &nal);
                }
            }
            // STAP-B, MTAP and FU-B need the interleaved mode, which is never negotiated; 0, 30 and 31 are unused.
            _ => unit.damaged = true,
        }
    }

    fn take_nal(&mut self, unit: &mut Unit, nal: &[u8]) {
        let kind = NalType::of(nal);
        match kind {
            NalType::SPS => {
                // profile_idc, constraint flags and level_idc come before seq_parameter_set_id (7.3.2.1.1).
                let id = nal.get(4..).and_then(ue);
                self.sets_changed |= remember(&mut self.sps, id, nal);
            }
            NalType::PPS => {
                let id = nal.get(1..).and_then(ue);
                self.sets_changed |= remember(&mut self.pps, id, nal);
            }
            NalType::AUD | NalType::FILLER | END_OF_SEQUENCE | END_OF_STREAM => {}
            _ => {
                let slice = (1..=5).contains(&kind.0);
                if slice {
                    // first_mb_in_slice = 0 is coded as a single 1 bit: this slice begins a picture.
                    if unit.slices == 0 && nal.get(1).is_some_and(|b| b & 0x80 != 0) {
                        unit.unsure = false;
                    }
                    unit.slices += 1;
                    unit.key |= kind == NalType::IDR;
                    unit.referred_to |= nal_ref_idc(nal) != 0;
                }
                if !unit.too_large {
                    put_nal(&mut unit.out, nal);
                }
                return;
            }
        }
        // These stand before the first slice of a picture (7.4.1.2.3).
        if unit.slices == 0 {
            unit.unsure = false;
        }
    }

    fn finish(&mut self) -> Option<AccessUnit> {
        let unit = self.unit.take()?;
        if unit.too_large {
            self.drops.too_large += 1;
            self.need_key = true;
            return None;
        }
        if unit.damaged || unit.unsure || unit.fragment.is_some() {
            self.drops.damaged += 1;
            self.need_key = true;
            return None;
        }
        if unit.slices == 0 {
            // Parameter sets alone.
            return None;
        }
        if self.need_key && !(unit.key && !self.sps.is_empty() && !self.pps.is_empty()) {
            self.drops.undecodable += 1;
            return None;
        }
        self.need_key = false;
        let sets = std::mem::take(&mut self.sets_changed)
            .then(|| (self.sps.values().cloned().collect(), self.pps.values().cloned().collect()));
        Some(AccessUnit {
            timestamp: unit.timestamp,
            key: unit.key,
            discardable: !unit.referred_to,
            payload: unit.out.freeze(),
            sets,
        })
    }
}

impl Unit {
    fn new(timestamp: u32, after_gap: bool) -> Unit {
        Unit {
            timestamp,
            out: BytesMut::new(),
            fragment: None,
            packets: 0,
            key: false,
            slices: 0,
            referred_to: false,
            damaged: false,
            too_large: false,
            unsure: after_gap,
        }
    }
}

fn remember(sets: &mut BTreeMap<u32, Bytes>, id: Option<u32>, nal: &[u8]) -> bool {
    let Some(id) = id else { return false };
    let known = sets.get(&id);
    if known.is_some_and(|s| s == nal) || (known.is_none() && sets.len() >= SETS_MAX) {
        return false;
    }
    sets.insert(id, Bytes::copy_from_slice(nal));
    true
}

/// The first ue(v) of a bit string (ITU-T H.264, 9.1), as far as ids need it: below 2^16.
fn ue(bits: &[u8]) -> Option<u32> {
    let bit = |n: usize| bits.get(n / 8).map(|b| u32::from(b >> (7 - n % 8) & 1));
    let zeros = (0..=15).take_while(|n| bit(*n) == Some(0)).count();
    if zeros > 15 {
        return None;
    }
    let mut value = 0;
    for n in zeros..=zeros * 2 {
        value = value << 1 | bit(n)?;
    }
    value.checked_sub(1)
}

#[cfg(test)]
#[path = "h264_tests.rs"]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
