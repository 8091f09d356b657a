//! Tests of media messages into frames.

use super::*;
use crate::wire::flv::opus_head;

const SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1f, 9];
const PPS: &[u8] = &[0x68, 0xce];

fn message(kind: u8, timestamp: u32, payload: impl Into<Bytes>) -> Message {
    Message { csid: 6, timestamp, kind, stream: 1, payload: payload.into() }
}

fn units(nals: &[&[u8]]) -> Bytes {
    let mut out = BytesMut::new();
    nals.iter().for_each(|n| put_nal(&mut out, n));
    out.freeze()
}

fn header() -> Message {
    let record = AvcConfig::emit(&[Bytes::from_static(SPS)], &[Bytes::from_static(PPS)]);
    message(kind::VIDEO, 0, VideoTag::AvcConfig(record).emit().unwrap())
}

fn picture(timestamp: u32, composition: i32, nals: &[&[u8]]) -> Message {
    let tag = VideoTag::AvcFrame { key: true, composition, data: units(nals) };
    message(kind::VIDEO, timestamp, tag.emit().unwrap())
}

fn ready() -> Demuxer {
    let mut d = Demuxer::default();
    let Ok(Taken::Media(items)) = d.take(&header(), &Limits::default()) else { panic!() };
    assert!(matches!(&items[..], [Ingest::Config { track: TrackId::VIDEO, .. }]));
    d
}

fn media(d: &mut Demuxer, m: &Message) -> Vec<Ingest> {
    match d.take(m, &Limits::default()) {
        Ok(Taken::Media(items)) => items,
        other => panic!("{other:?}"),
    }
}

