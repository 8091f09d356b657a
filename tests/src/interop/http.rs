//! A plain HTTP client for tests: any status is an answer, no proxy, no connection outlives its request (a
//! restarted node must not be met with a stale one).

use serde_json::Value;
use std::time::Duration;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as text.
    pub body: String,
}

impl Answer {
    /// The first header line of this (lower case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value, String> {
        serde_json::from_str(&self.body).map_err(|e| format!("not JSON ({e}): {:?}", self.body))
    }

    /// The body as JSON, if the status is 200.
    pub fn ok_json(&self) -> Result<Value, String> {
        if self.status == 200 { self.json() } else { Err(format!("status {}: {}", self.status, self.body)) }
    }
}

fn agent(within: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_idle_connections(0)
        .timeout_global(Some(within))
        .build()
        .new_agent()
}

fn answer(got: Result<ureq::http::Response<ureq::Body>, ureq::Error>, url: &str) -> Result<Answer, String> {
    let mut got = got.map_err(|e| format!("{url}: {e}"))?;
    let status = got.status().as_u16();
    let text = |v: &ureq::http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    let headers = got.headers().iter().map(|(n, v)| (n.as_str().to_owned(), text(v))).collect();
    let body = got.body_mut().with_config().limit(64 << 20).lossy_utf8(true).read_to_string();
    Ok(Answer { status, headers, body: body.map_err(|e| format!("{url}: {e}"))? })
}

/// GET, waiting at most 10 s.
pub fn get(url: &str) -> Result<Answer, String> {
    answer(agent(Duration::from_secs(10)).get(url).call(), url)
}

/// POST with a content type, waiting at most `within`.
pub fn post(url: &str, content_type: &str, body: &str, within: Duration) -> Result<Answer, String> {
    answer(agent(within).post(url).header("content-type", content_type).send(body), url)
}

/// DELETE, waiting at most 10 s.
pub fn delete(url: &str) -> Result<Answer, String> {
    answer(agent(Duration::from_secs(10)).delete(url).call(), url)
}
