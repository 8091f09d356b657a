//! Randomness from one seed. Everything random in a node is drawn from here, so that a seed replays it.

use hmac::{Hmac, KeyInit, Mac};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use sha2::Sha256;

/// A ChaCha20 stream keyed by 256 bits. In service the seed comes from the operating system; in a simulation
/// from the seed of the run.
#[derive(Clone)]
pub struct Rng {
    seed: [u8; 32],
    stream: ChaCha20Rng,
}

impl Rng {
    /// A generator from a 256-bit seed.
    pub fn new(seed: [u8; 32]) -> Rng {
        Rng { seed, stream: ChaCha20Rng::from_seed(seed) }
    }

    /// A generator of its own for `label` and `id`, made by a keyed hash of this one's seed and never by drawing
    /// from it: what one component draws does not change what another gets.
    pub fn fork(&self, label: &str, id: u64) -> Rng {
        // HMAC takes a key of any length; `new` alone wants a whole block, so the seed is padded to one (RFC 2104).
        let mut block = [0; 64];
        block[..32].copy_from_slice(&self.seed);
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
        mac.update(label.as_bytes());
        mac.update(&[0]);
        mac.update(&id.to_be_bytes());
        Rng::new(mac.finalize().into_bytes().into())
    }

    /// Fills `out` with random bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        self.stream.fill_bytes(out);
    }

    /// A random array.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    /// A random 32-bit number.
    pub fn u32(&mut self) -> u32 {
        self.stream.next_u32()
    }

    /// A random 64-bit number.
    pub fn u64(&mut self) -> u64 {
        self.stream.next_u64()
    }

    /// A number in `0..n`, by multiplication (bias below 2⁻³² for any `n` in use). `n = 0` gives 0.
    pub fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.u32()) * u64::from(n)) >> 32) as u32
    }

    /// A random text of `len` characters out of `A-Za-z0-9` (5.95 bits each): ids, ICE user names and passwords.
    pub fn token(&mut self, len: usize) -> String {
        const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        (0..len).map(|_| char::from(*ALPHABET.get(self.below(62) as usize).unwrap_or(&b'A'))).collect()
    }
}

impl std::fmt::Debug for Rng {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The seed is the root of every secret of this node.
        f.write_str("Rng(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_do_not_depend_on_what_was_drawn() {
        let mut a = Rng::new([7; 32]);
        let before = a.fork("ice", 1).u64();
        a.u64();
        assert_eq!(a.fork("ice", 1).u64(), before);
        assert_ne!(a.fork("ice", 2).u64(), before);
        assert_ne!(a.fork("dtls", 1).u64(), before);
    }

    #[test]
    fn below_stays_below() {
        let mut r = Rng::new([1; 32]);
        assert!((0..1000).all(|_| r.below(7) < 7));
        assert_eq!(r.below(0), 0);
        assert_eq!(r.token(24).len(), 24);
    }
}
