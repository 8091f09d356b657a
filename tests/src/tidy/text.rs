//! Rust source as the rules see it: without comments and literals, and without what only tests see.

use super::File;
use std::collections::BTreeSet;

/// The same text with comments and the content of string and character literals blanked out; lines stay in place.
pub fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = String::with_capacity(text.len());
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    let mut i = 0;
    while i < chars.len() {
        let (c, next) = (at(i), at(i + 1));
        let end = if c == '/' && next == '/' {
            (i..chars.len()).find(|&j| at(j) == '\n').unwrap_or(chars.len())
        } else if c == '/' && next == '*' {
            end_of_block_comment(&chars, i)
        } else if let Some(end) = end_of_raw_string(&chars, i) {
            end
        } else if c == '"' {
            end_of_string(&chars, i)
        } else if c == '\'' && next == '\\' {
            (i + 3..chars.len()).find(|&j| at(j) == '\'').map_or(chars.len(), |j| j + 1)
        } else if c == '\'' && at(i + 2) == '\'' {
            i + 3
        } else {
            out.push(c);
            i += 1;
            continue;
        };
        out.extend(chars[i..end.min(chars.len())].iter().map(|&c| blank(c)));
        i = end;
    }
    out
}

fn end_of_block_comment(chars: &[char], from: usize) -> usize {
    let (mut depth, mut i) = (0, from);
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn end_of_string(chars: &[char], from: usize) -> usize {
    let mut i = from + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

fn end_of_raw_string(chars: &[char], from: usize) -> Option<usize> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    if chars.get(from) != Some(&'r') {
        return None;
    }
    // `r` may stand after a `b` or `c`, but not inside a longer word.
    let before = from.checked_sub(1).map_or(' ', |i| chars[i]);
    let two_before = from.checked_sub(2).map_or(' ', |i| chars[i]);
    if word(before) && (!matches!(before, 'b' | 'c') || word(two_before)) {
        return None;
    }
    let hashes = chars[from + 1..].iter().take_while(|&&c| c == '#').count();
    if chars.get(from + 1 + hashes) != Some(&'"') {
        return None;
    }
    let close = |&i: &usize| {
        chars[i] == '"' && chars[i + 1..].iter().take_while(|&&c| c == '#').take(hashes).count() == hashes
    };
    Some((from + 2 + hashes..chars.len()).find(close).map_or(chars.len(), |i| i + 1 + hashes))
}

/// Code (see [`code_only`]) with every item under `#[cfg(test)]` blanked out.
pub fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.to_owned();
    while let Some(start) = out.find(MARK) {
        let end = end_of_item(&out, start + MARK.len());
        let blank: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}

/// Where the item that begins after `from` ends: its `;`, or the brace that closes its first one.
fn end_of_item(code: &str, from: usize) -> usize {
    let mut depth = 0usize;
    for (i, c) in code[from..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return from + i + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return from + i + 1,
            _ => {}
        }
    }
    code.len()
}

/// The files that only tests see: `tests.rs`, all below a `tests` directory, and every `#[cfg(test)] mod x;`.
pub fn test_only(files: &[File]) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let mut roots: Vec<String> = Vec::new();
    for file in files.iter().filter(|f| f.path.ends_with(".rs")) {
        let named = file.path.ends_with("/tests.rs") || file.path.ends_with("_tests.rs");
        // `tests/` itself is the crate of this file: its library is support code, its tests are tests.
        let placed = file
            .path
            .strip_prefix("tests/")
            .unwrap_or(&file.path)
            .split('/')
            .rev()
            .skip(1)
            .any(|d| d == "tests");
        if named || placed {
            out.insert(file.path.clone());
        }
        let (dir, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let stem = name.trim_end_matches(".rs");
        let base =
            if matches!(stem, "mod" | "lib" | "main") { dir.to_owned() } else { format!("{dir}/{stem}") };
        let code = code_only(&file.text);
        for (at, mark) in code.match_indices("#[cfg(test)]") {
            let item = &code[at + mark.len()..end_of_item(&code, at + mark.len())];
            let words: Vec<&str> = item.trim_end_matches(';').split_whitespace().collect();
            if item.ends_with(';') && words.len() >= 2 && words[words.len() - 2] == "mod" {
                roots.push(format!("{base}/{}", words[words.len() - 1]));
            }
        }
    }
    for file in files {
        let below = |r: &String| file.path == format!("{r}.rs") || file.path.starts_with(&format!("{r}/"));
        if roots.iter().any(below) {
            out.insert(file.path.clone());
        }
    }
    out
}

/// Where `needle` stands as whole words in `code`: (line counted from 1, byte position).
pub fn words<'a>(code: &'a str, needle: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
    let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(needle).filter_map(move |(at, _)| {
        let (before, after) = (code[..at].chars().next_back(), code[at + needle.len()..].chars().next());
        let (first, last) = (needle.chars().next(), needle.chars().next_back());
        let whole = !(word(first) && word(before) || word(last) && word(after));
        whole.then(|| (line_of(code, at), at))
    })
}

/// The line of a byte position, counted from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text =
            "a /* b /* c */ d */ e // f\n\"g\\\"h\" i r#\"j\"k\"# l 'm' '\\'' &'n o b\"p\" br\"q\" for\"s\"";
        let code = code_only(text);
        let left: Vec<&str> = code.split_whitespace().collect();
        assert_eq!(left, ["a", "e", "i", "l", "&'n", "o", "b", "b", "for"].map(|w| w), "{code:?}");
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn test_items_are_left_out_and_lines_stay() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { { } }\n}\nfn c() {}\n#[cfg(test)]\nmod d;\nfn e() {}";
        let left = without_tests(code);
        for (word, stays) in
            [("fn a", true), ("fn b", false), ("fn c", true), ("mod d", false), ("fn e", true)]
        {
            assert_eq!(left.contains(word), stays, "{word}");
        }
        assert_eq!(left.lines().count(), code.lines().count());
    }

    #[test]
    fn test_files_are_known_by_name_place_and_declaration() {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let files = [
            file("proto-core/src/hub/mod.rs", "mod ring;\n#[cfg(test)]\nmod world;\n"),
            file("proto-core/src/hub/ring.rs", "#[cfg(test)]\nmod props;\n"),
            file("proto-core/src/hub/ring/props.rs", ""),
            file("proto-core/src/hub/world.rs", ""),
            file("proto-core/src/hub/tests.rs", ""),
            file("tests/src/harness.rs", ""),
            file("tests/tests/tidy.rs", ""),
        ];
        let known: Vec<String> = test_only(&files).into_iter().collect();
        let wanted =
            ["hub/ring/props.rs", "hub/tests.rs", "hub/world.rs"].map(|p| format!("proto-core/src/{p}"));
        assert_eq!(known[..3], wanted);
        assert_eq!(known[3..], ["tests/tests/tidy.rs"]);
    }

    #[test]
    fn words_are_whole() {
        assert_eq!(words("std::fs::x stdx::fs std::fs2", "std::fs").count(), 1);
        assert_eq!(words("a\nunsafe {}", "unsafe").map(|(l, _)| l).collect::<Vec<_>>(), [2]);
    }
}
