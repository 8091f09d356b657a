//! The clients that pull from and push to other servers, held to the laws of `Machine` (see `machines.rs`).
#![forbid(unsafe_code)]

use bytes::{Bytes, BytesMut};
use headwater_tests::harness::{Harness, Subject};
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::media::frame::Ingest;
use proto_core::media::h264::h264_params;
use proto_core::media::track::{CodecConfig, CodecParams, Origin, TrackId};
use proto_core::rand::Rng;
use proto_core::rtmp::client as rtmp;
use proto_core::rtsp::client as rtsp;
use proto_core::time::{Time, WallAnchor};
use proto_core::wire::amf0::{Value, emit_all};
use proto_core::wire::rtmp_chunk::render_message;
use proto_core::wire::rtmp_message::{Message, event, kind, user_control};
use proto_core::wire::rtp::Packet;
use proto_core::wire::rtsp::put_frame_head;
use proto_core::wire::rtsp::url::Url;
use std::sync::Arc;

const PLENTY: usize = 1 << 30;
const SDP: &str = "v=0\r\no=- 0 0 IN IP4 10.0.0.7\r\ns=cam\r\nt=0 0\r\na=control:*\r\n\
    m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0LADNkDxWhAAAADAEAAAAwDxQqS,aMuMsg==\r\na=control:trackID=1\r\n\
    m=audio 0 RTP/AVP 97\r\na=rtpmap:97 opus/48000/2\r\na=control:trackID=2\r\n";

/// What is seen of media; its times are those of arrival.
fn media(ingest: &Ingest) -> String {
    match ingest {
        Ingest::Config { track, .. } => format!("config of {track:?}"),
        Ingest::Frame(f) => format!("{:?} of {:?}, {} bytes", f.kind, f.track, f.payload.len()),
    }
}

/// A client by RTSP.
struct RtspClient {
    task: rtsp::Task,
    ways: rtsp::Ways,
}

impl Subject for RtspClient {
    type Machine = rtsp::Client;
    type Seen = (Vec<u8>, Vec<String>);

    fn make(&self) -> rtsp::Client {
        let url = Url::parse("rtsp://admin:12345@10.0.0.7/live").expect("a URL");
        let (limits, rng) = (Arc::new(Limits::default()), Rng::new([2; 32]));
        let plan = rtsp::Plan { url, task: self.task.clone(), ways: self.ways, via: String::new() };
        let mut client = rtsp::Client::new(plan, limits, rng, WallAnchor::default(), Time::ZERO);
        client.handle(rtsp::Input::Writable(PLENTY), Time::ZERO);
        client
    }

    fn received<'a>(&self, bytes: &'a [u8]) -> rtsp::Input<'a> {
        rtsp::Input::Received(bytes)
    }

    fn tick<'a>(&self) -> rtsp::Input<'a> {
        rtsp::Input::Tick
    }

    fn react(&self, machine: &mut rtsp::Client, output: &rtsp::Output, now: Time) {
        if let rtsp::Output::UdpWanted { lane } = output {
            let port = 8_000 + 2 * u16::try_from(*lane).expect("few lanes");
            machine.handle(rtsp::Input::UdpGranted((port, port + 1)), now);
        }
    }

    fn see(&self, outputs: Vec<rtsp::Output>) -> Self::Seen {
        let mut seen = Self::Seen::default();
        for output in outputs {
            match output {
                rtsp::Output::Send(bytes) => seen.0.extend_from_slice(&bytes),
                rtsp::Output::Media(ingest) => seen.1.push(media(&ingest)),
                other => seen.1.push(format!("{other:?}")),
            }
        }
        seen
    }

    fn ends(&self, output: &rtsp::Output) -> bool {
        matches!(output, rtsp::Output::Closed(_))
    }
}

/// Answers of a server, numbered from 1.
struct Answers(Vec<u8>, u32);

impl Answers {
    fn new() -> Answers {
        Answers(Vec::new(), 0)
    }

