//! Several streams on one RTMP connection, and RTMP clients that a node which takes nothing new sends elsewhere.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::world::actors::publisher::PublisherConfig;
use headwater_tests::world::actors::several::Several;
use headwater_tests::world::scenario::*;
use headwater_tests::world::{ClientId, HostId, World};
use proto_core::rand::Rng;

/// A client with several streams of the app `live` on one connection to a node.
fn several(w: &mut World, at: HostId, publishes: &[&str], plays: &[&str]) -> ClientId {
    let n = w.next_client();
    let (to, rng) = (w.rtmp_addr(at), Rng::new([n as u8; 32]));
    w.add(Box::new(Several::new(n, to, "live", publishes, plays, rng)))
}

fn of(w: &World, client: ClientId) -> &Several {
    w.actor(client).expect("a client of several streams")
}

fn until_published(w: &mut World, client: ClientId, name: &str) -> u64 {
    w.until("it is published", ms(5_000), |w| of(w, client).stream(name).session().is_some());
    of(w, client).stream(name).session().expect("it is published")
}

/// All pictures from the first that came to the last, which is one of the newest that were sent.
fn came_whole(pictures: &[u64], sent: u64) {
    assert!(pictures.len() > 20 && pictures.windows(2).all(|p| p[0] + 1 == p[1]), "{pictures:?}");
    assert!(pictures.last().is_some_and(|last| last + 10 > sent), "{pictures:?} of {sent}");
}

#[test]
fn streams_of_one_connection_go_on_whatever_becomes_of_the_others() {
    replayed_seeds("0..3", |w| {
        let c = Cluster::new(w);
        let other = w.publish(c.o1, "live/other");
        ready(w, other, 5_000);
        let of_other = session(w, other);
        // `taken` is another's, who publishes; `nobody` is nobody's.
        let taken = w.publish(c.o2, "live/taken");
        ready(w, taken, 5_000);
        let client = several(w, c.o1, &["a", "taken", "b"], &["other", "nobody"]);
        let [a, b] = ["a", "b"].map(|name| until_published(w, client, name));
        for (name, refused) in
            [("taken", "NetStream.Publish.BadName"), ("nobody", "NetStream.Play.StreamNotFound")]
        {
            w.until("it is told", ms(5_000), |w| !of(w, client).stream(name).statuses.is_empty());
            assert_eq!(of(w, client).stream(name).statuses, [refused]);
        }

        let viewers = ["live/a", "live/b"].map(|stream| w.play(c.e1, stream));
        until_sees(w, viewers[0], a, 5_000);
        until_sees(w, viewers[1], b, 5_000);
        w.run(ms(3_000));
        for (viewer, name, session) in [(viewers[0], "a", a), (viewers[1], "b", b)] {
            came_whole(&w.player(viewer).pictures(session), of(w, client).stream(name).sent[0]);
        }
        let sent = |w: &World| w.publisher(other).sent.last().map_or(0, |s| s.pictures);
        came_whole(&of(w, client).stream("other").pictures(of_other), sent(w));

        // It ends one of them.
        let [before_a, before_b] = viewers.map(|v| w.player(v).seen.len());
        w.with(client, |c: &mut Several, _| c.stop("a"));
        w.run(ms(4_000));
        assert!(w.player(viewers[0]).seen.len() - before_a < 20, "nothing comes of it any more");
        assert!(w.player(viewers[1]).seen.len() - before_b > 250);
        came_whole(&w.player(viewers[1]).pictures(b), of(w, client).stream("b").sent[0]);
        came_whole(&of(w, client).stream("other").pictures(of_other), sent(w));
        assert_eq!((of(w, client).connections, &of(w, client).ended), (1, &None));

        // Whoever publishes next what it ended has the same viewers.
        let next = w.publish(c.o2, "live/a");
        ready(w, next, 8_000);
        let s = session(w, next);
        until_sees(w, viewers[0], s, 5_000);
        assert!(w.expect_drained());
    });
}

