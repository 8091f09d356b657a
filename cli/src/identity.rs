//! Who a node is towards its peers: cryptography and certificates, made at start, and the operator's certificate files.

use crate::failure::Failure;
use proto_core::node::config::Config;
use proto_core::node::identity::Identity;
use proto_core::tls::certificate::Certified;
use proto_core::{rtc, tls};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use std::collections::BTreeSet;
use std::sync::Arc;
use time::{Duration, OffsetDateTime};

/// How long a certificate made at start is valid: as long as clients take one at most.
const VALID: Duration = Duration::days(397);

/// Everything that a node needs to prove who it is.
///
/// # Errors
/// If a certificate cannot be made, or the cryptographic library fails its self-test.
pub(crate) fn make(config: &Config) -> Result<Identity, Failure> {
    let rtc = rtc::Identity::generate().map_err(|reason| Failure::Running(reason.text.into_owned()))?;
    let (certificate, key) = self_signed(config)
        .map_err(|e| Failure::Running(format!("the certificate for TLS cannot be made: {e}")))?;
    let tls = tls::Identity::new(provider(), certificate, key);
    Ok(Identity { rtc, tls: Some(tls) })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A certificate for the names by which this node may be called, and its key, both in DER.
fn self_signed(config: &Config) -> Result<(Vec<u8>, Vec<u8>), rcgen::Error> {
    let mut names: BTreeSet<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    if !config.bind.is_unspecified() {
        names.insert(config.bind.to_string());
    }
    let advertise = &config.advertise;
    for name in [&advertise.public, &advertise.private, &advertise.name] {
        if !name.is_empty() && name != "auto" {
            names.insert(name.clone());
        }
    }
    let mut params = CertificateParams::new(names.into_iter().collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, "Headwater");
    let now = OffsetDateTime::now_utc();
    // Clients' clocks are not all right.
    (params.not_before, params.not_after) = (now - Duration::DAY, now + VALID);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.der().to_vec(), key.serialize_der()))
}

/// Reads the configured certificate files, as the node will.
///
/// # Errors
/// A sentence that names the file, what is wrong with it, and the remedy.
pub(crate) fn from_files(config: &Config) -> Result<Vec<Certified>, String> {
    let provider = provider();
    let pairs = config.tls.pairs().map(|(certificate, key)| {
        let (chain, secret) = (runtime_mio::read_file(certificate)?, runtime_mio::read_file(key)?);
        Certified::from_pem((certificate, &chain), (key, &secret), &provider)
    });
    pairs.collect()
}
