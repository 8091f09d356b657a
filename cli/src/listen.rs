//! What a node listens on, and what to say when a port cannot be had.

use proto_core::io::Service;
use proto_core::node::config::Config;
use std::io;
use std::net::SocketAddr;

/// Ports that headwater or the tools around it use for something else; never proposed.
const RESERVED: [u16; 9] = [1935, 1936, 5080, 5443, 5090, 8081, 8083, 8554, 8555];

/// The TCP listeners of a node: each with the protocol as people call it.
pub(crate) fn listeners(config: &Config) -> impl Iterator<Item = (Service, &'static str, SocketAddr)> {
    let ice_tcp = config.webrtc.tcp.then(|| (Service::IceTcp, "WebRTC over TCP", config.webrtc_addr()));
    [
        (Service::Http, "HTTP", config.http_addr()),
        (Service::Https, "HTTPS", config.https_addr()),
        (Service::Rtmp, "RTMP", config.rtmp_addr()),
        (Service::Rtmps, "RTMPS", config.rtmps_addr()),
        (Service::Rtsp, "RTSP", config.rtsp_addr()),
        (Service::Rtsps, "RTSPS", config.rtsps_addr()),
        (Service::Link, "other nodes", config.cluster_addr()),
    ]
    .into_iter()
    .chain(ice_tcp)
}

/// The words for a listener that could not be opened.
///
/// `what` is the protocol as people call it, `key` the configuration key of its port, `holder` the program that has
/// the port, such as `nginx (pid 123)`, where that is known.
pub(crate) fn refusal(
    what: &str,
    key: &str,
    addr: SocketAddr,
    holder: Option<&str>,
    error: &io::Error,
) -> String {
    let start = format!("cannot listen on {addr} for {what} ({key}): ");
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let holder = holder.unwrap_or("another program");
            format!(
                "{start}address in use by {holder}; stop it or choose another port with --set {key}={}",
                proposal(addr.port())
            )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_with_its_holder_and_a_way_out() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let error = std::net::TcpListener::bind(taken.local_addr().unwrap()).unwrap_err();
        let addr: SocketAddr = "0.0.0.0:1935".parse().unwrap();
        assert_eq!(
            refusal("RTMP", "rtmp.port", addr, Some("nginx (pid 123)"), &error),
            "cannot listen on 0.0.0.0:1935 for RTMP (rtmp.port): address in use by nginx (pid 123); stop it or \
             choose another port with --set rtmp.port=1937"
        );
        assert!(
            refusal("RTMP", "rtmp.port", addr, None, &error).contains("in use by another program; stop it")
        );
    }

    #[test]
    fn other_refusals_have_their_own_remedy() {
        let addr: SocketAddr = "203.0.113.1:80".parse().unwrap();
        let say = |kind: io::ErrorKind| refusal("HTTP", "http.port", addr, None, &kind.into());
        assert!(say(io::ErrorKind::AddrNotAvailable).contains("this host has no address 203.0.113.1"));
        assert!(say(io::ErrorKind::PermissionDenied).ends_with("--set http.port=8082"));
        assert_eq!(proposal(1935), 1937);
    }
}
