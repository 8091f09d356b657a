//! Who may publish and play, over a whole cluster in virtual time: whoever may not gets in by no protocol, whoever may does,
//! rights end when they end, and a stream that others watch loses nothing of it.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use headwater_tests::world::actors::asker::Asker;
use headwater_tests::world::actors::player::PlayerConfig;
use headwater_tests::world::actors::publisher::PublisherConfig;
use headwater_tests::world::actors::socket::Socket;
use headwater_tests::world::actors::webrtc::{WhepConfig, WhipConfig};
use headwater_tests::world::{ClientId, HostId, World};
use proto_core::auth::config::{KeyConfig, RuleConfig, UserConfig};
use proto_core::auth::secret::Secret;
use proto_core::auth::token::{Claims, OneOrMany, TokenKeys};
use proto_core::auth::{Action, password};
use proto_core::node::config::remotes::{Carries, Destination, RemoteUrl, Source, When};
use proto_core::node::config::{Config, Role};
use std::time::Duration;

const SECRET: &str = "a secret of thirty-two characters";
const KEY: &str = "s3cr3t-publish-key";

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn rules(c: &mut Config) {
    let texts = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let rule = |action, streams: &[&str], who: &[&str]| RuleConfig {
        action,
        streams: texts(streams),
        who: texts(who),
    };
    c.auth.rules = vec![
        rule(Action::Publish, &["live/*"], &["users", "tokens", "keys"]),
        rule(Action::Play, &["live/vip"], &["users", "tokens"]),
        rule(Action::Play, &[], &["anyone"]),
        rule(Action::Api, &[], &["tokens"]),
    ];
    let hash = password::hash_cheaply("wonder", &[1; 16]).expect("a password can be hashed");
    c.auth.users = vec![UserConfig { name: "alice".to_owned(), password: Secret::new(hash), ha1: vec![] }];
    c.auth.keys =
        vec![KeyConfig { key: Secret::new(KEY), stream: "live/show".to_owned(), name: "studio".to_owned() }];
    c.auth.secret = Secret::new(SECRET);
    c.auth.clear_passwords = true;
}

/// A token as another program with the cluster's secret would make it. `from` and `to` are seconds from the world's start.
fn token(w: &World, sub: &str, action: Action, stream: &str, to: i64) -> String {
    let start = w.wall_start_s() as i64;
    let claims = Claims {
        sub: sub.to_owned(),
        iat: 0,
        nbf: None,
        exp: (start + to) as u64,
        end: None,
        jti: format!("{sub}-{to}"),
        action: OneOrMany::One(action),
        stream: OneOrMany::One(stream.to_owned()),
        of: String::new(),
        ip: None,
    };
    TokenKeys::new(SECRET.as_bytes(), "", "").mint(&claims).expect("a secret signs")
}

struct Cluster {
    m: HostId,
    o: HostId,
    o2: HostId,
    e: HostId,
}

fn cluster(w: &mut World) -> Cluster {
    let m = w.host_with("m1", &[Role::Manager], None, rules);
    let [o, o2] = ["o1", "o2"].map(|n| w.host_with(n, &[Role::Origin], Some(m), rules));
    let e = w.host_with("e1", &[Role::Edge], Some(m), rules);
    w.run(ms(2_500));
    Cluster { m, o, o2, e }
}

/// A stream with two viewers, who see to it that nothing of it is lost.
fn innocents(w: &mut World, c: &Cluster) -> [ClientId; 2] {
    let right = token(w, "calm", Action::Publish, "live/calm", 3_600);
    let p = w.publish(c.o, &format!("live/calm?token={right}"));
    w.until("the innocent publisher", ms(4_000), |w| w.publisher(p).is_ready());
    let v = w.play(c.e, "live/calm");
    let web = w.play_webrtc(c.e, "live/calm", WhepConfig::default());
    w.until("the innocent viewers", ms(6_000), |w| {
        w.player(v).last_picture().is_some() && w.whep(web).last_picture().is_some()
    });
    [p, v]
}

fn undisturbed(w: &World, [p, v]: [ClientId; 2]) {
    assert!(w.publisher(p).is_ready(), "{:?}", w.publisher(p).ended());
    assert_eq!((w.player(v).gaps.len(), w.player(v).connections), (0, 1));
}

