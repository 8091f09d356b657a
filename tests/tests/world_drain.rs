//! What a node that is told to end waits for: whoever publishes or sees something there, and nobody else.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::world::actors::publisher::PublisherConfig;
use headwater_tests::world::actors::webrtc::WhepConfig;
use headwater_tests::world::scenario::*;

/// An origin whose publisher has left holds the stream for it, and edges go on pulling what is held. Nobody can publish there
/// any more once the origin is told to end: it ends at once, and the edge's viewers wait at the edge.
#[test]
fn an_origin_does_not_wait_for_pulls_of_what_nobody_publishes() {
    for (quic, publisher_first) in [(true, true), (false, true), (true, false), (false, false)] {
        seeds("0..2", |w| {
            w.quic(quic);
            let (c, p, [at_origin, at_edge, _]) = rtmp_watched(w);
            let whep = w.play_webrtc(c.o1, STREAM, WhepConfig::default());
            let s = session(w, p);
            until_sees(w, whep, s, 4_000);
            w.run(ms(1_000));
            if publisher_first {
                w.leave(p);
                w.run(ms(1_500));
                w.drain(c.o1);
            } else {
                w.drain(c.o1);
                w.run(ms(3_000));
                assert!(
                    !w.is_drained(c.o1) && w.publisher(p).ended().is_none(),
                    "who publishes is waited for"
                );
                w.leave(p);
            }
            w.until("the origin has ended", ms(2_500), |w| w.is_drained(c.o1));
            w.crash(c.o1);
            // The last picture that was published came to everybody before.
            for v in [at_origin, at_edge] {
                let sent = w.publisher(p).sent.last().map(|s| s.pictures);
                assert_eq!(w.player(v).pictures(s).last().map(|n| n + 1), sent, "{v:?}");
            }
            assert_eq!(w.player(at_edge).ended, None, "it waits at its edge");
            let again = w.publish(c.o2, STREAM);
            ready(w, again, 6_000);
            let s = session(w, again);
            until_sees(w, at_edge, s, 4_000);
            assert!(w.expect_drained());
        });
    }
}

/// Whoever publishes and whoever sees it lose nothing for as long as the node may take.
#[test]
fn an_origin_waits_for_who_publishes_and_is_seen() {
    seeds("0..2", |w| {
        let (c, p, viewers) = rtmp_watched(w);
        let s = session(w, p);
        // Another stream there has a publisher who left.
        let gone = w.publish(c.o1, "live/gone");
        ready(w, gone, 5_000);
        let waits = w.play(c.e1, "live/gone");
        let of_gone = session(w, gone);
        until_sees(w, waits, of_gone, 4_000);
        w.leave(gone);
        w.drain(c.o1);
        w.run(ms(20_000));
        assert!(!w.is_drained(c.o1));
        for v in viewers {
            assert_eq!(w.player(v).ended, None);
            saw_all_pictures(w, v, p, s);
        }
        assert_eq!(w.player(waits).ended, None);
        w.until("its time is over", ms(12_000), |w| w.is_drained(c.o1));
        w.until("its publisher is told", ms(500), |w| w.publisher(p).ended().is_some());
    });
}

/// A publisher who comes back at once goes to another origin, as the manager says.
#[test]
fn viewers_of_an_origin_that_ends_see_its_publisher_again_from_another() {
    seeds("0..2", |w| {
        let (c, p, [at_origin, at_edge, other]) = rtmp_watched(w);
        w.drain(c.o1);
        w.run(ms(500));
        w.leave(p);
        let back = PublisherConfig { again: Some(ms(500)), ..PublisherConfig::default() };
        let back = w.publish_with(c.o2, STREAM, back);
        ready(w, back, 6_000);
        let s = session(w, back);
        for v in [at_edge, other] {
            until_sees(w, v, s, 4_000);
            assert_eq!(w.player(v).ended, None);
        }
        // Whoever watches at the origin sees it from the other one too, and is waited for.
        until_sees(w, at_origin, s, 4_000);
        assert!(!w.is_drained(c.o1));
        w.leave(at_origin);
        w.until("the origin has ended", ms(3_000), |w| w.is_drained(c.o1));
        assert!(w.expect_drained());
    });
}
