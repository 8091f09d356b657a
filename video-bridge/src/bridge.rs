//! One bridge: decoder, order, encoder.

use crate::encode::Encoder;
use crate::h265::H265;
use crate::order::{Order, Picture};
use bytes::Bytes;
use proto_core::bridge::{Bridged, Convert, Made, Packet};
use proto_core::media::track::{Codec, CodecParams};
use proto_core::wire::h264::{NalType, length_prefixed};
use proto_core::wire::h264_slice::ParameterSets;
use rusty_h264_decoder::Decoder;

/// Pictures closer than this are not all coded: a newcomer's cached group is squeezed, and only its end is worth coding.
const LEAST_STEP: i64 = 8_000_000;
/// What is held back where the parameter sets do not say how deep pictures are reordered: a pyramid needs 2.
const DEPTH: u32 = 3;
/// Our encoder has neither B-frames nor CABAC: for the same picture it needs so much of the source's bit rate, thirds.
const H264_MORE: u32 = 4;
const H265_MORE: u32 = 6;
/// The largest picture: that of level 5.1 at 16:9.
const MOST_PIXELS: u32 = 4096 * 2304;

/// One bridge of pictures.
pub struct Bridge {
    decoder: Decoding,
    encoder: Option<Encoder>,
    rate: Rate,
    /// Pictures are damaged until the next key frame.
    damaged: bool,
    wants_key: bool,
    /// The time of the latest picture given out.
    last: Option<i64>,
}

impl Bridge {
    /// A bridge for a source that announced `from`. Nothing is given out that is not later than `last`.
    ///
    /// # Errors
    /// In words, if such pictures cannot be converted.
    fn begin(from: &CodecParams, last: Option<i64>) -> Result<Bridge, String> {
        let (decoder, more_bits) = match from {
            CodecParams::H264 { sps, pps, .. } => (h264(sps, pps, last)?, H264_MORE),
            CodecParams::H265 { vps, sps, pps, size, .. } => {
                let (width, height) = size.ok_or("its parameter sets cannot be read")?;
                if width.saturating_mul(height) > MOST_PIXELS {
                    return Err(format!("{width}x{height} is too large"));
                }
                let sets = [vps, sps, pps].into_iter().flatten().cloned().collect();
                (Decoding::H265(Box::new(H265::new(sets))), H265_MORE)
            }
            other => return Err(format!("pictures of {} cannot be decoded here", other.codec().name())),
        };
        Ok(Bridge {
            decoder,
            encoder: None,
            rate: Rate { more_bits, ..Rate::default() },
            damaged: true,
            wants_key: true,
            last,
        })
    }

    fn decode(&mut self, unit: &Packet, shown: &mut Vec<Picture>, out: &mut Bridged) {
        let nals = || length_prefixed(&unit.data, 4).map_while(Result::ok);
        let key = match self.decoder {
            Decoding::H264 { .. } => nals().any(|n| NalType::of(n) == NalType::IDR),
            Decoding::H265(_) => H265::is_key(unit),
        };
        let anew = self.damaged;
        if key {
            self.damaged = false;
        } else if self.damaged {
            out.undecodable += 1;
            return;
        }
        self.rate.add(unit.data.len(), unit.pts);
        let decoded = match &mut self.decoder {
            Decoding::H264 { decoder, sets, order } => {
                let mut bytes = Vec::with_capacity(unit.data.len() + sets.len() + 16);
                if key {
                    bytes.extend_from_slice(sets);
                }
                nals().filter(|n| !n.is_empty()).for_each(|nal| put(&mut bytes, nal));
                match decoder.decode(&bytes) {
                    Ok(Some(frame)) => {
                        let late = !order.push(Picture { pts: unit.pts, key, frame }, shown);
                        out.undecodable += u64::from(late);
                        true
                    }
                    Ok(None) | Err(_) => false,
                }
            }
            Decoding::H265(decoder) => decoder.decode(unit, (key, anew), shown).is_ok(),
        };
        if !decoded {
            // What follows refers to it.
            out.undecodable += 1;
            self.damaged = true;
        }
    }

    fn encode(&mut self, picture: &Picture, out: &mut Bridged) -> Result<(), String> {
        let (width, height) = (picture.frame.width, picture.frame.height);
        let key = picture.key || self.wants_key;
        let squeezed = self.last.is_some_and(|last| picture.pts.saturating_sub(last) < LEAST_STEP);
        if squeezed && self.encoder.is_some() {
            // The key frame is that of the next one.
            self.wants_key |= key;
            return Ok(());
        }
        let (bits, pictures) = self.rate.of(width, height);
        let fits = |e: &Encoder| e.size() == (width, height) && !(key && e.is_far_from(bits));
        if !self.encoder.as_ref().is_some_and(fits) {
            self.encoder = Some(Encoder::open(width, height, bits, pictures)?);
        }
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        // The encoder leaves a picture out where its bit rate would be too high; then the key frame is still to come.
        self.wants_key = key;
        let Some(coded) = encoder.encode(&picture.frame, picture.pts, key)? else { return Ok(()) };
        self.wants_key &= !coded.key;
        if let Some(config) = coded.config {
            out.made = Some(Made { config, rate: 0, channels: 0 });
        }
        self.last = Some(picture.pts);
        out.packets.push(Packet { pts: picture.pts, data: coded.data });
        Ok(())
    }
}

