//! Who may publish and play, at a whole node: each protocol's own way to ask and to refuse.

use super::proxy::{as_client, frames, masked, open};
use super::*;
use crate::auth::config::{KeyConfig, RuleConfig, UserConfig};
use crate::auth::secret::Secret;
use crate::auth::token::{Claims, OneOrMany};
use crate::auth::{Action, password};
use crate::io::{Answer, Work};
use crate::rtsp::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::net::SocketAddr;

/// All that must never be seen.
pub(super) const SECRETS: [&str; 4] =
    ["wonder-password", "s3cr3t-publish-key", "a secret of thirty-two characters", "s3cr3t-publish-kez"];
pub(super) const NOW_S: u64 = 1_700_000_000;

/// What the server that the node asks by HTTP answers to a whole request; nothing: it hangs.
pub(super) type Server = Box<dyn FnMut(&str) -> Option<String>>;

/// A node with rules, and all that its log said.
pub(super) struct Guarded {
    pub(super) bench: Bench,
    pub(super) log: Vec<String>,
    /// Passwords that it had verified.
    checks: usize,
    /// Who answers what the node asks by HTTP, if anybody does.
    pub(super) server: Option<Server>,
}

pub(super) fn guarded(change: impl FnOnce(&mut Config)) -> Guarded {
    let texts = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let rule = |action, streams: &[&str], who: &[&str]| RuleConfig {
        action,
        streams: texts(streams),
        who: texts(who),
    };
    let mut bench = Bench::new(|c| {
        c.auth.rules = vec![
            rule(Action::Publish, &["live/**"], &["users", "tokens", "keys"]),
            rule(Action::Play, &["live/vip"], &["users", "tokens"]),
            rule(Action::Play, &[], &["anyone"]),
            rule(Action::Api, &[], &["user:alice", "loopback"]),
        ];
        let hash = password::hash_cheaply(SECRETS[0], &[1; 16]).unwrap();
        let ha1 = digest::secret(digest::Algorithm::Sha256, "alice", "Headwater", SECRETS[0]);
        c.auth.users = vec![UserConfig {
            name: "alice".to_owned(),
            password: Secret::new(hash),
            ha1: vec![Secret::new(format!("SHA-256:{ha1}"))],
        }];
        c.auth.keys = vec![KeyConfig {
            key: Secret::new(SECRETS[1]),
            stream: "live/show".to_owned(),
            name: "studio".to_owned(),
        }];
        c.auth.secret = Secret::new(SECRETS[2]);
        c.auth.clear_passwords = true;
        change(c);
    });
    let (local, max_segments) = ("127.0.0.1:8189".parse().unwrap(), 16);
    bench.tell(Input::UdpOpened { socket: MEDIA_SOCKET, local, max_segments });
    bench.later(Duration::from_millis(2_100));
    Guarded { bench, log: Vec::new(), checks: 0, server: None }
}

impl Guarded {
    /// Tells the node something, verifies the passwords that it asks about, lets the server answer what it is asked, and
    /// answers what the node says in all.
    pub(super) fn tell(&mut self, input: Input<'_>) -> Vec<Output> {
        let mut all = self.bench.tell(input);
        let mut at = 0;
        while at < all.len() {
            if let Output::Ask { ask, work: Work::Check(check) } = &all[at] {
                let (ask, answer) = (*ask, Answer::Checked(Ok(check.run())));
                self.checks += 1;
                let more = self.bench.tell(Input::Answer { ask, answer });
                all.extend(more);
            }
            if let Output::Dial { conn, to } = &all[at] {
                let more = self.serve(*conn, *to);
                all.extend(more);
            }
            at += 1;
        }
        all.extend(self.bench.tell(Input::Tick));
        for said in &all {
            if let Output::Log(line) = said {
                self.log.push(format!(
                    "{} {:?} {}",
                    line.text,
                    line.stream,
                    line.session.clone().unwrap_or_default()
                ));
            }
        }
        assert_eq!(self.bench.node.verify(), Ok(()));
        all
    }

