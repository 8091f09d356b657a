//! The head of a request: found line by line as bytes come, then parsed and judged as a whole.

use super::Refusal;
use crate::error::quote;
use crate::http::message::{Method, Request, decode_percent, is_token_byte};
use crate::http::websocket::upgrade;
use crate::limits::Limits;
use bytes::Bytes;

/// The limits of a head and what it may announce.
#[derive(Clone, Debug)]
pub(super) struct HeadCaps {
    line: usize,
    headers: usize,
    bytes: usize,
    pub(super) sdp_bytes: usize,
    pub(super) json_bytes: usize,
    pub(super) message_bytes: usize,
}

impl HeadCaps {
    pub(super) fn new(limits: &Limits) -> HeadCaps {
        HeadCaps {
            line: limits.http_line_bytes,
            headers: limits.http_headers,
            bytes: limits.http_head_bytes,
            sdp_bytes: limits.http_sdp_bytes,
            json_bytes: limits.http_json_bytes,
            message_bytes: limits.http_message_bytes,
        }
    }
}

/// What the scanner found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// The head is not complete.
    More,
    /// The head is complete and this many bytes long.
    Head(usize),
}

/// Looks at each byte of a head once, refusing what must not be in one as soon as it is seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scanner {
    at: usize,
    line_start: usize,
    /// Lines with something in them.
    lines: usize,
    after_cr: bool,
}

impl Scanner {
    pub(super) fn scan(&mut self, bytes: &[u8], caps: &HeadCaps) -> Result<Scan, Refusal> {
        for &b in bytes.get(self.at..).unwrap_or_default() {
            self.judge_byte(b)?;
            let was_cr = std::mem::replace(&mut self.after_cr, b == b'\r');
            self.at += 1;
            if self.at > caps.bytes {
                let text = format!("the head of the request is larger than {} bytes", caps.bytes);
                return Err(Refusal::limit(431, "http_head_too_large", text));
            }
            if !was_cr {
                if self.at - self.line_start > caps.line + 2 {
                    return Err(self.line_too_long(caps));
                }
                continue;
            }
            let line = bytes.get(self.line_start..self.at.saturating_sub(2)).unwrap_or_default();
            self.line_start = self.at;
            if line.is_empty() {
                if self.lines > 0 {
                    return Ok(Scan::Head(self.at));
                }
                // An empty line before the request line is passed over (RFC 9112 section 2.2).
                continue;
            }
            self.lines += 1;
            if self.lines > 1 {
                judge_header_line(line)?;
            }
            if self.lines > caps.headers.saturating_add(1) {
                let text = format!("the request has more than {} headers", caps.headers);
                return Err(Refusal::limit(431, "http_too_many_headers", text));
            }
        }
        Ok(Scan::More)
    }

    fn judge_byte(&self, b: u8) -> Result<(), Refusal> {
        if self.at == 0 && b == 0x16 {
            let text = "a TLS handshake arrived, but this port speaks plain HTTP; use http:// in the address, or \
                        the port for TLS (https.port)";
            return Err(Refusal::peer(400, "http_tls", text));
        }
        let what = match b {
            0 => "a NUL byte",
            b'\n' if !self.after_cr => "a line that ends in LF alone instead of CR LF",
            b'\n' => return Ok(()),
            _ if self.after_cr => "a CR that is not followed by LF",
            _ => return Ok(()),
        };
        let text = format!("the head of the request has {what} (line {})", self.lines + 1);
        Err(Refusal::peer(400, "http_bad_head", text))
    }

    fn line_too_long(&self, caps: &HeadCaps) -> Refusal {
        if self.lines == 0 {
            let text = format!("the request line is longer than {} bytes", caps.line);
            Refusal::limit(414, "http_line_too_long", text)
        } else {
            let text = format!("line {} of the head is longer than {} bytes", self.lines + 1, caps.line);
            Refusal::limit(431, "http_line_too_long", text)
        }
    }
}

