//! Datagrams: batches, segments, and the address that was asked.

use super::*;
use proto_core::io::{Batch, SocketId, Transmit};
use std::net::{IpAddr, UdpSocket};

/// A loop whose probe opens one UDP socket on `bind` and behaves as told; and the socket's port.
fn with_socket(
    bind: &str,
    mut behaviour: impl FnMut(&Input<'_>, &mut Says) + Send + 'static,
) -> (Running, u16) {
    let bind: SocketAddr = bind.parse().unwrap();
    let (tell, opened) = channel();
    let run = Running::start(move |input, says| match input {
        Input::HostAddresses(_) => says.outputs.push_back(Output::OpenUdp { socket: SocketId(3), bind }),
        Input::UdpOpened { socket: SocketId(3), local, max_segments } => {
            assert!(*max_segments >= 1);
            tell.send(local.port()).unwrap();
            behaviour(input, says);
        }
        input => behaviour(input, says),
    });
    let port = opened.recv_timeout(PATIENCE).unwrap();
    (run, port)
}

fn client() -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// Answers each datagram with `answers`, all in one batch, from the address that was asked.
fn answer_with(answers: Vec<Vec<u8>>, max_segments: usize) -> impl FnMut(&Input<'_>, &mut Says) + Send {
    move |input, says| {
        if let Input::Datagram { socket, local, remote, stride, bytes } = input {
            assert!(!local.ip().is_unspecified() && *stride >= 1);
            for _ in bytes.chunks(*stride) {
                let mut batch = Box::new(Batch::new(*socket));
                for answer in &answers {
                    batch.push(Some(local.ip()), *remote, answer, max_segments);
                }
                says.outputs.push_back(Output::Datagrams(batch));
            }
        }
    }
}

#[test]
fn a_gso_batch_arrives_as_separate_datagrams_from_the_address_that_was_asked() {
    let mut answers: Vec<Vec<u8>> = (0..20).map(|i| vec![i; 1200]).collect();
    answers.push(vec![99; 300]);
    let (_run, port) = with_socket("0.0.0.0:0", answer_with(answers.clone(), 32));
    for asked in ["127.0.0.2", "127.0.0.1", "127.0.0.2"] {
        let asked = SocketAddr::new(asked.parse::<IpAddr>().unwrap(), port);
        let client = client();
        client.send_to(b"go", asked).unwrap();
        for answer in &answers {
            let mut buf = [0; 2000];
            let (n, from) = client.recv_from(&mut buf).unwrap();
            assert_eq!((&buf[..n], from), (&answer[..], asked));
        }
    }
}

#[test]
fn more_segments_than_the_kernel_takes_in_one_message_are_split() {
    let answers: Vec<Vec<u8>> = (0..200).map(|i| vec![i; 100]).collect();
    let (_run, port) = with_socket("127.0.0.1:0", answer_with(answers.clone(), 1000));
    let client = client();
    client.send_to(b"go", ("127.0.0.1", port)).unwrap();
    for answer in &answers {
        let mut buf = [0; 2000];
        let n = client.recv(&mut buf).unwrap();
        assert_eq!(&buf[..n], &answer[..]);
    }
}

#[test]
fn a_dual_stack_socket_sees_and_answers_ipv4_peers_as_such() {
    if UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("this host has no IPv6: nothing to see");
        return;
    }
    let mut echo = answer_with(vec![b"answer".to_vec()], 8);
    let (_run, port) = with_socket("[::]:0", move |input, says| {
        if let Input::Datagram { local, remote, .. } = input {
            assert!(local.is_ipv4() && remote.is_ipv4(), "{local} {remote}");
        }
        echo(input, says);
    });
    let asked: SocketAddr = ([127, 0, 0, 2], port).into();
    let client = client();
    client.send_to(b"go", asked).unwrap();
    let mut buf = [0; 100];
    assert_eq!(client.recv_from(&mut buf).unwrap(), (6, asked));
}

