//! What an operator tells this node through the manager: to take nothing new, to have a stream before its viewers
//! come. And what the node decides by itself when it has no room.

use super::session::{Part, Session, SessionId};
use super::{Alarm, Node};
use crate::cluster::member;
use crate::error::Reason;
use crate::io::Level;
use crate::machine::Machine;
use crate::media::key::StreamKey;
use crate::time::Deadline;
use std::time::Duration;

/// For so long after a publisher has left, the last frames are on their way to viewers.
const LAST_FRAMES: Duration = Duration::from_secs(1);

impl Node {
    /// The manager passes on an operator's order to take nothing new, or to take it again.
    pub(super) fn ordered_drain(&mut self, on: bool, within_ms: u64, stop: bool) {
        if stop && on {
            self.log(
                Level::Info,
                "node",
                "drain",
                "an operator ends this node through the manager".to_owned(),
            );
            return self.drain();
        }
        if self.stopping {
            return;
        }
        if std::mem::replace(&mut self.draining, on) != on {
            let n = self.clients();
            let text = match on {
                true => format!("draining by an operator's order: nothing new is taken; {n} sessions stay"),
                false => "back in service by an operator's order".to_owned(),
            };
            self.log(Level::Info, "node", "drain", text);
            self.said_drained = false;
            if on {
                self.stop_remotes();
                self.rtsp_redirect_all();
            } else {
                self.start_remotes();
            }
        }
        self.timers.cancel(&Alarm::DrainEnds);
        if on && within_ms > 0 {
            let until = self.now + Duration::from_millis(within_ms);
            self.timers.set(Alarm::DrainEnds, Deadline::new(until, "the time to finish what runs is over"));
        }
        self.report_now();
        if on {
            self.rtmp_relocate_all();
        }
    }

    /// Tells the manager at once how things stand.
    pub(super) fn report_now(&mut self) {
        let report = self.make_report();
        self.member.handle(member::Input::Report(report), self.now);
    }

    /// Ends what is left when the time to finish is over.
    pub(super) fn end_all(&mut self, text: &'static str) {
        let left: Vec<SessionId> = self.sessions.iter().map(|s| s.id).collect();
        for session in left {
            self.end_session(session, &Reason::local("draining", text));
        }
    }

    /// A node that stops waits for those who publish or see something. Where only sessions are left that wait for a publisher
    /// to come back, who is not taken here any more, they are ended at once: they find the stream where it is published next.
    /// Answers whether that was so.
    pub(super) fn ends_what_nobody_publishes(&mut self) -> bool {
        let waits = |s: &Session| match s.part {
            Part::Plays { stream, .. } => {
                let silent = self.hub.silent_for(stream, self.now).unwrap_or_default();
                !self.is_live(stream) && silent >= LAST_FRAMES
            }
            _ => false,
        };
        if self.sessions.is_empty() || !self.sessions.iter().all(waits) {
            return false;
        }
        let n = self.sessions.iter().count();
        let text = format!("nobody publishes here any more: {n} sessions that wait for a publisher end");
        self.log(Level::Info, "node", "drain", text);
        self.end_all(
            "the node stops, and nobody publishes this stream here any more; reconnect through the manager",
        );
        true
    }

    /// A stream is to be here for a while whether or not somebody watches it.
    pub(super) fn ordered_warm(&mut self, key: &StreamKey, for_ms: u64) {
        if self.is_ours(key) {
            return;
        }
        if !self.warm.contains(key) && self.warm.len() >= self.limits.streams {
            self.counters.drop("pull", "too_many_warm", 1);
            return;
        }
        let text = format!("is kept here for {} s, watched or not (prewarmed)", for_ms / 1_000);
        self.log_stream(Level::Info, key.to_string(), "warm", text);
        self.warm.insert(key.clone());
        let until = self.now + Duration::from_millis(for_ms);
        self.timers.set(Alarm::Warm(key.clone()), Deadline::new(until, "a prewarmed stream is let go"));
        self.pull(key);
    }

    /// A prewarmed stream stays for its viewers only from now on.
    pub(super) fn not_warm(&mut self, key: &StreamKey) {
        if self.warm.remove(key) {
            self.timers.cancel(&Alarm::Warm(key.clone()));
            self.touch_viewers(key);
        }
    }

    /// Why this node takes no newcomer now, if it does not. Those who are in stay in: what they need is why.
    pub(super) fn no_room(&self) -> Option<Reason> {
        if self.draining {
            return Some(super::web::draining());
        }
        let full = |what: String| {
            let text =
                format!("this node is at its capacity: {what}; ask the manager for another, or try later");
            Some(Reason::limit("at_capacity", text))
        };
        let capacity = u64::from(self.config.node.capacity_mbps).saturating_mul(1_000_000);
        let (busy, most) = (self.load.busy_lately(), self.limits.admit_busy_permille);
        if busy >= most {
            return full(format!(
                "its loop was busy for {}.{} % of the last seconds (limits.admit_busy_permille)",
                busy / 10,
                busy % 10
            ));
        }
        let expected = self.load.expected_bps();
        if expected >= capacity {
            let (now, most) = (expected / 1_000_000, self.config.node.capacity_mbps);
            return full(format!("it sends {now} of the {most} Mbit/s that it may (node.capacity_mbps)"));
        }
        None
    }
}
