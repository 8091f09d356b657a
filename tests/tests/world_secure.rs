//! TLS and the websocket proxy over links that lose, delay and cut into pieces.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use headwater_tests::world::actors::secure::SecureAsker;
use headwater_tests::world::actors::socket::Socket;
use headwater_tests::world::link::{Conditions, Loss};
use headwater_tests::world::scenario::ms;
use headwater_tests::world::{HostId, World};
use proto_core::node::config::Role;
use std::net::SocketAddr;

/// Runs a scenario with a seed and answers the digest of all that nodes were told and said.
fn bad_links() -> Conditions {
    Conditions {
        latency: ms(30),
        jitter: ms(20),
        loss: Loss { mean: 0.05, burst: 1.5 },
        ..Conditions::default()
    }
}

#[test]
fn answers_come_whole_over_tls_and_every_byte_replays() {
    let scenario = |w: &mut World| {
        let node = w.host("n1", &[Role::Manager, Role::Origin, Role::Edge], None);
        w.run(ms(500));
        let to = SocketAddr::new(w.http_addr(node).ip(), 5443);
        let askers: Vec<_> = ["/metrics", "/", "/api/v1/streams", "/nothing"]
            .into_iter()
            .map(|path| {
                let id = w.add(Box::new(SecureAsker::new(to, path)));
                w.degrade(id, bad_links());
                (id, path)
            })
            .collect();
        let done = |w: &mut World| {
            askers.iter().all(|(id, _)| w.actor::<SecureAsker>(*id).unwrap().result.is_some())
        };
        w.until("answers over TLS", ms(20_000), done);
        for (id, path) in &askers {
            let answer = w.actor::<SecureAsker>(*id).unwrap().result.clone().unwrap();
            let status = if *path == "/nothing" { "HTTP/1.1 404" } else { "HTTP/1.1 200" };
            assert!(answer.as_ref().is_ok_and(|a| a.starts_with(status)), "{path}: {answer:?}");
        }
        assert!(w.expect_drained());
    };
    for seed in 0..4 {
        assert_eq!(World::seeded(seed, scenario), World::seeded(seed, scenario), "seed {seed}");
    }
}

#[test]
fn handshakes_that_stall_are_ended_and_nothing_is_left_of_them() {
    World::seeded(1, |w| {
        let node = w.host("n1", &[Role::Manager, Role::Origin, Role::Edge], None);
        w.run(ms(500));
        let to = SocketAddr::new(w.http_addr(node).ip(), 5443);
        let mut asker = SecureAsker::new(to, "/");
        asker.stalls = true;
        let id = w.add(Box::new(asker));
        w.run(ms(9_000));
        assert_eq!(w.node_of(node).unwrap().sizes().0, 1);
        w.run(ms(1_500));
        assert_eq!(w.node_of(node).unwrap().sizes().0, 0);
        assert!(w.actor::<SecureAsker>(id).unwrap().result.as_ref().unwrap().is_err());
    });
}

#[test]
fn a_websocket_through_the_proxy_is_told_what_becomes_of_its_node() {
    for seed in 0..6 {
        World::seeded(seed, |w| {
            let manager = w.host("m1", &[Role::Manager], None);
            let origin = w.host("o1", &[Role::Origin], Some(manager));
            w.run(ms(2_500));
            let path = "/streammanager/api/4.0/event/live/one?action=broadcast";
            assert_eq!(w.get(manager, path).map(|(status, _)| status), Ok(200));
            let host = w.http_addr(origin).ip();
            let to = w.http_addr(manager);
            let open = |w: &mut World, host: &str| {
                let path = format!("/streammanager/?id=one&host={host}&app=live");
                let id = w.add(Box::new(Socket::new(to, &path)));
                w.degrade(id, bad_links());
                id
            };
            // The origin dies before it can be dialled; the manager may not know yet.
            w.crash(origin);
            let before = w.now();
            let early = open(w, &host.to_string());
            let heard = |w: &World, id| w.actor::<Socket>(id).is_some_and(|s| s.closed.is_some());
            w.until("the end of a websocket to a dead node", ms(6_000), |w| heard(w, early));
            assert!(w.now().since(before) < ms(4_500), "within the lease and a second, over bad links");
            // Its close may be answered first.
            let gone = |w: &mut World| w.node_of(manager).unwrap().sizes().0 == 0;
            w.until("nothing of it is left", ms(12_000), gone);
            // One that nobody gave out is refused, and nothing is dialled.
            let forbidden = open(w, &to.ip().to_string());
            w.until("the refusal of a target", ms(6_000), |w| heard(w, forbidden));
            let (_, why) = w.actor::<Socket>(forbidden).unwrap().closed.clone().unwrap();
            assert!(why.contains("403"), "{why}");
            assert!(w.expect_drained());
        });
    }
}

