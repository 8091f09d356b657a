//! Switches that only a simulation throws: bugs that are planted to prove that the checkers see them, and sites where
//! something unlikely but legal happens on purpose.
//!
//! Without the feature `simulation` (which no shipped binary has) every switch is off and costs nothing.

/// A bug that somebody really had, planted behind a switch. Each breaks an invariant that a checker must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// An edge whose link to the origin broke never looks for it again (L3).
    EdgeNeverRecovers,
}

impl Bug {
    /// All of them.
    pub const ALL: &'static [Bug] = &[Bug::EdgeNeverRecovers];
}

/// A place in the code where something unlikely happens on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    /// A session's machine panics.
    SessionPanics,
}

/// What is switched on. Handed in with the limits, so that every machine can ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    #[cfg(feature = "simulation")]
    on: On,
}

#[cfg(feature = "simulation")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct On {
    planted: Option<Bug>,
    sites: Option<u64>,
}

#[cfg(feature = "simulation")]
impl Switches {
    /// With a bug planted.
    #[must_use]
    pub fn plant(mut self, bug: Bug) -> Switches {
        self.on.planted = Some(bug);
        self
    }

    /// With sites chosen by a seed: each is either off for the whole run, or on and then happens now and then.
    #[must_use]
    pub fn sites(mut self, seed: u64) -> Switches {
        self.on.sites = Some(seed);
        self
    }

    /// Whether this bug is planted.
    pub fn planted(self, bug: Bug) -> bool {
        self.on.planted == Some(bug)
    }

    /// Whether a site happens now. `key` tells the occasions of a site apart; the same key gives the same answer, so
    /// that no occasion changes another.
    pub fn happens(self, site: Site, key: u64) -> bool {
        let Some(seed) = self.on.sites else { return false };
        let chosen = mix(seed ^ (site as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        chosen.is_multiple_of(4) && mix(chosen ^ key).is_multiple_of(64)
    }
}

#[cfg(not(feature = "simulation"))]
impl Switches {
    /// Whether this bug is planted: never.
    pub const fn planted(self, _: Bug) -> bool {
        false
    }

    /// Whether a site happens now: never.
    pub const fn happens(self, _: Site, _: u64) -> bool {
        false
    }
}

/// The finaliser of splitmix64 (Steele, Lea and Flood, 2014).
#[cfg(feature = "simulation")]
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
