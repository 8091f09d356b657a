//! The demo's three nodes: who they are and on which ports.

use proto_core::node::address::reachable;
use proto_core::node::config::{Config, Role};
use std::net::{IpAddr, SocketAddr};

/// One node of the demo.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// The word that its log lines begin with.
    pub(crate) label: &'static str,
    /// Its whole configuration.
    pub(crate) config: Config,
}

/// Keys that the demo sets for each node and that nobody else may set.
pub(crate) const OWN_KEYS: [&str; 16] = [
    "bind",
    "node.name",
    "node.roles",
    "node.loops",
    "http.port",
    "https.port",
    "rtmp.port",
    "rtmps.port",
    "rtsp.port",
    "rtsps.port",
    "rtsp.udp_port",
    "webrtc.port",
    "cluster.port",
    "cluster.manager",
    "cluster.key",
    "limits.drain_ms",
];

/// How long viewers may go on after the demo was asked to end, milliseconds: nobody depends on it, so only until they
/// have been told.
const DRAIN_MS: u64 = 200;

/// Ports of HTTP, RTMP, WebRTC, the cluster, HTTPS, RTMPS, RTSP, its first of UDP and RTSPS for manager, origin and edge. Those of
/// the manager are the ones that a single node has.
const PORTS: [(&str, Role, [u16; 9]); 3] = [
    ("manager", Role::Manager, [5080, 1935, 8189, 5090, 5443, 1936, 8554, 8000, 8555]),
    ("origin", Role::Origin, [5081, 1937, 8190, 5091, 5444, 1939, 8556, 8020, 8558]),
    ("edge", Role::Edge, [5082, 1938, 8191, 5092, 5445, 1940, 8557, 8040, 8559]),
];

/// Manager, origin and edge on one address with different ports, each made from `base`.
///
/// `shift` is added to every port. `key` is the secret that the three share.
///
/// # Errors
/// A sentence if `shift` moves a port out of range.
pub(crate) fn plan(base: &Config, bind: IpAddr, shift: u16, key: &str) -> Result<[Planned; 3], String> {
    let local = reachable(bind);
    let mut planned = Vec::new();
    for (label, role, ports) in PORTS {
        let [http, rtmp, webrtc, cluster, https, rtmps, rtsp, rtsp_udp, rtsps] =
            ports.map(|p| p.checked_add(shift));
        let too_far = || format!("--port-offset {shift} moves a port beyond 65535; take a smaller one");
        let mut config = base.clone();
        config.bind = bind;
        config.node.name = label.to_owned();
        config.node.roles = vec![role];
        config.http.port = http.ok_or_else(too_far)?;
        config.rtmp.port = rtmp.ok_or_else(too_far)?;
        config.rtsp.port = rtsp.ok_or_else(too_far)?;
        config.rtsps.port = rtsps.ok_or_else(too_far)?;
        config.rtsp.udp_port = rtsp_udp.ok_or_else(too_far)? & !1;
        config.webrtc.port = webrtc.ok_or_else(too_far)?;
        config.cluster.port = cluster.ok_or_else(too_far)?;
        config.https.port = https.ok_or_else(too_far)?;
        config.rtmps.port = rtmps.ok_or_else(too_far)?;
        config.cluster.key = key.to_owned();
        config.limits.drain_ms = DRAIN_MS;
        // The nodes reach each other on this host, whatever address viewers use.
        config.advertise.private = local.to_string();
        planned.push(Planned { label, config });
    }
    let mut nodes: [Planned; 3] = planned.try_into().map_err(|_| "the demo has three nodes".to_owned())?;
    let [manager, others @ ..] = &mut nodes;
    for node in others {
        node.config.cluster.manager = SocketAddr::new(local, manager.config.cluster.port).to_string();
    }
    Ok(nodes)
}

