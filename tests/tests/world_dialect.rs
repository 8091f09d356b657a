//! Clients of the stream-manager dialect in whole clusters in virtual time: by websocket at a node and through the manager,
//! plain and over TLS, then over the data channel.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use headwater_tests::world::actors::publisher::PublisherConfig;
use headwater_tests::world::actors::webrtc::{Signalling, WhepConfig, WhipConfig};
use headwater_tests::world::link::{Conditions, Loss};
use headwater_tests::world::media::Order;
use headwater_tests::world::scenario::{STREAM, ms};
use headwater_tests::world::{ClientId, Codecs, HostId, World};
use proto_core::node::config::Role;

/// A manager, an origin and an edge.
fn cluster(w: &mut World) -> [HostId; 3] {
    let m = w.host("m1", &[Role::Manager], None);
    let o = w.host("o1", &[Role::Origin], Some(m));
    let e = w.host("e1", &[Role::Edge], Some(m));
    w.run(ms(2_500));
    [m, o, e]
}

fn live(w: &mut World, at: HostId, by: Signalling) -> ClientId {
    let p = w.publish_webrtc(at, STREAM, WhipConfig { by, ..WhipConfig::default() });
    w.until("the publisher is connected", ms(6_000), |w| w.whip(p).is_ready());
    p
}

fn viewer(w: &mut World, at: HostId, by: Signalling) -> ClientId {
    let v = w.play_webrtc(at, STREAM, WhepConfig { by, strict: true, ..WhepConfig::default() });
    w.until("the viewer sees pictures", ms(6_000), |w| w.whep(v).last_picture().is_some());
    v
}

/// Publishes and plays by one way, goes over to the data channel, is silent for a while, and leaves.
fn whole_life(w: &mut World, by: Signalling, secure: bool) {
    let [m, o, e] = cluster(w);
    let (publishes, plays) = if by == Signalling::Managed { (m, m) } else { (o, e) };
    w.over_tls(secure);
    let p = live(w, publishes, by);
    w.run(ms(1_500));
    let v = viewer(w, plays, by);
    w.over_tls(false);
    w.until("both go over to the data channel", ms(4_000), |w| {
        w.whip(p).has_switched() && w.whep(v).has_switched()
    });
    w.run(ms(2_000));
    let before = w.whep(v).over_channel();
    w.with_whip(p, |p, now| p.keep_silent(true, now));
    w.until("the viewer hears of the silence", ms(2_000), |w| w.whep(v).over_channel() > before);
    w.run(ms(1_000));
    w.with_whip(p, |p, now| p.keep_silent(false, now));
    w.run(ms(2_000));
    let fresh = w.whep(v).last_picture().is_some_and(|s| w.now().since(s.at) < ms(500));
    assert!(fresh && w.whep(v).ended().is_none() && w.whip(p).ended().is_none());
    w.with_whep(v, |v, now| v.leave(now));
    w.with_whip(p, |p, now| p.leave(now));
    w.run(ms(1_000));
    for at in [o, e] {
        assert_eq!(w.node_of(at).unwrap().client_count(), 0, "{at:?}");
    }
    assert!(w.expect_drained());
}

#[test]
fn whoever_comes_by_a_websocket_goes_on_over_the_data_channel() {
    for seed in 0..2 {
        for by in [Signalling::Socket, Signalling::Managed] {
            for secure in [false, true] {
                World::seeded(seed, |w| whole_life(w, by, secure));
            }
        }
    }
}

/// SCTP draws from a generator of its library; that is the seed's too.
#[test]
fn data_channels_replay() {
    for seed in 0..2 {
        let hash = || World::seeded(seed, |w| whole_life(w, Signalling::Socket, false));
        assert_eq!(hash(), hash(), "seed {seed}");
    }
}

/// At whatever word they leave, nothing is left of them.
#[test]
fn who_leaves_in_the_middle_of_signalling_leaves_nothing_behind() {
    for seed in 0..2 {
        World::seeded(seed, |w| {
            let [m, o, e] = cluster(w);
            live(w, o, Signalling::Socket);
            w.run(ms(1_500));
            for n in 0..40 {
                let by = if n % 3 == 0 { Signalling::Managed } else { Signalling::Socket };
                let at = if n % 3 == 0 { m } else { [o, e][n % 2] };
                let again = None;
                let stay = ms(n as u64 * 7);
                if n % 2 == 0 {
                    let config = WhipConfig { by, again, ..WhipConfig::default() };
                    let p = w.publish_webrtc(at, &format!("live/n{n}"), config);
                    w.run(stay);
                    w.with_whip(p, |p, now| p.leave(now));
                } else {
                    let v = w.play_webrtc(at, STREAM, WhepConfig { by, again, ..WhepConfig::default() });
                    w.run(stay);
                    // Some say nothing when they go.
                    if n % 5 == 0 {
                        w.remove(v);
                    } else {
                        w.with_whep(v, |v, now| v.leave(now));
                    }
                }
            }
            w.run(ms(35_000));
            let clients: usize = [m, o, e].iter().map(|at| w.node_of(*at).unwrap().client_count()).sum();
            assert_eq!(clients, 1, "only the publisher that stayed");
            assert!(w.expect_drained());
        });
    }
}

