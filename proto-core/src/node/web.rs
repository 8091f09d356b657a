//! What HTTP answers: pages at once, WHIP, WHEP and pairing when the cluster has answered.

use super::conns::Proto;
use super::session::{Carrier, Part, Protocol, SessionId};
use super::{Node, api};
use crate::cluster::manager::Placement;
use crate::cluster::placement::Refusal;
use crate::error::{Reason, quote};
use crate::guard::guard;
use crate::http::event::{Action, EventNode, EventQuery, EventUrls};
use crate::http::message::{Request, Response};
use crate::http::router::{ApiRoute, Route};
use crate::http::{cors, event, pages, router, server, whip};
use crate::io::{ConnId, Level};
use crate::machine::Machine;
use crate::media::key::StreamKey;
use crate::rtc::sdp;
use std::net::IpAddr;

/// A WHEP offer whose stream is being found.
pub(super) struct WaitingOffer {
    pub(super) conn: ConnId,
    pub(super) offer: String,
}

/// A pairing question that the manager has not answered yet.
pub(super) struct WaitingPair {
    pub(super) conn: ConnId,
    pub(super) query: EventQuery,
}

/// What a WHEP viewer is answered.
pub(super) struct Answered {
    pub(super) sdp: String,
    /// Sentences for the user.
    pub(super) notices: Vec<String>,
    /// What the sound is made of, where a bridge makes it.
    pub(super) sound: Option<String>,
}

impl Node {
    /// A whole request arrived on a connection.
    pub(super) fn request(&mut self, conn: ConnId, request: Request) {
        let route = router::route(&request);
        let crossing = route.cross_origin();
        if let Some(mut response) = self.answer(conn, &request, route) {
            self.log_refusal(conn, &request, &response);
            if crossing {
                cors::allow_any_origin(&mut response);
            }
            self.respond(conn, response);
        }
    }

    /// The answer to a request, or `None` if it comes later.
    fn answer(&mut self, conn: ConnId, request: &Request, route: Route) -> Option<Response> {
        Some(match route {
            Route::Home => pages::home(request),
            Route::Watch(_) => pages::watch(request),
            Route::Publish(_) => pages::publish(request),
            Route::Asset(name) => pages::asset(&name, request),
            Route::Whip(key) => return self.whip(conn, request, key),
            Route::Whep(key) => return self.whep(conn, request, key),
            Route::WhipResource { id } => self.resource(request, &id, Protocol::Whip),
            Route::WhepResource { id } => self.resource(request, &id, Protocol::Whep),
            Route::Event(query) => return self.pair(conn, query),
            Route::BadEvent { status, text } => event::error(status, &text, self.wall.wall(self.now)),
            Route::Api(ApiRoute::Nodes) => crate::http::api::answer(&self.api_nodes()),
            Route::Api(ApiRoute::Streams) => crate::http::api::answer(&self.api_streams()),
            Route::Api(ApiRoute::Sessions) => crate::http::api::answer(&self.api_sessions()),
            Route::Api(ApiRoute::Kick(name)) => self.kick(conn, request, &name),
            Route::Metrics => Response::new(200)
                .with_body("application/openmetrics-text; version=1.0.0; charset=utf-8", self.metrics()),
            Route::Healthz => Response::text(200, "ok"),
            Route::Readyz => match self.not_ready() {
                None => Response::text(200, "ready"),
                Some(why) => Response::text(503, why),
            },
            Route::Options { allow } => cors::options(request, allow),
            Route::NotFound(text) => Response::text(404, text),
            Route::MethodNotAllowed { allow } => {
                Response::text(405, format!("this takes {allow}")).header("Allow", allow)
            }
        })
    }

    /// Says what was wrong with a request. Things that are merely not there are no news.
    fn log_refusal(&mut self, conn: ConnId, request: &Request, response: &Response) {
        let status = response.status;
        let Some(remote) = self.conns.get(&conn).map(|c| c.remote) else { return };
        if status < 400 || matches!(status, 404 | 405) || request.path == "/readyz" {
            return;
        }
        let body = String::from_utf8_lossy(&response.body);
        let (method, path) = (request.method.name(), quote(&request.path));
        let text = format!("{remote}: {method} {path} answered {status}: {}", quote(body.trim()));
        self.log(Level::Warn, "http", "http_refused", text);
    }

    pub(super) fn respond(&mut self, conn: ConnId, response: Response) {
        let now = self.now;
        let Some(c) = self.conns.get_mut(&conn) else { return };
        let Proto::Http(machine) = &mut c.proto else { return };
        match guard(|| machine.handle(server::Input::Respond(response), now)) {
            Ok(()) => {
                self.dirty_conns.insert(conn);
            }
            Err(reason) => self.end_conn(conn, reason, Some(true)),
        }
    }

    fn respond_crossing(&mut self, conn: ConnId, mut response: Response) {
        cors::allow_any_origin(&mut response);
        self.respond(conn, response);
    }

    /// The address that a connection's peer dialled.
    fn asked(&self, conn: ConnId) -> IpAddr {
        self.conns.get(&conn).and_then(|c| c.local).map_or(self.advertised.public, |l| l.ip())
    }

