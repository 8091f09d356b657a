//! Abuses of HTTP/1.1, WHIP, WHEP and the pairing API, in hand-made bytes.

use super::abuser::{Pace, Script, Step};
use super::rtmp::noise;
use super::{Evil, Target};
use proto_core::rand::Rng;

/// How each kind goes about it; none: it is no abuse of HTTP.
pub(super) fn pace(kind: Evil) -> Option<Pace> {
    use Evil as E;
    let (lanes, pause) = match kind {
        E::SlowHead => (12, 200),
        E::WickedHeads | E::SmugglingHeads => (4, 50),
        E::HugeBodies => (4, 200),
        E::PipelinedFlood => (4, 100),
        E::SdpBombs => (2, 200),
        E::UnconnectedWhep | E::UnconnectedWhip | E::WhipThief => (4, 50),
        E::ResourceGuesser | E::EventFlood => (4, 20),
        E::ForeignPages | E::TokenGuesser | E::Compressed => (4, 50),
        _ => return None,
    };
    Some(Pace { lanes, pause, script })
}

fn send(text: impl Into<Vec<u8>>) -> Step {
    Step::from(text.into())
}

fn post(path: &str, body: &str) -> Step {
    let len = body.len();
    send(format!(
        "POST {path} HTTP/1.1\r\nHost: n\r\nContent-Type: application/sdp\r\nContent-Length: {len}\r\n\r\n{body}"
    ))
}

fn ask(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: n\r\n\r\n")
}

/// An offer as browsers make them, to publish or to watch, with a user name of its own.
pub fn offer(rng: &mut Rng, watch: bool) -> String {
    let (user, pass) = (rng.token(8), rng.token(24));
    let print: Vec<String> = noise(rng, 32).iter().map(|b| format!("{b:02X}")).collect();
    let way = if watch { "recvonly" } else { "sendonly" };
    let common = format!(
        "c=IN IP4 0.0.0.0\r\na=ice-ufrag:{user}\r\na=ice-pwd:{pass}\r\na=fingerprint:sha-256 {}\r\na=setup:actpass\r\n\
         a=rtcp-mux\r\na={way}\r\n",
        print.join(":")
    );
    format!(
        "v=0\r\no=- {} 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n{common}a=mid:0\r\na=rtpmap:111 opus/48000/2\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 109\r\n{common}a=mid:1\r\na=rtpmap:109 H264/90000\r\n\
         a=rtcp-fb:109 nack\r\na=rtcp-fb:109 nack pli\r\n\
         a=fmtp:109 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n",
        rng.u32()
    )
}

/// An offer that is too large in one way or another, but short enough to be read.
fn bomb(rng: &mut Rng, nth: u64) -> String {
    let honest = offer(rng, nth.is_multiple_of(2));
    let many = |n: u32, line: &dyn Fn(u32) -> String| (0..n).map(line).collect::<String>();
    let more = match nth % 8 {
        0 => many(2_000, &|n| format!("a=x:{n}\r\n")),
        1 => many(600, &|n| format!("m=video 9 UDP/TLS/RTP/SAVPF {}\r\n", n % 128)),
        2 => many(300, &|n| format!("a=candidate:{n} 1 udp {n} 10.9.9.9 {} typ host\r\n", 1_024 + n)),
        3 => many(500, &|n| format!("a=extmap:{n} urn:x:{n}\r\n")),
        4 => format!("m=video 9 UDP/TLS/RTP/SAVPF{}\r\n", many(8_000, &|n| format!(" {}", n % 128))),
        5 => format!("a=fmtp:109 {}\r\n", many(6_000, &|n| format!("a{n}="))),
        6 => many(1_000, &|n| format!("a=ssrc-group:FID {n} {n}\r\na=ssrc:{n} cname:c\r\n")),
        _ => many(400, &|n| format!("a=rid:{n} send\r\na=simulcast:send {n}\r\n")),
    };
    honest + &more
}

