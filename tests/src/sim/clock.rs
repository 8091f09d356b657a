//! How far sound and picture drift apart between a publisher whose clocks differ and players of every protocol: the publisher
//! at an origin whose own clock is slow, the players at an edge whose clock is fast.

use crate::world::actors::player::PlayerConfig;
use crate::world::actors::publisher::PublisherConfig;
use crate::world::actors::webrtc::{WhepConfig, WhipConfig};
use crate::world::media::sound_at;
use crate::world::{ClientId, World};
use determinism::os;
use proto_core::node::config::Role;
use std::fmt;
use std::time::Duration;

/// Sound and picture may be so far apart at a player.
pub const APART: Duration = Duration::from_millis(40);
/// A player's start, in which it shows a cached group faster than it was taken.
const HASTE_NANOS: u64 = 5_000_000_000;
/// By how much the clocks of both nodes are wrong, parts in a million: the origin's slow, the edge's fast.
const NODES_PPM: i64 = 100;

/// How the publisher sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// RTMP: one clock, in whole milliseconds.
    Rtmp,
    /// RTSP, packets over the connection.
    RtspTcp,
    /// RTSP, packets as datagrams.
    RtspUdp,
    /// WHIP.
    Whip,
}

impl From {
    /// All of them.
    pub const ALL: [From; 4] = [From::Rtmp, From::RtspTcp, From::RtspUdp, From::Whip];
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            From::Rtmp => "RTMP",
            From::RtspTcp => "RTSP/TCP",
            From::RtspUdp => "RTSP/UDP",
            From::Whip => "WHIP",
        })
    }
}

/// What one player saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// How the player plays.
    pub by: &'static str,
    /// The farthest that sound and picture were apart.
    pub apart: Duration,
    /// Pictures.
    pub pictures: usize,
    /// Pictures that are missing between the first and the last.
    pub missing: u64,
}

impl Seen {
    fn of(by: &'static str, apart: Duration, pictures: &[u64]) -> Seen {
        let span = pictures.first().zip(pictures.last()).map_or(0, |(first, last)| last - first + 1);
        Seen { by, apart, pictures: pictures.len(), missing: span - pictures.len() as u64 }
    }
}

