//! `headwater bench play`: publishes a made-up stream, has many play it, and says what came, how late, and what it cost.

mod floor;
pub(super) mod source;
mod tcp;
pub(super) mod whep;

use super::host::{self, Used};
use crate::args::BenchPlay;
use crate::failure::Failure;
use floor::Crowd;
use mio::{Events, Poll, Token};
use serde_json::{Value, json};
use source::{Published, Stream, wall};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// Of the players of each URL, so many read the stamps; the others only count.
const PROBES: usize = 4;
/// Players that are opened in a second.
const JOINS: u64 = 200;
/// How often players are let know that time passes.
const TICK: Duration = Duration::from_millis(20);
/// How long publisher and players may take to begin.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the bare costs are measured.
const FLOOR: Duration = Duration::from_secs(2);
/// After the last player has joined, until counting begins.
const SETTLE: Duration = Duration::from_secs(2);

/// Where something is published or played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    url: String,
    scheme: String,
    host: String,
    port: u16,
    path: String,
    pub(super) app: String,
    pub(super) name: String,
}

impl Place {
    pub(super) fn parse(url: &str) -> Result<Place, String> {
        let bad =
            || format!("{url} is no address such as rtmp://HOST/APP/NAME or http://HOST:5080/whep/APP/NAME");
        let uri: ureq::http::Uri = url.parse().map_err(|_| bad())?;
        let scheme = uri.scheme_str().ok_or_else(bad)?.to_owned();
        let host = uri.host().ok_or_else(bad)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let usual = match scheme.as_str() {
            "rtmp" => 1935,
            "http" => 80,
            other => return Err(format!("{url}: {other} is not among what can be measured: rtmp and http")),
        };
        let (app, name) = uri.path().trim_start_matches('/').rsplit_once('/').ok_or_else(bad)?;
        Ok(Place {
            url: url.to_owned(),
            host,
            port: uri.port_u16().unwrap_or(usual),
            path: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
            app: app.to_owned(),
            name: name.to_owned(),
            scheme,
        })
    }

    fn is_whep(&self) -> bool {
        self.scheme == "http" && !self.path.split('?').next().unwrap_or_default().ends_with(".flv")
    }
}

/// What a player got.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    bytes: u64,
    pub(super) packets: u64,
    pub(super) lost: u64,
    dead: bool,
}

enum Player {
    Whep(Box<whep::Player>),
    Tcp(Box<tcp::Player>),
}

impl Player {
    fn count(&self) -> &Count {
        match self {
            Player::Whep(p) => &p.count,
            Player::Tcp(p) => &p.count,
        }
    }

    fn begun(&self) -> bool {
        match self {
            Player::Whep(p) => p.connected,
            Player::Tcp(p) => p.count.bytes > 8_000,
        }
    }
}

/// Splits `URL` or `URL,N`.
pub(super) fn many(text: &str) -> Result<(Place, usize), String> {
    let (url, n) = match text.rsplit_once(',') {
        Some((url, n)) => {
            (url, n.parse().map_err(|_| format!("{text}: after the comma comes how many play"))?)
        }
        None => (text, 1),
    };
    Ok((Place::parse(url)?, n))
}

/// Publishes a stream and has something done while it runs.
///
/// # Errors
/// Nothing can be published there, it ended before, or what `work` says.
pub(super) fn with_stream<T>(
    url: &str,
    stream: Stream,
    work: impl FnOnce(&Place, &Published) -> Result<T, String>,
) -> Result<T, String> {
    let to = Place::parse(url)?;
    if to.scheme != "rtmp" {
        return Err(format!("{url}: the stream is published by rtmp"));
    }
    let published = Arc::new(Published::default());
    let publisher = {
        let (published, to) = (Arc::clone(&published), to.clone());
        thread::spawn(move || source::publish((&to.host, to.port, &to.app, &to.name), stream, &published))
    };
    let begun = Instant::now();
    while !published.ready.load(Relaxed) || published.pictures.load(Relaxed) < 2 {
        if publisher.is_finished() {
            let why = publisher.join().unwrap_or_else(|_| Err("a defect".to_owned()));
            return Err(format!("nothing is published: {}", why.err().unwrap_or_default()));
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("{url}: nothing is published after {PATIENCE:?}"));
        }
        thread::yield_now();
    }
    let done = work(&to, &published);
    published.over.store(true, Relaxed);
    let end = publisher.join().unwrap_or_else(|_| Err("a defect".to_owned()));
    let done = done?;
    end.map_err(|why| format!("the publisher ended: {why}"))?;
    Ok(done)
}

