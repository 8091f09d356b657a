//! Ciphers of DTLS records that outlive their handshake: what a handshake keeps to conduct itself (transcript, certificates, keys for
//! signing, buffers) is many times what an established session needs of DTLS, which is to hear a goodbye and to say one.
//!
//! dimpl makes a session's two ciphers deep inside and hands them to nobody. The provider that it is given is ours, so each cipher is
//! entered into a register when it is made, and found there by the end of the record that it worked on last: 16 bytes that
//! nobody else's record ends with.

use dimpl::CryptoError;
use dimpl::crypto::{
    Aad, Buf, Cipher, Dtls12CipherSuite, HashAlgorithm, Nonce, SupportedDtls12CipherSuite, TmpBuf,
};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Bytes at the end of a record that tell whose it is: its authentication tag, or that and some of its ciphertext.
const TAIL: usize = 16;

/// The end of a record.
pub(super) type Tail = [u8; TAIL];

/// The end of what was sent or received, if it is long enough to be a protected record.
pub(super) fn tail(bytes: &[u8]) -> Option<Tail> {
    bytes.last_chunk().copied()
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cipher of one direction, and the last record that it sealed or opened.
pub(super) struct Kept(Mutex<State>);

struct State {
    cipher: Box<dyn Cipher>,
    /// Bytes of the nonce that stand in each record.
    explicit: usize,
    /// Bytes of the authentication tag.
    tag: usize,
    last: Option<Last>,
}

struct Last {
    nonce: Nonce,
    aad: Aad,
    tail: Tail,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept(..)")
    }
}

/// Of a record with this content type and these bytes: what is authenticated beside them (RFC 5246, 6.2.3.3; RFC 6347, 4.1.2.1).
fn beside(like: &Aad, number: u64, content: u8, length: usize) -> Option<Aad> {
    let mut aad = like.clone();
    let length = u16::try_from(length).ok()?;
    aad.0.get_mut(..8)?.copy_from_slice(&number.to_be_bytes());
    *aad.0.get_mut(8)? = content;
    aad.0.get_mut(11..13)?.copy_from_slice(&length.to_be_bytes());
    Some(aad)
}

impl State {
    /// Epoch and sequence number of the last record.
    fn number(&self) -> Option<u64> {
        let aad = &self.last.as_ref()?.aad;
        aad.0.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// The nonce of the record with this epoch and number: implicit and explicit part (RFC 5288, 3), or both made of the number
    /// (RFC 7905, 2), in which case the one of the last record tells the rest.
    fn nonce(&self, number: u64, explicit: &[u8]) -> Option<Nonce> {
        let last = self.last.as_ref()?;
        let mut nonce = last.nonce;
        let end = nonce.0.last_chunk_mut::<8>()?;
        if self.explicit == 0 {
            let mask = number ^ self.number()?;
            *end = (u64::from_be_bytes(*end) ^ mask).to_be_bytes();
        } else {
            end.copy_from_slice(explicit.get(..8)?);
        }
        Some(nonce)
    }
}

impl Kept {
    /// Opens the fragment of the record with this epoch and sequence number. `None`: it is not authentic.
    pub(super) fn open(&self, number: u64, content: u8, fragment: &[u8]) -> Option<Vec<u8>> {
        let mut state = lock(&self.0);
        let (explicit, sealed) = fragment.split_at_checked(state.explicit)?;
        let mut bytes = sealed.to_vec();
        let nonce = state.nonce(number, explicit)?;
        let length = bytes.len().checked_sub(state.tag)?;
        let aad = beside(&state.last.as_ref()?.aad, number, content, length)?;
        let mut opened = TmpBuf::new(&mut bytes);
        state.cipher.decrypt(&mut opened, aad, nonce).ok()?;
        let length = opened.len();
        bytes.truncate(length);
        Some(bytes)
    }

