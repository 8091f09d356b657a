//! Non-interference (S12): whatever a misbehaving peer does, what others see stays as it would have been without it.
//!
//! The same seed is run twice, once with and once without the evil client. All that is random in a world is drawn by
//! what it is for, so the innocents of both runs draw the same numbers, and every frame that they get must be the
//! same one, with the same time stamp, and come within [`TOLERANCE`] of the same moment.

use super::actors::asker::Asker;
use super::actors::evil::{Evil, Victim};
use super::actors::player::{self, PlayerBy, PlayerConfig, Source};
use super::actors::publisher::PublisherConfig;
use super::actors::webrtc::{Call, Seen, WhepConfig, WhipConfig};
use super::actors::{Client, In, Notes, Out};
use super::{ClientId, HostId, Violation, World};
use proto_core::guard::INJECTED;
use proto_core::io::ConnId;
use proto_core::node::config::{Config, Role};
use proto_core::time::Time;
use std::time::Duration;

/// How much later or earlier a frame may come. Between nodes, pieces of a TCP stream take up to a millisecond more or
/// less depending on how they are cut, and reports that name the evil client's sessions are longer. A datagram takes
/// up to 5 ms more or less, by its number in its flow; feedback that leaves a moment later shifts those numbers.
pub const TOLERANCE: Duration = Duration::from_millis(15);

/// How long the evil client is at it.
const ABUSE: Duration = Duration::from_secs(12);

/// A client that does nothing, and keeps the numbers of those after it the same.
struct Nobody(Notes);

impl Client for Nobody {
    fn on(&mut self, _input: In<'_>, _now: Time) {}

    fn poll(&mut self) -> Option<Out> {
        None
    }

    fn wake(&self) -> Option<Time> {
        None
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.0
    }
}

/// What an innocent client lived through: a line for each thing, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Who.
    pub who: String,
    /// What happened, in order.
    pub lines: Vec<(Time, String)>,
}

/// What the innocents of a run lived through, and what broke in it, if anything did.
#[derive(Clone, Debug)]
pub struct Innocents {
    /// One trace for each.
    pub traces: Vec<Trace>,
    /// When they were written down.
    pub until: Time,
    /// Sessions and connections that remained when everyone had left.
    pub violation: Option<Violation>,
}

/// By what the innocents publish and play, beside RTMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cast {
    /// Nothing else.
    Rtmp,
    /// WebRTC.
    Webrtc,
    /// RTSP, over connections and by datagrams.
    Rtsp,
}

impl Cast {
    /// All of them.
    pub const ALL: [Cast; 3] = [Cast::Rtmp, Cast::Webrtc, Cast::Rtsp];

    /// Those whom a kind of evil could touch most.
    pub fn of(kind: Evil) -> Cast {
        match kind {
            kind if kind.is_about_rtsp() => Cast::Rtsp,
            kind if kind.is_about_webrtc() => Cast::Webrtc,
            _ => Cast::Rtmp,
        }
    }
}

