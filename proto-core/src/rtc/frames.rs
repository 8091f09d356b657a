//! Datagrams in a TCP connection: two bytes of length before each (RFC 4571, section 2), as ICE over TCP has them
//! (RFC 6544, section 3). The reading half; what is sent is framed by the endpoint.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::buf::Inbox;
use crate::error::Reason;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::time::{Deadline, Time};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::time::Duration;

/// Bytes of a length.
const HEAD: usize = 2;
/// The longest datagram: browsers keep to 1,500 bytes, whatever carries them.
const LONGEST: usize = 8 << 10;

/// Appends a datagram in its frame. One that is longer than a frame can be is left out; none is.
pub fn put(out: &mut BytesMut, datagram: &[u8]) {
    if let Ok(len) = u16::try_from(datagram.len()) {
        out.put_u16(len);
        out.put_slice(datagram);
    }
}

/// What a [`Frames`] is told.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Time passed.
    Tick,
    /// Bytes arrived.
    Received(&'a [u8]),
    /// How many bytes the driver would take.
    Writable(usize),
    /// The peer will send no more.
    PeerFinished,
    /// A check of ICE with the password of a session came this way: from now on the session says when it ends.
    Proven,
}

/// What a [`Frames`] says.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A datagram.
    Datagram(Bytes),
    /// How many bytes may be sent.
    Room(usize),
    /// The connection is over.
    Closed(Reason),
}

/// One connection of ICE over TCP. A [`Machine`].
#[derive(Debug)]
pub struct Frames {
    inbox: Inbox,
    /// When it ends unless it is proven.
    until: Option<Time>,
    closed: bool,
    outputs: VecDeque<Output>,
}

impl Frames {
    /// A connection that was just accepted.
    pub fn new(limits: &Limits, now: Time) -> Frames {
        Frames {
            inbox: Inbox::new(HEAD + LONGEST),
            until: Some(now + Duration::from_millis(limits.rtc_handshake_ms)),
            closed: false,
            outputs: VecDeque::new(),
        }
    }

    fn close(&mut self, reason: Reason) {
        if !std::mem::replace(&mut self.closed, true) {
            self.outputs.push_back(Output::Closed(reason));
        }
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        while !self.closed {
            let taken = self.inbox.fill(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            let Some(head) = self.inbox.peek().first_chunk::<HEAD>() else { return };
            let len = usize::from(u16::from_be_bytes(*head));
            if len > LONGEST {
                let text = format!(
                    "a frame of {len} bytes on a connection of ICE over TCP, at most {LONGEST} are taken"
                );
                return self.close(Reason::peer("ice_tcp_frame", text));
            }
            if self.inbox.len() < HEAD + len {
                return;
            }
            self.inbox.consume(HEAD);
            // An empty one keeps an address translator awake.
            if len > 0 {
                let datagram = self.inbox.take(len);
                self.outputs.push_back(Output::Datagram(datagram));
            }
        }
    }
}

impl Machine for Frames {
    type Input<'a> = Input<'a>;
    type Output = Output;

    fn handle(&mut self, input: Input<'_>, now: Time) {
        match input {
            Input::Tick => {
                if self.until.is_some_and(|at| at <= now) {
                    let text = "no ICE check with the password of a session came on this connection";
                    self.close(Reason::limit("ice_tcp_idle", text));
                }
            }
            Input::Received(bytes) => self.receive(bytes),
            Input::Writable(free) => self.outputs.push_back(Output::Room(free)),
            Input::PeerFinished => {
                self.close(Reason::peer("peer_closed", "the peer closed its side of the connection"))
            }
            Input::Proven => self.until = None,
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Deadline> {
        let at = self.until.filter(|_| !self.closed)?;
        Some(Deadline::new(at, "a connection of ICE over TCP without a session"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(frames: &mut Frames) -> Vec<Output> {
        std::iter::from_fn(|| frames.poll()).collect()
    }

    #[test]
    fn datagrams_come_out_whole_however_they_arrive() {
        let mut bytes = BytesMut::new();
        for datagram in [&b"one"[..], b"", b"three"] {
            put(&mut bytes, datagram);
        }
        for chunk in 1..bytes.len() {
            let mut frames = Frames::new(&Limits::default(), Time::ZERO);
            bytes.chunks(chunk).for_each(|c| frames.handle(Input::Received(c), Time::ZERO));
            let datagram = |b: &'static [u8]| Output::Datagram(Bytes::from_static(b));
            assert_eq!(said(&mut frames), [datagram(b"one"), datagram(b"three")], "{chunk}");
        }
    }

    #[test]
    fn what_is_no_frame_and_who_proves_nothing_is_ended() {
        let limits = Limits::default();
        let mut frames = Frames::new(&limits, Time::ZERO);
        frames.handle(Input::Received(b"GET / HTTP/1.1\r\n"), Time::ZERO);
        let ended = said(&mut frames);
        assert!(matches!(ended.as_slice(), [Output::Closed(r)] if r.code == "ice_tcp_frame"), "{ended:?}");
        frames.handle(Input::Received(&[0, 1, 7]), Time::ZERO);
        assert!(said(&mut frames).is_empty());

        let mut idle = Frames::new(&limits, Time::ZERO);
        let at = idle.deadline().map(|d| d.at);
        assert_eq!(at, Some(Time::from_millis(limits.rtc_handshake_ms)));
        let mut proven = Frames::new(&limits, Time::ZERO);
        proven.handle(Input::Proven, Time::ZERO);
        for frames in [&mut idle, &mut proven] {
            frames.handle(Input::Tick, Time::from_millis(limits.rtc_handshake_ms));
        }
        assert!(matches!(said(&mut idle).as_slice(), [Output::Closed(r)] if r.code == "ice_tcp_idle"));
        assert!(said(&mut proven).is_empty() && proven.deadline().is_none());
    }
}
