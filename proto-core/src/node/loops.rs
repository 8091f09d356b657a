//! A node that is one of several loops of a process (`node.loops`): requests that another loop answers, or all of them.
//!
//! The kernel hands a connection to any loop, and each serves whoever comes. What only one of them knows is asked of it: what
//! belongs to a session, whose loop its number or its resource tells; what the manager knows, which is loop 0; and what is
//! everybody's (lists, metrics, health), which loop 0 gathers. It is asked over its *door*, HTTP on loopback, in the words of
//! the client, with one line before them (`Letter`) that says who asks. That line holds the secret of the process, so nobody
//! else can say so.

mod joined;

use super::Node;
use super::conns::{Conn, Transport};
use crate::cluster::NodeId;
use crate::error::Reason;
use crate::http::client::{Ask, Client};
use crate::http::message::{Method, Request, Response, encode_percent};
use crate::http::router::{ApiRoute, Route};
use crate::http::token::same_secret;
use crate::io::{ConnId, Level, Service};
use crate::limits::Limits;
use crate::node::address::reachable;
use crate::node::config::loops::Loops;
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

pub(super) use joined::Kind;

/// The header of a letter.
const LETTER: &str = "Headwater-Loop";

/// What is handed on of a request, beside its `Host`: all that a node looks at.
const PASSED: [(&str, &str); 10] = [
    ("accept", "Accept"),
    ("authorization", "Authorization"),
    ("content-type", "Content-Type"),
    ("forwarded", "Forwarded"),
    ("if-match", "If-Match"),
    ("if-none-match", "If-None-Match"),
    ("origin", "Origin"),
    ("user-agent", "User-Agent"),
    ("x-forwarded-for", "X-Forwarded-For"),
    ("x-forwarded-proto", "X-Forwarded-Proto"),
];

/// Whose it is to answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// The loop's that it came to.
    Mine,
    /// Another loop's.
    Of(usize),
    /// Each has a part in the answer, and this loop puts them together.
    All(Kind),
}

/// Which way a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It is answered here.
    Here,
    /// Here, as the first part of what is gathered from all.
    Gathered(Kind),
    /// It went to another loop.
    Away,
}

/// Who may answer a request that came to the loop `loops.index`.
fn whose(loops: &Loops, route: &Route) -> Whose {
    let of = |index: usize| if index == loops.index { Whose::Mine } else { Whose::Of(index) };
    let managed = || if loops.manager { of(0) } else { Whose::Mine };
    let all = |kind| if loops.index == 0 { Whose::All(kind) } else { Whose::Of(0) };
    // As `Sessions::numbered` gives them out.
    let numbered = |name: &str| match name.rsplit_once('-').map(|(_, n)| n.parse::<usize>()) {
        Some(Ok(n)) => of(n % loops.doors.len().max(1)),
        _ => Whose::Mine,
    };
    match route {
        Route::WhipResource { id } | Route::WhepResource { id } => match loop_of(id) {
            Some(index) if index < loops.doors.len() => of(index),
            _ => Whose::Mine,
        },
        Route::ProxyEndpoint { .. }
        | Route::ProxyResource { .. }
        | Route::Event(_)
        | Route::Sm1(_)
        | Route::Sm2(_) => managed(),
        Route::Api(call) => match call {
            ApiRoute::Nodes if !loops.manager => all(Kind::Nodes),
            ApiRoute::Streams if !loops.manager => all(Kind::Streams),
            ApiRoute::Nodes
            | ApiRoute::Streams
            | ApiRoute::Placed(_)
            | ApiRoute::Drain { .. }
            | ApiRoute::Warm(_) => managed(),
            ApiRoute::Sessions => all(Kind::List("sessions")),
            ApiRoute::Proxies => all(Kind::List("proxies")),
            ApiRoute::Sources => all(Kind::List("sources")),
            ApiRoute::Destinations => all(Kind::Destinations),
            ApiRoute::Kick(name) | ApiRoute::Why(name) => numbered(name),
            // The manager tells all nodes what is revoked.
            ApiRoute::Token | ApiRoute::Revoked | ApiRoute::Revoke(_) => Whose::Mine,
        },
        Route::Metrics => all(Kind::Metrics),
        Route::Healthz | Route::Readyz => all(Kind::Words),
        _ => Whose::Mine,
    }
}

