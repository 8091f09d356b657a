//! The client on a connection to another server, whatever it speaks.

use crate::error::Reason;
use crate::hub::delivery::Delivery;
use crate::io::Level;
use crate::machine::Machine;
use crate::media::frame::Ingest;
use crate::media::track::{Codec, CodecSet};
use crate::rtmp;
use crate::rtsp::{self, Burst};
use crate::time::{Deadline, Time};
use crate::wire::rtsp::url::Url;
use bytes::Bytes;

/// What a session is told.
#[derive(Debug)]
pub(in crate::node) enum Input<'a> {
    Received(&'a [u8]),
    Writable(usize),
    PeerFinished,
    Tick,
    Datagram { lane: usize, rtcp: bool, bytes: &'a [u8] },
    UdpAnswered(Option<(u16, u16)>),
    Deliver(&'a Delivery),
    KeyFrameWanted,
    Close(Reason),
}

/// What a session says.
#[derive(Debug)]
pub(in crate::node) enum Output {
    Send(Bytes),
    Datagram { lane: usize, rtcp: bool, bytes: Bytes },
    Burst { lane: usize, burst: Burst },
    UdpWanted { lane: usize },
    UdpPeer { lane: usize, ports: (u16, u16) },
    UdpDone,
    Ready,
    Media(Ingest),
    KeyFrameWanted,
    Moved(Box<Url>),
    Log(Level, String),
    Closed(Reason),
}

/// A client of either protocol.
#[derive(Debug)]
pub(in crate::node) enum Session {
    /// RTSP.
    Rtsp(Box<rtsp::Client>),
    /// RTMP.
    Rtmp(Box<rtmp::client::Client>),
}

impl Session {
    /// Bytes that wait for the server.
    pub(in crate::node) fn backlog(&self) -> usize {
        match self {
            Session::Rtsp(m) => m.backlog(),
            Session::Rtmp(m) => m.backlog(),
        }
    }

    /// Whether media goes over datagrams.
    pub(in crate::node) fn is_udp(&self) -> bool {
        matches!(self, Session::Rtsp(m) if m.is_udp())
    }

    /// What a destination may be sent.
    pub(in crate::node) fn takes(&self) -> CodecSet {
        match self {
            Session::Rtsp(_) => CodecSet::ALL,
            // Of others that it does not take, the client says so; in place of Opus there is AAC.
            Session::Rtmp(m) if m.takes().has(Codec::Opus) => CodecSet::ALL,
            Session::Rtmp(_) => CodecSet::ALL.without(Codec::Opus),
        }
    }

    /// What was left out, by reason.
    pub(in crate::node) fn drops(&self) -> Vec<(&'static str, u64)> {
        match self {
            Session::Rtsp(m) => m.drops().into_iter().collect(),
            Session::Rtmp(m) => m.drops().iter().map(|(reason, n)| (*reason, *n)).collect(),
        }
    }

    /// Share of a source's packets that never came.
    pub(in crate::node) fn loss(&self) -> Option<f64> {
        match self {
            Session::Rtsp(m) => m.loss(),
            Session::Rtmp(_) => None,
        }
    }

    pub(in crate::node) fn handle(&mut self, input: Input<'_>, now: Time) {
        match self {
            Session::Rtsp(m) => {
                use rtsp::client::Input as I;
                let input = match input {
                    Input::Received(b) => I::Received(b),
                    Input::Writable(n) => I::Writable(n),
                    Input::PeerFinished => I::PeerFinished,
                    Input::Tick => I::Tick,
                    Input::Datagram { lane, rtcp, bytes } => I::Datagram { lane, rtcp, bytes },
                    Input::UdpAnswered(Some(ports)) => I::UdpGranted(ports),
                    Input::UdpAnswered(None) => I::UdpRefused,
                    Input::Deliver(d) => I::Deliver(d),
                    Input::KeyFrameWanted => I::KeyFrameWanted,
                    Input::Close(reason) => I::Close(reason),
                };
                m.handle(input, now);
            }
            Session::Rtmp(m) => {
                use rtmp::client::Input as I;
                let input = match input {
                    Input::Received(b) => I::Received(b),
                    Input::Writable(n) => I::Writable(n),
                    Input::PeerFinished => I::PeerFinished,
                    Input::Tick => I::Tick,
                    Input::Deliver(d) => I::Deliver(d),
                    Input::Close(reason) => I::Close(reason),
                    // RTMP has neither.
                    Input::Datagram { .. } | Input::UdpAnswered(_) | Input::KeyFrameWanted => return,
                };
                m.handle(input, now);
            }
        }
    }

    pub(in crate::node) fn poll(&mut self) -> Option<Output> {
        Some(match self {
            Session::Rtsp(m) => {
                use rtsp::client::Output as O;
                match m.poll()? {
                    O::Send(bytes) => Output::Send(bytes),
                    O::Datagram { lane, rtcp, bytes } => Output::Datagram { lane, rtcp, bytes },
                    O::Burst { lane, burst } => Output::Burst { lane, burst },
                    O::UdpWanted { lane } => Output::UdpWanted { lane },
                    O::UdpPeer { lane, ports } => Output::UdpPeer { lane, ports },
                    O::UdpDone => Output::UdpDone,
                    O::Ready => Output::Ready,
                    O::Media(ingest) => Output::Media(ingest),
                    O::KeyFrameWanted => Output::KeyFrameWanted,
                    O::Moved(url) => Output::Moved(url),
                    O::Log(level, text) => Output::Log(level, text),
                    O::Closed(reason) => Output::Closed(reason),
                }
            }
            Session::Rtmp(m) => {
                use rtmp::client::Output as O;
                match m.poll()? {
                    O::Send(bytes) => Output::Send(bytes),
                    O::Ready => Output::Ready,
                    O::Media(ingest) => Output::Media(ingest),
                    // A node's client does not say that it obeys.
                    O::Reconnect(_) => return self.poll(),
                    O::Log(level, text) => Output::Log(level, text),
                    O::Closed(reason) => Output::Closed(reason),
                }
            }
        })
    }

    pub(in crate::node) fn deadline(&self) -> Option<Deadline> {
        match self {
            Session::Rtsp(m) => m.deadline(),
            Session::Rtmp(m) => m.deadline(),
        }
    }
}
