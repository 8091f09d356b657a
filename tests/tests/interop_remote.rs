//! Pulling from and pushing to servers that are not ours: GStreamer's RTSP server as a camera, ffmpeg as an RTMP server, and
//! another cluster.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::camera::Camera;
use headwater_tests::interop::certificate::Certificate;
use headwater_tests::interop::cluster::{Net, Node, turn};
use headwater_tests::interop::ffmpeg::{Clip, Ffmpeg, Sound};
use headwater_tests::interop::http;
use headwater_tests::interop::log::Mark;
use headwater_tests::interop::wait;
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(40);

/// Waits until a source or destination of a stream is in a state, and answers its row.
fn row(node: &Node, list: &str, stream: &str, state: &str) -> Value {
    wait::until(&format!("{list} of {stream}: {state}"), LONG, || {
        let all = http::get(&node.url(&format!("/api/v1/{list}")))?.ok_json()?;
        let rows = all[list].as_array().ok_or("no list")?;
        let row = rows.iter().find(|r| r["stream"] == stream).ok_or("no row")?;
        if row["state"] == state { Ok(row.clone()) } else { Err(row.to_string()) }
    })
}

#[test]
fn cameras_are_pulled_with_their_password_and_viewers_outlast_one_that_goes_away() {
    let _turn = turn();
    let net = Net::fresh();
    let camera = Camera::start(net.host(2), "both");
    let sources = format!(
        r#"sources=[{{stream="cam/always", url="{good}", when="always", transport="tcp"}},
           {{stream="cam/udp", url="{good}", transport="udp"}}, {{stream="cam/wrong", url="{wrong}", when="always"}}]"#,
        good = camera.url("s3cret"),
        wrong = camera.url("wr0ng"),
    );
    let mut node = Node::start("n", "manager,origin,edge", net.host(1), None, &["--set", &sources]);
    node.wait_http("/readyz");
    row(&node, "sources", "cam/always", "working");
    let refused = row(&node, "sources", "cam/wrong", "waiting");
    assert!(refused["reason"].as_str().is_some_and(|r| r.contains("password")), "{refused}");

    let rtsp = |stream: &str| format!("rtsp://{}:8554/{stream}", net.host(1));
    let mut watcher = Ffmpeg::play(&node.rtmp("cam/always"));
    watcher.wait_more_frames(50, LONG);
    // On demand, over datagrams, which come from another address here and are not taken: the connection it is then.
    let mut on_demand = Ffmpeg::play_rtsp(&rtsp("cam/udp"), "tcp", 3);
    assert!(on_demand.wait_exit(LONG).success(), "{}", on_demand.log.tail(20));
    row(&node, "sources", "cam/udp", "working");

    let at = camera.at();
    drop(camera);
    let gone = row(&node, "sources", "cam/always", "waiting");
    assert!(gone["reason"] != "", "{gone}");
    let _back = Camera::start_again(at, "both");
    row(&node, "sources", "cam/always", "working");
    watcher.wait_more_frames(50, LONG);
    assert!(watcher.runs(), "the viewer was held: {}", watcher.log.tail(20));
    let mut said = String::new();
    node.log.each(|line| said.push_str(line));
    assert!(!said.contains("s3cret") && !said.contains("wr0ng"), "no password is in the log");
}

#[test]
fn a_camera_that_refuses_the_connection_for_media_is_pulled_by_datagrams() {
    let _turn = turn();
    // Datagrams within a host come from the first loopback address, whatever its sockets are bound to.
    let here = Ipv4Addr::LOCALHOST;
    let camera = Camera::start(here, "udp");
    let source = format!(r#"sources=[{{stream="cam/x", url="{}"}}]"#, camera.url("s3cret"));
    let mut node = Node::start("n", "manager,origin,edge", here, None, &["--set", &source]);
    node.wait_http("/readyz");
    let mut player = Ffmpeg::play(&node.rtmp("cam/x"));
    player.wait_more_frames(50, LONG);
    node.wait_log(Mark::default(), LONG, &["the other way is tried"]);
}

#[test]
fn a_stream_is_pushed_to_ffmpeg_by_rtmp_and_to_another_cluster_by_rtsp() {
    let _turn = turn();
    let net = Net::fresh();
    let mut far = Node::start("far", "manager,origin,edge", net.host(2), None, &[]);
    let destinations = format!(
        r#"destinations=[{{stream="live/*", url="rtmp://{}:1935/in/{{name}}"}},
           {{stream="live/*", url="rtsp://{}:8554/{{stream}}"}}]"#,
        net.host(3),
        net.host(2)
    );
    let mut node = Node::start("n", "manager,origin,edge", net.host(1), None, &["--set", &destinations]);
    node.wait_http("/readyz");
    far.wait_http("/readyz");
    let mut server = Ffmpeg::listen(&format!("rtmp://{}:1935/in/show", net.host(3)));
    let clip = Clip { sound: Sound::Aac, gop: 50, ..Clip::default() };
    let publisher = Ffmpeg::publish(&node.rtmp("live/show"), clip);
    server.wait_more_frames(75, LONG);
    let mut viewer = Ffmpeg::play(&far.rtmp("live/show"));
    viewer.wait_more_frames(75, LONG);
    row(&node, "destinations", "live/show", "working");
    drop(publisher);
}

#[test]
fn rtmps_is_spoken_to_servers_that_are_trusted_and_to_no_others() {
    let _turn = turn();
    let net = Net::fresh();
    let dir = std::env::temp_dir().join(format!("headwater-remote-{}", std::process::id()));
    let made = Certificate::of(net.host(2), &dir);
    let (file, alone) = (made.whole.display(), made.alone.display());

    let certificates = format!("tls.certificates={file}");
    let mut far = Node::start("far", "manager,origin,edge", net.host(2), None, &["--set", &certificates]);
    let push =
        format!(r#"destinations=[{{stream="live/*", url="rtmps://{}:1936/{{stream}}"}}]"#, net.host(2));
    let trusts = format!("tls.authorities={alone}");
    let all = "manager,origin,edge";
    let mut node = Node::start("n", all, net.host(1), None, &["--set", &push, "--set", &trusts]);
    let mut other = Node::start("o", all, net.host(3), None, &["--set", &push]);
    for node in [&mut far, &mut node, &mut other] {
        node.wait_http("/readyz");
    }
    let clip = Clip { gop: 50, ..Clip::default() };
    let _one = Ffmpeg::publish(&node.rtmp("live/one"), clip);
    let _two = Ffmpeg::publish(&other.rtmp("live/two"), clip);
    row(&node, "destinations", "live/one", "working");
    let mut viewer = Ffmpeg::play(&far.rtmp("live/one"));
    viewer.wait_more_frames(50, LONG);
    let refused = row(&other, "destinations", "live/two", "waiting");
    assert!(refused["reason"].as_str().is_some_and(|r| r.contains("tls.authorities")), "{refused}");
    let _ = std::fs::remove_dir_all(&dir);
}
