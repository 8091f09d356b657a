//! Requests as handlers see them, and responses as they make them.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use std::borrow::Cow;
use std::fmt;

/// A request method (RFC 9110 section 9; PATCH: RFC 5789). Others are answered 501 by the server machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Read.
    Get,
    /// Read, without the body of the answer.
    Head,
    /// Make a resource.
    Post,
    /// Put a resource in place.
    Put,
    /// Change a resource.
    Patch,
    /// End a resource.
    Delete,
    /// Ask what is allowed; CORS preflight.
    Options,
}

impl Method {
    /// The method of this (case-sensitive) name, if it is one that is served.
    pub fn parse(name: &str) -> Option<Method> {
        Some(match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "PATCH" => Method::Patch,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            _ => return None,
        })
    }

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A whole request: head checked, body complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path, percent-decoded once, beginning with `/`; or `*` (OPTIONS only).
    pub path: String,
    /// What stands after `?`, as it was sent. It may carry a token: never log it.
    pub query: Option<String>,
    /// Header names in lower case, values trimmed, in the order sent.
    pub headers: Vec<(String, String)>,
    /// The body; empty if there is none.
    pub body: Bytes,
}

impl Request {
    /// The value of the first header of this name (in any case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The decoded value of the first query parameter of this name; empty if it has no `=`.
    ///
    /// Parameters are decoded as forms are (`+` is a blank); an escape that is none stays as it was sent.
    pub fn query(&self, name: &str) -> Option<String> {
        self.query.as_deref()?.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_form(key) == name).then(|| decode_form(value))
        })
    }

    /// The media type of the body, in lower case and without parameters.
    pub fn content_type(&self) -> Option<String> {
        let value = self.header("content-type")?;
        Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
    }

    /// Whether an `Accept` header (if there is one) lets `kind/subtype` pass. Weights other than 0 are not compared.
    pub fn accepts(&self, media_type: &str) -> bool {
        let Some(accept) = self.header("accept") else { return true };
        let kind = media_type.split('/').next().unwrap_or_default();
        accept.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let range = parts.next().unwrap_or_default().to_ascii_lowercase();
            let refused = parts.any(|p| {
                p.split_once('=').is_some_and(|(k, v)| {
                    k.trim().eq_ignore_ascii_case("q") && v.trim().parse::<f32>().is_ok_and(|q| q == 0.0)
                })
            });
            let fits = range == "*/*" || range == media_type || range.strip_suffix("/*") == Some(kind);
            fits && !refused
        })
    }

    /// Whether the method is GET or HEAD. The server leaves out the body of an answer to HEAD by itself.
    pub fn is_read(&self) -> bool {
        matches!(self.method, Method::Get | Method::Head)
    }
}

/// Undoes percent-encoding once (RFC 3986 section 2.1).
///
/// # Errors
/// A sentence if an escape is not `%` and two hexadecimal digits, or the result is not UTF-8 or has control characters.
pub fn decode_percent(text: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        match (rest.next().and_then(hex), rest.next().and_then(hex)) {
            (Some(high), Some(low)) => out.push(high << 4 | low),
            _ => return Err("an escape in the path is not % and two hexadecimal digits".to_owned()),
        }
    }
    let out = String::from_utf8(out).map_err(|_| "the path, decoded, is not UTF-8".to_owned())?;
    if out.chars().any(char::is_control) {
        return Err("the path, decoded, has a control character".to_owned());
    }
    Ok(out)
}