/// Runs it and answers what to print.
///
/// # Errors
/// Wrong addresses, a server that does not answer, or players that got nothing.
pub(crate) fn run(args: &BenchPlay) -> Result<String, Failure> {
    let plays = args.play.iter().map(|p| many(p)).collect::<Result<Vec<_>, _>>().map_err(Failure::Running)?;
    let opus = plays.iter().any(|(p, _)| p.is_whep());
    let stream = Stream { fps: args.fps, kbps: args.kbps, opus };
    let measured = with_stream(&args.publish, stream, |_, published| measure(args, &plays, published));
    let report = measured.map_err(Failure::Running)?;
    if args.json { Ok(format!("{report}\n")) } else { Ok(table(&report)) }
}

/// Players, and the thread that serves them.
pub(super) struct Load {
    poll: Poll,
    events: Events,
    players: Vec<Player>,
    pub(super) latencies: Vec<u64>,
    buffer: Vec<u8>,
    ticked: Instant,
}

impl Load {
    /// Opens players and waits until each has got something.
    ///
    /// # Errors
    /// Some did not.
    pub(super) fn open(plays: &[(Place, usize)]) -> Result<Load, String> {
        let mut load = Load {
            poll: Poll::new().map_err(|e| e.to_string())?,
            events: Events::with_capacity(1_024),
            players: Vec::new(),
            latencies: Vec::new(),
            buffer: vec![0; 64 << 10],
            ticked: Instant::now(),
        };
        for (place, n) in plays {
            for nth in 0..*n {
                let (token, registry) = (Token(load.players.len()), load.poll.registry());
                let probe = nth < PROBES;
                let player = match place.is_whep() {
                    true => Player::Whep(Box::new(whep::Player::open(place, probe, token, registry)?)),
                    false => Player::Tcp(Box::new(tcp::Player::open(place, probe, token, registry)?)),
                };
                load.players.push(player);
                load.until(Instant::now() + Duration::from_millis(1_000 / JOINS))?;
            }
        }
        let begun = Instant::now();
        while load.players.iter().any(|p| !p.begun() && !p.count().dead) && begun.elapsed() < PATIENCE {
            load.until(Instant::now() + TICK)?;
        }
        load.until(Instant::now() + SETTLE)?;
        let silent = load.players.iter().filter(|p| !p.begun()).count();
        if silent > 0 {
            return Err(format!("{silent} of {} players got nothing after {PATIENCE:?}", load.players.len()));
        }
        Ok(load)
    }

    /// How many were opened, and how many of them ended.
    pub(super) fn players(&self) -> (usize, usize) {
        (self.players.len(), self.players.iter().filter(|p| p.count().dead).count())
    }

    /// Lets players take what comes, until `end`.
    pub(super) fn until(&mut self, end: Instant) -> Result<(), String> {
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            let wait = (self.ticked + TICK).min(end).saturating_duration_since(now);
            match self.poll.poll(&mut self.events, Some(wait)) {
                Err(e) if e.kind() != std::io::ErrorKind::Interrupted => return Err(e.to_string()),
                _ => {}
            }
            for event in &self.events {
                match self.players.get_mut(event.token().0) {
                    Some(Player::Whep(p)) => p.ready(&mut self.buffer, &mut self.latencies),
                    Some(Player::Tcp(p)) => p.ready(&mut self.buffer, wall(), &mut self.latencies),
                    None => {}
                }
            }
            let now = Instant::now();
            if now >= self.ticked + TICK {
                self.ticked = now;
                for player in &mut self.players {
                    if let Player::Whep(p) = player {
                        p.tick(now, &mut self.latencies);
                    }
                }
            }
        }
    }

    /// What all have got.
    pub(super) fn sum(&self) -> Count {
        self.players.iter().map(Player::count).fold(Count::default(), |a, b| Count {
            bytes: a.bytes + b.bytes,
            packets: a.packets + b.packets,
            lost: a.lost + b.lost,
            dead: a.dead || b.dead,
        })
    }
}

