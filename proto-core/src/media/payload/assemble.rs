//! What all payload formats of pictures have in common: timestamps and markers that end a frame, losses, limits, and the
//! wait for a key frame.

use super::{DepayDrops, Unit};
use crate::media::frame::FrameKind;
use crate::media::track::CodecParams;
use bytes::{Bytes, BytesMut};

/// One payload format.
pub(super) trait Format: Default {
    /// What it remembers of the frame that is being put together.
    type Part: Default;

    /// Takes the next payload of a frame.
    fn take(&mut self, frame: &mut Partial<Self::Part>, payload: &[u8]);

    /// Looks at a frame whose packets are all there. `None` if there is nothing to show in it.
    fn finish(&mut self, frame: Partial<Self::Part>) -> Option<Whole>;
}

/// A frame that is being put together.
#[derive(Debug, Default)]
pub(super) struct Partial<P> {
    timestamp: u32,
    packets: usize,
    too_large: bool,
    /// What stands so far.
    pub(super) out: BytesMut,
    /// A piece (NAL unit, OBU) that is not whole yet.
    pub(super) fragment: Option<BytesMut>,
    /// Something makes no sense or is missing.
    pub(super) damaged: bool,
    /// It began after a gap, and nothing has shown yet that its first packets are here.
    pub(super) unsure: bool,
    pub(super) part: P,
}

/// A frame whose packets were all there.
#[derive(Debug)]
pub(super) struct Whole {
    /// A decoder can start here.
    pub(super) key: bool,
    pub(super) discardable: bool,
    pub(super) temporal_layer: u8,
    pub(super) payload: Bytes,
    /// The track's parameters, where they changed. Needed with the first key frame.
    pub(super) params: Option<CodecParams>,
}

#[derive(Debug)]
pub(super) struct Assembler<F: Format> {
    format: F,
    most_bytes: usize,
    most_packets: usize,
    frame: Option<Partial<F::Part>>,
    /// The packet before this one was lost: whatever begins now may lack its beginning.
    gap: bool,
    /// Nothing but a key frame can be decoded.
    need_key: bool,
    /// Parameters that have not been told yet: they came with a picture that could not be used.
    params: Option<CodecParams>,
    drops: DepayDrops,
}

impl<F: Format> Assembler<F> {
    pub(super) fn new(most_bytes: usize, most_packets: usize) -> Assembler<F> {
        Assembler {
            format: F::default(),
            most_bytes,
            most_packets,
            frame: None,
            gap: false,
            need_key: true,
            params: None,
            drops: DepayDrops::default(),
        }
    }

    pub(super) fn format_mut(&mut self) -> &mut F {
        &mut self.format
    }

    pub(super) fn lost(&mut self) {
        self.gap = true;
        self.need_key = true;
        if let Some(frame) = &mut self.frame {
            frame.damaged = true;
        }
    }

    pub(super) fn needs_key(&self) -> bool {
        self.need_key
    }

    pub(super) fn drops(&self) -> DepayDrops {
        self.drops
    }

    pub(super) fn push(&mut self, payload: &[u8], timestamp: u32, marker: bool, emit: &mut dyn FnMut(Unit)) {
        if self.frame.as_ref().is_some_and(|f| f.timestamp != timestamp)
            && let Some(unit) = self.finish()
        {
            emit(unit);
        }
        if payload.is_empty() {
            // Padding (bandwidth probes) belongs to no picture.
            return;
        }
        let mut frame = match self.frame.take() {
            Some(frame) => frame,
            None => Partial { timestamp, unsure: std::mem::take(&mut self.gap), ..Partial::default() },
        };
        frame.packets += 1;
        if !frame.too_large {
            self.format.take(&mut frame, payload);
        }
        let held = frame.out.len() + frame.fragment.as_ref().map_or(0, BytesMut::len);
        if frame.packets > self.most_packets || held > self.most_bytes {
            frame.too_large = true;
            frame.out = BytesMut::new();
            frame.fragment = None;
        }
        self.frame = Some(frame);
        if marker && let Some(unit) = self.finish() {
            emit(unit);
        }
    }

    fn finish(&mut self) -> Option<Unit> {
        let frame = self.frame.take()?;
        if frame.too_large {
            self.drops.too_large += 1;
            self.need_key = true;
            return None;
        }
        if frame.damaged || frame.unsure || frame.fragment.is_some() {
            self.drops.damaged += 1;
            self.need_key = true;
            return None;
        }
        let timestamp = frame.timestamp;
        let whole = self.format.finish(frame)?;
        // They are told once: with the first picture that is handed on after they changed.
        self.params = whole.params.or(self.params.take());
        if self.need_key && !whole.key {
            self.drops.undecodable += 1;
            return None;
        }
        self.need_key = false;
        Some(Unit {
            timestamp,
            kind: if whole.key { FrameKind::Key } else { FrameKind::Delta },
            discardable: whole.discardable,
            temporal_layer: whole.temporal_layer,
            payload: whole.payload,
            params: self.params.take(),
        })
    }
}
