//! Who is given out: pure functions from what is known of the nodes to a choice, with the reasons for it.
//!
//! Origins are chosen by load: the least used one takes the stream. Edges are chosen by stream first and load second
//! (rendezvous hashing with bounded load), so that a stream is pulled to few edges however many there are.

#[cfg(test)]
pub(crate) mod tests;

use crate::cluster::NodeId;
use crate::ids::Role;
use crate::media::key::StreamKey;
use sha2::{Digest, Sha256};
use std::fmt;

/// "All of it", in parts per million.
pub const FULL_PPM: u64 = 1_000_000;

/// A node as placement sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its name.
    pub node: &'a NodeId,
    /// Where it stands.
    pub region: &'a str,
    /// What it may be given out for.
    pub roles: &'a [Role],
    /// Its link stands and its lease runs.
    pub alive: bool,
    /// It takes nothing new.
    pub draining: bool,
    /// How much of it is used, parts per million, reservations included; [`FULL_PPM`] or more: full.
    pub used_ppm: u64,
    /// What one more session adds to that.
    pub step_ppm: u64,
}

/// How many nodes were passed over, by the first reason that held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PassedOver {
    /// The link is broken or the lease has run out.
    pub dead: usize,
    /// Draining.
    pub draining: usize,
    /// Full.
    pub full: usize,
    /// In another region than the one that was chosen.
    pub region: usize,
    /// The stream's hash comes to them first, but they carry too much already (edges only).
    pub busy: usize,
}

/// Why a node was chosen.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Why {
    /// The rule that decided.
    pub rule: &'static str,
    /// How much of the chosen node was used, parts per million.
    pub used_ppm: u64,
    /// Nodes with the role, whatever their state.
    pub known: usize,
    /// Those that were passed over.
    pub passed: PassedOver,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = &self.passed;
        write!(
            f,
            "{}, {}.{:02} % used; of {} nodes {} dead, {} draining, {} full, {} in other regions, {} busier than the mean",
            self.rule,
            self.used_ppm / 10_000,
            self.used_ppm % 10_000 / 100,
            self.known,
            p.dead,
            p.draining,
            p.full,
            p.region,
            p.busy
        )
    }
}

/// Why nobody could be given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A fixed word.
    pub code: &'static str,
    /// A sentence for the client and the operator.
    pub text: String,
    /// The HTTP status that fits.
    pub status: u16,
}

impl Refusal {
    /// A refusal with the HTTP status that fits.
    pub fn new(code: &'static str, status: u16, text: impl Into<String>) -> Refusal {
        Refusal { code, text: text.into(), status }
    }
}

/// A fixed hash of a stream's name and a node's name: ties and edges are decided by it, alike on every manager.
pub fn affinity(key: &StreamKey, node: &NodeId) -> u64 {
    let mut hash = Sha256::new();
    hash.update(key.as_str().as_bytes());
    hash.update([0]);
    hash.update(node.0.as_bytes());
    hash.finalize().iter().take(8).fold(0, |n, byte| n << 8 | u64::from(*byte))
}

/// The part that both choices share: role, life, draining, capacity, region.
fn eligible<'c, 'a>(
    role: Role,
    candidates: &'c [Candidate<'a>],
    regions: &[&str],
    strict: bool,
) -> Result<(Vec<&'c Candidate<'a>>, Why), Refusal> {
    let mut why = Why { rule: "", used_ppm: 0, known: 0, passed: PassedOver::default() };
    let mut fit = Vec::new();
    for c in candidates.iter().filter(|c| c.roles.contains(&role)) {
        why.known += 1;
        if !c.alive {
            why.passed.dead += 1;
        } else if c.draining {
            why.passed.draining += 1;
        } else if c.used_ppm >= FULL_PPM {
            why.passed.full += 1;
        } else {
            fit.push(c);
        }
    }
    let (word, none, full) = match role {
        Role::Edge => ("edge", "no_edge", "edges_full"),
        Role::Origin => ("origin", "no_origin", "origins_full"),
        Role::Manager => ("manager", "no_manager", "managers_full"),
    };
    if fit.is_empty() {
        let p = &why.passed;
        return Err(match (why.known, p.full) {
            (0, _) => Refusal::new(none, 503, format!("no {word} is registered with this manager")),
            (_, 0) => Refusal::new(
                none,
                503,
                format!("no {word} can be used now: {} gone, {} draining", p.dead, p.draining),
            ),
            (_, n) => Refusal::new(
                full,
                503,
                format!("every {word} is at its capacity ({n} of {} full)", why.known),
            ),
        });
    }
    for region in regions {
        if fit.iter().any(|c| c.region == *region) {
            let before = fit.len();
            fit.retain(|c| c.region == *region);
            why.passed.region = before - fit.len();
            return Ok((fit, why));
        }
    }
    if strict && !regions.is_empty() {
        let asked = regions.iter().map(|r| crate::error::quote(r)).collect::<Vec<_>>().join(", ");
        return Err(Refusal::new("no_region", 404, format!("no {word} in region {asked} can be used now")));
    }
    Ok((fit, why))
}

