//! AAC in `MP4A-LATM` (RFC 6416).

use super::aac::params_of;
use super::{DepayDrops, Unit, sound};
use crate::media::track::CodecParams;
use crate::wire::bits::Bits;
use crate::wire::latm::{MuxConfig, payload_length};
use bytes::{BufMut, Bytes, BytesMut};

/// One AudioMuxElement of one access unit without its configuration (`cpresent=0`), cut where it is too long.
pub(super) fn packetise(unit: &[u8], most: usize) -> Vec<Bytes> {
    let mut element = BytesMut::with_capacity(unit.len() + unit.len() / 255 + 1);
    element.put_bytes(255, unit.len() / 255);
    element.put_u8((unit.len() % 255) as u8);
    element.put_slice(unit);
    let mut rest = element.freeze();
    let mut out = Vec::new();
    while rest.len() > most {
        out.push(rest.split_to(most));
    }
    out.push(rest);
    out
}

#[derive(Debug)]
pub(super) struct LatmDepay {
    clock_rate: u32,
    in_band: bool,
    config: Option<MuxConfig>,
    known: Option<CodecParams>,
    news: Option<CodecParams>,
    ticks: u32,
    most_bytes: usize,
    /// Timestamp and what is there of an element that comes in pieces.
    element: Option<(u32, BytesMut)>,
    gap: bool,
    drops: DepayDrops,
}

impl LatmDepay {
    pub(super) fn new(config: Option<&[u8]>, clock_rate: u32, most_bytes: usize) -> LatmDepay {
        let mut depay = LatmDepay {
            clock_rate,
            in_band: config.is_none(),
            config: None,
            known: None,
            news: None,
            ticks: 1_024,
            most_bytes,
            element: None,
            gap: false,
            drops: DepayDrops::default(),
        };
        if let Some(config) = config.and_then(MuxConfig::parse) {
            depay.learn(config);
        }
        depay
    }

    fn learn(&mut self, config: MuxConfig) {
        if let Some((params, ticks)) = params_of(&config.asc, self.clock_rate) {
            self.ticks = ticks;
            if self.known.as_ref() != Some(&params) {
                self.known = Some(params.clone());
                self.news = Some(params);
            }
            self.config = Some(config);
        }
    }

    pub(super) fn lost(&mut self) {
        if self.element.take().is_some() {
            self.drops.damaged += 1;
        }
        self.gap = true;
    }

    pub(super) fn drops(&self) -> DepayDrops {
        self.drops
    }

    pub(super) fn push(&mut self, payload: &[u8], timestamp: u32, marker: bool, emit: &mut dyn FnMut(Unit)) {
        if payload.is_empty() {
            return;
        }
        if self.element.as_ref().is_some_and(|(at, _)| *at != timestamp) {
            // The end of the one before never came.
            self.element = None;
            self.drops.damaged += 1;
        }
        let (_, held) = self.element.get_or_insert_with(|| (timestamp, BytesMut::new()));
        if held.len() + payload.len() > self.most_bytes {
            self.element = None;
            self.drops.too_large += 1;
            return;
        }
        held.extend_from_slice(payload);
        if !marker {
            return;
        }
        let Some((at, element)) = self.element.take() else { return };
        // After a loss an element may lack its beginning, which shows in lengths that do not fit.
        let strict = std::mem::take(&mut self.gap);
        if self.element(&element, at, strict, emit).is_none() {
            self.drops.damaged += 1;
        }
    }

    fn element(&mut self, element: &[u8], at: u32, strict: bool, emit: &mut dyn FnMut(Unit)) -> Option<()> {
        let mut b = Bits::new(element);
        // useSameStreamMux
        if self.in_band && !b.flag()? {
            let config = MuxConfig::read(&mut b)?;
            self.learn(config);
        }
        let config = self.config.clone()?;
        let mut units = Vec::new();
        for _ in 0..config.sub_frames {
            let length = payload_length(&mut b)?;
            if b.left() < length.saturating_mul(8) {
                return None;
            }
            let unit: Vec<u8> = (0..length).map_while(|_| b.take(8).map(|n| n as u8)).collect();
            units.push(unit);
        }
        if strict && b.left() >= config.other_data_bits.saturating_add(8) {
            return None;
        }
        let mut time = at;
        for unit in units.into_iter().filter(|u| !u.is_empty()) {
            emit(sound(time, unit.into(), self.news.take()));
            time = time.wrapping_add(self.ticks);
        }
        Some(())
    }
}