/// The name of a session's resource: the loop that it is on, then what nobody can guess.
pub(super) fn resource(loops: Option<&Loops>, secret: String) -> String {
    match loops {
        Some(loops) => format!("{:02x}{secret}", loops.index),
        None => secret,
    }
}

/// The loop that the name of a resource tells.
fn loop_of(resource: &str) -> Option<usize> {
    usize::from_str_radix(resource.get(..2)?, 16).ok()
}

/// Who asks at a door, and how much of the answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Letter {
    /// The client.
    peer: SocketAddr,
    /// Where it asked.
    local: SocketAddr,
    /// It came over TLS.
    secure: bool,
    /// The part of this loop is wanted, of an answer that is put together. It was seen to that the client may have it.
    part: bool,
}

impl Letter {
    fn write(&self, secret: &str) -> String {
        let (secure, part) = (u8::from(self.secure), u8::from(self.part));
        format!("{secret} {} {} {secure} {part}", self.peer, self.local)
    }

    fn read(text: &str, secret: &str, key: &[u8; 32]) -> Option<Letter> {
        let words: Vec<&str> = text.split(' ').collect();
        let [shown, peer, local, secure, part] = words.as_slice() else { return None };
        let flag = |word: &str| word == "1";
        same_secret(key, shown, secret).then_some(())?;
        let (peer, local) = (peer.parse().ok()?, local.parse().ok()?);
        Some(Letter { peer, local, secure: flag(secure), part: flag(part) })
    }
}

/// One request to another loop.
#[derive(Debug)]
struct Errand {
    task: u64,
    to: usize,
}

/// A client that waits for what other loops say.
#[derive(Debug)]
struct Task {
    client: ConnId,
    /// How the parts become one answer; none: there is one.
    kind: Option<Kind>,
    parts: BTreeMap<usize, Response>,
    open: BTreeSet<ConnId>,
}

/// What is asked of other loops. A client waits for one thing at a time.
#[derive(Debug, Default)]
pub(super) struct Doors {
    next: u64,
    tasks: BTreeMap<u64, Task>,
    errands: BTreeMap<ConnId, Errand>,
    by_client: BTreeMap<ConnId, u64>,
}

impl Doors {
    /// Whether a connection was dialled for this.
    pub(super) fn has(&self, conn: ConnId) -> bool {
        self.errands.contains_key(&conn)
    }

    /// Fits a client to what it asks for: lists are longer than other answers, and how things stand with a loop that hangs should be
    /// known before whoever asks gives up.
    pub(super) fn fit(&self, conn: ConnId, client: Client, limits: &Limits, now: Time) -> Client {
        let Some(task) = self.errands.get(&conn).and_then(|e| self.tasks.get(&e.task)) else { return client };
        let client = client.taking(limits.loop_answer_bytes);
        if task.kind.is_some() { client.within(limits.proxy_dial_ms, now) } else { client }
    }

    /// The connections that were dialled for this.
    pub(super) fn dialled(&self) -> impl Iterator<Item = ConnId> {
        self.errands.keys().copied()
    }

    /// Whether the tables agree.
    pub(super) fn agrees(&self) -> bool {
        let open: usize = self.tasks.values().map(|t| t.open.len()).sum();
        let known = self.errands.values().all(|e| self.tasks.contains_key(&e.task));
        open == self.errands.len() && known && self.by_client.len() == self.tasks.len()
    }

    fn remove(&mut self, id: u64) -> Option<Task> {
        let task = self.tasks.remove(&id)?;
        self.by_client.remove(&task.client);
        for conn in &task.open {
            self.errands.remove(conn);
        }
        Some(task)
    }
}

