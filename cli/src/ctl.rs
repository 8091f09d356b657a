//! `headwater ctl`: asks a running node over its HTTP API and prints what it says.

use serde_json::Value;
use std::io;
use std::time::Duration;

/// One column of a table: its heading, the field, and how the field is shown.
type Column = (&'static str, &'static str, fn(&Value) -> String);

/// A list that a node can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    /// Nodes of the cluster.
    Nodes,
    /// Streams.
    Streams,
    /// Sessions.
    Sessions,
    /// Websockets that are proxied to other nodes.
    Proxies,
    /// Streams that are pulled from other servers.
    Sources,
    /// Servers that streams are pushed to.
    Destinations,
}

impl List {
    const fn name(self) -> &'static str {
        match self {
            List::Nodes => "nodes",
            List::Streams => "streams",
            List::Sessions => "sessions",
            List::Proxies => "proxies",
            List::Sources => "sources",
            List::Destinations => "destinations",
        }
    }

    const fn columns(self) -> &'static [Column] {
        match self {
            List::Nodes => &[
                ("NODE", "id", plain),
                ("ROLES", "roles", plain),
                ("REGION", "region", plain),
                ("ADDRESS", "address", plain),
                ("STATE", "state", plain),
                ("LOAD", "load", percent),
                ("SESSIONS", "sessions", plain),
                ("STREAMS", "streams", plain),
                ("VERSION", "version", plain),
            ],
            List::Streams => &[
                ("STREAM", "key", plain),
                ("STATE", "state", plain),
                ("ORIGIN", "origin", plain),
                ("SOURCE", "source", plain),
                ("VIEWERS", "viewers", plain),
                ("TRACKS", "tracks", tracks),
                ("KBIT/S", "bitrate_kbps", plain),
                ("UP", "uptime_s", duration),
                ("EPOCH", "epoch", plain),
                ("NOTICES", "notices", plain),
            ],
            List::Sessions => &[
                ("SESSION", "id", plain),
                ("PROTOCOL", "protocol", plain),
                ("ROLE", "role", plain),
                ("STREAM", "stream", plain),
                ("REMOTE", "remote", plain),
                ("STATE", "state", plain),
                ("AGE", "age_s", duration),
                ("IN", "bytes_in", bytes),
                ("OUT", "bytes_out", bytes),
                ("RTT ms", "rtt_ms", tenths),
                ("LOSS", "loss", percent),
                ("SRTP", "srtp", plain),
            ],
            List::Sources => &[
                ("STREAM", "stream", plain),
                ("URL", "url", plain),
                ("WHEN", "when", plain),
                ("STATE", "state", plain),
                ("FOR", "since_s", duration),
                ("SESSION", "session", plain),
                ("TRIES", "tries", plain),
                ("WORKED", "worked", plain),
                ("NEXT s", "next_try_s", tenths),
                ("REASON", "reason", plain),
            ],
            List::Destinations => &[
                ("STREAM", "stream", plain),
                ("URL", "url", plain),
                ("STATE", "state", plain),
                ("FOR", "since_s", duration),
                ("SESSION", "session", plain),
                ("TRIES", "tries", plain),
                ("WORKED", "worked", plain),
                ("NEXT s", "next_try_s", tenths),
                ("REASON", "reason", plain),
            ],
            List::Proxies => &[
                ("PROXY", "id", plain),
                ("STREAM", "stream", plain),
                ("REMOTE", "remote", plain),
                ("NODE", "node", plain),
                ("TARGET", "target", plain),
                ("STATE", "state", plain),
                ("AGE", "age_s", duration),
            ],
        }
    }
}

/// The text that answers for a list: a table for people, or the node's JSON.
///
/// # Errors
/// A sentence that says why there is no answer and what to do.
pub(crate) fn list(url: &str, what: List, json: bool) -> Result<String, String> {
    let text = call(url, "GET", &format!("/api/v1/{}", what.name()))?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|e| format!("what answers at {url} is no headwater node: its answer is no JSON ({e})"))?;
    if json {
        return serde_json::to_string_pretty(&value).map(|s| s + "\n").map_err(|e| e.to_string());
    }
    let rows = match &value {
        Value::Array(rows) => Some(rows),
        // The API wraps each list into an object, so that it can grow.
        other => other.get(what.name()).and_then(Value::as_array),
    };
    let rows = rows.ok_or_else(|| {
        format!("what answers at {url} is no headwater node: there is no list of {}", what.name())
    })?;
    Ok(if rows.is_empty() { format!("no {}\n", what.name()) } else { table(what.columns(), rows) })
}

