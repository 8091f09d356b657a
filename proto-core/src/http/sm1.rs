//! The stream-manager dialect's first generation: `/streammanager/api/{version}/…`. Every version has the same shape;
//! what a manager is asked and what it answers stands here, what it knows in `node/dialect.rs`.
//!
//! | path below the version | methods |
//! |---|---|
//! | `event/{scope…}/{stream}?action=broadcast\|subscribe` | GET: which node shall I go to ([`super::event`]) |
//! | `event/list`, `event/{scope…}/{stream}/stats` | GET |
//! | `admin/node`, `admin/nodegroup/{group}/node[/{role}]` | GET |
//! | `admin/node/{node}`, `admin/node/{node}/stats` | GET; DELETE on the former ends the node |
//! | `admin/node/sunset` | POST a JSON list of nodes: they take nothing new |
//! | `admin/proxy/clients`, `admin/proxy/clients/{id}` | GET; DELETE on the latter ends the websocket |
//!
//! A node is named by its address (or its name, which the dialect does not know). Provisions, launch configurations,
//! scale policies, geozones and schedules do not exist here: they are answered 501.

use super::event::EventQuery;
use super::message::{Method, Request};
use super::router::Route;
use crate::error::quote;
use crate::media::key::StreamKey;
use serde::Serialize;

/// A call other than the question for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The live streams.
    Events,
    /// One stream with its numbers.
    EventStats(StreamKey),
    /// The nodes, of one role if it is named.
    Nodes {
        /// `origin` or `edge`.
        role: Option<String>,
    },
    /// One node.
    Node(String),
    /// One node with its numbers.
    NodeStats(String),
    /// End a node's process once its sessions have ended.
    Terminate(String),
    /// Nodes are to take nothing new: the body is a JSON list of them.
    Sunset,
    /// The websockets that are proxied.
    Proxies,
    /// One of them.
    Proxy(String),
    /// End it.
    KickProxy(String),
}

impl Call {
    /// Whether it changes something and needs the right to.
    pub fn changes(&self) -> bool {
        matches!(self, Call::Terminate(_) | Call::Sunset | Call::KickProxy(_))
    }
}

/// A stream and its origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// The stream's name, without its app.
    pub name: String,
    /// Its app, with a slash before it.
    pub scope: String,
    /// Its origin's address; empty while it has none.
    #[serde(rename = "serverAddress")]
    pub server_address: String,
    /// The origin's region.
    pub region: String,
    /// The numbers, where they were asked for.
    #[serde(flatten)]
    pub stats: Option<EventStats>,
}

/// A stream's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventStats {
    /// Viewers on all nodes.
    pub current_subscribers: u64,
    /// When it was published, milliseconds since 1970.
    pub start_time: u64,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name.
    pub identifier: String,
    /// `origin` or `edge`, `manager` if it is neither; the first where it is several.
    pub role: String,
    /// All its roles (ours, not the dialect's).
    pub roles: Vec<String>,
    /// Its region.
    pub availability_zone: String,
    /// Its address.
    pub address: String,
    /// `inservice`, `sunset` (takes nothing new) or `terminated` (gone).
    pub state: String,
    /// Always `static`: nodes are started by whoever runs them.
    pub launch_config: &'static str,
    /// The most sessions that it takes.
    pub capacity: u32,
    /// Its group's name.
    pub group: String,
    /// The numbers, where they were asked for.
    #[serde(flatten)]
    pub stats: Option<NodeStats>,
}

/// A node's numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStats {
    /// Publishers and viewers on it.
    pub total_connections: u32,
    /// The addresses of the nodes that it pulls streams from.
    pub parents: Vec<String>,
    /// When it last reported that it sends or has sessions, milliseconds since 1970; 0: never.
    pub last_traffic_time: u64,
    /// When it was last heard, milliseconds since 1970.
    pub last_ping: u64,
}

/// A websocket that is proxied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyClient {
    /// Its name, such as `proxy-12`.
    pub id: String,
    /// The TCP port of the node that it leads to; 0 while one is chosen.
    pub target_port: u16,
    /// That node's address; empty while one is chosen.
    pub target_host: String,
    /// The app, with a slash before it.
    pub target_app: String,
    /// The client is connected.
    pub client_connected: bool,
    /// The node is connected.
    pub proxy_connected: bool,
    /// What the client says it is.
    pub client_user_agent: String,
    /// The client's address.
    pub client_address: String,
    /// The client came over TLS.
    pub secure_client: bool,
    /// When it was asked for, milliseconds since 1970.
    pub creation_time: u64,
}

