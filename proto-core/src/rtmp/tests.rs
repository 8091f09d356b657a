//! The server against transcripts of encoders, against our own client, and against abuse.

use super::client::{Client, Input as ClientIn, Output as ClientOut};
use super::handshake::{ClientHandshake, PACKET};
use super::server::{Input, Output, Server};
use crate::cluster::Epoch;
use crate::error::Reason;
use crate::hub::delivery::Delivery;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::media::frame::{Frame, FrameKind, Ingest, NewFrame, Renderings, Rotation};
use crate::media::track::{CodecConfig, CodecParams, Origin, TrackId};
use crate::rand::Rng;
use crate::time::Time;
use crate::wire::amf0::{self, Bounds, Value, emit_all};
use crate::wire::rtmp_chunk::{ChunkReader, render_message};
use crate::wire::rtmp_message::{Message, kind, user_control};
use bytes::Bytes;
use proptest::prelude::*;
use std::sync::Arc;

mod enhanced;

const T0: Time = Time::from_millis(1_000);

fn server() -> Server {
    let mut s = Server::new(Limits::default(), Rng::new([1; 32]), T0);
    s.handle(Input::Writable(1 << 30), T0);
    s
}

/// Everything a machine says now; a request is answered by `accept`.
fn drain(s: &mut Server, accept: bool, now: Time) -> Vec<Output> {
    let mut out = Vec::new();
    while let Some(o) = s.poll() {
        match &o {
            Output::PublishRequested { stream, .. } if accept => {
                s.handle(Input::PublishAccepted(*stream), now)
            }
            Output::PlayRequested { stream, .. } if accept => s.handle(Input::PlayAccepted(*stream), now),
            _ => {}
        }
        out.push(o);
    }
    out
}

fn feed(s: &mut Server, bytes: &[u8]) -> Vec<Output> {
    s.handle(Input::Received(bytes), T0);
    drain(s, true, T0)
}

fn hello() -> Vec<u8> {
    let (_, mut bytes) = ClientHandshake::new(&mut Rng::new([2; 32]));
    bytes.extend_from_slice(&[0; PACKET]);
    bytes
}

fn raw(csid: u32, kind: u8, stream: u32, payload: impl Into<Bytes>) -> Vec<u8> {
    let m = Message { csid, timestamp: 0, kind, stream, payload: payload.into() };
    render_message(&m, 128).to_vec()
}

fn command(stream: u32, name: &str, id: f64, object: Value, args: &[Value]) -> Vec<u8> {
    let mut all = vec![Value::string(name), Value::Number(id), object];
    all.extend_from_slice(args);
    raw(3, kind::COMMAND, stream, emit_all(&all).freeze())
}

fn connect(app: &str) -> Vec<u8> {
    let object = Value::object([
        ("app", Value::string(app)),
        ("type", Value::string("nonprivate")),
        ("flashVer", Value::string("FMLE/3.0 (compatible; Lavf61.7.100)")),
        ("tcUrl", Value::string(format!("rtmp://127.0.0.1:1935/{app}"))),
    ]);
    command(0, "connect", 1.0, object, &[])
}

/// What ffmpeg sends to publish, up to and including `publish`.
fn ffmpeg_publish(name: &str) -> Vec<u8> {
    let text = || Value::string(name);
    [
        hello(),
        connect("live"),
        command(0, "releaseStream", 2.0, Value::Null, &[text()]),
        command(0, "FCPublish", 3.0, Value::Null, &[text()]),
        command(0, "createStream", 4.0, Value::Null, &[]),
        command(1, "publish", 5.0, Value::Null, &[text(), Value::string("live")]),
    ]
    .concat()
}

/// What OBS sends: another order of the connect object, a chunk size, `_checkbw`, and a query in the name.
fn obs_publish(name: &str) -> Vec<u8> {
    let object = Value::object([
        ("app", Value::string("live")),
        ("type", Value::string("nonprivate")),
        ("flashVer", Value::string("FMLE/3.0 (compatible; FMSc/1.0)")),
        ("swfUrl", Value::string("rtmp://127.0.0.1/live")),
        ("tcUrl", Value::string("rtmp://127.0.0.1/live")),
    ]);
    let text = || Value::string(name);
    [
        hello(),
        raw(2, kind::SET_CHUNK_SIZE, 0, 128u32.to_be_bytes().to_vec()),
        command(0, "connect", 1.0, object, &[]),
        raw(2, kind::WINDOW_ACK_SIZE, 0, 2_500_000u32.to_be_bytes().to_vec()),
        command(0, "releaseStream", 2.0, Value::Null, &[text()]),
        command(0, "FCPublish", 3.0, Value::Null, &[text()]),
        command(0, "createStream", 4.0, Value::Null, &[]),
        command(0, "_checkbw", 5.0, Value::Null, &[]),
        command(1, "publish", 6.0, Value::Null, &[text(), Value::string("live")]),
    ]
    .concat()
}

