//! The two kinds of session that an endpoint has, behind one set of calls: a whole str0m session (`peer.rs`), which can
//! do everything, or a lean one that only sends to a viewer (`viewer/`).

use super::egress::Egress;
use super::path::Path;
use super::peer::{Peer, PeerEvent, Sent, Verdict};
use super::sdp::Accepted;
use super::viewer::Viewer;
use crate::error::Reason;
use crate::hub::delivery::Delivery;
use crate::io::ConnId;
use crate::media::track::{CodecConfig, TrackId};
use crate::time::{Deadline, Time};
use std::collections::VecDeque;
use std::sync::Arc;
use str0m::IceCreds;

pub(super) enum Talk {
    Whole(Box<Peer>),
    Lean(Box<Viewer>),
}

impl Talk {
    pub(super) fn connected(&self) -> bool {
        match self {
            Talk::Whole(p) => p.connected(),
            Talk::Lean(v) => v.connected(),
        }
    }

    pub(super) fn closed(&self) -> bool {
        match self {
            Talk::Whole(p) => p.closed(),
            Talk::Lean(v) => v.closed(),
        }
    }

    /// When anything authenticated came last.
    pub(super) fn heard(&self) -> Time {
        match self {
            Talk::Whole(p) => p.heard(),
            Talk::Lean(v) => v.heard(),
        }
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        match self {
            Talk::Whole(p) => p.deadline(),
            Talk::Lean(v) => v.deadline(),
        }
    }

    pub(super) fn check(&mut self, path: Path, room: bool, bytes: &[u8], now: Time) -> Verdict {
        match self {
            Talk::Whole(p) => p.check(path, room, bytes, now),
            Talk::Lean(v) => v.check(path, room, bytes, now),
        }
    }

    pub(super) fn datagram(&mut self, path: Path, bytes: &[u8], now: Time) -> Verdict {
        match self {
            Talk::Whole(p) => p.datagram(path, bytes, now),
            Talk::Lean(v) => v.datagram(path, bytes, now),
        }
    }

    pub(super) fn deliver(&mut self, delivery: Delivery, now: Time) {
        match self {
            Talk::Whole(p) => p.deliver(&delivery, now),
            Talk::Lean(v) => {
                v.deliver(delivery, now);
            }
        }
    }

    /// Bytes that a newcomer may be handed now; `None`: there is no telling.
    pub(super) fn burst(&mut self, now: Time) -> Option<usize> {
        match self {
            Talk::Whole(_) => None,
            Talk::Lean(v) => v.burst(now),
        }
    }

    /// The TCP connection that the peer chose as its path, if it is one.
    pub(super) fn over(&self) -> Option<ConnId> {
        match self {
            Talk::Whole(p) => p.over(),
            Talk::Lean(v) => v.over(),
        }
    }

    /// A TCP connection of the peer's is gone.
    pub(super) fn lost(&mut self, conn: ConnId) {
        match self {
            Talk::Whole(p) => p.lost(conn),
            Talk::Lean(v) => v.lost(conn),
        }
    }

    /// A frame was not handed to it, because its connection is behind.
    pub(super) fn left_out(&mut self) {
        match self {
            Talk::Whole(p) => p.left_out(),
            Talk::Lean(_) => {}
        }
    }

    /// Whether it has something to send that waits for a turn.
    pub(super) fn wants_turn(&self) -> bool {
        match self {
            Talk::Whole(_) => false,
            Talk::Lean(v) => v.wants_turn(),
        }
    }

    pub(super) fn request_key_frame(&mut self, track: Option<TrackId>) {
        match self {
            Talk::Whole(p) => p.request_key_frame(track),
            Talk::Lean(_) => {}
        }
    }

    /// What a viewer could be given if its link carried so much.
    pub(super) fn set_goal(&mut self, goal: Option<u64>, now: Time) {
        if let Talk::Lean(v) = self {
            v.set_goal(goal, now);
        }
    }

    /// Another stream follows on the same session. Whether it can be.
    pub(super) fn switch(&mut self) -> bool {
        match self {
            Talk::Whole(p) => p.egress().map(Egress::switch).is_some(),
            Talk::Lean(_) => false,
        }
    }

    /// Takes the peer's answer to our offer.
    pub(super) fn answered(&mut self, answer: Accepted) -> Result<(), Reason> {
        match self {
            Talk::Whole(p) => p.answered(answer),
            Talk::Lean(_) => {
                Err(Reason::peer("not_offered", "this session was opened by the peer's offer, not by ours"))
            }
        }
    }

    /// Begins ICE anew with other credentials of both.
    pub(super) fn restart(&mut self, ours: IceCreds, theirs: IceCreds) {
        match self {
            Talk::Whole(p) => p.restart(ours, theirs),
            // It sends no checks, so the peer's are of no use to it.
            Talk::Lean(v) => v.restart(&ours),
        }
    }

    /// Says something on the data channel. Whether there is one.
    pub(super) fn say(&mut self, text: &str, now: Time) -> bool {
        match self {
            Talk::Whole(p) => p.say(text, now),
            Talk::Lean(_) => false,
        }
    }

    pub(super) fn close(&mut self, reason: Reason, now: Time) {
        match self {
            Talk::Whole(p) => p.close(reason),
            Talk::Lean(v) => v.close(reason, now),
        }
    }

    pub(super) fn tick(&mut self, now: Time) {
        match self {
            Talk::Whole(p) => p.tick(now),
            Talk::Lean(v) => v.tick(now),
        }
    }

    /// Takes everything out of what is inside. Called after every input.
    pub(super) fn drain(&mut self, now: Time) {
        match self {
            Talk::Whole(p) => p.drain(now),
            Talk::Lean(v) => v.drain(),
        }
    }

    pub(super) fn tracks(&mut self, tracks: &[(TrackId, Arc<CodecConfig>)]) {
        match self {
            Talk::Whole(p) => p.egress().into_iter().for_each(|e| e.tracks(tracks)),
            Talk::Lean(v) => v.tracks(tracks),
        }
    }

    pub(super) fn events(&mut self) -> &mut VecDeque<PeerEvent> {
        match self {
            Talk::Whole(p) => &mut p.events,
            Talk::Lean(v) => &mut v.events,
        }
    }

    pub(super) fn sent(&mut self) -> &mut VecDeque<Sent> {
        match self {
            Talk::Whole(p) => &mut p.sent,
            Talk::Lean(v) => &mut v.sent,
        }
    }
}
