//! What becomes of a source or destination: when it begins, works, fails, waits and ends.

use super::session::{Input, Output};
use super::{RemoteId, State, Via};
use crate::auth::Grant;
use crate::cluster::Epoch;
use crate::cluster::member;
use crate::error::{Fault, Reason};
use crate::hub::SourceId;
use crate::io::{ConnId, Level};
use crate::machine::Machine;
use crate::media::key::StreamKey;
use crate::node::config::Role;
use crate::node::config::remotes::{Pattern, Target, When};
use crate::node::conns::{Conn, Proto};
use crate::node::session::{Carrier, Part, Protocol, SessionId};
use crate::node::{Alarm, Node};
use crate::rtsp::NO_DATAGRAMS;
use crate::rtsp::client::Ways;
use crate::time::Deadline;
use std::time::Duration;

/// Refusals of a name that say that somebody else has it.
const TAKEN: [&str; 2] = ["name_busy", "takeover_limited"];

impl Node {
    /// The node begins: what is always pulled is claimed.
    pub(in crate::node) fn start_remotes(&mut self) {
        if !self.config.has_role(Role::Origin) {
            return;
        }
        let on_demand = self.remotes.sources.iter().filter(|r| r.when == When::Demand);
        let offers = on_demand.map(|r| r.stream.clone()).collect::<Vec<_>>();
        if !offers.is_empty() {
            self.member.handle(member::Input::Offers(offers), self.now);
        }
        let always: Vec<_> =
            self.remotes.sources.iter().filter(|r| r.when == When::Always).cloned().collect();
        for rule in always {
            let Pattern::One(key) = &rule.pattern else { continue };
            let id = RemoteId::Source(key.clone());
            if !self.remotes.has(&id) {
                self.remotes.add(id.clone(), &rule, &self.limits, &self.rng, self.now);
                // The manager is not there yet.
                self.stand_by(&id, Duration::from_millis(1));
            }
        }
    }

    /// Somebody wants a stream that is not here: if it has a source, that is pulled. Answers whether it is.
    pub(in crate::node) fn want_source(&mut self, key: &StreamKey) -> bool {
        let id = RemoteId::Source(key.clone());
        if self.remotes.has(&id) {
            self.remotes.touch(key);
            return true;
        }
        if self.draining || !self.config.has_role(Role::Origin) || self.pulls.has(key) {
            return false;
        }
        let Some(rule) = self.remotes.rule_of(key).cloned() else { return false };
        if self.remotes.all.len() >= self.limits.remotes {
            self.counters.drop("source", "too_many_remotes", 1);
            return false;
        }
        self.remotes.add(id.clone(), &rule, &self.limits, &self.rng, self.now);
        self.begin_remote(&id);
        true
    }

    /// A stream that is published here has its tracks: it goes where it is to go.
    pub(in crate::node) fn push_stream(&mut self, key: &StreamKey) {
        if self.draining || !self.is_ours(key) {
            return;
        }
        let rules = self.remotes.destinations.iter().enumerate().filter(|(_, r)| r.pattern.fits(key));
        let rules: Vec<_> = rules.map(|(n, r)| (RemoteId::Destination(n, key.clone()), r.clone())).collect();
        for (id, rule) in rules {
            if self.remotes.has(&id) {
                continue;
            }
            if self.remotes.all.len() >= self.limits.remotes {
                self.counters.drop("destination", "too_many_remotes", 1);
                let text = format!("is not pushed to {}: limits.remotes is reached", rule.shown());
                self.log_stream(Level::Warn, key.to_string(), "too_many_remotes", text);
                continue;
            }
            self.remotes.add(id.clone(), &rule, &self.limits, &self.rng, self.now);
            self.begin_remote(&id);
        }
    }

