//! The node as the guard of its own doors: what clients show is handed to the [`Policy`], passwords are verified by the
//! driver, and what a session may do ends when its right does. Who decides is `auth`; in which shape a refusal is told,
//! its protocol.

mod callback;
mod key_set;

use super::elsewhere::Wish;
use super::session::{Carrier, Part, SessionId};
use super::signals::SignalId;
use super::{Alarm, Node};
use crate::auth::attempts::Print;
use crate::auth::callback::{self as outside, Question};
use crate::auth::credentials::Credentials;
use crate::auth::secret::Secret;
use crate::auth::{Action, Ask, Bounds, Decision, From, Grant, Pending, Policy, Refusal, Wait};
use crate::error::{Broken, Reason};
use crate::http::message::Request;
use crate::http::token;
use crate::io::{AskId, ConnId, Level, Output, Service, Work};
use crate::limits::Limits;
use crate::media::key::StreamKey;
use crate::node::config::Config;
use crate::rand::Rng;
use crate::rtsp;
use crate::rtsp::digest::{Algorithm, Challenge, DigestChallenge};
use crate::signalling;
use crate::time::Deadline;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Somebody who wants something, with all that he shows.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) credentials: Credentials,
    /// The name of the publish key that he gave in place of the stream's name.
    pub(super) key: Option<String>,
    pub(super) from: From,
    /// How it comes, for the callback.
    pub(super) protocol: &'static str,
    /// The query of what was asked for. May hold secrets.
    pub(super) query: Secret,
}

/// What goes on once a password was verified, the callback asked, or the keys of tokens fetched.
#[derive(Debug)]
pub(super) enum Then {
    /// A session that asks to publish or play, by the name that it gave.
    Session(SessionId, StreamKey, Asker),
    /// An HTTP request.
    Request(ConnId, Request),
    /// A websocket that is asked for.
    Socket(ConnId, Request),
    /// Something that a client of the websocket dialect wants.
    Signal(SignalId, signalling::Output),
    /// An announcement by RTSP.
    Announced(ConnId, StreamKey, Asker),
    /// A viewer by RTSP who is better served elsewhere.
    Elsewhere(ConnId, Box<Wish>),
    /// A session that runs, about which the callback is asked again.
    Again(SessionId),
}

/// The policy, and what waits for it.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) policy: Policy,
    /// Passwords that are being verified.
    waiting: BTreeMap<AskId, (Pending, Then)>,
    /// Questions that the callback is being asked, and who waits for the answer.
    asking: BTreeMap<Print, (Question, Vec<Then>)>,
    /// Who waits for the key set.
    for_keys: Vec<Then>,
    /// RTSP connections whose announcement was allowed.
    announced: BTreeMap<ConnId, (StreamKey, Grant)>,
    /// What `auth.jwks` held when it was read last.
    key_set: Option<Result<bytes::Bytes, String>>,
    pub(super) reading_key_set: Option<AskId>,
    nonces: Rng,
}

impl Authority {
    pub(super) fn new(config: &Config, limits: &Limits, rng: &Rng) -> Authority {
        let bounds = Bounds {
            checks: limits.auth_checks,
            checks_per_ip: limits.auth_checks_per_ip,
            remember: Duration::from_millis(limits.auth_remember_ms),
            revoked: limits.auth_revoked,
            callback: outside::Bounds {
                questions: limits.auth_callbacks,
                questions_per_ip: limits.auth_callbacks_per_ip,
                remembered: limits.auth_callback_answers,
                allowed_for: Duration::from_millis(limits.auth_callback_allowed_ms),
                refused_for: Duration::from_millis(limits.auth_callback_refused_ms),
            },
        };
        let run_key = rng.fork("authority", 0).bytes();
        let mut policy = Policy::new(&config.auth, &config.cluster.key, run_key, bounds);
        let accepted = &config.cluster.keys_accepted;
        if config.auth.secret.reveal().is_empty() && !accepted.is_empty() {
            policy.set_cluster_keys(std::iter::once(&config.cluster.key).chain(accepted).map(String::as_str));
        }
        Authority {
            policy,
            waiting: BTreeMap::new(),
            asking: BTreeMap::new(),
            for_keys: Vec::new(),
            announced: BTreeMap::new(),
            key_set: None,
            reading_key_set: None,
            nonces: rng.fork("nonces", 0),
        }
    }

