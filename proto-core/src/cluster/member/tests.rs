use super::*;
use crate::cluster::placement::tests::info;
use crate::cluster::world::key;
use crate::ids::Role;

fn member(manager: &str) -> Member {
    let info = info("n", &[Role::Origin], "eu", 100);
    Member::new(Arc::default(), info, manager.to_owned(), Rng::new([1; 32]), Time::ZERO)
}

fn drain(m: &mut Member) -> Vec<Output> {
    std::iter::from_fn(|| m.poll()).collect()
}

fn registered_by(term: u64) -> Message {
    Message::Registered { term, rtsp: "rtsp://10.0.0.1:8554".to_owned(), rtsps: String::new() }
}

fn registered() -> Member {
    let mut m = member("");
    m.handle(Input::ManagerUp(LinkId::Local), Time::ZERO);
    m.handle(Input::Message(registered_by(1)), Time::ZERO);
    assert!(matches!(drain(&mut m)[..], [Output::ToManager(Message::Register(_)), Output::WantReport]));
    m
}

const E1: Epoch = Epoch { term: 1, count: 1 };
const E2: Epoch = Epoch { term: 1, count: 2 };

fn claim(req: u64) -> Input {
    Input::Claim { req, key: key("x"), identity: "i".to_owned() }
}

#[test]
fn a_lost_manager_is_dialled_again_and_again_ever_more_slowly_and_said_so_now_and_then() {
    let mut m = member("m:5090");
    let (mut dials, mut logs) = (Vec::new(), 0);
    let mut now = Time::ZERO;
    while now < Time::from_millis(60_000) {
        now = m.deadline().unwrap().at;
        m.handle(Input::Tick, now);
        for o in drain(&mut m) {
            match o {
                Output::DialManager => {
                    dials.push(now);
                    m.handle(Input::ManagerDown(Reason::peer("dial_failed", "connection refused")), now);
                }
                Output::Log(_, text) => {
                    assert!(text.starts_with("no manager reachable at m:5090: connection refused"), "{text}");
                    logs += 1;
                }
                o => panic!("{o:?}"),
            }
        }
        logs += drain(&mut m).len();
    }
    let gaps: Vec<u64> = dials.windows(2).map(|w| w[1].since(w[0]).as_millis() as u64).collect();
    assert!(gaps[0] <= 250 && gaps.iter().all(|g| (125..=1_500).contains(g)), "{gaps:?}");
    assert!((5..=7).contains(&logs), "{logs}");
}

#[test]
fn a_dial_that_never_ends_is_given_up() {
    let mut m = member("m");
    m.handle(Input::Tick, Time::ZERO);
    assert_eq!(drain(&mut m), [Output::DialManager]);
    m.handle(Input::Tick, Time::from_millis(5_000));
    assert!(matches!(drain(&mut m)[..], [Output::Log(..)]));
    m.handle(Input::Tick, m.deadline().unwrap().at);
    assert_eq!(drain(&mut m), [Output::DialManager]);
}

#[test]
fn without_a_manager_a_claim_is_refused_in_words_after_a_while() {
    let mut m = member("m:5090");
    m.handle(claim(4), Time::ZERO);
    m.handle(Input::Tick, Time::from_millis(2_999));
    drain(&mut m);
    m.handle(Input::Tick, Time::from_millis(3_000));
    let said = drain(&mut m);
    assert!(
        matches!(&said[..], [Output::Claimed { req: 4, result: Err(r) }] if r.code == "no_manager"),
        "{said:?}"
    );
}

#[test]
fn a_claim_made_while_the_manager_is_away_is_asked_when_it_is_back_and_what_runs_is_announced() {
    let mut m = registered();
    m.handle(claim(1), Time::ZERO);
    m.handle(Input::Message(Message::Claimed { req: 1, key: key("x"), epoch: E1 }), Time::ZERO);
    m.handle(Input::ManagerDown(Reason::peer("reset", "reset")), Time::ZERO);
    m.handle(Input::Claim { req: 2, key: key("y"), identity: String::new() }, Time::ZERO);
    m.handle(Input::ManagerUp(LinkId::Local), Time::from_millis(500));
    drain(&mut m);
    m.handle(Input::Message(registered_by(2)), Time::from_millis(500));
    let said = drain(&mut m);
    assert!(
        matches!(
            &said[..],
            [
                Output::ToManager(Message::Announce { epoch: E1, .. }),
                Output::ToManager(Message::Claim { req: 2, .. }),
                Output::WantReport
            ]
        ),
        "{said:?}"
    );
}

#[test]
fn a_new_manager_is_told_the_highest_epoch_heard_of() {
    let mut m = registered();
    let located = Message::Located {
        req: 7,
        key: key("y"),
        epoch: E2,
        node: crate::cluster::NodeId("o".to_owned()),
        link_addr: "10.0.0.1:1".parse().unwrap(),
        live: true,
    };
    m.handle(Input::Message(located), Time::ZERO);
    m.handle(Input::Message(Message::Fence { key: key("x"), epoch: E1 }), Time::ZERO);
    m.handle(Input::ManagerDown(Reason::peer("reset", "reset")), Time::ZERO);
    m.handle(Input::ManagerUp(LinkId::Local), Time::from_millis(500));
    let said = drain(&mut m);
    let told = |o: &Output| matches!(o, Output::ToManager(Message::Register(info)) if info.highest == E2);
    assert!(said.iter().any(told), "{said:?}");
}

#[test]
fn a_grant_that_comes_too_late_is_given_back() {
    let mut m = registered();
    m.handle(claim(1), Time::ZERO);
    m.handle(Input::Tick, Time::from_millis(3_000));
    drain(&mut m);
    m.handle(Input::Message(Message::Claimed { req: 1, key: key("x"), epoch: E1 }), Time::from_millis(3_001));
    assert_eq!(drain(&mut m), [Output::ToManager(Message::Release { key: key("x"), epoch: E1 })]);
    assert_eq!(m.owned(&key("x")), None);
}

