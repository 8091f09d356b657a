//! What can be typed after `headwater`.

use clap::{Args, Parser, Subcommand};
use proto_core::time::Time;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A live-streaming cluster in one binary.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "First time here?   headwater demo\n\
                  A node by itself:  headwater serve\n\
                  Exit codes: 0 done, 1 failed while running, 2 wrong arguments or configuration."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node. Without configuration: manager, origin and edge in one
    #[command(after_help = "Examples:\n  \
        headwater serve\n  \
        headwater serve --roles manager --set cluster.key=SECRET\n  \
        headwater serve --roles edge --manager 10.0.0.5 --set cluster.key=SECRET\n  \
        headwater serve --roles edge --manager 10.0.0.5 --port-offset 200   one more node on that machine\n  \
        headwater serve --loops 0                                           a loop for each core, at the same ports\n\n\
        Any key of `headwater config` can be given by --set or in the environment (http.port is HEADWATER_HTTP_PORT).\n\
        A flag beats --set, --set beats the environment, the environment beats the file.\n\
        SIGTERM or Ctrl-C lets sessions finish; a second one ends at once.\n\n\
        A recording (--record) makes a fault repeatable: `headwater replay FILE` runs the same node again. The file\n\
        holds secrets: this node's configuration and keys, tokens, and all media that was sent to it. Only its owner\n\
        may read it (mode 0600). While it records, the node uses slower cryptography that is made from a seed in the\n\
        file. When the limit is reached or the disk is full, recording ends and the node runs on. With several loops\n\
        each writes a file of its own, FILE.0, FILE.1 and so on.")]
    Serve(Serve),
    /// Say whether a node with this configuration can do its work on this host, and what to do if not
    #[command(after_help = "Examples:\n  \
        headwater doctor --config headwater.toml       before the node starts, or while it runs\n  \
        headwater doctor --reach stream.example.com    from another machine: which of its ports can be reached, and how\n\n\
        Give it what `headwater serve` is given. Nothing is changed; ports are opened for a moment to see whether they are free.\n\
        Each line begins with good, doubtful or bad. Exit codes: 0 nothing is bad, 1 something is, 2 the configuration is\n\
        wrong.")]
    Doctor(Doctor),
    /// Run a recorded node again, without network, and say whether it does the same
    #[command(after_help = "Examples:\n  \
        headwater serve --record incident.rec     record until the node ends or the limit is reached\n  \
        headwater replay incident.rec             say whether all of it is reproduced\n  \
        headwater replay incident.rec --trace --from 61 --to 63.5\n\n\
        Nothing is sent and no port is opened. The columns of --trace are: seconds since the node was made, > for what\n\
        it was told and < for what it said, the number of the input, what, which connection or session, details. They\n\
        show sizes and fingerprints of what was sent, never the bytes.\n\n\
        Exit codes: 0 all that is there is reproduced, 1 it differs or the file is damaged, 2 the file is no recording or of\n\
        another format.")]
    Replay(Replay),
    /// Run a whole cluster in this process, with a clip playing through it
    #[command(after_help = "SIGTERM or Ctrl-C ends it.")]
    Demo(Demo),
    /// Print the whole configuration with its defaults, or check a file
    Config(Config),
    /// Ask a running node
    Ctl(Ctl),
    /// Put load on a running node and measure what it carries
    Bench(Bench),
}

/// The configuration of a node, as `serve` and `doctor` take it.
#[derive(Debug, Args)]
pub(crate) struct Given {
    /// What this node does: any mix of manager, origin and edge, with commas between [default: all three]
    #[arg(long, value_name = "ROLES")]
    pub(crate) roles: Option<String>,
    /// Run so many loops, each a node of the cluster on a core of its own; 0: one for each core [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) loops: Option<String>,
    /// The manager to register with, where that is another node (port 5090 if left out)
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) manager: Option<String>,
    /// The IP address for all listeners [default: 0.0.0.0]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) bind: Option<String>,
    /// Make all ports of this node so much higher, for several nodes at one address; an even number
    #[arg(long, value_name = "NUMBER", value_parser = port_offset, default_value_t = 0, hide_default_value = true)]
    pub(crate) port_offset: u16,
    /// A TOML file; `headwater config` prints one to start from
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set any key of the configuration; may be given again
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// `headwater serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The node.
    #[command(flatten)]
    pub(crate) given: Given,
    /// Record everything that the node is told to this new file, for `headwater replay`. Holds secrets; see below
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// The most bytes of the recording; K, M and G may follow the number
    #[arg(long, value_name = "BYTES", requires = "record", value_parser = bytes, default_value = "1G")]
    pub(crate) record_limit: u64,
}

