//! Node-to-node messages: what is read is written back alike, and a link machine gives the same outputs however its
//! bytes are cut.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use proto_core::cluster::NodeId;
use proto_core::cluster::link::{Config, Input, Link, Output, Side};
use proto_core::machine::Machine;
use proto_core::rand::Rng;
use proto_core::time::Time;
use proto_core::wire::link::{decode, encode};
use std::sync::Arc;

fn drain(link: &mut Link, sent: &mut Vec<u8>, said: &mut Vec<Output>) {
    while let Some(output) = link.poll() {
        match output {
            Output::Send(bytes) => sent.extend_from_slice(&bytes),
            output => said.push(output),
        }
    }
}

fn run(bytes: &[u8], chunk: usize) -> (Vec<u8>, Vec<Output>) {
    let config = Config::new(NodeId("here".to_owned()), Arc::default(), Arc::default());
    let remote = ([127, 0, 0, 1], 9).into();
    let mut link = Link::new(config, Side::Listener, remote, Rng::new([1; 32]), Time::ZERO);
    let (mut sent, mut said) = (Vec::new(), Vec::new());
    link.handle(Input::Writable(1 << 20), Time::ZERO);
    for piece in bytes.chunks(chunk) {
        link.handle(Input::Received(piece), Time::ZERO);
        drain(&mut link, &mut sent, &mut said);
    }
    (sent, said)
}

fuzz_target!(|data: &[u8]| {
    if let Ok(Some(message)) = decode(Bytes::copy_from_slice(data)) {
        let written = encode(&message);
        let raw = [&written.head[4..], &written.tail[..]].concat();
        assert_eq!(decode(raw.into()), Ok(Some(message)));
    }
    let Some((&chunk, rest)) = data.split_first() else { return };
    assert_eq!(run(rest, usize::from(chunk) + 1), run(rest, usize::MAX));
});