    /// The server takes a connection, and answers if it does.
    fn serve(&mut self, conn: ConnId, remote: SocketAddr) -> Vec<Output> {
        let Some(server) = &mut self.server else { return Vec::new() };
        let local = "127.0.0.1:40000".parse().unwrap();
        let mut said = self.bench.tell(Input::Connected { conn, local, remote });
        said.extend(self.bench.tell(Input::Writable { conn, free: 1 << 20 }));
        if let Some(answer) = server(&text_of(&said, conn)) {
            said.extend(self.bench.tell(Input::Received { conn, bytes: answer.as_bytes() }));
        }
        said
    }

    fn send(&mut self, conn: ConnId, text: &str) -> String {
        let said = self.tell(Input::Received { conn, bytes: text.as_bytes() });
        text_of(&said, conn)
    }

    /// A request on a connection of its own.
    pub(super) fn http(&mut self, n: u64, method: &str, path: &str, headers: &str, body: &str) -> String {
        let conn = self.bench.accept(n, Service::Http);
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: n\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
        self.send(conn, &request)
    }

    pub(super) fn token(&self, action: Action, stream: &str, ttl: u64) -> String {
        let claims = Claims {
            sub: "camera".to_owned(),
            iat: NOW_S,
            nbf: None,
            exp: NOW_S + ttl,
            end: None,
            jti: format!("id-{ttl}"),
            action: OneOrMany::One(action),
            stream: OneOrMany::One(stream.to_owned()),
            of: String::new(),
            ip: None,
        };
        self.bench.node.authority.policy.mint(&claims).unwrap()
    }

    pub(super) fn rtsp(&mut self, n: u64) -> Rtsp {
        Rtsp { conn: self.bench.accept(n, Service::Rtsp), cseq: 0 }
    }

    /// Publishes by RTSP with a query; answers what the announcement was answered with.
    pub(super) fn publish(&mut self, n: u64, stream: &str, query: &str) -> (Rtsp, String) {
        let mut c = self.rtsp(n);
        let url = format!("rtsp://n/{stream}{query}");
        let announced = c.ask(self, "ANNOUNCE", &url, "Content-Type: application/sdp\r\n", SDP);
        if !announced.starts_with("RTSP/1.0 200") {
            return (c, announced);
        }
        let transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=record\r\n";
        c.ask(self, "SETUP", &format!("rtsp://n/{stream}/streamid=0"), transport, "");
        let recorded = c.ask(self, "RECORD", &url, "", "");
        (c, recorded)
    }

    pub(super) fn publishers(&self) -> Vec<String> {
        let publishes = |s: &&session::Session| matches!(s.part, session::Part::Publishes { .. });
        self.bench
            .node
            .sessions
            .iter()
            .filter(publishes)
            .map(|s| format!("{} {}", s.key, s.grant.identity.name()))
            .collect()
    }
}

pub(super) const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=audio 0 RTP/AVP 96\r\n\
                   a=rtpmap:96 opus/48000/2\r\na=control:streamid=0\r\n";

pub(super) struct Rtsp {
    pub(super) conn: ConnId,
    cseq: u32,
}

impl Rtsp {
    pub(super) fn ask(
        &mut self,
        g: &mut Guarded,
        method: &str,
        url: &str,
        headers: &str,
        body: &str,
    ) -> String {
        self.cseq += 1;
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let text = format!("{method} {url} RTSP/1.0\r\nCSeq: {}\r\n{headers}{length}\r\n{body}", self.cseq);
        g.send(self.conn, &text)
    }
}

pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}")))
}

pub(super) const OFFER: &str = "Content-Type: application/sdp\r\n";

