//! The machines that speak over byte streams, held to the laws of `Machine`: cuts between reads change nothing, ticks
//! that come too early change nothing, damaged bytes neither panic nor flood nor make a busy loop.
//!
//! What a machine's surroundings answer (an accepted publish, a response) comes as soon as it asks. Where such an
//! answer puts bytes of its own on the wire, the transcript has nothing after that point that makes the machine speak
//! too: which of the two is first is then a matter of cuts, rightly.
#![forbid(unsafe_code)]

use bytes::Bytes;
use headwater_tests::harness::{Harness, Subject};
use proto_core::cluster::keys::Keys;
use proto_core::cluster::link::{self, Link, Side};
use proto_core::cluster::{Epoch, NodeId};
use proto_core::http::message::Response;
use proto_core::http::server as http;
use proto_core::http::websocket::client as websocket;
use proto_core::hub::delivery::Delivery;
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::media::frame::{Frame, FrameKind, Ingest, NewFrame, Renderings, Rotation};
use proto_core::media::key::StreamKey;
use proto_core::media::track::{CodecConfig, CodecParams, Origin, TrackId};
use proto_core::rand::Rng;
use proto_core::rtc::frames;
use proto_core::rtmp::{client, server};
use proto_core::time::Time;
use proto_core::wire::amf0::{Value, emit_all};
use proto_core::wire::link::{Message as Said, RelayFrame, encode};
use proto_core::wire::rtmp_chunk::render_message;
use proto_core::wire::rtmp_message::{Message, event, kind, user_control};
use proto_core::wire::websocket::{Opcode, accept_key, frame as frame_of};
use std::sync::Arc;

const PLENTY: usize = 1 << 30;
/// C0 to C2, and S0 to S2.
const HANDSHAKE: usize = 1 + 2 * 1536;

/// Small enough that a transcript is acknowledged many times.
fn limits() -> Limits {
    // A machine by itself holds what comes in one go; a node hands on a stranger's bytes little by little.
    let (conn_early_bytes, rtmp_partial_bytes_before) = (64 << 10, 64 << 10);
    Limits { rtmp_ack_bytes: 1_000, conn_early_bytes, rtmp_partial_bytes_before, ..Limits::default() }
}

fn avc() -> CodecParams {
    CodecParams::H264 {
        sps: vec![Bytes::from_static(&[0x67, 0x42, 0xc0, 0x1f, 9])],
        pps: vec![Bytes::from_static(&[0x68, 0xce])],
        size: None,
        reorders: false,
    }
}

