//! The client's side of the messages of one RTSP connection (RFC 2326), written anew for the clients: what the server says
//! is read by other code than its own.

use crate::world::actors::Out;
use bytes::Bytes;
use proto_core::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// A request that is not answered for so long will not be.
const PATIENCE: Duration = Duration::from_secs(4);
/// What clients here call themselves: of those who follow a 302.
const AGENT: &str = "Lavf (world)";
/// A session is kept alive so often.
const ALIVE: Duration = Duration::from_secs(2);

/// An answer of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// What stands behind the status.
    pub(super) phrase: String,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// What came from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// The answer to a request: its method.
    Answer(&'static str, Answer),
    /// A packet on a channel.
    Packet(u8, Vec<u8>),
    /// A request of the server: its method, `Location`.
    Request(String, Option<String>),
}

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Talk {
    buf: Vec<u8>,
    cseq: u32,
    asked: VecDeque<(u32, &'static str, Time)>,
    alive: Option<(Time, String)>,
    pub(super) session: Option<String>,
    credit: usize,
    waiting: VecDeque<Bytes>,
}

impl Talk {
    /// Writes a request.
    pub(super) fn ask(
        &mut self,
        method: &'static str,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
        now: Time,
    ) {
        self.cseq += 1;
        let mut text = format!("{method} {url} RTSP/1.0\r\nCSeq: {}\r\nUser-Agent: {AGENT}\r\n", self.cseq);
        let session = self.session.as_deref().map(|s| ("Session", s));
        for (name, value) in headers.iter().copied().chain(session) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.asked.push_back((self.cseq, method, now));
        self.write(text.into());
    }

    /// Writes bytes.
    pub(super) fn write(&mut self, bytes: Bytes) {
        self.waiting.push_back(bytes);
    }

    /// Writes a packet on a channel.
    pub(super) fn packet(&mut self, channel: u8, packet: &[u8]) {
        let mut out = vec![b'$', channel];
        out.extend((packet.len() as u16).to_be_bytes());
        out.extend(packet);
        self.write(out.into());
    }

    /// Bytes that were written and not taken.
    pub(super) fn backlog(&self) -> usize {
        self.waiting.iter().map(Bytes::len).sum()
    }

    pub(super) fn writable(&mut self, free: usize) {
        self.credit = free;
    }

    /// What is to be sent on a connection now.
    pub(super) fn send(&mut self, conn: u32) -> Option<Out> {
        let first = self.waiting.front_mut()?;
        let take = first.len().min(self.credit);
        if take == 0 {
            return None;
        }
        self.credit -= take;
        let bytes = first.split_to(take);
        if first.is_empty() {
            self.waiting.pop_front();
        }
        Some(Out::Send(conn, bytes))
    }

    /// From now on the session is kept alive by requests for this URL.
    pub(super) fn keep_alive(&mut self, url: &str, now: Time) {
        self.alive = Some((now + ALIVE, url.to_owned()));
    }

    /// Does what is due. `false`: the server does not answer any more.
    pub(super) fn tick(&mut self, now: Time) -> bool {
        if let Some((at, url)) = self.alive.clone()
            && at <= now
        {
            self.alive = Some((now + ALIVE, url.clone()));
            if self.asked.is_empty() {
                self.ask("GET_PARAMETER", &url, &[], "", now);
            }
        }
        self.asked.front().is_none_or(|(.., at)| now.since(*at) < PATIENCE)
    }

    pub(super) fn wake(&self) -> Option<Time> {
        let alive = self.alive.as_ref().map(|(at, _)| *at);
        let patience = self.asked.front().map(|(.., at)| *at + PATIENCE);
        [alive, patience].into_iter().flatten().min()
    }

    /// Takes bytes of the server.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        self.buf.extend(bytes);
    }

    /// The next whole thing that the server said.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn next(&mut self) -> Result<Option<Got>, String> {
        if let [b'$', channel, high, low, rest @ ..] = &self.buf[..] {
            let (channel, len) = (*channel, usize::from(u16::from_be_bytes([*high, *low])));
            let Some(packet) = rest.get(..len).map(<[u8]>::to_vec) else { return Ok(None) };
            self.buf.drain(..len + 4);
            return Ok(Some(Got::Packet(channel, packet)));
        }
        if self.buf.first() == Some(&b'$') {
            return Ok(None);
        }
        let Some(end) = self.buf.windows(4).position(|w| w == b"\r\n\r\n") else {
            return if self.buf.len() > 16_384 { Err("a head without end".to_owned()) } else { Ok(None) };
        };
        let head = String::from_utf8_lossy(&self.buf[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let pair = |l: &str| {
            let (name, value) = l.split_once(": ").ok_or_else(|| format!("a header that is none: {l:?}"))?;
            Ok((name.to_owned(), value.to_owned()))
        };
        let headers = lines.map(pair).collect::<Result<Vec<_>, String>>()?;
        let mut answer = Answer { headers, ..Answer::default() };
        let length: usize = match answer.header("Content-Length") {
            Some(n) => n.parse().map_err(|_| format!("a length that is none: {n:?}"))?,
            None => 0,
        };
        let Some(body) = self.buf.get(end + 4..end + 4 + length) else { return Ok(None) };
        answer.body = String::from_utf8_lossy(body).into_owned();
        self.buf.drain(..end + 4 + length);
        let cseq: Option<u32> = answer.header("CSeq").and_then(|c| c.parse().ok());
        let Some(rest) = start.strip_prefix("RTSP/1.0 ") else {
            let method = start.split(' ').next().unwrap_or_default().to_owned();
            let text = format!("RTSP/1.0 200 OK\r\nCSeq: {}\r\n\r\n", cseq.ok_or("a request without CSeq")?);
            self.write(text.into());
            return Ok(Some(Got::Request(method, answer.header("Location").map(str::to_owned))));
        };
        let (status, phrase) =
            rest.split_once(' ').ok_or_else(|| format!("a status that is none: {start:?}"))?;
        answer.status = status.parse().map_err(|_| format!("a status that is none: {start:?}"))?;
        answer.phrase = phrase.to_owned();
        let (asked, method, _) =
            self.asked.pop_front().ok_or_else(|| format!("an answer to nothing: {start}"))?;
        if cseq != Some(asked) {
            return Err(format!("the answer to {method} {asked} has CSeq {cseq:?}: {start}"));
        }
        Ok(Some(Got::Answer(method, answer)))
    }
}

/// The value of a parameter of a `Transport` header.
pub(super) fn parameter<'a>(transport: &'a str, name: &str) -> Option<&'a str> {
    transport.split(';').find_map(|p| p.strip_prefix(name)?.strip_prefix('='))
}

