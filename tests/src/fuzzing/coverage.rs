//! Which regions of the core the inputs of the fuzz targets reach.

use super::{root, targets};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Regions that are to be reached, percent.
pub const BAR: f64 = 80.0;
/// Inputs that one process is given.
const BATCH: usize = 200;

/// Regions reached, and all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regions {
    /// Reached at least once.
    pub reached: u64,
    /// All.
    pub all: u64,
}

impl Regions {
    /// The part that was reached.
    pub fn percent(self) -> f64 {
        if self.all == 0 { 100.0 } else { self.reached as f64 * 100.0 / self.all as f64 }
    }
}

/// Regions of each file of the core, by its path below `proto-core/src`.
pub type Files = BTreeMap<String, Regions>;

/// Builds all targets with counters, runs seeds and corpus (of each target for so long at most), and adds up. Needs LLVM's tools
/// of the compiler's version.
///
/// # Errors
/// What is missing or does not run.
pub fn measure(most: Duration) -> Result<Files, String> {
    let tools = tools()?;
    let dir = root().join("fuzz/target/coverage");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--locked", "--bins", "--manifest-path"]).arg(root().join("fuzz/Cargo.toml"));
    // Optimised, as whole clusters would take minutes otherwise; the regions are the same.
    cargo
        .env("CARGO_TARGET_DIR", &dir)
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "2");
    // What runs while it builds has counters too, and would write them beside the sources.
    cargo.env("LLVM_PROFILE_FILE", dir.join("build-%m.profraw"));
    cargo.env("RUSTFLAGS", "-C instrument-coverage --cfg fuzzing");
    if !cargo.status().map_err(|e| format!("cargo does not run: {e}"))?.success() {
        return Err("the fuzz targets do not build with counters".to_owned());
    }
    let raw = dir.join("profiles");
    drop(std::fs::remove_dir_all(&raw));
    let (mut binaries, merged) = (Vec::new(), dir.join("merged.profdata"));
    for target in targets()? {
        let binary = dir.join("debug").join(&target);
        let (ran, all) = feed(&binary, &target, &raw, most)?;
        eprintln!("{target}: {ran} of {all} inputs");
        binaries.push(binary);
    }
    let mut profdata = Command::new(tools.join("llvm-profdata"));
    profdata.args(["merge", "-sparse", "-o"]).arg(&merged);
    for entry in std::fs::read_dir(&raw).map_err(|e| format!("{}: {e}", raw.display()))? {
        profdata.arg(entry.map_err(|e| e.to_string())?.path());
    }
    if !profdata.status().map_err(|e| format!("llvm-profdata does not run: {e}"))?.success() {
        return Err("the profiles could not be merged".to_owned());
    }
    let mut cov = Command::new(tools.join("llvm-cov"));
    cov.args(["export", "--summary-only"]).arg(format!("--instr-profile={}", merged.display()));
    for (n, binary) in binaries.iter().enumerate() {
        if n > 0 {
            cov.arg("--object");
        }
        cov.arg(binary);
    }
    let told = cov.output().map_err(|e| format!("llvm-cov does not run: {e}"))?;
    if !told.status.success() {
        return Err(format!("llvm-cov: {}", String::from_utf8_lossy(&told.stderr)));
    }
    files(&String::from_utf8_lossy(&told.stdout))
}

