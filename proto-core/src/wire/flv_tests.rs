use super::*;
use proptest::prelude::*;

fn pictures() -> impl Strategy<Value = Codec> {
    prop::sample::select(vec![Codec::H264, Codec::H265, Codec::Vp8, Codec::Vp9, Codec::Av1])
}

proptest! {
    #[test]
    fn video_round_trips(codec in pictures(), key: bool, composition in -0x80_0000i32..0x80_0000, data: Vec<u8>) {
        let data = Bytes::from(data);
        let composition = if matches!(codec, Codec::H264 | Codec::H265) { composition } else { 0 };
        let tag = VideoTag::Frame { codec, key, composition, data: data.clone() };
        prop_assert_eq!(VideoTag::parse(&tag.emit().unwrap()), Some(tag));
        let tag = VideoTag::Config { codec, record: data };
        prop_assert_eq!(VideoTag::parse(&tag.emit().unwrap()), Some(tag));
    }

    #[test]
    fn audio_round_trips(data: Vec<u8>, channels in 1u8..=2) {
        let data = Bytes::from(data);
        for codec in [Codec::Aac, Codec::Opus] {
            let tag = AudioTag::Config { codec, record: data.clone() };
            prop_assert_eq!(AudioTag::parse(&tag.emit().unwrap()), Some(tag));
            let tag = AudioTag::Frame { codec, channels: 2, data: data.clone() };
            prop_assert_eq!(AudioTag::parse(&tag.emit().unwrap()), Some(tag));
        }
        for codec in [Codec::Mp3, Codec::Pcma, Codec::Pcmu] {
            let tag = AudioTag::Frame { codec, channels, data: data.clone() };
            prop_assert_eq!(AudioTag::parse(&tag.emit().unwrap()), Some(tag));
        }
    }

    #[test]
    fn tracks_are_taken_apart(
        parts in prop::collection::vec((any::<u8>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..20)), 0..5),
    ) {
        // ManyTracksManyCodecs, coded frames without composition times.
        let mut out = BytesMut::new();
        out.put_slice(&[0x96, 0x23]);
        for (id, vp9, data) in &parts {
            out.put_slice(if *vp9 { b"vp09" } else { b"av01" });
            out.put_u8(*id);
            out.put_uint(data.len() as u64, 3);
            out.put_slice(data);
        }
        let wanted = parts.iter().map(|(id, vp9, data)| {
            let codec = if *vp9 { Codec::Vp9 } else { Codec::Av1 };
            (*id, VideoTag::Frame { codec, key: true, composition: 0, data: Bytes::copy_from_slice(data) })
        });
        prop_assert_eq!(VideoTag::parse(&out.freeze()), Some(VideoTag::Tracks(wanted.collect())));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), enhanced: bool) {
        let mut bytes = bytes;
        if let (true, Some(first)) = (enhanced, bytes.first_mut()) {
            *first |= 0x90;
        }
        let bytes = Bytes::from(bytes);
        let _ = (VideoTag::parse(&bytes), AudioTag::parse(&bytes), opus_head_channels(&bytes));
    }
}

fn video(b: &'static [u8]) -> Option<VideoTag> {
    VideoTag::parse(&Bytes::from_static(b))
}

fn audio(b: &'static [u8]) -> Option<AudioTag> {
    AudioTag::parse(&Bytes::from_static(b))
}

fn frame(codec: Codec, key: bool, composition: i32) -> Option<VideoTag> {
    Some(VideoTag::Frame { codec, key, composition, data: Bytes::from_static(b"nal") })
}

#[test]
fn enhanced_pictures_are_read_in_all_their_forms() {
    let record = Bytes::from_static(b"rec");
    assert_eq!(video(b"\x90avc1rec"), Some(VideoTag::Config { codec: Codec::H264, record: record.clone() }));
    assert_eq!(video(b"\x90hvc1rec"), Some(VideoTag::Config { codec: Codec::H265, record }));
    assert_eq!(video(b"\xa1avc1\xff\xff\xffnal"), frame(Codec::H264, false, -1));
    assert_eq!(video(b"\x91hvc1\0\0\x28nal"), frame(Codec::H265, true, 40));
    assert_eq!(video(b"\x93hvc1nal"), frame(Codec::H265, true, 0));
    assert_eq!(video(b"\x91av01nal"), frame(Codec::Av1, true, 0));
    assert_eq!(video(b"\xa1vp09nal"), frame(Codec::Vp9, false, 0));
    assert_eq!(video(b"\x1c\x01\0\0\0nal"), frame(Codec::H265, true, 0), "the unofficial form");
    for nothing in [&b"\x92avc1"[..], b"\x94av01colour", b"\xd0\0"] {
        assert_eq!(VideoTag::parse(&Bytes::copy_from_slice(nothing)), Some(VideoTag::Nothing));
    }
    assert_eq!(video(b"\x91avc1\0\0"), None);
}

