//! What sessions with other servers are made of: the authorities that are trusted.

use super::{Clock, Identity};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, version};
use std::sync::Arc;

/// A connector. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector(Arc<ClientConfig>);

impl Connector {
    /// A connector that trusts the authorities of a PEM file, which `path` names in errors.
    ///
    /// # Errors
    /// A sentence: the file holds none, or the provider cannot do TLS.
    pub fn new(identity: &Identity, path: &str, pem: &[u8], clock: &Arc<Clock>) -> Result<Connector, String> {
        let mut roots = RootCertStore::empty();
        // Systems come with some that the library does not take; the others are good all the same.
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).filter_map(Result::ok));
        if roots.is_empty() {
            return Err(format!(
                "{path} holds no certificate of an authority: a PEM file is needed (tls.authorities)"
            ));
        }
        let provider = identity.provider.clone();
        let versions: &[_] = if provider.cipher_suites.iter().any(|s| s.tls13().is_none()) {
            &[&version::TLS13, &version::TLS12]
        } else {
            &[&version::TLS13]
        };
        let config = ClientConfig::builder_with_details(provider, clock.clone())
            .with_protocol_versions(versions)
            .map_err(|e| format!("the cryptographic library cannot do TLS: {e}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Connector(Arc::new(config)))
    }

    /// For sessions.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.0
    }
}
