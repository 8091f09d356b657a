//! Why publishers and viewers were sent where they were: kept for the names that were asked for last, so that an
//! operator can ask afterwards (`ctl why-placed`).

use super::Action;
use crate::cluster::placement::{Candidate, FULL_PPM, Refusal, Why};
use crate::cluster::{Epoch, NodeId};
use crate::error::quote;
use crate::ids::Role;
use crate::media::key::StreamKey;
use crate::time::Time;
use std::collections::{BTreeMap, VecDeque};

/// Viewers of a stream whose placement is kept.
const VIEWERS: usize = 4;
/// Nodes of one choice that are kept with their numbers.
const NODES: usize = 16;

/// A node as it stood when a choice was made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Considered {
    /// Its name.
    pub node: String,
    /// Its region.
    pub region: String,
    /// How much of it was used, parts per million, reservations included.
    pub used_ppm: u64,
    /// What stood against it, or `could be used`.
    pub state: &'static str,
}

/// One choice of the manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// When.
    pub at: Time,
    /// For a publisher or for a viewer.
    pub action: Action,
    /// The regions that were asked for, the preferred first.
    pub regions: Vec<String>,
    /// No other region would do.
    pub strict: bool,
    /// The nodes that were given out, the first for use; or why there were none.
    pub outcome: Result<(Vec<NodeId>, Why), Refusal>,
    /// The nodes with the role, as they stood; at most 16 of them, the chosen one first.
    pub considered: Vec<Considered>,
}

impl Choice {
    /// The choice in words.
    pub fn words(&self, now: Time) -> Vec<String> {
        let who = match self.action {
            Action::Broadcast => "a publisher",
            Action::Subscribe => "a viewer",
        };
        let asked = match (self.regions.as_slice(), self.strict) {
            ([], _) => "with no wish for a region".to_owned(),
            (regions, strict) => {
                let names: Vec<String> = regions.iter().map(|r| quote(r)).collect();
                let only = if strict { " and no other" } else { "" };
                format!("with a wish for region {}{only}", names.join(", then "))
            }
        };
        let ago = now.since(self.at).as_secs_f64();
        let head = match &self.outcome {
            Ok((nodes, why)) => {
                let first = nodes.first().map(|n| quote(&n.0)).unwrap_or_default();
                let rest: Vec<String> = nodes.iter().skip(1).map(|n| quote(&n.0)).collect();
                let rest =
                    if rest.is_empty() { String::new() } else { format!(" (then {})", rest.join(", ")) };
                format!("{ago:.1} s ago {who} asked {asked} and was sent to {first}{rest}: {why}")
            }
            Err(r) => format!("{ago:.1} s ago {who} asked {asked} and was refused: {} ({})", r.text, r.code),
        };
        let node = |c: &Considered| {
            let used = c.used_ppm.min(99 * FULL_PPM);
            let (whole, part) = (used / 10_000, used % 10_000 / 100);
            format!("  {} in {}: {whole}.{part:02} % used, {}", quote(&c.node), quote(&c.region), c.state)
        };
        std::iter::once(head).chain(self.considered.iter().map(node)).collect()
    }
}

/// How a name came to the node that publishes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// When.
    pub at: Time,
    /// The node.
    pub node: NodeId,
    /// Under which epoch.
    pub epoch: Epoch,
    /// In words, such as "as the manager said".
    pub how: &'static str,
}

/// What is kept of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// The last choice for a publisher.
    pub publisher: Option<Choice>,
    /// Who took the name last.
    pub taken: Option<Taken>,
    /// The last choices for viewers, the newest last.
    pub viewers: VecDeque<Choice>,
}

/// The newest choices, by stream.
#[derive(Debug, Default)]
pub(super) struct Choices {
    by_key: BTreeMap<StreamKey, Placed>,
    order: VecDeque<StreamKey>,
}

impl Choices {
    /// What is kept of a stream.
    pub(super) fn of(&self, key: &StreamKey) -> Option<&Placed> {
        self.by_key.get(key)
    }

    /// How many streams something is kept of.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// The entry of a stream; the oldest is forgotten when there are more than `most`.
    fn entry(&mut self, key: &StreamKey, most: usize) -> &mut Placed {
        if !self.by_key.contains_key(key) {
            self.order.push_back(key.clone());
            while self.order.len() > most.max(1) {
                if let Some(oldest) = self.order.pop_front() {
                    self.by_key.remove(&oldest);
                }
            }
        }
        self.by_key.entry(key.clone()).or_default()
    }

    /// Keeps a choice; of at most `most` streams.
    pub(super) fn keep(&mut self, key: &StreamKey, choice: Choice, most: usize) {
        let entry = self.entry(key, most);
        match choice.action {
            Action::Broadcast => entry.publisher = Some(choice),
            Action::Subscribe => {
                entry.viewers.push_back(choice);
                if entry.viewers.len() > VIEWERS {
                    entry.viewers.pop_front();
                }
            }
        }
    }

    /// Keeps who took a name.
    pub(super) fn take(&mut self, key: &StreamKey, taken: Taken, most: usize) {
        self.entry(key, most).taken = Some(taken);
    }
}

/// The nodes of a role as they stand, `first` before the others.
pub(super) fn considered(
    role: Role,
    candidates: &[Candidate<'_>],
    first: Option<&NodeId>,
) -> Vec<Considered> {
    let mut fit: Vec<&Candidate<'_>> = candidates.iter().filter(|c| c.roles.contains(&role)).collect();
    fit.sort_by_key(|c| (Some(c.node) != first, !c.alive, c.draining, c.used_ppm, c.node));
    fit.iter()
        .take(NODES)
        .map(|c| Considered {
            node: c.node.0.clone(),
            region: c.region.to_owned(),
            used_ppm: c.used_ppm,
            state: match c {
                c if !c.alive => "gone",
                c if c.draining => "draining",
                c if c.used_ppm >= FULL_PPM => "full",
                _ => "could be used",
            },
        })
        .collect()
}
