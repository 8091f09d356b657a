//! What a request asks for, by method and path. One table; nothing here acts.
//!
//! | path | methods |
//! |---|---|
//! | `/`, `/watch/{app}/{stream}`, `/publish/{app}/{stream}` | GET |
//! | `/assets/{name}`, `/client.js` | GET |
//! | `/flv/{app}/{stream}.flv` | GET, OPTIONS |
//! | `/whip/{app}/{stream}`, `/whep/{app}/{stream}` | POST, OPTIONS |
//! | `/{app}/whip/endpoint/{stream}`, `/{app}/whep/endpoint/{stream}` | as `/whip/…` and `/whep/…`, in the stream-manager dialect |
//! | `/{app}/whip/resource/{stream}/{id}`, `/{app}/whep/resource/{stream}/{id}` | as the sessions below |
//! | `/whip-session/{id}`, `/whep-session/{id}` | DELETE, PATCH, OPTIONS; `id` is the secret that the `Location` of the 201 carried |
//! | `/as/v1/proxy/whip/{app}/{stream}`, `/as/v1/proxy/whep/{app}/{stream}` | POST, OPTIONS; carried to a node |
//! | `/as/v1/proxy/to/{node}/{path of a session}` | DELETE, PATCH, OPTIONS; carried to that node |
//! | `/streammanager/api/{version}/…` | see [`super::sm1`] |
//! | the rest of `/as/v1/…` | see [`super::sm2`] |
//! | `/api/v1/nodes`, `/api/v1/streams`, `/api/v1/sessions`, `/api/v1/proxies`, `/api/v1/sources`, `/api/v1/destinations` | GET |
//! | `/api/v1/sessions/{id}` | DELETE |
//! | `/api/v1/placed/{app}/{stream}`, `/api/v1/why/{session}` | GET |
//! | `/api/v1/nodes/{node}/drain` | PUT, DELETE |
//! | `/api/v1/warm/{app}/{stream}` | PUT |
//! | `/api/v1/tokens` | POST |
//! | `/api/v1/revoked`, `/api/v1/revoked/{name}` | GET, PUT |
//! | `/metrics`, `/healthz`, `/readyz` | GET |
//!
//! HEAD is served wherever GET is. An app may have several segments, so a session has a path of its own instead of one
//! below its stream's: it could not be told from a stream.

use super::event::EventQuery;
use super::message::{Method, Request};
use super::whip::{self, Protocol};
use super::{sm1, sm2};
use crate::error::quote;
use crate::media::key::StreamKey;

