use super::*;
use crate::media::frame::{Frame, FrameKind, NewFrame, Rotation};
use crate::media::track::{Codec, CodecParams, Origin};
use crate::time::WallTime;
use crate::wire::rtcp_reports::{self as rtcp, Report};
use crate::wire::rtp::Packet;
use crate::wire::rtsp::put_frame_head;
use bytes::BytesMut;

const URL: &str = "rtsp://127.0.0.1:8554/live/s";
const SDP: &str = "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:streamid=0\r\n\
    m=audio 0 RTP/AVP 97\r\na=rtpmap:97 opus/48000/2\r\na=control:streamid=1\r\n";
const SPS: &[u8] =
    &[0x67, 66, 0xc0, 12, 0xd9, 3, 0xc5, 0x68, 0x40, 0, 0, 3, 0, 0x40, 0, 0, 0x0c, 3, 0xc5, 0x0a, 0x92];

struct Bench {
    server: Server,
    now: Time,
    cseq: u32,
    said: Vec<Output>,
}

impl Bench {
    fn new() -> Bench {
        let now = Time::from_millis(1_000);
        let wall = WallAnchor::new(now, WallTime(1_700_000_000_000_000_000));
        let mut server = Server::new(Limits::default(), Rng::new([3; 32]), wall, true, now);
        server.handle(Input::Writable(1 << 20), now);
        Bench { server, now, cseq: 0, said: Vec::new() }
    }

    fn tell(&mut self, input: Input<'_>) -> Vec<u8> {
        self.server.handle(input, self.now);
        self.server.handle(Input::Writable(1 << 20), self.now);
        self.drain()
    }

    /// What was said in bytes; the rest goes to `said`.
    fn drain(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(said) = self.server.poll() {
            match said {
                Output::Send(b) => bytes.extend_from_slice(&b),
                Output::Reading(_) => {}
                other => self.said.push(other),
            }
        }
        bytes
    }

    fn ask(&mut self, method: &str, url: &str, more: &str, body: &str) -> String {
        self.cseq += 1;
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let text = format!("{method} {url} RTSP/1.0\r\nCSeq: {}\r\n{more}{length}\r\n{body}", self.cseq);
        String::from_utf8_lossy(&self.tell(Input::Received(text.as_bytes()))).into_owned()
    }

    fn wait(&mut self, millis: u64) -> Vec<u8> {
        self.now += Duration::from_millis(millis);
        self.tell(Input::Tick)
    }

    fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.said)
    }

    fn closed(&mut self) -> Option<&'static str> {
        self.said.iter().find_map(|o| match o {
            Output::Closed(reason) => Some(reason.code),
            _ => None,
        })
    }

    /// A publisher whose RECORD was accepted, over channels 0 to 3.
    fn publisher() -> Bench {
        let mut b = Bench::new();
        assert!(b.ask("ANNOUNCE", URL, "Content-Type: application/sdp\r\n", SDP).contains("200 OK"));
        for n in 0..2 {
            let t =
                format!("Transport: RTP/AVP/TCP;unicast;interleaved={}-{};mode=record\r\n", 2 * n, 2 * n + 1);
            let answer = b.ask("SETUP", &format!("{URL}/streamid={n}"), &t, "");
            assert!(answer.contains("200 OK") && answer.contains("timeout=20"), "{answer}");
        }
        assert_eq!(b.ask("RECORD", URL, "", ""), "");
        let asked = b.take();
        assert!(
            matches!(&asked[..], [Output::PublishRequested { key, .. }] if key.as_str() == "live/s"),
            "{asked:?}"
        );
        let answer = String::from_utf8(b.tell(Input::PublishAccepted)).unwrap();
        assert!(answer.contains("200 OK") && answer.contains("CSeq: 4"), "{answer}");
        b
    }

    fn rtp(&mut self, channel: u8, seq: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
        let pt = if channel == 0 { 96 } else { 97 };
        let p = Packet { payload_type: pt, marker: true, seq, timestamp, ssrc: channel.into(), payload };
        let mut out = BytesMut::new();
        put_frame_head(&mut out, channel, 12 + payload.len());
        out.extend_from_slice(&p.header());
        out.extend_from_slice(payload);
        self.tell(Input::Received(&out))
    }

    fn sr(&mut self, channel: u8, ntp_nanos: u64, timestamp: u32) {
        let report =
            rtcp::sender_report((channel - 1).into(), rtcp::ntp_of(ntp_nanos), timestamp, 1, 1, false);
        let mut out = BytesMut::new();
        put_frame_head(&mut out, channel, report.len());
        out.extend_from_slice(&report);
        self.tell(Input::Received(&out));
    }

    /// A player whose PLAY was accepted.
    fn player(transport: &str) -> Bench {
        let mut b = Bench::new();
        b.ask("DESCRIBE", URL, "", "");
        let answer = String::from_utf8(b.tell(Input::Described(tracks()))).unwrap();
        assert!(answer.contains("m=video") && answer.contains("m=audio"), "{answer}");
        for (n, name) in ["video", "audio"].into_iter().enumerate() {
            let (a, z) = (5_000 + 2 * n, 5_001 + 2 * n);
            let t = match transport {
                "tcp" => format!("Transport: RTP/AVP/TCP;interleaved={}-{}\r\n", 2 * n, 2 * n + 1),
                _ => format!("Transport: RTP/AVP;unicast;client_port={a}-{z}\r\n"),
            };
            let mut answer = b.ask("SETUP", &format!("{URL}/{name}"), &t, "");
            if transport != "tcp" {
                answer = String::from_utf8(b.tell(Input::UdpGranted((8_000, 8_001)))).unwrap();
            }
            assert!(answer.contains("200 OK"), "{answer}");
        }
        b.ask("PLAY", URL, "", "");
        let answer = String::from_utf8(b.tell(Input::PlayAccepted)).unwrap();
        assert!(answer.contains("RTP-Info: url=rtsp://127.0.0.1:8554/live/s/video;seq="), "{answer}");
        b.take();
        b
    }
}

fn tracks() -> Vec<Track> {
    let config = |params| Arc::new(CodecConfig { version: 1, params, origin: Origin::Ingest });
    let h264 =
        crate::media::h264::h264_params(vec![Bytes::from_static(SPS)], vec![Bytes::from_static(&[0x68, 1])]);
    vec![(TrackId::VIDEO, config(h264)), (TrackId::AUDIO, config(CodecParams::Opus { channels: 2 }))]
}

fn frame(track: TrackId, kind: FrameKind, pts: i64) -> Delivery {
    let payload = match kind {
        FrameKind::Audio => Bytes::from_static(&[0xfc, 1, 2]),
        FrameKind::Key => Bytes::from_static(&[0, 0, 0, 3, 0x65, 0x88, 1]),
        _ => Bytes::from_static(&[0, 0, 0, 3, 0x41, 0x9a, 1]),
    };
    let media = NewFrame {
        track,
        dts: pts,
        pts,
        kind,
        discardable: false,
        temporal_layer: 0,
        rotation: Rotation::R0,
        capture: None,
        payload,
    };
    let frame =
        Frame { seq: 1, epoch: Default::default(), config_version: 1, media, renderings: Default::default() };
    Delivery::Frame { frame: Arc::new(frame), dts: pts, pts, cached: false }
}

fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let caps = Caps { line: 1_000, headers: 50, head: 9_000, message: 9_000 };
    let mut reader = Reader::new(caps);
    (0..=255).for_each(|c| reader.set_channel(c, true));
    let mut out = Vec::new();
    while let Some(item) = reader.read(&mut bytes).unwrap() {
        if let Item::Frame { channel, payload } = item {
            out.push((channel, payload.to_vec()));
        }
    }
    out
}

