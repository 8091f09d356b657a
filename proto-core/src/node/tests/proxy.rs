//! The proxy of a manager, with nodes that are played by hand.

use super::*;
use crate::cluster::LinkId;
use crate::cluster::manager::Input as ToManager;
use crate::http::websocket::Side;
use crate::http::websocket::{self, Caps, Channel, code};
use crate::wire::link::{Advertised, Message, NodeInfo, Report};
use crate::wire::websocket::accept_key;
use std::net::SocketAddr;

/// A manager that knows an origin and an edge, and time enough for it to give them out.
fn manager(change: impl FnOnce(&mut Config)) -> Bench {
    let mut bench = Bench::new(|c| {
        c.node.roles = vec![config::Role::Manager];
        change(c);
    });
    for (n, role) in [(1, config::Role::Origin), (2, config::Role::Edge)] {
        register(&mut bench, n, role);
    }
    bench.later(Duration::from_millis(2_100));
    report(&mut bench);
    bench
}

pub(super) fn register(bench: &mut Bench, n: u8, role: config::Role) {
    register_with(bench, n, role, 0);
}

/// As [`register`], a node whose HTTPS on port `https` browsers trust.
fn register_with(bench: &mut Bench, n: u8, role: config::Role, https: u16) {
    let ip = IpAddr::from([10, 0, 0, n]);
    let advertised = Advertised {
        public: ip,
        private: ip,
        name: String::new(),
        http: 5080,
        rtmp: 1935,
        rtmps: 1936,
        rtsp: 8554,
        rtsps: 8555,
        webrtc: 8189,
        link: 5090,
        https,
    };
    let info = NodeInfo {
        id: NodeId(format!("n{n}")),
        instance: u64::from(n),
        version: "1".to_owned(),
        roles: vec![role],
        region: "local".to_owned(),
        advertised,
        capacity_mbps: 1_000,
        highest: Default::default(),
    };
    say(bench, n, Message::Register(Box::new(info)));
}

fn say(bench: &mut Bench, n: u8, message: Message) {
    let now = bench.now;
    let link = LinkId::Conn(ConnId::accepted(900 + u64::from(n)));
    bench.node.manager.as_mut().unwrap().handle(ToManager::Link(link, message), now);
    bench.tell(Input::Tick);
}

/// The nodes report, so that their leases run on. The origin publishes `live/on`.
fn report(bench: &mut Bench) {
    report_as(bench, 1);
    say(bench, 2, Message::Report(Report::default()));
}

/// Node `n` reports that `live/on` is published there.
pub(super) fn report_as(bench: &mut Bench, n: u8) {
    let about = crate::wire::link::StreamFacts::default();
    let key = StreamKey::parse("live/on").unwrap();
    let epoch = crate::cluster::Epoch { term: 1, count: 1 };
    let on = crate::wire::link::StreamReport { key, epoch, silent: false, live: true, viewers: 0, about };
    say(bench, n, Message::Report(Report { streams: vec![on], ..Report::default() }));
}

