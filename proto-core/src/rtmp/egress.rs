//! Frames of a stream into media messages: for a player (from the hub's deliveries) and for our own publisher.

use super::{OUR_CHUNK_SIZE, csid};
use crate::few::Few;
use crate::hub::delivery::Delivery;
use crate::media::frame::{Frame, FrameKind};
use crate::media::track::{Codec, CodecConfig, CodecParams, CodecSet, Origin, TrackId};
use crate::wire::amf0::Value;
use crate::wire::av1;
use crate::wire::flv::{AudioTag, VideoTag, file_tag, fourcc, opus_head};
use crate::wire::h264::AvcConfig;
use crate::wire::h265::HevcConfig;
use crate::wire::rtmp_chunk::render_message;
use crate::wire::rtmp_message::{Message, kind};
use crate::wire::vp9::{self, Vp9Format};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

/// The message stream id for which renderings are shared: that of a connection's first `createStream`.
pub(crate) const SHARED_STREAM: u32 = 1;

/// RTMP's time of a stream time in nanoseconds: milliseconds, modulo 2^32.
pub(super) fn millis(nanos: i64) -> i64 {
    nanos.div_euclid(1_000_000)
}

/// The message that tells a decoder how to start. `number`: of which track of a multitrack message; `None`: of the one that
/// every player knows.
pub(super) fn sequence_header(
    params: &CodecParams,
    number: Option<u8>,
    time: u32,
    stream: u32,
) -> Option<Message> {
    let codec = params.codec();
    let video = |record| {
        let tag = VideoTag::Config { codec, record };
        number.map_or_else(|| tag.emit(), |n| tag.emit_track(n))
    };
    let audio = |record| {
        let tag = AudioTag::Config { codec, record };
        number.map_or_else(|| tag.emit(), |n| tag.emit_track(n))
    };
    let payload = match params {
        CodecParams::H264 { sps, pps, .. } => video(AvcConfig::emit(sps, pps))?,
        CodecParams::H265 { vps, sps, pps, .. } => video(HevcConfig::emit(vps, sps, pps))?,
        CodecParams::Av1 { sequence_header, .. } => video(av1::emit_config(sequence_header))?,
        CodecParams::Vp9 { format, size } => video(vp9::emit_config(*format, *size))?,
        CodecParams::Vp8 { size } => {
            let format = Vp9Format { profile: 0, depth: 8, subsampling: 1, full_range: false };
            video(vp9::emit_config(format, *size))?
        }
        CodecParams::Aac { asc, .. } => audio(asc.clone())?,
        CodecParams::Opus { channels } => audio(opus_head(*channels))?,
        // These say everything in their frames.
        CodecParams::Mp3 { .. } | CodecParams::Pcma { .. } | CodecParams::Pcmu { .. } => return None,
    };
    let (csid, kind) = if codec.is_video() { (csid::VIDEO, kind::VIDEO) } else { (csid::AUDIO, kind::AUDIO) };
    Some(Message { csid, timestamp: time, kind, stream, payload })
}

