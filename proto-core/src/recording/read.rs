//! How a recording is read.

use super::{BLOCK_MAX, CODES, End, FORMAT, HEADER_MAX, Header, MAGIC};
use crate::bridge::{Bridged, Made, Packet};
use crate::error::{Fault, Reason, quote};
use crate::io::{Answer, AskId, Batch, ConnId, Input, Service, SocketId, Transmit};
use crate::time::{Time, WallTime};
use crate::trace::xxh64;
use bytes::{Bytes, BytesMut};
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

/// Bytes between `MAGIC` and what `length` counts.
const HEAD: usize = 2 + 4 + 8;

/// What is wrong with a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It does not begin as a recording does.
    NotARecording,
    /// It is of another format, with this number.
    OtherFormat(u16),
    /// Bytes were changed, left out or moved: the block that begins at this offset is not what was written.
    Changed {
        /// The first byte of the block, counted from the beginning of the file.
        offset: u64,
    },
    /// A whole block that this version cannot read: the words say what stands in its way.
    Unreadable {
        /// The first byte of the block.
        offset: u64,
        /// What is wrong.
        what: String,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::NotARecording => f.write_str("this is no recording of headwater"),
            Damage::OtherFormat(n) => write!(
                f,
                "this recording has format {n}, and this version of headwater reads format {FORMAT} only; \
                 replay it with the version that recorded it"
            ),
            Damage::Changed { offset } => {
                write!(f, "the file is damaged: what stands from byte {offset} on is not what was recorded")
            }
            Damage::Unreadable { offset, what } => {
                write!(f, "this version of headwater cannot read what stands at byte {offset}: {what}")
            }
        }
    }
}

/// An input as a recording holds it.
#[derive(Debug)]
pub enum Recorded {
    /// [`Input::HostAddresses`].
    HostAddresses(Vec<IpAddr>),
    /// [`Input::Received`].
    Received {
        /// The connection.
        conn: ConnId,
        /// The bytes.
        bytes: Bytes,
    },
    /// [`Input::Datagram`].
    Datagram {
        /// The socket.
        socket: SocketId,
        /// The address that it was sent to.
        local: SocketAddr,
        /// Where it came from.
        remote: SocketAddr,
        /// Bytes of each datagram.
        stride: usize,
        /// The bytes.
        bytes: Bytes,
    },
    /// [`Input::Sent`] of a batch that the node sent itself: the `batch`-th, counted from 0.
    Returned {
        /// Which.
        batch: u64,
        /// Transmits that the kernel refused.
        refused: usize,
    },
    /// Any other input.
    Other(Input<'static>),
}

/// One thing in a recording.
#[derive(Debug)]
pub enum Item {
    /// What the node is made of: the first item, once.
    Header(Box<Header>),
    /// The node was told something.
    Input {
        /// When.
        at: Time,
        /// The low end of the digest of all inputs and outputs before.
        mark: u16,
        /// What.
        input: Recorded,
    },
    /// Everything before was whole, and the node had come to this digest.
    Checkpoint {
        /// The digest of all inputs and outputs before.
        digest: u64,
        /// Whether the recording ends here, and why.
        end: Option<End>,
    },
}

/// Takes the bytes of a recording, cut in any way, and gives its items.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    bytes: BytesMut,
    offset: u64,
    check: Option<u64>,
    block: Option<Block>,
    at: Time,
    ended: bool,
}

#[derive(Clone, Debug)]
struct Block {
    offset: u64,
    left: u64,
    rest: Cursor,
    end: Option<End>,
}

impl Reader {
    /// A reader at the beginning of a recording.
    pub fn new() -> Reader {
        Reader::default()
    }

    /// Takes the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether the recording said that it ends. If not, and there are no more bytes, then the process that recorded
    /// was killed or the file was cut.
    pub const fn ended(&self) -> bool {
        self.ended
    }

