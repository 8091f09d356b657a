//! The server's half of the opening handshake (RFC 6455 section 4.2): what a request must have to become a websocket,
//! and the answer.

use crate::http::message::{Method, Request, is_token_byte};
use crate::wire::websocket::{accept_key, is_client_key};
use bytes::Bytes;

/// Why a request that asks for a websocket cannot have one: the status and the words.
pub(in crate::http) type Unfit = (u16, String);

/// Whether a request asks to become a websocket. Whatever else is wrong with it is for [`judge`].
pub(in crate::http) fn asks(request: &Request) -> bool {
    request.method == Method::Get && tokens(request, "upgrade").any(|t| t.eq_ignore_ascii_case("websocket"))
}

/// Judges a request that asks for a websocket, and answers the key that accepts it.
///
/// # Errors
/// The status and words for a request that no client of RFC 6455 sends.
pub(in crate::http) fn judge(request: &Request, old: bool, length: usize) -> Result<String, Unfit> {
    let bad = |text: &str| Err((400, text.to_owned()));
    if old {
        return bad("a websocket needs HTTP/1.1");
    }
    if length > 0 {
        return bad("a request for a websocket has no body");
    }
    if !tokens(request, "connection").any(|t| t.eq_ignore_ascii_case("upgrade")) {
        return bad(
            "the request asks for a websocket, but its Connection header does not say Upgrade; a proxy between has \
             taken it out",
        );
    }
    match one(request, "sec-websocket-version") {
        Ok("13") => {}
        Ok(other) if other.bytes().all(|b| b.is_ascii_digit()) => {
            return Err((426, format!("version {other} of websockets is not spoken here; 13 is")));
        }
        _ => return bad("a request for a websocket has exactly one Sec-WebSocket-Version, a number"),
    }
    match one(request, "sec-websocket-key") {
        Ok(key) if is_client_key(key) => Ok(accept_key(key)),
        _ => bad("a request for a websocket has exactly one Sec-WebSocket-Key, 16 bytes in base64"),
    }
}

/// The subprotocols that a client offers, in its order.
pub fn subprotocols(request: &Request) -> impl Iterator<Item = &str> {
    tokens(request, "sec-websocket-protocol").filter(|t| !t.is_empty() && t.bytes().all(is_token_byte))
}

/// The head that makes a websocket of a connection. `subprotocol` must be one that was offered.
pub(in crate::http) fn switching(accept: &str, subprotocol: Option<&str>) -> Bytes {
    let chosen = subprotocol.filter(|p| p.bytes().all(is_token_byte));
    let chosen = chosen.map(|p| format!("Sec-WebSocket-Protocol: {p}\r\n")).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{chosen}\r\n"
    );
    head.into()
}

fn values<'a>(request: &'a Request, name: &'static str) -> impl Iterator<Item = &'a str> {
    request.headers.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
}

fn tokens<'a>(request: &'a Request, name: &'static str) -> impl Iterator<Item = &'a str> {
    values(request, name).flat_map(|v| v.split(',')).map(str::trim)
}

/// The value of a header that must stand there once.
fn one<'a>(request: &'a Request, name: &'static str) -> Result<&'a str, ()> {
    let mut all = values(request, name);
    match (all.next(), all.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(()),
    }
}
