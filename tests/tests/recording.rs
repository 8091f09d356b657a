//! A real node with all its cryptography, recorded and run again without processes: the quick half of
//! `interop_record.rs`, and what decides whether a replay is the same.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use determinism::{crypto, os};
use proto_core::io::{ConnId, Input, Output, Service, SocketId};
use proto_core::machine::Machine;
use proto_core::node::Node;
use proto_core::node::config::Config;
use proto_core::recording::{Difference, End, Header, Item, Reader, Replay, Seen, Writer};
use proto_core::rtc::Identity;
use proto_core::time::{Time, WallTime};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const OFFER: &str = include_str!("../../proto-core/src/node/tests/offer.sdp");

fn header() -> Header {
    let mut config = Config { bind: "127.0.0.1".parse().expect("an address"), ..Config::default() };
    config.node.name = "n".to_owned();
    Header { version: "test".to_owned(), config, node_seed: [1; 32], crypto_seed: [2; 32] }
}

/// The node of a header. Only inside [`os::run`] with its seed.
fn node(header: &Header) -> Node {
    let certificate = crypto::certificate(header.crypto_seed).expect("a certificate can be made");
    let dtls = crypto::dtls_provider().expect("the library is sound");
    let identity = Identity::with_crypto(certificate, crypto::dimpl_provider(), crypto::str0m_provider(dtls));
    let identity = identity.expect("the library is sound");
    Node::new(header.config.clone(), header.node_seed, Instant::now(), identity)
        .expect("the configuration is right")
}

/// What the loop does, by hand: every batch comes back, and ticks come when they are due.
struct Bench {
    node: Node,
    writer: Writer,
    now: Time,
    back: VecDeque<Input<'static>>,
}

impl Bench {
    fn tell(&mut self, input: Input<'_>) -> Vec<Output> {
        self.writer.input(&input, self.now);
        self.node.handle(input, self.now);
        let mut said = Vec::new();
        while let Some(output) = self.node.poll() {
            self.writer.output(&output);
            match output {
                Output::Datagrams(batch) => {
                    // Now and then the kernel takes nothing, and batches come back in another order.
                    let refused = self.back.len() % 2;
                    let input = Input::Sent { batch, refused };
                    if refused == 1 { self.back.push_front(input) } else { self.back.push_back(input) }
                }
                output => said.push(output),
            }
        }
        said
    }

    fn run(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(due) = self.node.deadline().filter(|d| d.at <= until) {
            self.now = self.now.max(due.at);
            self.tell(Input::Tick);
            while let Some(input) = self.back.pop_front() {
                self.tell(input);
            }
        }
        self.now = until;
    }

