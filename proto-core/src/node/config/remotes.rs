//! Streams of other servers: where this node pulls from, where it pushes to, and how both are written in a configuration.

use crate::error::quote;
use crate::media::key::StreamKey;
pub use crate::media::pattern::Pattern;
use crate::wire::rtsp::url;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The port of `rtmp://` where none is said.
const RTMP_PORT: u16 = 1935;
/// The port of `rtmps://` where none is said.
const RTMPS_PORT: u16 = 443;

/// A URL as it was written. Shown without what may be secret in it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RemoteUrl(pub String);

impl fmt::Debug for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Template::parse(&self.0) {
            Ok(t) => f.write_str(&t.shown(true)),
            Err(_) => f.write_str("…"),
        }
    }
}

/// When a source is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// While somebody watches.
    #[default]
    Demand,
    /// All the time.
    Always,
}

impl When {
    /// The word in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            When::Demand => "demand",
            When::Always => "always",
        }
    }
}

/// What carries the media of an RTSP source or destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carries {
    /// The connection; datagrams where the server refuses that.
    #[default]
    Auto,
    /// The connection only.
    Tcp,
    /// Datagrams; the connection where the server refuses that or none come.
    Udp,
}

/// A stream that this node pulls from another server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The stream's name here, or a pattern such as `cams/*` (on demand only).
    pub stream: String,
    /// Where it is: `rtsp://[USER:PASSWORD@]HOST[:PORT]/PATH` or `rtmp://HOST[:PORT]/APP/NAME`. `{stream}`, `{app}` and
    /// `{name}` stand for the stream's own.
    pub url: RemoteUrl,
    /// `demand` or `always`.
    #[serde(default)]
    pub when: When,
    /// `auto`, `tcp` or `udp`; for RTSP.
    #[serde(default)]
    pub transport: Carries,
}

/// A server that this node pushes streams to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// The stream's name here, or a pattern such as `live/*`.
    pub stream: String,
    /// Where to, as in a [`Source`].
    pub url: RemoteUrl,
    /// As in a [`Source`].
    #[serde(default)]
    pub transport: Carries,
}

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// RTSP.
    Rtsp,
    /// RTSP over TLS.
    Rtsps,
    /// RTMP.
    Rtmp,
    /// RTMP over TLS.
    Rtmps,
}

impl Scheme {
    const ALL: [Scheme; 4] = [Scheme::Rtsp, Scheme::Rtsps, Scheme::Rtmp, Scheme::Rtmps];

    /// The word before `://`.
    pub const fn name(self) -> &'static str {
        match self {
            Scheme::Rtsp => "rtsp",
            Scheme::Rtsps => "rtsps",
            Scheme::Rtmp => "rtmp",
            Scheme::Rtmps => "rtmps",
        }
    }

    /// The port where none is said.
    pub const fn port(self) -> u16 {
        match self {
            Scheme::Rtsp => url::PORT,
            Scheme::Rtsps => url::PORT_TLS,
            Scheme::Rtmp => RTMP_PORT,
            Scheme::Rtmps => RTMPS_PORT,
        }
    }

    /// Whether it is RTMP.
    pub const fn is_rtmp(self) -> bool {
        matches!(self, Scheme::Rtmp | Scheme::Rtmps)
    }

    /// Whether it is in TLS.
    pub const fn is_secure(self) -> bool {
        matches!(self, Scheme::Rtsps | Scheme::Rtmps)
    }
}

