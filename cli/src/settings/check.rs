//! What a configuration must satisfy beyond the types of its values.

use crate::{listen, loops};
use proto_core::auth::token::TokenKeys;
use proto_core::cluster::keys::{KEYS_MAX, Keys};
use proto_core::http::url::HttpUrl;
use proto_core::node::config::loops::LOOPS_MAX;
use proto_core::node::config::{Config, LinkTransport, Role};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Something wrong or doubtful with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The key.
    pub(crate) key: String,
    /// What is wrong and what to do.
    pub(crate) text: String,
    /// Whether the node may start nevertheless.
    pub(crate) harmless: bool,
}

/// The port on which a manager listens unless something else is said.
pub(crate) const CLUSTER_PORT: u16 = 5090;

/// Everything that is wrong with a configuration whose values have the right types.
pub(crate) fn check(config: &Config) -> Vec<Finding> {
    let mut found = Findings::default();
    ports(config, &mut found);
    loops(config, &mut found);
    names(config, &mut found);
    addresses(config, &mut found);
    cluster(config, &mut found);
    certificates(config, &mut found);
    auth(config, &mut found);
    remotes(config, &mut found);
    pacing(config, &mut found);
    limits(config, &mut found);
    found.0
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn wrong(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.0.push(Finding { key: key.into(), text: text.into(), harmless: false });
    }

    fn odd(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.0.push(Finding { key: key.into(), text: text.into(), harmless: true });
    }
}

fn ports(config: &Config, found: &mut Findings) {
    let tcp = [
        ("http.port", config.http.port),
        ("https.port", config.https.port),
        ("rtmp.port", config.rtmp.port),
        ("rtmps.port", config.rtmps.port),
        ("rtsp.port", config.rtsp.port),
        ("rtsps.port", config.rtsps.port),
        ("cluster.port", config.cluster.port),
    ];
    let mut taken: BTreeMap<u16, &str> = BTreeMap::new();
    let ice_tcp = config.webrtc.tcp.then_some(("webrtc.port", config.webrtc.port));
    for (key, port) in tcp.into_iter().chain(ice_tcp) {
        if let Some(other) = taken.insert(port, key).filter(|_| port != 0) {
            found.wrong(key, format!("{other} has port {port} already; give each a port of its own"));
        }
    }
    for (key, port) in tcp.into_iter().chain([("webrtc.port", config.webrtc.port)]) {
        if port == 0 {
            found.wrong(key, "must be a port from 1 to 65535; others are told this number");
        }
    }
    let (first, pairs) = (u32::from(config.rtsp.udp_port), u32::from(config.rtsp.udp_pairs));
    if pairs > 1_000 {
        found.wrong("rtsp.udp_pairs", "must be a whole number from 0 to 1000");
    } else if pairs > 0 {
        let after = first + 2 * pairs;
        if first == 0 || first % 2 != 0 || after > 65_536 {
            found.wrong(
                "rtsp.udp_port",
                "must be an even port from 2 to 65534, with room for rtsp.udp_pairs times two ports above it",
            );
        } else if (first..after).contains(&config.webrtc.port.into()) {
            let text = format!("the ports {first} to {} of RTSP media include webrtc.port", after - 1);
            found.wrong("rtsp.udp_port", text);
        }
    }
    let cluster = config.cluster.port;
    if config.cluster.transport == LinkTransport::Quic && cluster != 0 {
        let way_out = "QUIC between nodes needs the udp port of that number: choose another, or set cluster.transport = \"tcp\"";
        if cluster == config.webrtc.port && !config.webrtc.tcp {
            found.wrong("cluster.port", format!("webrtc.port has port {cluster} already; {way_out}"));
        }
        if (first..first + 2 * pairs).contains(&cluster.into()) {
            found.wrong(
                "cluster.port",
                format!("the ports of RTSP media (rtsp.udp_port) include {cluster}; {way_out}"),
            );
        }
    }
    if matches!(config.http.port, 8081 | 8083) {
        found.odd(
            "http.port",
            "old clients of the stream-manager dialect rewrite ports 8081 and 8083; take another",
        );
    }
}

