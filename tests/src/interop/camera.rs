//! GStreamer's RTSP server as a camera: an independent server to pull from, with digest authentication.

use super::log::{Log, Mark};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SCRIPT: &str = include_str!("py/rtsp_server.py");
/// The longest that Python and GStreamer may take to start.
const STARTS: Duration = Duration::from_secs(30);

/// A running camera at `/cam`; it is killed when this is dropped.
#[derive(Debug)]
pub struct Camera {
    /// What it says.
    pub log: Log,
    child: Child,
    at: SocketAddr,
}

impl Camera {
    /// Starts it on a free port. `transports`: `tcp`, `udp` or `both`. Its user is `admin`, the password `s3cret`.
    pub fn start(ip: Ipv4Addr, transports: &str) -> Camera {
        Camera::start_at(SocketAddr::new(ip.into(), 0), transports)
    }

    /// Starts it again where one was, which must be gone.
    pub fn start_again(at: SocketAddr, transports: &str) -> Camera {
        Camera::start_at(at, transports)
    }

    /// Its address.
    pub fn at(&self) -> SocketAddr {
        self.at
    }

    fn start_at(at: SocketAddr, transports: &str) -> Camera {
        // Free a moment ago; nobody else takes ports here while one test runs.
        let free = TcpListener::bind(at).and_then(|l| l.local_addr()).expect("a free port");
        // The system's Python has the bindings, whatever other there is.
        let mut child = Command::new("/usr/bin/python3")
            .args([
                "-c",
                SCRIPT,
                &free.ip().to_string(),
                &free.port().to_string(),
                "admin",
                "s3cret",
                transports,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Python is not installed; run ./check");
        let log = Log::default();
        log.capture(child.stdout.take().expect("stdout is piped"));
        log.capture(child.stderr.take().expect("stderr is piped"));
        let camera = Camera { log, child, at: free };
        let up = camera.log.wait(Mark::default(), STARTS, |line| line == "ready");
        assert!(up.is_some(), "the camera does not start:\n{}", camera.log.tail(20));
        camera
    }

    /// Its URL, with a password.
    pub fn url(&self, password: &str) -> String {
        format!("rtsp://admin:{password}@{}/cam", self.at)
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
