//! How much of a turn of the loop handshakes may take, so that a flood of them delays media by no more.

use crate::time::Time;

/// What one handshake counts for in the work of a turn, microseconds: a signature, and the exchange of keys.
const HANDSHAKE_US: u64 = 500;

/// The work of handshakes in one turn of the loop.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    began: Option<Time>,
    us: u64,
}

impl Turn {
    /// Whether a handshake may begin in the turn of that time, of which handshakes may take `most_us` microseconds. One may
    /// in any case.
    pub(crate) fn may_begin(&mut self, now: Time, most_us: u64) -> bool {
        if self.began != Some(now) {
            *self = Turn { began: Some(now), us: 0 };
        }
        let fits = self.us == 0 || self.us + HANDSHAKE_US <= most_us;
        if fits {
            self.us += HANDSHAKE_US;
        }
        fits
    }
}
