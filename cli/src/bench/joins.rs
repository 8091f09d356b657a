//! `headwater bench joins`: viewers who come and go, whole: a new TLS connection, the manager's answer, WHEP, ICE, DTLS, the
//! first picture. Others watch all the while, and nothing of theirs may be lost.
//!
//! Joins are due at fixed times, as the questions of [`super::pairings`] are.

use super::host::used;
use super::line::{Line, Target, header, split, status_of};
use super::play::source::{Stream, ages, wall};
use super::play::{Load, Place, many, whep, with_stream};
use crate::args::BenchJoins;
use crate::failure::Failure;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use str0m::net::{Protocol, Receive};
use str0m::{Event, Input, Output, Rtc};

/// A join that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pictures a second.
const FPS: u64 = 30;

/// How long each part of a join took, from when it was due.
#[derive(Clone, Copy, Debug)]
struct Joined {
    /// To the manager's answer, TLS included.
    paired: Duration,
    /// To the answer to the offer.
    answered: Duration,
    /// To the first picture.
    seen: Duration,
}

/// What one thread saw.
#[derive(Debug, Default)]
struct Seen {
    joined: Vec<Joined>,
    failed: u64,
    /// Why the first of those did.
    trouble: Option<String>,
}

/// Asks, and takes the answer if it has the status `wanted`: its head and body.
fn ask(line: &mut Line, request: &str, wanted: u16) -> Result<(String, String), String> {
    let mut answer = Vec::new();
    line.ask(request.as_bytes(), &mut answer).map_err(|e| e.to_string())?;
    let status = status_of(&answer).map_err(|e| e.to_string())?;
    let (head, body) = split(&answer).unwrap_or_default();
    let body = String::from_utf8_lossy(body).into_owned();
    if status != wanted {
        return Err(format!("answered {status}: {}", body.trim()));
    }
    Ok((head, body))
}

/// Serves a session until it has decrypted a picture's beginning.
fn first_picture(rtc: &mut Rtc, socket: &UdpSocket, local: SocketAddr, end: Instant) -> Result<(), String> {
    let mut buffer = [0; 2_048];
    loop {
        let wake = loop {
            match rtc.poll_output().map_err(|e| e.to_string())? {
                Output::Timeout(at) => break at,
                Output::Transmit(t) => drop(socket.send_to(&t.contents, t.destination)),
                Output::Event(Event::RtpPacket(p)) if ages(&p.payload, wall()).next().is_some() => {
                    return Ok(());
                }
                Output::Event(_) => {}
            }
        };
        let now = Instant::now();
        if now >= end {
            return Err(format!("no picture within {PATIENCE:?}"));
        }
        // A timeout of nothing would be for ever.
        let wait = wake.min(end).saturating_duration_since(now).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(wait)).map_err(|e| e.to_string())?;
        let input = match socket.recv_from(&mut buffer) {
            Ok((n, from)) => {
                let bytes = buffer.get(..n).unwrap_or_default();
                let Ok(receive) = Receive::new(Protocol::Udp, from, local, bytes) else { continue };
                Input::Receive(Instant::now(), receive)
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Input::Timeout(Instant::now())
            }
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionRefused) => continue,
            Err(e) => return Err(e.to_string()),
        };
        rtc.handle_input(input).map_err(|e| e.to_string())?;
    }
}

