//! A day of a cluster in a chosen time: viewers of every protocol come and go each second, publishers too. In between
//! everybody leaves, and then it is looked at what the nodes still hold: sessions, connections, timers, descriptors, memory.
//! `cargo soak --minutes M`.

use crate::interop::cluster::{Cluster, Net, Node};
use crate::interop::http;
use crate::live::{Id, Live, Protocol};
use crate::world::actors::rtsp::RtspPlayer;
use crate::world::actors::webrtc::Whep;
use proto_core::rand::Rng;
use proto_core::time::Time;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Joins of viewers in the day that is played: one every six seconds.
const JOINS: f64 = 14_400.0;
/// Publishers of that day: one a minute.
const PUBLISHERS: f64 = 1_440.0;
/// A machine that tests run on carries no more joins than that in a second; a shorter day leaves some out.
const JOINS_A_SECOND: f64 = 10.0;
/// Streams at a time, two of each protocol.
const STREAMS: usize = 6;
/// A viewer who sees nothing for so long was not served, if its stream was there all the while.
const SERVED: Duration = Duration::from_secs(5);
/// After everybody left, nothing is left within this: streams are held for [`HOLD_MS`].
const EMPTY: Duration = Duration::from_secs(60);
const HOLD_MS: u64 = 2_000;
/// Sound and picture may be so far apart.
const APART: Duration = Duration::from_millis(40);
/// Resident memory may grow by so many thousandths from the middle of the day to its end: what an allocator keeps goes up and
/// down by more than nothing.
const GROWTH_PERMILLE: u64 = 30;

/// Lines of a node's log that are shown where something is wrong.
const WARNINGS: usize = 40;

/// What is left at a node once everybody has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// Sessions, by `/metrics`.
    pub sessions: u64,
    /// TCP connections.
    pub connections: u64,
    /// Timers.
    pub timers: u64,
    /// Bytes that sessions and rings count for.
    pub counted: u64,
    /// Descriptors (`/proc`).
    pub descriptors: u64,
    /// Resident memory, KiB.
    pub resident_kib: u64,
}

/// A part of the day, with all who came in it.
#[derive(Clone, Debug, Default)]
pub struct Lap {
    /// Viewers who came.
    pub joins: u64,
    /// Of them, those who saw their stream.
    pub served: u64,
    /// Of them, those whose stream was there for long enough and who did not see it.
    pub unserved: u64,
    /// Publishers who came.
    pub publishers: u64,
    /// What was left at manager, origin and edge.
    pub rest: [Rest; 3],
}

/// The whole day.
#[derive(Clone, Debug, Default)]
pub struct Day {
    /// Its parts.
    pub laps: Vec<Lap>,
    /// The farthest that sound and picture were apart (RTSP, WHEP; by RTMP both stand on one clock).
    pub apart: Duration,
    /// What clients saw that must never be.
    pub violations: Vec<String>,
    /// What the nodes warned of, and what became of the links between them.
    pub warnings: Vec<String>,
}

impl Day {
    /// What is not as it must be.
    pub fn problems(&self) -> Vec<String> {
        let mut found = self.violations.clone();
        let unserved: u64 = self.laps.iter().map(|l| l.unserved).sum();
        if unserved > 0 {
            found.push(format!("{unserved} viewers did not see a stream that was there"));
        }
        if self.laps.iter().any(|l| l.served == 0) {
            found.push("in some part of the day nobody saw anything".to_owned());
        }
        if self.apart > APART {
            found.push(format!("sound and picture were apart by {:?}", self.apart));
        }
        for (n, name) in ["manager", "origin", "edge"].into_iter().enumerate() {
            let rests: Vec<Rest> = self.laps.iter().map(|l| l.rest[n]).collect();
            let (Some(base), Some(last)) = (rests.first(), rests.last()) else { continue };
            let mut same = |what: &str, base: u64, last: u64| {
                if last > base {
                    found.push(format!("{name}: {last} {what} are left, {base} were at first"));
                }
            };
            same("sessions", 0, last.sessions);
            same("connections", base.connections, last.connections);
            same("timers", base.timers, last.timers);
            same("bytes of sessions and rings", 0, last.counted);
            same("descriptors", base.descriptors, last.descriptors);
            let middle = rests.get(rests.len() / 2).map_or(0, |r| r.resident_kib);
            if rests.len() > 2 && last.resident_kib > middle + middle * GROWTH_PERMILLE / 1_000 {
                found.push(format!(
                    "{name}: {} KiB resident, {middle} in the middle of the day",
                    last.resident_kib
                ));
            }
        }
        found
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| part | joins | served | publishers | left: sessions | descriptors | timers | resident, MiB |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        for (n, lap) in self.laps.iter().enumerate() {
            let all = |of: fn(&Rest) -> String| lap.rest.iter().map(of).collect::<Vec<_>>().join(" / ");
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                n + 1,
                lap.joins,
                lap.served,
                lap.publishers,
                all(|r| r.sessions.to_string()),
                all(|r| r.descriptors.to_string()),
                all(|r| r.timers.to_string()),
                all(|r| format!("{:.1}", r.resident_kib as f64 / 1_024.0)),
            )?;
        }
        writeln!(f, "\nSound and picture were apart by {:?} at most.", self.apart)
    }
}

