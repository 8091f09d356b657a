//! Plans as text: a head, then one operation a line. What is written is read back as the same plan, and people can
//! change it by hand. Empty lines and lines that begin with `//` are passed over.
//!
//! ```text
//! plan seed=7 origins=2 edges=1 complete=0 regions=1 span=20000
//! 100 publish #0 rtmp o1 live/a
//! 900 play #1 webrtc e1 live/a behind=home
//! 5000 crash o1
//! 7000 start o1
//! ```

use super::plan::{Behind, By, Op, Place, Plan, Publishing, Quality, Step, Version, Who};
use crate::world::media::Order;
use std::fmt;
use std::str::FromStr;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { seed, origins, edges, complete, regions, span, sites, quic, steps } = self;
        write!(f, "plan seed={seed} origins={origins} edges={edges} complete={complete} regions={regions}")?;
        write!(f, " span={span}")?;
        if *sites {
            write!(f, " sites=true")?;
        }
        if *quic {
            write!(f, " quic=true")?;
        }
        writeln!(f)?;
        for Step { at, op } in steps {
            writeln!(f, "{at} {op}")?;
        }
        Ok(())
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            By::Rtmp => "rtmp",
            By::Webrtc => "webrtc",
            By::WebrtcTcp => "webrtc-tcp",
            By::Rtsp => "rtsp",
            By::RtspUdp => "rtsp-udp",
            By::Rtsps => "rtsps",
            By::Rtmps => "rtmps",
            By::Https => "https",
            By::Ws => "ws",
            By::Wss => "wss",
            By::Managed => "managed",
        })
    }
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Behind::Nothing => Ok(()),
            Behind::Home => f.write_str(" behind=home"),
            Behind::Symmetric => f.write_str(" behind=symmetric"),
        }
    }
}

impl fmt::Display for Publishing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Publishing { again, gop, bytes, sound, order } = self;
        if let Some(again) = again {
            write!(f, " again={again}")?;
        }
        write!(f, " gop={gop} bytes={bytes} sound={sound}")?;
        match order {
            Order::Shown => Ok(()),
            Order::Plain => f.write_str(" order=plain"),
            Order::Pyramid => f.write_str(" order=pyramid"),
        }
    }
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quality { latency, jitter, loss, burst, twice, reorder, corrupt, rate, mtu } = *self;
        let all = [
            ("latency", latency),
            ("jitter", jitter),
            ("loss", loss),
            ("burst", burst),
            ("twice", twice),
            ("reorder", reorder),
            ("corrupt", corrupt),
            ("rate", rate),
            ("mtu", mtu),
        ];
        all.iter().filter(|(_, n)| *n != 0).try_for_each(|(name, n)| write!(f, " {name}={n}"))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Publish { client, by, at, stream, how, behind } => {
                write!(f, "publish #{client} {by} {at} {stream}{how}{behind}")
            }
            Op::Play { client, by, at, stream, behind } => {
                write!(f, "play #{client} {by} {at} {stream}{behind}")
            }
            Op::Leave(c) => write!(f, "leave #{c}"),
            Op::Silent(c, true) => write!(f, "silent #{c}"),
            Op::Silent(c, false) => write!(f, "loud #{c}"),
            Op::Reconnect(c) => write!(f, "reconnect #{c}"),
            Op::Switch(c, stream) => write!(f, "switch #{c} {stream}"),
            Op::Elsewhere(c, at) => write!(f, "elsewhere #{c} {at}"),
            Op::Reading(c, true) => write!(f, "read #{c}"),
            Op::Reading(c, false) => write!(f, "unread #{c}"),
            Op::Ask(at, path) => write!(f, "ask {at} {path}"),
            Op::Evil { client, kind, at } => write!(f, "evil #{client} {kind} {at}"),
            Op::Crash(at) => write!(f, "crash {at}"),
            Op::Start(at) => write!(f, "start {at}"),
            Op::Replace(at, version) => write!(f, "replace {at} {version}"),
            Op::Drain(at) => write!(f, "drain {at}"),
            Op::Cut(who) => write!(f, "cut {who}"),
            Op::Heal(who) => write!(f, "heal {who}"),
            Op::Part(a, b) => write!(f, "part {a} {b}"),
            Op::OneWay(a, b) => write!(f, "oneway {a} {b}"),
            Op::Join(a, b) => write!(f, "join {a} {b}"),
            Op::Degrade(who, quality) => write!(f, "degrade {who}{quality}"),
            Op::Restore(who) => write!(f, "restore {who}"),
            Op::Stall(who, ms) => write!(f, "stall {who} {ms}"),
            Op::Pause(at) => write!(f, "pause {at}"),
            Op::Resume(at) => write!(f, "resume {at}"),
            Op::Skew(at, ppm) => write!(f, "skew {at} {ppm}"),
            Op::Wall(at, ms) => write!(f, "wall {at} {ms}"),
            Op::Memory(at, mb) => write!(f, "memory {at} {mb}"),
            Op::Descriptors(at, n) => write!(f, "descriptors {at} {n}"),
            Op::Refuse(at, permille) => write!(f, "refuse {at} {permille}"),
            Op::Rebind(c) => write!(f, "rebind #{c}"),
            Op::Readdress(c) => write!(f, "readdress #{c}"),
        }
    }
}

