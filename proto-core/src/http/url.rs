//! HTTP addresses (RFC 9110, section 4.2) of servers that an operator names.

use crate::error::quote;
use crate::wire::rtsp::url::split_host_port;
use std::fmt;

/// An `http://` or `https://` address, cut in parts. Nothing is decoded.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl {
    /// `https`.
    pub tls: bool,
    /// A name or address, without brackets.
    pub host: String,
    /// The port, or the scheme's.
    pub port: u16,
    /// Path and query, beginning with a slash.
    pub path_query: String,
}

impl HttpUrl {
    /// Whether a text says that it is such an address (whatever else is wrong with it).
    pub fn is_meant(text: &str) -> bool {
        text.contains("://")
    }

    /// Reads an address.
    ///
    /// # Errors
    /// The end of a sentence: what is wrong with it. The text itself is in it without what may be secret.
    pub fn parse(text: &str) -> Result<HttpUrl, String> {
        let cut = |scheme: &str| text.get(..scheme.len()).filter(|s| s.eq_ignore_ascii_case(scheme));
        let tls = cut("https://").is_some();
        let rest = cut("https://").or_else(|| cut("http://")).and_then(|s| text.get(s.len()..));
        let Some(rest) = rest else {
            let scheme = text.split_once("://").map_or("no scheme", |(scheme, _)| scheme);
            return Err(format!("must begin with http:// or https://, not with {}", quote(scheme)));
        };
        if text.contains(|c: char| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
            return Err(
                "may have no spaces and only ASCII characters; write them as %20 and so on".to_owned()
            );
        }
        if rest.contains('#') {
            return Err("may have no #".to_owned());
        }
        let (authority, path_query) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at_checked(at).unwrap_or((rest, "")),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err("may have no user and password in it; auth.callback_token says who asks".to_owned());
        }
        let (host, port) = split_host_port(authority);
        let port = match port {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(p) => p
                .parse()
                .ok()
                .filter(|n| *n != 0 && p.bytes().all(|b| b.is_ascii_digit()))
                .ok_or("has no valid port; it is 1 to 65535")?,
        };
        if host.is_empty() || host.contains(['[', ']']) {
            return Err("has no valid host".to_owned());
        }
        let slash = if path_query.starts_with('/') { "" } else { "/" };
        Ok(HttpUrl { tls, host: host.to_owned(), port, path_query: format!("{slash}{path_query}") })
    }

    /// Host and port as a `Host` header has them; the port only where it is not the scheme's.
    pub fn authority(&self) -> String {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        let usual = if self.tls { 443 } else { 80 };
        let port = if self.port == usual { String::new() } else { format!(":{}", self.port) };
        format!("{open}{}{close}{port}", self.host)
    }

    /// Whether the server is on this host, or what goes there cannot be read on the way.
    pub fn is_private(&self) -> bool {
        let ip = self.host.parse::<std::net::IpAddr>();
        self.tls || self.host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    }
}

/// The address without its query, which may be secret.
impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, query) =
            self.path_query.split_once('?').map_or((&*self.path_query, ""), |(p, _)| (p, "?…"));
        write!(f, "{}://{}{path}{query}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_are_found_and_the_query_is_not_shown() {
        let u = HttpUrl::parse("http://auth.example:8080/may?key=geheim").unwrap();
        assert_eq!((u.tls, u.host.as_str(), u.port), (false, "auth.example", 8080));
        assert_eq!(
            (u.path_query.as_str(), u.authority()),
            ("/may?key=geheim", "auth.example:8080".to_owned())
        );
        assert_eq!(format!("{u} {u:?}").matches("geheim").count(), 0);
        let u = HttpUrl::parse("HTTPS://[::1]").unwrap();
        assert_eq!((u.tls, u.port, u.path_query.as_str()), (true, 443, "/"));
        assert_eq!((u.to_string(), u.is_private()), ("https://[::1]/".to_owned(), true));
        assert_eq!(HttpUrl::parse("http://h?x").unwrap().path_query, "/?x");
        assert!(HttpUrl::parse("http://127.0.0.1/").unwrap().is_private());
        assert!(!HttpUrl::parse("http://10.0.0.1/").unwrap().is_private());
    }

    #[test]
    fn what_is_none_is_said_without_its_secrets() {
        for (bad, why) in [
            ("ftp://h/", "\"ftp\""),
            ("h/x", "no scheme"),
            ("http://", "host"),
            ("http://h:0/", "port"),
            ("http://h:+8/", "port"),
            ("http://h:99999/", "port"),
            ("http://u:geheim@h/", "auth.callback_token"),
            ("http://h/a b", "spaces"),
            ("http://h/#x", "#"),
        ] {
            let text = HttpUrl::parse(bad).unwrap_err();
            assert!(text.contains(why) && !text.contains("geheim"), "{bad}: {text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_and_read_again(text in "(https?://)?[a-z\\[\\]:.@/?#%0-9]{0,40}") {
            if let Ok(url) = HttpUrl::parse(&text) {
                let scheme = if url.tls { "https" } else { "http" };
                let again = format!("{scheme}://{}{}", url.authority(), url.path_query);
                prop_assert_eq!(HttpUrl::parse(&again).unwrap(), url);
            }
        }
    }
}
