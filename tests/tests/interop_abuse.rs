//! The table of abuses against a real node on real sockets, beside a publisher and ten viewers who know every frame.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::cluster::{Net, Node, turn};
use headwater_tests::interop::{http, wait};
use headwater_tests::live::{Id, Live, Protocol};
use headwater_tests::world::abuse::{ABUSES, Abuse, By, Sign, counts_in};
use headwater_tests::world::actors::evil::{self, Evil, Transcript, transcripts};
use headwater_tests::world::actors::player::Player;
use headwater_tests::world::actors::publisher::{Publisher, PublisherConfig};
use proto_core::io::Service;
use proto_core::node::config::Config;
use proto_core::rand::Rng;
use socket2::{Domain, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(30);
/// What needs a user name that was overheard.
const OVERHEARD: &str = "datagram/unauthentic";
const STREAM: &str = "live/one";
const KEY: &str = "a key that all nodes share";
/// A node that is told to end has ended within this, whoever stays.
const DRAIN: Duration = Duration::from_secs(4);
/// Connections that one kind of abuse makes, or a tenth of its datagrams.
const EACH: u64 = 12;

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Deadlines that end within the test, and rules for those rows that need some.
fn settings(ip: Ipv4Addr, own: &str) -> String {
    format!(
        "[limits]\nrtmp_handshake_ms = 2000\nhttp_head_ms = 2000\nrtsp_head_ms = 2000\ntls_handshake_ms = 2000\n\
         rtc_handshake_ms = 3000\nlink_handshake_ms = 2000\nviewer_stuck_ms = 2000\nrtsp_idle_ms = 4000\n\
         signalling_messages_per_s = 50\nframe_bytes = 200000\nframe_packets = 200\ncluster_streams = 500\n\
         [cluster]\nkey = '{KEY}'\ntransport = 'quic'\n\
         [http]\norigins = ['https://ours.example']\n\
         [auth]\nsecret = 'a secret of thirty-two characters'\n\
         [[auth.rules]]\naction = 'publish'\nstreams = ['live/{own}']\nwho = ['tokens']\n\
         [[auth.rules]]\naction = 'publish'\nwho = ['anyone']\n\
         [[auth.rules]]\naction = 'play'\nwho = ['anyone']\n\
         [[auth.rules]]\naction = 'api'\nwho = ['anyone']\n\
         [advertise]\npublic = '{ip}'\n"
    )
}

/// A publisher and ten viewers who know every frame.
struct Innocents {
    live: Live,
    from: Ipv4Addr,
    publisher: Id,
    viewers: Vec<Id>,
}

impl Innocents {
    fn new(from: Ipv4Addr, to: Ipv4Addr) -> Innocents {
        let mut live = Live::new(1);
        // Enough that a viewer who does not read has more waiting than kernels hold.
        let config = PublisherConfig { key_bytes: 60_000, delta_bytes: 12_000, ..PublisherConfig::default() };
        let rtmp = SocketAddr::new(to.into(), 1935);
        let publisher = Publisher::new(1, rtmp, STREAM, config, Rng::new([1; 32]), live.now());
        let publisher = live.add(Box::new(publisher), from);
        assert!(live.until(LONG, |l| l.published(publisher).ready), "the publisher was not accepted");
        let viewers: Vec<_> = (0..10).map(|_| live.play(Protocol::Rtmp, from, to, STREAM, None)).collect();
        let seeing = live.until(LONG, |l| viewers.iter().all(|v| l.played(*v).picture.is_some()));
        assert!(seeing, "ten viewers did not see pictures");
        Innocents { live, from, publisher, viewers }
    }

    fn actor<T: headwater_tests::world::actors::Client>(&self, id: Id) -> &T {
        self.live.actor(id).expect("a client of that kind")
    }

    /// Goes on while `others` are at work.
    fn beside<T: Send>(&mut self, others: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let others = scope.spawn(others);
            while !others.is_finished() {
                self.live.run(Duration::from_millis(20));
            }
            others.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Every viewer gets the newest frames too, and has all between its first and those.
    fn lost_nothing(&mut self) {
        let (session, pictures, sounds) = {
            let p = self.actor::<Publisher>(self.publisher);
            let [sent] = &p.sent[..] else { panic!("the publisher connected {} times", p.sent.len()) };
            assert_eq!(sent.ended, None, "the publisher was ended");
            (sent.session, sent.pictures, sent.sounds)
        };
        assert!(pictures > 100, "only {pictures} pictures were sent");
        for n in 0..self.viewers.len() {
            let id = self.viewers[n];
            let newest = |l: &Live| l.actor::<Player>(id).and_then(|p| p.last_picture()).map(|s| s.label.seq);
            let whole = self.live.until(LONG, |l| newest(l).is_some_and(|seq| seq + 1 >= pictures));
            assert!(whole, "viewer {n} has {:?} of {pictures}", newest(&self.live));
            let v = self.actor::<Player>(id);
            assert_eq!(
                (v.connections, v.ended.as_deref(), v.gaps.len()),
                (1, None, 0),
                "viewer {n}: {:?}",
                v.gaps
            );
            for (track, count) in [('v', pictures), ('a', sounds)] {
                let seen: Vec<u64> = v.frames(track, session).map(|s| s.label.seq).collect();
                assert!(seen.windows(2).all(|w| w[1] == w[0] + 1), "viewer {n}, track {track}");
                assert!(
                    seen.len() as u64 > count / 2,
                    "viewer {n}, track {track}: {} of {count}",
                    seen.len()
                );
            }
        }
        assert_eq!(self.live.violations, Vec::new());
    }
}

struct Scene {
    node: Node,
    net: Net,
    /// Whence abuses come: what they do to their own address is theirs.
    evil: Ipv4Addr,
    file: String,
    start: Instant,
}

impl Scene {
    fn new() -> Scene {
        let net = Net::fresh();
        let ip = net.host(1);
        let own = format!("evil{}", Evil::TokenGuesser as usize);
        let path = std::env::temp_dir().join(format!("headwater-abuse-{ip}.toml"));
        std::fs::write(&path, settings(ip, &own)).expect("a file can be written");
        let file = path.to_str().expect("its name is text").to_owned();
        let mut node = Node::start("n", "manager,origin,edge", ip, None, &["--config", &file]);
        node.wait_http("/readyz");
        Scene { node, evil: net.host(9), net, file, start: Instant::now() }
    }

    fn addr(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.node.ip.into(), port)
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        counts_in(&http::get(&self.node.url("/metrics")).expect("the node answers all the while").body)
    }

    /// One connection that says its piece, and does not read.
    fn connect(&self, service: Service, pieces: &[bytes::Bytes]) -> Option<TcpStream> {
        let port = match service {
            Service::Rtmp => 1935,
            Service::Rtsp => 8554,
            Service::Http => 5080,
            Service::Https => 5443,
            Service::Link => 5090,
            _ => return None,
        };
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(self.evil.into(), 0).into()).expect("any address of the loopback");
        socket.connect_timeout(&self.addr(port).into(), LONG).ok()?;
        let mut socket = TcpStream::from(socket);
        let limits = socket.set_nodelay(true).and(socket.set_write_timeout(Some(Duration::from_millis(300))));
        limits.expect("a socket takes its options");
        for piece in pieces {
            // A node that has had enough resets, or reads no more: both are its right.
            if socket.write_all(piece).is_err() {
                break;
            }
        }
        Some(socket)
    }

    /// Mounts an abuse until its signs are there. What is not as it should be.
    fn mount(&self, abuse: &Abuse, kind: Evil) -> Option<String> {
        let before = self.counts();
        let rng = &mut Rng::new([kind as u8; 32]);
        let many = match kind {
            Evil::ConnectionFlood => 70,
            Evil::UnconnectedWhep | Evil::UnconnectedWhip => 36,
            Evil::StunAnonymous | Evil::StunWrong | Evil::UdpGarbage | Evil::QuicGarbage => 400,
            _ => EACH,
        };
        let mut all = transcripts(kind, rng, many);
        if kind == Evil::RtspSlowHead {
            // Without the waits between them, only what is not whole is slow.
            for transcript in &mut all {
                if let Transcript::Stream(_, pieces) = transcript {
                    pieces.truncate(40);
                }
            }
        }
        let port = match kind {
            Evil::QuicGarbage => 5_090,
            kind if kind.is_about_rtsp() => 8_000,
            _ => 8_189,
        };
        let socket = UdpSocket::bind((self.evil, 0)).expect("a socket");
        // A datagram may be lost, and a flood of lines is one only within a second. An offer is not looked at while the
        // unfinished handshakes of this address are too many, as another abuse of it beside this one sees to.
        let udp = matches!(all.first(), Some(Transcript::Datagram(_)));
        let offers = matches!(kind, Evil::SdpBombs | Evil::WhipThief);
        let again = udp || offers || signs(abuse).any(|s| s.counter.starts_with("log/"));
        let mut open = Vec::new();
        let mut say = || {
            open.clear();
            for transcript in &all {
                match transcript {
                    Transcript::Stream(service, pieces) => open.extend(self.connect(*service, pieces)),
                    Transcript::Datagram(bytes) => {
                        // The largest are refused here already.
                        drop(socket.send_to(bytes, self.addr(port)));
                    }
                }
            }
        };
        say();
        let seen = wait::try_until(LONG, || {
            let missing = self.uncounted(abuse, &before);
            if again && missing.is_err() {
                say();
            }
            missing
        });
        seen.and_then(|()| self.unsaid(abuse)).err().map(|why| format!("{} {kind:?}: {why}", abuse.row))
    }

    /// Which signs of an abuse were not counted since.
    fn uncounted(&self, abuse: &Abuse, before: &BTreeMap<String, u64>) -> Result<(), String> {
        let now = self.counts();
        let missing: Vec<_> =
            signs(abuse).map(|s| s.counter).filter(|c| now.get(*c) <= before.get(*c)).collect();
        wait::yes(missing.is_empty(), format!("{missing:?} not counted, but {now:?}"))
    }

    /// Of which sign the log says nothing.
    fn unsaid(&self, abuse: &Abuse) -> Result<(), String> {
        let said =
            |words: &str| self.node.log.wait(Default::default(), LONG, |l| l.contains(words)).is_some();
        match signs(abuse).find(|sign| !said(sign.words())) {
            None => Ok(()),
            Some(sign) => Err(format!("the log says nothing of {:?}", sign.words())),
        }
    }

    /// A false node, or who speaks QUIC: it works until its signs are there, or for a while if it has none. What is not as it should be.
    fn false_node(&self, innocents: &mut Innocents, abuse: &Abuse, kind: Evil) -> Option<String> {
        let before = self.counts();
        let mut config = Config::default();
        config.node.name = self.node.name.clone();
        config.cluster.key = KEY.to_owned();
        let (live, from) = (&mut innocents.live, innocents.from);
        let rng = Rng::new([kind as u8; 32]);
        let evil = evil::on_sockets(kind, &config, self.node.ip.into(), &[STREAM], rng, live.now());
        let evil = live.add(evil, from);
        // One who only pulls is refused nothing.
        live.run(Duration::from_secs(2));
        let mut seen = Ok(());
        live.until(LONG, |live| {
            live.run(Duration::from_millis(200));
            seen = self.uncounted(abuse, &before);
            seen.is_ok()
        });
        live.remove(evil);
        let wrong = seen.and_then(|()| innocents.beside(|| self.unsaid(abuse)));
        wrong.err().map(|why| format!("{} {kind:?}: {why}", abuse.row))
    }

    /// A21: strangers come when there are three descriptors left.
    fn no_descriptors(&self, innocents: &mut Innocents) {
        let before = self.node.few_descriptors(3).expect("a limit that can be set");
        let strangers = || -> Vec<TcpStream> {
            (0..20).filter_map(|_| TcpStream::connect_timeout(&self.addr(5080), LONG).ok()).collect()
        };
        let strangers = innocents.beside(strangers);
        let told =
            || self.node.log.wait(Default::default(), LONG, |l| l.contains("no file descriptors are left"));
        assert!(innocents.beside(told).is_some(), "the node did not run out of descriptors");
        self.node.limit_descriptors(&before).expect("a limit that can be set");
        drop(strangers);
        innocents.beside(|| {
            wait::until("the node to answer again", LONG, || http::get(&self.node.url("/readyz")).map(drop));
        });
    }

    /// A33: a node with a viewer who stays is told to end, and has ended in time.
    fn drain(&self, innocents: &mut Innocents) {
        let drain = format!("limits.drain_ms={}", DRAIN.as_millis());
        let more = ["--config", &self.file, "--set", &drain];
        let mut other = Node::start("e2", "edge", self.net.host(2), Some(self.node.ip), &more);
        innocents.beside(|| other.wait_http("/readyz"));
        let (live, from) = (&mut innocents.live, innocents.from);
        let stays = live.play(Protocol::Rtmp, from, other.ip, STREAM, None);
        assert!(live.until(LONG, |l| l.played(stays).picture.is_some()), "nobody watches there");
        let told = Instant::now();
        other.signal("TERM");
        let status = innocents.beside(|| other.wait_exit(LONG));
        assert!(status.success(), "{status}");
        assert!(told.elapsed() < DRAIN + LONG / 3, "it took {:?}", told.elapsed());
        innocents.live.remove(stays);
    }
}

