//! What lints cannot see, as functions over (path, text): each answers the problems that it finds. The test
//! `tidy` runs them over the repository; beside each stands a test that shows it failing on a bad sample.

pub mod imports;
pub mod licence;
pub mod repository;
pub mod source;
pub mod text;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A rule that is broken, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, relative to the root of the repository.
    pub path: String,
    /// The line, counted from 1; 0 for the whole file.
    pub line: usize,
    /// What is wrong and what to do.
    pub text: String,
}

impl Problem {
    /// A problem at a line (0: the whole file).
    pub fn new(path: &str, line: usize, text: impl Into<String>) -> Problem {
        Problem { path: path.to_owned(), line, text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.text)
    }
}

/// A text file of the repository.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path relative to the root, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// The target triple of this machine's compiler.
///
/// # Errors
/// If there is no rustc that says so.
pub fn host_triple() -> Result<String, String> {
    let ran = Command::new("rustc").arg("-vV").output().map_err(|e| format!("rustc does not run: {e}"))?;
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let host = text.lines().find_map(|l| l.strip_prefix("host: ")).map(str::to_owned);
    host.ok_or_else(|| "rustc does not name its host".to_owned())
}

/// Every text file below `root` that is not built or fetched, in order of path.
pub fn files(root: &Path) -> Vec<File> {
    const NOT_OURS: [&str; 6] =
        [".git", "target", "fuzz/target", "fuzz/artifacts", "fuzz/corpus", "fuzz/coverage"];
    let mut dirs = vec![root.to_owned()];
    let mut files = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory of the repository is readable").flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            let kind = entry.file_type();
            if NOT_OURS.contains(&name.as_str()) {
                continue;
            } else if kind.as_ref().is_ok_and(|k| k.is_dir()) {
                dirs.push(path);
            } else if kind.is_ok_and(|k| k.is_file())
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                files.push(File { path: name, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}
