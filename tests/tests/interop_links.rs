//! Links between real nodes: over QUIC, with an origin that is killed, that ends, and with keys that are replaced.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::cluster::{Net, Node, turn};
use headwater_tests::interop::ffmpeg::{Clip, Ffmpeg};
use headwater_tests::interop::log::{Log, Mark};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);
const STREAM: &str = "live/links";

/// Manager, origin and edge, each with a file of keys of its own.
struct Keyed {
    nodes: [Node; 3],
    files: [PathBuf; 3],
    dir: PathBuf,
    net: Net,
}

impl Drop for Keyed {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

const OLD: &str = "the key before, 32 characters long";
const NEW: &str = "the key after it, 32 characters too";

/// Puts a file in place whole, as an operator's tools do.
fn write(file: &Path, keys: &[&str]) {
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, keys.join("\n") + "\n").expect("a file can be written");
    std::fs::rename(&fresh, file).expect("a file can be renamed");
}

/// The beginning of any log.
fn beginning() -> Mark {
    Log::default().mark()
}

impl Keyed {
    fn start(transport: &str) -> Keyed {
        let dir = std::env::temp_dir().join(format!("headwater-keys-{}-{transport}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory can be made");
        let net = Net::fresh();
        let files = ["m1", "o1", "e1"].map(|name| dir.join(name));
        files.iter().for_each(|f| write(f, &[OLD]));
        let manager = net.host(1);
        let with = |name: &str, roles: &str, n: u8, file: &Path| {
            let keys = format!("cluster.key_file={}", file.display());
            let over = format!("cluster.transport={transport}");
            // A stream that is held for its publisher would keep an origin for as long as it may take to end.
            let drain = "limits.drain_ms=1000";
            let set = ["--set", &keys, "--set", &over, "--set", "limits.tls_reload_ms=200", "--set", drain];
            let mut node = Node::start(name, roles, net.host(n), (n > 1).then_some(manager), &set);
            node.wait_http(if n > 1 { "/healthz" } else { "/readyz" });
            node
        };
        let nodes = [
            with("m1", "manager", 1, &files[0]),
            with("o1", "origin", 2, &files[1]),
            with("e1", "edge", 3, &files[2]),
        ];
        for node in &nodes[1..] {
            node.wait_log(beginning(), LONG, &["stands, over", transport]);
        }
        Keyed { nodes, files, dir, net }
    }

    /// Every node in turn gets these keys.
    fn roll(&self, keys: &[&str], viewer: &mut Ffmpeg) {
        for (node, file) in self.nodes.iter().zip(&self.files) {
            let from = node.log.mark();
            write(file, keys);
            node.wait_log(from, LONG, &["cluster's keys changed"]);
            viewer.wait_more_frames(10, LONG);
        }
    }
}

fn keys_are_replaced_while_viewers_watch(transport: &str) {
    let _turn = turn();
    let cluster = Keyed::start(transport);
    let [_, origin, edge] = &cluster.nodes;
    let mut publisher = Ffmpeg::publish(&origin.rtmp(STREAM), Clip::default());
    publisher.wait_more_frames(10, LONG);
    let mut viewer = Ffmpeg::play(&edge.rtmp(STREAM));
    viewer.wait_more_frames(10, LONG);

    cluster.roll(&[OLD, NEW], &mut viewer);
    cluster.roll(&[NEW, OLD], &mut viewer);
    cluster.roll(&[NEW], &mut viewer);
    viewer.wait_more_frames(50, LONG);
    assert!(publisher.runs() && viewer.runs(), "{}", viewer.log.tail(20));

    // Who has the old key only is let in no more.
    let stale = cluster.dir.join("x1");
    write(&stale, &[OLD]);
    let keys = format!("cluster.key_file={}", stale.display());
    let manager = Some(cluster.net.host(1));
    let late = Node::start("x1", "edge", cluster.net.host(4), manager, &["--set", &keys]);
    late.wait_log(beginning(), LONG, &["does not have this cluster's key"]);

    // Neither key stands in any log.
    for node in cluster.nodes.iter().chain([&late]) {
        let said = node.log.tail(usize::MAX);
        assert!(!said.contains(OLD) && !said.contains(NEW), "{said}");
    }
}

#[test]
fn keys_are_replaced_over_quic_while_viewers_watch() {
    keys_are_replaced_while_viewers_watch("quic");
}

#[test]
fn keys_are_replaced_over_tcp_while_viewers_watch() {
    keys_are_replaced_while_viewers_watch("tcp");
}

/// An origin that dies says nothing by UDP; one that ends does.
#[test]
fn an_origin_that_is_killed_or_ends_comes_back_over_quic() {
    let _turn = turn();
    let mut cluster = Keyed::start("quic");
    for how in ["KILL", "TERM"] {
        let [_, origin, edge] = &mut cluster.nodes;
        let mut publisher = Ffmpeg::publish(&origin.rtmp(STREAM), Clip::default());
        publisher.wait_more_frames(10, LONG);
        let mut viewer = Ffmpeg::play(&edge.rtmp(STREAM));
        viewer.wait_more_frames(10, LONG);
        let (here, there) = (edge.log.mark(), origin.log.mark());
        drop(publisher);
        if how == "KILL" {
            origin.kill();
        } else {
            origin.signal("TERM");
            assert!(origin.wait_exit(LONG).success());
            edge.wait_log(here, LONG, &["closed the connection"]);
        }
        origin.start_again();
        origin.wait_http("/healthz");
        origin.wait_log(there, LONG, &["stands, over QUIC"]);
        let mut publisher = Ffmpeg::publish(&origin.rtmp(STREAM), Clip::default());
        publisher.wait_more_frames(10, LONG);
        let mut viewer_again = Ffmpeg::play(&edge.rtmp(STREAM));
        viewer_again.wait_more_frames(10, LONG);
        edge.wait_log(here, LONG, &["stands, over QUIC"]);
    }
}