#[test]
fn every_batch_comes_back_and_bad_transmits_are_refused_without_harm_to_the_rest() {
    let (tell, told) = channel();
    let (tell_gso, gso) = channel();
    let to = client();
    let dst = to.local_addr().unwrap();
    let (run, port) = with_socket("0.0.0.0:0", move |input, says| match input {
        Input::UdpOpened { max_segments, .. } => tell_gso.send(*max_segments).unwrap(),
        Input::Datagram { socket, .. } => {
            let mut batch = Box::new(Batch::new(*socket));
            // A source that the kernel calls invalid, with the error that quinn-udp takes for a lack of GSO; then
            // good ones; then bytes that are not there.
            batch.push(Some("224.0.0.7".parse().unwrap()), dst, b"from nowhere", 8);
            batch.push(None, dst, b"one", 8);
            batch.push(None, dst, b"two", 8);
            batch.items.push(Transmit { src: None, dst, start: 1000, len: 5, segment_size: 5 });
            says.outputs.push_back(Output::Datagrams(batch));
            says.outputs.push_back(Output::Datagrams(Box::new(Batch::new(SocketId(77)))));
        }
        Input::Sent { batch, refused } => {
            tell.send((batch.socket, batch.items.len(), *refused)).unwrap();
        }
        _ => {}
    });
    to.send_to(b"go", ("127.0.0.1", port)).unwrap();
    let mut sent: Vec<_> = (0..2).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
    sent.sort();
    assert_eq!(sent, [(SocketId(3), 3, 2), (SocketId(77), 0, 0)]);
    for word in [b"one", b"two"] {
        let mut buf = [0; 100];
        let n = to.recv(&mut buf).unwrap();
        assert_eq!(&buf[..n], word);
    }
    let stats = run.control.stats();
    assert_eq!(stats.udp_refused, 2);
    // The bad address has not made the kernel's segmentation lost to all others.
    let messages = if gso.recv_timeout(PATIENCE).unwrap() > 1 { 1 } else { 2 };
    assert_eq!(stats.udp_messages_out, messages);
}

#[test]
fn a_flood_of_batches_is_bounded_and_every_batch_comes_back() {
    const BATCHES: usize = 500;
    let (tell, told) = channel();
    let to = client();
    let dst = to.local_addr().unwrap();
    let (_run, port) = with_socket("127.0.0.1:0", move |input, says| match input {
        Input::Datagram { socket, .. } => {
            for _ in 0..BATCHES {
                let mut batch = Box::new(Batch::new(*socket));
                batch.push(None, dst, &[7; 1000], 8);
                batch.push(None, dst, &[8; 1000], 8);
                says.outputs.push_back(Output::Datagrams(batch));
            }
        }
        Input::Sent { batch, refused } => tell.send((batch.items.len(), *refused)).unwrap(),
        _ => {}
    });
    to.send_to(b"go", ("127.0.0.1", port)).unwrap();
    for _ in 0..BATCHES {
        let (items, refused) = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(items, 1);
        assert!(refused <= 1);
    }
}

#[test]
fn a_udp_port_in_use_is_reported_with_its_holder() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let bind = taken.local_addr().unwrap();
    let run = Running::start(move |input, says| {
        if let Input::HostAddresses(_) = input {
            says.outputs.push_back(Output::OpenUdp { socket: SocketId(1), bind });
        }
    });
    let Saw::Other(text) = run.next() else { panic!("something else came first") };
    assert!(text.contains("UdpFailed") && text.contains(&format!("udp port {}", bind.port())), "{text}");
    assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
}

#[test]
fn a_closed_socket_gives_its_port_back() {
    let (tell, told) = channel();
    let (_run, port) = with_socket("127.0.0.1:0", move |input, says| {
        if let Input::Datagram { socket, .. } = input {
            says.outputs.push_back(Output::CloseUdp { socket: *socket });
            says.outputs.push_back(Output::Datagrams(Box::new(Batch::new(*socket))));
        } else if let Input::Sent { .. } = input {
            tell.send(()).unwrap();
        }
    });
    client().send_to(b"go", ("127.0.0.1", port)).unwrap();
    told.recv_timeout(PATIENCE).unwrap();
    UdpSocket::bind(("127.0.0.1", port)).unwrap();
}
