//! RTMP chunk streams (Adobe RTMP 1.0, section 5.3): chunks into messages and messages into chunks.
//!
//! Where implementations differ, this one does the following.
//! * *Extended timestamp on a continuing type 3 chunk.* The specification (5.3.1.3) and most peers repeat it, some do
//!   not, and a peer's choice is nowhere announced. As SRS does, the four bytes are looked at: they are an extended
//!   timestamp if they equal the last one of this chunk stream (or the message's own time), else they are payload.
//!   nginx-rtmp and ffmpeg always expect the repetition, and so lose peers that leave it out.
//! * *Type 3 that begins a message.* The former delta is applied again, and after a type 0 the timestamp itself is
//!   that delta (5.3.1.2.4; ffmpeg and librtmp do the same).
//! * *Type 1 on a fresh chunk stream* counts from time 0 on message stream 0: librtmp starts its control stream so.
//! * *A new header (type 0, 1, 2) inside a message* is a protocol error: the two lengths cannot both be true, and
//!   believing the second has been a memory hole elsewhere (CVE-2016-10191; abuse A4).

use super::rtmp_message::{Message, kind};
use crate::buf::extend_up_to;
use crate::error::Reason;
use crate::limits::Limits;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

/// Payload bytes of a chunk before any Set Chunk Size (5.4.1).
pub const DEFAULT_CHUNK_SIZE: u32 = 128;
/// The largest chunk size that has a meaning: no message is longer (5.4.1).
pub const MAX_CHUNK_SIZE: u32 = 0xff_ffff;

const EXTENDED: u32 = 0xff_ffff;
/// Basic header 3, message header 11, extended timestamp 4.
const HEADER_MAX: usize = 18;

/// What the last headers of one chunk stream said.
#[derive(Debug, Default)]
struct ChunkStream {
    timestamp: u32,
    delta: u32,
    /// The field that stood in the last extended timestamp, if the last header had one.
    extended: Option<u32>,
    length: u32,
    kind: u8,
    stream: u32,
    partial: Option<Vec<u8>>,
}

#[derive(Debug)]
enum State {
    Header,
    Payload { csid: u32, left: usize },
}

/// Makes whole messages out of a byte stream in chunks. Set Chunk Size and Abort are obeyed here and not given out.
#[derive(Debug)]
pub struct ChunkReader {
    streams: BTreeMap<u32, ChunkStream>,
    state: State,
    header: [u8; HEADER_MAX],
    header_len: usize,
    chunk_size: usize,
    /// The peer has been seen to leave out the extended timestamp of type 3 chunks.
    leaves_out_extended: bool,
    /// Bytes that were taken for an extended timestamp and are payload.
    back: [u8; 4],
    back_len: usize,
    partials: usize,
    partial_bytes: usize,
    partial_cap: usize,
    max_streams: usize,
    max_partials: usize,
    failed: bool,
}

/// How far a chunk header is.
enum Header {
    NeedsMore,
    /// Whole. `unread` bytes at its end belong to the payload.
    Whole {
        unread: usize,
    },
}

