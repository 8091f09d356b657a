//! The table of abuses against a real node on real sockets, beside a publisher and ten viewers who know every frame.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::cluster::{Net, Node, turn};
use headwater_tests::interop::innocent::Running;
use headwater_tests::interop::{http, wait};
use headwater_tests::world::abuse::{ABUSES, Abuse, By, counts_in};
use headwater_tests::world::actors::evil::{Evil, Transcript, transcripts};
use headwater_tests::world::actors::player::Player;
use headwater_tests::world::actors::publisher::{Publisher, PublisherConfig};
use proto_core::io::Service;
use proto_core::rand::Rng;
use proto_core::time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(30);
/// What needs a user name that was overheard.
const OVERHEARD: &str = "datagram/unauthentic";
const STREAM: &str = "live/one";
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
         signalling_messages_per_s = 50\nframe_bytes = 200000\nframe_packets = 200\n\
         [http]\norigins = ['https://ours.example']\n\
         [auth]\nsecret = 'a secret of thirty-two characters'\n\
         [[auth.rules]]\naction = 'publish'\nstreams = ['live/{own}']\nwho = ['tokens']\n\
         [[auth.rules]]\naction = 'publish'\nwho = ['anyone']\n\
         [[auth.rules]]\naction = 'play'\nwho = ['anyone']\n\
         [[auth.rules]]\naction = 'api'\nwho = ['anyone']\n\
         [advertise]\npublic = '{ip}'\n"
    )
}

struct Scene {
    node: Node,
    start: Instant,
    publisher: Running<Publisher>,
    viewers: Vec<Running<Player>>,
}

impl Scene {
    fn new() -> Scene {
        let net = Net::fresh();
        let ip = net.host(1);
        let own = format!("evil{}", Evil::TokenGuesser as usize);
        let file = std::env::temp_dir().join(format!("headwater-abuse-{ip}.toml"));
        std::fs::write(&file, settings(ip, &own)).expect("a file can be written");
        let path = file.to_str().expect("its name is text").to_owned();
        let mut node = Node::start("n", "manager,origin,edge", ip, None, &["--config", &path]);
        node.wait_http("/readyz");
        let (start, rtmp) = (Instant::now(), SocketAddr::new(ip.into(), 1935));
        // Enough that a viewer who does not read has more waiting than kernels hold.
        let config = PublisherConfig { key_bytes: 60_000, delta_bytes: 12_000, ..PublisherConfig::default() };
        let publisher = Publisher::new(1, rtmp, STREAM, config, Rng::new([1; 32]), Time::ZERO);
        let publisher = Running::new(publisher, start);
        wait::until("the publisher to be accepted", LONG, || {
            wait::yes(publisher.look().is_ready(), "not ready".to_owned())
        });
        let viewers: Vec<_> = (0..10).map(|_| Running::new(Player::new(rtmp, STREAM), start)).collect();
        wait::until("ten viewers to see pictures", LONG, || {
            let seeing = viewers.iter().filter(|v| v.look().last_picture().is_some()).count();
            wait::yes(seeing == 10, format!("{seeing} do"))
        });
        Scene { node, start, publisher, viewers }
    }

    fn addr(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.node.ip.into(), port)
    }

    /// Every viewer gets the newest frames too, and has all between its first and those.
    fn lost_nothing(&self) {
        let (session, pictures, sounds) = {
            let p = self.publisher.look();
            let [sent] = &p.sent[..] else { panic!("the publisher connected {} times", p.sent.len()) };
            assert_eq!(sent.ended, None, "the publisher was ended");
            (sent.session, sent.pictures, sent.sounds)
        };
        assert!(pictures > 100, "only {pictures} pictures were sent");
        for (n, viewer) in self.viewers.iter().enumerate() {
            wait::until(&format!("viewer {n} to see picture {pictures}"), LONG, || {
                let last = viewer.look().last_picture().map(|s| s.label.seq);
                wait::yes(last.is_some_and(|seq| seq + 1 >= pictures), format!("it has {last:?}"))
            });
            let v = viewer.look();
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
            assert_eq!(viewer.wrong(), Vec::<String>::new(), "viewer {n}");
        }
        assert_eq!(self.publisher.wrong(), Vec::<String>::new());
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
        let mut socket = TcpStream::connect_timeout(&self.addr(port), LONG).ok()?;
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
        let signs: Vec<_> = abuse.signs.iter().filter(|s| s.counter != OVERHEARD).collect();
        let rng = &mut Rng::new([kind as u8; 32]);
        let many = match kind {
            Evil::ConnectionFlood => 70,
            Evil::UnconnectedWhep | Evil::UnconnectedWhip => 36,
            Evil::StunAnonymous | Evil::StunWrong | Evil::UdpGarbage => 400,
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
        let port = if kind.is_about_rtsp() { 8_000 } else { 8_189 };
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let mut open = Vec::new();
        let mut say = || {
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
        let udp = matches!(all.first(), Some(Transcript::Datagram(_)));
        if kind == Evil::ConnectionFlood {
            // While it goes on, nobody else is let in from here.
            open.clear();
        }
        let seen = wait::try_until(LONG, || {
            let now = self.counts();
            let rose = |c: &str| now.get(c) > before.get(c);
            let missing: Vec<_> = signs.iter().map(|s| s.counter).filter(|c| !rose(c)).collect();
            if udp && !missing.is_empty() {
                for transcript in &all {
                    let Transcript::Datagram(bytes) = transcript else { continue };
                    drop(socket.send_to(bytes, self.addr(port)));
                }
            }
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} not counted, but {now:?}")) }
        });
        let unsaid = signs.iter().find(|sign| {
            self.node.log.wait(Default::default(), LONG, |line| line.contains(sign.words())).is_none()
        });
        let unsaid = unsaid.map(|sign| format!("the log says nothing of {:?}", sign.words()));
        seen.err().or(unsaid).map(|why| format!("{} {kind:?}: {why}", abuse.row))
    }
}

/// Who needs to forge addresses, to overhear others, or other nodes and hosts: the simulator's.
fn on_sockets(abuse: &Abuse) -> Option<Evil> {
    let By::Evil(kind) = abuse.by else { return None };
    let forges = matches!(kind, Evil::StunForged | Evil::ReplayElsewhere);
    let some = !transcripts(kind, &mut Rng::new([0; 32]), 2).is_empty();
    (some && !forges).then_some(kind)
}

#[test]
fn every_abuse_on_real_sockets_is_counted_and_told_and_costs_the_innocents_no_frame() {
    let _turn = turn();
    let scene = Scene::new();
    let todo: Vec<(&Abuse, Evil)> = ABUSES.iter().filter_map(|a| Some((a, on_sockets(a)?))).collect();
    // What takes all connections of this address comes by itself.
    let (last, rest): (Vec<_>, Vec<_>) = todo.iter().partition(|(_, kind)| *kind == Evil::ConnectionFlood);
    let next = Mutex::new(rest.into_iter());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((abuse, kind)) = lock(&next).next() {
                    lock(&wrong).extend(scene.mount(abuse, kind));
                }
            });
        }
    });
    let mut wrong: Vec<String> = std::mem::take(&mut lock(&wrong));
    wrong.extend(last.into_iter().filter_map(|(abuse, kind)| scene.mount(abuse, kind)));
    let rows: BTreeSet<&str> = todo.iter().map(|(a, _)| a.row).collect();
    println!("{} abuses of {} rows in {:?}", todo.len(), rows.len(), scene.start.elapsed());
    assert!(wrong.is_empty(), "{}\n", wrong.join("\n"));
    scene.lost_nothing();
}
