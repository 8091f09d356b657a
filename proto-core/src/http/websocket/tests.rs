#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used)]

use super::client::{Client, Target};
use super::*;
use crate::http::message::Response;
use crate::http::server::{self, Server};
use crate::wire::websocket::accept_key;

const KEY: [u8; 4] = [1, 2, 3, 4];

/// A server's end with credit, driven by hand.
struct Rig {
    channel: Channel,
    now: Time,
}

impl Rig {
    fn new() -> Rig {
        let caps = Caps::new(&Limits::default());
        let mut channel = Channel::new(Side::Server, Outbox::default(), caps, Time::ZERO);
        channel.handle(Input::Writable(1 << 20), Time::ZERO);
        Rig { channel, now: Time::ZERO }
    }

    fn drive(&mut self, input: Input<'_>) -> Vec<Output> {
        self.channel.handle(input, self.now);
        std::iter::from_fn(|| self.channel.poll()).collect()
    }

    fn receive(&mut self, bytes: &[u8]) -> Vec<Output> {
        self.drive(Input::Received(bytes))
    }

    fn wait(&mut self, ms: u64) -> Vec<Output> {
        self.now += Duration::from_millis(ms);
        self.drive(Input::Tick)
    }
}

fn text(text: &str) -> Bytes {
    frame(Opcode::Text, text.as_bytes(), Some(KEY))
}

/// A masked frame whose first byte is `first`.
fn part(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(Opcode::Text, payload, Some(KEY)).to_vec();
    bytes[0] = first;
    bytes
}

fn ended(outputs: &[Output]) -> Option<u16> {
    outputs.iter().find_map(|o| if let Output::Ended { code, .. } = o { Some(*code) } else { None })
}

fn closed(outputs: &[Output]) -> Option<&'static str> {
    outputs.iter().find_map(|o| if let Output::Closed(reason) = o { Some(reason.code) } else { None })
}

#[test]
fn messages_come_whole_in_parts_and_between_pings() {
    let mut rig = Rig::new();
    assert_eq!(rig.receive(&text("one")), [Output::Text("one".to_owned())]);
    let parts = [
        part(0x01, "zw".as_bytes()),
        part(0x89, b"still there?"),
        part(0x00, &"ö".as_bytes()[..1]),
        part(0x80, &"ö".as_bytes()[1..]),
    ];
    let pong = Output::Send(frame(Opcode::Pong, b"still there?", None));
    assert_eq!(rig.receive(&parts.concat()), [pong, Output::Text("zwö".to_owned())]);
    assert_eq!(rig.drive(Input::Text("hi")), [Output::Send(frame(Opcode::Text, b"hi", None))]);
}

#[test]
fn what_must_not_be_is_answered_with_its_code() {
    let large = vec![b'x'; (64 << 10) + 1];
    let cases: [(Vec<u8>, u16, &str); 12] = [
        (frame(Opcode::Text, b"plain", None).to_vec(), 1002, "ws_mask"),
        (part(0xc1, b"x"), 1002, "ws_bad_frame"),
        (part(0x83, b"x"), 1002, "ws_bad_frame"),
        (part(0x80, b"goes on with nothing"), 1002, "ws_bad_fragment"),
        ([part(0x01, b"a"), part(0x81, b"b")].concat(), 1002, "ws_bad_fragment"),
        (part(0x82, b"bytes"), 1003, "ws_binary"),
        (part(0x81, &[0xff, 0xfe]), 1007, "ws_not_utf8"),
        (part(0x81, &large), 1009, "ws_message_too_big"),
        ([part(0x01, &large[1..]), part(0x80, b"x")].concat(), 1009, "ws_message_too_big"),
        (part(0x88, &[3]), 1002, "ws_close_code"),
        (part(0x88, &1005u16.to_be_bytes()), 1002, "ws_close_code"),
        (part(0x88, &[0x03, 0xe8, 0xff]), 1007, "ws_not_utf8"),
    ];
    for (bytes, code, reason) in cases {
        let said = Rig::new().receive(&bytes);
        let Output::Send(sent) = &said[0] else { panic!("{said:?}") };
        assert_eq!(sent[0], 0x88, "a close frame");
        assert_eq!(u16::from_be_bytes([sent[2], sent[3]]), code, "{reason}");
        assert_eq!((ended(&said), closed(&said)), (Some(code), Some(reason)));
    }
}

#[test]
fn a_large_message_is_refused_by_its_header() {
    let mut rig = Rig::new();
    let said = rig.receive(&[0x81, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]);
    assert_eq!(ended(&said), Some(code::TOO_BIG));
}

