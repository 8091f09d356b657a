//! Tokens that this node makes: for operators (`headwater ctl token`), and in the addresses that a manager gives out.

use super::Node;
use super::operators::number;
use crate::auth::pattern::Pattern;
use crate::auth::token::{Claims, OneOrMany};
use crate::auth::{Action, Grant, Identity, REVOKED_BYTES};
use crate::cluster::member;
use crate::error::quote;
use crate::http::api;
use crate::http::event::{self, EventQuery};
use crate::http::message::{Request, Response};
use crate::io::{ConnId, Level};
use crate::machine::Machine;
use std::net::IpAddr;

/// The most characters of a name.
const NAME_MAX: usize = 128;

impl Node {
    /// The token for the addresses that the manager answers: for whoever showed that he may, for that stream and action, and
    /// for a moment. Empty: none is needed.
    pub(super) fn pair_token(&mut self, query: &EventQuery, grant: &Grant) -> String {
        if grant.identity == Identity::Nobody {
            return String::new();
        }
        let action = match query.action {
            event::Action::Broadcast => Action::Publish,
            event::Action::Subscribe => Action::Play,
        };
        let now = self.wall_s();
        let claims = Claims {
            sub: String::new(),
            iat: now,
            nbf: None,
            exp: now + self.limits.auth_pair_ms / 1_000,
            // Who came with it stays as long as he could have stayed with what he showed.
            end: Some(grant.ends_s.unwrap_or(0)),
            jti: String::new(),
            action: OneOrMany::One(action),
            stream: OneOrMany::One(query.key.to_string()),
            of: grant.identity.in_token(),
            ip: None,
        };
        self.authority.policy.mint(&claims).unwrap_or_default()
    }

    /// `POST /api/v1/tokens`
    pub(super) fn api_token(&mut self, conn: ConnId, request: &Request) -> Response {
        if let Err(response) = self.may_change(conn, request) {
            return *response;
        }
        let claims = match self.claims_of(request) {
            Ok(claims) => claims,
            Err(response) => return *response,
        };
        let Some(token) = self.authority.policy.mint(&claims) else {
            return api::error(
                503,
                "this node has no secret to sign tokens with (auth.secret or cluster.key)",
            );
        };
        let made_key = self.config.loops.as_ref().is_some_and(|l| l.made_key);
        let shared = !self.config.auth.secret.is_empty() || !self.config.cluster.key.is_empty() && !made_key;
        let words = format!(
            "a token to {} {} was made, id {}, good until {} s after 1970",
            claims.action.iter().map(|a| a.name()).collect::<Vec<_>>().join(" and "),
            claims.stream.iter().map(|s| quote(s)).collect::<Vec<_>>().join(" "),
            quote(&claims.jti),
            claims.exp
        );
        self.log(Level::Info, "auth", "token_made", words);
        api::answer(&api::Token { token, id: claims.jti, expires: claims.exp, everywhere: shared })
    }

    fn claims_of(&mut self, request: &Request) -> Result<Claims, Box<Response>> {
        let wrong = |text: String| Box::new(api::error(400, &text));
        let action = match request.query("action").as_deref() {
            Some("publish") => Action::Publish,
            Some("play") => Action::Play,
            Some("api") => Action::Api,
            _ => return Err(wrong("action must be publish, play or api".to_owned())),
        };
        let streams: Vec<String> = request
            .query("stream")
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
            .collect();
        for stream in &streams {
            Pattern::parse(stream).map_err(wrong)?;
        }
        if streams.is_empty() != (action == Action::Api) {
            let text = "stream must name what a token to publish or play is good for, such as live/x or live/*, and be left out \
                        for the API";
            return Err(wrong(text.to_owned()));
        }
        let ip = match request.query("ip").filter(|ip| !ip.is_empty()) {
            None => None,
            Some(ip) => match ip.parse::<IpAddr>() {
                Ok(ip) => Some(ip),
                Err(_) => return Err(wrong(format!("ip={} is no IP address", quote(&ip)))),
            },
        };
        let ttl = number(request, "ttl_s", 3_600, self.limits.auth_token_ms / 1_000)?.max(1);
        let name = request.query("name").unwrap_or_default();
        if name.len() > NAME_MAX || name.chars().any(char::is_control) {
            return Err(wrong(format!("name must be a text of at most {NAME_MAX} characters")));
        }
        let now = self.wall_s();
        let n = self.next_req();
        // Never the same again, also after a restart: it is what the token is revoked by.
        let jti = self.rng.fork("token id", n).token(16);
        Ok(Claims {
            sub: name,
            iat: now,
            nbf: None,
            exp: now.saturating_add(ttl),
            end: None,
            jti,
            action: OneOrMany::One(action),
            stream: OneOrMany::Many(streams),
            of: String::new(),
            ip,
        })
    }

    /// `PUT /api/v1/revoked/{name}`
    pub(super) fn api_revoke(&mut self, conn: ConnId, request: &Request, name: &str) -> Response {
        if let Err(response) = self.may_change(conn, request) {
            return *response;
        }
        if name.is_empty() || name.len() > REVOKED_BYTES {
            let text = format!(
                "a name to revoke has 1 to {REVOKED_BYTES} bytes; of a token whose subject is longer, revoke the id (jti)"
            );
            return api::error(400, &text);
        }
        match self.revoke(name) {
            Ok(ended) => {
                let everywhere = self.member.is_registered();
                self.member.handle(member::Input::Revoke(name.to_owned()), self.now);
                let text = format!("{} is refused from now on; {ended} sessions ended", quote(name));
                self.log(Level::Info, "auth", "revoked", text);
                api::answer(&api::Revoked { name: name.to_owned(), ended: ended as u64, everywhere })
            }
            Err(text) => api::error(503, &text),
        }
    }

    /// Something was revoked at another node.
    pub(super) fn revoked_elsewhere(&mut self, name: &str) {
        let text = match self.revoke(name) {
            Ok(ended) => format!("{} was revoked in the cluster; {ended} sessions ended here", quote(name)),
            Err(text) => format!("{} was revoked in the cluster, and cannot be here: {text}", quote(name)),
        };
        self.log(Level::Info, "auth", "revoked", text);
    }

    /// `GET /api/v1/revoked`
    pub(super) fn api_revoked(&self) -> Response {
        let names: Vec<String> = self.authority.policy.revoked().map(str::to_owned).collect();
        api::answer(&api::RevokedNames { revoked: names })
    }
}
