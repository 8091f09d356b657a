//! Cryptography whose every byte follows from its keys and from what the operating system gives: that of RustCrypto,
//! which keeps no generator of its own, so that under [`crate::os`] a handshake replays.
//!
//! For simulation and recording. A node in normal service uses aws-lc, which is quicker and watched by more people.

mod certificate;
mod dtls;
mod hash;
mod prime;
mod quic;
mod srtp;
#[cfg(test)]
mod tests;
mod tls;

pub use certificate::certificate;
pub use dtls::dtls_provider;
pub(crate) use prime::{far_future, hello_time};
pub use tls::tls_provider;

use std::fmt;
use str0m::crypto::CryptoProvider;
use str0m::crypto::dtls::DtlsProvider;

/// A certificate or a configuration could not be made. The text says what failed, for a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    fn new(what: &str, why: impl fmt::Display) -> Error {
        Error(format!("{what}: {why}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// All that str0m asks of a cryptographic library, with `dtls` for its handshakes: SRTP with AES-128-CM and HMAC-SHA1-80
/// (RFC 3711), AES-128-GCM and AES-256-GCM (RFC 7714), HMAC-SHA1 for STUN, SHA-1 and SHA-256.
pub fn str0m_provider(dtls: &'static dyn DtlsProvider) -> CryptoProvider {
    CryptoProvider {
        srtp_provider: &srtp::Srtp,
        sha1_hmac_provider: &hash::HmacSha1,
        sha1_provider: &hash::Sha1,
        sha256_provider: &hash::Sha256,
        dtls_provider: dtls,
    }
}

/// The cryptography of a DTLS session, for a `dimpl::Config`. Always named, never left to dimpl's default: that is aws-lc
/// wherever both are built, whose bytes do not replay.
pub fn dimpl_provider() -> dimpl::crypto::CryptoProvider {
    dimpl::crypto::rust_crypto::default_provider()
}
