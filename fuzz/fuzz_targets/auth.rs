//! Who may publish and play: whatever is shown, in a query, in an `Authorization` header or as a token, gets an answer and never a
//! right that it does not have; patterns of streams are read without a panic and agree with their own text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::auth::config::{AuthConfig, RuleConfig};
use proto_core::auth::credentials::Credentials;
use proto_core::auth::pattern::Pattern;
use proto_core::auth::secret::Secret;
use proto_core::auth::{Action, Ask, Bounds, Decision, From, Policy, callback};
use proto_core::media::key::StreamKey;
use proto_core::time::Time;
use std::time::Duration;

/// Nobody's token, in words that no refusal has.
const SHOWN: &str = "zqxj9f3kv0wy";

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (header, query) = text.split_once('\n').unwrap_or((&text, &text));
    let rule = |action, who: &str| RuleConfig { action, streams: vec![], who: vec![who.to_owned()] };
    let config = AuthConfig {
        rules: vec![
            rule(Action::Publish, "tokens"),
            rule(Action::Play, "anyone"),
            rule(Action::Api, "loopback"),
        ],
        secret: Secret::new("a secret of thirty-two characters that nobody knows"),
        ..AuthConfig::default()
    };
    let second = Duration::from_secs(1);
    let (questions, questions_per_ip, remembered) = (1, 1, 1);
    let callback = callback::Bounds {
        questions,
        questions_per_ip,
        remembered,
        allowed_for: second,
        refused_for: second,
    };
    let bounds = Bounds { checks: 1, checks_per_ip: 1, remember: second, revoked: 1, callback };
    let mut policy = Policy::new(&config, "", [1; 32], bounds);
    let mut credentials = Credentials::default();
    credentials.add_header(header);
    credentials.add_query(&format!("{query}&token={SHOWN}"));
    let stream = StreamKey::parse("live/a").expect("a name");
    let from = From { ip: [192, 0, 2, 1].into(), local: false, secure: true };
    for (action, may) in [(Action::Publish, false), (Action::Play, true), (Action::Api, false)] {
        let stream = (action != Action::Api).then_some(&stream);
        let ask = Ask { action, stream, credentials: &credentials, key: None, from, protocol: "rtmp", query };
        match policy.decide(&ask, Time::ZERO, 1_000) {
            Decision::Allow(_) => assert!(may, "{action} for nothing"),
            Decision::Refuse(refusal) => {
                assert!(!may);
                assert!(!refusal.reason.text.contains(SHOWN), "what was shown is shown on");
            }
            Decision::Pending(_) => panic!("there is no user"),
        }
    }
    if let Ok(pattern) = Pattern::parse(&text) {
        let again = Pattern::parse(&pattern.to_string()).expect("its own text");
        assert_eq!(again, pattern);
        if let Ok(key) = StreamKey::parse(&text) {
            assert!(pattern.matches(&key), "a name fits itself");
        }
    }
});
