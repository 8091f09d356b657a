//! Streams between clusters: sources that are pulled from another server and destinations that are pushed to, while that
//! server refuses, dies, falls silent and comes back. The other server is a node of another cluster.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::world::actors::publisher::PublisherConfig;
use headwater_tests::world::{ClientId, HostId, World};
use proto_core::node::config::remotes::{Carries, Destination, RemoteUrl, Source, When};
use proto_core::node::config::{Config, Role};
use std::time::Duration;

const STREAM: &str = "live/one";
const ALL: [Role; 3] = [Role::Manager, Role::Origin, Role::Edge];

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Runs a test with several seeds. `WORLD_SEEDS=from..to` chooses others; a failure names its seed.
fn seeds(test: impl Fn(&mut World)) {
    let chosen = std::env::var("WORLD_SEEDS").unwrap_or_else(|_| "0..2".to_owned());
    let (from, to) = chosen.split_once("..").expect("WORLD_SEEDS is from..to");
    let number = |s: &str| s.parse::<u64>().expect("a seed is a number");
    for seed in number(from)..number(to) {
        test(&mut World::new(seed));
    }
}

fn source(url: &str, when: When) -> Source {
    Source { stream: STREAM.to_owned(), url: RemoteUrl(url.to_owned()), when, transport: Carries::Auto }
}

fn pulls(url: &str, when: When) -> impl Fn(&mut Config) {
    let source = source(url, when);
    move |config| config.sources = vec![source.clone()]
}

fn pushes(stream: &str, url: &str) -> impl Fn(&mut Config) {
    let destination =
        Destination { stream: stream.to_owned(), url: RemoteUrl(url.to_owned()), transport: Carries::Auto };
    move |config| config.destinations = vec![destination.clone()]
}

/// A camera: a cluster of its own, whose term is another than that of those which start later. Its address is 10.0.0.1.
fn camera(w: &mut World) -> (HostId, ClientId) {
    let camera = w.host("camera", &ALL, None);
    w.name("camera.example", camera);
    w.run(ms(2_500));
    let again = Some(ms(500));
    let publisher = w.publish_with(camera, STREAM, PublisherConfig { again, ..PublisherConfig::default() });
    w.until("the camera has pictures", ms(5_000), |w| w.publisher(publisher).is_ready());
    (camera, publisher)
}

fn sees(w: &mut World, viewer: ClientId, what: &str, within: u64) {
    let before = w.player(viewer).last_picture().map(|s| s.at);
    w.until(what, ms(within), |w| w.player(viewer).last_picture().map(|s| s.at) > before);
}

/// The row of a source or destination as the API tells it.
fn row(w: &mut World, at: HostId, list: &str) -> serde_json::Value {
    let (status, text) = w.get(at, &format!("/api/v1/{list}")).expect("an answer");
    assert_eq!(status, 200, "{text}");
    let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    all[list][0].clone()
}

#[test]
fn a_source_on_demand_is_pulled_while_somebody_watches() {
    for url in ["rtsp://10.0.0.1:8554/live/one", "rtmp://camera.example/live/one"] {
        seeds(|w| {
            let (camera, _) = camera(w);
            let node = w.host_with("node", &ALL, None, pulls(url, When::Demand));
            w.run(ms(5_000));
            assert_eq!(row(w, node, "sources")["state"], "idle");
            let viewer = w.play(node, STREAM);
            sees(w, viewer, "the camera's pictures", 5_000);
            assert_eq!(row(w, node, "sources")["state"], "working");
            assert_eq!(row(w, camera, "streams")["viewers"], 1);
            // A second viewer is another viewer of the same pull.
            let second = w.play(node, STREAM);
            sees(w, second, "the same pictures", 3_000);
            assert_eq!(row(w, camera, "streams")["viewers"], 1);
            w.with_player(viewer, |p| p.leave());
            w.with_player(second, |p| p.leave());
            w.run(ms(14_000));
            assert_eq!(row(w, node, "sources")["state"], "idle");
            assert_eq!(row(w, camera, "streams")["viewers"], 0);
            let third = w.play(node, STREAM);
            sees(w, third, "pictures once more", 5_000);
            assert!(w.expect_drained());
        });
    }
}

