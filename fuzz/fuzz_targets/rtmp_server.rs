//! A whole session: after a handshake, whatever comes. Nothing panics, little is held, and an end is an end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::rand::Rng;
use proto_core::rtmp::server::{Input, Output, Server};
use proto_core::time::Time;

fuzz_target!(|data: &[u8]| {
    let Some((&how, data)) = data.split_first() else { return };
    let limits = Limits::default();
    let mut server = Server::new(limits.clone(), Rng::new([0; 32]), Time::ZERO);
    server.handle(Input::Writable(1 << 30), Time::ZERO);
    if how & 1 == 0 {
        let mut handshake = vec![0; 1 + 2 * 1536];
        handshake[0] = 3;
        server.handle(Input::Received(&handshake), Time::ZERO);
    }
    let mut closed = false;
    let mut now = Time::ZERO;
    for piece in data.chunks(usize::from(how >> 1).max(1) * 16) {
        server.handle(Input::Received(piece), now);
        while let Some(output) = server.poll() {
            assert!(!closed, "nothing follows the end");
            match output {
                Output::PublishRequested { stream, .. } => server.handle(Input::PublishAccepted(stream), now),
                Output::PlayRequested { stream, .. } => server.handle(Input::PlayAccepted(stream), now),
                Output::Closed(_) => closed = true,
                _ => {}
            }
        }
        assert_eq!(server.backlog(), 0, "there is credit for everything");
        now += std::time::Duration::from_millis(3);
        server.handle(Input::Tick, now);
    }
});
