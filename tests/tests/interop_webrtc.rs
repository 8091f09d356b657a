//! WebRTC clients besides Chromium: aiortc, ffmpeg's WHIP muxer, Firefox.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::aiortc::Aiortc;
use headwater_tests::interop::cluster::{Net, Node, turn};
use headwater_tests::interop::ffmpeg::Ffmpeg;
use headwater_tests::interop::firefox::Firefox;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

fn whole() -> Node {
    let mut node = Node::start("n1", "manager,origin,edge", Net::fresh().host(1), None, &[]);
    node.wait_http("/readyz");
    node
}

fn whip(node: &Node, stream: &str) -> String {
    node.url(&format!("/whip/{stream}"))
}

fn whep(node: &Node, stream: &str) -> String {
    node.url(&format!("/whep/{stream}"))
}

#[test]
fn aiortc_publishes_and_plays() {
    let _turn = turn();
    let node = whole();
    for codec in ["H264", "VP8"] {
        let stream = format!("live/aiortc-{codec}");
        let publisher = Aiortc::publish(&whip(&node, &stream), &format!("video/{codec}"));
        publisher.wait_line("connected", LONG);
        publisher.wait_more("frame", 15, LONG);
        let player = Aiortc::play(&whep(&node, &stream));
        player.wait_more("frame", 40, LONG);
        player.wait_more("sound", 50, LONG);
        player.wait_line(&format!("codec={codec}/90000"), LONG);
    }
}

#[test]
fn ffmpeg_publishes_by_whip_and_aiortc_and_rtmp_players_see_it() {
    let _turn = turn();
    let node = whole();
    let stream = "live/muxer";
    let mut publisher = Ffmpeg::publish_whip(&whip(&node, stream));
    publisher.wait_more_frames(15, LONG);
    let player = Aiortc::play(&whep(&node, stream));
    let mut rtmp = Ffmpeg::play(&node.rtmp(stream));
    player.wait_more("frame", 40, LONG);
    player.wait_more("sound", 50, LONG);
    rtmp.wait_more_frames(40, LONG);
    assert!(publisher.runs());
}

#[test]
fn firefox_publishes_and_plays_vp8() {
    let _turn = turn();
    let node = whole();
    let stream = "live/firefox";
    let firefox = Firefox::start();
    firefox.open(&node.url("/"));
    let to = whip(&node, stream);
    firefox.eval(&format!("return await hw.whip('p', '{to}', {{codec: 'video/VP8', only: true}})"));
    let from = whep(&node, stream);
    firefox.eval(&format!("return await hw.whep('v', '{from}')"));
    firefox.eval("await hw.moving('v')");
    let player = Aiortc::play(&from);
    player.wait_line("codec=VP8/90000", LONG);
    player.wait_more("frame", 30, LONG);
    player.wait_more("sound", 50, LONG);
}