/// A stream of another server.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// A name or address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Name and password, decoded.
    pub user: Option<(String, String)>,
    /// Path and query, with the slash.
    pub path_query: String,
    /// What people see of it.
    pub shown: String,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Target {
    /// Host and port as they stand in a URL; the port only where it is not the scheme's.
    pub fn authority(&self) -> String {
        authority(self.scheme, &self.host, self.port)
    }

    /// App and name of an RTMP stream: the path's last part is the name, and the query goes with it.
    pub fn app_and_name(&self) -> (&str, &str) {
        let path_end = self.path_query.find('?').unwrap_or(self.path_query.len());
        let path = self.path_query.get(..path_end).unwrap_or_default();
        let slash = path.rfind('/').unwrap_or(0);
        let app = path.get(..slash).unwrap_or_default().trim_start_matches('/');
        (app, self.path_query.get(slash + 1..).unwrap_or_default())
    }

    /// The same for the RTSP client.
    pub fn rtsp(&self) -> url::Url {
        url::Url {
            tls: self.scheme.is_secure(),
            user: self.user.clone(),
            host: self.host.clone(),
            port: self.port,
            path_query: self.path_query.clone(),
        }
    }

    /// Where an RTSP server sent us.
    pub fn of_rtsp(url: &url::Url) -> Target {
        let scheme = if url.tls { Scheme::Rtsps } else { Scheme::Rtsp };
        Target {
            scheme,
            host: url.host.clone(),
            port: url.port,
            user: url.user.clone(),
            path_query: url.path_query.clone(),
            shown: shown(scheme, &url.host, url.port, &url.path_query, false),
        }
    }
}

fn authority(scheme: Scheme, host: &str, port: u16) -> String {
    let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
    let port = if port == scheme.port() { String::new() } else { format!(":{port}") };
    format!("{open}{host}{close}{port}")
}

/// A URL without what may be secret: name and password, the query, and the name of a stream that is pushed, which is its
/// key at many services, Headwater among them.
fn shown(scheme: Scheme, host: &str, port: u16, path_query: &str, hide_name: bool) -> String {
    let (path, query) = path_query.split_once('?').map_or((path_query, ""), |(p, _)| (p, "?…"));
    let (path, name) = match path.rsplit_once('/') {
        Some((path, _)) if hide_name => (path, "/…"),
        _ => (path, ""),
    };
    format!("{}://{}{path}{name}{query}", scheme.name(), authority(scheme, host, port))
}

/// A URL with places for the stream's name.
#[derive(Clone, PartialEq, Eq)]
struct Template {
    scheme: Scheme,
    host: String,
    port: u16,
    user: Option<(String, String)>,
    path_query: String,
}

impl Template {
    fn parse(text: &str) -> Result<Template, String> {
        let (scheme, rest) =
            text.split_once("://").ok_or("must begin with rtsp://, rtsps://, rtmp:// or rtmps://")?;
        let scheme = Scheme::ALL.into_iter().find(|s| s.name().eq_ignore_ascii_case(scheme));
        let scheme = scheme.ok_or("must begin with rtsp://, rtsps://, rtmp:// or rtmps://")?;
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("has a space in it; write %20".to_owned());
        }
        let (place, path_query) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at_checked(at).unwrap_or((rest, "")),
            None => (rest, ""),
        };
        let (user, host_port) = match place.rsplit_once('@') {
            Some((user, rest)) => {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                (Some((decode(name)?, decode(password)?)), rest)
            }
            None => (None, place),
        };
        let (host, port) = url::split_host_port(host_port);
        let port = match port {
            None => scheme.port(),
            Some(p) => p.parse().ok().filter(|n| *n != 0).ok_or("has no valid port; it is 1 to 65535")?,
        };
        if host.is_empty() || host.contains(|c: char| "{}[]@".contains(c)) {
            return Err("has no valid host; places for names can only stand in the path".to_owned());
        }
        if scheme.is_rtmp() {
            if user.is_some() {
                return Err(
                    "has a name and a password, which RTMP has no place for; many servers take a key in the \
                            stream's name or its query"
                        .to_owned(),
                );
            }
            let path = path_query.split('?').next().unwrap_or_default().trim_matches('/');
            if !path.contains('/') && !path.contains("{stream}") {
                return Err("needs an application and a name, as in rtmp://HOST/APP/NAME".to_owned());
            }
        }
        let template = Template {
            scheme,
            host: host.to_owned(),
            port,
            user,
            path_query: if path_query.starts_with('?') {
                format!("/{path_query}")
            } else {
                path_query.to_owned()
            },
        };
        template.expand("a/b", "a", "b")?;
        Ok(template)
    }

    fn has_places(&self) -> bool {
        self.path_query.contains('{')
    }

    fn expand(&self, stream: &str, app: &str, name: &str) -> Result<String, String> {
        let (mut out, mut rest) = (String::new(), self.path_query.as_str());
        while let Some((before, after)) = rest.split_once('{') {
            let (place, after) = after.split_once('}').ok_or("has a { without a }")?;
            out.push_str(before);
            out.push_str(match place {
                "stream" => stream,
                "app" => app,
                "name" => name,
                other => {
                    return Err(format!(
                        "has {{{}}}; known are {{stream}}, {{app}} and {{name}}",
                        quote(other)
                    ));
                }
            });
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn shown(&self, pushed: bool) -> String {
        shown(self.scheme, &self.host, self.port, &self.path_query, self.hides_name(pushed))
    }

    /// Whether the last part of the path may be a secret.
    fn hides_name(&self, pushed: bool) -> bool {
        let path = self.path_query.split('?').next().unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default();
        pushed && !["{stream}", "{name}"].contains(&name)
    }

    fn target(&self, key: &StreamKey, pushed: bool) -> Target {
        // That every place is known was seen when it was parsed.
        let path_query = self.expand(key.as_str(), key.app(), key.name()).unwrap_or_default();
        Target {
            scheme: self.scheme,
            host: self.host.clone(),
            port: self.port,
            user: self.user.clone(),
            shown: shown(self.scheme, &self.host, self.port, &path_query, self.hides_name(pushed)),
            path_query,
        }
    }
}

/// Percent-encoding undone (RFC 3986, section 2.1).
fn decode(text: &str) -> Result<String, String> {
    let wrong =
        || "has a % in name or password that no two hexadecimal digits follow; write it as %25".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        bytes.push(if b == b'%' {
            let mut digit = || rest.next().and_then(|d| char::from(d).to_digit(16));
            let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
            (high << 4 | low) as u8
        } else {
            b
        });
    }
    String::from_utf8(bytes).map_err(|_| "has a name or password that is no text in UTF-8".to_owned())
}

