//! Who may publish and play, with clients that are not ours: each shows a right in its own way, and is refused without.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::browser::Browser;
use headwater_tests::interop::cluster::{Net, Node, binary, turn};
use headwater_tests::interop::ffmpeg::{Clip, Ffmpeg, probe};
use headwater_tests::interop::gstreamer::Pipeline;
use headwater_tests::interop::http;
use headwater_tests::interop::log::Mark;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const PASSWORD: &str = "wonder-password";
const KEY: &str = "s3cr3t-publish-key";

/// What `headwater ctl …` prints, given a line on standard input.
fn ctl(args: &[&str], input: &str) -> String {
    let mut child = Command::new(binary())
        .arg("ctl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("headwater runs");
    child.stdin.take().expect("stdin is piped").write_all(input.as_bytes()).expect("it reads");
    let done = child.wait_with_output().expect("it ends");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("text")
}

/// A node whose rules let few publish, and play one stream.
fn guarded() -> Node {
    let user = ctl(&["passwd", "alice", "--rtsp"], &format!("{PASSWORD}\n"));
    let config = format!(
        "[auth]\nsecret = 'a secret of thirty-two characters'\n\
         [[auth.rules]]\naction = 'publish'\nstreams = ['live/*']\nwho = ['users', 'tokens', 'keys']\n\
         [[auth.rules]]\naction = 'play'\nstreams = ['live/vip']\nwho = ['users', 'tokens']\n\
         [[auth.rules]]\naction = 'play'\nwho = ['anyone']\n\
         [[auth.keys]]\nkey = '{KEY}'\nstream = 'live/show'\nname = 'studio'\n{user}"
    );
    let net = Net::fresh();
    let dir = std::env::temp_dir().join(format!("headwater-auth-{}", net.host(1)));
    std::fs::write(&dir, config).expect("a file can be written");
    let path = dir.to_str().expect("its name is text").to_owned();
    let mut node = Node::start("n", "manager,origin,edge", net.host(1), None, &["--config", &path]);
    node.wait_http("/readyz");
    node
}

fn published(node: &Node, stream: &str, to: &str) {
    let mut publisher = Ffmpeg::publish(to, Clip::default());
    publisher.wait_more_frames(5, LONG);
    node.wait_log(Mark::default(), LONG, &[stream, "publisher accepted"]);
    assert!(publisher.runs(), "{}", publisher.log.tail(20));
}

fn refused(to: &str, words: &str) {
    let mut publisher = Ffmpeg::publish(to, Clip::default());
    assert!(!publisher.wait_exit(LONG).success());
    let said = publisher.log.tail(40);
    assert!(said.contains(words), "{said}");
}

#[test]
fn ffmpeg_gstreamer_and_http_clients_show_who_they_are_or_are_refused() {
    let _turn = turn();
    let node = guarded();
    let url = node.url("");
    let url = url.trim_end_matches('/');
    let token =
        ctl(&["--url", url, "token", "--action", "publish", "--stream", "live/t", "--name", "camera"], "");
    let token = token.trim();
    let rtsp = |user: &str, stream: &str| format!("rtsp://{user}{}:8554/{stream}", node.ip);
    let alice = format!("alice:{PASSWORD}@");

    refused(&node.rtmp("live/t"), "show user and password or a token or a publish key");
    refused(&format!("{}?token={token}", node.rtmp("live/other")), "not good to publish this stream");
    refused(
        &format!("{}?username=alice&password=nonsense", node.rtmp("live/p")),
        "the user or the password is wrong",
    );
    refused(&rtsp("", "live/r"), "401");
    refused(&rtsp("alice:nonsense@", "live/r"), "401");
    published(&node, "live/t", &format!("{}?token={token}", node.rtmp("live/t")));
    published(&node, "live/p", &format!("{}?username=alice&password={PASSWORD}", node.rtmp("live/p")));
    published(&node, "live/show", &node.rtmp(&format!("live/{KEY}")));
    // ffmpeg answers by digest with MD5.
    published(&node, "live/r", &rtsp(&alice, "live/r"));

    let mut vip = Pipeline::publish(&rtsp(&alice, "live/vip"), "tcp");
    node.wait_log(Mark::default(), LONG, &["live/vip", "publisher accepted"]);
    assert!(probe(&rtsp("", "live/vip")).expect_err("it may not").contains("401"));
    assert!(probe(&node.rtmp("live/vip")).is_err());
    probe(&rtsp(&alice, "live/vip")).expect("it may by RTSP");
    probe(&format!("{}?username=alice&password={PASSWORD}", node.rtmp("live/vip"))).expect("it may by RTMP");
    assert!(vip.runs(), "{}", vip.log.tail(20));

    let whip = |stream: &str, query: &str| {
        let to = node.url(&format!("/whip/{stream}{query}"));
        http::post(&to, "application/sdp", "v=0\r\n", LONG).expect("an answer")
    };
    let none = whip("live/t", "");
    assert_eq!((none.status, none.header("www-authenticate")), (401, Some("Bearer realm=\"Headwater\"")));
    assert_eq!(whip("live/other", &format!("?token={token}")).status, 403);
    assert_eq!(whip("live/t", &format!("?token={token}")).status, 400, "only the offer is bad");

    // Who is revoked ends at once.
    ctl(&["--url", url, "revoke", "user:alice"], "");
    node.wait_log(Mark::default(), LONG, &["live/vip", "revoked the right"]);
    let log = node.log.tail(10_000);
    for secret in [PASSWORD, "nonsense", KEY, token] {
        assert!(!log.contains(secret), "{secret} in the log");
    }
}

#[test]
fn the_publish_page_shows_the_token_of_its_own_address() {
    let _turn = turn();
    let node = guarded();
    let url = node.url("");
    let url = url.trim_end_matches('/');
    let token = ctl(&["--url", url, "token", "--action", "publish", "--stream", "live/web"], "");
    let browser = Browser::start();
    browser.visit(&node.url("/publish/live/web?source=test&start"));
    browser.wait_state("Refused");
    let said = browser.eval("return document.getElementById('notices').textContent");
    assert!(said.as_str().is_some_and(|s| s.contains("show user and password or a token")), "{said}");
    browser.visit(&node.url(&format!("/publish/live/web?source=test&start&token={}", token.trim())));
    browser.wait_state("Live");
    node.wait_log(Mark::default(), LONG, &["live/web", "publisher accepted"]);
    assert!(!node.log.tail(10_000).contains(token.trim()));
}
