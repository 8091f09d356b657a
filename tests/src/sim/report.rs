//! What people are told about a run that failed.

use super::plan::Plan;
use super::run::{Outcome, run};
use super::shrink::shrink;
use crate::tidy::root;
use crate::world::Violation;
use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

/// Lines of the log before the end that are shown.
const EVENTS: usize = 60;

/// A run that failed, made small.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was broken in the run as it was planned.
    pub violation: Violation,
    /// The smallest plan that was found.
    pub plan: Plan,
    /// The run of that plan, with its log.
    pub outcome: Outcome,
}

/// Makes a failed run small, for at most `time`, and runs it once more with a log.
///
/// # Errors
/// As [`run`].
pub fn examine(plan: &Plan, violation: &Violation, time: Duration) -> Result<Failure, String> {
    let until = Instant::now() + time;
    let small = shrink(plan, |candidate| {
        if Instant::now() >= until {
            return None;
        }
        let found = run(candidate, false).ok()?.violation;
        Some(found.is_some_and(|v| v.invariant == violation.invariant))
    });
    let outcome = run(&small, true)?;
    Ok(Failure { violation: violation.clone(), plan: small, outcome })
}

/// The commit of this tree, or `unknown`.
pub fn commit() -> String {
    let git = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root()).output();
    let said =
        git.ok().filter(|g| g.status.success()).map(|g| String::from_utf8_lossy(&g.stdout).trim().to_owned());
    said.filter(|s| !s.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

/// The last lines of a log in columns: time, who, what. Frames that arrive as they should are left out.
pub fn columns(log: &[String], lines: usize) -> String {
    let told: Vec<&String> = log.iter().filter(|l| !l.contains(" saw ")).collect();
    let mut text = String::new();
    for line in &told[told.len().saturating_sub(lines)..] {
        let (time, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (who, what) = rest.split_once(' ').unwrap_or((rest, ""));
        let _ = writeln!(text, "{time:>14}  {who:<10} {what}");
    }
    text
}

impl Failure {
    /// All of it as text. `replay` is the command that repeats the run as it was planned.
    pub fn text(&self, replay: &str) -> String {
        let Violation { invariant, text, at } = &self.violation;
        let small = self.outcome.violation.as_ref();
        let same = small
            .map_or_else(|| "nothing".to_owned(), |v| format!("{} at {}: {}", v.invariant, v.at, v.text));
        format!(
            "seed {}, commit {}\n{invariant} is broken at {at}: {text}\n\nThe {} operations that matter:\n{}\nThey \
             break {same}\n\nThe last events:\n{}\nReplay: {replay}\n",
            self.plan.seed,
            commit(),
            self.plan.steps.len(),
            self.plan,
            columns(&self.outcome.log, EVENTS),
        )
    }

    /// What a file in `tests/regressions` would hold.
    pub fn regression(&self) -> String {
        let violation = self.outcome.violation.as_ref().unwrap_or(&self.violation);
        let text = violation.text.lines().next().unwrap_or_default();
        format!("// {}: {text}\n{}", violation.invariant, self.plan)
    }
}
