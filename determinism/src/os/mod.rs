//! Interposition of what dependencies read from the operating system: randomness and clocks.
//!
//! The crate defines the C functions `getrandom`, `getentropy`, `clock_gettime`, `gettimeofday`, `time` and `syscall`.
//! The linker prefers them to those of the C library, for every caller in the process. They pass each call on, unless
//! the calling thread is inside [`run`] or [`Scope::within`]. There randomness is a ChaCha20 stream of a seed, and every
//! clock stands still at [`WALL`] and [`MONOTONIC`]: time moves through the `now` arguments of the core alone.
//!
//! Nothing may wait for a clock inside (no sleep, no time-out of a lock or channel): it would never or at once be over.
//!
//! Only for Linux with the GNU C library on x86-64 and 64-bit ARM. Elsewhere [`run`] and [`Scope::new`] say so.

pub mod count;
#[cfg_attr(
    all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")),
    path = "interpose.rs"
)]
#[cfg_attr(
    not(all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64"))),
    path = "absent.rs"
)]
mod interpose;
mod probe;
#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests;

use interpose::Stream;
use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::marker::PhantomData;
use std::time::Duration;

/// What the wall clock says inside: 2026-01-01 00:00:00 UTC, counted from the Unix epoch.
pub const WALL: Duration = Duration::from_secs(1_767_225_600);
/// What every other clock says inside, counted from its own zero. str0m and dimpl count from an hour before their first
/// look at it, so that moments of the real clock, which began when the machine did, are never before their beginning.
pub const MONOTONIC: Duration = Duration::from_secs(3_600);

/// Bytes of stack of a thread of [`run`]: as much as a main thread has, and room for unoptimised builds.
const STACK: usize = 16 << 20;

/// Something that dependencies read would not have come from the seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotInterposed {
    what: Vec<&'static str>,
}

impl NotInterposed {
    fn new(what: Vec<&'static str>) -> NotInterposed {
        NotInterposed { what }
    }

    /// What is not under control, a phrase for each.
    pub fn what(&self) -> &[&'static str] {
        &self.what
    }
}

impl fmt::Display for NotInterposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a run would not replay, for this is not under control: {}", self.what.join("; "))
    }
}

impl std::error::Error for NotInterposed {}

/// Runs `f` on a fresh thread that is interposed for its whole life, and gives back what it gave. The same seed and the
/// same `f` see the same randomness, in every process and build.
///
/// The thread must be fresh because the keys of hash maps and the generators of `rand` and `fastrand` live as long as
/// their thread. May be called inside another `run`, which it does not disturb: so is made what a process makes once
/// and keeps, whichever run happens to be the first to need it.
///
/// # Errors
/// [`NotInterposed`] where interposition is not built, is not linked, or came too late for the libraries.
///
/// # Panics
/// With the panic of `f`; and if the operating system has no thread to give.
pub fn run<T: Send>(seed: [u8; 32], f: impl FnOnce() -> T + Send) -> Result<T, NotInterposed> {
    check()?;
    Ok(fresh(seed, f))
}

/// Holds that interposition works in this process, and makes what libraries remember of the clock for as long as the
/// process lives. [`run`] and [`Scope::new`] do this themselves. A process that also uses WebRTC outside of them calls
/// this first; else the libraries remember the real clock and every later call here fails.
///
/// # Errors
/// As [`run`].
pub fn check() -> Result<(), NotInterposed> {
    probe::once()
}

/// As [`run`], unchecked.
pub(crate) fn fresh<T: Send>(seed: [u8; 32], f: impl FnOnce() -> T + Send) -> T {
    let stream = Stream::new(seed);
    let inside = move || {
        interpose::with(&stream, || {
            fastrand::seed(stream.side_seed());
            f()
        })
    };
    std::thread::scope(|threads| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(threads, inside);
        match thread.expect("the operating system gives a thread").join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Interposition for a driver that lives in real time and calls into a core that must not: on only inside
/// [`Scope::within`]. Belongs to the thread that made it.
///
/// The core is made inside too, and counts from an `Instant::now()` of the inside: so str0m tells peers a time of day
/// that began at [`WALL`].
///
/// Outside, the thread must make no hash map with std's keys and use no `rand::rng()`: both count on in what they keep
/// for the thread. `fastrand` is kept apart.
#[derive(Debug)]
pub struct Scope {
    stream: Stream,
    /// The state of `fastrand` for the inside.
    fastrand: Cell<u64>,
    _of_this_thread: PhantomData<*const ()>,
}

impl Scope {
    /// Primes the present thread.
    ///
    /// # Errors
    /// As [`run`]; and if the thread has made a hash map before, so that its keys are not those of the seed.
    pub fn new(seed: [u8; 32]) -> Result<Scope, NotInterposed> {
        check()?;
        let wanted = fresh(seed, keys);
        let stream = Stream::new(seed);
        let scope = Scope { fastrand: Cell::new(stream.side_seed()), stream, _of_this_thread: PhantomData };
        if scope.within(keys) == wanted {
            Ok(scope)
        } else {
            let what =
                "the keys of this thread's hash maps (it made one before: a scope needs a fresh thread)";
            Err(NotInterposed::new(vec![what]))
        }
    }

    /// Runs `f` interposed. May be called again inside `f`; ends with `f`, also when that panics.
    pub fn within<T>(&self, f: impl FnOnce() -> T) -> T {
        if interpose::is_on(&self.stream) {
            return f();
        }
        struct Swapped<'a> {
            inside: &'a Cell<u64>,
            outside: u64,
        }
        impl Drop for Swapped<'_> {
            fn drop(&mut self) {
                self.inside.set(fastrand::get_seed());
                fastrand::seed(self.outside);
            }
        }
        let _swapped = Swapped { inside: &self.fastrand, outside: fastrand::get_seed() };
        fastrand::seed(self.fastrand.get());
        interpose::with(&self.stream, f)
    }
}

/// A number that follows from the thread's keys for hash maps.
fn keys() -> u64 {
    RandomState::new().hash_one(0u64)
}