#[test]
fn a_close_is_answered_and_told() {
    let mut rig = Rig::new();
    let said = rig.receive(&part(0x88, b"\x03\xe9leaving"));
    assert_eq!(said[0], Output::Send(frame(Opcode::Close, &1001u16.to_be_bytes(), None)));
    assert_eq!(said[1], Output::Ended { code: 1001, text: "leaving".to_owned() });
    assert_eq!(closed(&said), Some("ws_closed"));
    // Browsers that close without a code.
    let said = Rig::new().receive(&part(0x88, b""));
    assert_eq!(said[0], Output::Send(frame(Opcode::Close, b"", None)));
    assert_eq!(ended(&said), Some(code::NONE));
}

#[test]
fn our_close_waits_for_the_peers_and_drops_what_comes_before() {
    let mut rig = Rig::new();
    let close = Input::Close { code: 1000, text: "bye" };
    assert_eq!(rig.drive(close), [Output::Send(frame(Opcode::Close, b"\x03\xe8bye", None))]);
    assert_eq!(rig.receive(&text("too late")), []);
    assert_eq!(closed(&rig.receive(&part(0x88, b"\x03\xe8"))), Some("ws_closed"));

    let mut rig = Rig::new();
    rig.drive(Input::Close { code: 1000, text: "" });
    assert_eq!(rig.wait(1_999), []);
    assert_eq!(closed(&rig.wait(1)), Some("ws_closed"));
}

#[test]
fn silence_is_asked_into_and_then_ended() {
    let mut rig = Rig::new();
    let ping = [Output::Send(frame(Opcode::Ping, b"", None))];
    assert_eq!(rig.wait(19_999), []);
    assert_eq!(rig.wait(1), ping);
    assert_eq!(rig.receive(&part(0x8a, b"")), []);
    assert_eq!(rig.wait(20_000), ping);
    assert_eq!(rig.wait(20_000), ping);
    let said = rig.wait(20_000);
    assert_eq!((ended(&said), closed(&said)), (Some(code::ABNORMAL), Some("ws_idle")));
}

#[test]
fn a_message_that_trickles_is_ended() {
    let mut rig = Rig::new();
    rig.receive(&text("a message")[..7]);
    assert_eq!(rig.wait(9_999), []);
    let said = rig.wait(100);
    assert_eq!(closed(&said), Some("ws_slow_message"));
}

#[test]
fn who_does_not_read_is_ended_before_the_queue_grows() {
    let mut rig = Rig::new();
    rig.drive(Input::Writable(0));
    let message = "x".repeat(60_000);
    for _ in 0..4 {
        assert_eq!(rig.drive(Input::Text(&message)), []);
        assert!(rig.channel.queued() <= 256 << 10);
    }
    let said = rig.drive(Input::Text(&message));
    assert_eq!((ended(&said), closed(&said)), (Some(code::POLICY), Some("ws_slow_reader")));
    assert_eq!(rig.channel.queued(), 0);
}

/// Our client and our server, back to back, with the bytes that each sends handed on in pieces of `cut` bytes.
struct Pair {
    client: Client,
    server: Server,
    client_said: Vec<client::Output>,
    server_said: Vec<server::Output>,
}

impl Pair {
    fn new(target: &Target, cut: usize, answer: impl Fn(&mut Server)) -> Pair {
        let limits = Limits::default();
        let mut pair = Pair {
            client: Client::new(target, &limits, Rng::new([3; 32]), Time::ZERO),
            server: Server::new(&limits, Time::ZERO),
            client_said: vec![],
            server_said: vec![],
        };
        pair.exchange(cut, answer);
        pair
    }

    fn exchange(&mut self, cut: usize, answer: impl Fn(&mut Server)) {
        let now = Time::ZERO;
        loop {
            let mut quiet = true;
            self.client.handle(Input::Writable(1 << 20), now);
            while let Some(said) = self.client.poll() {
                quiet = false;
                match said {
                    client::Output::Send(bytes) => {
                        for bytes in bytes.chunks(cut) {
                            self.server.handle(server::Input::Received(bytes), now);
                        }
                    }
                    other => self.client_said.push(other),
                }
            }
            self.server.handle(server::Input::Writable(1 << 20), now);
            while let Some(said) = self.server.poll() {
                quiet = false;
                match said {
                    server::Output::Send(bytes) => {
                        for bytes in bytes.chunks(cut) {
                            self.client.handle(Input::Received(bytes), now);
                        }
                    }
                    server::Output::Upgrade(request) => {
                        self.server_said.push(server::Output::Upgrade(request));
                        answer(&mut self.server);
                    }
                    other => self.server_said.push(other),
                }
            }
            if quiet {
                return;
            }
        }
    }
}