#[test]
fn a_publisher_over_the_connection_becomes_frames() {
    let mut b = Bench::publisher();
    // SPS, PPS and an IDR slice in one aggregation packet.
    let mut stap = vec![0x78];
    for nal in [SPS, &[0x68, 0xcb], &[0x65, 0x88, 0x80, 1]] {
        stap.extend((nal.len() as u16).to_be_bytes());
        stap.extend_from_slice(nal);
    }
    b.rtp(0, 1, 9_000, &stap);
    b.rtp(2, 1, 4_800, &[0xfc, 1, 2]);
    let media: Vec<_> = b
        .take()
        .into_iter()
        .filter_map(|o| match o {
            Output::Media(m) => Some(m),
            _ => None,
        })
        .collect();
    let [
        Ingest::Config { track: TrackId::VIDEO, .. },
        Ingest::Frame(key),
        Ingest::Config { .. },
        Ingest::Frame(sound),
    ] = &media[..]
    else {
        panic!("{media:?}")
    };
    assert_eq!((key.kind, sound.kind), (FrameKind::Key, FrameKind::Audio));
    let answer = b.ask("TEARDOWN", URL, "", "");
    assert!(answer.contains("200 OK"), "{answer}");
    assert_eq!(b.take(), [Output::Unpublished]);
}

#[test]
fn a_player_gets_packets_and_reports_on_its_channels() {
    let mut b = Bench::player("tcp");
    let key = frame(TrackId::VIDEO, FrameKind::Key, 1_000_000_000);
    let sent = frames(&b.tell(Input::Deliver(&key)));
    // Parameter sets, the slice, and the first report.
    assert_eq!(sent.iter().map(|(c, _)| *c).collect::<Vec<_>>(), [0, 0, 1]);
    let (first, last) = (Packet::parse(&sent[0].1).unwrap(), Packet::parse(&sent[1].1).unwrap());
    assert_eq!((first.payload_type, first.marker, last.marker), (96, false, true));
    assert_eq!(last.seq, first.seq + 1);
    let sound = frame(TrackId::AUDIO, FrameKind::Audio, 1_040_000_000);
    let sent = frames(&b.tell(Input::Deliver(&sound)));
    assert_eq!(Packet::parse(&sent[0].1).unwrap().payload_type, 97);
    let ending = frames(&b.tell(Input::StreamEnded(Reason::peer("ended", "over"))));
    assert!(ending.iter().any(|(_, p)| rtcp::parse(p).iter().any(|r| matches!(r, Report::Bye { .. }))));
    assert_eq!(b.closed(), Some("ended"));
}

#[test]
fn what_a_bridge_makes_stands_in_and_what_cannot_be_told_ends_the_session() {
    let mut b = Bench::player("tcp");
    let config = |params, origin| Arc::new(CodecConfig { version: 2, params, origin });
    let aac = CodecParams::Aac { asc: Bytes::from_static(&[0x11, 0x90]), rate: 48_000, channels: 2 };
    let from = TrackId::AUDIO;
    let sound = |track| frame(track, FrameKind::Audio, 1_000_000_000);
    // Another publisher sends something else, and a bridge makes what was described of it.
    let made = from.derived(Codec::Opus);
    let opus = config(CodecParams::Opus { channels: 1 }, Origin::Derived { from });
    b.tell(Input::Deliver(&Delivery::Config { track: made, config: opus }));
    assert_eq!(frames(&b.tell(Input::Deliver(&sound(made))))[0].0, 2);
    let opus = config(CodecParams::Opus { channels: 2 }, Origin::Ingest);
    b.tell(Input::Deliver(&Delivery::Config { track: from, config: opus }));
    assert_eq!(frames(&b.tell(Input::Deliver(&sound(from))))[0].0, 2, "and back");
    assert!(frames(&b.tell(Input::Deliver(&sound(made)))).is_empty());
    b.tell(Input::Deliver(&Delivery::Config { track: from, config: config(aac, Origin::Ingest) }));
    b.take();
    let ending = frames(&b.tell(Input::Deliver(&sound(from))));
    assert!(ending.iter().any(|(_, p)| rtcp::parse(p).iter().any(|r| matches!(r, Report::Bye { .. }))));
    assert_eq!(b.closed(), Some("config_changed"));
    assert!(b.take().iter().any(|o| matches!(o, Output::Stopped)), "the node is told");
}