fn frame(track: TrackId, kind: FrameKind, ms: i64, payload: Vec<u8>) -> NewFrame {
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

/// Pictures and sound of a tenth of a second or so.
fn frames() -> Vec<NewFrame> {
    let picture = |kind, ms, size: u32| {
        let mut payload = size.to_be_bytes().to_vec();
        payload.push(if kind == FrameKind::Key { 0x65 } else { 0x41 });
        payload.resize(size as usize + 4, 7);
        frame(TrackId::VIDEO, kind, ms, payload)
    };
    let sound = |ms| frame(TrackId::AUDIO, FrameKind::Audio, ms, vec![0xfc; 40]);
    vec![
        picture(FrameKind::Key, 0, 9_000),
        sound(20),
        picture(FrameKind::Delta, 40, 700),
        sound(40),
        picture(FrameKind::Delta, 80, 3),
        sound(60),
    ]
}

fn configs() -> Vec<(TrackId, CodecParams)> {
    vec![(TrackId::VIDEO, avc()), (TrackId::AUDIO, CodecParams::Opus { channels: 2 })]
}

fn media() -> Vec<Ingest> {
    let configs = configs().into_iter().map(|(track, params)| Ingest::Config { track, params });
    configs.chain(frames().into_iter().map(Ingest::Frame)).collect()
}

fn deliveries() -> Vec<Delivery> {
    let configs = configs().into_iter().map(|(track, params)| {
        let config = Arc::new(CodecConfig { version: 1, params, origin: Origin::Ingest });
        Delivery::Config { track, config }
    });
    let frames = frames().into_iter().map(|media| {
        let (dts, pts) = (media.dts, media.pts);
        let (epoch, renderings) = (Epoch::default(), Renderings::default());
        let frame = Frame { seq: 1, epoch, config_version: 1, media, renderings };
        Delivery::Frame { frame: Arc::new(frame), dts, pts, cached: false }
    });
    configs.chain(frames).collect()
}

fn rtmp(csid: u32, kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let payload = Bytes::copy_from_slice(payload);
    render_message(&Message { csid, timestamp: 0, kind, stream, payload }, 128).to_vec()
}

fn rtmp_command(stream: u32, name: &str, id: f64, rest: &[Value]) -> Vec<u8> {
    let mut all = vec![Value::string(name), Value::Number(id)];
    all.extend_from_slice(rest);
    rtmp(3, kind::COMMAND, stream, &emit_all(&all))
}

fn window(bytes: u32) -> Vec<u8> {
    rtmp(2, kind::WINDOW_ACK_SIZE, 0, &bytes.to_be_bytes())
}

fn pings(count: u32) -> Vec<u8> {
    (0..count).flat_map(|n| rtmp(2, kind::USER_CONTROL, 0, &user_control(event::PING_REQUEST, n))).collect()
}

/// An RTMP server whose every publish and play is accepted.
struct RtmpServer {
    /// A player gets these as soon as it is accepted.
    deliveries: Vec<Delivery>,
}

impl Subject for RtmpServer {
    type Machine = server::Server;
    type Seen = (Vec<u8>, Vec<server::Output>);

    fn make(&self) -> server::Server {
        let mut server = server::Server::new(limits(), Rng::new([1; 32]), Time::ZERO);
        server.handle(server::Input::Writable(PLENTY), Time::ZERO);
        server
    }

    fn received<'a>(&self, bytes: &'a [u8]) -> server::Input<'a> {
        server::Input::Received(bytes)
    }

    fn tick<'a>(&self) -> server::Input<'a> {
        server::Input::Tick
    }

    fn react(&self, machine: &mut server::Server, output: &server::Output, now: Time) {
        match output {
            server::Output::PublishRequested { stream, .. } => {
                machine.handle(server::Input::PublishAccepted(*stream), now);
            }
            server::Output::PlayRequested { stream, .. } => {
                machine.handle(server::Input::PlayAccepted(*stream), now);
                for delivery in &self.deliveries {
                    machine.handle(server::Input::Deliver(*stream, delivery), now);
                }
            }
            _ => {}
        }
    }

    fn see(&self, outputs: Vec<server::Output>) -> Self::Seen {
        let mut seen = Self::Seen::default();
        for output in outputs {
            match output {
                server::Output::Send(bytes) => seen.0.extend_from_slice(&bytes),
                other => seen.1.push(other),
            }
        }
        seen
    }

    fn ends(&self, output: &server::Output) -> bool {
        matches!(output, server::Output::Closed(_))
    }
}

/// An RTMP client.
struct RtmpClient {
    /// What is sent as soon as the server is ready for it.
    media: Vec<Ingest>,
}

impl Subject for RtmpClient {
    type Machine = client::Client;
    type Seen = (Vec<u8>, Vec<client::Output>);

    fn make(&self) -> client::Client {
        let rng = Rng::new([2; 32]);
        let mut client = client::Client::new("127.0.0.1", "live", "demo", limits(), rng, Time::ZERO);
        client.handle(client::Input::Writable(PLENTY), Time::ZERO);
        client
    }

    fn received<'a>(&self, bytes: &'a [u8]) -> client::Input<'a> {
        client::Input::Received(bytes)
    }

    fn tick<'a>(&self) -> client::Input<'a> {
        client::Input::Tick
    }

    fn react(&self, machine: &mut client::Client, output: &client::Output, now: Time) {
        if *output == client::Output::Ready {
            for item in &self.media {
                machine.handle(client::Input::Media(item), now);
            }
        }
    }

    fn see(&self, outputs: Vec<client::Output>) -> Self::Seen {
        let mut seen = Self::Seen::default();
        for output in outputs {
            match output {
                client::Output::Send(bytes) => seen.0.extend_from_slice(&bytes),
                other => seen.1.push(other),
            }
        }
        seen
    }

    fn ends(&self, output: &client::Output) -> bool {
        matches!(output, client::Output::Closed(_))
    }
}

