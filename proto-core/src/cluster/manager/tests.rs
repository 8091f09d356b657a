use super::*;
use crate::cluster::placement::tests::info;
use crate::cluster::world::{World, key};
use crate::ids::Role;
use crate::io::ConnId;
use crate::wire::link::{RelayedReport, StreamFacts};

const ORIGIN: &[Role] = &[Role::Origin];
const EDGE: &[Role] = &[Role::Edge];

/// Two origins and an edge, registered, and the manager past its time of waiting.
fn world() -> World {
    let mut w = World::new();
    w.add("origin-a", ORIGIN);
    w.add("origin-b", ORIGIN);
    w.add("edge-a", EDGE);
    w.run(2_500);
    w
}

fn epoch(w: &World, node: usize, req: u64) -> Epoch {
    *w.nodes[node].claimed[&req].as_ref().unwrap()
}

/// Fences that a node got, repetitions left out.
fn fenced(w: &World, node: usize) -> Vec<(StreamKey, Epoch)> {
    let mut all = w.nodes[node].fenced.clone();
    all.dedup();
    all
}

fn code(w: &World, node: usize, req: u64) -> &'static str {
    w.nodes[node].claimed[&req].as_ref().unwrap_err().code
}

#[test]
fn nodes_register_and_are_given_out_for_their_roles() {
    let mut w = world();
    assert!(w.nodes.iter().all(|n| n.member.is_registered()));
    w.pair(1, Action::Subscribe, "x");
    w.pair(2, Action::Broadcast, "x");
    w.run(100);
    assert_eq!(w.paired[&1].as_ref().unwrap_err().status, 404);
    let placed = w.paired[&2].as_ref().unwrap().node.id.clone();
    let i = w.nodes.iter().position(|n| n.info.id == placed).unwrap();
    assert!(w.nodes[i].info.has_role(Role::Origin));
    w.claim(i, 1, "x", "");
    w.run(100);
    epoch(&w, i, 1);
    w.pair(3, Action::Subscribe, "x");
    w.pair(4, Action::Broadcast, "x");
    w.run(100);
    assert_eq!(w.paired[&3].as_ref().unwrap().node.id.0, "edge-a");
    assert_eq!(w.paired[&4].as_ref().unwrap_err().code, "name_busy");
}

#[test]
fn a_pairing_is_stable_while_it_is_not_used_and_is_forgotten_later() {
    let mut w = world();
    for req in 0..5 {
        w.pair(req, Action::Broadcast, "x");
        w.run(2_000);
    }
    assert!((1..5).all(|r| w.paired[&r].as_ref().unwrap().node.id == w.paired[&0].as_ref().unwrap().node.id));
    assert!(w.manager.as_ref().unwrap().registry().reserved(&key("x")).is_some());
    w.run(11_000);
    assert!(w.manager.as_ref().unwrap().registry().reserved(&key("x")).is_none());
}

#[test]
fn a_live_name_is_refused_and_a_silent_one_changes_hands_with_a_fence() {
    let mut w = world();
    w.claim(0, 1, "x", "alice");
    w.run(1_500);
    w.claim(1, 2, "x", "bob");
    w.run(1_500);
    assert_eq!(code(&w, 1, 2), "name_busy");
    w.nodes[0].publishing.get_mut(&key("x")).unwrap().silent = true;
    w.run(1_500);
    w.claim(1, 3, "x", "bob");
    w.run(100);
    assert!(epoch(&w, 1, 3) > epoch(&w, 0, 1));
    assert_eq!(fenced(&w, 0), [(key("x"), epoch(&w, 1, 3))]);
}

#[test]
fn the_same_publisher_takes_over_at_once_but_two_do_not_play_ping_pong() {
    let mut w = world();
    w.claim(0, 1, "x", "alice");
    w.run(100);
    w.claim(1, 2, "x", "alice");
    w.run(100);
    assert!(epoch(&w, 1, 2) > epoch(&w, 0, 1));
    w.claim(0, 3, "x", "alice");
    w.run(100);
    assert_eq!(code(&w, 0, 3), "takeover_limited");
    w.run(3_000);
    w.claim(0, 4, "x", "alice");
    w.run(100);
    assert!(epoch(&w, 0, 4) > epoch(&w, 1, 2));
}

