//! The RTSP server, with what it makes frames of and what it makes packets of, held to the laws of `Machine` (see
//! `machines.rs`), and its order of requests held to its table.
#![forbid(unsafe_code)]

use bytes::{Bytes, BytesMut};
use headwater_tests::harness::{Harness, Subject};
use proptest::prelude::*;
use proto_core::cluster::Epoch;
use proto_core::hub::delivery::Delivery;
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::media::frame::{Frame, FrameKind, Ingest, NewFrame, Renderings, Rotation};
use proto_core::media::h264::h264_params;
use proto_core::media::payload::{Format, marks, packetise};
use proto_core::media::track::{CodecConfig, CodecParams, Origin, TrackId};
use proto_core::rand::Rng;
use proto_core::rtsp::order::{State, is_legal};
use proto_core::rtsp::server::{Input, Output, Server, Track};
use proto_core::time::{Time, WallAnchor, WallTime};
use proto_core::wire::rtcp_reports as rtcp;
use proto_core::wire::rtp::Packet;
use proto_core::wire::rtsp::{Method, put_frame_head};
use std::sync::Arc;

const PLENTY: usize = 1 << 30;
const URL: &str = "rtsp://127.0.0.1:8554/live/s";
const SPS: &[u8] =
    &[0x67, 66, 0xc0, 12, 0xd9, 3, 0xc5, 0x68, 0x40, 0, 0, 3, 0, 0x40, 0, 0, 0x0c, 3, 0xc5, 0x0a, 0x92];
const SDP: &str = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=x\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n\
    a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:streamid=0\r\nm=audio 0 RTP/AVP 97\r\n\
    a=rtpmap:97 opus/48000/2\r\na=control:streamid=1\r\n";

fn tracks() -> Vec<Track> {
    let config = |params| Arc::new(CodecConfig { version: 1, params, origin: Origin::Ingest });
    let h264 =
        h264_params(vec![Bytes::from_static(SPS)], vec![Bytes::from_static(&[0x68, 0xce, 0x3c, 0x80])]);
    vec![(TrackId::VIDEO, config(h264)), (TrackId::AUDIO, config(CodecParams::Opus { channels: 2 }))]
}

fn frame(kind: FrameKind, ms: i64) -> NewFrame {
    let nal = |first: u8, size: u32| {
        let mut payload = size.to_be_bytes().to_vec();
        payload.push(first);
        // A slice whose first macroblock is 0.
        payload.resize(size as usize + 4, 0x88);
        payload
    };
    let (track, payload) = match kind {
        FrameKind::Key => (TrackId::VIDEO, nal(0x65, 5_000)),
        FrameKind::Delta => (TrackId::VIDEO, nal(0x41, 700)),
        _ => (TrackId::AUDIO, vec![0xfc; 40]),
    };
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

fn frames() -> Vec<NewFrame> {
    use FrameKind::{Audio, Delta, Key};
    [(Key, 0), (Audio, 0), (Audio, 20), (Delta, 40), (Audio, 40), (Delta, 80), (Audio, 60), (Key, 120)]
        .into_iter()
        .map(|(kind, ms)| frame(kind, ms))
        .collect()
}

/// An RTSP server whose every wish is granted.
#[derive(Debug)]
struct RtspServer {
    udp: bool,
    /// A player gets these as soon as it is accepted.
    deliveries: Vec<Delivery>,
}

impl RtspServer {
    fn with_player() -> RtspServer {
        let frames = frames().into_iter().map(|media| {
            let (dts, pts) = (media.dts, media.pts);
            let (epoch, renderings) = (Epoch::default(), Renderings::default());
            let frame = Frame { seq: 1, epoch, config_version: 1, media, renderings };
            Delivery::Frame { frame: Arc::new(frame), dts, pts, cached: false }
        });
        RtspServer { udp: true, deliveries: frames.collect() }
    }
}

impl Subject for RtspServer {
    type Machine = Server;
    type Seen = (Vec<u8>, Vec<Output>);

    fn make(&self) -> Server {
        let wall = WallAnchor::new(Time::ZERO, WallTime(1_700_000_000_000_000_000));
        // A machine by itself holds what comes in one go; a node hands on a stranger's bytes little by little.
        let limits = Limits { conn_early_bytes: 64 << 10, ..Limits::default() };
        let mut server = Server::new(limits, Rng::new([5; 32]), wall, self.udp, Time::ZERO);
        server.handle(Input::Writable(PLENTY), Time::ZERO);
        server
    }

    fn received<'a>(&self, bytes: &'a [u8]) -> Input<'a> {
        Input::Received(bytes)
    }

    fn tick<'a>(&self) -> Input<'a> {
        Input::Tick
    }

    fn react(&self, machine: &mut Server, output: &Output, now: Time) {
        match output {
            Output::PublishRequested { .. } => machine.handle(Input::PublishAccepted, now),
            Output::DescribeRequested { .. } => machine.handle(Input::Described(tracks()), now),
            Output::UdpWanted { .. } => machine.handle(Input::UdpGranted((8_000, 8_001)), now),
            Output::PlayRequested => {
                machine.handle(Input::PlayAccepted, now);
                for delivery in &self.deliveries {
                    machine.handle(Input::Deliver(delivery), now);
                }
            }
            _ => {}
        }
    }

    fn see(&self, outputs: Vec<Output>) -> Self::Seen {
        let mut seen = Self::Seen::default();
        for output in outputs {
            match output {
                Output::Send(bytes) => seen.0.extend_from_slice(&bytes),
                // When a driver stops reading is a matter of where the bytes are cut.
                Output::Reading(_) => {}
                other => seen.1.push(other),
            }
        }
        seen
    }

    fn ends(&self, output: &Output) -> bool {
        matches!(output, Output::Closed(_))
    }
}

