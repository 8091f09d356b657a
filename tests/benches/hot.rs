//! The functions that a busy node spends its time in, one by one: `cargo bench -p headwater-tests`. Beside criterion's own
//! report a table at the end says what each costs of a baseline that was measured in the same run, since absolute figures
//! of a machine that others share mean little.
#![allow(clippy::disallowed_methods, missing_docs)]

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;
use criterion::{Bencher, Criterion};
use headwater_tests::fanout::{FanOut, PICTURE};
use proto_core::limits::Limits;
use proto_core::media::frame::{FrameKind, NewFrame, Rotation};
use proto_core::media::payload::{Depay, Format, PAYLOAD_BYTES, packetise};
use proto_core::media::track::{CodecParams, TrackId};
use proto_core::rtc::srtp;
use proto_core::wire::rtmp_chunk::{ChunkReader, render_message};
use proto_core::wire::rtmp_message::{Message, kind};
use proto_core::wire::{rtcp, rtcp_reports};
use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};
use str0m::crypto::dtls::SrtpProfile;

/// Bytes of a packet's payload in the design's measurements.
const PACKET: usize = 1_188;
const SPS: &[u8] = &[0x67, 0x42, 0xe0, 0x1f, 0x8d, 0x68];
const PPS: &[u8] = &[0x68, 0xce, 0x3c, 0x80];
const VIEWERS: usize = 100;
/// How long loops play at the same time.
const TOGETHER: Duration = Duration::from_secs(3);

