//! RTMP players in step: each is sent what it would be sent alone, whatever happens to the others.

use super::several::{command, does, message, named};
use super::*;
use crate::hub::{SourceId, StreamId};
use crate::media::frame::{FrameKind, Ingest, NewFrame, Rotation};
use crate::media::track::{CodecParams, TrackId};
use crate::wire::amf0::Value;
use crate::wire::rtmp_message::kind;
use bytes::Bytes;
use std::collections::BTreeMap;

const KEY: &str = "live/a";
const ROOM: usize = 1 << 20;

struct Play {
    bench: Bench,
    stream: StreamId,
    players: Vec<ConnId>,
    /// What each was sent.
    sent: BTreeMap<ConnId, Vec<u8>>,
    frames: i64,
}

fn h264(profile: u8) -> CodecParams {
    let sps = vec![Bytes::copy_from_slice(&[0x67, profile, 0, 30, 0xac])];
    CodecParams::H264 {
        sps,
        pps: vec![Bytes::from_static(&[0x68, 1])],
        size: Some((640, 360)),
        reorders: false,
    }
}

impl Play {
    fn with(players: u64) -> Play {
        let mut bench = Bench::new(|_| {});
        let key = StreamKey::parse(KEY).unwrap();
        let epoch = crate::cluster::Epoch { term: 1, count: 1 };
        let stream = bench.node.hub.publish(&key, epoch, SourceId(1 << 40), bench.now).unwrap();
        let mut play = Play { bench, stream, players: Vec::new(), sent: BTreeMap::new(), frames: 0 };
        play.put(Ingest::Config { track: TrackId::VIDEO, params: h264(66) });
        let asc = Bytes::from_static(&[0x12, 0x10]);
        play.put(Ingest::Config {
            track: TrackId::AUDIO,
            params: CodecParams::Aac { asc, rate: 44_100, channels: 2 },
        });
        play.frame(FrameKind::Key);
        for n in 1..=players {
            let conn = play.bench.accept(n, Service::Rtmp);
            let app = Value::object([("app", Value::string("live"))]);
            let connect = message(kind::COMMAND, 0, &[Value::string("connect"), Value::Number(1.0), app]);
            let ask =
                [vec![3], vec![0; 2 * 1536], connect, command(0, "createStream", &[]), named(1, "play", "a")];
            does(&mut play.bench, conn, &ask.concat());
            play.players.push(conn);
        }
        // Cached pictures first, then live ones.
        play.frame(FrameKind::Delta);
        play.frame(FrameKind::Delta);
        play.sent.clear();
        play
    }

    fn put(&mut self, item: Ingest) {
        let now = self.bench.now;
        self.bench.node.hub.ingest(self.stream, SourceId(1 << 40), item, now);
    }

    fn tell(&mut self, input: Input<'_>) {
        let said = self.bench.tell(input);
        self.keep(&said);
    }

    fn keep(&mut self, said: &[Output]) {
        for output in said {
            if let Output::Send { conn, bytes } = output {
                self.sent.entry(*conn).or_default().extend_from_slice(bytes);
            }
        }
    }

    fn later(&mut self, ms: u64) {
        let said = self.bench.later(Duration::from_millis(ms));
        self.keep(&said);
        // More may wait for the next turn of the loop.
        while self.bench.node.deadline().is_some_and(|d| d.at <= self.bench.now) {
            let said = self.bench.later(Duration::ZERO);
            self.keep(&said);
        }
        self.bench.node.hub.verify().unwrap();
        self.bench.node.verify_in_step().unwrap();
    }

    fn frame(&mut self, kind: FrameKind) {
        self.frames += 1;
        let time = self.frames * 40_000_000;
        let (track, bytes) =
            if kind == FrameKind::Audio { (TrackId::AUDIO, 100) } else { (TrackId::VIDEO, 1_000) };
        self.put(Ingest::Frame(NewFrame {
            track,
            dts: time,
            pts: time,
            kind,
            discardable: false,
            temporal_layer: 0,
            rotation: Rotation::R0,
            capture: None,
            payload: Bytes::from(vec![self.frames as u8; bytes]),
        }));
        self.later(40);
    }

    fn in_step(&self) -> usize {
        self.bench.node.in_step.members()
    }

    fn bytes_of(&self, n: usize) -> &[u8] {
        self.sent.get(&self.players[n]).map_or(&[], Vec::as_slice)
    }

