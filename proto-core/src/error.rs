//! Why things end: whose fault it was, a fixed code for counters, and words for an operator.

use std::borrow::Cow;
use std::fmt;

/// Whose fault an end or a refusal was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The peer did it: it left, or it broke its protocol.
    Peer,
    /// This node did it: it is draining, it was told to, or it has a defect.
    Local,
    /// A limit of `limits.rs` was reached.
    Limit,
}

/// Why a session, connection or request ended or was refused.
///
/// `code` is a fixed snake_case word (a metric label, safe to count by); `text` is a sentence that an operator
/// understands and may quote what the peer sent, escaped and cut by [`quote`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Whose fault it was.
    pub fault: Fault,
    /// A fixed word for counters and tests.
    pub code: &'static str,
    /// What happened and, where there is one, what to do about it.
    pub text: Cow<'static, str>,
}

impl Reason {
    /// The peer's doing.
    pub fn peer(code: &'static str, text: impl Into<Cow<'static, str>>) -> Reason {
        Reason { fault: Fault::Peer, code, text: text.into() }
    }

    /// This node's doing.
    pub fn local(code: &'static str, text: impl Into<Cow<'static, str>>) -> Reason {
        Reason { fault: Fault::Local, code, text: text.into() }
    }

    /// A limit's doing.
    pub fn limit(code: &'static str, text: impl Into<Cow<'static, str>>) -> Reason {
        Reason { fault: Fault::Limit, code, text: text.into() }
    }
}

impl Reason {
    /// Whether this server itself is at fault, by a defect: an operator must hear of it.
    pub fn is_defect(&self) -> bool {
        self.code == "panic" || self.code == "broken" || BROKEN.iter().any(|(_, code)| *code == self.code)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.code)
    }
}

/// An invariant of this server that does not hold: a defect, never a peer's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The invariant's name, such as `S7`.
    pub invariant: &'static str,
    /// What does not fit what, with both numbers.
    pub text: String,
}

/// The codes of reasons that tell of a broken invariant. Assertions in service are of these, and of no others.
const BROKEN: [(&str, &str); 4] =
    [("S1", "broken_s1"), ("S3", "broken_s3"), ("S6", "broken_s6"), ("S9", "broken_s9")];

impl Broken {
    /// Why the one session or stream ends that it was found in.
    pub fn reason(&self) -> Reason {
        let code =
            BROKEN.iter().find(|(name, _)| *name == self.invariant).map_or("broken", |(_, code)| *code);
        let text = format!(
            "a defect in this server was found in time ({}): {}. This alone was ended, all else goes on; please report \
             it with this line, and if it comes again with a recording (serve --record)",
            self.invariant, self.text
        );
        Reason::local(code, text)
    }

    /// Nothing if `holds`, else what is broken.
    ///
    /// # Errors
    /// If it does not hold.
    pub fn unless(holds: bool, invariant: &'static str, text: impl FnOnce() -> String) -> Result<(), Broken> {
        if holds { Ok(()) } else { Err(Broken { invariant, text: text() }) }
    }
}

/// A peer's text made safe for a log line: control characters, quotes and non-ASCII escaped, at most 128
/// characters of it (abuse A25).
pub fn quote(text: &str) -> String {
    quote_up_to(text, 128)
}

/// As [`quote`], of a text that is ours for the most part: with `most` characters of it.
pub fn quote_up_to(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most) + 2);
    out.push('"');
    for (i, c) in text.chars().enumerate() {
        if i == most {
            out.push('…');
            break;
        }
        if c.is_control() || c == '"' || c == '\\' || !c.is_ascii() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_broken_is_a_defect_under_its_own_code() {
        assert_eq!(Broken::unless(true, "S9", String::new), Ok(()));
        let broken = Broken::unless(false, "S9", || "media to nobody".to_owned()).unwrap_err();
        let reason = broken.reason();
        assert!(reason.is_defect() && reason.code == "broken_s9" && reason.text.contains("media to nobody"));
        assert!(!Reason::peer("left", "").is_defect());
    }

    #[test]
    fn quoting_keeps_log_lines_whole() {
        assert_eq!(quote("a\nb\"\u{1b}[0m"), "\"a\\nb\\\"\\u{1b}[0m\"");
        assert_eq!(quote(&"x".repeat(500)).chars().count(), 131);
    }
}