fn play(app: &str, name: &str) -> Vec<u8> {
    [
        hello(),
        connect(app),
        command(0, "createStream", 2.0, Value::Null, &[]),
        command(0, "getStreamLength", 3.0, Value::Null, &[Value::string(name)]),
        command(1, "play", 4.0, Value::Null, &[Value::string(name), Value::Number(-2000.0)]),
        raw(2, kind::USER_CONTROL, 0, [&user_control(3, 1)[..], &3000u32.to_be_bytes()].concat()),
    ]
    .concat()
}

fn sent(outputs: &[Output]) -> Vec<u8> {
    outputs.iter().flat_map(|o| if let Output::Send(b) = o { &b[..] } else { &[] }).copied().collect()
}

/// What the server said after its handshake.
fn messages(bytes: &[u8]) -> Vec<Message> {
    let mut reader = ChunkReader::new(&Limits::default());
    reader.set_partial_cap(4 << 20);
    let mut rest = &bytes[1 + 2 * PACKET..];
    std::iter::from_fn(|| reader.read(&mut rest).unwrap()).collect()
}

fn values(m: &Message) -> Vec<Value> {
    amf0::parse(&m.payload, Bounds::of(&Limits::default(), true)).unwrap()
}

/// The names of commands and data, and of statuses their codes.
fn words(bytes: &[u8]) -> Vec<String> {
    messages(bytes)
        .iter()
        .filter(|m| [kind::COMMAND, kind::DATA].contains(&m.kind))
        .map(|m| {
            let v = values(m);
            let code = v.iter().find_map(|v| v.get("code")).and_then(Value::as_str);
            code.or(v[0].as_str()).unwrap().to_owned()
        })
        .collect()
}

fn closed(outputs: &[Output]) -> Option<&Reason> {
    match outputs.last() {
        Some(Output::Closed(r)) => Some(r),
        _ => None,
    }
}

fn avc() -> CodecParams {
    CodecParams::H264 {
        sps: vec![Bytes::from_static(&[0x67, 0x42, 0xc0, 0x1f, 9])],
        pps: vec![Bytes::from_static(&[0x68, 0xce])],
        size: None,
        reorders: false,
    }
}

fn aac() -> CodecParams {
    CodecParams::Aac { asc: Bytes::from_static(&[0x12, 0x10]), rate: 44_100, channels: 2 }
}

fn new_frame(track: TrackId, kind: FrameKind, ms: i64, payload: Vec<u8>) -> NewFrame {
    NewFrame {
        track,
        dts: ms * 1_000_000,
        pts: ms * 1_000_000,
        kind,
        discardable: false,
        temporal_layer: 0,
        rotation: Rotation::R0,
        capture: None,
        payload: payload.into(),
    }
}

fn picture(kind: FrameKind, ms: i64, size: usize) -> NewFrame {
    let head = if kind == FrameKind::Key { 0x65 } else { 0x41 };
    let mut payload = (size as u32).to_be_bytes().to_vec();
    payload.push(head);
    payload.resize(size + 4, 7);
    new_frame(TrackId::VIDEO, kind, ms, payload)
}

fn config(track: TrackId, params: CodecParams) -> Delivery {
    let config = Arc::new(CodecConfig { version: 1, params, origin: Origin::Ingest });
    Delivery::Config { track, config }
}

fn delivery(media: NewFrame) -> Delivery {
    let (dts, pts) = (media.dts, media.pts);
    let frame = Frame {
        seq: 1,
        epoch: Epoch::default(),
        config_version: 1,
        media,
        renderings: Renderings::default(),
    };
    Delivery::Frame { frame: Arc::new(frame), dts, pts, cached: false }
}

