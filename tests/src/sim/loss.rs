//! What links that lose do to a stream from WHIP to WHEP: a publisher of 2.4 Mbit/s at an origin, a viewer at an edge, a
//! round trip of 80 ms on each of their links, and losses in bursts in both directions of one link or of both.

use crate::world::World;
use crate::world::actors::webrtc::{WhepConfig, WhipConfig};
use crate::world::link::{Conditions, Loss};
use determinism::os;
use proto_core::node::config::Role;
use std::fmt;
use std::time::Duration;

/// Datagrams in a row that a burst loses on average.
pub const BURST: f64 = 4.0;
/// What a link adds to each direction.
const LATENCY: Duration = Duration::from_millis(40);
/// Time between pictures.
const PICTURE: Duration = Duration::from_nanos(33_333_333);

/// Which link loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lossy {
    /// The publisher's.
    Uplink,
    /// The viewer's.
    Downlink,
    /// Both.
    Both,
}

impl Lossy {
    /// All of them.
    pub const ALL: [Lossy; 3] = [Lossy::Uplink, Lossy::Downlink, Lossy::Both];
}

impl fmt::Display for Lossy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lossy::Uplink => "uplink",
            Lossy::Downlink => "downlink",
            Lossy::Both => "both",
        })
    }
}

/// What a viewer saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// The share of pictures that it could show.
    pub shown: f64,
    /// The longest time without a new picture.
    pub freeze: Duration,
    /// What the publisher, or the edge (whichever it was more for), sent beyond the media, as a share of it.
    pub again: f64,
}

/// Runs a world of `seed` for so long while `lossy` loses this share of all datagrams.
pub fn measure(seed: u64, lossy: Lossy, share: f64, time: Duration) -> Quality {
    let clean = observe(seed, lossy, 0.0, time);
    if share == 0.0 {
        return Quality { again: 0.0, ..clean.0 };
    }
    let (quality, sent) = observe(seed, lossy, share, time);
    let more = |now: u64, before: u64| now.saturating_sub(before) as f64 / before.max(1) as f64;
    Quality { again: more(sent[0], clean.1[0]).max(more(sent[1], clean.1[1])), ..quality }
}

fn observe(seed: u64, lossy: Lossy, share: f64, time: Duration) -> (Quality, [u64; 2]) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    os::run(bytes, || {
        let mut w = World::new(seed);
        let manager = w.host("m1", &[Role::Manager], None);
        let origin = w.host("o1", &[Role::Origin], Some(manager));
        let edge = w.host("e1", &[Role::Edge], Some(manager));
        w.run(Duration::from_millis(2_500));
        let config = WhipConfig {
            gop: 60,
            key_bytes: 60_000,
            delta_bytes: 8_000,
            picture: PICTURE,
            ..WhipConfig::default()
        };
        let far = Conditions { latency: LATENCY, ..Conditions::default() };
        let publisher = w.publish_webrtc(origin, "live/one", config);
        w.degrade(publisher, far);
        w.until("it publishes", Duration::from_secs(5), |w| w.whip(publisher).is_ready());
        w.run(Duration::from_secs(1));
        let config =
            WhepConfig { picture: PICTURE, apart: Duration::from_millis(150), ..WhepConfig::default() };
        let viewer = w.play_webrtc(edge, "live/one", config);
        w.degrade(viewer, far);
        w.until("it sees", Duration::from_secs(5), |w| w.whep(viewer).last_picture().is_some());
        w.run(Duration::from_secs(3));
        let loses = Conditions { loss: Loss { mean: share, burst: BURST }, ..far };
        if lossy != Lossy::Downlink {
            w.degrade(publisher, loses);
        }
        if lossy != Lossy::Uplink {
            w.degrade(viewer, loses);
        }
        let (before, seen) = ([w.media_sent(publisher), w.media_sent(edge)], w.whep(viewer).seen.len());
        w.run(time);
        let sent = [w.media_sent(publisher) - before[0], w.media_sent(edge) - before[1]];
        // What was lost last comes again.
        w.degrade(publisher, far);
        w.degrade(viewer, far);
        w.run(Duration::from_secs(2));
        let pictures: Vec<_> = w.whep(viewer).seen.iter().skip(seen).filter(|s| s.picture).collect();
        let (first, last) = (pictures[0].seq, pictures[pictures.len() - 1].seq);
        let quality = Quality {
            shown: pictures.len() as f64 / (last - first + 1) as f64,
            freeze: pictures.windows(2).map(|p| p[1].at.since(p[0].at)).max().unwrap_or(Duration::MAX),
            again: 0.0,
        };
        (quality, sent)
    })
    .expect("a world replays here")
}
