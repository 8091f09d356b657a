//! Real `headwater` processes on loopback addresses of their own, all on default ports.

use super::http;
use super::log::{Log, Mark};
use super::wait;
use serde_json::Value;
use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// The longest that a node may take to start, or a cluster to find itself, on a slow machine.
pub const SETTLE: Duration = Duration::from_secs(30);

/// Lets one interop test run at a time: with several clusters and browsers on two cores, a second is no second.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The `headwater` binary: `HEADWATER_BIN` if set, else built now (a no-op if it is fresh) in the profile of this
/// test, so that a stale binary is never tested.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("HEADWATER_BIN") {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

fn build() -> PathBuf {
    let me = std::env::current_exe().expect("a test knows its own path");
    // target/<profile>/deps/<test>, or target/<profile>/<tool>
    let beside = me.parent().expect("a program lies in a directory");
    let out = if beside.ends_with("deps") { beside.parent().expect("deps has a parent") } else { beside }
        .to_owned();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--locked", "-j2", "-p", "headwater"]).env("CARGO_TERM_COLOR", "never");
    cargo.arg("--manifest-path").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"));
    cargo.arg("--target-dir").arg(out.parent().expect("target/<profile> has a parent"));
    if out.ends_with("release") {
        cargo.arg("--release");
    }
    let built = cargo.output().expect("cargo runs");
    assert!(built.status.success(), "headwater does not build:\n{}", String::from_utf8_lossy(&built.stderr));
    out.join("headwater")
}

/// A network of one test: `127.a.b.0/24`, on which nothing listens on our ports.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    a: u8,
    b: u8,
}

impl Net {
    /// A network that no other test uses: spread by process, counted within it, and looked at before use.
    pub fn fresh() -> Net {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        for _ in 0..1000 {
            let n = (std::process::id().wrapping_mul(61)).wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed));
            let net = Net { a: 16 + ((n / 251) % 200) as u8, b: (n % 251) as u8 };
            let free = |host, port| TcpListener::bind(SocketAddr::new(net.host(host).into(), port)).is_ok();
            if (1..=4).all(|host| free(host, 5080) && free(host, 1935)) {
                return net;
            }
        }
        panic!("no loopback network with free ports 5080 and 1935");
    }

    /// Its `n`-th address.
    pub const fn host(self, n: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.a, self.b, n)
    }
}

/// A node's process; it is killed when this is dropped.
#[derive(Debug)]
pub struct Node {
    /// Its name in the cluster (`node.name`).
    pub name: String,
    /// The address that it is bound to.
    pub ip: Ipv4Addr,
    /// What it wrote, over all its lives.
    pub log: Log,
    /// The command that runs the binary, such as one that enters a namespace; empty: none.
    before: Vec<String>,
    args: Vec<String>,
    child: Option<Child>,
}

impl Node {
    /// Starts `headwater serve --roles ROLES --bind IP` with more arguments. Does not wait for it.
    pub fn start(name: &str, roles: &str, ip: Ipv4Addr, manager: Option<Ipv4Addr>, more: &[&str]) -> Node {
        Node::start_by(&[], name, roles, ip, manager, more)
    }

    /// As [`Node::start`], by a command that ends by becoming the binary with the arguments that follow it.
    pub fn start_by(
        before: &[&str],
        name: &str,
        roles: &str,
        ip: Ipv4Addr,
        manager: Option<Ipv4Addr>,
        more: &[&str],
    ) -> Node {
        let mut args = vec!["serve".to_owned(), "--roles".to_owned(), roles.to_owned()];
        args.extend(["--bind".to_owned(), ip.to_string()]);
        args.extend(["--set".to_owned(), format!("node.name={name}")]);
        if let Some(manager) = manager {
            args.extend(["--manager".to_owned(), manager.to_string()]);
        }
        args.extend(more.iter().map(|&s| s.to_owned()));
        let before = before.iter().map(|&s| s.to_owned()).collect();
        let mut node = Node { name: name.to_owned(), ip, log: Log::default(), before, args, child: None };
        node.start_again();
        node
    }

