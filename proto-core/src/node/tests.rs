//! The node as a whole, driven by hand: what no single machine can show.

mod auth;
mod callback;
mod dialect;
mod flv;
mod in_step;
mod loops;
mod proxy;
mod several;

use super::config::Config;
use super::*;
use crate::io::{ConnId, Input, Level, Output, Service};
use crate::machine::Machine;
use crate::rtc::Identity;
use crate::time::WallTime;
use std::time::Duration;

/// A node that has every role, and its clock.
struct Bench {
    node: Node,
    now: Time,
}

impl Bench {
    fn new(change: impl FnOnce(&mut Config)) -> Bench {
        let mut config = Config { bind: "127.0.0.1".parse().unwrap(), ..Config::default() };
        config.node.name = "n".to_owned();
        change(&mut config);
        #[allow(
            clippy::disallowed_methods,
            reason = "str0m wants some Instant to count from; which one is all the same"
        )]
        let start = Instant::now();
        let identity = identity::Identity { rtc: Identity::generate().unwrap(), tls: Some(tls_identity()) };
        let node = Node::new(config, [7; 32], start, identity).unwrap();
        let mut bench = Bench { node, now: Time::ZERO };
        bench.tell(Input::WallClock(WallTime(1_700_000_000_000_000_000)));
        bench.tell(Input::HostAddresses(&[]));
        bench
    }

    fn tell(&mut self, input: Input<'_>) -> Vec<Output> {
        self.node.handle(input, self.now);
        std::iter::from_fn(|| self.node.poll()).collect()
    }

    fn later(&mut self, by: Duration) -> Vec<Output> {
        self.now += by;
        self.tell(Input::Tick)
    }

    fn accept(&mut self, n: u64, service: Service) -> ConnId {
        let conn = ConnId::accepted(n);
        let local = "127.0.0.1:5080".parse().unwrap();
        let remote = format!("192.0.2.1:{}", 1024 + n).parse().unwrap();
        self.tell(Input::Accepted { conn, service, local, remote });
        self.tell(Input::Writable { conn, free: 1 << 20 });
        conn
    }

    fn get(&mut self, conn: ConnId, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: n\r\n\r\n");
        let said = self.tell(Input::Received { conn, bytes: request.as_bytes() });
        text_of(&said, conn)
    }
}

