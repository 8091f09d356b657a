//! A client that asks one thing by HTTPS, through rustls's own client.

use super::{Client, In, Notes, Out};
use crate::world::tls;
use proto_core::time::Time;
use rustls::ClientConnection;
use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;

/// One GET over TLS, on a connection that is closed after it.
pub struct SecureAsker {
    tls: ClientConnection,
    answer: Vec<u8>,
    /// What was answered, once TLS said that it is whole; or why there is nothing.
    pub result: Option<Result<String, String>>,
    /// It answers nothing any more, as one whose network went.
    pub stalls: bool,
    out: VecDeque<Out>,
    notes: Notes,
}

impl SecureAsker {
    /// Will ask `to` for `path`.
    ///
    /// # Panics
    /// If the library takes none of what is certain here, which no peer can cause.
    pub fn new(to: SocketAddr, path: &str) -> SecureAsker {
        let mut tls = tls::client(to);
        let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
        tls.writer().write_all(request.as_bytes()).expect("it waits for the handshake");
        SecureAsker {
            tls,
            answer: Vec::new(),
            result: None,
            stalls: false,
            out: VecDeque::from([Out::Dial(0, to)]),
            notes: Notes::default(),
        }
    }

    fn flush(&mut self) {
        if let Some(bytes) = tls::give(&mut self.tls).filter(|_| !self.stalls) {
            self.out.push_back(Out::Send(0, bytes));
        }
    }

    fn received(&mut self, mut bytes: &[u8]) -> Result<bool, String> {
        while !bytes.is_empty() {
            let (plain, closed) = tls::take(&mut self.tls, &mut bytes)?;
            self.answer.extend_from_slice(&plain);
            if closed {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Client for SecureAsker {
    fn on(&mut self, input: In<'_>, _now: Time) {
        match input {
            In::Connected(_) => self.flush(),
            In::Received(_, bytes) if self.result.is_none() => match self.received(bytes) {
                Ok(whole) => {
                    self.flush();
                    if whole {
                        self.result = Some(Ok(String::from_utf8_lossy(&self.answer).into_owned()));
                        self.out.push_back(Out::Close(0, false));
                    }
                }
                Err(why) => self.result = Some(Err(why)),
            },
            In::Finished(_) if self.result.is_none() => {
                self.result = Some(Err("it was cut: the end was not told".to_owned()));
                self.out.push_back(Out::Close(0, false));
            }
            In::Closed(_, why) if self.result.is_none() => self.result = Some(Err(why.to_owned())),
            _ => {}
        }
    }

    fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        None
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }
}