    fn say(mut self, status: u16, headers: &str, body: &str) -> Answers {
        self.1 += 1;
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let text = format!("RTSP/1.0 {status} X\r\nCSeq: {}\r\n{headers}{length}\r\n{body}", self.1);
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn rtp(mut self, channel: u8, seq: u16, payload: &[u8]) -> Answers {
        let payload_type = if channel == 0 { 96 } else { 97 };
        let timestamp = u32::from(seq) * 960;
        let p = Packet { payload_type, marker: true, seq, timestamp, ssrc: channel.into(), payload };
        let mut out = BytesMut::new();
        put_frame_head(&mut out, channel, 12 + payload.len());
        out.extend_from_slice(&p.header());
        out.extend_from_slice(payload);
        self.0.extend_from_slice(&out);
        self
    }

    fn raw(mut self, text: &str) -> Answers {
        self.0.extend_from_slice(text.as_bytes());
        self
    }
}

const UNAUTHORIZED: &str = "WWW-Authenticate: Basic realm=\"x\"\r\n\
    WWW-Authenticate: Digest realm=\"x\", nonce=\"abc\", qop=\"auth\", algorithm=SHA-256\r\n";

#[test]
fn rtsp_client_that_plays_over_the_connection() {
    let mut a = Answers::new()
        .say(200, "Public: GET_PARAMETER\r\n", "")
        .say(401, UNAUTHORIZED, "")
        .say(200, "Content-Base: rtsp://10.0.0.7/live/\r\n", SDP)
        .say(200, "Session: s;timeout=60\r\nTransport: RTP/AVP/TCP;interleaved=0-1\r\n", "")
        .say(200, "Session: s\r\nTransport: RTP/AVP/TCP;interleaved=2-3\r\n", "")
        .say(200, "RTP-Info: url=x;seq=1\r\n", "");
    for n in 1..40 {
        a = a.rtp(0, n, &[0x65, 1, 2, 3, 4]).rtp(2, n, &[7; 50]);
        if n % 10 == 0 {
            a = a.raw("OPTIONS rtsp://x RTSP/1.0\r\nCSeq: 9\r\n\r\n");
        }
    }
    let stream = a.raw("REDIRECT rtsp://x RTSP/1.0\r\nCSeq: 10\r\nLocation: rtsp://10.0.0.8/y\r\n\r\n").0;
    let subject = RtspClient { task: rtsp::Task::Play, ways: rtsp::Ways::TcpThenUdp };
    let whole = {
        let mut m = subject.make();
        m.handle(rtsp::Input::Received(&stream), Time::ZERO);
        subject.see(std::iter::from_fn(|| m.poll()).collect()).1
    };
    assert!(whole.iter().filter(|s| s.starts_with("Audio")).count() > 30, "{whole:?}");
    assert!(whole.last().is_some_and(|s| s.contains("rtsp_moved")), "{whole:?}");
    Harness::new(subject, 11).check(&stream);
}

#[test]
fn rtsp_client_that_falls_back_to_datagrams() {
    let stream = Answers::new()
        .say(404, "", "")
        .say(200, "", SDP)
        .say(461, "", "")
        .say(200, "Session: s\r\nTransport: RTP/AVP;unicast;server_port=6970-6971\r\n", "")
        .say(200, "Session: s\r\n", "")
        .say(200, "", "")
        .raw("TEARDOWN rtsp://x RTSP/1.0\r\nCSeq: 10\r\n\r\n")
        .0;
    let subject = RtspClient { task: rtsp::Task::Play, ways: rtsp::Ways::TcpThenUdp };
    Harness::new(subject, 12).check(&stream);
}

#[test]
fn rtsp_client_that_sends() {
    let config = |params| Arc::new(CodecConfig { version: 1, params, origin: Origin::Ingest });
    let h264 = h264_params(
        vec![Bytes::from_static(&[0x67, 0x42, 0xc0, 0x1f, 9])],
        vec![Bytes::from_static(&[0x68, 0xce])],
    );
    let opus = CodecParams::Opus { channels: 2 };
    let tracks = vec![(TrackId::VIDEO, config(h264)), (TrackId::AUDIO, config(opus))];
    let stream = Answers::new()
        .say(200, "", "")
        .say(401, UNAUTHORIZED, "")
        .say(200, "", "")
        .say(200, "Session: s\r\nTransport: RTP/AVP/TCP;interleaved=0-1;mode=record\r\n", "")
        .say(200, "Session: s\r\nTransport: RTP/AVP/TCP;interleaved=2-3;mode=record\r\n", "")
        .say(200, "", "")
        .raw("GET_PARAMETER rtsp://x RTSP/1.0\r\nCSeq: 1\r\n\r\n")
        .0;
    let subject = RtspClient { task: rtsp::Task::Record(tracks), ways: rtsp::Ways::Tcp };
    Harness::new(subject, 13).check(&stream);
}

/// A node's client by RTMP that plays.
struct RtmpPlayer;

impl Subject for RtmpPlayer {
    type Machine = rtmp::Client;
    type Seen = (Vec<u8>, Vec<String>);

