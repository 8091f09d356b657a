//! The manager's one question of the stream-manager dialect, first generation: which node shall I go to?
//!
//! `GET /streammanager/api/{version}/event/{scope…}/{stream}?action=broadcast|subscribe`

use super::message::{Request, Response, encode_percent};
use crate::error::quote;
use crate::media::key::StreamKey;
use crate::time::WallTime;
use crate::wire::link::Advertised;
use serde::{Deserialize, Serialize};

/// What the client wants to do with the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Publish it: an origin is wanted.
    Broadcast,
    /// Watch it: an edge is wanted.
    Subscribe,
}

/// The question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventQuery {
    /// Which stream.
    pub key: StreamKey,
    /// What for.
    pub action: Action,
    /// The regions to prefer, the first most: the dialect's `region`, a comma between several.
    pub regions: Vec<String>,
    /// Rather none than one of another region, or than fewer than asked for.
    pub strict: bool,
    /// How many nodes are wanted; `None` is not asked (one object), above 1 an array is answered.
    pub endpoints: Option<u32>,
}

impl EventQuery {
    /// Reads the question from the path below `event/` and the query.
    ///
    /// # Errors
    /// A sentence for the client (status 400).
    pub fn parse(path: &str, request: &Request) -> Result<EventQuery, String> {
        let key = StreamKey::parse(path)?;
        let action = match request.query("action").as_deref() {
            Some("broadcast") => Action::Broadcast,
            Some("subscribe") => Action::Subscribe,
            Some(other) => return Err(format!("the action {} is not broadcast or subscribe", quote(other))),
            None => return Err("the query needs action=broadcast or action=subscribe".to_owned()),
        };
        let endpoints = endpoints(request)?;
        if request.query("geozone").is_some_and(|g| !g.is_empty()) {
            return Err("there are no geozones here; ask by region, several with a comma between".to_owned());
        }
        Ok(EventQuery {
            key,
            action,
            regions: regions(request.query("region").as_deref()),
            strict: request.query("strict").is_some_and(|s| s.eq_ignore_ascii_case("true")),
            endpoints,
        })
    }
}

/// How many nodes a question wants; `None` if it does not say.
///
/// # Errors
/// A sentence for the client.
pub(super) fn endpoints(request: &Request) -> Result<Option<u32>, String> {
    match request.query("endpoints") {
        None => Ok(None),
        Some(text) => match text.parse::<u32>() {
            Ok(n) if n > 0 => Ok(Some(n)),
            _ => Err(format!("endpoints={} is not a number above 0", quote(&text))),
        },
    }
}

/// The regions of a preference list with commas, the most preferred first; at most eight are looked at.
pub fn regions(list: Option<&str>) -> Vec<String> {
    let names = list.unwrap_or_default().split(',').map(str::trim).filter(|r| !r.is_empty());
    names.take(8).map(str::to_owned).collect()
}

/// How pages reach HTTP of the node that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// At the node itself.
    Node {
        /// Over TLS, with a certificate that browsers trust.
        secure: bool,
        /// Host and port, as they stand in a URL.
        at: String,
    },
    /// By way of the manager: over TLS, since secure pages may not talk to insecure hosts, and nodes need no certificates.
    Manager {
        /// Host and port as the client wrote them.
        at: String,
    },
}

/// Where the stream can be reached on the node that was chosen, ports included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventUrls {
    /// `rtmp://host:port/app/stream`
    pub rtmp: String,
    /// `rtsp://host:port/app/stream`; empty: that node is too old to say.
    #[serde(default)]
    pub rtsp: String,
    /// `rtsps://host:port/app/stream`; empty: that node is too old to say.
    #[serde(default)]
    pub rtsps: String,
    /// Standard WHIP endpoint.
    pub whip: String,
    /// Standard WHEP endpoint.
    pub whep: String,
    /// The websocket of the stream-manager dialect, for what was asked (broadcast or subscribe). The client adds
    /// `id=…` to the query.
    #[serde(default)]
    pub ws: String,
    /// The player.
    pub watch: String,
    /// The publisher.
    pub publish: String,
}

