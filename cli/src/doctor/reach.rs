//! Which ports of a node answer, and where its WebRTC port sees us.

use super::{Mark, Report};
use crate::listen;
use crate::loops;
use proto_core::io::Service;
use proto_core::node::config::Config;
use proto_core::wire::stun;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::time::{Duration, Instant};

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a datagram's answer is waited for, and how often it is asked: one may be lost.
const ANSWER: Duration = Duration::from_millis(700);
const TRIES: usize = 4;

/// The addresses of a name.
///
/// # Errors
/// That it has none, and what to do.
pub(super) fn resolve(name: &str) -> Result<Vec<IpAddr>, String> {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse() {
        return Ok(vec![ip]);
    }
    let found = (name, 0).to_socket_addrs().map_err(|e| {
        format!(
            "{name:?} has no address here ({e}): give a host name or an IP address, without port and path"
        )
    })?;
    let mut addresses = Vec::new();
    for ip in found.map(|a| a.ip()) {
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    Ok(addresses)
}

/// Addresses in one line.
pub(super) fn shown(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// All ports of the node at an address that its users need.
pub(super) fn node(config: &Config, ip: IpAddr, report: &mut Report) {
    for (service, what, listener) in listen::listeners(config) {
        // Other nodes have addresses of their own for it, and nobody else should reach it.
        if matches!(service, Service::Link | Service::IceTcp) {
            continue;
        }
        let to = SocketAddr::new(ip, listener.port());
        let began = Instant::now();
        match TcpStream::connect_timeout(&to, PATIENCE) {
            Ok(_) => report.add(
                Mark::Good,
                service.key(),
                format!("{what} answers at tcp {to} after {} ms", began.elapsed().as_millis()),
            ),
            Err(e) => report.add(Mark::Bad, service.key(), unreachable(what, to, &e)),
        }
    }
    loops::plan(config).unwrap_or_default().iter().for_each(|c| webrtc(c, ip, report));
}

/// Whether the WebRTC port of an address answers, over UDP and over TCP.
pub(super) fn webrtc(config: &Config, ip: IpAddr, report: &mut Report) {
    let to = SocketAddr::new(ip, config.webrtc.port);
    if !config.webrtc.stun {
        let text = "webrtc.stun is off: nothing tells from outside whether media gets through";
        return report.add(Mark::Doubtful, "webrtc udp", text);
    }
    match ask_udp(to) {
        Ok(mapped) => {
            report.add(Mark::Good, "webrtc udp", format!("udp {to} answers; it sees this host as {mapped}"));
        }
        Err(e) => report.add(
            Mark::Bad,
            "webrtc udp",
            format!(
                "udp {to} does not answer ({e}): without it media goes over TCP at best; let udp {} through firewall and \
                 address translation",
                to.port()
            ),
        ),
    }
    if !config.webrtc.tcp {
        return report.add(
            Mark::Doubtful,
            "webrtc tcp",
            "webrtc.tcp is off: where no UDP passes, nothing does",
        );
    }
    match ask_tcp(to) {
        Ok(_) => report.add(Mark::Good, "webrtc tcp", format!("tcp {to} takes WebRTC where no UDP passes")),
        Err(e) => report.add(Mark::Bad, "webrtc tcp", unreachable("WebRTC over TCP", to, &e)),
    }
}

fn unreachable(what: &str, to: SocketAddr, error: &std::io::Error) -> String {
    let why = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "is refused: no node listens there, or a firewall says so",
        std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => {
            "does not answer: a firewall or address translation that does not forward it"
        }
        _ => return format!("{what} at tcp {to} cannot be reached: {error}"),
    };
    format!("{what} at tcp {to} {why}")
}

fn transaction() -> std::io::Result<[u8; 12]> {
    let mut transaction = [0; 12];
    getrandom::fill(&mut transaction).map_err(std::io::Error::other)?;
    Ok(transaction)
}

fn no_answer() -> std::io::Error {
    std::io::Error::other("what came is no answer")
}

/// A socket that sends to one address, and waits a moment for what comes back.
fn asking(to: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(ANSWER))?;
    Ok(socket)
}

