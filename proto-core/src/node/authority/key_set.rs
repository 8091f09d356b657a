//! The keys of others that sign tokens: out of a file, or fetched from an address.

use super::Then;
use crate::error::Reason;
use crate::http::message::{Method, Response};
use crate::http::url::HttpUrl;
use crate::io::{AskId, Level, Output, Work};
use crate::node::fetch::Purpose;
use crate::node::links::Asked;
use crate::node::{Alarm, Node};
use crate::time::Deadline;
use bytes::Bytes;
use std::time::Duration;

impl Node {
    /// Asks for the keys of others.
    pub(in crate::node) fn read_key_set(&mut self) {
        let path = self.config.auth.jwks.clone();
        if path.is_empty() {
            return;
        }
        if HttpUrl::is_meant(&path) {
            return self.fetch_key_set();
        }
        self.next_ask += 1;
        let ask = AskId(self.next_ask);
        self.authority.reading_key_set = Some(ask);
        self.asks.insert(ask, Asked::KeySet);
        self.out.push_back(Output::Ask { ask, work: Work::ReadFile { path } });
        self.key_set_again(self.limits.tls_reload_ms);
    }

    fn key_set_again(&mut self, ms: u64) {
        let next = self.now + Duration::from_millis(ms);
        self.timers.set(Alarm::KeySet, Deadline::new(next, "the key set of tokens is looked at"));
    }

    fn fetch_key_set(&mut self) {
        // What is wrong with the address was said at start.
        let Ok(url) = HttpUrl::parse(&self.config.auth.jwks) else { return };
        if self.fetches.key_set() {
            return;
        }
        self.authority.policy.fetching_keys();
        let headers = vec![("Accept", "application/jwk-set+json, application/json".to_owned())];
        self.fetch(Purpose::KeySet, &url, Method::Get, headers, Bytes::new());
    }

    /// Fetches the keys, for somebody whose token may be signed by a new one.
    pub(super) fn keys_for(&mut self, then: Option<Then>) {
        self.authority.for_keys.extend(then);
        self.fetch_key_set();
    }

    /// The key set was fetched, or could not be.
    pub(in crate::node) fn key_set_fetched(&mut self, result: Result<Response, Reason>) {
        let found = match result {
            Ok(response) if response.status == 200 => Ok(response.body),
            Ok(response) => Err(format!("status {}", response.status)),
            Err(reason) => Err(reason.text.into_owned()),
        };
        let whole = found.is_ok();
        let shown = HttpUrl::parse(&self.config.auth.jwks).map(|url| url.to_string()).unwrap_or_default();
        self.key_set_read(found.map_err(|why| format!("{shown} cannot be fetched: {why}")));
        let again = self.limits.auth_jwks_again_ms;
        self.key_set_again(if whole { self.limits.auth_jwks_ms } else { again });
        self.authority.policy.keys_fetched(self.now + Duration::from_millis(again));
        for then in std::mem::take(&mut self.authority.for_keys) {
            self.go_on(then);
        }
    }

    /// The keys of others were read.
    pub(in crate::node) fn key_set_read(&mut self, found: Result<Bytes, String>) {
        if self.authority.key_set.as_ref() == Some(&found) {
            return;
        }
        let path = &self.config.auth.jwks;
        let shown = HttpUrl::parse(path).map_or_else(|_| path.clone(), |url| url.to_string());
        let done = match &found {
            Ok(json) => self.authority.policy.set_key_set(json).map_err(|why| format!("{shown} {why}")),
            Err(why) => Err(why.clone()),
        };
        self.authority.key_set = Some(found);
        match done {
            Ok(n) => {
                let text = format!("{n} keys of others sign tokens (auth.jwks)");
                self.log(Level::Info, "auth", "key_set", text);
            }
            Err(text) => {
                let text = format!("{text}; the keys from before, if there were any, stay in use");
                self.log(Level::Error, "auth", "key_set", text);
            }
        }
    }
}
