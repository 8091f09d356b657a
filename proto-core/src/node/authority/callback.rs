//! Asking the operator's callback, once for all who wait for the same answer, and again when an answer is over.

use super::Then;
use crate::auth::Identity;
use crate::auth::attempts::Print;
use crate::auth::callback::{Heard, Question, Verdict};
use crate::error::Reason;
use crate::http::message::{Method, Response};
use crate::io::Level;
use crate::node::fetch::Purpose;
use crate::node::session::SessionId;
use crate::node::{Alarm, Node};
use crate::time::Deadline;
use bytes::Bytes;
use std::time::Duration;

/// A session whose question could not be asked again is asked about after this.
const AGAIN: Duration = Duration::from_secs(2);

impl Node {
    /// Asks a question of the callback, and has `then` go on with the answer.
    pub(super) fn ask_callback(&mut self, question: Question, under_way: bool, then: Option<Then>) {
        let print = question.print;
        let body = Bytes::copy_from_slice(question.body().as_bytes());
        let entry = self.authority.asking.entry(print).or_insert_with(|| (question, Vec::new()));
        entry.1.extend(then);
        if under_way {
            return;
        }
        let place = self.authority.policy.callback().place().map(|(url, token)| (url.clone(), token.clone()));
        let Some((url, token)) = place else {
            let reason = Reason::local("auth_callback", "auth.callback is no address");
            return self.callback_answered(&print, Err(reason));
        };
        let mut headers = vec![
            ("Content-Type", "application/json".to_owned()),
            ("Accept", "application/json".to_owned()),
            ("User-Agent", concat!("Headwater/", env!("CARGO_PKG_VERSION")).to_owned()),
        ];
        if !token.is_empty() {
            headers.push(("Authorization", format!("Bearer {}", token.reveal())));
        }
        self.fetch(Purpose::Callback(print), &url, Method::Post, headers, body);
    }

    /// The callback answered, or could not be asked.
    pub(in crate::node) fn callback_answered(&mut self, print: &Print, answer: Result<Response, Reason>) {
        let Some((question, waiting)) = self.authority.asking.remove(print) else { return };
        let (now, now_s) = (self.now, self.wall_s());
        let heard = answer.as_ref().map(|r| Heard { status: r.status, body: &r.body });
        let verdict = self.authority.policy.answered(&question, heard, now, now_s);
        let counted = match &verdict {
            Verdict::Allow { .. } => "callback_allowed",
            Verdict::Refuse(_) => "callback_refused",
            Verdict::Failed(_) => "callback_failed",
        };
        self.counters.drop("auth", counted, 1);
        if let Verdict::Failed(refusal) = &verdict {
            let url = self.authority.policy.callback().place().map(|(url, _)| url.to_string());
            let so = match self.authority.policy.callback().lets_in_unasked() {
                true => "let in, as auth.callback_fallback says",
                false => "refused",
            };
            let why = &refusal.reason.text;
            let text = format!("{}: {why}; whoever asks is {so}", url.unwrap_or_default());
            self.log(Level::Warn, "auth", "auth_callback", text);
        }
        for then in waiting {
            match then {
                Then::Again(session) => self.asked_again(session, &verdict),
                other => self.go_on(other),
            }
        }
    }

    /// What a session runs by is over: the callback is asked again, and the session goes on meanwhile.
    pub(super) fn ask_again(&mut self, session: SessionId, question: Question) {
        use crate::auth::callback::Known;
        let callback = self.authority.policy.callback();
        callback.forget(&question);
        match callback.ask(&question, self.now) {
            // Others may have asked the same a moment ago.
            Known::Verdict(verdict) => self.asked_again(session, &verdict),
            Known::TooMany => self.ask_again_later(session),
            known => self.ask_callback(question, known == Known::UnderWay, Some(Then::Again(session))),
        }
    }

    fn ask_again_later(&mut self, session: SessionId) {
        let at = Deadline::new(self.now + AGAIN, "the callback is asked again about a session");
        self.timers.set(Alarm::Expires(session), at);
    }

    /// What the callback says of a session that runs.
    fn asked_again(&mut self, session: SessionId, verdict: &Verdict) {
        let now_s = self.wall_s();
        let grace = self.limits.auth_callback_grace_ms / 1_000;
        let Some(s) = self.sessions.get(session) else { return };
        let mut grant = s.grant.clone();
        let over = grant.ends_s.is_some_and(|ends| ends.saturating_add(grace) <= now_s);
        let reason = match verdict {
            Verdict::Allow { user, stream, ends_s } => {
                let same = grant.identity == Identity::Callback(user.clone());
                if same && grant.stream == *stream {
                    grant.ends_s = *ends_s;
                    return self.grant(session, grant);
                }
                Reason::peer("auth_revoked", "auth.callback says now that this is somebody or something else")
            }
            Verdict::Refuse(refusal) => Reason::peer("auth_revoked", refusal.reason.text.clone()),
            Verdict::Failed(_) if !over || self.authority.policy.callback().lets_in_unasked() => {
                return self.ask_again_later(session);
            }
            Verdict::Failed(refusal) => refusal.reason.clone(),
        };
        self.end_session(session, &reason);
    }
}