    /// Bytes that belong to a block which has not arrived as a whole (or that follow the end).
    pub fn left_over(&self) -> usize {
        self.bytes.len()
    }

    /// The next item; `None` when more bytes are needed, or nothing follows.
    ///
    /// # Errors
    /// What is wrong with the file. Nothing follows then.
    #[allow(clippy::should_implement_trait, reason = "it is fed between calls")]
    pub fn next(&mut self) -> Result<Option<Item>, Damage> {
        loop {
            if let Some(block) = &mut self.block {
                let offset = block.offset;
                let item = block.item(&mut self.at);
                return match item {
                    Ok(item) => {
                        if let Item::Checkpoint { end, .. } = &item {
                            self.ended |= end.is_some();
                            self.block = None;
                        }
                        Ok(Some(item))
                    }
                    Err(what) => Err(Damage::Unreadable { offset, what: what.into() }),
                };
            }
            let Some(check) = self.check else { return self.header() };
            if self.ended {
                return Ok(None);
            }
            let offset = self.offset;
            let Some((length, declared)) = frame(&self.bytes, 0) else { return Ok(None) };
            if length > BLOCK_MAX {
                return Err(Damage::Changed { offset });
            }
            let Some(payload) = self.take(12, length) else { return Ok(None) };
            if xxh64(&payload, check) != declared {
                return Err(Damage::Changed { offset });
            }
            self.check = Some(declared);
            let block = Block::open(offset, payload)
                .map_err(|what| Damage::Unreadable { offset, what: what.into() })?;
            self.block = Some(block);
        }
    }

    fn header(&mut self) -> Result<Option<Item>, Damage> {
        let known = self.bytes.iter().zip(MAGIC).all(|(a, b)| a == b);
        if !known {
            return Err(Damage::NotARecording);
        }
        let Some(format) = self.bytes.get(MAGIC.len()..).and_then(|b| b.first_chunk::<2>()) else {
            return Ok(None);
        };
        let format = u16::from_be_bytes(*format);
        if format != FORMAT {
            return Err(Damage::OtherFormat(format));
        }
        let Some((length, declared)) = frame(&self.bytes, MAGIC.len() + 2) else { return Ok(None) };
        if length > HEADER_MAX {
            return Err(Damage::Changed { offset: 0 });
        }
        let Some(body) = self.take(MAGIC.len() + HEAD, length) else { return Ok(None) };
        if xxh64(&body, 0) != declared {
            return Err(Damage::Changed { offset: 0 });
        }
        self.check = Some(declared);
        let header =
            header(Cursor(body)).map_err(|what| Damage::Unreadable { offset: 0, what: what.into() })?;
        Ok(Some(Item::Header(Box::new(header))))
    }

    fn take(&mut self, head: usize, length: usize) -> Option<Bytes> {
        let whole = head.checked_add(length).filter(|n| *n <= self.bytes.len())?;
        self.offset += whole as u64;
        let mut bytes = self.bytes.split_to(whole).freeze();
        Some(bytes.split_off(head))
    }
}

