//! TLS under a client's TCP connections, through rustls's own client: any client can be put on it, and knows nothing of it.

use super::actors::{Client, Conn, In, Out};
use bytes::Bytes;
use determinism::crypto;
use proto_core::time::Time;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};
use std::collections::{BTreeMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

/// Trusts whoever answers: who that is, the simulator knows.
#[derive(Debug)]
pub(super) struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// A client's end of TLS with `to`.
///
/// # Panics
/// If the library takes none of what is certain here, which no peer can cause.
pub fn client(to: SocketAddr) -> ClientConnection {
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::tls_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    let mut tls = ClientConnection::new(Arc::new(config), ServerName::IpAddress(to.ip().into()))
        .expect("a session can be made");
    tls.set_buffer_limit(None);
    tls
}

/// Takes from `bytes` what TLS takes at a time, and answers the plain bytes in it, and whether the other end has said that it
/// sends no more.
///
/// # Errors
/// If what came is no TLS, or TLS was ended by an alert.
pub fn take(tls: &mut ClientConnection, bytes: &mut &[u8]) -> Result<(Vec<u8>, bool), String> {
    tls.read_tls(bytes).map_err(|e| e.to_string())?;
    let state = tls.process_new_packets().map_err(|e| e.to_string())?;
    let mut plain = vec![0; state.plaintext_bytes_to_read()];
    tls.reader().read_exact(&mut plain).map_err(|e| e.to_string())?;
    Ok((plain, state.peer_has_closed()))
}

/// What TLS has to send.
pub fn give(tls: &mut ClientConnection) -> Option<Bytes> {
    let mut bytes = Vec::new();
    while tls.wants_write() && tls.write_tls(&mut bytes).is_ok() {}
    (!bytes.is_empty()).then(|| bytes.into())
}

/// One connection.
struct Line {
    tls: ClientConnection,
    /// The client has heard that it is connected.
    told: bool,
    /// What the client may send, as it was said last.
    free: usize,
    /// The other end has said that it sends no more.
    finished: bool,
}

/// The TLS of one client.
pub(super) struct Layer {
    /// Where there is a port for plain bytes, and where the one for TLS is.
    ports: BTreeMap<u16, u16>,
    lines: BTreeMap<Conn, Line>,
}

impl Layer {
    /// A layer that dials the second of a pair of ports where the client dials the first.
    pub(super) fn new(ports: impl IntoIterator<Item = (u16, u16)>) -> Layer {
        Layer { ports: ports.into_iter().collect(), lines: BTreeMap::new() }
    }

    /// Hands a client what came for it, and answers what goes out besides what the client itself says.
    pub(super) fn pass(&mut self, client: &mut dyn Client, input: In<'_>, now: Time) -> Vec<Out> {
        let mut out = Vec::new();
        match input {
            In::Connected(conn) => out.extend(self.flush(conn)),
            In::Writable(conn, free) => {
                let Some(line) = self.lines.get_mut(&conn) else { return out };
                line.free = free;
                if line.told {
                    client.on(In::Writable(conn, free), now);
                }
            }
            In::Received(conn, bytes) => {
                if let Err(why) = self.received(conn, bytes, client, &mut out, now) {
                    self.lines.remove(&conn);
                    out.push(Out::Close(conn, true));
                    client.on(In::Closed(conn, &format!("TLS: {why}")), now);
                }
            }
            In::Finished(conn) => {
                let finished = self.lines.get_mut(&conn).map(|l| std::mem::replace(&mut l.finished, true));
                if finished == Some(false) {
                    client.on(In::Finished(conn), now);
                }
            }
            In::Closed(conn, why) => {
                if self.lines.remove(&conn).is_some() {
                    client.on(In::Closed(conn, why), now);
                }
            }
            other => client.on(other, now),
        }
        out
    }

    fn flush(&mut self, conn: Conn) -> Option<Out> {
        give(&mut self.lines.get_mut(&conn)?.tls).map(|bytes| Out::Send(conn, bytes))
    }

    fn received(
        &mut self,
        conn: Conn,
        mut bytes: &[u8],
        client: &mut dyn Client,
        out: &mut Vec<Out>,
        now: Time,
    ) -> Result<(), String> {
        while let Some(line) = self.lines.get_mut(&conn).filter(|_| !bytes.is_empty()) {
            let (plain, closed) = take(&mut line.tls, &mut bytes)?;
            let ready =
                !line.tls.is_handshaking() && !std::mem::replace(&mut line.told, !line.tls.is_handshaking());
            let ended = closed && !std::mem::replace(&mut line.finished, true);
            let free = line.free;
            out.extend(self.flush(conn));
            if ready {
                client.on(In::Connected(conn), now);
                client.on(In::Writable(conn, free), now);
            }
            if !plain.is_empty() {
                client.on(In::Received(conn, &plain), now);
            }
            if ended {
                client.on(In::Finished(conn), now);
                return Ok(());
            }
        }
        Ok(())
    }

    /// What becomes of what the client does.
    pub(super) fn said(&mut self, said: Out) -> VecDeque<Out> {
        let mut out = VecDeque::new();
        match said {
            Out::Dial(conn, to) => {
                let port = self.ports.get(&to.port()).copied().unwrap_or(to.port());
                let to = SocketAddr::new(to.ip(), port);
                let line = Line { tls: client(to), told: false, free: 0, finished: false };
                self.lines.insert(conn, line);
                out.push_back(Out::Dial(conn, to));
            }
            Out::Send(conn, bytes) => {
                self.write(conn, &bytes);
                out.extend(self.flush(conn));
            }
            Out::Close(conn, at_once) => {
                if let Some(line) = self.lines.get_mut(&conn).filter(|l| l.told && !at_once) {
                    line.tls.send_close_notify();
                    out.extend(self.flush(conn));
                }
                self.lines.remove(&conn);
                out.push_back(Out::Close(conn, at_once));
            }
            other => out.push_back(other),
        }
        out
    }

    fn write(&mut self, conn: Conn, bytes: &Bytes) {
        if let Some(line) = self.lines.get_mut(&conn) {
            line.tls.writer().write_all(bytes).expect("there is no limit to what waits");
        }
    }
}