    /// Whether it is being seen to what a session may.
    pub(super) fn waits_for(&self, session: SessionId) -> bool {
        let verified = self.waiting.values().map(|(_, then)| then);
        let asked = self.asking.values().flat_map(|(_, thens)| thens);
        verified
            .chain(asked)
            .chain(&self.for_keys)
            .any(|then| matches!(then, Then::Session(id, ..) if *id == session))
    }

    /// The nonce of RTSP digest on a connection: nobody can guess it, and it is good there alone.
    pub(super) fn nonce(&self, conn: ConnId) -> String {
        self.nonces.fork("nonce", conn.0).token(32)
    }
}

impl Node {
    /// Seconds since 1970.
    pub(super) fn wall_s(&self) -> u64 {
        self.wall.wall(self.now).0 / 1_000_000_000
    }

    pub(super) fn decide(&mut self, action: Action, stream: Option<&StreamKey>, asker: &Asker) -> Decision {
        let (now, now_s) = (self.now, self.wall_s());
        let mut shown = asker.credentials.clone();
        // Who logged in at this manager has shown his password.
        let login = shown.token.as_ref().map(|t| token::verify(&self.token_key(), t.reveal(), now_s));
        if let Some(Ok(claims)) = login {
            shown.token = None;
            shown.proven.get_or_insert(claims.sub);
        }
        let (key, query) = (asker.key.as_deref(), asker.query.reveal());
        let (from, protocol) = (asker.from, asker.protocol);
        let ask = Ask { action, stream, credentials: &shown, key, from, protocol, query };
        let decision = self.authority.policy.decide(&ask, now, now_s);
        match &decision {
            Decision::Allow(_) => {}
            Decision::Refuse(refusal) => self.counters.drop("auth", refusal.reason.code, 1),
            Decision::Pending(Wait::Password(_)) => self.counters.drop("auth", "verified_password", 1),
            Decision::Pending(Wait::Callback { .. } | Wait::Keys) => {}
        }
        decision
    }

    /// Sees to what a question waits for; then the rest goes on.
    pub(super) fn verify_then(&mut self, wait: Wait, then: Then) {
        match wait {
            Wait::Password(pending) => {
                self.next_ask += 1;
                let ask = AskId(self.next_ask);
                self.out.push_back(Output::Ask { ask, work: Work::Check(pending.check.clone()) });
                self.authority.waiting.insert(ask, (pending, then));
            }
            Wait::Callback { question, under_way } => self.ask_callback(*question, under_way, Some(then)),
            Wait::Keys => self.keys_for(Some(then)),
        }
    }

    /// Sees to what a question waits for, of somebody who is told to come again.
    pub(super) fn verify_for_later(&mut self, wait: Wait) {
        match wait {
            // The work is for who waits for it.
            Wait::Password(pending) => self.authority.policy.checked(&pending, None, self.now),
            Wait::Callback { question, under_way } => self.ask_callback(*question, under_way, None),
            Wait::Keys => self.keys_for(None),
        }
    }

    /// A password was verified, or could not be.
    pub(super) fn password_checked(&mut self, ask: AskId, right: Result<bool, String>) {
        let Some((pending, then)) = self.authority.waiting.remove(&ask) else { return };
        let failed = right.as_ref().err().cloned();
        self.authority.policy.checked(&pending, right.ok(), self.now);
        if let Some(why) = failed {
            let reason =
                Reason::limit("auth_wait", "passwords cannot be verified now; try again in a second");
            self.log(Level::Warn, "auth", "auth_wait", format!("a password was not verified: {why}"));
            return self.not_now(then, &Refusal { challenge: false, reason });
        }
        self.go_on(then);
    }

    /// What somebody waited for has been seen to.
    fn go_on(&mut self, then: Then) {
        match then {
            Then::Session(session, key, asker) => self.permit_as(session, key, asker),
            Then::Request(conn, request) if self.conns.contains_key(&conn) => self.request(conn, request),
            Then::Socket(conn, request) if self.conns.contains_key(&conn) => self.socket_asked(conn, request),
            // What runs has other ways to go on.
            Then::Request(..) | Then::Socket(..) | Then::Again(_) => {}
            Then::Signal(id, said) => self.signal_again(id, said),
            Then::Announced(conn, key, asker) => self.permit_announced(conn, key, asker),
            Then::Elsewhere(conn, wish) => self.rtsp_asked(conn, *wish),
        }
    }

