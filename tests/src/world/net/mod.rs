//! The network: who reaches whom, and what becomes of what is sent.

mod close;
pub mod link;
pub mod nat;
mod tcp;
mod udp;

use super::{ClientId, Party, World};
use link::Access;
use nat::{Nat, NatId};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::time::Duration;
use tcp::Pipes;
use udp::Flow;
pub use udp::{Content, Fate};

/// The network of a world.
#[derive(Debug, Default)]
pub(super) struct Net {
    pub(super) pipes: Pipes,
    /// How often each party has dialled.
    dials: BTreeMap<Party, u64>,
    /// Who hears what others send to a UDP address.
    pub(super) taps: BTreeMap<SocketAddr, Vec<ClientId>>,
    pub(super) forged: u64,
    cut: BTreeSet<Party>,
    /// From whom to whom nothing passes.
    blocked: BTreeSet<(Party, Party)>,
    links: BTreeMap<Party, Access>,
    flows: BTreeMap<u64, Flow>,
    nats: Vec<Nat>,
    /// Behind what the next client sits.
    pub(super) behind: Option<NatId>,
    /// Bytes of RTP that each party sent.
    said: BTreeMap<Party, u64>,
    /// The next client's connections are TLS.
    pub(super) secure: bool,
    /// RTP packets that arrived.
    pub(super) media: u64,
    /// What became of datagrams, while somebody wants to know.
    fates: Option<Vec<Fate>>,
}

/// The number for one decision: a keyed hash of its kind, what it is about, and the how-manieth it is.
pub(super) fn dice(seed: u64, kind: u64, about: u64, nth: u64) -> u64 {
    mix(mix(mix(seed ^ kind.wrapping_mul(0x9e37_79b9_7f4a_7c15)) ^ about) ^ nth)
}

/// The finaliser of splitmix64 (Steele, Lea and Flood, 2014).
fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The number of all datagrams from one address to another.
pub(super) fn flow_key(from: SocketAddr, to: SocketAddr) -> u64 {
    let half = |at: SocketAddr| match at {
        SocketAddr::V4(v4) => u64::from(v4.ip().to_bits()) << 16 | u64::from(v4.port()),
        SocketAddr::V6(v6) => {
            let mut h = DefaultHasher::new();
            v6.hash(&mut h);
            h.finish()
        }
    };
    mix(mix(half(from)) ^ half(to))
}

impl World {
    /// Whether what one party sends reaches another at present.
    fn passes(&self, from: Party, to: Party) -> bool {
        let net = &self.net;
        (net.cut.is_empty() || !(net.cut.contains(&from) || net.cut.contains(&to)))
            && (net.blocked.is_empty() || !net.blocked.contains(&(from, to)))
    }

    /// Whether a party is cut off from all others.
    pub(in crate::world) fn is_cut_off(&self, party: Party) -> bool {
        !self.net.cut.is_empty() && self.net.cut.contains(&party)
    }

    /// The time that anything takes between two parties over clean links.
    fn distance(&self, a: Party, b: Party) -> Duration {
        Duration::from_micros(200 + dice(self.seed, DISTANCE, a.number(), b.number()) % 9_800)
    }

    /// From now on nothing passes between a party and any other, and nobody is told.
    pub fn cut(&mut self, party: Party) {
        self.net.cut.insert(party);
        self.trace(|| format!("{party:?} is cut off"));
    }

    /// The party can be reached again.
    pub fn heal(&mut self, party: Party) {
        self.net.cut.remove(&party);
        self.trace(|| format!("{party:?} is reachable again"));
    }

    /// From now on nothing passes between these two; others reach both.
    pub fn part(&mut self, a: Party, b: Party) {
        self.net.blocked.extend([(a, b), (b, a)]);
        self.trace(|| format!("{a:?} and {b:?} are parted"));
    }

    /// From now on nothing that one party sends reaches the other; what that one sends still comes. Over TCP neither
    /// gets on for long: the one's bytes are lost, the other's are never acknowledged.
    pub fn part_one_way(&mut self, from: impl Into<Party>, to: impl Into<Party>) {
        let (from, to) = (from.into(), to.into());
        self.net.blocked.insert((from, to));
        self.trace(|| format!("nothing passes from {from:?} to {to:?}"));
    }

    /// These two reach each other again.
    pub fn join(&mut self, a: Party, b: Party) {
        self.net.blocked.remove(&(a, b));
        self.net.blocked.remove(&(b, a));
        self.trace(|| format!("{a:?} and {b:?} are joined again"));
    }

    /// All that were parted reach each other again.
    pub fn join_all(&mut self) {
        self.net.blocked.clear();
        self.trace(|| "all that were parted are joined again".to_owned());
    }

    /// Ends every fault of the network and of hosts: cuts, partitions, conditions and stalls of links, pauses, skew and
    /// jumps of clocks, limits of descriptors, refused datagrams, name servers. What crashed stays down, and
    /// translators keep their behaviour.
    pub fn heal_all(&mut self) {
        self.trace(|| "all faults end".to_owned());
        self.net.cut.clear();
        self.net.blocked.clear();
        self.net.links.clear();
        self.hasten();
        self.heal_hosts();
    }
}

/// The kind of draw that says how far two parties are from each other.
const DISTANCE: u64 = 101;
