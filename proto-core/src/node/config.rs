//! The configuration of a node, as the file, `--set` and the environment spell it. Reading those is the command
//! line's business; what the keys mean stands here.

pub use crate::ids::Role;

use crate::limits::Limits;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The whole configuration. Each key has a default; a file names only what differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address that all listeners bind to.
    pub bind: IpAddr,
    /// Who this node is.
    pub node: NodeConfig,
    /// Pages, API, WHIP, WHEP.
    pub http: HttpConfig,
    /// RTMP.
    pub rtmp: RtmpConfig,
    /// WebRTC.
    pub webrtc: WebRtcConfig,
    /// Manager and links to other nodes.
    pub cluster: ClusterConfig,
    /// Conversion of sound.
    pub bridge: BridgeConfig,
    /// The addresses that others are told.
    pub advertise: AdvertiseConfig,
    /// What the log looks like.
    pub log: LogConfig,
    /// Every limit.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            node: NodeConfig::default(),
            http: HttpConfig::default(),
            rtmp: RtmpConfig::default(),
            webrtc: WebRtcConfig::default(),
            cluster: ClusterConfig::default(),
            bridge: BridgeConfig::default(),
            advertise: AdvertiseConfig::default(),
            log: LogConfig::default(),
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// Where HTTP listens.
    pub fn http_addr(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.http.port)
    }

    /// Where RTMP listens.
    pub fn rtmp_addr(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.rtmp.port)
    }

    /// Where WebRTC's one UDP port is.
    pub fn webrtc_addr(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.webrtc.port)
    }

    /// Where other nodes connect.
    pub fn cluster_addr(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.cluster.port)
    }

    /// Whether this node has a role.
    pub fn has_role(&self, role: Role) -> bool {
        self.node.roles.contains(&role)
    }
}

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// The node's name in the cluster; empty: made from a role and a random part at each start.
    pub name: String,
    /// Any mix of `manager`, `origin`, `edge`.
    pub roles: Vec<Role>,
    /// The region that it stands in, such as `eu-west`.
    pub region: String,
    /// What it can send in all, megabits a second; placement measures load against it.
    pub capacity_mbps: u32,
}

impl Default for NodeConfig {
    fn default() -> Self {
        NodeConfig {
            name: String::new(),
            roles: vec![Role::Manager, Role::Origin, Role::Edge],
            region: "local".to_owned(),
            capacity_mbps: 1_000,
        }
    }
}

/// HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// TCP port of pages, API, WHIP and WHEP.
    pub port: u16,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig { port: 5080 }
    }
}

/// RTMP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RtmpConfig {
    /// TCP port of RTMP.
    pub port: u16,
}

impl Default for RtmpConfig {
    fn default() -> Self {
        RtmpConfig { port: 1935 }
    }
}

/// WebRTC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebRtcConfig {
    /// UDP port of all WebRTC sessions.
    pub port: u16,
}

impl Default for WebRtcConfig {
    fn default() -> Self {
        WebRtcConfig { port: 8189 }
    }
}

/// The cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// TCP port for other nodes.
    pub port: u16,
    /// The manager to register with, `HOST[:PORT]`; empty: this node's own manager role.
    pub manager: String,
    /// The key that all nodes share; empty: other nodes are accepted from loopback addresses only.
    pub key: String,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        ClusterConfig { port: 5090, manager: String::new(), key: String::new() }
    }
}

/// Conversion of sound for viewers whose protocol cannot carry what the publisher sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BridgeConfig {
    /// Convert AAC to Opus and Opus to AAC where a viewer needs it.
    pub audio: bool,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        BridgeConfig { audio: true }
    }
}

/// The addresses that others are told: WebRTC candidates, registrations and the manager's answers come from here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdvertiseConfig {
    /// The address for publishers and viewers: an IP address, or `auto` (the bound address, else the host's first).
    pub public: String,
    /// The address for other nodes: an IP address, or `auto` (as `public`).
    pub private: String,
    /// A DNS name to use in URLs in place of the address; empty: none.
    pub name: String,
}

impl Default for AdvertiseConfig {
    fn default() -> Self {
        AdvertiseConfig { public: "auto".to_owned(), private: "auto".to_owned(), name: String::new() }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Broken things only.
    Error,
    /// And odd things.
    Warn,
    /// And things that matter.
    Info,
    /// And everything that helps to find a cause.
    Debug,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `text` or `json`.
    pub format: LogFormat,
    /// `error`, `warn`, `info` or `debug`.
    pub level: LogLevel,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { format: LogFormat::Text, level: LogLevel::Info }
    }
}
