//! A map in the order of its keys for large values. They stand by themselves, so the keys lie close together: finding one
//! among a thousand then touches a few lines of the processor's caches and not a few in each of many values.

use std::collections::BTreeMap;
use std::collections::btree_map;

/// See the module.
#[derive(Clone, Debug)]
pub struct Table<K, V>(BTreeMap<K, Box<V>>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Table<K, V> {
        Table(BTreeMap::new())
    }
}

impl<K: Ord, V> Table<K, V> {
    /// None yet.
    pub fn new() -> Table<K, V> {
        Table::default()
    }

    /// As [`BTreeMap::get`].
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key).map(|v| &**v)
    }

    /// As [`BTreeMap::get_mut`].
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key).map(|v| &mut **v)
    }

    /// As [`BTreeMap::contains_key`].
    pub fn contains_key(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    /// As [`BTreeMap::insert`].
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert(key, Box::new(value)).map(|v| *v)
    }

    /// As [`BTreeMap::remove`].
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.0.remove(key).map(|v| *v)
    }

    /// As [`BTreeMap::iter`].
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter(self.0.iter())
    }

    /// As [`BTreeMap::iter_mut`].
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.0.iter_mut().map(|(k, v)| (k, &mut **v))
    }

    /// As [`BTreeMap::keys`].
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    /// As [`BTreeMap::values`].
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.values().map(|v| &**v)
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

/// What [`Table::iter`] answers.
#[derive(Debug)]
pub struct Iter<'a, K, V>(btree_map::Iter<'a, K, Box<V>>);

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(k, v)| (k, &**v))
    }
}

impl<'a, K: Ord, V> IntoIterator for &'a Table<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}
