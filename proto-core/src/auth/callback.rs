//! Asking the operator's own program who may: one HTTP request with a JSON body for each question, and its answers
//! remembered for a while.
//!
//! Pure: [`Callback::ask`] says what is known or that a [`Question`] has to be asked; the node asks it and hands the answer
//! in ([`Callback::answered`]). Whatever is wrong with the callback (down, slow, garbage) is a verdict too, so it costs
//! only those who ask.

use super::attempts::Print;
use super::config::{AuthConfig, Fallback};
use super::secret::Secret;
use super::{Action, Ask, Refusal};
use crate::error::{Reason, quote};
use crate::http::url::HttpUrl;
use crate::media::key::StreamKey;
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// The most characters of a reason that is told to a client.
const REASON_MAX: usize = 200;
/// The most bytes of the name of a user that a callback gives.
const USER_MAX: usize = 128;
/// For how long it is remembered that a question had no answer: a moment, so that a crowd with the same question does
/// not wait one after the other.
const FAILED_FOR: Duration = Duration::from_secs(1);
/// The longest that an answer may be good for, seconds: a day.
const EXPIRES_MAX_S: u64 = 86_400;

/// What is asked: who wants what, with all that he showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Which one, as a code that tells nothing: the same question has the same.
    pub print: Print,
    /// Who wants it.
    pub ip: IpAddr,
    /// Something was shown.
    shown: bool,
    action: Action,
    stream: Option<StreamKey>,
    json: Secret,
}

/// The body of the request.
#[derive(Serialize)]
struct Said<'a> {
    action: Action,
    protocol: &'a str,
    app: &'a str,
    stream: &'a str,
    user: &'a str,
    password: &'a str,
    token: &'a str,
    key: &'a str,
    ip: IpAddr,
    secure: bool,
    query: &'a str,
}

impl Question {
    /// The question that a wish comes to. `print` makes its code.
    pub(super) fn of(ask: &Ask<'_>, print: impl Fn(&[&str]) -> Print) -> Question {
        let shown = ask.credentials;
        let (user, password) = match (&shown.password, &shown.proven) {
            (Some((user, password)), _) => (user.as_str(), password.reveal()),
            (None, Some(user)) => (user.as_str(), ""),
            (None, None) => ("", ""),
        };
        let secret = |s: &'_ Option<Secret>| s.as_ref().map(|s| s.reveal().to_owned()).unwrap_or_default();
        let said = Said {
            action: ask.action,
            protocol: ask.protocol,
            app: ask.stream.map_or("", StreamKey::app),
            stream: ask.stream.map_or("", StreamKey::name),
            user,
            password,
            token: &secret(&shown.token),
            key: &secret(&shown.key),
            ip: ask.from.ip.to_canonical(),
            secure: ask.from.secure,
            query: ask.query,
        };
        let json = serde_json::to_string(&said).unwrap_or_default();
        Question {
            print: print(&["callback", &json]),
            ip: ask.from.ip,
            shown: !shown.is_empty(),
            action: ask.action,
            stream: ask.stream.cloned(),
            json: Secret::new(json),
        }
    }

    /// Whether a refusal of it is a guess that failed. Clients of RTSP ask first without showing anything; and the name of
    /// what somebody wants to publish may be a key.
    pub fn is_wrong(&self, refusal: &Refusal) -> bool {
        self.shown || (self.action == Action::Publish && !refusal.challenge)
    }

    /// The body to be sent. It holds secrets.
    pub fn body(&self) -> &str {
        self.json.reveal()
    }
}

/// What the program answers with 200. Members that are not known are passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    allow: Option<bool>,
    expires_s: Option<u64>,
    stream: Option<String>,
    user: Option<String>,
    reason: Option<String>,
}

/// What the program said: status and body.
#[derive(Clone, Debug)]
pub struct Heard<'a> {
    /// The status of HTTP.
    pub status: u16,
    /// The body.
    pub body: &'a [u8],
}

/// What is known of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// He may.
    Allow {
        /// Who it is. Empty: not said.
        user: String,
        /// The public name of what he publishes, where it is another than the one he gave.
        stream: Option<StreamKey>,
        /// When it is to be asked again, seconds since 1970.
        ends_s: Option<u64>,
    },
    /// He may not.
    Refuse(Refusal),
    /// There was no answer.
    Failed(Refusal),
}

