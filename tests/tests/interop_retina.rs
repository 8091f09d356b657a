//! RTSP as retina reads it, a client that shares no code with the server and forgives less than most: H.264 and H.265, AAC and
//! G.711, over the connection and as datagrams, from the edge. Each frame's time, length and kind is checked.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use futures_core::Stream as _;
use headwater_tests::interop::cluster::{Cluster, turn};
use headwater_tests::interop::ffmpeg::Ffmpeg;
use retina::client::{Demuxed, PlayOptions, Session, SessionOptions, SetupOptions, Transport};
use retina::codec::CodecItem;
use std::pin::Pin;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(40);
/// Pictures that are looked at.
const PICTURES: usize = 100;

/// One frame as the client has it.
#[derive(Debug)]
struct Seen {
    /// Since the first of its track, in ticks of its clock.
    at: i64,
    key: bool,
    /// Ticks that it lasts, where the codec says that.
    lasts: Option<u32>,
}

/// What a client saw of both tracks.
#[derive(Debug, Default)]
struct Played {
    codecs: Vec<String>,
    size: (u32, u32),
    pictures: Vec<Seen>,
    sounds: Vec<Seen>,
    /// Reports that tie a track's clock to the wall clock.
    reports: usize,
}

/// The next item. retina gives a stream of them, and nothing else here needs its combinators.
async fn next(session: &mut Demuxed) -> Option<Result<CodecItem, retina::Error>> {
    std::future::poll_fn(|cx| Pin::new(&mut *session).poll_next(cx)).await
}

async fn play(from: &str, transport: Transport) -> Result<Played, retina::Error> {
    let options = SessionOptions::default().user_agent("retina".to_owned());
    let mut session = Session::describe(from.parse().expect("a URL"), options).await?;
    let mut played = Played {
        codecs: session.streams().iter().map(|s| s.encoding_name().to_owned()).collect(),
        ..Played::default()
    };
    for n in 0..session.streams().len() {
        session.setup(n, SetupOptions::default().transport(transport.clone())).await?;
    }
    let mut session = session.play(PlayOptions::default()).await?.demuxed()?;
    while played.pictures.len() < PICTURES {
        let Some(item) = next(&mut session).await else { panic!("the stream ended: {played:?}") };
        match item? {
            CodecItem::VideoFrame(f) => {
                assert_eq!(f.loss(), 0, "before {played:?}");
                let seen =
                    Seen { at: f.timestamp().timestamp(), key: f.is_random_access_point(), lasts: None };
                assert!(units_are_whole(f.data()), "a picture whose lengths do not add up, after {played:?}");
                played.pictures.push(seen);
                let parameters = session.streams()[f.stream_id()].parameters();
                if let Some(retina::codec::ParametersRef::Video(p)) = parameters {
                    played.size = p.pixel_dimensions();
                }
            }
            CodecItem::AudioFrame(f) => {
                assert_eq!(f.loss(), 0, "before {played:?}");
                let lasts = Some(f.frame_length().get());
                played.sounds.push(Seen { at: f.timestamp().timestamp(), key: true, lasts });
            }
            CodecItem::Rtcp(_) => played.reports += 1,
            _ => {}
        }
    }
    Ok(played)
}

/// Whether a picture is units with their lengths before them, and nothing else.
fn units_are_whole(mut data: &[u8]) -> bool {
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        if length == 0 || rest.len() < length {
            return false;
        }
        data = &rest[length..];
    }
    data.is_empty()
}

/// Plays with retina over the connection, then as datagrams, and checks what both share.
fn both_ways(from: &str, codecs: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for transport in [Transport::Tcp(Default::default()), Transport::Udp(Default::default())] {
        let name = transport.to_string();
        let played = runtime.block_on(async { tokio::time::timeout(LONG, play(from, transport)).await });
        let played = played
            .unwrap_or_else(|_| panic!("{from} over {name}: it took too long"))
            .unwrap_or_else(|e| panic!("{from} over {name}: {e}"));
        assert_eq!(played.codecs, codecs, "{name}");
        assert_eq!(played.size, (320, 180), "{name}");
        assert!(played.reports >= 2, "{name}: {} reports", played.reports);
        assert!(played.pictures[0].key, "{name}: {:?}", played.pictures[0]);
        let keys = played.pictures.iter().filter(|p| p.key).count();
        assert!(
            (2..=3).contains(&keys),
            "{name}: {keys} key frames in {PICTURES} pictures, one in 50 was sent"
        );
        // The group that was there is a millisecond a picture, ends where the stream is now, and from there on it is even.
        let steps: Vec<i64> = played.pictures.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
        let cached = steps.iter().take_while(|step| **step == 90).count();
        assert!(cached < 50, "{name}: one group of 50 at most: {steps:?}");
        assert!(
            steps[cached..].iter().all(|step| *step == 3_600),
            "{name}: 25 pictures a second, 90,000 ticks: {steps:?}"
        );
        // Sound lasts as long as the pictures, without a hole.
        for pair in played.sounds.windows(2) {
            let lasts = pair[0].lasts.map(i64::from).expect("sound says how long it lasts");
            assert_eq!(pair[1].at - pair[0].at, lasts, "{name}: {pair:?}");
        }
        let rate = if codecs.contains(&"pcma") { 8_000.0 } else { 48_000.0 };
        let (first, last) = (&played.sounds[0], &played.sounds[played.sounds.len() - 1]);
        let seconds = (last.at - first.at) as f64 / rate;
        let shown = (played.pictures[PICTURES - 1].at - played.pictures[0].at) as f64 / 90_000.0;
        assert!((seconds - shown).abs() < 0.7, "{name}: {seconds} s of sound beside {shown} s of pictures");
    }
}

#[test]
fn retina_plays_h264_with_aac_and_h265_with_g711_without_loss() {
    let _turn = turn();
    let cluster = Cluster::start();
    // A whole group, which a newcomer gets at once, fits into the client's socket however slowly it reads.
    let x264 = "-c:v libx264 -preset ultrafast -tune zerolatency -b:v 150k";
    let x265 = "-c:v libx265 -preset ultrafast -x265-params bframes=0:open-gop=0:log-level=error -b:v 150k";
    let streams = [
        ("live/a", x264, "-c:a aac -ac 2", ["h264", "mpeg4-generic"]),
        ("live/b", x265, "-c:a pcm_alaw -ar 8000 -ac 1", ["h265", "pcma"]),
    ];
    for (stream, video, audio, codecs) in streams {
        let mut publisher = Ffmpeg::publish_coded(&cluster.publish_at(stream).rtsp, video, audio);
        // By then the publisher's reports have said how its tracks lie to each other, and what they moved has been made good.
        publisher.wait_more_frames(175, LONG);
        both_ways(&cluster.play_at(stream).rtsp, &codecs);
        assert!(publisher.runs(), "{}", publisher.log.tail(20));
    }
}
