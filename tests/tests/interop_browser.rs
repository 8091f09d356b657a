//! A page of another origin than the manager, in a real browser, on secure addresses: manager, two origins in two regions and
//! two edges as processes of their own; every way in, and what happens when the chosen origin dies.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::aiortc::Aiortc;
use headwater_tests::interop::browser::Browser;
use headwater_tests::interop::cluster::{Net, Node, SETTLE, turn};
use headwater_tests::interop::ffmpeg::Ffmpeg;
use headwater_tests::interop::{http, wait};
use serde_json::Value;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
/// The cluster's lease in these tests, milliseconds.
const LEASE: u64 = 2_000;

/// A manager, and in each of two regions an origin and an edge.
struct Wide {
    manager: Node,
    origins: [Node; 2],
    edges: [Node; 2],
}

impl Wide {
    fn start() -> Wide {
        let net = Net::fresh();
        let lease = format!("limits.lease_ms={LEASE}");
        let hub = net.host(1);
        let manager = Node::start("m1", "manager", hub, None, &["--set", &lease]);
        let node = |role: &str, host: u8, region: &str| {
            let region = format!("node.region={region}");
            let name = format!("{role}-{}", &region[12..]);
            Node::start(&name, role, net.host(host), Some(hub), &["--set", &region, "--set", &lease])
        };
        let origins = [node("origin", 2, "eu"), node("origin", 3, "us")];
        let edges = [node("edge", 4, "eu"), node("edge", 5, "us")];
        let mut wide = Wide { manager, origins, edges };
        let nodes = std::iter::once(&mut wide.manager).chain(&mut wide.origins).chain(&mut wide.edges);
        nodes.for_each(|n| n.wait_http("/readyz"));
        wait::until("all nodes at the manager", SETTLE, || {
            let nodes = http::get(&wide.manager.url("/api/v1/nodes"))?.ok_json()?;
            let there = nodes["nodes"].as_array().map_or(0, Vec::len);
            wait::yes(there == 5, nodes.to_string())
        });
        wide
    }

    /// The manager's secure address.
    fn secure(&self) -> String {
        format!("https://{}:5443", self.manager.ip)
    }

    /// A page of another origin than the manager, with the manager's client in it as `hc`.
    fn page(&self) -> Browser {
        let page = Browser::trusting();
        // Not one of the pages: those take scripts of their own host only.
        page.open_dialect(&format!("https://{}:5443/healthz", self.edges[0].ip));
        page.eval(&format!("window.manager = '{}'; {HELPERS}", self.secure()));
        page
    }

