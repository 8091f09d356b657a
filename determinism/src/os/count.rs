//! A global allocator that counts, for tests that hold code to "nothing is allocated per packet" and to bytes a session.
//!
//! A test binary installs it with `#[global_allocator]`. It counts only what a thread does inside [`counted`].

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What a thread allocated inside [`counted`] so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Calls that got or grew memory.
    pub allocations: u64,
    /// Bytes got less bytes given back. Memory that was got outside and is given back inside makes it too small.
    pub live: i64,
    /// The most that `live` was since the thread began or called [`from_here`].
    pub peak: i64,
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<Count> = const { Cell::new(Count { allocations: 0, live: 0, peak: 0 }) };
}

/// Runs `work` with the calling thread's allocations counted.
pub fn counted<T>(work: impl FnOnce() -> T) -> T {
    struct Leave(bool);
    impl Drop for Leave {
        fn drop(&mut self) {
            INSIDE.set(self.0);
        }
    }
    let _leave = Leave(INSIDE.replace(true));
    work()
}

/// What the calling thread allocated inside [`counted`] since it began. Always 0 without [`Counting`].
pub fn count() -> Count {
    COUNT.get()
}

/// Forgets the calling thread's peak: it is what is live now.
pub fn from_here() -> Count {
    let now = COUNT.get();
    COUNT.set(Count { peak: now.live, ..now });
    COUNT.get()
}

fn note(allocations: u64, bytes: i64) {
    // A thread that ends has no counters any more, and its last frees are nobody's.
    let inside = INSIDE.try_with(Cell::get).unwrap_or(false);
    if inside {
        let _ = COUNT.try_with(|c| {
            let Count { allocations: a, live, peak } = c.get();
            let live = live + bytes;
            c.set(Count { allocations: a + allocations, live, peak: peak.max(live) });
        });
    }
}

/// The system's allocator, with a count of what is done inside [`counted`].
#[derive(Debug)]
pub struct Counting;

// SAFETY: everything is passed on to the system's allocator; the counters are plain cells of the thread, which allocate
// nothing and cannot unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as i64);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(0, -(layout.size() as i64));
        // SAFETY: as the caller promises; `at` came from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as i64);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(1, size as i64 - layout.size() as i64);
        // SAFETY: as the caller promises; `at` came from the system's allocator.
        unsafe { System.realloc(at, layout, size) }
    }
}
