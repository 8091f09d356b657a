//! Coded packets into samples.

use bytes::Bytes;
use proto_core::media::track::CodecParams;

/// The longest Opus packet (RFC 6716, 2.1.4): 120 ms at 48 kHz.
const OPUS_MOST: usize = 5_760;

/// Samples of one packet: one plane per channel, equal lengths.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    /// Samples a second.
    pub(crate) rate: u32,
    /// One plane per channel.
    pub(crate) planes: Vec<Vec<f32>>,
}

impl Samples {
    /// Samples of each channel.
    pub(crate) fn len(&self) -> usize {
        self.planes.first().map_or(0, Vec::len)
    }
}

pub(crate) enum Decoder {
    Aac { decoder: Box<syom::Decoder>, asc: Bytes },
    Opus { decoder: opus::Decoder, channels: usize, scratch: Vec<f32> },
}

impl Decoder {
    /// A decoder for what the source announced.
    pub(crate) fn open(params: &CodecParams) -> Result<Decoder, String> {
        match params {
            CodecParams::Aac { asc, .. } => {
                let decoder = syom::Decoder::from_asc(asc, syom::DecodeOptions::unbounded());
                let decoder = decoder.map_err(|e| {
                    format!("this kind of AAC cannot be decoded here ({e}); publish AAC-LC or HE-AAC")
                })?;
                Ok(Decoder::Aac { decoder: Box::new(decoder), asc: asc.clone() })
            }
            CodecParams::Opus { channels } => {
                let channels = usize::from((*channels).clamp(1, 2));
                let layout = if channels == 1 { opus::Channels::Mono } else { opus::Channels::Stereo };
                let decoder =
                    opus::Decoder::new(48_000, layout).map_err(|e| format!("no Opus decoder: {e}"))?;
                Ok(Decoder::Opus { decoder, channels, scratch: vec![0.0; OPUS_MOST * channels] })
            }
            other => Err(format!("{} is no sound that a bridge can take", other.codec().name())),
        }
    }

    /// Decodes one packet into `out`. After an error the next packet is decoded as if nothing had come before it.
    pub(crate) fn decode(&mut self, packet: &[u8], out: &mut Samples) -> Result<(), String> {
        out.planes.iter_mut().for_each(Vec::clear);
        match self {
            Decoder::Aac { decoder, asc } => {
                let decoded = decoder.decode_au(packet, |frame| {
                    out.rate = frame.sample_rate;
                    out.planes.resize_with(frame.planar.len(), Vec::new);
                    for (plane, samples) in out.planes.iter_mut().zip(frame.planar) {
                        plane.extend_from_slice(samples);
                    }
                    Ok(())
                });
                decoded.map_err(|e| {
                    // A decoder that failed takes nothing more.
                    if let Ok(fresh) = syom::Decoder::from_asc(asc, syom::DecodeOptions::unbounded()) {
                        **decoder = fresh;
                    }
                    e.to_string()
                })
            }
            Decoder::Opus { decoder, channels, scratch } => {
                let n = decoder.decode_float(packet, scratch, false).map_err(|e| e.to_string())?;
                out.rate = 48_000;
                out.planes.resize_with(*channels, Vec::new);
                for (c, plane) in out.planes.iter_mut().enumerate() {
                    plane.extend(scratch.iter().skip(c).step_by(*channels).take(n));
                }
                Ok(())
            }
        }
    }
}