/// A call of the API under `/api/v1/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiRoute {
    /// The nodes of the cluster.
    Nodes,
    /// The streams that are live or held.
    Streams,
    /// The sessions on this node.
    Sessions,
    /// The websockets that are proxied to other nodes.
    Proxies,
    /// Streams that are pulled from other servers.
    Sources,
    /// Servers that streams are pushed to.
    Destinations,
    /// End a session or a proxied websocket (changes something: see [`super::api::may_change`]).
    Kick(String),
    /// Why a stream and its viewers are where they are.
    Placed(StreamKey),
    /// What became of a session, in words.
    Why(String),
    /// A node takes nothing new, or takes it again (changes something).
    Drain {
        /// The node.
        node: String,
        /// Nothing new from now on.
        on: bool,
    },
    /// Edges pull a stream before its viewers come (changes something).
    Warm(StreamKey),
    /// Make a token (needs the same right as what changes something).
    Token,
    /// What is revoked.
    Revoked,
    /// Revoke a token, or all of a user, token subject or publish key (changes something).
    Revoke(String),
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The cluster at a glance.
    Home,
    /// The player.
    Watch(StreamKey),
    /// The publisher.
    Publish(StreamKey),
    /// A file that the pages need; see [`super::pages::asset`].
    Asset(String),
    /// The client for pages of any origin; see [`super::pages::client`].
    Client,
    /// Watch by HTTP-FLV.
    Flv(StreamKey),
    /// Publish by WebRTC: the body is an offer.
    Whip(StreamKey),
    /// DELETE ends a WHIP session, PATCH brings trickled candidates.
    WhipResource {
        /// The session's secret.
        id: String,
    },
    /// Watch by WebRTC: the body is an offer.
    Whep(StreamKey),
    /// Watch by WebRTC in the stream-manager dialect: the body is of no interest, the offer is ours.
    WhepOffer(StreamKey),
    /// DELETE ends a WHEP session, PATCH brings trickled candidates.
    WhepResource {
        /// The session's secret.
        id: String,
    },
    /// WHIP or WHEP by way of the manager: OPTIONS and POST.
    ProxyEndpoint {
        /// Which of the two.
        protocol: Protocol,
        /// The stream.
        key: StreamKey,
    },
    /// What follows on a session at another node: PATCH and DELETE.
    ProxyResource {
        /// The node's id.
        node: String,
        /// The resource's path at the node.
        path: String,
    },
    /// Ask the manager for a node.
    Event(EventQuery),
    /// A question to the manager that cannot be answered: answer [`super::event::error`] with this.
    BadEvent {
        /// 400 or 404.
        status: u16,
        /// What was wrong.
        text: String,
    },
    /// Another call of the dialect's first generation.
    Sm1(sm1::Call),
    /// A call of the dialect's second generation.
    Sm2(sm2::Call),
    /// OPTIONS on a resource that pages use with credentials; answer [`super::cors::options_with_credentials`].
    Sm2Preflight,
    /// The API.
    Api(ApiRoute),
    /// Numbers for Prometheus.
    Metrics,
    /// Is the process alive?
    Healthz,
    /// Does it take work?
    Readyz,
    /// OPTIONS on something that pages of other origins use; answer [`super::cors::options`].
    Options {
        /// The methods of the resource.
        allow: &'static str,
    },
    /// Nothing is there; the words say what was expected.
    NotFound(String),
    /// It is there, but not for this method.
    MethodNotAllowed {
        /// The methods of the resource.
        allow: &'static str,
    },
}

impl Route {
    /// Whether pages of other origins may read the answer ([`super::cors::allow_any_origin`]).
    pub fn cross_origin(&self) -> bool {
        matches!(
            self,
            Route::Client
                | Route::Flv(_)
                | Route::Whip(_)
                | Route::Whep(_)
                | Route::WhepOffer(_)
                | Route::WhipResource { .. }
                | Route::WhepResource { .. }
                | Route::ProxyEndpoint { .. }
                | Route::ProxyResource { .. }
                | Route::Event(_)
                | Route::BadEvent { .. }
                | Route::Sm1(_)
                | Route::Sm2(_)
                | Route::Options { .. }
                | Route::NotFound(_)
                | Route::MethodNotAllowed { .. }
        )
    }
}

const READ: &str = "GET, HEAD";
const CLIENT: &str = "GET, HEAD, OPTIONS";
const ENDPOINT: &str = "POST, OPTIONS";
const RESOURCE: &str = "DELETE, PATCH, OPTIONS";