    /// Starts the process (again, with the same arguments and log).
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let mut whole = self.before.iter().map(OsStr::new).chain([binary().as_os_str()]);
        let mut child = Command::new(whole.next().unwrap_or_default())
            .args(whole)
            .args(&self.args)
            .env_remove("HEADWATER_BIN")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{} does not start: {e}", binary().display()));
        self.log.capture(child.stdout.take().expect("stdout is piped"));
        self.log.capture(child.stderr.take().expect("stderr is piped"));
        self.child = Some(child);
    }

    /// The process id. Panics if it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).id()
    }

    /// Kills the process at once (SIGKILL), as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for the process to end by itself.
    pub fn wait_exit(&mut self, within: Duration) -> ExitStatus {
        let child = self.child.as_mut().unwrap_or_else(|| panic!("{} does not run", self.name));
        let look = || child.try_wait().map_err(|e| e.to_string())?.ok_or_else(|| "it still runs".to_owned());
        let status = wait::try_until(within, look);
        let status =
            status.unwrap_or_else(|e| panic!("{} did not end: {e}\n{}", self.name, self.log.tail(30)));
        self.child = None;
        status
    }

    /// A URL on its HTTP port; `path` begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}:5080{path}", self.ip)
    }

    /// A URL on its RTMP port for an app and a stream.
    pub fn rtmp(&self, stream: &str) -> String {
        format!("rtmp://{}/{stream}", self.ip)
    }

    /// Waits until `/healthz` (`/readyz`) answers 200.
    pub fn wait_http(&mut self, path: &str) {
        let url = self.url(path);
        let mut dead = None;
        let child = &mut self.child;
        let got = wait::try_until(SETTLE, || {
            if let Some(Ok(Some(status))) = child.as_mut().map(Child::try_wait) {
                dead = Some(status);
                return Ok(());
            }
            http::get(&url).and_then(|a| wait::yes(a.status == 200, format!("{}: {}", a.status, a.body)))
        });
        if let (Some(status), _) | (None, Err(status)) = (dead.map(|s| s.to_string()), got) {
            panic!("{} does not serve {path}: {status}\n{}", self.name, self.log.tail(40));
        }
    }

    /// Waits for a log line after `from` that holds all of `words` (case does not matter), and answers it.
    pub fn wait_log(&self, from: Mark, within: Duration, words: &[&str]) -> String {
        let wanted = |line: &str| {
            let line = line.to_lowercase();
            words.iter().all(|w| line.contains(&w.to_lowercase()))
        };
        self.log.wait(from, within, wanted).unwrap_or_else(|| {
            panic!("{} logged nothing with {words:?} within {within:?}:\n{}", self.name, self.log.tail(60))
        })
    }

    /// How often its threads have gone to sleep so far (`/proc/PID/task/*/status`): what an idle process costs, whatever the
    /// machine's speed.
    pub fn sleeps(&self) -> u64 {
        let tasks =
            std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("a running process has tasks");
        let count = |task: std::io::Result<std::fs::DirEntry>| {
            let text = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            text.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse::<u64>().ok()
        };
        tasks.filter_map(count).sum()
    }

    /// Leaves the process so many descriptors more than it has open. Answers its limit until then, as `SOFT:HARD`.
    ///
    /// # Errors
    /// Why that cannot be.
    pub fn few_descriptors(&self, more: usize) -> Result<String, String> {
        let pid = self.pid();
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).map_err(|e| e.to_string())?.count();
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).map_err(|e| e.to_string())?;
        let line = limits.lines().find(|l| l.starts_with("Max open files")).ok_or("no limit")?;
        let mut numbers = line.split_whitespace().skip(3);
        let (soft, hard) = (numbers.next().unwrap_or("1024"), numbers.next().unwrap_or("1024"));
        self.limit_descriptors(&format!("{}:{hard}", open + more))?;
        Ok(format!("{soft}:{hard}"))
    }

    /// Sets the limit of its descriptors, `SOFT:HARD`.
    ///
    /// # Errors
    /// Why that cannot be.
    pub fn limit_descriptors(&self, limit: &str) -> Result<(), String> {
        let (pid, limit) = (self.pid().to_string(), format!("--nofile={limit}"));
        let ran = Command::new("prlimit").args(["--pid", &pid, &limit]).output();
        let ran = ran.map_err(|e| format!("prlimit does not run: {e}"))?;
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        if ran.status.success() { Ok(()) } else { Err(format!("prlimit: {said}")) }
    }

    /// Resident memory, KiB (`VmRSS`).
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS is there");
        line.trim().trim_end_matches(" kB").parse().expect("VmRSS is a number of kB")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the end of the log of {}:\n{}", self.name, self.log.tail(60));
        }
    }
}

/// Sends a signal by name (`STOP`, `CONT`, `TERM` …) to a process that the test started.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
    assert!(sent.is_ok_and(|s| s.success()), "SIG{name} cannot be sent to {pid}");
}

