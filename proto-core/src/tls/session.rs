//! One TLS connection, of either side.

use crate::buf::Outbox;
use crate::error::Reason;
use crate::limits::Limits;
use crate::time::{Deadline, Time};
use bytes::Bytes;
use rustls::pki_types::ServerName;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Connection, Error, PeerIncompatible,
    ServerConfig, ServerConnection,
};
use std::fmt;
use std::io::{IoSlice, Read, Write};
use std::sync::Arc;
use std::time::Duration;

/// What came out of bytes that arrived.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fed {
    /// The peer's bytes, decrypted.
    pub plain: Vec<u8>,
    /// The peer said that it sends no more. Once.
    pub finished: bool,
}

/// One TLS connection: what arrives is given to [`Session::feed`], what is to be sent to [`Session::send`]; what leaves is
/// taken out by [`Session::pop`], as far as the credit goes.
pub struct Session {
    tls: Connection,
    /// The host that the certificate must be for, where we are the client.
    host: Option<String>,
    plain: Vec<Bytes>,
    outbox: Outbox,
    /// Bytes that came before there was time for a handshake.
    held: Vec<u8>,
    begun: bool,
    finished: bool,
    until: Time,
    handshake_ms: u64,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("tls::Session")
            .field("handshaking", &self.tls.is_handshaking())
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A session on a connection that was accepted at `now`.
    ///
    /// # Errors
    /// If the library cannot make one, which no peer can cause.
    pub fn new(config: &Arc<ServerConfig>, limits: &Limits, now: Time) -> Result<Session, Reason> {
        let tls = ServerConnection::new(config.clone())
            .map_err(|e| Reason::local("tls_failed", format!("no TLS session can be made: {e}")))?;
        Ok(Session::of(tls.into(), None, limits, now))
    }

    /// A session on a connection that is dialled at `now`, to a server whose certificate must be for `host`.
    ///
    /// # Errors
    /// If that is no name or address.
    pub fn client(
        config: &Arc<ClientConfig>,
        host: &str,
        limits: &Limits,
        now: Time,
    ) -> Result<Session, Reason> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Reason::local("tls_name", "the host is no name that a certificate could be for"))?;
        let tls = ClientConnection::new(config.clone(), name)
            .map_err(|e| Reason::local("tls_failed", format!("no TLS session can be made: {e}")))?;
        let mut session = Session::of(tls.into(), Some(host.to_owned()), limits, now);
        // The expensive part is the server's.
        session.begun = true;
        Ok(session)
    }

    fn of(mut tls: Connection, host: Option<String>, limits: &Limits, now: Time) -> Session {
        // What is written is taken out at once, and bounded by the credit of the connection.
        tls.set_buffer_limit(None);
        Session {
            tls,
            host,
            plain: Vec::new(),
            outbox: Outbox::default(),
            held: Vec::new(),
            begun: false,
            finished: false,
            until: now + Duration::from_millis(limits.tls_handshake_ms),
            handshake_ms: limits.tls_handshake_ms,
        }
    }

    /// Whether nothing that arrived was looked at yet: the expensive part is still to come.
    pub fn is_new(&self) -> bool {
        !self.begun
    }

    /// Keeps bytes for later. Answers whether they fit.
    pub fn hold(&mut self, bytes: &[u8], cap: usize) -> bool {
        self.held.extend_from_slice(bytes);
        self.held.len() <= cap
    }

    /// Whether bytes are kept for later.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes bytes that arrived, after those that were kept.
    ///
    /// # Errors
    /// Why the session cannot go on. An alert for the peer may wait to leave.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Fed, Reason> {
        self.begun = true;
        let mut fed = Fed::default();
        let held = std::mem::take(&mut self.held);
        let done = self.feed_part(&held, &mut fed).and_then(|()| self.feed_part(bytes, &mut fed));
        self.seal();
        done.map(|()| fed)
    }

    fn feed_part(&mut self, mut bytes: &[u8], fed: &mut Fed) -> Result<(), Reason> {
        let mut room = [0; 1_024];
        while !bytes.is_empty() {
            fed.finished |= self.step(&mut bytes)?;
            loop {
                let n = self.read(&mut room);
                let Some(plain) = room.get(..n).filter(|p| !p.is_empty()) else { break };
                fed.plain.extend_from_slice(plain);
            }
        }
        Ok(())
    }

    /// Takes some of the bytes that arrived, from their front. What was decrypted is to be taken out with [`Session::read`]
    /// before the next step, and what answers it leaves with [`Session::seal`]. Whether the peer said that it sends no more;
    /// once.
    ///
    /// # Errors
    /// As [`Session::feed`].
    pub fn step(&mut self, bytes: &mut &[u8]) -> Result<bool, Reason> {
        self.begun = true;
        if self.finished {
            *bytes = &[];
            return Ok(false);
        }
        let taken = self.tls.read_tls(bytes).map_err(|e| self.failed(&e.to_string()))?;
        let state = self.tls.process_new_packets().map_err(|e| match &self.host {
            Some(host) => why_of_server(&e, host),
            None => why(&e),
        })?;
        self.finished = state.peer_has_closed();
        if taken == 0 {
            *bytes = &[];
        }
        Ok(self.finished)
    }

    /// Takes out decrypted bytes, as many as there are and fit; 0: there are none.
    pub fn read(&mut self, room: &mut [u8]) -> usize {
        // It says by an error that there are none yet.
        self.tls.reader().read(room).unwrap_or(0)
    }

    /// The bytes that were kept for later.
    pub fn take_held(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    fn failed(&self, what: &str) -> Reason {
        Reason::peer("tls_failed", format!("the TLS session broke: {what}"))
    }

    /// Takes bytes for the peer. They leave with the next [`Session::seal`].
    pub fn send(&mut self, bytes: Bytes) {
        self.plain.push(bytes);
    }

    /// Encrypts what was sent, in as few records as it fits into.
    pub fn seal(&mut self) {
        let plain = std::mem::take(&mut self.plain);
        if !plain.is_empty() {
            let slices: Vec<IoSlice<'_>> = plain.iter().map(|b| IoSlice::new(b)).collect();
            // Without a limit on its buffer, the library takes all.
            let _ = self.tls.writer().write_vectored(&slices);
        }
        let mut out = Vec::new();
        while self.tls.wants_write() {
            // Writing to memory does not fail.
            if self.tls.write_tls(&mut out).is_err() {
                break;
            }
        }
        self.outbox.push(out);
    }

    /// Says that nothing more is sent (RFC 8446 section 6.1), so that the peer can tell the end from a cut.
    pub fn close(&mut self) {
        self.seal();
        self.tls.send_close_notify();
        self.seal();
    }

    /// How many bytes the connection would take now.
    pub fn set_credit(&mut self, free: usize) {
        self.outbox.set_credit(free);
    }

    /// The credit for what is sent over the session: nothing while records wait. What encryption adds to it waits here.
    pub fn credit(&self) -> usize {
        if self.outbox.is_empty() { self.outbox.credit() } else { 0 }
    }

    /// The next bytes for the connection that the credit covers.
    pub fn pop(&mut self) -> Option<Bytes> {
        self.outbox.pop()
    }

    /// What has not left yet.
    pub fn into_outbox(self) -> Outbox {
        self.outbox
    }

    /// The end of the time for the handshake.
    pub fn deadline(&self) -> Option<Deadline> {
        self.tls.is_handshaking().then(|| Deadline::new(self.until, "tls handshake"))
    }

    /// Whether the handshake has taken too long.
    ///
    /// # Errors
    /// If so.
    pub fn expire(&self, now: Time) -> Result<(), Reason> {
        if self.deadline().is_none_or(|d| d.at > now) {
            return Ok(());
        }
        let text = format!("the TLS handshake did not end within {} ms", self.handshake_ms);
        Err(Reason::limit("tls_timeout", text))
    }
}

