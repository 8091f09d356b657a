//! A map of a few entries that lie in one piece. Where there are one to four of them, as of the tracks of a player or of what a
//! connection does, a tree's node has room for eleven and lies three lines of the processor's caches apart from its keys.

/// Entries in the order of their keys. Finding one looks at all of them.
#[derive(Clone, Debug)]
pub struct Few<K, V>(Vec<(K, V)>);

impl<K, V> Default for Few<K, V> {
    fn default() -> Few<K, V> {
        Few(Vec::new())
    }
}

impl<K: Ord + Copy, V> Few<K, V> {
    /// The value of a key.
    pub fn get(&self, key: K) -> Option<&V> {
        self.0.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// The value of a key.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.0.iter_mut().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// Whether there is a value for a key.
    pub fn has(&self, key: K) -> bool {
        self.get(key).is_some()
    }

    /// Gives a key a value. Answers the one that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(had) = self.get_mut(key) {
            return Some(std::mem::replace(had, value));
        }
        let at = self.0.partition_point(|(k, _)| *k < key);
        // As many as there are: most have one or two for good.
        self.0.reserve_exact(1);
        self.0.insert(at, (key, value));
        None
    }

    /// Removes a key's value and answers it.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let at = self.0.iter().position(|(k, _)| *k == key)?;
        Some(self.0.remove(at).1)
    }

    /// Keeps the entries of which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(K, &V) -> bool) {
        self.0.retain(|(k, v)| keep(*k, v));
    }

    /// The entries, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.0.iter().map(|(k, v)| (*k, v))
    }

    /// As [`Few::iter`], to change the values.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut V)> {
        self.0.iter_mut().map(|(k, v)| (*k, v))
    }

    /// The key that comes first.
    pub fn first(&self) -> Option<K> {
        self.0.first().map(|(k, _)| *k)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_is_a_map(steps in proptest::collection::vec((0u8..6, any::<Option<u8>>()), 0..40)) {
            let (mut few, mut map) = (Few::default(), BTreeMap::new());
            for (key, value) in steps {
                match value {
                    Some(value) => prop_assert_eq!(few.insert(key, value), map.insert(key, value)),
                    None => prop_assert_eq!(few.remove(key), map.remove(&key)),
                }
                if let (Some(f), Some(m)) = (few.get_mut(1), map.get_mut(&1)) {
                    (*f, *m) = (f.wrapping_add(1), m.wrapping_add(1));
                }
                few.iter_mut().filter(|(k, _)| *k == 2).for_each(|(_, v)| *v /= 2);
                map.iter_mut().filter(|(k, _)| **k == 2).for_each(|(_, v)| *v /= 2);
                prop_assert_eq!(few.get(key), map.get(&key));
                prop_assert_eq!(few.first(), map.keys().next().copied());
                prop_assert_eq!((few.len(), few.is_empty()), (map.len(), map.is_empty()));
                prop_assert!(few.iter().eq(map.iter().map(|(k, v)| (*k, v))));
            }
            few.retain(|k, v| k % 2 == 0 || *v > 9);
            map.retain(|k, v| k % 2 == 0 || *v > 9);
            prop_assert!(few.iter().eq(map.iter().map(|(k, v)| (*k, v))) && few.has(3) == map.contains_key(&3));
        }
    }
}