#[test]
fn http_refuses_in_the_shape_of_the_interface_that_was_asked() {
    let mut g = guarded(|_| {});
    let whip = g.http(1, "POST", "/whip/live/a", OFFER, "v=0\r\n");
    assert!(whip.starts_with("HTTP/1.1 401") && whip.contains("WWW-Authenticate: Bearer"), "{whip}");
    assert!(
        whip.contains("Access-Control-Allow-Origin: *") && whip.contains("show user and password or a token"),
        "{whip}"
    );
    for (n, (path, status, shape)) in [
        ("/streammanager/api/4.0/event/live/a?action=broadcast", 401, "\"errorMessage\":"),
        ("/streammanager/api/4.0/event/live/vip?action=subscribe", 401, "\"errorMessage\":"),
        ("/streammanager/api/4.0/event/live/a?action=subscribe", 404, "\"errorMessage\":"),
        ("/as/v1/streams/stream/default/publish/live/a", 401, "{\"error\":"),
        ("/as/v1/admin/nodegroup/status/default", 401, "{\"error\":"),
        ("/api/v1/sessions", 401, "{\"error\":"),
        ("/streammanager/api/4.0/admin/node", 401, "\"errorMessage\":"),
        ("/metrics", 401, "show user and password"),
        ("/healthz", 200, "ok"),
        ("/watch/live/vip", 200, "<html"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = g.http(10 + n as u64, "GET", path, "", "");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(shape),
            "{path}: {answer}"
        );
    }
    // A token for another action is known, and not enough.
    let play = g.token(Action::Play, "live/*", 100);
    let known = g.http(30, "POST", &format!("/whip/live/a?token={play}"), OFFER, "v=0\r\n");
    assert!(known.starts_with("HTTP/1.1 403"), "{known}");
    // With the right one the offer is looked at.
    let publish = g.token(Action::Publish, "live/*", 100);
    for (n, (path, header)) in [
        (format!("/whip/live/a?token={publish}"), String::new()),
        ("/whip/live/a".to_owned(), format!("Authorization: Bearer {publish}\r\n")),
        ("/live/whip/endpoint/a".to_owned(), basic("alice", SECRETS[0])),
        (format!("/as/v1/proxy/whip/live/a?accessToken={publish}"), String::new()),
        (format!("/whip/live/{}", SECRETS[1]), String::new()),
        (format!("/whip/live/show?key={}", SECRETS[1]), String::new()),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = g.http(40 + n as u64, "POST", &path, &format!("{OFFER}{header}"), "v=0\r\n");
        assert!(answer.starts_with("HTTP/1.1 4") && !answer.starts_with("HTTP/1.1 401"), "{path}: {answer}");
        assert!(!answer.starts_with("HTTP/1.1 403"), "{path}: {answer}");
    }
    assert_eq!(g.checks, 1);
}

