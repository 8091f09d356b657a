use super::*;
use crate::bridge::{BridgeId, BridgeJob, BridgeWork, Bridged, Made, Packet};
use crate::io::{AskId, SocketId};
use crate::media::track::{Codec, CodecParams};
use crate::time::WallTime;
use bytes::Bytes;

fn of(values: impl FnOnce(&mut Digest)) -> u64 {
    let mut d = Digest::new();
    values(&mut d);
    d.value()
}

#[test]
fn the_algorithm_is_xxh64() {
    // As the reference implementation prints them.
    assert_eq!(xxh64(b"", 0), 0xEF46_DB37_51D8_E999);
    assert_eq!(xxh64(b"a", 0), 0xD24E_C4F1_A98C_6E5B);
    assert_eq!(xxh64(b"abc", 0), 0x44BC_2CF5_AD77_0999);
    assert_eq!(xxh64(b"Nobody inspects the spammish repetition", 0), 0xFBCE_A83C_8A37_8BF1);
}

#[test]
fn a_number_counts_as_its_bytes() {
    for n in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
        assert_eq!(of(|d| d.u64(n)), of(|d| d.bytes(&n.to_le_bytes())));
    }
}

#[test]
fn borders_between_values_count() {
    let both = |a: &'static [u8], b: &'static [u8]| {
        of(|d| {
            d.bytes(a);
            d.bytes(b);
        })
    };
    assert_ne!(both(b"ab", b"c"), both(b"a", b"bc"));
    assert_ne!(both(b"", b""), of(|d| d.bytes(b"")));
}