fn script(kind: Evil, target: &Target, rng: &mut Rng, nth: u64) -> Script {
    let own = &target.own;
    let steps = match kind {
        Evil::SlowHead => {
            let mut steps = vec![send("GET / HTTP/1.1\r\nHost: n\r\nX: ")];
            steps.extend((0..60).flat_map(|_| [send("y"), Step::Wait(1_000)]));
            steps
        }
        Evil::WickedHeads => vec![send(wicked_head(rng, nth)), Step::Wait(500), Step::Finish],
        Evil::SmugglingHeads => vec![send(smuggling(nth)), Step::Wait(500), Step::Finish],
        Evil::HugeBodies => match nth % 3 {
            0 => {
                let head = "POST /whip/live/x HTTP/1.1\r\nHost: n\r\nContent-Type: application/sdp\r\nContent-Length: ";
                vec![send(format!("{head}30000\r\n\r\nv=0")), Step::Wait(30_000), Step::Reset]
            }
            1 => {
                let head = "POST /whip/live/x HTTP/1.1\r\nHost: n\r\nContent-Type: application/sdp\r\nContent-Length: ";
                vec![
                    send(format!("{head}99999999\r\n\r\n")),
                    send(noise(rng, 300_000)),
                    Step::Wait(500),
                    Step::Reset,
                ]
            }
            _ => {
                let head = "POST /api/v1/sessions HTTP/1.1\r\nHost: n\r\nContent-Length: 18446744073709551616\r\n\r\n";
                vec![send(head), send(noise(rng, 10_000)), Step::Wait(500), Step::Finish]
            }
        },
        Evil::PipelinedFlood => {
            let flood = ask("GET", "/metrics").repeat(400);
            vec![Step::Deaf, send(flood), Step::Wait(4_000), Step::Reset]
        }
        Evil::SdpBombs => {
            let way = if nth.is_multiple_of(2) { "whep" } else { "whip" };
            let to = format!("/{way}/live/{own}");
            vec![post(&to, &bomb(rng, nth)), Step::Wait(300), Step::Finish]
        }
        Evil::UnconnectedWhep => {
            let to = format!("/whep/{}", target.stream(rng));
            vec![post(&to, &offer(rng, true)), Step::Wait(150), Step::Finish]
        }
        Evil::UnconnectedWhip => {
            let to = format!("/whip/live/{own}-{}", nth % 50);
            vec![post(&to, &offer(rng, false)), Step::Wait(150), Step::Finish]
        }
        Evil::WhipThief => {
            let to = format!("/whip/{}", target.stream(rng));
            vec![post(&to, &offer(rng, false)), Step::Wait(150), Step::Finish]
        }
        Evil::ResourceGuesser => {
            let n = rng.below(40);
            let secret = rng.token(32);
            let asks = [
                ask("DELETE", &format!("/whep-session/{secret}")),
                ask("PATCH", &format!("/whip-session/{secret}")),
                ask("DELETE", &format!("/api/v1/sessions/rtmp-{n}")),
                ask("DELETE", &format!("/api/v1/sessions/whep-{n}")),
                ask("DELETE", &format!("/api/v1/sessions/relay-{n}")),
            ];
            vec![send(asks.concat()), Step::Wait(200), Step::Finish]
        }
        Evil::ForeignPages => {
            let origin =
                ["https://evil.example", "null", "https://ours.example.evil.example"][nth as usize % 3];
            let bytes = match nth % 2 {
                0 => upgrade(&format!("/live/?id={own}"), &format!("Origin: {origin}\r\n")),
                _ => {
                    format!("DELETE /api/v1/sessions/rtmp-1 HTTP/1.1\r\nHost: n\r\nOrigin: {origin}\r\n\r\n")
                }
            };
            vec![send(bytes), Step::Wait(200), Step::Finish]
        }
        Evil::TokenGuesser => {
            let token = guessed(rng, nth);
            let asks = match nth % 3 {
                0 => post(&format!("/whip/live/{own}?token={token}"), &offer(rng, false)),
                1 => post(&format!("/whep/{}?token={token}", target.stream(rng)), &offer(rng, true)),
                _ => send(ask("GET", &format!("/api/v1/streams?token={token}"))),
            };
            vec![asks, Step::Wait(200), Step::Finish]
        }
        Evil::Compressed => {
            let bytes = match nth % 2 {
                0 => {
                    let head = format!(
                        "POST /whip/live/{own} HTTP/1.1\r\nHost: n\r\nContent-Type: application/sdp\r\nContent-Encoding: gzip\r\n\
                         Content-Length: 40\r\n\r\n"
                    );
                    [head.into_bytes(), noise(rng, 40)].concat()
                }
                _ => {
                    let deflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
                    // A first frame with the bit that says that it is compressed (RFC 7692, 6).
                    [
                        upgrade(&format!("/live/?id={own}"), deflate).into_bytes(),
                        vec![0xc1, 0x84, 0, 0, 0, 0, 1, 2, 3, 4],
                    ]
                    .concat()
                }
            };
            vec![send(bytes), Step::Wait(200), Step::Finish]
        }
        _ => {
            let path = "/streammanager/api/4.0/event/live";
            let asks = ["broadcast", "subscribe"]
                .map(|action| ask("GET", &format!("{path}/{own}-{nth}?action={action}")));
            vec![send(asks.concat()), Step::Wait(100), Step::Finish]
        }
    };
    Script::new(target.http, steps)
}