fn ask(cseq: u32, method: &str, url: &str, more: &str, body: &str) -> Vec<u8> {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {url} RTSP/1.0\r\nCSeq: {cseq}\r\n{more}{length}\r\n{body}").into_bytes()
}

fn set_up(cseq: u32, track: &str, transport: &str) -> Vec<u8> {
    ask(cseq, "SETUP", &format!("{URL}/{track}"), &format!("Transport: {transport}\r\n"), "")
}

fn interleaved(channel: u8, packet: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    put_frame_head(&mut out, channel, packet.len());
    out.extend_from_slice(packet);
    out.to_vec()
}

/// The packets of a publisher: pictures on channel 0, sound on 2, reports behind.
fn packets() -> Vec<u8> {
    let (mut out, mut seqs) = (Vec::new(), [65_530u16, 100]);
    for frame in frames() {
        let lane = usize::from(frame.track == TrackId::AUDIO);
        let params = &tracks()[lane].1.params;
        let format = Format::of(params);
        let payloads = packetise(&format, params, &frame, 1_100);
        let last = payloads.len() - 1;
        let timestamp = (frame.pts / 1_000 * i64::from(format.clock_rate()) / 1_000_000) as u32;
        for (n, payload) in payloads.iter().enumerate() {
            let packet = Packet {
                payload_type: 96 + lane as u8,
                marker: n == last && marks(params.codec()),
                seq: seqs[lane],
                timestamp,
                ssrc: lane as u32 + 1,
                payload,
            };
            seqs[lane] = seqs[lane].wrapping_add(1);
            out.extend(interleaved(2 * lane as u8, &[&packet.header()[..], payload].concat()));
        }
        let ntp = rtcp::ntp_of(1_700_000_000_000_000_000 + frame.pts as u64);
        out.extend(interleaved(
            2 * lane as u8 + 1,
            &rtcp::sender_report(lane as u32 + 1, ntp, timestamp, 1, 1, false),
        ));
    }
    out
}

fn record() -> Vec<u8> {
    [
        ask(1, "OPTIONS", URL, "", ""),
        ask(2, "ANNOUNCE", URL, "Content-Type: application/sdp\r\n", SDP),
        set_up(3, "streamid=0", "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record"),
        set_up(4, "streamid=1", "RTP/AVP/TCP;unicast;interleaved=2-3;mode=record"),
        ask(5, "RECORD", URL, "", ""),
    ]
    .concat()
}

#[test]
fn a_publisher_over_the_connection() {
    let stream = [
        record(),
        packets(),
        ask(6, "GET_PARAMETER", URL, "", ""),
        ask(7, "TEARDOWN", URL, "", ""),
        record(),
        packets(),
    ]
    .concat();
    let subject = RtspServer { udp: false, deliveries: vec![] };
    let mut server = subject.make();
    server.handle(Input::Received(&stream), Time::ZERO);
    let mut said = Vec::new();
    while let Some(output) = server.poll() {
        subject.react(&mut server, &output, Time::ZERO);
        said.push(output);
    }
    let frames = said.iter().filter(|o| matches!(o, Output::Media(Ingest::Frame(_)))).count();
    assert_eq!(frames, 2 * self::frames().len(), "{said:?}");
    Harness::new(subject, 30).check(&stream);
}

