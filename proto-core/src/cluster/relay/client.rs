//! The puller's side of one stream: finds the origin, pulls, and starts over when the origin or the way to it fails.
//!
//! Each attempt asks the manager anew where the stream is, for it may have moved. Frames of an epoch lower than the
//! highest one heard of are never passed on. After a break the new pull begins with the last frame that was had, where the
//! source still has it, else with its cached group of pictures; what was had already is recognised, so that viewers see
//! each frame once.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::cluster::member::Source;
use crate::cluster::{Epoch, NodeId};
use crate::error::{Reason, quote};
use crate::io::Level;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::media::frame::{FrameKind, Ingest};
use crate::media::key::StreamKey;
use crate::media::track::TrackId;
use crate::rand::Rng;
use crate::simulation::{Bug, Site};
use crate::time::{Deadline, Time};
use crate::wire::link::{Message, RelayFrame, TrackConfig};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a pull can be told.
#[derive(Debug)]
pub enum Input {
    /// Whether anybody on this node watches the stream. Starts as "yes".
    Wanted(bool),
    /// The answer to [`Output::Locate`].
    Located(Result<Source, Reason>),
    /// The stream has a new origin or epoch (from [`crate::cluster::member::Output::Moved`]).
    Moved(Source),
    /// The link that [`Output::Connect`] asked for stands, or another stands in its place, over which a pull goes on.
    LinkUp,
    /// It could not be had, or broke.
    LinkDown(Reason),
    /// The source said this about the current pull (see [`PullClient::is_for`]).
    Message(Message),
    /// Frames of the current pull were left out on the way.
    Lost {
        /// Their track.
        track: TrackId,
        /// How many.
        frames: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// A viewer needs a key frame of this track; `None`: of each.
    KeyWanted(Option<TrackId>),
    /// Time passed.
    Tick,
}

/// What a pull says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask the member where the stream is, then say [`Input::Located`].
    Locate,
    /// Have a link to that node (an open one will do), then say `LinkUp` or `LinkDown`. Replaces an earlier wish.
    Connect {
        /// The node.
        node: NodeId,
        /// Where it takes links.
        addr: SocketAddr,
    },
    /// Send this over that link.
    Send(Message),
    /// Hand this to the hub.
    Ingest {
        /// The epoch under which its publisher was accepted.
        epoch: Epoch,
        /// A frame's position in stream and epoch, from its [`RelayFrame`]; 0 for a configuration.
        seq: u64,
        /// The position of the frame of its track that was handed on before it, maybe by an earlier pull, where this pull has
        /// shown that one too.
        after: Option<u64>,
        /// Configuration or frame.
        ingest: Ingest,
    },
    /// No frames come for now: the publisher left, or the way to its origin is broken.
    Away,
    /// Frames come (again).
    Back,
    /// An attempt failed before anything was ever received. Those who wait for the stream may be told; it is tried
    /// again as long as it is wanted.
    Unavailable(Reason),
    /// It is over and the machine does nothing more: nobody watches, or nothing came for `stream_hold_ms`.
    Ended(Reason),
    /// A line for the operator.
    Log(Level, String),
}

#[derive(Debug)]
enum State {
    Locating { since: Time },
    Dialling { since: Time, source: Source },
    Pulling { source: Source },
    Backoff { until: Time },
    Ended,
}

/// What a track's frames have shown so far.
#[derive(Debug)]
struct Track {
    /// The newest configuration passed on to the hub.
    config: TrackConfig,
    /// The last frame passed on, in the epoch of `PullClient::continues`.
    last: Option<u64>,
    /// This pull has shown `last` again (or began with it), so that what follows connects to it.
    joined: bool,
}

/// One stream that this node pulls. See the module's text.
#[derive(Debug)]
pub struct PullClient {
    id: u64,
    key: StreamKey,
    own: NodeId,
    limits: Arc<Limits>,
    rng: Rng,
    state: State,
    attempt: u16,
    failures: u32,
    /// The highest epoch heard of.
    epoch: Epoch,
    /// The epoch whose sequence numbers `Track::last` speaks of.
    continues: Option<Epoch>,
    tracks: BTreeMap<TrackId, Track>,
    path: Vec<NodeId>,
    ever: bool,
    away: bool,
    /// Since when nothing came (from the start, or from the last break).
    dry_since: Option<Time>,
    /// Since when a relay, not the origin, has had nothing.
    relay_dry: Option<Time>,
    unwanted_since: Option<Time>,
    /// When key frames of which track were asked for last, and which are to be asked for.
    key_asked: BTreeMap<Option<TrackId>, Time>,
    key_due: BTreeSet<Option<TrackId>>,
    taken: Taken,
    out: VecDeque<Output>,
}

