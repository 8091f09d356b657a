//! What a peer that has shown no right can make a node do: hold a bounded number of bytes for each connection, and answer
//! no datagram with more bytes than it brought. The node is a real one, driven by hand; what is sent are the fuzz targets'
//! seeds, what the misbehaving peers of the simulator send, and noise.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::Bytes;
use determinism::os::count::{Counting, count, counted, from_here};
use determinism::{crypto, os};
use headwater_tests::world::actors::evil::{Evil, Transcript, quic, transcripts};
use headwater_tests::world::tls as client_tls;
use proto_core::auth::Action;
use proto_core::auth::config::RuleConfig;
use proto_core::error::Reason;
use proto_core::io::{ConnId, Input, Level, Output, Service, SocketId};
use proto_core::machine::Machine;
use proto_core::node::Node;
use proto_core::node::config::{Config, LinkTransport};
use proto_core::node::identity::Identity;
use proto_core::rand::Rng;
use proto_core::time::{Time, WallTime};
use proto_core::{rtc, tls};
use quinn_proto::{Connection, ConnectionHandle, DatagramEvent, Dir};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a connection may hold at most before its peer has shown a right (docs/abuse.md).
const PLAIN: i64 = 32 << 10;
const HTTP: i64 = 96 << 10;
/// The same of a QUIC connection on the nodes' port.
const QUIC: i64 = 96 << 10;

/// A node that lets nobody in, and what its driver would hold.
struct Bench {
    node: Node,
    now: Time,
    sockets: Vec<(SocketId, SocketAddr)>,
    /// Bytes for a peer that does not read.
    queue: VecDeque<Bytes>,
    held: usize,
    write_buffer: usize,
    deaf: bool,
    closed: bool,
    answered: Vec<(SocketAddr, Vec<u8>)>,
    accepted: u64,
    errors: Vec<String>,
}

fn identity() -> Identity {
    let certificate = || crypto::certificate([3; 32]).expect("a certificate can be made");
    let other = crypto::str0m_provider(crypto::dtls_provider().expect("the library is sound"));
    let rtc = rtc::Identity::with_crypto(certificate(), crypto::dimpl_provider(), other);
    let own = certificate();
    let tls = tls::Identity::new(
        Arc::new(crypto::tls_provider()),
        own.certificate.clone(),
        own.private_key.clone(),
    );
    Identity { rtc: rtc.expect("the library is sound"), tls: Some(tls) }
}

impl Bench {
    fn new(change: impl FnOnce(&mut Config)) -> Bench {
        let mut config = Config { bind: "192.0.2.1".parse().expect("an address"), ..Config::default() };
        config.node.name = "n".to_owned();
        config.cluster.transport = LinkTransport::Quic;
        let nobody = |action| RuleConfig { action, streams: Vec::new(), who: vec!["tokens".to_owned()] };
        config.auth.rules = [Action::Publish, Action::Play, Action::Api].map(nobody).to_vec();
        change(&mut config);
        let write_buffer = config.limits.conn_idle_write_bytes;
        let node =
            Node::new(config, [7; 32], Instant::now(), identity()).expect("the configuration is right");
        let mut bench = Bench {
            node,
            now: Time::ZERO,
            sockets: Vec::new(),
            queue: VecDeque::new(),
            held: 0,
            write_buffer,
            deaf: false,
            closed: true,
            answered: Vec::new(),
            accepted: 0,
            errors: Vec::new(),
        };
        bench.tell(Input::WallClock(WallTime(1_700_000_000_000_000_000)));
        bench.tell(Input::HostAddresses(&["192.0.2.1".parse().expect("an address")]));
        bench.later(5_000);
        bench
    }

