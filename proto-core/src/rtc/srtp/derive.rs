//! Session keys out of a master key (RFC 3711, 4.3; RFC 7714, 11): the key stream of AES in counter mode, at a place that
//! the key's label says. The rate of derivation is 0: once per session.

use str0m::crypto::SrtpProvider;
use str0m::crypto::dtls::SrtpProfile;

/// What a derived key is for (RFC 3711, 4.3.1 and 4.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(u8);

impl Label {
    /// Encryption, authentication and salt of RTP.
    pub(super) const RTP: [Label; 3] = [Label(0), Label(1), Label(2)];
    /// Encryption, authentication and salt of RTCP.
    pub(super) const RTCP: [Label; 3] = [Label(3), Label(4), Label(5)];
}

/// A master key with its salt.
#[derive(Clone, Copy)]
pub(super) struct Master<'a> {
    pub(super) profile: SrtpProfile,
    pub(super) key: &'a [u8],
    pub(super) salt: &'a [u8],
}

impl<'a> Master<'a> {
    /// The client's and the server's (RFC 5764, 4.2).
    pub(super) fn split(material: &'a [u8], profile: SrtpProfile) -> Option<[Master<'a>; 2]> {
        let (key, salt) = match profile {
            SrtpProfile::AEAD_AES_128_GCM => (16, 12),
            SrtpProfile::AEAD_AES_256_GCM => (32, 12),
            SrtpProfile::AES128_CM_SHA1_80 => (16, 14),
            _ => return None,
        };
        let (client, rest) = material.split_at_checked(key)?;
        let (server, rest) = rest.split_at_checked(key)?;
        let (client_salt, rest) = rest.split_at_checked(salt)?;
        let server_salt = rest.get(..salt)?;
        Some([(client, client_salt), (server, server_salt)].map(|(key, salt)| Master { profile, key, salt }))
    }

    /// The first `N` bytes of the key stream for a label.
    pub(super) fn bytes<const N: usize>(&self, label: Label, provider: &dyn SrtpProvider) -> [u8; N] {
        let mut input = [0; 16];
        for (to, from) in input.iter_mut().zip(self.salt) {
            *to = *from;
        }
        // The label stands above the index of 48 bits, which is 0, and that above the block counter of 16 bits.
        let start = u128::from_be_bytes(input) ^ u128::from(label.0) << 64;
        let mut out = [0; N];
        for (n, piece) in out.chunks_mut(16).enumerate() {
            let input = (start | n as u128).to_be_bytes();
            let mut block = [0; 16];
            if self.key.len() == 32 {
                provider.srtp_aes_256_ecb_round(self.key, &input, &mut block);
            } else {
                provider.srtp_aes_128_ecb_round(self.key, &input, &mut block);
            }
            for (to, from) in piece.iter_mut().zip(block) {
                *to = from;
            }
        }
        out
    }
}