/// What became of the frames that came: nothing is dropped silently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Frames that the source sent under the present number.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that came in all.
    pub total: u64,
    /// Frames that were handed on, of all.
    pub passed: u64,
    /// Frames that were left out: of a superseded epoch.
    pub stale: u64,
    /// Left out: seen before.
    pub repeated: u64,
    /// Left out: without the configuration or the frames that they need.
    pub unusable: u64,
    /// Left out on the way, because newer ones overtook them.
    pub lost: u64,
}

impl Taken {
    /// Whether all that came was handed on or left out for a reason.
    pub fn adds_up(&self) -> bool {
        self.total == self.passed + self.stale + self.repeated + self.unusable + self.lost
    }
}

/// Frames of the stream by which one track may be behind another on its way between nodes.
const TRACKS_APART: u64 = 256;
/// Attempts are numbered in the low bits of a pull's number.
const ATTEMPT_BITS: u32 = 16;

impl PullClient {
    /// Begins to pull `key`. `id` is below 2⁴⁸ and unlike that of any other pull of this node, now or before;
    /// `own` is this node.
    pub fn new(id: u64, key: StreamKey, own: NodeId, limits: Arc<Limits>, rng: Rng, now: Time) -> PullClient {
        PullClient {
            id,
            key,
            own,
            limits,
            rng,
            state: State::Locating { since: now },
            attempt: 0,
            failures: 0,
            epoch: Epoch::default(),
            continues: None,
            tracks: BTreeMap::new(),
            path: Vec::new(),
            ever: false,
            away: false,
            dry_since: Some(now),
            relay_dry: None,
            unwanted_since: None,
            key_asked: BTreeMap::new(),
            key_due: BTreeSet::new(),
            taken: Taken::default(),
            out: VecDeque::from([Output::Locate]),
        }
    }

    /// The stream.
    pub fn key(&self) -> &StreamKey {
        &self.key
    }

    /// The number of the current attempt, as messages carry it.
    pub fn pull(&self) -> u64 {
        self.id << ATTEMPT_BITS | u64::from(self.attempt)
    }

    /// Whether a message with this pull number concerns the current attempt.
    pub fn is_for(&self, pull: u64) -> bool {
        self.pull() == pull
    }

    /// The `id` of the [`PullClient`] that a pull number belongs to.
    pub const fn id_of(pull: u64) -> u64 {
        pull >> ATTEMPT_BITS
    }

    /// The nodes that the frames came through, the origin first; empty before anything came.
    pub fn path(&self) -> &[NodeId] {
        &self.path
    }

    /// The node that it pulls from or dials now.
    pub fn source(&self) -> Option<&NodeId> {
        match &self.state {
            State::Dialling { source, .. } | State::Pulling { source } => Some(&source.node),
            _ => None,
        }
    }

    /// Whether it must pull from the origin, not from a node that relays the stream: frames that it had may have gone on to
    /// others already, or a relay failed it.
    pub fn wants_origin(&self) -> bool {
        self.ever || self.failures > 0
    }

    /// The highest epoch heard of; frames of a lower one are left out.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether a pull is under way.
    pub fn is_pulling(&self) -> bool {
        matches!(self.state, State::Pulling { .. })
    }

