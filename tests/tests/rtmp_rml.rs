//! Our RTMP against an independent implementation (rml_rtmp): as publisher, as player, and as an oracle for chunk
//! streams and AMF0. It is kept away from what it is known to do wrong: interleaved chunk streams, short commands,
//! deep nesting.
#![forbid(unsafe_code)]

use bytes::Bytes;
use proptest::prelude::*;
use proto_core::cluster::Epoch;
use proto_core::hub::delivery::Delivery;
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::media::frame::{Frame, FrameKind, Ingest, NewFrame, Renderings};
use proto_core::media::track::Codec;
use proto_core::media::track::{CodecConfig, Origin};
use proto_core::rand::Rng;
use proto_core::rtmp::server::{Input, Output, Server};
use proto_core::time::Time;
use proto_core::wire::amf0::{self, Bounds, Value};
use proto_core::wire::flv::{AudioTag, VideoTag};
use proto_core::wire::h264::AvcConfig;
use proto_core::wire::rtmp_chunk::{ChunkReader, render_message};
use proto_core::wire::rtmp_message::Message;
use rml_rtmp::chunk_io::{ChunkDeserializer, ChunkSerializer};
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::messages::MessagePayload;
use rml_rtmp::rml_amf0::{Amf0Value, deserialize, serialize};
use rml_rtmp::sessions::{
    ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult, PublishRequestType,
};
use rml_rtmp::time::RtmpTimestamp;
use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

const T0: Time = Time::ZERO;

/// Both ends of one connection, wired to each other.
struct Pair {
    server: Server,
    client: ClientSession,
    events: Vec<ClientSessionEvent>,
    said: Vec<Output>,
}

impl Pair {
    /// Handshake (rml_rtmp sends digests) and `connect`.
    fn connected() -> Pair {
        let mut server = Server::new(Limits::default(), Rng::new([5; 32]), T0);
        server.handle(Input::Writable(1 << 30), T0);
        let mut handshake = Handshake::new(PeerType::Client);
        let mut to_server = handshake.generate_outbound_p0_and_p1().unwrap();
        loop {
            server.handle(Input::Received(&to_server), T0);
            let mut to_client = Vec::new();
            while let Some(o) = server.poll() {
                match o {
                    Output::Send(b) => to_client.extend_from_slice(&b),
                    other => panic!("{other:?}"),
                }
            }
            match handshake.process_bytes(&to_client).unwrap() {
                HandshakeProcessResult::InProgress { response_bytes } => to_server = response_bytes,
                HandshakeProcessResult::Completed { response_bytes, .. } => {
                    server.handle(Input::Received(&response_bytes), T0);
                    break;
                }
            }
        }
        let (client, first) = ClientSession::new(ClientSessionConfig::new()).unwrap();
        let mut pair = Pair { server, client, events: Vec::new(), said: Vec::new() };
        pair.take(first);
        let connect = pair.client.request_connection("live".to_owned()).unwrap();
        pair.take(vec![connect]);
        assert!(pair.events.contains(&ClientSessionEvent::ConnectionRequestAccepted));
        pair
    }

    /// Carries what the client wants sent, and what comes of it, until both are quiet.
    fn take(&mut self, results: Vec<ClientSessionResult>) {
        let mut todo = results;
        loop {
            for result in std::mem::take(&mut todo) {
                match result {
                    ClientSessionResult::OutboundResponse(p) => {
                        self.server.handle(Input::Received(&p.bytes), T0);
                    }
                    ClientSessionResult::RaisedEvent(e) => self.events.push(e),
                    ClientSessionResult::UnhandleableMessageReceived(_) => {}
                }
            }
            let mut to_client = Vec::new();
            while let Some(o) = self.server.poll() {
                match &o {
                    Output::Send(b) => to_client.extend_from_slice(b),
                    Output::PublishRequested { stream, .. } => {
                        self.server.handle(Input::PublishAccepted(*stream), T0);
                    }
                    Output::PlayRequested { stream, .. } => {
                        self.server.handle(Input::PlayAccepted(*stream), T0);
                    }
                    _ => {}
                }
                self.said.push(o);
            }
            if to_client.is_empty() {
                return;
            }
            todo = self.client.handle_input(&to_client).unwrap();
        }
    }

    fn media(&self) -> Vec<&Ingest> {
        self.said.iter().filter_map(|o| if let Output::Media(_, i) = o { Some(i) } else { None }).collect()
    }
}

