//! Several loops in one process: clients meet any of them, and need not know.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::cluster::{Net, Node, SETTLE, turn};
use headwater_tests::interop::ffmpeg::{self, Clip, Ffmpeg};
use headwater_tests::interop::http::{self, Answer};
use headwater_tests::interop::wait;
use headwater_tests::live::{Id, Live, Protocol};
use headwater_tests::world::actors::webrtc::Whep;
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);
/// Of so many connections, all meet the same of two loops once in 32,768 times; then there are some more.
const MANY: usize = 16;

fn loops(net: Net, more: &[&str]) -> Node {
    let more = [&["--loops", "2"], more].concat();
    let mut node = Node::start("n", "manager,origin,edge", net.host(1), None, &more);
    node.wait_http("/readyz");
    node
}

/// Each over a connection of its own.
fn get(node: &Node, path: &str) -> Answer {
    http::get(&node.url(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn json(node: &Node, path: &str) -> Value {
    get(node, path).ok_json().unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A metric of each loop.
fn of_loops(node: &Node, name: &str, labels: &str) -> [u64; 2] {
    let page = get(node, "/metrics").body;
    [0, 1].map(|index| {
        let start = format!("headwater_{name}{{loop=\"{index}\"{labels}}} ");
        page.lines().find_map(|l| l.strip_prefix(&start)?.parse().ok()).unwrap_or(0)
    })
}

fn sessions(node: &Node, protocol: &str) -> Vec<String> {
    let all = json(node, "/api/v1/sessions");
    let all = all["sessions"].as_array().cloned().unwrap_or_default();
    let named = all.iter().filter(|s| s["protocol"] == protocol && s["role"] == "play");
    named.filter_map(|s| s["id"].as_str().map(str::to_owned)).collect()
}

fn publish(live: &mut Live, net: Net, stream: &str) -> Id {
    let publisher = live.publish(Protocol::WebRtc, net.host(9), net.host(1), stream, None);
    assert!(live.until(LONG, |l| l.published(publisher).ready), "the publisher was not accepted");
    publisher
}

/// Viewers by WHEP, so many that both loops have some, all of whom see pictures.
fn viewers(live: &mut Live, node: &Node, net: Net, stream: &str) -> Vec<Id> {
    let mut viewers = Vec::new();
    // Each at an address of its own: their ports begin at the same number.
    let mut hosts = 10..=255;
    for _ in 0..8 {
        let some = hosts.by_ref().take(MANY).map(|n| net.host(n));
        viewers.extend(some.map(|from| live.play(Protocol::WebRtc, from, node.ip, stream, None)));
        let seeing = live.until(LONG, |l| viewers.iter().all(|v| l.played(*v).picture.is_some()));
        assert!(seeing, "{} viewers do not all see pictures", viewers.len());
        if of_loops(node, "sessions", ",protocol=\"whep\",role=\"play\"").iter().all(|n| *n > 0) {
            return viewers;
        }
    }
    panic!("{} viewers met one loop", viewers.len());
}

#[test]
fn ffmpeg_publishes_to_one_loop_and_ffprobe_plays_at_any() {
    let _turn = turn();
    let node = loops(Net::fresh(), &[]);
    let _publisher = Ffmpeg::publish(&node.rtmp("live/ff"), Clip::default());
    wait::until("the stream", SETTLE, || {
        let streams = json(&node, "/api/v1/streams");
        wait::yes(streams["streams"][0]["state"] == "live", streams.to_string())
    });
    let rtsp = format!("rtsp://{}:8554/live/ff", node.ip);
    let seen = |url: &str| {
        let found = ffmpeg::probe(url).unwrap_or_else(|e| panic!("{url}: {e}"));
        let codecs = found["streams"].as_array().into_iter().flatten();
        let mut codecs: Vec<String> =
            codecs.filter_map(|s| s["codec_name"].as_str().map(str::to_owned)).collect();
        codecs.sort();
        assert_eq!(codecs, ["aac", "h264"], "{url}");
    };
    // RTSP by UDP, as ffprobe does by default: each loop has ports of its own.
    let both = |service: &str| {
        let labels = format!(",service=\"{service}\"");
        of_loops(&node, "connections_accepted_total", &labels).iter().all(|n| *n > 1)
    };
    for (url, service) in [(node.rtmp("live/ff"), "rtmp"), (rtsp, "rtsp")] {
        (0..4).for_each(|_| seen(&url));
        for n in 0.. {
            if both(service) {
                break;
            }
            assert!(n < 60, "all connections by {service} met one loop");
            seen(&url);
        }
    }
    assert_eq!(json(&node, "/api/v1/streams")["streams"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_follows_on_a_session_finds_its_loop_over_whatever_connection() {
    let _turn = turn();
    let net = Net::fresh();
    let node = loops(net, &["--set", "limits.conns_per_ip=1000"]);
    let mut live = Live::new(33);
    publish(&mut live, net, "live/x");
    let viewers = viewers(&mut live, &node, net, "live/x");
    // Whatever loop answers, it tells of all.
    for _ in 0..MANY {
        assert_eq!(sessions(&node, "whep").len(), viewers.len());
        let place = json(&node, "/streammanager/api/4.0/event/live/x?action=subscribe");
        assert_eq!(place["serverAddress"], node.ip.to_string());
        assert_eq!(json(&node, "/api/v1/nodes")["nodes"].as_array().map(Vec::len), Some(2));
        assert_eq!(get(&node, "/healthz").status, 200);
    }
    wait::until("the manager to hear of all viewers", LONG, || {
        let streams = json(&node, "/api/v1/streams");
        wait::yes(streams["streams"][0]["viewers"] == viewers.len(), streams.to_string())
    });
    for name in sessions(&node, "whep") {
        assert_eq!(json(&node, &format!("/api/v1/why/{name}"))["id"], name.as_str());
    }
    let kicked = sessions(&node, "whep").swap_remove(0);
    let kick = http::delete(&node.url(&format!("/api/v1/sessions/{kicked}"))).expect("a node answers");
    assert_eq!(kick.status, 204, "{kick:?}");
    assert!(!sessions(&node, "whep").contains(&kicked));
    // Each DELETE over a connection of its own.
    let resources = viewers.iter().filter_map(|v| live.actor::<Whep>(*v)?.resource().map(str::to_owned));
    let resources: Vec<String> = resources.collect();
    assert_eq!(resources.len(), viewers.len());
    for path in &resources {
        let gone = http::delete(&node.url(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(gone.status, 200, "{path}: {gone:?}");
    }
    assert_eq!(sessions(&node, "whep"), Vec::<String>::new());
    // Through the manager, which is loop 0: its paths name the loop.
    let whep = format!("/as/v1/proxy/whep/{}", "live/x");
    for _ in 0..MANY {
        let path = node.url(&whep);
        let offer = http::post(&path, "application/sdp", "v=0", LONG).expect("a node answers");
        assert_eq!(offer.status, 400, "an offer without media is told so by the loop: {offer:?}");
        let gone = http::delete(&node.url("/as/v1/proxy/to/n/1/whep-session/01abcdef")).expect("answered");
        assert_eq!((gone.status, gone.body.contains("no such session")), (404, true), "{gone:?}");
    }
    assert_eq!(live.violations, []);
}

#[test]
fn a_process_drains_and_ends_as_a_whole() {
    let _turn = turn();
    let net = Net::fresh();
    let mut node = loops(net, &["--set", "limits.drain_ms=4000"]);
    // Nobody else gets a part of its clients.
    let second = Command::new(headwater_tests::interop::cluster::binary())
        .args(["serve", "--loops", "2", "--bind", &node.ip.to_string()])
        .args(["--set", "cluster.port=5990", "--set", "webrtc.port=8990", "--set", "rtsp.udp_port=8900"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("http.port") && said.contains("address in use by headwater"), "{said}");
    assert_eq!(second.status.code(), Some(1));
    let mut live = Live::new(34);
    publish(&mut live, net, "live/y");
    viewers(&mut live, &node, net, "live/y");
    let drain = |method: &str, name: &str| {
        let url = node.url(&format!("/api/v1/nodes/{name}/drain"));
        let said = Command::new("curl").args(["-s", "-X", method, &url]).output().expect("curl runs");
        assert!(said.stdout.is_empty(), "{}", String::from_utf8_lossy(&said.stdout));
    };
    let draining = |node: &Node| of_loops(node, "draining", "");
    for (method, name, wanted) in [("PUT", "n", 1), ("DELETE", "n/1", 0)] {
        drain(method, name);
        wait::until("the order to reach both loops", LONG, || {
            wait::yes(draining(&node) == [wanted; 2], format!("{:?}", draining(&node)))
        });
        let ready = get(&node, "/readyz");
        assert_eq!((ready.status == 503, get(&node, "/healthz").status), (wanted == 1, 200), "{ready:?}");
    }
    node.signal("TERM");
    // Loop by loop, whoever is done answers for the others until all are.
    wait::until("both loops to drain", LONG, || {
        wait::yes(draining(&node) == [1, 1], format!("{:?}", draining(&node)))
    });
    for _ in 0..MANY {
        assert_eq!((get(&node, "/healthz").status, get(&node, "/readyz").status), (200, 503));
    }
    live.until(LONG, |l| l.violations.len() > 1 || node_ended(&node));
    assert!(node.wait_exit(LONG).success());
    assert_eq!(live.violations, []);
}

fn node_ended(node: &Node) -> bool {
    http::get(&node.url("/healthz")).is_err()
}