#[test]
fn ffmpeg_and_obs_may_publish() {
    for (bytes, query) in [(ffmpeg_publish("demo?token=a"), "token=a"), (obs_publish("demo?k=b"), "k=b")] {
        let mut s = server();
        let out = feed(&mut s, &bytes);
        let asked = out.iter().find_map(|o| match o {
            Output::PublishRequested { key, query, .. } => Some((key.to_string(), query.clone())),
            _ => None,
        });
        assert_eq!(asked, Some(("live/demo".to_owned(), query.to_owned())));
        let words = words(&sent(&out));
        assert_eq!(words[0], "NetConnection.Connect.Success");
        assert_eq!(words.last().unwrap(), "NetStream.Publish.Start");
        assert!(words.contains(&"NetStream.Publish.Start".to_owned()));
        let end = feed(&mut s, &command(0, "FCUnpublish", 6.0, Value::Null, &[Value::string("demo")]));
        let end = [end, feed(&mut s, &command(0, "deleteStream", 7.0, Value::Null, &[Value::Number(1.0)]))];
        let unpublished = end.iter().flatten().filter(|o| **o == Output::Unpublished(1)).count();
        assert_eq!(unpublished, 1, "told once");
    }
}

#[test]
fn a_busy_or_unknown_name_is_refused_in_words() {
    let mut s = server();
    s.handle(Input::Received(&ffmpeg_publish("demo")), T0);
    let mut out = drain(&mut s, false, T0);
    s.handle(Input::PublishRefused(1, Reason::peer("name_busy", "live/demo is live already")), T0);
    out.extend(drain(&mut s, false, T0));
    assert_eq!(words(&sent(&out)).last().unwrap(), "NetStream.Publish.BadName");
    assert_eq!(closed(&out).unwrap().code, "name_busy");
    assert!(!out.contains(&Output::Unpublished(1)), "the node refused it and knows");

    let mut s = server();
    s.handle(Input::Received(&ffmpeg_publish("demo")), T0);
    let mut out = drain(&mut s, false, T0);
    s.handle(Input::PublishRefused(1, Reason::local("no_manager", "no manager can be reached")), T0);
    out.extend(drain(&mut s, false, T0));
    assert_eq!(words(&sent(&out)).last().unwrap(), "NetStream.Publish.Denied", "not the name's fault");

    let mut s = server();
    s.handle(Input::Received(&play("live", "nope")), T0);
    let mut out = drain(&mut s, false, T0);
    s.handle(Input::PlayRefused(1, Reason::peer("not_found", "live/nope is not live")), T0);
    out.extend(drain(&mut s, false, T0));
    assert_eq!(words(&sent(&out)).last().unwrap(), "NetStream.Play.StreamNotFound");

    for name in ["", "a b", "../x"] {
        let out = feed(&mut server(), &ffmpeg_publish(name));
        assert_eq!(words(&sent(&out)).last().unwrap(), "NetStream.Publish.BadName");
        assert_eq!(closed(&out).unwrap().code, "stream_name");
    }
}

#[test]
fn app_and_name_make_one_key_and_one_query() {
    for (app, name, key, query) in [
        ("live?a=1", "mp4:demo?b=2", "live/demo", "a=1&b=2"),
        ("live/room", "demo", "live/room/demo", ""),
        ("live", "flv:room/demo", "live/room/demo", ""),
    ] {
        let out = feed(&mut server(), &play(app, name));
        let asked = out.iter().find_map(|o| match o {
            Output::PlayRequested { key, query, .. } => Some((key.to_string(), query.clone())),
            _ => None,
        });
        assert_eq!(asked, Some((key.to_owned(), query.to_owned())));
    }
}