/// What is to be done about a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it is known.
    Verdict(Verdict),
    /// It is being asked; wait for the answer.
    UnderWay,
    /// It has to be asked.
    Ask,
    /// Too much is being asked; come again.
    TooMany,
}

/// What bounds a [`Callback`]; see the limits of the same names.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Questions that are being asked at once.
    pub questions: usize,
    /// Of one address.
    pub questions_per_ip: usize,
    /// Answers that are remembered.
    pub remembered: usize,
    /// For how long a yes without `expires_s` is remembered.
    pub allowed_for: Duration,
    /// For how long a no without `expires_s` is remembered.
    pub refused_for: Duration,
}

/// The program that is asked, and what it answered.
#[derive(Debug)]
pub struct Callback {
    url: Option<HttpUrl>,
    token: Secret,
    fallback: Fallback,
    bounds: Bounds,
    under_way: BTreeMap<Print, IpAddr>,
    verdicts: BTreeMap<Print, (Verdict, Time)>,
    order: VecDeque<Print>,
    /// Public names by those that publishers gave, for finding a node before anybody is asked.
    names: BTreeMap<StreamKey, StreamKey>,
    named: VecDeque<StreamKey>,
}

impl Callback {
    /// As configured.
    pub fn new(config: &AuthConfig, bounds: Bounds) -> Callback {
        Callback {
            url: HttpUrl::parse(&config.callback).ok(),
            token: config.callback_token.clone(),
            fallback: config.callback_fallback,
            bounds,
            under_way: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            order: VecDeque::new(),
            names: BTreeMap::new(),
            named: VecDeque::new(),
        }
    }

    /// Where it is, and the secret by which it knows this node (empty: none).
    pub fn place(&self) -> Option<(&HttpUrl, &Secret)> {
        Some((self.url.as_ref()?, &self.token))
    }

    /// Questions that are being asked.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// The public name that was last given to what a publisher called so.
    pub fn public(&self, given: &StreamKey) -> Option<&StreamKey> {
        self.names.get(given)
    }

    /// What is known of a question. With [`Known::Ask`] it counts as being asked from now on.
    pub fn ask(&mut self, question: &Question, now: Time) -> Known {
        if let Some(verdict) = self.known(question, now) {
            return Known::Verdict(verdict);
        }
        if self.under_way.contains_key(&question.print) {
            return Known::UnderWay;
        }
        let of_ip = self.under_way.values().filter(|ip| **ip == question.ip).count();
        if self.under_way.len() >= self.bounds.questions || of_ip >= self.bounds.questions_per_ip {
            return Known::TooMany;
        }
        self.under_way.insert(question.print, question.ip);
        Known::Ask
    }

    /// What is known of a question, if anything is.
    pub fn known(&self, question: &Question, now: Time) -> Option<Verdict> {
        let (verdict, until) = self.verdicts.get(&question.print)?;
        (now <= *until).then(|| verdict.clone())
    }

    /// Forgets what is known of a question, so that it is asked again.
    pub fn forget(&mut self, question: &Question) {
        if let Some((_, until)) = self.verdicts.get_mut(&question.print) {
            *until = Time::ZERO;
        }
    }

