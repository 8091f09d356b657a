//! Carries out a plan: the cluster stands, operations happen, then all faults end, everyone must get what they want,
//! everyone leaves, and nothing may be left.
//!
//! A run is a function of its plan: it happens on a thread whose clocks and randomness are the plan's. A panic, of a
//! node or of a client, is a violation like any other.

use super::media;
use super::plan::{Behind, By, Op, Place, Plan, Version, Who};
use crate::world::actors::asker::Asker;
use crate::world::actors::evil::Evil;
use crate::world::actors::player::{Player, PlayerConfig};
use crate::world::actors::publisher::Publisher;
use crate::world::actors::rtsp::{RtspPlayer, RtspPublisher};
use crate::world::actors::webrtc::{Signalling, Whep, WhepConfig, Whip, WhipConfig};
use crate::world::net::nat::{Behaviour, NatId};
use crate::world::{ClientId, HostId, Party, Violation, World};
use proto_core::node::config::{Config, Role};
use proto_core::simulation::Speech;
use proto_core::time::Time;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

/// A manager that knows nothing yet waits for two report intervals.
const STANDS: Duration = Duration::from_millis(2_500);

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What was broken, if anything was.
    pub violation: Option<Violation>,
    /// The digest of every input and output of every node.
    pub hash: u64,
    /// How much virtual time passed.
    pub time: Time,
    /// How many things happened in the world.
    pub events: u64,
    /// RTP packets that reached a node or a client.
    pub packets: u64,
    /// WebRTC clients that joined.
    pub sessions: u64,
    /// The log, if it was wanted.
    pub log: Vec<String>,
}

/// Carries out a plan.
///
/// # Errors
/// Where clocks and randomness cannot be interposed, and so no run would replay.
pub fn run(plan: &Plan, verbose: bool) -> Result<Outcome, String> {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&plan.seed.to_be_bytes());
    determinism::os::run(seed, || inside(plan, verbose)).map_err(|e| e.to_string())
}

fn inside(plan: &Plan, verbose: bool) -> Outcome {
    catch_messages();
    let mut world = if verbose { World::new(plan.seed) } else { World::quiet(plan.seed) };
    world.sites(plan.sites);
    world.quic(plan.quic);
    // The world outlives what panics, so that it can still be asked.
    let mut sessions = 0;
    let driven = catch_unwind(AssertUnwindSafe(|| {
        let mut runner = Runner::new(&mut world, plan);
        runner.drive(plan);
        sessions = runner.sessions;
    }));
    let said = MESSAGE.with_borrow_mut(Option::take);
    if driven.is_err() {
        world.violate("PANIC", said.flatten().unwrap_or_else(|| "a panic without words".to_owned()));
    }
    Outcome {
        violation: world.violation().cloned(),
        hash: world.hash(),
        time: world.now(),
        events: world.events(),
        packets: world.media_packets(),
        sessions,
        log: world.take_log(),
    }
}

thread_local! {
    /// The last panic's message and place, on threads that carry out plans.
    static MESSAGE: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

/// Has the messages of this thread's panics kept, in place of printed.
fn catch_messages() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let printed = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let kept = MESSAGE.with_borrow_mut(|message| match message {
                None => false,
                Some(message) => {
                    let payload = info.payload();
                    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
                    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
                    let place = info.location().map(|l| format!(" ({}:{})", l.file(), l.line()));
                    *message = Some(text.unwrap_or_default() + &place.unwrap_or_default());
                    true
                }
            });
            if !kept {
                printed(info);
            }
        }));
    });
    MESSAGE.set(Some(None));
}

/// What a client of the plan is in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Publisher,
    Player,
    Whip,
    Whep,
    RtspPublisher,
    RtspPlayer,
    Evil,
}

impl By {
    /// Whether its connections are TLS.
    fn secure(self) -> bool {
        matches!(self, By::Rtmps | By::Https | By::Wss | By::Rtsps)
    }

    /// Whether it speaks RTSP.
    fn is_rtsp(self) -> bool {
        matches!(self, By::Rtsp | By::RtspUdp | By::Rtsps)
    }

