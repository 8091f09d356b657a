//! Media messages of a publisher into the media model.

use crate::error::Reason;
use crate::limits::Limits;
use crate::media::frame::{FrameKind, Ingest, NewFrame, Rotation};
use crate::media::h264::h264_params;
use crate::media::track::{CodecParams, TrackId};
use crate::wire::aac::AudioSpecificConfig;
use crate::wire::amf0::{self, Bounds};
use crate::wire::flv::{AudioTag, VideoTag, opus_head_channels};
use crate::wire::h264::{AvcConfig, NalType, annex_b, length_prefixed, nal_ref_idc, put_nal};
use crate::wire::rtmp_message::{Message, kind};
use bytes::{Bytes, BytesMut};

const MS: i64 = 1_000_000;

/// What came of one media message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// These go to the hub, in this order. May be none.
    Media(Vec<Ingest>),
    /// The message was left out, for this reason; the stream goes on.
    Dropped(&'static str),
}

/// Turns a publisher's messages into frames and configurations.
#[derive(Debug, Default)]
pub(super) struct Demuxer {
    clock: Clock,
    video: Option<VideoState>,
    audio: Option<CodecParams>,
}

#[derive(Debug)]
struct VideoState {
    length_size: usize,
    sps: Vec<Bytes>,
    pps: Vec<Bytes>,
}

/// RTMP's 32-bit milliseconds, which wrap after 49.7 days, as one line of time.
#[derive(Debug, Default)]
struct Clock {
    last: Option<i64>,
}

impl Clock {
    fn nanos(&mut self, timestamp: u32) -> i64 {
        let millis = match self.last {
            None => i64::from(timestamp),
            // The nearer way round: audio and video interleave, so that steps go back as well as forth.
            Some(last) => last.saturating_add(i64::from(timestamp.wrapping_sub(last as u32) as i32)),
        };
        self.last = Some(millis);
        millis.saturating_mul(MS)
    }
}

fn unsupported(what: &str, remedy: &str) -> Reason {
    Reason::peer("unsupported_codec", format!("{what} cannot be taken; {remedy}"))
}

fn unsupported_video(what: &str) -> Reason {
    unsupported(what, "send H.264 (in ffmpeg: -c:v libx264)")
}

fn unsupported_audio(what: &str) -> Reason {
    unsupported(
        what,
        "send AAC (in ffmpeg: -c:a aac) or Opus by Enhanced RTMP (ffmpeg 7.1 or later: -c:a libopus)",
    )
}

fn frame(track: TrackId, dts: i64, pts: i64, kind: FrameKind, payload: Bytes) -> Ingest {
    Ingest::Frame(NewFrame {
        track,
        dts,
        pts,
        kind,
        discardable: false,
        temporal_layer: 0,
        rotation: Rotation::R0,
        capture: None,
        payload,
    })
}

impl Demuxer {
    /// Takes an audio, video or data message.
    ///
    /// # Errors
    /// The publisher sends what we cannot carry; it must be told and the publishing ended.
    pub(super) fn take(&mut self, message: &Message, limits: &Limits) -> Result<Taken, Reason> {
        let time = self.clock.nanos(message.timestamp);
        match message.kind {
            kind::VIDEO => self.video(&message.payload, time, limits),
            kind::AUDIO => self.audio(&message.payload, time),
            _ => Ok(data(message, time, limits)),
        }
    }

    fn video(&mut self, payload: &Bytes, dts: i64, limits: &Limits) -> Result<Taken, Reason> {
        if payload.is_empty() {
            return Ok(Taken::Media(Vec::new()));
        }
        match VideoTag::parse(payload) {
            None => Ok(Taken::Dropped("a video message is cut short")),
            Some(VideoTag::Nothing) => Ok(Taken::Media(Vec::new())),
            Some(VideoTag::Unsupported(what)) => Err(unsupported_video(&what)),
            Some(VideoTag::AvcConfig(record)) => {
                let Some(config) = AvcConfig::parse(&record) else {
                    return Ok(Taken::Dropped("an H.264 sequence header cannot be read"));
                };
                let same =
                    self.video.as_ref().is_some_and(|v| (&v.sps, &v.pps) == (&config.sps, &config.pps));
                let AvcConfig { length_size, sps, pps } = config;
                let params = h264_params(sps.clone(), pps.clone());
                self.video = Some(VideoState { length_size, sps, pps });
                Ok(Taken::Media(if same {
                    Vec::new()
                } else {
                    vec![Ingest::Config { track: TrackId::VIDEO, params }]
                }))
            }
            Some(VideoTag::AvcFrame { composition, data, .. }) => {
                let Some(state) = &mut self.video else {
                    return Ok(Taken::Dropped("a picture came before the H.264 sequence header"));
                };
                let pts = dts.saturating_add(i64::from(composition).saturating_mul(MS));
                Ok(state.access_unit(&data, dts, pts, limits))
            }
        }
    }