fn judge_header_line(line: &[u8]) -> Result<(), Refusal> {
    let bad = |text: String| Err(Refusal::peer(400, "http_bad_header", text));
    if line.first().is_some_and(|b| matches!(b, b' ' | b'\t')) {
        return bad("a header is folded over two lines, which is obsolete; send it in one".to_owned());
    }
    let Some(colon) = line.iter().position(|b| *b == b':') else {
        return bad(format!("a header has no colon: {}", quote(&String::from_utf8_lossy(line))));
    };
    let name = line.get(..colon).unwrap_or_default();
    if name.is_empty() || !name.iter().copied().all(is_token_byte) {
        let name = quote(&String::from_utf8_lossy(name));
        return bad(format!("a header name has a blank or another character that may not be in it: {name}"));
    }
    Ok(())
}

/// A head that was found good.
#[derive(Debug)]
pub(super) struct Head {
    /// The request, its body still empty.
    pub(super) request: Request,
    /// Bytes of body that follow.
    pub(super) length: usize,
    /// The connection ends after the answer.
    pub(super) close: bool,
    /// The peer waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
    /// It asks for a websocket and may have one; the key that accepts it.
    pub(super) upgrade: Option<String>,
}

impl Request {
    /// Stands where a request was taken out.
    pub(super) fn empty() -> Request {
        Request {
            method: Method::Get,
            path: String::new(),
            query: None,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    fn values<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether a header that holds a list of tokens has this one.
    fn has_token(&self, name: &'static str, token: &str) -> bool {
        self.values(name).flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token))
    }
}

impl Head {
    /// Parses a head that the scanner found whole, and judges what it announces.
    pub(super) fn parse(bytes: &[u8], caps: &HeadCaps) -> Result<Head, Refusal> {
        let mut slots = vec![httparse::EMPTY_HEADER; caps.headers];
        let mut parsed = httparse::Request::new(&mut slots);
        match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(n)) if n == bytes.len() => {}
            Ok(_) => return Err(Refusal::peer(400, "http_bad_head", "the head of the request is not whole")),
            Err(httparse::Error::Version) => {
                let text = "only HTTP/1.1 and HTTP/1.0 are spoken here";
                return Err(Refusal::peer(505, "http_version", text));
            }
            Err(httparse::Error::TooManyHeaders) => {
                return Err(Refusal::limit(431, "http_too_many_headers", "the request has too many headers"));
            }
            Err(error) => {
                let text = format!("the request cannot be read: {error}");
                return Err(Refusal::peer(400, "http_bad_head", text));
            }
        }
        let old = parsed.version == Some(0);
        let name = parsed.method.unwrap_or_default();
        let Some(method) = Method::parse(name) else {
            let text = format!("the method {} is not served here", quote(name));
            return Err(Refusal::peer(501, "http_method", text));
        };
        let headers = parsed.headers.iter();
        let headers = headers
            .map(|h| (h.name.to_ascii_lowercase(), String::from_utf8_lossy(h.value).trim().to_owned()))
            .collect();
        let target = Target::parse(parsed.path.unwrap_or_default(), method)?;
        let request = Request { method, path: target.path, query: target.query, headers, body: Bytes::new() };
        let mut head = Head { request, length: 0, close: old, expects_continue: false, upgrade: None };
        match head.judge(old, target.authority, caps) {
            Ok(()) => Ok(head),
            Err(refusal) => Err(head.shape(refusal)),
        }
    }

    fn judge(&mut self, old: bool, authority: Option<String>, caps: &HeadCaps) -> Result<(), Refusal> {
        self.judge_host(old, authority)?;
        self.length = self.judge_framing(old, caps)?;
        self.close |= self.request.has_token("connection", "close");
        let coding = self.request.header("content-encoding").filter(|c| !c.eq_ignore_ascii_case("identity"));
        if let Some(coding) = coding {
            let text = format!("the body is coded as {}; send it plain", quote(coding));
            return Err(Refusal::peer(415, "http_content_encoding", text));
        }
        if !old {
            for expectation in self.request.values("expect") {
                if !expectation.eq_ignore_ascii_case("100-continue") {
                    let text = format!("the expectation {} cannot be met", quote(expectation));
                    return Err(Refusal::peer(417, "http_expectation", text));
                }
                self.expects_continue = true;
            }
        }
        if upgrade::asks(&self.request) {
            let accept = upgrade::judge(&self.request, old, self.length);
            let unfit = |(status, text)| Refusal::peer(status, "http_bad_upgrade", text);
            self.upgrade = Some(accept.map_err(unfit)?);
        }
        Ok(())
    }

    /// RFC 9112 section 3.2: exactly one `Host` in HTTP/1.1; the authority of an absolute target takes its place.
    fn judge_host(&mut self, old: bool, authority: Option<String>) -> Result<(), Refusal> {
        let bad = |text: String| Err(Refusal::peer(400, "http_host", text));
        let count = self.request.values("host").count();
        if count > 1 || (count == 0 && !old) {
            return bad(format!("the request has {count} Host headers; exactly one is needed"));
        }
        for host in authority.as_deref().into_iter().chain(self.request.values("host")) {
            if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:[]%".contains(&b)) {
                return bad(format!("{} is no host name", quote(host)));
            }
        }
        if let Some(authority) = authority {
            self.request.headers.retain(|(name, _)| name != "host");
            self.request.headers.push(("host".to_owned(), authority));
        }
        Ok(())
    }

    /// RFC 9112 section 6: how long the body is, with nothing left to interpretation.
    fn judge_framing(&self, old: bool, caps: &HeadCaps) -> Result<usize, Refusal> {
        let lengths: Vec<&str> = self.request.values("content-length").collect();
        if self.request.header("transfer-encoding").is_some() {
            return Err(if old || !lengths.is_empty() {
                let text = "Transfer-Encoding may not stand beside Content-Length, nor in HTTP/1.0";
                Refusal::peer(400, "http_ambiguous_length", text)
            } else if self.request.has_token("transfer-encoding", "chunked") {
                let text = "bodies in chunks are not taken; send a Content-Length";
                Refusal::peer(411, "http_chunked", text)
            } else {
                Refusal::peer(501, "http_transfer_coding", "the transfer coding is not known here")
            });
        }
        let length = match lengths.as_slice() {
            [] => return Ok(0),
            [one] => one,
            more => {
                let text = format!("the request has {} Content-Length headers; one is allowed", more.len());
                return Err(Refusal::peer(400, "http_ambiguous_length", text));
            }
        };
        if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
            let text = format!("the Content-Length {} is not a number of digits", quote(length));
            return Err(Refusal::peer(400, "http_bad_length", text));
        }
        let cap = super::body_cap(&self.request, caps);
        match length.parse::<usize>() {
            Ok(n) if n <= cap => Ok(n),
            _ => {
                let text =
                    format!("the body of {} bytes is larger than the {cap} allowed here", quote(length));
                Err(Refusal::limit(413, "http_body_too_large", text))
            }
        }
    }

    /// Whether the answer goes without its body.
    pub(super) fn head_only(&self) -> bool {
        self.request.method == Method::Head
    }

    /// Gives a refusal the form that a client of this path understands.
    pub(super) fn shape(&self, refusal: Refusal) -> Refusal {
        let path = &self.request.path;
        let json = path.starts_with("/api/") || path.starts_with("/streammanager/");
        Refusal { json, head_only: self.head_only(), ..refusal }
    }
}