    fn tell(&mut self, input: Input<'_>) {
        let now = self.now;
        let node = &mut self.node;
        counted(|| node.handle(input, now));
        while let Some(output) = counted(|| self.node.poll()) {
            match output {
                Output::OpenUdp { socket, bind } => {
                    self.sockets.push((socket, bind));
                    self.node.handle(Input::UdpOpened { socket, local: bind, max_segments: 1 }, now);
                }
                Output::Send { bytes, .. } => {
                    self.held += bytes.len();
                    counted(|| self.queue.push_back(bytes));
                }
                Output::Close { .. } => self.closed = true,
                Output::LetIn { .. } => self.errors.push("a stranger was let in".to_owned()),
                Output::Datagrams(batch) => {
                    for t in &batch.items {
                        self.answered.push((t.dst, batch.buf[t.start..t.start + t.len].to_vec()));
                    }
                    counted(|| self.node.handle(Input::Sent { batch, refused: 0 }, now));
                }
                Output::Log(line) if line.level == Level::Error => self.errors.push(line.text),
                // It was made inside.
                other => counted(|| drop(other)),
            }
        }
        if !self.deaf {
            self.held = 0;
            counted(|| self.queue = VecDeque::new());
        }
    }

    fn later(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        while let Some(due) = self.node.deadline().filter(|d| d.at <= until) {
            self.now = self.now.max(due.at);
            self.tell(Input::Tick);
        }
        self.now = until;
    }

    fn accept(&mut self, service: Service) -> ConnId {
        self.accepted += 1;
        let conn = ConnId::accepted(self.accepted);
        let (local, remote) =
            ("192.0.2.1:80".parse().expect("an address"), "198.51.100.9:4000".parse().expect("an address"));
        self.closed = false;
        self.tell(Input::Accepted { conn, service, local, remote });
        self.room(conn);
        conn
    }

    fn room(&mut self, conn: ConnId) {
        if !self.closed {
            let free = self.write_buffer.saturating_sub(self.held);
            self.tell(Input::Writable { conn, free });
        }
    }

    fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        if !self.closed {
            self.tell(Input::Received { conn, bytes });
            self.room(conn);
        }
    }

    /// The peer goes, and what it left is gone too.
    fn leave(&mut self, conn: ConnId) {
        if !self.closed {
            self.tell(Input::Closed { conn, reason: Reason::peer("reset", "reset") });
        }
        (self.held, self.closed) = (0, true);
        counted(|| self.queue = VecDeque::new());
        self.later(1_100);
    }

    /// The most bytes that there were for a connection that sends `pieces`, cut into so many bytes at most.
    /// The lesser of two runs: where a table of the node itself grew, that is not the connection's, and the second run finds
    /// it grown.
    fn peak(&mut self, service: Service, pieces: &[Bytes], cut: usize, deaf: bool) -> i64 {
        let once = |b: &mut Bench| b.peak_once(service, pieces, cut, deaf);
        once(self).min(once(self))
    }

    fn peak_once(&mut self, service: Service, pieces: &[Bytes], cut: usize, deaf: bool) -> i64 {
        self.deaf = deaf;
        let before = from_here().live;
        let conn = self.accept(service);
        for piece in pieces.iter().flat_map(|p| p.chunks(cut)) {
            self.send(conn, piece);
        }
        self.later(50);
        let peak = count().peak - before;
        self.leave(conn);
        peak
    }
}

fn seeds(of: &[&str]) -> Vec<(String, Vec<u8>)> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    let mut found = Vec::new();
    for name in of {
        let mut files: Vec<_> = std::fs::read_dir(all.join(name))
            .unwrap_or_else(|e| panic!("seeds of {name}: {e}"))
            .map(|f| f.expect("a file").path())
            .collect();
        files.sort();
        found.extend(files.into_iter().map(|f| {
            let bytes = std::fs::read(&f).expect("a seed can be read");
            (format!("seed {name}/{}", f.file_name().unwrap_or_default().to_string_lossy()), bytes)
        }));
    }
    assert!(!found.is_empty(), "there are seeds of {of:?}");
    found
}