/// Length and check of what follows at `at`.
fn frame(bytes: &[u8], at: usize) -> Option<(usize, u64)> {
    let (length, rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    Some((length, u64::from_be_bytes(*rest.first_chunk::<8>()?)))
}

/// What cannot be read, as the end of a sentence.
struct Malformed(String);

impl From<&str> for Malformed {
    fn from(what: &str) -> Malformed {
        Malformed(what.to_owned())
    }
}

impl From<Malformed> for String {
    fn from(malformed: Malformed) -> String {
        malformed.0
    }
}

type Read<T> = Result<T, Malformed>;

fn header(mut c: Cursor) -> Read<Header> {
    let version = c.text()?;
    let config = c.text()?;
    let config = serde_json::from_str(&config).map_err(|e| {
        Malformed(format!("its configuration has keys or values that this version does not know ({e})"))
    })?;
    let header = Header { version, config, node_seed: c.array()?, crypto_seed: c.array()? };
    c.nothing_left()?;
    Ok(header)
}

impl Block {
    fn open(offset: u64, payload: Bytes) -> Read<Block> {
        let mut rest = Cursor(payload);
        let left = rest.number()?;
        let end = match rest.byte()? {
            0 => None,
            1 => Some(End::Ended),
            2 => Some(End::Cut),
            _ => return Err("an end of an unknown kind".into()),
        };
        Ok(Block { offset, left, rest, end })
    }

    fn item(&mut self, last: &mut Time) -> Read<Item> {
        let c = &mut self.rest;
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            *last += Duration::from_nanos(c.number()?);
            let mark = u16::from_be_bytes(c.array()?);
            return Ok(Item::Input { at: *last, mark, input: input(c)? });
        }
        let digest = u64::from_be_bytes(c.array()?);
        c.nothing_left()?;
        Ok(Item::Checkpoint { digest, end: self.end })
    }
}

fn input(c: &mut Cursor) -> Read<Recorded> {
    let input = match c.byte()? {
        0 => Input::Tick,
        1 => Input::Busy { permille: c.small()? },
        2 => Input::WallClock(WallTime(c.number()?)),
        3 => {
            let count = c.number()?;
            return Ok(Recorded::HostAddresses((0..count).map(|_| c.ip()).collect::<Read<_>>()?));
        }
        4 => Input::Accepted {
            conn: c.conn()?,
            service: match c.byte()? {
                0 => Service::Http,
                1 => Service::Rtmp,
                2 => Service::Link,
                3 => Service::Https,
                4 => Service::Rtmps,
                5 => Service::Rtsp,
                6 => Service::Rtsps,
                7 => Service::IceTcp,
                8 => Service::Door,
                _ => return Err("a listener of an unknown kind".into()),
            },
            local: c.address()?,
            remote: c.address()?,
        },
        5 => Input::Connected { conn: c.conn()?, local: c.address()?, remote: c.address()? },
        6 => return Ok(Recorded::Received { conn: c.conn()?, bytes: c.blob()? }),
        7 => Input::Writable { conn: c.conn()?, free: c.small()? },
        8 => Input::PeerFinished { conn: c.conn()? },
        9 => Input::Closed { conn: c.conn()?, reason: c.reason()? },
        10 => Input::UdpOpened { socket: c.socket()?, local: c.address()?, max_segments: c.small()? },
        11 => Input::UdpFailed { socket: c.socket()?, reason: c.reason()? },
        12 => {
            return Ok(Recorded::Datagram {
                socket: c.socket()?,
                local: c.address()?,
                remote: c.address()?,
                stride: c.small()?,
                bytes: c.blob()?,
            });
        }
        13 => return Ok(Recorded::Returned { batch: c.number()?, refused: c.small()? }),
        14 => {
            let ask = AskId(c.number()?);
            let found = if c.byte()? == 1 {
                let count = c.number()?;
                Ok((0..count).map(|_| c.address()).collect::<Read<_>>()?)
            } else {
                Err(c.text()?)
            };
            Input::Answer { ask, answer: Answer::Resolved(found) }
        }
        15 => Input::Drain,
        19 => {
            let ask = AskId(c.number()?);
            let right = match c.byte()? {
                2 => Err(c.text()?),
                right => Ok(right == 1),
            };
            Input::Answer { ask, answer: Answer::Checked(right) }
        }
        17 => {
            let ask = AskId(c.number()?);
            let found = if c.byte()? == 1 { Ok(c.blob()?) } else { Err(c.text()?) };
            Input::Answer { ask, answer: Answer::File(found) }
        }
        16 => Input::Sent { batch: c.batch()?, refused: c.small()? },
        18 => Input::Answer { ask: AskId(c.number()?), answer: Answer::Bridged(c.bridged()?) },
        kind => return Err(Malformed(format!("an input of the unknown kind {kind}"))),
    };
    Ok(Recorded::Other(input))
}

