//! RTSP 1.0 messages and interleaved frames (RFC 2326): the reader of a byte stream, and the writers.
//!
//! Lenient where real clients are odd (a bare LF, a space before a colon, none after it, empty lines between
//! messages), strict where it is dangerous: lengths, NUL bytes, folded or nameless headers, sizes.

pub mod transport;
pub mod url;

use bytes::{Buf, Bytes, BytesMut};
use std::fmt::Write as _;

/// A method of RFC 2326, section 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// What can be done.
    Options,
    /// What a stream consists of.
    Describe,
    /// What a publisher is going to send.
    Announce,
    /// How one track is carried.
    Setup,
    /// Begin to send.
    Play,
    /// Stop sending for a while.
    Pause,
    /// Begin to take.
    Record,
    /// The end.
    Teardown,
    /// A parameter, or a sign of life.
    GetParameter,
    /// A parameter.
    SetParameter,
    /// Go elsewhere (server to client only).
    Redirect,
}

impl Method {
    /// Every method.
    pub const ALL: [Method; 11] = [
        Method::Options,
        Method::Describe,
        Method::Announce,
        Method::Setup,
        Method::Play,
        Method::Pause,
        Method::Record,
        Method::Teardown,
        Method::GetParameter,
        Method::SetParameter,
        Method::Redirect,
    ];

    /// The word on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Method::Options => "OPTIONS",
            Method::Describe => "DESCRIBE",
            Method::Announce => "ANNOUNCE",
            Method::Setup => "SETUP",
            Method::Play => "PLAY",
            Method::Pause => "PAUSE",
            Method::Record => "RECORD",
            Method::Teardown => "TEARDOWN",
            Method::GetParameter => "GET_PARAMETER",
            Method::SetParameter => "SET_PARAMETER",
            Method::Redirect => "REDIRECT",
        }
    }

    /// The method of that name. Names are case-sensitive (section 6.1).
    pub fn parse(name: &str) -> Option<Method> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }
}

/// The headers of a message in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The value of the first header of that name, whatever its case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The values of all headers of that name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Appends a header.
    pub fn add(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method as it was sent; any token.
    pub method: String,
    /// The request's URL, or `*`.
    pub url: String,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub body: Bytes,
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status, 100 to 999.
    pub status: u16,
    /// What people read.
    pub phrase: String,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub body: Bytes,
}

/// What stands next in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A request.
    Request(Request),
    /// A response.
    Response(Response),
    /// A packet on a channel that is open (section 10.12).
    Frame {
        /// The channel.
        channel: u8,
        /// The packet.
        payload: Bytes,
    },
    /// A packet on a channel that is not open began; it is passed over.
    Stray {
        /// The channel.
        channel: u8,
    },
}

/// What cannot be read: the stream is of no use from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// The status of the answer, if one is given.
    pub status: u16,
    /// A limit was passed; else the message is wrong.
    pub limit: bool,
    /// A fixed word for counters.
    pub code: &'static str,
    /// What is wrong.
    pub text: String,
}

/// The sizes that a reader permits.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Bytes of one line of a head.
    pub line: usize,
    /// Headers of one message.
    pub headers: usize,
    /// Bytes of a head.
    pub head: usize,
    /// Bytes of head and body.
    pub message: usize,
}

/// The first byte of a TLS handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

#[derive(Debug)]
enum State {
    /// Between messages.
    Start,
    /// In a head; the line that is being read begins there.
    Head { line_start: usize, lines: usize },
    /// The head is read; its body has so many bytes.
    Body { head: Box<Item>, len: usize },
    /// In the four bytes before a packet.
    FrameHead,
    /// In a packet.
    Frame { channel: u8, len: usize },
    /// In a packet that nobody wants; so many bytes are left of it.
    Skip { left: usize },
}

/// Reads a byte stream, whatever pieces it comes in. Holds one message or packet at most.
#[derive(Debug)]
pub struct Reader {
    caps: Caps,
    open: [u64; 4],
    buf: BytesMut,
    state: State,
}

impl Reader {
    /// A reader at the start of a stream, with no channel open.
    pub fn new(caps: Caps) -> Reader {
        Reader { caps, open: [0; 4], buf: BytesMut::new(), state: State::Start }
    }

