//! Recordings: what is written is read back, what is damaged is seen, and a replay sees the first difference.

use super::*;
use crate::bridge::{Bridged, Made, Packet};
use crate::error::Reason;
use crate::io::{Answer, AskId, Batch, ConnId, Service, SocketId};
use crate::machine::Machine;
use crate::time::{Deadline, WallTime};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

fn header() -> Header {
    let mut config = Config::default();
    config.cluster.key = "a key that nobody may see".to_owned();
    config.limits.conns = 7;
    Header { version: "0.0.0 test".to_owned(), config, node_seed: [1; 32], crypto_seed: [2; 32] }
}

/// A machine whose outputs depend on everything that it was told.
#[derive(Default)]
struct Mirror {
    told: Digest,
    inputs: u64,
    /// Says something else in answer to this input.
    odd: Option<u64>,
    out: VecDeque<Output>,
}

impl Machine for Mirror {
    type Input<'a> = Input<'a>;
    type Output = Output;

    fn handle(&mut self, input: Input<'_>, now: Time) {
        self.inputs += 1;
        self.told.u64(now.as_nanos());
        input.digest(&mut self.told);
        let mut said = self.told.value().to_be_bytes().to_vec();
        if self.odd == Some(self.inputs) {
            said.push(0);
        }
        let mut batch = Box::new(Batch::new(SocketId(3)));
        batch.push(None, ([10, 0, 0, 1], 9).into(), &said, 1);
        self.out.push_back(Output::Datagrams(batch));
        self.out.push_back(Output::Send { conn: ConnId::accepted(1), bytes: said.into() });
    }

    fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn deadline(&self) -> Option<Deadline> {
        None
    }
}

/// Records what a mirror is told; every third time it gets a batch back. Answers the file and the digest.
fn record(inputs: Vec<(u64, Recorded)>, end: Option<End>) -> (Vec<u8>, u64) {
    let mut writer = Writer::new(&header()).unwrap();
    let mut mirror = Mirror::default();
    let mut batches = VecDeque::new();
    let (mut file, mut now) = (Vec::new(), Time::ZERO);
    let mut tell = |writer: &mut Writer, input: Input<'_>, now: Time| {
        writer.input(&input, now);
        mirror.handle(input, now);
        let mut came = Vec::new();
        while let Some(output) = mirror.poll() {
            writer.output(&output);
            if let Output::Datagrams(batch) = output {
                came.push(batch);
            }
        }
        came
    };
    for (i, (after, input)) in inputs.into_iter().enumerate() {
        now = Time::from_nanos(now.as_nanos() + after);
        let came = match input {
            Recorded::HostAddresses(a) => tell(&mut writer, Input::HostAddresses(&a), now),
            Recorded::Received { conn, bytes } => {
                tell(&mut writer, Input::Received { conn, bytes: &bytes }, now)
            }
            Recorded::Datagram { socket, local, remote, stride, bytes } => {
                tell(&mut writer, Input::Datagram { socket, local, remote, stride, bytes: &bytes }, now)
            }
            Recorded::Returned { batch, refused } => {
                // Any that is out, not always the oldest.
                let batch = batches.remove(batch as usize % batches.len().max(1));
                let batch = batch.unwrap_or_else(|| Box::new(Batch::new(SocketId(8))));
                tell(&mut writer, Input::Sent { batch, refused }, now)
            }
            Recorded::Other(input) => tell(&mut writer, input, now),
        };
        batches.extend(came);
        if i % 7 == 0 {
            writer.checkpoint();
        }
        file.append(writer.ready());
    }
    match end {
        Some(end) => writer.finish(end),
        None => writer.checkpoint(),
    }
    file.append(writer.ready());
    assert!(writer.len() >= file.len() as u64);
    (file, writer.digest())
}

struct Replayed {
    replay: Replay<Mirror>,
    header: Option<Header>,
    ended: bool,
    left_over: usize,
    damage: Option<Damage>,
}

