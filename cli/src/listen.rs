//! What to say when a port cannot be had, and who has it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Which kind of port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Ports that headwater or the tools around it use for something else; never proposed.
const RESERVED: [u16; 9] = [1935, 1936, 5080, 5443, 5090, 8081, 8083, 8554, 8555];

/// The words for a listener that could not be opened.
///
/// `what` is the protocol as people call it, `key` the configuration key of its port.
pub(crate) fn refusal(what: &str, key: &str, addr: SocketAddr, transport: Transport, error: &io::Error) -> String {
    let start = format!("cannot listen on {addr} for {what} ({key}): ");
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let holder = match holder(addr, transport) {
                Some(holder) => format!(" by {holder}; stop it"),
                None => " by another program; stop it".to_owned(),
            };
            format!("{start}address in use{holder} or choose another port with --set {key}={}", proposal(addr.port()))
        }
        io::ErrorKind::PermissionDenied if addr.port() < 1024 => format!(
            "{start}ports below 1024 need a privilege (CAP_NET_BIND_SERVICE); choose another with --set {key}={}",
            proposal(addr.port().saturating_add(8000))
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("{start}this host has no address {}; give one that it has with --bind", addr.ip())
        }
        _ => format!("{start}{error}"),
    }
}

fn proposal(port: u16) -> u16 {
    (port.saturating_add(1)..=u16::MAX).find(|p| *p >= 1024 && !RESERVED.contains(p)).unwrap_or(10_000)
}

/// The program that has a port, such as `nginx (pid 123)`, where the system tells (Linux, own or all processes
/// depending on who asks).
fn holder(addr: SocketAddr, transport: Transport) -> Option<String> {
    let tables = match transport {
        Transport::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Transport::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let links: BTreeSet<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|text| inodes(&text, addr, transport))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if links.is_empty() {
        return None;
    }
    let has = |pid: u32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        fds.flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|target| links.contains(target.to_string_lossy().as_ref()))
            .then_some(pid)
    };
    let pid = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find_map(has)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("{} (pid {pid})", name.trim()))
}

/// Inodes of the sockets in a table of `/proc/net` that stand in the way of `addr` (proc(5)): the same port, and the
/// same address or one of the two unspecified.
fn inodes(table: &str, addr: SocketAddr, transport: Transport) -> Vec<u64> {
    const LISTENING: &str = "0A";
    let mut found = Vec::new();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(local), Some(state), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9)) else { continue };
        if transport == Transport::Tcp && *state != LISTENING {
            continue;
        }
        let Some((ip, port)) = local.split_once(':') else { continue };
        let (Some(ip), Ok(port)) = (address(ip), u16::from_str_radix(port, 16)) else { continue };
        let collides = ip.is_unspecified() || addr.ip().is_unspecified() || ip == addr.ip();
        if port == addr.port() && collides {
            found.extend(inode.parse::<u64>().ok().filter(|i| *i != 0));
        }
    }
    found
}

/// An address as `/proc/net` writes it: words of 32 bits in the byte order of the host.
fn address(hex: &str) -> Option<IpAddr> {
    let words = hex.as_bytes().chunks(8).map(|word| {
        let word = std::str::from_utf8(word).ok()?;
        u32::from_str_radix(word, 16).ok().map(u32::to_ne_bytes)
    });
    let bytes = words.collect::<Option<Vec<[u8; 4]>>>()?.concat();
    if let Ok(v4) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes.as_slice()).ok().map(|v6| IpAddr::from(v6).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn a_taken_port_is_told_with_its_holder_and_a_way_out() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let error = TcpListener::bind(addr).unwrap_err();
        let text = refusal("RTMP", "rtmp.port", addr, Transport::Tcp, &error);
        assert!(text.starts_with(&format!("cannot listen on {addr} for RTMP (rtmp.port): address in use by ")), "{text}");
        assert!(text.contains("--set rtmp.port="), "{text}");
        if cfg!(target_os = "linux") {
            assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
        }
    }

    #[test]
    fn a_wildcard_finds_the_holder_of_one_address_on_udp_too() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let wild = SocketAddr::new("0.0.0.0".parse().unwrap(), taken.local_addr().unwrap().port());
        if cfg!(target_os = "linux") {
            assert!(holder(wild, Transport::Udp).unwrap().contains("pid"));
        }
    }

    #[test]
    fn other_refusals_have_their_own_remedy() {
        let addr: SocketAddr = "203.0.113.1:80".parse().unwrap();
        let say = |kind: io::ErrorKind| refusal("HTTP", "http.port", addr, Transport::Tcp, &kind.into());
        assert!(say(io::ErrorKind::AddrNotAvailable).contains("this host has no address 203.0.113.1"));
        assert!(say(io::ErrorKind::PermissionDenied).ends_with("--set http.port=8082"));
        assert_eq!(proposal(1935), 1937);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        assert_eq!(address("0100007F"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(address("00000000000000000000000001000000"), Some("::1".parse().unwrap()));
        assert_eq!(address("0000000000000000FFFF00000100007F"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(address("xyz"), None);
    }
}