    fn whip(&mut self, conn: ConnId, request: &Request, key: StreamKey) -> Option<Response> {
        let offer = match whip::offer(request) {
            Ok(offer) => offer,
            Err(response) => return Some(*response),
        };
        let remote = self.conns.get(&conn).map(|c| c.remote);
        let refuse = |node: &mut Node, reason: Reason| {
            node.counters.ended_as("whip", &reason);
            Some(whip::refusal(&reason))
        };
        if let Err(reason) = self.may_publish(&key) {
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
                self.sessions.name_resource(session, secret);
                self.whip_waiting.insert(session, (conn, answer));
                self.claim(session);
                None
            }
        }
    }

    /// The name of a WHIP publisher was claimed, or not.
    pub(super) fn answer_whip(&mut self, session: SessionId, result: Result<(), &Reason>) {
        let Some((conn, answer)) = self.whip_waiting.remove(&session) else { return };
        let secret = self.sessions.get(session).and_then(|s| s.resource.clone()).unwrap_or_default();
        let response = match result {
            Ok(()) => whip::created(whip::Protocol::Whip, &secret, &secret, &answer, &[]),
            Err(reason) => whip::refusal(reason),
        };
        self.respond_crossing(conn, response);
    }

    fn whep(&mut self, conn: ConnId, request: &Request, key: StreamKey) -> Option<Response> {
        let offer = match whip::offer(request) {
            Ok(offer) => offer.to_owned(),
            Err(response) => return Some(*response),
        };
        if self.draining {
            return Some(whip::refusal(&draining()));
        }
        // A broken offer is told at once: it must not cause a search for the stream.
        let wish = sdp::Wish::Play { video: true, audio: true };
        let prepared = guard(|| sdp::prepare(&offer, wish, &self.limits)).and_then(|prepared| prepared);
        if let Err(reason) = prepared {
            self.counters.ended_as("whep", &reason);
            return Some(whip::refusal(&reason));
        }
        let remote = self.conns.get(&conn).map(|c| c.remote);
        let session = self.sessions.add(
            Protocol::Whep,
            Part::AsksToPlay,
            key,
            remote,
            Carrier::Request(conn),
            self.now,
        );
        self.whep_waiting.insert(session, WaitingOffer { conn, offer });
        self.find_stream(session);
        None
    }

    /// A WHEP viewer's stream was found or not, or its offer was answered.
    pub(super) fn answer_whep(
        &mut self,
        conn: ConnId,
        session: SessionId,
        result: Result<Answered, &Reason>,
    ) {
        let secret = self.sessions.get(session).and_then(|s| s.resource.clone()).unwrap_or_default();
        let response = match result {
            Ok(Answered { sdp, notices, sound }) => {
                let response = whip::created(whip::Protocol::Whep, &secret, &secret, &sdp, &notices);
                match sound {
                    Some(sound) => response.header(whip::SOUND, sound),
                    None => response,
                }
            }
            Err(reason) => whip::refusal(reason),
        };
        self.respond_crossing(conn, response);
    }

    fn resource(&mut self, request: &Request, id: &str, protocol: Protocol) -> Response {
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
            return whip::no_trickle();
        }
        self.end_session(session, &Reason::peer("deleted", "the client ended its session"));
        whip::ended()
    }

    fn kick(&mut self, conn: ConnId, request: &Request, name: &str) -> Response {
        let remote = self.conns.get(&conn).map_or(IpAddr::from([0, 0, 0, 0]), |c| c.remote.ip());
        if let Err(response) = crate::http::api::may_change(request, remote) {
            return *response;
        }
        match self.sessions.named(name).map(|s| s.id) {
            None => {
                crate::http::api::error(404, "there is no such session on this node; see /api/v1/sessions")
            }
            Some(session) => {
                self.end_session(session, &Reason::local("kicked", "an operator ended this session"));
                Response::no_content()
            }
        }
    }

    fn pair(&mut self, conn: ConnId, query: EventQuery) -> Option<Response> {
        let wall = self.wall.wall(self.now);
        let Some(manager) = &mut self.manager else {
            let text = "this node is no manager; ask the manager, or publish and play on any node directly";
            return Some(event::error(503, text, wall));
        };
        self.next_req += 1;
        let req = self.next_req;
        manager.handle(api::pair_input(req, &query), self.now);
        self.pair_waiting.insert(req, WaitingPair { conn, query });
        None
    }

    /// The manager answered a pairing question.
    pub(super) fn paired(&mut self, req: u64, result: Result<Box<Placement>, Refusal>) {
        let Some(WaitingPair { conn, query }) = self.pair_waiting.remove(&req) else { return };
        let response = match result {
            Ok(placement) => {
                let at = &placement.node.advertised;
                let urls = EventUrls::new(&at.host(), at.http, at.rtmp, &query.key);
                let node = EventNode::new(&query.key, at.host(), placement.node.region.clone(), urls);
                event::answer(&query, &[node])
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
                event::error(refusal.status, &refusal.text, self.wall.wall(self.now))
            }
        };
        self.respond_crossing(conn, response);
    }

    /// An HTTP connection went: what it waited for is no longer wanted.
    pub(super) fn http_gone(&mut self, conn: ConnId) {
        let publishers: Vec<SessionId> =
            self.whip_waiting.iter().filter(|(_, (c, _))| *c == conn).map(|(s, _)| *s).collect();
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
