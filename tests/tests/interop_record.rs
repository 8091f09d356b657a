//! From incident to test, with real processes: what a node does in front of ffmpeg and Chromium is recorded, and another
//! process does the same bit for bit.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::browser::Browser;
use headwater_tests::interop::cluster::{Net, Node, binary, turn};
use headwater_tests::interop::ffmpeg::{Clip, Ffmpeg};
use headwater_tests::interop::{http, wait};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// A directory of one test; it is removed when this is dropped.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("headwater-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a new directory can be made");
        Dir(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn recording(file: &Path, more: &[&str]) -> Node {
    let mut args = vec!["--record", file.to_str().expect("the path is text")];
    args.extend(more);
    let mut node = Node::start("n1", "manager,origin,edge", Net::fresh().host(1), None, &args);
    node.wait_http("/readyz");
    node
}

struct Replayed {
    code: Option<i32>,
    out: String,
    err: String,
}

fn replay(file: &Path, more: &[&str]) -> Replayed {
    let Output { status, stdout, stderr } =
        Command::new(binary()).arg("replay").arg(file).args(more).output().expect("replay runs");
    let text = |bytes| String::from_utf8(bytes).expect("replay prints text");
    Replayed { code: status.code(), out: text(stdout), err: text(stderr) }
}

impl Replayed {
    fn says(&self, code: i32, out: &[&str], err: &[&str]) {
        let all = |text: &str, words: &[&str]| words.iter().all(|w| text.contains(w));
        let good = self.code == Some(code) && all(&self.out, out) && all(&self.err, err);
        assert!(good, "wanted {code} {out:?} {err:?}, got {:?}\n{}\n{}", self.code, self.out, self.err);
    }

    /// What replay prints of the whole trace, as one number.
    fn digest(&self) -> String {
        let line = self.out.lines().find_map(|l| l.strip_prefix("reproduced bit for bit: "));
        line.unwrap_or_else(|| panic!("no digest: {}\n{}", self.out, self.err)).to_owned()
    }
}

#[test]
fn what_ffmpeg_and_chromium_saw_is_reproduced_bit_for_bit() {
    let _turn = turn();
    let dir = Dir::new("record");
    let file = dir.file("incident.rec");
    let mut node = recording(&file, &[]);
    let mode = std::fs::metadata(&file).expect("the file is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the file holds secrets");
    node.wait_log(Default::default(), LONG, &["secrets"]);
    node.wait_log(Default::default(), LONG, &["seeded cryptography"]);

    let browser = Browser::start();
    let mut publisher = Ffmpeg::publish(&node.rtmp("live/a"), Clip::default());
    publisher.wait_more_frames(25, LONG);
    browser.open(&node.url("/"));
    browser.eval(&format!("return await hw.whep('viewer', '{}')", node.url("/whep/live/a")));
    browser.eval("await hw.moving('viewer')");
    browser.eval(&format!("return await hw.whip('camera', '{}')", node.url("/whip/live/b")));
    browser.eval(&format!("return await hw.whep('other', '{}')", node.url("/whep/live/b")));
    browser.eval("await hw.moving('other'); await hw.sounding('other')");
    assert_eq!(browser.eval("return await hw.end('viewer')"), 200);
    let mut player = Ffmpeg::play(&node.rtmp("live/b"));
    player.wait_more_frames(25, LONG);
    player.kill();
    publisher.kill();
    drop(browser);
    node.signal("TERM");
    assert!(node.wait_exit(LONG).success());

    let first = replay(&file, &[]);
    let version = format!("recorded by headwater {0}, replayed by headwater {0}", env!("CARGO_PKG_VERSION"));
    first.says(0, &[&version, "goes on to the end of the node", "reproduced bit for bit: "], &[]);
    assert_eq!(replay(&file, &[]).digest(), first.digest(), "every time the same");
    assert_eq!(std::fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);

    let trace = replay(&file, &["--trace"]);
    assert_eq!(trace.digest(), first.digest());
    trace.says(0, &[" accepted ", " datagram ", "DTLS", "STUN", "SRTP", "publisher accepted"], &[]);
    let part = replay(&file, &["--trace", "--from", "1", "--to", "1.5"]);
    let times = part.out.lines().filter(|l| l.contains(" > ")).map(|l| l.split_whitespace().next());
    let times: Vec<f64> = times.map(|t| t.and_then(|t| t.parse().ok()).expect("a time")).collect();
    assert!(!times.is_empty() && times.iter().all(|t| (1.0..=1.5).contains(t)), "{times:?}");
    assert!(part.out.len() < trace.out.len());

    damaged_files_are_told_apart(&dir, &file);
}

fn damaged_files_are_told_apart(dir: &Dir, file: &Path) {
    let whole = std::fs::read(file).expect("the recording can be read");
    let other = dir.file("other.rec");
    let with = |bytes: &[u8]| {
        std::fs::write(&other, bytes).expect("a file can be written");
        replay(&other, &[])
    };
    let middle = whole.len() / 2;
    let mut changed = whole.clone();
    changed[middle] ^= 1;
    with(&changed).says(1, &["inputs in "], &["other.rec", "the file is damaged"]);
    with(&whole[..middle]).says(0, &["the recording has no end", "reproduced bit for bit"], &[]);
    with(&whole[..30]).says(1, &[], &["cut off before anything was recorded"]);
    let mut version = whole.clone();
    version[21] += 1;
    with(&version).says(2, &[], &["has format 2", "reads format 1 only"]);
    with(b"#!/bin/sh\nexit 0\n").says(2, &[], &["this is no recording"]);
    replay(&dir.file("missing.rec"), &[]).says(2, &[], &["cannot be opened"]);
}

#[test]
fn each_node_of_a_cluster_is_reproduced_and_a_killed_one_up_to_its_last_second() {
    let _turn = turn();
    let dir = Dir::new("record-cluster");
    let net = Net::fresh();
    let files = ["m.rec", "o.rec", "e.rec"].map(|name| dir.file(name));
    let start = |n: u8, name: &str, roles: &str| {
        let file = files[usize::from(n) - 1].to_str().expect("the path is text");
        let manager = (n > 1).then(|| net.host(1));
        let mut node = Node::start(name, roles, net.host(n), manager, &["--record", file]);
        node.wait_http(if n > 1 { "/readyz" } else { "/healthz" });
        node
    };
    let mut manager = start(1, "m1", "manager");
    let (mut origin, mut edge) = (start(2, "o1", "origin"), start(3, "e1", "edge"));
    let mut publisher = Ffmpeg::publish(&origin.rtmp("live/a"), Clip::default());
    publisher.wait_more_frames(25, LONG);
    let mut player = Ffmpeg::play(&edge.rtmp("live/a"));
    player.wait_more_frames(25, LONG);
    let size = || std::fs::metadata(&files[1]).map(|m| m.len()).map_err(|e| e.to_string());
    let seen = size().expect("the file is there");
    wait::until("the recording to grow", LONG, || {
        let now = size()?;
        wait::yes(now > seen, format!("{now} bytes"))
    });
    origin.kill();
    publisher.wait_exit(LONG);
    player.kill();
    for node in [&mut edge, &mut manager] {
        node.signal("TERM");
        node.signal("INT");
        assert!(node.wait_exit(LONG).success());
    }
    let [m, o, e] = files.each_ref().map(|file| replay(file, &["--trace"]));
    m.says(0, &["goes on to the end of the node", "reproduced bit for bit", " link "], &[]);
    o.says(0, &["the recording has no end", "reproduced bit for bit", "publisher accepted"], &[]);
    e.says(0, &["goes on to the end of the node", "reproduced bit for bit", " dial "], &[]);

    let before = std::fs::read(&files[1]).expect("it can be read");
    let again = Command::new(binary())
        .args(["serve", "--bind", &origin.ip.to_string(), "--record"])
        .arg(&files[1])
        .output()
        .expect("it runs");
    assert_eq!(again.status.code(), Some(1));
    let words = String::from_utf8_lossy(&again.stderr);
    assert!(words.contains("the file exists, and recordings are never overwritten"), "{words}");
    assert!(std::fs::read(&files[1]).expect("it can be read") == before);
}

#[test]
fn at_its_limit_a_recording_ends_and_the_node_runs_on() {
    let _turn = turn();
    let dir = Dir::new("record-limit");
    let file = dir.file("incident.rec");
    let limit = 96 << 10;
    let mut node = recording(&file, &["--record-limit", "96K"]);
    let mut publisher = Ffmpeg::publish(&node.rtmp("live/a"), Clip::default());
    let line = node.wait_log(Default::default(), LONG, &["has reached its limit", "the node runs on"]);
    assert!(line.contains("98304 bytes"), "{line}");
    publisher.wait_more_frames(25, LONG);
    assert_eq!(http::get(&node.url("/healthz")).map(|a| a.status), Ok(200));
    let size = std::fs::metadata(&file).expect("it is there").len();
    assert!((limit / 2..=limit).contains(&size), "{size} bytes");
    node.signal("TERM");
    node.signal("INT");
    assert!(node.wait_exit(LONG).success());
    let told = node.log.tail(1000).matches("has reached its limit").count();
    assert_eq!(told, 1, "it is said once");
    replay(&file, &[]).says(0, &["ended at its limit", "reproduced bit for bit"], &[]);
}