/// Chooses the origin for a stream: in the first region of `regions` that has one to give, the least used; ties by
/// [`affinity`]. If no region has one, any node will do unless `strict`.
///
/// # Errors
/// If no origin can be given out; says why.
pub fn pick_origin<'a>(
    key: &StreamKey,
    candidates: &[Candidate<'a>],
    regions: &[&str],
    strict: bool,
) -> Result<(&'a NodeId, Why), Refusal> {
    let (fit, mut why) = eligible(Role::Origin, candidates, regions, strict)?;
    let least = fit.iter().map(|c| c.used_ppm).min().unwrap_or(0);
    let ties = fit.iter().filter(|c| c.used_ppm == least);
    let Some(best) = ties.max_by_key(|c| (affinity(key, c.node), c.node)) else {
        return Err(Refusal::new("no_origin", 503, "no origin can be used now"));
    };
    (why.rule, why.used_ppm) = ("least used", least);
    Ok((best.node, why))
}

/// Below this share an edge is never too busy for a stream that hashes to it, parts per million.
const CALM_PPM: u64 = 100_000;

/// Chooses the edge for a viewer of a stream: in the region as [`pick_origin`], the first in the order of
/// [`affinity`] that carries at most 1.25 times the mean (or a tenth of what it can).
///
/// # Errors
/// If no edge can be given out; says why.
pub fn pick_edge<'a>(
    key: &StreamKey,
    candidates: &[Candidate<'a>],
    regions: &[&str],
    strict: bool,
) -> Result<(&'a NodeId, Why), Refusal> {
    let (mut fit, mut why) = eligible(Role::Edge, candidates, regions, strict)?;
    let mean = fit.iter().map(|c| c.used_ppm).sum::<u64>() / (fit.len() as u64).max(1);
    let bound = (mean + mean / 4).max(CALM_PPM);
    fit.sort_by_cached_key(|c| std::cmp::Reverse((affinity(key, c.node), c.node)));
    let within = fit.iter().position(|c| c.used_ppm.saturating_add(c.step_ppm) <= bound);
    // Where one step is larger than the bound nobody fits it; then load alone decides.
    let chosen = within.or_else(|| {
        fit.iter()
            .enumerate()
            .min_by_key(|(i, c)| (c.used_ppm.saturating_add(c.step_ppm), *i))
            .map(|(i, _)| i)
    });
    let Some((at, best)) = chosen.and_then(|i| fit.get(i).map(|c| (i, c))) else {
        return Err(Refusal::new("no_edge", 503, "no edge can be used now"));
    };
    why.rule = if within.is_some() { "by stream, load bounded" } else { "least used" };
    why.passed.busy = if within.is_some() { at } else { 0 };
    why.used_ppm = best.used_ppm;
    Ok((best.node, why))
}

/// Chooses up to `count` nodes for a stream, the best first: [`pick_origin`] or [`pick_edge`], again among the rest.
///
/// # Errors
/// If not even one can be given out, or, where `strict`, fewer than `count`; says why.
pub fn pick<'a>(
    role: Role,
    key: &StreamKey,
    candidates: &[Candidate<'a>],
    regions: &[&str],
    strict: bool,
    count: usize,
) -> Result<Vec<(&'a NodeId, Why)>, Refusal> {
    let mut left = candidates.to_vec();
    let mut chosen = Vec::new();
    while chosen.len() < count {
        let next = match role {
            Role::Edge => pick_edge(key, &left, regions, strict),
            _ => pick_origin(key, &left, regions, strict),
        };
        match next {
            Ok((node, why)) => {
                left.retain(|c| c.node != node);
                chosen.push((node, why));
            }
            Err(refusal) if chosen.is_empty() => return Err(refusal),
            Err(_) if strict => return Err(too_few(chosen.len(), count)),
            Err(_) => break,
        }
    }
    Ok(chosen)
}

/// The refusal of a strict question for more nodes than there are.
pub fn too_few(have: usize, wanted: usize) -> Refusal {
    Refusal::new(
        "too_few",
        404,
        format!("{wanted} nodes were asked for with strict, but only {have} can be used now"),
    )
}
