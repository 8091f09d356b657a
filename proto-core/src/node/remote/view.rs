//! Sources and destinations for people: the API's lists and metrics.

use super::{Remote, RemoteId, State};
use crate::http::api::{DestinationInfo, Destinations, SourceInfo, Sources, Standing};
use crate::node::Node;
use crate::node::config::remotes::{Pattern, Rule};
use std::collections::BTreeMap;

fn idle() -> Standing {
    Standing {
        state: State::Idle.name().to_owned(),
        session: String::new(),
        since_s: 0,
        tries: 0,
        worked: 0,
        failures: 0,
        next_try_s: None,
        reason: String::new(),
    }
}

impl Node {
    fn standing(&self, remote: &Remote) -> Standing {
        let next = match remote.state {
            State::Waits(at) | State::StandsBy(at) => Some(at.since(self.now).as_secs_f64()),
            _ => None,
        };
        let session = match remote.state {
            State::Works(_, session) => self.sessions.get(session).map(|s| s.name()),
            _ => None,
        };
        Standing {
            state: remote.state.name().to_owned(),
            session: session.unwrap_or_default(),
            since_s: self.now.since(remote.since).as_secs(),
            tries: remote.tries,
            worked: remote.worked,
            failures: remote.backoff.failures(),
            next_try_s: next.map(|s| (s * 10.0).round() / 10.0),
            reason: remote.last.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }

    pub(in crate::node) fn api_sources(&self) -> Sources {
        let info = |stream: String, url: String, when: &str, standing| {
            let when = when.to_owned();
            SourceInfo { stream, url, when, standing }
        };
        let mut sources = Vec::new();
        let unused = |rule: &&Rule| match &rule.pattern {
            Pattern::One(key) => !self.remotes.has_source(key),
            pattern @ Pattern::Prefix(_) => {
                !self.remotes.all.keys().any(|id| matches!(id, RemoteId::Source(key) if pattern.fits(key)))
            }
        };
        for rule in self.remotes.sources.iter().filter(unused) {
            sources.push(info(rule.stream.clone(), rule.shown(), rule.when.name(), idle()));
        }
        for (id, remote) in &self.remotes.all {
            if let RemoteId::Source(key) = id {
                let (standing, url) = (self.standing(remote), remote.target.shown.clone());
                sources.push(info(key.to_string(), url, remote.when.name(), standing));
            }
        }
        sources.sort_by(|a, b| a.stream.cmp(&b.stream));
        Sources { sources }
    }

    pub(in crate::node) fn api_destinations(&self) -> Destinations {
        let info = |stream: String, url: String, standing| DestinationInfo { stream, url, standing };
        let mut destinations = Vec::new();
        for (n, rule) in self.remotes.destinations.iter().enumerate() {
            let before = destinations.len();
            for (id, remote) in &self.remotes.all {
                if let RemoteId::Destination(of, key) = id
                    && *of == n
                {
                    let url = remote.target.shown.clone();
                    destinations.push(info(key.to_string(), url, self.standing(remote)));
                }
            }
            if destinations.len() == before {
                destinations.push(info(rule.stream.clone(), rule.shown(), idle()));
            }
        }
        Destinations { destinations }
    }

    /// How many sources and destinations are in each state.
    pub(in crate::node) fn remotes_by_state(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let mut count = BTreeMap::new();
        for (id, remote) in &self.remotes.all {
            *count.entry((id.what(), remote.state.name())).or_default() += 1;
        }
        count
    }
}
