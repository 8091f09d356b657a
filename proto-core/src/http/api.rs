//! The shapes of `/api/v1/…`, filled by the node and read by the pages, `headwater ctl` and scripts. Fields are only
//! ever added.

use super::message::{Request, Response};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// `GET /api/v1/nodes`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nodes {
    /// The id of the node that answers.
    pub this: String,
    /// Whether it sees the whole cluster (it is the manager); else `nodes` holds what it knows, at least itself.
    pub whole: bool,
    /// The nodes, by id.
    pub nodes: Vec<NodeInfo>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its name in the cluster.
    pub id: String,
    /// `manager`, `origin`, `edge`.
    pub roles: Vec<String>,
    /// Its region; empty if none is set.
    pub region: String,
    /// The address that clients are told.
    pub address: String,
    /// TCP port of HTTP at that address; 0: none (as with the other ports).
    #[serde(default)]
    pub http_port: u16,
    /// TCP port of HTTPS with a certificate that browsers trust.
    #[serde(default)]
    pub https_port: u16,
    /// TCP port of RTMP.
    #[serde(default)]
    pub rtmp_port: u16,
    /// TCP port of RTSP.
    #[serde(default)]
    pub rtsp_port: u16,
    /// TCP port of RTSP over TLS.
    #[serde(default)]
    pub rtsps_port: u16,
    /// UDP port of WebRTC.
    #[serde(default)]
    pub webrtc_port: u16,
    /// Headwater's version.
    pub version: String,
    /// `in_service`, `draining` or `lost` (its lease ended).
    pub state: String,
    /// 0 (idle) to 1 (full).
    pub load: f64,
    /// Publishers and viewers on it, without the pulls of other nodes.
    pub sessions: u64,
    /// Streams on it, relayed ones included.
    pub streams: u64,
}

/// `GET /api/v1/streams`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Streams {
    /// The streams, by key.
    pub streams: Vec<StreamInfo>,
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamInfo {
    /// `app/name`
    pub key: String,
    /// `live`, or `held` (its publisher went; viewers wait for its return).
    pub state: String,
    /// The id of the node that its publisher is on; empty if not known.
    pub origin: String,
    /// The publisher's fencing number, `term.count`.
    pub epoch: String,
    /// Viewers: on all nodes if the manager answers, else on the node that answers. Pulls of other nodes are none.
    pub viewers: u64,
    /// Its tracks.
    pub tracks: Vec<TrackInfo>,
    /// Kilobits a second that its publisher sends, all tracks together; 0: not known.
    pub bitrate_kbps: u64,
    /// Seconds since its publisher was accepted.
    pub uptime_s: u64,
    /// How it comes in: `rtmp`, `whip`, `relay` (from another node); empty: not known or not live.
    pub source: String,
    /// Sentences for whoever wonders: B-frames, sound that cannot be converted …
    pub notices: Vec<String>,
    /// Sound that the answering node converts for its viewers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bridges: Vec<BridgeInfo>,
}

/// A sound bridge: what a node makes of a track for viewers whose protocol cannot carry it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeInfo {
    /// The codec that the publisher sends.
    pub from: String,
    /// The codec that is made of it.
    pub to: String,
    /// `works`, or `failed` (the node's log says why).
    pub state: String,
}

/// One track.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrackInfo {
    /// `H.264`, `Opus`, `AAC`.
    pub codec: String,
    /// Pixels across.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Pixels down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Kilobits a second now; only where the answering node has the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kbps: Option<u64>,
    /// Samples a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Audio channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u8>,
}

/// `GET /api/v1/proxies`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proxies {
    /// The websockets that the node that answers proxies, in the order in which they came.
    pub proxies: Vec<ProxyInfo>,
}

/// One proxied websocket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProxyInfo {
    /// Its id in log lines, such as `proxy-12`; `DELETE /api/v1/sessions/{id}` ends it.
    pub id: String,
    /// App and stream, or app and subscriber where the client does not name its stream.
    pub stream: String,
    /// The client's address and port.
    pub remote: String,
    /// Whether the client came over TLS.
    pub secure: bool,
    /// What the client says it is.
    pub user_agent: String,
    /// The node that it is proxied to; empty while one is chosen.
    pub node: String,
    /// That node's address and port; empty while one is chosen.
    pub target: String,
    /// `placing`, `dialling` or `open`.
    pub state: String,
    /// Seconds since it was asked for.
    pub age_s: u64,
}

/// `GET /api/v1/sources`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sources {
    /// The sources that the node that answers has, by stream.
    pub sources: Vec<SourceInfo>,
}

