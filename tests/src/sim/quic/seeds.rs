//! What the fuzz target `quic_link` begins with: small runs that go right, and each thing that can go wrong once. `cargo fuzzing seeds`
//! writes them, for a change of the wire format or of the operations makes others of them.

use crate::world::actors::evil::quic::{ALPN, client_config, endpoint};
use determinism::os;
use proto_core::cluster::{Epoch, NodeId};
use proto_core::media::frame::{FrameKind, NewFrame, Rotation};
use proto_core::media::track::TrackId;
use proto_core::rand::Rng;
use proto_core::wire::link::{Group, Hello, Message, RelayFrame, encode};
use std::net::SocketAddr;
use std::time::Instant;

/// The first byte (see the module above).
const HEEDLESS: u8 = 1;
const NO_HANDSHAKE: u8 = 2;
const UNPROVEN: u8 = 4;
const LOSES: u8 = 8;
/// Operations: what they do, and their small number.
const STRANGER: u8 = 0;
const FIRST_PACKET: u8 = STRANGER | 1 << 3;
const OPEN: u8 = 1;
const CONTROL: u8 = 2;
const MEDIA: u8 = 3;
const FINISH: u8 = 4;
const RESET: u8 = 4 | 16 << 3;
const PASS: u8 = 5 | 4 << 3;
const PASS_A_SECOND: u8 = 5 | 31 << 3;
const PULL: u8 = 6 | 1 << 3;
const BEND: u8 = 7 | 9 << 3;

fn whole(message: &Message) -> Vec<u8> {
    let encoded = encode(message);
    [&encoded.head[..], &encoded.tail].concat()
}

fn says(op: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u8::try_from(bytes.len()).expect("what is said at once has 255 bytes at most");
    [&[op, len][..], bytes].concat()
}

fn group(number: u64, frames: u64, bytes: u64) -> Vec<u8> {
    says(MEDIA, &whole(&Message::Group(Group { pull: 1, track: 0, number, frames, bytes })))
}

fn frame(seq: u64, kind: FrameKind, len: usize) -> Vec<u8> {
    let time = seq as i64 * 40_000_000;
    let frame = RelayFrame {
        pull: 1,
        seq,
        epoch: Epoch { term: 1, count: 1 },
        config_version: 0,
        media: NewFrame {
            track: TrackId::VIDEO,
            dts: time,
            pts: time,
            kind,
            discardable: false,
            temporal_layer: 0,
            rotation: Rotation::default(),
            capture: None,
            payload: vec![seq as u8; len].into(),
        },
    };
    says(MEDIA, &whole(&Message::Frame(Box::new(frame))))
}

/// The beginning of a first packet as a real client makes it.
fn initial() -> Vec<u8> {
    os::run([3; 32], || {
        let (rng, now) = (Rng::new([4; 32]), Instant::now());
        let to = SocketAddr::from(([10, 0, 0, 1], 5_090));
        let dialled = endpoint(&rng).connect(now, client_config(ALPN, false, &rng), to, "x.invalid");
        let mut bytes = Vec::new();
        let first = dialled.expect("it can be dialled").1.poll_transmit(now, 1, &mut bytes);
        bytes.truncate(first.map_or(0, |transmit| transmit.size.min(200)));
        bytes
    })
    .expect("clocks and randomness are interposed")
}

/// The seeds, by name.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let hello = Message::Hello(Hello {
        version: 1,
        min_version: 1,
        features: 1,
        node: NodeId("e1".to_owned()),
        nonce: [7; 32],
    });
    let proof = Message::Proof { hmac: [9; 32] };
    let pass = || vec![PASS];
    let unknown_version = [&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8][..], &[1; 8], &[8], &[2; 8]].concat();
    let unknown_connection: Vec<u8> = (0..31).map(|n| if n == 0 { 0x40 } else { n }).collect();
    let seeds = [
        (
            "hello_and_proof",
            vec![vec![0], says(CONTROL, &whole(&hello)), pass(), says(CONTROL, &whole(&proof)), pass()],
        ),
        (
            "a_group_and_the_next",
            vec![
                vec![0, PULL, PASS, OPEN],
                group(1, 0, 0),
                frame(0, FrameKind::Key, 150),
                frame(1, FrameKind::Delta, 60),
                vec![PASS, FINISH, PASS, OPEN],
                group(2, 2, 210),
                frame(2, FrameKind::Key, 120),
                vec![PASS, FINISH, PASS],
            ],
        ),
        (
            "a_group_that_is_given_up",
            vec![
                vec![0, PULL, PASS, OPEN],
                group(1, 0, 0),
                frame(0, FrameKind::Key, 150),
                vec![PASS, RESET, OPEN],
                group(2, 3, 400),
                frame(3, FrameKind::Key, 120),
                vec![PASS_A_SECOND; 2],
            ],
        ),
        ("heeds_no_limit", vec![vec![HEEDLESS | UNPROVEN], vec![OPEN; 12], group(1, 0, 0), pass()]),
        (
            "loses_answers_and_bends",
            vec![vec![LOSES, PULL, OPEN, BEND], group(1, 0, 0), vec![PASS, PASS_A_SECOND]],
        ),
        (
            "a_strangers_datagrams",
            vec![
                vec![NO_HANDSHAKE],
                says(FIRST_PACKET, &initial()),
                says(FIRST_PACKET, &unknown_version),
                says(STRANGER, &[]),
                says(STRANGER, &unknown_connection),
                pass(),
            ],
        ),
    ];
    seeds.into_iter().map(|(name, parts)| (name, parts.concat())).collect()
}
