//! A real headless Firefox, driven by its own protocol: commands of WebDriver as JSON over TCP (Marionette).
//! Source: <https://firefox-source-docs.mozilla.org/testing/marionette/Protocol.html>.

use super::browser::PAGE_SCRIPT;
use super::wait;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Settings of its profile: a camera that is made, no questions, ICE on loopback, no word to the world.
const SETTINGS: &str = r#"
user_pref("media.navigator.streams.fake", true);
user_pref("media.navigator.permission.disabled", true);
user_pref("media.peerconnection.ice.loopback", true);
user_pref("media.peerconnection.ice.obfuscate_host_addresses", false);
user_pref("media.autoplay.default", 0);
user_pref("media.autoplay.blocking_policy", 0);
user_pref("media.gmp-manager.updateEnabled", false);
user_pref("media.gmp-manager.url", "");
user_pref("app.update.disabledForTesting", true);
user_pref("browser.startup.page", 0);
user_pref("browser.safebrowsing.downloads.enabled", false);
user_pref("browser.safebrowsing.malware.enabled", false);
user_pref("browser.safebrowsing.phishing.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("extensions.update.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("network.proxy.type", 0);
user_pref("services.settings.server", "data:,#remote-settings-dummy/v1");
user_pref("toolkit.telemetry.enabled", false);
"#;

/// A Firefox with one window. It ends with its profile when this is dropped.
#[derive(Debug)]
pub struct Firefox {
    child: Child,
    profile: PathBuf,
    wire: RefCell<(BufReader<TcpStream>, u64)>,
}

impl Firefox {
    /// Starts it. Panics with what to install if it is missing.
    pub fn start() -> Firefox {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let profile = std::env::temp_dir().join(format!("headwater-firefox-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&profile).expect("a profile can be made");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port is free");
        let settings = format!("{SETTINGS}user_pref(\"marionette.port\", {});\n", free.port());
        std::fs::write(profile.join("user.js"), settings).expect("a profile can be written");
        let names = ["firefox-esr", "firefox"];
        let path = std::env::var_os("PATH").unwrap_or_default();
        let binary = names
            .iter()
            .find_map(|name| std::env::split_paths(&path).map(|d| d.join(name)).find(|p| p.is_file()))
            .expect("Firefox is not installed; run ./check");
        let mut child = Command::new(binary)
            .args(["--headless", "--no-remote", "--marionette", "--profile"])
            .arg(&profile)
            .env("HOME", &profile)
            .env("MOZ_DISABLE_CONTENT_SANDBOX", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Firefox starts");
        let stream = wait::try_until(Duration::from_secs(60), || {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("it ended: {status}"));
            }
            TcpStream::connect(free).map_err(|e| e.to_string())
        });
        let stream = stream.unwrap_or_else(|e| panic!("Firefox takes no commands on {free}: {e}"));
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a time-out can be set");
        let firefox = Firefox { child, profile, wire: RefCell::new((BufReader::new(stream), 0)) };
        firefox.message();
        let timeouts = json!({"script": 110_000, "pageLoad": 30_000});
        firefox.command(
            "WebDriver:NewSession",
            &json!({"capabilities": {"alwaysMatch": {"timeouts": timeouts}}}),
        );
        firefox
    }

    /// One message: its length in digits, a colon, JSON.
    fn message(&self) -> Value {
        let (reader, _) = &mut *self.wire.borrow_mut();
        let mut length = Vec::new();
        reader.read_until(b':', &mut length).expect("Firefox answers");
        length.pop();
        let length = String::from_utf8_lossy(&length).parse().expect("a message has a length");
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("Firefox answers");
        serde_json::from_slice(&body).expect("a message is JSON")
    }

    fn try_command(&self, name: &str, parameters: &Value) -> Result<Value, String> {
        let number = {
            let (reader, number) = &mut *self.wire.borrow_mut();
            *number += 1;
            let text = json!([0, *number, name, parameters]).to_string();
            write!(reader.get_mut(), "{}:{text}", text.len()).map_err(|e| e.to_string())?;
            *number
        };
        let mut answer = self.message();
        assert_eq!(answer[1], json!(number), "answers come in order: {answer}");
        match answer[2]["message"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer[3].take()),
        }
    }

    fn command(&self, name: &str, parameters: &Value) -> Value {
        self.try_command(name, parameters).unwrap_or_else(|e| panic!("Firefox refuses {name}: {e}"))
    }

    /// Opens a page and puts the functions for tests into it.
    pub fn open(&self, url: &str) {
        self.command("WebDriver:Navigate", &json!({"url": url}));
        self.eval(&format!("{PAGE_SCRIPT}; return true;"));
    }

    /// Runs the body of an async function in the page and answers what it returns; a throw there is a panic here.
    pub fn eval(&self, body: &str) -> Value {
        let script = format!(
            "const done = arguments[arguments.length - 1];
             (async () => {{ {body} }})().then(
                 value => done({{value: value === undefined ? null : value}}),
                 error => done({{error: String(error) + ' ' + (error && error.stack)}}));"
        );
        // Without a sandbox, so that what one script leaves behind the next finds.
        let parameters = json!({"script": script, "args": [], "newSandbox": false, "sandbox": null});
        let mut got = self.command("WebDriver:ExecuteAsyncScript", &parameters);
        let error = got["value"]["error"].as_str().map(str::to_owned);
        assert_eq!(error, None, "in the page; script: {body:.300}");
        got["value"]["value"].take()
    }
}

impl Drop for Firefox {
    fn drop(&mut self) {
        drop(self.try_command("Marionette:Quit", &json!({"flags": ["eForceQuit"]})));
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.profile));
    }
}
