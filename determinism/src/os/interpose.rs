//! The C functions themselves (getrandom(2), getentropy(3), clock_gettime(2), gettimeofday(2), time(2), syscall(2)).
//!
//! They may be called at any moment of a thread's life, and from inside the allocator: so what they look at is one
//! pointer, thread-local, made by the linker, without destructor; and they neither allocate nor panic.

use super::{MONOTONIC, WALL};
use libc::{c_int, c_long, c_uint, c_void, clockid_t, size_t, ssize_t, time_t, timespec, timeval};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::mem::transmute;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

/// Whether interposition is built for this system.
pub(super) const BUILT: bool = true;

thread_local! {
    /// What the calling thread is interposed with; null outside.
    static ON: Cell<*const Stream> = const { Cell::new(null()) };
}

/// The randomness of one run: a ChaCha20 stream (RFC 8439, section 2.4).
pub(super) struct Stream {
    seed: [u8; 32],
    random: RefCell<ChaCha20Rng>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream(..)")
    }
}

impl Stream {
    pub(super) fn new(seed: [u8; 32]) -> Stream {
        Stream { seed, random: RefCell::new(ChaCha20Rng::from_seed(seed)) }
    }

    /// A number of the same seed that takes nothing from the stream.
    pub(super) fn side_seed(&self) -> u64 {
        let mut side = ChaCha20Rng::from_seed(self.seed);
        side.set_stream(1);
        side.next_u64()
    }

    /// Fills `out` with the next bytes of the stream. Fails only in a signal handler that interrupts another call.
    pub(super) fn fill(&self, out: &mut [u8]) -> bool {
        let random = self.random.try_borrow_mut();
        random.map(|mut random| random.fill_bytes(out)).is_ok()
    }
}

/// Runs `f` with the calling thread interposed, and puts back what was before, also when `f` panics.
pub(super) fn with<T>(stream: &Stream, f: impl FnOnce() -> T) -> T {
    struct Back(*const Stream);
    impl Drop for Back {
        fn drop(&mut self) {
            ON.set(self.0);
        }
    }
    let _back = Back(ON.replace(stream));
    f()
}

/// Whether the calling thread is interposed with this very stream.
pub(super) fn is_on(stream: &Stream) -> bool {
    std::ptr::eq(ON.get(), stream)
}

/// What of the C functions' callers would not arrive here. Inside [`with`] only, and it draws.
pub(super) fn unreached() -> Vec<&'static str> {
    let mut what = Vec::new();
    // SAFETY: the name is a C string, and looking up a symbol has no other requirement.
    let exported = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"getrandom".as_ptr()) };
    if exported != getrandom as *mut c_void {
        what.push("getrandom() for libraries that look it up by name (the executable does not export it)");
    }
    let mut ours = [0u8; 16];
    // SAFETY: the pointer and the length are those of `ours`.
    let got = unsafe { libc::getentropy(ours.as_mut_ptr().cast(), ours.len()) };
    let mut next = [0u8; 16];
    // SAFETY: as above, with `next`.
    let called = unsafe { libc::syscall(libc::SYS_getrandom, next.as_mut_ptr(), next.len(), 0) };
    let expected = ON.with(|on| {
        // SAFETY: `with` sets the pointer from a reference that outlives its closure, in which we are.
        let stream = unsafe { on.get().as_ref() }?;
        let mut all = [0u8; 32];
        ChaCha20Rng::from_seed(stream.seed).fill_bytes(&mut all);
        Some(all)
    });
    if got != 0 || expected.is_none_or(|e| e[..16] != ours) {
        what.push("getentropy()");
    }
    if called != 16 || expected.is_none_or(|e| e[16..] != next) {
        what.push("the system call getrandom");
    }
    let mut day = timeval { tv_sec: 0, tv_usec: 0 };
    // SAFETY: a place for a timeval, and null for the obsolete time zone.
    let got = unsafe { libc::gettimeofday(&mut day, null_mut()) };
    let wall = WALL.as_secs() as time_t;
    if got != 0 || (day.tv_sec, day.tv_usec) != (wall, 0) {
        what.push("gettimeofday()");
    }
    // SAFETY: null is allowed.
    if unsafe { libc::time(null_mut()) } != wall {
        what.push("time()");
    }
    what
}

/// Fills `len` bytes at `buf` if the calling thread is interposed, and says whether it has.
///
/// # Safety
/// `buf` is valid for writes of `len` bytes, unless `len` is 0.
unsafe fn fill(buf: *mut c_void, len: usize) -> bool {
    // SAFETY: `with` sets the pointer from a reference that outlives its closure, and takes it back at the end.
    let Some(stream) = (unsafe { ON.get().as_ref() }) else { return false };
    if len > 0 {
        // SAFETY: valid for writes of `len` bytes, says the caller. The zeros make it initialised.
        let out = unsafe {
            buf.write_bytes(0, len);
            std::slice::from_raw_parts_mut(buf.cast::<u8>(), len)
        };
        return stream.fill(out);
    }
    true
}