#[test]
fn a_player_gets_headers_metadata_and_shared_frames() {
    let mut s = server();
    let mut out = feed(&mut s, &play("live", "demo"));
    let key = delivery(picture(FrameKind::Key, 40, 70_000));
    let mut squeezed = delivery(picture(FrameKind::Delta, 80, 10));
    if let Delivery::Frame { dts, pts, .. } = &mut squeezed {
        (*dts, *pts) = (41_000_000, 61_000_000);
    }
    let sound = delivery(new_frame(TrackId::AUDIO, FrameKind::Audio, 45, b"raw".to_vec()));
    for d in [&config(TrackId::VIDEO, avc()), &config(TrackId::AUDIO, aac()), &key, &squeezed, &sound] {
        s.handle(Input::Deliver(1, d), T0);
    }
    out.extend(drain(&mut s, true, T0));
    let bytes = sent(&out);
    let tail: Vec<String> = words(&bytes).into_iter().rev().take(4).rev().collect();
    assert_eq!(tail, ["NetStream.Play.Reset", "NetStream.Play.Start", "|RtmpSampleAccess", "onMetaData"]);
    let media: Vec<(u8, u32, usize)> = messages(&bytes)
        .iter()
        .filter(|m| [kind::AUDIO, kind::VIDEO].contains(&m.kind))
        .map(|m| (m.kind, m.timestamp, m.payload.len()))
        .collect();
    let record = 5 + 11 + 5 + 2;
    assert_eq!(media, [(9, 40, record), (8, 40, 4), (9, 40, 70_009), (9, 41, 19), (8, 45, 5)]);
    let Delivery::Frame { frame, .. } = &key else { panic!() };
    assert!(frame.renderings.rtmp.get().is_some(), "its own times: the rendering is for all");
    let Delivery::Frame { frame, .. } = &squeezed else { panic!() };
    assert!(frame.renderings.rtmp.get().is_none(), "other times: the rendering is for this player");
    let m = messages(&bytes).into_iter().find(|m| m.payload.len() == 19).unwrap();
    assert_eq!(m.payload[2..5], [0, 0, 20], "composition time");

    // Pause, frames, and on at the next key frame.
    feed(&mut s, &command(1, "pause", 0.0, Value::Null, &[Value::Boolean(true), Value::Number(0.0)]));
    s.handle(Input::Deliver(1, &delivery(picture(FrameKind::Delta, 90, 10))), T0);
    feed(&mut s, &command(1, "pause", 0.0, Value::Null, &[Value::Boolean(false), Value::Number(0.0)]));
    s.handle(Input::Deliver(1, &delivery(picture(FrameKind::Delta, 95, 10))), T0);
    assert_eq!(s.drops().get("player_asked"), Some(&2));
    assert_eq!(drain(&mut s, true, T0), []);
    s.handle(Input::Deliver(1, &delivery(picture(FrameKind::Key, 100, 10))), T0);
    assert_eq!(drain(&mut s, true, T0).len(), 1);

    s.handle(Input::StreamEnded(1, Reason::peer("ended", "over")), T0);
    let end = drain(&mut s, true, T0);
    assert_eq!(end[0], Output::Stopped(1));
    assert_eq!(closed(&end).unwrap().code, "ended");
}

/// Carries bytes between a client and a server until both are quiet.
fn shuttle(c: &mut Client, s: &mut Server, said: &mut Vec<Output>) -> Vec<ClientOut> {
    let mut out = Vec::new();
    loop {
        let mut quiet = true;
        while let Some(o) = c.poll() {
            quiet = false;
            match o {
                ClientOut::Send(b) => s.handle(Input::Received(&b), T0),
                o => out.push(o),
            }
        }
        while let Some(o) = s.poll() {
            quiet = false;
            match o {
                Output::Send(b) => c.handle(ClientIn::Received(&b), T0),
                Output::PublishRequested { stream, .. } => s.handle(Input::PublishAccepted(stream), T0),
                o => said.push(o),
            }
        }
        if quiet {
            return out;
        }
    }
}

