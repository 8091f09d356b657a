//! What HTTP answers: pages at once, WHIP, WHEP and pairing when the cluster has answered.

use super::gate::Gate;
use super::loops::{self, Way};
use super::operators::NO_MANAGER;
use super::session::{Carrier, Part, Protocol, SessionId};
use super::{Node, api};
use crate::auth::Grant;
use crate::cluster::manager::Placement;
use crate::cluster::placement::Refusal;
use crate::error::{Reason, quote_up_to};
use crate::guard::guard;
use crate::http::event::{Action, Door, EventNode, EventQuery, EventUrls};
use crate::http::message::{Request, Response};
use crate::http::router::{ApiRoute, Route};
use crate::http::{cors, event, pages, router, server, sm2, whip};
use crate::io::{ConnId, Level};
use crate::machine::Machine;
use crate::media::key::StreamKey;
use crate::media::track::Codec;
use crate::rtc::codecs::Pictures;
use crate::rtc::sdp;
use std::net::IpAddr;

/// Characters of an answer of ours that the log shows.
const SAID: usize = 512;

/// A WHEP offer whose stream is being found.
pub(super) struct WaitingOffer {
    pub(super) conn: ConnId,
    /// The viewer's offer, or whether ours is to have data channels.
    pub(super) offer: Result<String, bool>,
    /// It came at an endpoint of the stream-manager dialect.
    pub(super) dialect: bool,
}

/// A WHIP offer whose name is being claimed.
pub(super) struct WaitingAnswer {
    pub(super) conn: ConnId,
    pub(super) answer: String,
    /// As in [`WaitingOffer`].
    pub(super) dialect: bool,
}

fn is_dialect(request: &Request) -> bool {
    ["/whip/endpoint/", "/whep/endpoint/"].iter().any(|p| request.path.contains(p))
}

/// A pairing question that the manager has not answered yet.
pub(super) struct WaitingPair {
    pub(super) conn: ConnId,
    pub(super) query: EventQuery,
    /// How the page that asks reaches this manager, if it came over TLS: host and port.
    pub(super) secure: Option<String>,
    /// Asked in the dialect's second generation, which has shapes of its own.
    pub(super) second: bool,
    /// By which right.
    pub(super) grant: Grant,
}

/// What a WHEP viewer is answered.
pub(super) struct Answered {
    pub(super) sdp: String,
    /// Sentences for the user.
    pub(super) notices: Vec<String>,
    /// What the sound is made of, where a bridge makes it.
    pub(super) sound: Option<String>,
}

/// The word by which requests that were answered with a status are counted.
const fn refused_as(status: u16) -> &'static str {
    match status {
        400 => "bad_request",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        405 => "method_not_allowed",
        409 => "conflict",
        412 | 428 => "precondition",
        413 => "too_large",
        415 => "media_type",
        429 => "too_many",
        502..=504 => "unavailable",
        _ => "other",
    }
}

impl Node {
    /// A whole request arrived on a connection.
    pub(super) fn request(&mut self, conn: ConnId, request: Request) {
        if !self.introduced(conn, &request) {
            return;
        }
        let mut route = router::route(&request);
        let way = self.way_of(conn, &request, &route);
        if way == Way::Away {
            return;
        }
        let crossing = route.cross_origin();
        let gate = match self.wants_a_part(conn) {
            true => Gate::Open(Grant::default()),
            false => self.gate(conn, &request, &mut route),
        };
        let answer = match gate {
            Gate::Open(grant) => self.answer(conn, &request, route, grant),
            Gate::Shut(response) => Some(*response),
            Gate::Later => None,
        };
        if let (Way::Gathered(kind), Some(own)) = (way, answer.as_ref().filter(|a| a.status < 300)) {
            return self.gather(conn, &request, kind, own.clone());
        }
        if let Some(mut response) = answer {
            self.log_refusal(conn, &request, &response);
            if crossing {
                // Pages send credentials to the login, and only there.
                match request.path.as_str() {
                    "/as/v1/auth/login" => cors::allow_credentials(&request, &mut response),
                    _ => cors::allow_any_origin(&mut response),
                }
            }
            self.respond(conn, response);
        }
    }