    /// All but those were sent the same; answers how much.
    fn same_but(&self, others: &[usize]) -> usize {
        let all: Vec<&[u8]> =
            (0..self.players.len()).filter(|n| !others.contains(n)).map(|n| self.bytes_of(n)).collect();
        assert!(
            all.windows(2).all(|w| w[0] == w[1]),
            "{:?}",
            all.iter().map(|b| b.len()).collect::<Vec<_>>()
        );
        all[0].len()
    }

    fn media_out(&self, n: usize) -> u64 {
        let node = &self.bench.node;
        let id = node.sessions.of_conn(self.players[n])[0];
        node.bytes_out(node.sessions.get(id).unwrap())
    }
}

#[test]
fn all_are_sent_the_same_and_it_is_counted_for_each() {
    let mut p = Play::with(70);
    assert_eq!(p.in_step(), 70);
    let before = p.media_out(0);
    for kind in [FrameKind::Delta, FrameKind::Audio, FrameKind::Key, FrameKind::Delta] {
        p.frame(kind);
    }
    let sent = p.same_but(&[]);
    assert!(sent > 3_100, "{sent}");
    assert_eq!(p.in_step(), 70);
    for n in [0, 31, 32, 69] {
        assert_eq!(p.media_out(n) - before, sent as u64, "player {n}");
    }
}

#[test]
fn who_has_no_room_gets_all_of_it_later_and_holds_nobody_up() {
    let mut p = Play::with(5);
    let conn = p.players[2];
    p.tell(Input::Writable { conn, free: 10 });
    assert_eq!(p.in_step(), 5, "room is no word from the player");
    p.frame(FrameKind::Delta);
    let sent = p.same_but(&[2]);
    assert!(sent > 1_000);
    assert_eq!((p.bytes_of(2).len(), p.in_step()), (10, 4));
    p.frame(FrameKind::Delta);
    p.tell(Input::Writable { conn, free: ROOM });
    p.frame(FrameKind::Delta);
    p.frame(FrameKind::Delta);
    p.same_but(&[]);
    assert_eq!(p.in_step(), 5);
    assert_eq!(p.media_out(2), p.media_out(1));
}

#[test]
fn who_says_something_or_leaves_is_on_its_own() {
    let mut p = Play::with(6);
    let paused = p.players[1];
    let pause = command(1, "pause", &[Value::Boolean(true), Value::Number(0.0)]);
    p.tell(Input::Received { conn: paused, bytes: &pause });
    p.tell(Input::Closed { conn: p.players[4], reason: Reason::peer("peer_closed", "gone") });
    assert_eq!(p.in_step(), 4);
    let answered = p.bytes_of(1).len();
    p.frame(FrameKind::Delta);
    p.same_but(&[1, 4]);
    assert_eq!((p.bytes_of(1).len(), p.bytes_of(4).len(), p.in_step()), (answered, 0, 4));
    let go_on = command(1, "pause", &[Value::Boolean(false), Value::Number(0.0)]);
    p.tell(Input::Received { conn: paused, bytes: &go_on });
    // From a key frame on.
    for kind in [FrameKind::Delta, FrameKind::Key, FrameKind::Delta] {
        p.frame(kind);
    }
    assert_eq!(p.in_step(), 5);
    let before = p.bytes_of(1).len();
    p.frame(FrameKind::Delta);
    let whole = p.bytes_of(0);
    assert!(p.bytes_of(1)[before..].len() > 1_000 && whole.ends_with(&p.bytes_of(1)[before..]));
}

#[test]
fn what_is_new_to_their_decoders_is_told_to_each_by_its_own_machine() {
    let mut p = Play::with(4);
    p.put(Ingest::Config { track: TrackId::VIDEO, params: h264(77) });
    p.frame(FrameKind::Key);
    let sent = p.same_but(&[]);
    assert!(p.bytes_of(0).windows(4).any(|w| w == [0x67, 77, 0, 30]), "the header is there: {sent}");
    p.frame(FrameKind::Delta);
    p.frame(FrameKind::Delta);
    p.same_but(&[]);
    assert_eq!(p.in_step(), 4);
    // The stream ends: so do they, and nothing of them is left.
    let (stream, now) = (p.stream, p.bench.now);
    p.bench.node.hub.end(stream, Reason::peer("source_gone", "over"), now);
    p.later(1);
    let hub = &p.bench.node.hub;
    assert_eq!((p.in_step(), hub.counts().0, hub.leads()), (0, 0, 0));
    assert!(p.bench.node.sessions.iter().next().is_none());
}
