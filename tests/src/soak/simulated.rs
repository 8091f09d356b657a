//! The day in virtual time, with all that the world checks on the way; and the heap of its nodes, which is counted.

use super::{DAY, Day, HOLD_MS, PUBLISHERS, Place, Player, Rest, STREAMS, rest_in};
use crate::live::Protocol;
use crate::world::actors::player::PlayerConfig;
use crate::world::actors::publisher::PublisherConfig;
use crate::world::actors::rtsp::RtspPlayer;
use crate::world::actors::webrtc::{Whep, WhepConfig, WhipConfig};
use crate::world::{ClientId, HostId, World};
use determinism::os;
use determinism::os::count::counted;
use proto_core::node::config::{Config, Role};
use proto_core::time::Time;
use std::time::Duration;

/// After so long with the full number of joins and nobody left it is measured what a node holds.
const FIRST: Duration = Duration::from_secs(1_200);
/// Sessions that ended, and placements, of which a node can still say why.
const KEPT: usize = 40;
/// After everybody left, nothing is left within this.
const EMPTY: Duration = Duration::from_secs(45);

/// Plays `hours` of a day with so many joins a second, in which everybody leaves `laps` times. The heap is counted in a program
/// whose allocator is `determinism`'s.
///
/// # Errors
/// Why it could not be.
pub fn play(hours: f64, laps: usize, joins: f64, seed: u64) -> Result<Day, String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let stay = STREAMS as f64 * DAY / PUBLISHERS;
    let part = Duration::from_secs_f64(hours * 3_600.0 / laps as f64);
    let whole = |laps: usize, part: Duration| -> Result<(Day, [u64; 3]), String> {
        let played = || -> Result<(Day, [u64; 3]), String> {
            let mut player = Player::new(Simulated::new(seed), seed, joins, stay);
            for n in 0..laps {
                player.part(n + 1, laps, part)?;
            }
            let (mut day, Simulated { mut world, nodes }) = (player.day, player.place);
            if world.violation().is_none() {
                world.expect_drained();
            }
            day.violations
                .extend(world.violation().map(|v| format!("{} at {}: {}", v.invariant, v.at, v.text)));
            Ok((day, nodes.map(|node| world.weigh(node))))
        };
        os::run(bytes, || counted(played)).map_err(|e| e.to_string())?
    };
    // The same day from its beginning, to see what is left after its first minutes.
    let (_, first) = whole(1, FIRST.min(part))?;
    let (mut day, last) = whole(laps, part)?;
    day.heap = Some([0, 1, 2].map(|n| (first[n], last[n])));
    Ok(day)
}

struct Simulated {
    world: World,
    nodes: [HostId; 3],
}

impl Simulated {
    fn new(seed: u64) -> Simulated {
        let mut w = World::quiet(seed);
        let hold = |c: &mut Config| {
            c.limits.stream_hold_ms = HOLD_MS;
            // What is remembered of those who went is full after the first minutes, and grows no more.
            (c.limits.sessions_kept, c.limits.placements_kept) = (KEPT, KEPT);
        };
        let manager = w.host_with("m1", &[Role::Manager], None, hold);
        let origin = w.host_with("o1", &[Role::Origin], Some(manager), hold);
        let edge = w.host_with("e1", &[Role::Edge], Some(manager), hold);
        w.lapse(Duration::from_millis(2_500));
        Simulated { world: w, nodes: [manager, origin, edge] }
    }
}

impl Place for Simulated {
    type Id = ClientId;

    fn now(&self) -> Time {
        self.world.now()
    }

    fn run(&mut self, time: Duration) {
        self.world.lapse(time);
    }

    fn is_over(&self) -> bool {
        self.world.violation().is_some()
    }

    fn publish(&mut self, by: Protocol, stream: &str) -> ClientId {
        let (w, at, again) = (&mut self.world, self.nodes[1], Some(Duration::from_millis(500)));
        let config = PublisherConfig { again, ..PublisherConfig::default() };
        match by {
            Protocol::Rtmp => w.publish_with(at, stream, config),
            Protocol::Rtsp => w.publish_rtsp(at, stream, config),
            Protocol::WebRtc => w.publish_webrtc(at, stream, WhipConfig { again, ..WhipConfig::default() }),
        }
    }

    fn play(&mut self, by: Protocol, stream: &str) -> ClientId {
        let (w, at) = (&mut self.world, self.nodes[2]);
        match by {
            Protocol::Rtmp => w.play(at, stream),
            Protocol::Rtsp => w.play_rtsp(at, stream, PlayerConfig::default()),
            Protocol::WebRtc => w.play_webrtc(at, stream, WhepConfig::default()),
        }
    }

    fn is_ready(&self, id: ClientId) -> bool {
        self.world.standing(id).session.is_some()
    }

    fn has_seen(&self, id: ClientId) -> bool {
        self.world.standing(id).session.is_some()
    }

    fn rtsp(&self, id: ClientId) -> Option<&RtspPlayer> {
        self.world.actor(id)
    }

    fn whep(&self, id: ClientId) -> Option<&Whep> {
        self.world.actor(id)
    }

    fn leave(&mut self, id: ClientId) {
        self.world.leave(id);
    }

    fn remove(&mut self, id: ClientId) {
        self.world.remove(id);
    }

    fn rest(&mut self) -> Result<[Rest; 3], String> {
        self.world.lapse(EMPTY);
        let mut found = [Rest::default(); 3];
        for (rest, node) in found.iter_mut().zip(self.nodes) {
            // What is broken is told with the day.
            let Some(metrics) = self.world.get_quietly(node, "/metrics") else { break };
            *rest = rest_in(&metrics);
        }
        Ok(found)
    }
}
