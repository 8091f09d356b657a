//! Rules for single source files.

use super::Problem;
use super::text::{code_only, line_of, without_tests, words};

/// The longest that a source file may be, lines.
pub const MOST_LINES: usize = 800;

/// A file must fit the head of its reader.
pub fn length(path: &str, text: &str) -> Vec<Problem> {
    let lines = text.lines().count();
    let say =
        || Problem::new(path, lines, format!("{lines} lines; the most is {MOST_LINES}: split by purpose"));
    (lines > MOST_LINES).then(say).into_iter().collect()
}

/// Nothing unfinished: no stand-in macro, and no note that something is still to be done.
pub fn unfinished(path: &str, text: &str) -> Vec<Problem> {
    let code = code_only(text);
    let macros = ["todo!", "unimplemented!", "dbg!"].into_iter();
    let in_code = macros.flat_map(|m| words(&code, m).map(move |(line, _)| (line, m)).collect::<Vec<_>>());
    // Written in two parts, so that this file does not break its own rule.
    let notes = [concat!("FIX", "ME"), concat!("XX", "X"), concat!("TO", "DO")].into_iter();
    let in_text = notes.flat_map(|n| words(text, n).map(move |(line, _)| (line, n)).collect::<Vec<_>>());
    in_code
        .chain(in_text)
        .map(|(line, what)| Problem::new(path, line, format!("{what}: finish it, or write an issue")))
        .collect()
}

/// No test waits for time or is switched off. Holds for all code: nothing of ours sleeps.
pub fn sleeps_and_ignored(path: &str, text: &str) -> Vec<Problem> {
    let code = code_only(text);
    let bad = ["thread::sleep", "sleep_ms", "#[ignore", "thread::park_timeout"];
    let found =
        bad.into_iter().flat_map(|b| words(&code, b).map(move |(line, _)| (line, b)).collect::<Vec<_>>());
    found
        .map(|(line, b)| Problem::new(path, line, format!("{b}: wait for a condition, and run every test")))
        .collect()
}

/// `proto-core` is pure (law 1): no clock, thread, socket, file or ambient randomness, not even under another name.
pub fn purity(path: &str, text: &str) -> Vec<Problem> {
    const BAD: [&str; 19] = [
        "Instant::now",
        "SystemTime::now",
        "std::thread",
        "thread::spawn",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "std::fs",
        "std::process",
        "std::env",
        "rand::rng",
        "thread_rng",
        "from_os_rng",
        "getrandom",
        "fastrand",
        "thread_local!",
        "static mut",
        "println!",
        "eprintln!",
    ];
    let code = without_tests(&code_only(text));
    let found = BAD.into_iter().flat_map(|b| words(&code, b).map(move |(l, _)| (l, b)).collect::<Vec<_>>());
    found
        .map(|(l, b)| {
            Problem::new(path, l, format!("{b} in proto-core: it must come in as an input (law 1)"))
        })
        .collect()
}

/// The lints that keep a parser from panicking (law 3).
pub const DENIED: [&str; 4] = ["indexing_slicing", "unwrap_used", "expect_used", "panic"];

/// The root of a module that parses network input denies what could panic.
pub fn denies_panics(path: &str, text: &str) -> Vec<Problem> {
    let code = code_only(text);
    let denies: String =
        code.split("#![").filter(|a| a.starts_with("deny(")).filter_map(|a| a.split(']').next()).collect();
    let missing = DENIED.into_iter().filter(|d| words(&denies, &format!("clippy::{d}")).next().is_none());
    missing.map(|d| Problem::new(path, 1, format!("#![deny(clippy::{d})] is missing (law 3)"))).collect()
}

/// No parser takes the denied lints back, except in tests.
pub fn allows_no_panics(path: &str, text: &str) -> Vec<Problem> {
    let code = without_tests(&code_only(text));
    let mut problems = Vec::new();
    for (at, _) in code.match_indices("allow(").chain(code.match_indices("expect(clippy")) {
        let list = code[at..].split(')').next().unwrap_or_default();
        for d in DENIED.iter().filter(|d| words(list, &format!("clippy::{d}")).next().is_some()) {
            let text = format!("clippy::{d} is allowed again: handle the case (law 3)");
            problems.push(Problem::new(path, line_of(&code, at), text));
        }
    }
    problems
}

