//! The stream-manager dialect at a whole node: websockets, WHIP and WHEP at its paths.

use super::proxy::{as_client, frames, masked, open};
use super::*;
use crate::http::websocket::code;
use crate::media::frame::Ingest;
use crate::media::h264::h264_params;
use crate::media::track::{CodecParams, TrackId};
use bytes::Bytes;
use serde_json::{Value, json};

fn offer() -> String {
    include_str!("offer.sdp").replace("a=recvonly", "a=sendonly")
}

struct Client {
    conn: ConnId,
}

impl Client {
    fn open(bench: &mut Bench, n: u64, id: &str) -> Client {
        let (conn, said) = open(bench, n, &format!("/live/?id={id}&token=x"));
        assert!(text_of(&said, conn).starts_with("HTTP/1.1 101"), "{said:?}");
        let (texts, ended) = as_client(&said, conn);
        let greeting = json!({"data": {"type": "status", "code": "NetConnection.Connect.Success"}});
        assert_eq!((texts.as_slice(), ended), (&[greeting.to_string()][..], None));
        Client { conn }
    }

    fn says(&self, bench: &mut Bench, message: &Value) -> Vec<Value> {
        let bytes = frames(masked(), &[&message.to_string()], None);
        let mut said = bench.tell(Input::Received { conn: self.conn, bytes: &bytes });
        said.extend(bench.tell(Input::Tick));
        assert_eq!(bench.node.verify(), Ok(()));
        as_client(&said, self.conn).0.iter().map(|t| serde_json::from_str(t).unwrap()).collect()
    }

    fn closes(&self, bench: &mut Bench) {
        let bytes = frames(masked(), &[], Some(code::NORMAL));
        bench.tell(Input::Received { conn: self.conn, bytes: &bytes });
        assert_eq!(bench.node.verify(), Ok(()));
    }
}

fn ready() -> Bench {
    let mut bench = Bench::new(|_| {});
    bench.tell(Input::UdpOpened {
        socket: MEDIA_SOCKET,
        local: "127.0.0.1:8189".parse().unwrap(),
        max_segments: 16,
    });
    bench.later(Duration::from_millis(2_100));
    bench
}

/// `live/{name}` is published over a websocket; its tracks are known.
fn published(bench: &mut Bench, n: u64, name: &str) -> Client {
    let client = Client::open(bench, n, name);
    let said = client.says(bench, &json!({"isAvailable": name, "bundle": true}));
    assert_eq!(said, [json!({"isAvailable": false, "id": name})]);
    let offered =
        json!({"handleOffer": name, "transport": "udp", "data": {"sdp": {"sdp": offer(), "type": "offer"}}});
    let said = client.says(bench, &offered);
    let codes: Vec<&str> = said.iter().map(|m| m["data"]["code"].as_str().unwrap_or("")).collect();
    // Our answer, a candidate for UDP and one for TCP.
    assert_eq!(codes, ["", "", "", "NetConnection.ICE.TrickleCompleted"], "{said:?}");
    assert!(said[0]["data"]["sdp"]["sdp"].as_str().unwrap().contains("a=recvonly"));
    let candidate = &said[1]["data"]["candidate"];
    assert!(candidate["candidate"].as_str().unwrap().contains("127.0.0.1 8189 typ host"), "{candidate}");
    let said = client.says(bench, &json!({"publish": name, "mode": "live", "keyFramerate": 3000}));
    assert_eq!(said[0]["data"]["message"], format!("{name} starting"));
    let session = bench.node.sessions.iter().find(|s| s.key.name() == name).unwrap().id;
    let sets = [&[0x67, 0x42, 0xe0, 0x1f, 0x8d, 0x68][..], &[0x68, 0xce, 0x3c, 0x80][..]]
        .map(Bytes::copy_from_slice);
    let [sps, pps] = sets;
    let params = h264_params(vec![sps], vec![pps]);
    bench.node.ingest(session, Ingest::Config { track: TrackId::VIDEO, params });
    let params = CodecParams::Opus { channels: 2 };
    bench.node.ingest(session, Ingest::Config { track: TrackId::AUDIO, params });
    bench.tell(Input::Tick);
    client
}

