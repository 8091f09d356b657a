//! Sources and destinations for people: the API's lists and metrics.

use super::{Remote, RemoteId, State};
use crate::http::api::{DestinationInfo, Destinations, SourceInfo, Sources};
use crate::node::Node;
use crate::node::config::remotes::{Pattern, Rule};
use std::collections::BTreeMap;

/// What both lists say of one.
struct Row {
    state: String,
    session: String,
    since_s: u64,
    tries: u64,
    worked: u64,
    failures: u32,
    next_try_s: Option<f64>,
    reason: String,
}

impl Row {
    fn idle() -> Row {
        Row {
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
}

impl Node {
    fn row(&self, remote: &Remote) -> Row {
        let next = match remote.state {
            State::Waits(at) | State::StandsBy(at) => Some(at.since(self.now).as_secs_f64()),
            _ => None,
        };
        let session = match remote.state {
            State::Works(_, session) => self.sessions.get(session).map(|s| s.name()),
            _ => None,
        };
        Row {
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
        let info = |stream: String, url: String, when: &str, row: Row| SourceInfo {
            stream,
            url,
            when: when.to_owned(),
            state: row.state,
            session: row.session,
            since_s: row.since_s,
            tries: row.tries,
            worked: row.worked,
            failures: row.failures,
            next_try_s: row.next_try_s,
            reason: row.reason,
        };
        let mut sources = Vec::new();
        let idle = |rule: &&Rule| match &rule.pattern {
            Pattern::One(key) => !self.remotes.has_source(key),
            pattern @ Pattern::Prefix(_) => {
                !self.remotes.all.keys().any(|id| matches!(id, RemoteId::Source(key) if pattern.fits(key)))
            }
        };
        for rule in self.remotes.sources.iter().filter(idle) {
            sources.push(info(rule.stream.clone(), rule.shown(), rule.when.name(), Row::idle()));
        }
        for (id, remote) in &self.remotes.all {
            if let RemoteId::Source(key) = id {
                let (row, url) = (self.row(remote), remote.target.shown.clone());
                sources.push(info(key.to_string(), url, remote.when.name(), row));
            }
        }
        sources.sort_by(|a, b| a.stream.cmp(&b.stream));
        Sources { sources }
    }

    pub(in crate::node) fn api_destinations(&self) -> Destinations {
        let info = |stream: String, url: String, row: Row| DestinationInfo {
            stream,
            url,
            state: row.state,
            session: row.session,
            since_s: row.since_s,
            tries: row.tries,
            worked: row.worked,
            failures: row.failures,
            next_try_s: row.next_try_s,
            reason: row.reason,
        };
        let mut destinations = Vec::new();
        for (n, rule) in self.remotes.destinations.iter().enumerate() {
            let before = destinations.len();
            for (id, remote) in &self.remotes.all {
                if let RemoteId::Destination(of, key) = id
                    && *of == n
                {
                    let url = remote.target.shown.clone();
                    destinations.push(info(key.to_string(), url, self.row(remote)));
                }
            }
            if destinations.len() == before {
                destinations.push(info(rule.stream.clone(), rule.shown(), Row::idle()));
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
