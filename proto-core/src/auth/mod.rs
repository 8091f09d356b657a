//! Who may publish, play and operate: one model for all protocols.
//!
//! A protocol hands in what its client shows ([`Credentials`]) and what it wants ([`Ask`]); [`Policy::decide`] answers from
//! the rules, the users, the publish keys and the tokens of the configuration. The first rule for the action and the
//! stream decides. A password needs slow work, and the callback of the operator has to be asked: then the answer is
//! [`Decision::Pending`], the node sees to it, says the result ([`Policy::checked`], [`Policy::callback`]) and asks again.
//!
//! Pure like the rest of the core, and there is no secret in anything that it says.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod attempts;
pub mod callback;
mod check;
pub mod config;
pub mod credentials;
mod identity;
pub mod password;
pub mod pattern;
pub mod rules;
pub mod secret;
#[cfg(test)]
mod tests;
pub mod token;

pub use check::{Problem, check};
pub use identity::{Grant, Identity};

use crate::error::{Reason, quote};
use crate::http::url::HttpUrl;
use crate::media::key::StreamKey;
use crate::time::Time;
use attempts::{Attempts, Print};
use callback::{Callback, Heard, Known, Question, Verdict};
use config::AuthConfig;
use credentials::Credentials;
use hmac::{Hmac, KeyInit, Mac};
use password::{Check, PASSWORD_MAX};
use rules::{Rules, Who};
use secret::Secret;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use token::{Claims, LEEWAY_S, TokenKeys};

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Publish a stream.
    Publish,
    /// Play a stream.
    Play,
    /// Look into the cluster, and change things there.
    Api,
}

/// The most bytes of a name that is revoked (A20 bounds what nodes keep of them).
pub const REVOKED_BYTES: usize = 256;

/// The fewest characters of a publish key.
const KEY_LEAST: usize = 16;

impl Action {
    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Publish => "publish",
            Action::Play => "play",
            Action::Api => "api",
        }
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct From {
    /// The client's address.
    pub ip: IpAddr,
    /// It is on this host.
    pub local: bool,
    /// What it shows cannot be read on the way: TLS, or it never left this host.
    pub secure: bool,
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What is wanted.
    pub action: Action,
    /// Of which stream; `None` for [`Action::Api`].
    pub stream: Option<&'a StreamKey>,
    /// What was shown.
    pub credentials: &'a Credentials,
    /// The name of the publish key that was used in place of the stream's name ([`Policy::public`]).
    pub key: Option<&'a str>,
    /// Where it comes from.
    pub from: From,
    /// How it comes, for the callback: `rtmp`, `rtsp`, `whip` and so on.
    pub protocol: &'a str,
    /// The query of what was asked for, as it came, for the callback.
    pub query: &'a str,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Showing something else may help (HTTP 401); else it is known who it is, and he may not (403).
    pub challenge: bool,
    /// Code `unauthorized`, `forbidden`, `auth_wait` or `auth_callback`, and words for the client.
    pub reason: Reason,
}

impl Refusal {
    fn unauthorized(text: impl Into<String>) -> Refusal {
        Refusal { challenge: true, reason: Reason::peer("unauthorized", text.into()) }
    }

    fn forbidden(text: impl Into<String>) -> Refusal {
        Refusal { challenge: false, reason: Reason::peer("forbidden", text.into()) }
    }

    fn in_the_clear() -> Refusal {
        Refusal::forbidden(
            "passwords are taken over TLS only (rtmps, https), or by RTSP digest; show a token, or let the operator set \
             auth.clear_passwords",
        )
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow(Grant),
    /// No.
    Refuse(Refusal),
    /// Something has to be seen to first; then ask again.
    Pending(Wait),
}

/// What has to be seen to before a question has an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A password has to be verified: do this work and say its result ([`Policy::checked`]).
    Password(Pending),
    /// The callback has to be asked, or is being asked (then wait for that answer): say it ([`Policy::callback`]).
    Callback {
        /// What.
        question: Box<Question>,
        /// It is being asked already.
        under_way: bool,
    },
    /// The key set may have the key of a token by now: fetch it, say that it was ([`Policy::keys_fetched`]).
    Keys,
}