#[test]
fn a_publisher_that_left_may_return_anywhere_and_a_held_name_is_forgotten() {
    let mut w = world();
    w.claim(0, 1, "x", "");
    w.claim(1, 2, "y", "");
    w.run(100);
    w.release(0, "x");
    w.release(1, "y");
    w.run(100);
    w.pair(1, Action::Broadcast, "x");
    w.pair(2, Action::Subscribe, "x");
    w.run(100);
    assert_eq!(w.paired[&1].as_ref().unwrap().node.id.0, "origin-a", "it goes back to where its viewers are");
    assert!(w.paired[&2].is_ok(), "a held stream exists");
    w.claim(1, 3, "x", "");
    w.run(100);
    assert!(epoch(&w, 1, 3) > epoch(&w, 0, 1));
    assert_eq!(fenced(&w, 0).len(), 1);
    w.nodes[1].publishing.remove(&key("y"));
    w.run(32_000);
    w.pair(3, Action::Subscribe, "y");
    w.run(100);
    assert_eq!(w.paired[&3].as_ref().unwrap_err().code, "not_found");
}

#[test]
fn a_restarted_manager_relearns_and_epochs_go_on_rising_even_if_its_clock_is_behind() {
    let mut w = world();
    w.claim(0, 1, "x", "");
    w.run(1_500);
    w.kill_manager();
    w.run(700);
    w.start_manager(3_600);
    // Asked before the nodes are back: the answer waits and is right.
    w.claim(1, 2, "x", "");
    w.pair(1, Action::Broadcast, "x");
    w.pair(2, Action::Subscribe, "x");
    w.run(2_000);
    assert_eq!(code(&w, 1, 2), "name_busy");
    assert_eq!(w.paired[&1].as_ref().unwrap_err().code, "name_busy");
    assert!(w.paired[&2].is_ok());
    assert!(w.nodes[0].fenced.is_empty() && w.nodes[0].publishing[&key("x")].live);
    w.claim(0, 3, "z", "");
    w.run(100);
    assert!(epoch(&w, 0, 3) > epoch(&w, 0, 1));
}

#[test]
fn nodes_come_back_within_the_time_that_a_manager_waits_however_long_it_was_gone() {
    let mut w = world();
    w.claim(0, 1, "x", "");
    w.run(100);
    w.kill_manager();
    w.run(60_000);
    assert!(w.nodes[0].dials < 100);
    assert!(w.nodes[0].logs.len() <= 8, "{:?}", w.nodes[0].logs);
    w.start_manager(0);
    w.pair(1, Action::Subscribe, "x");
    w.run(2_050);
    assert!(w.paired[&1].is_ok());
}

#[test]
fn a_dead_origins_name_goes_to_another_and_the_dead_is_fenced_when_it_returns() {
    let mut w = world();
    w.claim(0, 1, "x", "");
    w.run(1_500);
    // A partition: the origin still has its publisher.
    w.cut(0);
    w.claim(1, 2, "x", "");
    w.run(500);
    assert_eq!(code(&w, 1, 2), "name_busy", "it may be back within its lease");
    w.pair(1, Action::Broadcast, "other");
    w.run(4_000);
    assert_eq!(
        w.paired[&1].as_ref().unwrap().node.id.0,
        "origin-b",
        "a node without a link is not given out"
    );
    w.claim(1, 3, "x", "");
    w.run(100);
    assert!(epoch(&w, 1, 3) > epoch(&w, 0, 1));
    w.nodes[0].cut = false;
    w.run(3_000);
    assert_eq!(fenced(&w, 0), [(key("x"), epoch(&w, 1, 3))]);
    assert!(w.nodes[0].publishing.is_empty() && w.nodes[1].publishing[&key("x")].live);
}

