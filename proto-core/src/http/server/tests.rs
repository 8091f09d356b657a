#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used)]

use super::*;
use proptest::prelude::*;

fn limits() -> Limits {
    Limits::default()
}

/// A server with credit, driven by hand.
struct Rig {
    server: Server,
    now: Time,
}

impl Rig {
    fn new() -> Rig {
        let mut server = Server::new(&limits(), Time::ZERO);
        server.handle(Input::Writable(1 << 20), Time::ZERO);
        Rig { server, now: Time::ZERO }
    }

    /// Gives one input and takes out all that follows; each request is answered with `answer(request)`.
    fn drive(&mut self, input: Input<'_>) -> Vec<Output> {
        self.server.handle(input, self.now);
        let mut out = Vec::new();
        while let Some(o) = self.server.poll() {
            let respond = matches!(o, Output::Request(_));
            out.push(o);
            if respond {
                self.server.handle(Input::Respond(Response::text(200, "ok")), self.now);
            }
        }
        self.server.handle(Input::Writable(1 << 20), self.now);
        assert!(self.server.poll().is_none());
        out
    }

    fn receive(&mut self, bytes: &[u8]) -> Vec<Output> {
        self.drive(Input::Received(bytes))
    }

    fn wait(&mut self, ms: u64) -> Vec<Output> {
        self.now += Duration::from_millis(ms);
        self.drive(Input::Tick)
    }
}

fn sent(outputs: &[Output]) -> String {
    let mut all = Vec::new();
    for o in outputs {
        if let Output::Send(b) = o {
            all.extend_from_slice(b);
        }
    }
    String::from_utf8(all).unwrap()
}

fn requests(outputs: &[Output]) -> Vec<&Request> {
    outputs.iter().filter_map(|o| if let Output::Request(r) = o { Some(r) } else { None }).collect()
}

fn closed(outputs: &[Output]) -> Option<&'static str> {
    outputs.iter().find_map(|o| if let Output::Closed(r) = o { Some(r.code) } else { None })
}

/// What a client sees for these bytes: the status and words, and with what code the connection ended.
fn refused(bytes: &[u8]) -> (u16, String, Option<&'static str>) {
    let mut rig = Rig::new();
    let first = rig.receive(bytes);
    assert!(requests(&first).is_empty(), "{:?} became a request", String::from_utf8_lossy(bytes));
    let words = sent(&first);
    let status = words.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    assert!(words.is_empty() || words.contains("Connection: close\r\n"), "{words}");
    let end = rig.drive(Input::PeerFinished);
    (status, words, closed(&first).or(closed(&end)))
}

#[test]
fn a_get_is_asked_and_answered_and_the_connection_stays() {
    let mut rig = Rig::new();
    for _ in 0..2 {
        let out = rig.receive(b"GET /watch/live/d%65mo?x=1 HTTP/1.1\r\nHost: a\r\nX-One:  two \r\n\r\n");
        let request = requests(&out)[0];
        assert_eq!((request.method, request.path.as_str()), (Method::Get, "/watch/live/demo"));
        assert_eq!(request.query.as_deref(), Some("x=1"));
        assert_eq!(request.header("x-ONE"), Some("two"));
        assert!(sent(&out).ends_with("Content-Length: 3\r\n\r\nok\n"), "{}", sent(&out));
        assert_eq!(closed(&out), None);
    }
    assert_eq!(closed(&rig.drive(Input::PeerFinished)), Some("peer_closed"));
}

use crate::http::message::Method;

#[test]
fn a_body_waits_for_its_length_and_100_continue_is_said() {
    let mut rig = Rig::new();
    let head =
        b"POST /whip/live/demo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(sent(&rig.receive(head)), "HTTP/1.1 100 Continue\r\n\r\n");
    assert!(rig.receive(b"hel").is_empty());
    let out = rig.receive(b"lo");
    assert_eq!(&requests(&out)[0].body[..], b"hello");
}