fn http(bench: &mut Bench, conn: ConnId, head: &str, body: &str) -> String {
    let request = format!("{head}\r\nHost: n\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut said = bench.tell(Input::Received { conn, bytes: request.as_bytes() });
    said.extend(bench.tell(Input::Tick));
    assert_eq!(bench.node.verify(), Ok(()));
    text_of(&said, conn)
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let line = |l: &'a str| l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v);
    answer.lines().find_map(line).unwrap_or_default()
}

fn answer_sdp(mid: &str) -> String {
    let print = ["AA"; 32].join(":");
    format!(
        "v=0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 {print}\r\n\
         a=setup:active\r\nm=video 9 UDP/TLS/RTP/SAVPF 102\r\na=mid:{mid}\r\n"
    )
}

#[test]
fn a_publisher_by_websocket_holds_its_name_until_it_stops_or_leaves() {
    let mut bench = ready();
    let first = published(&mut bench, 1, "s1");
    let second = Client::open(&mut bench, 2, "s1");
    let said = second.says(&mut bench, &json!({"isAvailable": "s1", "bundle": true}));
    assert_eq!(said, [json!({"isAvailable": true, "id": "s1"})]);
    let offered = json!({"handleOffer": "s1", "data": {"sdp": {"sdp": offer(), "type": "offer"}}});
    let said = second.says(&mut bench, &offered);
    assert_eq!(said[0]["data"]["detail"], "name_busy", "{said:?}");
    let stopped = first.says(&mut bench, &json!({"unpublish": "s1"}));
    assert_eq!(stopped[0]["data"]["message"], "s1 stopping");
    assert!(bench.node.sessions.is_empty());

    // The websocket alone: without a switch, its end is the session's.
    let third = published(&mut bench, 3, "s3");
    third.closes(&mut bench);
    assert!(bench.node.sessions.is_empty());
    for client in [first, second] {
        client.closes(&mut bench);
    }
    assert_eq!(bench.node.signals.audit(), (0, true));
    bench.later(Duration::from_secs(60));
    assert_eq!(bench.node.verify(), Ok(()));
    assert_eq!(bench.node.rtc.sessions(), (0, 0));
}

#[test]
fn a_name_that_is_published_on_another_node_is_not_available() {
    let mut bench = ready();
    super::proxy::register(&mut bench, 7, config::Role::Origin);
    super::proxy::report_as(&mut bench, 7);
    let client = Client::open(&mut bench, 1, "on");
    for bundle in [true, false] {
        let said = client.says(&mut bench, &json!({"isAvailable": "on", "bundle": bundle}));
        assert_eq!(said, [json!({"isAvailable": true, "id": "on"})]);
    }
    let free = Client::open(&mut bench, 2, "free");
    let said = free.says(&mut bench, &json!({"isAvailable": "free", "bundle": true}));
    assert_eq!(said, [json!({"isAvailable": false, "id": "free"})]);
    // A client that leaves before the answer leaves nothing behind.
    free.closes(&mut bench);
    client.closes(&mut bench);
    assert_eq!(bench.node.signals.audit(), (0, true));
}

#[test]
fn a_viewer_by_websocket_is_told_what_is_live_and_gets_an_offer() {
    let mut bench = ready();
    let _publisher = published(&mut bench, 1, "s1");
    let viewer = Client::open(&mut bench, 2, "subscriber-1");
    assert_eq!(
        viewer.says(&mut bench, &json!({"isAvailable": "s1"})),
        [json!({"isAvailable": true, "id": "s1"})]
    );
    let said = viewer
        .says(&mut bench, &json!({"requestOffer": "s1", "requestId": "subscriber-1", "datachannel": true}));
    let sdp = said[0]["data"]["sdp"]["sdp"].as_str().unwrap();
    assert!(sdp.contains("m=audio") && sdp.contains("m=video") && sdp.contains("m=application"), "{sdp}");
    assert!(sdp.contains("a=setup:actpass") && sdp.contains("a=sendonly"), "{sdp}");
    let answer = json!({"handleAnswer": "s1", "data": {"sdp": {"sdp": answer_sdp("1"), "type": "answer"}}});
    let said = viewer.says(&mut bench, &answer);
    assert_eq!(said[2]["data"]["code"], "NetConnection.ICE.TrickleCompleted", "{said:?}");
    let said = viewer.says(&mut bench, &json!({"subscribe": "s1", "requestId": "subscriber-1"}));
    assert_eq!((&said[0]["data"]["message"], &said[1]["type"]), (&json!("s1 starting"), &json!("metadata")));
    viewer.closes(&mut bench);
    assert_eq!(bench.node.sessions.len(), 1, "the publisher's");

    // Nobody publishes it: told so when the search is over, and the websocket may ask for another.
    let viewer = Client::open(&mut bench, 3, "subscriber-2");
    let mut said = viewer.says(&mut bench, &json!({"isAvailable": "absent"}));
    for _ in 0..100 {
        let later = bench.later(Duration::from_millis(100));
        said.extend(as_client(&later, viewer.conn).0.iter().map(|t| serde_json::from_str(t).unwrap()));
    }
    assert_eq!(said[0], json!({"isAvailable": false, "id": "absent"}));
}

#[test]
fn whip_and_whep_in_the_dialect() {
    let mut bench = ready();
    let conn = bench.accept(7, Service::Http);
    let preflight = http(
        &mut bench,
        conn,
        "OPTIONS /live/whip/endpoint/w1?signal=true HTTP/1.1\r\nOrigin: https://p\r\nAccess-Control-Request-Method: OPTIONS",
        "",
    );
    assert!(header(&preflight, "access-control-allow-methods").contains("OPTIONS"), "{preflight}");
    let options = http(&mut bench, conn, "OPTIONS /live/whip/endpoint/w1?signal=true HTTP/1.1", "");
    assert_eq!(header(&options, "link"), "<stun:127.0.0.1:8189>; rel=\"ice-server\"");
    assert_eq!(options.to_ascii_lowercase().matches("\r\nlink:").count(), 1);
    assert_eq!(
        (header(&options, "session-host"), header(&options, "accept-post")),
        ("127.0.0.1", "application/sdp")
    );
    let exposed = header(&options, "access-control-expose-headers");
    for name in ["Location", "Link", "Session-Host", "ETag"] {
        assert!(exposed.contains(name), "{exposed}");
    }

    let sdp = "Content-Type: application/sdp";
    let post = format!("POST /live/whip/endpoint/w1?signal=true&mode=live HTTP/1.1\r\n{sdp}");
    let created = http(&mut bench, conn, &post, &offer());
    assert!(created.starts_with("HTTP/1.1 201"), "{created}");
    let (location, etag) = (header(&created, "location").to_owned(), header(&created, "etag").to_owned());
    assert!(location.starts_with("/live/whip/resource/w1/"), "{location}");
    assert!(header(&created, "link").starts_with("<stun:"));

    let theirs = |name: &str| {
        let sdp = offer();
        sdp.lines().find_map(|l| l.strip_prefix(name)).unwrap().to_owned()
    };
    let (ufrag, pwd) = (theirs("a=ice-ufrag:"), theirs("a=ice-pwd:"));
    let kind = "Content-Type: application/trickle-ice-sdpfrag";
    let fragment = |ufrag: &str| {
        format!(
            "a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\nm=audio 9 x 0\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.9 9 typ host\r\na=end-of-candidates\r\n"
        )
    };
    let mut patch = |more: &str, body: &str| {
        http(&mut bench, conn, &format!("PATCH {location}?host=127.0.0.1 HTTP/1.1\r\n{kind}{more}"), body)
    };
    assert!(patch("", &fragment(&ufrag)).starts_with("HTTP/1.1 204"));
    assert!(patch(&format!("\r\nIf-Match: {etag}"), &fragment(&ufrag)).starts_with("HTTP/1.1 204"));
    assert!(patch("\r\nIf-Match: \"old\"", &fragment(&ufrag)).starts_with("HTTP/1.1 412"));
    assert!(patch("", &fragment("other")).starts_with("HTTP/1.1 428"));
    assert!(patch("", "nonsense").starts_with("HTTP/1.1 400"));
    let restarted = patch("\r\nIf-Match: *", &fragment("other"));
    assert!(restarted.starts_with("HTTP/1.1 200") && restarted.contains("a=ice-ufrag:"), "{restarted}");
    assert!(header(&restarted, "etag").starts_with('"') && header(&restarted, "etag") != etag);
    assert!(patch(&format!("\r\nIf-Match: {etag}"), &fragment("other")).starts_with("HTTP/1.1 412"));
    let delete = format!("DELETE {location}?host=127.0.0.1 HTTP/1.1");
    assert!(http(&mut bench, conn, &delete, "").starts_with("HTTP/1.1 200"));

    let _publisher = published(&mut bench, 8, "s1");
    let post = format!("POST /live/whep/endpoint/s1?requestId=subscriber-1&signal=true HTTP/1.1\r\n{sdp}");
    let created = http(&mut bench, conn, &post, "");
    assert!(created.starts_with("HTTP/1.1 201") && created.contains("a=setup:actpass"), "{created}");
    assert!(created.contains("m=application 9"), "signal=true asks for data channels");
    let location = header(&created, "location").to_owned();
    assert!(location.starts_with("/live/whep/resource/s1/"), "{location}");
    let mut patch = |body: &str| {
        http(&mut bench, conn, &format!("PATCH {location}?requestId=subscriber-1 HTTP/1.1\r\n{sdp}"), body)
    };
    assert!(patch("v=0\r\n").starts_with("HTTP/1.1 400"));
    assert!(patch(&answer_sdp("1")).starts_with("HTTP/1.1 204"));
    assert!(patch(&answer_sdp("1")).starts_with("HTTP/1.1 409"));
    let delete = format!("DELETE {location}?requestId=subscriber-1&host=127.0.0.1 HTTP/1.1");
    assert!(http(&mut bench, conn, &delete, "").starts_with("HTTP/1.1 200"));

    // Without a requestId it is plain WHEP, and the offer is the viewer's.
    let post = format!("POST /live/whep/endpoint/s1 HTTP/1.1\r\n{sdp}");
    let created = http(&mut bench, conn, &post, include_str!("offer.sdp"));
    assert!(created.starts_with("HTTP/1.1 201") && created.contains("a=setup:passive"), "{created}");
    let busy = format!("POST /live/whip/endpoint/s1 HTTP/1.1\r\n{sdp}");
    assert!(http(&mut bench, conn, &busy, &offer()).starts_with("HTTP/1.1 409"));
}

/// A viewer's media does not flow on the bench: what is seen is where its session stands.
#[test]
fn a_viewer_that_switches_is_told_and_a_search_ends_with_its_viewer() {
    let mut bench = ready();
    let _first = published(&mut bench, 1, "s1");
    let viewer = Client::open(&mut bench, 2, "subscriber-1");
    let switch = |path: &str| json!({"callAdapter": {"method": "switchStreams", "arguments": [{"path": path}]}, "id": "9", "async": true});
    let said = viewer.says(&mut bench, &json!({"requestOffer": "s1", "requestId": "subscriber-1"}));
    assert_eq!(said[0]["data"]["sdp"]["type"], "offer");
    let answer = json!({"handleAnswer": "s1", "data": {"sdp": {"sdp": answer_sdp("1"), "type": "answer"}}});
    viewer.says(&mut bench, &answer);
    viewer.says(&mut bench, &json!({"subscribe": "s1", "requestId": "subscriber-1"}));
    // Its media path does not stand, so there is nothing to switch.
    let said = viewer.says(&mut bench, &switch("live/s1"));
    assert!(said[0]["error"].as_str().unwrap().contains("nothing plays yet"), "{said:?}");
    let said = viewer.says(&mut bench, &switch("no-app"));
    assert!(said[0]["error"].is_string(), "{said:?}");
    let said = viewer.says(&mut bench, &switch("live/absent"));
    assert_eq!(said[0]["error"], "nobody publishes live/absent", "{said:?}");
    // It leaves while a stream is pulled that it wants to switch to: so does the search.
    super::proxy::register(&mut bench, 7, config::Role::Origin);
    super::proxy::report_as(&mut bench, 7);
    assert_eq!(viewer.says(&mut bench, &switch("live/on")), [] as [Value; 0]);
    assert_eq!(bench.node.sessions.len(), 3, "publisher, viewer, search");
    viewer.closes(&mut bench);
    assert_eq!(bench.node.sessions.len(), 1, "the publisher's");
    assert_eq!(bench.node.signals.audit(), (1, true));
}
