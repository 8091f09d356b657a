//! Who holds a port: for the message that says that a port is in use.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// The socket states in `/proc/net/*` that hold a port: TCP_LISTEN, and what an unconnected UDP socket shows
/// (TCP_CLOSE).
const TCP_LISTEN: &str = "0A";
const UDP_BOUND: &str = "07";

/// Who listens where a TCP listener on `addr` would, such as `nginx (pid 812)`: on that address, or one of the two on all.
/// `None` where that cannot be known: nobody does, it is another user's process, or there is no `/proc`.
pub fn who_holds(addr: SocketAddr) -> Option<String> {
    holder(&["/proc/net/tcp", "/proc/net/tcp6"], TCP_LISTEN, addr)
}

/// Who has the UDP port of `addr`; see [`who_holds`].
pub fn who_holds_udp(addr: SocketAddr) -> Option<String> {
    holder(&["/proc/net/udp", "/proc/net/udp6"], UDP_BOUND, addr)
}

fn holder(tables: &[&str], state: &str, addr: SocketAddr) -> Option<String> {
    tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|text| inodes(&text, state, addr))
        .find_map(|inode| process_with_socket(&inode))
}

/// The socket inodes in a `/proc/net` table (proc(5)) that are in `state` and in the way of `addr`.
fn inodes(table: &str, state: &str, addr: SocketAddr) -> Vec<String> {
    let rows = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (local, local_port) = fields.nth(1)?.rsplit_once(':')?;
        let row_state = fields.nth(1)?;
        let inode = fields.nth(5)?;
        let local = address(local)?;
        let meets = local == addr.ip().to_canonical() || local.is_unspecified() || addr.ip().is_unspecified();
        let port = u16::from_str_radix(local_port, 16).ok()?;
        (meets && port == addr.port() && row_state == state && inode != "0").then(|| inode.to_owned())
    });
    rows.collect()
}

/// An address as those tables write it: words of 32 bits in the order of this machine's bytes.
fn address(text: &str) -> Option<IpAddr> {
    let word = |n: usize| u32::from_str_radix(text.get(n * 8..n * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

fn process_with_socket(inode: &str) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let fds = fs::read_dir(process.path().join("fd")).ok()?;
        let has = fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == Path::new(&wanted)));
        let name = || fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        has.then(|| format!("{} (pid {pid})", name().trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn a_table_row_gives_its_inode_only_in_the_right_state_and_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100\n\
             1: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100\n\
             2: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100\n";
        let at = |addr: &str| inodes(table, TCP_LISTEN, addr.parse().unwrap());
        assert_eq!(at("127.0.0.1:8080"), ["4711"]);
        assert_eq!(at("0.0.0.0:8080"), ["4711"]);
        assert!(at("127.0.0.2:8080").is_empty(), "another address");
        assert!(at("127.0.0.1:1").is_empty());
        assert!(inodes("garbage\nmore garbage\n", TCP_LISTEN, ([0; 4], 1).into()).is_empty());
    }

    #[test]
    fn addresses_of_both_families_are_read() {
        assert_eq!(
            address(&format!("{:08X}", u32::from_ne_bytes([127, 0, 0, 1]))),
            Some([127, 0, 0, 1].into())
        );
        let mapped = format!(
            "{}{:08X}{:08X}",
            "0".repeat(16),
            u32::from_ne_bytes([0, 0, 0xff, 0xff]),
            u32::from_ne_bytes([10, 0, 0, 7])
        );
        assert_eq!(address(&mapped), Some([10, 0, 0, 7].into()));
        assert!(address(&"0".repeat(32)).is_some_and(|a| a.is_unspecified()));
        assert_eq!(address("xyz"), None);
    }

    #[test]
    fn our_own_ports_are_found_to_be_ours() {
        let pid = format!("(pid {})", std::process::id());
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(who_holds(tcp.local_addr().unwrap()).unwrap().ends_with(&pid));
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(who_holds_udp(udp.local_addr().unwrap()).unwrap().ends_with(&pid));
    }
}
