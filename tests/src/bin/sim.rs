//! The simulator: runs whole clusters from seeds, looks for faults, and makes what it finds small.
#![forbid(unsafe_code)]
// It measures real time and makes threads; the bans of clippy.toml are for the core.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use clap::{Parser, Subcommand, ValueEnum};
use determinism::os::count::Counting;
use headwater_tests::sim::clock;
use headwater_tests::sim::generate::{self, of_seed};
use headwater_tests::sim::links;
use headwater_tests::sim::loss::{Lossy, Quality, clean, measure};
use headwater_tests::sim::plan::Plan;
use headwater_tests::sim::report::{columns, examine};
use headwater_tests::sim::run::{Outcome, run};
use headwater_tests::soak;
use headwater_tests::world::Violation;
use headwater_tests::world::check::planted;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the heap of a node holds is asked by `soak` only.
#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Whole clusters in virtual time, from seeds.
#[derive(Parser)]
#[command(name = "sim")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

/// What kind of runs.
#[derive(Clone, Copy, ValueEnum)]
enum Profile {
    /// Everything.
    Full,
    /// 3 origins, 3 edges, nine WebRTC sessions for 36 s, faults.
    Bar,
    /// A few seconds.
    Short,
}

impl From<Profile> for generate::Profile {
    fn from(profile: Profile) -> generate::Profile {
        match profile {
            Profile::Full => generate::Profile::Full,
            Profile::Bar => generate::Profile::Bar,
            Profile::Short => generate::Profile::Short,
        }
    }
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Profile::Full => "full",
            Profile::Bar => "bar",
            Profile::Short => "short",
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Runs one seed, or a plan.
    Run {
        /// The seed.
        #[arg(default_value_t = 0)]
        seed: u64,
        /// What kind of run.
        #[arg(long, default_value = "full")]
        profile: Profile,
        /// A file with a plan, in place of a generated one.
        #[arg(long)]
        plan: Option<PathBuf>,
        /// Print the whole log.
        #[arg(long)]
        verbose: bool,
        /// If it fails: make it small for so many seconds.
        #[arg(long, default_value_t = 0)]
        shrink: u64,
    },
    /// Prints the plan of a seed.
    Plan {
        /// The seed.
        seed: u64,
        /// What kind of run.
        #[arg(long, default_value = "full")]
        profile: Profile,
    },
    /// Runs many seeds and stops at the first that fails.
    Sweep {
        /// Which: A..B.
        #[arg(long, default_value = "0..18446744073709551615", value_parser = range)]
        seeds: Range<u64>,
        /// Stop after so many seconds.
        #[arg(long)]
        seconds: Option<u64>,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// What kind of runs.
        #[arg(long, default_value = "full")]
        profile: Profile,
        /// Go on after failures; each is told in a line.
        #[arg(long)]
        keep_going: bool,
    },
    /// Plays a day of joins and leaves, and looks at what is left of it.
    Soak {
        /// Hours of virtual time, without those in which everybody has left.
        #[arg(long, default_value_t = 24.0)]
        hours: f64,
        /// How often everybody leaves.
        #[arg(long, default_value_t = 4)]
        laps: usize,
        /// Joins a second.
        #[arg(long, default_value_t = 1.0)]
        joins: f64,
        /// Of who comes when.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Prints seeds and the hashes of their runs.
    Hash {
        /// Which: A..B.
        #[arg(value_parser = range)]
        seeds: Range<u64>,
        /// What kind of runs.
        #[arg(long, default_value = "short")]
        profile: Profile,
    },
    /// Runs each seed twice and points at the first difference.
    Twice {
        /// Which: A..B.
        #[arg(value_parser = range)]
        seeds: Range<u64>,
        /// What kind of runs.
        #[arg(long, default_value = "full")]
        profile: Profile,
    },
    /// Proves that the checkers see each planted bug.
    Planted {
        /// Only this one.
        name: Option<String>,
    },
    /// What a viewer by WHEP sees of a publisher by WHIP over links that lose: the table of docs/loss.md.
    Loss {
        /// Virtual seconds of each run.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Runs of each kind, with other seeds.
        #[arg(long, default_value_t = 5)]
        seeds: u64,
        /// The first of these seeds.
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// Only this share lost, per cent.
        #[arg(long)]
        percent: Option<u8>,
        /// Only this link.
        #[arg(long)]
        link: Option<String>,
        /// Tells of each freeze over 300 ms.
        #[arg(long)]
        story: bool,
    },
    /// How far sound and picture are apart at players of all protocols after an hour, with clocks that differ.
    Clock {
        /// Virtual seconds of each run.
        #[arg(long, default_value_t = 3_600)]
        seconds: u64,
        /// The seed.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// What a link between two nodes does to 50 streams over a way of 100 ms that loses packets: our congestion control, and
    /// the loss-based one that TCP has too.
    Links {
        /// Virtual seconds of each run.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// The seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// The measure: 2,000 seeds of profile `bar`.
    Bench {
        /// Seeds.
        #[arg(long, default_value_t = 2_000)]
        seeds: u64,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
}

/// The worst of several runs of each kind.
fn losses(time: Duration, (first, seeds): (u64, u64), only: Option<u8>, link: Option<&str>, tell: bool) {
    println!(
        "| loss | link | pictures shown | longest freeze | freezes over 300 ms in 10 min | sent again |\n|---|---|---|---|---|---|"
    );
    let seeds = seeds.max(1);
    let clean: Vec<_> = each(seeds, |s| clean(first + s, time));
    let wanted = |l: &Lossy| link.is_none_or(|only| l.to_string() == only);
    for percent in [0, 1, 2, 5].into_iter().filter(|p| only.is_none_or(|only| only == *p)) {
        for lossy in Lossy::ALL.into_iter().filter(wanted) {
            let share = f64::from(percent) / 100.0;
            let all: Vec<Quality> =
                each(seeds, |s| measure(first + s, lossy, share, time, clean[s as usize]));
            let shown = all.iter().map(|q| q.shown).fold(1.0, f64::min) * 100.0;
            let freeze = all.iter().map(|q| q.freeze).max().unwrap_or_default().as_millis();
            let again = all.iter().map(|q| q.again).fold(0.0, f64::max) * 100.0;
            let count: usize = all.iter().map(|q| q.freezes.len()).sum();
            let often = count as f64 * 600.0 / (time.as_secs_f64() * seeds as f64);
            println!("| {percent} % | {lossy} | {shown:.2} % | {freeze} ms | {often:.1} | {again:.1} % |");
            for (seed, quality) in (first..).zip(&all).filter(|_| tell) {
                for f in &quality.freezes {
                    println!(
                        "  seed {seed}: {} ms at {} ms ({} ms for a viewer on a clean link), {} pictures left out",
                        f.long.as_millis(),
                        f.at.as_millis(),
                        f.before.as_millis(),
                        f.left_out
                    );
                    f.story.iter().for_each(|line| println!("    {line}"));
                }
            }
        }
    }
}

/// Each publisher with all players, its sound fast and slow; the wraps of 32 bits come at half time.
fn clocks(seed: u64, time: Duration) -> bool {
    println!("| from | sound's clock | to | pictures | farthest apart |\n|---|---|---|---|---|");
    let mut good = true;
    for from in clock::From::ALL {
        for ppm in [100, -100] {
            let (seen, sent) = clock::measure(seed, from, ppm, time / 2, time);
            for player in seen {
                let apart = player.apart.as_secs_f64() * 1e3;
                let whole = player.pictures as u64 + 50 >= sent;
                good &= whole && player.apart <= clock::APART;
                println!(
                    "| {from} | {ppm:+} ppm | {} | {} of {sent} | {apart:.1} ms |",
                    player.by, player.pictures
                );
            }
        }
    }
    good
}

/// Does something for each number, on two threads.
fn each<T: Send>(count: u64, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    let result = run(n);
                    done.lock().unwrap_or_else(|e| e.into_inner()).push((n, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, result)| result).collect()
}

/// One row for each control, loss and rate.
fn crossings(seed: u64, time: Duration) {
    println!(
        "| control | loss | link | median | p99 | p99 of the worst stream | longest | frames that came | streams held up at \
         once | sent per byte |\n|---|---|---|---|---|---|---|---|---|---|"
    );
    for (loss, mbps) in [(0.0, 1_000), (0.005, 1_000), (0.02, 1_000), (0.0, 130), (0.005, 130)] {
        for stock in [false, true] {
            let round_trip = Duration::from_millis(100);
            let way = links::Way { streams: 50, round_trip, loss, mbps, stock };
            let c = links::measure(seed, way, time);
            let control = if stock { "Cubic" } else { "rate" };
            let ms = |d: Duration| d.as_millis();
            println!(
                "| {control} | {} % | {mbps} Mbit/s | {} ms | {} ms | {} ms | {} ms | {:.2} % | {} | {:.3} |",
                loss * 100.0,
                ms(c.median),
                ms(c.p99),
                ms(c.worst_p99),
                ms(c.longest),
                c.came * 100.0,
                c.together,
                c.sent
            );
        }
    }
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let number = |n: &str| n.parse::<u64>().map_err(|e| format!("{n}: {e}"));
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => number(text).map(|n| n..n.saturating_add(1)),
    }
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Run { seed, profile, plan, verbose, shrink } => one(seed, profile, plan, verbose, shrink),
        Command::Plan { seed, profile } => {
            print!("{}", of_seed(seed, profile.into()));
            Ok(true)
        }
        Command::Sweep { seeds, seconds, jobs, profile, keep_going } => {
            sweep(seeds, seconds, jobs, profile, keep_going)
        }
        Command::Soak { hours, laps, joins, seed } => {
            let whole = hours > 0.0 && joins > 0.0 && laps > 0;
            let day = if whole {
                soak::simulated::play(hours, laps, joins, seed)
            } else {
                Err("--hours, --joins and --laps must be above 0".to_owned())
            };
            day.map(|day| day.tell())
        }
        Command::Hash { seeds, profile } => hashes(seeds, profile),
        Command::Twice { seeds, profile } => twice(seeds, profile),
        Command::Planted { name } => planted_bugs(name.as_deref()),
        Command::Loss { seconds, seeds, first, percent, link, story } => {
            losses(Duration::from_secs(seconds), (first, seeds), percent, link.as_deref(), story);
            Ok(true)
        }
        Command::Clock { seconds, seed } => Ok(clocks(seed, Duration::from_secs(seconds))),
        Command::Links { seconds, seed } => {
            crossings(seed, Duration::from_secs(seconds));
            Ok(true)
        }
        Command::Bench { seeds, jobs } => sweep(0..seeds, None, jobs, Profile::Bar, false),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("sim: {why}");
            ExitCode::FAILURE
        }
    }
}

fn told(outcome: &Outcome) -> String {
    let Outcome { hash, time, events, packets, sessions, .. } = outcome;
    format!(
        "hash {hash:016x}  {time} virtual  {events} events  {packets} media packets  {sessions} WebRTC clients"
    )
}

fn one(
    seed: u64,
    profile: Profile,
    file: Option<PathBuf>,
    verbose: bool,
    shrink: u64,
) -> Result<bool, String> {
    let (plan, replay) = match file {
        None => (of_seed(seed, profile.into()), format!("cargo sim run {seed} --profile {}", profile.name())),
        Some(path) => {
            let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            (text.parse::<Plan>()?, format!("cargo sim run --plan {}", path.display()))
        }
    };
    let began = Instant::now();
    let outcome = run(&plan, true)?;
    if verbose {
        print!("{}", columns(&outcome.log, usize::MAX));
    }
    println!("{}  {} ms", told(&outcome), began.elapsed().as_millis());
    let Some(violation) = &outcome.violation else { return Ok(true) };
    print!("{}", examine(&plan, violation, Duration::from_secs(shrink))?.text(&replay));
    Ok(false)
}

/// What all runs of a sweep had together.
#[derive(Default)]
struct Totals {
    seeds: AtomicU64,
    virtual_ms: AtomicU64,
    events: AtomicU64,
    packets: AtomicU64,
    sessions: AtomicU64,
}

impl Totals {
    fn add(&self, outcome: &Outcome) {
        let all = [
            (&self.seeds, 1),
            (&self.virtual_ms, outcome.time.as_millis()),
            (&self.events, outcome.events),
            (&self.packets, outcome.packets),
            (&self.sessions, outcome.sessions),
        ];
        for (total, n) in all {
            total.fetch_add(n, Ordering::Relaxed);
        }
    }