/// Says what a request asks for.
pub fn route(request: &Request) -> Route {
    let path = request.path.as_str();
    // First of all: what follows has the shape of other paths.
    if let Some(rest) = path.strip_prefix("/as/v1/proxy/") {
        return proxied(request, rest);
    }
    match path {
        "/" => return read(request, || Route::Home),
        "/client.js" => return crossing(request, &[Method::Get, Method::Head], CLIENT, || Route::Client),
        "/metrics" => return read(request, || Route::Metrics),
        "/healthz" => return read(request, || Route::Healthz),
        "/readyz" => return read(request, || Route::Readyz),
        "*" => return Route::Options { allow: "GET, HEAD, POST, PATCH, DELETE, OPTIONS" },
        _ => {}
    }
    if let Some(route) = dialect(request) {
        return route;
    }
    let (top, rest) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_matches('/'), ""));
    match top {
        "watch" => stream(rest, |key| read(request, || Route::Watch(key))),
        "publish" => stream(rest, |key| read(request, || Route::Publish(key))),
        "assets" => read(request, || Route::Asset(rest.to_owned())),
        "flv" => match rest.strip_suffix(".flv") {
            Some(name) => stream(name, |key| {
                crossing(request, &[Method::Get, Method::Head], CLIENT, || Route::Flv(key))
            }),
            None => Route::NotFound("HTTP-FLV is at /flv/{app}/{stream}.flv".to_owned()),
        },
        "whip" => stream(rest, |key| crossing(request, &[Method::Post], ENDPOINT, || Route::Whip(key))),
        "whep" => stream(rest, |key| crossing(request, &[Method::Post], ENDPOINT, || Route::Whep(key))),
        "whip-session" => resource(request, rest, |id| Route::WhipResource { id }),
        "whep-session" => resource(request, rest, |id| Route::WhepResource { id }),
        "streammanager" => sm1::route(request, rest),
        "as" => sm2::route(request, rest),
        "api" => api(request, rest),
        _ => Route::NotFound(format!(
            "there is nothing at {}; try /, /watch/{{app}}/{{stream}} or /publish/{{app}}/{{stream}}",
            quote(path)
        )),
    }
}

/// Whether a request of this method and path may carry an SDP, which allows a larger body (A9).
pub fn takes_sdp(method: Method, path: &str) -> bool {
    matches!(method, Method::Post | Method::Patch)
        && (["/whip/", "/whep/"].iter().any(|p| path.contains(p))
            || ["/whip-session/", "/whep-session/", "/as/v1/proxy/"].iter().any(|p| path.starts_with(p)))
}

/// WHIP and WHEP where clients of the stream-manager dialect look for them. Such a client of WHEP has a `requestId`, and
/// takes the body of the 201 for an offer; any other is answered there as everywhere.
fn dialect(request: &Request) -> Option<Route> {
    let path = request.path.as_str();
    for whip in [true, false] {
        let (endpoints, resources) = if whip {
            ("/whip/endpoint/", "/whip/resource/")
        } else {
            ("/whep/endpoint/", "/whep/resource/")
        };
        if let Some((app, name)) = path.split_once(endpoints).filter(|(app, _)| !app.is_empty()) {
            let route = |key| match (whip, request.query("requestId")) {
                (true, _) => Route::Whip(key),
                (false, Some(_)) => Route::WhepOffer(key),
                (false, None) => Route::Whep(key),
            };
            let stream = StreamKey::join(app, name);
            return Some(match stream {
                Ok(key) => crossing(request, &[Method::Post], ENDPOINT, || route(key)),
                Err(text) => Route::NotFound(text),
            });
        }
        if let Some((_, rest)) = path.split_once(resources).filter(|(app, _)| !app.is_empty()) {
            let id = rest.rsplit('/').next().unwrap_or_default();
            return Some(resource(request, id, |id| {
                if whip { Route::WhipResource { id } } else { Route::WhepResource { id } }
            }));
        }
    }
    None
}

fn read(request: &Request, route: impl FnOnce() -> Route) -> Route {
    if request.is_read() { route() } else { Route::MethodNotAllowed { allow: READ } }
}

/// A resource for pages of any origin: OPTIONS is answered, other methods but `methods` are not allowed.
fn crossing(
    request: &Request,
    methods: &[Method],
    allow: &'static str,
    route: impl FnOnce() -> Route,
) -> Route {
    match request.method {
        Method::Options => Route::Options { allow },
        m if methods.contains(&m) => route(),
        _ => Route::MethodNotAllowed { allow },
    }
}

fn stream(rest: &str, route: impl FnOnce(StreamKey) -> Route) -> Route {
    match StreamKey::parse(rest) {
        Ok(key) => route(key),
        Err(text) => Route::NotFound(text),
    }
}

fn resource(request: &Request, id: &str, route: impl FnOnce(String) -> Route) -> Route {
    if id.is_empty() || id.len() > 64 || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Route::NotFound(
            "this is no session; use the Location that the offer was answered with".to_owned(),
        );
    }
    crossing(request, &[Method::Delete, Method::Patch], RESOURCE, || route(id.to_owned()))
}