#[test]
fn head_gets_the_length_without_the_body() {
    let mut rig = Rig::new();
    let text = sent(&rig.receive(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(text.ends_with("Content-Length: 3\r\n\r\n"), "{text}");
}

#[test]
fn http_1_0_and_connection_close_end_after_the_answer() {
    for head in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, Close\r\n\r\n"] {
        let out = Rig::new().receive(head.as_bytes());
        assert!(sent(&out).contains("Connection: close\r\n"));
        assert_eq!(closed(&out), Some("http_done"));
    }
}

#[test]
fn an_absolute_target_is_taken_and_names_the_host() {
    let mut rig = Rig::new();
    let out = rig.receive(b"GET http://node.example:5080/healthz HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!(requests(&out)[0].path, "/healthz");
    assert_eq!(requests(&out)[0].header("host"), Some("node.example:5080"));
    let out = rig.receive(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(requests(&out)[0].path, "*");
}

#[test]
fn smuggling_and_malformed_heads_are_refused_with_words() {
    let host = "Host: a\r\n";
    let post = |headers: &str| format!("POST /whip/live/demo HTTP/1.1\r\n{host}{headers}\r\n\r\nabcde");
    let get = |headers: &str| format!("GET / HTTP/1.1\r\n{headers}\r\n\r\n");
    let table: Vec<(String, u16, &str)> = vec![
        (post("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400, "http_ambiguous_length"),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 5"), 400, "http_ambiguous_length"),
        (post("Transfer-Encoding: chunked"), 411, "http_chunked"),
        (post("Transfer-Encoding: xchunked"), 501, "http_transfer_coding"),
        (post("Transfer-Encoding: identity"), 501, "http_transfer_coding"),
        (post("Transfer-Encoding:\x0bchunked"), 400, "http_bad_head"),
        (post("Transfer-Encoding : chunked"), 400, "http_bad_header"),
        (post("Content-Length: 5\r\nContent-Length: 6"), 400, "http_ambiguous_length"),
        (post("Content-Length: 5\r\nContent-Length: 5"), 400, "http_ambiguous_length"),
        (post("Content-Length: 5, 5"), 400, "http_bad_length"),
        (post("Content-Length: +5"), 400, "http_bad_length"),
        (post("Content-Length: -5"), 400, "http_bad_length"),
        (post("Content-Length: 0x5"), 400, "http_bad_length"),
        (post("Content-Length: 5 5"), 400, "http_bad_length"),
        (post("Content-Length:"), 400, "http_bad_length"),
        (post("Content-Length: \u{665}"), 400, "http_bad_length"),
        (post("Content-Length: 99999999999999999999999"), 413, "http_body_too_large"),
        (post("Content-Length: 40961"), 413, "http_body_too_large"),
        (post("Content-Length : 5"), 400, "http_bad_header"),
        (post("Content-Length: 5\r\nContent-Encoding: gzip"), 415, "http_content_encoding"),
        (post("Content-Length: 5\r\nExpect: 200-ok"), 417, "http_expectation"),
        (get("Host: a\r\nHost: a"), 400, "http_host"),
        (get("X: 1"), 400, "http_host"),
        (get("Host: a/b"), 400, "http_host"),
        (get("Host: a\r\n X: folded"), 400, "http_bad_header"),
        (get("Host: a\r\n\tX: folded"), 400, "http_bad_header"),
        (get("Host: a\nX: bare lf"), 400, "http_bad_head"),
        (get("Host: a\rX: bare cr"), 400, "http_bad_head"),
        (get("Host: a\0"), 400, "http_bad_head"),
        (get("Host: a\r\n: no name"), 400, "http_bad_header"),
        (get("Host: a\r\nno colon"), 400, "http_bad_header"),
        (get("Host: a\r\nX\u{e9}: y"), 400, "http_bad_header"),
        (get(&format!("Host: a\r\nX: {}", "y".repeat(8200))), 431, "http_line_too_long"),
        (get(&format!("Host: a{}", "\r\nX: y".repeat(64))), 431, "http_too_many_headers"),
        (
            get(&format!("Host: a{}", format!("\r\nX: {}", "y".repeat(4000)).repeat(5))),
            431,
            "http_head_too_large",
        ),
        (format!("GET /{} HTTP/1.1\r\n", "x".repeat(8200)), 414, "http_line_too_long"),
        ("GET / HTTP/1.1\n\n".to_owned(), 400, "http_bad_head"),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "http_bad_head"),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n".to_owned(), 400, "http_bad_head"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), 505, "http_version"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505, "http_version"),
        ("GET /\r\nHost: a\r\n\r\n".to_owned(), 400, "http_bad_head"),
        ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 501, "http_method"),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 501, "http_method"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 501, "http_method"),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "http_bad_target"),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "http_bad_target"),
        ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "http_bad_target"),
        ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "http_bad_target"),
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "http_bad_target"),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "http_bad_target"),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), 400, "http_ambiguous_length"),
        ("\x16\x03\x01\x02\x00".to_owned(), 400, "http_tls"),
        ("\u{1}\u{2}\r\n\r\n".to_owned(), 400, "http_bad_head"),
    ];
    for (bytes, status, code) in table {
        let (got, words, end) = refused(bytes.as_bytes());
        let shown = bytes.chars().take(90).collect::<String>();
        assert_eq!((got, end), (status, Some(code)), "{shown:?}: {words}");
        let body = words.split("\r\n\r\n").nth(1).unwrap_or_default();
        assert!(body.len() > 20, "{shown:?} got no words: {words}");
    }
}

