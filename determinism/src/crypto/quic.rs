//! Packet and header protection of QUIC (RFC 9001 section 5) with AES-128-GCM, for [`super::tls_provider`].

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Block};
use aes_gcm::aead::{AeadInOut, inout::InOutBuf};
use aes_gcm::{Aes128Gcm, Nonce as GcmNonce};
use rustls::Error;
use rustls::crypto::cipher::{AeadKey, Iv, Nonce};
use rustls::quic::{Algorithm, HeaderProtectionKey, PacketKey, Tag};

const TAG: usize = 16;
const SAMPLE: usize = 16;

/// The algorithm of the one cipher suite.
pub(super) struct Aes;

impl Algorithm for Aes {
    fn packet_key(&self, key: AeadKey, iv: Iv) -> Box<dyn PacketKey> {
        let cipher = Aes128Gcm::new_from_slice(key.as_ref()).expect("a key of 16 bytes");
        Box::new(Packet { cipher, iv })
    }

    fn header_protection_key(&self, key: AeadKey) -> Box<dyn HeaderProtectionKey> {
        Box::new(Header(Aes128::new_from_slice(key.as_ref()).expect("a key of 16 bytes")))
    }

    fn aead_key_len(&self) -> usize {
        16
    }
}

struct Packet {
    cipher: Aes128Gcm,
    iv: Iv,
}

impl Packet {
    fn nonce(&self, number: u64) -> GcmNonce<aes_gcm::aead::consts::U12> {
        Nonce::new(&self.iv, number).0.into()
    }
}

impl PacketKey for Packet {
    fn encrypt_in_place(&self, number: u64, header: &[u8], payload: &mut [u8]) -> Result<Tag, Error> {
        let sealed = self.cipher.encrypt_inout_detached(&self.nonce(number), header, InOutBuf::from(payload));
        sealed.map(|tag| Tag::from(&tag[..])).map_err(|_| Error::EncryptError)
    }

    fn decrypt_in_place<'a>(
        &self,
        number: u64,
        header: &[u8],
        payload: &'a mut [u8],
    ) -> Result<&'a [u8], Error> {
        let plain = payload.len().checked_sub(TAG).ok_or(Error::DecryptError)?;
        let (body, tag) = payload.split_at_mut(plain);
        let tag = <[u8; TAG]>::try_from(&*tag).map_err(|_| Error::DecryptError)?;
        let opened = self.cipher.decrypt_inout_detached(
            &self.nonce(number),
            header,
            InOutBuf::from(&mut *body),
            &tag.into(),
        );
        opened.map_err(|_| Error::DecryptError)?;
        Ok(body)
    }

    fn tag_len(&self) -> usize {
        TAG
    }

    // RFC 9001 section 6.6.
    fn confidentiality_limit(&self) -> u64 {
        1 << 23
    }

    fn integrity_limit(&self) -> u64 {
        1 << 52
    }
}

struct Header(Aes128);

impl Header {
    /// RFC 9001 section 5.4.1. `masked`: the first byte is protected already.
    fn apply(&self, sample: &[u8], first: &mut u8, number: &mut [u8], masked: bool) -> Result<(), Error> {
        let wrong = |what: &str| Error::General(what.to_owned());
        let sample = <[u8; SAMPLE]>::try_from(sample).map_err(|_| wrong("a sample of another length"))?;
        let mut mask = Block::from(sample);
        self.0.encrypt_block(&mut mask);
        let (first_mask, mask) = mask.split_first().ok_or(wrong("an empty block"))?;
        if number.len() > 4 {
            return Err(wrong("a packet number that is too long"));
        }
        let bits = first_mask & if *first & 0x80 != 0 { 0x0f } else { 0x1f };
        let clear = if masked { *first ^ bits } else { *first };
        *first ^= bits;
        let length = usize::from(clear & 3) + 1;
        number.iter_mut().zip(mask).take(length).for_each(|(byte, mask)| *byte ^= mask);
        Ok(())
    }
}

impl HeaderProtectionKey for Header {
    fn encrypt_in_place(&self, sample: &[u8], first: &mut u8, number: &mut [u8]) -> Result<(), Error> {
        self.apply(sample, first, number, false)
    }

    fn decrypt_in_place(&self, sample: &[u8], first: &mut u8, number: &mut [u8]) -> Result<(), Error> {
        self.apply(sample, first, number, true)
    }

    fn sample_len(&self) -> usize {
        SAMPLE
    }
}

#[cfg(test)]
mod tests {
    use super::super::tls_provider;
    use rustls::quic::{Keys, Version};
    use rustls::{Side, SupportedCipherSuite};

    /// The client's first packet of RFC 9001, appendix A.2: its first block and its header.
    #[test]
    fn the_packet_of_the_rfc_comes_out() {
        let provider = tls_provider();
        let SupportedCipherSuite::Tls13(suite) = provider.cipher_suites[0] else { panic!("TLS 1.3") };
        let quic = suite.quic_suite().expect("QUIC");
        let id = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
        let client = Keys::initial(Version::V1, quic.suite, quic.quic, &id, Side::Client);
        let server = Keys::initial(Version::V1, quic.suite, quic.quic, &id, Side::Server);
        // The header with packet number 2 in four bytes.
        let mut header = vec![0xc3, 0, 0, 0, 1, 8];
        header.extend(id);
        header.extend([0, 0, 0x44, 0x9e, 0, 0, 0, 2]);
        let mut payload = vec![0; 1_162];
        let begins = [6, 0, 0x40, 0xf1, 1, 0, 0, 0xed, 3, 3, 0xeb, 0xf8, 0xfa, 0x56, 0xf1, 0x29];
        payload[..16].copy_from_slice(&begins);
        let tag = client.local.packet.encrypt_in_place(2, &header, &mut payload).unwrap();
        let sample =
            [0xd1, 0xb1, 0xc9, 0x8d, 0xd7, 0x68, 0x9f, 0xb8, 0xec, 0x11, 0xd2, 0x42, 0xb1, 0x23, 0xdc, 0x9b];
        assert_eq!(payload[..16], sample);
        let (mut first, mut number) = (header[0], header[18..22].to_vec());
        client.local.header.encrypt_in_place(&sample, &mut first, &mut number).unwrap();
        assert_eq!((first, &number[..]), (0xc0, &[0x7b, 0x9a, 0xec, 0x34][..]));
        // And back at the server.
        server.remote.header.decrypt_in_place(&sample, &mut first, &mut number).unwrap();
        assert_eq!((first, &number[..]), (0xc3, &[0, 0, 0, 2][..]));
        payload.extend(tag.as_ref());
        let mut damaged = payload.clone();
        damaged[100] ^= 1;
        assert!(server.remote.packet.decrypt_in_place(2, &header, &mut damaged).is_err());
        assert_eq!(
            server.remote.packet.decrypt_in_place(2, &header, &mut payload).unwrap()[..3],
            [6, 0, 0x40]
        );
    }
}
