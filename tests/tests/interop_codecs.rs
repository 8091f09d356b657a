//! Codecs beyond H.264 and AAC, by real clients, through manager, origin and edge.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::browser::Browser;
use headwater_tests::interop::cluster::{Cluster, turn};
use headwater_tests::interop::ffmpeg::Ffmpeg;
use headwater_tests::interop::http;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn chromium_sends_vp8_vp9_and_av1_where_it_offers_no_h264_and_sees_them_from_the_edge() {
    let _turn = turn();
    let cluster = Cluster::start();
    let browser = Browser::start();
    browser.open(&cluster.manager.url("/"));
    for codec in ["VP8", "VP9", "AV1"] {
        let stream = format!("live/{}", codec.to_lowercase());
        let whip = cluster.publish_at(&stream).whip;
        browser.eval(&format!(
            "return await hw.whip('camera', '{whip}', {{codec: 'video/{codec}', only: true}})"
        ));
        let whep = cluster.play_at(&stream).whep;
        browser.eval(&format!("return await hw.whep('viewer', '{whep}')"));
        browser.eval("await hw.moving('viewer'); await hw.sounding('viewer')");
        let stats = browser.eval("return await hw.stats('viewer')");
        assert!(stats["codecs"].to_string().contains(&format!("video/{codec}")), "{stats}");
        // One who comes later starts at a key frame like one who was there from the start.
        browser.eval(&format!("return await hw.whep('late', '{whep}')"));
        browser.eval("await hw.moving('late')");
        let told = http::get(&cluster.manager.url("/api/v1/streams")).expect("the API answers").body;
        assert!(told.contains(&format!("\"{codec}\"")), "{told}");
        for name in ["late", "viewer", "camera"] {
            assert_eq!(browser.eval(&format!("return await hw.end('{name}')")), 200);
        }
    }
}

#[test]
fn ffmpeg_publishes_h265_av1_and_vp9_by_enhanced_rtmp_and_plays_them_from_the_edge() {
    let _turn = turn();
    let cluster = Cluster::start();
    for (name, encoder) in [
        ("hevc", "-c:v libx265 -preset ultrafast -x265-params log-level=error"),
        ("av1", "-c:v libsvtav1 -preset 12 -svtav1-params lp=1:pred-struct=1"),
        ("vp9", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"),
    ] {
        let stream = format!("live/{name}");
        let _publisher = Ffmpeg::publish_enhanced(&cluster.publish_at(&stream).rtmp, encoder);
        let rtmp = cluster.play_at(&stream).rtmp;
        let mut player = Ffmpeg::play_enhanced(&rtmp);
        player.wait_more_frames(50, LONG);
        let mut said = String::new();
        player.log.each(|line| said.push_str(line));
        assert!(said.contains(&format!("Video: {name}")) && said.contains("Audio: opus"), "{said}");
        // A player that does not say so is not sent what it may stall on: it gets H.264 of H.265 instead, and of the others
        // the log tells why it gets nothing.
        let from = cluster.edge.log.mark();
        let mut old = Ffmpeg::play(&rtmp);
        if name == "hevc" {
            old.wait_more_frames(25, LONG);
        } else {
            cluster.edge.wait_log(from, LONG, &["the player gets no pictures", "?video="]);
        }
    }
}

#[test]
fn mp3_is_heard_in_chromium_at_the_edge() {
    let _turn = turn();
    let cluster = Cluster::start();
    let to = cluster.publish_at("live/mp3").rtmp;
    let video = "-c:v libx264 -preset ultrafast -tune zerolatency -bf 0";
    let _publisher = Ffmpeg::publish_coded(&to, video, "-c:a libmp3lame -ar 44100 -ac 2 -b:a 96k");
    let browser = Browser::start();
    browser.open(&cluster.manager.url("/"));
    let whep = cluster.play_at("live/mp3").whep;
    browser.eval(&format!("return await hw.whep('viewer', '{whep}')"));
    browser.eval("await hw.moving('viewer'); await hw.sounding('viewer')");
    let told = http::get(&cluster.edge.url("/api/v1/streams")).expect("the API answers").body;
    assert!(told.contains(r#""from":"MP3""#) && told.contains(r#""to":"Opus""#), "{told}");
    assert_eq!(browser.eval("return await hw.end('viewer')"), 200);
}