    fn text(&self, took: Duration, jobs: usize) -> String {
        let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let (seeds, seconds) = (of(&self.seeds), took.as_secs_f64());
        let each = |n: &AtomicU64| of(n) as f64 / seeds.max(1) as f64;
        format!(
            "{seeds} seeds in {seconds:.1} s: {:.2} a second, {:.3} s of a thread each ({jobs} threads); {:.0} \
             virtual seconds a second; each {:.1} virtual s, {:.0} events, {:.0} media packets, {:.1} WebRTC clients",
            seeds as f64 / seconds,
            seconds * jobs as f64 / seeds.max(1) as f64,
            of(&self.virtual_ms) as f64 / 1_000.0 / seconds,
            each(&self.virtual_ms) / 1_000.0,
            each(&self.events),
            each(&self.packets),
            each(&self.sessions),
        )
    }
}

fn sweep(
    seeds: Range<u64>,
    seconds: Option<u64>,
    jobs: usize,
    profile: Profile,
    keep_going: bool,
) -> Result<bool, String> {
    let (began, jobs) = (Instant::now(), jobs.max(1));
    let until = seconds.map(|s| began + Duration::from_secs(s));
    let (next, stop, totals) = (AtomicU64::new(seeds.start), AtomicBool::new(false), Totals::default());
    let found: Mutex<Vec<(u64, Result<Violation, String>)>> = Mutex::default();
    let worker = || {
        while !stop.load(Ordering::Relaxed) && until.is_none_or(|t| Instant::now() < t) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let wrong = match run(&of_seed(seed, profile.into()), false) {
                Err(why) => Some(Err(why)),
                Ok(outcome) => {
                    totals.add(&outcome);
                    outcome.violation.map(Ok)
                }
            };
            if totals.seeds.load(Ordering::Relaxed).is_multiple_of(100) {
                println!("{}", totals.text(began.elapsed(), jobs));
            }
            if let Some(wrong) = wrong {
                if let Ok(v) = &wrong {
                    println!("seed {seed}: {} is broken at {}: {}", v.invariant, v.at, v.text);
                }
                stop.fetch_or(!keep_going || wrong.is_err(), Ordering::Relaxed);
                found.lock().expect("no thread panics with it").push((seed, wrong));
            }
        }
    };
    std::thread::scope(|threads| (0..jobs).for_each(|_| drop(threads.spawn(worker))));
    println!("{}", totals.text(began.elapsed(), jobs));
    let mut found = found.into_inner().expect("no thread panicked with it");
    found.sort_by_key(|(seed, _)| *seed);
    let Some((seed, wrong)) = found.into_iter().next() else { return Ok(true) };
    if keep_going {
        return Ok(false);
    }
    let plan = of_seed(seed, profile.into());
    let failure = examine(&plan, &wrong?, Duration::from_secs(60))?;
    print!("{}", failure.text(&format!("cargo sim run {seed} --profile {}", profile.name())));
    let file = std::env::temp_dir().join(format!("{}-seed-{seed}.plan", failure.violation.invariant));
    std::fs::write(&file, failure.regression()).map_err(|e| format!("{}: {e}", file.display()))?;
    println!("A regression for tests/regressions, to be named after what it was: {}", file.display());
    Ok(false)
}