/// What our client and our server say to each other while a stream is published: to the server, and to the client.
fn rtmp_publish() -> (Vec<u8>, Vec<u8>) {
    let (as_server, as_client) = (RtmpServer { deliveries: vec![] }, RtmpClient { media: media() });
    let (mut server, mut client) = (as_server.make(), as_client.make());
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let mut finished = false;
    loop {
        let mut quiet = true;
        while let Some(output) = client.poll() {
            quiet = false;
            as_client.react(&mut client, &output, Time::ZERO);
            if let client::Output::Send(bytes) = output {
                to_server.extend_from_slice(&bytes);
                server.handle(server::Input::Received(&bytes), Time::ZERO);
            }
        }
        while let Some(output) = server.poll() {
            quiet = false;
            as_server.react(&mut server, &output, Time::ZERO);
            if let server::Output::Send(bytes) = output {
                to_client.extend_from_slice(&bytes);
                client.handle(client::Input::Received(&bytes), Time::ZERO);
            }
        }
        if quiet && finished {
            return (to_server, to_client);
        }
        if quiet {
            finished = true;
            client.handle(client::Input::Finish, Time::ZERO);
        }
    }
}

/// The bytes of a player up to its `play`.
fn rtmp_play() -> Vec<u8> {
    let mut hello = vec![0; HANDSHAKE];
    hello[0] = 3;
    let app = Value::object([("app", Value::string("live")), ("tcUrl", Value::string("rtmp://a/live"))]);
    let name = Value::string("demo?audio=opus");
    [
        hello,
        window(1_500),
        rtmp_command(0, "connect", 1.0, &[app]),
        rtmp_command(0, "createStream", 2.0, &[Value::Null]),
        rtmp_command(1, "play", 3.0, &[Value::Null, name, Value::Number(-2000.0)]),
    ]
    .concat()
}

#[test]
fn rtmp_server_with_a_publisher() {
    let (mut stream, _) = rtmp_publish();
    assert!(stream.len() > 10_000, "the media is in it");
    // Ask for an acknowledgement now and then.
    stream.splice(HANDSHAKE..HANDSHAKE, window(1_700));
    let subject = RtmpServer { deliveries: vec![] };
    Harness::new(subject, 1).check(&stream);
}

#[test]
fn rtmp_server_with_a_player() {
    let deliveries = deliveries();
    let count = deliveries.len();
    let buffer = [&user_control(3, 1)[..], &3000u32.to_be_bytes()].concat();
    let stream = [rtmp_play(), rtmp(2, kind::USER_CONTROL, 0, &buffer)].concat();
    Harness::new(RtmpServer { deliveries }, 2).outputs(64 + count, 4).check(&stream);
}

#[test]
fn rtmp_server_with_a_player_that_publishes_too() {
    let mut stream = rtmp_play();
    let data = |stream| {
        let values = ["@setDataFrame", "onMetaData", "x"].map(Value::string);
        rtmp(4, kind::DATA, stream, &emit_all(&values))
    };
    stream.extend(rtmp_command(0, "createStream", 7.0, &[Value::Null]));
    let (name, live) = (Value::string("other"), Value::string("live"));
    stream.extend(rtmp_command(2, "publish", 0.0, &[Value::Null, name, live]));
    stream.extend(data(2).repeat(3));
    stream.extend(rtmp_command(0, "deleteStream", 0.0, &[Value::Null, Value::Number(2.0)]));
    Harness::new(RtmpServer { deliveries: vec![] }, 5).check(&stream);
}

#[test]
fn rtmp_server_with_a_player_that_talks_much() {
    let command = |name: &str, args: &[Value]| {
        let rest: Vec<Value> = std::iter::once(Value::Null).chain(args.iter().cloned()).collect();
        rtmp_command(1, name, 9.0, &rest)
    };
    let stream = [
        rtmp_play(),
        pings(1_200),
        command("pause", &[Value::Boolean(true), Value::Number(0.0)]),
        command("receiveAudio", &[Value::Boolean(false)]),
        command("getStreamLength", &[Value::string("demo")]),
        command("whatIsThis", &[]),
        command("pause", &[Value::Boolean(false), Value::Number(0.0)]),
        command("closeStream", &[]),
        command("play", &[Value::string("other")]),
        pings(300),
        rtmp_command(0, "deleteStream", 0.0, &[Value::Null, Value::Number(1.0)]),
        // A wrong chunk size ends it.
        rtmp(2, kind::SET_CHUNK_SIZE, 0, &[0; 4]),
        pings(3),
    ]
    .concat();
    Harness::new(RtmpServer { deliveries: vec![] }, 3).check(&stream);
}

