//! How often a node wakes, and how much it says at once (S16).

use super::{Found, broken};
use crate::world::{HostId, World};
use proto_core::time::Time;
use std::time::Duration;

/// The most that one turn may say.
const SAID: usize = 50_000;
/// Wake-ups a second that a node may have for nothing …
const IDLE: u64 = 20;
/// … for each connection (its sign of life, its deadline) …
const PER_CONN: u64 = 4;
/// … for each WebRTC session (reports, checks, retransmission: str0m ticks by itself) …
const PER_RTC: u64 = 250;
/// … and for each input.
const PER_INPUT: u64 = 3;

/// What one run of a node did in the present second.
#[derive(Debug)]
pub(super) struct Pace {
    since: Time,
    ticks: u64,
    inputs: u64,
}

impl Pace {
    pub(super) fn new(now: Time) -> Pace {
        Pace { since: now, ticks: 0, inputs: 0 }
    }

    /// One turn.
    pub(super) fn turn(&mut self, said: usize, tick: bool) -> Found {
        if tick {
            self.ticks += 1;
        } else {
            self.inputs += 1;
        }
        if said > SAID {
            return broken("S16", format!("one turn said {said} things, at most {SAID}"));
        }
        Ok(())
    }
}

impl World {
    pub(super) fn paced(&mut self, host: HostId) -> Found {
        let now = self.now;
        let Some(watch) = self.checks.watches.get_mut(&host) else { return Ok(()) };
        let pace = &mut watch.pace;
        let age = now.since(pace.since);
        if age < Duration::from_secs(1) {
            return Ok(());
        }
        let seconds = age.as_secs() + 1;
        let (ticks, inputs) = (pace.ticks, pace.inputs);
        *pace = Pace::new(now);
        let Some(run) = &self.hosts[host.0].run else { return Ok(()) };
        let (conns, rtc) = run.node.sizes();
        let most = seconds * (IDLE + PER_CONN * conns as u64 + PER_RTC * rtc as u64) + PER_INPUT * inputs;
        if ticks > most {
            let text = format!(
                "{ticks} wake-ups in {} ms with {conns} connections, {rtc} WebRTC sessions and {inputs} inputs; at most \
                 {most}",
                age.as_millis()
            );
            return broken("S16", text);
        }
        Ok(())
    }
}
