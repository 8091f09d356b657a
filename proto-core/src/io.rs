//! What a node is told and what it says: the seam between the core and whatever drives it (the mio runtime, the
//! simulator, a replay).

use crate::auth::password::Check;
use crate::bridge::{BridgeWork, Bridged};
use crate::error::Reason;
use crate::time::WallTime;
use bytes::Bytes;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A TCP connection. Never reused. Connections that the node dialled are told apart by the top bit, so that the
/// driver (which numbers accepted ones) and the node (which numbers dialled ones) never collide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

impl ConnId {
    const DIALLED: u64 = 1 << 63;
    const QUIC: u64 = 1 << 62;

    /// The `n`-th connection that the driver accepted.
    pub const fn accepted(n: u64) -> ConnId {
        ConnId(n & !Self::DIALLED)
    }

    /// The `n`-th connection that the node dialled.
    pub const fn dialled(n: u64) -> ConnId {
        ConnId(n | Self::DIALLED)
    }

    /// The `n`-th QUIC connection that came to the node. The driver knows nothing of those.
    pub const fn quic(n: u64) -> ConnId {
        ConnId(n & !Self::DIALLED | Self::QUIC)
    }

    /// Whether the node dialled it.
    pub const fn is_dialled(self) -> bool {
        self.0 & Self::DIALLED != 0
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match (self.is_dialled(), self.0 & Self::QUIC != 0) {
            (true, _) => 'd',
            (false, true) => 'q',
            (false, false) => 'a',
        };
        write!(f, "{kind}{}", self.0 & !(Self::DIALLED | Self::QUIC))
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A UDP socket, numbered by the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u32);

/// Work that the node asked its driver to do, numbered by the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// What a TCP listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// HTTP: pages, API, WHIP, WHEP.
    Http,
    /// RTMP.
    Rtmp,
    /// RTSP.
    Rtsp,
    /// Other nodes.
    Link,
    /// [`Service::Http`] over TLS.
    Https,
    /// [`Service::Rtmp`] over TLS.
    Rtmps,
    /// [`Service::Rtsp`] over TLS.
    Rtsps,
    /// ICE over TCP: WebRTC for those whose network lets no UDP through.
    IceTcp,
    /// The other loops of the same process: HTTP on loopback.
    Door,
}

impl Service {
    /// The word for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Service::Http => "http",
            Service::Rtmp => "rtmp",
            Service::Rtsp => "rtsp",
            Service::Link => "link",
            Service::Https => "https",
            Service::Rtmps => "rtmps",
            Service::Rtsps => "rtsps",
            Service::IceTcp => "ice_tcp",
            Service::Door => "door",
        }
    }

    /// The configuration key that sets its address.
    pub const fn key(self) -> &'static str {
        match self {
            Service::Http => "http.port",
            Service::Rtmp => "rtmp.port",
            Service::Rtsp => "rtsp.port",
            Service::Link => "cluster.port",
            Service::Https => "https.port",
            Service::Rtmps => "rtmps.port",
            Service::Rtsps => "rtsps.port",
            Service::IceTcp => "webrtc.port",
            Service::Door => "node.loops",
        }
    }

    /// Whether its bytes are in TLS.
    pub const fn is_secure(self) -> bool {
        matches!(self, Service::Https | Service::Rtmps | Service::Rtsps)
    }
}

