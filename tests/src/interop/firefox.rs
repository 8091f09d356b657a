//! A real headless Firefox, driven by WebDriver BiDi over a websocket, with sound of its own that nobody hears.
//! Source: <https://www.w3.org/TR/webdriver-bidi/>.

use super::browser::{PAGE_SCRIPT, Page};
use super::log::{Log, Mark};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tungstenite::{Message, WebSocket};

/// The longest that it may take to start, on a slow machine.
const STARTS: Duration = Duration::from_secs(60);
/// The longest that one script may take; the tests' own deadlines are shorter.
const SCRIPT: Duration = Duration::from_secs(120);

/// What differs from a profile as it comes: sound without a click, candidates of loopback, no calls home.
const PREFERENCES: &str = r#"
user_pref("remote.active-protocols", 1);
user_pref("media.autoplay.default", 0);
user_pref("media.autoplay.blocking_policy", 0);
user_pref("media.navigator.streams.fake", true);
user_pref("media.navigator.permission.disabled", true);
user_pref("media.peerconnection.ice.obfuscate_host_addresses", false);
user_pref("network.proxy.type", 0);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("services.settings.server", "http://127.0.0.1:9/");
user_pref("app.update.auto", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("toolkit.telemetry.server", "");
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.safebrowsing.downloads.remote.enabled", false);
user_pref("media.gmp-manager.updateEnabled", false);
user_pref("browser.search.update", false);
user_pref("extensions.update.enabled", false);
"#;

/// A way to a node on loopback by an address that is not: Firefox has no candidates of loopback, and pairs none with such.
/// Datagrams to it go on to the node, and what comes back goes to whoever sent.
#[derive(Debug)]
pub struct Detour {
    /// The address to be dialled in place of the node's.
    pub at: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Detour {
    /// Begins one; none on a machine that has no address but those of loopback.
    pub fn to(node: SocketAddr) -> Option<Detour> {
        // No packet is sent by this: it only asks which of its own addresses the machine would use (RFC 5737's network).
        let own =
            UdpSocket::bind("0.0.0.0:0").and_then(|s| s.connect("192.0.2.1:9").and_then(|()| s.local_addr()));
        let own = own.ok().map(|a| a.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())?;
        let outside = UdpSocket::bind((own, 0)).ok()?;
        let at = outside.local_addr().ok()?;
        let over = Arc::new(AtomicBool::new(false));
        let ended = over.clone();
        std::thread::spawn(move || detour(&Arc::new(outside), node, &ended));
        Some(Detour { at, over })
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// How often a thread of a detour looks whether it is over.
const LOOK: Duration = Duration::from_millis(500);

fn detour(outside: &Arc<UdpSocket>, node: SocketAddr, over: &Arc<AtomicBool>) {
    let mut clients: Vec<(SocketAddr, Arc<UdpSocket>)> = Vec::new();
    let mut datagram = [0; 2048];
    if outside.set_read_timeout(Some(LOOK)).is_err() {
        return;
    }
    while !over.load(Ordering::Relaxed) {
        let Ok((len, from)) = outside.recv_from(&mut datagram) else { continue };
        if !clients.iter().any(|c| c.0 == from) {
            // From an address that is not of loopback either: the node tells Firefox which it saw.
            let Ok(inside) = outside.local_addr().and_then(|own| UdpSocket::bind((own.ip(), 0))) else {
                return;
            };
            if inside.connect(node).and_then(|()| inside.set_read_timeout(Some(LOOK))).is_err() {
                return;
            }
            let inside = Arc::new(inside);
            clients.push((from, inside.clone()));
            let (outside, over) = (outside.clone(), over.clone());
            std::thread::spawn(move || {
                let mut datagram = [0; 2048];
                while !over.load(Ordering::Relaxed) {
                    if let Ok(len) = inside.recv(&mut datagram) {
                        drop(outside.send_to(&datagram[..len], from));
                    }
                }
            });
        }
        if let Some((_, inside)) = clients.iter().find(|c| c.0 == from) {
            drop(inside.send(&datagram[..len]));
        }
    }
}

/// A Firefox with one tab. It ends with its profile and its sound server when this is dropped.
#[derive(Debug)]
pub struct Firefox {
    /// What it says.
    pub log: Log,
    firefox: Child,
    sound: Child,
    home: PathBuf,
    socket: RefCell<(WebSocket<TcpStream>, u64)>,
    tab: String,
}

fn spawn(command: &mut Command, log: &Log, what: &str) -> Child {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{what} is not installed; run ./check ({e})"));
    log.capture(child.stdout.take().expect("stdout is piped"));
    log.capture(child.stderr.take().expect("stderr is piped"));
    child
}

impl Firefox {
    /// Starts a sound server and a Firefox. Panics with what to install if one is missing.
    pub fn start() -> Firefox {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let home = std::env::temp_dir().join(format!("headwater-firefox-{}-{number}", std::process::id()));
        let profile = home.join("profile");
        std::fs::create_dir_all(&profile).expect("a directory for temporary files");
        std::fs::write(profile.join("user.js"), PREFERENCES).expect("the profile is ours");
        let log = Log::default();
        let pulse = home.join("sound");
        let sound = spawn(
            Command::new("pulseaudio")
                .args(["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"])
                .arg("--load=module-null-sink")
                .arg(format!(
                    "--load=module-native-protocol-unix auth-anonymous=1 socket={}",
                    pulse.display()
                ))
                .env("HOME", &home)
                .env("XDG_RUNTIME_DIR", &home)
                .env("PULSE_STATE_PATH", &home),
            &log,
            "pulseaudio",
        );
        let firefox = spawn(
            Command::new("firefox")
                .args(["--headless", "--no-remote", "--remote-debugging-port", "0", "--profile"])
                .arg(&profile)
                .arg("about:blank")
                .env("HOME", &home)
                .env("MOZ_CRASHREPORTER_DISABLE", "1")
                .env("PULSE_SERVER", format!("unix:{}", pulse.display())),
            &log,
            "firefox",
        );
        let words = "WebDriver BiDi listening on ws://";
        let line = log.wait(Mark::default(), STARTS, |l| l.contains(words));
        let line = line.unwrap_or_else(|| panic!("Firefox does not start:\n{}", log.tail(20)));
        let at = line.split_once(words).map(|(_, at)| at.trim().to_owned()).expect("the line has the words");
        let stream = TcpStream::connect(&at).unwrap_or_else(|e| panic!("Firefox at {at}: {e}"));
        stream.set_read_timeout(Some(SCRIPT + Duration::from_secs(10))).expect("a socket has timeouts");
        let (socket, _) = tungstenite::client(format!("ws://{at}/session"), stream)
            .unwrap_or_else(|e| panic!("Firefox takes no websocket at {at}: {e}"));
        let mut this =
            Firefox { log, firefox, sound, home, socket: RefCell::new((socket, 0)), tab: String::new() };
        let started = this.ask("session.new", &json!({"capabilities": {}}));
        started.unwrap_or_else(|e| panic!("Firefox gives no session: {e}"));
        let tree = this.ask("browsingContext.getTree", &json!({})).expect("Firefox tells its tabs");
        this.tab = tree["contexts"][0]["context"].as_str().expect("one tab").to_owned();
        this
    }

    /// Says a command and waits for its answer.
    fn ask(&self, method: &str, params: &Value) -> Result<Value, String> {
        let (socket, count) = &mut *self.socket.borrow_mut();
        *count += 1;
        let said = json!({"id": *count, "method": method, "params": params}).to_string();
        socket.send(Message::text(said)).map_err(|e| e.to_string())?;
        loop {
            let Message::Text(text) = socket.read().map_err(|e| format!("{method}: {e}"))? else { continue };
            let mut got: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
            if got["id"] != *count {
                continue;
            }
            return match got["type"].as_str() {
                Some("success") => Ok(got["result"].take()),
                _ => Err(format!("{}: {}", got["error"], got["message"])),
            };
        }
    }
}

impl Page for Firefox {
    fn open(&self, url: &str) {
        let asked = json!({"context": self.tab, "url": url, "wait": "complete"});
        self.ask("browsingContext.navigate", &asked).unwrap_or_else(|e| panic!("{url} does not open: {e}"));
        self.eval(&format!("{PAGE_SCRIPT}; return true;"));
        // Only a page that may use a microphone has candidates without mDNS names.
        self.eval("hw.microphone = await navigator.mediaDevices.getUserMedia({audio: true}); return true;");
    }

    fn try_eval(&self, body: &str) -> Result<Value, String> {
        let script = format!(
            "(async () => {{ {body} }})().then(
                 value => JSON.stringify({{value: value === undefined ? null : value}}),
                 error => JSON.stringify({{error: String(error) + ' ' + (error && error.stack || '')}}))"
        );
        let asked = json!({"expression": script, "target": {"context": self.tab}, "awaitPromise": true,
            "userActivation": true});
        let got = self.ask("script.evaluate", &asked)?;
        let text = got["result"]["value"].as_str().ok_or_else(|| got.to_string())?;
        let mut got: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match got["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(got["value"].take()),
        }
    }
}

impl Drop for Firefox {
    fn drop(&mut self) {
        for child in [&mut self.firefox, &mut self.sound] {
            drop(child.kill());
            drop(child.wait());
        }
        drop(std::fs::remove_dir_all(&self.home));
        if std::thread::panicking() {
            eprintln!("--- the end of Firefox:\n{}", self.log.tail(20));
        }
    }
}
