//! RTSP through manager, origin and edge (three processes) with clients that are not ours.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::browser::Browser;
use headwater_tests::interop::cluster::{Cluster, turn};
use headwater_tests::interop::ffmpeg::{Clip, Ffmpeg, Sound, probe};
use headwater_tests::interop::gstreamer::Pipeline;
use headwater_tests::interop::log::Mark;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(40);

/// What ffprobe sees at an address: codec names.
fn codecs(url: &str) -> Vec<String> {
    let seen = probe(url).unwrap_or_else(|e| panic!("{url}: {e}"));
    let streams = seen["streams"].as_array().expect("streams");
    let mut names: Vec<String> =
        streams.iter().filter_map(|s| s["codec_name"].as_str()).map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn ffmpeg_by_rtsp_is_seen_by_rtsp_rtmp_and_in_chromium_from_the_edge() {
    let _turn = turn();
    let cluster = Cluster::start();
    let browser = Browser::start();
    for (stream, transport) in [("live/tcp", "tcp"), ("live/udp", "udp")] {
        let clip = Clip { sound: Sound::Opus, gop: 50, ..Clip::default() };
        let mut publisher = Ffmpeg::publish_over(&cluster.publish_at(stream).rtsp, clip, transport);
        publisher.wait_more_frames(1, LONG);
        cluster.origin.wait_log(Mark::default(), LONG, &[stream, "publisher accepted"]);
        let place = cluster.play_at(stream);
        for transport in ["tcp", "udp"] {
            let mut player = Ffmpeg::play_rtsp(&place.rtsp, transport, 600);
            player.wait_more_frames(75, LONG);
            assert!(player.runs());
        }
        browser.open(&cluster.manager.url("/"));
        browser.eval(&format!("return await hw.whep('{transport}', '{}')", place.whep));
        browser.eval(&format!("await hw.moving('{transport}'); await hw.sounding('{transport}')"));
        let mut player = Ffmpeg::play(&place.rtmp);
        player.wait_more_frames(25, LONG);
        assert!(publisher.runs(), "{}", publisher.log.tail(20));
    }
}

#[test]
fn rtmp_publishers_are_played_by_rtsp_with_aac_and_b_frames_whole() {
    let _turn = turn();
    let cluster = Cluster::start();
    let clip = Clip { gop: 50, b_frames: 2, ..Clip::default() };
    let mut publisher = Ffmpeg::publish(&cluster.publish_at("live/b").rtmp, clip);
    publisher.wait_more_frames(1, LONG);
    let from = cluster.play_at("live/b").rtsp;
    assert_eq!(codecs(&from), ["aac", "h264"]);
    let mut player = Ffmpeg::play_rtsp(&from, "tcp", 3);
    assert!(player.wait_exit(LONG).success(), "{}", player.log.tail(20));
    let damage = player.log.tail(200);
    assert!(!damage.contains("error") && !damage.contains("concealing"), "{damage}");
    assert!(publisher.runs());
}

/// A publisher with B-frames by RTSP: coding order and times of showing survive, or RTMP's player would see jumps.
#[test]
fn b_frames_by_rtsp_keep_their_order() {
    let _turn = turn();
    let cluster = Cluster::start();
    let clip = Clip { gop: 50, b_frames: 2, ..Clip::default() };
    let mut publisher = Ffmpeg::publish(&cluster.publish_at("live/b").rtsp, clip);
    publisher.wait_more_frames(1, LONG);
    let place = cluster.play_at("live/b");
    let mut player = Ffmpeg::play(&place.rtmp);
    player.wait_more_frames(75, LONG);
    let said = player.log.tail(200);
    assert!(!said.contains("monoton") && !said.contains("error"), "{said}");
}

#[test]
fn gstreamer_publishes_and_plays_over_tcp_and_udp() {
    let _turn = turn();
    let cluster = Cluster::start();
    for transport in ["tcp", "udp"] {
        let stream = format!("live/gst-{transport}");
        let mut publisher = Pipeline::publish(&cluster.publish_at(&stream).rtsp, transport);
        let from = cluster.play_at(&stream).rtsp;
        assert_eq!(codecs(&from), ["aac", "h264"]);
        let mut player = Pipeline::play(&from, transport, None, (75, 100));
        let said = player.wait_end(LONG);
        assert!(!said.to_lowercase().contains("error"), "{said}");
        assert!(publisher.runs(), "{}", publisher.log.tail(30));
    }
}

#[test]
fn a_name_that_is_taken_and_a_stream_that_is_not_are_refused_in_words_that_ffmpeg_shows() {
    let _turn = turn();
    let cluster = Cluster::start();
    let to = cluster.publish_at("live/taken").rtsp;
    let mut first = Ffmpeg::publish(&to, Clip::default());
    first.wait_more_frames(10, LONG);
    cluster.origin.wait_log(Mark::default(), LONG, &["live/taken", "publisher accepted"]);
    let mut second = Ffmpeg::publish(&to, Clip::default());
    assert!(!second.wait_exit(LONG).success());
    let said = second.log.tail(40);
    assert!(said.contains("403") && said.contains("published by someone else"), "{said}");
    assert!(first.runs());
    let missing = probe(&to.replace("taken", "missing")).expect_err("nobody publishes it");
    assert!(missing.contains("404"), "{missing}");
}