    /// The first step of an attempt.
    fn begin_remote(&mut self, id: &RemoteId) {
        if self.draining {
            return self.stand_by(id, self.standby());
        }
        match id {
            RemoteId::Source(key) => {
                // Also of the node that has a name, another publisher may claim it anew: what is live here stays.
                match self.may_publish(key, "") {
                    Err(reason) if TAKEN.contains(&reason.code) => {
                        return self.source_is_elsewhere(id, &reason);
                    }
                    Err(reason) => return self.remote_failed(id, reason),
                    Ok(()) => {}
                }
                let req = self.next_req();
                self.remotes.claims.insert(req, id.clone());
                self.set_remote(id, State::Claims(req));
                let identity = String::new();
                self.member.handle(member::Input::Claim { req, key: key.clone(), identity }, self.now);
            }
            RemoteId::Destination(_, key) => {
                let live = self.hub.find(key).filter(|s| self.is_ours(key) && self.is_live(*s));
                if live.is_none() {
                    // It begins anew when the stream comes back.
                    return self.forget_remote(id);
                }
                let via = self.remote_via(id);
                if via.len() >= self.limits.relay_hops {
                    let text = format!(
                        "the stream came through {} nodes, the most that it may (limits.relay_hops); it goes round in a \
                         circle",
                        via.len()
                    );
                    return self.remote_failed(id, Reason::local("remote_loop", text));
                }
                self.resolve_remote(id);
            }
        }
    }

    /// The cluster answered a source's claim. Answers whether it was one.
    pub(in crate::node) fn source_claimed(&mut self, req: u64, result: &Result<Epoch, Reason>) -> bool {
        let Some(id) = self.remotes.claims.remove(&req) else { return false };
        let waits = self.remotes.get(&id).is_some_and(|r| r.state == State::Claims(req));
        match result {
            Ok(epoch) if waits => {
                if let Some(remote) = self.remotes.get(&id) {
                    remote.epoch = Some(*epoch);
                }
                self.resolve_remote(&id);
            }
            Ok(epoch) => self.give_back(id.key(), *epoch),
            Err(_) if !waits => {}
            Err(reason) if TAKEN.contains(&reason.code) => self.source_is_elsewhere(&id, reason),
            Err(reason) => self.remote_failed(&id, reason.clone()),
        }
        true
    }

    /// Another node or a publisher has the name.
    fn source_is_elsewhere(&mut self, id: &RemoteId, reason: &Reason) {
        let Some(remote) = self.remotes.get(id) else { return };
        if remote.when == When::Demand {
            let key = id.key().clone();
            self.forget_remote(id);
            if self.hub.find(&key).is_none() {
                self.pull(&key);
            }
            return;
        }
        let news = remote.last.as_ref().is_none_or(|r| r.code != reason.code);
        remote.last = Some(reason.clone());
        if news {
            let text = "the source stands by: another node pulls it, or somebody publishes under its name";
            self.log_stream(Level::Info, id.key().to_string(), "source_standby", text.to_owned());
        }
        self.stand_by(id, self.standby());
    }

    /// A publisher was granted the name of a source that was still being set up.
    pub(in crate::node) fn source_yields(&mut self, key: &StreamKey) {
        let id = RemoteId::Source(key.clone());
        let Some(remote) = self.remotes.get(&id) else { return };
        if matches!(remote.state, State::Works(..)) {
            return;
        }
        // The name is not ours to give back.
        remote.epoch = None;
        let state = std::mem::replace(&mut remote.state, State::Idle);
        let reason = crate::node::publishing::name_busy(key);
        if let State::Connects(conn) = state {
            self.end_conn(conn, reason.clone(), Some(true));
        }
        self.source_is_elsewhere(&id, &reason);
    }

    fn standby(&self) -> Duration {
        Duration::from_millis(self.limits.remote_standby_ms)
    }

    fn stand_by(&mut self, id: &RemoteId, wait: Duration) {
        let until = self.now + wait;
        self.set_remote(id, State::StandsBy(until));
        self.timers
            .set(Alarm::Remote(id.clone()), Deadline::new(until, "a source looks whether it may be pulled"));
    }

