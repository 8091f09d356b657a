//! What others throw into a session's handshake and life (A15): first ClientHellos, plaintext alerts, pieces of handshakes,
//! from other addresses and, where addresses can be forged, from the peer's own.

use super::*;

const STRANGER: &str = "203.0.113.66:6666";

/// A DTLS record in plain text (RFC 6347, 4.1).
fn record(kind: u8, number: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 254, 253, 0, 0, 0, 0, 0, 0, 0, number];
    out.extend_from_slice(&(body.len() as u16).to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// A piece of a handshake message (RFC 6347, 4.2.2).
fn piece(kind: u8, total: u32, seq: u16, at: u32, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&total.to_be_bytes()[1..]);
    out.extend_from_slice(&seq.to_be_bytes());
    out.extend_from_slice(&at.to_be_bytes()[1..]);
    out.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(body);
    out
}

fn alerts() -> Vec<Vec<u8>> {
    // Fatal and warning; close_notify, handshake_failure, bad_certificate, internal_error.
    let kinds = [[2, 40], [1, 0], [2, 42], [2, 80]];
    (0u8..).zip(kinds).map(|(n, alert)| record(21, n, &alert)).collect()
}

fn pieces() -> Vec<Vec<u8>> {
    let mut hello = vec![254, 253];
    hello.extend([7; 32]);
    hello.extend([0, 0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let whole = hello.len() as u32;
    vec![
        record(22, 0, &piece(1, whole, 0, 0, &hello)),
        record(22, 1, &piece(1, whole, 0, 0, &hello[..20])),
        record(22, 2, &piece(1, 0x00ff_ffff, 0, 0x00ff_0000, &[1, 2, 3])),
        record(22, 3, &piece(16, 66, 2, 10, &[9; 20])),
        record(20, 4, &[1]),
        record(23, 5, b"not encrypted"),
        record(22, 6, &[0; 5]),
    ]
}

fn opened(direction: Direction, whole: bool) -> (World, SessionId) {
    let (mut w, offer) = World::new(Limits::default(), direction, true);
    if whole {
        w.endpoint.use_whole_viewers();
    }
    let server = [addr(SERVER)];
    let (id, answer) = match direction {
        Direction::SendOnly => w.endpoint.publish(from(&offer, &server), w.now).unwrap(),
        _ => w.endpoint.play(from(&offer, &server), &tracks(), w.now).map(|p| (p.session, p.answer)).unwrap(),
    };
    w.browser.answer(&answer);
    (w, id)
}

/// Throws all of it in from `source`, before the first check, at each step of the handshake, and after it.
fn pelted(source: &str, junk: &[Vec<u8>], direction: Direction, whole: bool) {
    let (mut w, session) = opened(direction, whole);
    for _ in 0..40 {
        for bytes in junk {
            w.arrive(addr(source), bytes);
        }
        w.run(Duration::from_millis(5));
    }
    w.connect();
    assert_eq!(w.end(), None, "{source}");
    for bytes in junk {
        w.arrive(addr(source), bytes);
    }
    if direction == Direction::SendOnly {
        w.publish(15, 15);
        w.run(Duration::from_millis(500));
        assert_eq!(w.frames(TrackId::VIDEO).len(), 15, "{source}");
    } else {
        for (track, config) in tracks() {
            w.deliver(session, &Delivery::Config { track, config });
        }
        for n in 0..15u64 {
            let kind = if n == 0 { FrameKind::Key } else { FrameKind::Delta };
            let frame = delivery(n, kind, picture(n == 0, 3_000, 3), 33_000_000 * n as i64);
            w.deliver(session, &frame);
            w.run(Duration::from_millis(33));
        }
        w.run(Duration::from_millis(500));
        assert_eq!(w.shown().len(), 15, "{source}");
    }
    assert_eq!(w.end(), None, "{source}");
    assert_eq!(w.sent_to.get(&addr(STRANGER)), None, "strangers are not answered");
    assert!(w.endpoint.verify().is_ok());
}

const KINDS: [(Direction, bool); 3] =
    [(Direction::SendOnly, false), (Direction::RecvOnly, false), (Direction::RecvOnly, true)];

#[test]
fn what_comes_from_other_addresses_hurts_nobody() {
    let all: Vec<Vec<u8>> = alerts().into_iter().chain(pieces()).collect();
    for (direction, whole) in KINDS {
        pelted(STRANGER, &all, direction, whole);
    }
}

#[test]
fn plaintext_alerts_end_no_session_even_from_the_peers_own_address() {
    for (direction, whole) in KINDS {
        pelted(CLIENT, &alerts(), direction, whole);
    }
}

#[test]
fn a_first_clienthello_of_somebody_else_takes_no_session() {
    // A whole client of its own, faster than the peer, but without the password: its hello never reaches the handshake.
    for (direction, whole) in KINDS {
        let (mut w, _) = opened(direction, whole);
        let hellos = [pieces().remove(0)];
        for bytes in &hellos {
            w.arrive(addr(STRANGER), bytes);
        }
        assert_eq!(w.endpoint.drops().unknown_path, hellos.len() as u64);
        w.connect();
        assert_eq!(w.sent_to.get(&addr(STRANGER)), None);
    }
}