fn loops(config: &Config, found: &mut Findings) {
    let key = "node.loops";
    if config.node.loops > LOOPS_MAX {
        return found
            .wrong(key, format!("must be a whole number from 0 to {LOOPS_MAX}; 0 means one for each core"));
    }
    let of = loops::count(config);
    if of == 1 {
        return;
    }
    if !cfg!(target_os = "linux") {
        found.wrong(key, "above 1 needs a kernel that deals connections out to several listeners: Linux");
    }
    if config.node.roles == [Role::Manager] {
        found.wrong(
            key,
            format!("is {of}, and a manager alone has work for one; add the role origin or edge"),
        );
    }
    if config.webrtc.tcp_on_https {
        let text = format!(
            "cannot be true where node.loops is {of}: who comes to https.port may meet another loop than the one that has \
             its session; webrtc.tcp works, on each loop's own port"
        );
        found.wrong("webrtc.tcp_on_https", text);
    }
    match loops::plan(config) {
        Err(text) => found.wrong(key, text),
        Ok(configs) => own_ports(&configs, found),
    }
}

/// Each loop's own ports must not be another's, nor one that they share.
fn own_ports(configs: &[Config], found: &mut Findings) {
    let mut taken: BTreeMap<(&str, u16), String> = BTreeMap::new();
    let Some(first) = configs.first() else { return };
    for (service, _, addr) in listen::listeners(first).filter(|(service, ..)| loops::is_shared(*service)) {
        taken.insert(("tcp", addr.port()), service.key().to_owned());
    }
    for (index, config) in configs.iter().enumerate() {
        let udp = config.rtsp_udp_pairs().flat_map(|(rtp, rtcp)| [rtp, rtcp]);
        let own = [("tcp", "cluster.port", config.cluster.port), ("udp", "webrtc.port", config.webrtc.port)];
        let tcp = config.webrtc.tcp.then_some(("tcp", "webrtc.port", config.webrtc.port));
        let quic = config.cluster.transport == LinkTransport::Quic;
        let quic = quic.then_some(("udp", "cluster.port", config.cluster.port));
        let udp = udp.map(|port| ("udp", "rtsp.udp_port", port));
        for (kind, key, port) in own.into_iter().chain(tcp).chain(quic).chain(udp) {
            if let Some(other) = taken.insert((kind, port), format!("{key} of loop {index}")) {
                let text = format!(
                    "leads to {kind} port {port} for loop {index} of {}, which is {other}: keep as many ports free above it",
                    configs.len()
                );
                return found.wrong(key, text);
            }
        }
    }
}

fn names(config: &Config, found: &mut Findings) {
    if !config.node.name.is_empty() && !is_name(&config.node.name) {
        found.wrong("node.name", "must be empty or at most 63 of the characters A-Z a-z 0-9 . _ -");
    }
    if !is_name(&config.node.region) {
        found.wrong("node.region", "must be 1 to 63 of the characters A-Z a-z 0-9 . _ -, such as eu-west");
    }
    if !config.advertise.name.is_empty() && !is_dns_name(&config.advertise.name) {
        found.wrong(
            "advertise.name",
            "is no DNS name; give the bare name, such as live.example.com, without scheme, port or path",
        );
    }
}

fn addresses(config: &Config, found: &mut Findings) {
    if config.bind.is_multicast() {
        found.wrong("bind", "is a multicast address; give an address of this host, or 0.0.0.0 for all");
    }
    for (key, value) in
        [("advertise.public", &config.advertise.public), ("advertise.private", &config.advertise.private)]
    {
        if value == "auto" {
            continue;
        }
        match value.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() || ip.is_multicast() => {
                found.wrong(
                    key,
                    "is no address that others could reach; give one of this host's addresses or `auto`",
                );
            }
            Ok(_) => {}
            Err(_) => found.wrong(
                key,
                "must be `auto` or an IP address without a port (a DNS name belongs into advertise.name)",
            ),
        }
    }
}

