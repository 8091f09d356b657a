//! Other nodes that pull a stream which this node has to pull from another server first.

use crate::error::Reason;
use crate::ids::NodeId;
use crate::io::ConnId;
use crate::media::key::StreamKey;
use crate::node::Node;
use crate::wire::link::Message;

/// A pull that waits for its stream.
#[derive(Debug)]
pub(super) struct Waiting {
    conn: ConnId,
    pull: u64,
    pub(super) key: StreamKey,
    hops: Vec<NodeId>,
}

impl Node {
    /// Another node pulls a stream that is not here. Answers whether it waits for the stream's source.
    pub(in crate::node) fn serve_later(
        &mut self,
        conn: ConnId,
        pull: u64,
        key: &StreamKey,
        hops: &[NodeId],
    ) -> bool {
        if self.remotes.serves.len() >= self.limits.cluster_waiting || !self.want_source(key) {
            return false;
        }
        self.remotes.serves.push(Waiting { conn, pull, key: key.clone(), hops: hops.to_vec() });
        self.remotes.touch(key);
        true
    }

    /// A source publishes: those who wait for it are served.
    pub(super) fn serve_waiting(&mut self, key: &StreamKey) {
        for w in self.take_waiting(|w| w.key == *key) {
            self.asked_to_serve(w.conn, w.pull, w.key, w.hops, None);
        }
    }

    /// A source failed: those who wait for it are told.
    pub(super) fn refuse_waiting(&mut self, key: &StreamKey, reason: &Reason) {
        for w in self.take_waiting(|w| w.key == *key) {
            let (code, text) = ("not_found".to_owned(), reason.text.to_string());
            self.send_link(w.conn, Message::End { pull: w.pull, code, text });
        }
    }

    /// A link went, or a pull on it (`Some`) was taken back.
    pub(in crate::node) fn waiting_gone(&mut self, conn: ConnId, pull: Option<u64>) {
        for w in self.take_waiting(|w| w.conn == conn && pull.is_none_or(|p| p == w.pull)) {
            self.remotes.touch(&w.key);
        }
    }

    fn take_waiting(&mut self, which: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let all = std::mem::take(&mut self.remotes.serves);
        let (taken, rest) = all.into_iter().partition(which);
        self.remotes.serves = rest;
        taken
    }
}
