//! The configuration of a node, as the file, `--set` and the environment spell it. Reading those is the command
//! line's business; what the keys mean stands here.

pub mod loops;
pub mod remotes;

pub use crate::ids::Role;

pub use crate::auth::config::AuthConfig;
use crate::cluster::keys::Keys;
use crate::hub::Pacing;
use crate::limits::Limits;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The whole configuration. Each key has a default; a file names only what differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address that all listeners bind to.
    pub bind: IpAddr,
    /// Streams that this node pulls from other servers.
    pub sources: Vec<remotes::Source>,
    /// Servers that this node pushes streams to.
    pub destinations: Vec<remotes::Destination>,
    /// Who this node is.
    pub node: NodeConfig,
    /// Its place among the loops of its process, where there are several. Whoever starts them makes it ([`loops`]); it is no
    /// key of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loops: Option<loops::Loops>,
    /// Pages, API, WHIP, WHEP.
    pub http: HttpConfig,
    /// HTTP over TLS.
    pub https: HttpsConfig,
    /// RTMP.
    pub rtmp: RtmpConfig,
    /// RTMP over TLS.
    pub rtmps: RtmpsConfig,
    /// Certificates.
    pub tls: TlsConfig,
    /// RTSP.
    pub rtsp: RtspConfig,
    /// RTSP over TLS.
    pub rtsps: RtspsConfig,
    /// WebRTC.
    pub webrtc: WebRtcConfig,
    /// Manager and links to other nodes.
    pub cluster: ClusterConfig,
    /// Who may publish, play and operate.
    pub auth: AuthConfig,
    /// What the manager role needs beside that.
    pub manager: ManagerConfig,
    /// Conversion of sound.
    pub bridge: BridgeConfig,
    /// The addresses that others are told.
    pub advertise: AdvertiseConfig,
    /// What the log looks like.
    pub log: LogConfig,
    /// How long frames may wait so that fewer messages carry them.
    pub pacing: Pacing,
    /// Every limit.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            sources: Vec::new(),
            destinations: Vec::new(),
            node: NodeConfig::default(),
            loops: None,
            http: HttpConfig::default(),
            https: HttpsConfig::default(),
            rtmp: RtmpConfig::default(),
            rtmps: RtmpsConfig::default(),
            tls: TlsConfig::default(),
            rtsp: RtspConfig::default(),
            rtsps: RtspsConfig::default(),
            webrtc: WebRtcConfig::default(),
            cluster: ClusterConfig::default(),
            auth: AuthConfig::default(),
            manager: ManagerConfig::default(),
            bridge: BridgeConfig::default(),
            advertise: AdvertiseConfig::default(),
            log: LogConfig::default(),
            pacing: Pacing::default(),
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

    /// Where HTTP over TLS listens.
    pub fn https_addr(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.https.port)
    }

    /// Where RTMP over TLS listens.
    pub fn rtmps_addr(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.rtmps.port)
    }

    /// Where RTSP listens.
    pub fn rtsp_addr(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.rtsp.port)
    }

    /// Where RTSP over TLS listens.
    pub fn rtsps_addr(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.rtsps.port)
    }

    /// The UDP ports of RTSP media: RTP and RTCP of each pair.
    pub fn rtsp_udp_pairs(&self) -> impl Iterator<Item = (u16, u16)> {
        let first = self.rtsp.udp_port;
        let pairs = (0..self.rtsp.udp_pairs).map_while(move |n| first.checked_add(2 * n));
        pairs.filter_map(|rtp| Some((rtp, rtp.checked_add(1)?)))
    }

    /// Where WebRTC's one UDP port is.
    pub fn webrtc_addr(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.webrtc.port)
    }

    /// The ports that peers are told for WebRTC over TCP.
    pub fn ice_tcp_ports(&self) -> Vec<u16> {
        let own = self.webrtc.tcp.then_some(self.webrtc.port);
        let https = (self.webrtc.tcp && self.webrtc.tcp_on_https).then_some(self.https.port);
        own.into_iter().chain(https).collect()
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
    /// So many loops in one process, each a node of the cluster with a thread of its own; 0: one for each core.
    pub loops: usize,
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
            loops: 1,
            region: "local".to_owned(),
            capacity_mbps: 1_000,
        }
    }
}

/// HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// TCP port of pages, API, WHIP, WHEP and websockets.
    pub port: u16,
    /// Origins whose pages may open websockets, such as `https://example.com`; empty: all.
    pub origins: Vec<String>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig { port: 5080, origins: Vec::new() }
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

/// HTTP over TLS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpsConfig {
    /// TCP port of what `http.port` has, over TLS.
    pub port: u16,
}

impl Default for HttpsConfig {
    fn default() -> Self {
        HttpsConfig { port: 5443 }
    }
}

/// RTMP over TLS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RtmpsConfig {
    /// TCP port of RTMP over TLS.
    pub port: u16,
}

impl Default for RtmpsConfig {
    fn default() -> Self {
        RtmpsConfig { port: 1936 }
    }
}

