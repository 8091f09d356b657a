//! The stream-manager dialect's second generation: `/as/v1/…`. What a manager is asked and what it answers stands
//! here, what it knows in `node/dialect.rs`. Errors are `{"error": "…"}`.
//!
//! | path below `/as/v1/` | methods |
//! |---|---|
//! | `streams/stream/{nodeGroup}/publish/{app…}/{stream}`, `…/subscribe/…` | GET: the nodes to go to, always a list |
//! | `streams/stream/{nodeGroup}`, `streams/stream/{nodeGroup}/stream/{app…}/{stream}` | GET |
//! | `auth/login` | PUT with `Authorization: Basic`: a token |
//! | `admin/nodegroup/status/{nodeGroup}` | GET |
//! | `admin/rtcproxy`, `admin/rtcproxy/{id}` | GET the websockets that are proxied; DELETE on the latter ends one |
//!
//! There is one node group: `default`, and the name that `manager.node_group` gives it. Provisions, making node groups
//! and scale rules do not exist here: they are answered 501.

use super::event::{self, Action, EventQuery, EventUrls};
use super::message::{Method, Request, Response};
use super::router::Route;
use crate::error::quote;
use crate::media::key::StreamKey;
use serde::Serialize;
use std::collections::BTreeMap;

/// The alias of the one node group.
pub const DEFAULT_GROUP: &str = "default";

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Which nodes shall I go to?
    Pair {
        /// The node group.
        group: String,
        /// What for.
        query: EventQuery,
    },
    /// The streams of a group, or one of them.
    Streams {
        /// The node group.
        group: String,
        /// Only this one.
        only: Option<StreamKey>,
        /// With numbers.
        stats: bool,
        /// One entry a stream, at its origin, with the viewers of all nodes; else one for each node that has it.
        aggregate: bool,
    },
    /// A token for a user's name and password.
    Login,
    /// The nodes of a group.
    Status {
        /// The node group.
        group: String,
        /// Which of them.
        filter: StatusFilter,
    },
    /// The websockets that are proxied.
    Proxies,
    /// End one of them.
    KickProxy(String),
    /// It cannot be answered.
    Bad {
        /// The status.
        status: u16,
        /// Why.
        text: String,
    },
}

/// Which nodes of a group are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusFilter {
    /// Of this region.
    pub sub_group: Option<String>,
    /// Of this role.
    pub role: Option<String>,
    /// In this state.
    pub state: Option<String>,
    /// With metrics.
    pub metrics: bool,
}

/// One node for a stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamNode {
    /// `app/stream`
    pub stream_guid: String,
    /// The node's address, without port.
    pub server_address: String,
    /// `origin` or `edge`.
    pub node_role: &'static str,
    /// The node's region.
    pub sub_group: String,
    /// As in [`NodeEvent`].
    pub node_state: &'static str,
    /// Viewers on that node; where streams are aggregated, on all nodes.
    pub subscribers: u64,
    /// How long it has been published, milliseconds, where numbers were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Addresses with ports (ours, not the dialect's), where a node was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urls: Option<EventUrls>,
}

/// A node of a group, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node.
    pub node_event: NodeEvent,
    /// Its life.
    pub scaling_event: ScalingEvent,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeEvent {
    /// Its name.
    pub node_id: String,
    /// `origin`, `edge` or `manager`; the first where it is several.
    pub node_role_name: &'static str,
    /// Its region.
    pub sub_group: String,
    /// The address for clients.
    pub public_ip: String,
    /// The address for nodes.
    pub private_ip: String,
    /// Streams that are published there.
    pub publisher_count: u64,
    /// Viewers on it.
    pub subscriber_count: u64,
    /// Both.
    pub client_count: u64,
    /// The nodes that it pulls streams from.
    pub parents: Vec<String>,
    /// Numbers, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<BTreeMap<&'static str, f64>>,
}

/// What becomes of a node.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingEvent {
    /// Its name.
    pub node_id: String,
    /// Its group's name.
    pub node_group_name: String,
    /// `INSERVICE`, `SOFT_SUNSET` (takes nothing new) or `FAULT` (not heard of).
    pub state: &'static str,
}

const READ: &str = "GET, HEAD, OPTIONS";

