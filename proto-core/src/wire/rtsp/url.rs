//! RTSP URLs (RFC 2326, section 3.2), as far as servers and clients look into them.

use std::fmt;

/// The port of `rtsp://` where none is said.
pub const PORT: u16 = 554;
/// The port of `rtsps://` where none is said.
pub const PORT_TLS: u16 = 322;

/// A URL, cut in parts. Nothing is decoded.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// `rtsps`.
    pub tls: bool,
    /// Name and password before the `@`.
    pub user: Option<(String, String)>,
    /// A name or address, without brackets.
    pub host: String,
    /// The port, or the scheme's.
    pub port: u16,
    /// Path and query, with the slash (empty where the URL ends with its host).
    pub path_query: String,
}

impl Url {
    /// Reads an absolute URL.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Url, String> {
        let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
        let (tls, rest) = if lower.starts_with("rtsp://") {
            (false, text.get(7..))
        } else if lower == "rtsps://" {
            (true, text.get(8..))
        } else {
            (false, None)
        };
        let shown = || crate::error::quote(&redact(text));
        let Some(rest) = rest else { return Err(format!("{} is no rtsp:// or rtsps:// address", shown())) };
        let (authority, path_query) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at_checked(at).unwrap_or((rest, "")),
            None => (rest, ""),
        };
        let (user, host_port) = match authority.rsplit_once('@') {
            Some((user, rest)) => {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                (Some((name.to_owned(), password.to_owned())), rest)
            }
            None => (None, authority),
        };
        let (host, port) = split_host_port(host_port);
        let port = match port {
            None | Some("") => {
                if tls {
                    PORT_TLS
                } else {
                    PORT
                }
            }
            Some(p) => match p.parse().ok().filter(|n| *n != 0 && p.bytes().all(|b| b.is_ascii_digit())) {
                Some(port) => port,
                None => return Err(format!("{} has no valid port", shown())),
            },
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || c == ']') {
            return Err(format!("{} has no valid host", shown()));
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(format!("{} has a space in it", shown()));
        }
        Ok(Url { tls, user, host: host.to_owned(), port, path_query: path_query.to_owned() })
    }

    /// Path without query.
    pub fn path(&self) -> &str {
        self.path_query.split('?').next().unwrap_or_default()
    }
}

/// The URL without name and password, as it goes on the wire.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.tls { ("rtsps", PORT_TLS) } else { ("rtsp", PORT) };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}", self.host)?;
        if self.port != usual {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.path_query)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Passwords do not belong in logs.
        fmt::Display::fmt(self, f)
    }
}

/// Host (without brackets) and port of `host`, `host:port`, `[host]` or `[host]:port`.
pub fn split_host_port(text: &str) -> (&str, Option<&str>) {
    match text.strip_prefix('[').and_then(|r| r.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    }
}

/// A text that may be a URL with a password in it, made fit for a log.
fn redact(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(a), Some(b)) if a + 3 <= b => {
            format!("{}…{}", text.get(..a + 3).unwrap_or_default(), text.get(b..).unwrap_or_default())
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_are_found_and_the_password_is_not_shown() {
        let u = Url::parse("rtsp://admin:p@ss:w@10.0.0.7:8554/live/s?channel=1").unwrap();
        assert_eq!((u.host.as_str(), u.port, u.path()), ("10.0.0.7", 8554, "/live/s"));
        assert_eq!(u.user, Some(("admin".to_owned(), "p@ss:w".to_owned())));
        assert_eq!(u.to_string(), "rtsp://10.0.0.7:8554/live/s?channel=1");
        assert!(!format!("{u:?}").contains("w@"));
        let u = Url::parse("RTSPS://[::1]/x").unwrap();
        assert_eq!((u.tls, u.port, u.to_string()), (true, 322, "rtsps://[::1]/x".to_owned()));
        assert_eq!(Url::parse("rtsp://cam").unwrap().port, 554);
    }

    #[test]
    fn others_are_refused_in_words_without_the_password() {
        for bad in
            ["", "http://x/", "rtsp://", "rtsp://h:0/", "rtsp://h:x/", "rtsp://h:+5/", "rtsp://h/a b", "*"]
        {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
        let error = Url::parse("rtsp://u:secret@h:99999/").unwrap_err();
        assert!(error.contains("valid port") && !error.contains("secret"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_what_is_written_is_read_again(text in "(rtsps?://)?\\PC{0,60}") {
            if let Ok(url) = Url::parse(&text) {
                let again = Url::parse(&url.to_string()).unwrap();
                prop_assert_eq!(again, Url { user: None, ..url });
            }
        }
    }
}
