//! What links that lose do to a stream from WHIP to WHEP: a publisher of 2.4 Mbit/s at an origin, a viewer at an edge, a
//! round trip of 80 ms on each of their links, and losses in bursts in both directions of one link or of both.

use crate::world::actors::webrtc::{Seen, WhepConfig, WhipConfig};
use crate::world::link::{Conditions, Direction, Loss};
use crate::world::net::{Content, Fate};
use crate::world::{Party, World};
use determinism::os;
use proto_core::node::config::Role;
use proto_core::time::Time;
use std::collections::BTreeMap;
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
    /// The viewer's, and only what it is sent: what it says arrives, so that what is left is the server's doing.
    Sent,
    /// Both.
    Both,
}

impl Lossy {
    /// All of them.
    pub const ALL: [Lossy; 4] = [Lossy::Uplink, Lossy::Downlink, Lossy::Sent, Lossy::Both];
}

impl fmt::Display for Lossy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lossy::Uplink => "uplink",
            Lossy::Downlink => "downlink",
            Lossy::Sent => "downlink, requests pass",
            Lossy::Both => "both",
        })
    }
}

/// A freeze longer than this is one that a viewer complains of.
pub const FREEZE: Duration = Duration::from_millis(300);

/// What a viewer saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Quality {
    /// The share of pictures that it could show.
    pub shown: f64,
    /// The longest time without a new picture.
    pub freeze: Duration,
    /// What the publisher, or the edge (whichever it was more for), sent beyond the media, as a share of it.
    pub again: f64,
    /// Each time without a new picture that was longer than [`FREEZE`].
    pub freezes: Vec<Freeze>,
}

/// A time without a new picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// How long after the losses began it ended.
    pub at: Duration,
    /// How long it was.
    pub long: Duration,
    /// How long the same was for a viewer whose own link is clean.
    pub before: Duration,
    /// Pictures that were never shown.
    pub left_out: u64,
    /// What happened on the lossy links meanwhile, a line each: packets of media that were lost, and all that were sent again
    /// and all reports, lost or not.
    pub story: Vec<String>,
}

/// What is sent in a world of `seed` that loses nothing, by the publisher and by the edge: what [`measure`] compares with.
pub fn clean(seed: u64, time: Duration) -> [u64; 2] {
    observe(seed, Lossy::Both, far(), time).1
}

/// A link that loses nothing.
pub fn far() -> Conditions {
    Conditions { latency: LATENCY, ..Conditions::default() }
}

/// Runs a world of `seed` for so long while `lossy` loses this share of all datagrams.
pub fn measure(seed: u64, lossy: Lossy, share: f64, time: Duration, clean: [u64; 2]) -> Quality {
    let conditions = Conditions { loss: Loss { mean: share, burst: BURST }, ..far() };
    under(seed, lossy, conditions, time, clean)
}

/// As [`measure`], under any conditions.
pub fn under(seed: u64, lossy: Lossy, conditions: Conditions, time: Duration, clean: [u64; 2]) -> Quality {
    let (quality, sent) = observe(seed, lossy, conditions, time);
    let more = |now: u64, before: u64| now.saturating_sub(before) as f64 / before.max(1) as f64;
    Quality { again: more(sent[0], clean[0]).max(more(sent[1], clean[1])), ..quality }
}

/// Pictures that are shown late were sent at most so long before.
const BEFORE: Duration = Duration::from_millis(1_300);

/// What became of what was sent around a time without pictures, in milliseconds since it began.
fn story(fates: &[Fate], names: &[(Party, &str)], from: Time, until: Time) -> Vec<String> {
    let mut sources: BTreeMap<(Party, u32), usize> = BTreeMap::new();
    for fate in fates {
        if let Content::Media { ssrc, .. } = fate.content {
            *sources.entry((fate.from, ssrc)).or_default() += 1;
        }
    }
    // Pictures and sound are most of what a party sends, the rest is sent again.
    let again = |by: Party, ssrc: u32| {
        let of = |s: u32| sources.get(&(by, s)).copied().unwrap_or(0);
        sources.keys().filter(|(p, s)| *p == by && of(*s) > of(ssrc)).count() >= 2
    };
    let name = |party: Party| names.iter().find(|(p, _)| *p == party).map(|(_, name)| *name);
    let around = fates.iter().filter(|f| f.at + BEFORE >= from && f.at <= until);
    around
        .filter_map(|f| {
            let what = match f.content {
                Content::Media { ssrc, seq, .. } if again(f.from, ssrc) => {
                    format!("a packet sent again, number {seq} of {ssrc}")
                }
                Content::Media { ssrc, seq, marked } if f.lost => {
                    format!(
                        "packet {seq} of {ssrc}{}",
                        if marked { " (the last of its picture)" } else { "" }
                    )
                }
                Content::Report => format!("a report of {} bytes", f.bytes),
                _ => return None,
            };
            let at = f.at.as_millis() as i64 - from.as_millis() as i64;
            let lost = if f.lost { " is lost" } else { "" };
            Some(format!("{at:>5} ms, {} to {}: {what}{lost}", name(f.from)?, name(f.to)?))
        })
        .collect()
}

