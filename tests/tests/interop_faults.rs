//! What goes wrong in life: names taken twice, publishers and nodes that die, viewers that stop reading.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::browser::Browser;
use headwater_tests::interop::cluster::{Cluster, Net, Node, SETTLE, turn};
use headwater_tests::interop::ffmpeg::{Clip, Ffmpeg, Sound};
use headwater_tests::interop::{http, wait};
use serde_json::json;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(30);

/// Publishes as an encoder that reconnects until it is taken: answers the one that sends pictures.
fn publish_until_taken(url: &str, within: Duration) -> Ffmpeg {
    wait::until(&format!("{url} to be taken"), within, || {
        let mut ffmpeg = Ffmpeg::publish(url, Clip::default());
        let taken =
            wait::try_until(Duration::from_secs(15), || match (ffmpeg.frames() >= 10, ffmpeg.runs()) {
                (true, true) => Ok(true),
                (_, false) => Ok(false),
                _ => Err(()),
            });
        if taken == Ok(true) { Ok(ffmpeg) } else { Err(ffmpeg.log.tail(5)) }
    })
}

/// The viewer `name` was connected once and never left.
fn stayed(browser: &Browser, name: &str) {
    let stats = browser.eval(&format!("return await hw.stats('{name}')"));
    assert_eq!(stats["states"], json!(["connecting", "connected"]), "the viewer stays connected: {stats}");
}

#[test]
fn a_second_publisher_of_a_live_name_is_refused_in_words_by_any_protocol_on_any_node() {
    let _turn = turn();
    let cluster = Cluster::start();
    let stream = "live/taken";
    let place = cluster.publish_at(stream);
    let mut first = Ffmpeg::publish(&place.rtmp, Clip::default());
    first.wait_more_frames(10, LONG);
    cluster.play_at(stream);

    for (node, url) in [(&cluster.origin, place.rtmp.clone()), (&cluster.edge, cluster.edge.rtmp(stream))] {
        let from = node.log.mark();
        let mut second = Ffmpeg::publish(&url, Clip::default());
        assert!(!second.wait_exit(LONG).success());
        // ffmpeg prints the description of our onStatus behind these words.
        let said = second.log.tail(20);
        let words = said.lines().find_map(|l| l.split_once("Server error: ")).map(|(_, words)| words);
        assert!(words.is_some_and(|w| w.contains("taken") && w.len() > 20), "{url}: {said}");
        node.wait_log(from, LONG, &["rtmp", stream]);
    }

    let browser = Browser::start();
    browser.open(&cluster.manager.url("/"));
    let refused = browser.try_eval(&format!("return await hw.whip('x', '{}')", place.whip)).unwrap_err();
    assert!(refused.contains(": 409 ") && refused.contains("taken"), "{refused}");
    first.wait_more_frames(25, LONG);
}

#[test]
fn a_publisher_that_crashes_or_dies_silently_and_returns_takes_over_and_viewers_stay() {
    let _turn = turn();
    let cluster = Cluster::start();
    let browser = Browser::start();
    browser.open(&cluster.manager.url("/"));
    let stream = "live/returns";
    let place = cluster.publish_at(stream);
    let mut first = Ffmpeg::publish(&place.rtmp, Clip::default());
    first.wait_more_frames(10, LONG);
    let whep = cluster.play_at(stream).whep;
    browser.eval(&format!("return await hw.whep('viewer', '{whep}')"));
    browser.eval("await hw.moving('viewer')");

    // It crashes: the system closes its connection.
    first.kill();
    let began = Instant::now();
    let mut second = publish_until_taken(&place.rtmp, LONG);
    browser.eval("await hw.moving('viewer')");
    assert!(began.elapsed() < Duration::from_secs(10), "back after {:?}", began.elapsed());
    stayed(&browser, "viewer");

    // It dies silently: the connection stands and nothing comes.
    second.freeze();
    let began = Instant::now();
    let mut third = publish_until_taken(&place.rtmp, LONG);
    browser.eval("await hw.moving('viewer')");
    assert!(began.elapsed() < Duration::from_secs(15), "back after {:?}", began.elapsed());
    stayed(&browser, "viewer");

    // The one that was taken for dead wakes up: it has lost its name, and the viewer does not notice.
    second.thaw();
    assert!(!second.wait_exit(LONG).success() || !second.runs());
    third.wait_more_frames(25, LONG);
    browser.eval("await hw.moving('viewer')");
    stayed(&browser, "viewer");
}

