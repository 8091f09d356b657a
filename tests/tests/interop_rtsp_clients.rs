//! RTSP with clients that are not ours: over TLS, each codec through GStreamer's depayloaders, mpv, and who follows when a
//! node sends a player elsewhere.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::cluster::{Cluster, turn};
use headwater_tests::interop::ffmpeg::{Clip, Ffmpeg, probe};
use headwater_tests::interop::gstreamer::Pipeline;
use headwater_tests::interop::http;
use headwater_tests::interop::log::Mark;
use std::process::{Command, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(40);

/// Plays with GStreamer, through these elements, up to the end, which it reaches without a word of damage.
fn whole(from: &str, pictures: &str, sounds: &str) {
    let mut player = Pipeline::play(from, "tcp", Some((pictures, sounds)), (50, 50));
    let said = player.wait_end(LONG).to_lowercase();
    assert!(!said.contains("error") && !said.contains("warning"), "{said}");
}

/// Plays 50 pictures with mpv.
fn mpv(from: &str) {
    let args = ["--no-config", "--vo=null", "--ao=null", "--frames=50", "--rtsp-transport=tcp", from];
    let ran = Command::new("mpv")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("mpv is not installed; run ./check");
    let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    assert!(ran.status.success() && said.contains("h264") && said.contains("aac"), "{}: {said}", ran.status);
}

#[test]
fn rtsps_is_published_and_played_by_ffmpeg_gstreamer_and_mpv() {
    let _turn = turn();
    let cluster = Cluster::start();
    let to = cluster.publish_at("live/secure").rtsps;
    assert_eq!(to, format!("rtsps://{}:8555/live/secure", cluster.origin.ip));
    let mut publisher = Ffmpeg::publish(&to, Clip { gop: 50, ..Clip::default() });
    publisher.wait_more_frames(1, LONG);
    let from = cluster.play_at("live/secure").rtsps;
    let seen = probe(&from).unwrap_or_else(|e| panic!("{from}: {e}"));
    assert_eq!(seen["streams"].as_array().map(Vec::len), Some(2), "{seen}");
    whole(&from, "rtph264depay ! h264parse ! avdec_h264", "rtpmp4gdepay ! aacparse ! avdec_aac");
    mpv(&from);
    let at = format!("{}:8555", cluster.edge.ip);
    let said = Command::new("openssl").args(["s_client", "-connect", &at]).stdin(Stdio::null()).output();
    let said =
        String::from_utf8_lossy(&said.expect("openssl is not installed; run ./check").stdout).into_owned();
    assert!(said.contains("TLSv1.3, Cipher is"), "{said}");
    // Plain words on that port, and TLS on the other.
    let plain = probe(&from.replace("rtsps://", "rtsp://")).expect_err("that port speaks TLS");
    assert!(plain.contains("400"), "{plain}");
    cluster.edge.wait_log(Mark::default(), LONG, &["plain RTSP arrived", "rtsps://"]);
    assert!(probe(&from.replace("8555", "8554")).is_err());
    cluster.edge.wait_log(Mark::default(), LONG, &["speaks TLS (rtsps://)", "rtsps.port"]);
    assert!(publisher.runs(), "{}", publisher.log.tail(20));
}

#[test]
fn gstreamers_depayloaders_take_every_codec_without_damage() {
    let _turn = turn();
    let cluster = Cluster::start();
    let codecs = [
        (
            (
                "-c:v libx264 -preset ultrafast -tune zerolatency -b:v 400k",
                "rtph264depay ! h264parse ! avdec_h264",
            ),
            ("-c:a aac -ac 2", "rtpmp4gdepay ! aacparse ! avdec_aac"),
        ),
        (
            (
                "-c:v libx265 -preset ultrafast -x265-params bframes=0:log-level=error -b:v 400k",
                "rtph265depay ! h265parse ! avdec_h265",
            ),
            ("-c:a libopus -ac 2", "rtpopusdepay ! opusdec"),
        ),
        (
            ("-c:v libvpx -deadline realtime -cpu-used 8 -b:v 400k", "rtpvp8depay ! vp8dec"),
            ("-c:a pcm_alaw -ar 8000 -ac 1", "rtppcmadepay ! alawdec"),
        ),
        (
            (
                "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 400k -strict experimental",
                "rtpvp9depay ! vp9dec",
            ),
            ("-c:a libmp3lame -ac 2", "rtpmpadepay ! mpegaudioparse ! mpg123audiodec"),
        ),
        (
            (
                "-c:v libx264 -preset ultrafast -tune zerolatency -b:v 400k",
                "rtph264depay ! h264parse ! avdec_h264",
            ),
            ("-c:a pcm_mulaw -ar 8000 -ac 1", "rtppcmudepay ! mulawdec"),
        ),
    ];
    for (n, ((video, pictures), (audio, sounds))) in codecs.into_iter().enumerate() {
        let stream = format!("live/codec{n}");
        let mut publisher = Ffmpeg::publish_coded(&cluster.publish_at(&stream).rtsp, video, audio);
        publisher.wait_more_frames(1, LONG);
        whole(&cluster.play_at(&stream).rtsp, pictures, sounds);
        assert!(publisher.runs(), "{}", publisher.log.tail(20));
    }
}

#[test]
fn players_that_ask_the_manager_are_sent_to_the_edge_and_stay_when_it_drains() {
    let _turn = turn();
    let cluster = Cluster::start();
    let mut publisher =
        Ffmpeg::publish(&cluster.publish_at("live/one").rtsp, Clip { gop: 50, ..Clip::default() });
    publisher.wait_more_frames(1, LONG);
    cluster.play_at("live/one");
    let from = format!("rtsp://{}:8554/live/one", cluster.manager.ip);
    let before = cluster.manager.log.mark();
    mpv(&from);
    cluster.manager.wait_log(before, LONG, &["sent on to", &cluster.edge.ip.to_string()]);
    whole(&from, "rtph264depay ! h264parse ! avdec_h264", "rtpmp4gdepay ! aacparse ! avdec_aac");
    let mut players = ["tcp", "udp"].map(|transport| Ffmpeg::play_rtsp(&from, transport, 600));
    for player in &mut players {
        player.wait_more_frames(25, LONG);
    }
    let sessions =
        http::get(&cluster.edge.url("/api/v1/sessions")).and_then(|a| a.ok_json()).expect("it answers");
    assert_eq!(sessions["sessions"].as_array().map(Vec::len), Some(2), "{sessions}");
    // The edge is taken out of service. Neither player knows REDIRECT; both go on undisturbed.
    let drained = Command::new(headwater_tests::interop::cluster::binary())
        .args(["ctl", "--url", &cluster.manager.url(""), "drain", "e1"])
        .output()
        .expect("headwater runs");
    assert!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
    cluster.edge.wait_log(Mark::default(), LONG, &["draining by an operator's order"]);
    for player in &mut players {
        player.wait_more_frames(75, LONG);
        let said = player.log.tail(100);
        assert!(!said.contains("error") && !said.contains("concealing"), "{said}");
    }
    // Who asks the edge now is sent to the manager, which serves it, as there is no other edge.
    let direct = from.replace(&cluster.manager.ip.to_string(), &cluster.edge.ip.to_string());
    let seen = probe(&direct).unwrap_or_else(|e| panic!("{direct}: {e}"));
    assert_eq!(seen["streams"].as_array().map(Vec::len), Some(2), "{seen}");
    cluster.edge.wait_log(Mark::default(), LONG, &["sent on to", &cluster.manager.ip.to_string()]);
}