fn avc_config() -> Bytes {
    let sps = Bytes::from_static(&[0x67, 0x42, 0xc0, 0x1f, 9]);
    let record = AvcConfig::emit(&[sps], &[Bytes::from_static(&[0x68, 0xce])]);
    VideoTag::Config { codec: Codec::H264, record }.emit().unwrap()
}

fn picture(size: usize) -> Bytes {
    let mut data = (size as u32).to_be_bytes().to_vec();
    data.push(0x65);
    data.resize(size + 4, 3);
    VideoTag::Frame { codec: Codec::H264, key: true, composition: 0, data: data.into() }.emit().unwrap()
}

/// Publishes two pictures and a sound through rml_rtmp; answers what our server took.
fn published() -> Pair {
    let mut pair = Pair::connected();
    let publish = pair.client.request_publishing("demo".to_owned(), PublishRequestType::Live).unwrap();
    pair.take(vec![publish]);
    assert!(pair.events.contains(&ClientSessionEvent::PublishRequestAccepted), "{:?}", pair.events);
    let asc =
        AudioTag::Config { codec: Codec::Aac, record: Bytes::from_static(&[0x12, 0x10]) }.emit().unwrap();
    let sound =
        AudioTag::Frame { codec: Codec::Aac, channels: 2, data: Bytes::from_static(b"raw") }.emit().unwrap();
    // The last time needs an extended timestamp, over many chunks.
    for (time, video, data) in [
        (0, true, avc_config()),
        (0, false, asc),
        (0, true, picture(100_000)),
        (10, false, sound),
        (0x0100_0000, true, picture(50_000)),
    ] {
        let time = RtmpTimestamp::new(time);
        let sent = if video {
            pair.client.publish_video_data(data, time, false)
        } else {
            pair.client.publish_audio_data(data, time, false)
        };
        pair.take(vec![sent.unwrap()]);
    }
    pair
}

#[test]
fn an_independent_publisher_is_understood() {
    let mut pair = published();
    let frames: Vec<&NewFrame> = pair
        .media()
        .into_iter()
        .filter_map(|i| if let Ingest::Frame(f) = i { Some(f) } else { None })
        .collect();
    let seen: Vec<(i64, usize)> = frames.iter().map(|f| (f.dts / 1_000_000, f.payload.len())).collect();
    assert_eq!(seen, [(0, 100_004), (10, 3), (0x0100_0000, 50_004)]);
    assert_eq!(pair.media().len(), 5, "and two configurations");
    let stop = pair.client.stop_publishing().unwrap();
    pair.take(stop);
    assert_eq!(pair.said.iter().filter(|o| **o == Output::Unpublished(1)).count(), 1);
}

#[test]
fn an_independent_player_understands_us() {
    let publisher = published();
    let mut pair = Pair::connected();
    let play = pair.client.request_playback("demo".to_owned()).unwrap();
    pair.take(vec![play]);
    assert!(pair.events.contains(&ClientSessionEvent::PlaybackRequestAccepted), "{:?}", pair.events);
    for item in publisher.media() {
        let delivery = match item.clone() {
            Ingest::Config { track, params } => {
                let config = Arc::new(CodecConfig { version: 1, params, origin: Origin::Ingest });
                Delivery::Config { track, config }
            }
            Ingest::Frame(media) => {
                let (dts, pts) = (media.dts, media.pts);
                let epoch = Epoch::default();
                let renderings = Renderings::default();
                let frame = Arc::new(Frame { seq: 1, epoch, config_version: 1, media, renderings });
                Delivery::Frame { frame, dts, pts, cached: false }
            }
        };
        pair.server.handle(Input::Deliver(1, &delivery), T0);
    }
    pair.take(Vec::new());
    let (mut video, mut audio, mut metadata) = (Vec::new(), Vec::new(), 0);
    for event in &pair.events {
        match event {
            ClientSessionEvent::VideoDataReceived { timestamp, data } => {
                video.push((timestamp.value, data.clone()));
            }
            ClientSessionEvent::AudioDataReceived { timestamp, data } => {
                audio.push((timestamp.value, data.clone()));
            }
            ClientSessionEvent::StreamMetadataReceived { .. } => metadata += 1,
            _ => {}
        }
    }
    assert!(
        video == [(0, avc_config()), (0, picture(100_000)), (0x0100_0000, picture(50_000))],
        "{:?}",
        video.iter().map(|v| (v.0, v.1.len())).collect::<Vec<_>>()
    );
    assert_eq!(audio.last().map(|a| (a.0, &a.1[..])), Some((10, &b"\xaf\x01raw"[..])));
    assert_eq!((audio.len(), metadata), (2, 1));
    let keys = publisher
        .media()
        .iter()
        .filter(|i| matches!(i, Ingest::Frame(f) if f.kind == FrameKind::Key))
        .count();
    assert_eq!(keys, 2);
}