impl EventUrls {
    /// The addresses of `key` on a node, as a client may use them that asked for `action`.
    pub fn new(node: &Advertised, door: &Door, action: Action, key: &StreamKey) -> EventUrls {
        let host = node.host();
        let what = match action {
            Action::Broadcast => "publish",
            Action::Subscribe => "subscribe",
        };
        let (page, endpoints, query, ws) = match door {
            Door::Node { secure, at } => {
                let s = if *secure { "s" } else { "" };
                let base = format!("http{s}://{at}");
                (base.clone(), base, String::new(), format!("ws{s}://{at}/{}/", key.app()))
            }
            // The node is named, so that what the client was told of it stays true.
            Door::Manager { at } => {
                let (base, query) = (format!("https://{at}"), format!("?host={}", encode_percent(&host, "")));
                let ws = format!("wss://{at}/as/v1/proxy/ws/{what}/{key}{query}");
                (base.clone(), format!("{base}/as/v1/proxy"), query, ws)
            }
        };
        let rtsp = |tls: bool| match node.rtsp_base(tls) {
            none if none.is_empty() => none,
            base => format!("{base}/{key}"),
        };
        EventUrls {
            rtmp: format!("rtmp://{host}:{}/{key}", node.rtmp),
            rtsp: rtsp(false),
            rtsps: rtsp(true),
            whip: format!("{endpoints}/whip/{key}{query}"),
            whep: format!("{endpoints}/whep/{key}{query}"),
            ws,
            watch: format!("{page}/watch/{key}"),
            publish: format!("{page}/publish/{key}"),
        }
    }
}

impl EventUrls {
    /// The same with a token for the node; an empty one changes nothing.
    pub fn with_token(mut self, token: &str) -> EventUrls {
        let all = [
            &mut self.rtmp,
            &mut self.rtsp,
            &mut self.rtsps,
            &mut self.whip,
            &mut self.whep,
            &mut self.watch,
            &mut self.publish,
            &mut self.ws,
        ];
        for url in all.into_iter().filter(|url| !token.is_empty() && !url.is_empty()) {
            url.push_str(if url.contains('?') { "&token=" } else { "?token=" });
            url.push_str(token);
        }
        self
    }
}

/// One node that was chosen: the dialect's four fields, and ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventNode {
    /// The stream's name, without its app.
    pub name: String,
    /// The stream's app, with a slash before it, as the dialect's documents have it.
    pub scope: String,
    /// The node's address (or name), without port.
    #[serde(rename = "serverAddress")]
    pub server_address: String,
    /// The node's region.
    pub region: String,
    /// Addresses with ports.
    pub urls: EventUrls,
}

impl EventNode {
    /// A node for a stream.
    pub fn new(key: &StreamKey, server_address: String, region: String, urls: EventUrls) -> EventNode {
        EventNode {
            name: key.name().to_owned(),
            scope: format!("/{}", key.app()),
            server_address,
            region,
            urls,
        }
    }
}

/// 200 with the chosen nodes, best first: one object, or an array if more than one was asked for. No node at all is
/// the caller's error to tell ([`error`]).
pub fn answer(query: &EventQuery, nodes: &[EventNode]) -> Response {
    let mut response = match nodes.first() {
        Some(node) if query.endpoints.is_none_or(|n| n == 1) => Response::json(200, node),
        _ => Response::json(200, &nodes),
    };
    response.set("Cache-Control", "no-store");
    response
}

