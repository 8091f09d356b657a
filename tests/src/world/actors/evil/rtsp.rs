//! Abuses of RTSP (RFC 2326), in hand-made bytes.

use super::abuser::{Pace, Script, Step};
use super::rtmp::noise;
use super::{Evil, Target};
use proto_core::rand::Rng;

/// How each kind goes about it; none: it is no abuse of RTSP.
pub(super) fn pace(kind: Evil) -> Option<Pace> {
    use Evil as E;
    let (lanes, pause) = match kind {
        E::RtspSlowHead => (8, 500),
        E::RtspWickedHeads | E::RtspHugeBodies => (6, 60),
        E::InterleavedFlood => (6, 60),
        E::RtspReflection => (6, 100),
        E::SessionGuesser => (4, 100),
        E::RtspThief => (2, 100),
        E::RtspGarbageMedia | E::FrameBombs => (3, 200),
        E::RtspPipelinedFlood => (4, 100),
        E::RtspNeverReads => (6, 500),
        E::RtspHalfOpen => (4, 60_000),
        _ => return None,
    };
    Some(Pace { lanes, pause, script })
}

/// Whether a kind is about RTSP.
pub(super) fn is(kind: Evil) -> bool {
    pace(kind).is_some() || kind == Evil::RtspPortFlood
}

const SDP: &str = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=x\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n\
    a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:streamid=0\r\nm=audio 0 RTP/AVP 97\r\n\
    a=rtpmap:97 opus/48000/2\r\na=control:streamid=1\r\n";

/// A request; `more`: further headers.
pub fn ask(cseq: u32, method: &str, url: &str, more: &str, body: &str) -> Vec<u8> {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {url} RTSP/1.0\r\nCSeq: {cseq}\r\n{more}{length}\r\n{body}").into_bytes()
}

