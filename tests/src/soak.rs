//! A day of a cluster in a chosen time: viewers of every protocol come and go each second, publishers too. In between
//! everybody leaves, and then it is looked at what the nodes still hold: sessions, connections, timers, descriptors, memory.
//! `cargo soak --minutes M` with real processes, `cargo sim soak --hours H` in virtual time.

pub mod real;
pub mod simulated;

use crate::live::Protocol;
use crate::world::actors::rtsp::RtspPlayer;
use crate::world::actors::webrtc::Whep;
use proto_core::rand::Rng;
use proto_core::time::Time;
use std::fmt;
use std::time::Duration;

/// Publishers of a day: one a minute.
const PUBLISHERS: f64 = 1_440.0;
/// Seconds of a day.
const DAY: f64 = 86_400.0;
/// Streams at a time, two of each protocol.
const STREAMS: usize = 6;
/// A viewer who sees nothing for so long was not served, if its stream was there all the while.
const SERVED: Duration = Duration::from_secs(5);
/// Streams are held for so long after their publisher went.
const HOLD_MS: u64 = 2_000;
/// Sound and picture may be so far apart.
const APART: Duration = Duration::from_millis(40);
/// Resident memory may grow by so many thousandths from the middle of the day to its end: what an allocator keeps goes up and
/// down by more than nothing.
const GROWTH_PERMILLE: u64 = 30;
/// The heap of a node may be so much larger after a day than after its first minutes: tables keep the room that the busiest
/// moment took.
const HEAP_GROWTH: u64 = 128 << 10;

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
    /// In virtual time: bytes of the heap that manager, origin and edge held with nobody left, after the first minutes and at the
    /// end of the day.
    pub heap: Option<[(u64, u64); 3]>,
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
            let (first, last) = self.heap.map_or((0, 0), |all| all[n]);
            if last > first + HEAP_GROWTH {
                found.push(format!("{name}: {last} bytes on the heap, {first} after the first minutes"));
            }
        }
        found
    }
}

impl Day {
    /// Prints it, and what is not as it must be. Answers whether all is.
    pub fn tell(&self) -> bool {
        print!("{self}");
        let problems = self.problems();
        problems.iter().for_each(|p| println!("* {p}"));
        if !problems.is_empty() {
            self.warnings.iter().for_each(|line| eprintln!("{line}"));
        }
        problems.is_empty()
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
        if let Some(heap) = &self.heap {
            let [m, o, e] =
                heap.map(|(first, last)| format!("{} to {}", first.div_ceil(1_024), last.div_ceil(1_024)));
            writeln!(
                f,
                "\nHeap of manager, origin and edge, KiB, from the first minutes to the end: {m}, {o}, {e}."
            )?;
        }
        writeln!(f, "\nSound and picture were apart by {:?} at most.", self.apart)
    }
}

/// A cluster of manager, origin and edge on which a day is played.
pub(crate) trait Place {
    /// Which client.
    type Id: Copy;
    /// The time.
    fn now(&self) -> Time;
    /// Lets time pass.
    fn run(&mut self, time: Duration);
    /// Whether it makes no sense to go on.
    fn is_over(&self) -> bool;
    /// A publisher at the origin.
    fn publish(&mut self, by: Protocol, stream: &str) -> Self::Id;
    /// A viewer at the edge.
    fn play(&mut self, by: Protocol, stream: &str) -> Self::Id;
    /// Whether a publisher publishes.
    fn is_ready(&self, id: Self::Id) -> bool;
    /// Whether a viewer has seen pictures.
    fn has_seen(&self, id: Self::Id) -> bool;
    /// A viewer by RTSP.
    fn rtsp(&self, id: Self::Id) -> Option<&RtspPlayer>;
    /// A viewer by WHEP.
    fn whep(&self, id: Self::Id) -> Option<&Whep>;
    /// Has a client leave in an orderly way.
    fn leave(&mut self, id: Self::Id);
    /// Ends a client without a word.
    fn remove(&mut self, id: Self::Id);
    /// Waits until no node has a session left, and says what else there is at manager, origin and edge.
    fn rest(&mut self) -> Result<[Rest; 3], String>;
}

struct Viewer<I> {
    id: I,
    since: Time,
    until: Time,
    /// Its stream, and which publisher of it.
    stream: (usize, u64),
}

struct Publisher<I> {
    id: I,
    number: u64,
    until: Time,
    ready: Option<Time>,
}

/// Plays a day.
struct Player<P> {
    place: P,
    rng: Rng,
    day: Day,
    /// Joins a second.
    joins: f64,
    /// How long a publisher stays on average, seconds.
    stay: f64,
    count: u64,
}

