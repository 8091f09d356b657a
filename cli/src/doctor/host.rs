//! The host under a node: ports, addresses, certificates, clock, limits, its manager.

use super::{Mark, Report, reach};
use crate::identity;
use crate::listen;
use crate::loops;
use crate::settings::host_port;
use proto_core::limits::Limits;
use proto_core::node::address::Advertised;
use proto_core::node::config::{Config, LinkTransport};
use runtime_mio::host as kernel;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A certificate that ends sooner than this should have been replaced.
const SOON: u64 = 14 * 86_400;
/// Descriptors beside those of connections: listeners, files, libraries.
const OTHERS: u64 = 64;

pub(super) fn examine(config: &Config, report: &mut Report) {
    let running = ports(config, report);
    let public = addresses(config, report);
    certificates(config, report);
    clock(report);
    limits(&config.limits, loops::count(config), report);
    segments(config, report);
    other_nodes(config, report);
    manager(config, report);
    if running {
        loops::plan(config).unwrap_or_default().iter().for_each(|c| reach::webrtc(c, public, report));
    } else {
        let text = "start the node, then ask again; from another machine: headwater doctor --reach HOST";
        report.add(
            Mark::Note,
            "webrtc",
            format!("no node runs here yet, so its media port cannot be asked: {text}"),
        );
    }
}

/// Whether the ports can be had. Answers whether a node has them already.
fn ports(config: &Config, report: &mut Report) -> bool {
    let mut running = false;
    let mut look = |key: &str, what: &str, kind: &str, addr: SocketAddr, opened: io::Result<()>| {
        let holder = match kind {
            "tcp" => runtime_mio::who_holds(addr),
            _ => runtime_mio::who_holds_udp(addr),
        };
        match (opened, holder) {
            (Ok(()), _) => report.add(Mark::Good, key, format!("{kind} {addr} is free, for {what}")),
            (Err(e), Some(holder))
                if e.kind() == io::ErrorKind::AddrInUse && holder.starts_with("headwater ") =>
            {
                running = true;
                report.add(Mark::Good, key, format!("{kind} {addr} belongs to the node that runs: {holder}"));
            }
            (Err(e), holder) => {
                report.add(Mark::Bad, key, listen::refusal(what, key, addr, holder.as_deref(), &e))
            }
        }
    };
    // The configuration was accepted, so each loop has ports.
    let loops = loops::plan(config).unwrap_or_default();
    for (index, config) in loops.iter().enumerate() {
        let listeners = listen::listeners(config);
        let of = if loops.len() > 1 { format!(" (loop {index})") } else { String::new() };
        for (service, what, addr) in listeners.filter(|(s, ..)| index == 0 || !loops::is_shared(*s)) {
            let of = if loops::is_shared(service) { "" } else { &of };
            look(service.key(), &format!("{what}{of}"), "tcp", addr, TcpListener::bind(addr).map(drop));
        }
        let webrtc = config.webrtc_addr();
        look("webrtc.port", &format!("WebRTC{of}"), "udp", webrtc, UdpSocket::bind(webrtc).map(drop));
        if config.cluster.transport == LinkTransport::Quic {
            let link = config.cluster_addr();
            let what = format!("other nodes by QUIC{of}");
            look("cluster.port", &what, "udp", link, UdpSocket::bind(link).map(drop));
        }
    }
    let media = loops.iter().flat_map(Config::rtsp_udp_pairs).flat_map(|(rtp, rtcp)| [rtp, rtcp]);
    let media: Vec<SocketAddr> = media.map(|port| SocketAddr::new(config.bind, port)).collect();
    let key = "rtsp.udp_port";
    match media.iter().find_map(|addr| UdpSocket::bind(addr).err().map(|e| (*addr, e))) {
        Some((addr, e)) => look(key, "RTSP media", "udp", addr, Err(e)),
        None => {
            if let [first, .., last] = media.as_slice() {
                let text = format!("udp {first} to {} are free, for RTSP media", last.port());
                report.add(Mark::Good, key, text);
            }
        }
    }
    running
}

