//! The manager's websocket proxy: a secure page may not open an insecure websocket, and nodes need no certificates, so the
//! manager stands between for the time of the signalling.
//!
//! It dials registered nodes only, by their id and at the address with which they registered (abuse A18, invariant S11).
//! A `host` of the client must be, byte for byte, what the manager gave out for that stream and action a moment ago
//! ([`given::Given`]). Where the node is this process itself, the websocket is handed over in memory.

pub(super) mod carried;
pub(super) mod given;

use super::conns::{Conn, Proto};
use super::loops::{passed, with_query};
use super::{Alarm, Node};
use crate::cluster::manager::{self, Placement};
use crate::cluster::placement::Refusal;
use crate::cluster::{NodeId, manager::Action as Place};
use crate::error::{Reason, quote};
use crate::guard::guard;
use crate::http::api::{Proxies, ProxyInfo};
use crate::http::event::Action;
use crate::http::message::{Request, Response};
use crate::http::proxy::{Ask, Wish};
use crate::http::websocket::client::{self, Client, Target};
use crate::http::websocket::code;
use crate::io::{ConnId, Level, Output};
use crate::machine::Machine;
use crate::media::key::StreamKey;
use crate::simulation::Bug;
use crate::time::{Deadline, Time};
use carried::Carried;
use given::Given;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How often it is looked whether nodes that are proxied to still live.
const LOOK: Duration = Duration::from_millis(250);

/// How far a proxied websocket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The manager is asked for a node.
    Placing {
        /// The number of the question.
        req: u64,
    },
    /// The node is dialled, or was and has not answered with a 101.
    Dialling { since: Time },
    /// Messages pass.
    Open,
}

/// One proxied websocket.
#[derive(Debug)]
struct Proxied {
    client: ConnId,
    remote: SocketAddr,
    secure: bool,
    request: Request,
    key: StreamKey,
    path: String,
    stage: Stage,
    node: Option<NodeId>,
    to: Option<SocketAddr>,
    /// The connection to the node.
    back: Option<ConnId>,
    since: Time,
    /// Reading stands still, because the other side does not take what was read: at the client, and at the node.
    stopped: (bool, bool),
}

/// All that is proxied.
#[derive(Debug, Default)]
pub(super) struct Proxy {
    next: u64,
    /// From one number to the next.
    step: u64,
    all: BTreeMap<u64, Proxied>,
    /// By the client's connection and by the node's.
    by_conn: BTreeMap<ConnId, u64>,
    by_req: BTreeMap<u64, u64>,
    per_ip: BTreeMap<IpAddr, usize>,
    /// What the manager gave out.
    pub(super) given: Given,
    /// Requests of WHIP and WHEP on their way.
    pub(super) carried: Carried,
}