/// One join, and the end of it.
fn join(manager: &Target, stream: &str, due: Instant) -> Result<Joined, String> {
    let at = |what: &str, e: String| format!("{what}: {e}");
    let mut line = manager.connect().map_err(|e| at("no connection to the manager", e.to_string()))?;
    let question = format!(
        "GET /streammanager/api/4.0/event/{stream}?action=subscribe HTTP/1.1\r\nHost: {}\r\n\r\n",
        manager.host
    );
    let (_, body) = ask(&mut line, &question, 200).map_err(|e| at("the manager", e))?;
    let paired = due.elapsed();
    let node: Value = serde_json::from_str(&body).map_err(|e| at("the manager's answer", e.to_string()))?;
    let url =
        node.pointer("/urls/whep").and_then(Value::as_str).ok_or("the manager names no URL for WHEP")?;
    let (base, path) = match url.match_indices('/').nth(2) {
        Some((slash, _)) => url.split_at(slash),
        None => (url, "/"),
    };
    let edge = manager.at(base)?;
    if edge.addr != manager.addr {
        line = edge.connect().map_err(|e| at("no connection to the edge", e.to_string()))?;
    }
    let fail = |e: std::io::Error| format!("a UDP socket cannot be had: {e}");
    let socket = UdpSocket::bind((whep::own_address(edge.addr).map_err(fail)?, 0)).map_err(fail)?;
    let local = socket.local_addr().map_err(fail)?;
    let (mut rtc, offer, pending) = whep::offer(local)?;
    let host = &edge.host;
    let post = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{offer}",
        offer.len()
    );
    let (head, answer) = ask(&mut line, &post, 201).map_err(|e| at("WHEP", e))?;
    let resource = header(&head, "location").ok_or("the answer to the offer has no Location")?;
    whep::accept(&mut rtc, pending, &answer)?;
    let answered = due.elapsed();
    first_picture(&mut rtc, &socket, local, due + PATIENCE)?;
    let seen = due.elapsed();
    let leave = format!("DELETE {resource} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    ask(&mut line, &leave, 200).map_err(|e| at("leaving", e))?;
    Ok(Joined { paired, answered, seen })
}

/// Makes the joins `first`, `first + step`, … at their times.
fn joins(
    args: &BenchJoins,
    manager: &Target,
    stream: &str,
    start: Instant,
    (first, step): (u64, u64),
) -> Seen {
    let mut seen = Seen::default();
    let (_keep, clock) = mpsc::channel::<()>();
    for n in (first..args.rate.saturating_mul(args.seconds)).step_by(step as usize) {
        let due = start + Duration::from_nanos(n.saturating_mul(1_000_000_000) / args.rate);
        // Nobody ever says anything there: a wait until the join is due.
        let _ = clock.recv_timeout(due.saturating_duration_since(Instant::now()));
        match join(manager, stream, due) {
            Ok(joined) => seen.joined.push(joined),
            Err(why) => {
                seen.failed += 1;
                seen.trouble.get_or_insert(why);
            }
        }
    }
    seen
}

/// What those who watch got in a while, and what the server spent in it.
struct Watched {
    packets: u64,
    lost: u64,
    ended: usize,
    ages: Vec<u64>,
    cpu: Option<f64>,
    seconds: f64,
}

/// Lets all watch until `done` says that it is enough.
fn watch(load: &mut Load, pid: Option<u32>, done: impl Fn() -> bool) -> Result<Watched, String> {
    let used = || pid.map(used).transpose();
    load.latencies.clear();
    let (begun, first, before) = (Instant::now(), load.sum(), used()?);
    while !done() {
        load.until(Instant::now() + Duration::from_millis(50))?;
    }
    let (last, after) = (load.sum(), used()?);
    let mut ages = std::mem::take(&mut load.latencies);
    ages.sort_unstable();
    Ok(Watched {
        packets: last.packets - first.packets,
        lost: last.lost - first.lost,
        ended: load.players().1,
        ages,
        cpu: after.zip(before).map(|(a, b)| a.cpu - b.cpu),
        seconds: begun.elapsed().as_secs_f64(),
    })
}

/// The share `permille` of values that are in order.
fn at<T: Copy>(sorted: &[T], permille: usize) -> Option<T> {
    sorted.get((sorted.len() * permille / 1_000).min(sorted.len().saturating_sub(1))).copied()
}

fn ms(all: impl Iterator<Item = Duration>) -> String {
    let mut all: Vec<f64> = all.map(|d| d.as_secs_f64() * 1e3).collect();
    all.sort_by(f64::total_cmp);
    let [p50, p99, most] = [500, 990, 1_000].map(|p| at(&all, p).unwrap_or(0.0));
    format!("p50 {p50:.1} ms  p99 {p99:.1} ms  longest {most:.1} ms")
}