#[test]
fn json_paths_take_less_and_answer_refusals_as_json() {
    let (status, words, _) =
        refused(b"POST /api/v1/nodes HTTP/1.1\r\nHost: a\r\nContent-Length: 16385\r\n\r\n");
    assert_eq!(status, 413);
    let body: serde_json::Value = serde_json::from_str(words.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert!(body["error"].as_str().unwrap().contains("16384"), "{body}");
}

#[test]
fn after_a_refusal_input_is_dropped_for_a_while_and_nothing_more_is_served() {
    let mut rig = Rig::new();
    let out = rig.receive(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(sent(&out).starts_with("HTTP/1.1 400 "));
    assert_eq!((requests(&out).len(), closed(&out)), (0, None));
    assert!(rig.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_empty());
    assert!(rig.wait(limits().http_linger_ms - 1).is_empty());
    assert_eq!(closed(&rig.wait(1)), Some("http_host"));
    assert!(rig.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_empty());
    assert_eq!(rig.server.deadline(), None);
}

#[test]
fn pipelined_requests_wait_their_turn_and_too_many_are_not_kept() {
    let one = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut server = Server::new(&limits(), Time::ZERO);
    server.handle(Input::Writable(1 << 20), Time::ZERO);
    server.handle(Input::Received(&one.repeat(3)), Time::ZERO);
    for _ in 0..3 {
        assert!(matches!(server.poll(), Some(Output::Request(_))));
        assert_eq!(server.poll(), None, "one request at a time");
        server.handle(Input::Respond(Response::no_content()), Time::ZERO);
        assert!(matches!(server.poll(), Some(Output::Send(_))));
        server.handle(Input::Writable(1 << 20), Time::ZERO);
    }
    server.handle(Input::Received(one), Time::ZERO);
    for _ in 0..3000 {
        server.handle(Input::Received(one), Time::ZERO);
    }
    assert!(server.inbox.len() <= limits().http_pipelined_bytes);
    assert!(matches!(server.poll(), Some(Output::Request(_))));
    server.handle(Input::Respond(Response::no_content()), Time::ZERO);
    assert!(matches!(server.poll(), Some(Output::Send(b)) if b.ends_with(b"Connection: close\r\n\r\n")));
    assert!(matches!(server.poll(), Some(Output::Closed(r)) if r.code == "http_done"));
}

#[test]
fn slow_peers_meet_their_deadlines() {
    let l = limits();
    // Nothing at all.
    assert_eq!(closed(&Rig::new().wait(l.http_head_ms)), Some("http_idle"));
    // A head that drips.
    let mut rig = Rig::new();
    rig.receive(b"GET / HT");
    for _ in 0..9 {
        rig.now += Duration::from_secs(1);
        assert!(rig.receive(b"x").is_empty());
    }
    let out = rig.wait(1000);
    assert!(sent(&out).starts_with("HTTP/1.1 408 "));
    assert_eq!(closed(&out), Some("http_head_timeout"));
    // A body that drips: some bytes a second are too few, enough bytes a second are not.
    for (per_s, ends) in [(100, true), (600, false)] {
        let mut rig = Rig::new();
        rig.receive(b"POST /whip/a/b HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n");
        let mut end = None;
        for _ in 0..30 {
            rig.now += Duration::from_secs(1);
            let out = rig.receive(&vec![b'x'; per_s]);
            end = end.or(closed(&out));
        }
        assert_eq!(end, ends.then_some("http_body_timeout"), "{per_s} bytes a second");
    }
    // A kept connection without a further request.
    let mut rig = Rig::new();
    rig.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(rig.wait(l.http_idle_ms - 1).is_empty());
    assert_eq!(closed(&rig.wait(1)), Some("http_idle"));
}

#[test]
fn a_peer_that_does_not_read_its_answer_is_closed() {
    let mut server = Server::new(&limits(), Time::ZERO);
    server.handle(Input::Received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Time::ZERO);
    assert!(matches!(server.poll(), Some(Output::Request(_))));
    server.handle(Input::Respond(Response::text(200, "ok")), Time::ZERO);
    server.handle(Input::Writable(10), Time::ZERO);
    assert!(matches!(server.poll(), Some(Output::Send(b)) if b.len() == 10));
    assert_eq!(server.poll(), None);
    let at = server.deadline().unwrap();
    assert_eq!(at.at, Time::from_millis(limits().viewer_stuck_ms));
    server.handle(Input::Tick, at.at);
    assert!(matches!(server.poll(), Some(Output::Closed(r)) if r.code == "http_slow_reader"));
}

#[test]
fn a_peer_that_half_closes_still_gets_its_answer() {
    let mut server = Server::new(&limits(), Time::ZERO);
    server.handle(Input::Writable(1 << 20), Time::ZERO);
    server.handle(Input::Received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Time::ZERO);
    server.handle(Input::PeerFinished, Time::ZERO);
    assert!(matches!(server.poll(), Some(Output::Request(_))));
    assert_eq!(server.poll(), None);
    server.handle(Input::Respond(Response::no_content()), Time::ZERO);
    assert!(matches!(server.poll(), Some(Output::Send(_))));
    assert!(matches!(server.poll(), Some(Output::Closed(r)) if r.code == "peer_closed"));
    let mut rig = Rig::new();
    rig.receive(b"GET / HTTP/1.1\r\nHo");
    assert_eq!(closed(&rig.drive(Input::PeerFinished)), Some("http_truncated"));
}

/// One answer too many is a defect of this node, not of the peer: it is told, and dropped.
#[test]
fn an_answer_without_a_request_is_logged() {
    let mut rig = Rig::new();
    let out = rig.drive(Input::Respond(Response::no_content()));
    assert!(matches!(out.as_slice(), [Output::Log(Level::Error, _)]));
}

/// Everything a client sees, with neighbouring sends joined.
fn trace(outputs: Vec<Output>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut pending = Vec::new();
    for o in outputs {
        if let Output::Send(b) = &o {
            pending.extend_from_slice(b);
            continue;
        }
        if !pending.is_empty() {
            out.push(format!("send {}", String::from_utf8_lossy(&std::mem::take(&mut pending))));
        }
        out.push(format!("{o:?}"));
    }
    if !pending.is_empty() {
        out.push(format!("send {}", String::from_utf8_lossy(&pending)));
    }
    out
}

fn traffic() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        4 => Just(b"POST /whip/a/b HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\nv=0\r\n\r\n".to_vec()),
        1 => Just(b"\r\n".to_vec()),
        1 => Just(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc".to_vec()),
        1 => Just(b"GET / HTTP/1.1\nHost: a\r\n\r\n".to_vec()),
        1 => Just(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_vec()),
        1 => Just(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn cuts_between_reads_change_nothing(
        bytes in traffic(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        wait in 0..12_000u64,
    ) {
        let run = |chunks: &[&[u8]]| {
            let mut rig = Rig::new();
            let mut all = Vec::new();
            for c in chunks {
                all.extend(rig.receive(c));
                let before = rig.server.deadline();
                all.extend(rig.drive(Input::Tick));
                assert_eq!(rig.server.deadline(), before, "a tick that is too early changes nothing");
            }
            let deadline = rig.server.deadline();
            all.extend(rig.wait(wait));
            all.extend(rig.drive(Input::PeerFinished));
            (trace(all), deadline)
        };
        let whole = run(&[&bytes]);
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
        at.sort_unstable();
        let mut chunks = Vec::new();
        let mut from = 0;
        for to in at.into_iter().chain([bytes.len()]) {
            chunks.push(&bytes[from..to]);
            from = to;
        }
        prop_assert_eq!(&run(&chunks), &whole);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(&run(&single), &whole);
    }
}

/// The requests of the llhttp test-suite, where `HEADWATER_CORPORA` points to a copy: whatever they are, no byte of one
/// may panic, and what that suite calls an error in framing must not become a request here.
#[test]
fn the_llhttp_vectors() {
    let Some(dir) = std::env::var_os("HEADWATER_CORPORA") else { return };
    let dir = std::path::Path::new(&dir).join("http").join("request");
    for name in ["content-length.md", "transfer-encoding.md", "invalid.md", "sample.md", "uri.md"] {
        #[allow(clippy::disallowed_methods)]
        let Ok(text) = std::fs::read_to_string(dir.join(name)) else { continue };
        for case in text.split("\n## ").skip(1) {
            let title = case.lines().next().unwrap_or_default();
            let strict = case.contains("\"type\": \"request\"");
            let Some(http) = case.split("```http\n").nth(1).and_then(|c| c.split("\n```").next()) else {
                continue;
            };
            // The suite's notation: a line's end is CR LF, `\` at its end joins lines, \r \n \t \f stand for themselves.
            let bytes = http
                .replace("\\\n", "")
                .replace('\n', "\r\n")
                .replace("\\r", "\r")
                .replace("\\n", "\n")
                .replace("\\t", "\t")
                .replace("\\f", "\x0c");
            let mut rig = Rig::new();
            let out = rig.receive(bytes.as_bytes());
            let error_in_head = case.contains("error code") && !case.contains("headers complete");
            if strict && error_in_head {
                assert!(requests(&out).is_empty(), "{name}: {title} became a request");
            }
        }
    }
}

fn upgrade(headers: &str) -> Vec<Output> {
    let good = "Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    // A header that is given stands in place of the good one.
    let names: Vec<&str> = headers.lines().filter_map(|l| l.split(':').next()).collect();
    let kept = good.split_inclusive("\r\n").filter(|l| !names.iter().any(|n| l.starts_with(n)));
    let head = format!("GET /live/?id=a HTTP/1.1\r\n{}{headers}\r\n", kept.collect::<String>());
    Rig::new().receive(head.as_bytes())
}

#[test]
fn only_a_handshake_of_the_rfc_becomes_a_websocket() {
    for good in
        ["", "Connection: keep-alive, Upgrade\r\n", "Sec-WebSocket-Extensions: permessage-deflate\r\n"]
    {
        let said = upgrade(good);
        assert!(matches!(&said[..], [Output::Upgrade(r)] if r.path == "/live/"), "{good}: {said:?}");
    }
    for (bad, status) in [
        ("Connection: close\r\n", 400),
        ("Sec-WebSocket-Version: 8\r\n", 426),
        ("Sec-WebSocket-Version: x\r\n", 400),
        ("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n", 400),
        ("Sec-WebSocket-Key: dGhl\r\n", 400),
        ("Sec-WebSocket-Key: *\r\n", 400),
        ("Content-Length: 2\r\n", 400),
    ] {
        let said = upgrade(bad);
        assert!(sent(&said).starts_with(&format!("HTTP/1.1 {status}")), "{bad}: {said:?}");
        assert_eq!(sent(&said).contains("Sec-WebSocket-Version: 13"), status == 426);
    }
}

#[test]
fn a_websocket_takes_what_came_with_its_request_and_answers_in_order() {
    let mut rig = Rig::new();
    let head = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let early = crate::wire::websocket::frame(crate::wire::websocket::Opcode::Text, b"early", Some([9; 4]));
    let said = rig.receive(&[head.as_bytes(), &early].concat());
    assert!(matches!(said[..], [Output::Upgrade(_)]), "{said:?}");
    let said = rig.drive(Input::Accept { subprotocol: Some("token") });
    let Output::Send(head) = &said[0] else { panic!("{said:?}") };
    assert_eq!(
        head,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: \
         s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: token\r\n\r\n"
    );
    assert_eq!(said[1..], [Output::Text("early".to_owned())]);
    assert_eq!(rig.drive(Input::Text("hi")), [Output::Send(Bytes::from_static(b"\x81\x02hi"))]);
    let said = rig.drive(Input::PeerFinished);
    assert!(matches!(&said[0], Output::SocketEnded { code: 1006, .. }), "{said:?}");
    assert!(matches!(&said[1], Output::Closed(r) if r.code == "ws_gone"), "{said:?}");
}

#[test]
fn a_flood_before_the_websocket_is_accepted_is_refused() {
    let mut rig = Rig::new();
    let head = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    rig.receive(head.as_bytes());
    let said = rig.receive(&vec![0; limits().http_pipelined_bytes + 1]);
    assert!(sent(&said).starts_with("HTTP/1.1 400"), "{said:?}");
    assert_eq!(rig.drive(Input::Accept { subprotocol: None }), []);
}