/// Where the manager sends someone: the answer of its pairing API.
#[derive(Clone, Debug)]
pub struct Place {
    /// Host of the node.
    pub server: String,
    /// `rtmp://…` of the stream there.
    pub rtmp: String,
    /// `rtsp://…` of the stream there.
    pub rtsp: String,
    /// `rtsps://…` of the stream there.
    pub rtsps: String,
    /// WHIP endpoint of the stream there.
    pub whip: String,
    /// WHEP endpoint of the stream there.
    pub whep: String,
}

/// Manager, origin and edge: three processes on the hosts 1, 2 and 3 of one network.
#[derive(Debug)]
pub struct Cluster {
    /// Host 1.
    pub manager: Node,
    /// Host 2.
    pub origin: Node,
    /// Host 3.
    pub edge: Node,
    /// The network.
    pub net: Net,
}

impl Cluster {
    /// Starts all three and waits until each is ready and the manager gives out the origin.
    pub fn start() -> Cluster {
        let net = Net::fresh();
        let manager = Node::start("m1", "manager", net.host(1), None, &[]);
        let origin = Node::start("o1", "origin", net.host(2), Some(net.host(1)), &[]);
        let edge = Node::start("e1", "edge", net.host(3), Some(net.host(1)), &[]);
        let mut cluster = Cluster { manager, origin, edge, net };
        cluster.wait_ready();
        cluster
    }

    /// Waits until all three are ready and the manager gives out the origin.
    pub fn wait_ready(&mut self) {
        for node in [&mut self.manager, &mut self.origin, &mut self.edge] {
            node.wait_http("/readyz");
        }
        let origin = self.origin.ip.to_string();
        self.wait_place("broadcast", "live/nobody-uses-this-name", |p| p.server == origin);
    }

    /// Asks the manager where to publish (`broadcast`) or play (`subscribe`) `app/name`.
    pub fn place(&self, action: &str, stream: &str) -> Result<Place, String> {
        let url = format!("/streammanager/api/4.0/event/{stream}?action={action}");
        place_of(&http::get(&self.manager.url(&url))?.ok_json()?)
    }

    /// Asks until the manager answers with a place that `wanted` likes.
    pub fn wait_place(&self, action: &str, stream: &str, wanted: impl Fn(&Place) -> bool) -> Place {
        wait::until(&format!("a place to {action} {stream}"), SETTLE, || {
            let place = self.place(action, stream)?;
            if wanted(&place) { Ok(place) } else { Err(format!("got {place:?}")) }
        })
    }

    /// Where to publish.
    pub fn publish_at(&self, stream: &str) -> Place {
        self.wait_place("broadcast", stream, |_| true)
    }

    /// Where to play; waits until the stream is known and the place is the edge.
    pub fn play_at(&self, stream: &str) -> Place {
        let edge = self.edge.ip.to_string();
        self.wait_place("subscribe", stream, |p| p.server == edge)
    }
}

fn place_of(json: &Value) -> Result<Place, String> {
    let text = |v: &Value, what: &str| {
        let text = v.as_str().filter(|t| !t.is_empty());
        text.map(str::to_owned).ok_or_else(|| format!("no {what} in {json}"))
    };
    let urls = &json["urls"];
    for what in ["name", "scope"] {
        text(&json[what], what)?;
    }
    Ok(Place {
        server: text(&json["serverAddress"], "serverAddress")?,
        rtmp: text(&urls["rtmp"], "urls.rtmp")?,
        rtsp: text(&urls["rtsp"], "urls.rtsp")?,
        rtsps: text(&urls["rtsps"], "urls.rtsps")?,
        whip: text(&urls["whip"], "urls.whip")?,
        whep: text(&urls["whep"], "urls.whep")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_place_needs_every_field_of_the_dialect() {
        let whole = json!({"name": "a", "scope": "live", "serverAddress": "127.0.0.2", "region": "r",
            "urls": {"rtmp": "rtmp://x/live/a", "rtsp": "rtsp://x:8554/live/a", "rtsps": "rtsps://x:8555/live/a",
            "whip": "http://x/whip", "whep": "http://x/whep"}});
        assert_eq!(place_of(&whole).map(|p| p.server), Ok("127.0.0.2".to_owned()));
        for missing in ["name", "scope", "serverAddress"] {
            let mut part = whole.clone();
            part[missing] = Value::Null;
            assert!(place_of(&part).is_err(), "{missing}");
        }
    }

    #[test]
    fn networks_differ_within_a_process() {
        let (x, y) = (Net::fresh(), Net::fresh());
        assert_ne!(x.host(1), y.host(1));
        assert!(x.host(1).is_loopback());
    }
}