fn noise(rng: &mut Rng, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    rng.fill(&mut out);
    out
}

/// What misbehaving peers send to ports of a service.
fn abuses(service: Service, rng: &mut Rng) -> Vec<(String, Vec<Bytes>)> {
    let mut all = Vec::new();
    for kind in Evil::ALL {
        for (n, transcript) in transcripts(*kind, rng, 12).into_iter().enumerate() {
            if let Transcript::Stream(to, pieces) = transcript
                && to == service
            {
                all.push((format!("{kind:?} {n}"), pieces));
            }
        }
    }
    assert!(all.len() > 12, "there are abuses of {service:?}");
    all
}

fn upgrade() -> Vec<u8> {
    b"GET /live/?id=x HTTP/1.1\r\nHost: n\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec()
}

/// A chunk of an RTMP message that announces `len` bytes and holds the first of them (128 at most).
fn chunk(csid: u8, kind: u8, len: usize, payload: &[u8]) -> Vec<u8> {
    let long = [&(len as u32).to_be_bytes()[1..], &[kind, 0, 0, 0, 0]].concat();
    [&[csid, 0, 0, 0][..], &long, payload].concat()
}

/// A whole RTMP command (Adobe AMF0), of less than 128 bytes.
fn command(name: &str, app_or_name: &str) -> Vec<u8> {
    let text = |t: &str| [&[2][..], &(t.len() as u16).to_be_bytes(), t.as_bytes()].concat();
    let mut payload = [text(name), vec![0, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0]].concat();
    if name == "connect" {
        payload.extend([&[3, 0, 3][..], b"app", &text(app_or_name), &[0, 0, 9]].concat());
    } else {
        payload.push(5);
        payload.extend(text(app_or_name));
    }
    chunk(3, 20, payload.len(), &payload)
}

