//! WebRTC clients besides Chromium: aiortc, ffmpeg's WHIP muxer.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::aiortc::Aiortc;
use headwater_tests::interop::cluster::{Net, Node, turn};
use headwater_tests::interop::ffmpeg::Ffmpeg;
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
