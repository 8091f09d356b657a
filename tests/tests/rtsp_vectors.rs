//! The torture vectors of `tests/vectors/rtsp` against the real server machine, in one piece and byte by byte.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "the vectors are files")]

use bytes::Bytes;
use proto_core::error::Reason;
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::media::h264::h264_params;
use proto_core::media::track::{CodecConfig, CodecParams, Origin, TrackId};
use proto_core::rand::Rng;
use proto_core::rtsp::server::{Input, Output, Server, Track};
use proto_core::time::{Time, WallAnchor};
use proto_core::wire::rtsp::{Caps, Item, Reader, Response};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
struct Vector {
    file: String,
    name: String,
    lines: Vec<(String, String)>,
}

fn vectors() -> Vec<Vector> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/rtsp");
    let mut files: Vec<_> =
        std::fs::read_dir(dir).expect("the vectors").map(|f| f.expect("a file").path()).collect();
    files.sort();
    let mut out: Vec<Vector> = Vec::new();
    for path in files.iter().filter(|p| p.extension().is_some_and(|e| e == "txt")) {
        let file = path.file_name().expect("a name").to_string_lossy().into_owned();
        for line in std::fs::read_to_string(path).expect("text").lines() {
            if let Some(name) = line.strip_prefix("== ") {
                out.push(Vector { file: file.clone(), name: name.to_owned(), lines: Vec::new() });
            } else if !line.is_empty() && !line.starts_with('#') {
                let (kind, text) = line.split_once(':').unwrap_or_else(|| panic!("{file}: {line}"));
                let text = text.strip_prefix(' ').unwrap_or(text);
                out.last_mut().expect("a name first").lines.push((kind.to_owned(), text.to_owned()));
            }
        }
    }
    out
}

/// `\r`, `\xNN` and the like, and `{text*N}`.
fn escaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let e = rest.chars().next().expect("an escape");
                rest = &rest[1..];
                match e {
                    'r' => out.push(b'\r'),
                    'n' => out.push(b'\n'),
                    't' => out.push(b'\t'),
                    '0' => out.push(0),
                    'x' => {
                        out.push(u8::from_str_radix(&rest[..2], 16).expect("two hexadecimal digits"));
                        rest = &rest[2..];
                    }
                    other => out.push(other as u8),
                }
            }
            '{' => {
                let end = rest.find('}').expect("a closing brace");
                let (what, times) = rest[..end].rsplit_once('*').expect("a count");
                out.extend(escaped(what).repeat(times.parse().expect("a number")));
                rest = &rest[end + 1..];
            }
            other => out.extend(other.to_string().bytes()),
        }
    }
    out
}

fn tracks() -> Vec<Track> {
    let config = |params| Arc::new(CodecConfig { version: 1, params, origin: Origin::Ingest });
    let h264 =
        h264_params(vec![Bytes::from_static(&[0x67, 66, 0xc0, 12])], vec![Bytes::from_static(&[0x68, 1])]);
    vec![(TrackId::VIDEO, config(h264)), (TrackId::AUDIO, config(CodecParams::Opus { channels: 2 }))]
}

struct Run {
    server: Server,
    now: Time,
    reader: Reader,
    said: VecDeque<Item>,
    closed: bool,
    step: usize,
}

impl Run {
    fn new(step: usize) -> Run {
        let limits = Limits::default();
        let mut server = Server::new(limits, Rng::new([1; 32]), WallAnchor::default(), true, Time::ZERO);
        server.handle(Input::Writable(1 << 30), Time::ZERO);
        let caps = Caps { line: 9_000, headers: 50, head: 20_000, message: 40_000 };
        let mut reader = Reader::new(caps);
        (0..=255).for_each(|c| reader.set_channel(c, true));
        Run { server, now: Time::ZERO, reader, said: VecDeque::new(), closed: false, step }
    }