fn be(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

impl ChunkReader {
    /// A reader with the limits that hold before publishing is accepted.
    pub fn new(limits: &Limits) -> ChunkReader {
        ChunkReader {
            streams: BTreeMap::new(),
            state: State::Header,
            header: [0; HEADER_MAX],
            header_len: 0,
            chunk_size: DEFAULT_CHUNK_SIZE as usize,
            leaves_out_extended: false,
            back: [0; 4],
            back_len: 0,
            partials: 0,
            partial_bytes: 0,
            partial_cap: limits.rtmp_partial_bytes_before,
            max_streams: limits.rtmp_chunk_streams,
            max_partials: limits.rtmp_partial_messages,
            failed: false,
        }
    }

    /// Sets how many bytes of partly received messages may be held in all (abuse A2). What is held already stays.
    pub fn set_partial_cap(&mut self, bytes: usize) {
        self.partial_cap = bytes;
    }

    /// Bytes of partly received messages.
    pub fn partial_bytes(&self) -> usize {
        self.partial_bytes
    }

    /// Takes bytes from the front of `input` until a message is whole (`Some`) or `input` is used up (`None`).
    ///
    /// # Errors
    /// The peer broke the protocol or a limit. The connection is of no use any more: chunk boundaries are lost, and
    /// every further call answers an error.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Message>, Reason> {
        if self.failed {
            return Err(Reason::peer("rtmp_chunk", "the chunk stream was broken before"));
        }
        let result = self.read_on(input);
        self.failed = result.is_err();
        result
    }

    fn read_on(&mut self, input: &mut &[u8]) -> Result<Option<Message>, Reason> {
        loop {
            match self.state {
                State::Payload { csid, left } => {
                    let message = if self.back_len > 0 {
                        let n = left.min(self.back_len);
                        let back = self.back;
                        let message = self.payload(csid, left, back.get(..n).unwrap_or_default())?;
                        self.back.rotate_left(n);
                        self.back_len -= n;
                        message
                    } else {
                        let n = left.min(input.len());
                        let (head, tail) = input.split_at_checked(n).unwrap_or((input, &[]));
                        *input = tail;
                        if n == 0 && left > 0 {
                            return Ok(None);
                        }
                        self.payload(csid, left, head)?
                    };
                    if let Some(message) = message.map(|m| self.control(m)).transpose()?.flatten() {
                        return Ok(Some(message));
                    }
                }
                State::Header => {
                    let byte = if self.back_len > 0 {
                        let byte = self.back[0];
                        self.back.rotate_left(1);
                        self.back_len -= 1;
                        byte
                    } else {
                        let Some((byte, tail)) = input.split_first() else { return Ok(None) };
                        *input = tail;
                        *byte
                    };
                    if let Some(slot) = self.header.get_mut(self.header_len) {
                        *slot = byte;
                        self.header_len += 1;
                    }
                    if let Header::Whole { unread } = self.header_state()? {
                        let end = self.header_len.saturating_sub(unread);
                        for i in 0..unread {
                            let byte = self.header.get(end + i).copied().unwrap_or(0);
                            if let Some(slot) = self.back.get_mut(self.back_len) {
                                *slot = byte;
                                self.back_len += 1;
                            }
                        }
                        self.header_len = end;
                        self.begin_chunk()?;
                        self.header_len = 0;
                    }
                }
            }
        }
    }

    fn field(&self, from: usize, len: usize) -> &[u8] {
        self.header.get(from..from + len).unwrap_or_default()
    }

    /// Format, chunk stream id and length of the basic header, once it is whole (5.3.1.1).
    fn basic(&self) -> Option<(u8, u32, usize)> {
        let first = self.header[0];
        let (csid, len) = match first & 0x3f {
            0 => (64 + u32::from(self.header[1]), 2),
            1 => (64 + u32::from(self.header[1]) + (u32::from(self.header[2]) << 8), 3),
            n => (u32::from(n), 1),
        };
        (self.header_len >= len).then_some((first >> 6, csid, len))
    }

    fn header_state(&mut self) -> Result<Header, Reason> {
        let Some((fmt, csid, basic)) = self.basic() else { return Ok(Header::NeedsMore) };
        let message = match fmt {
            0 => 11,
            1 => 7,
            2 => 3,
            _ => 0,
        };
        let end = basic + message;
        if self.header_len < end {
            return Ok(Header::NeedsMore);
        }
        if fmt < 3 {
            let extended = be(self.field(basic, 3)) == EXTENDED;
            let want = if extended { end + 4 } else { end };
            return Ok(if self.header_len < want { Header::NeedsMore } else { Header::Whole { unread: 0 } });
        }
        let Some(known) = self.streams.get(&csid) else { return Ok(Header::Whole { unread: 0 }) };
        let Some(extended) = known.extended else { return Ok(Header::Whole { unread: 0 }) };
        let have = self.header_len.saturating_sub(end);
        if self.leaves_out_extended {
            return Ok(Header::Whole { unread: have });
        }
        let seen = self.field(end, have);
        let repeats = known.partial.is_none()
            || extended.to_be_bytes().starts_with(seen)
            || known.timestamp.to_be_bytes().starts_with(seen);
        if !repeats {
            self.leaves_out_extended = true;
            return Ok(Header::Whole { unread: have });
        }
        Ok(if have < 4 { Header::NeedsMore } else { Header::Whole { unread: 0 } })
    }

    fn begin_chunk(&mut self) -> Result<(), Reason> {
        let Some((fmt, csid, basic)) = self.basic() else { return Ok(()) };
        if !self.streams.contains_key(&csid) {
            if fmt > 1 {
                return Err(Reason::peer(
                    "rtmp_chunk",
                    format!(
                        "chunk stream {csid} begins with a type {fmt} chunk, which refers to a chunk before it"
                    ),
                ));
            }
            if self.streams.len() >= self.max_streams {
                return Err(Reason::limit(
                    "rtmp_chunk_streams",
                    format!(
                        "the peer uses more than {} chunk streams (limits.rtmp_chunk_streams)",
                        self.max_streams
                    ),
                ));
            }
        }
        let head: [u8; HEADER_MAX] = self.header;
        let field = |from: usize, len: usize| head.get(from..from + len).unwrap_or_default();
        let message_len = match fmt {
            0 => 11,
            1 => 7,
            2 => 3,
            _ => 0,
        };
        let extended =
            (self.header_len >= basic + message_len + 4).then(|| be(field(basic + message_len, 4)));
        let entry = self.streams.entry(csid).or_default();
        if entry.partial.is_some() {
            if fmt < 3 {
                return Err(Reason::peer(
                    "rtmp_chunk",
                    format!("chunk stream {csid} has a new type {fmt} header inside a message"),
                ));
            }
        } else {
            if fmt < 3 {
                let time = extended.unwrap_or_else(|| be(field(basic, 3)));
                entry.extended = extended;
                entry.delta = time;
                entry.timestamp = if fmt == 0 { time } else { entry.timestamp.wrapping_add(time) };
                if fmt < 2 {
                    entry.length = be(field(basic + 3, 3));
                    entry.kind = field(basic + 6, 1).first().copied().unwrap_or(0);
                }
                if fmt == 0 {
                    let id = field(basic + 7, 4).first_chunk::<4>().copied().unwrap_or_default();
                    entry.stream = u32::from_le_bytes(id);
                }
            } else {
                if extended.is_some() {
                    entry.extended = extended;
                }
                entry.delta = extended.unwrap_or(entry.delta);
                entry.timestamp = entry.timestamp.wrapping_add(entry.delta);
            }
            if self.partials >= self.max_partials {
                return Err(Reason::limit(
                    "rtmp_partial_messages",
                    format!(
                        "more than {} messages are under way at once (limits.rtmp_partial_messages)",
                        self.max_partials
                    ),
                ));
            }
            let length = entry.length as usize;
            if length > self.partial_cap {
                return Err(Reason::limit("rtmp_message_size", too_large(length, self.partial_cap)));
            }
            entry.partial = Some(Vec::new());
            self.partials += 1;
        }
        let have = entry.partial.as_ref().map_or(0, Vec::len);
        let left = (entry.length as usize).saturating_sub(have).min(self.chunk_size);
        self.state = State::Payload { csid, left };
        Ok(())
    }

    /// Appends payload bytes (at most `left`); answers the message if that made it whole.
    fn payload(&mut self, csid: u32, left: usize, bytes: &[u8]) -> Result<Option<Message>, Reason> {
        let Some(entry) = self.streams.get_mut(&csid) else { return Ok(None) };
        let partial = entry.partial.get_or_insert_default();
        self.partial_bytes += bytes.len();
        if self.partial_bytes > self.partial_cap && !bytes.is_empty() {
            return Err(Reason::limit(
                "rtmp_partial_bytes",
                format!(
                    "{} bytes of unfinished messages wait on this connection; the limit is {} here \
                     (limits.rtmp_partial_bytes, and rtmp_partial_bytes_before until publishing is accepted)",
                    self.partial_bytes, self.partial_cap
                ),
            ));
        }
        extend_up_to(entry.length as usize, partial, bytes);
        let left = left.saturating_sub(bytes.len());
        self.state = if left == 0 { State::Header } else { State::Payload { csid, left } };
        if partial.len() < entry.length as usize {
            return Ok(None);
        }
        let payload = Bytes::from(entry.partial.take().unwrap_or_default());
        self.partials = self.partials.saturating_sub(1);
        self.partial_bytes = self.partial_bytes.saturating_sub(payload.len());
        Ok(Some(Message {
            csid,
            timestamp: entry.timestamp,
            kind: entry.kind,
            stream: entry.stream,
            payload,
        }))
    }

    /// Obeys the two messages that concern the chunk layer itself.
    fn control(&mut self, message: Message) -> Result<Option<Message>, Reason> {
        let number = message.payload.first_chunk::<4>().map(|b| u32::from_be_bytes(*b));
        match (message.kind, number) {
            (kind::SET_CHUNK_SIZE, Some(size)) => {
                if size == 0 || size > i32::MAX as u32 {
                    return Err(Reason::peer(
                        "rtmp_chunk_size",
                        format!("the peer set a chunk size of {size}; it must be 1 to 2147483647"),
                    ));
                }
                self.chunk_size = size.min(MAX_CHUNK_SIZE) as usize;
                Ok(None)
            }
            (kind::ABORT, Some(csid)) => {
                if let Some(partial) = self.streams.get_mut(&csid).and_then(|s| s.partial.take()) {
                    self.partials = self.partials.saturating_sub(1);
                    self.partial_bytes = self.partial_bytes.saturating_sub(partial.len());
                }
                Ok(None)
            }
            (kind::SET_CHUNK_SIZE | kind::ABORT, None) => {
                Err(Reason::peer("rtmp_chunk", "a protocol control message is shorter than its 4 bytes"))
            }
            _ => Ok(Some(message)),
        }
    }
}

