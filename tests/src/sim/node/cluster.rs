//! A cluster, and the client that says anything to any of its nodes, among clients of all protocols who publish and play, join,
//! leave and go over to others, while nodes are drained and killed and the network fails: what a fuzzer's bytes mean.
//!
//! Beside the nodes there may be a server of somebody else that streams are pulled from and pushed to, and the operator's
//! program that is asked who may.

use super::anyone::Anyone;
use super::{HONEST_STREAM, NOBODY, OPERATIONS, Others, Script, anything, configure, ms, verdict};
use crate::sim::plan::{Behind, By, Op, Place, Plan, Publishing, Quality, Version, Who};
use crate::sim::run::Runner;
use crate::world::actors::doorman::{Doorman, Mood};
use crate::world::actors::publisher::PublisherConfig;
use crate::world::actors::webrtc::WhepConfig;
use crate::world::link::{Conditions, Direction};
use crate::world::media::Order;
use crate::world::{ClientId, World};
use proto_core::node::config::loops::Loops;
use proto_core::node::config::{Config, Role};
use std::time::Duration;

/// A manager that knows nothing yet waits for two report intervals.
const STANDS: Duration = ms(2_500);
/// Clients that publish and play.
const CLIENTS: u32 = 6;

/// By which protocols they do.
pub(super) const WAYS: [By; 11] = [
    By::Rtmp,
    By::Rtsp,
    By::RtspUdp,
    By::Webrtc,
    By::Ws,
    By::Managed,
    By::WebrtcTcp,
    By::Rtmps,
    By::Https,
    By::Wss,
    By::Rtsps,
];

/// What is played. The last is there for who was asked about it. Nothing that is pulled from the foreign server: asked again, that
/// begins with its last key frame again, as any server does, and these players call that a fault.
const PLAYED: [&str; 6] = [HONEST_STREAM, "live/h1", "live/h1", HONEST_STREAM, "asked/a", "live/show"];

/// Plays what `data` means.
///
/// # Errors
/// Which invariant is broken, and how.
///
/// # Panics
/// If clocks and randomness are not interposed.
pub fn play(data: &[u8]) -> Result<(), String> {
    determinism::os::run([4; 32], || {
        let mut world = World::quiet(1);
        let mut script = Script(data);
        let (setup, shape) = (script.byte(), script.byte());
        let plan = plan_of(shape);
        world.sites(plan.sites);
        world.quic(plan.quic);
        // It is asked only where there are rules.
        let doorman = (setup & 1 != 0).then(|| world.add(Box::new(doorman())));
        let nodes = plan.places().len();
        let others = Others {
            far: if shape & 16 == 0 { NOBODY.far } else { [10, 0, 0, nodes as u8 + 1] },
            doorman: doorman.map_or(NOBODY.doorman, |d| world.client_addr(d)),
        };
        let runner = Runner::with(&mut world, &plan, |n, c| {
            configure(c, setup, others);
            split(c, n, nodes, shape);
        });
        runner.world.lapse(STANDS);
        if shape & 16 != 0 {
            // Later, so that its term is another: what is published there under the same epoch is no rival.
            far(runner.world);
            runner.world.lapse(STANDS);
        }
        let at = runner.host(Place::Manager).expect("there is a manager");
        let ip = runner.world.http_addr(at).ip();
        runner.world.over_tls(setup & 2 != 0);
        let anyone = runner.world.add(Box::new(Anyone::new(ip)));
        runner.world.over_tls(false);
        let mut scene = Scene { runner, plan, anyone, doorman, at, clients: 0 };
        if setup & 4 != 0 {
            let place = scene.place(1);
            scene.publish(By::Rtmp, HONEST_STREAM, place, Order::Shown);
            scene.runner.world.lapse(ms(700));
        }
        for _ in 0..OPERATIONS {
            if script.0.is_empty() || scene.runner.world.violation().is_some() {
                break;
            }
            scene.operate(&mut script);
        }
        scene.runner.mend();
        let w = scene.runner.world;
        w.expect_drained();
        verdict(w)
    })
    .expect("clocks and randomness are interposed")
}

/// The cluster that a byte means.
fn plan_of(shape: u8) -> Plan {
    let (origins, edges, complete, regions) = match shape & 3 {
        0 => (1, 1, 0, 1),
        // Loops of a process.
        1 | 2 => (0, 0, 2, 1),
        _ => (2, 2, 0, 2),
    };
    let (quic, sites) = (shape & 4 == 0, shape & 8 != 0);
    Plan { seed: 1, origins, edges, complete, regions, span: 0, sites, quic, steps: Vec::new() }
}

/// Has nodes be loops of one process, where the shape says so: without the manager, or with it. Their doors are at their own
/// addresses, as the world has no loopback.
fn split(c: &mut Config, n: usize, nodes: usize, shape: u8) {
    let before = match shape & 3 {
        1 => 1,
        2 => 0,
        _ => return,
    };
    let Some(index) = n.checked_sub(before) else { return };
    let doors = (before..nodes).map(|n| ([10, 0, 0, n as u8 + 1], 40_000).into()).collect();
    let secret = "known-to-the-process-only".to_owned();
    c.loops = Some(Loops { index, doors, secret, manager: before == 0, made_key: false });
}

