#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
use super::config::{KeyConfig, RuleConfig, UserConfig};
use super::token::OneOrMany;
use super::*;

const NOW_S: u64 = 1_000_000;

fn at(s: u64) -> Time {
    Time::from_millis(s * 1_000)
}

fn key(text: &str) -> StreamKey {
    StreamKey::parse(text).unwrap()
}

fn rule(action: Action, streams: &[&str], who: &[&str]) -> RuleConfig {
    let texts = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    RuleConfig { action, streams: texts(streams), who: texts(who) }
}

fn config() -> AuthConfig {
    let hash = |p: &str| Secret::new(password::hash_cheaply(p, &[1; 16]).unwrap());
    AuthConfig {
        rules: vec![
            rule(Action::Publish, &["live/**"], &["users", "tokens", "keys"]),
            rule(Action::Play, &["live/vip/*"], &["tokens", "user:alice"]),
            rule(Action::Play, &["live/**"], &["anyone"]),
            rule(Action::Publish, &["test/*"], &["loopback"]),
        ],
        users: vec![
            UserConfig { name: "alice".to_owned(), password: hash("wonder"), ha1: vec![] },
            UserConfig {
                name: "bob".to_owned(),
                password: hash("build"),
                ha1: vec![Secret::new("MD5:0123456789abcdef0123456789ABCDEF")],
            },
        ],
        keys: vec![KeyConfig {
            key: Secret::new("s3cr3t-publish-key"),
            stream: "live/show".to_owned(),
            name: "studio".to_owned(),
        }],
        secret: Secret::new("a secret of thirty-two characters"),
        ..AuthConfig::default()
    }
}

fn bounds() -> Bounds {
    let callback = callback::Bounds {
        questions: 8,
        questions_per_ip: 4,
        remembered: 100,
        allowed_for: Duration::from_secs(10),
        refused_for: Duration::from_secs(5),
    };
    Bounds { checks: 8, checks_per_ip: 2, remember: Duration::from_secs(600), revoked: 3, callback }
}

fn policy() -> Policy {
    Policy::new(&config(), "", [9; 32], bounds())
}

fn from(ip: &str) -> From {
    let ip: IpAddr = ip.parse().unwrap();
    From { ip, local: ip.is_loopback(), secure: true }
}

fn ask<'a>(action: Action, stream: &'a StreamKey, credentials: &'a Credentials) -> Ask<'a> {
    Ask {
        action,
        stream: Some(stream),
        credentials,
        key: None,
        from: from("192.0.2.1"),
        protocol: "rtmp",
        query: "",
    }
}

fn password(user: &str, password: &str) -> Credentials {
    Credentials { password: Some((user.to_owned(), Secret::new(password))), ..Credentials::default() }
}

/// The answer, passwords verified at once.
fn settle(p: &mut Policy, ask: &Ask<'_>, now: Time) -> Decision {
    match p.decide(ask, now, NOW_S) {
        Decision::Pending(Wait::Password(pending)) => {
            let right = pending.check.run();
            p.checked(&pending, Some(right), now);
            let again = p.decide(ask, now, NOW_S);
            assert!(!matches!(again, Decision::Pending(_)), "verified once");
            again
        }
        decision => decision,
    }
}

fn granted(p: &mut Policy, ask: &Ask<'_>) -> Identity {
    match settle(p, ask, at(0)) {
        Decision::Allow(grant) => grant.identity,
        other => panic!("{other:?}"),
    }
}

