//! Imports of `proto-core` point one way: wire → machines → hub, cluster → node.

use super::Problem;
use super::text::{code_only, line_of, without_tests};

/// What all modules may use.
const BASE: [&str; 15] = [
    "machine",
    "time",
    "table",
    "few",
    "trace",
    "rand",
    "limits",
    "simulation",
    "error",
    "buf",
    "ids",
    "io",
    "bridge",
    "guard",
    "auth",
];

/// What each room may use beside [`BASE`] and itself. An entry with `::` opens only that part of a room.
const ROOMS: [(&str, &[&str]); 15] = [
    // Questions and answers about sound name codecs.
    ("bridge", &["media"]),
    // Rules are about streams; the callback and key sets have addresses.
    ("auth", &["media::key", "http::url"]),
    ("wire", &["media"]),
    ("media", &["wire"]),
    ("rtmp", &["wire", "media", "hub::delivery"]),
    ("rtsp", &["wire", "media", "hub::delivery"]),
    ("rtc", &["wire", "media", "hub::delivery"]),
    ("http", &["wire", "media", "hub::delivery"]),
    // Refusals have the statuses that HTTP has for them.
    ("signalling", &["wire", "http::whip"]),
    ("tls", &[]),
    ("hub", &["wire", "media"]),
    // QUIC has TLS in it.
    ("cluster", &["wire", "media", "hub", "tls"]),
    ("node", &["wire", "media", "rtmp", "rtsp", "rtc", "http", "signalling", "tls", "hub", "cluster"]),
    // What a node is made of, not the node: any machine of its shape can be recorded.
    ("recording", &["node::config"]),
    (
        "lib",
        &[
            "wire",
            "media",
            "rtmp",
            "rtsp",
            "rtc",
            "http",
            "signalling",
            "tls",
            "hub",
            "cluster",
            "node",
            "recording",
        ],
    ),
];

/// Checks every path of one file of `proto-core/src` (outside tests) against the rooms.
pub fn one_way(path: &str, text: &str) -> Vec<Problem> {
    let Some(module) = path.strip_prefix("proto-core/src/").and_then(|p| p.strip_suffix(".rs")) else {
        return Vec::new();
    };
    let module: Vec<&str> = module.strip_suffix("/mod").unwrap_or(module).split('/').collect();
    let room = module[0];
    let open: &[&str] = match ROOMS.iter().find(|(name, _)| *name == room) {
        Some((_, open)) => open,
        None if BASE.contains(&room) => &[],
        None => {
            return vec![Problem::new(
                path,
                1,
                format!("{room} is not in the list of rooms: add it with its imports"),
            )];
        }
    };
    let code = without_tests(&code_only(text));
    let mut problems = Vec::new();
    for (at, used) in paths(&code, &module) {
        let name = used.split("::").next().unwrap_or_default();
        let fits =
            |o: &&str| used == **o || used.starts_with(&format!("{o}::")) || (used == name && *name == **o);
        if name != room && !BASE.contains(&name) && !open.iter().any(fits) && is_room(name) {
            let text = format!("{room} must not use {used}: imports point down the map of ARCHITECTURE.md");
            problems.push(Problem::new(path, line_of(&code, at), text));
        }
    }
    problems
}

fn is_room(name: &str) -> bool {
    ROOMS.iter().any(|(room, _)| *room == name)
}

/// Every path from the crate's root that stands in the code, groups spread out: (position, `hub::delivery`).
fn paths(code: &str, module: &[&str]) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    for (at, _) in super::text::words(code, "crate::").map(|(_, at)| (at, ())) {
        // `pub(in crate::x)` and `$crate::x` name paths as well; both are welcome to the same rule.
        spread(&code[at + "crate::".len()..], String::new(), &mut |p| out.push((at, p)));
    }
    let starts: Vec<usize> = super::text::words(code, "super::").map(|(_, at)| at).collect();
    for at in starts.into_iter().filter(|&at| !code[..at].ends_with("super::")) {
        let mut rest = &code[at..];
        let mut up = 0;
        while let Some(r) = rest.strip_prefix("super::") {
            (rest, up) = (r, up + 1);
        }
        let above = module.len().saturating_sub(up);
        let prefix: String = module[..above].iter().map(|m| format!("{m}::")).collect();
        spread(rest, prefix, &mut |p| out.push((at, p)));
    }
    out
}

/// Reads `a::b`, `{a, b::{c, d}}` at the start of `rest`, and gives each whole path to `found`.
fn spread(rest: &str, prefix: String, found: &mut impl FnMut(String)) {
    let mut stack = vec![prefix.clone()];
    let mut path = prefix;
    let mut grew = false;
    for c in rest.chars() {
        match c {
            '{' if path.ends_with("::") || path.is_empty() => {
                stack.push(path.clone());
                grew = false;
            }
            ',' | '}' if stack.len() > 1 => {
                if grew {
                    found(path.clone());
                }
                grew = false;
                if c == '}' {
                    stack.pop();
                    if stack.len() == 1 {
                        return;
                    }
                }
                path = stack.last().cloned().unwrap_or_default();
            }
            c if c.is_alphanumeric() || c == '_' || c == ':' => {
                path.push(c);
                grew = true;
            }
            c if c.is_whitespace() && stack.len() > 1 => {}
            _ => break,
        }
    }
    if grew {
        found(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(path: &str, text: &str) -> Vec<usize> {
        one_way(path, text).iter().map(|p| p.line).collect()
    }

    #[test]
    fn paths_are_spread_out() {
        let code = "use crate::{wire::h264, hub::{delivery::Delivery, ring}};\nuse super::super::x::y;\ncrate::time::Time::ZERO";
        let all: Vec<String> = paths(code, &["rtmp", "server", "play"]).into_iter().map(|(_, p)| p).collect();
        assert_eq!(
            all,
            ["wire::h264", "hub::delivery::Delivery", "hub::ring", "time::Time::ZERO", "rtmp::x::y"]
        );
    }

    #[test]
    fn imports_point_one_way() {
        assert_eq!(bad("proto-core/src/wire/a.rs", "use crate::limits::Limits;\nuse crate::hub::Hub;"), [2]);
        assert_eq!(
            bad("proto-core/src/rtmp/a.rs", "use crate::hub::delivery::Delivery;\nuse crate::hub::Ring;"),
            [2]
        );
        assert_eq!(bad("proto-core/src/rtmp/a.rs", "use crate::{error::Reason, http::x};"), [1]);
        assert_eq!(bad("proto-core/src/http/a.rs", "fn f() { crate::rtc::Peer::new() }"), [1]);
        assert_eq!(bad("proto-core/src/hub/mod.rs", "use super::rtc::Peer;\nuse crate::ids::Epoch;"), [1]);
        assert_eq!(bad("proto-core/src/hub/a/b.rs", "use super::super::super::node::Node;"), [1]);
        assert_eq!(
            bad("proto-core/src/node/mod.rs", "use crate::{rtmp, rtc, hub, cluster::manager};"),
            [0usize; 0]
        );
        assert_eq!(bad("proto-core/src/time.rs", "use crate::hub::Hub;"), [1]);
        assert_eq!(bad("proto-core/src/cellar/mod.rs", ""), [1]);
    }

    #[test]
    fn tests_and_comments_may_name_anything() {
        let text = "//! See crate::node::Node.\n#[cfg(test)]\nmod tests {\n use crate::node::Node;\n}";
        assert_eq!(bad("proto-core/src/wire/a.rs", text), [0usize; 0]);
    }
}
