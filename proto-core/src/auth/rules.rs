//! The rules: who may do what with which streams. The first that is about an action and a stream decides.

use super::config::RuleConfig;
use super::pattern::Pattern;
use super::{Action, Identity};
use crate::error::quote;
use crate::media::key::StreamKey;

/// Whom a rule lets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever comes.
    Anyone,
    /// Whoever comes from this host.
    Loopback,
    /// Every user.
    Users,
    /// One user.
    User(String),
    /// Whoever has a token that is good for it.
    Tokens,
    /// Whoever has a publish key of the stream.
    Keys,
    /// Whom the callback lets.
    Callback,
}

impl Who {
    fn parse(text: &str) -> Result<Who, String> {
        Ok(match text {
            "anyone" => Who::Anyone,
            "loopback" => Who::Loopback,
            "users" => Who::Users,
            "tokens" => Who::Tokens,
            "keys" => Who::Keys,
            "callback" => Who::Callback,
            _ => match text.strip_prefix("user:") {
                Some(name) if !name.is_empty() => Who::User(name.to_owned()),
                _ => {
                    return Err(format!(
                        "{} is nobody; who holds anyone, loopback, users, user:NAME, tokens, keys and callback",
                        quote(text)
                    ));
                }
            },
        })
    }

    /// Whether it is somebody of this identity.
    pub fn fits(&self, identity: &Identity, local: bool) -> bool {
        match (self, identity) {
            (Who::Anyone, _) | (Who::Users, Identity::User(_)) => true,
            (Who::Loopback, _) => local,
            (Who::User(name), Identity::User(is)) => name == is,
            (Who::Tokens, Identity::Token { .. })
            | (Who::Keys, Identity::Key(_))
            | (Who::Callback, Identity::Callback(_)) => true,
            _ => false,
        }
    }

    /// Whether a password could show that somebody is of these.
    pub fn has_password(&self) -> bool {
        matches!(self, Who::Users | Who::User(_))
    }

    /// What somebody else would have to show.
    pub fn shows(&self) -> Option<&'static str> {
        match self {
            Who::Anyone | Who::Loopback => None,
            Who::Users | Who::User(_) => Some("user and password"),
            Who::Tokens => Some("a token"),
            Who::Keys => Some("a publish key"),
            Who::Callback => Some("what auth.callback takes"),
        }
    }
}

#[derive(Clone, Debug)]
struct Rule {
    action: Action,
    streams: Vec<Pattern>,
    who: Vec<Who>,
    words: String,
}

/// All rules in order.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Rule>);

/// The most rules.
const RULES_MAX: usize = 1_000;

impl Rules {
    /// Reads rules. Where there are any and none is about the API, it is for this host alone.
    ///
    /// # Errors
    /// A sentence that names the rule by its place.
    pub fn read(config: &[RuleConfig]) -> Result<Rules, String> {
        if config.len() > RULES_MAX {
            return Err(format!("there are more than {RULES_MAX} rules; use patterns"));
        }
        let mut rules = Vec::new();
        for (n, rule) in config.iter().enumerate() {
            let place = |text: String| format!("rule {}: {text}", n + 1);
            let streams: Result<Vec<_>, _> = rule.streams.iter().map(|s| Pattern::parse(s)).collect();
            let who: Result<Vec<_>, _> = rule.who.iter().map(|w| Who::parse(w)).collect();
            let (streams, who) =
                (streams.map_err(place)?, who.map_err(|text| format!("rule {}: {text}", n + 1))?);
            if rule.action == Action::Api && !streams.is_empty() {
                return Err(format!("rule {}: what api is about are not streams; leave streams out", n + 1));
            }
            let of = if streams.is_empty() { String::new() } else { format!(" {}", rule.streams.join(" ")) };
            let words = format!("rule {} ({}{of} by {})", n + 1, rule.action.name(), rule.who.join(" "));
            let streams = if streams.is_empty() { vec![Pattern::all()] } else { streams };
            rules.push(Rule { action: rule.action, streams, who, words });
        }
        if !rules.is_empty() && !rules.iter().any(|r| r.action == Action::Api) {
            rules.push(Rule {
                action: Action::Api,
                streams: vec![Pattern::all()],
                who: vec![Who::Loopback],
                words: "the rule that the API is for this host unless a rule says otherwise".to_owned(),
            });
        }
        Ok(Rules(rules))
    }

    /// Whether the callback decides about some of those who want to do something.
    pub fn ask_outside(&self, action: Action) -> bool {
        self.0.iter().any(|r| r.action == action && r.who.contains(&Who::Callback))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first rule about an action and a stream: its words, and whom it lets.
    pub fn find(&self, action: Action, stream: Option<&StreamKey>) -> Option<(&str, &[Who])> {
        let about = |r: &&Rule| {
            r.action == action && stream.is_none_or(|key| r.streams.iter().any(|p| p.matches(key)))
        };
        self.0.iter().find(about).map(|r| (r.words.as_str(), r.who.as_slice()))
    }
}