    /// How its calls are signalled, if it is WebRTC.
    fn signalling(self) -> Option<Signalling> {
        match self {
            By::Rtmp | By::Rtmps | By::Rtsp | By::RtspUdp | By::Rtsps => None,
            By::Webrtc | By::WebrtcTcp | By::Https => Some(Signalling::Http),
            By::Ws | By::Wss => Some(Signalling::Socket),
            By::Managed => Some(Signalling::Managed),
        }
    }
}

/// Who carries out a plan, or single operations of one.
pub(super) struct Runner<'a> {
    pub(super) world: &'a mut World,
    places: BTreeMap<Place, HostId>,
    clients: BTreeMap<u32, (ClientId, Kind)>,
    nats: [Option<NatId>; 2],
    /// Clients to whom the manager gives a node.
    managed: BTreeSet<u32>,
    sessions: u64,
}

impl<'a> Runner<'a> {
    fn new(world: &'a mut World, plan: &Plan) -> Runner<'a> {
        Runner::with(world, plan, |_, _| {})
    }

    /// Starts the nodes of a plan, with changes to the configuration of each, the manager's first.
    pub(super) fn with(world: &'a mut World, plan: &Plan, change: impl Fn(usize, &mut Config)) -> Runner<'a> {
        let mut places = BTreeMap::new();
        let mut manager = None;
        for (n, place) in plan.places().into_iter().enumerate() {
            let roles: &[Role] = match place {
                Place::Manager => &[Role::Manager],
                Place::Origin(_) => &[Role::Origin],
                Place::Edge(_) => &[Role::Edge],
                Place::Complete(_) => &[Role::Origin, Role::Edge],
            };
            let region = n % usize::from(plan.regions.max(1));
            let id = world.host_with(&place.to_string(), roles, manager, |config| {
                if region > 0 {
                    config.node.region = format!("region{region}");
                }
                change(n, config);
            });
            manager = manager.or(Some(id));
            places.insert(place, id);
        }
        Runner {
            world,
            places,
            clients: BTreeMap::new(),
            nats: [None; 2],
            managed: BTreeSet::new(),
            sessions: 0,
        }
    }

    fn drive(&mut self, plan: &Plan) {
        self.world.lapse(STANDS);
        let begin = self.world.now();
        for step in &plan.steps {
            if step.at >= plan.span {
                continue;
            }
            let due = begin + Duration::from_millis(step.at);
            self.world.lapse(due.since(self.world.now()));
            if self.world.violation().is_some() {
                return;
            }
            self.world.note(|| format!("plan {} {}", step.at, step.op));
            self.apply(&step.op);
        }
        self.world.lapse((begin + plan.span()).since(self.world.now()));
        if self.world.violation().is_some() {
            return;
        }
        self.settle();
    }

    /// Faults end, all that was switched off is on again; then what must come to hold is waited for.
    fn settle(&mut self) {
        self.mend();
        self.world.expect_recovery();
        if self.world.violation().is_none() {
            self.world.expect_drained();
        }
    }

    /// The node of a place.
    pub(super) fn host(&self, place: Place) -> Option<HostId> {
        self.places.get(&place).copied()
    }

    /// Faults end, all that was switched off is on again.
    pub(super) fn mend(&mut self) {
        self.world.note(|| "plan the faults end".to_owned());
        self.world.heal_all();
        for &host in self.places.values() {
            if self.world.is_short_of_memory(host) {
                self.world.memory(host, None);
            }
            if self.world.is_draining(host) {
                self.world.crash(host);
            }
            if self.world.node_of(host).is_none() {
                self.world.start(host);
            }
        }
        for &(id, kind) in self.clients.values() {
            match kind {
                Kind::Publisher => self.world.with_publisher(id, |p, _| p.keep_silent(false)),
                Kind::Whip => self.world.with_whip(id, |p, now| p.keep_silent(false, now)),
                Kind::Player => self.world.with_player(id, |p| p.read(true)),
                Kind::RtspPublisher => self.world.with_rtsp_publisher(id, |p, _| p.keep_silent(false)),
                Kind::RtspPlayer => self.world.with_rtsp_player(id, |p| p.read(true)),
                Kind::Evil => self.world.relent(id),
                Kind::Whep => {}
            }
        }
    }

    fn party(&self, who: Who) -> Option<Party> {
        match who {
            Who::Node(place) => self.places.get(&place).map(|h| Party::Host(*h)),
            Who::Client(n) => self.clients.get(&n).map(|(id, _)| Party::Client(*id)),
        }
    }

    fn two(&self, a: Who, b: Who) -> Option<(Party, Party)> {
        self.party(a).zip(self.party(b)).filter(|(a, b)| a != b)
    }

    /// Has the next client sit behind a translator, or not.
    fn seat(&mut self, behind: Behind) {
        let (n, behaviour) = match behind {
            Behind::Nothing => return self.world.behind(None),
            Behind::Home => (0, Behaviour::HOME),
            Behind::Symmetric => (1, Behaviour::SYMMETRIC),
        };
        let nat = *self.nats[n].get_or_insert_with(|| self.world.nat(behaviour));
        self.world.behind(Some(nat));
    }

    /// Whom a client asks that leaves it to the manager which node it gets.
    fn asked(&self, by: By) -> Option<HostId> {
        (by == By::Managed).then(|| self.places.get(&Place::Manager).copied()).flatten()
    }

    /// How a player comes: the manager has nobody to give it where there is no edge.
    fn plays_by(&self, by: By) -> By {
        let edge = |p: &Place| matches!(p, Place::Edge(_) | Place::Complete(_));
        if by == By::Managed && !self.places.keys().any(edge) { By::Ws } else { by }
    }

    fn joined(&mut self, client: u32, id: ClientId, kind: Kind) {
        self.world.behind(None);
        self.world.over_tls(false);
        self.clients.insert(client, (id, kind));
        self.sessions += u64::from(matches!(kind, Kind::Whip | Kind::Whep));
    }

    /// Does one operation. What has no object does nothing: shrinking takes operations out one by one.
    pub(super) fn apply(&mut self, op: &Op) {
        // Answers nothing; the option only ends it early.
        let _ = self
            .join(op)
            .or_else(|| self.of_client(op))
            .or_else(|| self.of_node(op))
            .or_else(|| self.of_network(op));
    }

    fn join(&mut self, op: &Op) -> Option<()> {
        match op {
            Op::Publish { client, .. } | Op::Play { client, .. } | Op::Evil { client, .. }
                if self.clients.contains_key(client) => {}
            Op::Publish { client, by, at, stream, how, behind } => {
                let at = *self.places.get(at)?;
                self.seat(*behind);
                let at = self.asked(*by).unwrap_or(at);
                self.world.over_tls(by.secure());
                let (id, kind) = match by.signalling() {
                    None if by.is_rtsp() => {
                        let config = media::rtsp(how, *by == By::RtspUdp);
                        (self.world.publish_rtsp(at, stream, config), Kind::RtspPublisher)
                    }
                    None => (self.world.publish_with(at, stream, media::plain(how)), Kind::Publisher),
                    Some(signalling) => {
                        let (by, tcp) = (signalling, *by == By::WebrtcTcp);
                        let config = WhipConfig { by, tcp, ..media::whip(how) };
                        (self.world.publish_webrtc(at, stream, config), Kind::Whip)
                    }
                };
                self.joined(*client, id, kind);
                self.managed.extend((*by == By::Managed).then_some(*client));
            }
            Op::Play { client, by, at, stream, behind } => {
                let (by, at) = (&self.plays_by(*by), *self.places.get(at)?);
                self.seat(*behind);
                let again = Some(Duration::from_millis(700));
                let at = self.asked(*by).unwrap_or(at);
                self.world.over_tls(by.secure());
                let (id, kind) = match by.signalling() {
                    None if by.is_rtsp() => {
                        let config =
                            PlayerConfig { again, udp: *by == By::RtspUdp, ..PlayerConfig::default() };
                        (self.world.play_rtsp(at, stream, config), Kind::RtspPlayer)
                    }
                    None => (self.world.play(at, stream), Kind::Player),
                    Some(signalling) => {
                        let (by, tcp) = (signalling, *by == By::WebrtcTcp);
                        // It must have noticed that its node is gone before recovery is judged.
                        let silence = Duration::from_secs(4);
                        let config = WhepConfig { by, tcp, again, silence, ..WhepConfig::default() };
                        (self.world.play_webrtc(at, stream, config), Kind::Whep)
                    }
                };
                self.joined(*client, id, kind);
                self.managed.extend((*by == By::Managed).then_some(*client));
            }
            Op::Evil { client, kind, at } => {
                let at = *self.places.get(at)?;
                let kind = Evil::ALL.iter().find(|k| format!("{k:?}") == *kind)?;
                let id = self.world.evil(*kind, at, u64::from(*client));
                self.joined(*client, id, Kind::Evil);
            }
            Op::Ask(at, path) => {
                let to = self.world.http_addr(*self.places.get(at)?);
                self.world.add(Box::new(Asker::new(to, path)));
            }
            _ => return None,
        }
        Some(())
    }

    fn of_client(&mut self, op: &Op) -> Option<()> {
        let client = match op {
            Op::Leave(c)
            | Op::Silent(c, _)
            | Op::Reconnect(c)
            | Op::Switch(c, _)
            | Op::Elsewhere(c, _)
            | Op::Reading(c, _)
            | Op::Rebind(c)
            | Op::Readdress(c) => c,
            _ => return None,
        };
        let &(id, kind) = self.clients.get(client)?;
        let w = &mut *self.world;
        match (op, kind) {
            (Op::Leave(_), Kind::Publisher) => w.with_publisher(id, Publisher::leave),
            (Op::Leave(_), Kind::Player) => w.with_player(id, Player::leave),
            (Op::Leave(_), Kind::RtspPublisher) => w.with_rtsp_publisher(id, RtspPublisher::leave),
            (Op::Leave(_), Kind::RtspPlayer) => w.with_rtsp_player(id, RtspPlayer::leave),
            (Op::Leave(_), Kind::Whip) => w.with_whip(id, Whip::leave),
            (Op::Leave(_), Kind::Whep) => w.with_whep(id, Whep::leave),
            (Op::Leave(_), Kind::Evil) => w.relent(id),
            (Op::Silent(_, silent), Kind::Publisher) => w.with_publisher(id, |p, _| p.keep_silent(*silent)),
            (Op::Silent(_, silent), Kind::RtspPublisher) => {
                w.with_rtsp_publisher(id, |p, _| p.keep_silent(*silent));
            }
            (Op::Silent(_, silent), Kind::Whip) => w.with_whip(id, |p, now| p.keep_silent(*silent, now)),
            (Op::Reconnect(_), Kind::Publisher) => w.with_publisher(id, Publisher::connect),
            (Op::Reconnect(_), Kind::RtspPublisher) => w.with_rtsp_publisher(id, RtspPublisher::connect),
            (Op::Reconnect(_), Kind::RtspPlayer) => w.with(id, RtspPlayer::connect),
            (Op::Reconnect(_), Kind::Whip) => w.with_whip(id, Whip::connect),
            (Op::Reconnect(_), Kind::Whep) => w.with_whep(id, Whep::connect),
            (Op::Switch(_, stream), Kind::Whep) => w.with_whep(id, |v, now| v.switch(stream, now)),
            (Op::Elsewhere(..), _) if self.managed.contains(client) => {}
            (Op::Elsewhere(_, at), _) => {
                let host = *self.places.get(at)?;
                let (rtmp, rtsp, http) = (w.rtmp_addr(host), w.rtsp_addr(host), w.http_addr(host));
                match kind {
                    Kind::Publisher => w.with_publisher(id, |p, now| {
                        p.goes_to(rtmp);
                        p.connect(now);
                    }),
                    Kind::Whip => w.with_whip(id, |p, now| {
                        p.goes_to(http);
                        p.connect(now);
                    }),
                    Kind::Whep => w.with_whep(id, |p, now| {
                        p.goes_to(http);
                        p.connect(now);
                    }),
                    Kind::RtspPublisher => w.with_rtsp_publisher(id, |p, now| {
                        p.goes_to(rtsp);
                        p.connect(now);
                    }),
                    Kind::RtspPlayer => w.with(id, |p: &mut RtspPlayer, now| {
                        p.goes_to(rtsp);
                        p.connect(now);
                    }),
                    Kind::Player | Kind::Evil => {}
                }
            }
            (Op::Reading(_, on), Kind::RtspPlayer) => w.with_rtsp_player(id, |p| p.read(*on)),
            (Op::Reading(_, on), Kind::Player) => w.with_player(id, |p| p.read(*on)),
            (Op::Rebind(_) | Op::Readdress(_), _) => {
                match op {
                    Op::Rebind(_) => w.rebind(id),
                    _ => w.readdress(id),
                }
                // A player by RTMP cannot know that its connection is dead, and has no way to come back.
                if kind == Kind::Player {
                    w.with_player(id, Player::leave);
                }
            }
            _ => {}
        }
        Some(())
    }

    fn of_node(&mut self, op: &Op) -> Option<()> {
        let at = match op {
            Op::Crash(at)
            | Op::Start(at)
            | Op::Replace(at, _)
            | Op::Drain(at)
            | Op::Pause(at)
            | Op::Resume(at)
            | Op::Skew(at, _)
            | Op::Wall(at, _)
            | Op::Memory(at, _)
            | Op::Descriptors(at, _)
            | Op::Refuse(at, _) => at,
            _ => return None,
        };
        let id = *self.places.get(at)?;
        let w = &mut *self.world;
        match op {
            Op::Crash(_) if w.node_of(id).is_some() => w.crash(id),
            Op::Start(_) if w.node_of(id).is_none() => w.start(id),
            Op::Replace(_, version) => {
                if w.node_of(id).is_some() {
                    w.crash(id);
                }
                w.speech(
                    id,
                    match version {
                        Version::This => None,
                        Version::Older => Some(Speech::Older),
                        Version::Newer => Some(Speech::Newer),
                    },
                );
                w.start(id);
            }
            Op::Drain(_) => w.drain(id),
            Op::Pause(_) => w.pause(id),
            Op::Resume(_) => w.resume(id),
            Op::Skew(_, ppm) => w.skew(id, i64::from(*ppm)),
            Op::Wall(_, ms) => w.jump_wall(id, i64::from(*ms)),
            Op::Memory(_, mb) => w.memory(id, (*mb > 0).then_some(u64::from(*mb) << 20)),
            Op::Descriptors(_, n) => w.descriptors(id, (*n > 0).then_some(*n as usize)),
            Op::Refuse(_, permille) => w.refuse_datagrams(id, f64::from(*permille) / 1_000.0),
            _ => {}
        }
        Some(())
    }

    fn of_network(&mut self, op: &Op) -> Option<()> {
        match op {
            Op::Cut(who) => self.party(*who).map(|p| self.world.cut(p)),
            Op::Heal(who) => self.party(*who).map(|p| self.world.heal(p)),
            Op::Degrade(who, quality) => {
                self.party(*who).map(|p| self.world.degrade(p, media::conditions(quality)))
            }
            Op::Restore(who) => self.party(*who).map(|p| self.world.restore(p)),
            Op::Stall(who, ms) => {
                self.party(*who).map(|p| self.world.stall(p, Duration::from_millis(u64::from(*ms))))
            }
            Op::Part(a, b) => self.two(*a, *b).map(|(a, b)| self.world.part(a, b)),
            Op::OneWay(a, b) => self.two(*a, *b).map(|(a, b)| self.world.part_one_way(a, b)),
            Op::Join(a, b) => self.two(*a, *b).map(|(a, b)| self.world.join(a, b)),
            _ => None,
        }
    }
}
