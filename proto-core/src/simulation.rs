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
    /// A session's machine panics. Key: the session; see [`Switches::strikes`].
    SessionPanics,
    /// The driver says that it takes a few bytes only, as if a socket were nearly full. Key: connection and time.
    ShortCredit,
    /// A viewer's turn ends after one item, as if it had taken all that it may have. Key: subscriber and time.
    ShortTurn,
    /// A message to the kernel holds one datagram, as where there is no GSO. Key: time.
    OneSegment,
    /// A timer rings late, as on a busy host. Key: when it was to ring.
    LateTimer,
    /// Machines are ticked though nothing is due. Key: time.
    IdleTick,
    /// A stream's tracks take the longest time to settle, though all are there. Key: stream.
    LateSettle,
    /// A name that was not found is not remembered. Key: time.
    ForgetfulCache,
    /// A stream's ring holds few frames. Key: stream.
    SmallRing,
    /// A link says that it is alive long before it must. Key: when it spoke last.
    EarlyKeepAlive,
    /// A node reports twice as soon. Key: time.
    EarlyReport,
    /// A broken pull waits as long as it may before it is tried again. Key: pull and time.
    LateRetry,
    /// One handshake datagram is all that a turn may bring. Key: time.
    SmallHandshakeTurn,
    /// A handshake datagram is put off to the next turn though there is room in this one. Key: time.
    LateHandshake,
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
    struck: Option<(u64, u64)>,
    speaks: Option<Speech>,
}

/// How a node speaks to other nodes, if not as this version does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// As a version would that says less: what is optional is left out.
    Older,
    /// As the next version would: with messages and fields that this one does not know.
    Newer,
    /// As a version that has nothing in common with this one: its newest and its oldest.
    Foreign(u32, u32),
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

    /// With a panic in one session only, at its `nth` input.
    #[must_use]
    pub fn strike(mut self, session: u64, nth: u64) -> Switches {
        self.on.struck = Some((session, nth));
        self
    }

    /// With another way of speaking to other nodes.
    #[must_use]
    pub fn speak(mut self, speech: Speech) -> Switches {
        self.on.speaks = Some(speech);
        self
    }

    /// How this node speaks to others, if not as this version does.
    pub fn speech(self) -> Option<Speech> {
        self.on.speaks
    }

    /// Whether a session's machine is to panic at its `nth` input: the one that was chosen, or now and then one.
    pub fn strikes(self, session: u64, nth: u64) -> bool {
        let random = || self.happens(Site::SessionPanics, session) && mix(session) % 512 == nth;
        self.on.struck == Some((session, nth)) || random()
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

    /// How this node speaks to others: as this version does.
    pub const fn speech(self) -> Option<Speech> {
        None
    }

    /// Whether a session's machine is to panic: never.
    pub const fn strikes(self, _: u64, _: u64) -> bool {
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