/// What clients are told. Answers the address for publishers and viewers.
fn addresses(config: &Config, report: &mut Report) -> IpAddr {
    let own = kernel::addresses();
    let told = Advertised::find(config, &own);
    for warning in &told.warnings {
        report.add(Mark::Doubtful, "advertise", warning.clone());
    }
    let given = config.advertise.public != "auto";
    let public = told.public;
    let (mark, text) = match public {
        _ if public.is_loopback() => {
            (Mark::Doubtful, "only this host can reach that; bind to another address, or say advertise.public".to_owned())
        }
        IpAddr::V4(ip) if ip.is_private() && !given => (
            Mark::Doubtful,
            "only your own network reaches that; if viewers come from the internet, set advertise.public to the address that \
             they see"
                .to_owned(),
        ),
        _ => (Mark::Good, format!("nodes are told {}", told.private)),
    };
    report.add(mark, "advertise.public", format!("clients are told {public}: {text}"));
    if let Some(name) = &told.name {
        match reach::resolve(name) {
            Ok(found) if found.contains(&public) => {
                report.add(Mark::Good, "advertise.name", format!("{name} is {}", reach::shown(&found)));
            }
            Ok(found) => report.add(
                Mark::Bad,
                "advertise.name",
                format!(
                    "{name} is {}, and clients are told {public} for media: correct the name's DNS entry or advertise.public",
                    reach::shown(&found)
                ),
            ),
            Err(text) => report.add(Mark::Bad, "advertise.name", text),
        }
    }
    public
}