    /// The body of the answer to a request on a connection of its own.
    fn request(&mut self, n: u64, head: &str, body: &str) -> String {
        let (conn, service) = (ConnId::accepted(n), Service::Http);
        let (local, remote) =
            (addr("127.0.0.1:5080"), SocketAddr::new([192, 0, 2, 1].into(), 1_000 + n as u16));
        self.tell(Input::Accepted { conn, service, local, remote });
        self.tell(Input::Writable { conn, free: 1 << 20 });
        let text = format!(
            "{head} HTTP/1.1\r\nHost: n\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut answer = Vec::new();
        for piece in text.as_bytes().chunks(700) {
            for said in self.tell(Input::Received { conn, bytes: piece }) {
                if let Output::Send { bytes, .. } = said {
                    answer.extend_from_slice(&bytes);
                }
            }
        }
        String::from_utf8(answer).expect("an answer is text")
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A recording of a node that a publisher asks for a session, and the SDP answer that it got.
fn record(header: &Header) -> (Vec<u8>, String) {
    os::run(header.crypto_seed, || {
        let writer = Writer::new(header).expect("a header can be written");
        let mut bench = Bench { node: node(header), writer, now: Time::ZERO, back: VecDeque::new() };
        bench.tell(Input::WallClock(WallTime(1_700_000_000_000_000_000)));
        bench.tell(Input::HostAddresses(&["192.0.2.9".parse().expect("an address")]));
        let local = addr("127.0.0.1:8189");
        bench.tell(Input::UdpOpened { socket: SocketId(0), local, max_segments: 8 });
        bench.run(Duration::from_secs(3));
        bench.request(1, "GET /metrics", "");
        let answer = bench.request(
            2,
            "POST /whip/live/a",
            &OFFER.replace("recvonly", "sendonly").replace('\n', "\r\n"),
        );
        for n in 0..50u8 {
            let bytes = [n.wrapping_mul(37); 60];
            let (socket, remote) = (SocketId(0), addr("198.51.100.7:40000"));
            bench.tell(Input::Datagram { socket, local, remote, stride: 20, bytes: &bytes });
            bench.run(Duration::from_millis(20));
        }
        bench.tell(Input::Drain);
        bench.run(Duration::from_secs(40));
        bench.writer.finish(End::Ended);
        (std::mem::take(bench.writer.ready()), answer)
    })
    .expect("a run can be interposed")
}

struct Replayed {
    digest: u64,
    inputs: u64,
    outputs: u64,
    difference: Option<Difference>,
}

fn replay(file: &[u8], change: impl FnOnce(&mut Header) + Send) -> Replayed {
    let mut reader = Reader::new();
    reader.push(file);
    let Ok(Some(Item::Header(mut header))) = reader.next() else { panic!("no header") };
    change(&mut header);
    os::run(header.crypto_seed, || {
        let mut replay = Replay::new(node(&header));
        let mut outputs = 0;
        while let Some(item) = reader.next().expect("the recording is whole") {
            match item {
                Item::Header(_) => panic!("a second header"),
                Item::Input { at, mark, input } => replay.input(at, mark, input, &mut |_, seen| {
                    outputs += u64::from(matches!(seen, Seen::Output(_)));
                }),
                Item::Checkpoint { digest, .. } => replay.checkpoint(digest),
            }
        }
        let (digest, inputs, difference) = (replay.digest(), replay.inputs(), replay.difference());
        Replayed { digest, inputs, outputs, difference }
    })
    .expect("a run can be interposed")
}

#[test]
fn a_node_does_the_same_again_and_only_the_same_node_does() {
    let (file, answer) = record(&header());
    assert!(answer.starts_with("HTTP/1.1 201 ") && answer.contains("a=fingerprint:sha-256"), "{answer}");
    let again = replay(&file, |_| {});
    assert_eq!(again.difference, None);
    assert!(again.inputs > 100 && again.outputs > 10, "{} inputs, {} outputs", again.inputs, again.outputs);
    assert_eq!(replay(&file, |_| {}).digest, again.digest);
    assert_eq!(record(&header()).0, file, "the recording itself is the same");

    // Whatever a node is made of counts, and shows where it first says something else.
    let other_seed =
        replay(&file, |h| h.node_seed = [9; 32]).difference.expect("another seed is another node");
    let other_crypto =
        replay(&file, |h| h.crypto_seed = [9; 32]).difference.expect("so is other cryptography");
    let other_config =
        replay(&file, |h| h.config.node.name = "m".to_owned()).difference.expect("and a setting");
    assert_eq!(other_config.input, 2, "the first words name the node");
    assert!(other_seed.input > other_config.input && other_crypto.input > other_config.input);
    // Of other cryptography nothing shows before the answer that names the certificate.
    assert!(other_crypto.at >= Time::from_millis(3_000), "{other_crypto:?}");
}

#[test]
fn a_change_of_what_it_was_told_shows_at_that_input() {
    let (file, _) = record(&header());
    let mut reader = Reader::new();
    reader.push(&file);
    // Told as recorded, but for one datagram that is left out.
    let Ok(Some(Item::Header(header))) = reader.next() else { panic!("no header") };
    let difference = os::run(header.crypto_seed, || {
        let mut replay = Replay::new(node(&header));
        let mut left_out = None;
        let mut number = 0;
        while let Some(item) = reader.next().expect("the recording is whole") {
            match item {
                Item::Input { at, mark, input } => {
                    number += 1;
                    let datagram = matches!(input, proto_core::recording::Recorded::Datagram { .. });
                    if datagram && left_out.is_none() {
                        left_out = Some(number);
                    } else {
                        replay.input(at, mark, input, &mut |_, _| {});
                    }
                }
                Item::Checkpoint { digest, .. } => replay.checkpoint(digest),
                Item::Header(_) => panic!("a second header"),
            }
        }
        (replay.difference(), left_out)
    });
    let (difference, left_out) = difference.expect("a run can be interposed");
    assert_eq!(difference.map(|d| d.input + 1), left_out, "everything before was the same");
}