/// `headwater doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The node.
    #[command(flatten)]
    pub(crate) given: Given,
    /// Look from here at the node at this address or name, in place of looking at this host
    #[arg(long, value_name = "HOST")]
    pub(crate) reach: Option<String>,
}

/// `headwater replay`.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// What `headwater serve --record` wrote
    pub(crate) file: PathBuf,
    /// Print everything that the node was told and said
    #[arg(long)]
    pub(crate) trace: bool,
    /// Print from this time on, seconds since the node was made, such as 61.5
    #[arg(long, value_name = "SECONDS", requires = "trace", value_parser = seconds)]
    pub(crate) from: Option<Time>,
    /// Print up to this time
    #[arg(long, value_name = "SECONDS", requires = "trace", value_parser = seconds)]
    pub(crate) to: Option<Time>,
}

/// Even, as the first of each pair of RTSP's ports is.
fn port_offset(text: &str) -> Result<u16, String> {
    let even = text.parse().ok().filter(|n: &u16| n.is_multiple_of(2));
    even.ok_or_else(|| "must be an even number, such as 200".to_owned())
}

/// Seconds, with a fraction if need be.
fn seconds(text: &str) -> Result<Time, String> {
    let wrong = || "must be seconds, such as 61.5".to_owned();
    let duration = Duration::try_from_secs_f64(text.parse().map_err(|_| wrong())?).map_err(|_| wrong())?;
    Ok(Time::ZERO + duration)
}

/// A time with its unit: 90s, 15m, 12h, 30d.
fn lifetime(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a number with s, m, h or d after it, such as 90s, 15m, 12h or 30d".to_owned();
    let (at, unit) = text.char_indices().last().ok_or_else(wrong)?;
    let unit = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..at].parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|s| *s > 0).map(Duration::from_secs).ok_or_else(wrong)
}

/// Bytes, as a number with K, M or G after it if need be (1,024 each).
fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "must be a number of bytes, such as 500000000, 500M or 2G".to_owned();
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(wrong)
}

/// `headwater demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The IP address for all listeners; 127.0.0.1 keeps the demo to this host
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    pub(crate) bind: IpAddr,
    /// Add this to every port, where the usual ones are taken
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) port_offset: u16,
    /// Set a key of the configuration for all three nodes, such as log.level=debug; may be given again
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// `headwater config`.
#[derive(Debug, Args)]
pub(crate) struct Config {
    /// What to do instead of printing.
    #[command(subcommand)]
    pub(crate) command: Option<ConfigCommand>,
}

/// What else `headwater config` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say what is wrong with a file, by line and key
    Check {
        /// The file
        file: PathBuf,
    },
}

/// `headwater ctl`.
#[derive(Debug, Args)]
pub(crate) struct Ctl {
    /// The node to ask
    #[arg(long, global = true, value_name = "URL", default_value = "http://127.0.0.1:5080")]
    pub(crate) url: String,
    /// Print the node's JSON instead of a table
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to ask.
    #[command(subcommand)]
    pub(crate) command: CtlCommand,
}

