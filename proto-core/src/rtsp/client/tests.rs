use super::*;
use crate::media::frame::{Frame, FrameKind, NewFrame, Rotation};
use crate::media::track::{CodecConfig, CodecParams, Origin};
use crate::rtsp::digest::{self, Authorization};
use crate::rtsp::server::{self, Server};
use crate::time::WallTime;
use crate::wire::rtcp_reports as rtcp;
use crate::wire::rtp::Packet;
use crate::wire::rtsp::put_frame_head;
use crate::wire::sdp::{Bounds, Description};
use bytes::BytesMut;

const SDP: &str = "v=0\r\no=- 0 0 IN IP4 10.0.0.7\r\ns=cam\r\nt=0 0\r\na=control:*\r\n\
    m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0LADNkDxWhAAAADAEAAAAwDxQqS,aMuMsg==\r\na=control:trackID=1\r\n\
    m=audio 0 RTP/AVP 97\r\na=rtpmap:97 opus/48000/2\r\na=control:trackID=2\r\n\
    m=application 0 RTP/AVP 107\r\na=rtpmap:107 vnd.onvif.metadata/90000\r\na=control:trackID=3\r\n";

fn limits() -> Arc<Limits> {
    Arc::new(Limits::default())
}

fn wall(now: Time) -> WallAnchor {
    WallAnchor::new(now, WallTime(1_700_000_000_000_000_000))
}

/// A client, and a server that is played by the test.
struct Bench {
    client: Client,
    now: Time,
    heard: Reader,
    said: Vec<Output>,
    asked: VecDeque<Item>,
    /// CSeq of the newest request.
    cseq: String,
}

impl Bench {
    fn new(url: &str, task: Task, ways: Ways) -> Bench {
        let now = Time::from_millis(1_000);
        let url = Url::parse(url).unwrap();
        let plan = Plan { url, task, ways, via: String::new() };
        let client = Client::new(plan, limits(), Rng::new([5; 32]), wall(now), now);
        let mut heard = Reader::new(Caps { line: 9_000, headers: 64, head: 16 << 10, message: 64 << 10 });
        (0..8).for_each(|c| heard.set_channel(c, true));
        let mut b =
            Bench { client, now, heard, said: Vec::new(), asked: VecDeque::new(), cseq: String::new() };
        b.tell(Input::Writable(1 << 20));
        b
    }

    fn play(url: &str) -> Bench {
        Bench::new(url, Task::Play, Ways::TcpThenUdp)
    }

    fn tell(&mut self, input: Input<'_>) {
        self.client.handle(input, self.now);
        self.client.handle(Input::Writable(1 << 20), self.now);
        while let Some(said) = self.client.poll() {
            match said {
                Output::Send(bytes) => {
                    let mut rest = &bytes[..];
                    while let Some(item) = self.heard.read(&mut rest).unwrap() {
                        self.asked.push_back(item);
                    }
                }
                other => self.said.push(other),
            }
        }
    }

    /// The next request, which must be of this method.
    fn expect(&mut self, method: &str) -> Request {
        loop {
            match self.asked.pop_front() {
                Some(Item::Request(r)) => {
                    assert_eq!(r.method, method, "{r:?}");
                    self.cseq = r.headers.get("CSeq").unwrap().to_owned();
                    return r;
                }
                Some(_) => {}
                None => panic!("no {method} was asked; said {:?}", self.said),
            }
        }
    }

    fn answer(&mut self, status: u16, headers: &str, body: &str) {
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let text = format!("RTSP/1.0 {status} X\r\nCSeq: {}\r\n{headers}{length}\r\n{body}", self.cseq);
        self.tell(Input::Received(text.as_bytes()));
    }

    fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.tell(Input::Tick);
    }

    fn closed(&self) -> Option<&Reason> {
        self.said.iter().find_map(|o| match o {
            Output::Closed(reason) => Some(reason),
            _ => None,
        })
    }

    fn code(&self) -> &'static str {
        self.closed().map_or("open", |r| r.code)
    }

    /// As far as DESCRIBE is answered.
    fn described(headers: &str) -> Bench {
        let mut b = Bench::play("rtsp://10.0.0.7/live");
        b.expect("OPTIONS");
        b.answer(200, "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER\r\n", "");
        let r = b.expect("DESCRIBE");
        assert_eq!(r.headers.get("Accept"), Some("application/sdp"));
        b.answer(200, headers, SDP);
        b
    }

    /// A client that plays two tracks over channels 0 to 3.
    fn playing() -> Bench {
        let mut b = Bench::described("Content-Base: rtsp://10.0.0.7/live/\r\n");
        for n in 0..2 {
            let r = b.expect("SETUP");
            assert_eq!(r.url, format!("rtsp://10.0.0.7/live/trackID={}", n + 1));
            let t = format!("RTP/AVP/TCP;unicast;interleaved={}-{}", 2 * n, 2 * n + 1);
            assert_eq!(r.headers.get("Transport"), Some(t.as_str()));
            b.answer(200, &format!("Session: abc;timeout=30\r\nTransport: {t}\r\n"), "");
        }
        let r = b.expect("PLAY");
        assert_eq!((r.url.as_str(), r.headers.get("Session")), ("rtsp://10.0.0.7/live/", Some("abc")));
        b.answer(200, "Session: abc\r\n", "");
        assert!(b.said.contains(&Output::Ready));
        b
    }

    fn rtp(&mut self, channel: u8, seq: u16, timestamp: u32, payload: &[u8]) {
        let payload_type = if channel == 0 { 96 } else { 97 };
        let p = Packet { payload_type, marker: true, seq, timestamp, ssrc: channel.into(), payload };
        let mut out = BytesMut::new();
        put_frame_head(&mut out, channel, 12 + payload.len());
        out.extend_from_slice(&p.header());
        out.extend_from_slice(payload);
        self.tell(Input::Received(&out));
    }

    fn media(&self) -> usize {
        self.said.iter().filter(|o| matches!(o, Output::Media(Ingest::Frame(_)))).count()
    }
}

#[test]
fn a_camera_is_played_and_kept_alive_and_left() {
    let mut b = Bench::playing();
    let left_out =
        b.said.iter().any(|o| matches!(o, Output::Log(Level::Warn, t) if t.contains("application")));
    assert!(left_out, "{:?}", b.said);
    let configs = b.said.iter().filter(|o| matches!(o, Output::Media(Ingest::Config { .. }))).count();
    assert_eq!(configs, 2, "what the description says of tracks is known at once");
    b.rtp(0, 1, 90_000, &[0x65, 1, 2, 3]);
    b.rtp(2, 1, 48_000, &[1, 2, 3]);
    assert_eq!(b.media(), 2);
    let config = |o: &Output| matches!(o, Output::Media(Ingest::Config { track: TrackId::VIDEO, .. }));
    assert!(b.said.iter().any(config), "parameter sets come out of the description");
    for _ in 0..4 {
        b.wait(5_000);
        b.rtp(2, 2, 96_000, &[1, 2, 3]);
    }
    let reports = b.asked.iter().filter(|i| matches!(i, Item::Frame { channel: 1 | 3, .. })).count();
    assert!(reports >= 2, "receiver reports go out");
    let r = b.expect("GET_PARAMETER");
    assert_eq!((r.url.as_str(), r.headers.get("Session")), ("rtsp://10.0.0.7/live/", Some("abc")));
    b.answer(200, "", "");
    b.tell(Input::Close(Reason::local("stopped", "nobody watches")));
    b.expect("TEARDOWN");
    assert_eq!(b.code(), "stopped");
}

#[test]
fn a_silent_camera_is_given_up() {
    let mut b = Bench::playing();
    b.wait(9_000);
    assert_eq!(b.code(), "open");
    b.wait(1_100);
    assert_eq!(b.code(), "remote_silent");
    let mut b = Bench::play("rtsp://10.0.0.7/live");
    b.wait(10_000);
    assert_eq!(b.code(), "remote_setup_timeout");
    assert!(b.closed().unwrap().text.contains("OPTIONS"));
}