/// The world of these runs: its nodes, its innocents.
struct Scene {
    nodes: Vec<HostId>,
    publishers: Vec<ClientId>,
    players: Vec<ClientId>,
    whip: Option<ClientId>,
    whep: Vec<ClientId>,
    rtsp: Vec<ClientId>,
    rtsp_players: Vec<ClientId>,
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Lets time pass; `false` if an invariant broke.
fn pass(w: &mut World, time: Duration) -> bool {
    let until = w.now + time;
    while w.step(until) {}
    w.now = until;
    w.violation.is_none()
}

fn call(c: &Call) -> String {
    format!("status {:?}, sound {}, ended {:?}", c.status, c.sound, c.ended.as_ref().map(|(_, why)| why))
}

/// What a player lived through, of one track or all.
fn player_trace<S: Source>(id: ClientId, p: &PlayerBy<S>, now: Time, track: Option<char>) -> Trace {
    let of = |s: &&player::Seen| track.is_none_or(|t| t == s.label.track);
    let seen = p.seen.iter().filter(of).map(|s| (s.at, format!("{:?} at {}", s.label, s.stamp)));
    let end = (now, format!("told {:?}, ended {:?}", p.statuses, p.ended));
    Trace { who: format!("player {id:?} of {}", p.stream()), lines: [end].into_iter().chain(seen).collect() }
}

impl Scene {
    /// `change`: of the configuration of the first origin.
    fn new(w: &mut World, cast: Cast, change: impl FnOnce(&mut Config)) -> Scene {
        let webrtc = cast == Cast::Webrtc;
        // Of both ways between nodes this has more that strangers can touch.
        w.quic(true);
        let m = w.host("m1", &[Role::Manager], None);
        let o1 = w.host_with("o1", &[Role::Origin], Some(m), change);
        let o2 = w.host("o2", &[Role::Origin], Some(m));
        let e1 = w.host("e1", &[Role::Edge], Some(m));
        pass(w, ms(2_500));
        let publishers = vec![w.publish(o1, "live/one"), w.publish(o2, "live/two")];
        pass(w, ms(1_000));
        let at = [(o1, "live/one"), (e1, "live/one"), (o2, "live/two"), (e1, "live/two")];
        let players = at.into_iter().map(|(at, stream)| w.play(at, stream)).collect();
        // Pictures by WebRTC are found and decrypted by address, so there the guests' datagrams matter.
        let whip = webrtc.then(|| w.publish_webrtc(o1, "live/web", WhipConfig::default()));
        pass(w, ms(1_500));
        let strict = || WhepConfig { again: None, strict: true, ..WhepConfig::default() };
        let whep = webrtc
            .then_some([o1, e1])
            .into_iter()
            .flatten()
            .map(|at| w.play_webrtc(at, "live/web", strict()))
            .collect();
        let (mut rtsp, mut rtsp_players) = (Vec::new(), Vec::new());
        if cast == Cast::Rtsp {
            // A viewer that comes may want a key frame, and that is its right.
            let how = |udp| PublisherConfig { udp, stubborn: true, ..PublisherConfig::default() };
            rtsp = vec![
                w.publish_rtsp(o1, "live/three", how(false)),
                w.publish_rtsp(o1, "live/four", how(true)),
            ];
            pass(w, ms(1_500));
            for (at, stream, udp) in [
                (o1, "live/three", true),
                (e1, "live/three", false),
                (e1, "live/four", true),
                (o1, "live/four", false),
            ] {
                rtsp_players.push(w.play_rtsp(at, stream, PlayerConfig { udp, ..PlayerConfig::default() }));
            }
        }
        pass(w, ms(1_500));
        Scene { nodes: vec![m, o1, o2, e1], publishers, players, whip, whep, rtsp, rtsp_players }
    }

    fn trace(&self, w: &World) -> Vec<Trace> {
        let rtmp = self.publishers.iter().map(|id| (id, &w.publisher(*id).sent));
        let rtsp = self.rtsp.iter().map(|id| (id, &w.rtsp_publisher(*id).sent));
        let published = rtmp.chain(rtsp).map(|(id, sent)| {
            let lines = sent.iter().map(|s| {
                (
                    s.ready.unwrap_or_default(),
                    format!("{} pictures, {} sounds, {:?}", s.pictures, s.sounds, s.ended),
                )
            });
            Trace { who: format!("publisher {id:?}"), lines: lines.collect() }
        });
        // Between nodes each track has streams of its own, so at an edge (every other player, and the late one) it has its
        // own order.
        let played = self.players.iter().enumerate().flat_map(|(n, id)| {
            let tracks: &[Option<char>] =
                if n % 2 == 1 || n >= 4 { &[Some('v'), Some('a')] } else { &[None] };
            tracks.iter().map(|track| player_trace(*id, w.player(*id), w.now, *track))
        });
        // Pictures and sound come by lanes of their own.
        let by_rtsp = self
            .rtsp_players
            .iter()
            .flat_map(|id| ['v', 'a'].map(|track| player_trace(*id, w.rtsp_player(*id), w.now, Some(track))));
        let sent = self.whip.iter().map(|id| {
            let whip = w.whip(*id);
            let calls = whip.calls().iter().map(|c| (c.connected.unwrap_or_default(), call(c)));
            let lines = calls.chain(whip.sent.iter().map(|s| (w.now, format!("{s:?}"))));
            Trace { who: format!("publisher {id:?} by WHIP"), lines: lines.collect() }
        });
        // Pictures and sound overtake each other on the way; each has its own order.
        let watched = self.whep.iter().flat_map(|id| [true, false].map(|picture| (id, picture))).map(
            |(id, picture)| {
                let p = w.whep(*id);
                let about = |s: &Seen| format!("{} of {} at {}", s.seq, s.session, s.stamp);
                let seen = p.seen.iter().filter(|s| s.picture == picture).map(|s| (s.at, about(s)));
                let calls = p.calls().iter().map(|c| (c.connected.unwrap_or_default(), call(c)));
                Trace {
                    who: format!("player {id:?} by WHEP, pictures {picture}"),
                    lines: calls.chain(seen).collect(),
                }
            },
        );
        published.chain(played).chain(by_rtsp).chain(sent).chain(watched).collect()
    }
}

/// What came of a run with a guest.
#[derive(Clone, Debug)]
pub struct Hosted {
    /// The others.
    pub innocents: Innocents,
    /// The number of the guest's session on the first origin, as [`Switches::strike`] takes it.
    ///
    /// [`Switches::strike`]: proto_core::simulation::Switches::strike
    pub session: u64,
    /// What the node said when the guest's session panicked.
    pub panicked: Option<String>,
}

/// Who comes as a guest whose session panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// A publisher by RTMP.
    Publisher,
    /// A player by RTMP.
    Player,
    /// Somebody who asks by HTTP.
    Asker,
    /// A player by WHEP: the panic is in its WebRTC session.
    Whep,
}