#[test]
fn a_manager_that_heard_of_nobody_gives_no_live_name_away() {
    let mut w = world();
    w.claim(0, 1, "x", "");
    w.run(1_500);
    (0..3).for_each(|node| w.cut(node));
    w.run(5_000);
    w.nodes[1].cut = false;
    // It dials at least every one and a half seconds.
    w.run(1_600);
    w.claim(1, 2, "x", "");
    w.run(200);
    assert!(!w.nodes[1].claimed.contains_key(&2), "the manager waits");
    w.nodes[0].cut = false;
    w.run(3_000);
    assert_eq!(code(&w, 1, 2), "name_busy");
    assert_eq!(fenced(&w, 0), []);
}

#[test]
fn a_short_break_changes_nothing() {
    let mut w = world();
    w.claim(0, 1, "x", "");
    w.run(1_500);
    w.cut(0);
    w.run(300);
    w.nodes[0].cut = false;
    w.run(10_000);
    assert!(w.nodes[0].fenced.is_empty());
    let m = w.manager.as_ref().unwrap();
    assert_eq!(m.registry().stream(&key("x")).unwrap().state, StreamState::Live);
}

#[test]
fn an_origin_that_is_back_after_its_lease_gets_its_name_back_if_nobody_took_it() {
    let mut w = world();
    w.claim(0, 1, "x", "");
    w.run(100);
    w.cut(0);
    w.run(6_000);
    assert_eq!(w.manager.as_ref().unwrap().registry().stream(&key("x")).unwrap().owner, None);
    w.nodes[0].cut = false;
    w.run(3_000);
    let stream = w.manager.as_ref().unwrap().registry().stream(&key("x")).unwrap();
    assert_eq!(
        (stream.owner.as_ref().map(|n| n.0.as_str()), stream.epoch),
        (Some("origin-a"), epoch(&w, 0, 1))
    );
    assert!(w.nodes[0].fenced.is_empty());
}

#[test]
fn viewers_follow_a_stream_to_its_new_origin_in_time() {
    let mut w = world();
    // The edge has a viewer before there is an origin.
    w.watch(2, "x");
    w.run(700);
    w.claim(0, 1, "x", "");
    w.run(2_500);
    let count = |w: &World| w.nodes[2].received.get(&key("x")).map_or(0, Vec::len);
    for _ in 0..10 {
        w.packet(0, "x");
        w.run(20);
    }
    assert!(count(&w) >= 9, "{}", count(&w));
    w.kill(0);
    w.run(20);
    assert_eq!(w.nodes[2].away.get(&key("x")), Some(&true));
    w.run(3_100);
    w.claim(1, 2, "x", "");
    w.run(100);
    for _ in 0..100 {
        w.packet(1, "x");
        w.run(20);
    }
    assert_eq!(w.nodes[2].away.get(&key("x")), Some(&false));
    assert!(w.nodes[2].received[&key("x")].iter().filter(|(e, _)| *e == epoch(&w, 1, 2)).count() >= 95);
    assert!(w.nodes[2].ended.is_empty());
}

#[test]
fn a_superseded_origin_is_never_relayed_even_while_it_is_cut_off() {
    let mut w = world();
    w.claim(0, 1, "x", "");
    w.run(100);
    w.watch(2, "x");
    w.run(300);
    w.packet(0, "x");
    w.run(100);
    w.cut(0);
    w.run(3_500);
    w.claim(1, 2, "x", "");
    w.run(200);
    for _ in 0..20 {
        w.packet(0, "x");
        w.packet(1, "x");
        w.run(20);
    }
    let got = &w.nodes[2].received[&key("x")];
    assert_eq!(got.iter().filter(|(e, _)| *e == epoch(&w, 0, 1)).count(), 1);
    assert!(got.iter().filter(|(e, _)| *e == epoch(&w, 1, 2)).count() >= 18);
}

#[test]
fn a_restarted_origin_loses_its_streams_at_once_not_after_its_lease() {
    let mut w = world();
    w.claim(0, 1, "x", "");
    w.run(1_000);
    w.kill(0);
    w.restart(0);
    w.run(500);
    w.claim(0, 2, "x", "");
    w.run(200);
    assert!(epoch(&w, 0, 2) > epoch(&w, 0, 1));
}

