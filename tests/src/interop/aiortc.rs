//! aiortc, an implementation of WebRTC in Python, as publisher (WHIP) and player (WHEP).

use super::log::Log;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What it does: counts on standard output.
const SCRIPT: &str = include_str!("py/client.py");

/// A running client; it is killed when this is dropped.
#[derive(Debug)]
pub struct Aiortc {
    /// What it says: `connected`, `frame=12`, `sound=34`, `codec=VP8/90000`.
    pub log: Log,
    child: Child,
    what: String,
}

impl Aiortc {
    /// Publishes the signal of the matrix; `codec` as `video/VP8`.
    pub fn publish(whip: &str, codec: &str) -> Aiortc {
        Aiortc::run(&["publish", whip, codec])
    }

    /// Plays and decodes pictures and sound.
    pub fn play(whep: &str) -> Aiortc {
        Aiortc::run(&["play", whep])
    }

    /// Plays, and tells what it sees and hears; samples go to a file.
    pub fn measure(whep: &str, samples: &Path) -> Aiortc {
        Aiortc::run(&["measure", whep, &samples.display().to_string()])
    }

    fn run(args: &[&str]) -> Aiortc {
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/venv/bin/python");
        assert!(python.exists(), "{} is not there; run ./check", python.display());
        let mut child = Command::new(python)
            .args(["-u", "-c", SCRIPT])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let log = Log::default();
        log.capture(child.stdout.take().expect("stdout is piped"));
        log.capture(child.stderr.take().expect("stderr is piped"));
        Aiortc { log, child, what: format!("aiortc {}", args.join(" ")) }
    }

    /// The last count of `frame` or `sound`.
    pub fn count(&self, of: &str) -> u64 {
        let mut last = 0;
        self.log.each(|line| last = value(line, of).unwrap_or(last));
        last
    }

    /// Waits until `n` more of `frame` or `sound` were counted than at the call.
    pub fn wait_more(&self, of: &str, n: u64, within: Duration) {
        let (from, goal) = (self.log.mark(), self.count(of) + n);
        let came = self.log.wait(from, within, |l| value(l, of).is_some_and(|v| v >= goal));
        assert!(came.is_some(), "{}: not {goal} of {of} within {within:?}\n{}", self.what, self.log.tail(30));
    }

    /// Waits for a line.
    pub fn wait_line(&self, line: &str, within: Duration) {
        let came = self.log.wait(Default::default(), within, |l| l == line);
        assert!(came.is_some(), "{}: no {line} within {within:?}\n{}", self.what, self.log.tail(30));
    }
}

fn value(line: &str, of: &str) -> Option<u64> {
    line.strip_prefix(of)?.strip_prefix('=')?.parse().ok()
}

impl Drop for Aiortc {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- the end of {}:\n{}", self.what, self.log.tail(20));
        }
    }
}
