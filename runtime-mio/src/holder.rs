//! Who holds a port: for the message that says that a port is in use.

use std::fs;
use std::path::Path;

/// The socket states in `/proc/net/*` that hold a port: TCP_LISTEN, and what an unconnected UDP socket shows
/// (TCP_CLOSE).
const TCP_LISTEN: &str = "0A";
const UDP_BOUND: &str = "07";

/// Who listens on TCP port `port` on this host, such as `nginx (pid 812)`. `None` where that cannot be known:
/// nobody does, it is another user's process, or there is no `/proc`.
pub fn who_holds(port: u16) -> Option<String> {
    holder(&["/proc/net/tcp", "/proc/net/tcp6"], TCP_LISTEN, port)
}

/// Who has UDP port `port` on this host; see [`who_holds`].
pub fn who_holds_udp(port: u16) -> Option<String> {
    holder(&["/proc/net/udp", "/proc/net/udp6"], UDP_BOUND, port)
}

fn holder(tables: &[&str], state: &str, port: u16) -> Option<String> {
    tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|text| inodes(&text, state, port))
        .find_map(|inode| process_with_socket(&inode))
}

/// The socket inodes in a `/proc/net` table (proc(5)) that are in `state` on local port `port`.
fn inodes(table: &str, state: &str, port: u16) -> Vec<String> {
    let rows = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (_, local_port) = fields.nth(1)?.rsplit_once(':')?;
        let row_state = fields.nth(1)?;
        let inode = fields.nth(5)?;
        let held = u16::from_str_radix(local_port, 16).ok()? == port && row_state == state && inode != "0";
        held.then(|| inode.to_owned())
    });
    rows.collect()
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
        assert_eq!(inodes(table, TCP_LISTEN, 8080), ["4711"]);
        assert!(inodes(table, TCP_LISTEN, 1).is_empty());
        assert!(inodes("garbage\nmore garbage\n", TCP_LISTEN, 1).is_empty());
    }

    #[test]
    fn our_own_ports_are_found_to_be_ours() {
        let pid = format!("(pid {})", std::process::id());
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(who_holds(tcp.local_addr().unwrap().port()).unwrap().ends_with(&pid));
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(who_holds_udp(udp.local_addr().unwrap().port()).unwrap().ends_with(&pid));
    }
}
