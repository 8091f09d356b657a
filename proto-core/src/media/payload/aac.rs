//! AAC in `mpeg4-generic` (RFC 3640), without interleaving.

use super::{DepayDrops, Unit, sound};
use crate::media::track::CodecParams;
use crate::wire::aac::AudioSpecificConfig;
use crate::wire::bits::{BitWriter, Bits};
use bytes::{BufMut, Bytes, BytesMut};

/// One access unit as one payload, or as fragments that each say its whole length (3.2.3.3).
pub(super) fn packetise(unit: &[u8], size_length: usize, index_length: usize, most: usize) -> Vec<Bytes> {
    let header_bits = size_length + index_length;
    if unit.len() >> size_length.min(31) != 0 || header_bits > 32 {
        return Vec::new();
    }
    let mut head = BitWriter::default();
    head.put(16, header_bits as u32);
    head.put(size_length, unit.len() as u32);
    head.put(index_length, 0);
    let head = head.finish();
    let room = most.saturating_sub(head.len()).max(1);
    let payload = |piece: &[u8]| {
        let mut out = BytesMut::with_capacity(head.len() + piece.len());
        out.put_slice(&head);
        out.put_slice(piece);
        out.freeze()
    };
    unit.chunks(room).map(payload).collect()
}

#[derive(Debug)]
pub(super) struct AacDepay {
    params: Option<CodecParams>,
    /// Ticks of the RTP clock that an access unit lasts.
    ticks: u32,
    size_length: usize,
    index_length: usize,
    index_delta_length: usize,
    most_bytes: usize,
    /// Timestamp, whole length and what is there of a unit that comes in pieces.
    fragment: Option<(u32, usize, BytesMut)>,
    drops: DepayDrops,
}

/// What the track's parameters are, by its configuration, and how long an access unit lasts on a clock.
pub(super) fn params_of(asc: &[u8], clock_rate: u32) -> Option<(CodecParams, u32)> {
    let parsed = AudioSpecificConfig::parse(asc)?;
    let ticks = u64::from(parsed.frame_samples) * u64::from(clock_rate) / u64::from(parsed.core_rate);
    let asc = Bytes::copy_from_slice(asc);
    let params = CodecParams::Aac { asc, rate: parsed.rate, channels: parsed.channels };
    Some((params, u32::try_from(ticks).ok()?))
}

impl AacDepay {
    pub(super) fn new(asc: &[u8], clock_rate: u32, lengths: [u8; 3], most_bytes: usize) -> AacDepay {
        let (params, ticks) = params_of(asc, clock_rate).map_or((None, 1_024), |(p, t)| (Some(p), t));
        let [size_length, index_length, index_delta_length] = lengths.map(|n| usize::from(n.min(32)));
        AacDepay {
            params,
            ticks,
            size_length,
            index_length,
            index_delta_length,
            most_bytes,
            fragment: None,
            drops: DepayDrops::default(),
        }
    }

    pub(super) fn lost(&mut self) {
        if self.fragment.take().is_some() {
            self.drops.damaged += 1;
        }
    }

    pub(super) fn drops(&self) -> DepayDrops {
        self.drops
    }

    pub(super) fn push(&mut self, payload: &[u8], timestamp: u32, _marker: bool, emit: &mut dyn FnMut(Unit)) {
        if payload.is_empty() {
            return;
        }
        if self.take(payload, timestamp, emit).is_none() {
            self.drops.damaged += 1;
            self.fragment = None;
        }
    }

    fn take(&mut self, payload: &[u8], timestamp: u32, emit: &mut dyn FnMut(Unit)) -> Option<()> {
        let mut b = Bits::new(payload);
        let header_bits = b.take(16)? as usize;
        let mut data = payload.get(2 + header_bits.div_ceil(8)..)?;
        let (mut at, mut first) = (timestamp, true);
        while b.position() < 16 + header_bits {
            let size = b.take(self.size_length)? as usize;
            // An index that is not 0 would be interleaving, which was not agreed upon.
            let index = b.take(if first { self.index_length } else { self.index_delta_length })?;
            if index != 0 || b.position() > 16 + header_bits {
                return None;
            }
            if size > self.most_bytes {
                self.drops.too_large += 1;
                self.fragment = None;
                return Some(());
            }
            if size > data.len() || self.fragment.is_some() {
                // A fragment is alone in its packet, and is of something.
                return if first && size > 0 { self.fragment(timestamp, size, data, emit) } else { None };
            }
            first = false;
            let (unit, tail) = data.split_at_checked(size)?;
            data = tail;
            if !unit.is_empty() {
                self.unit(at, Bytes::copy_from_slice(unit), emit);
            }
            at = at.wrapping_add(self.ticks);
        }
        Some(())
    }

    fn fragment(
        &mut self,
        timestamp: u32,
        size: usize,
        data: &[u8],
        emit: &mut dyn FnMut(Unit),
    ) -> Option<()> {
        let (at, whole, mut held) = match self.fragment.take() {
            Some(held) if (held.0, held.1) == (timestamp, size) => held,
            Some(_) => {
                self.drops.damaged += 1;
                (timestamp, size, BytesMut::new())
            }
            None => (timestamp, size, BytesMut::new()),
        };
        held.extend_from_slice(data);
        match held.len().cmp(&whole) {
            std::cmp::Ordering::Less => self.fragment = Some((at, whole, held)),
            std::cmp::Ordering::Equal => self.unit(at, held.freeze(), emit),
            std::cmp::Ordering::Greater => return None,
        }
        Some(())
    }

    fn unit(&mut self, at: u32, unit: Bytes, emit: &mut dyn FnMut(Unit)) {
        emit(sound(at, unit, self.params.take()));
    }
}
