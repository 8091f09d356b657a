//! Attempts to get what is another's: names, sessions, rights, the cluster itself. Each is scripted, none succeeds, each is
//! answered with the right error, and those whose streams were wanted lose no frame of them.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use headwater_tests::world::actors::attempt::{Attempt, Say};
use headwater_tests::world::actors::evil::{Evil, said};
use headwater_tests::world::actors::player::PlayerConfig;
use headwater_tests::world::actors::webrtc::WhepConfig;
use headwater_tests::world::scenario::{ms, ready, replayed, session};
use headwater_tests::world::{ClientId, HostId, World};
use proto_core::auth::config::{KeyConfig, RuleConfig, UserConfig};
use proto_core::auth::secret::Secret;
use proto_core::auth::token::{Claims, OneOrMany, TokenKeys};
use proto_core::auth::{Action, password};
use proto_core::node::config::{Config, Role};
use proto_core::rand::Rng;
use std::net::{IpAddr, SocketAddr};

const SECRET: &str = "a secret of thirty-two characters";
const KEY: &str = "s3cr3t-publish-key";
/// The stream that everybody wants to take.
const CALM: &str = "live/calm";
/// The stream that only few may watch.
const VIP: &str = "live/vip";

fn rules(c: &mut Config) {
    let rule = |action, streams: &[&str], who: &[&str]| RuleConfig {
        action,
        streams: streams.iter().map(|s| (*s).to_owned()).collect(),
        who: who.iter().map(|s| (*s).to_owned()).collect(),
    };
    c.auth.rules = vec![
        rule(Action::Publish, &["live/*"], &["users", "tokens", "keys"]),
        rule(Action::Play, &[VIP], &["users", "tokens"]),
        rule(Action::Play, &["live/*"], &["anyone"]),
        rule(Action::Api, &[], &["loopback", "tokens"]),
    ];
    let hash = password::hash_cheaply("wonder", &[1; 16]).expect("a password can be hashed");
    c.auth.users =
        vec![UserConfig { name: "alice".to_owned(), password: Secret::new(hash), ha1: Vec::new() }];
    c.auth.keys =
        vec![KeyConfig { key: Secret::new(KEY), stream: "live/show".to_owned(), name: "studio".to_owned() }];
    c.auth.secret = Secret::new(SECRET);
    c.auth.clear_passwords = true;
    c.http.origins = vec!["https://ours.example".to_owned()];
}

/// Where somebody goes.
#[derive(Clone, Copy)]
enum Port {
    Http,
    Rtsp,
    Rtmp,
}

struct Stage {
    m: HostId,
    o: HostId,
    o2: HostId,
    e: HostId,
    publisher: ClientId,
    rtmp: ClientId,
    rtsp: ClientId,
    whep: ClientId,
}

impl Stage {
    fn new(w: &mut World) -> Stage {
        let m = w.host_with("m1", &[Role::Manager], None, rules);
        let [o, o2] = ["o1", "o2"].map(|n| w.host_with(n, &[Role::Origin], Some(m), rules));
        let e = w.host_with("e1", &[Role::Edge], Some(m), rules);
        w.run(ms(2_500));
        let [calm, vip] = [CALM, VIP].map(|stream| {
            let right = token(w, |c| {
                c.sub = "owner".to_owned();
                c.stream = OneOrMany::One(stream.to_owned());
            });
            let p = w.publish(o, &format!("{stream}?token={right}"));
            ready(w, p, 4_000);
            p
        });
        let _ = vip;
        w.run(ms(1_000));
        let rtmp = w.play(e, CALM);
        let rtsp = w.play_rtsp(o, CALM, PlayerConfig { udp: true, ..PlayerConfig::default() });
        let whep = w.play_webrtc(o, CALM, WhepConfig { strict: true, ..WhepConfig::default() });
        w.until("all see it", ms(5_000), |w| {
            [rtmp, rtsp, whep].iter().all(|v| w.standing(*v).session.is_some())
        });
        Stage { m, o, o2, e, publisher: calm, rtmp, rtsp, whep }
    }