fn refused(p: &mut Policy, ask: &Ask<'_>) -> &'static str {
    match settle(p, ask, at(0)) {
        Decision::Refuse(r) => r.reason.code,
        other => panic!("{other:?}"),
    }
}

fn claims() -> Claims {
    Claims {
        sub: "studio".to_owned(),
        iat: NOW_S,
        nbf: None,
        exp: NOW_S + 100,
        end: None,
        jti: "t1".to_owned(),
        action: OneOrMany::One(Action::Publish),
        stream: OneOrMany::One("live/*".to_owned()),
        of: String::new(),
        ip: None,
    }
}

fn token(p: &Policy, claims: &Claims) -> Credentials {
    Credentials { token: Some(Secret::new(p.mint(claims).unwrap())), ..Credentials::default() }
}

#[test]
fn without_rules_everything_is_open_and_the_first_rule_decides() {
    let nothing = Credentials::default();
    let mut open = Policy::new(&AuthConfig::default(), "", [9; 32], bounds());
    assert!(!open.is_on());
    assert_eq!(granted(&mut open, &ask(Action::Publish, &key("any/thing"), &nothing)), Identity::Nobody);
    let mut p = policy();
    assert_eq!(granted(&mut p, &ask(Action::Play, &key("live/a/b"), &nothing)), Identity::Nobody);
    assert_eq!(refused(&mut p, &ask(Action::Play, &key("live/vip/b"), &nothing)), "unauthorized");
    assert_eq!(refused(&mut p, &ask(Action::Publish, &key("live/a"), &nothing)), "unauthorized");
    assert_eq!(refused(&mut p, &ask(Action::Publish, &key("other/a"), &nothing)), "forbidden", "no rule");
    let none = key("a/b");
    let api = |ip| Ask { stream: None, from: from(ip), ..ask(Action::Api, &none, &nothing) };
    assert_eq!(granted(&mut p, &api("127.0.0.1")), Identity::Nobody);
    assert_eq!(refused(&mut p, &api("192.0.2.1")), "forbidden");
    let test = key("test/a");
    let here = Ask { from: from("127.0.0.1"), ..ask(Action::Publish, &test, &nothing) };
    assert_eq!(granted(&mut p, &here), Identity::Nobody);
    assert_eq!(refused(&mut p, &ask(Action::Publish, &test, &nothing)), "forbidden");
}

#[test]
fn users_are_who_they_say_if_their_password_is_right() {
    let mut p = policy();
    let live = key("live/a");
    assert_eq!(
        granted(&mut p, &ask(Action::Publish, &live, &password("alice", "wonder"))),
        Identity::User("alice".to_owned())
    );
    for (user, word) in [("alice", "build"), ("bob", "wonder"), ("carol", "wonder"), ("alice", "")] {
        assert_eq!(
            refused(&mut p, &ask(Action::Publish, &live, &password(user, word))),
            "unauthorized",
            "{user}"
        );
    }
    let vip = key("live/vip/x");
    let mut p = policy();
    assert_eq!(
        granted(&mut p, &ask(Action::Play, &vip, &password("alice", "wonder"))),
        Identity::User("alice".to_owned())
    );
    assert_eq!(
        refused(&mut p, &ask(Action::Play, &vip, &password("bob", "build"))),
        "forbidden",
        "known, and may not"
    );
    // Where anyone may, no password is looked at.
    let wrong = password("alice", "x");
    assert!(matches!(p.decide(&ask(Action::Play, &live, &wrong), at(0), NOW_S), Decision::Allow(_)));
    let proven = Credentials { proven: Some("bob".to_owned()), ..Credentials::default() };
    assert_eq!(granted(&mut p, &ask(Action::Publish, &live, &proven)), Identity::User("bob".to_owned()));
    assert_eq!(p.ha1("bob", "md5"), Some("0123456789abcdef0123456789abcdef"));
    assert_eq!(
        (p.ha1("bob", "SHA-256"), p.ha1("alice", "MD5"), p.digests().collect::<Vec<_>>()),
        (None, None, vec!["MD5"])
    );
}

#[test]
fn a_password_in_the_clear_is_not_even_looked_at() {
    let mut p = policy();
    let (live, right) = (key("live/a"), password("alice", "wonder"));
    let clear =
        Ask { from: From { secure: false, ..from("192.0.2.1") }, ..ask(Action::Publish, &live, &right) };
    assert!(matches!(p.decide(&clear, at(0), NOW_S), Decision::Refuse(r) if r.reason.code == "forbidden"));
    let mut p = Policy::new(&AuthConfig { clear_passwords: true, ..config() }, "", [9; 32], bounds());
    assert_eq!(granted(&mut p, &clear), Identity::User("alice".to_owned()));
}

#[test]
fn the_slow_hash_is_paid_once_and_a_flood_is_held_off() {
    let mut p = policy();
    let live = key("live/a");
    let right = password("alice", "wonder");
    let asked = ask(Action::Publish, &live, &right);
    assert!(matches!(settle(&mut p, &asked, at(0)), Decision::Allow(_)));
    assert!(matches!(p.decide(&asked, at(1), NOW_S), Decision::Allow(_)), "remembered");
    // One address has two under way, all have eight.
    let flood = |p: &mut Policy, n: usize| {
        let guess = password("alice", &format!("guess {n}"));
        let source = From { ip: IpAddr::from([10, 0, 0, (n / 2) as u8]), ..from("192.0.2.1") };
        p.decide(&Ask { from: source, ..ask(Action::Publish, &live, &guess) }, at(2), NOW_S)
    };
    let mut under_way = Vec::new();
    for n in 0..8 {
        match flood(&mut p, n) {
            Decision::Pending(Wait::Password(pending)) => under_way.push(pending),
            other => panic!("{n}: {other:?}"),
        }
    }
    assert!(matches!(flood(&mut p, 9), Decision::Refuse(r) if r.reason.code == "auth_wait"));
    assert!(matches!(p.decide(&asked, at(2), NOW_S), Decision::Allow(_)), "who is known is not held up");
    assert_eq!(p.under_way(), 8);
    for pending in under_way {
        p.checked(&pending, Some(false), at(2));
    }
    assert_eq!(p.under_way(), 0);
    // An address that failed too often waits, and its next guess is not looked at.
    for n in 0..6 {
        let guess = password("bob", &format!("guess {n}"));
        settle(&mut p, &ask(Action::Publish, &live, &guess), at(3));
    }
    let guess = password("bob", "build");
    assert_eq!(refused(&mut p, &ask(Action::Publish, &live, &guess)), "auth_wait");
    assert!(matches!(settle(&mut p, &ask(Action::Publish, &live, &guess), at(100)), Decision::Allow(_)));
}

#[test]
fn work_for_a_user_who_does_not_exist_is_in_vain() {
    let mut p = policy();
    let live = key("live/a");
    // The password of the user whose hash stands in.
    let stranger = password("nobody", "wonder");
    let asked = ask(Action::Publish, &live, &stranger);
    let Decision::Pending(Wait::Password(pending)) = p.decide(&asked, at(0), NOW_S) else {
        panic!("no work")
    };
    assert!(pending.check.run() && pending.vain);
    p.checked(&pending, Some(true), at(0));
    assert_eq!(refused(&mut p, &asked), "unauthorized");
}

#[test]
fn tokens_are_good_for_their_action_stream_address_and_time() {
    let mut p = policy();
    let (live, vip) = (key("live/a"), key("live/vip/x"));
    let good = token(&p, &claims());
    let Decision::Allow(grant) = p.decide(&ask(Action::Publish, &live, &good), at(0), NOW_S) else {
        panic!()
    };
    assert_eq!((grant.identity.name(), grant.ends_s), ("token:studio".to_owned(), Some(NOW_S + 160)));
    assert_eq!(refused(&mut p, &ask(Action::Play, &vip, &good)), "forbidden");
    assert_eq!(refused(&mut p, &ask(Action::Publish, &key("live/a/b"), &good)), "forbidden");
    let old = token(&p, &Claims { exp: NOW_S - 100, ..claims() });
    assert_eq!(refused(&mut p, &ask(Action::Publish, &live, &old)), "unauthorized");
    let elsewhere = token(&p, &Claims { ip: Some("192.0.2.9".parse().unwrap()), ..claims() });
    assert_eq!(refused(&mut p, &ask(Action::Publish, &live, &elsewhere)), "forbidden");
    let here = token(&p, &Claims { ip: Some("::ffff:192.0.2.1".parse().unwrap()), end: Some(0), ..claims() });
    let Decision::Allow(grant) = p.decide(&ask(Action::Publish, &live, &here), at(0), NOW_S) else {
        panic!()
    };
    assert_eq!(grant.ends_s, None);
    // What a manager hands out for a user is the user's.
    let handed = token(&p, &Claims { sub: String::new(), of: "user:alice".to_owned(), ..claims() });
    assert_eq!(granted(&mut p, &ask(Action::Publish, &live, &handed)), Identity::User("alice".to_owned()));
    // Another node with the same secret takes it, one with another does not.
    let mut same = policy();
    assert!(matches!(settle(&mut same, &ask(Action::Publish, &live, &good), at(0)), Decision::Allow(_)));
    let mut other =
        Policy::new(&AuthConfig { secret: Secret::new("b".repeat(32)), ..config() }, "", [9; 32], bounds());
    assert_eq!(refused(&mut other, &ask(Action::Publish, &live, &good)), "unauthorized");
    let derived = |key: &str, run| {
        Policy::new(&AuthConfig { secret: Secret::default(), ..config() }, key, [run; 32], bounds())
    };
    let from_key = token(&derived("cluster key", 1), &claims());
    assert!(matches!(
        settle(&mut derived("cluster key", 2), &ask(Action::Publish, &live, &from_key), at(0)),
        Decision::Allow(_)
    ));
    let of_a_run = token(&derived("", 1), &claims());
    assert_eq!(refused(&mut derived("", 2), &ask(Action::Publish, &live, &of_a_run)), "unauthorized");
}

#[test]
fn what_was_revoked_is_refused() {
    let mut p = policy();
    let live = key("live/a");
    let good = token(&p, &claims());
    let asked = ask(Action::Publish, &live, &good);
    p.revoke("t1").unwrap();
    assert_eq!(refused(&mut p, &asked), "unauthorized");
    let mut p = policy();
    p.revoke("token:studio").unwrap();
    assert_eq!(refused(&mut p, &asked), "unauthorized");
    p.revoke("user:alice").unwrap();
    assert_eq!(refused(&mut p, &ask(Action::Publish, &live, &password("alice", "wonder"))), "forbidden");
    p.revoke("key:studio").unwrap();
    let show = key("live/show");
    assert_eq!(
        refused(&mut p, &Ask { key: Some("studio"), ..ask(Action::Publish, &show, &Credentials::default()) }),
        "unauthorized"
    );
    assert!(p.revoke("one more").unwrap_err().contains("limits.auth_revoked"));
    assert!(p.revoke("t1").is_err() && p.revoke("user:alice").is_ok());
}

#[test]
fn a_publish_key_means_its_stream_and_is_seen_nowhere() {
    let mut p = policy();
    let given = key("live/s3cr3t-publish-key");
    assert_eq!(p.public(&given), (key("live/show"), Some("studio".to_owned())));
    for other in ["other/s3cr3t-publish-key", "live/s3cr3t-publish-kez", "live/show"] {
        assert_eq!(p.public(&key(other)), (key(other), None));
    }
    let show = key("live/show");
    let nothing = Credentials::default();
    let by_name = Ask { key: Some("studio"), ..ask(Action::Publish, &show, &nothing) };
    assert_eq!(granted(&mut p, &by_name), Identity::Key("studio".to_owned()));
    let beside = Credentials { key: Some(Secret::new("s3cr3t-publish-key")), ..Credentials::default() };
    assert_eq!(granted(&mut p, &ask(Action::Publish, &show, &beside)), Identity::Key("studio".to_owned()));
    assert_eq!(refused(&mut p, &ask(Action::Publish, &key("live/other"), &beside)), "unauthorized");
    assert_eq!(
        refused(&mut p, &ask(Action::Play, &key("live/vip/x"), &beside)),
        "unauthorized",
        "it is no key to play"
    );
    let shown = format!("{p:?} {:?}", config());
    assert!(
        !shown.contains("s3cr3t")
            && !shown.contains("wonder")
            && !shown.contains("thirty-two")
            && !shown.contains("argon2")
    );
}

#[test]
fn what_is_set_up_wrong_lets_nobody_in() {
    let bad = AuthConfig {
        rules: vec![rule(Action::Publish, &["live/*"], &["everybody"])],
        ..AuthConfig::default()
    };
    let mut p = Policy::new(&bad, "", [9; 32], bounds());
    let nothing = Credentials::default();
    assert!(p.is_on() && p.wrong().is_some());
    assert_eq!(refused(&mut p, &ask(Action::Play, &key("live/a"), &nothing)), "forbidden");
    assert_eq!(check(&config()), []);
}
