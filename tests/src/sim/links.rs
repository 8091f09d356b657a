//! What a link between two nodes does to many streams over a long way that loses packets at random: two QUIC endpoints as
//! nodes have them, and between them a way with latency, loss, a rate and a queue. The table of `cargo sim links`.

use bytes::Bytes;
use determinism::{crypto, os};
use proto_core::cluster::quic::{Endpoint, EndpointConfig, Input, Output};
use proto_core::ids::Epoch;
use proto_core::io::{ConnId, SocketId};
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::media::frame::{FrameKind, NewFrame, Rotation};
use proto_core::media::track::TrackId;
use proto_core::rand::Rng;
use proto_core::time::Time;
use proto_core::tls;
use proto_core::wire::link::{Message, RelayFrame};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between pictures.
const PICTURE: Duration = Duration::from_millis(40);
/// Pictures from one key frame to the next.
const GOP: u64 = 50;
/// Bytes of a picture, and of a key frame: with sound 2 Mbit/s.
const DELTA: usize = 8_280;
const KEY: usize = 8 * DELTA;
/// Time between packets of sound, and their bytes.
const SOUND: Duration = Duration::from_millis(20);
const SOUND_BYTES: usize = 160;
/// What is sent before counting begins.
const WARM: Duration = Duration::from_secs(4);
/// Later than one loss on the way makes a frame: it waited for something else.
const STALLED: Duration = Duration::from_millis(250);

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Streams of 2 Mbit/s.
    pub streams: u64,
    /// Both directions together.
    pub round_trip: Duration,
    /// The share of packets that is lost.
    pub loss: f64,
    /// Megabits a second that the way carries; its queue holds 100 ms of that.
    pub mbps: u64,
    /// The library's loss-based control (Cubic, as TCP has it) in place of ours.
    pub stock: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crossing {
    /// Of frames that came, from one node to the other.
    pub median: Duration,
    /// 99 of 100 frames took no longer.
    pub p99: Duration,
    /// The same of the stream that fared worst.
    pub worst_p99: Duration,
    /// The longest that any frame took.
    pub longest: Duration,
    /// The share of frames that came.
    pub came: f64,
    /// The most streams that were held up at once.
    pub together: usize,
    /// Bytes on the wire for each byte of media.
    pub sent: f64,
}

struct Pipe {
    flying: BTreeMap<(Time, u64), Bytes>,
    numbers: u64,
    free_at: Time,
    bytes: u64,
}

struct Run {
    way: Way,
    chance: [Rng; 2],
    now: Time,
    ends: [Endpoint; 2],
    pipes: [Pipe; 2],
    heard: VecDeque<Output>,
}

fn addr(end: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, end as u8 + 1], 5090))
}