fn certificates(config: &Config, report: &mut Report) {
    let what = "tls.certificates";
    let files = match identity::from_files(config) {
        Ok(files) => files,
        // The configuration is not accepted then; the files may have changed since it was.
        Err(text) => return report.add(Mark::Bad, what, text),
    };
    if files.is_empty() {
        let text =
            "none: one is made at start, which no browser trusts; name the files of one that they trust";
        return report.add(Mark::Doubtful, what, text);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    for file in &files {
        let left = file.expires().saturating_sub(now);
        let (mark, text) = match left {
            0 => (Mark::Bad, "has expired: replace it; the running node reads it again by itself".to_owned()),
            s if s < SOON => (Mark::Doubtful, format!("ends in {} days: replace it", s / 86_400)),
            s => (Mark::Good, format!("is good for {} days, for {}", s / 86_400, file.names().join(", "))),
        };
        report.add(mark, what, format!("{} {text}", file.label()));
    }
    let name = &config.advertise.name;
    if !name.is_empty() && !files.iter().any(|f| f.covers(name).is_some()) {
        let text = format!("none is for {name} (advertise.name): browsers refuse https and wss there");
        report.add(Mark::Bad, what, text);
    }
}

fn clock(report: &mut Report) {
    match kernel::clock_is_kept() {
        Some(true) => report.add(Mark::Good, "clock", "it is kept right by others"),
        Some(false) => report.add(
            Mark::Doubtful,
            "clock",
            "nothing keeps it right (no NTP): tokens and certificates are judged by it, and nodes should agree; run chrony or \
             systemd-timesyncd",
        ),
        None => report.add(Mark::Doubtful, "clock", "this system does not say whether it is kept right"),
    }
}

fn limits(limits: &Limits, loops: usize, report: &mut Report) {
    // Limits are each loop's.
    let times = if loops > 1 { format!(" in each of {loops} loops") } else { String::new() };
    let loops = loops as u64;
    match runtime_mio::raise_file_limit() {
        Ok(most) if most >= (limits.conns as u64 + OTHERS).saturating_mul(loops) => {
            let text = format!("{most}, enough for limits.conns = {}{times}", limits.conns);
            report.add(Mark::Good, "descriptors", text);
        }
        Ok(most) => report.add(
            Mark::Doubtful,
            "descriptors",
            format!(
                "this process may have {most}, and limits.conns = {} connections{times} need more: raise it (ulimit -n, or \
                 LimitNOFILE= in systemd), or lower limits.conns",
                limits.conns
            ),
        ),
        Err(e) => report.add(Mark::Doubtful, "descriptors", format!("the system does not say how many: {e}")),
    }
    for (file, name) in [("rmem_max", "receive"), ("wmem_max", "send")] {
        let Some(most) = number(&format!("/proc/sys/net/core/{file}")) else { continue };
        let wanted = kernel::KERNEL_BUFFER as u64;
        if most >= wanted {
            report.add(Mark::Good, "socket buffers", format!("{most} bytes to {name}"));
        } else {
            let text = format!(
                "the kernel gives {most} bytes to {name}, where a node asks for {wanted}: bursts of many viewers are lost; sysctl \
                 -w net.core.{file}={wanted}"
            );
            report.add(Mark::Doubtful, "socket buffers", text);
        }
    }
    if let Some(all) = memory() {
        let wanted = limits.memory_bytes.saturating_mul(loops);
        if wanted <= all {
            let text = format!(
                "limits.memory_bytes is {}{times} of this host's {}",
                mib(limits.memory_bytes),
                mib(all)
            );
            report.add(Mark::Good, "memory", text);
        } else {
            let text = format!(
                "limits.memory_bytes is {}{times}, this host has {}: a full node would be killed; set it lower",
                mib(limits.memory_bytes),
                mib(all)
            );
            report.add(Mark::Doubtful, "memory", text);
        }
    }
}

fn segments(config: &Config, report: &mut Report) {
    let what = "GSO";
    match kernel::most_segments() {
        Ok(_) if !config.webrtc.gso => {
            report.add(Mark::Doubtful, what, "webrtc.gso is off: each viewer costs several times the processor");
        }
        Ok(1) => report.add(
            Mark::Doubtful,
            what,
            "this kernel does not cut messages into datagrams (UDP_SEGMENT, Linux 4.18): each viewer costs several times the \
             processor",
        ),
        Ok(n) => report.add(Mark::Good, what, format!("{n} datagrams leave with one message")),
        Err(e) => report.add(Mark::Bad, what, format!("no UDP socket can be opened: {e}")),
    }
}

/// Which ports a firewall between nodes must let through: nothing that is asked from this host alone can tell.
fn other_nodes(config: &Config, report: &mut Report) {
    let cluster = &config.cluster;
    if cluster.manager.is_empty() && cluster.key.is_empty() && cluster.key_file.is_empty() {
        return;
    }
    let all: Vec<u16> = loops::plan(config).unwrap_or_default().iter().map(|c| c.cluster.port).collect();
    let ports = match all.as_slice() {
        [first, .., last] => format!("{first} to {last}"),
        _ => cluster.port.to_string(),
    };
    let text = match cluster.transport {
        LinkTransport::Quic => format!(
            "other nodes come to udp and tcp {ports} of this host: let both through between nodes, each way, and from nowhere else; \
             where udp is closed they link by TCP, whose content is not encrypted"
        ),
        LinkTransport::Tcp => format!(
            "other nodes come to tcp {ports} of this host: let it through between nodes, and from nowhere else; what is relayed is \
             not encrypted (cluster.transport)"
        ),
    };
    report.add(Mark::Note, "cluster.port", text);
}

fn manager(config: &Config, report: &mut Report) {
    if config.cluster.manager.is_empty() {
        return;
    }
    let what = "cluster.manager";
    let found = host_port(&config.cluster.manager, config.cluster.port)
        .and_then(|(host, port)| reach::resolve(&host).map(|ips| (ips, port)));
    let (ips, port) = match found {
        Ok(found) => found,
        Err(text) => return report.add(Mark::Bad, what, text),
    };
    let tried: Vec<_> = ips
        .iter()
        .map(|ip| (*ip, TcpStream::connect_timeout(&SocketAddr::new(*ip, port), Duration::from_secs(3))))
        .collect();
    match tried.iter().find(|(_, tried)| tried.is_ok()) {
        Some((ip, _)) => {
            let at = SocketAddr::new(*ip, port);
            report.add(Mark::Good, what, format!("it listens at {at}"));
            if config.cluster.transport == LinkTransport::Quic {
                manager_by_quic(at, report);
            }
        }
        None => {
            let why =
                tried.iter().find_map(|(_, t)| t.as_ref().err()).map(ToString::to_string).unwrap_or_default();
            let text = format!(
                "nothing listens at {} port {port} ({why}): start the manager, or let its cluster.port through",
                reach::shown(&ips)
            );
            report.add(Mark::Bad, what, text);
        }
    }
}

/// Whether a manager that listens answers by QUIC too.
fn manager_by_quic(at: SocketAddr, report: &mut Report) {
    let what = "cluster.transport";
    match reach::ask_quic(at) {
        Ok(()) => report.add(Mark::Good, what, format!("udp {at} speaks QUIC: links are encrypted")),
        Err(e) => report.add(
            Mark::Doubtful,
            what,
            format!(
                "the manager does not answer by QUIC at udp {at} ({e}): links to it will use TCP, whose content is not encrypted; \
                 let udp {} through between nodes (each way), or set cluster.transport = \"tcp\" on every node if that is what \
                 you want",
                at.port()
            ),
        ),
    }
}

fn number(file: &str) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Bytes of memory that this host, or this container, has.
fn memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let host = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.saturating_mul(1_024);
    Some(number("/sys/fs/cgroup/memory.max").map_or(host, |most| most.min(host)))
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(change: impl FnOnce(&mut Config)) -> Vec<super::super::Finding> {
        let mut config = Config { bind: [127, 0, 0, 1].into(), ..Config::default() };
        (config.http.port, config.rtmp.port) = (0, 0);
        (config.https.port, config.rtmps.port) = (0, 0);
        (config.webrtc.port, config.cluster.port) = (0, 0);
        (config.rtsp.port, config.rtsps.port, config.rtsp.udp_pairs) = (0, 0, 0);
        change(&mut config);
        let mut report = Report::default();
        examine(&config, &mut report);
        report.0
    }

    fn says(found: &[super::super::Finding], mark: Mark, what: &str, text: &str) {
        assert!(found.iter().any(|f| f.mark == mark && f.what == what && f.text.contains(text)), "{found:?}");
    }

    #[test]
    fn a_free_host_has_nothing_bad() {
        let found = found(|_| {});
        assert!(found.iter().all(|f| f.mark != Mark::Bad), "{found:?}");
        says(&found, Mark::Good, "http.port", "is free");
        says(&found, Mark::Doubtful, "advertise.public", "only this host can reach that");
        says(&found, Mark::Doubtful, "tls.certificates", "one is made at start");
    }

    #[test]
    fn a_taken_port_is_bad_and_its_holder_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = found(|c| c.rtmp.port = taken.local_addr().unwrap().port());
        says(&found, Mark::Bad, "rtmp.port", "stop it or choose another port with --set rtmp.port=");
    }

    #[test]
    fn a_manager_that_is_not_there_is_bad() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let found = found(|c| c.cluster.manager = closed.to_string());
        says(&found, Mark::Bad, "cluster.manager", "start the manager");
    }

    #[test]
    fn the_ports_of_other_nodes_are_told_where_there_are_others() {
        let cluster = |transport| {
            found(|c| {
                (c.cluster.port, c.cluster.transport) = (5_091, transport);
                c.cluster.key = "a key that all nodes share".to_owned();
            })
        };
        says(&cluster(LinkTransport::Quic), Mark::Note, "cluster.port", "udp and tcp 5091");
        says(&cluster(LinkTransport::Tcp), Mark::Note, "cluster.port", "come to tcp 5091");
        let alone = found(|_| {});
        assert!(!alone.iter().any(|f| f.text.contains("other nodes come")), "{alone:?}");
    }

    #[test]
    fn a_name_that_leads_elsewhere_and_an_address_that_is_not_ours_are_told() {
        let found = found(|c| {
            c.advertise.name = "localhost".to_owned();
            c.advertise.public = "203.0.113.7".to_owned();
        });
        says(&found, Mark::Bad, "advertise.name", "clients are told 203.0.113.7");
        says(&found, Mark::Good, "advertise.public", "clients are told 203.0.113.7");
    }

    #[test]
    fn more_memory_and_connections_than_there_are_is_doubtful() {
        let found = found(|c| {
            c.limits.memory_bytes = u64::MAX;
            c.limits.conns = usize::MAX / 2;
            c.webrtc.gso = false;
        });
        says(&found, Mark::Doubtful, "memory", "would be killed");
        says(&found, Mark::Doubtful, "descriptors", "ulimit -n");
        says(&found, Mark::Doubtful, "GSO", "webrtc.gso is off");
    }
}
