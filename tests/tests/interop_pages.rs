//! The pages of a real cluster in a real browser: publish, home and watch, as people use them.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::browser::Browser;
use headwater_tests::interop::cluster::{Cluster, turn};
use headwater_tests::interop::ffmpeg::{Clip, Ffmpeg};
use headwater_tests::interop::{http, wait};
use serde_json::Value;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// What the manager knows of a stream, once `good` likes it.
fn stream(cluster: &Cluster, key: &str, good: impl Fn(&Value) -> bool) -> Value {
    let url = cluster.manager.url("/api/v1/streams");
    wait::until(&format!("the manager to tell of {key}"), LONG, || {
        let all = http::get(&url)?.ok_json()?;
        let found = all["streams"].as_array().and_then(|l| l.iter().find(|s| s["key"] == key)).cloned();
        found.filter(&good).ok_or_else(|| all.to_string())
    })
}

#[test]
fn a_camera_on_the_publish_page_is_watched_and_the_manager_counts_its_viewer() {
    let _turn = turn();
    let cluster = Cluster::start();
    let (camera, viewer) = (Browser::start(), Browser::start());
    camera.visit(&cluster.manager.url("/publish/live/cam?source=camera&start"));
    camera.wait_state("Live");
    viewer.visit(&cluster.manager.url("/watch/live/cam"));
    viewer.wait_state("Live");
    let known = stream(&cluster, "live/cam", |s| s["viewers"] == 1 && s["bitrate_kbps"] != 0);
    assert_eq!((known["source"].as_str(), known["state"].as_str()), (Some("whip"), Some("live")), "{known}");
    let tracks = known["tracks"].to_string();
    assert!(tracks.contains("H.264") && tracks.contains("width") && tracks.contains("Opus"), "{known}");

    // The home page in the viewer's place: the stream is shown, and nobody watches any more.
    viewer.visit(&cluster.manager.url("/"));
    stream(&cluster, "live/cam", |s| s["viewers"] == 0);
    wait::until("the home page's card", LONG, || {
        let text = viewer.eval("return document.getElementById('streams').innerText");
        let text = text.as_str().unwrap_or_default();
        if text.contains("live/cam") && text.contains("0 viewers") && !text.contains("0 kbit/s") {
            Ok(())
        } else {
            Err(text.to_owned())
        }
    });
    let line = viewer.eval("return document.getElementById('ffmpeg').textContent");
    let wanted = cluster.publish_at("live/mine").rtmp.replace(":1935/", "/");
    assert!(line.as_str().is_some_and(|l| l.ends_with(&wanted)), "{line} does not end with {wanted}");
}

/// Waits until the page shows more pictures than before, coded as its numbers say, in one of these widths.
fn shows(page: &Browser, codec: &str, widths: &[u64]) -> u64 {
    const SEEN: &str = "const v = document.getElementById('video');
        return [v.getVideoPlaybackQuality().totalVideoFrames, v.videoWidth, document.getElementById('stats').innerText,
            document.getElementById('state').textContent, document.getElementById('cover').hidden]";
    let mut before = None;
    wait::until(&format!("the page to show pictures of {codec}"), LONG, || {
        let seen = page.eval(SEEN);
        let (count, width) = (seen[0].as_u64().unwrap_or_default(), seen[1].as_u64().unwrap_or_default());
        let good =
            seen[2].as_str().is_some_and(|s| s.contains(codec)) && seen[4] == true && widths.contains(&width);
        let more = count > *before.get_or_insert(count) + 2;
        if good && more { Ok(width) } else { Err(seen.to_string()) }
    })
}

/// Remembers each thing that a page says of its state from now on.
fn remember(page: &Browser) {
    page.eval(
        "window.said = []; const state = document.getElementById('state');
         new MutationObserver(() => said.push(state.textContent)).observe(state, { childList: true, characterData: true, subtree: true });",
    );
}