/// What exists in the dialect and not here, and what to do instead.
const MISSING: &[(&str, &str)] = &[
    ("streams/provision", "there is no transcoder: publish each rendition under a name of its own"),
    ("provision", "there is no transcoder: publish each rendition under a name of its own"),
    (
        "admin/nodegroup",
        "there is one node group, of all nodes that registered; ask for admin/nodegroup/status/default",
    ),
    (
        "admin",
        "nodes are not started or scaled by the manager; watch /metrics and start nodes where they are needed",
    ),
    ("proxy/forward", "requests are not forwarded to nodes"),
];

/// Says what a request asks for, by its path below `/as/`.
pub(super) fn route(request: &Request, rest: &str) -> Route {
    let Some(path) = rest.strip_prefix("v1/").map(|p| p.trim_end_matches('/')) else {
        return bad(404, "the manager answers /as/v1/streams/stream/{nodeGroup}/publish/{app}/{stream}");
    };
    if path == "auth/login" {
        return match request.method {
            Method::Options => Route::Sm2Preflight,
            Method::Put => Route::Sm2(Call::Login),
            _ => bad(405, "log in with PUT and an Authorization: Basic header"),
        };
    }
    if let Some(rest) = path.strip_prefix("streams/stream/") {
        return read(request, || streams(request, rest));
    }
    if let Some(group) = path.strip_prefix("admin/nodegroup/status/").filter(|g| !g.contains('/')) {
        let named = |name: &str| request.query(name).filter(|v| !v.is_empty());
        let filter = StatusFilter {
            sub_group: named("subGroup"),
            role: named("role"),
            state: named("state"),
            metrics: truth(request, "metrics"),
        };
        return read(request, || Call::Status { group: group.to_owned(), filter });
    }
    if path == "admin/rtcproxy" {
        return read(request, || Call::Proxies);
    }
    if let Some(id) = path.strip_prefix("admin/rtcproxy/").filter(|id| !id.contains('/')) {
        return match request.method {
            Method::Options => Route::Options { allow: "DELETE, OPTIONS" },
            Method::Delete => Route::Sm2(Call::KickProxy(id.to_owned())),
            _ => bad(405, "this takes DELETE, which ends the websocket"),
        };
    }
    match MISSING.iter().find(|(what, _)| path.starts_with(what)) {
        _ if request.method == Method::Options => Route::Options { allow: READ },
        Some((what, instead)) => bad(501, &format!("{what} is not part of Headwater: {instead}")),
        None => bad(404, &format!("there is nothing at {}", quote(&request.path))),
    }
}

fn streams(request: &Request, rest: &str) -> Call {
    let refuse = |status, text: String| Call::Bad { status, text };
    let Some((group, rest)) = rest.split_once('/') else {
        return Call::Streams {
            group: rest.to_owned(),
            only: None,
            stats: truth(request, "stats"),
            aggregate: truth(request, "aggregate"),
        };
    };
    let group = group.to_owned();
    let (what, guid) = rest.split_once('/').unwrap_or((rest, ""));
    let action = match what {
        "publish" => Action::Broadcast,
        "subscribe" => Action::Subscribe,
        "stream" => {
            return match StreamKey::parse(guid) {
                Ok(key) => Call::Streams {
                    group,
                    only: Some(key),
                    stats: true,
                    aggregate: truth(request, "aggregate"),
                },
                Err(text) => refuse(400, text),
            };
        }
        _ => return refuse(404, format!("{} is none of publish, subscribe and stream", quote(what))),
    };
    let key = match StreamKey::parse(guid) {
        Ok(key) => key,
        Err(text) => return refuse(400, text),
    };
    let endpoints = match event::endpoints(request) {
        Ok(n) => n,
        Err(text) => return refuse(400, text),
    };
    if truth(request, "transcode") && endpoints.is_some_and(|n| n > 1) {
        return refuse(400, "endpoints above 1 and transcode exclude each other".to_owned());
    }
    // The two words mean the same; the newer one counts where both are given.
    let wish = request.query("region").filter(|r| !r.is_empty()).or_else(|| request.query("subgroup"));
    let regions = event::regions(wish.as_deref());
    Call::Pair {
        group,
        query: EventQuery { key, action, regions, strict: truth(request, "strict"), endpoints },
    }
}

