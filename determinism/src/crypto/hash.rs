//! SHA-1, SHA-256 and HMAC-SHA1 (FIPS 180-4, RFC 2104).

use hmac::{Hmac, KeyInit, Mac};
use sha2::Digest;
use str0m::crypto::{Sha1HmacProvider, Sha1Provider, Sha256Provider};

#[derive(Debug)]
pub(super) struct Sha1;

impl Sha1Provider for Sha1 {
    fn sha1(&self, data: &[u8]) -> [u8; 20] {
        sha1::Sha1::digest(data).into()
    }
}

#[derive(Debug)]
pub(super) struct Sha256;

impl Sha256Provider for Sha256 {
    fn sha256(&self, data: &[u8]) -> [u8; 32] {
        sha2::Sha256::digest(data).into()
    }
}

#[derive(Debug)]
pub(super) struct HmacSha1;

impl Sha1HmacProvider for HmacSha1 {
    fn sha1_hmac(&self, key: &[u8], payloads: &[&[u8]]) -> [u8; 20] {
        let mut mac =
            Hmac::<sha1::Sha1>::new_from_slice(key).expect("a key of any length will do (RFC 2104)");
        for part in payloads {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}