    fn set_remote(&mut self, id: &RemoteId, state: State) {
        let now = self.now;
        if let Some(remote) = self.remotes.get(id) {
            (remote.state, remote.since) = (state, now);
        }
    }

    /// Something's time has come.
    pub(in crate::node) fn remote_due(&mut self, id: &RemoteId) {
        let now = self.now;
        let Some(remote) = self.remotes.get(id) else { return };
        if remote.linger.is_some_and(|at| at <= now) {
            return self.end_source(id);
        }
        let (state, when) = (remote.state, remote.when);
        match state {
            State::Waits(at) | State::StandsBy(at) if at <= now => match id {
                RemoteId::Source(key) if when == When::Demand && !self.is_source_wanted(key) => {
                    self.end_source(id);
                }
                _ => self.begin_remote(id),
            },
            State::Resolves(_) | State::Connects(_) => {
                let text = format!(
                    "no connection within {} ms (limits.remote_setup_ms); is the server there, and does a firewall let us \
                     through?",
                    self.limits.remote_setup_ms
                );
                self.remote_failed(id, Reason::peer("remote_setup_timeout", text));
            }
            _ => {}
        }
    }

    /// What the client on a connection says.
    pub(in crate::node) fn remote_said(&mut self, conn: ConnId, said: Output) {
        let Some(Conn { proto: Proto::Remote { id, .. }, .. }) = self.conns.get(&conn) else { return };
        let id = id.clone();
        let session = self.sessions.on(Carrier::Conn(conn));
        match said {
            Output::Send(bytes) => {
                if let Some(session) = session {
                    if let Some(s) = self.sessions.get_mut(session) {
                        s.bytes_out += bytes.len() as u64;
                    }
                    self.viewer_progress(session, bytes.len());
                }
                self.send(conn, bytes);
            }
            Output::Datagram { lane, rtcp, bytes } => self.put_rtsp_datagram(conn, lane, rtcp, &bytes),
            Output::Burst { lane, burst } => self.put_rtsp_burst(conn, lane, &burst),
            Output::UdpWanted { lane } => {
                let granted = self.take_rtsp_ports(conn, lane);
                self.tell_remote(conn, Input::UdpAnswered(granted));
            }
            Output::UdpPeer { lane, ports } => self.rtsp_peer_ports(conn, lane, ports),
            Output::UdpDone => self.release_rtsp_ports(conn),
            Output::Ready => self.remote_ready(&id, conn),
            Output::Media(ingest) => {
                if let Some(session) = session {
                    self.ingest(session, ingest);
                }
            }
            Output::KeyFrameWanted => {
                if let Some(stream) = session.and_then(|s| self.stream_of(s)) {
                    self.hub.request_key_frame(stream, None, self.now);
                }
            }
            Output::Moved(url) => self.remote_moved(&id, Target::of_rtsp(&url)),
            Output::Log(level, text) => match session {
                Some(session) => self.log_session(level, session, "machine", text),
                None => {
                    self.log_stream(level, id.key().to_string(), "remote", format!("{}: {text}", id.what()))
                }
            },
            Output::Closed(reason) => self.end_conn(conn, reason, Some(false)),
        }
    }

    fn remote_moved(&mut self, id: &RemoteId, target: Target) {
        let most = self.limits.remote_redirects;
        let Some(remote) = self.remotes.get(id) else { return };
        remote.redirects += 1;
        if remote.redirects <= most {
            remote.target = target;
        }
    }