#[test]
fn a_camera_that_dies_and_comes_back_is_a_pause_for_viewers() {
    for url in ["rtsp://10.0.0.1:8554/live/one", "rtmp://10.0.0.1/live/one"] {
        seeds(|w| {
            let (camera, _) = camera(w);
            let node = w.host_with("node", &ALL, None, pulls(url, When::Always));
            w.run(ms(5_000));
            assert_eq!(row(w, node, "sources")["state"], "working");
            let viewer = w.play(node, STREAM);
            sees(w, viewer, "the camera's pictures", 3_000);
            w.crash(camera);
            w.run(ms(8_000));
            let now = row(w, node, "sources");
            assert!(now["state"] != "working" && now["reason"] != "", "{now}");
            w.start(camera);
            // Its publisher is back within 5 s, and the wait is 8 s at most by now.
            sees(w, viewer, "the camera's pictures again", 15_000);
            assert_eq!(w.player(viewer).ended.as_deref(), None, "the viewer was never sent away");
            assert_eq!(row(w, node, "sources")["state"], "working");
        });
    }
}

#[test]
fn a_camera_that_falls_silent_is_connected_anew() {
    seeds(|w| {
        let (_, publisher) = camera(w);
        let url = "rtsp://10.0.0.1:8554/live/one";
        let node = w.host_with("node", &ALL, None, pulls(url, When::Always));
        w.run(ms(5_000));
        w.with_publisher(publisher, |p, _| p.keep_silent(true));
        w.run(ms(12_000));
        let now = row(w, node, "sources");
        assert!(now["tries"].as_u64() > Some(1), "{now}");
        w.with_publisher(publisher, |p, _| p.keep_silent(false));
        w.run(ms(20_000));
        assert_eq!(row(w, node, "sources")["state"], "working");
        // A viewer who was there would have seen the camera's cached pictures a second time.
        let viewer = w.play(node, STREAM);
        sees(w, viewer, "pictures", 5_000);
    });
}

#[test]
fn of_two_origins_one_pulls_and_the_other_takes_over() {
    seeds(|w| {
        let (camera, _) = camera(w);
        let url = "rtsp://10.0.0.1:8554/live/one";
        let m = w.host("m1", &[Role::Manager], None);
        let [o1, o2] =
            ["o1", "o2"].map(|name| w.host_with(name, &[Role::Origin], Some(m), pulls(url, When::Always)));
        let e = w.host("e1", &[Role::Edge], Some(m));
        w.run(ms(10_000));
        let working = |w: &mut World| {
            [o1, o2].into_iter().filter(|o| row(w, *o, "sources")["state"] == "working").collect::<Vec<_>>()
        };
        let one = working(w);
        assert_eq!(one.len(), 1, "one of the two pulls");
        assert_eq!(row(w, camera, "streams")["viewers"], 1);
        let viewer = w.play(e, STREAM);
        sees(w, viewer, "pictures at the edge", 5_000);
        // The camera begins anew as well: else its cached pictures would come a second time.
        w.crash(one[0]);
        w.crash(camera);
        w.run(ms(1_000));
        w.start(camera);
        sees(w, viewer, "pictures by way of the other origin", 20_000);
        assert_eq!(w.player(viewer).ended.as_deref(), None);
        w.start(one[0]);
        w.run(ms(8_000));
        assert_eq!(working(w).len(), 1, "who comes back stands by");
        assert_eq!(row(w, camera, "streams")["viewers"], 1);
    });
}

#[test]
fn a_stream_is_pushed_and_pushed_again_when_the_server_is_back() {
    for url in ["rtsp://10.0.0.1:8554/{stream}", "rtmp://10.0.0.1/{app}/{name}"] {
        seeds(|w| {
            let far = w.host("far", &ALL, None);
            w.run(ms(2_500));
            let node = w.host_with("node", &ALL, None, pushes("live/*", url));
            w.run(ms(2_500));
            assert_eq!(row(w, node, "destinations")["state"], "idle");
            let again = Some(ms(500));
            let publisher =
                w.publish_with(node, STREAM, PublisherConfig { again, ..PublisherConfig::default() });
            w.until("the publisher is accepted", ms(3_000), |w| w.publisher(publisher).is_ready());
            w.run(ms(3_000));
            let viewer = w.play(far, STREAM);
            sees(w, viewer, "pictures at the other server", 5_000);
            assert_eq!(row(w, node, "destinations")["state"], "working");
            assert_eq!(row(w, node, "streams")["viewers"], 0, "a push is no viewer");
            w.crash(far);
            w.run(ms(6_000));
            w.start(far);
            w.run(ms(15_000));
            let after = w.play(far, STREAM);
            sees(w, after, "pictures at the server that is back", 5_000);
            w.with_publisher(publisher, |p, now| p.leave(now));
            w.run(ms(35_000));
            assert_eq!(row(w, node, "destinations")["state"], "idle", "it ends with its stream");
            assert!(w.expect_drained());
        });
    }
}

