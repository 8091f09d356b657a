//! The log on standard error: one line a thing, aligned for people or JSON for machines.

use proto_core::io::{Level, LogLine};
use proto_core::node::config::{LogConfig, LogFormat, LogLevel};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// RFC 3339 in UTC with milliseconds; always of the same length, so that lines stay aligned and sort as text.
const STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Writes log lines of one node.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    format: LogFormat,
    level: Level,
    colour: bool,
    node: Option<Arc<str>>,
}

impl Log {
    /// A log as configured. Colour only where a person looks on and has not asked for none (no-color.org).
    pub(crate) fn new(config: &LogConfig) -> Log {
        let colour =
            std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let level = match config.level {
            LogLevel::Error => Level::Error,
            LogLevel::Warn => Level::Warn,
            LogLevel::Info => Level::Info,
            LogLevel::Debug => Level::Debug,
        };
        Log { format: config.format, level, colour, node: None }
    }

    /// The same log for one of several nodes in this process; each line then names the node.
    pub(crate) fn of_node(&self, node: &str) -> Log {
        Log { node: Some(node.into()), ..self.clone() }
    }

    /// Writes a line, unless its level is left out.
    pub(crate) fn line(&self, line: &LogLine) {
        if line.level <= self.level {
            let text = self.render(line, SystemTime::now());
            // Nobody is left to be told that standard error is gone.
            let _ = std::io::stderr().lock().write_all(text.as_bytes());
        }
    }

    /// Writes a line about the process itself.
    pub(crate) fn say(&self, level: Level, text: impl Into<String>) {
        self.line(&LogLine { level, target: "main", session: None, stream: None, text: text.into() });
    }

    fn render(&self, line: &LogLine, now: SystemTime) -> String {
        let ts = stamp(now);
        match self.format {
            LogFormat::Text => self.text(line, &ts),
            LogFormat::Json => self.json(line, &ts),
        }
    }

    fn text(&self, line: &LogLine, ts: &str) -> String {
        let (session, stream) =
            (line.session.as_deref().unwrap_or("-"), line.stream.as_deref().unwrap_or("-"));
        let word = level_name(line.level).to_uppercase();
        let (on, off) = match (self.colour, line.level) {
            (false, _) => ("", ""),
            (true, Level::Error) => ("\x1b[1;31m", "\x1b[0m"),
            (true, Level::Warn) => ("\x1b[33m", "\x1b[0m"),
            (true, Level::Info) => ("\x1b[32m", "\x1b[0m"),
            (true, Level::Debug) => ("\x1b[2m", "\x1b[0m"),
        };
        let mut out = format!("{ts} {on}{word:<5}{off} ");
        if let Some(node) = &self.node {
            // Writing to a String cannot fail.
            let _ = write!(out, "{node:<9} ");
        }
        let _ = write!(out, "{:<7} {session:<8} {stream:<10} ", line.target);
        // One line a thing, whatever the text holds: a line break could forge the next line.
        for c in line.text.chars() {
            if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
        }
        out.push('\n');
        out
    }

    fn json(&self, line: &LogLine, ts: &str) -> String {
        #[derive(Serialize)]
        struct Object<'a> {
            ts: &'a str,
            level: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            node: Option<&'a str>,
            target: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            session: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            stream: Option<&'a str>,
            text: &'a str,
        }
        let object = Object {
            ts,
            level: level_name(line.level),
            node: self.node.as_deref(),
            target: line.target,
            session: line.session.as_deref(),
            stream: line.stream.as_deref(),
            text: &line.text,
        };
        // Text and options of text always serialise.
        serde_json::to_string(&object).map(|s| s + "\n").unwrap_or_default()
    }
}

const fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
    }
}

fn stamp(now: SystemTime) -> String {
    // Fails only for years beyond 9999.
    OffsetDateTime::from(now).format(STAMP).unwrap_or_else(|_| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn line() -> LogLine {
        LogLine {
            level: Level::Info,
            target: "rtmp",
            session: Some("rtmp-12".into()),
            stream: Some("live/demo".into()),
            text: "publisher accepted: H.264\nforged \"line\"".into(),
        }
    }

    fn log(format: LogFormat) -> Log {
        Log { format, level: Level::Info, colour: false, node: None }
    }

    fn moment() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_395_723_050)
    }

    #[test]
    fn stamps_are_utc_with_milliseconds_and_all_of_one_length() {
        assert_eq!(stamp(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            stamp(SystemTime::UNIX_EPOCH + Duration::from_secs(951_782_400)),
            "2000-02-29T00:00:00.000Z"
        );
        assert_eq!(stamp(moment()), "2026-11-23T01:02:03.050Z");
    }

    #[test]
    fn a_text_line_is_aligned_and_stays_one_line() {
        assert_eq!(
            log(LogFormat::Text).render(&line(), moment()),
            "2026-11-23T01:02:03.050Z INFO  rtmp    rtmp-12  live/demo  publisher accepted: H.264\\nforged \"line\"\n"
        );
        let bare =
            LogLine { session: None, stream: None, level: Level::Error, target: "cluster", text: "x".into() };
        assert_eq!(
            log(LogFormat::Text).of_node("edge").render(&bare, moment()),
            "2026-11-23T01:02:03.050Z ERROR edge      cluster -        -          x\n"
        );
    }

    #[test]
    fn a_json_line_is_one_object() {
        let text = log(LogFormat::Json).of_node("origin").render(&line(), moment());
        assert_eq!(text.matches('\n').count(), 1);
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            object,
            serde_json::json!({
                "ts": "2026-11-23T01:02:03.050Z", "level": "info", "node": "origin", "target": "rtmp",
                "session": "rtmp-12", "stream": "live/demo",
                "text": "publisher accepted: H.264\nforged \"line\"",
            })
        );
    }

    #[test]
    fn colour_marks_the_level_only() {
        let coloured = Log { colour: true, ..log(LogFormat::Text) };
        assert!(coloured.render(&line(), moment()).contains("Z \x1b[32mINFO \x1b[0m rtmp "));
    }
}
