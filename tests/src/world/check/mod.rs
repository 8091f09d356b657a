//! What must always hold, checked while a world runs, and what must come to hold once all faults are over.
//!
//! After each turn of a node the world asks whether anything came or went there ([`Node::shape`]); only then the node's
//! tables are verified and the whole is looked at. A full pass over all nodes follows every [`EVERY`]. Datagrams are
//! watched where they cross the world's boundary. What is checked from outside does not believe what a node says about
//! itself: who was heard, cut off or drained is what the world did.
//!
//! | invariant | where | how |
//! |---|---|---|
//! | S1 | `fencing` | one accepted publisher per epoch, epochs rise, nothing stale is relayed |
//! | S2 | `books` | who is given out was heard within its lease and does not drain; owners are stable |
//! | S3, S4 | players | each frame's label |
//! | S5, S6, S7 | [`Node::verify`] | counts add up, limits hold, tables agree with each other and with the world |
//! | S5 | `hops` | what a node passed on to another was taken in there, or is on its way |
//! | S9, S10 | `datagrams` | media only to checked, living addresses; no amplification |
//! | S9, A11 | `lanes` | media of RTSP only to the address of its connection |
//! | S11 | `fencing` | no frame passes a node twice, at most four hops |
//! | S14 | `books` | the manager's view of load is one that was true; who is given out has room |
//! | S16 | `pace` | wake-ups, and outputs of one turn |
//! | L5, L6, L7, L9 | `deadlines` | each within its time, whenever it happens |
//! | L1 to L4, L8 | [`liveness`] | after faults |

mod books;
mod datagrams;
mod deadlines;
mod fencing;
mod hops;
mod lanes;
pub mod liveness;
mod pace;
pub mod planted;
mod scenarios;

use super::{HostId, World};
use proto_core::error::Broken;
use proto_core::node::Node;
use proto_core::node::audit::Audit;
use proto_core::time::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often all nodes are looked at, whatever happened.
const EVERY: Duration = Duration::from_millis(250);

/// What one run of a node looked like lately.
#[derive(Debug)]
struct Watch {
    shape: u64,
    pace: pace::Pace,
    deadlines: deadlines::Watch,
    clients: books::Clients,
}

/// All that is remembered between one look and the next.
#[derive(Debug)]
pub(super) struct Checkers {
    off: bool,
    next: Time,
    watches: BTreeMap<HostId, Watch>,
    fencing: fencing::Fencing,
    books: books::Heard,
    datagrams: datagrams::Flows,
    lanes: lanes::Lanes,
    passed: hops::Passed,
}

impl Default for Checkers {
    fn default() -> Checkers {
        Checkers {
            off: false,
            next: Time::ZERO + EVERY,
            watches: BTreeMap::new(),
            fencing: fencing::Fencing::default(),
            books: books::Heard::default(),
            datagrams: datagrams::Flows::default(),
            lanes: lanes::Lanes::default(),
            passed: hops::Passed::default(),
        }
    }
}

/// A violation, before the world knows of it.
type Found = Result<(), Broken>;

fn broken(invariant: &'static str, text: String) -> Found {
    Err(Broken { invariant, text })
}

impl World {
    /// Looks at nothing but what players see: to measure what the checks cost.
    pub fn unchecked(&mut self) {
        self.checks.off = true;
    }

    /// Lets time pass, or stops at the first broken invariant. Unlike [`World::run`] it does not panic.
    pub fn lapse(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        if self.violation().is_none() {
            self.now = until;
        }
    }

    /// Lets time pass until something holds. Answers whether it did within `within` (and nothing broke meanwhile).
    pub fn wait(&mut self, within: Duration, mut holds: impl FnMut(&mut World) -> bool) -> bool {
        let until = self.now + within;
        while !holds(self) {
            if !self.step(until) {
                return false;
            }
        }
        true
    }

    fn found(&mut self, at: Option<HostId>, found: Found) {
        if let Err(Broken { invariant, text }) = found {
            let name = at.map(|h| format!("{}: ", self.hosts[h.0].config.node.name)).unwrap_or_default();
            self.violate(invariant, format!("{name}{text}"));
        }
    }

    /// A run of a node begins.
    pub(super) fn watch(&mut self, host: HostId) {
        let watch = Watch {
            shape: 0,
            pace: pace::Pace::new(self.now, 0),
            deadlines: deadlines::Watch::default(),
            clients: books::Clients::new(self.now),
        };
        self.checks.watches.insert(host, watch);
        self.checks.datagrams.forget(host);
        self.checks.lanes.forget(host);
        self.checks.passed.retain(|(at, ..), _| *at != host);
        self.checks.books.started(host, self.now);
    }

    /// A node had a turn and all that it said was taken.
    pub(super) fn watched(&mut self, host: HostId, said: usize, tick: bool) {
        if self.checks.off {
            return;
        }
        let now = self.now;
        let Some(run) = &self.hosts[host.0].run else { return };
        let Some(watch) = self.checks.watches.get_mut(&host) else { return };
        let paced = watch.pace.turn(said, tick);
        let shape = run.node.shape();
        let changed = std::mem::replace(&mut watch.shape, shape) != shape;
        if changed {
            watch.clients.now(now, run.node.client_count());
        }
        let found = paced.and_then(|()| if changed { self.look(host, true) } else { Ok(()) });
        if found.is_err() {
            self.found(Some(host), found);
        }
    }

    /// Looks at one node. `changed`: only because something came or went there.
    fn look(&mut self, host: HostId, changed: bool) -> Found {
        let Some(run) = &self.hosts[host.0].run else { return Ok(()) };
        let node: &Node = &run.node;
        node.verify()?;
        let number = run.number;
        let audit = node.audit();
        let name = node.id().clone();
        self.checks.fencing.look(host, number, &name, &audit)?;
        if !changed {
            self.tables_and_wires(host, &audit)?;
            self.deadlines(host, &audit)?;
            self.hops(host, &audit)?;
            self.books(host, &audit)?;
        }
        Ok(())
    }

    /// The periodic full pass.
    pub(super) fn full_pass(&mut self) {
        if self.checks.off {
            return;
        }
        for n in 0..self.hosts.len() {
            let host = HostId(n);
            if self.hosts[n].run.is_none() {
                continue;
            }
            let found = self.look(host, false).and_then(|()| self.paced(host));
            if found.is_err() {
                return self.found(Some(host), found);
            }
        }
    }

    /// Does the full pass if it is due before an event at `at`.
    pub(super) fn look_if_due(&mut self, at: Time) {
        if at >= self.checks.next {
            self.checks.next = at + EVERY;
            self.full_pass();
        }
    }

    /// S7: a node has the connections that there are in the world.
    fn tables_and_wires(&self, host: HostId, audit: &Audit) -> Found {
        let Some(run) = &self.hosts[host.0].run else { return Ok(()) };
        let (known, there) = (audit.conns.0 + audit.conns.1, run.conns());
        // One that the node has just heard of, or just closed, is on its way.
        if known != there {
            return broken("S7", format!("the node has {known} connections, its driver {there}"));
        }
        Ok(())
    }
}