impl Node {
    /// A request came on a connection. At a door it must show a letter, and the connection is the client's from then on.
    /// Answers whether it may go on.
    pub(super) fn introduced(&mut self, conn: ConnId, request: &Request) -> bool {
        let Some(c) = self.conns.get(&conn) else { return false };
        if c.service != Service::Door {
            return true;
        }
        let key = self.token_key();
        let secret = self.config.loops.as_ref().map_or("", |l| l.secret.as_str());
        let shown = request.header(&LETTER.to_ascii_lowercase()).filter(|_| !secret.is_empty());
        let Some(letter) = shown.and_then(|text| Letter::read(text, secret, &key)) else {
            let text = "this port is for the other loops of this process; ask at http.port";
            self.counters.drop("request", "door", 1);
            self.respond(conn, Response::text(403, text));
            return false;
        };
        if let Some(c) = self.conns.get_mut(&conn) {
            c.service = if letter.secure { Service::Https } else { Service::Http };
            (c.remote, c.local) = (letter.peer, Some(letter.local));
            c.door = Some(letter.part);
        }
        self.conn_is_let_in(conn);
        true
    }

    /// Sends a request to the loop that answers it, if that is another.
    pub(super) fn way_of(&mut self, conn: ConnId, request: &Request, route: &Route) -> Way {
        let Some(loops) = &self.config.loops else { return Way::Here };
        let at_door = self.conns.get(&conn).and_then(|c| c.door);
        match (whose(loops, route), at_door) {
            // Who sent it thinks that it is this loop's: no circle can close.
            (Whose::Mine, _) | (_, Some(true)) | (Whose::Of(_), Some(false)) => Way::Here,
            (Whose::All(kind), _) => Way::Gathered(kind),
            (Whose::Of(index), None) => {
                if self.task(conn, None) {
                    self.errand(conn, index, request, false);
                }
                Way::Away
            }
        }
    }

