//! `headwater doctor`: whether a node can do its work on this host, or whether one can be reached from here.

mod host;
mod reach;

use crate::settings::Loaded;
use proto_core::node::config::Config;
use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// As it should be.
    Good,
    /// Neither: something to know.
    Note,
    /// Works, and should be looked at.
    Doubtful,
    /// Somebody will miss something.
    Bad,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mark::Good => "good",
            Mark::Note => "note",
            Mark::Doubtful => "doubtful",
            Mark::Bad => "bad",
        })
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    mark: Mark,
    /// What was looked at, in a word or two.
    what: String,
    /// What was found, and what to do about it.
    text: String,
}

/// All that was found.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Finding>);

impl Report {
    fn add(&mut self, mark: Mark, what: impl Into<String>, text: impl Into<String>) {
        self.0.push(Finding { mark, what: what.into(), text: text.into() });
    }

    /// How many checks there were.
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// How many say bad.
    pub(crate) fn bad(&self) -> usize {
        self.0.iter().filter(|f| f.mark == Mark::Bad).count()
    }

    /// One line for each finding.
    pub(crate) fn text(&self) -> String {
        let wide = self.0.iter().map(|f| f.what.chars().count()).max().unwrap_or(0);
        self.0.iter().map(|f| format!("{:8}  {:wide$}  {}\n", f.mark, f.what, f.text)).collect()
    }
}

/// Looks at this host with the eyes of a node that has this configuration.
pub(crate) fn examine(loaded: &Loaded) -> Report {
    let mut report = Report::default();
    for warning in &loaded.warnings {
        report.add(Mark::Doubtful, "configuration", warning.to_string());
    }
    if loaded.warnings.is_empty() {
        report.add(Mark::Good, "configuration", "nothing to say against it");
    }
    host::examine(&loaded.config, &mut report);
    report
}

/// Looks from here at a node elsewhere that has this configuration.
pub(crate) fn reach(config: &Config, to: &str) -> Report {
    let mut report = Report::default();
    match reach::resolve(to) {
        Ok(addresses) => {
            report.add(Mark::Good, "name", format!("{to} is {}", reach::shown(&addresses)));
            for address in addresses {
                reach::node(config, address, &mut report);
            }
        }
        Err(text) => report.add(Mark::Bad, "name", text),
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_aligned_and_counts_what_is_bad() {
        let mut report = Report::default();
        report.add(Mark::Good, "clock", "it is kept");
        report.add(Mark::Bad, "http.port", "taken");
        assert_eq!(report.text(), "good      clock      it is kept\nbad       http.port  taken\n");
        assert_eq!((report.len(), report.bad()), (2, 1));
    }
}