fn leaf() -> impl Strategy<Value = Amf0Value> {
    prop_oneof![
        any::<i32>().prop_map(|n| Amf0Value::Number(f64::from(n))),
        any::<bool>().prop_map(Amf0Value::Boolean),
        "[a-zé]{0,20}".prop_map(Amf0Value::Utf8String),
        Just(Amf0Value::Null),
        Just(Amf0Value::Undefined),
    ]
}

fn any_amf() -> impl Strategy<Value = Amf0Value> {
    leaf().prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            prop::collection::hash_map("[a-z]{1,9}", inner.clone(), 0..5).prop_map(Amf0Value::Object),
            prop::collection::vec(inner, 0..5).prop_map(Amf0Value::StrictArray),
        ]
    })
}

/// The same value in their words. Properties come as a map there, so that order is lost.
fn theirs(value: &Value) -> Amf0Value {
    match value {
        Value::Number(n) => Amf0Value::Number(*n),
        Value::Boolean(b) => Amf0Value::Boolean(*b),
        Value::String(s) => Amf0Value::Utf8String(s.clone()),
        Value::Null => Amf0Value::Null,
        Value::Undefined => Amf0Value::Undefined,
        Value::StrictArray(items) => Amf0Value::StrictArray(items.iter().map(theirs).collect()),
        Value::Object(pairs) => {
            Amf0Value::Object(pairs.iter().map(|(k, v)| (k.clone(), theirs(v))).collect::<HashMap<_, _>>())
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn amf0_is_read_and_written_alike(values in prop::collection::vec(any_amf(), 1..4)) {
        let bytes = serialize(&values).unwrap();
        let ours = amf0::parse(&bytes, Bounds { depth: 16, properties: 512, string_bytes: 64 << 10 }).unwrap();
        prop_assert_eq!(ours.iter().map(theirs).collect::<Vec<_>>(), values.clone());
        let mut again = Cursor::new(amf0::emit_all(&ours).to_vec());
        prop_assert_eq!(deserialize(&mut again).unwrap(), values);
    }

    #[test]
    fn chunks_are_read_and_written_alike(
        items in prop::collection::vec(
            (0u32..0x0110_0000, prop_oneof![Just(8u8), Just(9), Just(18)], prop::collection::vec(any::<u8>(), 1..900)),
            1..20,
        ),
        size in 1u32..400,
        compressed: bool,
    ) {
        // Their headers are compressed to types 1, 2 and 3 where they can be. Told not to, they write every chunk of
        // a message with type 0, which is wrong; so only messages of one chunk are.
        let (mut writer, mut reader) = (ChunkSerializer::new(), ChunkReader::new(&Limits::default()));
        reader.set_partial_cap(1 << 20);
        let mut bytes = writer.set_max_chunk_size(size, RtmpTimestamp::new(0)).unwrap().bytes;
        let mut back = ChunkDeserializer::new();
        back.set_max_chunk_size(size as usize).unwrap();
        let mut time = 0;
        for (step, kind, data) in &items {
            // Mostly small steps; a few far ones.
            time += if step % 5 == 0 { *step } else { step % 100 };
            let data = Bytes::from(data.clone());
            let payload = MessagePayload {
                timestamp: RtmpTimestamp::new(time),
                type_id: *kind,
                message_stream_id: 1,
                data: data.clone(),
            };
            bytes.extend(writer.serialize(&payload, !compressed && data.len() <= size as usize, false).unwrap().bytes);
            let mut rest = &bytes[..];
            let ours = reader.read(&mut rest).unwrap().unwrap();
            prop_assert_eq!((ours.timestamp, ours.kind, ours.stream, &ours.payload), (time, *kind, 1, &data));
            prop_assert!(rest.is_empty());
            bytes.clear();
            let message = Message { csid: 6, timestamp: time, kind: *kind, stream: 1, payload: data };
            let theirs = back.get_next_message(&render_message(&message, size)).unwrap().unwrap();
            prop_assert_eq!(theirs, payload);
        }
    }
}