/// What is made to be kept: as much as the limits of a service let in, in the shape that takes the most memory.
fn greedy(service: Service) -> Vec<(String, Vec<Bytes>)> {
    let mut all = Vec::new();
    let mut add = |name: &str, pieces: Vec<Vec<u8>>| {
        all.push((name.to_owned(), pieces.into_iter().map(Bytes::from).collect()));
    };
    match service {
        Service::Rtmp => {
            let handshake = || [vec![3], vec![0; 3_072]].concat();
            let connect = || [handshake(), command("connect", "live"), command("createStream", "")].concat();
            let partials = || -> Vec<u8> {
                let rest = |csid: u8| [vec![0xc0 | csid], vec![7; 128]].concat().repeat(22);
                (10..18).flat_map(|csid| [chunk(csid, 9, 3_000, &[7; 128]), rest(csid)].concat()).collect()
            };
            add("partial messages", vec![connect(), partials()]);
            let long =
                [chunk(10, 9, 24_000, &[7; 128]), [vec![0xca], vec![7; 128]].concat().repeat(180)].concat();
            add("one long partial message", vec![connect(), long]);
            let chunk_size = chunk(2, 1, 4, &60_000u32.to_be_bytes());
            add("one long chunk", vec![connect(), chunk_size, chunk(10, 9, 24_000, &[7; 23_000])]);
            let publish = [partials(), command("publish", "x")].concat();
            add(
                "partial messages, and a flood after publish",
                vec![connect(), [publish, vec![9; 60_000]].concat()],
            );
        }
        Service::Rtsp => {
            let message = |head: &str, body: usize| {
                let length = if body > 0 { format!("Content-Length: {body}\r\n") } else { String::new() };
                [format!("{head}{length}\r\n").into_bytes(), vec![b'x'; body]].concat()
            };
            let headers: String = (0..60).map(|n| format!("X{n}: {}\r\n", "y".repeat(200))).collect();
            add("many headers", vec![message(&format!("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n{headers}"), 3_000)]);
            let announce =
                "ANNOUNCE rtsp://n/live/x RTSP/1.0\r\nCSeq: 1\r\nContent-Type: application/sdp\r\n";
            add("a long body", vec![message(announce, 16_000)]);
            let flood =
                [message(announce, 16_000), message("OPTIONS * RTSP/1.0\r\nCSeq: 2\r\n", 0).repeat(1_200)];
            add("a long body, and a flood", vec![flood.concat()]);
            let describe = message("DESCRIBE rtsp://n/live/x RTSP/1.0\r\nCSeq: 1\r\n", 0);
            add("a flood after DESCRIBE", vec![[describe, vec![b'x'; 60_000]].concat()]);
        }
        Service::Http => {
            let headers: String = (0..60).map(|n| format!("X{n}: {}\r\n", "y".repeat(230))).collect();
            let post = "POST /whip/live/x HTTP/1.1\r\nHost: n\r\nContent-Type: application/sdp\r\n";
            let offer = format!("{post}{headers}Content-Length: 40000\r\n\r\n");
            add("a long head and body", vec![[offer.clone().into_bytes(), vec![b'x'; 40_000]].concat()]);
            add("a body without its last byte", vec![[offer.into_bytes(), vec![b'x'; 39_999]].concat()]);
            let text = |body: &str| {
                let len = (body.len() as u16).to_be_bytes();
                [&[0x81, 0xfe][..], &len, &[0; 4], body.as_bytes()].concat()
            };
            for (name, one) in [("numbers", "1,"), ("lists", "[],"), ("nothing", "{},"), ("texts", "\"\",")] {
                let many = format!("{{\"a\":[{}0]}}", one.repeat(47_000 / one.len()));
                add(&format!("a websocket's {name}"), vec![upgrade(), text(&many)]);
            }
            let members: String = (0..4_000).map(|n| format!("\"{n}\":0,")).collect();
            add("a websocket's members", vec![upgrade(), text(&format!("{{{members}\"x\":0}}"))]);
            let sdp = format!(
                "{{\"handleOffer\":\"x\",\"data\":{{\"sdp\":{{\"sdp\":\"{}\"}}}}}}",
                "\\n".repeat(20_000)
            );
            add("a websocket's offer", vec![upgrade(), text(&sdp)]);
            add("a websocket's offers", vec![upgrade(), text(&sdp).repeat(20)]);
        }
        _ => {}
    }
    all
}

