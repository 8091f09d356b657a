//! An operator's own program that nodes ask who may, with Python's HTTP server and OpenSSL's TLS.

use super::certificate::Certificate;
use super::cluster::signal;
use super::log::{Log, Mark};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What it does.
const SCRIPT: &str = include_str!("py/doorman.py");
const PORT: u16 = 9443;

/// A running one; it is killed when this is dropped.
#[derive(Debug)]
pub struct Doorman {
    /// What it was asked, as `asked {…}`.
    pub log: Log,
    /// What a node is to be told of it: `--set` and its value, several times.
    pub settings: Vec<String>,
    /// A token under a key of its key set, for `live/t`.
    pub token: String,
    child: Child,
}

impl Doorman {
    /// Starts one at an address.
    ///
    /// # Panics
    /// If it does not start within 30 s.
    pub fn start(ip: Ipv4Addr, dir: &Path) -> Doorman {
        let certificate = Certificate::of(ip, dir);
        let mut child = Command::new("python3")
            .args(["-u", "-c", SCRIPT])
            .args([&ip.to_string(), &PORT.to_string()])
            .args([&certificate.whole, &dir.to_path_buf()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let log = Log::default();
        log.capture(child.stdout.take().expect("stdout is piped"));
        log.capture(child.stderr.take().expect("stderr is piped"));
        let ready = log.wait(Mark::default(), Duration::from_secs(30), |l| l == "ready");
        assert!(ready.is_some(), "{}", log.tail(30));
        let mut token = String::new();
        log.each(|line| {
            if let Some(t) = line.strip_prefix("token ") {
                t.clone_into(&mut token);
            }
        });
        let settings = [
            format!("auth.callback=https://{ip}:{PORT}/may"),
            "auth.callback_token=a-node".to_owned(),
            format!("auth.jwks=https://{ip}:{PORT}/jwks.json"),
            format!("tls.authorities={}", certificate.alone.display()),
        ];
        let settings = settings.into_iter().flat_map(|value| ["--set".to_owned(), value]).collect();
        Doorman { log, settings, token, child }
    }

    /// It stands still.
    pub fn freeze(&self) {
        signal(self.child.id(), "STOP");
    }

    /// It goes on.
    pub fn thaw(&self) {
        signal(self.child.id(), "CONT");
    }
}

impl Drop for Doorman {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