fn decode_form(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        match (b, tail) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = after;
                }
                _ => out.push(b'%'),
            },
            _ => out.push(b),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(b: u8) -> Option<u8> {
    char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

/// Encodes a text so that it may stand in a header value or URL path: everything but `A-Za-z0-9-._~ ` and `keep`
/// becomes `%XX` of its UTF-8 bytes; a blank becomes `%20`.
pub fn encode_percent(text: &str, keep: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        let c = char::from(b);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || (c.is_ascii() && keep.contains(c)) {
            out.push(c);
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// An answer. The server adds `Content-Length` and `Connection`; handlers never set those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code, 200 to 599.
    pub status: u16,
    /// Further headers. [`Response::header`] keeps values free of line breaks.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// An answer without a body.
    pub fn new(status: u16) -> Response {
        Response { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// 204: done, and nothing to say.
    pub fn no_content() -> Response {
        Response::new(204)
    }

    /// Words for a person. A line feed is added.
    pub fn text(status: u16, text: impl AsRef<str>) -> Response {
        Response::new(status).with_body("text/plain; charset=utf-8", format!("{}\n", text.as_ref()))
    }

    /// A page.
    pub fn html(status: u16, html: impl Into<Bytes>) -> Response {
        Response::new(status).with_body("text/html; charset=utf-8", html)
    }

    /// A value as JSON. Values that JSON cannot hold (a map with keys that are no strings) give a 500 with words.
    pub fn json(status: u16, value: &impl Serialize) -> Response {
        match serde_json::to_vec(value) {
            Ok(body) => Response::new(status).with_body("application/json", body),
            Err(error) => Response::text(500, format!("the answer cannot be written as JSON: {error}")),
        }
    }

    /// Sets the body and its media type.
    pub fn with_body(mut self, media_type: &'static str, body: impl Into<Bytes>) -> Response {
        self.body = body.into();
        self.set("Content-Type", media_type);
        self
    }

    /// Adds a header; see [`Response::set`].
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl AsRef<str>) -> Response {
        self.set(name, value);
        self
    }

    /// Adds a header, or replaces the one of that name. Characters that may not stand in a value (control characters
    /// such as line breaks, and all beyond ASCII) become `?`, so that no value can bring a header or body of its own
    /// (RFC 9110 section 5.5). A name that is no token is left out.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl AsRef<str>) {
        let name = name.into();
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            return;
        }
        let value: String =
            value.as_ref().trim().chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect();
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(&name));
        self.headers.push((name, value));
    }

    /// The value of a header, if it is set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The bytes of status line and headers before a body whose end is that of the connection (RFC 9112, 6.3).
    pub(super) fn head_of_stream(&self) -> Bytes {
        let mut out = self.lines();
        out.put_slice(b"Connection: close\r\n\r\n");
        out.freeze()
    }

    /// The bytes of status line and headers. The length stands there for HEAD too (RFC 9110 section 9.3.2).
    pub(super) fn head(&self, close: bool) -> Bytes {
        let mut out = self.lines();
        if self.may_have_body() {
            out.put_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        out.put_slice(if close { b"Connection: close\r\n\r\n" } else { b"\r\n" });
        out.freeze()
    }

    /// Status line and headers without those that frame the message.
    fn lines(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(256);
        out.put_slice(format!("HTTP/1.1 {} {}\r\n", self.status, phrase(self.status)).as_bytes());
        for (name, value) in &self.headers {
            let framing = ["content-length", "transfer-encoding", "connection"];
            if framing.iter().any(|f| name.eq_ignore_ascii_case(f)) {
                continue;
            }
            out.put_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        out
    }

    /// Whether this status can carry a body at all (RFC 9110 section 6.4.1).
    pub(super) fn may_have_body(&self) -> bool {
        !matches!(self.status, 100..=199 | 204 | 304)
    }
}

/// Whether a byte may stand in a token: method and header names (RFC 9110 section 5.6.2).
pub(super) fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// The words that stand beside a status code (RFC 9110 section 15).
pub fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn get(query: &str) -> Request {
        Request {
            method: Method::Get,
            path: "/".to_owned(),
            query: Some(query.to_owned()),
            headers: vec![],
            body: Bytes::new(),
        }
    }

    #[test]
    fn query_parameters_are_decoded_once_and_the_first_counts() {
        let r = get("a=1&a=2&app=%2Flive&empty&b=x+y&odd=100%&p=%2541&q=%zz%4");
        assert_eq!(r.query("a").as_deref(), Some("1"));
        assert_eq!(r.query("app").as_deref(), Some("/live"));
        assert_eq!(r.query("empty").as_deref(), Some(""));
        assert_eq!(r.query("b").as_deref(), Some("x y"));
        assert_eq!(r.query("odd").as_deref(), Some("100%"));
        assert_eq!(r.query("p").as_deref(), Some("%41"));
        assert_eq!(r.query("q").as_deref(), Some("%zz%4"));
        assert_eq!(r.query("none"), None);
    }

    #[test]
    fn paths_are_decoded_once_or_refused() {
        assert_eq!(decode_percent("/a%20b/%2541").unwrap(), "/a b/%41");
        for bad in ["/%", "/%4", "/%zz", "/%ff", "/%00", "/%0a"] {
            assert!(decode_percent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_header_value_can_never_end_its_line() {
        let r = Response::text(200, "x").header("Location", "/a\r\nSet-Cookie: b\0ü").header("bad name", "v");
        let head = r.head(false);
        let head = std::str::from_utf8(&head).unwrap();
        assert!(head.contains("Location: /a??Set-Cookie: b??\r\n"), "{head}");
        assert!(!head.contains("bad name"), "{head}");
        assert_eq!(head.matches("\r\n\r\n").count(), 1);
    }

    #[test]
    fn handlers_cannot_change_the_framing() {
        let r =
            Response::text(200, "four").header("content-length", "99").header("Transfer-Encoding", "chunked");
        let head = r.head(true);
        let head = std::str::from_utf8(&head).unwrap();
        assert!(head.contains("Content-Length: 5\r\n") && !head.contains("99") && !head.contains("chunked"));
        assert!(head.ends_with("Connection: close\r\n\r\n"));
        assert!(!String::from_utf8_lossy(&Response::no_content().head(false)).contains("Content-Length"));
    }

    #[test]
    fn accept_is_read_with_wildcards_and_zero_weights() {
        let mut r = get("");
        assert!(r.accepts("application/sdp"));
        for (accept, yes) in [
            ("*/*", true),
            ("application/*;q=0.1", true),
            ("text/html, Application/SDP", true),
            ("text/html", false),
            ("application/sdp;q=0", false),
        ] {
            r.headers = vec![("accept".to_owned(), accept.to_owned())];
            assert_eq!(r.accepts("application/sdp"), yes, "{accept}");
        }
    }

    #[test]
    fn encoding_undoes_decoding() {
        let text = "no sound: the stream's audio is AAC | ü\n";
        let encoded = encode_percent(text, "");
        assert!(encoded.bytes().all(|b| b.is_ascii_graphic()));
        assert_eq!(decode_form(&encoded), text);
    }
}