#[test]
fn messages_that_take_their_time_do_not_confuse_anyone() {
    let mut w = World::new();
    w.delay = Duration::from_millis(400);
    w.add("origin-a", ORIGIN);
    w.add("origin-b", ORIGIN);
    w.run(4_000);
    for round in 0..20 {
        w.claim(0, round * 2, "x", "p");
        w.run(1_700);
        w.claim(1, round * 2 + 1, "x", "p");
        w.run(1_900);
    }
    let live = |i: usize| w.nodes[i].publishing.get(&key("x")).is_some_and(|p| p.live);
    assert!(live(0) != live(1));
}

#[test]
fn an_origin_that_its_report_forgets_is_not_believed_for_ever() {
    let mut w = world();
    w.claim(0, 1, "x", "");
    w.run(100);
    w.nodes[0].publishing.clear();
    w.run(5_000);
    assert_eq!(w.manager.as_ref().unwrap().registry().stream(&key("x")).unwrap().state, StreamState::Held);
}

fn alone(complete: bool) -> Manager {
    let mut m = Manager::new(Arc::default(), complete, Time::ZERO);
    let roles = [Role::Manager, Role::Origin, Role::Edge];
    m.handle(
        Input::Link(LinkId::Local, Message::Register(Box::new(info("all", &roles, "eu", 100)))),
        Time::ZERO,
    );
    m
}

fn pairs(m: &mut Manager) -> Vec<Result<String, &'static str>> {
    let mut out = Vec::new();
    while let Some(o) = m.poll() {
        if let Output::Paired { result, .. } = o {
            out.push(result.map(|p| p.node.id.0).map_err(|r| r.code));
        }
    }
    out
}

fn broadcast(m: &mut Manager, name: &str, region: Option<&str>, strict: bool, now: Time) {
    let regions = region.into_iter().map(str::to_owned).collect();
    let pairing =
        Pairing { action: Action::Broadcast, key: key(name), regions, strict, count: 1, leaves: None };
    m.handle(Input::Pair { req: 0, pairing }, now);
}

#[test]
fn only_where_one_process_is_the_whole_cluster_is_the_first_answer_immediate() {
    let mut m = alone(true);
    broadcast(&mut m, "x", None, false, Time::ZERO);
    assert_eq!(pairs(&mut m), [], "no term yet");
    m.handle(Input::WallClock(WallTime(1_700_000_000_000_000_000)), Time::ZERO);
    assert_eq!((pairs(&mut m), m.term()), (vec![Ok("all".to_owned())], 1_700_000_000));
    let other = Message::Register(Box::new(info("other", &[Role::Origin], "eu", 100)));
    m.handle(Input::Link(LinkId::Conn(ConnId::accepted(1)), other), Time::ZERO);
    broadcast(&mut m, "y", None, false, Time::ZERO);
    assert_eq!(pairs(&mut m), []);
    m.handle(Input::Tick, Time::from_millis(2_000));
    assert_eq!(pairs(&mut m).len(), 1);
    broadcast(&mut m, "z", Some("mars"), true, Time::from_millis(2_000));
    broadcast(&mut m, "z", Some("mars"), false, Time::from_millis(2_000));
    assert!(matches!(&pairs(&mut m)[..], [Err("no_region"), Ok(_)]));
}

#[test]
fn two_nodes_of_one_name_do_not_take_turns() {
    let mut m = alone(false);
    let register = |m: &mut Manager, conn: u64, instance: u64, at: u64| {
        let info = NodeInfo { instance, ..info("twin", &[Role::Origin], "eu", 100) };
        let link = LinkId::Conn(ConnId::accepted(conn));
        m.handle(Input::Link(link, Message::Register(Box::new(info))), Time::from_millis(at));
        let mut said = Vec::new();
        while let Some(o) = m.poll() {
            if let Output::ToLink(to, message) = o
                && to == link
            {
                said.push(message);
            }
        }
        said
    };
    assert!(matches!(&register(&mut m, 1, 1, 0)[..], [Message::Registered { .. }]));
    assert!(
        matches!(&register(&mut m, 2, 2, 100)[..], [Message::Refused { code, .. }] if code == "node_name_taken")
    );
    assert!(
        matches!(&register(&mut m, 3, 1, 200)[..], [Message::Registered { .. }]),
        "the same run, reconnected"
    );
    assert!(matches!(&register(&mut m, 4, 2, 3_300)[..], [Message::Registered { .. }]), "the first is gone");
}

