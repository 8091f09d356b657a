//! One node by itself: what it costs when idle, and what it says to malformed input.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::cluster::{Net, Node, turn};
use headwater_tests::interop::ffmpeg::{self, Clip, Ffmpeg};
use headwater_tests::interop::http::{self, Answer};
use headwater_tests::interop::wait;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(30);

fn whole() -> Node {
    let mut node = Node::start("n1", "manager,origin,edge", Net::fresh().host(1), None, &[]);
    node.wait_http("/readyz");
    node
}

fn dial(node: &Node, port: u16) -> TcpStream {
    let stream = TcpStream::connect(SocketAddr::new(node.ip.into(), port)).expect("the port is open");
    stream.set_read_timeout(Some(LONG)).expect("a timeout can be set");
    stream
}

/// What a server says to these bytes until it closes. A reset also ends it.
fn say(node: &Node, port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = dial(node, port);
    // The server may refuse before it has read all.
    drop(stream.write_all(bytes));
    let mut heard = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return heard,
            Ok(n) => heard.extend_from_slice(&piece[..n]),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                panic!("port {port} neither answers nor closes after {} bytes", bytes.len())
            }
            Err(_) => return heard,
        }
    }
}

#[test]
fn an_idle_daemon_costs_next_to_nothing() {
    let _turn = turn();
    let node = whole();
    // Starting is not idling.
    let (mut since, mut before) = (Instant::now(), node.sleeps());
    wait::until("the daemon to come to rest", LONG, || {
        if since.elapsed() < Duration::from_secs(1) {
            return Err("no second has passed yet".to_owned());
        }
        let count = node.sleeps() - before;
        (since, before) = (Instant::now(), node.sleeps());
        wait::yes(count < 6, format!("it woke {count} times in a second"))
    });
    let (began, before) = (Instant::now(), node.sleeps());
    wait::until("ten seconds to pass", LONG, || {
        wait::yes(began.elapsed() >= Duration::from_secs(10), "not yet")
    });
    let (count, past) = (node.sleeps() - before, began.elapsed());
    assert!(count > 0 && count < 4 * (past.as_secs() + 1), "it woke {count} times in {past:?}");
    let resident = node.resident_kib();
    assert!(resident < 30 << 10, "{resident} KiB resident");
}

#[test]
fn malformed_http_gets_400_in_words_and_the_node_serves_on() {
    let _turn = turn();
    let mut node = whole();
    for bad in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon here\r\n\r\n",
        b"POST /whip/live/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /whip/live/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ] {
        let heard = say(&node, 5080, bad);
        let text = String::from_utf8_lossy(&heard);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{bad:?} got {text:?}"));
        assert!(head.starts_with("HTTP/1.1 400 "), "{bad:?} got {text}");
        assert!(body.trim().len() > 15, "{bad:?} got no words: {text}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    let heard = say(&node, 5080, long.as_bytes());
    assert!(heard.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&heard));
    node.wait_http("/healthz");
}

#[test]
fn a_malformed_offer_gets_400_and_a_stream_that_is_not_there_404_both_in_words() {
    let _turn = turn();
    let node = whole();
    let post = |path: &str, kind: &str, body: &str| -> Answer {
        http::post(&node.url(path), kind, body, LONG).unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    for path in ["/whip/live/x", "/whep/live/x"] {
        for body in ["", "this is no SDP", "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video\r\n"] {
            let from = node.log.mark();
            let got = post(path, "application/sdp", body);
            assert_eq!(got.status, 400, "{path} {body:?}: {got:?}");
            assert!(got.body.trim().len() > 15, "{path} {body:?} got no words: {got:?}");
            node.wait_log(from, LONG, &["400"]);
        }
        assert_eq!(post(path, "text/plain", "v=0").status, 415);
    }
    let names = node.url("/streammanager/api/4.0/event/live/nobody?action=subscribe");
    let got = http::get(&names).expect("the manager answers");
    assert!(matches!(got.status, 400 | 404), "{got:?}");
    assert!(got.json().is_ok_and(|j| j["errorMessage"].as_str().is_some_and(|w| w.len() > 10)), "{got:?}");
}

#[test]
fn garbage_on_the_rtmp_port_is_closed_with_a_log_line() {
    let _turn = turn();
    let mut node = whole();
    for bad in [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), vec![0xff; 4000], {
        // A sound version byte and a whole handshake, then a message that breaks every limit.
        let mut bytes = vec![3];
        bytes.extend([0; 1536 + 1536]);
        bytes.extend([0xff; 4096]);
        bytes
    }] {
        let from = node.log.mark();
        say(&node, 1935, &bad);
        node.wait_log(from, LONG, &["rtmp"]);
    }
    node.wait_http("/healthz");
}

#[test]
fn a_busy_port_names_the_port_and_the_key_that_sets_it() {
    let _turn = turn();
    let first = whole();
    let mut second = Node::start("n2", "manager,origin,edge", first.ip, None, &[]);
    let status = second.wait_exit(LONG);
    assert!(status.code().is_some_and(|c| c == 1 || c == 2), "{status}");
    let said = second.log.tail(20);
    assert!(said.contains("in use") && said.contains("port"), "{said}");
}

#[test]
fn nodes_at_one_address_have_ports_of_their_own() {
    let _turn = turn();
    let ip = Net::fresh().host(1);
    let mut node = Node::start("n1", "manager,origin", ip, None, &[]);
    node.wait_http("/readyz");
    let _edge = Node::start("e1", "edge", ip, Some(ip), &["--port-offset", "200"]);
    let place = || {
        let path = "/streammanager/api/4.0/event/live/cores?action=subscribe";
        let place = http::get(&node.url(path))?.ok_json()?;
        let url = |protocol: &str| place["urls"][protocol].as_str().unwrap_or_default().to_owned();
        wait::yes(url("rtmp").contains(":2135/"), place.to_string()).map(|()| [url("rtmp"), url("rtsp")])
    };
    let _publisher = Ffmpeg::publish(&node.rtmp("live/cores"), Clip::default());
    for url in wait::until("an edge at another port", LONG, place) {
        let seen = wait::until(&format!("a picture from {url}"), LONG, || ffmpeg::probe(&url));
        assert_eq!(seen["streams"][0]["codec_name"], "h264", "{seen}");
    }
}

#[test]
fn sigterm_ends_an_idle_node_at_once_with_code_0() {
    let _turn = turn();
    let mut node = whole();
    node.signal("TERM");
    let status = node.wait_exit(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{}", node.log.tail(20));
}

#[test]
fn metrics_name_what_they_count() {
    let _turn = turn();
    let node = whole();
    let got = http::get(&node.url("/metrics")).expect("/metrics answers");
    assert_eq!(got.status, 200);
    assert!(got.body.contains("# HELP ") && got.body.contains("# TYPE "), "{}", got.body);
}
