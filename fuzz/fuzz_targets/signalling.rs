//! The websocket dialect: whatever a client says in whatever order, at most one session begins and ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::error::Reason;
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::signalling::{About, Dialect, Input, Output, Way, data};
use proto_core::time::Time;
use std::sync::Arc;

fuzz_target!(|input: &[u8]| {
    let limits = Arc::new(Limits::default());
    let _ = data::of_frame(input, &limits);
    let mut dialect = Dialect::new(limits, "s1", Time::ZERO);
    dialect.handle(Input::Opened, Time::ZERO);
    let (reason, candidates) = (Reason::peer("x", "y"), ["candidate:1".to_owned()]);
    let (mut begun, mut ended, mut at) = (0, 0, Time::ZERO);
    for step in input.split(|b| *b == b'\n') {
        let (Some((what, rest)), true) = (step.split_first(), begun < 2) else { continue };
        let text = String::from_utf8_lossy(rest);
        at += std::time::Duration::from_millis(20);
        dialect.handle(
            match what {
                b'0' => Input::Tick,
                b'1' => Input::SocketClosed,
                b'2' => Input::ChannelOpened,
                b'3' => Input::ChannelClosed,
                b'4' => Input::Available(rest.is_empty()),
                b'5' => Input::Described { sdp: &text, candidates: &candidates },
                b'6' => Input::AnswerTaken,
                b'7' => Input::Started(About::default()),
                b'8' => Input::Failed(&reason),
                b'9' => Input::Data(rest),
                b's' => Input::Switched(Ok((&text, About::default()))),
                b'S' => Input::Switched(Err(&reason)),
                b'U' => Input::Unpublished,
                b'E' => Input::Ended(&reason),
                b'c' => Input::Text { way: Way::Channel, text: &text },
                _ => Input::Text { way: Way::Socket, text: &text },
            },
            at,
        );
        while let Some(output) = dialect.poll() {
            match output {
                Output::Publish { .. } | Output::Offer { .. } => begun += 1,
                Output::End(_) => ended += 1,
                Output::Say { text, .. } => assert!(text.starts_with('{')),
                _ => {}
            }
        }
    }
    assert!(begun <= 1 && ended <= 1);
});
