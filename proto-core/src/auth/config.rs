//! Who may publish, play and operate, as the configuration spells it.

use super::Action;
use super::secret::Secret;
use serde::{Deserialize, Serialize};

/// The section `auth`. Without a rule nothing is asked of anybody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// The first rule for an action and a stream decides; without one it is refused.
    pub rules: Vec<RuleConfig>,
    /// Users with passwords.
    pub users: Vec<UserConfig>,
    /// Secret publish keys.
    pub keys: Vec<KeyConfig>,
    /// The secret under which stream tokens are signed (HS256); empty: derived from `cluster.key`.
    pub secret: Secret,
    /// A file with a JSON web key set, whose keys sign tokens too, or its `http://` or `https://` address; empty: none.
    pub jwks: String,
    /// What the claim `iss` of tokens under keys of that set must be; empty: anything.
    pub issuer: String,
    /// What their claim `aud` must be or hold; empty: tokens must have none.
    pub audience: String,
    /// Tokens by their ids, and `user:…`, `token:…`, `key:…` by name, which are refused.
    pub revoked: Vec<String>,
    /// Take passwords over connections that are neither TLS nor from this host.
    pub clear_passwords: bool,
    /// The realm of RTSP authentication.
    pub realm: String,
    /// The `http://` or `https://` address of a program that is asked about those whom rules leave to `callback`; empty: none.
    pub callback: String,
    /// What it is shown as `Authorization: Bearer`, so that it knows who asks; empty: nothing.
    pub callback_token: Secret,
    /// What becomes of those about whom it could not be asked.
    pub callback_fallback: Fallback,
}

/// What becomes of those about whom the callback has no answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// They are refused.
    #[default]
    Refuse,
    /// They are let in.
    Allow,
}

impl Default for AuthConfig {
    fn default() -> Self {
        AuthConfig {
            rules: Vec::new(),
            users: Vec::new(),
            keys: Vec::new(),
            secret: Secret::default(),
            jwks: String::new(),
            issuer: String::new(),
            audience: String::new(),
            revoked: Vec::new(),
            clear_passwords: false,
            realm: "Headwater".to_owned(),
            callback: String::new(),
            callback_token: Secret::default(),
            callback_fallback: Fallback::Refuse,
        }
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// What is asked for.
    pub action: Action,
    /// The streams that it is about, such as `live/*`; left out: all. No stream is part of what `api` is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<String>,
    /// Who may: `anyone`, `loopback`, `users`, `user:NAME`, `tokens`, `keys`, `callback`. Empty: nobody.
    pub who: Vec<String>,
}

/// One user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserConfig {
    /// The name.
    pub name: String,
    /// The password's hash, as `headwater ctl passwd` prints it: `$argon2id$…`.
    pub password: Secret,
    /// For RTSP digest: `MD5:` or `SHA-256:` and the hexadecimal hash of `name:realm:password`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ha1: Vec<Secret>,
}

/// One publish key: who knows it may publish the stream, by the key in place of the stream's name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// The key: letters, digits and `._~-`, 16 or more.
    pub key: Secret,
    /// The stream that it publishes.
    pub stream: String,
    /// What logs call it; left out: its place in the list.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}
