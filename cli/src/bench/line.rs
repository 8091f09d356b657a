//! A connection with HTTP on it, plain or over TLS, for load: one question at a time, and any certificate will do.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// An answer that does not come within this has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Where to ask.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) addr: SocketAddr,
    /// As it stands in the URL, with the port if that has one.
    pub(super) host: String,
    tls: Option<Arc<ClientConfig>>,
}

impl Target {
    /// Takes a URL apart, and looks its host up.
    ///
    /// # Errors
    /// In words.
    pub(super) fn parse(url: &str) -> Result<Target, String> {
        Target::with(url, tls)
    }

    /// Another place, with the TLS of this one if both have it: to set that up costs more than a handshake.
    ///
    /// # Errors
    /// As [`Target::parse`].
    pub(super) fn at(&self, url: &str) -> Result<Target, String> {
        Target::with(url, || self.tls.clone().map_or_else(tls, Ok))
    }

    fn with(url: &str, tls: impl FnOnce() -> Result<Arc<ClientConfig>, String>) -> Result<Target, String> {
        let (scheme, rest) = url.split_once("://").ok_or("it needs http:// or https:// in front")?;
        let secure = match scheme {
            "http" => false,
            "https" => true,
            other => return Err(format!("{other} is neither http nor https")),
        };
        let host = rest.trim_end_matches('/').to_owned();
        let with_port = if host.contains(':') {
            host.clone()
        } else {
            format!("{host}:{}", if secure { 443 } else { 80 })
        };
        let addr = with_port.to_socket_addrs().map_err(|e| e.to_string())?.next();
        let addr = addr.ok_or_else(|| format!("{host} has no address"))?;
        Ok(Target { addr, host, tls: secure.then(tls).transpose()? })
    }

    /// A new connection; over TLS its handshake comes with the first question.
    pub(super) fn connect(&self) -> io::Result<Line> {
        let tcp = TcpStream::connect_timeout(&self.addr, PATIENCE)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        let Some(config) = &self.tls else { return Ok(Line::Plain(tcp)) };
        let name = ServerName::IpAddress(self.addr.ip().into());
        let session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        Ok(Line::Tls(Box::new(StreamOwned::new(session, tcp))))
    }
}

/// A connection.
pub(super) enum Line {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Line {
    fn stream(&mut self) -> &mut dyn ReadWrite {
        match self {
            Line::Plain(tcp) => tcp,
            Line::Tls(tls) => tls.as_mut(),
        }
    }

    /// Sends a request and reads its answer into `answer`, to its end.
    pub(super) fn ask(&mut self, request: &[u8], answer: &mut Vec<u8>) -> io::Result<()> {
        let stream = self.stream();
        stream.write_all(request)?;
        stream.flush()?;
        answer.clear();
        let mut chunk = [0; 4096];
        loop {
            let n = stream.read(&mut chunk)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            answer.extend_from_slice(&chunk[..n]);
            let Some((head, body)) = split(answer) else { continue };
            if body.len() >= header(&head, "content-length").and_then(|n| n.parse().ok()).unwrap_or(0) {
                return Ok(());
            }
        }
    }
}

/// An answer's head, and its body as far as it has come.
pub(super) fn split(answer: &[u8]) -> Option<(String, &[u8])> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    Some((String::from_utf8_lossy(answer.get(..end)?).into_owned(), answer.get(end + 4..)?))
}

/// The value of a header.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|l| l.split_once(':'));
    lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim())
}

/// The status of an answer.
pub(super) fn status_of(answer: &[u8]) -> io::Result<u16> {
    let status = split(answer).and_then(|(head, _)| head.split(' ').nth(1)?.parse().ok());
    status.ok_or_else(|| io::Error::other("the answer has no status"))
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// A TLS client that takes any certificate: what is measured is the handshake, not the trust.
fn tls() -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    // Each handshake is to be a whole one.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let answer = b"HTTP/1.1 201 Created\r\nlocation: /x\r\nContent-Length: 2\r\n\r\nok";
        let (head, body) = split(answer).unwrap();
        assert_eq!(
            (header(&head, "Location"), body, status_of(answer).unwrap()),
            (Some("/x"), &b"ok"[..], 201)
        );
        assert!(status_of(b"nonsense").is_err() && Target::parse("ftp://x").is_err());
        assert_eq!(Target::parse("http://127.0.0.1:5080/").unwrap().host, "127.0.0.1:5080");
    }
}