fn truth(request: &Request, name: &str) -> bool {
    request.query(name).is_some_and(|v| v.is_empty() || v.eq_ignore_ascii_case("true"))
}

fn read(request: &Request, call: impl FnOnce() -> Call) -> Route {
    match request.method {
        Method::Options => Route::Options { allow: READ },
        Method::Get | Method::Head => Route::Sm2(call()),
        _ => bad(405, "this takes GET"),
    }
}

fn bad(status: u16, text: &str) -> Route {
    Route::Sm2(Call::Bad { status, text: text.to_owned() })
}

/// An error in the dialect's shape.
pub fn error(status: u16, text: &str) -> Response {
    let mut response = super::api::error(status, text);
    if status == 503 {
        response.set("Retry-After", "1");
    }
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;
    use bytes::Bytes;

    fn ask(method: Method, target: &str) -> Route {
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q.to_owned())));
        let request = Request { method, path: String::new(), query, headers: vec![], body: Bytes::new() };
        route(&request, path)
    }

    fn status(method: Method, target: &str) -> u16 {
        match ask(method, target) {
            Route::Sm2(Call::Bad { status, text }) => {
                assert!(text.len() > 10, "{text}");
                status
            }
            _ => 200,
        }
    }

    #[test]
    fn a_place_is_asked_for_with_a_list_of_regions() {
        let target = "v1/streams/stream/default/publish/live/room/demo?subgroup=ashburn,phoenix&strict=true&endpoints=2";
        let Route::Sm2(Call::Pair { group, query }) = ask(Method::Get, target) else { panic!() };
        assert_eq!(
            (group.as_str(), query.key.as_str(), query.action),
            ("default", "live/room/demo", Action::Broadcast)
        );
        assert_eq!(query.regions, ["ashburn", "phoenix"]);
        assert_eq!((query.strict, query.endpoints), (true, Some(2)));
        let target = "v1/streams/stream/g/subscribe/live/demo?subgroup=a&region=b";
        let Route::Sm2(Call::Pair { query, .. }) = ask(Method::Get, target) else { panic!() };
        assert_eq!(
            (query.regions, query.action, query.endpoints),
            (vec!["b".to_owned()], Action::Subscribe, None)
        );
    }

    #[test]
    fn lists_logins_and_states_have_their_routes() {
        let Route::Sm2(Call::Streams { only: None, stats: true, aggregate: false, .. }) =
            ask(Method::Get, "v1/streams/stream/default?stats=true")
        else {
            panic!()
        };
        let Route::Sm2(Call::Streams { only: Some(key), aggregate: true, .. }) =
            ask(Method::Get, "v1/streams/stream/default/stream/live/demo?aggregate=true")
        else {
            panic!()
        };
        assert_eq!(key.as_str(), "live/demo");
        assert_eq!(ask(Method::Put, "v1/auth/login"), Route::Sm2(Call::Login));
        assert_eq!(ask(Method::Options, "v1/auth/login"), Route::Sm2Preflight);
        let Route::Sm2(Call::Status { filter, .. }) =
            ask(Method::Get, "v1/admin/nodegroup/status/default?subGroup=eu&role=edge&metrics=true")
        else {
            panic!()
        };
        assert_eq!(
            (filter.sub_group.as_deref(), filter.role.as_deref(), filter.metrics),
            (Some("eu"), Some("edge"), true)
        );
    }

    #[test]
    fn what_is_not_there_says_so() {
        for (method, target, expected) in [
            (Method::Get, "v1/streams/stream/default/publish/live/demo?endpoints=none", 400),
            (Method::Get, "v1/streams/stream/default/publish/live/demo?endpoints=2&transcode=true", 400),
            (Method::Get, "v1/streams/stream/default/publish/demo", 400),
            (Method::Get, "v1/streams/stream/default/dance/live/demo", 404),
            (Method::Post, "v1/streams/stream/default", 405),
            (Method::Get, "v1/auth/login", 405),
            (Method::Post, "v1/provision/default", 501),
            (Method::Post, "v1/streams/provision/default", 501),
            (Method::Post, "v1/admin/nodegroup", 501),
            (Method::Get, "v1/other", 404),
            (Method::Get, "v2/streams", 404),
        ] {
            assert_eq!(status(method, target), expected, "{method} {target}");
        }
    }
}