fn endpoint(end: usize, way: Way, seed: u64, start: Instant) -> Endpoint {
    let mut bytes = [end as u8; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let certificate = crypto::certificate(bytes).expect("a certificate can be made");
    let provider = Arc::new(crypto::tls_provider());
    let mut endpoint = Endpoint::new(EndpointConfig {
        limits: Arc::new(Limits::default()),
        rng: Rng::new(bytes),
        start,
        identity: tls::Identity::new(provider, certificate.certificate, certificate.private_key),
        reset_key: bytes,
        stock_control: way.stock,
        socket: SocketId(1),
    })
    .expect("the cryptography can do QUIC");
    endpoint.handle(Input::UdpOpened { max_segments: 10 }, Time::ZERO);
    endpoint
}

impl Run {
    fn tell(&mut self, end: usize, input: Input<'_>) {
        self.ends[end].handle(input, self.now);
        while let Some(said) = self.ends[end].poll() {
            let Output::Datagrams(batch) = said else {
                if end == 0 {
                    self.heard.push_back(said);
                }
                continue;
            };
            for item in &batch.items {
                let whole = &batch.buf[item.start..item.start + item.len];
                whole.chunks(item.segment_size).for_each(|bytes| self.put(end, bytes));
            }
            self.ends[end].handle(Input::Recycle(batch), self.now);
        }
    }

    fn put(&mut self, end: usize, bytes: &[u8]) {
        let (way, now) = (self.way, self.now);
        let pipe = &mut self.pipes[end];
        pipe.numbers += 1;
        pipe.bytes += bytes.len() as u64;
        // A keyed hash of the packet's number, as everywhere in the simulator.
        let chance = self.chance[end].fork("loss", pipe.numbers).u32();
        let free = pipe.free_at.max(now);
        if f64::from(chance) < way.loss * f64::from(u32::MAX) || free.since(now) > Duration::from_millis(100)
        {
            return;
        }
        // With the heads of IPv4 and UDP.
        let bits = (bytes.len() as u64 + 28) * 8;
        pipe.free_at = free + Duration::from_nanos(bits * 1_000 / way.mbps);
        let at = pipe.free_at + way.round_trip / 2;
        pipe.flying.insert((at, pipe.numbers), Bytes::copy_from_slice(bytes));
    }

    fn until(&mut self, until: Time, mut came: impl FnMut(&Output, Time)) {
        loop {
            while let Some(said) = self.heard.pop_front() {
                came(&said, self.now);
            }
            let wakes = [0, 1].map(|n| self.ends[n].deadline().map(|d| d.at.max(self.now)));
            let arrives = [0, 1].map(|n| self.pipes[n].flying.first_key_value().map(|((at, _), _)| *at));
            let next = wakes.iter().chain(&arrives).flatten().min().copied();
            let Some(next) = next.filter(|at| *at <= until) else { break };
            self.now = next;
            if let Some(from) = (0..2).find(|n| arrives[*n] == Some(next)) {
                let Some((_, bytes)) = self.pipes[from].flying.pop_first() else { break };
                let (local, remote) = (addr(1 - from), addr(from));
                self.tell(1 - from, Input::Datagram { local, remote, stride: bytes.len(), bytes: &bytes });
            } else {
                self.tell(usize::from(wakes[0] != Some(next)), Input::Tick);
            }
        }
        self.now = until;
    }
}

/// When a frame is due: its stream, its track, its number on it.
fn frame(stream: u64, track: u8, n: u64) -> RelayFrame {
    let (kind, size, apart) = match (track, n % GOP == stream % GOP) {
        (0, true) => (FrameKind::Key, KEY, PICTURE),
        (0, false) => (FrameKind::Delta, DELTA, PICTURE),
        _ => (FrameKind::Audio, SOUND_BYTES, SOUND),
    };
    let dts = (apart * n as u32).as_nanos() as i64;
    RelayFrame {
        pull: stream + 1,
        seq: n,
        epoch: Epoch { term: 1, count: 1 },
        config_version: 0,
        media: NewFrame {
            track: TrackId(track),
            dts,
            pts: dts,
            kind,
            discardable: false,
            temporal_layer: 0,
            rotation: Rotation::default(),
            capture: None,
            payload: vec![n as u8; size].into(),
        },
    }
}

/// Sends streams over a way for so long, after a moment that is not counted.
pub fn measure(seed: u64, way: Way, time: Duration) -> Crossing {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    os::run(bytes, || inside(seed, way, time)).expect("a run replays here")
}

fn inside(seed: u64, way: Way, time: Duration) -> Crossing {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let (start, rng) = (Instant::now(), Rng::new(bytes));
    let pipe = || Pipe { flying: BTreeMap::new(), numbers: 0, free_at: Time::ZERO, bytes: 0 };
    let mut run = Run {
        way,
        chance: [0, 1].map(|end| rng.fork("way", end)),
        now: Time::ZERO,
        ends: [0, 1].map(|end| endpoint(end, way, seed, start)),
        pipes: [pipe(), pipe()],
        heard: VecDeque::new(),
    };
    // As at a node that pulls: it dials, both prove the key, and it pulls every stream.
    let (dialled, taken) = (ConnId::dialled(1), ConnId::quic(1));
    run.tell(0, Input::Connect { conn: dialled, remote: addr(1) });
    let mut stands = false;
    run.until(Time::from_millis(2_000), |said, _| stands |= matches!(said, Output::Connected { .. }));
    assert!(stands, "the connection stands after two seconds");
    run.tell(0, Input::Proven { conn: dialled });
    run.tell(1, Input::Proven { conn: taken });
    (1..=way.streams).for_each(|pull| run.tell(0, Input::Pulls { conn: dialled, pull, on: true }));
    run.until(Time::from_millis(2_500), |_, _| {});

    let begins = run.now;
    let ends = begins + WARM + time;
    let mut due = BTreeMap::new();
    for stream in 0..way.streams {
        let apart = Duration::from_micros(u64::from(rng.fork("apart", stream).below(40_000)));
        due.insert((begins + apart, stream, 0u8), 0u64);
        due.insert((begins + apart / 2, stream, 1), 0);
    }
    let mut sent: BTreeMap<(u64, u8, u64), Time> = BTreeMap::new();
    let mut took: Vec<(u64, Time, Duration)> = Vec::new();
    let mut media = 0;
    let wire = run.pipes[1].bytes;
    while let Some(((at, stream, track), n)) = due.pop_first() {
        let counts = |t: Time| t >= begins + WARM;
        run.until(at.min(ends), |said, now| {
            if let Output::Message { message: Message::Frame(f), .. } = said
                && let Some(left) = sent.remove(&(f.pull - 1, f.media.track.0, f.seq))
                && counts(left)
            {
                took.push((f.pull - 1, now, now.since(left)));
            }
        });
        if at >= ends {
            break;
        }
        let frame = frame(stream, track, n);
        media += frame.media.payload.len() as u64;
        sent.insert((stream, track, n), at);
        run.tell(1, Input::Frame { conn: taken, frame: Box::new(frame) });
        due.insert((at + if track == 0 { PICTURE } else { SOUND }, stream, track), n + 1);
    }
    let missing = sent.values().filter(|left| **left >= begins + WARM && left.since(ends).is_zero()).count();
    // What left in the last second may still be on its way.
    let late = sent.values().filter(|left| ends.since(**left) < Duration::from_secs(1)).count();
    sum_up(&took, missing.saturating_sub(late), (run.pipes[1].bytes - wire) as f64 / media as f64)
}

fn sum_up(took: &[(u64, Time, Duration)], missing: usize, sent: f64) -> Crossing {
    let at = |list: &mut Vec<Duration>, permille: usize| {
        list.sort_unstable();
        list.get((list.len() * permille / 1_000).min(list.len().saturating_sub(1)))
            .copied()
            .unwrap_or(Duration::MAX)
    };
    let mut all: Vec<Duration> = took.iter().map(|(.., d)| *d).collect();
    let mut of: BTreeMap<u64, Vec<Duration>> = BTreeMap::new();
    let mut held: BTreeMap<u64, std::collections::BTreeSet<u64>> = BTreeMap::new();
    for (stream, when, d) in took {
        of.entry(*stream).or_default().push(*d);
        if *d > STALLED {
            held.entry(when.as_millis() / 40).or_default().insert(*stream);
        }
    }
    Crossing {
        median: at(&mut all, 500),
        p99: at(&mut all, 990),
        worst_p99: of.values_mut().map(|list| at(list, 990)).max().unwrap_or(Duration::MAX),
        longest: all.last().copied().unwrap_or(Duration::MAX),
        came: took.len() as f64 / (took.len() + missing).max(1) as f64,
        together: held.values().map(std::collections::BTreeSet::len).max().unwrap_or(0),
        sent,
    }
}
