//! Messages between nodes: the same enum in memory (between the roles of one process) and on the wire.
//!
//! The protocol is Headwater's own. On the wire a message is `u32 length | u16 type | fields`, all big endian, where
//! `length` counts type and fields. A field is `u8 tag | varint length | value`; whole numbers are varints (LEB128,
//! signed ones zigzag first), lists repeat their tag, and what is zero or empty is left out. A receiver skips types
//! and tags that it does not know, so versions N and N−1 understand each other.

mod read;
#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
mod write;

pub use read::{Malformed, decode, split};
pub use write::{Encoded, encode};

use crate::ids::Role;
use crate::ids::{Epoch, NodeId};
use crate::media::frame::NewFrame;
use crate::media::key::StreamKey;
use crate::media::track::{CodecConfig, TrackId};
use std::net::{IpAddr, SocketAddr};

/// The version of the node protocol that this build speaks.
pub const VERSION: u32 = 1;
/// The oldest version of the node protocol that this build understands.
pub const MIN_VERSION: u32 = 1;

/// In [`Hello::features`]: this node takes links over QUIC, on the UDP port with the number of its TCP port for links.
pub const FEATURE_QUIC: u64 = 1;

/// The first message in each direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The newest version of the node protocol that the sender speaks.
    pub version: u32,
    /// The oldest version that the sender understands.
    pub min_version: u32,
    /// Optional abilities, one bit each ([`FEATURE_QUIC`]); both ends use those that both have.
    pub features: u64,
    /// The sender's name.
    pub node: NodeId,
    /// Random bytes that make the proof of the shared key fresh.
    pub nonce: [u8; 32],
}

/// The addresses and ports that a node wants others to use.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Advertised {
    /// The address for publishers and viewers.
    pub public: IpAddr,
    /// The address for other nodes.
    pub private: IpAddr,
    /// A DNS name to use in URLs in place of the public address; empty: none.
    pub name: String,
    /// TCP port of HTTP; 0: not served (as with the other ports).
    pub http: u16,
    /// TCP port of RTMP.
    pub rtmp: u16,
    /// TCP port of RTMP over TLS. Nodes of the version before do not say it.
    pub rtmps: u16,
    /// TCP port of RTSP.
    pub rtsp: u16,
    /// TCP port of RTSP over TLS.
    pub rtsps: u16,
    /// UDP port of WebRTC.
    pub webrtc: u16,
    /// TCP port for other nodes.
    pub link: u16,
    /// TCP port of HTTP over TLS with a certificate that browsers trust; 0: there is none, and secure pages go through
    /// the manager.
    pub https: u16,
}

impl Advertised {
    /// Where other nodes connect.
    pub fn link_addr(&self) -> SocketAddr {
        SocketAddr::new(self.private, self.link)
    }

    /// Where RTMP is spoken, such as `rtmp://host:1935`, or over TLS; empty: nowhere.
    pub fn rtmp_base(&self, tls: bool) -> String {
        match (tls, if tls { self.rtmps } else { self.rtmp }) {
            (_, 0) => String::new(),
            (false, port) => format!("rtmp://{}:{port}", self.host()),
            (true, port) => format!("rtmps://{}:{port}", self.host()),
        }
    }

    /// Where RTSP is spoken, such as `rtsp://host:8554`, or over TLS; empty: nowhere.
    pub fn rtsp_base(&self, tls: bool) -> String {
        match (tls, if tls { self.rtsps } else { self.rtsp }) {
            (_, 0) => String::new(),
            (false, port) => format!("rtsp://{}:{port}", self.host()),
            (true, port) => format!("rtsps://{}:{port}", self.host()),
        }
    }

    /// The host for URLs that publishers and viewers get: the DNS name where there is one, else the public address
    /// (an IPv6 address in brackets).
    pub fn host(&self) -> String {
        match (self.name.as_str(), self.public) {
            ("", IpAddr::V4(ip)) => ip.to_string(),
            ("", IpAddr::V6(ip)) => format!("[{ip}]"),
            (name, _) => name.to_owned(),
        }
    }
}

/// Who a node is, as it registers with the manager.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NodeInfo {
    /// Its name, unique in the cluster.
    pub id: NodeId,
    /// Random number of this run of the process: tells a restarted node from a second one of the same name.
    pub instance: u64,
    /// Its software's version, for people.
    pub version: String,
    /// What the manager may give it out for.
    pub roles: Vec<Role>,
    /// Where it stands.
    pub region: String,
    /// Its addresses.
    pub advertised: Advertised,
    /// What it can send in all, megabits a second.
    pub capacity_mbps: u32,
    /// The highest epoch that it has heard of; nothing (0.0) if it is new. A manager that starts with empty memory, and
    /// perhaps with a clock that was set back, grants none below.
    pub highest: Epoch,
}

