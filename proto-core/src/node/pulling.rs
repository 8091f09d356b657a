//! Streams that this node pulls from others: one pull per stream, however many viewers it has here.

use super::links::LinkUse;
use super::{Alarm, Node};
use crate::cluster::Epoch;
use crate::cluster::member::{self, Source};
use crate::cluster::relay::PullClient;
use crate::cluster::relay::client::{Input, Output};
use crate::error::Reason;
use crate::guard::{guard, must, strike};
use crate::hub::{Relayed, SourceId, StreamId};
use crate::io::{ConnId, Level};
use crate::machine::Machine;
use crate::media::frame::{FrameKind, Ingest};
use crate::media::key::StreamKey;
use crate::media::track::TrackId;
use crate::simulation::Bug;
use crate::wire::link::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// One pull and where its frames go.
pub(super) struct Pull {
    pub(super) client: PullClient,
    /// The link that it wants or has.
    pub(super) addr: Option<SocketAddr>,
    /// Its place in the hub, while frames come.
    pub(super) feeds: Option<(StreamId, SourceId, Epoch)>,
    pub(super) wanted: bool,
    /// Frames that it handed on: into the hub, or refused for a reason that was counted.
    pub(super) fed: u64,
    /// How often its machine was told something.
    told: u64,
}

/// Tells pulls from connections where a simulation chooses one.
const STRUCK: u64 = 1 << 61;

/// All pulls of a node, and the links that they share.
#[derive(Default)]
pub(super) struct Pulls {
    next: u64,
    pub(super) by_key: BTreeMap<StreamKey, Pull>,
    pub(super) by_id: BTreeMap<u64, StreamKey>,
    pub(super) by_source: BTreeMap<SourceId, StreamKey>,
    pub(super) locates: BTreeMap<u64, StreamKey>,
    dirty: BTreeSet<StreamKey>,
    pub(super) links: BTreeMap<SocketAddr, ConnId>,
}

impl Pulls {
    /// Whether a stream is pulled.
    pub(super) fn has(&self, key: &StreamKey) -> bool {
        self.by_key.contains_key(key)
    }

    /// How many streams are pulled or looked for.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// How many nodes the frames of a pulled stream come through now; 0 while none come.
    pub(super) fn hops(&self, key: &StreamKey) -> u32 {
        let path = self.by_key.get(key).filter(|p| p.feeds.is_some()).map_or(0, |p| p.client.path().len());
        u32::try_from(path).unwrap_or(u32::MAX)
    }

    /// The nodes that a pulled stream came through, the origin first; empty for a stream that is not pulled.
    pub(super) fn path(&self, key: &StreamKey) -> &[crate::cluster::NodeId] {
        self.by_key.get(key).map_or(&[], |p| p.client.path())
    }

    /// Something about a stream's viewers changed: its pull is to be looked at before the turn ends.
    pub(super) fn touch(&mut self, key: &StreamKey) {
        if self.by_key.contains_key(key) {
            self.dirty.insert(key.clone());
        }
    }
}

impl Node {
    /// Something about a stream's viewers changed: whoever brings it here looks whether it is still wanted.
    pub(super) fn touch_viewers(&mut self, key: &StreamKey) {
        self.pulls.touch(key);
        self.remotes.touch(key);
    }

    /// Has a stream pulled, if it is not already.
    pub(super) fn pull(&mut self, key: &StreamKey) {
        if !self.pulls.has(key) {
            // Viewers choose the names: what they can make this node look for is bounded like what it may carry.
            if self.pulls.len() >= self.limits.streams {
                self.counters.drop("pull", "too_many_pulls", 1);
                let text = format!(
                    "this node pulls or looks for {} streams, its limit (limits.streams); try another node or later",
                    self.pulls.len()
                );
                self.stream_not_found(key, &Reason::limit("too_many_pulls", text));
                return;
            }
            if let Err(reason) = self.room(usize::from(self.hub.find(key).is_none()), 0) {
                self.counters.drop("pull", reason.code, 1);
                return self.stream_not_found(key, &reason);
            }
            self.pulls.next += 1;
            let id = self.pulls.next;
            let rng = self.rng.fork("pull", id);
            let client =
                PullClient::new(id, key.clone(), self.id.clone(), self.limits.clone(), rng, self.now);
            self.pulls.by_id.insert(id, key.clone());
            self.pulls
                .by_key
                .insert(key.clone(), Pull { client, addr: None, feeds: None, wanted: true, fed: 0, told: 0 });
        }
        self.touch_viewers(key);
    }

