//! Clients of the cluster, and what the world and they say to each other: any number of TCP connections and UDP ports.
//!
//! A client is a small machine of its own. It shares no code with the servers that it checks, or where it does (the
//! project's own RTMP client), somebody else checks the other end.

pub mod asker;
pub mod attempt;
pub mod doorman;
pub mod evil;
pub mod operator;
pub mod player;
pub mod publisher;
mod rml;
pub mod rml_player;
pub mod rml_publisher;
#[cfg(feature = "independent")]
pub mod rtc_rs;
pub mod rtsp;
pub mod secure;
pub mod several;
pub mod socket;
pub mod webrtc;

use bytes::Bytes;
use proto_core::time::Time;
use std::any::Any;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

/// A TCP connection of a client, numbered by the client. A number may be used again once its connection is closed.
pub type Conn = u32;

/// What a client is told.
#[derive(Debug)]
pub enum In<'a> {
    /// Its own address, at start and whenever it changed. Behind a NAT it is the private one.
    Address(IpAddr),
    /// A dial succeeded.
    Connected(Conn),
    /// Somebody dialled a port on which it listens; the number is one that it did not give.
    Accepted(Conn),
    /// It may send so many bytes.
    Writable(Conn, usize),
    /// Bytes came.
    Received(Conn, &'a [u8]),
    /// The node will send no more.
    Finished(Conn),
    /// The connection is gone, or the dial failed.
    Closed(Conn, &'a str),
    /// A datagram came to one of its ports.
    Datagram {
        /// The port.
        port: u16,
        /// Where it came from.
        from: SocketAddr,
        /// What it holds.
        bytes: &'a [u8],
    },
    /// Time passed.
    Tick,
}

/// What a client does.
#[derive(Debug)]
pub enum Out {
    /// Open a connection.
    Dial(Conn, SocketAddr),
    /// Send bytes.
    Send(Conn, Bytes),
    /// Close, after what was sent or (`true`) at once.
    Close(Conn, bool),
    /// Read or stop reading.
    Reading(Conn, bool),
    /// Send a datagram from a port; a port is open from the first on.
    Datagram {
        /// The port.
        port: u16,
        /// Where to.
        to: SocketAddr,
        /// What.
        bytes: Bytes,
    },
    /// Send a datagram that claims to come from somebody else.
    Forged {
        /// Whom it claims to come from.
        from: SocketAddr,
        /// Where to.
        to: SocketAddr,
        /// What.
        bytes: Bytes,
    },
    /// Hear from now on what others send to this UDP address, as a datagram to port 0.
    Tap(SocketAddr),
    /// Neither send nor get anything from now on, and tell nobody.
    Vanish,
    /// It saw what must never be: the invariant's name (`S4`) and what it saw.
    Violation(&'static str, String),
}

/// A client of the cluster.
pub trait Client: Any {
    /// Takes an input.
    fn on(&mut self, input: In<'_>, now: Time);
    /// Takes out what it does.
    fn poll(&mut self) -> Option<Out>;
    /// When it wants to be woken.
    fn wake(&self) -> Option<Time>;
    /// Where it writes down what happened to it.
    fn notes(&mut self) -> &mut Notes;
    /// Whether it listens on a TCP port.
    fn listens(&self, _port: u16) -> bool {
        false
    }
    /// Leaves in an orderly way and does not come back.
    fn leave(&mut self, _now: Time) {}
    /// How it stands, for whoever checks the whole. Cheap.
    fn standing(&self) -> Standing {
        Standing::default()
    }
}

/// What a client wants and has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The stream, `app/name`; none: it neither publishes nor plays.
    pub stream: Option<String>,
    /// Whether it publishes that stream (else it plays it).
    pub publishes: bool,
    /// Whether it has ended and will not come back by itself.
    pub ended: bool,
    /// The number in the labels of a publisher's present, accepted connection. Players: of the newest picture.
    pub session: Option<u64>,
    /// When a player's newest picture came.
    pub last_picture: Option<Time>,
    /// Frames that a publisher sent in all its connections, or that a player got.
    pub frames: u64,
    /// Whom a WebRTC client calls, and since when, while its media path does not stand yet.
    pub calls: Option<(SocketAddr, Time)>,
    /// With whom it has a call that stands, and since when it calls.
    pub talks: Option<(SocketAddr, Time)>,
}

/// Lines for the log of the world. They cost nothing when nobody wants them.
#[derive(Debug, Default)]
pub struct Notes {
    wanted: bool,
    lines: VecDeque<String>,
}

impl Notes {
    /// Says whether anybody wants them.
    pub fn want(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    /// Writes a line.
    pub fn add(&mut self, line: impl FnOnce() -> String) {
        if self.wanted {
            self.lines.push_back(line());
        }
    }

    /// The next line.
    pub fn take(&mut self) -> Option<String> {
        self.lines.pop_front()
    }
}

/// The stream that an address such as `live/one?token=…` names.
pub fn name_of(address: &str) -> &str {
    address.split('?').next().unwrap_or_default()
}