fn tls_identity() -> crate::tls::Identity {
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["n".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    crate::tls::Identity::new(provider, own.der().to_vec(), key.serialize_der())
}

fn text_of(said: &[Output], of: ConnId) -> String {
    let bytes = said.iter().filter_map(|o| match o {
        Output::Send { conn, bytes } if *conn == of => Some(bytes.to_vec()),
        _ => None,
    });
    String::from_utf8_lossy(&bytes.flatten().collect::<Vec<u8>>()).into_owned()
}

fn closed(said: &[Output], of: ConnId) -> bool {
    said.iter().any(|o| matches!(o, Output::Close { conn, .. } if *conn == of))
}

/// Whether a line of the log has all these words.
fn logged(said: &[Output], words: &[&str]) -> bool {
    said.iter().any(|o| matches!(o, Output::Log(l) if words.iter().all(|w| l.text.contains(w))))
}

#[test]
fn a_panic_in_one_session_ends_that_session_and_no_other() {
    let mut bench = Bench::new(|_| {});
    let broken = bench.accept(1, Service::Http);
    let healthy = bench.accept(2, Service::Http);
    bench.node.conns.get_mut(&broken).unwrap().proto = conns::Proto::Broken;
    let said = bench.tell(Input::Received { conn: broken, bytes: b"x" });
    assert!(closed(&said, broken));
    assert!(said.iter().any(|o| matches!(o, Output::Log(l) if l.text.contains("planted"))), "{said:?}");
    assert!(bench.get(healthy, "/healthz").starts_with("HTTP/1.1 200"));
    let metrics = bench.get(healthy, "/metrics");
    assert!(
        metrics.contains(r#"headwater_ended_total{what="http",fault="local",reason="panic"} 1"#),
        "{metrics}"
    );
    assert_eq!(bench.node.conns.len(), 1);
}

#[test]
fn idle_connections_of_one_address_are_limited_and_the_refusal_is_counted() {
    let mut bench = Bench::new(|c| c.limits.conns_per_ip = 3);
    for n in 1..=3 {
        bench.accept(n, Service::Rtmp);
    }
    let conn = ConnId::accepted(9);
    let (local, remote) = ("127.0.0.1:1935".parse().unwrap(), "192.0.2.1:99".parse().unwrap());
    let said = bench.tell(Input::Accepted { conn, service: Service::Rtmp, local, remote });
    assert!(closed(&said, conn));
    assert_eq!(bench.node.counters.dropped[&("conn", "conns_per_ip")], 1);
    let other = "192.0.2.2:99".parse().unwrap();
    let said = bench.tell(Input::Accepted {
        conn: ConnId::accepted(10),
        service: Service::Rtmp,
        local,
        remote: other,
    });
    assert!(!closed(&said, ConnId::accepted(10)));
}

#[test]
fn an_address_that_closed_its_connections_may_come_again() {
    let mut bench = Bench::new(|c| c.limits.conns_per_ip = 1);
    for n in 1..5 {
        let conn = bench.accept(n, Service::Http);
        assert!(bench.get(conn, "/healthz").contains("ok"), "connection {n}");
        bench.tell(Input::Closed { conn, reason: Reason::peer("peer_closed", "gone") });
    }
    assert!(bench.node.conns_per_ip.is_empty());
}

#[test]
fn a_draining_node_takes_nothing_new_and_says_when_it_is_done() {
    let mut bench = Bench::new(|_| {});
    let conn = bench.accept(1, Service::Http);
    assert!(bench.tell(Input::Drain).iter().any(|o| matches!(o, Output::Drained)));
    let body = "v=0\r\n";
    let offer = format!(
        "POST /whip/live/x HTTP/1.1\r\nHost: n\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let said = bench.tell(Input::Received { conn, bytes: offer.as_bytes() });
    let answer = text_of(&said, conn);
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("about to stop"), "{answer}");
    assert!(!said.iter().any(|o| matches!(o, Output::Drained)), "said once");
}

#[test]
fn a_viewer_of_a_name_that_nobody_publishes_is_told_so_and_leaves_nothing_behind() {
    let mut bench = Bench::new(|_| {});
    let conn = bench.accept(1, Service::Http);
    let body = include_str!("tests/offer.sdp");
    let offer = format!(
        "POST /whep/live/x HTTP/1.1\r\nHost: n\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut said = bench.tell(Input::Received { conn, bytes: offer.as_bytes() });
    for _ in 0..100 {
        said.extend(bench.later(Duration::from_millis(100)));
    }
    let answer = text_of(&said, conn);
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(
        bench.node.sessions.is_empty()
            && bench.node.play_waiting.is_empty()
            && bench.node.whep_waiting.is_empty()
    );
}

#[test]
fn an_idle_node_sleeps_until_its_next_report() {
    let mut bench = Bench::new(|_| {});
    let mut wakes = 0;
    let end = Time::from_millis(10_000);
    while bench.now < end {
        let next = bench.node.deadline().expect("a node always reports").at;
        assert!(next > bench.now, "a deadline in the past: {:?}", bench.node.deadline());
        bench.now = next;
        bench.tell(Input::Tick);
        wakes += 1;
    }
    assert!(wakes <= 50, "{wakes} wake-ups in 10 s");
}

#[test]
fn viewers_who_ask_for_ever_new_names_cannot_make_the_node_hold_ever_more() {
    let mut bench = Bench::new(|c| {
        c.limits.streams = 3;
        // Their manager never answers, so that each search stays open.
        c.node.roles = vec![Role::Edge];
        c.cluster.manager = "127.0.0.9".to_owned();
    });
    let body = include_str!("tests/offer.sdp");
    let mut refused = 0;
    for n in 0..8 {
        let conn = bench.accept(n, Service::Http);
        let offer = format!(
            "POST /whep/live/x{n} HTTP/1.1\r\nHost: n\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let said = bench.tell(Input::Received { conn, bytes: offer.as_bytes() });
        let answer = text_of(&said, conn);
        if answer.contains("limits.streams") {
            assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
            refused += 1;
        }
    }
    assert_eq!(refused, 5);
    assert_eq!(bench.node.pulls.len(), 3);
    assert_eq!(bench.node.counters.dropped[&("pull", "too_many_pulls")], 5);
    for _ in 0..300 {
        bench.later(Duration::from_millis(100));
    }
    assert_eq!(bench.node.pulls.len(), 0, "what nobody waits for any more is forgotten");
    assert!(bench.node.sessions.is_empty() && bench.node.play_waiting.is_empty());
}

#[test]
fn a_publisher_that_is_replaced_before_its_tracks_settled_leaves_no_alarm_that_rings_for_ever() {
    use crate::hub::SourceId;
    use crate::ids::Epoch;
    use crate::media::frame::Ingest;
    use crate::media::track::{CodecParams, TrackId};
    let mut bench = Bench::new(|_| {});
    let key = StreamKey::parse("live/x").unwrap();
    let (now, epoch) = (bench.now, |count| Epoch { term: 1, count });
    let stream = bench.node.hub.publish(&key, epoch(1), SourceId(1), now).unwrap();
    let sound = Ingest::Config { track: TrackId(1), params: CodecParams::Opus { channels: 2 } };
    bench.node.hub.ingest(stream, SourceId(1), sound.clone(), now);
    bench.node.stream_has_tracks(&key);
    // The next publisher has said nothing of its tracks when those of the first would have settled.
    bench.node.hub.publish(&key, epoch(2), SourceId(2), now).unwrap();
    bench.later(Duration::from_millis(301));
    assert!(bench.node.deadline().is_some_and(|d| d.at > bench.now), "{:?}", bench.node.deadline());
    // Its own tracks have their time from their own beginning.
    bench.node.hub.ingest(stream, SourceId(2), sound, bench.now);
    bench.node.stream_has_tracks(&key);
    assert!(!bench.node.is_settled(stream), "pictures may follow");
    bench.later(Duration::from_millis(1_501));
    assert!(bench.node.is_settled(stream));
}

#[test]
fn a_viewer_waits_for_pictures_whose_encoder_starts_slower_than_that_of_sound() {
    use crate::hub::SourceId;
    use crate::ids::Epoch;
    use crate::media::frame::Ingest;
    use crate::media::track::{CodecParams, TrackId};
    let mut bench = Bench::new(|_| {});
    let key = StreamKey::parse("live/x").unwrap();
    let stream = bench.node.hub.publish(&key, Epoch { term: 1, count: 1 }, SourceId(1), bench.now).unwrap();
    let track = |bench: &mut Bench, id, params| {
        let config = Ingest::Config { track: TrackId(id), params };
        bench.node.hub.ingest(stream, SourceId(1), config, bench.now);
        bench.node.stream_has_tracks(&key);
    };
    track(&mut bench, 1, CodecParams::Opus { channels: 2 });
    bench.later(Duration::from_millis(1_000));
    assert!(!bench.node.is_settled(stream), "who joined now would never get pictures");
    track(&mut bench, 2, CodecParams::Vp8 { size: None });
    assert!(bench.node.is_settled(stream));
    // Where sound is missing, it is not waited for so long.
    let key = StreamKey::parse("live/y").unwrap();
    let silent = bench.node.hub.publish(&key, Epoch { term: 1, count: 2 }, SourceId(2), bench.now).unwrap();
    let config = Ingest::Config { track: TrackId(2), params: CodecParams::Vp8 { size: None } };
    bench.node.hub.ingest(silent, SourceId(2), config, bench.now);
    bench.node.stream_has_tracks(&key);
    bench.later(Duration::from_millis(301));
    assert!(bench.node.is_settled(silent));
}

#[test]
fn a_node_that_pulls_twice_under_one_number_leaves_no_session_behind() {
    use crate::hub::SourceId;
    use crate::ids::Epoch;
    let mut bench = Bench::new(|c| c.cluster.key = "a key".to_owned());
    let key = StreamKey::parse("live/x").unwrap();
    bench.node.hub.publish(&key, Epoch { term: 1, count: 1 }, SourceId(1), bench.now).unwrap();
    let link = bench.accept(1, Service::Link);
    for _ in 0..2 {
        bench.node.asked_to_serve(link, 7, key.clone(), vec![NodeId("other".to_owned())], None);
    }
    bench.tell(Input::Closed { conn: link, reason: Reason::peer("reset", "gone") });
    assert!(bench.node.sessions.is_empty(), "{:?}", bench.node.sessions);
}

fn ask(
    bench: &mut Bench,
    conn: ConnId,
    method: &str,
    target: &str,
    headers: &str,
    body: &str,
) -> (u16, String) {
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:5080\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let said = bench.tell(Input::Received { conn, bytes: request.as_bytes() });
    let text = text_of(&said, conn);
    (text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0), text)
}

fn json(answer: &str) -> serde_json::Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// The address of the bench's connections is no loopback address: whoever changes something needs a token.
#[test]
fn the_dialects_answers_have_the_shapes_and_errors_of_their_generations() {
    let mut bench = Bench::new(|c| {
        c.manager.password = "s3cret".to_owned();
        c.manager.node_group = "ours".to_owned();
        c.node.region = "eu".to_owned();
    });
    let conn = bench.accept(1, Service::Http);
    for path in ["live/x", "%2Flive/x", "/live/x"] {
        let target = format!("/streammanager/api/4.0/event/{path}?action=broadcast");
        let (status, text) = ask(&mut bench, conn, "GET", &target, "", "");
        assert_eq!(status, 200, "{text}");
        assert_eq!(json(&text)["serverAddress"], "127.0.0.1");
        assert_eq!(json(&text)["scope"], "/live");
    }
    let (_, text) = ask(
        &mut bench,
        conn,
        "GET",
        "/streammanager/api/3.1/event/live/x?action=broadcast&endpoints=2",
        "",
        "",
    );
    assert_eq!(json(&text).as_array().unwrap().len(), 1, "an array, of those that there are");
    let strict = "/streammanager/api/4.0/event/live/x?action=broadcast&endpoints=2&strict=true";
    let (status, text) = ask(&mut bench, conn, "GET", strict, "", "");
    assert_eq!(status, 404, "{text}");
    assert!(json(&text)["errorMessage"].is_string() && json(&text)["timestamp"].is_u64());
    let (status, text) =
        ask(&mut bench, conn, "GET", "/as/v1/streams/stream/default/publish/live/x?subgroup=us,eu", "", "");
    assert_eq!(status, 200, "{text}");
    let node = &json(&text)[0];
    assert_eq!((node["streamGuid"].as_str(), node["nodeRole"].as_str()), (Some("live/x"), Some("origin")));
    assert_eq!((node["subGroup"].as_str(), node["nodeState"].as_str()), (Some("eu"), Some("INSERVICE")));
    for (target, status) in [
        ("/as/v1/streams/stream/ours/publish/live/x?region=mars&strict=true", 404),
        ("/as/v1/streams/stream/other/publish/live/x", 404),
        ("/as/v1/streams/stream/ours/subscribe/live/x", 404),
        ("/as/v1/streams/stream/ours/publish/live/x?endpoints=99", 400),
        ("/as/v1/streams/stream/ours/stream/live/x", 404),
    ] {
        let (got, text) = ask(&mut bench, conn, "GET", target, "", "");
        assert_eq!(got, status, "{target}: {text}");
        assert!(
            json(&text)["error"].is_string() && text.contains("Access-Control-Allow-Origin: *"),
            "{text}"
        );
    }
    for target in [
        "/streammanager/api/4.0/event/list",
        "/streammanager/api/4.0/admin/node",
        "/streammanager/api/4.0/admin/node/127.0.0.1/stats",
        "/as/v1/streams/stream/default?aggregate=true",
        "/as/v1/admin/nodegroup/status/default?metrics=true",
    ] {
        let (status, text) = ask(&mut bench, conn, "GET", target, "", "");
        assert_eq!(status, 200, "{target}: {text}");
    }
}

#[test]
fn a_login_gives_a_token_and_only_with_it_may_a_stranger_change_things() {
    let mut bench = Bench::new(|c| c.manager.password = "s3cret".to_owned());
    let conn = bench.accept(1, Service::Http);
    let sunset = "/streammanager/api/4.0/admin/node/sunset";
    assert_eq!(ask(&mut bench, conn, "POST", sunset, "", "[\"n\"]").0, 403, "not from this host");
    let login = |bench: &mut Bench, credentials: &str| {
        let headers = format!("Origin: https://page.example\r\nAuthorization: Basic {credentials}\r\n");
        ask(bench, conn, "PUT", "/as/v1/auth/login", &headers, "")
    };
    assert_eq!(login(&mut bench, "YWRtaW46d3Jvbmc=").0, 401, "admin:wrong");
    let (status, text) = login(&mut bench, "YWRtaW46czNjcmV0");
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("Access-Control-Allow-Origin: https://page.example"), "{text}");
    assert!(text.contains("Access-Control-Allow-Credentials: true"), "{text}");
    let token = json(&text)["token"].as_str().unwrap().to_owned();
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let bent = bearer.replace("Bearer e", "Bearer f");
    assert_eq!(ask(&mut bench, conn, "POST", sunset, &bent, "[\"n\"]").0, 401);
    assert_eq!(ask(&mut bench, conn, "POST", sunset, &bearer, "[\"n\",\"other\"]").0, 404, "all or none");
    assert!(!bench.node.draining);
    let by_query = format!("{sunset}?accessToken={token}");
    assert_eq!(ask(&mut bench, conn, "POST", &by_query, "", "[\"127.0.0.1\"]").0, 200);
    assert!(bench.node.draining && !bench.node.stopping);
    let (status, text) =
        ask(&mut bench, conn, "GET", "/streammanager/api/4.0/event/live/x?action=broadcast", "", "");
    assert_eq!(status, 503, "{text}");
    assert_eq!(ask(&mut bench, conn, "DELETE", "/api/v1/nodes/n/drain", &bearer, "").0, 204);
    assert!(!bench.node.draining, "taken back");
    for _ in 0..5 {
        login(&mut bench, "YWRtaW46d3Jvbmc=");
    }
    assert_eq!(login(&mut bench, "YWRtaW46czNjcmV0").0, 429);
    bench.later(Duration::from_secs(1));
    assert_eq!(login(&mut bench, "YWRtaW46czNjcmV0").0, 200);
    bench.later(Duration::from_secs(3_700));
    let conn = bench.accept(2, Service::Http);
    assert_eq!(ask(&mut bench, conn, "DELETE", "/api/v1/nodes/n/drain", &bearer, "").0, 401, "expired");
}

#[test]
fn a_node_that_an_operator_ends_through_the_manager_stops_when_nothing_is_left() {
    let mut bench = Bench::new(|_| {});
    bench.node.ordered_drain(true, 0, false);
    assert!(!bench.later(Duration::from_millis(1)).iter().any(|o| matches!(o, Output::Drained)), "it stays");
    bench.node.ordered_drain(true, 0, true);
    assert!(bench.later(Duration::from_millis(1)).iter().any(|o| matches!(o, Output::Drained)));
}

#[test]
fn a_node_past_its_capacity_refuses_newcomers_in_words() {
    let mut bench = Bench::new(|_| {});
    let conn = bench.accept(1, Service::Http);
    let offer = include_str!("tests/offer.sdp");
    let sdp = "Content-Type: application/sdp\r\n";
    for _ in 0..3 {
        bench.tell(Input::Busy { permille: 990 });
        bench.later(Duration::from_millis(1_001));
    }
    for target in ["/whep/live/x", "/whip/live/x"] {
        let (status, text) = ask(&mut bench, conn, "POST", target, sdp, offer);
        assert_eq!(status, 503, "{text}");
        assert!(
            text.contains("at its capacity") && text.contains("99.0 %") && text.contains("Retry-After"),
            "{text}"
        );
    }
    bench.tell(Input::Busy { permille: 300 });
    bench.later(Duration::from_millis(1_001));
    assert!(bench.node.no_room().is_none(), "one calm second is enough");
    bench.node.load.joined_bps = 1_000_000_000;
    let reason = bench.node.no_room().unwrap();
    assert!(reason.text.contains("1000 of the 1000 Mbit/s"), "{}", reason.text);
}

/// The hello of a client that speaks TLS.
fn hello() -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("n").unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn plain_speakers_on_tls_ports_are_told() {
    let mut bench = Bench::new(|_| {});
    let http = bench.accept(1, Service::Https);
    let said = bench.tell(Input::Received { conn: http, bytes: b"GET / HTTP/1.1\r\nHost: n\r\n\r\n" });
    let text = text_of(&said, http);
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("https://"), "{text}");
    let mut all = said;
    let said = bench.tell(Input::PeerFinished { conn: http });
    assert!(closed(&said, http), "{said:?}");
    all.extend(said);
    assert!(logged(&all, &["192.0.2.1:1025", "plain HTTP arrived", "https://"]), "{all:?}");
    let rtmp = bench.accept(2, Service::Rtmps);
    let said = bench.tell(Input::Received { conn: rtmp, bytes: &[3; 100] });
    assert!(closed(&said, rtmp), "{said:?}");
    assert!(logged(&said, &["192.0.2.1:1026", "plain RTMP arrived", "rtmps://"]), "{said:?}");
    let rtsp = bench.accept(3, Service::Rtsps);
    let mut said =
        bench.tell(Input::Received { conn: rtsp, bytes: b"OPTIONS rtsp://n/ RTSP/1.0\r\nCSeq: 1\r\n\r\n" });
    assert!(text_of(&said, rtsp).starts_with("RTSP/1.0 400"), "{said:?}");
    said.extend(bench.tell(Input::Closed { conn: rtsp, reason: Reason::peer("reset", "the peer reset it") }));
    assert!(logged(&said, &["192.0.2.1:1027", "plain RTSP arrived", "rtsps://"]), "{said:?}");
    assert_eq!(bench.node.verify(), Ok(()));
}

#[test]
fn handshakes_beyond_the_work_of_a_turn_wait_for_the_next() {
    let mut bench = Bench::new(|_| {});
    let conns: Vec<ConnId> = (1..=9).map(|n| bench.accept(n, Service::Https)).collect();
    let hello = hello();
    let answered = |said: &[Output]| {
        conns
            .iter()
            .filter(|c| said.iter().any(|o| matches!(o, Output::Send { conn, .. } if conn == *c)))
            .count()
    };
    let mut at_once = 0;
    for conn in &conns {
        let said = bench.tell(Input::Received { conn: *conn, bytes: &hello });
        at_once += answered(&said);
    }
    assert_eq!(at_once, 4, "2,000 microseconds of work at 500 each");
    for more in [4, 1, 0] {
        let said = bench.later(Duration::from_millis(1));
        assert_eq!(answered(&said), more);
    }
}

#[test]
fn a_tls_handshake_that_does_not_end_is_ended() {
    let mut bench = Bench::new(|_| {});
    let conn = bench.accept(1, Service::Https);
    bench.tell(Input::Received { conn, bytes: &hello() });
    assert!(!closed(&bench.later(Duration::from_millis(9_000)), conn));
    let said = bench.later(Duration::from_millis(1_000));
    assert!(closed(&said, conn), "{said:?}");
    assert_eq!(bench.node.verify(), Ok(()));
}

#[test]
fn certificate_files_are_read_and_read_again() {
    use crate::io::{Answer, Work};
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let good: bytes::Bytes = format!("{}{}", own.pem(), key.serialize_pem()).into();
    let mut bench = Bench::new(|c| c.tls.certificates = vec!["both.pem".to_owned()]);
    let early = bench.accept(1, Service::Https);
    assert!(!bench.node.conns.contains_key(&early), "nobody is shown another certificate");
    let logs = |said: &[Output]| -> Vec<(Level, String)> {
        said.iter()
            .filter_map(|o| if let Output::Log(l) = o { Some((l.level, l.text.clone())) } else { None })
            .collect()
    };
    let mut ask = crate::io::AskId(1);
    for (answer, words) in [
        (Ok(good.clone()), Some("TLS is ready: certificates for a.example")),
        (Ok(good.clone()), None),
        (
            Err("both.pem cannot be read: gone".to_owned()),
            Some("gone; the certificates from before stay in use"),
        ),
        (Err("both.pem cannot be read: gone".to_owned()), None),
        (Ok(good.clone()), Some("new certificates are in use")),
    ] {
        let said = logs(&bench.tell(Input::Answer { ask, answer: Answer::File(answer) }));
        assert_eq!(
            said.first().map(|(_, text)| text.contains(words.unwrap_or_default())),
            words.map(|_| true)
        );
        let said = bench.later(Duration::from_millis(5_000));
        let asked = said.iter().find_map(|o| match o {
            Output::Ask { ask, work: Work::ReadFile { path } } if path == "both.pem" => Some(*ask),
            _ => None,
        });
        ask = asked.expect("the file is looked at again");
    }
    let conn = bench.accept(2, Service::Https);
    assert!(bench.node.conns.contains_key(&conn));
}

#[test]
fn tls_at_a_port_without_is_told_in_the_log_whatever_the_client_does() {
    let mut bench = Bench::new(|_| {});
    let services = [
        (1, Service::Http, ["192.0.2.1:1025", "this port speaks plain HTTP"]),
        (2, Service::Rtmp, ["192.0.2.1:1026", "rtmps.port"]),
        (3, Service::Rtsp, ["192.0.2.1:1027", "rtsps.port"]),
    ];
    for (n, service, words) in services {
        let conn = bench.accept(n, service);
        let mut said = bench.tell(Input::Received { conn, bytes: &hello() });
        said.extend(bench.tell(Input::Closed { conn, reason: Reason::peer("reset", "the peer reset it") }));
        assert!(logged(&said, &words), "{said:?}");
        let again = said.iter().filter(|o| matches!(o, Output::Log(_))).count();
        assert_eq!(again, 1, "it is said once: {said:?}");
    }
}

#[test]
fn rtsp_clients_that_leave_while_the_manager_thinks_leave_nothing_behind() {
    use crate::ids::Role;
    let mut bench = Bench::new(|c| c.node.roles.retain(|r| *r == Role::Manager));
    let describe = b"DESCRIBE rtsp://n/live/x RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: Lavf60\r\n\r\n";
    let asked = |bench: &Bench| bench.node.audit().waiting[5];
    let conns: Vec<ConnId> = (1..=3).map(|n| bench.accept(n, Service::Rtsp)).collect();
    for conn in &conns {
        bench.tell(Input::Received { conn: *conn, bytes: describe });
    }
    assert_eq!(asked(&bench), 3, "a manager that has just started waits for its nodes");
    assert_eq!(bench.node.verify(), Ok(()));
    let [first, second, third] = conns[..] else { unreachable!() };
    bench.tell(Input::Closed { conn: first, reason: Reason::peer("peer_closed", "gone") });
    bench.tell(Input::PeerFinished { conn: second });
    assert_eq!(asked(&bench), 1);
    assert_eq!(bench.node.verify(), Ok(()));
    let said = bench.later(Duration::from_secs(5));
    assert!(text_of(&said, third).starts_with("RTSP/1.0 404"), "{said:?}");
    assert_eq!(asked(&bench), 0);
    assert_eq!(bench.node.verify(), Ok(()));
}