/// What the manager carries to other nodes. OPTIONS on an endpoint is a real request in the dialect, unless a browser asks
/// it in advance of another.
fn proxied(request: &Request, rest: &str) -> Route {
    let (what, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let preflight = request.header("access-control-request-method").is_some();
    let endpoint = |protocol| match request.method {
        Method::Options if preflight => Route::Options { allow: ENDPOINT },
        Method::Options | Method::Post => stream(rest, |key| Route::ProxyEndpoint { protocol, key }),
        _ => Route::MethodNotAllowed { allow: ENDPOINT },
    };
    match what {
        "whip" => endpoint(Protocol::Whip),
        "whep" => endpoint(Protocol::Whep),
        "to" => {
            // The name of a node that is one loop of several has a slash.
            let at = rest.match_indices('/').take(2).map(|(at, _)| rest.split_at(at));
            let mut fitting = at.filter(|(node, path)| !node.is_empty() && whip::is_resource(path));
            match fitting.next() {
                Some((node, path)) => {
                    let route = || Route::ProxyResource { node: node.to_owned(), path: path.to_owned() };
                    crossing(request, &[Method::Delete, Method::Patch], RESOURCE, route)
                }
                None => Route::NotFound(
                    "this is no session; use the Location that the offer was answered with".to_owned(),
                ),
            }
        }
        _ => Route::NotFound(
            "the proxy has /as/v1/proxy/whip/{app}/{stream}, …/whep/… and, for websockets, …/ws/publish/… and \
             …/ws/subscribe/…"
                .to_owned(),
        ),
    }
}

fn api(request: &Request, rest: &str) -> Route {
    let Some(rest) = rest.strip_prefix("v1/") else { return no_call() };
    match rest {
        "nodes" => return read(request, || Route::Api(ApiRoute::Nodes)),
        "streams" => return read(request, || Route::Api(ApiRoute::Streams)),
        "sessions" => return read(request, || Route::Api(ApiRoute::Sessions)),
        "proxies" => return read(request, || Route::Api(ApiRoute::Proxies)),
        "revoked" => return read(request, || Route::Api(ApiRoute::Revoked)),
        "tokens" => {
            return match request.method {
                Method::Post => Route::Api(ApiRoute::Token),
                _ => Route::MethodNotAllowed { allow: "POST" },
            };
        }
        "sources" => return read(request, || Route::Api(ApiRoute::Sources)),
        "destinations" => return read(request, || Route::Api(ApiRoute::Destinations)),
        _ => {}
    }
    let Some((what, rest)) = rest.split_once('/') else { return no_call() };
    let named = |name: &str| !name.is_empty() && name.len() <= 128 && !name.contains('/');
    match what {
        "placed" => stream(rest, |key| read(request, || Route::Api(ApiRoute::Placed(key)))),
        "warm" => stream(rest, |key| match request.method {
            Method::Put => Route::Api(ApiRoute::Warm(key)),
            _ => Route::MethodNotAllowed { allow: "PUT" },
        }),
        // Subjects of tokens are other people's: they may have slashes in them, and how long is said by the answer.
        "revoked" if !rest.is_empty() => match request.method {
            Method::Put => Route::Api(ApiRoute::Revoke(rest.to_owned())),
            _ => Route::MethodNotAllowed { allow: "PUT" },
        },
        "why" if named(rest) => read(request, || Route::Api(ApiRoute::Why(rest.to_owned()))),
        "sessions" if named(rest) => match request.method {
            Method::Delete => Route::Api(ApiRoute::Kick(rest.to_owned())),
            _ => Route::MethodNotAllowed { allow: "DELETE" },
        },
        "nodes" => match rest.strip_suffix("/drain").filter(|node| named(&node.replacen('/', ".", 1))) {
            Some(node) => match request.method {
                Method::Put => Route::Api(ApiRoute::Drain { node: node.to_owned(), on: true }),
                Method::Delete => Route::Api(ApiRoute::Drain { node: node.to_owned(), on: false }),
                _ => Route::MethodNotAllowed { allow: "PUT, DELETE" },
            },
            None => no_call(),
        },
        _ => no_call(),
    }
}

fn no_call() -> Route {
    Route::NotFound(
        "the API has /api/v1/nodes, /api/v1/streams, /api/v1/sessions, /api/v1/proxies, /api/v1/sources, \
         /api/v1/destinations, /api/v1/placed/{app}/{stream} and \
         /api/v1/why/{session}; DELETE /api/v1/sessions/{id}; PUT and DELETE /api/v1/nodes/{node}/drain; \
         PUT /api/v1/warm/{app}/{stream}; POST /api/v1/tokens; GET /api/v1/revoked and PUT /api/v1/revoked/{name}"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::super::event::Action;
    use super::*;
    use bytes::Bytes;

    fn ask(method: Method, target: &str) -> Route {
        let (path, query) = match target.split_once('?') {
            Some((p, q)) => (p, Some(q.to_owned())),
            None => (target, None),
        };
        route(&Request { method, path: path.to_owned(), query, headers: vec![], body: Bytes::new() })
    }

    fn key(s: &str) -> StreamKey {
        StreamKey::parse(s).unwrap()
    }

    #[test]
    fn every_path_of_the_interface_has_its_route() {
        use Method::*;
        for (method, path, expected) in [
            (Get, "/", Route::Home),
            (Head, "/", Route::Home),
            (Get, "/watch/live/demo", Route::Watch(key("live/demo"))),
            (Get, "/publish/live/room1/demo", Route::Publish(key("live/room1/demo"))),
            (Get, "/assets/headwater.js", Route::Asset("headwater.js".to_owned())),
            (Get, "/client.js", Route::Client),
            (Post, "/whip/live/demo", Route::Whip(key("live/demo"))),
            (Post, "/whep/live/room1/demo", Route::Whep(key("live/room1/demo"))),
            (Options, "/whep/live/demo", Route::Options { allow: ENDPOINT }),
            (Post, "/live/whip/endpoint/demo?signal=true", Route::Whip(key("live/demo"))),
            (Post, "/live/whep/endpoint/demo", Route::Whep(key("live/demo"))),
            (
                Post,
                "/live/room1/whep/endpoint/demo?requestId=subscriber-1",
                Route::WhepOffer(key("live/room1/demo")),
            ),
            (Options, "/live/whip/endpoint/demo", Route::Options { allow: ENDPOINT }),
            (Patch, "/live/whep/resource/demo/Ab1?requestId=x", Route::WhepResource { id: "Ab1".to_owned() }),
            (Delete, "/live/whip/resource/demo/Ab1", Route::WhipResource { id: "Ab1".to_owned() }),
            (Get, "/whip/live/demo", Route::MethodNotAllowed { allow: ENDPOINT }),
            (Delete, "/whip-session/Ab1", Route::WhipResource { id: "Ab1".to_owned() }),
            (Patch, "/whep-session/Ab1", Route::WhepResource { id: "Ab1".to_owned() }),
            (Post, "/whep-session/Ab1", Route::MethodNotAllowed { allow: RESOURCE }),
            (
                Options,
                "/streammanager/api/4.0/event/live/demo",
                Route::Options { allow: "GET, HEAD, OPTIONS" },
            ),
            (
                Options,
                "/as/v1/proxy/whip/live/a",
                Route::ProxyEndpoint { protocol: Protocol::Whip, key: key("live/a") },
            ),
            (Get, "/as/v1/proxy/whep/live/a", Route::MethodNotAllowed { allow: ENDPOINT }),
            (
                Delete,
                "/as/v1/proxy/to/n1/whep-session/Ab1",
                Route::ProxyResource { node: "n1".to_owned(), path: "/whep-session/Ab1".to_owned() },
            ),
            (
                Patch,
                "/as/v1/proxy/to/n1/live/whip/resource/demo/Ab1",
                Route::ProxyResource {
                    node: "n1".to_owned(),
                    path: "/live/whip/resource/demo/Ab1".to_owned(),
                },
            ),
            (Get, "/api/v1/nodes", Route::Api(ApiRoute::Nodes)),
            (Get, "/api/v1/streams", Route::Api(ApiRoute::Streams)),
            (Get, "/api/v1/sessions", Route::Api(ApiRoute::Sessions)),
            (Get, "/api/v1/proxies", Route::Api(ApiRoute::Proxies)),
            (Get, "/api/v1/sources", Route::Api(ApiRoute::Sources)),
            (Get, "/api/v1/destinations", Route::Api(ApiRoute::Destinations)),
            (Delete, "/api/v1/sessions/rtmp-12", Route::Api(ApiRoute::Kick("rtmp-12".to_owned()))),
            (Options, "/api/v1/sessions/rtmp-12", Route::MethodNotAllowed { allow: "DELETE" }),
            (Get, "/api/v1/placed/live/demo", Route::Api(ApiRoute::Placed(key("live/demo")))),
            (Get, "/api/v1/why/rtmp-12", Route::Api(ApiRoute::Why("rtmp-12".to_owned()))),
            (Put, "/api/v1/warm/live/demo", Route::Api(ApiRoute::Warm(key("live/demo")))),
            (Put, "/api/v1/nodes/a/drain", Route::Api(ApiRoute::Drain { node: "a".to_owned(), on: true })),
            (
                Delete,
                "/api/v1/nodes/a/drain",
                Route::Api(ApiRoute::Drain { node: "a".to_owned(), on: false }),
            ),
            (Get, "/metrics", Route::Metrics),
            (Get, "/healthz", Route::Healthz),
            (Get, "/readyz", Route::Readyz),
            (Delete, "/readyz", Route::MethodNotAllowed { allow: READ }),
        ] {
            assert_eq!(ask(method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn what_is_not_there_is_refused_in_words() {
        for path in [
            "/nothing",
            "/watch/",
            "/watch/demo",
            "/whip/live/../x",
            "/whip-session/a/b",
            "/api/v2/x",
            "/api",
            "/as/v1/proxy/to/n1/api/v1/sessions/rtmp-1",
            "/as/v1/proxy/to/n1/../n2/whip-session/x",
            "/as/v1/proxy/forward/live/a",
        ] {
            let Route::NotFound(text) = ask(Method::Get, path) else { panic!("{path}") };
            assert!(text.len() > 20, "{text}");
        }
    }

    #[test]
    fn the_dialect_takes_scopes_with_and_without_a_slash_and_every_version() {
        for path in [
            "/streammanager/api/4.0/event/live/demo?action=subscribe",
            "/streammanager/api/3.1/event//live/demo?action=subscribe",
        ] {
            let Route::Event(query) = ask(Method::Get, path) else { panic!("{path}") };
            assert_eq!((query.key, query.action), (key("live/demo"), Action::Subscribe));
        }
        let Route::BadEvent { status: 400, text } =
            ask(Method::Get, "/streammanager/api/4.0/event/live/demo")
        else {
            panic!()
        };
        assert!(text.contains("action"), "{text}");
        for path in
            ["/streammanager/api/x/event/live/demo", "/streammanager/", "/streammanager/api/4.0/admin/x"]
        {
            assert!(matches!(ask(Method::Get, path), Route::BadEvent { status: 404, .. }), "{path}");
        }
    }

    #[test]
    fn only_sdp_paths_get_the_large_body() {
        assert!(takes_sdp(Method::Post, "/whip/live/demo"));
        assert!(takes_sdp(Method::Post, "/live/whip/endpoint/demo"));
        assert!(takes_sdp(Method::Patch, "/live/whep/resource/demo/x"));
        assert!(takes_sdp(Method::Patch, "/whep-session/x"));
        assert!(!takes_sdp(Method::Post, "/api/v1/nodes"));
        assert!(!takes_sdp(Method::Get, "/whip/live/demo"));
    }
}
