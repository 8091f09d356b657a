//! How long to wait before a server that failed is tried again.

use crate::limits::Limits;
use crate::rand::Rng;
use std::time::Duration;

/// Doubles with each failure; begins anew once a connection has worked for a while.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    least: Duration,
    most: Duration,
    stable: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(limits: &Limits) -> Backoff {
        Backoff {
            least: Duration::from_millis(limits.remote_retry_min_ms),
            most: Duration::from_millis(limits.remote_retry_max_ms),
            stable: Duration::from_millis(limits.remote_stable_ms),
            failures: 0,
        }
    }

    /// Failures in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// It failed, after it had worked for `worked` if it had. Answers the wait: between a half and the whole of what is due,
    /// so that nodes that failed together do not come back together.
    pub(super) fn failed(&mut self, worked: Option<Duration>, rng: &mut Rng) -> Duration {
        if worked.is_some_and(|w| w >= self.stable) {
            self.failures = 0;
        }
        let whole = self.least.saturating_mul(1 << self.failures.min(20)).min(self.most.max(self.least));
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(0.5 + f64::from(rng.below(1_001)) / 2_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_a_stable_minute() {
        let mut rng = Rng::new([1; 32]);
        let mut b = Backoff::new(&Limits::default());
        let mut different = false;
        for whole in [1, 2, 4, 8, 16, 30, 30, 30] {
            let (a, c) =
                (b.clone().failed(None, &mut rng), b.failed(Some(Duration::from_secs(59)), &mut rng));
            different |= a != c;
            for wait in [a, c] {
                let whole = Duration::from_secs(whole);
                assert!(wait >= whole / 2 && wait <= whole, "{wait:?} of {whole:?}");
            }
        }
        assert!(different, "there is chance in it");
        assert_eq!(b.failures(), 8);
        assert!(b.failed(Some(Duration::from_secs(60)), &mut rng) <= Duration::from_secs(1));
        assert_eq!(b.failures(), 1);
    }
}
