//! Streams that nobody publishes, and that a node can pull from another server when somebody wants them.

use super::{Manager, Output};
use crate::cluster::placement::{Candidate, pick_origin};
use crate::cluster::{LinkId, NodeId};
use crate::media::key::StreamKey;
use crate::media::pattern::Pattern;
use crate::time::{Deadline, Time};
use crate::wire::link::Message;
use std::collections::BTreeMap;
use std::time::Duration;

/// A question for a stream that a node was told to pull.
#[derive(Debug)]
struct Wanting {
    until: Time,
    link: LinkId,
    req: u64,
    key: StreamKey,
    /// The asker may be sent to the origin only.
    direct: bool,
}

/// What nodes said that they can pull, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Offers {
    by_node: BTreeMap<NodeId, Vec<Pattern>>,
    wanting: Vec<Wanting>,
}

impl Offers {
    /// A node says what it can pull. What cannot be read is of a newer version.
    pub(super) fn set(&mut self, node: NodeId, streams: &[String], most: usize) {
        let patterns: Vec<Pattern> =
            streams.iter().take(most).filter_map(|s| Pattern::parse(s).ok()).collect();
        if patterns.is_empty() {
            self.by_node.remove(&node);
        } else {
            self.by_node.insert(node, patterns);
        }
    }

    /// A node is gone; it says again what it can pull when it comes back.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.by_node.remove(node);
    }

    fn has(&self, node: &NodeId, key: &StreamKey) -> bool {
        self.by_node.get(node).is_some_and(|all| all.iter().any(|p| p.fits(key)))
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.wanting.iter().map(|w| w.until).min().map(|at| Deadline::new(at, "a source is pulled"))
    }
}

impl Manager {
    /// The node that a stream is to be pulled by from another server: of those that can, the one that would get a publisher.
    pub(super) fn offerer(&self, key: &StreamKey, now: Time) -> Option<NodeId> {
        if self.offers.by_node.is_empty() {
            return None;
        }
        let all = self.registry.candidates(now);
        let able: Vec<Candidate<'_>> = all.into_iter().filter(|c| self.offers.has(c.node, key)).collect();
        pick_origin(key, &able, &[], false).ok().map(|(node, _)| node.clone())
    }

    /// Answers where a stream is; where nobody publishes it and a node can pull it, that is told to, and the answer waits.
    pub(super) fn locate_or_want(
        &mut self,
        (link, req): (LinkId, u64),
        key: StreamKey,
        direct: bool,
        now: Time,
    ) {
        let owned = self.registry.stream(&key).is_some_and(|s| s.owner.is_some());
        if !owned
            && self.offers.wanting.len() < self.limits.cluster_waiting
            && let Some(node) = self.offerer(&key, now)
        {
            self.tell(&node, Message::Want { key: key.clone() });
            // Before the asker gives up.
            let until = now + Duration::from_millis(self.limits.cluster_answer_ms / 2);
            return self.offers.wanting.push(Wanting { until, link, req, key, direct });
        }
        self.locate((link, req), key, direct, now);
    }

    /// A stream was claimed: those who wait for it are told where it is.
    pub(super) fn answer_wanting(&mut self, key: &StreamKey, now: Time) {
        let all = std::mem::take(&mut self.offers.wanting);
        let (answered, later): (Vec<Wanting>, _) = all.into_iter().partition(|w| w.key == *key);
        self.offers.wanting = later;
        for w in answered {
            self.locate((w.link, w.req), w.key, w.direct, now);
        }
    }

    /// Nobody claimed what was wanted.
    pub(super) fn give_up_wanting(&mut self, now: Time) {
        let all = std::mem::take(&mut self.offers.wanting);
        let (over, later): (Vec<Wanting>, _) = all.into_iter().partition(|w| w.until <= now);
        self.offers.wanting = later;
        for Wanting { link, req, key, .. } in over {
            self.out.push_back(Output::ToLink(link, Message::NotFound { req, key }));
        }
    }
}