fn measure(args: &BenchPlay, plays: &[(Place, usize)], published: &Published) -> Result<Value, String> {
    let number = |whep: bool| plays.iter().filter(|(p, _)| p.is_whep() == whep).map(|(_, n)| n).sum();
    let floor = floor::measure(&Crowd {
        by_udp: number(true),
        by_tcp: number(false),
        picture: (args.kbps * 125 / args.fps) as usize,
        fps: args.fps,
        pid: args.pid,
        span: FLOOR,
    })?;
    // Of everybody together, as the server's figures are.
    let bare = |udp: Option<f64>, tcp: Option<f64>| {
        let of = |each: Option<f64>, n: usize| each.unwrap_or(0.0) * n as f64;
        (of(udp, number(true)) + of(tcp, number(false))) / plays.iter().map(|(_, n)| *n).sum::<usize>() as f64
    };
    let least = bare(floor.sealed, floor.written);
    let used = || args.pid.map_or(Ok(Used::default()), host::used);
    let before = used()?;
    let mut load = Load::open(plays)?;
    load.latencies.clear();
    let (start, first, cpu) = (Instant::now(), load.sum(), used()?);
    let sent = published.bytes.load(Relaxed);
    load.until(start + Duration::from_secs(args.seconds))?;
    let (seconds, last, end) = (start.elapsed().as_secs_f64(), load.sum(), used()?);
    let sent = published.bytes.load(Relaxed) - sent;
    let (n, ended) = load.players();
    let n = n as f64;
    let (bytes, packets) = (last.bytes - first.bytes, last.packets - first.packets);
    let mut ages = std::mem::take(&mut load.latencies);
    ages.sort_unstable();
    let at =
        |share: f64| ages.get((ages.len() as f64 * share) as usize).or(ages.last()).map(|n| *n as f64 / 1e6);
    let each = |all: f64, by: f64| (args.pid.is_some() && by > 0.0).then_some(all / by);
    let spent = end.cpu - cpu.cpu;
    Ok(json!({
        "players": n as u64,
        "ended": ended,
        "seconds": seconds,
        "published_bytes": sent,
        "delivered": bytes as f64 / (sent as f64 * n).max(1.0),
        "megabits_per_s": bytes as f64 * 8.0 / seconds / 1e6,
        "packets": packets,
        "lost": last.lost - first.lost,
        "latency_ms": { "p50": at(0.5), "p99": at(0.99), "most": at(1.0), "samples": ages.len() },
        "server": {
            "cpu_share": args.pid.map(|_| spent / seconds),
            "us_per_viewer_second": each(spent * 1e6, n * seconds),
            "us_per_packet": each(spent * 1e6, packets as f64),
            "cpu_s_per_gb": each(spent, bytes as f64 / 1e9),
            "kib_per_viewer": each((end.kib as f64) - (before.kib as f64), n),
        },
        "floor": {
            "us_per_viewer_second": least,
            "seal_and_send_us_per_viewer_second": floor.sealed,
            "write_us_per_viewer_second": floor.written,
            "own_functions_times": floor.ours.zip(floor.sealed).map(|(ours, bare)| ours / bare),
            "server_times": each(spent * 1e6 / least, n * seconds),
        },
    }))
}

/// The report for people.
fn table(report: &Value) -> String {
    let mut out = String::new();
    let mut row = |what: &str, pointer: &str, unit: &str| {
        let text = match report.pointer(pointer) {
            Some(Value::Number(n)) if n.is_f64() => format!("{:.3}", n.as_f64().unwrap_or(0.0)),
            Some(Value::Null) | None => "not measured".to_owned(),
            Some(other) => other.to_string(),
        };
        let _ = writeln!(out, "{what:<42} {text:>14} {unit}");
    };
    row("players", "/players", "");
    row("of these ended early", "/ended", "");
    row("bytes got, of those published", "/delivered", "(headers count: a little above 1 is all)");
    row("rate of all together", "/megabits_per_s", "Mbit/s");
    row("packets of pictures lost (WHEP)", "/lost", "");
    row("picture's age when it came, median", "/latency_ms/p50", "ms");
    row("99 of 100 came within", "/latency_ms/p99", "ms");
    row("server: processor", "/server/cpu_share", "cores");
    row("server: each viewer", "/server/us_per_viewer_second", "us of processor a second");
    row("server: each packet (WHEP)", "/server/us_per_packet", "us of processor");
    row("server: each gigabyte", "/server/cpu_s_per_gb", "s of processor");
    row("server: memory grown by, each viewer", "/server/kib_per_viewer", "KiB");
    row(
        "bare cost here: sealing, GSO messages",
        "/floor/seal_and_send_us_per_viewer_second",
        "us of processor a second",
    );
    row(
        "bare cost here: shared bytes written",
        "/floor/write_us_per_viewer_second",
        "us of processor a second",
    );
    row("our sealing and sending by itself", "/floor/own_functions_times", "times the bare cost (WHEP)");
    row("server: all that it does", "/floor/server_times", "times the bare cost");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let (place, n) = many("http://127.0.0.1:5080/whep/live/a,200").unwrap();
        assert!(n == 200 && place.is_whep() && place.port == 5080);
        let (place, n) = many("rtmp://h/live/b/c").unwrap();
        assert_eq!((n, place.port, place.app.as_str(), place.name.as_str()), (1, 1935, "live/b", "c"));
        assert!(!many("http://h/flv/live/a.flv?audio=opus,3").unwrap().0.is_whep());
        assert!(many("srt://h/a/b").unwrap_err().contains("rtmp and http"));
        assert!(many("http://h/whep/a,x").is_err() && Place::parse("x").is_err());
    }

    #[test]
    fn a_report_without_a_process_says_that_it_was_not_measured() {
        let text = table(&json!({ "players": 3, "server": { "cpu_share": null }, "delivered": 1.0 }));
        assert!(text.contains("not measured") && text.contains("1.000"), "{text}");
    }
}
