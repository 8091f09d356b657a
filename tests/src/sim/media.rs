//! What the settings of a plan are in the world's own terms.

use super::plan::{Publishing, Quality};
use crate::world::actors::publisher::PublisherConfig;
use crate::world::actors::webrtc::WhipConfig;
use crate::world::media::Order;
use crate::world::net::link::{Conditions, Loss};
use std::time::Duration;

fn ms(n: u32) -> Duration {
    Duration::from_millis(n.into())
}

fn share(permille: u32) -> f64 {
    f64::from(permille.min(1_000)) / 1_000.0
}

/// By RTMP, or by RTSP over the connection.
pub(super) fn plain(how: &Publishing) -> PublisherConfig {
    PublisherConfig {
        gop: how.gop.max(1).into(),
        key_bytes: how.bytes as usize * 8,
        delta_bytes: how.bytes as usize,
        again: how.again.map(ms),
        order: how.order,
        ..PublisherConfig::default()
    }
}

/// By RTSP.
pub(super) fn rtsp(how: &Publishing, udp: bool) -> PublisherConfig {
    PublisherConfig { udp, order: Order::Shown, ..plain(how) }
}

pub(super) fn whip(how: &Publishing) -> WhipConfig {
    WhipConfig {
        gop: how.gop.max(1).into(),
        key_bytes: how.bytes as usize * 8,
        delta_bytes: how.bytes as usize,
        sound: ms(how.sound),
        again: how.again.map(ms),
        ..WhipConfig::default()
    }
}

pub(super) fn conditions(q: &Quality) -> Conditions {
    let clean = Conditions::default();
    Conditions {
        latency: ms(q.latency),
        jitter: ms(q.jitter),
        loss: Loss { mean: share(q.loss), burst: f64::from(q.burst.max(1)) },
        duplicate: share(q.twice),
        reorder: share(q.reorder),
        corrupt: share(q.corrupt),
        rate: (q.rate > 0).then(|| u64::from(q.rate) * 1_000),
        mtu: if q.mtu == 0 { clean.mtu } else { q.mtu as usize },
        ..clean
    }
}