/// Where the compiler's own `llvm-profdata` and `llvm-cov` are.
fn tools() -> Result<PathBuf, String> {
    let said = |args: &[&str]| {
        let out =
            Command::new("rustc").args(args).output().map_err(|e| format!("rustc does not run: {e}"))?;
        Ok::<_, String>(String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let version = said(&["-vV"])?;
    let host = version.lines().find_map(|l| l.strip_prefix("host: ")).unwrap_or_default().to_owned();
    let dir = Path::new(said(&["--print", "sysroot"])?.trim()).join("lib/rustlib").join(host).join("bin");
    if dir.join("llvm-cov").exists() {
        return Ok(dir);
    }
    Err("llvm-profdata and llvm-cov are missing: rustup component add llvm-tools".to_owned())
}

/// Runs a target's inputs. Answers how many of how many.
fn feed(binary: &Path, target: &str, raw: &Path, most: Duration) -> Result<(usize, usize), String> {
    let mut inputs = Vec::new();
    for dir in ["seeds", "corpus"] {
        let Ok(entries) = std::fs::read_dir(root().join("fuzz").join(dir).join(target)) else { continue };
        inputs.extend(entries.filter_map(|e| Some(e.ok()?.path())));
    }
    inputs.sort();
    let (start, mut ran) = (Instant::now(), 0);
    // Dear inputs come a few at a time, so that the time is kept.
    let mut size = 1;
    while ran < inputs.len() && start.elapsed() < most {
        let batch = &inputs[ran..(ran + size).min(inputs.len())];
        let run = Command::new(binary)
            .args(batch)
            // Those of one binary are added up in one file.
            .env("LLVM_PROFILE_FILE", raw.join(format!("{target}-%1m.profraw")))
            .output()
            .map_err(|e| format!("{}: {e}", binary.display()))?;
        if !run.status.success() {
            return Err(format!("{target} fails: {}", String::from_utf8_lossy(&run.stderr)));
        }
        ran += batch.len();
        size = (size * 2).min(BATCH);
        if start.elapsed() * 4 > most {
            size = size.min(8);
        }
    }
    Ok((ran, inputs.len()))
}

/// The files of the core in what `llvm-cov export --summary-only` says.
///
/// # Errors
/// If it says something else.
pub fn files(json: &str) -> Result<Files, String> {
    let all: Value = serde_json::from_str(json).map_err(|e| format!("llvm-cov said no JSON: {e}"))?;
    let list = all["data"][0]["files"].as_array().ok_or("llvm-cov said nothing of files")?;
    let file = |f: &Value| {
        let (_, name) = f["filename"].as_str()?.rsplit_once("proto-core/src/")?;
        let regions = &f["summary"]["regions"];
        let (reached, all) = (regions["covered"].as_u64()?, regions["count"].as_u64()?);
        Some((name.to_owned(), Regions { reached, all }))
    };
    Ok(list.iter().filter_map(file).collect())
}

/// Those below one directory added up; a file of the root stands for itself.
pub fn parts(files: &Files) -> Files {
    let mut parts = Files::new();
    for (name, regions) in files {
        let part = name.split('/').next().unwrap_or(name).trim_end_matches(".rs");
        let sum = parts.entry(part.to_owned()).or_default();
        sum.reached += regions.reached;
        sum.all += regions.all;
    }
    parts
}

/// The whole.
pub fn total(files: &Files) -> Regions {
    files
        .values()
        .fold(Regions::default(), |a, r| Regions { reached: a.reached + r.reached, all: a.all + r.all })
}

/// The parts and the weakest files, as tables.
pub fn told(files: &Files) -> String {
    let mut text = "| part of the core | regions | reached |\n|---|---|---|\n".to_owned();
    let row = |name: &str, r: Regions| format!("| {name} | {} | {:.1} % |\n", r.all, r.percent());
    parts(files).iter().for_each(|(name, r)| text.push_str(&row(name, *r)));
    text.push_str(&row("**all**", total(files)));
    text.push_str("\n| files with the most that is not reached | regions | reached |\n|---|---|---|\n");
    let mut weak: Vec<_> = files.iter().collect();
    weak.sort_by_key(|(_, r)| std::cmp::Reverse(r.all - r.reached));
    weak.iter().take(25).for_each(|(name, r)| text.push_str(&row(name, **r)));
    // Writing to a string cannot fail.
    _ = writeln!(text, "\n{:.1} % of the regions are reached; {BAR} % is the bar.", total(files).percent());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_core_are_added_up_by_part() {
        let json = r#"{"data":[{"files":[
            {"filename":"/a/proto-core/src/wire/flv.rs","summary":{"regions":{"count":10,"covered":8}}},
            {"filename":"/a/proto-core/src/wire/rtp.rs","summary":{"regions":{"count":10,"covered":4}}},
            {"filename":"/a/tests/src/world/mod.rs","summary":{"regions":{"count":10,"covered":10}}},
            {"filename":"/a/proto-core/src/buf.rs","summary":{"regions":{"count":5,"covered":5}}}]}]}"#;
        let files = files(json).unwrap();
        let parts = parts(&files);
        assert_eq!(parts["wire"], Regions { reached: 12, all: 20 });
        assert_eq!(parts["buf"], Regions { reached: 5, all: 5 });
        assert_eq!(parts.len(), 2);
        assert!(told(&files).contains("| **all** | 25 | 68.0 % |"));
        assert!(files_error());
    }

    fn files_error() -> bool {
        files("no").is_err() && files("{}").is_err()
    }
}