/// One input of a node.
#[derive(Debug)]
pub enum Input<'a> {
    /// Time passed. Always legal; does only what is due.
    Tick,
    /// The share of the last second or so in which the driver's loop was busy, thousandths. For the load that the
    /// manager is told; a driver without such a measure leaves it out.
    Busy {
        /// 0 to 1,000.
        permille: u32,
    },
    /// What the wall clock reads now. Sent at start and every minute or so.
    WallClock(WallTime),
    /// The host's own addresses (loopback left out), for `advertise = "auto"`. Sent at start.
    HostAddresses(&'a [IpAddr]),
    /// A listener took a connection.
    Accepted {
        /// Its new id.
        conn: ConnId,
        /// Which listener took it.
        service: Service,
        /// The address that the peer dialled.
        local: SocketAddr,
        /// The peer's address.
        remote: SocketAddr,
    },
    /// A dialled connection stands.
    Connected {
        /// The connection.
        conn: ConnId,
        /// Our address.
        local: SocketAddr,
        /// The peer's address.
        remote: SocketAddr,
    },
    /// Stream bytes arrived; at most 64 KiB a turn and connection.
    Received {
        /// The connection.
        conn: ConnId,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The driver can take `free` bytes for this connection. Sent after `Accepted`/`Connected` and whenever room
    /// grew.
    Writable {
        /// The connection.
        conn: ConnId,
        /// Bytes that the driver would take now.
        free: usize,
    },
    /// The peer will send no more, but may still read.
    PeerFinished {
        /// The connection.
        conn: ConnId,
    },
    /// The connection is gone, for whatever reason; nothing more comes or goes. Also the answer to a dial that failed.
    Closed {
        /// The connection.
        conn: ConnId,
        /// Why: `peer_closed`, `reset`, `dial_failed`, `io_error`.
        reason: Reason,
    },
    /// A UDP socket that was asked for stands.
    UdpOpened {
        /// The socket.
        socket: SocketId,
        /// The address it is bound to.
        local: SocketAddr,
        /// The most segments that one [`Transmit`] may hold (1 where the kernel lacks GSO).
        max_segments: usize,
    },
    /// A UDP socket that was asked for cannot be had.
    UdpFailed {
        /// The socket.
        socket: SocketId,
        /// Why.
        reason: Reason,
    },
    /// A datagram, or several of equal size from one source (GRO), arrived.
    Datagram {
        /// The socket.
        socket: SocketId,
        /// The address that it was sent to (never unspecified).
        local: SocketAddr,
        /// Where it came from.
        remote: SocketAddr,
        /// Bytes of each datagram in `bytes`; the last may be shorter.
        stride: usize,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// A batch was handed to the kernel; `refused` of its transmits were not taken.
    Sent {
        /// The batch, for reuse.
        batch: Box<Batch>,
        /// Transmits that the kernel refused (lost, as on any network).
        refused: usize,
    },
    /// The answer to an [`Output::Ask`].
    Answer {
        /// Which question.
        ask: AskId,
        /// The answer.
        answer: Answer,
    },
    /// The operator asked for an orderly end (SIGTERM): finish what runs, take nothing new.
    Drain,
}

/// One output of a node.
#[derive(Debug)]
pub enum Output {
    /// Open a TCP connection.
    Dial {
        /// Its id, chosen by the node.
        conn: ConnId,
        /// Where to.
        to: SocketAddr,
    },
    /// Send bytes; never more than the last `Writable` allowed.
    Send {
        /// The connection.
        conn: ConnId,
        /// The bytes.
        bytes: Bytes,
    },
    /// Close a connection after what was sent has left (`now: false`) or at once, by reset (`now: true`). No input
    /// for this connection follows.
    Close {
        /// The connection.
        conn: ConnId,
        /// Whether to drop what has not left yet.
        now: bool,
    },
    /// Stop or go on reading a connection.
    Reading {
        /// The connection.
        conn: ConnId,
        /// Whether to read.
        on: bool,
    },
    /// The peer of an accepted connection publishes, plays, is proxied or is another node: the driver may hold as much for it
    /// as for any (`limits.conn_write_buffer`), where before it held little (`limits.conn_idle_write_bytes`). Once at most. A
    /// driver that makes no difference may ignore it; one that does answers with [`Input::Writable`].
    LetIn {
        /// The connection.
        conn: ConnId,
    },
    /// Open a UDP socket.
    OpenUdp {
        /// Its id.
        socket: SocketId,
        /// Where to bind it.
        bind: SocketAddr,
    },
    /// Close a UDP socket.
    CloseUdp {
        /// The socket.
        socket: SocketId,
    },
    /// Send datagrams.
    Datagrams(Box<Batch>),
    /// Do work outside the loop and answer with [`Input::Answer`].
    Ask {
        /// The question's number.
        ask: AskId,
        /// The question.
        work: Work,
    },
    /// A line for the operator.
    Log(LogLine),
    /// The node cannot go on; the process ends with exit code 1 and this text.
    Fatal(Reason),
    /// After [`Input::Drain`]: nothing is left; the process may end.
    Drained,
}

/// Work for the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Look up a host name.
    Resolve {
        /// Name or address in text form.
        host: String,
        /// The port to put into the answers.
        port: u16,
    },
    /// Read a file: a certificate or its key.
    ReadFile {
        /// Its path, as configured.
        path: String,
    },
    /// Convert sound or pictures.
    Bridge(BridgeWork),
    /// Verify a password: [`Check::run`], which takes tens of milliseconds.
    Check(Check),
}

/// The answer to [`Work`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Addresses of a name, best first; empty if there is none. The text says why.
    Resolved(Result<Vec<SocketAddr>, String>),
    /// What a file holds (1 MiB at most), or why it cannot be read, in words that name it.
    File(Result<Bytes, String>),
    /// What came of a bridge's work.
    Bridged(Bridged),
    /// Whether the password was right, or why that cannot be known now.
    Checked(Result<bool, String>),
}