/// The two numbers of a range such as `server_port=8000-8001`.
pub(super) fn two<T: std::str::FromStr>(range: &str) -> Option<(T, T)> {
    let (a, b) = range.split_once('-')?;
    Some((a.parse().ok()?, b.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_packets_and_requests_are_told_apart_in_any_pieces() {
        let all = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 3\r\n\r\nabc$\x01\0\x02hi\
            REDIRECT rtsp://a/b RTSP/1.0\r\nCSeq: 7\r\nLocation: rtsp://c/b\r\n\r\n";
        for cut in 0..all.len() {
            let mut talk = Talk::default();
            talk.ask("OPTIONS", "rtsp://a/b", &[], "", Time::ZERO);
            let mut got = Vec::new();
            for piece in [&all[..cut], &all[cut..]] {
                talk.received(piece);
                while let Some(one) = talk.next().unwrap() {
                    got.push(one);
                }
            }
            let [Got::Answer("OPTIONS", a), Got::Packet(1, p), Got::Request(m, l)] = &got[..] else {
                panic!("{got:?}")
            };
            assert_eq!((a.status, a.body.as_str(), &p[..]), (200, "abc", &b"hi"[..]));
            assert_eq!((m.as_str(), l.as_deref()), ("REDIRECT", Some("rtsp://c/b")));
        }
        assert_eq!(two::<u16>("8000-8001"), Some((8_000, 8_001)));
        assert_eq!(parameter("RTP/AVP;unicast;ssrc=1F", "ssrc"), Some("1F"));
    }
}