impl NodeInfo {
    /// Whether it has a role.
    pub fn has_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// One stream that a node is the origin of, in a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamReport {
    /// Its name.
    pub key: StreamKey,
    /// The epoch under which its publisher was accepted.
    pub epoch: Epoch,
    /// The publisher is connected but has sent nothing for `stream_silent_ms`.
    pub silent: bool,
    /// A publisher is connected; false while the stream is held for its return.
    pub live: bool,
    /// Viewers on this node, of any protocol, pulls of other nodes not counted.
    pub viewers: u32,
    /// What people want to know about it.
    pub about: StreamFacts,
}

/// What people want to know about a stream: for pages, `ctl` and the API, never for decisions. All of it is empty or
/// zero where the sender is too old to say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamFacts {
    /// What its publisher sends, bits a second.
    pub bits_per_s: u64,
    /// The protocol that it comes by, such as `rtmp`; empty while it is held.
    pub source: String,
    /// Seconds since its publisher was accepted; 0 while it is held.
    pub uptime_s: u64,
    /// Its tracks.
    pub tracks: Vec<TrackFacts>,
    /// The codes of what viewers and the publisher should know ([`crate::hub::Notice::code`]).
    pub notices: Vec<String>,
}

/// A track in [`StreamFacts`]. What does not apply or is not known is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrackFacts {
    /// The codec's name for people, such as `H.264`.
    pub codec: String,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Samples a second.
    pub rate: u32,
    /// Audio channels.
    pub channels: u8,
}

/// A stream that a node relays and is not the origin of, in a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayedReport {
    /// Its name.
    pub key: StreamKey,
    /// As in [`StreamReport`].
    pub viewers: u32,
    /// How many nodes its frames came through to get there, the origin counted; 0 while none come, and from nodes that are
    /// too old to say it.
    pub hops: u32,
}

/// A node's load and streams, every `report_ms`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What it sends now, bits a second.
    pub egress_bps: u64,
    /// The share of time that its loop was busy, thousandths.
    pub loop_busy_permille: u32,
    /// Publishing and playing sessions, pulls of other nodes not counted.
    pub sessions: u32,
    /// The most sessions that it takes; 0: not known.
    pub session_limit: u32,
    /// It finishes what runs and takes nothing new.
    pub draining: bool,
    /// The streams that it is the origin of.
    pub streams: Vec<StreamReport>,
    /// The streams that it relays.
    pub relayed: Vec<RelayedReport>,
}

/// A track and its configuration, in [`Message::Tracks`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackConfig {
    /// The track.
    pub track: TrackId,
    /// Its configuration, with the version that frames refer to.
    pub config: CodecConfig,
}

/// A frame on its way to another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayFrame {
    /// The pull that it belongs to.
    pub pull: u64,
    /// Its position in the stream and epoch, as the node counts where the publisher is; relays leave it as it is.
    pub seq: u64,
    /// The epoch under which its publisher was accepted.
    pub epoch: Epoch,
    /// The version of the codec configuration that it needs (0 for data).
    pub config_version: u32,
    /// The frame, with the stream's own times.
    pub media: NewFrame,
}