    /// The server lets us begin: the source publishes, the destination subscribes.
    fn remote_ready(&mut self, id: &RemoteId, conn: ConnId) {
        let begun = match id {
            RemoteId::Source(key) => self.source_publishes(id, key, conn),
            RemoteId::Destination(_, key) => self.destination_subscribes(key, conn),
        };
        let session = match begun {
            Ok(session) => session,
            Err(reason) => return self.tell_remote(conn, Input::Close(reason)),
        };
        self.set_remote(id, State::Works(conn, session));
        let Some(remote) = self.remotes.get(id) else { return };
        remote.worked += 1;
        remote.redirects = 0;
        remote.last = None;
        let (what, shown) = (id.what(), remote.target.shown.clone());
        self.counters.remote(what, "worked");
        let text = match id {
            RemoteId::Source(_) => format!("pulled from {shown}"),
            RemoteId::Destination(..) => format!("pushed to {shown}"),
        };
        self.log_session(Level::Info, session, "remote_works", text);
        if let RemoteId::Source(key) = id {
            self.remotes.touch(key);
            self.serve_waiting(key);
        }
    }

    fn source_publishes(
        &mut self,
        id: &RemoteId,
        key: &StreamKey,
        conn: ConnId,
    ) -> Result<SessionId, Reason> {
        let Some(epoch) = self.remotes.get(id).and_then(|r| r.epoch) else {
            return Err(Reason::local("remote_gone", "the name is not granted"));
        };
        let (remote, protocol) = self.remote_peer(conn);
        self.drop_pull(key);
        self.share_memory();
        let (part, carrier) = (Part::AsksToPublish, Carrier::Conn(conn));
        let session = self.sessions.add(protocol, part, key.clone(), remote, carrier, self.now);
        self.grant(session, configured("sources"));
        let stream = match self.hub.publish(key, epoch, SourceId(session.0), self.now) {
            Ok(stream) => stream,
            Err(reason) => {
                self.sessions.remove(session, self.now);
                return Err(reason);
            }
        };
        self.forget_first_track(stream, key);
        self.sessions.set_part(session, Part::Publishes { stream, epoch });
        // From here on the name is given back by the stream's own end.
        if let Some(remote) = self.remotes.get(id) {
            remote.epoch = None;
        }
        Ok(session)
    }

    fn destination_subscribes(&mut self, key: &StreamKey, conn: ConnId) -> Result<SessionId, Reason> {
        let gone = || Reason::local("not_live", "the stream ended before it could be pushed");
        let takes = match self.conns.get(&conn).map(|c| &c.proto) {
            Some(Proto::Remote { machine: Some(m), .. }) => m.takes(),
            _ => return Err(gone()),
        };
        self.room(0, 1)?;
        let stream = self.hub.find(key).ok_or_else(gone)?;
        let subscriber = self.hub.subscribe(stream, takes, self.now)?;
        let (remote, protocol) = self.remote_peer(conn);
        let (part, carrier) = (Part::AsksToPlay, Carrier::Conn(conn));
        let session = self.sessions.add(protocol, part, key.clone(), remote, carrier, self.now);
        self.grant(session, configured("destinations"));
        self.viewer_joined(session, stream, subscriber);
        Ok(session)
    }

    fn remote_peer(&self, conn: ConnId) -> (Option<std::net::SocketAddr>, Protocol) {
        let conn = self.conns.get(&conn);
        let rtmp = conn.is_some_and(|c| {
            matches!(&c.proto, Proto::Remote { machine: Some(super::Session::Rtmp(_)), .. })
        });
        (conn.map(|c| c.remote), if rtmp { Protocol::Rtmp } else { Protocol::Rtsp })
    }

    /// A connection to a server is gone.
    pub(in crate::node) fn remote_gone(
        &mut self,
        id: &RemoteId,
        conn: ConnId,
        machine: Option<&super::Session>,
        reason: &Reason,
    ) {
        self.release_rtsp_ports(conn);
        for (why, n) in machine.map(super::Session::drops).unwrap_or_default() {
            self.counters.drop(id.what(), why, n);
        }
        let ours = self
            .remotes
            .get(id)
            .is_some_and(|r| matches!(r.state, State::Connects(c) | State::Works(c, _) if c == conn));
        if ours {
            self.remote_failed(id, reason.clone());
        }
    }

