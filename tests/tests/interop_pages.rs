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

/// Waits until a page's own words on its state are these.
fn state_is(page: &Browser, wanted: &str) {
    wait::until(&format!("the page to say {wanted}"), LONG, || {
        let said = page.eval("return document.getElementById('state').textContent");
        if said.as_str().is_some_and(|s| s.contains(wanted)) { Ok(()) } else { Err(said.to_string()) }
    });
}

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
    state_is(&camera, "Live");
    viewer.visit(&cluster.manager.url("/watch/live/cam"));
    state_is(&viewer, "Live");
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

#[test]
fn a_watch_page_waits_for_a_publisher_that_left_and_goes_on_by_itself() {
    let _turn = turn();
    let cluster = Cluster::start();
    let viewer = Browser::start();
    let rtmp = cluster.publish_at("live/back").rtmp;
    viewer.visit(&cluster.manager.url("/watch/live/back"));
    state_is(&viewer, "Waiting for a publisher");
    let publisher = Ffmpeg::publish(&rtmp, Clip::default());
    state_is(&viewer, "Live");
    drop(publisher);
    state_is(&viewer, "The publisher is away");
    assert_eq!(viewer.eval("return document.getElementById('cover').hidden"), false);
    stream(&cluster, "live/back", |s| s["state"] == "held" && s["bitrate_kbps"] == 0);
    let _publisher = Ffmpeg::publish(&rtmp, Clip::default());
    state_is(&viewer, "Live");
    assert_eq!(viewer.eval("return document.getElementById('cover').hidden"), true);
}