/// Why a session with a server ended, for an operator.
fn why_of_server(error: &Error, host: &str) -> Reason {
    use CertificateError as C;
    let (code, text) = match error {
        // A wrong signature: the authority has the name of one that is trusted, and is another.
        Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => (
            "tls_untrusted",
            "the server's certificate is of an authority that is not trusted here; add that to tls.authorities".to_owned(),
        ),
        Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            ("tls_untrusted", format!("the server's certificate is not for {}", crate::error::quote(host)))
        }
        Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
            ("tls_untrusted", "the server's certificate has expired".to_owned())
        }
        Error::InvalidCertificate(other) => {
            ("tls_untrusted", format!("the server's certificate cannot be trusted: {other}"))
        }
        Error::AlertReceived(alert) => {
            ("tls_alert", format!("the server ended the TLS session with the alert {alert:?}"))
        }
        Error::InvalidMessage(_) => {
            ("tls_not", "what the server sent is no TLS; is it the right port?".to_owned())
        }
        other => ("tls_failed", format!("the TLS session broke: {other}")),
    };
    Reason::peer(code, text)
}

/// Why a session ended, for an operator.
fn why(error: &Error) -> Reason {
    use AlertDescription as A;
    let text = match error {
        Error::AlertReceived(A::UnknownCA | A::BadCertificate | A::CertificateUnknown) => {
            "the client does not trust this node's certificate; give one that it trusts in tls.certificates, or have the \
             client trust this one"
                .to_owned()
        }
        Error::AlertReceived(A::CertificateExpired) => {
            "the client says that this node's certificate has expired; renew the files in tls.certificates".to_owned()
        }
        Error::AlertReceived(alert) => format!("the client ended the TLS session with the alert {alert:?}"),
        Error::InvalidMessage(_) => "what arrived is no TLS".to_owned(),
        Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered) => {
            "the client speaks only versions of TLS before 1.2, which are not safe; it needs an update".to_owned()
        }
        Error::PeerIncompatible(_) => format!("the client and this node have no way to speak TLS in common: {error}"),
        Error::NoApplicationProtocol => {
            "the client asked for another protocol than HTTP/1.1 (ALPN); only that is spoken here".to_owned()
        }
        other => format!("the TLS session broke: {other}"),
    };
    let code = match error {
        Error::AlertReceived(_) => "tls_alert",
        Error::InvalidMessage(_) => "tls_not",
        _ => "tls_failed",
    };
    Reason::peer(code, text)
}