    /// A question was answered, or could not be asked (why). `now_s` is the wall clock, seconds since 1970. What is known
    /// of it now can be had at least at this `now`. Answers that.
    pub fn answered(
        &mut self,
        question: &Question,
        answer: Result<Heard<'_>, &Reason>,
        now: Time,
        now_s: u64,
    ) -> Verdict {
        self.under_way.remove(&question.print);
        let read =
            answer.map_err(|reason| reason.text.to_string()).and_then(|heard| self.read(question, &heard));
        let (verdict, good_for) = match read {
            Ok((Verdict::Allow { user, stream, .. }, expires)) => {
                let ends_s = expires.filter(|s| *s > 0).map(|s| now_s.saturating_add(s));
                if let (Some(given), Some(public)) = (&question.stream, &stream) {
                    self.name(given, public);
                }
                let good_for = expires.map_or(self.bounds.allowed_for, Duration::from_secs);
                (Verdict::Allow { user, stream, ends_s }, good_for)
            }
            Ok((verdict, expires)) => (verdict, expires.map_or(self.bounds.refused_for, Duration::from_secs)),
            Err(why) => {
                let text = format!("nobody could be asked whether you may ({why}); try again in a moment");
                let reason = Reason::local("auth_callback", text);
                (Verdict::Failed(Refusal { challenge: false, reason }), FAILED_FOR)
            }
        };
        if self.verdicts.insert(question.print, (verdict.clone(), now + good_for)).is_none() {
            self.order.push_back(question.print);
            if self.order.len() > self.bounds.remembered.max(1)
                && let Some(oldest) = self.order.pop_front()
            {
                self.verdicts.remove(&oldest);
            }
        }
        verdict
    }

    fn name(&mut self, given: &StreamKey, public: &StreamKey) {
        if self.names.insert(given.clone(), public.clone()).is_none() {
            self.named.push_back(given.clone());
            if self.named.len() > self.bounds.remembered.max(1)
                && let Some(oldest) = self.named.pop_front()
            {
                self.names.remove(&oldest);
            }
        }
    }

    /// What an answer says, and for how many seconds it is good if it says so.
    fn read(&self, question: &Question, heard: &Heard<'_>) -> Result<(Verdict, Option<u64>), String> {
        let Heard { status, body } = *heard;
        if !matches!(status, 200 | 204 | 401 | 403) {
            return Err(format!("the callback answered with status {status}"));
        }
        let refused = matches!(status, 401 | 403);
        let empty = body.iter().all(u8::is_ascii_whitespace);
        // Of a refusal any body is good, such as a page of a framework.
        let object = body.trim_ascii_start().starts_with(b"{");
        let parsed = match (empty, object) {
            (true, _) => Some(Answer::default()),
            // A list could be read as the members in their order.
            (false, true) => serde_json::from_slice(body).ok(),
            (false, false) => None,
        };
        let answer: Answer = match parsed {
            Some(answer) => answer,
            None if refused => Answer::default(),
            None => return Err("the callback's answer is no JSON that can be understood".to_owned()),
        };
        let expires = answer.expires_s.map(|s| s.min(EXPIRES_MAX_S));
        if refused || answer.allow == Some(false) {
            // Who showed nothing may have something to show.
            let challenge = status == 401;
            let code = if challenge { "unauthorized" } else { "forbidden" };
            let said = answer.reason.map(|r| quote(&r.chars().take(REASON_MAX).collect::<String>()));
            let words = format!("auth.callback does not let you {}", question.action);
            let text = said.map_or(words.clone(), |said| format!("{words}: {said}"));
            let reason = Reason::peer(code, text);
            return Ok((Verdict::Refuse(Refusal { challenge, reason }), expires));
        }
        let user = answer.user.unwrap_or_default();
        if user.len() > USER_MAX || user.chars().any(char::is_control) {
            return Err(format!(
                "the callback names a user with more than {USER_MAX} bytes, or control characters"
            ));
        }
        let stream = match (&question.stream, answer.stream.filter(|_| question.action == Action::Publish)) {
            (Some(given), Some(name)) => {
                let public = match name.contains('/') {
                    true => StreamKey::parse(&name),
                    false => StreamKey::join(given.app(), &name),
                };
                Some(public.map_err(|why| format!("the callback names a stream that cannot be: {why}"))?)
            }
            _ => None,
        };
        Ok((Verdict::Allow { user, stream, ends_s: None }, expires))
    }