    fn drain(&mut self) {
        while let Some(output) = self.server.poll() {
            let now = self.now;
            match output {
                Output::Send(bytes) => {
                    let mut bytes = &bytes[..];
                    while let Some(item) = self.reader.read(&mut bytes).expect("the server's own bytes") {
                        self.said.push_back(item);
                    }
                }
                Output::DescribeRequested { key, .. } if key.as_str() == "live/s" => {
                    self.server.handle(Input::Described(tracks()), now);
                }
                Output::DescribeRequested { key, .. } => {
                    let reason = Reason::peer("not_found", format!("{key} is not live"));
                    self.server.handle(Input::PlayRefused(reason), now);
                }
                Output::PlayRequested => self.server.handle(Input::PlayAccepted, now),
                Output::PublishRequested { key, .. } if key.as_str() == "live/taken" => {
                    let reason = Reason::peer("name_busy", "the name is taken");
                    self.server.handle(Input::PublishRefused(reason), now);
                }
                Output::PublishRequested { .. } => self.server.handle(Input::PublishAccepted, now),
                Output::UdpWanted { .. } => self.server.handle(Input::UdpGranted((8_000, 8_001)), now),
                Output::Closed(_) => self.closed = true,
                _ => {}
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.step) {
            if !self.closed {
                self.server.handle(Input::Received(piece), self.now);
                self.drain();
            }
        }
    }

    fn wait(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(deadline) = self.server.deadline().filter(|d| d.at <= end) {
            self.now = self.now.max(deadline.at);
            self.server.handle(Input::Tick, self.now);
            self.drain();
        }
        self.now = end;
    }

    fn expect(&mut self, wanted: &str) {
        match wanted.split_once(' ').unwrap_or((wanted, "")) {
            ("closed", _) => assert!(self.closed, "the connection is open; said {:?}", self.said),
            ("nothing", _) => assert!(self.said.is_empty() && !self.closed, "{:?}", self.said),
            ("frame", channel) => match self.said.pop_front() {
                Some(Item::Frame { channel: c, .. }) => assert_eq!(c.to_string(), channel),
                other => panic!("wanted a packet on {channel}, got {other:?}"),
            },
            (status, header) => {
                let Some(Item::Response(response)) = self.said.pop_front() else {
                    panic!("wanted {wanted}, got nothing (closed: {})", self.closed)
                };
                assert_eq!(response.status.to_string(), status, "{response:?}");
                check_header(&response, header);
            }
        }
    }
}

fn check_header(response: &Response, wanted: &str) {
    if let Some(name) = wanted.strip_prefix('!') {
        assert_eq!(response.headers.get(name), None);
    } else if !wanted.is_empty() {
        let (name, part) = wanted.split_once(": ").expect("Name: part");
        let value = response.headers.get(name).unwrap_or_else(|| panic!("no {name} in {response:?}"));
        assert!(value.contains(part), "{name}: {value} has no {part}");
    }
}

fn play(run: &mut Run, lines: &[(String, String)], parts: &BTreeMap<&str, &Vector>) {
    for (kind, text) in lines {
        match kind.as_str() {
            "C" => run.send(format!("{text}\r\n").as_bytes()),
            "c" => run.send(&escaped(text)),
            "SDP" => {
                let body = if text.is_empty() { String::new() } else { text.replace('|', "\r\n") + "\r\n" };
                let head = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n", body.len());
                run.send((head + &body).as_bytes());
            }
            "WAIT" => run.wait(text.parse().expect("seconds")),
            "USE" => play(run, &parts[format!("@{text}").as_str()].lines, parts),
            "S" => run.expect(text),
            other => panic!("{other} is no kind of line"),
        }
    }
}

#[test]
fn every_vector_is_answered_as_it_says_however_it_is_cut() {
    let all = vectors();
    let parts: BTreeMap<&str, &Vector> =
        all.iter().filter(|v| v.name.starts_with('@')).map(|v| (v.name.as_str(), v)).collect();
    let mut failed = Vec::new();
    let mut count = 0;
    for vector in all.iter().filter(|v| !v.name.starts_with('@')) {
        count += 1;
        assert!(vector.lines.iter().any(|(k, _)| k == "S"), "{} expects nothing", vector.name);
        for step in [usize::MAX, 1, 7] {
            let result = std::panic::catch_unwind(|| {
                let mut run = Run::new(step);
                play(&mut run, &vector.lines, &parts);
                assert!(run.said.is_empty(), "not named: {:?}", run.said);
                let may_close = vector.lines.iter().any(|(k, t)| k == "S" && t == "closed");
                assert!(may_close || !run.closed, "the connection was closed");
            });
            if result.is_err() {
                failed.push(format!("{} in {} (pieces of {step})", vector.name, vector.file));
            }
        }
    }
    assert!(count >= 100, "only {count} vectors");
    assert!(failed.is_empty(), "{} failed: {failed:#?}", failed.len());
}