/// Whoever may publish asked/a, and who is known by a key.
fn doorman() -> Doorman {
    Doorman::new(&[
        ("a", "{}"),
        ("asked", r#"{"user":"guest","expires_s":2}"#),
        ("key", r#"{"stream":"show"}"#),
    ])
}

/// A server of somebody else, with a camera and a stream by RTMP.
fn far(w: &mut World) {
    let far = w.host("far", &[Role::Manager, Role::Origin, Role::Edge], None);
    let again = Some(ms(500));
    w.publish_with(far, "far/a", PublisherConfig { again, ..PublisherConfig::default() });
    w.publish_rtsp(far, "cams/door", PublisherConfig { again, ..PublisherConfig::default() });
}

struct Scene<'a> {
    runner: Runner<'a>,
    plan: Plan,
    anyone: ClientId,
    doorman: Option<ClientId>,
    /// To whom anything is said.
    at: crate::world::HostId,
    clients: u32,
}

impl Scene<'_> {
    fn place(&self, n: u8) -> Place {
        let places = self.plan.places();
        places[usize::from(n) % places.len()]
    }

    fn publish(&mut self, by: By, stream: &str, at: Place, order: Order) {
        if self.clients < CLIENTS {
            let (stream, client) = (stream.to_owned(), self.clients);
            let how = Publishing { order, ..Publishing::default() };
            self.runner.apply(&Op::Publish { client, by, at, stream, how, behind: Behind::Nothing });
            self.clients += 1;
        }
    }

    fn operate(&mut self, script: &mut Script<'_>) {
        let op = script.byte();
        if !anything(self.runner.world, self.at, self.anyone, op, script) {
            let b = script.byte();
            self.happens(op & 31, b);
        }
        self.runner.world.lapse(ms(30));
    }

    /// What is not the client's doing.
    fn happens(&mut self, what: u8, b: u8) {
        let (place, small) = (self.place(b >> 4), usize::from(b & 15));
        let client = u32::from(b) % self.clients.max(1);
        let order = [Order::Shown, Order::Plain, Order::Pyramid][usize::from(b >> 2) % 3];
        let behind = [Behind::Nothing, Behind::Home, Behind::Symmetric][usize::from(b >> 3) % 3];
        let op = match what {
            0..=10 if self.clients < CLIENTS => {
                let (client, by) = (self.clients, WAYS[usize::from(what)]);
                let stream = PLAYED[small % PLAYED.len()].to_owned();
                self.clients += 1;
                Op::Play { client, by, at: place, stream, behind }
            }
            11..=16 => {
                let by = WAYS[usize::from(what - 11)];
                let stream = [HONEST_STREAM, "live/h1", "live/h1", "asked/a"][small % 4];
                return self.publish(by, stream, place, order);
            }
            17 => Op::Leave(client),
            18 => Op::Silent(client, b & 128 != 0),
            19 => Op::Reconnect(client),
            20 => Op::Switch(client, [HONEST_STREAM, "live/h1"][small % 2].to_owned()),
            21 => Op::Elsewhere(client, place),
            22 => Op::Reading(client, b & 128 != 0),
            23 if b & 1 == 0 => Op::Rebind(client),
            23 => Op::Readdress(client),
            24 => return self.turn(place),
            25 if b & 128 == 0 => return self.mood(small),
            25 => return self.layered(b),
            26 if b & 1 == 0 => Op::Crash(place),
            26 => Op::Start(place),
            27 => Op::Replace(place, [Version::This, Version::Older, Version::Newer][small % 3]),
            28 => Op::Drain(place),
            29 if b & 1 == 0 => Op::Cut(Who::Node(place)),
            29 => Op::Heal(Who::Node(place)),
            30 => {
                let n = small as u32;
                Op::Degrade(
                    Who::Client(client),
                    Quality { loss: 8 * n, jitter: 2 * n, corrupt: n / 8, ..Quality::default() },
                )
            }
            31 if b & 1 == 0 => Op::Memory(place, 9 + small as u32),
            31 => Op::Refuse(place, 30 * small as u32),
            _ => return,
        };
        self.runner.apply(&op);
    }

    /// A publisher of several renditions, or a viewer of them whose link carries more or less.
    fn layered(&mut self, b: u8) {
        let (host, rate) = (self.runner.host(self.place(b >> 4 & 3)), u64::from(b & 7) * 250_000);
        let Some(host) = host.filter(|_| self.clients < CLIENTS) else { return };
        self.clients += 1;
        let w = &mut *self.runner.world;
        if b & 8 == 0 {
            let renditions = PublisherConfig {
                renditions: vec![4, 16],
                key_bytes: 1_500,
                delta_bytes: 350,
                ..Default::default()
            };
            w.publish_with(host, "live/h2", renditions);
        } else {
            let v = w.play_webrtc(host, "live/h2", WhepConfig { renditions: true, ..WhepConfig::default() });
            let conditions =
                Conditions { rate: (rate > 0).then_some(rate), queue: 64 << 10, ..Conditions::default() };
            w.degrade_one_way(v, Direction::Down, conditions);
        }
    }

    fn turn(&mut self, place: Place) {
        let Some(at) = self.runner.host(place) else { return };
        let ip = self.runner.world.http_addr(at).ip();
        self.at = at;
        self.runner.world.with(self.anyone, |c: &mut Anyone, _| c.turns_to(ip));
    }

    fn mood(&mut self, n: usize) {
        let Some(doorman) = self.doorman else { return };
        let moods = [
            Mood::Well,
            Mood::Slow(ms(400)),
            Mood::Hangs,
            Mood::Down,
            Mood::Drops,
            Mood::Status(500),
            Mood::Says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n"),
            Mood::Floods,
            Mood::Drips,
        ];
        let mood = moods[n % moods.len()].clone();
        self.runner.world.with(doorman, |d: &mut Doorman, _| d.is(mood));
    }
}