    /// The answer to a request, or `None` if it comes later.
    fn answer(&mut self, conn: ConnId, request: &Request, route: Route, grant: Grant) -> Option<Response> {
        Some(match route {
            Route::Home => pages::home(request),
            Route::Watch(_) => pages::watch(request),
            Route::Publish(_) => pages::publish(request),
            Route::Client => pages::client(request),
            Route::Asset(name) => pages::asset(&name, request),
            Route::Flv(key) => return self.flv(conn, request, key),
            Route::Whip(key) => return self.whip(conn, request, key, grant),
            Route::Whep(key) => return self.whep(conn, request, key, grant),
            Route::WhepOffer(key) => return self.whep_offer(conn, request, key, grant),
            Route::WhipResource { id } => self.resource(conn, request, &id, Protocol::Whip),
            Route::WhepResource { id } => self.resource(conn, request, &id, Protocol::Whep),
            Route::ProxyEndpoint { protocol, key } => {
                return self.carry_to_endpoint(conn, request, protocol, key);
            }
            Route::ProxyResource { node, path } => {
                return self.carry_to_resource(conn, request, &node, &path);
            }
            Route::Event(query) => return self.pair(conn, request, query, false, grant),
            Route::Sm1(call) => self.sm1(conn, request, call),
            Route::Sm2(sm2::Call::Pair { group, query }) => match self.no_group(&group) {
                Some((status, text)) => sm2::error(status, &text),
                None => return self.pair(conn, request, query, true, grant),
            },
            Route::Sm2(call) => self.sm2(conn, request, call),
            Route::Sm2Preflight => cors::options_with_credentials(request, "PUT, OPTIONS"),
            Route::BadEvent { status, text } => event::error(status, &text, self.wall.wall(self.now)),
            Route::Api(ApiRoute::Nodes) => crate::http::api::answer(&self.api_nodes()),
            Route::Api(ApiRoute::Streams) => crate::http::api::answer(&self.api_streams()),
            Route::Api(ApiRoute::Sessions) => crate::http::api::answer(&self.api_sessions()),
            Route::Api(ApiRoute::Proxies) => crate::http::api::answer(&self.api_proxies()),
            Route::Api(ApiRoute::Sources) => crate::http::api::answer(&self.api_sources()),
            Route::Api(ApiRoute::Destinations) => crate::http::api::answer(&self.api_destinations()),
            Route::Api(ApiRoute::Kick(name)) => self.kick(conn, request, &name),
            Route::Api(ApiRoute::Placed(key)) => self.api_placed(&key),
            Route::Api(ApiRoute::Drain { node, on }) => self.api_drain(conn, request, &node, on),
            Route::Api(ApiRoute::Warm(key)) => self.api_warm(conn, request, &key),
            Route::Api(ApiRoute::Why(name)) => self.api_why(&name),
            Route::Api(ApiRoute::Token) => self.api_token(conn, request),
            Route::Api(ApiRoute::Revoked) => self.api_revoked(),
            Route::Api(ApiRoute::Revoke(name)) => self.api_revoke(conn, request, &name),
            Route::Metrics => Response::new(200)
                .with_body("application/openmetrics-text; version=1.0.0; charset=utf-8", self.metrics()),
            Route::Healthz => Response::text(200, "ok"),
            Route::Readyz => match self.not_ready() {
                None => Response::text(200, "ready"),
                Some(why) => Response::text(503, why),
            },
            Route::Options { allow } => self.options(request, allow),
            Route::NotFound(text) => Response::text(404, text),
            Route::MethodNotAllowed { allow } => {
                Response::text(405, format!("this takes {allow}")).header("Allow", allow)
            }
        })
    }

    /// Says what was wrong with a request. Things that are merely not there are no news.
    pub(super) fn log_refusal(&mut self, conn: ConnId, request: &Request, response: &Response) {
        let status = response.status;
        let Some(remote) = self.conns.get(&conn).map(|c| c.remote) else { return };
        if status < 400 || request.path == "/readyz" {
            return;
        }
        self.counters.drop("request", refused_as(status), 1);
        if matches!(status, 404 | 405) {
            return;
        }
        let body = String::from_utf8_lossy(&response.body);
        let (method, path) = (request.method.name(), self.shown_path(request));
        // It ends with the code of the reason, which an operator looks for.
        let said = quote_up_to(body.trim(), SAID);
        let text = format!("{remote}: {method} {path} answered {status}: {said}");
        self.log(Level::Warn, "http", refused_as(status), text);
    }