/// All that is sent to a service.
fn inputs(service: Service) -> Vec<(String, Vec<Bytes>)> {
    let rng = &mut Rng::new([9; 32]);
    let mut all = abuses(service, rng);
    // Noise by itself, and behind what makes a server listen.
    let begins: Vec<Vec<u8>> = match service {
        Service::Rtmp => vec![vec![], [vec![3], noise(rng, 3_072)].concat()],
        Service::Rtsp => vec![vec![], b"ANNOUNCE rtsp://n/live/x RTSP/1.0\r\nCSeq: 1\r\n".to_vec(), b"$\0\xff\xff".to_vec()],
        Service::Http => vec![
            vec![],
            b"GET /".to_vec(),
            b"GET / HTTP/1.1\r\nHost: n\r\n".to_vec(),
            b"POST /whip/live/x HTTP/1.1\r\nHost: n\r\nContent-Type: application/sdp\r\nContent-Length: 40000\r\n\r\n".to_vec(),
            upgrade(),
            // One message of a websocket in pieces that each say that more follows.
            [upgrade(), [&[0x01, 0xfe, 0xea, 0x60, 0, 0, 0, 0][..], &[b'x'; 60_000]].concat()].concat(),
        ],
        _ => vec![vec![], vec![0x16, 3, 1, 0x40, 0]],
    };
    for (n, begin) in begins.into_iter().enumerate() {
        let mut pieces = vec![Bytes::from(begin)];
        pieces.extend((0..20).map(|_| Bytes::from(noise(rng, 8_000))));
        all.push((format!("noise {n}"), pieces));
    }
    all.extend(greedy(service));
    let handshake = || vec![Bytes::from([vec![3], vec![0; 3_072]].concat())];
    let of: Vec<(String, Vec<Bytes>)> = match service {
        Service::Rtmp => {
            let plain = seeds(&["rtmp_server", "rtmp_chunk", "amf0"]).into_iter();
            plain.map(|(name, bytes)| (name, [handshake(), vec![Bytes::from(bytes)]].concat())).collect()
        }
        Service::Rtsp => {
            let plain = seeds(&["rtsp_server", "rtsp_message"]).into_iter();
            plain.map(|(name, bytes)| (name, vec![Bytes::from(bytes)])).collect()
        }
        Service::Http => {
            let plain = seeds(&["http1_request"]).into_iter().map(|(n, b)| (n, vec![Bytes::from(b)]));
            let offers = seeds(&["sdp"]).into_iter().map(|(name, body)| {
                let head = format!(
                    "POST /whip/live/x HTTP/1.1\r\nHost: n\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                (name, vec![Bytes::from(head), Bytes::from(body)])
            });
            plain.chain(offers).collect()
        }
        _ => Vec::new(),
    };
    // Each seed over and over, as one flood.
    for (name, pieces) in of {
        let flood: Vec<Bytes> = std::iter::repeat_n(pieces.clone(), 200).flatten().collect();
        all.push((name.clone(), pieces));
        all.push((format!("{name}, 200 times"), flood));
    }
    all
}

/// Runs in a scope whose clocks and randomness come from a seed.
fn seeded<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    os::run([5; 32], work).expect("clocks and randomness are the seed's")
}

#[test]
fn a_connection_that_showed_no_right_holds_no_more_than_its_share() {
    seeded(|| {
        for (service, most) in
            [(Service::Rtmp, PLAIN), (Service::Rtsp, PLAIN), (Service::Http, HTTP), (Service::Https, HTTP)]
        {
            let mut bench = Bench::new(|_| {});
            // What the first connections make once and for all (maps, counters) is the node's.
            for _ in 0..3 {
                bench.peak(service, &[Bytes::from_static(b"x")], 1, false);
            }
            let (mut worst, mut over, mut runs) = ((0, String::new()), Vec::new(), 0);
            for (name, pieces) in inputs(service) {
                for (cut, deaf) in [(64 << 10, false), (64 << 10, true), (1_460, true)] {
                    let peak = bench.peak(service, &pieces, cut, deaf);
                    runs += 1;
                    if peak > most {
                        over.push(format!("{name} by {cut}, deaf {deaf}: {peak}"));
                    }
                    if peak > worst.0 {
                        worst = (peak, format!("{name} by {cut}, deaf {deaf}"));
                    }
                }
            }
            println!(
                "{}: {} bytes of {most} at most, over {runs} runs, with {}",
                service.name(),
                worst.0,
                worst.1
            );
            assert!(over.is_empty(), "{}: {}", service.name(), over.join("\n"));
            assert!(worst.0 > 1_000, "something is measured");
            assert_eq!(bench.errors, Vec::<String>::new());
        }
    });
}

/// As [`Bench::peak`], with all that goes to and fro in TLS. The client's own memory is not counted.
fn peak_over_tls(bench: &mut Bench, pieces: &[Bytes]) -> i64 {
    bench.deaf = true;
    let before = from_here().live;
    let conn = bench.accept(Service::Https);
    let mut client = client_tls::client("192.0.2.1:5443".parse().expect("an address"));
    let mut todo: VecDeque<&Bytes> = pieces.iter().collect();
    loop {
        while let Some(bytes) = client_tls::give(&mut client) {
            for piece in bytes.chunks(16 << 10) {
                bench.send(conn, piece);
            }
        }
        let mut said = false;
        // Only the handshake is read: then the client goes deaf.
        while client.is_handshaking()
            && let Some(bytes) = counted(|| bench.queue.pop_front())
        {
            bench.held -= bytes.len();
            said = true;
            let mut rest = &bytes[..];
            while !rest.is_empty() && client_tls::take(&mut client, &mut rest).is_ok() {}
            counted(|| drop(bytes));
        }
        if client.is_handshaking() && (said || client.wants_write()) {
            continue;
        }
        match todo.pop_front() {
            Some(bytes) if !client.is_handshaking() && !bench.closed => {
                std::io::Write::write_all(&mut client.writer(), bytes).expect("it has room");
            }
            _ => break,
        }
    }
    assert!(!client.is_handshaking(), "the handshake ends");
    bench.later(50);
    let peak = count().peak - before;
    bench.leave(conn);
    peak
}