    /// This node becomes the stream's origin: what it pulled of it is no longer wanted.
    pub(super) fn drop_pull(&mut self, key: &StreamKey) {
        self.not_warm(key);
        let Some(pull) = self.forget_pull(key) else { return };
        if pull.client.is_pulling()
            && let Some(conn) = pull.addr.and_then(|a| self.pulls.links.get(&a)).copied()
        {
            self.send_link(conn, Message::CancelPull { pull: pull.client.pull() });
        }
        if let Some((stream, source, _)) = pull.feeds {
            self.hub.unpublish(stream, source, self.now);
        }
    }

    fn forget_pull(&mut self, key: &StreamKey) -> Option<Pull> {
        let pull = self.pulls.by_key.remove(key)?;
        self.pulls.by_id.remove(&PullClient::id_of(pull.client.pull()));
        if let Some((_, source, _)) = &pull.feeds {
            self.pulls.by_source.remove(source);
        }
        self.pulls.locates.retain(|_, k| k != key);
        self.pulls.dirty.remove(key);
        self.timers.cancel(&Alarm::Pull(key.clone()));
        Some(pull)
    }

    fn tell_pull(&mut self, key: &StreamKey, input: Input) {
        let now = self.now;
        let switches = self.limits.simulation;
        let Some(pull) = self.pulls.by_key.get_mut(key) else { return };
        pull.told += 1;
        let (id, told) = (pull.client.pull() | STRUCK, pull.told);
        let done = guard(|| {
            strike(switches, id, told);
            pull.client.handle(input, now);
        });
        match done {
            Ok(()) => {
                self.pulls.dirty.insert(key.clone());
            }
            Err(reason) => self.pull_broke(key, reason),
        }
    }

    /// A pull's machine has a defect: the pull is over and no other. Viewers ask again and get a new one.
    fn pull_broke(&mut self, key: &StreamKey, reason: Reason) {
        self.log_stream(Level::Error, key.to_string(), reason.code, format!("the pull ended: {reason}"));
        self.counters.ended_as("pull", &reason);
        self.end_pull(key, &reason);
    }

    fn end_pull(&mut self, key: &StreamKey, reason: &Reason) {
        self.not_warm(key);
        let stream = self.hub.find(key).filter(|_| !self.is_ours(key));
        // Nothing will come any more: a newcomer must not be left with what remains, it has to be pulled anew.
        if self.forget_pull(key).is_some()
            && let Some(stream) = stream
        {
            self.hub.end(stream, reason.clone(), self.now);
        }
        self.stream_not_found(key, reason);
    }

    pub(super) fn tick_pull(&mut self, key: &StreamKey) {
        self.tell_pull(key, Input::Tick);
    }

    /// The member answered where a stream is.
    pub(super) fn located(&mut self, req: u64, result: Result<Source, Reason>, live: bool) {
        if self.signal_located(req, &result, live) {
            return;
        }
        if let Some(key) = self.pulls.locates.remove(&req) {
            self.tell_pull(&key, Input::Located(result));
        }
    }

    /// A stream moved to another origin or epoch.
    pub(super) fn moved(&mut self, key: &StreamKey, source: Source) {
        self.tell_pull(key, Input::Moved(source));
    }

    pub(super) fn origin_up(&mut self, addr: SocketAddr, _conn: ConnId) {
        for key in self.pulls_over(addr) {
            self.tell_pull(&key, Input::LinkUp);
        }
    }

    pub(super) fn origin_gone(&mut self, addr: SocketAddr, conn: ConnId, reason: &Reason) {
        if self.pulls.links.get(&addr) != Some(&conn) {
            return;
        }
        self.pulls.links.remove(&addr);
        self.log(Level::Warn, "link", "link_down", format!("link {conn} to origin {addr} ended: {reason}"));
        for key in self.pulls_over(addr) {
            self.tell_pull(&key, Input::LinkDown(reason.clone()));
        }
    }

    fn pulls_over(&self, addr: SocketAddr) -> Vec<StreamKey> {
        self.pulls.by_key.iter().filter(|(_, p)| p.addr == Some(addr)).map(|(k, _)| k.clone()).collect()
    }