/// Opens a websocket through the proxy, goes some steps, and has the chosen origin crash or be cut off. Whoever tries again
/// goes elsewhere.
fn signalling(w: &mut World, bad: bool, step: usize, silent: bool) {
    let manager = w.host("m1", &[Role::Manager], None);
    let origins = ["o1", "o2"].map(|name| w.host(name, &[Role::Origin], Some(manager)));
    w.run(ms(2_500));
    let to = w.http_addr(manager);
    // A name stays where it was given out.
    let (_, place) = w.get(manager, "/streammanager/api/4.0/event/live/one?action=broadcast").unwrap();
    let here = |at: &&HostId| place.contains(&format!("\"serverAddress\":\"{}\"", w.http_addr(**at).ip()));
    let origin = *origins.iter().find(here).unwrap();
    let path = "/as/v1/proxy/ws/publish/live/one?id=one&nodeGroup=default";
    let id = w.add(Box::new(Socket::new(to, path)));
    if bad {
        w.degrade(id, bad_links());
    }
    let heard = |w: &World, id| w.actor::<Socket>(id).map_or(0, |s| s.texts.len());
    if step == 0 {
        w.run(ms(15));
    }
    if step > 0 {
        w.until("the greeting", ms(8_000), |w| heard(w, id) > 0);
        let greeting = &w.actor::<Socket>(id).unwrap().texts[0].1;
        assert!(greeting.contains("NetConnection.Connect.Success"), "{greeting}");
    }
    if step > 1 {
        w.with(id, |s: &mut Socket, now| s.send("{\"isAvailable\":\"one\",\"bundle\":true}", now));
        w.until("the answer", ms(8_000), |w| heard(w, id) > 1);
        let answer = &w.actor::<Socket>(id).unwrap().texts[1].1;
        assert!(answer.contains("\"isAvailable\":false"), "{answer}");
    }
    let at = w.now();
    if silent {
        w.cut(origin.into());
    } else {
        w.crash(origin);
    }
    // Whoever had not been placed yet gets the other origin and hears nothing of the death.
    let over = |w: &World| w.actor::<Socket>(id).is_some_and(|s| s.closed.is_some());
    w.until("an end", ms(12_000), |w| over(w) || step == 0 && heard(w, id) > 0);
    if !over(w) {
        w.heal_all();
        assert!(w.expect_drained());
        return;
    }
    let socket = w.actor::<Socket>(id).unwrap();
    let (_, last) = socket.texts.last().expect("it is told why");
    assert!(last.contains("\"type\":\"error\""), "step {step}: {last}");
    // A second after its death, the lease and a second where it is only silent; the client's own link comes on top.
    let most = if silent { ms(4_000) } else { ms(1_000) } + if bad { ms(3_000) } else { ms(0) };
    let took = socket.closed.as_ref().unwrap().0.since(at);
    assert!(took <= most, "step {step}, silent {silent}: told after {took:?}");
    w.run(ms(3_000));
    let audit = w.node_of(manager).unwrap().audit();
    assert_eq!((audit.conns.0, audit.proxied), (0, 0), "nothing is left of it");
    let again = w.add(Box::new(Socket::new(to, path)));
    w.until("the greeting of another origin", ms(3_000), |w| heard(w, again) > 0);
    let greeting = &w.actor::<Socket>(again).unwrap().texts[0].1;
    assert!(greeting.contains("NetConnection.Connect.Success"), "{greeting}");
    w.with(again, |s: &mut Socket, now| s.close(now));
    w.heal_all();
    assert!(w.expect_drained());
}

#[test]
fn whoever_signals_through_the_proxy_is_told_when_its_node_goes() {
    for seed in 0..8 {
        for step in 0..3 {
            for silent in [false, true] {
                World::seeded(seed, |w| signalling(w, seed % 2 == 0, step, silent));
            }
        }
    }
}