    fn make(&self) -> rtmp::Client {
        let target = rtmp::Target {
            tls: false,
            host: "10.0.0.7".to_owned(),
            app: "live".to_owned(),
            stream: "demo".to_owned(),
        };
        let (limits, rng) = (Limits { rtmp_ack_bytes: 1_000, ..Limits::default() }, Rng::new([2; 32]));
        let mut client =
            rtmp::Client::of_node(target, rtmp::Task::Play, "mark".to_owned(), limits, rng, Time::ZERO);
        client.handle(rtmp::Input::Writable(PLENTY), Time::ZERO);
        client
    }

    fn received<'a>(&self, bytes: &'a [u8]) -> rtmp::Input<'a> {
        rtmp::Input::Received(bytes)
    }

    fn tick<'a>(&self) -> rtmp::Input<'a> {
        rtmp::Input::Tick
    }

    fn see(&self, outputs: Vec<rtmp::Output>) -> Self::Seen {
        let mut seen = Self::Seen::default();
        for output in outputs {
            match output {
                rtmp::Output::Send(bytes) => seen.0.extend_from_slice(&bytes),
                rtmp::Output::Media(ingest) => seen.1.push(media(&ingest)),
                other => seen.1.push(format!("{other:?}")),
            }
        }
        seen
    }

    fn ends(&self, output: &rtmp::Output) -> bool {
        matches!(output, rtmp::Output::Closed(_))
    }
}

fn message(kind: u8, stream: u32, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    let csid = if kind == kind::COMMAND { 3 } else { 4 };
    let payload = Bytes::copy_from_slice(payload);
    render_message(&Message { csid, timestamp, kind, stream, payload }, 128).to_vec()
}

fn command(stream: u32, values: &[Value]) -> Vec<u8> {
    message(kind::COMMAND, stream, 0, &emit_all(values))
}

fn status(code: &str) -> Vec<u8> {
    let info = Value::object([("level", Value::string("status")), ("code", Value::string(code))]);
    command(1, &[Value::string("onStatus"), Value::Number(0.0), Value::Null, info])
}

#[test]
fn rtmp_client_that_plays() {
    let mut hello = vec![0; 1 + 2 * 1536];
    hello[0] = 3;
    let result = |id, value| command(0, &[Value::string("_result"), Value::Number(id), Value::Null, value]);
    let mut stream = [
        hello,
        message(kind::WINDOW_ACK_SIZE, 0, 0, &1_500u32.to_be_bytes()),
        result(1.0, Value::Null),
        result(4.0, Value::Number(1.0)),
        status("NetStream.Play.Start"),
        // An AVC sequence header, then pictures and sound (MP3).
        message(
            kind::VIDEO,
            1,
            0,
            &[
                0x17, 0, 0, 0, 0, 1, 0x42, 0xc0, 0x1f, 0xff, 0xe1, 0, 4, 0x67, 0x42, 0xc0, 0x1f, 1, 0, 2,
                0x68, 0xce,
            ],
        ),
    ]
    .concat();
    for n in 0..40u32 {
        let (head, slice) = if n % 10 == 0 { (0x17, 0x65) } else { (0x27, 0x41) };
        stream.extend(message(
            kind::VIDEO,
            1,
            40 * n,
            &[&[head, 1, 0, 0, 0, 0, 0, 0, 200][..], &[slice; 200]].concat(),
        ));
        stream.extend(message(
            kind::AUDIO,
            1,
            40 * n,
            &[&[0x2f, 0xff, 0xfb, 0x90, 0x64][..], &[9; 300]].concat(),
        ));
        if n % 9 == 0 {
            stream.extend(message(kind::USER_CONTROL, 0, 0, &user_control(event::PING_REQUEST, n)));
        }
    }
    stream.extend(status("NetStream.Play.UnpublishNotify"));
    let whole = {
        let mut m = RtmpPlayer.make();
        m.handle(rtmp::Input::Received(&stream), Time::ZERO);
        RtmpPlayer.see(std::iter::from_fn(|| m.poll()).collect()).1
    };
    assert!(whole.iter().filter(|s| s.contains("of TrackId(0)")).count() > 40, "{whole:?}");
    assert!(whole.last().is_some_and(|s| s.contains("remote_ended")), "{whole:?}");
    Harness::new(RtmpPlayer, 14).check(&stream);
}