    fn not_now(&mut self, then: Then, refusal: &Refusal) {
        match then {
            Then::Session(session, ..) => self.not_permitted(session, refusal),
            Then::Again(_) => {}
            Then::Request(conn, request) | Then::Socket(conn, request) => {
                let response = super::gate::refused(&request, refusal, self.wall.wall(self.now));
                self.respond_crossing(conn, response);
            }
            Then::Signal(id, _) => self.signal_not_permitted(id, &refusal.reason),
            Then::Announced(conn, ..) | Then::Elsewhere(conn, _) => self.challenge_rtsp(conn, refusal),
        }
    }

    /// Asks whether a session that was just added may publish or play, and goes on with it.
    pub(super) fn permit(&mut self, session: SessionId, asker: Asker) {
        if let Some(key) = self.sessions.get(session).map(|s| s.key.clone()) {
            self.permit_as(session, key, asker);
        }
    }

    /// As [`Node::permit`], for what the client named so.
    fn permit_as(&mut self, session: SessionId, key: StreamKey, asker: Asker) {
        let Some(s) = self.sessions.get(session) else { return };
        let action = match s.part {
            Part::AsksToPublish => Action::Publish,
            Part::AsksToPlay => Action::Play,
            Part::Publishes { .. } | Part::Plays { .. } => return,
        };
        let decision = self.decide(action, Some(&key), &asker);
        if let Some(s) = self.sessions.get_mut(session) {
            s.key = key.clone();
        }
        match decision {
            Decision::Allow(grant) => self.permitted(session, grant),
            Decision::Refuse(mut refusal) => {
                if action == Action::Publish && asker.key.is_none() && asker.credentials.is_empty() {
                    self.hide_name(session);
                    if let Some(s) = self.sessions.get(session) {
                        let shown = refusal.reason.text.replace(&key.to_string(), &s.key.to_string());
                        refusal.reason.text = shown.into();
                    }
                }
                self.not_permitted(session, &refusal);
            }
            Decision::Pending(wait) => {
                // The callback may know it as a key.
                if action == Action::Publish && matches!(wait, Wait::Callback { .. }) {
                    self.hide_name(session);
                }
                self.verify_then(wait, Then::Session(session, key, asker));
            }
        }
    }

    /// A session has the right that it asked for.
    fn permitted(&mut self, session: SessionId, grant: Grant) {
        let Some(s) = self.sessions.get_mut(session) else { return };
        if let Some(public) = &grant.stream {
            s.key = public.clone();
        }
        let (publishes, key) = (s.is_publisher(), s.key.clone());
        let identity = grant.identity.name();
        self.grant(session, grant);
        let fits =
            if publishes { self.may_publish(&key, &identity) } else { self.no_room().map_or(Ok(()), Err) };
        match (fits, publishes) {
            (Ok(()), true) => self.claim(session),
            (Ok(()), false) => self.find_stream(session),
            (Err(reason), true) => self.refuse_publish(session, &reason),
            (Err(reason), false) => self.refuse_play(session, &reason),
        }
    }

    fn not_permitted(&mut self, session: SessionId, refusal: &Refusal) {
        let Some(s) = self.sessions.get(session) else { return };
        if let Carrier::Conn(conn) = s.carrier
            && refusal.challenge
            && self.is_rtsp(conn)
        {
            let publishes = s.is_publisher();
            let remote = s.remote;
            let from = remote.map(|r| format!(" {r}")).unwrap_or_default();
            let what = if publishes { "publisher" } else { "viewer" };
            let text = format!("{what}{from} is asked who it is: {}", refusal.reason);
            self.log_session(Level::Debug, session, "auth_challenge", text);
            self.sessions.remove(session, self.now);
            return self.challenge_rtsp(conn, refusal);
        }
        if s.is_publisher() {
            self.refuse_publish(session, &refusal.reason);
        } else {
            self.refuse_play(session, &refusal.reason);
        }
    }

    /// Where there are publish keys, a name that was refused may be one with a slip in it, or one that was good before.
    fn hide_name(&mut self, session: SessionId) {
        if self.authority.policy.has_keys()
            && let Some(s) = self.sessions.get_mut(session)
            && let Ok(hidden) = StreamKey::join(s.key.app(), HIDDEN)
        {
            s.key = hidden;
        }
    }

    /// Writes down by which right a session is here, and sees to it that it ends with that.
    pub(super) fn grant(&mut self, session: SessionId, grant: Grant) {
        let Some(s) = self.sessions.get_mut(session) else { return };
        if let Some(ends) = grant.ends_s {
            let now_s = self.wall.wall(self.now).0 / 1_000_000_000;
            let left = Duration::from_secs(ends.saturating_sub(now_s).min(LONGEST_S));
            let at = Deadline::new(self.now + left, "a session's right ends");
            self.timers.set(Alarm::Expires(session), at);
        }
        s.grant = grant;
    }

