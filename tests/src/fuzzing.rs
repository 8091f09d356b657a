//! Fuzzing over many runs: how often each target was executed (fuzz/executions.tsv), and which part of the core its inputs
//! reach. `cargo fuzzing run`, `cargo fuzzing table`, `cargo fuzzing coverage`.

pub mod coverage;

use crate::sim;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Targets that run whole clusters.
const CLUSTERS: &[&str] = &["cluster", "world"];
/// Targets that run what a node is made of: sessions, hub, cluster, rights, bridges, a recorded node.
const NODES: &[&str] = &[
    "audio_bridge",
    "auth",
    "cluster_ops",
    "hub_ops",
    "node",
    "quic_link",
    "recording",
    "rtmp_client",
    "rtmp_server",
    "rtsp_client",
    "rtsp_server",
    "signalling",
];

/// Executions that a target shall have, over all its runs: 10^8 of a codec, 10^6 of a part of the node, 10^4 of a cluster.
pub fn bar(target: &str) -> u64 {
    match target {
        t if CLUSTERS.contains(&t) => 10_000,
        t if NODES.contains(&t) => 1_000_000,
        _ => 100_000_000,
    }
}

/// Bytes of an input that a target is given at most: where more of them only take longer and reach nothing else.
pub fn longest(target: &str) -> usize {
    match target {
        // One or two bytes are an operation, and there are 48.
        "node" | "cluster" => 300,
        "rtcp" | "stun" | "rtsp_transport" => 512,
        "world" => 1_024,
        "audio_bridge" | "rtp" => 2_048,
        // A read may hold more than is pipelined; descriptions may have so many bytes.
        "http1_request" | "sdp" => 32 << 10,
        _ => 4_096,
    }
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The file that runs are added to: date, commit, target, executions, seconds, and what came of it, with tabs between.
pub fn record() -> PathBuf {
    root().join("fuzz/executions.tsv")
}

/// The seeds that are made, not found: target, name and bytes.
fn made_seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let quic = sim::quic::seeds::all().into_iter().map(|(name, bytes)| ("quic_link", name.to_owned(), bytes));
    let node = sim::node::seeds::of_node().into_iter().map(|(name, bytes)| ("node", name, bytes));
    let cluster = sim::node::seeds::of_cluster().into_iter().map(|(name, bytes)| ("cluster", name, bytes));
    let http = sim::node::seeds::of_http().into_iter().map(|(name, bytes)| ("http1_request", name, bytes));
    let world = sim::generate::seeds().into_iter().map(|(name, bytes)| ("world", name, bytes));
    quic.chain(node).chain(cluster).chain(http).chain(world).collect()
}

/// Writes the seeds that are made, not found, where they are not what they would be now. Answers how many that were.
///
/// # Errors
/// If one cannot be written.
pub fn write_seeds() -> Result<usize, String> {
    let mut written = 0;
    for (target, name, bytes) in made_seeds() {
        let dir = root().join("fuzz/seeds").join(target);
        std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let path = dir.join(name);
        if std::fs::read(&path).is_ok_and(|there| there == bytes) {
            continue;
        }
        std::fs::write(&path, bytes).map_err(|e| format!("{}: {e}", path.display()))?;
        written += 1;
    }
    Ok(written)
}