    /// Seals the record that follows the last one. Answers its epoch and sequence number, and the fragment.
    pub(super) fn seal(&self, content: u8, bytes: &[u8]) -> Option<(u64, Vec<u8>)> {
        let mut state = lock(&self.0);
        let number = state.number()?.checked_add(1)?;
        let last = state.last.as_ref()?;
        // The next after one that was drawn is another.
        let explicit = u64::from_be_bytes(*last.nonce.0.last_chunk()?).wrapping_add(1).to_be_bytes();
        let (nonce, aad) =
            (state.nonce(number, &explicit)?, beside(&last.aad, number, content, bytes.len())?);
        let mut sealed = Buf::new();
        sealed.extend_from_slice(bytes);
        state.cipher.encrypt(&mut sealed, aad.clone(), nonce).ok()?;
        let mut fragment = explicit.get(..state.explicit)?.to_vec();
        fragment.extend_from_slice(&sealed);
        state.last = tail(&sealed).map(|tail| Last { nonce, aad, tail });
        Some((number, fragment))
    }
}

/// What dimpl is given as a cipher.
#[derive(Debug)]
struct Handle(Arc<Kept>);

impl Cipher for Handle {
    fn encrypt(&mut self, plaintext: &mut Buf, aad: Aad, nonce: Nonce) -> Result<(), CryptoError> {
        let mut state = lock(&self.0.0);
        state.cipher.encrypt(plaintext, aad.clone(), nonce)?;
        state.last = tail(plaintext).map(|tail| Last { nonce, aad, tail });
        Ok(())
    }

    fn decrypt(&mut self, ciphertext: &mut TmpBuf<'_>, aad: Aad, nonce: Nonce) -> Result<(), CryptoError> {
        let tail = tail(ciphertext.as_ref());
        let mut state = lock(&self.0.0);
        state.cipher.decrypt(ciphertext, aad.clone(), nonce)?;
        state.last = tail.map(|tail| Last { nonce, aad, tail });
        Ok(())
    }
}

/// Ciphers of handshakes that are under way, or of sessions that go on without asking for theirs.
#[derive(Debug, Default)]
pub(super) struct Register(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    all: Vec<Weak<Kept>>,
    /// At so many, those of sessions that are gone are left out.
    sweep: usize,
}

/// Entries that are not worth a sweep.
const FEW: usize = 64;

impl Register {
    fn enter(&self, cipher: Box<dyn Cipher>, explicit: usize, tag: usize) -> Handle {
        let kept = Arc::new(Kept(Mutex::new(State { cipher, explicit, tag, last: None })));
        let mut entries = lock(&self.0);
        if entries.all.len() >= entries.sweep.max(FEW) {
            entries.all.retain(|weak| weak.strong_count() > 0);
            entries.sweep = 2 * entries.all.len();
        }
        entries.all.push(Arc::downgrade(&kept));
        Handle(kept)
    }

    /// The cipher whose last record ends so, once.
    pub(super) fn take(&self, tail: Tail) -> Option<Arc<Kept>> {
        let mut entries = lock(&self.0);
        // A handshake that has just ended is among the last that began.
        for n in (0..entries.all.len()).rev() {
            let Some(kept) = entries.all.get(n).and_then(Weak::upgrade) else { continue };
            let its = lock(&kept.0).last.as_ref().is_some_and(|last| last.tail == tail);
            if its {
                entries.all.swap_remove(n);
                return Some(kept);
            }
        }
        None
    }
}

/// A suite whose ciphers are entered into a register.
#[derive(Debug)]
struct Entered {
    suite: &'static dyn SupportedDtls12CipherSuite,
    register: &'static Register,
}

impl SupportedDtls12CipherSuite for Entered {
    fn suite(&self) -> Dtls12CipherSuite {
        self.suite.suite()
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        self.suite.hash_algorithm()
    }

    fn key_lengths(&self) -> (usize, usize, usize) {
        self.suite.key_lengths()
    }

    fn explicit_nonce_len(&self) -> usize {
        self.suite.explicit_nonce_len()
    }

    fn tag_len(&self) -> usize {
        self.suite.tag_len()
    }

    fn min_protected_fragment_len(&self) -> usize {
        self.suite.min_protected_fragment_len()
    }

    fn create_cipher(&self, key: &[u8]) -> Result<Box<dyn Cipher>, CryptoError> {
        let cipher = self.suite.create_cipher(key)?;
        Ok(Box::new(self.register.enter(cipher, self.explicit_nonce_len(), self.tag_len())))
    }
}

/// The same suites, with what they make entered into the register. dimpl takes them as static references: a few small allocations
/// for good are the price.
pub(super) fn entered(
    suites: &'static [&'static dyn SupportedDtls12CipherSuite],
    register: &'static Register,
) -> &'static [&'static dyn SupportedDtls12CipherSuite] {
    let suites = suites.iter().map(|suite| {
        let entered: &'static Entered = Box::leak(Box::new(Entered { suite: *suite, register }));
        entered as &'static dyn SupportedDtls12CipherSuite
    });
    Box::leak(suites.collect::<Box<[_]>>())
}