/// What a node can be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum CtlCommand {
    /// List the nodes that this one knows
    Nodes,
    /// List the streams
    Streams,
    /// List publishers and viewers
    Sessions,
    /// List websockets that are proxied to other nodes
    Proxies,
    /// List the streams that are pulled from other servers
    Sources,
    /// List the servers that streams are pushed to
    Destinations,
    /// End a session or a proxied websocket (only from the node's own host)
    Kick {
        /// Its id, as `sessions` or `proxies` lists it, such as rtmp-12
        session: String,
    },
    /// Say why a stream and its viewers are at the nodes where they are (asks the manager)
    WhyPlaced {
        /// The stream, such as live/demo
        stream: String,
    },
    /// Say in words what became of a session, also of one that ended lately
    Why {
        /// Its id, as `sessions` and the log have it, such as rtmp-12
        session: String,
    },
    /// Let a node take nothing new (asks the manager; only from its own host). What runs there stays
    Drain {
        /// The node's name or address
        node: String,
        /// End what still runs there after so many seconds
        #[arg(long, value_name = "SECONDS", conflicts_with = "undo")]
        within: Option<u64>,
        /// And end its process when nothing is left
        #[arg(long, conflicts_with = "undo")]
        stop: bool,
        /// Take it back into service
        #[arg(long)]
        undo: bool,
    },
    /// Make a token that lets its bearer publish or play (only from the node's own host). It goes to standard output
    Token {
        /// What for: publish, play or api
        #[arg(long, value_parser = ["publish", "play", "api"])]
        action: String,
        /// Which stream, such as live/x or live/*; several with commas between
        #[arg(long, value_name = "STREAM", required_if_eq_any([("action", "publish"), ("action", "play")]))]
        stream: Option<String>,
        /// For how long, such as 90s, 15m, 12h or 30d
        #[arg(long, value_name = "TIME", value_parser = lifetime, default_value = "1h")]
        ttl: Duration,
        /// Whose it is: for logs, and the same publisher may come again at once
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// The only address that it may come from
        #[arg(long, value_name = "ADDRESS")]
        ip: Option<IpAddr>,
    },
    /// Refuse a token by its id, or user:NAME, token:NAME or key:NAME, and end what they run (only from the node's own host)
    Revoke {
        /// What is to be refused
        name: String,
    },
    /// Make a user for the configuration; asks no node. The password is read from standard input, or made where that is a
    /// terminal
    Passwd {
        /// The user's name
        name: String,
        /// With hashes for RTSP digest, which whoever reads the file can use in place of the password
        #[arg(long)]
        rtsp: bool,
        /// The realm of those (auth.realm)
        #[arg(long, value_name = "REALM", default_value = "Headwater")]
        realm: String,
    },
    /// Have a stream pulled to edges before its viewers come (asks the manager; only from its own host)
    Warm {
        /// The stream, such as live/demo
        stream: String,
        /// To so many edges, the ones that its viewers will be sent to
        #[arg(long, value_name = "N", default_value_t = 1)]
        edges: u32,
        /// Keep it there for so long without viewers
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        seconds: u64,
    },
}

/// `headwater bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Publish a made-up stream, have many play it, and say what came, how late, and what it cost
    #[command(
        after_help = "Examples (the node: headwater serve --set node.capacity_mbps=100000 --set limits.conns_per_ip=20000\n\
        --set limits.rtc_handshakes_per_ip=4000):\n  \
        headwater bench play --publish rtmp://127.0.0.1/live/a --play http://127.0.0.1:5080/whep/live/a,1000 --pid PID\n  \
        headwater bench play --publish rtmp://127.0.0.1/live/a --play rtmp://127.0.0.1/live/a,1000 --pid PID\n  \
        headwater bench play --publish rtmp://127.0.0.1/live/a --play http://127.0.0.1:5080/flv/live/a.flv,500\n\n\
        Works against any server by URL; publishing is by RTMP, playing by WHEP, RTMP or HTTP-FLV. Four players of each URL\n\
        read the times that stand in the pictures, so publisher and players must be on one host. Give server and bench a\n\
        core each (taskset); compare figures of one run only. Players report no loss: what is lost stays lost."
    )]
    Play(BenchPlay),
    /// Questions for a node: how many a second a manager answers, and how long each waits
    #[command(after_help = "Examples:\n  \
        headwater bench pairings --rate 10000 --pid PID\n  \
        headwater bench pairings --url https://127.0.0.1:5443 --rate 1000 --new-connections --pid PID\n\n\
        Questions are due at fixed times, and a wait counts from then on, so a manager that falls behind shows in the\n\
        waits. Before that /healthz is asked at the same rate: what the least of answers costs. Any certificate is taken.\n\
        Exit code 1: not all were answered with a node.")]
    Pairings(Pairings),
    /// Viewers who come and go while others watch: what a join costs, and whether the others lose anything
    #[command(
        after_help = "Example (the node: headwater serve --set node.capacity_mbps=100000 --set limits.conns_per_ip=20000\n\
        --set limits.rtc_handshakes_per_ip=4000 --set limits.admit_busy_permille=1000):\n  \
        headwater bench joins --publish rtmp://127.0.0.1/live/a --watch http://127.0.0.1:5080/whep/live/a,200\n  \
        --manager https://127.0.0.1:5443 --rate 50 --pid PID\n\n\
        A join is a new TLS connection to the manager, its answer where to play, WHEP there (over the same connection where\n\
        that is the same host), ICE, DTLS and the first picture, decrypted; then the viewer leaves. First the others watch\n\
        alone for as long, so what joins cost stands beside what they cost. Any certificate is taken. Exit code 1: a join\n\
        failed."
    )]
    Joins(BenchJoins),
}

