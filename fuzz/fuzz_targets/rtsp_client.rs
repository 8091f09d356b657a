//! What a server that is pulled from or pushed to may send. Nothing panics, little is held, and an end is an end.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use proto_core::error::Reason;
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::media::h264::h264_params;
use proto_core::media::track::{CodecConfig, CodecParams, Origin, TrackId};
use proto_core::rand::Rng;
use proto_core::rtsp::client::{Client, Input, Output, Plan, Task, Ways};
use proto_core::time::{Time, WallAnchor};
use proto_core::wire::rtsp::url::Url;
use std::sync::Arc;

fn task(record: bool) -> Task {
    if !record {
        return Task::Play;
    }
    let config = |params| Arc::new(CodecConfig { version: 1, params, origin: Origin::Ingest });
    let h264 =
        h264_params(vec![Bytes::from_static(&[0x67, 66, 0xc0, 12])], vec![Bytes::from_static(&[0x68, 1])]);
    Task::Record(vec![
        (TrackId::VIDEO, config(h264)),
        (TrackId::AUDIO, config(CodecParams::Opus { channels: 2 })),
    ])
}

fuzz_target!(|data: &[u8]| {
    let Some((&how, data)) = data.split_first() else { return };
    let ways = [Ways::TcpThenUdp, Ways::UdpThenTcp, Ways::Tcp][usize::from(how >> 1) % 3];
    let url = Url::parse("rtsp://user:password@10.0.0.7/live").expect("a URL");
    let (limits, rng) = (Arc::new(Limits::default()), Rng::new([0; 32]));
    let (wall, mut now) = (WallAnchor::default(), Time::ZERO);
    let plan = Plan { url, task: task(how & 1 == 1), ways, via: String::new() };
    let mut client = Client::new(plan, limits, rng, wall, now);
    client.handle(Input::Writable(1 << 30), now);
    let mut closed = false;
    let pieces = data.chunks(usize::from(how >> 3).max(1) * 16);
    let n = pieces.len();
    for (i, piece) in pieces.enumerate() {
        client.handle(Input::Received(piece), now);
        client.handle(Input::Datagram { lane: 0, rtcp: how & 2 == 0, bytes: piece }, now);
        if i + 1 == n {
            client.handle(Input::Close(Reason::local("over", "over")), now);
        }
        while let Some(output) = client.poll() {
            assert!(!closed, "nothing follows the end");
            match output {
                Output::UdpWanted { .. } => client.handle(Input::UdpGranted((8_000, 8_001)), now),
                Output::Closed(_) => closed = true,
                _ => {}
            }
        }
        assert_eq!(client.backlog(), 0, "there is credit for everything");
        now += std::time::Duration::from_millis(3);
        client.handle(Input::Tick, now);
    }
    assert!(closed || n == 0, "whoever is told to close does");
});