    /// What became of the frames that came.
    pub fn taken(&self) -> Taken {
        self.taken
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn end(&mut self, reason: Reason) {
        if self.is_pulling() {
            self.out.push_back(Output::Send(Message::CancelPull { pull: self.pull() }));
        }
        self.state = State::Ended;
        self.out.push_back(Output::Ended(reason));
    }

    /// The attempt is over; another follows after a wait.
    fn fail(&mut self, reason: Reason, now: Time) {
        let was_pulling = self.is_pulling();
        let least = self.limits.relay_retry_min_ms;
        let most = self.limits.relay_retry_max_ms.max(least);
        let wait = least.saturating_mul(1 << self.failures.min(16)).min(most);
        let spread = u64::from(self.rng.below(u32::try_from(wait / 2).unwrap_or(u32::MAX)));
        let late = self.limits.simulation.happens(Site::LateRetry, self.id ^ now.as_nanos());
        let wait = if late { most } else { wait - spread };
        self.failures = self.failures.saturating_add(1);
        self.relay_dry = None;
        self.state = State::Backoff { until: now + Self::ms(wait) };
        self.dry_since.get_or_insert(now);
        if was_pulling {
            self.out.push_back(Output::Log(
                Level::Warn,
                format!("pull of {} broke: {reason}; trying again", self.key),
            ));
        }
        if self.ever && self.limits.simulation.planted(Bug::EdgeNeverRecovers) {
            self.state = State::Ended;
        }
        if self.ever {
            self.set_away(true);
        } else {
            self.out.push_back(Output::Unavailable(reason));
        }
    }

    fn set_away(&mut self, away: bool) {
        if std::mem::replace(&mut self.away, away) != away {
            self.out.push_back(if away { Output::Away } else { Output::Back });
        }
    }

    fn begin(&mut self, now: Time) {
        self.attempt = self.attempt.wrapping_add(1);
        self.state = State::Locating { since: now };
        self.out.push_back(Output::Locate);
    }

    fn located(&mut self, result: Result<Source, Reason>, now: Time) {
        if !matches!(self.state, State::Locating { .. }) {
            return;
        }
        match result {
            Err(reason) => self.fail(reason, now),
            Ok(source) if source.node == self.own => {
                let text =
                    format!("this node itself is the origin of {}, but nobody publishes it here", self.key);
                self.fail(Reason::local("relay_loop", text), now);
            }
            Ok(source) if source.epoch < self.epoch => {
                let text =
                    format!("the manager still names the superseded origin {} of {}", source.node, self.key);
                self.fail(Reason::local("stale_origin", text), now);
            }
            Ok(source) => self.connect(source, now),
        }
    }

    fn connect(&mut self, source: Source, now: Time) {
        self.epoch = self.epoch.max(source.epoch);
        self.out.push_back(Output::Connect { node: source.node.clone(), addr: source.link_addr });
        self.state = State::Dialling { since: now, source };
    }

    fn moved(&mut self, source: Source, now: Time) {
        if source.epoch < self.epoch || matches!(self.state, State::Ended) {
            return;
        }
        self.epoch = source.epoch;
        match &mut self.state {
            State::Dialling { source: old, .. } | State::Pulling { source: old }
                if old.node == source.node =>
            {
                // The same node goes on under a higher epoch; its frames say so themselves.
                *old = source;
            }
            _ if source.node == self.own => {}
            // So do they by way of a relay.
            State::Pulling { .. } if self.path.len() > 1 && self.path.first() == Some(&source.node) => {}
            _ => {
                self.relay_dry = None;
                if self.is_pulling() {
                    self.out.push_back(Output::Send(Message::CancelPull { pull: self.pull() }));
                    self.set_away(true);
                    self.dry_since.get_or_insert(now);
                }
                let text = format!("{} has moved to node {}", self.key, quote(&source.node.0));
                self.out.push_back(Output::Log(Level::Info, text));
                self.attempt = self.attempt.wrapping_add(1);
                self.failures = 0;
                self.connect(source, now);
            }
        }
    }

    fn link_up(&mut self) {
        match &self.state {
            State::Dialling { source, .. } => self.state = State::Pulling { source: source.clone() },
            State::Pulling { .. } => self.attempt = self.attempt.wrapping_add(1),
            State::Locating { .. } | State::Backoff { .. } | State::Ended => return,
        }
        (self.taken.frames, self.taken.bytes) = (0, 0);
        for track in self.tracks.values_mut() {
            track.joined = false;
        }
        let (pull, key, hops) = (self.pull(), self.key.clone(), vec![self.own.clone()]);
        let after = self.continues.zip(self.had());
        self.out.push_back(Output::Send(Message::Pull { pull, key, hops, after }));
    }

    /// The frame from which on the next source is to begin, so that nothing is missing: the last of the track that is behind
    /// the others, for tracks may come by streams of their own. One that has had nothing for long (data) holds nothing up.
    fn had(&self) -> Option<u64> {
        let had = self.tracks.values().filter_map(|t| t.last);
        let newest = had.clone().max()?;
        had.filter(|last| newest - last <= TRACKS_APART).min()
    }

    fn message(&mut self, message: Message, now: Time) {
        let State::Pulling { source } = &self.state else { return };
        match message {
            Message::Tracks { pull, path, configs } if self.is_for(pull) => {
                let round = path.contains(&self.own) || path.len() > self.limits.relay_hops;
                if round && !self.limits.simulation.planted(Bug::RelayLoop) {
                    let text =
                        format!("{} from {} would go round in a circle", self.key, quote(&source.node.0));
                    self.out.push_back(Output::Send(Message::CancelPull { pull }));
                    return self.fail(Reason::peer("relay_loop", text), now);
                }
                self.path = path;
                for config in configs {
                    self.config(config);
                }
            }
            Message::Frame(frame) if self.is_for(frame.pull) => self.frame(*frame),
            Message::SourceAway { pull } if self.is_for(pull) => {
                self.dry_since.get_or_insert(now);
                if self.path.len() > 1 {
                    self.relay_dry.get_or_insert(now);
                }
                self.set_away(true);
            }
            Message::SourceBack { pull } if self.is_for(pull) => {
                (self.dry_since, self.relay_dry) = (None, None);
                self.set_away(false);
            }
            Message::End { pull, code, text } if self.is_for(pull) => {
                let text = format!("{} ended it: {} ({})", quote(&source.node.0), quote(&text), quote(&code));
                self.fail(Reason::peer("pull_ended", text), now);
            }
            _ => {}
        }
    }

    fn config(&mut self, config: TrackConfig) {
        let id = config.track;
        let known = self.tracks.get(&id).is_some_and(|t| t.config.config.params == config.config.params);
        if !known {
            if !self.tracks.contains_key(&id) && self.tracks.len() >= self.limits.stream_tracks {
                return;
            }
            let params = config.config.params.clone();
            let ingest = Ingest::Config { track: id, params };
            self.out.push_back(Output::Ingest { epoch: self.epoch, seq: 0, after: None, ingest });
        }
        match self.tracks.get_mut(&id) {
            Some(track) => track.config = config,
            None => {
                self.tracks.insert(id, Track { config, last: None, joined: false });
            }
        }
    }

    fn frame(&mut self, frame: RelayFrame) {
        self.taken.frames += 1;
        self.taken.bytes += frame.media.payload.len() as u64;
        self.taken.total += 1;
        if frame.epoch < self.epoch {
            self.taken.stale += 1;
            return;
        }
        self.epoch = frame.epoch;
        if self.continues != Some(frame.epoch) {
            // Another publisher: its numbers begin anew. Another node has the same numbers.
            let publisher = self.continues.is_some();
            self.continues = Some(frame.epoch);
            for (id, track) in &mut self.tracks {
                (track.last, track.joined) = (None, false);
                if publisher {
                    // The hub may have forgotten the former publisher's tracks.
                    let ingest = Ingest::Config { track: *id, params: track.config.config.params.clone() };
                    self.out.push_back(Output::Ingest { epoch: frame.epoch, seq: 0, after: None, ingest });
                }
            }
        }
        let media = frame.media;
        // Tracks share the numbers of their stream.
        let newest = self.tracks.values().filter_map(|t| t.last).max();
        if newest.is_some_and(|n| frame.seq.saturating_sub(n) > self.limits.relay_jump_frames) {
            if let Some(track) = self.tracks.get_mut(&media.track) {
                track.joined = false;
            }
            self.taken.unusable += 1;
            return;
        }
        let mut after = None;
        match self.tracks.get_mut(&media.track) {
            Some(track) => {
                if track.last.is_some_and(|last| frame.seq <= last) {
                    track.joined |= track.last == Some(frame.seq);
                    self.taken.repeated += 1;
                    return;
                }
                // Never a picture whose reference is missing.
                let starts = media.kind != FrameKind::Delta;
                if frame.config_version > track.config.config.version || !(starts || track.joined) {
                    self.taken.unusable += 1;
                    return;
                }
                after = track.last.filter(|_| track.joined);
                (track.last, track.joined) = (Some(frame.seq), true);
            }
            // Data needs no configuration.
            None if media.kind == FrameKind::Data => {}
            None => {
                self.taken.unusable += 1;
                return;
            }
        }
        self.taken.passed += 1;
        self.ever = true;
        self.failures = 0;
        (self.dry_since, self.relay_dry) = (None, None);
        self.set_away(false);
        let (epoch, seq) = (frame.epoch, frame.seq);
        self.out.push_back(Output::Ingest { epoch, seq, after, ingest: Ingest::Frame(media) });
    }

    fn lost(&mut self, track: TrackId, frames: u64, bytes: u64) {
        if self.is_pulling() {
            self.taken.frames += frames;
            self.taken.bytes += bytes;
            self.taken.total += frames;
            self.taken.lost += frames;
            // Never a picture whose reference is missing.
            if let Some(track) = self.tracks.get_mut(&track) {
                track.joined = false;
            }
        }
    }

    fn key_wanted(&mut self, track: Option<TrackId>, now: Time) {
        self.key_due.insert(track);
        self.send_key_request(now);
    }

    /// The next request for a key frame: of what, and when it may leave.
    fn key_request_at(&self) -> Option<(Option<TrackId>, Time)> {
        let every = Self::ms(1_000 / u64::from(self.limits.key_requests_per_s.max(1)));
        let due = self.key_due.iter().filter(|_| self.is_pulling());
        due.map(|t| (*t, self.key_asked.get(t).map_or(Time::ZERO, |at| *at + every)))
            .min_by_key(|(_, at)| *at)
    }

    fn send_key_request(&mut self, now: Time) {
        while let Some((track, _)) = self.key_request_at().filter(|(_, at)| *at <= now) {
            self.key_due.remove(&track);
            self.key_asked.insert(track, now);
            self.out.push_back(Output::Send(Message::KeyRequest { pull: self.pull(), track }));
        }
    }

    fn linger_end(&self) -> Option<Time> {
        self.unwanted_since.map(|at| at + Self::ms(self.limits.relay_linger_ms))
    }

    fn dry_end(&self) -> Option<Time> {
        self.dry_since.map(|at| at + Self::ms(self.limits.stream_hold_ms))
    }

    /// The origin may have the stream again when the relay does not: whoever is fed by one goes and looks.
    fn relay_end(&self) -> Option<Time> {
        self.relay_dry.filter(|_| self.is_pulling()).map(|at| at + Self::ms(self.limits.lease_ms))
    }

    /// When the step that is under way is given up or followed by the next.
    fn step(&self) -> Option<Deadline> {
        let answer = Self::ms(self.limits.cluster_answer_ms.saturating_add(self.limits.report_ms));
        let dial = Self::ms(self.limits.link_dial_timeout_ms);
        match &self.state {
            State::Locating { since } => Some(Deadline::new(*since + answer, "locate")),
            State::Dialling { since, .. } => Some(Deadline::new(*since + dial, "dial the origin")),
            State::Backoff { until } => Some(Deadline::new(*until, "pull again")),
            State::Pulling { .. } | State::Ended => None,
        }
    }

    fn tick(&mut self, now: Time) {
        if matches!(self.state, State::Ended) {
            return;
        }
        if self.linger_end().is_some_and(|at| at <= now) {
            return self
                .end(Reason::local("no_viewers", format!("nobody watches {} here any more", self.key)));
        }
        if self.dry_end().is_some_and(|at| at <= now) {
            let text = format!("nothing came of {} for {} ms", self.key, self.limits.stream_hold_ms);
            return self.end(Reason::peer("source_gone", text));
        }
        if self.relay_end().is_some_and(|at| at <= now) {
            self.out.push_back(Output::Send(Message::CancelPull { pull: self.pull() }));
            let text = format!("the node that relays {} has had nothing of it for a while", self.key);
            self.fail(Reason::peer("relay_dry", text), now);
        }
        if self.step().is_some_and(|d| d.at <= now) {
            match &self.state {
                State::Backoff { .. } => self.begin(now),
                State::Locating { .. } => {
                    self.fail(Reason::local("no_manager", "no answer about where the stream is"), now);
                }
                State::Dialling { source, .. } => {
                    let text =
                        format!("node {} at {} does not answer", quote(&source.node.0), source.link_addr);
                    self.fail(Reason::peer("dial_timeout", text), now);
                }
                State::Pulling { .. } | State::Ended => {}
            }
        }
        self.send_key_request(now);
    }
}

impl Machine for PullClient {
    type Input<'a> = Input;
    type Output = Output;

