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

/// An encoder that asks the manager anew each time that it is cut off, until it is taken.
fn publish_through_manager(cluster: &Cluster, stream: &str, began: Instant) -> Ffmpeg {
    wait::until(&format!("{stream} to be taken"), LONG, || {
        let place = cluster.place("broadcast", stream)?;
        let numbered = Some((began.elapsed().as_millis() / 40) as u32);
        let mut ffmpeg = Ffmpeg::publish(&place.rtmp, Clip { numbered, gop: 25, ..Clip::default() });
        let taken =
            wait::try_until(Duration::from_secs(15), || match (ffmpeg.frames() >= 10, ffmpeg.runs()) {
                (true, true) => Ok(true),
                (_, false) => Ok(false),
                _ => Err(()),
            });
        if taken == Ok(true) { Ok(ffmpeg) } else { Err(ffmpeg.log.tail(5)) }
    })
}

/// The node that the manager knows as the stream's origin.
fn owner(cluster: &Cluster, stream: &str) -> String {
    wait::until(&format!("the origin of {stream}"), SETTLE, || {
        let json = http::get(&cluster.manager.url("/api/v1/streams"))?.ok_json()?;
        let streams = json["streams"].as_array().ok_or("no list")?;
        let mine = streams.iter().find(|s| s["key"] == stream).ok_or(json.to_string())?;
        mine["origin"].as_str().filter(|o| !o.is_empty()).map(str::to_owned).ok_or(mine.to_string())
    })
}

/// The manager, an edge and the origin are killed one after the other. The pictures carry a number that rises with time.
#[test]
fn no_player_reconnects_when_nodes_die_unless_its_own_edge_does() {
    let _turn = turn();
    let mut cluster = Cluster::start();
    let net = cluster.net;
    let mut second = Node::start("o2", "origin", net.host(4), Some(net.host(1)), &[]);
    let mut other_edge = Node::start("e2", "edge", net.host(5), Some(net.host(1)), &[]);
    second.wait_http("/readyz");
    other_edge.wait_http("/readyz");
    let (stream, began) = ("live/numbers", Instant::now());
    let mut publisher = publish_through_manager(&cluster, stream, began);
    let browser = Browser::start();
    browser.open(&cluster.edge.url("/"));
    let whep = cluster.edge.url(&format!("/whep/{stream}"));
    browser.eval(&format!("return await hw.whep('viewer', '{whep}')"));
    browser.eval("hw.numbers('viewer')");
    let mut player = Ffmpeg::play(&cluster.edge.rtmp(stream));
    player.wait_more_frames(25, LONG);

    // The manager dies and comes back with empty memory.
    cluster.manager.kill();
    player.wait_more_frames(50, LONG);
    browser.eval("await hw.moving('viewer')");
    cluster.manager.start_again();
    for node in [&mut cluster.manager, &mut cluster.origin, &mut second, &mut cluster.edge, &mut other_edge] {
        node.wait_http("/readyz");
    }
    let origin = owner(&cluster, stream);

    // An edge dies: its players come again, nobody else notices.
    let mut doomed = Ffmpeg::play(&other_edge.rtmp(stream));
    doomed.wait_more_frames(25, LONG);
    other_edge.kill();
    doomed.wait_exit(LONG);
    other_edge.start_again();
    other_edge.wait_http("/readyz");
    Ffmpeg::play(&other_edge.rtmp(stream)).wait_more_frames(25, LONG);
    let calm = browser.eval("return hw.numbers('viewer').length").as_u64().expect("a count") as usize;

    // The origin dies; the encoder is sent to the other one.
    if origin == "o1" {
        cluster.origin.kill()
    } else {
        second.kill()
    }
    publisher.wait_exit(LONG);
    let mut publisher = publish_through_manager(&cluster, stream, began);
    publisher.wait_more_frames(25, LONG);
    browser.eval("await hw.moving('viewer', {ms: 30000})");
    player.wait_more_frames(50, LONG);
    assert_ne!(owner(&cluster, stream), origin);
    stayed(&browser, "viewer");

    let seen = browser.eval("return hw.numbers('viewer')");
    let pair = |s: &serde_json::Value| Some((s[0].as_i64()?, s[1].as_f64()?));
    let seen: Vec<(i64, f64)> =
        seen.as_array().expect("a list").iter().map(|s| pair(s).expect("a number and a time")).collect();
    assert!(seen.windows(2).all(|p| p[1].0 >= p[0].0), "pictures come in order: {seen:?}");
    let largest = |seen: &[(i64, f64)]| {
        seen.windows(2).map(|p| (p[1].0 - p[0].0, p[1].1 - p[0].1)).max_by_key(|(n, _)| *n).expect("two")
    };
    let (before, after) = (largest(&seen[..calm]), largest(&seen[calm - 1..]));
    println!(
        "largest gap: {before:?} while manager and edge died, {after:?} when the origin died (pictures, ms)"
    );
    assert!(before.0 <= 25, "manager and edge cost the viewer {before:?}");
    assert!(after.0 > 5 && after.1 < 15_000.0, "the origin cost the viewer {after:?}");
}

/// Past its capacity a node says so to newcomers, and those who are in notice nothing.
#[test]
fn a_node_at_its_capacity_refuses_newcomers_in_words_and_plays_on_for_the_others() {
    let _turn = turn();
    let net = Net::fresh();
    let capacity = ["--set", "node.capacity_mbps=1"];
    let mut node = Node::start("n1", "manager,origin,edge", net.host(1), None, &capacity);
    node.wait_http("/readyz");
    let stream = "live/full";
    let url = node.rtmp(stream);
    let mut publisher = Ffmpeg::publish(&url, Clip { gop: 25, ..Clip::default() });
    publisher.wait_more_frames(10, LONG);
    let mut inside = Ffmpeg::play(&url);
    inside.wait_more_frames(25, LONG);
    let browser = Browser::start();
    browser.open(&node.url("/"));
    let mut others = Vec::new();
    let said = wait::until("the node to be full", Duration::from_secs(60), || {
        let mut player = Ffmpeg::play(&url);
        // Each comes when the burst for the one before is over: a node that is full of that alone has room a moment later.
        match wait::try_until(Duration::from_secs(15), || match (player.frames() >= 40, player.runs()) {
            (true, true) => Ok(true),
            (_, false) => Ok(false),
            _ => Err(()),
        }) {
            Ok(false) => Ok(player.log.tail(20)),
            _ => {
                others.push(player);
                Err(format!("{} players got in", others.len()))
            }
        }
    });
    assert!(said.contains("at its capacity") && said.contains("node.capacity_mbps"), "{said}");
    assert!(others.len() <= 4, "{} players of 0.4 Mbit/s fit into 1 Mbit/s", others.len());
    // Over WHEP the answer is 503.
    let whep = node.url(&format!("/whep/{stream}"));
    let refused = browser.try_eval(&format!("return await hw.whep('x', '{whep}')")).unwrap_err();
    assert!(refused.contains(": 503 ") && refused.contains("at its capacity"), "{refused}");
    let (began, before) = (Instant::now(), inside.frames());
    inside.wait_more_frames(50, LONG);
    let (shown, took) = (inside.frames() - before, began.elapsed().as_secs_f64());
    assert!(shown as f64 > took * 25.0 * 0.8, "{shown} pictures in {took:.1} s");
    assert!(publisher.runs());
}