#[test]
fn rtmp_client() {
    let (_, stream) = rtmp_publish();
    let start = b"NetStream.Publish.Start";
    assert!(stream.windows(start.len()).any(|w| w == start), "the stream was taken");
    Harness::new(RtmpClient { media: vec![] }, 4).check(&stream);
}

#[test]
fn rtmp_client_that_sends_media() {
    let (_, stream) = rtmp_publish();
    let start = b"NetStream.Publish.Start";
    let at = stream.windows(start.len()).rposition(|w| w == start).unwrap();
    // Nothing that is answered may stand after this.
    let stream = &stream[..stream.len().min(at + 200)];
    let media = media();
    let count = media.len();
    Harness::new(RtmpClient { media }, 5).outputs(64 + count, 4).check(stream);
}

#[test]
fn rtmp_client_of_a_server_that_talks_much() {
    let (_, mut stream) = rtmp_publish();
    stream.extend(window(1_300));
    stream.extend(pings(500));
    let refused = Value::object([("level", Value::string("error")), ("code", Value::string("Over"))]);
    stream.extend(rtmp_command(1, "onStatus", 0.0, &[Value::Null, refused]));
    stream.extend(pings(3));
    Harness::new(RtmpClient { media: vec![] }, 6).check(&stream);
}

/// An HTTP server whose handlers echo.
struct HttpServer;

impl Subject for HttpServer {
    type Machine = http::Server;
    type Seen = (Vec<u8>, Vec<http::Output>);

    fn make(&self) -> http::Server {
        let mut server = http::Server::new(&limits(), Time::ZERO);
        server.handle(http::Input::Writable(PLENTY), Time::ZERO);
        server
    }

    fn received<'a>(&self, bytes: &'a [u8]) -> http::Input<'a> {
        http::Input::Received(bytes)
    }

    fn tick<'a>(&self) -> http::Input<'a> {
        http::Input::Tick
    }

    fn react(&self, machine: &mut http::Server, output: &http::Output, now: Time) {
        match output {
            http::Output::Request(request) => {
                let text = format!("{} {} {}", request.method, request.path, request.body.len());
                machine.handle(http::Input::Respond(Response::text(200, text)), now);
            }
            http::Output::Upgrade(_) => machine.handle(http::Input::Accept { subprotocol: None }, now),
            _ => {}
        }
    }

    fn see(&self, outputs: Vec<http::Output>) -> Self::Seen {
        let mut seen = (Vec::new(), Vec::new());
        for output in outputs {
            match output {
                http::Output::Send(bytes) => seen.0.extend_from_slice(&bytes),
                other => seen.1.push(other),
            }
        }
        seen
    }

    fn ends(&self, output: &http::Output) -> bool {
        matches!(output, http::Output::Closed(_))
    }
}

#[test]
fn http_server() {
    let good = b"GET /healthz?a=b HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n\
        POST /whip/live/demo HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp\r\nContent-Length: 7\r\n\r\nv=0\r\n\r\n\
        \r\nHEAD / HTTP/1.1\r\nhost: a\r\n\r\n\
        POST /api/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc\
        OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n";
    let ends: [&[u8]; 5] = [
        b"",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\nthe rest never comes",
        b"GET /half HTTP/1.1\r\nHo",
    ];
    for (seed, end) in (10..).zip(ends) {
        Harness::new(HttpServer, seed).rounds(100).check(&[good, end].concat());
    }
}

/// What a client of a websocket sends: every kind of frame, messages whole and in parts, and its close.
fn frames_of_a_client() -> Vec<u8> {
    let key = Some([0x37, 0xfa, 0x21, 0x3d]);
    let part = |first: u8, payload: &str| {
        let mut bytes = frame_of(Opcode::Text, payload.as_bytes(), key).to_vec();
        bytes[0] = first;
        bytes
    };
    [
        part(0x81, "{\"isAvailable\":\"demo\"}"),
        part(0x89, "ping"),
        part(0x01, "in "),
        part(0x8a, ""),
        part(0x00, ""),
        part(0x80, "parts"),
        part(0x81, &"x".repeat(3_000)),
        part(0x88, "\u{3}"),
    ]
    .concat()
}

