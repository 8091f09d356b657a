//! Every key of the configuration with its meaning, and the configuration as a file to start from.

use proto_core::limits::Limits;
use proto_core::node::config::Config;
use std::fmt::Write as _;

/// One key of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// Section and name, such as `http.port`.
    pub(crate) name: String,
    /// What it sets.
    pub(crate) doc: &'static str,
    /// What it may be, as the end of the sentence "must be …".
    pub(crate) allowed: &'static str,
}

const PORT: &str = "a port from 1 to 65535";
const ADDRESS: &str = "`auto` or an IP address";
const NAME: &str = "at most 63 of the characters A-Z a-z 0-9 . _ -";

/// Name, meaning and permitted values of each key except the limits, whose table documents itself.
const KEYS: &[(&str, &str, &str)] = &[
    (
        "bind",
        "The IP address that all listeners bind to. 0.0.0.0 means every IPv4 address of this host.",
        "an IP address, such as 0.0.0.0, 127.0.0.2 or ::",
    ),
    (
        "sources",
        "Streams that this node pulls from other servers, a table each: [[sources]] stream = \"live/cam1\" url = \
         \"rtsp://USER:PASSWORD@HOST/PATH\" (or rtmp://HOST/APP/NAME) when = \"demand\" (while somebody watches) or \
         \"always\" transport = \"auto\", \"tcp\" or \"udp\". On demand, stream may be a pattern such as cams/*, with {name} \
         in the url. Of several nodes with the same source one pulls it.",
        "a list of tables with stream, url, when and transport",
    ),
    (
        "destinations",
        "Servers that this node pushes the streams to that are published here, a table each: [[destinations]] stream = \
         \"live/*\" url = \"rtmp://HOST/APP/{name}\" (or rtsp://…). {stream}, {app} and {name} stand for the stream's own.",
        "a list of tables with stream, url and transport",
    ),
    (
        "node.name",
        "This node's name in the cluster. Empty: made from a role and a random part at each start.",
        NAME,
    ),
    (
        "node.roles",
        "What this node does for the cluster: any mix of manager, origin (takes publishers) and edge (takes viewers). \
         Every node speaks every protocol; roles decide what the manager gives out.",
        "a list of manager, origin and edge",
    ),
    (
        "node.loops",
        "So many loops in this process, each a node of the cluster (NAME/0, NAME/1 …) on a thread of its own; 0: one for each \
         core. The kernel deals connections out to them. Each has its own webrtc.port and cluster.port, one above that of \
         the one before, its own rtsp.udp_pairs, and its part of node.capacity_mbps; limits are each loop's. Linux only.",
        "a whole number from 0 to 64",
    ),
    ("node.region", "The region that this node stands in. Clients may ask the manager for one.", NAME),
    (
        "node.capacity_mbps",
        "What this node can send in all, megabits a second. The manager measures load against it.",
        "a whole number from 1 to 4294967295",
    ),
    ("http.port", "TCP port of pages, API, WHIP (publish), WHEP (play) and websockets.", PORT),
    (
        "http.origins",
        "The origins whose pages may open websockets here. Empty: all.",
        "a list of origins, such as https://example.com",
    ),
    ("https.port", "TCP port of what http.port has, over TLS.", PORT),
    ("rtmp.port", "TCP port of RTMP.", PORT),
    ("rtmps.port", "TCP port of RTMP over TLS.", PORT),
    (
        "tls.certificates",
        "PEM files, each with a certificate and its chain; a client gets the one for the host that it names, else the \
         first. They are read again when they change. Empty: one made at start.",
        "a list of file names",
    ),
    (
        "tls.keys",
        "PEM files with the private keys, in the order of the certificates. Empty: each key stands in the file of its \
         certificate.",
        "a list of file names",
    ),
    (
        "tls.authorities",
        "A PEM file with the authorities whose certificates the servers of sources and destinations may have (rtsps://, \
         rtmps://). The default is where most systems keep them.",
        "a file name",
    ),
    ("rtsp.port", "TCP port of RTSP.", PORT),
    (
        "rtsp.udp_port",
        "The first UDP port of RTSP media that does not go over the connection. Must be even.",
        "an even port from 2 to 65534",
    ),
    (
        "rtsp.udp_pairs",
        "Pairs of UDP ports (RTP and RTCP) from rtsp.udp_port on. A client behind an address translator can be told \
         from its neighbours as long as each track has a pair of its own. 0: media goes over the connection only.",
        "a whole number from 0 to 1000",
    ),
    (
        "rtsp.redirect",
        "Send RTSP clients to another node: by 302 where this node takes nothing new, or where players that are known to \
         follow ask a node without the role edge; by REDIRECT when it drains.",
        "true or false",
    ),
    ("rtsps.port", "TCP port of RTSP over TLS. Its media goes over the connection only.", PORT),
    ("webrtc.port", "UDP port of all WebRTC sessions. Must be open to viewers and publishers.", PORT),
    (
        "webrtc.lean",
        "Whether WebRTC viewers get the lean sender, which costs a small part of a whole session. Switch it off only to \
         compare.",
        "true or false",
    ),
    (
        "webrtc.gso",
        "Hand the kernel all datagrams of a viewer's picture as one message where it can take them (UDP_SEGMENT); it does \
         without by itself where it cannot. Switch it off to compare, or where a network driver sends such messages damaged.",
        "true or false",
    ),
    (
        "webrtc.stun",
        "Answer STUN requests of anybody on that port, and tell clients so, who then need no STUN server of others.",
        "true or false",
    ),
    (
        "webrtc.tcp",
        "Take WebRTC over TCP too, on the same port number and on https.port, and tell clients of the former: for networks \
         that let no UDP through.",
        "true or false",
    ),
    (
        "webrtc.tcp_on_https",
        "Tell clients also that https.port takes WebRTC over TCP: for networks that let nothing else through. Each client \
         opens one more connection to try it.",
        "true or false",
    ),
    ("cluster.port", "TCP port, and UDP port for QUIC, on which other nodes reach this one.", PORT),
    (
        "cluster.manager",
        "The manager that this node registers with, HOST or HOST:PORT (port 5090 if left out). Empty: this node's \
         own manager role.",
        "HOST or HOST:PORT",
    ),
    (
        "cluster.key",
        "The secret that all nodes of a cluster share. Empty: other nodes are accepted from loopback addresses only.",
        "a text, at best 16 characters or more",
    ),
    (
        "cluster.keys_accepted",
        "Keys that are accepted beside cluster.key, while it is replaced.",
        "a list of texts, at most 7",
    ),
    (
        "cluster.key_file",
        "A file with the keys in place of cluster.key and cluster.keys_accepted: one a line, the first is shown, each is \
         accepted; lines that begin with # are skipped. It is read again when it changes, and links whose key is no longer in \
         it are made anew. Empty: none.",
        "a file name",
    ),
    (
        "cluster.transport",
        "What links to other nodes use: quic (encrypted; udp on the port number of cluster.port, which must be open between \
         nodes; a node that is not reached so, or is older, is linked by TCP, which the log says) or tcp (not encrypted; no udp \
         port is opened).",
        "quic or tcp",
    ),
    (
        "auth.rules",
        "Who may publish, play, and use the API: the first rule for an action and a stream decides, and what no rule lets \
         is refused. Empty: publishing and playing are open. Each has action (publish, play or api), streams (patterns: * \
         is any characters of a part, ** any parts; left out: all) and who (anyone, loopback, users, user:NAME, tokens, keys, callback). \
         Without a rule for it, the API is for this host only.",
        "a list of rules, such as { action = \"publish\", streams = [\"live/*\"], who = [\"users\", \"tokens\"] }",
    ),
    (
        "auth.users",
        "Users, each with name, password (a hash that `headwater ctl passwd` makes) and, for RTSP digest, ha1.",
        "a list of users, such as { name = \"alice\", password = \"$argon2id$...\" }",
    ),
    (
        "auth.keys",
        "Secret publish keys: who knows one publishes the stream, with the key in place of the stream's name. Each has key \
         (16 characters or more), stream and, for logs, name.",
        "a list of keys, such as { key = \"...\", stream = \"live/show\", name = \"studio\" }",
    ),
    (
        "auth.secret",
        "The secret under which stream tokens are signed (HS256), the same on all nodes. Empty: derived from cluster.key; \
         where that is empty too, tokens are good at the node that made them, until it ends.",
        "a text, at best 32 characters or more",
    ),
    (
        "auth.jwks",
        "A file with a JSON web key set whose keys (RS256, ES256, EdDSA) sign tokens too, or the http:// or https:// address \
         of one. The file is read again when it changes, the address every five minutes and for a token whose key is not \
         known; until there are new keys the old ones stay. Empty: none.",
        "a file name or an address",
    ),
    (
        "auth.issuer",
        "What the claim iss of tokens under keys of auth.jwks must be. Empty: anything.",
        "a text",
    ),
    ("auth.audience", "What their claim aud must be or hold. Empty: they must have none.", "a text"),
    (
        "auth.revoked",
        "What is refused: tokens by id, and user:NAME, token:SUBJECT, key:NAME. `headwater ctl revoke` does it at once, \
         in the whole cluster, until the manager ends.",
        "a list of texts",
    ),
    (
        "auth.clear_passwords",
        "Take passwords from other hosts over connections without TLS too, where they can be read on the way.",
        "true or false",
    ),
    (
        "auth.callback",
        "The http:// or https:// address of a program of yours that is asked about those whom a rule leaves to `callback`: a \
         POST with JSON for each question, answered by 200 (yes), 401 or 403 (no). Empty: none.",
        "an address, such as https://login.example/headwater",
    ),
    (
        "auth.callback_token",
        "What that program is shown as `Authorization: Bearer`, so that it knows who asks. Empty: nothing.",
        "a text of printable ASCII characters without spaces",
    ),
    (
        "auth.callback_fallback",
        "What becomes of those about whom it could not be asked, because it is down, slow, or answers something else: they \
         are refused, or let in.",
        "refuse or allow",
    ),
    ("auth.realm", "The realm of RTSP authentication. ha1 of users is made for it.", "a text without quotes"),
    (
        "manager.node_group",
        "The name of this cluster's node group in the stream-manager dialect. `default` always means it too.",
        NAME,
    ),
    ("manager.user", "The user who may log in at the manager for a token (PUT /as/v1/auth/login).", NAME),
    (
        "manager.password",
        "The password of that user. Empty: nobody can log in, and calls that change something are answered on this host \
         only.",
        "a text, at best 16 characters or more",
    ),
    (
        "pacing.sound_wait_ms",
        "Where many watch a stream, sound waits at most this long for the next picture, so that both leave in one message, \
         which costs much less. As long as one picture at 30 a second. 0: never.",
        "a whole number from 0 to 1000",
    ),
    (
        "pacing.sound_wait_viewers",
        "How many viewers of a stream on this node are many; with fewer, sound leaves at once.",
        "a whole number",
    ),
    (
        "pacing.tcp_merge_ms",
        "Frames for viewers over TCP (RTMP, HTTP-FLV, RTSP) are collected for this long and written with one call: cheaper, \
         and that much later. 0: each leaves at once.",
        "a whole number from 0 to 1000",
    ),
    (
        "bridge.audio",
        "Convert sound for viewers whose protocol cannot carry it: AAC to Opus for browsers, Opus to AAC for RTMP players. \
         How many at once: limits.bridges.",
        "true or false",
    ),
    (
        "bridge.video",
        "Code H.264 anew for viewers by WebRTC where it has B-frames that other pictures refer to, which they would see \
         damaged, and H.265 into H.264 for viewers by WebRTC and RTMP that do not take it. It costs a good part of a core a stream. How many at once: limits.video_bridges.",
        "true or false",
    ),
    (
        "advertise.public",
        "The address that publishers and viewers are told. auto: the bound address, else the host's first.",
        ADDRESS,
    ),
    (
        "advertise.private",
        "The address that other nodes are told. auto: the bound address, else the host's first.",
        ADDRESS,
    ),
    ("advertise.name", "A DNS name for URLs in place of the public address. Empty: none.", "a DNS name"),
    (
        "advertise.https",
        "Browsers trust this node's certificate (tls.certificates) for the host that it advertises: secure pages are sent \
         straight to its https.port. false: they signal by way of the manager.",
        "true or false",
    ),
    ("log.format", "text for people, json for machines (one object a line).", "text or json"),
    (
        "log.level",
        "How much is logged: error, warn, info or debug; each includes those before it.",
        "error, warn, info or debug",
    ),
];

