//! A node that is one of several loops of a process; the others are played by hand.

use super::proxy::open;
use super::*;
use crate::node::config::loops::Loops;
use crate::node::config::{LinkTransport, Role};
use std::net::SocketAddr;

const SECRET: &str = "known-to-the-process-only";

fn door(index: usize) -> SocketAddr {
    ([127, 0, 0, 1], 40_000 + index as u16).into()
}

fn one_of(index: usize, change: impl FnOnce(&mut Config)) -> Bench {
    Bench::new(|config| {
        change(config);
        let manager = config.has_role(Role::Manager);
        let doors = (0..3).map(door).collect();
        let loops = Loops { index, doors, secret: SECRET.to_owned(), manager, made_key: true };
        *config = config.of_loop(loops).unwrap();
    })
}

fn dialled(said: &[Output]) -> Vec<(ConnId, SocketAddr)> {
    let dial = |o: &Output| if let Output::Dial { conn, to } = o { Some((*conn, *to)) } else { None };
    let all: Vec<_> = said.iter().filter_map(dial).collect();
    // The link to the manager, and what is asked of others.
    all.into_iter().filter(|(_, to)| to.port() >= 40_000).collect()
}

fn ask(bench: &mut Bench, n: u64, request: &str) -> (ConnId, Vec<Output>) {
    let conn = bench.accept(n, Service::Http);
    let said = bench.tell(Input::Received { conn, bytes: request.as_bytes() });
    (conn, said)
}

/// The dialled loop takes the connection; answers what it is asked.
fn stands(bench: &mut Bench, (conn, remote): (ConnId, SocketAddr)) -> String {
    bench.tell(Input::Connected { conn, local: "127.0.0.1:50000".parse().unwrap(), remote });
    text_of(&bench.tell(Input::Writable { conn, free: 1 << 20 }), conn)
}

fn answers(bench: &mut Bench, conn: ConnId, status: &str, body: &str) -> Vec<Output> {
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    bench.tell(Input::Received { conn, bytes: text.as_bytes() })
}

/// A request at the door of a loop, from a client who is not on this host.
fn at_door(bench: &mut Bench, n: u64, request: &str, secret: &str, part: bool) -> String {
    let letter = format!("{secret} 203.0.113.9:7 192.0.2.5:5080 0 {}", u8::from(part));
    let request = request.replacen("\r\n", &format!("\r\nHeadwater-Loop: {letter}\r\n"), 1);
    let conn = bench.accept(n, Service::Door);
    let said = bench.tell(Input::Received { conn, bytes: request.as_bytes() });
    bench.node.verify().unwrap();
    text_of(&said, conn)
}

