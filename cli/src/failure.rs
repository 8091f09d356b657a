//! Why the process ends badly, and with which exit code.

/// An end that is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Something failed while running: exit code 1.
    Running(String),
    /// Arguments or configuration are wrong: exit code 2. One sentence each.
    Wrong(Vec<String>),
}

impl Failure {
    /// The exit code of the process.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Failure::Running(_) => 1,
            Failure::Wrong(_) => 2,
        }
    }

    /// What to print on standard error.
    pub(crate) fn words(&self) -> String {
        match self {
            Failure::Running(text) => format!("headwater: {text}\n"),
            Failure::Wrong(texts) => texts.iter().map(|t| format!("headwater: {t}\n")).collect(),
        }
    }
}

impl From<Vec<crate::settings::Problem>> for Failure {
    fn from(problems: Vec<crate::settings::Problem>) -> Failure {
        Failure::Wrong(problems.iter().map(ToString::to_string).collect())
    }
}