#[test]
fn modifiers_come_before_the_packet() {
    // One modifier of 3 bytes: TimestampOffsetNano 500,000, then coded frames.
    let tag = video(b"\x97\x02\x07\xa1\x20\x03av01nal");
    let inner = Box::new(frame(Codec::Av1, true, 0).unwrap());
    assert_eq!(tag, Some(VideoTag::Offset { nanos: 500_000, tag: inner }));
    // One of an unknown kind with a long size is left out.
    let mut long = vec![0x97, 255, 1, 0];
    long.extend([9; 257]);
    long.extend(b"\x51vp09nal");
    assert_eq!(VideoTag::parse(&long.into()), frame(Codec::Vp9, true, 0));
    assert_eq!(video(b"\x97\x02\x07"), None);
    let sound = audio(b"\x97\x02\x00\x00\x01\x01Opusxy");
    let data = Bytes::from_static(b"xy");
    let inner = Box::new(AudioTag::Frame { codec: Codec::Opus, channels: 2, data });
    assert_eq!(sound, Some(AudioTag::Offset { nanos: 1, tag: inner }));
}

#[test]
fn one_track_and_tracks_of_one_codec_are_read() {
    let one = video(b"\x96\x03av01\x05nal").unwrap();
    assert_eq!(one, VideoTag::Tracks(vec![(5, frame(Codec::Av1, true, 0).unwrap())]));
    let data =
        |d: &'static [u8]| AudioTag::Frame { codec: Codec::Aac, channels: 2, data: Bytes::from_static(d) };
    let two = audio(b"\x95\x11mp4a\x00\0\0\x02ab\x01\0\0\x01c").unwrap();
    assert_eq!(two, AudioTag::Tracks(vec![(0, data(b"ab")), (1, data(b"c"))]));
    assert_eq!(video(b"\x96\x13av01\x00\0\0\x09nal"), None, "its size passes the end");
    assert_eq!(video(b"\x96\x06av01\x00"), None, "tracks within tracks");
}

proptest::proptest! {
    #[test]
    fn one_track_is_read_as_it_was_written(
        number: u8, key: bool, composition in -0x80_0000i32..0x80_0000, which in 0usize..8,
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60),
    ) {
        let data = Bytes::from(bytes);
        let (codec, config) = ([Codec::H264, Codec::H265, Codec::Av1, Codec::Vp9][which / 2], which % 2 == 0);
        let composition = if matches!(codec, Codec::H264 | Codec::H265) { composition } else { 0 };
        let tag = if config {
            VideoTag::Config { codec, record: data.clone() }
        } else {
            VideoTag::Frame { codec, key, composition, data: data.clone() }
        };
        let written = tag.emit_track(number).unwrap();
        proptest::prop_assert_eq!(VideoTag::parse(&written), Some(VideoTag::Tracks(vec![(number, tag)])));
        let codec = [Codec::Aac, Codec::Opus, Codec::Mp3][which % 3];
        let tag = if config {
            AudioTag::Config { codec, record: data }
        } else {
            AudioTag::Frame { codec, channels: 2, data }
        };
        let written = tag.emit_track(number).unwrap();
        proptest::prop_assert_eq!(AudioTag::parse(&written), Some(AudioTag::Tracks(vec![(number, tag)])));
    }
}

#[test]
fn other_codecs_are_named() {
    assert_eq!(video(&[0x22, 0]), Some(VideoTag::Unsupported("Sorenson H.263".into())));
    assert_eq!(video(b"\x90vvc1"), Some(VideoTag::Unsupported("VVC".into())));
    assert_eq!(audio(b"\x90fLaC"), Some(AudioTag::Unsupported("FLAC".into())));
    assert_eq!(audio(&[0xbf, 0]), Some(AudioTag::Unsupported("Speex".into())));
    assert_eq!(video(b"\x90Opus"), Some(VideoTag::Unsupported("FourCC \"Opus\"".into())));
    let record = Bytes::new();
    assert_eq!(audio(b"\x90Opus"), Some(AudioTag::Config { codec: Codec::Opus, record }));
    assert_eq!(video(&[0x57, 0]), Some(VideoTag::Nothing));
}

#[test]
fn opus_heads_say_their_channels() {
    assert_eq!(opus_head_channels(&opus_head(2)), Some(2));
    assert_eq!(opus_head(1).len(), 19);
    assert_eq!(opus_head_channels(b"OpusHead\x01"), None);
}

#[test]
fn a_tag_of_a_file_has_size_and_time_in_front_and_its_size_behind() {
    let tag = file_tag(9, 0x0102_0304, b"abc");
    assert_eq!(tag[..11], [9, 0, 0, 3, 2, 3, 4, 1, 0, 0, 0]);
    assert_eq!((&tag[11..14], &tag[14..]), (&b"abc"[..], &[0, 0, 0, 14][..]));
    assert!(file_tag(9, 0, &vec![0; 1 << 24]).is_empty());
}