/// Datagrams of one socket that leave in one go. Owned by whoever holds it and recycled: the driver gives it back
/// as [`Input::Sent`].
#[derive(Debug)]
pub struct Batch {
    /// The socket to send from.
    pub socket: SocketId,
    /// All bytes, one transmit after the other.
    pub buf: Vec<u8>,
    /// What to send.
    pub items: Vec<Transmit>,
}

impl Batch {
    /// An empty batch.
    pub fn new(socket: SocketId) -> Batch {
        Batch { socket, buf: Vec::new(), items: Vec::new() }
    }

    /// Forgets the content, keeps the memory.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.items.clear();
    }

    /// Appends one datagram. It joins the transmit before it (one GSO message) if that has the same addresses,
    /// full-size segments of at least this size, and room for another of at most `max_segments`.
    pub fn push(&mut self, src: Option<IpAddr>, dst: SocketAddr, bytes: &[u8], max_segments: usize) {
        let start = self.buf.len();
        self.buf.extend_from_slice(bytes);
        self.commit(src, dst, start, max_segments);
    }

    /// Makes a datagram of all bytes of [`Batch::buf`] from `start` on, which the caller has appended; as
    /// [`Batch::push`].
    pub fn commit(&mut self, src: Option<IpAddr>, dst: SocketAddr, start: usize, max_segments: usize) {
        let len = self.buf.len().saturating_sub(start);
        if let Some(last) = self.items.last_mut() {
            let full = last.len % last.segment_size == 0;
            let segments = last.len.div_ceil(last.segment_size);
            // One UDP message holds at most 65,507 bytes, GSO or not.
            let fits = segments < max_segments && last.len + len <= 65_000;
            if last.dst == dst && last.src == src && full && fits && len > 0 && len <= last.segment_size {
                last.len += len;
                return;
            }
        }
        if len > 0 {
            self.items.push(Transmit { src, dst, start, len, segment_size: len });
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// One message to the kernel: a datagram, or several of equal size (the last may be shorter) to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The address to send from, where the socket is bound to several.
    pub src: Option<IpAddr>,
    /// Where to.
    pub dst: SocketAddr,
    /// First byte in [`Batch::buf`].
    pub start: usize,
    /// Bytes in all.
    pub len: usize,
    /// Bytes of each datagram but the last.
    pub segment_size: usize,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something is broken and someone should act.
    Error,
    /// Something is odd or was refused.
    Warn,
    /// A thing that matters happened.
    Info,
    /// For those who look for a cause.
    Debug,
}

/// A line for the operator: one thing that matters, in words, with the session it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How much it matters.
    pub level: Level,
    /// What it is about, as a fixed word: `rtmp`, `rtc`, `http`, `hub`, `cluster`, `node`.
    pub target: &'static str,
    /// The session, such as `rtmp-12`, where there is one.
    pub session: Option<String>,
    /// The stream, where there is one.
    pub stream: Option<String>,
    /// The words.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_and_dialled_ids_never_collide() {
        assert_ne!(ConnId::accepted(7), ConnId::dialled(7));
        assert!(ConnId::dialled(0).is_dialled());
        assert_eq!(format!("{} {}", ConnId::accepted(3), ConnId::dialled(3)), "a3 d3");
    }

    #[test]
    fn equal_datagrams_to_one_peer_share_a_message_and_a_shorter_one_ends_it() {
        let dst: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let mut b = Batch::new(SocketId(0));
        for len in [4, 4, 2, 4] {
            b.push(None, dst, &vec![0; len], 8);
        }
        assert_eq!(
            b.items.iter().map(|t| (t.start, t.len, t.segment_size)).collect::<Vec<_>>(),
            [(0, 10, 4), (10, 4, 4)]
        );
    }

    #[test]
    fn without_gso_each_datagram_is_its_own_message() {
        let dst: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let mut b = Batch::new(SocketId(0));
        b.push(None, dst, &[1; 4], 1);
        b.push(None, dst, &[1; 4], 1);
        assert_eq!(b.items.len(), 2);
    }
}
