//! What became of each session, for `ctl why`: the lines that the log has of it, and its numbers. Kept while it lives
//! and, of the sessions that ended last, for a while after.

use super::Node;
use super::session::{Part, Protocol, Session};
use crate::error::quote;
use crate::http::api::{self, SessionStory, StoryLine};
use crate::http::message::Response;
use crate::hub::SubscriberStats;
use crate::time::Time;
use std::collections::VecDeque;

/// The first lines of a story that are kept …
const FIRST: usize = 12;
/// … and the newest.
const NEWEST: usize = 28;
/// Bytes of one line.
const LINE: usize = 400;

/// The lines of one session.
#[derive(Clone, Debug, Default)]
pub struct Story {
    first: Vec<(Time, String)>,
    newest: VecDeque<(Time, String)>,
    left_out: u64,
}

impl Story {
    /// Adds a line. The first ones and the newest ones are kept.
    pub fn note(&mut self, at: Time, text: &str) {
        let mut end = text.len().min(LINE);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let line = (at, text.get(..end).unwrap_or_default().to_owned());
        if self.first.len() < FIRST {
            return self.first.push(line);
        }
        self.newest.push_back(line);
        if self.newest.len() > NEWEST {
            self.newest.pop_front();
            self.left_out += 1;
        }
    }

    /// The lines in order, with a word on those that were left out.
    fn lines(&self, since: Time) -> Vec<StoryLine> {
        let line = |(at, text): &(Time, String)| StoryLine {
            after_s: at.since(since).as_secs_f64(),
            text: text.clone(),
        };
        let mut lines: Vec<StoryLine> = self.first.iter().map(line).collect();
        if let Some((at, _)) = self.newest.front().filter(|_| self.left_out > 0) {
            let text = format!("({} lines were left out)", self.left_out);
            lines.push(StoryLine { after_s: at.since(since).as_secs_f64(), text });
        }
        lines.extend(self.newest.iter().map(line));
        lines
    }
}

/// A session that is over.
#[derive(Clone, Debug)]
pub struct Ended {
    /// As it was.
    pub session: Session,
    /// When it ended.
    pub at: Time,
}

fn frames_words(s: &SubscriberStats) -> String {
    let dropped: Vec<String> = s.dropped.iter().map(|(why, n)| format!("{n} {why}")).collect();
    let dropped = if dropped.is_empty() {
        "none left out".to_owned()
    } else {
        format!("left out: {}", dropped.join(", "))
    };
    format!(
        "frames: {} offered, {} handed over ({:.1} MB), {} waiting; {dropped}",
        s.offered,
        s.delivered.frames,
        s.delivered.bytes as f64 / 1e6,
        s.pending
    )
}

impl Node {
    /// `GET /api/v1/why/{session}`
    pub(super) fn api_why(&self, name: &str) -> Response {
        let found = match self.sessions.named(name) {
            Some(session) => Some((session, None)),
            None => self.sessions.ended(name).map(|e| (&e.session, Some(e.at))),
        };
        let Some((session, ended)) = found else {
            let kept = self.limits.sessions_kept;
            let text = format!(
                "this node has no session {} and remembers none; it keeps the {kept} that ended last \
                 (limits.sessions_kept), and each node knows only its own",
                quote(name)
            );
            return api::error(404, &text);
        };
        api::answer(&self.story_of(session, ended))
    }