/// The words of a line, and what is wrong with it.
struct Words<'a> {
    line: &'a str,
    words: std::str::SplitWhitespace<'a>,
}

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Words<'a> {
        Words { line, words: line.split_whitespace() }
    }

    fn wrong(&self, what: impl fmt::Display) -> String {
        format!("{what} in the line: {}", self.line)
    }

    fn word(&mut self) -> Result<&'a str, String> {
        self.words.next().ok_or_else(|| self.wrong("a word is missing"))
    }

    fn of<T: FromStr>(&mut self) -> Result<T, String> {
        let word = self.word()?;
        word.parse().map_err(|_| self.wrong(format!("cannot read {word}")))
    }

    fn client(&mut self) -> Result<u32, String> {
        match self.of()? {
            Who::Client(n) => Ok(n),
            Who::Node(place) => Err(self.wrong(format!("{place} is no client"))),
        }
    }

    /// The rest, as `name=value`.
    fn settings(&mut self, mut set: impl FnMut(&str, &str) -> Option<()>) -> Result<(), String> {
        while let Some(word) = self.words.next() {
            let known = word.split_once('=').and_then(|(name, value)| set(name, value));
            known.ok_or_else(|| self.wrong(format!("cannot read {word}")))?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        self.settings(|_, _| None)
    }
}

/// Puts a value into a field, if it can be read.
fn put<T: FromStr>(field: &mut T, value: &str) -> Option<()> {
    *field = value.parse().ok()?;
    Some(())
}

impl FromStr for Place {
    type Err = String;

    fn from_str(word: &str) -> Result<Place, String> {
        let no = || format!("{word} is no node");
        let (kind, number) = word.split_at_checked(1).ok_or_else(no)?;
        let number = number.parse().map_err(|_| no())?;
        match (kind, number) {
            ("m", 1) => Ok(Place::Manager),
            ("o", n) => Ok(Place::Origin(n)),
            ("e", n) => Ok(Place::Edge(n)),
            ("c", n) => Ok(Place::Complete(n)),
            _ => Err(no()),
        }
    }
}

impl FromStr for Who {
    type Err = String;

    fn from_str(word: &str) -> Result<Who, String> {
        match word.strip_prefix('#') {
            Some(n) => n.parse().map(Who::Client).map_err(|_| format!("{word} is no client")),
            None => word.parse().map(Who::Node),
        }
    }
}

impl FromStr for By {
    type Err = String;

    fn from_str(word: &str) -> Result<By, String> {
        match word {
            "rtmp" => Ok(By::Rtmp),
            "webrtc" => Ok(By::Webrtc),
            "webrtc-tcp" => Ok(By::WebrtcTcp),
            "rtsp" => Ok(By::Rtsp),
            "rtsp-udp" => Ok(By::RtspUdp),
            "rtsps" => Ok(By::Rtsps),
            "rtmps" => Ok(By::Rtmps),
            "https" => Ok(By::Https),
            "ws" => Ok(By::Ws),
            "wss" => Ok(By::Wss),
            "managed" => Ok(By::Managed),
            _ => Err(format!("{word} is no protocol")),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::This => "this",
            Version::Older => "older",
            Version::Newer => "newer",
        })
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(word: &str) -> Result<Version, String> {
        match word {
            "this" => Ok(Version::This),
            "older" => Ok(Version::Older),
            "newer" => Ok(Version::Newer),
            _ => Err(format!("{word} is no version")),
        }
    }
}

impl FromStr for Behind {
    type Err = String;

    fn from_str(word: &str) -> Result<Behind, String> {
        match word {
            "home" => Ok(Behind::Home),
            "symmetric" => Ok(Behind::Symmetric),
            _ => Err(format!("{word} is no translator")),
        }
    }
}

