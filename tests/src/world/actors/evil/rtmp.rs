//! Abuses of RTMP, in hand-made bytes (Adobe RTMP 1.0; AMF0 as of 2007).

use super::abuser::{Pace, Script, Step};
use super::{Evil, Target};
use bytes::Bytes;
use proto_core::rand::Rng;

/// How each kind goes about it; none: it is no abuse of RTMP.
pub(super) fn pace(kind: Evil) -> Option<Pace> {
    use Evil as E;
    let (lanes, pause) = match kind {
        E::HandshakeTrickle => (8, 500),
        E::RtmpGarbage | E::ChunkGarbage => (4, 100),
        E::ChunkStreams | E::ChunkSizeZero | E::ChunkSizeHuge | E::LengthChange => (4, 200),
        E::DeepAmf | E::WideAmf | E::MediaBeforePublish => (4, 200),
        E::CommandFlood => (4, 50),
        E::GarbageMedia | E::WildMedia => (2, 300),
        E::NameThief => (2, 100),
        E::NeverReads | E::NeverAcks => (6, 500),
        E::HalfOpen => (4, 60_000),
        E::ConnectionFlood => (80, 200),
        E::ResetStorm => (4, 50),
        E::AbsentNames => (16, 20),
        E::WickedNames => (4, 100),
        _ => return None,
    };
    Some(Pace { lanes, pause, script })
}

const STRING: u8 = 2;
const NULL: u8 = 5;

fn amf_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(STRING);
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

fn amf_number(out: &mut Vec<u8>, value: f64) {
    out.push(0);
    out.extend_from_slice(&value.to_be_bytes());
}

fn key(out: &mut Vec<u8>, name: &[u8]) {
    out.extend_from_slice(&(name.len() as u16).to_be_bytes());
    out.extend_from_slice(name);
}

/// A chunk's header of the long form.
fn head(csid: u8, stamp: u32, len: usize, kind: u8, stream: u32) -> Vec<u8> {
    let mut out = vec![csid & 0x3f];
    out.extend_from_slice(&stamp.min(0xff_fffe).to_be_bytes()[1..]);
    out.extend_from_slice(&(len as u32).to_be_bytes()[1..]);
    out.push(kind);
    out.extend_from_slice(&stream.to_le_bytes());
    out
}

/// A message in chunks of 128 bytes.
pub(super) fn message(csid: u8, stamp: u32, kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = head(csid, stamp, payload.len(), kind, stream);
    for (n, piece) in payload.chunks(128).enumerate() {
        if n > 0 {
            out.push(0xc0 | csid);
        }
        out.extend_from_slice(piece);
    }
    out
}

fn command(name: &str, id: f64, stream: u32, rest: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut payload = Vec::new();
    amf_string(&mut payload, name.as_bytes());
    amf_number(&mut payload, id);
    rest(&mut payload);
    message(3, 0, 20, stream, &payload)
}

fn connect(app: &[u8]) -> Vec<u8> {
    command("connect", 1.0, 0, |out| {
        out.push(3);
        key(out, b"app");
        amf_string(out, app);
        out.extend_from_slice(&[0, 0, 9]);
    })
}

fn create_stream() -> Vec<u8> {
    command("createStream", 2.0, 0, |out| out.push(NULL))
}

fn on_stream(verb: &str, name: &[u8]) -> Vec<u8> {
    command(verb, 3.0, 1, |out| {
        out.push(NULL);
        amf_string(out, name);
    })
}

/// All that a client says up to `publish` or `play`, after C0 to C2 of zeros.
pub fn wishes(app: &str, verb: &str, name: &str) -> Vec<u8> {
    let handshake = [vec![3], vec![0; 3_072]].concat();
    [handshake, connect(app.as_bytes()), create_stream(), on_stream(verb, name.as_bytes())].concat()
}

fn send(bytes: Vec<u8>) -> Step {
    Step::Send(bytes.into())
}

pub(super) fn noise(rng: &mut Rng, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    rng.fill(&mut out);
    out
}

/// C0, C1 and C2 of the simple form.
fn handshake(rng: &mut Rng) -> Vec<Step> {
    let mut c0c1 = vec![3, 0, 0, 0, 0, 0, 0, 0, 0];
    c0c1.extend(noise(rng, 1_528));
    vec![send(c0c1), Step::Heard(3_073), send(noise(rng, 1_536))]
}

/// As far as a connection comes with honest means: `verb` is `publish` or `play`.
fn opened(rng: &mut Rng, stream: &str, verb: &str) -> Vec<Step> {
    let (app, name) = stream.split_once('/').unwrap_or(("live", stream));
    let mut steps = handshake(rng);
    steps.push(send([connect(app.as_bytes()), create_stream(), on_stream(verb, name.as_bytes())].concat()));
    steps
}

