//! The day with real processes and clients on real sockets.

use super::{Day, HOLD_MS, PUBLISHERS, Place, Player, Rest, STREAMS, rest_in};
use crate::interop::cluster::{Cluster, Net, Node};
use crate::interop::http;
use crate::live::{Id, Live, Protocol};
use crate::world::actors::rtsp::RtspPlayer;
use crate::world::actors::webrtc::Whep;
use proto_core::time::Time;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Joins of viewers in the day that is played: one every six seconds.
const JOINS: f64 = 14_400.0;
/// A machine that tests run on carries no more joins than that in a second; a shorter day leaves some out.
const JOINS_A_SECOND: f64 = 10.0;
/// After everybody left, nothing is left within this: streams are held for [`HOLD_MS`].
const EMPTY: Duration = Duration::from_secs(60);
/// Lines of a node's log that are shown where something is wrong.
const WARNINGS: usize = 40;

/// Plays the day in `minutes`, in which everybody leaves `laps` times.
///
/// # Errors
/// Why it could not be.
pub fn play(minutes: f64, laps: usize, seed: u64) -> Result<Day, String> {
    let net = Net::fresh();
    let hold = format!("limits.stream_hold_ms={HOLD_MS}");
    let more = ["--set", &hold];
    let manager = Node::start("m1", "manager", net.host(1), None, &more);
    let origin = Node::start("o1", "origin", net.host(2), Some(net.host(1)), &more);
    let edge = Node::start("e1", "edge", net.host(3), Some(net.host(1)), &more);
    let mut cluster = Cluster { manager, origin, edge, net };
    cluster.wait_ready();
    let seconds = minutes * 60.0;
    let joins = (JOINS / seconds).min(JOINS_A_SECOND);
    // A short day leaves out publishers as it leaves out joins.
    let stay = STREAMS as f64 * JOINS / (PUBLISHERS * joins);
    let mut player = Player::new(Real { live: Live::new(seed), cluster, clients: 0 }, seed, joins, stay);
    for n in 0..laps {
        player.part(n + 1, laps, Duration::from_secs_f64(seconds / laps as f64))?;
    }
    let (mut day, Real { live, cluster, .. }) = (player.day, player.place);
    day.violations = live.violations.iter().map(|(_, i, text)| format!("{i}: {text}")).collect();
    for node in [&cluster.manager, &cluster.origin, &cluster.edge] {
        let mut found = Vec::new();
        node.log.each(|line| {
            if [" WARN ", " ERROR ", " link "].iter().any(|w| line.contains(w)) {
                found.push(format!("{}: {line}", node.name));
            }
        });
        day.warnings.extend(found.into_iter().rev().take(WARNINGS).rev());
    }
    Ok(day)
}

struct Real {
    live: Live,
    cluster: Cluster,
    clients: u64,
}

impl Real {
    /// An address of a client. What went without a word is sent to until its consent is over, so none comes again soon.
    fn address(&mut self) -> Ipv4Addr {
        self.clients += 1;
        let (n, run) = (self.clients, (std::process::id() % 20) as u8);
        Ipv4Addr::new(127, 230 + run, ((n / 250) % 250) as u8, (n % 250) as u8 + 1)
    }
}

impl Place for Real {
    type Id = Id;

    fn now(&self) -> Time {
        self.live.now()
    }

    fn run(&mut self, time: Duration) {
        self.live.run(time);
    }

    fn is_over(&self) -> bool {
        false
    }

    fn publish(&mut self, by: Protocol, stream: &str) -> Id {
        let from = self.address();
        self.live.publish(by, from, self.cluster.origin.ip, stream, Some(Duration::from_millis(500)))
    }

    fn play(&mut self, by: Protocol, stream: &str) -> Id {
        let from = self.address();
        self.live.play(by, from, self.cluster.edge.ip, stream, None)
    }

    fn is_ready(&self, id: Id) -> bool {
        self.live.published(id).ready
    }

    fn has_seen(&self, id: Id) -> bool {
        self.live.played(id).picture.is_some()
    }

    fn rtsp(&self, id: Id) -> Option<&RtspPlayer> {
        self.live.actor(id)
    }

    fn whep(&self, id: Id) -> Option<&Whep> {
        self.live.actor(id)
    }

    fn leave(&mut self, id: Id) {
        self.live.leave(id);
    }

    fn remove(&mut self, id: Id) {
        self.live.remove(id);
    }

    fn rest(&mut self) -> Result<[Rest; 3], String> {
        let nodes = [&self.cluster.manager, &self.cluster.origin, &self.cluster.edge];
        let mut found = [Rest::default(); 3];
        let mut why = String::new();
        // Those who went without a word are missed after a while.
        let empty = self.live.until(EMPTY, |live| {
            live.run(Duration::from_millis(500));
            for (rest, node) in found.iter_mut().zip(nodes) {
                match look(node) {
                    Ok(seen) => *rest = seen,
                    Err(text) => {
                        why = text;
                        return false;
                    }
                }
            }
            found.iter().all(|r| r.sessions == 0 && r.counted == 0)
        });
        if !empty && !why.is_empty() {
            return Err(why);
        }
        // A connection that has just asked may still be open: the least of some looks.
        for _ in 0..5 {
            self.live.run(Duration::from_millis(200));
            for (rest, node) in found.iter_mut().zip(nodes) {
                let seen = look(node)?;
                rest.connections = rest.connections.min(seen.connections);
                rest.timers = rest.timers.min(seen.timers);
                rest.descriptors = rest.descriptors.min(seen.descriptors);
            }
        }
        Ok(found)
    }
}

fn look(node: &Node) -> Result<Rest, String> {
    let text = http::get(&node.url("/metrics"))?.body;
    let descriptors =
        std::fs::read_dir(format!("/proc/{}/fd", node.pid())).map_err(|e| e.to_string())?.count();
    Ok(Rest { descriptors: descriptors as u64, resident_kib: node.resident_kib(), ..rest_in(&text) })
}