/// What a clock says to the calling thread if that is interposed.
fn stopped(clock: clockid_t) -> Option<timespec> {
    if ON.get().is_null() {
        return None;
    }
    let at = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE | libc::CLOCK_REALTIME_ALARM | libc::CLOCK_TAI => {
            WALL
        }
        _ => MONOTONIC,
    };
    Some(timespec { tv_sec: at.as_secs() as time_t, tv_nsec: c_long::from(at.subsec_nanos()) })
}

fn fail(errno: c_int) -> c_int {
    // SAFETY: the C library gives each thread a valid place for its error number.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// The function of this name that comes after ours, looked up once.
fn next(known: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    let at = known.load(Ordering::Relaxed);
    if !at.is_null() {
        return at;
    }
    // SAFETY: the name is a C string, and looking up a symbol has no other requirement.
    let at = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    known.store(at, Ordering::Relaxed);
    at
}

/// Passes a call on to the C library's function of the same name.
macro_rules! pass_on {
    ($name:ident($($arg:expr),*) as $type:ty) => {{
        static NEXT: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
        let at = next(&NEXT, const { match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
            Ok(name) => name,
            Err(_) => panic!(),
        } });
        if at.is_null() {
            fail(libc::ENOSYS) as _
        } else {
            // SAFETY: the symbol of this name in the C library is a function of this type. Its requirements are those
            // of our function, which our caller keeps.
            unsafe { transmute::<*mut c_void, $type>(at)($($arg),*) }
        }
    }};
}

/// getrandom(2).
///
/// # Safety
/// `buf` is valid for writes of `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buf: *mut c_void, len: size_t, flags: c_uint) -> ssize_t {
    // SAFETY: the caller keeps the requirement of `fill`, which is ours.
    if unsafe { fill(buf, len) } {
        return len as ssize_t;
    }
    pass_on!(getrandom(buf, len, flags) as unsafe extern "C" fn(*mut c_void, size_t, c_uint) -> ssize_t)
}

/// getentropy(3).
///
/// # Safety
/// `buf` is valid for writes of `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getentropy(buf: *mut c_void, len: size_t) -> c_int {
    // SAFETY: the caller keeps the requirement of `fill`, which is ours.
    if unsafe { fill(buf, len) } {
        return 0;
    }
    pass_on!(getentropy(buf, len) as unsafe extern "C" fn(*mut c_void, size_t) -> c_int)
}

/// clock_gettime(2).
///
/// # Safety
/// `at` is valid for a write, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: clockid_t, at: *mut timespec) -> c_int {
    if let Some(now) = stopped(clock) {
        if at.is_null() {
            return fail(libc::EFAULT);
        }
        // SAFETY: not null, so valid for a write, says the caller.
        unsafe { at.write(now) };
        return 0;
    }
    pass_on!(clock_gettime(clock, at) as unsafe extern "C" fn(clockid_t, *mut timespec) -> c_int)
}

/// gettimeofday(2). The time zone is not written: it is obsolete.
///
/// # Safety
/// `at` is valid for a write, or null; so is `zone`.
#[unsafe(no_mangle)]
unsafe extern "C" fn gettimeofday(at: *mut timeval, zone: *mut c_void) -> c_int {
    if let Some(now) = stopped(libc::CLOCK_REALTIME) {
        if !at.is_null() {
            // SAFETY: not null, so valid for a write, says the caller.
            unsafe { at.write(timeval { tv_sec: now.tv_sec, tv_usec: now.tv_nsec / 1_000 }) };
        }
        return 0;
    }
    pass_on!(gettimeofday(at, zone) as unsafe extern "C" fn(*mut timeval, *mut c_void) -> c_int)
}

/// time(2).
///
/// # Safety
/// `at` is valid for a write, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn time(at: *mut time_t) -> time_t {
    if let Some(now) = stopped(libc::CLOCK_REALTIME) {
        if !at.is_null() {
            // SAFETY: not null, so valid for a write, says the caller.
            unsafe { at.write(now.tv_sec) };
        }
        return now.tv_sec;
    }
    pass_on!(time(at) as unsafe extern "C" fn(*mut time_t) -> time_t)
}

/// syscall(2). In C it takes as many arguments as the system call has. On the architectures that this is built for such
/// a call looks like one with all six, of which the last ones hold what happens to stand there, and are not looked at.
///
/// # Safety
/// What the system call of that number requires.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    // Most calls here wait or wake: they must not lose a moment.
    if !ON.get().is_null() {
        match number {
            libc::SYS_getrandom => {
                // SAFETY: the caller keeps the requirements of the system call, which are those of our function.
                return unsafe { getrandom(a as *mut c_void, b as size_t, c as c_uint) } as c_long;
            }
            libc::SYS_clock_gettime => {
                // SAFETY: as above.
                return c_long::from(unsafe { clock_gettime(a as clockid_t, b as *mut timespec) });
            }
            libc::SYS_gettimeofday => {
                // SAFETY: as above.
                return c_long::from(unsafe { gettimeofday(a as *mut timeval, b as *mut c_void) });
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_time => {
                // SAFETY: as above.
                return unsafe { time(a as *mut time_t) };
            }
            _ => {}
        }
    }
    type Syscall = unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;
    pass_on!(syscall(number, a, b, c, d, e, f) as Syscall)
}
