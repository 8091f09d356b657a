//! Signalling by HTTP/1.1 over a client's TCP connection: one request, one answer (RFC 9725, section 4).

use crate::world::actors::{Conn, In, Out};
use bytes::Bytes;
use std::net::SocketAddr;

/// The answer to a request.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) location: Option<String>,
    pub(super) body: String,
}

/// A request that is under way.
pub(super) struct Signal {
    conn: Conn,
    request: Bytes,
    answer: Vec<u8>,
}

impl Signal {
    /// Posts an offer, or (without one) deletes a session. The dial is the caller's to do.
    pub(super) fn new(conn: Conn, to: SocketAddr, path: &str, offer: Option<&str>) -> Signal {
        let request = match offer {
            Some(offer) => format!(
                "POST {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Type: application/sdp\r\n\
                 Content-Length: {}\r\n\r\n{offer}",
                offer.len()
            ),
            None => format!("DELETE {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n"),
        };
        Signal { conn, request: request.into(), answer: Vec::new() }
    }

    pub(super) fn conn(&self) -> Conn {
        self.conn
    }

    /// Takes what happens to its connection: what to send, and the answer once it is whole.
    ///
    /// # Errors
    /// Why there will be no answer.
    pub(super) fn on(&mut self, input: &In<'_>) -> Result<(Option<Out>, Option<Answer>), String> {
        match input {
            In::Connected(conn) if *conn == self.conn => {
                Ok((Some(Out::Send(self.conn, self.request.clone())), None))
            }
            In::Received(conn, bytes) if *conn == self.conn => {
                self.answer.extend_from_slice(bytes);
                Ok((None, self.whole()?))
            }
            In::Finished(conn) if *conn == self.conn => Err("the answer is cut short".to_owned()),
            In::Closed(conn, why) if *conn == self.conn => Err((*why).to_owned()),
            _ => Ok((None, None)),
        }
    }

    fn whole(&self) -> Result<Option<Answer>, String> {
        let text = String::from_utf8_lossy(&self.answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or("an answer without status")?;
        let header = |wanted: &str| {
            head.lines()
                .filter_map(|l| l.split_once(':'))
                .find_map(|(name, value)| name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned()))
        };
        let length: usize = match header("content-length") {
            Some(n) => n.parse().map_err(|_| format!("a length of {n}"))?,
            None => 0,
        };
        if body.len() < length {
            return Ok(None);
        }
        Ok(Some(Answer { status, location: header("location"), body: body.to_owned() }))
    }
}