    pub(super) fn respond(&mut self, conn: ConnId, response: Response) {
        self.tell_http(conn, server::Input::Respond(response));
    }

    pub(super) fn respond_crossing(&mut self, conn: ConnId, mut response: Response) {
        cors::allow_any_origin(&mut response);
        self.respond(conn, response);
    }

    /// The address that a connection's peer dialled.
    fn asked(&self, conn: ConnId) -> IpAddr {
        self.conns.get(&conn).and_then(|c| c.local).map_or(self.advertised.public, |l| l.ip())
    }

    fn whip(&mut self, conn: ConnId, request: &Request, key: StreamKey, grant: Grant) -> Option<Response> {
        let offer = match whip::offer(request) {
            Ok(offer) => offer,
            Err(response) => return Some(*response),
        };
        let remote = self.conns.get(&conn).map(|c| c.remote);
        let refuse = |node: &mut Node, reason: Reason| {
            node.counters.ended_as("whip", &reason);
            Some(whip::refusal(&reason))
        };
        if let Err(reason) = self.may_publish(&key, &grant.identity.name()) {
            return refuse(self, reason);
        }
        let candidates = self.advertised.candidates(self.asked(conn), self.config.webrtc.port);
        // The session is made before the name is claimed: a broken offer must not take a silent publisher's name.
        match self.rtc_publish(offer, &candidates, remote) {
            Err(reason) => refuse(self, reason),
            Ok((rtc, answer)) => {
                let carrier = Carrier::Rtc(rtc);
                let session =
                    self.sessions.add(Protocol::Whip, Part::AsksToPublish, key, remote, carrier, self.now);
                let secret = self.rng.fork("resource", session.0).token(32);
                let secret = loops::resource(self.config.loops.as_ref(), secret);
                self.sessions.name_resource(session, secret);
                self.grant(session, grant);
                self.whip_waiting
                    .insert(session, WaitingAnswer { conn, answer, dialect: is_dialect(request) });
                self.claim(session);
                None
            }
        }
    }

    /// The name of a WHIP publisher was claimed, or not.
    pub(super) fn answer_whip(&mut self, session: SessionId, result: Result<(), &Reason>) {
        if self.answer_signal(session, result) {
            return;
        }
        let Some(WaitingAnswer { conn, answer, dialect }) = self.whip_waiting.remove(&session) else {
            return;
        };
        let response = match result {
            Ok(()) => self.created(whip::Protocol::Whip, session, dialect, &answer, &[]),
            Err(reason) => whip::refusal(reason),
        };
        self.respond_crossing(conn, response);
    }

    /// The 201 of a session.
    fn created(
        &self,
        protocol: whip::Protocol,
        session: SessionId,
        dialect: bool,
        sdp: &str,
        notices: &[String],
    ) -> Response {
        let Some(s) = self.sessions.get(session) else { return whip::no_session() };
        let secret = s.resource.as_deref().unwrap_or_default();
        let location = if dialect {
            whip::dialect_resource(protocol, &s.key, secret)
        } else {
            protocol.resource(secret)
        };
        let etag = match s.carrier {
            Carrier::Rtc(rtc) => self.rtc.ice_session(rtc).unwrap_or_default(),
            _ => "",
        };
        let mut response = whip::created(location, etag, sdp, notices);
        self.name_helpers(&mut response);
        response
    }

    /// Tells a client of WHIP or WHEP where it is and who tells it its own address. One `Link`, because pages see several
    /// headers of a name joined to one, which not all take apart.
    fn name_helpers(&self, response: &mut Response) {
        let host = self.advertised.url_host();
        if self.config.webrtc.stun {
            let link = format!("<stun:{host}:{}>; rel=\"ice-server\"", self.config.webrtc.port);
            response.set("Link", link);
        }
        response.set("Session-Host", host);
    }