/// What the demo tells its user at the start: where to look, how to publish, how to end it.
pub(crate) fn welcome([manager, origin, edge]: &[Planned; 3]) -> String {
    let bind = manager.config.bind;
    let host = match bind {
        _ if bind.is_unspecified() => "localhost".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let (http, rtmp) = (manager.config.http.port, origin.config.rtmp.port);
    let line = |node: &Planned| {
        let c = &node.config;
        format!(
            "    {:<8} http {}, https {}, rtmp {}, rtmps {}, rtsp {}, rtsps {}, webrtc {}/udp, cluster {}\n",
            node.label,
            c.http.port,
            c.https.port,
            c.rtmp.port,
            c.rtmps.port,
            c.rtsp.port,
            c.rtsps.port,
            c.webrtc.port,
            c.cluster.port
        )
    };
    format!(
        "\n\
         Headwater demo: a manager, an origin and an edge, and a clip that is published through them.\n\
         \n\
         Watch it:        http://{host}:{http}/watch/live/demo\n\
         \n\
         Publish your own, then watch http://{host}:{http}/watch/live/mine\n\
         with a browser:  http://{host}:{http}/publish/live/mine\n\
         with ffmpeg:     ffmpeg -re -i FILE -c:v libx264 -preset veryfast -bf 0 -g 60 -c:a aac \\\n\
         {:17}-f flv rtmp://{host}:{rtmp}/live/mine\n\
         \n\
         The nodes:\n{}{}{}\
         Ctrl-C ends it.\n\n",
        "",
        line(manager),
        line(origin),
        line(edge),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn planned(bind: &str) -> [Planned; 3] {
        plan(&Config::default(), bind.parse().unwrap(), 0, "0123456789abcdef").unwrap()
    }

    #[test]
    fn no_port_is_used_twice_and_none_is_reserved() {
        let mut seen = BTreeSet::new();
        for node in planned("0.0.0.0") {
            let c = &node.config;
            let (http, rtmp) = ([c.http.port, c.https.port], [c.rtmp.port, c.rtmps.port]);
            let rtsp = [c.rtsp.port, c.rtsp.udp_port, c.rtsps.port];
            for port in [&http[..], &rtmp, &[c.webrtc.port, c.cluster.port], &rtsp].concat() {
                assert!(seen.insert(port), "{port} twice");
                assert!(![8081, 8083].contains(&port), "{port}");
            }
        }
        assert_eq!(seen.len(), 27);
    }

    #[test]
    fn each_node_would_also_start_by_itself() {
        for bind in ["0.0.0.0", "127.0.0.3", "::1"] {
            for node in planned(bind) {
                assert_eq!(
                    crate::settings::faults(&node.config),
                    Vec::<String>::new(),
                    "{bind} {}",
                    node.label
                );
            }
        }
    }

    #[test]
    fn origin_and_edge_find_the_manager() {
        let [manager, origin, edge] = planned("0.0.0.0");
        assert_eq!(manager.config.cluster.manager, "");
        assert_eq!(origin.config.cluster.manager, "127.0.0.1:5090");
        assert_eq!(edge.config.cluster.manager, "127.0.0.1:5090");
        assert_eq!(edge.config.advertise.private, "127.0.0.1");
        assert_eq!(planned("::")[1].config.cluster.manager, "[::1]:5090");
        assert_eq!(planned("127.0.0.3")[2].config.advertise.private, "127.0.0.3");
    }

    #[test]
    fn ports_can_be_moved_but_not_out_of_range() {
        let bind = "127.0.0.1".parse().unwrap();
        let moved = plan(&Config::default(), bind, 1_000, "k").unwrap();
        assert_eq!(moved[2].config.http.port, 6082);
        assert_eq!(moved[1].config.cluster.manager, "127.0.0.1:6090");
        assert!(plan(&Config::default(), bind, 60_000, "k").unwrap_err().contains("--port-offset"));
    }

    #[test]
    fn the_welcome_names_page_and_way_to_publish() {
        let text = welcome(&planned("0.0.0.0"));
        assert!(text.contains("http://localhost:5080/watch/live/demo"), "{text}");
        assert!(text.contains("rtmp://localhost:1937/live/mine"), "{text}");
        assert!(welcome(&planned("::1")).contains("http://[::1]:5080/watch/live/demo"));
    }
}