impl<P: Place> Player<P> {
    fn new(place: P, seed: u64, joins: f64, stay: f64) -> Player<P> {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Player { place, rng: Rng::new(bytes), day: Day::default(), joins, stay, count: 0 }
    }

    /// A part of the day; at its end everybody leaves.
    fn part(&mut self, number: usize, of: usize, time: Duration) -> Result<(), String> {
        self.lap(time);
        let rest = self.place.rest()?;
        if let Some(lap) = self.day.laps.last_mut() {
            lap.rest = rest;
        }
        eprintln!("part {number} of {of}: {:?}", self.day.laps.last());
        Ok(())
    }

    /// A number from 0 to 1.
    fn draw(&mut self) -> f64 {
        self.count += 1;
        (self.rng.fork("draw", self.count).u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn between(&mut self, least: f64, most: f64) -> Duration {
        Duration::from_secs_f64(least + self.draw() * (most - least))
    }

    fn lap(&mut self, time: Duration) {
        let (mut lap, end) = (Lap::default(), self.place.now() + time);
        let (mut viewers, mut next) = (Vec::<Viewer<P::Id>>::new(), self.place.now());
        let mut publishers: Vec<Option<Publisher<P::Id>>> = (0..STREAMS).map(|_| None).collect();
        while self.place.now() < end && !self.place.is_over() {
            let now = self.place.now();
            for (n, slot) in publishers.iter_mut().enumerate() {
                if slot.as_ref().is_some_and(|p| p.until <= now)
                    && let Some(p) = slot.take()
                {
                    self.goes(p.id);
                }
                if slot.is_none() {
                    let id = self.place.publish(Protocol::ALL[n % 3], &format!("soak/{n}"));
                    let until = now + self.between(0.5 * self.stay, 1.5 * self.stay);
                    lap.publishers += 1;
                    *slot = Some(Publisher { id, number: lap.publishers, until, ready: None });
                }
                if let Some(p) = slot.as_mut().filter(|p| p.ready.is_none()) {
                    p.ready = self.place.is_ready(p.id).then_some(now);
                }
            }
            while next <= now {
                next += Duration::from_secs_f64(1.0 / self.joins);
                let n = (self.draw() * STREAMS as f64) as usize % STREAMS;
                // One who comes for nothing is a viewer too, but nobody can say that he was not served.
                let Some(p) = publishers[n].as_ref().filter(|p| p.ready.is_some()) else { continue };
                let number = p.number;
                // What is converted on the way says no longer which frame it was.
                let id = self.place.play(Protocol::ALL[n % 3], &format!("soak/{n}"));
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
            self.place.run(Duration::from_millis(20));
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
    fn left(&mut self, viewer: &Viewer<P::Id>, stream_stayed: bool, lap: &mut Lap) {
        let seen = self.place.has_seen(viewer.id);
        lap.served += u64::from(seen);
        let long = self.place.now().since(viewer.since) >= SERVED;
        lap.unserved += u64::from(!seen && stream_stayed && long);
        let rtsp = self.place.rtsp(viewer.id).and_then(|p| p.source()).map(|s| s.apart);
        let whep = self.place.whep(viewer.id).map(|p| p.skew);
        self.day.apart = self.day.apart.max(rtsp.or(whep).unwrap_or_default());
        self.goes(viewer.id);
    }

    /// Every other one says goodbye; the others are just gone.
    fn goes(&mut self, id: P::Id) {
        if self.draw() < 0.5 {
            self.place.leave(id);
            self.place.run(Duration::from_millis(5));
        }
        self.place.remove(id);
    }
}

/// What a node's metrics say of it.
fn rest_in(metrics: &str) -> Rest {
    let sum = |name: &str| {
        let of = |line: &&str| line.split(['{', ' ']).next() == Some(name);
        let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
        metrics.lines().filter(of).filter_map(value).sum::<f64>() as u64
    };
    Rest {
        sessions: sum("headwater_sessions"),
        connections: sum("headwater_connections"),
        timers: sum("headwater_timers"),
        counted: sum("headwater_memory_counted_bytes"),
        ..Rest::default()
    }
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
        assert_eq!(with(|d| d.heap = Some([(1 << 20, 1 << 21), (0, 0), (0, 0)])), 1);
        assert_eq!(with(|d| d.heap = Some([(1 << 20, (1 << 20) + 1_000), (0, 0), (0, 0)])), 0);
        assert_eq!(with(|d| d.apart = Duration::from_millis(41)), 1);
        assert_eq!(with(|d| d.violations.push("S3".to_owned())), 1);
    }
}