#[test]
fn a_connection_over_tls_holds_no_more_than_its_share() {
    seeded(|| {
        let mut bench = Bench::new(|_| {});
        for _ in 0..3 {
            peak_over_tls(&mut bench, &[Bytes::from_static(b"GET / HTTP/1.1\r\n")]);
        }
        println!("http over tls: {} bytes for the handshake alone", peak_over_tls(&mut bench, &[]));
        let (mut worst, mut over) = ((0, String::new()), Vec::new());
        for (name, pieces) in inputs(Service::Http) {
            let peak = peak_over_tls(&mut bench, &pieces).min(peak_over_tls(&mut bench, &pieces));
            if peak > HTTP {
                over.push(format!("{name}: {peak}"));
            }
            if peak > worst.0 {
                worst = (peak, name);
            }
        }
        println!("http over tls: {} bytes of {HTTP} at most, with {}", worst.0, worst.1);
        assert!(over.is_empty(), "{}", over.join("\n"));
        assert!(worst.0 > 1_000, "something is measured");
        assert_eq!(bench.errors, Vec::<String>::new());
    });
}

/// A stranger who speaks QUIC to the nodes' port.
struct QuicPeer {
    endpoint: quinn_proto::Endpoint,
    inner: Connection,
    base: Instant,
    to: (SocketId, SocketAddr),
    from: SocketAddr,
    sent: u64,
}

impl QuicPeer {
    fn new(bench: &Bench, heedless: bool, nth: u64) -> QuicPeer {
        let rng = Rng::new([13; 32]).fork("peer", nth);
        let base = Instant::now();
        let to = *bench.sockets.iter().find(|(_, local)| local.port() == 5090).expect("QUIC's socket");
        let mut endpoint = quic::endpoint(&rng);
        let config = quic::client_config(quic::ALPN, heedless, &rng);
        let (_, inner) = endpoint.connect(base, config, to.1, "n.invalid").expect("it can be dialled");
        QuicPeer { endpoint, inner, base, to, from: SocketAddr::from(([198, 51, 100, 9], 4_000)), sent: 0 }
    }

    fn instant(&self, bench: &Bench) -> Instant {
        self.base + bench.now.since(Time::ZERO)
    }

    /// Says what there is to say, as far as it `passes`, and hears the answers if it `hears`, until both are silent.
    fn talk(&mut self, bench: &mut Bench, hears: bool, mut passes: impl FnMut(u64) -> bool) {
        loop {
            while self.inner.poll().is_some() {}
            while let Some(event) = self.inner.poll_endpoint_events() {
                if let Some(event) = self.endpoint.handle_event(ConnectionHandle(0), event) {
                    self.inner.handle_event(event);
                }
            }
            let mut bytes = Vec::new();
            let instant = self.instant(bench);
            let Some(transmit) = self.inner.poll_transmit(instant, 1, &mut bytes) else { break };
            bytes.truncate(transmit.size);
            self.sent += 1;
            if !passes(self.sent) {
                continue;
            }
            let ((socket, local), remote) = (self.to, self.from);
            let stride = bytes.len();
            bench.tell(Input::Datagram { socket, local, remote, stride, bytes: &bytes });
            for (_, answer) in std::mem::take(&mut bench.answered) {
                let mut reply = Vec::new();
                let event =
                    self.endpoint.handle(instant, local, None, None, answer.as_slice().into(), &mut reply);
                if let Some(DatagramEvent::ConnectionEvent(_, event)) = event.filter(|_| hears) {
                    self.inner.handle_event(event);
                }
            }
        }
    }