/// The fuzz targets, by name.
///
/// # Errors
/// If they cannot be listed.
pub fn targets() -> Result<Vec<String>, String> {
    let dir = root().join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut names: Vec<String> =
        entries.filter_map(|e| Some(e.ok()?.path().file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// Executions by target in the text of the record.
///
/// # Errors
/// Which line is none.
pub fn sums(text: &str) -> Result<BTreeMap<String, u64>, String> {
    let mut sums = BTreeMap::new();
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let cells: Vec<&str> = line.split('\t').collect();
        let [_date, _commit, target, executions, _seconds, _outcome] = cells[..] else {
            return Err(format!("this is no line of a run: {line}"));
        };
        let n: u64 = executions.parse().map_err(|_| format!("no number of executions: {line}"))?;
        *sums.entry(target.to_owned()).or_default() += n;
    }
    Ok(sums)
}

/// The table of the docs.
pub fn table(targets: &[String], sums: &BTreeMap<String, u64>) -> String {
    let mut text = "| target | executions | bar | |\n|---|---|---|---|\n".to_owned();
    for target in targets {
        let (n, bar) = (sums.get(target).copied().unwrap_or(0), bar(target));
        let reached = if n >= bar { "reached" } else { "" };
        // Writing to a string cannot fail.
        _ = writeln!(text, "| {target} | {n} | {bar} | {reached} |");
    }
    text
}

/// Builds the targets. Answers where they lie.
///
/// # Errors
/// If they do not build.
pub fn build() -> Result<PathBuf, String> {
    let mut cargo = Command::new("cargo");
    // The fuzzer needs nightly flags and nothing else of a nightly compiler.
    cargo.args(["fuzz", "build", "--sanitizer", "none"]).current_dir(root()).env("RUSTC_BOOTSTRAP", "1");
    let built = cargo.status().map_err(|e| format!("cargo does not run: {e}"))?;
    if !built.success() {
        return Err(
            "the fuzz targets do not build; is there cargo-fuzz (cargo install cargo-fuzz)?".to_owned()
        );
    }
    let dir = root().join("fuzz/target");
    let entries = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    // cargo-fuzz always names the host.
    let mut hosts =
        entries.filter_map(|e| Some(e.ok()?.path().join("release"))).filter(|p| p.join("flv").exists());
    hosts.next().ok_or_else(|| format!("there are no targets in {}", dir.display()))
}

/// Runs each target for so many seconds with a generator that is drawn, and adds what was executed to the record. What is found
/// lies in fuzz/artifacts. Answers the targets that found something.
///
/// # Errors
/// If they cannot be run.
pub fn run(binaries: &Path, targets: &[String], seconds: u64) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for target in targets {
        let of = |dir: &str| root().join("fuzz").join(dir).join(target);
        for dir in [of("corpus"), of("artifacts")] {
            std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        let mut command = Command::new(binaries.join(target));
        // What is new is kept in the first; the seeds are only read.
        command.arg(of("corpus")).args(Some(of("seeds")).filter(|s| s.is_dir()));
        command.args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1", "-print_funcs=0"]);
        command.arg(format!("-max_len={}", longest(target)));
        command.arg(format!("-artifact_prefix={}/", of("artifacts").display()));
        let ran = command.arg(format!("-max_total_time={seconds}")).output();
        let ran = ran.map_err(|e| format!("{target} does not run: {e}"))?;
        let said = String::from_utf8_lossy(&ran.stderr);
        if !ran.status.success() {
            let lines: Vec<&str> = said.lines().collect();
            eprintln!("{target}:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
            found.push(target.clone());
        }
        add(target, executions(&said), seconds, ran.status.success())?;
    }
    Ok(found)
}

/// How often a target was executed, by what libFuzzer says at its end.
fn executions(said: &str) -> u64 {
    let line = said.lines().find_map(|l| l.strip_prefix("stat::number_of_executed_units:"));
    line.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

fn add(target: &str, executions: u64, seconds: u64, clean: bool) -> Result<(), String> {
    let said = |command: &str, args: &[&str]| {
        let out = Command::new(command).args(args).current_dir(root()).output().map_err(|e| e.to_string())?;
        Ok::<_, String>(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let (date, commit) = (said("date", &["+%F"])?, said("git", &["rev-parse", "--short", "HEAD"])?);
    let outcome = if clean { "clean" } else { "found" };
    let path = record();
    let mut file =
        OpenOptions::new().append(true).open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    writeln!(file, "{date}\t{commit}\t{target}\t{executions}\t{seconds}\t{outcome}")
        .map_err(|e| e.to_string())?;
    println!("{target}: {executions} executions, {outcome}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_add_up_and_lines_that_are_none_are_named() {
        let text = "# head\n2026-01-01\tabc\tflv\t5\t60\tclean\n2026-01-02\tabd\tflv\t6\t60\tfound\n";
        assert_eq!(sums(text), Ok([("flv".to_owned(), 11)].into()));
        assert!(sums("2026-01-01\tflv\t5").unwrap_err().contains("no line"));
        assert!(sums("a\tb\tflv\tmany\t60\tclean").unwrap_err().contains("no number"));
    }

    #[test]
    fn what_was_executed_is_read_from_the_end_of_a_run() {
        let said = "#5 NEW cov: 1\nstat::number_of_executed_units: 6955755\nstat::average_exec_per_sec: 1\n";
        assert_eq!(executions(said), 6_955_755);
        assert_eq!(executions("it did not begin"), 0);
    }

    /// `cargo fuzzing seeds` writes those that are not; one that nobody makes any more is to be deleted.
    #[test]
    fn the_seeds_that_are_made_are_those_on_the_disk() {
        let made = made_seeds();
        for (target, name, bytes) in &made {
            let path = root().join("fuzz/seeds").join(target).join(name);
            assert!(std::fs::read(&path).is_ok_and(|there| there == *bytes), "{}", path.display());
        }
        for target in ["node", "cluster", "quic_link"] {
            let there = std::fs::read_dir(root().join("fuzz/seeds").join(target)).unwrap().count();
            assert_eq!(there, made.iter().filter(|(t, ..)| *t == target).count(), "{target}");
        }
    }

    #[test]
    fn the_record_names_targets_that_exist() {
        let all = targets().unwrap();
        let text = std::fs::read_to_string(record()).unwrap();
        let sums = sums(&text).unwrap();
        assert!(sums.keys().all(|t| all.contains(t)), "{sums:?}");
        assert!(CLUSTERS.iter().chain(NODES).all(|t| all.iter().any(|a| a == t)));
    }
}
