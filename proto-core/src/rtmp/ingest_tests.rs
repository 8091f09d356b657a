//! Tests of media messages into frames.

use super::*;
use crate::wire::flv::opus_head;
use crate::wire::h264::{AvcConfig, put_nal};
use bytes::BytesMut;

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
    message(kind::VIDEO, 0, VideoTag::Config { codec: Codec::H264, record }.emit().unwrap())
}

fn picture(timestamp: u32, composition: i32, nals: &[&[u8]]) -> Message {
    let tag = VideoTag::Frame { codec: Codec::H264, key: true, composition, data: units(nals) };
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
        message(
            kind::VIDEO,
            0,
            VideoTag::Frame { codec: Codec::H264, key: true, composition: 0, data }.emit().unwrap(),
        )
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
    let raw = aac(AudioTag::Frame { codec: Codec::Aac, channels: 2, data: Bytes::from_static(b"raw") });
    assert!(matches!(d.take(&raw, &limits), Ok(Taken::Dropped(_))));
    let asc = Bytes::from_static(&[0x12, 0x10]);
    let params = CodecParams::Aac { asc: asc.clone(), rate: 44_100, channels: 2 };
    let config = aac(AudioTag::Config { codec: Codec::Aac, record: asc });
    assert_eq!(media(&mut d, &config), [Ingest::Config { track: TrackId::AUDIO, params }]);
    assert_eq!(media(&mut d, &config), []);
    let f = one_frame(&mut d, &raw);
    assert_eq!((f.kind, f.dts, &f.payload[..]), (FrameKind::Audio, 23_000_000, &b"raw"[..]));

    let mut d = Demuxer::default();
    let head = aac(AudioTag::Config { codec: Codec::Opus, record: opus_head(1) });
    let params = CodecParams::Opus { channels: 1 };
    assert_eq!(media(&mut d, &head), [Ingest::Config { track: TrackId::AUDIO, params }]);
    let packet = AudioTag::Frame { codec: Codec::Opus, channels: 2, data: Bytes::from_static(b"opus") };
    assert_eq!(one_frame(&mut d, &aac(packet)).payload, "opus");
}