const READ: &str = "GET, HEAD, OPTIONS";
const NODE: &str = "GET, HEAD, DELETE, OPTIONS";
const SUNSET: &str = "POST, OPTIONS";

/// What exists in the dialect and not here, and what to do instead.
const MISSING: &[(&str, &str)] = &[
    ("event/meta", "there is no transcoder: publish each rendition under a name of its own"),
    ("launchconfig", "nodes are started by whoever runs them, and register by themselves"),
    (
        "scalepolicy",
        "nodes are not started by the manager; watch /metrics and start nodes where they are needed",
    ),
    ("nodegroup", "there is one group, of all nodes that registered; ask for its nodes"),
    ("geozone", "there are no geozones; give each node a node.region and ask by region"),
    ("scheduled", "nothing can be scheduled"),
];

/// Says what a request asks for, by its path below `/streammanager/`.
pub(super) fn route(request: &Request, rest: &str) -> Route {
    let unknown = || Route::BadEvent {
        status: 404,
        text: format!(
            "there is nothing at {}; the manager answers /streammanager/api/4.0/event/{{scope}}/{{stream}}",
            quote(&request.path)
        ),
    };
    let Some((version, path)) = rest.strip_prefix("api/").and_then(|r| r.split_once('/')) else {
        return unknown();
    };
    let digits = |b: u8| b.is_ascii_digit() || b == b'.';
    if version.is_empty() || version.len() > 5 || !version.bytes().all(digits) {
        return unknown();
    }
    if let Some(path) = path.strip_prefix("event/") {
        return event(request, path.trim_end_matches('/'));
    }
    let Some(path) = path.strip_prefix("admin/") else { return unknown() };
    let path = path.trim_end_matches('/');
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["node"] | ["nodegroup", _, "node"] => read(request, Call::Nodes { role: None }),
        ["nodegroup", _, "node", role] => read(request, Call::Nodes { role: Some((*role).to_owned()) }),
        ["node", "sunset"] => on(request, SUNSET, |m| (m == Method::Post).then_some(Call::Sunset)),
        ["node", node] => on(request, NODE, |m| match m {
            Method::Get | Method::Head => Some(Call::Node((*node).to_owned())),
            Method::Delete => Some(Call::Terminate((*node).to_owned())),
            _ => None,
        }),
        ["proxy", "clients"] => read(request, Call::Proxies),
        ["proxy", "clients", id] => on(request, NODE, |m| match m {
            Method::Get | Method::Head => Some(Call::Proxy((*id).to_owned())),
            Method::Delete => Some(Call::KickProxy((*id).to_owned())),
            _ => None,
        }),
        ["node", node, "stats"] => read(request, Call::NodeStats((*node).to_owned())),
        _ => match MISSING.iter().find(|(what, _)| path.starts_with(what)) {
            Some((what, instead)) if request.method != Method::Options => {
                Route::BadEvent { status: 501, text: format!("{what} is not part of Headwater: {instead}") }
            }
            Some(_) => Route::Options { allow: READ },
            None => unknown(),
        },
    }
}

/// `event/…`. A name may end in `stats` or be called `list`: a question for a node always says its action.
fn event(request: &Request, path: &str) -> Route {
    let asks = request.query("action").is_some();
    if path == "list" && !asks {
        return read(request, Call::Events);
    }
    if let Some(stream) = path.strip_suffix("/stats").filter(|_| !asks)
        && let Ok(key) = StreamKey::parse(stream)
    {
        return read(request, Call::EventStats(key));
    }
    match request.method {
        Method::Options => Route::Options { allow: READ },
        Method::Get | Method::Head => match EventQuery::parse(path, request) {
            Ok(query) => Route::Event(query),
            Err(text) => Route::BadEvent { status: 400, text },
        },
        _ => Route::BadEvent { status: 405, text: format!("this takes {READ}") },
    }
}

fn read(request: &Request, call: Call) -> Route {
    on(request, READ, |m| matches!(m, Method::Get | Method::Head).then_some(call))
}