impl Guest {
    /// All of them.
    pub const ALL: [Guest; 4] = [Guest::Publisher, Guest::Player, Guest::Asker, Guest::Whep];
}

/// Runs the innocents of a seed beside a guest whose session on the first origin panics: `strike` is the session and
/// the how-manieth of its inputs. The guest is innocent too. A run without a strike tells the session's number.
pub fn run_with_panic(seed: u64, guest: Guest, strike: Option<(u64, u64)>) -> Hosted {
    let w = &mut World::new(seed);
    let scene = Scene::new(w, Cast::Webrtc, |config| {
        if let Some((session, nth)) = strike {
            config.limits.simulation = config.limits.simulation.strike(session, nth);
        }
    });
    let o1 = scene.nodes[1];
    let session = match guest {
        // Two viewers by WHEP and one publisher by WHIP came before; the first session has number 0.
        Guest::Whep => 2 | 1 << 62,
        _ => ConnId::accepted(w.hosts[o1.0].accepted() + 1).0,
    };
    let id = match guest {
        Guest::Publisher => w.publish(o1, "live/guest"),
        Guest::Player => w.play(o1, "live/one"),
        Guest::Asker => w.add(Box::new(Asker::new(w.http_addr(o1), "/metrics"))),
        Guest::Whep => w.play_webrtc(o1, "live/web", WhepConfig { again: None, ..WhepConfig::default() }),
    };
    pass(w, ABUSE);
    let (traces, until) = (scene.trace(w), w.now);
    if guest == Guest::Publisher {
        w.with_publisher(id, |p, now| p.leave(now));
    } else if guest == Guest::Player {
        w.with_player(id, |p| p.leave());
    } else if guest == Guest::Whep {
        w.with_whep(id, |p, now| p.leave(now));
    }
    leave(w, &scene, id);
    let panicked = w.log.iter().find(|l| l.contains(INJECTED)).cloned();
    Hosted { innocents: Innocents { traces, until, violation: w.violation.clone() }, session, panicked }
}

/// Runs the innocents of a seed, beside an evil client (or none).
///
/// `cast`: who the innocents are.
pub fn run(seed: u64, cast: Cast, evil: Option<Evil>) -> Innocents {
    run_in(&mut World::quiet(seed), cast, evil)
}

