//! The RTMP torture vectors (`tests/vectors/rtmp`) against the real server machine.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::media::frame::{FrameKind, Ingest};
use proto_core::rand::Rng;
use proto_core::rtmp::server::{Input, Output, Server};
use proto_core::time::Time;
use proto_core::wire::amf0::{self, Bounds, Value};
use proto_core::wire::rtmp_chunk::ChunkReader;
use proto_core::wire::rtmp_message::{Message, event, kind, parse_user_control};
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of S0, S1 and S2.
const HANDSHAKE: usize = 1 + 2 * 1536;
const NOW: Time = Time::from_millis(1_000);

/// A ping on chunk stream 2, with a type 0 header, so that it depends on nothing but the chunk size.
fn ping(chunk: usize) -> Vec<u8> {
    let mut out = vec![2, 0, 0, 0, 0, 0, 6, 4, 0, 0, 0, 0];
    for (i, piece) in [0, 6, 0xaa, 0xbb, 0xcc, 0xdd].chunks(chunk).enumerate() {
        if i > 0 {
            out.push(0xc2);
        }
        out.extend_from_slice(piece);
    }
    out
}

#[derive(Clone, Debug, Default)]
struct Vector {
    name: String,
    why: String,
    after: String,
    bytes: Vec<u8>,
    finish: bool,
    /// The chunk size in force at its end, if it is none that a ping fits into.
    chunk: Option<usize>,
    open: Option<bool>,
    says: Vec<String>,
    asked: Option<String>,
    media: Option<Vec<String>>,
}

fn hex(line: &str) -> Vec<u8> {
    let word = |w: &str| {
        let (byte, times) = w.split_once('*').unwrap_or((w, "1"));
        let byte = u8::from_str_radix(byte, 16).unwrap_or_else(|e| panic!("{w}: {e}"));
        vec![byte; times.parse().unwrap_or_else(|e| panic!("{w}: {e}"))]
    };
    line.split_whitespace().flat_map(word).collect()
}

/// The vectors and states of a file's text.
fn parse(text: &str) -> (Vec<Vector>, BTreeMap<String, Vector>) {
    let (mut vectors, mut states) = (Vec::new(), BTreeMap::new());
    for block in text.split("\n\n") {
        let (mut v, mut is_state, mut empty) = (Vector::default(), false, true);
        for line in block.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()) {
            empty = false;
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            let words = || value.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            match key {
                "state" => (v.name, is_state) = (value.to_owned(), true),
                "vector" => v.name = value.to_owned(),
                "why" => v.why = value.to_owned(),
                "after" => v.after = value.to_owned(),
                "send" => v.bytes.extend(hex(value)),
                "chunk" => v.chunk = Some(value.parse().expect("a number")),
                "finish" => v.finish = true,
                "expect" => v.open = Some(value == "open"),
                "says" => v.says = words(),
                "asked" => v.asked = Some(value.to_owned()),
                "media" => v.media = Some(words()),
                _ => panic!("{}: the line {line:?} is none of the format", v.name),
            }
        }
        if empty {
            continue;
        }
        if is_state {
            states.insert(v.name.clone(), v);
        } else {
            assert!(v.open.is_some() && !v.why.is_empty(), "{} lacks expect or why", v.name);
            vectors.push(v);
        }
    }
    (vectors, states)
}

fn before(states: &BTreeMap<String, Vector>, name: &str) -> Vec<u8> {
    let state = states.get(name).unwrap_or_else(|| panic!("there is no state {name:?}"));
    let mut bytes = if state.after.is_empty() { Vec::new() } else { before(states, &state.after) };
    bytes.extend_from_slice(&state.bytes);
    bytes
}

/// What came out of a server.
#[derive(Clone, Debug, Default, PartialEq)]
struct Said {
    bytes: Vec<u8>,
    asked: Vec<String>,
    media: Vec<&'static str>,
    closed: Option<&'static str>,
}

fn drain(s: &mut Server, said: &mut Said) {
    while let Some(output) = s.poll() {
        match output {
            Output::Send(bytes) => said.bytes.extend_from_slice(&bytes),
            Output::PublishRequested { stream, key, .. } => {
                said.asked.push(format!("publish {key}"));
                s.handle(Input::PublishAccepted(stream), NOW);
            }
            Output::PlayRequested { stream, key, .. } => {
                said.asked.push(format!("play {key}"));
                s.handle(Input::PlayAccepted(stream), NOW);
            }
            Output::Media(_, Ingest::Config { .. }) => said.media.push("config"),
            Output::Media(_, Ingest::Frame(f)) => said.media.push(match f.kind {
                FrameKind::Key => "key",
                FrameKind::Delta => "picture",
                FrameKind::Audio => "sound",
                FrameKind::Data => "data",
            }),
            Output::Closed(reason) => said.closed = Some(reason.code),
            Output::Reading(_) | Output::Unpublished(_) | Output::Stopped(_) | Output::Log(..) => {}
        }
    }
}

