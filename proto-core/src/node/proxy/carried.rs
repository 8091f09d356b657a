//! WHIP and WHEP through the manager: each request is carried to a registered node and its answer back. A session's
//! resource gets a path that names its node, so that what follows finds it without any state here.

use crate::cluster::NodeId;
use crate::cluster::manager::{self, Action as Place, Placement};
use crate::cluster::placement::Refusal;
use crate::error::{Reason, quote};
use crate::http::client::{self, Ask, Client};
use crate::http::event::Action;
use crate::http::message::{Method, Request, Response, encode_percent};
use crate::http::proxy::Wish;
use crate::http::whip::Protocol;
use crate::io::{ConnId, Level};
use crate::machine::Machine;
use crate::media::key::StreamKey;
use crate::node::Node;
use crate::node::conns::{Conn, Proto, Transport};
use crate::node::loops::with_query;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A request that is carried.
#[derive(Debug)]
struct Carry {
    client: ConnId,
    request: Request,
    /// Path and query at the node.
    path: String,
    /// The endpoint's stream and action; none for a resource.
    stream: Option<(Action, StreamKey)>,
    node: Option<NodeId>,
    /// The node's address as clients know it.
    host: String,
    back: Option<ConnId>,
}

/// All requests that are carried, by number, and found by question, by the client's connection and by the node's.
#[derive(Debug, Default)]
pub(in crate::node) struct Carried {
    next: u64,
    all: BTreeMap<u64, Carry>,
    by_req: BTreeMap<u64, u64>,
    by_client: BTreeMap<ConnId, u64>,
    by_back: BTreeMap<ConnId, u64>,
}

impl Carried {
    /// How many there are.
    pub(in crate::node) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether the tables agree.
    pub(in crate::node) fn agrees(&self) -> bool {
        let backs = self.all.values().filter(|c| c.back.is_some()).count();
        let n = self.all.len();
        self.by_client.len() == n && self.by_back.len() == backs && self.by_req.len() == n - backs
    }

    /// The connections that it dialled.
    pub(in crate::node) fn dialled(&self) -> impl Iterator<Item = ConnId> {
        self.by_back.keys().copied()
    }

    fn remove(&mut self, id: u64) -> Option<Carry> {
        let carry = self.all.remove(&id)?;
        self.by_client.remove(&carry.client);
        if let Some(back) = carry.back {
            self.by_back.remove(&back);
        }
        self.by_req.retain(|_, of| *of != id);
        Some(carry)
    }
}

impl Node {
    /// A request to the proxy's endpoint of a stream: OPTIONS and POST. The answer comes later, or at once if it is a
    /// refusal.
    pub(in crate::node) fn carry_to_endpoint(
        &mut self,
        conn: ConnId,
        request: &Request,
        protocol: Protocol,
        key: StreamKey,
    ) -> Option<Response> {
        let (action, word) = match protocol {
            Protocol::Whip => (Action::Broadcast, "whip"),
            Protocol::Whep => (Action::Subscribe, "whep"),
        };
        // Clients of the dialect say signal=true or name their request; all others speak the standard.
        let dialect = request.query("signal").is_some() || request.query("requestId").is_some();
        // Whom the callback let in by another name than the stream's comes with that to the node, which asks for itself.
        let named = self.given_in_path(request).unwrap_or_else(|| key.clone());
        let at = if dialect {
            format!("/{}/{word}/endpoint/{}", named.app(), named.name())
        } else {
            format!("/{word}/{named}")
        };
        let wish = Wish::Known(action, key.clone());
        let chosen = match request.query("host").filter(|h| !h.is_empty()) {
            Some(host) => match self.proxy_target(&host, &wish) {
                Ok(node) => Some(node),
                Err((status, text)) => return Some(Response::text(status, text)),
            },
            None => None,
        };
        let mut path = with_query(&at, request);
        // The node must see the publish key that came in place of the name.
        if let Some(secret) = self.key_in_path(request).filter(|_| protocol == Protocol::Whip) {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str("key=");
            path.push_str(&secret);
        }
        let id = match self.carry(conn, request, path, Some((action, key.clone()))) {
            Ok(id) => id,
            Err(response) => return Some(*response),
        };
        if let Some(node) = chosen {
            self.carry_dial(id, node);
            return None;
        }
        let place = if action == Action::Broadcast { Place::Broadcast } else { Place::Subscribe };
        let req = self.next_req();
        self.proxy.carried.by_req.insert(req, id);
        let regions = crate::http::event::regions(request.query("region").as_deref());
        let strict = request.query("strict").is_some_and(|s| s == "true");
        let now = self.now;
        if let Some(manager) = &mut self.manager {
            let pairing = manager::Pairing { action: place, key, regions, strict, count: 1, leaves: None };
            manager.handle(manager::Input::Pair { req, pairing }, now);
        }
        None
    }

