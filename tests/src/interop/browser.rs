//! A real headless Chromium, driven through chromedriver by a very small W3C WebDriver client.
//! Source: <https://www.w3.org/TR/webdriver2/>.

use super::http;
use super::log::{Log, Mark};
use super::wait;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The longest that one script or page may take; the tests' own deadlines are shorter.
const SCRIPT: Duration = Duration::from_secs(120);

/// The functions that scripts in a page can use as `hw.…`.
pub(super) const PAGE_SCRIPT: &str = include_str!("js/page.js");
/// The functions of the websocket dialect, `hw.ws.…`.
const DIALECT_SCRIPT: &str = include_str!("js/dialect.js");

/// A page of some browser, in which scripts run.
pub trait Page {
    /// Opens a URL and puts the functions of `js/page.js` into it.
    fn open(&self, url: &str);

    /// Runs the body of an async function in the page and answers what it returns, or what it threw.
    ///
    /// # Errors
    /// What it threw.
    fn try_eval(&self, body: &str) -> Result<Value, String>;

    /// As [`Page::try_eval`]; a throw in the page is a panic here.
    fn eval(&self, body: &str) -> Value {
        self.try_eval(body).unwrap_or_else(|e| panic!("in the page: {e}\nscript: {body:.300}"))
    }
}

impl Page for Browser {
    fn open(&self, url: &str) {
        Browser::open(self, url);
    }

    fn try_eval(&self, body: &str) -> Result<Value, String> {
        Browser::try_eval(self, body)
    }
}

/// A Chromium with one window. It ends with its profile when this is dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    base: String,
    session: String,
    profile: PathBuf,
    log: Log,
}

fn first_that_exists(candidates: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |name: &&str| std::env::split_paths(&path).map(|d| d.join(name)).find(|p| p.is_file());
    candidates.iter().find_map(found)
}

impl Browser {
    /// Starts chromedriver and a Chromium. Panics with what to install if one is missing.
    pub fn start() -> Browser {
        Browser::with(&[])
    }

    /// As [`Browser::start`], one that takes every certificate.
    pub fn trusting() -> Browser {
        Browser::with(&["--ignore-certificate-errors"])
    }

    fn with(more: &[&str]) -> Browser {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let driver =
            first_that_exists(&["chromedriver"]).expect("chromedriver is not installed; run ./check");
        let chromium = first_that_exists(&["chromium", "chromium-browser", "google-chrome"])
            .expect("chromium is not installed; run ./check");
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let profile =
            std::env::temp_dir().join(format!("headwater-chromium-{}-{number}", std::process::id()));
        let log = Log::default();
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("chromedriver starts");
        log.capture(driver.stdout.take().expect("stdout is piped"));
        log.capture(driver.stderr.take().expect("stderr is piped"));
        let started = |l: &str| l.contains("started successfully on port");
        let line = log.wait(Mark::default(), Duration::from_secs(30), started);
        let line = line.unwrap_or_else(|| panic!("chromedriver named no port:\n{}", log.tail(20)));
        let port: u16 = line
            .rsplit_once("port ")
            .and_then(|(_, p)| p.trim_end_matches('.').trim().parse().ok())
            .unwrap_or_else(|| panic!("no port in {line:?}"));
        let mut browser = Browser {
            driver,
            base: format!("http://127.0.0.1:{port}"),
            session: String::new(),
            profile,
            log,
        };
        browser.open_session(&chromium, more);
        browser
    }

    fn open_session(&mut self, chromium: &Path, more: &[&str]) {
        let mut args = json!([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--no-proxy-server",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--autoplay-policy=no-user-gesture-required",
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
            "--allow-loopback-in-peer-connection",
            "--window-size=800,600",
            format!("--user-data-dir={}", self.profile.display()),
        ]);
        if let Value::Array(args) = &mut args {
            args.extend(more.iter().map(|&arg| Value::from(arg)));
        }
        let asked = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "timeouts": {"script": SCRIPT.as_millis() as u64, "pageLoad": 30_000},
            "goog:chromeOptions": {"args": args, "binary": chromium.to_string_lossy()},
        }}});
        let got = self.post("/session", &asked).unwrap_or_else(|e| {
            panic!("Chromium did not start: {e}\n{}", self.log.tail(30));
        });
        self.session = got["sessionId"].as_str().expect("a session id").to_owned();
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}{path}", self.base);
        let within = SCRIPT + Duration::from_secs(10);
        let got = http::post(&url, "application/json; charset=utf-8", &body.to_string(), within)?;
        let value = got.json()?["value"].take();
        if got.status == 200 {
            return Ok(value);
        }
        Err(format!(
            "{}: {}",
            value["error"].as_str().unwrap_or("?"),
            value["message"].as_str().unwrap_or("?")
        ))
    }

    /// Opens a page and puts the functions of `js/page.js` into it.
    pub fn open(&self, url: &str) {
        self.visit(url);
        self.eval(&format!("{PAGE_SCRIPT}; return true;"));
    }

    /// As [`Browser::open`], with a client of the websocket dialect as well.
    pub fn open_dialect(&self, url: &str) {
        self.visit(url);
        self.eval(&format!("{PAGE_SCRIPT}; {DIALECT_SCRIPT}; return true;"));
    }

    /// Opens a page and leaves it as it is.
    pub fn visit(&self, url: &str) {
        let path = format!("/session/{}/url", self.session);
        let mut opened = self.post(&path, &json!({"url": url}));
        // Said of Chromium's own process for the page, which on a busy machine was not there after half a minute.
        if opened.as_ref().is_err_and(|e| e.contains("Timed out receiving message from renderer")) {
            opened = self.post(&path, &json!({"url": url}));
        }
        opened.unwrap_or_else(|e| panic!("{url} does not open: {e}"));
    }

    /// Runs the body of an async function in the page and answers what it returns, or what it threw.
    pub fn try_eval(&self, body: &str) -> Result<Value, String> {
        let script = format!(
            "const done = arguments[arguments.length - 1];
             (async () => {{ {body} }})().then(
                 value => done({{value: value === undefined ? null : value}}),
                 error => done({{error: String(error && error.stack || error)}}));"
        );
        let path = format!("/session/{}/execute/async", self.session);
        let mut got = self.post(&path, &json!({"script": script, "args": []}))?;
        match got["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(got["value"].take()),
        }
    }

    /// As [`Browser::try_eval`]; a throw in the page is a panic here.
    pub fn eval(&self, body: &str) -> Value {
        self.try_eval(body).unwrap_or_else(|e| panic!("in the page: {e}\nscript: {body:.300}"))
    }

    /// Waits until a page of ours says these words of its state.
    ///
    /// # Panics
    /// If it does not within a minute.
    pub fn wait_state(&self, words: &str) {
        wait::until(&format!("the page to say {words}"), Duration::from_secs(60), || {
            let said = self.eval("return document.getElementById('state').textContent");
            if said.as_str().is_some_and(|s| s.contains(words)) { Ok(()) } else { Err(said.to_string()) }
        });
    }

    /// What is to be seen now, as a PNG in base64 (for a person who looks at a failure).
    pub fn screenshot(&self) -> Result<String, String> {
        let url = format!("{}/session/{}/screenshot", self.base, self.session);
        let got = http::get(&url)?.ok_json()?;
        got["value"].as_str().map(str::to_owned).ok_or_else(|| "no picture".to_owned())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            drop(http::delete(&format!("{}/session/{}", self.base, self.session)));
        }
        drop(self.driver.kill());
        drop(self.driver.wait());
        drop(std::fs::remove_dir_all(&self.profile));
    }
}