    /// Whether whoever could not be asked about is let in.
    pub fn lets_in_unasked(&self) -> bool {
        self.fallback == Fallback::Allow
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
    use super::*;
    use crate::auth::From;
    use crate::auth::credentials::Credentials;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    fn callback(fallback: Fallback) -> Callback {
        let config = AuthConfig {
            callback: "http://auth.example/may".to_owned(),
            callback_fallback: fallback,
            ..AuthConfig::default()
        };
        let bounds = Bounds {
            questions: 3,
            questions_per_ip: 2,
            remembered: 2,
            allowed_for: Duration::from_secs(10),
            refused_for: Duration::from_secs(5),
        };
        Callback::new(&config, bounds)
    }

    fn question(action: Action, stream: &str, query: &str, ip: &str) -> Question {
        let mut credentials = Credentials::default();
        credentials.add_query(query);
        let from = From { ip: ip.parse().unwrap(), local: false, secure: true };
        let key = StreamKey::parse(stream).unwrap();
        let ask = Ask {
            action,
            stream: Some(&key),
            credentials: &credentials,
            key: None,
            from,
            protocol: "rtmp",
            query,
        };
        Question::of(&ask, |texts| Sha256::digest(texts.join("\0")).into())
    }

    fn q(stream: &str) -> Question {
        question(Action::Publish, stream, "", "192.0.2.1")
    }

    fn at(s: u64) -> Time {
        Time::from_millis(s * 1_000)
    }

    fn heard(status: u16, body: &str) -> Heard<'_> {
        Heard { status, body: body.as_bytes() }
    }

    fn told(status: u16, body: &str) -> Verdict {
        let (mut c, q) = (callback(Fallback::Refuse), q("live/s3cr3t"));
        assert_eq!(c.ask(&q, at(0)), Known::Ask);
        c.answered(&q, Ok(heard(status, body)), at(0), 1_000)
    }

    #[test]
    fn the_question_holds_what_was_shown_and_shows_none_of_it() {
        let q = question(Action::Play, "live/a", "user=u&pass=geheim&token=a.b.c&key=k", "::ffff:192.0.2.7");
        let json: serde_json::Value = serde_json::from_str(q.body()).unwrap();
        let wanted = serde_json::json!({
            "action": "play", "protocol": "rtmp", "app": "live", "stream": "a", "user": "u", "password": "geheim",
            "token": "a.b.c", "key": "k", "ip": "192.0.2.7", "secure": true,
            "query": "user=u&pass=geheim&token=a.b.c&key=k",
        });
        assert_eq!(json, wanted);
        assert!(!format!("{q:?}").contains("geheim"));
        let refusal = |challenge| Refusal { challenge, reason: Reason::peer("x", "x") };
        let wrong = |q: &Question| [true, false].map(|challenge| q.is_wrong(&refusal(challenge)));
        assert_eq!(wrong(&q), [true, true]);
        assert_eq!(wrong(&question(Action::Play, "live/a", "", "::1")), [false, false]);
        assert_eq!(wrong(&question(Action::Publish, "live/a", "", "::1")), [false, true], "it may be a key");
    }