/// A stream that a node pulls from another server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// App and name, or the pattern where none of its streams is pulled now.
    pub stream: String,
    /// Where it is, without what may be secret.
    pub url: String,
    /// `demand` or `always`.
    pub when: String,
    /// How it stands.
    #[serde(flatten)]
    pub standing: Standing,
}

/// How a stream from or to another server stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// `idle`, `claiming`, `resolving`, `connecting`, `working`, `waiting` (it failed), `standby` (another has the name).
    pub state: String,
    /// The session that publishes it here or plays it to there; empty: none.
    pub session: String,
    /// Seconds since it came into that state.
    pub since_s: u64,
    /// How often it was connected to, or tried to.
    pub tries: u64,
    /// How often it worked.
    pub worked: u64,
    /// Failures since it last worked for long.
    pub failures: u32,
    /// Seconds until it is tried again, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_s: Option<f64>,
    /// Why it failed last; empty: it works.
    pub reason: String,
}

/// `GET /api/v1/destinations`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Destinations {
    /// The destinations that the node that answers has, in the order of its configuration.
    pub destinations: Vec<DestinationInfo>,
}

/// A stream on its way to another server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DestinationInfo {
    /// App and name, or what is configured where nothing is pushed now.
    pub stream: String,
    /// As in [`SourceInfo`].
    pub url: String,
    /// How it stands.
    #[serde(flatten)]
    pub standing: Standing,
}

/// `GET /api/v1/sessions`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sessions {
    /// The sessions on the node that answers, by id.
    pub sessions: Vec<SessionInfo>,
}

/// One publisher or viewer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its id in log lines, such as `rtmp-12`.
    pub id: String,
    /// `rtmp`, `whip`, `whep`, `relay`.
    pub protocol: String,
    /// `publish` or `play`.
    pub role: String,
    /// The stream's key; empty before it asked for one.
    pub stream: String,
    /// The peer's address and port.
    pub remote: String,
    /// Seconds since it came.
    pub age_s: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Round-trip time, milliseconds, where it is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// Share of packets lost lately, 0 to 1, where it is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// `connecting`, `live`, `waiting` (for the publisher), `ending`.
    pub state: String,
    /// Which picture a viewer of a stream with several renditions is shown, such as `640x360`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// Its link carries key frames and sound only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub thin: bool,
    /// What its link is taken to carry, kilobits a second, where that was found less than what it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_kbps: Option<u64>,
}

/// `GET /api/v1/placed/{app}/{stream}`: why a stream and its viewers are where they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlacedStream {
    /// `app/name`
    pub stream: String,
    /// The node that its publisher is on; empty: none.
    pub origin: String,
    /// The manager's last choices: for its publisher, then for viewers.
    pub choices: Vec<PlacedChoice>,
    /// All of it for people.
    pub words: Vec<String>,
}

/// One choice of the manager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlacedChoice {
    /// `broadcast` or `subscribe`.
    pub action: String,
    /// How long ago, seconds.
    pub age_s: f64,
    /// The regions that were wished for.
    pub regions: Vec<String>,
    /// No other would do.
    pub strict: bool,
    /// The nodes that were given out, the first for use; empty: refused.
    pub nodes: Vec<String>,
    /// The rule that decided, or the code of the refusal.
    pub rule: String,
    /// The nodes as they stood then, at most 16.
    pub considered: Vec<PlacedNode>,
}

/// A node as it stood when a choice was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlacedNode {
    /// Its name.
    pub node: String,
    /// Its region.
    pub region: String,
    /// How much of it was used, 0 to 1 and above.
    pub used: f64,
    /// `could be used`, `full`, `draining` or `gone`.
    pub state: String,
}

/// `PUT /api/v1/warm/{app}/{stream}`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Warmed {
    /// `app/name`
    pub stream: String,
    /// The edges that were told to pull it.
    pub edges: Vec<String>,
    /// For how long they keep it.
    pub seconds: u64,
}

/// `POST /api/v1/tokens`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// The token.
    pub token: String,
    /// The name by which it can be revoked.
    pub id: String,
    /// Until when it is good, seconds since 1970.
    pub expires: u64,
    /// It is good at every node of the cluster; else at this one, until it ends.
    pub everywhere: bool,
}

/// `PUT /api/v1/revoked/{name}`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revoked {
    /// What is refused from now on.
    pub name: String,
    /// Sessions of this node that ended with it.
    pub ended: u64,
    /// The manager is there to tell the other nodes. `false`: it is told when it is back.
    #[serde(default)]
    pub everywhere: bool,
}

