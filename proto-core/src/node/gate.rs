//! The door of HTTP: what a request wants is known from its route, and whoever may not have it is told so in the shape of
//! the interface that was asked, before any of it is looked at.

use super::Node;
use super::authority::{Asker, Then};
use crate::auth::{Action, Decision, Grant, Identity, Refusal};
use crate::http::message::{Request, Response};
use crate::http::router::Route;
use crate::http::whip::Protocol;
use crate::http::{api, event, sm2, token};
use crate::io::ConnId;
use crate::media::key::StreamKey;
use crate::time::WallTime;

/// What the door says.
pub(super) enum Gate {
    /// Come in, by this right.
    Open(Grant),
    /// No.
    Shut(Box<Response>),
    /// The answer comes later.
    Later,
}

/// A refusal in the shape of the interface that was asked.
pub(super) fn refused(request: &Request, refusal: &Refusal, wall: WallTime) -> Response {
    let reason = &refusal.reason;
    let status = match reason.code {
        "auth_wait" => 429,
        "auth_callback" => 503,
        _ if refusal.challenge => 401,
        _ => 403,
    };
    let path = request.path.as_str();
    let mut response = if path.starts_with("/streammanager/") {
        event::error(status, &reason.text, wall)
    } else if path.starts_with("/as/v1/proxy/") {
        Response::text(status, reason.to_string())
    } else if path.starts_with("/as/") {
        sm2::error(status, &reason.text)
    } else if path.starts_with("/api/") {
        api::error(status, &reason.text)
    } else {
        Response::text(status, reason.to_string())
    };
    response.set("Cache-Control", "no-store");
    match status {
        // Basic is taken too, and not asked for: browsers would ask people for a password that they have not.
        401 => response.set("WWW-Authenticate", "Bearer realm=\"Headwater\""),
        429 | 503 => response.set("Retry-After", "1"),
        _ => {}
    }
    response
}

fn action_of(action: event::Action) -> Action {
    match action {
        event::Action::Broadcast => Action::Publish,
        event::Action::Subscribe => Action::Play,
    }
}

/// How a request comes, for the callback.
fn protocol_of(route: &Route) -> &'static str {
    match route {
        Route::Whip(_) | Route::ProxyEndpoint { protocol: Protocol::Whip, .. } => "whip",
        Route::Whep(_) | Route::WhepOffer(_) | Route::ProxyEndpoint { protocol: Protocol::Whep, .. } => {
            "whep"
        }
        Route::Flv(_) => "flv",
        _ => "http",
    }
}

/// What a request wants, where that is not everybody's.
fn wanted(route: &mut Route) -> Option<(Action, Option<&mut StreamKey>)> {
    Some(match route {
        Route::Whip(key) => (Action::Publish, Some(key)),
        Route::Whep(key) | Route::WhepOffer(key) | Route::Flv(key) => (Action::Play, Some(key)),
        Route::ProxyEndpoint { protocol: Protocol::Whip, key } => (Action::Publish, Some(key)),
        Route::ProxyEndpoint { protocol: Protocol::Whep, key } => (Action::Play, Some(key)),
        Route::Event(query) | Route::Sm2(sm2::Call::Pair { query, .. }) => {
            (action_of(query.action), Some(&mut query.key))
        }
        Route::Sm1(_) | Route::Sm2(sm2::Call::Streams { .. } | sm2::Call::Status { .. }) => {
            (Action::Api, None)
        }
        Route::Api(_) | Route::Metrics => (Action::Api, None),
        _ => return None,
    })
}

impl Node {
    /// Who sends a request, and what he shows.
    pub(super) fn asker_of(&self, conn: ConnId, request: &Request) -> Asker {
        let query = request.query.as_deref().unwrap_or_default();
        let mut asker = self.asker(conn, query, request.header("authorization"));
        asker.from = self.request_from(conn, request);
        asker
    }

    /// Whether a request may have what its route says that it wants. A publish key in the route becomes the stream's name.
    pub(super) fn gate(&mut self, conn: ConnId, request: &Request, route: &mut Route) -> Gate {
        if !self.authority.policy.is_on() {
            return Gate::Open(Grant::default());
        }
        if matches!(route, Route::Sm2(sm2::Call::Login)) {
            return self.gate_login(conn, request);
        }
        let protocol = protocol_of(route);
        let Some((action, stream)) = wanted(route) else { return Gate::Open(Grant::default()) };
        let mut asker = Asker { protocol, ..self.asker_of(conn, request) };
        let decision = match stream {
            Some(key) => {
                if action == Action::Publish {
                    *key = self.named_by(key.clone(), &mut asker);
                }
                let given = key.clone();
                let decision = self.decide(action, Some(&given), &asker);
                if let Decision::Allow(Grant { stream: Some(public), .. }) = &decision {
                    *key = public.clone();
                }
                decision
            }
            None => self.decide_api(conn, request, &mut asker),
        };
        match decision {
            Decision::Allow(grant) => Gate::Open(grant),
            Decision::Refuse(refusal) => {
                Gate::Shut(Box::new(refused(request, &refusal, self.wall.wall(self.now))))
            }
            Decision::Pending(pending) => {
                self.verify_then(pending, Then::Request(conn, request.clone()));
                Gate::Later
            }
        }
    }