/// Ends a session.
///
/// # Errors
/// As [`list`].
pub(crate) fn kick(url: &str, session: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if session.is_empty() || !session.chars().all(fits) {
        return Err(format!(
            "{session:?} is no session; `headwater ctl sessions` lists them, such as rtmp-12"
        ));
    }
    call(url, "DELETE", &format!("/api/v1/sessions/{session}"))?;
    Ok(format!("{session} was ended\n"))
}

/// What a node says in words about a stream or a session.
///
/// # Errors
/// As [`list`].
pub(crate) fn words(url: &str, what: &str, name: &str, json: bool) -> Result<String, String> {
    let text = call(url, "GET", &format!("/api/v1/{what}/{}", segment(name)?))?;
    if json {
        return Ok(text + "\n");
    }
    let value: Value = serde_json::from_str(&text)
        .map_err(|e| format!("what answers at {url} is no headwater node: its answer is no JSON ({e})"))?;
    let lines = value.get("words").and_then(Value::as_array);
    let lines =
        lines.ok_or_else(|| format!("what answers at {url} is no headwater node: it has no words"))?;
    Ok(lines.iter().map(|line| clean(&plain(line)) + "\n").collect())
}

/// Lets a node take nothing new, or take it again.
///
/// # Errors
/// As [`list`].
pub(crate) fn drain(
    url: &str,
    node: &str,
    within: Option<u64>,
    stop: bool,
    undo: bool,
) -> Result<String, String> {
    let path = format!("/api/v1/nodes/{}/drain", segment(node)?);
    if undo {
        call(url, "DELETE", &path)?;
        return Ok(format!("{node} is back in service\n"));
    }
    call(url, "PUT", &format!("{path}?within_s={}&stop={stop}", within.unwrap_or(0)))?;
    let rest = match (within, stop) {
        (_, true) => "and ends when its sessions have, or when limits.drain_ms is over".to_owned(),
        (Some(s), false) => format!("and what still runs there is ended after {s} s"),
        (None, false) => "and what runs there stays; `headwater ctl nodes` shows when it is empty".to_owned(),
    };
    Ok(format!("{node} takes nothing new, {rest}\n"))
}

/// Has a stream pulled to edges before its viewers come.
///
/// # Errors
/// As [`list`].
pub(crate) fn warm(url: &str, stream: &str, edges: u32, seconds: u64) -> Result<String, String> {
    let text =
        call(url, "PUT", &format!("/api/v1/warm/{}?edges={edges}&seconds={seconds}", segment(stream)?))?;
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    let named = value.get("edges").map(plain).unwrap_or_default();
    Ok(format!("{stream} is pulled to {} and stays there for {seconds} s without viewers\n", clean(&named)))
}

/// Has a node make a token.
///
/// # Errors
/// As [`list`].
pub(crate) fn token(url: &str, wish: &TokenWish<'_>, json: bool) -> Result<String, String> {
    let mut query = format!("action={}&ttl_s={}", escaped(wish.action), wish.ttl.as_secs());
    for (name, value) in [("stream", wish.stream), ("name", wish.name), ("ip", wish.ip)] {
        if let Some(value) = value {
            query.push_str(&format!("&{name}={}", escaped(value)));
        }
    }
    let text = call(url, "POST", &format!("/api/v1/tokens?{query}"))?;
    if json {
        return Ok(text + "\n");
    }
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    let said = |field: &str| value.get(field).map(plain).unwrap_or_default();
    if value.get("everywhere").and_then(Value::as_bool) == Some(false) {
        // Beside the token, so that a script gets the token alone.
        eprintln!(
            "this token is good at {url} until that node ends; for the whole cluster, and longer, set auth.secret or \
             cluster.key"
        );
    }
    eprintln!("id {} (for `headwater ctl revoke`)", clean(&said("id")));
    Ok(format!("{}\n", clean(&said("token"))))
}

/// What a token is to be good for.
pub(crate) struct TokenWish<'a> {
    pub(crate) action: &'a str,
    pub(crate) stream: Option<&'a str>,
    pub(crate) name: Option<&'a str>,
    pub(crate) ip: Option<&'a str>,
    pub(crate) ttl: Duration,
}

