//! Makes a failing plan small: the same invariant stays broken with as few operations as possible.
//!
//! Delta debugging (Zeller and Hildebrandt, 2002) over operations, after whole kinds of operations and whole clients
//! were tried, which go quickest. Times and numbers of what remains stay as they were: draws of the world are keyed, so
//! what remains happens as before where nothing led to it.

use super::plan::{Op, Plan, Step};
use std::collections::BTreeSet;
use std::mem::{Discriminant, discriminant};

/// Makes `plan` small. `fails` says whether a plan still breaks the same invariant; it is asked until it answers with
/// none, which means that time is over.
pub fn shrink(plan: &Plan, mut fails: impl FnMut(&Plan) -> Option<bool>) -> Plan {
    let mut small = plan.clone();
    loop {
        let before = small.clone();
        let passes = [cut_tail, drop_kinds, drop_clients, drop_steps, drop_nodes];
        for pass in passes {
            if pass(&mut small, &mut fails).is_none() {
                return small;
            }
        }
        if small == before {
            return small;
        }
    }
}

type Fails<'a> = dyn FnMut(&Plan) -> Option<bool> + 'a;

/// Takes a smaller plan if it still fails.
fn attempt(small: &mut Plan, candidate: Plan, fails: &mut Fails<'_>) -> Option<bool> {
    if candidate == *small {
        return Some(false);
    }
    let still = fails(&candidate)?;
    if still {
        *small = candidate;
    }
    Some(still)
}

fn without(plan: &Plan, keep: impl Fn(&Step) -> bool) -> Plan {
    let mut plan = plan.clone();
    plan.steps.retain(keep);
    plan
}

/// Ends the run earlier.
fn cut_tail(small: &mut Plan, fails: &mut Fails<'_>) -> Option<()> {
    while small.span > 1_000 {
        let mut shorter = small.clone();
        shorter.span = small.span / 4 * 3;
        shorter.steps.retain(|s| s.at < shorter.span);
        if !attempt(small, shorter, fails)? {
            break;
        }
    }
    Some(())
}

/// Takes out all operations of a kind, and what the code does on purpose.
fn drop_kinds(small: &mut Plan, fails: &mut Fails<'_>) -> Option<()> {
    if small.sites {
        let calm = Plan { sites: false, ..small.clone() };
        attempt(small, calm, fails)?;
    }
    if small.quic {
        let plain = Plan { quic: false, ..small.clone() };
        attempt(small, plain, fails)?;
    }
    let mut tried: Vec<Discriminant<Op>> = Vec::new();
    while let Some(kind) = small.steps.iter().map(|s| discriminant(&s.op)).find(|k| !tried.contains(k)) {
        tried.push(kind);
        attempt(small, without(small, |s| discriminant(&s.op) != kind), fails)?;
    }
    Some(())
}

/// Takes out a client and all that it does.
fn drop_clients(small: &mut Plan, fails: &mut Fails<'_>) -> Option<()> {
    let clients: BTreeSet<u32> = small.steps.iter().filter_map(|s| s.op.joins()).collect();
    for client in clients {
        attempt(small, without(small, |s| !s.op.concerns(client)), fails)?;
    }
    Some(())
}

/// Takes out pieces of the list, of half its length first, then smaller ones, down to single operations.
fn drop_steps(small: &mut Plan, fails: &mut Fails<'_>) -> Option<()> {
    let mut size = small.steps.len().div_ceil(2);
    while size > 0 {
        let mut from = 0;
        while from < small.steps.len() {
            let mut shorter = small.clone();
            let to = (from + size).min(shorter.steps.len());
            shorter.steps.drain(from..to);
            if !attempt(small, shorter, fails)? {
                from += size;
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    Some(())
}

/// Takes out nodes from the end, and regions. Operations of nodes that are not there do nothing.
fn drop_nodes(small: &mut Plan, fails: &mut Fails<'_>) -> Option<()> {
    let mut fewer = [
        Plan { complete: 0, ..small.clone() },
        Plan { edges: small.edges.saturating_sub(1), ..small.clone() },
        Plan { origins: small.origins.saturating_sub(1).max(1), ..small.clone() },
        Plan { regions: 1, ..small.clone() },
    ]
    .into_iter();
    fewer.try_for_each(|candidate| {
        // Each from what is small by now.
        let candidate = Plan { steps: small.steps.clone(), ..candidate };
        let merged = Plan {
            complete: candidate.complete.min(small.complete),
            edges: candidate.edges.min(small.edges),
            origins: candidate.origins.min(small.origins),
            regions: candidate.regions.min(small.regions),
            ..small.clone()
        };
        attempt(small, merged, fails).map(drop)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::generate::{Profile, of_seed};
    use crate::sim::plan::Place;

    #[test]
    fn what_does_not_matter_goes_and_what_matters_stays() {
        for seed in 0..20 {
            let mut plan = of_seed(seed, Profile::Full);
            plan.steps.push(Step { at: 3_000, op: Op::Crash(Place::Origin(1)) });
            plan.steps.push(Step { at: 5_000, op: Op::Silent(0, true) });
            plan.sort();
            let has = |p: &Plan, op: &Op| p.steps.iter().any(|s| s.op == *op);
            let mut asked = 0;
            let small = shrink(&plan, |p| {
                asked += 1;
                Some(has(p, &Op::Crash(Place::Origin(1))) && has(p, &Op::Silent(0, true)))
            });
            assert_eq!(small.steps.len(), 2, "{small}");
            assert_eq!((small.origins, small.edges, small.regions), (1, 0, 1));
            assert!(asked < 400, "{asked} runs");
        }
    }

    #[test]
    fn it_ends_when_time_is_over() {
        let plan = of_seed(3, Profile::Full);
        let mut left = 5;
        let small = shrink(&plan, |_| {
            left -= 1;
            (left > 0).then_some(false)
        });
        assert_eq!(small, plan);
    }
}
