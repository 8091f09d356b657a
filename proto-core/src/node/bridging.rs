//! Bridges of sound and pictures: tracks that this node derives for viewers who cannot play what the publisher sent.
//!
//! A bridge is a subscriber of the source's track and a source of the derived one. It begins with the first viewer that
//! needs it and is shared by all; it ends some time after the last. The codecs run outside the core: packets leave as
//! [`Output::Ask`], a bounded number at a time, and what was made of them comes back as answers, in order. Each node
//! derives for its own viewers; what it derived is never relayed.

use super::{Alarm, Node};
use crate::bridge::{BridgeId, BridgeJob, BridgeWork, Bridged, Packet};
use crate::error::Broken;
use crate::hub::delivery::Delivery;
use crate::hub::{CodecSet, Notice, StreamId, SubscriberId};
use crate::io::{AskId, Level, Output, Work};
use crate::media::track::{Codec, CodecConfig, CodecParams, Origin, TrackId};
use crate::time::{Deadline, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Packets that go out in one piece of work at most: a backlog must not hold up the bridges of other streams.
const PACKETS_A_JOB: usize = 32;

/// The pause before a failed bridge is tried again doubles so often.
const MOST_DOUBLINGS: u32 = 6;
/// How late a timer may ring before it is taken for a machine that slept, in which no answer could come either.
const SLEPT: Duration = Duration::from_secs(1);

/// What a bridge is for: a track of a stream, and the codec that is made of it.
pub(super) type Wish = (StreamId, TrackId, Codec);

#[derive(Debug)]
pub(super) struct Bridge {
    wish: Wish,
    source: Codec,
    /// Its cursor in the stream; `None` once it failed.
    subscriber: Option<SubscriberId>,
    /// Works that were asked for and not answered.
    under_way: usize,
    /// The last answer, or the first question that waits.
    answered: Time,
    /// Its end is set: nobody needs it at present, or it failed.
    lingers: bool,
    /// How often it failed since it last made anything.
    failures: u32,
    /// The configuration that the track had when it failed: what fails with one may work with another.
    failed_with: u32,
    /// It hung and was given up: there is nothing at the driver that could be closed.
    abandoned: bool,
}

/// The bridges of a node.
#[derive(Debug, Default)]
pub(super) struct Bridges {
    next: u64,
    by_id: BTreeMap<BridgeId, Bridge>,
    by_wish: BTreeMap<Wish, BridgeId>,
    by_subscriber: BTreeMap<SubscriberId, BridgeId>,
    asks: BTreeMap<AskId, BridgeId>,
    dirty: BTreeSet<StreamId>,
}

impl Bridges {
    /// Something about a stream's tracks or viewers changed: its bridges are to be looked at before the turn ends.
    pub(super) fn touch(&mut self, stream: StreamId) {
        self.dirty.insert(stream);
    }

    /// The bridge that a cursor feeds.
    pub(super) fn of_subscriber(&self, subscriber: SubscriberId) -> Option<BridgeId> {
        self.by_subscriber.get(&subscriber).copied()
    }

    /// Whether there is a bridge with a number.
    pub(super) fn has(&self, id: BridgeId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// How many cursors feed bridges.
    pub(super) fn cursors(&self) -> usize {
        self.by_subscriber.len()
    }

    /// How many bridges of pictures, or of sound, there are that work.
    pub(super) fn working(&self, video: bool) -> usize {
        let works = |b: &&Bridge| b.subscriber.is_some() && b.wish.2.is_video() == video;
        self.by_id.values().filter(works).count()
    }

    /// How many bridges of pictures, or of sound, there are.
    fn count(&self, video: bool) -> usize {
        self.by_id.values().filter(|b| b.wish.2.is_video() == video).count()
    }

    /// What the bridges of a stream make, of what, and whether they work.
    pub(super) fn of_stream(&self, stream: StreamId) -> impl Iterator<Item = (Codec, Codec, bool)> {
        self.by_id
            .values()
            .filter(move |b| b.wish.0 == stream)
            .map(|b| (b.source, b.wish.2, b.subscriber.is_some()))
    }

    /// Whether its tables agree.
    ///
    /// # Errors
    /// S7, with what does not fit.
    pub(super) fn verify(&self) -> Result<(), Broken> {
        let cursors = self.by_id.values().filter(|b| b.subscriber.is_some()).count();
        let under_way: usize = self.by_id.values().map(|b| b.under_way).sum();
        let fits = self.by_wish.len() == self.by_id.len()
            && self.by_subscriber.len() == cursors
            && under_way == self.asks.len()
            && self.asks.values().all(|id| self.by_id.contains_key(id))
            && self.by_wish.iter().all(|(w, id)| self.by_id.get(id).is_some_and(|b| b.wish == *w))
            && self
                .by_subscriber
                .iter()
                .all(|(s, id)| self.by_id.get(id).is_some_and(|b| b.subscriber == Some(*s)));
        Broken::unless(fits, "S7", || format!("the tables of bridges do not agree: {self:?}"))
    }
}

/// What bridges make, the best first.
const MADE: [Codec; 4] = [Codec::Opus, Codec::Aac, Codec::Pcmu, Codec::Pcma];

/// What is to be made of a codec of sound for someone who takes `accepts`, if something is to be made and can be.
fn made_for(codec: Codec, accepts: CodecSet) -> Option<Codec> {
    if codec.is_video() || accepts.has(codec) {
        return None;
    }
    MADE.into_iter().find(|to| accepts.has(*to))
}

impl Node {
    /// The tracks of a stream as someone who takes `accepts` would see them: what a bridge makes stands in for what it is
    /// made of.
    pub(super) fn tracks_for(&self, stream: StreamId, accepts: CodecSet) -> Vec<(TrackId, Arc<CodecConfig>)> {
        let mut tracks = self.hub.tracks(stream);
        for (id, config) in &mut tracks {
            let Some(wish @ (_, _, to)) = self.picture_wish(stream, *id, accepts) else { continue };
            if self.may_bridge(wish) {
                let params = CodecParams::H264 {
                    sps: vec![],
                    pps: vec![],
                    size: config.params.size(),
                    reorders: false,
                };
                *config = Arc::new(CodecConfig { version: 1, params, origin: Origin::Derived { from: *id } });
                *id = id.derived(to);
            }
        }
        self.leave_out_damaged(stream, accepts, &mut tracks);
        let heard = tracks.iter().any(|(_, c)| {
            let codec = c.params.codec();
            !codec.is_video() && accepts.has(codec)
        });
        if heard {
            return tracks;
        }
        for (id, config) in &mut tracks {
            let Some(to) = made_for(config.params.codec(), accepts) else { continue };
            if !self.may_bridge((stream, *id, to)) {
                continue;
            }
            // Only that there will be such a track matters to a negotiation; its configuration comes with it.
            let params = match to {
                Codec::Opus => CodecParams::Opus { channels: 2 },
                Codec::Pcmu => CodecParams::Pcmu { channels: 1 },
                Codec::Pcma => CodecParams::Pcma { channels: 1 },
                _ => continue,
            };
            *config = Arc::new(CodecConfig { version: 1, params, origin: Origin::Derived { from: *id } });
            *id = id.derived(to);
        }
        tracks
    }

    /// Whether a bridge works, or could.
    pub(super) fn may_bridge(&self, wish: Wish) -> bool {
        match self.bridges.by_wish.get(&wish).and_then(|id| self.bridges.by_id.get(id)) {
            Some(bridge) => bridge.subscriber.is_some(),
            None => {
                let (on, most, _) = self.bridge_rules(wish.2);
                on && self.bridges.count(wish.2.is_video()) < most
            }
        }
    }

    /// Whether bridges that make a codec are wanted, how many there may be, and what is said where there is none.
    fn bridge_rules(&self, to: Codec) -> (bool, usize, Notice) {
        if to.is_video() {
            (self.config.bridge.video, self.limits.video_bridges, Notice::PicturesNotBridged)
        } else {
            (self.config.bridge.audio, self.limits.bridges, Notice::NotBridged)
        }
    }

    /// Someone who takes `accepts` is about to join: what it needs begins now, so that it is there by then.
    pub(super) fn expect_viewer(&mut self, stream: StreamId, accepts: CodecSet) {
        for wish in self.wishes(stream, accepts) {
            self.begin_bridge(wish);
        }
        self.bridges.touch(stream);
    }

    fn wishes(&self, stream: StreamId, accepts: CodecSet) -> Vec<Wish> {
        let tracks = self.hub.tracks(stream);
        let pictures = tracks.iter().find_map(|(id, _)| self.picture_wish(stream, *id, accepts));
        let sounds = || tracks.iter().map(|(id, c)| (*id, c.params.codec())).filter(|(_, c)| !c.is_video());
        if sounds().any(|(_, codec)| accepts.has(codec)) {
            return pictures.into_iter().collect();
        }
        let first = sounds().find_map(|(id, codec)| Some((stream, id, made_for(codec, accepts)?)));
        pictures.into_iter().chain(first).collect()
    }

    /// Looks at the bridges of the streams that changed. Answers whether there were any.
    pub(super) fn settle_bridges(&mut self) -> bool {
        let mut any = false;
        while let Some(stream) = self.bridges.dirty.pop_first() {
            any = true;
            let wanted = self.wanted(stream);
            for wish in &wanted {
                self.begin_bridge(*wish);
            }
            let linger = self.now + Duration::from_millis(self.limits.bridge_linger_ms);
            for (id, bridge) in self.bridges.by_id.iter_mut().filter(|(_, b)| b.wish.0 == stream) {
                let idle = !wanted.contains(&bridge.wish) || bridge.subscriber.is_none();
                if idle && !bridge.lingers {
                    let at = Deadline::new(linger, "a bridge that nobody needs ends");
                    self.timers.set(Alarm::Bridge(*id), at);
                } else if !idle && bridge.lingers {
                    self.timers.cancel(&Alarm::Bridge(*id));
                }
                bridge.lingers = idle;
            }
        }
        any
    }

    /// What the viewers of a stream need.
    fn wanted(&self, stream: StreamId) -> BTreeSet<Wish> {
        self.hub.audiences(stream).flat_map(|accepts| self.wishes(stream, accepts)).collect()
    }

    fn begin_bridge(&mut self, wish: Wish) {
        let (stream, track, to) = wish;
        let Some((_, config)) = self.hub.tracks(stream).into_iter().find(|(id, _)| *id == track) else {
            return;
        };
        let source = config.params.codec();
        let mut failures = 0;
        if let Some(id) = self.bridges.by_wish.get(&wish).copied() {
            let Some(old) = self.bridges.by_id.get(&id) else { return };
            let failed = old.subscriber.is_none();
            let same = old.source == source && (!failed || old.failed_with == config.version);
            if same && (!failed || self.timers.has(&Alarm::Bridge(id))) {
                return;
            }
            failures = if same { old.failures } else { 0 };
            self.end_bridge(id);
        }
        let name = self.stream_name(stream);
        let (on, most, notice) = self.bridge_rules(to);
        if !on {
            return self.hub.note(stream, notice);
        }
        if self.bridges.count(to.is_video()) >= most {
            self.counters.drop("bridge", "too_many_bridges", 1);
            let (kind, key) = if to.is_video() { ("picture", "video_bridges") } else { ("sound", "bridges") };
            let text = format!(
                "no {} is made of the {}: this node runs {most} {kind} bridges, its limit (limits.{key}); raise it or add \
                 a node",
                to.name(),
                source.name(),
            );
            self.log_stream(Level::Warn, name, "too_many_bridges", text);
            return self.hub.note(stream, notice);
        }
        let Ok(subscriber) = self.hub.subscribe_bridge(stream, track, source, self.now) else { return };
        self.bridges.next += 1;
        let id = BridgeId(self.bridges.next);
        let bridge = Bridge {
            wish,
            source,
            subscriber: Some(subscriber),
            under_way: 0,
            answered: self.now,
            lingers: false,
            failures,
            failed_with: 0,
            abandoned: false,
        };
        self.bridges.by_id.insert(id, bridge);
        self.bridges.by_wish.insert(wish, id);
        self.bridges.by_subscriber.insert(subscriber, id);
        self.bridges.touch(stream);
        if failures == 0 {
            self.hub.take_back(stream, notice);
        }
        let text = if to == source {
            format!("{} without B-frames is made of the {} for WebRTC viewers", to.name(), source.name())
        } else {
            format!("{} is made of the {} for viewers who need it", to.name(), source.name())
        };
        let level = if failures == 0 { Level::Info } else { Level::Debug };
        self.log_stream(level, name, "bridge", text);
    }

    fn ask_bridge(&mut self, id: BridgeId, job: BridgeJob) {
        self.next_ask += 1;
        let ask = AskId(self.next_ask);
        if let Some(bridge) = self.bridges.by_id.get_mut(&id) {
            if bridge.under_way == 0 {
                bridge.answered = self.now;
            }
            bridge.under_way += 1;
            self.bridges.asks.insert(ask, id);
        }
        self.out.push_back(Output::Ask { ask, work: Work::Bridge(BridgeWork { bridge: id, job }) });
        if !self.timers.has(&Alarm::Bridged(id)) {
            self.await_bridge(id, self.now);
        }
    }

    /// Looks again when a bridge that was heard at `since` should have answered.
    fn await_bridge(&mut self, id: BridgeId, since: Time) {
        let at = since + Duration::from_millis(self.limits.bridge_answer_ms);
        self.timers.set(Alarm::Bridged(id), Deadline::new(at, "a bridge should have answered"));
    }

    /// A bridge may have been silent for too long: then its codec hangs, and nobody waits for it any more.
    pub(super) fn bridge_answer_due(&mut self, id: BridgeId) {
        let Some(bridge) = self.bridges.by_id.get_mut(&id) else { return };
        if bridge.under_way == 0 {
            return;
        }
        let most = Duration::from_millis(self.limits.bridge_answer_ms);
        let answered = bridge.answered;
        let due = answered + most;
        if due > self.now {
            return self.await_bridge(id, answered);
        }
        if self.now.since(due) > SLEPT {
            bridge.answered = self.now;
            return self.await_bridge(id, self.now);
        }
        (bridge.under_way, bridge.abandoned) = (0, true);
        let what = if bridge.wish.2.is_video() { "picture" } else { "sound" };
        self.bridges.asks.retain(|_, of| *of != id);
        self.counters.drop(what, "bridge_hung", 1);
        self.tell_bridge(id, BridgeJob::Abandon);
        let seconds = most.as_secs_f64();
        let why = format!(
            "the codec has not answered for {seconds} s (limits.bridge_answer_ms) and is given up; its thread is left behind \
             until the node is restarted: report it as a defect, with the stream if you can"
        );
        self.bridge_failed(id, &why);
    }

    /// Gives a bridge work that nobody waits for.
    fn tell_bridge(&mut self, bridge: BridgeId, job: BridgeJob) {
        self.next_ask += 1;
        let work = Work::Bridge(BridgeWork { bridge, job });
        self.out.push_back(Output::Ask { ask: AskId(self.next_ask), work });
    }

    /// Viewers of a stream need a key frame: those of what a bridge makes get one from there.
    pub(super) fn bridge_key_frames(&mut self, stream: StreamId) {
        let makes = |b: &&Bridge| b.wish.0 == stream && b.wish.2.is_video() && b.subscriber.is_some();
        let ids: Vec<BridgeId> = self.bridges.by_wish.values().copied().collect();
        for id in ids {
            if self.bridges.by_id.get(&id).as_ref().is_some_and(makes) {
                self.ask_bridge(id, BridgeJob::KeyFrame);
            }
        }
    }

    /// A bridge leaves out what it is given because it does not keep up.
    pub(super) fn bridge_is_slow(&mut self, subscriber: SubscriberId) {
        let Some(bridge) = self.bridges.of_subscriber(subscriber).and_then(|id| self.bridges.by_id.get(&id))
        else {
            return;
        };
        let text = format!(
            "{} is not made as fast as the {} comes: whole groups of pictures are left out; this machine is too slow or too \
             busy for it (limits.video_bridges), or publish H.264 without B-frames (-c:v libx264 -bf 0)",
            bridge.wish.2.name(),
            bridge.source.name()
        );
        let name = self.stream_name(bridge.wish.0);
        self.log_stream(Level::Warn, name, "bridge_slow", text);
    }

    /// Has a bridge convert what its stream has for it.
    pub(super) fn pump_bridge(&mut self, id: BridgeId) {
        loop {
            let Some(bridge) = self.bridges.by_id.get(&id) else { return };
            let Some(subscriber) = bridge.subscriber else { return };
            let to = bridge.wish.2;
            if bridge.under_way >= self.limits.bridge_works {
                return self.hub.blocked(subscriber, self.now);
            }
            let mut sound = Vec::new();
            let mut open = None;
            while sound.len() < PACKETS_A_JOB && open.is_none() {
                match self.hub.next(subscriber, self.now) {
                    Some(Delivery::Frame { frame, pts, .. }) => {
                        sound.push(Packet { pts, data: frame.media.payload.clone() });
                    }
                    Some(Delivery::Config { config, .. }) => {
                        open = Some(BridgeJob::Open { from: config.params.clone(), to });
                    }
                    None => break,
                }
            }
            if sound.is_empty() && open.is_none() {
                return;
            }
            if !sound.is_empty() {
                self.ask_bridge(id, BridgeJob::Convert(sound));
            }
            if let Some(open) = open {
                self.ask_bridge(id, open);
            }
        }
    }

    /// What came of a bridge's work. Answers whether the question was one of a bridge.
    pub(super) fn bridged(&mut self, ask: AskId, done: Bridged) {
        let Some(id) = self.bridges.asks.remove(&ask) else { return };
        let Some(bridge) = self.bridges.by_id.get_mut(&id) else { return };
        bridge.under_way = bridge.under_way.saturating_sub(1);
        bridge.answered = self.now;
        let worked = !done.packets.is_empty() && std::mem::take(&mut bridge.failures) > 0;
        let ((stream, from, to), subscriber) = (bridge.wish, bridge.subscriber);
        let Some(subscriber) = subscriber else { return };
        self.hub.progress(subscriber, 1, self.now);
        let what = if to.is_video() { "picture" } else { "sound" };
        self.counters.drop(what, "undecodable", done.undecodable);
        if worked {
            let (.., notice) = self.bridge_rules(to);
            self.hub.take_back(stream, notice);
        }
        if let Some(params) = done.made.as_ref().and_then(|m| m.params(to)) {
            self.hub.derive(stream, from, params);
        }
        for Packet { pts, data } in done.packets {
            self.hub.derived(stream, from.derived(to), pts, data, self.now);
        }
        match done.failed {
            Some(why) => self.bridge_failed(id, &why),
            None => self.pump_bridge(id),
        }
    }

    /// A bridge cannot go on. It stays as a memory of that until its track's configuration changes or its time is over, so
    /// that it is not tried again with every viewer; that time is longer after each failure. The log says it once.
    fn bridge_failed(&mut self, id: BridgeId, why: &str) {
        let Some(bridge) = self.bridges.by_id.get_mut(&id) else { return };
        let ((stream, track, to), source) = (bridge.wish, bridge.source);
        let (again, doublings) = (bridge.failures > 0, bridge.failures.min(MOST_DOUBLINGS));
        bridge.failures += 1;
        self.timers.cancel(&Alarm::Bridged(id));
        let tracks = self.hub.tracks(stream);
        bridge.failed_with = tracks.iter().find(|(id, _)| *id == track).map_or(0, |(_, c)| c.version);
        if let Some(subscriber) = bridge.subscriber.take() {
            self.bridges.by_subscriber.remove(&subscriber);
            self.hub.unsubscribe(subscriber);
        }
        self.hub.derived_is_over(stream, track.derived(to));
        bridge.lingers = true;
        let pause = Duration::from_millis(self.limits.bridge_linger_ms) * (1 << doublings);
        let at = self.now + pause;
        self.timers.set(Alarm::Bridge(id), Deadline::new(at, "a bridge that failed is tried again"));
        let name = self.stream_name(stream);
        let seconds = pause.as_secs_f64();
        let text = format!(
            "no {} can be made of the {}: {why}; tried again in {seconds} s",
            to.name(),
            source.name()
        );
        let level = if again { Level::Debug } else { Level::Warn };
        self.log_stream(level, name, "bridge_failed", text);
        let (.., notice) = self.bridge_rules(to);
        self.hub.note(stream, notice);
    }

    /// A bridge's cursor was let go.
    pub(super) fn bridge_evicted(&mut self, subscriber: SubscriberId) {
        if let Some(id) = self.bridges.of_subscriber(subscriber) {
            self.end_bridge(id);
        }
    }

    /// A bridge's time is over: nobody needed it, or it failed and may be tried again.
    pub(super) fn bridge_due(&mut self, id: BridgeId) {
        let Some(bridge) = self.bridges.by_id.get(&id) else { return };
        let (wish @ (stream, _, to), source) = (bridge.wish, bridge.source);
        let failed = bridge.subscriber.is_none();
        if failed && self.wanted(stream).contains(&wish) {
            return self.begin_bridge(wish);
        }
        self.end_bridge(id);
        self.bridges.touch(stream);
        if !failed {
            let name = self.stream_name(stream);
            let text = format!("nobody needs {} made of the {} any more", to.name(), source.name());
            self.log_stream(Level::Info, name, "bridge", text);
        }
    }

    fn end_bridge(&mut self, id: BridgeId) {
        let Some(bridge) = self.bridges.by_id.remove(&id) else { return };
        self.bridges.by_wish.remove(&bridge.wish);
        self.timers.cancel(&Alarm::Bridge(id));
        self.timers.cancel(&Alarm::Bridged(id));
        self.bridges.asks.retain(|_, of| *of != id);
        if let Some(subscriber) = bridge.subscriber {
            self.bridges.by_subscriber.remove(&subscriber);
            self.hub.unsubscribe(subscriber);
        }
        let (stream, track, to) = bridge.wish;
        self.hub.derived_is_over(stream, track.derived(to));
        if !bridge.abandoned {
            self.tell_bridge(id, BridgeJob::Close);
        }
    }
}