/// Has a node refuse a token, or all of a user, token subject or publish key.
///
/// # Errors
/// As [`list`].
pub(crate) fn revoke(url: &str, name: &str) -> Result<String, String> {
    let text = call(url, "PUT", &format!("/api/v1/revoked/{}", escaped(name)))?;
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    let ended = value.get("ended").map(plain).unwrap_or_default();
    let others = match value.get("everywhere") {
        Some(Value::Bool(true)) => "the others are told",
        _ => "the others are told once its manager is reachable: until then it is refused at that node alone",
    };
    Ok(format!(
        "{name} is refused from now on; {} sessions of that node ended, and {others}\n",
        clean(&ended)
    ))
}

/// A text as it may stand in a path or query.
fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The environment variable with a token for nodes that want one.
pub(crate) const TOKEN_VARIABLE: &str = "HEADWATER_TOKEN";

/// A name as it may stand in a path.
fn segment(name: &str) -> Result<&str, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.~/[]:".contains(c);
    if name.is_empty() || !name.chars().all(fits) {
        return Err(format!("{name:?} is no name of a stream, session or node"));
    }
    Ok(name)
}

fn call(url: &str, method: &str, path: &str) -> Result<String, String> {
    let base = url.trim_end_matches('/');
    if !base.starts_with("http://") {
        return Err(format!(
            "--url {url}: must begin with http:// and name a node, such as http://127.0.0.1:5080"
        ));
    }
    // A proxy of the environment would be asked for an address that only this host knows.
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .build(),
    );
    let address = format!("{base}{path}");
    let token = std::env::var(TOKEN_VARIABLE).ok().filter(|t| !t.is_empty()).map(|t| format!("Bearer {t}"));
    let without = |r: ureq::RequestBuilder<_>| match &token {
        Some(token) => r.header("Authorization", token),
        None => r,
    };
    let with = |r: ureq::RequestBuilder<_>| match &token {
        Some(token) => r.header("Authorization", token),
        None => r,
    };
    let sent = match method {
        "DELETE" => without(agent.delete(&address)).call(),
        "PUT" => with(agent.put(&address)).send_empty(),
        "POST" => with(agent.post(&address)).send_empty(),
        _ => without(agent.get(&address)).call(),
    };
    let mut response = sent.map_err(|e| unreachable(base, &e))?;
    let status = response.status();
    let body = response.body_mut().read_to_string().map_err(|e| unreachable(base, &e))?;
    if status.is_success() {
        return Ok(body);
    }
    let said = serde_json::from_str::<Value>(&body).ok();
    let said = said
        .as_ref()
        .and_then(|v| ["error", "errorMessage", "message"].iter().find_map(|k| v.get(k)?.as_str()));
    let said = said.unwrap_or_else(|| body.lines().next().unwrap_or_default());
    Err(format!("the node at {base} answered {} to {method} {path}: {}", status.as_u16(), clean(said)))
}

fn unreachable(base: &str, error: &ureq::Error) -> String {
    let why = match error {
        ureq::Error::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ureq::Error::Io(e) => e.to_string(),
        ureq::Error::HostNotFound => "no such host".to_owned(),
        ureq::Error::Timeout(_) => "no answer within 10 seconds".to_owned(),
        other => other.to_string(),
    };
    format!("no node answers at {base}: {why}; is `headwater serve` running? use --url")
}

fn table(columns: &[Column], rows: &[Value]) -> String {
    let mut lines = vec![columns.iter().map(|(heading, ..)| (*heading).to_owned()).collect::<Vec<_>>()];
    for row in rows {
        let cell = |(_, field, show): &Column| match row.get(field) {
            None | Some(Value::Null) => "-".to_owned(),
            Some(value) => {
                Some(clean(&show(value))).filter(|s| !s.is_empty()).unwrap_or_else(|| "-".to_owned())
            }
        };
        lines.push(columns.iter().map(cell).collect());
    }
    let width =
        |i: usize| lines.iter().filter_map(|l| l.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A node's text without control characters: a stream or peer could try to paint on the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items
                .iter()
                .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
                .collect();
            items.join(",")
        }
        other => other.to_string(),
    }
}

fn tracks(value: &Value) -> String {
    let Some(items) = value.as_array() else { return plain(value) };
    let one = |track: &Value| {
        let codec = track.get("codec").map_or_else(|| plain(track), plain);
        match (track.get("width").and_then(Value::as_u64), track.get("height").and_then(Value::as_u64)) {
            (Some(w), Some(h)) => format!("{codec} {w}x{h}"),
            _ => codec,
        }
    };
    items.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or_else(|| plain(value), |share| format!("{:.1}%", share * 100.0))
}

fn tenths(value: &Value) -> String {
    value.as_f64().map_or_else(|| plain(value), |n| format!("{n:.1}"))
}

