//! AES-128 in counter mode with HMAC-SHA1 (RFC 3711, 4.1.1 and 4.2.1) for peers that offer no GCM. Both keys are kept as the
//! libraries work with them: str0m's provider takes bytes and expands them anew for each packet, a third of all that sealing
//! cost. Nothing here is drawn by chance, so a run replays with it.
//!
//! The cipher is aws-lc's, the quicker one; the sums are RustCrypto's, of which a keyed state has 128 bytes to copy for a
//! packet instead of 1,232.

use super::SHA1_TAG;
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

/// The two keys of one direction of one kind of packet.
pub(super) struct Counter {
    stream: EncryptingKey,
    authentication: Hmac<Sha1>,
}

impl Counter {
    /// `None`: the library refuses to work.
    pub(super) fn new(key: &[u8; 16], authentication: &[u8; 20]) -> Option<Counter> {
        let stream = EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, key).ok()?).ok()?;
        Some(Counter { stream, authentication: Hmac::new_from_slice(authentication).ok()? })
    }

    /// Encrypts or decrypts, which is the same, in place.
    pub(super) fn apply(&self, iv: [u8; 16], bytes: &mut [u8]) -> Option<()> {
        self.stream.less_safe_encrypt(bytes, EncryptionContext::Iv128(iv.into())).ok().map(drop)
    }

    /// What proves a packet that consists of `parts`.
    pub(super) fn tag(&self, parts: [&[u8]; 2]) -> [u8; SHA1_TAG] {
        let mut sum = self.authentication.clone();
        parts.iter().for_each(|part| sum.update(part));
        let mut tag = [0; SHA1_TAG];
        tag.iter_mut().zip(sum.finalize().into_bytes()).for_each(|(to, from)| *to = from);
        tag
    }

    /// Whether a packet that consists of `parts` has the right tag.
    pub(super) fn proves(&self, parts: [&[u8]; 2], tag: &[u8; SHA1_TAG]) -> bool {
        // All bytes are compared, whatever the first ones say.
        self.tag(parts).iter().zip(tag).fold(0, |d, (a, b)| d | (a ^ b)) == 0
    }
}
