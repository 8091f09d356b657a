//! What operators may do over HTTP: log in, take nodes out of service, have streams prewarmed, ask why something is
//! where it is.

use super::Node;
use crate::cluster::manager::{Action, DrainOrder, Placed};
use crate::cluster::placement::Refusal;
use crate::http::message::{Request, Response};
use crate::http::token::{self, Claims};
use crate::http::{api, sm2};
use crate::io::{ConnId, Level};
use crate::media::key::StreamKey;
use crate::rand::Rng;
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;

/// What a node says that is asked for the manager's knowledge and has not that role.
pub(super) const NO_MANAGER: &str =
    "this node is no manager; ask the manager, or publish and play on any node directly";

/// Logins are counted by the second.
#[derive(Debug, Default)]
pub(super) struct Logins {
    second: u64,
    count: u32,
}

/// The sentence in an error of the API.
pub(super) fn words(response: &Response) -> String {
    let body: Option<serde_json::Value> = serde_json::from_slice(&response.body).ok();
    let said = body.as_ref().and_then(|b| b.get("error")?.as_str()).map(str::to_owned);
    said.unwrap_or_else(|| String::from_utf8_lossy(&response.body).trim().to_owned())
}

impl Node {
    pub(super) fn token_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        // A login is good at all loops of a process.
        let mut rng = match &self.config.loops {
            Some(loops) => Rng::new(Sha256::digest(loops.secret.as_bytes()).into()).fork("token", 0),
            None => self.rng.fork("token", 0),
        };
        for chunk in key.chunks_mut(8) {
            for (to, from) in chunk.iter_mut().zip(rng.u64().to_be_bytes()) {
                *to = from;
            }
        }
        key
    }

    /// Whether a request may change something: it comes from this host, or with a token of this manager.
    pub(super) fn may_change(&mut self, conn: ConnId, request: &Request) -> Result<(), Box<Response>> {
        if self.authority.policy.is_on() {
            return self.may_operate(conn, request);
        }
        let header = request.header("authorization").and_then(token::bearer).map(str::to_owned);
        if let Some(token) = header.or_else(|| request.query("accessToken")).filter(|t| !t.is_empty()) {
            return match token::verify(&self.token_key(), &token, self.wall_s()) {
                Ok(_) => Ok(()),
                Err(text) => Err(Box::new(api::error(401, text))),
            };
        }
        let remote = self.conns.get(&conn).map_or(IpAddr::from([0, 0, 0, 0]), |c| c.remote.ip());
        api::may_change(request, remote)
    }

    /// A token for whoever knows the password.
    pub(super) fn login(&mut self, request: &Request) -> Response {
        let config = &self.config.manager;
        if config.password.is_empty() {
            return sm2::error(401, "nobody can log in: manager.password is not set at this node");
        }
        let second = self.now.as_millis() / 1_000;
        if self.logins.second != second {
            self.logins = Logins { second, count: 0 };
        }
        self.logins.count = self.logins.count.saturating_add(1);
        if self.logins.count > self.limits.logins_per_s {
            self.counters.drop("login", "rate_limited", 1);
            return sm2::error(429, "too many logins (limits.logins_per_s); try again in a second")
                .header("Retry-After", "1");
        }
        let Some((user, password)) = request.header("authorization").and_then(token::basic) else {
            return sm2::error(401, "send user and password in an Authorization: Basic header")
                .header("WWW-Authenticate", "Bearer");
        };
        let key = self.token_key();
        // Both are compared whatever the first says: the time must not tell which was wrong.
        let fits = token::same_secret(&key, &user, &config.user)
            & token::same_secret(&key, &password, &config.password);
        if !fits {
            self.counters.drop("login", "wrong", 1);
            self.log(
                Level::Warn,
                "http",
                "login_refused",
                "a login with a wrong user or password".to_owned(),
            );
            return sm2::error(401, "the user or the password is wrong").header("WWW-Authenticate", "Bearer");
        }
        self.login_token(user)
    }

    /// The token of somebody who has just logged in.
    pub(super) fn login_token(&self, user: String) -> Response {
        let now = self.wall_s();
        let claims = Claims { sub: user, iat: now, exp: now + self.limits.token_ms / 1_000 };
        api::answer(&serde_json::json!({ "token": token::mint(&self.token_key(), &claims) }))
    }

    /// Tells a node to take nothing new, or to take it again.
    pub(super) fn order_drain(&mut self, name: &str, order: DrainOrder) -> Result<(), Refusal> {
        let Some(manager) = &mut self.manager else {
            return Err(Refusal::new("no_manager_here", 503, NO_MANAGER));
        };
        // The loops of a process share their ports: a client cannot go round one of them.
        manager.find_process(name)?.iter().try_for_each(|node| manager.drain_node(node, order))
    }

    /// `PUT` and `DELETE /api/v1/nodes/{node}/drain`
    pub(super) fn api_drain(&mut self, conn: ConnId, request: &Request, node: &str, on: bool) -> Response {
        if let Err(response) = self.may_change(conn, request) {
            return *response;
        }
        let within_ms = match number(request, "within_s", 0, 86_400) {
            Ok(s) => s * 1_000,
            Err(response) => return *response,
        };
        let stop = on && request.query("stop").is_some_and(|s| s == "true");
        match self.order_drain(node, DrainOrder { on, within_ms, stop }) {
            Ok(()) => Response::no_content(),
            Err(r) => api::error(r.status, &r.text),
        }
    }

    /// `PUT /api/v1/warm/{app}/{stream}`
    pub(super) fn api_warm(&mut self, conn: ConnId, request: &Request, key: &StreamKey) -> Response {
        if let Err(response) = self.may_change(conn, request) {
            return *response;
        }
        let most = self.limits.pair_nodes as u64;
        let asked = number(request, "edges", 1, most)
            .and_then(|n| Ok((n.max(1), number(request, "seconds", self.limits.warm_ms / 1_000, 86_400)?)));
        let (edges, seconds) = match asked {
            Ok(asked) => asked,
            Err(response) => return *response,
        };
        let Some(manager) = &mut self.manager else { return api::error(503, NO_MANAGER) };
        match manager.warm(key, edges as usize, seconds * 1_000, self.now) {
            Ok(edges) => {
                let names: Vec<String> = edges.into_iter().map(|n| n.0).collect();
                api::answer(&api::Warmed { stream: key.to_string(), edges: names, seconds })
            }
            Err(r) => api::error(r.status, &r.text),
        }
    }

    /// `GET /api/v1/placed/{app}/{stream}`
    pub(super) fn api_placed(&self, key: &StreamKey) -> Response {
        let Some(manager) = &self.manager else { return api::error(503, NO_MANAGER) };
        let stream = manager.registry().stream(key);
        let placed = manager.placed(key);
        if stream.is_none() && placed.is_none() {
            let text = format!("nobody publishes {key}, and nobody asked where to publish it lately");
            return api::error(404, &text);
        }
        let mut words = Vec::new();
        let origin = stream.and_then(|s| s.owner.as_ref()).map(|n| n.0.clone()).unwrap_or_default();
        match stream {
            None => words.push(format!("{key} is not published now")),
            Some(s) if origin.is_empty() => {
                words.push(format!("{key} waits for a publisher; the epoch granted last is {}", s.epoch));
            }
            Some(s) => words.push(format!("{key} is at node {origin} under epoch {}", s.epoch)),
        }
        let none = Placed::default();
        let placed = placed.unwrap_or(&none);
        if let Some(t) = &placed.taken {
            let ago = self.now.since(t.at).as_secs_f64();
            words.push(format!("{ago:.1} s ago node {} was granted epoch {}: {}", t.node, t.epoch, t.how));
        }
        match &placed.publisher {
            Some(choice) => words.extend(choice.words(self.now)),
            None => words.push("no publisher asked this manager for a place lately".to_owned()),
        }
        for choice in placed.viewers.iter().rev() {
            words.extend(choice.words(self.now));
        }
        let choices = placed.publisher.iter().chain(&placed.viewers).map(|c| api::PlacedChoice {
            action: if c.action == Action::Broadcast { "broadcast" } else { "subscribe" }.to_owned(),
            age_s: self.now.since(c.at).as_secs_f64(),
            regions: c.regions.clone(),
            strict: c.strict,
            nodes: c
                .outcome
                .as_ref()
                .map_or_else(|_| Vec::new(), |(n, _)| n.iter().map(|n| n.0.clone()).collect()),
            rule: c.outcome.as_ref().map_or_else(|r| r.code, |(_, why)| why.rule).to_owned(),
            considered: c
                .considered
                .iter()
                .map(|n| api::PlacedNode {
                    node: n.node.clone(),
                    region: n.region.clone(),
                    used: n.used_ppm as f64 / 1e6,
                    state: n.state.to_owned(),
                })
                .collect(),
        });
        api::answer(&api::PlacedStream { stream: key.to_string(), origin, choices: choices.collect(), words })
    }
}

/// A whole number in a query.
pub(super) fn number(request: &Request, name: &str, default: u64, most: u64) -> Result<u64, Box<Response>> {
    match request.query(name) {
        None => Ok(default),
        Some(text) => text.parse().ok().filter(|n| *n <= most).ok_or_else(|| {
            let text = format!("{name}={} is not a whole number up to {most}", crate::error::quote(&text));
            Box::new(api::error(400, &text))
        }),
    }
}
