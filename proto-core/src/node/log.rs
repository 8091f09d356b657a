//! Lines for the operator.

use super::Node;
use super::authority::HIDDEN;
use super::session::SessionId;
use super::throttle::Verdict;
use crate::io::{Level, LogLine, Output};

impl Node {
    /// Writes a line about no session. `kind` is a fixed word; a flood of one kind is held back.
    pub(super) fn log(&mut self, level: Level, target: &'static str, kind: &'static str, text: String) {
        self.write(level, target, kind, None, None, text);
    }

    /// Writes a line about a session.
    pub(super) fn log_session(&mut self, level: Level, session: SessionId, kind: &'static str, text: String) {
        let Some(s) = self.sessions.get(session) else { return };
        let (target, name, stream) = (s.protocol.name(), s.name(), s.key.to_string());
        if let Some(s) = self.sessions.get_mut(session) {
            s.story.note(self.now, &text);
        }
        self.write(level, target, kind, Some(name), Some(stream), text);
    }

    /// Writes a line about a stream.
    pub(super) fn log_stream(&mut self, level: Level, stream: String, kind: &'static str, text: String) {
        self.write(level, "hub", kind, None, Some(stream), text);
    }

    fn write(
        &mut self,
        level: Level,
        target: &'static str,
        kind: &'static str,
        session: Option<String>,
        stream: Option<String>,
        mut text: String,
    ) {
        let hide = |text: &str| self.authority.policy.without_keys(text, HIDDEN);
        if let Some(hidden) = hide(&text) {
            text = hidden;
        }
        let stream = stream.map(|s| hide(&s).unwrap_or(s));
        match self.throttle.ask(kind, self.now) {
            Verdict::Hold => self.counters.drop("log", kind, 1),
            Verdict::Pass { held_back } => {
                if held_back > 0 {
                    text.push_str(&format!(" [{held_back} more lines like this were left out]"));
                }
                self.out.push_back(Output::Log(LogLine { level, target, session, stream, text }));
            }
        }
    }
}