/// As [`opened`], with a stream that somebody else publishes.
fn opened_at(target: &Target, rng: &mut Rng, verb: &str) -> Vec<Step> {
    let stream = target.stream(rng);
    opened(rng, &stream, verb)
}

fn own(target: &Target, nth: u64) -> String {
    format!("live/{}-{nth}", target.own)
}

fn script(kind: Evil, target: &Target, rng: &mut Rng, nth: u64) -> Script {
    let steps = match kind {
        Evil::HandshakeTrickle => {
            let byte = |_| [send(vec![3]), Step::Wait(300)];
            (0..200).flat_map(byte).collect()
        }
        Evil::RtmpGarbage => vec![send(noise(rng, 6_000)), Step::Wait(500), Step::Finish],
        Evil::ChunkGarbage => {
            let mut steps = handshake(rng);
            steps.extend([send(noise(rng, 20_000)), Step::Wait(2_000), Step::Reset]);
            steps
        }
        Evil::NameThief => {
            let mut steps = opened_at(target, rng, "publish");
            steps.extend([send(media(rng, 40, false)), Step::Wait(3_000), Step::Finish]);
            steps
        }
        Evil::NeverReads => {
            let mut steps = opened_at(target, rng, "play");
            steps.extend([Step::Deaf, Step::Wait(60_000)]);
            steps
        }
        Evil::NeverAcks => {
            let mut steps = handshake(rng);
            let stream = target.stream(rng);
            let (app, name) = stream.split_once('/').unwrap_or(("live", &stream));
            let window = message(2, 0, 5, 0, &1u32.to_be_bytes());
            let bandwidth = message(2, 0, 6, 0, &[0, 0, 0, 1, 0]);
            let play = [connect(app.as_bytes()), create_stream(), on_stream("play", name.as_bytes())];
            steps.extend([send(window), send(bandwidth), send(play.concat()), Step::Wait(60_000)]);
            steps
        }
        Evil::HalfOpen => {
            let mut steps = opened_at(target, rng, "play");
            steps.extend([Step::Heard(8_000), Step::Wait(u64::from(rng.below(2_000))), Step::Vanish]);
            steps
        }
        Evil::ConnectionFlood => vec![Step::Wait(15_000), Step::Reset],
        Evil::ResetStorm => {
            let mut steps = opened(rng, &own(target, nth % 8), "publish");
            let wait = u64::from(rng.below(400));
            steps.extend([send(media(rng, 10, false)), Step::Wait(wait), Step::Reset]);
            steps
        }
        Evil::AbsentNames => {
            let mut steps = opened(rng, &own(target, nth), "play");
            steps.extend([Step::Wait(400), Step::Finish]);
            steps
        }
        Evil::WickedNames => wicked_name(rng, nth),
        Evil::CommandFlood => {
            let mut steps = opened(rng, &own(target, nth % 8), "publish");
            let flood = [create_stream(), on_stream("play", b"x"), on_stream("releaseStream", b"y")].concat();
            steps.extend([Step::Wait(300), send(flood.repeat(500)), Step::Wait(1_000), Step::Reset]);
            steps
        }
        Evil::GarbageMedia | Evil::WildMedia => {
            let mut steps = opened(rng, &own(target, nth % 4), "publish");
            steps.push(Step::Wait(200));
            for _ in 0..40 {
                steps.extend([send(media(rng, 20, kind == Evil::WildMedia)), Step::Wait(100)]);
            }
            steps.push(Step::Finish);
            steps
        }
        Evil::MediaBeforePublish => {
            let mut steps = handshake(rng);
            steps.extend([send(connect(b"live")), send(create_stream()), send(media(rng, 60, false))]);
            steps.extend([Step::Wait(2_000), Step::Finish]);
            steps
        }
        _ => chunks(kind, rng),
    };
    Script::new(target.rtmp, steps)
}