/// A request for a websocket; `more`: further headers.
pub fn upgrade(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: n\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// A JSON web token of no key, with a wrong signature or none, or something else.
fn guessed(rng: &mut Rng, nth: u64) -> String {
    // {"alg":"none"} and {"alg":"HS256"}; then {"sub":"x","action":"publish","stream":"*","iat":0,"exp":9999999999}.
    let head = ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJIUzI1NiJ9"][nth as usize % 2];
    let claims =
        "eyJzdWIiOiJ4IiwiYWN0aW9uIjoicHVibGlzaCIsInN0cmVhbSI6IioiLCJpYXQiOjAsImV4cCI6OTk5OTk5OTk5OX0";
    match nth % 4 {
        0 => format!("{head}.{claims}."),
        1 => format!("{head}.{claims}.{}", rng.token(43)),
        2 => rng.token(200),
        _ => String::new(),
    }
}

fn wicked_head(rng: &mut Rng, nth: u64) -> Vec<u8> {
    let start = "GET / HTTP/1.1\r\nHost: n\r\n";
    let text = match nth % 10 {
        0 => format!("GET /{} HTTP/1.1\r\nHost: n\r\n\r\n", "a".repeat(9_000)),
        1 => format!("{start}{}\r\n", "X: y\r\n".repeat(100)),
        2 => format!("{start}X: {}\r\n\r\n", "z".repeat(20_000)),
        3 => "GET / HTTP/1.1\nHost: n\n\n".to_owned(),
        4 => format!("{start}X: a\r\n folded\r\n\r\n"),
        5 => format!("{start}X : a\r\n\r\n"),
        6 => format!("{start}X: a\0b\r\n\r\n"),
        7 => ask("GET", "/watch/%2e%2e/%2e%2e/etc/passwd"),
        8 => ask("GET", "/api/v1/sessions/../../../../metrics"),
        _ => return noise(rng, 3_000),
    };
    text.into_bytes()
}

fn smuggling(nth: u64) -> String {
    let start = "POST /whip/live/x HTTP/1.1\r\nHost: n\r\n";
    let inner = ask("DELETE", "/api/v1/sessions/rtmp-1");
    let len = inner.len();
    match nth % 7 {
        0 => format!("{start}Content-Length: {len}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"),
        1 => format!("{start}Content-Length: 0\r\nContent-Length: {len}\r\n\r\n{inner}"),
        2 => format!("{start}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"),
        3 => format!("{start}Content-Length: +0\r\n\r\n{inner}"),
        4 => format!("{start}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{inner}"),
        5 => format!("{start}Host: 127.0.0.1\r\nContent-Length: 0\r\n\r\n{inner}"),
        _ => format!("{start}Content-Length: 0, {len}\r\n\r\n{inner}"),
    }
}
