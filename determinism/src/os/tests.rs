//! The C functions, called as C would.

use super::*;
use std::ptr::null_mut;

const WALL_SECONDS: libc::time_t = 1_767_225_600;

fn clock(clock: libc::clockid_t) -> (i64, i64) {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place for a timespec.
    assert_eq!(unsafe { libc::clock_gettime(clock, &mut at) }, 0);
    (at.tv_sec, at.tv_nsec)
}

fn times() -> [(i64, i64); 2] {
    let mut day = libc::timeval { tv_sec: 0, tv_usec: 0 };
    // SAFETY: a place for a timeval, and null for the obsolete time zone.
    assert_eq!(unsafe { libc::gettimeofday(&mut day, null_mut()) }, 0);
    let mut second = 0;
    // SAFETY: a place for a time_t.
    assert_eq!(unsafe { libc::time(&mut second) }, second);
    // SAFETY: null is allowed.
    assert!((second..=second + 1).contains(&unsafe { libc::time(null_mut()) }));
    [(day.tv_sec, day.tv_usec), (second, 0)]
}

fn by_syscall() -> (i64, [u8; 8]) {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime with a place for a timespec.
    assert_eq!(unsafe { libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_REALTIME, &mut at) }, 0);
    let mut bytes = [0; 8];
    // SAFETY: getrandom with the pointer and the length of `bytes`.
    assert_eq!(unsafe { libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), bytes.len(), 0) }, 8);
    (at.tv_sec, bytes)
}

#[test]
fn every_clock_stands_still() {
    run([1; 32], || {
        for id in [libc::CLOCK_REALTIME, libc::CLOCK_REALTIME_COARSE, libc::CLOCK_TAI] {
            assert_eq!(clock(id), (WALL_SECONDS, 0));
        }
        for id in [
            libc::CLOCK_MONOTONIC,
            libc::CLOCK_MONOTONIC_RAW,
            libc::CLOCK_MONOTONIC_COARSE,
            libc::CLOCK_BOOTTIME,
            libc::CLOCK_PROCESS_CPUTIME_ID,
            libc::CLOCK_THREAD_CPUTIME_ID,
        ] {
            assert_eq!(clock(id), (3_600, 0));
        }
        assert_eq!(times(), [(WALL_SECONDS, 0); 2]);
        assert_eq!(by_syscall().0, WALL_SECONDS);
    })
    .unwrap();
}

#[test]
fn outside_calls_are_passed_on_with_their_errors() {
    let now = clock(libc::CLOCK_REALTIME).0;
    assert_ne!(now, WALL_SECONDS);
    for other in [times()[0].0, times()[1].0, by_syscall().0] {
        assert!((now..now + 60).contains(&other), "{other} is not about {now}");
    }
    assert_ne!(by_syscall().1, by_syscall().1);

    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place for a timespec; there is no such clock.
    assert_eq!(unsafe { libc::clock_gettime(9_999, &mut at) }, -1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINVAL));
    let mut byte = 0u8;
    // SAFETY: a place for a byte; the flags do not exist.
    assert_eq!(unsafe { libc::getrandom((&raw mut byte).cast(), 1, 0xffff) }, -1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINVAL));
    // SAFETY: refused before the pointer is looked at: 256 bytes are the most.
    assert_eq!(unsafe { libc::getentropy(null_mut(), 257) }, -1);
}

#[test]
fn other_system_calls_go_on_inside_with_all_their_arguments() {
    run([1; 32], || {
        // SAFETY: getpid has no arguments.
        assert_eq!(unsafe { libc::syscall(libc::SYS_getpid) }, i64::from(std::process::id()));
        let (none, offset) = (-1i64, 0i64);
        let (protection, flags) = (
            i64::from(libc::PROT_READ | libc::PROT_WRITE),
            i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
        );
        // SAFETY: mmap of a page wherever the kernel likes, which takes all six arguments.
        let page = unsafe { libc::syscall(libc::SYS_mmap, 0i64, 4_096i64, protection, flags, none, offset) };
        assert_ne!(page, -1);
        // SAFETY: the page is ours, and is not used after this.
        assert_eq!(unsafe { libc::munmap(page as *mut libc::c_void, 4_096) }, 0);
    })
    .unwrap();
}

#[test]
fn randomness_is_one_stream_however_it_is_asked_for() {
    let mut wanted = [0; 32];
    assert!(Stream::new([9; 32]).fill(&mut wanted));
    let got = run([9; 32], || {
        let mut got = [0u8; 32];
        let at = got.as_mut_ptr();
        // SAFETY: the first 8 of the 32 bytes.
        assert_eq!(unsafe { libc::getrandom(at.cast(), 8, 0) }, 8);
        // SAFETY: the 8 bytes after them.
        assert_eq!(unsafe { libc::getentropy(at.add(8).cast(), 8) }, 0);
        got[16..24].copy_from_slice(&by_syscall().1);
        getrandom::fill(&mut got[24..]).unwrap();
        got
    });
    assert_eq!(got.unwrap(), wanted);
}

#[test]
fn nothing_is_asked_of_an_empty_buffer() {
    run([1; 32], || {
        // SAFETY: no byte is written.
        assert_eq!(unsafe { libc::getrandom(null_mut(), 0, 0) }, 0);
        // SAFETY: refused before anything is written.
        assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, null_mut()) }, -1);
    })
    .unwrap();
}

/// RFC 8439, appendix A.1, test vector 1. Recordings hold a seed and live longer than a build: what follows from it must
/// not change.
#[test]
fn the_stream_of_a_seed_is_that_of_the_rfc() {
    let stream = Stream::new([0; 32]);
    let mut got = [0; 16];
    assert!(stream.fill(&mut got));
    assert_eq!(u128::from_be_bytes(got), 0x76b8_e0ad_a0f1_3d90_405d_6ae5_5386_bd28);
    assert_eq!(stream.side_seed(), 18_120_257_044_477_853_679);
}
