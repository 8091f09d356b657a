//! What the fan-out to WebRTC viewers allocates: nothing per packet in the steady state, and a bounded number of bytes a
//! viewer.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]

use determinism::os::count::{Count, Counting, count};
use headwater_tests::fanout::{FanOut, PICTURE};
use proto_core::media::frame::FrameKind;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that a viewer may hold in endpoint and hub. What the C library of the ciphers takes is not counted.
const BYTES_A_VIEWER: i64 = 11 << 10;

fn between(before: Count, after: Count) -> Count {
    let (allocations, live) = (after.allocations - before.allocations, after.live - before.live);
    Count { allocations, live, ..after }
}

/// Allocations of two seconds of the stream once it has run for five, frames, and packets.
fn steady(viewers: usize) -> (u64, u64, u64) {
    let mut w = FanOut::start();
    w.frame(FrameKind::Key, PICTURE);
    for _ in 0..viewers {
        w.join();
    }
    w.play(150);
    let (before, frames, packets) = (count(), w.frames, w.packets);
    w.play(60);
    (between(before, count()).allocations, w.frames - frames, w.packets - packets)
}

#[test]
fn nothing_is_allocated_for_a_packet() {
    let (few, frames, few_packets) = steady(2);
    let (many, _, many_packets) = steady(12);
    assert!(many_packets > few_packets + 10 * 60 * 9, "{many_packets} {few_packets}");
    // What is made once for all viewers: the frame and its payloads.
    assert!(few < frames * 12, "{few} allocations for {frames} frames");
    // What ten viewers more cost, whatever is sent to them: their numbers every five seconds.
    let more = many.saturating_sub(few);
    assert!(more <= 40, "{more} allocations more for {} packets more", many_packets - few_packets);
}

#[test]
fn a_viewer_holds_no_more_than_its_share() {
    let mut w = FanOut::start();
    w.frame(FrameKind::Key, PICTURE);
    // So many that the batches, which all share, have their full size.
    for _ in 0..24 {
        w.join();
    }
    w.play(150);
    let before = count();
    for _ in 0..20 {
        w.join();
    }
    w.play(150);
    let each = between(before, count()).live / 20;
    assert!((1_000..BYTES_A_VIEWER).contains(&each), "{each} bytes a viewer");
}