/// The dialect's error: 400 (bad question), 404 (stream not live), 503 (no node is free).
pub fn error(status: u16, text: &str, now: WallTime) -> Response {
    let timestamp = now.0 / 1_000_000;
    let body = serde_json::json!({ "errorMessage": text, "timestamp": timestamp });
    let mut response = Response::json(status, &body).header("Cache-Control", "no-store");
    if status == 503 {
        response.set("Retry-After", "1");
    }
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::http::message::Method;
    use bytes::Bytes;

    fn ask(query: &str) -> Result<EventQuery, String> {
        let request = Request {
            method: Method::Get,
            path: String::new(),
            query: Some(query.to_owned()),
            headers: vec![],
            body: Bytes::new(),
        };
        EventQuery::parse("live/room1/demo", &request)
    }

    fn advertised() -> Advertised {
        let ip = std::net::IpAddr::from([127, 0, 0, 3]);
        Advertised {
            public: ip,
            private: ip,
            name: String::new(),
            http: 5080,
            rtmp: 1935,
            rtmps: 1936,
            rtsp: 8554,
            rtsps: 8555,
            webrtc: 8189,
            link: 5090,
            https: 0,
        }
    }

    fn urls(door: Door, action: Action) -> EventUrls {
        EventUrls::new(&advertised(), &door, action, &StreamKey::parse("live/room1/demo").unwrap())
    }

    #[test]
    fn secure_pages_are_led_through_the_manager_or_to_a_node_that_they_trust() {
        let manager = || Door::Manager { at: "sm.example".to_owned() };
        let (publish, play) = (urls(manager(), Action::Broadcast), urls(manager(), Action::Subscribe));
        assert_eq!(publish.whip, "https://sm.example/as/v1/proxy/whip/live/room1/demo?host=127.0.0.3");
        assert_eq!(play.whep, "https://sm.example/as/v1/proxy/whep/live/room1/demo?host=127.0.0.3");
        assert_eq!(publish.ws, "wss://sm.example/as/v1/proxy/ws/publish/live/room1/demo?host=127.0.0.3");
        assert_eq!(play.ws, "wss://sm.example/as/v1/proxy/ws/subscribe/live/room1/demo?host=127.0.0.3");
        assert_eq!(play.watch, "https://sm.example/watch/live/room1/demo");
        assert_eq!(play.rtmp, "rtmp://127.0.0.3:1935/live/room1/demo");
        let own = urls(Door::Node { secure: true, at: "o1.example:5443".to_owned() }, Action::Broadcast);
        assert_eq!(own.whip, "https://o1.example:5443/whip/live/room1/demo");
        assert_eq!(own.ws, "wss://o1.example:5443/live/room1/");
        let plain = urls(Door::Node { secure: false, at: "127.0.0.3:5080".to_owned() }, Action::Broadcast);
        assert_eq!(plain.ws, "ws://127.0.0.3:5080/live/room1/");
    }

    fn node() -> EventNode {
        let key = StreamKey::parse("live/room1/demo").unwrap();
        let urls = urls(Door::Node { secure: false, at: "127.0.0.3:5080".to_owned() }, Action::Broadcast);
        EventNode::new(&key, "127.0.0.3".to_owned(), "local".to_owned(), urls)
    }

    #[test]
    fn one_object_or_an_array_as_was_asked() {
        for (query, array) in [("", false), ("&endpoints=1", false), ("&endpoints=2", true)] {
            let query = ask(&format!("action=broadcast{query}")).unwrap();
            let body: serde_json::Value = serde_json::from_slice(&answer(&query, &[node()]).body).unwrap();
            let one = if array { &body[0] } else { &body };
            assert_eq!(one["serverAddress"], "127.0.0.3");
            assert_eq!(one["scope"], "/live/room1");
            assert_eq!(one["name"], "demo");
            assert_eq!(one["urls"]["whip"], "http://127.0.0.3:5080/whip/live/room1/demo");
            assert_eq!(one["urls"]["rtmp"], "rtmp://127.0.0.3:1935/live/room1/demo");
            assert_eq!(one["urls"]["rtsp"], "rtsp://127.0.0.3:8554/live/room1/demo");
            assert_eq!(one["urls"]["rtsps"], "rtsps://127.0.0.3:8555/live/room1/demo");
        }
    }

    #[test]
    fn errors_have_the_dialects_shape() {
        let response = error(404, "the stream is not live", WallTime(1_455_000_000_123_456_789));
        let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(body["errorMessage"], "the stream is not live");
        assert_eq!(body["timestamp"], 1_455_000_000_123_u64);
    }

    #[test]
    fn bad_questions_are_refused_in_words() {
        for (query, word) in [
            ("", "action"),
            ("action=dance", "dance"),
            ("action=broadcast&endpoints=0", "endpoints"),
            ("action=broadcast&endpoints=many", "many"),
        ] {
            let text = ask(query).unwrap_err();
            assert!(text.contains(word), "{text}");
        }
        let query = ask("action=subscribe&region=eu,us&strict=true&endpoints=3").unwrap();
        assert_eq!(
            (query.regions, query.strict, query.endpoints),
            (vec!["eu".to_owned(), "us".to_owned()], true, Some(3))
        );
        assert!(ask("action=subscribe&geozone=x").unwrap_err().contains("geozone"));
    }
}