    #[test]
    fn answers_are_read() {
        let allow = |user: &str, stream: Option<&str>, ends_s| Verdict::Allow {
            user: user.to_owned(),
            stream: stream.map(|s| StreamKey::parse(s).unwrap()),
            ends_s,
        };
        for body in ["", " \n", "{}", "{\"allow\":true}", "{\"allow\":null,\"more\":[1]}"] {
            assert_eq!(told(200, body), allow("", None, None), "{body}");
        }
        assert_eq!(told(204, ""), allow("", None, None));
        let all = r#"{"expires_s":60,"stream":"show","user":"studio"}"#;
        assert_eq!(told(200, all), allow("studio", Some("live/show"), Some(1_060)));
        assert_eq!(told(200, r#"{"stream":"other/show"}"#), allow("", Some("other/show"), None));
        assert_eq!(told(200, r#"{"expires_s":99999999999}"#), allow("", None, Some(1_000 + EXPIRES_MAX_S)));
        for (status, body, challenge, says) in [
            (200, r#"{"allow":false,"reason":"not paid"}"#, false, "\"not paid\""),
            (403, "<html>", false, "does not let you publish"),
            (401, r#"{"reason":"a\nb"}"#, true, r#""a\nb""#),
        ] {
            let Verdict::Refuse(refusal) = told(status, body) else { panic!("{status} {body}") };
            assert_eq!(refusal.challenge, challenge);
            assert!(refusal.reason.text.contains(says), "{}", refusal.reason.text);
        }
        for (status, body, says) in [
            (500, "", "status 500"),
            (302, "", "status 302"),
            (200, "<html>", "no JSON"),
            (200, "[]", "no JSON"),
            (200, r#"{"stream":"a b"}"#, "cannot be"),
            (200, r#"{"stream":"../x/.."}"#, "cannot be"),
            (200, r#"{"user":"a\nb"}"#, "control characters"),
        ] {
            let Verdict::Failed(refusal) = told(status, body) else { panic!("{status} {body}") };
            assert_eq!(refusal.reason.code, "auth_callback");
            assert!(refusal.reason.text.contains(says), "{}", refusal.reason.text);
            assert!(!refusal.reason.text.contains("s3cr3t"));
        }
    }

    #[test]
    fn answers_are_remembered_as_long_as_they_are_good() {
        let mut c = callback(Fallback::Refuse);
        for (status, body, first, last) in [
            (200, "{}", 10, 11),
            (403, "", 5, 6),
            (200, r#"{"expires_s":60}"#, 60, 61),
            (403, r#"{"expires_s":60}"#, 60, 61),
            (500, "", 1, 2),
            // For whoever asked, and for nobody after him.
            (200, r#"{"expires_s":0}"#, 0, 1),
        ] {
            let q = q(&format!("live/{status}{}", body.len()));
            assert_eq!(c.ask(&q, at(0)), Known::Ask);
            let verdict = c.answered(&q, Ok(heard(status, body)), at(0), 0);
            assert_eq!(c.ask(&q, at(first)), Known::Verdict(verdict), "{status} {body}");
            assert_eq!(c.ask(&q, at(last)), Known::Ask, "{status} {body}");
            c.answered(&q, Err(&Reason::local("x", "x")), at(0), 0);
            c.forget(&q);
            assert_eq!(c.ask(&q, at(1)), Known::Ask);
            c.answered(&q, Err(&Reason::local("x", "x")), at(0), 0);
        }
        assert_eq!((c.verdicts.len(), c.order.len(), c.under_way()), (2, 2, 0), "bounded");
        for n in 0..5 {
            let q = q(&format!("live/key{n}"));
            c.answered(&q, Ok(heard(200, r#"{"stream":"show"}"#)), at(0), 0);
        }
        let public =
            |n: u8| c.public(&StreamKey::parse(&format!("live/key{n}")).unwrap()).map(StreamKey::as_str);
        assert_eq!((public(4), public(0), c.named.len()), (Some("live/show"), None, 2));
    }

    #[test]
    fn the_same_question_is_asked_once_and_no_address_takes_all_places() {
        let mut c = callback(Fallback::Refuse);
        let of = |stream: &str, ip: &str| question(Action::Play, stream, "", ip);
        assert_eq!(c.ask(&of("live/a", "192.0.2.1"), at(0)), Known::Ask);
        assert_eq!(c.ask(&of("live/a", "192.0.2.1"), at(0)), Known::UnderWay);
        assert_eq!(c.ask(&of("live/b", "192.0.2.1"), at(0)), Known::Ask);
        assert_eq!(c.ask(&of("live/c", "192.0.2.1"), at(0)), Known::TooMany);
        assert_eq!(c.ask(&of("live/a", "192.0.2.2"), at(0)), Known::Ask);
        assert_eq!(c.ask(&of("live/a", "192.0.2.3"), at(0)), Known::TooMany);
        c.answered(&of("live/b", "192.0.2.1"), Ok(heard(200, "")), at(0), 0);
        assert_eq!(c.ask(&of("live/a", "192.0.2.3"), at(0)), Known::Ask);
    }

    proptest! {
        #[test]
        fn whatever_it_answers_is_a_verdict(status in 200u16..600, body in "\\PC{0,60}|\\{\"(allow|stream|user|reason|expires_s)\":.{0,20}\\}") {
            let verdict = told(status, &body);
            if let Verdict::Refuse(r) | Verdict::Failed(r) = &verdict {
                prop_assert!(r.reason.text.len() < 2_000 && !r.reason.text.contains("s3cr3t"));
            }
            let let_in = matches!(verdict, Verdict::Allow { .. });
            prop_assert!(status == 200 || status == 204 || !let_in);
        }
    }
}