    fn handle(&mut self, input: Input, now: Time) {
        match input {
            Input::Wanted(true) => self.unwanted_since = None,
            Input::Wanted(false) => {
                self.unwanted_since.get_or_insert(now);
            }
            Input::Located(result) => self.located(result, now),
            Input::Moved(source) => self.moved(source, now),
            Input::LinkUp => self.link_up(),
            Input::LinkDown(reason) => {
                if matches!(self.state, State::Dialling { .. } | State::Pulling { .. }) {
                    self.fail(reason, now);
                }
            }
            Input::Message(message) => self.message(message, now),
            Input::Lost { track, frames, bytes } => self.lost(track, frames, bytes),
            Input::KeyWanted(track) => self.key_wanted(track, now),
            Input::Tick => self.tick(now),
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn deadline(&self) -> Option<Deadline> {
        if matches!(self.state, State::Ended) {
            return None;
        }
        let timed = [
            self.linger_end().map(|at| Deadline::new(at, "no viewers")),
            self.dry_end().map(|at| Deadline::new(at, "nothing comes")),
            self.relay_end().map(|at| Deadline::new(at, "the relay has nothing")),
            self.key_request_at().map(|(_, at)| Deadline::new(at, "key request")),
        ];
        timed.into_iter().fold(self.step(), Deadline::earliest)
    }
}
