//! Real x264 with B-frames, published by RTMP, watched in Chromium by WHEP: what is seen is in order and undamaged, or
//! it is said why there is nothing to see.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::browser::Browser;
use headwater_tests::interop::cluster::{Cluster, turn};
use headwater_tests::interop::ffmpeg::{Clip, Ffmpeg};
use headwater_tests::interop::http;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

/// 25 numbered pictures a second, three B-frames in a row at most, as ffmpeg and OBS publish.
const CLIP: Clip = Clip {
    fps: 25,
    gop: 50,
    b_frames: 3,
    sound: headwater_tests::interop::ffmpeg::Sound::Aac,
    heavy: false,
    seconds: 0,
    numbered: Some(0),
    x264: "-preset veryfast",
};

/// Reads so many pictures of a viewer: their numbers, which must rise, and the milliseconds that they took.
fn rising(browser: &Browser, viewer: &str, pictures: usize) -> (Vec<u64>, f64) {
    browser.eval(&format!("hw.numbers('{viewer}')"));
    browser.eval(&format!(
        "await hw.until('{pictures} pictures', 30000, () => hw.numbers('{viewer}').length >= {pictures})"
    ));
    let seen = browser.eval(&format!("return hw.numbers('{viewer}')"));
    let seen: Vec<(u64, f64)> = serde_json::from_value(seen).expect("numbers and times");
    let numbers: Vec<u64> = seen.iter().map(|(n, _)| *n).collect();
    assert!(numbers.is_sorted(), "pictures jump: {numbers:?}");
    let most = CLIP.fps as u64 * 60;
    assert!(numbers.iter().all(|n| *n < most), "a picture is damaged: {numbers:?}");
    (numbers, seen.last().map_or(0.0, |l| l.1) - seen.first().map_or(0.0, |f| f.1))
}

#[test]
fn b_frames_that_nothing_refers_to_are_left_out_for_browsers_and_the_rest_is_smooth() {
    let _turn = turn();
    let cluster = Cluster::start();
    let browser = Browser::start();
    let stream = "live/plain-b";
    let from = cluster.origin.log.mark();
    let clip = Clip { x264: "-preset veryfast -x264-params b-pyramid=none:b-adapt=0", ..CLIP };
    let mut publisher = Ffmpeg::publish(&cluster.publish_at(stream).rtmp, clip);
    publisher.wait_more_frames(10, LONG);
    cluster.origin.wait_log(from, LONG, &["b_frames", "-bf 0"]);
    let place = cluster.play_at(stream);
    browser.open(&cluster.manager.url("/"));
    browser.eval(&format!("return await hw.whep('viewer', '{}')", place.whep));
    let (numbers, _) = rising(&browser, "viewer", 40);
    // One picture in four is left: 0 (key frame), 4, 8 …, all of which are shown.
    let steps: Vec<u64> = numbers.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(steps.iter().all(|s| *s <= 4), "pictures are missing: {numbers:?}");
    let stats = browser.eval("return await hw.stats('viewer')");
    assert!(stats["pliCount"].as_u64() <= Some(1), "{stats}");
    let metrics = http::get(&cluster.edge.url("/metrics")).expect("metrics").body;
    assert!(metrics.lines().any(|l| l.contains("b_frame")), "left out, and not counted:\n{metrics}");
    // A player by RTMP gets every picture.
    let mut player = Ffmpeg::play(&place.rtmp);
    player.wait_more_frames(60, LONG);
    assert!(publisher.runs(), "{}", publisher.log.tail(20));
}