    /// A login of the stream-manager dialect: who may use the API gets a token. `manager.user` is looked at by the login itself.
    fn gate_login(&mut self, conn: ConnId, request: &Request) -> Gate {
        let mut asker = self.asker_of(conn, request);
        asker.from.local = false;
        let Some((user, _)) = asker.credentials.password.clone() else { return Gate::Open(Grant::default()) };
        if user == self.config.manager.user && !self.config.manager.password.is_empty() {
            return Gate::Open(Grant::default());
        }
        match self.decide(Action::Api, None, &asker) {
            // Where a rule lets anyone, no password was looked at.
            Decision::Allow(grant) if grant.identity == Identity::User(user.clone()) => {
                Gate::Shut(Box::new(self.login_token(user)))
            }
            Decision::Allow(_) => Gate::Open(Grant::default()),
            Decision::Refuse(refusal) => {
                Gate::Shut(Box::new(refused(request, &refusal, self.wall.wall(self.now))))
            }
            Decision::Pending(pending) => {
                self.verify_then(pending, Then::Request(conn, request.clone()));
                Gate::Later
            }
        }
    }

    /// The API is for this host only where nothing else is said, and never for a page of another origin.
    fn decide_api(&mut self, conn: ConnId, request: &Request, asker: &mut Asker) -> Decision {
        let host = request.header("host").unwrap_or_default();
        let own = |origin: &str| origin.split_once("://").is_some_and(|(_, o)| o.eq_ignore_ascii_case(host));
        let allowed = |origin: &str| self.config.http.origins.iter().any(|o| o.eq_ignore_ascii_case(origin));
        if let Some(origin) = request.header("origin").filter(|o| !own(o) && !allowed(o)) {
            let text = format!(
                "pages of {} may not use the API; add it to http.origins if they should",
                crate::error::quote(origin)
            );
            let reason = crate::error::Reason::peer("forbidden", text);
            return Decision::Refuse(Refusal { challenge: false, reason });
        }
        // A login of the stream-manager dialect.
        if let Some(token) = &asker.credentials.token
            && let Ok(claims) = token::verify(&self.token_key(), token.reveal(), self.wall_s())
        {
            let identity = Identity::User(claims.sub);
            let rule = "a login at this manager".to_owned();
            return Decision::Allow(Grant { identity, ends_s: Some(claims.exp), rule, ..Grant::default() });
        }
        let remote = self.conns.get(&conn).map(|c| c.remote.ip());
        asker.from.local &= remote.is_some_and(|ip| api::may_change(request, ip).is_ok());
        self.decide(Action::Api, None, asker)
    }

    /// Whether a request that changes something may do so.
    pub(super) fn may_operate(&mut self, conn: ConnId, request: &Request) -> Result<(), Box<Response>> {
        let mut asker = self.asker_of(conn, request);
        match self.decide_api(conn, request, &mut asker) {
            Decision::Allow(_) => Ok(()),
            Decision::Refuse(refusal) => Err(Box::new(refused(request, &refusal, self.wall.wall(self.now)))),
            // The door has seen to it a moment ago; what is forgotten since is asked for again.
            Decision::Pending(wait) => {
                self.verify_for_later(wait);
                Err(Box::new(api::error(503, "what you showed is no longer remembered; try again")))
            }
        }
    }

    /// The publish key at the end of a request's path, if there is one.
    pub(super) fn key_in_path(&self, request: &Request) -> Option<String> {
        let (rest, last) = request.path.rsplit_once('/')?;
        let app = rest.strip_prefix("/as/v1/proxy/whip/")?;
        let (_, name) = self.authority.policy.public(&StreamKey::join(app, last).ok()?);
        name.map(|_| last.to_owned())
    }

    /// What a publisher called its stream in a request to the proxy, where the callback gave it another name.
    pub(super) fn given_in_path(&self, request: &Request) -> Option<StreamKey> {
        let given = StreamKey::parse(request.path.strip_prefix("/as/v1/proxy/whip/")?).ok()?;
        let policy = &self.authority.policy;
        (policy.likely(&given) != policy.public(&given).0).then_some(given)
    }

    /// A path as logs may show it: without what may be a publish key.
    pub(super) fn shown_path(&self, request: &Request) -> String {
        let path = &request.path;
        let publishes = path.contains("/whip/") || path.contains("/event/") || path.contains("/publish/");
        if !self.authority.policy.has_keys() || !publishes {
            return crate::error::quote(path);
        }
        let hidden =
            path.rsplit_once('/').map(|(before, _)| format!("{before}/{}", super::authority::HIDDEN));
        crate::error::quote(&hidden.unwrap_or_default())
    }
}
