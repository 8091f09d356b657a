//! Players over TCP that only count: RTMP and HTTP-FLV.

use super::source::ages;
use super::{Count, Place};
use bytes::Bytes;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use proto_core::wire::amf0::{Value, emit_all};
use proto_core::wire::rtmp_chunk::render_message;
use proto_core::wire::rtmp_message::{Message, kind};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::ToSocketAddrs as _;

/// Bytes of S0, S1 and S2, and of C1.
const ANSWER: usize = 1 + 2 * 1536;
const HELLO: usize = 1536;
/// The end of what was read that may be the beginning of a stamp.
const TAIL: usize = 23;

/// One player.
pub(super) struct Player {
    socket: TcpStream,
    /// What is still to be said, and how much must have been read before it may be.
    script: Vec<(usize, Vec<u8>)>,
    read: usize,
    probe: bool,
    tail: Vec<u8>,
    pub(super) count: Count,
}

fn command(stream: u32, values: &[Value]) -> Bytes {
    let payload = emit_all(values).freeze();
    render_message(&Message { csid: 3, timestamp: 0, kind: kind::COMMAND, stream, payload }, 128)
}

impl Player {
    /// Connects and begins to ask for the stream.
    ///
    /// # Errors
    /// The address is not known, or there is no connection.
    pub(super) fn open(
        place: &Place,
        probe: bool,
        token: Token,
        registry: &Registry,
    ) -> Result<Player, String> {
        let at = (place.host.as_str(), place.port);
        let fail = |e: std::io::Error| format!("{}:{}: {e}", place.host, place.port);
        let address = at.to_socket_addrs().map_err(fail)?.next().ok_or("the host has no address")?;
        let mut socket = TcpStream::connect(address).map_err(fail)?;
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE).map_err(fail)?;
        let script = if place.scheme == "rtmp" {
            let mut hello = vec![3];
            hello.resize(1 + HELLO, 0);
            let mut ask = vec![0; HELLO];
            let tc_url = format!("rtmp://{}:{}/{}", place.host, place.port, place.app);
            let object = vec![
                ("app".to_owned(), Value::string(&place.app)),
                ("tcUrl".to_owned(), Value::String(tc_url)),
            ];
            let connect = [Value::string("connect"), Value::Number(1.0), Value::Object(object)];
            ask.extend_from_slice(&command(0, &connect));
            ask.extend_from_slice(&command(
                0,
                &[Value::string("createStream"), Value::Number(2.0), Value::Null],
            ));
            let play = [Value::string("play"), Value::Number(3.0), Value::Null, Value::string(&place.name)];
            ask.extend_from_slice(&command(1, &play));
            vec![(ANSWER, ask), (0, hello)]
        } else {
            let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", place.path, place.host);
            vec![(0, request.into_bytes())]
        };
        Ok(Player { socket, script, read: 0, probe, tail: Vec::new(), count: Count::default() })
    }

    /// Reads what there is.
    pub(super) fn ready(&mut self, buffer: &mut [u8], now: u64, latencies: &mut Vec<u64>) {
        self.say();
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return self.count.dead = true,
                Ok(n) => {
                    self.read += n;
                    self.count.bytes += n as u64;
                    if self.probe {
                        self.tail.extend_from_slice(&buffer[..n]);
                        latencies.extend(ages(&self.tail, now));
                        self.forget();
                    }
                    self.say();
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.count.dead = true,
            }
        }
    }

    /// Keeps only what may be the beginning of a stamp: one that was found whole is not found again.
    fn forget(&mut self) {
        let keep = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..keep);
    }

    fn say(&mut self) {
        while let Some((after, _)) = self.script.last()
            && *after <= self.read
            && let Some((_, bytes)) = self.script.last()
        {
            // A new connection has room for so little.
            match self.socket.write(bytes) {
                Ok(n) if n == bytes.len() => drop(self.script.pop()),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return,
                _ => return self.count.dead = true,
            }
        }
    }
}