#[test]
fn a_request_for_a_session_of_another_loop_goes_there_in_the_words_of_the_client() {
    let mut bench = one_of(1, |_| {});
    let request = "DELETE /whep-session/02abcdef?token=t HTTP/1.1\r\nHost: live.example:5080\r\nAuthorization: Bearer x\r\n\
                   X-Forwarded-For: 198.51.100.7\r\n\r\n";
    let (client, said) = ask(&mut bench, 1, request);
    let [to] = dialled(&said)[..] else { panic!("{said:?}") };
    assert_eq!(to.1, door(2));
    let head = stands(&mut bench, to);
    for line in [
        "DELETE /whep-session/02abcdef?token=t HTTP/1.1",
        "Host: live.example:5080",
        "Authorization: Bearer x",
        "X-Forwarded-For: 198.51.100.7",
        "192.0.2.1:1025 127.0.0.1:5080 0 0",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    bench.node.verify().unwrap();
    let said = answers(&mut bench, to.0, "200 OK", "");
    assert!(text_of(&said, client).starts_with("HTTP/1.1 200"), "{said:?}");
    assert!(bench.node.doors.dialled().next().is_none());
    // One that is not there is told, and so is one who does not wait.
    let (client, said) = ask(&mut bench, 2, request);
    let [to] = dialled(&said)[..] else { panic!("{said:?}") };
    let reason = Reason::local("refused", "nobody listens");
    let said = bench.tell(Input::Closed { conn: to.0, reason });
    let told = text_of(&said, client);
    assert!(
        told.starts_with("HTTP/1.1 503") && told.contains("loop 2 of this node does not answer"),
        "{told}"
    );
    let (client, said) = ask(&mut bench, 3, request);
    let [to] = dialled(&said)[..] else { panic!("{said:?}") };
    let said = bench.tell(Input::Closed { conn: client, reason: Reason::peer("peer_closed", "gone") });
    assert!(closed(&said, to.0), "{said:?}");
    bench.node.verify().unwrap();
}

#[test]
fn the_door_is_for_those_who_know_the_process() {
    let mut bench = one_of(0, |_| {});
    let request = "GET /healthz HTTP/1.1\r\nHost: n\r\n\r\n";
    for secret in ["", "guessed"] {
        let told = at_door(&mut bench, 1 + secret.len() as u64, request, secret, true);
        assert!(told.starts_with("HTTP/1.1 403"), "{told}");
    }
    let conn = bench.accept(50, Service::Door);
    assert!(bench.get(conn, "/healthz").starts_with("HTTP/1.1 403"));
    assert!(at_door(&mut bench, 51, request, SECRET, true).starts_with("HTTP/1.1 200"));
}

#[test]
fn who_comes_by_the_door_has_the_rights_of_its_client_and_not_of_this_host() {
    let mut bench = one_of(2, |_| {});
    // A session that is not there, so only whoever may look is told so.
    let request = "DELETE /api/v1/sessions/rtmp-2 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    let told = at_door(&mut bench, 1, request, SECRET, false);
    assert!(told.starts_with("HTTP/1.1 403"), "{told}");
    let local = request.replacen(
        "\r\n",
        &format!("\r\nHeadwater-Loop: {SECRET} 127.0.0.1:7 127.0.0.1:5080 0 0\r\n"),
        1,
    );
    let conn = bench.accept(2, Service::Door);
    let told = text_of(&bench.tell(Input::Received { conn, bytes: local.as_bytes() }), conn);
    assert!(told.starts_with("HTTP/1.1 404"), "{told}");
}

#[test]
fn loop_0_gathers_what_all_have_a_part_in() {
    let mut bench = one_of(0, |_| {});
    let (client, said) = ask(&mut bench, 1, "GET /api/v1/sessions HTTP/1.1\r\nHost: n\r\n\r\n");
    let to = dialled(&said);
    assert_eq!(to.iter().map(|(_, to)| *to).collect::<Vec<_>>(), [door(1), door(2)]);
    assert!(stands(&mut bench, to[0]).contains(" 0 1\r\n"), "a part is asked for");
    stands(&mut bench, to[1]);
    assert_eq!(text_of(&answers(&mut bench, to[1].0, "200 OK", r#"{"sessions":[2]}"#), client), "");
    bench.node.verify().unwrap();
    let told = text_of(&answers(&mut bench, to[0].0, "200 OK", r#"{"sessions":[1]}"#), client);
    assert!(told.ends_with(r#"{"sessions":[1,2]}"#), "{told}");
    // Another loop sends it there, whole.
    let mut other = one_of(2, |_| {});
    let (_, said) = ask(&mut other, 1, "GET /metrics HTTP/1.1\r\nHost: n\r\n\r\n");
    let [to] = dialled(&said)[..] else { panic!("{said:?}") };
    assert_eq!(to.1, door(0));
    assert!(stands(&mut other, to).contains(" 0 0\r\n"));
}

#[test]
fn who_may_not_use_the_api_is_told_before_anybody_is_asked() {
    let mut bench = one_of(0, |config| {
        config.auth.rules = vec![crate::auth::config::RuleConfig {
            action: crate::auth::Action::Api,
            streams: vec![],
            who: vec!["loopback".to_owned()],
        }];
    });
    let (client, said) = ask(&mut bench, 1, "GET /api/v1/sessions HTTP/1.1\r\nHost: n\r\n\r\n");
    assert_eq!(dialled(&said), []);
    assert!(text_of(&said, client).starts_with("HTTP/1.1 40"), "{said:?}");
}

#[test]
fn a_websocket_for_the_manager_goes_to_loop_0_as_it_came() {
    let mut bench = one_of(1, |_| {});
    let (_, said) = open(&mut bench, 1, "/streammanager/?id=s1&app=live&host=10.0.0.1");
    let [to] = dialled(&said)[..] else { panic!("{said:?}") };
    assert_eq!(to.1, door(0));
    let head = stands(&mut bench, to);
    assert!(head.starts_with("GET /streammanager/?id=s1&app=live&host=10.0.0.1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("Headwater-Loop: {SECRET} 192.0.2.1:1025 127.0.0.1:5080 0 0")), "{head}");
    bench.node.verify().unwrap();
    // Where the manager is elsewhere, it is asked there.
    let mut bench = one_of(1, |config| {
        config.node.roles = vec![Role::Edge];
        config.cluster.manager = "10.0.0.5".to_owned();
    });
    let (client, said) = open(&mut bench, 1, "/streammanager/?id=s1&app=live&host=10.0.0.1");
    assert!(dialled(&said).is_empty() && text_of(&said, client).contains("no manager"), "{said:?}");
}

#[test]
fn loops_number_their_sessions_so_that_none_has_a_number_of_another() {
    for index in 0..3 {
        let mut sessions = session::Sessions::keeping(1).numbered(index, 3);
        let numbers: Vec<u64> = (0..4).map(|_| sessions.fresh().0).collect();
        assert!(numbers.iter().all(|n| *n > 0 && *n % 3 == index as u64), "{numbers:?}");
    }
}

#[test]
fn metrics_name_the_loop() {
    let mut bench = one_of(2, |_| {});
    let page = at_door(&mut bench, 1, "GET /metrics HTTP/1.1\r\nHost: n\r\n\r\n", SECRET, true);
    assert!(page.contains(r#"headwater_node_info{loop="2",node="n/2","#), "{page}");
    assert!(page.contains("headwater_connections{loop=\"2\"} "), "{page}");
}

#[test]
fn a_secure_page_goes_straight_to_another_loop_and_to_other_nodes_through_the_manager() {
    let bench = one_of(0, |_| {});
    let urls = |id: &str| {
        let node = &bench.node;
        let info = links::node_info(&node.config, &NodeId(id.to_owned()), 1, &node.advertised);
        let key = StreamKey::parse("live/x").unwrap();
        let urls = node.urls_at(Some("here:5443"), &info, crate::http::event::Action::Subscribe, &key);
        serde_json::to_string(&urls).unwrap()
    };
    assert!(urls("n/1").contains("\"https://here:5443/whep/live/x\""), "{}", urls("n/1"));
    assert!(urls("m/1").contains("https://here:5443/as/v1/proxy/whep/live/x"), "{}", urls("m/1"));
    assert!(urls("n/7").contains("/as/v1/proxy/"), "there is no such loop: {}", urls("n/7"));
}

#[test]
fn loops_of_a_process_link_by_tcp_and_other_nodes_by_quic() {
    // Three loops, at the ports 5090 to 5092.
    for index in 0..3 {
        let mut bench = one_of(index, |c| {
            c.cluster.key = "a key that all nodes share".to_owned();
            c.cluster.transport = LinkTransport::Quic;
        });
        for (to, by_quic) in [
            ("127.0.0.1:5089", true),
            ("127.0.0.1:5090", false),
            ("127.0.0.1:5091", false),
            ("127.0.0.1:5092", false),
            ("127.0.0.1:5093", true),
            ("10.0.0.9:5091", true),
        ] {
            let conn = bench.node.dial_link(to.parse().unwrap(), links::LinkUse::Manager);
            let dialled = bench.node.conns.get(&conn).unwrap();
            assert_eq!(quic::is_quic(dialled), by_quic, "{to} of loop {index}");
        }
    }
}
