//! Abuses of TLS, of websockets and of the manager's proxy, in hand-made bytes.

use super::abuser::{Pace, Script, Step};
use super::rtmp::noise;
use super::{Evil, Target};
use proto_core::rand::Rng;

/// How each kind goes about it; none: it is no abuse of these.
pub(super) fn pace(kind: Evil) -> Option<Pace> {
    use Evil as E;
    let (lanes, pause) = match kind {
        E::TlsGarbage => (6, 30),
        E::TlsStall => (12, 200),
        E::WickedSockets => (6, 50),
        E::ProxyAbuse => (6, 50),
        E::SignalNonsense | E::SignalFlood => (6, 50),
        E::SignalHalfway => (8, 80),
        _ => return None,
    };
    Some(Pace { lanes, pause, script })
}

/// The beginning of a client's hello that announces `len` bytes.
fn hello(len: u16, rng: &mut Rng) -> Vec<u8> {
    let body = len - 4;
    let mut out = vec![0x16, 3, 1];
    out.extend(len.to_be_bytes());
    out.extend([1, 0]);
    out.extend(body.to_be_bytes());
    out.extend([3, 3]);
    out.extend(noise(rng, 64));
    out
}

fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: n\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A message as a client sends it (RFC 6455, 5.2), its mask of zeros.
pub fn text(message: &str) -> Vec<u8> {
    let mut out = vec![0x81];
    match message.len() {
        n @ ..126 => out.push(0x80 | n as u8),
        n => {
            out.push(0x80 | 126);
            out.extend((n as u16).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend(message.as_bytes());
    out
}

/// What one websocket of the dialect says, and how it ends.
fn signals(kind: Evil, target: &Target, rng: &mut Rng, nth: u64) -> Vec<Step> {
    let stream = target.stream(rng);
    let (app, other) = stream.split_once('/').unwrap_or(("live", "nobody"));
    let own = &target.own;
    let say = |m: String| Step::from(text(&m));
    let publishes = nth.is_multiple_of(2);
    let id = if publishes { own.clone() } else { format!("subscriber-{own}") };
    let mut steps = vec![Step::from(upgrade(&format!("/{app}/?id={id}")).into_bytes()), Step::Wait(60)];
    let sdp = super::http::offer(rng, !publishes);
    let sdp = |kind: &str| serde_json::json!({ "sdp": { "type": kind, "sdp": sdp } });
    match kind {
        Evil::SignalNonsense => {
            let wrong = [
                "[1,2".to_owned(),
                "{}".to_owned(),
                format!("{{\"send\":{}}}", "[".repeat(500)),
                format!("{{\"publish\":\"{other}\"}}"),
                format!("{{\"unpublish\":\"{other}\"}}"),
                format!("{{\"subscribe\":\"{other}\"}}"),
                "{\"switchChannel\":\"red5pro\"}".to_owned(),
                serde_json::json!({ "handleAnswer": other, "data": sdp("answer") }).to_string(),
                serde_json::json!({ "handleOffer": other, "data": { "sdp": { "sdp": "v=0" } } }).to_string(),
                serde_json::json!({ "mute": { "muteAudio": true } }).to_string(),
                "{\"isAvailable\":\"../..\"}".to_owned(),
            ];
            steps.extend(wrong.into_iter().cycle().skip(nth as usize % 11).take(11).map(say));
        }
        Evil::SignalFlood => {
            let message = text(&format!("{{\"isAvailable\":\"{own}\",\"bundle\":true}}"));
            steps.push(Step::from(message.repeat(400)));
        }
        _ if publishes => {
            steps.push(say(format!("{{\"isAvailable\":\"{own}\",\"bundle\":true}}")));
            steps.push(say(serde_json::json!({ "handleOffer": own, "data": sdp("offer") }).to_string()));
        }
        _ => steps.push(say(format!("{{\"requestOffer\":\"{other}\",\"datachannel\":true}}"))),
    }
    steps.extend([Step::Wait(if nth % 4 < 2 { 3_000 } else { 200 }), Step::Reset]);
    steps
}

/// Frames that must not be, or too many that may.
fn frames(rng: &mut Rng, nth: u64) -> Vec<u8> {
    match nth % 8 {
        0 => noise(rng, 2_000),
        // Not masked; of bytes; a control frame in parts; a length of 2^63.
        1 => vec![0x81, 2, b'h', b'i'],
        2 => vec![0x82, 0x81, 0, 0, 0, 0, 7],
        3 => vec![0x09, 0x80, 0, 0, 0, 0],
        4 => [&[0x81, 0xff][..], &[0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]].concat(),
        // A message that never ends, of empty parts; pings without end; a close that says nothing sensible.
        5 => [&[0x01, 0x80, 0, 0, 0, 0][..], &[0x00, 0x80, 0, 0, 0, 0].repeat(2_000)].concat(),
        6 => [0x89, 0x80, 0, 0, 0, 0].repeat(2_000),
        _ => vec![0x88, 0x81, 0, 0, 0, 0, 3],
    }
}

fn script(kind: Evil, target: &Target, rng: &mut Rng, nth: u64) -> Script {
    let own = &target.own;
    let (to, steps) = match kind {
        Evil::TlsGarbage => {
            let bytes = match nth % 6 {
                0 => noise(rng, 5_000),
                1 => [vec![0x16, 3, 1], noise(rng, 3_000)].concat(),
                2 => hello(0xffff, rng),
                3 => b"GET / HTTP/1.1\r\nHost: n\r\n\r\n".to_vec(),
                4 => [vec![0x15, 3, 3, 0, 2, 2, 40], noise(rng, 100)].concat(),
                _ => [vec![0, 20, 0, 1, 0, 0], noise(rng, 40)].concat(),
            };
            (target.https, vec![Step::from(bytes), Step::Wait(300), Step::Reset])
        }
        Evil::TlsStall => {
            let steps = vec![Step::from(hello(512, rng)), Step::Wait(30_000), Step::Reset];
            (target.https, steps)
        }
        Evil::SignalNonsense | Evil::SignalFlood | Evil::SignalHalfway => {
            (target.http, signals(kind, target, rng, nth))
        }
        Evil::WickedSockets => {
            let head = upgrade(&format!("/live/?id={own}"));
            let steps = vec![
                Step::from(head.into_bytes()),
                Step::from(frames(rng, nth)),
                Step::Wait(500),
                Step::Reset,
            ];
            (target.http, steps)
        }
        _ => {
            let host = match nth % 5 {
                0 => "127.0.0.1".to_owned(),
                1 => target.http.ip().to_string(),
                2 => "2130706433".to_owned(),
                3 => format!("{}:22", target.http.ip()),
                // Without a host the manager chooses; the name is its own.
                _ => String::new(),
            };
            let path = match nth % 3 {
                0 => format!("/streammanager/?id={own}&host={host}&app=live"),
                1 => format!("/as/v1/proxy/ws/publish/live/{own}?host={host}"),
                _ => format!("/as/v1/proxy/ws/subscribe/live/{own}?host={host}"),
            };
            let steps = vec![
                Step::from(upgrade(&path).into_bytes()),
                Step::from(frames(rng, nth)),
                Step::Wait(400),
                Step::Reset,
            ];
            (target.http, steps)
        }
    };
    Script::new(to, steps)
}