#[test]
fn websocket_server() {
    let head = b"GET /live/?id=a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    Harness::new(HttpServer, 20).check(&[head, &frames_of_a_client()[..]].concat());
    Harness::new(HttpServer, 21).rounds(50).check(&[&head[..30], b"X: y\r\n", &head[30..]].concat());
}

/// A websocket's client that sends as soon as it stands.
struct WebsocketClient;

impl Subject for WebsocketClient {
    type Machine = websocket::Client;
    type Seen = (Vec<u8>, Vec<websocket::Output>);

    fn make(&self) -> websocket::Client {
        let target = websocket::Target { host: "a".to_owned(), path: "/live/".to_owned(), headers: vec![] };
        let mut client = websocket::Client::new(&target, &limits(), Rng::new([4; 32]), Time::ZERO);
        client.handle(websocket::Input::Writable(PLENTY), Time::ZERO);
        client
    }

    fn received<'a>(&self, bytes: &'a [u8]) -> websocket::Input<'a> {
        websocket::Input::Received(bytes)
    }

    fn tick<'a>(&self) -> websocket::Input<'a> {
        websocket::Input::Tick
    }

    fn see(&self, outputs: Vec<websocket::Output>) -> Self::Seen {
        let mut seen = Self::Seen::default();
        for output in outputs {
            match output {
                websocket::Output::Send(bytes) => seen.0.extend_from_slice(&bytes),
                other => seen.1.push(other),
            }
        }
        seen
    }

    fn ends(&self, output: &websocket::Output) -> bool {
        matches!(output, websocket::Output::Closed(_))
    }
}

#[test]
fn websocket_client() {
    let head = WebsocketClient.make().poll();
    let Some(websocket::Output::Send(head)) = head else { panic!("no request: {head:?}") };
    let head = String::from_utf8_lossy(&head).into_owned();
    let key = head.lines().find_map(|l| l.strip_prefix("Sec-WebSocket-Key: ")).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept_key(key)
    );
    let frames = [
        frame_of(Opcode::Text, b"hello", None),
        frame_of(Opcode::Ping, b"", None),
        frame_of(Opcode::Text, &[b'x'; 300], None),
        frame_of(Opcode::Close, &1001u16.to_be_bytes(), None),
    ];
    let stream = [answer.as_bytes(), &frames.concat()[..]].concat();
    Harness::new(WebsocketClient, 22).check(&stream);
    let refused = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    Harness::new(WebsocketClient, 23).rounds(50).check(refused);
}

/// One end of a link.
struct LinkEnd {
    side: Side,
    /// What it sends as soon as the link is up.
    says: Vec<Said>,
}

impl Subject for LinkEnd {
    type Machine = Link;
    type Seen = (Vec<u8>, Vec<link::Output>);

    fn make(&self) -> Link {
        let name = if self.side == Side::Dialler { "a" } else { "b" };
        let keys = Arc::new(Keys::new("key", []));
        let config = link::Config::new(NodeId(name.to_owned()), keys, Arc::new(limits()));
        let remote = "10.0.0.7:5090".parse().unwrap();
        let mut link = Link::new(config, self.side, remote, Rng::new([self.side as u8; 32]), Time::ZERO);
        link.handle(link::Input::Writable(PLENTY), Time::ZERO);
        link
    }

    fn received<'a>(&self, bytes: &'a [u8]) -> link::Input<'a> {
        link::Input::Received(bytes)
    }

    fn tick<'a>(&self) -> link::Input<'a> {
        link::Input::Tick
    }

    fn react(&self, machine: &mut Link, output: &link::Output, now: Time) {
        if matches!(output, link::Output::Up(_)) {
            for message in &self.says {
                machine.handle(link::Input::Send(message.clone()), now);
            }
        }
    }

    fn see(&self, outputs: Vec<link::Output>) -> Self::Seen {
        let mut seen = Self::Seen::default();
        for output in outputs {
            match output {
                link::Output::Send(bytes) => seen.0.extend_from_slice(&bytes),
                other => seen.1.push(other),
            }
        }
        seen
    }

    fn ends(&self, output: &link::Output) -> bool {
        matches!(output, link::Output::Closed(_))
    }
}