    fn proxies(&self) -> Vec<Value> {
        let all = http::get(&self.manager.url("/api/v1/proxies")).and_then(|a| a.ok_json());
        all.expect("the manager answers")["proxies"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until viewers are sent somewhere for a stream.
    fn wait_known(&self, stream: &str) {
        let url = self.manager.url(&format!("/streammanager/api/4.0/event/{stream}?action=subscribe"));
        wait::until(&format!("{stream} to be known"), LONG, || http::get(&url)?.ok_json().map(drop));
    }
}

/// What the tests do with `/client.js`, and WHIP and WHEP in the manager's dialect.
const HELPERS: &str = "
  window.hc = await import(manager + '/client.js');
  window.all = {};
  const media = () => navigator.mediaDevices.getUserMedia({ video: true, audio: true });
  window.pub = async (name, key, options) => {
    all[name] = hc.publish(key, await media(), { manager, ...options });
    all[name].said = [];
    all[name].addEventListener('state', () => all[name].said.push(all[name].text));
  };
  window.sub = (name, key, options) => {
    const video = document.createElement('video');
    video.muted = true; video.playsInline = true;
    document.body.append(video);
    const s = all[name] = hc.subscribe(key, { manager, video, ...options });
    s.heard = []; s.said = [];
    s.addEventListener('data', (e) => s.heard.push(e.detail));
    s.addEventListener('state', () => s.said.push(s.text));
  };
  window.is = (name, state, ms = 30000) => hw.until(`${name} to be ${state}`, ms, () => all[name].state === state)
    .catch((e) => { throw new Error(`${e.message}: ${all[name].state}: ${all[name].said.join(' | ')}`); });
  window.plays = async (name, frames = 25) => {
    await is(name, 'live');
    const from = all[name].numbers?.frames ?? 0;
    await hw.until(`${name} to show more`, 30000, () => (all[name].numbers?.frames ?? 0) >= from + frames);
    await hw.until(`${name} to sound`, 30000, () => (all[name].numbers?.bytes.audio ?? 0) > 0);
  };
  window.node = (name) => all[name].node;
  // The dialect's WHIP and WHEP: OPTIONS says which host, the offer of a viewer is the server's.
  window.asked = async (url) => {
    const options = await fetch(url, { method: 'OPTIONS' });
    if (!options.ok) throw new Error(`OPTIONS ${url}: ${options.status}`);
    if (!/^<stun:/.test(options.headers.get('Link'))) throw new Error('no STUN server in one Link header');
    return options.headers.get('Session-Host');
  };
  window.dialectWhep = async (name, key) => {
    const url = `${manager}/as/v1/proxy/whep/${key}?requestId=subscriber-a493&signal=true&nodeGroup=default`;
    const host = await asked(url);
    const sdp = { 'Content-Type': 'application/sdp' };
    const post = await fetch(`${url}&transport=udp&doNotSwitch=false&host=${host}`, { method: 'POST', headers: sdp, body: 'v=0' });
    if (post.status !== 201) throw new Error(`POST: ${post.status} ${await post.text()}`);
    const resource = new URL(post.headers.get('Location'), url).href;
    const session = hw.inside.newSession(name);
    const video = document.createElement('video');
    video.muted = true; video.autoplay = true; video.srcObject = new MediaStream();
    document.body.append(video);
    session.video = video;
    const onFrame = () => { session.frames += 1; video.requestVideoFrameCallback(onFrame); };
    video.requestVideoFrameCallback(onFrame);
    session.pc.ontrack = (event) => video.srcObject.addTrack(event.track);
    await session.pc.setRemoteDescription({ type: 'offer', sdp: await post.text() });
    session.pc.createDataChannel('red5pro');
    await session.pc.setLocalDescription(await session.pc.createAnswer());
    const tail = `?requestId=subscriber-a493&nodeGroup=default&host=${host}`;
    const answer = await fetch(resource + tail, { method: 'PATCH', headers: sdp, body: session.pc.localDescription.sdp });
    if (answer.status !== 204) throw new Error(`PATCH: ${answer.status} ${await answer.text()}`);
    await hw.moving(name);
    session.pc.close();
    return (await fetch(resource + tail, { method: 'DELETE' })).status;
  };
  window.dialectWhip = async (name, key) => {
    const url = `${manager}/as/v1/proxy/whip/${key}?signal=true&nodeGroup=default`;
    const host = await asked(url);
    return hw.whip(name, `${url}&mode=live&transport=udp&keyFramerate=3000&host=${host}`);
  };
  return true;";

#[test]
fn a_page_of_another_origin_publishes_and_watches_by_every_way_in_the_region_it_asked_for() {
    let _turn = turn();
    let wide = Wide::start();
    let page = wide.page();
    let at =
        |name: &str| page.eval(&format!("return node('{name}')")).as_str().unwrap_or_default().to_owned();

    // REST, secure websocket through the manager, ICE, DTLS, SRTP; then everything over the data channel.
    page.eval("await pub('cam', 'live/ws', { via: 'ws', region: 'us' }); await is('cam', 'live')");
    assert_eq!(at("cam"), wide.origins[1].ip.to_string());
    wide.wait_known("live/ws");
    page.eval("sub('tv', 'live/ws', { via: 'ws', region: 'eu' }); await plays('tv')");
    assert_eq!(at("tv"), wide.edges[0].ip.to_string());
    wait::until("no proxied websockets", LONG, || {
        let left = wide.proxies();
        wait::yes(left.is_empty(), format!("{left:?}"))
    });
    page.eval("await hw.until('data', 10000, () => all.cam.send('hello', { n: 7 }) && all.tv.heard.some(d => d.method === 'hello' && d.data.n === 7))");

    // The same stream by WHEP, the same page by WHIP; and plain RFC 9725 beside them.
    page.eval("sub('whep', 'live/ws', { region: 'us', data: true }); await plays('whep')");
    assert_eq!(at("whep"), wide.edges[1].ip.to_string());
    page.eval("await hw.until('data', 10000, () => all.cam.send('bye', 1) && all.whep.heard.some(d => d.method === 'bye'))");
    page.eval("await pub('whip', 'live/whip', { region: 'eu' }); await is('whip', 'live')");
    assert_eq!(at("whip"), wide.origins[0].ip.to_string());
    wide.wait_known("live/whip");
    page.eval("sub('tv2', 'live/whip', { via: 'ws', data: false }); await plays('tv2')");
    assert_eq!(wide.proxies().len(), 1, "without a data channel the websocket stays");
    page.eval("await hw.whip('plain', manager + '/as/v1/proxy/whip/live/plain')");
    wide.wait_known("live/plain");
    page.eval(
        "await hw.whep('plain-tv', manager + '/as/v1/proxy/whep/live/plain'); await hw.moving('plain-tv')",
    );

    // The dialect's own WHIP and WHEP.
    page.eval("await dialectWhip('old', 'live/old')");
    wide.wait_known("live/old");
    assert_eq!(page.eval("return await dialectWhep('old-tv', 'live/old')"), 200);

    // A name is taken on whichever node it is published.
    page.eval("await pub('second', 'live/ws', { via: 'ws', region: 'eu' })");
    page.eval("await hw.until('a refusal', 10000, () => all.second.status === 409)");
    let said = page.eval("return all.second.text");
    assert!(said.as_str().is_some_and(|t| t.contains("being published")), "{said}");
    // Also where a client comes without having asked the manager.
    let socket = format!("wss://{}:5443/live/?id=ws", wide.origins[0].ip);
    let taken = page.try_eval(&format!("await hw.ws.publish('other', '{socket}', 'ws')"));
    assert!(taken.is_err_and(|e| e.contains("the name is taken")), "isAvailable asks the whole cluster");

    // An orderly end is told at once, and a viewer waits for the next publisher.
    page.eval("all.second.stop(); all.cam.stop(); await is('tv', 'waiting')");
}

#[test]
fn regions_that_are_draining_or_strict_and_origins_that_die_in_the_middle() {
    let _turn = turn();
    let mut wide = Wide::start();
    let page = wide.page();
    let at =
        |name: &str| page.eval(&format!("return node('{name}')")).as_str().unwrap_or_default().to_owned();

    // Nothing there: strict is refused in words, others get the next.
    page.eval("await pub('strict', 'live/s', { via: 'ws', region: 'mars', strict: true })");
    page.eval("await hw.until('words', 10000, () => /mars/.test(all.strict.text)); all.strict.stop()");
    let drain = wide.manager.url("/api/v1/nodes/origin-us/drain");
    page.eval("await pub('next', 'live/n', { via: 'ws', region: 'mars' }); await is('next', 'live'); all.next.stop()");
    let drained = std::process::Command::new("curl").args(["-sf", "-X", "PUT", &drain]).status();
    assert!(drained.is_ok_and(|s| s.success()), "{drain}");
    page.eval("await pub('drained', 'live/d', { via: 'ws', region: 'us' }); await is('drained', 'live')");
    assert_eq!(at("drained"), wide.origins[0].ip.to_string(), "us takes nothing new");
    let undone = std::process::Command::new("curl").args(["-sf", "-X", "DELETE", &drain]).status();
    assert!(undone.is_ok_and(|s| s.success()));

    // A viewer in us watches what is published in eu. eu's origin dies: the publisher goes elsewhere by itself, and the
    // viewer stays on the connection that it has.
    wide.wait_known("live/d");
    page.eval(
        "sub('tv', 'live/d', { via: 'ws', region: 'us' }); await plays('tv'); window.before = all.tv.pc",
    );
    // Another publisher is in the middle of its signalling with that origin.
    let socket = format!("ws{}/as/v1/proxy/ws/publish/live/m", &wide.secure()[4..]);
    let half = |name: &str, region: &str| {
        page.eval(&format!(
            "const s = window.{name} = new WebSocket('{socket}?id=m&strict=true&region={region}'); s.heard = [];
             s.onmessage = (e) => {{ s.heard.push(e.data); if (/\"error\"/.test(e.data)) s.told ??= performance.now(); }};
             s.onclose = (e) => {{ s.ended = e; }};
             await hw.until('a greeting', 10000, () => s.heard.length > 0);
             s.send(JSON.stringify({{ isAvailable: 'm', bundle: true }}));
             await hw.until('an answer', 10000, () => s.heard.length > 1);
             window.died = performance.now();"
        ));
    };
    let told = |name: &str| {
        let body = format!(
            "await hw.until('an error', 20000, () => {name}.told && {name}.ended); \
             return [{name}.told - died, {name}.heard.at(-1), {name}.ended.code]"
        );
        let got = page.eval(&body);
        (got[0].as_f64().unwrap_or(f64::MAX), got[1].to_string(), got[2].clone())
    };
    half("killed", "eu");
    wide.origins[0].kill();
    let (ms, words, code) = told("killed");
    println!("killed: told after {ms:.0} ms: {words} ({code})");
    assert!(ms < 1_000.0 && words.contains("503"), "{ms} ms: {words}");
    let us = wide.origins[1].ip.to_string();
    page.eval(&format!("await hw.until('another origin', 60000, () => node('drained') === '{us}')"));
    page.eval("await is('drained', 'live')");
    page.eval("await plays('tv')");
    assert_eq!(
        page.eval("return all.tv.pc === before && all.tv.pc.connectionState"),
        "connected",
        "the viewer stayed"
    );

    // Silence instead of death: within the lease and a second.
    half("silent", "us");
    wide.origins[1].signal("STOP");
    let (ms, words, code) = told("silent");
    println!("silent: told after {ms:.0} ms: {words} ({code})");
    assert!(ms < (LEASE + 1_000) as f64 && words.contains("503"), "{ms} ms: {words}");
    // With no origin left the client says so and goes on trying; then one is back.
    page.eval("await pub('again', 'live/again', { via: 'ws' }); await hw.until('words', 20000, () => all.again.said.some(t => /trying again/.test(t)))");
    wide.origins[0].start_again();
    wide.origins[0].wait_http("/readyz");
    page.eval("await is('again', 'live', 60000)");
    assert_eq!(at("again"), wide.origins[0].ip.to_string());
    wide.origins[1].signal("CONT");
}

/// Clients that know WHIP (RFC 9725) and WHEP and nothing of the manager's dialect, side by side in one cluster: through the
/// manager or at a node, and each is seen by others than its own kind.
#[test]
fn plain_clients_of_whip_and_whep_publish_and_play_side_by_side() {
    let _turn = turn();
    let wide = Wide::start();
    let page = wide.page();
    let proxied = |what: &str, name: &str| wide.manager.url(&format!("/as/v1/proxy/{what}/live/{name}"));
    let mut muxer = Ffmpeg::publish_whip(&proxied("whip", "ffmpeg"));
    let aiortc = Aiortc::publish(&wide.origins[1].url("/whip/live/aiortc"), "video/H264");
    page.eval("await hw.whip('cam', manager + '/as/v1/proxy/whip/live/chromium')");
    muxer.wait_more_frames(15, LONG);
    aiortc.wait_more("frame", 15, LONG);
    for name in ["ffmpeg", "aiortc", "chromium"] {
        wide.wait_known(&format!("live/{name}"));
    }
    for (name, at) in [("ffmpeg", wide.secure()), ("aiortc", format!("https://{}:5443", wide.edges[1].ip))] {
        let path = if name == "ffmpeg" { "as/v1/proxy/whep" } else { "whep" };
        page.eval(&format!("await hw.whep('{name}', '{at}/{path}/live/{name}'); await hw.moving('{name}')"));
    }
    let edge = wide.edges[0].url("/whep/live/chromium");
    for url in [proxied("whep", "ffmpeg"), edge] {
        let player = Aiortc::play(&url);
        player.wait_more("frame", 30, LONG);
        player.wait_more("sound", 30, LONG);
    }
    assert!(muxer.runs());
}

/// What passes where UDP does not: only the TCP candidates of an answer reach the page.
#[test]
fn a_page_whose_network_lets_no_udp_through_comes_by_tcp() {
    let _turn = turn();
    let node = |more: &[&str]| {
        let mut node = Node::start("n1", "manager,origin,edge", Net::fresh().host(1), None, more);
        node.wait_http("/readyz");
        node
    };
    let only = "const plain = RTCPeerConnection.prototype.setRemoteDescription; \
                RTCPeerConnection.prototype.setRemoteDescription = function (d) { \
                  const keep = (l) => !l.startsWith('a=candidate:') || PORT.test(l); \
                  const sdp = d.sdp.split('\\r\\n').filter(keep).join('\\r\\n'); \
                  return plain.call(this, { type: d.type, sdp }); }; \
                const add = RTCPeerConnection.prototype.addIceCandidate; \
                RTCPeerConnection.prototype.addIceCandidate = function (c) { \
                  return PORT.test(c.candidate) ? add.call(this, c) : Promise.resolve(); };";
    for (more, port) in [(&[][..], 8189), (&["--set", "webrtc.tcp_on_https=true"][..], 5443)] {
        let node = node(more);
        let page = Browser::trusting();
        page.open_dialect(&format!("https://{}:5443/", node.ip));
        page.eval(&format!("window.manager = 'https://{}:5443'; {HELPERS}", node.ip));
        page.eval(&only.replace("PORT", &format!("/ tcp \\d+ [0-9.]+ {port} /")));
        page.eval("await pub('cam', 'live/tcp', { via: 'ws' }); await is('cam', 'live')");
        for (name, via) in [("lean", "whip"), ("whole", "ws")] {
            page.eval(&format!("sub('{name}', 'live/tcp', {{ via: '{via}' }}); await plays('{name}')"));
            let over = page.eval(&format!("return all.{name}.numbers.over"));
            assert_eq!(over, "tcp", "{name} at port {port}");
        }
        assert_eq!(page.eval("return all.cam.numbers.over"), "tcp");
        let sessions = http::get(&node.url("/api/v1/sessions")).and_then(|a| a.ok_json()).expect("sessions");
        assert_eq!(sessions["sessions"].as_array().map(Vec::len), Some(3), "{sessions}");
    }
}