#[test]
fn other_codecs_are_refused_by_name_with_a_remedy() {
    let limits = Limits::default();
    for (m, name, remedy) in [
        (message(kind::VIDEO, 0, &b"\x90vvc1"[..]), "VVC", "libx264"),
        (message(kind::VIDEO, 0, &[0x22, 0][..]), "H.263", "libx264"),
        (message(kind::AUDIO, 0, &[0xbf, 0][..]), "Speex", "-c:a aac"),
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

/// libaom, 640x360: a whole OBU.
const SEQUENCE: &[u8] = &[0x0a, 0x0b, 0x00, 0x00, 0x00, 0x0c, 0xc4, 0xff, 0x67, 0x3e, 0xbe, 0x60, 0x10];

/// Each codec's parameters, and a frame of it that can stand first.
fn samples() -> Vec<(CodecParams, Bytes)> {
    let set = |kind: u8| vec![Bytes::from(vec![kind << 1, 1, 0xc1, 9])];
    let hevc = crate::media::h265::h265_params(set(32), set(33), set(34));
    let format = crate::wire::vp9::Vp9Format { profile: 0, depth: 8, subsampling: 1, full_range: false };
    let size = Some((640, 360));
    let (sps, pps) = (vec![Bytes::from_static(SPS)], vec![Bytes::from_static(PPS)]);
    let av1_picture = [SEQUENCE, &[0x32, 2, 0x10, 7]].concat();
    let mut mp3 = vec![5; 417];
    mp3[..4].copy_from_slice(&[0xff, 0xfb, 0x90, 0x00]);
    let sound = Bytes::from_static(&[0xfc, 1, 2]);
    vec![
        (crate::media::h264::h264_params(sps, pps), units(&[&[0x65, 1]])),
        (hevc, units(&[&[19 << 1, 1, 0x80, 7]])),
        (CodecParams::Av1 { sequence_header: Bytes::from_static(SEQUENCE), size }, av1_picture.into()),
        (
            CodecParams::Vp9 { format, size },
            Bytes::from_static(&[0x82, 0x49, 0x83, 0x42, 0, 0x27, 0xf0, 0x16, 0x70, 0]),
        ),
        (CodecParams::Vp8 { size }, Bytes::from_static(&[0x10, 2, 0, 0x9d, 1, 0x2a, 0x80, 2, 0x68, 1])),
        (CodecParams::Opus { channels: 2 }, sound.clone()),
        (
            CodecParams::Aac { asc: Bytes::from_static(&[0x12, 0x10]), rate: 44_100, channels: 2 },
            sound.clone(),
        ),
        (CodecParams::Mp3 { rate: 44_100, channels: 2 }, mp3.into()),
        (CodecParams::Pcma { channels: 1 }, sound.clone()),
        (CodecParams::Pcmu { channels: 2 }, sound),
    ]
}

#[test]
fn what_players_are_sent_is_what_publishers_send_with_every_codec() {
    use crate::rtmp::egress::{frame_message, sequence_header};
    for (params, payload) in samples() {
        let codec = params.codec();
        let mut d = Demuxer::default();
        let mut got: Vec<Ingest> =
            sequence_header(&params, None, 40, 1).iter().flat_map(|m| media(&mut d, m)).collect();
        let kind = if codec.is_video() { FrameKind::Key } else { FrameKind::Audio };
        let m = frame_message(Some(&params), (kind, None), &payload, 40 * MS, 40 * MS, 1).unwrap();
        got.extend(media(&mut d, &m));
        assert_eq!(got.len(), 2, "{codec:?}: {got:?}");
        assert!(matches!(&got[0], Ingest::Config { params: p, .. } if *p == params), "{codec:?}: {got:?}");
        let Ingest::Frame(f) = &got[1] else { panic!("{codec:?}") };
        assert_eq!((f.kind, f.pts, &f.payload), (kind, 40 * MS, &payload), "{codec:?}");
        // Again, with nothing new to say.
        assert_eq!(media(&mut d, &m).len(), 1, "{codec:?}");
    }
}

#[test]
fn pictures_of_h265_keep_their_composition_time_and_lose_their_sets() {
    use crate::rtmp::egress::{frame_message, sequence_header};
    let (params, _) = samples().swap_remove(1);
    let mut d = Demuxer::default();
    media(&mut d, &sequence_header(&params, None, 0, 1).unwrap());
    let sets: &[&[u8]] = &[&[0x46, 1, 0x50], &[0x42, 1, 0xc1, 8], &[19 << 1, 1, 0x80]];
    let m = frame_message(Some(&params), (FrameKind::Key, None), &units(sets), 0, 80 * MS, 1).unwrap();
    let items = media(&mut d, &m);
    let [Ingest::Config { params: CodecParams::H265 { sps, .. }, .. }, Ingest::Frame(f)] = &items[..] else {
        panic!("{items:?}")
    };
    assert_eq!((f.dts, f.pts, &f.payload), (0, 80 * MS, &units(&sets[2..])));
    assert_eq!(sps[..], [Bytes::from_static(&[0x42, 1, 0xc1, 8])]);
}

#[test]
fn several_tracks_are_tracks_of_the_stream() {
    let limits = Limits::default();
    let mut d = Demuxer::default();
    let both = message(kind::AUDIO, 0, &b"\x95\x10mp4a\x01\0\0\x02\x11\x90\x00\0\0\x02\x12\x10"[..]);
    let items = media(&mut d, &both);
    let tracks: Vec<u8> = items
        .iter()
        .map(|i| match i {
            Ingest::Config { track, params: CodecParams::Aac { .. } } => track.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(tracks, [4, 1]);
    let items = media(&mut d, &message(kind::AUDIO, 23, &b"\x95\x11mp4a\x00\0\0\x01a\x01\0\0\x01b"[..]));
    let [Ingest::Frame(a), Ingest::Frame(b)] = &items[..] else { panic!("{items:?}") };
    assert_eq!(
        (a.track, &a.payload[..], b.track, &b.payload[..]),
        (TrackId::AUDIO, &b"a"[..], TrackId(4), &b"b"[..])
    );
    let one = one_frame(&mut d, &message(kind::AUDIO, 23, &b"\x95\x01mp4a\x01b"[..]));
    assert_eq!(one.track, TrackId(4), "one track alone");
    assert_eq!(one_frame(&mut d, &message(kind::AUDIO, 23, &b"\xaf\x01c"[..])).track, TrackId::AUDIO);
    // Several codecs in one message; one of them is none of ours, which ends nobody's stream.
    let m = message(kind::AUDIO, 40, &b"\x95\x21ac-3\x02\0\0\x01amp4a\x01\0\0\x01b"[..]);
    let Ok(Taken::Part(items, why)) = d.take(&m, &limits) else { panic!() };
    assert!(items.len() == 1 && why.contains("codec"));
    let far = d.take(&message(kind::AUDIO, 40, &b"\x95\x01mp4a\xffb"[..]), &limits);
    assert_eq!(far, Ok(Taken::Dropped(FAR_TRACK)));
    // Nanoseconds after the message's milliseconds.
    let m = message(kind::AUDIO, 40, &b"\x97\x02\x00\x00\x07\x01mp4az"[..]);
    assert_eq!(one_frame(&mut d, &m).dts, 40 * MS + 7);
}

#[test]
fn messages_of_g711_become_frames_that_fit_a_packet_one_where_that_can_be() {
    let mut d = Demuxer::default();
    let items = media(&mut d, &message(kind::AUDIO, 1_000, [&[0x72][..], &[5; 1_024]].concat()));
    let [Ingest::Config { .. }, Ingest::Frame(one)] = &items[..] else { panic!("{items:?}") };
    assert_eq!((one.payload.len(), one.dts), (1_024, 1_000 * MS));
    let items = media(&mut d, &message(kind::AUDIO, 1_128, [&[0x72][..], &[5; 2_000]].concat()));
    let [Ingest::Frame(a), Ingest::Frame(b)] = &items[..] else { panic!("{items:?}") };
    assert_eq!((a.payload.len(), b.payload.len(), b.dts - a.dts), (1_000, 1_000, 125 * MS));
}