    /// Opens or closes a channel for packets.
    pub fn set_channel(&mut self, channel: u8, open: bool) {
        if let Some(word) = self.open.get_mut(usize::from(channel / 64)) {
            let bit = 1 << (channel % 64);
            *word = if open { *word | bit } else { *word & !bit };
        }
    }

    /// Closes all channels.
    pub fn close_channels(&mut self) {
        self.open = [0; 4];
    }

    fn is_open(&self, channel: u8) -> bool {
        self.open.get(usize::from(channel / 64)).is_some_and(|w| w >> (channel % 64) & 1 == 1)
    }

    /// Whether a message (not a packet) is partly read.
    pub fn in_message(&self) -> bool {
        matches!(self.state, State::Head { .. } | State::Body { .. })
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.buf.len()
    }

    /// Takes the next item from the front of `input`. `None`: all of `input` was taken and more is needed.
    ///
    /// # Errors
    /// What follows cannot be made sense of.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Item>, Bad> {
        loop {
            match &mut self.state {
                State::Start => {
                    while let Some((b'\r' | b'\n', rest)) = input.split_first() {
                        *input = rest;
                    }
                    match input.first() {
                        None => return Ok(None),
                        Some(b'$') => self.state = State::FrameHead,
                        Some(&TLS_HANDSHAKE) => {
                            let text = "the peer speaks TLS (rtsps://) on the RTSP port; use rtsp://, or the port for it \
                                        (rtsps.port)";
                            return Err(Bad {
                                status: 400,
                                limit: false,
                                code: "rtsp_tls",
                                text: text.to_owned(),
                            });
                        }
                        Some(_) => self.state = State::Head { line_start: 0, lines: 0 },
                    }
                }
                State::FrameHead => {
                    let Some(head) = fill(&mut self.buf, input, 4) else { return Ok(None) };
                    let (channel, len) = match *head {
                        [_, channel, high, low] => (channel, usize::from(u16::from_be_bytes([high, low]))),
                        _ => (0, 0),
                    };
                    self.buf.clear();
                    if self.is_open(channel) {
                        self.state = State::Frame { channel, len };
                    } else {
                        self.state = State::Skip { left: len };
                        return Ok(Some(Item::Stray { channel }));
                    }
                }
                State::Frame { channel, len } => {
                    let (channel, len) = (*channel, *len);
                    let payload = match input.split_at_checked(len) {
                        Some((packet, rest)) if self.buf.is_empty() => {
                            *input = rest;
                            Bytes::copy_from_slice(packet)
                        }
                        _ => {
                            if fill(&mut self.buf, input, len).is_none() {
                                return Ok(None);
                            }
                            std::mem::take(&mut self.buf).freeze()
                        }
                    };
                    self.state = State::Start;
                    return Ok(Some(Item::Frame { channel, payload }));
                }
                State::Skip { left } => {
                    let n = (*left).min(input.len());
                    input.advance(n);
                    *left = left.saturating_sub(n);
                    if *left > 0 {
                        return Ok(None);
                    }
                    self.state = State::Start;
                }
                State::Head { .. } => {
                    let Some((head, len)) = self.head(input)? else { return Ok(None) };
                    self.buf.clear();
                    self.state = State::Body { head: Box::new(head), len };
                }
                State::Body { head, len } => {
                    if fill(&mut self.buf, input, *len).is_none() {
                        return Ok(None);
                    }
                    let body = std::mem::take(&mut self.buf).freeze();
                    let mut item = std::mem::replace(&mut **head, Item::Stray { channel: 0 });
                    match &mut item {
                        Item::Request(r) => r.body = body,
                        Item::Response(r) => r.body = body,
                        Item::Frame { .. } | Item::Stray { .. } => {}
                    }
                    self.state = State::Start;
                    return Ok(Some(item));
                }
            }
        }
    }

    /// Takes lines until the empty one. Answers the head without its body, and how long that is.
    fn head(&mut self, input: &mut &[u8]) -> Result<Option<(Item, usize)>, Bad> {
        let State::Head { line_start, lines } = &mut self.state else { return Ok(None) };
        while !input.is_empty() {
            let end = input.iter().position(|b| *b == b'\n').map(|at| at + 1);
            let (piece, rest) = input.split_at_checked(end.unwrap_or(input.len())).unwrap_or((input, &[]));
            // What is judged does not depend on how the stream was cut: the first byte past a limit refuses.
            let line_room = (self.caps.line + 2).saturating_sub(self.buf.len() - *line_start);
            let head_room = self.caps.head.saturating_sub(self.buf.len());
            if let Some(at) = piece.iter().position(|b| *b == 0)
                && at < line_room.min(head_room)
            {
                return Err(bad("rtsp_bad_head", "the head of the message has a NUL byte".to_owned()));
            }
            if piece.len() > line_room {
                let text = format!("a line of the head is longer than {} bytes", self.caps.line);
                let status = if *lines == 0 { 414 } else { 400 };
                return Err(limit(status, "rtsp_line_too_long", text));
            }
            if piece.len() > head_room {
                let text = format!("the head of the message is larger than {} bytes", self.caps.head);
                return Err(limit(400, "rtsp_head_too_large", text));
            }
            self.buf.extend_from_slice(piece);
            *input = rest;
            if end.is_none() {
                break;
            }
            let line = trim_end(self.buf.get(*line_start..).unwrap_or_default());
            *line_start = self.buf.len();
            if line.is_empty() {
                return parse_head(&self.buf, self.caps).map(Some);
            }
            if line.contains(&b'\r') {
                return Err(bad("rtsp_bad_head", "a CR stands within a line of the head".to_owned()));
            }
            *lines += 1;
            if *lines > self.caps.headers.saturating_add(1) {
                let text = format!("the message has more than {} headers", self.caps.headers);
                return Err(limit(400, "rtsp_too_many_headers", text));
            }
        }
        Ok(None)
    }
}

