//! Keeps a flood of equal log lines from filling a disk (abuse A25).

use crate::time::Time;
use std::collections::BTreeMap;

/// Lets at most so many lines of one kind pass in each second, and says how many it held back.
#[derive(Debug, Default)]
pub struct Throttle {
    per_s: u32,
    second: u64,
    passed: BTreeMap<&'static str, (u32, u64)>,
}

/// What a throttle says of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write it; so many of its kind were held back in the second before.
    Pass {
        /// Lines held back since the last that passed.
        held_back: u64,
    },
    /// Leave it out.
    Hold,
}

impl Throttle {
    /// A throttle that lets `per_s` lines of one kind pass in each second.
    pub fn new(per_s: u32) -> Throttle {
        Throttle { per_s, second: 0, passed: BTreeMap::new() }
    }

    /// Asks for one line of `kind` (a fixed word, so that the map stays small).
    pub fn ask(&mut self, kind: &'static str, now: Time) -> Verdict {
        let second = now.as_millis() / 1000;
        if second != self.second {
            self.second = second;
            self.passed.retain(|_, (passed, held)| {
                *passed = 0;
                *held > 0
            });
        }
        let (passed, held) = self.passed.entry(kind).or_default();
        if *passed >= self.per_s {
            *held += 1;
            return Verdict::Hold;
        }
        *passed += 1;
        Verdict::Pass { held_back: std::mem::take(held) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_held_back_and_counted() {
        let mut t = Throttle::new(2);
        let at = Time::from_millis(500);
        assert_eq!(t.ask("x", at), Verdict::Pass { held_back: 0 });
        assert_eq!(t.ask("x", at), Verdict::Pass { held_back: 0 });
        assert_eq!(t.ask("x", at), Verdict::Hold);
        assert_eq!(t.ask("y", at), Verdict::Pass { held_back: 0 });
        assert_eq!(t.ask("x", Time::from_millis(1000)), Verdict::Pass { held_back: 1 });
    }
}