    fn options(&self, request: &Request, allow: &str) -> Response {
        let mut response = cors::options(request, allow);
        if allow.contains("POST") {
            response.set("Accept-Post", whip::SDP);
            self.name_helpers(&mut response);
        } else if allow.contains("PATCH") {
            response.set("Accept-Patch", whip::FRAGMENT);
        }
        response
    }

    /// A viewer of the dialect wants an offer of ours.
    fn whep_offer(
        &mut self,
        conn: ConnId,
        request: &Request,
        key: StreamKey,
        grant: Grant,
    ) -> Option<Response> {
        if let Some(reason) = self.no_room() {
            return Some(whip::refusal(&reason));
        }
        let channel = request.query("signal").is_some_and(|s| s == "true");
        self.whep_waits(key, WaitingOffer { conn, offer: Err(channel), dialect: true }, grant);
        None
    }

    fn whep_waits(&mut self, key: StreamKey, waiting: WaitingOffer, grant: Grant) {
        let conn = waiting.conn;
        let remote = self.conns.get(&conn).map(|c| c.remote);
        let carrier = Carrier::Request(conn);
        let session = self.sessions.add(Protocol::Whep, Part::AsksToPlay, key, remote, carrier, self.now);
        self.grant(session, grant);
        self.whep_waiting.insert(session, waiting);
        self.find_stream(session);
    }

    fn whep(&mut self, conn: ConnId, request: &Request, key: StreamKey, grant: Grant) -> Option<Response> {
        let offer = match whip::offer(request) {
            Ok(offer) => offer.to_owned(),
            Err(response) => return Some(*response),
        };
        if let Some(reason) = self.no_room() {
            self.counters.ended_as("whep", &reason);
            return Some(whip::refusal(&reason));
        }
        // A broken offer is told at once: it must not cause a search for the stream.
        let wish = sdp::Wish::Play { video: Some(Pictures::GUESS), audio: Some(Codec::Opus) };
        let prepared = guard(|| sdp::prepare(&offer, wish, &self.limits)).and_then(|prepared| prepared);
        if let Err(reason) = prepared {
            self.counters.ended_as("whep", &reason);
            return Some(whip::refusal(&reason));
        }
        let dialect = is_dialect(request);
        self.whep_waits(key, WaitingOffer { conn, offer: Ok(offer), dialect }, grant);
        None
    }

    /// A WHEP viewer's stream was found or not, or its offer was answered.
    pub(super) fn answer_whep(
        &mut self,
        conn: ConnId,
        session: SessionId,
        dialect: bool,
        result: Result<Answered, &Reason>,
    ) {
        let response = match result {
            Ok(Answered { sdp, notices, sound }) => {
                let response = self.created(whip::Protocol::Whep, session, dialect, &sdp, &notices);
                match sound {
                    Some(sound) => response.header(whip::SOUND, sound),
                    None => response,
                }
            }
            Err(reason) => whip::refusal(reason),
        };
        self.respond_crossing(conn, response);
    }

    fn resource(&mut self, conn: ConnId, request: &Request, id: &str, protocol: Protocol) -> Response {
        let found = self
            .sessions
            .of_resource(id)
            .filter(|s| self.sessions.get(*s).is_some_and(|s| s.protocol == protocol));
        let Some(session) = found else {
            let ended = self.ended_resources.iter().any(|r| r == id);
            let delete = request.method == crate::http::message::Method::Delete;
            return if ended && delete { whip::ended() } else { whip::no_session() };
        };
        if request.method == crate::http::message::Method::Patch {
            return self.patch(conn, request, session);
        }
        self.end_session(session, &Reason::peer("deleted", "the client ended its session"));
        whip::ended()
    }