/// Inputs of which each two differ in one field or in their kind.
pub(crate) fn inputs() -> Vec<Input<'static>> {
    let a = |text: &str| text.parse::<SocketAddr>().unwrap();
    let (here, there) = (a("10.0.0.1:1"), a("10.0.0.2:2"));
    let conn = ConnId::accepted(1);
    let accepted = |conn, service, local, remote| Input::Accepted { conn, service, local, remote };
    let datagram = |socket, local, remote, stride, bytes| Input::Datagram {
        socket: SocketId(socket),
        local,
        remote,
        stride,
        bytes,
    };
    let opened =
        |socket, local, max_segments| Input::UdpOpened { socket: SocketId(socket), local, max_segments };
    let sent = |socket, src, to: SocketAddr, bytes: &[u8], refused| {
        let mut batch = Box::new(Batch::new(SocketId(socket)));
        batch.push(src, to, bytes, 4);
        Input::Sent { batch, refused }
    };
    let answer = |ask, found| Input::Answer { ask: AskId(ask), answer: Answer::Resolved(found) };
    let file = |ask, found| Input::Answer { ask: AskId(ask), answer: Answer::File(found) };
    let closed = |reason| Input::Closed { conn, reason };
    let bridged = |ask, done| Input::Answer { ask: AskId(ask), answer: Answer::Bridged(done) };
    let made = |config, rate, channels| Made { config: Bytes::from_static(config), rate, channels };
    vec![
        Input::Tick,
        Input::Drain,
        Input::Busy { permille: 0 },
        Input::Busy { permille: 1 },
        Input::WallClock(WallTime(0)),
        Input::WallClock(WallTime(1)),
        Input::HostAddresses(&[]),
        Input::HostAddresses(&[IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)]),
        Input::HostAddresses(&[IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)]),
        accepted(conn, Service::Http, here, there),
        accepted(conn, Service::Rtmp, here, there),
        accepted(conn, Service::Link, here, there),
        accepted(conn, Service::Https, here, there),
        accepted(conn, Service::Rtmps, here, there),
        accepted(conn, Service::Rtsp, here, there),
        accepted(conn, Service::Rtsps, here, there),
        accepted(ConnId::dialled(1), Service::Http, here, there),
        accepted(conn, Service::Http, there, there),
        accepted(conn, Service::Http, here, here),
        accepted(conn, Service::Http, here, a("[::1]:2")),
        Input::Connected { conn, local: here, remote: there },
        Input::Connected { conn, local: there, remote: there },
        Input::Received { conn, bytes: b"a" },
        Input::Received { conn, bytes: b"b" },
        Input::Received { conn: ConnId::accepted(2), bytes: b"b" },
        Input::Writable { conn, free: 0 },
        Input::Writable { conn, free: 1 },
        Input::PeerFinished { conn },
        closed(Reason::peer("reset", "a")),
        closed(Reason::peer("reset", "b")),
        closed(Reason::peer("io_error", "a")),
        closed(Reason::local("reset", "a")),
        closed(Reason::limit("reset", "a")),
        opened(0, here, 1),
        opened(1, here, 1),
        opened(0, there, 1),
        opened(0, here, 2),
        Input::UdpFailed { socket: SocketId(0), reason: Reason::local("udp_bind_failed", "a") },
        Input::UdpFailed { socket: SocketId(1), reason: Reason::local("udp_bind_failed", "a") },
        datagram(0, here, there, 1, b"a"),
        datagram(1, here, there, 1, b"a"),
        datagram(0, there, there, 1, b"a"),
        datagram(0, here, here, 1, b"a"),
        datagram(0, here, there, 2, b"a"),
        datagram(0, here, there, 1, b"b"),
        sent(0, None, here, b"a", 0),
        sent(1, None, here, b"a", 0),
        sent(0, Some(here.ip()), here, b"a", 0),
        sent(0, None, there, b"a", 0),
        sent(0, None, here, b"b", 0),
        sent(0, None, here, b"a", 1),
        answer(0, Ok(vec![])),
        answer(1, Ok(vec![])),
        answer(0, Ok(vec![here])),
        answer(0, Err(String::new())),
        answer(0, Err("no".to_owned())),
        file(0, Ok(Bytes::new())),
        file(1, Ok(Bytes::new())),
        file(0, Ok(Bytes::from_static(b"a"))),
        file(0, Err(String::new())),
        file(0, Err("no".to_owned())),
        bridged(0, Bridged::default()),
        bridged(1, Bridged::default()),
        bridged(0, Bridged { made: Some(made(b"", 1, 1)), ..Bridged::default() }),
        bridged(0, Bridged { made: Some(made(b"a", 1, 1)), ..Bridged::default() }),
        bridged(0, Bridged { made: Some(made(b"", 2, 1)), ..Bridged::default() }),
        bridged(0, Bridged { made: Some(made(b"", 1, 2)), ..Bridged::default() }),
        bridged(0, Bridged { packets: vec![packet(0, b"a")], ..Bridged::default() }),
        bridged(0, Bridged { packets: vec![packet(1, b"a")], ..Bridged::default() }),
        bridged(0, Bridged { packets: vec![packet(0, b"b")], ..Bridged::default() }),
        bridged(0, Bridged { undecodable: 1, ..Bridged::default() }),
        bridged(0, Bridged { failed: Some(String::new()), ..Bridged::default() }),
        bridged(0, Bridged { failed: Some("no".to_owned()), ..Bridged::default() }),
    ]
}

fn packet(pts: i64, data: &'static [u8]) -> Packet {
    Packet { pts, data: Bytes::from_static(data) }
}