/// The message that carries a frame with these times. `number` is as for [`sequence_header`].
pub(super) fn frame_message(
    params: Option<&CodecParams>,
    (frame, number): (FrameKind, Option<u8>),
    payload: &Bytes,
    dts: i64,
    pts: i64,
    stream: u32,
) -> Option<Message> {
    let time = millis(dts);
    let data = payload.clone();
    let (csid, kind, payload) = match (frame, params) {
        (FrameKind::Key | FrameKind::Delta, Some(params)) => {
            let composition = millis(pts).saturating_sub(time).clamp(-0x80_0000, 0x7f_ffff) as i32;
            let (codec, key) = (params.codec(), frame == FrameKind::Key);
            let tag = VideoTag::Frame { codec, key, composition, data };
            let payload = number.map_or_else(|| tag.emit(), |n| tag.emit_track(n))?;
            (csid::VIDEO, kind::VIDEO, payload)
        }
        (FrameKind::Audio, Some(params)) => {
            let (codec, channels) = (params.codec(), params.sound().map_or(2, |(_, channels)| channels));
            let tag = AudioTag::Frame { codec, channels, data };
            let payload = number.map_or_else(|| tag.emit(), |n| tag.emit_track(n))?;
            (csid::AUDIO, kind::AUDIO, payload)
        }
        (FrameKind::Data, _) => {
            // ffmpeg takes metadata with any other time than 0 for a subtitle track.
            let timestamp = if is_metadata(payload) { 0 } else { time as u32 };
            return Some(Message { csid: csid::STREAM, timestamp, kind: kind::DATA, stream, payload: data });
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
        let codec = params.codec();
        let id = match codec {
            Codec::H264 => 7,
            Codec::Mp3 => 2,
            Codec::Pcma => 7,
            Codec::Pcmu => 8,
            Codec::Aac => 10,
            // Enhanced RTMP: the FourCC as a number.
            _ => fourcc(codec).map_or(0, |f| u32::from_be_bytes(*f)),
        };
        put(if codec.is_video() { "videocodecid" } else { "audiocodecid" }, f64::from(id));
    }
    [Value::string("onMetaData"), Value::EcmaArray(pairs)]
}

/// What a player must be sent for one delivery.
#[derive(Debug, Default)]
pub(super) struct Rendered {
    /// `onMetaData`, to be sent first.
    pub(super) metadata: Option<[Value; 2]>,
    /// What a decoder must be told before the frame, in this order. Mostly nothing.
    pub(super) headers: Vec<Bytes>,
    /// The frame's message; empty if there is none.
    pub(super) frame: Bytes,
    /// The frame was left out because the player asked so (pause, receiveVideo) or cannot take it.
    pub(super) left_out: bool,
    /// A track is of a codec that the player did not say it takes.
    pub(super) refused: Option<Codec>,
}

/// What a player's messages are put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Chunks of RTMP, with this message stream id.
    Chunks(u32),
    /// Tags of an FLV file.
    File,
}

impl Form {
    fn stream(self) -> u32 {
        match self {
            Form::Chunks(stream) => stream,
            Form::File => 0,
        }
    }

    fn render(self, message: &Message) -> Bytes {
        match self {
            Form::Chunks(_) => render_message(message, OUR_CHUNK_SIZE),
            Form::File => file_tag(message.kind, message.timestamp, &message.payload),
        }
    }

    /// Where a frame keeps this form for all players; `None` where no other player shares it.
    fn shared(self, frame: &Frame) -> Option<&OnceLock<Bytes>> {
        match self {
            Form::Chunks(SHARED_STREAM) => Some(&frame.renderings.rtmp),
            Form::Chunks(_) => None,
            Form::File => Some(&frame.renderings.flv),
        }
    }
}

/// What players are alike in who are sent the same bytes for the same frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alike {
    takes: CodecSet,
    /// The tracks of its pictures and of its sound, and the versions of their configurations.
    chosen: [Option<(TrackId, u32)>; 2],
}

/// One player's view of a stream: which tracks it gets, and what it has been told about them.
#[derive(Debug)]
pub(super) struct Player {
    form: Form,
    configs: Few<TrackId, Arc<CodecConfig>>,
    /// Configurations that the player has not been told yet.
    untold: bool,
    /// The player has asked for silence.
    pub(super) paused: bool,
    pub(super) audio: bool,
    pub(super) video: bool,
    /// What the player understands. One that is sent something else may stall on it (ffmpeg 5.1 showed no picture of a
    /// stream with Opus within 30 s).
    takes: CodecSet,
    /// It understands multitrack messages, and gets all tracks.
    tracks: bool,
    /// After a gap that the player asked for, pictures go on at a key frame; by track.
    wait_key: BTreeSet<TrackId>,
}

impl Player {
    pub(super) fn new(form: Form, takes: CodecSet, tracks: bool) -> Player {
        Player {
            form,
            configs: Few::default(),
            untold: false,
            paused: false,
            audio: true,
            video: true,
            takes,
            tracks,
            wait_key: BTreeSet::new(),
        }
    }

    /// The track that carries this kind: RTMP has room for one of each. AAC goes before Opus, for every player
    /// knows it.
    fn chosen(&self, video: bool) -> Option<(TrackId, &Arc<CodecConfig>)> {
        let mut fit = self.configs.iter().filter(|(_, c)| c.params.codec().is_video() == video);
        let first = fit.next()?;
        let better = fit.find(|(_, c)| c.params.codec() == Codec::Aac);
        let (id, config) = match better {
            Some(aac) if first.1.params.codec() == Codec::Opus => aac,
            _ => first,
        };
        Some((id, config))
    }

    /// What it has in common with others who get the same; `None` while it has something of its own.
    pub(super) fn alike(&self) -> Option<Alike> {
        let own = self.paused || !self.audio || !self.video || self.untold || self.tracks;
        let shares = self.form == Form::Chunks(SHARED_STREAM) && self.wait_key.is_empty();
        let chosen = [true, false].map(|video| self.chosen(video).map(|(id, config)| (id, config.version)));
        (shares && !own).then_some(Alike { takes: self.takes, chosen })
    }