    fn patch(&mut self, conn: ConnId, request: &Request, session: SessionId) -> Response {
        let Some(Carrier::Rtc(rtc)) = self.sessions.get(session).map(|s| s.carrier) else {
            return whip::no_session();
        };
        let text = match whip::patch(request) {
            Ok(whip::Patch::Fragment(text)) => text,
            Ok(whip::Patch::Answer(sdp)) => {
                return match self.rtc.answer(rtc, sdp, self.now) {
                    Ok(()) => whip::taken(),
                    Err(reason) => whip::refusal(&reason),
                };
            }
            Err(response) => return *response,
        };
        let fragment = match guard(|| sdp::fragment(text, &self.limits)).and_then(|f| f) {
            Ok(fragment) => fragment,
            Err(reason) => return whip::refusal(&reason),
        };
        let condition = whip::if_match(request, self.rtc.ice_session(rtc).unwrap_or_default());
        if condition == whip::IfMatch::Fails {
            return whip::outdated();
        }
        let theirs = self.rtc.peer_ufrag(rtc).unwrap_or_default();
        let (Some(ufrag), Some(pwd)) = (fragment.ufrag, fragment.pwd) else { return whip::taken() };
        if ufrag == theirs || theirs.is_empty() {
            // Candidates. An ICE-lite agent has no use for them, so nothing is lost if the condition is missing, as it is
            // in clients of the dialect.
            return whip::taken();
        }
        if condition == whip::IfMatch::Missing {
            return whip::unconditional();
        }
        let candidates = self.advertised.candidates(self.asked(conn), self.config.webrtc.port);
        match self.rtc.restart(rtc, &ufrag, &pwd, &candidates, self.now) {
            Ok(fragment) => {
                self.log_session(Level::Info, session, "ice_restart", "the client began ICE anew".to_owned());
                whip::restarted(self.rtc.ice_session(rtc).unwrap_or_default(), fragment)
            }
            Err(reason) => whip::refusal(&reason),
        }
    }

    fn kick(&mut self, conn: ConnId, request: &Request, name: &str) -> Response {
        if let Err(response) = self.may_change(conn, request) {
            return *response;
        }
        match self.sessions.named(name).map(|s| s.id) {
            None if self.kick_proxy(name) => Response::no_content(),
            None => {
                crate::http::api::error(404, "there is no such session on this node; see /api/v1/sessions")
            }
            Some(session) => {
                self.end_session(session, &Reason::local("kicked", "an operator ended this session"));
                Response::no_content()
            }
        }
    }

    /// Host and port under which a client reaches this node over TLS, if it does: by itself, or by way of a proxy of the
    /// operator's that says so.
    fn asked_securely(&self, conn: ConnId, request: &Request) -> Option<String> {
        let tls = self.conns.get(&conn).is_some_and(|c| c.service.is_secure());
        if !tls && request.header("x-forwarded-proto") != Some("https") {
            return None;
        }
        let fits = |h: &&str| {
            !h.is_empty()
                && h.len() <= 260
                && h.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
        };
        let own = || format!("{}:{}", self.advertised.url_host(), self.config.https.port);
        Some(request.header("host").filter(fits).map_or_else(own, str::to_owned))
    }

    /// How the page that asked reaches a node, and where the stream is there.
    pub(super) fn urls_at(
        &self,
        secure: Option<&str>,
        node: &crate::wire::link::NodeInfo,
        action: Action,
        key: &StreamKey,
    ) -> EventUrls {
        let at = &node.advertised;
        let door = match secure {
            None => Door::Node { secure: false, at: format!("{}:{}", at.host(), at.http) },
            // The loops of this process share the port.
            Some(here) if node.id == self.id || self.sibling(&node.id).is_some() => {
                Door::Node { secure: true, at: here.to_owned() }
            }
            Some(_) if at.https != 0 => {
                Door::Node { secure: true, at: format!("{}:{}", at.host(), at.https) }
            }
            Some(here) => Door::Manager { at: here.to_owned() },
        };
        EventUrls::new(at, &door, action, key)
    }

    fn pair(
        &mut self,
        conn: ConnId,
        request: &Request,
        query: EventQuery,
        second: bool,
        grant: Grant,
    ) -> Option<Response> {
        let most = self.limits.pair_nodes;
        if query.endpoints.is_some_and(|n| n as usize > most) {
            let text = format!("endpoints may be at most {most} (limits.pair_nodes)");
            return Some(self.pair_error(second, 400, &text));
        }
        let secure = self.asked_securely(conn, request);
        let Some(manager) = &mut self.manager else {
            return Some(self.pair_error(second, 503, NO_MANAGER));
        };
        self.next_req += 1;
        let req = self.next_req;
        manager.handle(api::pair_input(req, &query), self.now);
        self.pair_waiting.insert(req, WaitingPair { conn, query, secure, second, grant });
        None
    }