/// Whether somebody speaks QUIC there: a packet of a version that nobody speaks is answered with a list of those that are
/// spoken (RFC 9000 section 6), and leaves nothing behind.
pub(super) fn ask_quic(to: SocketAddr) -> std::io::Result<()> {
    let socket = asking(to)?;
    let mut last = no_answer();
    for _ in 0..TRIES {
        let (theirs, ours) = (transaction()?, transaction()?);
        let mut question = vec![0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 12];
        question.extend_from_slice(&theirs);
        question.push(12);
        question.extend_from_slice(&ours);
        // Whoever asks in fewer bytes is not answered.
        question.resize(1_200, 0);
        socket.send(&question)?;
        let mut answer = [0; 1_500];
        match socket.recv(&mut answer) {
            Ok(_) if answer[0] & 0x80 != 0 && answer[1..6] == [0, 0, 0, 0, 12] && answer[6..18] == ours => {
                return Ok(());
            }
            Ok(_) => {}
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn ask_udp(to: SocketAddr) -> std::io::Result<SocketAddr> {
    let socket = asking(to)?;
    let transaction = transaction()?;
    let mut last = no_answer();
    for _ in 0..TRIES {
        socket.send(&stun::question(transaction))?;
        let mut answer = [0; 512];
        match socket
            .recv(&mut answer)
            .map(|n| stun::answered(answer.get(..n).unwrap_or_default(), transaction))
        {
            Ok(Some(mapped)) => return Ok(mapped),
            Ok(None) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                last = std::io::Error::other("nothing came")
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn ask_tcp(to: SocketAddr) -> std::io::Result<SocketAddr> {
    let mut connection = TcpStream::connect_timeout(&to, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let transaction = transaction()?;
    // RFC 4571: a length before each datagram.
    let question = stun::question(transaction);
    connection.write_all(&[&(question.len() as u16).to_be_bytes()[..], &question].concat())?;
    let mut length = [0; 2];
    connection.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length)).min(512)];
    connection.read_exact(&mut answer)?;
    stun::answered(&answer, transaction).ok_or_else(no_answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn names_and_addresses_are_found_and_wrong_ones_told() {
        assert_eq!(resolve("192.0.2.7"), Ok(vec!["192.0.2.7".parse().unwrap()]));
        assert_eq!(resolve("[2001:db8::1]"), Ok(vec!["2001:db8::1".parse().unwrap()]));
        assert!(resolve("localhost").unwrap().iter().all(IpAddr::is_loopback));
        assert!(resolve("http://localhost:5080").unwrap_err().contains("without port and path"));
    }

    #[test]
    fn a_udp_port_that_answers_stun_is_told_from_one_that_does_not() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let mut question = [0; 512];
            let (n, from) = server.recv_from(&mut question).unwrap();
            let transaction = stun::anonymous(&question[..n]).unwrap();
            server.send_to(&stun::mapped(transaction, from), from).unwrap();
            from
        });
        let mapped = ask_udp(to).unwrap();
        assert_eq!(mapped, answering.join().unwrap());
        assert!(ask_udp(to).is_err(), "nobody is there any more");
    }

    #[test]
    fn a_port_that_speaks_quic_is_told_from_one_that_does_not() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let mut question = [0; 1_500];
            let (n, from) = server.recv_from(&mut question).unwrap();
            assert_eq!(n, 1_200, "as large as a first packet of QUIC must be");
            // Both ids change places (RFC 9000 section 17.2.1).
            let ids = [&question[18..31], &question[5..18]].concat();
            server.send_to(&[&[0x80, 0, 0, 0, 0][..], &ids, &[0, 0, 0, 1]].concat(), from).unwrap();
        });
        ask_quic(to).unwrap();
        answering.join().unwrap();
        assert!(ask_quic(to).is_err(), "nobody is there any more");
    }

    #[test]
    fn a_closed_port_is_told_as_refused() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = TcpStream::connect_timeout(&closed, PATIENCE).unwrap_err();
        assert!(unreachable("HTTP", closed, &error).contains("is refused"));
    }
}