    /// An attempt failed, or what worked ended: it is tried again later.
    pub(super) fn remote_failed(&mut self, id: &RemoteId, reason: Reason) {
        let now = self.now;
        self.timers.cancel(&Alarm::Remote(id.clone()));
        let Some(remote) = self.remotes.get(id) else { return };
        let (state, epoch) = (remote.state, remote.epoch.take());
        let worked = matches!(state, State::Works(..)).then(|| now.since(remote.since));
        // What follows must not be taken for another end of the same attempt.
        remote.state = State::Idle;
        if let State::Connects(conn) | State::Works(conn, _) = state {
            self.end_conn(conn, reason.clone(), Some(true));
        }
        if let Some(epoch) = epoch {
            self.give_back(id.key(), epoch);
        }
        self.counters.ended_as(id.what(), &reason);
        let Some(remote) = self.remotes.get(id) else { return };
        let moved = reason.code == "rtsp_moved" && remote.redirects <= self.limits.remote_redirects;
        let other_way = reason.code == NO_DATAGRAMS && remote.ways != Ways::Tcp;
        if !moved {
            remote.target = remote.home.clone();
            remote.redirects = 0;
        }
        if other_way {
            remote.ways = Ways::Tcp;
        } else if reason.code == "remote_transport" {
            remote.ways = remote.all_ways;
        }
        let wait = match moved || other_way {
            true => Duration::from_millis(1),
            false => remote.backoff.failed(worked, &mut remote.rng),
        };
        let failures = remote.backoff.failures();
        let (shown, when) = (remote.home.shown.clone(), remote.when);
        remote.last = Some(reason.clone());
        (remote.state, remote.since) = (State::Waits(now + wait), now);
        self.timers.set(Alarm::Remote(id.clone()), Deadline::new(now + wait, "a server is tried again"));
        if let RemoteId::Destination(_, key) = id
            && self.hub.find(key).is_none_or(|s| !self.is_ours(key) || !self.is_live(s))
        {
            // There is nothing to push; it begins anew with the stream.
            return self.forget_remote(id);
        }
        let level = if reason.fault == Fault::Peer || failures > 1 { Level::Warn } else { Level::Info };
        let times = if failures > 1 { format!(" ({failures} times in a row)") } else { String::new() };
        let what = id.what();
        let text =
            format!("{what} {shown} failed{times}: {reason}; tried again in {:.1} s", wait.as_secs_f64());
        self.log_stream(level, id.key().to_string(), "remote_failed", text);
        if let RemoteId::Source(key) = id
            && when == When::Demand
        {
            if self.hub.find(key).is_none() && !moved && !other_way {
                let text = format!("{key} cannot be had from its source: {}", reason.text);
                let reason = Reason { text: text.into(), ..reason };
                self.refuse_waiting(key, &reason);
                self.stream_not_found(key, &reason);
            }
            self.remotes.touch(key);
        }
    }

    /// Ends a source that nobody watches.
    fn end_source(&mut self, id: &RemoteId) {
        let reason =
            Reason::local("source_unwatched", "nobody watches; it is pulled again when somebody does");
        let key = id.key().clone();
        // The stream first: it is not to be held for a source that will not come.
        if let Some(stream) = self.hub.find(&key).filter(|_| self.is_ours(&key)) {
            self.hub.end(stream, reason.clone(), self.now);
        }
        self.forget_remote_for(id, &reason);
    }

    /// A source or destination that is not to be tried again.
    pub(super) fn forget_remote(&mut self, id: &RemoteId) {
        self.forget_remote_for(id, &Reason::local("remote_gone", "it is no longer wanted"));
    }