fn replay(file: &[u8], chunk: usize, odd: Option<u64>) -> Replayed {
    let mut reader = Reader::new();
    let mut replay = Replay::new(Mirror { odd, ..Mirror::default() });
    let mut found = None;
    let mut damage = None;
    'all: for piece in file.chunks(chunk.max(1)) {
        reader.push(piece);
        loop {
            match reader.next() {
                Ok(Some(Item::Header(header))) => found = Some(*header),
                Ok(Some(Item::Input { at, mark, input })) => replay.input(at, mark, input, &mut |_, _| {}),
                Ok(Some(Item::Checkpoint { digest, .. })) => replay.checkpoint(digest),
                Ok(None) => break,
                Err(e) => {
                    damage = Some(e);
                    break 'all;
                }
            }
        }
    }
    Replayed { replay, header: found, ended: reader.ended(), left_over: reader.left_over(), damage }
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (ip(), any::<u16>(), any::<u32>(), any::<u32>()).prop_map(|(ip, port, flow, scope)| match ip {
        IpAddr::V4(_) => SocketAddr::new(ip, port),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, port, flow, scope).into(),
    })
}

fn conn() -> impl Strategy<Value = ConnId> {
    (any::<u64>(), any::<bool>())
        .prop_map(|(n, dialled)| if dialled { ConnId::dialled(n) } else { ConnId::accepted(n) })
}

