//! What a node may hold, and whether a newcomer still fits (S6).
//!
//! Each session counts for a fixed amount, each TCP connection of WebRTC for the most that may wait on it, each stream for
//! the least that its ring needs; a newcomer for whom that no longer adds up is refused. What sessions leave is shared by the rings: in an uncrowded node each has its own limit.
//! So whoever is in keeps what it was promised, and no bitrate takes a node past its budget.

use super::Node;
use crate::error::{Broken, Reason};
use crate::simulation::Bug;

impl Node {
    /// Whether so many streams and sessions more fit in.
    ///
    /// # Errors
    /// `no_memory`.
    pub(super) fn room(&self, streams: usize, sessions: usize) -> Result<(), Reason> {
        let streams = self.hub.streams().count() + streams;
        let sessions = self.sessions.len() + sessions;
        let needed = self
            .sessions_memory(sessions)
            .saturating_add(self.limits.ring_bytes_least().saturating_mul(streams as u64));
        if needed <= self.limits.memory_bytes || self.limits.simulation.planted(Bug::MemoryIgnored) {
            return Ok(());
        }
        let text = format!(
            "this node's memory is taken: {} sessions and {} streams leave no room for more in {} MB; try another node \
             or later; where the host has more, raise limits.memory_bytes",
            self.sessions.len(),
            self.hub.streams().count(),
            self.limits.memory_bytes >> 20
        );
        Err(Reason::limit("no_memory", text))
    }

    fn sessions_memory(&self, sessions: usize) -> u64 {
        let rows = (self.rtc.rows() as u64).saturating_mul(self.limits.ice_tcp_queue_bytes as u64);
        (sessions as u64).saturating_mul(self.limits.session_bytes).saturating_add(rows)
    }

    /// Gives the rings what the sessions leave.
    pub(super) fn share_memory(&mut self) {
        let left = self.limits.memory_bytes.saturating_sub(self.sessions_memory(self.sessions.len()));
        self.hub.set_memory(left);
    }

    /// The bytes that count against the budget now.
    pub(super) fn memory(&self) -> u64 {
        self.sessions_memory(self.sessions.len()) + self.hub.ring_bytes()
    }

    pub(super) fn verify_memory(&self) -> Result<(), Broken> {
        let (held, most) = (self.memory(), self.limits.memory_bytes);
        Broken::unless(held <= most, "S6", || {
            format!(
                "{} sessions and {} streams hold {held} bytes, limits.memory_bytes is {most}",
                self.sessions.len(),
                self.hub.streams().count()
            )
        })
    }
}
