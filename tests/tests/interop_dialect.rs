//! Real browsers that speak the stream-manager dialect with real nodes: websocket, data channel, WHIP and WHEP.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::browser::Browser;
use headwater_tests::interop::cluster::{Cluster, turn};
use headwater_tests::interop::ffmpeg::{Clip, Ffmpeg};
use serde_json::Value;

/// The page, from another origin than the nodes that it talks to.
fn page(cluster: &Cluster) -> Browser {
    let browser = Browser::start();
    browser.open_dialect(&cluster.manager.url("/"));
    browser
}

fn socket(url: &str, id: &str) -> String {
    format!("{}/live/?id={id}", url.replacen("http", "ws", 1))
}

fn log(browser: &Browser, name: &str) -> Vec<String> {
    let log = browser.eval(&format!("return hw.ws.log('{name}')"));
    log.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[test]
fn a_page_publishes_and_watches_by_websocket_and_goes_on_over_the_data_channel() {
    let _turn = turn();
    let cluster = Cluster::start();
    let browser = page(&cluster);
    let (origin, edge) = (cluster.origin.url(""), cluster.edge.url(""));
    browser.eval(&format!("await hw.ws.publish('camera', '{}', 's1')", socket(&origin, "s1")));
    browser.eval("await hw.ws.onChannel('camera')");
    cluster.play_at("live/s1");
    let url = socket(&edge, "subscriber-4a3f");
    browser.eval(&format!("await hw.ws.subscribe('viewer', '{url}', 's1')"));
    browser.eval("await hw.ws.onChannel('viewer'); await hw.moving('viewer'); await hw.sounding('viewer')");

    // The name is taken now.
    let taken = browser.try_eval(&format!("await hw.ws.publish('other', '{}', 's1')", socket(&origin, "s1")));
    assert!(taken.is_err_and(|e| e.contains("the name is taken")));

    // What a publisher sends reaches its viewers, here over both data channels and a relay.
    browser.eval("hw.ws.say('camera', {send: {method: 'hello', data: {n: 7, words: ['a', 'b']}}})");
    let sent = browser.eval("return await hw.ws.wait('viewer', 'send')");
    let wanted = serde_json::json!({"n": 7, "words": ["a", "b"]});
    assert_eq!((&sent["send"]["method"], &sent["send"]["data"]), (&Value::from("hello"), &wanted), "{sent}");
    browser.eval("hw.ws.say('camera', {mute: {muteAudio: true, muteVideo: false}})");
    assert_ne!(browser.eval("return hw.ws.heardOnChannel('viewer')"), 0);

    browser.eval("hw.ws.say('camera', {unpublish: 's1'})");
    let stopped = browser.eval("return await hw.ws.wait('camera', 'NetStream.Unpublish.Success')");
    assert_eq!(stopped["data"]["message"], "s1 stopping");

    let publisher = log(&browser, "camera");
    let at = |words: &str| {
        publisher.iter().position(|l| l == words).unwrap_or_else(|| panic!("{words}: {publisher:?}"))
    };
    let order = [
        "< NetConnection.Connect.Success",
        "> isAvailable",
        "< isAvailable",
        "> handleOffer",
        "< answer",
        "< NetConnection.ICE.TrickleCompleted",
        "> publish",
        "< NetStream.Publish.Start s1 starting",
        "> switchChannel",
        "closed 1005",
        "> unpublish",
        "< NetStream.Unpublish.Success s1 stopping",
    ];
    assert!(order.map(at).is_sorted(), "{publisher:?}");
    let once = |words: &str| publisher.iter().filter(|l| *l == words).count();
    assert_eq!(once("< NetConnection.ICE.TrickleCompleted"), 1, "{publisher:?}");
    let viewer = log(&browser, "viewer");
    let at =
        |words: &str| viewer.iter().position(|l| l == words).unwrap_or_else(|| panic!("{words}: {viewer:?}"));
    let order = [
        "< NetConnection.Connect.Success",
        "< isAvailable",
        "> requestOffer",
        "< offer",
        "> handleAnswer",
        "< NetConnection.ICE.TrickleCompleted",
        "> subscribe",
        "< NetStream.Play.Start s1 starting",
        "< metadata",
    ];
    assert!(order.map(at).is_sorted(), "{viewer:?}");
}

#[test]
fn without_the_data_channel_the_websocket_is_the_life_line() {
    let _turn = turn();
    let cluster = Cluster::start();
    let browser = page(&cluster);
    let (origin, edge) = (cluster.origin.url(""), cluster.edge.url(""));
    let url = socket(&origin, "s2");
    browser.eval(&format!("await hw.ws.publish('camera', '{url}', 's2', {{switches: false}})"));
    cluster.play_at("live/s2");
    let url = socket(&edge, "subscriber-77");
    browser.eval(&format!("await hw.ws.subscribe('viewer', '{url}', 's2', {{datachannel: false}})"));
    browser.eval("await hw.moving('viewer'); hw.ws.closeSocket('viewer')");
    let ended = "await hw.until('the viewer to be ended', 20000, \
                 () => ['disconnected', 'failed', 'closed'].includes(hw.sessions.viewer.pc.connectionState))";
    browser.eval(ended);
    // A stream that nobody publishes.
    let absent = format!("await hw.ws.subscribe('none', '{url}', 'absent')");
    assert!(browser.try_eval(&absent).is_err_and(|e| e.contains("not live")));
}

/// The other stream comes by RTMP, with another size and with sound that is converted.
#[test]
fn a_viewer_goes_over_to_another_stream_and_back_in_the_same_session() {
    let _turn = turn();
    let cluster = Cluster::start();
    let browser = page(&cluster);
    let url = socket(&cluster.origin.url(""), "s3");
    browser.eval(&format!("await hw.ws.publish('camera', '{url}', 's3')"));
    let mut other = Ffmpeg::publish(&cluster.origin.rtmp("live/other"), Clip { gop: 25, ..Clip::default() });
    other.wait_more_frames(25, std::time::Duration::from_secs(20));
    for stream in ["live/s3", "live/other"] {
        cluster.play_at(stream);
    }
    let url = socket(&cluster.edge.url(""), "subscriber-5");
    browser.eval(&format!("await hw.ws.subscribe('viewer', '{url}', 's3'); await hw.ws.onChannel('viewer')"));
    let switch = |path: &str, id: &str| {
        let call = format!(
            "{{callAdapter: {{method: 'switchStreams', arguments: [{{path: '{path}'}}]}}, id: '{id}', async: true}}"
        );
        let answer = format!("hw.ws.said('viewer').find(m => m.id === '{id}')");
        let body = format!(
            "hw.ws.say('viewer', {call}); return await hw.until('the answer', 20000, () => {answer})"
        );
        browser.eval(&body)
    };
    let shows = |not: &str| {
        let height = "hw.sessions.viewer.video.videoHeight";
        browser.eval(&format!(
            "await hw.until('pictures of the right size', 20000, () => {height} {not}== 240); \
             await hw.moving('viewer'); await hw.sounding('viewer')"
        ));
    };
    shows("=");
    let success = Value::from("Stream switch: Success");
    assert_eq!(switch("live/other", "1")["data"]["message"], success);
    shows("!");
    assert_eq!(switch("live/s3", "2")["data"]["message"], success);
    shows("=");
    let refused = switch("live/absent", "3");
    assert!(refused["error"].as_str().is_some_and(|e| e.contains("live/absent")), "{refused}");
    shows("=");
}
