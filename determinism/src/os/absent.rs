//! Stands in for `interpose` where that is not built: [`super::probe`] refuses, so nothing of this is relied upon.

/// Whether interposition is built for this system.
pub(super) const BUILT: bool = false;

#[derive(Debug)]
pub(super) struct Stream(u64);

impl Stream {
    pub(super) fn new(seed: [u8; 32]) -> Stream {
        Stream(seed.iter().fold(0, |h, &b| h << 1 ^ u64::from(b)))
    }

    pub(super) fn side_seed(&self) -> u64 {
        self.0
    }

    pub(super) fn fill(&self, _out: &mut [u8]) -> bool {
        false
    }
}

pub(super) fn with<T>(_stream: &Stream, f: impl FnOnce() -> T) -> T {
    f()
}

pub(super) fn is_on(_stream: &Stream) -> bool {
    false
}

/// What of the C functions' callers would not arrive here.
pub(super) fn unreached() -> Vec<&'static str> {
    Vec::new()
}