/// Abuses of the chunk layer and of AMF, after an honest handshake.
fn chunks(kind: Evil, rng: &mut Rng) -> Vec<Step> {
    let mut steps = handshake(rng);
    match kind {
        Evil::ChunkStreams => {
            // One too long before anybody publishes, some that never end, or whole ones on more chunk streams than there may be.
            let (len, most) = [(60_000, 63), (1_000, 14), (100, 63)][rng.below(3) as usize];
            for csid in 3..most {
                steps.push(send([head(csid, 0, len, 4, 0), noise(rng, len.min(128))].concat()));
            }
            // Chunk streams beyond 63 take two or three bytes (section 5.3.1.1).
            for wide in 0..100u8 {
                let mut long = vec![0, wide];
                long.extend_from_slice(&head(3, 0, len, 4, 0)[1..]);
                long.extend(noise(rng, len.min(128)));
                steps.push(send(long));
            }
        }
        Evil::ChunkSizeZero => steps.push(send(message(2, 0, 1, 0, &[0; 4]))),
        Evil::ChunkSizeHuge => {
            let size: u32 = if rng.below(2) == 0 { 0x8000_0000 } else { 0x7fff_ffff };
            steps.push(send(message(2, 0, 1, 0, &size.to_be_bytes())));
            steps.push(send([head(3, 0, 0xff_ffff, 20, 0), noise(rng, 200_000)].concat()));
        }
        Evil::LengthChange => {
            steps.push(send([head(3, 0, 1_000, 20, 0), noise(rng, 128)].concat()));
            steps.push(send([head(3, 0, 90_000, 9, 1), noise(rng, 128)].concat()));
            // Format 1: a new length and type on the same chunk stream.
            steps.push(send([vec![0x43, 0, 0, 1, 0, 0, 50, 18], noise(rng, 128)].concat()));
        }
        Evil::DeepAmf => {
            let nested = |out: &mut Vec<u8>| {
                for n in 0..400 {
                    out.push(if n % 2 == 0 { 3 } else { 10 });
                    if n % 2 == 0 { key(out, b"a") } else { out.extend_from_slice(&1u32.to_be_bytes()) }
                }
            };
            steps.push(send(command("connect", 1.0, 0, nested)));
        }
        _ => {
            // Too long as a message, or short with too many properties.
            let (properties, len) = [(1_000, 200), (140, 1)][rng.below(2) as usize];
            let wide = |out: &mut Vec<u8>| {
                out.push(3);
                for n in 0..properties {
                    key(out, format!("property{n}").as_bytes());
                    amf_string(out, &vec![b'x'; len]);
                }
                out.extend_from_slice(&[0, 0, 9]);
            };
            steps.push(send(command("connect", 1.0, 0, wide)));
        }
    }
    steps.extend([Step::Wait(3_000), Step::Reset]);
    steps
}

/// Tags with a right beginning and a wrong rest.
fn media(rng: &mut Rng, n: u32, wild: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for i in 0..n {
        let stamp = if wild { rng.below(0xff_fffe) } else { i * 20 };
        let begin: &[u8] = match rng.below(9) {
            0 => &[0x17, 0, 0, 0, 0],
            1 => &[0x17, 1, 0, 0, 0],
            2 => &[0x27, 1, 0, 0, 0],
            3 => &[0xaf, 0],
            4 => &[0xaf, 1],
            5 => &[0x90, b'a', b'v', b'c', b'1'],
            6 => &[0x91, b'h', b'v', b'c', b'1'],
            // A valid configuration, so that pictures are looked at.
            7 => AVC,
            _ => &[],
        };
        let len = rng.below(400) as usize;
        let payload = [begin.to_vec(), noise(rng, len)].concat();
        let kind = match rng.below(8) {
            0..=2 => 8,
            7 => 18,
            _ => 9,
        };
        out.extend(message(6, stamp, kind, 1, &payload));
    }
    out
}

/// An AVC configuration with a baseline SPS of 640x360 and a PPS, as an FLV tag (ISO/IEC 14496-15, 5.3.3).
const AVC: &[u8] = &[
    0x17, 0, 0, 0, 0, 1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 10, 0x67, 0x42, 0xc0, 0x1e, 0xdc, 0x0a, 0x02, 0xf9,
    0x65, 0xc0, 1, 0, 4, 0x68, 0xce, 0x3c, 0x80,
];

fn wicked_name(rng: &mut Rng, nth: u64) -> Vec<Step> {
    let long = [b'a'; 5_000];
    let names: [&[u8]; 10] = [
        b"..",
        b"../../etc/passwd",
        b"%2e%2e%2f",
        b"a\nheadwater_sessions 99",
        b"\x1b[2J\"quote\\",
        b"",
        b"\xff\xfe\x00",
        b"name?audio=opus&x=\r\n",
        b"\xe2\x80\xae",
        &long,
    ];
    let name = names[nth as usize % names.len()];
    let app: &[u8] = if rng.below(2) == 0 { b"live" } else { name };
    let verb = if rng.below(2) == 0 { "publish" } else { "play" };
    let mut steps = handshake(rng);
    steps.push(send([connect(app), create_stream(), on_stream(verb, name)].concat()));
    steps.extend([Step::Wait(500), Step::Finish]);
    steps
}

impl From<Vec<u8>> for Step {
    fn from(bytes: Vec<u8>) -> Step {
        Step::Send(Bytes::from(bytes))
    }
}
