//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends at once.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::thread;

/// Calls `drain` at the first SIGTERM or SIGINT and `stop` at the second, from a thread of its own.
///
/// # Errors
/// If the handlers or the thread cannot be had.
pub(crate) fn watch(
    drain: impl FnOnce() + Send + 'static,
    stop: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut arrived = signals.forever();
        if arrived.next().is_some() {
            drain();
        }
        if arrived.next().is_some() {
            stop();
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn the_first_signal_drains_and_the_second_stops() {
        let (said, heard) = mpsc::channel();
        let also = said.clone();
        watch(move || said.send("drain").unwrap(), move || also.send("stop").unwrap()).unwrap();
        let patience = Duration::from_secs(30);
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert_eq!(heard.recv_timeout(patience), Ok("drain"));
        signal_hook::low_level::raise(SIGINT).unwrap();
        assert_eq!(heard.recv_timeout(patience), Ok("stop"));
    }
}
