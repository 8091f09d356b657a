//! The source's side of one pull: turns what the hub delivers into messages, and leaves out what a slow link cannot
//! take.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::cluster::NodeId;
use crate::error::Reason;
use crate::hub::delivery::Delivery;
use crate::limits::Limits;
use crate::media::frame::{Frame, NewFrame};
use crate::media::key::StreamKey;
use crate::media::track::TrackId;
use crate::simulation::Bug;
use crate::time::Time;
use crate::wire::link::{Message, RelayFrame, TrackConfig};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What became of a frame: nothing is dropped silently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RelayCounters {
    /// Frames passed on.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames left out because the link was behind.
    pub skipped_frames: u64,
    /// Their bytes.
    pub skipped_bytes: u64,
}

/// One pull that another node makes from this one.
#[derive(Debug)]
pub struct PullServer {
    pull: u64,
    key: StreamKey,
    path: Vec<NodeId>,
    limits: Arc<Limits>,
    /// Pictures are left out until a key frame comes while the link has room.
    skipping: bool,
    key_asked: BTreeMap<Option<TrackId>, Time>,
    counters: RelayCounters,
}

impl PullServer {
    /// Takes a pull. `hops` is from [`Message::Pull`]; `own` is this node; `upstream` are the nodes that the stream
    /// came through to get here, the origin first (empty on the origin itself).
    ///
    /// # Errors
    /// The answer that the puller must get: `relay_loop` if this node is on the way already, `relay_hops` if the way
    /// is too long.
    pub fn accept(
        pull: u64,
        key: StreamKey,
        hops: &[NodeId],
        own: &NodeId,
        upstream: &[NodeId],
        limits: Arc<Limits>,
    ) -> Result<PullServer, Message> {
        let refused = |code: &str, text: String| Message::End { pull, code: code.to_owned(), text };
        let looks = !limits.simulation.planted(Bug::RelayLoop);
        if looks && (hops.contains(own) || hops.iter().any(|h| upstream.contains(h))) {
            let text = format!("node {own} would pull {key} from itself");
            return Err(refused("relay_loop", text));
        }
        if hops.len().saturating_add(upstream.len()) > limits.relay_hops {
            let text = format!("{key} would pass more than {} nodes (limits.relay_hops)", limits.relay_hops);
            return Err(refused("relay_hops", text));
        }
        let path = upstream.iter().chain([own]).cloned().collect();
        Ok(PullServer {
            pull,
            key,
            path,
            limits,
            skipping: false,
            key_asked: BTreeMap::new(),
            counters: RelayCounters::default(),
        })
    }

    /// The puller's number for it.
    pub fn pull(&self) -> u64 {
        self.pull
    }

    /// The stream.
    pub fn key(&self) -> &StreamKey {
        &self.key
    }

    /// What was passed on and what was left out.
    pub fn counters(&self) -> RelayCounters {
        self.counters
    }

    /// Turns what the hub delivers into a message. `backlog` is what waits on the link. `None`: left out (and
    /// counted). The times are those of the delivery: a cached group comes in one piece, and with its own times it would
    /// set the puller's stream, and everyone who watches there, behind live by its whole length with each new pull.
    pub fn deliver(&mut self, delivery: &Delivery, backlog: usize) -> Option<Message> {
        match delivery {
            Delivery::Config { track, config } => Some(Message::Tracks {
                pull: self.pull,
                path: self.path.clone(),
                configs: vec![TrackConfig { track: *track, config: config.as_ref().clone() }],
            }),
            Delivery::Frame { frame, dts, pts, .. } => self.frame(frame, (*dts, *pts), backlog),
        }
    }

    fn frame(&mut self, frame: &Frame, (dts, pts): (i64, i64), backlog: usize) -> Option<Message> {
        let bytes = frame.len() as u64;
        let most = self.limits.link_queue_bytes;
        let pass = if frame.is_video() {
            let key = frame.media.kind == crate::media::frame::FrameKind::Key;
            // Sound keeps the other half of the queue for itself; pictures come back once most of it has drained.
            if key && backlog <= most / 4 {
                self.skipping = false;
            } else if backlog > most / 2 {
                self.skipping = true;
            }
            !self.skipping
        } else {
            backlog <= most
        };
        if !pass {
            self.counters.skipped_frames += 1;
            self.counters.skipped_bytes += bytes;
            return None;
        }
        self.counters.frames += 1;
        self.counters.bytes += bytes;
        let sound = frame.media.kind == crate::media::frame::FrameKind::Audio;
        if sound && frame.seq % 64 < 2 && self.limits.simulation.planted(Bug::RelayDropNotCounted) {
            return None;
        }
        Some(Message::Frame(Box::new(RelayFrame {
            pull: self.pull,
            seq: frame.seq,
            epoch: frame.epoch,
            config_version: frame.config_version,
            media: NewFrame { dts, pts, ..frame.media.clone() },
        })))
    }

    /// Whether pictures are being left out and a key frame would end that now: ask the stream for one.
    pub fn wants_key(&self, backlog: usize) -> bool {
        self.skipping && backlog <= self.limits.link_queue_bytes / 4
    }

    /// The puller asked for a key frame of this track, or of each. Whether to pass that on: not more often than
    /// `key_requests_per_s`.
    pub fn key_request(&mut self, track: Option<TrackId>, now: Time) -> bool {
        let every = Duration::from_millis(1_000 / u64::from(self.limits.key_requests_per_s.max(1)));
        if self.key_asked.get(&track).is_some_and(|at| now < *at + every) {
            return false;
        }
        // A track is one of 256, so this does not grow.
        self.key_asked.insert(track, now);
        true
    }

    /// The message for "the publisher is away".
    pub fn away(&self) -> Message {
        Message::SourceAway { pull: self.pull }
    }

    /// The message for "the publisher is back".
    pub fn back(&self) -> Message {
        Message::SourceBack { pull: self.pull }
    }

    /// The message for "no more frames".
    pub fn end(&self, reason: &Reason) -> Message {
        Message::End { pull: self.pull, code: reason.code.to_owned(), text: reason.text.to_string() }
    }
}