fn target() -> Target {
    let headers = vec![("X-Forwarded-For", "192.0.2.1".to_owned()), ("Bad", "a\r\nb: c".to_owned())];
    Target { host: "10.0.0.1:5080".to_owned(), path: "/live/?id=a&host=b".to_owned(), headers }
}

fn accept(server: &mut Server) {
    server.handle(server::Input::Accept { subprotocol: None }, Time::ZERO);
    server.handle(server::Input::Text("first"), Time::ZERO);
}

#[test]
fn our_client_and_our_server_understand_each_other() {
    for cut in [1, 7, 1_000_000] {
        let mut pair = Pair::new(&target(), cut, accept);
        let server::Output::Upgrade(request) = &pair.server_said[0] else { panic!() };
        assert_eq!((request.path.as_str(), request.query("host").as_deref()), ("/live/", Some("b")));
        assert_eq!(request.header("x-forwarded-for"), Some("192.0.2.1"));
        assert_eq!(request.header("bad"), None);
        assert_eq!(pair.client_said, [client::Output::Opened, client::Output::Text("first".to_owned())]);
        pair.client.handle(Input::Text("{\"isAvailable\":\"ü\"}"), Time::ZERO);
        pair.client.handle(Input::Close { code: 1000, text: "" }, Time::ZERO);
        pair.exchange(cut, accept);
        assert_eq!(pair.server_said[1], server::Output::Text("{\"isAvailable\":\"ü\"}".to_owned()));
        assert!(matches!(pair.server_said[2], server::Output::SocketEnded { code: 1000, .. }));
        assert!(matches!(&pair.server_said[3], server::Output::Closed(r) if r.code == "ws_closed"));
        assert!(matches!(&pair.client_said[2], client::Output::Closed(r) if r.code == "ws_closed"));
    }
}

#[test]
fn a_refusal_ends_both() {
    let pair = Pair::new(&target(), 100, |server| {
        server.handle(server::Input::Respond(Response::text(403, "no")), Time::ZERO);
    });
    let [client::Output::Closed(reason)] = &pair.client_said[..] else { panic!("{:?}", pair.client_said) };
    assert_eq!(reason.code, "ws_refused");
    assert!(reason.text.contains("403"), "{reason}");
    assert!(matches!(&pair.server_said[1], server::Output::Closed(r) if r.code == "http_done"));
}

#[test]
fn only_a_correct_101_opens_a_client() {
    let limits = Limits::default();
    let rng = || Rng::new([3; 32]);
    let key = {
        let mut client = Client::new(&target(), &limits, rng(), Time::ZERO);
        client.handle(Input::Writable(1 << 20), Time::ZERO);
        let Some(client::Output::Send(head)) = client.poll() else { panic!() };
        let head = String::from_utf8(head.to_vec()).unwrap();
        head.lines().find_map(|l| l.strip_prefix("Sec-WebSocket-Key: ")).unwrap().to_owned()
    };
    let good = format!(
        "HTTP/1.1 101 x\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Accept: {}\r\n",
        accept_key(&key)
    );
    let ask = |answer: &str| {
        let mut client = Client::new(&target(), &limits, rng(), Time::ZERO);
        client.handle(Input::Received(answer.as_bytes()), Time::ZERO);
        client.handle(Input::PeerFinished, Time::ZERO);
        client.poll()
    };
    assert_eq!(ask(&format!("{good}\r\n")), Some(client::Output::Opened));
    for bad in [
        format!("{}\r\n", good.replace("101", "200")),
        format!("{}\r\n", good.replace("Accept: ", "Accept: A")),
        format!("{}\r\n", good.replace("WebSocket\r", "h2c\r")),
        format!("{}\r\n", good.replace(", Upgrade", "")),
        format!("{good}Sec-WebSocket-Accept: x\r\n\r\n"),
        format!("{good}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        format!("{good}Sec-WebSocket-Protocol: chat\r\n\r\n"),
        good.clone(),
        "HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1/\r\n\r\n".to_owned(),
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
        String::new(),
    ] {
        let said = ask(&bad);
        assert!(
            matches!(&said, Some(client::Output::Closed(r)) if r.code == "ws_refused"),
            "{bad}: {said:?}"
        );
    }
    let mut client = Client::new(&target(), &limits, rng(), Time::ZERO);
    client.handle(Input::Tick, Time::from_millis(10_000));
    assert!(matches!(client.poll(), Some(client::Output::Closed(r)) if r.code == "ws_timeout"));
    let mut client = Client::new(&target(), &limits, rng(), Time::ZERO);
    client.handle(Input::Received(format!("{good}X: {}", "y".repeat(20_000)).as_bytes()), Time::ZERO);
    assert!(matches!(client.poll(), Some(client::Output::Closed(r)) if r.code == "ws_head_too_large"));
}
