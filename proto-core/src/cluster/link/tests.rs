use super::*;
use crate::media::key::StreamKey;
use crate::rand::Rng;
use proptest::prelude::*;

const NEAR: &str = "127.0.0.1:5090";
const FAR: &str = "10.0.0.7:5090";

fn config(name: &str, key: &str) -> Config {
    Config::new(NodeId(name.to_owned()), Arc::new(Keys::new(key, [])), Arc::default())
}

/// A node that shows one key and accepts more.
fn keyed(name: &str, shown: &str, accepted: &[&str]) -> Config {
    let keys = Arc::new(Keys::new(shown, accepted.iter().copied()));
    Config::new(NodeId(name.to_owned()), keys, Arc::default())
}

/// Each step of a change of keys: whoever has taken it links with whoever has not, in both directions.
#[test]
fn nodes_one_step_apart_in_a_change_of_keys_link_with_each_other() {
    let steps: [(&str, &[&str]); 4] = [("old", &[]), ("old", &["new"]), ("new", &["old"]), ("new", &[])];
    for (n, one) in steps.iter().enumerate() {
        for (m, other) in steps.iter().enumerate() {
            let mut a = link(keyed("a", one.0, one.1), Side::Dialler, FAR);
            let mut b = link(keyed("b", other.0, other.1), Side::Listener, FAR);
            let (at_a, at_b) = talk(&mut a, &mut b, 4096, Time::ZERO);
            let shows = n < 2;
            let accepted = if shows { m < 3 } else { m > 0 };
            assert_eq!((a.is_up(), b.is_up()), (accepted, accepted), "{n} dials {m}");
            if !accepted {
                assert_eq!((closed(&at_a), closed(&at_b)), (Some("link_key"), Some("link_key")));
            }
        }
    }
}

#[test]
fn a_link_stays_while_its_key_is_accepted() {
    let keys = |shown: &str, more: &[&str]| Arc::new(Keys::new(shown, more.iter().copied()));
    let mut a = link(keyed("a", "old", &[]), Side::Dialler, FAR);
    let mut b = link(keyed("b", "new", &["old"]), Side::Listener, FAR);
    talk(&mut a, &mut b, 4096, Time::ZERO);
    assert!(a.is_up() && a.set_keys(keys("new", &["old"])) && b.set_keys(keys("new", &["old"])));
    assert!(!b.set_keys(keys("new", &[])) && !a.set_keys(keys("new", &[])));
}

/// A key that is taken out while its proof is on the way proves nothing any more.
#[test]
fn a_key_that_was_retired_in_the_middle_of_a_handshake_is_refused() {
    let mut a = link(keyed("a", "old", &[]), Side::Dialler, FAR);
    let mut b = link(keyed("b", "new", &["old"]), Side::Listener, FAR);
    let hello = drain(&mut b).0;
    a.handle(Input::Received(&hello), Time::ZERO);
    let (proof, _) = drain(&mut a);
    assert!(b.set_keys(Arc::new(Keys::new("new", []))), "nothing was proved yet");
    b.handle(Input::Received(&proof), Time::ZERO);
    assert_eq!(closed(&drain(&mut b).1), Some("link_key"));
}

#[test]
fn a_file_of_keys_is_lines_and_what_is_wrong_with_it_is_said_without_them() {
    assert_eq!(Keys::lines(b"# two\n\n first \nsecond\r\n"), Ok(vec!["first", "second"]));
    for wrong in [&b""[..], b"# none\n\n", b"\xff\xfe", &b"hunter2\n".repeat(9)] {
        let said = Keys::lines(wrong).unwrap_err();
        assert!(!said.contains("hunter2"), "{said}");
    }
    assert_eq!(format!("{:?}", Keys::new("hunter2", ["other"])), "2 keys");
}

fn link(config: Config, side: Side, remote: &str) -> Link {
    let mut link = Link::new(config, side, remote.parse().unwrap(), Rng::new([side as u8; 32]), Time::ZERO);
    link.handle(Input::Writable(1 << 20), Time::ZERO);
    link
}

fn drain(link: &mut Link) -> (Vec<u8>, Vec<Output>) {
    let (mut bytes, mut rest) = (Vec::new(), Vec::new());
    while let Some(o) = link.poll() {
        match o {
            Output::Send(b) => bytes.extend(&b[..]),
            o => rest.push(o),
        }
    }
    (bytes, rest)
}