fn remotes(config: &Config, found: &mut Findings) {
    let sources: Vec<_> = config.sources.iter().map(|s| s.rule()).collect();
    let destinations: Vec<_> = config.destinations.iter().map(|d| d.rule()).collect();
    for (key, rules) in [("sources", &sources), ("destinations", &destinations)] {
        for (n, rule) in rules.iter().enumerate() {
            if let Err(why) = rule {
                found.wrong(key, format!("number {}: {why}", n + 1));
            }
        }
    }
    let streams = || config.sources.iter().map(|s| &s.stream);
    for (n, stream) in streams().enumerate() {
        if streams().take(n).any(|s| s == stream) {
            found.wrong("sources", format!("{stream} has two sources; a stream comes from one place"));
        }
    }
    if sources.len() + destinations.len() > config.limits.remotes {
        found.wrong("limits.remotes", "is less than there are sources and destinations");
    }
    if !config.has_role(Role::Origin) {
        for (key, n) in [("sources", sources.len()), ("destinations", destinations.len())] {
            if n > 0 {
                found.odd(key, "are used by nodes with the origin role only, and this one has none");
            }
        }
    }
}

fn certificates(config: &Config, found: &mut Findings) {
    let (certificates, keys) = (config.tls.certificates.len(), config.tls.keys.len());
    if keys != 0 && keys != certificates {
        found.wrong(
            "tls.keys",
            format!("names {keys} files for {certificates} certificates; give one for each, or none at all"),
        );
    } else if let Err(text) = crate::identity::from_files(config) {
        found.wrong("tls.certificates", format!("cannot be used: {text}"));
    }
    for origin in &config.http.origins {
        let host = origin.split_once("://").map_or("", |(_, host)| host);
        if host.is_empty() || host.contains('/') {
            found.wrong(
                "http.origins",
                "must hold origins with scheme and without path, such as https://example.com",
            );
        }
    }
}

fn auth(config: &Config, found: &mut Findings) {
    for problem in proto_core::auth::check(&config.auth) {
        found.0.push(Finding { key: problem.key.to_owned(), text: problem.text, harmless: problem.harmless });
    }
    let auth = &config.auth;
    if !auth.jwks.is_empty() && !HttpUrl::is_meant(&auth.jwks) {
        let read = runtime_mio::read_file(&auth.jwks);
        let usable = read.and_then(|json| {
            let mut keys = TokenKeys::default();
            keys.set_foreign(&json).map_err(|why| format!("{} {why}", auth.jwks))
        });
        if let Err(text) = usable {
            found.wrong("auth.jwks", format!("cannot be used: {text}"));
        }
    }
    let tokens = auth.rules.iter().any(|r| r.who.iter().any(|w| w == "tokens"));
    if tokens
        && auth.secret.is_empty()
        && config.cluster.key.is_empty()
        && config.cluster.key_file.is_empty()
        && auth.jwks.is_empty()
    {
        found.odd(
            "auth.secret",
            "is empty, and cluster.key too: tokens of `headwater ctl token` are good at the node that makes them, until it ends",
        );
    }
}

