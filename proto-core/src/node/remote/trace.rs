//! Which nodes a stream came through, so that one that comes back to where it was is known and refused.

use crate::rand::Rng;

/// Bytes of a peer's list that are looked at.
const MOST: usize = 512;

/// The marks of the nodes that a stream came through, the first one first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::node) struct Via(Vec<String>);

/// A node's mark: it tells a run of a process from all others and nothing else.
pub(super) fn mark(rng: &Rng) -> String {
    format!("headwater-{:016x}", rng.fork("mark", 0).u64())
}

impl Via {
    /// Reads what a peer said (`RTSP/1.0 a, RTSP/1.0 b` or `a, b`); marks of others than Headwater are left out.
    pub(in crate::node) fn parse(text: &str) -> Via {
        let text = text.get(..MOST.min(text.len())).unwrap_or_default();
        let marks = text.split(',').filter_map(|part| part.split_ascii_whitespace().last());
        Via(marks.filter(|m| m.starts_with("headwater-")).map(str::to_owned).collect())
    }

    /// Whether a node's mark is among them.
    pub(super) fn has(&self, mark: &str) -> bool {
        self.0.iter().any(|m| m == mark)
    }

    /// How many nodes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The list for the next server, with the node's own mark at its end.
    pub(super) fn with(&self, mark: &str) -> String {
        let all = self.0.iter().map(String::as_str).chain([mark]);
        all.map(|m| format!("RTSP/1.0 {m}")).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_carried_on_and_found_again() {
        let (a, b) = (mark(&Rng::new([1; 32])), mark(&Rng::new([2; 32])));
        assert_ne!(a, b);
        let via = Via::parse(&Via::parse(&Via::default().with(&a)).with(&b));
        assert_eq!(via.len(), 2);
        assert!(via.has(&a) && via.has(&b));
        assert!(!Via::parse("RTSP/1.0 proxy.example (x), 1.1 other").has(&a));
        assert_eq!(Via::parse(&"ü".repeat(400)).len(), 0);
    }
}