fn frame(channel: u8, bytes: &[u8]) -> Vec<u8> {
    [&[b'$', channel][..], &(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn announce(url: &str) -> Vec<u8> {
    ask(1, "ANNOUNCE", url, "Content-Type: application/sdp\r\n", SDP)
}

fn set_up(cseq: u32, url: &str, transport: &str) -> Vec<u8> {
    ask(cseq, "SETUP", url, &format!("Transport: {transport}\r\n"), "")
}

/// All that a publisher says up to RECORD, in one go.
pub fn record(url: &str) -> Vec<u8> {
    [
        announce(url),
        set_up(2, &format!("{url}/streamid=0"), "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record"),
        set_up(3, &format!("{url}/streamid=1"), "RTP/AVP/TCP;unicast;interleaved=2-3;mode=record"),
        ask(4, "RECORD", url, "", ""),
    ]
    .concat()
}

/// All that a player says up to PLAY, in one go.
pub fn play(url: &str, transports: [&str; 2]) -> Vec<u8> {
    [
        ask(1, "DESCRIBE", url, "Accept: application/sdp\r\n", ""),
        set_up(2, &format!("{url}/video"), transports[0]),
        set_up(3, &format!("{url}/audio"), transports[1]),
        ask(4, "PLAY", url, "", ""),
    ]
    .concat()
}

/// RTP and RTCP with a right beginning and a wrong rest.
fn packet(rng: &mut Rng, n: u32) -> Vec<u8> {
    let len = rng.below(1_400) as usize;
    let kind = [96, 97, 96 | 0x80, 97 | 0x80, 200, 201, 203, 206][rng.below(8) as usize];
    let seq = if rng.below(4) == 0 { rng.u32() as u16 } else { n as u16 };
    let mut out = vec![[0x80, 0x90, 0xa0, 0x8f][rng.below(4) as usize], kind];
    out.extend(seq.to_be_bytes());
    out.extend((n.wrapping_mul(3_600) ^ if rng.below(9) == 0 { rng.u32() } else { 0 }).to_be_bytes());
    out.extend(if rng.below(5) == 0 { rng.u32() } else { 7 }.to_be_bytes());
    // A single slice, an aggregate, a fragment, or anything.
    let begins: [&[u8]; 4] = [&[0x65, 0x88], &[24, 0, 9], &[28, 0x85], &[]];
    out.extend(begins[rng.below(4) as usize]);
    out.extend(noise(rng, len));
    out
}

/// A packet with a piece of a picture that neither began nor ends with it (RFC 6184, 5.8); only the first begins it.
fn endless(seq: u16) -> Vec<u8> {
    let mut out = vec![0x80, 96];
    out.extend(seq.to_be_bytes());
    out.extend([0, 0, 0x20, 0, 0, 0, 0, 7]);
    out.extend([0x7c, if seq == 0 { 0x85 } else { 0x05 }]);
    out.resize(1_200, 0x33);
    out
}

fn script(kind: Evil, target: &Target, rng: &mut Rng, nth: u64) -> Script {
    let own = format!("rtsp://{}/live/{}-{}", target.rtsp, target.own, nth % 4);
    let theirs = format!("rtsp://{}/{}", target.rtsp, target.stream(rng));
    let one = |bytes: Vec<u8>, wait: u64| vec![Step::from(bytes), Step::Wait(wait), Step::Reset];
    let steps = match kind {
        Evil::RtspSlowHead => {
            let bytes = ask(1, "OPTIONS", &theirs, &"X: y\r\n".repeat(30), "");
            bytes.into_iter().flat_map(|b| [Step::from(vec![b]), Step::Wait(300)]).collect()
        }
        Evil::RtspWickedHeads => one(wicked_head(rng, &theirs, nth), 300),
        Evil::RtspHugeBodies => {
            let length =
                ["999999999", "-1", "16385", "1\r\nContent-Length: 2", "0x10", "99999999999999999999999"];
            let head = format!(
                "ANNOUNCE {own} RTSP/1.0\r\nCSeq: 1\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n",
                length[nth as usize % length.len()]
            );
            one([head.into_bytes(), noise(rng, 70_000)].concat(), 400)
        }
        Evil::InterleavedFlood => {
            let junk = noise(rng, 1_000);
            let bytes = match nth % 5 {
                // Before anything was set up; the largest there are; on channels of nobody; before RECORD; empty ones.
                0 => frame(0, &junk).repeat(200),
                1 => [frame(0, &[7; 65_535]), frame(1, &[7; 65_535])].concat(),
                2 => [record(&own), frame(77, &junk).repeat(200)].concat(),
                3 => [announce(&own), frame(0, &junk).repeat(200)].concat(),
                _ => [record(&own), frame(0, &[]).repeat(20_000)].concat(),
            };
            one(bytes, 500)
        }
        Evil::RtspReflection => {
            // Media for others, for ports of others' services, and for ports that nobody opened.
            let victim = format!("10.1.0.{}", 1 + nth % 6);
            let transports = [
                format!("RTP/AVP;unicast;destination={victim};client_port=5000-5001"),
                format!("RTP/AVP;unicast;source={victim};client_port=5000-5001"),
                "RTP/AVP;unicast;client_port=53-54".to_owned(),
                "RTP/AVP;unicast;client_port=0-0".to_owned(),
                format!("RTP/AVP;multicast;destination=224.2.0.{};port=5000-5001", nth % 9),
                "RTP/AVP;unicast;client_port=6000-6001".to_owned(),
            ];
            let one = &transports[nth as usize % transports.len()];
            let url = if nth.is_multiple_of(2) { theirs } else { own };
            vec![Step::from(play(&url, [one, one])), Step::Wait(4_000), Step::Reset]
        }
        Evil::SessionGuesser => {
            let session = format!("Session: {}\r\n", rng.token(22));
            let methods = ["TEARDOWN", "PAUSE", "PLAY", "GET_PARAMETER", "RECORD", "SETUP"];
            let asks = methods.iter().zip(1..).map(|(m, n)| ask(n, m, &theirs, &session, ""));
            let twice = set_up(30, &format!("{theirs}/video"), "RTP/AVP/TCP;unicast;interleaved=0-1");
            one([asks.collect::<Vec<_>>().concat(), twice.repeat(3)].concat(), 500)
        }
        Evil::RtspThief => {
            let media: Vec<u8> = (0..40).flat_map(|n| frame(0, &packet(rng, n))).collect();
            vec![Step::from([record(&theirs), media].concat()), Step::Wait(3_000), Step::Finish]
        }
        Evil::RtspGarbageMedia => {
            let mut steps = vec![Step::from(record(&own)), Step::Wait(300)];
            for n in 0..40 {
                let channel = rng.below(4) as u8;
                let some: Vec<u8> = (0..20).flat_map(|i| frame(channel, &packet(rng, n * 20 + i))).collect();
                steps.extend([Step::from(some), Step::Wait(100)]);
            }
            steps.push(Step::Finish);
            steps
        }
        Evil::FrameBombs => {
            let mut steps = vec![Step::from(record(&own)), Step::Wait(300)];
            for n in 0..20u16 {
                let some: Vec<u8> = (0..40).flat_map(|i| frame(0, &endless(n * 40 + i))).collect();
                steps.extend([Step::from(some), Step::Wait(20)]);
            }
            // Hours forth and back.
            for n in 0..50u16 {
                let mut packet = endless(800 + n);
                packet[4..8].copy_from_slice(&(u32::from(n % 2) * 0x7000_0000).to_be_bytes());
                steps.push(Step::from(frame(0, &packet)));
            }
            steps.extend([Step::Wait(200), Step::Finish]);
            steps
        }
        Evil::RtspPipelinedFlood => {
            let bytes = ask(1, "OPTIONS", "*", "", "").repeat(3_000);
            vec![Step::Deaf, Step::from(bytes), Step::Wait(3_000), Step::Reset]
        }
        Evil::RtspNeverReads => {
            let ways = ["RTP/AVP/TCP;unicast;interleaved=0-1", "RTP/AVP/TCP;unicast;interleaved=2-3"];
            vec![Step::from(play(&theirs, ways)), Step::Heard(500), Step::Deaf, Step::Wait(60_000)]
        }
        _ => {
            // A viewer by datagrams whose cable is pulled.
            let ways = ["RTP/AVP;unicast;client_port=7000-7001", "RTP/AVP;unicast;client_port=7002-7003"];
            let wait = 500 + u64::from(rng.below(2_000));
            vec![Step::from(play(&theirs, ways)), Step::Wait(wait), Step::Vanish]
        }
    };
    Script::new(target.rtsp, steps)
}

fn wicked_head(rng: &mut Rng, url: &str, nth: u64) -> Vec<u8> {
    let long = "x".repeat(9_000);
    match nth % 10 {
        0 => ask(1, "OPTIONS", &format!("{url}{long}"), "", ""),
        1 => ask(1, "OPTIONS", url, &format!("X: {long}\r\n"), ""),
        2 => ask(1, "OPTIONS", url, &"X: y\r\n".repeat(2_000), ""),
        3 => ask(1, "OPTIONS", url, "X: a\0b\r\n", ""),
        4 => ask(1, "DESCRIBE", "rtsp://../../etc/passwd", "", ""),
        5 => format!("OPTIONS {url} RTSP/1.0\r\nCSeq: 99999999999999999999\r\n\r\n").into_bytes(),
        6 => format!("PLAY {url} RTSP/9.9\r\n\r\n\r\n\r\n").into_bytes(),
        7 => format!("DESCRIBE {url}\u{202e}\x1b[2J RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: \x1b[31m\"\\\r\n\r\n")
            .into_bytes(),
        8 => b"GET /metrics HTTP/1.1\r\nHost: n\r\n\r\n".to_vec(),
        _ => noise(rng, 3_000),
    }
}