    /// The right of a session has ended.
    pub(super) fn right_ends(&mut self, session: SessionId) {
        if let Some(question) = self.sessions.get(session).and_then(|s| s.grant.again.clone()) {
            return self.ask_again(session, *question);
        }
        let reason = Reason::peer(
            "auth_expired",
            "the token by which this session came has expired; come again with another",
        );
        self.end_whatever(session, &reason);
    }

    fn end_whatever(&mut self, session: SessionId, reason: &Reason) {
        self.end_session(session, reason);
    }

    /// Refuses a name from now on, and ends what it runs here. Answers how many sessions that were.
    ///
    /// # Errors
    /// A sentence if too many are revoked already.
    pub(super) fn revoke(&mut self, name: &str) -> Result<usize, String> {
        self.authority.policy.revoke(name)?;
        let of = |s: &&super::session::Session| s.grant.identity.is_named(name);
        let ended: Vec<SessionId> = self.sessions.iter().filter(of).map(|s| s.id).collect();
        let reason =
            Reason::local("auth_revoked", "an operator revoked the right by which this session came");
        for session in &ended {
            self.end_whatever(*session, &reason);
        }
        self.authority.announced.retain(|_, (_, grant)| !grant.identity.is_named(name));
        Ok(ended.len())
    }

    /// Where the peer of a connection is.
    pub(super) fn conn_from(&self, conn: ConnId) -> From {
        let Some(c) = self.conns.get(&conn) else {
            return From { ip: IpAddr::from([0, 0, 0, 0]), local: false, secure: false };
        };
        let ip = c.remote.ip();
        let local = ip.to_canonical().is_loopback();
        From { ip, local, secure: local || c.service.is_secure() }
    }

    /// Where the client of a request is: what this cluster's manager carried comes from whom it says.
    pub(super) fn request_from(&self, conn: ConnId, request: &Request) -> From {
        let direct = self.conn_from(conn);
        let Some(forwarded) = request.header("x-forwarded-for") else {
            return From { local: direct.local && request.header("forwarded").is_none(), ..direct };
        };
        // A manager in this process comes to the door, and says nothing here.
        let manager = self.manager_conn.filter(|_| self.manager_loop().is_none());
        let manager = manager.and_then(|c| self.conns.get(&c)).map(|c| c.remote.ip().to_canonical());
        match forwarded.trim().parse::<IpAddr>() {
            Ok(ip) if manager == Some(direct.ip.to_canonical()) => {
                let local = ip.to_canonical().is_loopback();
                let secure = local || request.header("x-forwarded-proto") == Some("https");
                From { ip, local, secure }
            }
            // A proxy of the operator's: what comes through it is not this host's.
            _ => From { local: false, ..direct },
        }
    }

    /// What the client of a connection shows in the query of what it asks for, and in an `Authorization` of Basic or Bearer.
    pub(super) fn asker(&self, conn: ConnId, query: &str, header: Option<&str>) -> Asker {
        let mut credentials = Credentials::default();
        if let Some(header) = header {
            credentials.add_header(header);
        }
        credentials.add_query(query);
        let protocol = match self.conns.get(&conn).map(|c| c.service) {
            Some(Service::Rtmp | Service::Rtmps) => "rtmp",
            Some(Service::Rtsp | Service::Rtsps) => "rtsp",
            _ => "http",
        };
        Asker { credentials, key: None, from: self.conn_from(conn), protocol, query: Secret::new(query) }
    }

    /// The stream that a publisher means, which he may have named by a publish key.
    pub(super) fn named_by(&self, key: StreamKey, asker: &mut Asker) -> StreamKey {
        let (public, name) = self.authority.policy.public(&key);
        if name.is_some() {
            asker.key = name;
        }
        public
    }

    /// An announcement by RTSP: whether it may be published is asked before a word of it is read.
    pub(super) fn rtsp_announced(&mut self, conn: ConnId, key: StreamKey, mut asker: Asker) {
        let key = self.named_by(key, &mut asker);
        self.permit_announced(conn, key, asker);
    }