/// The least time of each piece of work, nanoseconds, by name.
#[derive(Default)]
struct Least(RefCell<Vec<(&'static str, f64)>>);

impl Least {
    /// Times `work`, which does `of` things at once.
    fn time(&self, b: &mut Bencher<'_>, name: &'static str, of: usize, mut work: impl FnMut()) {
        b.iter_custom(|n| {
            let began = Instant::now();
            (0..n).for_each(|_| work());
            let took = began.elapsed();
            let each = took.as_nanos() as f64 / n as f64 / of as f64;
            let mut all = self.0.borrow_mut();
            match all.iter_mut().find(|(known, _)| *known == name) {
                Some((_, least)) => *least = least.min(each),
                None => all.push((name, each)),
            }
            took
        });
    }

    fn of(&self, name: &str) -> Option<f64> {
        self.0.borrow().iter().find(|(known, _)| *known == name).map(|(_, least)| *least)
    }
}

fn picture(len: usize) -> NewFrame {
    let mut payload = vec![7; len];
    payload[..4].copy_from_slice(&(len as u32 - 4).to_be_bytes());
    payload[4..6].copy_from_slice(&[0x41, 0x88]);
    NewFrame {
        track: TrackId::VIDEO,
        dts: 0,
        pts: 0,
        kind: FrameKind::Delta,
        discardable: false,
        temporal_layer: 0,
        rotation: Rotation::R0,
        capture: None,
        payload: payload.into(),
    }
}

fn sealing(c: &mut Criterion, least: &Least) {
    let mut group = c.benchmark_group("seal");
    let payload = vec![7; PACKET];
    group.bench_function("copy of a packet", |b| {
        let mut out = vec![0; PACKET];
        least.time(b, "copy", 1, || black_box(&mut out).copy_from_slice(black_box(&payload)));
    });
    let bare: [(&str, &'static Algorithm); 2] =
        [("bare AES-128-GCM", &AES_128_GCM), ("bare AES-256-GCM", &AES_256_GCM)];
    for (name, algorithm) in bare {
        let key = vec![9; algorithm.key_len()];
        let key = LessSafeKey::new(UnboundKey::new(algorithm, &key).expect("of this length"));
        group.bench_function(name, |b| {
            let mut out = payload.clone();
            least.time(b, name, 1, || {
                let nonce = Nonce::assume_unique_for_key([1; 12]);
                let sealed = key.seal_in_place_separate_tag(nonce, Aad::from([2; 12]), black_box(&mut out));
                let _ = black_box(sealed.expect("it fits"));
            });
        });
    }
    let crypto = str0m::crypto::from_feature_flags();
    group.bench_function("keys expanded for each packet", |b| {
        let mut cipher = crypto.srtp_provider.aes_128_cm_sha1_80().create_cipher([9; 16], true);
        let mut out = vec![0; PACKET];
        least.time(b, "keys expanded", 1, || {
            cipher.encrypt(&[1; 16], black_box(&payload), &mut out).expect("it can be sealed");
            let parts: [&[u8]; 3] = [&[2; 12], &out, &[0; 4]];
            black_box(crypto.sha1_hmac_provider.sha1_hmac(&[3; 20], &parts));
        });
    });
    for (name, profile) in [
        ("SRTP AEAD_AES_128_GCM", SrtpProfile::AEAD_AES_128_GCM),
        ("SRTP AEAD_AES_256_GCM", SrtpProfile::AEAD_AES_256_GCM),
        ("SRTP AES128_CM_SHA1_80", SrtpProfile::AES128_CM_SHA1_80),
    ] {
        let (mut sealer, _) = srtp::keys(&[9; 88], profile, false, &crypto).expect("enough bytes");
        group.bench_function(name, |b| {
            let mut out = Vec::with_capacity(PACKET + 64);
            let mut number = 0u32;
            least.time(b, name, 1, || {
                out.clear();
                number = number.wrapping_add(1);
                let [.., q0, q1] = number.to_be_bytes();
                let header = [0x80, 96, q0, q1, 0, 0, 0, 1, 0, 0, 0, 5];
                sealer.rtp(&header, number >> 16, black_box(&payload), &mut out).expect("it can be sealed");
                black_box(&out);
            });
        });
    }
}

fn payloads(c: &mut Criterion, least: &Least) {
    let mut group = c.benchmark_group("payload");
    let (sps, pps) = (vec![Bytes::from_static(SPS)], vec![Bytes::from_static(PPS)]);
    let params = CodecParams::H264 { sps, pps, size: None, reorders: false };
    let frame = picture(PICTURE);
    group.bench_function("copy of a picture", |b| {
        let mut out = vec![0; PICTURE];
        least.time(b, "copy of a picture", 1, || {
            black_box(&mut out).copy_from_slice(black_box(&frame.payload));
        });
    });
    group.bench_function("packetise H.264", |b| {
        least.time(b, "packetise", 1, || {
            black_box(packetise(&Format::H264, &params, black_box(&frame), PAYLOAD_BYTES));
        });
    });
    let key = NewFrame { kind: FrameKind::Key, ..picture(PICTURE) };
    let key = NewFrame {
        payload: {
            let mut bytes = key.payload.to_vec();
            bytes[4] = 0x65;
            bytes.into()
        },
        ..key
    };
    let packets = packetise(&Format::H264, &params, &key, PAYLOAD_BYTES);
    group.bench_function("depacketise H.264", |b| {
        let mut depay = Depay::new(&Format::H264, 4 << 20, 4_096);
        let (mut timestamp, mut units) = (0u32, 0u64);
        least.time(b, "depacketise", 1, || {
            timestamp = timestamp.wrapping_add(3_000);
            for (n, packet) in packets.iter().enumerate() {
                depay.push(black_box(packet), timestamp, n + 1 == packets.len(), |_| units += 1);
            }
        });
        assert!(units > 0, "pictures come out");
    });
}

fn rtmp(c: &mut Criterion, least: &Least) {
    let mut group = c.benchmark_group("rtmp");
    let payload = Bytes::from(vec![7; PICTURE]);
    let message = Message { csid: 6, timestamp: 40, kind: kind::VIDEO, stream: 1, payload };
    group.bench_function("write a message", |b| {
        least.time(b, "write a message", 1, || {
            black_box(render_message(black_box(&message), 1 << 16));
        });
    });
    // As most encoders do, which never raise it.
    let chunks = render_message(&message, 128);
    group.bench_function("read a message in chunks of 128", |b| {
        let mut reader = ChunkReader::new(&Limits::default());
        reader.set_partial_cap(4 << 20);
        least.time(b, "read a message", 1, || {
            let mut input = &chunks[..];
            let read = reader.read(black_box(&mut input)).expect("it is whole");
            assert!(read.is_some(), "it comes out");
        });
    });
}

fn reports(c: &mut Criterion, least: &Least) {
    let block = rtcp_reports::Block { ssrc: 5, ..rtcp_reports::Block::default() };
    let report = rtcp_reports::receiver_report(1, Some(&block), None);
    c.bench_function("rtcp/read a receiver report", |b| {
        least.time(b, "read a report", 1, || {
            assert!(rtcp::packets(black_box(&report)).all(|p| black_box(p).is_ok()));
        });
    });
}

/// Pictures and sound from the hub to sealed batches, for as many viewers as fit into the caches and no sockets.
fn fan_out(c: &mut Criterion, least: &Least) {
    let mut world = FanOut::start();
    world.frame(FrameKind::Key, PICTURE);
    (0..VIEWERS).for_each(|_| world.join());
    world.play(60);
    let before = world.packets;
    world.play(60);
    let packets = (world.packets - before) as usize;
    c.bench_function("fan-out/2 s of 2 Mbit/s for 100 viewers", |b| {
        least.time(b, "fan-out", packets, || world.play(60));
    });
}

/// Packets a second that so many loops (`node.loops`) make at the same time, each for viewers of its own, on a thread of its own.
fn together(loops: usize) -> f64 {
    let ready = Barrier::new(loops);
    let one = || {
        let mut world = FanOut::start();
        world.frame(FrameKind::Key, PICTURE);
        (0..VIEWERS).for_each(|_| world.join());
        world.play(60);
        ready.wait();
        let (began, before) = (Instant::now(), world.packets);
        while began.elapsed() < TOGETHER {
            world.play(6);
        }
        (world.packets - before) as f64 / began.elapsed().as_secs_f64()
    };
    thread::scope(|s| {
        let all: Vec<_> = (0..loops).map(|_| s.spawn(one)).collect();
        all.into_iter().map(|t| t.join().expect("a loop plays to its end")).sum()
    })
}

/// What a second loop adds. The machine must have two cores free.
fn loops() {
    let (one, two) = (together(1), together(2));
    println!("two loops: {:.0} packets a second, {:.2} times one ({one:.0})", two, two / one);
}

fn main() {
    let least = Least::default();
    let mut criterion = Criterion::default().configure_from_args();
    sealing(&mut criterion, &least);
    payloads(&mut criterion, &least);
    rtmp(&mut criterion, &least);
    reports(&mut criterion, &least);
    fan_out(&mut criterion, &least);
    criterion.final_summary();
    let table = [
        ("SRTP AEAD_AES_128_GCM", "bare AES-128-GCM"),
        ("SRTP AEAD_AES_256_GCM", "bare AES-256-GCM"),
        ("SRTP AES128_CM_SHA1_80", "bare AES-128-GCM"),
        ("SRTP AES128_CM_SHA1_80", "keys expanded"),
        ("fan-out", "SRTP AEAD_AES_256_GCM"),
        ("packetise", "copy of a picture"),
        ("depacketise", "copy of a picture"),
        ("write a message", "copy of a picture"),
        ("read a message", "copy of a picture"),
    ];
    println!("{:<26} {:>12}   times the baseline (least of all samples)", "what", "ns");
    for (what, baseline) in table {
        if let (Some(ns), Some(base)) = (least.of(what), least.of(baseline)) {
            println!("{what:<26} {ns:>12.0}   {:.2} x {baseline} ({base:.0} ns)", ns / base);
        }
    }
    // Not where a bench is only tried (`cargo test --benches`), nor where another one is asked for.
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|a| a == "--bench") && args.iter().all(|a| a.starts_with('-') || a == "loops") {
        loops();
    }
}
