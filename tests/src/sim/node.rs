//! One node, whole, and a client that says anything to it: what a fuzzer's bytes mean. The client knows what requests look
//! like ([`requests`]) and repeats what the node answered (sessions, tags, nonces), so that a few bytes reach deep. The same
//! client in a cluster of nodes, among clients of all protocols: [`cluster`].
//!
//! Oracles: all invariants of the world, no error in the node's log (a panic is one), and that nothing is left of anybody
//! once everyone has gone (S7).

mod anyone;
mod cluster;
mod requests;
pub mod seeds;

pub use cluster::play as play_in_cluster;

use crate::world::actors::Conn;
use crate::world::actors::evil::{Evil, Transcript, transcripts};
use crate::world::actors::player::PlayerConfig;
use crate::world::{ClientId, HostId, World};
use anyone::Anyone;
use proto_core::auth::password;
use proto_core::auth::secret::Secret;
use proto_core::io::Service;
use proto_core::node::config::{Config, Role};
use proto_core::rand::Rng;
use requests::REQUESTS;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Operations beyond which the rest of the bytes means nothing.
const OPERATIONS: usize = 48;
/// Connections that the client has at a time.
const CONNS: u8 = 4;
/// Honest clients that come along.
const HONEST: usize = 4;
/// Nobody else publishes by this name: whoever watches it knows every frame.
const HONEST_STREAM: &str = "live/h0nest";

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
        let node = w.host_with("n1", &[Role::Manager, Role::Origin, Role::Edge], None, |c| {
            configure(c, setup, NOBODY)
        });
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
            let op = script.byte();
            if !anything(&mut w, node, anyone, op, &mut script) && honest < HONEST {
                honest += 1;
                let stream = [HONEST_STREAM, "cams/door", HONEST_STREAM, "far/a"][usize::from(op & 3)];
                match op >> 2 & 7 {
                    0..=2 => _ = w.play(node, stream),
                    3..=5 => _ = w.play_rtsp(node, stream, PlayerConfig::default()),
                    _ => _ = w.publish(node, HONEST_STREAM),
                }
            }
            w.lapse(ms(30));
        }
        w.expect_drained();
        verdict(&w)
    })
    .expect("clocks and randomness are interposed")
}

fn verdict(w: &World) -> Result<(), String> {
    w.violation().map_or(Ok(()), |v| Err(format!("{} is broken at {}: {}", v.invariant, v.at, v.text)))
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

/// Where others are that a configuration names.
#[derive(Clone, Copy)]
struct Others {
    /// The server that streams come from and go to.
    far: [u8; 4],
    /// Who is asked who may.
    doorman: IpAddr,
}

/// There is nobody at these addresses.
const NOBODY: Others = Others { far: [10, 9, 9, 9], doorman: IpAddr::V4(Ipv4Addr::new(10, 9, 9, 8)) };

/// Open to all, or with users, tokens and rules; with other servers to pull from and push to, or without.
fn configure(c: &mut Config, setup: u8, others: Others) {
    let (mut text, far, doorman) = (String::new(), IpAddr::from(others.far), others.doorman);
    if setup & 8 != 0 {
        text += &format!(
            "sources = [{{ stream = 'cams/*', url = 'rtsp://u:p@{far}:8554/cams/{{name}}' }},
            {{ stream = 'far/a', url = 'rtmp://{far}/far/a' }}]
            destinations = [{{ stream = 'live/*', url = 'rtmp://{far}/app/{{name}}' }},
            {{ stream = 'live/h1', url = 'rtsp://{far}:8554/app/h1' }}]\n"
        );
    }
    if setup & 1 != 0 {
        text += &format!(
            "auth = {{ clear_passwords = true, secret = 'a secret of thirty-two characters',
            callback = 'http://{doorman}:9000/may',
            users = [{{ name = 'alice', password = '', ha1 = ['MD5:5b264d7ea843ea78a580faa38c1bba08'] }}],
            keys = [{{ key = 'a-key-of-sixteen-or-more', stream = 'live/show' }}],
            rules = [{{ action = 'publish', streams = ['live/h0nest', 'live/h1', 'live/h2'], who = ['anyone'] }},
                {{ action = 'publish', streams = ['live/*'], who = ['users', 'tokens', 'keys'] }},
                {{ action = 'publish', streams = ['asked/*'], who = ['callback'] }},
                {{ action = 'play', streams = ['live/vip'], who = ['users', 'tokens'] }},
                {{ action = 'play', streams = ['live/asked'], who = ['callback'] }}, {{ action = 'play', who = ['anyone'] }},
                {{ action = 'api', who = ['anyone'] }}] }}\n"
        );
    }
    let mut given: Config = toml::from_str(&text).expect("it is written as the configuration is");
    let hash = password::hash_cheaply("password", &[7; 16]).expect("it can be hashed");
    for user in &mut given.auth.users {
        user.password = Secret::new(hash.clone());
    }
    c.manager.password = "log me in".to_owned();
    (c.auth, c.sources, c.destinations) = (given.auth, given.sources, given.destinations);
    c.limits.drain_ms = 2_000;
}

/// Has the client say or do what this operation means. `false`: it means nothing of hers.
fn anything(w: &mut World, node: HostId, anyone: ClientId, op: u8, script: &mut Script<'_>) -> bool {
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
        _ => return false,
    }
    true
}

const SERVICES: [Service; 4] = [Service::Rtmp, Service::Rtsp, Service::Http, Service::Link];
