//! Time as the core knows it: nanoseconds since the node started, handed in with every input.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A moment: nanoseconds since the node was made. Monotonic; unrelated to wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The moment at which the node was made.
    pub const ZERO: Time = Time(0);

    /// A moment from nanoseconds since the node was made.
    pub const fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }

    /// A moment from milliseconds since the node was made.
    pub const fn from_millis(millis: u64) -> Time {
        Time(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the node was made.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the node was made.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// How long it has been since `earlier`; zero if `earlier` is later than this.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, d: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d;
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, d: Duration) -> Time {
        Time(self.0.saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000_000, self.0 % 1_000_000_000 / 1000)
    }
}

/// When a machine wants to be woken, and why: a wake-up without a reason cannot be debugged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The moment of the wake-up. A moment in the past means "at once".
    pub at: Time,
    /// What the wake-up is for, as a short fixed phrase.
    pub why: &'static str,
}

impl Deadline {
    /// A deadline at `at` because of `why`.
    pub const fn new(at: Time, why: &'static str) -> Deadline {
        Deadline { at, why }
    }

    /// The earlier of two optional deadlines.
    pub fn earliest(a: Option<Deadline>, b: Option<Deadline>) -> Option<Deadline> {
        match (a, b) {
            (Some(a), Some(b)) => Some(if b.at < a.at { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}

/// Wall time: nanoseconds since the Unix epoch. Used for reports, token expiry and log lines, never for timers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(pub u64);

/// Ties node time to wall time; renewed by every `Input::WallClock`.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallAnchor {
    at: Time,
    wall: WallTime,
}

impl WallAnchor {
    /// Says that the wall clock read `wall` at node time `at`.
    pub const fn new(at: Time, wall: WallTime) -> WallAnchor {
        WallAnchor { at, wall }
    }

    /// The wall time at node time `t`.
    pub fn wall(&self, t: Time) -> WallTime {
        let forward = t.since(self.at).as_nanos() as u64;
        let back = self.at.since(t).as_nanos() as u64;
        WallTime(self.wall.0.saturating_add(forward).saturating_sub(back))
    }
}

/// A set of timers, at most one per key, ordered by (time, key) so that equal moments fire in a fixed order.
#[derive(Debug, Clone)]
pub struct Timers<K: Ord + Clone> {
    by_time: BTreeSet<(Time, K)>,
    by_key: BTreeMap<K, (Time, &'static str)>,
}

impl<K: Ord + Clone> Default for Timers<K> {
    fn default() -> Self {
        Timers { by_time: BTreeSet::new(), by_key: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Sets (or moves) the timer of `key`.
    pub fn set(&mut self, key: K, deadline: Deadline) {
        if let Some((old, _)) = self.by_key.insert(key.clone(), (deadline.at, deadline.why)) {
            if old == deadline.at {
                return;
            }
            self.by_time.remove(&(old, key.clone()));
        }
        self.by_time.insert((deadline.at, key));
    }

    /// Sets the timer of `key` to what a machine's `deadline()` answered.
    pub fn update(&mut self, key: K, deadline: Option<Deadline>) {
        match deadline {
            Some(d) => self.set(key, d),
            None => self.cancel(&key),
        }
    }

    /// Removes the timer of `key`, if there is one.
    pub fn cancel(&mut self, key: &K) {
        if let Some((at, _)) = self.by_key.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    /// Whether the timer of `key` is set.
    pub fn has(&self, key: &K) -> bool {
        self.by_key.contains_key(key)
    }

    /// Takes out the earliest timer that is due at `now`.
    pub fn pop_due(&mut self, now: Time) -> Option<K> {
        let (at, _) = self.by_time.first()?;
        if *at > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Deadline> {
        let (at, key) = self.by_time.first()?;
        let why = self.by_key.get(key).map_or("timer", |(_, why)| why);
        Some(Deadline { at: *at, why })
    }

    /// What timers are set for, in the order of their keys.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.by_key.keys()
    }

    /// How many timers are set.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether no timer is set.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_of_time_then_key_and_at_most_once_per_key() {
        let mut t = Timers::default();
        t.set(2, Deadline::new(Time::from_millis(5), "b"));
        t.set(1, Deadline::new(Time::from_millis(5), "a"));
        t.set(3, Deadline::new(Time::from_millis(9), "c"));
        t.set(3, Deadline::new(Time::from_millis(1), "c moved"));
        assert_eq!(t.next().map(|d| d.why), Some("c moved"));
        assert_eq!(t.pop_due(Time::ZERO), None);
        let due: Vec<i32> = std::iter::from_fn(|| t.pop_due(Time::from_millis(6))).collect();
        assert_eq!(due, [3, 1, 2]);
        assert!(t.is_empty());
    }

    #[test]
    fn a_cancelled_timer_never_fires() {
        let mut t = Timers::default();
        t.set("x", Deadline::new(Time::from_millis(1), "x"));
        t.cancel(&"x");
        assert_eq!(t.pop_due(Time::from_millis(2)), None);
        assert_eq!(t.len(), 0);
    }

    #[test]
    fn the_wall_anchor_goes_both_ways() {
        let a = WallAnchor::new(Time::from_millis(10), WallTime(1_000_000_000));
        assert_eq!(a.wall(Time::from_millis(11)), WallTime(1_001_000_000));
        assert_eq!(a.wall(Time::from_millis(9)), WallTime(999_000_000));
    }
}