    /// Writes so many bytes to the control stream, in frames of a few bytes each.
    fn writes(&mut self, bytes: usize) {
        let control = self.inner.streams().open(Dir::Bi).expect("one stream may be opened");
        let message = [&(4_000u32).to_be_bytes()[..], &vec![7; bytes]].concat();
        let _ = self.inner.send_stream(control).write(&message);
    }
}

/// What the node holds at most, and what is left of it in the end, of a stranger by QUIC who does this.
fn quic_peak(bench: &mut Bench, heedless: bool, nth: u64, act: fn(&mut QuicPeer, &mut Bench)) -> (i64, i64) {
    bench.deaf = false;
    let before = from_here().live;
    let mut peer = QuicPeer::new(bench, heedless, nth);
    act(&mut peer, bench);
    bench.later(50);
    let peak = count().peak - before;
    bench.answered.clear();
    bench.later(60_000);
    bench.answered.clear();
    (peak, count().live - before)
}

#[test]
fn a_quic_connection_that_showed_no_key_holds_no_more_than_its_share() {
    type Act = fn(&mut QuicPeer, &mut Bench);
    const ACTS: [(&str, bool, Act); 7] = [
        ("a first packet, whose address is not proven", false, |p, b| p.talk(b, false, |n| n == 1)),
        ("the same a hundred times", false, |p, b| {
            for nth in 0..100 {
                QuicPeer::new(b, false, 1_000 + nth).talk(b, false, |n| n == 1);
            }
            p.talk(b, false, |_| false);
        }),
        ("half a handshake", false, |p, b| p.talk(b, true, |n| n <= 2)),
        ("a handshake", false, |p, b| p.talk(b, true, |_| true)),
        ("a handshake, and as much as its window lets", false, |p, b| {
            p.talk(b, true, |_| true);
            p.writes(1 << 20);
            p.talk(b, true, |_| true);
        }),
        ("the same with every other packet lost", false, |p, b| {
            p.talk(b, true, |_| true);
            p.writes(1 << 20);
            p.talk(b, true, |n| n % 2 == 0);
        }),
        ("more than its window lets", true, |p, b| {
            p.talk(b, true, |_| true);
            p.writes(1 << 20);
            p.talk(b, true, |n| n % 2 == 0);
        }),
    ];
    seeded(|| {
        let mut bench = Bench::new(|c| c.cluster.key = "a key of sixteen characters".to_owned());
        for nth in 0..3 {
            quic_peak(&mut bench, false, nth, |p, b| p.talk(b, true, |_| true));
        }
        let mut worst = (0, "");
        for (n, (name, heedless, act)) in ACTS.into_iter().enumerate() {
            // The least of three: where a table of the node grew, that is not the connection's.
            let runs = [0, 1, 2].map(|again| quic_peak(&mut bench, heedless, 10 + 3 * n as u64 + again, act));
            let peak = runs.iter().map(|r| r.0).min().unwrap_or(0);
            let left = runs.iter().map(|r| r.1).min().unwrap_or(0);
            println!("quic: {peak} bytes at most, {left} left, with {name}");
            assert!(peak <= QUIC, "{name}: {peak}");
            assert!(left <= 256, "{name}: {left} bytes are left");
            if peak > worst.0 {
                worst = (peak, name);
            }
        }
        println!("quic: {} bytes of {QUIC} at most, with {}", worst.0, worst.1);
        assert!(worst.0 > 1_000, "something is measured");
        assert_eq!(bench.errors, Vec::<String>::new());
    });
}

