//! The HTTP/1.1 server: no input may panic, no cut between reads may change what a client sees, and no request is given
//! out whose body is not exactly what its head announced.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::http::message::Response;
use proto_core::http::router::route;
use proto_core::http::server::{Input, Output, Server};
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::time::Time;

#[derive(Debug, Default, PartialEq)]
struct Seen {
    sent: Vec<u8>,
    requests: Vec<String>,
    closed: Option<&'static str>,
}

fn drain(server: &mut Server, seen: &mut Seen) {
    while let Some(output) = server.poll() {
        match output {
            Output::Send(bytes) => seen.sent.extend_from_slice(&bytes),
            Output::Request(request) => {
                let announced = request.header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
                assert_eq!(request.body.len(), announced);
                assert!(request.header("transfer-encoding").is_none());
                let _ = route(&request);
                seen.requests.push(format!("{request:?}"));
                server.handle(Input::Respond(Response::text(200, "ok")), Time::ZERO);
            }
            Output::Upgrade(request) => {
                assert!(request.body.is_empty());
                seen.requests.push(format!("{request:?}"));
                server.handle(Input::Accept { subprotocol: None }, Time::ZERO);
            }
            Output::Text(text) => seen.requests.push(text),
            Output::SocketEnded { code, text } => seen.requests.push(format!("{code} {text}")),
            Output::Closed(reason) => seen.closed = Some(reason.code),
            Output::Log(..) => {}
        }
        server.handle(Input::Writable(1 << 20), Time::ZERO);
    }
}

fn run<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Seen {
    let mut seen = Seen::default();
    let mut server = Server::new(&Limits::default(), Time::ZERO);
    server.handle(Input::Writable(1 << 20), Time::ZERO);
    for chunk in chunks {
        server.handle(Input::Received(chunk), Time::ZERO);
        drain(&mut server, &mut seen);
    }
    server.handle(Input::PeerFinished, Time::ZERO);
    drain(&mut server, &mut seen);
    assert!(seen.closed.is_some());
    seen
}

fuzz_target!(|data: &[u8]| {
    // Past this size one read could overflow what may be pipelined, which smaller reads do not.
    let Some((step, bytes)) = data.split_first().filter(|(_, b)| b.len() < 30_000) else { return };
    let whole = run(std::iter::once(bytes));
    let cut = run(bytes.chunks(usize::from(*step).max(1)));
    assert_eq!(whole, cut);
});
