//! The interop tools themselves, against things that are known to work: a tool that cannot fail proves nothing.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::browser::Browser;
use headwater_tests::interop::cluster::turn;
use headwater_tests::interop::ffmpeg::{Clip, Ffmpeg, Sound, probe};
use headwater_tests::interop::wait;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// A web server that gives every request the same page.
fn toy_page() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(&stream).lines();
            while matches!(lines.next(), Some(Ok(line)) if !line.is_empty()) {}
            let page = "<!doctype html><title>toy</title><p>toy</p>";
            // As strict a policy as our own pages may have: it must not stand in the tools' way.
            let policy =
                "Content-Security-Policy: default-src 'none'; script-src 'self'; media-src blob:\r\n";
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{policy}Connection: close\r\nContent-Length:"
            );
            drop(write!(&stream, "{head} {}\r\n\r\n{page}", page.len()));
        }
    });
    url
}

/// Replaces `fetch` by a WHIP and WHEP server in the page, made of the browser's own peer connections: what comes
/// in by WHIP goes out by WHEP.
const TOY_SERVER: &str = r"
    const published = new MediaStream();
    window.fetch = async (url, { method, body }) => {
        if (method === 'DELETE') return { status: 200 };
        const pc = new RTCPeerConnection();
        (window.toys ??= []).push(pc);
        pc.ontrack = e => published.addTrack(e.track);
        if (url.includes('refused')) return { status: 409, text: async () => 'taken', headers: new Headers() };
        await pc.setRemoteDescription({ type: 'offer', sdp: body });
        if (url.includes('whep')) published.getTracks().forEach(t => pc.addTrack(t, published));
        await pc.setLocalDescription(await pc.createAnswer());
        while (pc.iceGatheringState !== 'complete') await new Promise(r => setTimeout(r, 10));
        const headers = new Headers({ Location: '/session/1' });
        return { status: 201, headers, text: async () => pc.localDescription.sdp };
    };";

#[test]
fn the_browser_publishes_and_plays_sound_and_moving_pictures_and_reports_what_fails() {
    let _turn = turn();
    let url = toy_page();
    let browser = Browser::start();
    browser.open(&url);
    assert_eq!(browser.eval("return document.title"), "toy");
    assert!(browser.try_eval("throw new Error('broken on purpose')").unwrap_err().contains("on purpose"));

    browser.eval(TOY_SERVER);
    let refused = browser.try_eval("await hw.whip('x', 'http://toy/refused')").unwrap_err();
    assert!(refused.contains("409") && refused.contains("taken"), "{refused}");
    browser.eval("await hw.whip('pub', 'http://toy/whip')");
    let first = browser.eval("return await hw.whep('view', 'http://toy/whep')");
    assert!(first.as_f64().is_some_and(|ms| ms > 0.0), "{first}");
    browser.eval("await hw.moving('view'); await hw.sounding('view')");
    let stats = browser.eval("return await hw.stats('view')");
    assert_eq!(stats["state"], "connected", "{stats}");
    assert!(stats["framesDecoded"].as_u64() >= Some(25), "{stats}");
    // The toy decodes what it is sent, so this Chromium both makes and plays H.264.
    let sent = browser.eval("return await hw.stats('pub')");
    assert!(sent["codecs"].to_string().contains("video/H264"), "{sent}");
    assert!(sent["framesSent"].as_u64() >= Some(25), "{sent}");

    // The checks must see when picture and sound stop.
    browser.eval("hw.sessions.pub.media.getTracks().forEach(t => t.stop())");
    let frozen = browser.try_eval("await hw.moving('view', {ms: 3000})").unwrap_err();
    assert!(frozen.contains("in vain"), "{frozen}");
    let silent = browser.try_eval("await hw.sounding('view', 3000)").unwrap_err();
    assert!(silent.contains("in vain"), "{silent}");
    assert_eq!(browser.eval("return await hw.end('view')"), 200);
    assert!(browser.screenshot().unwrap().len() > 100);
}

#[test]
fn ffmpeg_makes_the_clip_that_was_asked_for_and_counts_what_it_plays() {
    let _turn = turn();
    let file = std::env::temp_dir().join(format!("headwater-clip-{}.mkv", std::process::id()));
    let path = file.to_string_lossy().into_owned();
    let clip = Clip { seconds: 2, gop: 10, sound: Sound::Opus, ..Clip::default() };
    assert!(Ffmpeg::publish(&path, clip).wait_exit(LONG).success());
    let seen = probe(&path).unwrap();
    assert_eq!(seen["streams"][0]["codec_name"], "h264", "{seen}");
    assert_eq!(seen["streams"][0]["has_b_frames"], 0, "{seen}");
    assert_eq!(seen["streams"][1]["codec_name"], "opus", "{seen}");
    let mut player = Ffmpeg::play(&path);
    assert!(player.wait_exit(LONG).success());
    let end = player.frames();
    drop(std::fs::remove_file(&file));
    assert_eq!(end, 50, "{}", player.log.tail(20));
    assert!(probe(&path).is_err());
}

#[test]
fn a_player_of_nothing_fails_and_says_so() {
    let _turn = turn();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut player = Ffmpeg::play(&format!("rtmp://127.0.0.1:{port}/live/nothing"));
    assert!(!player.wait_exit(LONG).success());
    assert_eq!(player.frames(), 0);
    assert!(player.log.tail(20).contains("refused"), "{}", player.log.tail(20));
}

#[test]
fn a_publisher_speaks_rtmp_and_can_be_frozen_woken_and_killed() {
    let _turn = turn();
    for clip in [Clip::default(), Clip { heavy: true, b_frames: 2, ..Clip::default() }] {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("rtmp://127.0.0.1:{port}/live/toy");
        let mut server = Ffmpeg::listen(&url);
        let mut publisher = wait::until("the server to listen", LONG, || {
            let mut ffmpeg = Ffmpeg::publish(&url, clip);
            let up = wait::try_until(LONG, || match (ffmpeg.frames() > 0, ffmpeg.runs()) {
                (true, true) => Ok(true),
                (_, false) => Ok(false),
                _ => Err(()),
            });
            if up == Ok(true) { Ok(ffmpeg) } else { Err(ffmpeg.log.tail(3)) }
        });
        server.wait_more_frames(30, LONG);
        publisher.freeze();
        // What was under way arrives; then nothing more does for 25 looks, though the connection stands.
        let (mut last, mut still) = (server.frames(), 0);
        wait::until("the pictures to stop", LONG, || {
            let now = server.frames();
            still = if now == last { still + 1 } else { 0 };
            last = now;
            wait::yes(still == 25, format!("{now} pictures"))
        });
        assert!(server.runs());
        publisher.thaw();
        server.wait_more_frames(25, LONG);
        publisher.kill();
        server.wait_exit(LONG);
        assert!(!publisher.runs());
    }
}