#[test]
fn an_edge_started_before_its_origin_serves_it_and_a_viewer_outlives_the_origins_restart() {
    let _turn = turn();
    let net = Net::fresh();
    let manager = Node::start("m1", "manager", net.host(1), None, &[]);
    let mut edge = Node::start("e1", "edge", net.host(3), Some(net.host(1)), &[]);
    edge.wait_http("/readyz");
    let origin = Node::start("o1", "origin", net.host(2), Some(net.host(1)), &[]);
    let mut cluster = Cluster { manager, origin, edge, net };
    cluster.wait_ready();

    let stream = "live/restart";
    let place = cluster.publish_at(stream);
    let publisher = publish_until_taken(&place.rtmp, LONG);
    let browser = Browser::start();
    browser.open(&cluster.manager.url("/"));
    let whep = cluster.play_at(stream).whep;
    browser.eval(&format!("return await hw.whep('viewer', '{whep}')"));
    browser.eval("await hw.moving('viewer')");

    cluster.origin.kill();
    let mut cut_off = publisher;
    assert!(!cut_off.wait_exit(LONG).success());
    cluster.origin.start_again();
    cluster.origin.wait_http("/readyz");
    let _publisher = publish_until_taken(&place.rtmp, LONG);
    browser.eval("await hw.moving('viewer', {ms: 30000})");
    stayed(&browser, "viewer");
    let newcomer = cluster.play_at(stream).whep;
    browser.eval(&format!("return await hw.whep('newcomer', '{newcomer}')"));
    browser.eval("await hw.moving('newcomer')");
}

#[test]
fn a_node_without_a_manager_says_so_keeps_trying_and_registers_when_it_comes() {
    let _turn = turn();
    let net = Net::fresh();
    let origin = Node::start("o1", "origin", net.host(2), Some(net.host(1)), &[]);
    let from = origin.log.mark();
    origin.wait_log(Default::default(), SETTLE, &["no manager", &net.host(1).to_string(), "trying"]);
    let mut manager = Node::start("m1", "manager", net.host(1), None, &[]);
    manager.wait_http("/readyz");
    origin.wait_log(from, SETTLE, &["registered", &net.host(1).to_string()]);
    let pair = manager.url("/streammanager/api/4.0/event/live/x?action=broadcast");
    wait::until("the manager to give out the origin", SETTLE, || {
        let json = http::get(&pair)?.ok_json()?;
        wait::yes(json["serverAddress"] == net.host(2).to_string(), json.to_string())
    });
}

#[test]
fn a_viewer_that_stops_reading_is_evicted_and_harms_no_one() {
    let _turn = turn();
    let cluster = Cluster::start();
    let stream = "live/slow";
    let clip = Clip { heavy: true, gop: 25, sound: Sound::Aac, ..Clip::default() };
    let mut publisher = Ffmpeg::publish(&cluster.publish_at(stream).rtmp, clip);
    publisher.wait_more_frames(10, LONG);
    let play = cluster.play_at(stream).rtmp;
    let mut good = Ffmpeg::play(&play);
    let mut stuck = Ffmpeg::play(&play);
    good.wait_more_frames(25, LONG);
    stuck.wait_more_frames(25, LONG);

    let from = cluster.edge.log.mark();
    stuck.freeze();
    let (began, before) = (Instant::now(), good.frames());
    cluster.edge.wait_log(from, Duration::from_secs(60), &["viewer_st"]);
    let (gone, shown) = (began.elapsed().as_secs_f64(), good.frames() - before);
    assert!(shown as f64 > gone * 25.0 * 0.8, "{shown} pictures in {gone:.1} s beside one that is stuck");
    good.wait_more_frames(50, LONG);
    assert!(publisher.runs());
    let resident = cluster.edge.resident_kib();
    assert!(resident < 120 << 10, "the edge holds {resident} KiB for one that does not read");
    stuck.thaw();
    stuck.wait_exit(LONG);
}