    /// The refusal of a pairing question, in the shape of the generation that asked.
    fn pair_error(&self, second: bool, status: u16, text: &str) -> Response {
        if second { sm2::error(status, text) } else { event::error(status, text, self.wall.wall(self.now)) }
    }

    /// Viewers of a stream on a node, as it last reported.
    fn viewers_at(&self, node: &crate::wire::link::NodeInfo, key: &StreamKey) -> u64 {
        let Some(registry) = self.manager.as_ref().map(|m| m.registry()) else { return 0 };
        let owned = registry.stream(key).filter(|s| s.owner.as_ref() == Some(&node.id)).map(|s| s.viewers);
        let relayed = registry.node(&node.id).and_then(|n| n.relays.get(key)).copied();
        u64::from(owned.or(relayed).unwrap_or(0))
    }

    /// The manager answered a pairing question.
    pub(super) fn paired(&mut self, req: u64, result: Result<Box<Placement>, Refusal>) {
        if self.proxy_placed(req, &result) || self.elsewhere_placed(req, &result) {
            return;
        }
        let Some(WaitingPair { conn, query, secure, second, grant }) = self.pair_waiting.remove(&req) else {
            return;
        };
        let response = match result {
            Ok(placement) => {
                self.gave_out(query.action, &query.key, &placement);
                let token = self.pair_token(&query, &grant);
                let nodes = std::iter::once(&placement.node).chain(&placement.others);
                if second {
                    let role = if query.action == Action::Broadcast { "origin" } else { "edge" };
                    let list = nodes.filter_map(|n| {
                        let here = self.viewers_at(n, &query.key);
                        let urls =
                            self.urls_at(secure.as_deref(), n, query.action, &query.key).with_token(&token);
                        self.sm2_node(n, &query.key, role, here, Some(urls))
                    });
                    crate::http::api::answer(&list.collect::<Vec<_>>())
                } else {
                    let node = |n: &crate::wire::link::NodeInfo| {
                        let urls =
                            self.urls_at(secure.as_deref(), n, query.action, &query.key).with_token(&token);
                        EventNode::new(&query.key, n.advertised.host(), n.region.clone(), urls)
                    };
                    event::answer(&query, &nodes.map(node).collect::<Vec<_>>())
                }
            }
            Err(refusal) => {
                let what = if query.action == Action::Broadcast { "publisher" } else { "viewer" };
                let level = if refusal.status == 404 { Level::Debug } else { Level::Warn };
                self.log(
                    level,
                    "cluster",
                    refusal.code,
                    format!("{}: no place for a {what}: {}", query.key, refusal.text),
                );
                self.pair_error(second, refusal.status, &refusal.text)
            }
        };
        self.respond_crossing(conn, response);
    }

    /// An HTTP connection went: what it waited for is no longer wanted.
    pub(super) fn http_gone(&mut self, conn: ConnId) {
        let publishers: Vec<SessionId> =
            self.whip_waiting.iter().filter(|(_, w)| w.conn == conn).map(|(s, _)| *s).collect();
        let viewer = self.sessions.on(Carrier::Request(conn));
        for session in publishers.into_iter().chain(viewer) {
            self.whip_waiting.remove(&session);
            self.whep_waiting.remove(&session);
            self.end_session(session, &Reason::peer("client_gone", "the client left before its answer"));
        }
        self.pair_waiting.retain(|_, w| w.conn != conn);
    }

    /// Why the node does not take work, if it does not.
    fn not_ready(&self) -> Option<String> {
        if self.draining {
            return Some("draining: this node finishes what runs and takes nothing new".to_owned());
        }
        if !self.udp_open {
            return Some("the WebRTC port is not open yet".to_owned());
        }
        if !self.member.is_registered() {
            return Some("not registered with a manager yet".to_owned());
        }
        None
    }
}

pub(super) fn draining() -> Reason {
    Reason::local("draining", "this node is about to stop and takes nothing new; ask the manager for another")
}
