//! One media clock: sound and picture stay together from every publisher to every player while the clocks of publisher and
//! nodes differ and timestamps begin anew. `cargo sim clock` is the same over an hour.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::sim::clock::{APART, From, measure};
use std::time::Duration;

/// Three minutes, over the wrap of every counter of 32 bits. (The ten minutes of `world_rtsp` wrap those of 16 bits.)
fn together(from: From, ppm: i32) {
    let (seen, sent) = measure(1, from, ppm, Duration::from_secs(60), Duration::from_secs(180));
    assert_eq!(seen.len(), 4);
    for player in seen {
        assert!(player.apart <= APART, "{from} at {ppm} ppm: {player:?}");
        // They come a second and a half after the publisher, and begin with a key frame.
        assert!(
            player.missing == 0 && player.pictures as u64 + 75 >= sent && sent > 4_000,
            "{from} at {ppm} ppm: {player:?} of {sent}"
        );
    }
}

#[test]
fn from_rtmp_over_the_wrap_of_its_milliseconds() {
    together(From::Rtmp, 0);
}

#[test]
fn from_rtsp_over_the_wrap_of_90_khz_with_sound_that_runs_fast() {
    together(From::RtspUdp, 100);
}

#[test]
fn from_whip_over_the_wrap_of_90_khz_with_sound_that_runs_slow() {
    together(From::Whip, -100);
}
