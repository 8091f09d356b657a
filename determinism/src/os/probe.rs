//! Whether interposition works in this process: it rests on how the program was linked, and on the libraries not having
//! read the clock before.

use super::interpose::{self, Stream};
use super::{NotInterposed, WALL, fresh, keys};
use crate::crypto;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

/// The seed of all that is tried here. What comes of it is thrown away.
const SEED: [u8; 32] = [0x5a; 32];

/// Tries once in a process.
pub(super) fn once() -> Result<(), NotInterposed> {
    static TRIED: OnceLock<Result<(), NotInterposed>> = OnceLock::new();
    TRIED.get_or_init(tried).clone()
}

fn tried() -> Result<(), NotInterposed> {
    if !interpose::BUILT {
        let what = "anything (it is built for Linux with the GNU C library on x86-64 and 64-bit ARM only)";
        return Err(NotInterposed::new(vec![what]));
    }
    let mut what = fresh(SEED, interpose::unreached);
    if !fresh(SEED, getrandom_crate) {
        what.push("the crate getrandom");
    }
    if fresh(SEED, keys) != fresh(SEED, keys) {
        what.push("the keys of std's hash maps");
    }
    what.extend(clocks());
    if what.is_empty() {
        what.extend(fresh(SEED, libraries));
    }
    if what.is_empty() { Ok(()) } else { Err(NotInterposed::new(what)) }
}

fn getrandom_crate() -> bool {
    let (mut got, mut wanted) = ([0; 32], [0; 32]);
    Stream::new(SEED).fill(&mut wanted) && getrandom::fill(&mut got).is_ok() && got == wanted
}

fn clocks() -> Vec<&'static str> {
    let mut what = Vec::new();
    let first = fresh(SEED, Instant::now);
    // On a thread of its own, for this one may itself be inside a run.
    let real = std::thread::scope(|s| s.spawn(Instant::now).join());
    let second = fresh(SEED, Instant::now);
    if first != second || real.is_ok_and(|real| real == first) {
        what.push("Instant::now()");
    }
    if fresh(SEED, SystemTime::now) != SystemTime::UNIX_EPOCH + WALL {
        what.push("SystemTime::now()");
    }
    what
}

/// What libraries remember of the clock while the process lives: makes them remember ours, and sees that they do.
fn libraries() -> Vec<&'static str> {
    let now = Instant::now();
    let mut what = Vec::new();
    match crypto::far_future(now) {
        Ok(far) if far == now + Duration::from_secs(60 * 60 * 24 * 365 * 100) => {}
        _ => what.push("the clock that str0m remembers (WebRTC was used in this process before, outside)"),
    }
    match crypto::hello_time(now) {
        Ok(at) if at == WALL => {}
        _ => what.push("the clock that dimpl remembers (DTLS was used in this process before, outside)"),
    }
    what
}
