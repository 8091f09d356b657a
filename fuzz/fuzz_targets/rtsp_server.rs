//! A whole session: whatever comes. Nothing panics, little is held, and an end is an end.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use proto_core::error::Reason;
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::media::h264::h264_params;
use proto_core::media::track::{CodecConfig, CodecParams, Origin, TrackId};
use proto_core::rand::Rng;
use proto_core::rtsp::server::{Input, Output, Server, Track};
use proto_core::time::{Time, WallAnchor};
use std::sync::Arc;

fn tracks() -> Vec<Track> {
    let config = |params| Arc::new(CodecConfig { version: 1, params, origin: Origin::Ingest });
    let h264 =
        h264_params(vec![Bytes::from_static(&[0x67, 66, 0xc0, 12])], vec![Bytes::from_static(&[0x68, 1])]);
    vec![(TrackId::VIDEO, config(h264)), (TrackId::AUDIO, config(CodecParams::Opus { channels: 2 }))]
}

fuzz_target!(|data: &[u8]| {
    let Some((&how, data)) = data.split_first() else { return };
    let mut server =
        Server::new(Limits::default(), Rng::new([0; 32]), WallAnchor::default(), how & 1 == 0, Time::ZERO);
    server.guard(how & 4 == 0);
    server.handle(Input::Writable(1 << 30), Time::ZERO);
    let (mut closed, mut now) = (false, Time::ZERO);
    for piece in data.chunks(usize::from(how >> 1).max(1) * 16) {
        server.handle(Input::Received(piece), now);
        // The same bytes as a datagram: what a peer may send to its ports.
        server.handle(Input::Datagram { lane: 0, rtcp: how & 2 == 0, bytes: piece }, now);
        while let Some(output) = server.poll() {
            assert!(!closed, "nothing follows the end");
            match output {
                Output::AnnounceRequested { shown, .. } if shown.authorization.is_none() && how & 8 == 0 => {
                    let challenges = vec!["Basic realm=\"x\"".to_owned()];
                    server.handle(
                        Input::Unauthorized { challenges, reason: Reason::peer("unauthorized", "who?") },
                        now,
                    );
                }
                Output::AnnounceRequested { .. } => server.handle(Input::AnnounceAccepted, now),
                Output::PublishRequested { .. } => server.handle(Input::PublishAccepted, now),
                Output::DescribeRequested { .. } => server.handle(Input::Described(tracks()), now),
                Output::PlayRequested => server.handle(Input::PlayAccepted, now),
                Output::UdpWanted { .. } => server.handle(Input::UdpGranted((8_000, 8_001)), now),
                Output::Closed(_) => closed = true,
                _ => {}
            }
        }
        assert_eq!(server.backlog(), 0, "there is credit for everything");
        now += std::time::Duration::from_millis(3);
        server.handle(Input::Tick, now);
    }
});