    fn story_of(&self, s: &Session, ended: Option<Time>) -> SessionStory {
        let until = ended.unwrap_or(self.now);
        let age = until.since(s.since).as_secs_f64();
        let lines = s.story.lines(s.since);
        let what = match s.part {
            Part::AsksToPublish => "asked to publish",
            Part::Publishes { .. } => "published",
            Part::AsksToPlay => "asked to play",
            Part::Plays { .. } => "played",
        };
        let from = s.remote.map(|r| format!(" from {r}")).unwrap_or_default();
        let life = match ended {
            Some(at) => format!("it ended {:.1} s ago, after {age:.1} s", self.now.since(at).as_secs_f64()),
            None => format!("it has lived for {age:.1} s"),
        };
        let mut words = vec![format!("{} {what} {} by {}{from}; {life}", s.name(), s.key, s.protocol.name())];
        words.push(format!("right to do so: {}", s.grant.words(self.wall_s())));
        words.push(self.placed_words(s));
        match s.first_frame {
            Some(at) => {
                let ms = at.since(s.since).as_millis();
                words.push(format!("its first picture or sound was sent {ms} ms after it asked"));
            }
            None if !s.is_publisher() => words.push("no picture or sound was ever sent to it".to_owned()),
            None => {}
        }
        let rtt = s.rtt_ms.map_or("not measured".to_owned(), |ms| format!("{ms:.1} ms"));
        let loss = s.loss.map_or("not measured".to_owned(), |share| format!("{:.2} %", share * 100.0));
        words.push(format!(
            "{:.1} kB of media in, {:.1} kB out; round trip {rtt}, loss {loss}",
            s.bytes_in as f64 / 1e3,
            self.bytes_out(s) as f64 / 1e3
        ));
        let frames = match s.part {
            Part::Plays { subscriber, .. } if ended.is_none() => self.hub.subscriber_stats(subscriber),
            _ => s.frames.clone(),
        };
        words.extend(frames.as_ref().map(frames_words));
        if let Some(shown) = frames.as_ref().and_then(|f| f.shown) {
            let size = shown.size.map_or("of unknown size".to_owned(), |(w, h)| format!("{w}x{h}"));
            let what = if shown.thin { ": key frames only, for its link carries no more" } else { "" };
            words.push(format!("it is shown the rendition {size}{what}; {} could be shown now", shown.of));
        }
        words.extend(s.srtp.map(|name| format!("its media was encrypted by {name}")));
        if let Some(bits) = s.rtc.as_ref().and_then(|r| r.room) {
            words.push(format!("its link is taken to carry {} kbit/s", bits / 1_000));
        }
        if let Some(r) = &s.rtc {
            let counts = [
                (r.nacks, "packets were asked for again (NACK)"),
                (r.key_requests, "key frames were asked for"),
                (r.packets_lost, "packets of it never came"),
                (r.packets_late, "packets of it came too late"),
                (r.frames_damaged, "of its pictures were damaged by loss"),
                (r.frames_undecodable, "of its pictures lacked what they refer to"),
                (r.frames_too_large, "of its pictures were too large"),
                (r.frames_unsent, "frames could not be sent to it"),
                (r.discontinuities, "jumps of its timestamps"),
            ];
            words.extend(counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
        }
        words.extend(lines.iter().map(|l| format!("  +{:.3} s  {}", l.after_s, l.text)));
        let count = |(why, n): (&&'static str, &u64)| ((*why).to_owned(), *n);
        SessionStory {
            id: s.name(),
            protocol: s.protocol.name().to_owned(),
            stream: s.key.to_string(),
            ended: ended.is_some(),
            age_s: age,
            first_frame_ms: s.first_frame.map(|at| at.since(s.since).as_secs_f64() * 1e3),
            rtt_ms: s.rtt_ms,
            loss: s.loss,
            nacks: s.rtc.map(|r| r.nacks),
            dropped: frames.map(|f| f.dropped.iter().map(count).collect()).unwrap_or_default(),
            lines,
            words,
        }
    }

    /// How a session came to this node, as far as can be known here.
    fn placed_words(&self, s: &Session) -> String {
        if s.protocol == Protocol::Relay {
            return "it came from another node".to_owned();
        }
        if let Part::Publishes { epoch, .. } = s.part {
            return format!(
                "the manager granted this node the name under epoch {epoch}; `headwater ctl why-placed {}` there says why",
                s.key
            );
        }
        format!("`headwater ctl why-placed {}` at the manager says whether and why it sent it here", s.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_and_the_newest_are_kept() {
        let mut story = Story::default();
        for n in 0..100 {
            story.note(Time::from_millis(n), &format!("line {n}"));
        }
        let lines = story.lines(Time::ZERO);
        assert_eq!(lines.len(), FIRST + 1 + NEWEST);
        assert_eq!(
            (lines[0].text.as_str(), lines[FIRST].text.as_str()),
            ("line 0", "(60 lines were left out)")
        );
        assert_eq!(lines[FIRST + NEWEST].text, "line 99");
        story.note(Time::ZERO, &"ü".repeat(LINE));
        assert!(story.lines(Time::ZERO)[FIRST + NEWEST].text.len() <= LINE);
    }
}
