//! Patterns of streams' names: `live/demo`, `live/*`, `live/**`, `cam-*/main`.

use crate::error::quote;
use crate::media::key::{SEGMENT_MAX, SEGMENTS_MAX, StreamKey};
use std::fmt;

/// What stands in a pattern between slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// `**`: any segments, also none.
    Any,
    /// A segment; `*` stands for any characters of it, also none.
    Glob(String),
}

/// A pattern of streams' names. `*` stands for any characters within a segment, `**` for any segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
}

impl Pattern {
    /// Every stream.
    pub fn all() -> Pattern {
        Pattern { parts: vec![Part::Any] }
    }

    /// Reads a pattern.
    ///
    /// # Errors
    /// A sentence if no stream's name could ever fit, because of a character or its length.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let mut parts = Vec::new();
        for segment in text.trim_matches('/').split('/') {
            if segment == "**" {
                // Two in a row mean the same as one.
                if parts.last() != Some(&Part::Any) {
                    parts.push(Part::Any);
                }
                continue;
            }
            let fits = |c: char| c.is_ascii_alphanumeric() || "._~-*".contains(c);
            if segment.is_empty()
                || segment.len() > SEGMENT_MAX
                || segment.contains("**")
                || !segment.chars().all(fits)
            {
                return Err(format!(
                    "the pattern {} has the part {}; a part is made of A-Z a-z 0-9 . _ ~ - and *, or is ** by itself",
                    quote(text),
                    quote(segment)
                ));
            }
            parts.push(Part::Glob(segment.to_owned()));
        }
        if parts.len() > SEGMENTS_MAX {
            return Err(format!("the pattern {} has more than {SEGMENTS_MAX} parts", quote(text)));
        }
        Ok(Pattern { parts })
    }

    /// Whether a stream's name fits.
    pub fn matches(&self, key: &StreamKey) -> bool {
        let segments: Vec<&str> = key.as_str().split('/').collect();
        fits(&self.parts, &segments)
    }
}

/// At most [`SEGMENTS_MAX`] parts and segments, so the recursion is small.
fn fits(parts: &[Part], segments: &[&str]) -> bool {
    match (parts.split_first(), segments.split_first()) {
        (None, None) => true,
        (Some((Part::Any, rest)), None) => fits(rest, segments),
        (Some((Part::Any, rest)), Some((_, after))) => fits(rest, segments) || fits(parts, after),
        (Some((Part::Glob(glob), rest)), Some((segment, after))) => {
            glob_fits(glob, segment) && fits(rest, after)
        }
        _ => false,
    }
}

/// Whether a segment fits a glob, in time that grows with their product at most.
fn glob_fits(glob: &str, segment: &str) -> bool {
    let (g, s) = (glob.as_bytes(), segment.as_bytes());
    let (mut at_g, mut at_s) = (0, 0);
    // Where the last star was, and up to where it has swallowed.
    let mut star: Option<(usize, usize)> = None;
    while at_s < s.len() {
        match g.get(at_g) {
            Some(b'*') => {
                star = Some((at_g, at_s));
                at_g += 1;
            }
            Some(c) if s.get(at_s) == Some(c) => {
                at_g += 1;
                at_s += 1;
            }
            _ => {
                let Some((star_g, star_s)) = star else { return false };
                star = Some((star_g, star_s + 1));
                at_g = star_g + 1;
                at_s = star_s + 1;
            }
        }
    }
    g.get(at_g..).unwrap_or_default().iter().all(|c| *c == b'*')
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, part) in self.parts.iter().enumerate() {
            if n > 0 {
                f.write_str("/")?;
            }
            f.write_str(match part {
                Part::Any => "**",
                Part::Glob(glob) => glob,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn fit(pattern: &str, key: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(&StreamKey::parse(key).unwrap())
    }

    #[test]
    fn stars_stay_in_their_segment_and_double_stars_do_not() {
        for (pattern, key, yes) in [
            ("live/demo", "live/demo", true),
            ("/live/demo/", "live/demo", true),
            ("live/demo", "live/demo2", false),
            ("live/*", "live/demo", true),
            ("live/*", "live/room/demo", false),
            ("live/**", "live/room/demo", true),
            ("live/**", "lively/demo", false),
            ("**", "a/b/c/d", true),
            ("**/main", "a/b/main", true),
            ("**/main", "a/b/main2", false),
            ("*/cam-*", "x/cam-7", true),
            ("*/cam-*", "x/cam", false),
            ("a*b*c/x", "aXbYc/x", true),
            ("a*b*c/x", "aXbYcZ/x", false),
            ("live/**/hd", "live/hd", true),
        ] {
            assert_eq!(fit(pattern, key), yes, "{pattern} {key}");
        }
    }

    #[test]
    fn what_could_never_fit_is_said() {
        for bad in ["", "live//x", "live/a b", "live/a**", "live/ü", "a/b/c/d/e/f/g/h/i"] {
            assert!(Pattern::parse(bad).unwrap_err().contains("pattern"), "{bad}");
        }
        assert_eq!(Pattern::parse("a/**/**/b*").unwrap().to_string(), "a/**/b*");
    }

    proptest! {
        #[test]
        fn a_name_fits_itself_and_any_name_with_stars_in_it(
            name in "[a-z0-9._~-]{1,12}/[a-z0-9]{1,12}", cut in 0usize..24
        ) {
            prop_assume!(StreamKey::parse(&name).is_ok());
            prop_assert!(fit(&name, &name));
            let cut = cut.min(name.len());
            let starred = format!("{}*{}", &name[..cut], &name[cut..]);
            prop_assert!(fit(&starred, &name), "{}", starred);
            let suffix = format!("{}*", &name[..name.len() - 1]);
            prop_assert!(fit(&suffix, &name));
        }

        #[test]
        fn globs_agree_with_the_definition(glob in "[ab*]{0,8}", text in "[ab]{0,8}") {
            fn slow(g: &[u8], s: &[u8]) -> bool {
                match (g.split_first(), s.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), None) => slow(rest, s),
                    (Some((b'*', rest)), Some((_, after))) => slow(rest, s) || slow(g, after),
                    (Some((c, rest)), Some((d, after))) => c == d && slow(rest, after),
                    _ => false,
                }
            }
            prop_assert_eq!(glob_fits(&glob, &text), slow(glob.as_bytes(), text.as_bytes()));
        }
    }
}