/// Every key, in the order in which they are printed.
pub(crate) fn all() -> Vec<Key> {
    let named = KEYS.iter().map(|&(name, doc, allowed)| Key { name: name.to_owned(), doc, allowed });
    let limits = Limits::DOCS.iter().map(|&(name, doc)| Key {
        name: format!("limits.{name}"),
        doc: doc.trim(),
        allowed: "a whole number above 0",
    });
    named.chain(limits).collect()
}

/// The environment variable that sets a key: `http.port` is `HEADWATER_HTTP_PORT`.
pub(crate) fn variable(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// What the names of all our environment variables begin with.
pub(crate) const VARIABLE_PREFIX: &str = "HEADWATER_";

/// The known key that an unknown one was most likely meant to be.
pub(crate) fn nearest<'a>(unknown: &str, keys: &'a [Key]) -> Option<&'a str> {
    let unknown = unknown.to_lowercase();
    let distance = |key: &str| {
        let whole = strsim::damerau_levenshtein(&unknown, key);
        // Whoever leaves the section out still means the key.
        let tail = key.rsplit_once('.').filter(|_| !unknown.contains('.'));
        tail.map_or(whole, |(_, name)| whole.min(strsim::damerau_levenshtein(&unknown, name)))
    };
    let (far, key) = keys.iter().map(|k| (distance(&k.name), k.name.as_str())).min()?;
    (far <= (unknown.len() / 3).max(2)).then_some(key)
}

