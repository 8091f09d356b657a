//! One node, whole, and a client that says anything to it: what a fuzzer's bytes mean. The client knows what requests look
//! like ([`requests`]) and repeats what the node answered (sessions, tags, nonces), so that a few bytes reach deep.
//!
//! Oracles: all invariants of the world, no error in the node's log (a panic is one), and that nothing is left of anybody
//! once everyone has gone (S7).

mod requests;

use crate::world::actors::evil::{Evil, Transcript, transcripts};
use crate::world::actors::player::PlayerConfig;
use crate::world::actors::{Client, Conn, In, Notes, Out};
use crate::world::{ClientId, HostId, World};
use bytes::Bytes;
use proto_core::auth::password;
use proto_core::auth::secret::Secret;
use proto_core::io::Service;
use proto_core::node::config::{Config, Role};
use proto_core::rand::Rng;
use proto_core::time::Time;
use requests::REQUESTS;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Operations beyond which the rest of the bytes means nothing.
const OPERATIONS: usize = 48;
/// Connections that the client has at a time.
const CONNS: u8 = 4;
/// Honest clients that come along.
const HONEST: usize = 4;
/// Nobody else publishes by this name: whoever watches it knows every frame.
const HONEST_STREAM: &str = "live/h0nest";
/// What a client remembers of an answer at the most, bytes.
const WORD: usize = 400;

/// Plays what `data` means.
///
/// # Errors
/// Which invariant is broken, and how.
///
/// # Panics
/// If clocks and randomness are not interposed.
pub fn play(data: &[u8]) -> Result<(), String> {
    determinism::os::run([3; 32], || {
        let mut w = World::quiet(1);
        let mut script = Script(data);
        let setup = script.byte();
        let node =
            w.host_with("n1", &[Role::Manager, Role::Origin, Role::Edge], None, |c| configure(c, setup));
        w.lapse(ms(100));
        if setup & 4 != 0 {
            w.publish(node, HONEST_STREAM);
            w.lapse(ms(700));
        }
        w.over_tls(setup & 2 != 0);
        let anyone = w.add(Box::new(Anyone::new(w.http_addr(node).ip())));
        w.over_tls(false);
        let mut honest = 0;
        for _ in 0..OPERATIONS {
            if script.0.is_empty() || w.violation().is_some() {
                break;
            }
            operate(&mut w, node, anyone, &mut honest, &mut script);
        }
        w.expect_drained();
        w.violation().map_or(Ok(()), |v| Err(format!("{} is broken at {}: {}", v.invariant, v.at, v.text)))
    })
    .expect("clocks and randomness are interposed")
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The bytes, and noughts for ever behind them.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (these, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        these
    }
}

/// Open to all, or with users, tokens and rules; with other servers to pull from and push to, or without.
fn configure(c: &mut Config, setup: u8) {
    let mut text = String::new();
    if setup & 8 != 0 {
        text += "sources = [{ stream = 'cams/*', url = 'rtsp://u:p@10.9.9.9/{name}' },
            { stream = 'far/a', url = 'rtmp://10.9.9.9/live/a' }]
            destinations = [{ stream = 'live/*', url = 'rtmp://10.9.9.9/app/{name}' }]\n";
    }
    if setup & 1 != 0 {
        text += "auth = { clear_passwords = true, secret = 'a secret of thirty-two characters', callback = 'http://10.9.9.8/may',
            users = [{ name = 'alice', password = '', ha1 = ['MD5:5b264d7ea843ea78a580faa38c1bba08'] }],
            keys = [{ key = 'a-key-of-sixteen-or-more', stream = 'live/show' }],
            rules = [{ action = 'publish', streams = ['live/*'], who = ['users', 'tokens', 'keys'] },
                { action = 'play', streams = ['live/vip'], who = ['users', 'tokens'] },
                { action = 'play', streams = ['live/asked'], who = ['callback'] }, { action = 'play', who = ['anyone'] },
                { action = 'api', who = ['anyone'] }] }\n";
    }
    let mut given: Config = toml::from_str(&text).expect("it is written as the configuration is");
    let hash = password::hash_cheaply("password", &[7; 16]).expect("it can be hashed");
    for user in &mut given.auth.users {
        user.password = Secret::new(hash.clone());
    }
    (c.auth, c.sources, c.destinations) = (given.auth, given.sources, given.destinations);
    c.limits.drain_ms = 2_000;
}