#[test]
fn a_flood_of_reports_does_not_count() {
    let mut m = alone(true);
    let report = |sessions| Message::Report(Report { sessions, ..Report::default() });
    for n in 0..50 {
        m.handle(Input::Link(LinkId::Local, report(n)), Time::from_millis(5));
    }
    assert_eq!(m.registry().nodes()[&NodeId("all".to_owned())].load.sessions, 9);
}

#[test]
fn a_stranger_without_registration_gets_nothing() {
    let mut m = alone(true);
    m.handle(Input::WallClock(WallTime(1_000_000_000)), Time::ZERO);
    while m.poll().is_some() {}
    let link = LinkId::Conn(ConnId::accepted(9));
    m.handle(
        Input::Link(link, Message::Claim { req: 7, key: key("x"), identity: String::new() }),
        Time::ZERO,
    );
    assert!(matches!(m.poll(), Some(Output::ToLink(_, Message::Refused { req: 7, .. }))));
    m.handle(
        Input::Link(
            link,
            Message::Announce { key: key("x"), epoch: Epoch { term: 9, count: 9 }, identity: String::new() },
        ),
        Time::ZERO,
    );
    m.handle(Input::Link(link, Message::Report(Report::default())), Time::ZERO);
    assert!(m.registry().streams().is_empty());
}

#[test]
fn a_node_that_heard_of_a_higher_epoch_raises_the_term_and_one_that_lies_does_not() {
    let mut m = alone(false);
    let register = |m: &mut Manager, link: u64, highest: Epoch| {
        let info = NodeInfo { highest, ..info(&format!("edge-{link}"), EDGE, "eu", 100) };
        let link = LinkId::Conn(ConnId::accepted(link));
        m.handle(Input::Link(link, Message::Register(Box::new(info))), Time::ZERO);
    };
    m.handle(Input::WallClock(WallTime(1_000_000_000)), Time::ZERO);
    register(&mut m, 1, Epoch::default());
    assert_eq!(m.term(), 1);
    register(&mut m, 2, Epoch { term: 1, count: 7 });
    assert_eq!(m.term(), 2, "an earlier manager had the same term: its clock read the same second");
    register(&mut m, 3, Epoch { term: 900, count: 0 });
    assert_eq!(m.term(), 901);
    register(&mut m, 4, Epoch { term: u64::MAX, count: 1 });
    assert_eq!(m.term(), 901);
}

#[test]
fn an_epoch_that_no_manager_can_have_granted_is_not_believed() {
    let mut m = alone(true);
    m.handle(Input::WallClock(WallTime(1_000_000_000)), Time::ZERO);
    let epoch = Epoch { term: u64::MAX, count: u64::MAX };
    let announce = Message::Announce { key: key("x"), epoch, identity: String::new() };
    m.handle(Input::Link(LinkId::Local, announce), Time::ZERO);
    assert_eq!((m.term(), m.registry().streams().len()), (1, 0));
}