fn watchers(what: &str, n: usize, w: &Watched) -> String {
    let [p50, p99] = [500, 990].map(|p| at(&w.ages, p).map_or(0.0, |ns| ns as f64 / 1e6));
    format!(
        "{what:<12} {n} watch: {} packets, {} lost, {} ended; pictures' age p50 {p50:.1} ms  p99 {p99:.1} ms{}",
        w.packets,
        w.lost,
        w.ended,
        w.cpu.map(|cpu| format!("; server {:.3} cores", cpu / w.seconds)).unwrap_or_default()
    )
}

fn measure(
    args: &BenchJoins,
    manager: &Target,
    watch_at: &[(Place, usize)],
    to: &Place,
) -> Result<String, String> {
    let stream = format!("{}/{}", to.app, to.name);
    let mut load = Load::open(watch_at)?;
    let alone_until = Instant::now() + Duration::from_secs(args.seconds);
    let alone = watch(&mut load, args.pid, || Instant::now() >= alone_until)?;
    let start = Instant::now() + Duration::from_millis(100);
    let (seen, together) = thread::scope(|scope| {
        let stream = &stream;
        let step = args.at_once;
        let all: Vec<_> = (0..step)
            .map(|first| scope.spawn(move || joins(args, manager, stream, start, (first, step))))
            .collect();
        let together = watch(&mut load, args.pid, || all.iter().all(|t| t.is_finished()));
        let seen = all.into_iter().filter_map(|t| t.join().ok()).fold(Seen::default(), |mut a, mut b| {
            a.joined.append(&mut b.joined);
            Seen { failed: a.failed + b.failed, trouble: a.trouble.or(b.trouble), ..a }
        });
        (seen, together)
    });
    let together = together?;
    let (n, joined) = (load.players().0, &seen.joined);
    let mut out = format!(
        "{} joins in {:.2} s: {:.1} a second of {} asked for\n",
        joined.len(),
        together.seconds,
        joined.len() as f64 / together.seconds,
        args.rate
    );
    let _ = writeln!(out, "paired         {}", ms(joined.iter().map(|j| j.paired)));
    let _ = writeln!(out, "answered       {}", ms(joined.iter().map(|j| j.answered)));
    let _ = writeln!(out, "first picture  {}", ms(joined.iter().map(|j| j.seen)));
    let _ = writeln!(out, "{}", watchers("before", n, &alone));
    let _ = writeln!(out, "{}", watchers("during joins", n, &together));
    if let (Some(before), Some(during)) = (alone.cpu, together.cpu) {
        let spent = during - before * together.seconds / alone.seconds;
        let each = spent / (joined.len().max(1) as f64);
        let _ = writeln!(
            out,
            "server         {:.2} ms of processor a join: {:.0} joins a second and core",
            each * 1e3,
            1.0 / each.max(f64::MIN_POSITIVE)
        );
    }
    match seen.failed {
        0 => Ok(out),
        failed => {
            let why = seen.trouble.unwrap_or_default();
            Err(format!("{out}{failed} joins failed; the first of them: {why}"))
        }
    }
}

/// Runs it and answers what to print.
///
/// # Errors
/// Wrong addresses, a server that does not answer, or a join that failed.
pub(crate) fn run(args: &BenchJoins) -> Result<String, Failure> {
    let wrong = Failure::Running;
    let watch_at = args.watch.iter().map(|w| many(w)).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    let manager =
        Target::parse(&args.manager).map_err(|e| wrong(format!("--manager {}: {e}", args.manager)))?;
    let stream = Stream { fps: FPS, kbps: args.kbps, opus: true };
    with_stream(&args.publish, stream, |to, _| measure(args, &manager, &watch_at, to)).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_few_values_are_the_nearest_ones() {
        assert_eq!((at(&[1, 2, 3, 4], 500), at(&[7], 990), at::<u8>(&[], 990)), (Some(3), Some(7), None));
        let text = ms([3, 1, 2].into_iter().map(Duration::from_millis));
        assert_eq!(text, "p50 2.0 ms  p99 3.0 ms  longest 3.0 ms");
    }
}
