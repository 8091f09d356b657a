//! Who is given out: the questions of clients, from the books to a choice that is written down.

use super::placed::{Choice, Placed, considered};
use super::{Action, Manager, Output, Pairing, Placement};
use crate::cluster::placement::{Candidate, Refusal, Why, pick, pick_origin, too_few};
use crate::cluster::registry::StreamState;
use crate::cluster::{LinkId, NodeId};
use crate::ids::Role;
use crate::media::key::StreamKey;
use crate::time::Time;
use crate::wire::link::Message;

/// The nodes that were chosen, best first, and why the first was.
type Chosen = (Vec<NodeId>, Why);

impl Manager {
    /// Answers a client's question from the books, and remembers why.
    pub(super) fn pair(&mut self, pairing: &Pairing, now: Time) -> Result<Box<Placement>, Refusal> {
        let (role, chosen) = match pairing.action {
            Action::Broadcast => (Role::Origin, self.choose_origins(pairing, now)),
            Action::Subscribe => (Role::Edge, self.choose_edges(pairing, now)),
        };
        let first = chosen.as_ref().ok().and_then(|(nodes, _)| nodes.first());
        let choice = Choice {
            at: now,
            action: pairing.action,
            regions: pairing.regions.clone(),
            strict: pairing.strict,
            considered: considered(role, &self.candidates(pairing, now), first),
            outcome: chosen.clone(),
        };
        let result = chosen.and_then(|(nodes, why)| self.placement(&nodes, &pairing.key, why));
        if let Ok(placement) = &result {
            match pairing.action {
                Action::Broadcast => self.registry.reserve(&pairing.key, &placement.node.id, now),
                Action::Subscribe => self.registry.expect_viewer(&placement.node.id, now),
            }
        }
        // Names that nobody publishes are asked for again and again; they must not push out what is worth knowing.
        if result.as_ref().is_err_and(|r| r.code == "not_found") {
            return result;
        }
        self.choices.keep(&pairing.key, choice, self.limits.placements_kept);
        result
    }

    /// Where somebody goes on who is at a node that takes nothing new.
    pub(super) fn relocate(
        &mut self,
        (link, req): (LinkId, u64),
        key: StreamKey,
        publishes: bool,
        now: Time,
    ) {
        let Some(asker) = self.registry.node_at(link).cloned() else {
            return self.relocated(link, req, None);
        };
        let region = self.registry.node(&asker).map(|n| n.info.region.clone());
        let action = if publishes { Action::Broadcast } else { Action::Subscribe };
        let regions = region.into_iter().collect();
        let pairing = Pairing { action, key, regions, strict: false, count: 1, leaves: Some(asker) };
        let found = self.pair(&pairing, now).ok();
        self.relocated(link, req, found);
    }

    pub(super) fn relocated(&mut self, link: LinkId, req: u64, to: Option<Box<Placement>>) {
        let base = |tls| to.as_ref().map(|p| p.node.advertised.rtmp_base(tls)).unwrap_or_default();
        let [rtmp, rtmps] = [false, true].map(base);
        let node = to.filter(|_| !rtmp.is_empty()).map(|p| p.node.id.0).unwrap_or_default();
        self.out.push_back(Output::ToLink(link, Message::Relocated { req, node, rtmp, rtmps }));
    }

    /// The nodes that there are for a question.
    fn candidates(&self, pairing: &Pairing, now: Time) -> Vec<Candidate<'_>> {
        let mut all = self.registry.candidates(now);
        all.retain(|c| pairing.leaves.as_ref() != Some(c.node));
        all
    }

    fn choose_origins(&self, pairing: &Pairing, now: Time) -> Result<Chosen, Refusal> {
        let Pairing { key, strict, count, .. } = pairing;
        let stream = self.registry.stream(key);
        if pairing.leaves.is_none() && stream.is_some_and(|s| s.state == StreamState::Live) {
            return Err(Refusal::new("name_busy", 409, super::busy(key)));
        }
        let regions = pairing.regions();
        let held = stream.and_then(|s| s.owner.clone());
        let reserved = self.registry.reserved(key).cloned();
        let candidates = self.candidates(pairing, now);
        // A name stays where it is (or was just sent) while that node can take it and stands where it is wanted.
        for (node, rule) in [(held, "was published there"), (reserved, "was given out already")] {
            let Some(node) = node else { continue };
            let (mine, others): (Vec<Candidate<'_>>, Vec<_>) =
                candidates.iter().copied().partition(|c| *c.node == node);
            if let Ok((_, mut why)) = pick_origin(key, &mine, &regions, !regions.is_empty()) {
                why.rule = rule;
                let rest = count.saturating_sub(1);
                let mut nodes = vec![node];
                match pick(Role::Origin, key, &others, &regions, *strict, rest) {
                    Ok(more) => nodes.extend(more.into_iter().map(|(n, _)| n.clone())),
                    Err(_) if *strict => return Err(too_few(1, *count)),
                    Err(_) => {}
                }
                return Ok((nodes, why));
            }
        }
        first_of(pick(Role::Origin, key, &candidates, &regions, *strict, *count)?)
    }

    fn choose_edges(&self, pairing: &Pairing, now: Time) -> Result<Chosen, Refusal> {
        let Pairing { key, strict, count, .. } = pairing;
        if self.registry.stream(key).is_none() && self.offerer(key, now).is_none() {
            return Err(Refusal::new("not_found", 404, format!("nobody publishes {key}")));
        }
        let candidates = self.candidates(pairing, now);
        first_of(pick(Role::Edge, key, &candidates, &pairing.regions(), *strict, *count)?)
    }

    fn placement(&self, nodes: &[NodeId], key: &StreamKey, why: Why) -> Result<Box<Placement>, Refusal> {
        let epoch = self.registry.stream(key).map(|s| s.epoch);
        let mut known = nodes.iter().filter_map(|n| self.registry.node(n)).map(|n| n.info.clone());
        match known.next() {
            Some(node) => Ok(Box::new(Placement { node, epoch, why, others: known.collect() })),
            None => Err(Refusal::new("no_origin", 503, "the node has just gone; try again")),
        }
    }

    /// What is remembered of how a stream and its viewers were placed.
    pub fn placed(&self, key: &StreamKey) -> Option<&Placed> {
        self.choices.of(key)
    }

    /// How many streams something is remembered of.
    pub fn placed_count(&self) -> usize {
        self.choices.len()
    }
}

fn first_of(picked: Vec<(&NodeId, Why)>) -> Result<Chosen, Refusal> {
    let Some((_, why)) = picked.first().cloned() else {
        return Err(Refusal::new("bad_count", 400, "no node at all was asked for"));
    };
    Ok((picked.into_iter().map(|(n, _)| n.clone()).collect(), why))
}
