//! Media messages of a publisher into the media model.

use crate::error::Reason;
use crate::limits::Limits;
use crate::media::frame::{FrameKind, Ingest, NewFrame, Rotation};
use crate::media::payload::g711_frames;
use crate::media::track::{Codec, CodecParams, TrackId};
use crate::wire::aac::AudioSpecificConfig;
use crate::wire::amf0::{self, Bounds};
use crate::wire::flv::{AudioTag, VideoTag, opus_head_channels};
use crate::wire::mp3::Mp3Header;
use crate::wire::rtmp_message::{Message, kind};
use bytes::Bytes;
use std::collections::BTreeMap;
use video::VideoState;

mod video;

const MS: i64 = 1_000_000;

/// What came of one media message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// These go to the hub, in this order. May be none.
    Media(Vec<Ingest>),
    /// The message was left out, for this reason; the stream goes on.
    Dropped(&'static str),
    /// Of several tracks some were left out.
    Part(Vec<Ingest>, &'static str),
}

impl Taken {
    /// What came of several tracks together.
    fn of_all(each: impl Iterator<Item = Taken>) -> Taken {
        let (mut items, mut left_out) = (Vec::new(), None);
        for taken in each {
            match taken {
                Taken::Media(more) => items.extend(more),
                Taken::Dropped(why) => left_out = Some(why),
                Taken::Part(more, why) => {
                    items.extend(more);
                    left_out = Some(why);
                }
            }
        }
        match left_out {
            None => Taken::Media(items),
            Some(why) if items.is_empty() => Taken::Dropped(why),
            Some(why) => Taken::Part(items, why),
        }
    }
}

/// Turns a publisher's messages into frames and configurations.
#[derive(Debug, Default)]
pub(super) struct Demuxer {
    clock: Clock,
    /// By the number that a multitrack message gives the track; messages of one track are of number 0.
    video: BTreeMap<u8, VideoState>,
    audio: BTreeMap<u8, CodecParams>,
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
    unsupported(
        what,
        "send H.264 (in ffmpeg: -c:v libx264), or H.265, AV1, VP9 or VP8 by Enhanced RTMP (ffmpeg 6.1 or later)",
    )
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
            Some(tag) => self.video_tag(tag, 0, dts, limits),
        }
    }

    fn video_tag(&mut self, tag: VideoTag, number: u8, dts: i64, limits: &Limits) -> Result<Taken, Reason> {
        let Some(track) = TrackId::video(number) else { return Ok(Taken::Dropped(FAR_TRACK)) };
        match tag {
            VideoTag::Nothing => Ok(Taken::Media(Vec::new())),
            // What is not the default track may be in a codec that others have a use for.
            VideoTag::Unsupported(_) if number > 0 => Ok(Taken::Dropped(OTHER_CODEC)),
            VideoTag::Unsupported(what) => Err(unsupported_video(&what)),
            VideoTag::Offset { nanos, tag } => {
                self.video_tag(*tag, number, dts.saturating_add(i64::from(nanos)), limits)
            }
            VideoTag::Tracks(all) => {
                let each = all.into_iter().map(|(number, tag)| self.video_tag(tag, number, dts, limits));
                Ok(Taken::of_all(each.collect::<Result<Vec<_>, _>>()?.into_iter()))
            }
            VideoTag::Config { codec, record } => {
                Ok(VideoState::configure(&mut self.video, track, number, codec, &record))
            }
            VideoTag::Frame { codec, composition, data, .. } => {
                // VP8 and VP9 need no sequence header.
                if matches!(codec, Codec::Vp8 | Codec::Vp9)
                    && self.video.get(&number).is_none_or(|v| v.codec() != codec)
                {
                    VideoState::configure(&mut self.video, track, number, codec, &[]);
                }
                match self.video.get_mut(&number).filter(|v| v.codec() == codec) {
                    Some(state) => Ok(state.picture(track, &data, dts, composition, limits)),
                    None => Ok(Taken::Dropped("a picture came before its sequence header")),
                }
            }
        }
    }

    fn audio(&mut self, payload: &Bytes, dts: i64) -> Result<Taken, Reason> {
        if payload.is_empty() {
            return Ok(Taken::Media(Vec::new()));
        }
        match AudioTag::parse(payload) {
            None => Ok(Taken::Dropped("an audio message is cut short")),
            Some(tag) => self.audio_tag(tag, 0, dts),
        }
    }

    fn audio_tag(&mut self, tag: AudioTag, number: u8, dts: i64) -> Result<Taken, Reason> {
        match tag {
            AudioTag::Nothing => Ok(Taken::Media(Vec::new())),
            AudioTag::Unsupported(_) if number > 0 => Ok(Taken::Dropped(OTHER_CODEC)),
            AudioTag::Unsupported(what) => Err(unsupported_audio(&what)),
            AudioTag::Offset { nanos, tag } => {
                self.audio_tag(*tag, number, dts.saturating_add(i64::from(nanos)))
            }
            AudioTag::Tracks(all) => {
                let each = all.into_iter().map(|(number, tag)| self.audio_tag(tag, number, dts));
                Ok(Taken::of_all(each.collect::<Result<Vec<_>, _>>()?.into_iter()))
            }
            AudioTag::Config { codec, record } => {
                let params = match codec {
                    Codec::Aac => {
                        let Some(parsed) = AudioSpecificConfig::parse(&record) else {
                            return Ok(Taken::Dropped("an AAC sequence header cannot be read"));
                        };
                        // The message's memory is shared; the few bytes that stay for the stream's life get their own.
                        let asc = Bytes::copy_from_slice(&record);
                        CodecParams::Aac { asc, rate: parsed.rate, channels: parsed.channels }
                    }
                    Codec::Opus => {
                        let channels = opus_head_channels(&record).unwrap_or(2);
                        if channels > 2 {
                            return Err(unsupported_audio(&format!("Opus with {channels} channels")));
                        }
                        CodecParams::Opus { channels }
                    }
                    // The others say everything in their frames.
                    _ => return Ok(Taken::Media(Vec::new())),
                };
                Ok(Taken::Media(self.sound_is(number, params).into_iter().collect()))
            }
            AudioTag::Frame { data, .. } if data.is_empty() => Ok(Taken::Media(Vec::new())),
            AudioTag::Frame { codec, channels, data } => Ok(self.sound(number, (codec, channels), data, dts)),
        }
    }

    fn sound(&mut self, number: u8, (codec, channels): (Codec, u8), data: Bytes, dts: i64) -> Taken {
        let Some(track) = TrackId::audio(number) else { return Taken::Dropped(FAR_TRACK) };
        let sound = |at: i64, data| frame(track, at, at, FrameKind::Audio, data);
        let news = match codec {
            Codec::Mp3 => {
                let Some(header) = Mp3Header::parse(&data) else {
                    return Taken::Dropped("an MP3 frame cannot be read");
                };
                self.sound_is(number, CodecParams::Mp3 { rate: header.rate, channels: header.channels })
            }
            Codec::Pcma => self.sound_is(number, CodecParams::Pcma { channels }),
            Codec::Pcmu => self.sound_is(number, CodecParams::Pcmu { channels }),
            _ if self.audio.get(&number).is_some_and(|a| a.codec() == codec) => None,
            _ => return Taken::Dropped("sound came before its sequence header"),
        };
        let mut out: Vec<Ingest> = news.into_iter().collect();
        if matches!(codec, Codec::Pcma | Codec::Pcmu) {
            let mut samples = 0;
            for piece in g711_frames(&data, channels) {
                // 8,000 samples a second.
                out.push(sound(dts.saturating_add(samples * 125_000), data.slice_ref(piece)));
                samples += (piece.len() / usize::from(channels.max(1))) as i64;
            }
        } else {
            out.push(sound(dts, data));
        }
        Taken::Media(out)
    }

    /// Remembers what the sound is; answers with it where it is news.
    fn sound_is(&mut self, number: u8, params: CodecParams) -> Option<Ingest> {
        let track = TrackId::audio(number)?;
        if self.audio.get(&number) == Some(&params) {
            return None;
        }
        self.audio.insert(number, params.clone());
        Some(Ingest::Config { track, params })
    }
}

/// Why a track of a multitrack message is left out.
const FAR_TRACK: &str = "a track of a multitrack message with a number above 14";
const OTHER_CODEC: &str = "a further track of a multitrack message in a codec that cannot be taken";

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