#[test]
fn viewers_are_added_up_over_all_nodes_and_go_with_their_node() {
    let mut w = world();
    w.claim(0, 1, "x", "alice");
    w.run(100);
    let epoch = epoch(&w, 0, 1);
    let about = StreamFacts { bits_per_s: 5, ..StreamFacts::default() };
    let at_origin =
        StreamReport { key: key("x"), epoch, silent: false, live: true, viewers: 2, about: about.clone() };
    let m = w.manager.as_mut().unwrap();
    let now = Time::from_millis(20_000_000);
    let link = |m: &Manager, name: &str| m.registry().node(&NodeId(name.to_owned())).unwrap().link.unwrap();
    let (origin, edge) = (link(m, "origin-a"), link(m, "edge-a"));
    let report = Report { streams: vec![at_origin], ..Report::default() };
    m.handle(Input::Link(origin, Message::Report(report)), now);
    let one = |name: &str, viewers| RelayedReport { key: key(name), viewers, hops: 1 };
    let relayed = vec![one("x", 3), one("unknown", 1)];
    m.handle(Input::Link(edge, Message::Report(Report { relayed, ..Report::default() })), now);
    let total = |m: &Manager, except: &str| {
        m.registry().viewers(&NodeId(except.to_owned())).get(&key("x")).copied().unwrap_or(0)
    };
    assert_eq!((total(m, "manager"), total(m, "edge-a"), total(m, "origin-a")), (5, 2, 3));
    assert_eq!(m.registry().stream(&key("x")).unwrap().about, about);
    // The edge reports that its viewers left; then it goes itself.
    m.handle(Input::Link(edge, Message::Report(Report::default())), now);
    assert_eq!(total(m, "manager"), 2);
    m.handle(Input::LinkDown(origin), now);
    m.handle(Input::Tick, now + Duration::from_secs(60));
    assert_eq!(total(m, "manager"), 0);
}

fn choose(w: &mut World, req: u64, name: &str, action: Action, count: usize, strict: bool) {
    let pairing = Pairing { action, key: key(name), regions: Vec::new(), strict, count, leaves: None };
    let now = w.now;
    w.manager.as_mut().unwrap().handle(Input::Pair { req, pairing }, now);
    w.run(10);
}

#[test]
fn several_nodes_are_given_out_the_best_first_and_strict_wants_all_of_them() {
    let mut w = world();
    choose(&mut w, 1, "x", Action::Broadcast, 2, true);
    choose(&mut w, 2, "x", Action::Broadcast, 5, false);
    choose(&mut w, 3, "x", Action::Broadcast, 3, true);
    let given = |req: u64| {
        let p = w.paired[&req].as_ref().unwrap();
        (p.node.id.0.clone(), p.others.iter().map(|n| n.id.0.clone()).collect::<Vec<_>>())
    };
    let (first, rest) = given(1);
    assert_eq!(rest.len(), 1);
    assert_ne!(first, rest[0]);
    assert_eq!(given(2), (first, rest), "the second question finds the first one's reservation");
    assert_eq!(w.paired[&3].as_ref().unwrap_err().code, "too_few");
}

#[test]
fn a_node_that_an_operator_drains_is_given_to_nobody_until_it_is_taken_back() {
    let mut w = world();
    let order = |on| DrainOrder { on, within_ms: 0, stop: false };
    let manager = w.manager.as_mut().unwrap();
    let node = manager.find_node("origin-a").unwrap();
    manager.drain_node(&node, order(true)).unwrap();
    choose(&mut w, 1, "x", Action::Broadcast, 2, false);
    let p = w.paired[&1].as_ref().unwrap();
    assert_eq!((p.node.id.0.as_str(), p.others.len()), ("origin-b", 0));
    w.run(2_000);
    assert!(w.nodes[0].draining, "the node was told");
    // A manager that was restarted learns it from the node.
    w.kill_manager();
    w.run(500);
    w.start_manager(0);
    w.run(5_000);
    choose(&mut w, 2, "y", Action::Broadcast, 2, false);
    assert_eq!(w.paired[&2].as_ref().unwrap().node.id.0, "origin-b");
    w.manager.as_mut().unwrap().drain_node(&node, order(false)).unwrap();
    w.run(2_000);
    choose(&mut w, 3, "z", Action::Broadcast, 2, false);
    assert_eq!(w.paired[&3].as_ref().unwrap().others.len(), 1);
    let manager = w.manager.as_mut().unwrap();
    assert_eq!(manager.find_node("nobody").unwrap_err().status, 404);
    assert_eq!(manager.find_node("10.0.0.1").unwrap().0, "origin-b", "by its address");
}

