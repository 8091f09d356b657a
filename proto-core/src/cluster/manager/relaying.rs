//! Where a node pulls a stream from: its origin, or another node that relays it already.

use super::{Manager, Output};
use crate::cluster::registry::{Stream, StreamState};
use crate::cluster::{LinkId, NodeId};
use crate::media::key::StreamKey;
use crate::simulation::Bug;
use crate::time::Time;
use crate::wire::link::Message;

impl Manager {
    pub(super) fn locate(&mut self, (link, req): (LinkId, u64), key: StreamKey, direct: bool, now: Time) {
        let Some(asker) = self.registry.node_at(link).cloned() else { return };
        let looped = self.limits.simulation.planted(Bug::RelayLoop);
        let via = self.registry.stream(&key).filter(|_| looped);
        let via = via.and_then(|s| s.askers.iter().find(|a| **a != asker).cloned());
        if let Some(stream) = self.registry.stream_mut(&key) {
            // Also where nobody owns it now: whoever claims it next is told to the asker at once.
            stream.askers.insert(asker.clone());
        }
        let via = via.or_else(|| if direct { None } else { self.relay_for(&asker, &key, now) });
        let live = |s: &Stream| s.state == StreamState::Live;
        let found =
            self.registry.stream(&key).and_then(|s| Some((s.epoch, via.or(s.owner.clone())?, live(s))));
        let answer = match found {
            // An owner whose link to us broke but whose lease runs may well be within the asker's reach.
            Some((epoch, node, live)) => match self.registry.node(&node) {
                Some(n) => {
                    let link_addr = n.info.advertised.link_addr();
                    Message::Located { req, key, epoch, node, link_addr, live }
                }
                None => Message::NotFound { req, key },
            },
            None => Message::NotFound { req, key },
        };
        self.out.push_back(Output::ToLink(link, answer));
    }

    /// A relay that is better for a node than the stream's origin: one in its own region, where the origin is in another, so
    /// that a stream crosses to each region once; or any with room, where the origin has little left. It relays now, not
    /// through more nodes than may be, and has room itself.
    ///
    /// Only who never had the stream is sent to a relay. What it pulls feeds nobody yet, so no circle can close.
    fn relay_for(&self, asker: &NodeId, key: &StreamKey, now: Time) -> Option<NodeId> {
        let owner = self.registry.stream(key)?.owner.as_ref()?;
        let candidates = self.registry.candidates(now);
        let of = |id: &NodeId| candidates.iter().find(|c| c.node == id);
        let (origin, region) = (of(owner)?, of(asker)?.region);
        let full = u64::from(self.limits.relay_spread_percent) * 10_000;
        let far = origin.region != region;
        let loaded = origin.used_ppm >= full;
        if !far && !loaded {
            return None;
        }
        let hops = |id: &NodeId| {
            let hops = self.registry.node(id)?.hops.get(key).copied()?;
            (1..self.limits.relay_hops).contains(&(hops as usize)).then_some(hops)
        };
        candidates
            .iter()
            .filter(|c| c.alive && !c.draining && c.node != asker && c.node != owner && c.used_ppm < full)
            .filter(|c| c.region == region || loaded)
            .filter_map(|c| Some((c.region != region, hops(c.node)?, c.used_ppm, c.node)))
            .min()
            .map(|(.., node)| node.clone())
    }
}