/// The words of what a server sent, and how many of them came in the first `cut` bytes.
fn words(bytes: &[u8], cut: usize) -> Vec<String> {
    let mut reader = ChunkReader::new(&Limits::default());
    reader.set_partial_cap(4 << 20);
    let Some(mut rest) = bytes.get(HANDSHAKE..) else { return Vec::new() };
    let mut out = Vec::new();
    while let Some(message) = reader.read(&mut rest).expect("the server speaks RTMP") {
        if bytes.len() - rest.len() > cut {
            out.extend(message_words(&message));
        }
    }
    out
}

fn message_words(m: &Message) -> Vec<String> {
    match m.kind {
        kind::WINDOW_ACK_SIZE => vec!["window-size".to_owned()],
        kind::USER_CONTROL => match parse_user_control(&m.payload) {
            Some((event::PING_RESPONSE, _)) => vec!["ping-response".to_owned()],
            _ => Vec::new(),
        },
        kind::COMMAND => {
            let all = amf0::parse(&m.payload, Bounds::of(&Limits::default(), true)).expect("AMF0");
            let name = all.first().and_then(Value::as_str).unwrap_or_default().to_owned();
            let code = all.iter().find_map(|v| v.get("code")).and_then(Value::as_str).map(str::to_owned);
            match code {
                Some(code) if name == "onStatus" => vec![code],
                Some(code) => vec![name, code],
                None => vec![name],
            }
        }
        _ => Vec::new(),
    }
}

fn subsequence(wanted: &[String], all: &[String]) -> bool {
    let mut rest = all.iter();
    wanted.iter().all(|w| rest.any(|a| a == w))
}

fn run(state: &[u8], v: &Vector, piece: usize) -> (Said, usize, usize) {
    let mut s = Server::new(Limits::default(), Rng::new([1; 32]), NOW);
    s.handle(Input::Writable(1 << 30), NOW);
    let mut said = Said::default();
    for bytes in state.chunks(piece) {
        s.handle(Input::Received(bytes), NOW);
        drain(&mut s, &mut said);
    }
    assert_eq!(said.closed, None, "{}: its state does not stand", v.name);
    let (cut, media) = (said.bytes.len(), said.media.len());
    for bytes in v.bytes.chunks(piece) {
        s.handle(Input::Received(bytes), NOW);
        drain(&mut s, &mut said);
    }
    if v.finish {
        s.handle(Input::PeerFinished, NOW);
        drain(&mut s, &mut said);
    }
    if said.closed.is_none() && said.bytes.len() >= HANDSHAKE {
        let from = said.bytes.len();
        s.handle(Input::Received(&ping(v.chunk.unwrap_or(128))), NOW);
        drain(&mut s, &mut said);
        let answer = words(&said.bytes, from);
        assert_eq!(answer, ["ping-response"], "{}: the connection is open, but of no use", v.name);
        said.bytes.truncate(from);
    }
    (said, cut, media)
}

#[test]
fn every_vector_has_its_answer_however_it_is_cut() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/rtmp");
    let (mut vectors, mut states) = (Vec::new(), BTreeMap::new());
    for entry in std::fs::read_dir(&dir).expect("the vectors are there") {
        let path = entry.expect("a directory that can be read").path();
        if path.extension().is_some_and(|e| e == "txt") {
            let (v, s) = parse(&std::fs::read_to_string(&path).expect("a text file"));
            vectors.extend(v);
            states.extend(s);
        }
    }
    assert!(vectors.len() >= 180, "{} vectors", vectors.len());
    let mut names: Vec<&str> = vectors.iter().map(|v| v.name.as_str()).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|w| w[0] != w[1]), "each name once");
    let mut wrong = Vec::new();
    for v in &vectors {
        let state = before(&states, &v.after);
        let (said, cut, media) = run(&state, v, usize::MAX);
        let open = said.closed.is_none();
        let heard = words(&said.bytes, cut);
        let took: Vec<String> = said.media[media..].iter().map(|m| (*m).to_owned()).collect();
        let asked = v.asked.as_ref().is_none_or(|a| said.asked.contains(a));
        let fits = v.open == Some(open)
            && subsequence(&v.says, &heard)
            && asked
            && v.media.clone().unwrap_or_default() == took;
        if !fits {
            wrong.push(format!(
                "{}: {:?}, said {heard:?}, asked {:?}, took {took:?}",
                v.name, said.closed, said.asked
            ));
        }
        for piece in [1, 7, 128] {
            assert_eq!(run(&state, v, piece).0, said, "{} in pieces of {piece}", v.name);
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
}