/// A request for one's own address (RFC 8489, 6 and 14): no user name, the cookie, whole.
fn asks_for_its_address(bytes: &[u8]) -> bool {
    bytes.len() >= 20
        && bytes[..2] == [0, 1]
        && bytes[4..8] == [0x21, 0x12, 0xa4, 0x42]
        && usize::from(u16::from_be_bytes([bytes[2], bytes[3]])) == bytes.len() - 20
}

#[test]
fn datagrams_of_strangers_are_answered_by_nothing_larger_and_garbage_by_silence() {
    seeded(|| {
        let rng = &mut Rng::new([11; 32]);
        let mut all: Vec<Vec<u8>> = seeds(&["stun", "rtp", "rtcp", "rtsp_server", "sdp"])
            .into_iter()
            .map(|(_, bytes)| bytes)
            .collect();
        for kind in Evil::ALL {
            all.extend(transcripts(*kind, rng, 90).into_iter().filter_map(|t| match t {
                Transcript::Datagram(bytes) => Some(bytes.to_vec()),
                Transcript::Stream(..) => None,
            }));
        }
        // Each once more with some bits wrong, and cut short.
        for n in 0..all.len() {
            let mut bytes = all[n].clone();
            if let Some(last) = bytes.len().checked_sub(1) {
                bytes[rng.below(last as u32 + 1) as usize] ^= 1 << rng.below(8);
                all.push(bytes.clone());
                bytes.truncate(last);
                all.push(bytes);
            }
        }
        all.extend((0..2_000).map(|n| noise(rng, n % 1_473)));
        // With the key of a cluster or without, which makes the nodes' port silent.
        for (stun, key) in [(true, "a key of sixteen characters"), (false, "")] {
            let mut bench = Bench::new(|c| (c.webrtc.stun, c.cluster.key) = (stun, key.to_owned()));
            assert_eq!(bench.sockets.len(), 10, "WebRTC's, four pairs of RTSP, and the nodes'");
            let (mut asked, mut silent, mut quic) = (0, 0, 0);
            for (n, bytes) in all.iter().enumerate() {
                // From ever new networks, so that no limit on answers helps.
                let from = [198, 51, (n / 250) as u8, (n % 250) as u8 + 1];
                let remote = SocketAddr::new(from.into(), 5_000);
                for (socket, local) in bench.sockets.clone() {
                    let webrtc = local.port() == 8189;
                    let input = Input::Datagram { socket, local, remote, stride: bytes.len().max(1), bytes };
                    bench.tell(input);
                    let answered = std::mem::take(&mut bench.answered);
                    let honest = stun && webrtc && asks_for_its_address(bytes);
                    let back: usize = answered.iter().map(|(_, b)| b.len()).sum();
                    assert!(answered.iter().all(|(to, _)| *to == remote), "answers go where it came from");
                    if local.port() == 5090 && !key.is_empty() {
                        // Refusals, lists of versions, resets (RFC 9000 sections 5.2.2, 6, 8.1, 10.3).
                        assert!(back <= bytes.len(), "{back} for {} bytes", bytes.len());
                        quic += usize::from(back > 0);
                    } else if honest {
                        // The named exception: an address and its frame are 12 bytes more than a bare request.
                        assert!(back <= bytes.len() + 12, "{back} for {} bytes", bytes.len());
                        asked += usize::from(back > 0);
                    } else {
                        assert_eq!(back, 0, "datagram {n} to {local}: {bytes:02x?}");
                        silent += 1;
                    }
                }
                bench.later(7);
            }
            assert_eq!(asked > 0, stun, "the exception is for who asks for an address");
            assert!(silent > 20_000, "{silent}");
            assert_eq!(quic > 0, !key.is_empty(), "garbage of QUIC is answered where there is a cluster");
            assert_eq!(bench.errors, Vec::<String>::new());
        }
    });
}
