//! Names of streams, several at once.

use super::key::StreamKey;

/// Which streams are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// One.
    One(StreamKey),
    /// All whose names begin so.
    Prefix(String),
}

impl Pattern {
    /// Reads a stream's name, or the beginning of one and a `*`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let Some(prefix) = text.strip_suffix('*') else {
            return StreamKey::parse(text).map(Pattern::One);
        };
        if prefix.contains('*') {
            return Err("may have one * only, at its end".to_owned());
        }
        if !prefix.is_empty() {
            // What follows the prefix is a name, or the rest of one.
            let rest = if prefix.contains('/') { "x" } else { "x/x" };
            StreamKey::parse(&format!("{prefix}{rest}"))?;
        }
        Ok(Pattern::Prefix(prefix.to_owned()))
    }

    /// Whether a stream is meant.
    pub fn fits(&self, key: &StreamKey) -> bool {
        match self {
            Pattern::One(one) => one == key,
            Pattern::Prefix(prefix) => key.as_str().starts_with(prefix.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_the_beginning_of_one() {
        let key = |text| StreamKey::parse(text).unwrap();
        assert!(Pattern::parse("live/a").unwrap().fits(&key("/live/a")));
        assert!(!Pattern::parse("live/a").unwrap().fits(&key("live/ab")));
        assert!(Pattern::parse("live/a*").unwrap().fits(&key("live/ab")));
        assert!(Pattern::parse("*").unwrap().fits(&key("live/ab")));
        for bad in ["", "live", "a/*b", "**", "a b/*", "/../*"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