/// Where `unsafe` may stand: the loop with its system calls, and what interposes those of dependencies.
const UNSAFE: [&str; 2] = ["runtime-mio/", "determinism/src/os/"];

/// `unsafe` stands in the runtime and in the interposition alone.
pub fn unsafe_code(path: &str, text: &str) -> Vec<Problem> {
    if UNSAFE.iter().any(|place| path.starts_with(place)) {
        return Vec::new();
    }
    let code = code_only(text);
    words(&code, "unsafe")
        .map(|(line, _)| {
            Problem::new(path, line, format!("unsafe belongs into {} alone", UNSAFE.join(" and ")))
        })
        .collect()
}

/// Each `unsafe` has its proof: a comment `SAFETY:` right before its statement or item, or, where a function asks something
/// of its callers, a section `# Safety`.
pub fn unsafe_proofs(path: &str, text: &str) -> Vec<Problem> {
    let lines: Vec<&str> = text.lines().collect();
    let code = code_only(text);
    let proved = |at: usize| {
        // Up to the comment or attribute that stands before the statement.
        let mut above = lines[..at].iter().rev().take(PROOF_WITHIN);
        lines[at].contains("SAFETY:") || above.any(|l| l.contains("// SAFETY:") || l.contains("/// # Safety"))
    };
    words(&code, "unsafe")
        .map(|(line, _)| line)
        .filter(|line| {
            let rest = code.lines().nth(line - 1).unwrap_or_default();
            // Attributes and types: `#[unsafe(no_mangle)]`, `as unsafe extern "C" fn(…)`, `#![deny(unsafe_op…)]`.
            !rest.contains("unsafe(")
                && !rest.contains("as unsafe ")
                && !rest.contains("unsafe extern \"C\" fn(")
        })
        .filter(|line| !proved(line - 1))
        .map(|line| Problem::new(path, line, "say why this is sound, in a comment // SAFETY: before it"))
        .collect()
}

/// A proof stands at most this many lines above its `unsafe`.
const PROOF_WITHIN: usize = 8;