/// What decodes, and how pictures come into their order.
enum Decoding {
    H264 {
        decoder: Box<Decoder>,
        /// The parameter sets in start code form, in front of each key frame.
        sets: Vec<u8>,
        order: Order,
    },
    H265(Box<H265>),
}

/// # Errors
/// In words, if such pictures cannot be converted.
fn h264(sps: &[Bytes], pps: &[Bytes], last: Option<i64>) -> Result<Decoding, String> {
    let known = ParameterSets::read(sps, pps);
    let mut depth = 0;
    if known.sequences().is_empty() {
        return Err("its parameter sets cannot be read".to_owned());
    }
    for info in known.sequences() {
        if !info.frames_only {
            return Err("it is interlaced; publish progressive pictures (ffmpeg: -vf yadif)".to_owned());
        }
        if !info.plain_colour {
            return Err("it is not 4:2:0 with eight bits (ffmpeg: -pix_fmt yuv420p)".to_owned());
        }
        if info.width.saturating_mul(info.height) > MOST_PIXELS {
            return Err(format!("{}x{} is too large", info.width, info.height));
        }
        depth = depth.max(info.max_num_reorder_frames.unwrap_or(DEPTH));
    }
    let mut sets = Vec::new();
    sps.iter().chain(pps).for_each(|nal| put(&mut sets, nal));
    Ok(Decoding::H264 { decoder: Box::new(Decoder::new()), sets, order: Order::new(depth, last) })
}

impl Convert for Bridge {
    fn open(from: &CodecParams, to: Codec, before: Option<Bridge>) -> Result<(Bridge, Option<Made>), String> {
        if to != Codec::H264 {
            return Err(format!("no bridge of pictures makes {}", to.name()));
        }
        Bridge::begin(from, before.and_then(|b| b.last)).map(|bridge| (bridge, None))
    }

    fn convert(&mut self, units: &[Packet]) -> Result<Bridged, String> {
        let mut out = Bridged::default();
        let mut shown = Vec::new();
        for unit in units {
            self.decode(unit, &mut shown, &mut out);
            for picture in shown.drain(..) {
                self.encode(&picture, &mut out)?;
            }
        }
        Ok(out)
    }

    fn key_frame(&mut self) -> Result<(), String> {
        self.wants_key = true;
        Ok(())
    }
}

fn put(out: &mut Vec<u8>, nal: &[u8]) {
    out.extend_from_slice(&[0, 0, 0, 1]);
    out.extend_from_slice(nal);
}

/// What the source sends, by the times at which its pictures are shown.
#[derive(Default)]
struct Rate {
    since: Option<i64>,
    newest: i64,
    bytes: u64,
    pictures: u64,
    /// Bits and pictures a second, as last measured.
    known: Option<(u32, f32)>,
    /// What is aimed at, thirds of that.
    more_bits: u32,
}

impl Rate {
    /// How long is measured, nanoseconds.
    const WINDOW: i64 = 2_000_000_000;

    fn add(&mut self, bytes: usize, pts: i64) {
        let since = *self.since.get_or_insert(pts);
        self.newest = self.newest.max(pts);
        let span = self.newest.saturating_sub(since);
        if !(0..5 * Self::WINDOW).contains(&span) {
            (self.since, self.newest, self.bytes, self.pictures) = (Some(pts), pts, 0, 0);
        } else if span >= Self::WINDOW {
            let seconds = span as f64 / 1e9;
            // A squeezed group, or a stall, is no measure.
            let pictures = (self.pictures as f64 / seconds) as f32;
            if (1.0..=125.0).contains(&pictures) {
                self.known = Some(((self.bytes as f64 * 8.0 / seconds) as u32, pictures));
            }
            (self.since, self.bytes, self.pictures) = (Some(self.newest), 0, 0);
        }
        self.bytes += bytes as u64;
        self.pictures += 1;
    }

    /// Bits and pictures a second to aim at.
    fn of(&self, width: usize, height: usize) -> (u32, f32) {
        let pixels = (width * height) as u64;
        let guess = u32::try_from(pixels * 3).unwrap_or(u32::MAX);
        let (bits, pictures) = self.known.unwrap_or((guess, 30.0));
        let most = u32::try_from(pixels * 30).unwrap_or(u32::MAX).max(200_000);
        ((bits / 3).saturating_mul(self.more_bits).clamp(100_000, most), pictures)
    }
}

/// The record that the node reads parameter sets out of.
pub(crate) fn record(sps: &[Bytes], pps: &[Bytes]) -> Bytes {
    proto_core::wire::h264::AvcConfig::emit(sps, pps)
}