/// A publisher by RTMP that obeys goes from an origin that ends, or that an operator takes out of service, to another. Those who
/// watch at edges stay connected, and the origin ends without waiting for its time.
#[test]
fn a_publisher_that_obeys_is_sent_to_another_origin() {
    for stops in [true, false] {
        replayed_seeds("0..4", |w| {
            let c = Cluster::new(w);
            let config = PublisherConfig { obeys: true, again: Some(ms(500)), ..PublisherConfig::default() };
            let p = w.publish_with(c.o1, STREAM, config);
            ready(w, p, 5_000);
            let viewers = [c.e1, c.e2].map(|e| w.play(e, STREAM));
            let before = session(w, p);
            viewers.into_iter().for_each(|v| until_sees(w, v, before, 5_000));
            w.run(ms(2_000));
            if stops {
                w.drain(c.o1);
            } else {
                w.order(c.m, "PUT", "/api/v1/nodes/o1/drain");
            }
            w.until("it is live elsewhere", ms(2_000), |w| {
                w.publisher(p).accepted() == 2 && w.publisher(p).is_ready()
            });
            let after = session(w, p);
            viewers.into_iter().for_each(|v| until_sees(w, v, after, 2_000));
            w.run(ms(2_000));
            for v in viewers {
                let sent = w.publisher(p).sent.last().map_or(0, |s| s.pictures);
                came_whole(&w.player(v).pictures(after), sent);
                assert_eq!((w.player(v).connections, &w.player(v).ended), (1, &None));
            }
            let at = json(w, c.m, "/api/v1/streams");
            assert!(at.to_string().contains("o2"), "{at}");
            if stops {
                w.until("the origin has ended", ms(3_000), |w| w.is_drained(c.o1));
            }
            assert!(w.expect_drained());
        });
    }
}

/// It is not refused there because the manager has not heard yet that it left, however long its old node's word takes: it is let in at once.
#[test]
fn a_publisher_that_obeys_finds_its_names_free() {
    replayed_seeds("0..24", |w| {
        let c = Cluster::new(w);
        let client = several(w, c.o1, &["a", "b"], &[]);
        let before = ["a", "b"].map(|name| until_published(w, client, name));
        w.run(ms(500));
        w.drain(c.o1);
        w.until("it is elsewhere", ms(1_000), |w| of(w, client).connections == 2);
        w.until("both are published again", ms(1_000), |w| {
            let now = ["a", "b"].map(|name| of(w, client).stream(name).session());
            now.iter().zip(before).all(|(now, before)| now.is_some_and(|s| s != before))
        });
        assert_eq!(of(w, client).at(), w.rtmp_addr(c.o2));
        assert!(w.expect_drained());
    });
}

/// By RTMPS it is told where the other origin speaks that, and stays on TLS.
#[test]
fn a_publisher_by_rtmps_that_obeys_is_sent_to_another_origins_rtmps() {
    replayed_seeds("0..2", |w| {
        let c = Cluster::new(w);
        w.over_tls(true);
        let config = PublisherConfig { obeys: true, again: Some(ms(500)), ..PublisherConfig::default() };
        let p = w.publish_with(c.o1, STREAM, config);
        w.over_tls(false);
        ready(w, p, 5_000);
        let v = w.play(c.e1, STREAM);
        let before = session(w, p);
        until_sees(w, v, before, 5_000);
        w.drain(c.o1);
        w.until("it is live elsewhere", ms(2_000), |w| {
            w.publisher(p).accepted() == 2 && w.publisher(p).is_ready()
        });
        let after = session(w, p);
        until_sees(w, v, after, 2_000);
        assert_eq!((w.player(v).connections, &w.player(v).ended), (1, &None));
        let told = "asked to reconnect at rtmps://10.0.0.3:1936 (node o2)";
        assert!(w.log().iter().any(|l| l.contains(" o1 ") && l.contains(told)), "{:?}", w.log());
        assert!(w.expect_drained());
    });
}

/// So does a player whose edge ends, with all that it plays, and sees nothing twice.
#[test]
fn a_player_that_obeys_is_sent_to_another_edge() {
    replayed_seeds("0..4", |w| {
        let c = Cluster::new(w);
        let published = ["live/a", "live/b"].map(|stream| {
            let p = w.publish(c.o1, stream);
            ready(w, p, 5_000);
            session(w, p)
        });
        let client = several(w, c.e1, &[], &["a", "b"]);
        let pictures = |w: &World| {
            ["a", "b"]
                .map(|name| of(w, client).stream(name).pictures(published[usize::from(name == "b")]).len())
        };
        w.until("both come", ms(5_000), |w| pictures(w).into_iter().all(|n| n > 50));
        w.drain(c.e1);
        w.until("it is elsewhere", ms(1_000), |w| of(w, client).connections == 2);
        let before = pictures(w);
        w.until("both come on", ms(2_000), |w| {
            pictures(w).into_iter().zip(before).all(|(now, before)| now > before + 20)
        });
        assert_eq!(of(w, client).at(), w.rtmp_addr(c.e2));
        assert!(w.is_drained(c.e1), "nobody else was there");
        assert!(w.expect_drained());
    });
}
