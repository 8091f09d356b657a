//! Planted bugs: for each invariant whose feature exists a bug that breaks it, and a scenario that shows it.
//!
//! The scenario passes without the bug; with it, that invariant is the first that is broken.

use super::scenarios as s;
use crate::world::{Violation, World};
use proto_core::simulation::{Bug, Switches};

/// One planted bug.
#[derive(Clone, Copy, Debug)]
pub struct Planted {
    /// Its name in commands.
    pub name: &'static str,
    /// The bug.
    pub bug: Bug,
    /// The invariant that must see it, such as `S1`.
    pub invariant: &'static str,
    scenario: fn(&mut World),
}

impl Planted {
    /// Runs its scenario, with the bug or without.
    ///
    /// # Errors
    /// The first broken invariant.
    pub fn run(&self, seed: u64, planted: bool) -> Result<(), Violation> {
        // Assertions in service would be first; what is proven here is what checkers see from outside.
        let switches = Switches::default().plant(self.bug).unasserted();
        self.run_with(seed, if planted { switches } else { Switches::default() })
    }

    /// Runs its scenario with the bug, and with the assertions that nodes make in service.
    ///
    /// # Errors
    /// The first broken invariant.
    pub fn run_asserted(&self, seed: u64) -> Result<(), Violation> {
        self.run_with(seed, Switches::default().plant(self.bug))
    }

    fn run_with(&self, seed: u64, switches: Switches) -> Result<(), Violation> {
        let mut world = quiet_unless_asked(seed);
        world.switch(switches);
        (self.scenario)(&mut world);
        world.violation().cloned().map_or(Ok(()), Err)
    }
}

/// Faults of all kinds in a small cluster, then recovery, then everyone leaves. `checked`: with all checks, else only
/// those of players and of the end.
///
/// # Errors
/// The first broken invariant.
pub fn storm(seed: u64, checked: bool) -> Result<(), Violation> {
    let mut world = quiet_unless_asked(seed);
    if !checked {
        world.unchecked();
    }
    s::anything_happens(&mut world);
    world.violation().cloned().map_or(Ok(()), Err)
}

/// With a log if somebody wants to read it.
fn quiet_unless_asked(seed: u64) -> World {
    if std::env::var_os("WORLD_LOG").is_some() { World::new(seed) } else { World::quiet(seed) }
}

macro_rules! table {
    ($($name:literal $bug:ident $invariant:literal $scenario:ident;)+) => {
        &[$(Planted { name: $name, bug: Bug::$bug, invariant: $invariant, scenario: s::$scenario },)+]
    };
}

/// All planted bugs.
pub fn table() -> &'static [Planted] {
    table! {
        "epoch-not-raised" EpochNotRaised "S1" a_publisher_changes_its_origin;
        "stale-entry" StaleEntry "S2" an_origin_is_gone;
        "timeout-takes-others" TimeoutTakesOthers "S2" an_idle_origin_dies;
        "cross-stream" CrossStream "S3" two_streams_share_a_link;
        "gop-tail-kept" GopTailKept "S4" a_viewer_is_slow;
        "drop-not-counted" DropNotCounted "S5" a_viewer_is_slow;
        "relay-drop-not-counted" RelayDropNotCounted "S5" some_viewers_by_tcp;
        "relay-drop-not-counted-by-quic" RelayDropNotCounted "S5" a_relayed_stream_rests;
        "queue-limit-ignored" QueueLimitIgnored "S6" a_small_ring;
        "memory-ignored" MemoryIgnored "S6" more_come_than_fit;
        "session-left-in-map" SessionLeftInMap "S7" a_viewer_leaves_while_it_waits;
        "consent-ignored" ConsentIgnored "S9" a_whep_viewer_vanishes;
        "amplified-answer" AmplifiedAnswer "S10" a_stranger_probes;
        "relay-loop" RelayLoop "S11" an_edge_loses_its_origin;
        "proxy-unchecked" ProxyUnchecked "S11" a_client_names_the_manager_as_its_node;
        "load-not-reported" LoadNotReported "S14" some_viewers;
        "grants-not-counted" GrantsNotCounted "S14" a_crowd_asks_where_to_watch;
        "timer-in-the-past" TimerInThePast "S16" nobody_does_anything;
        "restless-timer" RestlessTimer "S16" nobody_does_anything;
        "zombie-publisher" ZombiePublisher "L1" a_publisher_vanishes;
        "publish-races-read" PublishRacesRead "L2" a_play_comes_before_its_publish;
        "edge-never-recovers" EdgeNeverRecovers "L3" origin_restarts;
        "retry-asks-first-origin" RetryAsksFirstOrigin "L3" publisher_moves_from_a_dead_origin;
        "manager-never-relearns" ManagerNeverRelearns "L4" the_manager_restarts;
        "slow-viewer-kept" SlowViewerKept "L5" a_viewer_stops_reading;
        "drain-never-ends" DrainNeverEnds "L6" an_edge_drains;
        "half-open-kept" HalfOpenKept "L7" a_publisher_goes_silent_for_good;
        "fence-ignored" FenceIgnored "L8" a_split_cluster_heals;
        "takeover-unlimited" TakeoverUnlimited "L9" two_silent_encoders;
    }
}

/// Invariants (or parts of them) without a planted bug here: the name, and why.
pub fn waiting() -> &'static [(&'static str, &'static str)] {
    &[
        ("S8", "there is no authorisation yet"),
        ("S12", "shown by running with and without misbehaving peers, not by one planted bug"),
        ("S13", "shown by the site at which a session panics"),
        ("S15", "shown by running the same seed twice"),
        ("L8", "there is one manager yet; two owners after a split cluster healed are planted"),
    ]
}