#[test]
fn bye_and_requests_of_the_server_are_understood() {
    let mut b = Bench::playing();
    b.tell(Input::Received(b"OPTIONS rtsp://x RTSP/1.0\r\nCSeq: 77\r\n\r\n"));
    let answered = b.asked.iter().any(|i| matches!(i, Item::Response(r) if r.status == 200));
    assert!(answered);
    b.rtp(0, 1, 90_000, &[0x65, 1, 2, 3]);
    let bye = rtcp::sender_report(0, 0, 0, 1, 1, true);
    let mut out = BytesMut::new();
    put_frame_head(&mut out, 1, bye.len());
    out.extend_from_slice(&bye);
    b.tell(Input::Received(&out));
    assert_eq!(b.code(), "rtcp_bye");
}

/// Answers every request that proves the password for the nonce in force.
fn server_with_digest(b: &mut Bench, algorithm: digest::Algorithm, password: &str) -> u32 {
    let (mut nonce, mut refusals) = (0, 0);
    let mut served = 0;
    while let Some(item) = b.asked.pop_front() {
        let Item::Request(r) = item else { continue };
        b.cseq = r.headers.get("CSeq").unwrap().to_owned();
        let said = r.headers.get("Authorization").and_then(Authorization::parse);
        let good = match &said {
            Some(Authorization::Digest(d)) => {
                let secret = digest::secret(algorithm, "admin", "cam", password);
                d.uri == r.url && d.nonce == format!("n{nonce}") && d.proves(&secret, &r.method)
            }
            _ => false,
        };
        if !good {
            refusals += 1;
            // The nonce dies in the middle of the session.
            let stale = matches!(&said, Some(Authorization::Digest(d)) if d.nonce != format!("n{nonce}"));
            let more = format!(
                "WWW-Authenticate: Basic realm=\"cam\"\r\nWWW-Authenticate: Digest realm=\"cam\", nonce=\"n{nonce}\", \
                 algorithm={}, qop=\"auth\"{}\r\n",
                algorithm.name(),
                if stale { ", stale=true" } else { "" }
            );
            b.answer(401, &more, "");
            continue;
        }
        served += 1;
        if served == 2 {
            nonce += 1;
        }
        match r.method.as_str() {
            "DESCRIBE" => b.answer(200, "", SDP),
            "SETUP" => {
                let t = r.headers.get("Transport").unwrap().to_owned();
                b.answer(200, &format!("Session: s\r\nTransport: {t}\r\n"), "");
            }
            _ => b.answer(200, "", ""),
        }
    }
    refusals
}

#[test]
fn passwords_are_proved_and_old_nonces_renewed() {
    for algorithm in [digest::Algorithm::Md5, digest::Algorithm::Sha256] {
        let mut b = Bench::play("rtsp://admin:12345@10.0.0.7/live");
        let refusals = server_with_digest(&mut b, algorithm, "12345");
        assert!(b.said.contains(&Output::Ready), "{:?}", b.said);
        assert_eq!(refusals, 2, "once at the start, once for the old nonce");
        let mut b = Bench::play("rtsp://admin:wrong@10.0.0.7/live");
        server_with_digest(&mut b, algorithm, "12345");
        assert_eq!(b.code(), "remote_unauthorized");
        assert!(!format!("{:?}", b.said).contains("wrong"));
        let mut b = Bench::play("rtsp://10.0.0.7/live");
        server_with_digest(&mut b, algorithm, "12345");
        assert!(b.closed().unwrap().text.contains("put them into the URL"));
    }
}

