//! The one generator of plans. It draws from a [`Source`] of choices, which is a seed in a sweep, and bytes for proptest
//! and for the fuzzer, so that all three look for faults in the same space.
//!
//! It is a swarm (Groce and others, "Swarm testing", 2012): first it draws which kinds of faults a run has and how
//! strong they are, and only then what happens. A run with few kinds goes deeper into them than one with all.

use super::plan::{Behind, By, Op, Place, Plan, Publishing, Quality, Step, Version, Who};
use crate::world::actors::evil::Evil;
use crate::world::media::Order;
use proto_core::rand::Rng;

/// Where choices come from.
pub trait Source {
    /// A number below `n` (0 if `n` is 0).
    fn below(&mut self, n: u64) -> u64;

    /// Whether there are no more choices; the generator then comes to an end.
    fn is_empty(&self) -> bool {
        false
    }
}

/// Choices of a seed.
pub struct Seeded(Rng);

impl Seeded {
    /// All choices of this seed.
    pub fn new(seed: u64) -> Seeded {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        Seeded(Rng::new(bytes).fork("plan", seed))
    }
}

impl Source for Seeded {
    fn below(&mut self, n: u64) -> u64 {
        match n {
            0 => 0,
            // The little that is uneven does not matter here.
            n => self.0.u64() % n,
        }
    }
}

/// Choices that somebody else made, as bytes. Behind the last all choices are 0.
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// These choices.
    pub fn new(bytes: &'a [u8]) -> Bytes<'a> {
        Bytes(bytes)
    }
}

impl Source for Bytes<'_> {
    fn below(&mut self, n: u64) -> u64 {
        let wanted = if n <= 0x100 { 1 } else { 2 };
        let (now, later) = self.0.split_at(wanted.min(self.0.len()));
        self.0 = later;
        let number = now.iter().fold(0, |all, b| all << 8 | u64::from(*b));
        if n == 0 { 0 } else { number % n }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What kind of runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Everything.
    Full,
    /// The measure of speed: 3 origins, 3 edges, nine WebRTC sessions that stay for at least 36 s, and faults.
    Bar,
    /// As `Full`, but a few seconds: for the fuzzer and for unoptimised builds.
    Short,
}

/// A kind of fault. A run has it or has it not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Crash,
    Drain,
    Cut,
    Part,
    OneWay,
    Degrade,
    Stall,
    Pause,
    Skew,
    Wall,
    Descriptors,
    Refuse,
    Move,
    Evil,
    Absent,
    Versions,
    Memory,
}

const FAULTS: [Fault; 16] = [
    Fault::Crash,
    Fault::Drain,
    Fault::Cut,
    Fault::Part,
    Fault::OneWay,
    Fault::Degrade,
    Fault::Stall,
    Fault::Pause,
    Fault::Skew,
    Fault::Wall,
    Fault::Descriptors,
    Fault::Refuse,
    Fault::Move,
    Fault::Evil,
    Fault::Absent,
    Fault::Versions,
];

/// What people ask nodes for.
const PATHS: [&str; 9] = [
    "/api/v1/streams",
    "/api/v1/sessions",
    "/api/v1/node",
    "/api/v1/cluster",
    "/metrics",
    "/events/publish/live/a",
    "/events/subscribe/live/a",
    "/",
    "/nothing/here",
];

struct Generator<'a> {
    source: &'a mut dyn Source,
    plan: Plan,
    clients: u32,
    publishers: Vec<(u32, String)>,
    players: Vec<u32>,
    streams: Vec<String>,
    profile: Profile,
}

/// Makes a plan; `seed` is the world's.
pub fn generate(seed: u64, profile: Profile, source: &mut dyn Source) -> Plan {
    let plan = Plan {
        seed,
        origins: 3,
        edges: 3,
        complete: 0,
        regions: 1,
        span: 36_000,
        sites: false,
        quic: true,
        steps: Vec::new(),
    };
    let generator = Generator {
        source,
        plan,
        clients: 0,
        publishers: Vec::new(),
        players: Vec::new(),
        streams: Vec::new(),
        profile,
    };
    let mut plan = match profile {
        Profile::Bar => generator.bar(),
        Profile::Full | Profile::Short => generator.full(),
    };
    plan.sort();
    plan
}

