//! Real publishers through manager, origin and edge (three processes) to real viewers.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::browser::Browser;
use headwater_tests::interop::cluster::{Cluster, turn};
use headwater_tests::interop::ffmpeg::{Clip, Ffmpeg, probe};
use headwater_tests::interop::wait;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

/// From the POST of the offer to the first picture, wherever in the group of pictures the viewer joins.
const FIRST_PICTURE_MS: f64 = 1000.0;

#[test]
fn ffmpeg_by_rtmp_is_seen_in_chromium_from_the_edge_within_a_second_of_joining() {
    let _turn = turn();
    let cluster = Cluster::start();
    let browser = Browser::start();
    let stream = "live/first-light";
    let clip = Clip::default();
    let mut publisher = Ffmpeg::publish(&cluster.publish_at(stream).rtmp, clip);
    publisher.wait_more_frames(1, LONG);
    let whep = cluster.play_at(stream).whep;
    // A page of the manager that plays from the edge: what a real site does, and what CORS is for.
    browser.open(&cluster.manager.url("/"));

    browser.eval(&format!("return await hw.whep('steady', '{whep}')"));
    browser.eval("await hw.moving('steady')");
    let mut joins = Vec::new();
    for round in 0..8 {
        // 37 pictures on in a group of 100: eight joins spread over the whole group, whatever its phase.
        browser.eval("await hw.showFrames('steady', 37)");
        let first = browser.eval(&format!("return await hw.whep('join{round}', '{whep}')"));
        browser.eval(&format!("await hw.showFrames('join{round}', 5)"));
        assert_eq!(browser.eval(&format!("return await hw.end('join{round}')")), 200);
        joins.push(first.as_f64().expect("milliseconds"));
    }
    let slowest = joins.iter().copied().fold(0.0, f64::max);
    assert!(slowest <= FIRST_PICTURE_MS, "milliseconds from the POST to the first picture: {joins:?}");
    browser.eval("await hw.moving('steady')");
    let stats = browser.eval("return await hw.stats('steady')");
    assert!(stats["codecs"].to_string().contains("video/H264"), "{stats}");

    // It publishes AAC; what is heard is made of it by the edge, once for all viewers.
    assert!(stats["codecs"].to_string().contains("audio/opus"), "{stats}");
    let tone = browser.eval("return await hw.tone('steady')");
    assert!((430.0..450.0).contains(&tone.as_f64().expect("a frequency")), "a tone of {tone} Hz, not 440");
    assert!(publisher.runs(), "{}", publisher.log.tail(20));
}

#[test]
fn chromium_by_whip_is_seen_and_heard_in_chromium_and_played_by_ffmpeg_from_the_edge() {
    let _turn = turn();
    let cluster = Cluster::start();
    let browser = Browser::start();
    let stream = "live/camera";
    browser.open(&cluster.manager.url("/"));
    let whip = cluster.publish_at(stream).whip;
    browser.eval(&format!("return await hw.whip('camera', '{whip}')"));
    let place = cluster.play_at(stream);
    browser.eval(&format!("return await hw.whep('viewer', '{}')", place.whep));
    browser.eval("await hw.moving('viewer'); await hw.sounding('viewer')");
    let stats = browser.eval("return await hw.stats('viewer')");
    let codecs = stats["codecs"].to_string();
    assert!(codecs.contains("video/H264") && codecs.contains("audio/opus"), "{stats}");

    let mut player = Ffmpeg::play(&place.rtmp);
    player.wait_more_frames(50, LONG);
    let seen = probe(&place.rtmp).expect("ffprobe reads the stream");
    assert_eq!(
        seen["streams"]
            .as_array()
            .and_then(|s| s.iter().find(|s| s["codec_type"] == "video"))
            .map(|s| s["codec_name"].clone()),
        Some("h264".into()),
        "{seen}"
    );

    // The same by HTTP-FLV.
    let flv = place.whep.replace("/whep/live/camera", "/flv/live/camera.flv");
    let seen_flv = probe(&flv).expect("ffprobe reads the stream by HTTP-FLV");
    let codecs = |seen: &serde_json::Value| -> Vec<String> {
        let all = seen["streams"].as_array().cloned().unwrap_or_default();
        all.iter().filter_map(|s| s["codec_name"].as_str().map(ToOwned::to_owned)).collect()
    };
    assert_eq!(codecs(&seen_flv), codecs(&seen), "{seen_flv}");

    // A player that knows no Opus hears AAC made of it.
    let sounds = seen["streams"].as_array().and_then(|s| s.iter().find(|s| s["codec_type"] == "audio"));
    assert_eq!(sounds.map(|s| s["codec_name"].clone()), Some("aac".into()), "{seen}");
    let loudest = Ffmpeg::loudest(&place.rtmp, 3).expect("ffmpeg decodes the sound");
    assert!(loudest > -40.0, "the microphone's beeps are {loudest} dB loud");

    // The publisher leaves: the name is free at once, and the same page can take it again while the viewer stays.
    assert_eq!(browser.eval("return await hw.end('camera')"), 200);
    let again = wait::until("the name to be free", LONG, || {
        browser.try_eval(&format!("return await hw.whip('again', '{whip}')"))
    });
    assert!(again.is_string(), "{again}");
    browser.eval("await hw.moving('viewer'); await hw.sounding('viewer')");
    let states = browser.eval("return hw.sessions.viewer.states");
    assert_eq!(states, serde_json::json!(["connecting", "connected"]), "the viewer stays connected");
}

#[test]
fn the_watch_page_plays_by_itself() {
    let _turn = turn();
    let cluster = Cluster::start();
    let browser = Browser::start();
    let stream = "live/page";
    let mut publisher = Ffmpeg::publish(&cluster.publish_at(stream).rtmp, Clip::default());
    publisher.wait_more_frames(1, LONG);
    cluster.play_at(stream);
    browser.visit(&cluster.manager.url("/watch/live/page"));
    let look = "const v = document.querySelector('video');
        return v ? {width: v.videoWidth, time: v.currentTime, text: document.body.innerText} : null";
    let first = wait::until("the page to show a picture", LONG, || {
        let now = browser.try_eval(look)?;
        if now["width"] == 320 && now["time"].as_f64() > Some(0.5) { Ok(now) } else { Err(now.to_string()) }
    });
    wait::until("the picture to go on", LONG, || {
        let now = browser.try_eval(look)?;
        wait::yes(now["time"].as_f64() > first["time"].as_f64().map(|t| t + 1.0), now.to_string())
    });
    // The publisher sends AAC, which no browser takes by WebRTC: the page offers the sound, and says where it is from.
    wait::until("the page to offer the sound and to say what it is made of", LONG, || {
        let text = browser.try_eval("return document.body.innerText.toLowerCase()")?;
        let text = text.as_str().unwrap_or_default().to_owned();
        if text.contains("opus, made of aac") { Ok(text) } else { Err(text) }
    });
}