/// A [`Source`] or [`Destination`] that was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its streams.
    pub pattern: Pattern,
    /// When; a destination is always pushed to while a stream is there.
    pub when: When,
    /// What carries media.
    pub carries: Carries,
    /// As it was written.
    pub stream: String,
    pushed: bool,
    template: Template,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.stream, self.shown())
    }
}

impl Rule {
    /// Where one of its streams is.
    pub fn target(&self, key: &StreamKey) -> Target {
        self.template.target(key, self.pushed)
    }

    /// Its URL for people.
    pub fn shown(&self) -> String {
        self.template.shown(self.pushed)
    }

    /// How its servers are spoken to.
    pub fn scheme(&self) -> Scheme {
        self.template.scheme
    }

    fn new(
        stream: &str,
        url: &RemoteUrl,
        when: When,
        carries: Carries,
        pushed: bool,
    ) -> Result<Rule, String> {
        let pattern = Pattern::parse(stream).map_err(|why| format!("stream: {why}"))?;
        let template = Template::parse(&url.0).map_err(|why| format!("url of {}: {why}", quote(stream)))?;
        if carries != Carries::Auto && template.scheme.is_rtmp() {
            return Err(format!("transport of {}: is for RTSP; RTMP has one way only", quote(stream)));
        }
        if matches!(pattern, Pattern::Prefix(_)) {
            if when == When::Always {
                return Err(format!(
                    "when of {}: a pattern can only be pulled on demand, for nobody says which names there are",
                    quote(stream)
                ));
            }
            if !template.has_places() {
                return Err(format!(
                    "url of {}: a pattern needs {{stream}} or {{name}} in the path, else all its streams are one",
                    quote(stream)
                ));
            }
        }
        Ok(Rule { pattern, when, carries, stream: stream.to_owned(), pushed, template })
    }
}

impl Source {
    /// Reads it.
    ///
    /// # Errors
    /// Which field is wrong and how. Without secrets.
    pub fn rule(&self) -> Result<Rule, String> {
        Rule::new(&self.stream, &self.url, self.when, self.transport, false)
    }
}