/// The whole configuration as a TOML file, each key with a comment that says what it means.
///
/// # Errors
/// A sentence if a value cannot be written as TOML, which no configuration that was loaded can cause.
pub(crate) fn print(config: &Config) -> Result<String, String> {
    let table =
        toml::Table::try_from(config).map_err(|e| format!("the configuration cannot be printed: {e}"))?;
    let mut out = String::from(
        "# The configuration of Headwater, every key with its default. A file needs to name only what differs.\n\
         # Any key can also be given as `--set KEY=VALUE` or in the environment: http.port is HEADWATER_HTTP_PORT.\n\
         # A flag beats --set, --set beats the environment, the environment beats the file.\n",
    );
    let mut section = "";
    let keys = all();
    for key in &keys {
        let (in_section, name) = key.name.split_once('.').unwrap_or(("", &key.name));
        if in_section != section {
            section = in_section;
            // Writing to a String cannot fail.
            let _ = write!(out, "\n\n[{section}]");
        }
        out.push('\n');
        for line in wrap(key.doc, 108) {
            let _ = write!(out, "\n# {line}");
        }
        let value = get(&table, &key.name).ok_or_else(|| format!("the key {} has no value", key.name))?;
        let _ = write!(out, "\n{name} = {value}");
    }
    out.push('\n');
    Ok(out)
}

