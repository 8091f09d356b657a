//! Real x264 with B-frames, published by RTMP, watched in Chromium by WHEP: what is seen is in order and undamaged, or
//! it is said why there is nothing to see.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::browser::Browser;
use headwater_tests::interop::cluster::{Cluster, Net, Node, turn};
use headwater_tests::interop::ffmpeg::{Clip, Ffmpeg};
use headwater_tests::interop::{http, wait};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

/// 25 numbered pictures a second, three B-frames in a row at most, as ffmpeg and OBS publish.
const CLIP: Clip = Clip {
    fps: 25,
    gop: 50,
    b_frames: 3,
    sound: headwater_tests::interop::ffmpeg::Sound::Aac,
    heavy: false,
    seconds: 0,
    numbered: Some(0),
    x264: "-preset veryfast",
};

/// As [`CLIP`], with x264's default pyramid: of three B-frames others refer to the middle one.
const PYRAMID: Clip = Clip { x264: "-preset veryfast -x264-params b-adapt=0", ..CLIP };

/// Reads so many pictures of a viewer: their numbers, which must rise, and the milliseconds that they took.
fn rising(browser: &Browser, viewer: &str, pictures: usize) -> (Vec<u64>, f64) {
    browser.eval(&format!("hw.numbers('{viewer}')"));
    browser.eval(&format!(
        "await hw.until('{pictures} pictures', 30000, () => hw.numbers('{viewer}').length >= {pictures})"
    ));
    let seen = browser.eval(&format!("return hw.numbers('{viewer}')"));
    let seen: Vec<(u64, f64)> = serde_json::from_value(seen).expect("numbers and times");
    let numbers: Vec<u64> = seen.iter().map(|(n, _)| *n).collect();
    assert!(numbers.is_sorted(), "pictures jump: {numbers:?}");
    let most = CLIP.fps as u64 * 60;
    assert!(numbers.iter().all(|n| *n < most), "a picture is damaged: {numbers:?}");
    (numbers, seen.last().map_or(0.0, |l| l.1) - seen.first().map_or(0.0, |f| f.1))
}

#[test]
fn b_frames_that_nothing_refers_to_are_left_out_for_browsers_and_the_rest_is_smooth() {
    let _turn = turn();
    let cluster = Cluster::start();
    let browser = Browser::start();
    let stream = "live/plain-b";
    let from = cluster.origin.log.mark();
    let clip = Clip { x264: "-preset veryfast -x264-params b-pyramid=none:b-adapt=0", ..CLIP };
    let mut publisher = Ffmpeg::publish(&cluster.publish_at(stream).rtmp, clip);
    publisher.wait_more_frames(10, LONG);
    cluster.origin.wait_log(from, LONG, &["B-frames, which WebRTC", "-bf 0"]);
    let place = cluster.play_at(stream);
    browser.open(&cluster.manager.url("/"));
    browser.eval(&format!("return await hw.whep('viewer', '{}')", place.whep));
    let (numbers, _) = rising(&browser, "viewer", 40);
    assert!(numbers.windows(2).any(|w| w[1] == w[0] + 4), "one picture in four is left: {numbers:?}");
    let stats = browser.eval("return await hw.stats('viewer')");
    assert!(stats["pliCount"].as_u64() <= Some(1), "{stats}");
    let metrics = http::get(&cluster.edge.url("/metrics")).expect("metrics").body;
    assert!(metrics.lines().any(|l| l.contains("b_frame")), "left out, and not counted:\n{metrics}");
    // A player by RTMP gets every picture.
    let mut player = Ffmpeg::play(&place.rtmp);
    player.wait_more_frames(60, LONG);
    assert!(publisher.runs(), "{}", publisher.log.tail(20));
}