#[test]
fn a_player_over_datagrams_pauses_and_goes_on_at_a_key_frame() {
    let mut b = Bench::player("udp");
    b.tell(Input::Deliver(&frame(TrackId::VIDEO, FrameKind::Key, 1_000)));
    let sent = b.take();
    assert!(matches!(&sent[0], Output::Burst { lane: 0, .. }), "{sent:?}");
    assert!(b.ask("PAUSE", URL, "", "").contains("200"));
    b.tell(Input::Deliver(&frame(TrackId::VIDEO, FrameKind::Delta, 2_000)));
    assert_eq!(b.take(), []);
    assert!(b.ask("PLAY", URL, "", "").contains("200"));
    assert_eq!(b.take(), [Output::KeyFrameWanted]);
    b.tell(Input::Deliver(&frame(TrackId::VIDEO, FrameKind::Delta, 3_000)));
    assert_eq!(b.take(), []);
    b.tell(Input::Deliver(&frame(TrackId::VIDEO, FrameKind::Key, 4_000)));
    assert!(!b.take().is_empty());
    assert_eq!(b.server.drops().get("player_asked"), Some(&1));
    assert_eq!(b.server.drops().get("before_key"), Some(&1));
}

/// A12, A11: what is heard, by whatever way, keeps a session; silence ends it.
#[test]
fn silence_ends_a_session_and_any_sign_of_life_keeps_it() {
    let mut b = Bench::player("udp");
    for _ in 0..3 {
        b.wait(25_000);
        let life = rtcp::receiver_report(1, None, None);
        b.tell(Input::Datagram { lane: 0, rtcp: true, bytes: &life });
        b.wait(25_000);
        assert!(b.ask("GET_PARAMETER", URL, "", "").contains("200 OK"));
    }
    assert_eq!(b.closed(), None);
    b.wait(30_000);
    assert_eq!(b.closed(), Some("rtsp_idle"));
    assert!(b.said.contains(&Output::Stopped) && b.said.contains(&Output::UdpDone));
}

/// A8: the whole message in time, whatever trickles.
#[test]
fn a_trickled_head_ends_after_ten_seconds() {
    let mut b = Bench::new();
    b.tell(Input::Received(b"OPTIONS * RT"));
    for _ in 0..9 {
        b.wait(1_000);
        b.tell(Input::Received(b"x"));
    }
    assert_eq!(b.closed(), None);
    let said = b.wait(1_000);
    assert!(String::from_utf8_lossy(&said).starts_with("RTSP/1.0 408"));
    assert_eq!(b.closed(), Some("rtsp_head_timeout"));
}

/// A10: three strikes.
#[test]
fn packets_where_none_may_be_close_the_connection_at_the_third() {
    let mut b = Bench::new();
    b.wait(3_000);
    b.tell(Input::Received(b"$\x00\x00\x01x$\x09\x00\x00"));
    assert_eq!(b.closed(), None);
    b.tell(Input::Received(b"$\x00\xff\xff"));
    assert_eq!(b.closed(), Some("rtsp_stray_packets"));
    assert_eq!(b.server.drops().get("stray"), Some(&3));
}

#[test]
fn a_connection_that_only_asks_is_closed_and_so_is_one_that_asks_too_much() {
    let mut b = Bench::new();
    for _ in 0..3 {
        b.wait(9_900);
        b.ask("OPTIONS", "*", "", "");
    }
    b.wait(300);
    assert_eq!(b.closed(), Some("rtsp_unused"));
    let mut b = Bench::new();
    for _ in 0..51 {
        b.ask("OPTIONS", "*", "", "");
    }
    assert_eq!(b.closed(), Some("rtsp_requests"));
}

