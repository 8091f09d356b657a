//! Frames of a stream into media messages: for a player (from the hub's deliveries) and for our own publisher.

use super::{OUR_CHUNK_SIZE, csid};
use crate::hub::delivery::Delivery;
use crate::media::frame::{Frame, FrameKind};
use crate::media::track::{Codec, CodecConfig, CodecParams, CodecSet, Origin, TrackId};
use crate::wire::amf0::Value;
use crate::wire::flv::{AudioTag, VideoTag, opus_head};
use crate::wire::h264::AvcConfig;
use crate::wire::rtmp_chunk::render_message;
use crate::wire::rtmp_message::{Message, kind};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The message stream id for which renderings are shared: that of a connection's first `createStream`.
pub(super) const SHARED_STREAM: u32 = 1;

/// RTMP's time of a stream time in nanoseconds: milliseconds, modulo 2^32.
pub(super) fn millis(nanos: i64) -> i64 {
    nanos.div_euclid(1_000_000)
}

/// The message that tells a decoder how to start.
pub(super) fn sequence_header(params: &CodecParams, time: u32, stream: u32) -> Option<Message> {
    let (csid, kind, payload) = match params {
        CodecParams::H264 { sps, pps, .. } => {
            (csid::VIDEO, kind::VIDEO, VideoTag::AvcConfig(AvcConfig::emit(sps, pps)).emit()?)
        }
        CodecParams::Aac { asc, .. } => (csid::AUDIO, kind::AUDIO, AudioTag::AacConfig(asc.clone()).emit()?),
        CodecParams::Opus { channels } => {
            (csid::AUDIO, kind::AUDIO, AudioTag::OpusConfig(opus_head(*channels)).emit()?)
        }
        _ => return None,
    };
    Some(Message { csid, timestamp: time, kind, stream, payload })
}

/// The message that carries a frame with these times.
pub(super) fn frame_message(
    codec: Option<Codec>,
    frame: FrameKind,
    payload: &Bytes,
    dts: i64,
    pts: i64,
    stream: u32,
) -> Option<Message> {
    let time = millis(dts);
    let (csid, kind, payload) = match (frame, codec) {
        (FrameKind::Key | FrameKind::Delta, Some(Codec::H264)) => {
            let composition = millis(pts).saturating_sub(time).clamp(-0x80_0000, 0x7f_ffff) as i32;
            let tag = VideoTag::AvcFrame { key: frame == FrameKind::Key, composition, data: payload.clone() };
            (csid::VIDEO, kind::VIDEO, tag.emit()?)
        }
        (FrameKind::Audio, Some(Codec::Aac)) => {
            (csid::AUDIO, kind::AUDIO, AudioTag::AacFrame(payload.clone()).emit()?)
        }
        (FrameKind::Audio, Some(Codec::Opus)) => {
            (csid::AUDIO, kind::AUDIO, AudioTag::OpusFrame(payload.clone()).emit()?)
        }
        (FrameKind::Data, _) => {
            // ffmpeg takes metadata with any other time than 0 for a subtitle track.
            let timestamp = if is_metadata(payload) { 0 } else { time as u32 };
            let payload = payload.clone();
            return Some(Message { csid: csid::STREAM, timestamp, kind: kind::DATA, stream, payload });
        }
        _ => return None,
    };
    Some(Message { csid, timestamp: time as u32, kind, stream, payload })
}

fn is_metadata(data: &[u8]) -> bool {
    data.starts_with(b"\x02\x00\x0aonMetaData")
}

/// `onMetaData` about these tracks.
pub(super) fn metadata<'a>(tracks: impl Iterator<Item = &'a CodecParams>) -> [Value; 2] {
    let mut pairs = vec![("encoder".to_owned(), Value::string("Headwater"))];
    let mut put = |name: &str, value: f64| pairs.push((name.to_owned(), Value::Number(value)));
    for params in tracks {
        if let Some((width, height)) = params.size() {
            put("width", f64::from(width));
            put("height", f64::from(height));
        }
        if let Some((rate, channels)) = params.sound() {
            put("audiosamplerate", f64::from(rate));
            put("audiochannels", f64::from(channels));
        }
        match params.codec() {
            Codec::H264 => put("videocodecid", 7.0),
            Codec::Aac => put("audiocodecid", 10.0),
            // Enhanced RTMP: the FourCC as a number.
            Codec::Opus => put("audiocodecid", f64::from(u32::from_be_bytes(*b"Opus"))),
            _ => {}
        }
    }
    [Value::string("onMetaData"), Value::EcmaArray(pairs)]
}