    pub(super) fn deliver(&mut self, delivery: &Delivery) -> Rendered {
        match delivery {
            Delivery::Config { track, config } if !self.takes.has(config.params.codec()) => {
                // The publisher before may have had AAC there; its configuration must not speak for this one's sound.
                self.untold |= self.configs.remove(*track).is_some();
                Rendered { refused: Some(config.params.codec()), ..Rendered::default() }
            }
            Delivery::Config { track, config } => {
                self.untold = true;
                // What a bridge makes of a track, and that track, are never played both: the later one is what is
                // there now.
                match config.origin {
                    Origin::Derived { from } => {
                        self.configs.remove(from);
                    }
                    Origin::Ingest => self
                        .configs
                        .retain(|_, c| !matches!(c.origin, Origin::Derived { from } if from == *track)),
                }
                if config.params.codec().is_video() && !self.tracks {
                    // Of several renditions the hub chooses one, and says so before its first picture.
                    self.configs.retain(|_, c| !c.params.codec().is_video());
                }
                self.configs.insert(*track, config.clone());
                Rendered::default()
            }
            Delivery::Frame { frame, dts, pts, .. } => self.frame(frame, *dts, *pts),
        }
    }

    /// The number that a track has in a multitrack message; `None` for the one of its kind that is sent as all players know it.
    fn number(&self, track: TrackId, video: bool) -> Option<u8> {
        let chosen = self.chosen(video).map(|(id, _)| id);
        (self.tracks && chosen != Some(track)).then(|| track.nth())
    }

    /// Of which configuration a frame is, and the number of its track; `None` if the player does not get it.
    #[allow(clippy::type_complexity, reason = "data has no configuration")]
    fn wants(&mut self, frame: &Frame) -> Option<(Option<Arc<CodecConfig>>, Option<u8>)> {
        if frame.media.kind == FrameKind::Data {
            return (!self.paused).then_some((None, None));
        }
        let (video, track) = (frame.is_video(), frame.media.track);
        if self.paused || !(if video { self.video } else { self.audio }) {
            if video {
                self.wait_key.insert(track);
            }
            return None;
        }
        let number = self.number(track, video);
        if number.is_none() && self.chosen(video)?.0 != track {
            return None;
        }
        // A bridge's sound stands in for what it is made of, and is no further track.
        let config = self.configs.get(track)?.clone();
        if number.is_some() && matches!(config.origin, Origin::Derived { .. }) {
            return None;
        }
        if video && self.wait_key.contains(&track) {
            if frame.media.kind != FrameKind::Key {
                return None;
            }
            self.wait_key.remove(&track);
        }
        Some((Some(config), number))
    }

    fn frame(&mut self, frame: &Frame, dts: i64, pts: i64) -> Rendered {
        let mut out = Rendered::default();
        let Some((config, number)) = self.wants(frame) else {
            out.left_out = true;
            return out;
        };
        if self.untold {
            self.untold = false;
            let time = millis(dts) as u32;
            let tracks: Vec<&CodecParams> =
                [true, false].into_iter().filter_map(|v| Some(&self.chosen(v)?.1.params)).collect();
            for params in &tracks {
                if let Some(m) = sequence_header(params, None, time, self.form.stream()) {
                    out.headers.push(self.form.render(&m));
                }
            }
            for (track, config) in self.configs.iter().filter(|(_, c)| c.origin == Origin::Ingest) {
                let number = self.number(track, config.params.codec().is_video());
                let header =
                    number.and_then(|n| sequence_header(&config.params, Some(n), time, self.form.stream()));
                out.headers.extend(header.map(|m| self.form.render(&m)));
            }
            out.metadata = Some(metadata(tracks.into_iter()));
        }
        let media = &frame.media;
        let render = || {
            frame_message(
                config.as_ref().map(|c| &c.params),
                (media.kind, number),
                &media.payload,
                dts,
                pts,
                self.form.stream(),
            )
            .map(|m| self.form.render(&m))
            .unwrap_or_default()
        };
        let own_times = (dts, pts) == (media.dts, media.pts);
        let shared = self.form.shared(frame).filter(|_| own_times && number.is_none());
        out.frame = shared.map_or_else(render, |s| s.get_or_init(render).clone());
        out
    }
}