    fn audio(&mut self, payload: &Bytes, dts: i64) -> Result<Taken, Reason> {
        if payload.is_empty() {
            return Ok(Taken::Media(Vec::new()));
        }
        let Some(tag) = AudioTag::parse(payload) else {
            return Ok(Taken::Dropped("an audio message is cut short"));
        };
        let params = match tag {
            AudioTag::Nothing => return Ok(Taken::Media(Vec::new())),
            AudioTag::Unsupported(what) => return Err(unsupported_audio(&what)),
            AudioTag::AacFrame(data) | AudioTag::OpusFrame(data) if data.is_empty() => {
                return Ok(Taken::Media(Vec::new()));
            }
            AudioTag::AacFrame(data) => {
                return Ok(match self.audio {
                    Some(CodecParams::Aac { .. }) => {
                        Taken::Media(vec![frame(TrackId::AUDIO, dts, dts, FrameKind::Audio, data)])
                    }
                    _ => Taken::Dropped("sound came before the AAC sequence header"),
                });
            }
            AudioTag::OpusFrame(data) => {
                return Ok(match self.audio {
                    Some(CodecParams::Opus { .. }) => {
                        Taken::Media(vec![frame(TrackId::AUDIO, dts, dts, FrameKind::Audio, data)])
                    }
                    _ => Taken::Dropped("sound came before the Opus sequence header"),
                });
            }
            AudioTag::AacConfig(asc) => {
                let Some(parsed) = AudioSpecificConfig::parse(&asc) else {
                    return Ok(Taken::Dropped("an AAC sequence header cannot be read"));
                };
                // The message's memory is shared; the few bytes that stay for the stream's life get their own.
                let asc = Bytes::copy_from_slice(&asc);
                CodecParams::Aac { asc, rate: parsed.rate, channels: parsed.channels }
            }
            AudioTag::OpusConfig(head) => {
                let channels = opus_head_channels(&head).unwrap_or(2);
                if channels > 2 {
                    return Err(unsupported_audio(&format!("Opus with {channels} channels")));
                }
                CodecParams::Opus { channels }
            }
        };
        if self.audio.as_ref() == Some(&params) {
            return Ok(Taken::Media(Vec::new()));
        }
        self.audio = Some(params.clone());
        Ok(Taken::Media(vec![Ingest::Config { track: TrackId::AUDIO, params }]))
    }
}

impl VideoState {
    fn access_unit(&mut self, data: &Bytes, dts: i64, pts: i64, limits: &Limits) -> Taken {
        let mut nals: Vec<&[u8]> = Vec::new();
        if length_prefixed(data, self.length_size).all(|n| n.map(|n| nals.push(n)).is_ok()) {
            // As the configuration says.
        } else if data.starts_with(&[0, 0, 1]) || data.starts_with(&[0, 0, 0, 1]) {
            // Some hardware encoders send start codes whatever their sequence header says.
            nals = annex_b(data).collect();
        } else {
            return Taken::Dropped("a NAL unit's length passes the end of its picture");
        }
        let (mut sps, mut pps) = (Vec::new(), Vec::new());
        let (mut idr, mut slices, mut referenced) = (false, false, false);
        let mut payload = BytesMut::new();
        for nal in nals {
            match NalType::of(nal) {
                NalType(0) | NalType::AUD | NalType::FILLER => {}
                NalType::SPS if nal.len() >= 4 => sps.push(Bytes::copy_from_slice(nal)),
                NalType::SPS => {}
                NalType::PPS => pps.push(Bytes::copy_from_slice(nal)),
                kind => {
                    if (1..=5).contains(&kind.0) {
                        slices = true;
                        referenced |= nal_ref_idc(nal) != 0;
                        idr |= kind == NalType::IDR;
                    }
                    put_nal(&mut payload, nal);
                    if payload.len() > limits.frame_bytes {
                        return Taken::Dropped("a picture is larger than limits.frame_bytes");
                    }
                }
            }
        }
        let mut out = Vec::new();
        if self.adopt(sps, pps) {
            let params = h264_params(self.sps.clone(), self.pps.clone());
            out.push(Ingest::Config { track: TrackId::VIDEO, params });
        }
        if slices {
            let kind = if idr { FrameKind::Key } else { FrameKind::Delta };
            let mut frame = frame(TrackId::VIDEO, dts, pts, kind, payload.freeze());
            if let Ingest::Frame(f) = &mut frame {
                f.discardable = !referenced;
            }
            out.push(frame);
        }
        Taken::Media(out)
    }

    /// Takes parameter sets that stand in front of a picture. `true` if they say something new.
    fn adopt(&mut self, sps: Vec<Bytes>, pps: Vec<Bytes>) -> bool {
        let new_sps = sps.iter().any(|s| !self.sps.contains(s));
        let new_pps = pps.iter().any(|p| !self.pps.contains(p));
        if new_sps {
            self.sps = sps;
        }
        if new_pps {
            self.pps = pps;
        }
        new_sps || new_pps
    }
}

/// A data message: what a player must get, without the `@setDataFrame` that is meant for the server.
fn data(message: &Message, time: i64, limits: &Limits) -> Taken {
    let mut payload = message.payload.clone();
    if message.kind == kind::DATA_AMF3 {
        if payload.first() != Some(&0) {
            return Taken::Dropped("a data message in AMF3");
        }
        payload = payload.slice(1..);
    }
    if payload.len() > limits.amf_command_bytes {
        return Taken::Dropped("a data message is larger than limits.amf_command_bytes");
    }
    let bounds = Bounds::of(limits, true);
    let Ok(values) = amf0::parse(&payload, bounds) else {
        return Taken::Dropped("a data message cannot be read");
    };
    match values.first().and_then(|v| v.as_str()) {
        Some("@setDataFrame") => {
            let Ok((_, first)) = amf0::parse_first(&payload, bounds) else {
                return Taken::Dropped("a data message cannot be read");
            };
            payload = payload.slice(first.min(payload.len())..);
        }
        Some("@clearDataFrame") => return Taken::Media(Vec::new()),
        _ => {}
    }
    if payload.is_empty() {
        return Taken::Media(Vec::new());
    }
    Taken::Media(vec![frame(TrackId::DATA, time, time, FrameKind::Data, payload)])
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#[path = "ingest_tests.rs"]
mod tests;
