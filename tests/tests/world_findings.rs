//! What the checkers found in the product: a test for each, which failed before its fix.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use headwater_tests::world::World;
use headwater_tests::world::actors::webrtc::{WhepConfig, WhipConfig};
use headwater_tests::world::scenario::ms;
use proto_core::node::config::Role;

/// S9: statistics over what came long ago renewed a viewer's consent, so that media went on for up to 5 s too long.
#[test]
fn old_statistics_are_no_consent() {
    let mut w = World::quiet(24);
    let one = w.host("one", &[Role::Manager, Role::Origin, Role::Edge], None);
    w.run(ms(100));
    let p = w.publish_webrtc(one, "live/one", WhipConfig::default());
    w.until("the publisher is connected", ms(5_000), |w| w.whip(p).is_ready());
    let viewers: Vec<_> = (0..10).map(|_| w.play_webrtc(one, "live/one", WhepConfig::default())).collect();
    w.run(ms(5_000));
    // Each at another moment of the interval at which statistics are made.
    for v in viewers {
        w.cut(v.into());
        w.run(ms(500));
    }
    w.run(ms(40_000));
    assert_eq!(w.violation(), None);
    assert_eq!(w.node_of(one).map(|n| n.audit().clients()), Some(1), "all viewers are let go");
}