#[test]
fn a_watch_page_goes_on_where_its_publisher_comes_back_with_another_codec() {
    let _turn = turn();
    let cluster = Cluster::start();
    let viewer = Browser::start();
    let rtmp = cluster.publish_at("live/other").rtmp;
    let publisher = Ffmpeg::publish(&rtmp, Clip::default());
    viewer.visit(&cluster.manager.url("/watch/live/other"));
    shows(&viewer, "H.264", &[320]);
    drop(publisher);
    for (codec, encoder) in [
        ("VP9", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"),
        ("AV1", "-c:v libsvtav1 -preset 12 -svtav1-params lp=1:pred-struct=1"),
        ("H.264", "-c:v libx264 -preset ultrafast -tune zerolatency -bf 0"),
    ] {
        viewer.wait_state("The publisher is away");
        remember(&viewer);
        let _publisher = Ffmpeg::publish_enhanced(&rtmp, encoder);
        shows(&viewer, codec, &[320]);
        let said = viewer.eval("return said").to_string();
        assert!(!said.contains("rror") && !said.contains("refused"), "{said}");
    }
}

#[test]
fn a_watch_page_shows_pictures_of_another_size_without_a_new_session() {
    let _turn = turn();
    let cluster = Cluster::start();
    let viewer = Browser::start();
    let files = std::env::temp_dir().join(format!("headwater-sizes-{}", std::process::id()));
    std::fs::create_dir_all(&files).expect("a directory for temporary files");
    let to = format!("-f flv {}", cluster.publish_at("live/sizes").rtmp);
    let video = "-c:v libx264 -preset ultrafast -tune zerolatency -bf 0 -g 25 -b:v 400k";
    let sizes = ["320:180", "480:272"];
    let made = Ffmpeg::publish_sizes(video, "-c:a aac -b:a 64k", &sizes, (3, 30), &files, &to);
    let publisher = made.expect("ffmpeg makes pictures of two sizes");
    viewer.visit(&cluster.manager.url("/watch/live/sizes"));
    let first = shows(&viewer, "H.264", &[320, 480]);
    remember(&viewer);
    let other = if first == 320 { 480 } else { 320 };
    for width in [other, first] {
        shows(&viewer, "H.264", &[width]);
        // The frame of the picture on the page has its shape.
        let shape = viewer.eval("return document.getElementById('screen').style.aspectRatio");
        let height = if width == 320 { 180 } else { 272 };
        assert_eq!(shape, format!("{width} / {height}"));
    }
    let other_than_live = viewer.eval("return said.filter(s => s !== 'Live')");
    assert_eq!(other_than_live, serde_json::json!([]), "it was live all the time");
    let sessions = http::get(&cluster.edge.url("/api/v1/sessions")).expect("the API answers").body;
    assert_eq!(sessions.matches("\"whep\"").count(), 1, "one session: {sessions}");
    drop(publisher);
    drop(std::fs::remove_dir_all(&files));
}

#[test]
fn a_watch_page_waits_for_a_publisher_that_left_and_goes_on_by_itself() {
    let _turn = turn();
    let cluster = Cluster::start();
    let viewer = Browser::start();
    let rtmp = cluster.publish_at("live/back").rtmp;
    viewer.visit(&cluster.manager.url("/watch/live/back"));
    viewer.wait_state("Waiting for a publisher");
    let publisher = Ffmpeg::publish(&rtmp, Clip::default());
    viewer.wait_state("Live");
    drop(publisher);
    viewer.wait_state("The publisher is away");
    assert_eq!(viewer.eval("return document.getElementById('cover').hidden"), false);
    stream(&cluster, "live/back", |s| s["state"] == "held" && s["bitrate_kbps"] == 0);
    let _publisher = Ffmpeg::publish(&rtmp, Clip::default());
    viewer.wait_state("Live");
    assert_eq!(viewer.eval("return document.getElementById('cover').hidden"), true);
}
