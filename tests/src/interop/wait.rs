//! Waiting for a condition, never for time.

use std::fmt::Display;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a condition that cannot wake us is looked at.
const TICK: Duration = Duration::from_millis(50);

/// Looks at a condition until it gives a value, or panics after `within` with `what` and the last reason.
///
/// Between two looks the caller waits on a condition variable that nobody signals: the poll's ticker.
pub fn until<T, E: Display>(what: &str, within: Duration, mut look: impl FnMut() -> Result<T, E>) -> T {
    match try_until(within, &mut look) {
        Ok(t) => t,
        Err(last) => panic!("waited {within:?} in vain for {what}: {last}"),
    }
}

/// As [`until`], but answers the last reason instead of panicking.
pub fn try_until<T, E>(within: Duration, mut look: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let end = Instant::now() + within;
    let (never, ticker) = (Mutex::new(()), Condvar::new());
    loop {
        match look() {
            Ok(t) => return Ok(t),
            Err(e) if Instant::now() >= end => return Err(e),
            Err(_) => {
                let guard = never.lock().unwrap_or_else(PoisonError::into_inner);
                drop(ticker.wait_timeout(guard, TICK));
            }
        }
    }
}

/// Makes a look at a plain truth fit [`until`].
pub fn yes(truth: bool, else_say: impl Into<String>) -> Result<(), String> {
    if truth { Ok(()) } else { Err(else_say.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_the_condition_and_not_before() {
        let mut looks = 0;
        let got = until("the third look", Duration::from_secs(60), || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(format!("look {looks}")) }
        });
        assert_eq!(got, 3);
    }

    #[test]
    fn a_wait_in_vain_ends_with_the_last_reason() {
        let end: Result<(), String> = try_until(Duration::ZERO, || Err("not yet".to_owned()));
        assert_eq!(end, Err("not yet".to_owned()));
    }
}
