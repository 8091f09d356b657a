//! What happens in a run, as plain data: the cluster, and operations with their times. It has a text form, one operation
//! a line ([`super::text`]).
//!
//! Times count from the moment when the cluster stands, so that taking an operation out moves no other. Clients have
//! numbers of the plan's own, for the same reason; an operation of a client that never joined does nothing.

use crate::world::media::Order;
use std::fmt;
use std::time::Duration;

/// A node of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The manager.
    Manager,
    /// An origin, counted from 1.
    Origin(u8),
    /// An edge, counted from 1.
    Edge(u8),
    /// A node that is origin and edge, counted from 1.
    Complete(u8),
}

/// A node or a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// A node.
    Node(Place),
    /// A client.
    Client(u32),
}

/// By which protocol a client publishes or plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    /// RTMP.
    Rtmp,
    /// WHIP or WHEP.
    Webrtc,
    /// WHIP or WHEP, media over TCP.
    WebrtcTcp,
    /// RTMP over TLS.
    Rtmps,
    /// WHIP or WHEP over TLS.
    Https,
    /// WebRTC, signalled in the stream-manager dialect over a websocket, then over the data channel.
    Ws,
    /// As [`By::Ws`], over TLS.
    Wss,
    /// As [`By::Ws`], through the manager, which chooses the node.
    Managed,
    /// RTSP, packets over the connection.
    Rtsp,
    /// RTSP, packets as datagrams.
    RtspUdp,
    /// RTSP over TLS, packets over the connection.
    Rtsps,
}

/// Behind what a client sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Behind {
    /// Nothing: its address is public.
    Nothing,
    /// A translator as homes have it.
    Home,
    /// A translator with another port for every far end.
    Symmetric,
}

/// What an access link does, in whole numbers. The default is a clean link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quality {
    /// Added to the way, milliseconds.
    pub latency: u32,
    /// Up to so much more for each packet, milliseconds.
    pub jitter: u32,
    /// Packets lost in a thousand.
    pub loss: u32,
    /// Packets in a row that are lost, on average; 0: as if 1.
    pub burst: u32,
    /// Datagrams in a thousand that come twice.
    pub twice: u32,
    /// Datagrams in a thousand that others overtake.
    pub reorder: u32,
    /// Datagrams in a thousand with a wrong bit.
    pub corrupt: u32,
    /// Kilobits a second; 0: no limit.
    pub rate: u32,
    /// Bytes of the largest packet; 0: 1,500.
    pub mtu: u32,
}

/// How a publisher behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publishing {
    /// It comes back so long after it lost its connection, milliseconds; none: it does not.
    pub again: Option<u32>,
    /// Pictures from one key frame to the next.
    pub gop: u32,
    /// Bytes of a picture that is no key frame; a key frame has eight times as many.
    pub bytes: u32,
    /// Milliseconds of sound in a packet (WebRTC only): 10, 20, 40 or 60.
    pub sound: u32,
    /// In which order its pictures are coded (RTMP only).
    pub order: Order,
}

impl Default for Publishing {
    fn default() -> Publishing {
        Publishing { again: Some(500), gop: 25, bytes: 700, sound: 20, order: Order::Shown }
    }
}