fn one_frame(d: &mut Demuxer, m: &Message) -> NewFrame {
    match &media(d, m)[..] {
        [Ingest::Frame(f)] => f.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pictures_lose_what_is_not_theirs_and_are_key_only_with_an_idr_slice() {
    let mut d = ready();
    let f = one_frame(&mut d, &picture(40, 80, &[&[9, 0xf0], SPS, PPS, &[6, 1], &[0x65, 1], &[12, 0xff]]));
    assert_eq!((f.kind, f.dts, f.pts), (FrameKind::Key, 40_000_000, 120_000_000));
    assert_eq!(f.payload, units(&[&[6, 1], &[0x65, 1]]));
    // The tag says key, the slice does not.
    let f = one_frame(&mut d, &picture(80, 0, &[&[0x41, 1]]));
    assert_eq!((f.kind, f.discardable), (FrameKind::Delta, false));
    let f = one_frame(&mut d, &picture(120, 0, &[&[0x01, 1], &[0x01, 2]]));
    assert!(f.discardable);
    assert_eq!(media(&mut d, &picture(160, 0, &[&[9, 0xf0]])), []);
}

#[test]
fn new_parameter_sets_in_band_are_a_new_configuration_and_old_ones_are_not() {
    let mut d = ready();
    let other: &[u8] = &[0x67, 0x64, 0, 0x28, 7];
    let items = media(&mut d, &picture(0, 0, &[other, PPS, &[0x65, 1]]));
    let Ingest::Config { params: CodecParams::H264 { sps, pps, .. }, .. } = &items[0] else { panic!() };
    assert_eq!((&sps[..], &pps[..]), (&[Bytes::from_static(other)][..], &[Bytes::from_static(PPS)][..]));
    assert_eq!(media(&mut d, &picture(40, 0, &[other, PPS, &[0x65, 1]])).len(), 1);
    // The first sequence header again goes back to the first configuration; a second time it says nothing new.
    assert_eq!(media(&mut d, &header()).len(), 1);
    assert_eq!(media(&mut d, &header()), []);
}

#[test]
fn start_codes_are_forgiven_and_wrong_lengths_drop_one_picture() {
    let mut d = ready();
    let tag = |data: &'static [u8]| {
        let data = Bytes::from_static(data);
        message(kind::VIDEO, 0, VideoTag::AvcFrame { key: true, composition: 0, data }.emit().unwrap())
    };
    assert_eq!(one_frame(&mut d, &tag(&[0, 0, 0, 1, 0x65, 7, 8])).payload, units(&[&[0x65, 7, 8]]));
    let taken = d.take(&tag(&[0, 0, 0, 9, 0x65]), &Limits::default());
    assert!(matches!(taken, Ok(Taken::Dropped(_))), "{taken:?}");
}

#[test]
fn the_clock_goes_on_over_the_wrap_and_back_over_interleaving() {
    let mut d = ready();
    let start = u32::MAX - 9;
    let mut d2 = Demuxer { clock: Clock::default(), ..std::mem::take(&mut d) };
    let times: Vec<i64> = [start, start.wrapping_add(20), start.wrapping_add(5)]
        .map(|t| one_frame(&mut d2, &picture(t, 0, &[&[0x65, 1]])).dts / MS)
        .to_vec();
    let start = i64::from(start);
    assert_eq!(times, [start, start + 20, start + 5]);
}

#[test]
fn sound_needs_its_header_first() {
    let limits = Limits::default();
    let aac = |tag: AudioTag| message(kind::AUDIO, 23, tag.emit().unwrap());
    let mut d = Demuxer::default();
    let raw = aac(AudioTag::AacFrame(Bytes::from_static(b"raw")));
    assert!(matches!(d.take(&raw, &limits), Ok(Taken::Dropped(_))));
    let asc = Bytes::from_static(&[0x12, 0x10]);
    let params = CodecParams::Aac { asc: asc.clone(), rate: 44_100, channels: 2 };
    let config = aac(AudioTag::AacConfig(asc));
    assert_eq!(media(&mut d, &config), [Ingest::Config { track: TrackId::AUDIO, params }]);
    assert_eq!(media(&mut d, &config), []);
    let f = one_frame(&mut d, &raw);
    assert_eq!((f.kind, f.dts, &f.payload[..]), (FrameKind::Audio, 23_000_000, &b"raw"[..]));

    let mut d = Demuxer::default();
    let head = aac(AudioTag::OpusConfig(opus_head(1)));
    let params = CodecParams::Opus { channels: 1 };
    assert_eq!(media(&mut d, &head), [Ingest::Config { track: TrackId::AUDIO, params }]);
    assert_eq!(one_frame(&mut d, &aac(AudioTag::OpusFrame(Bytes::from_static(b"opus")))).payload, "opus");
}

#[test]
fn other_codecs_are_refused_by_name_with_a_remedy() {
    let limits = Limits::default();
    for (m, name, remedy) in [
        (message(kind::VIDEO, 0, &b"\x90hvc1"[..]), "HEVC", "libx264"),
        (message(kind::VIDEO, 0, &[0x22, 0][..]), "H.263", "libx264"),
        (message(kind::AUDIO, 0, &[0x2f, 0][..]), "MP3", "-c:a aac"),
    ] {
        let reason = Demuxer::default().take(&m, &limits).unwrap_err();
        assert_eq!(reason.code, "unsupported_codec");
        assert!(reason.text.contains(name) && reason.text.contains(remedy), "{reason}");
    }
}

#[test]
fn metadata_loses_its_envelope() {
    use crate::wire::amf0::{Value, emit_all};
    let about = [Value::string("onMetaData"), Value::object([("width", Value::Number(2.0))])];
    let mut sent = vec![Value::string("@setDataFrame")];
    sent.extend(about.clone());
    let f = one_frame(&mut Demuxer::default(), &message(kind::DATA, 0, emit_all(&sent).freeze()));
    assert_eq!((f.kind, f.track, f.payload), (FrameKind::Data, TrackId::DATA, emit_all(&about).freeze()));
    let broken = Demuxer::default().take(&message(kind::DATA, 0, &[2, 0, 9][..]), &Limits::default());
    assert!(matches!(broken, Ok(Taken::Dropped(_))));
}
