//! `headwater bench pairings`: how many questions for a node a manager answers, and how long each waits.
//!
//! Questions are due at fixed times, whether or not the answers before have come, and a wait counts from when its question
//! was due: a manager that falls behind shows in the waits instead of slowing the generator down.

use super::host::used;
use super::line::{Target, status_of};
use crate::args::Pairings;
use crate::failure::Failure;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Streams that are asked for in turn.
const STREAMS: u64 = 10_000;

/// What is asked.
#[derive(Clone, Copy, Debug)]
enum Question {
    /// Is the process there?
    Healthz,
    /// Where shall I publish?
    Node,
}

/// What one thread saw.
#[derive(Debug, Default)]
struct Seen {
    /// Microseconds from when a question was due to the end of its answer.
    waits: Vec<u32>,
    /// Answers by status; 0: none came.
    statuses: BTreeMap<u16, u64>,
    /// Why the first of those did not come.
    trouble: Option<String>,
}

/// Asks the questions `first`, `first + step`, … at their times.
fn asks(
    args: &Pairings,
    target: &Target,
    question: Question,
    (start, seconds): (Instant, u64),
    (first, step): (u64, u64),
) -> Seen {
    let mut seen = Seen::default();
    let mut line = None;
    let mut buffer = Vec::new();
    let (_keep, clock) = mpsc::channel::<()>();
    let all = args.rate.saturating_mul(seconds);
    for n in (first..all).step_by(step as usize) {
        let due = start + Duration::from_nanos(n.saturating_mul(1_000_000_000) / args.rate);
        // Nobody ever says anything there: a wait until the question is due.
        let _ = clock.recv_timeout(due.saturating_duration_since(Instant::now()));
        let path = match question {
            Question::Healthz => "/healthz".to_owned(),
            Question::Node => format!("/streammanager/api/4.0/event/bench/s{}?action=broadcast", n % STREAMS),
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", target.host);
        if args.new_connections {
            line = None;
        }
        let answered = match &mut line {
            Some(line) => Ok(line),
            None => target.connect().map(|l| line.insert(l)),
        }
        .and_then(|line| line.ask(request.as_bytes(), &mut buffer))
        .and_then(|()| status_of(&buffer));
        let status = answered.unwrap_or_else(|e| {
            line = None;
            seen.trouble.get_or_insert(e.to_string());
            0
        });
        *seen.statuses.entry(status).or_default() += 1;
        seen.waits.push(due.elapsed().as_micros().try_into().unwrap_or(u32::MAX));
    }
    seen
}

/// Asks `question` at its times from all connections, and answers what was seen, the seconds that it took, and the
/// microseconds of the server's processor that each answer took.
fn phase(
    args: &Pairings,
    target: &Target,
    question: Question,
    seconds: u64,
) -> Result<(Seen, f64, Option<f64>), Failure> {
    let used = || args.pid.map(used).transpose().map_err(Failure::Running);
    let before = used()?;
    let start = Instant::now() + Duration::from_millis(200);
    let threads = args.connections.clamp(1, 1_024);
    let all: Vec<Seen> = thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|t| scope.spawn(move || asks(args, target, question, (start, seconds), (t, threads))))
            .collect();
        all.into_iter().filter_map(|t| t.join().ok()).collect()
    });
    let took = start.elapsed().as_secs_f64();
    let mut seen = all.into_iter().fold(Seen::default(), |mut a, mut b| {
        a.waits.append(&mut b.waits);
        b.statuses.into_iter().for_each(|(status, n)| *a.statuses.entry(status).or_default() += n);
        Seen { trouble: a.trouble.or(b.trouble), ..a }
    });
    seen.waits.sort_unstable();
    let spent = used()?.zip(before).map(|(after, before)| after.cpu - before.cpu);
    let each = spent.map(|s| s * 1e6 / seen.waits.len().max(1) as f64);
    Ok((seen, took, each))
}

fn waits(seen: &Seen) -> String {
    let at = |permille: usize| {
        let index = (seen.waits.len() * permille / 1_000).min(seen.waits.len().saturating_sub(1));
        seen.waits.get(index).map_or(0.0, |us| f64::from(*us) / 1_000.0)
    };
    format!(
        "p50 {:.2} ms  p90 {:.2} ms  p99 {:.2} ms  p99.9 {:.2} ms  longest {:.2} ms",
        at(500),
        at(900),
        at(990),
        at(999),
        at(1_000)
    )
}

/// Runs it and answers what to print.
///
/// # Errors
/// The address cannot be used, or a question was not answered with a node.
pub(crate) fn run(args: &Pairings) -> Result<String, Failure> {
    let target =
        Target::parse(&args.url).map_err(|e| Failure::Running(format!("--url {}: {e}", args.url)))?;
    // What the least of answers costs here and now, on the same connections: whatever a pairing takes beyond is its own.
    let (floor, _, least) = phase(args, &target, Question::Healthz, args.seconds.div_ceil(3))?;
    let (seen, took, each) = phase(args, &target, Question::Node, args.seconds)?;
    let good = seen.statuses.get(&200).copied().unwrap_or(0);
    let mut out = format!(
        "{good} pairings in {took:.2} s: {:.0} a second of {} asked for, {}\n\
         wait      {}\n\
         /healthz  {}\n",
        good as f64 / took,
        args.rate,
        if args.new_connections { "each on a new connection" } else { "on connections that are kept" },
        waits(&seen),
        waits(&floor),
    );
    if let (Some(each), Some(least)) = (each, least) {
        let _ = writeln!(
            out,
            "server    {each:.1} us of processor each, {:.2} times the {least:.1} us of /healthz",
            each / least.max(f64::MIN_POSITIVE)
        );
    }
    let bad: u64 = seen.statuses.iter().filter(|(s, _)| **s != 200).map(|(_, n)| n).sum();
    if bad > 0 {
        let statuses = &seen.statuses;
        let _ = writeln!(out, "{bad} were not answered with a node, by status (0: no answer): {statuses:?}");
        if let Some(why) = &seen.trouble {
            let _ = writeln!(out, "the first that was not answered: {why}");
        }
        return Err(Failure::Running(out.trim_end().to_owned()));
    }
    Ok(out)
}
