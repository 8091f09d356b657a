//! Media over TCP (RFC 6544), for a client whose network lets no UDP through: it dials the node's candidates, and its
//! datagrams go in frames (RFC 4571, section 2).

use crate::world::actors::{Conn, In, Out};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// The number of the first connection; before it are those of the signalling.
const FIRST: Conn = 1_000;

/// A connection to one of the node's candidates.
#[derive(Debug)]
struct Line {
    to: SocketAddr,
    open: bool,
    /// It broke, and what is sent is lost, as on a cable that is out.
    broken: bool,
    /// What waits for it to open.
    waits: Vec<u8>,
    /// What came and is no whole frame yet.
    got: Vec<u8>,
}

/// The connections of one client, over all its calls.
#[derive(Debug)]
pub(super) struct Tcp {
    next: Conn,
    lines: BTreeMap<Conn, Line>,
}

impl Default for Tcp {
    fn default() -> Tcp {
        Tcp { next: FIRST, lines: BTreeMap::new() }
    }
}

impl Tcp {
    /// Sends a datagram to a candidate, which is dialled for the first. A line that broke is not dialled again: the call
    /// is over when nothing comes any more.
    pub(super) fn send(&mut self, to: SocketAddr, datagram: &[u8], out: &mut VecDeque<Out>) {
        let known = self.lines.iter_mut().find(|(_, l)| l.to == to).map(|(conn, _)| *conn);
        let conn = known.unwrap_or_else(|| {
            let conn = self.next;
            self.next += 1;
            self.lines
                .insert(conn, Line { to, open: false, broken: false, waits: Vec::new(), got: Vec::new() });
            out.push_back(Out::Dial(conn, to));
            conn
        });
        let Some(line) = self.lines.get_mut(&conn).filter(|l| !l.broken) else { return };
        let len = u16::try_from(datagram.len()).expect("a datagram of WebRTC fits in a frame");
        line.waits.extend_from_slice(&len.to_be_bytes());
        line.waits.extend_from_slice(datagram);
        if line.open {
            out.push_back(Out::Send(conn, Bytes::from(std::mem::take(&mut line.waits))));
        }
    }

    /// Takes what happened to one of the connections: the datagrams that came, and from where. `None`: it is about another
    /// connection, or none.
    pub(super) fn on(
        &mut self,
        input: &In<'_>,
        out: &mut VecDeque<Out>,
    ) -> Option<Vec<(SocketAddr, Vec<u8>)>> {
        let conn = match input {
            In::Connected(conn)
            | In::Writable(conn, _)
            | In::Received(conn, _)
            | In::Finished(conn)
            | In::Closed(conn, _) => conn,
            _ => return None,
        };
        if *conn < FIRST {
            return None;
        }
        let mut datagrams = Vec::new();
        // Of an earlier call's, nothing matters any more.
        let Some(line) = self.lines.get_mut(conn) else { return Some(datagrams) };
        match input {
            In::Connected(_) => {
                line.open = true;
                out.push_back(Out::Send(*conn, Bytes::from(std::mem::take(&mut line.waits))));
            }
            In::Received(_, bytes) => {
                line.got.extend_from_slice(bytes);
                while let Some([high, low]) = line.got.first_chunk::<2>() {
                    let end = 2 + usize::from(u16::from_be_bytes([*high, *low]));
                    if line.got.len() < end {
                        break;
                    }
                    let rest = line.got.split_off(end);
                    datagrams.push((line.to, std::mem::replace(&mut line.got, rest).split_off(2)));
                }
            }
            In::Finished(_) => {
                (line.open, line.broken) = (false, true);
                out.push_back(Out::Close(*conn, false));
            }
            In::Closed(..) => (line.open, line.broken) = (false, true),
            _ => {}
        }
        Some(datagrams)
    }

    /// The call is over: what was sent still leaves.
    pub(super) fn close(&mut self, out: &mut VecDeque<Out>) {
        for (conn, line) in std::mem::take(&mut self.lines) {
            if !line.broken {
                out.push_back(Out::Close(conn, false));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_pass_however_they_are_cut() {
        let to: SocketAddr = "10.0.0.1:8189".parse().unwrap();
        let (mut tcp, mut out) = (Tcp::default(), VecDeque::new());
        tcp.send(to, b"one", &mut out);
        assert!(matches!(out.pop_front(), Some(Out::Dial(FIRST, a)) if a == to) && out.is_empty());
        tcp.on(&In::Connected(FIRST), &mut out);
        tcp.send(to, b"two", &mut out);
        let sent: Vec<Bytes> =
            out.drain(..).map(|o| if let Out::Send(FIRST, b) = o { b } else { panic!("{o:?}") }).collect();
        assert_eq!(sent, [&b"\0\x03one"[..], &b"\0\x03two"[..]]);
        for cut in 1..10 {
            let (mut got, bytes) = (Vec::new(), sent.concat());
            for piece in bytes.chunks(cut) {
                got.extend(tcp.on(&In::Received(FIRST, piece), &mut out).unwrap());
            }
            assert_eq!(got, [(to, b"one".to_vec()), (to, b"two".to_vec())], "{cut}");
        }
        assert!(tcp.on(&In::Received(0, b"HTTP"), &mut out).is_none(), "the signalling's");
        tcp.close(&mut out);
        assert!(matches!(out.pop_front(), Some(Out::Close(FIRST, false))));
    }
}