fn bytes(value: &Value) -> String {
    let Some(n) = value.as_f64() else { return plain(value) };
    match n {
        n if n < 1e3 => format!("{n:.0} B"),
        n if n < 1e6 => format!("{:.1} kB", n / 1e3),
        n if n < 1e9 => format!("{:.1} MB", n / 1e6),
        n => format!("{:.1} GB", n / 1e9),
    }
}

fn duration(value: &Value) -> String {
    let Some(s) = value.as_f64().map(|s| s as u64) else { return plain(value) };
    match s {
        0..60 => format!("{s}s"),
        60..3_600 => format!("{}m{:02}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h{:02}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    /// Answers one request and gives back the request's first line.
    fn node(answer: &'static str) -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = thread::spawn(move || {
            let (mut conn, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                let mut chunk = [0; 1024];
                let n = conn.read(&mut chunk).unwrap();
                head.extend_from_slice(&chunk[..n]);
            }
            conn.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(head).unwrap().lines().next().unwrap().to_owned()
        });
        (url, served)
    }

    #[test]
    fn lists_are_tables_with_what_is_there() {
        let (url, served) = node(
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"sessions\":[\
             {\"id\":\"rtmp-12\",\"protocol\":\"rtmp\",\"role\":\"publish\",\"stream\":\"live/\\u001b[31mdemo\",\
             \"age_s\":75,\"bytes_in\":1234567,\"bytes_out\":10,\"loss\":0.015,\"rtt_ms\":null,\"srtp\":\"SRTP_AEAD_AES_128_GCM\"},{\"id\":\"x\"}]}",
        );
        let text = list(&url, List::Sessions, false).unwrap();
        assert_eq!(served.join().unwrap(), "GET /api/v1/sessions HTTP/1.1");
        let lines: Vec<Vec<&str>> =
            text.lines().map(|l| l.split("  ").filter(|c| !c.is_empty()).map(str::trim).collect()).collect();
        assert_eq!(lines[0][..4], ["SESSION", "PROTOCOL", "ROLE", "STREAM"]);
        assert_eq!(
            lines[1],
            [
                "rtmp-12",
                "rtmp",
                "publish",
                "live/?[31mdemo",
                "-",
                "-",
                "1m15s",
                "1.2 MB",
                "10 B",
                "-",
                "1.5%",
                "SRTP_AEAD_AES_128_GCM"
            ]
        );
        assert_eq!(lines[2][..2], ["x", "-"]);
        let starts: Vec<Option<usize>> =
            text.lines().map(|l| l.find("rtmp  ").or(l.find("PROTOCOL"))).collect();
        assert_eq!(starts[0], starts[1], "columns are aligned");
    }

    #[test]
    fn bare_arrays_and_tracks_are_understood_and_json_is_passed_on() {
        let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[{\"key\":\"live/demo\",\"tracks\":[\
                      {\"codec\":\"H.264\",\"width\":960,\"height\":540},{\"codec\":\"Opus\"}]}]";
        let text = list(&node(answer).0, List::Streams, false).unwrap();
        assert!(text.contains("H.264 960x540, Opus"), "{text}");
        let json = list(&node(answer).0, List::Streams, true).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap()[0]["key"], "live/demo");
        let none = node("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"nodes\":[]}").0;
        assert_eq!(list(&none, List::Nodes, false).unwrap(), "no nodes\n");
    }

    #[test]
    fn nobody_there_is_said_with_a_remedy() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(
            list(&format!("http://{free}/"), List::Nodes, false).unwrap_err(),
            format!(
                "no node answers at http://{free}: connection refused; is `headwater serve` running? use --url"
            )
        );
        assert!(list("127.0.0.1:5080", List::Nodes, false).unwrap_err().contains("must begin with http://"));
    }

    #[test]
    fn a_refusal_is_quoted() {
        let (url, served) = node(
            "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n{\"error\":\"there is no session rtmp-9\"}",
        );
        let error = kick(&url, "rtmp-9").unwrap_err();
        assert_eq!(served.join().unwrap(), "DELETE /api/v1/sessions/rtmp-9 HTTP/1.1");
        assert!(
            error.ends_with("answered 404 to DELETE /api/v1/sessions/rtmp-9: there is no session rtmp-9"),
            "{error}"
        );
        assert!(kick(&url, "../nodes").unwrap_err().contains("is no session"));
    }

    #[test]
    fn something_else_on_the_port_is_recognised() {
        let other = node("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html>").0;
        assert!(list(&other, List::Nodes, false).unwrap_err().contains("is no headwater node"));
    }
}