    /// A request to the resource of a session at a node.
    pub(in crate::node) fn carry_to_resource(
        &mut self,
        conn: ConnId,
        request: &Request,
        node: &str,
        path: &str,
    ) -> Option<Response> {
        let now = self.now;
        let registry = self.manager.as_ref().map(manager::Manager::registry);
        let (mut node, mut path) = (NodeId(node.to_owned()), path.to_owned());
        // Of a loop of several, in the dialect, whose paths may begin with any number of names.
        if let Some((index, rest)) = path.trim_start_matches('/').split_once('/')
            && registry.is_some_and(|r| r.node(&node).is_none())
            && !index.is_empty()
            && index.bytes().all(|b| b.is_ascii_digit())
        {
            (node, path) = (NodeId(format!("{node}/{index}")), format!("/{rest}"));
        }
        if !registry.is_some_and(|r| r.alive(&node, now)) {
            let text = format!("the node {} of this session is not here any more", quote(&node.0));
            return Some(Response::text(404, text));
        }
        let path = with_query(&path, request);
        match self.carry(conn, request, path, None) {
            Ok(id) => self.carry_dial(id, node),
            Err(response) => return Some(*response),
        }
        None
    }

    fn carry(
        &mut self,
        conn: ConnId,
        request: &Request,
        path: String,
        stream: Option<(Action, StreamKey)>,
    ) -> Result<u64, Box<Response>> {
        let refuse = |text: &str| Box::new(Response::text(503, text).header("Retry-After", "1"));
        if self.manager.is_none() {
            return Err(refuse("this node is no manager and proxies nothing; ask the manager"));
        }
        if self.draining {
            return Err(refuse(&crate::node::web::draining().text));
        }
        if self.proxy.carried.len() >= self.limits.proxy_sessions {
            self.counters.drop("proxy", "proxy_sessions", 1);
            return Err(refuse("too many requests are carried already (limits.proxy_sessions)"));
        }
        let carried = &mut self.proxy.carried;
        carried.next += 1;
        let id = carried.next;
        let carry = Carry {
            client: conn,
            request: request.clone(),
            path,
            stream,
            node: None,
            host: String::new(),
            back: None,
        };
        carried.all.insert(id, carry);
        carried.by_client.insert(conn, id);
        Ok(id)
    }

    /// The manager answered where a request shall go. Answers whether the question was one of these.
    pub(in crate::node) fn carry_placed(
        &mut self,
        req: u64,
        result: &Result<Box<Placement>, Refusal>,
    ) -> bool {
        let Some(id) = self.proxy.carried.by_req.remove(&req) else { return false };
        match result {
            Ok(placement) => {
                let stream = self.proxy.carried.all.get(&id).and_then(|c| c.stream.clone());
                if let Some((action, key)) = stream {
                    self.gave_out(action, &key, placement);
                }
                self.carry_dial(id, placement.node.id.clone());
            }
            Err(refusal) => {
                if let Some(carry) = self.proxy.carried.remove(id) {
                    let mut response = Response::text(refusal.status, &refusal.text);
                    if refusal.status == 503 {
                        response.set("Retry-After", "1");
                    }
                    self.respond_crossing(carry.client, response);
                }
            }
        }
        true
    }

    fn carry_dial(&mut self, id: u64, node: NodeId) {
        if node == self.id {
            // It goes on here, as if it had been asked of the node's own path.
            if let Some(carry) = self.proxy.carried.remove(id) {
                let (path, query) = carry.path.split_once('?').unwrap_or((&carry.path, ""));
                let (path, query) = (path.to_owned(), (!query.is_empty()).then(|| query.to_owned()));
                self.request(carry.client, Request { path, query, ..carry.request });
            }
            return;
        }
        let to = match self.node_http(&node) {
            Ok(to) => to,
            Err(reason) => return self.carry_failed(id, &reason),
        };
        let remote =
            self.proxy.carried.all.get(&id).and_then(|c| self.conns.get(&c.client)).map(|c| c.remote);
        let registry = self.manager.as_ref().map(manager::Manager::registry);
        let host = registry.and_then(|r| r.node(&node)).map(|n| n.info.advertised.host()).unwrap_or_default();
        let client = self.proxy.carried.all.get(&id).map(|c| c.client);
        let secure = client.and_then(|c| self.conns.get(&c)).is_some_and(|c| c.service.is_secure());
        let letter = client.filter(|_| self.sibling(&node).is_some()).and_then(|c| self.letter(c, false));
        let carried = &mut self.proxy.carried;
        let Some(carry) = carried.all.get_mut(&id) else { return };
        carried.by_req.retain(|_, of| *of != id);
        carry.node = Some(node);
        carry.host = host;
        let mut headers = Vec::new();
        for name in ["Content-Type", "Accept", "If-Match", "Authorization", "User-Agent"] {
            if let Some(value) = carry.request.header(name) {
                headers.push((name, value.to_owned()));
            }
        }
        if let Some(letter) = letter {
            headers.push(letter);
        } else if let Some(remote) = remote {
            headers.push(("X-Forwarded-For", remote.ip().to_string()));
            headers.push(("X-Forwarded-Proto", if secure { "https" } else { "http" }.to_owned()));
        }
        let ask = Ask {
            method: carry.request.method,
            host: to.to_string(),
            path: carry.path.clone(),
            headers,
            body: carry.request.body.clone(),
        };
        let back = self.dials(Conn::dialling_request(to, ask, Transport::Plain));
        let carried = &mut self.proxy.carried;
        carried.by_back.insert(back, id);
        if let Some(carry) = carried.all.get_mut(&id) {
            carry.back = Some(back);
        }
    }

