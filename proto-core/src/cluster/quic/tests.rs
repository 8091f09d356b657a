use super::*;
use crate::ids::Epoch;
use crate::media::frame::{FrameKind, NewFrame, Rotation};
use std::collections::BTreeMap;

const A: &str = "10.0.0.1:5090";
const B: &str = "10.0.0.2:5090";
const DIALLED: ConnId = ConnId::dialled(1);
const CAME: ConnId = ConnId::quic(1);

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn identity() -> tls::Identity {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["node".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    tls::Identity::new(provider, certificate.der().to_vec(), key.serialize_der())
}

fn endpoint(seed: u8, reset: u8) -> Endpoint {
    let mut endpoint = Endpoint::new(EndpointConfig {
        limits: Arc::default(),
        rng: Rng::new([seed; 32]),
        start: base(),
        identity: identity(),
        reset_key: [reset; 32],
        stock_control: false,
        socket: SocketId(1),
    })
    .unwrap();
    endpoint.handle(Input::UdpOpened { max_segments: 10 }, Time::ZERO);
    endpoint
}

/// One moment for all endpoints of a test.
#[allow(clippy::disallowed_methods)]
fn base() -> Instant {
    static BASE: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *BASE.get_or_init(Instant::now)
}

/// Whether a datagram gets through: its number and its first byte.
type Passes = Box<dyn FnMut(u64, &[u8]) -> bool>;

/// Two endpoints, 20 ms apart.
struct Pair {
    ends: [Endpoint; 2],
    said: [Vec<Output>; 2],
    now: Time,
    flying: BTreeMap<(Time, u64), (usize, Vec<u8>)>,
    sent: u64,
    passes: Passes,
}

impl Pair {
    fn new() -> Pair {
        Pair {
            ends: [endpoint(1, 1), endpoint(2, 2)],
            said: [Vec::new(), Vec::new()],
            now: Time::ZERO,
            flying: BTreeMap::new(),
            sent: 0,
            passes: Box::new(|_, _| true),
        }
    }

    /// Two endpoints with a connection that proved the key, and a pull of the first from the second.
    fn linked() -> Pair {
        let mut p = Pair::new();
        p.tell(0, Input::Connect { conn: DIALLED, remote: addr(B) });
        p.run(200);
        for (end, conn) in [(0, DIALLED), (1, CAME)] {
            let connected = |o: &Output| matches!(o, Output::Connected { conn: c, .. } if *c == conn);
            assert!(p.said[end].iter().any(connected), "{:?}", p.said[end]);
            p.tell(end, Input::Proven { conn });
        }
        p.tell(0, Input::Pulls { conn: DIALLED, pull: 7, on: true });
        p.run(100);
        p.said = [Vec::new(), Vec::new()];
        p
    }

    fn tell(&mut self, end: usize, input: Input<'_>) {
        self.ends[end].handle(input, self.now);
        while let Some(o) = self.ends[end].poll() {
            match o {
                Output::Datagrams(batch) => {
                    for t in &batch.items {
                        for bytes in batch.buf[t.start..t.start + t.len].chunks(t.segment_size) {
                            self.sent += 1;
                            if (self.passes)(self.sent, bytes) {
                                let at = self.now + Duration::from_millis(20);
                                self.flying.insert((at, self.sent), (1 - end, bytes.to_vec()));
                            }
                        }
                    }
                    self.ends[end].handle(Input::Recycle(batch), self.now);
                }
                o => self.said[end].push(o),
            }
        }
    }

    fn run(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        loop {
            let wakes = [0, 1].map(|n| self.ends[n].deadline().map(|d| d.at.max(self.now)));
            let datagram = self.flying.first_key_value().map(|((at, _), _)| *at);
            let next = wakes.into_iter().flatten().chain(datagram).min();
            let Some(next) = next.filter(|at| *at <= until) else { break };
            self.now = next;
            if datagram == Some(next) {
                let (_, (to, bytes)) = self.flying.pop_first().unwrap();
                let (local, remote) = if to == 0 { (addr(A), addr(B)) } else { (addr(B), addr(A)) };
                self.tell(to, Input::Datagram { local, remote, stride: bytes.len(), bytes: &bytes });
            } else {
                let end = usize::from(wakes[0] != Some(next));
                self.tell(end, Input::Tick);
            }
        }
        self.now = until;
    }

    fn frame(&mut self, seq: u64, kind: FrameKind, track: u8, size: usize) {
        let frame = RelayFrame {
            pull: 7,
            seq,
            epoch: Epoch { term: 1, count: 1 },
            config_version: 0,
            media: NewFrame {
                track: TrackId(track),
                dts: seq as i64 * 40_000_000,
                pts: 0,
                kind,
                discardable: false,
                temporal_layer: 0,
                rotation: Rotation::default(),
                capture: None,
                payload: vec![seq as u8; size].into(),
            },
        };
        self.tell(1, Input::Frame { conn: CAME, frame: Box::new(frame) });
    }

    /// The numbers of the frames that came, and how many were left out.
    fn got(&self) -> (Vec<u64>, u64) {
        let mut lost = 0;
        let mut seqs = Vec::new();
        for o in &self.said[0] {
            match o {
                Output::Message { message: Message::Frame(f), .. } => {
                    assert!(f.media.payload.iter().all(|b| *b == f.seq as u8), "damaged");
                    seqs.push(f.seq);
                }
                Output::Lost { frames, .. } => lost += frames,
                _ => {}
            }
        }
        (seqs, lost)
    }
}

#[test]
fn both_ends_have_the_same_binding_and_another_connection_another() {
    let mut p = Pair::new();
    p.tell(0, Input::Connect { conn: DIALLED, remote: addr(B) });
    p.tell(0, Input::Connect { conn: ConnId::dialled(2), remote: addr(B) });
    p.run(300);
    let bindings = |said: &[Output]| -> Vec<[u8; 32]> {
        said.iter()
            .filter_map(|o| if let Output::Connected { binding, .. } = o { Some(*binding) } else { None })
            .collect()
    };
    let (a, b) = (bindings(&p.said[0]), bindings(&p.said[1]));
    assert_eq!(a.len(), 2);
    assert_eq!(a, b);
    assert_ne!(a[0], a[1]);
}

/// S10: what a forged address is made to be sent is a Retry, shorter than what asked for it, and nothing is kept.
#[test]
fn an_unvalidated_first_packet_is_answered_by_a_shorter_retry_and_forgotten() {
    let mut dialler = endpoint(1, 1);
    dialler.handle(Input::Connect { conn: DIALLED, remote: addr(B) }, Time::ZERO);
    dialler.handle(Input::Tick, Time::ZERO);
    let mut first = Vec::new();
    while let Some(o) = dialler.poll() {
        if let Output::Datagrams(batch) = o {
            first = batch.buf[..batch.items[0].segment_size].to_vec();
        }
    }
    assert!(first.len() >= 1_200);
    let mut listener = endpoint(2, 2);
    let mut ask = |bytes: &[u8], at: u64| {
        let input = Input::Datagram { local: addr(B), remote: addr(A), stride: bytes.len().max(1), bytes };
        listener.handle(input, Time::from_millis(at));
        let mut said = Vec::new();
        while let Some(o) = listener.poll() {
            match o {
                Output::Datagrams(batch) => said.extend(batch.buf.iter().copied()),
                // Counted, and no more.
                Output::Dropped(_) => {}
                o => panic!("a stranger is told of: {o:?}"),
            }
        }
        assert!(said.len() <= bytes.len(), "{} bytes for {}", said.len(), bytes.len());
        assert_eq!(listener.counts(), (0, 0), "nothing is kept");
        assert_eq!(listener.deadline(), None);
        said
    };
    for n in 0..100 {
        let said = ask(&first, n);
        // Long header, type 3 (RFC 9000 section 17.2.5).
        assert_eq!(said[0] & 0xf0, 0xf0, "a Retry");
        assert!(said.len() < 150, "{}", said.len());
    }
    // An unknown version, a short packet of nobody, a token that is none, what is cut short or damaged.
    let mut unknown = first.clone();
    unknown[1..5].copy_from_slice(&[0x1a, 0x2a, 0x3a, 0x4a]);
    ask(&unknown, 200);
    for len in 0..1_200 {
        ask(&vec![0x40; len], 300 + 50 * len as u64);
        ask(&first[..len], 300 + 50 * len as u64);
    }
    for at in 0..first.len() {
        let mut damaged = first.clone();
        damaged[at] ^= 0x55;
        ask(&damaged, 100_000 + at as u64);
    }
}

#[test]
fn control_bytes_arrive_in_order_and_the_last_words_too() {
    let mut p = Pair::linked();
    p.passes = Box::new(|n, _| n % 7 != 0);
    for n in 0..200u32 {
        let bytes = Bytes::from(n.to_be_bytes().repeat(100));
        p.tell(0, Input::Send { conn: DIALLED, bytes });
    }
    p.tell(0, Input::Close { conn: DIALLED, now: false });
    p.run(900);
    let came: Vec<u8> = p.said[1]
        .iter()
        .filter_map(|o| if let Output::Received { bytes, .. } = o { Some(bytes.to_vec()) } else { None })
        .flatten()
        .collect();
    let sent: Vec<u8> = (0..200u32).flat_map(|n| n.to_be_bytes().repeat(100)).collect();
    assert_eq!(came, sent);
    assert!(p.said[1].iter().any(|o| matches!(o, Output::PeerFinished { .. })));
    assert!(p.said[1].iter().any(|o| matches!(o, Output::Closed { .. })));
    p.run(20_000);
    assert_eq!((p.ends[0].counts(), p.ends[1].counts()), ((0, 0), (0, 0)), "nothing is left");
    assert_eq!((p.ends[0].deadline(), p.ends[1].deadline()), (None, None));
}

#[test]
fn groups_come_in_order_whatever_is_lost() {
    let mut p = Pair::linked();
    let mut dice = Rng::new([9; 32]);
    p.passes = Box::new(move |_, _| dice.below(100) >= 10);
    for seq in 0..250 {
        let kind = if seq % 25 == 0 { FrameKind::Key } else { FrameKind::Delta };
        p.frame(seq, kind, 0, if seq % 25 == 0 { 20_000 } else { 4_000 });
        p.run(40);
    }
    p.run(3_000);
    let (seqs, lost) = p.got();
    assert!(seqs.windows(2).all(|w| w[0] < w[1]), "in order");
    assert_eq!((seqs.len() as u64 + lost, lost), (250, 0));
    assert!(p.ends[1].session(CAME).unwrap().out.is_quiet());
}

/// A group whose stream gets stuck holds up the next one for a second at most, and is counted.
#[test]
fn a_stuck_group_is_left_out_and_counted() {
    let mut p = Pair::linked();
    let stuck = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = stuck.clone();
    p.passes = Box::new(move |_, bytes| !(flag.load(Ordering::Relaxed) && bytes.len() > 400));
    for seq in 0..150 {
        let key = seq % 25 == 0;
        // The second group falls into a hole; only short packets get through meanwhile.
        stuck.store((30..40).contains(&seq), Ordering::Relaxed);
        if seq != 75 {
            p.frame(seq, if key { FrameKind::Key } else { FrameKind::Delta }, 0, 3_000);
        }
        p.run(40);
    }
    p.run(3_000);
    let (seqs, lost) = p.got();
    let sent = 149;
    assert!(seqs.windows(2).all(|w| w[0] < w[1]), "in order");
    assert_eq!(seqs.len() as u64 + lost, sent, "{lost} lost");
    assert!(seqs.contains(&149) && seqs.contains(&0));
}

/// What is said after frames comes after them, though it went another way.
#[test]
fn what_follows_on_the_control_stream_waits_for_the_frames_before_it() {
    let mut p = Pair::linked();
    p.frame(0, FrameKind::Key, 0, 3_000);
    p.frame(1, FrameKind::Delta, 0, 30_000);
    let frames = p.ends[1].mark(CAME, 7).unwrap();
    assert_eq!(frames, 2);
    // As the link's machine would hand it on, though nothing has come yet.
    p.tell(0, Input::Told { conn: DIALLED, pull: 7, message: Message::Sent { pull: 7, frames } });
    p.tell(0, Input::Told { conn: DIALLED, pull: 7, message: Message::SourceAway { pull: 7 } });
    assert!(p.said[0].is_empty());
    p.run(500);
    let kinds: Vec<_> = p.said[0]
        .iter()
        .filter_map(|o| match o {
            Output::Message { message: Message::Frame(f), .. } => Some(f.seq as i64),
            Output::Message { message: Message::SourceAway { .. }, .. } => Some(-1),
            _ => None,
        })
        .collect();
    assert_eq!(kinds, [0, 1, -1]);
    // And if they never come, it does not wait for ever.
    p.tell(0, Input::Told { conn: DIALLED, pull: 7, message: Message::Sent { pull: 7, frames: 9 } });
    p.tell(0, Input::Told { conn: DIALLED, pull: 7, message: Message::SourceBack { pull: 7 } });
    p.run(1_100);
    assert!(
        p.said[0].iter().any(|o| matches!(o, Output::Message { message: Message::SourceBack { .. }, .. }))
    );
}

/// A node that lost its memory says so, with the key that it had before.
#[test]
fn a_node_that_was_started_anew_resets_what_it_does_not_know() {
    let mut p = Pair::linked();
    p.ends[1] = endpoint(3, 2);
    p.tell(0, Input::Send { conn: DIALLED, bytes: Bytes::from_static(&[7; 100]) });
    p.run(100);
    let reset = |o: &Output| matches!(o, Output::Closed { reason, .. } if reason.code == "reset");
    assert!(p.said[0].iter().any(reset), "{:?}", p.said[0]);
}

#[test]
fn strangers_are_limited_and_who_proved_the_key_does_not_count() {
    let mut p = Pair::new();
    // All of them have one address.
    let most = Limits::default().link_quic_handshakes_per_ip as u64;
    for n in 1..=most + 5 {
        p.tell(0, Input::Connect { conn: ConnId::dialled(n), remote: addr(B) });
    }
    p.run(1_000);
    let came = |p: &Pair| p.said[1].iter().filter(|o| matches!(o, Output::Connected { .. })).count() as u64;
    assert_eq!(came(&p), most);
    let refused = |o: &&Output| matches!(o, Output::Dropped(Dropped::NoRoom));
    assert_eq!(p.said[1].iter().filter(refused).count(), 5);
    p.tell(1, Input::Proven { conn: ConnId::quic(1) });
    p.tell(0, Input::Connect { conn: ConnId::dialled(1_000), remote: addr(B) });
    p.run(1_000);
    assert_eq!(came(&p), most + 1);
}

/// Endpoints that all dial the second one at the same moment, and how many it answers beyond asking for a token.
#[test]
fn handshakes_beyond_the_work_of_a_turn_wait_for_the_next() {
    let mut to = endpoint(2, 2);
    let mut from: Vec<Endpoint> = (10..20).map(|seed| endpoint(seed, seed)).collect();
    let source = |n: usize| SocketAddr::from(([10, 0, 1, n as u8], 5090));
    let exchange = |to: &mut Endpoint, from: &mut [Endpoint], now: Time, first: bool| {
        let mut answers = 0;
        for (n, end) in from.iter_mut().enumerate() {
            if first {
                end.handle(Input::Connect { conn: DIALLED, remote: addr(B) }, now);
                end.handle(Input::Tick, now);
            }
            for bytes in datagrams(end) {
                to.handle(
                    Input::Datagram { local: addr(B), remote: source(n), stride: bytes.len(), bytes: &bytes },
                    now,
                );
            }
        }
        for (dst, bytes) in sent(to) {
            let n = (0..from.len()).find(|n| source(*n) == dst).unwrap();
            // A Retry (RFC 9000 section 17.2.5) is no handshake.
            answers += usize::from(bytes[0] & 0xf0 != 0xf0);
            from[n].handle(
                Input::Datagram { local: source(n), remote: addr(B), stride: bytes.len(), bytes: &bytes },
                now,
            );
        }
        answers
    };
    assert_eq!(exchange(&mut to, &mut from, Time::ZERO, true), 0, "each is asked for a token");
    exchange(&mut to, &mut from, Time::ZERO, false);
    assert_eq!(to.counts().1, 4, "2,000 microseconds of work at 500 each");
    for all in [8, 10, 10] {
        let now = to.deadline().unwrap().at;
        to.handle(Input::Tick, now);
        assert_eq!(to.counts().1, all);
    }
}

fn sent(end: &mut Endpoint) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(said) = end.poll() {
        if let Output::Datagrams(batch) = said {
            for t in &batch.items {
                let whole = &batch.buf[t.start..t.start + t.len];
                all.extend(whole.chunks(t.segment_size).map(|b| (t.dst, b.to_vec())));
            }
        }
    }
    all
}

fn datagrams(end: &mut Endpoint) -> Vec<Vec<u8>> {
    sent(end).into_iter().map(|(_, bytes)| bytes).collect()
}

/// A node that ends closes its connections with its last datagrams, after what it had to say.
#[test]
fn a_node_that_ends_says_so_after_its_last_words() {
    let mut p = Pair::linked();
    p.tell(0, Input::Send { conn: DIALLED, bytes: Bytes::from_static(b"last words") });
    p.tell(0, Input::Goodbye);
    assert!(p.said[0].iter().any(|o| matches!(o, Output::Closed { conn: DIALLED, .. })), "{:?}", p.said[0]);
    p.run(25);
    let heard: Vec<&Output> = p.said[1].iter().filter(|o| !matches!(o, Output::Room { .. })).collect();
    assert!(
        matches!(&heard[..], [Output::Received { bytes, .. }, Output::Closed { reason, .. }]
            if &bytes[..] == b"last words" && reason.code == "peer_closed"),
        "{heard:?}"
    );
}