#[test]
fn who_is_at_a_node_that_takes_nothing_new_is_told_another_though_the_name_is_taken() {
    let mut w = world();
    w.add("edge-b", EDGE);
    w.claim(0, 1, "x", "");
    w.run(1_500);
    let to = |w: &World, node: usize, req| {
        let to = w.nodes[node].relocated[&req].clone();
        to.map(|to| format!("{} {} {}", to.node, to.rtmp, to.rtmps))
    };
    w.nodes[0].draining = true;
    w.relocate(0, 2, "x", true);
    // Who would take the name from its publisher is refused as before.
    choose(&mut w, 3, "x", Action::Broadcast, 1, false);
    w.run(100);
    assert_eq!(to(&w, 0, 2).as_deref(), Some("origin-b rtmp://10.0.0.1:2 rtmps://10.0.0.1:7"));
    assert_eq!(w.paired[&3].as_ref().unwrap_err().code, "name_busy");
    w.release(0, "x");
    w.run(100);
    w.claim(1, 4, "x", "");
    w.run(100);
    epoch(&w, 1, 4);

    // Viewers of it; and nobody is sent to a node that takes nothing new, or for a stream that nobody publishes.
    w.relocate(2, 5, "x", false);
    w.relocate(1, 6, "x", true);
    w.relocate(2, 7, "nothing", false);
    w.run(2_000);
    assert!(to(&w, 2, 5).is_some_and(|to| to.starts_with("edge-b ")));
    assert_eq!((to(&w, 1, 6), to(&w, 2, 7)), (None, None), "the other origin drains");

    // Without a manager there is an answer, too.
    w.kill_manager();
    w.run(500);
    w.relocate(2, 8, "x", false);
    w.run(20_000);
    assert_eq!(to(&w, 2, 8), None);
}

#[test]
fn a_node_that_lost_its_order_on_a_broken_link_is_told_again() {
    let mut w = world();
    w.cut(0);
    w.run(100);
    let now = w.now;
    let manager = w.manager.as_mut().unwrap();
    let node = manager.find_node("origin-a").unwrap();
    manager.drain_node(&node, DrainOrder { on: true, within_ms: 0, stop: false }).unwrap();
    let stop = DrainOrder { on: true, within_ms: 0, stop: true };
    assert_eq!(manager.drain_node(&node, stop).unwrap_err().code, "node_unreachable");
    w.nodes[0].cut = false;
    w.run(2_500);
    assert!(w.nodes[0].draining && w.now > now);
}

#[test]
fn a_warm_order_reaches_the_edges_that_viewers_will_be_sent_to() {
    let mut w = world();
    w.add("edge-b", EDGE);
    w.run(2_500);
    let now = w.now;
    assert_eq!(w.manager.as_mut().unwrap().warm(&key("x"), 1, 60_000, now).unwrap_err().status, 404);
    w.claim(0, 1, "x", "");
    w.run(100);
    let now = w.now;
    let edges = w.manager.as_mut().unwrap().warm(&key("x"), 1, 60_000, now).unwrap();
    w.run(100);
    let warmed: Vec<_> = w.nodes.iter().filter(|n| !n.warmed.is_empty()).map(|n| n.info.id.clone()).collect();
    assert_eq!(warmed, edges);
    choose(&mut w, 2, "x", Action::Subscribe, 1, false);
    assert_eq!(w.paired[&2].as_ref().unwrap().node.id, edges[0]);
}

#[test]
fn why_something_is_where_it_is_can_be_asked_afterwards() {
    let mut w = world();
    choose(&mut w, 1, "x", Action::Broadcast, 1, false);
    let first = w.paired[&1].as_ref().unwrap().node.id.clone();
    let at = w.nodes.iter().position(|n| n.info.id == first).unwrap();
    w.claim(at, 1, "x", "");
    w.claim(1 - at, 2, "y", "");
    w.run(2_000);
    for req in 2..9 {
        choose(&mut w, req, "x", Action::Subscribe, 1, false);
    }
    choose(&mut w, 20, "absent", Action::Subscribe, 1, false);
    let m = w.manager.as_ref().unwrap();
    let placed = m.placed(&key("x")).unwrap();
    let choice = placed.publisher.as_ref().unwrap();
    assert_eq!(choice.considered.len(), 2, "both origins, no edge");
    assert_eq!(choice.considered[0].node, first.0, "the chosen one first");
    let words = choice.words(w.now).join("\n");
    assert!(words.contains("least used") && words.contains("could be used"), "{words}");
    assert_eq!(placed.viewers.len(), 4, "only the newest are kept");
    assert!(placed.taken.as_ref().unwrap().how.contains("as the manager had said"));
    let other = m.placed(&key("y")).unwrap().taken.as_ref().unwrap();
    assert!(other.how.contains("without asking"), "{}", other.how);
    assert!(m.placed(&key("absent")).is_none(), "names that nobody publishes push nothing out");
    assert_eq!(m.placed_count(), 2);
}

