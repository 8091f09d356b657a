//! The ciphers of SRTP: AES-128 in counter mode (RFC 3711, section 4.1.1) and AES-GCM (RFC 7714). Each keeps its key
//! expanded. The processor's AES instructions are used where there are some; the bytes are the same without.

use aes::cipher::{BlockCipherEncrypt, InnerIvInit, KeyInit, StreamCipherCore};
use aes::{Aes128, Aes256, Block};
use aes_gcm::aead::{AeadInOut, inout::InOutBuf};
use aes_gcm::{Aes128Gcm, Aes256Gcm, Nonce};
use ctr::{CtrCore, flavors};
use std::fmt;
use str0m::crypto::{
    AeadAes128GcmCipher, AeadAes256GcmCipher, Aes128CmSha1_80Cipher, CryptoError, SrtpProvider,
    SupportedAeadAes128Gcm, SupportedAeadAes256Gcm, SupportedAes128CmSha1_80,
};

const TAG: usize = 16;

#[derive(Debug)]
pub(super) struct Srtp;

impl SrtpProvider for Srtp {
    fn aes_128_cm_sha1_80(&self) -> &'static dyn SupportedAes128CmSha1_80 {
        &Srtp
    }

    fn aead_aes_128_gcm(&self) -> &'static dyn SupportedAeadAes128Gcm {
        &Srtp
    }

    fn aead_aes_256_gcm(&self) -> &'static dyn SupportedAeadAes256Gcm {
        &Srtp
    }

    fn srtp_aes_128_ecb_round(&self, key: &[u8], input: &[u8], output: &mut [u8]) {
        blocks(&Aes128::new_from_slice(key).expect("a key of 16 bytes"), input, output);
    }

    fn srtp_aes_256_ecb_round(&self, key: &[u8], input: &[u8], output: &mut [u8]) {
        blocks(&Aes256::new_from_slice(key).expect("a key of 32 bytes"), input, output);
    }
}

impl SupportedAes128CmSha1_80 for Srtp {
    fn create_cipher(&self, key: [u8; 16], _encrypt: bool) -> Box<dyn Aes128CmSha1_80Cipher> {
        Box::new(Counter(Aes128::new(&key.into())))
    }
}

impl SupportedAeadAes128Gcm for Srtp {
    fn create_cipher(&self, key: [u8; 16], _encrypt: bool) -> Box<dyn AeadAes128GcmCipher> {
        Box::new(Gcm(Aes128Gcm::new(&key.into())))
    }
}

impl SupportedAeadAes256Gcm for Srtp {
    fn create_cipher(&self, key: [u8; 32], _encrypt: bool) -> Box<dyn AeadAes256GcmCipher> {
        Box::new(Gcm(Aes256Gcm::new(&key.into())))
    }
}

/// Whole blocks of `input`, each for itself.
fn blocks<C: BlockCipherEncrypt<BlockSize = aes::cipher::consts::U16>>(
    cipher: &C,
    input: &[u8],
    output: &mut [u8],
) {
    for (plain, out) in input.chunks_exact(16).zip(output.chunks_exact_mut(16)) {
        let mut block = Block::default();
        block.copy_from_slice(plain);
        cipher.encrypt_block(&mut block);
        out.copy_from_slice(&block);
    }
}

fn failed(what: &str) -> CryptoError {
    CryptoError::Other(what.to_owned())
}

/// The first `len` bytes of an output that must have them.
fn room(output: &mut [u8], len: usize) -> Result<&mut [u8], CryptoError> {
    output.get_mut(..len).ok_or_else(|| failed("SRTP: the output is shorter than what goes into it"))
}

struct Counter(Aes128);

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counter(..)")
    }
}

impl Aes128CmSha1_80Cipher for Counter {
    fn encrypt(&mut self, iv: &[u8; 16], input: &[u8], output: &mut [u8]) -> Result<(), CryptoError> {
        let output = room(output, input.len())?;
        let stream = CtrCore::<&Aes128, flavors::Ctr128BE>::inner_iv_init(&self.0, iv.into());
        let buffers = InOutBuf::new(input, output).map_err(|_| failed("SRTP: lengths differ"))?;
        stream.try_apply_keystream_partial(buffers).map_err(|_| failed("SRTP: the packet is too long"))
    }

    fn decrypt(&mut self, iv: &[u8; 16], input: &[u8], output: &mut [u8]) -> Result<(), CryptoError> {
        self.encrypt(iv, input, output)
    }
}

struct Gcm<C>(C);

impl<C> fmt::Debug for Gcm<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gcm(..)")
    }
}

impl<C> Gcm<C>
where
    C: AeadInOut<NonceSize = aes::cipher::consts::U12, TagSize = aes::cipher::consts::U16>,
{
    fn seal(&self, iv: &[u8; 12], aad: &[u8], input: &[u8], output: &mut [u8]) -> Result<(), CryptoError> {
        let (output, tag) = room(output, input.len() + TAG)?.split_at_mut(input.len());
        let buffers = InOutBuf::new(input, output).map_err(|_| failed("SRTP: lengths differ"))?;
        let sealed = self.0.encrypt_inout_detached(&Nonce::from(*iv), aad, buffers);
        tag.copy_from_slice(&sealed.map_err(|_| failed("SRTP: the packet is too long"))?);
        Ok(())
    }

    fn open(
        &self,
        iv: &[u8; 12],
        aads: &[&[u8]],
        input: &[u8],
        output: &mut [u8],
    ) -> Result<usize, CryptoError> {
        let Some((input, tag)) = input.split_last_chunk::<TAG>() else {
            return Err(failed("SRTP: the packet is shorter than its tag"));
        };
        let joined;
        let aad = match aads {
            [one] => one,
            several => {
                joined = several.concat();
                joined.as_slice()
            }
        };
        let output = room(output, input.len())?;
        let buffers = InOutBuf::new(input, output).map_err(|_| failed("SRTP: lengths differ"))?;
        let opened = self.0.decrypt_inout_detached(&Nonce::from(*iv), aad, buffers, tag.into());
        opened.map_err(|_| failed("SRTP: the packet is not authentic"))?;
        Ok(input.len())
    }
}

macro_rules! cipher {
    ($cipher:ty, $of:ident) => {
        impl $of for Gcm<$cipher> {
            fn encrypt(
                &mut self,
                iv: &[u8; 12],
                aad: &[u8],
                input: &[u8],
                output: &mut [u8],
            ) -> Result<(), CryptoError> {
                self.seal(iv, aad, input, output)
            }

            fn decrypt(
                &mut self,
                iv: &[u8; 12],
                aads: &[&[u8]],
                input: &[u8],
                output: &mut [u8],
            ) -> Result<usize, CryptoError> {
                self.open(iv, aads, input, output)
            }
        }
    };
}

cipher!(Aes128Gcm, AeadAes128GcmCipher);
cipher!(Aes256Gcm, AeadAes256GcmCipher);