    fn permit_announced(&mut self, conn: ConnId, key: StreamKey, asker: Asker) {
        if !self.conns.contains_key(&conn) {
            return;
        }
        match self.decide(Action::Publish, Some(&key), &asker) {
            Decision::Allow(grant) => {
                self.authority.announced.insert(conn, (key, grant));
                self.tell_rtsp(conn, rtsp::server::Input::AnnounceAccepted);
            }
            Decision::Refuse(refusal) => self.refuse_rtsp(conn, "publisher", refusal),
            Decision::Pending(pending) => self.verify_then(pending, Then::Announced(conn, key, asker)),
        }
    }

    /// Refuses an RTSP client that has no session yet, or asks who it is.
    pub(super) fn refuse_rtsp(&mut self, conn: ConnId, what: &str, refusal: Refusal) {
        if refusal.challenge {
            return self.challenge_rtsp(conn, &refusal);
        }
        let remote = self.conns.get(&conn).map(|c| c.remote.to_string()).unwrap_or_default();
        let text = format!("{what} {remote} refused: {}", refusal.reason);
        self.log(Level::Warn, "rtsp", refusal.reason.code, text);
        self.tell_rtsp(conn, rtsp::server::Input::PublishRefused(refusal.reason));
    }

    /// The right by which a connection announced what it wants to publish now.
    pub(super) fn announced_grant(&mut self, conn: ConnId) -> Option<(StreamKey, Grant)> {
        self.authority.announced.remove(&conn)
    }

    /// A publisher whose announcement was allowed wants to publish.
    pub(super) fn permit_as_announced(&mut self, session: SessionId, grant: Grant) {
        self.permitted(session, grant);
    }

    /// Asks an RTSP client who it is.
    pub(super) fn challenge_rtsp(&mut self, conn: ConnId, refusal: &Refusal) {
        let basic = self.conn_from(conn).secure || self.config.auth.clear_passwords;
        let realm = &self.config.auth.realm;
        let mut all = Vec::new();
        for algorithm in self.authority.policy.digests().filter_map(Algorithm::parse) {
            let (realm, nonce) = (realm.clone(), self.authority.nonce(conn));
            let digest = DigestChallenge { realm, nonce, opaque: None, algorithm, qop: false, stale: false };
            all.push(Challenge::Digest(digest));
        }
        if basic {
            all.push(Challenge::Basic { realm: realm.clone() });
        }
        let challenges =
            if refusal.challenge { all.iter().map(Challenge::header).collect() } else { Vec::new() };
        let reason = refusal.reason.clone();
        self.tell_rtsp(conn, rtsp::server::Input::Unauthorized { challenges, reason });
    }

    /// A connection is gone.
    pub(super) fn authority_conn_gone(&mut self, conn: ConnId) {
        self.authority.announced.remove(&conn);
    }

    /// Whether the tables fit what there is.
    pub(super) fn verify_authority(&self) -> Result<(), Broken> {
        let a = &self.authority;
        let (waiting, under_way) = (a.waiting.len(), a.policy.under_way());
        Broken::unless(waiting == under_way, "S7", || {
            format!("{waiting} wait for passwords to be verified, {under_way} are being verified")
        })?;
        let (asking, asked, fetched) =
            (a.asking.len(), a.policy.questions_under_way(), self.fetches.callbacks());
        Broken::unless(asking == asked && asked == fetched, "S7", || {
            format!("{asking} questions to the callback, {asked} count as asked, {fetched} are on their way")
        })?;
        Broken::unless(a.for_keys.is_empty() || self.fetches.key_set(), "S7", || {
            format!("{} wait for a key set that nobody fetches", a.for_keys.len())
        })?;
        let gone = a.announced.keys().find(|c| !self.conns.contains_key(c));
        Broken::unless(gone.is_none(), "S7", || format!("an announcement of {gone:?}, which is gone"))?;
        // S8: who publishes or plays has the right to.
        let without = self.sessions.iter().find(|s| {
            let began = matches!(s.part, Part::Publishes { .. } | Part::Plays { .. });
            let asked = s.protocol != super::session::Protocol::Relay && a.policy.is_on();
            began && asked && s.grant.rule.is_empty()
        });
        Broken::unless(without.is_none(), "S8", || {
            format!("session {} has no right to be here", without.map_or(String::new(), ToString::to_string))
        })
    }
}

/// No timer is set for later than that, ten years; an operator may write any number in a token.
const LONGEST_S: u64 = 315_360_000;

/// What stands in logs in place of a name that may be a secret.
pub(super) const HIDDEN: &str = "~hidden~";