/// A password that has to be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The work.
    pub check: Check,
    /// What it is about.
    pub print: Print,
    /// There is no such user: whatever comes of the work is wrong. The work is done all the same, so that its time tells
    /// nothing.
    pub vain: bool,
    /// Who tries.
    pub ip: IpAddr,
}

#[derive(Debug)]
struct User {
    hash: Secret,
    ha1: Vec<(String, String)>,
}

/// The hash algorithms of RTSP digest for which a user may store an HA1, the better one first.
pub const HA1_ALGORITHMS: [&str; 2] = ["SHA-256", "MD5"];

/// All that decides.
#[derive(Debug)]
pub struct Policy {
    rules: Rules,
    users: BTreeMap<String, User>,
    /// Publish keys by their print: the stream and the key's name.
    keys: BTreeMap<Print, (StreamKey, String)>,
    tokens: TokenKeys,
    revoked: BTreeSet<String>,
    revoked_most: usize,
    attempts: Attempts,
    clear_passwords: bool,
    under_way: BTreeMap<IpAddr, usize>,
    checks: (usize, usize),
    callback: Callback,
    /// Where the key set has an address: whether it is being fetched, and from when on it may be.
    fetched_keys: Option<(bool, Time)>,
    wrong: Option<String>,
}

/// What bounds a [`Policy`]; see the limits of the same names.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Passwords that are being verified at once.
    pub checks: usize,
    /// Of one address.
    pub checks_per_ip: usize,
    /// For how long a right password is remembered.
    pub remember: Duration,
    /// Names that can be revoked while the node runs.
    pub revoked: usize,
    /// What bounds the callback.
    pub callback: callback::Bounds,
}

impl Policy {
    /// A policy out of the configuration. `cluster_key` gives the tokens' secret where there is none of their own; where there
    /// is neither, `run_key` does, and tokens are good at this node as long as it runs. A part that is wrong makes
    /// [`Policy::wrong`] say so and everything be refused; `headwater config check` says it before.
    pub fn new(config: &AuthConfig, cluster_key: &str, run_key: [u8; 32], bounds: Bounds) -> Policy {
        let secret = match (config.secret.reveal(), cluster_key) {
            ("", "") => derive(&run_key, b"stream tokens"),
            ("", key) => derive(key.as_bytes(), TOKEN_LABEL),
            (own, _) => own.as_bytes().to_vec(),
        };
        let attempts = Attempts::new(run_key, bounds.remember);
        let problems = check(config);
        let wrong = problems.iter().find(|p| !p.harmless).map(|p| format!("{}: {}", p.key, p.text));
        let user = |u: &config::UserConfig| {
            let ha1 = u.ha1.iter().filter_map(|h| {
                let (algorithm, hash) = h.reveal().split_once(':')?;
                Some((algorithm.to_ascii_uppercase(), hash.to_ascii_lowercase()))
            });
            (u.name.clone(), User { hash: u.password.clone(), ha1: ha1.collect() })
        };
        let keys = config.keys.iter().enumerate().filter_map(|(n, k)| {
            let stream = StreamKey::parse(&k.stream).ok()?;
            let name = if k.name.is_empty() { format!("number {}", n + 1) } else { k.name.clone() };
            Some((attempts.print(&["key", k.key.reveal()]), (stream, name)))
        });
        Policy {
            rules: Rules::read(&config.rules).unwrap_or_default(),
            users: config.users.iter().map(user).collect(),
            keys: keys.collect(),
            tokens: TokenKeys::new(&secret, &config.issuer, &config.audience),
            revoked: config.revoked.iter().cloned().collect(),
            revoked_most: config.revoked.len().saturating_add(bounds.revoked),
            attempts,
            clear_passwords: config.clear_passwords,
            under_way: BTreeMap::new(),
            checks: (bounds.checks, bounds.checks_per_ip),
            callback: Callback::new(config, bounds.callback),
            fetched_keys: HttpUrl::is_meant(&config.jwks).then_some((false, Time::ZERO)),
            wrong,
        }
    }

