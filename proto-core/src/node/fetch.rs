//! Requests of the node's own to HTTP servers that its operator named: look the name up, trust, dial, ask, and tell
//! whoever wanted it what came, within one time for all of it.

use super::conns::{Conn, Transport};
use super::links::Asked;
use super::{Alarm, Node};
use crate::auth::attempts::Print;
use crate::error::{Broken, Reason, quote};
use crate::http::client::Ask;
use crate::http::message::{Method, Response};
use crate::http::url::HttpUrl;
use crate::io::{Answer, AskId, ConnId, Output, Work};
use crate::time::{Deadline, Time};
use crate::tls;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Who wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A question to the callback.
    Callback(Print),
    /// The key set of tokens.
    KeySet,
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The host's name is looked up.
    Resolves(AskId),
    /// The authorities are read.
    Trusts(AskId),
    /// The server is dialled, or asked if `true`.
    Dialled(ConnId, bool),
}

#[derive(Debug)]
struct Fetch {
    purpose: Purpose,
    url: HttpUrl,
    ask: Ask,
    stage: Stage,
    /// Addresses that were not tried.
    left: Vec<SocketAddr>,
}

/// All requests that are under way, and what is known of servers.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    next: u64,
    all: BTreeMap<u64, Fetch>,
    by_ask: BTreeMap<AskId, u64>,
    by_conn: BTreeMap<ConnId, u64>,
    /// Addresses of hosts, until when. There are as many as the configuration names.
    addresses: BTreeMap<(String, u16), (Vec<SocketAddr>, Time)>,
    connector: Option<(tls::Connector, Time)>,
}

impl Fetches {
    /// Whether a request is under way.
    pub(super) fn has(&self, id: u64) -> bool {
        self.all.contains_key(&id)
    }

    /// How many questions to the callback are under way.
    pub(super) fn callbacks(&self) -> usize {
        self.all.values().filter(|f| f.purpose != Purpose::KeySet).count()
    }

    /// Whether the key set is being fetched.
    pub(super) fn key_set(&self) -> bool {
        self.all.values().any(|f| f.purpose == Purpose::KeySet)
    }

    /// A connection stands.
    pub(super) fn connected(&mut self, conn: ConnId) {
        if let Some(f) = self.by_conn.get(&conn).and_then(|id| self.all.get_mut(id)) {
            f.stage = Stage::Dialled(conn, true);
        }
    }

    fn remove(&mut self, id: u64) -> Option<Fetch> {
        let f = self.all.remove(&id)?;
        match f.stage {
            Stage::Resolves(ask) | Stage::Trusts(ask) => _ = self.by_ask.remove(&ask),
            Stage::Dialled(conn, _) => _ = self.by_conn.remove(&conn),
        }
        Some(f)
    }
}

impl Node {
    /// Asks a server something. What comes of it is told to `purpose` in a later turn, within `limits.auth_callback_ms`.
    pub(super) fn fetch(
        &mut self,
        purpose: Purpose,
        url: &HttpUrl,
        method: Method,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    ) {
        let host = url.authority();
        let ask = Ask { method, host, path: url.path_query.clone(), headers, body };
        self.fetches.next += 1;
        let id = self.fetches.next;
        let until = self.now + Duration::from_millis(self.limits.auth_callback_ms);
        self.timers.set(Alarm::Fetch(id), Deadline::new(until, "a server is asked by HTTP"));
        let place = (url.host.clone(), url.port);
        let now = self.now;
        let known = self.fetches.addresses.get(&place).filter(|(_, until)| now < *until);
        let addresses = match (url.host.parse::<IpAddr>(), known) {
            (Ok(ip), _) => Some(vec![SocketAddr::new(ip, url.port)]),
            (Err(_), Some((known, _))) => Some(known.clone()),
            (Err(_), None) => None,
        };
        let (host, port) = place;
        let wanted = addresses.is_none().then_some(Work::Resolve { host, port });
        let left = addresses.unwrap_or_default();
        let nothing = AskId(0);
        let stage = Stage::Resolves(nothing);
        self.fetches.all.insert(id, Fetch { purpose, url: url.clone(), ask, stage, left });
        match wanted {
            Some(work) => self.fetch_asks(id, work, Stage::Resolves),
            None => self.fetch_goes_on(id),
        }
    }

    fn fetch_asks(&mut self, id: u64, work: Work, stage: fn(AskId) -> Stage) {
        self.next_ask += 1;
        let ask = AskId(self.next_ask);
        let Some(f) = self.fetches.all.get_mut(&id) else { return };
        f.stage = stage(ask);
        self.fetches.by_ask.insert(ask, id);
        self.asks.insert(ask, Asked::Fetch);
        self.out.push_back(Output::Ask { ask, work });
    }

