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
/// … for each input …
const PER_INPUT: u64 = 3;
/// … and for each timer that was already set when the second began: what many inputs set in an instant (a thousand
/// names that nobody publishes) is due when the inputs are long past.
const PER_TIMER: u64 = 1;

/// What one run of a node did in the present second.
#[derive(Debug)]
pub(super) struct Pace {
    since: Time,
    ticks: u64,
    inputs: u64,
    /// Timers that were set when it began.
    armed: u64,
}

impl Pace {
    pub(super) fn new(now: Time, armed: usize) -> Pace {
        Pace { since: now, ticks: 0, inputs: 0, armed: armed as u64 }
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
        let (ticks, inputs, armed) = (pace.ticks, pace.inputs, pace.armed);
        let Some(run) = &self.hosts[host.0].run else { return Ok(()) };
        *pace = Pace::new(now, run.node.armed());
        let (conns, rtc) = run.node.sizes();
        let most = seconds * (IDLE + PER_CONN * conns as u64 + PER_RTC * rtc as u64)
            + PER_INPUT * inputs
            + PER_TIMER * armed;
        if ticks > most {
            let text = format!(
                "{ticks} wake-ups in {} ms with {conns} connections, {rtc} WebRTC sessions, {inputs} inputs and \
                 {armed} timers set before; at most {most}",
                age.as_millis()
            );
            return broken("S16", text);
        }
        Ok(())
    }
}
