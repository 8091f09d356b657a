//! Samples into coded packets.

use audio_codec_algorithms::{encode_alaw, encode_ulaw};
use bytes::Bytes;
use proto_core::bridge::Made;
use proto_core::media::track::Codec;

/// Samples a second that Opus and AAC are made of.
pub(crate) const FULL_RATE: u32 = 48_000;
/// Samples a second of G.711 (RFC 3551, 4.5.14).
const PHONE_RATE: u32 = 8_000;
/// Bits a second and channel of Opus and AAC: a rate at which music has no obvious faults.
const BITS: u32 = 64_000;
/// Of Opus's 0 to 10. 5 costs two thirds of 10 (88 µs for 20 ms of stereo on an AMD EPYC core, against 131), and most of what
/// the rest buys is for speech at low rates.
const COMPLEXITY: i32 = 5;
/// The most that one Opus packet of 20 ms can take (RFC 6716, 3.2.1: 1275 bytes).
const OPUS_MOST: usize = 1_275;

pub(crate) enum Encoder {
    Opus {
        encoder: opus::Encoder,
        channels: usize,
        delay: usize,
        woven: Vec<f32>,
    },
    Aac {
        encoder: Box<syom::Encoder>,
        channels: usize,
    },
    /// G.711, one channel: what WebRTC says of it (RFC 7874, section 3).
    G711 {
        law: fn(i16) -> u8,
    },
}

impl Encoder {
    /// An encoder for one or two channels; it may take fewer, see [`Encoder::channels`].
    pub(crate) fn open(to: Codec, channels: usize) -> Result<Encoder, String> {
        let bits = BITS * channels as u32;
        match to {
            Codec::Opus => {
                let layout = if channels == 1 { opus::Channels::Mono } else { opus::Channels::Stereo };
                let failed = |e: opus::Error| format!("no Opus encoder: {e}");
                let mut encoder =
                    opus::Encoder::new(FULL_RATE, layout, opus::Application::Audio).map_err(failed)?;
                encoder.set_bitrate(opus::Bitrate::Bits(bits as i32)).map_err(failed)?;
                encoder.set_complexity(COMPLEXITY).map_err(failed)?;
                let delay = usize::try_from(encoder.get_lookahead().map_err(failed)?).unwrap_or(0);
                Ok(Encoder::Opus { encoder, channels, delay, woven: Vec::new() })
            }
            Codec::Aac => {
                let options = syom::EncodeOptions::adts().with_bitrate_bps(bits);
                let encoder = syom::Encoder::new(FULL_RATE, channels, &options)
                    .map_err(|e| format!("no AAC encoder: {e}"))?;
                Ok(Encoder::Aac { encoder: Box::new(encoder), channels })
            }
            Codec::Pcma => Ok(Encoder::G711 { law: encode_alaw }),
            Codec::Pcmu => Ok(Encoder::G711 { law: encode_ulaw }),
            other => Err(format!("a bridge cannot make {}", other.name())),
        }
    }

    /// What a decoder of the packets must know.
    pub(crate) fn made(&self) -> Made {
        let config = match self {
            Encoder::Aac { encoder, .. } => Bytes::copy_from_slice(encoder.asc()),
            Encoder::Opus { .. } | Encoder::G711 { .. } => Bytes::new(),
        };
        Made { config, rate: self.rate(), channels: self.channels() as u8 }
    }

    /// Channels that it takes.
    pub(crate) const fn channels(&self) -> usize {
        match self {
            Encoder::Opus { channels, .. } | Encoder::Aac { channels, .. } => *channels,
            Encoder::G711 { .. } => 1,
        }
    }

    /// Samples a second that it takes.
    pub(crate) const fn rate(&self) -> u32 {
        match self {
            Encoder::Opus { .. } | Encoder::Aac { .. } => FULL_RATE,
            Encoder::G711 { .. } => PHONE_RATE,
        }
    }

    /// Samples of each channel in one packet.
    pub(crate) const fn frame(&self) -> usize {
        match self {
            Encoder::Opus { .. } => 960,
            Encoder::Aac { .. } => 1_024,
            // 20 ms, as RFC 3551, 4.2 recommends.
            Encoder::G711 { .. } => 160,
        }
    }

    /// How many samples later than they went in a decoder gives them out, counted within packets.
    pub(crate) const fn delay(&self) -> usize {
        match self {
            Encoder::Opus { delay, .. } => *delay,
            // The overlap of the transform (ISO 14496-3, 4.6.11): one frame.
            Encoder::Aac { .. } => 1_024,
            Encoder::G711 { .. } => 0,
        }
    }

    /// Encodes [`Encoder::frame`] samples from the front of each plane.
    pub(crate) fn encode(&mut self, planes: &[Vec<f32>]) -> Result<Bytes, String> {
        let n = self.frame();
        match self {
            Encoder::Opus { encoder, woven, .. } => {
                woven.clear();
                for i in 0..n {
                    woven.extend(planes.iter().map(|p| p.get(i).copied().unwrap_or(0.0)));
                }
                encoder.encode_vec_float(woven, OPUS_MOST).map(Bytes::from).map_err(|e| e.to_string())
            }
            Encoder::Aac { encoder, .. } => {
                let front: Vec<&[f32]> = planes.iter().map(|p| p.get(..n).unwrap_or_default()).collect();
                let mut unit = None;
                encoder
                    .feed(&front, |frame| {
                        unit = Some(Bytes::copy_from_slice(frame.payload));
                        Ok(())
                    })
                    .map_err(|e| e.to_string())?;
                unit.ok_or_else(|| "the AAC encoder kept a frame back".to_owned())
            }
            Encoder::G711 { law } => {
                let plane = planes.first().and_then(|p| p.get(..n)).unwrap_or_default();
                Ok(plane.iter().map(|s| law((s * f32::from(i16::MAX)) as i16)).collect())
            }
        }
    }
}