fn hashes(seeds: Range<u64>, profile: Profile) -> Result<bool, String> {
    for seed in seeds {
        println!("{seed} {:016x}", run(&of_seed(seed, profile.into()), false)?.hash);
    }
    Ok(true)
}

fn twice(seeds: Range<u64>, profile: Profile) -> Result<bool, String> {
    for seed in seeds {
        let plan = of_seed(seed, profile.into());
        let (a, b) = (run(&plan, true)?, run(&plan, true)?);
        if let Some(n) = (0..a.log.len().max(b.log.len())).find(|n| a.log.get(*n) != b.log.get(*n)) {
            let line = |o: &Outcome| o.log.get(n).cloned().unwrap_or_else(|| "(its end)".to_owned());
            println!("seed {seed}: line {n} of the log differs\n  {}\n  {}", line(&a), line(&b));
            return Ok(false);
        }
        if a.hash != b.hash {
            println!(
                "seed {seed}: the logs are the same, the hashes differ: {:016x}, {:016x}",
                a.hash, b.hash
            );
            return Ok(false);
        }
        println!("seed {seed}: {:016x} twice", a.hash);
    }
    Ok(true)
}

fn planted_bugs(name: Option<&str>) -> Result<bool, String> {
    let mut all = true;
    let chosen: Vec<_> = planted::table().iter().filter(|p| name.is_none_or(|n| n == p.name)).collect();
    if chosen.is_empty() {
        return Err(format!("no planted bug is called {}", name.unwrap_or_default()));
    }
    for bug in chosen {
        let began = Instant::now();
        let (without, with) = determinism::os::run([0; 32], || (bug.run(0, false), bug.run(0, true)))
            .map_err(|e| e.to_string())?;
        let text = match (&without, &with) {
            (Ok(()), Err(v)) if v.invariant == bug.invariant => format!("found: {} {}", v.invariant, v.text),
            (Err(v), _) => format!("WRONG: {} is broken without the bug: {}", v.invariant, v.text),
            (_, Err(v)) => {
                format!("WRONG: {} is broken in place of {}: {}", v.invariant, bug.invariant, v.text)
            }
            (_, Ok(())) => format!("NOT FOUND by {}", bug.invariant),
        };
        all &= text.starts_with("found");
        println!("{:<26} {:>6} ms  {text}", bug.name, began.elapsed().as_millis());
    }
    for (name, why) in planted::waiting() {
        println!("{name:<26} waits: {why}");
    }
    Ok(all)
}