/// What nodes say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Handshake: who speaks.
    Hello(Hello),
    /// Handshake: HMAC-SHA256 with the shared key over the sender's side and both hellos.
    Proof {
        /// The code.
        hmac: [u8; 32],
    },
    /// The link ends, and why.
    Bye {
        /// A fixed word.
        code: String,
        /// A sentence for the operator.
        text: String,
    },
    /// Nothing else had to be said for a while.
    Ping,

    /// Node to manager: here I am.
    Register(Box<NodeInfo>),
    /// Manager to node: you are in the books.
    Registered {
        /// The manager's term.
        term: u64,
        /// Where the manager speaks RTSP, such as `rtsp://host:8554`: for clients that this node sends away. Empty: it
        /// does not say.
        rtsp: String,
        /// The same over TLS.
        rtsps: String,
    },
    /// Node to manager: load and streams.
    Report(Report),
    /// Node to manager: a publisher wants this name here.
    Claim {
        /// Number for the answer.
        req: u64,
        /// The name.
        key: StreamKey,
        /// Who publishes (user, publish key or token subject); empty: not known.
        identity: String,
    },
    /// Manager to node: the name is yours under this epoch.
    Claimed {
        /// The claim's number.
        req: u64,
        /// The name.
        key: StreamKey,
        /// The right to publish; higher than any before it.
        epoch: Epoch,
    },
    /// Manager to node: no (to a claim; with `req` 0: to the registration).
    Refused {
        /// The claim's number.
        req: u64,
        /// A fixed word, such as `name_busy`.
        code: String,
        /// A sentence for the publisher and the operator.
        text: String,
    },
    /// Node to manager, after the link came (back): I already serve this.
    Announce {
        /// The name.
        key: StreamKey,
        /// The epoch under which it was granted.
        epoch: Epoch,
        /// As in the claim.
        identity: String,
    },
    /// Node to manager: the publisher left; the stream is held for its return.
    Release {
        /// The name.
        key: StreamKey,
        /// The epoch under which it was granted.
        epoch: Epoch,
    },
    /// Node to manager: where is this stream?
    Locate {
        /// Number for the answer.
        req: u64,
        /// The name.
        key: StreamKey,
        /// Its origin, not a relay of it: one has failed the asker before.
        direct: bool,
    },
    /// Manager to node: there, or at a relay of it that is nearer or has more room.
    Located {
        /// The question's number.
        req: u64,
        /// The name.
        key: StreamKey,
        /// The highest epoch granted.
        epoch: Epoch,
        /// Its origin.
        node: NodeId,
        /// Where the origin takes links.
        link_addr: SocketAddr,
        /// Its publisher sends: nobody else can have the name now.
        live: bool,
    },
    /// Manager to node: nobody publishes this.
    NotFound {
        /// The question's number.
        req: u64,
        /// The name.
        key: StreamKey,
    },
    /// Node to manager: this node takes nothing new; where would somebody go on who publishes or plays a stream here?
    Relocate {
        /// Number for the answer.
        req: u64,
        /// The name.
        key: StreamKey,
        /// It is published, not played.
        publishes: bool,
    },
    /// Manager to node: there. All texts are empty where there is no such node.
    Relocated {
        /// The question's number.
        req: u64,
        /// The node's name.
        node: String,
        /// Where it speaks RTMP, such as `rtmp://host:1935`.
        rtmp: String,
        /// Where it speaks RTMP over TLS, such as `rtmps://host:1936`; empty where that is not known.
        rtmps: String,
    },
    /// Manager to nodes that asked for it: the stream has a new origin or epoch.
    Moved {
        /// The name.
        key: StreamKey,
        /// The epoch, higher than before.
        epoch: Epoch,
        /// Its origin.
        node: NodeId,
        /// Where the origin takes links.
        link_addr: SocketAddr,
    },
    /// Manager to node: the name was granted to somebody else; end your publisher.
    Fence {
        /// The name.
        key: StreamKey,
        /// The higher epoch that another was granted.
        epoch: Epoch,
    },

    /// Manager to node: take nothing new, or take it again.
    Drain {
        /// Nothing new from now on; false: back into service.
        on: bool,
        /// What runs is ended after this, milliseconds; 0: it may stay for as long as it likes.
        within_ms: u64,
        /// The process ends when nothing is left, as after SIGTERM.
        stop: bool,
    },
    /// Manager to node: have this stream here, whether or not somebody watches it.
    Warm {
        /// The name.
        key: StreamKey,
        /// For how long, milliseconds.
        for_ms: u64,
    },

    /// Node to manager and manager to node: refuse a token or a name from now on, and end what it runs.
    Revoke {
        /// The token's id, or `user:…`, `token:…`, `key:…`.
        name: String,
    },
    /// Manager to node: somebody wants this stream, which you said that you can pull from another server.
    Want {
        /// The name.
        key: StreamKey,
    },
    /// Node to manager, with its registration: the streams that it can pull from other servers when somebody wants them.
    Offers {
        /// Names, or beginnings of names with a `*`.
        streams: Vec<String>,
    },

    /// Relay: send me this stream.
    Pull {
        /// The puller's number for it, unique on this link.
        pull: u64,
        /// The name.
        key: StreamKey,
        /// The nodes that the frames will go to, the puller first.
        hops: Vec<NodeId>,
        /// A frame that the puller had before its last pull broke: epoch and position. The source begins with it where it still
        /// has it, else (as older nodes always do) with the newest groups of pictures.
        after: Option<(Epoch, u64)>,
    },
    /// Relay: the tracks, before the first frame that needs them.
    Tracks {
        /// The pull.
        pull: u64,
        /// The nodes that the frames came through, the origin first, the sender last.
        path: Vec<NodeId>,
        /// New or changed configurations.
        configs: Vec<TrackConfig>,
    },
    /// Relay: a frame.
    Frame(Box<RelayFrame>),
    /// Relay, puller to source: a viewer needs a key frame.
    KeyRequest {
        /// The pull.
        pull: u64,
        /// Of which track; `None`: of each track of pictures (as nodes that know no renditions ask).
        track: Option<TrackId>,
    },
    /// Relay: the publisher is away, the stream is held.
    SourceAway {
        /// The pull.
        pull: u64,
    },
    /// Relay: the publisher is back.
    SourceBack {
        /// The pull.
        pull: u64,
    },
    /// Relay: there will be no more frames.
    End {
        /// The pull.
        pull: u64,
        /// A fixed word.
        code: String,
        /// A sentence for the operator.
        text: String,
    },
    /// Relay, puller to source: stop.
    CancelPull {
        /// The pull.
        pull: u64,
    },

    /// Relay over QUIC, the first message of a stream: which group of pictures, or which second of sound, it holds. Tracks
    /// and frames follow.
    Group(Group),
    /// Relay over QUIC, on the control stream: so many frames of the pull were put into groups before what follows here.
    Sent {
        /// The pull.
        pull: u64,
        /// Frames of all its tracks.
        frames: u64,
    },
}

/// Which part of a pull a stream of a QUIC link holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The pull.
    pub pull: u64,
    /// The track.
    pub track: u8,
    /// Its number on this track of this pull, from 1.
    pub number: u64,
    /// Frames of the track that were put into the groups before it.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}