    /// Frames of a pull were given up on their way.
    pub(super) fn pull_lost(&mut self, conn: ConnId, pull: u64, track: TrackId, frames: u64, bytes: u64) {
        if let Some(key) = self.pull_over(conn, pull) {
            self.tell_pull(&key, Input::Lost { track, frames, bytes });
        }
    }

    /// The stream that is pulled under that number on that link, if it still is.
    fn pull_over(&self, conn: ConnId, pull: u64) -> Option<StreamKey> {
        let key = self.pulls.by_id.get(&PullClient::id_of(pull)).cloned();
        key.filter(|k| {
            self.pulls.by_key.get(k).is_some_and(|p| {
                p.client.is_for(pull) && p.addr.and_then(|a| self.pulls.links.get(&a)) == Some(&conn)
            })
        })
    }

    /// An origin said something about a pull.
    pub(super) fn pulled(&mut self, conn: ConnId, message: Message) {
        let pull = match &message {
            Message::Tracks { pull, .. }
            | Message::SourceAway { pull }
            | Message::SourceBack { pull }
            | Message::End { pull, .. } => *pull,
            Message::Frame(frame) => frame.pull,
            _ => {
                self.counters.drop("message", "unexpected", 1);
                return;
            }
        };
        match self.pull_over(conn, pull) {
            Some(key) => self.tell_pull(&key, Input::Message(message)),
            None => self.counters.drop("message", "old_pull", 1),
        }
    }

    /// A viewer needs a key frame of a pulled stream. Answers whether the source is a pull.
    pub(super) fn pull_key_wanted(&mut self, source: SourceId, track: Option<TrackId>) -> bool {
        match self.pulls.by_source.get(&source).cloned() {
            Some(key) => {
                self.tell_pull(&key, Input::KeyWanted(track));
                true
            }
            None => false,
        }
    }

    /// A pull's place in the hub was taken by another source.
    pub(super) fn pull_displaced(&mut self, source: SourceId) -> bool {
        match self.pulls.by_source.remove(&source) {
            Some(key) => {
                if let Some(pull) = self.pulls.by_key.get_mut(&key)
                    && pull.feeds.is_some_and(|(_, s, _)| s == source)
                {
                    pull.feeds = None;
                }
                true
            }
            None => false,
        }
    }

    /// Carries what the pulls say. Answers whether there was anything.
    pub(super) fn settle_pulls(&mut self) -> bool {
        let mut any = false;
        while let Some(key) = self.pulls.dirty.pop_first() {
            any = true;
            self.say_whether_wanted(&key);
            let mut tracks = false;
            while let Some(said) = self.pulls.by_key.get_mut(&key).and_then(|p| p.client.poll()) {
                tracks |= matches!(&said, Output::Ingest { ingest: Ingest::Config { .. }, .. });
                self.pull_said(&key, said);
            }
            if tracks {
                // Of all that came at once: whoever waits is told how many renditions there are.
                self.stream_has_tracks(&key);
            }
            let deadline = self.pulls.by_key.get(&key).and_then(|p| p.client.deadline());
            self.timers.update(Alarm::Pull(key), deadline);
        }
        any
    }

    fn say_whether_wanted(&mut self, key: &StreamKey) {
        let watched = self.hub.find(key).is_some_and(|s| self.hub.subscribers(s).next().is_some());
        let wanted = watched
            || self.warm.contains(key)
            || self.play_waiting.contains_key(key)
            || self.joining.values().any(|(k, _)| k == key);
        let now = self.now;
        if let Some(pull) = self.pulls.by_key.get_mut(key)
            && pull.wanted != wanted
        {
            pull.wanted = wanted;
            pull.client.handle(Input::Wanted(wanted), now);
        }
    }

