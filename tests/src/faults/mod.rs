//! What goes wrong with a node, and what it costs whom: a cluster of real processes, clients of every protocol, a fault at
//! the manager, at the origin or at the edge, and counters of pictures. `cargo faults` prints the table (docs/faults.md).

mod clock;
mod network;
pub mod report;
mod scene;
mod strike;

pub use network::Network;
use scene::Scene;
use std::fmt;
use std::time::Duration;

/// Whom it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The manager: what runs must not notice.
    Manager,
    /// The origin of the streams `hit/…`.
    Origin,
    /// The edge where they are watched.
    Edge,
}

impl Victim {
    /// All of them.
    pub const ALL: [Victim; 3] = [Victim::Manager, Victim::Origin, Victim::Edge];

    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Victim::Manager => "manager",
            Victim::Origin => "origin",
            Victim::Edge => "edge",
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`, and the node is started again two seconds later.
    Restart,
    /// `kill -9`, and it stays dead; clients ask the manager again.
    Death,
    /// SIGSTOP for two seconds, which is less than the lease.
    Pause,
    /// SIGSTOP for six seconds, which is more.
    LongPause,
    /// The disk of its recording is full.
    Disk,
    /// It has no descriptor left.
    Descriptors,
    /// Its memory (`limits.memory_bytes`) is taken.
    Memory,
    /// Its wall clock jumps by an hour (in the simulator: kernels have no namespace for that).
    Clock,
    /// Its network loses a tenth of all packets, in bursts.
    Loss,
    /// Its network delays all packets by 300 ms.
    Delay,
    /// Its network turns over a bit in one of twenty packets.
    Corruption,
    /// Its network is cut for two seconds.
    Cut,
    /// Its network is cut for eight seconds.
    LongCut,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 13] = [
        Fault::Restart,
        Fault::Death,
        Fault::Pause,
        Fault::LongPause,
        Fault::Disk,
        Fault::Descriptors,
        Fault::Memory,
        Fault::Clock,
        Fault::Loss,
        Fault::Delay,
        Fault::Corruption,
        Fault::Cut,
        Fault::LongCut,
    ];

    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Fault::Restart => "restart",
            Fault::Death => "death",
            Fault::Pause => "pause",
            Fault::LongPause => "long-pause",
            Fault::Disk => "disk",
            Fault::Descriptors => "descriptors",
            Fault::Memory => "memory",
            Fault::Clock => "clock",
            Fault::Loss => "loss",
            Fault::Delay => "delay",
            Fault::Corruption => "corruption",
            Fault::Cut => "cut",
            Fault::LongCut => "long-cut",
        }
    }

    /// Whether the victim stands behind a network of its own.
    pub const fn is_network(self) -> bool {
        matches!(self, Fault::Loss | Fault::Delay | Fault::Corruption | Fault::Cut | Fault::LongCut)
    }

    /// Whether it needs rights over namespaces, or a file system of its own.
    pub const fn needs_root(self) -> bool {
        self.is_network() || matches!(self, Fault::Disk)
    }

    /// Whether those who are in notice nothing, whoever the victim is: only newcomers are hit.
    pub const fn spares_those_who_are_in(self) -> bool {
        matches!(self, Fault::Disk | Fault::Descriptors | Fault::Memory | Fault::Clock)
    }

    /// How soon what was hit must be back.
    pub const fn back_within(self) -> Duration {
        match self {
            // The lease of the dead node, and two seconds.
            Fault::Death => Duration::from_secs(5),
            _ => Duration::from_secs(3),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How one kind of client fared in a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which: `RTMP viewers`.
    pub who: String,
    /// The fault reached it.
    pub hit: bool,
    /// Places where frames are missing, and connections beyond the first.
    pub lost: usize,
    /// After the fault's end (of what is hit): until it was back for good. None: it was not.
    pub back: Option<Duration>,
    /// Whether that is as it must be.
    pub good: bool,
}

/// Runs one cell.
///
/// # Errors
/// Why there is no result.
pub fn run(fault: Fault, victim: Victim, network: Option<&Network>) -> Result<Vec<Row>, String> {
    if fault == Fault::Clock {
        return clock::run(victim);
    }
    let mut scene = Scene::start(fault, victim, network)?;
    scene.strike(fault)?;
    let rows = scene.rows(fault);
    if rows.iter().any(|r| !r.good) {
        eprintln!("--- the end of the log of the {}:\n{}", victim.name(), scene.victims_log());
    }
    Ok(rows)
}