/// The plan of a seed.
pub fn of_seed(seed: u64, profile: Profile) -> Plan {
    generate(seed, profile, &mut Seeded::new(seed))
}

/// What the fuzz target `world` begins with, by name: choices that were drawn, behind the seed of a world.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let drawn = |n: u64| {
        let mut bytes = vec![0; 8 + 700];
        Rng::new([n as u8; 32]).fill(&mut bytes);
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        (format!("drawn-{n}"), bytes)
    };
    (0..16).map(drawn).collect()
}

impl Generator<'_> {
    fn below(&mut self, n: u64) -> u64 {
        self.source.below(n)
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        // The last choice, so that bytes that ran out say no.
        self.below(n) == n - 1
    }

    fn choose<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let n = self.below(from.len() as u64) as usize;
        from.get(n).cloned()
    }

    fn time(&mut self) -> u64 {
        let span = self.plan.span;
        self.below(span)
    }

    fn add(&mut self, at: u64, op: Op) {
        self.plan.steps.push(Step { at, op });
    }

    fn number(&mut self) -> u32 {
        self.clients += 1;
        self.clients - 1
    }

    fn place(&mut self) -> Place {
        let places = self.plan.places();
        self.choose(&places).unwrap_or(Place::Manager)
    }

    fn watched(&mut self) -> Place {
        let places = self.plan.watched();
        self.choose(&places).unwrap_or(Place::Origin(1))
    }

    /// Any node or client.
    fn who(&mut self) -> Who {
        if self.clients > 0 && self.below(3) == 0 {
            let clients = u64::from(self.clients);
            return Who::Client(self.below(clients) as u32);
        }
        Who::Node(self.place())
    }

    fn behind(&mut self) -> Behind {
        match self.below(8) {
            6 => Behind::Home,
            7 => Behind::Symmetric,
            _ => Behind::Nothing,
        }
    }

    fn publish(&mut self, at: u64, by: By, place: Place, stream: &str, how: Publishing, behind: Behind) {
        let client = self.number();
        self.publishers.push((client, stream.to_owned()));
        self.add(at, Op::Publish { client, by, at: place, stream: stream.to_owned(), how, behind });
    }

    fn play(&mut self, at: u64, by: By, place: Place, stream: &str, behind: Behind) {
        let client = self.number();
        self.players.push(client);
        self.add(at, Op::Play { client, by, at: place, stream: stream.to_owned(), behind });
    }

    fn full(mut self) -> Plan {
        let short = self.profile == Profile::Short;
        self.plan.origins = self.between(1, 3) as u8;
        self.plan.edges = self.between(0, 3) as u8;
        self.plan.complete = u8::from(self.one_in(4));
        self.plan.regions = if self.one_in(3) { 2 } else { 1 };
        self.plan.sites = self.one_in(4);
        // By the seed and not by a draw, so that all else in a seed stays what it was.
        self.plan.quic = self.plan.seed % 4 != 3;
        self.plan.span = if short { self.between(2_000, 6_000) } else { self.between(8_000, 40_000) };
        // Runs with one protocol alone, and with both.
        let webrtc = self.below(5);
        let names = self.between(1, 3);
        self.streams = (0..names).map(|n| format!("live/{}", ["a", "b", "c"][n as usize % 3])).collect();
        let faults: Vec<(Fault, u64)> = FAULTS
            .iter()
            .filter_map(|f| {
                let chosen = self.one_in(4);
                chosen.then(|| (*f, self.between(1, 3)))
            })
            .collect();
        let any = |g: &mut Self| if g.below(4) < webrtc { By::Webrtc } else { By::Rtmp };
        for stream in self.streams.clone() {
            let at = self.below(2_000);
            let (by, how, behind) = (any(&mut self), self.publishing(), self.behind());
            let place = self.watched();
            self.publish(at, by, place, &stream, how, behind);
            for _ in 0..self.between(1, 3) {
                let (at, place, behind) = (self.between(500, 4_000), self.watched(), self.behind());
                let by = any(&mut self);
                self.play(at, by, place, &stream, behind);
            }
        }
        for _ in 0..self.between(2, if short { 8 } else { 16 }) {
            if self.source.is_empty() {
                break;
            }
            let (at, by) = (self.time(), any(&mut self));
            self.something(at, by);
        }
        for (fault, strength) in faults {
            for _ in 0..strength {
                self.fault(fault, strength);
            }
        }
        // Drawn last, so that the seeds before it kept what they had.
        if self.one_in(4) {
            self.fault(Fault::Memory, 1);
        }
        if self.one_in(3) {
            self.other_ways();
        }
        let share = self.below(4);
        if share > 0 && self.one_in(2) {
            self.some_by_rtsp(share);
        }
        if self.one_in(4) {
            self.some_over_tcp();
        }
        if self.one_in(4) {
            self.some_switch();
        }
        if self.one_in(2) {
            self.some_by_rtsps();
        }
        if self.one_in(4) {
            self.some_reorder();
        }
        self.plan
    }

    /// Some clients come by TLS, by a websocket, or through the manager.
    fn other_ways(&mut self) {
        let mut steps = std::mem::take(&mut self.plan.steps);
        for step in &mut steps {
            let (Op::Publish { by, .. } | Op::Play { by, .. }) = &mut step.op else { continue };
            if self.below(2) == 0 {
                continue;
            }
            *by = match *by {
                By::Webrtc => [By::Ws, By::Managed, By::Https, By::Wss][self.below(4) as usize % 4],
                By::Rtmp => By::Rtmps,
                other => other,
            };
        }
        self.plan.steps = steps;
    }

    /// Has some of those who publish and play do so by RTSP.
    fn some_by_rtsp(&mut self, share: u64) {
        for n in 0..self.plan.steps.len() {
            let chosen = self.below(4) < share;
            let with = if self.one_in(2) { By::RtspUdp } else { By::Rtsp };
            if let Some(Step { op: Op::Publish { by, .. } | Op::Play { by, .. }, .. }) =
                self.plan.steps.get_mut(n)
                && chosen
            {
                *by = with;
            }
        }
    }

    /// Has some of those who come by RTSP do so over TLS.
    fn some_by_rtsps(&mut self) {
        for n in 0..self.plan.steps.len() {
            let chosen = self.one_in(2);
            if let Some(Step { op: Op::Publish { by, .. } | Op::Play { by, .. }, .. }) =
                self.plan.steps.get_mut(n)
                && chosen
                && *by == By::Rtsp
            {
                *by = By::Rtsps;
            }
        }
    }

    /// Some publishers by RTMP have B pictures, also such that others need.
    fn some_reorder(&mut self) {
        for n in 0..self.plan.steps.len() {
            let with = [Order::Shown, Order::Plain, Order::Pyramid][self.below(3) as usize % 3];
            if let Some(Step { op: Op::Publish { by: By::Rtmp | By::Rtmps, how, .. }, .. }) =
                self.plan.steps.get_mut(n)
            {
                how.order = with;
            }
        }
    }

    /// Some networks let no UDP through.
    fn some_over_tcp(&mut self) {
        let mut steps = std::mem::take(&mut self.plan.steps);
        for step in &mut steps {
            if let Op::Publish { by: by @ By::Webrtc, .. } | Op::Play { by: by @ By::Webrtc, .. } =
                &mut step.op
                && self.one_in(2)
            {
                *by = By::WebrtcTcp;
            }
        }
        self.plan.steps = steps;
    }

    /// Players in the stream-manager dialect go over to other streams.
    fn some_switch(&mut self) {
        let dialect = |step: &Step| match step.op {
            Op::Play { client, by: By::Ws | By::Wss | By::Managed, .. } => Some((client, step.at)),
            _ => None,
        };
        let players: Vec<(u32, u64)> = self.plan.steps.iter().filter_map(dialect).collect();
        for (client, joined) in players {
            for _ in 0..self.between(1, 3) {
                let at = (joined + self.between(500, 6_000)).min(self.plan.span.saturating_sub(1));
                let nth = self.below(self.streams.len() as u64) as usize;
                if let Some(stream) = self.streams.get(nth).cloned() {
                    self.add(at, Op::Switch(client, stream));
                }
            }
        }
    }

    fn publishing(&mut self) -> Publishing {
        Publishing {
            again: Some(self.between(200, 2_000) as u32),
            gop: self.between(10, 60) as u32,
            bytes: self.between(200, 2_500) as u32,
            sound: [20, 10, 40, 60][self.below(4) as usize % 4],
            order: Order::Shown,
        }
    }

    /// An ordinary event in the life of clients.
    fn something(&mut self, at: u64, by: By) {
        let stream = self.choose(&self.streams.clone()).unwrap_or_else(|| "live/a".to_owned());
        let publisher = self.choose(&self.publishers.clone()).map(|(c, _)| c);
        let player = self.choose(&self.players.clone());
        match (self.below(11), publisher, player) {
            (0..=2, ..) => {
                let (place, behind) = (self.watched(), self.behind());
                self.play(at, by, place, &stream, behind);
            }
            (3, _, Some(player)) => self.add(at, Op::Leave(player)),
            (4, _, Some(player)) if by == By::Webrtc => self.add(at, Op::Reconnect(player)),
            (4, _, Some(player)) => {
                self.add(at, Op::Reading(player, false));
                let later = at + self.between(500, 8_000);
                self.add(later, Op::Reading(player, true));
            }
            (5, Some(publisher), _) => self.add(at, Op::Reconnect(publisher)),
            (6, Some(publisher), _) => {
                let place = self.watched();
                self.add(at, Op::Elsewhere(publisher, place));
            }
            (7, Some(publisher), _) => {
                self.add(at, Op::Silent(publisher, true));
                let later = at + self.between(200, 9_000);
                self.add(later, Op::Silent(publisher, false));
            }
            (8, Some(publisher), _) => {
                self.add(at, Op::Leave(publisher));
                let (later, place, how) = (at + self.between(50, 6_000), self.watched(), self.publishing());
                self.publish(later, by, place, &stream, how, Behind::Nothing);
            }
            (9, ..) => {
                // A rival for the name.
                let (place, how) = (self.watched(), self.publishing());
                let how = Publishing { again: None, ..how };
                self.publish(at, by, place, &stream, how, Behind::Nothing);
            }
            _ => {
                let (place, path) = (self.place(), self.choose(&PATHS).unwrap_or("/"));
                self.add(at, Op::Ask(place, path.to_owned()));
            }
        }
    }

    /// One fault, and its end after a while. All end when the span does.
    fn fault(&mut self, fault: Fault, strength: u64) {
        let at = self.time();
        let later = at + self.between(100, 3_000 * strength);
        let place = self.place();
        let who = self.who();
        match fault {
            Fault::Crash => {
                self.add(at, Op::Crash(place));
                self.add(later, Op::Start(place));
            }
            Fault::Versions => {
                let version = if self.one_in(2) { Version::Older } else { Version::Newer };
                self.add(at, Op::Replace(place, version));
                if self.one_in(2) {
                    self.add(later, Op::Replace(place, Version::This));
                }
            }
            Fault::Memory => {
                // Room for a stream or three, and some sessions.
                let mb = self.between(9, 26) as u32;
                self.add(at, Op::Memory(place, mb));
                if self.one_in(2) {
                    self.add(later, Op::Memory(place, 0));
                }
            }
            Fault::Drain => self.add(at, Op::Drain(place)),
            Fault::Cut => {
                self.add(at, Op::Cut(who));
                self.add(later, Op::Heal(who));
            }
            Fault::Part | Fault::OneWay => {
                let other = Who::Node(place);
                if other != who {
                    let part = if fault == Fault::Part { Op::Part } else { Op::OneWay };
                    self.add(at, part(who, other));
                    self.add(later, Op::Join(who, other));
                }
            }
            Fault::Degrade => {
                let quality = self.quality(strength);
                self.add(at, Op::Degrade(who, quality));
                self.add(later, Op::Restore(who));
            }
            Fault::Stall => self.add(at, Op::Stall(who, (later - at) as u32)),
            Fault::Pause => {
                self.add(at, Op::Pause(place));
                self.add(later, Op::Resume(place));
            }
            Fault::Skew => {
                let ppm = self.below(2_000 * strength) as i32 - 1_000 * strength as i32;
                self.add(at, Op::Skew(place, ppm));
            }
            Fault::Wall => {
                let ms = self.below(7_200_000) as i32 - 3_600_000;
                self.add(at, Op::Wall(place, ms));
            }
            Fault::Descriptors => {
                let n = self.between(12, 40) as u32;
                self.add(at, Op::Descriptors(place, n));
                self.add(later, Op::Descriptors(place, 0));
            }
            Fault::Refuse => {
                let permille = self.between(10, 300 * strength) as u32;
                self.add(at, Op::Refuse(place, permille));
                self.add(later, Op::Refuse(place, 0));
            }
            Fault::Move => {
                let client = self.below(u64::from(self.clients)) as u32;
                let op = if self.one_in(2) { Op::Rebind(client) } else { Op::Readdress(client) };
                self.add(at, op);
            }
            Fault::Evil => {
                let (client, at_node) = (self.number(), self.watched());
                let kind = self.choose(Evil::ALL).map_or_else(String::new, |k| format!("{k:?}"));
                self.add(at, Op::Evil { client, kind, at: at_node });
                self.add(later, Op::Leave(client));
            }
            Fault::Absent => {
                let (place, by) = (self.watched(), if self.one_in(2) { By::Webrtc } else { By::Rtmp });
                self.play(at, by, place, "live/nobody", Behind::Nothing);
            }
        }
    }

    fn quality(&mut self, strength: u64) -> Quality {
        let some =
            |g: &mut Self, most: u64| if g.one_in(2) { g.between(1, most * strength) as u32 } else { 0 };
        Quality {
            latency: some(self, 80),
            jitter: some(self, 30),
            loss: some(self, 40),
            burst: self.below(4) as u32,
            twice: some(self, 20),
            reorder: some(self, 30),
            corrupt: some(self, 5),
            rate: if self.one_in(4) { self.between(300, 8_000) as u32 } else { 0 },
            mtu: if self.one_in(6) { self.between(1_200, 1_400) as u32 } else { 0 },
        }
    }

    /// Exactly what the bar wants: see [`Profile::Bar`].
    fn bar(mut self) -> Plan {
        self.streams = vec!["live/a".to_owned(), "live/b".to_owned()];
        let how = Publishing { again: Some(300), gop: 25, bytes: 300, sound: 40, order: Order::Shown };
        for (n, stream) in self.streams.clone().iter().enumerate() {
            let place = Place::Origin(self.between(1, 3) as u8);
            self.publish(n as u64 * 50, By::Webrtc, place, stream, how, Behind::Nothing);
        }
        for n in 0..7 {
            let place = Place::Edge((n % 3 + 1) as u8);
            let stream = self.streams[n as usize % 2].clone();
            let at = 200 + self.below(300);
            self.play(at, By::Webrtc, place, &stream, Behind::Nothing);
        }
        let faults = [
            Fault::Crash,
            Fault::Cut,
            Fault::Part,
            Fault::OneWay,
            Fault::Degrade,
            Fault::Stall,
            Fault::Pause,
            Fault::Skew,
            Fault::Wall,
            Fault::Refuse,
        ];
        for _ in 0..self.between(2, 4) {
            if let Some(fault) = self.choose(&faults) {
                self.fault(fault, 1);
            }
        }
        self.plan
    }
}