fn publish(w: &mut Words<'_>) -> Result<Op, String> {
    let (client, by, at, stream) = (w.client()?, w.of()?, w.of()?, w.word()?.to_owned());
    let (mut how, mut behind) = (Publishing { again: None, ..Publishing::default() }, Behind::Nothing);
    w.settings(|name, value| match name {
        "again" => {
            how.again = Some(value.parse().ok()?);
            Some(())
        }
        "gop" => put(&mut how.gop, value),
        "bytes" => put(&mut how.bytes, value),
        "sound" => put(&mut how.sound, value),
        "order" => {
            how.order = match value {
                "plain" => Order::Plain,
                "pyramid" => Order::Pyramid,
                _ => return None,
            };
            Some(())
        }
        "behind" => put(&mut behind, value),
        _ => None,
    })?;
    Ok(Op::Publish { client, by, at, stream, how, behind })
}

fn quality(w: &mut Words<'_>) -> Result<Quality, String> {
    let mut q = Quality::default();
    w.settings(|name, value| match name {
        "latency" => put(&mut q.latency, value),
        "jitter" => put(&mut q.jitter, value),
        "loss" => put(&mut q.loss, value),
        "burst" => put(&mut q.burst, value),
        "twice" => put(&mut q.twice, value),
        "reorder" => put(&mut q.reorder, value),
        "corrupt" => put(&mut q.corrupt, value),
        "rate" => put(&mut q.rate, value),
        "mtu" => put(&mut q.mtu, value),
        _ => None,
    })?;
    Ok(q)
}

fn op(w: &mut Words<'_>) -> Result<Op, String> {
    Ok(match w.word()? {
        "publish" => publish(w)?,
        "play" => {
            let (client, by, at, stream) = (w.client()?, w.of()?, w.of()?, w.word()?.to_owned());
            let mut behind = Behind::Nothing;
            w.settings(|name, value| if name == "behind" { put(&mut behind, value) } else { None })?;
            Op::Play { client, by, at, stream, behind }
        }
        "leave" => Op::Leave(w.client()?),
        "silent" => Op::Silent(w.client()?, true),
        "loud" => Op::Silent(w.client()?, false),
        "reconnect" => Op::Reconnect(w.client()?),
        "switch" => Op::Switch(w.client()?, w.word()?.to_owned()),
        "elsewhere" => Op::Elsewhere(w.client()?, w.of()?),
        "read" => Op::Reading(w.client()?, true),
        "unread" => Op::Reading(w.client()?, false),
        "ask" => Op::Ask(w.of()?, w.word()?.to_owned()),
        "evil" => Op::Evil { client: w.client()?, kind: w.word()?.to_owned(), at: w.of()? },
        "crash" => Op::Crash(w.of()?),
        "start" => Op::Start(w.of()?),
        "replace" => Op::Replace(w.of()?, w.of()?),
        "drain" => Op::Drain(w.of()?),
        "cut" => Op::Cut(w.of()?),
        "heal" => Op::Heal(w.of()?),
        "part" => Op::Part(w.of()?, w.of()?),
        "oneway" => Op::OneWay(w.of()?, w.of()?),
        "join" => Op::Join(w.of()?, w.of()?),
        "degrade" => Op::Degrade(w.of()?, quality(w)?),
        "restore" => Op::Restore(w.of()?),
        "stall" => Op::Stall(w.of()?, w.of()?),
        "pause" => Op::Pause(w.of()?),
        "resume" => Op::Resume(w.of()?),
        "skew" => Op::Skew(w.of()?, w.of()?),
        "wall" => Op::Wall(w.of()?, w.of()?),
        "memory" => Op::Memory(w.of()?, w.of()?),
        "descriptors" => Op::Descriptors(w.of()?, w.of()?),
        "refuse" => Op::Refuse(w.of()?, w.of()?),
        "rebind" => Op::Rebind(w.client()?),
        "readdress" => Op::Readdress(w.client()?),
        other => return Err(w.wrong(format!("nothing is called {other}"))),
    })
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Plan, String> {
        let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("//"));
        let mut head = Words::new(lines.next().ok_or("there is no plan")?);
        if head.word()? != "plan" {
            return Err(head.wrong("a plan begins with `plan`; something else stands"));
        }
        let mut plan = Plan {
            seed: 0,
            origins: 1,
            edges: 1,
            complete: 0,
            regions: 1,
            span: 10_000,
            sites: false,
            quic: false,
            steps: Vec::new(),
        };
        head.settings(|name, value| match name {
            "seed" => put(&mut plan.seed, value),
            "origins" => put(&mut plan.origins, value),
            "edges" => put(&mut plan.edges, value),
            "complete" => put(&mut plan.complete, value),
            "regions" => put(&mut plan.regions, value),
            "span" => put(&mut plan.span, value),
            "sites" => put(&mut plan.sites, value),
            "quic" => put(&mut plan.quic, value),
            _ => None,
        })?;
        for line in lines {
            let mut words = Words::new(line);
            let at = words.of()?;
            let op = op(&mut words)?;
            words.end()?;
            plan.steps.push(Step { at, op });
        }
        plan.sort();
        Ok(plan)
    }
}
