//! Who somebody turned out to be, and the right that this gives him.

use super::callback::Question;
use crate::error::quote;
use crate::media::key::StreamKey;

/// Who somebody turned out to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// Nobody in particular.
    #[default]
    Nobody,
    /// A user.
    User(String),
    /// The bearer of a token: its subject and its id; either may be empty.
    Token {
        /// The subject.
        subject: String,
        /// The id.
        id: String,
    },
    /// Whoever knows a publish key, by the key's name.
    Key(String),
    /// Whom the operator's callback let in, by the name that it gave; empty: it gave none.
    Callback(String),
}

impl Identity {
    /// The name by which a publisher is known when it comes again (A24), and which can be revoked. Empty: not known.
    pub fn name(&self) -> String {
        match self {
            Identity::Nobody => String::new(),
            Identity::User(name) => format!("user:{name}"),
            Identity::Token { subject, id } if subject.is_empty() && id.is_empty() => String::new(),
            Identity::Token { subject, id } if subject.is_empty() => format!("token-id:{id}"),
            Identity::Token { subject, .. } => format!("token:{subject}"),
            Identity::Key(name) => format!("key:{name}"),
            Identity::Callback(name) if name.is_empty() => String::new(),
            Identity::Callback(name) => format!("callback:{name}"),
        }
    }

    /// What a token for somebody of this identity says of him ([`token::Claims::of`]): as [`Identity::name`], and whom the
    /// callback let in without a name is known as such.
    pub fn in_token(&self) -> String {
        match self {
            Identity::Callback(name) => format!("callback:{name}"),
            other => other.name(),
        }
    }

    /// The identity of a name ([`Identity::name`]); `None`: nobody's.
    pub fn named(name: &str) -> Option<Identity> {
        let (kind, rest) = name.split_once(':')?;
        let rest = rest.to_owned();
        Some(match kind {
            "user" => Identity::User(rest),
            "key" => Identity::Key(rest),
            "callback" => Identity::Callback(rest),
            "token" => Identity::Token { subject: rest, id: String::new() },
            "token-id" => Identity::Token { subject: String::new(), id: rest },
            _ => return None,
        })
    }

    /// Whether a revoked name is one of this identity's.
    pub fn is_named(&self, revoked: &str) -> bool {
        let by_id = matches!(self, Identity::Token { id, .. } if !id.is_empty() && id == revoked);
        by_id || (self.name() == revoked && !revoked.is_empty())
    }
}

/// The right to do something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Whose.
    pub identity: Identity,
    /// When it ends, seconds since 1970, if it does.
    pub ends_s: Option<u64>,
    /// The rule that gave it, in words. Empty: nothing is asked of anybody.
    pub rule: String,
    /// The public name of what is published, where the callback gave one.
    pub stream: Option<StreamKey>,
    /// The question that is asked again when it ends.
    pub again: Option<Box<Question>>,
}

impl Grant {
    /// How it came about, for people; never with what. `now_s` is the wall clock, seconds since 1970.
    pub fn words(&self, now_s: u64) -> String {
        let who = match &self.identity {
            Identity::Nobody => "nothing was asked of it".to_owned(),
            Identity::User(name) => format!("it is the user {}", quote(name)),
            Identity::Token { subject, id } => {
                let of = if subject.is_empty() {
                    "a token".to_owned()
                } else {
                    format!("the token of {}", quote(subject))
                };
                let id = if id.is_empty() { String::new() } else { format!(" with id {}", quote(id)) };
                format!("it has {of}{id}")
            }
            Identity::Key(name) => format!("it has the publish key {}", quote(name)),
            Identity::Callback(name) if name.is_empty() => "auth.callback let it in".to_owned(),
            Identity::Callback(name) => format!("auth.callback let it in as {}", quote(name)),
        };
        if self.rule.is_empty() {
            return "everybody has it: auth.rules is empty".to_owned();
        }
        let until = match self.ends_s {
            Some(end) if end > now_s && self.again.is_some() => {
                format!(", and it is asked again in {} s", end - now_s)
            }
            Some(end) if end > now_s => format!(", for {} s more", end - now_s),
            Some(_) => ", which is over".to_owned(),
            None => String::new(),
        };
        format!("{who}, by {}{until}", self.rule)
    }
}
