//! What a server that is played from or published to may send. Nothing panics, little is held, and an end is an end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::error::Reason;
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::rand::Rng;
use proto_core::rtmp::client::{Client, Input, Output, Target, Task};
use proto_core::time::Time;

/// S0 to S2, so that the bytes that follow are messages at once.
const HANDSHAKE: usize = 1 + 2 * 1536;

fuzz_target!(|data: &[u8]| {
    let Some((&how, data)) = data.split_first() else { return };
    let task = if how & 1 == 1 { Task::Publish } else { Task::Play };
    let text = str::to_owned;
    let target = Target { tls: false, host: text("10.0.0.7"), app: text("live"), stream: text("s") };
    let mut now = Time::ZERO;
    let mut client = Client::of_node(target, task, String::new(), Limits::default(), Rng::new([0; 32]), now);
    client.handle(Input::Writable(1 << 30), now);
    let mut hello = [0; HANDSHAKE];
    hello[0] = 3;
    if how & 2 == 0 {
        client.handle(Input::Received(&hello), now);
    }
    let mut closed = false;
    let pieces = data.chunks(usize::from(how >> 2).max(1) * 16);
    let n = pieces.len();
    for (i, piece) in pieces.enumerate() {
        client.handle(Input::Received(piece), now);
        if i + 1 == n {
            client.handle(Input::Close(Reason::local("over", "over")), now);
        }
        while let Some(output) = client.poll() {
            assert!(!closed, "nothing follows the end");
            closed |= matches!(output, Output::Closed(_));
        }
        assert_eq!(client.backlog(), 0, "there is credit for everything");
        now += std::time::Duration::from_millis(3);
        client.handle(Input::Tick, now);
    }
    assert!(closed || n == 0, "whoever is told to close does");
});