pub(crate) fn outputs() -> Vec<Output> {
    let a = |text: &str| text.parse::<SocketAddr>().unwrap();
    let (here, there) = (a("10.0.0.1:1"), a("10.0.0.2:2"));
    let (conn, socket) = (ConnId::dialled(1), SocketId(0));
    let send = |conn, bytes| Output::Send { conn, bytes: Bytes::from_static(bytes) };
    let datagrams = |stride: usize| {
        let mut batch = Box::new(Batch::new(socket));
        [7u8; 4].chunks(stride).for_each(|bytes| batch.push(None, here, bytes, 8));
        Output::Datagrams(batch)
    };
    let ask = |ask, host: &str, port| Output::Ask {
        ask: AskId(ask),
        work: Work::Resolve { host: host.to_owned(), port },
    };
    let bridge = |ask, id, job| {
        let work = Work::Bridge(BridgeWork { bridge: BridgeId(id), job });
        Output::Ask { ask: AskId(ask), work }
    };
    let open = |channels, to| BridgeJob::Open { from: CodecParams::Opus { channels }, to };
    let log = |level, target, session: Option<&str>, stream: Option<&str>, text: &str| {
        let (session, stream) = (session.map(str::to_owned), stream.map(str::to_owned));
        Output::Log(LogLine { level, target, session, stream, text: text.to_owned() })
    };
    vec![
        Output::Dial { conn, to: here },
        Output::Dial { conn, to: there },
        send(conn, b"a"),
        send(conn, b"b"),
        send(ConnId::accepted(1), b"a"),
        Output::Close { conn, now: true },
        Output::Close { conn, now: false },
        Output::Reading { conn, on: true },
        Output::Reading { conn, on: false },
        Output::OpenUdp { socket, bind: here },
        Output::OpenUdp { socket, bind: there },
        Output::CloseUdp { socket },
        Output::CloseUdp { socket: SocketId(1) },
        datagrams(1),
        datagrams(2),
        datagrams(4),
        Output::Ask { ask: AskId(0), work: Work::ReadFile { path: "a".to_owned() } },
        Output::Ask { ask: AskId(0), work: Work::ReadFile { path: "b".to_owned() } },
        Output::Ask { ask: AskId(1), work: Work::ReadFile { path: "a".to_owned() } },
        ask(0, "a", 1),
        ask(1, "a", 1),
        ask(0, "b", 1),
        ask(0, "a", 2),
        bridge(0, 0, open(1, Codec::Opus)),
        bridge(1, 0, open(1, Codec::Opus)),
        bridge(0, 1, open(1, Codec::Opus)),
        bridge(0, 0, open(2, Codec::Opus)),
        bridge(0, 0, open(1, Codec::Aac)),
        bridge(0, 0, BridgeJob::Convert(vec![])),
        bridge(0, 0, BridgeJob::Convert(vec![packet(0, b"a")])),
        bridge(0, 0, BridgeJob::Convert(vec![packet(1, b"a")])),
        bridge(0, 0, BridgeJob::Convert(vec![packet(0, b"b")])),
        bridge(0, 0, BridgeJob::Close),
        bridge(0, 0, BridgeJob::KeyFrame),
        bridge(0, 0, BridgeJob::Abandon),
        log(Level::Error, "a", None, None, "x"),
        log(Level::Warn, "a", None, None, "x"),
        log(Level::Info, "a", None, None, "x"),
        log(Level::Debug, "a", None, None, "x"),
        log(Level::Error, "b", None, None, "x"),
        log(Level::Error, "a", Some("s"), None, "x"),
        log(Level::Error, "a", None, Some("s"), "x"),
        log(Level::Error, "a", None, None, "y"),
        Output::Fatal(Reason::local("a", "x")),
        Output::Fatal(Reason::local("b", "x")),
        Output::Drained,
    ]
}

#[test]
fn every_field_counts() {
    let mut seen = std::collections::BTreeMap::new();
    let inputs = inputs().into_iter().map(|i| (of(|d| i.digest(d)), format!("{i:?}")));
    let outputs = outputs().into_iter().map(|o| (of(|d| o.digest(d)), format!("{o:?}")));
    for (value, what) in inputs.chain(outputs) {
        if let Some(other) = seen.insert(value, what.clone()) {
            panic!("{what} looks like {other}");
        }
    }
}

#[test]
fn the_order_counts_and_the_values_stay_what_they_are() {
    let (tick, drain) = (Input::Tick, Input::Drain);
    let one = of(|d| {
        tick.digest(d);
        drain.digest(d);
    });
    let other = of(|d| {
        drain.digest(d);
        tick.digest(d);
    });
    assert_ne!(one, other);
    // A recording holds these: they must be the same on every build, platform and toolchain.
    let mut d = Digest::new();
    inputs().iter().for_each(|i| i.digest(&mut d));
    outputs().iter().for_each(|o| o.digest(&mut d));
    assert_eq!(d.value(), 13_176_873_196_901_460_097);
}