struct Viewer {
    id: Id,
    since: Time,
    until: Time,
    /// Its stream, and which publisher of it.
    stream: (usize, u64),
}

struct Publisher {
    id: Id,
    number: u64,
    until: Time,
    ready: Option<Time>,
}

/// Plays the day.
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
    let each = Duration::from_secs_f64(minutes * 60.0 / laps as f64);
    let joins = (JOINS / (minutes * 60.0)).min(JOINS_A_SECOND);
    let part = joins * minutes * 60.0 / JOINS;
    let stay = STREAMS as f64 / (PUBLISHERS * part / (minutes * 60.0));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut player = Player {
        live: Live::new(seed),
        rng: Rng::new(bytes),
        day: Day::default(),
        joins,
        stay,
        count: 0,
        clients: 0,
    };
    for n in 0..laps {
        player.lap(&cluster, each);
        let rest = player.rest(&cluster)?;
        if let Some(lap) = player.day.laps.last_mut() {
            lap.rest = rest;
        }
        eprintln!("part {} of {laps}: {:?}", n + 1, player.day.laps.last());
    }
    let seen = std::mem::take(&mut player.live.violations);
    player.day.violations =
        seen.into_iter().map(|(_, invariant, text)| format!("{invariant}: {text}")).collect();
    for node in [&cluster.manager, &cluster.origin, &cluster.edge] {
        let mut found = Vec::new();
        node.log.each(|line| {
            if [" WARN ", " ERROR ", " link "].iter().any(|w| line.contains(w)) {
                found.push(format!("{}: {line}", node.name));
            }
        });
        player.day.warnings.extend(found.into_iter().rev().take(WARNINGS).rev());
    }
    Ok(player.day)
}

struct Player {
    live: Live,
    rng: Rng,
    day: Day,
    /// Joins a second.
    joins: f64,
    /// How long a publisher stays on average, seconds.
    stay: f64,
    count: u64,
    clients: u64,
}