/// Moves bytes until `buf` has `len` of them; `None` if `input` ran out before that.
fn fill<'a>(buf: &'a mut BytesMut, input: &mut &[u8], len: usize) -> Option<&'a [u8]> {
    let n = len.saturating_sub(buf.len()).min(input.len());
    let (piece, rest) = input.split_at_checked(n)?;
    buf.extend_from_slice(piece);
    *input = rest;
    (buf.len() >= len).then_some(&buf[..])
}

fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn bad(code: &'static str, text: String) -> Bad {
    Bad { status: 400, limit: false, code, text }
}

fn limit(status: u16, code: &'static str, text: String) -> Bad {
    Bad { status, limit: true, code, text }
}

fn is_token(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn parse_head(head: &[u8], caps: Caps) -> Result<(Item, usize), Bad> {
    let mut lines = head.split(|b| *b == b'\n').map(trim_end).filter(|l| !l.is_empty());
    let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let mut headers = Headers::default();
    for line in lines {
        if line.first().is_some_and(|b| matches!(b, b' ' | b'\t')) {
            let text = "a header is folded over two lines; send it in one".to_owned();
            return Err(bad("rtsp_bad_header", text));
        }
        let line = String::from_utf8_lossy(line);
        let Some((name, value)) = line.split_once(':') else {
            let text = format!("a header has no colon: {}", crate::error::quote(&line));
            return Err(bad("rtsp_bad_header", text));
        };
        // `Blocksize : 4096` is sent by phones.
        let name = name.trim_end();
        if !is_token(name) {
            let text = format!("{} is no name of a header", crate::error::quote(name));
            return Err(bad("rtsp_bad_header", text));
        }
        headers.add(name, value.trim());
    }
    let len = content_length(&headers)?;
    if head.len().saturating_add(len) > caps.message {
        let text = format!("the message is larger than {} bytes (head and body)", caps.message);
        return Err(limit(413, "rtsp_body_too_large", text));
    }
    let body = Bytes::new();
    let mut words = first.split_ascii_whitespace();
    let (Some(a), Some(b)) = (words.next(), words.next()) else {
        return Err(bad("rtsp_bad_start", format!("{} begins no message", crate::error::quote(&first))));
    };
    if let Some(version) = a.strip_prefix("RTSP/") {
        let status = b.parse().ok().filter(|s| (100..1000).contains(s) && b.len() == 3);
        let (Some(status), "1.0") = (status, version) else {
            return Err(bad("rtsp_bad_start", format!("{} is no status line", crate::error::quote(&first))));
        };
        let phrase = words.collect::<Vec<_>>().join(" ");
        return Ok((Item::Response(Response { status, phrase, headers, body }), len));
    }
    match (words.next(), words.next()) {
        (Some("RTSP/1.0"), None) if is_token(a) => {
            let (method, url) = (a.to_owned(), b.to_owned());
            Ok((Item::Request(Request { method, url, headers, body }), len))
        }
        (Some(version), None) if version.starts_with("RTSP/") && version != "RTSP/1.0" => {
            let text = format!("{} is not spoken here, only RTSP/1.0", crate::error::quote(version));
            Err(Bad { status: 505, limit: false, code: "rtsp_version", text })
        }
        (Some(version), None) if version.starts_with("HTTP/") => {
            let text = "an HTTP request came to the RTSP port; use an rtsp:// address".to_owned();
            Err(bad("rtsp_http", text))
        }
        _ => Err(bad("rtsp_bad_start", format!("{} is no request line", crate::error::quote(&first)))),
    }
}

fn content_length(headers: &Headers) -> Result<usize, Bad> {
    if headers.get("Transfer-Encoding").is_some() {
        let text = "a Transfer-Encoding is not taken; send Content-Length".to_owned();
        return Err(bad("rtsp_bad_length", text));
    }
    let mut found: Option<usize> = None;
    for value in headers.all("Content-Length") {
        let digits = !value.is_empty() && value.len() <= 9 && value.bytes().all(|b| b.is_ascii_digit());
        let Some(len) = value.parse().ok().filter(|_| digits) else {
            let text = format!("Content-Length {} is no number", crate::error::quote(value));
            return Err(bad("rtsp_bad_length", text));
        };
        if found.is_some_and(|f| f != len) {
            return Err(bad("rtsp_bad_length", "two Content-Length headers differ".to_owned()));
        }
        found = Some(len);
    }
    Ok(found.unwrap_or(0))
}

/// What people read behind a status (section 7.1.1).
pub const fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        451 => "Parameter Not Understood",
        453 => "Not Enough Bandwidth",
        454 => "Session Not Found",
        455 => "Method Not Valid in This State",
        459 => "Aggregate Operation Not Allowed",
        461 => "Unsupported Transport",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "RTSP Version Not Supported",
        551 => "Option Not Supported",
        _ => "Status",
    }
}