/// Passes bytes between two links until neither has more to say. `chunk`: bytes at a time.
fn talk(a: &mut Link, b: &mut Link, chunk: usize, now: Time) -> (Vec<Output>, Vec<Output>) {
    let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
    loop {
        let (to_b, said) = drain(a);
        at_a.extend(said);
        to_b.chunks(chunk).for_each(|c| b.handle(Input::Received(c), now));
        let (to_a, said) = drain(b);
        at_b.extend(said);
        to_a.chunks(chunk).for_each(|c| a.handle(Input::Received(c), now));
        if to_a.is_empty() && to_b.is_empty() {
            return (at_a, at_b);
        }
    }
}

fn closed(outputs: &[Output]) -> Option<&'static str> {
    outputs.iter().find_map(|o| if let Output::Closed(r) = o { Some(r.code) } else { None })
}

#[test]
fn two_nodes_with_the_same_key_learn_each_other() {
    let (mut a, mut b) =
        (link(config("a", "k"), Side::Dialler, FAR), link(config("b", "k"), Side::Listener, FAR));
    let (at_a, at_b) = talk(&mut a, &mut b, 4096, Time::ZERO);
    let peer = |name: &str| Peer { node: NodeId(name.to_owned()), version: VERSION, features: 0 };
    assert_eq!(at_a, [Output::Up(peer("b"))]);
    assert_eq!(at_b, [Output::Up(peer("a"))]);
}

#[test]
fn a_wrong_key_is_told_at_both_ends_and_the_listener_proves_nothing() {
    let (mut a, mut b) =
        (link(config("a", "k"), Side::Dialler, FAR), link(config("b", "x"), Side::Listener, FAR));
    let (at_a, at_b) = talk(&mut a, &mut b, 4096, Time::ZERO);
    assert_eq!((closed(&at_a), closed(&at_b)), (Some("link_key"), Some("link_key")));
    assert!(!at_a.iter().chain(&at_b).any(|o| matches!(o, Output::Up(_))));
}

#[test]
fn a_proof_cannot_be_mirrored() {
    let mut a = link(config("a", "k"), Side::Dialler, FAR);
    let hello = drain(&mut a).0;
    // The attacker answers with a hello of its own and then sends back what the dialler proves.
    let mut fake = hello.clone();
    let at = fake.windows(2).position(|w| w == b"\x01a").unwrap() + 1;
    fake[at] = b'b';
    a.handle(Input::Received(&fake), Time::ZERO);
    let proof = drain(&mut a).0;
    assert!(!proof.is_empty());
    a.handle(Input::Received(&proof), Time::ZERO);
    assert_eq!(closed(&drain(&mut a).1), Some("link_key"));
}

#[test]
fn without_a_key_only_loopback_is_linked() {
    let mut far = link(config("a", ""), Side::Listener, FAR);
    let (sent, said) = drain(&mut far);
    assert_eq!((sent.len(), closed(&said)), (0, Some("link_no_key")));
    let (mut a, mut b) = (
        link(config("a", ""), Side::Dialler, NEAR),
        link(config("b", ""), Side::Listener, "[::ffff:127.0.0.1]:9"),
    );
    talk(&mut a, &mut b, 4096, Time::ZERO);
    assert!(a.is_up() && b.is_up());
}

#[test]
fn versions_meet_at_the_lower_or_part_with_a_reason() {
    let mut new = config("a", "k");
    (new.version, new.min_version, new.features) = (VERSION + 1, VERSION, 6);
    let mut old = config("b", "k");
    old.features = 3;
    let (mut a, mut b) = (link(new.clone(), Side::Dialler, FAR), link(old.clone(), Side::Listener, FAR));
    let (at_a, _) = talk(&mut a, &mut b, 4096, Time::ZERO);
    assert!(matches!(&at_a[..], [Output::Up(p)] if p.version == VERSION && p.features == 2));
    new.min_version = VERSION + 1;
    let (mut a, mut b) = (link(new, Side::Dialler, FAR), link(old, Side::Listener, FAR));
    let (at_a, at_b) = talk(&mut a, &mut b, 4096, Time::ZERO);
    assert_eq!((closed(&at_a), closed(&at_b)), (Some("link_version"), Some("link_version")));
}