    /// Those whose stream was wanted lost nothing.
    fn undisturbed(&self, w: &World) {
        let p = w.publisher(self.publisher);
        assert!(p.is_ready() && p.sent.len() == 1, "the publisher: {:?}", p.sent);
        let (of, pictures) = (session(w, self.publisher), p.sent[0].pictures);
        let whole = |who: &str, seen: Vec<u64>| {
            assert!(seen.windows(2).all(|w| w[1] == w[0] + 1), "{who} has gaps");
            assert!(seen.last().is_some_and(|last| last + 25 >= pictures), "{who} has {:?}", seen.last());
        };
        whole("by RTMP", w.player(self.rtmp).pictures(of));
        whole("by RTSP", w.rtsp_player(self.rtsp).pictures(of));
        whole("by WHEP", w.whep(self.whep).frames(of, true));
        assert_eq!((w.player(self.rtmp).connections, w.rtsp_player(self.rtsp).connections), (1, 1));
        assert_eq!(w.whep(self.whep).calls().len(), 1);
    }

    fn addr(&self, w: &World, at: HostId, port: Port) -> SocketAddr {
        match port {
            Port::Http => w.http_addr(at),
            Port::Rtsp => w.rtsp_addr(at),
            Port::Rtmp => w.rtmp_addr(at),
        }
    }
}

/// A token of this cluster, good to publish everything in `live` unless changed.
fn token(w: &World, change: impl FnOnce(&mut Claims)) -> String {
    signed(w, SECRET.as_bytes(), change)
}

fn signed(w: &World, secret: &[u8], change: impl FnOnce(&mut Claims)) -> String {
    let mut claims = Claims {
        sub: "eve".to_owned(),
        iat: 0,
        nbf: None,
        exp: w.wall_start_s() + 3_600,
        end: None,
        jti: String::new(),
        action: OneOrMany::One(Action::Publish),
        stream: OneOrMany::One("live/*".to_owned()),
        of: String::new(),
        ip: None,
    };
    change(&mut claims);
    TokenKeys::new(secret, "", "").mint(&claims).expect("a secret signs")
}

fn base64(text: &str) -> String {
    use std::fmt::Write as _;
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    text.as_bytes().chunks(3).fold(String::new(), |mut out, three| {
        let n = three.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - three.len()));
        for i in 0..=three.len() {
            let _ = write!(out, "{}", LETTERS[(n >> (18 - 6 * i) & 63) as usize] as char);
        }
        out
    })
}

/// One attempt: what it is, what comes of it, and what must be in that.
struct Try {
    what: String,
    answer: String,
    told: &'static str,
}

/// Makes attempts, one after the other.
struct Thief<'a> {
    w: &'a mut World,
    stage: &'a Stage,
    made: Vec<Try>,
    rng: Rng,
}