/// The value of a key such as `http.port` in a table of sections.
pub(crate) fn get<'a>(table: &'a toml::Table, key: &str) -> Option<&'a toml::Value> {
    match key.split_once('.') {
        Some((section, name)) => table.get(section)?.as_table()?.get(name),
        None => table.get(key),
    }
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn keys_of(config: &Config) -> BTreeSet<String> {
        let table = toml::Table::try_from(config).unwrap();
        let mut keys = BTreeSet::new();
        for (name, value) in &table {
            match value.as_table() {
                Some(section) => keys.extend(section.keys().map(|k| format!("{name}.{k}"))),
                None => _ = keys.insert(name.clone()),
            }
        }
        keys
    }

    #[test]
    fn exactly_the_keys_that_exist_are_documented() {
        let documented: Vec<String> = all().into_iter().map(|k| k.name).collect();
        let unique: BTreeSet<String> = documented.iter().cloned().collect();
        assert_eq!(unique.len(), documented.len(), "a key is documented twice");
        assert_eq!(unique, keys_of(&Config::default()));
    }

    #[test]
    fn what_is_printed_is_the_defaults_again() {
        let text = print(&Config::default()).unwrap();
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), Config::default());
        for line in text.lines() {
            assert!(line.chars().count() <= 110, "{line}");
        }
        let comments = text.lines().filter(|l| l.starts_with('#')).count();
        assert!(comments >= all().len());
    }

    #[test]
    fn no_two_keys_share_a_variable() {
        let variables: BTreeSet<String> = all().iter().map(|k| variable(&k.name)).collect();
        assert_eq!(variables.len(), all().len());
        assert!(variables.contains("HEADWATER_NODE_CAPACITY_MBPS"));
    }

    #[test]
    fn a_slip_of_the_finger_finds_its_key() {
        let keys = all();
        assert_eq!(nearest("http.prot", &keys), Some("http.port"));
        assert_eq!(nearest("HTTP.Port", &keys), Some("http.port"));
        assert_eq!(nearest("region", &keys), Some("node.region"));
        assert_eq!(nearest("limit.lease_ms", &keys), Some("limits.lease_ms"));
        assert_eq!(nearest("completely.different_matter", &keys), None);
    }
}