fn wrongs(w: &World, action: Action, stream: &str) -> Vec<String> {
    let other = if action == Action::Publish { Action::Play } else { Action::Publish };
    vec![
        String::new(),
        "?token=nonsense".to_owned(),
        format!("?token={}", token(w, "x", action, stream, -61)),
        format!("?token={}", token(w, "x", action, "live/else", 3_600)),
        format!("?token={}", token(w, "x", other, stream, 3_600)),
        format!("?token={}x", token(w, "x", action, stream, 3_600)),
        "?username=alice&password=wrong".to_owned(),
        "?username=nobody&password=wonder".to_owned(),
        "?key=s3cr3t-publish-kez".to_owned(),
    ]
}

#[test]
fn whoever_may_not_gets_in_by_no_protocol() {
    let scenario = |w: &mut World| {
        let c = cluster(w);
        let calm = innocents(w, &c);
        let right = token(w, "vip", Action::Publish, "live/vip", 3_600);
        let vip = w.publish(c.o, &format!("live/vip?token={right}"));
        w.until("a stream for few", ms(4_000), |w| w.publisher(vip).is_ready());
        let (mut publish, mut whip, mut play, mut whep, mut asked, mut sockets) =
            (vec![], vec![], vec![], vec![], vec![], vec![]);
        for shown in wrongs(w, Action::Publish, "live/a") {
            let stream = format!("live/a{shown}");
            publish.push(w.publish(c.o, &stream));
            whip.push(w.publish_webrtc(c.o2, &stream, WhipConfig::default()));
            let query = shown.trim_start_matches('?');
            let path = format!("/streammanager/api/4.0/event/live/a?action=broadcast&{query}");
            asked.push(w.add(Box::new(Asker::new(w.http_addr(c.m), &path))));
            let path = format!("/live/?id=a&{query}");
            sockets.push(w.add(Box::new(Socket::new(w.http_addr(c.o), &path))));
            w.run(ms(300));
        }
        for shown in wrongs(w, Action::Play, "live/vip") {
            let stream = format!("live/vip{shown}");
            play.push(w.play(c.e, &stream));
            whep.push(w.play_webrtc(c.e, &stream, WhepConfig::default()));
            w.run(ms(300));
        }
        w.run(ms(1_500));
        for id in sockets.clone() {
            w.with(id, |s: &mut Socket, now| s.send(r#"{"isAvailable":"a","bundle":true}"#, now));
        }
        w.run(ms(1_500));
        for id in publish {
            let p = w.publisher(id);
            assert!(!p.is_ready() && p.ended().is_some());
        }
        assert!(whip.iter().all(|id| !w.whip(*id).is_ready()));
        assert!(
            play.iter().all(|id| w.player(*id).last_picture().is_none() && w.player(*id).ended.is_some())
        );
        assert!(whep.iter().all(|id| w.whep(*id).last_picture().is_none()));
        for id in asked {
            let result = w.actor::<Asker>(id).and_then(|a| a.result.clone());
            assert!(matches!(&result, Some(Ok((401 | 403 | 429, _)))), "{result:?}");
        }
        for id in sockets {
            let s = w.actor::<Socket>(id).expect("it is there");
            assert!(
                s.texts.iter().any(|(_, t)| t.contains("NetConnection.Connect.Rejected")),
                "{:?}",
                s.texts
            );
        }
        undisturbed(w, calm);
    };
    assert_eq!(World::seeded(1, scenario), World::seeded(1, scenario));
    World::seeded(2, scenario);
}

#[test]
fn whoever_may_does_and_it_ends_with_the_right() {
    let scenario = |w: &mut World| {
        let c = cluster(w);
        let calm = innocents(w, &c);
        let short = token(w, "t", Action::Publish, "live/t", 20);
        let long = token(w, "w", Action::Publish, "live/w", 3_600);
        let p = w.publish(c.o, &format!("live/t?token={short}"));
        let by_password = w.publish(c.o, "live/p?username=alice&password=wonder");
        let by_key = w.publish(c.o, &format!("live/{KEY}"));
        let whip = w.publish_webrtc(c.o2, &format!("live/w?token={long}"), WhipConfig::default());
        w.until("all who may", ms(5_000), |w| {
            [p, by_password, by_key].iter().all(|p| w.publisher(*p).is_ready()) && w.whip(whip).is_ready()
        });
        // The key's stream is the one that everybody knows, and nobody sees the key.
        let list =
            w.get(c.m, &format!("/api/v1/streams?token={}", token(w, "op", Action::Api, "x/x", 3_600)));
        let (status, list) = list.expect("an answer");
        assert!(status == 200 && list.contains("live/show") && !list.contains(KEY), "{list}");
        w.run(ms(90_000));
        assert!(w.publisher(p).ended().is_some(), "a minute after its token");
        assert!(w.publisher(by_password).is_ready() && w.whip(whip).is_ready());
        undisturbed(w, calm);
    };
    World::seeded(3, scenario);
}

/// What an operator revokes at one node ends everywhere, and is known to nodes that come later.
#[test]
fn what_is_revoked_ends_everywhere() {
    World::seeded(9, |w| {
        let c = cluster(w);
        let calm = innocents(w, &c);
        let bad = token(w, "leaked", Action::Publish, "live/*", 3_600);
        let p = w.publish(c.o, &format!("live/a?token={bad}"));
        let q = w.publish_webrtc(c.o2, &format!("live/b?token={bad}"), WhipConfig::default());
        w.until("both publish", ms(4_000), |w| w.publisher(p).is_ready() && w.whip(q).is_ready());
        let op = token(w, "op", Action::Api, "x/x", 3_600);
        let to = w.http_addr(c.e);
        let put = Asker::with_method(to, "PUT", &format!("/api/v1/revoked/token%3Aleaked?token={op}"));
        let asked = w.add(Box::new(put));
        w.until("the answer", ms(2_000), |w| w.actor::<Asker>(asked).is_some_and(|a| a.result.is_some()));
        w.run(ms(1_000));
        assert!(w.publisher(p).ended().is_some() && w.whip(q).ended().is_some(), "within a second");
        w.crash(c.o2);
        w.run(ms(500));
        w.start(c.o2);
        w.run(ms(3_000));
        let late = w.publish(c.o2, &format!("live/c?token={bad}"));
        w.run(ms(2_000));
        assert!(!w.publisher(late).is_ready() && w.publisher(late).ended().is_some());
        undisturbed(w, calm);
    });
}

/// A revocation while the manager is away is said to be one of that node, and reaches the others when there is a manager
/// again, also a new run of it that never heard of it.
#[test]
fn what_is_revoked_while_the_manager_is_away_ends_everywhere_when_it_is_back() {
    World::seeded(9, |w| {
        let c = cluster(w);
        let bad = token(w, "leaked", Action::Publish, "live/*", 3_600);
        let op = token(w, "op", Action::Api, "x/x", 3_600);
        let p = w.publish(c.o, &format!("live/a?token={bad}"));
        w.until("it publishes", ms(4_000), |w| w.publisher(p).is_ready());
        let revoke = |w: &mut World, name: &str| {
            let to = w.http_addr(c.e);
            let put = Asker::with_method(to, "PUT", &format!("/api/v1/revoked/{name}?token={op}"));
            let asked = w.add(Box::new(put));
            w.until("the answer", ms(2_000), |w| w.actor::<Asker>(asked).is_some_and(|a| a.result.is_some()));
            w.actor::<Asker>(asked).and_then(|a| a.result.clone()).unwrap().unwrap()
        };
        let (status, text) = revoke(w, &"x".repeat(257));
        assert!(status == 400 && text.contains("256 bytes"), "{status} {text}");
        let (status, text) = revoke(w, "token%3Ahttps%3A//issuer/me");
        assert!(status == 200 && text.contains("https://issuer/me"), "{status} {text}");
        w.crash(c.m);
        w.run(ms(1_000));
        let (status, text) = revoke(w, "token%3Aleaked");
        assert!(status == 200 && text.contains(r#""everywhere":false"#), "{status} {text}");
        assert!(w.publisher(p).is_ready(), "the origin cannot know yet");
        w.start(c.m);
        w.until("the origin knows", ms(5_000), |w| w.publisher(p).ended().is_some());
        let (_, text) = revoke(w, "token%3Aother");
        assert!(text.contains(r#""everywhere":true"#), "{text}");
    });
}

/// A24 and L9: the same identity replaces its own session at once, wherever in the cluster it comes; another waits for three
/// seconds of silence; and two that fight with one token do not throw each other out all the time.
#[test]
fn the_same_identity_takes_over_at_once_and_a_fight_is_slowed_down() {
    let scenario = |w: &mut World| {
        let c = cluster(w);
        let calm = innocents(w, &c);
        let mine = token(w, "me", Action::Publish, "live/a", 3_600);
        let theirs = token(w, "them", Action::Publish, "live/a", 3_600);
        let first = w.publish(c.o, &format!("live/a?token={mine}"));
        w.until("the first", ms(4_000), |w| w.publisher(first).is_ready());
        w.run(ms(1_500));
        let other = w.publish(c.o2, &format!("live/a?token={theirs}"));
        w.run(ms(1_000));
        assert!(!w.publisher(other).is_ready() && w.publisher(first).is_ready(), "another identity");
        // At the other origin: the first one's connection may be half open for all that it knows.
        let again = w.publish(c.o2, &format!("live/a?token={mine}"));
        w.until("the same identity elsewhere", ms(1_000), |w| w.publisher(again).is_ready());
        w.run(ms(500));
        assert!(w.publisher(first).ended().is_some(), "it was told");
        // L9: two encoders with one token, each coming back at once.
        let fight = PublisherConfig { again: Some(ms(100)), ..PublisherConfig::default() };
        let a = w.publish_with(c.o, &format!("live/a?token={mine}"), fight.clone());
        let b = w.publish_with(c.o, &format!("live/a?token={mine}"), fight);
        w.run(ms(30_000));
        let accepted = |w: &World, id| w.publisher(id).accepted();
        let changes = accepted(w, a) + accepted(w, b);
        assert!((2..=11).contains(&changes), "{changes} changes in 30 s");
        undisturbed(w, calm);
    };
    for seed in 4..6 {
        World::seeded(seed, scenario);
    }
}

/// Who is sent to another node by RTSP shows there what it showed before; nobody else learns anything by asking.
#[test]
fn rtsp_clients_that_are_sent_on_take_their_right_with_them() {
    let scenario = |w: &mut World| {
        let c = cluster(w);
        let calm = innocents(w, &c);
        let right = token(w, "vip", Action::Publish, "live/vip", 3_600);
        let vip = w.publish(c.o, &format!("live/vip?token={right}"));
        w.until("a stream for few", ms(4_000), |w| w.publisher(vip).is_ready());
        let mut shut_out = Vec::new();
        for shown in wrongs(w, Action::Play, "live/vip") {
            for at in [c.m, c.e] {
                shut_out.push(w.play_rtsp(at, &format!("live/vip{shown}"), PlayerConfig::default()));
                w.run(ms(300));
            }
        }
        let watch = format!("live/vip?token={}", token(w, "fan", Action::Play, "live/vip", 3_600));
        let fans = [false, true].map(|udp| {
            w.play_rtsp(c.m, &watch, PlayerConfig { udp, again: Some(ms(700)), ..PlayerConfig::default() })
        });
        w.until("the fans see it", ms(6_000), |w| {
            fans.iter().all(|v| w.rtsp_player(*v).last_picture().is_some())
        });
        let at = |w: &World, v: ClientId| w.rtsp_player(v).source().map(|s| s.at());
        assert!(
            fans.iter().all(|v| at(w, *v) == Some(w.rtsp_addr(c.e))),
            "the manager sent them to the edge"
        );
        for id in shut_out {
            let p = w.rtsp_player(id);
            assert!(p.last_picture().is_none() && p.ended.is_some(), "{:?}", p.statuses);
            assert!(!p.statuses.iter().any(|s| s.contains("302")), "told where it is: {:?}", p.statuses);
        }
        // The edge is taken out of service: both are told by REDIRECT, and show their token at the next one.
        let next = w.host_with("e2", &[Role::Edge], Some(c.m), rules);
        w.run(ms(2_500));
        w.drain(c.e);
        w.until("the fans at the other edge", ms(8_000), |w| {
            fans.iter().all(|v| at(w, *v) == Some(w.rtsp_addr(next)))
        });
        let before = w.now();
        w.until("pictures there", ms(4_000), |w| {
            fans.iter().all(|v| w.rtsp_player(*v).last_picture().is_some_and(|s| s.at > before))
        });
        // An origin that takes nothing new sends a publisher on, who came by a publish key.
        w.drain(c.o2);
        w.run(ms(1_500));
        let show = w.publish_rtsp(c.o2, &format!("live/{KEY}"), PublisherConfig::default());
        w.until("the show", ms(6_000), |w| w.rtsp_publisher(show).is_ready());
        let list =
            w.get(c.m, &format!("/api/v1/streams?token={}", token(w, "op", Action::Api, "x/x", 3_600)));
        assert!(list.expect("an answer").1.contains("live/show"));
        assert!(!w.log().iter().any(|line| line.contains(KEY)), "a key in the log");
        assert!(w.log().iter().any(|line| line.contains("sent on to") && line.contains("live/show")));
        assert!(w.publisher(calm[0]).is_ready());
    };
    assert_eq!(World::seeded(5, scenario), World::seeded(5, scenario));
}

/// Streams between clusters of which both ask who comes.
#[test]
fn sources_and_destinations_show_what_their_addresses_hold() {
    for (n, (source, destination)) in [
        ("rtsp://alice:wonder@10.0.0.1:8554/live/vip", "rtsp://10.0.0.1:8554/live/s3cr3t-publish-key"),
        (
            "rtmp://10.0.0.1/live/vip?username=alice&password=wonder",
            "rtmp://10.0.0.1/live/s3cr3t-publish-key",
        ),
        ("rtsp://alice:nonsens3@10.0.0.1:8554/live/vip", "rtsp://10.0.0.1:8554/live/s3cr3t-publish-kez"),
        (
            "rtmp://10.0.0.1/live/vip?username=alice&password=nonsens3",
            "rtmp://10.0.0.1/live/s3cr3t-publish-kez",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let right = n < 2;
        World::seeded(7, |w| {
            let all = [Role::Manager, Role::Origin, Role::Edge];
            let other = w.host_with("other", &all, None, rules);
            w.run(ms(2_500));
            let show = token(w, "vip", Action::Publish, "live/vip", 3_600);
            let vip = w.publish(other, &format!("live/vip?token={show}"));
            w.until("the other's stream", ms(4_000), |w| w.publisher(vip).is_ready());
            let here = w.host_with("here", &all, None, |c| {
                rules(c);
                let url = |url: &str| RemoteUrl(url.to_owned());
                c.sources = vec![Source {
                    stream: "live/vip".to_owned(),
                    url: url(source),
                    when: When::Demand,
                    transport: Carries::Auto,
                }];
                c.destinations = vec![Destination {
                    stream: "live/show".to_owned(),
                    url: url(destination),
                    transport: Carries::Auto,
                }];
            });
            w.run(ms(2_500));
            let mine = token(w, "own", Action::Publish, "live/show", 3_600);
            let own = w.publish(here, &format!("live/show?token={mine}"));
            // Who may not watch has nothing pulled.
            let stranger = w.play(here, "live/vip");
            w.run(ms(4_000));
            let op = token(w, "op", Action::Api, "x/x", 3_600);
            let row = |w: &mut World, list: &str| {
                let (status, text) = w.get(here, &format!("/api/v1/{list}?token={op}")).expect("an answer");
                assert_eq!(status, 200, "{text}");
                serde_json::from_str::<serde_json::Value>(&text).expect("JSON")[list][0].clone()
            };
            assert_eq!(row(w, "sources")["state"], "idle");
            assert!(w.player(stranger).last_picture().is_none() && w.publisher(own).is_ready());
            let pass = token(w, "fan", Action::Play, "live/vip", 3_600);
            let fan = w.play(here, &format!("live/vip?token={pass}"));
            w.run(ms(6_000));
            let (pulled, pushed) = (row(w, "sources"), row(w, "destinations"));
            assert_eq!(w.player(fan).last_picture().is_some(), right, "{source}: {pulled}");
            assert_eq!(pulled["state"] == "working", right, "{pulled}");
            assert_eq!(pushed["state"] == "working", right, "{pushed}");
            if right {
                let arrived = w.play(other, "live/show");
                w.run(ms(3_000));
                assert!(w.player(arrived).last_picture().is_some(), "{pushed}");
            } else {
                assert!(pushed["reason"].as_str().is_some_and(|r| !r.is_empty()), "{pushed}");
                let told = |l: &&String| l.contains("live/vip") && l.contains(" failed");
                assert!(w.log().iter().any(|l| told(&l)), "the operator is told that the source refuses");
            }
            for secret in ["wonder", "nonsens3", KEY, "s3cr3t-publish-kez"] {
                assert!(!w.log().iter().any(|line| line.contains(secret)), "{secret} in the log");
                let shown = format!("{pulled}{pushed}");
                assert!(!shown.contains(secret), "{secret} in {shown}");
            }
        });
    }
}
