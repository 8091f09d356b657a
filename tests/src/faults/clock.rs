//! A wall clock that jumps, in the simulator.

use super::{Row, Victim};
use crate::live::Protocol;
use crate::world::World;
use crate::world::actors::player::PlayerConfig;
use crate::world::actors::publisher::PublisherConfig;
use crate::world::actors::webrtc::{WhepConfig, WhipConfig};
use proto_core::node::config::Role;
use std::time::Duration;

/// An hour forth, and two back.
const JUMPS_MS: [i64; 2] = [3_600_000, -7_200_000];

/// Runs the cell: nobody notices.
pub(super) fn run(victim: Victim) -> Result<Vec<Row>, String> {
    determinism::os::run([7; 32], || {
        let mut w = World::new(1);
        let m = w.host("m1", &[Role::Manager], None);
        let o = w.host("o1", &[Role::Origin], Some(m));
        let e = w.host("e1", &[Role::Edge], Some(m));
        w.run(Duration::from_millis(2_500));
        let rtmp = w.publish(o, "live/rtmp");
        let rtsp = w.publish_rtsp(o, "live/rtsp", PublisherConfig::default());
        let whip = w.publish_webrtc(o, "live/web", WhipConfig::default());
        w.until("publishers", Duration::from_secs(6), |w| {
            w.publisher(rtmp).is_ready() && w.rtsp_publisher(rtsp).is_ready() && w.whip(whip).is_ready()
        });
        let play = w.play(e, "live/rtmp");
        let play_rtsp = w.play_rtsp(e, "live/rtsp", PlayerConfig::default());
        let whep = w.play_webrtc(e, "live/web", WhepConfig::default());
        w.run(Duration::from_secs(3));
        let host = match victim {
            Victim::Manager => m,
            Victim::Origin => o,
            Victim::Edge => e,
        };
        for by in JUMPS_MS {
            w.jump_wall(host, by);
            w.run(Duration::from_secs(5));
        }
        let late = |at: Option<proto_core::time::Time>, w: &World| {
            at.is_none_or(|at| w.now().since(at) > Duration::from_secs(1))
        };
        let row = |by: Protocol, gaps: usize, connections: usize, stale: bool| {
            let lost = gaps + connections.saturating_sub(1) + usize::from(stale);
            Row { who: format!("{} viewers", by.name()), hit: false, lost, back: None, good: lost == 0 }
        };
        let (p, r, v) = (w.player(play), w.rtsp_player(play_rtsp), w.whep(whep));
        vec![
            row(
                Protocol::Rtmp,
                p.gaps.len(),
                p.connections as usize,
                late(p.last_picture().map(|s| s.at), &w),
            ),
            row(
                Protocol::Rtsp,
                r.gaps.len(),
                r.connections as usize,
                late(r.last_picture().map(|s| s.at), &w),
            ),
            row(Protocol::WebRtc, v.gaps.len(), v.calls().len(), late(v.last_picture().map(|s| s.at), &w)),
        ]
    })
    .map_err(|e| format!("{e:?}"))
}