/// A crate root says what the crate is and forbids what it must.
pub fn crate_root(path: &str, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            problems.push(Problem::new(path, 1, what));
        }
    };
    let first = text.lines().find(|l| !l.starts_with("#!") && !l.trim().is_empty());
    must(first.is_some_and(|l| l.starts_with("//! ")), "a crate root begins with a doc comment");
    let code = code_only(text);
    if path.starts_with("runtime-mio/") || path == "determinism/src/lib.rs" {
        must(
            !code.contains("allow(clippy::undocumented_unsafe_blocks"),
            "each unsafe block says why it is sound",
        );
    } else {
        must(code.contains("#![forbid(unsafe_code)]"), "#![forbid(unsafe_code)] is missing");
    }
    if path.starts_with("proto-core/") {
        for lint in ["clippy::disallowed_methods", "clippy::disallowed_types"] {
            let denied =
                code.split("#![deny(").skip(1).any(|d| d.split(']').next().is_some_and(|d| d.contains(lint)));
            must(denied, &format!("#![deny({lint})] is missing (law 1)"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(problems: &[Problem]) -> Vec<usize> {
        problems.iter().map(|p| p.line).collect()
    }

    #[test]
    fn a_file_of_801_lines_is_too_long() {
        assert_eq!(length("a.rs", &"x\n".repeat(800)), []);
        assert_eq!(length("a.rs", &"x\n".repeat(801)).len(), 1);
    }

    #[test]
    fn unfinished_work_is_seen_in_code_and_comments() {
        let bad = format!("fn a() {{\n todo!()\n}}\n// {}ME: later\ndbg!(1);", "FIX");
        assert_eq!(lines(&unfinished("a.rs", &bad)), [2, 5, 4]);
        assert_eq!(unfinished("a.rs", "// the macro todo! is banned\nlet s = \"todo!\";"), []);
    }

    #[test]
    fn sleeping_and_ignored_tests_are_seen() {
        let bad = "std::thread::sleep(d);\n#[ignore = \"slow\"]\nfn t() {}";
        assert_eq!(lines(&sleeps_and_ignored("a.rs", bad)), [1, 2]);
        assert_eq!(sleeps_and_ignored("a.rs", "// no thread::sleep here\nlet ignore = 1;"), []);
    }

    #[test]
    fn the_core_is_pure_but_for_its_tests() {
        let bad = "use std::net::UdpSocket;\nfn f() { std::fs::read(p); Instant::now(); fastrand::u8(..); }";
        assert_eq!(lines(&purity("proto-core/src/a.rs", bad)), [2, 1, 2, 2]);
        let good = "use std::net::SocketAddr;\n#[cfg(test)]\nmod tests {\n fn t() { Instant::now(); }\n}";
        assert_eq!(purity("proto-core/src/a.rs", good), []);
    }

    #[test]
    fn a_parser_denies_all_four_lints_and_takes_none_back() {
        let good =
            "#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]";
        assert_eq!(denies_panics("a.rs", good), []);
        assert_eq!(denies_panics("a.rs", "#![deny(clippy::panic)]\n#![allow(clippy::unwrap_used)]").len(), 3);
        assert_eq!(denies_panics("a.rs", "// #![deny(clippy::panic)]").len(), 4);
        let bad =
            "\n#[allow(clippy::unwrap_used)]\nfn f() {}\n#[cfg(test)]\n#[allow(clippy::panic)]\nmod tests {}";
        assert_eq!(lines(&allows_no_panics("a.rs", bad)), [2]);
    }

    #[test]
    fn unsafe_is_seen_outside_its_places_only() {
        assert_eq!(unsafe_code("determinism/src/os/interpose.rs", "unsafe { x() }"), []);
        assert_eq!(lines(&unsafe_code("determinism/src/crypto/mod.rs", "unsafe { x() }")), [1]);
        assert_eq!(lines(&unsafe_code("cli/src/main.rs", "\nunsafe { x() }")), [2]);
        assert_eq!(unsafe_code("runtime-mio/src/lib.rs", "unsafe { x() }"), []);
        assert_eq!(unsafe_code("cli/src/main.rs", "#![forbid(unsafe_code)] // unsafe"), []);
    }

    #[test]
    fn an_unsafe_without_its_proof_is_seen() {
        let good =
            "// SAFETY: it is ours.\nunsafe { x() }\n#[unsafe(no_mangle)]\nfn y() {}\n// unsafe in words\n";
        assert_eq!(unsafe_proofs("a.rs", good), []);
        assert_eq!(
            unsafe_proofs("a.rs", "/// # Safety\n/// `p` is valid.\nunsafe fn f(p: *const u8) {}\n"),
            []
        );
        assert_eq!(lines(&unsafe_proofs("a.rs", "fn f() {\n    unsafe { x() }\n}\n")), [2]);
        assert_eq!(lines(&unsafe_proofs("a.rs", "unsafe impl Send for X {}\n")), [1]);
        let far = format!("// SAFETY: of something else.\n{}unsafe {{ x() }}\n", "y();\n".repeat(8));
        assert_eq!(lines(&unsafe_proofs("a.rs", &far)), [10]);
    }

    #[test]
    fn a_crate_root_has_words_and_bans() {
        assert_eq!(crate_root("cli/src/main.rs", "//! The binary.\n#![forbid(unsafe_code)]\n"), []);
        assert_eq!(crate_root("cli/src/main.rs", "fn main() {}").len(), 2);
        assert_eq!(crate_root("proto-core/src/lib.rs", "//! Core.\n#![forbid(unsafe_code)]\n").len(), 2);
        assert_eq!(crate_root("runtime-mio/src/lib.rs", "//! Loop.\n"), []);
    }
}
