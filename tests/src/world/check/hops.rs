//! S5 between two nodes: what one passed on was taken in by the other, or is on its way.
//!
//! A frame takes more bytes on the wire than it has itself, so the bytes on the way bound the frames on the way, and where
//! nothing is on the way both ends have counted the same.

use super::{Found, broken};
use crate::world::{HostId, World};
use proto_core::io::ConnId;
use proto_core::node::audit::{Audit, PullAudit, ServeAudit};

impl World {
    /// All pulls that a node serves, against those who make them.
    pub(super) fn hops(&self, at: HostId, audit: &Audit) -> Found {
        for serve in &audit.serves {
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
