//! TLS as bytes in and bytes out, under any protocol that speaks over a TCP connection.
//!
//! [`Identity`] is handed in when a node is made: cryptography with its randomness, and a certificate of its own.
//! [`certificate`] reads what an operator gives in its place. A [`Session`] is one connection.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod certificate;
mod connector;
mod session;
#[cfg(test)]
mod tests;
mod turn;

pub use connector::Connector;
pub use session::{Fed, Session};
pub(crate) use turn::Turn;

use crate::time::WallTime;
use certificate::Certified;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ServerConfig, version};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the first byte of a connection to a TLS port says about who speaks there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// A TLS handshake (RFC 8446 section 5.1).
    Tls,
    /// Letters: a request in plain HTTP.
    Http,
    /// A STUN message in a frame of RFC 4571, which is shorter than 512 bytes: ICE over TCP.
    Stun,
    /// RTMP without TLS.
    Rtmp,
    /// Something else.
    Other,
}

/// Tells by the first byte who speaks on a TLS port.
pub const fn first(byte: u8) -> First {
    match byte {
        0x16 => First::Tls,
        b'A'..=b'Z' => First::Http,
        0 | 1 => First::Stun,
        3 => First::Rtmp,
        _ => First::Other,
    }
}

/// The cryptography of a node for TLS, and the certificate that it has of its own. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    provider: Arc<CryptoProvider>,
    own: Arc<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tls::Identity(..)")
    }
}

impl Identity {
    /// `provider` does all cryptography and brings all randomness; `certificate` (DER) and `key` (PKCS #8, DER) are
    /// used as long as no others are configured.
    pub fn new(provider: Arc<CryptoProvider>, certificate: Vec<u8>, key: Vec<u8>) -> Identity {
        Identity { provider, own: Arc::new((certificate, key)) }
    }

    /// The provider.
    pub fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// The certificate of its own.
    ///
    /// # Errors
    /// If the provider cannot use it.
    pub fn own(&self) -> Result<Certified, String> {
        let (certificate, key) = &*self.own;
        let chain = vec![CertificateDer::from(certificate.clone())];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.clone()));
        Certified::new("made at start", chain, "its file", key, &self.provider)
    }
}

/// The wall clock for the library, kept by the node.
#[derive(Debug, Default)]
pub struct Clock(AtomicU64);

impl Clock {
    /// Sets it.
    pub fn set(&self, wall: WallTime) {
        self.0.store(wall.0, Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_nanos(self.0.load(Ordering::Relaxed))))
    }
}

/// What new sessions are made of. Replaced as a whole when certificates change; sessions keep the one they began with.
#[derive(Clone, Debug)]
pub struct Acceptor {
    http: Arc<ServerConfig>,
    plain: Arc<ServerConfig>,
}

impl Acceptor {
    /// An acceptor with these certificates; the first is for clients that name none of the others' hosts.
    ///
    /// # Errors
    /// If the provider has no cipher suite of TLS 1.2 or 1.3, or there is no certificate.
    pub fn new(
        identity: &Identity,
        certificates: Vec<Certified>,
        clock: &Arc<Clock>,
    ) -> Result<Acceptor, String> {
        if certificates.is_empty() {
            return Err("there is no certificate".to_owned());
        }
        let provider = identity.provider.clone();
        let versions: &[_] = if provider.cipher_suites.iter().any(|s| s.tls13().is_none()) {
            &[&version::TLS13, &version::TLS12]
        } else {
            &[&version::TLS13]
        };
        let mut plain = ServerConfig::builder_with_details(provider, clock.clone())
            .with_protocol_versions(versions)
            .map_err(|e| format!("the cryptographic library cannot do TLS: {e}"))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ByName(certificates)));
        // A session that resumes skips little and costs memory for each; ours are long.
        plain.send_tls13_tickets = 1;
        let mut http = plain.clone();
        http.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Acceptor { http: Arc::new(http), plain: Arc::new(plain) })
    }

    /// For HTTPS, which says so in the handshake (RFC 7301).
    pub fn http(&self) -> &Arc<ServerConfig> {
        &self.http
    }

    /// For protocols without a name of their own, such as RTMPS.
    pub fn plain(&self) -> &Arc<ServerConfig> {
        &self.plain
    }
}

/// Chooses a certificate by the name that the client asks for (RFC 6066 section 3).
#[derive(Debug)]
struct ByName(Vec<Certified>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().unwrap_or_default();
        let fits = self.0.iter().filter_map(|c| Some((c.covers(name)?, c)));
        // An exact name beats a wildcard.
        let best = fits.min_by_key(|(how, _)| *how).map(|(_, c)| c);
        best.or(self.0.first()).map(|c| c.key().clone())
    }
}
