//! A publisher's pictures out of video messages, by codec.

use super::{MS, Taken, frame};
use crate::limits::Limits;
use crate::media::av1::{SequenceState, TemporalUnit};
use crate::media::frame::{FrameKind, Ingest};
use crate::media::h264::h264_params;
use crate::media::h265::h265_params;
use crate::media::track::{Codec, CodecParams, TrackId};
use crate::wire::av1::{self, obus};
use crate::wire::h264::{self, AvcConfig, annex_b, length_prefixed, nal_ref_idc, put_nal};
use crate::wire::h265::{self, HevcConfig};
use crate::wire::vp8::Vp8Frame;
use crate::wire::vp9::Vp9Frame;
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;

/// What is known of a publisher's pictures.
#[derive(Debug)]
pub(super) enum VideoState {
    H264 {
        length_size: usize,
        sps: Vec<Bytes>,
        pps: Vec<Bytes>,
    },
    H265(HevcConfig),
    Av1(SequenceState),
    /// VP8 and VP9 say everything in their frames.
    Vp {
        codec: Codec,
        known: Option<CodecParams>,
    },
}

fn config(track: TrackId, params: CodecParams) -> Ingest {
    Ingest::Config { track, params }
}

impl VideoState {
    pub(super) fn codec(&self) -> Codec {
        match self {
            VideoState::H264 { .. } => Codec::H264,
            VideoState::H265(_) => Codec::H265,
            VideoState::Av1(_) => Codec::Av1,
            VideoState::Vp { codec, .. } => *codec,
        }
    }

    /// Takes a configuration; answers with what it says that is new.
    pub(super) fn configure(
        states: &mut BTreeMap<u8, VideoState>,
        track: TrackId,
        number: u8,
        codec: Codec,
        record: &[u8],
    ) -> Taken {
        let mut state = states.remove(&number);
        let taken = VideoState::change(&mut state, track, codec, record);
        states.extend(state.map(|state| (number, state)));
        taken
    }

    fn change(state: &mut Option<VideoState>, track: TrackId, codec: Codec, record: &[u8]) -> Taken {
        let news = match codec {
            Codec::H264 => {
                let Some(AvcConfig { length_size, sps, pps }) = AvcConfig::parse(record) else {
                    return Taken::Dropped("an H.264 sequence header cannot be read");
                };
                let same = matches!(state, Some(VideoState::H264 { sps: s, pps: p, .. }) if (&*s, &*p) == (&sps, &pps));
                let params = h264_params(sps.clone(), pps.clone());
                *state = Some(VideoState::H264 { length_size, sps, pps });
                (!same).then_some(params)
            }
            Codec::H265 => {
                let Some(new) = HevcConfig::parse(record) else {
                    return Taken::Dropped("an H.265 sequence header cannot be read");
                };
                let sets = |c: &HevcConfig| (c.vps.clone(), c.sps.clone(), c.pps.clone());
                let same = matches!(&*state, Some(VideoState::H265(old)) if sets(old) == sets(&new));
                let (vps, sps, pps) = sets(&new);
                *state = Some(VideoState::H265(new));
                (!same).then(|| h265_params(vps, sps, pps))
            }
            Codec::Av1 => {
                // A record may be empty of sequence headers: then they are in the key frames.
                let header = av1::parse_config(record);
                let Some(VideoState::Av1(sequence)) = (match state {
                    Some(VideoState::Av1(_)) => state.as_mut(),
                    _ => {
                        *state = Some(VideoState::Av1(SequenceState::default()));
                        state.as_mut()
                    }
                }) else {
                    return Taken::Media(Vec::new());
                };
                if let Some(header) = header {
                    sequence.preset(&header);
                }
                sequence.news()
            }
            codec => {
                if state.as_ref().is_none_or(|s| s.codec() != codec) {
                    *state = Some(VideoState::Vp { codec, known: None });
                }
                None
            }
        };
        only_config(track, news)
    }

    /// Takes a picture.
    pub(super) fn picture(
        &mut self,
        track: TrackId,
        data: &Bytes,
        dts: i64,
        composition: i32,
        limits: &Limits,
    ) -> Taken {
        let pts = dts.saturating_add(i64::from(composition).saturating_mul(MS));
        if data.len() > limits.frame_bytes {
            return Taken::Dropped("a picture is larger than limits.frame_bytes");
        }
        match self {
            VideoState::H264 { .. } | VideoState::H265(_) => self.access_unit(track, data, dts, pts),
            VideoState::Av1(sequence) => {
                let mut unit = BytesMut::with_capacity(data.len());
                for obu in obus(data) {
                    match obu {
                        Ok(obu) if obu.kind.is_framing() => {}
                        Ok(obu) => obu.put(&mut unit),
                        Err(_) => return Taken::Dropped("an AV1 picture is cut short"),
                    }
                }
                if unit.is_empty() {
                    return Taken::Media(Vec::new());
                }
                let Some(TemporalUnit { key, payload, params }) = sequence.unit(unit.freeze()) else {
                    return match sequence.news() {
                        Some(params) => Taken::Media(vec![config(track, params)]),
                        None => Taken::Dropped("an AV1 picture has no frame"),
                    };
                };
                pictures((track, params), key, false, payload, dts, dts)
            }
            VideoState::Vp { codec, known } => {
                let found = if *codec == Codec::Vp8 {
                    Vp8Frame::parse(data).map(|f| f.key.map(|size| CodecParams::Vp8 { size: Some(size) }))
                } else {
                    Vp9Frame::parse(data).map(|f| match f {
                        Vp9Frame::Key { format, size } => Some(CodecParams::Vp9 { format, size: Some(size) }),
                        Vp9Frame::Inter => None,
                    })
                };
                let Some(found) = found else {
                    return Taken::Dropped("a VP8 or VP9 picture cannot be read");
                };
                let key = found.is_some();
                let news = found.filter(|p| known.as_ref() != Some(p));
                if news.is_some() {
                    known.clone_from(&news);
                }
                pictures((track, news), key, false, data.clone(), dts, dts)
            }
        }
    }