/// Certificates for TLS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// PEM files, each with a certificate and the chain after it; empty: one made at start. Clients that name no host of
    /// another get the first.
    pub certificates: Vec<String>,
    /// PEM files with the private keys, in the order of the certificates; empty: each stands in its certificate's file.
    pub keys: Vec<String>,
    /// A PEM file with the authorities whose certificates other servers may have.
    pub authorities: String,
}

impl Default for TlsConfig {
    fn default() -> Self {
        let authorities = "/etc/ssl/certs/ca-certificates.crt".to_owned();
        TlsConfig { certificates: Vec::new(), keys: Vec::new(), authorities }
    }
}

impl TlsConfig {
    /// The files of each certificate and its key.
    pub fn pairs(&self) -> impl Iterator<Item = (&String, &String)> {
        let keys = if self.keys.is_empty() { &self.certificates } else { &self.keys };
        self.certificates.iter().zip(keys)
    }
}

/// RTSP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RtspConfig {
    /// TCP port of RTSP.
    pub port: u16,
    /// The first UDP port of media that does not go over the connection.
    pub udp_port: u16,
    /// Pairs of UDP ports (RTP and RTCP) from there on; 0: none.
    pub udp_pairs: u16,
    /// Send clients to other nodes where they are better served.
    pub redirect: bool,
}

impl Default for RtspConfig {
    fn default() -> Self {
        RtspConfig { port: 8554, udp_port: 8000, udp_pairs: 4, redirect: true }
    }
}

/// RTSP over TLS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RtspsConfig {
    /// TCP port of RTSP over TLS. Media goes over the connection: datagrams would carry it in the clear.
    pub port: u16,
}

impl Default for RtspsConfig {
    fn default() -> Self {
        RtspsConfig { port: 8555 }
    }
}

/// WebRTC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebRtcConfig {
    /// UDP port of all WebRTC sessions.
    pub port: u16,
    /// Whether viewers get lean sessions, which cost a small part of a whole one.
    pub lean: bool,
    /// Whether the kernel is handed several datagrams as one message where it can take them.
    pub gso: bool,
    /// Answer STUN requests of anybody on that port, and tell clients so.
    pub stun: bool,
    /// Take WebRTC over TCP on the same port number, and tell clients so.
    pub tcp: bool,
    /// Tell clients that they can come over TCP on `https.port` too.
    pub tcp_on_https: bool,
}

impl Default for WebRtcConfig {
    fn default() -> Self {
        WebRtcConfig { port: 8189, lean: true, gso: true, stun: true, tcp: true, tcp_on_https: false }
    }
}

/// The cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// Port for other nodes: TCP, and UDP where `transport` is QUIC.
    pub port: u16,
    /// The manager to register with, `HOST[:PORT]`; empty: this node's own manager role.
    pub manager: String,
    /// The key that all nodes share; empty: other nodes are accepted from loopback addresses only.
    pub key: String,
    /// Keys that are accepted beside it, while it is replaced.
    pub keys_accepted: Vec<String>,
    /// A file with the keys in place of those two, which is read again when it changes; empty: none. Whoever starts a node
    /// hands in its first content as those two.
    pub key_file: String,
    /// What links to other nodes use. Nodes that do not speak QUIC are reached by TCP in any case.
    pub transport: LinkTransport,
}

impl ClusterConfig {
    /// What a node shows and accepts when it starts.
    pub fn keys(&self) -> Keys {
        Keys::new(&self.key, self.keys_accepted.iter().map(String::as_str))
    }
}

/// What is under a link between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkTransport {
    /// QUIC, encrypted, on the UDP port with the number of `cluster.port`; TCP with nodes that do not speak it.
    Quic,
    /// TCP only, not encrypted.
    Tcp,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        ClusterConfig {
            port: 5090,
            manager: String::new(),
            key: String::new(),
            keys_accepted: Vec::new(),
            key_file: String::new(),
            transport: LinkTransport::Tcp,
        }
    }
}

/// The manager role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ManagerConfig {
    /// The name of the node group of the stream-manager dialect; `default` always means it too.
    pub node_group: String,
    /// Who may log in for a token.
    pub user: String,
    /// The password for that; empty: nobody can.
    pub password: String,
}

impl Default for ManagerConfig {
    fn default() -> Self {
        ManagerConfig { node_group: "default".to_owned(), user: "admin".to_owned(), password: String::new() }
    }
}

/// Conversion of sound for viewers whose protocol cannot carry what the publisher sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BridgeConfig {
    /// Convert AAC to Opus and Opus to AAC where a viewer needs it.
    pub audio: bool,
    /// Code H.264 without B-frames where viewers need it.
    pub video: bool,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        BridgeConfig { audio: true, video: true }
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
    /// Browsers trust this node's certificate: secure pages may come straight to its HTTPS port, not by way of the manager.
    pub https: bool,
}

impl Default for AdvertiseConfig {
    fn default() -> Self {
        AdvertiseConfig {
            public: "auto".to_owned(),
            private: "auto".to_owned(),
            name: String::new(),
            https: false,
        }
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
