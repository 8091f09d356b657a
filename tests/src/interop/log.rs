//! What a child process writes, line by line, in memory, with a way to wait for a line.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines kept for one process; a runaway log must not eat the machine.
const MOST: usize = 100_000;

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Vec<(Instant, String)>>,
    grown: Condvar,
}

/// The captured output of one process. Cheap to clone; all clones see the same lines.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Shared>);

/// A point in a [`Log`]: only lines after it count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(usize);

impl Log {
    /// Reads `from` to its end on a thread of its own. A carriage return ends a line too (progress displays).
    pub fn capture(&self, from: impl Read + Send + 'static) {
        let log = self.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(from);
            let mut raw = Vec::new();
            while matches!(reader.read_until(b'\n', &mut raw), Ok(n) if n > 0) {
                for line in String::from_utf8_lossy(&raw).split(['\n', '\r']).filter(|l| !l.is_empty()) {
                    log.push(line);
                }
                raw.clear();
            }
        });
    }

    /// Appends a line.
    pub fn push(&self, line: &str) {
        let mut lines = self.lock();
        if lines.len() < MOST {
            lines.push((Instant::now(), line.to_owned()));
        }
        self.0.grown.notify_all();
    }

    /// Where the log ends now.
    pub fn mark(&self) -> Mark {
        Mark(self.lock().len())
    }

    /// Waits for a line after `from` that `wanted` likes, and answers it; `None` after `within`.
    pub fn wait(&self, from: Mark, within: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let end = Instant::now() + within;
        let mut seen = from.0;
        let mut lines = self.lock();
        loop {
            if let Some(line) = lines.iter().skip(seen).map(|l| &l.1).find(|l| wanted(l)) {
                return Some(line.clone());
            }
            seen = lines.len();
            let left = end.checked_duration_since(Instant::now())?;
            lines = self.0.grown.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for a line that `wanted` likes and that came at least `span` after the first such, or for one that `enough` likes;
    /// answers whether it was the former.
    pub fn wait_span(
        &self,
        within: Duration,
        span: Duration,
        wanted: impl Fn(&str) -> bool,
        enough: impl Fn(&str) -> bool,
    ) -> bool {
        let end = Instant::now() + within;
        let (mut seen, mut first) = (0, None);
        let mut lines = self.lock();
        loop {
            for (at, line) in lines.iter().skip(seen) {
                if wanted(line) {
                    let first = *first.get_or_insert(*at);
                    if at.duration_since(first) >= span {
                        return true;
                    }
                } else if enough(line) {
                    return false;
                }
            }
            seen = lines.len();
            let Some(left) = end.checked_duration_since(Instant::now()) else { return false };
            lines = self.0.grown.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many lines after `from` `wanted` likes.
    pub fn count(&self, from: Mark, wanted: impl Fn(&str) -> bool) -> usize {
        self.lock().iter().skip(from.0).filter(|l| wanted(&l.1)).count()
    }

    /// Shows each line so far, oldest first.
    pub fn each(&self, mut show: impl FnMut(&str)) {
        self.each_at(|_, line| show(line));
    }

    /// As [`Log::each`], with the time at which it came.
    pub fn each_at(&self, mut show: impl FnMut(Instant, &str)) {
        self.lock().iter().for_each(|(at, line)| show(*at, line));
    }

    /// The last `n` lines, for a failure's message.
    pub fn tail(&self, n: usize) -> String {
        let lines = self.lock();
        lines
            .iter()
            .skip(lines.len().saturating_sub(n))
            .fold(String::new(), |all, l| all + "  | " + &l.1 + "\n")
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, String)>> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_once_it_came_and_only_after_the_mark() {
        let log = Log::default();
        log.capture(&b"one\rtwo\nthree"[..]);
        let within = Duration::from_secs(60);
        assert_eq!(log.wait(Mark::default(), within, |l| l == "three").as_deref(), Some("three"));
        assert_eq!(log.count(Mark::default(), |_| true), 3);
        assert_eq!(log.wait(log.mark(), Duration::ZERO, |l| l == "one"), None);
        assert!(log.tail(2).contains("two") && !log.tail(2).contains("one"));
    }
}