#[test]
fn players_over_the_connection_and_by_datagrams() {
    for ways in [
        ["RTP/AVP/TCP;unicast;interleaved=0-1", "RTP/AVP/TCP;unicast;interleaved=4-5"],
        ["RTP/AVP;unicast;client_port=5000-5001", "RTP/AVP;unicast;client_port=5002-5003"],
    ] {
        let stream = [
            ask(1, "DESCRIBE", URL, "Accept: application/sdp\r\n", ""),
            set_up(2, "video", ways[0]),
            set_up(3, "audio", ways[1]),
            // What follows makes it speak no more: see the text of `machines.rs`.
            ask(4, "PLAY", URL, "", ""),
            interleaved(1, &rtcp::receiver_report(9, None, None)),
        ]
        .concat();
        let subject = RtspServer::with_player();
        let count = 8 * subject.deliveries.len();
        Harness::new(subject, 31).outputs(64 + count, 4).check(&stream);
    }
}

#[test]
fn refusals_of_all_kinds() {
    let good = [ask(1, "DESCRIBE", URL, "", ""), set_up(2, "video", "RTP/AVP/TCP;interleaved=0-1")].concat();
    let ends: [Vec<u8>; 8] = [
        ask(3, "RECORD", URL, "", ""),
        set_up(3, "video", "RTP/AVP/TCP;interleaved=0-1"),
        set_up(3, "nothing", "RTP/AVP;multicast"),
        ask(3, "PLAY", URL, "Session: another\r\n", ""),
        interleaved(9, b"stray").repeat(4),
        b"OPTIONS * RTSP/1.0\r\nContent-Length: 99999999\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"DESCRIBE rtsp://half".to_vec(),
    ];
    for (seed, end) in (40..).zip(ends) {
        Harness::new(RtspServer { udp: true, deliveries: vec![] }, seed)
            .rounds(60)
            .check(&[&good[..], &end].concat());
    }
}

/// Where a session stands after a request that was answered with 200.
fn after(state: State, method: Method) -> State {
    match (method, state) {
        (Method::Describe, _) => State::Described,
        (Method::Announce, _) => State::Announced,
        (Method::Setup, State::Announced | State::RecordReady) => State::RecordReady,
        (Method::Setup, _) => State::PlayReady,
        (Method::Play, _) => State::Playing,
        (Method::Record, _) => State::Recording,
        (Method::Pause, State::Playing) => State::PlayReady,
        (Method::Pause, State::Recording) => State::RecordReady,
        (Method::Teardown, _) => State::Init,
        (_, state) => state,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is asked in whatever order: what the table allows is answered with 200, all else is refused with 455 (454
    /// for a TEARDOWN of nothing, 405 for what only a server may say), and refusals change nothing.
    #[test]
    fn requests_are_taken_in_their_order_and_refused_in_any_other(methods in proptest::collection::vec(0..Method::ALL.len(), 1..24)) {
        let subject = RtspServer { udp: false, deliveries: vec![] };
        let (mut server, mut state, mut set) = (subject.make(), State::Init, 0u8);
        for (n, method) in methods.into_iter().enumerate() {
            let method = Method::ALL[method];
            let lane = set;
            let (url, more, body) = match method {
                Method::Setup => {
                    let mode = if matches!(state, State::Announced | State::RecordReady) { "record" } else { "play" };
                    let track = ["video", "audio"][usize::from(lane % 2)];
                    let way = format!("Transport: RTP/AVP/TCP;unicast;interleaved={}-{};mode={mode}\r\n", 2 * lane, 2 * lane + 1);
                    (format!("{URL}/{track}"), way, "")
                }
                Method::Announce => (URL.to_owned(), "Content-Type: application/sdp\r\n".to_owned(), SDP),
                _ => (URL.to_owned(), String::new(), ""),
            };
            // Both tracks are set up: once more would be refused for another reason, and so it is after a pause.
            if method == Method::Setup && lane >= 2 {
                continue;
            }
            server.handle(Input::Received(&ask(n as u32, method.name(), &url, &more, body)), Time::ZERO);
            let mut said = Vec::new();
            while let Some(output) = server.poll() {
                subject.react(&mut server, &output, Time::ZERO);
                said.push(output);
            }
            let (text, _) = subject.see(said);
            let text = String::from_utf8_lossy(&text).into_owned();
            let wanted = match method {
                m if is_legal(m, state) => "200",
                Method::Redirect => "405",
                Method::Teardown => "454",
                _ => "455",
            };
            prop_assert!(text.starts_with(&format!("RTSP/1.0 {wanted} ")), "{} in {state:?}: {text}", method.name());
            prop_assert!(text.contains(&format!("CSeq: {n}\r\n")), "{text}");
            if wanted == "200" {
                set = match method {
                    Method::Setup => set + 1,
                    Method::Teardown | Method::Describe | Method::Announce => 0,
                    _ => set,
                };
                state = after(state, method);
            }
        }
    }
}