    fn pull_said(&mut self, key: &StreamKey, said: Output) {
        match said {
            Output::Locate => {
                let req = self.next_req();
                self.pulls.locates.insert(req, key.clone());
                let direct = self.pulls.by_key.get(key).is_some_and(|p| p.client.wants_origin());
                self.member.handle(member::Input::Locate { req, key: key.clone(), direct }, self.now);
            }
            Output::Connect { node, addr } => self.connect_pull(key, &node, addr),
            Output::Send(message) => {
                let conn =
                    self.pulls.by_key.get(key).and_then(|p| p.addr).and_then(|a| self.pulls.links.get(&a));
                if let Some(conn) = conn.copied() {
                    self.send_link(conn, message);
                }
            }
            Output::Ingest { epoch, seq, after, ingest } => {
                self.feed(key, epoch, Relayed { seq, after }, ingest);
            }
            Output::Away => {
                let feeds = self.pulls.by_key.get_mut(key).and_then(|p| p.feeds.take());
                if let Some((stream, source, _)) = feeds {
                    self.pulls.by_source.remove(&source);
                    self.hub.unpublish(stream, source, self.now);
                }
            }
            // The place in the hub is taken again with the next frame.
            Output::Back => {}
            Output::Unavailable(reason) => {
                if self.hub.find(key).is_none_or(|s| self.hub.tracks(s).is_empty()) {
                    self.stream_not_found(key, &reason);
                }
            }
            Output::Ended(reason) => {
                // Of a pull that brought nothing, those who asked for it have been told.
                let stream = self.hub.find(key).filter(|_| !self.is_ours(key));
                let level = if stream.is_some() { Level::Info } else { Level::Debug };
                self.log_stream(level, key.to_string(), "pull_ended", format!("no longer pulled: {reason}"));
                self.end_pull(key, &reason);
            }
            Output::Log(level, text) => self.log_stream(level, key.to_string(), "pull", text),
        }
    }

    fn connect_pull(&mut self, key: &StreamKey, node: &crate::cluster::NodeId, addr: SocketAddr) {
        let first = self.pulls.by_key.get(key).and_then(|p| p.addr);
        let first = first.filter(|_| self.limits.simulation.planted(Bug::RetryAsksFirstOrigin));
        let addr = first.unwrap_or(addr);
        if let Some(pull) = self.pulls.by_key.get_mut(key) {
            pull.addr = Some(addr);
        }
        match self.pulls.links.get(&addr).copied() {
            Some(conn) if self.link_is_up(conn) => self.tell_pull(key, Input::LinkUp),
            Some(_) => {}
            None => {
                self.log_stream(
                    Level::Info,
                    key.to_string(),
                    "pulls",
                    format!("is pulled from node {node} at {addr}"),
                );
                let conn = self.dial_link(addr, LinkUse::Origin(addr));
                self.pulls.links.insert(addr, conn);
            }
        }
    }

    fn link_is_up(&self, conn: ConnId) -> bool {
        self.link_up(conn).is_some()
    }

    fn feed(&mut self, key: &StreamKey, epoch: Epoch, relayed: Relayed, ingest: Ingest) {
        let now = self.now;
        let Some(pull) = self.pulls.by_key.get_mut(key) else { return };
        pull.fed += u64::from(matches!(ingest, Ingest::Frame(_)));
        let feeds = match pull.feeds {
            Some(f) if f.2 == epoch => Some(f),
            _ => {
                let source = SourceId(self.sessions.fresh().0);
                let known = self.hub.find(key).map(|s| self.hub.tracks(s)).unwrap_or_default();
                self.share_memory();
                match self.hub.publish(key, epoch, source, now) {
                    Ok(stream) => {
                        // The origin tells a configuration once; it still holds when frames come again after a pause.
                        for (track, config) in known {
                            let config = Ingest::Config { track, params: config.params.clone() };
                            self.hub.ingest(stream, source, config, now);
                        }
                        self.pulls.by_source.insert(source, key.clone());
                        Some((stream, source, epoch))
                    }
                    Err(reason) => {
                        self.counters.drop("frame", reason.code, 1);
                        None
                    }
                }
            }
        };
        if let Some(pull) = self.pulls.by_key.get_mut(key) {
            pull.feeds = feeds;
        }
        let Some((mut stream, mut source, _)) = feeds else { return };
        if self.limits.simulation.planted(Bug::CrossStream)
            && matches!(&ingest, Ingest::Frame(f) if f.kind == FrameKind::Audio)
            && let Some(other) = self.pulls.by_key.values().find_map(|p| p.feeds)
        {
            (stream, source, _) = other;
        }
        // S3: into the stream that was asked for, and no other.
        let own = must(self.limits.simulation, self.hub.key(stream) == Some(key), "S3", || {
            format!("a frame pulled for {key} was to go into {:?}", self.hub.key(stream))
        });
        if let Err(broken) = own {
            return self.pull_broke(key, broken);
        }
        match ingest {
            Ingest::Frame(frame) => self.hub.relay(stream, source, relayed, frame, now),
            Ingest::Config { .. } => self.hub.ingest(stream, source, ingest, now),
        }
    }
}
