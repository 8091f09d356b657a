//! Newcomers, in virtual time: the cached group of pictures comes as fast as their link carries it, and not faster.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::world::actors::publisher::PublisherConfig;
use headwater_tests::world::actors::webrtc::WhepConfig;
use headwater_tests::world::link::{Conditions, Direction};
use headwater_tests::world::scenario::*;
use headwater_tests::world::{ClientId, World};

/// Of a stream of 2 Mbit/s with ten seconds between key frames some two megabytes wait for whoever joins late in such a group.
/// Over 20 Mbit/s with a queue that holds a fifth of that, all come, and within two seconds it sees what happens now.
#[test]
fn a_long_group_of_pictures_comes_whole_over_a_link_that_is_slower_than_the_node() {
    replayed_seeds("0..3", late);
}

fn late(w: &mut World) {
    let c = Cluster::new(w);
    let config =
        PublisherConfig { gop: 250, key_bytes: 60_000, delta_bytes: 9_500, ..PublisherConfig::default() };
    let p = w.publish_with(c.o1, STREAM, config);
    ready(w, p, 5_000);
    for at in [c.o1, c.e1] {
        // Late in a group of pictures.
        w.until("the next key frame is near", ms(10_000), |w| pictures(w, p) % 250 == 220);
        let v = w.play_webrtc(at, STREAM, WhepConfig { strict: true, ..WhepConfig::default() });
        let link =
            Conditions { latency: ms(10), rate: Some(20_000_000), queue: 400 << 10, ..Conditions::default() };
        w.degrade_one_way(v, Direction::Down, link);
        until_sees(w, v, session(w, p), 2_000);
        let first = w.now();
        w.run(ms(2_000));
        let seen: Vec<u64> = w.whep(v).seen.iter().filter(|s| s.picture).map(|s| s.seq).collect();
        assert!(seen.len() > 200, "{} pictures at {at:?}", seen.len());
        assert!(seen.windows(2).all(|p| p[1] == p[0] + 1), "pictures are missing at {at:?}");
        let behind = pictures(w, p) - seen.last().copied().unwrap_or_default();
        assert!(
            behind <= 3,
            "two seconds after its first picture ({first:?}) it is {behind} pictures behind"
        );
        w.with_whep(v, |v, now| v.leave(now));
    }
}

/// How many pictures a publisher has sent.
fn pictures(w: &World, publisher: ClientId) -> u64 {
    w.publisher(publisher).sent.iter().map(|s| s.pictures).sum()
}