/// What each of two ends receives when both say much: the dialler, then the listener.
fn link_talk(says: &[Said]) -> (Vec<u8>, Vec<u8>) {
    let ends = [Side::Dialler, Side::Listener].map(|side| LinkEnd { side, says: says.to_vec() });
    let mut links = [ends[0].make(), ends[1].make()];
    let mut got = [Vec::new(), Vec::new()];
    loop {
        let before = got[0].len() + got[1].len();
        for (from, to) in [(0, 1), (1, 0)] {
            while let Some(output) = links[from].poll() {
                ends[from].react(&mut links[from], &output, Time::ZERO);
                if let link::Output::Send(bytes) = output {
                    got[to].extend_from_slice(&bytes);
                    links[to].handle(link::Input::Received(&bytes), Time::ZERO);
                }
            }
        }
        if got[0].len() + got[1].len() == before {
            let [dialler, listener] = got;
            return (dialler, listener);
        }
    }
}

fn link_says() -> Vec<Said> {
    let key = StreamKey::join("live", "demo").unwrap();
    let (epoch, pull) = (Epoch { term: 7, count: 1 }, 3);
    let mut says = vec![
        Said::Locate { req: 1, key: key.clone(), direct: false },
        Said::NotFound { req: 1, key: key.clone() },
        Said::Pull { pull, key: key.clone(), hops: vec![NodeId("a".to_owned())], after: None },
        Said::Claimed { req: 2, key, epoch },
        Said::KeyRequest { pull, track: None },
        Said::Ping,
    ];
    says.extend(frames().into_iter().enumerate().map(|(seq, media)| {
        let frame = RelayFrame { pull, seq: seq as u64, epoch, config_version: 1, media };
        Said::Frame(Box::new(frame))
    }));
    says
}

#[test]
fn link_between_nodes() {
    let says = link_says();
    let (dialler, listener) = link_talk(&says);
    assert!(dialler.len() > 9_000 && listener.len() > 9_000, "the frames are in it");
    for (side, stream) in [(Side::Dialler, dialler), (Side::Listener, listener)] {
        let subject = LinkEnd { side, says: says.clone() };
        Harness::new(subject, 20).outputs(64 + 2 * says.len(), 4).check(&stream);
    }
}

#[test]
fn link_whose_other_end_leaves() {
    let bye = Said::Bye { code: "link_name".to_owned(), text: "two of one name".to_owned() };
    let ends = [encode(&bye).head.to_vec(), b"\xff\xff\xff\xff what is this".to_vec()];
    for end in ends {
        let (dialler, listener) = link_talk(&[]);
        for (side, mut stream) in [(Side::Dialler, dialler), (Side::Listener, listener)] {
            stream.extend_from_slice(&end);
            Harness::new(LinkEnd { side, says: vec![] }, 21).check(&stream);
        }
    }
}

/// A connection of ICE over TCP.
struct IceTcp;

impl Subject for IceTcp {
    type Machine = frames::Frames;
    type Seen = Vec<frames::Output>;

    fn make(&self) -> frames::Frames {
        frames::Frames::new(&limits(), Time::ZERO)
    }

    fn received<'a>(&self, bytes: &'a [u8]) -> frames::Input<'a> {
        frames::Input::Received(bytes)
    }

    fn tick<'a>(&self) -> frames::Input<'a> {
        frames::Input::Tick
    }

    fn see(&self, outputs: Vec<frames::Output>) -> Self::Seen {
        outputs
    }

    fn ends(&self, output: &frames::Output) -> bool {
        matches!(output, frames::Output::Closed(_))
    }
}

#[test]
fn datagrams_in_a_tcp_connection() {
    let mut stream = bytes::BytesMut::new();
    for len in [28, 0, 1_200, 1, 8_192, 300] {
        frames::put(&mut stream, &vec![7; len]);
    }
    Harness::new(IceTcp, 22).check(&stream);
    stream.extend_from_slice(b"\xff\xffno frame");
    Harness::new(IceTcp, 23).check(&stream);
}
