//! GStreamer's RTSP server as a camera: an independent server to pull from, with digest authentication.

use super::log::{Log, Mark};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SCRIPT: &str = include_str!("py/rtsp_server.py");
/// The port that it listens on.
const PORT: &str = "8554";
/// The longest that Python and GStreamer may take to start.
const STARTS: Duration = Duration::from_secs(30);

/// A running camera at `/cam`; it is killed when this is dropped.
#[derive(Debug)]
pub struct Camera {
    /// What it says.
    pub log: Log,
    child: Child,
    ip: Ipv4Addr,
}

impl Camera {
    /// Starts it. `transports`: `tcp`, `udp` or `both`. Its user is `admin`, the password `s3cret`.
    pub fn start(ip: Ipv4Addr, transports: &str) -> Camera {
        // The system's Python has the bindings, whatever other there is.
        let mut child = Command::new("/usr/bin/python3")
            .args(["-c", SCRIPT, &ip.to_string(), PORT, "admin", "s3cret", transports])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Python is not installed; run ./check");
        let log = Log::default();
        log.capture(child.stdout.take().expect("stdout is piped"));
        log.capture(child.stderr.take().expect("stderr is piped"));
        let camera = Camera { log, child, ip };
        let up = camera.log.wait(Mark::default(), STARTS, |line| line == "ready");
        assert!(up.is_some(), "the camera does not start:\n{}", camera.log.tail(20));
        camera
    }

    /// Its URL, with a password.
    pub fn url(&self, password: &str) -> String {
        format!("rtsp://admin:{password}@{}:{PORT}/cam", self.ip)
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