/// A peer that does not read is closed, and never makes the answers pile up.
#[test]
fn unread_answers_close_the_connection() {
    let mut b = Bench::new();
    b.server.handle(Input::Writable(0), b.now);
    for n in 0..2_000 {
        b.now += Duration::from_millis(30);
        b.server
            .handle(Input::Received(format!("OPTIONS * RTSP/1.0\r\nCSeq: {n}\r\n\r\n").as_bytes()), b.now);
        assert!(b.server.backlog() <= 17 << 10);
    }
    assert_eq!(b.server.closing().map(|r| r.code), Some("rtsp_unread_answers"));
}

/// The publisher's sound clock runs 100 ppm fast; its reports say so. After ten minutes sound and picture that were taken
/// at one moment are shown within 40 ms of each other, at the hub and, by our reports, at a player.
#[test]
fn clocks_that_differ_by_100_ppm_stay_together_for_ten_minutes() {
    let mut b = Bench::publisher();
    let mut player = Bench::player("tcp");
    // Media times at the hub of the newest picture and sound, with the moment at which they were taken.
    let mut newest = [(0i64, 0u64); 2];
    let (mut worst_in, mut worst_out) = (0i64, 0i64);
    let mut line: [Option<(i128, u32)>; 2] = [None; 2];
    for step in 0..30_000u64 {
        let taken = step * 20;
        b.now = Time::from_millis(1_000 + taken);
        player.now = b.now;
        let wall = 1_700_000_000_000_000_000 + taken * 1_000_000;
        let sound_ticks = (taken as f64 * 48.0 * 1.000_1) as u32;
        let picture_ticks = (taken * 90) as u32;
        if step % 250 == 0 {
            b.sr(1, wall, picture_ticks);
            b.sr(3, wall, sound_ticks);
        }
        b.rtp(2, step as u16, sound_ticks, &[0xfc, 1, 2]);
        if step % 2 == 0 {
            let mut stap = vec![0x78];
            for nal in [SPS, &[0x68, 0xcb], &[0x65, 0x88, 0x80, 1]] {
                stap.extend((nal.len() as u16).to_be_bytes());
                stap.extend_from_slice(nal);
            }
            b.rtp(0, (step / 2) as u16, picture_ticks, &stap);
        }
        for said in b.take() {
            let Output::Media(Ingest::Frame(f)) = said else { continue };
            let n = usize::from(f.track == TrackId::AUDIO);
            newest[n] = (f.pts, taken);
            let delivery = frame(f.track, f.kind, f.pts);
            for (channel, packet) in frames(&player.tell(Input::Deliver(&delivery))) {
                let lane = usize::from(channel / 2);
                if channel % 2 == 1 {
                    for report in rtcp::parse(&packet) {
                        if let Report::Sender { ntp, timestamp, .. } = report {
                            line[lane] = Some((rtcp::nanos_of(ntp), timestamp));
                        }
                    }
                } else if let (Some((ntp, at)), true) = (line[lane], step > 500) {
                    let rate = if lane == 0 { 90_000 } else { 48_000 };
                    let ticks = i64::from(Packet::parse(&packet).unwrap().timestamp.wrapping_sub(at) as i32);
                    let shown = ntp + i128::from(ticks) * 1_000_000_000 / rate;
                    let off = shown - i128::from(wall) - i128::from(2_208_988_800u64) * 1_000_000_000;
                    worst_out = worst_out.max(off.abs() as i64);
                }
            }
        }
        player.take();
        if step % 250 == 0 {
            assert!(player.ask("OPTIONS", "*", "", "").contains("200 OK"));
        }
        if step > 500 && newest[0].1 == newest[1].1 {
            worst_in = worst_in.max((newest[0].0 - newest[1].0).abs());
        }
    }
    assert!(worst_in < 40_000_000, "{} ms apart at the hub", worst_in / 1_000_000);
    assert!(worst_out < 40_000_000, "{} ms off the wall clock at the player", worst_out / 1_000_000);
}