fn observe(seed: u64, lossy: Lossy, bad: Conditions, time: Duration) -> (Quality, [u64; 2]) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    os::run(bytes, || {
        let mut w = World::new(seed);
        let manager = w.host("m1", &[Role::Manager], None);
        let origin = w.host("o1", &[Role::Origin], Some(manager));
        let edge = w.host("e1", &[Role::Edge], Some(manager));
        let other = w.host("e2", &[Role::Edge], Some(manager));
        w.run(Duration::from_millis(2_500));
        let config = WhipConfig {
            gop: 60,
            key_bytes: 60_000,
            delta_bytes: 8_000,
            picture: PICTURE,
            ..WhipConfig::default()
        };
        let far = far();
        let publisher = w.publish_webrtc(origin, "live/one", config);
        w.degrade(publisher, far);
        w.until("it publishes", Duration::from_secs(5), |w| w.whip(publisher).is_ready());
        w.run(Duration::from_secs(1));
        let config =
            WhepConfig { picture: PICTURE, apart: Duration::from_millis(150), ..WhepConfig::default() };
        let viewer = w.play_webrtc(edge, "live/one", config.clone());
        let witness = w.play_webrtc(other, "live/one", config);
        w.degrade(viewer, far);
        w.until("it sees", Duration::from_secs(5), |w| w.whep(viewer).last_picture().is_some());
        w.run(Duration::from_secs(3));
        if matches!(lossy, Lossy::Uplink | Lossy::Both) {
            w.degrade(publisher, bad);
        }
        if matches!(lossy, Lossy::Downlink | Lossy::Both) {
            w.degrade(viewer, bad);
        }
        if lossy == Lossy::Sent {
            w.degrade_one_way(viewer, Direction::Down, bad);
        }
        let began = w.now();
        w.note_fates();
        let names = [
            (publisher.into(), "publisher"),
            (viewer.into(), "viewer"),
            (origin.into(), "origin"),
            (edge.into(), "edge"),
        ];
        let (before, seen) = ([w.media_sent(publisher), w.media_sent(edge)], w.whep(viewer).seen.len());
        w.run(time);
        let sent = [w.media_sent(publisher) - before[0], w.media_sent(edge) - before[1]];
        // What was lost last comes again.
        w.degrade(publisher, far);
        w.degrade(viewer, far);
        w.run(Duration::from_secs(2));
        let pictures: Vec<_> = w.whep(viewer).seen.iter().skip(seen).filter(|s| s.picture).collect();
        let (first, last) = (pictures[0].seq, pictures[pictures.len() - 1].seq);
        let apart = |p: &[&Seen]| p[1].at.since(p[0].at);
        let passed: BTreeMap<u64, Time> =
            w.whep(witness).seen.iter().filter(|s| s.picture).map(|s| (s.seq, s.at)).collect();
        let freezes = pictures.windows(2).filter(|p| apart(p) > FREEZE).map(|p| Freeze {
            at: p[1].at.since(began),
            long: apart(p),
            before: passed
                .range(p[0].seq..=p[1].seq)
                .zip(passed.range(p[0].seq + 1..=p[1].seq))
                .map(|((_, a), (_, b))| b.since(*a))
                .max()
                .unwrap_or_default(),
            left_out: p[1].seq - p[0].seq - 1,
            story: story(w.fates(), &names, p[0].at, p[1].at),
        });
        let quality = Quality {
            shown: pictures.len() as f64 / (last - first + 1) as f64,
            freeze: pictures.windows(2).map(apart).max().unwrap_or(Duration::MAX),
            again: 0.0,
            freezes: freezes.collect(),
        };
        (quality, sent)
    })
    .expect("a world replays here")
}
