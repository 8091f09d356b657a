//! Switches that only a simulation throws: bugs that are planted to prove that the checkers see them, and sites where
//! something unlikely but legal happens on purpose.
//!
//! Without the feature `simulation` (which no shipped binary has) every switch is off and costs nothing.

/// A bug, planted behind a switch, like one that somebody really had. Each breaks an invariant that a checker must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// An edge whose pull broke never looks for the stream again (L3). Like media servers whose edges had to be
    /// restarted after their origin was.
    EdgeNeverRecovers,
    /// A pull that is tried again dials the address that it had first, wherever the stream is now (L3). Like relays whose
    /// retry held on to the origin of the first attempt.
    RetryAsksFirstOrigin,
    /// The manager keeps and gives out nodes whose lease has run out (S2). Like stream managers that sent publishers to
    /// origins that were long gone.
    StaleEntry,
    /// When a node's lease runs out, the manager takes the streams of all others too (S2). Like brokers whose time-out
    /// removed by name what another node had registered since.
    TimeoutTakesOthers,
    /// A node never reports that a publisher is silent, so that one that vanished keeps its name busy (L1). Like servers
    /// that answered "already publishing" until TCP gave up.
    ZombiePublisher,
    /// A viewer that asks a moment before the stream is published is forgotten and waits for ever (L2). Like servers in
    /// which a publish that raced a read left the reader without a stream.
    PublishRacesRead,
    /// The manager grants a name to its next publisher under the epoch of the last one (S1). Like lock services without a
    /// fencing number.
    EpochNotRaised,
    /// Sound of one pulled stream goes into another (S3). Like relays that mixed up channels which shared a connection.
    CrossStream,
    /// A viewer that was too slow gets pictures again before the next key frame (S4). Like servers that dropped single
    /// frames of a slow reader and showed green pictures.
    GopTailKept,
    /// A frame that is not handed to a viewer is not counted (S5).
    DropNotCounted,
    /// Sound that an origin counts as passed on does not leave (S5). Like relays that counted what they were offered.
    RelayDropNotCounted,
    /// A stream's ring grows without limit (S6). Like servers whose cache of a group of pictures was bounded by the
    /// encoder's key frame interval alone.
    QueueLimitIgnored,
    /// Newcomers are let in whatever a node holds, and rings are not made smaller for them (S6). Like servers that took
    /// viewers until the kernel killed them.
    MemoryIgnored,
    /// A viewer that leaves while it waits stays in the list of those who wait (S7). Like the leaked readers of many
    /// servers.
    SessionLeftInMap,
    /// An origin that is told that its name passed to another keeps its publisher (L8). Like both halves of a split
    /// cluster that went on for ever.
    FenceIgnored,
    /// Media goes on to an address that has been silent for longer than consent lasts (S9). Like servers that flooded an
    /// address whose owner had gone.
    ConsentIgnored,
    /// An unauthenticated STUN request gets an answer three times its size (S10). Like TURN servers that were used as
    /// reflectors.
    AmplifiedAnswer,
    /// An edge is told to pull from another edge, and nobody looks whether that goes in a circle (S11).
    RelayLoop,
    /// The websocket proxy dials whatever address a client names (S11). Like proxies that were used to reach what only
    /// they could reach.
    ProxyUnchecked,
    /// A node reports that it has no sessions, whatever it has (S14).
    LoadNotReported,
    /// The manager forgets whom it has just sent to a node (S14). Like balancers that sent a whole crowd to the server that
    /// was idle a second ago.
    GrantsNotCounted,
    /// A link's keep-alive leaves its timer where it was, so that the loop spins (S16).
    TimerInThePast,
    /// A node that has nothing to do wakes every five milliseconds (S16). Like servers that poll.
    RestlessTimer,
    /// A restarted manager does not believe nodes that tell it what they publish (L4).
    ManagerNeverRelearns,
    /// A viewer that takes nothing is never let go (L5).
    SlowViewerKept,
    /// A node that drains does not end the sessions that stay (L6).
    DrainNeverEnds,
    /// An RTMP peer that answers no ping is not let go (L7).
    HalfOpenKept,
    /// A name may change hands between live publishers as often as they like (L9). Like two encoders with one key that
    /// threw each other out for ever.
    TakeoverUnlimited,
}

impl Bug {
    /// All of them.
    pub const ALL: &'static [Bug] = &[
        Bug::EdgeNeverRecovers,
        Bug::RetryAsksFirstOrigin,
        Bug::StaleEntry,
        Bug::TimeoutTakesOthers,
        Bug::ZombiePublisher,
        Bug::PublishRacesRead,
        Bug::EpochNotRaised,
        Bug::CrossStream,
        Bug::GopTailKept,
        Bug::DropNotCounted,
        Bug::RelayDropNotCounted,
        Bug::QueueLimitIgnored,
        Bug::MemoryIgnored,
        Bug::SessionLeftInMap,
        Bug::FenceIgnored,
        Bug::ConsentIgnored,
        Bug::AmplifiedAnswer,
        Bug::RelayLoop,
        Bug::ProxyUnchecked,
        Bug::LoadNotReported,
        Bug::GrantsNotCounted,
        Bug::TimerInThePast,
        Bug::RestlessTimer,
        Bug::ManagerNeverRelearns,
        Bug::SlowViewerKept,
        Bug::DrainNeverEnds,
        Bug::HalfOpenKept,
        Bug::TakeoverUnlimited,
    ];
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
    /// Sound waits for the next picture though few watch. Key: time.
    SoundWaits,
    /// Few viewers are handed something in one turn of the loop. Key: time.
    SmallTurn,
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
    unasserted: bool,
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

    /// With another way of speaking to other nodes; `None`: as this version does.
    #[must_use]
    pub fn speak(mut self, speech: impl Into<Option<Speech>>) -> Switches {
        self.on.speaks = speech.into();
        self
    }

    /// How this node speaks to others, if not as this version does.
    pub fn speech(self) -> Option<Speech> {
        self.on.speaks
    }

    /// Without the assertions that are made in service, so that checkers prove what they see by themselves.
    #[must_use]
    pub fn unasserted(mut self) -> Switches {
        self.on.unasserted = true;
        self
    }

    /// Whether assertions are made.
    pub fn asserts(self) -> bool {
        !self.on.unasserted
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

    /// Whether assertions are made: always.
    pub const fn asserts(self) -> bool {
        true
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