    fn forget_remote_for(&mut self, id: &RemoteId, reason: &Reason) {
        self.timers.cancel(&Alarm::Remote(id.clone()));
        let Some(remote) = self.remotes.all.remove(id) else { return };
        match remote.state {
            State::Works(_, session) => self.end_session(session, reason),
            State::Connects(conn) => self.end_conn(conn, reason.clone(), Some(true)),
            State::Claims(req) if self.member.withdraw(req) => _ = self.remotes.claims.remove(&req),
            _ => {}
        }
        if let Some(epoch) = remote.epoch {
            self.give_back(id.key(), epoch);
        }
        if let RemoteId::Source(key) = id {
            self.refuse_waiting(key, reason);
        }
    }

    /// The node takes nothing new: sources are left to other nodes, destinations go with their streams.
    pub(in crate::node) fn stop_remotes(&mut self) {
        let ids: Vec<RemoteId> = self.remotes.all.keys().cloned().collect();
        let reason = Reason::local("draining", "this node takes nothing new; another may pull the source");
        for id in ids.iter().filter(|id| matches!(id, RemoteId::Source(_))) {
            self.forget_remote_for(id, &reason);
        }
    }

    /// A name was granted to another node, which pushes the stream from now on.
    pub(in crate::node) fn stop_pushing(&mut self, key: &StreamKey) {
        let ids: Vec<RemoteId> = self.remotes.all.keys().cloned().collect();
        for id in ids.iter().filter(|id| matches!(id, RemoteId::Destination(_, k) if k == key)) {
            self.forget_remote(id);
        }
    }

    /// Looks whether sources are still wanted. Answers whether there was anything to look at.
    pub(in crate::node) fn settle_remotes(&mut self) -> bool {
        let mut any = false;
        while let Some(key) = self.remotes.dirty.pop_first() {
            any = true;
            let id = RemoteId::Source(key.clone());
            let wanted = self.is_source_wanted(&key);
            let now = self.now;
            let linger = Duration::from_millis(self.limits.source_linger_ms);
            let Some(remote) = self.remotes.get(&id).filter(|r| r.when == When::Demand) else { continue };
            match (wanted, remote.linger, remote.state) {
                (true, Some(_), State::Works(..) | State::Claims(_)) => {
                    remote.linger = None;
                    self.timers.cancel(&Alarm::Remote(id));
                }
                (true, _, _) => remote.linger = None,
                (false, None, State::Works(..)) => {
                    remote.linger = Some(now + linger);
                    let due = Deadline::new(now + linger, "a source that nobody watches ends");
                    self.timers.set(Alarm::Remote(id), due);
                }
                // What does not work is forgotten when its next try is due, so that a viewer that asks again and again does
                // not have it tried as often.
                (false, ..) => {}
            }
        }
        any
    }

    fn is_source_wanted(&self, key: &StreamKey) -> bool {
        let is_watched = || {
            let stream = self.hub.find(key)?;
            let push =
                |s: SessionId| self.sessions.get(s).is_some_and(crate::node::session::Session::is_push);
            let mut all = self.hub.subscribers(stream);
            all.any(|c| self.sessions.of_subscriber(c).is_some_and(|s| !push(s))).then_some(())
        };
        self.play_waiting.contains_key(key)
            || self.warm.contains(key)
            || self.remotes.serves.iter().any(|s| s.key == *key)
            || self.joining.values().any(|(k, _)| k == key)
            || is_watched().is_some()
    }

    /// Why a publisher or player on a connection is refused: the stream would come back to where it was.
    pub(in crate::node) fn round_trip(&self, via: &Via) -> Option<Reason> {
        via.has(&self.remotes.mark).then(|| {
            let text = "the stream came from this node and would go round in a circle; check sources and destinations \
                        on the way";
            Reason::peer("remote_loop", text)
        })
    }
}

/// The right of a session that the configuration itself asks for.
fn configured(key: &str) -> Grant {
    Grant { rule: format!("{key} in the configuration"), ..Grant::default() }
}