/// Whatever dies at whatever word of a call through the manager, over links that lose and reorder: whoever called calls again
/// and gets through, and nothing is left of what was begun.
#[test]
fn a_node_that_dies_at_any_word_of_a_call_through_the_manager_leaves_nothing_behind() {
    for step in 0..12 {
        World::seeded(step, |w| {
            let [m, o, e] = cluster(w);
            let (by, again) = (Signalling::Managed, Some(ms(700)));
            let first = WhipConfig { by: Signalling::Socket, again, ..WhipConfig::default() };
            let p = w.publish_webrtc(o, STREAM, first);
            w.until("the publisher is connected", ms(6_000), |w| w.whip(p).is_ready());
            w.run(ms(1_500));
            let silence = ms(4_000);
            let publisher =
                w.publish_webrtc(m, "live/two", WhipConfig { by, again, ..WhipConfig::default() });
            let viewer = w.play_webrtc(m, STREAM, WhepConfig { by, again, silence, ..WhepConfig::default() });
            let bad = Conditions {
                latency: ms(15),
                jitter: ms(20),
                loss: Loss { mean: 0.03, burst: 1.5 },
                reorder: 0.2,
                ..Conditions::default()
            };
            for id in [publisher, viewer] {
                w.degrade(id, bad);
            }
            w.run(ms(70 * step));
            let dies = [o, e, m][step as usize % 3];
            w.crash(dies);
            w.run(ms(2_000));
            w.start(dies);
            let fresh =
                |w: &World| w.whep(viewer).last_picture().is_some_and(|s| w.now().since(s.at) < ms(500));
            w.until("both get through", ms(40_000), |w| w.whip(publisher).is_ready() && fresh(w));
            assert!(w.expect_drained(), "step {step}");
        });
    }
}

/// Of a stream whose pictures would be damaged a viewer gets the sound, and the pictures of another that it goes over to.
#[test]
fn a_viewer_that_was_called_to_a_stream_without_pictures_for_it_gets_those_of_another() {
    for (seed, by) in [(0, Signalling::Socket), (1, Signalling::Managed)] {
        World::seeded(seed, |w| {
            let [m, o, e] = cluster(w);
            let order = Order::Pyramid;
            let one = w.publish_with(o, STREAM, PublisherConfig { order, ..PublisherConfig::default() });
            w.until("it publishes", ms(3_000), |w| w.publisher(one).is_ready());
            let config = WhipConfig { by: Signalling::Socket, ..WhipConfig::default() };
            let two = w.publish_webrtc(o, "live/two", config);
            w.until("the other is connected", ms(6_000), |w| w.whip(two).is_ready());
            w.run(ms(3_000));
            let at = if by == Signalling::Managed { m } else { e };
            let v = w.play_webrtc(at, STREAM, WhepConfig { by, strict: true, ..WhepConfig::default() });
            w.run(ms(4_000));
            assert!(w.whep(v).last_picture().is_none(), "none is damaged");
            w.with_whep(v, |v, now| v.switch("live/two", now));
            let session = w.whip(two).sent.last().unwrap().session;
            let of_two = |w: &World| w.whep(v).last_picture().is_some_and(|s| s.session == session);
            w.until("pictures of the other", ms(4_000), |w| of_two(w));
            w.with_whep(v, |v, now| v.switch(STREAM, now));
            w.run(ms(3_000));
            assert!(of_two(w), "none is damaged");
            w.with_whep(v, |v, now| v.leave(now));
            w.with_whip(two, |p, now| p.leave(now));
            w.with_publisher(one, |p, now| p.leave(now));
            assert!(w.expect_drained());
        });
    }
}

