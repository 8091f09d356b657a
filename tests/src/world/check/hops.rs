//! S5 between two nodes: what one passed on was taken in by the other, or is on its way.
//!
//! A frame takes more bytes on the wire than it has itself, so the bytes on the way bound the frames on the way, and where
//! nothing is on the way both ends have counted the same.

use super::{Found, broken};
use crate::world::{HostId, World};
use proto_core::io::ConnId;
use proto_core::node::audit::{Audit, PullAudit, ServeAudit};
use proto_core::time::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// Over QUIC the world does not see what is on its way. What was passed on is taken in or counted as left out within this
/// time; a link on which nothing is heard ends sooner.
const SETTLED: Duration = Duration::from_secs(10);

/// By serving node, connection and pull: what had been passed on when that last changed.
pub(super) type Passed = BTreeMap<(HostId, ConnId, u64), (u64, Time)>;

impl World {
    /// All pulls that a node serves, against those who make them.
    pub(super) fn hops(&mut self, at: HostId, audit: &Audit) -> Found {
        for serve in &audit.serves {
            if let Some(peer) = serve.by_quic {
                self.quic_hop(at, serve, peer.ip())?;
                continue;
            }
            let Some((pipe, side)) = self.pipe_of(at, serve.over.0) else { continue };
            for (n, other) in self.hosts.iter().enumerate() {
                let Some(run) = other.run.as_ref().filter(|_| n != at.0) else { continue };
                let Some(pull) = run.node.audit_pull_of(&serve.key).filter(|p| p.over.0 == serve.over.1)
                else {
                    continue;
                };
                let here = pull.over.1.and_then(|conn| self.pipe_of(HostId(n), conn));
                if !pull.pulling || here != Some((pipe, 1 - side)) {
                    continue;
                }
                let flying = serve.backlog + self.on_the_way(pipe, side) + pull.partial;
                conserved(serve, &pull, flying, run.node.id().0.as_str())?;
            }
        }
        Ok(())
    }

    fn quic_hop(&mut self, at: HostId, serve: &ServeAudit, peer: std::net::IpAddr) -> Found {
        let (now, sent) = (self.now, serve.counters);
        let passed = self.checks.passed.entry((at, serve.over.0, serve.over.1)).or_insert((0, now));
        if passed.0 != sent.frames {
            *passed = (sent.frames, now);
        }
        let since = passed.1;
        let own = self.hosts[at.0].ip;
        let Some(run) = self.hosts.iter().find(|h| h.ip == peer).and_then(|h| h.run.as_ref()) else {
            return Ok(());
        };
        let same = |p: &PullAudit| {
            p.over.0 == serve.over.1 && p.pulling && p.by_quic.is_some_and(|origin| origin.ip() == own)
        };
        let Some(pull) = run.node.audit_pull_of(&serve.key).filter(same) else { return Ok(()) };
        let taken = pull.taken;
        let settled = now.since(since) > SETTLED && serve.backlog == 0;
        let fits = taken.frames <= sent.frames && taken.bytes <= sent.bytes;
        if fits && (!settled || taken.frames == sent.frames) {
            return Ok(());
        }
        let text = format!(
            "{}: {} frames ({} bytes) were passed on to {} by QUIC, which took in or counted {} ({}), {:?} after the last",
            serve.key,
            sent.frames,
            sent.bytes,
            run.node.id(),
            taken.frames,
            taken.bytes,
            now.since(since)
        );
        broken("S5", text)
    }

    fn pipe_of(&self, at: HostId, conn: ConnId) -> Option<(u64, usize)> {
        self.hosts[at.0].run.as_ref()?.pipe(conn)
    }
}

fn conserved(serve: &ServeAudit, pull: &PullAudit, flying: usize, puller: &str) -> Found {
    let (sent, taken) = (serve.counters, pull.taken);
    let frames = sent.frames.checked_sub(taken.frames);
    let bytes = sent.bytes.checked_sub(taken.bytes);
    let fits =
        frames.is_some() && bytes.is_some_and(|b| b <= flying as u64) && (flying > 0 || frames == Some(0));
    if fits {
        return Ok(());
    }
    let text = format!(
        "{}: {} frames ({} bytes) were passed on to {puller}, which took in {} ({}), and {flying} bytes are on the way",
        serve.key, sent.frames, sent.bytes, taken.frames, taken.bytes
    );
    broken("S5", text)
}