fn too_large(length: usize, cap: usize) -> String {
    format!(
        "a message of {length} bytes is announced; the limit is {cap} here (limits.rtmp_partial_bytes, and \
         rtmp_partial_bytes_before until publishing is accepted)"
    )
}

fn put_basic(out: &mut BytesMut, fmt: u8, csid: u32) {
    let fmt = fmt << 6;
    match csid {
        0..=63 => out.put_u8(fmt | csid as u8),
        64..=319 => out.put_slice(&[fmt, (csid - 64) as u8]),
        _ => {
            let n = csid.saturating_sub(64).min(0xffff);
            out.put_slice(&[fmt | 1, n as u8, (n >> 8) as u8]);
        }
    }
}

/// Writes a message as one type 0 chunk and as many type 3 chunks as it takes.
///
/// `csid` is 2 to 65,599. `chunk_size` is that of the writing side, at least 1. A payload above 16,777,215 bytes has
/// no form in RTMP and is cut there.
pub fn write_message(
    out: &mut BytesMut,
    csid: u32,
    timestamp: u32,
    kind: u8,
    stream: u32,
    payload: &[u8],
    chunk_size: u32,
) {
    let payload = payload.get(..MAX_CHUNK_SIZE as usize).unwrap_or(payload);
    let chunk_size = chunk_size.max(1) as usize;
    let extended = timestamp >= EXTENDED;
    out.reserve(payload.len() + HEADER_MAX + payload.len() / chunk_size * 7);
    put_basic(out, 0, csid);
    out.put_uint(u64::from(timestamp.min(EXTENDED)), 3);
    out.put_uint(payload.len() as u64, 3);
    out.put_u8(kind);
    out.put_u32_le(stream);
    if extended {
        out.put_u32(timestamp);
    }
    for (i, chunk) in payload.chunks(chunk_size).enumerate() {
        if i > 0 {
            put_basic(out, 3, csid);
            if extended {
                out.put_u32(timestamp);
            }
        }
        out.put_slice(chunk);
    }
}

/// A message in chunks of its own, for sharing: it begins with a type 0 header, so that it depends on nothing that
/// was sent before, and every connection with the same chunk size and stream id can send the same bytes.
pub fn render_message(message: &Message, chunk_size: u32) -> Bytes {
    let mut out = BytesMut::new();
    write_message(
        &mut out,
        message.csid,
        message.timestamp,
        message.kind,
        message.stream,
        &message.payload,
        chunk_size,
    );
    out.freeze()
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#[path = "rtmp_chunk_tests.rs"]
mod tests;