#[test]
fn where_the_connection_is_refused_datagrams_are_tried_and_the_other_way_round() {
    let mut b = Bench::described("");
    b.expect("SETUP");
    b.answer(461, "", "");
    let want = |b: &Bench, n| b.said.iter().filter(|o| **o == Output::UdpWanted { lane: n }).count();
    assert_eq!(want(&b, 0), 1);
    b.tell(Input::UdpGranted((8_000, 8_001)));
    let r = b.expect("SETUP");
    assert_eq!(r.headers.get("Transport"), Some("RTP/AVP;unicast;client_port=8000-8001"));
    b.answer(
        200,
        "Session: u\r\nTransport: RTP/AVP;unicast;client_port=8000-8001;server_port=6970-6971\r\n",
        "",
    );
    assert!(b.said.contains(&Output::UdpPeer { lane: 0, ports: (6970, 6971) }));
    assert_eq!(want(&b, 1), 1);
    b.tell(Input::UdpGranted((8_002, 8_003)));
    b.expect("SETUP");
    b.answer(500, "", "");
    b.expect("PLAY");
    b.answer(200, "", "");
    assert!(b.said.contains(&Output::Ready), "one track is better than none");
    let p =
        Packet { payload_type: 96, marker: true, seq: 1, timestamp: 1, ssrc: 1, payload: &[0x65, 1, 2, 3] };
    let datagram = [&p.header()[..], &[0x65, 1, 2, 3]].concat();
    b.tell(Input::Datagram { lane: 0, rtcp: false, bytes: &datagram });
    b.wait(500);
    assert_eq!(b.media(), 1);
    b.wait(5_000);
    assert!(b.said.iter().any(|o| matches!(o, Output::Datagram { lane: 0, rtcp: true, .. })));

    let mut b = Bench::new("rtsp://10.0.0.7/live", Task::Play, Ways::UdpThenTcp);
    b.expect("OPTIONS");
    b.answer(501, "", "");
    b.expect("DESCRIBE");
    b.answer(200, "", SDP);
    b.tell(Input::UdpRefused);
    let r = b.expect("SETUP");
    assert!(r.headers.get("Transport").unwrap().starts_with("RTP/AVP/TCP"));
    b.answer(461, "", "");
    assert_eq!(b.code(), "remote_transport");
}

#[test]
fn datagrams_that_do_not_come_are_noticed() {
    let mut b = Bench::new("rtsp://10.0.0.7/live", Task::Play, Ways::UdpThenTcp);
    b.expect("OPTIONS");
    b.answer(200, "", "");
    b.expect("DESCRIBE");
    b.answer(200, "", SDP);
    for n in 0..2 {
        b.tell(Input::UdpGranted((8_000 + 2 * n, 8_001 + 2 * n)));
        b.expect("SETUP");
        b.answer(200, "Session: u\r\n", "");
    }
    b.expect("PLAY");
    b.answer(200, "", "");
    b.wait(2_900);
    assert_eq!(b.code(), "open");
    b.wait(200);
    assert_eq!(b.code(), crate::rtsp::NO_DATAGRAMS);
}

#[test]
fn a_redirect_is_told_and_takes_no_password_to_another_host() {
    for (location, user, code) in [
        ("rtsp://10.0.0.7:8554/x", true, "rtsp_moved"),
        ("rtsp://evil.example/x", false, "rtsp_moved"),
        ("http://10.0.0.7/", false, "rtsp_redirect"),
    ] {
        let mut b = Bench::play("rtsp://a:b@10.0.0.7/live");
        b.expect("OPTIONS");
        b.answer(200, "", "");
        b.expect("DESCRIBE");
        b.answer(302, &format!("Location: {location}\r\n"), "");
        assert_eq!(b.code(), code);
        let moved = b.said.iter().find_map(|o| match o {
            Output::Moved(url) => Some(url.user.is_some()),
            _ => None,
        });
        assert_eq!(moved.unwrap_or(false), user, "{location}");
    }
    let mut b = Bench::play("rtsps://10.0.0.7/live");
    b.expect("OPTIONS");
    b.answer(301, "Location: rtsp://10.0.0.7/live\r\n", "");
    assert_eq!(b.code(), "rtsp_redirect", "encryption is not given up");
}