#[test]
fn b_frames_that_others_refer_to_are_bridged_for_browsers_every_picture_in_order() {
    let _turn = turn();
    let cluster = Cluster::start();
    let browser = Browser::start();
    let stream = "live/pyramid-b";
    let from = (cluster.origin.log.mark(), cluster.edge.log.mark());
    let mut publisher = Ffmpeg::publish(&cluster.publish_at(stream).rtmp, PYRAMID);
    publisher.wait_more_frames(10, LONG);
    cluster.origin.wait_log(from.0, LONG, &["B-frames that other pictures refer to", "-bf 0"]);
    let place = cluster.play_at(stream);
    browser.open(&cluster.manager.url("/"));
    browser.eval(&format!("return await hw.whep('viewer', '{}')", place.whep));
    cluster.edge.wait_log(from.1, LONG, &["without B-frames is made of the H.264"]);
    browser.eval("await hw.moving('viewer'); await hw.sounding('viewer')");
    let (numbers, _) = rising(&browser, "viewer", 150);
    let stats = browser.eval("return await hw.stats('viewer')");
    // A busy browser shows fewer than it decodes; the bridge leaves out none.
    let span = numbers[numbers.len() - 1] - numbers[0];
    assert!(stats["framesDecoded"].as_u64() >= Some(span), "of {span} pictures: {stats}");
    assert!(stats["pliCount"].as_u64() <= Some(2), "{stats}");

    // A second viewer shares the bridge and has a picture within the second, wherever in the group it joins.
    let ms = browser.eval(&format!("return await hw.whep('second', '{}')", place.whep));
    assert!(ms.as_f64() < Some(1500.0), "the second viewer waited {ms} ms");
    rising(&browser, "second", 25);
    let streams = http::get(&cluster.edge.url("/api/v1/streams")).and_then(|a| a.ok_json()).expect("streams");
    let bridges = streams["streams"][0]["bridges"].as_array().expect("bridges").clone();
    let pictures: Vec<_> = bridges.iter().filter(|b| b["to"] == "H.264").collect();
    assert!(pictures.len() == 1 && pictures[0]["state"] == "works", "{streams}");
    for viewer in ["viewer", "second"] {
        assert_eq!(browser.eval(&format!("return await hw.end('{viewer}')")), 200);
    }
    // It ends some time after the last viewer.
    cluster.edge.wait_log(from.1, LONG, &["nobody needs H.264"]);
    assert!(publisher.runs(), "{}", publisher.log.tail(20));
}

#[test]
fn with_the_bridge_off_the_viewer_hears_the_sound_and_is_told_why_there_is_no_picture() {
    let _turn = turn();
    let net = Net::fresh();
    let mut node =
        Node::start("n1", "manager,origin,edge", net.host(1), None, &["--set", "bridge.video=false"]);
    node.wait_http("/readyz");
    let from = node.log.mark();
    let mut publisher = Ffmpeg::publish(&format!("rtmp://{}/live/no-bridge", node.ip), PYRAMID);
    publisher.wait_more_frames(50, LONG);
    node.wait_log(from, LONG, &["B-frames that other pictures refer to"]);
    let browser = Browser::start();
    browser.visit(&node.url("/watch/live/no-bridge"));
    wait::until("the page to say why there is no picture, and the remedy", LONG, || {
        let text = browser.try_eval("return document.body.innerText")?;
        let text = text.as_str().unwrap_or_default().to_owned();
        wait::yes(text.contains("B-frames") && text.contains("-bf 0"), text)
    });
    node.wait_log(from, LONG, &["WebRTC viewers get no picture", "bridge.video is off"]);
    browser.open(&node.url("/"));
    let answer = browser.eval(&format!(
        "const pc = new RTCPeerConnection(); pc.addTransceiver('video', {{ direction: 'recvonly' }});
         pc.addTransceiver('audio', {{ direction: 'recvonly' }}); await pc.setLocalDescription(await pc.createOffer());
         const r = await fetch('{}', {{ method: 'POST', headers: {{ 'Content-Type': 'application/sdp' }}, body: pc.localDescription.sdp }});
         const sdp = await r.text(); await pc.setRemoteDescription({{ type: 'answer', sdp }});
         const seen = async () => {{ const s = [...(await pc.getStats()).values()].filter(s => s.type === 'inbound-rtp');
           const of = kind => s.find(s => s.kind === kind)?.packetsReceived ?? 0; return [of('audio'), of('video')]; }};
         await hw.until('sound', 20000, async () => (await seen())[0] > 100);
         return [r.status, ...await seen()]",
        node.url("/whep/live/no-bridge")
    ));
    assert_eq!(
        (answer[0].as_u64(), answer[2].as_u64()),
        (Some(201), Some(0)),
        "sound, and no damaged picture: {answer}"
    );
    assert!(publisher.runs(), "{}", publisher.log.tail(20));
}