impl Thief<'_> {
    /// Says something on a connection of its own, and answers what came.
    fn say(&mut self, at: HostId, port: Port, steps: Vec<Say>) -> String {
        let to = self.stage.addr(self.w, at, port);
        let id = self.w.add(Box::new(Attempt::new(Some(to), steps)));
        self.w.run(ms(700));
        let heard = self.w.with(id, |a: &mut Attempt, _| {
            let closed = a.closed.clone();
            a.hang_up();
            let text: String = String::from_utf8_lossy(&a.heard).into_owned();
            match (text.is_empty(), closed) {
                (true, Some(why)) => format!("closed without a word: {why}"),
                (true, None) => "silence".to_owned(),
                _ => text,
            }
        });
        self.w.run(ms(50));
        heard
    }

    fn made(&mut self, what: impl Into<String>, answer: String, told: &'static str) {
        self.made.push(Try { what: what.into(), answer, told });
    }

    fn rtmp(&mut self, what: &str, at: HostId, verb: &str, stream: &str, told: &'static str) {
        let (app, name) = stream.split_once('/').expect("app/name");
        let answer = self.say(at, Port::Rtmp, vec![said::rtmp(app, verb, name).into()]);
        self.made(format!("RTMP: {what}"), answer, told);
    }

    fn http(&mut self, what: &str, at: HostId, request: &str, told: &'static str) {
        let answer = self.say(at, Port::Http, vec![request.to_owned().into()]);
        self.made(format!("HTTP: {what}"), answer, told);
    }

    /// WHIP or WHEP with a good offer.
    fn offers(&mut self, what: &str, at: HostId, path: &str, more: &str, told: &'static str) {
        let body = said::offer(&mut self.rng, path.contains("whep"));
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: n\r\nContent-Type: application/sdp\r\n{more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.http(what, at, &request, told);
    }

    fn asks(&mut self, what: &str, at: HostId, method: &str, path: &str, more: &str, told: &'static str) {
        self.http(what, at, &format!("{method} {path} HTTP/1.1\r\nHost: n\r\n{more}\r\n"), told);
    }

    fn rtsp(&mut self, what: &str, at: HostId, bytes: Vec<u8>, told: &'static str) {
        let answer = self.say(at, Port::Rtsp, vec![bytes.into()]);
        self.made(format!("RTSP: {what}"), answer, told);
    }

    /// Opens a websocket and says something on it.
    fn socket(
        &mut self,
        what: &str,
        at: HostId,
        path: &str,
        more: &str,
        says: &[String],
        told: &'static str,
    ) {
        let mut steps: Vec<Say> = vec![said::upgrade(path, more).into(), Say::Wait(ms(100))];
        steps.extend(says.iter().map(|s| Say::from(said::ws_text(s))));
        let answer = self.say(at, Port::Http, steps);
        self.made(format!("websocket: {what}"), answer, told);
    }

    /// Datagrams: whatever comes back was too much.
    fn silence(&mut self, what: &str, at: HostId, port: u16, bytes: Vec<u8>) {
        let to = SocketAddr::new(self.stage.addr(self.w, at, Port::Http).ip(), port);
        let id = self.w.add(Box::new(Attempt::new(None, [Say::Datagram(to, bytes.into())])));
        self.w.run(ms(300));
        let came = self.w.with(id, |a: &mut Attempt, _| a.datagrams.len());
        let answer = if came == 0 { "silence".to_owned() } else { format!("{came} datagrams") };
        self.made(format!("UDP: {what}"), answer, "silence");
    }

    /// Has a kind of evil try for some seconds; what the node counts of it is the answer.
    fn evil(&mut self, what: &str, at: HostId, kind: Evil, told: &'static str) {
        let before = self.metrics(at);
        let guest = self.w.evil(kind, at, 7);
        self.w.run(ms(2_000));
        self.w.relent(guest);
        self.w.run(ms(200));
        let after = self.metrics(at);
        let rose = after.lines().filter(|l| l.contains("reason=") && !before.lines().any(|b| b == *l));
        let answer = rose.collect::<Vec<_>>().join("\n");
        self.made(format!("{kind:?}: {what}"), answer, told);
    }

    fn metrics(&mut self, at: HostId) -> String {
        let op = token(self.w, |c| c.action = OneOrMany::One(Action::Api));
        self.w.get(at, &format!("/metrics?token={op}")).expect("an answer").1
    }
}

const TCP: [&str; 2] = ["RTP/AVP/TCP;unicast;interleaved=0-1", "RTP/AVP/TCP;unicast;interleaved=2-3"];