/// What a player must be sent for one delivery.
#[derive(Debug, Default)]
pub(super) struct Rendered {
    /// `onMetaData`, to be sent first.
    pub(super) metadata: Option<[Value; 2]>,
    /// Messages in chunks, in this order.
    pub(super) bytes: Vec<Bytes>,
    /// The frame was left out because the player asked so (pause, receiveVideo) or cannot take it.
    pub(super) left_out: bool,
    /// A track is of a codec that the player did not say it takes.
    pub(super) refused: Option<Codec>,
}

/// One player's view of a stream: which tracks it gets, and what it has been told about them.
#[derive(Debug)]
pub(super) struct Player {
    stream: u32,
    configs: BTreeMap<TrackId, Arc<CodecConfig>>,
    /// Configurations that the player has not been told yet.
    untold: bool,
    /// The player has asked for silence.
    pub(super) paused: bool,
    pub(super) audio: bool,
    pub(super) video: bool,
    /// What the player understands. One that is sent something else may stall on it (ffmpeg 5.1 showed no picture of a
    /// stream with Opus within 30 s).
    takes: CodecSet,
    /// After a gap that the player asked for, pictures go on at a key frame.
    wait_key: bool,
}

impl Player {
    pub(super) fn new(stream: u32, takes: CodecSet) -> Player {
        Player {
            stream,
            configs: BTreeMap::new(),
            untold: false,
            paused: false,
            audio: true,
            video: true,
            takes,
            wait_key: false,
        }
    }

    /// The track that carries this kind: RTMP has room for one of each. AAC goes before Opus, for every player
    /// knows it.
    fn chosen(&self, video: bool) -> Option<(TrackId, &CodecParams)> {
        let mut fit = self.configs.iter().filter(|(_, c)| c.params.codec().is_video() == video);
        let first = fit.next()?;
        let better = fit.find(|(_, c)| c.params.codec() == Codec::Aac);
        let (id, config) = match better {
            Some(aac) if first.1.params.codec() == Codec::Opus => aac,
            _ => first,
        };
        Some((*id, &config.params))
    }

    pub(super) fn deliver(&mut self, delivery: &Delivery) -> Rendered {
        match delivery {
            Delivery::Config { track, config } if !self.takes.has(config.params.codec()) => {
                // The publisher before may have had AAC there; its configuration must not speak for this one's sound.
                self.untold |= self.configs.remove(track).is_some();
                Rendered { refused: Some(config.params.codec()), ..Rendered::default() }
            }
            Delivery::Config { track, config } => {
                self.untold = true;
                // What a bridge makes of a track, and that track, are never played both: the later one is what is
                // there now.
                match config.origin {
                    Origin::Derived { from } => {
                        self.configs.remove(&from);
                    }
                    Origin::Ingest => self
                        .configs
                        .retain(|_, c| !matches!(c.origin, Origin::Derived { from } if from == *track)),
                }
                self.configs.insert(*track, config.clone());
                Rendered::default()
            }
            Delivery::Frame { frame, dts, pts, .. } => self.frame(frame, *dts, *pts),
        }
    }

    fn wants(&mut self, frame: &Frame) -> Option<Option<Codec>> {
        if frame.media.kind == FrameKind::Data {
            return (!self.paused).then_some(None);
        }
        let video = frame.is_video();
        if self.paused || !(if video { self.video } else { self.audio }) {
            self.wait_key |= video;
            return None;
        }
        let codec =
            self.chosen(video).filter(|(track, _)| *track == frame.media.track).map(|(_, p)| p.codec())?;
        if video && self.wait_key {
            if frame.media.kind != FrameKind::Key {
                return None;
            }
            self.wait_key = false;
        }
        Some(Some(codec))
    }

    fn frame(&mut self, frame: &Frame, dts: i64, pts: i64) -> Rendered {
        let mut out = Rendered::default();
        let Some(codec) = self.wants(frame) else {
            out.left_out = true;
            return out;
        };
        if self.untold {
            self.untold = false;
            let time = millis(dts) as u32;
            let tracks: Vec<&CodecParams> =
                [true, false].into_iter().filter_map(|v| Some(self.chosen(v)?.1)).collect();
            for params in &tracks {
                if let Some(m) = sequence_header(params, time, self.stream) {
                    out.bytes.push(render_message(&m, OUR_CHUNK_SIZE));
                }
            }
            out.metadata = Some(metadata(tracks.into_iter()));
        }
        let media = &frame.media;
        let render = || {
            frame_message(codec, media.kind, &media.payload, dts, pts, self.stream)
                .map(|m| render_message(&m, OUR_CHUNK_SIZE))
                .unwrap_or_default()
        };
        let own_times = (dts, pts) == (media.dts, media.pts);
        out.bytes.push(if own_times && self.stream == SHARED_STREAM {
            frame.renderings.rtmp.get_or_init(render).clone()
        } else {
            render()
        });
        out
    }
}