fn reason() -> impl Strategy<Value = Reason> {
    (0..3, 0..CODES.len(), ".*").prop_map(|(fault, code, text)| match fault {
        0 => Reason::peer(CODES[code], text),
        1 => Reason::local(CODES[code], text),
        _ => Reason::limit(CODES[code], text),
    })
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn bridged() -> impl Strategy<Value = Bridged> {
    let made = (bytes(), any::<u32>(), any::<u8>()).prop_map(|(config, rate, channels)| Made {
        config,
        rate,
        channels,
    });
    let packet = (any::<i64>(), bytes()).prop_map(|(pts, data)| Packet { pts, data });
    (proptest::option::of(made), vec(packet, 0..4), any::<u64>(), proptest::option::of(".*"))
        .prop_map(|(made, packets, undecodable, failed)| Bridged { made, packets, undecodable, failed })
}

fn recorded() -> impl Strategy<Value = Recorded> {
    let service = proptest::sample::select(vec![
        Service::Http,
        Service::Rtmp,
        Service::Link,
        Service::Https,
        Service::Rtmps,
        Service::Rtsp,
        Service::Rtsps,
        Service::IceTcp,
        Service::Door,
    ]);
    let file = prop_oneof![bytes().prop_map(Ok), ".*".prop_map(Err)];
    let socket = || any::<u32>().prop_map(SocketId);
    let found = prop_oneof![vec(address(), 0..4).prop_map(Ok), ".*".prop_map(Err)];
    let other =
        prop_oneof![
            Just(()).prop_map(|()| Input::Tick),
            Just(()).prop_map(|()| Input::Drain),
            any::<u32>().prop_map(|permille| Input::Busy { permille }),
            any::<u64>().prop_map(|n| Input::WallClock(WallTime(n))),
            (conn(), service, address(), address())
                .prop_map(|(conn, service, local, remote)| Input::Accepted { conn, service, local, remote }),
            (conn(), address(), address()).prop_map(|(conn, local, remote)| Input::Connected {
                conn,
                local,
                remote
            }),
            (conn(), any::<usize>()).prop_map(|(conn, free)| Input::Writable { conn, free }),
            conn().prop_map(|conn| Input::PeerFinished { conn }),
            (conn(), reason()).prop_map(|(conn, reason)| Input::Closed { conn, reason }),
            (socket(), address(), any::<usize>())
                .prop_map(|(socket, local, max_segments)| Input::UdpOpened { socket, local, max_segments }),
            (socket(), reason()).prop_map(|(socket, reason)| Input::UdpFailed { socket, reason }),
            (any::<u64>(), found)
                .prop_map(|(ask, found)| Input::Answer { ask: AskId(ask), answer: Answer::Resolved(found) }),
            (any::<u64>(), file)
                .prop_map(|(ask, found)| Input::Answer { ask: AskId(ask), answer: Answer::File(found) }),
            (any::<u64>(), bridged())
                .prop_map(|(ask, done)| Input::Answer { ask: AskId(ask), answer: Answer::Bridged(done) }),
            (any::<u64>(), proptest::result::maybe_ok(any::<bool>(), ".{0,20}"))
                .prop_map(|(ask, right)| Input::Answer { ask: AskId(ask), answer: Answer::Checked(right) }),
            (socket(), proptest::option::of(ip()), address(), bytes(), any::<usize>()).prop_map(
                |(socket, src, dst, bytes, refused)| {
                    let mut batch = Box::new(Batch::new(socket));
                    bytes.chunks(50).for_each(|b| batch.push(src, dst, b, 2));
                    Input::Sent { batch, refused }
                }
            ),
        ];
    prop_oneof![
        3 => other.prop_map(Recorded::Other),
        1 => vec(ip(), 0..4).prop_map(Recorded::HostAddresses),
        1 => (conn(), bytes()).prop_map(|(conn, bytes)| Recorded::Received { conn, bytes }),
        1 => (socket(), address(), address(), any::<usize>(), bytes()).prop_map(
            |(socket, local, remote, stride, bytes)| Recorded::Datagram { socket, local, remote, stride, bytes }
        ),
        2 => (any::<u64>(), any::<usize>())
            .prop_map(|(batch, refused)| Recorded::Returned { batch, refused }),
    ]
}

fn recordeds() -> impl Strategy<Value = Vec<(u64, Recorded)>> {
    let after = prop_oneof![Just(0), 0..1_000_000_000u64, any::<u32>().prop_map(u64::from)];
    vec((after, recorded()), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_input_is_read_back_however_the_file_is_cut(inputs in recordeds(), chunk in 1..300usize) {
        let count = inputs.len() as u64;
        let (file, digest) = record(inputs, Some(End::Ended));
        let got = replay(&file, chunk, None);
        prop_assert_eq!(got.damage, None);
        // The digest covers every field of every input (`trace::tests`), so an equal one means equal inputs.
        prop_assert_eq!((got.replay.difference(), got.replay.inputs()), (None, count));
        prop_assert_eq!((got.replay.digest(), got.replay.same_until()), (digest, count));
        prop_assert!(got.ended && got.left_over == 0);
        prop_assert_eq!(got.header, Some(header()));
    }

    #[test]
    fn a_changed_byte_is_seen_before_it_is_replayed(inputs in recordeds(), at in any::<usize>(), by in 1..=255u8) {
        let (mut file, _) = record(inputs, Some(End::Ended));
        let at = at % file.len();
        file[at] ^= by;
        let got = replay(&file, 1000, None);
        prop_assert_eq!(got.replay.difference(), None);
        // A length that became larger looks like a file that was cut; nothing of that block is replayed.
        prop_assert!(got.damage.is_some() || !got.ended, "byte {} of {}", at, file.len());
    }

    #[test]
    fn of_a_cut_file_everything_up_to_the_cut_block_is_replayed(inputs in recordeds(), cut in any::<usize>()) {
        let (file, _) = record(inputs, Some(End::Cut));
        let cut = cut % file.len();
        let got = replay(&file[..cut], 1000, None);
        prop_assert_eq!((got.damage, got.replay.difference(), got.ended), (None, None, false));
        prop_assert_eq!(got.replay.inputs(), got.replay.same_until());
    }

    #[test]
    fn garbage_is_damage_and_never_a_panic(garbage in vec(any::<u8>(), 0..400), chunk in 1..50usize) {
        let mut file = record(vec![(1, Recorded::Other(Input::Tick))], None).0;
        file.extend(&garbage);
        let got = replay(&file, chunk, None);
        prop_assert!(got.replay.inputs() >= 1 && !got.ended);
        replay(&garbage, chunk, None);
    }
}

fn ticks(n: usize) -> Vec<(u64, Recorded)> {
    (0..n).map(|_| (1_000, Recorded::Other(Input::Tick))).collect()
}

#[test]
fn every_sample_of_the_trace_is_read_back() {
    let mut writer = Writer::new(&header()).unwrap();
    for input in crate::trace::tests::inputs() {
        writer.input(&input, Time::ZERO);
    }
    crate::trace::tests::outputs().iter().for_each(|o| writer.output(o));
    writer.finish(End::Ended);
    let file = std::mem::take(writer.ready());
    let mut reader = Reader::new();
    reader.push(&file);
    let mut trace = Trace::default();
    let mut inputs = 0;
    while let Some(item) = reader.next().unwrap() {
        if let Item::Input { at, mark, input } = item {
            inputs += 1;
            assert_eq!(mark, trace.mark());
            match input {
                Recorded::HostAddresses(a) => trace.input(&Input::HostAddresses(&a), at),
                Recorded::Received { conn, bytes } => {
                    trace.input(&Input::Received { conn, bytes: &bytes }, at)
                }
                Recorded::Datagram { socket, local, remote, stride, bytes } => {
                    trace.input(&Input::Datagram { socket, local, remote, stride, bytes: &bytes }, at);
                }
                Recorded::Returned { .. } => panic!("no batch was given out"),
                Recorded::Other(input) => trace.input(&input, at),
            }
        }
    }
    assert_eq!(inputs, crate::trace::tests::inputs().len());
}

#[test]
fn the_first_difference_is_told_by_input_time_and_checkpoints() {
    let (file, _) = record(ticks(30), Some(End::Ended));
    let got = replay(&file, 100, Some(11));
    // Checkpoints stand after the inputs 1, 8, 15 …
    let want = Difference { input: 11, at: Time::from_nanos(11_000), same_until: 8, seen_by: Some(15) };
    assert_eq!(got.replay.difference(), Some(want));
    assert_eq!(got.replay.inputs(), 30, "it goes on");
    // The very last input has no mark after it: the checkpoint alone sees it.
    let last = replay(&file, 100, Some(30)).replay.difference().unwrap();
    assert_eq!((last.input, last.same_until, last.seen_by), (30, 29, Some(30)));
}

#[test]
fn checkpoints_come_by_themselves() {
    let mut writer = Writer::new(&header()).unwrap();
    let start = writer.ready().len();
    for i in 0..CHECKPOINT_INPUTS {
        writer.input(&Input::Tick, Time::from_nanos(i));
    }
    assert_eq!(writer.ready().len(), start);
    writer.input(&Input::Tick, Time::from_nanos(CHECKPOINT_INPUTS));
    assert!(writer.ready().len() > start);
    let before = writer.ready().len();
    let bytes = [7; 40_000];
    for _ in 0..3 {
        writer.input(&Input::Received { conn: ConnId::accepted(1), bytes: &bytes }, Time::ZERO);
    }
    assert!(writer.ready().len() > before + 60_000, "large inputs end a block early");
}

#[test]
fn time_does_not_go_back() {
    let mut writer = Writer::new(&header()).unwrap();
    writer.input(&Input::Tick, Time::from_nanos(50));
    writer.input(&Input::Tick, Time::from_nanos(20));
    writer.finish(End::Ended);
    let mut reader = Reader::new();
    reader.push(writer.ready());
    let mut times = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        if let Item::Input { at, .. } = item {
            times.push(at.as_nanos());
        }
    }
    assert_eq!(times, [50, 50]);
}

#[test]
fn other_files_and_other_versions_are_told_apart() {
    let (mut file, _) = record(ticks(3), Some(End::Ended));
    assert_eq!(replay(b"#!/bin/sh\n", 3, None).damage, Some(Damage::NotARecording));
    assert_eq!(replay(&file[..10], 3, None).damage, None, "too short to tell");
    file[MAGIC.len() + 1] += 1;
    assert_eq!(replay(&file, 3, None).damage, Some(Damage::OtherFormat(FORMAT + 1)));
}

#[test]
fn a_code_that_no_version_knows_is_named() {
    let mut writer = Writer::new(&header()).unwrap();
    let reason = Reason::local("from_the_future", "");
    writer.input(&Input::Closed { conn: ConnId::accepted(1), reason }, Time::ZERO);
    writer.finish(End::Ended);
    let damage = replay(writer.ready(), 100, None).damage.unwrap();
    assert!(
        matches!(&damage, Damage::Unreadable { what, .. } if what.contains("\"from_the_future\"")),
        "{damage}"
    );
}

#[test]
fn secrets_do_not_reach_a_debug_line() {
    assert!(!format!("{:?}", header()).contains("nobody may see"));
}
