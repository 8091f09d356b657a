//! Our websockets against an independent implementation, tungstenite, at either end, over bytes in memory.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use proto_core::buf::Outbox;
use proto_core::http::server::{self, Server};
use proto_core::http::websocket::client::{self, Client, Target};
use proto_core::http::websocket::{Caps, Channel, Input, Output, Side};
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::rand::Rng;
use proto_core::time::Time;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use tungstenite::handshake::{HandshakeError, HandshakeRole, MidHandshake};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

const NOW: Time = Time::ZERO;
/// Around the places where the length of a frame is written otherwise, up to the largest message.
const SIZES: [usize; 9] = [0, 1, 125, 126, 127, 1_000, 65_534, 65_535, 65_536];

/// What tungstenite reads from and writes to.
#[derive(Clone, Default)]
struct Pipe(Rc<RefCell<(VecDeque<u8>, Vec<u8>)>>);

impl Pipe {
    fn give(&self, bytes: &[u8]) {
        self.0.borrow_mut().0.extend(bytes);
    }

    fn sent(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().1)
    }
}

impl Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.0.borrow_mut().0.read(out)? {
            0 => Err(ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Goes on with a handshake that waits for bytes; `more` brings them.
fn shake<R: HandshakeRole>(
    mut got: Result<R::FinalResult, HandshakeError<R>>,
    mut more: impl FnMut(),
) -> R::FinalResult {
    for _ in 0..100 {
        match got {
            Ok(done) => return done,
            Err(HandshakeError::Interrupted(mid)) => {
                more();
                got = MidHandshake::handshake(mid);
            }
            Err(HandshakeError::Failure(error)) => panic!("{error}"),
        }
    }
    panic!("the handshake does not end");
}

/// Everything that tungstenite has to read.
fn read(socket: &mut WebSocket<Pipe>) -> (Vec<Message>, Option<tungstenite::Error>) {
    let mut all = Vec::new();
    loop {
        match socket.read() {
            Ok(message) => all.push(message),
            Err(tungstenite::Error::Io(e)) if e.kind() == ErrorKind::WouldBlock => return (all, None),
            Err(error) => return (all, Some(error)),
        }
    }
}

fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().filter(|m| m.is_text()).map(|m| m.to_text().expect("it is text").to_owned()).collect()
}

#[test]
fn our_server_and_its_client() {
    let pipe = Pipe::default();
    let mut server = Server::new(&Limits::default(), NOW);
    let (mut heard, mut ended) = (Vec::new(), None);
    let mut pump = |server: &mut Server| {
        server.handle(server::Input::Received(&pipe.sent()), NOW);
        server.handle(server::Input::Writable(1 << 24), NOW);
        while let Some(said) = server.poll() {
            match said {
                server::Output::Send(bytes) => pipe.give(&bytes),
                server::Output::Upgrade(_) => {
                    server.handle(server::Input::Accept { subprotocol: None }, NOW);
                    // It is known: messages may have their full size.
                    server.widen();
                }
                server::Output::Text(text) => heard.push(text),
                server::Output::SocketEnded { code, .. } => ended = Some(code),
                _ => {}
            }
            server.handle(server::Input::Writable(1 << 24), NOW);
        }
        (std::mem::take(&mut heard), ended)
    };
    let (mut socket, answer) = shake(tungstenite::client("ws://a/live/?id=s1", pipe.clone()), || {
        pump(&mut server);
    });
    assert_eq!(answer.status(), 101);
    for size in SIZES {
        let text = "x".repeat(size);
        socket.send(Message::text(text.clone())).expect("it is written to memory");
        assert_eq!(pump(&mut server).0, std::slice::from_ref(&text));
        server.handle(server::Input::Text(&text), NOW);
        pump(&mut server);
        assert_eq!(texts(&read(&mut socket).0), [text]);
    }
    socket.send(Message::Ping(b"hello".as_slice().into())).expect("it is written to memory");
    pump(&mut server);
    assert_eq!(read(&mut socket).0, [Message::Pong(b"hello".as_slice().into())]);
    let frame = CloseFrame { code: CloseCode::Away, reason: "bye".into() };
    socket.close(Some(frame.clone())).expect("it is written to memory");
    assert_eq!(pump(&mut server).1, Some(1001));
    let (messages, error) = read(&mut socket);
    assert!(matches!(&messages[..], [Message::Close(Some(f))] if f.code == CloseCode::Away), "{messages:?}");
    assert!(matches!(error, Some(tungstenite::Error::ConnectionClosed) | None), "{error:?}");
}

#[test]
fn our_client_and_its_server() {
    let pipe = Pipe::default();
    let target = Target { host: "a:5080".to_owned(), path: "/live/?id=s1".to_owned(), headers: vec![] };
    let mut client = Client::new(&target, &Limits::default(), Rng::new([8; 32]), NOW);
    let mut heard = Vec::new();
    let mut pump = |client: &mut Client| {
        client.handle(Input::Received(&pipe.sent()), NOW);
        client.handle(Input::Writable(1 << 24), NOW);
        while let Some(said) = client.poll() {
            match said {
                client::Output::Send(bytes) => pipe.give(&bytes),
                other => heard.push(other),
            }
        }
        std::mem::take(&mut heard)
    };
    pump(&mut client);
    let mut socket = shake(tungstenite::accept(pipe.clone()), || panic!("the request came whole"));
    assert_eq!(pump(&mut client), [client::Output::Opened]);
    for size in SIZES {
        let text = "ü".repeat(size / 2);
        socket.send(Message::text(text.clone())).expect("it is written to memory");
        assert_eq!(pump(&mut client), [client::Output::Text(text.clone())]);
        client.handle(Input::Text(&text), NOW);
        pump(&mut client);
        assert_eq!(texts(&read(&mut socket).0), [text]);
    }
    client.handle(Input::Close { code: 1013, text: "again" }, NOW);
    pump(&mut client);
    let (messages, _) = read(&mut socket);
    assert!(matches!(&messages[..], [Message::Close(Some(f))] if f.code == CloseCode::Again), "{messages:?}");
    assert!(matches!(&pump(&mut client)[..], [client::Output::Closed(r)] if r.code == "ws_closed"));
}

/// What our channel makes of bytes: the messages, and the code where it found fault.
fn ours(side: Side, bytes: &[u8]) -> (Vec<String>, Option<u16>) {
    let mut channel = Channel::new(side, Outbox::default(), Caps::new(&Limits::default()), NOW);
    channel.handle(Input::Received(bytes), NOW);
    let (mut texts, mut ended) = (Vec::new(), None);
    while let Some(said) = channel.poll() {
        match said {
            Output::Text(text) => texts.push(text),
            Output::Ended { code, .. } => ended = Some(code),
            _ => {}
        }
    }
    (texts, ended)
}

/// The seeds of tungstenite's own fuzzing, where `HEADWATER_CORPORA` points to a copy, and noise made of good frames: what we
/// read, it reads too, and where it reads on we say what must not be.
#[test]
fn what_we_read_it_reads_as_well() {
    let mut inputs: Vec<Vec<u8>> = Vec::new();
    if let Some(dir) = std::env::var_os("HEADWATER_CORPORA") {
        for part in ["read_message_server", "read_message_client"] {
            let files = std::fs::read_dir(std::path::Path::new(&dir).join("websocket").join(part));
            let files = files.expect("HEADWATER_CORPORA has websocket/").flatten();
            inputs.extend(files.filter_map(|f| std::fs::read(f.path()).ok()));
        }
        assert!(inputs.len() > 50, "the seeds are there");
    }
    let mut rng = Rng::new([3; 32]);
    for n in 0..3_000 {
        let key = (n % 2 == 0).then(|| rng.bytes());
        let mut bytes = Vec::new();
        for _ in 0..1 + rng.below(4) {
            let mut payload = vec![0; rng.below(200) as usize];
            rng.fill(&mut payload);
            payload.iter_mut().for_each(|b| *b &= 0x7f);
            let at = bytes.len();
            bytes.extend(proto_core::wire::websocket::frame(
                proto_core::wire::websocket::Opcode::Text,
                &payload,
                key,
            ));
            if rng.below(4) == 0 {
                bytes[at] = rng.u32() as u8;
            }
        }
        inputs.push(bytes);
    }
    let mut both = 0;
    for bytes in &inputs {
        for role in [Role::Server, Role::Client] {
            let side = match role {
                Role::Server => Side::Server,
                Role::Client => Side::Client(Box::new(Rng::new([1; 32]))),
            };
            let (texts_ours, ended) = ours(side, bytes);
            let pipe = Pipe::default();
            pipe.give(bytes);
            let config =
                WebSocketConfig::default().max_message_size(Some(64 << 10)).max_frame_size(Some(64 << 10));
            let (messages, error) = read(&mut WebSocket::from_raw_socket(pipe, role, Some(config)));
            let texts_its = texts(&messages);
            assert!(texts_its.starts_with(&texts_ours), "{bytes:x?}: {texts_ours:?} and {texts_its:?}");
            both += texts_ours.len();
            // Text that is not UTF-8 it sees in a part of a message; we look at whole ones.
            use tungstenite::Error as E;
            if let Some(error) = error.filter(|e| !matches!(e, E::ConnectionClosed | E::Utf8(_))) {
                assert!(ended.is_some(), "{bytes:x?}: it found fault, {error}, and we none");
            }
        }
    }
    assert!(both > 1_000, "{both} messages were read by both");
}
