//! The operator's callback over a whole cluster in virtual time: whatever the program does, whoever it lets in gets in,
//! nobody else does, and a stream that others watch loses nothing of it.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use headwater_tests::world::actors::asker::Asker;
use headwater_tests::world::actors::doorman::{Doorman, Mood, PORT};
use headwater_tests::world::actors::webrtc::{WhepConfig, WhipConfig};
use headwater_tests::world::{ClientId, HostId, World};
use proto_core::auth::Action;
use proto_core::auth::config::{Fallback, RuleConfig};
use proto_core::node::config::{Config, Role};
use std::net::IpAddr;
use std::time::Duration;

const KEY: &str = "s3cr3t-publish-key";

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

struct Cluster {
    doorman: ClientId,
    m: HostId,
    o: HostId,
    e: HostId,
    calm: [ClientId; 3],
}

/// A cluster whose streams `live/…` are the callback's, and a stream of others that everybody may watch.
fn cluster(w: &mut World, fallback: Fallback) -> Cluster {
    let table = [
        (KEY, r#"{"stream":"show","user":"studio"}"#),
        ("short", r#"{"user":"guest","expires_s":5}"#),
        ("a", ""),
        ("vip", "{}"),
    ];
    let doorman = w.add(Box::new(Doorman::new(&table)));
    let ip = w.client_addr(doorman);
    let rules = move |c: &mut Config| callback_rules(c, ip, fallback);
    let m = w.host_with("m1", &[Role::Manager], None, rules);
    let o = w.host_with("o1", &[Role::Origin], Some(m), rules);
    let e = w.host_with("e1", &[Role::Edge], Some(m), rules);
    w.run(ms(2_500));
    let p = w.publish(o, "calm/x");
    w.until("the innocent publisher", ms(4_000), |w| w.publisher(p).is_ready());
    let v = w.play(e, "calm/x");
    let web = w.play_webrtc(e, "calm/x", WhepConfig::default());
    w.until("the innocent viewers", ms(6_000), |w| {
        w.player(v).last_picture().is_some() && w.whep(web).last_picture().is_some()
    });
    Cluster { doorman, m, o, e, calm: [p, v, web] }
}

fn callback_rules(c: &mut Config, ip: IpAddr, fallback: Fallback) {
    let rule = |action, streams: &[&str], who: &str| RuleConfig {
        action,
        streams: streams.iter().map(|s| (*s).to_owned()).collect(),
        who: vec![who.to_owned()],
    };
    c.auth.rules = vec![
        rule(Action::Publish, &["live/*"], "callback"),
        rule(Action::Publish, &["calm/*"], "anyone"),
        rule(Action::Play, &["live/vip"], "callback"),
        rule(Action::Play, &[], "anyone"),
        rule(Action::Api, &[], "anyone"),
    ];
    c.auth.callback = format!("http://{ip}:{PORT}/may");
    c.auth.callback_fallback = fallback;
    c.cluster.key = "a cluster key".to_owned();
}

fn undisturbed(w: &World, c: &Cluster) {
    let [p, v, web] = c.calm;
    assert!(w.publisher(p).is_ready(), "{:?}", w.publisher(p).ended());
    assert_eq!((w.player(v).gaps.len(), w.player(v).connections), (0, 1));
    assert!(w.whep(web).gaps.is_empty());
}

#[test]
fn whoever_it_lets_in_publishes_and_watches_by_every_protocol() {
    let scenario = |w: &mut World| {
        let c = cluster(w, Fallback::Refuse);
        let studio = w.publish(c.o, &format!("live/{KEY}"));
        let whip = w.publish_webrtc(c.o, "live/a", WhipConfig::default());
        let stranger = w.publish(c.o, "live/unknown");
        w.until("those whom it knows publish", ms(6_000), |w| {
            w.publisher(studio).is_ready() && w.whip(whip).is_ready()
        });
        w.until("the stranger is refused", ms(4_000), |w| w.publisher(stranger).ended().is_some());
        let said = w.publisher(stranger).ended().unwrap_or_default();
        assert!(said.contains("not in the table"), "{said}");
        let (a, web) = (w.play(c.e, "live/a"), w.play_webrtc(c.e, "live/a", WhepConfig::default()));
        let vip = w.play(c.e, "live/vip");
        w.until("viewers", ms(6_000), |w| {
            w.player(a).last_picture().is_some() && w.whep(web).last_picture().is_some()
        });
        assert!(w.player(vip).last_picture().is_none(), "no such stream");
        // The key's stream is the one that everybody knows, and nobody sees the key.
        w.run(ms(1_500));
        let (status, list) = w.get(c.m, "/api/v1/streams").expect("an answer");
        assert!(status == 200 && list.contains("live/show") && !list.contains(KEY), "{list}");
        assert!(!w.log().iter().any(|line| line.contains(KEY)), "a key in the log");
        // The manager, too, tells the public name only.
        let path = format!("/streammanager/api/4.0/event/live/{KEY}?action=broadcast");
        let asker = w.add(Box::new(Asker::new(w.http_addr(c.m), &path)));
        w.until("the manager answers", ms(4_000), |w| {
            w.actor::<Asker>(asker).is_some_and(|a| a.result.is_some())
        });
        let (status, body) = w.actor::<Asker>(asker).and_then(|a| a.result.clone()).unwrap().unwrap();
        let busy = status == 409 && body.contains("live/show is being published already");
        assert!(busy && !body.contains(KEY), "{status} {body}");
        undisturbed(w, &c);
    };
    assert_eq!(World::seeded(1, scenario), World::seeded(1, scenario), "S15");
}

#[test]
fn whatever_it_does_it_costs_only_those_who_ask() {
    let moods = [
        Mood::Down,
        Mood::Hangs,
        Mood::Drops,
        Mood::Status(500),
        Mood::Status(302),
        Mood::Says("SSH-2.0-OpenSSH_9.2\r\n"),
        Mood::Says("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"),
        Mood::Says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n"),
        Mood::Floods,
        Mood::Drips,
    ];
    World::seeded(2, |w| {
        let c = cluster(w, Fallback::Refuse);
        for mood in moods {
            w.with(c.doorman, |d: &mut Doorman, _| d.is(mood.clone()));
            let publishers: Vec<_> = (0..3).map(|_| w.publish(c.o, "live/a")).collect();
            let began = w.now();
            w.until(&format!("refusals while it is {mood:?}"), ms(3_600), |w| {
                publishers.iter().all(|p| w.publisher(*p).ended().is_some())
            });
            let said = w.publisher(publishers[0]).ended().unwrap_or_default();
            assert!(said.contains("nobody could be asked whether you may"), "{mood:?}: {said}");
            assert!(w.now().since(began) < ms(3_600));
            undisturbed(w, &c);
            w.run(ms(1_200));
        }
        // Slow is slow, and no more; and what was refused a moment ago is asked again.
        w.with(c.doorman, |d: &mut Doorman, _| d.is(Mood::Slow(ms(2_000))));
        let slow = w.publish(c.o, "live/a");
        let quick = w.publish(c.o, "calm/y");
        w.until("nobody waits for somebody else's answer", ms(1_000), |w| w.publisher(quick).is_ready());
        assert!(!w.publisher(slow).is_ready());
        w.until("it is let in", ms(2_500), |w| w.publisher(slow).is_ready());
        undisturbed(w, &c);
    });
}

#[test]
fn rights_end_when_it_says_so_and_not_because_it_is_away() {
    World::seeded(3, |w| {
        let c = cluster(w, Fallback::Refuse);
        let guest = w.publish(c.o, "live/short");
        w.until("the guest", ms(4_000), |w| w.publisher(guest).is_ready());
        w.run(ms(12_000));
        let asked = w.actor::<Doorman>(c.doorman).map_or(0, |d| d.asked.len());
        assert!(w.publisher(guest).is_ready() && (3..=4).contains(&asked), "asked {asked} times");
        w.with(c.doorman, |d: &mut Doorman, _| d.is(Mood::Down));
        w.run(ms(30_000));
        assert!(w.publisher(guest).is_ready(), "{:?}", w.publisher(guest).ended());
        w.with(c.doorman, |d: &mut Doorman, _| {
            d.is(Mood::Well);
            d.says("short", None);
        });
        w.until("it ends", ms(8_000), |w| w.publisher(guest).ended().is_some());
        undisturbed(w, &c);
    });
}

#[test]
fn an_operator_may_have_everybody_let_in_while_it_is_away() {
    World::seeded(4, |w| {
        let c = cluster(w, Fallback::Allow);
        w.with(c.doorman, |d: &mut Doorman, _| d.is(Mood::Hangs));
        let any = w.publish(c.o, "live/any");
        w.until("it is let in", ms(4_000), |w| w.publisher(any).is_ready());
        w.with(c.doorman, |d: &mut Doorman, _| d.is(Mood::Well));
        w.run(ms(2_000));
        let other = w.publish(c.o, "live/other");
        w.until("a no is a no", ms(4_000), |w| w.publisher(other).ended().is_some());
        undisturbed(w, &c);
    });
}
