//! A self-signed certificate for DTLS (RFC 8827, section 6.5: ECDSA with P-256) that follows from a seed alone.

use super::Error;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::EncodePrivateKey;
use sha2::{Digest, Sha256};
use std::str::FromStr;
use std::time::Duration;
use str0m::crypto::dtls::DtlsCert;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder, Result as BuilderResult};
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::Encode;
use x509_cert::der::asn1::UtcTime;
use x509_cert::ext::Extension;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfo, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};

/// From 2020-01-01 to 2049-12-31, counted from the Unix epoch: peers in WebRTC look at the fingerprint, not at the dates.
const VALID: (Duration, Duration) = (Duration::from_secs(1_577_836_800), Duration::from_secs(2_524_521_600));

/// The certificate of a seed, and its key (PKCS #8). Signed as RFC 6979 has it, without randomness.
///
/// # Errors
/// If the certificate cannot be encoded, which no seed is known to cause.
pub fn certificate(seed: [u8; 32]) -> Result<DtlsCert, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::new("a certificate for DTLS", e);
    let key = key(seed);
    let public = SubjectPublicKeyInfo::from_key(key.verifying_key()).map_err(|e| failed(&e))?;
    let number =
        Sha256::new().chain_update(b"headwater certificate serial number").chain_update(seed).finalize();
    // RFC 5280, section 4.1.2.2: positive, and at most 20 bytes.
    let mut number: [u8; 16] = std::array::from_fn(|i| number[i]);
    number[0] = number[0] & 0x7f | 0x40;
    let serial = SerialNumber::new(&number).map_err(|e| failed(&e))?;
    let time = |at| UtcTime::from_unix_duration(at).map(Time::UtcTime).map_err(|e| failed(&e));
    let validity = Validity::new(time(VALID.0)?, time(VALID.1)?);
    let subject = Name::from_str("CN=Headwater").map_err(|e| failed(&e))?;
    let builder =
        CertificateBuilder::new(SelfSigned(subject), serial, validity, public).map_err(|e| failed(&e))?;
    let made = builder.build::<_, DerSignature>(&key).map_err(|e| failed(&e))?;
    let certificate = made.to_der().map_err(|e| failed(&e))?;
    let private_key = key.to_pkcs8_der().map_err(|e| failed(&e))?.as_bytes().to_vec();
    Ok(DtlsCert { certificate, private_key })
}

/// The first hash of the seed and a count that is a scalar of the curve; all but one in 2^32 are.
fn key(seed: [u8; 32]) -> SigningKey {
    let mut count = 0u32;
    loop {
        let hash = Sha256::new().chain_update(b"headwater certificate key").chain_update(seed);
        let hash: [u8; 32] = hash.chain_update(count.to_be_bytes()).finalize().into();
        match SigningKey::from_slice(&hash) {
            Ok(key) => return key,
            Err(_) => count += 1,
        }
    }
}

/// A certificate of one name, with nothing in it that a client which does not look at it has a use for.
struct SelfSigned(Name);

impl BuilderProfile for SelfSigned {
    fn get_issuer(&self, subject: &Name) -> Name {
        subject.clone()
    }

    fn get_subject(&self) -> Name {
        self.0.clone()
    }

    fn build_extensions(
        &self,
        _spk: SubjectPublicKeyInfoRef<'_>,
        _issuer_spk: SubjectPublicKeyInfoRef<'_>,
        _tbs: &TbsCertificate,
    ) -> BuilderResult<Vec<Extension>> {
        Ok(Vec::new())
    }
}
