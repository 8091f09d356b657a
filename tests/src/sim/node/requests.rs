//! What can be said to a node, as one byte of a fuzzer's names it. `{L}` and its like stand for what the node said last: a
//! Location, an ETag, an RTSP session, a nonce, a token, an id, a subscriber's id.

use proto_core::io::Service;

/// One thing to say.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request {
    /// Method, path and headers of HTTP, and a body.
    Http(&'static str, &'static str, &'static str),
    /// A text on a websocket.
    Text(&'static str),
    /// Method, URI and headers of RTSP, and a body.
    Rtsp(&'static str, &'static str, &'static str),
    /// Bytes of a whole connection.
    Whole(Service, &'static [u8]),
}

use Request::{Http, Rtsp, Text, Whole};

const OFFER: &str = include_str!("../../../../fuzz/seeds/sdp/chromium");
const SDP: &str = "Content-Type: application/sdp\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const BASIC: &str = "Authorization: Basic YWxpY2U6cGFzc3dvcmQ=\r\n";
const ADMIN: &str = "Authorization: Basic YWRtaW46bG9nIG1lIGlu\r\n";
const BEARER: &str = "Authorization: Bearer {T}\r\n";
const DIGEST: &str = "Authorization: Digest username=\"alice\", realm=\"Headwater\", nonce=\"{N}\", uri=\"rtsp://h/live/s\", \
                      response=\"00000000000000000000000000000000\", algorithm=MD5\r\n";
const DESCRIPTION: &str = "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:streamid=0\r\n\
                           m=audio 0 RTP/AVP 97\r\na=rtpmap:97 opus/48000/2\r\na=control:streamid=1\r\n";
/// Pictures and sound that RTMP knows only since it was extended.
const MANY: &str = "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H265/90000\r\na=control:streamid=0\r\n\
                    m=audio 0 RTP/AVP 8\r\na=control:streamid=1\r\n";
const TCP: &str = "Session: {S}\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=record\r\n";
const UDP: &str = "Session: {S}\r\nTransport: RTP/AVP;unicast;client_port=5000-5001\r\n";
const SESSION: &str = "Session: {S}\r\n";

/// Everything that a byte can name.
pub(super) const REQUESTS: &[Request] = &[
    Http("GET /", "", ""),
    Http("GET /client.js", "", ""),
    Http("GET /metrics", "", ""),
    Http("GET /healthz", "", ""),
    Http("GET /readyz", "", ""),
    Http("GET /watch/live/h0nest", "", ""),
    Http("GET /publish/live/one?token={T}", BASIC, ""),
    Http("GET /assets/none", "", ""),
    Http("GET /flv/live/h0nest.flv?audio=opus&video=h265", "", ""),
    Http("GET /flv/far/a.flv", "", ""),
    Http("GET /flv/live/asked.flv", "", ""),
    Http("GET /api/v1/nodes", "", ""),
    Http("GET /api/v1/streams", BEARER, ""),
    Http("GET /api/v1/sessions", "", ""),
    Http("GET /api/v1/proxies", "", ""),
    Http("GET /api/v1/sources", "", ""),
    Http("GET /api/v1/destinations", "", ""),
    Http("GET /api/v1/revoked", "", ""),
    Http("PUT /api/v1/revoked/alice", "", ""),
    Http("GET /api/v1/placed/live/h0nest", "", ""),
    Http("PUT /api/v1/warm/live/h0nest", "", ""),
    Http("GET /api/v1/why/{I}", "", ""),
    Http("DELETE /api/v1/sessions/{I}", "", ""),
    Http("PUT /api/v1/nodes/n1/drain?within_s=1&stop=false", "", ""),
    Http("DELETE /api/v1/nodes/n1/drain", "", ""),
    Http("POST /api/v1/tokens?action=publish&stream=live/*&sub=alice&ttl_s=60", BASIC, ""),
    Http("OPTIONS /whip/live/two", "Origin: https://else.example\r\n", ""),
    Http("POST /whip/live/two", SDP, OFFER),
    Http("POST /whip/live/two?token={T}", SDP, OFFER),
    Http("POST /whip/a-key-of-sixteen-or-more", SDP, OFFER),
    Http("POST /whep/live/h0nest", SDP, OFFER),
    Http("POST /whep/live/vip", "Content-Type: application/sdp\r\nAuthorization: Bearer {T}\r\n", OFFER),
    Http("POST /whep/live/asked", SDP, OFFER),
    Http(
        "PATCH {L}",
        "Content-Type: application/trickle-ice-sdpfrag\r\nIf-Match: {E}\r\n",
        "a=ice-ufrag:x7Gh\r\na=ice-pwd:asd88fgpdd777uzjYhagZgde\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
         a=candidate:1 1 udp 2130706431 10.1.0.1 40000 typ host\r\na=end-of-candidates\r\n",
    ),
    Http(
        "PATCH {L}",
        "Content-Type: application/trickle-ice-sdpfrag\r\nIf-Match: *\r\n",
        "a=ice-ufrag:new1\r\na=ice-pwd:newd88fgpdd777uzjYhagZgde\r\n",
    ),
    Http("DELETE {L}", "", ""),
    Http("GET /streammanager/api/4.0/event/live/two?action=broadcast&region=local", "", ""),
    Http("GET /streammanager/api/4.0/event/live/h0nest?action=subscribe&accessToken=x", "", ""),
    Http("GET /streammanager/api/4.0/event/live/h0nest/stats?accessToken=x", "", ""),
    Http("GET /streammanager/api/4.0/event/list?accessToken=x", "", ""),
    Http("GET /streammanager/api/4.0/admin/nodegroup/default/node/origin?accessToken=x", "", ""),
    Http("GET /streammanager/api/4.0/admin/node?accessToken=x", "", ""),
    Http("GET /streammanager/api/4.0/admin/node/10.0.0.2", "", ""),
    Http("GET /streammanager/api/4.0/admin/node/10.0.0.2/stats", "", ""),
    Http("GET /streammanager/api/4.0/admin/proxy/clients?accessToken=x", "", ""),
    Http("DELETE /streammanager/api/4.0/admin/proxy/clients/{I}", "", ""),
    Http("POST /streammanager/api/4.0/admin/node/sunset?accessToken=x", "", "[\"10.0.0.2\"]"),
    Http("DELETE /streammanager/api/4.0/admin/node/10.0.0.3", "", ""),
    Http("GET /streammanager/api/4.0/admin/scalepolicy", "", ""),
    Http(
        "GET /streammanager/api/4.0/event/live/h0nest?action=subscribe&endpoints=2&region=a,b&strict=true",
        "",
        "",
    ),
    Http("GET /as/v1/streams/stream/default", BASIC, ""),
    Http("GET /as/v1/streams/stream/default?stats=true&aggregate=true", BEARER, ""),
    Http("GET /as/v1/streams/stream/default/publish/live/two", "", ""),
    Http("GET /as/v1/streams/stream/default/subscribe/live/h0nest", "", ""),
    Http("GET /as/v1/streams/stream/default/stream/live/h0nest", "", ""),
    Http("GET /as/v1/streams/stream/default/stream/live/h0nest?aggregate=true", "", ""),
    Http("GET /as/v1/streams/stream/default/subscribe/live/h0nest?endpoints=2&subgroup=a", "", ""),
    Http("PUT /as/v1/auth/login", BASIC, ""),
    Http("PUT /as/v1/auth/login", ADMIN, ""),
    Http("GET /as/v1/admin/nodegroup/status/default?metrics=true", BEARER, ""),
    Http("GET /as/v1/admin/nodegroup/status/default?role=origin&state=inservice&subGroup=a", BEARER, ""),
    Http("GET /as/v1/admin/rtcproxy", BEARER, ""),
    Http("DELETE /as/v1/admin/rtcproxy/{I}", BEARER, ""),
    Http("POST /as/v1/streams/provision/x", BEARER, "{}"),
    Http(
        "OPTIONS /as/v1/proxy/whip/live/two",
        "Origin: https://else.example\r\nAccess-Control-Request-Method: POST\r\n",
        "",
    ),
    Http("POST /live/whip/endpoint/two?signal=true", SDP, OFFER),
    Http("POST /live/whep/endpoint/h0nest", SDP, OFFER),
    Http("POST /live/whep/endpoint/h0nest?requestId=subscriber-1", "", ""),
    Http("PATCH {L}?requestId=subscriber-1", SDP, OFFER),
    Http("POST /whep/live/vip?username=alice&password=password", SDP, OFFER),
    Http("PUT /api/v1/nodes/o1/drain?within_s=1", "", ""),
    Http("DELETE /api/v1/nodes/o1/drain", "", ""),
    Http("PUT /api/v1/nodes/c1/drain?stop=true", "", ""),
    Http("GET /api/v1/nodes?wait=1", "If-None-Match: {E}\r\n", ""),
    Http("HEAD /healthz", "", ""),
    Http("GET /nothing/here", "", ""),
    Http("PUT /watch/live/h0nest", "", ""),
    Http("POST /as/v1/proxy/whip/live/two", SDP, OFFER),
    Http("POST /as/v1/proxy/whep/live/h0nest", SDP, OFFER),
    Http("GET /as/v1/proxy/ws/publish/live/two", UPGRADE, ""),
    Http("GET /as/v1/proxy/ws/subscribe/live/h0nest", UPGRADE, ""),
    Http("GET /streammanager/?host=10.0.0.1&port=5080&app=live", UPGRADE, ""),
    Http("GET /live/?token={T}&id=x2", UPGRADE, ""),
    // What is said next is said there.
    Http("GET /live/?id=x1", UPGRADE, ""),
    Text("{\"isAvailable\":\"h0nest\",\"bundle\":true}"),
    Text("{\"publish\":\"two\",\"mode\":\"live\",\"keyFramerate\":3000}"),
    Text("{\"subscribe\":\"h0nest\",\"requestId\":\"subscriber-4a3f\"}"),
    Text(
        "{\"handleOffer\":\"two\",\"transport\":\"udp\",\"data\":{\"sdp\":{\"sdp\":\"{O}\",\"type\":\"offer\"}}}",
    ),
    Text(
        "{\"handleAnswer\":\"h0nest\",\"requestId\":\"subscriber-4a3f\",\"data\":{\"sdp\":{\"sdp\":\"{O}\",\"type\":\"answer\"}}}",
    ),
    Text(
        "{\"handleCandidate\":\"h0nest\",\"data\":{\"candidate\":{\"type\":\"candidate\",\"candidate\":\"\"}}}",
    ),
    Text("{\"send\":{\"method\":\"hello\",\"data\":{}}}"),
    Text(
        "{\"callAdapter\":{\"method\":\"switchStreams\",\"arguments\":[{\"path\":\"live/h1\"}]},\"id\":7,\"async\":true}",
    ),
    Text("{\"callAdapter\":{\"method\":\"other\",\"arguments\":[]},\"id\":8}"),
    Text("{\"muteAudio\":true,\"muteVideo\":true}"),
    Text("{\"getStatistics\":1}"),
    Text("{\"unpublish\":\"two\"}"),
    Rtsp("OPTIONS *", "", ""),
    Rtsp("DESCRIBE rtsp://h/live/h0nest", "Accept: application/sdp\r\n", ""),
    Rtsp("DESCRIBE rtsp://h/cams/door", BASIC, ""),
    Rtsp("DESCRIBE rtsp://h/live/vip", DIGEST, ""),
    Rtsp("SETUP rtsp://h/live/h0nest/trackID=0", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n", ""),
    Rtsp("SETUP rtsp://h/live/h0nest/trackID=1", UDP, ""),
    Rtsp("PLAY rtsp://h/live/h0nest", SESSION, ""),
    Rtsp("PAUSE rtsp://h/live/h0nest", SESSION, ""),
    Rtsp("GET_PARAMETER rtsp://h/live/h0nest", SESSION, ""),
    Rtsp("TEARDOWN rtsp://h/live/h0nest", SESSION, ""),
    Rtsp("ANNOUNCE rtsp://h/live/s", "Content-Type: application/sdp\r\n", DESCRIPTION),
    Rtsp(
        "ANNOUNCE rtsp://h/live/s",
        "Content-Type: application/sdp\r\nAuthorization: Basic YWxpY2U6cGFzc3dvcmQ=\r\n",
        DESCRIPTION,
    ),
    Rtsp("ANNOUNCE rtsp://h/live/s?token={T}", DIGEST, DESCRIPTION),
    Rtsp("SETUP rtsp://h/live/s/streamid=0", TCP, ""),
    Rtsp("SETUP rtsp://h/live/s/streamid=1", UDP, ""),
    Rtsp("RECORD rtsp://h/live/s", SESSION, ""),
    Rtsp("SET_PARAMETER rtsp://h/live/s", SESSION, "volume: 3\r\n"),
    Rtsp("REDIRECT rtsp://h/live/s", SESSION, ""),
    Rtsp("ANNOUNCE rtsp://h/live/many", "Content-Type: application/sdp\r\n", MANY),
    Rtsp("DESCRIBE rtsp://h/live/h0nest", "User-Agent: Lavf60.16.100\r\n", ""),
    Rtsp("DESCRIBE rtsp://h/far/a", "Via: 1.0 headwater\r\n", ""),
    Whole(Service::Rtsp, include_bytes!("../../../../fuzz/seeds/rtsp_server/publish")),
    Whole(Service::Rtsp, include_bytes!("../../../../fuzz/seeds/rtsp_server/play")),
    Whole(Service::Rtmp, include_bytes!("../../../../fuzz/seeds/rtmp_server/publish")),
    Whole(Service::Rtmp, include_bytes!("../../../../fuzz/seeds/rtmp_server/play")),
];

impl Request {
    /// Whether its answer goes on for as long as the stream.
    pub(super) fn is_stream(self) -> bool {
        matches!(self, Http(line, ..) if line.starts_with("GET /flv/"))
    }

    /// Whether it makes a websocket of its connection.
    pub(super) fn is_upgrade(self) -> bool {
        matches!(self, Http(_, headers, _) if headers == UPGRADE)
    }

    /// To which service it is said, and its bytes.
    pub(super) fn said(self) -> (Service, Vec<u8>) {
        match self {
            Http(line, headers, body) => {
                let body = if line.contains("whep") {
                    body.replace("a=sendonly", "a=recvonly")
                } else {
                    body.to_owned()
                };
                let length = if body.is_empty() {
                    String::new()
                } else {
                    format!("Content-Length: {}\r\n", body.len())
                };
                (
                    Service::Http,
                    format!("{line} HTTP/1.1\r\nHost: 10.0.0.1\r\n{headers}{length}\r\n{body}").into(),
                )
            }
            Text(text) => {
                let text = text.replace("{O}", &OFFER.replace('\r', "").replace('\n', "\\r\\n"));
                let length = u16::try_from(text.len()).expect("it is shorter");
                // FIN and text; masked with noughts (RFC 6455, 5.2).
                let mut frame = vec![0x81, 0x80 | 126];
                frame.extend(length.to_be_bytes());
                frame.extend([0; 4]);
                frame.extend(text.into_bytes());
                (Service::Http, frame)
            }
            Rtsp(line, headers, body) => {
                let length = if body.is_empty() {
                    String::new()
                } else {
                    format!("Content-Length: {}\r\n", body.len())
                };
                (Service::Rtsp, format!("{line} RTSP/1.0\r\nCSeq: 5\r\n{headers}{length}\r\n{body}").into())
            }
            Whole(service, bytes) => (service, bytes.to_vec()),
        }
    }
}