/// `headwater bench play`.
#[derive(Debug, Args)]
pub(crate) struct BenchPlay {
    /// Where to publish the stream, rtmp://HOST[:PORT]/APP/NAME
    #[arg(long, value_name = "URL")]
    pub(crate) publish: String,
    /// Who plays: a URL of WHEP, RTMP or HTTP-FLV, and how many; may be given again
    #[arg(long, value_name = "URL[,N]", required = true)]
    pub(crate) play: Vec<String>,
    /// Measure for so long, once all have joined
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// Rate of the pictures; sound adds 64 kbit/s
    #[arg(long, value_name = "KBIT/S", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    pub(crate) kbps: u64,
    /// Pictures a second
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(crate) fps: u64,
    /// The server's process on this host, whose processor time and memory are counted
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `headwater bench pairings`.
#[derive(Debug, Args)]
pub(crate) struct Pairings {
    /// The manager to ask
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:5080")]
    pub(crate) url: String,
    /// Questions a second
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: u64,
    /// For so long
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Connections, a thread for each
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) connections: u64,
    /// Open a new connection for each question
    #[arg(long)]
    pub(crate) new_connections: bool,
    /// The manager's process on this host, whose processor time is counted
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,
}

/// `headwater bench joins`.
#[derive(Debug, Args)]
pub(crate) struct BenchJoins {
    /// Where to publish the stream, rtmp://HOST[:PORT]/APP/NAME
    #[arg(long, value_name = "URL")]
    pub(crate) publish: String,
    /// Who watches all the while: a URL of WHEP, RTMP or HTTP-FLV, and how many; may be given again
    #[arg(long, value_name = "URL[,N]")]
    pub(crate) watch: Vec<String>,
    /// Whom those who join ask where to play
    #[arg(long, value_name = "URL", default_value = "https://127.0.0.1:5443")]
    pub(crate) manager: String,
    /// Joins a second
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) rate: u64,
    /// For so long
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// The most joins at once, a thread for each
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=1_024))]
    pub(crate) at_once: u64,
    /// Rate of the pictures; sound adds 64 kbit/s
    #[arg(long, value_name = "KBIT/S", default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    pub(crate) kbps: u64,
    /// The server's process on this host, whose processor time is counted
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn values_reach_their_place() {
        let cli = Cli::try_parse_from([
            "headwater",
            "serve",
            "--roles",
            "origin,edge",
            "--set",
            "a=1",
            "--set",
            "b=2",
        ]);
        let Command::Serve(serve) = cli.unwrap().command else { panic!("no serve") };
        assert_eq!(serve.given.roles.as_deref(), Some("origin,edge"));
        assert_eq!(serve.given.set, ["a=1", "b=2"]);
        let cli =
            Cli::try_parse_from(["headwater", "ctl", "streams", "--json", "--url", "http://h"]).unwrap();
        let Command::Ctl(ctl) = cli.command else { panic!("no ctl") };
        assert!(ctl.json && ctl.url == "http://h");
    }

    #[test]
    fn sizes_and_times_are_read() {
        assert_eq!((bytes("65536"), bytes("1k"), bytes("2M")), (Ok(65_536), Ok(1_024), Ok(2 << 20)));
        assert!(["", "G", "-1", "1T", "99999999999G"].into_iter().all(|t| bytes(t).is_err()));
        assert_eq!(seconds("61.5"), Ok(Time::from_millis(61_500)));
        assert!(["", "-1", "x", "NaN", "1e40"].into_iter().all(|t| seconds(t).is_err()));
        assert_eq!(
            (lifetime("90s"), lifetime("2d")),
            (Ok(Duration::from_secs(90)), Ok(Duration::from_secs(172_800)))
        );
        assert!(
            ["", "1", "h", "0s", "1w", "-1s", "99999999999999999999d"]
                .into_iter()
                .all(|t| lifetime(t).is_err())
        );
        let cli = Cli::try_parse_from(["headwater", "serve", "--record", "a"]).unwrap();
        let Command::Serve(serve) = cli.command else { panic!("no serve") };
        assert_eq!((serve.record, serve.record_limit), (Some("a".into()), 1 << 30));
    }

    #[test]
    fn wrong_arguments_are_exit_code_2() {
        for line in [
            &["headwater", "serve", "--rolls", "x"][..],
            &["headwater", "demo", "--bind", "x"],
            &["headwater", "x"],
            &["headwater", "ctl", "token", "--action", "publish"],
            &["headwater", "ctl", "token", "--action", "watch", "--stream", "live/x"],
            &["headwater", "serve", "--record-limit", "1G"],
            &["headwater", "replay"],
            &["headwater", "replay", "a", "--from", "1"],
        ] {
            assert_eq!(Cli::try_parse_from(line).unwrap_err().exit_code(), 2);
        }
        assert_eq!(Cli::try_parse_from(["headwater", "--help"]).unwrap_err().exit_code(), 0);
    }
}
