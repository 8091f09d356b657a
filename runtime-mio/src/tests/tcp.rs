//! Streams: credit, half-close, fairness, dials.

use super::*;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};

#[test]
fn ten_megabytes_come_back_through_a_slow_reader_and_never_more_than_the_cap_is_held() {
    let run = Running::start(echo);
    let sent = pattern(10 << 20);
    let mut stream = run.connect();
    let mut writer = stream.try_clone().unwrap();
    let to_send = sent.clone();
    let sender = std::thread::spawn(move || {
        writer.write_all(&to_send).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    // The reader starts only when all has been sent: until then everything piles up on the way back.
    sender.join().unwrap();
    let mut back = Vec::new();
    let mut little = [0; 1000];
    while let n @ 1.. = stream.read(&mut little).unwrap() {
        back.extend_from_slice(&little[..n]);
    }
    assert!(back == sent, "{} of {} bytes came back, or not the same", back.len(), sent.len());
    let stats = run.control.stats();
    assert_eq!(stats.tcp_bytes_in, 10 << 20);
    assert_eq!(stats.tcp_bytes_out, 10 << 20);
    assert_eq!(stats.tcp_over_credit, 0);
    assert!(stats.tcp_held_most <= 256 << 10, "{} bytes were held", stats.tcp_held_most);
    assert!(stats.tcp_held_most > 0);
}

#[test]
fn a_peer_that_has_finished_still_reads_and_its_end_comes_once() {
    let run = Running::start(echo);
    let mut stream = run.connect();
    let Saw::Accepted(conn, local, remote) = run.next() else { panic!("not accepted first") };
    assert_eq!((local, remote), (run.addr, stream.local_addr().unwrap()));
    assert!(!conn.is_dialled());
    stream.write_all(b"last words").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).unwrap();
    assert_eq!(back, "last words");
    let saw = run.stop();
    let end = [Saw::Received(conn, 10), Saw::Finished(conn)];
    assert_eq!(saw, end, "and nothing follows the node's own close");
}

#[test]
fn a_flooding_connection_does_not_starve_another() {
    // The flood never ends and its bytes go nowhere; the other asks for an echo, many times.
    let mut flooder = None;
    let run = Running::start(move |input, says| match input {
        Input::Accepted { conn, .. } if flooder.is_none() => flooder = Some(*conn),
        Input::Received { conn, .. } if Some(*conn) == flooder => {}
        input => echo(input, says),
    });
    let mut flood = run.connect();
    let flooding = run.wait(|s| if let Saw::Accepted(c, ..) = s { Some(*c) } else { None });
    let thread = std::thread::spawn(move || {
        let noise = vec![0; 1 << 20];
        while flood.write_all(&noise).is_ok() {}
    });
    run.wait(|s| matches!(s, Saw::Received(c, _) if *c == flooding).then_some(()));
    let mut other = run.connect();
    for _ in 0..200 {
        other.write_all(b"ping").unwrap();
        let mut pong = [0; 4];
        other.read_exact(&mut pong).unwrap();
        assert_eq!(&pong, b"ping");
    }
    let saw = run.stop();
    let most = saw.iter().map(|s| if let Saw::Received(_, n) = s { *n } else { 0 }).max();
    assert!(most <= Some(64 << 10), "one input brought {most:?} bytes");
    // The last write of the flood meets the end of the loop.
    thread.join().unwrap();
}

#[test]
fn connections_with_much_to_read_take_turns() {
    const ROUNDS: usize = 8;
    let limits = Limits { conn_read_per_turn: 1000, ..Limits::default() };
    let mut first = Vec::new();
    let run = Running::start_with(&limits, move |input, says| {
        if let Input::Accepted { conn, .. } = input {
            let on = first.len() == 2;
            first.push(*conn);
            // The third one lets the others go on.
            for &conn in if on { &first[..2] } else { &first[first.len() - 1..] } {
                says.outputs.push_back(Output::Reading { conn, on });
            }
        }
    });
    let mut full: Vec<TcpStream> = (0..2).map(|_| run.connect()).collect();
    let accepted = || run.wait(|s| if let Saw::Accepted(conn, ..) = s { Some(*conn) } else { None });
    let ids = [accepted(), accepted()];
    for stream in &mut full {
        stream.write_all(&[0; ROUNDS * 1000]).unwrap();
    }
    let _third = run.connect();
    accepted();
    let mut got = [0_usize; 2];
    while got != [ROUNDS * 1000; 2] {
        let Saw::Received(conn, n) = run.next() else { panic!("something else than bytes") };
        got[usize::from(conn == ids[1])] += n;
        assert!(got[0].abs_diff(got[1]) <= 1000, "{got:?}");
    }
}

#[test]
fn a_paused_connection_is_not_read_until_reading_goes_on() {
    // Reading stops with the first byte. The second connection, in the same loop, lets it go on.
    let mut first = None;
    let run = Running::start(move |input, says| match input {
        Input::Accepted { conn, .. } if first.is_none() => {
            first = Some(*conn);
            says.outputs.push_back(Output::Reading { conn: *conn, on: false });
        }
        Input::Accepted { .. } => says.outputs.push_back(Output::Reading { conn: first.unwrap(), on: true }),
        input => echo(input, says),
    });
    let mut paused = run.connect();
    paused.write_all(b"held back").unwrap();
    let Saw::Accepted(conn, ..) = run.next() else { panic!("not accepted first") };
    let _other = run.connect();
    let Saw::Accepted(other, ..) = run.next() else { panic!("read while paused") };
    assert_ne!(conn, other);
    let mut back = [0; 9];
    paused.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"held back");
}

#[test]
fn a_dial_stands_and_carries_bytes_both_ways() {
    let there = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = there.local_addr().unwrap();
    let conn = ConnId::dialled(7);
    let run = Running::start(move |input, says| match input {
        Input::HostAddresses(_) => says.outputs.push_back(Output::Dial { conn, to }),
        Input::Connected { conn, .. } => says.write(*conn, &b"hello"[..]),
        input => echo(input, says),
    });
    let (mut peer, _) = there.accept().unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut got = [0; 5];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    assert_eq!(run.next(), Saw::Connected(conn, to));
    peer.write_all(b"hi").unwrap();
    assert_eq!(run.next(), Saw::Received(conn, 2));
}

#[test]
fn a_dial_that_is_refused_is_closed_with_a_reason_once() {
    let conn = ConnId::dialled(1);
    // A port that was free a moment ago, on an address of its own so that no other test takes it.
    let gone = TcpListener::bind("127.9.8.7:0").unwrap().local_addr().unwrap();
    let run = Running::start(move |input, says| {
        if let Input::HostAddresses(_) = input {
            says.outputs.push_back(Output::Dial { conn, to: gone });
        }
    });
    assert_eq!(run.next(), Saw::Closed(conn, "dial_failed"));
    assert_eq!(run.stop(), []);
}

#[test]
fn many_connections_at_once_are_all_served() {
    let run = Running::start(echo);
    let mut streams: Vec<TcpStream> = (0..200).map(|_| run.connect()).collect();
    for (i, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&pattern(i + 1)).unwrap();
    }
    for (i, stream) in streams.iter_mut().enumerate() {
        let mut back = vec![0; i + 1];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, pattern(i + 1));
    }
    assert_eq!(run.control.stats().accepted, 200);
}