    /// Whether a client's part of an answer is wanted that another loop puts together, and that saw to it who asks.
    pub(super) fn wants_a_part(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).and_then(|c| c.door) == Some(true)
    }

    /// Has all other loops say their parts of an answer, of which this loop's is given.
    pub(super) fn gather(&mut self, conn: ConnId, request: &Request, kind: Kind, own: Response) {
        let Some((index, of)) = self.config.loops.as_ref().map(|l| (l.index, l.doors.len())) else { return };
        if !self.task(conn, Some(kind)) {
            return;
        }
        let id = self.doors.by_client.get(&conn).copied().unwrap_or_default();
        if let Some(task) = self.doors.tasks.get_mut(&id) {
            task.parts.insert(index, own);
        }
        for other in (0..of).filter(|n| *n != index) {
            self.errand(conn, other, request, true);
        }
    }

    /// A client waits from now on. `false`: too many do, and it was told.
    fn task(&mut self, conn: ConnId, kind: Option<Kind>) -> bool {
        if self.doors.tasks.len() >= self.limits.proxy_sessions {
            self.counters.drop("request", "proxy_sessions", 1);
            let text = "too many requests wait for other loops of this node (limits.proxy_sessions)";
            self.respond_crossing(conn, Response::text(503, text).header("Retry-After", "1"));
            return false;
        }
        self.doors.next += 1;
        let id = self.doors.next;
        self.doors.by_client.insert(conn, id);
        let task = Task { client: conn, kind, parts: BTreeMap::new(), open: BTreeSet::new() };
        self.doors.tasks.insert(id, task);
        true
    }

    fn errand(&mut self, conn: ConnId, index: usize, request: &Request, part: bool) {
        let Some(task) = self.doors.by_client.get(&conn).copied() else { return };
        let Some(to) = self.door(index) else { return };
        let mut headers: Vec<(&'static str, String)> = Vec::from_iter(self.letter(conn, part));
        headers.extend(passed(request));
        let ask = Ask {
            // What a HEAD is answered has a length without a body; its own connection leaves the body out.
            method: if request.method == Method::Head { Method::Get } else { request.method },
            host: request.header("host").map_or_else(|| to.to_string(), str::to_owned),
            path: with_query(&request.path, request),
            headers,
            body: request.body.clone(),
        };
        let back = self.dials(Conn::dialling_request(to, ask, Transport::Plain));
        self.doors.errands.insert(back, Errand { task, to: index });
        if let Some(task) = self.doors.tasks.get_mut(&task) {
            task.open.insert(back);
        }
    }

    /// The door of a loop of this process.
    pub(super) fn door(&self, index: usize) -> Option<SocketAddr> {
        self.config.loops.as_ref()?.doors.get(index).copied()
    }

    /// The line by which a client is introduced at a door.
    pub(super) fn letter(&self, conn: ConnId, part: bool) -> Option<(&'static str, String)> {
        let (loops, c) = (self.config.loops.as_ref()?, self.conns.get(&conn)?);
        let local = c.local.unwrap_or_else(|| self.config.http_addr());
        let letter = Letter { peer: c.remote, local, secure: c.service.is_secure(), part };
        Some((LETTER, letter.write(&loops.secret)))
    }

    /// The loop of this process that a node of the cluster is, if it is one and not this.
    pub(super) fn sibling(&self, node: &NodeId) -> Option<usize> {
        let loops = self.config.loops.as_ref()?;
        let (base, _) = self.id.0.rsplit_once('/')?;
        let index: usize = node.0.strip_prefix(base)?.strip_prefix('/')?.parse().ok()?;
        (index < loops.doors.len() && index != loops.index).then_some(index)
    }

    /// Whether an address for nodes is that of a loop of this process. What is said to it leaves neither the host nor the process.
    pub(super) fn is_loop_at(&self, to: SocketAddr) -> bool {
        let Some(loops) = &self.config.loops else { return false };
        let first = usize::from(self.config.cluster.port).saturating_sub(loops.index);
        let ours = [reachable(self.config.bind), self.advertised.private];
        (first..first + loops.doors.len()).contains(&to.port().into()) && ours.contains(&to.ip())
    }

    /// The loop that is the manager, where it is another of this process: its name and its door.
    pub(super) fn manager_loop(&self) -> Option<(NodeId, SocketAddr)> {
        let loops = self.config.loops.as_ref().filter(|l| l.manager && l.index > 0)?;
        let (base, _) = self.id.0.rsplit_once('/')?;
        Some((NodeId(format!("{base}/0")), *loops.doors.first()?))
    }

    /// Another loop answered.
    pub(super) fn door_answered(&mut self, conn: ConnId, response: Response) {
        let Some(Errand { task: id, to }) = self.doors.errands.remove(&conn) else { return };
        let Some(task) = self.doors.tasks.get_mut(&id) else { return };
        task.open.remove(&conn);
        task.parts.insert(to, response);
        if !task.open.is_empty() {
            return;
        }
        let Some(Task { client, kind, mut parts, .. }) = self.doors.remove(id) else { return };
        let whole = match kind {
            None => parts.pop_first().map_or_else(|| Response::new(500), |(_, response)| response),
            Some(kind) => joined::join(kind, parts),
        };
        self.respond(client, whole);
    }

    /// A connection to another loop is gone without an answer.
    pub(super) fn door_gone(&mut self, conn: ConnId, reason: &Reason) {
        let Some(Errand { task, to }) = self.doors.errands.remove(&conn) else { return };
        if let Some(task) = self.doors.tasks.get_mut(&task) {
            task.open.remove(&conn);
        }
        let Some(task) = self.doors.remove(task) else { return };
        let text = format!("loop {to} of this node does not answer: {}", reason.text);
        // While the process ends, one loop is done before another.
        let level = if self.draining { Level::Debug } else { Level::Warn };
        self.log(level, "http", reason.code, text.clone());
        self.respond_crossing(task.client, Response::text(503, text).header("Retry-After", "1"));
        self.end_errands(task.open, &Reason::local("http_done", "the request was given up"));
    }

    /// A client left before its answer.
    pub(super) fn door_client_gone(&mut self, conn: ConnId) {
        let Some(id) = self.doors.by_client.get(&conn).copied() else { return };
        let Some(task) = self.doors.remove(id) else { return };
        self.end_errands(task.open, &Reason::peer("client_gone", "the client left before its answer"));
    }

    fn end_errands(&mut self, open: BTreeSet<ConnId>, reason: &Reason) {
        for conn in open {
            self.end_conn(conn, reason.clone(), Some(true));
        }
    }
}

