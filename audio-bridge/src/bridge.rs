//! One bridge: decoder, mixer, line, encoder.

use crate::decode::{Decoder, Samples};
use crate::encode::{Encoder, FULL_RATE};
use crate::line::Line;
use crate::mix::mix;
use proto_core::bridge::{Bridged, Convert, Made, Packet};
use proto_core::media::track::{Codec, CodecParams};

/// Samples of a packet that cannot be decoded, while none was.
const fn guess(from: &CodecParams) -> usize {
    match from {
        CodecParams::Opus { .. } => 960,
        // ISO 11172-3 and 13818-3: half as many at the low rates.
        CodecParams::Mp3 { rate, .. } => {
            if *rate >= 32_000 {
                1_152
            } else {
                576
            }
        }
        CodecParams::Pcma { .. } | CodecParams::Pcmu { .. } => 160,
        _ => 1_024,
    }
}

/// One bridge of sound.
pub struct Bridge {
    decoder: Decoder,
    line: Line,
    encoder: Encoder,
    channels: usize,
    samples: Samples,
    mixed: Vec<Vec<f32>>,
    /// Samples of the latest packet that was decoded, and how many a second.
    latest: (usize, u32),
    /// The time of the latest packet given out.
    last: Option<i64>,
}

impl Bridge {
    /// A bridge for a source that announced `from`.
    ///
    /// # Errors
    /// In words, if one of the two codecs cannot be had.
    fn begin(from: &CodecParams, to: Codec) -> Result<Bridge, String> {
        let (channels, rate) = match from {
            // HE-AAC may say one channel and decode to two, so one is believed of plain AAC only, in the mixer. Nobody
            // hears a difference between one channel and two alike.
            CodecParams::Aac { channels, rate, .. } => (if *channels == 1 { 1 } else { 2 }, *rate),
            CodecParams::Opus { channels } => (usize::from((*channels).clamp(1, 2)), FULL_RATE),
            CodecParams::Mp3 { rate, channels } => (usize::from((*channels).clamp(1, 2)), *rate),
            CodecParams::Pcma { channels } | CodecParams::Pcmu { channels } => {
                (usize::from((*channels).clamp(1, 2)), 8_000)
            }
            other => return Err(format!("{} is no sound that a bridge can take", other.codec().name())),
        };
        let encoder = Encoder::open(to, channels)?;
        let channels = encoder.channels();
        Ok(Bridge {
            decoder: Decoder::open(from)?,
            line: Line::new(channels, encoder.frame(), encoder.rate()),
            encoder,
            channels,
            samples: Samples::default(),
            mixed: vec![Vec::new(); channels],
            latest: (guess(from), rate),
            last: None,
        })
    }

    fn encode(&mut self, out: &mut Vec<Packet>) -> Result<(), String> {
        let delay = self.encoder.delay() as i64 * 1_000_000_000 / i64::from(self.encoder.rate());
        while let Some(frame) = self.line.pop() {
            let data = self.encoder.encode(&frame.planes)?;
            let pts = frame.pts.saturating_sub(delay);
            // A source that jumps back overlaps with what was given out already.
            if self.last.is_none_or(|last| pts > last) {
                self.last = Some(pts);
                out.push(Packet { pts, data });
            }
        }
        Ok(())
    }
}

impl Convert for Bridge {
    fn open(from: &CodecParams, to: Codec, before: Option<Bridge>) -> Result<(Bridge, Option<Made>), String> {
        let last = before.and_then(|b| b.last);
        let bridge = Bridge { last, ..Bridge::begin(from, to)? };
        let made = bridge.encoder.made();
        Ok((bridge, Some(made)))
    }

    fn convert(&mut self, packets: &[Packet]) -> Result<Bridged, String> {
        let mut out = Bridged::default();
        for packet in packets {
            self.mixed.iter_mut().for_each(Vec::clear);
            match self.decoder.decode(&packet.data, &mut self.samples) {
                Ok(()) if self.samples.len() > 0 => {
                    self.latest = (self.samples.len(), self.samples.rate);
                    mix(&self.samples.planes, &mut self.mixed);
                }
                failed => {
                    out.undecodable += u64::from(failed.is_err());
                    self.mixed.iter_mut().for_each(|p| p.resize(self.latest.0, 0.0));
                }
            }
            debug_assert_eq!(self.mixed.len(), self.channels);
            self.line.push(packet.pts, self.latest.1, &self.mixed)?;
            self.encode(&mut out.packets)?;
        }
        Ok(out)
    }

    fn key_frame(&mut self) -> Result<(), String> {
        Err("sound has no key frames".to_owned())
    }
}