impl Destination {
    /// Reads it.
    ///
    /// # Errors
    /// As [`Source::rule`].
    pub fn rule(&self) -> Result<Rule, String> {
        Rule::new(&self.stream, &self.url, When::Demand, self.transport, true)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn source(stream: &str, url: &str) -> Source {
        Source {
            stream: stream.to_owned(),
            url: RemoteUrl(url.to_owned()),
            when: When::Demand,
            transport: Carries::Auto,
        }
    }

    fn destination(stream: &str, url: &str) -> Destination {
        Destination { stream: stream.to_owned(), url: RemoteUrl(url.to_owned()), transport: Carries::Auto }
    }

    fn key(text: &str) -> StreamKey {
        StreamKey::parse(text).unwrap()
    }

    #[test]
    fn urls_are_read_and_shown_without_secrets() {
        let rule = source("live/cam", "rtsp://ad%6Din:p%40ss@[fd00::7]/s?token=x").rule().unwrap();
        let t = rule.target(&key("live/cam"));
        assert_eq!((t.host.as_str(), t.port), ("fd00::7", 554));
        assert_eq!(t.user, Some(("admin".to_owned(), "p@ss".to_owned())));
        assert_eq!(t.shown, "rtsp://[fd00::7]/s?…");
        assert_eq!(t.path_query, "/s?token=x");
        let d = destination("live/*", "rtmp://a.example/live2/{name}?key=s3cret").rule().unwrap();
        let t = d.target(&key("live/show"));
        assert_eq!(t.app_and_name(), ("live2", "show?key=s3cret"));
        assert_eq!(t.shown, "rtmp://a.example/live2/show?…");
        let d = destination("live/x", "rtmp://a.example:1936/x/y/abcd-key").rule().unwrap();
        let t = d.target(&key("live/x"));
        assert_eq!((t.app_and_name(), t.port), (("x/y", "abcd-key"), 1936));
        assert_eq!(t.shown, "rtmp://a.example:1936/x/y/…");
        for shown in [format!("{d:?}"), format!("{t:?}"), d.shown()] {
            assert!(!shown.contains("abcd"), "{shown}");
        }
        let d = destination("live/x", "rtsp://a.example/live/abcd-key").rule().unwrap();
        assert_eq!(d.target(&key("live/x")).shown, "rtsp://a.example/live/…");
        let s = source("live/cam", "rtsp://admin:secret@h/x");
        assert!(!format!("{s:?}").contains("secret"));
        assert!(!format!("{:?}", source("live/cam", "rtsp://admin:secret@h:0/x")).contains("secret"));
    }

    #[test]
    fn patterns_fit_names_that_begin_so() {
        let all = destination("*", "rtmp://h/{stream}").rule().unwrap();
        assert!(all.pattern.fits(&key("a/b")));
        assert_eq!(all.target(&key("a/b/c")).app_and_name(), ("a/b", "c"));
        let live = source("live/ca*", "rtsp://h/{app}-{name}").rule().unwrap();
        assert!(live.pattern.fits(&key("live/cam")) && !live.pattern.fits(&key("live/x")));
        assert_eq!(live.target(&key("live/cam")).path_query, "/live-cam");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        let mut always = source("live/*", "rtsp://h/{name}");
        always.when = When::Always;
        let mut udp = source("live/x", "rtmp://h/a/b");
        udp.transport = Carries::Udp;
        let cases = [
            (source("live", "rtsp://h/x"), "needs an app and a name"),
            (source("a/*b*", "rtsp://h/x"), "one * only"),
            (source("live/x", "http://u:secret@h/x"), "must begin with"),
            (source("live/x", "rtsp://u:secret@/x"), "no valid host"),
            (source("live/x", "rtsp://u:secret@h:99999/x"), "no valid port"),
            (source("live/x", "rtsp://u:secret%@h/x"), "%25"),
            (source("live/x", "rtsp://{name}/x"), "no valid host"),
            (source("live/x", "rtsp://h/{nmae}"), "known are"),
            (source("live/x", "rtsp://h/{name"), "without a }"),
            (source("live/x", "rtmp://u:secret@h/a/b"), "no place for"),
            (source("live/x", "rtmp://h/a"), "APP/NAME"),
            (source("live/*", "rtsp://h/x"), "needs {stream}"),
            (source("live/x", "rtsp://h/a b"), "space"),
            (always, "on demand"),
            (udp, "one way only"),
        ];
        for (s, word) in cases {
            let error = s.rule().unwrap_err();
            assert!(error.contains(word) && !error.contains("secret"), "{}: {error}", s.url.0);
        }
    }
}
