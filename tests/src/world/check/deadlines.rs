//! What has to happen within a time, whenever it happens: slow viewers (L5), drains (L6), half-open peers (L7),
//! takeovers (L9).

use super::{Found, broken};
use crate::world::{HostId, World};
use proto_core::hub::SubscriberId;
use proto_core::media::key::StreamKey;
use proto_core::node::audit::{Audit, SessionAudit};
use proto_core::node::session::SessionId;
use proto_core::time::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// L5: a slow viewer is served again or let go within 10 s; and the time between two looks.
const SLOW: Duration = Duration::from_millis(12_000);
/// L7: a half-open peer is found within 30 s; and a moment.
const HALF_OPEN: Duration = Duration::from_millis(34_000);
/// L6: after the time that a node gives its sessions, and a moment.
const DRAINED: Duration = Duration::from_millis(2_000);

/// What one run of a node looked like at the last look.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// When the node was told to drain.
    pub(super) drains: Option<Time>,
    /// Viewers for whom frames wait: how many they had got, and since when that did not change.
    waiting: BTreeMap<SubscriberId, (u64, Time)>,
    /// Sessions whose peer is cut off, since when.
    cut: BTreeMap<SessionId, Time>,
    /// When names last changed hands, on the manager's clock.
    taken: BTreeMap<StreamKey, Time>,
}

impl World {
    /// Since when a node drains.
    pub(super) fn draining_since(&self, host: HostId) -> Option<Time> {
        self.checks.watches.get(&host)?.deadlines.drains
    }

    /// Whether an operator has told the node of a host to drain.
    pub fn is_draining(&self, host: HostId) -> bool {
        self.hosts[host.0].run.is_some() && self.draining_since(host).is_some()
    }

    /// A node is told to drain.
    pub(in crate::world) fn drains(&mut self, host: HostId) {
        let now = self.now;
        if let Some(watch) = self.checks.watches.get_mut(&host) {
            watch.deadlines.drains.get_or_insert(now);
        }
    }

    pub(super) fn deadlines(&mut self, host: HostId, audit: &Audit) -> Found {
        if self.is_paused(host.into()) {
            self.excuse(host);
            return Ok(());
        }
        self.half_open(host, audit)?;
        let (now, drained) = (self.now, self.is_drained(host));
        let limits = &self.hosts[host.0].config.limits;
        let (most, pause) =
            (Duration::from_millis(limits.drain_ms), Duration::from_millis(limits.takeover_ms));
        let Some(watch) = self.checks.watches.get_mut(&host).map(|w| &mut w.deadlines) else { return Ok(()) };
        if let Some(since) = watch.drains
            && !drained
            && now.since(since) > most + DRAINED
        {
            let (age, n) = (now.since(since).as_millis(), audit.sessions.len());
            return broken(
                "L6",
                format!("it drains since {age} ms, at most {} ms; {n} sessions", most.as_millis()),
            );
        }
        watch.slow(now, audit)?;
        watch.takeovers(pause, audit)
    }

    /// L7: sessions of clients that nobody reaches any more end.
    fn half_open(&mut self, host: HostId, audit: &Audit) -> Found {
        let cut = |s: &SessionAudit| {
            s.remote
                .and_then(|r| self.party_at(r.ip()))
                .is_some_and(|p| p != host.into() && self.is_cut_off(p))
        };
        let cut: Vec<SessionId> = audit.sessions.iter().filter(|s| cut(s)).map(|s| s.id).collect();
        let Some(watch) = self.checks.watches.get_mut(&host).map(|w| &mut w.deadlines) else { return Ok(()) };
        watch.cut.retain(|id, _| cut.contains(id));
        for id in cut {
            let silent = self.now.since(*watch.cut.entry(id).or_insert(self.now));
            if silent > HALF_OPEN {
                let ms = silent.as_millis();
                return broken("L7", format!("session {} goes on, its peer was cut off {ms} ms ago", id.0));
            }
        }
        Ok(())
    }

    /// A paused node is not to blame for what it does not do meanwhile.
    fn excuse(&mut self, host: HostId) {
        let now = self.now;
        if let Some(watch) = self.checks.watches.get_mut(&host) {
            let d = &mut watch.deadlines;
            d.drains = d.drains.map(|_| now);
            d.cut.clear();
            d.waiting.clear();
        }
    }
}

impl Watch {
    /// L5: whoever has frames waiting gets some, or is let go.
    fn slow(&mut self, now: Time, audit: &Audit) -> Found {
        let mut waiting = BTreeMap::new();
        for v in audit.subscribers.iter().filter(|v| v.pending > 0) {
            let since = match self.waiting.get(&v.id) {
                Some((delivered, since)) if *delivered == v.delivered => *since,
                _ => now,
            };
            let age = now.since(since);
            if age > SLOW {
                let (n, ms) = (v.pending, age.as_millis());
                return broken(
                    "L5",
                    format!("viewer {} got none of {n} frames for {ms} ms and is kept", v.id),
                );
            }
            waiting.insert(v.id, (v.delivered, since));
        }
        self.waiting = waiting;
        Ok(())
    }

    /// L9: a name does not change hands between live publishers again at once.
    fn takeovers(&mut self, pause: Duration, audit: &Audit) -> Found {
        for s in audit.books.iter().flat_map(|b| &b.streams) {
            let Some(at) = s.taken_over else { continue };
            let before = self.taken.insert(s.key.clone(), at);
            if let Some(before) = before.filter(|b| *b < at)
                && at.since(before) < pause
            {
                let ms = at.since(before).as_millis();
                let text =
                    format!("{} changed hands twice within {ms} ms, least {} ms", s.key, pause.as_millis());
                return broken("L9", text);
            }
        }
        Ok(())
    }
}