    fn access_unit(&mut self, track: TrackId, data: &Bytes, dts: i64, pts: i64) -> Taken {
        let length_size = match self {
            VideoState::H264 { length_size, .. } => *length_size,
            VideoState::H265(known) => known.length_size,
            _ => 4,
        };
        let mut nals: Vec<&[u8]> = Vec::new();
        if length_prefixed(data, length_size).all(|n| n.map(|n| nals.push(n)).is_ok()) {
            // As the configuration says.
        } else if data.starts_with(&[0, 0, 1]) || data.starts_with(&[0, 0, 0, 1]) {
            // Some hardware encoders send start codes whatever their sequence header says.
            nals = annex_b(data).collect();
        } else {
            return Taken::Dropped("a NAL unit's length passes the end of its picture");
        }
        match self {
            VideoState::H264 { sps, pps, .. } => h264_unit(track, (sps, pps), &nals, dts, pts),
            VideoState::H265(known) => h265_unit(track, known, &nals, dts, pts),
            _ => Taken::Media(Vec::new()),
        }
    }
}

fn pictures(
    (track, news): (TrackId, Option<CodecParams>),
    key: bool,
    discardable: bool,
    payload: Bytes,
    dts: i64,
    pts: i64,
) -> Taken {
    let kind = if key { FrameKind::Key } else { FrameKind::Delta };
    let mut picture = frame(track, dts, pts, kind, payload);
    if let Ingest::Frame(f) = &mut picture {
        f.discardable = discardable;
    }
    Taken::Media(news.map(|n| config(track, n)).into_iter().chain([picture]).collect())
}

fn only_config(track: TrackId, news: Option<CodecParams>) -> Taken {
    Taken::Media(news.map(|n| config(track, n)).into_iter().collect())
}

fn h264_unit(
    track: TrackId,
    (sps, pps): (&mut Vec<Bytes>, &mut Vec<Bytes>),
    nals: &[&[u8]],
    dts: i64,
    pts: i64,
) -> Taken {
    use h264::NalType;
    let (mut new_sps, mut new_pps) = (Vec::new(), Vec::new());
    let (mut idr, mut slices, mut referenced) = (false, false, false);
    let mut payload = BytesMut::new();
    for nal in nals {
        match NalType::of(nal) {
            NalType(0) | NalType::AUD | NalType::FILLER => {}
            NalType::SPS if nal.len() >= 4 => new_sps.push(Bytes::copy_from_slice(nal)),
            NalType::SPS => {}
            NalType::PPS => new_pps.push(Bytes::copy_from_slice(nal)),
            kind => {
                if (1..=5).contains(&kind.0) {
                    slices = true;
                    referenced |= nal_ref_idc(nal) != 0;
                    idr |= kind == NalType::IDR;
                }
                put_nal(&mut payload, nal);
            }
        }
    }
    let changed = adopt(sps, new_sps) | adopt(pps, new_pps);
    let news = changed.then(|| h264_params(sps.clone(), pps.clone()));
    if !slices {
        return only_config(track, news);
    }
    pictures((track, news), idr, !referenced, payload.freeze(), dts, pts)
}

fn h265_unit(track: TrackId, known: &mut HevcConfig, nals: &[&[u8]], dts: i64, pts: i64) -> Taken {
    use h265::NalType;
    let (mut vps, mut sps, mut pps) = (Vec::new(), Vec::new(), Vec::new());
    let (mut key, mut slices, mut layer) = (false, false, 0);
    let mut payload = BytesMut::new();
    for nal in nals.iter().filter(|n| n.len() > 2) {
        let kind = NalType::of(nal);
        match kind {
            NalType::VPS => vps.push(Bytes::copy_from_slice(nal)),
            NalType::SPS => sps.push(Bytes::copy_from_slice(nal)),
            NalType::PPS => pps.push(Bytes::copy_from_slice(nal)),
            _ if kind.is_framing() => {}
            _ => {
                if kind.is_slice() {
                    slices = true;
                    key |= kind.is_random_access();
                    layer = h265::temporal_layer(nal);
                }
                put_nal(&mut payload, nal);
            }
        }
    }
    let changed = adopt(&mut known.vps, vps) | adopt(&mut known.sps, sps) | adopt(&mut known.pps, pps);
    let news = changed.then(|| h265_params(known.vps.clone(), known.sps.clone(), known.pps.clone()));
    if !slices {
        return only_config(track, news);
    }
    let mut taken = pictures((track, news), key, false, payload.freeze(), dts, pts);
    if let Taken::Media(items) = &mut taken
        && let Some(Ingest::Frame(f)) = items.last_mut()
    {
        f.temporal_layer = layer;
    }
    taken
}

/// Takes parameter sets that stand in front of a picture. `true` if they say something new.
fn adopt(known: &mut Vec<Bytes>, sets: Vec<Bytes>) -> bool {
    let new = sets.iter().any(|s| !known.contains(s));
    if new {
        *known = sets;
    }
    new
}