/// Pictures that are coded anew for a viewer are there whichever way it comes to them: called to them, or from another stream.
#[test]
fn a_viewer_goes_over_to_pictures_that_a_bridge_makes_and_back() {
    for (seed, by, first) in [
        (0, Signalling::Socket, STREAM),
        (1, Signalling::Socket, "live/two"),
        (2, Signalling::Managed, STREAM),
        (3, Signalling::Managed, "live/two"),
    ] {
        World::seeded(seed, |w| {
            let [m, o, e] = cluster(w);
            w.codecs(e, Codecs::AllWork);
            let order = Order::Pyramid;
            let one = w.publish_with(o, STREAM, PublisherConfig { order, ..PublisherConfig::default() });
            w.until("it publishes", ms(3_000), |w| w.publisher(one).is_ready());
            let config = WhipConfig { by: Signalling::Socket, ..WhipConfig::default() };
            let two = w.publish_webrtc(o, "live/two", config);
            w.until("the other is connected", ms(6_000), |w| w.whip(two).is_ready());
            w.run(ms(3_000));
            let at = if by == Signalling::Managed { m } else { e };
            let v = w.play_webrtc(at, first, WhepConfig { by, strict: true, ..WhepConfig::default() });
            let shows = |w: &World, stream: &str| {
                let session = match stream == STREAM {
                    true => w.publisher(one).sent.last().unwrap().session,
                    false => w.whip(two).sent.last().unwrap().session,
                };
                let last = w.whep(v).last_picture();
                last.is_some_and(|s| s.session == session && w.now().since(s.at) < ms(500))
            };
            w.until("pictures of the first", ms(6_000), |w| shows(w, first));
            let other = if first == STREAM { "live/two" } else { STREAM };
            for stream in [other, first, other] {
                w.with_whep(v, |v, now| v.switch(stream, now));
                w.until("pictures of the other", ms(4_000), |w| shows(w, stream));
                w.run(ms(2_000));
                assert!(shows(w, stream));
                assert_eq!((w.whep(v).calls().len(), &w.whep(v).gaps), (1, &Vec::new()));
            }
            assert!(w.bridges_begun(e) >= 2, "of pictures, and of sound");
            w.with_whep(v, |v, now| v.leave(now));
            w.with_whip(two, |p, now| p.leave(now));
            w.with_publisher(one, |p, now| p.leave(now));
            assert!(w.expect_drained());
        });
    }
}

/// In one session a viewer goes over to another stream and back: each begins with a key frame, and time goes on.
#[test]
fn a_viewer_goes_over_to_other_streams_in_one_session() {
    for (seed, by) in [(0, Signalling::Socket), (1, Signalling::Socket), (2, Signalling::Managed)] {
        World::seeded(seed, |w| {
            let [m, o, e] = cluster(w);
            let one = live(w, o, Signalling::Socket);
            w.run(ms(3_000));
            let config = WhipConfig { by: Signalling::Socket, ..WhipConfig::default() };
            let two = w.publish_webrtc(o, "live/two", config);
            w.until("the other is connected", ms(6_000), |w| w.whip(two).is_ready());
            w.run(ms(1_500));
            let v = viewer(w, if by == Signalling::Managed { m } else { e }, by);
            w.run(ms(2_000));
            let shows = |w: &World, publisher| {
                let session = w.whip(publisher).sent.last().unwrap().session;
                let last = w.whep(v).last_picture();
                last.is_some_and(|s| s.session == session && w.now().since(s.at) < ms(500))
            };
            for (stream, publisher) in [("live/two", two), (STREAM, one), ("live/two", two)] {
                w.with_whep(v, |v, now| v.switch(stream, now));
                w.until("pictures of the other", ms(4_000), |w| shows(w, publisher));
                w.run(ms(2_000));
                assert_eq!(w.whep(v).called(), Some(&Ok("Stream switch: Success".to_owned())));
                assert_eq!((w.whep(v).calls().len(), &w.whep(v).gaps), (1, &Vec::new()));
            }
            // What is not there is told, and what plays goes on.
            w.with_whep(v, |v, now| v.switch("live/absent", now));
            w.until("a refusal", ms(12_000), |w| w.whep(v).called().is_some_and(|c| c.is_err()));
            assert!(shows(w, two));
            // The stream that it left may end; the one that it has says goodbye.
            w.with_whip(one, |p, now| p.leave(now));
            w.run(ms(1_000));
            assert!(shows(w, two) && w.whep(v).ended().is_none());
            // Gone in the middle of a search.
            w.with_whep(v, |v, now| v.switch("live/nobody", now));
            w.run(ms(seed * 8));
            w.with_whep(v, |v, now| v.leave(now));
            assert!(w.expect_drained());
        });
    }
}