/// A request target (RFC 9112 section 3.2).
struct Target {
    path: String,
    query: Option<String>,
    authority: Option<String>,
}

impl Target {
    fn parse(raw: &str, method: Method) -> Result<Target, Refusal> {
        let bad = |text: &str| Refusal::peer(400, "http_bad_target", format!("{text}: {}", quote_path(raw)));
        if raw == "*" && method == Method::Options {
            return Ok(Target { path: raw.to_owned(), query: None, authority: None });
        }
        if !raw.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Err(bad("the request target has a character that must be percent-encoded"));
        }
        let (authority, local) = match raw.split_once("://") {
            _ if raw.starts_with('/') => (None, raw),
            Some((scheme, rest))
                if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") =>
            {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                let (authority, local) = rest.split_at_checked(end).unwrap_or((rest, ""));
                if authority.is_empty() {
                    return Err(bad("the request target has no host"));
                }
                (Some(authority.to_owned()), local)
            }
            _ => return Err(bad("the request target does not begin with /")),
        };
        let (path, query) = match local.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (local, None),
        };
        let path = decode_percent(if path.is_empty() { "/" } else { path }).map_err(|e| bad(&e))?;
        Ok(Target { path, query, authority })
    }
}

/// A target for a log line, without its query: that may carry a token (A20).
fn quote_path(target: &str) -> String {
    quote(target.split('?').next().unwrap_or_default())
}