#[test]
fn what_comes_round_in_a_circle_is_refused() {
    seeds(|w| {
        // To itself, under names that would be pushed again and again.
        let own = w.host_with("own", &ALL, None, pushes("*", "rtmp://10.0.0.1/{app}/{name}-copy"));
        w.run(ms(3_000));
        let publisher = w.publish(own, STREAM);
        w.until("the publisher is accepted", ms(3_000), |w| w.publisher(publisher).is_ready());
        w.run(ms(5_000));
        let now = row(w, own, "destinations");
        assert!(now["reason"].as_str().is_some_and(|r| r.contains("circle")), "{now}");
        // To another that pushes back.
        let a = w.host_with("a", &ALL, None, pushes("*", "rtmp://10.0.0.3/{app}/{name}-b"));
        w.run(ms(2_000));
        let b = w.host_with("b", &ALL, None, pushes("*", "rtsp://10.0.0.2:8554/{app}/{name}-a"));
        w.run(ms(2_000));
        let publisher = w.publish(a, "live/two");
        w.until("the publisher is accepted", ms(3_000), |w| w.publisher(publisher).is_ready());
        w.run(ms(20_000));
        assert_eq!(row(w, a, "destinations")["state"], "working");
        let back = row(w, b, "destinations");
        assert!(back["reason"].as_str().is_some_and(|r| r.contains("403") || r.contains("circle")), "{back}");
        let (_, streams) = w.get(a, "/api/v1/streams").expect("an answer");
        assert!(!streams.contains("-b-a"), "{streams}");
    });
}

#[test]
fn a_viewer_at_an_edge_has_an_origin_pull_what_it_can_pull_on_demand() {
    for streams in [STREAM, "live/*"] {
        seeds(|w| {
            let (camera, _) = camera(w);
            let m = w.host("m1", &[Role::Manager], None);
            // Only one of the origins can.
            let o1 = w.host("o1", &[Role::Origin], Some(m));
            let o2 = w.host_with("o2", &[Role::Origin], Some(m), |config| {
                let source = source("rtsp://10.0.0.1:8554/live/{name}", When::Demand);
                config.sources = vec![Source { stream: streams.to_owned(), ..source }];
            });
            let e = w.host("e1", &[Role::Edge], Some(m));
            w.run(ms(3_000));
            let viewer = w.play(e, STREAM);
            sees(w, viewer, "pictures at the edge", 5_000);
            assert_eq!(row(w, o2, "sources")["state"], "working");
            assert_eq!(row(w, camera, "streams")["viewers"], 1);
            assert_eq!(row(w, o1, "streams"), serde_json::Value::Null);
            // What the camera does not have is refused, and the origin does not go on about it.
            let missing = w.play(e, "live/none");
            w.run(ms(8_000));
            assert!(w.player(missing).last_picture().is_none());
            w.with_player(viewer, |p| p.leave());
            w.run(ms(25_000));
            assert_eq!(row(w, camera, "streams")["viewers"], 0, "it is left once nobody watches");
            assert!(w.expect_drained());
        });
    }
}

#[test]
fn a_publisher_keeps_the_name_that_a_source_has_too() {
    seeds(|w| {
        let (camera, _) = camera(w);
        w.crash(camera);
        let url = "rtmp://10.0.0.1/live/one";
        let node = w.host_with("node", &ALL, None, pulls(url, When::Always));
        w.run(ms(3_000));
        let publisher = w.publish(node, STREAM);
        w.until("the publisher is accepted", ms(3_000), |w| w.publisher(publisher).is_ready());
        w.start(camera);
        w.run(ms(20_000));
        assert!(w.publisher(publisher).is_ready() && w.publisher(publisher).ended().is_none());
        assert_eq!(row(w, node, "sources")["state"], "standby");
        w.with_publisher(publisher, |p, now| p.leave(now));
        w.run(ms(8_000));
        assert_eq!(row(w, node, "sources")["state"], "working", "it pulls once the name is free");
    });
}