/// As [`run`], in a world of the caller's, which keeps a log if it wants one.
pub fn run_in(w: &mut World, cast: Cast, evil: Option<Evil>) -> Innocents {
    let scene = Scene::new(w, cast, |_| {});
    let guest = match evil {
        Some(kind) => {
            let [m, o1, _, e1] = scene.nodes[..] else { unreachable!("four nodes") };
            let at = match kind.goes_for() {
                Victim::Manager => m,
                Victim::Origin => o1,
                // The choice depends on the kind, so that one seed goes for several nodes.
                // Of the innocents by RTSP, half are at each of these.
                Victim::Any if kind.needs_webrtc() || kind.is_about_rtsp() => {
                    [o1, e1][w.pick("victim", kind as u64, 2) as usize]
                }
                Victim::Any => scene.nodes[w.pick("victim", kind as u64, 4) as usize],
            };
            w.evil(kind, at, 0)
        }
        None => w.add(Box::new(Nobody(Notes::default()))),
    };
    let half = ABUSE / 2;
    pass(w, half);
    // Somebody who comes while it goes on is served as ever.
    let late = w.play(scene.nodes[3], "live/one");
    pass(w, half);
    let mut scene = scene;
    scene.players.push(late);
    let (traces, until) = (scene.trace(w), w.now);
    if evil.is_some() {
        w.relent(guest);
    }
    leave(w, &scene, guest);
    Innocents { traces, until, violation: w.violation.clone() }
}

/// Everyone leaves: nothing may remain of the guest.
fn leave(w: &mut World, scene: &Scene, guest: ClientId) {
    for id in &scene.players {
        w.with_player(*id, |p| p.leave());
    }
    for id in &scene.publishers {
        w.with_publisher(*id, |p, now| p.leave(now));
    }
    if let Some(id) = scene.whip {
        w.with_whip(id, |p, now| p.leave(now));
    }
    for id in &scene.rtsp_players {
        w.with_rtsp_player(*id, |p| p.leave());
    }
    for id in &scene.rtsp {
        w.with_rtsp_publisher(*id, |p, now| p.leave(now));
    }
    for id in &scene.whep {
        w.with_whep(*id, |p, now| p.leave(now));
    }
    // Half-open connections of a guest that vanished live for a minute; a stream is held for 30 s.
    if !pass(w, ms(75_000)) {
        return;
    }
    for node in scene.nodes.clone() {
        for what in ["sessions", "streams"] {
            let answer = w.get_quietly(node, &format!("/api/v1/{what}"));
            let found: Option<serde_json::Value> =
                answer.as_deref().and_then(|a| serde_json::from_str(a).ok());
            let left = found.as_ref().and_then(|f| f[what].as_array()).map(Vec::len);
            if left != Some(0) && w.violation.is_none() {
                w.violate("S7", format!("{node:?} still has {what} after everyone left: {answer:?}"));
            }
        }
    }
    let open = w.connections(guest.into());
    if open > 0 && w.violation.is_none() {
        w.violate("S7", format!("{open} connections of {guest:?} are still open"));
    }
}

/// Compares two runs; `what` is what only the second had.
///
/// # Errors
/// The first difference.
pub fn compare(without: &Innocents, with: &Innocents, what: &str) -> Result<(), Violation> {
    if let Some(v) = &with.violation {
        return Err(v.clone());
    }
    let wrong =
        |at: Time, text: String| Err(Violation { invariant: "S12", text: format!("{what}: {text}"), at });
    for (a, b) in without.traces.iter().zip(&with.traces) {
        for ((then, x), (now, y)) in a.lines.iter().zip(&b.lines) {
            if x != y {
                return wrong(*now, format!("{} lived through {y}, without it {x}", b.who));
            }
            if then.since(*now).max(now.since(*then)) > TOLERANCE {
                return wrong(*now, format!("{}: {x} came at {now}, without it at {then}", b.who));
            }
        }
        // What one run had in its very last moment, the other would have had in the next.
        let settled = |t: &Trace| t.lines.iter().filter(|l| l.0 + TOLERANCE < with.until).count();
        let (then, now) = (a.lines.len(), b.lines.len());
        if settled(a) > now || settled(b) > then {
            let at = b.lines.last().map_or(Time::ZERO, |l| l.0);
            return wrong(at, format!("{} lived through {now} things, without it {then}", b.who));
        }
    }
    Ok(())
}

/// Runs a seed with and without an evil client.
///
/// # Errors
/// What the innocents noticed of it, or what broke.
pub fn non_interference(seed: u64, evil: Evil) -> Result<(), Violation> {
    let cast = Cast::of(evil);
    let without = run(seed, cast, None);
    if let Some(v) = without.violation {
        return Err(v);
    }
    compare(&without, &run(seed, cast, Some(evil)), &format!("{evil:?}"))
}