#[test]
fn who_left_before_the_manager_was_asked_takes_no_name_from_who_stayed() {
    let mut m = registered();
    m.handle(claim(1), Time::ZERO);
    m.handle(Input::Message(Message::Claimed { req: 1, key: key("x"), epoch: E1 }), Time::ZERO);
    m.handle(Input::ManagerDown(Reason::peer("link_silent", "silent")), Time::ZERO);
    m.handle(claim(2), Time::ZERO);
    drain(&mut m);
    assert!(m.withdraw(2));
    assert!(!m.withdraw(2), "nothing is open any more");
    m.handle(Input::ManagerUp(LinkId::Local), Time::ZERO);
    m.handle(Input::Message(registered_by(1)), Time::ZERO);
    let said = drain(&mut m);
    assert!(said.iter().any(|s| matches!(s, Output::ToManager(Message::Announce { .. }))));
    assert!(!said.iter().any(|s| matches!(s, Output::ToManager(Message::Claim { .. }))), "{said:?}");
    assert_eq!(m.owned(&key("x")), Some(E1));
}

#[test]
fn who_stayed_learns_that_a_grant_to_who_left_superseded_it() {
    let mut m = registered();
    m.handle(claim(1), Time::ZERO);
    m.handle(Input::Message(Message::Claimed { req: 1, key: key("x"), epoch: E1 }), Time::ZERO);
    m.handle(claim(2), Time::ZERO);
    drain(&mut m);
    assert!(m.withdraw(2));
    m.handle(Input::Message(Message::Claimed { req: 2, key: key("x"), epoch: E2 }), Time::ZERO);
    let release = Output::ToManager(Message::Release { key: key("x"), epoch: E2 });
    assert_eq!(drain(&mut m), [Output::Fenced { key: key("x"), epoch: E2 }, release]);
    assert_eq!(m.owned(&key("x")), None);
}

#[test]
fn only_a_higher_epoch_fences_and_only_the_current_one_is_released() {
    let mut m = registered();
    m.handle(claim(1), Time::ZERO);
    m.handle(Input::Message(Message::Claimed { req: 1, key: key("x"), epoch: E2 }), Time::ZERO);
    drain(&mut m);
    m.handle(Input::Message(Message::Fence { key: key("x"), epoch: E1 }), Time::ZERO);
    m.handle(Input::Released { key: key("x"), epoch: E1 }, Time::ZERO);
    assert_eq!(drain(&mut m), []);
    let e3 = Epoch { term: 2, count: 0 };
    m.handle(Input::Message(Message::Fence { key: key("x"), epoch: e3 }), Time::ZERO);
    assert_eq!(drain(&mut m), [Output::Fenced { key: key("x"), epoch: e3 }]);
    assert_eq!(m.owned(&key("x")), None);
}

#[test]
fn a_name_that_was_not_found_is_not_asked_for_again_for_a_second() {
    let mut m = registered();
    let locate = |req| Input::Locate { req, key: key("x"), direct: false };
    m.handle(locate(1), Time::ZERO);
    m.handle(Input::Message(Message::NotFound { req: 1, key: key("x") }), Time::ZERO);
    drain(&mut m);
    m.handle(locate(2), Time::from_millis(999));
    let said = drain(&mut m);
    assert!(matches!(&said[..], [Output::Located { req: 2, result: Err(r), .. }] if r.code == "not_found"));
    m.handle(locate(3), Time::from_millis(1_000));
    assert!(matches!(drain(&mut m)[..], [Output::ToManager(Message::Locate { req: 3, .. })]));
}

/// What is logged in answer to a refusal for a name that is taken.
fn taken(m: &mut Member, at: u64) -> Vec<Level> {
    let (code, text) = ("node_name_taken".to_owned(), "taken".to_owned());
    m.handle(Input::Message(Message::Refused { req: 0, code, text }), Time::from_millis(at));
    let level = |said| match said {
        Output::Log(level, _) => Some(level),
        _ => None,
    };
    drain(m).into_iter().filter_map(level).collect()
}

#[test]
fn a_name_that_an_earlier_run_still_has_is_no_error_until_its_lease_is_over() {
    let mut m = member("m");
    m.handle(Input::ManagerUp(LinkId::Local), Time::ZERO);
    drain(&mut m);
    let lease = m.limits.lease_ms;
    assert_eq!(taken(&mut m, 10), [Level::Info]);
    assert_eq!(taken(&mut m, 1_000), []);
    assert_eq!(taken(&mut m, 10 + lease), []);
    assert_eq!(taken(&mut m, 2_000 + lease), [Level::Error], "somebody else lives under that name");
    assert_eq!(taken(&mut m, 3_000 + lease), []);
}

#[test]
fn a_refused_registration_is_said_once_and_tried_again() {
    let mut m = member("m");
    m.handle(Input::ManagerUp(LinkId::Local), Time::ZERO);
    drain(&mut m);
    let refused = || Message::Refused { req: 0, code: "cluster_nodes".to_owned(), text: "full".to_owned() };
    m.handle(Input::Message(refused()), Time::ZERO);
    m.handle(Input::Tick, Time::from_millis(1_000));
    m.handle(Input::Message(refused()), Time::from_millis(1_010));
    assert!(matches!(
        drain(&mut m)[..],
        [Output::Log(Level::Error, _), Output::ToManager(Message::Register(_))]
    ));
    m.handle(Input::Tick, Time::from_millis(1_010));
    assert_eq!(drain(&mut m), [], "a tick too early changes nothing");
}