/// Names that others publish, by each protocol, without a right to it and with one that is somebody else's.
fn names(t: &mut Thief<'_>) {
    let (m, o, o2, e) = (t.stage.m, t.stage.o, t.stage.o2, t.stage.e);
    let eve = token(t.w, |_| {});
    let with = format!("?token={eve}");
    let rtsp =
        |t: &Thief<'_>, at, stream: &str| format!("rtsp://{}/{stream}", t.stage.addr(t.w, at, Port::Rtsp));
    for (where_, at) in [("where it is", o), ("at another origin", o2)] {
        t.rtmp(
            &format!("a live name {where_}, nothing shown"),
            at,
            "publish",
            CALM,
            "NetStream.Publish.Denied",
        );
        t.rtmp(
            &format!("a live name {where_}, another's right"),
            at,
            "publish",
            &format!("{CALM}{with}"),
            "NetStream.Publish.BadName",
        );
        let url = rtsp(t, at, CALM);
        t.rtsp(&format!("a live name {where_}, nothing shown"), at, said::rtsp_record(&url), "RTSP/1.0 401");
        let url = rtsp(t, at, &format!("{CALM}{with}"));
        t.rtsp(
            &format!("a live name {where_}, another's right"),
            at,
            said::rtsp_record(&url),
            "RTSP/1.0 403",
        );
        let whip = format!("/whip/{CALM}");
        t.offers(&format!("WHIP to a live name {where_}, nothing shown"), at, &whip, "", "HTTP/1.1 401");
        let bearer = format!("Authorization: Bearer {eve}\r\n");
        t.offers(
            &format!("WHIP to a live name {where_}, another's right"),
            at,
            &whip,
            &bearer,
            "HTTP/1.1 409",
        );
    }
    t.rtmp(
        "a live name at an edge",
        e,
        "publish",
        &format!("{CALM}{with}"),
        "NetStream.Publish.Denied|NetStream.Publish.BadName",
    );
    let carried = format!("/as/v1/proxy/whip/{CALM}");
    t.offers("WHIP through the manager, nothing shown", m, &carried, "", "HTTP/1.1 401");
    t.offers("WHIP through the manager, another's right", m, &format!("{carried}{with}"), "", "HTTP/1.1 409");
    let offer = serde_json::json!({ "handleOffer": "calm", "data": { "sdp": { "type": "offer",
        "sdp": said::offer(&mut t.rng, false) } } });
    let says = ["{\"isAvailable\":\"calm\",\"bundle\":true}".to_owned(), offer.to_string()];
    t.socket("a live name, nothing shown", o, "/live/?id=calm", "", &says, "NetConnection.Connect.Rejected");
    let path = format!("/live/?id=calm&token={eve}");
    t.socket(
        "a live name, another's right",
        o,
        &path,
        "",
        &says,
        "NetStream.Publish.BadName|Rejected|is being published by someone else",
    );
    let says = ["{\"unpublish\":\"calm\"}".to_owned(), "{\"switchStreams\":\"live/vip\"}".to_owned()];
    t.socket("ends and moves what is another's", o, "/live/?id=subscriber-x", "", &says, "HTTP/1.1 101");
    t.evil("a live name again and again", o, Evil::NameThief, "unauthorized");
    t.evil("a live name again and again", o, Evil::WhipThief, "unauthorized");
    t.evil("a live name again and again", o, Evil::RtspThief, "unauthorized");
}

