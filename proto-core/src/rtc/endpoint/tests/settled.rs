//! What a viewer keeps of DTLS after the handshake, and what that is good for.

use super::*;

/// A viewer whose peer begins the handshake, or waits for us to.
fn viewer(waits: bool) -> (World, SessionId) {
    let (mut w, offer) = World::new(Limits::default(), Direction::RecvOnly, true);
    let offer = if waits { offer.replace("a=setup:actpass", "a=setup:passive") } else { offer };
    let playing = w.endpoint.play(from(&offer, &[addr(SERVER)]), &tracks(), w.now).unwrap();
    assert!(playing.answer.contains(if waits { "a=setup:active" } else { "a=setup:passive" }));
    w.browser.answer(&playing.answer);
    (w, playing.session)
}

fn is_settled(w: &World, id: SessionId) -> bool {
    match &w.endpoint.sessions.get(&id).unwrap().talk {
        Talk::Lean(viewer) => viewer.is_settled(),
        Talk::Whole(_) => panic!("not lean"),
    }
}

#[test]
fn a_handshake_leaves_what_the_end_needs_whoever_began_it() {
    for waits in [false, true] {
        let (mut w, id) = viewer(waits);
        w.connect();
        assert!(is_settled(&w, id), "waits: {waits}");
        let reason = Reason::local("draining", "this node is shutting down");
        w.endpoint.handle(Input::Close { session: id, reason }, w.now);
        w.run(Duration::from_millis(100));
        assert!(w.browser.closed, "waits: {waits}");

        let (mut w, _) = viewer(waits);
        w.connect();
        w.browser.rtc.close().unwrap();
        w.run(Duration::from_millis(100));
        assert_eq!(w.end().map(|r| r.code), Some("peer_closed"), "waits: {waits}");
    }
}

#[test]
fn a_peer_that_did_not_get_the_last_flight_gets_it_again() {
    let (mut w, id) = viewer(false);
    let mut lost = 0;
    w.filter = Box::new(move |to_us, bytes, _| {
        // Our last flight begins with ChangeCipherSpec: the first, and the second that follows of itself, and one more.
        let last = !to_us && bytes.first() == Some(&20);
        lost += usize::from(last);
        !last || lost > 3
    });
    w.run(Duration::from_secs(1));
    assert!(is_settled(&w, id), "for us the handshake stands");
    assert!(!w.browser.connected);
    w.run(Duration::from_secs(8));
    assert!(w.browser.connected);
    assert_eq!(w.end(), None);
}

#[test]
fn a_forged_end_ends_nothing_and_a_crowd_of_flights_is_answered_seldom() {
    let (mut w, id) = viewer(false);
    w.connect();
    let head = |content: u8, epoch: u8, n: u8, length: u8| {
        [content, 254, 253, 0, epoch, 0, 0, 0, 0, 0, n, 0, length]
    };
    for n in 0..200 {
        for level in 1..=2 {
            w.arrive(addr(CLIENT), &[&head(21, 1, n, 26)[..], &[level; 26]].concat());
            w.arrive(addr(CLIENT), &[&head(21, 0, n, 2)[..], &[level, 0]].concat());
        }
        // Records that end before they begin, or have no room for a nonce.
        w.arrive(addr(CLIENT), &head(21, 1, n, 9));
        w.arrive(addr(CLIENT), &[&head(21, 1, n, 3)[..], &[0; 3]].concat());
    }
    let sent = w.sent_to.get(&addr(CLIENT)).copied();
    w.settle();
    assert_eq!(w.sent_to.get(&addr(CLIENT)).copied(), sent, "no answer to what is not authentic");
    for n in 0..200 {
        w.arrive(addr(CLIENT), &[&head(22, 0, n, 12)[..], &[1; 12]].concat());
    }
    w.settle();
    let more = w.sent_to[&addr(CLIENT)] - sent.unwrap();
    assert!((50..200).contains(&more), "{more} bytes for 200 flights at once");
    w.run(Duration::from_secs(5));
    assert_eq!(w.end(), None);
    assert!(is_settled(&w, id));
}
