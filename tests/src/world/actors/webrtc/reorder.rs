//! Packets back into order, with a bounded wait for those that are missing.

use proto_core::time::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// The first packets are held for so long: the network may have swapped them.
const START: Duration = Duration::from_millis(20);

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::world::actors) enum Next<T> {
    /// The next packet.
    Packet(T),
    /// So many packets before the next one did not come in time.
    Missing(u64),
}

/// Packets of one track by their unwrapped sequence numbers.
#[derive(Debug)]
pub(in crate::world::actors) struct Reorder<T> {
    held: BTreeMap<u64, (Time, T)>,
    next: Option<u64>,
    first: Option<Time>,
    wait: Duration,
}

impl<T> Reorder<T> {
    pub(in crate::world::actors) fn new(wait: Duration) -> Reorder<T> {
        Reorder { held: BTreeMap::new(), next: None, first: None, wait }
    }

    /// Takes a packet. Answers `false` if it came before or too late.
    pub(in crate::world::actors) fn insert(&mut self, seq: u64, item: T, now: Time) -> bool {
        if self.next.is_some_and(|n| seq < n) || self.held.contains_key(&seq) {
            return false;
        }
        self.first.get_or_insert(now);
        self.held.insert(seq, (now, item));
        true
    }

    /// The next thing that is due by `now`.
    pub(in crate::world::actors) fn pop(&mut self, now: Time) -> Option<Next<T>> {
        let due = self.wake()?;
        if due > now {
            return None;
        }
        let (&seq, _) = self.held.first_key_value()?;
        let next = *self.next.get_or_insert(seq);
        self.next = Some(seq);
        if seq > next {
            return Some(Next::Missing(seq - next));
        }
        let (_, (_, item)) = self.held.pop_first()?;
        self.next = Some(seq + 1);
        Some(Next::Packet(item))
    }

    /// When the next thing is due.
    pub(in crate::world::actors) fn wake(&self) -> Option<Time> {
        let (&seq, (came, _)) = self.held.first_key_value()?;
        Some(match self.next {
            None => self.first? + START,
            Some(next) if next == seq => *came,
            Some(_) => *came + self.wait,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_restored_and_waiting_ends() {
        let ms = Time::from_millis;
        let mut r = Reorder::new(Duration::from_millis(100));
        assert!(r.insert(6, 'b', ms(0)) && r.insert(5, 'a', ms(3)) && !r.insert(5, 'x', ms(4)));
        assert_eq!((r.pop(ms(19)), r.wake()), (None, Some(ms(20))));
        assert_eq!(r.pop(ms(20)), Some(Next::Packet('a')));
        assert_eq!(r.pop(ms(20)), Some(Next::Packet('b')));
        assert!(r.insert(9, 'd', ms(30)));
        assert_eq!((r.pop(ms(129)), r.wake()), (None, Some(ms(130))));
        assert_eq!(r.pop(ms(130)), Some(Next::Missing(2)));
        assert_eq!(r.pop(ms(130)), Some(Next::Packet('d')));
        assert!(!r.insert(7, 'c', ms(131)));
        assert_eq!((r.pop(ms(999)), r.wake()), (None, None));
    }
}
