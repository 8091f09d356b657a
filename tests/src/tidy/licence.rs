//! The licence of every dependency, as an SPDX expression (SPDX 2.3, annex D) against a list of what we may use.

use super::Problem;
use serde_json::Value;

/// What a dependency's licence may come down to.
pub const ALLOWED: [&str; 13] = [
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "MPL-2.0",
    "CC0-1.0",
    "0BSD",
    "NCSA",
];

/// Parentheses deeper than this are refused.
const DEEPEST: usize = 16;

/// Whether an expression can be met with the allowed licences. `/` is the old spelling of `OR`.
pub fn allowed(expression: &str) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let truth = any(&tokens, &mut at, 0)?;
    if at == tokens.len() {
        Ok(truth)
    } else {
        Err(format!("cannot read {expression:?} from {:?}", tokens[at]))
    }
}

fn any(tokens: &[&str], at: &mut usize, depth: usize) -> Result<bool, String> {
    let mut truth = all(tokens, at, depth)?;
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        truth |= all(tokens, at, depth)?;
    }
    Ok(truth)
}

fn all(tokens: &[&str], at: &mut usize, depth: usize) -> Result<bool, String> {
    let mut truth = one(tokens, at, depth)?;
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        truth &= one(tokens, at, depth)?;
    }
    Ok(truth)
}

fn one(tokens: &[&str], at: &mut usize, depth: usize) -> Result<bool, String> {
    let token = *tokens.get(*at).ok_or("it ends too early")?;
    *at += 1;
    match token {
        "(" if depth == DEEPEST => Err("too many parentheses".to_owned()),
        "(" => {
            let truth = any(tokens, at, depth + 1)?;
            let closed = tokens.get(*at) == Some(&")");
            *at += 1;
            if closed { Ok(truth) } else { Err("a parenthesis is not closed".to_owned()) }
        }
        ")" | "OR" | "AND" | "WITH" => Err(format!("{token} stands where a licence should")),
        id if tokens.get(*at) == Some(&"WITH") => {
            let exception = tokens.get(*at + 1).ok_or("WITH without an exception")?;
            *at += 2;
            Ok(ALLOWED.contains(&format!("{id} WITH {exception}").as_str()))
        }
        id => Ok(ALLOWED.contains(&id)),
    }
}

/// Checks the output of `cargo metadata --format-version 1`.
pub fn dependencies(metadata: &Value) -> Vec<Problem> {
    let Some(packages) = metadata["packages"].as_array().filter(|p| !p.is_empty()) else {
        return vec![Problem::new("Cargo.lock", 0, "cargo metadata names no packages")];
    };
    let judge = |package: &Value| {
        let name = format!("{} {}", package["name"].as_str()?, package["version"].as_str()?);
        let problem = match package["license"].as_str().map(|l| (l, allowed(l))) {
            Some((_, Ok(true))) => return None,
            Some((l, Ok(false))) => format!("{name} is under {l:?}, which is not allowed"),
            Some((l, Err(e))) => format!("{name}: the licence {l:?} cannot be read: {e}"),
            None => format!("{name} names no licence"),
        };
        Some(Problem::new("Cargo.lock", 0, problem))
    };
    packages.iter().filter_map(judge).collect()
}

/// `deny.toml` may allow less than this list (it names what is in use), and nothing else.
pub fn no_other_list(path: &str, text: &str) -> Vec<Problem> {
    let list = text.split("[licenses]").nth(1).and_then(|t| t.split_once("\nallow")).map(|(_, t)| t);
    let Some((list, _)) = list.and_then(|t| t.split_once('[')).and_then(|(_, t)| t.split_once(']')) else {
        return vec![Problem::new(path, 0, "there is no licenses.allow")];
    };
    let other = list.split('"').skip(1).step_by(2).filter(|l| !ALLOWED.contains(l));
    other.map(|l| Problem::new(path, 0, format!("{l} is not among the licences that we may use"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expressions_are_evaluated() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0-only OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "ISC AND (Apache-2.0 OR OpenSSL)",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
            "Unlicense OR MIT",
        ] {
            assert_eq!(allowed(good), Ok(true), "{good}");
        }
        for bad in
            ["GPL-3.0-only", "LGPL-2.1 AND MIT", "MIT AND (GPL-2.0 OR AGPL-3.0)", "Unlicense", "MIT WITH X"]
        {
            assert_eq!(allowed(bad), Ok(false), "{bad}");
        }
        for broken in ["", "MIT OR", "(MIT", "MIT)", "MIT Apache-2.0", "AND MIT", &"(".repeat(100)] {
            assert!(allowed(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_bad_unreadable_or_missing_licence_is_a_problem() {
        let package = |l: Value| json!({"name": "x", "version": "1.0.0", "license": l});
        let packages =
            [package("MIT".into()), package("GPL-3.0".into()), package("(".into()), package(Value::Null)];
        assert_eq!(dependencies(&json!({"packages": packages})).len(), 3);
        assert_eq!(dependencies(&json!({"packages": []})).len(), 1);
    }

    #[test]
    fn deny_toml_allows_nothing_else() {
        let whole = format!("[licenses]\nversion = 2\n# Those that we allow.\nallow = {:?}\n", &ALLOWED[..4]);
        assert_eq!(no_other_list("deny.toml", &whole), []);
        assert_eq!(no_other_list("deny.toml", &whole.replace("\"MIT\"", "\"GPL-3.0\"")).len(), 1);
        assert_eq!(no_other_list("deny.toml", "[bans]").len(), 1);
    }
}
