//! Viewers by HTTP-FLV.

use super::*;
use crate::cluster::Epoch;
use crate::hub::{SourceId, StreamState};
use crate::media::frame::{FrameKind, Ingest, NewFrame, Rotation};
use crate::media::track::{CodecParams, TrackId};
use bytes::Bytes;

const SOURCE: SourceId = SourceId(7_777);

/// A node with a stream of pictures and sound.
fn live() -> (Bench, StreamId) {
    let mut bench = Bench::new(|_| {});
    let key = StreamKey::parse("live/one").unwrap();
    let stream = bench.node.hub.publish(&key, Epoch::default(), SOURCE, bench.now).unwrap();
    let (sps, pps) = (vec![Bytes::from_static(&[0x67, 1, 2, 3])], vec![Bytes::from_static(&[0x68, 1])]);
    let asc = Bytes::from_static(&[0x12, 0x10]);
    for (track, params) in [
        (TrackId::VIDEO, CodecParams::H264 { sps, pps, size: Some((640, 360)), reorders: false }),
        (TrackId::AUDIO, CodecParams::Aac { asc, rate: 44_100, channels: 2 }),
    ] {
        bench.node.hub.ingest(stream, SOURCE, Ingest::Config { track, params }, bench.now);
    }
    frame(&mut bench, stream, FrameKind::Key, b"\0\0\0\x02\x65\x88");
    (bench, stream)
}

fn frame(bench: &mut Bench, stream: StreamId, kind: FrameKind, payload: &'static [u8]) -> Vec<Output> {
    let dts = bench.now.as_nanos() as i64;
    let media = NewFrame {
        track: if kind == FrameKind::Audio { TrackId::AUDIO } else { TrackId::VIDEO },
        dts,
        pts: dts,
        kind,
        discardable: false,
        temporal_layer: 0,
        rotation: Rotation::R0,
        capture: None,
        payload: Bytes::from_static(payload),
    };
    bench.node.hub.ingest(stream, SOURCE, Ingest::Frame(media), bench.now);
    bench.later(Duration::from_millis(20))
}

fn bytes_of(said: &[Output], of: ConnId) -> Vec<u8> {
    let bytes = said.iter().filter_map(|o| match o {
        Output::Send { conn, bytes } if *conn == of => Some(bytes.to_vec()),
        _ => None,
    });
    bytes.flatten().collect()
}

/// Kind and body of each tag.
fn tags(mut flv: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut out = Vec::new();
    while !flv.is_empty() {
        let len = usize::from(flv[1]) << 16 | usize::from(flv[2]) << 8 | usize::from(flv[3]);
        out.push((flv[0], flv[11..11 + len].to_vec()));
        assert_eq!(flv[11 + len..15 + len], (len as u32 + 11).to_be_bytes());
        flv = &flv[15 + len..];
    }
    out
}

#[test]
fn a_viewer_gets_a_file_without_end_and_leaves_nothing_behind() {
    let (mut bench, stream) = live();
    let conn = bench.accept(1, Service::Http);
    let request = b"GET /flv/live/one.flv HTTP/1.1\r\nHost: n\r\n\r\n";
    let mut said = bench.tell(Input::Received { conn, bytes: request });
    said.extend(frame(&mut bench, stream, FrameKind::Audio, b"sound"));
    said.extend(frame(&mut bench, stream, FrameKind::Delta, b"\0\0\0\x02\x41\x88"));
    let all = bytes_of(&said, conn);
    let at = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&all[..at]).to_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: video/x-flv"), "{head}");
    assert!(head.contains("connection: close") && !head.contains("content-length"), "{head}");
    assert!(head.contains("access-control-allow-origin: *"), "{head}");
    assert_eq!(all[at..at + 13], *b"FLV\x01\x05\0\0\0\x09\0\0\0\0");
    let tags = tags(&all[at + 13..]);
    assert_eq!(tags.iter().map(|t| t.0).collect::<Vec<_>>(), [18, 9, 8, 9, 8, 9], "{tags:?}");
    // Sequence header, then the cached key frame, then what came.
    assert_eq!((&tags[1].1[..2], &tags[3].1[..2]), (&[0x17, 0][..], &[0x17, 1][..]));
    assert_eq!((&tags[4].1[2..], tags[5].1[0]), (&b"sound"[..], 0x27));
    let other = bench.accept(2, Service::Http);
    assert!(bench.get(other, "/api/v1/sessions").contains("\"flv-"));

    // What it says meanwhile is not looked at; that it leaves is.
    bench.tell(Input::Received { conn, bytes: b"GET / HTTP/1.1\r\nHost: n\r\n\r\n" });
    assert!(closed(&bench.tell(Input::PeerFinished { conn }), conn));
    assert!(bench.node.sessions.is_empty() && bench.node.flv.is_empty());
    assert_eq!(bench.node.hub.subscribers(stream).count(), 0);
    assert_eq!(bench.node.hub.state(stream), Some(StreamState::Live));
}

#[test]
fn a_stream_that_ends_ends_the_answer_and_one_that_is_not_there_is_404() {
    let (mut bench, stream) = live();
    let conn = bench.accept(1, Service::Http);
    let request = b"GET /flv/live/one.flv HTTP/1.1\r\nHost: n\r\n\r\n";
    bench.tell(Input::Received { conn, bytes: request });
    let now = bench.now;
    bench.node.hub.end(stream, Reason::peer("over", "it is over"), now);
    assert!(closed(&bench.later(Duration::from_millis(1)), conn));
    assert!(bench.node.flv.is_empty() && bench.node.sessions.is_empty());

    let conn = bench.accept(2, Service::Http);
    let mut said =
        bench.tell(Input::Received { conn, bytes: b"GET /flv/live/two.flv HTTP/1.1\r\nHost: n\r\n\r\n" });
    for _ in 0..100 {
        said.extend(bench.later(Duration::from_millis(100)));
    }
    let answer = text_of(&said, conn);
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(bench.node.flv.is_empty() && bench.node.sessions.is_empty());
    let conn = bench.accept(3, Service::Http);
    assert!(bench.get(conn, "/flv/live/one").contains(".flv"), "the words say where it is");
}
