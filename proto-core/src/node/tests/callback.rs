//! The operator's callback and key sets by address, at a whole node: every protocol asks, and whatever the server does
//! costs only those who ask.

use super::auth::{Guarded, NOW_S, OFFER, SDP, basic, guarded};
use super::*;
use crate::auth::Action;
use crate::auth::config::{Fallback, RuleConfig};
use crate::auth::secret::Secret;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;

/// What the callback was asked, and what it answers next.
#[derive(Default)]
struct Seen {
    asked: Vec<Value>,
    heads: Vec<String>,
    answer: Option<(u16, String)>,
}

fn http(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A node whose publishers and viewers are the callback's, which knows the key `s3cr3t-publish-key` and the user alice.
fn asking(change: impl FnOnce(&mut Config)) -> (Guarded, Rc<RefCell<Seen>>) {
    let mut g = guarded(|c| {
        let rule = |action, who: &[&str]| RuleConfig {
            action,
            streams: vec!["live/**".to_owned()],
            who: who.iter().map(|w| (*w).to_owned()).collect(),
        };
        c.auth.rules = vec![
            rule(Action::Publish, &["callback"]),
            RuleConfig { streams: vec!["live/vip".to_owned()], ..rule(Action::Play, &["callback"]) },
            RuleConfig { streams: vec![], ..rule(Action::Play, &["anyone"]) },
            RuleConfig { streams: vec![], ..rule(Action::Api, &["callback"]) },
        ];
        (c.auth.users, c.auth.keys) = (Vec::new(), Vec::new());
        c.auth.callback = "http://127.0.0.9:9000/may?app=1".to_owned();
        c.auth.callback_token = Secret::new("who-asks");
        change(c);
    });
    let seen = Rc::new(RefCell::new(Seen::default()));
    let inner = seen.clone();
    g.server = Some(Box::new(move |request| {
        let mut seen = inner.borrow_mut();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let asked: Value = serde_json::from_str(body).unwrap();
        seen.asked.push(asked.clone());
        seen.heads.push(head.to_owned());
        if let Some((status, body)) = &seen.answer {
            return (*status != 0).then(|| http(*status, body));
        }
        let text = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
        Some(match (text("stream").as_str(), text("key").as_str(), text("user").as_str()) {
            ("s3cr3t-publish-key", ..) | (_, "s3cr3t-publish-key", _) => {
                http(200, r#"{"stream":"show","user":"studio"}"#)
            }
            (.., "alice") if text("password") == "wonder-password" => {
                http(200, r#"{"user":"alice","expires_s":60}"#)
            }
            _ => http(401, r#"{"reason":"no such key"}"#),
        })
    }));
    (g, seen)
}

fn logs_nothing_secret(g: &Guarded) {
    for secret in super::auth::SECRETS {
        assert!(!g.log.iter().any(|line| line.contains(secret)), "{secret} in {:#?}", g.log);
    }
    assert!(!g.log.iter().any(|line| line.contains("who-asks") || line.contains("app=1")));
}

#[test]
fn it_is_asked_all_that_is_known_and_names_the_stream() {
    let (mut g, seen) = asking(|_| {});
    let (_, recorded) = g.publish(1, "live/s3cr3t-publish-key", "?x=1");
    assert!(recorded.starts_with("RTSP/1.0 200"), "{recorded}");
    assert_eq!(g.publishers(), ["live/show callback:studio"]);
    let wanted = json!({
        "action": "publish", "protocol": "rtsp", "app": "live", "stream": "s3cr3t-publish-key", "user": "",
        "password": "", "token": "", "key": "", "ip": "192.0.2.1", "secure": false, "query": "x=1",
    });
    assert_eq!(seen.borrow().asked, [wanted]);
    let head = seen.borrow().heads[0].clone();
    assert!(head.starts_with("POST /may?app=1 HTTP/1.1\r\nHost: 127.0.0.9:9000\r\n"), "{head}");
    assert!(head.contains("Authorization: Bearer who-asks"), "{head}");
    // Everybody else sees the public name only.
    let all = g.http(2, "GET", "/api/v1/streams", &basic("alice", "wonder-password"), "");
    assert!(all.contains("live/show") && !all.contains("s3cr3t"), "{all}");
    // The same publisher replaces itself; it is the callback that says who that is.
    assert!(g.publish(3, "live/s3cr3t-publish-key", "").1.starts_with("RTSP/1.0 200"));
    assert_eq!(g.publishers(), ["live/show callback:studio"]);
    logs_nothing_secret(&g);
}

#[test]
fn http_and_pairing_ask_it_too() {
    let (mut g, seen) = asking(|_| {});
    let refused = g.http(1, "POST", "/whip/live/a", OFFER, "v=0\r\n");
    assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("no such key"), "{refused}");
    let ours = g.http(2, "POST", "/whip/live/s3cr3t-publish-key", OFFER, "v=0\r\n");
    assert!(ours.starts_with("HTTP/1.1 400"), "allowed: only the offer is none: {ours}");
    assert_eq!(seen.borrow().asked.last().unwrap()["protocol"], "whip");
    // Whoever asks where to go is told the public name, and a token with which the node asks nobody.
    let answer =
        g.http(3, "GET", "/streammanager/api/4.0/event/live/s3cr3t-publish-key?action=broadcast", "", "");
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert!(!answer.contains("s3cr3t") && body["name"] == "show", "{answer}");
    let token = body["urls"]["rtsp"].as_str().unwrap().split_once("?token=").unwrap().1.to_owned();
    g.bench.later(Duration::from_secs(30));
    let before = seen.borrow().asked.len();
    let (_, recorded) = g.publish(4, "live/show", &format!("?token={token}"));
    assert!(recorded.starts_with("RTSP/1.0 200"), "{recorded}");
    assert_eq!(g.publishers(), ["live/show callback:studio"]);
    assert_eq!(seen.borrow().asked.len(), before);
    logs_nothing_secret(&g);
}

#[test]
fn answers_are_remembered_and_expire() {
    let (mut g, seen) = asking(|_| {});
    let right = basic("alice", "wonder-password");
    for n in 0..5 {
        assert!(g.http(n, "GET", "/metrics", &right, "").starts_with("HTTP/1.1 200"));
    }
    assert_eq!(seen.borrow().asked.len(), 1, "once");
    g.bench.later(Duration::from_secs(61));
    assert!(g.http(10, "GET", "/metrics", &right, "").starts_with("HTTP/1.1 200"));
    assert_eq!(seen.borrow().asked.len(), 2, "expires_s are over");
    for n in 20..23 {
        assert!(g.http(n, "GET", "/metrics", &basic("bob", "x"), "").starts_with("HTTP/1.1 401"));
    }
    assert_eq!(seen.borrow().asked.len(), 3, "a no is remembered too");
    // One failed; guesses cost whoever guesses, and what is known goes on.
    for n in 30..33 {
        g.http(n, "GET", "/metrics", &basic("bob", &format!("x{n}")), "");
    }
    let waits = g.http(40, "GET", "/metrics", &basic("bob", "another"), "");
    assert!(waits.starts_with("HTTP/1.1 429"), "{waits}");
    assert!(g.http(41, "GET", "/metrics", &right, "").starts_with("HTTP/1.1 200"), "who was let in goes on");
    let last = |g: &mut Guarded, n, answer: &str| {
        seen.borrow_mut().answer = Some((200, answer.to_owned()));
        g.bench.later(Duration::from_secs(120));
        g.http(n, "GET", "/metrics", &right, "")
    };
    assert!(last(&mut g, 50, r#"{"expires_s":0}"#).starts_with("HTTP/1.1 200"), "good for whoever asked");
    assert!(last(&mut g, 51, "<html>").starts_with("HTTP/1.1 503"), "garbage");
}

#[test]
fn a_server_that_is_down_slow_or_broken_costs_who_asks() {
    let (mut g, seen) = asking(|_| {});
    for (n, (status, body, says)) in
        [(500, "", "status 500"), (302, "", "status 302"), (200, "<html>", "no JSON")].into_iter().enumerate()
    {
        seen.borrow_mut().answer = Some((status, body.to_owned()));
        let answer = g.http(n as u64, "POST", &format!("/whip/live/a{n}"), OFFER, "v=0\r\n");
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(says), "{answer}");
        assert!(answer.contains("Retry-After"), "{answer}");
    }
    // It hangs: who asks waits, and nobody else.
    seen.borrow_mut().answer = Some((0, String::new()));
    let waiting = g.bench.accept(10, Service::Http);
    let request =
        "POST /whip/live/b HTTP/1.1\r\nHost: n\r\nContent-Type: application/sdp\r\nContent-Length: 0\r\n\r\n";
    let said = g.tell(Input::Received { conn: waiting, bytes: request.as_bytes() });
    assert_eq!(text_of(&said, waiting), "");
    assert!(
        g.http(11, "POST", "/whep/live/open", OFFER, "v=0\r\n").starts_with("HTTP/1.1 400"),
        "not asked about"
    );
    g.bench.now += Duration::from_millis(3_000);
    let said = g.tell(Input::Tick);
    let answer = text_of(&said, waiting);
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("did not answer within 3000 ms"),
        "{answer}"
    );
    assert_eq!(g.bench.node.fetches.callbacks(), 0);
    // It refuses connections: the name has one address, and that is it.
    g.server = None;
    let conn = g.bench.accept(12, Service::Http);
    let said = g.tell(Input::Received { conn, bytes: request.replace("live/b", "live/c").as_bytes() });
    let dialled =
        said.iter().find_map(|o| if let Output::Dial { conn, .. } = o { Some(*conn) } else { None });
    let reason = Reason::peer("dial_failed", "connection refused");
    let said = g.tell(Input::Closed { conn: dialled.unwrap(), reason });
    let answer = text_of(&said, conn);
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("connection refused"), "{answer}");
    assert!(
        g.log.iter().any(|l| l.contains("http://127.0.0.9:9000/may?…: nobody could be asked")),
        "{:#?}",
        g.log
    );
    logs_nothing_secret(&g);
}

#[test]
fn it_is_up_to_the_operator_whether_that_lets_people_in() {
    let (mut g, seen) = asking(|c| c.auth.callback_fallback = Fallback::Allow);
    seen.borrow_mut().answer = Some((500, String::new()));
    let (_, recorded) = g.publish(1, "live/a", "");
    assert!(recorded.starts_with("RTSP/1.0 200"), "{recorded}");
    assert!(g.log.iter().any(|l| l.contains("let in, as auth.callback_fallback says")));
    seen.borrow_mut().answer = Some((403, String::new()));
    assert!(g.publish(2, "live/b", "").1.starts_with("RTSP/1.0 403"), "a no is a no");
}

#[test]
fn what_runs_is_asked_about_again() {
    let (mut g, seen) = asking(|_| {});
    let typed = format!("Content-Type: application/sdp\r\n{}", basic("alice", "wonder-password"));
    let publish = |g: &mut Guarded, n: u64| {
        let mut c = g.rtsp(n);
        assert!(c.ask(g, "ANNOUNCE", "rtsp://n/live/a", &typed, SDP).starts_with("RTSP/1.0 200"));
        let transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=record\r\n";
        c.ask(g, "SETUP", "rtsp://n/live/a/streamid=0", transport, "");
        assert!(c.ask(g, "RECORD", "rtsp://n/live/a", "", "").starts_with("RTSP/1.0 200"));
    };
    let later = |g: &mut Guarded, n: u64, s: u64| {
        for _ in 0..s {
            g.bench.now += Duration::from_secs(1);
            g.tell(Input::Tick);
            // It keeps its session alive.
            let conn = ConnId::accepted(n);
            g.tell(Input::Received { conn, bytes: b"$\x01\x00\x08\x80\xc9\x00\x01\x00\x00\x00\x01" });
        }
    };
    publish(&mut g, 1);
    later(&mut g, 1, 65);
    assert_eq!((g.publishers().len(), seen.borrow().asked.len()), (1, 2), "asked again, and yes");
    // It is away for a while: whoever runs goes on.
    seen.borrow_mut().answer = Some((500, String::new()));
    later(&mut g, 1, 90);
    assert_eq!(g.publishers().len(), 1);
    seen.borrow_mut().answer = None;
    later(&mut g, 1, 10);
    assert_eq!(g.publishers().len(), 1);
    // It is away for good.
    seen.borrow_mut().answer = Some((500, String::new()));
    later(&mut g, 1, 130);
    assert_eq!(g.publishers().len(), 0);
    seen.borrow_mut().answer = None;
    publish(&mut g, 1_001);
    seen.borrow_mut().answer = Some((403, r#"{"reason":"not paid"}"#.to_owned()));
    later(&mut g, 1_001, 65);
    assert_eq!(g.publishers().len(), 0);
    assert!(g.log.iter().any(|l| l.contains("not paid")), "{:#?}", g.log);
    logs_nothing_secret(&g);
}

#[test]
fn no_address_takes_all_places_and_a_crowd_asks_once() {
    let (mut g, seen) = asking(|c| c.limits.auth_callbacks_per_ip = 3);
    seen.borrow_mut().answer = Some((0, String::new()));
    let ask = |g: &mut Guarded, n: u64, stream: &str| {
        let conn = g.bench.accept(n, Service::Http);
        let request = format!(
            "POST /whep/{stream} HTTP/1.1\r\nHost: n\r\nContent-Type: application/sdp\r\nContent-Length: 0\r\n\r\n"
        );
        (conn, text_of(&g.tell(Input::Received { conn, bytes: request.as_bytes() }), conn))
    };
    let crowd: Vec<ConnId> = (0..5).map(|n| ask(&mut g, n, "live/vip").0).collect();
    assert_eq!(seen.borrow().asked.len(), 1, "the same question");
    for n in 0..2 {
        let conn = g.bench.accept(10 + n, Service::Http);
        let request = format!("GET /metrics?n={n} HTTP/1.1\r\nHost: n\r\n\r\n");
        g.tell(Input::Received { conn, bytes: request.as_bytes() });
    }
    let (_, full) = ask(&mut g, 20, "live/vip?x=1");
    assert!(full.starts_with("HTTP/1.1 429"), "{full}");
    // Who left is not waited for.
    let reason = Reason::peer("peer_closed", "x");
    g.tell(Input::Closed { conn: crowd[0], reason });
    g.bench.now += Duration::from_secs(3);
    let said = g.tell(Input::Tick);
    for conn in &crowd[1..] {
        assert!(text_of(&said, *conn).starts_with("HTTP/1.1 503"));
    }
}

/// A set with the key of RFC 8037, appendix A.2, under a name.
fn key_set(name: &str) -> String {
    format!(
        r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"{name}","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}]}}"#
    )
}

fn token(kid: &str, action: &str) -> String {
    let header = jsonwebtoken::Header {
        kid: Some(kid.to_owned()),
        ..jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA)
    };
    let claims = json!({"sub": "s", "exp": NOW_S + 600, "action": action, "stream": "live/*"});
    let der = rfc_8037_key();
    jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_ed_der(&der)).unwrap()
}

/// The private key of RFC 8037, appendix A.1, as PKCS #8 (RFC 8410).
fn rfc_8037_key() -> Vec<u8> {
    use base64::Engine as _;
    let seed = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
        .unwrap();
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend(seed);
    der
}

#[test]
fn a_key_set_is_fetched_and_again_for_keys_that_are_new() {
    let set = Rc::new(RefCell::new((key_set("first"), 200, 0)));
    let inner = set.clone();
    let mut g = guarded(|c| {
        c.auth.rules[0].who = vec!["tokens".to_owned()];
        c.auth.jwks = "http://127.0.0.9:9000/jwks.json?geheim".to_owned();
    });
    g.server = Some(Box::new(move |request| {
        assert!(request.starts_with("GET /jwks.json?geheim HTTP/1.1\r\n"), "{request}");
        let mut set = inner.borrow_mut();
        set.2 += 1;
        Some(http(set.1, &set.0))
    }));
    // What was asked for at start, before the server of this test was there, has failed.
    g.bench.now += Duration::from_secs(3);
    g.tell(Input::Tick);
    g.bench.now += Duration::from_secs(11);
    g.tell(Input::Tick);
    assert_eq!(set.borrow().2, 1);
    let publish = |g: &mut Guarded, n: u64, kid: &str| {
        let token = token(kid, "publish");
        g.publish(n, &format!("live/s{n}"), &format!("?token={token}")).1
    };
    assert!(publish(&mut g, 1, "first").starts_with("RTSP/1.0 200"));
    assert!(publish(&mut g, 2, "first").starts_with("RTSP/1.0 200"));
    assert_eq!(set.borrow().2, 1);
    // The keys were changed: whoever comes with a new one waits for it once.
    g.bench.now += Duration::from_secs(20);
    set.borrow_mut().0 = key_set("second");
    assert!(publish(&mut g, 3, "second").starts_with("RTSP/1.0 200"));
    assert_eq!(set.borrow().2, 2);
    assert!(publish(&mut g, 4, "first").starts_with("RTSP/1.0 401"), "replaced");
    for n in 5..9 {
        assert!(publish(&mut g, n, "nonsense").starts_with("RTSP/1.0 401"));
    }
    assert_eq!(set.borrow().2, 2, "no more often than limits.auth_jwks_again_ms");
    // What is wrong leaves the old keys in force.
    (set.borrow_mut().0, set.borrow_mut().1) = ("<html>".to_owned(), 200);
    g.bench.now += Duration::from_secs(11);
    assert!(publish(&mut g, 10, "third").starts_with("RTSP/1.0 401"));
    set.borrow_mut().1 = 500;
    g.bench.now += Duration::from_secs(11);
    assert!(publish(&mut g, 11, "third").starts_with("RTSP/1.0 401"));
    assert!(publish(&mut g, 12, "second").starts_with("RTSP/1.0 200"));
    let shown = "http://127.0.0.9:9000/jwks.json?… cannot be fetched: status 500; the keys from before";
    assert!(g.log.iter().any(|l| l.contains(shown)), "{:#?}", g.log);
    assert!(!g.log.iter().any(|l| l.contains("geheim")));
    // And every five minutes anyway.
    let before = set.borrow().2;
    (set.borrow_mut().0, set.borrow_mut().1) = (key_set("third"), 200);
    g.bench.now += Duration::from_secs(301);
    g.tell(Input::Tick);
    assert_eq!(set.borrow().2, before + 1);
    assert!(publish(&mut g, 13, "third").starts_with("RTSP/1.0 200"));
}