/// Runs a world of `seed` for so long, with a publisher whose clock of sound is so many parts in a million fast and whose first
/// timestamps lie `before_wrap` before they begin anew (RTMP: 32 bits of milliseconds; RTP: 32 bits of the pictures' clock).
/// Answers what the players saw, and how many pictures were sent.
pub fn measure(seed: u64, from: From, ppm: i32, before_wrap: Duration, time: Duration) -> (Vec<Seen>, u64) {
    let mut bytes = [3; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    os::run(bytes, || observe(seed, from, ppm, before_wrap, time)).expect("a world replays here")
}

fn observe(seed: u64, from: From, ppm: i32, before_wrap: Duration, time: Duration) -> (Vec<Seen>, u64) {
    let ms = Duration::from_millis;
    let mut w = World::quiet(seed);
    let manager = w.host("m1", &[Role::Manager], None);
    let origin = w.host("o1", &[Role::Origin], Some(manager));
    let edge = w.host("e1", &[Role::Edge], Some(manager));
    w.run(ms(2_500));
    w.skew(origin, -NODES_PPM);
    w.skew(edge, NODES_PPM);
    let stamp = |rate: u64| Some(0u32.wrapping_sub((before_wrap.as_millis() as u64 * rate / 1_000) as u32));
    // Small frames: it is about time, not about bytes.
    let (key_bytes, delta_bytes) = (1_500, 300);
    let stream = "live/long";
    let plain = PublisherConfig { key_bytes, delta_bytes, ..PublisherConfig::default() };
    let publisher = match from {
        // One clock tells of both tracks, so that sound cannot drift from the picture before it is sent.
        From::Rtmp => w.publish_with(origin, stream, PublisherConfig { stamp: stamp(1_000), ..plain }),
        From::RtspTcp | From::RtspUdp => {
            let udp = from == From::RtspUdp;
            let config = PublisherConfig { udp, sound_ppm: ppm, stamp: stamp(90_000), ..plain };
            w.publish_rtsp(origin, stream, config)
        }
        From::Whip => {
            let config = WhipConfig {
                key_bytes,
                delta_bytes,
                sound_ppm: ppm,
                stamp: stamp(90_000),
                ..WhipConfig::default()
            };
            w.publish_webrtc(origin, stream, config)
        }
    };
    w.run(ms(1_500));
    let sound_ppm = if from == From::Rtmp { 0 } else { ppm };
    let rtsp = [false, true]
        .map(|udp| w.play_rtsp(edge, stream, PlayerConfig { udp, sound_ppm, ..PlayerConfig::default() }));
    let whep = w.play_webrtc(edge, stream, WhepConfig { sound_ppm, ..WhepConfig::default() });
    let rtmp = w.play(edge, stream);
    w.run(time);
    let (session, pictures) = match from {
        From::Rtmp => w.publisher(publisher).sent.last(),
        From::RtspTcp | From::RtspUdp => w.rtsp_publisher(publisher).sent.last(),
        From::Whip => w.whip(publisher).sent.last(),
    }
    .map(|sent| (sent.session, sent.pictures))
    .expect("it published");
    let each = if from == From::Whip { 20.0 } else { sound_at(3) as f64 / 3e6 };
    let each = each * 1e6 / (1e6 + f64::from(sound_ppm));
    let mut seen: Vec<Seen> = [("RTSP/TCP", rtsp[0]), ("RTSP/UDP", rtsp[1])]
        .into_iter()
        .map(|(by, player)| {
            let apart = w.rtsp_player(player).source().map_or(Duration::MAX, |s| s.apart);
            Seen::of(by, apart, &w.rtsp_player(player).pictures(session))
        })
        .collect();
    let shown = w.whep(whep).seen.iter().filter(|s| s.picture && s.session == session).map(|s| s.seq);
    seen.push(Seen::of("WHEP", w.whep(whep).skew, &shown.collect::<Vec<u64>>()));
    let apart = by_rtmp(&w, rtmp, session, each);
    seen.push(Seen::of("RTMP", apart, &w.player(rtmp).pictures(session)));
    (seen, pictures)
}

/// The farthest that sound and picture are apart at a player by RTMP, where both stand on one clock: how much later than
/// sampled the newest of each is shown, once the cached group has been shown in haste. `each`: milliseconds of a frame of sound.
fn by_rtmp(w: &World, player: ClientId, session: u64, each: f64) -> Duration {
    let late = |track: char, each: f64| {
        let mut all: Vec<(u64, f64)> = Vec::new();
        let mut last: Option<(u64, i64)> = None;
        for frame in w.player(player).frames(track, session) {
            // Timestamps of 32 bits begin anew.
            let shown = last.map_or(frame.stamp as i64, |(stamp, shown)| {
                shown + i64::from((frame.stamp as u32).wrapping_sub(stamp as u32) as i32)
            });
            last = Some((frame.stamp, shown));
            all.push((frame.at.as_nanos(), shown as f64 - frame.label.seq as f64 * each));
        }
        all
    };
    let (pictures, sounds) = (late('v', 40.0), late('a', each));
    let mut sound = sounds.iter().peekable();
    let mut worst = if pictures.is_empty() || sounds.is_empty() { f64::INFINITY } else { 0.0 };
    let mut newest = None;
    let pictures_from = pictures.first().map(|p| p.0);
    for (at, picture) in pictures {
        while let Some(next) = sound.next_if(|s| s.0 <= at) {
            newest = Some(next.1);
        }
        let settled = pictures_from.is_some_and(|first| at - first > HASTE_NANOS);
        if let Some(heard) = newest.filter(|_| settled) {
            // Whole turns of 32 bits apart: each track's count begins with its own first frame.
            let turn = 4_294_967_296.0;
            let apart: f64 = picture - heard;
            worst = f64::max(worst, (apart - (apart / turn).round() * turn).abs());
        }
    }
    Duration::try_from_secs_f64(worst / 1e3).unwrap_or(Duration::MAX)
}