/// Asks for a websocket at `target` on a connection of its own.
pub(super) fn open(bench: &mut Bench, n: u64, target: &str) -> (ConnId, Vec<Output>) {
    let conn = bench.accept(n, Service::Http);
    let head = format!(
        "GET {target} HTTP/1.1\r\nHost: m\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: \
         13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    (conn, bench.tell(Input::Received { conn, bytes: head.as_bytes() }))
}

fn dials(said: &[Output]) -> Vec<(ConnId, SocketAddr)> {
    let dial = |o: &Output| if let Output::Dial { conn, to } = o { Some((*conn, *to)) } else { None };
    said.iter().filter_map(dial).collect()
}

fn bytes_of(said: &[Output], of: ConnId) -> Vec<u8> {
    let bytes = said.iter().filter_map(|o| match o {
        Output::Send { conn, bytes } if *conn == of => Some(bytes.to_vec()),
        _ => None,
    });
    bytes.flatten().collect()
}

/// The dialled node takes the connection; answers the head of the request that it gets.
fn stands(bench: &mut Bench, (conn, remote): (ConnId, SocketAddr)) -> String {
    let local = "10.0.0.9:40000".parse().unwrap();
    bench.tell(Input::Connected { conn, local, remote });
    let said = bench.tell(Input::Writable { conn, free: 1 << 20 });
    String::from_utf8(bytes_of(&said, conn)).unwrap()
}

/// The node's 101 to a request.
fn switching(head: &str) -> String {
    let key = head.lines().find_map(|l| l.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    format!(
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        accept_key(key)
    )
}

/// The messages and the code of the close frame in what was sent, read as `side` reads.
fn read(bytes: &[u8], side: Side) -> (Vec<String>, Option<u16>) {
    let frames = bytes.windows(4).position(|w| w == b"\r\n\r\n").filter(|_| bytes.starts_with(b"HTTP"));
    let mut channel = Channel::new(side, Default::default(), Caps::new(&Limits::default()), Time::ZERO);
    channel.handle(websocket::Input::Received(&bytes[frames.map_or(0, |at| at + 4)..]), Time::ZERO);
    let (mut texts, mut ended) = (vec![], None);
    while let Some(said) = channel.poll() {
        match said {
            websocket::Output::Text(text) => texts.push(text),
            websocket::Output::Ended { code, .. } => ended = Some(code),
            _ => {}
        }
    }
    (texts, ended)
}

pub(super) fn as_client(said: &[Output], conn: ConnId) -> (Vec<String>, Option<u16>) {
    read(&bytes_of(said, conn), Side::Client(Box::new(crate::rand::Rng::new([0; 32]))))
}

/// What one end sends: a message, or a close frame with a code.
pub(super) fn frames(side: Side, texts: &[&str], close: Option<u16>) -> Vec<u8> {
    let mut channel = Channel::new(side, Default::default(), Caps::new(&Limits::default()), Time::ZERO);
    channel.handle(websocket::Input::Writable(1 << 20), Time::ZERO);
    for text in texts {
        channel.handle(websocket::Input::Text(text), Time::ZERO);
    }
    if let Some(code) = close {
        channel.handle(websocket::Input::Close { code, text: "" }, Time::ZERO);
    }
    let mut out = Vec::new();
    while let Some(websocket::Output::Send(bytes)) = channel.poll() {
        out.extend_from_slice(&bytes);
    }
    out
}

pub(super) fn masked() -> Side {
    Side::Client(Box::new(crate::rand::Rng::new([1; 32])))
}

const EVENT: &str = "/streammanager/api/4.0/event/live";

/// A publisher whose websocket is proxied and open: its connection and the node's.
fn opened(bench: &mut Bench, n: u64) -> (ConnId, ConnId) {
    let asks = bench.accept(500 + n, Service::Http);
    assert!(bench.get(asks, &format!("{EVENT}/s1?action=broadcast")).contains("10.0.0.1"));
    let (conn, said) = open(bench, n, "/streammanager/?id=s1&host=10.0.0.1&app=live&token=x%20y");
    let dialled = dials(&said);
    let head = stands(bench, dialled[0]);
    assert!(head.starts_with("GET /live/?id=s1&host=10.0.0.1&app=live&token=x%20y HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains("Host: 10.0.0.1:5080\r\n") && head.contains("X-Forwarded-For: 192.0.2.1\r\n"),
        "{head}"
    );
    let back = dialled[0].0;
    let said = bench.tell(Input::Received { conn: back, bytes: switching(&head).as_bytes() });
    assert!(text_of(&said, conn).starts_with("HTTP/1.1 101"), "{said:?}");
    assert_eq!(bench.node.verify(), Ok(()));
    (conn, back)
}

#[test]
fn every_spelling_of_a_target_that_was_not_given_out_is_refused() {
    let mut bench = manager(|_| {});
    let asks = bench.accept(1, Service::Http);
    assert!(bench.get(asks, &format!("{EVENT}/s1?action=broadcast")).contains("10.0.0.1"));
    // What is given out for s1 may be spelled in no other way, and be used for nothing else.
    let mut forbidden: Vec<String> = [
        // The manager itself, and this host, in all the ways in which resolvers understand it.
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "127.1",
        "127.0.1",
        "0",
        "0.0.0.0",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.000.000.001",
        "::1",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[::]",
        "127.0.0.1.nip.io",
        "%31%32%37.0.0.1",
        "①②⑦.0.0.1",
        "127。0。0。1",
        // The node that was given out, written otherwise.
        "10.0.0.1:5080",
        "10.0.0.1:22",
        "10.0.0.1:",
        "10.0.0.1.",
        " 10.0.0.1",
        "10.0.0.1 ",
        "10.0.0.1/",
        "10.0.0.1/../x",
        "10.0.0.1#",
        "10.0.0.1?",
        "10.0.0.1%00",
        "10.0.0.1\t",
        "10.0.0.1\r\nX: y",
        "user@10.0.0.1",
        "user:pw@10.0.0.1",
        "10.0.0.1@evil.example",
        "10.0.0.1,10.0.0.2",
        "ws://10.0.0.1",
        "http://10.0.0.1:5080/",
        "//10.0.0.1",
        "\\\\10.0.0.1",
        "10.1",
        "10.0.1",
        "167772161",
        "0x0a000001",
        "012.0.0.1",
        "10.0.0.01",
        "[::ffff:10.0.0.1]",
        "[::ffff:a00:1]",
        "n1",
        "N1",
        // Others: a node that was not given out for this, the metadata of clouds, other networks and names.
        "10.0.0.2",
        "10.0.0.3",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "metadata.google.internal",
        "192.168.0.1",
        "evil.example",
        "[fe80::1%25eth0]",
        "255.255.255.255",
        "224.0.0.1",
    ]
    .map(str::to_owned)
    .to_vec();
    forbidden.push("a".repeat(4_000));
    assert!(forbidden.len() > 60);
    for (n, host) in forbidden.iter().enumerate() {
        let encoded = crate::http::message::encode_percent(host, "");
        for target in [
            format!("/streammanager/?id=s1&host={encoded}&app=live"),
            format!("/as/v1/proxy/ws/publish/live/s1?id=s1&host={encoded}"),
            format!("/as/v1/proxy/ws/subscribe/live/s1?id=s1&host={encoded}"),
        ] {
            let (conn, said) = open(&mut bench, 10 + n as u64, &target);
            assert_eq!(dials(&said), [], "{host}");
            let text = text_of(&said, conn);
            assert!(text.starts_with("HTTP/1.1 403"), "{host}: {text}");
            bench.tell(Input::PeerFinished { conn });
            assert_eq!(bench.node.verify(), Ok(()));
        }
    }
    // What was given out is taken, for that stream and action only.
    for (n, (target, fits)) in [
        ("/streammanager/?id=s1&host=10.0.0.1&app=live", true),
        ("/streammanager/?id=s1&host=10.0.0.1&app=/live", true),
        ("/as/v1/proxy/ws/publish/live/s1?host=10.0.0.1", true),
        ("/as/v1/proxy/ws/subscribe/live/s1?host=10.0.0.1", false),
        ("/as/v1/proxy/ws/publish/live/s2?host=10.0.0.1", false),
        ("/streammanager/?id=s2&host=10.0.0.1&app=live", false),
        ("/streammanager/?id=s1&host=10.0.0.1&app=other", false),
    ]
    .into_iter()
    .enumerate()
    {
        let (_, said) = open(&mut bench, 200 + n as u64, target);
        let to: Vec<SocketAddr> = dials(&said).into_iter().map(|(_, to)| to).collect();
        let wanted = if fits { vec!["10.0.0.1:5080".parse().unwrap()] } else { vec![] };
        assert_eq!(to, wanted, "{target}");
    }
    // And not for ever.
    for _ in 0..60 {
        bench.later(Duration::from_secs(1));
        report(&mut bench);
    }
    let (conn, said) = open(&mut bench, 300, "/streammanager/?id=s1&host=10.0.0.1&app=live");
    assert!(dials(&said).is_empty() && text_of(&said, conn).starts_with("HTTP/1.1 403"));
}

#[test]
fn messages_pass_both_ways_and_the_close_of_one_side_is_the_others() {
    let mut bench = manager(|_| {});
    let (conn, back) = opened(&mut bench, 1);
    let texts = ["{\"isAvailable\":\"s1\",\"bundle\":true}", "{\"publish\":\"s1\"}"];
    let said = bench.tell(Input::Received { conn, bytes: &frames(masked(), &texts, None) });
    assert_eq!(read(&bytes_of(&said, back), Side::Server).0, texts);
    let said = bench.tell(Input::Received { conn: back, bytes: &frames(Side::Server, &["{}", "ü"], None) });
    assert_eq!(as_client(&said, conn).0, ["{}", "ü"]);
    // The client closes without a code, as browsers do.
    let said = bench.tell(Input::Received { conn, bytes: &frames(masked(), &[], Some(code::NONE)) });
    assert_eq!(read(&bytes_of(&said, back), Side::Server), (vec![], Some(code::NONE)));
    let said =
        bench.tell(Input::Received { conn: back, bytes: &frames(Side::Server, &[], Some(code::NONE)) });
    assert!(closed(&said, back), "{said:?}");
    assert!(!bench.node.conns.contains_key(&conn) && bench.node.proxy.len() == 0);

    let (conn, back) = opened(&mut bench, 2);
    let said = bench.tell(Input::Received { conn: back, bytes: &frames(Side::Server, &["bye"], Some(1001)) });
    assert_eq!(as_client(&said, conn), (vec!["bye".to_owned()], Some(1001)));
    assert_eq!(bench.node.proxy.len(), 0);

    let (conn, back) = opened(&mut bench, 3);
    let said = bench.tell(Input::Closed { conn, reason: Reason::peer("reset", "reset") });
    assert_eq!(read(&bytes_of(&said, back), Side::Server).1, Some(code::GOING_AWAY));
    assert_eq!(bench.node.verify(), Ok(()));
}

#[test]
fn a_node_that_dies_or_falls_silent_is_told_to_the_client_at_once() {
    let mut bench = manager(|_| {});
    let (conn, back) = opened(&mut bench, 1);
    let said = bench.tell(Input::Closed { conn: back, reason: Reason::peer("reset", "the peer reset it") });
    let (texts, ended) = as_client(&said, conn);
    assert!(texts[0].contains("\"type\":\"error\"") && texts[0].contains("message"), "{texts:?}");
    assert_eq!(ended, Some(code::BAD_GATEWAY));

    // Silence: within the lease and a second.
    let (conn, _) = opened(&mut bench, 2);
    let mut said = Vec::new();
    for _ in 0..16 {
        said.extend(bench.later(Duration::from_millis(250)));
    }
    let (texts, ended) = as_client(&said, conn);
    assert!(texts[0].contains("no longer heard of"), "{texts:?}");
    assert_eq!((ended, bench.node.proxy.len()), (Some(code::BAD_GATEWAY), 0));
    assert_eq!(bench.node.verify(), Ok(()));
}

#[test]
fn a_node_that_does_not_answer_as_it_should_is_a_failed_connection() {
    for (answer, wait) in [
        (Some("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), 0),
        (Some("HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1/\r\n\r\n"), 0),
        (
            Some(
                "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
            ),
            0,
        ),
        (None, 5_000),
    ] {
        let mut bench = manager(|_| {});
        let asks = bench.accept(1, Service::Http);
        bench.get(asks, &format!("{EVENT}/s1?action=broadcast"));
        let (conn, mut said) = open(&mut bench, 2, "/streammanager/?id=s1&host=10.0.0.1&app=live");
        let dialled = dials(&said)[0];
        if let Some(answer) = answer {
            stands(&mut bench, dialled);
            said = bench.tell(Input::Received { conn: dialled.0, bytes: answer.as_bytes() });
        }
        for _ in 0..wait / 250 {
            report(&mut bench);
            said.extend(bench.later(Duration::from_millis(250)));
        }
        let (texts, ended) = as_client(&said, conn);
        assert_eq!(
            texts,
            ["{\"data\":{\"code\":\"NetConnection.Connect.Failed\",\"type\":\"error\"}}"],
            "{answer:?}"
        );
        assert!(ended.is_some());
        assert!(closed(&said, dialled.0), "the node's connection is closed");
        assert_eq!(bench.node.verify(), Ok(()));
    }
}

#[test]
fn without_a_host_the_manager_chooses_and_where_there_is_none_it_says_so() {
    let mut bench = manager(|_| {});
    for (n, (target, to)) in [
        ("/streammanager/?id=s1&app=live", Some("10.0.0.1:5080")),
        ("/as/v1/proxy/ws/publish/live/s2?nodeGroup=default", Some("10.0.0.1:5080")),
        ("/as/v1/proxy/ws/subscribe/live/on?nodeGroup=default", Some("10.0.0.2:5080")),
        ("/as/v1/proxy/ws/subscribe/live/off?nodeGroup=default", None),
    ]
    .into_iter()
    .enumerate()
    {
        let (conn, said) = open(&mut bench, 1 + n as u64, target);
        let got = dials(&said).first().map(|(_, to)| *to);
        assert_eq!(got, to.map(|to| to.parse().unwrap()), "{target}");
        if to.is_none() {
            assert!(as_client(&said, conn).0[0].contains("NetConnection.Connect.Failed"), "{said:?}");
        }
    }
    let (conn, said) = open(&mut bench, 9, "/streammanager/?id=subscriber-4a3f&app=live");
    assert!(text_of(&said, conn).starts_with("HTTP/1.1 400"), "{said:?}");
}

#[test]
fn a_node_in_the_same_process_is_never_dialled() {
    let mut bench = Bench::new(|_| {});
    bench.later(Duration::from_millis(2_100));
    let (conn, said) = open(&mut bench, 1, "/streammanager/?id=s1&app=live");
    assert_eq!(dials(&said), []);
    // Its own websockets answer, whatever they say.
    assert!(text_of(&said, conn).starts_with("HTTP/1.1 "), "{said:?}");
    assert_eq!((bench.node.proxy.len(), bench.node.verify()), (0, Ok(())));
    // Nor is a node that registers with this manager's address.
    let mut bench = manager(|c| c.bind = "10.0.0.1".parse().unwrap());
    let (conn, said) = open(&mut bench, 1, "/streammanager/?id=s1&app=live");
    assert_eq!(dials(&said), []);
    assert!(as_client(&said, conn).0[0].contains("Failed"), "{said:?}");
}

#[test]
fn limits_are_kept_and_operators_see_and_end_what_runs() {
    let mut bench = manager(|c| c.limits.proxy_per_ip = 2);
    let (conn, back) = opened(&mut bench, 1);
    let (_, said) = open(&mut bench, 2, "/streammanager/?id=s3&app=live");
    assert_eq!(dials(&said).len(), 1);
    let (third, said) = open(&mut bench, 3, "/streammanager/?id=s4&app=live");
    assert!(text_of(&said, third).starts_with("HTTP/1.1 429"), "{said:?}");

    let asks = bench.accept(4, Service::Http);
    let listed = bench.get(asks, "/api/v1/proxies");
    assert!(
        listed.contains("\"id\":\"proxy-1\"") && listed.contains("\"target\":\"10.0.0.1:5080\""),
        "{listed}"
    );
    // In both generations of the dialect.
    for list in ["/streammanager/api/4.0/admin/proxy/clients", "/as/v1/admin/rtcproxy"] {
        let listed = bench.get(asks, list);
        for part in [
            "\"id\":\"proxy-1\",\"targetPort\":5080,\"targetHost\":\"10.0.0.1\",\"targetApp\":\"/live\"",
            "\"clientConnected\":true,\"proxyConnected\":true,\"clientUserAgent\":\"\"",
            "\"clientAddress\":\"192.0.2.1\",\"secureClient\":false,\"creationTime\":",
        ] {
            assert!(listed.contains(part), "{listed}");
        }
    }
    let one = bench.get(asks, "/streammanager/api/4.0/admin/proxy/clients/proxy-1");
    assert!(one.contains("{\"id\":\"proxy-1\""), "{one}");
    let absent = bench.get(asks, "/streammanager/api/4.0/admin/proxy/clients/proxy-9");
    assert!(absent.starts_with("HTTP/1.1 404") && absent.contains("errorMessage"), "{absent}");
    for kick in ["/streammanager/api/4.0/admin/proxy/clients/proxy-1", "/as/v1/admin/rtcproxy/proxy-1"] {
        let kick = format!("DELETE {kick} HTTP/1.1\r\nHost: m\r\n\r\n");
        let said = bench.tell(Input::Received { conn: asks, bytes: kick.as_bytes() });
        assert!(text_of(&said, asks).starts_with("HTTP/1.1 403"), "not from elsewhere: {said:?}");
    }
    assert!(bench.node.kick_proxy("proxy-1") && !bench.node.kick_proxy("proxy-1"));
    let said = bench.tell(Input::Tick);
    assert_eq!(as_client(&said, conn).1, Some(code::POLICY));
    assert_eq!(read(&bytes_of(&said, back), Side::Server).1, Some(code::GOING_AWAY));
    assert_eq!((bench.node.proxy.len(), bench.node.verify()), (1, Ok(())));
}

#[test]
fn who_does_not_read_stops_the_other_side_and_grows_no_queue() {
    let mut bench = manager(|_| {});
    let (conn, back) = opened(&mut bench, 1);
    bench.tell(Input::Writable { conn, free: 0 });
    let long = "x".repeat(60_000);
    let reading = |said: &[Output], of: ConnId| {
        said.iter().rev().find_map(|o| match o {
            Output::Reading { conn, on } if *conn == of => Some(*on),
            _ => None,
        })
    };
    let mut stopped = 0;
    for n in 1.. {
        let said = bench.tell(Input::Received { conn: back, bytes: &frames(Side::Server, &[&long], None) });
        if reading(&said, back) == Some(false) {
            stopped = n;
            break;
        }
    }
    assert_eq!(stopped, 3, "reading stops at half of the queue");
    // One turn's bytes may be on their way already.
    bench.tell(Input::Received { conn: back, bytes: &frames(Side::Server, &[&long], None) });
    assert_eq!(bench.node.verify(), Ok(()));
    let said = bench.tell(Input::Writable { conn, free: 1 << 20 });
    assert_eq!((reading(&said, back), as_client(&said, conn).0.len()), (Some(true), 4));
}

#[test]
fn pages_of_other_origins_are_kept_out_where_origins_are_named() {
    let mut bench = Bench::new(|c| c.http.origins = vec!["https://ours.example".to_owned()]);
    for (n, (origin, status)) in [
        ("Origin: https://theirs.example\r\n", "403"),
        ("Origin: null\r\n", "403"),
        ("", "404"),
        ("Origin: HTTPS://ours.example\r\n", "404"),
    ]
    .into_iter()
    .enumerate()
    {
        let conn = bench.accept(n as u64, Service::Http);
        let head = format!(
            "GET /nothing HTTP/1.1\r\nHost: m\r\n{origin}Upgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let said = bench.tell(Input::Received { conn, bytes: head.as_bytes() });
        assert!(text_of(&said, conn).starts_with(&format!("HTTP/1.1 {status}")), "{origin}: {said:?}");
    }
}

/// A request with a body on a connection of its own.
fn request(
    bench: &mut Bench,
    n: u64,
    method: &str,
    target: &str,
    more: &str,
    body: &str,
) -> (ConnId, Vec<Output>) {
    let conn = bench.accept(n, Service::Http);
    let length = body.len();
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: m\r\n{more}Content-Length: {length}\r\n\r\n{body}");
    (conn, bench.tell(Input::Received { conn, bytes: head.as_bytes() }))
}

#[test]
fn whip_and_whep_are_carried_to_their_node_and_back() {
    let mut bench = manager(|_| {});
    let sdp = "Content-Type: application/sdp\r\n";
    // A client of the dialect asks first; what it is told is where it may go.
    let (conn, said) =
        request(&mut bench, 1, "OPTIONS", "/as/v1/proxy/whip/live/s1?signal=true&nodeGroup=default", "", "");
    let dialled = dials(&said)[0];
    assert_eq!(dialled.1, "10.0.0.1:5080".parse().unwrap());
    let head = stands(&mut bench, dialled);
    assert!(
        head.starts_with("OPTIONS /live/whip/endpoint/s1?signal=true&nodeGroup=default HTTP/1.1\r\n"),
        "{head}"
    );
    let answer = "HTTP/1.1 204 No Content\r\nLink: <stun:10.0.0.1:8189>; rel=\"ice-server\"\r\n\r\n";
    let said = bench.tell(Input::Received { conn: dialled.0, bytes: answer.as_bytes() });
    let text = text_of(&said, conn).to_lowercase();
    assert!(
        text.contains("204") && text.contains("session-host: 10.0.0.1\r\n") && text.contains("link: <stun"),
        "{text}"
    );
    assert!(text.contains("access-control-allow-origin: *"), "{text}");
    assert!(closed(&said, dialled.0));

    let (conn, said) =
        request(&mut bench, 2, "POST", "/as/v1/proxy/whip/live/s1?signal=true&host=10.0.0.1", sdp, "v=0\r\n");
    let dialled = dials(&said)[0];
    let head = stands(&mut bench, dialled);
    assert!(
        head.starts_with("POST /live/whip/endpoint/s1?signal=true&host=10.0.0.1 ")
            && head.ends_with("v=0\r\n"),
        "{head}"
    );
    let answer = "HTTP/1.1 201 Created\r\nLocation: /live/whip/resource/Secret1\r\nContent-Type: application/sdp\r\n\
                  Content-Length: 5\r\n\r\nv=1\r\n";
    let said = bench.tell(Input::Received { conn: dialled.0, bytes: answer.as_bytes() });
    let text = text_of(&said, conn);
    assert!(
        text.contains("Location: /as/v1/proxy/to/n1/live/whip/resource/Secret1\r\n")
            || text.contains("location: /as/v1/proxy/to/n1/live/whip/resource/Secret1\r\n"),
        "{text}"
    );
    assert!(text.ends_with("v=1\r\n"), "{text}");

    let (conn, said) = request(
        &mut bench,
        3,
        "DELETE",
        "/as/v1/proxy/to/n1/live/whip/resource/Secret1?host=10.0.0.1",
        "",
        "",
    );
    let dialled = dials(&said)[0];
    let head = stands(&mut bench, dialled);
    assert!(head.starts_with("DELETE /live/whip/resource/Secret1?host=10.0.0.1 "), "{head}");
    let said =
        bench.tell(Input::Closed { conn: dialled.0, reason: Reason::peer("reset", "the peer reset it") });
    assert!(text_of(&said, conn).starts_with("HTTP/1.1 503"), "{said:?}");

    // A plain client is carried to the standard endpoint.
    let (_, said) = request(&mut bench, 4, "POST", "/as/v1/proxy/whep/live/on", sdp, "v=0\r\n");
    let dialled = dials(&said)[0];
    assert_eq!(dialled.1, "10.0.0.2:5080".parse().unwrap());
    assert!(stands(&mut bench, dialled).starts_with("POST /whep/live/on HTTP/1.1\r\n"));
    assert_eq!(bench.node.verify(), Ok(()));

    for (target, status) in [
        ("/as/v1/proxy/whip/live/s1?host=127.0.0.1", "403"),
        ("/as/v1/proxy/whep/live/s1?host=10.0.0.1", "403"),
        ("/as/v1/proxy/whep/live/off", "404"),
        ("/as/v1/proxy/whip/nothing", "404"),
    ] {
        let (conn, said) = request(&mut bench, 20, "POST", target, sdp, "v=0\r\n");
        assert_eq!(dials(&said), [], "{target}");
        assert!(text_of(&said, conn).starts_with(&format!("HTTP/1.1 {status}")), "{target}: {said:?}");
        bench.tell(Input::Closed { conn, reason: Reason::peer("reset", "") });
    }
    let (conn, said) = request(&mut bench, 21, "DELETE", "/as/v1/proxy/to/n9/whip-session/a", "", "");
    assert!(dials(&said).is_empty() && text_of(&said, conn).starts_with("HTTP/1.1 404"), "{said:?}");

    // Whoever leaves takes its request along.
    let (conn, said) = request(&mut bench, 22, "POST", "/as/v1/proxy/whip/live/s7", sdp, "v=0\r\n");
    let dialled = dials(&said)[0];
    let said = bench.tell(Input::Closed { conn, reason: Reason::peer("reset", "") });
    assert!(closed(&said, dialled.0));
    assert_eq!(bench.node.verify(), Ok(()));
}

#[test]
fn who_asks_over_tls_is_answered_with_secure_addresses() {
    let mut bench = manager(|_| {});
    register_with(&mut bench, 3, config::Role::Edge, 8443);
    let conn = bench.accept(1, Service::Http);
    let mut ask = |path: &str, more: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: sm.example\r\n{more}\r\n");
        let said = bench.tell(Input::Received { conn, bytes: head.as_bytes() });
        let text = text_of(&said, conn);
        let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
        serde_json::from_str::<serde_json::Value>(body).unwrap_or_else(|e| panic!("{e}: {text}"))
    };
    // A TLS proxy of the operator's says so; without it the answer is as it was.
    let secure = "X-Forwarded-Proto: https\r\n";
    for (path, at) in [
        (format!("{EVENT}/new?action=broadcast"), None),
        ("/as/v1/streams/stream/default/publish/live/new".to_owned(), Some(0)),
    ] {
        let urls = |answer: serde_json::Value| match at {
            None => answer["urls"].clone(),
            Some(n) => answer[n]["urls"].clone(),
        };
        let plain = urls(ask(&path, ""));
        assert_eq!(plain["whip"], "http://10.0.0.1:5080/whip/live/new");
        assert_eq!(plain["ws"], "ws://10.0.0.1:5080/live/");
        let through = urls(ask(&path, secure));
        assert_eq!(through["whip"], "https://sm.example/as/v1/proxy/whip/live/new?host=10.0.0.1");
        assert_eq!(through["ws"], "wss://sm.example/as/v1/proxy/ws/publish/live/new?host=10.0.0.1");
        assert_eq!(through["publish"], "https://sm.example/publish/live/new");
    }
    let both = ask(&format!("{EVENT}/on?action=subscribe&endpoints=2"), secure);
    let of = |host: &str| both.as_array().unwrap().iter().find(|n| n["serverAddress"] == host).unwrap();
    let through = &of("10.0.0.2")["urls"];
    assert_eq!(through["ws"], "wss://sm.example/as/v1/proxy/ws/subscribe/live/on?host=10.0.0.2");
    // A node with a certificate that browsers trust needs nobody between.
    let direct = &of("10.0.0.3")["urls"];
    assert_eq!(direct["whep"], "https://10.0.0.3:8443/whep/live/on");
    assert_eq!(direct["ws"], "wss://10.0.0.3:8443/live/");
    let odd = "X-Forwarded-Proto: https\r\nX-Note: \r\n";
    assert_eq!(ask(&format!("{EVENT}/on?action=subscribe"), odd)["name"], "on");
}

#[test]
fn a_node_that_went_after_it_was_given_out_is_told_of_in_words() {
    let mut bench = manager(|_| {});
    let asks = bench.accept(1, Service::Http);
    assert!(bench.get(asks, &format!("{EVENT}/s1?action=broadcast")).contains("10.0.0.1"));
    bench.later(Duration::from_millis(bench.node.limits.lease_ms + 100));
    let (conn, said) = open(&mut bench, 2, "/as/v1/proxy/ws/publish/live/s1?id=s1&host=10.0.0.1");
    let (texts, ended) = as_client(&said, conn);
    assert!(texts.len() == 1 && texts[0].contains("NetConnection.Connect.Failed"), "{said:?}");
    assert_eq!(ended, Some(code::TRY_AGAIN));
    let post = "POST /as/v1/proxy/whip/live/s1?host=10.0.0.1 HTTP/1.1\r\nHost: m\r\nContent-Type: \
                application/sdp\r\nContent-Length: 3\r\n\r\nv=0";
    let said = bench.tell(Input::Received { conn: asks, bytes: post.as_bytes() });
    assert!(text_of(&said, asks).starts_with("HTTP/1.1 503"), "{said:?}");
    assert_eq!(bench.node.verify(), Ok(()));
}
