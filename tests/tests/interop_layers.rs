//! Renditions with real clients: a browser that publishes in three sizes, and browsers that watch.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::browser::Browser;
use headwater_tests::interop::cluster::{Cluster, turn};
use headwater_tests::interop::{http, wait};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Waits until a node tells of so many tracks of pictures of a stream, and answers their sizes, the smallest first.
fn sizes(url: &str, key: &str, count: usize) -> Vec<(u64, u64)> {
    wait::until(&format!("{count} renditions of {key}"), LONG, || {
        let all = http::get(url)?.ok_json()?;
        let found = all["streams"].as_array().and_then(|l| l.iter().find(|s| s["key"] == key));
        let tracks = found.and_then(|s| s["tracks"].as_array()).cloned().unwrap_or_default();
        let size = |t: &serde_json::Value| Some((t["width"].as_u64()?, t["height"].as_u64()?));
        let mut sizes: Vec<_> = tracks.iter().filter_map(size).collect();
        sizes.sort_unstable();
        if sizes.len() == count { Ok(sizes) } else { Err(all.to_string()) }
    })
}

fn width_is(page: &Browser, wanted: u64) {
    wait::until(&format!("a picture {wanted} wide"), LONG, || {
        let width = page.eval("return document.getElementById('video').videoWidth");
        if width == wanted { Ok(()) } else { Err(width.to_string()) }
    });
}

#[test]
fn a_browser_publishes_in_three_sizes_and_another_sees_the_largest() {
    let _turn = turn();
    let cluster = Cluster::start();
    let (publisher, viewer) = (Browser::start(), Browser::start());
    publisher.visit(&cluster.manager.url("/publish/live/layers?source=test&simulcast=1&start"));
    let url = cluster.manager.url("/api/v1/streams");
    assert_eq!(sizes(&url, "live/layers", 3), [(320, 180), (640, 360), (1280, 720)]);
    viewer.visit(&cluster.manager.url("/watch/live/layers"));
    width_is(&viewer, 1280);
}
