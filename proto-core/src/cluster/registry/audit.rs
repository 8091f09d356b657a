//! Whether the manager's books agree with themselves (S7) and stay within the limits (S6).

use super::{Due, Registry, StreamState};
use crate::error::Broken;

impl Registry {
    /// A number that changes when nodes, links or streams come or go.
    pub fn shape(&self) -> u64 {
        [self.nodes.len(), self.links.len(), self.streams.len(), self.reservations.len()]
            .into_iter()
            .fold(0, |shape: u64, n| shape.wrapping_mul(1_009).wrapping_add(n as u64))
    }

    /// How many reservations and timers there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.reservations.len(), self.timers.len())
    }

    /// Whether its tables agree and its limits hold.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(&self) -> Result<(), Broken> {
        let limits = &self.limits;
        let (nodes, streams) = (self.nodes.len(), self.streams.len());
        Broken::unless(nodes <= limits.cluster_nodes && streams <= limits.cluster_streams, "S6", || {
            format!(
                "the manager knows {nodes} nodes and {streams} streams; the limits are {} and {}",
                limits.cluster_nodes, limits.cluster_streams
            )
        })?;
        for (link, id) in &self.links {
            let back = self.nodes.get(id).and_then(|n| n.link);
            Broken::unless(back == Some(*link), "S7", || {
                format!("link {link:?} leads to node {id}, whose link is {back:?}")
            })?;
        }
        for (id, node) in &self.nodes {
            for key in &node.owns {
                let owner = self.streams.get(key).and_then(|s| s.owner.as_ref());
                Broken::unless(owner == Some(id), "S7", || {
                    format!("node {id} owns {key} in the books, whose owner is {owner:?}")
                })?;
            }
            let due = node.viewers_due.len();
            Broken::unless(due <= limits.rtc_sessions, "S6", || {
                format!("{due} viewers were sent to node {id}, the limit is {}", limits.rtc_sessions)
            })?;
        }
        let owned: usize = self.nodes.values().map(|n| n.owns.len()).sum();
        let owners = self.streams.values().filter(|s| s.owner.is_some()).count();
        Broken::unless(owned == owners, "S7", || {
            format!("nodes own {owned} streams in the books, {owners} streams have an owner")
        })?;
        let held = self.streams.values().filter(|s| s.state == StreamState::Held).count();
        let holds = self.timers.keys().filter(|d| matches!(d, Due::Hold(_))).count();
        Broken::unless(held == holds, "S7", || format!("{held} streams are held, {holds} of them on a timer"))
    }
}