fn on(request: &Request, allow: &'static str, call: impl FnOnce(Method) -> Option<Call>) -> Route {
    match request.method {
        Method::Options => Route::Options { allow },
        method => match call(method) {
            Some(call) => Route::Sm1(call),
            None => Route::BadEvent { status: 405, text: format!("this takes {allow}") },
        },
    }
}

/// The nodes that the body of a sunset names.
///
/// # Errors
/// A sentence for the client.
pub fn sunset(request: &Request) -> Result<Vec<String>, String> {
    match serde_json::from_slice::<Vec<String>>(&request.body) {
        Ok(nodes) if !nodes.is_empty() => Ok(nodes),
        _ => Err("the body must be a JSON list of node addresses, such as [\"10.0.0.5\"]".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use bytes::Bytes;

    fn ask(method: Method, target: &str) -> Route {
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q.to_owned())));
        let request = Request { method, path: String::new(), query, headers: vec![], body: Bytes::new() };
        route(&request, path)
    }

    fn status(route: &Route) -> u16 {
        match route {
            Route::BadEvent { status, text } => {
                assert!(text.len() > 10, "{text}");
                *status
            }
            _ => 200,
        }
    }

    #[test]
    fn every_call_of_every_version_has_its_route() {
        use Method::{Delete, Get, Options, Post, Put};
        let key = StreamKey::parse("live/room1/demo").unwrap();
        let named = || "10.0.0.5".to_owned();
        for (method, target, expected) in [
            (Get, "api/4.0/event/list", Route::Sm1(Call::Events)),
            (Get, "api/3.1/event/live/room1/demo/stats", Route::Sm1(Call::EventStats(key))),
            (Get, "api/4.0/admin/node?accessToken=x", Route::Sm1(Call::Nodes { role: None })),
            (
                Get,
                "api/2.0/admin/nodegroup/g/node/origin",
                Route::Sm1(Call::Nodes { role: Some("origin".to_owned()) }),
            ),
            (Get, "api/4.0/admin/node/10.0.0.5", Route::Sm1(Call::Node(named()))),
            (Get, "api/4.0/admin/node/10.0.0.5/stats", Route::Sm1(Call::NodeStats(named()))),
            (Delete, "api/4.0/admin/node/10.0.0.5", Route::Sm1(Call::Terminate(named()))),
            (Post, "api/4.0/admin/node/sunset", Route::Sm1(Call::Sunset)),
            (Options, "api/4.0/admin/node/sunset", Route::Options { allow: SUNSET }),
        ] {
            assert_eq!(ask(method, target), expected, "{method} {target}");
        }
        assert_eq!(status(&ask(Put, "api/4.0/admin/node/x")), 405);
        assert_eq!(status(&ask(Post, "api/4.0/admin/event/meta/live/demo")), 501);
        assert_eq!(status(&ask(Post, "api/4.0/admin/scalepolicy")), 501);
        assert_eq!(status(&ask(Get, "api/4.0/admin/nodegroup")), 501);
        assert_eq!(status(&ask(Get, "api/4.0/other")), 404);
        assert!(Call::Sunset.changes() && !Call::Events.changes());
    }

    #[test]
    fn a_stream_may_be_called_stats_and_a_scope_may_begin_with_a_slash() {
        for (target, name) in [
            ("api/4.0/event/live/stats?action=subscribe", "live/stats"),
            ("api/4.0/event//live/demo?action=subscribe", "live/demo"),
            ("api/1.0/event/live/room/demo/?action=subscribe", "live/room/demo"),
        ] {
            match ask(Method::Get, target) {
                Route::Event(query) => assert_eq!(query.key.as_str(), name),
                other => panic!("{target}: {other:?}"),
            }
        }
        assert_eq!(status(&ask(Method::Get, "api/4.0/event/live/demo")), 400);
    }

    #[test]
    fn a_sunset_names_nodes() {
        let ask = |body: &'static str| {
            let body = Bytes::from_static(body.as_bytes());
            sunset(&Request { method: Method::Post, path: String::new(), query: None, headers: vec![], body })
        };
        assert_eq!(ask("[\"a\",\"b\"]"), Ok(vec!["a".to_owned(), "b".to_owned()]));
        for bad in ["", "[]", "{}", "[1]", "\"a\""] {
            assert!(ask(bad).is_err(), "{bad}");
        }
    }
}