    /// The driver looked a name up, or read the authorities.
    pub(super) fn fetch_told(&mut self, ask: AskId, answer: Answer) {
        let Some(id) = self.fetches.by_ask.remove(&ask) else { return };
        let until = self.now + Duration::from_millis(self.limits.fetch_known_ms);
        let Some(f) = self.fetches.all.get_mut(&id) else { return };
        let failed = match answer {
            Answer::Resolved(Ok(list)) if !list.is_empty() => {
                f.left = list.clone();
                let place = (f.url.host.clone(), f.url.port);
                self.fetches.addresses.insert(place, (list, until));
                None
            }
            Answer::Resolved(Ok(_)) => Some("its name has no address".to_owned()),
            Answer::Resolved(Err(why)) => Some(format!("its name cannot be looked up: {}", quote(&why))),
            Answer::File(found) => {
                let path = &self.config.tls.authorities;
                match found.and_then(|pem| self.tls.connector(path, &pem)) {
                    Ok(connector) => {
                        self.fetches.connector = Some((connector, until));
                        None
                    }
                    Err(why) => Some(why),
                }
            }
            _ => return,
        };
        match failed {
            None => self.fetch_goes_on(id),
            Some(why) => self.fetch_ends(id, Err(Reason::local("fetch_failed", why))),
        }
    }

    /// Dials the next address, once it is known whom to trust.
    fn fetch_goes_on(&mut self, id: u64) {
        let now = self.now;
        let Some(f) = self.fetches.all.get_mut(&id) else { return };
        let transport = if f.url.tls {
            let known = self.fetches.connector.as_ref().filter(|(_, until)| now < *until);
            let Some((connector, _)) = known else {
                let path = self.config.tls.authorities.clone();
                return self.fetch_asks(id, Work::ReadFile { path }, Stage::Trusts);
            };
            match tls::Session::client(connector.config(), &f.url.host, &self.limits, now) {
                Ok(session) => Transport::Tls(Box::new(session)),
                Err(reason) => return self.fetch_ends(id, Err(reason)),
            }
        } else {
            Transport::Plain
        };
        if f.left.is_empty() {
            return self.fetch_ends(id, Err(Reason::local("fetch_failed", "no address of it is left")));
        }
        let to = f.left.remove(0);
        let ask = f.ask.clone();
        let conn = self.dials(Conn::dialling_request(to, ask, transport));
        self.fetches.by_conn.insert(conn, id);
        if let Some(f) = self.fetches.all.get_mut(&id) {
            f.stage = Stage::Dialled(conn, false);
        }
    }

    /// A server answered. `false`: it is no request of these.
    pub(super) fn fetch_answered(&mut self, conn: ConnId, response: Response) {
        if let Some(id) = self.fetches.by_conn.get(&conn).copied() {
            self.fetch_ends(id, Ok(response));
        }
    }

    /// A connection is gone without an answer. Another address of the server may do better, if it could not be reached.
    pub(super) fn fetch_gone(&mut self, conn: ConnId, reason: &Reason) {
        let Some(id) = self.fetches.by_conn.remove(&conn) else { return };
        let Some(f) = self.fetches.all.get(&id) else { return };
        let place = (f.url.host.clone(), f.url.port);
        if f.stage == Stage::Dialled(conn, false) {
            if !f.left.is_empty() {
                // The next request begins with the next one.
                if let Some((known, _)) = self.fetches.addresses.get_mut(&place) {
                    known.rotate_left(1);
                }
                return self.fetch_goes_on(id);
            }
            self.fetches.addresses.remove(&place);
        }
        self.fetch_ends(id, Err(reason.clone()));
    }

    /// A request took too long.
    pub(super) fn fetch_due(&mut self, id: u64) {
        let Some(f) = self.fetches.all.get(&id) else { return };
        let what = match f.stage {
            Stage::Resolves(_) => "its name was not looked up",
            Stage::Trusts(_) => "the authorities (tls.authorities) were not read",
            Stage::Dialled(_, false) => "it was not reached",
            Stage::Dialled(_, true) => "it did not answer",
        };
        let text = format!("{what} within {} ms (limits.auth_callback_ms)", self.limits.auth_callback_ms);
        self.fetch_ends(id, Err(Reason::limit("fetch_timeout", text)));
    }

    fn fetch_ends(&mut self, id: u64, result: Result<Response, Reason>) {
        let Some(f) = self.fetches.remove(id) else { return };
        self.timers.cancel(&Alarm::Fetch(id));
        if let (Stage::Dialled(conn, _), Err(reason)) = (f.stage, &result) {
            self.end_conn(conn, reason.clone(), Some(true));
        }
        match f.purpose {
            Purpose::Callback(print) => self.callback_answered(&print, result),
            Purpose::KeySet => self.key_set_fetched(result),
        }
    }

    /// Whether the tables agree.
    pub(super) fn verify_fetches(&self) -> Result<(), Broken> {
        let f = &self.fetches;
        let gone = f.by_conn.keys().find(|conn| !self.conns.contains_key(conn));
        let known = f.by_ask.values().chain(f.by_conn.values()).filter(|id| f.all.contains_key(id)).count();
        Broken::unless(gone.is_none() && known == f.all.len(), "S7", || {
            format!("{} requests to other servers, {known} of them known; {gone:?} is gone", f.all.len())
        })
    }
}
