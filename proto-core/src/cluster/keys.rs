//! The keys that the nodes of a cluster prove to each other: one that a node shows, and all that it accepts, so that a key
//! can be replaced while the cluster runs.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sha2::{Digest, Sha256};

/// Keys that a node may accept at once.
pub const KEYS_MAX: usize = 8;

/// A key as proofs use it: its SHA-256.
pub(crate) type Key = [u8; 32];

/// What this node shows and accepts. Holds hashes only.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Keys(Vec<Key>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl Keys {
    /// The key that is shown, and others that are accepted. An empty text is no key.
    pub fn new<'a>(shown: &'a str, accepted: impl IntoIterator<Item = &'a str>) -> Keys {
        let all = std::iter::once(shown).chain(accepted).filter(|k| !k.is_empty());
        Keys(all.map(|k| Sha256::digest(k.as_bytes()).into()).collect())
    }

    /// The texts of the keys that a file holds: one a line, the first is shown, each is accepted. Blank lines, and those that
    /// begin with `#`, are skipped.
    ///
    /// # Errors
    /// A sentence that follows the file's name; it holds nothing of a key.
    pub fn lines(file: &[u8]) -> Result<Vec<&str>, String> {
        let text = std::str::from_utf8(file).map_err(|_| "is not UTF-8".to_owned())?;
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        let keys: Vec<&str> = lines.collect();
        match keys.len() {
            0 => Err("holds no key; write one a line, first the one to show".to_owned()),
            n if n > KEYS_MAX => Err(format!("holds {n} keys; {KEYS_MAX} at most are accepted at once")),
            _ => Ok(keys),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are accepted.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The one to prove. Without any it is that of an empty text, which keeps nobody out.
    pub(crate) fn shown(&self) -> Key {
        self.0.first().copied().unwrap_or_else(|| Sha256::digest(b"").into())
    }

    /// Those that the other end may prove.
    pub(crate) fn accepted(&self) -> Vec<Key> {
        if self.is_empty() { vec![self.shown()] } else { self.0.clone() }
    }

    /// Whether a key is accepted.
    pub(crate) fn accepts(&self, key: &Key) -> bool {
        self.accepted().contains(key)
    }
}