fn cluster(config: &Config, found: &mut Findings) {
    let roles = &config.node.roles;
    if roles.is_empty() {
        found.wrong("node.roles", "is empty; give at least one of manager, origin and edge");
    }
    if roles.iter().enumerate().any(|(i, role)| roles.iter().take(i).any(|r| r == role)) {
        found.wrong("node.roles", "names a role twice; name each once");
    }
    if config.node.capacity_mbps == 0 {
        found.wrong(
            "node.capacity_mbps",
            "must be above 0; with 0 the manager would give this node nothing to do",
        );
    }
    let is_manager = config.has_role(Role::Manager);
    let manager = &config.cluster.manager;
    match (is_manager, manager.is_empty()) {
        (true, false) => found.wrong(
            "cluster.manager",
            "names a manager, but this node has the manager role itself; leave one of the two out \
             (for a node that registers elsewhere: --roles origin,edge)",
        ),
        (false, true) if !roles.is_empty() => found.wrong(
            "cluster.manager",
            "is needed, because this node has no manager role; say where to register with --manager HOST",
        ),
        _ => {}
    }
    if !manager.is_empty() {
        match host_port(manager, CLUSTER_PORT) {
            Err(why) => found.wrong("cluster.manager", why),
            Ok((host, _)) if config.cluster.key.is_empty() && config.cluster.key_file.is_empty() => {
                without_key(&host, found);
            }
            Ok(_) => {}
        }
    }
    keys(config, found);
}

fn keys(config: &Config, found: &mut Findings) {
    let cluster = &config.cluster;
    let mut length = |key: &str, of: &str| {
        let length = of.chars().count();
        if (1..16).contains(&length) {
            let text =
                format!("has {length} characters and can be guessed; take 16 or more, the same on all nodes");
            found.odd(key, text);
        }
    };
    length("cluster.key", &cluster.key);
    cluster.keys_accepted.iter().for_each(|key| length("cluster.keys_accepted", key));
    if cluster.keys_accepted.len() >= KEYS_MAX {
        found.wrong("cluster.keys_accepted", format!("must hold {} keys at most", KEYS_MAX - 1));
    }
    if cluster.key.is_empty() && !cluster.keys_accepted.is_empty() {
        found.wrong("cluster.keys_accepted", "stand beside cluster.key, which is empty");
    }
    if cluster.key_file.is_empty() {
        return;
    }
    if !cluster.key.is_empty() {
        let text = "names a file with the keys, but cluster.key is given too; leave one of the two out";
        found.wrong("cluster.key_file", text);
    } else if let Err(text) = cluster_keys(config) {
        found.wrong("cluster.key_file", format!("cannot be used: {text}"));
    }
}

/// The configuration with the cluster's keys out of their file, if there is one.
///
/// # Errors
/// What is wrong with the file; nothing of a key.
pub(crate) fn cluster_keys(config: &Config) -> Result<Config, String> {
    let (mut config, path) = (config.clone(), config.cluster.key_file.clone());
    if path.is_empty() {
        return Ok(config);
    }
    // As the node reads it later: no more than such a file can have.
    let bytes = runtime_mio::read_file(&path)?;
    let lines = Keys::lines(&bytes).map_err(|what| format!("{path} {what}"))?;
    let mut lines = lines.into_iter().map(str::to_owned);
    config.cluster.key = lines.next().unwrap_or_default();
    config.cluster.keys_accepted = lines.collect();
    Ok(config)
}

fn without_key(host: &str, found: &mut Findings) {
    const TEXT: &str = "without a key, a manager accepts nodes from loopback addresses only; set the same \
                        cluster.key on all nodes";
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() => {}
        Ok(_) => found.wrong("cluster.key", TEXT),
        Err(_) if host.eq_ignore_ascii_case("localhost") => {}
        // What the name resolves to is not known before the node runs.
        Err(_) => found.odd("cluster.key", TEXT),
    }
}

fn pacing(config: &Config, found: &mut Findings) {
    for (key, ms) in [
        ("pacing.sound_wait_ms", config.pacing.sound_wait_ms),
        ("pacing.tcp_merge_ms", config.pacing.tcp_merge_ms),
    ] {
        if ms > 1_000 {
            found.wrong(key, "must be at most 1000: viewers would see the stream that much later");
        }
    }
}

