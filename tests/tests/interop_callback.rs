//! The operator's callback and key set, asked over HTTPS of a server that is not ours, for clients that are not ours.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::browser::Browser;
use headwater_tests::interop::cluster::{Net, Node, turn};
use headwater_tests::interop::doorman::Doorman;
use headwater_tests::interop::ffmpeg::{Clip, Ffmpeg, probe};
use headwater_tests::interop::http;
use headwater_tests::interop::log::Mark;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const PASSWORD: &str = "wonder-password";
const KEY: &str = "s3cr3t-publish-key";
const TICKET: &str = "a-ticket";

fn guarded() -> (Node, Doorman) {
    let net = Net::fresh();
    let dir = std::env::temp_dir().join(format!("headwater-callback-{}", net.host(1)));
    let doorman = Doorman::start(net.host(2), &dir);
    let config = "[[auth.rules]]\naction = 'publish'\nstreams = ['live/*']\nwho = ['callback', 'tokens']\n\
                  [[auth.rules]]\naction = 'publish'\nwho = ['anyone']\n\
                  [[auth.rules]]\naction = 'play'\nstreams = ['live/vip']\nwho = ['callback']\n\
                  [[auth.rules]]\naction = 'play'\nwho = ['anyone']\n";
    let file = dir.join("node.toml");
    std::fs::write(&file, config).expect("a file can be written");
    let file = file.display().to_string();
    let mut args = vec!["--config", &file];
    args.extend(doorman.settings.iter().map(String::as_str));
    let mut node = Node::start("n", "manager,origin,edge", net.host(1), None, &args);
    node.wait_http("/readyz");
    (node, doorman)
}

fn published(node: &Node, stream: &str, to: &str) -> Ffmpeg {
    let mut publisher = Ffmpeg::publish(to, Clip::default());
    publisher.wait_more_frames(5, LONG);
    node.wait_log(Mark::default(), LONG, &[stream, "publisher accepted"]);
    assert!(publisher.runs(), "{}", publisher.log.tail(20));
    publisher
}

fn refused(to: &str, words: &str) {
    let mut publisher = Ffmpeg::publish(to, Clip::default());
    assert!(!publisher.wait_exit(LONG).success());
    let said = publisher.log.tail(40);
    assert!(said.contains(words), "{said}");
}

#[test]
fn clients_that_are_not_ours_are_let_in_by_a_program_that_is_not_ours() {
    let _turn = turn();
    let (node, doorman) = guarded();
    let rtsp = |user: &str, stream: &str| format!("rtsp://{user}{}:8554/{stream}", node.ip);
    node.wait_log(Mark::default(), LONG, &["1 keys of others sign tokens"]);

    let mut show = published(&node, "live/show", &node.rtmp(&format!("live/{KEY}")));
    refused(&node.rtmp("live/nobody"), "not on the list");
    refused(&rtsp("", "live/r"), "401");
    let mut by_rtsp = published(&node, "live/r", &rtsp(&format!("alice:{PASSWORD}@"), "live/r"));
    let by_token = published(&node, "live/t", &format!("{}?token={}", node.rtmp("live/t"), doorman.token));
    probe(&node.rtmp("live/show")).expect("everybody may watch by the public name");

    let whip = |query: &str| {
        let to = node.url(&format!("/whip/live/w{query}"));
        http::post(&to, "application/sdp", "v=0\r\n", LONG).expect("an answer").status
    };
    assert_eq!((whip(""), whip("?token=bad"), whip(&format!("?token={TICKET}"))), (401, 403, 400));

    let browser = Browser::start();
    browser.visit(&node.url("/publish/live/web?source=test&start"));
    browser.wait_state("Refused");
    let said = browser.eval("return document.getElementById('notices').textContent");
    assert!(said.as_str().is_some_and(|s| s.contains("not on the list")), "{said}");
    browser.visit(&node.url(&format!("/publish/live/web?source=test&start&token={TICKET}")));
    browser.wait_state("Live");

    // It stands still: who asks waits in vain for three seconds, and who is in notices nothing.
    drop(by_token);
    doorman.freeze();
    refused(&node.rtmp("live/else"), "nobody could be asked whether you may");
    show.wait_more_frames(25, LONG);
    by_rtsp.wait_more_frames(25, LONG);
    doorman.thaw();
    let another = published(&node, "live/u", &format!("{}?token={TICKET}", node.rtmp("live/u")));
    drop(another);

    let log = node.log.tail(10_000);
    for secret in [PASSWORD, KEY, TICKET, doorman.token.as_str(), "a-node"] {
        assert!(!log.contains(secret), "{secret} in the log");
    }
    let asked = doorman.log.tail(1_000);
    assert!(asked.contains(r#""protocol": "whip""#) && asked.contains(r#""protocol": "rtsp""#), "{asked}");
}