fn operate(w: &mut World, node: HostId, anyone: ClientId, honest: &mut usize, script: &mut Script<'_>) {
    let op = script.byte();
    let (conn, x) = (Conn::from(op & (CONNS - 1)), op >> 2 & 7);
    let ip = w.http_addr(node).ip();
    let say = |w: &mut World, service, bytes: &[u8]| {
        w.with(anyone, |c: &mut Anyone, _| c.say(conn, service, bytes));
    };
    match op >> 5 {
        0 => {
            let n = usize::from(script.byte()) << x.min(3);
            say(w, SERVICES[usize::from(x) % SERVICES.len()], script.bytes(n));
        }
        1 | 2 => {
            let (service, bytes) = REQUESTS[usize::from(script.byte()) % REQUESTS.len()].said();
            say(w, service, &bytes);
        }
        3 => w.lapse(ms(u64::from(script.byte()).pow(2) / 4)),
        4 => {
            let kind = Evil::ALL[usize::from(script.byte()) % Evil::ALL.len()];
            for transcript in transcripts(kind, &mut Rng::new([x; 32]), 1) {
                match transcript {
                    Transcript::Stream(service, pieces) => {
                        pieces.iter().take(40).for_each(|piece| say(w, service, piece));
                    }
                    Transcript::Datagram(bytes) => {
                        let port = if kind.is_about_rtsp() { 8_000 } else { 8_189 };
                        w.with(anyone, |c: &mut Anyone, _| c.datagram(SocketAddr::new(ip, port), &bytes));
                    }
                }
            }
        }
        5 => w.with(anyone, |c: &mut Anyone, _| c.close(conn, x & 1 != 0)),
        6 => {
            let bytes = script.bytes(usize::from(x) * 24 + 8);
            let port = if op & 1 != 0 { 8_000 } else { 8_189 };
            w.with(anyone, |c: &mut Anyone, _| c.datagram(SocketAddr::new(ip, port), bytes));
        }
        _ if *honest < HONEST => {
            *honest += 1;
            let stream = [HONEST_STREAM, "cams/door", HONEST_STREAM, "far/a"][usize::from(op & 3)];
            match x {
                0..=2 => _ = w.play(node, stream),
                3..=5 => _ = w.play_rtsp(node, stream, PlayerConfig::default()),
                _ => _ = w.publish(node, HONEST_STREAM),
            }
        }
        _ => {}
    }
    w.lapse(ms(30));
}

const SERVICES: [Service; 4] = [Service::Rtmp, Service::Rtsp, Service::Http, Service::Link];

/// Who says anything.
struct Anyone {
    ip: IpAddr,
    /// What waits for a connection to stand; nothing waits where it does.
    conns: BTreeMap<Conn, (Service, Option<Vec<Bytes>>)>,
    /// What the node said last, by the letter that requests name it by.
    words: BTreeMap<u8, Vec<u8>>,
    out: VecDeque<Out>,
    notes: Notes,
}

/// What is remembered: its letter, and what stands before it in an answer.
const REMEMBERED: &[(u8, &[u8])] = &[
    (b'L', b"Location: "),
    (b'E', b"ETag: "),
    (b'S', b"Session: "),
    (b'N', b"nonce=\""),
    (b'T', b"\"token\":\""),
    (b'I', b"\"id\":\""),
    (b'J', b"\"subscriberId\":\""),
];

impl Anyone {
    fn new(ip: IpAddr) -> Anyone {
        Anyone {
            ip,
            conns: BTreeMap::new(),
            words: BTreeMap::new(),
            out: VecDeque::new(),
            notes: Notes::default(),
        }
    }

    /// Says something on a connection, which is made if there is none to that service.
    fn say(&mut self, conn: Conn, service: Service, bytes: &[u8]) {
        let bytes = self.filled(bytes);
        if self.conns.get(&conn).is_some_and(|(to, _)| *to != service) {
            self.close(conn, false);
        }
        let ip = self.ip;
        let out = &mut self.out;
        let (_, waiting) = self.conns.entry(conn).or_insert_with(|| {
            let port = match service {
                Service::Rtmp => 1935,
                Service::Rtsp => 8554,
                Service::Link => 5090,
                _ => 5080,
            };
            out.push_back(Out::Dial(conn, SocketAddr::new(ip, port)));
            (service, Some(Vec::new()))
        });
        match waiting {
            Some(waiting) => waiting.push(bytes),
            None => out.push_back(Out::Send(conn, bytes)),
        }
    }

    fn close(&mut self, conn: Conn, at_once: bool) {
        if self.conns.remove(&conn).is_some() {
            self.out.push_back(Out::Close(conn, at_once));
        }
    }

    fn datagram(&mut self, to: SocketAddr, bytes: &[u8]) {
        self.out.push_back(Out::Datagram { port: 40_000, to, bytes: Bytes::copy_from_slice(bytes) });
    }

    /// `{L}` and its like become what the node said.
    fn filled(&self, bytes: &[u8]) -> Bytes {
        let mut filled = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let [first, after @ ..] = rest {
            let word = match rest {
                [b'{', letter, b'}', ..] => self.words.get(letter),
                _ => None,
            };
            match word {
                Some(word) => {
                    filled.extend_from_slice(word);
                    rest = &rest[3..];
                }
                None => {
                    filled.push(*first);
                    rest = after;
                }
            }
        }
        filled.into()
    }

    fn remember(&mut self, bytes: &[u8]) {
        for (letter, before) in REMEMBERED {
            let Some(at) = bytes.windows(before.len()).position(|w| w.eq_ignore_ascii_case(before)) else {
                continue;
            };
            let word = bytes[at + before.len()..].iter().take(WORD);
            let word: Vec<u8> = word.copied().take_while(|b| !b"\r\n\";".contains(b)).collect();
            self.words.insert(*letter, word);
        }
    }
}

impl Client for Anyone {
    fn on(&mut self, input: In<'_>, _now: Time) {
        match input {
            In::Connected(conn) => {
                let waiting = self.conns.get_mut(&conn).and_then(|(_, waiting)| waiting.take());
                self.out.extend(waiting.into_iter().flatten().map(|bytes| Out::Send(conn, bytes)));
            }
            In::Received(_, bytes) => self.remember(bytes),
            In::Finished(conn) => self.close(conn, false),
            In::Closed(conn, _) => _ = self.conns.remove(&conn),
            _ => {}
        }
    }

    fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        None
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    fn leave(&mut self, _now: Time) {
        for conn in 0..Conn::from(CONNS) {
            self.close(conn, false);
        }
    }
}