impl Player {
    /// A number from 0 to 1.
    fn draw(&mut self) -> f64 {
        self.count += 1;
        (self.rng.fork("draw", self.count).u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn between(&mut self, least: f64, most: f64) -> Duration {
        Duration::from_secs_f64(least + self.draw() * (most - least))
    }

    /// An address of a client. What went without a word is sent to until its consent is over, so none comes again soon.
    fn address(&mut self) -> Ipv4Addr {
        self.clients += 1;
        let (n, run) = (self.clients, (std::process::id() % 20) as u8);
        Ipv4Addr::new(127, 230 + run, ((n / 250) % 250) as u8, (n % 250) as u8 + 1)
    }

    fn lap(&mut self, cluster: &Cluster, time: Duration) {
        let (mut lap, end) = (Lap::default(), self.live.now() + time);
        let (mut viewers, mut next) = (Vec::<Viewer>::new(), self.live.now());
        let mut publishers: Vec<Option<Publisher>> = (0..STREAMS).map(|_| None).collect();
        while self.live.now() < end {
            let now = self.live.now();
            for (n, slot) in publishers.iter_mut().enumerate() {
                if slot.as_ref().is_some_and(|p| p.until <= now)
                    && let Some(p) = slot.take()
                {
                    self.goes(p.id);
                }
                if slot.is_none() {
                    let (from, by) = (self.address(), Protocol::ALL[n % 3]);
                    let stream = format!("soak/{n}");
                    let id = self.live.publish(
                        by,
                        from,
                        cluster.origin.ip,
                        &stream,
                        Some(Duration::from_millis(500)),
                    );
                    let until = now + self.between(0.5 * self.stay, 1.5 * self.stay);
                    lap.publishers += 1;
                    *slot = Some(Publisher { id, number: lap.publishers, until, ready: None });
                }
                if let Some(p) = slot.as_mut().filter(|p| p.ready.is_none()) {
                    p.ready = self.live.published(p.id).ready.then_some(now);
                }
            }
            while next <= now {
                next += Duration::from_secs_f64(1.0 / self.joins);
                let n = (self.draw() * STREAMS as f64) as usize % STREAMS;
                // One who comes for nothing is a viewer too, but nobody can say that he was not served.
                let Some(p) = publishers[n].as_ref().filter(|p| p.ready.is_some()) else { continue };
                let number = p.number;
                // What is converted on the way says no longer which frame it was.
                let by = Protocol::ALL[n % 3];
                let from = self.address();
                let id = self.live.play(by, from, cluster.edge.ip, &format!("soak/{n}"), None);
                let until = now + self.between(2.0, 12.0);
                lap.joins += 1;
                viewers.push(Viewer { id, since: now, until, stream: (n, number) });
            }
            let (gone, stay): (Vec<_>, Vec<_>) = viewers.into_iter().partition(|v| v.until <= now);
            viewers = stay;
            for viewer in gone {
                let there = publishers[viewer.stream.0].as_ref().is_some_and(|p| p.number == viewer.stream.1);
                self.left(&viewer, there, &mut lap);
            }
            self.live.run(Duration::from_millis(20));
        }
        for viewer in viewers {
            self.left(&viewer, false, &mut lap);
        }
        for p in publishers.into_iter().flatten() {
            self.goes(p.id);
        }
        self.day.laps.push(lap);
    }

    /// A viewer's time is over.
    fn left(&mut self, viewer: &Viewer, stream_stayed: bool, lap: &mut Lap) {
        let seen = self.live.played(viewer.id).picture.is_some();
        lap.served += u64::from(seen);
        let long = self.live.now().since(viewer.since) >= SERVED;
        lap.unserved += u64::from(!seen && stream_stayed && long);
        let rtsp = self.live.actor::<RtspPlayer>(viewer.id).and_then(|p| p.source()).map(|s| s.apart);
        let whep = self.live.actor::<Whep>(viewer.id).map(|p| p.skew);
        self.day.apart = self.day.apart.max(rtsp.or(whep).unwrap_or_default());
        self.goes(viewer.id);
    }

    /// Every other one says goodbye; the others are just gone.
    fn goes(&mut self, id: Id) {
        if self.draw() < 0.5 {
            self.live.leave(id);
            self.live.run(Duration::from_millis(5));
        }
        self.live.remove(id);
    }

    /// Waits until no node has a session left, and looks at what else there is.
    fn rest(&mut self, cluster: &Cluster) -> Result<[Rest; 3], String> {
        let nodes = [&cluster.manager, &cluster.origin, &cluster.edge];
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
    let sum = |name: &str| {
        let of = |line: &&str| line.split(['{', ' ']).next() == Some(name);
        let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
        text.lines().filter(of).filter_map(value).sum::<f64>() as u64
    };
    let descriptors =
        std::fs::read_dir(format!("/proc/{}/fd", node.pid())).map_err(|e| e.to_string())?.count();
    Ok(Rest {
        sessions: sum("headwater_sessions"),
        connections: sum("headwater_connections"),
        timers: sum("headwater_timers"),
        counted: sum("headwater_memory_counted_bytes"),
        descriptors: descriptors as u64,
        resident_kib: node.resident_kib(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_grows_or_was_not_served_is_a_problem() {
        let rest =
            Rest { connections: 1, timers: 3, descriptors: 20, resident_kib: 30_000, ..Rest::default() };
        let lap = Lap { joins: 9, served: 9, rest: [rest; 3], ..Lap::default() };
        let day = Day { laps: vec![lap; 5], ..Day::default() };
        assert_eq!(day.problems(), Vec::<String>::new());
        let with = |change: fn(&mut Day)| {
            let mut day = day.clone();
            change(&mut day);
            day.problems().len()
        };
        assert_eq!(with(|d| d.laps[4].rest[1].sessions = 1), 1);
        assert_eq!(with(|d| d.laps[4].rest[0].descriptors += 1), 1);
        assert_eq!(with(|d| d.laps[4].rest[2].timers += 1), 1);
        assert_eq!(with(|d| d.laps[4].rest[2].counted += 1), 1);
        assert_eq!(with(|d| d.laps[4].rest[2].resident_kib += 1_000), 1);
        assert_eq!(with(|d| d.laps[4].rest[2].resident_kib += 800), 0);
        assert_eq!(with(|d| d.laps[3].unserved = 2), 1);
        assert_eq!(with(|d| d.laps[3].served = 0), 1);
        assert_eq!(with(|d| d.apart = Duration::from_millis(41)), 1);
        assert_eq!(with(|d| d.violations.push("S3".to_owned())), 1);
    }
}