/// A message in bytes. `Content-Length` is written where there is a body, and must not be among `headers`.
fn write(first: &str, headers: &Headers, body: &[u8]) -> Bytes {
    let mut out = String::with_capacity(256 + body.len());
    out.push_str(first);
    out.push_str("\r\n");
    for (name, value) in &headers.0 {
        // A value must not end its line, wherever it came from.
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        // Writing to a String cannot fail.
        let _ = write!(out, "{name}: {value}\r\n");
    }
    if !body.is_empty() {
        let _ = write!(out, "Content-Length: {}\r\n", body.len());
    }
    out.push_str("\r\n");
    let mut out = out.into_bytes();
    out.extend_from_slice(body);
    out.into()
}

impl Request {
    /// The request in bytes.
    pub fn to_bytes(&self) -> Bytes {
        write(&format!("{} {} RTSP/1.0", self.method, self.url), &self.headers, &self.body)
    }
}

impl Response {
    /// An answer with the usual words for its status.
    pub fn new(status: u16) -> Response {
        let phrase = phrase(status).to_owned();
        Response { status, phrase, headers: Headers::default(), body: Bytes::new() }
    }

    /// The same with one header more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Response {
        self.headers.add(name, value);
        self
    }

    /// The same with a body of a type.
    #[must_use]
    pub fn with_body(mut self, kind: &str, body: impl Into<Bytes>) -> Response {
        self.headers.add("Content-Type", kind);
        self.body = body.into();
        self
    }

    /// The response in bytes.
    pub fn to_bytes(&self) -> Bytes {
        write(&format!("RTSP/1.0 {} {}", self.status, self.phrase), &self.headers, &self.body)
    }
}

/// Bytes of what stands before an interleaved packet.
pub const FRAME_HEAD_BYTES: usize = 4;

/// Appends a packet of `len` bytes' interleaved head (section 10.12). Packets are shorter than 64 KiB.
pub fn put_frame_head(out: &mut BytesMut, channel: u8, len: usize) {
    let len = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    out.extend_from_slice(&[b'$', channel]);
    out.extend_from_slice(&len);
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#[path = "rtsp_tests.rs"]
mod tests;
