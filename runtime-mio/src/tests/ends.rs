//! How connections and the loop end.

use super::*;
use proto_core::error::Reason;
use proto_core::io::{Answer, AskId, Work};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;

#[test]
fn a_reset_by_the_peer_is_told_once() {
    let run = Running::start(echo);
    let stream = run.connect();
    let Saw::Accepted(conn, ..) = run.next() else { panic!("not accepted first") };
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    assert_eq!(run.next(), Saw::Closed(conn, "reset"));
    assert_eq!(run.stop(), []);
}

#[test]
fn a_reset_is_noticed_on_a_connection_that_is_not_being_read() {
    let run = Running::start(|input, says| {
        if let Input::Accepted { conn, .. } = input {
            says.outputs.push_back(Output::Reading { conn: *conn, on: false });
        }
    });
    let stream = run.connect();
    let Saw::Accepted(conn, ..) = run.next() else { panic!("not accepted first") };
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    assert_eq!(run.next(), Saw::Closed(conn, "reset"));
}

#[test]
fn a_close_at_once_resets_the_peer() {
    let run = Running::start(|input, says| {
        if let Input::Received { conn, .. } = input {
            says.write(*conn, vec![0; 1000]);
            says.outputs.push_back(Output::Close { conn: *conn, now: true });
        }
    });
    let mut stream = run.connect();
    stream.write_all(b"x").unwrap();
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn a_client_that_is_still_sending_reads_the_answer_to_its_first_byte() {
    // A server that refuses a long request after its first bytes, as HTTP does with 413.
    let run = Running::start(|input, says| {
        if let Input::Received { conn, .. } = input {
            says.write(*conn, &b"too long"[..]);
            says.finish(*conn);
        }
    });
    let mut stream = run.connect();
    // More than the buffers on the way hold, so that unread bytes are there whenever the server closes.
    stream.write_all(&vec![0; 6 << 20]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "too long");
}

#[test]
fn what_was_sent_before_a_close_leaves_even_to_a_late_reader() {
    let run = Running::start(|input, says| {
        if let Input::Received { conn, .. } = input {
            says.write(*conn, pattern(3 << 20));
            says.finish(*conn);
        }
    });
    let mut stream = run.connect();
    stream.write_all(b"x").unwrap();
    run.wait(|s| matches!(s, Saw::Received(..)).then_some(()));
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert!(all == pattern(3 << 20), "{} bytes came", all.len());
}

#[test]
fn a_drain_reaches_the_node_and_the_last_answer_leaves_before_the_loop_ends() {
    // As much as may be held, so that it does not fit into the kernel's buffers.
    const LAST: usize = 256 << 10;
    let mut open = Vec::new();
    let run = Running::start(move |input, says| match input {
        Input::Accepted { conn, .. } => open.push(*conn),
        Input::Drain => {
            for &conn in &open {
                says.outputs.push_back(Output::Send { conn, bytes: pattern(LAST).into() });
                says.outputs.push_back(Output::Close { conn, now: false });
            }
            says.outputs.push_back(Output::Drained);
        }
        _ => {}
    });
    let mut stream = run.connect();
    run.wait(|s| matches!(s, Saw::Accepted(..)).then_some(()));
    run.control.drain();
    run.wait(|s| matches!(s, Saw::Other(_)).then_some(()));
    let mut last = Vec::new();
    stream.read_to_end(&mut last).unwrap();
    assert!(last == pattern(LAST), "{} bytes came", last.len());
    drop(stream);
    let (reason, saw) = run.end();
    assert_eq!(reason, ExitReason::Drained);
    assert_eq!(saw, []);
}

#[test]
fn a_fatal_reason_ends_the_loop_with_it() {
    let reason = Reason::local("no_port", "the port is taken");
    let why = reason.clone();
    let run = Running::start(move |input, says| {
        if let Input::WallClock(wall) = input {
            assert!(wall.0 > 1_600_000_000_000_000_000, "the wall clock is in nanoseconds since 1970");
            says.outputs.push_back(Output::Fatal(why.clone()));
        }
    });
    assert_eq!(run.end().0, ExitReason::Fatal(reason));
}

#[test]
fn the_deadline_of_the_node_wakes_it_and_an_idle_loop_sleeps() {
    let run = Running::start(|input, says| match input {
        Input::HostAddresses(_) => says.deadline = Some(Deadline::new(Time::from_millis(150), "the test")),
        // The first tick comes with the start; the deadline brings the second.
        Input::Tick if says.deadline.is_some() => {
            says.deadline = None;
            says.outputs
                .push_back(Output::Dial { conn: ConnId::dialled(0), to: "127.0.0.1:0".parse().unwrap() });
        }
        _ => {}
    });
    assert_eq!(run.next(), Saw::Closed(ConnId::dialled(0), "dial_failed"));
    assert!(run.control.stats().turns < 10, "{:?}", run.control.stats());
}

#[test]
fn names_and_addresses_are_resolved() {
    let ask = |says: &mut Says, n, host: &str| {
        says.outputs
            .push_back(Output::Ask { ask: AskId(n), work: Work::Resolve { host: host.into(), port: 80 } });
    };
    let run = Running::start(move |input, says| {
        if let Input::HostAddresses(_) = input {
            ask(says, 1, "[2001:db8::1]");
            ask(says, 2, "localhost");
            ask(says, 3, "not a name");
        }
    });
    let mut answers: Vec<String> = (0..3)
        .map(|_| run.wait(|s| if let Saw::Other(text) = s { Some(text.clone()) } else { None }))
        .collect();
    answers.sort();
    let literal = Input::Answer {
        ask: AskId(1),
        answer: Answer::Resolved(Ok(vec!["[2001:db8::1]:80".parse().unwrap()])),
    };
    assert_eq!(answers[0], format!("{literal:?}"));
    assert!(answers[1].contains("AskId(2)") && answers[1].contains("Ok([") && answers[1].contains(":80"));
    assert!(
        answers[2].contains("AskId(3)") && answers[2].contains("Err(\"not a name could not be looked up")
    );
}

#[test]
fn a_port_in_use_names_the_port_the_key_and_its_holder() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let mut runtime = Runtime::new(Options::new(&Limits::default(), |_| {})).unwrap();
    let error = runtime.bind(Service::Rtmp, addr).unwrap_err();
    assert_eq!(error.error.kind(), ErrorKind::AddrInUse);
    let text = error.to_string();
    let pid = format!("(pid {})", std::process::id());
    for word in [&format!("tcp port {}", addr.port()), "rtmp.port", &addr.to_string(), &pid] {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
    let elsewhere = runtime.bind(Service::Http, "192.0.2.1:80".parse().unwrap()).unwrap_err().to_string();
    assert!(elsewhere.contains("this host has no address 192.0.2.1"), "{elsewhere}");
}

#[test]
fn loops_share_a_port_and_nobody_else_gets_a_part_of_it() {
    let runtime = || Runtime::new(Options::new(&Limits::default(), |_| {})).unwrap();
    let (mut zero, mut one, mut stranger) = (runtime(), runtime(), runtime());
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    zero.bind_shared(Service::Http, free, true).unwrap();
    one.bind_shared(Service::Http, free, false).unwrap();
    let refused = stranger.bind_shared(Service::Http, free, true).unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::AddrInUse);
    assert_eq!(stranger.bind(Service::Http, free).unwrap_err().error.kind(), ErrorKind::AddrInUse);
}

#[test]
fn loops_that_end_together_wait_for_the_last() {
    let limits = Limits::default();
    let mut runtimes = [(); 2].map(|()| Runtime::new(Options::new(&limits, |_| {})).unwrap());
    crate::end_together(runtimes.iter_mut());
    let [mut zero, mut one] = runtimes;
    let addr = zero.bind(Service::Http, "127.0.0.1:0".parse().unwrap()).unwrap();
    let controls = [zero.handle(), one.handle()];
    let threads = [&mut zero, &mut one];
    std::thread::scope(|scope| {
        let ends = threads.map(|runtime| {
            let (tell, _) = std::sync::mpsc::channel();
            let mut probe = super::Probe { says: Says::default(), behaviour: Box::new(echo), saw: tell };
            scope.spawn(move || runtime.run(&mut probe))
        });
        controls[0].drain();
        // It has drained, and answers all the same.
        for _ in 0..3 {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"still there?").unwrap();
            let mut back = [0; 12];
            stream.read_exact(&mut back).unwrap();
        }
        controls[1].drain();
        assert_eq!(ends.map(|end| end.join().unwrap()), [ExitReason::Drained, ExitReason::Drained]);
    });
}
