//! What is wrong with the section `auth` of a configuration, so that it is told before a node starts.

use super::HA1_ALGORITHMS;
use super::config::AuthConfig;
use super::password;
use super::rules::Rules;
use crate::error::quote;
use crate::http::url::HttpUrl;
use crate::media::key::StreamKey;
use std::collections::BTreeSet;

/// Something wrong or doubtful in the section `auth`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, such as `auth.users`.
    pub key: &'static str,
    /// What is wrong and what to do, without any secret.
    pub text: String,
    /// The node works all the same.
    pub harmless: bool,
}

/// Everything that is wrong with the section `auth`.
pub fn check(config: &AuthConfig) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut say = |key, text: String, harmless| found.push(Problem { key, text, harmless });
    if let Err(text) = Rules::read(&config.rules) {
        say("auth.rules", text, false);
    }
    let mut names = BTreeSet::new();
    for user in &config.users {
        let named = quote(&user.name);
        if user.name.is_empty()
            || user.name.len() > 64
            || user.name.contains(':')
            || user.name.chars().any(char::is_control)
        {
            let text = format!("the name {named} must have 1 to 64 characters and no colon");
            say("auth.users", text, false);
        } else if !names.insert(&user.name) {
            say("auth.users", format!("there are two users {named}; give each a name of his own"), false);
        }
        if let Err(why) = password::check_hash(user.password.reveal()) {
            say("auth.users", format!("the password of {named} {why}"), false);
        }
        for ha1 in &user.ha1 {
            let digits = ha1.reveal().split_once(':').map(|(algorithm, hash)| {
                let want = if algorithm.eq_ignore_ascii_case("md5") { 32 } else { 64 };
                let known = HA1_ALGORITHMS.iter().any(|a| a.eq_ignore_ascii_case(algorithm));
                known && hash.len() == want && hash.bytes().all(|b| b.is_ascii_hexdigit())
            });
            if digits != Some(true) {
                let text = format!(
                    "ha1 of {named} must be MD5: with 32 or SHA-256: with 64 hexadecimal digits; `headwater ctl passwd --rtsp` \
                     makes them"
                );
                say("auth.users", text, false);
            }
        }
    }
    let mut secrets = BTreeSet::new();
    for (n, key) in config.keys.iter().enumerate() {
        let named = if key.name.is_empty() { format!("number {}", n + 1) } else { quote(&key.name) };
        let text = key.key.reveal();
        if StreamKey::join("a", text).is_err() || text.contains('/') || text.len() < 16 {
            let text = format!("the key {named} must have 16 to 128 of the characters A-Z a-z 0-9 . _ ~ -");
            say("auth.keys", text, false);
        } else if !secrets.insert(text) {
            say("auth.keys", format!("the key {named} is there twice"), false);
        }
        if let Err(why) = StreamKey::parse(&key.stream) {
            say("auth.keys", format!("the stream of key {named}: {why}"), false);
        }
    }
    let length = config.secret.reveal().len();
    if (1..32).contains(&length) {
        let text = format!(
            "has {length} bytes and can be guessed from a token; take 32 or more, the same on all nodes"
        );
        say("auth.secret", text, length >= 16);
    }
    if config.realm.is_empty()
        || config.realm.chars().any(|c| c.is_control() || c == '"' || c == '\\' || !c.is_ascii())
    {
        say("auth.realm", "must be a text in ASCII without quotes".to_owned(), false);
    }
    if config.rules.is_empty()
        && (!config.users.is_empty() || !config.keys.is_empty() || !config.secret.is_empty())
    {
        let text = "is empty, so everybody may publish and play, and users, keys and tokens are of no use; say who may what";
        say("auth.rules", text.to_owned(), false);
    }
    let outside = config.rules.iter().any(|r| r.who.iter().any(|w| w == "callback"));
    match HttpUrl::parse(&config.callback) {
        _ if config.callback.is_empty() => {
            if outside {
                say("auth.rules", "names callback, but auth.callback is empty".to_owned(), false);
            }
        }
        Err(why) => say("auth.callback", why, false),
        Ok(_) if !outside => {
            let text = "is never asked, since no rule names callback: write who = [\"callback\"] where it shall decide";
            say("auth.callback", text.to_owned(), true);
        }
        Ok(url) if !url.is_private() => {
            let text = "is no https:// address: what clients show can be read on the way, passwords and keys included";
            say("auth.callback", text.to_owned(), true);
        }
        Ok(_) => {}
    }
    if !config.callback_token.reveal().chars().all(|c| matches!(c, '!'..='~')) {
        say("auth.callback_token", "must have printable ASCII characters and no space".to_owned(), false);
    }
    if HttpUrl::is_meant(&config.jwks) {
        match HttpUrl::parse(&config.jwks) {
            Err(why) => say("auth.jwks", why, false),
            Ok(url) if !url.is_private() => {
                let text = "is no https:// address: who can change what goes over that line can make tokens";
                say("auth.jwks", text.to_owned(), true);
            }
            Ok(_) => {}
        }
    }
    for (who, there) in [("users", !config.users.is_empty()), ("keys", !config.keys.is_empty())] {
        if !there && config.rules.iter().any(|r| r.who.iter().any(|w| w == who)) {
            let text = format!("names {who}, but auth.{who} is empty");
            say("auth.rules", text, true);
        }
    }
    for name in config.rules.iter().flat_map(|r| &r.who).filter_map(|w| w.strip_prefix("user:")) {
        if !config.users.iter().any(|u| u.name == name) {
            say(
                "auth.rules",
                format!("names the user {}, whom auth.users does not have", quote(name)),
                false,
            );
        }
    }
    found
}
