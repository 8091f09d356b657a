//! The addresses that others are told (`advertise.*`), found once the host's own addresses are known.

use super::config::Config;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The address at which this host reaches a listener that is bound to `bind`.
pub fn reachable(bind: IpAddr) -> IpAddr {
    match bind {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

/// Where publishers, viewers and other nodes reach this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// For publishers and viewers.
    pub public: IpAddr,
    /// For other nodes.
    pub private: IpAddr,
    /// A DNS name to put into URLs in place of `public`.
    pub name: Option<String>,
    /// Further addresses of the host on which WebRTC is reachable too.
    pub others: Vec<IpAddr>,
    /// What an operator should look at.
    pub warnings: Vec<String>,
}

impl Advertised {
    /// Finds the addresses out of the configuration and the host's own (loopback left out).
    pub fn find(config: &Config, host: &[IpAddr]) -> Advertised {
        let mut warnings = Vec::new();
        let everywhere = config.bind.is_unspecified();
        let auto = if everywhere {
            host.iter()
                .find(|a| a.is_ipv4())
                .or(host.first())
                .copied()
                .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
        } else {
            config.bind
        };
        let mut pick = |key: &str, value: &str, auto: IpAddr| match value.parse::<IpAddr>() {
            Ok(ip) => {
                let ours = ip == config.bind || ip.is_loopback() || host.contains(&ip);
                if !ours && !host.is_empty() {
                    warnings.push(format!(
                        "{key} = {ip} is no address of this host: right behind a NAT that forwards to it, wrong otherwise"
                    ));
                }
                ip
            }
            Err(_) => auto,
        };
        let public = pick("advertise.public", &config.advertise.public, auto);
        let private =
            pick("advertise.private", &config.advertise.private, if everywhere { auto } else { config.bind });
        let name = Some(config.advertise.name.clone()).filter(|n| !n.is_empty());
        let others =
            if everywhere { host.iter().copied().filter(|a| *a != public).collect() } else { Vec::new() };
        Advertised { public, private, name, others, warnings }
    }

    /// The host part of a URL.
    pub fn url_host(&self) -> String {
        match (&self.name, self.public) {
            (Some(name), _) => name.clone(),
            (None, IpAddr::V4(ip)) => ip.to_string(),
            (None, IpAddr::V6(ip)) => format!("[{ip}]"),
        }
    }

    /// The candidates that a WebRTC session is told, best first. `asked` is the address on which the signalling
    /// came in: whoever reached us there can reach us there again.
    pub fn candidates(&self, asked: IpAddr, port: u16) -> Vec<SocketAddr> {
        let mut out: Vec<SocketAddr> = Vec::new();
        let asked = Some(asked).filter(|a| !a.is_unspecified());
        let rest = self.others.iter().copied();
        for ip in asked.into_iter().chain([self.public]).chain(rest) {
            let addr = SocketAddr::new(ip, port);
            if !out.contains(&addr) {
                out.push(addr);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    #[test]
    fn auto_is_the_bound_address_or_the_hosts_first() {
        let mut c = Config::default();
        assert_eq!(Advertised::find(&c, &[]).public, ip("127.0.0.1"));
        assert_eq!(Advertised::find(&c, &[ip("fe80::1"), ip("192.0.2.7")]).public, ip("192.0.2.7"));
        c.bind = ip("127.0.0.2");
        let a = Advertised::find(&c, &[ip("192.0.2.7")]);
        assert_eq!((a.public, a.private), (ip("127.0.0.2"), ip("127.0.0.2")));
        assert!(a.warnings.is_empty());
    }

    #[test]
    fn an_address_that_is_not_ours_is_taken_with_a_warning() {
        let mut c = Config::default();
        c.advertise.public = "203.0.113.5".into();
        let a = Advertised::find(&c, &[ip("192.0.2.7")]);
        assert_eq!(a.public, ip("203.0.113.5"));
        assert_eq!(a.private, ip("192.0.2.7"));
        assert!(a.warnings[0].contains("advertise.public"));
    }

    #[test]
    fn candidates_start_with_the_address_that_was_asked() {
        let c = Config::default();
        let a = Advertised::find(&c, &[ip("192.0.2.7"), ip("192.0.2.8")]);
        let list = a.candidates(ip("127.0.0.1"), 8189);
        assert_eq!(
            list.iter().map(|s| s.ip()).collect::<Vec<_>>(),
            [ip("127.0.0.1"), ip("192.0.2.7"), ip("192.0.2.8")]
        );
        assert_eq!(a.candidates(ip("192.0.2.7"), 8189).len(), 2);
    }
}
