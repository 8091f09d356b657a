//! What operators tell nodes through the manager: to take nothing new, to have a stream before its viewers come.

use super::Manager;
use crate::auth::REVOKED_BYTES;
use crate::cluster::NodeId;
use crate::cluster::placement::{Refusal, pick};
use crate::error::quote;
use crate::ids::Role;
use crate::io::Level;
use crate::media::key::StreamKey;
use crate::time::Time;
use crate::wire::link::Message;
use std::collections::BTreeSet;

/// What a node is to do about new work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainOrder {
    /// Nothing new from now on; false: back into service.
    pub on: bool,
    /// What runs is ended after this, milliseconds; 0: it may stay.
    pub within_ms: u64,
    /// The process ends when nothing is left, as after SIGTERM.
    pub stop: bool,
}

fn no_such_node(text: &str) -> Refusal {
    let text = format!("no node {} is registered here; `headwater ctl nodes` lists them", quote(text));
    Refusal::new("no_such_node", 404, text)
}

/// The process that a node is a loop of, or its own name.
fn process_of(id: &NodeId) -> &str {
    id.0.split_once('/').map_or(id.0.as_str(), |(process, _)| process)
}

impl Manager {
    /// The node that an operator means by its name, or by its public address where that is one process's only.
    ///
    /// # Errors
    /// 404 if there is none; says what to do.
    pub fn find_node(&self, text: &str) -> Result<NodeId, Refusal> {
        let named = NodeId(text.to_owned());
        if self.registry.node(&named).is_some() {
            return Ok(named);
        }
        let nodes = self.find_process(text)?;
        nodes.into_iter().next().ok_or_else(|| no_such_node(text))
    }

    /// The nodes of the process that an operator means: one, or all its loops (`node.loops`), whose names are `name/0`,
    /// `name/1` and so on. The name of one of them means all, and so do `name` and the address.
    ///
    /// # Errors
    /// 404 if there is none, or if several processes have that address; says what to do.
    pub fn find_process(&self, text: &str) -> Result<Vec<NodeId>, Refusal> {
        let nodes = self.registry.nodes();
        let of = |process: &str| -> Vec<NodeId> {
            nodes.keys().filter(|id| process_of(id) == process).cloned().collect()
        };
        let named = match nodes.get_key_value(&NodeId(text.to_owned())) {
            Some((id, _)) => of(process_of(id)),
            None => of(text),
        };
        if !named.is_empty() {
            return Ok(named);
        }
        let at = |n: &&crate::cluster::registry::Node| {
            let a = &n.info.advertised;
            a.host() == text || a.public.to_string() == text || a.private.to_string() == text
        };
        let found: Vec<NodeId> = nodes.values().filter(at).map(|n| n.info.id.clone()).collect();
        let processes: BTreeSet<&str> = found.iter().map(process_of).collect();
        match processes.len() {
            1 => Ok(found),
            0 => Err(no_such_node(text)),
            several => Err(Refusal::new(
                "which_node",
                404,
                format!("{several} nodes have the address {}; use a node's name", quote(text)),
            )),
        }
    }

    /// Tells a node to take nothing new (or to take it again). It is given out to nobody from now on, whether or not
    /// its version understands the order.
    ///
    /// # Errors
    /// 404 if there is no such node, 503 if it cannot be told now.
    pub fn drain_node(&mut self, node: &NodeId, order: DrainOrder) -> Result<(), Refusal> {
        let Some(entry) = self.registry.node(node) else {
            return Err(no_such_node(&node.0));
        };
        if order.stop && entry.link.is_none() {
            let text =
                format!("the link to node {} is broken; end its process on its own host", quote(&node.0));
            return Err(Refusal::new("node_unreachable", 503, text));
        }
        self.registry.order_drain(node, order.on);
        let DrainOrder { on, within_ms, stop } = order;
        self.tell(node, Message::Drain { on, within_ms, stop });
        let what = match (on, stop) {
            (false, _) => "is back in service",
            (true, false) => "takes nothing new from now on",
            (true, true) => "ends when its sessions have, or at its deadline",
        };
        self.log(Level::Info, format!("an operator's order: node {} {what}", quote(&node.0)));
        Ok(())
    }

    /// A node had something revoked: the others are told, and those that register later.
    pub(super) fn revoked_at(&mut self, at: &NodeId, name: String) {
        if self.revoked.contains(&name) {
            return;
        }
        if name.len() > REVOKED_BYTES || self.revoked.len() >= self.limits.auth_revoked {
            let text = format!(
                "a revocation at node {} reaches no other node: it has {} bytes ({REVOKED_BYTES} are the most), and {} are \
                 kept (limits.auth_revoked); write it to auth.revoked of every node",
                quote(&at.0),
                name.len(),
                self.revoked.len()
            );
            return self.log(Level::Warn, text);
        }
        self.revoked.insert(name.clone());
        let others: Vec<NodeId> = self.registry.nodes().keys().filter(|n| *n != at).cloned().collect();
        let text = format!(
            "{} was revoked at node {}; {} others are told",
            quote(&name),
            quote(&at.0),
            others.len()
        );
        self.log(Level::Info, text);
        for node in others {
            self.tell(&node, Message::Revoke { name: name.clone() });
        }
    }

    /// A node that registered anew may have missed what it was told.
    pub(super) fn repeat_orders(&mut self, node: &NodeId) {
        if self.registry.node(node).is_some_and(|n| n.ordered_drain) {
            self.tell(node, Message::Drain { on: true, within_ms: 0, stop: false });
        }
        for name in self.revoked.clone() {
            self.tell(node, Message::Revoke { name });
        }
    }

    /// Has a stream pulled to the first `count` edges that its viewers would be sent to. Answers those.
    ///
    /// # Errors
    /// 404 if nobody publishes it, 503 if no edge can be used.
    pub fn warm(
        &mut self,
        key: &StreamKey,
        count: usize,
        for_ms: u64,
        now: Time,
    ) -> Result<Vec<NodeId>, Refusal> {
        if self.registry.stream(key).is_none() {
            return Err(Refusal::new("not_found", 404, format!("nobody publishes {key}")));
        }
        let candidates = self.registry.candidates(now);
        let edges: Vec<NodeId> = pick(Role::Edge, key, &candidates, &[], false, count)?
            .into_iter()
            .map(|(node, _)| node.clone())
            .collect();
        for edge in &edges {
            self.tell(edge, Message::Warm { key: key.clone(), for_ms });
        }
        Ok(edges)
    }
}
