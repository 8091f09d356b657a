//! TLS as real clients speak it: a browser, ffmpeg, openssl.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::browser::Browser;
use headwater_tests::interop::cluster::{Cluster, Net, Node, binary, turn};
use headwater_tests::interop::ffmpeg::{Clip, Ffmpeg};
use headwater_tests::interop::log::Mark;
use headwater_tests::interop::{http, wait};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn node(more: &[&str]) -> Node {
    let mut node = Node::start("n1", "manager,origin,edge", Net::fresh().host(1), None, more);
    node.wait_http("/readyz");
    node
}

fn secure(node: &Node, path: &str) -> String {
    format!("https://{}:5443{path}", node.ip)
}

/// What `openssl` says, errors included.
fn openssl(args: &[&str]) -> String {
    let ran = Command::new("openssl").args(args).stdin(Stdio::null()).output();
    let ran = ran.expect("openssl is not installed; run ./check");
    String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned()
}

/// What a client sees that names `host`.
fn shown(node: &Node, host: &str, more: &[&str]) -> String {
    let at = format!("{}:5443", node.ip);
    openssl(&[&["s_client", "-connect", &at, "-servername", host], more].concat())
}

/// A directory of its own, gone when this is dropped.
struct Files(PathBuf);

impl Files {
    fn new() -> Files {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = std::env::temp_dir().join(format!(
            "headwater-tls-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&dir).expect("there is room for files");
        Files(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }

    /// A certificate for a host and its key, in two files. Written whole: the node may look at any time.
    fn make(&self, host: &str, name: &str) {
        let (key, certificate) = (self.path("new.key"), self.path("new.pem"));
        let said = openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "30",
            "-subj",
            &format!("/CN={host}"),
            "-addext",
            &format!("subjectAltName=DNS:{host}"),
            "-keyout",
            &key,
            "-out",
            &certificate,
        ]);
        assert!(Path::new(&certificate).exists(), "{said}");
        std::fs::rename(key, self.path(&format!("{name}.key"))).expect("a file can be renamed");
        std::fs::rename(certificate, self.path(&format!("{name}.pem"))).expect("a file can be renamed");
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[test]
fn a_camera_and_its_viewer_on_secure_pages_of_an_address_that_is_not_localhost() {
    let _turn = turn();
    let node = node(&[]);
    let (camera, viewer) = (Browser::trusting(), Browser::trusting());
    camera.visit(&secure(&node, "/publish/live/cam?source=camera&start"));
    assert_eq!(camera.eval("return window.isSecureContext"), true);
    camera.wait_state("Live");
    viewer.visit(&secure(&node, "/watch/live/cam"));
    viewer.wait_state("Live");
}

#[test]
fn what_is_published_and_played_over_tls_goes_on_while_certificates_are_renewed() {
    let _turn = turn();
    let files = Files::new();
    files.make("a.example", "a");
    files.make("b.example", "b");
    let mut node = node(&[
        "--set",
        &format!("tls.certificates={},{}", files.path("a.pem"), files.path("b.pem")),
        "--set",
        &format!("tls.keys={},{}", files.path("a.key"), files.path("b.key")),
        "--set",
        "limits.tls_reload_ms=300",
    ]);
    node.wait_log(Mark::default(), LONG, &["TLS is ready", "a.example, b.example"]);
    for (host, subject) in
        [("a.example", "a.example"), ("b.example", "b.example"), ("other.example", "a.example")]
    {
        let said = shown(&node, host, &["-alpn", "h2,http/1.1"]);
        assert!(
            said.contains(&format!("CN = {subject}")) && said.contains("ALPN protocol: http/1.1"),
            "{said}"
        );
    }
    assert!(shown(&node, "a.example", &["-tls1_2"]).contains("TLSv1.2, Cipher is"));
    assert!(!shown(&node, "a.example", &["-tls1_1"]).contains("Cipher is ECDHE"));
    // Neither without forward secrecy nor with a MAC that is put on before the cipher (RFC 9325, 4.2).
    for cipher in
        ["AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256"]
    {
        let said = shown(&node, "a.example", &["-tls1_2", "-cipher", cipher]);
        assert!(said.contains("Cipher is (NONE)"), "{cipher}: {said}");
    }

    let url = format!("rtmps://{}:1936/live/secure", node.ip);
    let mut publisher = Ffmpeg::publish(&url, Clip::default());
    node.wait_log(Mark::default(), LONG, &["publisher accepted"]);
    let from =
        [&url, &format!("rtsps://{}:8555/live/secure", node.ip), &secure(&node, "/flv/live/secure.flv")];
    let mut players = from.map(|url| Ffmpeg::play(url));
    players.iter_mut().for_each(|player| player.wait_more_frames(25, LONG));

    let before = node.log.mark();
    files.make("c.example", "b");
    node.wait_log(before, LONG, &["new certificates are in use", "a.example, c.example"]);
    assert!(shown(&node, "c.example", &[]).contains("CN = c.example"));
    let before = node.log.mark();
    std::fs::write(files.path("a.pem"), "nonsense").expect("a file can be written");
    node.wait_log(before, LONG, &["error", "a.pem holds no certificate", "from before stay in use"]);
    assert!(shown(&node, "a.example", &[]).contains("CN = a.example"));
    players.iter_mut().for_each(|player| player.wait_more_frames(25, LONG));
    let run = publisher.runs() && players.iter_mut().all(Ffmpeg::runs);
    assert!(run, "sessions keep the certificate that they began with");

    // With the damaged file it would not start.
    node.kill();
    let before = node.log.mark();
    node.start_again();
    assert_eq!(node.wait_exit(LONG).code(), Some(2));
    node.wait_log(before, LONG, &["tls.certificates", "a.pem holds no certificate"]);
}

#[test]
fn a_browser_publishes_and_plays_through_the_manager_alone() {
    let _turn = turn();
    let cluster = Cluster::start();
    let (page, from) = (Browser::trusting(), secure(&cluster.manager, "/as/v1/proxy"));
    // A secure page of another origin than the manager; nodes have no certificates that it would take.
    page.open(&secure(&cluster.edge, "/"));
    let location = page.eval(&format!("return await hw.whip('cam', '{from}/whip/live/px')"));
    assert!(location.as_str().is_some_and(|l| l.contains("/as/v1/proxy/to/o1/")), "{location}");
    cluster.play_at("live/px");
    page.eval(&format!("return await hw.whep('tv', '{from}/whep/live/px')"));
    page.eval("return await hw.moving('tv')");
    for session in ["tv", "cam"] {
        assert_eq!(page.eval(&format!("return await hw.end('{session}')")), 200, "{session}");
    }
    let refused = page.eval(&format!(
        "return (await fetch('{from}/whip/live/px?host=127.0.0.1', {{method: 'POST', body: 'v=0', headers: \
         {{'Content-Type': 'application/sdp'}}}})).status"
    ));
    assert_eq!(refused, 403);
}

#[test]
fn what_was_said_over_tls_is_recorded_and_replays() {
    let _turn = turn();
    let files = Files::new();
    let file = files.path("run.rec");
    let mut node = node(&["--record", &file]);
    let said = shown(&node, "localhost", &[]);
    assert!(said.contains("TLS_AES_128_GCM_SHA256") && said.contains("CN = Headwater"), "{said}");
    node.signal("TERM");
    node.wait_exit(LONG);
    let replay = Command::new(binary()).args(["replay", &file]).output().expect("headwater runs");
    let said = String::from_utf8_lossy(&replay.stdout).into_owned();
    assert!(replay.status.success() && said.contains("reproduced bit for bit"), "{said}");
}

#[test]
fn a_secure_page_signals_through_the_manager_and_media_goes_straight() {
    let _turn = turn();
    let mut cluster = Cluster::start();
    let manager = format!("{}:5443", cluster.manager.ip);
    let page = Browser::trusting();
    page.open_dialect(&secure(&cluster.edge, "/"));
    let place = |action: &str| {
        let url = format!("https://{manager}/streammanager/api/4.0/event/live/one?action={action}");
        let host = page.eval(&format!("return (await (await fetch('{url}')).json()).serverAddress"));
        host.as_str().expect("an address").to_owned()
    };
    let proxies = || http::get(&cluster.manager.url("/api/v1/proxies")).and_then(|a| a.ok_json());
    let host = place("broadcast");
    assert_eq!(host, cluster.origin.ip.to_string());
    page.eval(&format!(
        "await hw.ws.publish('camera', 'wss://{manager}/streammanager/?id=one&host={host}&app=live', 'one'); \
         await hw.ws.onChannel('camera')"
    ));
    cluster.play_at("live/one");
    let host = place("subscribe");
    page.eval(&format!(
        "await hw.ws.subscribe('viewer', 'wss://{manager}/streammanager/?id=subscriber-1&host={host}&app=live', 'one'); \
         await hw.moving('viewer'); await hw.ws.onChannel('viewer')"
    ));
    // Both went over to their data channels; the manager carries nothing any more.
    wait::until("no proxied websockets", LONG, || {
        let all = proxies()?;
        wait::yes(all["proxies"].as_array().is_some_and(Vec::is_empty), all.to_string())
    });

    // The second generation leaves the choice to the manager. Then the origin dies in the middle.
    page.eval(&format!(
        "await hw.ws.publish('other', 'wss://{manager}/as/v1/proxy/ws/publish/live/two?id=two&nodeGroup=default', 'two', \
         {{switches: false}})"
    ));
    let open = proxies().expect("the manager answers")["proxies"][0].clone();
    assert_eq!(
        (&open["state"], &open["secure"], &open["node"]),
        (&"open".into(), &true.into(), &"o1".into()),
        "{open}"
    );
    page.eval("window.died = performance.now()");
    cluster.origin.kill();
    page.eval("await hw.ws.wait('other', 'error')");
    let ended = "await hw.until('a close', 5000, () => hw.ws.log('other').includes('closed 1014')); \
                 return performance.now() - window.died";
    let ms = page.eval(ended).as_f64().unwrap_or(f64::MAX);
    println!("told {ms:.0} ms after the origin was killed");
    assert!(ms < 5_000.0, "{ms} ms");
}