#[test]
fn silence_ends_a_link_and_keepalives_prevent_it() {
    let (mut a, mut b) =
        (link(config("a", "k"), Side::Dialler, FAR), link(config("b", "k"), Side::Listener, FAR));
    talk(&mut a, &mut b, 4096, Time::ZERO);
    let mut now = Time::ZERO;
    while now < Time::from_millis(20_000) {
        now = a.deadline().unwrap().at.min(b.deadline().unwrap().at);
        a.handle(Input::Tick, now);
        b.handle(Input::Tick, now);
        assert_eq!(talk(&mut a, &mut b, 4096, now), (vec![], vec![]));
    }
    a.handle(Input::Tick, now + Duration::from_millis(3_000));
    assert_eq!(closed(&drain(&mut a).1), Some("link_silent"));
}

#[test]
fn a_handshake_that_stalls_ends() {
    let mut b = link(config("b", "k"), Side::Listener, FAR);
    let at = b.deadline().unwrap().at;
    b.handle(Input::Tick, at - Duration::from_millis(1));
    assert_eq!(closed(&drain(&mut b).1), None);
    b.handle(Input::Tick, at);
    assert_eq!(closed(&drain(&mut b).1), Some("link_handshake_timeout"));
}

#[test]
fn a_stranger_cannot_make_a_listener_hold_much() {
    let mut b = link(config("b", "k"), Side::Listener, FAR);
    b.handle(Input::Received(&[0, 0, 0xff, 0xff]), Time::ZERO);
    assert_eq!(closed(&drain(&mut b).1), Some("link_malformed"));
    let mut b = link(config("b", "k"), Side::Listener, FAR);
    b.handle(Input::Received(b"GET / HTTP/1.1\r\n\r\n"), Time::ZERO);
    assert_eq!(closed(&drain(&mut b).1), Some("link_malformed"));
}

#[test]
fn a_peer_that_takes_nothing_is_cut_off() {
    let (mut a, mut b) =
        (link(config("a", "k"), Side::Dialler, FAR), link(config("b", "k"), Side::Listener, FAR));
    talk(&mut a, &mut b, 4096, Time::ZERO);
    a.handle(Input::Writable(0), Time::ZERO);
    let text = "x".repeat(400);
    for req in 0..200_000 {
        a.handle(Input::Send(Message::Refused { req, code: String::new(), text: text.clone() }), Time::ZERO);
        if !a.is_up() {
            break;
        }
    }
    assert_eq!(closed(&drain(&mut a).1), Some("link_backlog"));
    assert_eq!(a.backlog(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_chunking_gives_the_same(chunk in 1usize..200, names in proptest::collection::vec("[a-z]{1,9}", 0..9)) {
        let run = |chunk: usize| {
            let (mut a, mut b) = (link(config("a", "k"), Side::Dialler, FAR), link(config("b", "k"), Side::Listener, FAR));
            let mut all = vec![talk(&mut a, &mut b, chunk, Time::ZERO)];
            for (req, name) in names.iter().enumerate() {
                let key = StreamKey::join("live", name).unwrap();
                a.handle(Input::Send(Message::Locate { req: req as u64, key, direct: false }), Time::ZERO);
            }
            all.push(talk(&mut a, &mut b, chunk, Time::ZERO));
            all
        };
        let whole = run(1 << 20);
        prop_assert_eq!(whole[1].1.len(), names.len());
        prop_assert_eq!(run(chunk), whole);
    }

    #[test]
    fn garbage_closes_and_never_panics(garbage in proptest::collection::vec(any::<u8>(), 4096..5000)) {
        let mut b = link(config("b", "k"), Side::Listener, FAR);
        b.handle(Input::Received(&garbage), Time::ZERO);
        b.handle(Input::Received(&garbage), Time::ZERO);
        prop_assert!(drain(&mut b).1.iter().filter(|o| matches!(o, Output::Closed(_))).count() <= 1);
    }
}

/// Somebody between two nodes has one secret connection with each. He knows no key, so he passes on what they say.
#[test]
fn a_proof_is_worth_nothing_on_another_connection_underneath() {
    let pair = |at_a, at_b| {
        let (mut a, mut b) =
            (link(config("a", "k"), Side::Dialler, FAR), link(config("b", "k"), Side::Listener, FAR));
        a.bind_to([at_a; 32]);
        b.bind_to([at_b; 32]);
        talk(&mut a, &mut b, 4096, Time::ZERO)
    };
    let up = |said: &[Output]| matches!(said, [Output::Up(_)]);
    let (at_a, at_b) = pair(1, 1);
    assert!(up(&at_a) && up(&at_b));
    let (at_a, at_b) = pair(1, 2);
    assert_eq!(closed(&at_b), Some("link_key"));
    assert!(!up(&at_a));
}