impl Proxy {
    /// None yet; numbers as those of sessions ([`super::session::Sessions::numbered`]).
    pub(super) fn numbered(rest: usize, of: usize) -> Proxy {
        Proxy { next: rest as u64, step: of.max(1) as u64, ..Proxy::default() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether the tables agree.
    pub(super) fn agrees(&self) -> bool {
        let conns: usize = self.all.values().map(|p| 1 + usize::from(p.back.is_some())).sum();
        let reqs = self.all.values().filter(|p| matches!(p.stage, Stage::Placing { .. })).count();
        self.by_conn.len() == conns
            && self.by_req.len() == reqs
            && self.carried.agrees()
            && self.per_ip.values().sum::<usize>() == self.all.len()
    }

    /// The connections that it dialled.
    pub(super) fn dialled(&self) -> impl Iterator<Item = ConnId> {
        self.all.values().filter_map(|p| p.back).chain(self.carried.dialled())
    }

    fn remove(&mut self, id: u64) -> Option<Proxied> {
        let p = self.all.remove(&id)?;
        self.by_conn.remove(&p.client);
        if let Some(back) = p.back {
            self.by_conn.remove(&back);
        }
        if let Stage::Placing { req } = p.stage {
            self.by_req.remove(&req);
        }
        let ip = p.remote.ip();
        if let Some(n) = self.per_ip.get_mut(&ip) {
            *n -= 1;
            if *n == 0 {
                self.per_ip.remove(&ip);
            }
        }
        Some(p)
    }
}

impl Node {
    /// A client asks to be connected with a node.
    pub(super) fn proxy_asked(&mut self, conn: ConnId, request: Request) {
        // Whoever shows what is good for nothing is told here, and no node is dialled for him.
        if let Ok(Ask { wish, .. }) = Ask::parse(&request) {
            let (asker, key) = (self.asker_of(conn, &request), wish.key());
            if !self.may_connect(conn, &request, key.app(), key.name(), &asker) {
                return;
            }
        }
        if let Err(response) = self.proxy_begin(conn, &request) {
            self.log_refusal(conn, &request, &response);
            self.respond(conn, *response);
        }
    }

    fn proxy_begin(&mut self, conn: ConnId, request: &Request) -> Result<(), Box<Response>> {
        let refuse = |status, text: String| Box::new(Response::text(status, text));
        let ask = Ask::parse(request).map_err(|(status, text)| refuse(status, text))?;
        let Some(c) = self.conns.get(&conn) else { return Ok(()) };
        let remote = c.remote;
        let manager_loop = self.manager_loop();
        if self.manager.is_none() && manager_loop.is_none() {
            let text = "this node is no manager and proxies nothing; open the websocket at the manager";
            return Err(refuse(503, text.to_owned()));
        }
        if self.draining {
            return Err(refuse(503, super::web::draining().text.into_owned()));
        }
        let of_ip = self.proxy.per_ip.get(&remote.ip()).copied().unwrap_or(0);
        let (most_ip, most) = (self.limits.proxy_per_ip, self.limits.proxy_sessions);
        if of_ip >= most_ip {
            self.counters.drop("proxy", "proxy_per_ip", 1);
            let text =
                format!("your address has {of_ip} proxied websockets, limits.proxy_per_ip is {most_ip}");
            return Err(refuse(429, text));
        }
        if self.proxy.all.len() >= most {
            self.counters.drop("proxy", "proxy_sessions", 1);
            return Err(refuse(
                503,
                format!("{most} websockets are proxied already (limits.proxy_sessions)"),
            ));
        }
        if let Some(to) = manager_loop {
            let key = self.authority.policy.likely(ask.wish.key());
            self.proxy_to_manager(conn, request, key, to);
            return Ok(());
        }
        let unchecked = self.limits.simulation.planted(Bug::ProxyUnchecked);
        let chosen = match &ask.host {
            Some(_) if unchecked => None,
            Some(host) => match self.proxy_target(host, &ask.wish) {
                Ok(node) => Some(node),
                Err((503, text)) => {
                    self.say_not_connected(conn, code::TRY_AGAIN, &text);
                    return Ok(());
                }
                Err((status, text)) => return Err(refuse(status, text)),
            },
            None => None,
        };
        let (action, key) = match &ask.wish {
            Wish::Known(action, key) => (*action, self.authority.policy.likely(key)),
            Wish::Either(key) if chosen.is_none() && key.name().starts_with("subscriber-") => {
                let text = "a subscriber's websocket needs host=…, the serverAddress that the manager answered for its \
                            stream";
                return Err(refuse(400, text.to_owned()));
            }
            Wish::Either(key) => (Action::Broadcast, self.authority.policy.likely(key)),
        };
        if chosen.as_ref() == Some(&self.id) {
            self.proxy_here(conn, request.clone(), ask.path);
            return Ok(());
        }
        let req = self.next_req();
        let stage = Stage::Placing { req };
        let Some(id) = self.proxy_add(conn, request, key.clone(), ask.path, stage) else { return Ok(()) };
        self.proxy.by_req.insert(req, id);
        match chosen {
            Some(node) => self.proxy_dial(id, node),
            None => {
                let action = if action == Action::Broadcast { Place::Broadcast } else { Place::Subscribe };
                let regions = crate::http::event::regions(ask.region.as_deref());
                let pairing =
                    manager::Pairing { action, key, regions, strict: ask.strict, count: 1, leaves: None };
                let input = manager::Input::Pair { req, pairing };
                let now = self.now;
                if let Some(manager) = &mut self.manager {
                    manager.handle(input, now);
                }
            }
        }
        Ok(())
    }

    fn proxy_add(
        &mut self,
        client: ConnId,
        request: &Request,
        key: StreamKey,
        path: String,
        stage: Stage,
    ) -> Option<u64> {
        let c = self.conns.get(&client)?;
        let (remote, secure) = (c.remote, c.service.is_secure());
        self.proxy.next += self.proxy.step;
        let id = self.proxy.next;
        let proxied = Proxied {
            client,
            remote,
            secure,
            request: request.clone(),
            key,
            path,
            stage,
            node: None,
            to: None,
            back: None,
            since: self.now,
            stopped: (false, false),
        };
        self.proxy.all.insert(id, proxied);
        self.proxy.by_conn.insert(client, id);
        *self.proxy.per_ip.entry(remote.ip()).or_default() += 1;
        self.look_at_proxies_in(LOOK);
        Some(id)
    }

    /// The manager is another loop of this process: it is asked there, as it was here.
    fn proxy_to_manager(
        &mut self,
        conn: ConnId,
        request: &Request,
        key: StreamKey,
        (node, to): (NodeId, SocketAddr),
    ) {
        let path = with_query(&request.path, request);
        let stage = Stage::Dialling { since: self.now };
        let Some(id) = self.proxy_add(conn, request, key, path, stage) else { return };
        let mut headers = Vec::from_iter(self.letter(conn, false));
        headers.extend(passed(request));
        self.proxy_dial_at(id, node, to, headers);
    }

    /// The node behind a `host`, if the manager gave that out.
    ///
    /// # Errors
    /// 403: it did not. 503: it did, and the node has gone since.
    pub(super) fn proxy_target(&self, host: &str, wish: &Wish) -> Result<NodeId, (u16, String)> {
        let given = &self.proxy.given;
        let found = match wish {
            Wish::Known(action, key) => given.find(host, *action, key, self.now),
            Wish::Either(key) => {
                let publish = given.find(host, Action::Broadcast, key, self.now);
                publish.or_else(|| given.find_app(host, key.app(), self.now))
            }
        };
        let refused = || {
            let text = format!(
                "host={} is not what this manager gave out for that stream lately; ask it again, or leave host out",
                quote(host)
            );
            (403, text)
        };
        let node = found.ok_or_else(refused)?;
        let registry = self.manager.as_ref().map(manager::Manager::registry);
        let Some(known) = registry.and_then(|r| r.node(&node)) else { return Err(refused()) };
        if known.info.advertised.host() != host {
            return Err(refused());
        }
        if !registry.is_some_and(|r| r.alive(&node, self.now)) {
            let text = format!("node {node} has gone since it was given out; ask the manager for another");
            return Err((503, text));
        }
        Ok(node)
    }

    /// The manager answered where a websocket shall go. Answers whether the question was the proxy's.
    pub(super) fn proxy_placed(&mut self, req: u64, result: &Result<Box<Placement>, Refusal>) -> bool {
        let Some(id) = self.proxy.by_req.get(&req).copied() else { return self.carry_placed(req, result) };
        match result {
            Ok(placement) if placement.node.id == self.id => {
                if let Some(p) = self.proxy.remove(id) {
                    self.proxy_here(p.client, p.request, p.path);
                }
            }
            Ok(placement) => self.proxy_dial(id, placement.node.id.clone()),
            Err(refusal) => {
                let reason = Reason::local(refusal.code, refusal.text.clone());
                self.proxy_failed(id, code::TRY_AGAIN, &reason);
            }
        }
        true
    }

    /// The node is this one: the websocket goes on here, as if it had been opened at the node's own path.
    fn proxy_here(&mut self, conn: ConnId, mut request: Request, path: String) {
        request.path = path.split('?').next().unwrap_or_default().to_owned();
        self.socket_here(conn, request);
    }

    fn proxy_dial(&mut self, id: u64, node: NodeId) {
        let unchecked = self.limits.simulation.planted(Bug::ProxyUnchecked);
        let host = self.proxy.all.get(&id).and_then(|p| p.request.query("host")).filter(|_| unchecked);
        let anywhere = host.and_then(|h| h.parse().ok()).map(|ip| Ok(SocketAddr::new(ip, 5080)));
        let to = match anywhere.unwrap_or_else(|| self.node_http(&node)) {
            Ok(to) => to,
            Err(reason) => return self.proxy_failed(id, code::BAD_GATEWAY, &reason),
        };
        let Some(p) = self.proxy.all.get(&id) else { return };
        let letter = self.sibling(&node).and_then(|_| self.letter(p.client, false));
        let headers = match letter {
            Some(letter) => vec![letter],
            None => vec![
                ("X-Forwarded-For", p.remote.ip().to_string()),
                ("X-Forwarded-Proto", if p.secure { "https" } else { "http" }.to_owned()),
            ],
        };
        self.proxy_dial_at(id, node, to, headers);
    }

    fn proxy_dial_at(&mut self, id: u64, node: NodeId, to: SocketAddr, headers: Vec<(&'static str, String)>) {
        let Some(path) = self.proxy.all.get(&id).map(|p| p.path.clone()) else { return };
        let back = self.dials(Conn::dialling_socket(to, Target { host: to.to_string(), path, headers }));
        let Some(p) = self.proxy.all.get_mut(&id) else { return };
        if let Stage::Placing { req } = p.stage {
            self.proxy.by_req.remove(&req);
        }
        p.stage = Stage::Dialling { since: self.now };
        p.node = Some(node);
        p.to = Some(to);
        p.back = Some(back);
        self.proxy.by_conn.insert(back, id);
    }

    /// A connection that was dialled for the proxy stands.
    pub(super) fn proxy_connected(&mut self, conn: ConnId) {
        let (now, rng) = (self.now, self.rng.fork("proxy", conn.0));
        let Some(Conn { proto: Proto::Socket { machine, target }, .. }) = self.conns.get_mut(&conn) else {
            return;
        };
        *machine = Some(Box::new(Client::new(target, &self.limits, rng, now)));
        self.dirty_conns.insert(conn);
    }

    /// What the machine of a connection to a node says.
    pub(super) fn proxy_said(&mut self, conn: ConnId, said: client::Output) {
        let id = self.proxy.by_conn.get(&conn).copied();
        match (said, id) {
            (client::Output::Send(bytes), _) => self.send(conn, bytes),
            (client::Output::Closed(reason), _) => self.end_conn(conn, reason, Some(false)),
            (client::Output::Opened, Some(id)) => self.proxy_open(id),
            (client::Output::Text(text), Some(id)) => self.proxy_relay(id, false, &text),
            (client::Output::Ended { code, text }, Some(id)) => self.proxy_back_ended(id, code, &text),
            (_, None) => {}
        }
    }

    fn proxy_open(&mut self, id: u64) {
        let Some(p) = self.proxy.all.get_mut(&id) else { return };
        p.stage = Stage::Open;
        let (client, node, key, remote) = (p.client, p.node.clone(), p.key.clone(), p.remote);
        let node = node.map(|n| n.0).unwrap_or_default();
        self.socket_accept(client, None);
        self.conn_is_let_in(client);
        self.log_stream(
            Level::Info,
            key.to_string(),
            "proxied",
            format!("websocket proxy-{id} of {remote} is proxied to node {}", quote(&node)),
        );
    }

    /// Hands a message from the client (`forth`) or the node on, and stops reading where it is not taken.
    fn proxy_relay(&mut self, id: u64, forth: bool, text: &str) {
        let Some(p) = self.proxy.all.get(&id) else { return };
        let (client, Some(back)) = (p.client, p.back) else { return };
        if forth {
            self.tell_back(back, client::Input::Text(text));
        } else {
            self.socket_send(client, text);
        }
        self.proxy_room(if forth { back } else { client });
    }

    /// How much waits on a connection may have changed: reading of its other side stops or goes on.
    pub(super) fn proxy_room(&mut self, conn: ConnId) {
        let Some(id) = self.proxy.by_conn.get(&conn).copied() else { return };
        let high = self.limits.ws_queue_bytes / 2;
        let queued = match self.conns.get(&conn).map(|c| &c.proto) {
            Some(Proto::Http(m)) => m.socket_queued().unwrap_or(0),
            Some(Proto::Socket { machine: Some(m), .. }) => m.queued(),
            _ => return,
        };
        let Some(p) = self.proxy.all.get_mut(&id) else { return };
        let Some(back) = p.back else { return };
        let (stopped, source) =
            if conn == back { (&mut p.stopped.0, p.client) } else { (&mut p.stopped.1, back) };
        let stop = if *stopped { queued > high / 2 } else { queued > high };
        if stop != std::mem::replace(stopped, stop) {
            self.out.push_back(Output::Reading { conn: source, on: !stop });
        }
    }

    /// A message came from a client. Answers whether it was the proxy's to take.
    pub(super) fn proxy_text(&mut self, conn: ConnId, text: &str) -> bool {
        let Some(id) = self.proxy.by_conn.get(&conn).copied() else { return false };
        self.proxy_relay(id, true, text);
        true
    }

    /// A client's websocket ended. Answers whether it was the proxy's.
    pub(super) fn proxy_client_ended(&mut self, conn: ConnId, code: u16, text: &str) -> bool {
        let Some(id) = self.proxy.by_conn.get(&conn).copied() else { return false };
        let Some(p) = self.proxy.remove(id) else { return true };
        self.proxy_over(id, &p, &format!("the client closed it with code {code}"));
        // That a client is gone is told as such: the code for it may not stand on the wire.
        let code = if code == code::ABNORMAL { code::GOING_AWAY } else { code };
        self.close_back(&p, code, text);
        true
    }

    /// The websocket to a node ended.
    fn proxy_back_ended(&mut self, id: u64, code: u16, text: &str) {
        if code == code::ABNORMAL {
            let reason = Reason::peer("proxy_node_gone", format!("the connection to the node broke: {text}"));
            return self.proxy_failed(id, code::BAD_GATEWAY, &reason);
        }
        let Some(p) = self.proxy.remove(id) else { return };
        self.proxy_over(id, &p, &format!("the node closed it with code {code}"));
        self.start_reading(&p);
        self.socket_close(p.client, code, text);
    }

    /// The connection to a node is gone.
    pub(super) fn proxy_back_gone(&mut self, conn: ConnId, reason: &Reason) {
        if let Some(id) = self.proxy.by_conn.get(&conn).copied() {
            let text = format!("the node cannot be reached: {}", reason.text);
            self.proxy_failed(id, code::BAD_GATEWAY, &Reason { text: text.into(), ..reason.clone() });
        }
    }

    /// A client's connection is gone, be it a websocket yet or not.
    pub(super) fn proxy_client_gone(&mut self, conn: ConnId) {
        self.proxy_client_ended(conn, code::ABNORMAL, "");
    }

    /// Nothing came of it, or it broke: the client is told in the dialect, and both sides are closed.
    fn proxy_failed(&mut self, id: u64, code: u16, reason: &Reason) {
        let Some(p) = self.proxy.remove(id) else { return };
        self.counters.ended_as("proxy", reason);
        let key = p.key.to_string();
        self.log_stream(
            Level::Warn,
            key,
            reason.code,
            format!("websocket proxy-{id} of {}: {reason}", p.remote),
        );
        self.start_reading(&p);
        if p.stage == Stage::Open {
            self.socket_send(p.client, &crate::signalling::error(reason));
            self.socket_close(p.client, code, &reason.text);
        } else {
            self.say_not_connected(p.client, code, &reason.text);
        }
        self.close_back(&p, code::GOING_AWAY, "the proxy gave it up");
    }

    /// A page is not told why a websocket could not be opened, so it is opened to say so. With a message beside the code
    /// clients of the dialect do not know it.
    fn say_not_connected(&mut self, conn: ConnId, code: u16, text: &str) {
        self.socket_accept(conn, None);
        let words =
            serde_json::json!({ "data": { "type": "error", "code": "NetConnection.Connect.Failed" } });
        self.socket_send(conn, &words.to_string());
        self.socket_close(conn, code, text);
    }

    /// What is still read of a client is its close frame.
    fn start_reading(&mut self, p: &Proxied) {
        if p.stopped.0 {
            self.out.push_back(Output::Reading { conn: p.client, on: true });
        }
    }

    fn proxy_over(&mut self, id: u64, p: &Proxied, why: &str) {
        let seconds = self.now.since(p.since).as_secs_f64();
        let text = format!("websocket proxy-{id} of {} ended after {seconds:.1} s: {why}", p.remote);
        self.counters.ended_as("proxy", &Reason::peer("ws_closed", ""));
        self.log_stream(Level::Info, p.key.to_string(), "proxy_over", text);
    }

    /// Closes the websocket to the node, or the attempt at one.
    fn close_back(&mut self, p: &Proxied, code: u16, text: &str) {
        let Some(back) = p.back else { return };
        if p.stage == Stage::Open {
            if p.stopped.1 {
                self.out.push_back(Output::Reading { conn: back, on: true });
            }
            self.tell_back(back, client::Input::Close { code, text });
        } else {
            self.end_conn(back, Reason::local("ws_closed", "the proxy gave it up"), Some(true));
        }
    }

    fn tell_back(&mut self, conn: ConnId, input: client::Input<'_>) {
        let now = self.now;
        let Some(Conn { proto: Proto::Socket { machine: Some(m), .. }, .. }) = self.conns.get_mut(&conn)
        else {
            return;
        };
        match guard(|| m.handle(input, now)) {
            Ok(()) => {
                self.dirty_conns.insert(conn);
            }
            Err(reason) => self.end_conn(conn, reason, Some(true)),
        }
    }

    fn look_at_proxies_in(&mut self, wait: Duration) {
        if self.proxy.all.len() == 1 {
            let at = Deadline::new(self.now + wait, "it is looked whether nodes that are proxied to live");
            self.timers.set(Alarm::Proxy, at);
        }
    }

    /// Gives up what is proxied to nodes whose lease has run out, and dials that took too long.
    pub(super) fn look_at_proxies(&mut self) {
        let patience = Duration::from_millis(self.limits.proxy_dial_ms);
        let registry = self.manager.as_ref().map(manager::Manager::registry);
        let mut alive: BTreeMap<&NodeId, bool> = BTreeMap::new();
        let mut over = Vec::new();
        for (id, p) in &self.proxy.all {
            // Without a registry it is proxied to the manager of this process, which lives as long as this loop.
            if let (Some(node), Some(registry)) = (&p.node, registry)
                && !*alive.entry(node).or_insert_with(|| registry.alive(node, self.now))
            {
                let text = format!("node {node} is no longer heard of");
                over.push((*id, code::BAD_GATEWAY, Reason::peer("proxy_node_lost", text)));
            } else if let Stage::Dialling { since } = p.stage
                && since + patience <= self.now
            {
                let text = format!("the node did not answer within {} ms", patience.as_millis());
                over.push((*id, code::TRY_AGAIN, Reason::limit("proxy_dial_timeout", text)));
            }
        }
        for (id, code, reason) in over {
            self.proxy_failed(id, code, &reason);
        }
        if self.proxy.all.is_empty() {
            return;
        }
        let at = Deadline::new(self.now + LOOK, "it is looked whether nodes that are proxied to live");
        self.timers.set(Alarm::Proxy, at);
    }

    /// Ends everything that is proxied.
    pub(super) fn end_proxies(&mut self) {
        let all: Vec<u64> = self.proxy.all.keys().copied().collect();
        for id in all {
            self.proxy_failed(id, code::GOING_AWAY, &super::web::draining());
        }
    }

    pub(super) fn api_proxies(&self) -> Proxies {
        let proxies = self.proxy.all.iter().map(|(id, p)| ProxyInfo {
            id: format!("proxy-{id}"),
            stream: p.key.to_string(),
            remote: p.remote.to_string(),
            secure: p.secure,
            user_agent: p.request.header("user-agent").unwrap_or_default().chars().take(200).collect(),
            node: p.node.as_ref().map(|n| n.0.clone()).unwrap_or_default(),
            target: p.to.map(|to| to.to_string()).unwrap_or_default(),
            state: match p.stage {
                Stage::Placing { .. } => "placing",
                Stage::Dialling { .. } => "dialling",
                Stage::Open => "open",
            }
            .to_owned(),
            age_s: self.now.since(p.since).as_secs(),
        });
        Proxies { proxies: proxies.collect() }
    }

    /// Ends a proxied websocket by the name that the API gives it. Answers whether there was one.
    pub(super) fn kick_proxy(&mut self, name: &str) -> bool {
        let id = name.strip_prefix("proxy-").and_then(|n| n.parse::<u64>().ok());
        let Some(id) = id.filter(|id| self.proxy.all.contains_key(id)) else { return false };
        self.proxy_failed(id, code::POLICY, &Reason::local("kicked", "an operator ended this websocket"));
        true
    }

    /// Remembers what the manager gave out.
    pub(super) fn gave_out(&mut self, action: Action, key: &StreamKey, placement: &Placement) {
        for node in std::iter::once(&placement.node).chain(&placement.others) {
            let host = node.advertised.host();
            self.proxy.given.add(&self.limits, host, action, key, &node.id, self.now);
        }
    }
}