/// Of which version a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Of this one.
    This,
    /// Of one that tells other nodes less.
    Older,
    /// Of one that tells them what this one does not know.
    Newer,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A publisher joins.
    Publish {
        /// Its number.
        client: u32,
        /// Its protocol.
        by: By,
        /// Where.
        at: Place,
        /// The stream, `app/name`.
        stream: String,
        /// How.
        how: Publishing,
        /// Behind what.
        behind: Behind,
    },
    /// A player joins.
    Play {
        /// Its number.
        client: u32,
        /// Its protocol.
        by: By,
        /// Where.
        at: Place,
        /// The stream, `app/name`.
        stream: String,
        /// Behind what.
        behind: Behind,
    },
    /// A client leaves in good order.
    Leave(u32),
    /// A publisher stops sending (`true`), or goes on; its connection stands.
    Silent(u32, bool),
    /// A client connects anew.
    Reconnect(u32),
    /// A player goes over to another stream, `app/name`, in the session that it has.
    Switch(u32, String),
    /// A client goes to another node.
    Elsewhere(u32, Place),
    /// A player reads (`true`) or stops reading.
    Reading(u32, bool),
    /// Somebody asks a node by HTTP.
    Ask(Place, String),
    /// A misbehaving client of a kind joins.
    Evil {
        /// Its number.
        client: u32,
        /// The name of the kind.
        kind: String,
        /// Where.
        at: Place,
    },
    /// A node is killed.
    Crash(Place),
    /// A node that does not run is started.
    Start(Place),
    /// A node is killed and one of this version started in its place.
    Replace(Place, Version),
    /// An operator drains a node.
    Drain(Place),
    /// Nothing passes to or from it.
    Cut(Who),
    /// The end of a cut.
    Heal(Who),
    /// Nothing passes between two.
    Part(Who, Who),
    /// Nothing passes from the first to the second.
    OneWay(Who, Who),
    /// The end of both.
    Join(Who, Who),
    /// Its access link has this quality.
    Degrade(Who, Quality),
    /// Its access link is clean again.
    Restore(Who),
    /// Its access link passes nothing for so many milliseconds, then all that waited.
    Stall(Who, u32),
    /// A node stops, as by SIGSTOP.
    Pause(Place),
    /// A stopped node goes on.
    Resume(Place),
    /// A node's clock is so many parts in a million too fast.
    Skew(Place, i32),
    /// A node's wall clock jumps by so many milliseconds.
    Wall(Place, i32),
    /// A node is started anew with so many megabytes to hold; 0: enough.
    Memory(Place, u32),
    /// A node has at most so many descriptors; 0: enough.
    Descriptors(Place, u32),
    /// A node's kernel refuses so many in a thousand of its messages.
    Refuse(Place, u32),
    /// The translator of a client forgets it.
    Rebind(u32),
    /// A client comes to another network.
    Readdress(u32),
}

impl Op {
    /// The client that joins by it.
    pub fn joins(&self) -> Option<u32> {
        match self {
            Op::Publish { client, .. } | Op::Play { client, .. } | Op::Evil { client, .. } => Some(*client),
            _ => None,
        }
    }

    /// Whether it is about a client.
    pub fn concerns(&self, client: u32) -> bool {
        let is = |who: &Who| *who == Who::Client(client);
        match self {
            Op::Leave(c)
            | Op::Silent(c, _)
            | Op::Reconnect(c)
            | Op::Switch(c, _)
            | Op::Elsewhere(c, _)
            | Op::Reading(c, _)
            | Op::Rebind(c)
            | Op::Readdress(c) => *c == client,
            Op::Cut(w) | Op::Heal(w) | Op::Degrade(w, _) | Op::Restore(w) | Op::Stall(w, _) => is(w),
            Op::Part(a, b) | Op::OneWay(a, b) | Op::Join(a, b) => is(a) || is(b),
            _ => self.joins() == Some(client),
        }
    }
}

/// An operation and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Milliseconds from the moment when the cluster stands.
    pub at: u64,
    /// What happens.
    pub op: Op,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The seed of the world: latencies, losses, keys.
    pub seed: u64,
    /// Origins.
    pub origins: u8,
    /// Edges.
    pub edges: u8,
    /// Nodes that are both.
    pub complete: u8,
    /// Regions over which they are spread.
    pub regions: u8,
    /// How long operations go on, milliseconds; then all faults end.
    pub span: u64,
    /// Whether unlikely but legal things happen at some sites in the code, as the seed says.
    pub sites: bool,
    /// Whether nodes link by QUIC, or by TCP.
    pub quic: bool,
    /// What happens, in order of time.
    pub steps: Vec<Step>,
}

impl Plan {
    /// All nodes, the manager first.
    pub fn places(&self) -> Vec<Place> {
        let mut places = vec![Place::Manager];
        places.extend((1..=self.origins).map(Place::Origin));
        places.extend((1..=self.edges).map(Place::Edge));
        places.extend((1..=self.complete).map(Place::Complete));
        places
    }

    /// Nodes that take publishers themselves.
    pub fn origins(&self) -> Vec<Place> {
        let is = |p: &Place| matches!(p, Place::Origin(_) | Place::Complete(_));
        self.places().into_iter().filter(is).collect()
    }

    /// Nodes that serve viewers.
    pub fn watched(&self) -> Vec<Place> {
        self.places().into_iter().filter(|p| *p != Place::Manager).collect()
    }

    /// How long operations go on.
    pub fn span(&self) -> Duration {
        Duration::from_millis(self.span)
    }

    /// Puts the steps in order of time; those of one moment keep their order.
    pub fn sort(&mut self) {
        self.steps.sort_by_key(|s| s.at);
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Manager => write!(f, "m1"),
            Place::Origin(n) => write!(f, "o{n}"),
            Place::Edge(n) => write!(f, "e{n}"),
            Place::Complete(n) => write!(f, "c{n}"),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Node(place) => place.fmt(f),
            Who::Client(n) => write!(f, "#{n}"),
        }
    }
}