#[test]
fn the_api_is_for_this_host_or_whom_a_rule_names_and_for_no_foreign_page() {
    let mut g = guarded(|_| {});
    let right = basic("alice", SECRETS[0]);
    assert!(g.http(1, "GET", "/api/v1/sessions", &right, "").starts_with("HTTP/1.1 200"));
    assert!(g.http(2, "GET", "/metrics", &right, "").starts_with("HTTP/1.1 200"));
    let foreign = format!("{right}Origin: https://evil.example\r\n");
    assert!(g.http(3, "GET", "/api/v1/sessions", &foreign, "").starts_with("HTTP/1.1 403"));
    let wrong = g.http(4, "PUT", "/api/v1/revoked/x", &basic("alice", "nonsense"), "");
    assert!(wrong.starts_with("HTTP/1.1 401"), "{wrong}");
    let none = g.http(5, "POST", "/api/v1/tokens?action=play&stream=live/*", "", "");
    assert!(none.starts_with("HTTP/1.1 401"), "{none}");
    let made = g.http(6, "POST", "/api/v1/tokens?action=play&stream=live/vip&ttl_s=60&name=x", &right, "");
    let body = made.split("\r\n\r\n").nth(1).unwrap();
    let token: crate::http::api::Token = serde_json::from_str(body).unwrap();
    assert!(token.everywhere && token.expires == NOW_S + 2 + 60, "{made}");
    let asked = format!("/streammanager/api/4.0/event/live/vip?action=subscribe&token={}", token.token);
    assert!(g.http(7, "GET", &asked, "", "").starts_with("HTTP/1.1 404"), "good: only that it is not live");
    assert!(
        g.http(8, "PUT", &format!("/api/v1/revoked/{}", token.id), &right, "").starts_with("HTTP/1.1 200")
    );
    assert!(g.http(9, "GET", &asked, "", "").starts_with("HTTP/1.1 401"), "revoked");
    // A login of the stream-manager dialect gives whoever may use the API a token, and with it he is who he is.
    let login = g.http(15, "PUT", "/as/v1/auth/login", &right, "");
    let body: serde_json::Value = serde_json::from_str(login.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let bearer = format!("Authorization: Bearer {}\r\n", body["token"].as_str().unwrap());
    assert!(
        g.http(16, "GET", "/as/v1/admin/nodegroup/status/default", &bearer, "").starts_with("HTTP/1.1 200")
    );
    let place = "/as/v1/streams/stream/default/publish/live/a";
    assert!(g.http(17, "GET", place, &bearer, "").starts_with("HTTP/1.1 200"));
    assert!(
        g.http(18, "PUT", "/as/v1/auth/login", &basic("alice", "nonsense"), "").starts_with("HTTP/1.1 401")
    );
    let mut n = 20;
    for bad in [
        "action=watch",
        "action=play",
        "action=play&stream=a%20b/c",
        "action=api&stream=live/x",
        "action=play&stream=a/b&ip=x",
    ] {
        n += 1;
        let answer = g.http(n, "POST", &format!("/api/v1/tokens?{bad}"), &right, "");
        assert!(answer.starts_with("HTTP/1.1 400"), "{bad}: {answer}");
    }
}

#[test]
fn who_asks_for_a_place_gets_addresses_with_a_token_of_his_own() {
    let mut g = guarded(|_| {});
    let answer = g.http(
        1,
        "GET",
        "/streammanager/api/4.0/event/live/a?action=broadcast",
        &basic("alice", SECRETS[0]),
        "",
    );
    let body: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let rtsp = body["urls"]["rtsp"].as_str().unwrap();
    let token = rtsp.split_once("?token=").unwrap().1.to_owned();
    let (_, recorded) = g.publish(2, "live/a", &format!("?token={token}"));
    assert!(recorded.starts_with("RTSP/1.0 200"), "{recorded}");
    assert_eq!(g.publishers(), ["live/a user:alice"]);
    assert!(
        g.publish(3, "live/b", &format!("?token={token}")).1.starts_with("RTSP/1.0 403"),
        "for that stream"
    );
    // A publish key becomes the name that everybody may know.
    let path = format!("/streammanager/api/4.0/event/live/{}?action=broadcast", SECRETS[1]);
    let answer = g.http(4, "GET", &path, "", "");
    assert!(answer.contains("\"name\":\"show\"") && !answer.contains(SECRETS[1]), "{answer}");
    // Whom nothing is asked of needs none.
    let open = g.http(5, "GET", "/streammanager/api/4.0/event/live/a?action=subscribe", "", "");
    assert!(!open.contains("token="), "{open}");
}

#[test]
fn rtsp_asks_by_digest_and_basic_and_reads_no_announcement_before() {
    let mut g = guarded(|_| {});
    let mut c = g.rtsp(1);
    assert!(c.ask(&mut g, "OPTIONS", "rtsp://n/live/a", "", "").starts_with("RTSP/1.0 200"));
    let nonsense = "m=nonsense\r\n";
    let asked = c.ask(&mut g, "ANNOUNCE", "rtsp://n/live/a", "Content-Type: application/sdp\r\n", nonsense);
    assert!(asked.starts_with("RTSP/1.0 401"), "{asked}");
    assert!(asked.contains("WWW-Authenticate: Basic realm=\"Headwater\""), "{asked}");
    let challenge = asked.lines().find_map(|l| l.strip_prefix("WWW-Authenticate: Digest ")).unwrap();
    let challenge = digest::challenges(&format!("Digest {challenge}")).remove(0);
    let proof = |password: &str, method: &str| {
        let count = digest::Count { nc: 1, cnonce: "x" };
        let header = digest::authorization(&challenge, "alice", password, method, "rtsp://n/live/a", count);
        format!("Authorization: {header}\r\n")
    };
    let typed = |header: String| format!("Content-Type: application/sdp\r\n{header}");
    let wrong = c.ask(&mut g, "ANNOUNCE", "rtsp://n/live/a", &typed(proof("nonsense", "ANNOUNCE")), SDP);
    assert!(wrong.starts_with("RTSP/1.0 401"), "{wrong}");
    let other = c.ask(&mut g, "ANNOUNCE", "rtsp://n/live/a", &typed(proof(SECRETS[0], "DESCRIBE")), SDP);
    assert!(other.starts_with("RTSP/1.0 401"), "a proof for another method: {other}");
    let right = c.ask(&mut g, "ANNOUNCE", "rtsp://n/live/a", &typed(proof(SECRETS[0], "ANNOUNCE")), SDP);
    assert!(right.starts_with("RTSP/1.0 200"), "{right}");
    // What was proved on one connection proves nothing on another.
    let mut thief = g.rtsp(2);
    let replayed =
        thief.ask(&mut g, "ANNOUNCE", "rtsp://n/live/a", &typed(proof(SECRETS[0], "ANNOUNCE")), SDP);
    assert!(replayed.starts_with("RTSP/1.0 401"), "{replayed}");
    assert_eq!(g.checks, 0, "no slow hash for that");
    let slow = thief.ask(&mut g, "ANNOUNCE", "rtsp://n/live/b", &typed(basic("alice", SECRETS[0])), SDP);
    assert!(slow.starts_with("RTSP/1.0 200") && g.checks == 1, "{slow}");
    // A viewer.
    let mut v = g.rtsp(3);
    assert!(v.ask(&mut g, "DESCRIBE", "rtsp://n/live/vip", "", "").starts_with("RTSP/1.0 401"));
    let mut answer = v.ask(&mut g, "DESCRIBE", "rtsp://n/live/vip", &basic("alice", SECRETS[0]), "");
    g.bench.now += Duration::from_secs(4);
    answer += &text_of(&g.tell(Input::Tick), v.conn);
    assert!(answer.starts_with("RTSP/1.0 404"), "it may, and there is nothing: {answer}");
    // Where passwords may be read on the way, only the digest is asked for.
    let mut g = guarded(|c| c.auth.clear_passwords = false);
    let asked = g.rtsp(1).ask(&mut g, "DESCRIBE", "rtsp://n/live/vip", "", "");
    assert!(asked.contains("Digest") && !asked.contains("Basic"), "{asked}");
    let refused = g.rtsp(2).ask(&mut g, "DESCRIBE", "rtsp://n/live/vip", &basic("alice", SECRETS[0]), "");
    assert!(
        refused.starts_with("RTSP/1.0 403") && refused.contains("passwords are taken over TLS"),
        "{refused}"
    );
}

/// A manager without viewers of its own would send players on: first they show who they are, with a password that has to be
/// verified too.
#[test]
fn rtsp_players_that_would_be_sent_on_are_asked_who_they_are() {
    use crate::ids::Role;
    let mut g = guarded(|c| c.node.roles.retain(|r| *r != Role::Edge));
    let agent = "User-Agent: Lavf60\r\n";
    let url = "rtsp://n/live/vip";
    let asked = g.rtsp(2).ask(&mut g, "DESCRIBE", url, agent, "");
    assert!(asked.starts_with("RTSP/1.0 401"), "{asked}");
    let wrong = format!("{agent}{}", basic("alice", "nonsense"));
    let asked = g.rtsp(3).ask(&mut g, "DESCRIBE", url, &wrong, "");
    assert!(asked.starts_with("RTSP/1.0 401") && g.checks == 1, "{asked}");
    let other = format!("{url}?token={}", g.token(Action::Play, "live/else", 500));
    let asked = g.rtsp(4).ask(&mut g, "DESCRIBE", &other, agent, "");
    assert!(asked.starts_with("RTSP/1.0 403"), "{asked}");
    let token = format!("{url}?token={}", g.token(Action::Play, "live/vip", 500));
    let password = format!("{agent}{}", basic("alice", SECRETS[0]));
    for (n, url, headers) in [(5, token.as_str(), agent), (6, url, password.as_str())] {
        let mut v = g.rtsp(n);
        let mut answer = v.ask(&mut g, "DESCRIBE", url, headers, "");
        g.bench.now += Duration::from_secs(4);
        answer += &text_of(&g.tell(Input::Tick), v.conn);
        assert!(answer.starts_with("RTSP/1.0 404"), "it may, and there is nothing: {answer}");
    }
    assert_eq!(g.checks, 2);
    assert_eq!(g.bench.node.verify(), Ok(()));
}

#[test]
fn http_flv_is_for_whoever_shows_that_he_may_play() {
    let mut g = guarded(|_| {});
    let token = |g: &Guarded, stream: &str, ttl| g.token(Action::Play, stream, ttl);
    g.publish(1, "live/vip", &format!("?token={}", g.token(Action::Publish, "live/vip", 500)));
    for (n, shown) in
        [String::new(), "?token=nonsense".to_owned(), format!("?token={}", token(&g, "live/else", 500))]
            .iter()
            .enumerate()
    {
        let said = g.http(2 + n as u64, "GET", &format!("/flv/live/vip.flv{shown}"), "", "");
        assert!(said.starts_with("HTTP/1.1 401") || said.starts_with("HTTP/1.1 403"), "{shown}: {said}");
    }
    let wrong = g.http(6, "GET", "/flv/live/vip.flv", &basic("alice", "nonsense"), "");
    assert!(wrong.starts_with("HTTP/1.1 401"), "{wrong}");
    let viewers = |g: &Guarded| g.bench.node.sessions.iter().filter(|s| !s.is_publisher()).count();
    assert_eq!(viewers(&g), 0);
    g.http(7, "GET", &format!("/flv/live/vip.flv?token={}", token(&g, "live/vip", 100)), "", "");
    g.http(8, "GET", "/flv/live/vip.flv", &basic("alice", SECRETS[0]), "");
    assert_eq!(viewers(&g), 2, "by token and by password");
    // A minute of grace, and the token's viewer is gone.
    g.bench.now += Duration::from_secs(165);
    g.tell(Input::Tick);
    let left: Vec<String> = (g.bench.node.sessions.iter().filter(|s| !s.is_publisher()))
        .map(|s| s.grant.identity.name())
        .collect();
    assert!(left.iter().all(|name| name.contains("alice")), "{left:?}");
    assert_eq!(g.bench.node.verify(), Ok(()));
}

#[test]
fn the_same_publisher_comes_again_at_once_and_another_does_not() {
    let mut g = guarded(|_| {});
    let token = g.token(Action::Publish, "live/a", 1_000);
    let (first, recorded) = g.publish(1, "live/a", &format!("?token={token}"));
    assert!(recorded.starts_with("RTSP/1.0 200"), "{recorded}");
    let (_, other) = g.publish(2, "live/a", &format!("?username=alice&password={}", SECRETS[0]));
    assert!(other.starts_with("RTSP/1.0 403") && other.contains("published by someone else"), "{other}");
    let (second, again) = g.publish(3, "live/a", &format!("?token={token}"));
    assert!(again.starts_with("RTSP/1.0 200"), "{again}");
    assert_eq!(g.publishers(), ["live/a token:camera"]);
    assert!(!g.bench.node.conns.contains_key(&first.conn) && g.bench.node.conns.contains_key(&second.conn));
    // L9: two encoders with one token do not throw each other out all the time.
    let (_, third) = g.publish(4, "live/a", &format!("?token={token}"));
    assert!(third.starts_with("RTSP/1.0 4") && third.contains("changed hands"), "{third}");
    g.bench.now += Duration::from_millis(3_100);
    g.tell(Input::Tick);
    let (_, fourth) = g.publish(5, "live/a", &format!("?token={token}"));
    assert!(fourth.starts_with("RTSP/1.0 200"), "{fourth}");
}

#[test]
fn what_ran_by_a_token_ends_with_it_or_when_it_is_revoked() {
    let mut g = guarded(|_| {});
    let (short, long) = (g.token(Action::Publish, "live/*", 30), g.token(Action::Publish, "live/*", 900));
    assert!(g.publish(1, "live/short", &format!("?token={short}")).1.starts_with("RTSP/1.0 200"));
    assert!(g.publish(2, "live/long", &format!("?token={long}")).1.starts_with("RTSP/1.0 200"));
    for _ in 0..9 {
        // Each publisher says that it is there.
        g.bench.now += Duration::from_secs(10);
        for n in [1, 2] {
            let conn = ConnId::accepted(n);
            let alive = format!("OPTIONS * RTSP/1.0\r\nCSeq: {}\r\n\r\n", 99);
            g.tell(Input::Received { conn, bytes: alive.as_bytes() });
        }
    }
    assert_eq!(g.publishers(), ["live/long token:camera"], "the other ended a minute after its token");
    assert!(g.log.iter().any(|l| l.contains("has expired")), "{:?}", g.log);
    g.bench.node.revoke("id-900").unwrap();
    g.tell(Input::Tick);
    assert_eq!(g.publishers(), Vec::<String>::new());
    assert!(g.publish(3, "live/long", &format!("?token={long}")).1.starts_with("RTSP/1.0 401"));
}

#[test]
fn the_websocket_dialect_rejects_and_takes_a_token_three_ways() {
    let mut g = guarded(|_| {});
    let texts = |said: &[Output], conn| as_client(said, conn);
    let rejected = r#"{"data":{"code":"NetConnection.Connect.Rejected","type":"error"}}"#;
    let (conn, said) = open(&mut g.bench, 1, "/live/?id=vip&token=nonsense");
    let (heard, ended) = texts(&said, conn);
    assert_eq!((heard, ended), (vec![rejected.to_owned()], Some(1008)));
    // Through the manager, before any node is dialled.
    for (n, what) in [(8, "subscribe/live/vip?id=subscriber-1"), (9, "publish/live/vip?id=vip")] {
        let (conn, said) = open(&mut g.bench, n, &format!("/as/v1/proxy/ws/{what}&token=nonsense"));
        assert_eq!(texts(&said, conn), (vec![rejected.to_owned()], Some(1008)), "{what}");
    }
    let says = |g: &mut Guarded, conn, message: &str| {
        let bytes = frames(masked(), &[message], None);
        let said = g.tell(Input::Received { conn, bytes: &bytes });
        as_client(&said, conn)
    };
    let available = r#"{"isAvailable":"a","bundle":true}"#;
    let (conn, _) = open(&mut g.bench, 2, "/live/?id=a");
    let (heard, ended) = says(&mut g, conn, available);
    assert!(heard.contains(&rejected.to_owned()) && ended.is_some(), "{heard:?}");
    let token = g.token(Action::Publish, "live/*", 100);
    let (conn, _) = open(&mut g.bench, 3, &format!("/live/?id=a&token={token}"));
    assert_eq!(says(&mut g, conn, available).0, [r#"{"id":"a","isAvailable":false}"#]);
    let (conn, _) = open(&mut g.bench, 4, "/live/?id=a");
    assert_eq!(says(&mut g, conn, &format!(r#"{{"token":"{token}"}}"#)).0, Vec::<String>::new());
    assert_eq!(says(&mut g, conn, available).0, [r#"{"id":"a","isAvailable":false}"#]);
    let conn = g.bench.accept(5, Service::Http);
    let head = format!(
        "GET /live/?id=a HTTP/1.1\r\nHost: m\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: headwater, token.{token}\r\n\r\n"
    );
    let answer = g.send(conn, &head);
    assert!(answer.contains("Sec-WebSocket-Protocol: headwater\r\n"), "{answer}");
    assert_eq!(says(&mut g, conn, available).0, [r#"{"id":"a","isAvailable":false}"#]);
    // By password: the answer comes once that was verified.
    let (conn, said) =
        open(&mut g.bench, 6, &format!("/live/?id=subscriber-1&username=alice&password={}", SECRETS[0]));
    assert!(text_of(&said, conn).starts_with("HTTP/1.1 101"));
    says(&mut g, conn, r#"{"isAvailable":"vip"}"#);
    assert_eq!(g.checks, 1);
    let (conn, _) = open(&mut g.bench, 7, "/live/?id=subscriber-2");
    assert!(says(&mut g, conn, r#"{"isAvailable":"vip"}"#).0.contains(&rejected.to_owned()));
}

#[test]
fn no_secret_is_in_log_metrics_api_or_story() {
    let mut g = guarded(|c| c.log.level = config::LogLevel::Debug);
    let token = g.token(Action::Publish, "live/*", 500);
    let right = basic("alice", SECRETS[0]);
    let mut seen = String::new();
    g.publish(1, &format!("live/{}", SECRETS[1]), "");
    g.publish(2, &format!("live/{}", SECRETS[3]), "");
    g.publish(3, "live/t", &format!("?token={token}"));
    g.publish(4, "live/p", &format!("?username=alice&password={}", SECRETS[0]));
    g.publish(5, "live/p", "?username=alice&password=nonsense");
    for (n, path) in [
        format!("/whip/live/{}", SECRETS[1]),
        format!("/whip/live/{}", SECRETS[3]),
        format!("/whip/live/x?token={token}"),
        format!("/as/v1/proxy/whip/live/{}", SECRETS[1]),
    ]
    .iter()
    .enumerate()
    {
        seen += &g.http(10 + n as u64, "POST", path, OFFER, "v=0\r\n");
    }
    let target = format!("/live/?id={}", SECRETS[1]);
    let (conn, _) = open(&mut g.bench, 20, &target);
    let bytes = frames(masked(), &[&format!(r#"{{"isAvailable":"{}","bundle":true}}"#, SECRETS[3])], None);
    g.tell(Input::Received { conn, bytes: &bytes });
    let (_, said) =
        open(&mut g.bench, 21, &format!("/streammanager/?id={}&app=live&token={token}", SECRETS[1]));
    for o in &said {
        if let Output::Log(line) = o {
            g.log.push(format!("{line:?}"));
        }
    }
    let names: Vec<String> = g.bench.node.sessions.iter().map(session::Session::name).collect();
    assert!(names.len() >= 2, "{names:?}");
    for (n, name) in names.iter().enumerate() {
        seen += &g.http(30 + n as u64, "GET", &format!("/api/v1/why/{name}"), &right, "");
    }
    for (n, path) in [
        "/api/v1/sessions",
        "/api/v1/streams",
        "/api/v1/proxies",
        "/metrics",
        "/streammanager/api/4.0/event/list",
    ]
    .iter()
    .enumerate()
    {
        seen += &g.http(50 + n as u64, "GET", path, &right, "");
    }
    assert!(
        seen.contains("it has the publish key") && seen.contains("it is the user"),
        "how, not with what: {seen}"
    );
    seen += &g.log.join("\n");
    for secret in SECRETS.iter().copied().chain([token.as_str(), "nonsense"]) {
        assert!(!seen.contains(secret), "{secret} in {seen}");
    }
    let debug = format!("{:?} {:?}", g.bench.node.authority, g.bench.node.config.auth);
    assert!(SECRETS.iter().all(|s| !debug.contains(s)), "{debug}");
}