/// What is left to read of a block.
#[derive(Clone, Debug)]
struct Cursor(Bytes);

const SHORT: &str = "it ends too early";

impl Cursor {
    fn nothing_left(&self) -> Read<()> {
        if self.0.is_empty() { Ok(()) } else { Err("it has more bytes than it should".into()) }
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let array = *self.0.first_chunk::<N>().ok_or(SHORT)?;
        let _ = self.0.split_to(N);
        Ok(array)
    }

    fn byte(&mut self) -> Read<u8> {
        self.array().map(|[byte]| byte)
    }

    fn number(&mut self) -> Read<u64> {
        let mut out = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            out |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(out);
            }
        }
        Err("a number that does not end or is too large".into())
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Read<T> {
        T::try_from(self.number()?).map_err(|_| "a number out of range".into())
    }

    fn blob(&mut self) -> Read<Bytes> {
        let length: usize = self.small()?;
        if length > self.0.len() {
            return Err(SHORT.into());
        }
        Ok(self.0.split_to(length))
    }

    fn text(&mut self) -> Read<String> {
        let blob = self.blob()?;
        std::str::from_utf8(&blob).map(str::to_owned).map_err(|_| "a text that is not UTF-8".into())
    }

    fn conn(&mut self) -> Read<ConnId> {
        Ok(ConnId(self.number()?.rotate_right(1)))
    }

    fn socket(&mut self) -> Read<SocketId> {
        Ok(SocketId(self.small()?))
    }

    fn ip_of(&mut self, kind: u8) -> Read<IpAddr> {
        match kind {
            4 => Ok(self.array::<4>()?.into()),
            6 => Ok(self.array::<16>()?.into()),
            _ => Err("an address of an unknown kind".into()),
        }
    }

    fn ip(&mut self) -> Read<IpAddr> {
        let kind = self.byte()?;
        self.ip_of(kind)
    }

    fn address(&mut self) -> Read<SocketAddr> {
        let ip = self.ip()?;
        let port = u16::from_be_bytes(self.array()?);
        Ok(match ip {
            IpAddr::V4(_) => SocketAddr::new(ip, port),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, port, self.small()?, self.small()?).into(),
        })
    }

    fn bridged(&mut self) -> Read<Bridged> {
        let mut done = Bridged::default();
        if self.byte()? == 1 {
            done.made = Some(Made { config: self.blob()?, rate: self.small()?, channels: self.byte()? });
        }
        for _ in 0..self.number()? {
            done.packets.push(Packet { pts: i64::from_be_bytes(self.array()?), data: self.blob()? });
        }
        done.undecodable = self.number()?;
        if self.byte()? == 1 {
            done.failed = Some(self.text()?);
        }
        Ok(done)
    }

    fn reason(&mut self) -> Read<Reason> {
        let fault = match self.byte()? {
            0 => Fault::Peer,
            1 => Fault::Local,
            2 => Fault::Limit,
            _ => return Err("a fault of an unknown kind".into()),
        };
        let code = self.text()?;
        let code = CODES.into_iter().find(|c| *c == code).ok_or_else(|| {
            Malformed(format!("the reason {} is not one that this version knows", quote(&code)))
        })?;
        Ok(Reason { fault, code, text: self.text()?.into() })
    }

    fn batch(&mut self) -> Read<Box<Batch>> {
        let mut batch = Box::new(Batch::new(self.socket()?));
        batch.buf = self.blob()?.to_vec();
        for _ in 0..self.number()? {
            let src = match self.byte()? {
                0 => None,
                kind => Some(self.ip_of(kind)?),
            };
            let dst = self.address()?;
            let (start, len, segment_size) = (self.small()?, self.small()?, self.small()?);
            batch.items.push(Transmit { src, dst, start, len, segment_size });
        }
        Ok(batch)
    }
}
