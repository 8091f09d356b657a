//! Websockets: no input may panic at either end, no cut between reads may change what is seen, and whatever text one of our
//! ends sends, the other reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::buf::Outbox;
use proto_core::http::websocket::{Caps, Channel, Input, Output, Side};
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::rand::Rng;
use proto_core::time::Time;

#[derive(Debug, Default, PartialEq)]
struct Seen {
    sent: Vec<u8>,
    texts: Vec<String>,
    ended: Option<u16>,
    closed: Option<&'static str>,
}

fn channel(client: bool) -> Channel {
    let side = if client { Side::Client(Box::new(Rng::new([5; 32]))) } else { Side::Server };
    let mut channel = Channel::new(side, Outbox::default(), Caps::new(&Limits::default()), Time::ZERO);
    channel.handle(Input::Writable(1 << 24), Time::ZERO);
    channel
}

fn drain(channel: &mut Channel, seen: &mut Seen) {
    while let Some(output) = channel.poll() {
        assert!(seen.closed.is_none(), "the last output is the last");
        match output {
            Output::Send(bytes) => seen.sent.extend_from_slice(&bytes),
            Output::Text(text) => {
                assert!(seen.ended.is_none() && text.len() <= Limits::default().ws_message_bytes);
                seen.texts.push(text);
            }
            Output::Ended { code, .. } => assert_eq!(seen.ended.replace(code), None),
            Output::Closed(reason) => seen.closed = Some(reason.code),
        }
    }
}

fn run<'a>(client: bool, chunks: impl Iterator<Item = &'a [u8]>) -> Seen {
    let (mut seen, mut channel) = (Seen::default(), channel(client));
    for chunk in chunks {
        channel.handle(Input::Received(chunk), Time::ZERO);
        drain(&mut channel, &mut seen);
    }
    channel.handle(Input::PeerFinished, Time::ZERO);
    drain(&mut channel, &mut seen);
    assert!(seen.closed.is_some() && seen.ended.is_some());
    seen
}

fuzz_target!(|data: &[u8]| {
    let Some((&step, bytes)) = data.split_first() else { return };
    let client = step & 1 != 0;
    let whole = run(client, std::iter::once(bytes));
    assert_eq!(whole, run(client, bytes.chunks(usize::from(step).max(1))));

    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (mut sent, mut from) = (Seen::default(), channel(!client));
    from.handle(Input::Text(text), Time::ZERO);
    from.handle(Input::Close { code: 1000, text }, Time::ZERO);
    drain(&mut from, &mut sent);
    if text.len() <= Limits::default().ws_message_bytes {
        let got = run(client, std::iter::once(&sent.sent[..]));
        assert_eq!((got.texts, got.ended), (vec![text.to_owned()], Some(1000)));
    }
});