/// What a node looks at of a request's headers.
pub(super) fn passed(request: &Request) -> impl Iterator<Item = (&'static str, String)> {
    PASSED.iter().filter_map(|(name, named)| Some((*named, request.header(name)?.to_owned())))
}

/// A path with the query that a request has.
pub(super) fn with_query(path: &str, request: &Request) -> String {
    let path = encode_percent(path, "/");
    match &request.query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::router::route;
    use bytes::Bytes;

    fn loops(index: usize, manager: bool) -> Loops {
        let doors = (1..=4).map(|n| ([127, 0, 0, 1], n).into()).collect();
        Loops { index, doors, secret: "secret".to_owned(), manager, made_key: false }
    }

    fn at(index: usize, manager: bool, method: Method, target: &str) -> Whose {
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q.to_owned())));
        let request = Request { method, path: path.to_owned(), query, headers: vec![], body: Bytes::new() };
        whose(&loops(index, manager), &route(&request))
    }

    #[test]
    fn what_follows_on_a_session_is_its_loops() {
        let name = resource(Some(&loops(3, true)), "abcdef".to_owned());
        assert_eq!(name, "03abcdef");
        for path in [format!("/whep-session/{name}"), format!("/live/whip/resource/x/{name}")] {
            assert_eq!(at(1, true, Method::Delete, &path), Whose::Of(3));
            assert_eq!(at(3, true, Method::Patch, &path), Whose::Mine);
        }
        assert_eq!(
            at(1, true, Method::Delete, "/whep-session/ffabcdef"),
            Whose::Mine,
            "there is no such loop"
        );
        assert_eq!(at(1, true, Method::Delete, "/api/v1/sessions/rtmp-14"), Whose::Of(2));
        assert_eq!(at(2, true, Method::Get, "/api/v1/why/rtmp-14"), Whose::Mine);
        assert_eq!(resource(None, "abcdef".to_owned()), "abcdef");
    }

    #[test]
    fn the_manager_is_loop_0_where_the_process_has_it() {
        for path in [
            "/streammanager/api/4.0/event/live/x?action=subscribe",
            "/as/v1/admin/nodegroup/status/default",
            "/api/v1/nodes",
            "/api/v1/placed/live/x",
        ] {
            assert_eq!(at(2, true, Method::Get, path), Whose::Of(0), "{path}");
            assert_eq!(at(0, true, Method::Get, path), Whose::Mine, "{path}");
        }
        assert_eq!(at(2, false, Method::Get, "/api/v1/placed/live/x"), Whose::Mine);
        assert_eq!(at(0, false, Method::Get, "/api/v1/nodes"), Whose::All(Kind::Nodes));
    }

    #[test]
    fn what_is_everybodys_is_gathered_by_loop_0_and_the_rest_is_answered_where_it_comes() {
        for path in ["/metrics", "/healthz", "/readyz", "/api/v1/sessions"] {
            assert!(matches!(at(0, true, Method::Get, path), Whose::All(_)), "{path}");
            assert_eq!(at(1, true, Method::Head, path), Whose::Of(0), "{path}");
        }
        for (method, path) in [
            (Method::Get, "/"),
            (Method::Get, "/watch/live/x"),
            (Method::Post, "/whep/live/x"),
            (Method::Post, "/whip/live/x"),
            (Method::Get, "/flv/live/x.flv"),
            (Method::Options, "/whep-session/03abcdef"),
        ] {
            assert_eq!(at(1, true, method, path), Whose::Mine, "{path}");
        }
    }

    #[test]
    fn a_letter_needs_the_secret_of_the_process() {
        let key = [7; 32];
        let (peer, local) = ("[2001:db8::7]:9".parse().unwrap(), "10.0.0.1:5080".parse().unwrap());
        let letter = Letter { peer, local, secure: true, part: false };
        let text = letter.write("secret");
        assert_eq!(Letter::read(&text, "secret", &key), Some(letter));
        assert_eq!(Letter::read(&text, "other", &key), None);
        for bad in ["", "secret", "secret 1 2 3 4", "secret 127.0.0.1:1 127.0.0.1:2 1 0 0"] {
            assert_eq!(Letter::read(bad, "secret", &key), None, "{bad}");
        }
    }
}