#[test]
fn of_the_oldest_streams_nothing_is_remembered() {
    let mut choices = super::placed::Choices::default();
    for n in 0..10 {
        let taken = Taken { at: Time::ZERO, node: NodeId("n".to_owned()), epoch: Epoch::default(), how: "" };
        choices.take(&key(&format!("s{n}")), taken, 4);
    }
    assert_eq!(choices.len(), 4);
    assert!(choices.of(&key("s5")).is_none() && choices.of(&key("s6")).is_some());
}

/// A node that asks where a stream is, is sent to a relay in its own region, or where the origin is nearly full to any
/// that has room; never to one through which too many nodes would be passed, nor when it asks for the origin.
#[test]
fn nodes_pull_from_relays_that_are_nearer_or_have_more_room() {
    let mut w = World::new();
    for (name, region) in [("o", "eu"), ("near", "eu"), ("far-1", "us"), ("far-2", "us"), ("far-3", "us")] {
        w.add_in(name, if name == "o" { ORIGIN } else { EDGE }, region);
    }
    w.run(2_500);
    w.claim(0, 1, "x", "");
    w.run(100);
    let now = w.now;
    let m = w.manager.as_mut().unwrap();
    let link = |m: &Manager, name: &str| m.registry().node(&NodeId(name.to_owned())).unwrap().link.unwrap();
    let mut asked = 0;
    let mut whom = |m: &mut Manager, name: &str, direct| {
        asked += 1;
        m.handle(Input::Link(link(m, name), Message::Locate { req: asked, key: key("x"), direct }), now);
        std::iter::from_fn(|| m.poll())
            .find_map(|o| match o {
                Output::ToLink(_, Message::Located { node, .. }) => Some(node.0),
                _ => None,
            })
            .unwrap()
    };
    let relays = |m: &mut Manager, name: &str, hops| {
        let relayed = vec![RelayedReport { key: key("x"), viewers: 1, hops }];
        m.handle(Input::Link(link(m, name), Message::Report(Report { relayed, ..Report::default() })), now);
    };
    assert_eq!(whom(m, "far-1", false), "o");
    relays(m, "far-1", 1);
    assert_eq!(whom(m, "far-2", false), "far-1");
    assert_eq!(whom(m, "far-2", true), "o");
    assert_eq!(whom(m, "near", false), "o");
    assert_eq!(whom(m, "far-1", false), "o", "nobody is sent to itself");
    relays(m, "far-2", 2);
    assert_eq!(whom(m, "far-3", false), "far-1", "the shorter way");
    relays(m, "far-1", 0);
    assert_eq!(whom(m, "far-3", false), "far-2");
    relays(m, "far-2", m.limits.relay_hops as u32);
    assert_eq!(whom(m, "far-3", false), "o");
    relays(m, "far-2", 1);
    let epoch = m.registry().stream(&key("x")).unwrap().epoch;
    let streams = vec![StreamReport {
        key: key("x"),
        epoch,
        silent: false,
        live: true,
        viewers: 0,
        about: StreamFacts::default(),
    }];
    let full = Report { sessions: 90, session_limit: 100, streams, ..Report::default() };
    m.handle(Input::Link(link(m, "o"), Message::Report(full)), now);
    assert_eq!(whom(m, "near", false), "far-2");
    let drains = Report {
        draining: true,
        relayed: vec![RelayedReport { key: key("x"), viewers: 1, hops: 1 }],
        ..Report::default()
    };
    m.handle(Input::Link(link(m, "far-2"), Message::Report(drains)), now);
    assert_eq!(whom(m, "near", false), "o");
}