    /// Takes the cluster's keys, for a policy whose tokens have no secret of their own: tokens are signed under what the first
    /// gives, and taken where they were signed under what any gives.
    pub fn set_cluster_keys<'a>(&mut self, keys: impl IntoIterator<Item = &'a str>) {
        let secrets: Vec<Vec<u8>> = keys.into_iter().map(|key| derive(key.as_bytes(), TOKEN_LABEL)).collect();
        self.tokens.set_own(&secrets);
    }

    /// Whether anything is asked of anybody.
    pub fn is_on(&self) -> bool {
        !self.rules.is_empty() || self.wrong.is_some()
    }

    /// What keeps it from deciding, if anything does.
    pub fn wrong(&self) -> Option<&str> {
        self.wrong.as_deref()
    }

    /// Whether publish keys are in use, so that a name that is no known stream may be a secret.
    pub fn has_keys(&self) -> bool {
        self.is_on() && (!self.keys.is_empty() || self.asks_outside(Action::Publish))
    }

    /// Whether the callback decides about some of those who want to do something.
    pub fn asks_outside(&self, action: Action) -> bool {
        self.rules.ask_outside(action)
    }

    /// The callback.
    pub fn callback(&mut self) -> &mut Callback {
        &mut self.callback
    }

    /// The key set at an address is being fetched.
    pub fn fetching_keys(&mut self) {
        if let Some((under_way, _)) = &mut self.fetched_keys {
            *under_way = true;
        }
    }

    /// It was fetched, or could not be; for a token whose key is not known it is not fetched again before `next`.
    pub fn keys_fetched(&mut self, next: Time) {
        if self.fetched_keys.is_some() {
            self.fetched_keys = Some((false, next));
        }
    }

    /// Whether the key set may have the key of a token by now.
    fn keys_may_help(&self, token: &Secret, now: Time) -> bool {
        let may = self.fetched_keys.is_some_and(|(under_way, next)| under_way || next <= now);
        may && self.tokens.lacks_key_of(token.reveal())
    }

    /// A text with what stands in place of publish keys in it, where there are any: whoever watches by a key, or names it
    /// anywhere else, must not have it written down. `None`: there is none in it.
    pub fn without_keys(&self, text: &str, instead: &str) -> Option<String> {
        if self.keys.is_empty() {
            return None;
        }
        let in_name = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
        // A full stop may end a key or a sentence.
        let words = text.split(|c| !in_name(c)).flat_map(|w| [w, w.trim_end_matches('.')]);
        let words = words.filter(|w| w.len() >= KEY_LEAST);
        let keys: BTreeSet<&str> =
            words.filter(|w| self.keys.contains_key(&self.attempts.print(&["key", w]))).collect();
        if keys.is_empty() {
            return None;
        }
        Some(keys.into_iter().fold(text.to_owned(), |text, key| text.replace(key, instead)))
    }

    /// The stream that a publisher means by a name, and the name of the publish key if that is what he gave. The app of what
    /// he gave must be the stream's.
    pub fn public(&self, given: &StreamKey) -> (StreamKey, Option<String>) {
        if !self.is_on() || self.keys.is_empty() {
            return (given.clone(), None);
        }
        match self.keys.get(&self.attempts.print(&["key", given.name()])) {
            Some((stream, name)) if stream.app() == given.app() => (stream.clone(), Some(name.clone())),
            _ => (given.clone(), None),
        }
    }

    /// As [`Policy::public`], and by what the callback said of that name last: where a publisher is to be sent, never what
    /// he may.
    pub fn likely(&self, given: &StreamKey) -> StreamKey {
        self.callback.public(given).cloned().unwrap_or_else(|| self.public(given).0)
    }

    /// A secret that is stored for RTSP digest: the HA1 of a user for an algorithm, in lower-case hexadecimal.
    pub fn ha1(&self, user: &str, algorithm: &str) -> Option<&str> {
        let of = self.users.get(user)?;
        of.ha1.iter().find(|(a, _)| a.eq_ignore_ascii_case(algorithm)).map(|(_, hash)| hash.as_str())
    }

    /// The algorithms for which some user has an HA1.
    pub fn digests(&self) -> impl Iterator<Item = &'static str> {
        let has = |a: &&str| self.users.values().any(|u| u.ha1.iter().any(|(of, _)| of == *a));
        HA1_ALGORITHMS.into_iter().filter(has)
    }

    /// Takes a JSON web key set.
    ///
    /// # Errors
    /// As [`TokenKeys::set_foreign`].
    pub fn set_key_set(&mut self, json: &[u8]) -> Result<usize, String> {
        self.tokens.set_foreign(json)
    }

    /// Makes a token.
    pub fn mint(&self, claims: &Claims) -> Option<String> {
        self.tokens.mint(claims)
    }

    /// Refuses a name (of a token, by its id, or `user:…`, `token:…`, `key:…`) from now on. Names are at most
    /// [`REVOKED_BYTES`] long.
    ///
    /// # Errors
    /// A sentence if there are too many.
    pub fn revoke(&mut self, name: &str) -> Result<(), String> {
        if self.revoked.len() >= self.revoked_most && !self.revoked.contains(name) {
            return Err(
                "too many names are revoked (limits.auth_revoked); change auth.secret instead".to_owned()
            );
        }
        self.revoked.insert(name.to_owned());
        Ok(())
    }

    /// What was revoked, in order.
    pub fn revoked(&self) -> impl Iterator<Item = &str> {
        self.revoked.iter().map(String::as_str)
    }

    fn is_revoked(&self, identity: &Identity) -> bool {
        !self.revoked.is_empty() && self.revoked.iter().any(|r| identity.is_named(r))
    }

    /// Answers a question. `now_s` is the wall clock, seconds since 1970.
    pub fn decide(&mut self, ask: &Ask<'_>, now: Time, now_s: u64) -> Decision {
        if let Some(wrong) = &self.wrong {
            return Decision::Refuse(Refusal::forbidden(format!(
                "this node's authorisation is not set up right, so it refuses everything: {wrong}"
            )));
        }
        if !self.is_on() {
            return Decision::Allow(Grant::default());
        }
        let Some((rule, who)) = self.rules.find(ask.action, ask.stream) else {
            let what = ask.stream.map_or(String::new(), |key| format!(" {key}"));
            let text = format!("no rule of auth.rules lets anybody {}{what}", ask.action.name());
            return Decision::Refuse(Refusal::forbidden(text));
        };
        let (rule, who) = (rule.to_owned(), who.to_vec());
        let grant = |identity, ends_s| Grant { identity, ends_s, rule: rule.clone(), ..Grant::default() };
        if let Some(token) = &ask.credentials.token
            && who.contains(&Who::Tokens)
            && self.keys_may_help(token, now)
        {
            return Decision::Pending(Wait::Keys);
        }
        let mut refusal = None;
        let tried = [self.by_token(ask, now_s), self.by_key(ask, now), self.by_digest(ask)];
        for found in tried.into_iter().flatten() {
            match found {
                Ok((identity, ends)) if who.iter().any(|w| w.fits(&identity, ask.from.local)) => {
                    return Decision::Allow(grant(identity, ends));
                }
                Ok((identity, _)) => {
                    let text = format!("{} may not {} here", shown(&identity), ask.action.name());
                    refusal.get_or_insert(Refusal::forbidden(text));
                }
                Err(why) => {
                    refusal.get_or_insert(why);
                }
            }
        }
        // Before any password is looked at: nobody needs one then.
        if who.contains(&Who::Anyone) || (who.contains(&Who::Loopback) && ask.from.local) {
            return Decision::Allow(grant(Identity::Nobody, None));
        }
        // A user who is not one of ours may be one of the callback's, which is asked anyway.
        let outside = who.contains(&Who::Callback);
        let ours = |(user, _): &(String, Secret)| !outside || self.users.contains_key(user);
        if ask.credentials.password.as_ref().is_some_and(ours) && who.iter().any(Who::has_password) {
            match self.by_password(ask, now) {
                Ok(Some(name)) => {
                    let identity = Identity::User(name);
                    if self.is_revoked(&identity) {
                        refusal = Some(Refusal::forbidden("this user was revoked"));
                    } else if who.iter().any(|w| w.fits(&identity, ask.from.local)) {
                        return Decision::Allow(grant(identity, None));
                    } else {
                        let text = format!("{} may not {} here", shown(&identity), ask.action.name());
                        refusal = Some(Refusal::forbidden(text));
                    }
                }
                Ok(None) => refusal = Some(Refusal::unauthorized("the user or the password is wrong")),
                Err(Unready::No(why)) => refusal = Some(why),
                Err(Unready::Work(pending)) => return Decision::Pending(Wait::Password(*pending)),
            }
        }
        if outside {
            return match self.by_callback(ask, now) {
                Ok((identity, _, _)) if self.is_revoked(&identity) => {
                    Decision::Refuse(Refusal::forbidden("this user was revoked"))
                }
                Ok((identity, ends, stream)) => {
                    let again = ends.map(|_| Box::new(self.question(ask)));
                    Decision::Allow(Grant { stream, again, ..grant(identity, ends) })
                }
                Err(Asked::No(why)) => Decision::Refuse(why),
                Err(Asked::Wait(wait)) => Decision::Pending(wait),
            };
        }
        Decision::Refuse(refusal.unwrap_or_else(|| {
            let ways: Vec<&str> = who.iter().filter_map(|w| w.shows()).collect();
            match ways.is_empty() {
                true => {
                    Refusal::forbidden(format!("nobody may {} here from another host", ask.action.name()))
                }
                false => {
                    let what = ask.stream.map_or(String::new(), |key| {
                        // What was given may be a key with a slip in it.
                        if self.has_keys() && ask.action == Action::Publish {
                            " this stream".into()
                        } else {
                            format!(" {key}")
                        }
                    });
                    let mut ways = ways;
                    ways.dedup();
                    let text = format!("to {}{what}, show {}", ask.action.name(), ways.join(" or "));
                    Refusal::unauthorized(text)
                }
            }
        }))
    }

    fn by_token(&self, ask: &Ask<'_>, now_s: u64) -> Option<Shown> {
        let token = ask.credentials.token.as_ref()?;
        let claims = match self.tokens.verify(token.reveal(), now_s) {
            Ok(claims) => claims,
            Err(text) => return Some(Err(Refusal::unauthorized(text))),
        };
        let bearer = || Identity::Token { subject: claims.sub.clone(), id: claims.jti.clone() };
        let identity = Identity::named(&claims.of).unwrap_or_else(bearer);
        if self.is_revoked(&identity) {
            return Some(Err(Refusal::unauthorized("the token was revoked; get another")));
        }
        if claims.ip.is_some_and(|ip| ip.to_canonical() != ask.from.ip.to_canonical()) {
            return Some(Err(Refusal::forbidden("the token is good for another address than yours")));
        }
        if !claims.covers(ask.action, ask.stream) {
            let text = match ask.stream {
                Some(_) => format!("the token is not good to {} this stream", ask.action.name()),
                None => "the token is not good for the API".to_owned(),
            };
            return Some(Err(Refusal::forbidden(text)));
        }
        Some(Ok((identity, claims.ends().map(|end| end.saturating_add(LEEWAY_S)))))
    }

    fn by_key(&mut self, ask: &Ask<'_>, now: Time) -> Option<Shown> {
        if ask.action != Action::Publish {
            return None;
        }
        let name = match (ask.key, &ask.credentials.key) {
            (Some(name), _) => name.to_owned(),
            (None, Some(key)) => {
                if let Some(refusal) = self.must_wait(ask.from.ip, now) {
                    return Some(Err(refusal));
                }
                match self.keys.get(&self.attempts.print(&["key", key.reveal()])) {
                    Some((stream, name)) if Some(stream) == ask.stream => name.clone(),
                    _ => {
                        self.attempts.failed(ask.from.ip, now);
                        return Some(Err(Refusal::unauthorized(
                            "the publish key is not one of this stream's",
                        )));
                    }
                }
            }
            (None, None) => return None,
        };
        let identity = Identity::Key(name);
        if self.is_revoked(&identity) {
            return Some(Err(Refusal::unauthorized("the publish key was revoked; get another")));
        }
        Some(Ok((identity, None)))
    }

    fn by_digest(&self, ask: &Ask<'_>) -> Option<Shown> {
        let identity = Identity::User(ask.credentials.proven.clone()?);
        if self.is_revoked(&identity) {
            return Some(Err(Refusal::forbidden("this user was revoked")));
        }
        Some(Ok((identity, None)))
    }

    fn by_password(&mut self, ask: &Ask<'_>, now: Time) -> Result<Option<String>, Unready> {
        let Some((user, password)) = &ask.credentials.password else { return Ok(None) };
        if !ask.from.secure && !self.clear_passwords {
            return Err(Unready::No(Refusal::in_the_clear()));
        }
        if password.reveal().len() > PASSWORD_MAX {
            return Ok(None);
        }
        let known = self.users.get(user);
        // Somebody's hash stands in for that of a user who does not exist.
        let Some(hash) = known.or_else(|| self.users.values().next()).map(|u| u.hash.clone()) else {
            return Ok(None);
        };
        let (vain, print) = (known.is_none(), self.attempts.print_password(user, password, &hash));
        match self.attempts.verdict(&print, now) {
            Some(true) if !vain => return Ok(Some(user.clone())),
            Some(_) => return Ok(None),
            None => {}
        }
        let ip = ask.from.ip;
        if let Some(refusal) = self.must_wait(ip, now) {
            return Err(Unready::No(refusal));
        }
        let of_ip = self.under_way.get(&ip).copied().unwrap_or(0);
        if of_ip >= self.checks.1 || self.under_way.values().sum::<usize>() >= self.checks.0 {
            let text = "too many passwords are being verified; try again in a second";
            let reason = Reason::limit("auth_wait", text);
            return Err(Unready::No(Refusal { challenge: false, reason }));
        }
        *self.under_way.entry(ip).or_default() += 1;
        let check = Check { hash, password: password.clone() };
        Err(Unready::Work(Box::new(Pending { check, print, vain, ip })))
    }

    fn question(&self, ask: &Ask<'_>) -> Question {
        Question::of(ask, |texts| self.attempts.print(texts))
    }

    fn by_callback(
        &mut self,
        ask: &Ask<'_>,
        now: Time,
    ) -> Result<(Identity, Option<u64>, Option<StreamKey>), Asked> {
        if ask.credentials.password.is_some() && !ask.from.secure && !self.clear_passwords {
            return Err(Asked::No(Refusal::in_the_clear()));
        }
        let question = self.question(ask);
        let Some(waits) = self.must_wait(ask.from.ip, now) else {
            return match self.callback.ask(&question, now) {
                Known::Verdict(Verdict::Allow { user, stream, ends_s }) => {
                    Ok((Identity::Callback(user), ends_s, stream))
                }
                Known::Verdict(Verdict::Failed(_)) if self.callback.lets_in_unasked() => {
                    Ok((Identity::Callback(String::new()), None, None))
                }
                Known::Verdict(Verdict::Refuse(why) | Verdict::Failed(why)) => Err(Asked::No(why)),
                Known::TooMany => {
                    let text = "too many questions to auth.callback are open; try again in a second";
                    let reason = Reason::limit("auth_wait", text);
                    Err(Asked::No(Refusal { challenge: false, reason }))
                }
                known => {
                    let under_way = known == Known::UnderWay;
                    Err(Asked::Wait(Wait::Callback { question: Box::new(question), under_way }))
                }
            };
        };
        // What is known costs nothing, and whoever was let in before is no guesser.
        match self.callback.known(&question, now) {
            Some(Verdict::Allow { user, stream, ends_s }) => Ok((Identity::Callback(user), ends_s, stream)),
            _ => Err(Asked::No(waits)),
        }
    }

    /// The callback answered a question, or could not be asked (why). Answers what is known of it now.
    pub fn answered(
        &mut self,
        question: &Question,
        answer: Result<Heard<'_>, &Reason>,
        now: Time,
        now_s: u64,
    ) -> Verdict {
        let verdict = self.callback.answered(question, answer, now, now_s);
        if let Verdict::Refuse(refusal) = &verdict
            && question.is_wrong(refusal)
        {
            self.attempts.failed(question.ip, now);
        }
        verdict
    }

    /// Why an address that failed too often is not heard now.
    pub fn must_wait(&self, ip: IpAddr, now: Time) -> Option<Refusal> {
        let wait = self.attempts.wait(ip, now)?;
        let text = format!("too many wrong attempts from your address; wait {} s", wait.as_secs() + 1);
        Some(Refusal { challenge: false, reason: Reason::limit("auth_wait", text) })
    }

    /// An address showed something wrong that the node looked at itself (a digest).
    pub fn failed(&mut self, ip: IpAddr, now: Time) {
        self.attempts.failed(ip, now);
    }

    /// The work of a [`Decision::Pending`] is done, or could not be (`None`): nothing is known then.
    pub fn checked(&mut self, of: &Pending, right: Option<bool>, now: Time) {
        if let Some(n) = self.under_way.get_mut(&of.ip) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.under_way.remove(&of.ip);
            }
        }
        let Some(right) = right.map(|r| r && !of.vain) else { return };
        self.attempts.verified(of.print, right, now);
        if !right {
            self.attempts.failed(of.ip, now);
        }
    }

    /// Questions that the callback is being asked.
    pub fn questions_under_way(&self) -> usize {
        self.callback.under_way()
    }

    /// Passwords that are being verified.
    pub fn under_way(&self) -> usize {
        self.under_way.values().sum()
    }
}

/// Who somebody is and when that ends, or why it is not believed.
type Shown = Result<(Identity, Option<u64>), Refusal>;

/// Why the callback has no answer yet.
enum Asked {
    No(Refusal),
    Wait(Wait),
}

/// Why a password has no answer yet.
enum Unready {
    No(Refusal),
    Work(Box<Pending>),
}

fn shown(identity: &Identity) -> String {
    match identity {
        Identity::Nobody => "nobody".to_owned(),
        Identity::User(name) => format!("the user {}", quote(name)),
        Identity::Token { .. } => "the bearer of this token".to_owned(),
        Identity::Key(_) => "who has this publish key".to_owned(),
        Identity::Callback(name) => format!("whom auth.callback calls {}", quote(name)),
    }
}

/// What the secret of tokens is derived from the cluster's key for.
const TOKEN_LABEL: &[u8] = b"headwater stream tokens";

fn derive(key: &[u8], label: &[u8]) -> Vec<u8> {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mut mac) => {
            mac.update(label);
            mac.finalize().into_bytes().to_vec()
        }
        Err(_) => Vec::new(),
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