#[test]
fn our_client_publishes_to_our_server_without_loss() {
    let mut s = server();
    let mut c = Client::new("127.0.0.1", "live", "demo", Limits::default(), Rng::new([3; 32]), T0);
    c.handle(ClientIn::Writable(1 << 30), T0);
    let mut said = Vec::new();
    assert!(shuttle(&mut c, &mut s, &mut said).contains(&ClientOut::Ready));
    let items = [
        Ingest::Config { track: TrackId::VIDEO, params: avc() },
        Ingest::Config { track: TrackId::AUDIO, params: CodecParams::Opus { channels: 2 } },
        Ingest::Frame(picture(FrameKind::Key, 0, 200_000)),
        Ingest::Frame(new_frame(TrackId::AUDIO, FrameKind::Audio, 20, b"opus".to_vec())),
        Ingest::Frame(picture(FrameKind::Delta, 40, 0x123)),
    ];
    for item in &items {
        c.handle(ClientIn::Media(item), T0);
    }
    c.handle(ClientIn::Finish, T0);
    let out = shuttle(&mut c, &mut s, &mut said);
    assert!(matches!(out.last(), Some(ClientOut::Closed(r)) if r.code == "finished"), "{out:?}");
    let got: Vec<&Ingest> = said
        .iter()
        .filter_map(|o| if let Output::Media(_, i) = o { Some(i) } else { None })
        .filter(|i| !matches!(i, Ingest::Frame(f) if f.kind == FrameKind::Data))
        .collect();
    assert_eq!(got, items.iter().collect::<Vec<_>>());
    assert!(said.contains(&Output::Unpublished(1)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_cutting_of_the_bytes_gives_the_same(cuts in prop::collection::vec(1usize..700, 1..20)) {
        let publish = obs_publish("demo");
        let mut bytes = Vec::new();
        // A video command frame: nothing to show.
        let big = vec![0x57; 200_000];
        let payload = crate::wire::amf0::emit_all(&[Value::string("@setDataFrame"), Value::string("x")]);
        bytes.extend(raw(5, kind::DATA, 1, payload.freeze()));
        // Enough for an acknowledgement: the peer asks for one every 64 KiB.
        bytes.extend(raw(2, kind::WINDOW_ACK_SIZE, 0, 1u32.to_be_bytes().to_vec()));
        bytes.extend(raw(6, kind::VIDEO, 1, big));
        bytes.extend(command(7, "what", 9.0, Value::Null, &[]));
        let mut whole = server();
        let mut expected = feed(&mut whole, &publish);
        expected.extend(feed(&mut whole, &bytes));
        let bytes = [publish, bytes].concat();
        let mut s = server();
        let (mut out, mut rest) = (Vec::new(), &bytes[..]);
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            out.extend(feed(&mut s, head));
            s.handle(Input::Tick, T0);
            rest = tail;
        }
        let told = |o: &[Output]| o.iter().filter(|o| !matches!(o, Output::Send(_))).cloned().collect::<Vec<_>>();
        prop_assert!(sent(&out) == sent(&expected), "the same bytes go out");
        prop_assert_eq!(told(&out), told(&expected));
        prop_assert!(messages(&sent(&out)).iter().filter(|m| m.kind == kind::ACKNOWLEDGEMENT).count() >= 3);
    }

    #[test]
    fn garbage_after_the_handshake_ends_in_an_answer_never_a_panic(
        garbage in prop::collection::vec(any::<u8>(), 0..2000),
        publish: bool,
    ) {
        let mut s = server();
        feed(&mut s, &if publish { ffmpeg_publish("demo") } else { play("live", "demo") });
        feed(&mut s, &garbage);
        s.handle(Input::Tick, T0);
        prop_assert!(s.backlog() == 0);
    }
}

#[test]
fn each_limit_ends_the_connection_with_its_own_reason() {
    let limits = Limits::default();
    let open = [hello(), connect("live")].concat();
    let code = |bytes: &[u8]| closed(&feed(&mut server(), bytes)).map(|r| r.code);
    let many = |one: Vec<u8>, n: usize| [open.clone(), one.repeat(n)].concat();
    let create = command(0, "createStream", 2.0, Value::Null, &[]);
    assert_eq!(code(&many(create.clone(), limits.rtmp_streams)), None);
    assert_eq!(code(&many(create, limits.rtmp_streams + 1)), Some("rtmp_streams"));
    let unknown = command(0, "what", 0.0, Value::Null, &[]);
    assert_eq!(code(&many(unknown, limits.rtmp_commands_before as usize)), Some("rtmp_commands"));
    let deep = raw(3, kind::COMMAND, 0, [10, 0, 0, 0, 1].repeat(1000));
    assert_eq!(code(&many(deep, 1)), Some("amf_size"));
    let wide = raw(3, kind::COMMAND, 0, vec![5; limits.amf_properties_before + 1]);
    assert_eq!(code(&many(wide, 1)), Some("amf_size"));
    let long = raw(3, kind::COMMAND, 0, vec![5; limits.amf_command_bytes_before + 1]);
    assert_eq!(code(&many(long, 1)), Some("amf_command_bytes"));
    let empty = raw(3, kind::COMMAND, 0, &[][..]);
    assert_eq!(code(&many(empty, 1)), Some("amf"));
    let early = [hello(), command(0, "createStream", 1.0, Value::Null, &[])].concat();
    assert_eq!(code(&early), Some("rtmp_not_connected"));
    let no_app = [hello(), connect("")].concat();
    assert_eq!(code(&no_app), Some("rtmp_invalid_app"));
    assert_eq!(code(b"GET / HTTP/1.1\r\n"), Some("rtmp_version"));
    let vvc = [ffmpeg_publish("demo"), raw(6, kind::VIDEO, 1, &b"\x90vvc1"[..])].concat();
    assert_eq!(code(&vvc), Some("unsupported_codec"));
}

#[test]
fn whoever_asks_and_does_not_read_is_closed() {
    let mut s = server();
    feed(&mut s, &[hello(), connect("live")].concat());
    s.handle(Input::Writable(0), T0);
    let ping = raw(2, kind::USER_CONTROL, 0, user_control(6, 7).to_vec());
    let mut most = 0;
    for _ in 0..10_000 {
        feed(&mut s, &ping);
        most = most.max(s.backlog());
    }
    assert!(most < 32 << 10, "{most}");
    // The last words wait for a reader, and not for ever.
    let late = s.deadline().unwrap().at;
    s.handle(Input::Tick, late);
    assert_eq!(closed(&drain(&mut s, true, late)).unwrap().code, "rtmp_unread_answers");
    assert_eq!(s.deadline(), None);
}

#[test]
fn media_before_the_answer_is_held_and_then_taken() {
    let record = crate::wire::h264::AvcConfig::emit(
        &[Bytes::from_static(&[0x67, 0x42, 0xc0, 0x1f, 9])],
        &[Bytes::from_static(&[0x68, 0xce])],
    );
    let header = crate::wire::flv::VideoTag::Config { codec: crate::media::track::Codec::H264, record };
    let bytes = [ffmpeg_publish("demo"), raw(6, kind::VIDEO, 1, header.emit().unwrap())].concat();
    let mut s = server();
    s.handle(Input::Received(&bytes), T0);
    let before = drain(&mut s, false, T0);
    assert!(
        before.contains(&Output::Reading(false)) && !before.iter().any(|o| matches!(o, Output::Media(..)))
    );
    s.handle(Input::PublishAccepted(1), T0);
    let after = drain(&mut s, false, T0);
    assert!(after.contains(&Output::Reading(true)));
    let params = avc();
    assert!(after.contains(&Output::Media(1, Ingest::Config { track: TrackId::VIDEO, params })));

    let mut s = server();
    s.handle(Input::Received(&ffmpeg_publish("demo")), T0);
    drain(&mut s, false, T0);
    s.handle(Input::Received(&[0; 70_000]), T0);
    let out = drain(&mut s, false, T0);
    assert_eq!(out[0], Output::Unpublished(1));
    assert_eq!(closed(&out).unwrap().code, "rtmp_early_media");
}

#[test]
fn silence_ends_each_phase_in_its_own_time() {
    let end = |s: &mut Server| {
        let mut why = Vec::new();
        while let Some(d) = s.deadline() {
            let early = Time::from_nanos(d.at.as_nanos() - 1);
            s.handle(Input::Tick, early);
            assert_eq!(drain(s, true, early), [], "too early: nothing");
            s.handle(Input::Tick, d.at);
            let out = drain(s, true, d.at);
            why.push((d.at.since(T0).as_millis(), closed(&out).map(|r| r.code)));
        }
        why
    };
    let mut s = server();
    feed(&mut s, &[3; 100]);
    assert_eq!(end(&mut s), [(10_000, Some("handshake_timeout"))]);
    let mut s = server();
    feed(&mut s, &[hello(), connect("live")].concat());
    assert_eq!(end(&mut s), [(30_000, Some("rtmp_unused"))]);
    let mut s = server();
    feed(&mut s, &ffmpeg_publish("demo"));
    assert_eq!(end(&mut s), [(15_000, None), (30_000, Some("rtmp_idle"))]);
    // A player that does not read.
    let mut s = server();
    feed(&mut s, &play("live", "demo"));
    s.handle(Input::Writable(0), T0);
    s.handle(Input::Deliver(1, &config(TrackId::VIDEO, avc())), T0);
    s.handle(Input::Deliver(1, &delivery(picture(FrameKind::Key, 0, 100))), T0);
    assert!(s.backlog() > 100);
    assert_eq!(end(&mut s), [(5_000, Some("viewer_stuck"))]);
}

/// A connection on which stream 1 publishes `live/demo`, with streams 2 and 3 made.
fn three_streams() -> Server {
    let mut s = server();
    feed(&mut s, &ffmpeg_publish("demo"));
    let create = command(0, "createStream", 6.0, Value::Null, &[]);
    feed(&mut s, &create.repeat(2));
    s
}

fn media_of(out: &[Output]) -> Vec<u32> {
    out.iter().filter_map(|o| if let Output::Media(stream, _) = o { Some(*stream) } else { None }).collect()
}

#[test]
fn several_streams_on_one_connection_do_not_touch_each_other() {
    let named =
        |stream, verb: &str, name: &str| command(stream, verb, 0.0, Value::Null, &[Value::string(name)]);
    let tag = |stream| {
        let data = [Value::string("@setDataFrame"), Value::string("onMetaData"), Value::string("x")];
        raw(5, kind::DATA, stream, emit_all(&data).freeze())
    };
    let mut s = three_streams();
    let out = feed(&mut s, &[named(2, "publish", "other"), named(3, "play", "third")].concat());
    let asked: Vec<_> = out
        .iter()
        .filter(|o| matches!(o, Output::PublishRequested { .. } | Output::PlayRequested { .. }))
        .collect();
    assert!(
        matches!(asked[0], Output::PublishRequested { stream: 2, key, .. } if key.as_str() == "live/other")
    );
    assert!(matches!(asked[1], Output::PlayRequested { stream: 3, key, .. } if key.as_str() == "live/third"));
    assert!(!out.contains(&Output::Reading(false)), "the first goes on meanwhile");
    assert_eq!(media_of(&feed(&mut s, &[tag(1), tag(2), tag(1), tag(3)].concat())), [1, 2, 1]);
    let out = feed(&mut s, &named(0, "FCUnpublish", "demo"));
    assert!(out.contains(&Output::Unpublished(1)) && !out.contains(&Output::Unpublished(2)));
    assert_eq!(media_of(&feed(&mut s, &[tag(1), tag(2)].concat())), [2]);
    // What is played ends, and what is published goes on.
    s.handle(Input::Deliver(3, &config(TrackId::VIDEO, avc())), T0);
    s.handle(Input::StreamEnded(3, Reason::peer("ended", "over")), T0);
    let out = drain(&mut s, true, T0);
    assert!(closed(&out).is_none() && !sent(&out).is_empty());
    assert_eq!(media_of(&feed(&mut s, &tag(2))), [2]);
    // One more, which the node refuses: only that.
    s.handle(Input::Received(&named(1, "publish", "taken")), T0);
    drain(&mut s, false, T0);
    s.handle(Input::PublishRefused(1, Reason::peer("name_busy", "taken")), T0);
    assert!(closed(&drain(&mut s, false, T0)).is_none());
    assert_eq!(media_of(&feed(&mut s, &[tag(1), tag(2)].concat())), [2]);
    // The last ends the connection.
    s.handle(Input::End(2, Reason::local("kicked", "by an operator")), T0);
    let out = drain(&mut s, false, T0);
    assert_eq!((out[0].clone(), closed(&out).unwrap().code), (Output::Unpublished(2), "kicked"));
}

#[test]
fn what_comes_before_the_answer_is_held_for_its_stream_alone() {
    let mut s = three_streams();
    let data = |stream, len: usize| {
        let bytes = emit_all(&[
            Value::string("@setDataFrame"),
            Value::string("onMetaData"),
            Value::string("x".repeat(len)),
        ]);
        raw(5, kind::DATA, stream, bytes.freeze())
    };
    let publish = command(2, "publish", 0.0, Value::Null, &[Value::string("other")]);
    s.handle(Input::Received(&[publish.clone(), data(2, 9), data(1, 9), data(2, 9)].concat()), T0);
    let out = drain(&mut s, false, T0);
    assert_eq!(media_of(&out), [1], "{out:?}");
    s.handle(Input::PublishAccepted(2), T0);
    assert_eq!(media_of(&drain(&mut s, false, T0)), [2, 2]);
    // It asks again and sends more than may be held: the end of that one.
    feed(&mut s, &command(0, "deleteStream", 0.0, Value::Null, &[Value::Number(2.0)]));
    feed(&mut s, &command(0, "createStream", 0.0, Value::Null, &[]));
    let limit = Limits::default().conn_read_per_turn;
    s.handle(
        Input::Received(&[publish, data(2, 60_000).repeat(limit / 60_000 + 1), data(1, 9)].concat()),
        T0,
    );
    let out = drain(&mut s, false, T0);
    assert!(out.contains(&Output::Unpublished(2)) && closed(&out).is_none(), "{out:?}");
    assert_eq!(media_of(&out), [1]);
}
