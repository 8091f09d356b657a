//! Coded packets into samples.

use audio_codec_algorithms::{decode_alaw, decode_ulaw};
use bytes::Bytes;
use nanomp3_core::{DecodeError, MAX_SAMPLES_PER_FRAME};
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
    /// Takes `n` samples of each of `channels` channels that come in turn.
    fn unweave(&mut self, channels: usize, n: usize, woven: impl Iterator<Item = f32>) {
        self.planes.resize_with(channels, Vec::new);
        for (i, sample) in woven.take(n * channels).enumerate() {
            if let Some(plane) = self.planes.get_mut(i % channels) {
                plane.push(sample);
            }
        }
    }

    /// Samples of each channel.
    pub(crate) fn len(&self) -> usize {
        self.planes.first().map_or(0, Vec::len)
    }
}

pub(crate) enum Decoder {
    Aac { decoder: Box<syom::Decoder>, asc: Bytes },
    Opus { decoder: opus::Decoder, channels: usize, scratch: Vec<f32> },
    Mp3 { decoder: Box<nanomp3_core::Decoder>, scratch: Vec<f32> },
    G711 { law: fn(u8) -> i16, channels: usize },
}

/// How many channels there are, of those who have one or two.
fn sides(channels: u8) -> usize {
    usize::from(channels.clamp(1, 2))
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
                let channels = sides(*channels);
                let layout = if channels == 1 { opus::Channels::Mono } else { opus::Channels::Stereo };
                let decoder =
                    opus::Decoder::new(48_000, layout).map_err(|e| format!("no Opus decoder: {e}"))?;
                Ok(Decoder::Opus { decoder, channels, scratch: vec![0.0; OPUS_MOST * channels] })
            }
            CodecParams::Mp3 { .. } => Ok(Decoder::Mp3 {
                decoder: Box::new(nanomp3_core::Decoder::new()),
                scratch: vec![0.0; MAX_SAMPLES_PER_FRAME],
            }),
            CodecParams::Pcma { channels } => {
                Ok(Decoder::G711 { law: decode_alaw, channels: sides(*channels) })
            }
            CodecParams::Pcmu { channels } => {
                Ok(Decoder::G711 { law: decode_ulaw, channels: sides(*channels) })
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
                out.unweave(*channels, n, scratch.iter().copied());
                Ok(())
            }
            Decoder::Mp3 { decoder, scratch } => match decoder.decode(packet, scratch).1 {
                Ok(info) => {
                    out.rate = info.sample_rate;
                    let channels = usize::from(info.channels.num());
                    out.unweave(channels, info.samples_produced, scratch.iter().copied());
                    Ok(())
                }
                // The first frames of a stream that was joined lean on ones that were not seen.
                Err(DecodeError::ReservoirUnavailable(_)) => Ok(()),
                Err(e) => Err(e.to_string()),
            },
            Decoder::G711 { law, channels } => {
                out.rate = 8_000;
                let woven = packet.iter().map(|byte| f32::from(law(*byte)) / 32_768.0);
                out.unweave(*channels, packet.len() / *channels, woven);
                Ok(())
            }
        }
    }
}
