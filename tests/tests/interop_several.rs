//! Several RTMP streams on one connection to real nodes.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::cluster::{Cluster, Node, turn};
use headwater_tests::live::{Live, Protocol};
use headwater_tests::world::actors::player::Player;
use headwater_tests::world::actors::several::{Several, Stream};
use proto_core::rand::Rng;
use std::net::SocketAddr;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

/// One RTMP connection with two streams that it publishes and two that it plays. The origin ends: the client is told where it goes on,
/// and who watches at the edge sees it again without connecting anew.
#[test]
fn streams_of_one_rtmp_connection_follow_it_to_another_origin() {
    let _turn = turn();
    let cluster = Cluster::start();
    let net = cluster.net;
    let mut other = Node::start("o2", "origin", net.host(4), Some(net.host(1)), &[]);
    other.wait_http("/readyz");
    let mut live = Live::new(7);
    let third = live.publish(Protocol::Rtmp, net.host(8), other.ip, "live/third", None);
    assert!(live.until(LONG, |l| l.published(third).ready));
    let rtmp = SocketAddr::new(cluster.origin.ip.into(), Protocol::Rtmp.port());
    let client = Several::new(9, rtmp, "live", &["one", "two"], &["third"], Rng::new([9; 32]));
    let client = live.add(Box::new(client), net.host(9));
    let of = |live: &Live| {
        live.actor::<Several>(client)
            .expect("it is one")
            .streams
            .iter()
            .map(Stream::session)
            .collect::<Vec<_>>()
    };
    assert!(live.until(LONG, |l| of(l)[..2].iter().all(Option::is_some)), "both are published");
    let viewers =
        ["live/one", "live/two"].map(|s| live.play(Protocol::Rtmp, net.host(10), cluster.edge.ip, s, None));
    let third_seen = |l: &Live| l.actor::<Several>(client).map_or(0, |c| c.stream("third").seen.len());
    let newest = |l: &Live, v| l.actor::<Player>(v).and_then(|p| p.last_picture()).map(|s| s.label.session);
    let all_see = |l: &Live| viewers.iter().zip(of(l)).all(|(v, s)| s.is_some() && newest(l, *v) == s);
    assert!(live.until(LONG, |l| all_see(l) && third_seen(l) > 100), "all that is published is seen");

    let mut origin = cluster.origin;
    let before = of(&live);
    origin.signal("TERM");
    assert!(
        live.until(LONG, |l| of(l)[..2]
            .iter()
            .zip(&before)
            .all(|(now, before)| now.is_some() && now != before)),
        "both are published again: {:?}",
        of(&live)
    );
    let third_before = third_seen(&live);
    assert!(live.until(LONG, |l| all_see(l) && third_seen(l) > third_before + 100), "and seen");
    let at = live.actor::<Several>(client).expect("it is one").at();
    assert_eq!(at, SocketAddr::new(other.ip.into(), Protocol::Rtmp.port()));
    assert!(viewers.iter().all(|v| live.played(*v).connections == 1), "no viewer connected anew");
    assert_eq!(live.violations, []);
    let left = origin.wait_exit(LONG);
    assert!(left.success(), "the origin waited for nobody: {left}");
}