    /// A connection that was dialled for a request stands.
    pub(in crate::node) fn carry_connected(&mut self, conn: ConnId) {
        let now = self.now;
        let Some(Conn { proto: Proto::Request { machine, ask }, .. }) = self.conns.get_mut(&conn) else {
            return;
        };
        let client = Client::new(ask, &self.limits, now);
        *machine = Some(Box::new(self.doors.fit(conn, client, &self.limits, now)));
        self.fetches.connected(conn);
        self.dirty_conns.insert(conn);
    }

    /// What the machine of a request says.
    pub(in crate::node) fn carry_said(&mut self, conn: ConnId, said: client::Output) {
        match said {
            client::Output::Send(bytes) => self.send(conn, bytes),
            client::Output::Closed(reason) => self.end_conn(conn, reason, Some(false)),
            client::Output::Answer(response) if self.doors.has(conn) => self.door_answered(conn, response),
            client::Output::Answer(mut response) => {
                let Some(id) = self.proxy.carried.by_back.get(&conn).copied() else {
                    return self.fetch_answered(conn, response);
                };
                let Some(carry) = self.proxy.carried.remove(id) else { return };
                let node = carry.node.map(|n| n.0).unwrap_or_default();
                if let Some(at) = response.get("location").map(str::to_owned) {
                    // Where the client shall go on: to the node, through here.
                    response.set(
                        "Location",
                        format!("/as/v1/proxy/to/{}{}", encode_percent(&node, ""), local(&at)),
                    );
                }
                if carry.stream.is_some() && matches!(carry.request.method, Method::Options | Method::Post) {
                    response.set("Session-Host", carry.host);
                }
                self.respond_crossing(carry.client, response);
            }
        }
    }

    /// The connection of a request is gone, answered or not.
    pub(in crate::node) fn carry_back_gone(&mut self, conn: ConnId, reason: &Reason) {
        if self.doors.has(conn) {
            return self.door_gone(conn, reason);
        }
        match self.proxy.carried.by_back.get(&conn).copied() {
            Some(id) => self.carry_failed(id, reason),
            None => self.fetch_gone(conn, reason),
        }
    }

    /// A client left before its answer.
    pub(in crate::node) fn carry_client_gone(&mut self, conn: ConnId) {
        let Some(id) = self.proxy.carried.by_client.get(&conn).copied() else { return };
        if let Some(back) = self.proxy.carried.remove(id).and_then(|c| c.back) {
            self.end_conn(back, Reason::peer("client_gone", "the client left before its answer"), Some(true));
        }
    }

    fn carry_failed(&mut self, id: u64, reason: &Reason) {
        let Some(carry) = self.proxy.carried.remove(id) else { return };
        self.counters.ended_as("proxy", reason);
        let node = carry.node.map(|n| n.0).unwrap_or_default();
        let text = format!("the node {} cannot be reached: {}", quote(&node), reason.text);
        self.log(Level::Warn, "http", reason.code, text.clone());
        let response =
            Response::text(503, text).header("Retry-After", "1").header("Cache-Control", "no-store");
        self.respond_crossing(carry.client, response);
        if let Some(back) = carry.back {
            self.end_conn(back, Reason::local("http_done", "the request was given up"), Some(true));
        }
    }

    /// The address of a node's HTTP port, for this manager.
    ///
    /// # Errors
    /// If it has none, or one that is this process's own.
    pub(in crate::node) fn node_http(&self, node: &NodeId) -> Result<SocketAddr, Reason> {
        // The loops of this process share the port that they registered with.
        if let Some(door) = self.sibling(node).and_then(|index| self.door(index)) {
            return Ok(door);
        }
        let registry = self.manager.as_ref().map(manager::Manager::registry);
        let at = registry.and_then(|r| r.node(node)).map(|n| &n.info.advertised);
        let to = at.map(|at| SocketAddr::new(at.private, at.http)).filter(|to| to.port() != 0);
        let Some(to) = to else {
            return Err(Reason::local("proxy_no_address", format!("node {node} serves no HTTP")));
        };
        let own = [self.advertised.private, self.advertised.public, self.config.bind];
        if to.port() == self.config.http.port && own.contains(&to.ip()) {
            let text = format!("node {node} registered with the address of this manager, {to}");
            return Err(Reason::local("proxy_to_itself", text));
        }
        Ok(to)
    }
}

/// Path and query of a location, whatever host a node puts before it.
fn local(location: &str) -> String {
    let rest = location
        .split_once("://")
        .map_or(location, |(_, rest)| rest.find('/').map_or("/", |at| rest.get(at..).unwrap_or("/")));
    rest.to_owned()
}