/// What is looked for on sockets.
fn signs(abuse: &Abuse) -> impl Iterator<Item = &Sign> {
    abuse.signs.iter().filter(|s| s.counter != OVERHEARD)
}

/// Who needs to forge addresses, or to overhear others: the simulator's.
fn forges(kind: Evil) -> bool {
    matches!(kind, Evil::StunForged | Evil::ReplayElsewhere | Evil::QuicForged)
        || kind.needs_webrtc() && transcripts(kind, &mut Rng::new([0; 32]), 2).is_empty()
}

#[test]
fn every_abuse_on_real_sockets_is_counted_and_told_and_costs_the_innocents_no_frame() {
    let _turn = turn();
    let scene = Scene::new();
    let mut innocents = Innocents::new(Ipv4Addr::LOCALHOST, scene.node.ip);
    let kind = |a: &'static Abuse| match a.by {
        By::Evil(kind) if !forges(kind) => Some((a, kind)),
        _ => None,
    };
    let todo: Vec<(&Abuse, Evil)> = ABUSES.iter().filter_map(kind).collect();
    let said = |kind: Evil| !transcripts(kind, &mut Rng::new([0; 32]), 2).is_empty();
    let (spoken, nodes): (Vec<_>, Vec<_>) = todo.iter().partition(|(_, kind)| said(*kind));
    // What takes all connections of this address comes by itself.
    let (last, rest): (Vec<_>, Vec<_>) =
        spoken.into_iter().partition(|(_, kind)| *kind == Evil::ConnectionFlood);
    let next = Mutex::new(rest.into_iter());
    let wrong = Mutex::new(Vec::new());
    innocents.beside(|| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let Some((abuse, kind)) = lock(&next).next() else { break };
                        lock(&wrong).extend(scene.mount(abuse, kind));
                    }
                });
            }
        });
        lock(&wrong).extend(last.into_iter().filter_map(|(abuse, kind)| scene.mount(abuse, kind)));
    });
    let mut wrong: Vec<String> = std::mem::take(&mut lock(&wrong));
    wrong.extend(nodes.into_iter().filter_map(|(a, kind)| scene.false_node(&mut innocents, a, kind)));
    scene.drain(&mut innocents);
    scene.no_descriptors(&mut innocents);
    let mut rows: BTreeSet<&str> = todo.iter().map(|(a, _)| a.row).collect();
    rows.extend(["A21", "A33"]);
    println!("{} abuses of {} rows in {:?}", todo.len() + 2, rows.len(), scene.start.elapsed());
    assert!(wrong.is_empty(), "{}\n", wrong.join("\n"));
    innocents.lost_nothing();
    let untried: Vec<_> = (1..=33).map(|n| format!("A{n}")).filter(|row| !rows.contains(&row[..])).collect();
    assert_eq!(untried, ["A32"], "rows that are not tried here");
}