/// `GET /api/v1/revoked`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevokedNames {
    /// All names that are refused.
    pub revoked: Vec<String>,
}

/// `GET /api/v1/why/{session}`: what became of a session, while it lives and for a while after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionStory {
    /// Its name, such as `rtmp-12`.
    pub id: String,
    /// As in [`SessionInfo`].
    pub protocol: String,
    /// As in [`SessionInfo`].
    pub stream: String,
    /// It is over.
    pub ended: bool,
    /// How long it lived (so far), seconds.
    pub age_s: f64,
    /// From its question to the first picture or sound that was sent to it, milliseconds.
    pub first_frame_ms: Option<f64>,
    /// The last round trip that was measured, milliseconds.
    pub rtt_ms: Option<f64>,
    /// The last share of packets lost that was measured, 0 to 1.
    pub loss: Option<f64>,
    /// Packets that were asked for again, where the protocol has that.
    pub nacks: Option<u64>,
    /// A viewer's frames that it was not handed, by reason.
    pub dropped: std::collections::BTreeMap<String, u64>,
    /// What happened, in order.
    pub lines: Vec<StoryLine>,
    /// All of it for people.
    pub words: Vec<String>,
}

/// Something that happened to a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoryLine {
    /// Seconds after it began.
    pub after_s: f64,
    /// What.
    pub text: String,
}

/// 200 with a value that must not be cached.
pub fn answer(value: &impl Serialize) -> Response {
    Response::json(200, value).header("Cache-Control", "no-store")
}

/// An error of the API: `{"error": "…"}`.
pub fn error(status: u16, text: &str) -> Response {
    Response::json(status, &serde_json::json!({ "error": text })).header("Cache-Control", "no-store")
}

/// Whether a call that changes something may be answered, until authorisation can be configured.
///
/// It must come from this host, and not by way of a web page: a page that the operator has open can make the browser
/// send requests to loopback, with its own `Origin`, or under a name of its own that it resolves to 127.0.0.1.
///
/// # Errors
/// The 403 to send.
pub fn may_change(request: &Request, remote: IpAddr) -> Result<(), Box<Response>> {
    let refuse = |text| Err(Box::new(error(403, text)));
    if !remote.to_canonical().is_loopback() {
        return refuse(
            "calls that change something are answered on loopback only; run this on the node's own host",
        );
    }
    let host = request.header("host").unwrap_or_default();
    let name = host
        .strip_prefix('[')
        .and_then(|h| h.split_once(']'))
        .map_or_else(|| host.rsplit_once(':').map_or(host, |(name, _)| name), |(address, _)| address);
    if !name.eq_ignore_ascii_case("localhost") && name.parse::<IpAddr>().is_err() {
        return refuse("calls that change something must name this node by its IP address or localhost");
    }
    let own = |origin: &str| origin.split_once("://").is_some_and(|(_, o)| o.eq_ignore_ascii_case(host));
    if request.header("origin").is_some_and(|origin| !own(origin)) {
        return refuse("a page of another origin may not change anything here");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::message::Method;
    use bytes::Bytes;

    #[test]
    fn only_this_host_and_no_foreign_page_may_change_things() {
        let ask = |remote: &str, host: &str, origin: Option<&str>| {
            let mut headers = vec![("host".to_owned(), host.to_owned())];
            headers.extend(origin.map(|o| ("origin".to_owned(), o.to_owned())));
            let path = "/api/v1/sessions/x".to_owned();
            let request = Request { method: Method::Delete, path, query: None, headers, body: Bytes::new() };
            may_change(&request, remote.parse().unwrap()).map_err(|r| r.status)
        };
        assert_eq!(ask("127.0.0.1", "127.0.0.1:5080", None), Ok(()));
        assert_eq!(ask("127.0.0.7", "localhost:5080", Some("http://localhost:5080")), Ok(()));
        assert_eq!(ask("::1", "[::1]:5080", None), Ok(()));
        assert_eq!(ask("::ffff:127.0.0.1", "127.0.0.1", None), Ok(()));
        assert_eq!(ask("192.0.2.1", "127.0.0.1", None), Err(403));
        assert_eq!(ask("127.0.0.1", "evil.example:5080", None), Err(403));
        assert_eq!(ask("127.0.0.1", "127.0.0.1:5080", Some("https://evil.example")), Err(403));
        assert_eq!(ask("127.0.0.1", "127.0.0.1:5080", Some("null")), Err(403));
    }
}
