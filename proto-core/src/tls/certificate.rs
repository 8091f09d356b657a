//! Certificates as files hold them: PEM in, a certificate that can be used out, and errors that say what to do.

use crate::error::quote;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use std::sync::Arc;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// A certificate chain with its key.
#[derive(Clone, Debug)]
pub struct Certified {
    key: Arc<CertifiedKey>,
    /// DNS names, in lower case.
    names: Vec<String>,
    expires: u64,
    label: String,
}

/// How a name is covered; better is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cover {
    /// By itself.
    Exact,
    /// By a wildcard for its first label.
    Wildcard,
}

impl Certified {
    /// Reads a chain and its key from the text of PEM files, which may be one and the same. `certificate` and `key` say in
    /// errors which those are.
    ///
    /// # Errors
    /// A sentence that names the file, what is wrong with it, and the remedy.
    pub fn from_pem(
        (certificate, chain): (&str, &[u8]),
        (key, secret): (&str, &[u8]),
        provider: &CryptoProvider,
    ) -> Result<Certified, String> {
        let mut certificates = Vec::new();
        for item in CertificateDer::pem_slice_iter(chain) {
            certificates.push(item.map_err(|e| format!("{certificate} cannot be read as PEM: {}", pem(&e)))?);
        }
        if certificates.is_empty() {
            return Err(format!(
                "{certificate} holds no certificate: a PEM file with -----BEGIN CERTIFICATE----- is needed (from DER: \
                 openssl x509 -inform der -in FILE)"
            ));
        }
        let secret = PrivateKeyDer::from_pem_slice(secret).map_err(|e| match e {
            PemError::NoItemsFound if is_encrypted(secret) => format!(
                "{key} holds a key under a pass phrase, which nobody is there to type; take it off with openssl pkey -in \
                 FILE -out NEW"
            ),
            PemError::NoItemsFound => format!(
                "{key} holds no private key: a PEM file with -----BEGIN PRIVATE KEY----- is needed"
            ),
            e => format!("{key} cannot be read as PEM: {}", pem(&e)),
        })?;
        Certified::new(certificate, certificates, key, secret, provider)
    }

    /// As [`Certified::from_pem`], already decoded.
    ///
    /// # Errors
    /// A sentence that names what is wrong with which of the two.
    pub fn new(
        certificate: &str,
        chain: Vec<CertificateDer<'static>>,
        key: &str,
        secret: PrivateKeyDer<'static>,
        provider: &CryptoProvider,
    ) -> Result<Certified, String> {
        let Some(leaf) = chain.first() else { return Err(format!("{certificate} holds no certificate")) };
        let read = Certificate::from_der(leaf)
            .map_err(|e| format!("the first certificate in {certificate} cannot be read: {e}"))?;
        let read = read.tbs_certificate();
        let expires = read.validity().not_after.to_unix_duration().as_secs();
        let mut names = Vec::new();
        if let Ok(Some((_, SubjectAltName(all)))) = read.get_extension::<SubjectAltName>() {
            names.extend(all.iter().filter_map(|name| match name {
                GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
                _ => None,
            }));
        }
        let signer = provider.key_provider.load_private_key(secret).map_err(|e| {
            format!("the private key in {key} cannot be used ({e}); take RSA, ECDSA with P-256 or P-384, or Ed25519")
        })?;
        let certified = CertifiedKey::new(chain, signer);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                return Err(format!(
                    "the private key in {key} is not that of the first certificate in {certificate}; that must be the \
                     server's own, the authority's follow after it"
                ));
            }
            Err(e) => return Err(format!("the certificate in {certificate} cannot be used: {e}")),
        }
        Ok(Certified { key: Arc::new(certified), names, expires, label: certificate.to_owned() })
    }

    /// How this certificate covers a host name, if it does.
    pub fn covers(&self, host: &str) -> Option<Cover> {
        let host = host.to_ascii_lowercase();
        if self.names.contains(&host) {
            return Some(Cover::Exact);
        }
        let (_, parent) = host.split_once('.')?;
        let wild = |name: &String| name.strip_prefix("*.").is_some_and(|n| n == parent);
        self.names.iter().any(wild).then_some(Cover::Wildcard)
    }

    /// The DNS names that it is for.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When it stops being valid, in seconds since the Unix epoch.
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// What errors and warnings call it.
    pub fn label(&self) -> &str {
        &self.label
    }

    pub(crate) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

/// Whether a PEM text has a key that a pass phrase protects, in either of the two forms.
fn is_encrypted(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED")
}

fn pem(error: &PemError) -> String {
    match error {
        PemError::MissingSectionEnd { end_marker } => {
            format!("the line {} is missing", quote(&String::from_utf8_lossy(end_marker)))
        }
        PemError::IllegalSectionStart { line } => {
            format!("the line {} begins nothing", quote(&String::from_utf8_lossy(line)))
        }
        PemError::Base64Decode(e) => format!("the base64 is damaged ({e})"),
        other => other.to_string(),
    }
}