fn limits(config: &Config, found: &mut Findings) {
    // Only the serialised form can be walked; a limit that is no number would have failed to load.
    if let Ok(table) = toml::Table::try_from(&config.limits) {
        for (name, value) in &table {
            if value.as_integer().is_some_and(|n| n <= 0) {
                found.wrong(format!("limits.{name}"), "must be above 0; a limit cannot be switched off");
            }
        }
    }
    let limits = &config.limits;
    if limits.lease_ms < limits.report_ms.saturating_mul(2) {
        found.wrong(
            "limits.lease_ms",
            "must be at least twice limits.report_ms, else one late report makes a node vanish",
        );
    }
    if limits.rtx_percent > 100 {
        found.wrong("limits.rtx_percent", "must be at most 100");
    }
}

fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn is_dns_name(text: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Host and port of `HOST`, `HOST:PORT`, `IPV6` or `[IPV6]:PORT`.
///
/// # Errors
/// The end of a sentence that begins with the key.
pub(crate) fn host_port(text: &str, default_port: u16) -> Result<(String, u16), String> {
    const FORM: &str =
        "must be HOST or HOST:PORT, such as 10.0.0.5, manager.example.com:5090 or [fd00::5]:5090";
    if text.contains("://") || text.contains('/') {
        return Err(format!("{FORM}; without scheme and path"));
    }
    let (host, port) = if let Ok(ip) = text.parse::<IpAddr>() {
        (ip.to_string(), default_port)
    } else if let Ok(addr) = text.parse::<SocketAddr>() {
        (addr.ip().to_string(), addr.port())
    } else {
        match text.split_once(':') {
            None => (text.to_owned(), default_port),
            Some((host, port)) => {
                let port =
                    port.parse().map_err(|_| format!("{FORM}; the port is a number from 1 to 65535"))?;
                (host.to_owned(), port)
            }
        }
    };
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() || ip.is_multicast() => {
            return Err("is no address that a node can connect to; give the manager's own".to_owned());
        }
        Err(_) if !is_dns_name(&host) => return Err(FORM.to_owned()),
        _ => {}
    }
    if port == 0 {
        return Err(format!("{FORM}; the port is a number from 1 to 65535"));
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_keys(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        check(&config).into_iter().filter(|f| !f.harmless).map(|f| f.key).collect()
    }

    #[test]
    fn loops_need_ports_of_their_own_and_work_to_do() {
        let wrong = |change: &dyn Fn(&mut Config)| {
            wrong_keys(|c| {
                c.node.loops = 4;
                change(c);
            })
        };
        assert_eq!(wrong(&|_| {}), Vec::<String>::new());
        assert_eq!(wrong(&|c| c.node.loops = 65), ["node.loops"]);
        assert_eq!(wrong(&|c| c.node.roles = vec![Role::Manager]), ["node.loops"]);
        assert_eq!(wrong(&|c| c.webrtc.tcp_on_https = true), ["webrtc.tcp_on_https"]);
        assert_eq!(wrong(&|c| c.cluster.port = 5_079), ["cluster.port"], "5080 is http.port");
        assert_eq!(wrong(&|c| c.rtsp.udp_port = 8_172), ["rtsp.udp_port"], "8190 is webrtc.port of loop 1");
        assert_eq!(wrong(&|c| c.webrtc.port = 65_533), ["node.loops"]);
    }

    #[test]
    fn the_defaults_are_good() {
        assert_eq!(check(&Config::default()), []);
    }

    #[test]
    fn certificate_files_are_read_and_what_is_wrong_is_said() {
        let text = |change: &dyn Fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            let found = check(&config);
            assert_eq!(found.len(), 1, "{found:?}");
            format!("{} {}", found[0].key, found[0].text)
        };
        let missing = text(&|c| c.tls.certificates = vec!["/nowhere/cert.pem".to_owned()]);
        assert!(
            missing.contains("tls.certificates") && missing.contains("/nowhere/cert.pem cannot be read"),
            "{missing}"
        );
        let uneven = text(&|c| c.tls.keys = vec!["key.pem".to_owned()]);
        assert!(uneven.starts_with("tls.keys names 1 files for 0"), "{uneven}");
        let other = text(&|c| {
            c.tls.certificates = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").to_owned()]
        });
        assert!(other.contains("holds no certificate"), "{other}");
        assert_eq!(wrong_keys(|c| c.http.origins = vec!["example.com".to_owned()]), ["http.origins"]);
        assert_eq!(
            wrong_keys(|c| c.http.origins = vec!["https://example.com".to_owned()]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn rules_users_and_keys_are_looked_at_and_no_secret_is_shown() {
        let found = |toml: &str| {
            let config: Config = toml::from_str(toml).unwrap();
            check(&config)
                .into_iter()
                .map(|f| format!("{} {} {}", f.key, f.harmless, f.text))
                .collect::<Vec<_>>()
        };
        let one = |toml: &str| {
            let all = found(toml);
            assert_eq!(all.len(), 1, "{all:?}");
            all.into_iter().next().unwrap()
        };
        let rule = |who: &str| format!("[[auth.rules]]\naction='publish'\nwho=[{who}]\n");
        assert!(one(&rule("'everybody'")).contains("rule 1: \"everybody\" is nobody"));
        assert!(one(&rule("'user:bob'")).contains("names the user \"bob\""));
        assert!(one(&rule("'keys'")).contains("auth.keys is empty"));
        assert!(one(&rule("'tokens'")).starts_with("auth.secret true is empty"));
        assert_eq!(found(&(rule("'tokens'") + "[cluster]\nkey='0123456789abcdef'")), Vec::<String>::new());
        let hash = proto_core::auth::password::hash_cheaply("geheim", &[1; 16]).unwrap();
        let user =
            |password: &str| format!("{}[[auth.users]]\nname='bob'\npassword='{password}'", rule("'users'"));
        assert_eq!(found(&user(&hash)), Vec::<String>::new());
        let plain = one(&user("geheim"));
        assert!(plain.contains("is no hash") && !plain.contains("geheim"), "{plain}");
        let key = one(&format!("{}[[auth.keys]]\nkey='geheim'\nstream='live/x'", rule("'keys'")));
        assert!(key.contains("16 to 128") && !key.contains("geheim"), "{key}");
        assert!(one("[auth]\nsecret='0123456789012345678901234567890123'").contains("everybody may publish"));
        assert!(one(&format!("{}streams=['a b/c']", rule("'anyone'"))).contains("rule 1: the pattern"));
        assert!(one("[auth]\njwks='/nowhere.json'").contains("/nowhere.json cannot be read"));
    }

    #[test]
    fn ports_are_told_apart() {
        assert_eq!(wrong_keys(|c| c.rtmp.port = 5080), ["rtmp.port"]);
        assert_eq!(wrong_keys(|c| c.cluster.port = 0), ["cluster.port"]);
        assert_eq!(wrong_keys(|c| c.https.port = 5080), ["https.port"]);
        assert_eq!(wrong_keys(|c| c.webrtc.port = 5080), ["webrtc.port"], "it is a TCP port too");
        let udp_only = |c: &mut Config| (c.webrtc.port, c.webrtc.tcp) = (5080, false);
        assert_eq!(wrong_keys(udp_only), Vec::<String>::new(), "UDP and TCP do not collide");
        for (transport, wrong) in [(LinkTransport::Quic, &["cluster.port"][..]), (LinkTransport::Tcp, &[])] {
            let webrtc = |c: &mut Config| {
                (c.cluster.transport, c.webrtc.port, c.webrtc.tcp) = (transport, c.cluster.port, false);
            };
            assert_eq!(wrong_keys(webrtc), wrong, "nodes link by UDP too");
            let media = |c: &mut Config| (c.cluster.transport, c.cluster.port) = (transport, 8_003);
            assert_eq!(wrong_keys(media), wrong, "a port of RTSP media");
        }
        let mut config = Config::default();
        config.http.port = 8081;
        assert!(check(&config).iter().all(|f| f.harmless && f.key == "http.port"));
    }

    #[test]
    fn a_node_knows_exactly_one_manager() {
        use Role::{Edge, Manager, Origin};
        assert_eq!(wrong_keys(|c| c.node.roles = vec![Edge]), ["cluster.manager"]);
        assert_eq!(wrong_keys(|c| c.cluster.manager = "127.0.0.1".into()), ["cluster.manager"]);
        assert_eq!(wrong_keys(|c| c.node.roles = vec![]), ["node.roles"]);
        assert_eq!(wrong_keys(|c| c.node.roles = vec![Manager, Edge, Manager]), ["node.roles"]);
        let edge = |manager: &str, key: &str| {
            wrong_keys(|c| {
                c.node.roles = vec![Origin, Edge];
                c.cluster.manager = manager.into();
                c.cluster.key = key.into();
            })
        };
        assert!(edge("127.0.0.1:5090", "").is_empty());
        assert!(edge("localhost", "").is_empty());
        assert_eq!(edge("10.0.0.5", ""), ["cluster.key"]);
        assert_eq!(
            wrong_keys(|c| c.cluster.keys_accepted = vec!["0123456789abcdef".into()]),
            ["cluster.keys_accepted"]
        );
        assert_eq!(wrong_keys(|c| c.cluster.key_file = "/nowhere/keys".into()), ["cluster.key_file"]);
        let twice = wrong_keys(|c| {
            c.cluster.key = "0123456789abcdef".into();
            c.cluster.key_file = "/nowhere/keys".into();
        });
        assert_eq!(twice, ["cluster.key_file"]);
        assert!(edge("10.0.0.5", "0123456789abcdef").is_empty());
        assert_eq!(edge("http://10.0.0.5", "0123456789abcdef"), ["cluster.manager"]);
    }

    #[test]
    fn addresses_and_names_are_read_as_what_they_are() {
        assert_eq!(wrong_keys(|c| c.advertise.public = "live.example.com".into()), ["advertise.public"]);
        assert_eq!(wrong_keys(|c| c.advertise.private = "0.0.0.0".into()), ["advertise.private"]);
        assert!(wrong_keys(|c| c.advertise.public = "2001:db8::1".into()).is_empty());
        assert_eq!(wrong_keys(|c| c.advertise.name = "https://x".into()), ["advertise.name"]);
        assert!(wrong_keys(|c| c.advertise.name = "live.example.com".into()).is_empty());
        assert_eq!(wrong_keys(|c| c.node.name = "a b".into()), ["node.name"]);
        assert_eq!(wrong_keys(|c| c.node.region = String::new()), ["node.region"]);
        assert_eq!(wrong_keys(|c| c.bind = "224.0.0.1".parse().unwrap()), ["bind"]);
    }

    #[test]
    fn limits_cannot_be_zero_or_contradict() {
        assert_eq!(wrong_keys(|c| c.limits.conns = 0), ["limits.conns"]);
        assert_eq!(wrong_keys(|c| c.limits.lease_ms = 1_500), ["limits.lease_ms"]);
        assert_eq!(wrong_keys(|c| c.limits.rtx_percent = 101), ["limits.rtx_percent"]);
        assert_eq!(wrong_keys(|c| c.node.capacity_mbps = 0), ["node.capacity_mbps"]);
    }

    #[test]
    fn hosts_come_with_or_without_a_port() {
        let good = |t| host_port(t, 5090).unwrap();
        assert_eq!(good("10.0.0.5"), ("10.0.0.5".into(), 5090));
        assert_eq!(good("m.example.com:5999"), ("m.example.com".into(), 5999));
        assert_eq!(good("fd00::5"), ("fd00::5".into(), 5090));
        assert_eq!(good("[fd00::5]:1"), ("fd00::5".into(), 1));
        for bad in ["", ":5090", "a:b", "a:0", "a:70000", "a b", "0.0.0.0", "[::]:5090", "-a", "a:1:2", "x/y"]
        {
            assert!(host_port(bad, 5090).is_err(), "{bad}");
        }
    }
}