#[test]
fn what_cannot_be_used_is_said_in_words() {
    for (status, body, code, word) in [
        (404, "", "remote_refused", "404"),
        (200, "", "remote_description", "empty"),
        (200, "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 THEORA/90000\r\n", "unsupported_codec", "THEORA"),
        (200, "<html>", "remote_description", "description"),
    ] {
        let mut b = Bench::play("rtsp://10.0.0.7/live");
        b.expect("OPTIONS");
        b.answer(200, "", "");
        b.expect("DESCRIBE");
        b.answer(status, "", body);
        assert_eq!(b.code(), code, "{body}");
        assert!(b.closed().unwrap().text.contains(word), "{:?}", b.closed());
    }
    let mut b = Bench::play("rtsp://10.0.0.7/live");
    b.tell(Input::Received(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    assert_eq!(b.code(), "rtsp_bad_start");
}

fn tracks() -> Vec<Track> {
    let config = |params| Arc::new(CodecConfig { version: 1, params, origin: Origin::Ingest });
    let opus = CodecParams::Opus { channels: 2 };
    let vp8 = CodecParams::Vp8 { size: None };
    vec![(TrackId::VIDEO, config(vp8)), (TrackId::AUDIO, config(opus))]
}

fn frame(track: TrackId, kind: FrameKind, at: i64) -> Delivery {
    let payload = Bytes::from_static(&[0x10, 2, 0, 0x9d, 1, 0x2a, 64, 0, 64, 0, 1, 2]);
    let media = NewFrame {
        track,
        dts: at,
        pts: at,
        kind,
        discardable: false,
        temporal_layer: 0,
        rotation: Rotation::R0,
        capture: None,
        payload,
    };
    let frame =
        Frame { seq: 1, epoch: Default::default(), config_version: 1, media, renderings: Default::default() };
    Delivery::Frame { frame: Arc::new(frame), dts: at, pts: at, cached: false }
}

/// Our client and our server, byte for byte.
#[test]
fn what_our_client_sends_our_server_takes() {
    let now = Time::from_millis(1_000);
    let url = Url::parse("rtsp://127.0.0.1/live/s").unwrap();
    let task = Task::Record(tracks());
    let plan = Plan { url, task, ways: Ways::TcpThenUdp, via: "mark".into() };
    let mut client = Client::new(plan, limits(), Rng::new([5; 32]), wall(now), now);
    let mut server = Server::new(Limits::default(), Rng::new([6; 32]), wall(now), true, now);
    client.handle(Input::Writable(1 << 20), now);
    server.handle(server::Input::Writable(1 << 20), now);
    let (mut ready, mut frames, mut unpublished) = (false, 0, false);
    let mut sent = 0;
    loop {
        let mut quiet = true;
        while let Some(said) = client.poll() {
            quiet = false;
            match said {
                Output::Send(bytes) => server.handle(server::Input::Received(&bytes), now),
                Output::Ready => ready = true,
                _ => {}
            }
        }
        while let Some(said) = server.poll() {
            quiet = false;
            match said {
                server::Output::Send(bytes) => client.handle(Input::Received(&bytes), now),
                server::Output::PublishRequested { .. } => server.handle(server::Input::PublishAccepted, now),
                server::Output::Media(Ingest::Frame(_)) => frames += 1,
                server::Output::Unpublished => unpublished = true,
                _ => {}
            }
        }
        client.handle(Input::Writable(1 << 20), now);
        server.handle(server::Input::Writable(1 << 20), now);
        if quiet && ready && sent < 3 {
            let kind = if sent == 0 { FrameKind::Key } else { FrameKind::Delta };
            client.handle(Input::Deliver(&frame(TrackId::VIDEO, kind, sent * 40_000_000)), now);
            client.handle(Input::Deliver(&frame(TrackId::AUDIO, FrameKind::Audio, sent * 20_000_000)), now);
            sent += 1;
        } else if quiet && ready && !unpublished {
            client.handle(Input::Close(Reason::local("ended", "over")), now);
        } else if quiet {
            break;
        }
    }
    assert!(ready && unpublished);
    assert_eq!(frames, 6);
}

#[test]
fn what_is_announced_is_a_description() {
    let mut b = Bench::new("rtsp://10.0.0.7/live", Task::Record(tracks()), Ways::Tcp);
    b.expect("OPTIONS");
    b.answer(200, "", "");
    let r = b.expect("ANNOUNCE");
    let bounds = Bounds { lines: 50, sections: 4, formats: 8 };
    let d = Description::parse(std::str::from_utf8(&r.body).unwrap(), bounds).unwrap();
    assert_eq!(d.sections.len(), 2);
    b.answer(403, "", "");
    assert_eq!(b.code(), "remote_refused");
}