/// Tokens that are not good for what they are shown for.
fn tokens(t: &mut Thief<'_>) {
    let (o, e) = (t.stage.o, t.stage.e);
    let start = t.w.wall_start_s();
    let w = &*t.w;
    let one = |stream: &str| OneOrMany::One(stream.to_owned());
    let none = |alg: &str| {
        let claims = r#"{"sub":"owner","exp":9999999999,"action":["publish","play","api"],"stream":"*"}"#;
        format!("{}.{}.", base64(&format!("{{\"alg\":\"{alg}\",\"typ\":\"JWT\"}}")), base64(claims))
    };
    let good = token(w, |_| {});
    let (head, rest) = good.split_once('.').expect("three parts");
    let (body, signature) = rest.split_once('.').expect("three parts");
    let other = token(w, |c| c.sub = "owner".to_owned());
    let swapped = format!("{head}.{}.{signature}", other.split('.').nth(1).expect("three parts"));
    let half = format!("{head}.{body}.{}", &signature[..20]);
    let wrong = [
        ("another stream", token(w, |c| c.stream = one("live/other"))),
        ("another app", token(w, |c| c.stream = one("music/*"))),
        ("a prefix of the name", token(w, |c| c.stream = one("live/ste"))),
        ("playing only", token(w, |c| c.action = OneOrMany::One(Action::Play))),
        ("the API only", token(w, |c| c.action = OneOrMany::One(Action::Api))),
        ("expired", token(w, |c| c.exp = start - 61)),
        ("not good yet", token(w, |c| c.nbf = Some(start + 3_000))),
        ("another address", token(w, |c| c.ip = Some(IpAddr::from([203, 0, 113, 9])))),
        ("no algorithm", none("none")),
        ("no algorithm, in capitals", none("NONE")),
        ("an empty secret", signed(w, b"x", |_| {})),
        ("the cluster's key as its secret", signed(w, b"a key that all nodes share", |_| {})),
        ("the realm as its secret", signed(w, b"Headwater", |_| {})),
        (
            "a public key's algorithm",
            good.replacen(head, &base64(r#"{"alg":"RS256","kid":"../../etc/passwd"}"#), 1),
        ),
        ("another's claims", swapped),
        ("half a signature", half),
        ("no signature", format!("{head}.{body}.")),
        ("not a token", "x".repeat(300)),
        ("far too long", "a.".repeat(2_200)),
    ];
    for (what, wrong) in wrong {
        let told = match what {
            "another stream"
            | "another app"
            | "a prefix of the name"
            | "playing only"
            | "the API only"
            | "another address" => "HTTP/1.1 403",
            _ => "HTTP/1.1 401",
        };
        t.offers(
            &format!("WHIP with a token for {what}"),
            o,
            &format!("/whip/live/steal?token={wrong}"),
            "",
            told,
        );
        if wrong.len() < 1_000 {
            let stream = format!("live/steal?token={wrong}");
            t.rtmp(&format!("a token for {what}"), o, "publish", &stream, "NetStream.Publish.Denied");
        }
    }
    // A token that is bound to an address does not come from there because a header says so.
    let bound = token(t.w, |c| c.ip = Some(IpAddr::from([203, 0, 113, 9])));
    for header in
        ["X-Forwarded-For: 203.0.113.9\r\n", "Forwarded: for=203.0.113.9\r\n", "X-Real-IP: 203.0.113.9\r\n"]
    {
        let path = format!("/whip/live/steal?token={bound}");
        t.offers("WHIP with another's address in a header", o, &path, header, "HTTP/1.1 403");
    }
    // Rights to publish, where watching is for few.
    t.offers("WHEP with a right to publish", e, &format!("/whep/{VIP}?token={good}"), "", "HTTP/1.1 403");
    t.rtmp(
        "watching with a right to publish",
        e,
        "play",
        &format!("{VIP}?token={good}"),
        "NetStream.Play.Failed",
    );
    t.asks(
        "the API with a right to publish",
        o,
        "GET",
        &format!("/api/v1/sessions?token={good}"),
        "",
        "HTTP/1.1 403",
    );
    // The name of another stream, in other letters.
    for (n, path) in ["live/vip%2f", "live/%76ip", "live/./vip", "live/x/../vip", "live//vip", "live/vip%00"]
        .iter()
        .enumerate()
    {
        let told = if n == 1 { "HTTP/1.1 401" } else { "HTTP/1.1 4" };
        t.offers(&format!("WHEP of /whep/{path}"), e, &format!("/whep/{path}"), "", told);
    }
}

/// Publish keys where they are worth nothing.
fn keys(t: &mut Thief<'_>) {
    let (o, e) = (t.stage.o, t.stage.e);
    let stream = format!("live/{KEY}");
    t.rtmp("a publish key to watch", e, "play", &stream, "NetStream.Play.StreamNotFound");
    t.offers("WHEP with a publish key", e, &format!("/whep/{stream}"), "", "HTTP/1.1 404");
    t.rtmp("a publish key in another app", o, "publish", &format!("music/{KEY}"), "NetStream.Publish.Denied");
    t.rtmp("a publish key and more", o, "publish", &format!("{stream}x"), "NetStream.Publish.Denied");
    t.rtmp("the name that a key is for", o, "publish", "live/show", "NetStream.Publish.Denied");
    t.asks("the API with a publish key", o, "GET", &format!("/api/v1/streams?key={KEY}"), "", "HTTP/1.1 401");
}

/// Sessions of RTSP from connections that they do not belong to.
fn rtsp_sessions(t: &mut Thief<'_>) {
    let o = t.stage.o;
    let url = format!("rtsp://{}/{CALM}", t.stage.addr(t.w, o, Port::Rtsp));
    // The session of a viewer that stays, as if it had been read on the way.
    let to = t.stage.addr(t.w, o, Port::Rtsp);
    let victim = t.w.add(Box::new(Attempt::new(Some(to), [said::rtsp_play(&url, TCP).into()])));
    t.w.run(ms(700));
    let heard = t.w.with(victim, |a: &mut Attempt, _| String::from_utf8_lossy(&a.heard).into_owned());
    let id = heard
        .split("Session: ")
        .nth(1)
        .and_then(|s| s.split([';', '\r']).next())
        .expect("it has a session")
        .to_owned();
    let session = format!("Session: {id}\r\n");
    for method in ["PLAY", "PAUSE", "TEARDOWN", "GET_PARAMETER", "SET_PARAMETER", "RECORD", "OPTIONS"] {
        let bytes = said::rtsp(1, method, &url, &session, "");
        t.rtsp(&format!("{method} with another's session"), o, bytes, "RTSP/1.0 454");
    }
    let more = format!("{session}Transport: {}\r\n", TCP[0]);
    let bytes = said::rtsp(1, "SETUP", &format!("{url}/video"), &more, "");
    t.rtsp("SETUP in another's session", o, bytes, "RTSP/1.0 454");
    let still = t.w.with(victim, |a: &mut Attempt, _| (a.closed.clone(), a.heard.len()));
    t.w.run(ms(500));
    let more = t.w.with(victim, |a: &mut Attempt, _| a.heard.len());
    assert!(still.0.is_none() && more > still.1, "the session goes on");
    t.w.with(victim, |a: &mut Attempt, _| a.hang_up());
    for (what, transport) in [
        ("a port of a service", "RTP/AVP;unicast;client_port=53-54"),
        ("no port", "RTP/AVP;unicast;client_port=0-1"),
        ("a group", "RTP/AVP;multicast;destination=224.2.0.1;port=5000-5001"),
    ] {
        t.rtsp(&format!("media to {what}"), o, said::rtsp_play(&url, [transport, transport]), "RTSP/1.0 461");
    }
    // What a connection was challenged with proves nothing on another.
    let vip = format!("rtsp://{}/{VIP}", t.stage.addr(t.w, o, Port::Rtsp));
    let asked = t.say(o, Port::Rtsp, vec![said::rtsp(1, "DESCRIBE", &vip, "", "").into()]);
    let nonce = asked.split("nonce=\"").nth(1).and_then(|n| n.split('"').next()).unwrap_or("none").to_owned();
    let proof = format!(
        "Authorization: Digest username=\"alice\", realm=\"Headwater\", nonce=\"{nonce}\", uri=\"{vip}\", \
         response=\"{}\"\r\n",
        "0123456789abcdef".repeat(2)
    );
    t.rtsp("a digest of another connection", o, said::rtsp(1, "DESCRIBE", &vip, &proof, ""), "RTSP/1.0 401");
    let basic = "Authorization: Basic YWxpY2U6d3Jvbmc=\r\n";
    t.rtsp("a wrong password", o, said::rtsp(1, "DESCRIBE", &vip, basic, ""), "RTSP/1.0 401");
    t.rtsp("packets before anything", o, [b'$', 0, 0, 4, 1, 2, 3, 4].repeat(5), "closed without a word");
}

/// The manager's proxy as a way to places that are not for it, and pages of other origins.
fn proxy_and_pages(t: &mut Thief<'_>) {
    let (m, o) = (t.stage.m, t.stage.o);
    let ip = |t: &Thief<'_>, at| t.stage.addr(t.w, at, Port::Http).ip().to_string();
    let (own, origin) = (ip(t, m), ip(t, o));
    let decimal = u32::from(origin.parse::<std::net::Ipv4Addr>().expect("an address")).to_string();
    let hosts = [
        "127.0.0.1".to_owned(),
        "localhost".to_owned(),
        own,
        origin.clone(),
        format!("{origin}:22"),
        decimal,
        "0x0a000002".to_owned(),
        "[::1]".to_owned(),
        format!("[::ffff:{origin}]"),
        format!("{origin}@evil.example"),
        format!("{origin}%2f..%2fapi"),
        "metadata.google.internal".to_owned(),
        "169.254.169.254".to_owned(),
    ];
    for host in hosts {
        let path = format!("/as/v1/proxy/ws/subscribe/{CALM}?host={host}");
        t.socket(&format!("proxied to host={host}"), m, &path, "", &[], "HTTP/1.1 403|HTTP/1.1 400");
    }
    let path = format!("/streammanager/?id=subscriber-x&host={origin}&app=live/../../api");
    t.socket("proxied with a path of its own", m, &path, "", &[], "HTTP/1.1 4");
    for page in [
        "https://evil.example",
        "null",
        "http://ours.example",
        "https://ours.example.evil.example",
        "https://ours.example:444",
    ] {
        let header = format!("Origin: {page}\r\n");
        t.socket(&format!("a page of {page}"), o, "/live/?id=subscriber-x", &header, &[], "HTTP/1.1 403");
        t.asks(
            &format!("the API by a page of {page}"),
            o,
            "DELETE",
            "/api/v1/sessions/rtmp-1",
            &header,
            "HTTP/1.1 403",
        );
    }
    // A name of the page's own that leads here (DNS rebinding): the page's origin is then its own host.
    let rebound =
        "GET /api/v1/sessions HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n\r\n";
    t.http("the API by a name that was bound anew", o, rebound, "HTTP/1.1 401");
    t.asks("sessions without a right", o, "GET", "/api/v1/sessions", "", "HTTP/1.1 401");
    t.asks("a kick without a right", o, "DELETE", "/api/v1/sessions/rtmp-1", "", "HTTP/1.1 401");
    t.asks("a token without a right", o, "POST", "/api/v1/tokens", "Content-Length: 0\r\n", "HTTP/1.1 401");
    t.asks("a drain without a right", m, "PUT", "/api/v1/nodes/o1/drain", "", "HTTP/1.1 401");
    t.asks("revoking without a right", m, "PUT", "/api/v1/revoked/token%3Aowner", "", "HTTP/1.1 401");
    t.asks("metrics without a right", o, "GET", "/metrics", "", "HTTP/1.1 401");
    t.asks(
        "this host by a header",
        o,
        "GET",
        "/api/v1/sessions",
        "X-Forwarded-For: 127.0.0.1\r\n",
        "HTTP/1.1 401",
    );
}

/// Resources of WHIP and WHEP by guessing, and those of another kind.
fn resources(t: &mut Thief<'_>) {
    let o = t.stage.o;
    let patch = "Content-Type: application/trickle-ice-sdpfrag\r\nContent-Length: 0\r\n";
    for kind in ["whip-session", "whep-session"] {
        let guess = format!("/{kind}/{}", t.rng.token(32));
        t.asks(&format!("DELETE of a guessed {kind}"), o, "DELETE", &guess, "", "HTTP/1.1 404");
        t.asks(&format!("PATCH of a guessed {kind}"), o, "PATCH", &guess, patch, "HTTP/1.1 4");
        t.asks(&format!("DELETE of /{kind}/"), o, "DELETE", &format!("/{kind}/"), "", "HTTP/1.1 404");
        t.asks(&format!("DELETE of /{kind}/*"), o, "DELETE", &format!("/{kind}/*"), "", "HTTP/1.1 404");
        let up = format!("/{kind}/../api/v1/sessions/rtmp-1");
        t.asks(&format!("DELETE of {up}"), o, "DELETE", &up, "", "HTTP/1.1 4");
    }
    t.asks("the session by its public name", o, "DELETE", "/whep-session/whep-1", "", "HTTP/1.1 404");
    let far = "/as/v1/proxy/to/o1/whep-session/guessed";
    t.asks("a resource through the manager", t.stage.m, "DELETE", far, "", "HTTP/1.1 404");
    let far = "/as/v1/proxy/to/o1/api/v1/sessions/rtmp-1";
    t.asks("the API through the manager", t.stage.m, "DELETE", far, "", "HTTP/1.1 404");
}

/// Media paths of others, and the links between nodes.
fn paths_and_links(t: &mut Thief<'_>) {
    let (m, o) = (t.stage.m, t.stage.o);
    let stun = |user: &str, more: &[u8]| {
        let mut attributes = vec![0, 6, 0, user.len() as u8];
        attributes.extend(user.as_bytes());
        attributes.resize(attributes.len().next_multiple_of(4), 0);
        attributes.extend(more);
        let mut out = vec![0, 1, 0, attributes.len() as u8, 0x21, 0x12, 0xa4, 0x42];
        out.extend([7; 12]);
        out.extend(attributes);
        out
    };
    t.silence("a check of nobody's user", o, 8_189, stun("aaaaaaaaaaaaaaaa:bbbb", &[]));
    t.silence(
        "a check with a forged proof",
        o,
        8_189,
        stun("aaaa:bbbb", &[&[0, 8, 0, 20][..], &[9; 20]].concat()),
    );
    t.silence("a DTLS hello from nowhere", o, 8_189, [&[22, 254, 253][..], &[0; 60]].concat());
    t.silence(
        "an alert of DTLS from nowhere",
        o,
        8_189,
        vec![21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 40],
    );
    t.silence("RTP from nowhere", o, 8_189, [&[0x80, 96][..], &[1; 200]].concat());
    t.silence("RTP to a port of RTSP", o, 8_000, [&[0x80, 96][..], &[1; 200]].concat());
    t.silence("a receiver report to a port of RTSP", o, 8_001, [&[0x81, 201, 0, 7][..], &[1; 28]].concat());
    t.evil("checks of others with bits changed", o, Evil::StunWrong, "unauthentic");
    t.evil("checks and media of others from elsewhere", o, Evil::ReplayElsewhere, "unknown_path");
    t.evil("alerts in another's name (a race for the handshake)", o, Evil::DtlsForged, "unauthentic_media");
    t.evil("media and reports in another's name", o, Evil::RtpForged, "unauthentic_media");
    t.evil("what others sent, once more", o, Evil::Replay, "unauthentic_media");
    t.evil("no hello", m, Evil::LinkGarbage, "link_malformed");
    t.evil("a node with another key", m, Evil::LinkWrongKey, "link_key");
    t.evil("a hello, and no proof", m, Evil::LinkSilence, "reason=\"");
    t.evil("versions that nobody speaks", m, Evil::LinkVersions, "link_version");
    t.evil("a node by the name of another", m, Evil::Impostor, "node_name_taken");
    t.evil("reports of streams that it was never granted", m, Evil::FakeNode, "too_many_reports");
    t.evil("frames under epochs of its own", o, Evil::UnaskedFrames, "no_manager_here");
}

#[test]
fn no_attempt_to_take_what_is_anothers_succeeds() {
    replayed(1, |w| {
        let stage = Stage::new(w);
        let mut thief = Thief { w, stage: &stage, made: Vec::new(), rng: Rng::new([3; 32]) };
        for part in [names, tokens, keys, rtsp_sessions, proxy_and_pages, resources, paths_and_links] {
            part(&mut thief);
        }
        let made = thief.made;
        let wrong: Vec<String> = made
            .iter()
            .filter(|t| !t.told.split('|').any(|told| t.answer.contains(told)))
            .map(|t| {
                let answer: String = t.answer.chars().filter(|c| !c.is_control()).take(300).collect();
                format!("{}: expected {:?}, got {answer:?}", t.what, t.told)
            })
            .collect();
        println!(
            "{} attempts to take what is another's, {} of them not answered as expected",
            made.len(),
            wrong.len()
        );
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(made.len() >= 60, "{} attempts", made.len());
        // Nobody got in: who is in is who was in, and nothing of it was lost.
        stage.undisturbed(w);
        let op = token(w, |c| c.action = OneOrMany::One(Action::Api));
        w.run(ms(1_000));
        let (_, list) = w.get(stage.o, &format!("/api/v1/sessions?token={op}")).expect("an answer");
        let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
        let publishers: Vec<&str> = list["sessions"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|s| s["role"] == "publish")
            .filter_map(|s| s["stream"].as_str())
            .collect();
        assert_eq!(publishers.len(), 2, "only the two publishers: {list}");
        for secret in [KEY, SECRET] {
            assert!(!w.log().iter().any(|line| line.contains(secret)), "a secret in the log");
        }
    });
}
